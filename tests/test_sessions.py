"""What belongs to a loop, and the sums: threads, forks, loops that have ended."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from dataclasses import fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
import trio
from conftest import on_both_loops
from raw_server import RawServer

from prodia_async import AsyncProdia, InvalidRequestError, _waiting
from prodia_async import _sessions as sessions_module
from prodia_async._scheduler import Scheduler
from prodia_async._sessions import (
    MAX_QUESTIONS,
    MAX_TYPES,
    NOW,
    Awaited,
    FreeTicket,
    Session,
    Sessions,
    Unfinished,
    add_up,
    goes_on,
    left_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from prodia_async._exchange import Sender

COUNTS = Scheduler().statistics()
NUMBERS = [each.name for each in fields(COUNTS) if each.name not in {"limits", "max_concurrency"}]


class FakeSender:
    """Knows only how it was given up."""

    def __init__(self) -> None:
        self.abandoned = 0

    def abandon(self) -> None:
        self.abandoned += 1


def sessions(senders: list[FakeSender] | None = None) -> Sessions:
    made = senders if senders is not None else []

    def make_sender() -> Sender:
        made.append(FakeSender())
        return cast("Sender", made[-1])

    return Sessions(make_sender=make_sender, make_scheduler=Scheduler)


@on_both_loops
async def test_a_loop_has_one_session() -> None:
    """It is made on first use, and found again by any task."""
    registry = sessions()
    assert len(registry) == 0
    session = registry.current()
    assert registry.current() is session
    async with anyio.create_task_group() as group:
        group.start_soon(_check_same, registry, session)
    assert len(registry) == 1
    assert session.scheduler.clock is session.clock
    assert session.questions.total_tokens == MAX_QUESTIONS
    assert session.clock() == pytest.approx(_waiting.current_time(), abs=1.0)
    # Its loop runs, and goes on running though it was asked.
    assert not session.is_gone()
    await anyio.sleep(0.001)
    assert registry.current() is session


async def _check_same(registry: Sessions, session: Session) -> None:
    assert registry.current() is session


async def test_a_clock_that_any_thread_can_read() -> None:
    """That of asyncio's loop needs no running loop."""
    session = sessions().current()
    assert await anyio.to_thread.run_sync(session.clock) <= session.clock()


def test_a_trio_loop_in_another_thread_is_not_gone() -> None:
    """Making a session of one's own takes nobody else's away."""
    senders: list[FakeSender] = []
    registry = sessions(senders)
    ready, over = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        session = registry.current()
        ready.set()
        while not over.is_set():
            await trio.sleep(0.001)
        assert registry.current() is session

    async def here() -> None:
        registry.current()

    thread = threading.Thread(target=trio.run, args=(elsewhere,))
    thread.start()
    try:
        assert ready.wait(10)
        trio.run(here)
        assert len(registry) == 2
    finally:
        over.set()
        thread.join()
    assert [each.abandoned for each in senders] == [0, 0]


def test_what_a_loop_left_in_flight_is_past() -> None:
    """It was started, and nothing of it goes on."""
    registry = sessions()

    async def leave() -> None:
        assert registry.current().scheduler.ticket("a").request()
        assert registry.statistics().in_flight == 1

    async def look() -> None:
        registry.current()

    asyncio.run(leave())
    asyncio.run(look())
    found = registry.statistics()
    assert (found.started, found.in_flight) == (1, 0)


def test_the_lock_of_a_process_stays() -> None:
    """Threads that share it would not wait for each other otherwise."""
    registry = sessions()
    lock = registry._lock
    assert registry._guard() is registry._guard() is lock


@on_both_loops
async def test_a_question_takes_a_place_among_few() -> None:
    """However it ends it gives the place back, once."""
    limiter = anyio.CapacityLimiter(2)
    tickets = [FreeTicket(limiter) for _ in range(2)]
    for ticket in tickets:
        assert ticket.seconds_queued == 0.0
        assert await ticket.start(0.0) is True
    assert limiter.borrowed_tokens == 2
    tickets[0].close()
    tickets[0].close()
    assert limiter.borrowed_tokens == 1
    with anyio.fail_after(5):
        await tickets[0].start(0.0)
    tickets[0].refused(1.0, retry_after=None)
    assert limiter.borrowed_tokens == 1
    await tickets[0].start(0.0)
    tickets[0].released(served=True)
    tickets[1].troubled("fault", budget_is_empty=False)
    assert limiter.borrowed_tokens == 0


def test_a_loop_whose_token_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions of anyio hand the loop's token over as it is; that tells loops apart too."""
    token = object()
    monkeypatch.setattr(anyio.lowlevel, "current_token", lambda: token)
    assert sessions_module.loop_key() is token


