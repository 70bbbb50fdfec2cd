"""
What is sent to the Fireworks image API: an order, checked when it is built, to a request.

The service ignores a field it does not know, and answers with some other
picture, so each endpoint has a type of its own that takes what belongs to it
and nothing else. Facts are documented unless they are marked otherwise.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard

import anyio.to_thread

from .._checks import flag, integer, number, optional, seconds
from .._errors import InvalidRequestError
from .._formats import JSON_TYPE, Format
from .._media import SNIFF_BYTES, sniff
from .._models import as_input
from .._requests import encode_json, input_parts
from .._show import shown
from .._uploads import BytesBody, chunks_of
from .._wire import WireRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._models import InputLike

FLUX_SCHNELL = "flux-1-schnell-fp8"
KONTEXT_PRO = "flux-kontext-pro"

RATIOS = ("1:1", "21:9", "16:9", "3:2", "5:4", "4:5", "2:3", "9:16", "9:21", "4:3", "3:4")

DEFAULT_RATIO = "1:1"
"""
Sent when none is given, since the documents do not agree on the service's own
default. Chosen: one of the two that are claimed.
"""

SIZES = (
    (1024, 1024), (1152, 896), (896, 1152), (1216, 832), (832, 1216), (1344, 768), (768, 1344),
    (1536, 640), (640, 1536),
)  # fmt: skip

SAMPLERS = ("K_EULER", "K_DPMPP_2M")

SEED_MAX = 2**32 - 1
"""Largest seed that is drawn here. The service's own limit is not documented; chosen."""

POLL_SECONDS = 1.0
"""First wait between two looks at a Kontext task. Chosen: known clients use 0.5 to 2 s."""

PNG_TYPE = "image/png"
JPEG_TYPE = "image/jpeg"

ImageType: TypeAlias = Literal["image/png", "image/jpeg"]


