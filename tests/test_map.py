"""Many jobs: lazily pulled, none lost, one failure never stops the rest."""

from __future__ import annotations

import asyncio
import gc
import pickle
import signal
import subprocess
import sys
import threading
import time
from math import inf
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import anyio.lowlevel
import pytest
from conftest import on_both_loops, until
from raw_server import Conversation, RawServer, http, say

from prodia_async import (
    AsyncProdia,
    BadRequestError,
    Input,
    InvalidRequestError,
    Job,
    JobOutcome,
    JobRequest,
    QueueFullError,
)
from prodia_async._map import YIELD_EVERY, Outcomes, own_error
from prodia_async._scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
    )
    from pathlib import Path

    from prodia_async._progress import MapProgress
    from prodia_async._source import Source

PING = {"type": "inference.ping.v1"}


def client(server: RawServer, **options: Any) -> AsyncProdia:
    return AsyncProdia("secret-token", base_url=server.url, adaptive=False, **options)


@on_both_loops
async def test_every_job_has_an_outcome() -> None:
    """Iterables and async iterables of jobs, mappings and requests all come out, once each."""

    async def jobs() -> AsyncIterator[Any]:
        for number in range(30):
            yield (Job("inference.ping.v1"), PING, JobRequest(PING))[number % 3]

    with RawServer() as server:
        async with client(server, max_concurrency=4) as prodia, prodia.map(jobs()) as outcomes:
            indexes = [outcome.index async for outcome in outcomes if outcome.unwrap().outputs]
        assert sorted(indexes) == list(range(30))
        assert server.charges == 30
        assert server.connections <= 4


@on_both_loops
async def test_order_is_kept_when_asked() -> None:
    """With ordered=True outcomes come in the order of the jobs, though the first is the slowest."""

    def slow(conversation: Conversation) -> None:
        conversation.server.over.wait(0.2)
        conversation.send(http())

    with RawServer([slow]) as server:
        async with client(server, max_concurrency=4) as prodia:
            async with prodia.map([PING] * 20, ordered=True) as outcomes:
                indexes = [outcome.index async for outcome in outcomes]
    assert indexes == list(range(20))


@on_both_loops
async def test_one_failure_does_not_stop_the_rest() -> None:
    """A refused job, one that is no job, and an input that raises are outcomes like any other."""

    def broken() -> AsyncIterator[bytes]:
        raise LookupError("the caller's own trouble")

    bad = say(http("400 Bad Request", b"no such type", content_type="text/plain"))
    jobs: list[Any] = [PING, "no job", JobRequest(PING, [Input(broken, "a.png", size=3)]), {}, PING]
    with RawServer([bad]) as server:
        async with client(server, max_concurrency=1) as prodia:
            async with prodia.map(jobs, ordered=True) as outcomes:
                found = [outcome async for outcome in outcomes]
        kinds = [type(each.error) for each in found]
        assert kinds == [
            BadRequestError, InvalidRequestError, LookupError, InvalidRequestError, type(None),
        ]  # fmt: skip
        with pytest.raises(LookupError):
            found[2].unwrap()
        assert server.charges == 1


@on_both_loops
async def test_jobs_are_pulled_only_when_one_may_start() -> None:
    """An endless source is pulled no further than the jobs that may be under way."""
    pulled = 0

    def endless() -> Iterator[dict[str, str]]:
        nonlocal pulled
        while True:
            pulled += 1
            yield PING

    with RawServer() as server:
        async with client(server, max_concurrency=3) as prodia:
            async with prodia.map(endless()) as outcomes:
                read = 0
                async for _ in outcomes:
                    read += 1
                    assert pulled <= read + 3
                    if read > 50:
                        break
        assert prodia.statistics().in_flight == 0


@on_both_loops
async def test_a_consumer_that_stops_reading_stops_new_work() -> None:
    """Unread outcomes count against the window, so work comes to rest; `buffer` widens it."""
    with RawServer() as server:
        async with client(server, max_concurrency=2) as prodia:
            async with prodia.map([PING] * 100, buffer=5):
                await until(lambda: len(server.requests) >= 7)
                await anyio.sleep(0.2)
                assert len(server.requests) == 7


@on_both_loops
async def test_a_source_that_raises_loses_nothing() -> None:
    """What was started comes out, and then the source's own error is raised."""

    def failing() -> Iterator[dict[str, str]]:
        yield from [PING] * 5
        raise LookupError("the disk is gone")

    with RawServer() as server:
        async with client(server, max_concurrency=2) as prodia:
            found: list[JobOutcome] = []
            with pytest.raises(LookupError, match="the disk is gone"):
                async with prodia.map(failing()) as outcomes:
                    async for outcome in outcomes:
                        found.append(outcome)
    assert [each.error for each in found] == [None] * 5


