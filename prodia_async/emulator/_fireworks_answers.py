"""
The second API: a received body to an order, an order to its answer. Plain functions.

Where the documents of the Fireworks image API contradict each other, both
readings are here and `FireworksBehaviour` chooses. Facts that no document
gives are marked as chosen.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import random
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, get_args

from PIL import Image

from ._accept import Encoding
from ._refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

JsonShape = Literal["list-prefixed", "list", "string", "array"]
"""
How the JSON form of a result looks.

``list-prefixed``: an object whose ``base64`` is a list of data URIs; ``list``:
the same without the prefix; ``string``: an object whose ``base64`` is one bare
string, that of the first picture; ``array``: an array of objects, one for each
picture, each with a bare string.
"""

KontextState = Literal[
    "Task not found", "Pending", "Request Moderated", "Content Moderated", "Ready", "Error"
]
"""The six documented values of ``status``."""

KontextSample = Literal["url", "base64", "data-uri", "gone"]
"""What ``result.sample`` is; ``gone`` is a URL that answers 404."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FireworksBehaviour:
    """
    How the second API behaves where its documents leave it open, and its faults.

    Attributes:
        missing_key_status: What a missing or unknown key gets on a workflow
            path: the documented 401, or the 404 that a probe was given. The
            older path always answers 401.
        validation_status: 400 with an ``error`` object, or 422 with ``detail``.
        json_shape: ``None`` is ``list-prefixed`` on workflow paths and
            ``array`` on the older path.
        doubled_path: Also answer at
            ``.../models/accounts/fireworks/models/{model}/text_to_image``.
        flux_on_image_generation: Let the older path take the flux models, as an
            older page of the reference has it; a newer client sends none there.
        filter_word: A prompt that contains it is filtered if the order has
            ``safety_check``: status 200, a black picture. Kontext, which has no
            such field, ends in ``Content Moderated`` where it would be ``Ready``.
        always_check_safety: Filter without ``safety_check`` too; its default is
            said to be off, in one capture of three.
        busy_status: What an order gets that finds no idle worker. Only a 429
            carries the emulator's `retry_after`.
        rate_limit: Orders served in `rate_window`; ``None`` for no limit and
            no headers. Up to half as many again are served with
            ``x-ratelimit-over-limit: yes``, later ones refused with 429 (the
            half is chosen; "far over" is documented).
        rate_window: Seconds (documented: a minute).
        headers: Further headers of every answer, as they stand.
        kontext_states: What successive polls of one task are told; the last
            one is repeated. ``Ready`` is told as ``Pending`` until the worker
            is done. A task keeps the plan it was submitted under.
        kontext_sample: What ``result.sample`` is.
        shrink: Both sides of every picture are divided by it, and above 1 a
            picture is soft spots of colour rather than a scene, so that
            hundreds can be made quickly; still by prompt and seed alone.

    Raises:
        ValueError: A value that is not one of those above.
    """

    missing_key_status: Literal[401, 404] = 401
    validation_status: Literal[400, 422] = 400
    json_shape: JsonShape | None = None
    doubled_path: bool = False
    flux_on_image_generation: bool = True
    filter_word: str = "[filtered]"
    always_check_safety: bool = False
    busy_status: Literal[429, 503] = 429
    rate_limit: int | None = None
    rate_window: float = 60.0
    headers: Mapping[str, str] = field(default_factory=dict)
    kontext_states: Sequence[KontextState] = ("Pending", "Ready")
    kontext_sample: KontextSample = "url"
    shrink: int = 1

    def __post_init__(self) -> None:
        for name, allowed in (
            ("missing_key_status", (401, 404)),
            ("validation_status", (400, 422)),
            ("json_shape", (None, *get_args(JsonShape))),
            ("busy_status", (429, 503)),
            ("kontext_sample", get_args(KontextSample)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")
        known = get_args(KontextState)
        if isinstance(self.kontext_states, str) or not self.kontext_states:
            raise ValueError("kontext_states must be a sequence of at least one state")
        for state in self.kontext_states:
            if state not in known:
                raise ValueError(f"kontext_states must be some of {known}, not {state!r}")
        if not self.filter_word:
            raise ValueError("filter_word must not be empty: every prompt would be filtered")
        if self.rate_limit is not None and self.rate_limit < 1:
            raise ValueError(f"rate_limit must be 1 or more, not {self.rate_limit}")
        if self.shrink < 1:
            raise ValueError(f"shrink must be 1 or more, not {self.shrink}")


# Refusals.


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a body: the field (empty for the whole), why, and its kind."""

    name: str
    text: str
    kind: str = "value_error"

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" if self.name else self.text


class Invalid(Refused):
    """
    The body or a header of it is wrong: 400 or 422, whichever the behaviour says.

    Attributes:
        problems: At least one.
    """

    def __init__(self, *problems: Problem) -> None:
        super().__init__(400, "; ".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer before it is a response."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


TEXTS = {
    401: "the API key is missing or invalid",
    402: "payment method or usage limit: the account cannot be charged",
    403: "no access to this model",
    404: "model not found, inaccessible, or not deployed",
    408: "the request took too long",
    412: "the account is suspended, or a LoRA adapter failed to load",
    413: "the request body is too large",
    429: "no idle capacity",
    503: "the service is overloaded",
}
"""Messages by status (chosen; their meanings are documented)."""


def refusal(status: int, text: str | None = None) -> Refused:
    """Make a refusal in the usual words of its status."""
    return Refused(status, text or TEXTS.get(status) or _phrase(status))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower()
    except ValueError:
        return "planned reply"


def error_answer(refused: Refused, behaviour: FireworksBehaviour) -> Answer:
    """Write a refusal: JSON, whatever the Accept header asked for."""
    if isinstance(refused, Invalid) and behaviour.validation_status == 422:
        detail = [
            {
                "loc": ["body", problem.name] if problem.name else ["body"],
                "msg": problem.text,
                "type": problem.kind,
            }
            for problem in refused.problems
        ]
        return json_answer({"detail": detail}, 422)
    kind = "invalid_request_error" if refused.status < 500 else "internal_server_error"
    error = {"object": "error", "type": kind, "message": refused.text}
    return json_answer({"error": error}, refused.status)


def json_answer(value: Any, status: int = 200) -> Answer:
    """Write JSON as FastAPI does: compact, not escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # A lone surrogate came in as an escape and has no bytes of its own.
    return Answer(status, "application/json", text.encode(errors="replace"))


# Models.


@dataclass(frozen=True, slots=True)
class Model:
    """
    One model.

    Attributes:
        name: Its name in the path, in the ledger, and for `type_workers`.
        family: Which endpoint serves it.
        dollars_per_step: 0 where one picture has a price of its own.
        dollars: Price of one picture where steps do not count.
        steps: Steps when none are given.
    """

    name: str
    family: Literal["flux", "sdxl", "kontext"]
    dollars_per_step: float = 0.0
    dollars: float = 0.0
    steps: int = 0

    def price(self, steps: int, samples: int) -> float:
        """Work out what an order costs."""
        # Rounded, since 0.00035 times 3 is not 0.00105 in binary.
        return round((self.dollars_per_step * steps + self.dollars) * samples, 8)


MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        # Dollars per step: copies of the price page. 28 steps: the same.
        Model("flux-1-schnell-fp8", "flux", 0.00035, steps=4),
        Model("flux-1-dev-fp8", "flux", 0.0005, steps=28),
        # 30 steps are chosen: the documents only say "model default".
        Model("stable-diffusion-xl-1024-v1-0", "sdxl", 0.00013, steps=30),
        Model("playground-v2-1024px-aesthetic", "sdxl", 0.00013, steps=30),
        Model("playground-v2-5-1024px-aesthetic", "sdxl", 0.00013, steps=30),
        Model("SSD-1B", "sdxl", 0.00013, steps=30),
        Model("japanese-stable-diffusion-xl", "sdxl", 0.00013, steps=30),
        # Billed per picture; the amounts are chosen, no document gives them.
        Model("flux-kontext-pro", "kontext", dollars=0.04),
        Model("flux-kontext-max", "kontext", dollars=0.08),
    )
}

