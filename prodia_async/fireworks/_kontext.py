"""
A Kontext task after it was submitted: asked about until it has ended, then its picture fetched.

The submission is what is paid. Everything here costs nothing, so whatever goes
wrong is asked again, and what is raised in the end names the task's id. The
picture lies at another host, as a rule: the key is sent there only if it is
the API's own origin.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .. import _waiting
from .._errors import (
    APIConnectionError,
    DeadlineExceededError,
    JobFailedError,
    JobNotFoundError,
    MalformedResponseError,
    ProdiaError,
    ResponseError,
    ServerError,
    TruncatedResponseError,
    shown,
)
from .._httpx import httpx
from .._show import one_line
from .._statuses import status_error, text_of
from ._answers import (
    SUCCESS,
    Answer,
    ContentFilteredError,
    Image,
    check_images,
    decode_base64,
    make_image,
    message_in,
    read_body,
    read_json,
)
from ._orders import poll_request, sample_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._engine import Engine, Terms, Vocabulary
    from .._transport import Reply
    from .._wire import Headers, WireRequest

T = TypeVar("T")

POLL_GROWTH = 1.25
POLL_MAX_SECONDS = 5.0
POLL_JITTER = 0.25
"""How waits between polls grow, up to where, and their random part. Chosen; see `Kontext`."""

GRACE = 5
"""
So many polls in a row may tell nothing: ``Task not found``, which a client met
just after submitting and tolerates as often, a lost connection, or an answer
that makes no sense.
"""

GOES_ON = "it goes on at the server, and kontext_result() can pick it up"

MAX_STATE_BYTES = 64 * 1024 * 1024
"""Largest answer to a poll; the picture itself may be in it. Chosen."""

MODERATED = frozenset({"request moderated", "content moderated"})
FAILED = frozenset({"error", "failed"})
"""The second is not documented; one client ends on it."""


@dataclass(frozen=True, slots=True)
class Told:
    """
    What a poll was told.

    Attributes:
        status: One of the six documented, in lower case, or a word nobody documents.
        sample: Where the picture is, or the picture itself in base64.
        details: More of it, in whatever form; ``""`` for nothing.
        headers: Of the answer.
    """

    status: str
    sample: str | None
    details: str
    headers: Headers


def read_told(headers: Headers, body: bytes) -> Told:
    """
    Read the answer to a poll.

    Raises:
        MalformedResponseError: It is not of the documented form.
    """
    value = read_json(body)
    if not isinstance(value, dict) or not isinstance(value.get("status"), str):
        raise MalformedResponseError(
            f"a task's state must be an object with one, not {shown(value)}"
        )
    result = value.get("result")
    sample = result.get("sample") if isinstance(result, dict) else None
    return Told(
        value["status"].strip().lower(),
        sample if isinstance(sample, str) and sample else None,
        _details(value.get("details")) or _details(result),
        headers,
    )


def _details(value: Any) -> str:
    if isinstance(value, dict):
        return one_line(message_in(value) or (shown(value) if value else ""))
    return one_line(value) if isinstance(value, str) else ""


def check_sample_url(url: str, base_url: str) -> tuple[str, bool]:
    """
    Check where a picture is to be fetched from.

    Args:
        url: As the service gave it.
        base_url: The API's.

    Returns:
        The URL, and whether it is the API's own origin.

    Raises:
        MalformedResponseError: It is no URL, or in plain http though the API is not.
    """
    base = httpx.URL(base_url)
    try:
        there = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise MalformedResponseError(f"the picture must lie at a URL, not {shown(url)}") from error
    if not there.host or there.userinfo or there.scheme not in {"https", base.scheme}:
        # What follows the host is as good as a password.
        raise MalformedResponseError(
            f"the picture must lie at an https URL, not at {there.scheme}://{there.host}"
        )
    origins = [(each.scheme, each.host, each.port) for each in (there, base)]
    return str(there.copy_with(fragment=None)), origins[0] == origins[1]


async def _no_key() -> str:
    return ""


class _Read(Answer, Generic[T]):
    """An answer read by a plain function."""

    __slots__ = ("_max_bytes", "_read")

    def __init__(self, read: Callable[[Headers, bytes], T], max_bytes: int) -> None:
        self._read = read
        self._max_bytes = max_bytes

    async def read(self, reply: Reply) -> T:
        return self._read(reply.headers, await read_body(reply, self._max_bytes))


class _Sample(_Read[T]):
    """A picture from elsewhere, where the words of this API mean nothing."""

    __slots__ = ()

    def error_for(self, status_code: int, headers: Headers, body: bytes) -> ProdiaError:
        return status_error(status_code, headers, body, said=text_of(headers, body))


def read_task_id(headers: Headers, body: bytes) -> str:
    """
    Read the answer to a submission.

    Raises:
        MalformedResponseError: It names no task.
    """
    del headers
    value = read_json(body)
    for name in ("request_id", "id"):
        if isinstance(value, dict) and isinstance(value.get(name), str) and value[name]:
            return str(value[name])
    raise MalformedResponseError(
        f"the answer to a submission must bring a request_id, not {shown(value)}"
    )


def submission() -> Vocabulary[str]:
    """Return what reads the answer to a submission."""
    return _Read(read_task_id, MAX_STATE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """
    A task that is with the service.

    Attributes:
        id: The service's id.
        model: Which model works on it.
        seed: What it was given, if that is known.
        poll: Seconds before the first look.
        terms: On which a question is asked; it costs nothing, and has no deadline of its own.
        engine: What sends.
        base_url: The API's.
        max_bytes: The most that is collected of a picture.
    """

    id: str
    model: str
    seed: int | None
    poll: float
    terms: Terms
    engine: Engine
    base_url: str
    max_bytes: int

    async def picture(self) -> tuple[Image, Headers]:
        """
        Wait for the task's end and fetch what it made.

        Returns:
            The picture, and the headers of the last answer about the task.

        Raises:
            ContentFilteredError: One of the two moderated states.
            JobFailedError: It ended with ``Error``.
            JobNotFoundError: It is not known, and not just for a moment.
            DeadlineExceededError: It did not end within `timeout` seconds.
        """
        try:
            told = await self._ended()
            return await self._fetch(told), told.headers
        except ProdiaError as error:
            error.job_id = self.id
            error.may_have_run = True
            raise

    async def _ended(self) -> Told:
        """Ask until the task has ended well."""
        question = poll_request(self.model, self.id)
        began = _waiting.current_time()
        wait, longest = self.poll, max(POLL_MAX_SECONDS, 5 * self.poll)
        odd = 0
        while True:
            await _waiting.sleep(wait * random.uniform(1, 1 + POLL_JITTER))
            wait = min(wait * POLL_GROWTH, longest)
            told: Told | None = None
            try:
                told = await self._ask(question, _Read(read_told, MAX_STATE_BYTES), self.terms)
                odd = odd + 1 if told.status == "task not found" else 0
            except (JobNotFoundError, ResponseError, APIConnectionError, ServerError):
                odd += 1
                if odd > GRACE:
                    raise
            if told is not None and self._judge(told, odd):
                return told
            seconds = _waiting.current_time() - began
            if seconds > self.terms.timeout:
                raise DeadlineExceededError(
                    f"the task was still {shown(told.status) if told else 'not to be read'} after "
                    f"{seconds:.0f} s, and timeout is {self.terms.timeout:g} s; {GOES_ON}"
                )

    def _judge(self, told: Told, odd: int) -> bool:
        """Tell whether there is a picture, or raise why there will be none."""
        why = f": {told.details}" if told.details else ""
        if told.status == "ready":
            return True
        if told.status in MODERATED:
            raise ContentFilteredError(f"the task ended as {told.status.title()!r}{why}")
        if told.status in FAILED:
            raise JobFailedError(f"the task failed{why or ', and the server does not say why'}")
        if odd > GRACE:
            raise JobNotFoundError(
                f"the server said 'Task not found' {odd} times in a row{why}",
                status_code=200,
                headers=told.headers,
            )
        return False

    async def _fetch(self, told: Told) -> Image:
        sample = told.sample
        if sample is None:
            raise MalformedResponseError(
                "the task is ready, and no sample tells where its picture is"
            )
        if not re.match(r"https?://", sample, re.IGNORECASE):
            return self._image(decode_base64(sample))
        url, is_own = check_sample_url(sample, self.base_url)
        terms = self.terms if is_own else replace(self.terms, authorize=_no_key)
        answer = _Sample(lambda _, body: self._image(body), self.max_bytes)
        left = GRACE
        while True:
            try:
                return await self._ask(sample_request(url), answer, terms)
            except TruncatedResponseError:
                left -= 1
                if not left:
                    raise

    def _image(self, content: bytes) -> Image:
        return check_images([make_image(content, self.seed, SUCCESS, self.id)])[0]

    async def _ask(self, question: WireRequest, answer: Vocabulary[T], terms: Terms) -> T:
        value, _ = await self.engine.run(question, answer, terms)
        return value
