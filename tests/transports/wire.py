"""What the tests of transports share: a server on the loop, requests of httpx's."""

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from prodia_async.transports._direct import DirectTransport

CERTS = Path(__file__).parents[1] / "certs"
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


def all_closed(writers: list[Any]) -> bool:
    for _ in range(5000):
        if all(writer.transport.is_closing() for writer in writers):
            return True
        threading.Event().wait(0.001)
    return False


async def closed_as_an_answer_comes(
    transport: httpx.AsyncBaseTransport, url: str, protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> httpx.ReadError:
    """
    Close it in the turn of the loop in which an answer is there, before it is handed on.

    The error keeps alive what nobody closed.
    """
    answered = asyncio.Event()
    real = protocol.data_received

    def told_first(self: Any, data: bytes) -> None:
        answered.set()
        real(self, data)

    async def close() -> None:
        await answered.wait()
        await transport.aclose()

    monkeypatch.setattr(protocol, "data_received", told_first)
    closing = asyncio.ensure_future(close())
    await asyncio.sleep(0)
    with pytest.raises(httpx.ReadError, match="closed") as caught:
        await transport.handle_async_request(post(url))
    assert caught.value.request is not None
    await closing
    monkeypatch.undo()
    return caught.value


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
