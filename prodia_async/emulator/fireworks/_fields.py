"""The fields of the second API's bodies, and bodies held against them."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ._models import RATIOS
from ._refusals import Invalid, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping


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

_SHARE = _Field(kind=float, nullable=True, least=0, most=1)

EDIT_FIELDS: Mapping[str, _Field] = {
    # Source of this and the next ones: the last official package with images.
    **SDXL_FIELDS,
    "init_image_mode": _Field(
        kind=str, default="IMAGE_STRENGTH", among=("IMAGE_STRENGTH", "STEP_SCHEDULE")
    ),
    "image_strength": _SHARE,
    "step_schedule_start": replace(_SHARE, default=0.65),
    "step_schedule_end": _SHARE,
    "crop_padding": _Field(kind=bool, default=True),
}

CONTROL_FIELDS: Mapping[str, _Field] = {
    **EDIT_FIELDS,
    "control_net_name": _Field(kind=str, required=True),
    "conditioning_scale": _Field(kind=float, default=0.5),
    "step_schedule_start": replace(_SHARE, default=0.0),
    "step_schedule_end": replace(_SHARE, default=1.0),
}

CANNY_FIELDS: Mapping[str, _Field] = {
    "model": _TEXT_OR_NULL,
    "min_val": _Field(kind=float, default=100.0),
    "max_val": _Field(kind=float, default=200.0),
}

QR_FIELDS: Mapping[str, _Field] = {
    "model": _TEXT_OR_NULL,
    "prompt": _PROMPT,
    # That a code has at most so many pixels is chosen.
    "width": _Field(kind=int, default=1024, nullable=True, least=1, most=4096),
    "height": _Field(kind=int, default=1024, nullable=True, least=1, most=4096),
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


def from_texts(texts: Mapping[str, Any], fields: Mapping[str, _Field]) -> dict[str, Any]:
    """
    Read the texts of a form as what their fields are.

    Args:
        texts: As they came; an empty one is null, as the package sends it.
        fields: What the endpoint knows.

    Returns:
        Values for `check_fields`; what cannot be read stays a text.
    """
    values: dict[str, Any] = {}
    for name, text in texts.items():
        known = fields.get(name)
        if not isinstance(text, str) or text == "":
            continue
        values[name] = text
        if known is None:
            continue
        if known.kind is bool and text.lower() in {"true", "false"}:
            values[name] = text.lower() == "true"
        if known.kind is float:
            with contextlib.suppress(ValueError):
                values[name] = float(text)
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
