"""
What each job type is: a table of data, and nothing that runs.

Fields, ranges, defaults and prices come from the published job-type pages, the
model pages and the guides "Combining Multiple Images" and "Tracking Costs",
where they give them. Chosen, because no page was found: the ranges and sizes
of the ``flux.schnell`` types and of ``remove-background``, every product name
but those of flux-fast schnell and nano-banana, and the dollars of ping.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._schema import Schema

Work = Literal["nothing", "scene", "restyle", "compose", "cutout", "segment"]
"""How the outputs are made: see `_studio`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """
    One job type.

    Attributes:
        name: The wire name.
        work: How its outputs are made.
        config: JSON Schema of ``config``; ``default`` members fill the result.
        computed: Constants the service adds to the result's ``config``.
        inputs: Fewest and most input files one job may use.
        max_pixels: Most pixels of all inputs together (413 beyond), if limited.
        seeded: Whether a seed is made when none is given.
        native: Media type of the first output when none is asked for.
        product: Product code in ``price``; ``{size}`` and ``{steps}`` are filled.
        dollars: Price of one job.
    """

    name: str
    work: Work
    config: Schema = field(default_factory=dict)
    computed: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[int, int] = (0, 0)
    max_pixels: int | None = None
    seeded: bool = False
    native: str = "image/jpeg"
    product: str
    dollars: float

    @property
    def schema(self) -> Schema:
        """JSON Schema of the whole job configuration."""
        return {
            "type": "object",
            "required": ["type", "config"] if self.config.get("required") else ["type"],
            "properties": {"type": {"const": self.name}, "config": self.config},
        }

    @property
    def filename_fields(self) -> tuple[str, ...]:
        """Members of ``config`` whose values name input files, in schema order."""
        return tuple(
            name
            for name, schema in self.config.get("properties", {}).items()
            if "filename" in (schema.get("format"), schema.get("items", {}).get("format"))
        )


def _object(*required: str, **members: Schema) -> Schema:
    return {"type": "object", "properties": members, "required": list(required)}


def _closed(schema: Schema) -> Schema:
    return {**schema, "additionalProperties": False}


def _integer(low: int | None = None, high: int | None = None, **more: Any) -> Schema:
    bounds = {"minimum": low, "maximum": high}
    return {
        "type": "integer",
        **{name: bound for name, bound in bounds.items() if bound is not None},
        **more,
    }


def _number(low: float, high: float, default: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high, "default": default}


def _text(longest: int) -> Schema:
    return {"type": "string", "minLength": 1, "maxLength": longest}


def _choice(*options: str, **more: Any) -> Schema:
    return {"type": "string", "enum": list(options), **more}