RATIOS: Mapping[str, tuple[int, int]] = {
    # The eleven are documented; the sizes are chosen: about one megapixel, in multiples of 64.
    "1:1": (1024, 1024),
    "21:9": (1536, 640),
    "16:9": (1344, 768),
    "3:2": (1216, 832),
    "5:4": (1088, 896),
    "4:5": (896, 1088),
    "2:3": (832, 1216),
    "9:16": (768, 1344),
    "9:21": (640, 1536),
    "4:3": (1152, 896),
    "3:4": (896, 1152),
}

PAIRS = frozenset(
    {
        *((1024, 1024), (1152, 896), (896, 1152), (1216, 832), (832, 1216)),
        *((1344, 768), (768, 1344), (1536, 640), (640, 1536)),
    }
)
"""The nine sizes the older path takes. Source: the older capture of the reference."""


def find_model(name: str, families: frozenset[str]) -> Model:
    """
    Find a model that an endpoint serves.

    Raises:
        Refused: 404.
    """
    model = MODELS.get(name)
    if model is None or model.family not in families:
        raise refusal(404)
    return model


# Bodies.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """What a field of a body may be; `default` stands in where it is left out or null."""

    kind: type[Any]
    default: Any = None
    required: bool = False
    nullable: bool = False
    least: int | None = None
    most: int | None = None
    among: tuple[str, ...] = ()


