"""
Many requests at once: workers that pull from an iterable and deliver outcomes.

There are never more workers than jobs that may be under way, and a worker
pulls the next job only when one could start, so a million jobs cost the
memory of a few dozen. Jobs under way and outcomes not yet read count against
one window, so a consumer that stops reading stops new work.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Outcomes(Generic[Item, Outcome]):
    """
    The outcomes of many jobs: ``async with`` starts the work, ``async for`` reads.

    Args:
        items: Iterable or async iterable; pulled lazily, by one worker at a time.
        run: Runs one item to its outcome. Whatever can go wrong with one item
            is part of its outcome.
        room: Waits until one more item is worth having.
        concurrency: The most items under way.
        ordered: Deliver in the order of the items rather than as completed.
        buffer: Outcomes that may lie unread beyond `concurrency`.
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
    ) -> None:
        self._source: Iterator[Item] | AsyncIterator[Item]
        self._source = aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        self._run = run
        self._room = room
        self._concurrency = concurrency
        self._ordered = ordered
        # In order, one slow job holds back the outcomes of those behind it;
        # twice the window keeps the workers busy meanwhile. Chosen.
        self._window = concurrency * (2 if ordered else 1) + buffer
        self._pulling = anyio.Lock(fast_acquire=True)
        self._workers = 0
        self._idle = 0
        self._pulled = 0
        self._delivered = 0
        self._ready: dict[int, Outcome] = {}
        self._exhausted = False
        self._source_error: BaseException | None = None
        self._news = anyio.Event()
        self._space = anyio.Event()
        self._group: TaskGroup | None = None

    def __repr__(self) -> str:
        running = self._pulled - self._delivered - len(self._ready)
        return f"<Outcomes {self._delivered} read, {len(self._ready)} unread, {running} under way>"

    async def __aenter__(self) -> AsyncIterator[Outcome]:
        group = anyio.create_task_group()
        await group.__aenter__()
        self._group = group
        self._add_worker()
        return self

    async def __aexit__(self, *_: object) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.cancel_scope.cancel()
            # The block's own error, if there is one, goes through as it is: told
            # about it, the group would wrap it in an ExceptionGroup.
            await group.__aexit__(None, None, None)

    def __aiter__(self) -> AsyncIterator[Outcome]:
        return self

    async def __anext__(self) -> Outcome:
        if self._group is None:
            raise RuntimeError("read outcomes inside the block: async with client.map(...)")
        while not self._has_next():
            if self._exhausted and self._delivered == self._pulled:
                if self._source_error is not None:
                    raise self._source_error
                raise StopAsyncIteration
            self._news = anyio.Event()
            await self._news.wait()
        index = self._delivered if self._ordered else next(iter(self._ready))
        outcome = self._ready.pop(index)
        self._delivered += 1
        self._space.set()
        return outcome

    def _has_next(self) -> bool:
        return self._delivered in self._ready if self._ordered else bool(self._ready)

    def _add_worker(self) -> None:
        assert self._group is not None  # noqa: S101  (only while the block is open)
        self._workers += 1
        self._idle += 1
        self._group.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            async with self._pulling:
                item = await self._pull()
                if item is None:
                    break
                index = self._pulled
                self._pulled += 1
                self._idle -= 1
                if not self._idle and self._workers < self._concurrency:
                    self._add_worker()
            self._ready[index] = await self._run(index, item[0])
            self._idle += 1
            self._news.set()
        self._news.set()

    async def _pull(self) -> tuple[Item] | None:
        """Return the next item when one may start, or ``None`` when there is none."""
        while self._pulled - self._delivered >= self._window:
            self._space = anyio.Event()
            await self._space.wait()
        if self._exhausted:
            return None
        await self._room()
        try:
            if isinstance(self._source, AsyncIterator):
                return (await anext(self._source),)
            return (next(self._source),)
        except (StopIteration, StopAsyncIteration):
            self._exhausted = True
        except Exception as error:  # noqa: BLE001  (raised to the reader after the outcomes)
            self._exhausted = True
            self._source_error = error
        return None
