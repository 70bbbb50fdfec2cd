"""
Look-ups in the catalogue of job types, and what it has against a job.

Nothing here is imported before it is needed: the table behind it takes some
milliseconds to build, which those who never ask do not pay.

Only facts marked A, stated by Prodia itself, count against a job. What the
catalogue does not know always passes, since the service gains job types and
fields faster than any table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, assert_never, cast

from ._catalogue_data import JOB_TYPES
from ._errors import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._catalogue_data import Field, JobType, Kind

_BY_NAME = {name: each for each in JOB_TYPES.values() for name in (each.name, *each.aliases)}

_ABSENT = object()


def job_type(name: object) -> JobType | None:
    """Return what is known of a job type, by its name or an alias; ``None`` when nothing is."""
    return _BY_NAME.get(name) if isinstance(name, str) else None


def names() -> list[str]:
    """Return every known name, aliases too, sorted."""
    return sorted(_BY_NAME)


def matching(text: str) -> list[JobType]:
    """Return the types whose name, alias or operation contains ``text``, in any case, by name."""
    wanted = text.strip().lower()
    return [
        each
        for _, each in sorted(JOB_TYPES.items())
        if any(wanted in word for word in (each.name, *each.aliases, each.operation))
    ]


def problems(job: Mapping[str, Any], *, inputs: int, input_names: Sequence[str]) -> list[str]:
    """
    Say everything that is documented to be wrong with a job.

    Args:
        job: Its wire form.
        inputs: How many inputs come with it.
        input_names: The names they are sent under.

    Returns:
        One sentence without a full stop for each problem; empty when none is
        known, and for types that the catalogue does not know.
    """
    kind = job_type(job.get("type"))
    if kind is None:
        return []
    return [*_count_problems(kind, inputs), *_job_problems(kind, job, "", input_names)]


def _count_problems(kind: JobType, count: int) -> Iterator[str]:
    takes = kind.inputs
    if takes.most is not None and takes.source.mark == "A" and count > takes.most:
        yield f"it takes at most {_inputs(takes.most)}, not {count}"
    if takes.least_source.mark == "A" and count < takes.least:
        yield f"it needs at least {_inputs(takes.least)}, not {count}"


def _inputs(count: int) -> str:
    return "1 input" if count == 1 else f"{count} inputs"


def _job_problems(
    kind: JobType, job: Mapping[str, Any], path: str, input_names: Sequence[str] | None
) -> Iterator[str]:
    """Check all but the count; without ``input_names``, names of inputs are left alone."""
    config = job.get("config")
    if config is None:
        config = {}
    elif not isinstance(config, Mapping):
        yield f"{path}config must be a mapping, not {shown(config)}"
        return
    for field in kind.fields:
        beside_type = field.kind == "jobs"
        where = f"{path}{field.name}" if beside_type else f"{path}config.{field.name}"
        value = (job if beside_type else config).get(field.name, _ABSENT)
        if value is _ABSENT:
            if field.required == "A":
                yield f"{where} is required"
            continue
        wrong = _misfit(field, value) if field.source.mark == "A" else None
        if wrong is not None:
            yield f"{where} must be {wrong}"
        elif beside_type:
            yield from _step_problems(value)
        elif field.kind in {"filename", "filenames"} and input_names is not None:
            yield from _name_problems(where, value, input_names)
        if field.excludes in config:
            yield f"{where} must not stand beside {field.excludes}"
    yield from _unknown_fields(kind, job, config, path)


def _step_problems(steps: Sequence[Any]) -> Iterator[str]:
    for number, step in enumerate(steps):
        kind = job_type(step.get("type")) if isinstance(step, Mapping) else None
        # What a step works on, and under which name, is not documented; nor is
        # a workflow within a workflow.
        if kind is not None and "jobs" not in step:
            yield from _job_problems(kind, step, f"jobs[{number}].", None)


def _name_problems(where: str, value: object, input_names: Sequence[str]) -> Iterator[str]:
    for name in value if isinstance(value, list | tuple) else [value]:
        # An address or a data URI is no name; the service decides about it.
        if isinstance(name, str) and name not in input_names and ":" not in name:
            have = shown(list(input_names)) if input_names else "there are none"
            yield f"{where} names {shown(name)}, which no input bears; inputs: {have}"


def _unknown_fields(
    kind: JobType, job: Mapping[str, Any], config: Mapping[str, Any], path: str
) -> Iterator[str]:
    if kind.closed is None or kind.closed.mark != "A":
        return
    known = [field.name for field in kind.fields]
    extra = [shown(name) for name in config if name not in known]
    if extra:
        yield f"{path}config takes no {', '.join(extra)}, only {', '.join(known)}"
    beside = [shown(name) for name in job if name not in {"type", "config"}]
    if beside and kind.closed_job:
        yield f"{path.rstrip('.') or 'the job'} takes no {', '.join(beside)}, only type and config"


# Fields.

_KINDS: Mapping[Kind, str] = {
    "text": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "True or False",
    "texts": "a list of texts",
    "filename": "the name of an input",
    "filenames": "a list of names of inputs",
    "jobs": "a list of jobs",
}


def described(field: Field) -> str:
    """
    Say what a field may hold, in a few words.

    Returns:
        For instance ``"a whole number 1 to 4"``, ``"a text of 3 to 4096 characters"``.
    """
    if field.choices:
        return f"one of {', '.join(map(repr, field.choices))}"
    text = _KINDS[field.kind]
    span = _span(*field.between)
    if span and field.kind in {"integer", "number"}:
        text = f"{text} {span}"
    elif span and field.kind == "text":
        text = f"{text} of {span} characters"
    elif span:
        text = f"{text}, {span} of them"
    return f"{text}, a multiple of {field.multiple_of}" if field.multiple_of else text


def _span(low: float | None, high: float | None) -> str:
    match low, high:
        case None, None:
            return ""
        case None, _:
            return f"at most {high}"
        case _, None:
            return f"at least {low}"
        case _:
            return f"{low} to {high}"


def _misfit(field: Field, value: object) -> str | None:
    """Return what the field must be and what it is instead, or ``None`` if it fits."""
    if not _is_kind(field.kind, value) or (field.choices and value not in field.choices):
        return f"{described(field)}, not {shown(value)}"
    size = value if isinstance(value, int | float) else len(cast("Sequence[object]", value))
    low, high = field.between
    out_of_range = (low is not None and size < low) or (high is not None and size > high)
    if out_of_range or (field.multiple_of and size % field.multiple_of):
        return f"{described(field)}, not {'of ' * isinstance(value, str)}{shown(size)}"
    return None


def _is_kind(kind: Kind, value: object) -> bool:
    match kind:
        case "text" | "filename":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "integer":
            # JSON Schema counts 4.0 as an integer.
            whole = isinstance(value, float) and value.is_integer()
            return whole or (isinstance(value, int) and not isinstance(value, bool))
        case "texts" | "filenames":
            return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
        case "jobs":
            return isinstance(value, list | tuple) and all(
                isinstance(each, Mapping) for each in value
            )
        case _:
            assert_never(kind)
