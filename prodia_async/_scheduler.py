"""
Who may start now: the bound, the queue, what was learned of the server, and the counts.

The server has K workers and no queue: a job sent while all are busy is refused
at once (429, `Retry-After`). K is unknown, differs by job type, is shared with
strangers and changes. What is known:

* A refusal says that as many jobs as we have in flight *are* being served, so
  that number becomes the limit. Refusals of one burst lower the limit one by
  one to the same number, so a burst is one cut however many belong to it.
* A completion says that a worker has become idle. The next job starts at that
  moment (the *self-clock*): no worker waits for a timer, no timer is guessed.
* Silence says something too. A refusal comes at once, so jobs that were not
  refused within a few round trips are being served. While the limit is what
  holds jobs back, each such silence confirms it and lets it rise: at first by
  doubling, after a refusal again from a *probe* of one job, by 1, 2, 4 and so
  on while nothing is refused. A probe is due once per job time, seldom enough
  to cost few refusals.
* A refusal without a probe under way says that a *stranger* took the worker.
  Whoever has many jobs in flight then leaves a worker idle for a moment now
  and then, in proportion to what it has, and all probe equally often (less
  often while the latest `Retry-After` lasts). What is given up grows with the
  share and what is found does not, so shares become equal.

A refused job waits out its own `Retry-After`, gives its place to others
meanwhile, and is then first in line. With nothing of a type in flight there
is no clock but the server's: nobody starts before `Retry-After` has passed.

The decisions are plain methods on plain state (`_Limit` learns, `Scheduler`
deals out, `Ticket.request` asks); only `Ticket.start` and `Scheduler.room`
wait. No task runs in the background: when a time has to be kept, one of the
waiting tickets keeps it, and hands that on when it leaves.

One scheduler serves one event loop at a time, and any number of loops one
after the other.
"""

from __future__ import annotations

import heapq
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from . import _waiting
from ._errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INITIAL_LIMIT = 4
"""Jobs of an unknown type that may start at once. Chosen."""

FIRST_SILENCE = 0.15
"""Seconds without a refusal that confirm a limit before any refusal was timed. Chosen."""

SILENCE_ROUND_TRIPS = 2.0
SILENCE_MIN = 0.05
"""A limit is confirmed after so many times a refusal's round trip, and at least so long. Chosen."""

PROBE_JOB_TIMES = 3
PROBE_JOBS = 10
"""
A probe is due after `limit` completions, which is one job time; while that is
fewer than `PROBE_JOBS`, after that many or `PROBE_JOB_TIMES`, whichever is
sooner. Chosen by simulation (`benchmarks/scheduling.py`).
"""

GAP_EVERY = 5
GAP_JOB_TIMES = 0.1
GAP_MEMORY = 50
"""
Among strangers one completion in so many leaves its worker idle for that part
of a job time; strangers are remembered for so many job times. Chosen by
simulation: costs one per cent of goodput while there are any, otherwise nothing.
"""

ROOM_FOR_WAITING = 4
"""
`Scheduler.room` closes while a source has so many times `max_concurrency` jobs
that wait, for a slot or out a refusal. That bounds the memory that a long
`Retry-After`, or one busy job type among several, can take. Chosen.
"""


