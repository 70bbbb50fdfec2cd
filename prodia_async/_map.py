"""
Many requests at once: workers that pull from an iterable and deliver outcomes.

A worker pulls the next job only when its `Source` wants one (`_source`), so a
million jobs cost the memory of a few dozen. Jobs under way and outcomes not
yet read count against one window, so a consumer that stops reading stops new
work; jobs that wait for the server do not, so that a type that is held back
does not stop the others.

One worker at a time looks for the next job. Where that needs no waiting (a
plain iterable, a job wanted) it is done on the spot, for nothing can come in
between. Else that worker is the one who waits, and those who finish meanwhile
sit down until they are called: by whoever got a job, so that somebody always
looks for the next while one is to be had. Workers are alike, so it does not
matter who overtakes whom; the jobs stay in order.

Under asyncio the workers belong to a task of their own rather than to the one
that entered the block. So the block may be left in another task, as happens
when it stands in an async generator that is dropped half-way. Trio has no such
tasks: there it is a nursery, and what trio says of nurseries in generators holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.lowlevel

from ._closing import until_over
from ._source import AHEAD, Source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

    from anyio.abc import TaskGroup

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

YIELD_EVERY = 64
"""Jobs after which a worker lets others run, though it never had to wait. Chosen."""

CLOSE_SECONDS = 5.0
"""An async generator of jobs may take so long to close when the block is left early. Chosen."""


class Outcomes(Generic[Item, Outcome]):
    """
    The outcomes of many jobs: ``async with`` starts the work, ``async for`` reads.

    Several tasks may read; each outcome goes to one of them. The block is
    entered once.

    In an async generator of your own (``async with ...: yield``) a reader that
    leaves early does not leave the block: that happens whenever the generator
    is closed. Read such a generator in ``async with contextlib.aclosing(...)``;
    otherwise jobs go on, and are paid, until it is collected, and under trio
    its nursery is left in the wrong task.

    Several types of jobs in one source do not stop each other: those of a type
    that the server is slow to take are put aside, some thousands of them at the
    most (`MOST_ASIDE`), unless outcomes are wanted in order.

    Args:
        items: Iterable or async iterable; pulled lazily, one at a time. If it
            raises, what was started still comes out, and then its error is
            raised; anything but an `Exception` is raised to the reader at
            once. An async generator that still has items when the block is left
            is closed, in at most `CLOSE_SECONDS`.
        run: Runs one item to its outcome, given its index, itself and the
            source. Whatever can go wrong with one item is part of its outcome
            (see `own_error`); what is raised all the same ends everything, and
            is raised to the reader.
        open_source: Makes what says whether one more item is worth having, in
            the loop that runs all this. What it raises counts as the error of
            `items`.
        concurrency: The most items that can make progress at once; how many
            are under way is up to the source, and never more than the window.
        ordered: Deliver in the order of the items rather than as completed.
        buffer: Outcomes that may lie unread beyond `concurrency`.
        job_type_of: Tells an item's job type; ``None`` for what has none.
            Without it all are taken for one type.
        on_leave: Called once the block was left and everything has ended.
    """

    def __init__(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        run: Callable[[int, Item, Source], Awaitable[Outcome]],
        open_source: Callable[[], Source],
        concurrency: int,
        ordered: bool,
        buffer: int,
        job_type_of: Callable[[Item], str | None] | None = None,
        on_leave: Callable[[], None] | None = None,
    ) -> None:
        self._plain: Iterator[Item] | None = None
        self._async: AsyncIterator[Item] | None = None
        if isinstance(items, AsyncIterable):
            self._async = aiter(items)
        else:
            self._plain = iter(items)
        self._to_close: AsyncGenerator[Item, Any] | None = None
        # How many are left to be fetched, where it is known: no probe near the end.
        self._left: float = len(items) if isinstance(items, Sized) else inf
        self._ordered = ordered
        self._on_leave = on_leave
        self._run = run
        self._open_source = open_source
        self._source: Source | None = None
        # In order, a job that was put aside would hold back all that follow it.
        self._job_type_of = None if ordered else job_type_of
        # In order, one slow job holds back the outcomes of those behind it;
        # twice the window keeps the workers busy meanwhile. Chosen.
        self._window = concurrency * (2 if ordered else 1) + buffer
        # As many as can be in flight and wait in the scheduler, however wide the window.
        self._most_workers = concurrency * (1 + AHEAD) + 1
        self._workers = 0
        self._seated: list[anyio.Event] = []
        self._is_looking = False  # a worker waits for the next item
        self._is_coming = False  # a worker was called, or started, to look for it
        self._pulling: anyio.CancelScope | None = None  # an async iterable's next item
        self._pulled = 0
        self._delivered = 0
        self._ready: dict[int, Outcome] = {}
        self._exhausted = False
        self._is_stopped = False
        self._source_error: Exception | None = None
        self._fatal: BaseException | None = None  # raised to the reader before any outcome
        self._fatal_was_read = False
        self._news: anyio.Event | None = None  # readers wait
        self._scope: anyio.CancelScope | None = None
        self._group: TaskGroup
        self._is_open = False
        self._host: asyncio.Task[None] | None = None
        self._nursery: TaskGroup | None = None

    def __repr__(self) -> str:
        return (
            f"<Outcomes {self._delivered} read, {len(self._ready)} unread, "
            f"{self._under_way()} under way>"
        )

    def stop(self) -> None:
        """
        Pull no more; the loop ends when those that were started have come.

        May be called at any time, from a signal handler of the event loop too,
        before the block is entered and more than once. An async source that
        waits for its next item is cancelled. What was pulled and never started,
        because the server takes none of its type, is not run.
        """
        self._is_stopped = True
        if self._source is None:
            return
        if not self._source.stopped:
            self._source.stop()  # which calls this again
            return
        if self._pulling is not None:
            self._pulling.cancel()

    def unread(self) -> tuple[Outcome, ...]:
        """
        Return the outcomes that came and were not read when the block was left.

        They are in the order of their items, and are handed out once::

            async with client.map(jobs) as outcomes:
                try:
                    async for outcome in outcomes:
                        save(outcome)
                except BaseException: ...

        Raises:
            RuntimeError: The block was not left yet; read them there.
        """
        if self._is_open:
            raise RuntimeError("unread outcomes are what is left after the block; read them here")
        outcomes = tuple(self._ready[index] for index in sorted(self._ready))
        self._delivered += len(outcomes)
        self._ready.clear()
        return outcomes

    def _under_way(self) -> int:
        aside = self._source.aside if self._source is not None else 0
        return self._pulled - self._delivered - len(self._ready) - aside

    async def __aenter__(self) -> Self:
        if self._scope is not None:
            raise RuntimeError("the block of a map is entered once; call map again")
        self._scope = anyio.CancelScope()
        self._is_open = True
        if task := _asyncio_task():
            self._host = task.get_loop().create_task(self._host_workers())
        else:
            self._nursery = anyio.create_task_group()
            await self._nursery.__aenter__()
            self._nursery.start_soon(self._host_workers)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert self._scope is not None  # noqa: S101  (`__aenter__` made it)
        self._is_open = False
        self._tell_readers()
        self._scope.cancel()
        try:
            if self._host is not None:
                await until_over(self._host)
                if not self._host.cancelled():
                    self._host.result()
            else:
                assert self._nursery is not None  # noqa: S101  (it is either of the two)
                # The block's own error, if there is one, goes through as it is: told
                # about it, the group would wrap it in an ExceptionGroup.
                await self._nursery.__aexit__(None, None, None)
        finally:
            if self._source is not None:
                self._source.close()
            await self._close_items(is_failing=error is not None)
            if self._on_leave is not None:
                self._on_leave()
        if error is None and self._fatal is not None and not self._fatal_was_read:
            raise self._fatal

    async def _close_items(self, *, is_failing: bool) -> None:
        if self._to_close is None or self._exhausted:
            return
        try:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await self._to_close.aclose()
        except Exception:
            if not is_failing:  # else the block's own error goes through as it is
                raise

    def __aiter__(self) -> AsyncIterator[Outcome]:
        return self

    async def __anext__(self) -> Outcome:
        while True:
            if not self._is_open:
                raise RuntimeError("read outcomes inside the block: async with client.map(...)")
            if self._fatal is not None:
                self._fatal_was_read = True
                raise self._fatal
            if self._has_next():
                break
            if self._is_over():
                if self._source_error is not None:
                    raise self._source_error
                raise StopAsyncIteration
            if self._news is None:
                self._news = anyio.Event()
            await self._news.wait()
        index = self._delivered if self._ordered else next(iter(self._ready))
        outcome = self._ready.pop(index)
        self._delivered += 1
        assert self._source is not None  # noqa: S101  (it gave the item)
        self._source.taken -= 1
        self._source.tell()
        if self._is_over():
            self._tell_readers()  # of whom there may be more
        return outcome

    def _has_next(self) -> bool:
        return self._delivered in self._ready if self._ordered else bool(self._ready)

    def _is_over(self) -> bool:
        return self._has_ended() and not self._ready and not self._under_way()

    def _tell_readers(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    def _stop(self, fatal: BaseException) -> None:
        """End everything at once; the reader is told why."""
        assert self._scope is not None  # noqa: S101  (only while the block is open)
        self._fatal = fatal
        self._scope.cancel()
        self._tell_readers()

    # What the workers do.

    async def _host_workers(self) -> None:
        assert self._scope is not None  # noqa: S101  (only while the block is open)
        try:
            self._join()
            with self._scope:
                async with anyio.create_task_group() as self._group:
                    self._add_worker()
        finally:
            if self._is_open and self._fatal is None:
                if self._under_way() or not self._exhausted:
                    self._fatal = RuntimeError("the tasks that ran this map were cancelled")
                self._tell_readers()

    def _join(self) -> None:
        try:
            source = self._open_source()
        except Exception as error:  # noqa: BLE001  (raised to the reader)
            self._items_failed(error)
            return
        source.window = self._window
        source.left = self._left
        source.on_stop = self.stop
        self._source = source
        if self._is_stopped or source.stopped:
            source.stopped = True
            self._exhaust()

    def _call_for_next(self) -> None:
        """Have somebody look for the next item, unless all are busy."""
        if self._is_coming:
            return
        if self._seated:
            self._is_coming = True
            self._seated.pop().set()
        elif self._workers < self._most_workers:
            self._add_worker()

    def _add_worker(self) -> None:
        self._workers += 1
        self._is_coming = True
        self._group.start_soon(self._work)

    async def _work(self) -> None:
        try:
            await self._work_on()
        except BaseException as error:
            if _must_go_on(error):
                raise
            self._stop(_as_raised(error, "a job"))

    async def _work_on(self) -> None:
        self._is_coming = False
        in_a_row = 0
        while self._is_open:
            if self._is_looking:
                called = anyio.Event()
                self._seated.append(called)
                await called.wait()
                self._is_coming = False
                continue
            if in_a_row == YIELD_EVERY:
                in_a_row = 0
                await anyio.lowlevel.checkpoint()
                continue
            in_a_row += 1
            item = self._take() or await self._look()
            if item is None:
                return
            assert self._source is not None  # noqa: S101  (it gave the item)
            self._call_for_next()
            index = item[0]
            self._ready[index] = await self._run(index, item[1], self._source)
            if self._news is not None and (self._has_next() or self._is_over()):
                self._tell_readers()

    def _take(self) -> tuple[int, Item] | None:
        """Return the next item to run, with its index, if that needs no waiting."""
        source = self._source
        if source is None:
            return None
        try:
            for _ in range(YIELD_EVERY):
                if not source.wants_more():
                    return None
                taken: tuple[int, Item] | None = source.take_up()
                if taken is not None:
                    return taken
                if self._plain is None or self._exhausted:
                    return None
                if (item := self._number(source, next(self._plain))) is not None:
                    return item
        except StopIteration:
            self._exhaust()
        except BaseException as error:  # noqa: BLE001  (raised to the reader)
            self._items_failed(error)
        return None

    def _number(self, source: Source, item: Item) -> tuple[int, Item] | None:
        """Count an item that was pulled; returns it unless it was put aside."""
        numbered = (self._pulled, item)
        self._pulled += 1
        source.taken += 1
        source.left -= 1
        job_type = self._job_type_of(item) if self._job_type_of is not None else None
        if job_type is not None and source.put_aside(job_type, numbered):
            return None
        return numbered

    async def _look(self) -> tuple[int, Item] | None:
        """Return the next item when one may start, or ``None`` when there is none."""
        self._is_looking = True
        item: tuple[int, Item] | None = None
        try:
            while item is None and not self._has_ended():
                item = await self._wait_for_item()
        except BaseException as error:
            if _must_go_on(error):
                raise
            self._items_failed(error)
        finally:
            self._is_looking = False
        if item is None:
            for called in self._seated:
                called.set()
            self._seated.clear()
            self._tell_readers()
        return item

    async def _wait_for_item(self) -> tuple[int, Item] | None:
        """Return the next item, or ``None`` if there is none yet, or none any more."""
        source = self._source
        assert source is not None  # noqa: S101  (without one all has ended)
        if not await source.until_wanted():
            self._exhaust()
        elif (item := self._take()) is not None:
            return item
        elif self._async is not None and not self._exhausted:
            return await self._pull(source, self._async)
        else:
            await anyio.lowlevel.checkpoint()
        return None

    async def _pull(self, source: Source, items: AsyncIterator[Item]) -> tuple[int, Item] | None:
        if isinstance(items, AsyncGenerator):
            self._to_close = items
        self._pulling = anyio.CancelScope()
        with self._pulling:
            try:
                return self._number(source, await anext(items))
            except StopAsyncIteration:
                self._exhaust()
        return None

    def _has_ended(self) -> bool:
        """Return whether nothing is left to pull, nor to take up."""
        source = self._source
        return self._exhausted and (source is None or source.stopped or not source.aside)

    def _exhaust(self) -> None:
        self._exhausted = True
        if self._source is not None:
            self._source.ended = True
            self._source.left = 0

    def _items_failed(self, error: BaseException) -> None:
        self._exhaust()
        error = _as_raised(error, "the source of a map")
        if isinstance(error, Exception):
            self._source_error = error
        else:
            self._stop(error)


def own_error(error: BaseException) -> Exception:
    """
    Return what may be an item's outcome; for an ``except BaseException`` around one item.

    A cancellation that nobody meant for this task (under asyncio: it came out
    of another, cancelled task that was awaited) ends this item only, as a
    `RuntimeError` that was raised from it. Everything else that is no
    `Exception`, a true cancellation among them, is raised again.
    """
    if isinstance(error, Exception):
        return error
    if _must_go_on(error) or isinstance(error, KeyboardInterrupt | SystemExit):
        raise error
    return _from(error, "a job awaited something that was cancelled; it was not itself")


def _must_go_on(error: BaseException) -> bool:
    """Whether it ends this very task: it is being cancelled, or thrown away with its loop."""
    if isinstance(error, Exception | KeyboardInterrupt | SystemExit):
        return False
    if not isinstance(error, asyncio.CancelledError):
        return True
    task = _asyncio_task()
    return task is not None and task.cancelling() > 0


def _as_raised(error: BaseException, who: str) -> BaseException:
    """Return what a reader can be told: no cancellation of somebody else, no false end."""
    if isinstance(error, asyncio.CancelledError):
        return _from(error, f"{who} awaited something that was cancelled; it was not itself")
    if isinstance(error, StopIteration | StopAsyncIteration):
        return _from(error, f"{who} raised {type(error).__name__}, which is not its way to end")
    return error


def _from(error: BaseException, message: str) -> RuntimeError:
    other = RuntimeError(message)
    other.__cause__ = error
    return other


def _asyncio_task() -> asyncio.Task[Any] | None:
    # In trio's guest mode asyncio's loop runs as well, but none of its tasks.
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
