"""
Sending one request: a `WireRequest` in, a `Reply` out, every foreign error translated.

What an error means for the job is decided by one fact that we know ourselves:
whether the last byte of the request was taken from us. Before that the server
cannot have had the whole request, so nothing ran; from then on it may have.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode

import anyio

from ._errors import (
    APITimeoutError,
    ConnectError,
    ConnectionLostError,
    InvalidRequestError,
    MalformedResponseError,
    ProdiaError,
    ResponseError,
    TruncatedResponseError,
)
from ._httpx import httpx
from ._version import __version__
from ._wire import Headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ._wire import Body, WireRequest

CLOSE_SECONDS = 0.05
"""How long a request body that was not sent to its end may take to close. Chosen."""

USER_AGENT = f"prodia-async/{__version__}"

# What sending may raise. httpx's own transports raise the first; the others
# come out of transports that do not translate everything.
_FOREIGN = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    OSError,  # with it ssl.SSLError and TimeoutError
)
_UNSENDABLE = (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError)
_NOT_CONNECTED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    ssl.SSLCertVerificationError,
)
_SILENCE = (httpx.TimeoutException, TimeoutError)


# Packages below httpx whose errors some transports let through.
_BELOW = frozenset({"aiohttp", "h11", "h2", "hpack", "httpcore", "httpx"})


def _is_foreign(error: Exception) -> bool:
    return isinstance(error, _FOREIGN) or type(error).__module__.partition(".")[0] in _BELOW


class _SentBody(httpx.AsyncByteStream):
    """A request body that knows whether its last byte was taken."""

    __slots__ = ("_body", "_chunks", "_taken", "error", "exhausted")

    def __init__(self, body: Body) -> None:
        self._body = body
        self._chunks: AsyncIterator[bytes | memoryview] | None = None
        self._taken = 0
        self.exhausted = False
        self.error: Exception | None = None
        """What the body itself raised: not the network's doing, whatever its type."""

    @property
    def was_taken(self) -> bool:
        return self._chunks is not None and self._taken >= self._body.content_length

    # An iterator of its own rather than a generator: whoever sends may stop
    # anywhere, and then only `aclose` has to be called.
    def __aiter__(self) -> AsyncIterator[bytes]:
        self._taken = 0
        self._chunks = aiter(self._body)
        return self  # type: ignore[return-value]  # it has __anext__; httpx's base class has not

    async def __anext__(self) -> bytes | memoryview:
        assert self._chunks is not None  # noqa: S101  (set by __aiter__)
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self.exhausted = True
            raise
        except Exception as error:
            self.error = error
            raise
        # Counted before it is handed over: in doubt it was sent.
        self._taken += len(chunk)
        return chunk

    async def aclose(self) -> None:
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()


class Sending:
    """How far one attempt has come; read when it is cut off from outside."""

    __slots__ = ("body",)

    def __init__(self) -> None:
        self.body: _SentBody | None = None

    @property
    def may_have_run(self) -> bool:
        """Whether the server may have had the whole request."""
        return self.body is not None and self.body.was_taken


