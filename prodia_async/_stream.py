"""
An answer while it comes: the job result, then outputs one after another, as fast as they are read.

No cancel scope and no task is open between two steps, so a stream may be left
anywhere. Time passes only within a step: what a reader does between two is its
own affair, and costs neither its deadline nor, once the server has finished,
a slot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Generic, NoReturn, Protocol, TypeVar

import anyio
import anyio.to_thread

from ._answers import (
    AnswerEvent,
    JobReceived,
    OutputData,
    OutputFinished,
    OutputStarted,
    check_parts,
    cut_short,
    failure_of,
    warn_of_type,
)
from ._errors import ProdiaError, TruncatedResponseError
from ._files import Saving
from ._media import OCTET_STREAM, SNIFF_BYTES, EndCheck, sniff, suffix_of
from ._models import NoOutputError
from ._outputs import Output
from ._show import MAX_SHOWN, one_line, shown

if TYPE_CHECKING:
    import os
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from types import TracebackType

    from ._results import JobResult

S = TypeVar("S")

T = TypeVar("T", bound="Left")

SHOWN_PARTS = 3
"""How many outputs an error names. Chosen."""

WRITE_BYTES = 512 * 1024
"""
How much is gathered for one write to disk. Measured: two pieces of the
network's are still in the processor's cache when they are written (200 MB in
0.36 s of CPU; 0.51 with 256 KB, 0.46 with 1 MB), and a thread hop is small
beside so much.
"""


class Left(Protocol):
    """What is read in a block, and not after it."""

    def leave(self) -> None:
        """Say that the block was left."""


class Feed(Protocol):
    """Where a `JobStream` has its events from: an `AnswerFeed`, or another of its shape."""

    @property
    def bytes_received(self) -> int:
        """Body bytes so far."""

    @property
    def is_proven(self) -> bool:
        """Whether a body that ended is whole, so that no output need be looked at for its end."""

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

    Raises:
        ResponseError: While iterating or reading: the answer broke off, or is
            not what the API promises. `job` is on the error.
        JobFailedError: While iterating: the job failed.
        DeadlineExceededError: While iterating or reading.
    """

    def __init__(
        self,
        feed: Feed,
        within: Within,
        *,
        request_id: str | None,
        multipart: bool = False,
        job_type: str | None = None,
        give_back: Callable[[], None] | None = None,
    ) -> None:
        """
        Begin to read.

        Args:
            feed: Where the events come from.
            within: Does one step within what is left of the deadline.
            request_id: As the attribute.
            multipart: Whether the job result was asked for, and must come.
            job_type: What was asked for.
            give_back: Called once the server has said that the job is done:
                its worker is idle, though the answer is still being read.
        """
        self._feed = feed
        self._within = within
        self._multipart = multipart
        self._job_type = job_type
        self._give_back = give_back
        self._events: deque[AnswerEvent] = deque()
        self._part: OutputPart | None = None
        self._parts: list[OutputPart] = []  # the first few, to be named in an error
        self._was_left = False
        self.request_id = request_id
        """The ``x-request-id`` header."""
        self.job: JobResult | None = None
        """The job result, once it has come."""
        self.is_complete = False
        """Whether all of it has come."""
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
        if (event := await self._next_event()) is not None:
            if isinstance(event, JobReceived):
                return self._take_job(event.job)
            assert isinstance(event, OutputStarted)  # noqa: S101  (a part is read to its end)
            self._part = await self._start(event)
            if len(self._parts) < SHOWN_PARTS:
                self._parts.append(self._part)
            return self._part
        if not self.is_complete:
            wrong = check_parts(self.job, self._parts, multipart=self._multipart)
            if wrong is not None:
                raise self.told(wrong)
            self.is_complete = True
        raise StopAsyncIteration

    async def output(self) -> OutputPart:
        """
        Return the next output, which is the first unless one was taken before.

        Raises:
            NoOutputError: There is none, or none any more; a `ResponseError`.
            ResponseError: The answer is damaged.
            JobFailedError: The job failed.
        """
        async for part in self:
            if isinstance(part, OutputPart):
                return part
        more = " further" if self._parts else "out an"
        raise NoOutputError(
            f"the job completed with{'out a' if self._parts else ''}{more} output",
            job=self.job,
            request_id=self.request_id,
        )

    def leave(self) -> None:
        """Say that the block was left: nothing can be read any more."""
        self._was_left = True

    def check_entered(self) -> None:
        """
        Raise a mistake of the reader's as such.

        Raises:
            RuntimeError: The block was left.
        """
        if self._was_left and not self.is_complete:
            raise RuntimeError(
                "the block of this stream was left, and its answer with it; read and save inside "
                "`async with`"
            )

    def _take_job(self, job: JobResult) -> JobResult:
        self.job = job
        warn_of_type(self._job_type, job, self.request_id)
        failure = failure_of(job)
        if failure is not None:
            self.error = failure
            raise failure
        if job.succeeded and self._give_back is not None:
            self._give_back()
        return job

    async def _start(self, event: OutputStarted) -> OutputPart:
        content_type = event.content_type
        if content_type is None:
            await self._fill()
            first = self._events[0] if self._events else None
            head = bytes(first.data[:SNIFF_BYTES]) if isinstance(first, OutputData) else b""
            content_type = sniff(head) or OCTET_STREAM
        check = None if self._feed.is_proven else EndCheck(content_type)
        return OutputPart(self, event.filename, content_type, check)

    async def next_data(self) -> bytes | memoryview | None:
        """Return the next bytes of the part at hand, or ``None`` at its end."""
        event = await self._next_event()
        if isinstance(event, OutputData):
            return event.data
        assert isinstance(event, OutputFinished)  # noqa: S101  (or reading had raised)
        return None

    async def _next_event(self) -> AnswerEvent | None:
        await self._fill()
        return self._events.popleft() if self._events else None

    async def _fill(self) -> None:
        """Read until there is an event, or the answer is over."""
        self.check_entered()
        while not self._events:
            try:
                events = await self._within(self._feed.next)
            except ProdiaError as error:
                raise self.told(error) from error.__cause__
            if events is None:
                return
            self._events.extend(events)

    def told(self, error: ProdiaError) -> ProdiaError:
        """
        Note what reading ended with, and tell the error of the job.

        Args:
            error: What reading ended with.
        """
        self.error = error.tell(job=self.job, request_id=self.request_id)
        return error


