"""
Many requests at once: workers that pull from an iterable and deliver outcomes.

A worker pulls the next job only when one could start, so a million jobs cost
the memory of a few dozen. Jobs under way and outcomes not yet read count
against one window, so a consumer that stops reading stops new work.

One worker at a time looks for the next job. Where that needs no waiting (a
plain iterable, the window open, room at the scheduler) it is done on the spot,
for nothing can come in between. Else that worker is the one who waits, and
those who finish meanwhile sit down until they are called: by whoever got a
job, so that somebody always looks for the next while one is to be had. Workers
are alike, so it does not matter who overtakes whom; the jobs stay in order.

Under asyncio the workers belong to a task of their own rather than to the one
that entered the block. So the block may be left in another task, as happens
when it stands in an async generator that is dropped half-way. Trio has no such
tasks: there it is a nursery, and what trio says of nurseries in generators holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.lowlevel

from ._scheduler import ROOM_FOR_WAITING, become_source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

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

    Several kinds of jobs in one source share its window: jobs of a kind that
    the server is slow to take fill it in the end, and then set the pace for
    all. A wide `buffer` puts that off; a source for each kind avoids it.

    Args:
        items: Iterable or async iterable; pulled lazily, one at a time. If it
            raises, what was started still comes out, and then its error is
            raised; anything but an `Exception` is raised to the reader at
            once. An async generator that was not begun before is closed with
            the block.
        run: Runs one item to its outcome. Whatever can go wrong with one item
            is part of its outcome (see `own_error`); what is raised all the
            same ends everything, and is raised to the reader.
        room: Waits until one more item is worth having. What it raises counts
            as the source's error.
        concurrency: The most items that can make progress at once; how many
            are under way is up to `room`, and never more than the window.
        ordered: Deliver in the order of the items rather than as completed.
        buffer: Outcomes that may lie unread beyond `concurrency`.
        has_room: Whether `room` would return at once; without it `room` is
            awaited for each item.
    """

    def __init__(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        *,
        run: Callable[[int, Item], Awaitable[Outcome]],
        room: Callable[[], Awaitable[None]],
        concurrency: int,
        ordered: bool,
        buffer: int,
        has_room: Callable[[], bool] | None = None,
    ) -> None:
        self._plain: Iterator[Item] | None = None
        self._async: AsyncIterator[Item] | None = None
        if isinstance(items, AsyncIterable):
            self._async = aiter(items)
        else:
            self._plain = iter(items)
        self._to_close = self._async if _is_unbegun_generator(self._async) else None
        self._run = run
        self._room = room
        self._has_room = has_room
        # In order, one slow job holds back the outcomes of those behind it;
        # twice the window keeps the workers busy meanwhile. Chosen.
        self._window = concurrency * (2 if ordered else 1) + buffer
        # As many as can be in flight and wait in the scheduler, however wide the window.
        self._most_workers = min(self._window, concurrency * (1 + ROOM_FOR_WAITING))
        self._workers = 0
        self._seated: list[anyio.Event] = []
        self._is_looking = False  # a worker waits for the next item
        self._is_coming = False  # a worker was called, or started, to look for it
        self._pulled = 0
        self._delivered = 0
        self._ready: dict[int, Outcome] = {}
        self._exhausted = False
        self._source_error: Exception | None = None
        self._fatal: BaseException | None = None  # raised to the reader before any outcome
        self._news: anyio.Event | None = None  # readers wait
        self._space: anyio.Event | None = None  # the worker that looks waits for the window
        self._scope: anyio.CancelScope | None = None
        self._group: TaskGroup
        self._host: asyncio.Task[None] | TaskGroup | None = None

    def __repr__(self) -> str:
        running = self._pulled - self._delivered - len(self._ready)
        return f"<Outcomes {self._delivered} read, {len(self._ready)} unread, {running} under way>"

    async def __aenter__(self) -> AsyncIterator[Outcome]:
        if self._scope is not None:
            raise RuntimeError("the block of a map is entered once; call map again")
        self._scope = anyio.CancelScope()
        if _asyncio_task() is not None:
            self._host = asyncio.create_task(self._host_workers())
        else:
            group = anyio.create_task_group()
            await group.__aenter__()
            group.start_soon(self._host_workers)
            self._host = group
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._scope is not None  # noqa: S101  (`__aenter__` made it)
        host, self._host = self._host, None
        self._tell_readers()
        self._scope.cancel()
        try:
            if isinstance(host, asyncio.Task):
                await _join(host)
            elif host is not None:
                # The block's own error, if there is one, goes through as it is: told
                # about it, the group would wrap it in an ExceptionGroup.
                await host.__aexit__(None, None, None)
        finally:
            await self._close_source(is_failing=error is not None)
        fatal, self._fatal = self._fatal, None
        if error is None and fatal is not None:
            raise fatal  # nobody has read it

    async def _close_source(self, *, is_failing: bool) -> None:
        if self._to_close is None:
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
            if self._host is None:
                raise RuntimeError("read outcomes inside the block: async with client.map(...)")
            if self._fatal is not None:
                fatal, self._fatal = self._fatal, _over()
                raise fatal
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
        if self._space is not None:
            self._space.set()
            self._space = None
        if self._is_over():
            self._tell_readers()  # of whom there may be more
        return outcome
