"""
A Kontext task after it was submitted: asked about until it has ended, then its picture fetched.

The submission is what is paid. Everything here costs nothing, so it is asked
again as `_polling` says, and what is raised in the end names the task's id.
The picture lies at another host, as a rule: the key is sent there only if it
is the API's own origin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin

import httpx

from .. import _waiting
from .._errors import (
    APIStatusError,
    DeadlineExceededError,
    JobFailedError,
    JobNotFoundError,
    MalformedResponseError,
    ProdiaError,
)
from .._polling import GRACE, Pace, Patience, ask, free
from .._show import one_line, shown
from .._vocabulary import Vocabulary
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
from ._orders import poll_request, sample_request, with_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._engine import Engine
    from .._exchange import Reply
    from .._vocabulary import Terms
    from .._wire import Headers

T = TypeVar("T")

POLL_GROWTH = 1.25
POLL_MAX_SECONDS = 5.0
POLL_JITTER = 0.25
"""How waits between polls grow, up to where, and their random part. Chosen; see `Kontext`."""

SAMPLE_GRACE = GRACE - 1
"""As many further times a picture is fetched that comes cut or makes no sense."""

GOES_ON = "it goes on at the server, and kontext_result() can pick it up"

SAMPLE_SECONDS = 300.0
"""How long a picture is asked for that cannot be had. Chosen: such addresses live some minutes."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 3
"""How often a picture may lie somewhere else. Chosen: fetching costs nothing, losing it does."""

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
        origins = [(each.scheme, each.host, _port(each)) for each in (there, base)]
    except (httpx.InvalidURL, ValueError) as error:
        # What is in it is as good as a password.
        raise MalformedResponseError(
            f"the picture must lie at a URL, and not at these {len(url)} characters: "
            f"{one_line(str(error))}"
        ) from error
    if not there.host or there.userinfo or there.scheme not in {"https", base.scheme}:
        # What follows the host is as good as a password.
        raise MalformedResponseError(
            f"the picture must lie at an https URL, not at {there.scheme}://{there.host}"
        )
    return str(there.copy_with(fragment=None)), origins[0] == origins[1]


def _port(url: httpx.URL) -> int | None:
    """
    Return a URL's port, ``None`` for its scheme's own.

    Raises:
        ValueError: There is no such port.
    """
    if url.port is not None and not 0 < url.port < 65536:
        raise ValueError(f"there is no port {shown(url.port)}")
    return url.port


async def _no_key() -> str:
    return ""


class _Read(Answer[T]):
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

    error_for = Vocabulary.error_for


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


@dataclass(slots=True, kw_only=True)
class Task:
    """
    A task that is with the service.

    Attributes:
        seed: What it was given, if that is known.
        poll: Seconds before the first look.
        terms: On which it was submitted; its `timeout` bounds the task.
        max_bytes: The most that is collected of a picture.
        headers: Further ones for each question, but for a picture at another host.
        fault: The last that a question met.
    """

    id: str
    model: str
    seed: int | None
    poll: float
    terms: Terms
    engine: Engine
    base_url: str
    max_bytes: int
    headers: Sequence[tuple[str, str]] = ()
    fault: ProdiaError | None = None

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
            raise error.tell(job_id=self.id, may_have_run=True) from error.__cause__

    async def _ended(self) -> Told:
        """Ask until the task has ended well."""
        began = _waiting.current_time()
        pace = Pace(
            self.poll,
            growth=POLL_GROWTH,
            longest=max(POLL_MAX_SECONDS, 5 * self.poll),
            below=0.0,
            above=POLL_JITTER,
        )
        terms = free(self.terms)
        while True:
            await _waiting.sleep(pace.next())
            told = await self._patiently(lambda: self._look(terms), began + self.terms.timeout)
            if self._judge(told):
                return told
            seconds = _waiting.current_time() - began
            if seconds > self.terms.timeout:
                raise DeadlineExceededError(
                    f"the task was still {shown(told.status)} after {seconds:.0f} s, and timeout "
                    f"is {self.terms.timeout:g} s; {GOES_ON}"
                )

    async def _look(self, terms: Terms) -> Told:
        """
        Look at the task once.

        Raises:
            JobNotFoundError: The service says that there is none.
        """
        question = with_headers(poll_request(self.model, self.id), self.headers)
        told, finished = await self.engine.run(question, _Read(read_told, MAX_STATE_BYTES), terms)
        if told.status == "task not found":
            why = f": {told.details}" if told.details else ""
            raise JobNotFoundError(
                f"the server said 'Task not found'{why}",
                status_code=200,
                headers=told.headers,
                attempts=finished.attempts,
            )
        return told

    async def _patiently(
        self,
        question: Callable[[], Awaitable[T]],
        until: float,
        *,
        known: bool = True,
        grace: int = GRACE,
    ) -> T:
        retry = self.terms.retry
        patience = Patience(retry, until=until, known=known, grace=grace, doubt=0.0)
        about = f"task {one_line(self.id)}"
        return await ask(question, patience, about=about, engine=self.engine, note=self._note)

    def _note(self, error: ProdiaError) -> None:
        self.fault = error

    def _judge(self, told: Told) -> bool:
        """Return whether there is a picture, or raise why there will be none."""
        why = f": {told.details}" if told.details else ""
        if told.status == "ready":
            return True
        if told.status in MODERATED:
            raise ContentFilteredError(f"the task ended as {told.status.title()!r}{why}")
        if told.status in FAILED:
            raise JobFailedError(f"the task failed{why or ', and the server does not say why'}")
        return False

    async def _fetch(self, told: Told) -> Image:
        sample = told.sample
        if sample is None:
            raise MalformedResponseError(
                "the task is ready, and no sample tells where its picture is"
            )
        if not re.match(r"https?://", sample, re.IGNORECASE):
            return self._image(decode_base64(sample))
        first = check_sample_url(sample, self.base_url)

        async def fetch() -> Image:
            url, is_own = first
            for _ in range(1 + MAX_REDIRECTS):
                try:
                    return await self._get(url, is_own=is_own)
                except APIStatusError as error:
                    location = error.headers.get("location")
                    if error.status_code not in REDIRECTS or not location:
                        raise
                # The key never comes back to where another host says.
                url, also_own = check_sample_url(urljoin(url, location), self.base_url)
                is_own = is_own and also_own
            # Where it leads is as good as a password.
            raise MalformedResponseError(
                f"the picture must lie somewhere; {MAX_REDIRECTS} redirects led to a further one"
            )

        until = _waiting.current_time() + SAMPLE_SECONDS
        return await self._patiently(fetch, until, known=False, grace=SAMPLE_GRACE)

    async def _get(self, url: str, *, is_own: bool) -> Image:
        """Fetch the picture once, with the key where it is the API's own."""
        terms = free(self.terms if is_own else replace(self.terms, authorize=_no_key))
        answer = _Sample(lambda _, body: self._image(body), self.max_bytes)
        request = with_headers(sample_request(url), self.headers if is_own else ())
        image, _ = await self.engine.run(request, answer, terms)
        return image

    def _image(self, content: bytes) -> Image:
        return check_images([make_image(content, self.seed, SUCCESS, self.id)])[0]