@on_both_loops
async def test_leaving_the_block_cancels_what_is_in_flight() -> None:
    """Leaving early ends the jobs under way, and gives slots and connections back."""

    def stall(conversation: Conversation) -> None:
        conversation.stall()

    with RawServer([stall] * 4) as server:
        async with client(server, max_concurrency=4) as prodia:
            with anyio.fail_after(5):
                async with prodia.map([PING] * 10):
                    await until(lambda: len(server.requests) == 4)
            assert prodia.statistics().in_flight == 0
            assert (await prodia.job(PING)).outputs


@pytest.mark.parametrize("jobs", [PING, Job("inference.ping.v1"), "text", 7, None])
async def test_one_job_is_not_many(jobs: Any) -> None:
    """A single job, or what cannot be iterated, is refused before anything starts."""
    async with AsyncProdia("t") as prodia:
        with pytest.raises(InvalidRequestError, match="iterable of jobs"):
            prodia.map(jobs)


@pytest.mark.parametrize("buffer", [-1, True, 1.5])
async def test_a_buffer_counts_outcomes(buffer: Any) -> None:
    """A negative or fractional buffer is refused."""
    async with AsyncProdia("t") as prodia:
        with pytest.raises(InvalidRequestError, match="buffer"):
            prodia.map([], buffer=buffer)


async def test_no_jobs_are_no_outcomes() -> None:
    """An empty source ends at once, and reading outside the block is a clear mistake."""
    async with AsyncProdia("t") as prodia:
        manager = prodia.map([])
        async with manager as outcomes:
            assert [each async for each in outcomes] == []
            assert "0 read, 0 unread, 0 under way" in repr(outcomes)
        with pytest.raises(RuntimeError, match=r"^read outcomes inside the block: async with"):
            await anext(outcomes)


# The machinery by itself.


async def same(_: int, item: int, __: Source) -> int:
    await anyio.lowlevel.checkpoint()
    return item


async def never(_: int, item: int, __: Source) -> int:
    await anyio.sleep_forever()
    return item


def outcomes_of(
    items: Iterable[int] | AsyncIterable[int],
    run: Callable[[int, int, Source], Awaitable[int]] = same,
    *,
    ordered: bool = False,
    buffer: int = 0,
    open_source: Callable[[], Source] | None = None,
) -> Outcomes[int, int]:
    return Outcomes(
        items,
        run=run,
        open_source=open_source or Scheduler().source,
        concurrency=2,
        ordered=ordered,
        buffer=buffer,
    )


async def all_of(found: list[int], outcomes: Outcomes[int, int]) -> None:
    async with outcomes as reading:
        async for outcome in reading:
            found.append(outcome)


class Odd:
    """Three numbers, and then what is no proper end; an iterator of either kind."""

    def __init__(self, error: BaseException) -> None:
        self._items = iter(range(3))
        self._error = error

    def next(self) -> int:
        for item in self._items:
            return item
        raise self._error


class OddIterator(Odd):
    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return self.next()


class OddAsyncIterator(Odd):
    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        return self.next()


@on_both_loops
async def test_several_readers_share_the_outcomes() -> None:
    """Each outcome goes to one of three readers, and all of them come to an end."""
    found: list[int] = []
    with anyio.fail_after(5):
        async with outcomes_of(range(20), ordered=True) as reading:

            async def read() -> None:
                async for outcome in reading:
                    found.append(outcome)

            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(read)
    assert sorted(found) == list(range(20))


@on_both_loops
async def test_who_reads_while_the_block_is_left_is_told() -> None:
    """A reader in another task does not wait for ever."""
    manager = outcomes_of(range(3), never)
    told: list[str] = []

    async def read() -> None:
        try:
            await anext(aiter(manager))
        except RuntimeError as error:
            told.append(str(error))

    async with anyio.create_task_group() as tasks:
        async with manager:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
    assert "inside the block" in told[0]


@on_both_loops
async def test_a_block_is_entered_once() -> None:
    """Jobs that were cancelled with the first block would be missed in a second."""
    manager = outcomes_of(range(3))
    async with manager:
        pass
    with pytest.raises(RuntimeError, match=r"^the block of a map is entered once; call map again$"):
        await manager.__aenter__()


@on_both_loops
async def test_nothing_is_read_before_the_block() -> None:
    """Nobody would ever tell that reader anything."""
    with anyio.fail_after(5), pytest.raises(RuntimeError, match="inside the block"):
        await anext(outcomes_of(range(3)))


