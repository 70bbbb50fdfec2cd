"""
What the engine needs to know of an API, and what it tells of a request: seams without any waiting.

A `Vocabulary` turns the answer to one request into what the caller wants, or
into an error; `Terms` say on which terms the request is run; `Finished` what
it took.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypedDict, TypeVar

from ._errors import ConnectError, ConnectionLostError
from ._statuses import status_error, text_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

    from ._attempts import Attempt, Timing
    from ._errors import ProdiaError
    from ._exchange import Reply
    from ._hooks import AttemptHook
    from ._outputs import Output
    from ._results import JobResult
    from ._retry import RetryPolicy
    from ._source import Source
    from ._wire import Headers

T_co = TypeVar("T_co", covariant=True)


class Partial(TypedDict, total=False):
    """What was complete of an answer that was not, in the words of `ProdiaError.tell`."""

    job: JobResult | None
    job_id: str | None
    outputs: Sequence[Output]


class Vocabulary(Generic[T_co]):
    """
    What an API makes of the answer to one request; made anew for each.

    Only `read` must be there. The defaults are those of an API that says
    nothing of prices and whose errors are plain text.
    """

    __slots__ = ()

    async def read(self, reply: Reply) -> T_co:
        """
        Read a success answer.

        Raises:
            ResponseError: It is not what the API promises.
            JobFailedError: It says that the job failed.
        """
        raise NotImplementedError

    async def read_error(
        self, reply: Reply, headers: Headers, blot: Callable[[bytes], bytes]
    ) -> ProdiaError | None:
        """
        Read an error answer that may say that the job ran; the engine bounds the time.

        Args:
            reply: The answer.
            headers: Its headers, with no credential in them.
            blot: Takes a credential out of a body before it goes into an error.

        Returns:
            The error to raise; ``None``, with nothing read, where the start
            of the body says all there is: `error_for` is asked then.
        """
        del reply, headers, blot
        return None

    def error_for(self, status_code: int, headers: Headers, body: bytes) -> ProdiaError:
        """Turn an error status into the error to raise; ``body`` may be cut."""
        return status_error(status_code, headers, body, said=text_of(headers, body))

    def partial(self) -> Partial:
        """Return what was complete of the answer being read."""
        return {}

    def dollars(self) -> float:
        """Return what the answer that was read says it cost; 0 if it does not."""
        return 0.0

    def forget(self) -> None:
        """Let go of what was read: the request failed, and its error may be kept for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """
    On which terms a request is run.

    Attributes:
        authorize: Returns the Authorization header for an attempt; empty for none.
        retry: When to try again.
        deadline: Seconds for all of it, or ``None``.
        timeout: Seconds of silence allowed within an attempt.
        hook: Told of every attempt.
        counted: Whether it is a job of its own in the statistics, rather
            than a step of one (a question about it, say).
        spent: Seconds of the deadline that are gone already.
        free: Whether it is a question that costs nothing: it waits for no
            slot but for one of `MAX_QUESTIONS`, is sent once, and neither
            draws on the retry budget nor fills it. Whoever asks decides
            whether to ask again.
        source: The scheduler's source that fetched it, if one did: its
            source waits while the server takes none, rather than fail.
        credential: What tells this view's credential from its client's, for
            the scheduler: each is another account at the server.
        max_queued: How many may wait for a slot before one more is refused;
            ``None`` for any number. Jobs of a source are not held to it.
        index: Its place among many, for hooks and logs.
        tag: The caller's own name for it, for hooks.
    """

    authorize: Callable[[], Awaitable[str]]
    retry: RetryPolicy
    deadline: float | None
    timeout: float
    hook: AttemptHook | None
    counted: bool = True
    spent: float = 0.0
    free: bool = False
    source: Source | None = None
    credential: Hashable = None
    max_queued: int | None = None
    index: int | None = None
    tag: object = None

    def closing(self, what: str) -> ProdiaError:
        """Return the error of a request that a client which drains or was closed does not send."""
        if self.free:  # its job is paid for
            return ConnectionLostError("the client was closed, and asks no more")
        return ConnectError.of_closing(what)


@dataclass(frozen=True, slots=True)
class Finished:
    """
    What a request took.

    Attributes:
        request_id: The ``x-request-id`` header.
        headers: The headers of the answer.
        attempts: Oldest first; the last succeeded.
        timing: Where the time went.
    """

    request_id: str | None
    headers: Headers
    attempts: tuple[Attempt, ...]
    timing: Timing
