"""
Reading an answer: the one way from a reply to events, and what collects them.

`AnswerFeed` turns the pieces of a body into events as they come, whoever wants
them; `CollectedAnswer` is what the engine reads a whole answer with. Whatever
goes wrong, no error keeps the half of an answer alive that nobody can reach:
neither its attributes nor the frames of its traceback hold any of it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

import anyio

from ._answers import (
    MAX_JOB_BYTES,
    AnswerEvent,
    AnswerReader,
    Collector,
    check_answer,
    error_for,
    failure_of,
    fault_of,
    warn_of_format,
    warn_of_type,
)
from ._errors import ProdiaError, ResponseError, TruncatedResponseError
from ._formats import JSON_TYPE, MULTIPART
from ._media import bare_type
from ._results import dollars_of
from ._statuses import MAX_ERROR_BYTES, encoding_of
from ._vocabulary import Partial, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._exchange import Reply
    from ._results import JobResult
    from ._wire import Headers

DRAIN_SECONDS = 0.1
"""How long we wait for the end of an answer whose closing boundary has come. Chosen."""

DRAIN_MARGIN = 0.05
"""How long before a deadline that waiting ends, so that it never costs the answer. Chosen."""


class AnswerFeed:
    """
    Reads a reply to its end, in steps.

    Args:
        reply: A success.
        multipart: Whether the job result was asked for.

    Raises:
        MalformedResponseError: Its headers are not what the API promises.
    """

    __slots__ = ("_cut_off", "_drained", "_ended", "_reader", "_reply", "is_proven")

    def __init__(self, reply: Reply | _Heard, *, multipart: bool) -> None:
        self._reader = AnswerReader(reply.headers, multipart=multipart, secret=reply.secret)
        self._reply = reply
        self._ended = self._drained = self._cut_off = False
        self.is_proven = self._reader.is_proven
        """Whether a body that ended is whole, as `AnswerReader` has it."""

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
            # Without the frames below, which hold the piece that was read last.
            fault.tell(bytes_received=self._reader.bytes_received, secret=self._reply.secret)
            raise fault.with_traceback(None) from fault.__cause__
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
        headers = self._reply.headers
        try:
            if "transfer-encoding" not in headers and (
                headers.get("content-length") == str(self._reader.bytes_received)
            ):
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
        job_type: What was asked for; an answer of another type is worth a warning.
        accept: The media type that was asked for, likewise.
    """

    __slots__ = ("_accept", "_collector", "_final", "_job_type", "_multipart")

    def __init__(
        self,
        *,
        multipart: bool,
        max_bytes: int,
        final: bool = True,
        job_type: str | None = None,
        accept: str | None = None,
    ) -> None:
        self._multipart = multipart
        self._final = final
        self._collector = Collector(max_bytes=max_bytes)
        self._job_type = job_type
        self._accept = accept

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
            # No name for the events: a frame that has one would keep the last of them.
            while collector.add(await feed.next()):
                pass
            wrong = self._judge(collector, is_proven=feed.is_proven)
            if wrong is not None:
                raise wrong
        except ProdiaError as error:
            collector.drop()
            error.tell(**self.partial())
            raise
        warn_of_type(self._job_type, collector.job, reply.request_id)
        if not self._multipart and collector.outputs:
            warn_of_format(self._accept, collector.outputs[0].content_type)
        return collector

    def _judge(self, collector: Collector, *, is_proven: bool) -> ProdiaError | None:
        if not self._final:
            return failure_of(collector.job) if collector.job else None
        return check_answer(
            collector.job, collector.outputs, multipart=self._multipart, is_proven=is_proven
        )

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
            while self._collector.add(await feed.next()):
                pass
            is_whole = True
        self._collector.drop()
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
        return error_for(status_code, headers, body)

    def dollars(self) -> float:
        """Return what the job cost, as far as the answer said."""
        return dollars_of(self._collector.job) or 0.0


class _Heard:
    """A reply whose first bytes are kept, for an error that quotes them."""

    __slots__ = ("_reply", "headers", "secret", "start")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.headers = reply.headers
        self.secret = reply.secret
        self.start = bytearray()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._reply)
        self.start += chunk[: MAX_ERROR_BYTES - len(self.start)]
        return chunk
