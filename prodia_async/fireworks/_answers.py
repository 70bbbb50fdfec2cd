"""
What comes back from the Fireworks image API: an answer to pictures, an error status to an error.

The documents contradict each other about the JSON form, so every shape they
show is read: an object or an array at the top, ``base64`` as one text or a
list, with or without a data-URI prefix. What a picture is, its own first
bytes tell. A filtered picture comes with a success status and is an error here.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .._errors import (
    APIStatusError,
    BadRequestError,
    CapacityError,
    JobFailedError,
    MalformedResponseError,
    ResponseError,
    ResponseTooLargeError,
    ServerError,
    TruncatedResponseError,
)
from .._hooks import logger
from .._media import OCTET_STREAM, SNIFF_BYTES, bare_type, is_cut_short, sniff
from .._models import Failed, Succeeded
from .._outputs import Output
from .._show import MAX_SHOWN, one_line, shown
from .._statuses import STATUS_ERRORS, check_encoding, status_error, text_of
from .._vocabulary import Vocabulary
from ._edits import CannyEdgeDetection, Order, QRCode, SyncOrder
from ._orders import Kontext
from ._prices import estimate

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

    from .._attempts import Attempt, Timing
    from .._errors import ProdiaError
    from .._exchange import Reply
    from .._wire import Headers

T = TypeVar("T")

SUCCESS = "SUCCESS"

MAX_PREFIX = 200
"""How far into a data URI its comma may be. Chosen."""

KINDS: Mapping[int, type[APIStatusError]] = MappingProxyType(
    # 422 is what the framework of the service says of a body it cannot use.
    {**STATUS_ERRORS, 408: ServerError, 422: BadRequestError}
)
"""Source: guide "Inference Error Codes"."""

ADVICE: Mapping[int, str] = MappingProxyType(
    {
        401: "check the key (FIREWORKS_API_KEY, or api_key=)",
        # A probe without a key was once answered so on a workflow path.
        404: "a wrong model name, one that is not deployed, or a wrong key can look like this",
    }
)


@dataclass(frozen=True, slots=True)
class Image(Output):
    """
    One picture, whole and in memory; saved and shown as an `Output` is.

    Attributes:
        content: The bytes.
        content_type: The media type as the first bytes tell it.
        filename: ``None``; the service names nothing.
    """

    seed: int | None = None
    """
    What it was made from. ``None`` when the answer has several pictures and one seed: then only
    the first one's is known.
    """
    finish_reason: str | None = None
    """``SUCCESS`` or ``CONTENT_FILTERED``; ``None`` if the server did not say."""
    id: str | None = None
    """The server's id, if it told one."""

    def __repr__(self) -> str:
        return (
            f"<Image {self.content_type[:MAX_SHOWN]} {len(self.content)} bytes seed={self.seed} "
            f"{shown(self.finish_reason)}>"
        )

    @property
    def is_filtered(self) -> bool:
        """Whether it was filtered: any reason but success is, and none at all is not."""
        return self.finish_reason is not None and self.finish_reason.strip().upper() != SUCCESS


class ContentFilteredError(JobFailedError):
    """
    The service filtered what it made, or refused to make it. It ran and is probably paid.

    `outputs` are the pictures that came, filtered or not; for Kontext there are none.
    """

    _advice = "raise_if_filtered=False hands it over, flagged, where there is a picture"

    @property
    def images(self) -> tuple[Image, ...]:
        """Every picture of the answer, in its order."""
        return tuple(each for each in self.outputs if isinstance(each, Image))

    @property
    def image(self) -> Image | None:
        """The first picture that was filtered; what it shows is not documented (often black)."""
        return next((each for each in self.images if each.is_filtered), None)