class _Limit:
    """
    What is known of the server's capacity for one job type. Pure: the clock is passed in.

    Attributes:
        limit: How many jobs may be in flight.
    """

    __slots__ = (
        "_asked_until",
        "_base",
        "_confirmed_at",
        "_credit",
        "_gap_credit",
        "_gap_from",
        "_gap_until",
        "_held_from",
        "_held_until",
        "_job_seconds",
        "_max",
        "_refused_at",
        "_round_trip",
        "_step",
        "_strangers",
        "limit",
    )

    def __init__(self, max_concurrency: int) -> None:
        self._max = max_concurrency
        self._base = 0  # known to be served
        self._step = min(INITIAL_LIMIT, max_concurrency)  # hoped for, beyond that
        self.limit = self._step
        self._confirmed_at = inf  # when silence will have confirmed `limit`
        self._credit = 0  # completions since `limit` last changed
        self._round_trip = FIRST_SILENCE / SILENCE_ROUND_TRIPS
        self._refused_at = self._asked_until = -inf
        self._held_from = self._held_until = 0.0
        self._job_seconds = 0.0
        self._strangers = 0  # completions for which they are remembered
        self._gap_credit = 0
        self._gap_from = self._gap_until = 0.0

    def may_start(self, in_flight: int, now: float) -> bool:
        """Whether one more job may start, with `in_flight` under way; a confirmed limit rises."""
        if in_flight >= self.limit:
            if now < self._confirmed_at or self.limit >= self._max:
                return False
            self._raise(min(self._step * 2, self.limit))
        if in_flight == self.limit - 1 and self._gap_from <= now < self._gap_until:
            return False
        return in_flight > 0 or not self._held(now)

    def next_change(self, in_flight: int, now: float) -> float:
        """When `may_start` may turn true with no event in between; infinity if never."""
        if in_flight >= self.limit:
            return self._confirmed_at if self.limit < self._max else inf
        if in_flight == 0 and self._held(now):
            return self._held_until
        return self._gap_until

    def started(self, in_flight: int, now: float) -> None:
        """Note a start; `in_flight` counts it."""
        if in_flight == 1:
            self._confirmed_at = inf  # whatever was before does not speak for this one
        if self._step and in_flight >= self.limit and self._confirmed_at == inf:
            self._confirmed_at = now + max(SILENCE_MIN, SILENCE_ROUND_TRIPS * self._round_trip)

    def served(self, now: float, seconds: float, *, held_back: bool, may_probe: bool) -> None:
        """
        Note a completion, before its job is taken from those in flight.

        Args:
            now: The clock.
            seconds: How long the attempt took.
            held_back: Jobs are queued behind a full limit.
            may_probe: A refusal more would do no harm.
        """
        self._held_until = 0.0  # a worker is idle: what the server asked for is out of date
        self._job_seconds += (seconds - self._job_seconds) * (0.1 if self._job_seconds else 1.0)
        if not held_back:
            return
        if self._strangers:
            self._strangers -= 1
            self._gap_credit += 1
            if self._gap_credit >= GAP_EVERY:
                self._gap_credit = 0
                self._gap_from, self._gap_until = now, now + GAP_JOB_TIMES * self._job_seconds
        self._credit += 1
        if self.limit >= self._max:
            return
        if self._step:
            # Jobs shorter than the silence confirm the limit themselves.
            if self._credit >= self.limit:
                self._raise(min(self._step * 2, self.limit))
        elif may_probe and self._credit >= self._probe_due(now):
            self._raise(1)

    def refused(self, in_flight: int, now: float, wait: float, round_trip: float) -> None:
        """Note a refusal; `in_flight` no longer counts the refused job."""
        self._asked_until = until = now + wait
        self._held_until = max(self._held_until, until) if self._held(now) else until
        self._held_from = now
        self._round_trip = max(round_trip, 0.75 * self._round_trip + 0.25 * round_trip)
        # Without a probe under way, our own jobs cannot have taken the worker: a
        # stranger did. Nor if nothing of ours is there. (A job sent before the last
        # refusal belongs to the same burst as that one, and tells nothing new.)
        first_of_burst = now - round_trip >= self._refused_at
        if in_flight == 0 or (self._step == 0 and in_flight < self._base and first_of_burst):
            self._strangers = GAP_MEMORY * max(1, self._base)
        self._refused_at = now
        self._base = min(self.limit, in_flight)
        self._step = 0 if self._base else 1
        self.limit = self._base + self._step
        self._confirmed_at = inf
        self._credit = 0

    def _probe_due(self, now: float) -> int:
        """After how many completions a probe is due."""
        if self._strangers and not self._refused_at <= now < self._asked_until:
            # All probe equally often, whatever they have: that makes shares equal. While
            # the latest Retry-After lasts they do not: that keeps the crowd quiet.
            return self._base
        return max(self._base, min(PROBE_JOB_TIMES * self._base, PROBE_JOBS))

    def _raise(self, step: int) -> None:
        self._base = self.limit
        self._step = step
        self.limit = min(self._base + step, self._max)
        self._confirmed_at = inf
        self._credit = 0

    def _held(self, now: float) -> bool:
        # A time before `_held_from` is another loop's clock: trio's starts anywhere.
        return self._held_from <= now < self._held_until


