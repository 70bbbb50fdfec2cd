"""The default way to send: which connection a request takes, and what becomes of it."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import anyio
import httpx
import pytest
import respx
from raw_server import Conversation, RawServer
from wire import (
    CHUNKED,
    OK,
    Server,
    all_closed,
    answering,
    client_tls,
    counts,
    fetch,
    post,
    read_request,
    reset,
    scripted,
    server_tls,
    sized,
    until,
)

from prodia_async._wire import Order, Sending, Target
from prodia_async.transports import (
    _direct,
    _http1,
    _network,
    _sharded,
)
from prodia_async.transports._direct import DirectTransport
from prodia_async.transports._http1 import Answer, Connection
from prodia_async.transports._parsers import PARSERS
from prodia_async.transports._sharded import ShardedTransport


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().running() as server:
        yield server


def in_use(transport: DirectTransport) -> set[Connection]:
    return set() if transport._pool is None else transport._pool.in_use


@pytest.fixture(params=PARSERS)
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[DirectTransport]:
    transport = DirectTransport(ssl_context=client_tls(), parser=request.param)
    yield transport
    await transport.aclose()


@pytest.fixture
def threaded_server() -> Iterator[tuple[str, list[Any]]]:
    """The URL and the connections of a server whose own loop outlives the client's."""
    loop = asyncio.new_event_loop()
    server = Server()
    started = threading.Event()
    ended: asyncio.Future[None] = loop.create_future()

    async def main() -> None:
        async with server.running():
            started.set()
            await ended

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    started.wait()
    yield server.url, server.writers
    loop.call_soon_threadsafe(ended.set_result, None)
    thread.join()
    loop.close()


# --- the stack


async def test_a_connection_is_used_again(server: Server, transport: DirectTransport) -> None:
    """Requests one after another share one connection."""
    assert counts(transport) == (0, 0, 0)
    for _ in range(5):
        assert await fetch(transport, server.url) == (200, b"ok")
    assert counts(transport) == (1, 0, 1)
    assert repr(transport) == "<DirectTransport 0 in use, 1 idle, 1 opened>"


async def test_never_more_connections_than_requests(
    server: Server, transport: DirectTransport
) -> None:
    """Fifty workers never have more than fifty connections, whatever they do."""

    async def worker() -> None:
        for _ in range(10):
            await fetch(transport, server.url)

    await asyncio.gather(*[worker() for _ in range(50)])
    assert transport.statistics().opened <= 50
    assert transport.statistics().in_use == 0
    assert len(server.requests) == 500


async def test_in_an_httpx_client(server: Server) -> None:
    """It serves as the transport of an `httpx.AsyncClient`."""
    async with httpx.AsyncClient(transport=DirectTransport()) as client:
        response = await client.post(server.url, json={"type": "x"})
        assert response.text == "ok"
        assert b'{"type":"x"}' in server.requests[0]


async def test_origins_do_not_mix(transport: DirectTransport) -> None:
    """A connection is used again only for the origin it was opened to."""
    async with Server(answer=OK).running() as one, Server(answer=OK).running() as two:
        for server in (one, two, one, two):
            await fetch(transport, server.url)
        assert counts(transport) == (2, 0, 2)
        assert len(one.requests) == len(two.requests) == 2


async def test_tls(transport: DirectTransport) -> None:
    """TLS works, is used again, and hands out more than 64 KB at a time."""
    body = os.urandom(3_000_000)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with Server(answer).running(ssl=server_tls()) as server:
        url = f"https://localhost:{server.port}/"
        response = await transport.handle_async_request(post(url))
        chunks = [chunk async for chunk in response.aiter_raw()]
        assert b"".join(chunks) == body
        assert max(map(len, chunks)) > 64 * 1024
        assert (await fetch(transport, url))[1] == body
        assert counts(transport) == (1, 0, 1)


# --- idle connections


@pytest.mark.parametrize("how", ["closed", "spoke"])
async def test_a_stale_connection_leaves_the_stack(
    how: str, server: Server, transport: DirectTransport
) -> None:
    """An idle connection that the server closes, or speaks on unasked, is dropped at once."""
    await fetch(transport, server.url)
    if how == "closed":
        server.writers[0].close()
    else:
        server.writers[0].write(OK)
    await until(lambda: counts(transport) == (1, 0, 0))
    assert await fetch(transport, server.url) == (200, b"ok")
    assert len(server.requests) == 2


