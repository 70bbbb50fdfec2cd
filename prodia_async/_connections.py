"""
Connections: which one a request travels on, and what becomes of it after.

Three transports for httpx, all with the interface of `httpx.AsyncBaseTransport`:

- `DirectTransport`, for asyncio: a stack of idle connections per origin, last
  in, first out. A request takes the top one or opens its own, so there are
  never more connections than requests were in flight at once, and the cost
  of a request does not depend on how many there are.
- `ShardedTransport`, for trio and for proxies: httpx's own transport, many
  times, each with five requests at most. One large httpx pool costs 18 ms of
  CPU per request at 100 in flight, and small ones stay under 1 ms (measured).
- `default_transport` chooses between them.

A connection goes back on the stack only when it is proven that the answer on
it was read to its last byte and that not one more byte came (`_Ledger`). In
every other case, and whatever was cancelled wherever, its socket is closed at
once and without waiting. So the next request can never read the remains of
this one.

Nothing here sends a request twice. The one exception is not visible outside:
a connection that turns out to be dead before the first byte of the request
was written is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import re
import socket
import urllib.request
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread
import h11
import httpcore
from anyio.lowlevel import RunVar, current_token

from ._httpx import httpx
from ._network import DirectBackend, DirectStream
from ._wire import is_this_machine

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable

_MAX_HEAD = 100 * 1024
"""Bytes of status line and headers, interim answers included. Chosen: h11's limit in httpcore."""

_SHARD_SIZE = 5
"""Requests per httpx pool. Measured: 5 stay flat to 1000 in flight, 10 creep up by half."""

_BLANK_LINE = re.compile(rb"\n\r?\n")
_LAST_CHUNK = b"\r\n0\r\n\r\n"

_Origin = tuple[bytes, bytes, int | None]

_ERRORS: dict[type[BaseException], type[httpx.TransportError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.TimeoutException: httpx.TimeoutException,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.NetworkError: httpx.NetworkError,
    httpcore.ProxyError: httpx.ProxyError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore.ProtocolError: httpx.ProtocolError,
    # httpcore lets this one through when a body is not as long as its Content-Length says.
    h11.LocalProtocolError: httpx.LocalProtocolError,
}


_DEAD = (httpcore.NetworkError, httpcore.RemoteProtocolError)
"""What httpcore says of a connection on which nothing can be sent any more."""

_inherited: list[object] = []
"""Loop guards that a forked child got with its copy of memory. Kept, for their end would be
announced through a pipe that it shares with the parent's loop."""


def _keep_alive_options() -> tuple[httpcore.SOCKET_OPTION, ...]:
    # A job can be silent for minutes, and the routers on the way forget silent connections.
    # 60 s, chosen: under the shortest such memory in common use (AWS NAT: 350 s).
    options: list[httpcore.SOCKET_OPTION] = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    options.extend(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))
        if hasattr(socket, name)  # each system has its own selection
    )
    return tuple(options)


_SOCKET_OPTIONS = _keep_alive_options()


def _translated(exc: BaseException, request: httpx.Request) -> httpx.TransportError | None:
    """Return the httpx error that stands for this one; ``None`` if it has none."""
    for cls in type(exc).__mro__:
        if cls in _ERRORS:
            return _ERRORS[cls](str(exc) or cls.__name__, request=request)
    return None


def _with_timeouts(request: httpx.Request, **defaults: float | None) -> dict[str, Any]:
    """Return the request's extensions, with these timeouts where it says nothing."""
    timeouts = request.extensions.get("timeout", {})
    return {**request.extensions, "timeout": {**defaults, **timeouts}}


# --------------------------------------------------------------------------- TLS

_contexts: dict[str, ssl.SSLContext] = {}
_building: RunVar[anyio.Lock] = RunVar("prodia_async_ssl_context")


