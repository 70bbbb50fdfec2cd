"""
Jobs that are left with the server and asked about: ``/v2/job/async``.

Only the submission is a matter of money. Asking costs nothing, so a question
is repeated until the result must be gone, whatever went wrong with it
(`_polling` decides). Source: reference "Async", guide "Polling Async Jobs".
"""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import quote

from . import _notebook, _waiting
from ._answers import (
    Collector,
    OutputData,
    OutputFinished,
    OutputStarted,
    check_parts,
    error_for,
    failure_of,
    is_delimited,
)
from ._attempts import Timing
from ._checks import seconds as check_seconds
from ._errors import (
    DeadlineExceededError,
    InvalidRequestError,
    JobFailedError,
    JobNotFoundError,
    MalformedResponseError,
    ProdiaError,
    ResponseTooLargeError,
    TruncatedResponseError,
)
from ._media import is_cut_short
from ._models import JobResponse
from ._polling import RESULT_SECONDS, EndedJobs, Pace, Patience, ask, awaited, count, free
from ._requests import ASYNC_PATH
from ._results import FAILED_STATES, SUCCEEDED_STATES, dollars_of, read_job_result, state_word
from ._secret import blotted_data
from ._sessions import Unfinished
from ._show import shown
from ._statuses import check_encoding
from ._stream import JobStream, OutputPart, StreamBlock
from ._vocabulary import Finished, Terms, Vocabulary
from ._wire import WireRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from ._answers import AnswerEvent
    from ._attempts import Attempt
    from ._engine import Engine, Flight
    from ._exchange import Reply
    from ._outputs import Output
    from ._results import JobResult
    from ._wire import Headers

T = TypeVar("T")

POLL_SECONDS = 1.0
"""First wait between two looks at a job. Chosen: known clients use 2 to 5 s throughout."""

POLL_GROWTH = 1.25
POLL_MAX_SECONDS = 10.0
"""Each wait is so much longer than the last, up to this. Chosen: half of a 22 s video's time."""

POLL_JITTER = 0.2
"""Random part of a wait, either way, so that a thousand jobs do not ask in step. Chosen."""

MAX_TEXT_BYTES = 8 * 1024 * 1024
"""Largest state, job result or listing that is read. Chosen."""

ASK_KIND = "GET /v2/job/async"
"""What hooks and logs call questions about jobs."""

GOES_ON = frozenset(
    {"processing", "queued", "pending", "waiting", "starting", "running", "created"}
)
"""State words of a job that goes on. Documented: `processing`; the others are chosen."""

BROKE_OFF = frozenset({"error", "errored", "timeout", "timed out", "aborted", "rejected"})
"""
State words that sound like an end, and are not documented: the job result is then looked at,
which says whether it is one. Chosen.
"""

_GONE = "; the job is unknown, or has expired: results are kept for some five minutes"
_DOTS = re.compile(r"\.*")


@dataclass(frozen=True, slots=True)
class Calls:
    """
    What an `AsyncJob` needs of the client that made it.

    Attributes:
        engine: Runs requests.
        terms: Returns the terms to run them on, for a deadline of the caller's.
        price: Whether to ask for prices.
        max_response_bytes: The most that is collected in memory for one job.
        headers: Further ones for every request.
        counted: The jobs whose end was counted.
    """

    engine: Engine
    terms: Callable[[float | None], Terms]
    price: bool
    max_response_bytes: int
    headers: Sequence[tuple[str, str]]
    counted: EndedJobs

    def ended(
        self, job_id: str, *, completed: bool = False, cancelled: bool = False, dollars: float = 0.0
    ) -> None:
        """Count how a job ended; the first that is said of an id holds."""
        if self.counted.add(job_id):
            count(self.engine, completed=completed, cancelled=cancelled, dollars=dollars)


def check_job_id(job_id: object) -> str:
    """
    Check that an id can stand in a URL.

    Raises:
        InvalidRequestError: It cannot.
    """
    if not isinstance(job_id, str) or not re.fullmatch(r"[A-Za-z0-9._~-]{1,200}", job_id):
        raise InvalidRequestError(
            f"a job id must be a plain id as submit() gave it, not {shown(job_id)}"
        )
    if _DOTS.fullmatch(job_id):
        raise InvalidRequestError(f"a job id must be more than dots, not {shown(job_id)}")
    return job_id


