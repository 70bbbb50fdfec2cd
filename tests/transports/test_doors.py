"""The extra transports, beyond what every way to send has in common."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import ssl
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import anyio
import httpcore
import httpx
import pytest
import respx
import wire
from conftest import on_both_loops, until
from raw_server import GOOD_BODY, PICTURE, Conversation, RawServer, good, http, say
from test_conformance import CERTS, H2Server, trusting

from prodia_async import (
    AsyncProdia,
    ConnectError,
    ConnectionLostError,
    Input,
    InvalidRequestError,
    PayloadTooLargeError,
    ProdiaError,
    RetryPolicy,
    TruncatedResponseError,
)
from prodia_async._wire import Sending, sending_now
from prodia_async.transports import aiohttp_transport, http2_transport
from prodia_async.transports._streams import Frames, ProvenStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PING = {"type": "inference.ping.v1"}
MAKERS = pytest.mark.parametrize("make", [aiohttp_transport, http2_transport])


@pytest.fixture(autouse=True)
def _extras() -> None:
    for each in ("httpx_aiohttp", "h2"):
        pytest.importorskip(each)


def trusting_h2() -> ssl.SSLContext:
    """One of its own, for httpcore writes into it what it speaks."""
    return ssl.create_default_context(cafile=str(CERTS / "localhost.pem"))


def over_http2(server: RawServer, **options: Any) -> AsyncProdia:
    transport = http2_transport(ssl_context=trusting())
    return AsyncProdia("t", base_url=server.url, transport=transport, **options)


def over_aiohttp(server: RawServer, **options: Any) -> AsyncProdia:
    return AsyncProdia("t", base_url=server.url, transport=aiohttp_transport(), **options)


def test_importing_needs_neither() -> None:
    """The module itself loads no aiohttp (h2 is loaded by httpcore, where it is installed)."""
    code = (
        "import sys; import prodia_async.transports; "
        "sys.exit(bool({'aiohttp', 'httpx_aiohttp'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("make", "extra"), [(aiohttp_transport, "aiohttp"), (http2_transport, "http2")]
)
def test_a_missing_extra_is_named(
    make: Callable[[], object], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package the error says what to install."""
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in {"aiohttp", "httpx_aiohttp", "h2"}:
            raise ImportError(name)
        return real(name, *rest)

    for module in ("_aiohttp", "_http2"):  # where another test has imported them
        monkeypatch.delitem(sys.modules, f"prodia_async.transports.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=rf"pip install 'prodia-async\[{extra}\]'"):
        make()


@pytest.mark.parametrize(
    "options",
    [
        {"max_connections": None},
        {"max_connections": 0},
        {"max_connections": True},
        {"connect_timeout": 0},
        {"idle_timeout": -1},
    ],
)
@MAKERS
def test_arguments_out_of_range(make: Callable[..., object], options: dict[str, Any]) -> None:
    """Above all `None` connections, which httpx-aiohttp would take to be 100."""
    with pytest.raises(InvalidRequestError, match=next(iter(options))):
        make(**options)


def test_only_a_session_of_aiohttps() -> None:
    """A session of another library would fail at the first job, for which it is too late."""
    with pytest.raises(InvalidRequestError, match="ClientSession, not AsyncClient"):
        aiohttp_transport(session=httpx.AsyncClient())  # type: ignore[arg-type]  # the mistake


@MAKERS
async def test_a_closed_transport_says_so(make: Callable[..., httpx.AsyncBaseTransport]) -> None:
    """A request after the end is a mistake with a message."""
    transport = make()
    assert "0 in flight" in repr(transport)
    await transport.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await transport.handle_async_request(httpx.Request("GET", "http://127.0.0.1:1/"))


async def test_aiohttp_keeps_to_its_connections() -> None:
    """No more than `max_connections`, whatever is in flight; the others wait."""
    with RawServer() as server:
        transport = aiohttp_transport(max_connections=3)
        async with AsyncProdia("t", base_url=server.url, transport=transport) as prodia:
            await asyncio.gather(*(prodia.job(PING) for _ in range(30)))
        assert server.connections == 3
        assert server.charges == 30


@pytest.mark.parametrize("over", [over_aiohttp, over_http2])
async def test_a_mistake_in_an_input_is_the_callers(over: Callable[..., AsyncProdia]) -> None:
    """What a function of the user's raises comes out as it is, and nothing is charged."""

    async def fail() -> AsyncIterator[bytes]:
        yield bytes(100_000)
        raise LookupError("mine")

    async def too_few() -> AsyncIterator[bytes]:
        yield bytes(100_000)

    kind = H2Server if over is over_http2 else RawServer
    with kind() as server:
        async with over(server) as prodia:
            with pytest.raises(LookupError, match="mine"):
                await prodia.job(PING, inputs=[Input(fail, "a", size=200_000)])
            with pytest.raises(InvalidRequestError, match="its function made 100000"):
                await prodia.job(PING, inputs=[Input(too_few, "a", size=200_000)])
            assert prodia.statistics().in_flight == 0
            assert (await prodia.job(PING)).output.content == PICTURE
        assert server.charges == 1


async def test_aiohttp_is_cancelled_by_asyncio_too() -> None:
    """`asyncio.timeout` in the middle of an upload: out, and the input's function is ended."""
    ended = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        try:
            yield bytes(100_000)
            await asyncio.Event().wait()
        finally:
            ended.set()

    with RawServer() as server:
        async with over_aiohttp(server) as prodia:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await prodia.job(PING, inputs=[Input(slow, "a", size=200_000)])
            assert ended.is_set()
            assert prodia.statistics().in_flight == 0
            await until(lambda: server.open == 0)


async def test_aiohttp_uses_a_connection_again_without_an_upload() -> None:
    """A GET has nothing to send, so it is over with its answer; a whole answer stays whole."""
    async with wire.Server().running() as server:
        transport = aiohttp_transport()
        for _ in range(2):
            request = httpx.Request("GET", server.url)
            response = await transport.handle_async_request(request)
            assert await response.aread() == b"ok"
            with pytest.raises(StopAsyncIteration):
                await anext(aiter(cast("httpx.AsyncByteStream", response.stream)))
        assert len(server.writers) == 1
        await transport.aclose()


async def test_aiohttp_closed_with_an_answer_half_read() -> None:
    """Its connection goes, be the session the user's; and half of it is not taken for all."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"
    async with aiohttp.ClientSession() as session:
        async with wire.Server(half).running() as server:
            transport = aiohttp_transport(session=session)
            response = await transport.handle_async_request(wire.post(server.url))
            stream = aiter(cast("httpx.AsyncByteStream", response.stream))
            assert await anext(stream) == b"abc"
            await transport.aclose()
            with pytest.raises(httpx.ReadError, match="closed"):
                await anext(stream)
            await wire.until(lambda: server.open == 0)
        assert not session.closed


async def test_aiohttp_closed_as_an_answer_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same turn of the loop: it is an error, and the connection goes."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"
    async with aiohttp.ClientSession() as session, wire.Server(half).running() as server:
        transport = aiohttp_transport(session=session)
        error = await wire.closed_as_an_answer_comes(
            transport, server.url, aiohttp.client_proto.ResponseHandler, monkeypatch
        )
        await wire.until(lambda: server.open == 0)
        assert error.__cause__ is not None


@pytest.mark.parametrize("pauses", [True, False])
async def test_aiohttp_has_an_answer_that_ends_an_upload(pauses: bool) -> None:
    """It comes whole, wherever the upload was: between two pieces, or in one that nobody takes."""
    answered = asyncio.Event()
    made = ended = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal made, ended
        try:
            for _ in range(1000):
                made += 1
                yield bytes(100_000)
                if pauses:
                    await asyncio.Event().wait()
        finally:
            ended += 1

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nno")
        await answered.wait()
        with contextlib.suppress(TimeoutError):  # room for more of it, which is not to come
            while True:
                await asyncio.wait_for(reader.read(1_000_000), 0.1)
        writer.write(b"pe")

    async with wire.scripted(script) as server:
        transport = aiohttp_transport()
        response = await transport.handle_async_request(wire.post(server.url, body(), write=5.0))
        assert (response.status_code, ended) == (413, pauses)
        taken = made
        answered.set()
        assert await response.aread() == b"nope"
        assert made == taken < 1000
        # Nobody knows what the server left of it: the next request takes another connection.
        response = await transport.handle_async_request(wire.post(server.url))
        await transport.aclose()
        assert len(server.writers) == 2


# ------------------------------------------------------------------ HTTP/2


async def test_without_http2_it_is_http_1() -> None:
    """A server that does not offer HTTP/2 is spoken to in HTTP/1.1, and kept."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")

    def encrypt(conversation: Conversation) -> bool:
        conversation.socket = context.wrap_socket(conversation.socket, server_side=True)
        return True

    with RawServer(on_connect=encrypt) as server:
        transport = http2_transport(ssl_context=trusting())
        url = server.url.replace("http:", "https:")
        async with AsyncProdia("t", base_url=url, transport=transport) as prodia:
            for _ in range(3):
                assert (await prodia.job(PING)).output.content == PICTURE
        assert (server.connections, server.charges) == (1, 3)