async def test_a_stale_connection_is_noticed_before_the_loop_hears_of_it(
    transport: DirectTransport,
) -> None:
    """An end that lies in the socket, unfetched, is seen before anything is written."""
    served = []

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                served.append(connection.recv(65536))
                connection.sendall(OK)
                closing.wait(5)

    closing = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        await fetch(transport, url)
        assert counts(transport) == (1, 0, 1)
        connection = next(iter(next(iter(transport._pool.idle.values()))))  # type: ignore[union-attr]  # in use
        closing.set()
        while not connection.is_stale():
            pass  # without a turn of the loop
        assert await fetch(transport, url) == (200, b"ok")
        thread.join()
    assert len(served) == counts(transport)[0] == 2


async def test_idle_connections_expire(server: Server) -> None:
    """Connections idle for longer than the limit are closed, the others stay until theirs."""
    transport = DirectTransport(idle_timeout=0.05)
    await fetch(transport, server.url)
    await until(lambda: server.open == 0)
    assert counts(transport) == (1, 0, 0)
    await fetch(transport, server.url)
    assert counts(transport) == (2, 0, 1)
    await transport.aclose()


async def test_the_sweep_spares_the_younger(server: Server) -> None:
    """A sweep closes what is over the limit and comes again for the rest."""
    transport = DirectTransport(idle_timeout=30)
    await asyncio.gather(*[fetch(transport, server.url) for _ in range(3)])
    lines = transport._pool
    assert lines is not None
    oldest = next(iter(next(iter(lines.idle.values()))))
    oldest.idle_since -= 30
    lines._sweep()
    assert counts(transport) == (3, 0, 2)
    assert lines._sweeper is not None
    await transport.aclose()
    await until(lambda: server.open == 0)


# --- what an answer must be, for its connection to be used again


@pytest.mark.parametrize(
    ("answer", "body", "idle"),
    [
        (OK, b"ok", 1),
        (OK + b"more", b"ok", 0),
        (OK + OK, b"ok", 0),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"ok", 1),
        (CHUNKED + b"0\r\n\r\n", b"", 1),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\nHTTP/1.1 200", b"ok", 0),
        (CHUNKED + b"2\r\nok\r\n0\r\nA: b\r\n\r\n", b"ok", 1),
        (CHUNKED + b"0\r\n\r\n" + CHUNKED + b"0\r\n\r\n", b"", 0),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", 0),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n" + OK, b"ok", 1),
        (b"HTTP/1.1 204 None\r\n\r\n", b"", 1),
        (b"HTTP/1.1 204 None\r\n\r\nx", b"", 0),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + CHUNKED[17:] + b"2\r\nok\r\n0\r\n\r\n",
            b"ok",
            0,
        ),
    ],
)
@pytest.mark.parametrize("dripped", [False, True])
async def test_only_a_whole_answer_keeps_its_connection(
    answer: bytes, body: bytes, idle: int, dripped: bool, transport: DirectTransport
) -> None:
    """One byte too many, and the connection goes: it would begin the next answer."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for byte in answer:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    server = Server(script=drip) if dripped else Server(answer)
    async with server.running():
        assert (await fetch(transport, server.url))[1] == body
        if idle == 0:
            await until(lambda: server.open == 0)
        assert counts(transport) == (1, 0, idle)


async def test_an_answer_closed_early_closes_its_connection(transport: DirectTransport) -> None:
    """Whoever does not want the rest gets rid of the connection too, read from or not."""
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(300_000)
    async with Server(body).running() as server:
        for wanted in (0, 1):
            response = await transport.handle_async_request(post(server.url))
            chunks = response.aiter_raw()
            for _ in range(wanted):
                await anext(chunks)
            assert counts(transport)[1:] == (1, 0)
            await response.aclose()
            await response.stream.aclose()  # type: ignore[union-attr]  # a second time is nothing
            await until(lambda: server.open == 0)
            assert counts(transport)[1:] == (0, 0)


async def test_closed_while_another_task_reads(transport: DirectTransport) -> None:
    """Closing an answer ends the read that waits for more of it."""
    async with Server(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").running() as server:
        response = await transport.handle_async_request(post(server.url))
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        reading = asyncio.ensure_future(anext(aiter(stream)))
        await anyio.wait_all_tasks_blocked()
        await stream.aclose()
        with pytest.raises(httpx.ReadError):
            await reading


async def test_a_forgotten_answer_closes_its_connection(transport: DirectTransport) -> None:
    """An answer that nobody holds any more does not keep its connection."""
    async with Server().running() as server:
        response = await transport.handle_async_request(post(server.url))
        del response
        gc.collect()
        await until(lambda: server.open == 0)
        assert counts(transport) == (1, 0, 0)


# --- faults


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200", httpx.RemoteProtocolError),
        (b"garbage\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", httpx.RemoteProtocolError),
        (CHUNKED + b"5\r\nab", httpx.RemoteProtocolError),
        (CHUNKED + b"zz\r\n", httpx.RemoteProtocolError),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            httpx.RemoteProtocolError,
        ),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000 + b"\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000, httpx.RemoteProtocolError),
    ],
)
async def test_a_bad_answer(
    answer: bytes, error: type[Exception], transport: DirectTransport
) -> None:
    """Cut, garbled or endless: an httpx error with its request and cause, and no connection."""
    async with answering(answer) as server:
        with pytest.raises(error) as caught:
            await fetch(transport, server.url)
        assert isinstance(caught.value, httpx.RequestError)
        assert str(caught.value.request.url) == server.url
        assert counts(transport) == (1, 0, 0)


async def test_a_few_thousand_interim_answers_are_passed_over(transport: DirectTransport) -> None:
    """2,000 times 100 Continue is strange but bounded; the answer after it counts."""
    async with Server(b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000 + OK).running() as server:
        assert await fetch(transport, server.url) == (200, b"ok")


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"])
async def test_reset(sent: bytes, transport: DirectTransport) -> None:
    """A reset before or within the answer is a ReadError; the request was written once."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(sent)
        await asyncio.sleep(0.02 if sent else 0)
        reset(writer)

    async with scripted(script) as server:
        with pytest.raises(httpx.ReadError) as caught:
            await fetch(transport, server.url)
        assert caught.value.request.method == "POST"
        assert len(server.writers) == 1


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"])
async def test_silence(sent: bytes, transport: DirectTransport) -> None:
    """Silence before or within the answer is a ReadTimeout."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(sent)

    async with scripted(script) as server:
        with pytest.raises(httpx.ReadTimeout):
            await fetch(transport, server.url, read=0.05)
        await until(lambda: server.open == 0)


async def test_each_chunk_starts_the_clock_anew(transport: DirectTransport) -> None:
    """An answer may take longer than the limit of silence, if it is never silent that long."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in (OK[:20], OK[20:30], OK[30:-1], OK[-1:]):
            await asyncio.sleep(0.1)
            writer.write(piece)

    async with scripted(script) as server:
        assert await fetch(transport, server.url, read=0.3) == (200, b"ok")


