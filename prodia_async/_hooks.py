"""What a caller can watch: one function, told of jobs and attempts, and the package's logger."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._attempts import Attempt

logger = logging.getLogger("prodia_async")
logger.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptDetails:
    """
    What a hook is told of an attempt. Fields may be added.

    Attributes:
        event: ``"started"``: an attempt has its slot and is about to be sent.
            ``"finished"``: it came to its end, well or not. ``"waiting"``: it
            failed, and another follows after a wait.
        job_type: The type of its job.
        number: The attempt's number within its job, from 1.
        attempt: The attempt; ``None`` when it has only started.
        seconds_queued: Seconds the job has waited for slots so far, without
            the time it waited out refusals.
        index: The job's place in a ``map``, from 0; ``None`` for a job alone.
        tag: The `tag` of its `JobRequest`.
        key: The same in all that is told of one job, and of no other while it goes on.
        headers: What is put here when it has ``"started"`` is sent with the attempt.
    """

    event: Literal["queued", "started", "finished", "waiting"]
    job_type: str
    number: int
    attempt: Attempt | None
    seconds_queued: float
    index: int | None = None
    tag: object = None
    key: int = 0
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def request_id(self) -> str | None:
        """The ``x-request-id`` header of the attempt's answer, when one came."""
        return self.attempt.request_id if self.attempt is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDetails(AttemptDetails):
    """
    What a hook is told of a job, rather than of one of its attempts. Fields may be added.

    Attributes:
        event: ``"queued"``: it was taken and waits for its turn; nothing is
            sent yet. ``"finished"``: it came to its end, well or not.
        attempt: Its last attempt; ``None`` when nothing was sent.
        number: How many attempts it took so far.
        dollars: What the answer says it cost; 0 where it does not say.
        error: What it ended with; ``None`` for success, and while it is
            queued. A cancellation is told as what it is.
        seconds: How long it took in all; 0 while it is queued.
    """

    dollars: float = 0.0
    error: BaseException | None = None
    seconds: float = 0.0


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


def tell(hook: AttemptHook, details: AttemptDetails) -> None:
    """Call a hook; log what it raises."""
    try:
        hook(details)
    except Exception:
        with contextlib.suppress(Exception):
            logger.exception("the hook %r failed on %r", hook, details.event)
