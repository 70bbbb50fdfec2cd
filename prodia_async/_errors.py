"""
Every error, near the bottom so that every module may raise it.

::

    ProdiaError
    ├── InvalidRequestError (ValueError)      found before anything was sent
    ├── QueueFullError                        max_queued: not sent, and nothing was
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
    └── JobFailedError                        the answer is a job result that says "failed"
        └── JobRefusedError                   ... and a 4xx: a BadRequestError too, nothing ran

The tree is divided by what happened to the job, since that decides whether
sending it again can cost money a second time: each class states its fate. All
of them pickle and keep their class and their attributes.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias, TypedDict, Unpack

from ._attempts import MAY_HAVE_RUN, Attempt, Fate
from ._secret import blotted, blotted_words
from ._show import MAX_SHOWN, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ._outputs import Output
    from ._results import JobResult

Stage: TypeAlias = Literal["queued", "refused", "connecting", "sending", "running", "reading"]
"""How far a job had come when its time was up."""

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def _rebuild(cls: type[ProdiaError], args: tuple[Any, ...], state: dict[str, Any]) -> ProdiaError:
    """Make an unpickled error without calling its ``__init__``."""
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class Facts(TypedDict, total=False):
    """What every error may be made with; see the attributes of `ProdiaError`."""

    reason: str | None
    attempts: Sequence[Attempt]
    request_id: str | None
    fate: Fate | None
    may_have_run: bool | None
    job: JobResult | None
    outputs: Sequence[Output]


class ProdiaError(Exception):
    """
    The base of every error this package raises on purpose.

    Any other exception that escapes is a bug of ours, or comes from a
    callable that was handed in (an input's iterator, a token factory, a hook);
    or it is the `RuntimeError` of a program that uses a closed client, say.
    """

    _fate: ClassVar[Fate] = "refused"
    _advice: ClassVar[str] = ""

    reason: str | None
    """The server's own sentence, without our words; ``None`` where it said nothing."""
    attempts: tuple[Attempt, ...]
    """What was tried, oldest first; empty when nothing was sent."""
    request_id: str | None
    """
    The ``x-request-id`` header of the last answer, for support requests. ``None`` when no
    answer came or it had none.
    """
    fate: Fate
    """What the attempt that ended so came to, as in `Attempt`."""
    may_have_run: bool
    """
    Whether the job may have run, in any of its attempts, and so may have been charged.
    ``False`` means that sending it again is free of that risk.
    """
    job_id: str | None
    """The server's id of the job, when an answer told it."""
    job: JobResult | None
    """The job result, if one came, whole."""
    outputs: tuple[Output, ...]
    """Every output that came whole, in wire order."""
    bytes_received: int
    """Bytes of the answer's body that came before it, where one was read."""

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        attempts: Sequence[Attempt] = (),
        request_id: str | None = None,
        fate: Fate | None = None,
        may_have_run: bool | None = None,
        job: JobResult | None = None,
        outputs: Sequence[Output] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.attempts = tuple(attempts)
        self.request_id = request_id
        self.fate = self._fate if fate is None else fate
        self.may_have_run = self.fate in MAY_HAVE_RUN if may_have_run is None else may_have_run
        self.job = job
        self.job_id = job.id if job is not None else None
        self.outputs = tuple(outputs)
        self.bytes_received = 0

    def tell(
        self,
        *,
        reason: str | None = None,
        attempts: Sequence[Attempt] | None = None,
        request_id: str | None = None,
        fate: Fate | None = None,
        may_have_run: bool = False,
        job_id: str | None = None,
        job: JobResult | None = None,
        outputs: Sequence[Output] | None = None,
        bytes_received: int | None = None,
        besides: str = "",
        secret: str = "",
    ) -> Self:
        """
        Write down what else is known; the one place where an error changes after it was made.

        What is given takes the place of what was there, ``None`` leaves it. A
        request id, a job or a reason that the error brought along stays, and
        no doubt is ever taken back.

        Args:
            reason: As the attribute.
            attempts: As the attribute.
            request_id: As the attribute.
            fate: As the attribute; with it what may have run is known.
            may_have_run: True if some other attempt may have.
            job_id: As the attribute.
            job: As the attribute; its id is told with it.
            outputs: As the attribute.
            bytes_received: As the attribute.
            besides: What to add to the message, after a semicolon or as a sentence.
            secret: A credential, which goes out of every text.

        Returns:
            The error itself, to be raised.
        """
        self.reason = self.reason or reason
        if attempts is not None:
            self.attempts = tuple(attempts)
        self.request_id = self.request_id or request_id
        if fate is not None:
            self.fate = fate
            may_have_run = may_have_run or fate in MAY_HAVE_RUN
        self.may_have_run = self.may_have_run or may_have_run
        self.job = self.job or job
        self.job_id = job_id or self.job_id or (job.id if job is not None else None)
        if outputs is not None:
            self.outputs = tuple(outputs)
        if bytes_received is not None:
            self.bytes_received = bytes_received
        if besides:
            self.args = (f"{self.message.rstrip('.')}{besides}",)
        if secret:
            self._blot(secret)
        return self

    def _blot(self, secret: str) -> None:
        self.args = (blotted(self.message, secret),)
        self.reason = self.reason and blotted(self.reason, secret)
        if self.job is not None and self.job.error:
            self.job = self.job.model_copy(update={"error": blotted(self.job.error, secret)})

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


class QueueFullError(ProdiaError):
    """As many jobs wait for a slot as `max_queued` allows; this one was not sent."""

    queued: int
    """How many wait."""
    retry_after: float | None
    """Seconds after which the server may take jobs again, where it said."""

    def __init__(
        self,
        message: str,
        *,
        queued: int = 0,
        retry_after: float | None = None,
        **facts: Unpack[Facts],
    ) -> None:
        super().__init__(message, **facts)
        self.queued = queued
        self.retry_after = retry_after


class DeadlineExceededError(ProdiaError, TimeoutError):
    """
    The job's `deadline` passed.

    The deadline covers the queue, the waits, every attempt, upload and
    download. `may_have_run` is true when an attempt was under way. The last
    attempt's error, if one ended before, is the ``__cause__``.
    """

    stage: Stage | None
    """
    How far it had come: ``queued`` (waiting for a slot, or between two attempts), ``refused``
    (waiting out a 429, so the server is busy rather than slow), ``connecting``, ``sending``,
    ``running``, ``reading``.
    """
    retry_after: float | None
    """Seconds the server asked to wait, when it last refused the job for lack of capacity."""

    def __init__(
        self,
        message: str,
        *,
        stage: Stage | None = None,
        retry_after: float | None = None,
        **facts: Unpack[Facts],
    ) -> None:
        super().__init__(message, **facts)
        self.stage = stage
        self.retry_after = retry_after


class APIConnectionError(ProdiaError):
    """No complete answer came."""

    _fate: ClassVar[Fate] = "uncertain"


class ConnectError(APIConnectionError):
    """
    The request was never fully delivered, so the job cannot have run.

    DNS, a refused connection, a connect time-out, a TLS failure, or a
    connection that broke before the last byte of the request was handed over.
    Also a client that takes no more jobs.
    """

    _fate: ClassVar[Fate] = "undelivered"

    client_is_closing: bool = False
    """Whether no server is at fault: this client drains, or was closed, before the job was sent."""

    @classmethod
    def of_closing(cls, message: str) -> Self:
        """
        Return the error of a job that a client which drains or was closed does not send.

        Args:
            message: What became of it.
        """
        error = cls(message)
        error.client_is_closing = True
        return error


class ConnectionLostError(APIConnectionError):
    """The connection broke after the request was sent: the job may have run."""

    _advice = "It was not sent again; RetryPolicy(retry_uncertain=True) would, at that risk"


class APITimeoutError(APIConnectionError, TimeoutError):
    """Nothing came for `timeout` seconds after the request was sent: the job may have run."""

    _advice = (
        "It was not sent again; RetryPolicy(retry_uncertain=True) would, at that risk, "
        "and a larger timeout= waits longer"
    )


class APIStatusError(ProdiaError):
    """The answer has an error status."""

    status_code: int
    """The HTTP status."""
    body: bytes
    """The start of the body, at most 64 KiB (chosen)."""
    headers: Mapping[str, str]
    """The answer's headers; names in lower case."""
    retry_after: float | None
    """
    Seconds the server asked us to wait, or ``None`` if it did not say (or not in a form that
    means anything).
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        body: bytes = b"",
        headers: Mapping[str, str] = _NO_HEADERS,
        retry_after: float | None = None,
        **facts: Unpack[Facts],
    ) -> None:
        super().__init__(message, **facts)
        self.status_code = status_code
        self.body = body
        self.headers = dict(headers)
        self.retry_after = retry_after

    def _blot(self, secret: str) -> None:
        super()._blot(secret)
        self.body = blotted_words(self.body, secret)


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

    _fate: ClassVar[Fate] = "not run"


RateLimitError = CapacityError
"""`CapacityError` by the name other SDKs use."""


class ServerError(APIStatusError):
    """5xx (from Fireworks also 408): a fault at the server or before it; the job may have run."""

    _fate: ClassVar[Fate] = "server fault"


InternalServerError = ServerError
"""`ServerError` by the name other SDKs use."""


class ResponseError(ProdiaError):
    """
    A success status with an answer that is not what the API promises.

    The job ran and is probably paid for, so it is never sent again by itself.
    What came whole is in `job` and `outputs`, and `bytes_received` counts all
    that came.
    """

    _fate: ClassVar[Fate] = "ran"
    _advice = "It was not sent again, since that would be charged again"


class MalformedResponseError(ResponseError):
    """The answer is not in the form the API promises."""


class TruncatedResponseError(ResponseError):
    """The answer ended before it was complete."""

    path: Path | None = None
    """
    Where an output was saved that came to an end but seems to lack that of its format; ``None``
    where nothing was saved.
    """


class ResponseTooLargeError(ResponseError):
    """The answer went over a limit; the rest was not read."""


class JobFailedError(ProdiaError):
    """
    The answer is a job result of state ``failed``, whatever its status; `reason` says why.

    With a success or a 5xx the job ran. With a 4xx it is a `JobRefusedError`,
    and `may_have_run` is false. (A 429 is a `CapacityError` whatever it brings.)
    """

    _fate: ClassVar[Fate] = "ran"

    status_code: int | None
    """The answer's HTTP status, if it was one of an error."""

    def __init__(
        self, message: str, *, status_code: int | None = None, **facts: Unpack[Facts]
    ) -> None:
        super().__init__(message, **facts)
        self.status_code = status_code


# In this order: it has a status in any case, and is made as what has one.
class JobRefusedError(BadRequestError, JobFailedError):
    """
    A 4xx with a job result of state ``failed``: the server says what is wrong with the job.

    Both a `JobFailedError` and a `BadRequestError`. Documented for 400:
    "malformed or invalid", so nothing ran.
    """

    _fate: ClassVar[Fate] = "refused"

    status_code: int
