"""
httpcore's pools: for trio, for proxies, and below HTTP/2.

One large pool costs 18 ms of CPU per request at 100 in flight, and pools of
five stay under 1 ms (measured), so there are as many small ones as it takes.
A pool's connection is used again only with the same proof as everywhere
(`_settled`): httpcore does not tell when more bytes came than the response
has, so they are read once more, beside it.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import os
import warnings
from typing import TYPE_CHECKING, Any, cast

import anyio
import h11
import httpcore
import httpx
from anyio.lowlevel import checkpoint, current_token

from .._closing import ClosedError, Exits
from ._network import CLOSED, is_under_asyncio
from ._streams import Backend, ProvenStream
from ._tls import shared_ssl_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable

SHARD_SIZE = 5
"""Requests per pool. Measured: 5 stay flat to 1000 in flight, 10 creep up by half."""

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
    ClosedError: httpx.ReadError,
}

_inherited: list[object] = []
"""As in `_http1`."""


def _translated(exc: BaseException, request: httpx.Request) -> httpx.TransportError | None:
    """Return the httpx error that stands for this one; ``None`` if it has none."""
    told = exc.args[0] if exc.args else None
    if type(told).__module__ == "h2.events" or type(told).__name__ == "StreamClosedError":
        # A stream or a connection that the server ended is no fault of its HTTP.
        return httpx.ReadError(f"the server broke off: {told}", request=request)
    for cls in type(exc).__mro__:
        if cls in _ERRORS:
            return _ERRORS[cls](str(exc) or cls.__name__, request=request)
        if cls.__module__ == "h2.exceptions":
            # httpcore lets these through while a body is read.
            return httpx.RemoteProtocolError(str(exc) or cls.__name__, request=request)
    return None


class Shard:
    """One pool, how many requests are on it, and whether it takes more."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self.pool = pool
        self.load = 0
        self.is_retired = False
        self.stream: Any = None  # where HTTP/2 is spoken


