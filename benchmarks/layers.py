"""
What do our layers add to the bare transport, per job?

A slot from the scheduler, the retry loop, the request's building, decoding,
the models: `AsyncProdia.job` against a loop that sends one prepared request
over the same `DirectTransport` and reads the answer's bytes. 100 in flight,
50 ms jobs, 53 KB answers. Both run in one process, a thousand jobs by turns,
and what counts is the median of the differences between neighbours.

Below it the same jobs over a transport that answers at once, without sockets:
all that is left there is ours (and httpx's request and response objects).

::

    python benchmarks/layers.py            # about a minute and a half
    python benchmarks/layers.py --quick    # a smoke test
"""

from __future__ import annotations

import asyncio
import json
from statistics import median

import httpx
from _harness import (
    JOB,
    SERVER_CPU,
    TOKEN,
    Contender,
    Figures,
    cpu_seconds,
    drive,
    goal,
    options,
    report,
    rounds,
)
from _null import NullTransport
from _peers import HEADERS
from _server import OUTPUT_BYTES, serving

from prodia_async import AsyncProdia
from prodia_async.transports._direct import DirectTransport

DELAY_MS = 50
CONCURRENCY = 100
OURS = "AsyncProdia.job"
BARE = "DirectTransport, read"
NULL = "AsyncProdia.job, null transport"


async def _bare(transport: httpx.AsyncBaseTransport, request: httpx.Request) -> None:
    response = await transport.handle_async_request(request)
    assert isinstance(response.stream, httpx.AsyncByteStream)
    body = b"".join([chunk async for chunk in response.stream])
    await response.aclose()
    assert len(body) > OUTPUT_BYTES


async def _measure_pair(url: str, jobs: int, turns: int) -> Figures:
    request = httpx.Request("POST", f"{url}/v2/job", headers=HEADERS, content=json.dumps(JOB))
    ours: list[float] = []
    bare: list[float] = []
    async with (
        AsyncProdia(TOKEN, base_url=url, max_concurrency=CONCURRENCY) as client,
        DirectTransport() as transport,
    ):
        for _ in range(turns):
            for costs, one_job in (
                (ours, lambda: client.job(JOB)),
                (bare, lambda: _bare(transport, request)),
            ):
                figures = await drive(
                    one_job, jobs=jobs, concurrency=CONCURRENCY, delay_ms=DELAY_MS
                )
                costs.append(figures["cpu_ms"])
    return {
        "cpu_ms": median(ours),
        "bare_ms": median(bare),
        "added_ms": median(a - b for a, b in zip(ours, bare, strict=True)),
    }


async def _measure_null(jobs: int) -> Figures:
    async with AsyncProdia(TOKEN, transport=NullTransport(OUTPUT_BYTES)) as client:
        for _ in range(500):
            await client.job(JOB)
        cpu = cpu_seconds()
        for _ in range(jobs):
            await client.job(JOB)
        return {"added_ms": (cpu_seconds() - cpu) / jobs * 1e3}


def main() -> None:
    """Measure and print the table and the goal."""
    chosen = options(__doc__)
    if chosen.measure:
        parameters = chosen.measure
        if parameters["contender"] == NULL:
            report(asyncio.run(_measure_null(parameters["jobs"])))
        else:
            report(
                asyncio.run(
                    _measure_pair(parameters["url"], parameters["jobs"], parameters["turns"])
                )
            )
        return
    print("ms of CPU per job")
    jobs, turns, count = (300, 2, 1) if chosen.quick else (1000, 4, 5)
    with serving(SERVER_CPU) as server:
        url = server.url(delay_ms=DELAY_MS)
        contenders = [
            Contender(OURS, {"url": url, "jobs": jobs, "turns": turns}),
            Contender(NULL, {"jobs": 5 * jobs}),
        ]
        results = rounds(contenders, count)
    results.table({"added_ms": "our layers", "cpu_ms": "whole job", "bare_ms": BARE[:12]})
    goal("5: our layers over the bare transport", results.median(OURS, "added_ms"), 0.12, " ms")


if __name__ == "__main__":
    main()
