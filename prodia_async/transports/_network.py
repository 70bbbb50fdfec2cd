"""
One connection of asyncio's, and how it is made.

`Wire` is what every connection of ours has in common, whoever reads from it:
back-pressure, staleness, and the ways to end. Closing is always at once
(`abort`): whoever closes has no more to say, and a TLS farewell would keep the
socket until the other side answers it. A wire belongs to the loop it was
opened on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import os
import select
import socket
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

READ_AHEAD = 256 * 1024
"""Unread bytes above which the socket is paused. Chosen: one read of asyncio."""

WRITE_SLICE = 512 * 1024
"""
A large buffer is written in slices of this. Measured: half as many sends as
with 256 KB; 50 MB at once stall the loop for 57 ms.
"""

POLL_EVERY = 64 * 1024
"""Bytes written without a pause before the loop gets a turn, so that an early answer is seen."""

EYEBALLS_DELAY = 0.25
"""Seconds before a second address is tried beside the first. Source: RFC 8305, section 8."""

CLOSED = "the transport was closed"
TOO_EARLY = "the answer was there before the request"

SocketOption = tuple[int, int, int]

W = TypeVar("W", bound="Wire")


# A job can be silent for minutes, and the routers on the way forget silent connections.
# 60 s, chosen: under the shortest such memory in common use (AWS NAT: 350 s).
SOCKET_OPTIONS: tuple[SocketOption, ...] = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))
        if hasattr(socket, name)  # each system has its own selection
    ),
)


def inode(fileno: int) -> int | None:
    """Return what tells one open file from the next one of the same number."""
    try:
        return os.fstat(fileno).st_ino
    except OSError:
        return None


class StalledError(Exception):
    """The network took nothing for too long."""


class Wire(asyncio.Protocol):
    """
    asyncio's side of a connection, without a reader.

    Attributes:
        has_ended: Whether nothing more will come, or can be sent.
        error: What it ended with, if that was an error.
    """

    __slots__ = (
        "__weakref__", "_drainer", "_inode", "_is_full", "_poll", "_unpolled", "error",
        "has_ended", "loop", "transport",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.has_ended = False
        self.error: Exception | None = None
        self._drainer: asyncio.Future[None] | None = None
        self._inode: int | None = None
        self._is_full = False
        self._poll: Any = None
        self._unpolled = 0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not every loop's transport inherits from asyncio's (uvloop's does not).
        self.transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        self._inode = inode(sock.fileno())
        if hasattr(select, "poll"):  # not on Windows
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def eof_received(self) -> None:
        # Returning nothing lets asyncio close its side as well.
        self.end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        # The frames behind it hold what was being sent, and with it the token.
        self.end(None if exc is None else exc.with_traceback(None))

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._stop_draining()

    # What whoever uses it calls.

    def end(self, error: Exception | None) -> None:
        """Note the end; called again and again, but only the first counts."""
        if not self.has_ended:
            self.has_ended = True
            self.error = error
            self._on_end()
        self._stop_draining()

    def _on_end(self) -> None:
        """Tell whoever waits."""

    def _is_refused(self) -> bool:
        """Return whether an answer of 400 or above, or a whole one, makes the rest not wanted."""
        raise NotImplementedError  # each kind of wire reads its answers in its own way

    def _stop_draining(self) -> None:
        settle(self._drainer)

    def is_stale(self) -> bool:
        """Return whether bytes or the end wait in the socket, or have come."""
        transport = self.transport
        if self.has_ended or transport is None or transport.is_closing():
            return True
        if self._poll is not None:
            return bool(self._poll.poll(0))
        fileno = transport.get_extra_info("socket").fileno()
        return bool(select.select([fileno], [], [], 0)[0])

    async def write(self, data: bytes | memoryview, timeout: float | None) -> bool:
        """
        Hand bytes to the loop in slices, waiting while it holds too many.

        Returns:
            Whether all of it was handed over; false when the connection has
            ended or the request was refused meanwhile.

        Raises:
            StalledError: The network took nothing for ``timeout`` seconds.
        """
        if len(data) > WRITE_SLICE:
            data = memoryview(data)
        for start in range(0, len(data), WRITE_SLICE):
            if self._unpolled >= POLL_EVERY or self.is_stale():
                self._unpolled = 0
                await asyncio.sleep(0)
                await asyncio.sleep(0)  # what has come is read behind us in the first of these
            if self.has_ended or self.transport is None or self._is_refused():
                return False
            piece = data[start : start + WRITE_SLICE] if start or len(data) > WRITE_SLICE else data
            self._unpolled += len(piece)
            self.transport.write(piece)
            if self._is_full:
                await self._drain(timeout)
        return True

    async def _drain(self, timeout: float | None) -> None:
        self._drainer = self.loop.create_future()
        timer = None
        if timeout is not None:
            timer = self.loop.call_later(timeout, settle, self._drainer)
        try:
            await self._drainer
        finally:
            self._drainer = None
            if timer is not None:
                timer.cancel()
        if self._is_full and not self.has_ended and not self._is_refused():
            raise StalledError(f"nothing could be sent for {timeout:g} seconds")

    def abort(self) -> None:
        """
        Close the socket, without waiting for anything; whoever waits is told.

        The socket itself goes in the next turn of the loop. Only in the
        loop's own thread.
        """
        self.end(ConnectionAbortedError("it was closed on this side"))
        if self.transport is not None:
            self.transport.abort()

    def abandon(self) -> None:
        """
        Give up the socket of a loop that is gone, or that belongs to the parent process.

        Nothing is said to the loop, to its selector or over the network, so
        it is safe in a forked child: there only this process's copy goes.
        """
        self.has_ended = True
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        fileno = -1 if sock is None else int(sock.fileno())
        # Is that number still our socket? A loop that closes its own sockets may have freed it.
        if os.name == "posix" and self._inode is not None and inode(fileno) == self._inode:
            # asyncio's socket object still owns the number and will close it some day, so
            # the number must stay taken. Putting /dev/null there closes the socket alone.
            with contextlib.suppress(OSError):  # no number left to open it with
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, fileno)
                os.close(null)
        self.transport = None


def settle(waiter: asyncio.Future[None] | None) -> None:
    """End a wait, if it goes on."""
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


async def dial(
    make: Callable[[], W],
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    local_address: str | None = None,
) -> W:
    """
    Open a connection on the running loop; of several addresses the first that answers.

    Raises:
        OSError: No such name, nobody answers there, or no TLS.
        ValueError: No name that DNS, and no port that TCP could know.
    """
    loop = asyncio.get_running_loop()
    more: dict[str, Any] = {} if tls is None else {"ssl": tls, "server_hostname": host}
    if local_address is not None:
        more["local_addr"] = (local_address, 0)

    async def connect(address: str) -> W:
        _, wire = await loop.create_connection(make, address, port, **more)
        return wire

    try:
        if _is_ip_address(host):
            wire = await connect(host)
        else:
            wire = await _first_to_connect(await _addresses(host, port), connect)
    except OverflowError as error:
        raise ValueError(str(error)) from None
    try:
        assert wire.transport is not None  # noqa: S101  (it is connected)
        sock = wire.transport.get_extra_info("socket")
        for option in SOCKET_OPTIONS:  # and TCP_NODELAY, which asyncio sets
            sock.setsockopt(*option)
    except OSError:
        wire.abort()
        raise
    return wire


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a name, IPv6 and IPv4 by turns, as RFC 8305 has it."""
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families: dict[int, list[str]] = {}
    for family, _, _, _, address in infos:
        families.setdefault(family, []).append(str(address[0]))
    by_turns = itertools.zip_longest(*families.values())
    return list(dict.fromkeys(address for turn in by_turns for address in turn if address))


def _close_late(attempt: asyncio.Task[W]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()


async def _first_to_connect(addresses: list[str], connect: Callable[[str], Awaitable[W]]) -> W:
    """
    Try addresses, the next one when the last has failed or taken a quarter second.

    asyncio has this too (`happy_eyeballs_delay`), but when it is cancelled
    just after an address has answered, that socket is left open (3.11).
    """
    pending: set[asyncio.Task[W]] = set()
    failures: list[BaseException] = []
    remaining = iter(addresses)
    try:
        while True:
            address = next(remaining, None)
            if address is not None:
                pending.add(asyncio.ensure_future(connect(address)))
            elif not pending:
                raise OSError("; ".join(map(str, failures)) or "the name has no address")
            done, _ = await asyncio.wait(
                pending,
                timeout=None if address is None else EYEBALLS_DELAY,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for attempt in done:
                pending.discard(attempt)
                failure = attempt.exception()
                if failure is None:
                    return attempt.result()
                failures.append(failure)
    finally:
        for attempt in pending:
            attempt.add_done_callback(_close_late)
            attempt.cancel()


def is_under_asyncio() -> bool:
    """Return whether the caller is a task of asyncio's."""
    # In trio's guest mode asyncio's loop runs as well, but none of its tasks.
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
