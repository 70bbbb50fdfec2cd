"""The sockets under httpcore: flow, ends, timeouts, TLS; over real connections."""

import asyncio
import contextlib
import gc
import select
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpcore
import pytest

from prodia_async.transports import _network
from prodia_async.transports._streams import Backend, ProvenStream, _Stream

CERTS = Path(__file__).parents[1] / "certs"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(CERTS / "localhost.pem"))
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextlib.asynccontextmanager
async def peer(handler: Handler, **kwargs: Any) -> AsyncIterator[int]:
    """Serve each connection with `handler` and yield the port; all is closed at the end."""
    writers = []
    tasks: list[asyncio.Task[Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        with contextlib.suppress(ConnectionError):
            await handler(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **kwargs)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def connect_tcp(*args: Any, **kwargs: Any) -> _Stream:
    stream = (await Backend(is_asyncio=True).connect_tcp(*args, **kwargs))._stream
    assert isinstance(stream, _Stream)
    return stream


@contextlib.asynccontextmanager
async def connected(handler: Handler, **kwargs: Any) -> AsyncIterator[_Stream]:
    async with peer(handler) as port:
        stream = await connect_tcp("127.0.0.1", port, **kwargs)
        try:
            yield stream
        finally:
            stream._wire.abort()


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # no event tells of these
        await asyncio.sleep(0.001)


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def unread(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a full transport, not half of one
    await asyncio.Event().wait()


# --- reading


async def test_a_large_answer_is_paused_and_comes_whole() -> None:
    """Unread bytes stay under 512 KB, whatever the server sends, and none is lost."""

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(4_000_000))
        await writer.drain()

    async with connected(flood) as stream:
        await until(lambda: stream._wire._is_paused)
        assert stream._wire.unread <= 512 * 1024
        total = largest = 0
        while total < 4_000_000:
            piece = await stream.read(1)
            total += len(piece)
            largest = max(largest, len(piece))
            assert stream._wire.unread <= 512 * 1024
        assert largest > 64 * 1024


async def test_the_end_can_come_while_paused() -> None:
    """A paused stream that ends is read to its last byte and then ends."""
    async with connected(silent) as stream:
        wire = stream._wire
        wire.data_received(bytes(300_000))
        wire.connection_lost(None)
        assert len(await stream.read(1)) == 300_000
        assert await stream.read(1) == b""


async def test_large_waiting_pieces_are_not_copied() -> None:
    """A large piece is the very object that asyncio made."""
    async with connected(silent) as stream:
        pieces = [bytes(40_000), bytes(50_000)]
        for piece in pieces:
            stream._wire.data_received(piece)
        assert await stream.read(1) is pieces[0]
        assert await stream.read(1) is pieces[1]


async def test_read_timeout() -> None:
    """Silence for longer than the timeout is a ReadTimeout that says how long."""
    async with connected(silent) as stream:
        with pytest.raises(httpcore.ReadTimeout, match=r"0\.01 seconds"):
            await stream.read(1, timeout=0.01)


async def test_a_read_that_succeeds_leaves_no_timer() -> None:
    """What arrives in time is returned, without a limit as with one."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)

    async with connected(echo) as stream:
        for timeout in (None, 60.0):
            await stream.write(b"hello")
            assert await stream.read(1, timeout=timeout) == b"hello"


async def test_end_and_reset() -> None:
    """An end reads as no bytes; a reset as a ReadError with its cause."""

    async def end(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def cut(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reset(writer)

    async with connected(end) as stream:
        assert await stream.read(1) == b""
    async with connected(cut) as stream:
        with pytest.raises(httpcore.ReadError, match="broke") as caught:
            await stream.read(1)
        assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_abort_wakes_whoever_waits() -> None:
    """Closing from outside ends a read under way with a ReadError."""
    async with connected(silent) as stream:
        reading = asyncio.ensure_future(stream.read(1))
        await until(lambda: stream._wire.reader is not None)
        await stream.aclose()
        with pytest.raises(httpcore.ReadError, match="this side"):
            await reading


# --- writing


async def test_a_large_write_waits_for_the_reader_and_arrives_whole() -> None:
    """Ten megabytes in one call arrive as they were."""
    sent = bytes(range(256)) * 40_000
    got = asyncio.get_running_loop().create_future()

    async def swallow(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        got.set_result(await reader.readexactly(len(sent)))

    async with connected(swallow) as stream:
        await stream.write(b"")
        await stream.write(sent, timeout=60)
        assert await got == sent


async def test_write_timeout() -> None:
    """A peer that reads nothing ends the write with a WriteTimeout."""
    async with connected(unread) as stream:
        with pytest.raises(httpcore.WriteTimeout, match=r"0\.01 seconds"):
            await stream.write(bytes(30_000_000), timeout=0.01)


async def test_writing_after_the_end() -> None:
    """Nothing is written to a peer that has ended."""
    async with connected(silent) as stream:
        stream._wire.eof_received()
        with pytest.raises(httpcore.WriteError, match="ended"):
            await stream.write(b"x")


@pytest.mark.parametrize(("kind", "is_lost"), [(4, False), (6, False), (8, False), (1, True)])
async def test_a_courtesy_to_a_server_that_has_gone_fails_nothing(kind: int, is_lost: bool) -> None:
    """Else what it said before would be lost over it; a frame of the request does fail."""

    async def greeted_and_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)
        reset(writer)

    async with connected(greeted_and_gone) as below:
        stream = ProvenStream(below)
        await stream.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await until(lambda: below.get_extra_info("is_readable"))
        frame = bytes((0, 0, 0, kind, 0, 0, 0, 0, 0))
        with pytest.raises(httpcore.WriteError) if is_lost else contextlib.nullcontext():
            await stream.write(frame)


@pytest.mark.parametrize("status", [b"413", b"503"])
async def test_an_early_refusal_stops_a_write(status: bytes) -> None:
    """An answer of 400 or above ends an upload that is stuck, and can then be read."""
    answer = b"HTTP/1.1 " + status + b" No\r\n\r\n"

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # as above
        writer.write(answer)
        await asyncio.Event().wait()

    async with connected(refuse) as stream:
        with pytest.raises(httpcore.WriteError, match="refused"):
            await stream.write(bytes(30_000_000), timeout=60)
        assert await stream.read(1) == answer


async def test_an_early_success_does_not_stop_a_write() -> None:
    """An answer below 400 may well come before the end of the request."""
    async with connected(silent) as stream:
        stream._wire.data_received(b"HTTP/1.1 200 OK\r\n")
        await stream.write(b"rest")


async def test_a_reset_ends_a_waiting_write() -> None:
    """A connection that breaks during an upload is a WriteError, not a wait."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(100_000)
        reset(writer)

    async with connected(cut) as stream:
        with pytest.raises(httpcore.WriteError):
            await stream.write(bytes(30_000_000), timeout=60)


# --- connecting


async def test_refused_and_unknown() -> None:
    """Nobody there, or no such name, is a ConnectError that names the host."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(httpcore.ConnectError, match=rf"127\.0\.0\.1:{port}"):
            await connect_tcp("127.0.0.1", port, timeout=60)
    with pytest.raises(httpcore.ConnectError, match=r"not\.\.a\.\.name"):
        await connect_tcp("not..a..name", 80)


async def test_connect_timeout_covers_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that does not answer is a ConnectTimeout."""

    async def never(*_args: object, **_kwargs: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    with pytest.raises(httpcore.ConnectTimeout, match=r"example\.test:443"):
        await connect_tcp("example.test", 443, timeout=0.01)


class Attempts:
    """Connections that succeed, fail or hang, by address."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.aborted: list[str] = []
        self.hanging = 0

    async def __call__(self, address: str) -> Any:
        self.tried.append(address)
        if address.startswith("bad"):
            raise OSError(f"no {address}")
        if address.startswith("slow"):
            self.hanging += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.hanging -= 1
        attempts = self

        class Wire(str):
            __slots__ = ()

            def abort(self) -> None:
                attempts.aborted.append(address)

        return Wire(address)


async def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """One address that fails or hangs does not keep the next one waiting."""
    monkeypatch.setattr(_network, "EYEBALLS_DELAY", 0.01)
    connect = Attempts()
    addresses = ["bad1", "slow", "good", "never"]
    winner: Any = await _network._first_to_connect(addresses, connect)
    await asyncio.sleep(0)
    assert winner == "good"
    assert connect.tried == ["bad1", "slow", "good"]
    assert connect.hanging == 0


async def test_no_address_answers() -> None:
    """When all have failed, the error tells of each; a name without addresses is one too."""
    with pytest.raises(OSError, match="no bad1; no bad2"):
        await _network._first_to_connect(["bad1", "bad2"], Attempts())
    with pytest.raises(OSError, match="no address"):
        await _network._first_to_connect([], Attempts())


async def test_a_connection_that_comes_too_late_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cancelled in the turn in which an address answers: that socket is closed too."""
    monkeypatch.setattr(_network, "EYEBALLS_DELAY", 60)
    connect = Attempts()
    race = asyncio.ensure_future(_network._first_to_connect(["good", "other"], connect))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    race.cancel()
    await asyncio.wait([race])
    await asyncio.sleep(0)
    assert race.cancelled()
    assert connect.tried == connect.aborted == ["good"]


async def test_a_loser_that_fails_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two attempts that end in one turn, the failed one leaves no word behind."""
    gate = asyncio.Event()

    async def connect(address: str) -> Any:
        await gate.wait()
        if address == "bad":
            raise OSError
        return address

    monkeypatch.setattr(_network, "EYEBALLS_DELAY", 0)
    for addresses in (["bad", "good"], ["good", "bad"]):
        gate.clear()
        asyncio.get_running_loop().call_later(0.02, gate.set)
        winner: Any = await _network._first_to_connect(addresses, connect)
        assert winner == "good"
    gc.collect()


async def test_addresses_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPv6 and IPv4 alternate, each address once, in the order of the name server."""

    async def infos(*_args: object, **_kwargs: object) -> list[Any]:
        six, four = socket.AF_INET6, socket.AF_INET
        found = [(six, "::1"), (six, "::2"), (six, "::2"), (four, "1.1.1.1")]
        return [(family, 0, 0, "", (address, 80)) for family, address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", infos)
    assert await _network._addresses("example.test", 80) == ["::1", "1.1.1.1", "::2"]


async def test_a_handshake_that_takes_too_long() -> None:
    """A server that accepts and then says nothing is a ConnectTimeout; its socket is closed."""
    gone = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with connected(mute) as stream:
        with pytest.raises(httpcore.ConnectTimeout, match="in time"):
            await stream.start_tls(client_tls(), "localhost", 0.05)
        await gone.wait()


async def test_tls() -> None:
    """Bytes go both ways, and only HTTP/1.1 is agreed on."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        await reader.read()

    async with peer(echo, ssl=server_tls()) as port:
        stream = await connect_tcp("localhost", port, timeout=10)
        assert await stream.start_tls(client_tls(), "localhost") is stream
        await stream.write(b"hello")
        assert await stream.read(1) == b"hello"
        assert stream.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert stream.get_extra_info("is_readable") is False
        stream._wire.abort()


async def test_tls_that_is_not_trusted() -> None:
    """A certificate that nobody vouches for is a ConnectError that names the host."""
    async with peer(silent, ssl=server_tls()) as port:
        stream = await connect_tcp("127.0.0.1", port)
        with pytest.raises(httpcore.ConnectError, match=r"localhost.*CERTIFICATE_VERIFY_FAILED"):
            await stream.start_tls(ssl.create_default_context(), "localhost")


async def test_nothing_from_before_tls_is_believed() -> None:
    """Bytes that came before the handshake end the connection."""
    async with connected(silent) as stream:
        stream._wire.data_received(b"HTTP/1.1 200 OK\r\n\r\n")
        with pytest.raises(httpcore.ConnectError, match="did not begin with TLS"):
            await stream.start_tls(client_tls(), "localhost")


async def test_cancelled_in_the_handshake() -> None:
    """A cancelled handshake closes its socket."""
    greeted, gone = asyncio.Event(), asyncio.Event()

    async def mute(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        greeted.set()
        await reader.read()
        gone.set()

    async with connected(mute) as stream:
        handshake = asyncio.ensure_future(stream.start_tls(client_tls(), "localhost"))
        await greeted.wait()
        handshake.cancel()
        await asyncio.wait([handshake])
        assert handshake.cancelled()
        await gone.wait()


# --- idle, abandoned


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_abandoned_after_its_loop() -> None:
    """The socket of a closed loop is closed at once; what stands under its number is harmless."""
    listener = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.new_event_loop()
    connecting = connect_tcp("127.0.0.1", listener.getsockname()[1])
    stream = loop.run_until_complete(connecting)
    loop.close()
    accepted, _ = listener.accept()
    with listener, accepted:
        stream._wire.abandon()
        accepted.settimeout(5)
        assert accepted.recv(1) == b""
        stream._wire.abandon()  # a second time is nothing
        assert stream.get_extra_info("is_readable") is True
        assert stream.get_extra_info("socket") is None
        del stream, connecting
        gc.collect()  # here, where the warning is expected


async def test_abandoned_with_a_socket_that_is_gone() -> None:
    """A number that is no longer this socket's is left alone."""
    async with connected(silent) as stream:
        sock = stream.get_extra_info("socket")
        stream._wire.abort()
        await until(lambda: sock.fileno() == -1)
        stream._wire.abandon()
        assert _network.inode(-1) is None


async def test_options_of_the_socket() -> None:
    """A connection says that it lives, and sends what is small at once; one can say from where."""
    async with connected(silent, local_address="127.0.0.2") as stream:
        sock = stream.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockname()[0] == "127.0.0.2"
        assert stream.get_extra_info("weather") is None


async def test_an_option_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that cannot be set up is closed."""
    monkeypatch.setattr(_network, "SOCKET_OPTIONS", ((1, 9999, 1),))
    loop = asyncio.get_running_loop()
    async with peer(silent) as port:
        with pytest.raises(OSError, match="not available"):
            await _network.dial(lambda: _network.Wire(loop), "127.0.0.1", port)


async def test_what_no_port_can_be() -> None:
    """A port above 65535 is a ConnectError, by name and by address."""
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(httpcore.ConnectError):
            await connect_tcp(host, 70_000)


async def test_staleness_without_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no `poll`, `select` tells whether something waits in the socket."""
    monkeypatch.delattr(select, "poll")

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await told.wait()
        writer.write(b"x")
        await asyncio.Event().wait()

    told = asyncio.Event()
    async with connected(greet) as stream:
        stream._wire.transport.pause_reading()  # type: ignore[union-attr]  # it is connected
        assert not stream.get_extra_info("is_readable")
        told.set()
        await until(lambda: stream.get_extra_info("is_readable"))
