"""One exchange: what it came to is our own record's to say, whoever sends."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import httpcore
import httpx
import httpx2
import pytest
from conftest import on_both_loops, until
from raw_server import PICTURE, Conversation, RawServer, good, http, say

from prodia_async import (
    APITimeoutError,
    AsyncProdia,
    AttemptDetails,
    ConnectError,
    ConnectionLostError,
    Input,
    InvalidRequestError,
    MalformedResponseError,
    PayloadTooLargeError,
    ProdiaError,
    RetryPolicy,
    TruncatedResponseError,
)
from prodia_async import _exchange as exchange_module
from prodia_async._closing import INPUT_SECONDS, ClosedError, Exits
from prodia_async._exchange import (
    USER_AGENT,
    ForeignError,
    Reply,
    Sender,
    check_client,
    check_transport,
)
from prodia_async._uploads import BytesBody
from prodia_async._wire import Order, Sending, Target, WireRequest, sending_now
from prodia_async.fireworks import AsyncFireworks
from prodia_async.transports import _http1, default_transport
from prodia_async.transports._direct import DirectTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PING = {"type": "inference.ping.v1"}
ONCE = RetryPolicy(max_attempts=1)
FAST = RetryPolicy(backoff_initial=0.01)
POST = WireRequest("POST", "/v2/job", (), (), BytesBody(b"{}", "application/json"), "ping")
GET = WireRequest("GET", "/v2/job/1", (("a", "b"),), (("x-own", "1"),), None, "ping")


class Fake(httpx.AsyncBaseTransport):
    """Takes as much of a request as it is told to, and then does as it is told."""

    def __init__(self, *, takes: bool, then: Exception | httpx.Response, traced: str = "") -> None:
        self.takes = takes
        self.then = then
        self.traced = traced
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.traced:
            await request.extensions["trace"](self.traced, {})
        if self.takes:
            await request.aread()
        if isinstance(self.then, Exception):
            raise self.then
        return self.then


async def fate_of(transport: httpx.AsyncBaseTransport, request: WireRequest) -> ProdiaError:
    sender = Sender("http://example.test", transport=transport)
    with pytest.raises(ProdiaError) as caught:
        await sender.send(request, "Bearer secret-token", Sending(), 1.0)
    await sender.aclose()
    return caught.value


@pytest.fixture
def a_request() -> httpx.Request:
    return httpx.Request("POST", "http://x.test", headers={"authorization": "secret-token"})


async def test_what_may_have_run_is_never_said_by_a_name(a_request: httpx.Request) -> None:
    """Taken from us: it may have run, whatever the error is called; not taken: it has not."""
    told: list[tuple[Exception, type[ProdiaError]]] = [
        (httpx.ConnectError("x", request=a_request), ConnectionLostError),
        (httpx.ConnectTimeout("x"), APITimeoutError),
        (httpx.PoolTimeout("x"), APITimeoutError),
        (httpx.ProxyError("x"), ConnectionLostError),
        (httpx.ReadError("x"), ConnectionLostError),
        (httpx.LocalProtocolError("x"), MalformedResponseError),
        (httpx.RemoteProtocolError("Server disconnected"), ConnectionLostError),
        (ConnectionRefusedError(111, "x"), ConnectionLostError),
        (TimeoutError(), APITimeoutError),
        (anyio.ClosedResourceError(), ConnectionLostError),
        (httpx2.ConnectError("x"), ConnectionLostError),
        (aiohttp.ServerDisconnectedError(), ConnectionLostError),
    ]
    for error, kind in told:
        sent = await fate_of(Fake(takes=True, then=error), POST)
        assert (type(sent), sent.may_have_run) == (kind, True), error
        kept = await fate_of(Fake(takes=False, then=error), POST)
        assert not kept.may_have_run
        refused = isinstance(error, httpx.LocalProtocolError)
        assert type(kept) is (InvalidRequestError if refused else ConnectError)


async def test_a_request_without_a_body() -> None:
    """Nothing is taken of it, so it counts as sent; but for a trace that knows better."""
    lost = httpx.ConnectError("x")
    assert (await fate_of(Fake(takes=False, then=lost), GET)).may_have_run
    for event, sent in (
        ("connection.connect_tcp.started", False),
        ("http11.send_request_headers.started", True),
        ("http2.send_request_headers.started", True),
    ):
        error = await fate_of(Fake(takes=False, then=lost, traced=event), GET)
        assert error.may_have_run is sent
    error = await fate_of(
        Fake(takes=False, then=lost, traced="x.send_request_headers.started"), POST
    )
    assert not error.may_have_run
    assert "before the request was sent" in str(error)
    with RawServer() as gone:
        url = gone.url
    for transport in (httpx.AsyncHTTPTransport(), DirectTransport()):
        sender = Sender(url, transport=transport)
        with pytest.raises(ConnectError) as caught:
            await sender.send(GET, "", Sending(), 1.0)
        assert not caught.value.may_have_run
        await sender.aclose()


async def test_a_lost_question_may_have_been_heard() -> None:
    """A GET that was written and not answered counts as sent, by our own transport too."""
    for transport in (DirectTransport(), httpx.AsyncHTTPTransport()):
        with RawServer([lambda conversation: conversation.reset()]) as server:
            sender = Sender(server.url, transport=transport)
            with pytest.raises(ConnectionLostError) as caught:
                await sender.send(GET, "", Sending(), 1.0)
            assert caught.value.may_have_run
            await sender.aclose()


async def test_a_first_byte_that_the_kernel_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """EPIPE or a reset on the very first send: no byte left, so nothing ran, and it goes again."""
    real = _http1.Pool.make

    def hang_up(conversation: Conversation) -> bool:
        if conversation.number == 1:
            conversation.reset()
        return True

    async def make_and_sleep(*args: Any) -> Any:
        connection = await real(*args)
        time.sleep(0.05)  # noqa: ASYNC251  (the loop must not hear of the reset)
        return connection

    monkeypatch.setattr(_http1.Pool, "make", make_and_sleep)
    with RawServer(on_connect=hang_up) as server:
        async with AsyncProdia("t", base_url=server.url, retry=ONCE) as prodia:
            with pytest.raises(ConnectError) as caught:
                await prodia.job(PING)
            assert not caught.value.may_have_run
            assert (await prodia.job(PING)).output.content == PICTURE
    assert server.charges == 1


@on_both_loops
async def test_the_stages_of_an_attempt() -> None:
    """Connecting, sending, running, reading: told as it goes, by whatever transport."""
    gate = anyio.Event()

    class Slow:
        content_type = "text/plain"
        content_length = 200_000

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield bytes(100_000)
            await gate.wait()
            yield bytes(100_000)

    answer = threading.Event()

    def wait(conversation: Conversation) -> None:
        answer.wait(10)
        good(conversation)

    slow = WireRequest("POST", "/v2/job", (), (), Slow(), "ping")
    with RawServer() as server:
        for make in (lambda: default_transport(server.url), httpx.AsyncHTTPTransport):
            gate = anyio.Event()
            answer.clear()
            server.replies.append(wait)
            sending = Sending()
            sender = Sender(server.url, transport=make())
            seen = [sending.stage]
            replies: list[Any] = []

            async def run(
                sender: Sender = sender, sending: Sending = sending, replies: Any = replies
            ) -> None:
                replies.append(await sender.send(slow, "", sending, 60.0))

            def is_at(stage: str, sending: Sending = sending) -> Callable[[], bool]:
                return lambda: sending.stage == stage

            async with anyio.create_task_group() as group:
                group.start_soon(run)
                await until(is_at("sending"))
                assert not sending.may_have_run
                gate.set()
                await until(is_at("running"))
                assert sending.may_have_run
                answer.set()
            assert (seen, sending.stage) == (["connecting"], "reading")
            assert "reading" in repr(sending)
            await replies[0].aclose()
            await sender.aclose()


async def test_what_was_not_handed_over_has_not_run() -> None:
    """Before the first piece of a body, and in the middle of the only one."""

    class Body:
        content_type = "text/plain"
        content_length = 30_000_000

        async def __aiter__(self) -> AsyncIterator[bytes]:
            await gate.wait()
            yield bytes(30_000_000)

    def hang_up(conversation: Conversation) -> bool:
        conversation.read_head()
        conversation.reset()
        return False

    request = WireRequest("POST", "/v2/job", (), (), Body(), "ping")
    gate = anyio.Event()
    with RawServer(on_connect=hang_up) as server:
        sender = Sender(server.url, transport=DirectTransport())
        sending = Sending()
        with anyio.move_on_after(0.1):
            await sender.send(request, "", sending, 60.0)
        assert (sending.stage, sending.may_have_run) == ("sending", False)
        gate.set()
        sending = Sending()
        with pytest.raises(ConnectError) as caught:
            await sender.send(request, "", sending, 60.0)
        assert not sending.may_have_run
        assert not caught.value.may_have_run
        await sender.aclose()


async def test_a_body_cut_in_transit_leads_to_no_request() -> None:
    """The error of an answer that broke off has a cause of its own making."""

    def cut(conversation: Conversation) -> None:
        conversation.send(http()[:-1_000])
        conversation.close()

    with RawServer([cut]) as server:
        sender = Sender(server.url, transport=httpx.AsyncHTTPTransport())
        reply = await sender.send(POST, "Bearer secret-token", Sending(), 60.0)
        with pytest.raises(TruncatedResponseError) as caught:
            async for _ in reply:
                pass
        assert isinstance(caught.value.__cause__, httpx.RemoteProtocolError)
        assert caught.value.__cause__._request is None
        assert caught.value.__context__ is None
        await reply.aclose()
        await sender.aclose()


async def test_an_inputs_own_farewell_takes_no_answers_place() -> None:
    """What an input's `aclose` raises is logged; the 413 that came is the answer."""

    class Input413:
        def __init__(self) -> None:
            self.closed = False

        def __aiter__(self) -> Input413:
            return self

        async def __anext__(self) -> bytes:
            await anyio.sleep(0.01)
            return bytes(1_000)

        async def aclose(self) -> None:
            self.closed = True
            raise KeyError("mine")

    def early(conversation: Conversation) -> bool:
        conversation.read_head()
        conversation.send(http("413 No", b"no", "Connection: close", content_type="text/plain"))
        conversation.stall()
        return False

    with RawServer(on_connect=early) as server:
        async with AsyncProdia("t", base_url=server.url, retry=ONCE) as prodia:
            with pytest.raises(PayloadTooLargeError):
                await prodia.job(PING, inputs=[Input(Input413, "a", size=10**9)])