async def test_an_answer_given_up_does_not_hurt_its_neighbours() -> None:
    """The connection takes no more requests, and is closed when the last on it is answered."""
    go = threading.Event()

    def late(conversation: Conversation) -> None:
        go.wait(5)
        good(conversation)

    def silent(conversation: Conversation) -> None:
        conversation.stall()

    with H2Server([late]) as server:
        async with over_http2(server) as prodia:
            neighbour = asyncio.create_task(prodia.job(PING))
            await until(lambda: len(server.requests) == 1)
            server.replies.append(silent)
            with anyio.move_on_after(0.2):
                await prodia.job(PING)
            assert (await prodia.job(PING)).output.content == PICTURE
            assert (server.connections, server.open) == (2, 2)
            go.set()
            assert (await neighbour).output.content == PICTURE
            await until(lambda: server.open == 1)
        assert (len(server.requests), server.charges) == (3, 2)


async def test_many_answers_given_up() -> None:
    """The flow window of a connection is never used up by what nobody reads."""
    large = http(body=GOOD_BODY + bytes(1_000_000))
    with H2Server([say(large)] * 40) as server:
        async with over_http2(server) as prodia:
            for _ in range(40):
                async with prodia.stream(PING) as stream:
                    await anext(aiter(stream))
            assert (await prodia.job(PING)).output.content == PICTURE
            await until(lambda: server.open == 1)


