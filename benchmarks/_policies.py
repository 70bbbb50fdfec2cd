"""
The ways to meet a server that refuses: ours, and those that users have today.

Each client has a backlog of jobs, all there from the start, and sends them to
a `Server`. The policies differ only in who may start when.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from prodia_async._scheduler import Scheduler, Ticket

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from _simulation import Server

BACKOFF_INITIAL = 0.5
BACKOFF_MAX = 8.0
"""Our own waits where a refusal does not say how long: RetryPolicy's defaults."""


def wait_after(refusals: int, retry_after: float | None, rng: random.Random) -> float:
    """Return what the engine hands to `Ticket.refused`: jitter goes upwards only."""
    if retry_after is None:
        retry_after = min(BACKOFF_MAX, BACKOFF_INITIAL * 2.0 ** (refusals - 1))
    return retry_after * rng.uniform(1.0, 1.25)


class Client:
    """
    What all clients count.

    Attributes:
        ended: By rank in the backlog, when each job's answer came; 0.0 for one
            that was lost or is not finished.
        completed: Jobs that were served.
        lost: Jobs that were given up.
        refusals: 429s seen.
        last_end: When the last answer came.
    """

    def __init__(self, server: Server, jobs: int, rng: random.Random) -> None:
        self.server = server
        self.world = server.world
        self.rng = rng
        self.jobs = jobs
        self.pulled = 0
        self.refusals = 0
        self.lost = 0
        self.ended: list[float] = []
        self.completed = 0
        self.last_end = 0.0

    def start(self) -> None:
        """Begin to send."""
        raise NotImplementedError

    def finished(self) -> bool:
        """Whether no job is left."""
        return self.completed + self.lost >= self.jobs

    def count(self, rank: int) -> None:
        """Note that the job of this rank was served."""
        self.completed += 1
        self.ended[rank] = self.last_end = self.world.now

    def pull(self) -> int:
        """Take the next job from the backlog and return its rank."""
        self.ended.append(0.0)
        self.pulled += 1
        return self.pulled - 1


class SelfClocked(Client):
    """`prodia_async`'s own scheduler, fed as `AsyncProdia.map` feeds it."""

    def __init__(
        self, server: Server, jobs: int, rng: random.Random, max_concurrency: int = 64
    ) -> None:
        super().__init__(server, jobs, rng)
        self.scheduler = Scheduler(
            max_concurrency=max_concurrency, clock=self.world.clock, rand=rng.random
        )
        self.source = self.scheduler.source()
        self._pulling = False

    def start(self) -> None:
        """Begin to send."""
        if self._pulling:
            return  # the loop below is under way
        self._pulling = True
        while self.pulled < self.jobs and self.source.wants_more():
            self.source.left = self.jobs - self.pulled - 1
            _Journey(self, self.scheduler.ticket("job", self.source), self.pull()).ask()
        self._pulling = False


class _Journey:
    """One job on its way through the scheduler: `Ticket.start` without a loop."""

    def __init__(self, client: SelfClocked, ticket: Ticket, rank: int) -> None:
        self.client = client
        self.ticket = ticket
        self.rank = rank
        self.refusals = 0
        self.sent = False

    def ask(self) -> None:
        if self.ticket.request(self.wake):
            self.send()
        else:
            self.keep_time()

    def keep_time(self) -> None:
        if self.ticket.alarm < float("inf"):
            self.client.world.at(self.ticket.alarm, self.look)

    def wake(self) -> None:
        # As an event would: the waiter runs after the one who set it.
        self.client.world.at(self.client.world.now, self.look)

    def look(self) -> None:
        if self.sent:
            return  # a timer from before
        if self.ticket.proceed():
            self.send()
        else:
            self.keep_time()

    def send(self) -> None:
        self.sent = True
        self.client.server.send(self.done, self.refused)
        self.client.start()

    def done(self) -> None:
        self.ticket.released(served=True)
        self.ticket.close()
        self.client.count(self.rank)
        self.client.start()

    def refused(self, retry_after: float | None) -> None:
        client = self.client
        client.refusals += 1
        self.refusals += 1
        self.sent = False
        self.ticket.refused(wait_after(self.refusals, retry_after, client.rng))
        self.ask()
        client.start()


