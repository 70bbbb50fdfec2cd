"""
An answer while it comes: the job result, then outputs one after another, as fast as they are read.

`AnswerFeed` is the one way from a reply to events; `AsyncProdia.job` collects
them, a `JobStream` hands them on. No cancel scope and no task is open between
two steps, so a stream may be left anywhere.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import anyio
import anyio.to_thread

from ._answers import (
    JSON_TYPE,
    MAX_JOB_BYTES,
    AnswerEvent,
    AnswerReader,
    Collector,
    JobReceived,
    OutputData,
    OutputFinished,
    OutputStarted,
    check_answer,
    error_for,
    failure_of,
    fault_of,
)
from ._errors import ProdiaError, ResponseError, TruncatedResponseError
from ._files import Saving
from ._formats import MULTIPART
from ._media import OCTET_STREAM, SNIFF_BYTES, EndCheck, bare_type, sniff, suffix_of
from ._statuses import MAX_ERROR_BYTES, encoding_of
from ._vocabulary import Partial, Vocabulary

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from ._results import JobResult
    from ._transport import Reply
    from ._wire import Headers

S = TypeVar("S")

DRAIN_SECONDS = 0.1
"""How long we wait for the end of an answer whose closing boundary has come. Chosen."""

DRAIN_MARGIN = 0.05
"""How long before a deadline that waiting ends, so that it never costs the answer. Chosen."""

WRITE_BYTES = 512 * 1024
"""
How much is gathered for one write to disk. Measured: two pieces of the
network's are still in the processor's cache when they are written (200 MB in
0.36 s of CPU; 0.51 with 256 KB, 0.46 with 1 MB), and a thread hop is small
beside so much.
"""


class AnswerFeed:
    """
    Reads a reply to its end, in steps.

    Args:
        reply: A success.
        multipart: Whether the job result was asked for.

    Attributes:
        bytes_received: Body bytes so far.

    Raises:
        MalformedResponseError: Its headers are not what the API promises.
    """

    __slots__ = ("_cut_off", "_drained", "_ended", "_reader", "_reply")

    def __init__(self, reply: Reply | _Heard, *, multipart: bool) -> None:
        self._reader = AnswerReader(reply.headers, multipart=multipart)
        self._reply = reply
        self._ended = self._drained = self._cut_off = False

    @property
    def bytes_received(self) -> int:
        """Body bytes so far."""
        return self._reader.bytes_received

    async def next(self) -> list[AnswerEvent] | None:
        """
        Return the events of the next piece of the body, often none; ``None`` after the end.

        Raises:
            ResponseError: The answer broke off, or is not what the API promises.
        """
        try:
            self._reader.check()
            if not self._ended:
                return await self._step()
        except ResponseError as fault:
            fault.bytes_received = self._reader.bytes_received
            raise
        if self._reader.finished and not self._drained:
            self._drained = True
            await self._drain()
        return None

    async def _step(self) -> list[AnswerEvent]:
        if self._cut_off:
            # Whoever was cancelled while it read left a connection that is closed, and the
            # next look at it would see an end that is none.
            raise TruncatedResponseError("reading was cut off before, and the rest is lost")
        self._cut_off = True
        chunk = await anext(self._reply, None)
        self._cut_off = False
        if chunk is None:
            self._ended = True
            return self._reader.receive_eof()
        events = self._reader.receive_data(chunk)
        # What follows the closing boundary is read later: the events do not wait for it.
        self._ended = self._reader.finished
        return events

    async def _drain(self) -> None:
        """
        Read on to the end of the body, though all that counts is here.

        The connection can then be used again. What goes wrong here costs
        nobody the answer.
        """
        try:
            if self._reply.headers.get("content-length") == str(self._reader.bytes_received):
                await anext(self._reply, None)  # the end, which is here already
                return
            left = anyio.current_effective_deadline() - anyio.current_time() - DRAIN_MARGIN
            with anyio.move_on_after(max(0.0, min(DRAIN_SECONDS, left))):
                async for chunk in self._reply:
                    self._reader.receive_data(chunk)
        except ResponseError:
            pass


class CollectedAnswer(Vocabulary[Collector]):
    """
    What Prodia's vocabulary makes of one answer, for the engine: a job result and outputs.

    Args:
        multipart: Whether the job result was asked for.
        max_bytes: The most bytes of outputs that are collected.
        final: Whether the job must have ended; after a submission it has only begun.
    """

    __slots__ = ("_collector", "_final", "_multipart")

    def __init__(self, *, multipart: bool, max_bytes: int, final: bool = True) -> None:
        self._multipart = multipart
        self._final = final
        self._collector = Collector(max_bytes=max_bytes)

    async def read(self, reply: Reply) -> Collector:
        """
        Read a success answer to its end.

        Raises:
            ResponseError: It is not what the API promises; what was whole is on the error.
            JobFailedError: The job failed.
        """
        collector = self._collector
        try:
            feed = AnswerFeed(reply, multipart=self._multipart)
            while (events := await feed.next()) is not None:
                collector.add(events)
            wrong: ProdiaError | None
            if self._final:
                wrong = check_answer(collector.job, collector.outputs, multipart=self._multipart)
            else:
                wrong = failure_of(collector.job) if collector.job else None
            if wrong is not None:
                raise wrong
        except ProdiaError as error:
            error.tell(**self.partial())
            raise
        return collector

    async def read_error(
        self, reply: Reply, headers: Headers, blot: Callable[[bytes], bytes]
    ) -> ProdiaError | None:
        """
        Read a 5xx that may hold a job result: if it says that the job ran, it was paid for.

        Read to its end, the outputs with it; a proxy's page is left to the engine.
        """
        kind = bare_type(headers.get("content-type"))
        if reply.status_code < 500 or encoding_of(headers):
            return None
        if kind == JSON_TYPE:
            return await self._read_json_error(reply, headers, blot)
        if kind != MULTIPART:
            return None
        is_whole = False
        heard = _Heard(reply)
        with contextlib.suppress(ResponseError):
            feed = AnswerFeed(heard, multipart=True)
            while (events := await feed.next()) is not None:
                self._collector.add(events)
            is_whole = True
        start = bytes(heard.start)
        error = fault_of(reply.status_code, headers, self._collector.job, blot(start))
        # Without any delimiter it is no multipart body at all, but a page of somebody's.
        if not is_whole and b"--" in start and error.fate == "server fault":
            # What was cut off may have said that the job ran.
            error.tell(fate="uncertain", besides="; the answer was cut short")
        return error.tell(**self.partial())

    async def _read_json_error(
        self, reply: Reply, headers: Headers, blot: Callable[[bytes], bytes]
    ) -> ProdiaError:
        body = bytearray()
        is_whole = False
        with contextlib.suppress(ResponseError):
            async for chunk in reply:
                body += chunk
                if len(body) > MAX_JOB_BYTES:
                    break
            else:
                is_whole = True
        error = error_for(reply.status_code, headers, blot(bytes(body)))
        if not is_whole and body and error.fate == "server fault":
            error.tell(fate="uncertain", besides="; the answer was cut short")
        return error

    def note(self, job: JobResult | None) -> None:
        """Take a job result that was read elsewhere, for its price."""
        self._collector.job = job

    def forget(self) -> None:
        """Let go of what was collected; what was whole is on the error."""
        self._collector = Collector(max_bytes=0)

    def partial(self) -> Partial:
        """Return what was complete so far, as attributes for an error."""
        job = self._collector.job
        return {
            "job": job,
            "outputs": tuple(self._collector.outputs),
            "job_id": job.id if job else None,
        }

    def error_for(self, status_code: int, headers: Headers, body: bytes) -> ProdiaError:
        """Turn an error status into the error to raise."""
        return error_for(status_code, headers, body)

    def dollars(self) -> float:
        """Return what the job cost, as far as the answer said."""
        job = self._collector.job
        return (job.price.dollars or 0.0) if job and job.price else 0.0


class _Heard:
    """A reply whose first bytes are kept, for an error that quotes them."""

    __slots__ = ("_reply", "headers", "start")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.headers = reply.headers
        self.start = bytearray()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._reply)
        self.start += chunk[: MAX_ERROR_BYTES - len(self.start)]
        return chunk


class Feed(Protocol):
    """Where a `JobStream` has its events from: an `AnswerFeed`, or another of its shape."""

    @property
    def bytes_received(self) -> int:
        """Body bytes so far."""

    async def next(self) -> list[AnswerEvent] | None:
        """Return the next events, often none; ``None`` after the end."""


class Within(Protocol):
    """Does one step within what is left of a deadline."""

    async def __call__(self, step: Callable[[], Awaitable[S]], /) -> S:
        """Do it."""


class JobStream:
    """
    One answer while it comes; iterate it for its parts, in wire order.

    The first is the `JobResult`, complete, before the first byte of an
    output has arrived (unless ``multipart=False``: then there is none). The
    others are `OutputPart`, each as soon as its first byte is here. A part
    that was not read, or not to its end, is skipped by the next step.

    Attributes:
        request_id: The ``x-request-id`` header.
        job: The job result, once it has come.

    Raises:
        ResponseError: While iterating or reading: the answer broke off, or is
            not what the API promises. `job` is on the error.
        JobFailedError: While iterating: the job failed.
        DeadlineExceededError: While iterating or reading.
    """

    def __init__(self, feed: Feed, within: Within, *, request_id: str | None) -> None:
        self._feed = feed
        self._within = within
        self._events: deque[AnswerEvent] = deque()
        self._part: OutputPart | None = None
        self.request_id = request_id
        self.job: JobResult | None = None
        self.is_complete = False
        self.error: ProdiaError | None = None
        """What reading ended with, if it was an error."""

    def __repr__(self) -> str:
        state = "complete" if self.is_complete else f"{self._feed.bytes_received} bytes so far"
        return f"<JobStream {self.job.id if self.job else 'no job result yet'}: {state}>"

    def __aiter__(self) -> AsyncIterator[JobResult | OutputPart]:
        return self

    async def __anext__(self) -> JobResult | OutputPart:
        if self._part is not None:
            await self._part.skip()
            self._part = None
        while (event := await self._next_event()) is not None:
            match event:
                case JobReceived(job):
                    self.job = job
                    failure = failure_of(job)
                    if failure is not None:
                        self.error = failure
                        raise failure
                    return job
                case OutputStarted():
                    self._part = await self._start(event)
                    return self._part
                case _:  # the data of no part: nothing of ours
                    continue
        self.is_complete = True
        raise StopAsyncIteration

    async def _start(self, event: OutputStarted) -> OutputPart:
        content_type = event.content_type
        if content_type is None:
            await self._fill()
            first = self._events[0] if self._events else None
            head = bytes(first.data[:SNIFF_BYTES]) if isinstance(first, OutputData) else b""
            content_type = sniff(head) or OCTET_STREAM
        return OutputPart(self, event.filename, content_type)

    async def next_data(self, check: EndCheck) -> bytes | memoryview | None:
        """Return the next bytes of the part at hand, or ``None`` at its end."""
        event = await self._next_event()
        if isinstance(event, OutputData):
            check.add(event.data)
            return event.data
        assert isinstance(event, OutputFinished)  # noqa: S101  (or reading had raised)
        if self.job is None and check.is_cut_short():
            raise self._told(
                TruncatedResponseError("the output is cut short: its last bytes are not an end")
            )
        return None

    async def _next_event(self) -> AnswerEvent | None:
        await self._fill()
        return self._events.popleft() if self._events else None

    async def _fill(self) -> None:
        """Read until there is an event, or the answer is over."""
        while not self._events:
            try:
                events = await self._within(self._feed.next)
            except ProdiaError as error:
                raise self._told(error) from error.__cause__
            if events is None:
                return
            self._events.extend(events)

    def _told(self, error: ProdiaError) -> ProdiaError:
        error.job = self.job
        error.job_id = self.job.id if self.job else None
        self.error = error
        return error


class OutputPart:
    """
    One output while it comes. Read it once, in one way, before the next part is asked for.

    Attributes:
        filename: The name it came under, if any. `save` makes it safe.
        content_type: As the server said it, else what the first bytes tell.
    """

    def __init__(self, stream: JobStream, filename: str | None, content_type: str) -> None:
        self._stream = stream
        self._check = EndCheck()
        self._is_over = False
        self._is_passed_over = False
        self._is_taken = False
        self.filename = filename
        self.content_type = content_type

    def __repr__(self) -> str:
        name = f" {self.filename!r}" if self.filename else ""
        return f"<OutputPart {self.content_type}{name}>"

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        """
        Return an iterator over the bytes as they come, in whatever pieces the network makes.

        Nothing is read ahead: a slow reader slows the server down.
        """
        self._take()
        return _Bytes(self)

    async def read(self) -> bytes:
        """Return all of it. Memory is not bounded here; `save` and `aiter_bytes` bound it."""
        self._take()
        pieces = []
        while (data := await self.next_data()) is not None:
            pieces.append(data)
        return b"".join(pieces)

    async def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """
        Write it to a file as it comes.

        The file is opened before anything is read, so one that cannot be
        opened costs nothing: the output can still be read or saved elsewhere.

        Args:
            path: As `Output.save` takes it: a file or a folder.
            overwrite: Replace a file that is there; else the first free of
                ``name``, ``name-2``, ``name-3`` ... is taken.

        Returns:
            Where it was written.

        Raises:
            OSError: It cannot be written there, or the disk is full. Nothing
                is left under the final name then. It names the path as given.
        """
        self._check_untaken()
        run = anyio.to_thread.run_sync
        saving = Saving(path, self.filename, suffix_of(self.content_type), overwrite=overwrite)
        try:
            await run(saving.open, abandon_on_cancel=True)
            self._take()
            await self._pour(saving)
            return await run(saving.publish)
        finally:
            saving.discard()

    async def _pour(self, saving: Saving) -> None:
        batch: list[bytes | memoryview] = []
        size = 0

        async def write() -> None:
            nonlocal batch, size
            gathered, batch, size = batch, [], 0
            step = partial(saving.write, gathered)
            await anyio.to_thread.run_sync(step, abandon_on_cancel=saving.may_wait)

        while (data := await self.next_data()) is not None:
            batch.append(data)
            size += len(data)
            if size >= WRITE_BYTES:
                await write()
        await write()

    async def skip(self) -> None:
        """Read past what is left of it; whoever still reads it is told."""
        while not self._is_over:
            if await self.next_data() is not None:
                self._is_passed_over = True

    async def next_data(self) -> bytes | memoryview | None:
        """Return the next bytes, or ``None`` at the end and ever after."""
        if self._is_passed_over and self._is_over:
            raise RuntimeError("the stream went on to its next part before this one was read")
        if self._is_over:
            return None
        data = await self._stream.next_data(self._check)
        self._is_over = data is None
        return data

    def _take(self) -> None:
        self._check_untaken()
        self._is_taken = True

    def _check_untaken(self) -> None:
        if self._is_taken or self._is_over:
            raise RuntimeError(
                "an output of a stream can be read once, and before the next part is asked for"
            )


class _Bytes(AsyncIterator[bytes]):
    """Not a generator: one left half-way would be finished who knows when."""

    def __init__(self, part: OutputPart) -> None:
        self._part = part

    async def __anext__(self) -> bytes:
        data = await self._part.next_data()
        if data is None:
            raise StopAsyncIteration
        return bytes(data)
