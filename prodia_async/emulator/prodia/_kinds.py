"""What a job type is, and its schema."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._schema import Schema

Work = Literal[
    "nothing",
    "scene",
    "restyle",
    "compose",
    "cutout",
    "segment",
    "mask",
    "masks",
    "enlarge",
    "restore",
    "swap",
    "label",
    "vector",
    "film",
    "moderate",
    "serial",
]
"""How the outputs are made: see `_studio`."""

Medium = Literal["image", "video", "audio"]
"""What an input file can be."""

PICTURES = ("image/jpeg", "image/png", "image/webp")
"""The types a picture can be asked for in. Source: guide "Output Image Formats"."""


Closed = Literal["", "config", "everywhere", "unevaluated"]
"""
Where a schema refuses unknown members: nowhere, in ``config``, at the top too,
or at both by ``unevaluatedProperties``, which has words of its own.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """One job type."""

    name: str
    """The wire name."""
    aliases: tuple[str, ...] = ()
    """Other names its schema takes for the same thing."""
    work: Work
    """How its outputs are made."""
    config: Schema = field(default_factory=dict)
    """JSON Schema of ``config``; ``default`` members fill the result."""
    closed: Closed = ""
    """Where unknown members are refused."""
    computed: Mapping[str, Any] = field(default_factory=dict)
    """Constants the service adds to the result's ``config``."""
    before: Mapping[str, Any] = field(default_factory=dict)
    """
    Values that are filled in before the schema is looked at, unless `Behaviour.strict_schemas`
    says otherwise.
    """
    inputs: tuple[int, int] = (0, 0)
    """Fewest and most input files one job may use."""
    takes: tuple[Medium, ...] = ("image",)
    """What those files may be."""
    most_of: Mapping[Medium, int] = field(default_factory=dict)
    """The most files of one medium, where that is limited too."""
    formats: tuple[str, ...] = ()
    """File types that an input picture may have; empty: any that can be read."""
    sides: tuple[int, ...] | None = None
    """Fewest and most pixels of either side of an input picture, if limited."""
    most_bytes: int | None = None
    """Of one input, if limited (413 beyond)."""
    max_pixels: int | None = None
    """Most pixels of all input pictures together (413 beyond), if limited."""
    seeded: bool = False
    """Whether a seed is made when none is given."""
    native: str = "image/jpeg"
    """Media type of the first output when none is asked for."""
    permits_async: bool = True
    """Whether it may be sent to ``/v2/job/async``."""
    product: str
    """Product code in ``price``; ``{size}`` and ``{steps}`` are filled."""
    dollars: float
    """Price of one job."""
    dollars_by: tuple[str, Mapping[str, float]] | None = None
    """A config field and the prices by its value, where they differ."""
    seconds: float | None = None
    """How long the pages say that it takes, where they do."""
    page: str = ""
    """Where its facts come from, below docs.prodia.com; empty: from clients alone."""
    invented: str = ""
    """What of it is made up, because no page tells."""
    family: str = ""
    """Its schema is checked in one ``oneOf`` with those of this family, if any."""
    siblings: tuple[Schema, ...] = field(default=(), repr=False)
    """Their schemas."""
    schema: Schema = field(init=False, repr=False)
    """JSON Schema of the whole job; made from the others."""

    def __post_init__(self) -> None:
        schema = job_schema(self)
        if self.siblings:
            schema = {"oneOf": [schema, *self.siblings]}
        object.__setattr__(self, "schema", schema)

    def with_siblings(self, schemas: Sequence[Schema]) -> JobType:
        """
        Make the same type, checked together with others.

        Args:
            schemas: Of the others.
        """
        return replace(self, siblings=tuple(schemas))

    @property
    def offers(self) -> tuple[str, ...]:
        """Media types its first output can be asked for in."""
        return PICTURES if self.native in {*PICTURES, "application/json"} else (self.native,)

    @property
    def filename_fields(self) -> tuple[str, ...]:
        """Members of ``config`` whose values name input files, in schema order."""
        return tuple(
            name
            for name, schema in self.config.get("properties", {}).items()
            if "filename" in (schema.get("format"), schema.get("items", {}).get("format"))
        )

    def price(self, config: Mapping[str, Any]) -> float:
        """
        Return what one job of this configuration costs, in dollars.

        Args:
            config: Of the job.
        """
        if self.dollars_by is None:
            return self.dollars
        name, prices = self.dollars_by
        return prices.get(str(config.get(name)), self.dollars)


def config_schema(
    properties: Mapping[str, Schema],
    required: Sequence[str],
    closed: Closed,
    rules: Schema,
) -> Schema:
    """Make the schema of a ``config``."""
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return {**schema, **rules, **_closing(bool(closed), closed)}


def job_schema(kind: JobType) -> Schema:
    """Make the schema of a whole job of a type, without its siblings."""
    body = "jobs" if kind.work == "serial" else "config"
    required = ["type", body] if kind.config.get("required") or body == "jobs" else ["type"]
    return {
        "type": "object",
        "required": required,
        "properties": {"type": {"enum": [kind.name, *kind.aliases]}, body: kind.config},
        **_closing(kind.closed in {"everywhere", "unevaluated"}, kind.closed),
    }


def _closing(is_closed: bool, closed: Closed) -> Schema:
    if not is_closed:
        return {}
    return {"unevaluatedProperties" if closed == "unevaluated" else "additionalProperties": False}