class _FixedLimit(_Limit):
    """``adaptive=False``: the limit is the bound, and a refusal holds back its own job only."""

    __slots__ = ()

    def __init__(self, max_concurrency: int) -> None:
        super().__init__(max_concurrency)
        self.limit = max_concurrency

    def started(self, in_flight: int, now: float) -> None:
        """Learn nothing."""

    def served(self, now: float, seconds: float, *, held_back: bool, may_probe: bool) -> None:
        """Learn nothing."""

    def refused(self, in_flight: int, now: float, wait: float, round_trip: float) -> None:
        """Learn nothing."""


class _Kind:
    """One job type: its limit, its queue, its jobs in flight."""

    __slots__ = (
        "dead",
        "fresh",
        "in_flight",
        "keeper",
        "limit",
        "queued",
        "returned",
        "waiting",
    )

    def __init__(self, limit: _Limit) -> None:
        self.limit = limit
        self.in_flight = 0
        self.queued = 0
        self.waiting = 0
        # Tickets that left the queue stay in these until they are met or outnumber the rest.
        self.fresh: deque[Ticket] = deque()  # by age
        self.returned: list[tuple[bool, int, Ticket]] = []  # heap: refused ones first, by age
        self.dead = 0
        self.keeper: Ticket | None = None  # the queued ticket that watches the clock

    def push(self, ticket: Ticket) -> None:
        self.queued += 1
        if ticket.was_refused or (self.fresh and self.fresh[-1].age > ticket.age):
            heapq.heappush(self.returned, (not ticket.was_refused, ticket.age, ticket))
        else:
            self.fresh.append(ticket)

    def pop(self) -> Ticket:
        """Take the first in line; call only with somebody queued."""
        fresh, returned = self.fresh, self.returned
        while True:
            while fresh and fresh[0].state is not _State.QUEUED:
                fresh.popleft()
                self.dead -= 1
            if returned and (not returned[0][0] or not fresh or returned[0][1] < fresh[0].age):
                ticket = heapq.heappop(returned)[2]
                if ticket.state is not _State.QUEUED:
                    self.dead -= 1
                    continue
            else:
                ticket = fresh.popleft()
            self.queued -= 1
            return ticket

    def last(self) -> Ticket:
        """Return one that is likely to be queued for long; call only with somebody queued."""
        while self.fresh:
            if self.fresh[-1].state is _State.QUEUED:
                return self.fresh[-1]
            self.fresh.pop()
            self.dead -= 1
        while self.returned[-1][2].state is not _State.QUEUED:
            self.returned.pop()  # a heap stays one without its last leaf
            self.dead -= 1
        return self.returned[-1][2]

    def forget(self) -> None:
        """Note that a queued ticket left, and sweep when those outnumber the rest."""
        self.queued -= 1
        self.dead += 1
        if self.dead > 64 and self.dead > self.queued:
            self.fresh = deque(t for t in self.fresh if t.state is _State.QUEUED)
            self.returned = [e for e in self.returned if e[2].state is _State.QUEUED]
            heapq.heapify(self.returned)
            self.dead = 0


_IN_FLIGHT = attrgetter("in_flight")


