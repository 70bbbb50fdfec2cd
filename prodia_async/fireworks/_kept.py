"""Answers of the second API in the folder of kept answers: what they are known by, what is kept."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from .._errors import ProdiaError
from .._keys import Digester, content_key
from .._models import JobResponse, as_input
from .._results import JobResult
from .._wire import Headers
from ._answers import Image, ImageResponse, config_of
from ._edits import CannyEdgeDetection, Order, PictureOrder, QRCode
from ._orders import Kontext, is_address

if TYPE_CHECKING:
    from .._models import InputLike


async def key_of(order: Order, digester: Digester) -> str | None:
    """
    Return by what the answer to an order is known, or ``None`` if it is not to be kept.

    Kept is what has a seed of the caller's own, since two runs without one
    are not meant to be the same; edges and codes have none and need none.
    What is wrong with an order is told by whoever sends it.
    """
    if not (order.seed or isinstance(order, CannyEdgeDetection | QRCode)):
        return None
    picture: InputLike | None = None
    config = config_of(order)
    if isinstance(order, PictureOrder):
        picture = order.picture
    elif isinstance(order, Kontext) and is_address(order.input_image):
        config["input_image"] = order.input_image
    elif isinstance(order, Kontext):
        picture = order.input_image
    for each in fields(order):
        if each.name in {"accept", "jpeg_quality", "json_image"}:
            value = getattr(order, each.name)
            config[each.name] = None if value is None else str(value)
    try:
        inputs = [] if picture is None else await digester.inputs([as_input(picture)])
        job = {"type": f"fireworks.{type(order).__name__}", "config": config}
        return content_key(job, inputs=inputs).hex()
    except (ProdiaError, OSError, TypeError, ValueError):
        return None


def to_keep(response: ImageResponse) -> JobResponse | None:
    """Return an answer as the folder takes it; ``None`` if one of its pictures was filtered."""
    if any(each.is_filtered for each in response.images):
        return None
    told = [
        {"seed": each.seed, "finish_reason": each.finish_reason, "id": each.id}
        for each in response.images
    ]
    return JobResponse(
        JobResult(config={"pictures": told}),
        response.images,
        response.request_id,
        response.attempts,
        response.timing,
    )


def from_kept(kept: JobResponse, order: Order) -> ImageResponse:
    """Return the answer that was kept for an order."""
    pictures = [
        Image(output.content, output.content_type, None, told["seed"], told["finish_reason"],
              told["id"])
        for output, told in zip(kept.outputs, kept.config["pictures"], strict=True)
    ]  # fmt: skip
    return ImageResponse(
        tuple(pictures), order, Headers(), kept.request_id, (), kept.timing, cached=True
    )
