"""
An answer as values: its bytes to events, events to outputs, an error status to an error.

Nothing here waits, and nothing here knows of sockets. Source of the facts:
reference "Inference", responses and status codes.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never

from ._errors import (
    JobFailedError,
    MalformedResponseError,
    ProdiaError,
    ResponseError,
    ResponseTooLargeError,
    TruncatedResponseError,
)
from ._formats import JSON_TYPE, MULTIPART
from ._hooks import log
from ._media import OCTET_STREAM, SNIFF_BYTES, bare_type, is_cut_short, sniff
from ._multipart import MessageFinished, MultipartDecoder, PartData, PartFinished
from ._outputs import Output
from ._part_headers import PartStarted
from ._results import MAX_JOB_VALUES, JobResult, read_job_result
from ._secret import blotted_data, blotted_name
from ._show import one_line, shown
from ._statuses import check_encoding, status_error, text_of
from ._wire import MAX_RESPONSE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ._wire import Headers

MAX_JOB_BYTES = 8 * 1024 * 1024
"""Largest job result that is read. Chosen: live ones have 1 KB, one with embedded data some 100."""

MAX_EARLY_BYTES = 64 * 1024
"""Largest job result that is given out before its part has ended. Chosen: live ones have 1 KB."""

EARLY_LOOKS = 4
"""
How often, on the average, a byte of a job part may be looked at before the part
has ended. Chosen: a result that comes in a few pieces is always tried, one that
drips and is full of braces costs a few times its size, not its square.
"""

MAX_BLANKS = 32
"""Blanks that may follow a job result that is given out early. Chosen: writers end in one."""

SMALL_CHUNK = 4096
"""
Chunks below this are gathered in one buffer: each costs some 200 bytes beside
its own, so an answer in drips of one byte would take a hundred times its size. Chosen.
"""


@dataclass(slots=True)
class JobReceived:
    """The job result is here, whole."""

    job: JobResult


@dataclass(slots=True)
class OutputStarted:
    """An output begins; `content_type` is ``None`` if the server did not say."""

    filename: str | None
    content_type: str | None


OutputData = PartData
"""Some more bytes of the output that began last: the decoder's own event, handed on."""


@dataclass(frozen=True, slots=True)
class OutputFinished:
    """The output that began last is complete."""


AnswerEvent: TypeAlias = JobReceived | OutputStarted | OutputData | OutputFinished


class AnswerReader:
    """
    Reads a success answer: bytes in, events out. No waiting, no sockets.

    A fault is raised by the call *after* the one that returned what came
    before it, so whatever was complete is never lost.

    Args:
        headers: The answer's headers.
        multipart: Whether the job result was asked for. If so, an answer
            without one is a fault.
        secret: What must not be in the job result, nor in the names and types of
            outputs, though the server says it.

    Attributes:
        is_proven: Whether a body that ended is whole: HTTP tells where it
            ends, or it is multipart, which ends in a delimiter.

    Raises:
        MalformedResponseError: An encoding came that was not asked for, or
            Content-Type names no boundary.
    """

    __slots__ = ("_body", "_fault", "bytes_received", "finished", "is_proven")

    def __init__(self, headers: Headers, *, multipart: bool, secret: str = "") -> None:
        check_encoding(headers)
        content_type = headers.get("content-type")
        self._body: _MultipartAnswer | _DirectAnswer
        kind = bare_type(content_type) or ""
        # Another multipart type is no output either; the decoder says what it expected.
        if kind.startswith("multipart/"):
            self._body = _MultipartAnswer(content_type or "", secret)
            self.is_proven = True
        else:
            self._body = _DirectAnswer(
                kind, multipart=multipart, length=_length_of(headers), secret=secret
            )
            self.is_proven = is_delimited(headers)
        self._fault: ProdiaError | None = None
        self.bytes_received = 0
        self.finished = False
        """Whether all that counts has come, so that what follows need not be read."""

    def receive_data(self, data: bytes) -> list[AnswerEvent]:
        """
        Take the next bytes of the body and return the events they complete.

        Raises:
            ResponseError: What came before is not what the API promises.
        """
        self.check()
        self.bytes_received += len(data)
        events: list[AnswerEvent] = []
        try:
            self._body.receive_data(data, events)
        except ResponseError as fault:
            self._fault = fault
            if not events:
                raise
        self._fault = self._fault or self._body.fault
        self.finished = self._body.finished
        return events

    def check(self) -> None:
        """
        Raise the fault that the next call would raise, rather than wait for more bytes.

        Raises:
            ResponseError: What came before is not what the API promises.
        """
        if self._fault is not None:
            raise self._fault

    def receive_eof(self) -> list[AnswerEvent]:
        """
        Take the end of the body and return the events it completes.

        Raises:
            ResponseError: The answer is not complete, or not what the API promises.
        """
        self.check()
        return self._body.receive_eof()


