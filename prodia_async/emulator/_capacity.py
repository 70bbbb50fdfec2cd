"""
Idle workers: the service has no queue, so a job finds one or is refused.

Touched only by the emulator's own loop; changing the number of workers from
another thread is one assignment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Pool:
    """
    Some workers, each of which holds one job at a time.

    Attributes:
        workers: How many there are. Lowering it below `busy` lets the jobs
            under way finish and admits no other until enough have.
        busy: How many hold a job now.
        peak: The most that were ever busy at once.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.busy = 0
        self.peak = 0

    def acquire(self) -> bool:
        """Give a job to an idle worker; ``False`` when none is idle."""
        if self.busy >= self.workers:
            return False
        self.busy += 1
        self.peak = max(self.peak, self.busy)
        return True

    def release(self) -> None:
        """Make the worker of a finished job idle."""
        self.busy -= 1


class Capacity:
    """One shared pool, and pools of their own for the job types that have one."""

    def __init__(self, workers: int, by_type: Mapping[str, int]) -> None:
        self.shared = Pool(workers)
        self._by_type = {name: Pool(count) for name, count in by_type.items()}

    def pool(self, type: str) -> Pool:
        """Find the pool that serves a job type."""
        return self._by_type.get(type, self.shared)

    def set_workers(self, count: int, type: str | None) -> None:
        """Resize the shared pool, or give a type a pool of its own of that size."""
        if type is None:
            self.shared.workers = count
        elif type in self._by_type:
            self._by_type[type].workers = count
        else:
            self._by_type[type] = Pool(count)

    @property
    def busy(self) -> int:
        """Workers that hold a job now, in all pools."""
        return self.shared.busy + sum(pool.busy for pool in list(self._by_type.values()))
