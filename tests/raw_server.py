"""
A server that says exactly what a test tells it to, byte by byte.

Each connection is served by a thread with a plain blocking socket. The
replies are functions, used one per request in the order the requests come;
when they run out, every further request gets a good answer. What came and
what was charged is in the ledger.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

BOUNDARY = "0123456789abcdef" * 3 + "0123456789ab"
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8
JOB_JSON = (
    b'{"id":"6b0e8cc2-6f5e-4f0b-9f3e-0c7c5d3e2a11","type":"inference.ping.v1",'
    b'"created_at":"2026-02-03T04:05:06.11Z","state":{"current":"completed","history":null},'
    b'"config":{"seed":42},"metrics":{"elapsed":0.25}}\n'
)


def part(name: str, filename: str | None, content_type: str | None, content: bytes) -> bytes:
    """Return one part of a multipart body, as Go's writer makes it."""
    disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n"
    if content_type:
        head += f"Content-Type: {content_type}\r\n"
    return head.encode() + b"\r\n" + content + b"\r\n"


def multipart(*parts: bytes) -> bytes:
    """Return a whole multipart body."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


JOB_PART = part("job", "job.json", "application/json", JOB_JSON)
OUTPUT_PART = part("output", "picture", "image/png", PICTURE)
GOOD_BODY = multipart(JOB_PART, OUTPUT_PART)
MULTIPART_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def http(
    status: str = "200 OK",
    body: bytes = GOOD_BODY,
    *headers: str,
    content_type: str | None = MULTIPART_TYPE,
    length: int | None = -1,
) -> bytes:
    """Return an HTTP answer; ``length=None`` leaves Content-Length out."""
    lines = [f"HTTP/1.1 {status}", "x-request-id: 11111111-2222-4333-8444-555555555555"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


@dataclass
class RawRequest:
    """One request as it came."""

    head: str
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        """Return a header's value."""
        found = re.search(rf"(?im)^{re.escape(name)}:[ \t]*(.*?)\r?$", self.head)
        return found[1] if found else None


@dataclass
class Conversation:
    """One connection, for a reply to talk on."""

    server: RawServer
    socket: socket.socket
    number: int
    pending: bytes = b""

    def read_head(self) -> str | None:
        """Read up to the blank line; ``None`` when the client has gone."""
        while b"\r\n\r\n" not in self.pending:
            received = self.socket.recv(65536)
            if not received:
                return None
            self.pending += received
        head, _, self.pending = self.pending.partition(b"\r\n\r\n")
        return head.decode("latin-1") + "\r\n"

    def read_request(self) -> RawRequest | None:
        """Read one whole request and put it into the ledger."""
        head = self.read_head()
        if head is None:
            return None
        request = RawRequest(head, b"", self.number)
        size = int(request.header("content-length") or 0)
        body = bytearray(self.pending)
        while len(body) < size:
            received = self.socket.recv(1 << 20)
            if not received:
                return None
            body += received
        request.body, self.pending = bytes(body[:size]), bytes(body[size:])
        self.server.requests.append(request)
        return request

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def charge(self) -> None:
        """Note that a job ran."""
        with self.server.lock:
            self.server.charges += 1

    def close(self) -> None:
        """End the connection in good order."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def reset(self) -> None:
        """Break the connection off."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def stall(self) -> None:
        """Say nothing until the client has gone or the test is over."""
        self.socket.settimeout(0.05)
        while not self.server.over.is_set():
            try:
                if not self.socket.recv(65536):
                    return
            except TimeoutError:
                continue
            except OSError:
                return


def say(answer: bytes, *, charge: bool = False, close: bool = False) -> Callable[..., None]:
    """Return a reply that sends ``answer``."""

    def reply(conversation: Conversation) -> None:
        if charge:
            conversation.charge()
        conversation.send(answer)
        if close:
            conversation.close()

    return reply


def good(conversation: Conversation) -> None:
    """Run the job and answer as the API does."""
    conversation.charge()
    conversation.send(http())


@dataclass
class RawServer:
    """
    The server; a context manager.

    Args:
        replies: One for each request, in order.
        on_connect: Called with each new connection before anything is read;
            returns whether to go on.
    """

    replies: list[Callable[[Conversation], None]] = field(default_factory=list)
    on_connect: Callable[[Conversation], bool] | None = None
    requests: list[RawRequest] = field(default_factory=list)
    charges: int = 0
    connections: int = 0
    open: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._sockets: list[socket.socket] = []
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(5)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(connection)
            with self.lock:
                self.connections += 1
                self.open += 1
                conversation = Conversation(self, connection, self.connections)
            thread = threading.Thread(target=self._serve, args=(conversation,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, conversation: Conversation) -> None:
        try:
            if self.on_connect is not None and not self.on_connect(conversation):
                return
            while conversation.read_request() is not None:
                with self.lock:
                    reply = self.replies.pop(0) if self.replies else good
                reply(conversation)
        except OSError:
            pass  # the client, or the reply itself, closed the connection
        finally:
            conversation.socket.close()
            with self.lock:
                self.open -= 1