async def _already_read(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    try:
        yield response.content
    except httpx.ResponseNotRead:
        return


class Reply:
    """
    An answer whose headers are here. Iterate it once for the body; `aclose` it in any case.

    Its own iterator rather than a generator, so that it can be left anywhere.

    Attributes:
        status_code: The HTTP status.
        headers: The headers.
    """

    __slots__ = ("_chunks", "_received", "_response", "headers", "status_code")

    _chunks: AsyncIterator[bytes]

    def __init__(self, response: httpx.Response) -> None:
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101  (async transports only)
        self._response = response
        if response.is_closed or response.is_stream_consumed:
            # A hook of the user's own client read it.
            self._chunks = _already_read(response)
        else:
            self._chunks = aiter(stream)
        self._received = 0
        self.status_code = response.status_code
        self.headers = Headers(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in response.headers.raw
        )

    @property
    def request_id(self) -> str | None:
        """The ``x-request-id`` header."""
        return self.headers.get("x-request-id")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """
        Return the next piece of the body, undecoded, in whatever pieces the transport has.

        Raises:
            TruncatedResponseError: The connection broke, or was silent for too long.
        """
        try:
            chunk = await anext(self._chunks)
        except Exception as error:
            if isinstance(error, StopAsyncIteration) or not _is_foreign(error):
                raise
            what = "fell silent" if isinstance(error, _SILENCE) else "broke"
            fault = TruncatedResponseError(
                f"the connection {what} after {self._received} bytes of the answer: "
                f"{_describe(error)}"
            )
            fault.bytes_received = self._received
            raise fault from error
        self._received += len(chunk)
        return chunk

    async def read_start(self, most: int) -> bytes:
        """Return the first bytes of the body, as many as came, ``most`` at the most."""
        start = bytearray()
        try:
            async for chunk in self:
                start += chunk
                if len(start) >= most:
                    break
        except ResponseError:
            pass  # what came is what there is
        return bytes(start[:most])

    async def aclose(self) -> None:
        """Give the connection back, or close it if the body was not read to its end."""
        await self._response.aclose()
        if isinstance(self._chunks, AsyncGenerator):
            await self._chunks.aclose()


class Sender:
    """
    Sends requests to one base URL through an httpx transport or client.

    Args:
        base_url: Checked before; no trailing slash.
        transport: What sends; closed by `aclose`.
        client: The user's own client instead; never closed by us.
        connect_timeout: Seconds a connection may take.
    """

    def __init__(
        self,
        base_url: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        client: httpx.AsyncClient | None = None,
        connect_timeout: float = 10.0,
    ) -> None:
        self._transport = transport
        self._exchange: Callable[[httpx.Request], Awaitable[httpx.Response]]
        if client is not None:
            self._exchange = partial(client.send, stream=True, auth=None, follow_redirects=False)
        elif transport is not None:
            self._exchange = transport.handle_async_request
        else:
            raise TypeError("a sender needs a transport or a client")
        self._base_url = base_url
        self._host = httpx.URL(base_url).netloc.decode("ascii")
        self._connect_timeout = connect_timeout
        # Parsing a URL takes longer than anything else here; jobs share a few.
        self._url = lru_cache(maxsize=64)(self._make_url)

    def __repr__(self) -> str:
        return f"<Sender to {self._host}>"

    def _make_url(self, path: str, query: tuple[tuple[str, str], ...]) -> httpx.URL:
        base = self._base_url if path.startswith("/") else ""
        return httpx.URL(f"{base}{path}{'?' if query else ''}{urlencode(query)}")

    async def send(
        self,
        request: WireRequest,
        authorization: str,
        sending: Sending,
        timeout: float,
    ) -> Reply:
        """
        Send a request and wait for the head of its answer.

        Args:
            request: What to send.
            authorization: The Authorization header; empty for none.
            sending: Told how far it came.
            timeout: Seconds of silence allowed on the wire.

        Raises:
            ConnectError: It was not delivered.
            ConnectionLostError: The connection broke and it may have been.
            APITimeoutError: Nothing came for so long and it may have been.
            MalformedResponseError: What came is no HTTP.
            InvalidRequestError: It cannot be sent.
        """
        wire = self._build(request, authorization, sending, timeout)
        host = wire.headers["host"]
        try:
            return Reply(await self._exchange(wire))
        except httpx.HTTPStatusError as error:
            # A hook of the user's own client asked for it; the answer is all the same.
            return Reply(error.response)
        except Exception as error:
            # The error holds the request, and what pickles or prints it would show the token.
            wire.headers.pop("authorization", None)
            if sending.body is not None and sending.body.error is not None:
                raise sending.body.error from None
            if not _is_foreign(error):
                raise
            sent = sending.may_have_run
            raise _translate(error, host, timeout, sent=sent) from error
        finally:
            if sending.body is not None and not sending.body.exhausted:
                # An iterator of the user's may take its time to close; the deadline does not.
                with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                    await sending.body.aclose()

    def _build(
        self, request: WireRequest, authorization: str, sending: Sending, silence: float
    ) -> httpx.Request:
        url = self._url(request.path, request.query)
        headers = {
            "host": self._host if request.path.startswith("/") else url.netloc.decode("ascii"),
            "user-agent": USER_AGENT,
            "accept-encoding": "identity",
        }
        if authorization:
            headers["authorization"] = authorization
        headers.update(request.headers)
        stream: httpx.AsyncByteStream | None = None
        if request.body is not None:
            headers["content-type"] = request.body.content_type
            headers["content-length"] = str(request.body.content_length)
            stream = sending.body = _SentBody(request.body)
        limits = {"connect": self._connect_timeout, "read": silence, "write": silence, "pool": None}
        # As bytes: httpx takes those as they are, and looks at every text twice.
        pairs = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        return httpx.Request(
            request.method, url, headers=pairs, stream=stream, extensions={"timeout": limits}
        )

    def abandon(self) -> None:
        """Give up the connections without a loop: theirs is gone, or another process's."""
        abandon = getattr(self._transport, "abandon", None)
        if abandon is not None:
            abandon()

    async def aclose(self) -> None:
        """Close the transport; the user's own client stays open."""
        if self._transport is not None:
            await self._transport.aclose()


def _translate(error: BaseException, host: str, silence: float, *, sent: bool) -> ProdiaError:
    """Say what a foreign error means for the job. Most specific first."""
    why = _describe(error)
    if isinstance(error, _UNSENDABLE) and not sent:
        return InvalidRequestError(f"this cannot be sent: {why}")
    if isinstance(error, _NOT_CONNECTED):
        # Some transports begin with the same words.
        why = why.removeprefix(f"could not connect to {host}: ")
        return ConnectError(f"cannot connect to {host}: {why}")
    if not sent:
        return ConnectError(f"the connection to {host} broke before the request was sent: {why}")
    if isinstance(error, _SILENCE):
        return APITimeoutError(f"{host} sent nothing for {silence:g} s after the request was sent")
    # Over HTTP/2 httpx blames us (LocalProtocolError) for a head that is too large.
    if isinstance(error, httpx.ProtocolError) and "disconnected" not in str(error):
        return MalformedResponseError(f"{host} did not answer in HTTP: {why}")
    return ConnectionLostError(
        f"the connection to {host} was lost after the request was sent: {why}"
    )


def _describe(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
