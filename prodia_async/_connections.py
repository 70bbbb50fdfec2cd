"""
Connections: which one a request travels on, and what becomes of it after.

Three transports for httpx, all with the interface of `httpx.AsyncBaseTransport`:

- `DirectTransport`, for asyncio: a stack of idle connections per origin, last
  in, first out. A request takes the top one or opens its own, so there are
  never more connections than requests were in flight at once, and the cost
  of a request does not depend on how many there are.
- `ShardedTransport`, for trio and for proxies: httpcore's own pool, many
  times, each with five requests at most. One large pool costs 18 ms of CPU
  per request at 100 in flight, and small ones stay under 1 ms (measured).
- `default_transport` chooses between them.

A connection is used again only when it is proven that the answer on it was
read to its last byte and that not one more byte came (`_Ledger`). In every
other case, and whatever was cancelled wherever, its socket is closed at once
and without waiting. So the next request can never read the remains of this
one.

Nothing here sends a request twice. The one exception is not visible outside:
a connection that turns out to be dead before the first byte of the request
was written is replaced.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import functools
import gc
import importlib.util
import os
import re
import socket
import ssl
import urllib.request
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread
import h11
import httpcore
from anyio.lowlevel import RunVar, checkpoint, current_token

from ._httpx import httpx
from ._network import DirectBackend, DirectStream
from ._wire import is_this_machine

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable

_MAX_HEAD = 100 * 1024
"""Bytes of status line and headers, interim answers included. Chosen: h11's limit in httpcore."""

_SHARD_SIZE = 5
"""Requests per pool. Measured: 5 stay flat to 1000 in flight, 10 creep up by half."""

_TOO_EARLY = "the answer was there before the request"

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