async def test_what_an_input_raises_is_the_callers() -> None:
    """Whatever its type, over our transport and another's."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionResetError("mine")

    for transport in (None, httpx.AsyncHTTPTransport()):
        with RawServer() as server:
            async with AsyncProdia(
                "t", base_url=server.url, retry=ONCE, transport=transport
            ) as prodia:
                with pytest.raises(ConnectionResetError, match="mine"):
                    await prodia.job(PING, inputs=[Input(broken, "a", size=10)])


async def test_ports_and_names_that_cannot_be() -> None:
    """Above 65535, or no name at all: an error of ours, and nothing was sent."""
    for url in ("http://127.0.0.1:70000", "http://localhost:70000", "http://a..b"):
        for make in (DirectTransport, httpx.AsyncHTTPTransport):
            sender = Sender(url, transport=make())
            with pytest.raises(ConnectError) as caught:
                await sender.send(POST, "", Sending(), 1.0)
            assert not caught.value.may_have_run
            await sender.aclose()


async def test_what_is_no_transport_is_refused_at_once() -> None:
    """Transports and clients of httpx and httpx2 pass; the advice names what was meant."""
    for transport in (httpx.AsyncHTTPTransport(), httpx2.AsyncHTTPTransport(), DirectTransport()):
        check_transport(transport)
    for client in (httpx.AsyncClient(), httpx2.AsyncClient()):
        check_client(client)
        await client.aclose()
        with pytest.raises(InvalidRequestError, match="http_client="):
            check_transport(client)
    session = aiohttp.ClientSession()
    await session.close()
    for wrong in (session, 5, httpx.HTTPTransport(), httpx.Client, None):
        with pytest.raises(InvalidRequestError, match=type(wrong).__name__):
            check_transport(wrong)
        with pytest.raises(InvalidRequestError, match="AsyncClient"):
            check_client(wrong)
    with pytest.raises(InvalidRequestError, match="aiohttp_transport"):
        AsyncProdia("t", transport=session)  # type: ignore[arg-type]  # that is it
    with pytest.raises(InvalidRequestError, match="http_client"):
        AsyncFireworks("t", http_client=5)  # type: ignore[arg-type]  # as above
    with pytest.raises(TypeError):
        Sender("http://x.test")


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_clients_own_is_kept(library: Any) -> None:
    """Its headers, params, cookies and hooks go along; what the job needs goes over them."""
    seen: list[str] = []

    async def note(request: Any) -> None:
        seen.append(request.method)

    async with library.AsyncClient(
        headers={"x-team": "blue", "user-agent": "mine/1", "authorization": "theirs"},
        params={"tenant": "7"},
        cookies={"a": "b"},
        event_hooks={"request": [note]},
        auth=("user", "password"),
        follow_redirects=True,
    ) as client:
        with RawServer() as server:
            async with AsyncProdia("t", base_url=server.url, http_client=client) as prodia:
                await prodia.job(PING)
            request = server.requests[0]
    assert seen == ["POST"]
    assert "tenant=7" in request.head.splitlines()[0]
    assert request.header("x-team") == "blue"
    assert request.header("cookie") == "a=b"
    assert request.header("user-agent") == "mine/1"
    assert request.header("authorization") == "Bearer t"
    assert request.header("accept-encoding") == "identity"
    assert request.header("connection") == "close"
    async with library.AsyncClient() as client:
        with RawServer() as server:
            async with AsyncProdia("t", base_url=server.url, http_client=client) as prodia:
                await prodia.job(PING)
            assert (server.requests[0].header("user-agent") or "").startswith("prodia-async/")


async def test_a_clients_hooks_may_read_and_raise() -> None:
    """An answer that a hook has read, or raised for, is the answer all the same."""

    async def read(response: httpx.Response) -> None:
        await response.aread()
        response.raise_for_status()

    async def drain(response: httpx.Response) -> None:
        async for _ in response.aiter_raw():
            pass

    async with httpx.AsyncClient(event_hooks={"response": [read]}) as client:
        refused = say(http("413 No", b"no", content_type="text/plain"))
        with RawServer([good, refused]) as server:
            async with AsyncProdia(
                "t", base_url=server.url, http_client=client, retry=ONCE
            ) as prodia:
                assert (await prodia.job(PING)).output.content == PICTURE
                with pytest.raises(PayloadTooLargeError) as caught:
                    await prodia.job(PING)
    assert caught.value.body == b"no"
    async with httpx.AsyncClient(event_hooks={"response": [drain]}) as client:
        with RawServer() as server:
            async with AsyncProdia(
                "t", base_url=server.url, http_client=client, retry=ONCE
            ) as prodia:
                with pytest.raises(TruncatedResponseError):
                    await prodia.job(PING)


async def test_causes_are_made_anew(a_request: httpx.Request) -> None:
    """They say what happened, to the last cause, and lead nowhere."""
    refused = ConnectionRefusedError(111, "Connection refused")
    lost = httpx.ReadError("saw secret-token", request=a_request)
    lost.__cause__ = KeyError("middle")
    lost.__cause__.__context__ = refused
    error = await fate_of(Fake(takes=True, then=lost), POST)
    cause = error.__cause__
    assert error.__context__ is None
    assert isinstance(cause, httpx.ReadError)
    assert (str(cause), cause._request) == ("saw [token]", None)
    assert "secret-token" not in str(error)
    assert isinstance(cause.__cause__, ForeignError)
    assert str(cause.__cause__) == "builtins.KeyError: 'middle'"
    last = cause.__cause__.__cause__
    assert isinstance(last, ConnectionRefusedError)
    assert last is not refused
    assert last.__traceback__ is None
    status = httpx.HTTPStatusError("x", request=a_request, response=httpx.Response(500))
    assert type((await fate_of(Fake(takes=True, then=status), POST)).__cause__) is ForeignError
    deep: Exception = OSError("last")
    for _ in range(9):
        outer = OSError("outer")
        outer.__cause__ = deep
        deep = outer
    found: BaseException | None = (await fate_of(Fake(takes=True, then=deep), POST)).__cause__
    depth = 0
    while found is not None:
        found, depth = found.__cause__, depth + 1
    assert depth == 5


async def test_a_bug_of_somebody_elses_is_not_the_networks() -> None:
    """What no library raises passes, as it is; in the body too."""
    sender = Sender("http://x.test", transport=Fake(takes=True, then=KeyError("bug")))
    with pytest.raises(KeyError):
        await sender.send(POST, "", Sending(), 1.0)

    async def broken() -> AsyncIterator[bytes]:
        yield b""
        yield b"ab"
        raise KeyError("bug")

    response = httpx.Response(200, content=broken())
    sender = Sender("http://x.test", transport=Fake(takes=True, then=response))
    reply = await sender.send(POST, "", Sending(), 1.0)
    assert await anext(reply) == b"ab"
    with pytest.raises(KeyError):
        await anext(reply)
    await reply.aclose()


async def test_after_closing_nothing_is_sent() -> None:
    """Every send raises, the ones under way too; a client of the user's stays open."""
    async with httpx.AsyncClient() as client:
        stall: Callable[[Conversation], None] = lambda conversation: conversation.stall()  # noqa: E731
        cases: list[dict[str, Any]] = [{"transport": DirectTransport()}, {"client": client}]
        for options in cases:
            with RawServer([stall]) as server:
                sender = Sender(server.url, **options)
                errors: list[ProdiaError] = []

                async def run(sender: Sender = sender, errors: Any = errors) -> None:
                    try:
                        await sender.send(POST, "", Sending(), 60.0)
                    except ProdiaError as error:
                        errors.append(error)

                async with anyio.create_task_group() as group:
                    group.start_soon(run)
                    await until(lambda: len(server.requests) == 1)
                    await sender.aclose()
                assert type(errors[0]) is ConnectionLostError
                assert "closed" in str(errors[0])
                with pytest.raises(ConnectError, match="closed before") as caught:
                    await sender.send(POST, "", Sending(), 1.0)
                assert caught.value.client_is_closing
                assert len(server.requests) == 1
                sender.abandon()  # nothing is left to give up
        assert not client.is_closed


