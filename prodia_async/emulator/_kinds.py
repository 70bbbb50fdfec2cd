"""What a job type is, and short ways to write its schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

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


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """
    One job type.

    Attributes:
        name: The wire name.
        aliases: Other names its schema takes for the same thing.
        work: How its outputs are made.
        config: JSON Schema of ``config``; ``default`` members fill the result.
        computed: Constants the service adds to the result's ``config``.
        inputs: Fewest and most input files one job may use.
        takes: What those files may be.
        most_of: The most files of one medium, where that is limited too.
        max_pixels: Most pixels of all input pictures together (413 beyond), if limited.
        seeded: Whether a seed is made when none is given.
        native: Media type of the first output when none is asked for.
        permits_async: Whether it may be sent to ``/v2/job/async``.
        product: Product code in ``price``; ``{size}`` and ``{steps}`` are filled.
        dollars: Price of one job.
        dollars_by: A config field and the prices by its value, where they differ.
        siblings: Schemas of other types that are checked in one ``oneOf`` with its own.
        schema: JSON Schema of the whole job; made from the others.
    """

    name: str
    aliases: tuple[str, ...] = ()
    work: Work
    config: Schema = field(default_factory=dict)
    computed: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[int, int] = (0, 0)
    takes: tuple[Medium, ...] = ("image",)
    most_of: Mapping[Medium, int] = field(default_factory=dict)
    max_pixels: int | None = None
    seeded: bool = False
    native: str = "image/jpeg"
    permits_async: bool = True
    product: str
    dollars: float
    dollars_by: tuple[str, Mapping[Any, float]] | None = None
    siblings: tuple[Schema, ...] = field(default=(), repr=False)
    schema: Schema = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = [self.name, *self.aliases]
        body = "jobs" if self.work == "serial" else "config"
        required = ["type", body] if self.config.get("required") else ["type"]
        schema: dict[str, Any] = {
            "type": "object",
            "required": ["type", "jobs"] if body == "jobs" else required,
            "properties": {"type": {"enum": names}, body: self.config},
        }
        if self.config.get("additionalProperties") is False:
            # The pages that forbid unknown fields do so on both levels.
            schema["additionalProperties"] = False
        if self.siblings:
            schema = {"oneOf": [schema, *self.siblings]}
        object.__setattr__(self, "schema", schema)

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
        """What one job of this configuration costs, in dollars."""
        if self.dollars_by is None:
            return self.dollars
        name, prices = self.dollars_by
        return prices.get(config.get(name), self.dollars)


# Schemas.


def table(*required: str, **members: Schema) -> Schema:
    """An object that takes unknown members too."""
    return {"type": "object", "properties": members, "required": list(required)}


def closed(schema: Schema, **more: Any) -> Schema:
    """Forbid unknown members."""
    return {**schema, "additionalProperties": False, **more}


def integer(low: int | None = None, high: int | None = None, **more: Any) -> Schema:
    """A whole number, bounds included."""
    bounds = {"minimum": low, "maximum": high}
    return {
        "type": "integer",
        **{name: bound for name, bound in bounds.items() if bound is not None},
        **more,
    }


def number(low: float, high: float, default: float | None = None) -> Schema:
    """Any number, bounds included."""
    bounds = {"type": "number", "minimum": low, "maximum": high}
    return bounds if default is None else {**bounds, "default": default}


def text(longest: int, shortest: int = 1) -> Schema:
    """Text of so many characters."""
    return {"type": "string", "minLength": shortest, "maxLength": longest}


def choice(*options: str | int, **more: Any) -> Schema:
    """One of a few values of one type."""
    kind = "string" if isinstance(options[0], str) else "integer"
    return {"type": kind, "enum": list(options), **more}


def boolean(default: bool | None = None) -> Schema:
    """True or false."""
    return {"type": "boolean"} if default is None else {"type": "boolean", "default": default}


def filenames(most: int | None = None) -> Schema:
    """Names of input files."""
    schema: dict[str, Any] = {"type": "array", "items": FILENAME, "minItems": 1}
    return schema if most is None else {**schema, "maxItems": most}


FILENAME: Schema = {"type": "string", "format": "filename"}
SEED = integer(0)
