"""
What is sent to the older endpoint beside `Generate`: pictures from pictures, edges, and QR codes.

The names, ranges and defaults are those of the service's own Python package, of its last
version with pictures (fireworks-ai 0.19.20); no page of the documents has them any more.
"""

from __future__ import annotations

import random
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from .._checks import flag, integer, number, optional, seconds
from .._errors import InvalidRequestError
from .._models import as_input
from .._requests import encode_json
from .._show import shown
from .._uploads import FormBody, FormPart
from .._wire import WireRequest
from ._orders import (
    SEED_MAX,
    Generate,
    Kontext,
    SDXLOrder,
    TextToImage,
    accept_headers,
    check_common,
    check_extra,
    check_model,
    check_one_of,
    check_text,
    model_path,
    post,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._formats import Format
    from .._models import InputLike

SDXL = "stable-diffusion-xl-1024-v1-0"

Mode = Literal["IMAGE_STRENGTH", "STEP_SCHEDULE"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class _Edit(SDXLOrder):
    """
    What the requests share that draw on a picture; see `ImageToImage`.

    Args:
        negative_prompt, cfg_scale, sampler, steps, seed, samples: As `Generate` takes them.
        safety_check, style_preset, lora_adapter_name, lora_weight_filename: Likewise.
        apply_invisible_watermark, accept, jpeg_quality, json_image: Likewise.
        raise_if_filtered, deadline, extra_body, tag: Likewise.
    """

    model: str = SDXL
    crop_padding: bool | None = None
    step_schedule_start: float | None = None
    step_schedule_end: float | None = None

    path: ClassVar[str]
    part: ClassVar[str]

    def _check_edit(self, prompt: str) -> None:
        self._check(prompt)
        as_input(self.picture)  # refuses what is none
        optional(flag, "crop_padding", self.crop_padding)
        for name in ("step_schedule_start", "step_schedule_end"):
            optional(number, name, getattr(self, name), most=1.0)

    @property
    def picture(self) -> InputLike:
        """The picture that is sent along."""
        picture: InputLike = getattr(self, self.part)
        return picture

    def to_request(self, picture: FormPart) -> WireRequest:
        """
        Return the request with its picture; can be sent any number of times.

        Args:
            picture: The part that the picture was made into.
        """
        return _form_request(self, self._fields(), self._headers(), picture)


@dataclass(frozen=True, slots=True, repr=False)
class ImageToImage(_Edit):
    """
    A picture from a picture and a prompt, on the older image_generation endpoint.

    The arguments that are not told here are as `Generate` takes them.

    Args:
        prompt: What to show.
        init_image: The picture to start from: whatever may be an input of a Prodia job.
        model: Its name; an SDXL model.
        init_image_mode: ``IMAGE_STRENGTH`` (the default) goes by `image_strength`,
            ``STEP_SCHEDULE`` by where the drawing steps in and out.
        image_strength: 0 to 1; how much of the picture stays. Needed for the first.
        step_schedule_start: 0 to 1; for the second. The package's default is 0.65.
        step_schedule_end: 0 to 1; needed for the second.
        crop_padding: Cut off what was added to fit the size; the package's default is on.
        width: With `height` one of `SIZES`; by default the picture's.
        height: As `width`.

    Raises:
        InvalidRequestError: A value is out of its range; it says what is allowed.
    """

    prompt: str
    init_image: InputLike = field(repr=False)
    _: KW_ONLY
    init_image_mode: Mode | None = None
    image_strength: float | None = None

    path: ClassVar[str] = "image_to_image"
    part: ClassVar[str] = "init_image"

    def __post_init__(self) -> None:
        self._check_edit(self.prompt)
        check_one_of("init_image_mode", self.init_image_mode, ("IMAGE_STRENGTH", "STEP_SCHEDULE"))
        optional(number, "image_strength", self.image_strength, most=1.0)
        if self.init_image_mode == "STEP_SCHEDULE":
            if self.step_schedule_end is None:
                raise InvalidRequestError(
                    "init_image_mode='STEP_SCHEDULE' needs step_schedule_end, from 0 to 1"
                )
        elif self.image_strength is None:
            raise InvalidRequestError(
                "image_strength is needed, from 0 to 1: how much of init_image stays; or give "
                "init_image_mode='STEP_SCHEDULE'"
            )


@dataclass(frozen=True, slots=True, repr=False)
class ControlNet(_Edit):
    """
    A picture from a prompt along the lines of another picture, on the older endpoint.

    The arguments that are not told here are as `Generate` takes them.

    Args:
        prompt: What to show.
        control_image: The lines: whatever may be an input of a Prodia job.
        control_net_name: Which network reads them: ``canny``, or the name of a repository.
        conditioning_scale: How closely to follow them; the package's default is 0.5.
        step_schedule_start: 0 to 1; the package's default is 0.
        step_schedule_end: 0 to 1; the package's default is 1.
        model: Its name; an SDXL model.
        width: As `ImageToImage` takes it.
        height: As `width`.
        crop_padding: As `ImageToImage` takes it.

    Raises:
        InvalidRequestError: A value is out of its range; it says what is allowed.
    """

    prompt: str
    control_image: InputLike = field(repr=False)
    _: KW_ONLY
    control_net_name: str
    conditioning_scale: float | None = None

    path: ClassVar[str] = "control_net"
    part: ClassVar[str] = "control_image"

    def __post_init__(self) -> None:
        self._check_edit(self.prompt)
        check_text("control_net_name", self.control_net_name)
        if not self.control_net_name:
            raise InvalidRequestError("control_net_name must name a network, for instance 'canny'")
        optional(number, "conditioning_scale", self.conditioning_scale)


@dataclass(frozen=True, slots=True)
class CannyEdgeDetection:
    """
    The edges of a picture, which `ControlNet` can follow, on the older endpoint.

    Args:
        image: The picture: whatever may be an input of a Prodia job.
        model: Its name; an SDXL model.
        min_val: Below this strength there is no edge; the package's default is 100.
        max_val: Above this strength there is one; the package's default is 200.
        accept: ``image/png`` (the default) or ``image/jpeg``.
        deadline: Seconds in all; by default the client's.
        extra_body: As `TextToImage` takes it.
        tag: As `TextToImage` takes it.

    Raises:
        InvalidRequestError: A value is out of its range; it says what is allowed.
    """

    image: InputLike = field(repr=False)
    _: KW_ONLY
    model: str = SDXL
    min_val: float | None = None
    max_val: float | None = None
    accept: Format | str | None = None
    deadline: float | None = None
    extra_body: Mapping[str, Any] | None = field(default=None, repr=False)
    tag: Any = field(default=None, repr=False, compare=False)

    path: ClassVar[str] = "canny_edge_detection"
    part: ClassVar[str] = "image"
    seed: ClassVar[None] = None
    steps: ClassVar[None] = None
    samples: ClassVar[int] = 1
    raise_if_filtered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_model(self.model)
        optional(seconds, "deadline", self.deadline)
        as_input(self.image)  # refuses what is none
        for name in ("min_val", "max_val"):
            optional(number, name, getattr(self, name))
        check_extra(self.extra_body, [each.name for each in fields(self)])
        accept_headers(self.accept, None, None)

    @property
    def picture(self) -> InputLike:
        """The picture that is sent along."""
        return self.image

    def to_request(self, picture: FormPart) -> WireRequest:
        """
        Return the request with its picture; can be sent any number of times.

        Args:
            picture: The part that the picture was made into.
        """
        given = {"min_val": self.min_val, "max_val": self.max_val}
        return _form_request(self, given, accept_headers(self.accept, None, None), picture)


@dataclass(frozen=True, slots=True)
class QRCode:
    """
    A QR code, which `ControlNet` can dress up, on the older endpoint.

    Args:
        prompt: What the code says.
        model: Its name; an SDXL model.
        width: Pixels; the package's default is 1024.
        height: As `width`.
        accept: ``image/png`` (the default) or ``image/jpeg``.
        deadline: Seconds in all; by default the client's.
        extra_body: As `TextToImage` takes it.
        tag: As `TextToImage` takes it.

    Raises:
        InvalidRequestError: A value is out of its range; it says what is allowed.
    """

    prompt: str
    _: KW_ONLY
    model: str = SDXL
    width: int | None = None
    height: int | None = None
    accept: Format | str | None = None
    deadline: float | None = None
    extra_body: Mapping[str, Any] | None = field(default=None, repr=False)
    tag: Any = field(default=None, repr=False, compare=False)

    seed: ClassVar[None] = None
    steps: ClassVar[None] = None
    samples: ClassVar[int] = 1
    raise_if_filtered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_common(self.prompt, self.model, None, self.deadline)
        for name in ("width", "height"):
            optional(integer, name, getattr(self, name), least=1)
        check_extra(self.extra_body, [each.name for each in fields(self)])
        accept_headers(self.accept, None, None)

    def to_request(self) -> WireRequest:
        """Return the request; can be sent any number of times."""
        return post(
            f"/image_generation/{model_path(self.model)}/qr_code",
            {"prompt": self.prompt, "width": self.width, "height": self.height},
            self.model,
            accept_headers(self.accept, None, None),
            self.extra_body,
        )


PictureOrder = ImageToImage | ControlNet | CannyEdgeDetection
"""What is sent with a picture, as a form."""


def _form_request(
    order: _Edit | CannyEdgeDetection,
    given: Mapping[str, Any],
    headers: tuple[tuple[str, str], ...],
    picture: FormPart,
) -> WireRequest:
    given = {**given, **(order.extra_body or {})}
    plain = [_plain_part(name, value) for name, value in given.items() if value is not None]
    return WireRequest(
        "POST",
        f"/image_generation/{model_path(order.model)}/{order.path}",
        (),
        headers,
        FormBody([*plain, replace(picture, name=order.part)]),
        order.model,
    )


def _plain_part(name: str, value: object) -> FormPart:
    # As browsers write them: text as it is, and of the rest what JSON calls it.
    content = value.encode() if isinstance(value, str) else encode_json(value)
    return FormPart(name, "", "", content, len(content))


SyncOrder: TypeAlias = (
    TextToImage | Generate | ImageToImage | ControlNet | CannyEdgeDetection | QRCode
)
"""What is answered at once."""

Order: TypeAlias = SyncOrder | Kontext
"""Whatever can be asked of the service."""


def with_seed(order: Order) -> Order:
    """
    Return the order with a seed that is not random any more.

    Raises:
        InvalidRequestError: It is no order.
    """
    if not isinstance(order, Order):
        raise InvalidRequestError(
            "a request must be a TextToImage, Generate, Kontext, ImageToImage, ControlNet, "
            f"CannyEdgeDetection or QRCode, or a prompt as text, not {shown(order)}"
        )
    if isinstance(order, CannyEdgeDetection | QRCode) or order.seed:
        return order
    return replace(order, seed=random.randint(1, SEED_MAX))