async def test_a_reader_between_two_pieces_is_closed_too() -> None:
    """An answer of the user's client that nobody reads just now does not stay open."""

    def half(conversation: Conversation) -> None:
        conversation.send(http()[:-1_000])
        conversation.stall()

    async with httpx.AsyncClient() as client:
        with RawServer([half]) as server:
            sender = Sender(server.url, client=client)
            reply = await sender.send(POST, "", Sending(), 60.0)
            await anext(reply)
            await sender.aclose()
            await until(lambda: server.open == 0)
            with pytest.raises(TruncatedResponseError):
                await anext(reply)
            with contextlib.suppress(Exception):
                await reply.aclose()


def test_nothing_shows_the_token() -> None:
    """Neither the sender nor what it hands on."""
    sender = Sender("http://x.test:8080", transport=DirectTransport())
    assert repr(sender) == "<Sender to x.test:8080>"


# ------------------------------------------------------------------ each decision, without a socket


class Said:
    """An answer out of a list: pieces, errors; keeps count of its ends."""

    status = 200

    def __init__(self, *pieces: Any, headers: Any = ()) -> None:
        self.pieces = list(pieces)
        self.headers = headers
        self.closed = 0

    async def read(self) -> bytes:
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, BaseException):
            raise piece
        return bytes(piece)

    async def aclose(self) -> None:
        self.closed += 1


