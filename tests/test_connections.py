"""The transports: which connection a request takes, and what becomes of it; real sockets."""

import asyncio
import contextlib
import gc
import importlib.util
import os
import re
import signal
import socket
import ssl
import struct
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpcore
import httpx
import pytest
import respx
import trio
from conftest import on_both_loops
from conftest import until as until_it_is
from raw_server import Conversation, RawServer, say

from prodia_async import _connections, _network
from prodia_async._connections import (
    DirectTransport,
    ShardedTransport,
    default_transport,
    environment_proxy,
    shared_ssl_context,
)

CERTS = Path(__file__).parent / "certs"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def client_tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTS / "localhost.pem"))


TRUSTING = client_tls()


def sized(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    return context


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        return head + await reader.readuntil(b"0\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return head + await reader.readexactly(int(length[1]) if length else 0)


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # no event tells of these
        await asyncio.sleep(0.001)


class Server:
    """Answers each request with `answer`, or lets `script` have the connection."""

    def __init__(
        self, answer: bytes = OK, script: Callable[..., Awaitable[None]] | None = None
    ) -> None:
        self.answer = answer
        self.script = script
        self.requests: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.open = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v2/job"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        self.writers.append(writer)
        self.open += 1
        try:
            if self.script is not None:
                await self.script(reader, writer)
                await reader.read()
            while True:
                self.requests.append(await read_request(reader))
                writer.write(self.answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def running(self, **kwargs: Any) -> AsyncIterator["Server"]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, limit=1 << 24, **kwargs)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            await server.wait_closed()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().running() as server:
        yield server


@pytest.fixture
async def transport() -> AsyncIterator[DirectTransport]:
    transport = DirectTransport(ssl_context=client_tls())
    yield transport
    await transport.aclose()


def scripted(script: Callable[..., Awaitable[None]]) -> contextlib.AbstractAsyncContextManager[Any]:
    return Server(script=script).running()


def answering(*pieces: bytes) -> contextlib.AbstractAsyncContextManager[Any]:
    """A server that answers the first request of each connection with these bytes, and ends."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in pieces:
            writer.write(piece)
        if writer.can_write_eof():
            writer.write_eof()

    return Server(script=script).running()


def post(url: str, content: Any = b"{}", **timeouts: float | None) -> httpx.Request:
    return httpx.Request("POST", url, content=content, extensions={"timeout": timeouts})


async def fetch(
    transport: httpx.AsyncBaseTransport, url: str, content: Any = b"{}", **timeouts: float | None
) -> tuple[int, bytes]:
    response = await transport.handle_async_request(post(url, content, **timeouts))
    try:
        return response.status_code, b"".join([chunk async for chunk in response.aiter_raw()])
    finally:
        await response.aclose()


def counts(transport: DirectTransport) -> tuple[int, int, int]:
    now = transport.statistics()
    return now.opened, now.in_use, now.idle


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


async def test_the_shared_context_is_made_once_and_off_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many who ask at once get one context, made in a thread."""
    makers = []

    def make() -> ssl.SSLContext:
        makers.append(threading.current_thread())
        return client_tls()

    monkeypatch.setattr(_connections, "_contexts", {})
    monkeypatch.setattr(_connections, "_make_ssl_context", make)
    contexts = await asyncio.gather(*[shared_ssl_context() for _ in range(20)])
    assert len(set(map(id, contexts))) == len(makers) == 1
    assert makers[0] is not threading.main_thread()


async def test_the_shared_context_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a context of its own, a transport trusts what httpx trusts, over HTTP/1.1."""
    monkeypatch.setattr(_connections, "_contexts", {})
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTS / "localhost.pem"))
    async with Server().running(ssl=server_tls()) as server:
        for transport in (DirectTransport(), ShardedTransport()):
            assert await fetch(transport, f"https://localhost:{server.port}/") == (200, b"ok")
            await transport.aclose()


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
        stream = next(iter(next(iter(transport._lines.idle.values())))).stream  # type: ignore[union-attr]  # in use
        closing.set()
        while not _network.is_readable(stream._fileno()):  # type: ignore[union-attr]  # as above
            pass  # without a turn of the loop
        assert await fetch(transport, url) == (200, b"ok")
        thread.join()
    assert len(served) == counts(transport)[0] == 2


@pytest.mark.parametrize("how", ["ended", "spoke"])
async def test_a_connection_that_dies_before_the_first_byte_is_replaced(
    how: str, server: Server, transport: DirectTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the first byte: another is used, the request is sent once."""
    await fetch(transport, server.url)
    real = httpcore.AsyncHTTPConnection.handle_async_request

    async def after_an_end(self: Any, request: Any) -> Any:
        line = self._network_backend
        if line.stream is not None:
            if how == "ended":
                line.stream._wire.eof_received()
            else:
                line.stream._wire.data_received(OK)
        return await real(self, request)

    monkeypatch.setattr(httpcore.AsyncHTTPConnection, "handle_async_request", after_an_end)
    assert await fetch(transport, server.url) == (200, b"ok")
    assert counts(transport) == (2, 0, 1)
    assert len(server.requests) == 2


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
    lines = transport._lines
    assert lines is not None
    oldest = next(iter(next(iter(lines.idle.values()))))
    oldest.idle_since -= 30
    lines._sweep()
    assert counts(transport) == (3, 0, 2)
    assert lines._sweeper is not None
    await transport.aclose()
    await until(lambda: server.open == 0)


# --- what an answer must be, for its connection to be used again


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "body", "idle"),
    [
        (OK, b"ok", 1),
        (OK + b"more", b"ok", 0),
        (OK + OK, b"ok", 0),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"ok", 1),
        (CHUNKED + b"0\r\n\r\n", b"", 1),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\nHTTP/1.1 200", b"ok", 0),
        (CHUNKED + b"2\r\nok\r\n0\r\nA: b\r\n\r\n", b"ok", 0),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", 0),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n" + OK, b"ok", 1),
        (b"HTTP/1.1 204 None\r\n\r\n", b"", 1),
        (b"HTTP/1.1 204 None\r\n\r\nx", b"", 0),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"ok", 1),
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


