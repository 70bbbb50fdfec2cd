"""Over aiohttp: a session of our own, or the user's."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import httpx
from aiohttp import ClientSession as ClientSession  # noqa: PLC0414  (others ask here)

from .._closing import ClosedError, Exits, until_over
from ._network import CLOSED, READ_AHEAD
from ._tls import shared_ssl_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterable, AsyncIterator

_NOT_ADDED = ("accept", "accept-encoding", "user-agent", "content-type")


def _translated(error: BaseException, request: httpx.Request) -> httpx.RequestError | None:
    """Return the httpx error that stands for this one; ``None`` if it has none."""
    # Most specific first.
    meanings: list[tuple[Any, type[httpx.RequestError]]] = [
        (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
        (aiohttp.ClientConnectorError, httpx.ConnectError),
        (aiohttp.ServerFingerprintMismatch, httpx.ConnectError),
        ((aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError), httpx.UnsupportedProtocol),
        (TimeoutError, httpx.ReadTimeout),  # aiohttp's ServerTimeoutError is one
        (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
        ((aiohttp.ClientError, OSError, ClosedError), httpx.ReadError),
    ]
    for theirs, ours in meanings:
        if isinstance(error, theirs):
            return ours(str(error) or type(error).__name__, request=request)
    return None


class AiohttpTransport(httpx.AsyncBaseTransport):
    """
    Sends through a session of aiohttp's, and keeps its uploads, which run in tasks, in our hands.

    Never follows a redirect and never decompresses.
    """

    proves_ends = True
    """aiohttp closes a connection on which more came than the response has."""

    def __init__(
        self,
        *,
        session: ClientSession | None,
        max_connections: int,
        connect_timeout: float | None,
        idle_timeout: float,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._session: Any = session
        self._is_ours = session is None
        self._max_connections = max_connections
        self._connect_timeout = connect_timeout
        self._idle_timeout = idle_timeout
        self._ssl_context = ssl_context
        self._exits = Exits()
        self._bodies: set[_Body] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self._bodies)} in flight>"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send a request and return its answer once the head of it is here.

        Raises:
            httpx.RequestError: One of its subclasses, `request` set and the cause kept.
            RuntimeError: The transport was closed.
        """
        if self._session is None and self._ssl_context is None:
            self._ssl_context = await shared_ssl_context()
        if self._exits.is_closed:
            raise RuntimeError(CLOSED)
        self._session = self._session or self._make_session()
        limits = {"connect": self._connect_timeout, **request.extensions.get("timeout", {})}
        upload = _Upload(request, limits.get("write"))
        try:
            theirs = await self._exits.step(functools.partial(self._begin, request, upload, limits))
            if self._exits.is_closed:
                theirs.close()
                raise ClosedError(CLOSED)
        except BaseException as exc:
            error = _translated(exc, request)
            if error is None:
                raise
            raise error from exc
        body = _Body(request, theirs, upload, self._bodies)
        self._bodies.add(body)
        return httpx.Response(
            theirs.status,
            headers=theirs.raw_headers,
            stream=body,
            extensions={"http_version": b"HTTP/1.1"},
        )

    async def _begin(
        self, request: httpx.Request, upload: _Upload, limits: dict[str, float | None]
    ) -> Any:
        headers = [
            (name, value)
            for name, value in request.headers.multi_items()
            if name.lower() != "transfer-encoding"  # aiohttp's own business
        ]
        try:
            async with upload.watch:
                try:
                    return await self._session.request(
                        request.method,
                        str(request.url),
                        headers=headers,
                        data=upload if upload.has_content else None,
                        skip_auto_headers=_NOT_ADDED,
                        allow_redirects=False,
                        auto_decompress=False,
                        raise_for_status=False,
                        read_bufsize=READ_AHEAD,
                        timeout=aiohttp.ClientTimeout(
                            sock_connect=limits.get("connect"), sock_read=limits.get("read")
                        ),
                    )
                finally:
                    await upload.stop()
        except BaseException as exc:
            if upload.failure is not None:
                failure = upload.failure
            elif upload.watch.expired() and isinstance(exc, TimeoutError):
                failure = httpx.WriteTimeout("the server stopped reading the request")
            else:
                raise
        # Out here, where aiohttp's error, of which this is the cause, is not also its context.
        raise failure

    def _make_session(self) -> ClientSession:
        return ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._max_connections,
                keepalive_timeout=self._idle_timeout,
                ssl=self._ssl_context or True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def aclose(self) -> None:
        """Close every connection of ours; the user's session stays open."""
        await self._exits.aclose()
        for body in list(self._bodies):
            await body.aclose()
        if self._is_ours and self._session is not None:
            await self._session.close()


class _Body(httpx.AsyncByteStream):
    """The body of an answer: its errors translated, and its end seen to."""

    def __init__(
        self, request: httpx.Request, theirs: Any, upload: _Upload, open_bodies: set[_Body]
    ) -> None:
        self._request = request
        self._theirs = theirs
        self._upload = upload
        self._open_bodies = open_bodies
        self._is_complete = self._is_closed = False

    # Its own iterator rather than a generator, so that it can be left anywhere.
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._is_closed:
            if self._is_complete:
                raise StopAsyncIteration
            raise httpx.ReadError(CLOSED, request=self._request)
        try:
            data: bytes = await self._theirs.content.readany()
        except BaseException as exc:
            await self.aclose()
            error = _translated(exc, self._request)
            if error is None:
                raise
            raise error from exc
        if not data:
            self._is_complete = True
            await self.aclose()
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._open_bodies.discard(self)
        if self._is_complete and self._upload.is_over:
            self._theirs.release()
        else:
            self._theirs.close()


class _Upload(httpx.AsyncByteStream):
    """
    A request body that can be stopped while aiohttp is taking it.

    aiohttp goes on with an upload after the answer has come, and whoever owns
    the body closes it then. That must not happen while a piece of it is being
    made, and the end of the body must not be taken for the end of the
    request: the connection would be used again, and the next job would be
    swallowed as the rest of this one.
    """

    def __init__(self, request: httpx.Request, silence: float | None) -> None:
        self.watch = asyncio.timeout(None)
        self.is_over = False
        self.failure: BaseException | None = None
        length = request.headers.get("content-length")
        self.has_content = length != "0" if length else "transfer-encoding" in request.headers
        self._left = int(length) if length else -1
        self._stream = cast("AsyncIterable[bytes]", request.stream)
        self._chunks: AsyncIterator[bytes] | None = None
        self._making: asyncio.Task[bytes] | None = None
        self._is_stopped = False
        self._silence = silence

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._allow_silence(None)
        try:
            chunk = await self._next()
        except StopAsyncIteration:
            self.is_over = True
            raise
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            self.failure = exc
            raise
        self._left -= len(chunk)
        self._allow_silence(self._silence)
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
        if not self._is_stopped and not self.watch.expired():
            now = asyncio.get_running_loop().time()
            self.watch.reschedule(None if seconds is None else now + seconds)

    async def stop(self) -> None:
        """Have no more pieces made; when this returns, none is being made."""
        self._is_stopped = True
        if self._making is not None:
            self._making.cancel()
            try:
                await until_over(self._making)
            finally:
                if not self._making.cancelled():
                    self._making.exception()  # seen, or asyncio complains that nobody looked