def resetting(answer: bytes, code: int) -> Callable[[Conversation], None]:
    """A server that answers an upload before it has it, and wants no more of it (RFC 9113, 8.1)."""

    def reply(conversation: Any) -> None:
        if b" 200 " in answer[:20]:
            conversation.charge()
        conversation.send(answer)
        connection = conversation._connection
        with connection._turn:
            connection.h2.reset_stream(conversation._stream, code)
            connection._flush()

    return reply


@pytest.mark.parametrize("code", [0, 8])
async def test_an_answer_that_is_followed_by_a_reset_is_had(code: int) -> None:
    """A server of HTTP/2 need not read on to be heard: neither a refusal nor a success is lost."""
    busy = http("429 Busy", b"no", "retry-after: 0", content_type="text/plain")
    server = H2Server([resetting(busy, code), resetting(http(), code)], at_head=True, reads_on=True)
    taken = 0

    async def make() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(300):
            taken += 1
            yield bytes(100_000)

    with server:
        async with over_http2(server) as prodia:
            inputs = [Input(make, "a.bin", size=30_000_000)]
            response = await prodia.job(PING, inputs=inputs)
            assert [each.fate for each in response.attempts] == ["not run", "succeeded"]
            assert response.output.content == PICTURE
            assert taken < 100  # of 600: nobody wanted the rest
            refusal = http("413 Large", b"too large", content_type="text/plain")
            server.replies[:] = [resetting(refusal, code)]
            with pytest.raises(PayloadTooLargeError):
                await prodia.job(PING, inputs=inputs)
        assert (server.connections, server.charges) == (1, 1)