async def test_nobody_there(transport: DirectTransport) -> None:
    """A refused connection is a ConnectError with its request."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(httpx.ConnectError) as caught:
            await fetch(transport, f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert caught.value.request is not None
    assert counts(transport) == (0, 0, 0)


async def test_connect_timeouts() -> None:
    """The transport's limit holds where the request has none; it covers the handshake."""
    transport = DirectTransport(connect_timeout=0.05, ssl_context=client_tls())
    async with Server().running() as server:
        url = f"https://127.0.0.1:{server.port}/"
        with pytest.raises(httpx.ConnectTimeout):
            await fetch(transport, url, read=60)
        transport = DirectTransport(connect_timeout=None, ssl_context=client_tls())
        with pytest.raises(httpx.ConnectTimeout):
            await fetch(transport, url, connect=0.05)
        await until(lambda: server.open == 0)


async def test_what_cannot_be_sent(server: Server, transport: DirectTransport) -> None:
    """A wrong scheme, a sync body, a bad header: refused, and idle connections stay."""
    await fetch(transport, server.url)
    with pytest.raises(httpx.UnsupportedProtocol, match="ftp"):
        await fetch(transport, "ftp://127.0.0.1/")
    with pytest.raises(TypeError, match="async body"):
        await fetch(transport, server.url, content=iter([b"x"]))
    request = httpx.Request("POST", server.url, headers={"x": "a\nb"})
    with pytest.raises(httpx.LocalProtocolError):
        await transport.handle_async_request(request)
    assert len(server.requests) == 1


# --- the edges


