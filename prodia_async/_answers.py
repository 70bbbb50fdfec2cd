"""
An answer as values: its bytes to events, events to outputs, an error status to an error.

Nothing here waits, and nothing here knows of sockets. Source of the facts:
reference "Inference", responses and status codes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeAlias

from ._errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CapacityError,
    JobFailedError,
    JobNotFoundError,
    MalformedResponseError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ProdiaError,
    ResponseError,
    ResponseTooLargeError,
    ServerError,
    TruncatedResponseError,
)
from ._formats import MULTIPART
from ._media import OCTET_STREAM, SNIFF_BYTES, bare_type, is_cut_short, sniff
from ._models import JobResult, Output, read_job_result
from ._multipart import Event as MultipartEvent
from ._multipart import MessageFinished, MultipartDecoder, PartData, PartFinished, PartStarted
from ._retry import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ._wire import Headers

JSON_TYPE = "application/json"

MAX_JOB_BYTES = 8 * 1024 * 1024
"""Largest job result that is read. Chosen: live ones have 1 KB, one with embedded data some 100."""

MAX_RESPONSE_BYTES = 1024 * 1024 * 1024
"""Largest answer that is collected in memory. Chosen: far above the videos of known types."""

MAX_ERROR_BYTES = 64 * 1024
"""How much of an error's body is read and kept. Chosen."""

MAX_MESSAGE = 500
"""How many characters of a text body are quoted in an error's message. Chosen."""


@dataclass(frozen=True, slots=True)
class JobReceived:
    """The job result is here, whole."""

    job: JobResult


@dataclass(frozen=True, slots=True)
class OutputStarted:
    """An output begins; `content_type` is ``None`` if the server did not say."""

    filename: str | None
    content_type: str | None


@dataclass(frozen=True, slots=True)
class OutputData:
    """Some more bytes of the output that began last."""

    data: bytes | memoryview


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

    Raises:
        MalformedResponseError: An encoding came that was not asked for, or
            Content-Type names no boundary.
    """

    __slots__ = ("_body", "_fault", "bytes_received", "finished")

    def __init__(self, headers: Headers, *, multipart: bool) -> None:
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in {"", "identity"}:
            raise MalformedResponseError(
                f"the answer is encoded as {encoding[:80]!r}, which was not asked for"
            )
        content_type = headers.get("content-type")
        self._body: _MultipartAnswer | _DirectAnswer
        if bare_type(content_type) == MULTIPART:
            self._body = _MultipartAnswer(content_type or "")
        else:
            self._body = _DirectAnswer(content_type, multipart=multipart)
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
        self._raise_fault()
        self.bytes_received += len(data)
        events: list[AnswerEvent] = []
        try:
            self._body.receive_data(data, events)
        except ResponseError as fault:
            self._fault = fault
            if not events:
                raise
        self.finished = self._body.finished
        return events

    def receive_eof(self) -> list[AnswerEvent]:
        """
        Take the end of the body and return the events it completes.

        Raises:
            ResponseError: The answer is not complete, or not what the API promises.
        """
        self._raise_fault()
        return self._body.receive_eof()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault


class _MultipartAnswer:
    """A ``multipart/form-data`` answer: one `job` part and any number of `output` parts."""

    __slots__ = ("_decoder", "_job_bytes", "_job_size", "_part", "_seen_job", "finished")

    def __init__(self, content_type: str) -> None:
        self._decoder = MultipartDecoder(content_type)
        self._part: str | None = None
        self._job_bytes: list[memoryview] = []
        self._job_size = 0
        self._seen_job = False
        self.finished = False

    def receive_data(self, data: bytes, events: list[AnswerEvent]) -> None:
        for event in self._decoder.receive_data(data):
            self._take(event, events)

    def _take(self, event: MultipartEvent, events: list[AnswerEvent]) -> None:
        match event:
            case PartData(data):
                if self._part == "output":
                    events.append(OutputData(data))
                elif self._part == "job":
                    self._take_job_bytes(data)
            case PartStarted():
                self._part = event.name
                if event.name == "output":
                    events.append(OutputStarted(event.filename, event.content_type))
                elif event.name == "job":
                    if self._seen_job:
                        raise MalformedResponseError("the answer has two job parts, not one")
                    self._seen_job = True
            case PartFinished():
                if self._part == "output":
                    events.append(OutputFinished())
                elif self._part == "job":
                    events.append(JobReceived(self._job()))
                self._part = None
            case MessageFinished():
                if not self._seen_job:
                    raise MalformedResponseError("the answer has no job part")
                self.finished = True

    def _take_job_bytes(self, data: memoryview) -> None:
        self._job_size += len(data)
        if self._job_size > MAX_JOB_BYTES:
            raise ResponseTooLargeError(
                f"the answer's job part is larger than {MAX_JOB_BYTES} bytes"
            )
        self._job_bytes.append(data)

    def _job(self) -> JobResult:
        content = b"".join(self._job_bytes)
        self._job_bytes.clear()
        job = read_job_result(content)
        if job is None:
            raise MalformedResponseError(
                f"the answer's job part must be a JSON object, not {content[:80]!r}"
            )
        return job

    def receive_eof(self) -> list[AnswerEvent]:
        self._decoder.receive_eof()
        return []


class _DirectAnswer:
    """An answer that is one output's bytes, or the job result alone as JSON."""

    __slots__ = (
        "_content_type",
        "_head",
        "_is_json",
        "_multipart",
        "_started",
        "_text",
        "finished",
    )

    def __init__(self, content_type: str | None, *, multipart: bool) -> None:
        kind = bare_type(content_type)
        self._is_json = kind == JSON_TYPE
        self._multipart = multipart
        self._content_type = kind
        self._started = False
        self._text = bytearray()
        self._head = b""
        self.finished = False  # only the end of the body tells

    def receive_data(self, data: bytes, events: list[AnswerEvent]) -> None:
        if self._is_json or self._content_type == "text/html":
            # Never an output: a job result, or a page that a proxy made up.
            self._text += data
            if len(self._text) > MAX_JOB_BYTES:
                raise ResponseTooLargeError(f"the answer is larger than {MAX_JOB_BYTES} bytes")
            return
        if not self._started:
            self._started = True
            events.append(OutputStarted(None, self._content_type))
        events.append(OutputData(data))

    def receive_eof(self) -> list[AnswerEvent]:
        if self._is_json:
            job = read_job_result(self._text)
            if job is not None and (job.id or job.state.current):
                return [JobReceived(job)]
        if self._is_json or self._content_type == "text/html" or not self._started:
            raise MalformedResponseError(
                f"the answer must be {'multipart/form-data' if self._multipart else 'an output'}, "
                f"not {self._content_type or 'without a Content-Type'}: {bytes(self._text[:80])!r}"
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
        self._chunks: list[bytes | memoryview] = []

    def add(self, events: Iterable[AnswerEvent]) -> None:
        """
        Take the next events.

        Raises:
            ResponseTooLargeError: The outputs are larger than ``max_bytes`` together.
        """
        for event in events:
            match event:
                case OutputData(data):
                    self._size += len(data)
                    if self._size > self._max_bytes:
                        raise ResponseTooLargeError(
                            f"the outputs are larger than max_response_bytes={self._max_bytes}; "
                            "stream() has no such limit"
                        )
                    self._chunks.append(data)
                case OutputStarted():
                    self._started = event
                case OutputFinished():
                    # A single chunk that is whole is not copied.
                    content = b"".join(self._chunks)
                    self._chunks.clear()
                    assert self._started is not None  # noqa: S101  (events come in this order)
                    self.outputs.append(make_output(self._started, content))
                case JobReceived(job):
                    self.job = job


def make_output(started: OutputStarted, content: bytes) -> Output:
    """Put an output together; the type is the server's word, else what the bytes tell."""
    content_type = started.content_type or sniff(content[:SNIFF_BYTES]) or OCTET_STREAM
    return Output(content, content_type, started.filename)


def check_answer(
    job: JobResult | None, outputs: Sequence[Output], *, multipart: bool
) -> ProdiaError | None:
    """
    Judge a complete answer.

    Returns:
        What is wrong with it, or ``None``.
    """
    if job is None:
        if multipart:
            return MalformedResponseError("the answer has no job result, which was asked for")
        if outputs and is_cut_short(outputs[0].content):
            return TruncatedResponseError(
                f"the {outputs[0].content_type} is cut short: its last bytes are not an end"
            )
        return None
    if job.failed:
        return JobFailedError(
            f"the job failed: {job.failure or 'the server does not say why'}",
            job=job,
            outputs=outputs,
        )
    if job.state.current and not job.succeeded and not outputs:
        return MalformedResponseError(
            f"the answer is final, yet says that the job is {job.state.current!r}"
        )
    return None


_STATUS_ERRORS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: JobNotFoundError,
    413: PayloadTooLargeError,
    429: CapacityError,
}


