"""Ways to run many jobs into a folder: ours, and those that people use or write today."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
from _peers import decode_by_hand

from prodia_async import AsyncProdia, JobRequest
from prodia_async.batch import Batch
from prodia_async.batch._record import LINGER_SECONDS, connect, sync_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

TYPE = "inference.flux-fast.schnell.txt2img.v2"


def job(seed: int) -> dict[str, Any]:
    """Return the job of a seed."""
    return {"type": TYPE, "config": {"prompt": "a lake at dawn", "seed": seed}}


def jobs(count: int) -> Iterator[dict[str, Any]]:
    """Yield so many jobs."""
    return (job(seed) for seed in range(count))


async def batch(url: str, folder: Path, count: int, concurrency: int) -> None:
    """Run them as a batch."""
    client = AsyncProdia("any", base_url=url, max_concurrency=concurrency)
    async with client, Batch(folder, client, progress=False) as run:
        await run.run(jobs(count))


async def bare_map(url: str, folder: Path, count: int, concurrency: int) -> None:
    """Run them by `map`, which saves its files and keeps no record."""
    async with AsyncProdia("any", base_url=url, max_concurrency=concurrency) as client:

        async def source() -> AsyncIterator[JobRequest]:
            for each in jobs(count):
                yield JobRequest(each, price=True)

        async with client.map(source(), buffer=concurrency) as outcomes:
            async for outcome in outcomes:
                path = folder / f"{outcome.index:08}.jpg"
                await outcome.unwrap().output.save(path)


async def written_first(url: str, folder: Path, count: int, concurrency: int) -> None:
    """
    Run them by tasks that each have written their file before they take the next job.

    No record, nothing synced: the least that lets a kill cost no more than what is in flight.
    """
    left = iter(enumerate(jobs(count)))
    async with AsyncProdia("any", base_url=url, max_concurrency=concurrency) as client:

        async def work() -> None:
            for index, each in left:
                response = await client.job(each, price=True)
                path = folder / f"{index:08}.jpg"
                await asyncio.to_thread(path.write_bytes, response.output.content)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(concurrency):
                tasks.create_task(work())


async def safe_by_hand(url: str, folder: Path, count: int, concurrency: int) -> None:
    """
    As `written_first`, and each file is hashed and synced, and has a row in SQLite behind it.

    Commits are shared as ours are. Nothing is read back, counted, limited or told: the least
    that a file and a row for each job cost.
    """
    left = iter(enumerate(jobs(count)))
    rows: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()

    def save(index: int, content: bytes) -> None:
        path = folder / f"{index:08}.jpg"
        digest = hashlib.sha256(content).digest()
        with path.with_suffix(".part").open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file)
        path.with_suffix(".part").rename(path)
        rows.put((index, digest))

    def record() -> None:
        connection = connect(folder / "done.sqlite", read_only=False)
        connection.execute("CREATE TABLE done(seed INTEGER PRIMARY KEY, sha256 BLOB)")
        is_over = False
        while not is_over:
            group = [rows.get()]
            time.sleep(LINGER_SECONDS)
            while not rows.empty():
                group.append(rows.get())
            is_over = group[-1] is None
            sync_folder(folder)
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO done VALUES(?,?)", filter(None, group))
            connection.execute("COMMIT")
        connection.close()

    recording = threading.Thread(target=record)
    recording.start()
    async with AsyncProdia("any", base_url=url, max_concurrency=concurrency) as client:

        async def work() -> None:
            for index, each in left:
                response = await client.job(each, price=True)
                await asyncio.to_thread(save, index, response.output.content)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(concurrency):
                tasks.create_task(work())
    rows.put(None)
    recording.join()


async def gather_and_jsonl(url: str, folder: Path, count: int, concurrency: int) -> None:
    """As most people write it: a task a job behind a semaphore, and a line a result."""
    path = folder / "done.jsonl"
    done = set()
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                done.add(json.loads(line)["seed"])
            except ValueError:
                continue
    semaphore = asyncio.Semaphore(concurrency)
    limits = httpx.Limits(max_connections=concurrency)
    with path.open("a", encoding="utf-8") as log:
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

            async def one(seed: int) -> None:
                async with semaphore:
                    content = await post(client, seed)
                (folder / f"{seed:08}.jpg").write_bytes(content)
                log.write(json.dumps({"seed": seed, "file": f"{seed:08}.jpg"}) + "\n")

            await asyncio.gather(*(one(seed) for seed in range(count) if seed not in done))


async def post(client: httpx.AsyncClient, seed: int) -> bytes:
    """Run one job, coming again when the server is busy."""
    while True:
        response = await client.post(
            "/v2/job", json=job(seed), headers={"accept": "multipart/form-data; image/jpeg"}
        )
        if response.status_code == 429:
            await asyncio.sleep(float(response.headers.get("retry-after", 1)))
            continue
        response.raise_for_status()
        return decode_by_hand(response.headers["content-type"], response.content)[1]


@dataclass
class Status:
    """What the processor below keeps count of."""

    in_progress: int = 0
    last_429: float = field(default=float("-inf"))


PAUSE_SECONDS = 15.0
"""After a 429 everybody waits so long, in the shape that this is written after."""


async def parallel_processor(url: str, folder: Path, count: int, concurrency: int) -> None:
    """
    The shape of a widely copied parallel processor for another API, written for this one.

    One loop that looks every millisecond; requests a minute as its bound (set
    so that it holds about as many in flight); a pause of 15 s for all after a
    429; a line appended for each answer; nothing is read back when it starts again.
    """
    path = folder / "results.jsonl"
    status = Status()
    left = iter(range(count))
    retries: asyncio.Queue[int] = asyncio.Queue()
    tasks: set[asyncio.Task[None]] = set()
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def call(seed: int) -> None:
            response = await client.post(
                "/v2/job", json=job(seed), headers={"accept": "multipart/form-data; image/jpeg"}
            )
            if response.status_code == 429:
                status.last_429 = time.monotonic()
                retries.put_nowait(seed)
            else:
                content = decode_by_hand(response.headers["content-type"], response.content)[1]
                (folder / f"{seed:08}.jpg").write_bytes(content)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([job(seed), len(content), {"seed": seed}]) + "\n")
            status.in_progress -= 1

        exhausted = False
        while not (exhausted and not status.in_progress and retries.empty()):
            paused = time.monotonic() - status.last_429 < PAUSE_SECONDS
            if not paused and status.in_progress < concurrency:
                seed = retries.get_nowait() if not retries.empty() else next(left, None)
                if seed is None:
                    exhausted = True
                else:
                    status.in_progress += 1
                    task = asyncio.create_task(call(seed))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
            await asyncio.sleep(0.001)


WAYS: dict[str, Any] = {
    "Batch": batch,
    "map that saves": bare_map,
    "written first": written_first,
    "safe by hand": safe_by_hand,
    "gather + JSONL": gather_and_jsonl,
    "parallel processor": parallel_processor,
}