@dataclass(frozen=True, slots=True)
class ImageResponse:
    """The answer to one order."""

    images: tuple[Image, ...]
    """The pictures, in the answer's order; at least one."""
    request: Order | None
    """
    What was asked, its seed filled in; asking it again gives the same picture. ``None`` when a
    task was picked up by its id.
    """
    headers: Mapping[str, str] = field(repr=False)
    """The headers of the answer; names in lower case."""
    request_id: str | None
    """The ``x-request-id`` header, for support requests."""
    attempts: tuple[Attempt, ...]
    """
    What was tried, oldest first; the last one succeeded. For Kontext those of the submission,
    which is what is paid.
    """
    timing: Timing
    """Where the time went."""
    cached: bool = False
    """Whether it came from a folder of earlier answers, and nothing was sent or charged."""

    @property
    def image(self) -> Image:
        """The first picture."""
        return self.images[0]

    @property
    def outputs(self) -> tuple[Image, ...]:
        """The pictures, by the name they have in the other API's response."""
        return self.images

    @property
    def output(self) -> Image:
        """The first picture, likewise."""
        return self.images[0]

    @property
    def content(self) -> bytes:
        """The bytes of the first picture."""
        return self.images[0].content

    @property
    def seed(self) -> int | None:
        """What the first picture was made from; ``None`` where nobody knows."""
        return self.images[0].seed

    @property
    def dollars(self) -> float | None:
        """What it cost by `estimate`, since no answer tells; ``None`` where no price is known."""
        return None if self.request is None or self.cached else dollars_of(self.request)

    @property
    def config(self) -> dict[str, Any]:
        """What was asked, the seed filled in and pictures left out; empty for a task by its id."""
        return {} if self.request is None else config_of(self.request)

    async def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """
        Write the first picture to a file, as `Output.save` does.

        Args:
            path: A file; or a folder, which is one that is there or a path that ends in a slash.
            overwrite: Replace a file that is there rather than number past it.

        Returns:
            Where it was written.

        Raises:
            OSError: It cannot be written there; the error names the path as given.
        """
        return await self.images[0].save(path, overwrite=overwrite)

    @property
    def is_over_limit(self) -> bool:
        """Whether it was served although over the rate limit; expect slowness, then refusals."""
        return is_over_limit(self.headers)


ImageOutcome: TypeAlias = Succeeded[Order, ImageResponse] | Failed[Order]
"""What became of one order of `AsyncFireworks.map`; as a `JobOutcome`. Its seed is filled in."""


def dollars_of(order: Order) -> float | None:
    """Return what an order costs by `estimate`; ``None`` where no price is known."""
    if isinstance(order, Kontext | CannyEdgeDetection | QRCode):
        return None
    return estimate(order.steps, order.model, images=order.samples).dollars


def config_of(order: Order) -> dict[str, Any]:
    """Return what an order asks for, without its pictures and what is not sent as it is."""
    given = {each.name: getattr(order, each.name) for each in fields(order)}
    extra = given.pop("extra_body") or {}
    kept = {name: value for name, value in given.items() if name not in _NOT_CONFIG}
    return {name: value for name, value in kept.items() if value is not None} | dict(extra)


_NOT_CONFIG = frozenset(
    {
        "_", "accept", "control_image", "deadline", "image", "init_image", "input_image",
        "jpeg_quality", "json_image", "poll", "raise_if_filtered", "tag", "webhook_secret",
        "webhook_url",
    }
)  # fmt: skip


def is_over_limit(headers: Mapping[str, str]) -> bool:
    """Tell whether an answer says that it was served although over the rate limit."""
    return headers.get("x-ratelimit-over-limit", "").strip().lower() in {"yes", "true", "1"}


async def read_body(reply: Reply, max_bytes: int) -> bytes:
    """
    Read a success answer to its end.

    Raises:
        ResponseTooLargeError: It has more than ``max_bytes``.
        TruncatedResponseError: It broke off.
        MalformedResponseError: It came in an encoding that was not asked for.
    """
    check_encoding(reply.headers)
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in reply:
            size += len(piece)
            if size > max_bytes:
                raise ResponseTooLargeError(f"the answer has more than {max_bytes} bytes")
            pieces.append(piece)
    except ResponseError as fault:
        fault.bytes_received = size
        raise
    return b"".join(pieces)