_PROMPT = _Field(kind=str, required=True)
_SEED = _Field(kind=int, default=0, least=0)
_TEXT_OR_NULL = _Field(kind=str, nullable=True)
_INTEGER_OR_NULL = _Field(kind=int, nullable=True)
_SWITCH = _Field(kind=bool, default=False)

FLUX_FIELDS: Mapping[str, _Field] = {
    # Source: the newest capture of the reference; safety_check is named in only one.
    "prompt": _PROMPT,
    # 1:1 is one of two defaults that are claimed.
    "aspect_ratio": _Field(kind=str, default="1:1", among=tuple(RATIOS)),
    "guidance_scale": _Field(kind=float, default=3.5),
    "num_inference_steps": _Field(kind=int, least=1),
    "seed": _SEED,
    "safety_check": _SWITCH,
}

SDXL_FIELDS: Mapping[str, _Field] = {
    # Ranges: the older capture. Defaults and nulls: the last official package with images.
    "model": _TEXT_OR_NULL,
    "prompt": _Field(kind=str, nullable=True),
    "negative_prompt": _TEXT_OR_NULL,
    "width": _INTEGER_OR_NULL,
    "height": _INTEGER_OR_NULL,
    "cfg_scale": _Field(kind=float, nullable=True),
    "sampler": _Field(kind=str, nullable=True, among=("K_EULER", "K_DPMPP_2M")),
    "samples": _Field(kind=int, default=1, least=1),
    "seed": _SEED,
    "steps": _Field(kind=int, nullable=True, least=1),
    "safety_check": _SWITCH,
    "style_preset": _TEXT_OR_NULL,
    "lora_adapter_name": _TEXT_OR_NULL,
    "lora_weight_filename": _TEXT_OR_NULL,
    "apply_invisible_watermark": _SWITCH,
    "return_latents": _SWITCH,
    "text_prompts": _Field(kind=list, nullable=True),
    "clip_guidance_preset": _Field(kind=str, default="NONE"),
}

KONTEXT_FIELDS: Mapping[str, _Field] = {
    "prompt": _PROMPT,
    "input_image": _TEXT_OR_NULL,
    "seed": _Field(kind=int, nullable=True, least=0),
    "aspect_ratio": _TEXT_OR_NULL,
    "output_format": _Field(kind=str, default="png", among=("jpeg", "png")),
    "webhook_url": _TEXT_OR_NULL,
    "webhook_secret": _TEXT_OR_NULL,
    "prompt_upsampling": _SWITCH,
    "safety_tolerance": _Field(kind=int, default=2, least=0, most=6),
}