@on_both_loops
async def test_workers_that_sat_down_come_back() -> None:
    """Two jobs at a time are under way however often both had to wait for the source."""
    send, receive = anyio.create_memory_object_stream[int](9)
    under_way: list[int] = []
    both = anyio.Event()

    async def run(_: int, item: int, __: Source) -> int:
        nonlocal both
        under_way.append(item)
        if len(under_way) % 2 == 0:
            both.set()
            both = anyio.Event()
        else:
            await both.wait()
        return item

    with anyio.fail_after(5), send, receive:
        async with outcomes_of(receive, run) as reading:
            for number in range(5):
                await anyio.wait_all_tasks_blocked()
                for item in (2 * number, 2 * number + 1):
                    await send.send(item)
                found = {await anext(reading), await anext(reading)}
                assert found == {2 * number, 2 * number + 1}


@on_both_loops
async def test_a_worker_that_never_waits_lets_others_run() -> None:
    """With a wide window and jobs that are done at once, the reader still gets its turn."""
    pulled = 0

    def endless() -> Iterator[int]:
        nonlocal pulled
        while True:
            yield (pulled := pulled + 1)

    async def at_once(_: int, item: int, __: Source) -> int:
        return item

    with anyio.fail_after(5):
        async with outcomes_of(endless(), at_once, buffer=10**9) as reading:
            for read in range(20 * YIELD_EVERY):
                assert await anext(reading) == read + 1
                assert pulled <= read + 20 * YIELD_EVERY  # by ten workers
                assert pulled % YIELD_EVERY == 0


@pytest.mark.slow
@on_both_loops
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
async def test_all_come_out_though_the_reader_is_slow(is_async: bool, ordered: bool) -> None:
    """While a slow reader has the workers wait nothing is lost, in order or not."""

    async def items() -> AsyncIterator[int]:
        for item in range(50):
            yield item

    found: list[int] = []
    async with outcomes_of(items() if is_async else range(50), ordered=ordered) as reading:
        async for outcome in reading:
            found.append(outcome)
            if outcome % 10 == 0:
                await anyio.wait_all_tasks_blocked()
    assert sorted(found) == list(range(50))
    assert not ordered or found == list(range(50))


@on_both_loops
async def test_a_scheduler_that_fails_loses_no_outcome() -> None:
    """Its error is raised plainly, after what was started; or at once if there is nothing."""
    scheduler = Scheduler()

    async def run(_: int, item: int, __: Source) -> int:
        scheduler.closed = item >= 4
        return item

    found: list[int] = []
    with pytest.raises(RuntimeError, match="client is closed"):
        await all_of(found, outcomes_of(range(50), run, open_source=scheduler.source))
    assert sorted(found) == list(range(len(found)))
    assert len(found) >= 5

    def fail() -> Source:
        raise LookupError("no source")

    with pytest.raises(LookupError, match="no source"):
        await all_of(found, outcomes_of(range(50), open_source=fail))


@on_both_loops
@pytest.mark.parametrize("odd", [OddIterator, OddAsyncIterator])
@pytest.mark.parametrize("error", [asyncio.CancelledError(), StopAsyncIteration(), LookupError()])
async def test_a_source_cannot_end_or_cancel_by_mistake(
    odd: type[OddIterator | OddAsyncIterator], error: BaseException
) -> None:
    """What means an end or a cancellation elsewhere is an error of the source, not of a task."""
    found: list[int] = []
    if odd is OddAsyncIterator and isinstance(error, StopAsyncIteration):
        await all_of(found, outcomes_of(odd(error)))  # its way to end
    else:
        expected = LookupError if isinstance(error, LookupError) else RuntimeError
        with pytest.raises(expected) as caught:
            await all_of(found, outcomes_of(odd(error)))
        assert error in (caught.value, caught.value.__cause__)
        assert str(caught.value) in (
            "",
            "the source of a map awaited something that was cancelled; it was not itself",
            "the source of a map raised StopAsyncIteration, which is not its way to end",
        )
    assert found == [0, 1, 2]


@on_both_loops
@pytest.mark.parametrize("odd", [OddIterator, OddAsyncIterator])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_an_interruption_in_the_source_is_raised_plainly(
    odd: type[OddIterator | OddAsyncIterator], error: type[BaseException]
) -> None:
    """It is not wrapped, and does not wait for jobs under way; read or unread."""
    with pytest.raises(error):
        await all_of([], outcomes_of(odd(error()), never, buffer=9))
    with pytest.raises(error):
        async with outcomes_of(odd(error()), buffer=9):
            await anyio.wait_all_tasks_blocked()


@on_both_loops
async def test_an_error_that_was_read_is_not_raised_again() -> None:
    """What escapes from one item ends everything; who caught it may leave the block."""

    async def escape(_: int, item: int, __: Source) -> int:
        raise LookupError(item)

    async with outcomes_of(range(3), escape) as reading:
        with pytest.raises(LookupError):
            await anext(reading)