async def test_a_connection_that_dies_before_the_first_byte_is_replaced(
    transport: DirectTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the first byte: another is used, the request is sent once."""
    talking: list[Conversation] = []
    gone = threading.Event()

    def reply(conversation: Conversation) -> None:
        conversation.charge()
        conversation.send(OK)
        talking.append(conversation)
        gone.wait(5)  # or it would read on, and hold the socket

    def reset_it(_: _http1.Connection) -> bool:
        while talking:
            talking.pop().reset()
            gone.set()  # the kernel knows, and the loop does not: `send` fails
        return False

    with RawServer([reply] * 3) as server:
        assert await fetch(transport, server.url) == (200, b"ok")
        await until(lambda: talking)
        monkeypatch.setattr(_http1.Connection, "is_stale", reset_it)
        assert await fetch(transport, server.url) == (200, b"ok")
        assert (server.charges, server.connections) == (2, 2)
        # One that ended in our own half is replaced too.
        monkeypatch.setattr(
            _http1.Connection, "is_stale", lambda self: self.end(OSError("gone")) is not None
        )
        assert await fetch(transport, server.url) == (200, b"ok")
        assert (server.charges, server.connections) == (3, 3)


async def test_a_new_connection_that_ends_before_the_first_byte(
    server: Server, transport: DirectTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not used for anything, and the error says so; so does one closed meanwhile."""
    real = _network.dial

    async def end(*args: Any, **kwargs: Any) -> Any:
        connection = await real(*args, **kwargs)
        connection.end(error)
        return connection

    monkeypatch.setattr(_http1, "dial", end)
    for error, kind in (  # noqa: B007  (`end` uses it)
        (None, httpx.WriteError),
        (OSError("why"), httpx.WriteError),
        (httpx.RemoteProtocolError("before the request"), httpx.RemoteProtocolError),
    ):
        with pytest.raises(kind):
            await fetch(transport, server.url)

    async def close(*args: Any, **kwargs: Any) -> Any:
        connection = await real(*args, **kwargs)
        transport._pool.is_closed = True  # type: ignore[union-attr]  # it is there
        return connection

    monkeypatch.setattr(_http1, "dial", close)
    with pytest.raises(httpx.ConnectError, match="closed"):
        await fetch(transport, server.url)
    assert server.requests == []


async def test_a_reader_that_comes_late_gets_all(transport: DirectTransport) -> None:
    """What is not read stays with the server, above 512 KB, and comes when it is asked for."""
    body = os.urandom(5_000_000)
    async with Server(sized(body)).running() as server:
        response = await transport.handle_async_request(post(server.url))
        await asyncio.sleep(0.1)
        (connection,) = transport._pool.in_use  # type: ignore[union-attr]  # it is there
        assert connection.response is not None
        assert 256 * 1024 < connection.response.unread <= 512 * 1024
        assert await response.aread() == body
        await response.aclose()
        assert counts(transport) == (1, 0, 1)
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        assert [chunk async for chunk in stream] == []


async def test_a_shorter_silence_on_a_used_connection(transport: DirectTransport) -> None:
    """The clock of an earlier, more patient request does not count for the next."""
    replies = iter([OK, b""])

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in replies:
            await read_request(reader)
            await asyncio.sleep(0.02)
            writer.write(answer)

    async with scripted(script) as server:
        await fetch(transport, server.url, read=60)
        with pytest.raises(httpx.ReadTimeout, match=r"0\.05"):
            await fetch(transport, server.url, read=0.05)


async def test_requests_of_httpx_in_every_shape(server: Server, transport: DirectTransport) -> None:
    """Chunks of nothing are no end; a length that lies is refused before a byte is sent."""

    async def chunks() -> AsyncIterator[bytes]:
        for each in (b"a", b"", b"b"):
            yield each

    await fetch(transport, server.url, chunks())
    assert server.requests[0].endswith(b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n")
    request = httpx.Request("POST", server.url, content=b"abc", headers={"content-length": "2"})
    with pytest.raises(httpx.LocalProtocolError, match="as long as"):
        await transport.handle_async_request(request)
    bad = httpx.Request("GET", server.url, headers={"x": "a\r\nb: c"})
    with pytest.raises(httpx.LocalProtocolError, match="line end"):
        await transport.handle_async_request(bad)
    assert len(server.requests) == 1


async def test_streams_of_httpx_without_a_length(
    server: Server, transport: DirectTransport
) -> None:
    """One that makes nothing is no body; of one that does nothing is dropped without a word."""

    class Stream(httpx.AsyncByteStream):
        def __init__(self, *pieces: bytes) -> None:
            self.pieces = pieces

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for each in self.pieces:
                yield each

    for _ in range(2):
        request = httpx.Request("GET", server.url, stream=Stream())
        response = await transport.handle_async_request(request)
        assert await response.aread() == b"ok"
    assert (len(server.requests), len(server.writers)) == (2, 1)
    with pytest.raises(httpx.LocalProtocolError, match="longer"):
        await transport.handle_async_request(httpx.Request("GET", server.url, stream=Stream(b"x")))


async def test_an_error_of_the_socket_comes_without_its_frames() -> None:
    """Asyncio's frames hold what was being sent, and with it the token."""
    wire = _network.Wire(asyncio.get_running_loop())
    try:
        raise ConnectionResetError
    except ConnectionResetError as error:
        wire.connection_lost(error)
    assert wire.error is not None
    assert wire.error.__traceback__ is None


def test_the_head_does_not_show_itself() -> None:
    """The token is in it."""
    head = _direct._Head(b"authorization: secret")
    assert "secret" not in repr(head)


def test_without_httpcore_nobody_mocks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It need not be there."""
    monkeypatch.delitem(sys.modules, "httpcore")
    assert not _direct.httpcore_is_mocked()


async def test_closed_and_abandoned_while_mocked(transport: DirectTransport) -> None:
    """What respx answered leaves nothing, and a closed transport is closed under it too."""
    with respx.mock:
        respx.post("https://example.test/").respond(200)
        await fetch(transport, "https://example.test/")
        transport.abandon()
        await fetch(transport, "https://example.test/")
        await transport.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await fetch(transport, "https://example.test/")


# --- uploads


async def pieces_of(size: int, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(size)


@pytest.mark.parametrize("then", ["reads on", "resets"])
async def test_an_early_refusal_is_seen(then: str, transport: DirectTransport) -> None:
    """413 before the upload was read is the answer, whatever the server does after it."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(100_000)
        writer.write(refusal)
        await writer.drain()
        while then == "reads on" and await reader.read(65536):
            pass
        await asyncio.sleep(0.02)
        reset(writer)

    async with scripted(script) as server:
        body = pieces_of(100_000, 500)
        assert await fetch(transport, server.url, body) == (413, b"no!")
        assert counts(transport) == (1, 0, 0)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("kind", [DirectTransport, ShardedTransport])
async def test_an_answer_is_read_before_a_write_can_fail_over_it(
    kind: type[Any], tls: bool
) -> None:
    """A server that has refused and gone while the body was made is heard, though it resets."""
    answer = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!"
    has_gone = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        if tls:
            connection = server_tls().wrap_socket(connection, server_side=True)
        while not connection.recv(65536).endswith(b"\r\n\r\n"):
            pass
        connection.sendall(answer)
        connection.close()
        has_gone.set()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(50):
            has_gone.wait(5)  # on the loop, which therefore reads nothing
            yield bytes(10_000)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        transport = kind(ssl_context=client_tls())
        host = "https://localhost" if tls else "http://127.0.0.1"
        url = f"{host}:{listener.getsockname()[1]}/"
        assert await fetch(transport, url, body()) == (413, b"no!")
        await transport.aclose()
        thread.join(5)


async def test_a_slow_body_just_waits(server: Server, transport: DirectTransport) -> None:
    """The source of the body may take its time; no limit of silence counts it."""
    gate = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        await gate.wait()
        yield b"b"

    asyncio.get_running_loop().call_later(0.15, gate.set)
    assert await fetch(transport, server.url, body(), read=0.1, write=0.1) == (200, b"ok")


async def test_an_upload_that_nobody_reads(transport: DirectTransport) -> None:
    """An upload that the server does not take is a WriteTimeout."""

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a full transport
        await asyncio.Event().wait()

    async with scripted(script) as server:
        with pytest.raises(httpx.WriteTimeout):
            await fetch(transport, server.url, bytes(30_000_000), write=0.05)
        assert counts(transport) == (1, 0, 0)


async def test_an_upload_without_a_limit_waits_until_it_is_taken(
    transport: DirectTransport,
) -> None:
    """However long the server takes to read on; all that was at hand arrives as it was."""
    sent = bytes(range(256)) * 40_000
    read_on = asyncio.Event()
    got = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a full transport
        await read_on.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]  # likewise
        got.append(await reader.readexactly(len(sent)))
        writer.write(OK)

    async with scripted(script) as server, asyncio.timeout(10):
        uploading = asyncio.ensure_future(fetch(transport, server.url, sent, write=None))
        await until(lambda: any(each._is_full for each in in_use(transport)))
        read_on.set()
        assert await uploading == (200, b"ok")
    assert got == [sent]


async def test_an_upload_in_chunks_whose_end_is_not_taken(transport: DirectTransport) -> None:
    """A server that ended before the last chunk had no whole request, so it ran nothing."""
    ended = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"1\r\na\r\n")
        writer.close()

    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        await ended.wait()

    async with scripted(script) as server:
        target = Target("http", "127.0.0.1", server.port, b"/")
        headers = [(b"host", b"x"), (b"transfer-encoding", b"chunked")]
        sending = Sending()
        order = Order(
            "POST", target, headers, body=body(), length=None, sending=sending,
            connect=5, read=5, write=5,
        )  # fmt: skip
        exchange = asyncio.ensure_future(transport.exchange(order))
        await until(lambda: in_use(transport))
        await until(lambda: all(each.has_ended for each in in_use(transport)))
        ended.set()
        with pytest.raises(httpx.TransportError):
            await exchange
    assert (sending.stage, sending.may_have_run) == ("sending", False)


