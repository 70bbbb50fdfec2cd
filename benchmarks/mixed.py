"""
What do jobs of a type that works lose beside as many of a type that always fails?

Two thousand of each through one `map`, and through what is usual: a semaphore
of as many as there are workers, and tenacity's exponential backoff around each
job. The ceiling is what the workers can do.

::

    python benchmarks/mixed.py            # about two minutes
    python benchmarks/mixed.py --quick
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import httpx
import tenacity
from _harness import goal, options

from prodia_async import AsyncProdia
from prodia_async.emulator import Emulator

WORKERS = 20
SECONDS = 0.25
ALIVE, DEAD = "inference.ping.v1", "inference.flux-2.klein.4b.txt2img.v1"
JOBS: dict[str, dict[str, Any]] = {
    ALIVE: {"type": ALIVE},
    DEAD: {"type": DEAD, "config": {"prompt": "a fox"}},
}


def latency(job_type: str) -> float:
    """Return how long a job takes; what is raised becomes a 500."""
    if job_type == DEAD:
        raise RuntimeError("this type is broken")
    return SECONDS


async def ours(url: str, jobs: int) -> float:
    """Return how long the healthy ones took."""
    done, began = 0, time.perf_counter()
    async with AsyncProdia("t", base_url=url) as prodia:
        both = [JOBS[kind] for _ in range(jobs) for kind in (ALIVE, DEAD)]
        async with prodia.map(both) as outcomes:
            async for outcome in outcomes:
                done += outcome.error is None
                if done == jobs:
                    return time.perf_counter() - began
    raise AssertionError(f"only {done} of {jobs} were done")


async def usual(url: str, jobs: int) -> float:
    """Return the same for a semaphore and tenacity."""
    semaphore, began = asyncio.Semaphore(WORKERS), time.perf_counter()
    ended: list[float] = []
    lost = Counter[str]()

    def is_to_go_on(error: BaseException) -> bool:
        return isinstance(error, httpx.HTTPStatusError)

    @tenacity.retry(
        retry=tenacity.retry_if_exception(is_to_go_on),
        wait=tenacity.wait_random_exponential(max=8),
        stop=tenacity.stop_after_attempt(5),
        reraise=True,
    )
    async def post(client: httpx.AsyncClient, kind: str) -> None:
        headers = {"Authorization": "Bearer t", "Accept": "*/*"}
        response = await client.post("/v2/job", json=JOBS[kind], headers=headers)
        response.raise_for_status()

    async def one(client: httpx.AsyncClient, kind: str) -> None:
        async with semaphore:
            try:
                await post(client, kind)
            except httpx.HTTPStatusError:
                lost[kind] += 1
            else:
                ended.append(time.perf_counter())

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        kinds = [kind for _ in range(jobs) for kind in (ALIVE, DEAD)]
        await asyncio.gather(*(one(client, kind) for kind in kinds))
    assert lost == {DEAD: jobs}, lost
    return max(ended) - began


def main() -> None:
    """Print both."""
    quick = options(__doc__).quick
    jobs = 200 if quick else 2000
    least = jobs * SECONDS / WORKERS
    for name, way in (("ours", ours), ("semaphore, tenacity", usual)):
        with Emulator(workers=WORKERS, latency=latency, retry_after=1.0) as api:
            few = jobs if way is ours else min(jobs, 200)
            seconds = asyncio.run(way(api.base_url, few))
            share = few * SECONDS / WORKERS / seconds
            asked = api.ledger.totals().types[DEAD]
            print(
                f"{name:20} {few:5} healthy jobs: {share:.3f} of the ceiling, {asked} to the dead"
            )
            if way is ours and not quick:
                goal(
                    "mixed map, times the least that the healthy jobs take",
                    seconds / least,
                    1 / 0.9,
                )


if __name__ == "__main__":
    main()