def _make_ssl_context() -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def shared_ssl_context() -> ssl.SSLContext:
    """
    Return the process's TLS context, made on first use.

    It trusts what httpx trusts: ``SSL_CERT_FILE``, else ``SSL_CERT_DIR``,
    else certifi. Making one takes 20 ms (measured), so it is done in a thread
    and once. Runs under asyncio and under trio.
    """
    if not _contexts:
        async with _building.get(None) or _set_up_lock():
            if not _contexts:
                context = await anyio.to_thread.run_sync(_make_ssl_context, abandon_on_cancel=True)
                # Another thread with its own loop may have been faster; the first one stays.
                _contexts.setdefault("shared", context)
    return _contexts["shared"]


def _set_up_lock() -> anyio.Lock:
    lock = anyio.Lock()
    _building.set(lock)
    return lock


# --------------------------------------------------------------------------- one connection


class _Ledger:
    """
    Counts what came in during one exchange, to prove that it was one answer.

    httpcore does not tell when more bytes came than the answer has. They
    would be taken for the beginning of the next answer: a job would get
    another job's picture, or an error after it was charged.
    """

    __slots__ = ("_head", "_head_size", "_start", "_tail", "received")

    def __init__(self) -> None:
        self.received = 0
        self._head = b""
        self._head_size: int | None = None
        self._start = 0
        self._tail = b""

    def receive(self, data: bytes) -> None:
        """
        Note the next bytes.

        Raises:
            httpcore.RemoteProtocolError: The head is longer than 100 KB.
        """
        self.received += len(data)
        size = len(_LAST_CHUNK)
        self._tail = data[-size:] if len(data) >= size else (self._tail + data)[-size:]
        if self._head_size is None:
            self._look_for_body(data)

    def _look_for_body(self, data: bytes) -> None:
        head = self._head + data if self._head else data
        # The last two bytes of the part searched before may begin a blank line.
        position = max(self._start, len(self._head) - 2)
        while match := _BLANK_LINE.search(head, position):
            interim = head[self._start + 9 : self._start + 10] == b"1"
            position = match.end()
            if not interim:
                self._head_size = position
                break
            self._start = position
        if (self._head_size or len(head)) > _MAX_HEAD:
            raise httpcore.RemoteProtocolError(
                f"the head of the answer is over {_MAX_HEAD} bytes, the most that is taken"
            )
        self._head = head if self._head_size is None else b""

    def is_settled(self, *, body: int, chunked: bool) -> bool:
        """
        Tell whether what came is one answer and nothing else.

        Args:
            body: Bytes of the answer's body, once decoded from its framing.
            chunked: Whether the framing was ``Transfer-Encoding: chunked``.
                Then the answer must end in a plain last chunk, without trailers.
        """
        if chunked:
            return self._tail == _LAST_CHUNK
        return self._head_size is not None and self.received == self._head_size + body


class _Line(DirectBackend):
    """One connection: httpcore's half, which speaks HTTP, and the stream that it opened here."""

    def __init__(
        self,
        origin: _Origin,
        context: ssl.SSLContext | None,
        idle_timeout: float,
        on_open: Callable[[], None],
    ) -> None:
        scheme, host, port = origin
        self.origin = origin
        self.stream: DirectStream | None = None
        self.ledger = _Ledger()
        self.idle_since = 0.0
        self._on_open = on_open
        self._written_before = 0
        self.http = httpcore.AsyncHTTPConnection(
            httpcore.URL(scheme=scheme, host=host, port=port, target=b"/").origin,
            ssl_context=context,
            keepalive_expiry=idle_timeout,
            network_backend=self,
            socket_options=_SOCKET_OPTIONS,
        )

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> DirectStream:
        self.stream = await super().connect_tcp(host, port, timeout, local_address, socket_options)
        self.stream.on_read = self.ledger.receive
        self._on_open()
        return self.stream

    def begin(self) -> None:
        """Note that an exchange begins; what comes in before its first byte ends the connection."""
        if self.stream is not None:
            self.ledger = _Ledger()
            self.stream.on_read = self.ledger.receive
            self.stream.on_arrival = self.stream.abort
            self._written_before = self.stream.written

    @property
    def has_written(self) -> bool:
        """Whether a byte of this exchange was handed to the network."""
        return self.stream is not None and self.stream.written > self._written_before

    def abort(self) -> None:
        if self.stream is not None:
            self.stream.abort()