@pytest.mark.parametrize("kind", [DirectTransport, ShardedTransport])
async def test_an_answer_to_an_upload_that_is_not_taken_to_its_end(kind: type[Any]) -> None:
    """A success that came before the network took no more is the answer; its connection goes."""

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a full transport
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await asyncio.Event().wait()

    async with scripted(script) as server:
        transport = kind()
        assert await fetch(transport, server.url, bytes(30_000_000), write=0.05) == (200, b"ok")
        # The next request meets another connection, with an answer of its own.
        assert await fetch(transport, server.url) == (200, b"ok")
        assert len(server.writers) == 2
        await transport.aclose()


async def test_a_whole_answer_ends_an_upload_at_once(transport: DirectTransport) -> None:
    """Nobody wants the rest, so nobody waits for it to be taken; half an answer ends nothing."""
    whole = asyncio.Event()

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a full transport
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
        await whole.wait()
        writer.write(b"k")
        await asyncio.Event().wait()

    async with scripted(script) as server, asyncio.timeout(5):
        fetching = asyncio.ensure_future(fetch(transport, server.url, bytes(30_000_000), write=60))
        await asyncio.sleep(0.1)
        assert not fetching.done()
        assert counts(transport) == (1, 1, 0)
        whole.set()
        assert await fetching == (200, b"ok")
        assert counts(transport) == (1, 0, 0)