def submitted_id(collected: Collector, finished: Finished) -> str:
    """
    Return the id that the answer to a submission tells.

    Raises:
        MalformedResponseError: It tells none, or one that nobody can ask about.
    """
    job = collected.job
    told = job.id if job is not None else None
    try:
        return check_job_id(told)
    except InvalidRequestError:
        # What was asked is not to blame: the server took the job, and it may be charged.
        came = "none" if told is None else f"{shown(told)}, which cannot stand in a URL"
    raise MalformedResponseError(
        f"the answer to a submission must bring the job's id, and has {came}",
        attempts=finished.attempts,
        request_id=finished.request_id,
        outputs=collected.outputs,
        job=job,
    )


def check_output_name(name: object) -> str:
    """
    Check that an output's name stays in its folder when it goes into a URL.

    Raises:
        InvalidRequestError: It has a slash or a backslash, or is of dots alone.
    """
    if (
        not isinstance(name, str)
        or re.search(r"[/\\\x00-\x1f\x7f\ud800-\udfff]", name)
        or _DOTS.fullmatch(name)
    ):
        raise InvalidRequestError(
            f"an output's name must be a plain file name, not {shown(name)}: it goes into a URL "
            "that is fetched with your token"
        )
    return name


def read_state(text: bytes) -> str:
    """
    Read ``job.state.current``: plain text, taken with quotes as well.

    Raises:
        MalformedResponseError: It is no word.
    """
    word = text.decode("utf-8", errors="replace").strip().strip("\"'").strip().lower()
    if not re.fullmatch(r"[a-z][a-z _-]{0,40}", word):
        raise MalformedResponseError(f"a job's state must be a word, not {shown(word)}")
    return word


def judge(word: str) -> Literal["goes on", "ended", "unknown"]:
    """Tell what a state word means for whoever waits."""
    if word in GOES_ON:
        return "goes on"
    return "ended" if word in SUCCEEDED_STATES | FAILED_STATES | BROKE_OFF else "unknown"


def lifetime_of(job: JobResult) -> float:
    """Return for how many seconds what a job made can be had, counted from its end."""
    since = job.updated_at or job.created_at
    if since is None or job.expires_at is None:
        return RESULT_SECONDS
    try:
        # Both are the server's, so its clock may be wrong.
        seconds = (job.expires_at - since).total_seconds()
    except TypeError:  # one has a time zone, the other none
        return RESULT_SECONDS
    return seconds if seconds > 0 else RESULT_SECONDS


def read_listing(text: bytes) -> list[str]:
    """
    Read the list of a job's outputs.

    Raises:
        MalformedResponseError: It is no JSON list of names, or a name would leave its folder.
    """
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list):
        raise MalformedResponseError(
            f"the outputs of a job must be listed as a JSON array of names, not {text[:80]!r}"
        )
    try:
        return [check_output_name(name) for name in listed]
    except InvalidRequestError as error:
        raise MalformedResponseError(
            f"the server lists an output that is refused: {error}"
        ) from error


