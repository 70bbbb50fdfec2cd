"""One exchange: what it came to is our own record's to say, whoever sends."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import httpx
import httpx2
import pytest
from conftest import on_both_loops, until
from raw_server import PICTURE, Conversation, RawServer, good, http, say

from prodia_async import (
    APITimeoutError,
    AsyncProdia,
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
from prodia_async._exchange import ForeignError, Sender, check_client, check_transport
from prodia_async._uploads import BytesBody
from prodia_async._wire import Sending, WireRequest
from prodia_async.fireworks import AsyncFireworks
from prodia_async.transports import _http1, default_transport
from prodia_async.transports._direct import DirectTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PING = {"type": "inference.ping.v1"}
ONCE = RetryPolicy(max_attempts=1)
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


async def test_the_start_of_a_body_outlives_who_reads_it() -> None:
    """What came of an error's body is there, though reading it was cut off."""

    def stalls(conversation: Conversation) -> None:
        conversation.send(http("400 No", b"bad prompt", length=100, content_type="text/plain"))
        conversation.stall()

    with RawServer([stalls, say(http("400 No", b"abcdef"))]) as server:
        sender = Sender(server.url, transport=DirectTransport())
        reply = await sender.send(POST, "", Sending(), 60.0)
        with anyio.move_on_after(0.1):
            await reply.read_start(1_000)
        assert reply.start == b"bad prompt"
        await reply.aclose()
        reply = await sender.send(POST, "", Sending(), 60.0)
        assert await reply.read_start(3) == b"abc"
        await reply.aclose()
        await sender.aclose()


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
