"""
A port that refuses: how many attempts to connect it has turned away.

A refused connection never reaches the server that refuses it, so it cannot be
counted there. What this process tries is seen by an audit hook (PEP 578) on
``socket.connect``; attempts of other processes are refused all the same and
not counted. The hook is installed when it is first needed and cannot be taken
out again, so it is one for all emulators and does nothing while none refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BACKLOG = 2048
"""Connections that may wait to be accepted (uvicorn's default)."""

_ACCEPTING = 4
"""Turns of the loop in which a connection just accepted becomes known (asyncio takes three)."""

_doors: list[Door] = []
_lock = threading.RLock()
_hooked = False


class Door:
    """
    Refuses the next attempts of this process to connect to an address.

    Args:
        address: Host and port; the host counts unless it is a wildcard.
        count: How many attempts.
        open: Opens the port again; is called once, by the thread that makes
            the first attempt after those, or by `give_up`.
        spent: Is called by the thread that makes the last of those.
    """

    def __init__(
        self,
        address: tuple[str, int],
        count: int,
        open: Callable[[], None],
        spent: Callable[[], None],
    ) -> None:
        self._address = address
        self._left = count
        self._open: Callable[[], None] | None = open
        self._spent = spent

    @property
    def left(self) -> int:
        """How many attempts are still to be refused."""
        return self._left if self._open is not None else 0

    def close(self) -> None:
        """Begin to count; the port must refuse from now on."""
        global _hooked  # noqa: PLW0603  # hooks belong to the process
        with _lock:
            _doors.append(self)
            if not _hooked:
                sys.addaudithook(_watch)
                _hooked = True

    def more(self, count: int) -> None:
        """Refuse some more."""
        with _lock:
            self._left += count

    def give_up(self) -> None:
        """Open the port, however many attempts are left; does nothing the second time."""
        with _lock:
            open_again = self._open
            self.forget()
            if open_again is not None:
                open_again()

    def forget(self) -> None:
        """Count no more, and leave the port as it is."""
        with _lock:
            if self in _doors:
                _doors.remove(self)
            self._open = None

    def sees(self, address: Any) -> None:
        """Take note of an attempt that is about to be made."""
        if not isinstance(address, tuple) or len(address) < 2 or address[1] != self._address[1]:
            return
        if self._address[0] not in {"0.0.0.0", "::", address[0]}:  # noqa: S104  # only compared
            return
        if not self._left:
            self.give_up()
            return
        self._left -= 1
        if not self._left:
            self._spent()


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _doors and event == "socket.connect":
        with _lock:
            for door in _doors:
                door.sees(arguments[1])


async def close_listeners(servers: Sequence[asyncio.Server]) -> None:
    """Stop listening, and lose no connection that is just being accepted."""
    loop = asyncio.get_running_loop()
    for server in servers:
        for listener in server.sockets:
            # Proactor loops have no readers; what is lost there is one warning.
            with contextlib.suppress(NotImplementedError):
                loop.remove_reader(listener.fileno())
    # A server that is closed between an accept and its protocol leaks the socket.
    for _ in range(_ACCEPTING):
        await asyncio.sleep(0)
    for server in servers:
        server.close()
