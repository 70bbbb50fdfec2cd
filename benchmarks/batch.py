"""
What does a batch cost beside a bare `map`, what does its record cost, and what does a kill cost?

Goals 1 to 6 and 8 of the durable batch. Each way to run the jobs has a process
of its own, against a server that charges by seed (`_batch_server`). The peers
beside us: `map` that saves its files, tasks that have written theirs before they
go on, the same that sync and record them as well, a plain ``asyncio.gather`` with
a line of JSON for each result, and the shape of a widely copied parallel
processor. Beside the record: SQLite alone.

::

    python benchmarks/batch.py            # about nine minutes
    python benchmarks/batch.py --quick    # a smoke test
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _batch_records import SCHNELL, fill, job
from _batch_server import PRICE, ledger, serving
from _batch_ways import WAYS
from _harness import (
    CLIENT_CPU,
    cpu_seconds,
    goal,
    options,
    peak_memory,
    percentile,
    pin,
    reset_peak_memory,
)

from prodia_async._keys import content_key
from prodia_async.batch import BatchRecord
from prodia_async.batch._decide import State
from prodia_async.batch._record import (
    INSERT_JOB,
    JOB_COLUMNS,
    LINGER_SECONDS,
    Finish,
    Promise,
    Record,
    Saved,
    connect,
    notifier,
    packed_id,
)


def child(**wanted: Any) -> subprocess.Popen[str]:
    """Start a way in a process of its own."""
    command = [sys.executable, __file__, "--measure", json.dumps(wanted)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def measured(**wanted: Any) -> dict[str, float]:
    """Run a way to its end and return its figures."""
    with child(**wanted) as process:
        assert process.stdout is not None
        found: dict[str, float] = json.loads(process.stdout.read())
    return found


def measure(wanted: dict[str, Any]) -> None:
    """Do what a child was started for."""
    if "resume" in wanted:
        print(json.dumps(resume(Path(wanted["resume"]))))
        return
    if "record" in wanted:
        pin(CLIENT_CPU)
        folder, seconds = Path(wanted["record"]), wanted["seconds"]
        print(json.dumps(asyncio.run(record_cost(folder, seconds=seconds, rate=1000))))
        return
    reset_peak_memory()
    before, began = cpu_seconds(), time.perf_counter()
    folder = Path(wanted["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(WAYS[wanted["way"]](wanted["url"], folder, wanted["jobs"], wanted["slots"]))
    seconds = time.perf_counter() - began
    cpu = 1000 * (cpu_seconds() - before) / wanted["jobs"]
    print(json.dumps({"seconds": seconds, "cpu_ms": cpu, "peak_mb": peak_memory()}))


# Goals 1, 2 and 8: kills.


def kills(way: str, *, times: int, jobs: int, slots: int, number: int, scratch: Path) -> None:
    """Kill a way so often, let it finish, and say what was paid for nothing."""
    folder = scratch / f"kill-{way}-{number}"
    rand = random.Random(3)
    with serving(slots, 0.5) as url:
        wanted: dict[str, Any] = {
            "way": way, "url": url, "folder": str(folder), "jobs": jobs, "slots": slots,
        }  # fmt: skip
        for _ in range(times):
            before = ledger(url)["charged"]
            process = child(**wanted)
            end = time.monotonic() + 20
            while ledger(url)["charged"] == before and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(rand.uniform(0.1, 0.6))
            process.send_signal(number)
            process.communicate(timeout=60)
            while ledger(url)["busy"]:
                time.sleep(0.05)
        measured(**wanted)
        found = ledger(url)
    twice = found["charged"] - found["seeds"]
    name = "SIGKILLs" if number == signal.SIGKILL else "SIGTERMs"
    print(
        f"{way}: {times} {name}, {slots} in flight, {jobs} jobs: {found['seeds']} done, "
        f"{twice} paid twice, ${twice * PRICE:.2f} lost, ${twice * PRICE / times:.3f} a kill"
    )
    if way == "Batch" and number == signal.SIGKILL:
        # In flight is what was sent and is not safe yet: the answers being saved as well.
        most = times * slots
        goal("1  paid twice by kills (sync), at most what was in flight", twice, most)
    elif way == "Batch":
        goal("2  paid twice by SIGTERMs", twice, 0)


# Goal 3: the record.


def finish_of(i: int, key: bytes, line: str) -> Finish:
    """Return what becomes of row ``i``."""
    return Finish(
        i, key, State.DONE, None, 1, SCHNELL, attempts=1, at=i, ms=300, seed=i,
        price=2_500_000, job_id=f"11111111-2222-4333-8444-{i:012}", request=line,
        saved=[Saved(None, "jpg", bytes(32), 53_000)],
    )  # fmt: skip


async def record_cost(folder: Path, *, seconds: float, rate: int) -> dict[str, float]:
    """Write two rows a job at a steady rate, and look at CPU, the time until safe, and the loop."""
    record = Record(folder / "cost.sqlite", notify=notifier())
    waits: list[float] = []
    lags: list[float] = []
    is_over = False

    async def watch() -> None:
        while not is_over:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            lags.append(time.perf_counter() - began - 0.001)

    async def one(i: int, key: bytes, line: str) -> None:
        record.sent(i, 1.0, 1)
        promise = Promise()
        began = time.perf_counter()
        record.finished(finish_of(i, key, line), promise)
        await promise.wait()
        waits.append(time.perf_counter() - began)

    async def produce(*, with_record: bool) -> float:
        before = cpu_seconds()
        began = time.perf_counter()
        tasks = set()
        i = 0
        while (now := time.perf_counter() - began) < seconds:
            while i < now * rate:
                line = job(i)
                if with_record:
                    task = asyncio.create_task(one(i, content_key(line), json.dumps(line)))
                else:
                    content_key(line)
                    json.dumps(line)
                    task = asyncio.create_task(asyncio.sleep(0))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                i += 1
            await asyncio.sleep(0.002)
        await asyncio.gather(*tasks)
        return 1e6 * (cpu_seconds() - before) / i

    watching = asyncio.create_task(watch())  # in both, since it wakes as often as jobs come
    idle = await produce(with_record=False)
    lags.clear()
    record.start()
    busy = await produce(with_record=True)
    is_over = True
    await watching
    await asyncio.to_thread(record.stop)
    record.close()
    return {
        "us": busy - idle,
        "p99_ms": 1000 * percentile(waits, 0.99),
        "stall_ms": 1000 * max(lags),
        "sqlite_us": sqlite_alone(folder, jobs=len(waits), commits=round(seconds / COMMIT_EVERY)),
    }


COMMIT_EVERY = LINGER_SECONDS + 0.002
"""Seconds from one commit of the record to the next: it lingers, and the disk takes its time."""


def sqlite_alone(folder: Path, *, jobs: int, commits: int) -> float:
    """Return the CPU, us a job, of the same rows in as many commits: no queue, nobody waits."""
    connection = connect(folder / "alone.sqlite", read_only=False)
    each = -(-jobs // commits)
    total = 0.0
    for first in range(0, jobs, each):
        ends = [
            finish_of(i, content_key(job(i)), json.dumps(job(i)))
            for i in range(first, min(jobs, first + each))
        ]
        sent = [(1.0, 1, end.i) for end in ends]
        rows = [tuple(columns_of(end).get(name) for name in JOB_COLUMNS) for end in ends]
        began = time.thread_time()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("UPDATE open SET sent=?, times=? WHERE i=?", sent)
        connection.executemany(INSERT_JOB, rows)
        connection.executemany("DELETE FROM open WHERE i=?", [(end.i,) for end in ends])
        connection.executemany(
            "INSERT OR REPLACE INTO request VALUES(?,?)", [(end.i, end.request) for end in ends]
        )
        connection.execute("COMMIT")
        total += time.thread_time() - began
    connection.close()
    return 1e6 * total / jobs


def columns_of(end: Finish) -> dict[str, Any]:
    """Return what stands in the columns of a row, where anything does."""
    (one,) = end.saved
    return {
        "i": end.i, "k": end.k, "state": end.state, "session": 1, "attempts": 1, "at": end.at,
        "ms": end.ms, "job_id": packed_id(end.job_id), "seed": end.seed, "price": end.price,
        "type": 1, "bytes": one.size, "sha256": one.sha256, "ext": one.ext,
    }  # fmt: skip


def record_goals(scratch: Path, *, seconds: float, turns: int) -> None:
    """Measure the record in a process of its own for each turn, on one CPU; medians."""
    figures = []
    for turn in range(turns):
        folder = scratch / f"record-{turn}"
        folder.mkdir()
        figures.append(measured(record=str(folder), seconds=seconds))
    middle = {name: percentile([each[name] for each in figures], 0.5) for name in figures[0]}
    costs = sorted(each["us"] for each in figures)
    print(
        f"the record: {middle['us']:.0f} us of CPU a job ({costs[0]:.0f} to {costs[-1]:.0f}); "
        f"the same rows in as many commits by SQLite alone {middle['sqlite_us']:.0f} us"
    )
    goal("3a the record, CPU a job", middle["us"], 60, " us")
    goal("3b p99 until safe", middle["p99_ms"], 10, " ms")
    goal("3c longest stall of the loop", max(each["stall_ms"] for each in figures), 10, " ms")


# Goals 4 and 6: a million rows.


def resume(folder: Path) -> dict[str, float]:
    """Find out what is left of a large record; in a process of its own."""
    from prodia_async.batch._record import connect

    reset_peak_memory()
    before, began = peak_memory(), time.perf_counter()
    connection = connect(folder / "run.sqlite", read_only=True)
    counts = dict(connection.execute("SELECT state, count(*) FROM job GROUP BY state"))
    seconds = time.perf_counter() - began
    connection.close()
    known = peak_memory() - before
    reset_peak_memory()
    before = peak_memory()
    began = time.perf_counter()
    done = asyncio.run(go_through(folder, sum(counts.values())))
    return {
        "seconds": seconds, "mb": known, "through_seconds": time.perf_counter() - began,
        "through_mb": peak_memory() - before, "done": done,
    }  # fmt: skip


async def go_through(folder: Path, rows: int) -> int:
    """Give a batch all rows of a folder that has them all."""
    from prodia_async import AsyncProdia
    from prodia_async.batch import Batch

    client = AsyncProdia("any", base_url="http://127.0.0.1:9")
    async with client, Batch(folder, client, progress=False) as batch:
        summary = await batch.run(job(i) for i in range(rows))
    return summary.done_before


def a_million(scratch: Path, rows: int) -> None:
    """Make a record of so many rows, and look at its size, at what is left, and at the report."""
    folder = scratch / "million"
    began = time.perf_counter()
    fill(folder, rows, failed=0.0, rate=1000.0)
    print(f"a record of {rows:,} rows written in {time.perf_counter() - began:.0f} s")
    scale = rows / 1_000_000
    size = (folder / "run.sqlite").stat().st_size / 1e6
    goal("4a size of the record", size, 160 * scale, " MB")
    with child(resume=str(folder)) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.read())
    goal("4b knowing what is left", found["seconds"], 1.0, " s")
    goal("4c memory for that", found["mb"], 5, " MB")
    print(f"   all {found['done']:,} rows held against it in {found['through_seconds']:.0f} s")
    goal("4d memory over a run of them", found["through_mb"], 20, " MB")
    began = time.perf_counter()
    page = BatchRecord(folder).write_report()
    goal("6a the report, seconds", time.perf_counter() - began, 10 * max(scale, 0.2), " s")
    goal("6b its size", page.stat().st_size / 1e6, 3, " MB")


# Goal 5: beside a bare map.


def beside_map(scratch: Path, *, jobs: int, slots: int, turns: int) -> None:
    """Run us and the peers by turns; medians."""
    figures: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for turn in range(turns):
        for way in WAYS:
            with serving(slots, 0.1) as url:
                figures[way].append(
                    measured(
                        way=way, url=url, jobs=jobs, slots=slots,
                        folder=str(scratch / f"beside-{way}-{turn}"),
                    )
                )  # fmt: skip
    middle = {
        way: {name: percentile([each[name] for each in some], 0.5) for name in some[0]}
        for way, some in figures.items()
    }
    for way, each in middle.items():
        print(
            f"{way:20} {jobs / each['seconds']:7.1f} jobs/s  {each['cpu_ms']:6.2f} ms CPU a job  "
            f"{each['peak_mb']:6.1f} MB"
        )
    ours, bare = middle["Batch"], middle["map that saves"]
    least = middle["written first"]["seconds"] / bare["seconds"]
    by_hand = middle["safe by hand"]["cpu_ms"] / bare["cpu_ms"]
    print(f"written first, which holds its slot until the file is written: {least:.3f} x the map")
    print(f"a file synced and a row for each, by hand: {by_hand:.2f} x the CPU of the map")
    goal("5a seconds beside a bare map", ours["seconds"] / bare["seconds"], 1.01)
    goal("5b CPU beside a bare map", ours["cpu_ms"] / bare["cpu_ms"], 1.25)


def main() -> None:
    """Measure all of it."""
    given = options(__doc__)
    if given.measure is not None:
        measure(given.measure)
        return
    quick = given.quick
    scratch = Path(tempfile.mkdtemp(prefix="batch-"))
    try:
        record_goals(scratch, seconds=1.0 if quick else 5.0, turns=1 if quick else 7)
        a_million(scratch, 20_000 if quick else 1_000_000)
        beside_map(scratch, jobs=300 if quick else 3000, slots=50, turns=1 if quick else 5)
        times, jobs = (2, 200) if quick else (20, 2500)
        by_hand = {"written first", "safe by hand"}  # they lose what `map` does
        for way in (each for each in WAYS if each not in by_hand):
            few = times if way == "Batch" else min(times, 5)
            kills(way, times=few, jobs=jobs, slots=50, number=signal.SIGKILL, scratch=scratch)
        kills("Batch", times=times, jobs=jobs, slots=50, number=signal.SIGTERM, scratch=scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
