"""
Who may start now: the bound, the queue, and the counts.

How many jobs of a type the server takes is learned by its `Limit` (`_limit`,
with the theory); whether it takes any at all by two gates, one for the type
and one for everything (`_admission`). This module deals out what they allow.

A refused job waits out its own `Retry-After`, gives its slot to others
meanwhile, and is then first in line. Else the oldest is first, and among types
the one with the fewest in flight, so that none starves another.

The decisions are plain methods on plain state (`Scheduler` deals out,
`Ticket.request` asks); only `Ticket.start`, and `Source.until_wanted`, wait. No
task runs in the background: when a time has to be kept, one of the waiting
tickets keeps it, and hands that on when it leaves. One method,
`Scheduler._move`, changes the state of a ticket, and every count with it.

One scheduler serves one event loop at a time, and any number of loops one
after the other.
"""

from __future__ import annotations

import random
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from . import _waiting
from ._admission import HOLD_LONG, HOLD_UNSAID, Gate, Held
from ._errors import ConnectError, InvalidRequestError, QueueFullError
from ._limit import SILENCE_MIN, Fixed, Limit
from ._line import Line, State
from ._show import shown
from ._source import AHEAD, MAX_LINES, Source
from ._statistics import SchedulerStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ._admission import Trouble
__all__ = ["Scheduler", "SchedulerStatistics", "Ticket"]


def _flying(line: Line[Ticket]) -> int:
    return line.counts[State.IN_FLIGHT]