POLL_FIELDS: Mapping[str, _Field] = {"id": _Field(kind=str, required=True)}


def read_body(content: bytes) -> Mapping[str, Any]:
    """
    Parse a body.

    Raises:
        Invalid: It is not a JSON object.
    """
    try:
        body = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise Invalid(Problem("", f"JSON decode error: {exc}", "json_invalid")) from exc
    if not isinstance(body, dict):
        raise Invalid(Problem("", "input should be an object", "dict_type"))
    return body


def _no_constant(text: str) -> None:
    # Python's parser takes NaN and Infinity, which JSON does not have.
    raise ValueError(f"invalid value {text}")


def unknown_fields(body: Mapping[str, Any], fields: Mapping[str, _Field]) -> tuple[str, ...]:
    """Name what the service would ignore, in the order in which it came."""
    return tuple(name for name in body if name not in fields)


def check_fields(body: Mapping[str, Any], fields: Mapping[str, _Field]) -> dict[str, Any]:
    """
    Check a body, field by field.

    Args:
        body: What `read_body` found.
        fields: What the endpoint knows; anything else is left out of the result.

    Returns:
        A value for every known field.

    Raises:
        Invalid: With one problem for each field that is wrong.
    """
    values: dict[str, Any] = {}
    problems = []
    for name, field_ in fields.items():
        value = body.get(name)
        if name not in body and field_.required:
            problems.append(Problem(name, "field required", "missing"))
        elif name not in body or (value is None and field_.nullable):
            values[name] = field_.default
        else:
            try:
                values[name] = _checked(value, field_)
            except ValueError as exc:
                problems.append(Problem(name, str(exc)))
    if problems:
        raise Invalid(*problems)
    return values


def _checked(value: Any, field_: _Field) -> Any:
    if field_.kind is int and isinstance(value, str) and value.isascii() and value.isdigit():
        # As pydantic does; one known client sends its sizes so.
        value = int(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        # Chosen: no document gives a largest number.
        raise ValueError("input should be a 64-bit integer")
    if field_.kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, field_.kind) or (field_.kind is int and isinstance(value, bool)):
        names = {str: "a string", int: "an integer", float: "a number", bool: "a boolean"}
        raise ValueError(f"input should be {names.get(field_.kind, 'a list')}")
    if field_.among and value not in field_.among:
        raise ValueError(f"input should be one of {', '.join(field_.among)}")
    if field_.least is not None and value < field_.least:
        raise ValueError(f"input should be {field_.least} or more")
    if field_.most is not None and value > field_.most:
        raise ValueError(f"input should be {field_.most} or less")
    return value


# Orders.


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


def _shrunk(size: tuple[int, int], behaviour: FireworksBehaviour) -> tuple[int, int]:
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
        size=_shrunk(RATIOS[values["aspect_ratio"]], behaviour),
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
        size=_shrunk(size, behaviour),
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
    size = RATIOS["1:1"] if picture is None else _near(*_picture_size(picture))
    if values["aspect_ratio"] is not None:
        size = _ratio_size(values["aspect_ratio"])
    encoding = _ENCODINGS[f"image/{values['output_format']}"]
    return Order(
        model=model,
        look=values["prompt"],
        seed=_drawn_seed(values["seed"]),
        samples=1,
        size=_shrunk(size, behaviour),
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


def _picture_size(content: bytes) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(content)) as picture:
            # Whole, so that nothing can go wrong once the task is accepted.
            picture.load()
            return picture.size
    except (
        *(OSError, ValueError, SyntaxError),
        *(Image.DecompressionBombError, Image.DecompressionBombWarning),
    ) as exc:
        raise Invalid(Problem("input_image", "not a picture that can be read")) from exc


def _ratio_size(ratio: str) -> tuple[int, int]:
    across, _, down = ratio.partition(":")
    sides = [
        int(side) for side in (across, down) if side.isascii() and side.isdigit() and len(side) < 5
    ]
    # Source: "anything between 21:9 and 9:21".
    if len(sides) != 2 or not 0 < 9 * sides[0] <= 21 * sides[1] <= 49 * sides[0]:
        raise Invalid(Problem("aspect_ratio", f"got {ratio}, want one between 21:9 and 9:21"))
    return RATIOS.get(ratio) or _near(*sides)