def is_delimited(headers: Headers) -> bool:
    """
    Return whether HTTP itself tells where a body ends, so that one that ended is whole.

    A length does, and chunks do. A body that ends with its connection may have
    been cut anywhere.
    """
    return _length_of(headers) is not None or (
        "chunked" in headers.get("transfer-encoding", "").lower()
    )


def _length_of(headers: Headers) -> int | None:
    length = headers.get("content-length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


class _MultipartAnswer:
    """
    A ``multipart/form-data`` answer: one `job` part and any number of `output` parts.

    What is wrong with the job part is raised at the end of the message only,
    since the outputs after it are paid for. The job result is given out when
    its JSON is complete: the delimiter that ends its part may come much
    later, together with the first output.
    """

    __slots__ = (
        "_decoder", "_job_bytes", "_job_given", "_looked_at", "_part", "_secret", "_seen_job",
        "_wrong", "finished",
    )  # fmt: skip

    def __init__(self, content_type: str, secret: str) -> None:
        self._secret = secret
        self._decoder = MultipartDecoder(content_type)
        self._part: str | None = None
        self._job_bytes = bytearray()
        self._job_given = 0  # bytes of the part that made the job result given out early
        self._looked_at = 0  # bytes read in the hope of that
        self._seen_job = False
        self._wrong: MalformedResponseError | None = None
        self.finished = False

    @property
    def fault(self) -> ResponseError | None:
        return self._decoder.error

    def receive_data(self, data: bytes, events: list[AnswerEvent]) -> None:
        for event in self._decoder.receive_data(data):
            # First what comes most.
            if isinstance(event, PartData):
                if self._part == "output":
                    events.append(event)
                elif self._part == "job":
                    self._take_job_bytes(event.data)
            else:
                self._take(event, events)
        if self._part == "job" and not self._job_given:
            self._give_early(events)

    def _give_early(self, events: list[AnswerEvent]) -> None:
        text = self._job_bytes
        size = len(text)
        # The end is looked at first, since a look at the whole is a copy of it.
        if size > MAX_EARLY_BYTES or not text[-MAX_BLANKS:].rstrip().endswith(b"}"):
            return
        if self._looked_at > EARLY_LOOKS * size:
            return
        self._looked_at += size
        if (job := read_job_result(blotted_data(text, self._secret))) is not None:
            events.append(JobReceived(job))
            self._job_given = len(text.rstrip())

    def _take(
        self, event: PartStarted | PartFinished | MessageFinished, events: list[AnswerEvent]
    ) -> None:
        match event:
            case PartStarted():
                self._part = event.name
                if event.name == "output":
                    said = (event.filename, event.content_type)
                    events.append(OutputStarted(*(blotted_name(t, self._secret) for t in said)))
                elif event.name == "job":
                    if self._seen_job:
                        self._part = None
                        self._wrong = MalformedResponseError(
                            "the answer must have one job part, not two"
                        )
                    self._seen_job = True
            case PartFinished():
                if self._part == "output":
                    events.append(OutputFinished())
                elif self._part == "job":
                    self._take_job(events)
                self._part = None
            case MessageFinished():
                self.finished = True
                if not self._seen_job:
                    raise MalformedResponseError("the answer must have a job part, but has none")
                if self._wrong is not None:
                    raise self._wrong
            case _:
                assert_never(event)

    def _take_job_bytes(self, data: bytes | memoryview) -> None:
        if len(self._job_bytes) + len(data) > MAX_JOB_BYTES:
            raise ResponseTooLargeError(
                f"the answer's job part must have at most {MAX_JOB_BYTES} bytes, and has more"
            )
        self._job_bytes += data

    def _take_job(self, events: list[AnswerEvent]) -> None:
        text = self._job_bytes
        if self._job_given and self._job_given == len(text.rstrip()):
            pass  # it was given out, and is known to be all
        elif (job := read_job_result(blotted_data(text, self._secret))) is not None:
            events.append(JobReceived(job))
        else:
            most = f" of at most {MAX_JOB_VALUES} values" if text.startswith(b"{") else ""
            self._wrong = MalformedResponseError(
                f"the answer's job part must be a JSON object{most}, not {bytes(text[:80])!r}"
            )
        text.clear()

    def receive_eof(self) -> list[AnswerEvent]:
        self._decoder.receive_eof()
        return []


class _DirectAnswer:
    """
    An answer that is one output's bytes, or the job result alone as JSON.

    Args:
        kind: The media type, ``""`` if the server did not say.
        multipart: Whether the job result was asked for.
        length: The Content-Length, if there is one.
        secret: What must not be in the job result.
    """

    __slots__ = (
        "_is_text", "_kind", "_length", "_multipart", "_received", "_secret", "_text", "fault",
        "finished",
    )  # fmt: skip

    def __init__(self, kind: str, *, multipart: bool, length: int | None, secret: str) -> None:
        self._secret = secret
        self._kind = kind
        self._multipart = multipart
        self._length = length
        # What these are their ends tell: a job result, labels, or a page that a proxy made
        # up. Where a job result was asked for no other text is anything but such a page.
        self._is_text = kind in {JSON_TYPE, "text/html"} or (multipart and kind.startswith("text/"))
        self._received = 0
        self._text = bytearray()
        self.fault: ResponseError | None = None  # always raised where it is found
        self.finished = False  # only the end of the body tells

    def receive_data(self, data: bytes, events: list[AnswerEvent]) -> None:
        if not data:
            return
        if self._is_text:
            if len(self._text) + len(data) > MAX_JOB_BYTES:
                raise ResponseTooLargeError(
                    f"an answer of {self._kind} must have at most {MAX_JOB_BYTES} bytes, "
                    "and has more"
                )
            self._text += data
        else:
            if not self._received:
                events.append(OutputStarted(None, self._kind or None))
            events.append(OutputData(data))
        self._received += len(data)

    def receive_eof(self) -> list[AnswerEvent]:
        if self._length is not None and self._received < self._length:
            raise TruncatedResponseError(
                f"the answer must have {self._length} bytes by its Content-Length, and ended "
                f"after {self._received}"
            )
        if self._kind == JSON_TYPE:
            job = read_job_result(blotted_data(self._text, self._secret))
            if job is not None and (job.id or job.state.current):
                return [JobReceived(job)]
            if not self._multipart and not is_cut_short(bytes(self._text), JSON_TYPE):
                # Labels, for instance: the output itself, and paid for.
                started = OutputStarted(None, self._kind)
                return [started, OutputData(bytes(self._text)), OutputFinished()]
        if self._text or not self._received:
            start = f", beginning {bytes(self._text[:80])!r}" if self._text else ""
            raise MalformedResponseError(
                f"the answer must be {MULTIPART if self._multipart else 'an output'}, not "
                f"{self._received} bytes of {shown(self._kind) if self._kind else 'no type'}{start}"
            )
        return [OutputFinished()]


class Collector:
    """
    Gathers the events of one answer into a job result and outputs.

    Attributes:
        job: The job result, once it has come.
        outputs: The outputs that are complete, in wire order.
    """

    __slots__ = ("_chunks", "_max_bytes", "_size", "_started", "job", "outputs")

    def __init__(self, *, max_bytes: int = MAX_RESPONSE_BYTES) -> None:
        self.job: JobResult | None = None
        self.outputs: list[Output] = []
        self._max_bytes = max_bytes
        self._size = 0
        self._started: OutputStarted | None = None
        self._chunks: list[bytes | bytearray | memoryview] = []

    def add(self, events: Iterable[AnswerEvent] | None) -> bool:
        """
        Take the next events.

        Returns:
            Whether there may be more: ``None`` is the end.

        Raises:
            ResponseTooLargeError: The outputs are larger than ``max_bytes`` together.
        """
        if events is None:
            return False
        for event in events:
            match event:
                case OutputData(data):
                    self._size += len(data)
                    if self._size > self._max_bytes:
                        raise ResponseTooLargeError(
                            f"the outputs are larger than max_response_bytes={self._max_bytes}; "
                            "stream() has no such limit"
                        )
                    self._keep(data)
                case OutputStarted():
                    self._started = event
                case OutputFinished():
                    content = b"".join(self._chunks)
                    self._chunks.clear()
                    assert self._started is not None  # noqa: S101  (events come in this order)
                    self.outputs.append(make_output(self._started, content))
                case JobReceived(job):
                    self.job = job
                case _:
                    assert_never(event)

        return True

    def drop(self) -> None:
        """Let go of the output that is not complete: it never will be."""
        self._chunks = []

    def _keep(self, data: bytes | memoryview) -> None:
        last = self._chunks[-1] if self._chunks else None
        if len(data) >= SMALL_CHUNK:
            self._chunks.append(data)
        elif isinstance(last, bytearray):
            last += data
        else:
            self._chunks.append(bytearray(data))


def make_output(started: OutputStarted, content: bytes) -> Output:
    """Put an output together; the type is the server's word, else what the bytes tell."""
    content_type = started.content_type or sniff(content[:SNIFF_BYTES]) or OCTET_STREAM
    return Output(content, content_type, started.filename)


def failure_of(job: JobResult, outputs: Sequence[Output] = ()) -> JobFailedError | None:
    """Return the error for a job that ended ``failed``, or ``None``."""
    if not job.failed:
        return None
    reason = one_line(job.failure or "") or None
    why = reason or "the server does not say why"
    return JobFailedError(f"the job failed: {why}", reason=reason, job=job, outputs=outputs)


def check_answer(
    job: JobResult | None,
    outputs: Sequence[Output],
    *,
    multipart: bool,
    is_proven: bool = False,
) -> ProdiaError | None:
    """
    Judge a complete answer.

    Args:
        job: Its job result, if one came.
        outputs: Its outputs.
        multipart: Whether the job result was asked for.
        is_proven: Whether it is known to be whole, so that no look at the
            file takes that back.

    Returns:
        What is wrong with it, or ``None``.
    """
    if job is not None and (failure := failure_of(job, outputs)) is not None:
        return failure
    wrong = check_parts(job, outputs, multipart=multipart)
    if wrong is not None or job is not None or is_proven or not outputs:
        return wrong
    output = outputs[0]
    return cut_short(output, outputs) if is_cut_short(output.content, output.content_type) else None


def check_parts(
    job: JobResult | None, outputs: Sequence[object], *, multipart: bool
) -> MalformedResponseError | None:
    """
    Judge whether an answer that has ended brought what must be there.

    Args:
        job: Its job result, if one came.
        outputs: What came of outputs, whole or only seen; shown by their ``repr``.
        multipart: Whether the job result was asked for.

    Returns:
        What is wrong with it, or ``None``.
    """
    whole = [each for each in outputs if isinstance(each, Output)]
    if job is None and multipart:
        came = ", ".join(map(repr, outputs[:3])) or "nothing"
        return MalformedResponseError(
            f"the answer must bring the job result, which was asked for, and brought {came}",
            outputs=whole,
        )
    if job is not None and job.state.current and not job.succeeded and not outputs:
        return MalformedResponseError(
            f"the answer must be final, yet says that the job is {shown(job.state.current)}",
            job=job,
        )
    return None


def cut_short(file: object, outputs: Sequence[Output] = ()) -> TruncatedResponseError:
    """
    Return the error for a file whose end nobody told and that seems to lack it.

    Args:
        file: What names it by its ``repr``.
        outputs: The file itself, to be handed over where it is in memory.
    """
    return TruncatedResponseError(
        f"the answer must be a whole file, and {file!r} lacks the end that its format "
        "prescribes; the server did not say how long it is",
        outputs=outputs,
    )


def warn_of_type(asked: str | None, job: JobResult | None, request_id: str | None) -> None:
    """
    Log a warning where an answer is of another job type than was asked for.

    It may be somebody else's answer; nothing in HTTP tells which request one belongs to.
    """
    if asked and job is not None and job.type and job.type != asked:
        log(
            logging.WARNING,
            "%s: the answer is of type %s; it may be another job's",
            asked,
            shown(job.type),
            extra={"job_type": asked, "request_id": request_id, "job_id": job.id},
        )


def warn_of_format(asked: str | None, came: str) -> None:
    """Log a warning where an output is of another media type than was asked for."""
    wanted, kind = bare_type(asked), bare_type(came)
    if wanted and "*" not in wanted and wanted != kind:
        log(logging.WARNING, "asked for %s, and the answer is %s", shown(wanted), shown(came))


ADVICE: Mapping[int, str] = {401: "check the token (PRODIA_TOKEN, or token=)"}
"""What to do about a status, for its message."""


def error_for(status_code: int, headers: Headers, body: bytes) -> ProdiaError:
    """
    Turn an error status into the error to raise.

    Args:
        status_code: Anything but a success.
        headers: The answer's headers.
        body: The start of its body, in whichever form: multipart with a job
            part, a job result as JSON, or text.
    """
    job = _job_in(headers, body)
    return fault_of(status_code, headers, job, body)


def fault_of(
    status_code: int, headers: Headers, job: JobResult | None, body: bytes = b""
) -> ProdiaError:
    """Turn an error status into the error to raise, its job result read already."""
    said = (job.failure or _other_text(job)) if job is not None else None
    if said is None:
        said = text_of(headers, body)
    return status_error(status_code, headers, body, said=said, advice=ADVICE, job=job)


def _job_in(headers: Headers, body: bytes) -> JobResult | None:
    """Find the job result in an error's body."""
    content_type = headers.get("content-type")
    kind = bare_type(content_type)
    if kind == JSON_TYPE:
        return read_job_result(body)
    if kind != MULTIPART:
        return None
    collector = Collector()
    try:
        reader = AnswerReader(headers, multipart=True)
        collector.add(reader.receive_data(body))
    except ResponseError:
        pass  # the status says enough
    return collector.job


def _other_text(job: JobResult) -> str | None:
    """Find a message under the names that other APIs and proxies use."""
    extra: Mapping[str, Any] = job.model_extra or {}
    for name in ("message", "detail"):
        if isinstance(extra.get(name), str):
            return str(extra[name])
    return None