class Taker(httpx.AsyncBaseTransport):
    """A transport that takes orders, and notes them; what comes of each is played."""

    takes_orders = True

    def __init__(self, *then: Any) -> None:
        self.then = list(then)
        self.orders: list[Order] = []
        self.closed = self.abandoned = 0

    async def exchange(self, order: Order) -> Any:
        self.orders.append(order)
        then = self.then.pop(0) if self.then else Said()
        if isinstance(then, BaseException):
            raise then
        return then

    def abandon(self) -> None:
        self.abandoned += 1

    async def aclose(self) -> None:
        self.closed += 1


class Pieces:
    """A body that has to be iterated; closes as it is told to."""

    content_type = "text/plain"
    content_length = 4

    def __init__(self, *pieces: Any, on_close: Any = None) -> None:
        self.pieces = pieces
        self.on_close = on_close
        self.closed = 0

    def __aiter__(self) -> Any:
        self.left = list(self.pieces)
        return self

    async def __anext__(self) -> bytes:
        if not self.left:
            raise StopAsyncIteration
        piece = self.left.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        return bytes(piece)

    async def aclose(self) -> None:
        if self.on_close is not None:
            await self.on_close()
        self.closed += 1


async def test_what_an_order_says() -> None:
    """Where to, by which rules, and with which headers: ours, the caller's, the body's."""
    transport = Taker()
    sender = Sender("https://api.test/base", transport=transport, connect_timeout=3.0)
    sending = Sending()
    query = (("a", "b c"),)
    body = BytesBody(b"{}", "application/json")
    own = (("accept", "x"), ("user-agent", "mine"))
    await sender.send(WireRequest("POST", "/v2/job", query, own, body, "k"), "Bearer t", sending, 7)
    await Sender("http://api.test", transport=transport).send(
        WireRequest("GET", "https://[::1]:8080/x", (), (), None, "k"), "", Sending(), 1.0
    )
    await Sender("http://api.test", transport=transport).send(
        WireRequest("PUT", "/", (), (), Pieces(b"abcd"), "k"), "", Sending(), 1.0
    )
    first, second, third = transport.orders
    url = "https://api.test/base/v2/job?a=b+c"
    assert (first.method, first.target) == (
        "POST", Target("https", "api.test", 443, b"/base/v2/job?a=b+c", url),
    )  # fmt: skip
    assert first.headers == [
        (b"host", b"api.test"),
        (b"user-agent", b"mine"),
        (b"accept-encoding", b"identity"),
        (b"authorization", b"Bearer t"),
        (b"accept", b"x"),
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
    ]
    assert (first.body, first.length, first.sending) == (b"{}", 2, sending)
    assert (first.connect, first.read, first.write) == (3.0, 7, 7)
    assert sending.stage == "reading"
    assert (second.method, second.target) == (
        "GET", Target("https", "::1", 8080, b"/x", "https://[::1]:8080/x"),
    )  # fmt: skip
    assert second.headers == [
        (b"host", b"[::1]:8080"),
        (b"user-agent", USER_AGENT.encode()),
        (b"accept-encoding", b"identity"),
    ]
    assert (second.body, second.length, second.connect) == (None, 0, 10.0)
    assert third.target == Target("http", "api.test", 80, b"/", "http://api.test/")
    assert third.length == 4
    assert third.body is not None
    assert not isinstance(third.body, bytes)
    assert [chunk async for chunk in third.body] == [b"abcd"]


async def test_what_another_transport_is_given() -> None:
    """The same in its own terms, a connection of its own, and how long each step may take."""
    transport = Fake(takes=True, then=httpx.Response(200, content=b"x"))
    sender = Sender("http://api.test", transport=transport, connect_timeout=3.0)
    sending = Sending()
    await sender.send(POST, "Bearer t", sending, 7.0)
    await sender.send(GET, "", Sending(), 7.0)
    first, second = transport.requests
    assert (first.method, str(first.url)) == ("POST", "http://api.test/v2/job")
    assert first.headers.raw == [
        (b"host", b"api.test"),
        (b"user-agent", USER_AGENT.encode()),
        (b"accept-encoding", b"identity"),
        (b"authorization", b"Bearer t"),
        (b"content-type", b"application/json"),
        (b"content-length", b"2"),
        (b"connection", b"close"),
    ]
    assert first.content == b"{}"
    assert first.extensions["timeout"] == {"connect": 3.0, "read": 7.0, "write": 7.0, "pool": None}
    assert (second.method, str(second.url)) == ("GET", "http://api.test/v2/job/1?a=b")
    proves = Fake(takes=False, then=httpx.Response(200, content=b"x"))
    proves.proves_ends = True  # type: ignore[attr-defined]  # as ours have it
    await Sender("http://api.test", transport=proves).send(GET, "", Sending(), 7.0)
    assert "connection" not in proves.requests[0].headers


async def test_a_transport_of_ours_is_told_whose_request_it_sends() -> None:
    """It notes on that how far it came, and a trace of its events is taken for no more."""

    class Ours(Fake):
        proves_ends = True

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.sending = sending_now.get()
            failed = {"exception": TimeoutError()}
            await request.extensions["trace"]("http2.send_request_body.failed", failed)
            return await super().handle_async_request(request)

    ours = Ours(takes=False, then=httpx.Response(200, content=b"x"))
    sending = Sending()
    await Sender("http://api.test", transport=ours).send(POST, "", sending, 7.0)
    assert ours.sending is sending
    assert not sending.may_have_run


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_how_a_client_is_called(library: Any) -> None:
    """For a stream, with no credentials of its own, and following nothing."""
    called: list[Any] = []

    class Client(library.AsyncClient):  # type: ignore[misc]  # of either library
        async def send(self, request: Any, **how: Any) -> Any:
            called.append((request, how))
            return library.Response(200, content=b"x")

    async with Client(headers={"user-agent": "mine/1"}) as own, Client() as plain:
        for each in (own, plain):
            sender = Sender("http://api.test", client=each, connect_timeout=3.0)
            reply = await sender.send(POST, "Bearer t", Sending(), 7.0)
            assert [chunk async for chunk in reply] == [b"x"]
            await sender.aclose()
            assert not each.is_closed
    assert [how for _, how in called] == [
        {"stream": True, "auth": None, "follow_redirects": False}
    ] * 2
    requests = [request for request, _ in called]
    assert all(type(each) is library.Request for each in requests)
    assert [each.headers["user-agent"] for each in requests] == ["mine/1", USER_AGENT]
    assert [(each.method, str(each.url)) for each in requests] == [
        ("POST", "http://api.test/v2/job")
    ] * 2
    assert requests[0].extensions["timeout"] == {
        "connect": 3.0, "read": 7.0, "write": 7.0, "pool": None
    }  # fmt: skip
    assert [chunk async for chunk in requests[0].stream] == [b"{}"]


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_transport_is_asked_in_its_own_terms(library: Any) -> None:
    """The requests are of the library that it is of."""
    asked: list[Any] = []

    class Transport(library.AsyncBaseTransport):  # type: ignore[misc]  # of either library
        async def handle_async_request(self, request: Any) -> Any:
            asked.append(request)
            return library.Response(200, content=b"x")

    await Sender("http://x.test", transport=Transport()).send(POST, "", Sending(), 1.0)
    (request,) = asked
    assert (type(request), type(request.url)) == (library.Request, library.URL)
    assert isinstance(request.stream, library.AsyncByteStream)


