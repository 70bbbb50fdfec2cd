"""
Every error, at the bottom of the house so that every room may raise it.

::

    ProdiaError
    ├── InvalidRequestError (ValueError)      found before anything was sent
    ├── DeadlineExceededError (TimeoutError)  the job's own time was up
    ├── APIConnectionError                    no complete answer came
    │   ├── ConnectError                      never delivered: safe to send again
    │   ├── ConnectionLostError               it may have run
    │   └── APITimeoutError (TimeoutError)    it may have run
    ├── APIStatusError                        the answer is an error status
    │   ├── BadRequestError                   400
    │   ├── AuthenticationError               401
    │   ├── PermissionDeniedError             403
    │   ├── JobNotFoundError                  404
    │   ├── PayloadTooLargeError              413
    │   ├── CapacityError = RateLimitError    429: no idle worker, nothing ran
    │   └── ServerError = InternalServerError 5xx: it may have run
    ├── ResponseError                         a 200 that is not what the API promises: it ran
    │   ├── MalformedResponseError
    │   ├── TruncatedResponseError
    │   └── ResponseTooLargeError
    └── JobFailedError                        it ran and ended "failed"

The tree is divided by what happened to the job, since that decides whether
sending it again can cost money a second time. All of them pickle and keep
their class and their attributes.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from ._show import MAX_SHOWN, one_line
from ._show import shown as shown  # noqa: PLC0414  (its home until lately; others still ask here)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._outputs import Output
    from ._results import JobResult
    from ._retry import Attempt

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def _rebuild(cls: type[ProdiaError], args: tuple[Any, ...], state: dict[str, Any]) -> ProdiaError:
    """Make an unpickled error without calling its ``__init__``."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ProdiaError(Exception):
    """
    The base of every error this package raises on purpose.

    Any other exception that escapes is a bug of ours, or comes from a
    callable that was handed in (an input's iterator, a token factory, a hook).

    Attributes:
        message: What was expected and what came, in one sentence.
        attempts: What was tried, oldest first; empty when nothing was sent.
        request_id: The ``x-request-id`` header of the last answer, for support
            requests. ``None`` when no answer came or it had none.
        may_have_run: Whether the job may have run, and so may have been
            charged. ``False`` means that sending it again is free of that risk.
        job_id: The server's id of the job, when an answer told it.
        job: The job result, if one came, whole.
        outputs: Every output that came whole, in wire order.
    """

    _may_have_run: ClassVar[bool] = False
    _advice: ClassVar[str] = ""

    attempts: tuple[Attempt, ...]
    request_id: str | None
    may_have_run: bool
    job_id: str | None
    job: JobResult | None
    outputs: tuple[Output, ...]

    def __init__(
        self,
        message: str,
        *,
        attempts: Sequence[Attempt] = (),
        request_id: str | None = None,
        may_have_run: bool | None = None,
        job: JobResult | None = None,
        outputs: Sequence[Output] = (),
    ) -> None:
        super().__init__(message)
        self.attempts = tuple(attempts)
        self.request_id = request_id
        self.may_have_run = self._may_have_run if may_have_run is None else may_have_run
        self.job = job
        self.job_id = job.id if job is not None else None
        self.outputs = tuple(outputs)

    @property
    def message(self) -> str:
        """What was expected and what came, without the history that ``str()`` adds."""
        return str(self.args[0])

    def __str__(self) -> str:
        sentences = [self.message]
        if len(self.attempts) > 1:
            tried = ", ".join(str(attempt) for attempt in self.attempts[-4:])
            earlier = "..., " if len(self.attempts) > 4 else ""
            sentences.append(f"Tried {len(self.attempts)} times ({earlier}{tried})")
        if self.may_have_run:
            sentences.append("The job may have run and been charged")
        if self._advice:
            sentences.append(self._advice)
        ids = [
            # Both came over the network, so they may be of any length.
            f"{name} {one_line(value, longest=MAX_SHOWN)}"
            for name, value in (("job", self.job_id), ("request", self.request_id))
            if value
        ]
        if ids:
            sentences.append(f"Ids: {', '.join(ids)}")
        return ". ".join(sentence.rstrip(".") for sentence in sentences)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class InvalidRequestError(ProdiaError, ValueError):
    """What was asked for cannot be sent; nothing was, so nothing was charged."""


