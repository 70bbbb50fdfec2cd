"""
Look-ups in the catalogue of job types, and what it has against a job.

Only facts marked A, stated by Prodia itself, count against a job (`problems`).
What others recorded makes a warning (`doubts`). What the catalogue does not
know always passes, since the service gains job types and fields faster than
any table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any, assert_never, cast

import anyio.to_thread

from ._catalogue_data import job_types
from ._show import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._catalogue_data import Field, FieldKind, JobType, Mark

_ABSENT = object()

_PROBLEM: frozenset[Mark] = frozenset({"A"})
_DOUBT: frozenset[Mark] = frozenset({"B"})

CLOSE = 0.84
"""
How alike two names must be for one to be a slip of the other, by difflib's
ratio. Chosen: of the known names no two are taken for each other's slips
but for versions and operations, and one wrong letter of twenty is found.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentInput:
    """A file that comes with a job, as far as it is known: its bytes, and a picture's sides."""

    name: str
    media_type: str | None = None
    size: int | None = None
    pixels: tuple[int, int] | None = None


@lru_cache(maxsize=1)
def _by_name() -> Mapping[str, JobType]:
    return {name: each for each in job_types().values() for name in (each.name, *each.aliases)}


def read_catalogue() -> None:
    """Read it, if that was not done yet; blocks for some ten milliseconds (measured)."""
    _by_name()


def catalogue_is_read() -> bool:
    """Return whether the next look-up costs nothing."""
    return _by_name.cache_info().currsize > 0


async def load_catalogue() -> None:
    """Have it read, if that was not done yet, and not on the event loop."""
    if not catalogue_is_read():
        await anyio.to_thread.run_sync(read_catalogue)


def job_type(name: object) -> JobType | None:
    """Return what is known of a job type, by its name or an alias; ``None`` when nothing is."""
    return _by_name().get(name) if isinstance(name, str) else None


def names() -> list[str]:
    """Return every known name, aliases too, sorted."""
    return sorted(_by_name())


def matching(text: str) -> list[JobType]:
    """Return the types whose name, alias or operation contains ``text``, in any case, by name."""
    wanted = text.strip().lower()
    return [
        each
        for _, each in sorted(job_types().items())
        if any(wanted in word for word in (each.name, *each.aliases, each.operation))
    ]


def near_misses(name: str) -> list[str]:
    """
    Return the known names that ``name`` may be a slip of, likeliest first, at most three.

    None for a known name, nor for one that differs from a known one in its
    numbers alone: that is a new version rather than a slip.
    """
    known = _by_name()
    if name in known or _numberless(name) in {_numberless(each) for each in known}:
        return []
    return get_close_matches(name, known, n=3, cutoff=CLOSE)


def _numberless(name: str) -> str:
    return re.sub(r"[0-9]+", "0", name)


def input_limit(name: object) -> int | None:
    """Return the most inputs that a type is documented to take; ``None`` when that is unknown."""
    known = job_type(name)
    if known is None or known.inputs.source.mark not in _PROBLEM:
        return None
    return known.inputs.most


def limits_pixels(name: object) -> bool:
    """Return whether anything is known of how large a type's pictures may be."""
    known = job_type(name)
    return known is not None and any(
        (known.inputs.least_side, known.inputs.most_side, known.inputs.most_megapixels)
    )


def problems(job: Mapping[str, Any], inputs: Sequence[SentInput] = ()) -> list[str]:
    """
    Say everything that is documented to be wrong with a job.

    Args:
        job: Its wire form.
        inputs: The files that come with it, in order.

    Returns:
        One sentence without a full stop for each problem; empty when none is
        known. For a type that the catalogue does not know that is nothing,
        unless its name is a slip of a known one.
    """
    name = job.get("type")
    known = job_type(name)
    if known is not None:
        return list(_Check(_PROBLEM, inputs).job(known, job))
    near = near_misses(name) if isinstance(name, str) else []
    return [f"there is no such type; did you mean {' or '.join(near)}?"] if near else []


def doubts(job: Mapping[str, Any], inputs: Sequence[SentInput] = ()) -> list[str]:
    """
    Say what is likely to be wrong with a job, though no page says so for certain.

    Returns:
        As `problems` does, of what others recorded from the live service, of
        fields that only sibling types are known to take, and of slips.
    """
    known = job_type(job.get("type"))
    if known is None:
        return []
    return [*_Check(_DOUBT, inputs).job(known, job), *_strange_fields(known, job.get("config"))]


