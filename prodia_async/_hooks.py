"""What a caller can watch: one function, told of jobs and attempts, and the package's logger."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ._checks import header
from ._errors import InvalidRequestError
from ._show import Told

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._attempts import Attempt

logger = logging.getLogger("prodia_async")
logger.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AttemptDetails(Told):
    """What a hook is told of an attempt. Fields may be added."""

    event: Literal["queued", "started", "finished", "waiting"]
    """
    ``"started"``: an attempt has its slot and is about to be sent. ``"finished"``: it came to
    its end, well or not. ``"waiting"``: it failed, and another follows after a wait.
    """
    job_type: str
    """The type of its job."""
    number: int
    """The attempt's number within its job, from 1."""
    attempt: Attempt | None
    """The attempt; ``None`` when it has only started."""
    seconds_queued: float
    """Seconds the job has waited for slots so far, without the time it waited out refusals."""
    index: int | None = None
    """The job's place in a ``map``, from 0; ``None`` for a job alone."""
    tag: object = None
    """The `tag` of its `JobRequest`."""
    key: int = 0
    """The same in all that is told of one job, and of no other while it goes on."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """
    What is put here when it has ``"started"`` is sent with the attempt. What cannot be sent, or is
    the client's own, is logged and left out.
    """

    @property
    def request_id(self) -> str | None:
        """The ``x-request-id`` header of the attempt's answer, when one came."""
        return self.attempt.request_id if self.attempt is not None else None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class JobDetails(AttemptDetails):
    """
    What a hook is told of a job, rather than of one of its attempts. Fields may be added.

    Attributes:
        event: ``"queued"``: it was taken and waits for its turn; nothing is
            sent yet. ``"finished"``: it came to its end, well or not.
        attempt: Its last attempt; ``None`` when nothing was sent.
        number: How many attempts it took so far.
    """

    dollars: float = 0.0
    """What the answer says it cost; 0 where it does not say."""
    error: BaseException | None = None
    """
    What it ended with; ``None`` for success, and while it is queued. A cancellation is told as
    what it is.
    """
    seconds: float = 0.0
    """How long it took in all; 0 while it is queued."""


class AttemptHook(Protocol):
    """
    A function to be told of every attempt and of every job, for metrics, traces and progress.

    ::

        def hook(details):
            match details:
                case JobDetails(event="finished", index=index, dollars=dollars):
                    ...
                case JobDetails():
                    ...
                case AttemptDetails(event="finished", attempt=attempt):
                    ...

    It is called on the event loop, so it must not block. What it raises is
    logged and goes no further: a broken metric must not cost a paid answer.
    """

    def __call__(self, details: AttemptDetails, /) -> None:
        """Take note."""


def log(
    level: int, message: str, *arguments: object, extra: Mapping[str, Any] | None = None
) -> None:
    """Write to the package's log; a handler that raises harms nobody."""
    with contextlib.suppress(Exception):
        logger.log(level, message, *arguments, extra=extra)


def headers_of(details: AttemptDetails) -> list[tuple[str, str]]:
    """Return the headers that a hook added, as they are sent; log those that cannot be."""
    kept = []
    for name, value in details.headers.items():
        try:
            kept.append(header("the headers of a hook", name, value))
        except InvalidRequestError as error:
            log(logging.WARNING, "%s: %s; it is left out", details.job_type, error.message)
    return kept


def tell(hook: AttemptHook, details: AttemptDetails) -> None:
    """Call a hook; log what it raises."""
    try:
        hook(details)
    except BaseException as error:
        if not is_its_own(error):
            raise
        with contextlib.suppress(Exception):
            logger.exception("the hook %r failed on %r", hook, details.event)


def is_its_own(error: BaseException) -> bool:
    """
    Return whether a plain function of the caller's failed by itself.

    No task can be cancelled in one, so a cancellation that it raises is of a
    future whose result it asked for.
    """
    return isinstance(error, Exception) or type(error).__name__ == "CancelledError"