def _url_for_httpcore(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


def _for_httpcore(request: httpx.Request, connect_timeout: float | None) -> httpcore.Request:
    """Return the request in httpcore's terms, with this timeout where it gives none."""
    if request.url.scheme not in {"http", "https"}:
        raise httpx.UnsupportedProtocol(
            f"expected an http or https URL, not {request.url.scheme!r}", request=request
        )
    if not isinstance(request.stream, httpx.AsyncByteStream):
        raise TypeError("a request on an async transport needs an async body")
    timeouts = {"connect": connect_timeout, **request.extensions.get("timeout", {})}
    return httpcore.Request(
        request.method,
        _url_for_httpcore(request.url),
        headers=request.headers.raw,
        content=request.stream,
        extensions={**request.extensions, "timeout": timeouts},
    )


def _for_httpx(response: httpcore.Response, body: _Body) -> httpx.Response:
    """Return the answer in httpx's terms."""
    return httpx.Response(
        response.status, headers=response.headers, stream=body, extensions=response.extensions
    )


class _Body(httpx.AsyncByteStream, abc.ABC):
    """
    The body of an answer, and the end of its exchange.

    Its own iterator rather than a generator: one that was not run to its end
    would be finished later, by a task of the loop that nobody asked for.
    """

    def __init__(self, request: httpx.Request, response: httpcore.Response) -> None:
        self._request = request
        self._response = response
        self._chunks = aiter(cast("AsyncIterable[bytes]", response.stream))
        self._chunked = any(name.lower() == b"transfer-encoding" for name, _ in response.headers)
        self._size = 0
        self._is_reading = False
        self._is_complete = False
        self._is_closed = False

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
            if not self._is_closed:
                self._is_closed = True
                self._drop()
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
        if not self._is_closed:
            self._is_closed = True
            await self._end()

    @abc.abstractmethod
    async def _end(self) -> None:
        """End the exchange, complete or not."""

    @abc.abstractmethod
    def _drop(self) -> None:
        """End an exchange that failed."""

    async def _drain(self) -> None:
        # Runs httpcore's generators to their end: at once, since the socket is closed
        # and only what was parsed already can still come. Left half-way they would be
        # finished later, and trio warns of that.
        with contextlib.suppress(Exception):
            while True:
                await anext(self._chunks)


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


class _LineBody(_Body):
    """The body of an answer on a line."""

    def __init__(
        self, request: httpx.Request, response: httpcore.Response, lines: _Lines, line: _Line
    ) -> None:
        super().__init__(request, response)
        self._lines = lines
        self._line = line

    async def _end(self) -> None:
        if not self._is_complete:
            await self._break_off()
            return
        try:
            await self._response.aclose()
        except BaseException:
            self._drop()
            raise
        line = self._line
        if not line.has_written or line.ledger.is_settled(body=self._size, chunked=self._chunked):
            self._lines.keep(line)
        else:
            self._drop()

    async def _break_off(self) -> None:
        had_written = self._line.has_written
        self._drop()
        if self._is_reading:
            return  # whoever reads finds the connection closed
        if had_written:
            await self._drain()
        await self._response.aclose()

    def _drop(self) -> None:
        self._lines.discard(self._line)

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
        outgoing = _for_httpcore(request, self._connect_timeout)
        url = request.url
        if url.scheme == "https" and self._ssl_context is None:
            self._ssl_context = await shared_ssl_context()
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
                    raise httpcore.RemoteProtocolError(_TOO_EARLY)
            except BaseException as exc:
                lines.discard(line)
                error = _translated(exc, request)
                if error is None:
                    raise
                if not is_fresh and not line.has_written and isinstance(exc, _DEAD):
                    continue  # it died between the look at it and the first byte
                raise error from exc
            return _for_httpx(response, _LineBody(request, response, lines, line))

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


def _has_unread(tls: ssl.SSLObject) -> bool:
    """Tell whether TLS holds bytes that were not read yet; where it does, one is lost."""
    try:
        tls.read(1)
    except ssl.SSLError as exc:
        return not isinstance(exc, ssl.SSLWantReadError)
    return True


class _LedgerStream(httpcore.AsyncNetworkStream):
    """
    One connection of a pool: it can be used again only when its answer is proven.

    A pool looks at an idle connection before it uses it again, and closes one
    that is readable: the server has spoken unasked, or ended. So this one
    calls itself readable unless the last answer on it was `settle`d.

    Attributes:
        ledger: What came in since the last request began.
    """

    def __init__(
        self, stream: httpcore.AsyncNetworkStream, tls: tuple[ssl.SSLObject, ...] = ()
    ) -> None:
        self.ledger = _Ledger()
        self._stream = stream
        self._tls = tls  # outermost first; two for TLS through a proxy that is reached over TLS
        self._is_settled = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        self.ledger.receive(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self.ledger.received:
            # The first bytes of a request: httpcore, and SOCKS, read only after all is written.
            if self._is_settled and self.get_extra_info("is_readable"):
                # It went bad since the pool looked. The pool closes it and takes another.
                raise httpcore.ConnectionNotAvailable
            self.ledger = _Ledger()
            self._is_settled = False
        await self._stream.write(buffer, timeout)

    def settle(self, *, body: int, chunked: bool) -> None:
        """Note that an answer was read to its end; arguments as for the ledger."""
        self._is_settled = self.ledger.is_settled(body=body, chunked=chunked) and not any(
            map(_has_unread, self._tls)
        )

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> _LedgerStream:
        stream = None
        try:
            stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        finally:
            if stream is None:
                # httpcore does this when the handshake fails, not when it is cancelled.
                with anyio.CancelScope(shield=True):
                    await self._stream.aclose()
        return _LedgerStream(stream, (*self._tls, stream.get_extra_info("ssl_object")))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and not self._is_settled:
            return True
        return self._stream.get_extra_info(info)


class _LedgerBackend(httpcore.AsyncNetworkBackend):
    """Opens `_LedgerStream`s on the running loop."""

    def __init__(self) -> None:
        # Under asyncio ours, for anyio's streams hold what they have read beyond 64 KB where
        # it cannot be seen, and it might be the beginning of another answer.
        self._backend = DirectBackend() if _is_under_asyncio() else httpcore.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> _LedgerStream:
        try:
            # Not left to the backend: ours would count what follows in, CONNECT and TLS.
            with anyio.fail_after(timeout):
                stream = await self._backend.connect_tcp(
                    host, port, None, local_address, socket_options or _SOCKET_OPTIONS
                )
        except TimeoutError as exc:
            raise httpcore.ConnectTimeout(f"{host}:{port} did not answer in time") from exc
        return _LedgerStream(stream)


class _Shard:
    """One small pool, and how many requests are on it."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self.pool = pool
        self.load = 0


class _ShardBody(_Body):
    """The body of an answer on a shard; its end makes room there."""

    def __init__(
        self,
        request: httpx.Request,
        response: httpcore.Response,
        stream: _LedgerStream | None,
        give_back: Callable[[], None],
    ) -> None:
        super().__init__(request, response)
        self._stream = stream
        self._give_back = give_back

    async def _end(self) -> None:
        if self._is_complete and self._stream is not None:
            # Before the pool hears of the end, for it may use the connection at once.
            self._stream.settle(body=self._size, chunked=self._chunked)
        try:
            await self._response.aclose()
            await self._drain()
        finally:
            self._drop()

    def _drop(self) -> None:
        self._give_back()


class ShardedTransport(httpx.AsyncBaseTransport):
    """
    Many small httpcore pools behind one transport: for trio, and for proxies.

    A request goes to the pool with the fewest requests; when each has five, a
    pool is added. No request ever waits for a place in a pool.

    Costs about twice the CPU of `DirectTransport`, and under trio hands out
    TLS in 16 KB pieces (measured).

    `respx.mock` intercepts requests made through it.
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
        outgoing = _for_httpcore(request, self._connect_timeout)
        if self._ssl_context is None:
            self._ssl_context = await shared_ssl_context()
        shard = self._take(self._ssl_context)
        try:
            response = await shard.pool.handle_async_request(outgoing)
            stream = response.extensions.get("network_stream")
            if not isinstance(stream, _LedgerStream):
                stream = None  # respx answered, or the protocol was changed
            elif not stream.ledger.received:
                await response.aclose()
                raise httpcore.RemoteProtocolError(_TOO_EARLY)
        except BaseException as exc:
            self._give_back(shard)
            error = _translated(exc, request)
            if error is None:
                raise
            raise error from exc
        give_back = functools.partial(self._give_back, shard)
        return _for_httpx(response, _ShardBody(request, response, stream, give_back))

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

    def _make_pool(self, context: ssl.SSLContext) -> httpcore.AsyncConnectionPool:
        options: dict[str, Any] = {
            "ssl_context": context,
            # No limit of the pool's own: the load is one, and a place that a cancelled request
            # did not give back can then keep nobody waiting.
            "max_connections": None,
            "max_keepalive_connections": _SHARD_SIZE,
            "keepalive_expiry": self._idle_timeout,
            "network_backend": _LedgerBackend(),
        }
        proxy = self._proxy
        if proxy is None:
            return httpcore.AsyncConnectionPool(**options)
        options["proxy_url"] = _url_for_httpcore(proxy.url)
        options["proxy_auth"] = proxy.raw_auth
        if proxy.url.scheme.startswith("socks5"):
            if importlib.util.find_spec("socksio") is None:
                raise ImportError("a SOCKS proxy needs socksio: pip install 'httpx[socks]'")
            return httpcore.AsyncSOCKSProxy(**options)
        tls = proxy.ssl_context
        if proxy.url.scheme == "https" and tls is None:
            tls = context  # else httpcore would make one for each connection, on the loop
        return httpcore.AsyncHTTPProxy(
            proxy_headers=proxy.headers.raw, proxy_ssl_context=tls, **options
        )


_ABSENT = object()


async def _closing_pools_with_the_loop(shards: list[_Shard]) -> AsyncGenerator[None]:
    # As for `DirectTransport`; trio does the same with its generators.
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            for shard in shards:
                await shard.pool.aclose()
            await checkpoint()  # the turn in which asyncio's sockets go


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