def test_a_job_that_is_asked_about() -> None:
    """It was sent, or there were nothing to ask about; and it is told as it was left."""
    told = Unfinished("a.type", 3, "mine", may_have_run=True, job_id="j")
    assert (Awaited(told).was_sent, Awaited(told).unfinished()) == (True, told)


def test_without_a_loop() -> None:
    """There is nothing to belong to."""
    with pytest.raises(RuntimeError):
        sessions().current()


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_a_session_goes_with_its_loop(run: Callable[..., None]) -> None:
    """When the next is made, its connections are given up, once, and its totals kept."""
    senders: list[FakeSender] = []
    registry = sessions(senders)

    async def count() -> None:
        registry.current().scheduler.record(completed=True, dollars=0.5)

    for number in range(1, 4):
        run(count() if run is asyncio.run else count)
        assert registry.statistics().completed == number
        assert len(registry) == 1
    assert [each.abandoned for each in senders] == [1, 1, 0]
    assert registry.statistics().dollars == 1.5


def test_the_past_has_nothing_in_flight() -> None:
    """Of a loop that has ended, the counts of what goes on are none; all others stay."""
    busy = replace(COUNTS, **cast("Any", dict.fromkeys(NUMBERS, 3)))
    past = add_up([busy], past=True)
    assert {name: getattr(past, name) for name in NUMBERS} == {
        name: 0 if name in NOW else 3 for name in NUMBERS
    }
    assert add_up([busy, past]).in_flight == 3


def test_the_sum() -> None:
    """Each count is added up; the bound is the first's; limits are put together."""
    one = replace(
        COUNTS,
        limits=MappingProxyType({"a": 1}),
        **cast("Any", {name: number for number, name in enumerate(NUMBERS)}),
    )
    two = replace(one, max_concurrency=7, limits=MappingProxyType({"b": 2}))
    both = add_up([one, two])
    assert [getattr(both, name) for name in NUMBERS] == [2 * n for n in range(len(NUMBERS))]
    assert both.max_concurrency == one.max_concurrency
    assert both.limits == {"a": 1, "b": 2}


@on_both_loops
async def test_closing() -> None:
    """The loop's own is handed back to be closed, others to be given up; nothing is made anew."""
    registry = sessions()
    session = registry.current()
    mine, others = registry.close()
    assert mine is session
    assert others == []
    assert session.closed
    assert session.scheduler.closed
    assert registry.closed
    with pytest.raises(RuntimeError, match=r"^this client is closed; make a new one$"):
        registry.current()
    session.scheduler.record(completed=True)
    assert registry.statistics().completed == 1


@on_both_loops
async def test_closing_in_another_loop() -> None:
    """Sessions of other loops are given up, and learn that the client is closed."""
    senders: list[FakeSender] = []
    registry = sessions(senders)
    others: list[Session] = []
    ready, over = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        others.append(registry.current())
        ready.set()
        while not over.is_set():
            await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
    thread.start()
    await anyio.to_thread.run_sync(ready.wait)
    told = threading.Event()
    # Whether it is told is all that counts, and telling it would end a loop of another thread.
    others[0].scheduler.close = told.set  # type: ignore[method-assign]
    assert registry.close() == (None, others)
    assert others[0].closed
    is_told = await anyio.to_thread.run_sync(told.wait, 5)
    over.set()
    await anyio.to_thread.run_sync(thread.join)
    assert is_told, "whoever waits there hears nothing"


def test_giving_up_without_a_loop() -> None:
    """Says whether there was anything."""
    senders: list[FakeSender] = []
    registry = sessions(senders)
    assert registry.abandon() is False

    async def use() -> None:
        registry.current()

    asyncio.run(use())
    assert registry.abandon() is True
    assert [each.abandoned for each in senders] == [1]
    assert len(registry) == 0


async def test_when_a_type_was_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest time counts, and only so many types are remembered, the latest."""
    session = sessions().current()
    assert session.accepted("a") == float("-inf")
    monkeypatch.setattr(session, "clock", lambda: 5.0)
    session.accept("a")
    monkeypatch.setattr(session, "clock", lambda: 6.0)
    for number in range(MAX_TYPES - 1):
        session.accept(str(number))
    assert session.accepted("a") == 5.0
    session.accept("a")
    session.accept("one more")
    assert session.accepted("a") == 6.0
    assert session.accepted("0") == float("-inf")


async def test_a_type_that_is_refused_is_news_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until one is accepted; and only so many types are remembered."""
    session = sessions().current()
    assert [session.is_news_of_refusal(each) for each in "aab"] == [True, False, True]
    session.accept("a")
    assert session.is_news_of_refusal("a")
    monkeypatch.setattr(sessions_module, "MAX_TYPES", 3)
    assert [session.is_news_of_refusal(each) for each in "cd"] == [True, False]


