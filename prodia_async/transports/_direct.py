"""
The default way to send: HTTP/1.1 straight on asyncio, also for httpx's own requests.

`DirectTransport.exchange` is the one path; a request of httpx's is turned into
an `Order` and takes it too.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from .._wire import Order, Sending, Target
from ._http1 import Answer, NotTakenError, Pool, broken
from ._network import CLOSED
from ._parsers import PARSERS, response_maker
from ._tls import shared_ssl_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from ._settled import Response
    from ._sharded import ShardedTransport


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatistics:
    """
    What a transport has open.

    Attributes:
        opened: TCP connections opened since the transport was made.
        in_use: Connections with a request on them, those being opened included.
        idle: Open connections that wait for a request.
    """

    opened: int
    in_use: int
    idle: int


class DirectTransport(httpx.AsyncBaseTransport):
    """
    Plain HTTP/1.1 under asyncio, as many connections as requests are in flight.

    It opens nothing before the first request, and then belongs to the event
    loop that request ran on. When that loop has been closed, or in a forked
    child, the next request starts afresh on its own loop.

    What `asyncio.run` and its like do when they end closes the connections
    too, so that a transport which was never closed leaves no socket behind.

    `respx.mock` intercepts requests made through it: while httpcore is
    mocked, they go by way of httpcore.
    """

    proves_ends = True
    """No connection of it carries another request but with the proof of `_settled`."""

    def __init__(
        self,
        *,
        connect_timeout: float | None = 10.0,
        idle_timeout: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
        parser: str = PARSERS[-1],
    ) -> None:
        """
        Make a transport; does no I/O and needs no running loop.

        Args:
            connect_timeout: Seconds for DNS, TCP and TLS together, where the
                request's own ``timeout`` extension does not give ``connect``.
                ``None`` is no limit. Chosen.
            idle_timeout: Seconds an idle connection is kept. Chosen: half of
                the shortest limit common among load balancers (60 s), so that
                we close first and no request meets a closing server.
            ssl_context: Whom to trust; the process's shared one by default.
            parser: ``"h11"``, or ``"httptools"`` where the extra ``fast`` is
                installed, which is then the default.

        Raises:
            ValueError: That parser is not installed.
        """
        self._connect_timeout = connect_timeout
        self._idle_timeout = idle_timeout
        self._ssl_context = ssl_context
        self._make_response: Callable[[str], Response] = response_maker(parser)
        self._pool: Pool | None = None
        self._mocked: ShardedTransport | None = None
        self._opened_before = 0  # on loops that are gone
        self._is_closed = False

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<DirectTransport {now.in_use} in use, {now.idle} idle, {now.opened} opened>"

    def statistics(self) -> ConnectionStatistics:
        """Return what is open now."""
        pool = self._pool
        if pool is None:
            return ConnectionStatistics(opened=self._opened_before, in_use=0, idle=0)
        return ConnectionStatistics(
            opened=self._opened_before + pool.opened,
            in_use=len(pool.in_use) + pool.connecting,
            idle=sum(len(stack) for stack in pool.idle.values()),
        )

    @property
    def takes_orders(self) -> bool:
        """Whether `exchange` may be called; while httpcore is mocked, requests must meet it."""
        return not httpcore_is_mocked()

    async def exchange(self, order: Order) -> Answer:
        """
        Send a request and return its answer once the head of it is here.

        Args:
            order: What to send. Its ``sending`` is told how far it came.

        Returns:
            An answer whose body is still to be read. Its connection is used
            again once the body was read to its end, and closed if it was not.

        Raises:
            httpx.TransportError: One of its subclasses, the cause kept.
                `httpx.ConnectError`, `httpx.ConnectTimeout` and
                `httpx.UnsupportedProtocol` mean that nothing was sent.
            RuntimeError: The transport was closed, or belongs to another loop
                that is still open.
        """
        target = order.target
        is_tls = target.scheme == "https"
        if not is_tls and target.scheme != "http":
            raise httpx.UnsupportedProtocol(f"expected an http or https URL, not {target.scheme!r}")
        tls = None
        if is_tls:
            tls = self._ssl_context = self._ssl_context or await shared_ssl_context()
        pool = self._pool
        if pool is None or self._is_closed or not pool.is_at(asyncio.get_running_loop()):
            pool = await self._pool_here()
        head = _request_head(order)
        origin = (target.scheme, target.host, target.port)
        while True:
            connection = pool.take(origin)
            is_fresh = connection is None
            if connection is None:
                connection = await pool.make(origin, tls, order.connect)
            response = self._make_response(order.method)
            try:
                await connection.talk(order, head, response)
            except BaseException as error:
                pool.discard(connection)
                if not isinstance(error, NotTakenError):
                    raise
                if is_fresh:
                    raise broken(error.__cause__, httpx.WriteError) from error.__cause__
                continue  # it died between the look at it and the first byte
            return Answer(pool, connection, response)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send a request of httpx's and return its answer once the head of it is here.

        Args:
            request: Its ``timeout`` extension may have ``connect`` (in all),
                ``read`` and ``write`` (silence; each chunk starts the clock
                anew) in seconds. ``pool`` has no meaning here: nobody waits.

        Raises:
            httpx.TransportError: As `exchange`, with `request` set.
            RuntimeError: As `exchange`.
        """
        if httpcore_is_mocked():
            if self._is_closed:
                raise RuntimeError(CLOSED)
            if self._mocked is None:
                from ._sharded import ShardedTransport  # noqa: PLC0415  (see __init__)

                self._mocked = ShardedTransport(
                    connect_timeout=self._connect_timeout, ssl_context=self._ssl_context
                )
            return await self._mocked.handle_async_request(request)
        try:
            answer = await self.exchange(_order_of(request, self._connect_timeout))
        except httpx.TransportError as error:
            error.request = request
            raise
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(request, answer),
            extensions={"http_version": b"HTTP/1.1"},
        )

    async def aclose(self) -> None:
        """Close every connection; requests under way fail with `httpx.ReadError`."""
        self._is_closed = True
        if self._mocked is not None:
            await self._mocked.aclose()
        if self._pool is None:
            return
        if self._pool.is_at(asyncio.get_running_loop()):
            await self._pool.aclose()
        else:
            self._pool.abandon()

    def abandon(self) -> None:
        """
        Give up every connection, without a running loop.

        For a loop that was closed, and for a forked child, where only this
        process's copies of the sockets go and the parent is not disturbed. If
        the loop is still open, it is asked to close the connections itself.
        Never waits. The transport can be used again, on any loop.
        """
        if self._mocked is not None:
            self._mocked.abandon()
            self._mocked = None
        if self._pool is not None:
            self._pool.abandon()
            self._opened_before += self._pool.opened
            self._pool = None

    async def _pool_here(self) -> Pool:
        """Make connections for the running loop, which has none."""
        if self._is_closed:
            raise RuntimeError(CLOSED)
        loop = asyncio.get_running_loop()
        pool = self._pool
        if pool is not None:
            if not pool.is_orphaned():
                raise RuntimeError(
                    "this transport belongs to another event loop that is still open; "
                    "make one for each loop"
                )
            self.abandon()
        pool = self._pool = Pool(loop, self._idle_timeout)
        await pool.start()
        return pool