class AsyncJob:
    """
    A job that is with the server, from `AsyncProdia.submit` or `AsyncProdia.async_job`.

    Keep its `id` to pick it up again, in any process, with
    ``client.async_job(id)``. What it made can be collected until it expires,
    some five minutes after it was made (``job.expires_at`` says when).

    Asking costs nothing, so a question that meets a fault is asked again
    until there is an answer, the deadline passes, or the result must have
    expired. The client's `RetryPolicy` gives the waits and no more. Questions
    do not count to `max_concurrency`.
    """

    def __init__(
        self,
        job_id: str,
        calls: Calls,
        *,
        job: JobResult | None = None,
        submitted: Finished | None = None,
        left: Unfinished | None = None,
    ) -> None:
        self.id = check_job_id(job_id)
        """The server's id."""
        self.job = job
        """What the server last said of it, or ``None`` if it was not asked yet."""
        self.attempts: tuple[Attempt, ...] = submitted.attempts if submitted else ()
        """How it was submitted; empty if that was elsewhere."""
        self._took = submitted.timing if submitted else Timing(0.0, 0.0, 0.0, 0.0)
        self._left = left or Unfinished(ASK_KIND, None, None, may_have_run=True, job_id=self.id)
        self._calls = calls
        self._last_state = job.state.current if job else None
        self._last_fault: ProdiaError | None = None
        # Whether the server has told us that it knows this id, and how long its result lives.
        self._is_known = submitted is not None
        self._lifetime = RESULT_SECONDS

    def __repr__(self) -> str:
        return f"<AsyncJob {self.id} {self._last_state or 'not asked yet'}>"

    def _repr_html_(self) -> str:
        """Show it in a notebook, and how to pick it up."""
        return _notebook.async_job_html(self, self._last_state or "not asked yet")

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(
            "an AsyncJob holds a client and cannot be pickled; send its id, and use "
            "client.async_job(id) there"
        )

    async def state(self) -> str:
        """
        Ask how the job stands; the client's deadline holds.

        Returns:
            The server's own word, ``processing``, ``processed`` or ``completed``, or ``failed``.

        Raises:
            JobNotFoundError: It is unknown, or has expired.
            DeadlineExceededError: There was no answer in time.
        """
        return await self._within(None, self._state)

    async def wait(self, *, poll: float = POLL_SECONDS, deadline: float | None = None) -> JobResult:
        """
        Wait until the job has ended.

        Args:
            poll: Seconds before the first look after one that found it
                running; each further wait is longer by a quarter, up to 10 s
                (or `poll`), give or take a fifth.
            deadline: Seconds in all; by default the client's.

        Returns:
            The job result.

        Raises:
            JobFailedError: It ended ``failed``.
            JobNotFoundError: It is unknown, or has expired.
            MalformedResponseError: For the client's `timeout` the server said
                a word that nobody knows.
            DeadlineExceededError: It did not end in time; it goes on at the
                server, and this object can be waited for again.
        """
        check_seconds("poll", poll)
        return await self._within(deadline, lambda: self._wait(poll))

    async def outputs(self) -> list[str]:
        """
        List the names of what the job made; the client's deadline holds.

        Raises:
            MalformedResponseError: The listing is no list, or has a name that
                would leave its folder in a URL.
            JobNotFoundError: The job is unknown, or has expired.
            DeadlineExceededError: There was no answer in time.
        """
        return await self._within(None, self._outputs)

    def stream(self, name: str) -> AbstractAsyncContextManager[OutputPart]:
        """
        Fetch one output while it comes; the client's deadline holds.

        ::

            async with job.stream("video.mp4") as part:
                await part.save("video.mp4")

        Args:
            name: One of `outputs`.

        Raises:
            InvalidRequestError: The name has a slash or a backslash, or is of dots alone.
            JobNotFoundError: On entering: no such output, or the job has expired.
            DeadlineExceededError: On entering or while reading.
        """
        check_output_name(name)
        return StreamBlock(self._stream(name))

    async def result(
        self, *, poll: float = POLL_SECONDS, deadline: float | None = None
    ) -> JobResponse:
        """
        Wait until the job has ended, and collect all that it made.

        Args:
            poll: As `wait` takes it.
            deadline: Seconds in all, the collecting included; by default the client's.

        Returns:
            As `AsyncProdia.job` does; `attempts` are those of the submission,
            and `timing` counts it in.

        Raises:
            ResponseTooLargeError: The outputs are more than `max_response_bytes` together.
            ProdiaError: As `wait`; and as `outputs`. Outputs that were
                collected before are on the error.
        """
        check_seconds("poll", poll)
        collected: list[Output] = []
        try:
            return await self._within(deadline, lambda: self._result(poll, collected))
        except ProdiaError as error:
            error.tell(outputs=collected)
            raise

    async def _within(self, deadline: float | None, step: Callable[[], Awaitable[T]]) -> T:
        own = self._calls.terms(deadline).deadline
        seconds = inf if own is None else own
        end = _waiting.current_time() + seconds
        with awaited(self._calls.engine, self._left), _waiting.until(end):
            return await step()
        why = f" (last trouble: {self._last_fault.message})" if self._last_fault else ""
        error = DeadlineExceededError(
            f"the job did not finish within {seconds:g} s and was last {self._last_state!r}{why}; "
            "it goes on at the server, and can be waited for again",
            attempts=self.attempts,
            may_have_run=True,
            job=self.job,
            stage="reading" if self._last_state in SUCCEEDED_STATES else "running",
            retry_after=getattr(self._last_fault, "retry_after", None),
        )
        raise error.tell(job_id=self.id) from self._last_fault

    async def _state(self) -> str:
        self._last_state = await self._ask("/job.state.current", read_state)
        return self._last_state

    async def _outputs(self) -> list[str]:
        return await self._ask("/output", read_listing)

    async def _wait(self, poll: float) -> JobResult:
        pace = Pace(
            poll,
            growth=POLL_GROWTH,
            longest=POLL_MAX_SECONDS,
            below=POLL_JITTER,
            above=POLL_JITTER,
        )
        known_at = _waiting.current_time()
        while True:
            meaning = judge(await self._state())
            if meaning == "ended" and (job := await self._final()) is not None:
                return job
            now = _waiting.current_time()
            if meaning == "goes on":
                known_at = now
            elif now - known_at > self._calls.terms(None).timeout:
                raise self._told(
                    MalformedResponseError(
                        f"a job must be 'processing', 'processed' or 'failed', and this one has "
                        f"been {shown(self._last_state)} for {now - known_at:.0f} s"
                    )
                )
            await _waiting.sleep(pace.next())

    async def _final(self) -> JobResult | None:
        """Fetch the job result of a job that has ended; ``None`` if by that it goes on."""
        job = self.job = await self._ask("/job.json", _read_result, price=self._calls.price)
        broke_off = self._last_state in BROKE_OFF and not job.succeeded
        failure = failure_of(job)
        if failure is None and broke_off and state_word(job) in GOES_ON:
            return None
        self._lifetime = lifetime_of(job)
        if failure is None and (broke_off or self._last_state in FAILED_STATES):
            why = job.failure or "the server does not say why"
            failure = JobFailedError(
                f"the job failed ({self._last_state}): {shown(why)}", reason=job.failure
            )
        self._calls.ended(self.id, completed=failure is None, dollars=dollars_of(job) or 0.0)
        if failure is not None:
            raise self._told(failure.tell(attempts=self.attempts))
        return job

    async def _result(self, poll: float, collected: list[Output]) -> JobResponse:
        began = _waiting.current_time()
        job = await self._wait(poll)
        request_id = None
        left = self._calls.max_response_bytes
        for name in await self._outputs():
            output, finished = await self._fetch(name, left)
            collected.append(output)
            left -= len(output.content)
            request_id = finished.request_id
        if (wrong := check_parts(job, collected, multipart=True)) is not None:
            raise self._told(wrong)
        running = _waiting.current_time() - began
        took = self._took
        timing = Timing(took.queued, took.backoff, took.running + running, took.total + running)
        return JobResponse(job, tuple(collected), request_id, self.attempts, timing)

    async def _fetch(self, name: str, left: int) -> tuple[Output, Finished]:
        request = self._request_of(name)
        most = self._calls.max_response_bytes
        return await self._run(request, lambda: _Whole(name, left, most))

    async def _ask(self, path: str, read: Callable[[bytes], T], *, price: bool = False) -> T:
        query = (("price", "true"),) if price else ()
        value, _ = await self._run(self._request(path, query), lambda: _Text(read))
        return value

    def _request_of(self, name: str) -> WireRequest:
        return self._request(f"/output/{quote(name, safe='')}")

    def _request(self, path: str, query: tuple[tuple[str, str], ...] = ()) -> WireRequest:
        return WireRequest(
            method="GET",
            path=f"{ASYNC_PATH}/{self.id}{path}",
            query=query,
            headers=(("accept", "*/*"), *self._calls.headers),
            body=None,
            kind=ASK_KIND,
        )

    async def _run(
        self, request: WireRequest, vocabulary: Callable[[], Vocabulary[T]]
    ) -> tuple[T, Finished]:
        terms = free(self._calls.terms(None))
        return await self._patiently(
            lambda: self._calls.engine.run(request, vocabulary(), terms), terms
        )

    async def _patiently(self, question: Callable[[], Awaitable[T]], terms: Terms) -> T:
        """Ask, and again; an error says that it is about this job."""
        engine = self._calls.engine
        until = _waiting.current_time() + self._lifetime
        patience = Patience(terms.retry, until=until, known=self._is_known)
        try:
            answer = await ask(
                question, patience, about=f"job {self.id}", engine=engine, note=self._note
            )
        except ProdiaError as error:
            raise self._told(error) from error.__cause__
        self._is_known = True
        return answer

    def _note(self, error: ProdiaError) -> None:
        self._last_fault = error

    def _told(self, error: ProdiaError) -> ProdiaError:
        if isinstance(error, JobNotFoundError):
            error.tell(besides=_GONE)
        return error.tell(job_id=self.id, job=self.job, may_have_run=True)

    @asynccontextmanager
    async def _stream(self, name: str) -> AsyncGenerator[OutputPart, None]:
        with awaited(self._calls.engine, self._left):
            flight = await self._within(None, lambda: self._begin(name))
            reply = flight.reply
            stream: JobStream | None = None
            try:
                feed = RawFeed(reply, name)
                stream = JobStream(feed, flight.within, request_id=reply.request_id)
                part = await anext(aiter(stream))
                assert isinstance(part, OutputPart)  # noqa: S101  (a raw feed has nothing else)
                yield part
            except BaseException as error:
                await flight.end(error)
                if isinstance(error, ProdiaError) and (stream is None or error is stream.error):
                    self._told(error)
                raise
            await flight.end()

    async def _begin(self, name: str) -> Flight[bytes]:
        """Ask for an output until it begins to come."""
        request = self._request_of(name)
        own = self._calls.terms(None)
        began = _waiting.current_time()

        async def begin() -> Flight[bytes]:
            spent = _waiting.current_time() - began
            terms = free(own, deadline=own.deadline, spent=spent)
            flight = await self._calls.engine.begin(request, _Asking[bytes](), terms)
            flight.give_back()
            return flight

        return await self._patiently(begin, own)


