"""
HTTP/1.1 straight on asyncio: one connection, and the pool of all on a loop.

::

    exchange            (_direct) the idle connection used last, or a new one
      Connection.talk   head, body; then waits for the head of the response
    Answer.read         the rest, in whatever pieces came
      data_received -> Response.receive -> pieces -> read()   pauses the socket above 256 KB

Idle connections lie on a stack per origin, last in, first out. A request takes
the top one or opens its own, so there are never more connections than requests
were in flight at once, and the cost of a request does not depend on how many
there are. A connection is used again only when its response is proven to be
over (`_settled`) and the request went out whole; in every other case, and
whatever was cancelled wherever, its socket is closed at once and without
waiting. So the next request can never read the remains of this one.

Nothing is sent twice. The one exception is not visible outside: a connection
that turns out to be dead before a byte of the request was taken is replaced.

Closed means closed: once `aclose` has returned nothing is sent and no socket
is open, wherever a request was: looking its host up, connecting, in its TLS
handshake, about to be sent on another connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING

import httpx

from ._network import CLOSED, READ_AHEAD, TOO_EARLY, StalledError, Wire, dial, settle
from ._settled import BadResponseError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator

    from .._wire import Order, Sending
    from ._settled import Pairs, Response

JOIN = 64 * 1024
"""A body that is at hand goes out with its head up to this; above, an early 413 is not seen."""

CLOSING_TURNS = 50
"""Turns of the loop that closing waits for its sockets. Measured: TLS takes three."""

Origin = tuple[str, str, int]

_inherited: list[object] = []
"""Loop guards that a forked child got with its copy of memory. Kept, for their end would be
announced through a pipe that it shares with the parent's loop."""


class NotTakenError(Exception):
    """The connection was dead before a byte of the request was taken."""