async def test_a_client_of_the_users_that_loses_such_an_answer_pays_once() -> None:
    """Httpx keeps it to itself; what we know is that it may have been there."""
    server = H2Server([resetting(http(), 0)] * 9, at_head=True, reads_on=True)
    with server:
        async with httpx.AsyncClient(http2=True, verify=trusting_h2()) as own:
            options: dict[str, Any] = {"http_client": own, "timeout": 0.5}
            async with AsyncProdia("t", base_url=server.url, **options) as prodia:
                with pytest.raises(ProdiaError) as caught:
                    await prodia.job(PING, inputs=[Input(bytes(3_000_000), "a.bin")])
    assert caught.value.may_have_run
    assert (len(caught.value.attempts), server.charges) == (1, 1)


async def test_a_reset_alone_breaks_an_upload_off() -> None:
    """Without an answer it is a request that was never there in whole, and no mistake of ours."""

    def reply(conversation: Any) -> None:
        connection = conversation._connection
        with connection._turn:
            connection.h2.reset_stream(conversation._stream, 2)
            connection._flush()

    server = H2Server([reply], at_head=True, reads_on=True)
    with server:
        async with over_http2(server, retry=RetryPolicy(max_attempts=1), timeout=0.5) as prodia:
            with pytest.raises(ConnectError) as caught:
                await prodia.job(PING, inputs=[Input(bytes(3_000_000), "a.bin")])
    assert not caught.value.may_have_run


