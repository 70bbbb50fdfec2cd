"""
What does it cost to upload a large file, and do other tasks notice a slow disk?

A job with an input of 50 MB from a path, over plain HTTP on the loopback, so
that nothing hides behind TLS. Beside it `socket.sendfile`, which copies
nothing into the process, and what users write with httpx, aiohttp and
requests. CPU per upload; peak memory is what it was over the start.

Then the same with a slow disk: every read of the file takes 5 ms more. Ours
reads in a worker thread (`_uploads._read_block` is wrapped, and sleeps there
before it reads); the others are given a file object whose ``read`` sleeps,
in whatever thread they call it. Meanwhile a task wakes every millisecond and
notes how late it is; p99 of that, and p99 on an idle loop in the same process.

::

    python benchmarks/uploads.py            # about two minutes
    python benchmarks/uploads.py --quick    # a smoke test, 10 MB
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from io import FileIO
from pathlib import Path
from typing import Any

import httpx
from _harness import (
    JOB,
    SERVER_CPU,
    TOKEN,
    Contender,
    Figures,
    cpu_seconds,
    goal,
    missing,
    options,
    peak_memory,
    percentile,
    present,
    ratio_goal,
    report,
    reset_peak_memory,
    rounds,
)
from _peers import HEADERS
from _server import serving

from prodia_async import AsyncProdia, _uploads

OURS, SENDFILE = "prodia_async", "sendfile"
HTTPX, AIOHTTP, REQUESTS = "httpx, files=", "aiohttp, FormData", "requests, files="
SLOW = ", slow disk"
SLOW_SECONDS = 0.005

_NOISE = random.Random(1).randbytes(100_000)

Upload = Callable[[Path], Awaitable[None]]


class _SlowFile(FileIO):
    """A file on a slow disk."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, after a while."""
        time.sleep(SLOW_SECONDS)
        return super().read(-1 if size is None else size)


def _open(path: Path, *, slow: bool) -> Any:
    return _SlowFile(path) if slow else path.open("rb")


def _job_part() -> tuple[str, tuple[str, str, str]]:
    return "job", ("job.json", json.dumps(JOB), "application/json")


@asynccontextmanager
async def _ours(url: str, *, slow: bool) -> AsyncIterator[Upload]:
    if slow:
        read_block = _uploads._read_block

        def slow_read_block(facts: _uploads.FileFacts, offset: int) -> bytes:
            time.sleep(SLOW_SECONDS)
            return read_block(facts, offset)

        _uploads._read_block = slow_read_block
    async with AsyncProdia(TOKEN, base_url=url) as client:

        async def upload(path: Path) -> None:
            await client.job(JOB, inputs=[path])

        yield upload


@asynccontextmanager
async def _httpx(url: str, *, slow: bool) -> AsyncIterator[Upload]:
    async with httpx.AsyncClient(timeout=60) as client:

        async def upload(path: Path) -> None:
            with _open(path, slow=slow) as file:
                files = [_job_part(), ("input", (path.name, file, "image/png"))]
                response = await client.post(f"{url}/v2/job", files=files, headers=HEADERS)
            response.raise_for_status()

        yield upload


@asynccontextmanager
async def _aiohttp(url: str, *, slow: bool) -> AsyncIterator[Upload]:
    aiohttp = import_module("aiohttp")
    async with aiohttp.ClientSession(headers=HEADERS) as session:

        async def upload(path: Path) -> None:
            name, (filename, text, content_type) = _job_part()
            with _open(path, slow=slow) as file:
                form = aiohttp.FormData()
                form.add_field(name, text, filename=filename, content_type=content_type)
                form.add_field("input", file, filename=path.name, content_type="image/png")
                async with session.post(f"{url}/v2/job", data=form) as response:
                    await response.read()

        yield upload


@asynccontextmanager
async def _requests(url: str, *, slow: bool) -> AsyncIterator[Upload]:
    session = import_module("requests").Session()
    session.headers.update(HEADERS)

    async def upload(path: Path) -> None:
        with _open(path, slow=slow) as file:
            files = [_job_part(), ("input", (path.name, file, "image/png"))]
            session.post(f"{url}/v2/job", files=files).raise_for_status()

    yield upload


