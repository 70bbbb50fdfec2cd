"""
Does a job cost the same whether ten or a thousand are in flight?

Jobs that take the server 50 ms, answers of 53 KB, decoded, at 10, 100 and
1000 in flight; the client's CPU per job, and the connections that the server
saw opened. Beside ours (h11, and httptools), pools of 5 and aiohttp. (One httpx pool is not shown:
at 100 it costs 18 ms per job, and at 1000 it did not finish.)

::

    python benchmarks/concurrency.py            # about five minutes
    python benchmarks/concurrency.py --quick    # a smoke test
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.request import urlopen

from _harness import (
    SERVER_CPU,
    Contender,
    Figures,
    drive,
    goal,
    missing,
    options,
    present,
    report,
    rounds,
)
from _peers import AIOHTTP, AIOHTTP_RAW, FAST, HTTPX_POOLS, OPENERS, OURS
from _server import serving

DELAY_MS = 50
NEEDS = {FAST: "httptools", AIOHTTP: "aiohttp", AIOHTTP_RAW: "aiohttp"}


async def _measure(contender: str, url: str, ledger: str, jobs: int, concurrency: int) -> Figures:
    name = contender.rpartition(",")[0]
    _ask(ledger)
    async with OPENERS[name](url, concurrency) as one_job:
        figures = await drive(one_job, jobs=jobs, concurrency=concurrency, delay_ms=DELAY_MS)
    # The second question travels on a connection of its own.
    return {**figures, "connections": _ask(ledger)["connections"] - 1}


def _ask(ledger: str) -> dict[str, Any]:
    with urlopen(ledger) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def main() -> None:
    """Measure all contenders and print the table and the goals."""
    chosen = options(__doc__)
    if chosen.measure:
        report(asyncio.run(_measure(**chosen.measure)))
        return
    print("50 ms jobs, 53 KB answers; ms of the client's CPU per job by jobs in flight")
    sizes = {10: 60, 100: 400, 1000: 1000} if chosen.quick else {10: 300, 100: 2000, 1000: 3000}
    count = 1 if chosen.quick else 4
    with serving(SERVER_CPU) as server:
        common = {
            "url": server.url(delay_ms=DELAY_MS),
            "ledger": f"http://127.0.0.1:{server.plain}/ledger",
        }
        contenders = [
            Contender(
                f"{name},{concurrency:5}",
                {"jobs": jobs, "concurrency": concurrency, **common},
                missing=missing(NEEDS[name]) if name in NEEDS else "",
            )
            for name in (OURS, FAST, AIOHTTP_RAW, AIOHTTP, HTTPX_POOLS)
            for concurrency, jobs in sizes.items()
        ]
        results = rounds(present(contenders, chosen.only), count)
    results.table(
        {
            "cpu_ms": "CPU ms/job",
            "jobs_per_s": "jobs/s",
            "p50_ms": "+p50 ms",
            "p99_ms": "+p99 ms",
            "peak_mb": "peak MB",
            "connections": "connections",
        },
        baseline=f"{OURS},{10:5}",
    )
    for name in (OURS, FAST):
        few, many = f"{name},{10:5}", f"{name},{1000:5}"
        if few not in results.rounds:
            continue
        ratio = results.median(many, "cpu_ms") / results.median(few, "cpu_ms")
        goal(f"4: CPU per job of {name}, 1000 in flight over 10", ratio, 1.1)
        for concurrency in sizes:
            opened = max(results.values(f"{name},{concurrency:5}", "connections"))
            goal(f"4: connections of {name} with {concurrency} in flight", opened, concurrency)


if __name__ == "__main__":
    main()