def test_arguments_are_checked_at_once() -> None:
    """Before any loop runs."""
    with pytest.raises(InvalidRequestError, match="max_concurrency"):
        Sessions(
            make_sender=lambda: cast("Sender", FakeSender()),
            make_scheduler=lambda: Scheduler(max_concurrency=0),
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_the_lock_is_held() -> None:
    """A child does not wait for a thread that it does not have."""
    registry = sessions()

    async def use() -> None:
        registry.current()

    asyncio.run(use())
    with registry._lock:
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(use())
                os._exit(len(registry) != 1)
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def test_another_process_has_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of the process we were forked from is gone, and its lock is nobody's."""
    senders: list[FakeSender] = []
    registry = sessions(senders)
    session, lock = registry.current(), registry._lock
    assert not session.is_gone()
    pid = os.getpid() + 1
    monkeypatch.setattr("prodia_async._sessions.os.getpid", lambda: pid)
    assert session.is_gone()
    assert registry.current() is not session
    assert registry._lock is not lock
    assert registry._guard() is registry._guard() is registry._lock
    assert [each.abandoned for each in senders] == [1, 0]


def test_many_threads_with_short_loops_lose_no_count() -> None:
    """One client, threads whose loops come and go: every job is answered, and counted."""
    threads, rounds = 8, 12
    failures: list[BaseException] = []
    interval = sys.getswitchinterval()
    with RawServer() as server:
        client = AsyncProdia("t", base_url=server.url)

        async def one() -> None:
            await client.job({"type": "inference.ping.v1"})

        def work() -> None:
            try:
                for _ in range(rounds):
                    asyncio.run(one())
                    client.statistics()
            except BaseException as error:
                failures.append(error)

        sys.setswitchinterval(1e-6)
        try:
            workers = [threading.Thread(target=work) for _ in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        finally:
            sys.setswitchinterval(interval)
        asyncio.run(client.aclose())
    assert failures == []
    assert client.statistics().completed == threads * rounds == server.charges


@pytest.mark.parametrize("is_first", [False, True])
def test_something_is_done_in_a_sessions_own_loop(is_first: bool) -> None:
    """Soon, and not at all where that has ended; the loop that asks has its own done at once."""
    done: list[str] = []
    each = sessions()

    async def drain() -> None:
        here = each.current()
        here.scheduler.stop_sources = lambda: done.append("here")  # type: ignore[method-assign]
        source = there.scheduler.source()
        if is_first:  # of all whose sources are stopped
            each._open = dict(reversed(each._open.items()))
        each.stop_sources()
        assert done == ["here"]
        assert source.stopped

    loop = asyncio.new_event_loop()

    async def use() -> Session:
        return each.current()

    there = loop.run_until_complete(use())
    there.scheduler.stop_sources = lambda: done.append("there")  # type: ignore[method-assign]
    asyncio.run(drain())
    loop.run_until_complete(asyncio.sleep(0))
    assert done == ["here", "there"]
    there.pid += 1  # another process's
    there.soon(lambda: done.append("never"))
    loop.run_until_complete(asyncio.sleep(0))
    there.pid -= 1
    loop.close()
    there.soon(lambda: done.append("never"))
    assert done == ["here", "there"]

    async def in_trio() -> None:
        each.current().soon(lambda: done.append("trio"))
        await anyio.sleep(0.01)

    trio.run(in_trio)
    assert done[-1] == "trio"


class Of:
    """A job under way."""

    def __init__(self, name: str, *, was_sent: bool) -> None:
        self.name = name
        self.was_sent = was_sent

    def unfinished(self) -> Any:
        return self.name


def test_what_is_waited_for_and_what_is_left() -> None:
    """Only what can end is waited for; what is told is all of this process that was sent."""

    class Whose:
        def __init__(self, *, here: bool, gone: bool) -> None:
            self.pid = os.getpid() - (not here)
            self.gone = gone

        def is_gone(self) -> bool:
            return self.gone

    here, closed, parents = (
        Whose(here=True, gone=False), Whose(here=True, gone=True), Whose(here=False, gone=True),
    )  # fmt: skip
    for owner, waited_for, told in [
        (here, True, True), (closed, False, True), (parents, False, False), (None, True, True),
    ]:  # fmt: skip
        for was_sent in (True, False):
            each: Any = {Of("a", was_sent=was_sent): owner}
            assert goes_on(each, was_sent=was_sent) is waited_for
            assert not goes_on(each, was_sent=not was_sent)
            assert list[Any](left_of(each)) == (["a"] if told and was_sent else [])
    both: Any = {Of("a", was_sent=True): closed, Of("b", was_sent=True): here}
    assert goes_on(both, was_sent=True)
    assert list[Any](left_of(both)) == ["a", "b"]
    assert not goes_on({}, was_sent=True)
