"""
Two more ways to send, for those who need them: over aiohttp, and over HTTP/2.

The default transport needs neither. A transport made here is handed to the
client, which closes it::

    from prodia_async.transports import aiohttp_transport

    async with AsyncProdia(transport=aiohttp_transport(max_connections=64)) as prodia:
        ...

What comes out of both is httpx's errors only, and each of them says as much
about the job as it can: a connection that was never made is an
`httpx.ConnectError`, one that broke later is not. Nothing is sent twice.

A transport of either kind belongs to the event loop it was first used on, and
is closed there.

For tests: ``respx.mock`` intercepts the default transport, `http2_transport`
and httpx's own, since all of them end in httpcore; it does not see
`aiohttp_transport`. ``respx.mock(using="httpx")`` sees only what goes through
a client given as ``http_client=``: everything else is really sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import select
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, cast

import anyio
import anyio.to_thread

from ._connections import shared_ssl_context
from ._errors import InvalidRequestError
from ._httpx import httpx
from ._retry import check_seconds

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable

__all__ = ["aiohttp_transport", "http2_transport"]

_PIECE = 256 * 1024
"""The most bytes aiohttp hands over at once. Measured: asyncio reads no more at a time."""

_MakeTransport = Callable[["ssl.SSLContext"], httpx.AsyncBaseTransport]
_MakeContext = Callable[[], "Awaitable[ssl.SSLContext]"]
_Translate = Callable[[BaseException, httpx.Request], "httpx.RequestError | None"]


def aiohttp_transport(
    *,
    max_connections: int = 64,
    connect_timeout: float | None = 10.0,
    idle_timeout: float = 30.0,
    ssl_context: ssl.SSLContext | None = None,
) -> httpx.AsyncBaseTransport:
    """
    Make a transport over aiohttp, by way of httpx-aiohttp.

    For the least CPU at high concurrency, for uvloop, and for programs that
    have aiohttp anyway. asyncio only. Measured, 53 KB answers decoded, CPU per
    job beside the default transport: the same at 10 in flight (0.88 and 0.85
    ms), three quarters at 100 (0.62 and 0.82 ms).

    It does less than the default transport in these points: a single header
    line of more than 8 KB is refused (`MalformedResponseError`), and a
    connection given up in the middle of an upload stays open until the server
    has read or closed it.

    Args:
        max_connections: The most connections at once; further requests wait.
            A number in any case, for httpx-aiohttp takes ``None`` to be 100.
            Chosen: the client's own ``max_concurrency``; give the same number.
        connect_timeout: Seconds to connect, TLS included but not DNS, where
            the request does not say; the client's requests do. ``None`` is no
            limit.
        idle_timeout: Seconds an idle connection is kept. Chosen, as for the
            default transport.
        ssl_context: Whom to trust; the process's shared one by default.

    Returns:
        A transport without cookies, redirects, decompression, or retries of its own.

    Raises:
        ImportError: The extra ``aiohttp`` is not installed.
        InvalidRequestError: An argument is out of its range.
    """
    _check(max_connections, connect_timeout, idle_timeout)
    try:
        # Extras, looked for when they are asked for and not before.
        import aiohttp  # noqa: PLC0415
        import httpx_aiohttp  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "aiohttp_transport needs httpx-aiohttp: pip install 'prodia-async[aiohttp]'"
        ) from error

    def make(context: ssl.SSLContext) -> httpx.AsyncBaseTransport:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=max_connections, keepalive_timeout=idle_timeout, ssl=context
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=_PIECE,
            skip_auto_headers=("accept", "accept-encoding", "user-agent"),
        )
        return httpx_aiohttp.AiohttpTransport(verify=context, client=session)

    async def make_context() -> ssl.SSLContext:
        return ssl_context or await shared_ssl_context()

    # Most specific first. httpx-aiohttp's own words for these will not do: every broken
    # connection is a ConnectTimeout there, which says that nothing was sent.
    meanings: list[tuple[type[Exception], type[httpx.RequestError]]] = [
        (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
        (aiohttp.ClientConnectorError, httpx.ConnectError),
        (aiohttp.ServerFingerprintMismatch, httpx.ConnectError),
        (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
        (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
        (TimeoutError, httpx.ReadTimeout),  # aiohttp's ServerTimeoutError is one
        (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
        (aiohttp.ClientError, httpx.ReadError),
        (OSError, httpx.ReadError),
    ]

    def translate(error: BaseException, request: httpx.Request) -> httpx.RequestError | None:
        told = error
        if isinstance(error, httpx.RequestError) and error.__cause__ is not None:
            told = error.__cause__
        for theirs, ours in meanings:
            if isinstance(told, theirs):
                return ours(str(told) or type(told).__name__, request=request)
        return None

    return _AiohttpTransport(make, make_context, translate, connect_timeout)


def http2_transport(
    *,
    max_connections: int = 64,
    connect_timeout: float | None = 10.0,
    idle_timeout: float = 30.0,
    ssl_context: ssl.SSLContext | None = None,
) -> httpx.AsyncBaseTransport:
    """
    Make a transport that speaks HTTP/2 where the server does, over httpx's own.

    For a gateway that allows few connections, or is far away: all jobs travel
    on one connection, 100 at a time at most (a limit of httpcore) and never
    more than the server allows; the others wait. A server that does not offer
    HTTP/2 is spoken to in HTTP/1.1. asyncio or trio; trio warns of httpcore's
    generators (ResourceWarning) when an answer is left early.

    One connection for all has its price. When it breaks, every job on it is
    lost (`ConnectionLostError`: each may have run). ``timeout`` counts the
    silence of the connection, not of the job: it cannot run out for one job
    while others are answered, and when it does, it does for all. An answer
    that is read slowly holds up the others once 16 MB of it lie unread.

    httpcore cannot tell the server to drop a single answer. So when one was
    left early, or its job was cancelled, the connection it was on takes no
    more requests, and is closed when the last of the others has ended.

    Args:
        max_connections: The most connections at once to a server without
            HTTP/2. Chosen: the client's own ``max_concurrency``.
        connect_timeout: Seconds for the TCP connection and again for TLS,
            where the request does not say; the client's requests do. ``None``
            is no limit.
        idle_timeout: Seconds an idle connection is kept. Chosen, as for the
            default transport.
        ssl_context: Whom to trust; what httpx trusts by default. Its ALPN
            protocols are set to ``http/1.1`` and ``h2``.

    Returns:
        A transport.

    Raises:
        ImportError: The extra ``http2`` is not installed.
        InvalidRequestError: An argument is out of its range.
    """
    _check(max_connections, connect_timeout, idle_timeout)
    try:
        # An extra, looked for when it is asked for and not before.
        import h2.events  # noqa: PLC0415
        import h2.exceptions  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("http2_transport needs h2: pip install 'prodia-async[http2]'") from error
    # At DEBUG it writes every header down, the token among them.
    logging.getLogger("hpack").setLevel(logging.INFO)

    def make(context: ssl.SSLContext) -> httpx.AsyncBaseTransport:
        limits = httpx.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=idle_timeout,
        )
        return httpx.AsyncHTTPTransport(verify=context, http2=True, limits=limits)

    async def make_context() -> ssl.SSLContext:
        # Not the shared one: httpcore writes "h2" into it, which the others do not speak.
        if ssl_context is not None:
            return ssl_context
        return await anyio.to_thread.run_sync(httpx.create_ssl_context)

    broken_off = (h2.events.StreamReset, h2.events.ConnectionTerminated)

    def translate(error: BaseException, request: httpx.Request) -> httpx.RequestError | None:
        if isinstance(error, h2.exceptions.H2Error):
            # httpcore lets these through while a body is read.
            return httpx.RemoteProtocolError(str(error) or type(error).__name__, request=request)
        if not isinstance(error, httpx.RequestError):
            return None
        # A stream or a connection that the server ended is no fault of its HTTP.
        told = error.__cause__.args if error.__cause__ is not None else ()
        if told and isinstance(told[0], broken_off):
            return httpx.ReadError(f"the server broke off: {told[0]}", request=request)
        return type(error)(str(error), request=request)

    return _Http2Transport(make, make_context, translate, connect_timeout)


def _check(max_connections: object, connect_timeout: float | None, idle_timeout: float) -> None:
    if type(max_connections) is not int or max_connections < 1:
        raise InvalidRequestError(
            f"max_connections must be a number from 1, not {max_connections!r:.80}"
        )
    if connect_timeout is not None:
        check_seconds("connect_timeout", connect_timeout)
    check_seconds("idle_timeout", idle_timeout)


# --------------------------------------------------------------------------- what both share


class _Generation:
    """An inner transport, how many requests are on it, and whether it takes more."""

    __slots__ = ("inner", "is_retired", "load", "socket")

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner
        self.load = 0
        self.is_retired = False
        self.socket: _HasFileno | None = None


class _Translating(httpx.AsyncBaseTransport):
    """Sends through another transport, made at the first request, and translates its errors."""

    def __init__(
        self,
        make: _MakeTransport,
        make_context: _MakeContext,
        translate: _Translate,
        connect_timeout: float | None,
    ) -> None:
        self._make = make
        self._make_context = make_context
        self._translate = translate
        self._connect_timeout = connect_timeout
        self._context: ssl.SSLContext | None = None
        self._generation: _Generation | None = None
        self._retired: set[_Generation] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        load = sum(each.load for each in (self._generation, *self._retired) if each is not None)
        return f"<{type(self).__name__[1:]} {load} in flight>"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send a request and return its answer once the head of it is here.

        Raises:
            httpx.RequestError: One of its subclasses, `request` set and the cause kept.
            RuntimeError: The transport was closed.
        """
        if self._context is None:
            self._context = await self._make_context()
        if self._is_closed:
            raise RuntimeError("this transport was closed")
        timeouts = {"connect": self._connect_timeout, **request.extensions.get("timeout", {})}
        request.extensions = {**request.extensions, "timeout": timeouts}
        if self._generation is None:
            self._generation = _Generation(self._make(self._context))
        generation = self._generation
        generation.load += 1
        try:
            response = await self._exchange(generation, request)
        except BaseException as exc:
            await self._ended(generation, is_clean=False)
            error = self._translate(exc, request)
            if error is None:
                raise
            raise error from exc
        response.stream = _Body(
            cast("httpx.AsyncByteStream", response.stream),
            translate=lambda error: self._translate(error, request),
            on_close=functools.partial(self._answer_ended, generation, response),
        )
        return response

    async def _exchange(self, generation: _Generation, request: httpx.Request) -> httpx.Response:
        return await generation.inner.handle_async_request(request)

    async def _answer_ended(
        self,
        generation: _Generation,
        response: httpx.Response,
        *,
        is_clean: bool,
    ) -> None:
        del response
        await self._ended(generation, is_clean=is_clean)

    async def _ended(self, generation: _Generation, *, is_clean: bool) -> None:
        """Note that an exchange is over; not clean if the server may still be at it."""
        del is_clean
        generation.load -= 1

    async def aclose(self) -> None:
        """Close every connection."""
        self._is_closed = True
        generations = [*self._retired, *filter(None, [self._generation])]
        self._generation = None
        self._retired.clear()
        for generation in generations:
            await generation.inner.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of an answer: its errors translated, its end told."""

    def __init__(
        self,
        stream: httpx.AsyncByteStream,
        *,
        translate: Callable[[BaseException], httpx.RequestError | None],
        on_close: _OnClose,
    ) -> None:
        self._stream = stream
        self._chunks = aiter(stream)
        self._translate = translate
        self._on_close = on_close
        self._is_complete = False
        self._is_closed = False

    # Its own iterator rather than a generator, so that it can be left anywhere.
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            # HTTP/2 often ends in an empty frame, which would be taken for a piece.
            while not (chunk := await anext(self._chunks)):
                pass
        except StopAsyncIteration:
            self._is_complete = True
            raise
        except BaseException as exc:
            error = self._translate(exc)
            if error is None:
                raise
            raise error from exc
        return chunk

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        with anyio.CancelScope(shield=True):
            try:
                if isinstance(self._chunks, AsyncGenerator):
                    await self._chunks.aclose()
                with contextlib.suppress(httpx.RequestError):  # given up either way
                    await self._stream.aclose()
            finally:
                await self._on_close(is_clean=self._is_complete)


if TYPE_CHECKING:
    from typing import Protocol

    class _OnClose(Protocol):
        async def __call__(self, *, is_clean: bool) -> None: ...

    class _HasFileno(Protocol):
        def fileno(self) -> int: ...


# --------------------------------------------------------------------------- HTTP/2


class _Http2Transport(_Translating):
    """Retires a connection on which an answer was given up: its rest still comes in."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        generation = self._generation
        if generation is not None and generation.load == 0 and _was_closed(generation.socket):
            # httpcore looks at the clock only, and would lose this request.
            self._generation = None
            await generation.inner.aclose()
        return await super().handle_async_request(request)

    async def _exchange(self, generation: _Generation, request: httpx.Request) -> httpx.Response:
        response = await super()._exchange(generation, request)
        if response.extensions.get("http_version") == b"HTTP/2":
            stream = response.extensions["network_stream"]
            generation.socket = stream.get_extra_info("socket")
        return response

    async def _answer_ended(
        self,
        generation: _Generation,
        response: httpx.Response,
        *,
        is_clean: bool,
    ) -> None:
        # In HTTP/1.1 an answer given up closes its own connection, and only that.
        shared = response.extensions.get("http_version") == b"HTTP/2"
        await self._ended(generation, is_clean=is_clean or not shared)

    async def _ended(self, generation: _Generation, *, is_clean: bool) -> None:
        generation.load -= 1
        if not is_clean and not generation.is_retired:
            generation.is_retired = True
            self._retired.add(generation)
            if self._generation is generation:
                self._generation = None
        if generation in self._retired and generation.load == 0:
            self._retired.discard(generation)
            with anyio.CancelScope(shield=True):
                await generation.inner.aclose()