class _Source:
    """
    One who fetches jobs, and what it has fetched that has not started yet.

    Attributes:
        scheduler: Whose tickets are counted; ``None`` until it first asks for room.
        kinds: The types of all it has fetched.
        new: Tickets that have not asked yet.
        queued: Tickets that wait for a slot.
        waiting: Tickets that wait out a refusal.
        rooms: Who waits in `Scheduler.room`.
    """

    __slots__ = ("kinds", "new", "queued", "rooms", "scheduler", "waiting")

    def __init__(self) -> None:
        self.scheduler: Scheduler | None = None
        self.kinds: set[_Kind] = set()
        self.new = self.queued = self.waiting = 0
        self.rooms: deque[anyio.Event] = deque()


_SOURCE: ContextVar[_Source | None] = ContextVar("_SOURCE", default=None)


def become_source() -> None:
    """
    Make the present task a source of its own, with the tasks that it starts from now on.

    Only the tickets they take count when they ask for `Scheduler.room`.
    Elsewhere all tickets that no such source took count together.
    """
    _SOURCE.set(_Source())


class _State(IntEnum):
    NEW = 0  # has not asked yet
    IDLE = 1  # between two attempts
    WAITING = 2  # out a refusal
    QUEUED = 3
    IN_FLIGHT = 4
    CLOSED = 5


_MAY_ASK = frozenset({_State.NEW, _State.IDLE, _State.WAITING})


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
        failed: Jobs that ended otherwise.
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
    seconds_queued: float
    dollars: float


