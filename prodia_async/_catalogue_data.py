"""
What is known of each job type, read from ``catalogue.toml``, which says how it is written.

Reading it takes some ten milliseconds (measured), so it happens when somebody
first asks, and never at import; whoever runs an event loop asks in a thread.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Mark: TypeAlias = Literal["A", "B", "C", "I"]
"""
How sure a fact is: A stated by Prodia, B recorded from or tested against the
live service by others, C assumed by other people's code, I our inference.
"""

FieldKind: TypeAlias = Literal[
    "string", "integer", "number", "boolean", "strings", "object", "objects",
    "filename", "filenames", "jobs",
]  # fmt: skip
"""What a field holds; a filename is that of an input, and the plurals are arrays."""

CATALOGUE = Path(__file__).with_name("catalogue.toml")

SITE = "https://docs.prodia.com"


@dataclass(frozen=True, slots=True)
class Source:
    """
    Where a fact comes from.

    Attributes:
        mark: How sure it is; see `Mark`.
        where: The page, guide, model page or client that says so.
        url: That page's address, or ``""``.
    """

    mark: Mark
    where: str
    url: str = ""

    def __str__(self) -> str:
        return f"{self.mark}, {self.where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """
    One member of ``config`` (of the job itself for kind ``"jobs"``).

    Attributes:
        name: Its wire name.
        kind: What it holds.
        source: Where all of it comes from, but for `required`.
        required: How sure it is that it must be there; ``None`` when it need not.
        least: The least value of a number, characters of a string, members of
            an array; ``None`` where there is no end.
        most: The most, likewise.
        multiple_of: A number must be a multiple of this.
        choices: All that it may be; empty when anything.
        default: What the service fills in; ``None`` when nothing or unknown.
        always: What a typed helper sends when nothing is given; ``None``: nothing.
        excludes: Another field that must not stand beside it.
        note: What else is known, for people.
    """

    name: str
    kind: FieldKind
    source: Source
    required: Mark | None = None
    least: float | None = None
    most: float | None = None
    multiple_of: int | None = None
    choices: tuple[str | int, ...] = ()
    default: Any = None
    always: Any = None
    excludes: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """
    How many files a type works on, and of which kinds.

    Attributes:
        least: Fewest.
        most: Most; ``None`` when unknown.
        media: Media types that were seen; others may do, unless `source` is marked A
            and a limit of size comes with them.
        source: Where all of it comes from, but for `least`.
        least_source: Where `least` comes from.
        least_side: Fewest pixels of a picture's side.
        most_side: Most pixels of a picture's side.
        most_bytes: Most bytes of one file.
        most_megapixels: Most of all pictures together.
        note: What else is known, for people.
    """

    least: int
    media: tuple[str, ...]
    source: Source
    least_source: Source
    most: int | None = None
    least_side: int | None = None
    most_side: int | None = None
    most_bytes: int | None = None
    most_megapixels: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """
    What a type makes.

    Attributes:
        media: Media types, the first output's default first.
        source: Where this comes from.
        names: Filenames that were seen.
        note: What else is known, for people.
    """

    media: tuple[str, ...]
    source: Source
    names: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """
    A time in seconds or a price in dollars of one job, roughly.

    Attributes:
        low: The number, or the lower end.
        source: Where it comes from.
        high: The upper end, when there is a range.
    """

    low: float
    source: Source
    high: float | None = None

    def __str__(self) -> str:
        return f"{self.low:g}" if self.high is None else f"{self.low:g}-{self.high:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncPermit:
    """
    Whether ``POST /v2/job/async`` takes a type.

    Attributes:
        value: Whether it does.
        source: Where this comes from.
    """

    value: bool
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """
    Which values of several fields go together.

    Attributes:
        branches: Each names fields and what they may be; one of them must fit.
            A field that is not given fits every branch.
        source: Where this comes from.
    """

    branches: tuple[Mapping[str, tuple[str, ...]], ...]
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """
    One job type.

    Attributes:
        name: The wire name.
        operation: What it does, as the name says it: ``"txt2img"`` and so on.
        does: What it makes, in words.
        source: Where the name was found.
        inputs: The files it works on.
        outputs: What it makes.
        aliases: Other wire names of the same type.
        fields: Members of ``config`` that are known; the list may be incomplete.
        closed: Says that ``config`` takes no field but those; ``None`` when it may.
        closed_job: Whether `closed` holds for the members of the job itself too.
        permits_async: Whether it may run asynchronously; ``None`` when unknown.
        seconds: How long one job takes.
        dollars: What one job costs.
        one_of: Which values go together; ``None`` when nothing is known of that.
        note: What else is known, for people.
    """

    name: str
    operation: str
    does: str
    source: Source
    inputs: Inputs
    outputs: Outputs
    aliases: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    closed: Source | None = None
    closed_job: bool = False
    permits_async: AsyncPermit | None = None
    seconds: Hint | None = None
    dollars: Hint | None = None
    one_of: OneOf | None = None
    note: str = ""


@lru_cache(maxsize=1)
def job_types() -> Mapping[str, JobType]:
    """Return every job type by wire name, in the file's order; an alias is with its type."""
    return read_catalogue(CATALOGUE.read_text(encoding="utf-8"))


