"""
A received body of the second API to an order: plain functions.

Where the documents contradict each other, both readings are here and
`FireworksBehaviour` chooses. Facts that no document gives are marked as chosen.
"""

from __future__ import annotations

import base64
import binascii
import io
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..drawing._encoding import Encoding
from ._fields import FLUX_FIELDS, KONTEXT_FIELDS, SDXL_FIELDS, check_fields
from ._models import PAIRS, RATIOS
from ._refusals import Invalid, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._behaviour import FireworksBehaviour
    from ._models import Model


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What the headers ask for.

    Attributes:
        as_json: JSON rather than the bytes of one picture.
        encoding: Of the picture, or of those inside the JSON.
    """

    as_json: bool
    encoding: Encoding


# The fastest: Pillow's usual level takes six times as long for a fifth less (measured).
_PNG = Encoding("image/png", (("compress-level", 1),))
_JPEG = Encoding("image/jpeg")
_ENCODINGS = {"image/png": _PNG, "image/jpeg": _JPEG}


def read_headers(headers: Mapping[str, str]) -> Wanted:
    """
    Read ``Accept``, ``Jpeg-Quality`` and ``Json-Return-Image-Accept``.

    Args:
        headers: Looked up by lower-case names. The second counts only for
            JPEG, the third only for JSON. No Accept, or a wildcard, is PNG
            (chosen: the value the reference's own form starts with).

    Raises:
        Invalid: None of the types can be had, or a value is out of range
            (that it is an error, and which, is chosen).
    """
    accept = headers.get("accept") or "*/*"
    for media_type in _by_weight(accept):
        match media_type:
            case "*/*" | "image/*" | "image/png":
                return Wanted(False, _PNG)
            case "image/jpeg":
                return Wanted(False, _jpeg(headers.get("jpeg-quality")))
            case "application/json" | "application/*":
                inner = headers.get("json-return-image-accept", "image/png").strip().lower()
                if inner not in _ENCODINGS:
                    text = f"got {inner}, want image/jpeg or image/png"
                    raise Invalid(Problem("Json-Return-Image-Accept", text))
                return Wanted(True, _ENCODINGS[inner])
            case _:
                continue
    text = f"got {accept}, want image/png, image/jpeg or application/json"
    raise Invalid(Problem("Accept", text))


def _by_weight(header: str) -> list[str]:
    """Split an Accept header, heaviest first; weightless types are left out."""
    found: list[tuple[float, str]] = []
    for element in header.split(","):
        media_type, *parameters = (text.strip().lower() for text in element.split(";"))
        weight = 1.0
        for name, _, value in (text.partition("=") for text in parameters):
            if name.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 1.0
        if media_type and weight > 0:
            found.append((weight, media_type))
    return [media_type for _, media_type in sorted(found, key=lambda item: -item[0])]


def _jpeg(quality: str | None) -> Encoding:
    if quality is None:
        return _JPEG
    text = quality.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 100):
        raise Invalid(Problem("Jpeg-Quality", f"got {text}, want an integer of 0 to 100"))
    return Encoding("image/jpeg", (("quality", int(text)),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """
    A valid request for pictures, ready to be drawn.

    Attributes:
        model: Which one.
        look: Prompt and style.
        seed: Of the first picture; the next ones count up from it.
        samples: How many pictures.
        size: Width and height of each, in pixels.
        steps: They change the price and nothing else.
        filtered: Whether the pictures are black.
        wanted: The form of the answer.
        sketch: Whether spots of colour will do.
        picture: Encoded bytes of the picture to start from, if there is one.
        edit: Which of the edits of the older path it is, if one.
        strength: How strongly the picture is painted anew, 0 to 1.
        bounds: Strengths between which an edge is one if its neighbours are.
        webhook_url: Who is told when it is done.
        webhook_secret: What that message is signed with.
    """

    model: Model
    look: str
    seed: int
    samples: int
    size: tuple[int, int]
    steps: int
    filtered: bool
    wanted: Wanted
    sketch: bool
    picture: bytes | None = None
    edit: str | None = None
    strength: float = 0.5
    bounds: tuple[float, float] = (100.0, 200.0)
    webhook_url: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)

    @property
    def dollars(self) -> float:
        """What it costs."""
        return self.model.price(self.steps, self.samples)

    @property
    def prefix(self) -> str:
        """What makes a data URI of base64."""
        return f"data:{self.wanted.encoding.media_type};base64,"

    @property
    def finish_reason(self) -> str:
        """How the service says whether it was filtered."""
        return "CONTENT_FILTERED" if self.filtered else "SUCCESS"


def _drawn_seed(seed: int | None) -> int:
    return seed or random.randint(1, 2**32 - 1)


def shrunk(size: tuple[int, int], behaviour: FireworksBehaviour) -> tuple[int, int]:
    """Divide both sides as the behaviour has it."""
    return max(1, size[0] // behaviour.shrink), max(1, size[1] // behaviour.shrink)


def flux_order(
    model: Model, body: Mapping[str, Any], wanted: Wanted, behaviour: FireworksBehaviour
) -> Order:
    """
    Read the body of ``text_to_image`` on a workflow path.

    Raises:
        Invalid: A known field is wrong.
    """
    values = check_fields(body, FLUX_FIELDS)
    steps = values["num_inference_steps"]
    return Order(
        model=model,
        look=values["prompt"],
        seed=_drawn_seed(values["seed"]),
        samples=1,
        size=shrunk(RATIOS[values["aspect_ratio"]], behaviour),
        steps=model.steps if steps is None else steps,
        filtered=_filtered(values["prompt"], values, behaviour),
        wanted=wanted,
        sketch=behaviour.shrink > 1,
    )


def _filtered(prompt: str, values: Mapping[str, Any], behaviour: FireworksBehaviour) -> bool:
    checked = behaviour.always_check_safety or values["safety_check"]
    return bool(checked) and behaviour.filter_word in prompt


def sdxl_order(
    model: Model, body: Mapping[str, Any], wanted: Wanted, behaviour: FireworksBehaviour
) -> Order:
    """
    Read the body of the older ``image_generation`` path.

    Raises:
        Invalid: A known field is wrong, the size is not one of the nine, a
            LoRA adapter comes without its file, or several pictures are to
            come as one image (chosen: what happens then is not documented).
    """
    values = check_fields(body, SDXL_FIELDS)
    prompt = values["prompt"]
    if prompt is None:
        prompt = _joined(values["text_prompts"])
    size = values["width"], values["height"]
    if size == (None, None):
        size = (1024, 1024)
    if size not in PAIRS:
        pairs = ", ".join(f"{width}x{height}" for width, height in sorted(PAIRS))
        raise Invalid(Problem("width", f"got {size[0]}x{size[1]}, want one of {pairs}"))
    if values["lora_adapter_name"] is not None and values["lora_weight_filename"] is None:
        raise Invalid(Problem("lora_weight_filename", "field required", "missing"))
    if values["samples"] > 1 and not wanted.as_json:
        raise Invalid(Problem("samples", "more than one needs Accept: application/json"))
    return Order(
        model=model,
        look=f"{prompt} {values['style_preset'] or ''}".strip(),
        seed=_drawn_seed(values["seed"]),
        samples=values["samples"],
        size=shrunk(size, behaviour),
        steps=model.steps if values["steps"] is None else values["steps"],
        filtered=_filtered(prompt, values, behaviour),
        wanted=wanted,
        sketch=behaviour.shrink > 1,
    )


def _joined(prompts: list[Any] | None) -> str:
    """Read the older form of a prompt: weighted texts."""
    texts = [item.get("text") for item in prompts or () if isinstance(item, dict)]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise Invalid(Problem("prompt", "field required", "missing"))
    return ", ".join(map(str, texts))


def kontext_order(model: Model, body: Mapping[str, Any], behaviour: FireworksBehaviour) -> Order:
    """
    Read the body of a Kontext submission.

    Returns:
        The order; without a ratio it takes that of the input picture, else 1:1 (chosen).

    Raises:
        Invalid: A known field is wrong, or the input is neither a URL nor
            base64 of a picture. A URL is not fetched.
    """
    values = check_fields(body, KONTEXT_FIELDS)
    picture = given_picture(values["input_image"])
    if values["input_image"] is not None and values["safety_tolerance"] > 2:
        raise Invalid(Problem("safety_tolerance", "at most 2 with an input image"))
    url = values["webhook_url"]
    if url is not None and not 1 <= len(url) <= 2083:
        raise Invalid(Problem("webhook_url", "want 1 to 2083 characters"))
    # Opened in any case, so that one that cannot be read is refused here.
    size = RATIOS["1:1"] if picture is None else near_size(*picture_size(picture, "input_image"))
    if values["aspect_ratio"] is not None:
        size = _ratio_size(values["aspect_ratio"])
    encoding = _ENCODINGS[f"image/{values['output_format']}"]
    return Order(
        model=model,
        look=values["prompt"],
        seed=_drawn_seed(values["seed"]),
        samples=1,
        size=shrunk(size, behaviour),
        steps=0,
        filtered=behaviour.filter_word in values["prompt"],
        wanted=Wanted(False, encoding),
        sketch=behaviour.shrink > 1,
        picture=picture,
        webhook_url=url,
        webhook_secret=values["webhook_secret"],
    )


def given_picture(value: str | None) -> bytes | None:
    """
    Read an input picture from base64 or a data URI; a URL gives ``None``.

    Raises:
        Invalid: It is none of these.
    """
    if value is None or value.startswith(("http://", "https://")):
        return None
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as exc:
        raise Invalid(Problem("input_image", "want base64, a data URI or a URL")) from exc


def picture_size(content: bytes, name: str) -> tuple[int, int]:
    """Read the size of a picture; raises `Invalid`, naming the field, if it is none."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            # Whole, so that nothing can go wrong once the task is accepted.
            picture.load()
            return picture.size
    except (
        *(OSError, ValueError, SyntaxError),
        *(Image.DecompressionBombError, Image.DecompressionBombWarning),
    ) as exc:
        raise Invalid(Problem(name, "not a picture that can be read")) from exc


def _ratio_size(ratio: str) -> tuple[int, int]:
    across, _, down = ratio.partition(":")
    sides = [
        int(side) for side in (across, down) if side.isascii() and side.isdigit() and len(side) < 5
    ]
    # Source: "anything between 21:9 and 9:21".
    if len(sides) != 2 or not 0 < 9 * sides[0] <= 21 * sides[1] <= 49 * sides[0]:
        raise Invalid(Problem("aspect_ratio", f"got {ratio}, want one between 21:9 and 9:21"))
    return RATIOS.get(ratio) or near_size(*sides)


def near_size(across: int, down: int) -> tuple[int, int]:
    """Make sides of about this ratio and one megapixel, in multiples of 64."""
    ratio = min(21 / 9, max(9 / 21, across / down))
    return round((2**20 * ratio) ** 0.5 / 64) * 64, round((2**20 / ratio) ** 0.5 / 64) * 64
