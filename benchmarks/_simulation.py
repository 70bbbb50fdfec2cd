"""
A server with K workers and no queue, its clients, and a clock that costs nothing.

`World` is a heap of callbacks; ten minutes of five hundred workers take a few
seconds. The clients of `_policies.py` drive it; one of them is the package's
own scheduler, the very class that runs under asyncio.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable


class World:
    """Virtual time: callbacks in order of their time, equal times in order of asking."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def clock(self) -> float:
        """Return the virtual time in seconds."""
        return self.now

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call `call` at the time `when`."""
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, call))

    def run(self, until: float, finished: Callable[[], bool] = lambda: False) -> None:
        """Run to the time `until`, or until nothing is left to do, or `finished`."""
        heap = self._heap
        while heap and heap[0][0] <= until and not finished():
            self.now, _, call = heapq.heappop(heap)
            call()


class Server:
    """
    `workers` workers, no queue: a job that finds none idle is refused at once.

    Args:
        world: The clock.
        workers: How many; may be changed at any time, jobs under way go on.
        job_seconds: Mean time a worker needs.
        spread: A job takes `job_seconds` times 1 plus or minus up to this, evenly
            spread; ``None``: log-normal instead (sigma 0.5, so one in twenty takes
            more than twice the mean), as a mixture of small and large jobs would.
        network: Seconds there and back, half each way.
        retry_after: What a refusal asks for; ``None``: it does not say.
        rng: Where the spread comes from.
    """

    def __init__(
        self,
        world: World,
        workers: int,
        job_seconds: float,
        rng: random.Random,
        *,
        spread: float | None = 0.2,
        network: float = 0.02,
        retry_after: float | None = 1.0,
    ) -> None:
        self.world = world
        self.workers = workers
        self.job_seconds = job_seconds
        self.spread = spread
        self.network = network
        self.retry_after = retry_after
        self.busy = 0
        self.served = 0
        self.refused = 0
        self._rng = rng
        self._worked = 0.0
        self._worked_at = 0.0

    def send(self, done: Callable[[], None], refused: Callable[[float | None], None]) -> None:
        """Take one job; one of the two is called when the answer has come back."""
        world, half = self.world, self.network / 2

        def answer() -> None:
            self._account()
            self.busy -= 1
            self.served += 1
            world.at(world.now + half, done)

        def arrive() -> None:
            if self.busy >= self.workers:
                self.refused += 1
                world.at(world.now + half, lambda: refused(self.retry_after))
                return
            self._account()
            self.busy += 1
            seconds = self.job_seconds
            if self.spread is None:
                seconds *= self._rng.lognormvariate(-0.125, 0.5)
            else:
                seconds *= 1 + self._rng.uniform(-self.spread, self.spread)
            world.at(world.now + seconds, answer)

        world.at(world.now + half, arrive)

    def worked(self) -> float:
        """Return the seconds all workers together have worked until now."""
        self._account()
        return self._worked

    def _account(self) -> None:
        self._worked += self.busy * (self.world.now - self._worked_at)
        self._worked_at = self.world.now