def read_catalogue(text: str) -> Mapping[str, JobType]:
    """
    Read a catalogue.

    Raises:
        ValueError: It is no TOML, or not in the form that its head describes;
            the message names the type and what is wrong.
    """
    table = tomllib.loads(text)
    reader = _Reader(
        sources={
            key: Source(
                each["mark"], each["where"], f"{SITE}{each['page']}" if "page" in each else ""
            )
            for key, each in table["sources"].items()
        },
        lists=table["lists"],
        operations=table["operations"],
        field_sets=table["field_sets"],
    )
    return MappingProxyType(
        {name: reader.job_type(name, facts) for name, facts in table["types"].items()}
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes facts of tables: what is named is looked up, what is unknown is an error."""

    sources: Mapping[str, Source]
    lists: Mapping[str, list[str]]
    operations: Mapping[str, Mapping[str, Any]]
    field_sets: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def job_type(self, name: str, facts: Mapping[str, Any]) -> JobType:
        try:
            return self._job_type(name, facts)
        except (KeyError, TypeError) as error:
            raise ValueError(f"the catalogue's {name} is not in its form: {error!r}") from error

    def _job_type(self, name: str, facts: Mapping[str, Any]) -> JobType:
        of_operation = self.operations[facts["operation"]]
        rest = {
            key: value
            for key, value in facts.items()
            if key not in {"fields", "fields_from", "one_of", "one_of_source"}
        }
        made = {
            "does": of_operation["does"],
            "inputs": self._inputs(rest.pop("inputs", of_operation["inputs"])),
            "outputs": Outputs(**self._looked_up(rest.pop("outputs", of_operation["outputs"]))),
            "source": self.sources[rest.pop("source")],
            "aliases": tuple(rest.pop("aliases", ())),
            "fields": tuple(self._fields(facts, of_operation)),
        }
        if "closed" in rest:
            made["closed"] = self.sources[rest.pop("closed")]
        if "permits_async" in rest:
            made["permits_async"] = AsyncPermit(**self._looked_up(rest.pop("permits_async")))
        for hint in ("seconds", "dollars"):
            if hint in rest:
                made[hint] = Hint(**self._looked_up(rest.pop(hint)))
        if "one_of" in facts:
            branches = tuple(
                MappingProxyType({field: tuple(values) for field, values in branch.items()})
                for branch in facts["one_of"]
            )
            made["one_of"] = OneOf(branches=branches, source=self.sources[facts["one_of_source"]])
        return JobType(name=name, **made, **rest)

    def _inputs(self, facts: Mapping[str, Any]) -> Inputs:
        looked_up = self._looked_up(facts)
        least_source = facts.get("least_source", facts["source"])
        return Inputs(**(looked_up | {"least_source": self.sources[least_source]}))

    def _fields(self, facts: Mapping[str, Any], of_operation: Mapping[str, Any]) -> Iterator[Field]:
        """Yield a type's own fields, with those of its sets and its operation, each name once."""
        own = facts.get("fields", {})
        merged: dict[str, Mapping[str, Any]] = {}
        # A closed type has its page's fields and no others.
        if "closed" not in facts:
            merged.update(of_operation.get("fields", {}))
        for name in facts.get("fields_from", ()):
            merged.update(self.field_sets[name])
        ordered = {name: own.get(name, merged.get(name)) for name in ("prompt", *own, *merged)}
        for name, each in ordered.items():
            if each is not None:
                yield Field(name=name, **self._looked_up(each))

    def _looked_up(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Put a source in the place of its key, and a list in the place of its @name."""
        looked_up: dict[str, Any] = {}
        for key, value in facts.items():
            if key == "source":
                looked_up[key] = self.sources[value]
            elif isinstance(value, str) and value.startswith("@"):
                looked_up[key] = tuple(self.lists[value[1:]])
            else:
                looked_up[key] = tuple(value) if isinstance(value, list) else value
        return looked_up
