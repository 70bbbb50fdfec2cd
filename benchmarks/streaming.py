"""
What does it cost to stream a large output over TLS to a file, and does memory stay flat?

An answer with an output of 200 MB, over TLS on the loopback, decoded and
written to a file with `OutputPart.save`. Beside it curl, which writes the
answer as it is, and what users can write with aiohttp, requests and httpx,
which do not take it apart either. The figure is CPU per answer, of the whole
process for curl (less what it takes for a small answer, its start), and after
a warm-up for the others. Peak memory is what it was over the start.

::

    python benchmarks/streaming.py            # about two minutes, 1 GB of disk
    python benchmarks/streaming.py --quick    # a smoke test, 20 MB
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import ssl
import subprocess
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    present,
    ratio_goal,
    report,
    reset_peak_memory,
    rounds,
)
from _peers import HEADERS
from _server import CERTIFICATE, serving

from prodia_async import AsyncProdia, JobResult, OutputPart
from prodia_async.transports._direct import DirectTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

OURS, CURL, AIOHTTP, REQUESTS = "prodia_async", "curl", "aiohttp", "requests, 64 KB"
HTTPX = "httpx, aiter_raw"
LARGEST = "prodia_async, 1 GB"


def _context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATE))


async def _ours(base_url: str, path: Path) -> None:
    transport = DirectTransport(ssl_context=_context())
    async with (
        AsyncProdia(TOKEN, base_url=base_url, transport=transport) as client,
        client.stream(JOB, accept="video/mp4") as stream,
    ):
        async for part in stream:
            match part:
                case JobResult():
                    pass
                case OutputPart():
                    await part.save(path)


async def _httpx(base_url: str, path: Path) -> None:
    with path.open("wb") as file:
        async with (
            httpx.AsyncClient(verify=_context(), timeout=60) as client,
            client.stream("POST", f"{base_url}/v2/job", json=JOB, headers=HEADERS) as response,
        ):
            async for chunk in response.aiter_raw():
                file.write(chunk)


async def _aiohttp(base_url: str, path: Path) -> None:
    aiohttp = import_module("aiohttp")
    connector = aiohttp.TCPConnector(ssl=_context())
    with path.open("wb") as file:
        async with (
            aiohttp.ClientSession(connector=connector, headers=HEADERS) as session,
            session.post(f"{base_url}/v2/job", json=JOB) as response,
        ):
            async for chunk in response.content.iter_any():
                file.write(chunk)


async def _requests(base_url: str, path: Path) -> None:
    requests: Any = import_module("requests")
    options = {"json": JOB, "headers": HEADERS, "stream": True, "verify": str(CERTIFICATE)}
    with path.open("wb") as file, requests.post(f"{base_url}/v2/job", **options) as response:
        for chunk in response.iter_content(64 * 1024):
            file.write(chunk)


_STREAMS: dict[str, Callable[[str, Path], Awaitable[None]]] = {
    OURS: _ours,
    LARGEST: _ours,
    AIOHTTP: _aiohttp,
    HTTPX: _httpx,
    REQUESTS: _requests,
}


def _check(path: Path, size: int) -> None:
    written = path.stat().st_size
    assert written >= size, f"{written} bytes in the file, not {size}"


async def _measure_here(name: str, small: str, url: str, size: int) -> Figures:
    stream = _STREAMS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "output.mp4")
        # To other names: `save` overwrites nothing.
        await stream(small, Path(folder, "first.mp4"))
        await stream(small, Path(folder, "second.mp4"))
        before = reset_peak_memory()
        cpu = cpu_seconds()
        await stream(url, path)
        cpu = cpu_seconds() - cpu
        _check(path, size)
    return {"cpu_ms": cpu * 1e3, "ms_per_mb": cpu * 1e9 / size, "peak_mb": peak_memory() - before}


def _measure_curl(small: str, url: str, size: int) -> Figures:
    cpu = -_curl(small) + _curl(url)
    return {"cpu_ms": cpu * 1e3, "ms_per_mb": cpu * 1e9 / size}


def _curl(url: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        fields = [f"{name}: {value}" for name, value in HEADERS.items()]
        fields.append("Content-Type: application/json")
        command = ["curl", "--silent", "--show-error", "--fail", "--cacert", str(CERTIFICATE)]
        command += [word for field in fields for word in ("--header", field)]
        command += ["--data", json.dumps(JOB), "--output", str(Path(folder, "output"))]
        command += [f"{url}/v2/job"]
        subprocess.run(command, check=True, env={**os.environ, "no_proxy": "*"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _measure(contender: str, small: str, url: str, size: int) -> Figures:
    if contender == CURL:
        return _measure_curl(small, url, size)
    return asyncio.run(_measure_here(contender, small, url, size))


def main() -> None:
    """Measure all contenders and print the table and the goals."""
    chosen = options(__doc__)
    if chosen.measure:
        report(_measure(**chosen.measure))
        return
    size = 20_000_000 if chosen.quick else 200_000_000
    print(f"an answer with an output of {size // 1_000_000} MB over TLS to a file")
    curl = "" if shutil.which("curl") else "no curl here"
    with serving(SERVER_CPU) as server:
        params = {
            "small": server.url(size=2_000_000, tls=True),
            "url": server.url(size=size, tls=True),
            "size": size,
        }
        largest = {**params, "size": 5 * size, "url": server.url(size=5 * size, tls=True)}
        contenders = [
            Contender(OURS, params),
            Contender(CURL, params, missing=curl),
            Contender(AIOHTTP, params, missing=missing("aiohttp")),
            Contender(HTTPX, params),
            Contender(REQUESTS, params, missing=missing("requests")),
        ]
        results = rounds(present(contenders, chosen.only), 1 if chosen.quick else 7)
        rounds(
            present([Contender(LARGEST, largest)], chosen.only), 1 if chosen.quick else 3, results
        )
    results.table({"cpu_ms": "CPU ms", "ms_per_mb": "ms/MB", "peak_mb": "peak +MB"}, baseline=CURL)
    ratio_goal("6a: CPU, ours over curl", results, ours=OURS, peer=CURL, most=1.4)
    if LARGEST in results.rounds:
        goal("6b: peak memory over 1 GB", max(results.values(LARGEST, "peak_mb")), 4, " MB")


if __name__ == "__main__":
    main()