async def test_a_client_without_a_name_stays_without() -> None:
    """It is the user's to say who asks, or not to."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=b"x")

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        del client.headers["user-agent"]
        await Sender("http://x.test", client=client).send(POST, "", Sending(), 1.0)
    assert "user-agent" not in seen[0].headers


async def test_what_a_sender_tells() -> None:
    """Which host it was, and never the credential: in no error, in no header of an answer."""
    sender = Sender("http://x.test", transport=Taker(
        OSError("saw s3cret"), Said(OSError("saw s3cret"), headers=[(b"echo", b"a s3cret")]),
    ))  # fmt: skip
    with pytest.raises(ConnectError) as caught:
        await sender.send(POST, "Some scheme s3cret", Sending(), 1.0)
    assert caught.value.message == "cannot connect to x.test: saw [token]"
    reply = await sender.send(POST, "Some scheme s3cret", Sending(), 1.0)
    assert reply.headers["echo"] == "a [token]"
    with pytest.raises(TruncatedResponseError) as cut:
        await anext(reply)
    assert cut.value.message.endswith(": saw [token]")

    def fail(*_: Any) -> Any:
        raise OSError("no such place")

    sender._target = fail  # type: ignore[assignment]  # where a URL is taken apart
    with pytest.raises(ConnectError) as early:
        await sender.send(POST, "", Sending(), 1.0)
    assert early.value.message == "cannot connect to x.test: no such place"


def test_what_is_remembered_of_urls_is_bounded() -> None:
    """A million jobs with queries of their own leave no million behind."""
    sender = Sender("http://x.test", transport=Taker())
    assert sender._target.cache_info().maxsize == 64
    assert sender._foreign._url.cache_info().maxsize == 64


async def test_what_was_taken_of_a_body() -> None:
    """In doubt it was sent; one that is sent again is counted anew."""
    watched = exchange_module._Watched(Pieces(b"abc", b"d"))
    sending = watched.sending = Sending()
    for _ in range(2):
        sending.stage, sending.may_have_run = "connecting", False
        found = []
        async for chunk in watched:
            found.append((bytes(chunk), sending.stage, sending.may_have_run))
        assert found == [(b"abc", "sending", False), (b"d", "running", True)]
        assert watched.is_exhausted
    assert watched.error is None
    broken = exchange_module._Watched(Pieces(b"ab", KeyError("mine")))
    with pytest.raises(KeyError):
        async for _ in broken:
            pass
    assert isinstance(broken.error, KeyError)
    assert not broken.is_exhausted


@on_both_loops
async def test_a_body_is_closed_whatever_happens(caplog: pytest.LogCaptureFixture) -> None:
    """Also by who was cancelled, in bounded time; what it raises is logged and no more."""
    caplog.clear()

    async def stall() -> None:
        await anyio.sleep_forever()

    async def fail() -> None:
        raise KeyError

    assert INPUT_SECONDS == 0.05
    await exchange_module._Watched(Pieces()).aclose()  # nothing was begun
    good, slow, bad = (Pieces(on_close=each) for each in (anyio.lowlevel.checkpoint, stall, fail))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await aiter(exchange_module._Watched(good)).aclose()
    assert good.closed == 1
    with anyio.fail_after(5):
        await aiter(exchange_module._Watched(slow)).aclose()
        await aiter(exchange_module._Watched(bad)).aclose()
    assert [(each.levelno, each.getMessage()) for each in caplog.records] == [
        (logging.WARNING, "an input could not be closed: KeyError")
    ]


async def test_a_body_that_was_not_sent_to_its_end_is_closed() -> None:
    """One that was is not: it closed itself."""
    for transport, closed in ((Fake(takes=False, then=OSError("x")), 1),
                              (Fake(takes=True, then=OSError("x")), 0)):  # fmt: skip
        body = Pieces(b"abcd")
        request = WireRequest("POST", "/", (), (), body, "k")
        sender = Sender("http://x.test", transport=transport)
        with pytest.raises(ProdiaError):
            await sender.send(request, "", Sending(), 1.0)
        # One that was never begun has nothing to close.
        assert body.closed == 0
        body = Pieces(b"ab", b"cd")
        half = Half(OSError("x")) if closed else transport
        with pytest.raises(ProdiaError):
            await Sender("http://x.test", transport=half).send(
                WireRequest("POST", "/", (), (), body, "k"), "", Sending(), 1.0
            )
        assert body.closed == closed


class Half(Fake):
    """Takes one piece, and then does as it is told."""

    def __init__(self, then: Exception) -> None:
        super().__init__(takes=False, then=then)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anext(aiter(request.stream))  # type: ignore[arg-type]  # ours is an asynchronous one
        return await super().handle_async_request(request)


async def test_a_closed_sender_keeps_no_answer() -> None:
    """One that comes just as all is closed is closed too, and told as lost."""
    closed: list[bool] = []

    class Stream(httpx.AsyncByteStream):
        async def aclose(self) -> None:
            closed.append(True)

    class Late(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await request.aread()
            sender._exits.is_closed = True
            return httpx.Response(200, stream=Stream())

    sender = Sender("http://x.test", transport=Late())
    with pytest.raises(ConnectionLostError) as caught:
        await sender.send(POST, "", Sending(), 1.0)
    assert caught.value.message == "the client was closed while x.test was at work"
    assert closed == [True]
    with pytest.raises(ConnectError) as refused:
        await sender.send(POST, "", Sending(), 1.0)
    assert refused.value.message == "the client was closed before this was sent"
    assert refused.value.client_is_closing
    assert not refused.value.may_have_run


async def test_giving_up_and_closing() -> None:
    """The transport hears of both, if it can; without one there is nothing to do."""
    transport = Taker()
    sender = Sender("http://x.test", transport=transport)
    sender.abandon()
    assert (transport.abandoned, transport.closed) == (1, 0)
    await sender.aclose()
    assert (transport.abandoned, transport.closed) == (1, 1)
    Sender("http://x.test", transport=Fake(takes=True, then=OSError())).abandon()
    with pytest.raises(TypeError, match=r"^a sender needs a transport or a client$"):
        Sender("http://x.test")


async def test_a_trace_knows_better() -> None:
    """Whose head is on its way may have run, if that is all of it; before that nothing has."""
    for has_body, event, stage, ran in (
        (True, "http11.send_request_headers.started", "sending", False),
        (False, "http11.send_request_headers.started", "running", True),
        (False, "connection.connect_tcp.started", "connecting", False),
        (True, "connection.connect_tcp.started", "connecting", False),
        (True, "http11.send_request_body.started", "connecting", False),
    ):
        sending = Sending()
        sending.may_have_run = True
        await exchange_module._Trace(sending, has_body=has_body)(event, {})
        assert (sending.stage, sending.may_have_run) == (stage, ran)
    sending = Sending()
    sending.stage, sending.may_have_run = "running", True
    await exchange_module._Trace(sending, has_body=False)("http11.receive.started", {})
    assert (sending.stage, sending.may_have_run) == ("running", True)


HEAD, BODY = "http11.send_request_headers.started", "http11.send_request_body.started"
CONNECT = "connection.connect_tcp.started"


@pytest.mark.parametrize(
    ("is_copied", "events", "stages", "runs"),
    [
        # Taken as it is sent: the head takes nothing back, and the body says nothing new.
        (False, [CONNECT, HEAD, BODY], ["connecting", "sending", "sending"], [False] * 3),
        # Taken before: until its copy is on its way, nothing is.
        (True, [CONNECT, HEAD, BODY], ["running", "sending", "running"], [False, False, True]),
        (True, [HEAD, BODY], ["sending", "running"], [False, True]),
        # Sent again: it was handed over before.
        (True, [HEAD, BODY, CONNECT, HEAD], ["sending", "running", "running", "sending"],
         [False, True, True, True]),
    ],
)  # fmt: skip
async def test_a_trace_of_a_body_that_was_copied(
    is_copied: bool, events: list[str], stages: list[str], runs: list[bool]
) -> None:
    """A hook that reads a body to log it has it sent from a copy, of which nobody asks us."""
    sending = Sending()
    if is_copied:
        sending.stage, sending.may_have_run = "running", True
    trace = exchange_module._Trace(sending, has_body=True)
    for event, stage, ran in zip(events, stages, runs, strict=True):
        await trace(event, {})
        assert (sending.stage, sending.may_have_run) == (stage, ran), event


async def test_a_body_that_was_taken_again_is_not_taken_back() -> None:
    """A transport that tries again by itself has handed it over before."""
    watched = exchange_module._Watched(Pieces(b"abc", b"d"))
    sending = watched.sending = Sending()
    for ran in (False, True):
        taken = aiter(watched)
        await anext(taken)
        assert (sending.stage, sending.may_have_run) == ("sending", ran)
        await anext(taken)
        assert (sending.stage, sending.may_have_run) == ("running", True)


async def _read(request: httpx.Request) -> None:
    await request.aread()


class Reads(httpx.AsyncHTTPTransport):
    """Of the user's own: it reads what is sent, to log it, or to sign it."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return await super().handle_async_request(request)