def read_images(
    headers: Headers, body: bytes, *, seed: int | None, raise_if_filtered: bool
) -> tuple[Image, ...]:
    """
    Turn a success answer into its pictures.

    Args:
        headers: The answer's headers.
        body: All of it.
        seed: The seed that was sent, for an answer that does not tell it.
        raise_if_filtered: Whether a filtered picture is an error.

    Returns:
        At least one.

    Raises:
        ContentFilteredError: One was filtered.
        TruncatedResponseError: One lacks the end that its format prescribes.
        MalformedResponseError: It is neither a picture nor any of the JSON shapes.
    """
    if (
        sniff(body[:SNIFF_BYTES]) is None
        and (
            bare_type(headers.get("content-type")) == "application/json"
            or body.lstrip()[:1] in b"{["
        )
        and body.strip()
    ):
        images = _read_json(body, seed)
    else:
        told = _whole(headers.get("seed"))
        reason = headers.get("finish-reason")
        images = [make_image(body, told if told is not None else seed, reason, None)]
    return check_images(images, raise_if_filtered=raise_if_filtered)


def check_images(images: list[Image], *, raise_if_filtered: bool = True) -> tuple[Image, ...]:
    """
    Judge the pictures of an answer.

    Raises:
        ContentFilteredError: One was filtered.
        TruncatedResponseError: One lacks the end that its format prescribes.
        MalformedResponseError: There is none, or one is no picture.
    """
    if not images:
        raise MalformedResponseError("the answer must hold a picture, and holds none")
    for image in images:
        # What a filtered one holds is not documented; it may well be nothing.
        if image.is_filtered:
            continue
        if not image.content_type.startswith("image/"):
            raise MalformedResponseError(
                f"the answer must be a picture, not {image.content[:80]!r}", outputs=images
            )
        if is_cut_short(image.content):
            raise TruncatedResponseError(
                f"the answer must be a whole picture, and {image!r} lacks the end that its format "
                "prescribes",
                outputs=images,
            )
    filtered = [image for image in images if image.is_filtered]
    if filtered and raise_if_filtered:
        raise ContentFilteredError(
            f"{len(filtered)} of {len(images)} pictures came as "
            f"{shown(filtered[0].finish_reason)}, made from seed {filtered[0].seed}",
            outputs=images,
        )
    return tuple(images)


def make_image(content: bytes, seed: int | None, reason: str | None, id: str | None) -> Image:
    """Put a picture together; what it is its first bytes tell."""
    kind = sniff(content[:SNIFF_BYTES]) or OCTET_STREAM
    return Image(content, kind, None, seed, reason, id)


def _read_json(body: bytes, seed: int | None) -> list[Image]:
    value = read_json(body)
    if isinstance(value, dict):
        return _artifact_images(value, seed)
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        images: list[Image] = []
        for artifact in value:
            images += _artifact_images(artifact, seed if not images else None)
        return images
    raise MalformedResponseError(
        f"the answer must be an object or an array of objects, not {shown(value)}"
    )


def read_json(body: bytes) -> Any:
    """
    Read JSON.

    Raises:
        MalformedResponseError: It is none.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        pass
    # Out here, where the cause is not its context: that holds the whole body.
    raise MalformedResponseError(f"the answer must be JSON, not {body[:80]!r}")


def _artifact_images(artifact: dict[str, Any], seed: int | None) -> list[Image]:
    """Return the pictures of one object; its one seed is that of the first."""
    texts = artifact.get("base64")
    reason = _text(artifact.get("finishReason", artifact.get("finish_reason")))
    listed = texts if isinstance(texts, list) else [texts]
    if not all(isinstance(text, str) for text in listed):
        said = message_in(artifact)
        if texts is None and said is None and reason is not None and reason.upper() != SUCCESS:
            listed = [""]
        else:
            raise MalformedResponseError(
                f"the answer must hold base64 as a string or a list of strings, not {shown(texts)}"
                f"{f'; it says: {one_line(said)}' if said else ''}"
            )
    told = _whole(artifact.get("seed"))
    seeds = [told if told is not None else seed, *[None] * len(listed)]
    name = _text(artifact.get("id"))
    return [
        make_image(decode_base64(text), each, reason, name)
        for text, each in zip(listed, seeds, strict=False)
    ]


def decode_base64(text: str) -> bytes:
    """
    Decode base64, with or without a data-URI prefix.

    Raises:
        MalformedResponseError: It is none.
    """
    bare = text[text.find(",", 0, MAX_PREFIX) + 1 :] if text[:5].lower() == "data:" else text
    try:
        try:
            return b64decode(bare, validate=True)
        except ValueError:  # perhaps for its line ends, which are seldom and take time to look for
            return b64decode("".join(bare.split()), validate=True)
    except ValueError as error:
        raise MalformedResponseError(
            f"the answer must hold a picture in base64, not {shown(text[:80])}"
        ) from error


def _whole(value: object) -> int | None:
    """Read a seed, from a header or from JSON."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,20}\s*", value, re.ASCII):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def error_for(status_code: int, headers: Headers, body: bytes) -> ProdiaError:
    """
    Turn an error status into the error to raise.

    The server's words are looked for under all the names they are known by:
    ``error.message``, ``error``, ``structured_error.errors``, ``detail`` (a
    text, or the framework's list), ``message``; else the body's text.
    """
    said = None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        said = message_in(value)
    if said is None:
        said = text_of(headers, body)
    kinds = KINDS
    if status_code == 503 and _is_own(value):
        kinds = {**KINDS, 503: CapacityError}
    return status_error(status_code, headers, body, said=said, kinds=kinds, advice=ADVICE)