async def test_a_foreign_cancellation_is_an_outcome() -> None:
    """A job that awaits somebody's cancelled task fails alone; a true one goes through."""
    shared = asyncio.ensure_future(anyio.sleep_forever())
    shared.cancel()

    async def run(_: int, item: int, __: Source) -> str:
        try:
            await (shared if item == 1 else anyio.lowlevel.checkpoint())
        except BaseException as error:
            return repr(own_error(error))
        return "well"

    manager = Outcomes(
        range(4), run=run, open_source=Scheduler().source, concurrency=1, ordered=True, buffer=0
    )
    async with manager as reading:
        found = [outcome async for outcome in reading]
    assert [each[:20] for each in found] == ["well", "RuntimeError('a job ", "well", "well"]
    mine = LookupError()
    assert own_error(mine) is mine
    theirs = asyncio.CancelledError()
    assert own_error(theirs).__cause__ is theirs
    for error in (KeyboardInterrupt(), SystemExit(), GeneratorExit()):
        with pytest.raises(type(error)):
            own_error(error)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await run(0, 0, Scheduler().source())
        pytest.fail("a true cancellation was taken for an error")


async def test_a_foreign_cancellation_that_escapes_ends_the_map_only() -> None:
    """The reader gets an error; neither it nor its task is cancelled."""

    async def run(_: int, item: int, __: Source) -> int:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match=r"^a job awaited"):
        await all_of([], outcomes_of(range(3), run))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("source_ends", [False, True])
async def test_a_worker_that_is_cancelled_ends_the_map_only(source_ends: bool) -> None:
    """A job that cancels its own task is told of, and the reader does not wait for ever."""

    async def run(_: int, item: int, __: Source) -> int:
        if item == 1:
            task = asyncio.current_task()
            assert task is not None
            await anyio.wait_all_tasks_blocked()
            task.cancel()
        await anyio.sleep_forever()
        return item

    items = range(2 if source_ends else 9)
    with (
        anyio.fail_after(5),
        pytest.raises(RuntimeError, match=r"^the tasks that ran this map were cancelled$"),
    ):
        await all_of([], outcomes_of(items, run, ordered=True))


async def test_whoever_cancels_all_tasks_ends_the_map() -> None:
    """The reader is told when the tasks behind a map are gone."""
    async with outcomes_of(range(9), never) as reading:
        await anyio.wait_all_tasks_blocked()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(RuntimeError, match=r"^the tasks that ran this map were cancelled$"):
            await anext(reading)


@pytest.mark.slow
async def test_a_generator_that_is_dropped_half_way_cancels_nobody() -> None:
    """Under asyncio the block may be left in another task than the one that entered it."""
    ended = 0

    async def run(_: int, item: int, __: Source) -> int:
        nonlocal ended
        try:
            await anyio.sleep(0 if item == 0 else 60)
        finally:
            ended += 1
        return item

    async def results() -> AsyncIterator[int]:
        async with outcomes_of(range(9), run) as reading:
            async for outcome in reading:
                yield outcome

    async for _ in results():
        break
    gc.collect()
    await until(lambda: ended == 3)
    await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)


async def test_leaving_waits_for_the_jobs_though_cancelled_again() -> None:
    """A second cancellation while the block is left does not leave jobs behind."""
    cleaned = 0

    async def run(_: int, item: int, __: Source) -> int:
        nonlocal cleaned
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
            cleaned += 1
        return item

    task = asyncio.ensure_future(all_of([], outcomes_of(range(9), run)))
    await anyio.wait_all_tasks_blocked()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == 2


def lingering(over: anyio.Event) -> Callable[[int, int, Source], Awaitable[int]]:
    """A job that runs until it is cancelled, and then on until `over`."""

    async def run(_: int, item: int, __: Source) -> int:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await over.wait()
        return item

    return run