class Connection(Wire):
    """One connection, and the exchange that is on it, if any."""

    __slots__ = (
        "_is_heard", "_is_paused", "_pool", "_reader", "_silence", "_timer", "_waiting_since",
        "idle_since", "is_sent", "origin", "response",
    )  # fmt: skip

    def __init__(self, pool: Pool, origin: Origin) -> None:
        super().__init__(pool.loop)
        self._pool = pool
        self._reader: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._silence: float | None = None
        self._waiting_since = 0.0
        self._is_paused = self._is_heard = False
        self.idle_since = 0.0
        self.is_sent = False
        self.origin = origin
        self.response: Response | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._pool.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._pool.open.discard(self)

    def data_received(self, data: bytes) -> None:
        response = self.response
        if response is None or not self._is_heard:
            # The server speaks unasked, or before a byte of the request was sent.
            self.end(httpx.RemoteProtocolError(TOO_EARLY))
            self._transport.abort()
            return
        try:
            response.receive(data)
        except BadResponseError as error:
            self.end(httpx.RemoteProtocolError(str(error)))
            self._transport.abort()
            return
        if response.unread > READ_AHEAD and not self._is_paused and not response.is_over:
            self._is_paused = True
            self._transport.pause_reading()
        settle(self._reader)
        if self._is_refused():
            self._stop_draining()

    @property
    def _transport(self) -> asyncio.Transport:
        assert self.transport is not None  # noqa: S101  (it is connected)
        return self.transport

    def _on_end(self) -> None:
        if self.response is None:
            self._pool.forget(self)
        elif self.error is None:
            try:
                self.response.receive_eof()
            except BadResponseError as error:
                self.error = httpx.RemoteProtocolError(str(error))
        settle(self._reader)

    def _is_refused(self) -> bool:
        response = self.response
        return response is not None and (response.status >= 400 or response.is_over)

    async def talk(self, order: Order, head: bytes, response: Response) -> None:
        """
        Send a request and wait for the head of its response.

        Raises:
            NotTakenError: Nothing of it was taken, so nothing was sent.
            httpx.TransportError: It broke, later.
        """
        sending = order.sending
        self.response = response
        self._is_heard = self.is_sent = False
        self._silence = order.read
        if self.has_ended:
            raise NotTakenError from self.error
        sending.stage = "sending"
        body = order.body
        if body is None or (isinstance(body, bytes) and len(body) <= JOIN):
            self._send_first(head + body if body else head, sending, whole=True)
        else:
            # The head goes first: waiting for the body would give the server time to hang up.
            self._send_first(head, sending, whole=False)
            try:
                await self._send_body(body, order)
            finally:
                # Who answers before all of it is there may have run it on what was.
                sending.may_have_run |= response.has_begun
        while not response.status:
            await self._wait()

    def _send_first(self, data: bytes, sending: Sending, *, whole: bool) -> None:
        self._is_heard = True
        self._unpolled = len(data)
        sending.may_have_run = whole
        self._transport.write(data)
        if self._transport.is_closing():
            # The kernel refused the first byte: the server had closed it.
            sending.may_have_run = False
            raise NotTakenError from self.error
        if whole:
            self.is_sent = True
            sending.stage = "running"

    async def _send_body(
        self, body: bytes | AsyncIterable[bytes | memoryview], order: Order
    ) -> None:
        sending, length, timeout = order.sending, order.length, order.write
        left = length or 0
        try:
            async for chunk in _chunks(body):
                if length is None:
                    if not chunk:
                        continue
                    chunk = b"%x\r\n%b\r\n" % (len(chunk), bytes(chunk))  # noqa: PLW2901
                else:
                    left -= len(chunk)
                    if left < 0:
                        raise httpx.LocalProtocolError("the body is longer than Content-Length")
                    sending.may_have_run = left == 0
                if not await self.write(chunk, timeout):
                    return self._give_up(sending)
            if left:
                raise httpx.LocalProtocolError("the body is shorter than Content-Length")
            if length is None:
                sending.may_have_run = True
                if not await self.write(b"0\r\n\r\n", timeout):
                    return self._give_up(sending)
        except StalledError as error:
            # The end of it is still here, and goes with the connection.
            return self._give_up(sending, httpx.WriteTimeout(str(error)))
        response = self.response
        # Who answered before may leave some of it unread, and take the rest for the next request.
        self.is_sent = response is not None and not response.has_begun
        sending.stage = "running"
        return None

    def _give_up(self, sending: Sending, error: Exception | None = None) -> None:
        """Stop sending: the server takes no more, or has gone. What it answered before counts."""
        sending.may_have_run = False
        response = self.response
        assert response is not None  # noqa: S101  (an exchange is on)
        if not response.status:
            raise error or broken(self.error, httpx.WriteError)

    async def read(self, response: Response) -> bytes:
        """Return the next part of a body, empty at its end; what came before a close too."""
        while not response.pieces:
            if response.is_over:
                return b""
            await self._wait()
        data = response.take()
        if self._is_paused and not response.pieces:
            self._is_paused = False
            if not self.has_ended:
                self._transport.resume_reading()
        return data

    async def _wait(self) -> None:
        """Wait until something comes in, or nothing has for too long."""
        if self.has_ended:
            raise broken(self.error, httpx.ReadError)
        loop, silence = self.loop, self._silence
        self._reader = loop.create_future()
        if silence is not None:
            self._waiting_since = now = loop.time()
            timer = self._timer
            if timer is None or timer.when() > now + silence:
                if timer is not None:
                    timer.cancel()
                self._timer = loop.call_at(now + silence, self._look_at_clock)
        try:
            await self._reader
        finally:
            self._reader = None

    def _look_at_clock(self) -> None:
        # One timer for a connection, put off rather than set anew for each wait.
        self._timer = None
        if self._reader is None or self._silence is None:
            return
        due = self._waiting_since + self._silence
        if self.loop.time() < due:
            self._timer = self.loop.call_at(due, self._look_at_clock)
        else:
            self.end(httpx.ReadTimeout(f"nothing was received for {self._silence:g} seconds"))

    def finish(self) -> bool:
        """End the exchange; returns whether the connection may be used again."""
        response, self.response = self.response, None
        return (
            response is not None
            and response.is_settled
            and self.is_sent
            and not self._is_paused
            and not self.has_ended
            and not self._transport.get_write_buffer_size()
        )

    def abort(self) -> None:
        if self._timer is not None:
            self._timer.cancel()  # or it would keep the connection alive
            self._timer = None
        super().abort()
        self.response = None


