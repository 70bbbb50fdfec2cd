"""
Pictures from pictures, edges and codes at the older path of the second API.

The names, ranges and defaults are those of the service's own Python package, in
its last version with pictures; no page has them any more. Chosen, because
nobody says it: that edges and codes cost nothing, that a code only looks like
one (it cannot be read), how closely a picture is followed, and its size where
none is asked for.
"""

from __future__ import annotations

import io
import random
from dataclasses import replace
from math import log
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image, ImageDraw, ImageFilter, ImageOps
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from ..drawing import _pictures
from ._fields import CANNY_FIELDS, CONTROL_FIELDS, EDIT_FIELDS, QR_FIELDS, check_fields, from_texts
from ._models import PAIRS
from ._orders import Order, picture_size, sdxl_order, shrunk
from ._refusals import Invalid, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.datastructures import Headers

    from ._behaviour import FireworksBehaviour
    from ._models import Model
    from ._orders import Wanted

Edit = Literal["image_to_image", "control_net", "canny_edge_detection", "qr_code"]

FIELDS: Mapping[Edit, Mapping[str, Any]] = {
    "image_to_image": EDIT_FIELDS,
    "control_net": CONTROL_FIELDS,
    "canny_edge_detection": CANNY_FIELDS,
    "qr_code": QR_FIELDS,
}

PART: Mapping[Edit, str] = {
    "image_to_image": "init_image",
    "control_net": "control_image",
    "canny_edge_detection": "image",
}
"""Which part of the form is the picture."""

_FOLLOWED = 0.8
"""How strongly a picture is painted anew along its lines (chosen)."""


async def read_form(
    headers: Headers, body: AsyncGenerator[bytes, None]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """
    Read a form.

    Returns:
        Its fields as texts, and its files by the names of their parts.

    Raises:
        Invalid: It is not a form, or not a whole one.
    """
    if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Invalid(Problem("", "input should be multipart/form-data", "form_type"))
    texts: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    try:
        form = await MultiPartParser(headers, body).parse()
    except (MultiPartException, KeyError) as exc:
        raise Invalid(Problem("", f"form decode error: {exc}", "form_invalid")) from exc
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                files[name] = await value.read()
            else:
                texts[name] = value
    finally:
        await form.close()
    return texts, files


def edit_order(
    edit: Edit,
    model: Model,
    body: Mapping[str, Any],
    *,
    picture: bytes | None,
    wanted: Wanted,
    behaviour: FireworksBehaviour,
) -> Order:
    """
    Read the fields of a form, or of the JSON that asks for a code.

    Raises:
        Invalid: A known field is wrong, the picture is missing or cannot be
            read, or what one way to start from a picture needs is missing.
    """
    if edit == "qr_code":
        values = check_fields(body, QR_FIELDS)
        size = values["width"], values["height"]
        return _plain(edit, model, size, wanted, behaviour, look=values["prompt"])
    values = check_fields(from_texts(body, FIELDS[edit]), FIELDS[edit])
    if picture is None:
        raise Invalid(Problem(PART[edit], "field required", "missing"))
    size = picture_size(picture, PART[edit])
    if edit == "canny_edge_detection":
        order = _plain(edit, model, size, wanted, behaviour, look="")
        return replace(order, picture=picture, bounds=(values["min_val"], values["max_val"]))
    strength = _FOLLOWED
    if edit == "image_to_image":
        strength = 1 - _kept(values)
    elif not values["control_net_name"]:
        raise Invalid(Problem("control_net_name", "field required", "missing"))
    given = {name: value for name, value in values.items() if value is not None}
    if values["width"] is None and values["height"] is None:
        given |= dict(zip(("width", "height"), _near_pair(*size), strict=True))
    order = sdxl_order(model, given, wanted, behaviour)
    return replace(order, edit=edit, picture=picture, strength=strength)


def _near_pair(across: int, down: int) -> tuple[int, int]:
    """Choose the size whose ratio is nearest to a picture's; invented, as no page says."""
    return min(sorted(PAIRS), key=lambda pair: abs(log(pair[0] * down / (pair[1] * across))))


def _kept(values: Mapping[str, Any]) -> float:
    """Work out how much of the picture stays."""
    if values["init_image_mode"] == "STEP_SCHEDULE":
        if values["step_schedule_end"] is None:
            raise Invalid(Problem("step_schedule_end", "field required", "missing"))
        return float(values["step_schedule_start"])
    if values["image_strength"] is None:
        raise Invalid(Problem("image_strength", "field required", "missing"))
    return float(values["image_strength"])


def _plain(
    edit: Edit,
    model: Model,
    size: tuple[int, int],
    wanted: Wanted,
    behaviour: FireworksBehaviour,
    *,
    look: str,
) -> Order:
    return Order(
        model=model,
        look=look,
        seed=1,
        samples=1,
        size=shrunk(size, behaviour),
        steps=0,
        filtered=False,
        wanted=wanted,
        sketch=False,
        edit=edit,
    )


def draw_edit(order: Order) -> Image.Image:
    """Draw what an edit makes."""
    if order.edit == "qr_code":
        return _code(order.look, order.size)
    with Image.open(io.BytesIO(order.picture or b"")) as source:
        upright = ImageOps.exif_transpose(source).convert("RGB")
    if order.edit == "canny_edge_detection":
        low, high = sorted(order.bounds)
        edges = upright.resize(order.size).convert("L").filter(ImageFilter.FIND_EDGES)
        # What lies between the bounds is grey: it depends on its neighbours, which are not asked.
        levels = [255 if each >= high else 128 if each >= low else 0 for each in range(256)]
        return edges.point(levels).convert("RGB")
    return _pictures.restyle(upright, order.look, order.seed, order.size, order.strength)


_MODULES = 25
"""Squares a side of a code (that of version 2)."""


def _code(text: str, size: tuple[int, int]) -> Image.Image:
    chance = random.Random(text)
    code = Image.frombytes(
        "L",
        (_MODULES, _MODULES),
        bytes(255 * chance.getrandbits(1) for _ in range(_MODULES * _MODULES)),
    )
    draw = ImageDraw.Draw(code)
    for left, top in ((0, 0), (_MODULES - 7, 0), (0, _MODULES - 7)):
        draw.rectangle((left - 1, top - 1, left + 7, top + 7), fill=255)
        draw.rectangle((left, top, left + 6, top + 6), outline=0)
        draw.rectangle((left + 2, top + 2, left + 4, top + 4), fill=0)
    bordered = ImageOps.expand(code, 2, 255)
    return bordered.resize(size, Image.Resampling.NEAREST).convert("RGB")