class TriesAgain(httpx.AsyncHTTPTransport):
    """Of the user's own: it sends once more what was lost."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except httpx.TransportError:
            return await super().handle_async_request(request)


OWN: dict[str, Callable[[], dict[str, Any]]] = {
    "hook": lambda: {"http_client": httpx.AsyncClient(event_hooks={"request": [_read]})},
    "reads": lambda: {"transport": Reads()},
    "again": lambda: {"transport": TriesAgain()},
}


async def test_a_hook_of_the_users_own_client_that_fails_at_the_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its error is the user's; that the job may have been paid for is in the record and the log."""
    told: list[AttemptDetails] = []

    async def choke(_: httpx.Response) -> None:
        raise LookupError("mine")

    with RawServer() as server:
        own = httpx.AsyncClient(event_hooks={"response": [choke]})
        async with AsyncProdia(
            "t", base_url=server.url, http_client=own, hook=told.append
        ) as prodia:
            with pytest.raises(LookupError, match="mine"):
                await prodia.job(PING)
        await own.aclose()
        assert server.charges == 1
    assert [each.attempt.fate for each in told if each.attempt is not None] == ["uncertain"] * 2
    assert "it may have been paid for" in caplog.text


@pytest.mark.parametrize("size", [0, 3_000_000])
@pytest.mark.parametrize("way", OWN)
async def test_a_users_own_way_to_send_that_reads_or_repeats(way: str, size: int) -> None:
    """What the server ran and did not answer is never called not sent, and not sent again by us."""
    inputs = [bytes(size)] if size else []

    def lose(conversation: Conversation) -> bool:
        if way == "again" and conversation.number % 2 == 0:
            conversation.read_head()  # and the rest of it never comes
        elif conversation.read_request() is not None:
            conversation.charge()
        conversation.reset()
        return False

    with RawServer(on_connect=lose) as server:
        async with AsyncProdia("t", base_url=server.url, retry=FAST, **OWN[way]()) as prodia:
            with pytest.raises(ConnectionLostError) as caught:
                await prodia.job(PING, inputs=inputs)
        assert caught.value.may_have_run
        assert server.charges == 1
    # Where nobody listens httpcore tells that nothing was sent, and it is tried again.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with AsyncProdia("t", base_url=nobody, retry=FAST, **OWN[way]()) as prodia:
            with pytest.raises(ConnectError) as refused:
                await prodia.job(PING, inputs=inputs)
    assert not refused.value.may_have_run
    assert len(refused.value.attempts) == 4


@pytest.mark.parametrize(
    ("failed", "is_readable", "ran"),
    [
        (TimeoutError(), True, True),
        (TimeoutError(), False, False),
        (httpcore.WriteError(), True, False),  # httpcore looks for itself
        (TimeoutError(), None, False),  # a connection that nobody told of
    ],
)
async def test_a_trace_sees_that_an_answer_lies_there(
    failed: Exception, is_readable: bool | None, ran: bool
) -> None:
    """An upload that is cut off while something can be read: the server may have answered."""

    class Stream(httpcore.AsyncNetworkStream):
        def get_extra_info(self, info: str) -> Any:
            return {"is_readable": is_readable}[info]

    for event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
        sending = Sending()
        trace = exchange_module._Trace(sending, has_body=True)
        if is_readable is not None:
            await trace(event, {"return_value": Stream()})
        await trace("http11.send_request_headers.started", {})
        await trace("http11.send_request_body.failed", {"exception": failed})
        assert sending.may_have_run == ran