async def test_who_is_cancelled_while_leaving_is_cancelled() -> None:
    """Once the jobs have ended: that the block waited for them loses no cancellation."""
    leaving, over = anyio.Event(), anyio.Event()

    async def leave() -> None:
        async with outcomes_of(range(9), lingering(over)):
            await anyio.wait_all_tasks_blocked()
            leaving.set()

    task = asyncio.ensure_future(leave())
    await leaving.wait()
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    over.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_leaving_a_cancelled_scope_waits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scope cancels its task again and again; the waiting is not begun as often."""
    over, waits = anyio.Event(), []
    wait = asyncio.wait

    async def counting(tasks: Any) -> Any:
        waits.append(tasks)
        return await wait(tasks)

    monkeypatch.setattr(asyncio, "wait", counting)
    with anyio.CancelScope() as scope:
        async with outcomes_of(range(9), lingering(over)):
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            asyncio.get_running_loop().call_later(0.02, over.set)
    assert len(waits) == 1


@on_both_loops
async def test_leaving_at_once_starts_nothing() -> None:
    """A block that is left before its workers ran does not run a job."""
    ran: list[int] = []

    async def run(_: int, item: int, __: Source) -> int:
        ran.append(item)
        return item

    async with outcomes_of(range(9), run):
        pass
    await anyio.wait_all_tasks_blocked()
    assert ran == []


@on_both_loops
@pytest.mark.parametrize("read", [0, 1, 9])
async def test_an_async_generator_of_jobs_is_closed(read: int) -> None:
    """It is closed when the block is left early, and ends by itself otherwise."""
    closed: list[bool] = []

    async def jobs() -> AsyncGenerator[int]:
        try:
            for number in range(9):
                yield number
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            closed.append(True)

    source = jobs()
    async with outcomes_of(source) as reading:
        await anyio.wait_all_tasks_blocked()
        for _ in range(read):
            await anext(reading)
        await anyio.wait_all_tasks_blocked()
    assert closed == [True]


@on_both_loops
async def test_a_generator_of_jobs_is_closed_in_peace() -> None:
    """Though the block is left since it was cancelled."""
    closed: list[bool] = []

    async def jobs() -> AsyncGenerator[int]:
        try:
            while True:
                yield 1
        finally:
            await anyio.sleep(0.001)
            closed.append(True)

    with anyio.CancelScope() as scope:
        async with outcomes_of(jobs()) as reading:
            await anext(reading)
            scope.cancel()
            await anyio.sleep_forever()
    assert closed == [True]


@on_both_loops
async def test_a_generator_that_fails_to_close_is_told_of() -> None:
    """Its error is raised, unless the block has one of its own."""

    async def jobs(how: Callable[[], Awaitable[None]]) -> AsyncGenerator[int]:
        try:
            while True:
                yield 1
        finally:
            await how()

    async def fail() -> None:
        raise LookupError("of the generator")

    with pytest.raises(LookupError):
        async with outcomes_of(jobs(fail)) as reading:
            await anext(reading)
    with pytest.raises(KeyError):
        async with outcomes_of(jobs(fail)) as reading:
            await anext(reading)
            raise KeyError("of the block")


@on_both_loops
async def test_a_generator_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing it has its time, after which the block is left all the same."""
    monkeypatch.setattr("prodia_async._map.CLOSE_SECONDS", 0.02)

    async def jobs() -> AsyncGenerator[int]:
        try:
            while True:
                yield 1
        finally:
            await anyio.sleep(60)

    before = time.monotonic()
    async with outcomes_of(jobs()) as reading:
        await anext(reading)
    assert time.monotonic() - before < 30


@on_both_loops
async def test_there_are_no_more_workers_than_could_do_anything() -> None:
    """However wide the window, those are as many as can be in flight or wait, and one."""
    manager = outcomes_of(range(100), never, buffer=100)
    async with manager:
        await anyio.wait_all_tasks_blocked()
        assert "11 under way" in repr(manager)


@on_both_loops
@pytest.mark.parametrize(("ordered", "window"), [(False, 3), (True, 5)])
async def test_how_far_ahead_of_the_reader(ordered: bool, window: int) -> None:
    """So many, and some to lie unread; in order twice as many, for one may hold back the rest."""
    manager = outcomes_of(range(100), never, ordered=ordered, buffer=1)
    async with manager:
        await anyio.wait_all_tasks_blocked()
        assert f"{window} under way" in repr(manager)


@on_both_loops
async def test_how_many_are_left() -> None:
    """Known where the jobs can be counted, and told as they are pulled."""
    for items, left in ((list(range(9)), 7.0), (iter(range(9)), inf)):
        source = Scheduler().source()
        async with outcomes_of(items, never, open_source=lambda source=source: source):  # type: ignore[misc]  # bound in the loop
            await anyio.wait_all_tasks_blocked()
            assert source.left == left


@on_both_loops
async def test_who_is_told_of_the_end() -> None:
    """Once, when the block was left and everything has ended."""
    ended: list[str] = []

    async def run(_: int, item: int, __: Source) -> int:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("job")
        return item

    async with Outcomes(
        range(2),
        run=run,
        open_source=Scheduler().source,
        concurrency=2,
        ordered=False,
        buffer=0,
        on_leave=lambda: ended.append("all"),
    ):
        await anyio.wait_all_tasks_blocked()
        assert ended == []
    assert ended == ["job", "job", "all"]


async def test_one_is_called_at_a_time() -> None:
    """Whoever comes to look for the next job calls the next one in turn."""
    manager = outcomes_of(range(9))
    seated = [anyio.Event() for _ in range(3)]
    manager._seated = list(seated)
    for _ in range(2):
        manager._call_for_next()
    assert [each.is_set() for each in seated] == [False, False, True]
    another: Any = outcomes_of(range(9))
    another._group = SimpleNamespace(start_soon=lambda work: work)
    for _ in range(2):
        another._call_for_next()
    assert another._workers == 1


