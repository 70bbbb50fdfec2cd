"""What a client is doing and has done, in figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import _notebook

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerStatistics:
    """
    What the scheduler is doing and has done. Counts are since the client was built.

    Attributes:
        in_flight: Jobs that are with the server now.
        queued: Jobs that wait for a slot.
        waiting: Jobs that wait out a refusal's `Retry-After`.
        max_concurrency: The bound on `in_flight`.
        limits: Per job type, how many may be in flight as far as was learned.
        started: Attempts that were allowed to start.
        retries: Those of them that were not their job's first.
        refusals: Attempts that the server refused for lack of an idle worker.
        completed: Jobs that ended well.
        failed: Jobs that ended with an error.
        cancelled: Jobs that their caller gave up.
        seconds_queued: Seconds all jobs together waited for a slot, without
            the time they waited out a refusal.
        dollars: The prices that answers told, added up.
    """

    in_flight: int
    queued: int
    waiting: int
    max_concurrency: int
    limits: Mapping[str, int]
    started: int
    retries: int
    refusals: int
    completed: int
    failed: int
    cancelled: int = 0
    seconds_queued: float
    dollars: float

    def _repr_html_(self) -> str:
        """Show it as a table in a notebook."""
        return _notebook.statistics_html(self)
