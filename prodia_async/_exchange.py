"""
One exchange, whoever sends it: a `WireRequest` in, a `Reply` out, every foreign error translated.

What an error means for the job is decided by one fact that we know ourselves,
our own record (`Sending`): whether the last byte of the request was handed to
the socket, or taken from us by a transport that we do not know, or the server
began to answer without it. Before that nothing can have run; from then on it
may have. What a foreign exception is called never says more than which of two
errors of the same fate it is.

A transport of ours takes an `Order` (`exchange`). Any other, and any client, of
httpx or httpx2, is called in its own terms (`_Foreign`). Over HTTP/1.1 those
get a connection for each request (``Connection: close``): they do not tell
whether anything came behind a response, and the next one would be read from it.

No error leads to the token: causes are made anew, without requests and frames.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import urlencode

import httpx

from ._closing import ClosedError, Exits, close_input
from ._errors import (
    APITimeoutError,
    ConnectError,
    ConnectionLostError,
    InvalidRequestError,
    MalformedResponseError,
    ProdiaError,
    TruncatedResponseError,
)
from ._hooks import log
from ._secret import Secret, blotted
from ._version import __version__
from ._wire import Headers, Order, Sending, Target, sending_now

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ._wire import Body, WireRequest

USER_AGENT = f"prodia-async/{__version__}"

MAX_CAUSES = 5
"""How many causes of causes are kept. Chosen: three layers of libraries, and the system's own."""

_LIBRARIES = frozenset(
    {
        "aiohttp", "anyio", "h11", "h2", "hpack", "httpcore", "httpcore2", "httptools", "httpx",
        "httpx2", "httpx_aiohttp", "ssl",
    }
)  # fmt: skip
"""Whose errors are the network's, whatever they are called."""