@pytest.mark.parametrize("at", [1, 200_000])
async def test_a_connection_whose_answer_came_before_the_end_of_its_request(
    transport: DirectTransport, at: int
) -> None:
    """It is not used again: nobody knows what the server left of the request."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"content-length" in head.lower():
            await reader.readexactly(at)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
            await reader.readexactly(400_000 - at)
            writer.write(b"k")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield bytes(100_000)
            await asyncio.sleep(0.05)

    async with scripted(script) as server:
        content = slowly()
        async with httpx.AsyncClient(transport=transport) as client:
            headers = {"content-length": "400000"}
            first = await client.post(server.url, content=content, headers=headers)
            assert first.content == b"ok"
            assert (await client.get(server.url)).content == b"ok"
        assert len(server.writers) == 2


@pytest.mark.parametrize("length", ["5", "15"])
@pytest.mark.parametrize("kind", [DirectTransport, ShardedTransport])
async def test_a_body_that_is_not_as_long_as_said(
    length: str, kind: type[Any], server: Server
) -> None:
    """A file that grew or shrank is a LocalProtocolError, and its connection goes."""
    transport = kind(ssl_context=client_tls())
    request = httpx.Request(
        "POST", server.url, content=pieces_of(5, 2), headers={"Content-Length": length}
    )
    with pytest.raises(httpx.LocalProtocolError) as caught:
        await transport.handle_async_request(request)
    assert caught.value.request is request
    await until(lambda: server.open == 0)
    await transport.aclose()


async def test_an_error_of_the_body_passes_through(
    server: Server, transport: DirectTransport
) -> None:
    """What the source of the body raises is not dressed up as a network error."""

    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fetch(transport, server.url, body())
    await until(lambda: server.open == 0)


# --- cancellation


async def cancelled_at_each_turn(transport: DirectTransport, url: str, content: Any) -> int:
    """Cancel a request in its first turn of the loop, then in its second, until one is through."""
    for turns in range(200):
        task = asyncio.ensure_future(fetch(transport, url, content()))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert transport.statistics().in_use == 0
        if not task.cancelled():
            return turns
    raise AssertionError


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("fresh", [True, False])
async def test_cancelled_anywhere(scheme: str, fresh: bool) -> None:
    """In whichever turn of the loop: no socket, no task, no slot left, and then all works."""
    body = os.urandom(300_000)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + body
    before = asyncio.all_tasks()
    async with Server(answer).running(ssl=server_tls() if scheme == "https" else None) as server:
        url = f"{scheme}://localhost:{server.port}/"
        transport = DirectTransport(ssl_context=client_tls(), idle_timeout=0 if fresh else 30)
        turns = await cancelled_at_each_turn(transport, url, lambda: pieces_of(70_000, 3))
        assert turns > 5
        assert (await fetch(transport, url))[1] == body
        await transport.aclose()
        await until(lambda: server.open == 0)
        assert asyncio.all_tasks() - before <= set(server.tasks)


async def test_cancelled_while_the_name_is_looked_up(
    transport: DirectTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that waits for DNS can be cancelled, and leaves nothing."""
    asked = asyncio.Event()

    async def never(*_args: object, **_kwargs: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    task = asyncio.ensure_future(fetch(transport, "http://example.test/"))
    await asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert counts(transport) == (0, 0, 0)


async def test_random_cancellations(server: Server, transport: DirectTransport) -> None:
    """After a thousand requests cancelled at odd moments, every connection is accounted for."""

    async def one(delay: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await fetch(transport, server.url)

    for batch in range(20):
        await asyncio.gather(*[one((i * 7 + batch) % 50 / 2000) for i in range(50)])
    assert transport.statistics().in_use == 0
    await asyncio.gather(*[fetch(transport, server.url) for _ in range(50)])
    await transport.aclose()
    await until(lambda: server.open == 0)


# --- the end of a transport, a loop, a process


async def test_closing(transport: DirectTransport) -> None:
    """Closing ends what is under way, closes what is idle and refuses what comes after."""
    async with Server(b"").running() as server:
        under_way = asyncio.ensure_future(fetch(transport, server.url))
        await until(lambda: server.requests)
        await transport.aclose()
        with pytest.raises(httpx.ReadError):
            await under_way
        await until(lambda: server.open == 0)
        with pytest.raises(RuntimeError, match="closed"):
            await fetch(transport, server.url)
        await DirectTransport().aclose()  # one that was never used
        DirectTransport().abandon()


async def test_an_answer_finished_after_closing_is_not_kept(
    server: Server, transport: DirectTransport
) -> None:
    """What was read ahead may still be read, but its connection is gone."""
    response = await transport.handle_async_request(post(server.url))
    await transport.aclose()
    assert await response.aread() == b"ok"
    assert counts(transport) == (1, 0, 0)


@pytest.mark.parametrize("kind", [DirectTransport, ShardedTransport])
def test_two_loops_one_transport(kind: type[Any], threaded_server: tuple[str, list[Any]]) -> None:
    """Never closed, used in two `asyncio.run`: works, and every socket goes with its loop."""
    url, writers = threaded_server
    transport = kind(ssl_context=client_tls())
    for count in (1, 2):
        assert asyncio.run(fetch(transport, url)) == (200, b"ok")
        assert len(writers) == count
        assert all_closed(writers)
    gc.collect()


@pytest.mark.skipif(
    os.environ.get("PRODIA_TEST_LOOP") == "uvloop",
    reason="dup() leaves the server's socket blocking, and libuv reads from it once more",
)
@pytest.mark.slow
@pytest.mark.parametrize("kind", [DirectTransport, ShardedTransport])
@pytest.mark.parametrize("tls", [False, True])
def test_abandoned_after_a_loop_that_was_just_closed(kind: type[Any], tls: bool) -> None:
    """A loop closed without its farewells: `abandon` closes its sockets, and no warning comes."""
    transport = kind(ssl_context=client_tls())
    loop = asyncio.new_event_loop()
    server = Server()

    async def main() -> Any:
        listener = await asyncio.start_server(
            server.serve, "127.0.0.1", 0, ssl=server_tls() if tls else None
        )
        port = listener.sockets[0].getsockname()[1]
        await fetch(transport, f"http{'s' * tls}://localhost:{port}/")
        with socket.socket(fileno=os.dup(server.writers[0].get_extra_info("socket").fileno())) as s:
            theirs = s.dup()
        listener.close()
        server.tasks[0].cancel()
        await asyncio.wait(server.tasks)
        await asyncio.sleep(0.01)
        return theirs

    with loop.run_until_complete(main()) as theirs:
        loop.close()
        transport.abandon()
        gc.collect()
        theirs.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            while theirs.recv(65536):
                pass


def test_closing_from_another_loop(threaded_server: tuple[str, list[Any]]) -> None:
    """A transport whose loop is gone, or runs elsewhere, can be closed from any other."""
    url, writers = threaded_server
    transport = DirectTransport()
    with asyncio.Runner() as runner:
        runner.run(fetch(transport, url))
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(fetch(transport, url))
        asyncio.run(transport.aclose())
        runner.run(asyncio.sleep(0.01))
        assert all_closed(writers)
    for gone in (DirectTransport(), ShardedTransport(ssl_context=client_tls())):
        asyncio.run(fetch(gone, url))
        asyncio.run(gone.aclose())
        with pytest.raises(RuntimeError, match="closed"):
            asyncio.run(fetch(gone, url))


def test_an_answer_read_after_its_loop_was_given_up(
    threaded_server: tuple[str, list[Any]],
) -> None:
    """What had come is had, were there so much that no more was read; then it breaks."""
    transport = DirectTransport()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(sized(bytes(30_000_000)))

    async def begin() -> Answer:
        async with scripted(script) as server:
            target = Target("http", "127.0.0.1", server.port, b"/")
            order = Order(
                "GET", target, [(b"host", b"x")], body=None, length=0, sending=Sending(),
                connect=5, read=5, write=5,
            )  # fmt: skip
            answer = await transport.exchange(order)
            await until(lambda: answer._connection._is_paused)
        return answer

    loop = asyncio.new_event_loop()
    answer = loop.run_until_complete(begin())
    loop.close()
    transport.abandon()

    async def read() -> int:
        taken = 0
        with pytest.raises(httpx.ReadError):
            while True:
                taken += len(await answer.read())
        return taken

    assert asyncio.run(read()) > _network.READ_AHEAD


def test_a_request_after_the_farewells_of_its_loop(
    threaded_server: tuple[str, list[Any]],
) -> None:
    """What `asyncio.run` does at its end closes for good: no socket is opened behind it."""
    url, writers = threaded_server
    transport = DirectTransport()
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(fetch(transport, url)) == (200, b"ok")
    loop.run_until_complete(loop.shutdown_asyncgens())
    with pytest.raises(httpx.ConnectError, match="closed"):
        loop.run_until_complete(fetch(transport, url))
    loop.close()
    assert len(writers) == 1


def test_an_answer_forgotten_after_its_loop(threaded_server: tuple[str, list[Any]]) -> None:
    """An answer that outlives its loop is forgotten without a word."""
    transport = DirectTransport()
    request = post(threaded_server[0])
    response = asyncio.run(transport.handle_async_request(request))
    del response
    gc.collect()
    assert transport.statistics().opened == 1


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", [DirectTransport, ShardedTransport])
def test_a_forked_child_does_not_disturb_the_parent(
    kind: type[Any], threaded_server: tuple[str, list[Any]]
) -> None:
    """The child opens its own connection; the parent goes on with the one it has."""
    url, writers = threaded_server
    transport = kind(ssl_context=client_tls())
    with asyncio.Runner() as runner:
        runner.run(fetch(transport, url))
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            asyncio.set_event_loop(None)
            answer = asyncio.run(fetch(transport, url))
            os._exit(0 if answer == (200, b"ok") else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert len(writers) == 2
        assert runner.run(fetch(transport, url)) == (200, b"ok")
        assert len(writers) == 2
        runner.run(transport.aclose())


@pytest.mark.skipif(
    os.environ.get("PRODIA_TEST_LOOP") == "uvloop",
    reason="a loop that goes on after its sockets were closed under it, which no child's does",
)
@pytest.mark.parametrize("kind", [DirectTransport, ShardedTransport])
async def test_what_a_child_inherits(
    kind: type[Any], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a child the parent's loop hears nothing, not even the end of its own last will."""
    transport = kind(ssl_context=client_tls())
    await fetch(transport, server.url)
    inherited: list[object] = []
    monkeypatch.setattr(_http1, "_inherited", inherited)
    monkeypatch.setattr(_sharded, "_inherited", inherited)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    transport.abandon()
    assert len(inherited) == 1
    assert "0" in repr(transport)
    monkeypatch.undo()
    if isinstance(inherited[0], AsyncGenerator):
        await inherited[0].aclose()


async def test_abandoned_with_nothing_open(server: Server) -> None:
    """A loop that is gone and took its connections along leaves nothing to abandon."""
    transport = DirectTransport()
    await asyncio.to_thread(asyncio.run, fetch(transport, server.url))
    transport.abandon()
    assert counts(transport) == (1, 0, 0)
    assert await fetch(transport, server.url) == (200, b"ok")
    await transport.aclose()


# --- respx


async def test_respx_intercepts(server: Server, transport: DirectTransport) -> None:
    """`respx.mock` answers for it, with and without a connection open, and hands back after."""
    for _ in range(2):
        with respx.mock:
            route = respx.post(server.url).respond(418, text="teapot")
            assert await fetch(transport, server.url) == (418, b"teapot")
            response = await transport.handle_async_request(post(server.url))
            await response.aclose()
            assert route.call_count == 2
        assert await fetch(transport, server.url) == (200, b"ok")
    assert counts(transport)[1:] == (0, 1)


async def test_respx_errors_pass(transport: DirectTransport) -> None:
    """An error that respx is told to raise comes out as it is."""
    with respx.mock:
        respx.post("https://example.test/").mock(side_effect=httpx.ConnectError("no"))
        with pytest.raises(httpx.ConnectError, match="no"):
            await fetch(transport, "https://example.test/")


async def test_respx_over_httpx(server: Server) -> None:
    """With `using="httpx"` respx stands before the transport of an `httpx.AsyncClient`."""
    async with httpx.AsyncClient(transport=DirectTransport()) as client:
        with respx.mock(using="httpx") as router:
            router.post(server.url).respond(418)
            assert (await client.post(server.url)).status_code == 418
        assert server.requests == []