def _was_closed(socket: _HasFileno | None) -> bool:
    """Tell whether the other side has closed a connection, whatever it said before."""
    if socket is None or not hasattr(select, "POLLRDHUP"):  # not every system can tell
        return False
    poll = select.poll()
    try:
        poll.register(socket.fileno(), select.POLLRDHUP)
    except ValueError:  # closed here already
        return True
    return bool(poll.poll(0))


# --------------------------------------------------------------------------- aiohttp


class _AiohttpTransport(_Translating):
    """Keeps aiohttp's upload, which runs in a task of its own, in our hands."""

    async def _exchange(self, generation: _Generation, request: httpx.Request) -> httpx.Response:
        watch = asyncio.timeout(None)
        upload = _Upload(request, watch)
        outgoing = httpx.Request(
            request.method,
            request.url,
            headers=request.headers,
            stream=upload if upload.has_content else httpx.ByteStream(b""),
            extensions=request.extensions,
        )
        try:
            async with watch:
                try:
                    response = await generation.inner.handle_async_request(outgoing)
                finally:
                    await upload.stop()
        except BaseException as exc:
            if upload.failure is not None:
                failure = upload.failure
            elif watch.expired() and isinstance(exc, TimeoutError):
                failure = httpx.WriteTimeout("the server stopped reading the request")
            else:
                raise
        else:
            if hasattr(response.stream, "CHUNK_SIZE"):
                # httpx-aiohttp cuts into 16 KB what aiohttp has together.
                response.stream.CHUNK_SIZE = _PIECE
            return response
        # Out here, where aiohttp's error, of which this is the cause, is not also its context.
        raise failure


