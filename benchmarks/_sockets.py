"""
One client of each policy over TCP, against `_capacity_server.py`.

`Send` is the seam: an exchange for one job, which says how long a refusal
asks to wait, or ``None`` for a job that was served. `bare_sender` speaks just
enough HTTP to leave nothing but the scheduling to measure.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from _policies import wait_after

from prodia_async import AsyncProdia
from prodia_async._scheduler import Scheduler, Ticket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Send = Callable[[], Awaitable[float | None]]

_BODY = b'{"type":"inference.ping.v1"}'
_REQUEST = (
    b"POST /v2/job HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


async def _exchange(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes
) -> tuple[int, dict[str, str], bytes]:
    reader, writer = connection
    writer.write(request)
    line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(line.split(" ")[1]), headers, body


async def ask(port: int, request: str) -> dict[str, int]:
    """Send a control request such as ``GET /ledger`` and return the ledger."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    _, _, body = await _exchange((reader, writer), head.encode())
    writer.close()
    ledger: dict[str, int] = json.loads(body)
    return ledger


@asynccontextmanager
async def bare_sender(port: int) -> AsyncIterator[Send]:
    """Give a `Send` over a stack of kept connections."""
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send() -> float | None:
        connection = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        status, headers, _ = await _exchange(connection, _REQUEST)
        idle.append(connection)
        return None if status == 200 else float(headers["retry-after"])

    yield send
    for _, writer in idle:
        writer.close()


async def with_scheduler(send: Send, jobs: int, max_concurrency: int) -> list[float]:
    """Send `jobs` as the package does; when each ended, in order of ending."""
    scheduler = Scheduler(max_concurrency=max_concurrency)
    source = scheduler.source()
    rng = random.Random(1)
    ended: list[float] = []

    async def job(ticket: Ticket) -> None:
        try:
            await ticket.start()
            while (retry_after := await send()) is not None:
                ticket.refused(wait_after(1, retry_after, rng))
                await ticket.start()
            ticket.released(served=True)
        finally:
            ticket.close()
        ended.append(time.perf_counter())

    async with asyncio.TaskGroup() as tasks:
        for _ in range(jobs):
            await source.until_wanted()
            tasks.create_task(job(scheduler.ticket("ping", source)))
    return ended


async def with_client(port: int, jobs: int, max_concurrency: int) -> list[float]:
    """Send `jobs` through the whole package; when each ended, in order of ending."""
    ended: list[float] = []
    requests = ({"type": "inference.ping.v1"} for _ in range(jobs))
    async with (
        AsyncProdia(
            token="t", base_url=f"http://127.0.0.1:{port}", max_concurrency=max_concurrency
        ) as client,
        client.map(requests) as outcomes,
    ):
        async for outcome in outcomes:
            outcome.unwrap()
            ended.append(time.perf_counter())
    return ended


async def with_pool(send: Send, jobs: int, size: int) -> list[float]:
    """Send `jobs`, `size` at a time, each waiting out its own refusals in its place."""
    places = asyncio.Semaphore(size)
    rng = random.Random(1)
    ended: list[float] = []

    async def job() -> None:
        try:
            retry_after = await send()
            while retry_after is not None:
                await asyncio.sleep(wait_after(1, retry_after, rng))
                retry_after = await send()
        finally:
            places.release()
        ended.append(time.perf_counter())

    async with asyncio.TaskGroup() as tasks:
        for _ in range(jobs):
            await places.acquire()
            tasks.create_task(job())
    return ended
