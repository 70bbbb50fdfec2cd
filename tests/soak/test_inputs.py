"""Inputs of 200 MB from open files: what they cost in memory, and what other tasks notice."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from raw_server import GOOD_BODY, http
from starlette.datastructures import UploadFile

from prodia_async import AsyncProdia

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

SIZE = 200_000_000
PING = {"type": "inference.ping.v1"}

# In a process of its own, so that neither its memory nor its work is counted here.
SERVER = """
import re, socket, sys
answer = sys.stdin.buffer.read()
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
listener.settimeout(120)
while True:
    connection, _ = listener.accept()
    with connection:
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            head += connection.recv(65536)
        start, _, rest = head.partition(b"\\r\\n\\r\\n")
        left = int(re.search(rb"(?i)content-length: *([0-9]+)", start)[1]) - len(rest)
        while left:
            left -= len(connection.recv(min(left, 1 << 18)))
        connection.sendall(answer)
"""


@pytest.fixture
def port() -> Iterator[int]:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert server.stdin is not None
        assert server.stdout is not None
        with contextlib.closing(server.stdin) as stdin:
            stdin.write(http("200 OK", GOOD_BODY, "Connection: close"))
        yield int(server.stdout.readline())
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


def peak_kilobytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])


async def lateness(seconds: asyncio.Event) -> list[float]:
    """How late a task is that wakes every millisecond, until it is told to stop."""
    late = []
    while not seconds.is_set():
        due = time.perf_counter() + 0.001
        await asyncio.sleep(0.001)
        late.append(time.perf_counter() - due)
    return sorted(late)


def p99(late: list[float]) -> float:
    return late[len(late) * 99 // 100]


@pytest.mark.parametrize("kind", ["UploadFile", "file"])
async def test_a_large_input_from_an_open_file(port: int, kind: str) -> None:
    """Peak memory grows by 4 MB at the most, and other tasks' p99 by 2 ms."""
    with tempfile.SpooledTemporaryFile(max_size=1) as spooled:
        for _ in range(SIZE // 1_000_000):
            spooled.write(bytes(1_000_000))
        file: Any = UploadFile(spooled, filename="a.mp4") if kind == "UploadFile" else spooled  # type: ignore[arg-type]  # as Starlette does
        async with AsyncProdia("token", base_url=f"http://127.0.0.1:{port}") as client:
            await client.job(PING, inputs=[b"warm up" * 500_000])
            stop = asyncio.Event()
            idle = asyncio.create_task(lateness(stop))
            await asyncio.sleep(1)
            stop.set()
            before_late = p99(await idle)
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            before = peak_kilobytes()
            stop = asyncio.Event()
            watcher = asyncio.create_task(lateness(stop))
            await client.job(PING, inputs=[file])
            stop.set()
            late = p99(await watcher)
    grown = peak_kilobytes() - before
    print(f"{kind}: +{grown} kB, p99 {before_late * 1000:.2f} then {late * 1000:.2f} ms")
    assert grown < 4_000
    assert late - before_late < 0.002
