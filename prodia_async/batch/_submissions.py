"""Leaves jobs with the server, few at a time, since one that has no id yet may be paid twice."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from ._decide import most_unnamed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

WEIGHT = 0.2
"""Of the newest time in an average. Chosen: some five of them count."""


class Submissions:
    """
    The submissions of one job type.

    Args:
        slots: Jobs in flight at once.
        clock: Seconds.
    """

    def __init__(self, slots: int, clock: Callable[[], float]) -> None:
        self._slots = slots
        self._clock = clock
        self._limiter = anyio.CapacityLimiter(1)
        self._answer: float | None = None
        self._cycle: float | None = None

    @property
    def most(self) -> int:
        """How many may be under way now."""
        return int(self._limiter.total_tokens)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[float]:
        """Wait for a turn, and hold it for a block; gives the time when the turn came."""
        async with self._limiter:
            yield self._clock()

    def answered(self, sent: float) -> None:
        """Note that a submission, sent then, has its id."""
        self._answer = _average(self._answer, self._clock() - sent)
        self._adapt()

    def ended(self, began: float) -> None:
        """Note that a job whose turn came then is safe."""
        self._cycle = _average(self._cycle, self._clock() - began)
        self._adapt()

    def _adapt(self) -> None:
        self._limiter.total_tokens = most_unnamed(
            self._slots, answer=self._answer, cycle=self._cycle
        )


def _average(before: float | None, new: float) -> float:
    return new if before is None else before + WEIGHT * (new - before)
