"""
Whether one more job is to be fetched from whoever has many.

Fetching is worth while when the job could start, or would be next in line:
then a source of a million jobs has few in memory, and no worker waits for the
source. Jobs of a type that is held back must not hide the others behind them,
so they are put aside, a bounded number of them, for as long as some other type
could make use of a slot.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.lowlevel

from ._line import State

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ._line import Line

AHEAD = 4
"""
A source is fetched from while it has fewer than so many times `max_concurrency`
jobs that wait, for a slot or out a refusal. That bounds the memory that a long
`Retry-After`, or one busy job type among several, can take. Chosen.
"""

MOST_ASIDE = 4096
"""
While some type of a source could start a job and has none, so many jobs of
other types are put aside to find one. They are not encoded yet, so it is some
megabytes. Chosen.
"""

MAX_LINES = 1024
"""So many job types a source, or a scheduler, remembers. Chosen: ten times as many as there are."""


_IN_LINE = [int(state in {State.NEW, State.QUEUED}) for state in State]
"""Whether a job counts for its line, by its ticket's state."""


class Desk(Protocol):
    """
    A scheduler, as far as its sources are concerned.

    Attributes:
        closed: Nothing starts any more.
        most_ahead: How many jobs a source may have that wait.
    """

    closed: bool
    most_ahead: int

    def line(self, job_type: str, credential: Hashable = None) -> Line[Any] | None:
        """Return what is known of a type, if anything is."""

    def is_open(self, line: Line[Any]) -> bool:
        """Return whether the server takes jobs of a line."""

    def leave(self, source: Source) -> None:
        """Forget a source."""


class Source:
    """
    One who fetches jobs, from `Scheduler.source`, and what it has fetched.

    Fetch one job when it `wants_more`; `put_aside` one whose type has one in
    line already, to be `taken_up` in its turn. For any other take a
    `Scheduler.ticket` with this source, ask for its slot, come back.

    What others have queued does not count: the job is fetched, and stands in
    line behind theirs. So sources take turns, and a type that is held back
    does not stop a source of another.

    Attributes:
        window: How many of its jobs may be under way, or done and not read
            yet; those that only wait are not counted.
        taken: How many were fetched and not read yet, for whoever has a
            `window` to keep count.
        left: How many are still to be fetched; infinity for nobody knows.
        ended: Nothing is left to fetch; what was put aside is still wanted.
        stopped: No more is wanted, ever.
        on_stop: Called when it is stopped.
    """

    __slots__ = (
        "_aside", "_desk", "_lines", "_several", "_waiting", "aside", "counts", "credential",
        "ended", "left", "on_stop", "stopped", "taken", "window",
    )  # fmt: skip

    def __init__(self, desk: Desk, credential: Hashable = None) -> None:
        self._desk = desk
        self.credential = credential
        self.counts = [0] * len(State)
        self._lines: dict[Line[Any], int] = {}  # new or queued, by line
        self._several = False
        self._aside: dict[Line[Any], deque[object]] = {}
        self.aside = 0
        self.window = inf
        self.taken = 0
        self.left = inf
        self.ended = False
        self.stopped = False
        self.on_stop: Callable[[], None] | None = None
        self._waiting: deque[anyio.Event] = deque()

    def __repr__(self) -> str:
        return f"<Source {self.taken} taken, {self.waits()} of them wait, {self.aside} aside>"

    def wants_more(self) -> bool:
        """
        Return whether to `take_up` a job, or fetch one: it could start, or is next in line.

        Raises:
            RuntimeError: The client was closed.
        """
        if self.stopped:
            return False  # closed or not: whoever drains a client closes it then
        self._check_not_closed()
        return not self._waiting and self._is_open()

    async def until_wanted(self) -> bool:
        """
        Wait until one more job is worth having; False when no more will be, ever.

        Raises:
            RuntimeError: The client was closed.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        if not self.wants_more() and not self.stopped:
            opened = anyio.Event()
            self._waiting.append(opened)
            try:
                await opened.wait()
            finally:
                if not opened.is_set():
                    self._waiting.remove(opened)
                # It may be open for more than one; and if this one was cancelled, for the next.
                self.tell()
            if not self.stopped:
                self._check_not_closed()
        return not self.stopped

    def put_aside(self, job_type: str, job: object) -> bool:
        """Keep a job for later if its type has one in line already; returns whether it does."""
        line = self._desk.line(job_type, self.credential)
        if line is None or not self._lines.get(line):
            return False
        self._aside.setdefault(line, deque()).append(job)
        self.aside += 1
        return True

    def take_up(self) -> Any:
        """Return a job that was put aside and is next in line now, or ``None``."""
        line = self._next_aside()
        if line is None:
            return None
        jobs = self._aside[line]
        job = jobs.popleft()
        if not jobs:
            del self._aside[line]
        self.aside -= 1
        return job

    def stop(self) -> None:
        """Want no more, for good; what was fetched goes on, but not what was put aside."""
        self.stopped = True
        self.wake_all()
        if self.on_stop is not None:
            self.on_stop()

    def close(self) -> None:
        """Leave the scheduler, which then stops it no more."""
        self._desk.leave(self)

    def waits(self) -> int:
        """Return how many have a ticket and wait, for a slot or out a refusal."""
        counts = self.counts
        return counts[State.NEW] + counts[State.QUEUED] + counts[State.WAITING]

    def tell(self) -> None:
        """Wake one who waits, if a job is wanted."""
        if self._waiting and self._is_open():
            self._waiting.popleft().set()

    def _is_open(self) -> bool:
        counts = self.counts
        waits = self.waits()
        if self.stopped or counts[State.NEW]:
            return False  # nobody knows yet whether the one that was fetched last can start
        if self.taken - self.aside - waits >= self.window:
            return False
        if self._next_aside() is not None:
            return True
        if self.ended:
            return False
        if not counts[State.QUEUED]:
            return waits < self._desk.most_ahead
        # A type that is shut must not hide those that are not; a single one hides nothing.
        if not self._several:
            return False
        idle = [count == 0 for line, count in self._lines.items() if self._desk.is_open(line)]
        most = max(MOST_ASIDE, self._desk.most_ahead) if any(idle) else self._desk.most_ahead
        return bool(idle) and waits + self.aside < most

    def _next_aside(self) -> Line[Any] | None:
        if self.aside:
            for line in self._aside:
                if not self._lines.get(line):
                    return line
        return None

    def _check_not_closed(self) -> None:
        # One that was stopped before, as `drain` does, is over in good order.
        if self._desk.closed and not self.stopped:
            raise RuntimeError("this client is closed; make a new one")

    # What the scheduler calls.

    def wake_all(self) -> None:
        """Let all who wait look again."""
        while self._waiting:
            self._waiting.popleft().set()

    def moved(self, line: Line[Any], before: State | None, state: State) -> None:
        """Note that a ticket came, or went from one state to another."""
        change = _IN_LINE[state]
        if before is not None:
            change -= _IN_LINE[before]
            self.counts[before] -= 1
        self.counts[state] += 1
        if change:
            self._lines[line] = self._lines.get(line, 0) + change
            if len(self._lines) > 1:
                self._several = True
                if len(self._lines) > MAX_LINES:
                    self._lines = {each: count for each, count in self._lines.items() if count}
        if self._waiting:
            self.tell()