class _Body(httpx.AsyncByteStream):
    """
    The body of a response on a shard, and the end of its exchange.

    Its own iterator rather than a generator: one that was not run to its end
    would be finished later, by a task of the loop that nobody asked for.
    """

    def __init__(
        self,
        request: httpx.Request,
        response: httpcore.Response,
        give_back: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._request = request
        self._response = response
        self._chunks = aiter(cast("AsyncIterable[bytes]", response.stream))
        self._give_back = give_back
        self._is_complete = self._is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            # HTTP/2 often ends in an empty frame, which would be taken for a piece.
            while not (chunk := await anext(self._chunks)):
                pass
        except StopAsyncIteration:
            self._is_complete = True
            await self.aclose()
            raise
        except BaseException as exc:
            if not self._is_closed:
                self._is_closed = True
                with anyio.CancelScope(shield=True):
                    await self._give_back(False)
            error = _translated(exc, self._request)
            if error is None:
                raise
            raise error from exc
        return chunk

    async def aclose(self) -> None:
        """Keep the connection if the response was read to its end, else close it."""
        if self._is_closed:
            return
        self._is_closed = True
        stream = self._response.extensions.get("network_stream")
        if self._is_complete and isinstance(stream, ProvenStream):
            # Before the pool hears of the end, for it may use the connection at once.
            stream.settle()
        try:
            await self._response.aclose()
            if self._response.extensions.get("http_version") != b"HTTP/2":
                # httpcore's generators run to their end: at once, for only what was parsed
                # already can still come. Left half-way they would be finished later, and trio
                # warns of that.
                with contextlib.suppress(Exception):
                    while True:
                        await anext(self._chunks)
        finally:
            with anyio.CancelScope(shield=True):
                await self._give_back(self._is_complete)


class ShardedTransport(httpx.AsyncBaseTransport):
    """
    Many small httpcore pools behind one transport: for trio, and for proxies.

    A request goes to the pool with the fewest requests; when each has five, a
    pool is added. No request ever waits for a place in a pool.

    Costs more than twice the CPU of `DirectTransport`, and under trio hands out
    TLS in 16 KB pieces (measured).

    `respx.mock` intercepts requests made through it.
    """

    proves_ends = True
    """No connection of it carries another request but with the proof of `_settled`."""

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
        self._by_load: list[dict[Shard, None]] = [{} for _ in range(SHARD_SIZE + 1)]
        self._shards: dict[Shard, None] = {}
        self._exits = Exits()
        self._token: object = None
        self._pid = 0
        self._guard: AsyncGenerator[None] | None = None

    def __repr__(self) -> str:
        load = sum(shard.load for shard in self._shards)
        return f"<{type(self).__name__} {load} in flight, {len(self._shards)} pools>"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send a request and return its answer once the head of it is here.

        Raises:
            httpx.TransportError: One of its subclasses, `request` set; never
                `httpx.PoolTimeout`.
            RuntimeError: The transport was closed.
        """
        await self._settle_here()
        outgoing = self._outgoing(request)
        if self._ssl_context is None:
            self._ssl_context = await self._make_context()
            self._check_open()
        shard = await self._take(self._ssl_context)
        try:
            response = await self._exits.step(
                functools.partial(shard.pool.handle_async_request, outgoing)
            )
            if self._exits.is_closed:
                await response.aclose()
                raise ClosedError(CLOSED)
        except BaseException as exc:
            with anyio.CancelScope(shield=True):
                await self._give_back(shard, None, is_clean=False)
            error = _translated(exc, request)
            if error is None:
                raise
            raise error from exc
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(
                request,
                response,
                lambda is_clean: self._give_back(shard, response, is_clean=is_clean),
            ),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close every connection; requests under way fail with `httpx.ReadError`."""
        if self._guard is None:
            self._exits.is_closed = True
        elif not self._is_here():
            self._exits.is_closed = True
            self.abandon()
        else:
            await self._exits.aclose()
            guard, self._guard = self._guard, None
            await guard.aclose()
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

    def _check_open(self) -> None:
        if self._exits.is_closed:
            raise RuntimeError(CLOSED)

    async def _settle_here(self) -> None:
        self._check_open()
        if self._is_here():
            return
        if self._token is not None:
            self.abandon()
        self._token = current_token()
        self._pid = os.getpid()
        self._guard = _closing_pools_with_the_loop(self._shards)
        await anext(self._guard)

    async def _make_context(self) -> ssl.SSLContext:
        return await shared_ssl_context()

    def _outgoing(self, request: httpx.Request) -> httpcore.Request:
        """Return the request in httpcore's terms, with our timeout where it gives none."""
        if request.url.scheme not in {"http", "https"}:
            raise httpx.UnsupportedProtocol(
                f"expected an http or https URL, not {request.url.scheme!r}", request=request
            )
        if not isinstance(request.stream, httpx.AsyncByteStream):
            raise TypeError("a request on an async transport needs an async body")
        timeouts = {"connect": self._connect_timeout, **request.extensions.get("timeout", {})}
        return httpcore.Request(
            request.method,
            _url_for_httpcore(request.url),
            headers=request.headers.raw,
            content=request.stream,
            extensions={**request.extensions, "timeout": timeouts},
        )

    async def _take(self, context: ssl.SSLContext) -> Shard:
        for shards in self._by_load[:SHARD_SIZE]:
            if shards:
                shard, _ = shards.popitem()
                break
        else:
            shard = Shard(self._make_pool(context))
            self._shards[shard] = None
        shard.load += 1
        self._by_load[shard.load][shard] = None
        return shard

    async def _give_back(
        self, shard: Shard, response: httpcore.Response | None, *, is_clean: bool
    ) -> None:
        """Note that an exchange is over; not clean if the server may still be at it."""
        del response, is_clean
        # Not there any more when all was closed or abandoned meanwhile.
        if self._by_load[shard.load].pop(shard, ABSENT) is not ABSENT:
            shard.load -= 1
            self._by_load[shard.load][shard] = None

    def _make_pool(self, context: ssl.SSLContext, **more: Any) -> httpcore.AsyncConnectionPool:
        options: dict[str, Any] = {
            "ssl_context": context,
            # No limit of the pool's own: the load is one, and a place that a cancelled request
            # did not give back can then keep nobody waiting.
            "max_connections": None,
            "max_keepalive_connections": SHARD_SIZE,
            "keepalive_expiry": self._idle_timeout,
            "network_backend": Backend(is_asyncio=is_under_asyncio()),
            **more,
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


ABSENT = object()


def _url_for_httpcore(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


async def _closing_pools_with_the_loop(shards: dict[Shard, None]) -> AsyncGenerator[None]:
    # As for `DirectTransport`; trio does the same with its generators.
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            for shard in list(shards):
                await shard.pool.aclose()
            await checkpoint()  # the turn in which asyncio's sockets go