class DeadlineExceededError(ProdiaError, TimeoutError):
    """
    The job's `deadline` passed.

    The deadline covers the queue, the waits, every attempt, upload and
    download. `may_have_run` is true when an attempt was under way.
    """


class APIConnectionError(ProdiaError):
    """No complete answer came."""


class ConnectError(APIConnectionError):
    """
    The request was never fully delivered, so the job cannot have run.

    DNS, a refused connection, a connect time-out, a TLS failure, or a
    connection that broke before the last byte of the request was handed over.
    """


class ConnectionLostError(APIConnectionError):
    """The connection broke after the request was sent: the job may have run."""

    _may_have_run = True
    _advice = "It was not sent again; RetryPolicy(retry_uncertain=True) would, at that risk"


class APITimeoutError(APIConnectionError, TimeoutError):
    """Nothing came for `timeout` seconds after the request was sent: the job may have run."""

    _may_have_run = True
    _advice = (
        "It was not sent again; RetryPolicy(retry_uncertain=True) would, at that risk, "
        "and a larger timeout= waits longer"
    )


class APIStatusError(ProdiaError):
    """
    The answer has an error status.

    Attributes:
        status_code: The HTTP status.
        body: The start of the body, at most 64 KiB (chosen).
        headers: The answer's headers; names in lower case.
        retry_after: Seconds the server asked us to wait, or ``None`` if it
            did not say (or not in a form that means anything).
    """

    status_code: int
    body: bytes
    headers: Mapping[str, str]
    retry_after: float | None

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        body: bytes = b"",
        headers: Mapping[str, str] = _NO_HEADERS,
        retry_after: float | None = None,
        attempts: Sequence[Attempt] = (),
        request_id: str | None = None,
        may_have_run: bool | None = None,
        job: JobResult | None = None,
    ) -> None:
        super().__init__(
            message,
            attempts=attempts,
            request_id=request_id,
            may_have_run=may_have_run,
            job=job,
        )
        self.status_code = status_code
        self.body = body
        self.headers = dict(headers)
        self.retry_after = retry_after


class BadRequestError(APIStatusError):
    """400: the server says what is wrong with the job; nothing ran."""


class AuthenticationError(APIStatusError):
    """401: the token is missing or invalid."""


class PermissionDeniedError(APIStatusError):
    """403: the token lacks the privilege, for example for this job type."""


class JobNotFoundError(APIStatusError):
    """404: unknown path, or an async job that is unknown or has expired."""


class PayloadTooLargeError(APIStatusError):
    """413: the inputs are larger than this job type takes."""


class CapacityError(APIStatusError):
    """429, or what else an API documents as overload: nothing ran and nothing was charged."""


RateLimitError = CapacityError
"""`CapacityError` by the name other SDKs use."""


class ServerError(APIStatusError):
    """5xx (or 408): a fault at the server or before it; the job may have run."""

    _may_have_run = True


InternalServerError = ServerError
"""`ServerError` by the name other SDKs use."""


class ResponseError(ProdiaError):
    """
    A success status with an answer that is not what the API promises.

    The job ran and is probably paid for, so it is never sent again by itself.
    What came whole is in `job` and `outputs`.

    Attributes:
        bytes_received: Body bytes that came before the fault.
    """

    _may_have_run = True
    _advice = "It was not sent again, since that would be charged again"

    bytes_received: int = 0


class MalformedResponseError(ResponseError):
    """The answer is not in the form the API promises."""


class TruncatedResponseError(ResponseError):
    """The answer ended before it was complete."""


class ResponseTooLargeError(ResponseError):
    """The answer went over a limit; the rest was not read."""


class JobFailedError(ProdiaError):
    """The job ran and ended ``failed``; the `error` of its `job` says why."""

    _may_have_run = True
