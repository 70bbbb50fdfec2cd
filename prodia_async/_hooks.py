"""What a caller can watch: one function, told of every attempt, and the package's logger."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from ._attempts import Attempt

logger = logging.getLogger("prodia_async")
logger.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptDetails:
    """
    What an `AttemptHook` is told. Fields may be added.

    Attributes:
        event: ``"started"``: an attempt has its slot and is about to be sent.
            ``"finished"``: it came to its end, well or not. ``"waiting"``: it
            failed, and another follows after a wait.
        job_type: The type of its job.
        number: The attempt's number within its job, from 1.
        attempt: The attempt; ``None`` when it has only started.
        seconds_queued: Seconds the job has waited for slots so far, without
            the time it waited out refusals.
    """

    event: Literal["started", "finished", "waiting"]
    job_type: str
    number: int
    attempt: Attempt | None
    seconds_queued: float


class AttemptHook(Protocol):
    """
    A function to be told of every attempt, for metrics and traces.

    It is called on the event loop, so it must not block. What it raises is
    logged and goes no further: a broken metric must not cost a paid answer.
    """

    def __call__(self, details: AttemptDetails, /) -> None:
        """Take note."""


def log(level: int, message: str, *arguments: object) -> None:
    """Write to the package's log; a handler that raises harms nobody."""
    with contextlib.suppress(Exception):
        logger.log(level, message, *arguments)


def tell(hook: AttemptHook, details: AttemptDetails) -> None:
    """Call a hook; log what it raises."""
    try:
        hook(details)
    except Exception:
        with contextlib.suppress(Exception):
            logger.exception("the hook %r failed on %r", hook, details.event)