class _Lines:
    """Every connection on one event loop: those in use, and the stack of idle ones per origin."""

    def __init__(self, loop: asyncio.AbstractEventLoop, idle_timeout: float) -> None:
        self.opened = 0
        self.in_use: set[_Line] = set()
        # Oldest first, so the last is the top of the stack and the first is the next to expire.
        self.idle: dict[_Origin, OrderedDict[_Line, None]] = {}
        self._loop = loop
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
            self.discard_all()
            await asyncio.sleep(0)  # the turn in which the sockets go

    def is_at(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether this is the loop, and this the process, of these connections."""
        return self._loop is loop and self._pid == os.getpid()

    def is_orphaned(self) -> bool:
        """Tell whether the loop is gone, or is the parent process's."""
        return self._loop.is_closed() or self._pid != os.getpid()

    def take(self, origin: _Origin) -> _Line | None:
        """Take the idle connection that was used last and is still good."""
        stack = self.idle.get(origin)
        while stack:
            line, _ = stack.popitem()
            if not line.http.has_expired():
                self.in_use.add(line)
                return line
            line.abort()
        return None

    def open(self, origin: _Origin, context: ssl.SSLContext | None) -> _Line:
        """Make a connection that connects when it is first used."""
        line = _Line(origin, context, self._idle_timeout, self._count)
        self.in_use.add(line)
        return line

    def _count(self) -> None:
        self.opened += 1

    def keep(self, line: _Line) -> None:
        """Put a connection on the stack, if it is one that can be used again."""
        if line not in self.in_use or line.stream is None or not line.http.is_idle():
            self.discard(line)
            return
        self.in_use.discard(line)
        line.idle_since = self._loop.time()
        line.stream.on_arrival = functools.partial(self._forget, line)
        self.idle.setdefault(line.origin, OrderedDict())[line] = None
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._idle_timeout, self._sweep)

    def _forget(self, line: _Line) -> None:
        # The server closed it, or spoke unasked: it is of no more use.
        self.idle[line.origin].pop(line)
        line.abort()

    def _sweep(self) -> None:
        now = self._loop.time()
        oldest = now
        for origin, stack in list(self.idle.items()):
            while stack:
                line = next(iter(stack))
                if line.idle_since + self._idle_timeout > now:
                    oldest = min(oldest, line.idle_since)
                    break
                self._forget(line)
            if not stack:
                del self.idle[origin]
        self._sweeper = None
        if self.idle:
            self._sweeper = self._loop.call_at(oldest + self._idle_timeout, self._sweep)

    def discard(self, line: _Line) -> None:
        """Close a connection that is in use."""
        self.in_use.discard(line)
        line.abort()

    def discard_soon(self, line: _Line) -> None:
        """Close a connection from any thread, whether its loop still exists or not."""
        if not self.is_orphaned():
            with contextlib.suppress(RuntimeError):  # closed since
                self._loop.call_soon_threadsafe(self.discard, line)

    def discard_all(self) -> None:
        """Close every connection."""
        for line in self._remove_all():
            line.abort()

    def _remove_all(self) -> list[_Line]:
        lines = [*self.in_use, *(line for stack in self.idle.values() for line in stack)]
        self.in_use.clear()
        self.idle.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        return lines

    async def aclose(self) -> None:
        """Close every connection; the sockets are gone when this returns."""
        await self._last_will.aclose()

    def abandon(self) -> None:
        """Close every connection, from any thread, whether its loop still exists or not."""
        if not self.is_orphaned():
            self._loop.call_soon_threadsafe(self.discard_all)
            return
        if self._pid != os.getpid():
            _inherited.append(self._last_will)
        streams = [line.stream for line in self._remove_all() if line.stream is not None]
        if not streams:
            return
        with warnings.catch_warnings():
            # "unclosed transport": they are, and nothing public could tell asyncio so.
            warnings.simplefilter("ignore", ResourceWarning)
            while streams:
                streams.pop().abandon()
            gc.collect()  # asyncio's transport and its TLS hold each other


