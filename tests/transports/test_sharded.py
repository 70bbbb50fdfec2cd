"""httpcore's pools: their connections carry another request only with a proof."""

import asyncio
import contextlib
import gc
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
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
from wire import (
    CHUNKED,
    OK,
    TRUSTING,
    Server,
    all_closed,
    answering,
    client_tls,
    closed_as_an_answer_comes,
    fetch,
    post,
    read_request,
    scripted,
    server_tls,
    sized,
    until,
)

from prodia_async.transports import (
    _sharded,
    _streams,
    default_transport,
)
from prodia_async.transports._sharded import ShardedTransport


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().running() as server:
        yield server


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


async def test_a_pool_closed_as_an_answer_comes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same turn of the loop: it is an error, and the connection goes."""
    transport = ShardedTransport(ssl_context=client_tls())
    error = await closed_as_an_answer_comes(transport, server.url, _streams._Pieces, monkeypatch)
    await until(lambda: server.open == 0)
    assert error.__cause__ is not None


def test_sharded_under_trio(threaded_server: tuple[str, list[Any]]) -> None:
    """Many requests at once, one cancelled, never closed: works, and no socket stays."""
    url, writers = threaded_server

    kept = []

    async def main() -> None:
        transport = default_transport(url)
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
    "another in chunks": [CHUNKED + b"4\r\nmine\r\n0\r\n\r\n", CHUNKED + b"0\r\n\r\n"],
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


@pytest.mark.slow
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

    async def never(*_args: object, **_kwargs: object) -> None:
        await anyio.sleep_forever()

    def silent(conversation: Conversation) -> bool:
        conversation.stall()
        return False

    server = RawServer()
    async with on_route(route, server, connect_timeout=0.05) as (transport, url):
        if route == "plain":
            monkeypatch.setattr(_streams, "dial", never)
            monkeypatch.setattr(httpcore.TrioBackend, "connect_tcp", never)
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


async def test_every_error_of_httpcore_has_its_own_in_httpx() -> None:
    """Each exception that httpcore exports is translated to the one of the same name."""
    request = post("http://example.test/")
    for name in dir(httpcore):
        error = getattr(httpcore, name)
        if isinstance(error, type) and issubclass(error, Exception) and hasattr(httpx, name):
            translated = _sharded._translated(error("why"), request)
            assert type(translated) is getattr(httpx, name)
    assert _sharded._translated(anyio.WouldBlock(), request) is None
