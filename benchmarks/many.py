"""
What does `map` add to a job, and does memory stay flat over 100,000 of them?

Jobs over a transport that answers at once, without sockets. What `map` adds is
its CPU per job less that of a plain loop of ``await client.job(...)``, the two
by turns in one process, 500 jobs each; the median of the differences between
neighbours counts. The same by hand (64 tasks that draw from one iterator) and
as users often write it (a task for each job behind a semaphore) stand beside
it. The outcomes are read and dropped, so all memory beyond the start is the
machinery's.

::

    python benchmarks/many.py            # about three minutes
    python benchmarks/many.py --quick    # a smoke test
"""

from __future__ import annotations

import asyncio
import gc
from statistics import median
from typing import TYPE_CHECKING, Any

from _harness import (
    JOB,
    TOKEN,
    Contender,
    Figures,
    cpu_seconds,
    goal,
    options,
    peak_memory,
    present,
    report,
    reset_peak_memory,
    rounds,
)
from _null import NullTransport

from prodia_async import AsyncProdia

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

CONCURRENCY = 64
_TURN = 500
LOOP, MAP, ORDERED = "loop of client.job", "client.map", "client.map, ordered"
ADDED = "map less loop"
BY_HAND, GATHER = "64 tasks by hand", "a task for each job"
IN_LOOP_TURNS = ", a turn each"
"""The same over a transport that takes one turn of the event loop, as sockets do."""


def _jobs(count: int) -> Iterator[dict[str, Any]]:
    return (JOB for _ in range(count))


async def _loop(client: AsyncProdia, count: int) -> None:
    for job in _jobs(count):
        await client.job(job)


async def _map(client: AsyncProdia, count: int, *, ordered: bool = False) -> None:
    done = 0
    async with client.map(_jobs(count), ordered=ordered) as outcomes:
        async for outcome in outcomes:
            done += outcome.error is None
    assert done == count


async def _by_hand(client: AsyncProdia, count: int) -> None:
    jobs = _jobs(count)

    async def work() -> None:
        for job in jobs:
            await client.job(job)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONCURRENCY):
            tasks.create_task(work())


async def _gather(client: AsyncProdia, count: int) -> None:
    places = asyncio.Semaphore(CONCURRENCY)

    async def one(job: dict[str, Any]) -> None:
        async with places:
            await client.job(job)

    await asyncio.gather(*(one(job) for job in _jobs(count)))


_WAYS: dict[str, Callable[[AsyncProdia, int], Awaitable[None]]] = {
    LOOP: _loop,
    MAP: _map,
    ORDERED: lambda client, count: _map(client, count, ordered=True),
    BY_HAND: _by_hand,
    GATHER: _gather,
}


async def _measure(contender: str, jobs: int) -> Figures:
    run = _WAYS[contender.removesuffix(IN_LOOP_TURNS)]
    transport = NullTransport(1000, turns=int(contender.endswith(IN_LOOP_TURNS)))
    async with AsyncProdia(TOKEN, transport=transport, max_concurrency=CONCURRENCY) as client:
        await run(client, 2000)
        gc.collect()
        before = reset_peak_memory()
        cpu = cpu_seconds()
        await run(client, jobs)
        cpu = cpu_seconds() - cpu
        return {"cpu_us": cpu / jobs * 1e6, "peak_mb": peak_memory() - before}


async def _measure_added(jobs: int) -> Figures:
    """Run map and loop by turns."""
    added: list[float] = []
    transport = NullTransport(1000)
    async with AsyncProdia(TOKEN, transport=transport, max_concurrency=CONCURRENCY) as client:
        await _map(client, 2000)
        for _ in range(jobs // _TURN):
            start = cpu_seconds()
            await _loop(client, _TURN)
            middle = cpu_seconds()
            await _map(client, _TURN)
            added.append((cpu_seconds() - middle) - (middle - start))
    return {"cpu_us": median(added) / _TURN * 1e6}


def main() -> None:
    """Measure all contenders and print the table and the goals."""
    chosen = options(__doc__)
    if chosen.measure:
        parameters = chosen.measure
        if parameters["contender"] == ADDED:
            report(asyncio.run(_measure_added(parameters["jobs"])))
        else:
            report(asyncio.run(_measure(**parameters)))
        return
    jobs, count = (2000, 1) if chosen.quick else (6_000, 3)
    print(f"us of CPU per job, {jobs} jobs over a transport that answers at once")
    names = [LOOP, MAP, ADDED, ORDERED, BY_HAND, GATHER]
    names += [name + IN_LOOP_TURNS for name in (LOOP, MAP, BY_HAND)]
    wanted = present([Contender(name, {"jobs": jobs}) for name in names], chosen.only)
    results = rounds(wanted, count)
    results.table({"cpu_us": "CPU us/job", "peak_mb": "peak +MB"}, baseline=LOOP)
    most = 5000 if chosen.quick else 100_000
    large = rounds(present([Contender(MAP, {"jobs": most})], chosen.only), 1)
    if ADDED in results.rounds:
        goal("8a: what map adds to a job", results.median(ADDED, "cpu_us"), 15, " us")
    if large.rounds:
        goal(f"8b: peak memory over {most} jobs", large.median(MAP, "peak_mb"), 5, " MB")


if __name__ == "__main__":
    main()