class _Body(httpx.AsyncByteStream):
    """
    The body of an answer, and the end of its exchange.

    Its own iterator rather than a generator: one that was not run to its end
    would be finished later, by a task of the loop that nobody asked for.
    """

    def __init__(
        self,
        lines: _Lines,
        line: _Line,
        request: httpx.Request,
        response: httpcore.Response,
    ) -> None:
        self._lines = lines
        self._line = line
        self._is_closed = False
        self._request = request
        self._response = response
        self._chunks = aiter(cast("AsyncIterable[bytes]", response.stream))
        self._chunked = any(name.lower() == b"transfer-encoding" for name, _ in response.headers)
        self._size = 0
        self._is_reading = False
        self._is_complete = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._is_reading = True
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._is_complete = True
            await self.aclose()
            raise
        except BaseException as exc:
            self._is_closed = True
            self._lines.discard(self._line)
            error = _translated(exc, self._request)
            if error is None:
                raise
            raise error from exc
        finally:
            self._is_reading = False
        self._size += len(chunk)
        return chunk

    async def aclose(self) -> None:
        """Keep the connection if the answer was read to its end, else close it."""
        if self._is_closed:
            return
        self._is_closed = True
        if not self._is_complete:
            await self._break_off()
            return
        try:
            await self._response.aclose()
        except BaseException:
            self._lines.discard(self._line)
            raise
        line = self._line
        if not line.has_written or line.ledger.is_settled(body=self._size, chunked=self._chunked):
            self._lines.keep(line)
        else:
            self._lines.discard(line)

    async def _break_off(self) -> None:
        had_written = self._line.has_written
        self._lines.discard(self._line)
        if self._is_reading:
            return  # whoever reads finds the connection closed
        if had_written:
            # Runs httpcore's generators to their end: at once, since the socket is closed
            # and only what was parsed already can still come.
            with contextlib.suppress(Exception):
                while True:
                    await anext(self._chunks)
        await self._response.aclose()

    def __del__(self) -> None:
        # Forgotten, or lost to a cancellation on its way to whoever asked.
        if not self._is_closed:
            self._lines.discard_soon(self._line)