def broken(error: BaseException | None, kind: type[httpx.TransportError]) -> httpx.TransportError:
    """Return the error for a connection that has ended with ``error``."""
    if isinstance(error, httpx.TransportError):
        return type(error)(str(error))
    told = kind(f"the connection broke: {error}" if error else "the connection has ended")
    told.__cause__ = error
    return told


async def _chunks(
    body: bytes | AsyncIterable[bytes | memoryview],
) -> AsyncIterator[bytes | memoryview]:
    if isinstance(body, bytes):
        yield body
        return
    async for chunk in body:
        yield chunk


class Pool:
    """Every connection on one event loop: those in use, and the stack of idle ones per origin."""

    def __init__(self, loop: asyncio.AbstractEventLoop, idle_timeout: float) -> None:
        self.loop = loop
        self.opened = 0
        self.is_closed = False
        self.open: set[Connection] = set()
        """Those that have a socket, whatever they are used for."""
        self.in_use: set[Connection] = set()
        # Oldest first, so the last is the top of the stack and the first is the next to expire.
        self.idle: dict[Origin, OrderedDict[Connection, None]] = {}
        self._opening: set[asyncio.Timeout] = set()
        self._pid = os.getpid()
        self._idle_timeout = idle_timeout
        self._sweeper: asyncio.TimerHandle | None = None
        self._last_will: AsyncGenerator[None] = self._close_with_the_loop()

    async def start(self) -> None:
        """Have the connections closed when the loop is."""
        await anext(self._last_will)

    async def _close_with_the_loop(self) -> AsyncGenerator[None]:
        # Before a loop is closed, the asynchronous generators begun on it are ended
        # (`asyncio.run` sees to that). So what stands after `yield` is done in time.
        try:
            yield
        finally:
            await self._close()

    async def _close(self) -> None:
        self.is_closed = True
        for opening in self._opening:
            with contextlib.suppress(RuntimeError):  # its time is up already
                opening.reschedule(self.loop.time())
        self._abort_all()
        turns = 0
        while (self.open or self._opening) and turns < CLOSING_TURNS:
            await asyncio.sleep(0)
            turns += 1

    @property
    def connecting(self) -> int:
        """How many connections are being made."""
        return len(self._opening)

    def is_at(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether this is the loop, and this the process, of these connections."""
        return self.loop is loop and self._pid == os.getpid()

    def is_orphaned(self) -> bool:
        """Return whether the loop is gone, or is the parent process's."""
        return self.loop.is_closed() or self._pid != os.getpid()

    def take(self, origin: Origin) -> Connection | None:
        """Take the idle connection that was used last and is still good."""
        stack = self.idle.get(origin)
        while stack:
            connection, _ = stack.popitem()
            expires = connection.idle_since + self._idle_timeout
            if expires > self.loop.time() and not connection.is_stale():
                self.in_use.add(connection)
                return connection
            connection.abort()
        return None

    async def make(
        self, origin: Origin, tls: ssl.SSLContext | None, timeout: float | None
    ) -> Connection:
        """Open a connection, for use at once."""
        if self.is_closed:
            raise httpx.ConnectError(CLOSED)
        _, host, port = origin
        try:
            async with asyncio.timeout(timeout) as opening:
                self._opening.add(opening)
                try:
                    connection = await dial(lambda: Connection(self, origin), host, port, tls=tls)
                finally:
                    self._opening.discard(opening)
        except TimeoutError as error:
            if self.is_closed:
                raise httpx.ConnectError(CLOSED) from None
            raise httpx.ConnectTimeout(f"{host}:{port} did not answer in time") from error
        except (OSError, ValueError) as error:  # ValueError: no name that DNS could know
            raise httpx.ConnectError(f"could not connect to {host}:{port}: {error}") from error
        if self.is_closed:
            connection.abort()
            raise httpx.ConnectError(CLOSED)
        self.opened += 1
        self.in_use.add(connection)
        return connection

    def release(self, connection: Connection) -> None:
        """Take a connection back: onto the stack if it can be used again, else it is closed."""
        if connection not in self.in_use or not connection.finish():
            self.discard(connection)
            return
        self.in_use.discard(connection)
        connection.idle_since = self.loop.time()
        self.idle.setdefault(connection.origin, OrderedDict())[connection] = None
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(self._idle_timeout, self._sweep)

    def forget(self, connection: Connection) -> None:
        """Drop an idle connection that ended, or on which the server spoke unasked."""
        stack = self.idle.get(connection.origin)
        if stack is not None:
            stack.pop(connection, None)
        connection.abort()

    def _sweep(self) -> None:
        now = oldest = self.loop.time()
        for origin, stack in list(self.idle.items()):
            while stack:
                connection = next(iter(stack))
                if connection.idle_since + self._idle_timeout > now:
                    oldest = min(oldest, connection.idle_since)
                    break
                self.forget(connection)
            if not stack:
                del self.idle[origin]
        self._sweeper = None
        if self.idle:
            self._sweeper = self.loop.call_at(oldest + self._idle_timeout, self._sweep)

    def discard(self, connection: Connection) -> None:
        """Close a connection that is in use."""
        self.in_use.discard(connection)
        connection.abort()

    def discard_soon(self, connection: Connection) -> None:
        """Close a connection from any thread, whether its loop still exists or not."""
        if not self.is_orphaned():
            with contextlib.suppress(RuntimeError):  # closed since
                self.loop.call_soon_threadsafe(self.discard, connection)

    def _abort_all(self) -> None:
        for connection in self._remove_all():
            connection.abort()

    def _remove_all(self) -> list[Connection]:
        connections = [*self.in_use, *(each for stack in self.idle.values() for each in stack)]
        self.in_use.clear()
        self.idle.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        return connections

    async def aclose(self) -> None:
        """Close every connection; the sockets are gone when this returns."""
        await self._close()
        await self._last_will.aclose()

    def abandon(self) -> None:
        """Close every connection, from any thread, whether its loop still exists or not."""
        if not self.is_orphaned():
            self.loop.call_soon_threadsafe(self._abort_all)
            return
        if self._pid != os.getpid():
            _inherited.append(self._last_will)
        connections = self._remove_all()
        if not connections:
            return
        with warnings.catch_warnings():
            # "unclosed transport": they are, and nothing public could tell asyncio so.
            warnings.simplefilter("ignore", ResourceWarning)
            self.open.clear()
            while connections:
                connections.pop().abandon()
            gc.collect()  # asyncio's transport and its TLS hold each other


class Answer:
    """A response whose head is here, as it came; `read` it to its end, or `aclose` it."""

    __slots__ = ("_connection", "_is_closed", "_pool", "_response", "headers", "status")

    def __init__(self, pool: Pool, connection: Connection, response: Response) -> None:
        self._pool = pool
        self._connection = connection
        self._response = response
        self._is_closed = False
        self.status: int = response.status
        self.headers: Pairs = response.headers

    async def read(self) -> bytes:
        """
        Return the next part of the body; empty at its end, and ever after.

        Raises:
            httpx.TransportError: The connection broke, or was closed here.
        """
        if self._is_closed:
            return b""
        try:
            data = await self._connection.read(self._response)
        except BaseException:
            if not self._is_closed:
                self._is_closed = True
                self._pool.discard(self._connection)
            raise
        if not data:
            await self.aclose()
        return data

    async def aclose(self) -> None:
        """Keep the connection if the response was read to its end, else close it."""
        if self._is_closed:
            return
        self._is_closed = True
        if not self._response.pieces:
            self._pool.release(self._connection)
        else:
            self._pool.discard(self._connection)

    def __del__(self) -> None:
        # Forgotten, or lost to a cancellation on its way to whoever asked.
        if not self._is_closed:
            self._pool.discard_soon(self._connection)
