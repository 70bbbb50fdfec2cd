"""
A server that answers 500 for some seconds, and two clients with fifty thousand rows for it.

`Careful` is the package's own scheduler and `RetryPolicy`; `Usual` is what
people write: a semaphore, and tenacity with ``wait_random_exponential(min=1,
max=60)`` and ``stop_after_attempt(6)`` around each job, which keeps its place
while it waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from _policies import Client
from _simulation import Server, World

from prodia_async._attempts import Attempts
from prodia_async._retry import RetryBudget, RetryPolicy
from prodia_async._scheduler import Scheduler, Ticket

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

ROWS = 50_000
WORKERS = 20
HEALTHY_SECONDS = 20.0
OUTAGE_SECONDS = 10.0


class Careful(Client):
    """`prodia_async`, as `AsyncProdia.map` runs it."""

    def __init__(self, server: FaultyServer, jobs: int, rng: random.Random) -> None:
        super().__init__(server, jobs, rng)
        self.faulty = server
        self.scheduler = Scheduler(clock=self.world.clock, rand=rng.random)
        self.source = self.scheduler.source()
        self.source.window = 64
        self.budget = RetryBudget()
        self.policy = RetryPolicy()
        self._pulling = False

    def start(self) -> None:
        """Begin to send."""
        if self._pulling:
            return  # the loop below is under way
        self._pulling = True
        while self.pulled < self.jobs and self.source.wants_more():
            self.source.taken += 1
            _Journey(self, self.scheduler.ticket("job", self.source), self.pull()).ask()
        self._pulling = False


class _Journey:
    """One job on its way: what the engine does, without a loop."""

    def __init__(self, client: Careful, ticket: Ticket, rank: int) -> None:
        self.client = client
        self.ticket = ticket
        self.rank = rank
        self.attempts = Attempts(client.world.now)
        self.sent = False

    def ask(self) -> None:
        self.sent = False
        if self.ticket.request(self.wake):
            self.send()
        else:
            self.keep_time()

    def keep_time(self) -> None:
        if self.ticket.alarm < float("inf"):
            self.client.world.at(self.ticket.alarm, self.look)

    def wake(self) -> None:
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
        self.attempts.start(self.client.world.now)
        self.client.faulty.try_job(self.done, self.refused, self.failed)
        self.client.start()

    def done(self) -> None:
        client = self.client
        self.ticket.released(served=True)
        client.budget.succeeded(self.attempts.drawn)
        client.count(self.rank)
        self.end()

    def end(self) -> None:
        self.ticket.close()
        self.client.source.taken -= 1
        self.client.start()

    def refused(self, retry_after: float | None) -> None:
        client = self.client
        client.refusals += 1
        now = client.world.now
        self.attempts.end(now, "not run", status_code=429, retry_after=retry_after)
        decision = client.policy.decide(
            self.attempts, client.budget, now=now, rand=client.rng.random
        )
        self.ticket.refused(decision.wait, retry_after=retry_after)
        assert decision.wait is not None
        self.ask()
        client.start()

    def failed(self) -> None:
        client = self.client
        now = client.world.now
        self.attempts.end(now, "server fault", status_code=500)
        decision = client.policy.decide(
            self.attempts, client.budget, now=now, rand=client.rng.random
        )
        self.ticket.troubled("fault", budget_is_empty=decision.budget_is_empty)
        if decision.wait is None:
            client.lost += 1
            self.end()
        else:
            client.world.at(now + decision.wait, self.ask)
            client.start()


class Usual(Client):
    """A semaphore of as many places as there are workers, and tenacity."""

    def __init__(self, server: FaultyServer, jobs: int, rng: random.Random) -> None:
        super().__init__(server, jobs, rng)
        self.faulty = server
        self.under_way = 0

    def start(self) -> None:
        """Begin to send."""
        while self.under_way < WORKERS and self.pulled < self.jobs:
            self.under_way += 1
            self._attempt(self.pull(), 1)

    def _attempt(self, rank: int, attempt: int) -> None:
        def over() -> None:
            self.under_way -= 1
            self.start()

        def done() -> None:
            self.count(rank)
            over()

        def failed() -> None:
            if attempt == 6:
                self.lost += 1
                over()
                return
            wait = max(1.0, self.rng.uniform(0, min(60.0, 2.0 ** (attempt - 1))))
            self.world.at(self.world.now + wait, lambda: self._attempt(rank, attempt + 1))

        def refused(retry_after: float | None) -> None:
            del retry_after
            self.refusals += 1
            failed()

        self.faulty.try_job(done, refused, failed)


class FaultyServer(Server):
    """
    A server that can be down; then it answers 500 at once, also to what it was working on.

    Attributes:
        down: Whether it is.
        down_requests: What came while it was.
    """

    down = False
    down_requests = 0

    def try_job(
        self,
        done: Callable[[], None],
        refused: Callable[[float | None], None],
        failed: Callable[[], None],
    ) -> None:
        """Take one job; one of the three is called when the answer has come back."""
        half = self.network / 2

        def arrive() -> None:
            if self.down:
                self.down_requests += 1
                self.world.at(self.world.now + half, failed)
            else:
                self.send_now(lambda: failed() if self.down else done(), refused)

        self.world.at(self.world.now + half, arrive)

    def send_now(self, done: Callable[[], None], refused: Callable[[float | None], None]) -> None:
        """As `send`, for a job that has arrived."""
        network, self.network = self.network, 0.0
        self.send(done, refused)
        self.network = network


@dataclass
class Outage:
    """
    What an outage did.

    Attributes:
        rows: Rows that failed for good.
        per_second: Requests a second that came while it was down.
        recovery: Job times from its end to the end of the first whole job
            time in which nine tenths of the workers were busy.
    """

    rows: int
    per_second: float
    recovery: float


def run_outage(
    make: Callable[[FaultyServer, int, random.Random], Client],
    job_seconds: float,
    rng: random.Random,
    *,
    network: float,
) -> Outage:
    """Let it work, be down, and work again."""
    world = World()
    server = FaultyServer(world, WORKERS, job_seconds, rng, network=network)
    client = make(server, ROWS, rng)
    client.start()
    world.run(HEALTHY_SECONDS)
    server.down = True
    world.run(HEALTHY_SECONDS + OUTAGE_SECONDS)
    server.down = False
    unit = job_seconds + network
    marks: list[float] = []
    for tenth in range(400):
        world.run(HEALTHY_SECONDS + OUTAGE_SECONDS + tenth / 10 * unit)
        world.now = HEALTHY_SECONDS + OUTAGE_SECONDS + tenth / 10 * unit
        marks.append(server.worked())
        if tenth >= 10 and marks[-1] - marks[-11] >= 0.9 * WORKERS * job_seconds:
            break
    return Outage(
        rows=client.lost,
        per_second=server.down_requests / OUTAGE_SECONDS,
        recovery=(len(marks) - 1) / 10,
    )