# --------------------------------------------------------------------------- many connections


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

    `respx.mock` intercepts requests made through it.
    """

    def __init__(
        self,
        *,
        connect_timeout: float | None = 10.0,
        idle_timeout: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
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
                Its ALPN protocols are set to ``http/1.1``.
        """
        self._connect_timeout = connect_timeout
        self._idle_timeout = idle_timeout
        self._ssl_context = ssl_context
        self._lines: _Lines | None = None
        self._opened_before = 0  # on loops that are gone
        self._is_closed = False

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<DirectTransport {now.in_use} in use, {now.idle} idle, {now.opened} opened>"

    def statistics(self) -> ConnectionStatistics:
        """Return what is open now."""
        lines = self._lines
        if lines is None:
            return ConnectionStatistics(opened=self._opened_before, in_use=0, idle=0)
        return ConnectionStatistics(
            opened=self._opened_before + lines.opened,
            in_use=len(lines.in_use),
            idle=sum(len(stack) for stack in lines.idle.values()),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send a request and return its answer once the head of it is here.

        Args:
            request: Its ``timeout`` extension may have ``connect`` (in all),
                ``read`` and ``write`` (silence; each chunk starts the clock
                anew) in seconds. ``pool`` has no meaning here: nobody waits.

        Returns:
            An answer whose body is still to be read. Its connection is used
            again once the body was read to its end, and closed if it was not.

        Raises:
            httpx.TransportError: One of its subclasses, `request` set and the
                cause kept. `httpx.ConnectError`, `httpx.ConnectTimeout` and
                `httpx.UnsupportedProtocol` mean that nothing was sent.
            RuntimeError: The transport was closed, or belongs to another loop
                that is still open.
        """
        lines = await self._lines_here()
        url = request.url
        if url.scheme not in {"http", "https"}:
            raise httpx.UnsupportedProtocol(
                f"expected an http or https URL, not {url.scheme!r}", request=request
            )
        if not isinstance(request.stream, httpx.AsyncByteStream):
            raise TypeError("a request on an async transport needs an async body")
        if url.scheme == "https" and self._ssl_context is None:
            self._ssl_context = await shared_ssl_context()
        outgoing = httpcore.Request(
            request.method,
            httpcore.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=_with_timeouts(request, connect=self._connect_timeout),
        )
        origin = (url.raw_scheme, url.raw_host, url.port)
        while True:
            line = lines.take(origin)
            is_fresh = line is None
            if line is None:
                line = lines.open(origin, self._ssl_context)
            line.begin()
            try:
                response = await line.http.handle_async_request(outgoing)
                if line.has_written and not line.ledger.received:
                    raise httpcore.RemoteProtocolError("the answer was there before the request")
            except BaseException as exc:
                lines.discard(line)
                error = _translated(exc, request)
                if error is None:
                    raise
                if not is_fresh and not line.has_written and isinstance(exc, _DEAD):
                    continue  # it died between the look at it and the first byte
                raise error from exc
            return httpx.Response(
                response.status,
                headers=response.headers,
                stream=_Body(lines, line, request, response),
                extensions=response.extensions,
            )

    async def aclose(self) -> None:
        """Close every connection; requests under way fail with `httpx.ReadError`."""
        self._is_closed = True
        if self._lines is None:
            return
        if self._lines.is_at(asyncio.get_running_loop()):
            await self._lines.aclose()
        else:
            self._lines.abandon()

    def abandon(self) -> None:
        """
        Give up every connection, without a running loop.

        For a loop that was closed, and for a forked child, where only this
        process's copies of the sockets go and the parent is not disturbed. If
        the loop is still open, it is asked to close the connections itself.
        Never waits. The transport can be used again, on any loop.
        """
        if self._lines is not None:
            self._lines.abandon()
            self._opened_before += self._lines.opened
            self._lines = None

    async def _lines_here(self) -> _Lines:
        """Return the running loop's connections."""
        if self._is_closed:
            raise RuntimeError("this transport was closed")
        loop = asyncio.get_running_loop()
        lines = self._lines
        if lines is not None and not lines.is_at(loop):
            if not lines.is_orphaned():
                raise RuntimeError(
                    "this transport belongs to another event loop that is still open; "
                    "make one for each loop"
                )
            self.abandon()
            lines = None
        if lines is None:
            lines = self._lines = _Lines(loop, self._idle_timeout)
            await lines.start()
        return lines


# --------------------------------------------------------------------------- many pools


class _Shard:
    """One small httpx pool, and how many requests are on it."""

    def __init__(self, transport: httpx.AsyncHTTPTransport) -> None:
        self.transport = transport
        self.load = 0


class _ShardBody(httpx.AsyncByteStream):
    """The body of an answer; its end makes room on the shard."""

    def __init__(
        self,
        request: httpx.Request,
        stream: httpx.AsyncByteStream,
        on_close: Callable[[], None],
    ) -> None:
        self._request = request
        self._stream = stream
        self._on_close = on_close
        self._chunks = aiter(stream)
        self._is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._chunks)
        except httpx.RequestError as exc:
            exc.request = self._request
            raise

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await self._stream.aclose()
            # Runs httpx's generators to their end, at once, since the connection is closed:
            # left half-way they would be finished later, and trio warns of that.
            with contextlib.suppress(Exception):
                while True:
                    await anext(self._chunks)
        finally:
            self._on_close()