@asynccontextmanager
async def _sendfile(url: str, *, slow: bool) -> AsyncIterator[Upload]:
    assert not slow
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port)) as connection:

        def send(path: Path) -> None:
            head = f"POST {address.path}/v2/job HTTP/1.1\r\nHost: localhost\r\n"
            head += f"Content-Length: {path.stat().st_size}\r\n\r\n"
            with path.open("rb") as file:
                connection.sendall(head.encode())
                connection.sendfile(file)
            while b"--\r\n" not in connection.recv(65536)[-8:]:
                pass

        async def upload(path: Path) -> None:
            send(path)

        yield upload


_UPLOADS: dict[str, Callable[..., Any]] = {
    OURS: _ours,
    SENDFILE: _sendfile,
    HTTPX: _httpx,
    AIOHTTP: _aiohttp,
    REQUESTS: _requests,
}


def _files(folder: str, size: int) -> tuple[Path, Path]:
    """Make a file for the warm-up and one of `size`; both are in the page cache then."""
    small, large = Path(folder, "small.png"), Path(folder, "large.png")
    for path, length in ((small, 2_000_000), (large, size)):
        path.write_bytes(_NOISE * (length // len(_NOISE)))
    return small, large


async def _lateness(stop: asyncio.Event) -> list[float]:
    """Wake every millisecond; how late each time, in ms."""
    late = []
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        due = loop.time() + 0.001
        await asyncio.sleep(0.001)
        late.append((loop.time() - due) * 1e3)
    return late


async def _measure(contender: str, url: str, size: int, times: int) -> Figures:
    slow = contender.endswith(SLOW)
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        small, large = _files(folder, size)
        async with _UPLOADS[contender.removesuffix(SLOW)](url, slow=slow) as upload:
            await upload(small)
            await upload(small)
            if slow:
                stop = asyncio.Event()
                idle = asyncio.create_task(_lateness(stop))
                await asyncio.sleep(1)
                stop.set()
                figures["idle_p99_ms"] = percentile(await idle, 0.99)
                stop.clear()
                watch = asyncio.create_task(_lateness(stop))
                for _ in range(times):
                    await upload(large)
                stop.set()
                figures["p99_ms"] = percentile(await watch, 0.99)
                figures["added_p99_ms"] = figures["p99_ms"] - figures["idle_p99_ms"]
                return figures
            gc.collect()
            before = reset_peak_memory()
            cpu = cpu_seconds()
            for _ in range(times):
                await upload(large)
            figures["cpu_ms"] = (cpu_seconds() - cpu) / times * 1e3
            figures["ms_per_mb"] = figures["cpu_ms"] / size * 1e6
            figures["peak_mb"] = peak_memory() - before
    return figures


def main() -> None:
    """Measure all contenders and print the tables and the goals."""
    chosen = options(__doc__)
    if chosen.measure:
        report(asyncio.run(_measure(**chosen.measure)))
        return
    size, times, count = (10_000_000, 1, 1) if chosen.quick else (50_000_000, 3, 5)
    print(f"an upload of {size // 1_000_000} MB from a path")
    with serving(SERVER_CPU) as server:
        params = {"url": server.url(), "size": size, "times": times}
        contenders = [
            Contender(OURS, params),
            Contender(SENDFILE, params),
            Contender(HTTPX, params),
            Contender(AIOHTTP, params, missing=missing("aiohttp")),
            Contender(REQUESTS, params, missing=missing("requests")),
        ]
        results = rounds(present(contenders, chosen.only), count)
        slow_contenders = [
            Contender(each.name + SLOW, {**params, "times": 1}, missing=each.missing)
            for each in contenders
            if each.name in {OURS, HTTPX, AIOHTTP}
        ]
        slow = rounds(present(slow_contenders, chosen.only), count)
    results.table(
        {"cpu_ms": "CPU ms", "ms_per_mb": "ms/MB", "peak_mb": "peak +MB"}, baseline=SENDFILE
    )
    print(f"\nhow late other tasks are while every read takes {SLOW_SECONDS * 1e3:g} ms")
    slow.table({"added_p99_ms": "+p99 ms", "p99_ms": "p99 ms", "idle_p99_ms": "idle p99 ms"})
    ratio_goal("7a: CPU, ours over sendfile", results, ours=OURS, peer=SENDFILE, most=2.0)
    if OURS in results.rounds:
        goal("7b: peak memory of an upload", results.median(OURS, "peak_mb"), 4, " MB")
        late = slow.median(OURS + SLOW, "added_p99_ms")
        goal("7c: how much later other tasks are at p99", late, 2, " ms")


if __name__ == "__main__":
    main()