def _is_own(value: object) -> bool:
    """
    Return whether the service itself wrote this error, in one of its forms.

    Its 503 is documented as overload, so nothing ran. A gateway that lost the
    service's answer says 503 too, and cannot know; it may say so in JSON, with
    ``message`` or ``error`` as a plain string.
    """
    if not isinstance(value, dict):
        return False
    error = value.get("error")
    own = {name: value[name] for name in ("structured_error", "detail") if name in value}
    if isinstance(error, dict):
        own["error"] = error
    return message_in(own) is not None


def message_in(value: dict[str, Any]) -> str | None:
    """Find the server's words in a JSON error, or ``None``."""
    error = value.get("error")
    structured = value.get("structured_error")
    detail = value.get("detail")
    found = [
        error.get("message") if isinstance(error, dict) else error,
        _joined(structured.get("errors")) if isinstance(structured, dict) else None,
        _joined(detail) if isinstance(detail, list) else detail,
        value.get("message"),
    ]
    return next((each for each in found if isinstance(each, str) and each), None)


def _joined(listed: object) -> str | None:
    """Join a list of texts, or of the framework's ``{loc, msg, type}``."""
    if not isinstance(listed, list):
        return None
    return "; ".join(_one_detail(each) for each in listed[:10]) or None


def _one_detail(each: object) -> str:
    if not isinstance(each, dict) or not isinstance(each.get("msg"), str):
        return each if isinstance(each, str) else shown(each)
    where = each.get("loc")
    place = ".".join(map(str, where)) if isinstance(where, list) else ""
    return f"{place}: {each['msg']}" if place else str(each["msg"])


class Answer(Vocabulary[T]):
    """What all answers of this API share, for the engine."""

    __slots__ = ()

    def error_for(self, status_code: int, headers: Headers, body: bytes) -> ProdiaError:
        return error_for(status_code, headers, body)


class Pictures(Answer["tuple[tuple[Image, ...], Headers]"]):
    """
    What this vocabulary makes of the answer to a `TextToImage` or `Generate`, for the engine.

    Args:
        order: What was asked.
        max_bytes: The most that is collected.
        price: What it costs, as far as that is known: the answers don't tell.
    """

    __slots__ = ("_came", "_max_bytes", "_order", "_price")

    def __init__(self, order: SyncOrder, *, max_bytes: int, price: float) -> None:
        self._order = order
        self._max_bytes = max_bytes
        self._price = price
        self._came = False

    async def read(self, reply: Reply) -> tuple[tuple[Image, ...], Headers]:
        """
        Read a success answer.

        Raises:
            ContentFilteredError: A picture was filtered.
            ResponseError: It is not what the API promises.
        """
        self._came = True
        if is_over_limit(reply.headers):
            logger.info(
                "%s: served although over the rate limit; slowness, then refusals, may follow",
                self._order.model,
            )
        body = await read_body(reply, self._max_bytes)
        images = read_images(
            reply.headers,
            body,
            seed=self._order.seed,
            raise_if_filtered=self._order.raise_if_filtered,
        )
        return images, reply.headers

    def dollars(self) -> float:
        """Return what it cost by `estimate`, filtered or not, once an answer of success came."""
        return self._price if self._came else 0.0