class _Upload(httpx.AsyncByteStream):
    """
    A request body that can be stopped while aiohttp is taking it.

    aiohttp goes on with an upload after the answer has come, and whoever owns
    the body closes it then. That must not happen while a piece of it is being
    made, and the end of the body must not be taken for the end of the
    request: the connection would be used again, and the next job would be
    swallowed as the rest of this one.
    """

    def __init__(self, request: httpx.Request, watch: asyncio.Timeout) -> None:
        self.failure: BaseException | None = None
        length = request.headers.get("content-length")
        self.has_content = length != "0" if length else "transfer-encoding" in request.headers
        self._left = int(length) if length else -1
        self._stream = cast("AsyncIterable[bytes]", request.stream)
        self._chunks: AsyncIterator[bytes] | None = None
        self._making: asyncio.Task[bytes] | None = None
        self._is_stopped = False
        self._watch = watch
        self._write_timeout: float | None = request.extensions["timeout"].get("write")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._allow_silence(None)
        try:
            chunk = await self._next()
        except (StopAsyncIteration, asyncio.CancelledError):
            raise
        except BaseException as exc:
            self.failure = exc
            raise
        self._left -= len(chunk)
        self._allow_silence(self._write_timeout)
        return chunk

    async def _next(self) -> bytes:
        if self._chunks is None or self._left == 0:
            # The beginning and the end are at hand, and most bodies have nothing between.
            self._chunks = self._chunks or aiter(self._stream)
            return await anext(self._chunks)
        if not self._is_stopped:
            self._making = making = asyncio.ensure_future(anext(self._chunks))
            await asyncio.wait({making})
            if not making.cancelled():
                return making.result()
        # Until aiohttp gives the upload up, and with it the connection.
        never: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        return await never

    def _allow_silence(self, seconds: float | None) -> None:
        if not self._is_stopped and not self._watch.expired():
            now = asyncio.get_running_loop().time()
            self._watch.reschedule(None if seconds is None else now + seconds)

    async def stop(self) -> None:
        """Have no more pieces made; when this returns, none is being made."""
        self._is_stopped = True
        cancellation: asyncio.CancelledError | None = None
        if self._making is not None:
            self._making.cancel()
            while not self._making.done():
                try:
                    with anyio.CancelScope(shield=True):
                        await asyncio.wait({self._making})
                except asyncio.CancelledError as exc:  # by other means than anyio's
                    cancellation = exc
            if not self._making.cancelled():
                self._making.exception()  # seen, or asyncio complains that nobody looked
        if cancellation is not None:
            raise cancellation