class Answer(Protocol):
    """A response whose head is here, as a transport hands it over."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]

    async def read(self) -> bytes:
        """Return the next part of the body; empty at its end."""

    async def aclose(self) -> None:
        """Keep the connection if the body was read to its end, else close it."""


class ForeignError(Exception):
    """What another library raised, in its own words."""


def check_transport(transport: object) -> None:
    """
    Check what was given as ``transport=``.

    Raises:
        InvalidRequestError: It is no transport of httpx or httpx2.
    """
    if _library_of(transport, "AsyncBaseTransport") is None:
        advice = ""
        if type(transport).__name__ == "ClientSession":
            advice = "; for a session: prodia_async.transports.aiohttp_transport(session=...)"
        elif type(transport).__name__ == "AsyncClient":
            advice = "; a client is given as http_client=..."
        raise InvalidRequestError(
            "transport must be an httpx.AsyncBaseTransport (or httpx2's), not "
            f"{type(transport).__name__}{advice}"
        )


def check_client(client: object) -> None:
    """
    Check what was given as ``http_client=``.

    Raises:
        InvalidRequestError: It is no asynchronous client of httpx or httpx2.
    """
    if _library_of(client, "AsyncClient") is None:
        raise InvalidRequestError(
            f"http_client must be an httpx.AsyncClient (or httpx2's), not {type(client).__name__}"
        )


def _library_of(value: object, name: str) -> Any:
    """Return the module, httpx or httpx2, whose class of that name this is of; else ``None``."""
    for cls in type(value).__mro__:
        library = cls.__module__.partition(".")[0]
        if library in {"httpx", "httpx2"} and cls.__name__ == name:
            return sys.modules[library]
    return None


class Reply:
    """
    An answer whose headers are here. Iterate it once for the body; `aclose` it in any case.

    Its own iterator rather than a generator, so that it can be left anywhere.

    Attributes:
        status_code: The HTTP status.
        headers: The headers, without the credential.
        secret: The credential that was sent, which an answer may say back.
    """

    __slots__ = ("_answer", "_received", "headers", "secret", "status_code")

    def __init__(self, answer: Answer, secret: str = "") -> None:
        self._answer = answer
        self._received = 0
        self.secret = Secret(secret)
        self.status_code = answer.status
        self.headers = Headers(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers
        ).without(secret)

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
            chunk = await self._answer.read()
        except Exception as error:
            if not _is_foreign(error):
                raise
            what = "fell silent" if _is_silence(error) else "broke"
            fault = TruncatedResponseError(
                f"the connection {what} after {self._received} bytes of the answer: "
                f"{_describe(error, self.secret)}"
            )
            fault.bytes_received = self._received
            fault.__cause__ = _harmless(error, self.secret)
        else:
            if not chunk:
                raise StopAsyncIteration
            self._received += len(chunk)
            return chunk
        raise fault  # out here, where the foreign error is not its context

    async def aclose(self) -> None:
        """Give the connection back, or close it if the body was not read to its end."""
        await self._answer.aclose()


class Sender:
    """
    Sends requests to one base URL through a transport or client.

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
        transport: Any = None,
        client: Any = None,
        connect_timeout: float = 10.0,
    ) -> None:
        if client is None and transport is None:
            raise TypeError("a sender needs a transport or a client")
        self._transport = transport
        self._exits = Exits()
        self._foreign = _Foreign(transport, client, self._exits)
        self._base_url = base_url
        self._connect_timeout = connect_timeout
        # Taking a URL apart costs more than anything else here; jobs share a few.
        self._target = lru_cache(maxsize=64)(self._make_target)
        self._host = _netloc(httpx.URL(base_url))

    def __repr__(self) -> str:
        return f"<Sender to {self._host}>"

    def _make_target(self, path: str, query: tuple[tuple[str, str], ...]) -> tuple[Target, bytes]:
        base = self._base_url if path.startswith("/") else ""
        text = f"{base}{path}{'?' if query else ''}{urlencode(query)}"
        url = httpx.URL(text)
        port = url.port or (443 if url.scheme == "https" else 80)
        host = url.raw_host.decode("ascii")
        return Target(url.scheme, host, port, url.raw_path, text), _netloc(url).encode("ascii")

    async def send(
        self, request: WireRequest, authorization: str, sending: Sending, timeout: float
    ) -> Reply:
        """
        Send a request and wait for the head of its answer.

        Args:
            request: What to send.
            authorization: The Authorization header; empty for none.
            sending: Told how far it came.
            timeout: Seconds of silence allowed on the wire.

        Raises:
            ConnectError: It was not delivered, or all was closed.
            ConnectionLostError: The connection broke and it may have been.
            APITimeoutError: Nothing came for so long and it may have been.
            MalformedResponseError: What came is no HTTP.
            InvalidRequestError: It cannot be sent.
        """
        outcome = await self._send(request, authorization, sending, timeout)
        if isinstance(outcome, Reply):
            sending.stage = "reading"
            return outcome
        # Out here, where neither the foreign error nor the order is within reach of it.
        raise outcome

    async def _send(
        self, request: WireRequest, authorization: str, sending: Sending, silence: float
    ) -> Reply | BaseException:
        """Return the reply, or what to raise."""
        secret = authorization.rpartition(" ")[2]
        host = self._host
        content = getattr(request.body, "content", None)
        is_direct = getattr(self._transport, "takes_orders", False)
        body: bytes | _Watched | None = None
        if request.body is not None:
            body = content if is_direct and content is not None else _Watched(request.body)
        try:
            if self._exits.is_closed:
                raise ClosedError
            target, netloc = self._target(request.path, request.query)
            host = netloc.decode("ascii")
            length = request.body.content_length if request.body is not None else 0
            order = Order(
                request.method,
                target,
                _headers(request, netloc, authorization, length),
                body=body,
                length=length,
                sending=sending,
                connect=self._connect_timeout,
                read=silence,
                write=silence,
            )
            carrier = self._transport if is_direct else self._foreign
            return Reply(await carrier.exchange(order), secret)
        except Exception as error:  # noqa: BLE001  (sorted here)
            if isinstance(body, _Watched) and body.error is not None:
                return body.error  # what the user's own input raised
            if self._exits.is_closed:
                return _closed(host, sending)
            if not _is_foreign(error):
                return error
            failure = _translate(error, host, silence, sending, secret)
            failure.__cause__ = _harmless(error, secret)
            return failure
        finally:
            if isinstance(body, _Watched) and not body.is_exhausted:
                await body.aclose()

    def abandon(self) -> None:
        """Give up the connections without a loop: theirs is gone, or another process's."""
        abandon = getattr(self._transport, "abandon", None)
        if abandon is not None:
            abandon()

    async def aclose(self) -> None:
        """
        Close the transport; the user's own client stays open.

        When it returns, nothing is being sent and no answer is open, the
        user's client included.
        """
        await self._foreign.aclose()
        if self._transport is not None:
            await self._transport.aclose()