class Ticket:
    """
    One job's place in line, from `Scheduler.ticket`; it never waits unless in `start`.

    The life of one job, with as many attempts as it takes::

        ticket = scheduler.ticket(job.type)
        try:
            await ticket.start()
            ...                              # one attempt
            ticket.refused(wait)             # 429: start() again
            ticket.released(served=False)    # a failure: start() again, or give up
            ticket.released(served=True)     # done
        finally:
            ticket.close()

    `request`, `proceed` and `alarm` are `start` without its waiting, for a
    caller with a clock of its own.

    Attributes:
        alarm: Clock time at which `proceed` has to be called at the latest;
            infinity: not before `wake` was called.
        seconds_queued: Seconds this job waited for a slot, without the time
            it waited out refusals.
    """

    __slots__ = (
        "age",
        "alarm",
        "attempts",
        "kind",
        "scheduler",
        "seconds_queued",
        "since",
        "source",
        "state",
        "wake",
        "was_refused",
    )

    def __init__(self, scheduler: Scheduler, kind: _Kind, source: _Source, age: int) -> None:
        self.scheduler = scheduler
        self.kind = kind
        self.source = source
        self.age = age
        self.state = _State.NEW
        self.attempts = 0
        self.was_refused = False
        self.since = 0.0  # when the present state was entered
        self.wake: Callable[[], None] | None = None
        self.alarm = inf
        self.seconds_queued = 0.0

    def __repr__(self) -> str:
        return f"<Ticket {self.age}: {self.state.name.lower()}, attempt {self.attempts}>"

    async def start(self) -> None:
        """
        Wait until this job may be sent; from then on it holds a slot.

        Raises whatever cancelled it, and then holds nothing: a slot that was
        handed over in that very moment has gone to the next in line.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        granted = self.request()
        try:
            while not granted:
                changed = anyio.Event()
                self.wake = changed.set
                if self.alarm == inf:
                    await changed.wait()
                else:
                    await _waiting.wait_for(changed, self.alarm - self.scheduler.clock())
                granted = self.proceed()
        except BaseException:
            if self.state is not _State.WAITING:  # that lasts until it is over, or closed
                self.scheduler.withdraw(self, _State.IDLE)
            raise
        finally:
            self.wake = None

    def request(self, wake: Callable[[], None] | None = None) -> bool:
        """
        Ask for a slot without waiting for it.

        Args:
            wake: Called, from within some other ticket's method, when it is
                time to call `proceed`. It must not call into the scheduler.

        Returns:
            Whether this job holds a slot now.

        Raises:
            RuntimeError: The ticket is closed, or has already asked.
        """
        if self.state not in _MAY_ASK:
            raise RuntimeError(f"a ticket must be idle to start, not {self.state.name.lower()}")
        self.wake = None
        if self.state is _State.WAITING:
            self.scheduler.look(self)
        else:
            self.scheduler.enqueue(self)
        self.wake = wake
        return self.holds_slot()

    def proceed(self) -> bool:
        """Look again after `wake` or at `alarm`; returns whether this job holds a slot now."""
        self.scheduler.look(self)
        return self.holds_slot()

    def holds_slot(self) -> bool:
        """Whether this job may be, or is, with the server."""
        return self.state is _State.IN_FLIGHT

    def refused(self, wait: float) -> None:
        """
        Give the slot back: the server had no idle worker.

        Args:
            wait: Seconds before which this job does not start again, jitter
                included. When they have passed it is first in line.
        """
        self._must_be_in_flight()
        self.scheduler.refuse(self, wait)

    def released(self, *, served: bool) -> None:
        """
        Give the slot back: the attempt ended, and not by a 429.

        Args:
            served: A worker ran the job and is idle again: any complete or
                damaged 200, and a job that ended "failed". False where nothing
                was learned of the workers: no connection, a silence, a 4xx,
                a 5xx, an attempt that was given up.
        """
        self._must_be_in_flight()
        self.scheduler.release(self, _State.IDLE, served=served)

    def close(self) -> None:
        """Leave in whatever state; for a ``finally``. Calling it again does nothing."""
        self.scheduler.withdraw(self, _State.CLOSED)

    def _must_be_in_flight(self) -> None:
        if self.state is not _State.IN_FLIGHT:
            raise RuntimeError(f"a ticket must be in flight, not {self.state.name.lower()}")


class Scheduler:
    """
    Decides who may start now.

    Args:
        max_concurrency: The most jobs in flight, of all types together.
        adaptive: Learn the server's capacity per job type below that bound.
            False: the bound alone counts, and each refused job waits out its
            own `Retry-After`.
        clock: Seconds that never go back while a loop runs.

    Raises:
        InvalidRequestError: `max_concurrency` is not an integer of at least 1.
    """

    def __init__(
        self,
        *,
        max_concurrency: int = 64,
        adaptive: bool = True,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        if type(max_concurrency) is not int or max_concurrency < 1:
            raise InvalidRequestError(
                f"max_concurrency must be an integer of at least 1, not {max_concurrency!r}"
            )
        self._max = max_concurrency
        self._new_limit = _Limit if adaptive else _FixedLimit
        self.clock = clock
        self._kinds: dict[str, _Kind] = {}
        self._age = 0
        # Types that only `max_concurrency` holds back, the one that has waited longest first.
        self._ready: dict[_Kind, None] = {}
        self._others = _Source()  # all who are no source of their own
        self._in_flight = self._queued = self._waiting = 0
        self._started = self._retries = self._refusals = 0
        self._completed = self._failed = 0
        self._seconds_queued = self._dollars = 0.0

    def __repr__(self) -> str:
        limits = ", ".join(f"{name}: {kind.limit.limit}" for name, kind in self._kinds.items())
        return (
            f"<Scheduler {self._in_flight} of {self._max} in flight, {self._queued} queued, "
            f"{self._waiting} waiting, limits {{{limits}}}>"
        )

    def ticket(self, kind: str) -> Ticket:
        """Give a job of type `kind` its place in line, behind all that came before it."""
        state = self._kinds.get(kind)
        if state is None:
            state = self._kinds[kind] = _Kind(self._new_limit(self._max))
        self._age += 1
        source = self._source()
        source.new += 1
        source.kinds.add(state)
        return Ticket(self, state, source, self._age)

    def record(self, *, completed: bool, dollars: float = 0.0) -> None:
        """Count a job that has come to its end."""
        if completed:
            self._completed += 1
        else:
            self._failed += 1
        self._dollars += dollars

    def statistics(self) -> SchedulerStatistics:
        """Return the counts and what was learned, as of now."""
        return SchedulerStatistics(
            in_flight=self._in_flight,
            queued=self._queued,
            waiting=self._waiting,
            max_concurrency=self._max,
            limits=MappingProxyType({n: k.limit.limit for n, k in self._kinds.items()}),
            started=self._started,
            retries=self._retries,
            refusals=self._refusals,
            completed=self._completed,
            failed=self._failed,
            seconds_queued=self._seconds_queued,
            dollars=self._dollars,
        )

    async def room(self) -> None:
        """
        Wait until one more job is worth having: it could start, or is next in line.

        Holds nothing: fetch one job, take a `ticket` for it, ask for its slot,
        come back. That way a source of a million jobs has, beyond those in
        flight, one queued and a bounded number waiting out a refusal, and no
        worker waits for the source. With several job types it has as many
        queued as `ROOM_FOR_WAITING` allows, since those of a type that is held
        back must not hide the others behind them.

        What others have queued does not count: the job is fetched, and stands
        in line behind theirs. So sources take turns, and a type that is held
        back does not stop a source of another; see `become_source`.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        source = self._source()
        if self._has_room(source):
            return
        opened = anyio.Event()
        source.rooms.append(opened)
        try:
            await opened.wait()
        finally:
            if not opened.is_set():
                source.rooms.remove(opened)
            # It may be open for more than one; and if this one was cancelled, for the next.
            self._open_rooms(source)

    def has_room(self) -> bool:
        """Return whether `room` would return at once."""
        return self._has_room(self._source())

    def _source(self) -> _Source:
        source = _SOURCE.get()
        if source is None:
            return self._others
        if source.scheduler is None:
            source.scheduler = self
        # A job that makes use of another client is not that one's source.
        return source if source.scheduler is self else self._others

    def _has_room(self, source: _Source) -> bool:
        return not source.rooms and self._is_open(source)

    def _is_open(self, source: _Source) -> bool:
        if source.new or source.queued + source.waiting >= ROOM_FOR_WAITING * self._max:
            return False  # nobody knows yet whether the one that was fetched last can start
        return source.queued == 0 or len(source.kinds) > 1

    def _open_rooms(self, source: _Source) -> None:
        if source.rooms and self._is_open(source):
            source.rooms.popleft().set()

    # What tickets call.

    def enqueue(self, ticket: Ticket) -> None:
        """Queue a ticket that has not asked yet, or asks again; it may start at once."""
        now = self.clock()
        kind = ticket.kind
        if ticket.state is _State.NEW:
            ticket.source.new -= 1
        if (
            kind.queued == 0
            and self._in_flight < self._max
            and kind.limit.may_start(kind.in_flight, now)
        ):
            self._start(ticket, kind, now)  # the same as below, without the detour
        else:
            self._queue(ticket, now)
            self._deal(kind, now)
        self._open_rooms(ticket.source)

    def look(self, ticket: Ticket) -> None:
        """Do what the time that has passed allows."""
        now = self.clock()
        if ticket.state is _State.WAITING and now >= ticket.alarm:
            self._stop_waiting(ticket)
            self._queue(ticket, now)
        if ticket.state is _State.QUEUED:
            kind = ticket.kind
            if kind.keeper is ticket and now >= ticket.alarm:
                kind.keeper = None
                ticket.alarm = inf
            self._deal(kind, now)

    def _queue(self, ticket: Ticket, now: float) -> None:
        ticket.state = _State.QUEUED
        ticket.since = now
        ticket.alarm = inf
        self._queued += 1
        ticket.source.queued += 1
        ticket.kind.push(ticket)

    def _stop_waiting(self, ticket: Ticket) -> None:
        self._waiting -= 1
        ticket.source.waiting -= 1
        ticket.kind.waiting -= 1

    def refuse(self, ticket: Ticket, wait: float) -> None:
        """Take a slot back after a 429."""
        now = self.clock()
        kind = ticket.kind
        self._in_flight -= 1
        self._waiting += 1
        ticket.source.waiting += 1
        kind.waiting += 1
        self._refusals += 1
        kind.in_flight -= 1
        kind.limit.refused(kind.in_flight, now, wait, now - ticket.since)
        ticket.state = _State.WAITING
        ticket.was_refused = True
        ticket.alarm = now + wait
        self._deal(kind, now)

    def release(self, ticket: Ticket, state: _State, *, served: bool) -> None:
        """Take a slot back after anything else."""
        now = self.clock()
        kind = ticket.kind
        if served:
            kind.limit.served(
                now,
                now - ticket.since,
                held_back=kind.queued > 0 and kind.in_flight >= kind.limit.limit,
                may_probe=kind.waiting < self._max,
            )
        self._in_flight -= 1
        kind.in_flight -= 1
        ticket.state = state
        self._deal(kind, now)

    def withdraw(self, ticket: Ticket, state: _State) -> None:
        """Take back whatever a ticket holds; it goes on in `state`."""
        before = ticket.state
        if before is _State.CLOSED:
            return
        if before is _State.IN_FLIGHT:
            self.release(ticket, state, served=False)
            return
        ticket.state = state
        ticket.alarm = inf
        if before is _State.NEW:
            ticket.source.new -= 1
        elif before is _State.WAITING:
            self._stop_waiting(ticket)
        elif before is _State.QUEUED:
            now = self.clock()
            self._leave_queue(ticket, now)
            kind = ticket.kind
            kind.forget()
            self._deal(kind, now)
        self._open_rooms(ticket.source)

    # Dealing out.

    def _leave_queue(self, ticket: Ticket, now: float) -> None:
        self._queued -= 1
        source = ticket.source
        source.queued -= 1
        self._open_rooms(source)
        waited = max(0.0, now - ticket.since)
        ticket.seconds_queued += waited
        self._seconds_queued += waited
        if ticket.kind.keeper is ticket:
            ticket.kind.keeper = None
        ticket.alarm = inf

    def _deal(self, kind: _Kind, now: float) -> None:
        """Hand out what may start after something changed for `kind`."""
        self._offer(kind, now)
        while self._ready and self._in_flight < self._max:
            # The type with the fewest in flight, so that none starves another.
            kind = min(self._ready, key=_IN_FLIGHT)
            ticket = kind.pop()
            self._leave_queue(ticket, now)
            self._start(ticket, kind, now)
            del self._ready[kind]
            self._offer(kind, now)

    def _offer(self, kind: _Kind, now: float) -> None:
        """Note whether one of `kind` may start as far as its own limit goes."""
        if kind.queued and kind.limit.may_start(kind.in_flight, now):
            self._ready[kind] = None
            return
        self._ready.pop(kind, None)
        if kind.queued:
            self._set_alarm(kind, kind.limit.next_change(kind.in_flight, now))

    def _start(self, ticket: Ticket, kind: _Kind, now: float) -> None:
        ticket.state = _State.IN_FLIGHT
        ticket.since = now
        ticket.attempts += 1
        self._started += 1
        self._retries += ticket.attempts > 1
        self._in_flight += 1
        kind.in_flight += 1
        kind.limit.started(kind.in_flight, now)
        if ticket.wake is not None:
            ticket.wake()

    def _set_alarm(self, kind: _Kind, when: float) -> None:
        """Have one of the queued tickets look at the clock at `when`."""
        keeper = kind.keeper
        if when == inf or (keeper is not None and keeper.alarm <= when):
            return  # a keeper that wakes too early looks, and is appointed again
        if keeper is None:
            keeper = kind.keeper = kind.last()
        keeper.alarm = when
        if keeper.wake is not None:
            keeper.wake()