@pytest.mark.parametrize(
    ("failed", "is_ours", "ran"),
    [
        (TimeoutError(), False, True),
        (httpcore.LocalProtocolError(), False, True),  # a stream that was reset
        (httpcore.ReadError(), False, False),
        (httpcore.WriteError(), False, False),
        (httpcore.RemoteProtocolError(), False, False),  # the server ends the connection
        (TimeoutError(), True, False),  # ours looks for itself
    ],
)
async def test_what_a_trace_of_http_2_cannot_see(
    failed: Exception, is_ours: bool, ran: bool
) -> None:
    """Httpcore keeps an answer in front of a reset to itself: it may have been a success."""
    sending = Sending()
    trace = exchange_module._Trace(sending, has_body=True, is_ours=is_ours)
    await trace("http2.send_request_headers.started", {"stream_id": 1})
    await trace("http2.send_request_body.failed", {"exception": failed})
    assert sending.may_have_run == ran


async def test_a_trace_takes_back_nothing_that_was_handed_over() -> None:
    """A body that was taken to its end, and then cut off with nothing to be read: it may run."""
    sending = Sending()
    trace = exchange_module._Trace(sending, has_body=True)
    await trace(HEAD, {})
    sending.may_have_run = True
    await trace("http11.send_request_body.failed", {"exception": TimeoutError()})
    assert sending.may_have_run


