"""
Async jobs: kept from their submission until they expire.

Touched by the emulator's own loop; other threads only look at copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from ._jobs import Plan
    from ._studio import Output

State = Literal["processing", "processed", "failed"]

_MOST_KEPT = 20_000
"""Jobs that are kept at once (chosen): beyond it the oldest are forgotten."""


@dataclass(slots=True)
class AsyncJob:
    """
    One submitted job.

    Attributes:
        id: Its id.
        plan: What it does.
        created: When it was submitted, UTC.
        expires_after: Seconds from then to its ``expires_at``.
        deadline: The same on the store's clock.
        priced: Whether ``?price=true`` was asked for when it was submitted.
        state: Where it stands, in the documented words.
        updated: When that changed last, UTC.
        elapsed: Seconds it ran; ``None`` until it has.
        error: Why it failed.
        outputs: What it made, by name.
    """

    id: str
    plan: Plan
    created: datetime
    expires_after: float
    deadline: float
    priced: bool
    updated: datetime
    state: State = "processing"
    elapsed: float | None = None
    error: str | None = None
    outputs: Mapping[str, Output] | None = None

    def finish(self, now: datetime, *, elapsed: float, outputs: Mapping[str, Output]) -> None:
        """Enter what it made."""
        self.state, self.updated, self.elapsed, self.outputs = "processed", now, elapsed, outputs

    def fail(self, now: datetime, *, elapsed: float, error: str) -> None:
        """Enter why it made nothing."""
        self.state, self.updated, self.elapsed, self.error = "failed", now, elapsed, error
        self.outputs = {}


class Store:
    """The async jobs by id, oldest first."""

    def __init__(self) -> None:
        self._jobs: dict[str, AsyncJob] = {}
        self.running = 0
        """How many are not finished."""

    def add(self, job: AsyncJob, now: float) -> None:
        """Keep a new job, and forget what has expired."""
        while self._jobs:
            oldest = next(iter(self._jobs.values()))
            # A job under way may have expired and still holds its worker; its end
            # is entered in the object itself, so it need not be found here.
            if len(self._jobs) < _MOST_KEPT and now < oldest.deadline:
                break
            del self._jobs[oldest.id]
        self._jobs[job.id] = job

    def get(self, id: str, now: float) -> AsyncJob | None:
        """Find a job; ``None`` when it is unknown or has expired at `now`."""
        job = self._jobs.get(id)
        return job if job is not None and now < job.deadline else None

    def expire(self, id: str | None) -> None:
        """Let a job expire at once, or all of them."""
        for job in list(self._jobs.values()):
            if id in {None, job.id}:
                job.deadline = 0.0

    def states(self, now: float) -> dict[str, State]:
        """Copy the states of all jobs that have not expired."""
        return {job.id: job.state for job in list(self._jobs.values()) if now < job.deadline}