class OutputPart:
    """One output while it comes. Read it once, in one way, before the next part is asked for."""

    def __init__(
        self,
        stream: JobStream,
        filename: str | None,
        content_type: str,
        check: EndCheck | None = None,
    ) -> None:
        self._stream = stream
        self._check = check
        self._is_over = False
        self._is_passed_over = False
        self._is_taken = False
        self.filename = filename
        """The name it came under, if any. `save` makes it safe."""
        self.content_type = content_type
        """As the server said it, else what the first bytes tell."""

    def __repr__(self) -> str:
        name = f" {shown(self.filename)}" if self.filename else ""
        return f"<OutputPart {one_line(self.content_type, longest=MAX_SHOWN)}{name}>"

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
        content = b"".join(pieces)
        if (doubt := self.doubt()) is not None:
            # It may well be whole, and is paid for.
            raise doubt.tell(outputs=[Output(content, self.content_type, self.filename)])
        return content

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
            TruncatedResponseError: It broke off, and nothing is left; or its
                format says that it lacks its end, and nobody said how long it
                is: then it is saved, and `path` says where.
        """
        self._check_untaken()
        run = anyio.to_thread.run_sync
        saving = Saving(path, self.filename, suffix_of(self.content_type), overwrite=overwrite)
        try:
            await run(saving.open, abandon_on_cancel=True)
            self._take()
            await self._pour(saving)
            saved = await run(saving.publish)
        finally:
            saving.discard()
        if (doubt := self.doubt()) is not None:
            doubt.path = saved
            raise doubt
        return saved

    def doubt(self) -> TruncatedResponseError | None:
        """
        Return the error for an output that has ended and seems to lack its end.

        Only where nothing proves that it is whole: its format is a guess.
        """
        if self._check is None or not self._check.is_cut_short():
            return None
        error = cut_short(self)
        self._stream.told(error)
        return error

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
        """
        Return the next bytes, or ``None`` at the end and ever after.

        Raises:
            RuntimeError: The stream went on to its next part before.
        """
        if self._is_passed_over and self._is_over:
            raise RuntimeError("the stream went on to its next part before this one was read")
        if self._is_over:
            return None
        data = await self._stream.next_data()
        if data is None:
            self._is_over = True
        elif self._check is not None:
            self._check.add(data)
        return data

    def _take(self) -> None:
        self._check_untaken()
        self._is_taken = True

    def leave(self) -> None:
        """Say that the block was left."""
        self._stream.leave()

    def _check_untaken(self) -> None:
        self._stream.check_entered()
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
        if data is not None:
            return bytes(data)
        if (doubt := self._part.doubt()) is not None:
            raise doubt
        raise StopAsyncIteration


class StreamBlock(Generic[T]):
    """
    What gives a stream: a block, and a helpful word for who takes it for the stream itself.

    Args:
        block: Opens the stream and ends it.
    """

    def __init__(self, block: AbstractAsyncContextManager[T]) -> None:
        self._block = block
        self._stream: T | None = None

    async def __aenter__(self) -> T:
        self._stream = await self._block.__aenter__()
        return self._stream

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._stream is not None  # noqa: S101  (entered)
        self._stream.leave()
        return await self._block.__aexit__(kind, error, trace)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"{name!r} is the stream's, and that a block opens: "
            "`async with client.stream(...) as stream:`"
        )

    def __aiter__(self) -> NoReturn:
        raise TypeError(
            "a stream is read in a block: `async with client.stream(...) as stream:` and in it "
            "`async for part in stream:`"
        )

    def __await__(self) -> NoReturn:
        raise TypeError(
            "a stream is opened by a block, not awaited: `async with client.stream(...) as stream:`"
        )