def _read_result(text: bytes) -> JobResult:
    job = read_job_result(text)
    if job is None:
        raise MalformedResponseError(f"a job result must be a JSON object, not {text[:80]!r}")
    return job


class RawFeed:
    """One file as the body of a reply, in the events of an `AnswerFeed`."""

    def __init__(self, reply: Reply, name: str) -> None:
        check_encoding(reply.headers)
        self._reply = reply
        self.is_proven = is_delimited(reply.headers)
        self._started = OutputStarted(name, reply.headers.get("content-type"))
        self._step = 0
        self.bytes_received = 0

    async def next(self) -> list[AnswerEvent] | None:
        """Return the events of the next piece of the body; ``None`` after the end."""
        if not self._step:
            self._step = 1
            return [self._started]
        if self._step == 2:
            return None
        chunk = await anext(self._reply, None)
        if chunk is None:
            self._step = 2
            return [OutputFinished()]
        self.bytes_received += len(chunk)
        return [OutputData(chunk)]


class _Asking(Vocabulary[T]):
    """What all questions share."""

    def error_for(self, status_code: int, headers: Headers, body: bytes) -> ProdiaError:
        return error_for(status_code, headers, body)


class _Text(_Asking[T]):
    """A small answer, read by a plain function."""

    def __init__(self, read: Callable[[bytes], T]) -> None:
        self._read = read

    async def read(self, reply: Reply) -> T:
        text = bytearray()
        async for chunk in reply:
            text += chunk
            if len(text) > MAX_TEXT_BYTES:
                raise ResponseTooLargeError(f"the answer has more than {MAX_TEXT_BYTES} bytes")
        return self._read(bytes(blotted_data(text, reply.secret)))


class _Whole(_Asking["Output"]):
    """One output, collected."""

    def __init__(self, name: str, left: int, most: int) -> None:
        self._name = name
        self._left = left
        self._most = most

    async def read(self, reply: Reply) -> Output:
        feed = RawFeed(reply, self._name)
        collector = Collector(max_bytes=self._left)
        while (events := await feed.next()) is not None:
            if feed.bytes_received > self._left:
                raise ResponseTooLargeError(
                    f"the outputs up to {shown(self._name)} are larger than "
                    f"max_response_bytes={self._most} together; stream() has no such limit"
                )
            collector.add(events)
        (output,) = collector.outputs
        if not feed.is_proven and is_cut_short(output.content, output.content_type):
            fault = TruncatedResponseError(
                f"the output {shown(self._name)} is cut short: its last bytes are not an end"
            )
            raise fault.tell(bytes_received=feed.bytes_received)
        return output
