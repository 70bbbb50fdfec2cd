"""
What belongs to an event loop, and who has which: connections, a scheduler, a clock.

A client outlives event loops, may be used from many threads that have one
each, and may find itself in a forked child. So each loop in each process has a
`Session`, made on first use; one whose loop has ended is dropped when the next
is made, and what it counted stays in the totals. The registry is the only part
that threads share, and takes a lock for every change; looking up needs none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.lowlevel

from ._scheduler import Scheduler, SchedulerStatistics
from ._show import Told
from ._waiting import clock_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ._admission import Trouble
    from ._exchange import Sender

MAX_QUESTIONS = 32
"""
How many free questions of a session are asked at once. Chosen: enough for some hundred polls a
second, and few beside the connections of the jobs.
"""

MAX_TYPES = 4096
"""Of so many job types a session remembers when the server last accepted one. Chosen."""


def loop_key() -> Any:
    """
    Return what stands for the running event loop.

    Raises:
        RuntimeError: None runs.
    """
    # anyio's token says the same, and takes ten times as long to find. In trio's guest mode
    # asyncio's loop runs as well, but none of its tasks.
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is not None:
        return task.get_loop()
    token = anyio.lowlevel.current_token()
    return getattr(token, "native_token", token)


class Session:
    """
    What belongs to one event loop in one process.

    Attributes:
        sender: Sends requests.
        scheduler: Deals out slots.
        questions: Who asks what costs nothing, in the place of slots.
        clock: Seconds, as the loop counts them.
        pid: The process it belongs to.
        closed: Whether the client was closed; nothing is sent any more.
    """

    __slots__ = (
        "_accepted", "_loop", "_refusing", "clock", "closed", "pid", "questions", "scheduler",
        "sender",
    )  # fmt: skip

    def __init__(self, sender: Sender, scheduler: Scheduler, loop: Any) -> None:
        self.sender = sender
        self.scheduler = scheduler
        self.questions = anyio.CapacityLimiter(MAX_QUESTIONS)
        self.pid = os.getpid()
        self._loop = loop
        # The same clock as anyio's, without looking for the loop at each reading.
        self.clock = clock_of(getattr(loop, "time", anyio.current_time))
        scheduler.clock = self.clock
        self._accepted: dict[str, float] = {}
        self._refusing: set[str] = set()
        self.closed = False

    def accept(self, job_type: str) -> None:
        """Note that the server has just accepted a job of this type."""
        # The latest last, so that the oldest is forgotten first.
        self._refusing.discard(job_type)
        self._accepted.pop(job_type, None)
        self._accepted[job_type] = self.clock()
        if len(self._accepted) > MAX_TYPES:
            del self._accepted[next(iter(self._accepted))]

    def accepted(self, job_type: str) -> float:
        """Return when the server last accepted a job of this type; minus infinity for never."""
        return self._accepted.get(job_type, float("-inf"))

    def is_news_of_refusal(self, job_type: str) -> bool:
        """Note that none of this type are accepted; return whether that was not known yet."""
        if job_type in self._refusing or len(self._refusing) >= MAX_TYPES:
            return False
        self._refusing.add(job_type)
        return True

    def soon(self, step: Callable[[], None]) -> None:
        """Have something done in its loop, from any thread; not at all where that has ended."""
        if self.pid != os.getpid():
            return  # it would wake the loop of the process that we were forked from
        call = getattr(self._loop, "call_soon_threadsafe", None) or self._loop.run_sync_soon
        with contextlib.suppress(RuntimeError):
            call(step)

    def is_gone(self) -> bool:
        """Return whether its loop has ended, or belongs to the process we were forked from."""
        if self.pid != os.getpid():
            return True
        if hasattr(self._loop, "is_closed"):
            return bool(self._loop.is_closed())
        try:  # trio tells when it is asked to do something
            self._loop.run_sync_soon(lambda: None)
        except RuntimeError:
            return True
        return False


class Sessions:
    """
    The sessions of one client; what belongs to each is made on the event loop that it is for.

    Raises:
        InvalidRequestError: The scheduler's own, for its arguments.
    """

    def __init__(
        self, *, make_sender: Callable[[], Sender], make_scheduler: Callable[[], Scheduler]
    ) -> None:
        self.closed = False
        self._make_sender = make_sender
        self._make_scheduler = make_scheduler
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._open: dict[Any, Session] = {}
        self._closing: list[Session] = []
        # Made now, since it checks its arguments; the first session gets it.
        self._spare: Scheduler | None = make_scheduler()
        self._past = self._spare.statistics()

    def __len__(self) -> int:
        return len(self._open)

    def current(self) -> Session:
        """
        Return what belongs to the running event loop, made on first use.

        Raises:
            RuntimeError: The client was closed, or no event loop runs.
        """
        if self.closed:
            raise RuntimeError("this client is closed; make a new one")
        loop = loop_key()
        session = self._open.get(loop)
        if session is not None and session.pid == os.getpid():
            return session
        with self._guard():
            gone = self._drop_gone()
            scheduler = self._spare or self._make_scheduler()
            self._spare = None
            session = self._open[loop] = Session(self._make_sender(), scheduler, loop)
        for each in gone:
            each.sender.abandon()
        return session

    def _drop_gone(self) -> list[Session]:
        """Take those out whose loop is gone, and keep what they counted; with the lock held."""
        gone = [(loop, each) for loop, each in self._open.items() if each.is_gone()]
        for loop, session in gone:
            del self._open[loop]
            self._past = add_up([self._past, session.scheduler.statistics()], past=True)
        return [session for _, session in gone]

    def statistics(self) -> SchedulerStatistics:
        """Return what all of them do and have done, added up."""
        with self._guard():
            sessions = [*self._open.values(), *self._closing]
            return add_up([self._past, *(each.scheduler.statistics() for each in sessions)])

    def stop_sources(self) -> None:
        """Have the sources of all want no more, at once; who waits is told in its own loop."""
        here = loop_key()
        for loop, session in list(self._open.items()):
            scheduler = session.scheduler
            if loop == here:
                scheduler.stop_sources()
                continue
            # What threads may do to each other: set a flag that is looked at before each job.
            for source in list(scheduler._sources):  # noqa: SLF001  (its other half)
                source.stopped = True
            session.soon(scheduler.stop_sources)

    def close(self) -> tuple[Session | None, list[Session]]:
        """
        Take all of them out, for good.

        Returns:
            The running loop's own, whose sender is to be closed in good
            order; and those of others, which can only be abandoned.
        """
        mine_key = loop_key()
        with self._guard():
            self.closed = True
            sessions, self._open = self._open, {}
            # Their jobs come to their ends yet, and count.
            self._closing += sessions.values()
        for session in sessions.values():
            session.closed = session.scheduler.closed = True
        mine = sessions.pop(mine_key, None)
        for session in sessions.values():
            session.soon(session.scheduler.close)  # whoever waits there is told
        return mine, list(sessions.values())

    def abandon(self) -> bool:
        """Give up all connections without a loop; returns whether there were any to give up."""
        with self._guard():
            sessions, self._open = self._open, {}
        for session in sessions.values():
            session.sender.abandon()
        return bool(sessions)

    def _guard(self) -> threading.Lock:
        """Return the lock; in a forked child a new one, since nobody there lets go of the old."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._lock = threading.Lock()
        return self._lock