class Ticket:
    """
    One job's place in line, from `Scheduler.ticket`; it never waits unless in `start`.

    The life of one job, with as many attempts as it takes::

        ticket = scheduler.ticket(job.type)
        try:
            await ticket.start()
            ...                                          # one attempt, then one of
            ticket.refused(wait, retry_after=seconds)    # 429: start() again
            ticket.troubled("fault", ...)                # 5xx: start() again, or give up
            ticket.released(served=False)                # else: start() again, or give up
            ticket.released(served=True)                 # done
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
        "age", "alarm", "attempts", "gives_up_at", "line", "max_queued", "patience", "probes",
        "scheduler", "seconds_queued", "since", "source", "state", "wake", "was_refused",
    )  # fmt: skip

    def __init__(
        self, scheduler: Scheduler, line: Line[Ticket], source: Source | None, age: int
    ) -> None:
        self.scheduler = scheduler
        self.line = line
        self.source = source
        self.age = age
        self.state = State.NEW
        self.attempts = 0
        self.was_refused = False
        self.since = 0.0  # when the present state was entered
        self.wake: Callable[[], None] | None = None
        self.alarm = inf
        self.seconds_queued = 0.0
        self.max_queued: int | None = None
        self.patience = self.gives_up_at = inf
        self.probes: tuple[Gate, ...] = ()  # which its attempt probes

    def __repr__(self) -> str:
        return f"<Ticket {self.age}: {self.state.name.lower()}, attempt {self.attempts}>"

    async def start(self, until: float = inf) -> bool:
        """
        Wait until this job may be sent; from then on it holds a slot.

        Args:
            until: Clock time up to which to wait for a server that takes no
                job of this type, or none at all. As many seconds are granted
                from when that begins, should it begin only while we wait.

        Returns:
            Whether it holds a slot. False: the server took none until then,
            and nothing is held.

        Raises:
            ConnectError: The client was closed; nothing was sent.
            QueueFullError: Too many wait already; nothing was sent.
            BaseException: Whatever cancelled it. It then holds nothing: a slot
                that was handed over in that very moment has gone to the next
                in line.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        if self.request():
            return True
        asked_at = self.scheduler.clock()
        self.patience = until - asked_at
        try:
            return await self._wait(asked_at)
        except BaseException:
            if self.state is not State.WAITING:  # that lasts until it is over, or closed
                self.scheduler.withdraw(self, State.IDLE)
            raise
        finally:
            self.wake = None
            self.scheduler.waiters.discard(self)

    async def _wait(self, asked_at: float) -> bool:
        scheduler = self.scheduler
        scheduler.waiters.add(self)
        granted = False
        while not granted:
            changed = anyio.Event()
            self.wake = changed.set
            now = scheduler.clock()
            self.gives_up_at = max(asked_at, scheduler.shut_since(self.line, now)) + self.patience
            when = min(self.alarm, self.gives_up_at)
            if when == inf:
                await changed.wait()
            else:
                await _waiting.wait_for(changed, when - now)
            scheduler.check_not_closed()
            granted = self.proceed()
            if not granted and scheduler.gives_up(self, asked_at):
                scheduler.withdraw(self, State.IDLE)
                return False
        return True

    def request(self, wake: Callable[[], None] | None = None) -> bool:
        """
        Ask for a slot without waiting for it.

        Args:
            wake: Called, from within some other ticket's method, when it is
                time to call `proceed`. It must not call into the scheduler.

        Returns:
            Whether this job holds a slot now.

        Raises:
            ConnectError: The client was closed; nothing was sent.
            QueueFullError: Too many wait already; nothing was sent.
            RuntimeError: The ticket is closed, or has already asked.
        """
        if self.state > State.WAITING:
            raise RuntimeError(f"a ticket must be idle to start, not {self.state.name.lower()}")
        self.scheduler.check_not_closed()
        self.wake = None
        if self.state is State.WAITING:
            self.scheduler.look(self)
        else:
            self.scheduler.enqueue(self)
        self.wake = wake
        return self.holds_slot()

    def proceed(self) -> bool:
        """Look again after `wake` or at `alarm`; returns whether this job holds a slot now."""
        self.scheduler.look(self)
        return self.holds_slot()

    def wake_up(self) -> None:
        """Call `wake`, if there is somebody to be woken."""
        if self.wake is not None:
            self.wake()

    def holds_slot(self) -> bool:
        """Return whether this job may be, or is, with the server."""
        return self.state is State.IN_FLIGHT

    def refused(self, wait: float | None, *, retry_after: float | None = None) -> None:
        """
        Give the slot back: the server had no idle worker.

        Args:
            wait: Seconds before which this job does not start again, jitter
                included; then it is first in line. ``None``: it gives up.
            retry_after: Seconds the server asked for, if it did. If that is
                long, or the job gives up on a server that serves nothing of
                its type, then nothing of this type is sent before.
        """
        self._must_be_in_flight()
        self.scheduler.refuse(self, wait, retry_after)

    def released(self, *, served: bool, answered: bool | None = None) -> None:
        """
        Give the slot back: the attempt ended, and neither by a 429 nor in trouble.

        Args:
            served: A worker ran the job and is idle again: any complete or
                damaged 200, and a job that ended "failed". False where nothing
                was learned of the workers: a 4xx, an attempt that was given up.
            answered: The server answered as it should, so that it is up;
                by default as `served`. True for a 4xx, False for an attempt
                that was cut off from outside.
        """
        self._must_be_in_flight()
        self.scheduler.release(self, served=served, answered=answered or served)

    def troubled(self, what: Trouble, *, budget_is_empty: bool = False) -> None:
        """
        Give the slot back: the server does not work, or not for us.

        Args:
            what: ``"fault"``: a 5xx, or an answer that broke off.
                ``"unreachable"``: nobody listens. ``"unauthorized"``: 401, 403.
            budget_is_empty: No retry is left; nothing of this type is sent
                until a probe has succeeded.
        """
        self._must_be_in_flight()
        self.scheduler.trouble(self, what, at_once=budget_is_empty)

    def close(self) -> None:
        """Leave in whatever state; for a ``finally``. Calling it again does nothing."""
        self.scheduler.withdraw(self, State.CLOSED)

    def _must_be_in_flight(self) -> None:
        if self.state is not State.IN_FLIGHT:
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
        rand: Returns a number from 0 up to 1, for the random part of waits.

    Raises:
        InvalidRequestError: `max_concurrency` is not an integer of at least 1.
    """

    def __init__(
        self,
        *,
        max_concurrency: int = 64,
        adaptive: bool = True,
        clock: Callable[[], float] = anyio.current_time,
        rand: Callable[[], float] = random.random,
    ) -> None:
        if type(max_concurrency) is not int or max_concurrency < 1:
            raise InvalidRequestError(
                f"max_concurrency must be an integer of at least 1, not {shown(max_concurrency)}"
            )
        self._max = max_concurrency
        self.most_ahead = AHEAD * max_concurrency
        self._new_limit: type[Limit | Fixed] = Limit if adaptive else Fixed
        self.clock = clock
        self._rand = rand
        self._lines: dict[tuple[str, Hashable], Line[Ticket]] = {}
        self._sweep_at = MAX_LINES
        self._gate = Gate(rand)  # for everything
        self._was_shut = False
        self._age = 0
        # Lines that only `max_concurrency` holds back, the one that has waited longest first.
        self._ready: dict[Line[Ticket], None] = {}
        self._sources: dict[Source, None] = {}
        self._are_stopped = False
        self.waiters: set[Ticket] = set()
        self.closed = False
        self.counts = [0] * len(State)
        self._started = self._retries = self._refusals = 0
        self._completed = self._failed = self._cancelled = 0
        self._seconds_queued = self._dollars = 0.0

    def __repr__(self) -> str:
        counts = self.counts
        limits = ", ".join(f"{line.name}: {line.limit.limit}" for line in self._lines.values())
        held = {line.gate.reason for line in self._lines.values()} | {self._gate.reason}
        closed = ", ".join(sorted(reason for reason in held if reason))
        return (
            f"<Scheduler {counts[State.IN_FLIGHT]} of {self._max} in flight, "
            f"{counts[State.QUEUED]} queued, {counts[State.WAITING]} waiting, "
            f"limits {{{limits}}}{f', held: {closed}' if closed else ''}>"
        )

    def source(self, credential: Hashable = None) -> Source:
        """Give somebody who fetches jobs a source of its own; close it in the end."""
        source = Source(self, credential)
        source.stopped = self._are_stopped
        self._sources[source] = None
        return source

    def leave(self, source: Source) -> None:
        """Forget a source."""
        self._sources.pop(source, None)

    def stop_sources(self) -> None:
        """Have all sources, those to come too, want no more jobs; what they have goes on."""
        self._are_stopped = True
        for source in list(self._sources):
            source.stop()

    def close(self) -> None:
        """Start nothing any more; whoever waits is told at once."""
        self.closed = True
        for ticket in self.waiters:
            ticket.wake_up()
        for source in self._sources:
            source.wake_all()

    def check_not_closed(self) -> None:
        """
        Check that the client is still open.

        Raises:
            ConnectError: It is not.
        """
        if self.closed:
            raise ConnectError.of_closing("the client was closed before this job was sent")

    def line(self, job_type: str, credential: Hashable = None) -> Line[Ticket] | None:
        """Return what is known of a type, if anything is."""
        return self._lines.get((job_type, credential))

    def ticket(
        self,
        job_type: str,
        source: Source | None = None,
        *,
        credential: Hashable = None,
        max_queued: int | None = None,
    ) -> Ticket:
        """
        Give a job its place in line, behind all that came before it.

        Args:
            job_type: Its type.
            source: Who fetched it; then its credential counts.
            credential: Tells apart who asks, where one client has several
                credentials: each is another account at the server, and what
                one is refused holds back no other.
            max_queued: How many jobs may wait, when this one first asks, for
                it to wait as well. ``None``: any number.
        """
        if source is not None:
            credential = source.credential
        line = self._lines.get((job_type, credential))
        if line is None:
            line = self._new_line(job_type, credential)
        self._age += 1
        ticket = Ticket(self, line, source, self._age)
        ticket.max_queued = max_queued
        self.counts[State.NEW] += 1
        line.counts[State.NEW] += 1
        if source is not None:
            source.moved(line, None, State.NEW)
        return ticket

    def _new_line(self, job_type: str, credential: Hashable) -> Line[Ticket]:
        if len(self._lines) >= self._sweep_at:
            self._lines = {key: each for key, each in self._lines.items() if not each.is_idle()}
            self._sweep_at = max(MAX_LINES, 2 * len(self._lines))
        line: Line[Ticket] = Line(job_type, self._new_limit(self._max), Gate(self._rand))
        self._lines[job_type, credential] = line
        return line

    def held(self, job_type: str, credential: Hashable = None) -> Held | None:
        """Return why no job of this type is sent now, and until when at least, if that is so."""
        return self._held(self._lines.get((job_type, credential)), self.clock())

    def _held(self, line: Line[Ticket] | None, now: float) -> Held | None:
        held = self._gate.held(now)
        if held is not None or line is None:
            return held
        held = line.gate.held(now)
        if held is None and not line.in_flight and not line.limit.may_start(0, now):
            held = Held("capacity", line.limit.next_change(0, now))
        return held

    def record(
        self, *, completed: bool = False, cancelled: bool = False, dollars: float = 0.0
    ) -> None:
        """Count a job that has come to its end: well, given up by its caller, or failed."""
        if completed:
            self._completed += 1
        elif cancelled:
            self._cancelled += 1
        else:
            self._failed += 1
        self._dollars += dollars

    def statistics(self) -> SchedulerStatistics:
        """Return the counts and what was learned, as of now."""
        limits: dict[str, int] = {}
        for line in self._lines.values():
            limits[line.name] = limits.get(line.name, 0) + line.limit.limit
        return SchedulerStatistics(
            in_flight=self.counts[State.IN_FLIGHT],
            queued=self.counts[State.QUEUED],
            waiting=self.counts[State.WAITING],
            max_concurrency=self._max,
            limits=MappingProxyType(limits),
            started=self._started,
            retries=self._retries,
            refusals=self._refusals,
            completed=self._completed,
            failed=self._failed,
            cancelled=self._cancelled,
            seconds_queued=self._seconds_queued,
            dollars=self._dollars,
        )

    # What tickets call.

    def enqueue(self, ticket: Ticket) -> None:
        """Queue a ticket that has not asked yet, or asks again; it may start at once."""
        now = self.clock()
        line = ticket.line
        if (
            line.queued == 0
            and self.counts[State.IN_FLIGHT] < self._max
            and self._may_start(line, now)
        ):
            self._move(ticket, State.IN_FLIGHT, now)  # the same as below, without the detour
            return
        if ticket.state is State.NEW and ticket.max_queued is not None:
            self._check_queue(line, ticket.max_queued, now)
        self._move(ticket, State.QUEUED, now)
        self._deal(line, now)

    def _check_queue(self, line: Line[Ticket], most: int, now: float) -> None:
        waiting = self.counts[State.QUEUED] + self.counts[State.WAITING]
        if waiting >= most:
            held = self._held(line, now)
            raise QueueFullError(
                f"{waiting} {'job waits' if waiting == 1 else 'jobs wait'} already and max_queued "
                f"is {most}: nothing was sent",
                queued=waiting,
                retry_after=None if held is None or held.until is None else held.until - now,
            )

    def look(self, ticket: Ticket) -> None:
        """Do what the time that has passed allows."""
        now = self.clock()
        if ticket.state is State.WAITING and now >= ticket.alarm:
            self._move(ticket, State.QUEUED, now)
        if ticket.state is State.QUEUED:
            line = ticket.line
            if line.keeper is ticket and now >= ticket.alarm:
                line.keeper = None
                ticket.alarm = inf
            self._deal(line, now)

    def refuse(self, ticket: Ticket, wait: float | None, retry_after: float | None) -> None:
        """Take a slot back after a 429."""
        now = self.clock()
        line = ticket.line
        began = ticket.since
        self._refusals += 1
        line.round_trip = now - began
        self._answered(ticket)
        self._move(ticket, State.IDLE if wait is None else State.WAITING, now)
        if wait is not None:
            asked = wait
        else:
            asked = HOLD_UNSAID if retry_after is None else max(retry_after, SILENCE_MIN)
        line.limit.refused(line.in_flight, now, asked, line.round_trip)
        ticket.was_refused = True
        ticket.alarm = inf if wait is None else now + wait
        served = line.is_served(now)
        if served:
            line.refused_since = inf
        else:
            line.refused_since = min(line.refused_since, now)
        if wait is None and (not served or asked >= HOLD_LONG):
            line.gate.hold(now, asked)
        self._after(line, now)

    def release(self, ticket: Ticket, *, served: bool, answered: bool) -> None:
        """Take a slot back after anything that is neither a refusal nor trouble."""
        now = self.clock()
        line = ticket.line
        if served:
            line.refused_since = inf
            line.limit.served(
                now,
                now - ticket.since,
                backlog=self._backlog(line),
                may_probe=line.counts[State.WAITING] < self._max,
            )
        if answered:
            self._answered(ticket)
        self._move(ticket, State.IDLE, now)
        self._after(line, now)

    def trouble(self, ticket: Ticket, what: Trouble, *, at_once: bool) -> None:
        """Take a slot back from a server that does not work."""
        now = self.clock()
        line = ticket.line
        if what == "unreachable":
            self._gate.troubled(now, what, probe=self._gate in ticket.probes, at_once=at_once)
        else:
            # Somebody answered, so what is closed, or closes, is this type's gate.
            was_probe = bool(ticket.probes)
            self._gate.succeeded(ticket.since, probe=self._gate in ticket.probes)
            line.gate.troubled(now, what, probe=was_probe, at_once=at_once)
        if ticket.probes:
            self._age += 1
            ticket.age = self._age  # the next probe is somebody else's job
        self._move(ticket, State.IDLE, now)
        self._after(line, now)

    def _backlog(self, line: Line[Ticket]) -> float:
        """Return how many jobs a full limit holds back, those not fetched yet included."""
        if not line.queued or line.in_flight < line.limit.limit:
            return 0
        left = sum(source.left + source.aside for source in self._sources)
        return line.queued + line.counts[State.WAITING] + left

    def withdraw(self, ticket: Ticket, state: State) -> None:
        """Take back whatever a ticket holds; it goes on in `state`."""
        before = ticket.state
        if before is State.CLOSED:
            return
        now = self.clock()
        self._move(ticket, state, now)
        if before is State.QUEUED:
            ticket.line.forget()
        if before is State.QUEUED or before is State.IN_FLIGHT:
            self._after(ticket.line, now)

    def gives_up(self, ticket: Ticket, asked_at: float) -> bool:
        """Return whether a ticket has waited long enough for a server that takes none."""
        now = self.clock()
        return now >= max(asked_at, self.shut_since(ticket.line, now)) + ticket.patience

    def shut_since(self, line: Line[Ticket], now: float) -> float:
        """Return since when the server takes no job of this line; infinity if it may."""
        since = min(self._gate.since, line.gate.since)
        return since if line.is_served(now) else min(since, line.refused_since)

    # Dealing out.

    def _answered(self, ticket: Ticket) -> None:
        """Note that the server is up, and does its work for this type."""
        for gate in (self._gate, ticket.line.gate):
            gate.succeeded(ticket.since, probe=gate in ticket.probes)

    def _may_start(self, line: Line[Ticket], now: float) -> bool:
        return (
            self._gate.may_start(now)
            and line.gate.may_start(now)
            and line.limit.may_start(line.in_flight, now)
        )

    def is_open(self, line: Line[Ticket]) -> bool:
        """Return whether a further job of a line might start in due time."""
        return self.shut_since(line, self.clock()) == inf

    def _move(self, ticket: Ticket, state: State, now: float) -> None:
        """Change a ticket's state, and every count with it; the one place where that happens."""
        line, source, before = ticket.line, ticket.source, ticket.state
        for counts in (self.counts, line.counts):
            counts[before] -= 1
            counts[state] += 1
        if before is State.QUEUED:
            waited = max(0.0, now - ticket.since)
            ticket.seconds_queued += waited
            self._seconds_queued += waited
            if line.keeper is ticket:
                line.keeper = None
        elif before is State.IN_FLIGHT:
            del line.flying[ticket]
            for gate in ticket.probes:
                gate.probe_ended(now)
            ticket.probes = ()
        ticket.state = state
        ticket.since = now
        ticket.alarm = inf
        if state is State.QUEUED:
            line.push(ticket)
        elif state is State.IN_FLIGHT:
            self._depart(ticket, line, now)
        if source is not None:
            source.moved(line, before, state)

    def _depart(self, ticket: Ticket, line: Line[Ticket], now: float) -> None:
        line.flying[ticket] = None
        ticket.attempts += 1
        self._started += 1
        self._retries += ticket.attempts > 1
        if self._gate.reason is not None or line.gate.reason is not None:
            ticket.probes = tuple(gate for gate in (self._gate, line.gate) if gate.started())
        line.limit.started(line.in_flight, now)

    def _after(self, line: Line[Ticket], now: float) -> None:
        """Deal out after a slot of `line` came back, or what is known of it has changed."""
        is_shut = self._gate.reason is not None
        if is_shut or self._was_shut:  # then it concerns every line
            if is_shut and not self._was_shut:
                self._warn(None)
            self._was_shut = is_shut
            for each in self._lines.values():
                self._offer(each, now)
        self._deal(line, now)
        is_shut = self.shut_since(line, now) < inf
        if is_shut and not line.was_shut:
            self._warn(line)
        line.was_shut = is_shut

    def _warn(self, line: Line[Ticket] | None) -> None:
        """Have those who wait in a line, or all, look when they give up."""
        for ticket in self.waiters:
            if ticket.gives_up_at == inf > ticket.patience and line in (None, ticket.line):
                ticket.wake_up()

    def _deal(self, line: Line[Ticket], now: float) -> None:
        """Hand out what may start after something changed for `line`."""
        self._offer(line, now)
        while self._ready and self.counts[State.IN_FLIGHT] < self._max:
            # The type with the fewest in flight, so that none starves another.
            line = min(self._ready, key=_flying)
            del self._ready[line]
            if self._may_start(line, now):  # a gate may have closed, or be probed, meanwhile
                ticket = line.pop()
                self._move(ticket, State.IN_FLIGHT, now)
                ticket.wake_up()
            self._offer(line, now)

    def _offer(self, line: Line[Ticket], now: float) -> None:
        """Note whether one of `line` may start as far as its own limit and the gates go."""
        if line.queued and self._may_start(line, now):
            self._ready[line] = None
            return
        self._ready.pop(line, None)
        if line.queued:
            self._set_alarm(line, self._next_change(line, now))

    def _next_change(self, line: Line[Ticket], now: float) -> float:
        """Return when `_may_start` may turn true with no event in between; infinity if never."""
        for gate in (self._gate, line.gate):
            if not gate.may_start(now):
                return gate.next_change()
        return line.limit.next_change(line.in_flight, now)

    def _set_alarm(self, line: Line[Ticket], when: float) -> None:
        """Have one of the queued tickets look at the clock at `when`."""
        keeper = line.keeper
        if when == inf or (keeper is not None and keeper.alarm <= when):
            return  # a keeper that wakes too early looks, and is appointed again
        if keeper is None:
            keeper = line.keeper = line.last()
        keeper.alarm = when
        keeper.wake_up()