def error_for(status_code: int, headers: Headers, body: bytes) -> APIStatusError:
    """
    Turn an error status into the error to raise.

    Args:
        status_code: Anything but a success.
        headers: The answer's headers.
        body: The start of its body, in whichever form: multipart with a job
            part, a job result as JSON, or text.
    """
    job = _job_in(headers, body)
    message = _message(status_code, headers, body, job)
    kind = _STATUS_ERRORS.get(status_code, ServerError if status_code >= 500 else APIStatusError)
    return kind(
        message,
        status_code=status_code,
        body=body[:MAX_ERROR_BYTES],
        headers=headers,
        job=job,
        retry_after=retry_after(headers),
        request_id=headers.get("x-request-id"),
        # A redirect is not followed, and whether something ran before it nobody says.
        may_have_run=True if status_code < 400 else None,
    )


def retry_after(headers: Headers) -> float | None:
    """Return the seconds an answer asks us to wait, or ``None``."""
    return parse_retry_after(headers.get_all("retry-after"), date=headers.get("date"))


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


_TAGS = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


def _message(status_code: int, headers: Headers, body: bytes, job: JobResult | None) -> str:
    try:
        phrase = f"{status_code} {HTTPStatus(status_code).phrase}"
    except ValueError:
        phrase = str(status_code)
    said = (job.failure or _other_text(job)) if job is not None else None
    if said is None and bare_type(headers.get("content-type")) != MULTIPART:
        text = body[:MAX_ERROR_BYTES].decode(errors="replace")
        said = _TAGS.sub(" ", text)
    said = " ".join((said or "").split())[:MAX_MESSAGE]
    if 300 <= status_code < 400:
        said = (
            f"redirects are not followed; it leads to {headers.get('location', 'nowhere')[:200]!r}"
        )
    return f"{phrase}: {said}" if said else phrase


def _other_text(job: JobResult) -> str | None:
    """Find a message under the names that other APIs and proxies use."""
    extra: Mapping[str, Any] = job.model_extra or {}
    for name in ("message", "detail"):
        if isinstance(extra.get(name), str):
            return str(extra[name])
    return None