def httpcore_is_mocked() -> bool:
    """Return whether somebody put a method of their own into httpcore's pools, as respx does."""
    httpcore = sys.modules.get("httpcore")
    if httpcore is None:
        return False
    method = httpcore.AsyncConnectionPool.handle_async_request
    return not method.__module__.startswith("httpcore.")


class _Body(httpx.AsyncByteStream):
    """
    The body of an answer, for httpx.

    Its own iterator rather than a generator: one that was not run to its end
    would be finished later, by a task of the loop that nobody asked for.
    """

    def __init__(self, request: httpx.Request, answer: Answer) -> None:
        self._request = request
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._answer.read()
        except httpx.TransportError as error:
            error.request = self._request
            raise
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        await self._answer.aclose()


class _Head(bytes):
    """The head of a request; the token is in it, so it does not show itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<a head of {len(self)} bytes>"


def _request_head(order: Order) -> _Head:
    """Write a request's head; nothing in it may end a line but we."""
    lines = [b"%b %b HTTP/1.1" % (order.method.encode("ascii"), order.target.path)]
    lines += [b"%b: %b" % pair for pair in order.headers]
    head = b"\r\n".join(lines)
    ends = len(lines) - 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head:
        raise httpx.LocalProtocolError("a header or the path has a line end in it")
    return _Head(head + b"\r\n\r\n")


def _order_of(request: httpx.Request, connect_timeout: float | None) -> Order:
    url = request.url
    stream = request.stream
    if not isinstance(stream, httpx.AsyncByteStream):
        raise TypeError("a request on an async transport needs an async body")
    body: bytes | httpx.AsyncByteStream = stream
    length: int | None = 0
    sized = request.headers.get("content-length")
    if sized is not None:
        length = int(sized)
    elif "transfer-encoding" in request.headers:
        length = None
    if length is not None and isinstance(stream, httpx.ByteStream):
        body = b"".join(stream)
        if len(body) != length:
            raise httpx.LocalProtocolError("the body is not as long as Content-Length says")
    limits = request.extensions.get("timeout", {})
    return Order(
        request.method,
        Target(
            url.scheme,
            url.raw_host.decode("ascii"),
            url.port or (443 if url.scheme == "https" else 80),
            url.raw_path,
        ),
        request.headers.raw,
        body=body,
        length=length,
        sending=Sending(),
        connect=limits.get("connect", connect_timeout),
        read=limits.get("read"),
        write=limits.get("write"),
    )
