"""Where a run stands: what its workers, its ends and its watch all look at."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio

from ._decide import NANO, Outage, Purse
from ._going import Counts
from ._record import wall
from ._values import dollars_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._going import Going, Options
    from ._opening import Opened
    from ._outputs import Savers
    from ._trade import Flight, Trade
    from ._values import BatchProgress


class Standing:
    """
    Where a run stands.

    Args:
        opened: The folder.
        trade: The API.
        savers: The threads that make outputs safe.
        options: What the user wants.
        show: Is told of the progress.

    Attributes:
        purse: What was spent, and what may be.
        outage: Whether the API is down.
        ready: Rows to be taken up.
        delayed: Rows that are to be taken up later.
        under_way: Rows that were taken from the input and have not ended, by key.
        arrivals: What has come from the server, and is not in the record yet.
        in_flight: Rows that are being run, or made safe.
        doubts: A line for each job in doubt, by the number of its row.
        stopped: Why no more rows are taken up.
        broken: Why nothing can be written any more.
        total: How many rows there are, where that is known.
        began: When the run began.
        group: What all of the run's tasks are in.
    """

    def __init__(
        self,
        opened: Opened,
        trade: Trade,
        savers: Savers,
        options: Options,
        show: Callable[[BatchProgress], None] | None,
    ) -> None:
        self.opened = opened
        self.record = opened.record
        self.marks = opened.marks
        self.arrivals = opened.arrivals
        self.trade = trade
        self.savers = savers
        self.options = options
        self.show = show
        self.purse = Purse(options.max_cost, told=opened.told, doubtful=opened.doubtful)
        for name, price in opened.prices.items():
            self.purse.seen(name, price)
        self.outage = Outage()
        self.counts = Counts(notes=list(opened.notes))
        self.ready: deque[Going] = deque()
        self.delayed: list[Going] = []
        self.under_way: dict[bytes, Going] = {}
        self.in_flight: set[Going] = set()
        self.doubts: dict[int, str] = {}
        self.total: int | None = None
        self.began = 0.0
        self.clock = anyio.current_time
        self.group: Any = None
        self.stopped: str | None = None
        self.broken: str | None = None
        self._change: anyio.Event | None = None

    def stop(self, why: str) -> None:
        """Take up no more rows; finish those that are with the server."""
        if self.stopped is None:
            self.stopped = why
        self.call_back()
        self.changed()

    def is_called_back(self, row: Going) -> bool:
        """Return whether nothing more of a row is to be sent: the run ends, or the API is down."""
        is_paused = self.outage.since is not None and not row.is_probe
        return row.job_id is None and (self.stopped is not None or is_paused)

    def call_back(self) -> None:
        """Take back what was given to the client and is not with the server just now."""
        for row in list(self.in_flight):
            if self.is_called_back(row) and row.scope is not None and _is_idle(row.flight):
                row.scope.cancel()

    def stop_now(self, why: str) -> None:
        """Leave everything as it is; what was sent is in doubt, what has an id is collected."""
        self.stopped = why
        if self.group is not None:
            self.group.cancel_scope.cancel()

    def learn(self, job_type: str, price: int) -> None:
        """Learn what a job cost as soon as it is told: what is in flight may cost no less."""
        known = self.purse.known(job_type)
        self.purse.seen(job_type, price)
        if known is not None and price <= known:
            return
        for row in self.in_flight:
            # What a doubt was counted at, it stays counted at.
            if row.type == job_type and row.expected < price and not row.again:
                self.purse.in_flight += price - row.expected
                row.expected = price

    def has_ended(self, row: Going) -> None:
        """Count a row as being with the server no more, nor on its way to be safe."""
        self.purse.ended(row.expected)
        self.in_flight.discard(row)
        self.changed()

    def doubt(self, i: int, id_: str | None, job_type: str, cost: int) -> None:
        """Note that a job is in doubt, and what it may have cost, in units of 10^-9 dollars."""
        self.doubts[i] = doubt_line(i, id_, job_type, cost)

    def now(self) -> int:
        """Return milliseconds since the record began, by the wall clock."""
        return round(1000 * (wall() - self.opened.epoch))

    def changed(self) -> None:
        """Wake whoever waits for a change."""
        if self._change is not None:
            self._change.set()
            self._change = None

    async def change(self, seconds: float) -> None:
        """Wait for the next change, but no longer than so many seconds."""
        change = self._change = self._change or anyio.Event()
        if seconds == math.inf:
            await change.wait()
            return
        with anyio.move_on_after(seconds):
            await change.wait()


def doubt_line(i: int, id_: str | None, job_type: str, cost: int) -> str:
    """Say of a job that it is in doubt."""
    known = f" ({id_})" if id_ else ""
    price = dollars_text(cost / NANO) if cost else "an unknown price"
    return f"row {i}{known}: {job_type}, at most {price}"


def _is_idle(flight: Flight | None) -> bool:
    return flight is not None and flight.stage in {"queued", "waiting"}