def _headers(
    request: WireRequest, netloc: bytes, authorization: str, length: int
) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"host", netloc),
        (b"user-agent", USER_AGENT.encode()),
        (b"accept-encoding", b"identity"),
    ]
    if authorization:
        headers.append((b"authorization", authorization.encode("ascii")))
    if request.headers:
        own = dict(headers)  # a caller's header takes the place of ours
        own.update((name.encode("ascii"), text.encode("ascii")) for name, text in request.headers)
        headers = list(own.items())
    if request.body is not None:
        headers.append((b"content-type", request.body.content_type.encode("ascii")))
        headers.append((b"content-length", b"%d" % length))
    return headers


# --------------------------------------------------------------------------- other transports


class _Watched:
    """A request body that knows what was taken of it."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._chunks: AsyncIterator[bytes | memoryview] | None = None
        self._left = body.content_length
        self.sending: Sending | None = None
        """Told when the last byte is taken; a transport of ours keeps that record itself."""
        self.is_exhausted = False
        self.error: Exception | None = None
        """What the body itself raised: not the network's doing, whatever its type."""

    # An iterator of its own rather than a generator: whoever sends may stop
    # anywhere, and then only `aclose` has to be called.
    def __aiter__(self) -> Self:
        self._left = self._body.content_length
        self._chunks = aiter(self._body)
        return self

    async def __anext__(self) -> bytes | memoryview:
        assert self._chunks is not None  # noqa: S101  (set by __aiter__)
        if self.sending is not None and self.sending.is_answered:
            raise StopAsyncIteration
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self.is_exhausted = True
            raise
        except Exception as error:
            self.error = error
            raise
        self._left -= len(chunk)
        if self.sending is not None:
            # Noted before it is handed over: in doubt it was sent. And never taken back, for a
            # transport that sends again by itself has handed it over once.
            self.sending.stage = "sending" if self._left > 0 else "running"
            self.sending.may_have_run |= self._left <= 0
        return chunk

    async def aclose(self) -> None:
        """Close what it was made from; whatever that raises takes the place of no answer."""
        try:
            await close_input(self._chunks)
        except Exception as error:  # noqa: BLE001  (the user's own)
            log(logging.WARNING, "an input could not be closed: %s", type(error).__name__)


class _Foreign:
    """
    Calls a transport or a client in its own terms.

    Args:
        transport: A transport that takes no orders, of ours or the user's.
        client: The user's client instead.
        exits: What ends when all is closed.
    """

    def __init__(self, transport: Any, client: Any, exits: Exits) -> None:
        self._client = client
        self._library = _library_of(client, "AsyncClient") or (
            _library_of(transport, "AsyncBaseTransport") or httpx
        )
        self._call: Callable[[Any], Awaitable[Any]]
        if client is not None:
            self._call = partial(client.send, stream=True, auth=None, follow_redirects=False)
        else:
            self._call = transport.handle_async_request
        self._proves_ends = getattr(transport, "proves_ends", False)
        self._exits = exits
        self._answers: set[_ForeignAnswer] = set()
        self._url = lru_cache(maxsize=64)(self._library.URL)

    async def exchange(self, order: Order) -> Answer:
        """Send a request and return its answer once the head of it is here."""
        sending_now.set(order.sending)
        try:
            response = await self._exits.step(partial(self._call, self._request(order)))
        except Exception as error:
            # A hook of the user's own client asked for it; the answer is all the same.
            if type(error).__name__ != "HTTPStatusError" or self._client is None:
                raise
            response = error.response  # type: ignore[attr-defined]  # it has one
        answer = _ForeignAnswer(response, self._exits, self._answers)
        if self._exits.is_closed:
            await answer.aclose()
            raise ClosedError
        return answer

    def _request(self, order: Order) -> Any:
        library, sending = self._library, order.sending
        headers = order.headers
        if not self._proves_ends:
            headers = [*headers, (b"connection", b"close")]
        extensions = {
            "timeout": {
                "connect": order.connect, "read": order.read, "write": order.write, "pool": None
            },
            "trace": _Trace(
                sending, has_body=order.body is not None, is_ours=self._proves_ends
            ),
        }  # fmt: skip
        url = self._url(order.target.url)
        stream = None
        if isinstance(order.body, _Watched):
            order.body.sending = sending
            stream = _stream_class(library)(order.body)
        else:
            # Nothing to be taken from us: it counts as sent, unless `_Trace` knows better.
            sending.may_have_run = True
        if self._client is None:
            return library.Request(
                order.method, url, headers=headers, stream=stream, extensions=extensions
            )
        own = self._client.headers.get("user-agent", "")
        if not own.startswith("python-httpx"):
            headers = [pair for pair in headers if pair[0] != b"user-agent"]
        # The client's own headers, params and cookies, and ours over them.
        return self._client.build_request(
            order.method, url, headers=headers, content=stream, extensions=extensions
        )

    async def aclose(self) -> None:
        """End every exchange, wherever it is."""
        await self._exits.aclose()
        for answer in list(self._answers):
            await answer.aclose()