def _near(across: int, down: int) -> tuple[int, int]:
    """Make sides of about this ratio and one megapixel, in multiples of 64."""
    ratio = min(21 / 9, max(9 / 21, across / down))
    return round((2**20 * ratio) ** 0.5 / 64) * 64, round((2**20 / ratio) ** 0.5 / 64) * 64


# Answers.


def base64_text(content: bytes) -> str:
    """Write bytes as bare base64."""
    return base64.b64encode(content).decode()


def image_answer(order: Order, content: bytes) -> Answer:
    """Write the one picture of an order as it is."""
    headers = {"seed": str(order.seed), "finish-reason": order.finish_reason}
    return Answer(200, order.wanted.encoding.media_type, content, headers)


def artifacts_answer(order: Order, contents: Sequence[bytes], id: str, shape: JsonShape) -> Answer:
    """
    Write the pictures of an order as JSON.

    Args:
        order: The order.
        contents: Its pictures; `shape` ``string`` has room for the first only.
        id: The answer's id.
        shape: See `JsonShape`.
    """
    texts = [base64_text(content) for content in contents]
    common = {"finishReason": order.finish_reason, "seed": order.seed}
    match shape:
        case "array":
            artifacts = [
                {"base64": text, "finishReason": order.finish_reason, "seed": seed, "id": id}
                for seed, text in _counted(order.seed, texts)
            ]
            return json_answer(artifacts)
        case "string":
            return json_answer({"id": id, "base64": texts[0], **common})
        case "list":
            return json_answer({"id": id, "base64": texts, **common})
        case "list-prefixed":
            uris = [order.prefix + text for text in texts]
            return json_answer({"id": id, "base64": uris, **common})


def _counted(seed: int, texts: Sequence[str]) -> Iterator[tuple[int, str]]:
    for index, text in enumerate(texts):
        yield seed + index, text


def state_at(
    states: Sequence[KontextState], poll: int, *, done: bool, filtered: bool
) -> KontextState:
    """
    Decide what a poll is told.

    Args:
        states: The plan of the task.
        poll: Counts from 0; beyond the plan its last state holds.
        done: Whether the worker has finished.
        filtered: Whether the prompt has the word that is filtered.
    """
    state = states[min(poll, len(states) - 1)]
    if state == "Ready" and not done:
        return "Pending"
    return "Content Moderated" if state == "Ready" and filtered else state


def runs(states: Sequence[KontextState]) -> bool:
    """
    Tell whether a task with this plan is drawn, and charged.

    Chosen: one that ends in ``Request Moderated`` or ``Error`` is neither;
    ``Content Moderated`` is both, since the picture had to be made to be judged.
    """
    return states[-1] not in {"Request Moderated", "Error"}


_DETAILS: Mapping[KontextState, str] = {
    "Request Moderated": "the prompt or the input image was refused",
    "Content Moderated": "the picture was refused",
    "Error": "the task failed",
}


def poll_answer(id: str, state: KontextState, sample: str | None) -> Answer:
    """Write the answer of ``get_result``; what `details` holds is chosen."""
    reason = _DETAILS.get(state)
    return json_answer(
        {
            "id": id,
            "status": state,
            "result": None if sample is None else {"sample": sample},
            "progress": None,
            "details": None if reason is None else {"reason": reason},
        }
    )


# The older ceiling of requests, and what is told of it.


def rate_headers(limit: int, served: int) -> dict[str, str]:
    """
    Make the headers of an order.

    Args:
        limit: Orders in one window.
        served: Orders served in this window, with this one.
    """
    headers = {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(max(0, limit - served)),
    }
    if served > limit:
        headers["x-ratelimit-over-limit"] = "yes"
    return headers


def is_far_over(limit: int, served: int) -> bool:
    """Tell whether an order is refused; half as many again is chosen."""
    return served > limit + limit // 2