def _strange_fields(known: JobType, config: object) -> Iterator[str]:
    """Name fields that the type is not known to take, where somebody's slip is likely."""
    if not isinstance(config, Mapping) or known.closed is not None:
        return
    own = [field.name for field in known.fields]
    elsewhere = {field.name for each in job_types().values() for field in each.fields}
    for name in config:
        if not isinstance(name, str) or name in own:
            continue
        near = get_close_matches(name, own, n=1, cutoff=CLOSE - 0.1)
        if near:
            yield f"config.{name} is not known; did you mean {near[0]}?"
        elif name in elsewhere:
            yield f"config.{name} is known of other types only, and may have no effect"


@dataclass(frozen=True, slots=True)
class _Check:
    """Holds jobs against the facts of certain marks."""

    marks: frozenset[Mark]
    inputs: Sequence[SentInput]

    def job(self, known: JobType, job: Mapping[str, Any]) -> Iterator[str]:
        yield from self._counts(known)
        yield from self._files(known)
        yield from self._config(known, job, "", names_too=True)

    def _counts(self, known: JobType) -> Iterator[str]:
        takes, count = known.inputs, len(self.inputs)
        if takes.most is not None and takes.source.mark in self.marks and count > takes.most:
            yield f"it takes at most {_inputs(takes.most)}, not {count}"
        if takes.least_source.mark in self.marks and count < takes.least:
            yield f"it needs at least {_inputs(takes.least)}, not {count}"

    def _files(self, known: JobType) -> Iterator[str]:
        takes = known.inputs
        if takes.source.mark not in self.marks:
            return
        for each in self.inputs:
            yield from _file_problems(takes.media, each)
            if each.pixels is not None:
                width, height = each.pixels
                span = _span(takes.least_side, takes.most_side)
                low, high = takes.least_side or 0, takes.most_side or max(each.pixels)
                if span and not low <= min(each.pixels) <= max(each.pixels) <= high:
                    yield (
                        f"{shown(each.name)} must have sides of {span} pixels, not {width}x{height}"
                    )
            if takes.most_bytes and each.size is not None and each.size > takes.most_bytes:
                yield (
                    f"{shown(each.name)} must have at most {takes.most_bytes:,} bytes, "
                    f"not {each.size:,}"
                )
        if takes.most_megapixels:
            sides = [each.pixels for each in self.inputs if each.pixels is not None]
            together = sum(width * height for width, height in sides) / 1e6
            if together > takes.most_megapixels:
                yield (
                    f"its pictures must have at most {takes.most_megapixels:g} megapixels "
                    f"together, not {together:.1f}"
                )

    def _config(
        self, known: JobType, job: Mapping[str, Any], path: str, *, names_too: bool
    ) -> Iterator[str]:
        """Check all but the files; without ``names_too``, names of inputs are left alone."""
        config = job.get("config")
        if config is None:
            config = {}
        elif not isinstance(config, Mapping):
            if "A" in self.marks:
                yield f"{path}config must be a mapping, not {shown(config)}"
            return
        for field in known.fields:
            beside_type = field.kind == "jobs"
            where = f"{path}{field.name}" if beside_type else f"{path}config.{field.name}"
            value = config.get(field.name, _ABSENT)
            if beside_type:  # the live service takes it in config as well
                value = job.get(field.name, value)
            if value is _ABSENT:
                if field.required in self.marks:
                    yield f"{where} is required"
            else:
                yield from self._value(field, value, where, config, names_too=names_too)
        if known.one_of is not None and known.one_of.source.mark in self.marks:
            yield from _combination_problems(known, config, path)
        if known.closed is not None and known.closed.mark in self.marks:
            yield from _unknown_fields(known, job, config, path)

    def _value(
        self,
        field: Field,
        value: object,
        where: str,
        config: Mapping[str, Any],
        *,
        names_too: bool,
    ) -> Iterator[str]:
        wrong = _misfit(field, value) if field.source.mark in self.marks else None
        if wrong is not None:
            yield f"{where} must be {wrong}"
        elif field.kind == "jobs":
            yield from self._steps(value if _is_kind("jobs", value) else ())
        elif field.kind in {"filename", "filenames"} and names_too and "A" in self.marks:
            yield from self._name_problems(where, value)
        if field.source.mark in self.marks and field.excludes in config:
            yield f"{where} must not stand beside {field.excludes}"

    def _steps(self, steps: object) -> Iterator[str]:
        for number, step in enumerate(cast("Sequence[Any]", steps)):
            known = job_type(step.get("type")) if isinstance(step, Mapping) else None
            # What a step works on, and under which name, is not documented; nor is
            # a workflow within a workflow.
            if known is not None and "jobs" not in step:
                yield from self._config(known, step, f"jobs[{number}].", names_too=False)

    def _name_problems(self, where: str, value: object) -> Iterator[str]:
        have = [each.name for each in self.inputs]
        for name in value if isinstance(value, list | tuple) else [value]:
            # An address or a data URI is no name; the service decides about it.
            if isinstance(name, str) and name not in have and ":" not in name:
                which = shown(have) if have else "there are none"
                yield f"{where} names {shown(name)}, which no input bears; inputs: {which}"