async def test_an_answer_of_another_transport() -> None:
    """Empty pieces are no end; a generator of its pieces is closed with it, and it is let go of."""
    over: list[bool] = []

    class Stream(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                for each in (b"", b"ab", b"", b"c", b"d"):
                    yield each
            finally:
                over.append(True)

    answers: set[Any] = set()
    headers = [(b"A", b"1")]
    response = httpx.Response(201, headers=headers, stream=Stream())
    answer = exchange_module._ForeignAnswer(response, Exits(), answers)
    assert (answer.status, list(answer.headers), answers) == (201, headers, {answer})
    assert [await answer.read(), await answer.read()] == [b"ab", b"c"]
    await answer.aclose()
    assert (over, answers, response.is_closed) == ([True], set(), True)
    response = httpx.Response(200, stream=Stream())
    answer = exchange_module._ForeignAnswer(response, Exits(), answers)
    assert [await answer.read() for _ in range(4)] == [b"ab", b"c", b"d", b""]


@on_both_loops
async def test_an_answer_that_is_closed_while_it_is_read() -> None:
    """Whoever reads it is the one to end it; closing takes no harm from that."""

    class Stream(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            await anyio.sleep_forever()
            yield b""

    response = httpx.Response(200, stream=Stream())
    answer = exchange_module._ForeignAnswer(response, Exits(), set())
    async with anyio.create_task_group() as group:
        group.start_soon(answer.read)
        await anyio.wait_all_tasks_blocked()
        await answer.aclose()
        assert response.is_closed
        group.cancel_scope.cancel()


async def test_an_answer_that_was_read_already() -> None:
    """By a hook: what it kept is handed on, and where it kept nothing there is nothing."""

    class Response:
        def __init__(self, content: Any) -> None:
            self.kept = content

        @property
        def content(self) -> bytes:
            if isinstance(self.kept, Exception):
                raise self.kept
            return bytes(self.kept)

    read = exchange_module._already_read
    assert [each async for each in read(Response(b"abc"))] == [b"abc"]
    assert [each async for each in read(Response(httpx.ResponseNotRead()))] == []
    with pytest.raises(KeyError):
        assert [each async for each in read(Response(KeyError()))]
    exits, answers = Exits(), set[Any]()
    for flag in ("is_closed", "is_stream_consumed"):
        known: Any = SimpleNamespace(
            status_code=200, headers=httpx.Headers(), is_closed=False, is_stream_consumed=False,
            content=b"kept", stream=None,
        )  # fmt: skip
        setattr(known, flag, True)
        assert await exchange_module._ForeignAnswer(known, exits, answers).read() == b"kept"


async def test_what_a_reply_tells() -> None:
    """Its head, and how much of it had come when it broke off, or fell silent."""
    said = Said(b"ab", b"c", httpx.ReadError("saw secret"), headers=[(b"X-Request-Id", b"r\xe9")])
    reply = Reply(said, "secret")
    assert (reply.status_code, reply.request_id) == (200, "r\xe9")
    assert [await anext(reply), await anext(reply)] == [b"ab", b"c"]
    with pytest.raises(TruncatedResponseError) as caught:
        await anext(reply)
    error = caught.value
    assert error.message == "the connection broke after 3 bytes of the answer: saw [token]"
    assert (error.bytes_received, str(error.__cause__), error.__context__) == (
        3, "saw [token]", None,
    )  # fmt: skip
    with pytest.raises(TruncatedResponseError) as silent:
        await anext(Reply(Said(httpx.ReadTimeout("slow"))))
    assert silent.value.message == "the connection fell silent after 0 bytes of the answer: slow"
    with pytest.raises(KeyError):
        await anext(Reply(Said(KeyError())))
    with pytest.raises(StopAsyncIteration):
        await anext(Reply(Said(b"")))
    await reply.aclose()
    assert said.closed == 1


# ------------------------------------------------------------------ other people's errors


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_what_an_error_is_called() -> None:
    """By aiohttp itself, where a bridge renamed it."""
    names, library = exchange_module._names, exchange_module._library
    assert library(httpx.ReadError("x")) == "httpx"
    assert library(httpx2.ReadError("x")) == "httpx2"
    assert library(KeyError()) == "builtins"
    assert library(aiohttp.ServerTimeoutError()) == "aiohttp"
    lost = aiohttp.ServerDisconnectedError()
    assert "ServerDisconnectedError" in names(caused(httpx.ReadError("x"), lost))
    assert "ReadError" not in names(caused(httpx.ReadError("x"), lost))
    assert "ReadError" in names(caused(httpx.ReadError("x"), KeyError()))
    assert "ServerTimeoutError" in names(caused(aiohttp.ServerTimeoutError(), lost))
    assert "Exception" in names(KeyError())


class OfTheirs(httpx.ReadError):
    """A user's own, of a library's class."""


@pytest.mark.parametrize(
    ("error", "is_foreign"),
    [
        (OSError(), True),
        (ConnectionResetError(), True),
        (OverflowError(), True),
        (UnicodeError(), True),
        (ClosedError(), True),
        (OfTheirs("x"), True),
        (aiohttp.ClientError(), True),
        (anyio.ClosedResourceError(), True),
        (ExceptionGroup("x", [OSError(), OSError()]), True),
        (ExceptionGroup("x", [OSError(), KeyError()]), False),
        (KeyError(), False),
        (ValueError(), False),
    ],
)
def test_whose_error_it_is(error: Exception, is_foreign: bool) -> None:
    """The network's, or a library's that sends over it; anything else is somebody's bug."""
    assert exchange_module._is_foreign(error) is is_foreign


@pytest.mark.parametrize(
    ("error", "is_silence"),
    [
        (httpx.ReadTimeout("x"), True),
        (TimeoutError(), True),
        (httpx.ReadError("x"), False),
        (OSError(), False),
    ],
)
def test_what_is_silence(error: Exception, is_silence: bool) -> None:
    """Whatever calls itself that."""
    assert exchange_module._is_silence(error) is is_silence


@pytest.mark.parametrize(
    ("error", "stage", "kind", "message"),
    [
        (httpx.UnsupportedProtocol("no  such"), "connecting", InvalidRequestError,
         "this cannot be sent: no such"),
        (httpx.InvalidURL("bad"), "sending", InvalidRequestError, "this cannot be sent: bad"),
        (httpx.LocalProtocolError("bad"), "connecting", InvalidRequestError,
         "this cannot be sent: bad"),
        (OSError("saw s3cret"), "connecting", ConnectError, "cannot connect to h: saw [token]"),
        (OSError("could not connect to h: why"), "connecting", ConnectError,
         "cannot connect to h: why"),
        (OSError("why"), "sending", ConnectError,
         "the connection to h broke before the request was sent: why"),
        (httpx.ReadTimeout("why"), "running", APITimeoutError,
         "h sent nothing for 1.5 s after the request was sent"),
        (httpx.RemoteProtocolError("why"), "running", MalformedResponseError,
         "h did not answer in HTTP: why"),
        (caused(httpx.ReadError("why"), aiohttp.ClientResponseError(Any, ())),  # type: ignore[arg-type]
         "running", MalformedResponseError, "h did not answer in HTTP: why"),
        (httpx.RemoteProtocolError("it disconnected"), "running", ConnectionLostError,
         "the connection to h was lost after the request was sent: it disconnected"),
        (httpx.UnsupportedProtocol("why"), "running", ConnectionLostError,
         "the connection to h was lost after the request was sent: why"),
    ],
)  # fmt: skip
def test_what_an_error_means(
    error: Exception, stage: Any, kind: type[ProdiaError], message: str
) -> None:
    """First our own record, then the name."""
    sending = Sending()
    sending.stage, sending.may_have_run = stage, stage == "running"
    found = exchange_module._translate(error, "h", 1.5, sending, "s3cret")
    assert (type(found), found.message) == (kind, message)


def test_what_an_error_says() -> None:
    """In one line, without the secret, of bounded length; and its name where it says nothing."""
    describe = exchange_module._describe
    assert describe(KeyError("a\n  b"), "") == r"'a\n b'"
    assert describe(ValueError("a\n\tb  s3cret s3cret"), "s3cret") == "a b [token] [token]"
    assert describe(ValueError("x" * 301), "") == "x" * 300
    assert describe(ValueError(), "") == "ValueError"


def test_the_twin_of_an_error() -> None:
    """The system's and httpx's are of their own class, any other's name is kept in words."""
    twin = exchange_module._harmless

    class MyError(OSError):
        pass

    for error in (
        OSError(111, "x"), socket.gaierror(-2, "x"), ssl.SSLError(1, "x"), ConnectionError("x"),
    ):  # fmt: skip
        found = twin(error, "")
        assert (type(found), found.args) == (type(error), error.args)
        assert found is not error
    for other in (httpx.ReadError("saw s3cret"), httpx2.ReadError("saw s3cret")):
        found = twin(other, "s3cret")
        assert (type(found), str(found)) == (type(other), "saw [token]")

    class TheirError(Exception):
        __module__ = "httpx._exceptions"

    assert type(twin(TheirError(), "")) is TheirError
    for foreign, words in (
        (MyError(), f"{__name__}.{MyError.__qualname__}: MyError"),
        (KeyError("s3cret"), "builtins.KeyError: '[token]'"),
        (aiohttp.ClientOSError(1, "x"), "aiohttp.client_exceptions.ClientOSError: [Errno 1] x"),
    ):
        found = twin(foreign, "s3cret")
        assert (type(found), str(found)) == (ForeignError, words)
        assert found.__cause__ is None


def test_the_twins_of_causes() -> None:
    """Of the cause, else of what it came from; not where that was cut off; and only so many."""
    twin = exchange_module._harmless
    error = OSError("last")
    error.__context__ = KeyError("s3cret")
    assert str(twin(error, "s3cret").__cause__) == "builtins.KeyError: '[token]'"
    error.__suppress_context__ = True
    assert twin(error, "").__cause__ is None
    error.__cause__ = OSError("cause")
    assert str(twin(error, "").__cause__) == "cause"
    deep: BaseException = OSError("last")
    for _ in range(9):
        outer = OSError("outer")
        outer.__cause__ = deep
        deep = outer
    for start, kept in ((1, 5), (4, 2), (5, 1)):
        found: BaseException | None = twin(deep, "", start)
        count = 0
        while found is not None:
            found, count = found.__cause__, count + 1
        assert count == kept


def test_what_is_told_of_no_transport() -> None:
    """What was wanted, what came, and what was meant where that is known."""

    class ClientSession:
        pass

    wanted = "transport must be an httpx.AsyncBaseTransport (or httpx2's), not "
    session = "for a session: prodia_async.transports.aiohttp_transport(session=...)"
    for wrong, said in (
        (5, "int"),
        (ClientSession(), f"ClientSession; {session}"),
        (httpx.AsyncClient(), "AsyncClient; a client is given as http_client=..."),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            check_transport(wrong)
        assert caught.value.message == wanted + said
    with pytest.raises(InvalidRequestError) as caught:
        check_client(5)
    assert caught.value.message == (
        "http_client must be an httpx.AsyncClient (or httpx2's), not int"
    )


def test_whose_class_it_is_of() -> None:
    """By name and library, of an ancestor too; a name alone says nothing."""
    library_of = exchange_module._library_of

    class AsyncClient:
        pass

    assert library_of(Fake(takes=True, then=OSError()), "AsyncBaseTransport") is httpx
    assert library_of(httpx2.AsyncClient(), "AsyncClient") is httpx2
    assert library_of(httpx.AsyncClient(), "AsyncBaseTransport") is None
    assert library_of(AsyncClient(), "AsyncClient") is None
    AsyncClient.__module__ = "httpx._client"
    assert library_of(AsyncClient(), "AsyncClient") is httpx
