"""What a client is doing and has done, in figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import _notebook

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerStatistics:
    """What the scheduler is doing and has done. Counts are since the client was built."""

    in_flight: int
    """Jobs that are with the server now."""
    queued: int
    """Jobs that wait for a slot."""
    waiting: int
    """Jobs that wait out a refusal's `Retry-After`."""
    max_concurrency: int
    """The bound on `in_flight`."""
    limits: Mapping[str, int]
    """Per job type, how many may be in flight as far as was learned."""
    started: int
    """Attempts that were allowed to start."""
    retries: int
    """Those of them that were not their job's first."""
    refusals: int
    """Attempts that the server refused for lack of an idle worker."""
    completed: int
    """Jobs that ended well."""
    failed: int
    """Jobs that ended with an error."""
    cancelled: int = 0
    """Jobs that their caller gave up."""
    seconds_queued: float
    """Seconds all jobs together waited for a slot, without the time they waited out a refusal."""
    dollars: float
    """The prices that answers told, added up."""

    def _repr_html_(self) -> str:
        """Show it as a table in a notebook."""
        return _notebook.statistics_html(self)