def _inputs(count: int) -> str:
    return "1 input" if count == 1 else f"{count} inputs"


def _file_problems(media: Sequence[str], each: SentInput) -> Iterator[str]:
    """Compare the kind of a file; only a kind that is not there at all is a mistake for sure."""
    kinds = {name.partition("/")[0] for name in media}
    kind = (each.media_type or "").partition("/")[0]
    if kind in {"image", "video", "audio"} and kinds and kind not in kinds:
        yield f"{shown(each.name)} must be one of {', '.join(media)}, not {each.media_type}"


def _combination_problems(known: JobType, config: Mapping[str, Any], path: str) -> Iterator[str]:
    assert known.one_of is not None  # noqa: S101  (the caller looked)
    branches = known.one_of.branches
    if not any(
        all(field not in config or config[field] in values for field, values in branch.items())
        for branch in branches
    ):
        given = {field: config[field] for field in branches[0] if field in config}
        allowed = " or ".join(
            " with ".join(f"{field} {'/'.join(values)}" for field, values in branch.items())
            for branch in branches
        )
        yield f"{path}config must have {allowed}, not {shown(given)}"


def _unknown_fields(
    known: JobType, job: Mapping[str, Any], config: Mapping[str, Any], path: str
) -> Iterator[str]:
    own = [field.name for field in known.fields]
    extra = [name for name in config if name not in own]
    if extra:
        near = get_close_matches(str(extra[0]), own, n=1, cutoff=CLOSE - 0.1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        strange = ", ".join(map(shown, extra))
        yield f"{path}config takes no {strange}, only {', '.join(own)}{hint}"
    beside = [shown(name) for name in job if name not in {"type", "config"}]
    if beside and known.closed_job:
        yield f"{path.rstrip('.') or 'the job'} takes no {', '.join(beside)}, only type and config"


# Fields.

_KINDS: Mapping[FieldKind, str] = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "True or False",
    "strings": "a list of strings",
    "object": "a mapping",
    "objects": "a list of mappings",
    "filename": "the name of an input",
    "filenames": "a list of names of inputs",
    "jobs": "a list of jobs",
}


def described(field: Field) -> str:
    """
    Say what a field may hold, in a few words.

    Returns:
        For instance ``"an integer 1 to 4"``, ``"a string of 3 to 4096 characters"``.
    """
    if field.choices:
        return f"one of {', '.join(map(repr, field.choices))}"
    text = _KINDS[field.kind]
    span = _span(field.least, field.most)
    if span and field.kind in {"integer", "number"}:
        text = f"{text} {span}"
    elif span and field.kind == "string":
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
    if isinstance(value, int | float):
        size: float = value
    else:
        size = len(cast("Sequence[object]", value))
    low, high = field.least, field.most
    out_of_range = (low is not None and size < low) or (high is not None and size > high)
    if out_of_range or (field.multiple_of and size % field.multiple_of):
        return f"{described(field)}, not {'of ' * isinstance(value, str)}{shown(size)}"
    return None


def _is_kind(kind: FieldKind, value: object) -> bool:
    match kind:
        case "string" | "filename":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "integer":
            # JSON Schema counts 4.0 as an integer.
            whole = isinstance(value, float) and value.is_integer()
            return whole or (isinstance(value, int) and not isinstance(value, bool))
        case "strings" | "filenames":
            return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
        case "object":
            return isinstance(value, Mapping)
        case "objects" | "jobs":
            return isinstance(value, list | tuple) and all(
                isinstance(each, Mapping) for each in value
            )
        case _:
            assert_never(kind)