def frame(kind: int, stream: int, payload: bytes, flags: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


class Wire(httpcore.AsyncNetworkStream):
    """A connection on which one frame after another comes in."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [*pieces, b""]

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del max_bytes, timeout
        return self.pieces.pop(0)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del buffer, timeout


async def test_whose_stream_has_ended() -> None:
    """Streams are numbered by each connection: what another one's is called says nothing."""
    sending = Sending()
    sending.stream = 5
    sending_now.set(sending)
    end, reset = frame(1, 5, b"", 5), frame(3, 5, bytes(4))
    mine = ProvenStream(Wire(end[:4], end[4:], reset))
    await mine.write(b"PRI * HTTP/2.0")
    other = ProvenStream(Wire(end, reset))
    await other.write(b"PRI * HTTP/2.0")
    assert [await other.read(1), await other.read(1)] == [end, frame(8, 5, b"@\0\0\0")]
    await other.write(b"")
    assert (sending.may_have_run, sending.is_answered) == (False, False)
    assert await mine.read(1) == end  # no piece is empty but the last
    await mine.write(b"")
    assert (sending.may_have_run, sending.is_answered) == (True, False)
    await mine.read(1)
    await mine.write(b"")
    assert (sending.may_have_run, sending.is_answered) == (True, True)
    assert await mine.read(1) == b""


def test_only_a_reset_behind_an_answer_is_read_as_leave() -> None:
    """However the bytes are cut; what went before and comes after is as it was."""
    reset = frame(3, 5, bytes(4))
    leave, more = frame(8, 5, (2**30).to_bytes(4)), frame(8, 5, (1).to_bytes(4))
    before = frame(4, 0, b"") + reset + frame(1, 5, b"head") + reset + frame(0, 5, bytes(300), 0)
    end = frame(0, 5, b"x" * 20, 1)
    others = frame(3, 7, bytes(4)) + frame(0, 7, b"\x00\x00\x04\x03" * 9)
    sent = before + end + reset + others + reset + frame(1, 9, b"h", 5) + frame(3, 9, bytes(4))
    seen = before + end + leave + others + more + frame(1, 9, b"h", 5) + frame(8, 9, b"\x40\0\0\0")
    for size in (*range(1, 40), len(sent)):
        frames = Frames()
        pieces = [frames.receive(sent[at : at + size]) for at in range(0, len(sent), size)]
        assert b"".join(pieces) == seen
    frames = Frames()
    frames.receive(end)
    for stream in range(11, 11 + 2 * 400, 2):
        frames.receive(frame(0, stream, b"", 1))
    assert len(frames.ended) == 256
    assert frames.receive(reset) == reset  # its answer is long forgotten


@pytest.mark.parametrize("fault", ["reset_stream", "close_connection"])
async def test_a_stream_that_the_server_ends(fault: str) -> None:
    """RST_STREAM and GOAWAY after the request: it may have run, and is not sent again."""

    def break_off(answer: Any) -> None:
        connection = answer._connection
        with connection._turn:
            (connection.h2.reset_stream(1) if fault == "reset_stream"
             else connection.h2.close_connection())  # fmt: skip
            connection._flush()
        answer.stall()

    with H2Server([break_off]) as server:
        async with over_http2(server) as prodia:
            with pytest.raises(ConnectionLostError, match="broke off") as caught:
                await prodia.job(PING)
        assert caught.value.may_have_run
        assert len(server.requests) == 1


async def test_what_is_no_http2_in_the_middle_of_an_answer() -> None:
    """The job may have run, and is not sent again; the next one takes another connection."""
    begun = threading.Event()

    def spoil(answer: Any) -> None:
        answer.charge()
        answer.send(http()[:-100])
        begun.wait(5)
        with answer._connection._turn:
            answer._connection._tls.sendall(frame(9, 1, b"a continuation of nothing"))
        answer.stall()

    with H2Server([spoil]) as server:
        async with over_http2(server) as prodia:
            with pytest.raises(TruncatedResponseError) as caught:
                async with prodia.stream(PING) as stream:
                    begun.set()
                    async for _ in stream:
                        pass
            assert isinstance(caught.value.__cause__, httpx.RemoteProtocolError)
            assert caught.value.may_have_run
            assert (await prodia.job(PING)).output.content == PICTURE
        assert (server.connections, server.charges) == (2, 2)


@on_both_loops
async def test_a_server_that_says_goodbye_behind_an_answer() -> None:
    """The answer is had, and the next request takes another connection at once."""

    def goodbye(answer: Any) -> None:
        connection = answer._connection
        with connection._turn:
            connection.h2.send_headers(1, [(":status", "200")])
            connection.h2.send_data(1, b"ok", end_stream=True)
            connection.h2.close_connection()
            connection._flush()

    with H2Server([goodbye, goodbye]) as server:
        transport = http2_transport(ssl_context=trusting_h2())
        for _ in range(2):
            assert await wire.fetch(transport, server.url) == (200, b"ok")
        await transport.aclose()
    assert (server.connections, len(server.requests)) == (2, 2)


# ------------------------------------------------------------------ respx


@pytest.mark.parametrize(
    ("using", "seen"),
    [("httpcore", {"default", "http2", "http_client"}), ("httpx", {"http_client"})],
)
async def test_what_respx_sees(using: str, seen: set[str]) -> None:
    """The module says which ways to send a user's `respx.mock` intercepts; it is so."""
    content = PICTURE + b"IEND\xaeB`\x82"
    answer = httpx.Response(200, content=content, headers={"content-type": "image/png"})
    url = "https://nowhere.invalid"
    ways: dict[str, dict[str, Any]] = {
        "default": {},
        "http2": {"transport": http2_transport()},
        "aiohttp": {"transport": aiohttp_transport()},
        "http_client": {"http_client": httpx.AsyncClient()},
    }
    found = set()
    with respx.mock(using=using, assert_all_called=False) as mock:
        mock.post(f"{url}/v2/job").mock(return_value=answer)
        for name, options in ways.items():
            retry = RetryPolicy(max_attempts=1)
            async with AsyncProdia("t", base_url=url, retry=retry, **options) as prodia:
                with contextlib.suppress(ConnectError):
                    await prodia.job(PING, multipart=False)
                    found.add(name)
    assert found == seen
    await ways["http_client"]["http_client"].aclose()