@lru_cache(maxsize=4)
def _stream_class(library: Any) -> Any:
    """Return a class of streams of that library that hands on a watched body."""

    class Stream(library.AsyncByteStream):  # type: ignore[misc]  # a class, of either library
        def __init__(self, body: _Watched) -> None:
            self._body = body

        def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
            return aiter(self._body)

    return Stream


_BREAKS = frozenset({"ReadError", "RemoteProtocolError", "WriteError"})
"""What httpcore calls the end of a connection."""


class _Trace:
    """
    httpcore's own record, where a transport is built on it: more exact than what was taken.

    A body may be taken long before it is sent: a hook of a client's that reads it, to log it,
    leaves a copy to be sent in its place. And it may be sent again, by a transport that tries
    again by itself: then what was handed over once is never taken back.
    """

    __slots__ = ("_has_body", "_has_head", "_is_copied", "_is_ours", "_sending", "_stream")

    def __init__(self, sending: Sending, *, has_body: bool, is_ours: bool = False) -> None:
        self._is_ours = is_ours
        self._sending = sending
        self._has_body = has_body
        self._has_head = self._is_copied = False
        self._stream: Any = None

    async def __call__(self, event: str, info: Any) -> None:
        """Note an event."""
        sending = self._sending
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._stream = info["return_value"]
        elif event.endswith("send_request_body.failed") and not self._is_ours:
            # httpcore looks for an answer where the connection broke, not where it was cut off
            # or, in HTTP/2, the answer was followed by a reset.
            if type(info["exception"]).__name__ not in _BREAKS:
                readable = self._stream and self._stream.get_extra_info("is_readable")
                sending.may_have_run |= bool(readable) or event.startswith("http2.")
        elif event.endswith("send_request_headers.started"):
            self._note_copy()
            self._has_head = True
            sending.stream, sending.carrier = info.get("stream_id", 0), None
            sending.stage = "sending" if self._has_body else "running"
            sending.may_have_run |= not self._has_body
        elif event.endswith("send_request_body.started") and self._is_copied:
            sending.stage = "running"
            sending.may_have_run = True
        elif sending.stage == "connecting" or event.endswith("connect_tcp.started"):
            self._note_copy()  # it is looking for a connection yet

    def _note_copy(self) -> None:
        """Before the first head nothing was sent, whatever was taken."""
        if not self._has_head:
            self._is_copied |= self._has_body and self._sending.may_have_run
            self._sending.may_have_run = False


class _ForeignAnswer:
    """An answer that another transport or client gave."""

    def __init__(self, response: Any, exits: Exits, answers: set[_ForeignAnswer]) -> None:
        self.status: int = response.status_code
        self.headers: Sequence[tuple[bytes, bytes]] = response.headers.raw
        self._response = response
        self._exits = exits
        self._answers = answers
        if response.is_closed or response.is_stream_consumed:
            # A hook of the user's own client read it.
            self._chunks: AsyncIterator[bytes] = _already_read(response)
        else:
            self._chunks = aiter(response.stream)
        answers.add(self)

    async def read(self) -> bytes:
        chunk = b""
        while not chunk:  # an empty one would be taken for the end
            found = await self._exits.step(partial(anext, self._chunks, None))
            if found is None:
                break
            chunk = found
        return chunk

    async def aclose(self) -> None:
        self._answers.discard(self)
        await self._response.aclose()
        if isinstance(self._chunks, AsyncGenerator):
            with contextlib.suppress(RuntimeError):  # whoever reads it was just told to stop
                await self._chunks.aclose()


