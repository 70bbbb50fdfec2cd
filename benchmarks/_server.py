"""
The load server: one answer, as cheaply as asyncio can give it, in a process of its own.

::

    POST /delay-50/size-53000/v2/job   200, multipart: a job part of 1 KB, an output of `size`
                                       bytes, after `delay` ms. Both may be left out (0, 53000).
    GET  /ledger                       {"connections": ..., "requests": ...} since the last look

The same over TLS on a second port. Request bodies are read and thrown away.
An answer over 1 MB is made as it is sent, so the server stays small. It
prints its two ports and ends when its standard input does, so it cannot
outlive whoever started it. Nothing of the package is used here.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import ssl
import subprocess
import sys
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

BOUNDARY = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
OUTPUT_BYTES = 53_000
"""Documented: the guide's strawberry, 1024 x 1024, as JPEG."""

CERTIFICATE = Path(__file__).parent.parent / "tests" / "certs" / "localhost.pem"

_BLOCK = random.Random(1).randbytes(256 * 1024)
_LARGE = 1_000_000

JOB = {
    "id": "8f14e45f-ceea-467f-a8d5-1f0a1d3c2b4e",
    "type": "inference.flux-fast.schnell.txt2img.v2",
    "created_at": "2026-02-03T04:05:06.123456Z",
    "updated_at": "2026-02-03T04:05:07.654321Z",
    "expires_at": "2026-02-03T04:10:07.654321Z",
    "state": {"current": "completed", "history": None},
    "config": {
        "prompt": "a strawberry on a wooden table, " * 18,
        "seed": 42,
        "steps": 4,
        "width": 1024,
        "height": 1024,
    },
    "metrics": {"elapsed": 0.19, "ips": 21.4},
    "price": {"product": "inference-flux-schnell-large-steps-4", "dollars": 0.0025},
}


def _part_head(name: str, filename: str, content_type: str) -> bytes:
    return (
        f"--{BOUNDARY}\r\n"
        f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    ).encode()


def around(content_type: str = "image/jpeg") -> tuple[bytes, bytes]:
    """Return what stands before and after the output's bytes in an answer's body."""
    start = _part_head("job", "job.json", "application/json") + json.dumps(JOB).encode() + b"\r\n"
    return (
        start + _part_head("output", "output.jpg", content_type),
        f"\r\n--{BOUNDARY}--\r\n".encode(),
    )


def headers(length: int) -> list[tuple[str, str]]:
    """Return an answer's headers; `length` is its body's."""
    return [
        ("Date", "Tue, 03 Feb 2026 04:05:07 GMT"),
        ("Content-Type", CONTENT_TYPE),
        ("Content-Length", str(length)),
        ("X-Request-Id", "0af7651916cd43dd8448eb211c80319c"),
    ]


class _Plan(NamedTuple):
    seconds: float
    head: bytes
    """Status line to the output's first byte; for a small answer, to its last."""
    size: int
    tail: bytes


@lru_cache(maxsize=256)
def _plan(target: bytes) -> _Plan:
    delay = re.search(rb"/delay-(\d+)/", target)
    wanted = re.search(rb"/size-(\d+)/", target)
    size = int(wanted[1]) if wanted else OUTPUT_BYTES
    before, after = around()
    fields = headers(len(before) + size + len(after))
    lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in fields)]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n" + before
    if size <= _LARGE:
        repeated = _BLOCK * (size // len(_BLOCK) + 1)
        head, size, after = head + repeated[:size] + after, 0, b""
    return _Plan(int(delay[1]) / 1000 if delay else 0.0, head, size, after)


class _Ledger:
    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0

    def read(self) -> bytes:
        body = json.dumps(vars(self)).encode()
        self.connections = self.requests = 0
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class _Connection(asyncio.Protocol):
    """One connection: a request at a time, as every client here sends them."""

    def __init__(self, ledger: _Ledger, loop: asyncio.AbstractEventLoop) -> None:
        self._ledger = ledger
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._to_skip = 0
        self._target: bytes | None = None
        self._left = 0
        self._tail = b""
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ledger.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's name)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._target is None:
            self._received += data
            head, blank, rest = self._received.partition(b"\r\n\r\n")
            if not blank:
                return
            self._received = b""
            self._target = head.split(b" ", 2)[1]
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            self._to_skip = int(length[1]) if length else 0
            if b"100-continue" in head and self._transport is not None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            data = rest
        self._to_skip -= len(data)
        if self._to_skip <= 0:
            target, self._target = self._target, None
            self._answer(target)

    def _answer(self, target: bytes) -> None:
        if target == b"/ledger":
            self._write(self._ledger.read())
            return
        self._ledger.requests += 1
        plan = _plan(target)
        if plan.seconds:
            self._loop.call_later(plan.seconds, self._begin, plan)
        else:
            self._begin(plan)

    def _begin(self, plan: _Plan) -> None:
        self._write(plan.head)
        if plan.size:
            self._left, self._tail = plan.size, plan.tail
            self._go_on()

    def _go_on(self) -> None:
        while self._left and not self._is_paused and self._transport is not None:
            piece = _BLOCK[: self._left]
            self._left -= len(piece)
            self._write(piece)
            if not self._left:
                self._write(self._tail)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._go_on()


class Server(NamedTuple):
    """Where the load server listens: base URLs to put before ``/v2/job``."""

    plain: int
    tls: int

    def url(self, *, delay_ms: int = 0, size: int = OUTPUT_BYTES, tls: bool = False) -> str:
        """Return the base URL for answers of this kind, without ``/v2``."""
        origin = f"https://localhost:{self.tls}" if tls else f"http://127.0.0.1:{self.plain}"
        return f"{origin}/delay-{delay_ms}/size-{size}"


@contextmanager
def serving(cpu: int | None = None) -> Iterator[Server]:
    """Run the server in a process of its own, pinned to one CPU if one is named."""
    with subprocess.Popen(
        [sys.executable, __file__, *([] if cpu is None else [str(cpu)])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            plain, tls = process.stdout.readline().split()
            yield Server(int(plain), int(tls))
        finally:
            process.stdin.close()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    ledger = _Ledger()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_suffix(".key"))
    ports = []
    for tls in (None, context):
        listener = await loop.create_server(
            lambda: _Connection(ledger, loop), "127.0.0.1", 0, ssl=tls, backlog=4096
        )
        ports.append(listener.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    asyncio.run(_main())
