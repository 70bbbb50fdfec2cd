"""
What each job type is: a table of data, and nothing that runs.

Fields, ranges, defaults and prices come from the published job-type pages, the
model pages and the guides "Combining Multiple Images" and "Tracking Costs",
where they give them; those of Veo, Wan, upscale, BiRefNet and the sd types from
what public clients say they read there. Chosen, because no page was found:

- ranges and sizes of the ``flux.schnell``, ``flux.dev``, ``sdxl`` and ``sd15``
  types, of ``facerestore`` and ``recraft.v4``, and everything of
  ``remove-background``, ``mask-background`` and ``faceswap`` but their names
  and inputs;
- every product name but those of flux-fast schnell and nano-banana;
- dollars of ping, of faceswap, mask-background, vit and of the videos but Wan 2.7;
- that nano-banana alone does not permit async: one client says so, another
  one runs it that way.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ._kinds import (
    FILENAME,
    SEED,
    JobType,
    boolean,
    choice,
    closed,
    filenames,
    integer,
    number,
    table,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._kinds import Work
    from ._schema import Schema

_STYLES = choice(
    *("3d-model", "analog-film", "anime", "cinematic", "comic-book", "digital-art", "enhance"),
    *("fantasy-art", "isometric", "line-art", "low-poly", "neon-punk", "origami", "photographic"),
    *("pixel-art", "texture", "craft-clay"),
)
_SCHNELL_SIDE = integer(256, 1920, default=1024)
_FREE_SIDE = integer(256, 1920)
"""Without a default: the result has the size of the input."""

_RESOLUTIONS = choice(
    *("1024x1024", "1024x768", "1024x576", "768x1024", "640x640", "576x1024", "512x512"),
    default="1024x1024",
)
_RATIOS = choice(
    *("auto", "1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "4:7", "7:4"),
    *("9:16", "16:9", "9:21", "21:9"),
    default="auto",
)

_PING = JobType(name="inference.ping.v1", work="nothing", product="inference-ping", dollars=0.0)


# FLUX.1 and Stable Diffusion.

_FLUX_FAST_V1 = JobType(
    name="inference.flux-fast.schnell.txt2img.v1",
    aliases=("inference.flux-fast.schnell.txt2img.v0",),
    work="scene",
    config=closed(
        table(
            "prompt",
            prompt=text(4096, shortest=3),
            steps=integer(1, 4, default=4),
            resolution=_RESOLUTIONS,
            seed=SEED,
            style_preset=_STYLES,
            progressive=boolean(),
        )
    ),
    seeded=True,
    product="inference-flux-schnell-{size}-steps-{steps}",
    dollars=0.0025,
)

_SCHNELL_MEMBERS: dict[str, Schema] = {
    "prompt": text(4096),
    "steps": integer(1, 4, default=4),
    "width": _SCHNELL_SIDE,
    "height": _SCHNELL_SIDE,
    "seed": SEED,
    "style_preset": _STYLES,
    "loras": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
    "progressive": boolean(),
}
_FLUX_FAST_V2 = replace(
    _FLUX_FAST_V1,
    name="inference.flux-fast.schnell.txt2img.v2",
    aliases=(),
    config=table("prompt", **_SCHNELL_MEMBERS),
)
_FROM_AN_IMAGE: dict[str, Schema] = {
    "image": FILENAME,
    "width": _FREE_SIDE,
    "height": _FREE_SIDE,
    "strength": number(0, 1, 0.5),
}
_SCHNELL_IMG2IMG = replace(
    _FLUX_FAST_V2,
    name="inference.flux.schnell.img2img.v1",
    work="restyle",
    config=table("prompt", **{**_SCHNELL_MEMBERS, **_FROM_AN_IMAGE}),
    inputs=(1, 1),
)

_DEV_MEMBERS: dict[str, Schema] = {
    **_SCHNELL_MEMBERS,
    "steps": integer(1, 50, default=25),
    "guidance_scale": number(1, 10, 3.0),
}
_FLUX_DEV = replace(
    _FLUX_FAST_V2,
    name="inference.flux.dev.txt2img.v1",
    config=table("prompt", **_DEV_MEMBERS),
    product="inference-flux-dev",
    dollars=0.008,
)
_SDXL_MEMBERS: dict[str, Schema] = {
    "prompt": text(4096),
    "negative_prompt": {"type": "string", "maxLength": 4096},
    "steps": integer(1, 50, default=20),
    "cfg_scale": number(1, 20, 7.0),
    "width": integer(256, 1920, multipleOf=8, default=1024),
    "height": integer(256, 1920, multipleOf=8, default=1024),
    "seed": SEED,
    "style_preset": _STYLES,
}
_SDXL = replace(
    _FLUX_DEV,
    name="inference.sdxl.txt2img.v1",
    config=table("prompt", **_SDXL_MEMBERS),
    product="inference-sdxl",
    dollars=0.003,
)
_SD15_SIDE = integer(64, 1024, multipleOf=8, default=512)
_SD15 = replace(
    _SDXL,
    name="inference.sd15.txt2img.v1",
    config=table("prompt", **{**_SDXL_MEMBERS, "width": _SD15_SIDE, "height": _SD15_SIDE}),
    product="inference-sd15",
    dollars=0.001,
)


def _img2img(kind: JobType, name: str, **members: Schema) -> JobType:
    """Make the sibling of a text-to-image type that starts from a picture."""
    properties = {**kind.config["properties"], **_FROM_AN_IMAGE, **members}
    return replace(
        kind,
        name=name,
        work="restyle",
        config=table("prompt", **properties),
        # An inpainting type takes its mask after the picture.
        inputs=(2, 2) if "mask" in members else (1, 1),
    )


_KONTEXT_PRO = JobType(
    name="inference.flux-kontext.pro.img2img.v1",
    work="compose",
    config=table(
        "prompt",
        prompt=text(4096),
        image=FILENAME,
        aspect_ratio=_RATIOS,
        prompt_upsampling=boolean(default=False),
        safety_tolerance=integer(0, 6, default=2),
        seed=SEED,
    ),
    inputs=(1, 1),
    seeded=True,
    product="inference-flux-kontext-pro",
    dollars=0.015,
)


# FLUX.2.

_FLUX_2_SIDE = integer(64, 4096, multipleOf=16)
_FLUX_2_MEMBERS: dict[str, Schema] = {
    "images": filenames(),
    "prompt": text(32768),
    "width": _FLUX_2_SIDE,
    "height": _FLUX_2_SIDE,
    "seed": SEED,
}
_SAFETY = integer(0, 5, default=2)


def _sides(low: int, high: int) -> dict[str, Schema]:
    return dict.fromkeys(("width", "height"), integer(low, high, multipleOf=16))


_FLUX_2_FLEX = JobType(
    name="inference.flux-2.flex.img2img.v1",
    work="compose",
    config=table(
        "prompt",
        **_FLUX_2_MEMBERS,
        safety_tolerance=_SAFETY,
        steps=integer(1, 50, default=50),
        guidance=number(1.5, 10, 4.5),
    ),
    inputs=(1, 10),  # the guide says 10, the schema 8; the more generous one
    seeded=True,
    product="inference-flux-2-flex",
    dollars=0.06,
)
_FLUX_2_PRO = replace(
    _FLUX_2_FLEX,
    name="inference.flux-2.pro.img2img.v1",
    config=table("prompt", **_FLUX_2_MEMBERS, safety_tolerance=_SAFETY),
    inputs=(1, 8),
    max_pixels=9_000_000,
    product="inference-flux-2-pro",
    dollars=0.03,
)
_FLUX_2_MAX = replace(
    _FLUX_2_PRO,
    name="inference.flux-2.max.img2img.v1",
    config=table("prompt", **{**_FLUX_2_MEMBERS, **_sides(256, 2048)}, safety_tolerance=_SAFETY),
    max_pixels=None,
    product="inference-flux-2-max",
    dollars=0.04,
)
_FLUX_2_DEV = replace(
    _FLUX_2_FLEX,
    name="inference.flux-2.dev.img2img.v1",
    config=table(
        "prompt",
        **{**_FLUX_2_MEMBERS, **_sides(512, 1920)},
        steps=integer(1, 50, default=25),
        guidance=number(1, 10, 4.0),
        style_preset=_STYLES,
    ),
    inputs=(1, 8),
    product="inference-flux-2-dev",
    dollars=0.012,
)
_FLUX_2_KLEIN = replace(
    _FLUX_2_DEV,
    name="inference.flux-2.klein.4b.img2img.v1",
    config=table(
        "prompt", **{**_FLUX_2_MEMBERS, **_sides(512, 2048)}, steps=integer(1, 4, default=4)
    ),
    product="inference-flux-2-klein-4b",
    dollars=0.0025,
)


def _txt2img(kind: JobType) -> JobType:
    """Make the sibling of a picture-to-picture type that starts from nothing."""
    members = {
        name: schema
        for name, schema in kind.config["properties"].items()
        if name not in {"image", "images", "strength"}
    }
    return replace(
        kind,
        name=kind.name.replace("img2img", "txt2img"),
        work="scene",
        config={**kind.config, "properties": members},
        inputs=(0, 0),
        max_pixels=None,
    )


# Models of others.

_NANO_BANANA = JobType(
    name="inference.nano-banana.img2img.v2",
    work="compose",
    config=table(
        "prompt",
        prompt=text(2500),
        images=filenames(),
        aspect_ratio=_RATIOS,
        include_messages=boolean(),
    ),
    # Seen in a live result, in this order, and no seed beside them.
    computed=MappingProxyType({"output_message_count": 0, "output_image_count": 1}),
    inputs=(1, 3),
    permits_async=False,
    product="inference-nano-banana",
    dollars=0.039,
)
_GEMINI_3_PRO = replace(
    _NANO_BANANA,
    name="inference.gemini-3-pro.img2img.v1",
    config=table(
        "prompt",
        prompt=text(32768),
        images=filenames(),
        aspect_ratio=_RATIOS,
        resolution=choice("1K", "2K", "4K", default="1K"),
        include_messages=boolean(),
    ),
    permits_async=True,
    product="inference-gemini-3-pro",
    dollars=0.134,
)
_GEMINI_3_FLASH = replace(
    _GEMINI_3_PRO,
    name="inference.gemini-3-1-flash.img2img.v1",
    config=table(
        "prompt", **{**_GEMINI_3_PRO.config["properties"], "google_search": boolean(default=False)}
    ),
    inputs=(1, 14),
    product="inference-gemini-3-1-flash",
    dollars=0.067,
)
_SEEDREAM_5 = JobType(
    name="inference.seedream-5-0.lite.img2img.v1",
    work="compose",
    config=table("prompt", prompt=text(4096), images=filenames(), aspect_ratio=_RATIOS, seed=SEED),
    inputs=(1, 14),
    seeded=True,
    product="inference-seedream-5-0-lite",
    dollars=0.035,
)

_RECRAFT_STYLES = choice(
    *("realistic_image", "digital_illustration", "vector_illustration", "icon", "logo_raster"),
    default="realistic_image",
)
_RECRAFT = JobType(
    name="inference.recraft.img2img.v1",
    work="restyle",
    config=closed(
        table(
            "prompt",
            image=FILENAME,
            prompt=text(1000),
            negative_prompt={"type": "string"},
            strength=number(0, 1, 0),
            style_id={"type": "string", "format": "uuid"},
            style=_RECRAFT_STYLES,
            substyle=choice(
                *("b_and_w", "hdr", "natural_light", "studio_portrait", "2d_art_poster"),
                *("pixel_art", "80s"),
            ),
        ),
        **{"not": {"required": ["style_id", "style"]}},
    ),
    inputs=(1, 1),
    product="inference-recraft",
    dollars=0.04,
)
_RECRAFT_TXT2IMG = _txt2img(_RECRAFT)
_RECRAFT_V4 = replace(
    _RECRAFT_TXT2IMG,
    name="inference.recraft.v4.txt2img.v1",
    config=table("prompt", prompt=text(10_000), size={"type": "string", "default": "1024x1024"}),
    product="inference-recraft-v4",
)
_RECRAFT_VECTOR = replace(
    _RECRAFT_V4,
    name="inference.recraft.v4.txt2vec.v1",
    work="vector",
    native="image/svg+xml",
    product="inference-recraft-v4-vector",
    dollars=0.08,
)


# Tools.

_REMOVE_BACKGROUND = JobType(
    name="inference.remove-background.v1",
    work="cutout",
    config=table(image=FILENAME),
    inputs=(1, 1),
    native="image/png",  # a JPEG could not carry the transparency
    product="inference-remove-background",
    dollars=0.0025,
)
_MASK_BACKGROUND = replace(
    _REMOVE_BACKGROUND,
    name="inference.mask-background.v1",
    work="mask",
    product="inference-mask-background",
)
_BIREFNET = replace(
    _REMOVE_BACKGROUND,
    name="inference.birefnet.segment.v1",
    work="segment",
    config=table(image=FILENAME, contour=boolean(), contour_tolerance=integer(0, 255)),
    product="inference-birefnet",
)
_SAM_3 = replace(
    _REMOVE_BACKGROUND,
    name="inference.sam3.segment.v1",
    aliases=("inference.segment.v2",),
    work="masks",
    config=closed(table("prompt", prompt=text(500), confidence_threshold=number(0, 1, 0.5))),
    product="inference-sam3",
    dollars=0.0011,
)
_UPSCALE = JobType(
    name="inference.upscale.v1",
    work="enlarge",
    config=table(image=FILENAME, upscale=choice(2, 4, 8, default=2)),
    inputs=(1, 1),
    product="inference-upscale",
    dollars=0.001,
    dollars_by=("upscale", MappingProxyType({2: 0.001, 4: 0.002, 8: 0.003})),
)
_FACERESTORE = replace(
    _UPSCALE,
    name="inference.facerestore.v1",
    work="restore",
    config=table(image=FILENAME, upscale=integer(1, 4, default=1)),
    product="inference-facerestore",
    dollars=0.0008,
    dollars_by=None,
)
_FACESWAP = JobType(
    name="inference.faceswap.v1",
    work="swap",
    config=table(source=FILENAME, target=FILENAME),
    inputs=(2, 2),
    product="inference-faceswap",
    dollars=0.002,
)
_VIT = JobType(
    name="inference.vit.img2label.v2",
    work="label",
    config=table(
        image=FILENAME,
        model=choice(
            *("google/vit-base-patch16-224-in21k", "Falconsai/nsfw_image_detection"),
            default="Falconsai/nsfw_image_detection",
        ),
    ),
    inputs=(1, 1),
    native="application/json",
    product="inference-vit",
    dollars=0.0005,
)


# Films.

_VEO_MEMBERS: dict[str, Schema] = {
    "prompt": text(10_000),
    "negative_prompt": {"type": "string"},
    "resolution": choice("720p", "1080p", default="720p"),
    "aspect_ratio": choice("16:9", "9:16", default="16:9"),
    "duration_seconds": choice(4, 6, 8, default=8),
    "seed": SEED,
}
_FRAMES: dict[str, Schema] = {"image": FILENAME, "last_frame": FILENAME}


def _films(
    *names: str, members: Mapping[str, Schema], dollars: float, **more: Any
) -> Iterable[JobType]:
    """Make video types that share their members; those from pictures take up to two."""
    for name in names:
        given = {**_FRAMES, **members} if ".img2vid." in name else members
        yield replace(_FILM, name=name, config=table("prompt", **given), **{
            "inputs": (1, 2) if ".img2vid." in name else (0, 0),
            # inference.veo.fast.txt2vid.v2: the model is what stands before the operation.
            "product": "-".join(name.split(".")[:-2]),
            "dollars": dollars,
            **more,
        })  # fmt: skip


_FILM = JobType(
    name="", work="film", native="video/mp4", seeded=True, product="", dollars=0.0
)  # the pattern of the others

_WAN_2_2 = {
    "prompt": text(4096),
    "resolution": choice("480p", "720p", default="480p"),
    "seed": SEED,
}

_WAN_MEMBERS: dict[str, Schema] = {
    "prompt": text(5000),
    "negative_prompt": {"type": "string", "maxLength": 500},
    "resolution": choice("720P", "1080P", default="720P"),
    "duration": integer(2, 15, default=5),
    "prompt_extend": boolean(default=True),
    "seed": SEED,
}
_WAN_RATIO = choice("16:9", "9:16", "1:1", "4:3", "3:4", default="16:9")
_WAN_PICTURE: dict[str, Schema] = {
    "prompt": text(5000),
    "negative_prompt": {"type": "string", "maxLength": 500},
    "width": integer(256, 2048),
    "height": integer(256, 2048),
    "prompt_extend": boolean(default=True),
    "seed": SEED,
}

_H3_MEMBERS: dict[str, Schema] = {
    "prompt": text(7000),
    "duration": integer(4, 15, default=8),
    "resolution": choice("768P", default="768P"),
    "seed": SEED,
}
_H3_RATIO = choice("16:9", "9:16", "1:1", "4:3", "3:4", "21:9", default="16:9")

_FILMS = (
    *_films(
        *("inference.veo.txt2vid.v1", "inference.veo.img2vid.v1"),
        members=_VEO_MEMBERS,
        dollars=1.6,
    ),
    *_films(
        *("inference.veo.txt2vid.v2", "inference.veo.img2vid.v2"),
        members={**_VEO_MEMBERS, "generate_audio": boolean(default=True)},
        dollars=1.6,
    ),
    *_films(
        *("inference.veo.fast.txt2vid.v1", "inference.veo.fast.img2vid.v1"),
        members=_VEO_MEMBERS,
        dollars=0.8,
    ),
    *_films(
        "inference.veo.fast.txt2vid.v2",
        members={**_VEO_MEMBERS, "generate_audio": boolean(default=True)},
        dollars=0.8,
    ),
    *_films(
        *("inference.wan2-2.lightning.txt2vid.v0", "inference.wan2-2.lightning.img2vid.v0"),
        members=_WAN_2_2,
        dollars=0.05,
    ),
    *_films(
        "inference.wan2-7.txt2vid.v1", members={**_WAN_MEMBERS, "ratio": _WAN_RATIO}, dollars=0.03
    ),
    *_films(
        "inference.wan2-7.img2vid.v1",
        members={**_WAN_MEMBERS, "audio": FILENAME},
        dollars=0.03,
        inputs=(1, 3),
        takes=("image", "audio"),
    ),
    *_films(
        "inference.wan2-7.vid2vid.v1",
        members={**_WAN_MEMBERS, "video": FILENAME},
        dollars=0.03,
        inputs=(1, 1),
        takes=("video",),
    ),
    *_films(
        "inference.minimax.h3.fast.txt2vid.v1",
        members={**_H3_MEMBERS, "aspect_ratio": _H3_RATIO},
        dollars=0.15,
    ),
    *_films(
        "inference.minimax.h3.fast.ref2vid.v1",
        members={**_H3_MEMBERS, "aspect_ratio": _H3_RATIO, "references": filenames(12)},
        dollars=0.15,
        inputs=(1, 12),
        takes=("image", "video", "audio"),
        most_of=MappingProxyType({"image": 9, "video": 3, "audio": 3}),
    ),
    replace(
        _FILM,
        name="inference.minimax.h3.fast.img2vid.v1",
        config=table(
            *("prompt", "first_frame"), first_frame=FILENAME, last_frame=FILENAME, **_H3_MEMBERS
        ),
        inputs=(1, 2),
        product="inference-minimax-h3-fast",
        dollars=0.15,
    ),
)


# Workflows.

_MODERATE = JobType(
    name="workflow.moderate.v1",
    work="moderate",
    config=table(threshold=number(0, 1, 0.95)),  # the guide's own value
    inputs=(1, 1),
    product="workflow-moderate",
    dollars=0.0,
)
_SERIAL = JobType(
    name="workflow.serial.v1",
    work="serial",
    # Each member is checked against the schema of its own type.
    config={"type": "array", "items": {"type": "object", "required": ["type"]}, "minItems": 1},
    product="workflow-serial",
    dollars=0.0,
)

_ALL = (
    _PING,
    _FLUX_FAST_V1,
    _FLUX_FAST_V2,
    replace(_FLUX_FAST_V2, name="inference.flux.schnell.txt2img.v1"),
    replace(_FLUX_FAST_V2, name="inference.flux.schnell.txt2img.v2"),
    _SCHNELL_IMG2IMG,
    replace(_SCHNELL_IMG2IMG, name="inference.flux.schnell.img2img.v2"),
    _FLUX_DEV,
    replace(_FLUX_DEV, name="inference.flux.dev.txt2img.v2"),
    replace(_FLUX_DEV, name="inference.flux-fast.dev.txt2img.v1"),
    _img2img(_FLUX_DEV, "inference.flux.dev.img2img.v2"),
    _img2img(_FLUX_DEV, "inference.flux.dev.inpainting.v2", mask=FILENAME),
    _SDXL,
    _img2img(_SDXL, "inference.sdxl.img2img.v1"),
    _img2img(_SDXL, "inference.sdxl.inpainting.v1", mask=FILENAME),
    _SD15,
    _img2img(_SD15, "inference.sd15.img2img.v1"),
    _KONTEXT_PRO,
    replace(_KONTEXT_PRO, name="inference.flux-kontext.pro.img2img.v2"),
    replace(
        _KONTEXT_PRO,
        name="inference.flux-kontext.max.img2img.v1",
        product="inference-flux-kontext-max",
        dollars=0.025,
    ),
    *(
        each
        for kind in (_FLUX_2_FLEX, _FLUX_2_PRO, _FLUX_2_MAX, _FLUX_2_DEV, _FLUX_2_KLEIN)
        for each in (kind, _txt2img(kind))
    ),
    *(
        each
        for kind in (_NANO_BANANA, _GEMINI_3_PRO, _GEMINI_3_FLASH, _SEEDREAM_5)
        for each in (kind, _txt2img(kind))
    ),
    _RECRAFT,
    _RECRAFT_TXT2IMG,
    _RECRAFT_V4,
    _RECRAFT_VECTOR,
    _REMOVE_BACKGROUND,
    _MASK_BACKGROUND,
    _BIREFNET,
    _SAM_3,
    _UPSCALE,
    _FACERESTORE,
    _FACESWAP,
    _VIT,
    replace(
        _KONTEXT_PRO,
        name="inference.wan2-7.img2img.v1",
        config=table("prompt", **_WAN_PICTURE, image=FILENAME),
        product="inference-wan2-7",
        dollars=0.006,
    ),
    replace(
        _FLUX_DEV,
        name="inference.wan2-7.txt2img.v1",
        config=table("prompt", **_WAN_PICTURE),
        product="inference-wan2-7",
        dollars=0.006,
    ),
    *_FILMS,
    _MODERATE,
    _SERIAL,
)


def _with_aliases(kinds: Iterable[JobType]) -> Iterable[JobType]:
    for kind in kinds:
        names = (kind.name, *kind.aliases)
        for name in names:
            others = tuple(other for other in names if other != name)
            yield kind if name == kind.name else replace(kind, name=name, aliases=others)


def _with_siblings(kinds: Iterable[JobType]) -> Iterable[JobType]:
    """
    Check the Wan 2.7 types in one ``oneOf``.

    Source: a client was told that its type had to be another one and that a
    field was not allowed, when a text was one character too long.
    """
    kinds = tuple(kinds)
    wan = [kind for kind in kinds if ".wan2-7." in kind.name]
    for kind in kinds:
        others = tuple(other.schema for other in wan if other is not kind)
        yield replace(kind, siblings=others) if kind in wan else kind


CATALOGUE: Mapping[str, JobType] = MappingProxyType(
    {kind.name: kind for kind in _with_aliases(_with_siblings(_ALL))}
)
"""Every job type the emulator knows, by wire name."""


def guessed(name: str) -> JobType:
    """
    Make up a job type that nobody knows from the operation in its name.

    Args:
        name: ``inference.<model>.<operation>.v<N>``, or any other text.

    Returns:
        One that takes any configuration and up to a hundred inputs of any kind.
        A name without a known operation makes pictures.
    """
    operation = name.rpartition(".")[0].rpartition(".")[2]
    work: Work = _WORKS.get(operation.rpartition("2")[2], "compose")
    return JobType(
        name=name,
        work=work,
        inputs=(0, 100),
        takes=("image", "video", "audio"),
        seeded=True,
        native={"film": "video/mp4", "vector": "image/svg+xml"}.get(work, "image/jpeg"),
        product="-".join(name.split(".")[:-2]) or name,
        dollars=0.0,
    )


_WORKS: Mapping[str, Work] = {"vid": "film", "vec": "vector"}
"""How an unknown type makes its output; any other operation makes pictures from what it gets."""