async def _already_read(response: Any) -> AsyncGenerator[bytes, None]:
    try:
        yield response.content
    except Exception as error:
        if type(error).__name__ != "ResponseNotRead":
            raise


# --------------------------------------------------------------------------- errors


def _netloc(url: httpx.URL) -> str:
    return url.netloc.decode("ascii")


def _names(error: BaseException) -> set[str]:
    """Return what an error is called, by aiohttp itself where httpx-aiohttp renamed it."""
    cause = error.__cause__
    if cause is not None and _library(cause) == "aiohttp" and _library(error) != "aiohttp":
        error = cause
    return {cls.__name__ for cls in type(error).__mro__}


def _library(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _is_foreign(error: Exception) -> bool:
    """Return whether this is the network's, or a library's that sends over it."""
    if isinstance(error, ExceptionGroup):  # anyio connects in a task group
        return all(map(_is_foreign, error.exceptions))
    # The last three: no such port or name, and a transport that was closed under us.
    if isinstance(error, OSError | OverflowError | UnicodeError | ClosedError):
        return True
    return any(cls.__module__.partition(".")[0] in _LIBRARIES for cls in type(error).__mro__)


def _is_silence(error: BaseException) -> bool:
    return not _names(error).isdisjoint({"TimeoutException", "TimeoutError"})


def _closed(host: str, sending: Sending) -> ProdiaError:
    if sending.may_have_run:
        return ConnectionLostError(f"the client was closed while {host} was at work")
    return ConnectError.of_closing("the client was closed before this was sent")


def _translate(
    error: Exception, host: str, silence: float, sending: Sending, secret: str
) -> ProdiaError:
    """Say what a foreign error means for the job: first our own record, then the name."""
    why = _describe(error, secret)
    names = _names(error)
    if not sending.may_have_run:
        if not names.isdisjoint({"UnsupportedProtocol", "InvalidURL", "LocalProtocolError"}):
            return InvalidRequestError(f"this cannot be sent: {why}")
        if sending.stage == "connecting":
            # Some transports begin with the same words.
            why = why.removeprefix(f"could not connect to {host}: ")
            return ConnectError(f"cannot connect to {host}: {why}")
        return ConnectError(f"the connection to {host} broke before the request was sent: {why}")
    if _is_silence(error):
        return APITimeoutError(f"{host} sent nothing for {silence:g} s after the request was sent")
    # Over HTTP/2 httpx blames us (LocalProtocolError) for a head that is too large.
    garbled = not names.isdisjoint({"ProtocolError", "ClientResponseError"})
    if garbled and "disconnected" not in str(error):
        return MalformedResponseError(f"{host} did not answer in HTTP: {why}")
    return ConnectionLostError(
        f"the connection to {host} was lost after the request was sent: {why}"
    )


def _describe(error: BaseException, secret: str) -> str:
    text = blotted(" ".join(str(error).split()), secret)
    return text[:300] or type(error).__name__


def _harmless(error: BaseException, secret: str, depth: int = 1) -> BaseException:
    """Return a twin of an error, and of its causes, that leads to no request and no frame."""
    kind = type(error)
    text = _describe(error, secret)
    twin: BaseException
    try:
        if isinstance(error, OSError) and kind.__module__ in {"builtins", "socket", "ssl"}:
            twin = kind(*error.args)
        elif kind.__module__.partition(".")[0] in {"httpx", "httpx2"}:
            twin = kind(text)
        else:
            raise TypeError
    except TypeError:
        twin = ForeignError(f"{kind.__module__}.{kind.__qualname__}: {text}")
    inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if inner is not None and depth < MAX_CAUSES:
        twin.__cause__ = _harmless(inner, secret, depth + 1)
    return twin