class Pool(Client):
    """
    `size` jobs at a time, each waiting out its own refusals in its place.

    Args:
        size: How many at a time.
        tries: Attempts a job has; ``None``: as many as it takes.
        shared_pause: A refusal keeps every job of the pool from starting.
    """

    def __init__(
        self,
        server: Server,
        jobs: int,
        rng: random.Random,
        size: int = 64,
        *,
        tries: int | None = None,
        shared_pause: bool = False,
    ) -> None:
        super().__init__(server, jobs, rng)
        self.size = size
        self.tries = tries
        self.shared_pause = shared_pause
        self.paused_until = 0.0
        self.under_way = 0

    def start(self) -> None:
        """Begin to send."""
        while self.under_way < self.size and self.pulled < self.jobs:
            self.under_way += 1
            self._attempt(self.pull(), 1)

    def _attempt(self, rank: int, attempt: int) -> None:
        world = self.world
        if world.now < self.paused_until:
            world.at(self.paused_until, lambda: self._attempt(rank, attempt))
            return

        def done() -> None:
            self.under_way -= 1
            self.count(rank)
            self.start()

        def refused(retry_after: float | None) -> None:
            self.refusals += 1
            if attempt == self.tries:
                self.lost += 1
                self.under_way -= 1
                self.start()
                return
            if self.tries is not None:
                wait = 1.0 if retry_after is None else retry_after  # the JS client's rule
            else:
                wait = wait_after(attempt, retry_after, self.rng)
            if self.shared_pause:
                self.paused_until = max(self.paused_until, world.now + wait)
            world.at(world.now + wait, lambda: self._attempt(rank, attempt + 1))

        self.server.send(done, refused)


class AIMD(Client):
    """A window that halves on a 429 (once per burst) and grows by 1 per window of answers."""

    def __init__(
        self, server: Server, jobs: int, rng: random.Random, max_concurrency: int = 64
    ) -> None:
        super().__init__(server, jobs, rng)
        self.max_concurrency = max_concurrency
        self.limit = 10.0
        self.in_flight = 0
        self.cut_at = -1.0
        self.due: list[tuple[int, int]] = []  # rank, attempt

    def start(self) -> None:
        """Begin to send."""
        while self.in_flight < int(self.limit) and (self.due or self.pulled < self.jobs):
            if self.due:
                self._attempt(*heapq.heappop(self.due))
            else:
                self._attempt(self.pull(), 1)

    def _attempt(self, rank: int, attempt: int) -> None:
        self.in_flight += 1
        world = self.world
        began = world.now

        def done() -> None:
            self.in_flight -= 1
            self.limit = min(float(self.max_concurrency), self.limit + 1 / self.limit)
            self.count(rank)
            self.start()

        def due() -> None:
            heapq.heappush(self.due, (rank, attempt + 1))
            self.start()

        def refused(retry_after: float | None) -> None:
            self.in_flight -= 1
            self.refusals += 1
            if began > self.cut_at:  # one cut per burst
                self.limit = max(1.0, self.limit / 2)
                self.cut_at = world.now
            world.at(world.now + wait_after(attempt, retry_after, self.rng), due)
            self.start()

        self.server.send(done, refused)


POLICIES: dict[str, Callable[[Server, int, random.Random, int], Client]] = {
    "self-clocked (ours)": SelfClocked,
    "JS client, 64 at once": lambda s, n, r, m: Pool(s, n, r, min(64, m), tries=11),
    "shared pause": lambda s, n, r, m: Pool(s, n, r, min(64, m), shared_pause=True),
    "AIMD": AIMD,
    "fixed, own Retry-After": lambda s, n, r, m: Pool(s, n, r, min(64, m)),
}
"""Name to a client for (server, jobs, randomness, max_concurrency)."""