async def test_an_answer_from_before_the_request_is_refused(transport: DirectTransport) -> None:
    """Two chunked answers to one request: the second is not taken for the next one's."""
    async with Server(CHUNKED + b"0\r\n\r\n" + CHUNKED + b"0\r\n\r\n").running() as server:
        await fetch(transport, server.url)
        with pytest.raises(httpx.RemoteProtocolError, match="before the request"):
            await fetch(transport, server.url)
        assert counts(transport) == (1, 0, 0)


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
        await until(lambda: getattr(stream, "_is_reading"))  # noqa: B009  # not of the interface
        await asyncio.sleep(0)
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
        assert isinstance(caught.value.__cause__, httpcore.RemoteProtocolError)
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


async def test_cancelled_while_returning_the_connection(
    server: Server, transport: DirectTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection whose return is cancelled is closed, not kept half-returned."""
    response = await transport.handle_async_request(post(server.url))

    async def cancelled(_self: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(httpcore.Response, "aclose", cancelled)
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    with pytest.raises(asyncio.CancelledError):
        [chunk async for chunk in stream]
    monkeypatch.undo()
    await until(lambda: server.open == 0)
    assert counts(transport) == (1, 0, 0)


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


def all_closed(writers: list[Any]) -> bool:
    for _ in range(5000):
        if all(writer.transport.is_closing() for writer in writers):
            return True
        threading.Event().wait(0.001)
    return False


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


@pytest.mark.parametrize("kind", [DirectTransport, ShardedTransport])
async def test_what_a_child_inherits(
    kind: type[Any], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a child the parent's loop hears nothing, not even the end of its own last will."""
    transport = kind(ssl_context=client_tls())
    await fetch(transport, server.url)
    inherited: list[object] = []
    monkeypatch.setattr(_connections, "_inherited", inherited)
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


# --- shards


async def test_shards_hold_five_requests_each() -> None:
    """Twelve requests at once take three pools, and thirteen connections are never made."""
    gate = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await gate.wait()
        writer.write(OK)

    transport = ShardedTransport(ssl_context=client_tls())
    async with scripted(script) as server:
        requests = [
            asyncio.ensure_future(fetch(transport, server.url, pool=0.001)) for _ in range(12)
        ]
        await until(lambda: len(server.writers) == 12)
        assert repr(transport) == "<ShardedTransport 12 in flight, 3 pools>"
        gate.set()
        assert await asyncio.gather(*requests) == [(200, b"ok")] * 12
        assert repr(transport) == "<ShardedTransport 0 in flight, 3 pools>"
        await transport.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await fetch(transport, server.url)


async def test_sharded_errors_have_their_request() -> None:
    """Errors before and within the answer are httpx's, with the request; the place is free."""
    transport = ShardedTransport(ssl_context=client_tls())
    for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"):
        async with answering(answer) as server:
            with pytest.raises(httpx.RemoteProtocolError) as caught:
                await fetch(transport, server.url)
            assert str(caught.value.request.url) == server.url
    assert "0 in flight" in repr(transport)
    await transport.aclose()


async def test_a_shard_closed_with_an_answer_open(server: Server) -> None:
    """An answer closed after its transport is no trouble, nor is one closed twice."""
    transport = ShardedTransport(ssl_context=client_tls())
    response = await transport.handle_async_request(post(server.url))
    await transport.aclose()
    await response.aclose()
    await response.stream.aclose()  # type: ignore[union-attr]  # an async stream
    await ShardedTransport().aclose()


def test_sharded_under_trio(threaded_server: tuple[str, list[Any]]) -> None:
    """Many requests at once, one cancelled, never closed: works, and no socket stays."""
    url, writers = threaded_server

    kept = []

    async def main() -> None:
        transport = default_transport(url, ssl_context=client_tls())
        kept.append(transport)
        assert isinstance(transport, ShardedTransport)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(fetch, transport, url)
        with trio.move_on_after(0):
            await fetch(transport, url)
        assert await fetch(transport, url) == (200, b"ok")
        assert "0 in flight, 4 pools" in repr(transport)

    trio.run(main)
    assert all_closed(writers)


ANSWERS_OF_OTHERS = {
    "another answer": [sized(b"mine"), sized(b"theirs")],
    "more of it": [sized(b"mine") + b"more than it said"],
    "more of a long one": [sized(b"m" * 50_000) + bytes(50_000)],
    "half an answer": [CHUNKED + b"4\r\nmine\r\n0\r\n\r\n", sized(b"theirs")[:-1]],
}

Opening = Callable[[Conversation], bool]


def put_tls_on(conversation: Conversation) -> bool:
    conversation.socket = server_tls().wrap_socket(conversation.socket, server_side=True)
    return True


def open_tunnel(conversation: Conversation) -> bool:
    assert (conversation.read_head() or "").startswith("CONNECT localhost:443 ")
    conversation.send(b"HTTP/1.1 200 Connected\r\n\r\n")
    return put_tls_on(conversation)


def open_socks(conversation: Conversation) -> bool:
    assert conversation.socket.recv(100)[:1] == b"\x05"
    conversation.send(b"\x05\x00")
    assert conversation.socket.recv(100)[:2] == b"\x05\x01"
    conversation.send(b"\x05\x00\x00\x01\x00\x00\x00\x00\x001")  # ends as a "1xx" begins
    return True


def all_at_once(pieces: list[bytes]) -> Callable[[Conversation], None]:
    """A reply that sends the pieces in one packet, but in a TLS record each."""

    def reply(conversation: Conversation) -> None:
        conversation.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        for piece in pieces:
            conversation.send(piece)
        conversation.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        conversation.charge()

    return reply


@contextlib.asynccontextmanager
async def on_route(
    route: str, server: RawServer, **options: Any
) -> AsyncIterator[tuple[ShardedTransport, str]]:
    """The transport and the URL with which the server is reached on this route."""
    if route == "socks5":
        pytest.importorskip("socksio")
    openings: dict[str, Opening] = {
        "TLS": put_tls_on,
        "tunnel": open_tunnel,
        "socks5": open_socks,
    }
    server.on_connect = openings.get(route)
    with server:
        port = server.url.rpartition(":")[2]
        if route in {"plain", "TLS"}:
            proxy, url = None, f"http{'s' * (route == 'TLS')}://localhost:{port}/"
        else:
            proxy = f"{'socks5' if route == 'socks5' else 'http'}://localhost:{port}"
            url = f"http{'s' * (route == 'tunnel')}://localhost/"
        transport = ShardedTransport(ssl_context=TRUSTING, proxy=proxy, **options)
        yield transport, url
        await transport.aclose()
        await until_it_is(lambda: server.open == 0)


@pytest.mark.parametrize("behind", ANSWERS_OF_OTHERS)
@pytest.mark.parametrize("route", ["plain", "TLS", "proxy", "tunnel", "socks5"])
@on_both_loops
async def test_what_lies_behind_an_answer_is_nobodys(route: str, behind: str) -> None:
    """The next request gets its own answer, on a new connection, and is charged once."""
    server = RawServer([all_at_once(ANSWERS_OF_OTHERS[behind]), say(sized(b"next"), charge=True)])
    async with on_route(route, server) as (transport, url):
        status, body = await fetch(transport, url)
        assert (status, body[:1]) == (200, b"m")
        await until_it_is(lambda: server.charges == 1)  # all is here, read or not
        assert await fetch(transport, url) == (200, b"next")
        assert await fetch(transport, url) != (200, b"next")
    assert server.charges == len(server.requests) == 3
    assert server.connections == 2


@pytest.mark.parametrize("route", ["plain", "TLS", "proxy", "tunnel", "socks5"])
@on_both_loops
async def test_a_pool_uses_its_connections_again(route: str) -> None:
    """Settled answers, sized and chunked, in one piece and in many, share a connection."""
    long = sized(os.urandom(300_000))
    chunked = CHUNKED + b"2\r\nok\r\n0\r\n\r\n"
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    server = RawServer([say(each) for each in (OK, chunked, long, interim + OK, OK)])
    async with on_route(route, server) as (transport, url):
        for body in (b"ok", b"ok", long[-300_000:], b"ok", b"ok"):
            assert await fetch(transport, url) == (200, body)
    assert server.connections == 1


@on_both_loops
async def test_a_word_after_the_pool_has_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that come just before the request: it goes to another connection, once."""
    talking: list[Conversation] = []

    def reply(conversation: Conversation) -> None:
        talking.append(conversation)
        conversation.send(OK)

    async def after_a_word(self: Any, request: Any) -> Any:
        if talking:
            talking.pop().send(sized(b"theirs"))
        return await real(self, request)

    real = httpcore.AsyncHTTPConnection.handle_async_request
    server = RawServer([reply, say(sized(b"next"))])
    async with on_route("plain", server) as (transport, url):
        assert await fetch(transport, url) == (200, b"ok")
        monkeypatch.setattr(httpcore.AsyncHTTPConnection, "handle_async_request", after_a_word)
        assert await fetch(transport, url) == (200, b"next")
        monkeypatch.undo()
    assert server.connections == len(server.requests) == 2


@on_both_loops
async def test_a_pool_refuses_an_answer_from_before_the_request() -> None:
    """Two chunked answers to one request look like one; the second is an error, not an answer."""
    server = RawServer([say((CHUNKED + b"0\r\n\r\n") * 2)])
    async with on_route("plain", server) as (transport, url):
        assert await fetch(transport, url) == (200, b"")
        with pytest.raises(httpx.RemoteProtocolError, match="before the request"):
            await fetch(transport, url)
        await until_it_is(lambda: server.open == 0)
        assert "0 in flight" in repr(transport)


@on_both_loops
async def test_a_handshake_of_a_pool_can_be_cancelled() -> None:
    """The socket goes at once, without the garbage collector."""

    def silent(conversation: Conversation) -> bool:
        conversation.stall()
        return False

    server = RawServer()
    async with on_route("TLS", server) as (transport, url):
        server.on_connect = silent
        async with anyio.create_task_group() as group:
            group.start_soon(fetch, transport, url)
            await until_it_is(lambda: server.open == 1)
            group.cancel_scope.cancel()
        gc.disable()
        try:
            await until_it_is(lambda: server.open == 0, 2)
        finally:
            gc.enable()
        assert "0 in flight" in repr(transport)


@pytest.mark.parametrize("route", ["plain", "TLS"])
@on_both_loops
async def test_connect_timeouts_of_a_pool(route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport's limit holds for TCP, and for TLS."""

    async def never(*_args: object) -> None:
        await anyio.sleep_forever()

    def silent(conversation: Conversation) -> bool:
        conversation.stall()
        return False

    server = RawServer()
    async with on_route(route, server, connect_timeout=0.05) as (transport, url):
        if route == "plain":
            for backend in (_network.DirectBackend, httpcore.TrioBackend):
                monkeypatch.setattr(backend, "connect_tcp", never)
        server.on_connect = silent
        with pytest.raises(httpx.ConnectTimeout) as caught:
            await fetch(transport, url)
        assert str(caught.value.request.url) == url
    assert server.connections == (route == "TLS")


@on_both_loops
async def test_a_pool_closed_while_another_task_reads() -> None:
    """Closing an answer ends the read that waits for more of it, and frees one place, not two."""
    server = RawServer([say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")])
    async with on_route("plain", server) as (transport, url):
        response = await transport.handle_async_request(post(url))
        other = await transport.handle_async_request(post(url))
        stream = response.stream
        assert isinstance(stream, httpx.AsyncByteStream)

        async def read() -> None:
            with pytest.raises(httpx.ReadError):
                await anext(aiter(stream))

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await stream.aclose()
        assert "1 in flight" in repr(transport)
        await other.aclose()


@on_both_loops
async def test_respx_intercepts_pools() -> None:
    """`respx.mock` answers for them, and hands back after."""
    server = RawServer([say(OK), say(OK)])
    async with on_route("plain", server) as (transport, url):
        for _ in range(2):
            with respx.mock:
                route = respx.post(url).respond(418, text="teapot")
                assert await fetch(transport, url) == (418, b"teapot")
                response = await transport.handle_async_request(post(url))
                await response.aclose()
                assert route.call_count == 2
            assert await fetch(transport, url) == (200, b"ok")
        assert "0 in flight" in repr(transport)
    assert server.connections == 1


async def test_what_pools_cannot_send() -> None:
    """A wrong scheme and a sync body are refused as by the other transport."""
    transport = ShardedTransport(ssl_context=TRUSTING)
    with pytest.raises(httpx.UnsupportedProtocol, match="ftp"):
        await fetch(transport, "ftp://127.0.0.1/")
    with pytest.raises(TypeError, match="async body"):
        await fetch(transport, "http://127.0.0.1/", content=iter([b"x"]))
    await transport.aclose()


def test_the_shared_context_under_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared context is made under trio as well."""
    monkeypatch.setattr(_connections, "_contexts", {})
    monkeypatch.setattr(_connections, "_make_ssl_context", client_tls)
    assert trio.run(shared_ssl_context) is _connections._contexts["shared"]


# --- proxies, and the choice


async def test_tls_through_a_proxy_over_tls() -> None:
    """A tunnel through a proxy that is reached over TLS: both are checked, both are kept."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await read_request(reader)).startswith(b"CONNECT localhost:443 ")
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await writer.start_tls(server_tls())
        for _ in range(2):
            await read_request(reader)
            writer.write(OK)

    async with Server(script=script).running(ssl=server_tls()) as proxy:
        transport = ShardedTransport(
            proxy=f"https://localhost:{proxy.port}", ssl_context=client_tls()
        )
        for _ in range(2):
            assert await fetch(transport, "https://localhost/") == (200, b"ok")
        assert len(proxy.writers) == 1
        await transport.aclose()


async def test_a_socks_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SOCKS pool of httpcore is used, with our streams; without its package the error says."""
    made: list[dict[str, Any]] = []

    class Pool(httpcore.AsyncConnectionPool):
        def __init__(self, *, proxy_url: Any, proxy_auth: Any, **options: Any) -> None:
            made.append({"url": bytes(proxy_url), "auth": proxy_auth})
            super().__init__(**options)

    monkeypatch.setattr(httpcore, "AsyncSOCKSProxy", Pool)
    async with Server().running() as server:
        transport = ShardedTransport(proxy="socks5://u:p@proxy.test:1080", ssl_context=TRUSTING)
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        with pytest.raises(ImportError, match=r"httpx\[socks\]"):
            await fetch(transport, server.url)
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
        assert await fetch(transport, server.url) == (200, b"ok")
        await transport.aclose()
    assert made == [{"url": b"socks5://proxy.test:1080/", "auth": (b"u", b"p")}]


async def proxy_script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await read_request(reader)
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.split(b"\r\n")[0])
        + request.split(b"\r\n")[0]
    )


async def test_through_a_proxy() -> None:
    """The proxy that is named is the one that is asked."""
    async with scripted(proxy_script) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        transport = default_transport("http://example.test/x", proxy=url, ssl_context=client_tls())
        assert isinstance(transport, ShardedTransport)
        status, line = await fetch(transport, "http://example.test/x")
        assert (status, line) == (200, b"POST http://example.test/x HTTP/1.1")
        await transport.aclose()


async def test_through_a_proxy_over_tls() -> None:
    """A proxy that is itself reached over TLS is checked with the transport's context."""
    async with Server(script=proxy_script).running(ssl=server_tls()) as proxy:
        transport = ShardedTransport(
            proxy=httpx.Proxy(f"https://u:p@localhost:{proxy.port}"), ssl_context=client_tls()
        )
        assert (await fetch(transport, "http://example.test/x"))[0] == 200
        await transport.aclose()


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({}, "https://example.com/", None),
        ({"https_proxy": "http://p:1"}, "https://example.com/", "http://p:1"),
        ({"https_proxy": "p:1"}, "https://example.com/", "http://p:1"),
        ({"https_proxy": "http://p:1"}, "http://example.com/", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://example.com/", "http://p:1"),
        ({"all_proxy": "socks5://p:1"}, "https://example.com/", "socks5://p:1"),
        ({"all_proxy": "http://p:1", "no_proxy": "example.com"}, "https://a.example.com/", None),
        ({"all_proxy": "http://p:1", "no_proxy": "*"}, "https://example.com/", None),
        ({"all_proxy": "http://p:1", "no_proxy": "x.com"}, "https://example.com/", "http://p:1"),
    ],
)
async def test_the_proxy_of_the_environment(
    environment: dict[str, str], url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY, ALL_PROXY and NO_PROXY decide, and are not asked with `trust_env=False`."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(url) == expected
    assert isinstance(default_transport(url), ShardedTransport if expected else DirectTransport)
    assert isinstance(default_transport(url, trust_env=False), DirectTransport)


async def test_every_error_of_httpcore_has_its_own_in_httpx() -> None:
    """Each exception that httpcore exports is translated to the one of the same name."""
    request = post("http://example.test/")
    for name in dir(httpcore):
        error = getattr(httpcore, name)
        if isinstance(error, type) and issubclass(error, Exception) and hasattr(httpx, name):
            translated = _connections._translated(error("why"), request)
            assert type(translated) is getattr(httpx, name)
    assert _connections._translated(anyio.WouldBlock(), request) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "emulator.localhost"])
def test_this_machine_needs_no_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Plain http to this machine may carry a token, so it must not go through a proxy."""
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert environment_proxy(f"http://{host}:8080") is None
    assert environment_proxy("http://api.example.com") == "http://proxy.example:3128"
