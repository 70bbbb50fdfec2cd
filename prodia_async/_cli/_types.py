"""``types``: what job types there are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .._catalogue import described, job_type, matching, names, near_misses
from .._catalogue_data import Source
from ._app import app, wrong
from ._names import complete_type, near_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
            metavar="FILTER|NAME",
            help="Part of a name or of an operation, for instance img2vid; or a whole name.",
            autocompletion=complete_type,
        ),
    ] = "",
    *,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print all that is known as JSON: a list, or one object for a name."
        ),
    ] = False,
) -> None:
    """
    List the job types that are known, or tell all that is known of one.

    A table on a terminal; else lines of tab-separated columns: name,
    operation, inputs, outputs, async, seconds, price, with - for unknown.
    Types that are not listed can be used all the same.
    """
    found = job_type(wanted) or job_type(f"inference.{wanted}")
    if found is not None:
        as_text = "\n".join(_type_lines(found))
        typer.echo(json.dumps(found, indent=2, default=_plain) if as_json else as_text)
        return
    kinds = matching(wanted)
    if not kinds:
        near = near_misses(wanted) or near_words(wanted.lower(), names())
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        wrong("types", f"knows no job type with {wanted!r} in its name{hint}")
    if as_json:
        typer.echo(json.dumps(kinds, indent=2, default=_plain))
        return
    rows = [_type_row(kind) for kind in kinds]
    say = Console(highlight=False)
    if not say.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
    elif say.width < max(len(row[0]) for row in rows):
        for row in rows:
            typer.echo(row[0])  # the terminal wraps it, and it can be copied whole
    else:
        say.print(_table(rows, say.width))


def _table(rows: Sequence[tuple[str, ...]], width: int) -> Table:
    """Make a table of as many columns as there is room for; no name is ever broken in two."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    room = width
    for number, title in enumerate(_TYPE_COLUMNS):
        cells = [row[number] for row in rows]
        room -= max(map(len, (title, *cells))) + 2
        if number and room < -2:  # the last one needs no space behind it
            break
        table.add_column(title, no_wrap=True, overflow="ignore")
    for row in rows:
        table.add_row(*row[: len(table.columns)])
    return table


def _plain(value: Any) -> Any:
    """Return what JSON has no word for in an entry of the catalogue in words that it has."""
    if isinstance(value, Source):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    return {each.name: getattr(value, each.name) for each in fields(value)}


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
    parts = [described(field)]
    if field.default is not None:
        parts.append(f"default {json.dumps(field.default)}")
    if field.excludes:
        parts.append(f"not beside {field.excludes}")
    if field.required:
        parts.append(f"required ({field.required})")
    return "; ".join(parts)
