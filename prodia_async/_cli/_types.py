"""``types``: what job types there are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ._app import app, wrong
from ._names import complete_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .._catalogue_data import Field, Inputs, JobType

_TYPE_COLUMNS = ("name", "operation", "inputs", "outputs", "async", "seconds", "price")
_UNKNOWN = "-"
_PERMITS = {True: "yes", False: "no", None: _UNKNOWN}
_MARKS = (
    "A documented by Prodia, B recorded from or tested against the live service, "
    "C assumed by other clients, I our inference"
)


@app.command("types")
def _types(
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="[FILTER|NAME]",
            help="Part of a name or of an operation, for instance img2vid; or a whole name.",
            autocompletion=complete_type,
        ),
    ] = "",
) -> None:
    """
    List the job types that are known, or tell all that is known of one.

    A table on a terminal; else lines of tab-separated columns: name,
    operation, inputs, outputs, async, seconds, price, with - for unknown.
    Types that are not listed can be used all the same.
    """
    from .._catalogue import job_type, matching  # noqa: PLC0415  (only this needs it)

    found = job_type(wanted) or job_type(f"inference.{wanted}")
    if found is not None:
        for line in _type_lines(found):
            typer.echo(line)
        return
    rows = [_type_row(kind) for kind in matching(wanted)]
    if not rows:
        wrong("types", f"knows no job type with {wanted!r} in its name")
    say = Console(highlight=False)
    if not say.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in _TYPE_COLUMNS:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    say.print(table)


def _type_row(kind: JobType) -> tuple[str, ...]:
    return (
        kind.name,
        kind.operation,
        _input_count(kind.inputs),
        ", ".join(_main_kinds(kind.outputs.media)) or _UNKNOWN,
        _PERMITS[kind.permits_async.value if kind.permits_async else None],
        str(kind.seconds or _UNKNOWN),
        f"${kind.dollars}" if kind.dollars else _UNKNOWN,
    )


def _input_count(inputs: Inputs) -> str:
    if inputs.most is None:
        return f"{inputs.least}+"
    return f"{inputs.least}" if inputs.least == inputs.most else f"{inputs.least}-{inputs.most}"


def _main_kinds(kinds: Iterable[str]) -> Iterable[str]:
    """Return one media type for pictures, one for text and so on: the default."""
    by_family: dict[str, str] = {}
    for kind in kinds:
        by_family.setdefault(kind.partition("/")[0], kind)
    return by_family.values()


def _type_lines(kind: JobType) -> Iterator[str]:
    yield f"{kind.name}  ({kind.source})"
    for alias in kind.aliases:
        yield f"also {alias}"
    yield ""
    yield f"operation  {kind.operation}"
    takes, makes = kind.inputs, kind.outputs
    of_kinds = f" of {', '.join(takes.media)}" if takes.media else ""
    yield f"inputs     {_input_count(takes)}{of_kinds}  (most: {takes.source})"
    if takes.least_source != takes.source:
        yield f"           (least: {takes.least_source})"
    if takes.note:
        yield f"           {takes.note}"
    yield f"outputs    {', '.join(makes.media) or makes.note or 'none'}  ({makes.source})"
    if makes.names:
        yield f"           named {', '.join(makes.names)}"
    if makes.media and makes.note:
        yield f"           {makes.note}"
    permit = kind.permits_async
    yield (
        f"async      {_PERMITS[permit.value]}  ({permit.source})"
        if permit
        else ("async      unknown")
    )
    for name, unit, hint in (("seconds", "", kind.seconds), ("price", "$", kind.dollars)):
        yield f"{name:<9}  " + (f"{unit}{hint}  ({hint.source})" if hint else "unknown")
    if kind.note:
        yield f"note       {kind.note}"
    yield ""
    yield from _field_lines(kind)
    yield ""
    yield f"{_MARKS}."


def _field_lines(kind: JobType) -> Iterator[str]:
    if not kind.fields:
        yield "No field of its config is known."
        return
    yield "config"
    for field in kind.fields:
        yield f"  {field.name}: {_field_text(field)}  ({field.source})"
        if field.note:
            yield f"    {field.note}"
    if kind.closed is None:
        yield "  There may be other fields."
    else:
        yield f"  No other field is taken.  ({kind.closed})"


def _field_text(field: Field) -> str:
    from .._catalogue import described  # noqa: PLC0415  (only this needs it)

    parts = [described(field)]
    if field.default is not None:
        parts.append(f"default {json.dumps(field.default)}")
    if field.excludes:
        parts.append(f"not beside {field.excludes}")
    if field.required:
        parts.append(f"required ({field.required})")
    return "; ".join(parts)