# Ending early.


@on_both_loops
@pytest.mark.parametrize("ordered", [False, True])
async def test_stop_pulls_no_more_and_loses_nothing(ordered: bool) -> None:
    """The loop ends by itself when those that were started have come."""
    pulled = at_stop = 0

    def endless() -> Iterator[int]:
        nonlocal pulled
        while True:
            yield (pulled := pulled + 1)

    manager = outcomes_of(endless(), ordered=ordered)
    found: list[int] = []
    with anyio.fail_after(5):
        async with manager as reading:
            async for outcome in reading:
                found.append(outcome)
                if len(found) == 7:
                    manager.stop()
                    manager.stop()
                    at_stop = pulled
    assert sorted(found) == list(range(1, at_stop + 1))
    assert pulled == at_stop


@on_both_loops
async def test_stop_before_the_block_starts_nothing() -> None:
    """A signal that comes too early is not lost."""
    manager = outcomes_of(range(9))
    manager.stop()
    found: list[int] = []
    with anyio.fail_after(5):
        await all_of(found, manager)
    assert found == []


@on_both_loops
async def test_what_was_stopped_ends_well_in_a_client_that_is_closed() -> None:
    """It had nothing more to send; so it is when a client is drained and then closed."""
    scheduler = Scheduler()

    def closing() -> Source:
        source = scheduler.source()
        scheduler.close()
        return source

    manager = outcomes_of(range(9), open_source=closing)
    manager.stop()
    with anyio.fail_after(5):
        await all_of([], manager)


@on_both_loops
async def test_stop_ends_a_source_that_waits() -> None:
    """An async source is cancelled at its next item, and closed."""
    closed: list[bool] = []

    async def items() -> AsyncGenerator[int]:
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            closed.append(True)

    manager = outcomes_of(items())
    found: list[int] = []
    with anyio.fail_after(5):
        async with manager as reading:
            async for outcome in reading:
                found.append(outcome)
                await anyio.wait_all_tasks_blocked()
                manager.stop()
    assert (found, closed) == ([1], [True])


@on_both_loops
async def test_stop_while_a_reader_waits_for_nothing() -> None:
    """With nothing under way the reader is told at once."""

    async def items() -> AsyncGenerator[int]:
        await anyio.sleep_forever()
        yield 1

    manager = outcomes_of(items())
    found: list[int] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(all_of, found, manager)
            await anyio.wait_all_tasks_blocked()
            manager.stop()
    assert found == []


@on_both_loops
async def test_all_sources_of_a_scheduler_stop_together() -> None:
    """As a client that drains has them do; a map that begins afterwards ends at once."""
    scheduler = Scheduler()
    found: list[int] = []

    async def endless() -> AsyncIterator[int]:
        while True:
            await anyio.lowlevel.checkpoint()
            yield 1

    with anyio.fail_after(5):
        async with outcomes_of(endless(), open_source=scheduler.source) as reading:
            async for outcome in reading:
                found.append(outcome)
                if len(found) == 5:
                    scheduler.stop_sources()
        await all_of(found, outcomes_of(endless(), open_source=scheduler.source))
    assert 5 <= len(found) <= 8


@on_both_loops
async def test_what_was_not_read_can_be_had() -> None:
    """After the block was left, by an error too: once, and in the order of the items."""

    async def run(_: int, item: int, __: Source) -> int:
        await anyio.sleep(0.01 * (3 - item))
        return item

    manager = outcomes_of(range(100), run, buffer=1)
    with pytest.raises(LookupError):
        async with manager:
            await until(lambda: "3 unread" in repr(manager))
            with pytest.raises(RuntimeError, match=r"^unread outcomes are .* read them here$"):
                manager.unread()
            read = await anext(manager)
            await until(lambda: "3 unread" in repr(manager))
            raise LookupError
    assert manager.unread() == tuple(item for item in range(4) if item != read)
    assert manager.unread() == ()
    assert repr(manager).startswith("<Outcomes 4 read, 0 unread, ")