class ShardedTransport(httpx.AsyncBaseTransport):
    """
    Many small httpx pools behind one transport: for trio, and for proxies.

    A request goes to the pool with the fewest requests; when each has five, a
    pool is added. No request ever waits for a place in a pool.

    Costs about twice the CPU of `DirectTransport` and hands out TLS in 16 KB
    pieces (measured), since everything below is httpx's own.
    """

    def __init__(
        self,
        *,
        connect_timeout: float | None = 10.0,
        idle_timeout: float = 30.0,
        ssl_context: ssl.SSLContext | None = None,
        proxy: httpx.Proxy | httpx.URL | str | None = None,
    ) -> None:
        """
        Make a transport; does no I/O and needs no running loop.

        Args:
            connect_timeout: Seconds for the TCP connection and again for TLS,
                where the request's own ``timeout`` extension does not give
                ``connect``.
            idle_timeout: Seconds an idle connection is kept; looked at when
                its pool is next used.
            ssl_context: Whom to trust; the process's shared one by default.
            proxy: An ``http``, ``https`` or ``socks5`` proxy; the last needs
                httpx's extra ``socks``.
        """
        self._connect_timeout = connect_timeout
        self._idle_timeout = idle_timeout
        self._ssl_context = ssl_context
        self._proxy = (
            proxy if proxy is None or isinstance(proxy, httpx.Proxy) else httpx.Proxy(proxy)
        )
        # Shards by how many requests are on them.
        self._by_load: list[dict[_Shard, None]] = [{} for _ in range(_SHARD_SIZE + 1)]
        self._shards: list[_Shard] = []
        self._token: object = None
        self._pid = 0
        self._guard: AsyncGenerator[None] | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        load = sum(shard.load for shard in self._shards)
        return f"<ShardedTransport {load} in flight, {len(self._shards)} pools>"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send a request and return its answer once the head of it is here.

        Raises:
            httpx.TransportError: One of its subclasses, `request` set; never
                `httpx.PoolTimeout`.
            RuntimeError: The transport was closed.
        """
        await self._settle_here()
        if self._ssl_context is None:
            self._ssl_context = await shared_ssl_context()
        request.extensions = _with_timeouts(request, connect=self._connect_timeout)
        shard = self._take(self._ssl_context)
        try:
            response = await shard.transport.handle_async_request(request)
        except BaseException as exc:
            self._give_back(shard)
            if isinstance(exc, httpx.RequestError):
                exc.request = request
            error = _translated(exc, request)
            if error is None:
                raise
            raise error from exc
        stream = cast("httpx.AsyncByteStream", response.stream)
        response.stream = _ShardBody(request, stream, functools.partial(self._give_back, shard))
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        self._is_closed = True
        if self._guard is None:
            return
        if not self._is_here():
            self.abandon()
            return
        await self._guard.aclose()
        self._forget_all()

    def abandon(self) -> None:
        """Give up every connection, without a running loop: its own is gone, or the parent's."""
        with warnings.catch_warnings():
            # Unclosed sockets: they are, and their loop is not there to close them.
            warnings.simplefilter("ignore", ResourceWarning)
            if self._pid != os.getpid():
                _inherited.append(self._guard)
            self._forget_all()
            gc.collect()

    def _forget_all(self) -> None:
        self._guard = None
        self._token = None
        self._shards.clear()  # in place, for the guard of a parent process has it too
        for shards in self._by_load:
            shards.clear()

    def _is_here(self) -> bool:
        return self._token == current_token() and self._pid == os.getpid()

    async def _settle_here(self) -> None:
        if self._is_closed:
            raise RuntimeError("this transport was closed")
        if self._is_here():
            return
        if self._token is not None:
            self.abandon()
        self._token = current_token()
        self._pid = os.getpid()
        self._guard = _closing_pools_with_the_loop(self._shards)
        await anext(self._guard)

    def _take(self, context: ssl.SSLContext) -> _Shard:
        for shards in self._by_load[:_SHARD_SIZE]:
            if shards:
                shard, _ = shards.popitem()
                break
        else:
            shard = _Shard(self._make_pool(context))
            self._shards.append(shard)
        shard.load += 1
        self._by_load[shard.load][shard] = None
        return shard

    def _give_back(self, shard: _Shard) -> None:
        # Not there any more when all was closed or abandoned meanwhile.
        if self._by_load[shard.load].pop(shard, _ABSENT) is not _ABSENT:
            shard.load -= 1
            self._by_load[shard.load][shard] = None

    def _make_pool(self, context: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
        proxy = self._proxy
        if proxy is not None and proxy.url.scheme == "https" and proxy.ssl_context is None:
            # Else httpcore would make a context for each connection, on the loop.
            proxy = httpx.Proxy(
                proxy.url, ssl_context=context, auth=proxy.auth, headers=proxy.headers
            )
        # No limit of the pool's own: the load is one, and a place that a cancelled request
        # did not give back can then keep nobody waiting.
        limits = httpx.Limits(
            max_connections=None,
            max_keepalive_connections=_SHARD_SIZE,
            keepalive_expiry=self._idle_timeout,
        )
        return httpx.AsyncHTTPTransport(verify=context, limits=limits, proxy=proxy)


_ABSENT = object()


async def _closing_pools_with_the_loop(shards: list[_Shard]) -> AsyncGenerator[None]:
    # As for `DirectTransport`; trio does the same with its generators.
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            for shard in shards:
                await shard.transport.aclose()


# --------------------------------------------------------------------------- the choice


def environment_proxy(url: httpx.URL | str) -> str | None:
    """
    Return the proxy that the environment names for this URL.

    ``HTTPS_PROXY`` or ``HTTP_PROXY`` by the URL's scheme, else ``ALL_PROXY``;
    lower case first. On macOS and Windows the system's settings count where
    no variable is set. Read by `urllib.request.getproxies`, as httpx does.
    ``NO_PROXY`` is a list of names, each standing for its subdomains too, or
    ``*`` (`urllib.request.proxy_bypass`; unlike httpx, ``.example.com`` holds
    for ``example.com`` itself, as it does for curl). This machine's own names
    and addresses need no proxy, and plain http to them must not leave it.
    """
    url = httpx.URL(url)
    if is_this_machine(url.host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(url.netloc.decode("ascii")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_under_asyncio() -> bool:
    # In trio's guest mode asyncio's loop runs as well, but none of its tasks.
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def default_transport(
    url: httpx.URL | str,
    *,
    connect_timeout: float | None = 10.0,
    idle_timeout: float = 30.0,
    ssl_context: ssl.SSLContext | None = None,
    proxy: httpx.Proxy | httpx.URL | str | None = None,
    trust_env: bool = True,
) -> DirectTransport | ShardedTransport:
    """
    Make the transport that suits the place it is called from.

    Call it in the event loop that will use it.

    Args:
        url: Where the requests will go; decides about proxies.
        connect_timeout: Seconds to connect.
        idle_timeout: Seconds an idle connection is kept.
        ssl_context: Whom to trust; the process's shared one by default.
        proxy: The proxy to use, whatever the environment says.
        trust_env: Whether the environment may name a proxy (`environment_proxy`).

    Returns:
        A `DirectTransport` under asyncio without a proxy, else a `ShardedTransport`.
    """
    if proxy is None and trust_env:
        proxy = environment_proxy(url)
    if proxy is None and _is_under_asyncio():
        return DirectTransport(
            connect_timeout=connect_timeout, idle_timeout=idle_timeout, ssl_context=ssl_context
        )
    return ShardedTransport(
        connect_timeout=connect_timeout,
        idle_timeout=idle_timeout,
        ssl_context=ssl_context,
        proxy=proxy,
    )
