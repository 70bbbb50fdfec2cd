"""Closing means closed: whoever is inside is shown out before it is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

CLOSING_SECONDS = 1.0
"""How long closing waits for those inside. Chosen: what they clean up takes no network."""


INPUT_SECONDS = 0.05
"""How long an input that was not read to its end may take to close. Chosen."""


class ClosedError(Exception):
    """It was closed, before or meanwhile."""


class Exits:
    """Steps that end when all is closed, in whatever they wait for."""

    __slots__ = ("_scopes", "is_closed")

    def __init__(self) -> None:
        self._scopes: set[anyio.CancelScope] = set()
        self.is_closed = False

    async def step(self, call: Callable[[], Awaitable[T]]) -> T:
        """
        Do one step; what it returns is the caller's to clean up, closed or not.

        Raises:
            ClosedError: It was closed, and the step not begun or cancelled.
        """
        if not self.is_closed:
            with anyio.CancelScope() as scope:
                self._scopes.add(scope)
                try:
                    return await call()
                finally:
                    self._scopes.discard(scope)
        raise ClosedError("it was closed")

    async def aclose(self) -> None:
        """Cancel every step, and return when all have ended."""
        self.is_closed = True
        with anyio.move_on_after(CLOSING_SECONDS, shield=True):
            while self._scopes:
                for scope in list(self._scopes):
                    scope.cancel()
                await anyio.lowlevel.checkpoint()


async def close_input(made: object) -> None:
    """Close what has an end to close, as generators and streams do."""
    close = getattr(made, "aclose", None)
    if close is not None:
        # A caller's iterator may take its time to close; the deadline does not.
        with anyio.move_on_after(INPUT_SECONDS, shield=True):
            await close()


async def until_over(task: asyncio.Task[Any]) -> None:
    """Wait for a task of asyncio's, however often the one who waits is cancelled meanwhile."""
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task})
        except asyncio.CancelledError as error:  # by other means than anyio's
            cancellation = error
    if cancellation is not None:
        raise cancellation