@pytest.mark.slow
def test_ctrl_c_in_a_loop_over_outcomes(tmp_path: Path) -> None:
    """Stopped by its signal, every charged job is saved; cut off, all that came is to be had."""
    script = tmp_path / "loop.py"
    script.write_text(
        """
import asyncio, signal, sys
from prodia_async import AsyncProdia

async def main(url, how):
    saved = []
    async with AsyncProdia("t", base_url=url, max_concurrency=4, adaptive=False) as client:
        outcomes = client.map({"type": "inference.ping.v1"} for _ in range(10**6))
        if how == "stop":
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, outcomes.stop)
        try:
            async with outcomes:
                async for outcome in outcomes:
                    saved.append(outcome.unwrap())
                    print(len(saved), flush=True)
                    if how == "leave":
                        await asyncio.sleep(0.3)
        finally:
            saved += [each.unwrap() for each in outcomes.unread()]
            print("saved", len(saved), flush=True)

try:
    asyncio.run(main(*sys.argv[1:]))
except KeyboardInterrupt:
    pass
""",
        encoding="utf-8",
    )
    for how in ("stop", "leave"):
        with RawServer() as server:
            process = subprocess.Popen(
                [sys.executable, script, server.url, how], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            with process:
                try:
                    for line in process.stdout:
                        if line == "2\n":
                            if how == "leave":  # until the window is full, and all have come
                                time.sleep(0.2)
                            process.send_signal(signal.SIGINT)
                            break
                    rest = process.stdout.read()
                finally:
                    process.kill()
            saved = int(rest.rpartition("saved ")[2])
            assert saved == server.charges >= 4, how


# Jobs that wait for the server do not stop the others.


def of_two_types(
    scheduler: Scheduler,
    items: Iterable[int],
    waits: Callable[[int], float | None],
    *,
    source: Source | None = None,
    ordered: bool = False,
) -> Outcomes[int, int]:
    """Quick jobs, those for which `waits` is ``None``; slow ones are first refused for so long."""

    def job_type_of(item: int) -> str:
        return "quick" if waits(item) is None else "slow"

    async def run(_: int, item: int, source: Source) -> int:
        ticket = scheduler.ticket(job_type_of(item), source)
        try:
            await ticket.start()
            if wait := waits(item):
                ticket.refused(wait, retry_after=wait)
                await ticket.start()
            await anyio.lowlevel.checkpoint()
            ticket.released(served=True)
        finally:
            ticket.close()
        return item

    return Outcomes(
        items,
        run=run,
        open_source=(lambda: source) if source is not None else scheduler.source,
        concurrency=scheduler.statistics().max_concurrency,
        ordered=ordered,
        buffer=0,
        job_type_of=job_type_of,
    )


@on_both_loops
@pytest.mark.parametrize(
    ("every", "count", "wait"),
    [
        (100, 200, 0.4),
        pytest.param(2, 600, 1.0, marks=pytest.mark.slow),
        pytest.param(150, 600, 1.0, marks=pytest.mark.slow),
    ],
)
async def test_jobs_of_a_type_that_is_held_back_are_put_aside(
    every: int, count: int, wait: float
) -> None:
    """The others go on, far beyond the window; then those come too, and each once."""
    manager = of_two_types(
        Scheduler(max_concurrency=4),
        range(count),
        lambda item: (wait if item == 1 else 0.0) if item % every else None,
    )
    found: list[int] = []
    with anyio.fail_after(5):
        await all_of(found, manager)
    assert not any(item % every for item in found[: count // every])
    assert sorted(found) == list(range(count))


@on_both_loops
async def test_what_was_put_aside_is_not_run_after_a_stop() -> None:
    """The loop does not wait for a type that the server does not take."""
    manager = of_two_types(
        Scheduler(max_concurrency=2), range(100), lambda item: 0.3 if item % 2 else None
    )
    found: list[int] = []
    with anyio.fail_after(5):
        async with manager as reading:
            async for outcome in reading:
                found.append(outcome)
                if len(found) == 45:
                    manager.stop()
    assert len(found) <= 60


@on_both_loops
@pytest.mark.parametrize("ordered", [False, True])
async def test_with_only_such_left_nobody_looks_for_more(ordered: bool) -> None:
    """The source is at its end: there is nothing to do until one may start. None if ordered."""
    scheduler = Scheduler(max_concurrency=2)
    source = scheduler.source()
    manager = of_two_types(
        scheduler,
        iter(range(199)),
        lambda item: 60.0 if item else None,
        source=source,
        ordered=ordered,
    )
    with anyio.fail_after(5):
        async with manager as reading:
            assert await anext(reading) == 0
            await anyio.wait_all_tasks_blocked()
    if ordered:  # the one that is put aside would hold back all that follow it
        assert source.aside == 0
    else:
        assert source.aside > 2 * YIELD_EVERY
        assert (source.ended, source.left) == (True, 0)


# With the scheduler, through the client.


@on_both_loops
async def test_a_busy_type_does_not_stop_a_map_of_another() -> None:
    """Jobs of others that wait for a busy type take no room from a map."""

    def serve(conversation: Conversation) -> None:
        body = conversation.server.requests[-1].body
        if b"veo" in body:
            conversation.stall()
        else:
            conversation.send(http())

    with RawServer([serve] * 99) as server:
        video = {"type": "inference.veo.txt2vid.v1"}
        async with AsyncProdia("t", base_url=server.url, max_concurrency=8) as prodia:
            async with anyio.create_task_group() as tasks:
                for _ in range(6):
                    tasks.start_soon(prodia.job, video)
                await until(lambda: len(server.requests) >= 4)
                with anyio.fail_after(5):
                    async with prodia.map([PING] * 20) as outcomes:
                        done = [outcome.unwrap() async for outcome in outcomes]
                tasks.cancel_scope.cancel()
    assert len(done) == 20


@on_both_loops
async def test_a_client_that_is_closed_says_so() -> None:
    """Before, the first reading raises; meanwhile, what was done still comes out."""
    with RawServer() as server:
        prodia = client(server, max_concurrency=2)
        found: list[JobOutcome] = []
        with pytest.raises(RuntimeError, match="client is closed"):
            async with prodia.map([PING] * 30) as outcomes:
                async for outcome in outcomes:
                    found.append(outcome)
                    await prodia.aclose()
        assert 1 <= len(found) <= 4
        with pytest.raises(RuntimeError, match="client is closed"):
            async with prodia.map([PING] * 3) as outcomes:
                await anext(outcomes)


@on_both_loops
async def test_a_client_that_drains_ends_a_map_whose_source_blocks() -> None:
    """Its loop ends with the jobs that were sent, and nothing is left."""

    async def jobs() -> AsyncIterator[dict[str, str]]:
        yield PING
        yield PING
        await anyio.sleep_forever()

    with RawServer() as server:
        prodia = client(server, max_concurrency=4)
        found: list[JobOutcome] = []
        with anyio.fail_after(5):
            async with prodia.map(jobs()) as outcomes:
                async for outcome in outcomes:
                    found.append(outcome)
                    if len(found) == 2:
                        await anyio.wait_all_tasks_blocked()
                        assert await prodia.drain() == ()
        assert [each.error for each in found] == [None, None]
        assert server.charges == 2


@on_both_loops
async def test_a_tag_may_be_anything() -> None:
    """What cannot be pickled, copied or compared comes back as itself, whatever its job came to."""

    class Sealed:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise TypeError("it cannot be compared")

        def __reduce_ex__(self, protocol: object) -> NoReturn:
            raise TypeError("it cannot be pickled or copied")

    told: list[object] = []
    bad = say(http("400 Bad Request", b"no", content_type="text/plain"))
    with RawServer([say(http()), bad] * 3) as server:
        async with client(
            server, max_concurrency=1, hook=lambda details: told.append(details.tag)
        ) as prodia:
            for tag in (Sealed(), threading.Lock(), lambda: None):
                told.clear()
                with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
                    pickle.dumps(tag)
                async with prodia.map([JobRequest(PING, tag=tag)] * 2, ordered=True) as outcomes:
                    found = [outcome async for outcome in outcomes]
                assert [each.tag is tag for each in found] == [True, True]
                assert [each.error is None for each in found] == [True, False]
                assert all(each is tag for each in told)
                assert len(told) == 8
                error = found[1].error
                assert str(pickle.loads(pickle.dumps(error))) == str(error), "it has no tag"
                assert pickle.loads(pickle.dumps(found[0].response)) == found[0].response


@on_both_loops
async def test_progress_is_told_as_frozen_values() -> None:
    """After each job, with the total where it is known; a function that fails harms nobody."""
    told: list[MapProgress] = []

    def tell(progress: MapProgress) -> None:
        told.append(progress)
        raise LookupError("a broken display")

    bad = say(http("400 Bad Request", b"no", content_type="text/plain"))
    with RawServer([bad]) as server:
        async with client(server, max_concurrency=1) as prodia:
            for jobs in ([PING] * 3, iter([PING])):
                async with prodia.map(jobs, progress=tell) as outcomes:
                    async for _ in outcomes:
                        pass
    assert [(each.total, each.done, each.failed) for each in told] == [
        (3, 1, 1), (3, 2, 1), (3, 3, 1), (None, 1, 0),
    ]  # fmt: skip
    with pytest.raises(AttributeError):
        told[0].done = 7  # type: ignore[misc]  # the point of the test


@on_both_loops
async def test_a_queue_that_is_full_sheds_load() -> None:
    """One job too many fails at once, unsent; those of a map do not count themselves out."""

    def stall(conversation: Conversation) -> None:
        conversation.stall()

    with RawServer([stall] * 9) as server:
        async with client(server, max_concurrency=1, max_queued=1) as prodia:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(prodia.job, PING)
                await until(lambda: len(server.requests) == 1)
                tasks.start_soon(prodia.job, PING)
                await anyio.wait_all_tasks_blocked()
                with anyio.fail_after(1), pytest.raises(QueueFullError):
                    await prodia.job(PING)
                async with prodia.map([PING] * 3):
                    await anyio.wait_all_tasks_blocked()
                    assert prodia.statistics().queued == 2
                tasks.cancel_scope.cancel()
        assert len(server.requests) == 1
