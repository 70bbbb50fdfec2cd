"""
What is known of each job type: a table of data, and nothing that runs.

Each fact names where it was found and how sure it is:

====  ==========================================================================
A     stated by Prodia, in its documentation or in its own repositories
B     recorded from the live service, or tested against it, by others
C     assumed by third-party code that was never seen to run
I     our inference: from the type's name, or from its siblings
====  ==========================================================================

Only what is marked A is ever held against a job (`_catalogue.problems`). A
fact of two sources has the weaker mark of the two, unless both say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Mark: TypeAlias = Literal["A", "B", "C", "I"]

Kind: TypeAlias = Literal[
    "text", "integer", "number", "boolean", "texts", "filename", "filenames", "jobs"
]
"""What a field holds; a filename is that of an input, and the plurals are arrays."""


@dataclass(frozen=True, slots=True)
class Source:
    """
    Where a fact comes from.

    Attributes:
        mark: How sure it is, by the table at the top.
        where: The page, guide, model page or client that says so.
    """

    mark: Mark
    where: str

    def __str__(self) -> str:
        return f"{self.mark}, {self.where}"


@dataclass(frozen=True, slots=True)
class Field:
    """
    One member of ``config`` (of the job itself for kind ``"jobs"``).

    Attributes:
        name: Its wire name.
        kind: What it holds.
        source: Where all of it comes from, but for `required`.
        required: How sure it is that it must be there; ``None`` when it need not.
        between: Least and most, ends included, ``None`` where there is no
            end: of a number its value, of a text its characters, of an array its members.
        multiple_of: A number must be a multiple of this.
        choices: All that it may be.
        default: What the service fills in; ``None`` when nothing or unknown.
        excludes: Another field that must not stand beside it.
        note: What else is known, for people.
    """

    name: str
    kind: Kind
    source: Source
    required: Mark | None = None
    between: tuple[float | None, float | None] = (None, None)
    multiple_of: int | None = None
    choices: tuple[str | int, ...] = ()
    default: Any = None
    excludes: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """
    How many files a type works on, and of which kinds.

    Attributes:
        least: Fewest.
        most: Most; ``None`` when unknown.
        kinds: Media types that were seen; others may do.
        source: Where `most` comes from.
        least_source: Where `least` comes from.
        note: What else is known, for people.
    """

    least: int
    most: int | None
    kinds: tuple[str, ...]
    source: Source
    least_source: Source
    note: str = ""


@dataclass(frozen=True, slots=True)
class Makes:
    """
    What a type makes.

    Attributes:
        kinds: Media types, the first output's default first.
        source: Where this comes from.
        names: Filenames that were seen.
        note: What else is known, for people.
    """

    kinds: tuple[str, ...]
    source: Source
    names: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
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
class JobType:
    """
    One job type.

    Attributes:
        name: The wire name.
        operation: What it does, as the name says it: ``"txt2img"`` and so on.
        source: Where the name was found.
        inputs: The files it works on.
        makes: Its outputs.
        aliases: Other wire names of the same type.
        fields: Members of ``config`` that are known; the list may be incomplete.
        closed: Says that ``config`` takes no field but those; ``None`` when it may.
        closed_job: Whether `closed` holds for the members of the job itself too.
        permits_async: Whether ``POST /v2/job/async`` takes it; ``None`` when unknown.
        seconds: How long one job takes.
        dollars: What one job costs.
        note: What else is known, for people.
    """

    name: str
    operation: str
    source: Source
    inputs: Inputs
    makes: Makes
    aliases: tuple[str, ...] = ()
    fields: tuple[Field, ...] = ()
    closed: Source | None = None
    closed_job: bool = False
    permits_async: bool | None = None
    seconds: Hint | None = None
    dollars: Hint | None = None
    note: str = ""


# Sources.

_FORMATS = Source("A", 'guide "Output Image Formats"')
_COMBINING = Source("A", 'guide "Combining Multiple Images"')
_PRICE = Source("A", 'reference "Price"')
_INFERENCE = Source("A", 'reference "Inference"')
_ASYNC = Source("A", 'reference "Async"')
_WORKFLOWS = Source("A", 'page "Introduction to Workflows"')
_FLUX_2 = Source("A", "model page flux-2")
_VEO = Source("A", "model page veo")
_JS = Source("A", "tests and history of the official JavaScript SDK")
_VIBE = Source("A", "prompt of Prodia's own vibedesign")
_AI_SDK = Source("B", "option schema of @ai-sdk/prodia")
_AI_SDK_TESTS = Source("B", "tests of @ai-sdk/prodia")
_LIVE = Source("B", "a recorded live result")
_QUOTED = Source("B", "a third-party client that quotes the documents")
_TESTED = Source("B", "a third-party client that says it tested it live")
_CLIENTS = Source("C", "third-party clients")
_VEO_CLIENT = Source("C", "a third-party client; the model page veo has some of it")
_SEEN = Source("C", "names seen in clients and listings")
_NAME = Source("I", "what the type's name says")
_SIBLING = Source("I", "by analogy with its siblings")
_TWO_FACES = Source("I", "a test of the official JavaScript SDK sends two")
_EACH_NAMED = Source("I", "one for each field that names one")
_DEV_STYLES = Source("I", "the model page flux-2 counts 17; these are the 17 of flux-fast schnell")


def _page(name: str) -> Source:
    return Source("A", f"job-type page {name.replace('.', '-')}")


# Inputs and outputs, by operation.

_IMAGES = ("image/png", "image/jpeg", "image/webp")
_VIDEOS = ("video/mp4",)
_AUDIO = ("audio/wav", "audio/mpeg")

_NO_INPUTS = Inputs(0, 0, (), _NAME, _NAME)
_PICTURES = Inputs(1, None, _IMAGES, _NAME, _NAME)
_ONE_PICTURE = Inputs(1, 1, _IMAGES, _NAME, _NAME)
_PICTURE_AND_MASK = Inputs(2, 2, _IMAGES, _CLIENTS, _CLIENTS, "first the picture, then the mask")
_VIDEO = Inputs(1, None, _VIDEOS, _NAME, _NAME)

_MAKES_PICTURE = Makes(("image/jpeg", "image/png", "image/webp"), _FORMATS)
_MAKES_PNG = Makes(("image/png",), _NAME)
_MAKES_VECTOR = Makes(("image/svg+xml",), _CLIENTS)
_MAKES_VIDEO = Makes(_VIDEOS, _ASYNC, ("video.mp4",))
_MAKES_LABELS = Makes(
    ("application/json", "image/jpeg"), _CLIENTS, note="the labels, and the picture unchanged"
)

_BY_OPERATION: Mapping[str, tuple[Inputs, Makes]] = {
    "txt2img": (_NO_INPUTS, _MAKES_PICTURE),
    "txt2vec": (_NO_INPUTS, _MAKES_VECTOR),
    "img2img": (_PICTURES, _MAKES_PICTURE),
    "inpainting": (_PICTURE_AND_MASK, _MAKES_PICTURE),
    "upscale": (_ONE_PICTURE, _MAKES_PICTURE),
    "remove-background": (_ONE_PICTURE, _MAKES_PNG),
    "mask-background": (_ONE_PICTURE, _MAKES_PNG),
    "segment": (_ONE_PICTURE, _MAKES_PNG),
    "img2label": (_ONE_PICTURE, _MAKES_LABELS),
    "facerestore": (_ONE_PICTURE, _MAKES_PICTURE),
    "faceswap": (Inputs(2, 2, _IMAGES, _TWO_FACES, _TWO_FACES), _MAKES_PICTURE),
    "txt2vid": (_NO_INPUTS, _MAKES_VIDEO),
    "img2vid": (_PICTURES, _MAKES_VIDEO),
    "vid2vid": (_VIDEO, _MAKES_VIDEO),
    "aud2vid": (Inputs(1, None, (*_AUDIO, *_IMAGES), _NAME, _NAME), _MAKES_VIDEO),
    "ref2vid": (Inputs(1, None, (*_IMAGES, *_VIDEOS, *_AUDIO), _NAME, _NAME), _MAKES_VIDEO),
    "ping": (_NO_INPUTS, Makes((), _INFERENCE)),
    "workflow": (
        Inputs(0, None, _IMAGES, _NAME, _NAME),
        Makes((), _WORKFLOWS, note="what its last step makes"),
    ),
}


def _type(name: str, operation: str, source: Source = _SEEN, **more: Any) -> JobType:
    inputs, makes = _BY_OPERATION[operation]
    prefix = "" if name.startswith("workflow.") else "inference."
    known = {"inputs": inputs, "makes": makes, **more}
    return JobType(name=f"{prefix}{name}", operation=operation, source=source, **known)


def _most(most: int, least_source: Source = _NAME, note: str = "") -> Inputs:
    return Inputs(1, most, _IMAGES, _COMBINING, least_source, note)


# Fields that several types share.

STYLE_PRESETS = (
    *("3d-model", "analog-film", "anime", "cinematic", "comic-book", "digital-art", "enhance"),
    *("fantasy-art", "isometric", "line-art", "low-poly", "neon-punk", "origami", "photographic"),
    *("pixel-art", "texture", "craft-clay"),
)


def _prompt(source: Source, required: Mark, least: int | None, most: int | None) -> Field:
    return Field("prompt", "text", source, required, (least, most))


def _integer(
    name: str, source: Source, low: int | None = None, high: int | None = None, **more: Any
) -> Field:
    return Field(name, "integer", source, between=(low, high), **more)


def _choice(name: str, source: Source, *choices: str, **more: Any) -> Field:
    return Field(name, "text", source, choices=choices, **more)


def _size(source: Source, low: int | None, high: int | None, **more: Any) -> tuple[Field, Field]:
    return _integer("width", source, low, high, **more), _integer(
        "height", source, low, high, **more
    )


def _seed(source: Source) -> Field:
    return Field("seed", "integer", source, note="made by the service when absent")


def _styles(source: Source) -> Field:
    return _choice("style_preset", source, *STYLE_PRESETS)


def _file(name: str, source: Source, required: Mark | None = None, note: str = "") -> Field:
    return Field(name, "filename", source, required, note=note)


_IN_ORDER = "without it, the inputs in the order they are sent"

_NAMED_SEED = _seed(_SIBLING)


# FLUX schnell: text to image within a second.

_FAST_V1 = _page("inference.flux-fast.schnell.txt2img.v1")

_FLUX_FAST = (
    _type(
        "flux-fast.schnell.txt2img.v1",
        "txt2img",
        _FAST_V1,
        aliases=("inference.flux-fast.schnell.txt2img.v0",),
        closed=_FAST_V1,
        closed_job=True,
        fields=(
            _prompt(_FAST_V1, "A", 3, 4096),
            _integer("steps", _FAST_V1, 1, 4, default=4),
            _choice(
                "resolution",
                _FAST_V1,
                *("1024x1024", "1024x768", "1024x576", "768x1024", "640x640", "576x1024"),
                "512x512",
                default="1024x1024",
            ),
            _seed(_FAST_V1),
            _styles(_FAST_V1),
            Field(
                "progressive", "boolean", _FAST_V1, default=False,
                note="progressive JPEG; today a parameter of the output format",
            ),
        ),
    ),
    _type(
        "flux-fast.schnell.txt2img.v2",
        "txt2img",
        _PRICE,
        fields=(
            _prompt(_AI_SDK, "B", None, None),
            _integer("steps", _AI_SDK, 1, 4, default=4),
            *_size(_AI_SDK, 256, 1920, default=1024),
            _seed(_AI_SDK),
            _styles(_AI_SDK),
            Field(
                "loras", "texts", _AI_SDK, between=(None, 3),
                note='for instance "prodia/flux-lora-painting"',
            ),
            Field("progressive", "boolean", _AI_SDK, note="progressive JPEG"),
        ),
        seconds=Hint(0.3, _PRICE),
        dollars=Hint(0.0025, _PRICE),
        note="the price depends on size and steps",
    ),
    _type(
        "flux.schnell.txt2img.v1",
        "txt2img",
        _JS,
        fields=(
            _prompt(_JS, "I", None, None),
            _integer("steps", _SIBLING, 1, 4, note="1,000 is refused (live test)"),
        ),
    ),
)  # fmt: skip

# FLUX.2.

_PRO = _page("inference.flux-2.pro.img2img.v1")
_FLEX = _page("inference.flux-2.flex.img2img.v1")
_AS_RESOLUTION = "the page gives the range as resolution"
_SAFETY = _integer("safety_tolerance", _PRO, 0, 5, default=2)


def _picture_names(source: Source, most: int, note: str = "") -> Field:
    notes = f"{_IN_ORDER}; {note}" if note else _IN_ORDER
    return Field("images", "filenames", source, between=(1, most), note=notes)


def _flux_2(
    variant: str,
    picture_fields: tuple[Field, ...],
    text_fields: tuple[Field, ...],
    inputs: Inputs,
    source: Source,
    **more: Any,
) -> tuple[JobType, JobType]:
    return (
        _type(f"flux-2.{variant}.txt2img.v1", "txt2img", _FLUX_2, fields=text_fields, **more),
        _type(
            f"flux-2.{variant}.img2img.v1",
            "img2img",
            source,
            fields=picture_fields,
            inputs=inputs,
            **more,
        ),
    )


_PRO_TEXT = (
    _prompt(_SIBLING, "I", 1, 32768),
    *_size(_FLUX_2, 64, 4096, multiple_of=16),
    _NAMED_SEED,
    replace(_SAFETY, source=_SIBLING),
)
_PRO_PICTURE = (
    _prompt(_PRO, "I", 1, 32768),
    _picture_names(_PRO, 8, "9 megapixels together at most"),
    *_size(_PRO, 64, 4096, multiple_of=16, note="by default that of the input"),
    _seed(_PRO),
    _SAFETY,
)
_FLEX_OWN = (
    _integer("steps", _FLEX, 1, 50, default=50),
    Field("guidance", "number", _FLEX, between=(1.5, 10), default=4.5),
)
_FLEX_NOTE = "8 in its schema, 10 in the guide and on the model page; the larger holds here"
_FLEX_TEXT = (
    _prompt(_SIBLING, "I", 1, 32768),
    *_size(_FLUX_2, 64, 4096),
    _NAMED_SEED,
    replace(_SAFETY, source=_SIBLING),
    *(replace(field, source=_SIBLING) for field in _FLEX_OWN),
)
_FLEX_PICTURE = (
    _prompt(_FLEX, "I", 1, 32768),
    _picture_names(_FLEX, 10, _FLEX_NOTE),
    *_size(_FLEX, 64, 4096, multiple_of=16, note="by default that of the input"),
    _seed(_FLEX),
    replace(_SAFETY, source=_FLEX),
    *_FLEX_OWN,
    Field("aspect_ratio", "text", _COMBINING, note='the guide sends "1:1"; not in the schema'),
)
_MAX_TEXT = (
    _prompt(_SIBLING, "I", 1, 32768),
    *_size(_FLUX_2, 256, 2048, note=_AS_RESOLUTION),
    _NAMED_SEED,
    replace(_SAFETY, source=_SIBLING),
)
_DEV_TEXT = (
    _prompt(_SIBLING, "I", 1, 32768),
    *_size(_FLUX_2, 512, 1920, note=_AS_RESOLUTION),
    _integer("steps", _FLUX_2, 1, 50),
    Field("guidance", "number", _FLUX_2, between=(1, 10)),
    _styles(_DEV_STYLES),
    _NAMED_SEED,
)
_KLEIN_TEXT = (
    _prompt(_SIBLING, "I", 1, 32768),
    *_size(_CLIENTS, 512, None),
    _integer("steps", _VIBE, note="Prodia itself uses 4"),
    _NAMED_SEED,
)


def _with_pictures(fields: tuple[Field, ...], most: int) -> tuple[Field, ...]:
    return (fields[0], _picture_names(_COMBINING, most), *fields[1:])


_KLEIN_PICTURE = (
    _KLEIN_TEXT[0],
    Field("images", "filenames", _SIBLING, note=_IN_ORDER),
    *_KLEIN_TEXT[1:],
)

_FLUX_2_TYPES = (
    *_flux_2(
        "dev", _with_pictures(_DEV_TEXT, 8), _DEV_TEXT, _most(8), _COMBINING,
        seconds=Hint(3, _FLUX_2), dollars=Hint(0.01, _FLUX_2, 0.015),
    ),
    *_flux_2(
        "pro", _PRO_PICTURE, _PRO_TEXT, _most(8, _PRO, "9 megapixels together at most"), _PRO,
        seconds=Hint(12, _FLUX_2), dollars=Hint(0.03, _FLUX_2),
    ),
    *_flux_2(
        "flex", _FLEX_PICTURE, _FLEX_TEXT, _most(10, _FLEX, _FLEX_NOTE), _FLEX,
        seconds=Hint(22, _FLUX_2), dollars=Hint(0.06, _FLUX_2),
    ),
    *_flux_2(
        "max", _with_pictures(_MAX_TEXT, 8), _MAX_TEXT, _most(8), _COMBINING,
        seconds=Hint(15, _FLUX_2), dollars=Hint(0.04, _FLUX_2),
    ),
    *_flux_2("klein", _KLEIN_PICTURE, _KLEIN_TEXT, _PICTURES, _SEEN),
    _type(
        "flux-2.klein.4b.txt2img.v1", "txt2img",
        fields=_KLEIN_TEXT, dollars=Hint(0.0015, _CLIENTS),
    ),
    _type(
        "flux-2.klein.4b.img2img.v1", "img2img",
        fields=_KLEIN_PICTURE, dollars=Hint(0.0025, _CLIENTS),
    ),
    _type("flux-2.klein.9b.txt2img.v1", "txt2img", fields=_KLEIN_TEXT),
    _type(
        "flux-2.klein.9b.img2img.v1", "img2img",
        fields=_KLEIN_PICTURE, dollars=Hint(0.005, _CLIENTS),
    ),
)  # fmt: skip

# Models that combine pictures and speak.

_RATIOS = _choice(
    "aspect_ratio",
    _CLIENTS,
    *("auto", "1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "4:7", "7:4"),
    *("9:16", "16:9", "9:21", "21:9"),
    default="auto",
    note="two clients have different lists; these are both together",
)
_MESSAGES = Field(
    "include_messages", "boolean", _AI_SDK, note="also what the model says, as message.txt"
)
_SPEAKS = Makes(
    ("image/jpeg", "image/png", "image/webp", "text/plain"),
    _AI_SDK_TESTS,
    ("image.png", "message.txt"),
    "the text only with include_messages, when the model speaks",
)

_COMBINERS = (
    _type(
        "nano-banana.txt2img.v2", "txt2img",
        fields=(_prompt(_CLIENTS, "I", None, 2500), _RATIOS, _MESSAGES),
        makes=_SPEAKS,
    ),
    _type(
        "nano-banana.img2img.v2", "img2img", _COMBINING,
        fields=(
            _prompt(_CLIENTS, "I", None, 2500),
            _picture_names(_COMBINING, 3),
            _RATIOS,
            _MESSAGES,
        ),
        inputs=_most(3), makes=_SPEAKS,
        seconds=Hint(8, _COMBINING), dollars=Hint(0.039, _COMBINING),
        note="takes no seed; clients disagree whether it may run asynchronously",
    ),
    _type("nano-banana.img2img.v1", "img2img", note="old"),
    _type("gemini-3-pro.txt2img.v1", "txt2img"),
    _type(
        "gemini-3-pro.img2img.v1", "img2img", _COMBINING,
        inputs=_most(3), seconds=Hint(12, _COMBINING), note="up to 4K",
    ),
    _type("gemini-3-1-flash.txt2img.v1", "txt2img"),
    _type(
        "gemini-3-1-flash.img2img.v1", "img2img", _COMBINING,
        inputs=_most(14), seconds=Hint(35, _COMBINING), note="can look things up on the web",
    ),
    _type("seedream.txt2img.v1", "txt2img"),
    _type("seedream-4.txt2img.v1", "txt2img"),
    _type("seedream-4.img2img.v1", "img2img"),
    _type("seedream-4-5.txt2img.v1", "txt2img"),
    _type("seedream-5-0.lite.txt2img.v1", "txt2img"),
    _type("seedream-5-0.lite.img2img.v1", "img2img", _COMBINING, inputs=_most(14)),
)  # fmt: skip

# FLUX.1, Stable Diffusion, Qwen.

_FLUX_DEV = Hint(6.5, _CLIENTS)
_ONE_FOR_KONTEXT = _most(1, note="the guide says it of FLUX.1 Kontext")


def _kontext(variant: str, dollars: float) -> Iterator[JobType]:
    fields = (
        _prompt(_CLIENTS, "I", None, None),
        Field("prompt_upsampling", "boolean", _CLIENTS),
        Field("safety_tolerance", "integer", _CLIENTS),
        Field("aspect_ratio", "text", _CLIENTS),
    )
    price = Hint(dollars, _CLIENTS)
    for version in ("v1", "v2"):
        name = f"flux-kontext.{variant}"
        yield _type(f"{name}.txt2img.{version}", "txt2img", fields=fields, dollars=price)
        yield _type(
            f"{name}.img2img.{version}",
            "img2img",
            fields=fields,
            inputs=_ONE_FOR_KONTEXT,
            dollars=price,
        )


def _inpainting(strength_of: str) -> tuple[Field, ...]:
    return (
        _prompt(_CLIENTS, "I", None, None),
        Field("negative_prompt", "text", _CLIENTS),
        Field("steps", "integer", _CLIENTS),
        Field(strength_of, "number", _CLIENTS),
        Field("strength", "number", _CLIENTS),
    )


_WHITE = "white in the mask is what is replaced"

_OTHER_PICTURES = (
    _type("flux-fast.dev.txt2img.v1", "txt2img"),
    _type("flux-fast.schnell.img2img.v2", "img2img"),
    _type("flux-fast.dev-kontext.img2img.v1", "img2img"),
    _type("flux.schnell.txt2img.v2", "txt2img"),
    _type("flux.schnell.img2img.v1", "img2img"),
    _type("flux.schnell.img2img.v2", "img2img"),
    *(
        _type(f"flux.dev.txt2img.{version}", "txt2img", seconds=_FLUX_DEV,
              dollars=Hint(0.008, _CLIENTS))
        for version in ("v1", "v2")
    ),
    _type("flux.dev.img2img.v2", "img2img"),
    _type(
        "flux.dev.inpainting.v2", "inpainting",
        fields=_inpainting("guidance"), note=_WHITE,
    ),
    _type("flux.pro.txt2img.v1", "txt2img", seconds=Hint(14, _CLIENTS)),
    _type("flux.pro11.txt2img.v1", "txt2img"),
    _type("flux.pro11ultra.txt2img.v1", "txt2img"),
    *_kontext("pro", 0.015),
    *_kontext("max", 0.025),
    _type("flux-control.dev.ghibli.img2img.v1", "img2img"),
    _type("qwen.image-edit.lightning.img2img.v1", "img2img"),
    _type("qwen.image-edit.plus.img2img.v2", "img2img"),
    _type("qwen.image-edit.plus.lightning.img2img.v2", "img2img"),
    _type(
        "sdxl.txt2img.v1", "txt2img",
        seconds=Hint(1.8, _CLIENTS), dollars=Hint(0.003, _CLIENTS, 0.004),
    ),
    _type("sdxl.img2img.v1", "img2img"),
    _type(
        "sdxl.inpainting.v1", "inpainting",
        fields=_inpainting("cfg_scale"),
        note=f'{_WHITE}; the guide "Combining Multiple Images" has it with one input',
    ),
    _type("sd15.txt2img.v1", "txt2img", seconds=Hint(1.2, _CLIENTS)),
    _type("sd15.img2img.v1", "img2img"),
    _type("sd15.inpainting.v1", "inpainting"),
    _type("wan2-7.txt2img.v1", "txt2img", seconds=Hint(40, _QUOTED)),
    _type(
        "wan2-7.img2img.v1", "img2img",
        seconds=Hint(40, _QUOTED), dollars=Hint(0.006, _QUOTED),
    ),
)  # fmt: skip

# Recraft.

_RECRAFT = _page("inference.recraft.img2img.v1")

_RECRAFT_TYPES = (
    _type("recraft.txt2img.v1", "txt2img", seconds=Hint(10, _CLIENTS)),
    _type(
        "recraft.img2img.v1",
        "img2img",
        _RECRAFT,
        closed=_RECRAFT,
        fields=(
            _prompt(_RECRAFT, "A", 1, 1000),
            _file("image", _RECRAFT, note="without it, the input that is sent"),
            Field("negative_prompt", "text", _RECRAFT),
            Field(
                "strength", "number", _RECRAFT,
                between=(0, 1), default=0, note="0 leaves the picture nearly as it is",
            ),
            Field("style_id", "text", _RECRAFT, excludes="style", note="a UUID"),
            _choice(
                "style",
                _RECRAFT,
                *("realistic_image", "digital_illustration", "vector_illustration", "icon"),
                "logo_raster",
                default="realistic_image",
            ),
            Field(
                "substyle", "text", _RECRAFT,
                note="one of many, for instance b_and_w, hdr, natural_light, studio_portrait, "
                "2d_art_poster, pixel_art, 80s",
            ),
        ),
    ),
    _type("recraft.v4.txt2img.v1", "txt2img"),
    _type("recraft.v4.pro.txt2img.v1", "txt2img"),
    *(
        _type(
            f"recraft.{variant}.txt2vec.v1",
            "txt2vec",
            fields=(
                _prompt(_CLIENTS, "I", None, None),
                Field("size", "text", _CLIENTS, note="such as 1024x1024"),
            ),
        )
        for variant in ("v4", "v4.pro")
    ),
)  # fmt: skip

# Tools: from a picture to a picture, a mask or a word.

_SAM3 = _page("inference.sam3.segment.v1")
_ANY_INPUT = "without it, the input that is sent"

_TOOLS = (
    _type("ping.v1", "ping", _INFERENCE, note="has no config"),
    _type(
        "upscale.v1",
        "upscale",
        _TESTED,
        fields=(
            _file("image", _TESTED, note=_ANY_INPUT),
            Field("upscale", "integer", _TESTED, choices=(2, 4, 8)),
        ),
        dollars=Hint(0.001, _TESTED, 0.003),
        note="R-ESRGAN; $0.001, $0.002 and $0.003 for 2, 4 and 8 times",
    ),
    _type(
        "hypir.upscale.v1",
        "upscale",
        dollars=Hint(0.05, _CLIENTS),
        note="one client found it unknown to the service in August 2026",
    ),
    _type("resrgan.upscale.v1", "upscale", note="rejected by the service"),
    _type(
        "remove-background.v1",
        "remove-background",
        fields=(_file("image", _SIBLING, note=_ANY_INPUT),),
        seconds=Hint(0.19, _QUOTED),
        dollars=Hint(0.0025, _CLIENTS, 0.02),
        note="clients disagree on the price",
    ),
    _type("mask-background.v1", "mask-background"),
    _type(
        "birefnet.segment.v1",
        "segment",
        _TESTED,
        fields=(
            _file("image", _TESTED, note=_ANY_INPUT),
            Field("contour", "boolean", _TESTED),
            _integer("contour_tolerance", _TESTED, 0, 255),
        ),
        makes=Makes(
            ("image/png",),
            _TESTED,
            ("foreground.png", "mask.png"),
            "the foreground with transparency, and its mask",
        ),
        dollars=Hint(0.0025, _TESTED),
    ),
    _type("sam2.segment.v1", "segment"),
    _type(
        "sam3.segment.v1",
        "segment",
        _SAM3,
        aliases=("inference.segment.v2",),
        closed=_SAM3,
        closed_job=True,
        fields=(
            _prompt(_SAM3, "A", 1, 500),
            Field("confidence_threshold", "number", _SAM3, between=(0, 1), default=0.5),
        ),
        inputs=Inputs(
            1, 1, _IMAGES, _SAM3, _SAM3, "256x256 to 4096x4096 pixels, 10 MB at most"
        ),
        makes=Makes(
            ("image/png",), _SAM3, note="one grey mask for each instance: 255 object, 0 background"
        ),
        seconds=Hint(0.088, _SAM3),
        dollars=Hint(0.0011, _CLIENTS),
        note="one client found the alias unknown to the service",
    ),
    _type("segment.v1", "segment"),
    _type(
        "vit.img2label.v2",
        "img2label",
        _CLIENTS,
        fields=(
            _choice(
                "model",
                _CLIENTS,
                "google/vit-base-patch16-224-in21k",
                "Falconsai/nsfw_image_detection",
            ),
        ),
        note="the labels are in the result's config too",
    ),
    _type(
        "facerestore.v1",
        "facerestore",
        _CLIENTS,
        fields=(Field("upscale", "integer", _CLIENTS),),
        dollars=Hint(0.0008, _CLIENTS),
    ),
    _type("facerestore.upscale.v1", "facerestore", note="old"),
    _type("faceswap.v1", "faceswap", _JS, note="fails when there is no face in the source"),
)  # fmt: skip

# Video.


def _veo(name: str, operation: str, *own: Field, seconds: float) -> JobType:
    sound = (
        (Field("generate_audio", "boolean", _VEO_CLIENT),) if name.endswith("v2") else ()
    )  # the v1 types have none
    return _type(
        f"veo.{name}",
        operation,
        _VEO,
        fields=(
            _prompt(_VEO_CLIENT, "I", None, None),
            *own,
            _choice("resolution", _VEO_CLIENT, "720p", "1080p"),
            _choice("aspect_ratio", _VEO_CLIENT, "16:9", "9:16"),
            Field("duration_seconds", "integer", _VEO_CLIENT, choices=(4, 6, 8)),
            Field("negative_prompt", "text", _VEO_CLIENT),
            *sound,
        ),
        seconds=Hint(seconds, _VEO),
    )


_LAST_FRAME = _file("last_frame", _VEO_CLIENT, note="the picture to end with")

_WAN = (
    Field("negative_prompt", "text", _TESTED, between=(None, 500)),
    _choice("resolution", _QUOTED, "720P", "1080P"),
    _integer("duration", _QUOTED, 2, 15, note="seconds"),
    Field("prompt_extend", "boolean", _QUOTED, default=True),
)
_WAN_TEXT = (
    _prompt(_SIBLING, "I", None, 5000),
    *_WAN,
    Field("ratio", "text", _QUOTED, note="for text to video only"),
)
_WAN_PICTURE = (
    _prompt(_QUOTED, "I", None, 5000),
    _file("image", _QUOTED, note="the picture to start with"),
    _file("last_frame", _QUOTED, note="the picture to end with"),
    _file("audio", _QUOTED, note="WAV or MP3, 2 to 30 s, 15 MB at most"),
    *_WAN,
)
_H3 = (
    _prompt(_AI_SDK_TESTS, "B", None, None),
    Field("duration", "integer", _AI_SDK_TESTS, note="seconds; 4, 8 and 15 were used"),
    Field("resolution", "text", _AI_SDK_TESTS, note='"768P" was used'),
    Field("seed", "integer", _AI_SDK_TESTS, note="0 is a seed too"),
)
_H3_RATIO = Field("aspect_ratio", "text", _AI_SDK_TESTS, note='not "adaptive"')
_H3_NOTE = "24 frames a second, always with sound"


def _h3(operation: str, *own: Field, inputs: Inputs, ratio: bool = True) -> JobType:
    return _type(
        f"minimax.h3.fast.{operation}.v1",
        operation,
        _AI_SDK_TESTS,
        fields=(_H3[0], *own, *_H3[1:], *((_H3_RATIO,) if ratio else ())),
        inputs=inputs,
        note=_H3_NOTE,
    )


_VIDEO_TYPES = (
    *(_veo(f"txt2vid.{version}", "txt2vid", seconds=90) for version in ("v1", "v2")),
    *(_veo(f"img2vid.{version}", "img2vid", _LAST_FRAME, seconds=90) for version in ("v1", "v2")),
    *(_veo(f"fast.txt2vid.{version}", "txt2vid", seconds=60) for version in ("v1", "v2")),
    _veo("fast.img2vid.v1", "img2vid", _LAST_FRAME, seconds=60),
    _type("wan2-2.lightning.txt2vid.v0", "txt2vid", seconds=Hint(22, _CLIENTS)),
    _type("wan2-2.lightning.img2vid.v0", "img2vid", seconds=Hint(22, _CLIENTS)),
    _type("wan2-7.txt2vid.v1", "txt2vid", _QUOTED, fields=_WAN_TEXT, seconds=Hint(200, _QUOTED)),
    _type(
        "wan2-7.img2vid.v1",
        "img2vid",
        _QUOTED,
        fields=_WAN_PICTURE,
        inputs=Inputs(1, 3, (*_IMAGES, *_AUDIO), _EACH_NAMED, _NAME),
        seconds=Hint(200, _QUOTED),
        dollars=Hint(0.03, _QUOTED, 0.035),
        note="clients disagree on the price",
    ),
    _type("wan2-7.vid2vid.v1", "vid2vid", _QUOTED, seconds=Hint(200, _QUOTED)),
    *(
        _type(f"seedance.{variant}.{operation}.v1", operation)
        for variant in ("lite", "pro")
        for operation in ("txt2vid", "img2vid")
    ),
    _type("seedance.proturbo.txt2vid.v1", "txt2vid"),
    _type("kling.txt2vid.v1", "txt2vid"),
    _type("sora-2.txt2vid.v1", "txt2vid"),
    _type("sora-2.pro.txt2vid.v1", "txt2vid"),
    _type("sora-2.pro.img2vid.v1", "img2vid"),
    _type("pruna.p-video.txt2vid.v1", "txt2vid"),
    _type("pruna.p-video.img2vid.v1", "img2vid"),
    _type(
        "pruna.p-video.aud2vid.v1",
        "aud2vid",
        _CLIENTS,
        fields=(
            _file("audio", _CLIENTS),
            Field("resolution", "text", _CLIENTS),
            Field("aspect_ratio", "text", _CLIENTS),
            Field("fps", "integer", _CLIENTS, note="24 was used"),
            Field("prompt_upsampling", "boolean", _CLIENTS),
        ),
    ),
    _type(
        "runway.gen4.vid2vid.v1",
        "vid2vid",
        _CLIENTS,
        fields=(
            _file("video", _CLIENTS),
            Field("aspect_ratio", "text", _CLIENTS, note="such as 1280:720"),
            Field("public_figure_moderation", "text", _CLIENTS, note='"auto" was used'),
            Field("seed", "integer", _CLIENTS),
        ),
    ),
    _h3("txt2vid", inputs=_NO_INPUTS),
    _h3(
        "img2vid",
        _file("first_frame", _AI_SDK_TESTS, "B", "the picture to start with"),
        _file("last_frame", _AI_SDK_TESTS, note="the picture to end with"),
        inputs=Inputs(1, 2, _IMAGES, _AI_SDK_TESTS, _AI_SDK_TESTS),
        ratio=False,
    ),
    _h3(
        "ref2vid",
        Field(
            "references",
            "filenames",
            _AI_SDK_TESTS,
            "B",
            between=(1, 12),
            note="in order; at most 9 pictures, 3 videos and 3 sounds, and not sounds alone",
        ),
        inputs=Inputs(1, 12, (*_IMAGES, *_VIDEOS, *_AUDIO), _AI_SDK_TESTS, _AI_SDK_TESTS),
    ),
    _type("mochi1.txt2vid.v1", "txt2vid", note="old"),
)

# Workflows: jobs made of jobs.

_WORKFLOW_TYPES = (
    _type(
        "workflow.serial.v1",
        "workflow",
        _WORKFLOWS,
        fields=(
            Field("jobs", "jobs", _WORKFLOWS, "A", note="stands beside type, in place of config"),
        ),
        note="each step works on what the one before it made",
    ),
    _type(
        "workflow.moderate.v1",
        "workflow",
        _WORKFLOWS,
        fields=(
            Field("threshold", "number", _WORKFLOWS, note="0.95 in the sample; a share, it seems"),
        ),
        note="a step of workflow.serial.v1: checks the picture made before it",
    ),
)

JOB_TYPES: Mapping[str, JobType] = MappingProxyType(
    {
        each.name: each
        for group in (
            _FLUX_FAST, _FLUX_2_TYPES, _COMBINERS, _OTHER_PICTURES, _RECRAFT_TYPES,
            _TOOLS, _VIDEO_TYPES, _WORKFLOW_TYPES,
        )
        for each in group
    }
)  # fmt: skip
"""Every job type that was ever named, by wire name; an alias is with its type."""