_FILENAME: Schema = {"type": "string", "format": "filename"}
_FILENAMES: Schema = {"type": "array", "items": _FILENAME, "minItems": 1}
_SEED = _integer(0)
_BOOLEAN: Schema = {"type": "boolean"}
_STYLES = _choice(
    *("3d-model", "analog-film", "anime", "cinematic", "comic-book", "digital-art", "enhance"),
    *("fantasy-art", "isometric", "line-art", "low-poly", "neon-punk", "origami", "photographic"),
    *("pixel-art", "texture", "craft-clay"),
)
_SCHNELL_SIDE = _integer(256, 1920, default=1024)
_RESOLUTIONS = _choice(
    *("1024x1024", "1024x768", "1024x576", "768x1024", "640x640", "576x1024", "512x512"),
    default="1024x1024",
)
_RATIOS = _choice(
    *("auto", "1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "4:7", "7:4"),
    *("9:16", "16:9", "9:21", "21:9"),
    default="auto",
)

_PING = JobType(name="inference.ping.v1", work="nothing", product="inference-ping", dollars=0.0)

_FLUX_FAST_V1 = JobType(
    name="inference.flux-fast.schnell.txt2img.v1",
    work="scene",
    config=_closed(
        _object(
            "prompt",
            prompt={"type": "string", "minLength": 3, "maxLength": 4096},
            steps=_integer(1, 4, default=4),
            resolution=_RESOLUTIONS,
            seed=_SEED,
            style_preset=_STYLES,
            progressive=_BOOLEAN,
        )
    ),
    seeded=True,
    product="inference-flux-schnell-{size}-steps-{steps}",
    dollars=0.0025,
)

_SCHNELL_MEMBERS: dict[str, Schema] = {
    "prompt": _text(4096),
    "steps": _integer(1, 4, default=4),
    "width": _SCHNELL_SIDE,
    "height": _SCHNELL_SIDE,
    "seed": _SEED,
    "style_preset": _STYLES,
    "loras": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
    "progressive": _BOOLEAN,
}
_FLUX_FAST_V2 = replace(
    _FLUX_FAST_V1,
    name="inference.flux-fast.schnell.txt2img.v2",
    config=_object("prompt", **_SCHNELL_MEMBERS),
)
_SCHNELL_IMG2IMG = replace(
    _FLUX_FAST_V1,
    name="inference.flux.schnell.img2img.v1",
    work="restyle",
    config=_object(
        "prompt",
        image=_FILENAME,
        **{
            **_SCHNELL_MEMBERS,
            # Without a default: the result has the size of the input.
            "width": _integer(256, 1920),
            "height": _integer(256, 1920),
            "strength": _number(0, 1, 0.5),
        },
    ),
    inputs=(1, 1),
)

_NANO_BANANA = JobType(
    name="inference.nano-banana.img2img.v2",
    work="compose",
    config=_object(
        "prompt",
        prompt=_text(2500),
        images=_FILENAMES,
        aspect_ratio=_RATIOS,
        include_messages=_BOOLEAN,
    ),
    # Seen in a live result, in this order, and no seed beside them.
    computed=MappingProxyType({"output_message_count": 0, "output_image_count": 1}),
    inputs=(1, 3),
    product="inference-nano-banana",
    dollars=0.039,
)

_FLUX_2_SIDE = _integer(64, 4096, multipleOf=16)
_FLUX_2_MEMBERS: dict[str, Schema] = {
    "images": _FILENAMES,
    "prompt": _text(32768),
    "width": _FLUX_2_SIDE,
    "height": _FLUX_2_SIDE,
    "seed": _SEED,
}
_SAFETY = _integer(0, 5, default=2)
_FLUX_2_FLEX = JobType(
    name="inference.flux-2.flex.img2img.v1",
    work="compose",
    config=_object(
        "prompt",
        **_FLUX_2_MEMBERS,
        safety_tolerance=_SAFETY,
        steps=_integer(1, 50, default=50),
        guidance=_number(1.5, 10, 4.5),
    ),
    inputs=(1, 10),  # the guide says 10, the schema 8; the more generous one
    seeded=True,
    product="inference-flux-2-flex",
    dollars=0.06,
)
_FLUX_2_PRO = replace(
    _FLUX_2_FLEX,
    name="inference.flux-2.pro.img2img.v1",
    config=_object("prompt", **_FLUX_2_MEMBERS, safety_tolerance=_SAFETY),
    inputs=(1, 8),
    max_pixels=9_000_000,
    product="inference-flux-2-pro",
    dollars=0.03,
)
_FLUX_2_MAX = replace(
    _FLUX_2_PRO,
    name="inference.flux-2.max.img2img.v1",
    config=_object(
        "prompt",
        **{
            **_FLUX_2_MEMBERS,
            "width": _integer(256, 2048, multipleOf=16),
            "height": _integer(256, 2048, multipleOf=16),
        },
        safety_tolerance=_SAFETY,
    ),
    max_pixels=None,
    product="inference-flux-2-max",
    dollars=0.04,
)
_FLUX_2_DEV = replace(
    _FLUX_2_FLEX,
    name="inference.flux-2.dev.img2img.v1",
    config=_object(
        "prompt",
        **{
            **_FLUX_2_MEMBERS,
            "width": _integer(512, 1920, multipleOf=16),
            "height": _integer(512, 1920, multipleOf=16),
        },
        steps=_integer(1, 50, default=25),
        guidance=_number(1, 10, 4.0),
        style_preset=_STYLES,
    ),
    inputs=(1, 8),
    product="inference-flux-2-dev",
    dollars=0.012,
)

_REMOVE_BACKGROUND = JobType(
    name="inference.remove-background.v1",
    work="cutout",
    config=_object(image=_FILENAME),
    inputs=(1, 1),
    native="image/png",  # a JPEG could not carry the transparency
    product="inference-remove-background",
    dollars=0.0025,
)
_BIREFNET = replace(
    _REMOVE_BACKGROUND,
    name="inference.birefnet.segment.v1",
    work="segment",
    config=_object(image=_FILENAME, contour=_BOOLEAN, contour_tolerance=_integer(0, 255)),
    product="inference-birefnet",
)

CATALOGUE: Mapping[str, JobType] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            _PING,
            _FLUX_FAST_V1,
            replace(_FLUX_FAST_V1, name="inference.flux-fast.schnell.txt2img.v0"),
            _FLUX_FAST_V2,
            replace(_FLUX_FAST_V2, name="inference.flux.schnell.txt2img.v1"),
            replace(_FLUX_FAST_V2, name="inference.flux.schnell.txt2img.v2"),
            _SCHNELL_IMG2IMG,
            _NANO_BANANA,
            _FLUX_2_FLEX,
            _FLUX_2_PRO,
            _FLUX_2_MAX,
            _FLUX_2_DEV,
            _REMOVE_BACKGROUND,
            _BIREFNET,
        )
    }
)
"""Every job type the emulator knows, by wire name."""