class FreeTicket:
    """In the place of a scheduler's ticket, for a question that costs nothing."""

    __slots__ = ("_limiter", "seconds_queued")

    def __init__(self, limiter: anyio.CapacityLimiter) -> None:
        self._limiter = limiter
        self.seconds_queued = 0.0

    async def start(self, until: float) -> bool:
        del until
        await self._limiter.acquire_on_behalf_of(self)
        return True

    def refused(self, wait: float | None, *, retry_after: float | None) -> None:
        del wait, retry_after
        self.close()

    def released(self, *, served: bool, answered: bool | None = None) -> None:
        del served, answered
        self.close()

    def troubled(self, what: Trouble, *, budget_is_empty: bool) -> None:
        del what, budget_is_empty
        self.close()

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has none, or gave it back
            self._limiter.release_on_behalf_of(self)


@dataclass(frozen=True, slots=True, repr=False)
class Unfinished(Told):
    """A job that was left without its answer when its client was closed."""

    job_type: str
    """Its type."""
    index: int | None
    """Its place in a ``map``, from 0; ``None`` for a job alone."""
    tag: object
    """The `tag` of its `JobRequest`."""
    may_have_run: bool
    """Whether it may have run, and so may have been charged."""
    job_id: str | None = None
    """Of one that is left with the server: its result can be asked for under this."""


class UnderWay(Protocol):
    """What a drain waits for: a request, or a job that is with the server and is asked about."""

    was_sent: bool

    def unfinished(self) -> Unfinished:
        """Tell what it is, for whoever closes the client before it has ended."""


class Awaited:
    """A job that is left with the server, while somebody asks about it."""

    __slots__ = ("_told", "was_sent")

    def __init__(self, told: Unfinished) -> None:
        self._told = told
        self.was_sent = True

    def unfinished(self) -> Unfinished:
        return self._told


def goes_on(under_way: Mapping[UnderWay, Session | None], *, was_sent: bool) -> bool:
    """
    Return whether any job is under way yet, where one can come to its end.

    Nothing comes of those whose loop was closed over them, or that belong to the
    process that this one was forked from.

    Args:
        under_way: Jobs, and whose they are.
        was_sent: Whether those count that were sent, or those that were not.
    """
    each = list(under_way.items())
    gone = {session for _, session in each if session is not None and session.is_gone()}
    return any(job.was_sent is was_sent and session not in gone for job, session in each)


def left_of(under_way: Mapping[UnderWay, Session | None]) -> tuple[Unfinished, ...]:
    """Tell the jobs of this process that were sent and not answered."""
    return tuple(
        job.unfinished()
        for job, session in list(under_way.items())
        if job.was_sent and (session is None or session.pid == os.getpid())
    )


NOW = frozenset({"in_flight", "queued", "waiting"})
"""Counts of what goes on; of a session that is past nothing does."""

_NOT_ADDED = frozenset({"limits", "max_concurrency"})


def add_up(each: Iterable[SchedulerStatistics], *, past: bool = False) -> SchedulerStatistics:
    """
    Add up the counts of several schedulers.

    Args:
        each: At least one; the bound is the first one's.
        past: Whether they are over, so that nothing goes on in them.
    """
    counts = list(each)
    added = {
        field.name: sum(getattr(one, field.name) for one in counts)
        for field in fields(SchedulerStatistics)
        if field.name not in _NOT_ADDED
    }
    if past:
        added.update(dict.fromkeys(NOW, 0))
    limits = {job_type: limit for one in counts for job_type, limit in one.limits.items()}
    return replace(counts[0], limits=MappingProxyType(limits), **added)