@dataclass(frozen=True, slots=True)
class TextToImage:
    """
    A picture from a prompt, on the workflows endpoint, which serves the FLUX.1 models.

    Args:
        prompt: What to show.
        model: Its name, or ``accounts/.../models/...`` for one of another account.
        aspect_ratio: One of `RATIOS`; ``1:1`` by default, and always sent.
        guidance_scale: How closely to follow the prompt; the service's default is 3.5.
        num_inference_steps: From 1; the service's default for schnell is 4. They are what is paid.
        seed: From 0. ``None`` and 0 are random: a seed is drawn here then, from 1 to
            4,294,967,295, and recorded, so that a retry repeats the same picture
            and so can you. 0 itself is never sent, since it would be random at the server.
        safety_check: Have the service filter what it makes.
        accept: ``image/png`` (the default), ``image/jpeg`` or ``application/json``, or
            ``PNG()`` or ``JPEG(quality=...)``. JSON costs some 5 ms of CPU a
            megabyte on the event loop, a picture alone next to none (measured).
        jpeg_quality: 0 to 100, with ``image/jpeg`` alone.
        json_image: With ``application/json`` alone: the format inside it.
        raise_if_filtered: Whether a filtered picture is an error, or is
            handed over with `Image.is_filtered` set.
        deadline: Seconds in all; by default the client's.
        extra_body: Further fields of the request, for what the service takes and nobody here
            knows; sent as they are.
        tag: A name of your own for it, whatever it is: it comes back as
            ``outcome.tag`` and goes to the hook. It is not sent.

    Raises:
        InvalidRequestError: A value is out of its range; it says what is allowed.
    """

    prompt: str
    _: KW_ONLY
    model: str = FLUX_SCHNELL
    aspect_ratio: str | None = None
    guidance_scale: float | None = None
    num_inference_steps: int | None = None
    seed: int | None = None
    safety_check: bool | None = None
    accept: Format | str | None = None
    jpeg_quality: int | None = None
    json_image: ImageType | None = None
    raise_if_filtered: bool = True
    deadline: float | None = None
    extra_body: Mapping[str, Any] | None = field(default=None, repr=False)
    tag: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_common(self.prompt, self.model, self.seed, self.deadline)
        check_one_of("aspect_ratio", self.aspect_ratio, RATIOS)
        optional(number, "guidance_scale", self.guidance_scale, least=-LARGEST, most=LARGEST)
        optional(integer, "num_inference_steps", self.num_inference_steps, least=1)
        optional(flag, "safety_check", self.safety_check)
        optional(flag, "raise_if_filtered", self.raise_if_filtered)
        check_extra(self.extra_body, [each.name for each in fields(self)])
        accept_headers(self.accept, self.jpeg_quality, self.json_image)

    def __repr__(self) -> str:
        return shown_order(self)

    @property
    def steps(self) -> int | None:
        """What `estimate` goes by."""
        return self.num_inference_steps

    @property
    def samples(self) -> int:
        """How many pictures: this endpoint makes one a call."""
        return 1

    def to_request(self) -> WireRequest:
        """Return the request; can be sent any number of times."""
        return post(
            f"/workflows/{model_path(self.model)}/text_to_image",
            {
                "prompt": self.prompt,
                "aspect_ratio": self.aspect_ratio or DEFAULT_RATIO,
                "guidance_scale": self.guidance_scale,
                "num_inference_steps": self.num_inference_steps,
                "seed": self.seed,
                "safety_check": self.safety_check,
            },
            self.model,
            accept_headers(self.accept, self.jpeg_quality, self.json_image),
            self.extra_body,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SDXLOrder:
    """What the requests to the older image_generation endpoint share; see `Generate`."""

    model: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    cfg_scale: float | None = None
    sampler: str | None = None
    steps: int | None = None
    seed: int | None = None
    samples: int = 1
    safety_check: bool | None = None
    style_preset: str | None = None
    lora_adapter_name: str | None = None
    lora_weight_filename: str | None = None
    apply_invisible_watermark: bool | None = None
    accept: Format | str | None = None
    jpeg_quality: int | None = None
    json_image: ImageType | None = None
    raise_if_filtered: bool = True
    deadline: float | None = None
    extra_body: Mapping[str, Any] | None = field(default=None, repr=False)
    tag: Any = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        return shown_order(self)

    def _check(self, prompt: str) -> None:
        check_common(prompt, self.model, self.seed, self.deadline)
        check_size(self.width, self.height)
        optional(number, "cfg_scale", self.cfg_scale, least=-LARGEST, most=LARGEST)
        check_one_of("sampler", self.sampler, SAMPLERS)
        optional(integer, "steps", self.steps, least=1)
        integer("samples", self.samples, least=1)
        for name in (
            *("negative_prompt", "style_preset"),
            *("lora_adapter_name", "lora_weight_filename"),
        ):
            check_text(name, getattr(self, name))
        if (self.lora_adapter_name is None) != (self.lora_weight_filename is None):
            raise InvalidRequestError(
                "lora_adapter_name and lora_weight_filename belong together; give both or neither"
            )
        for name in ("safety_check", "apply_invisible_watermark", "raise_if_filtered"):
            optional(flag, name, getattr(self, name))
        check_extra(self.extra_body, [each.name for each in fields(self)])
        self._headers()

    def _headers(self) -> tuple[tuple[str, str], ...]:
        return form_headers(self.accept, self.jpeg_quality, self.json_image, self.samples)

    def _fields(self) -> dict[str, Any]:
        """Return what is sent as fields of the request; those that are ``None`` are not given."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in own.items() if name not in _NOT_SENT}


_NOT_SENT = frozenset(
    {
        "accept", "control_image", "deadline", "extra_body", "init_image", "jpeg_quality",
        "json_image", "model", "raise_if_filtered", "tag",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class Generate(SDXLOrder):
    """
    Pictures from a prompt, on the older image_generation endpoint, which serves the SDXL models.

    Args:
        prompt: What to show.
        model: Its name, for instance ``stable-diffusion-xl-1024-v1-0``.
        width: With `height` one of `SIZES`; by default the model's.
        height: As `width`.
        negative_prompt: What not to show.
        cfg_scale: How closely to follow the prompt; by default the model's.
        sampler: One of `SAMPLERS`; by default the model's.
        steps: From 1; by default the model's. They are what is paid.
        seed: As `TextToImage` takes it.
        samples: How many pictures, from 1. Several come as JSON alone.
        safety_check: Have the service filter what it makes; its default is off.
        style_preset: The service documents no list of them.
        lora_adapter_name: A LoRA adapter; needs `lora_weight_filename`.
        lora_weight_filename: Its file.
        apply_invisible_watermark: The service's default is off.
        accept: As `TextToImage` takes it; ``application/json`` by default for several.
        jpeg_quality: As `TextToImage` takes it.
        json_image: As `TextToImage` takes it.
        raise_if_filtered: As `TextToImage` takes it.
        deadline: Seconds in all; by default the client's.
        extra_body: As `TextToImage` takes it.
        tag: As `TextToImage` takes it.

    Raises:
        InvalidRequestError: A value is out of its range; it says what is allowed.
    """

    prompt: str

    def __post_init__(self) -> None:
        self._check(self.prompt)

    def to_request(self) -> WireRequest:
        """Return the request; can be sent any number of times."""
        return post(
            f"/image_generation/{model_path(self.model)}",
            self._fields(),
            self.model,
            self._headers(),
            self.extra_body,
        )


@dataclass(frozen=True, slots=True)
class Kontext:
    """
    A picture from a prompt and, if wanted, another picture: submitted, then asked about.

    Args:
        prompt: What to show, or what to change.
        model: ``flux-kontext-pro`` or ``flux-kontext-max``.
        input_image: The picture to start from: whatever may be an input of a
            Prodia job, a URL (the service fetches it) or a data URI.
        aspect_ratio: Anything between ``21:9`` and ``9:21``; by default the service's choice.
        output_format: ``png`` or ``jpeg``.
        seed: As `TextToImage` takes it.
        prompt_upsampling: Have the service rewrite the prompt.
        safety_tolerance: 0 (strict) to 6, at most 2 with an input image. The
            form in the documents shows 2.
        webhook_url: Where the service shall tell that it is done; 1 to 2083 characters.
        webhook_secret: For the signature of that message.
        poll: Seconds before the first look at the task; each further wait is longer
            by a quarter, up to five times as long or 5 s (the larger), plus a
            random part of up to a quarter, so that many do not ask in step. Chosen.
        deadline: Seconds in all; by default the client's.
        extra_body: As `TextToImage` takes it.
        tag: As `TextToImage` takes it.

    Raises:
        InvalidRequestError: A value is out of its range; it says what is allowed.
    """

    prompt: str
    _: KW_ONLY
    model: str = KONTEXT_PRO
    input_image: InputLike | None = field(default=None, repr=False)
    aspect_ratio: str | None = None
    output_format: Literal["png", "jpeg"] = "png"
    seed: int | None = None
    prompt_upsampling: bool | None = None
    safety_tolerance: int | None = None
    webhook_url: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    poll: float = POLL_SECONDS
    deadline: float | None = None
    extra_body: Mapping[str, Any] | None = field(default=None, repr=False)
    tag: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_common(self.prompt, self.model, self.seed, self.deadline)
        if self.input_image is not None and not is_address(self.input_image):
            as_input(self.input_image)  # refuses what is none
            if isinstance(self.input_image, os.PathLike):
                object.__setattr__(self, "input_image", Path(self.input_image))
        if self.aspect_ratio is not None and not _is_moderate(self.aspect_ratio):
            raise InvalidRequestError(
                "aspect_ratio must read like '16:9' and lie between 21:9 and 9:21, not "
                f"{shown(self.aspect_ratio)}"
            )
        if self.output_format not in {"png", "jpeg"}:
            raise InvalidRequestError(
                f"output_format must be 'png' or 'jpeg', not {shown(self.output_format)}"
            )
        optional(flag, "prompt_upsampling", self.prompt_upsampling)
        optional(integer, "safety_tolerance", self.safety_tolerance, least=0, most=6)
        if self.input_image is not None and (self.safety_tolerance or 0) > 2:
            raise InvalidRequestError(
                "safety_tolerance must be at most 2 with an input image, not "
                f"{shown(self.safety_tolerance)}"
            )
        check_text("webhook_url", self.webhook_url)
        check_text("webhook_secret", self.webhook_secret)
        if self.webhook_url is not None and not 1 <= len(self.webhook_url) <= 2083:
            raise InvalidRequestError(
                f"webhook_url must have 1 to 2083 characters, not {len(self.webhook_url)}"
            )
        seconds("poll", self.poll)
        check_extra(self.extra_body, [each.name for each in fields(self)])

    def __repr__(self) -> str:
        return shown_order(self)

    def to_request(self, picture: str | None = None) -> WireRequest:
        """
        Return the submission; can be sent any number of times.

        Args:
            picture: The input picture as a URL or a data URI, if there is one.
        """
        return post(
            f"/workflows/{model_path(self.model)}",
            {
                "prompt": self.prompt,
                "input_image": picture,
                "seed": self.seed,
                "aspect_ratio": self.aspect_ratio,
                "output_format": self.output_format,
                "webhook_url": self.webhook_url,
                "webhook_secret": self.webhook_secret,
                "prompt_upsampling": self.prompt_upsampling,
                "safety_tolerance": self.safety_tolerance,
            },
            self.model,
            (("accept", JSON_TYPE),),
            self.extra_body,
        )


async def picture_text(picture: InputLike | None) -> str | None:
    """
    Return an input picture in the form the service takes: a URL or a data URI.

    Raises:
        InvalidRequestError: It is no picture, or the file cannot be read.
    """
    if picture is None or is_address(picture):
        return picture
    (part,) = await input_parts([as_input(picture)])
    content = b"".join([bytes(chunk) async for chunk in chunks_of(part)])
    kind = sniff(content[:SNIFF_BYTES])
    if kind is None or not kind.startswith("image/"):
        raise InvalidRequestError(
            f"input_image must be a picture; these are {len(content)} bytes of no known format"
        )
    # Some milliseconds a megabyte, which the loop has no time for.
    encoded = await anyio.to_thread.run_sync(b64encode, content)
    return f"data:{kind};base64,{encoded.decode()}"


def is_address(picture: object) -> TypeGuard[str]:
    """Return whether a picture is given by its URL, or in a data URI."""
    return isinstance(picture, str) and bool(re.match(r"(https?://|data:)", picture, re.IGNORECASE))


def with_headers(wire: WireRequest, headers: Sequence[tuple[str, str]]) -> WireRequest:
    """Return a request with further headers, but for those that it has of its own."""
    own = {name for name, _ in wire.headers}
    more = [each for each in headers if each[0] not in own]
    return replace(wire, headers=(*wire.headers, *more)) if more else wire


def poll_request(model: str, task_id: str) -> WireRequest:
    """Return the question how a Kontext task stands; a POST, as all known clients send it."""
    body = BytesBody(encode_json({"id": task_id}), JSON_TYPE)
    path = f"/workflows/{model_path(model)}/get_result"
    return WireRequest("POST", path, (), (("accept", JSON_TYPE),), body, f"{model} get_result")


def sample_request(url: str) -> WireRequest:
    """Return the request for a picture that lies elsewhere."""
    return WireRequest("GET", url, (), (("accept", "image/*"),), None, "sample")


def accept_headers(
    accept: Format | str | None, jpeg_quality: int | None, json_image: str | None
) -> tuple[tuple[str, str], ...]:
    """
    Say in the service's headers which form of answer is wanted.

    Raises:
        InvalidRequestError: It cannot be had, or two of them contradict each other.
    """
    wanted = "accept must be 'image/png', 'image/jpeg' or 'application/json'"
    given = str(accept) if isinstance(accept, Format | str) else accept
    if given is None:
        given = PNG_TYPE
    if not isinstance(given, str):
        raise InvalidRequestError(f"{wanted}, PNG() or JPEG(quality=...), not {shown(accept)}")
    kind, *parameters = (part.strip().lower() for part in given.split(";"))
    if kind not in {PNG_TYPE, JPEG_TYPE, JSON_TYPE}:
        raise InvalidRequestError(f"{wanted}, not {shown(given)}")
    for parameter in parameters:
        quality = re.fullmatch(r"quality=(\d{1,3})", parameter)
        if kind != JPEG_TYPE or quality is None:
            raise InvalidRequestError(
                f"{wanted}; the one parameter it may have is quality, of image/jpeg, not "
                f"{shown(parameter)}"
            )
        if jpeg_quality is not None:
            raise InvalidRequestError("give the quality in accept or as jpeg_quality, not both")
        jpeg_quality = int(quality[1])
    optional(integer, "jpeg_quality", jpeg_quality, least=0, most=100)
    check_one_of("json_image", json_image, (PNG_TYPE, JPEG_TYPE))
    headers = [("accept", kind)]
    if jpeg_quality is not None:
        if kind != JPEG_TYPE:
            raise InvalidRequestError(f"jpeg_quality counts with image/jpeg alone, not with {kind}")
        headers.append(("jpeg-quality", str(jpeg_quality)))
    if json_image is not None:
        if kind != JSON_TYPE:
            raise InvalidRequestError(
                f"json_image counts with application/json alone, not with {kind}"
            )
        headers.append(("json-return-image-accept", json_image))
    return tuple(headers)


def check_task_id(task_id: object) -> str:
    """
    Check the id of a Kontext task.

    Raises:
        InvalidRequestError: It is none.
    """
    if not isinstance(task_id, str) or not task_id:
        raise InvalidRequestError(f"a task id must be a string, not {shown(task_id)}")
    return task_id


def check_model(model: object) -> str:
    """
    Check that a model's name can stand in a URL.

    Raises:
        InvalidRequestError: It cannot.
    """
    name = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
    if not isinstance(model, str) or not re.fullmatch(
        rf"{name}|accounts/{name}/models/{name}", model
    ):
        raise InvalidRequestError(
            f"model must be a name such as {FLUX_SCHNELL!r}, or read like "
            f"'accounts/fireworks/models/{FLUX_SCHNELL}', not {shown(model)}"
        )
    return model


def model_path(model: str) -> str:
    return model if "/" in model else f"accounts/fireworks/models/{model}"


def post(
    path: str,
    given: Mapping[str, Any],
    kind: str,
    headers: tuple[tuple[str, str], ...],
    extra: Mapping[str, Any] | None,
) -> WireRequest:
    """Return a request of JSON; what is ``None`` is left out, but in ``extra``."""
    sent = {name: value for name, value in given.items() if value is not None} | dict(extra or {})
    return WireRequest("POST", path, (), headers, BytesBody(encode_json(sent), JSON_TYPE), kind)


def form_headers(
    accept: Format | str | None, jpeg_quality: int | None, json_image: str | None, samples: int
) -> tuple[tuple[str, str], ...]:
    """
    Say which form of answer is wanted of an endpoint that makes several pictures in one call.

    Raises:
        InvalidRequestError: As `accept_headers`; or several are wanted as one picture.
    """
    several = samples > 1
    given = accept or (JSON_TYPE if several else None)
    headers = accept_headers(given, jpeg_quality, json_image)
    if several and dict(headers)["accept"] != JSON_TYPE:
        raise InvalidRequestError(
            f"samples={samples} pictures come as application/json alone, which holds "
            f"them all, not as {shown(given)}; json_image= says in which format"
        )
    return headers


def check_size(width: object, height: object) -> None:
    """
    Check a size of the older endpoint.

    Raises:
        InvalidRequestError: It is none of `SIZES`.
    """
    if (width, height) not in {(None, None), *SIZES}:
        pairs = ", ".join(f"{across}x{down}" for across, down in SIZES)
        raise InvalidRequestError(
            f"width and height must be one of {pairs}, or both be left out, not "
            f"{shown(width)} and {shown(height)}"
        )


def check_extra(extra: object, own: Sequence[str]) -> None:
    """
    Check further fields of a request.

    Raises:
        InvalidRequestError: They are no mapping from names, or have one that is an argument.
    """
    if extra is None:
        return
    if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
        raise InvalidRequestError(f"extra_body must be a mapping from names, not {shown(extra)}")
    taken = [name for name in extra if name in own]
    if taken:
        raise InvalidRequestError(
            f"extra_body has {', '.join(taken)}, which this request has an argument for"
        )


def shown_order(order: Any) -> str:
    """Write a request as it was made; an input may be a picture, a webhook's address a secret."""
    prompt = f"{shown(order.prompt)}, " if hasattr(order, "prompt") else ""
    return f"{type(order).__name__}({prompt}model={order.model!r}, seed={shown(order.seed)})"


def check_common(prompt: object, model: object, seed: object, deadline: float | None) -> None:
    """
    Check what nearly all requests have.

    Raises:
        InvalidRequestError: Something is out of its range.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidRequestError(
            f"prompt must be a string that says something, not {shown(prompt)}"
        )
    check_model(model)
    optional(integer, "seed", seed, least=0)
    optional(seconds, "deadline", deadline)


LARGEST = 1e300
"""Largest number that is sent. Chosen: neither NaN nor what no float can hold."""


def check_one_of(what: str, value: object, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise InvalidRequestError(f"{what} must be one of {', '.join(allowed)}, not {shown(value)}")


def check_text(what: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        # It may be a secret, so it is not shown.
        raise InvalidRequestError(f"{what} must be a string, not {type(value).__name__}")


def _is_moderate(ratio: object) -> bool:
    match = re.fullmatch(r"(\d{1,4}):(\d{1,4})", ratio) if isinstance(ratio, str) else None
    if match is None:
        return False
    across, down = int(match[1]), int(match[2])
    return 0 < 9 * across <= 21 * down <= 49 * across
