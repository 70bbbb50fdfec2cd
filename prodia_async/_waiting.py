"""
Waiting on purpose, and the clock that goes with it.

Backoff, Retry-After and polls wait here and nowhere else, so that a test of
somebody's app need not: while `skip_waiting` is in place the clock is put
forward instead. It moves for everything that goes by it, the deadlines of jobs
included, and to the earliest of what is waited for first. While a request is
with the server time passes as it does for everybody: an answer that takes 5 ms
is not overtaken by the retry that was to come in a second.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

LOOK_SECONDS = 0.001
"""How often somebody who would skip time looks whether the server still works. Chosen."""

STUCK_SECONDS = 0.25
"""Requests that have not moved for so long do not hold time up any more. Chosen."""


class Counts(Protocol):
    """What a scheduler counts, as far as it matters here."""

    @property
    def in_flight(self) -> int:
        """Requests that are with the server."""

    @property
    def started(self) -> int:
        """Attempts that were allowed to start, ever."""


class Watched(Protocol):
    """An engine, as far as it matters here."""

    def statistics(self) -> Counts:
        """Return what it does and has done."""


class Skipping:
    """Time that is skipped rather than waited for."""

    def __init__(self) -> None:
        self.waited = 0.0
        """Seconds that would have been waited; those that several wait out together, once."""
        self._counted_until = float("-inf")
        self._ends: list[float] = []
        self._scopes: WeakSet[anyio.CancelScope] = WeakSet()
        self._seen: object = None
        self._seen_since = 0.0

    def __repr__(self) -> str:
        return f"<Skipping: {self.waited:g} s not waited so far>"

    def watch(self, scope: anyio.CancelScope) -> None:
        """
        Have a deadline come nearer when time is skipped.

        Args:
            scope: Whose it is.
        """
        self._scopes.add(scope)

    async def wait(self, seconds: float, event: anyio.Event | None) -> None:
        """
        Skip some time, unless something comes first.

        Args:
            seconds: How much.
            event: What may come first, if anything may.
        """
        began = current_time()
        end = began + seconds
        self._ends.append(end)
        try:
            await anyio.lowlevel.checkpoint()
            while current_time() < end and not (event is not None and event.is_set()):
                if end == min(self._ends) and not self.is_held_up(anyio.current_time()):
                    self._skip_to(end)
                    await anyio.lowlevel.checkpoint()  # a deadline may have passed
                else:
                    await anyio.sleep(LOOK_SECONDS)
        finally:
            self._ends.remove(end)
            self._count(began, min(end, current_time()))

    def is_held_up(self, now: float) -> bool:
        """
        Return whether a request is with the server that may end any moment.

        Args:
            now: The loop's own time.
        """
        counts = [each.statistics() for each in _watched]
        working = [each for each in counts if each.in_flight]
        moves = [(each.in_flight, each.started) for each in working]
        if moves != self._seen:
            self._seen, self._seen_since = moves, now
        return bool(working) and now - self._seen_since < STUCK_SECONDS

    def _skip_to(self, end: float) -> None:
        global _skipped  # noqa: PLW0603  (one clock for the process, as time is)
        seconds = end - current_time()
        _skipped += seconds
        for scope in list(self._scopes):
            scope.deadline -= seconds

    def _count(self, began: float, end: float) -> None:
        self.waited += max(0.0, end - max(began, self._counted_until))
        self._counted_until = max(end, self._counted_until)


_skipped = 0.0
_skipping: Skipping | None = None
_watched: WeakSet[Watched] = WeakSet()


def watch(engine: Watched) -> None:
    """Have time pass as it does for everybody while this engine has requests in flight."""
    _watched.add(engine)


def current_time() -> float:
    """Return the loop's clock, with what was skipped."""
    return anyio.current_time() + _skipped


def clock_of(time: Callable[[], float]) -> Callable[[], float]:
    """Return a loop's clock, with what was skipped."""
    return lambda: time() + _skipped


async def sleep(seconds: float) -> None:
    """Wait so many seconds."""
    if _skipping is None:
        await anyio.sleep(seconds)
    else:
        await _skipping.wait(seconds, None)


async def wait_for(event: anyio.Event, seconds: float) -> None:
    """Wait until something happens, and so many seconds at the most."""
    if _skipping is not None:
        await _skipping.wait(seconds, event)
        return
    with anyio.move_on_after(seconds):
        await event.wait()


def until(deadline: float) -> anyio.CancelScope:
    """
    Return a scope with a deadline by `current_time`, skipped time included.

    Args:
        deadline: As `clock_of` and `current_time` tell it.
    """
    scope = anyio.CancelScope(deadline=deadline - _skipped)
    if _skipping is not None:
        _skipping.watch(scope)
    return scope


@contextmanager
def skip_waiting() -> Generator[Skipping, None, None]:
    """Skip time rather than wait, in the whole process; one within another counts for both."""
    global _skipping  # noqa: PLW0603  (as above)
    if _skipping is not None:
        yield _skipping
        return
    _skipping = Skipping()
    try:
        yield _skipping
    finally:
        _skipping = None
