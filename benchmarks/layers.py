"""
What do our layers add to the bare transport, per job?

A slot from the scheduler, the retry loop, the request's building, decoding,
the models: `AsyncProdia.job` against a loop that hands one prepared order to
the same `DirectTransport` and reads the answer's bytes, with each parser. 100 in flight,
50 ms jobs, 53 KB answers. Both run in one process, a thousand jobs by turns,
and what counts is the median of the differences between neighbours.

Below it the same jobs over a transport that answers at once, without sockets:
all that is left there is ours (and httpx's request and response objects,
which a transport that is not ours gets).

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
from prodia_async._wire import Order, Sending, Target
from prodia_async.transports._direct import DirectTransport
from prodia_async.transports._parsers import PARSERS

DELAY_MS = 50
CONCURRENCY = 100
OURS = "AsyncProdia.job"
BARE = "DirectTransport, read"
NULL = "AsyncProdia.job, null transport"


async def _bare(transport: DirectTransport, order: Order) -> None:
    answer = await transport.exchange(order)
    size = 0
    while piece := await answer.read():
        size += len(piece)
    assert size > OUTPUT_BYTES


def _order(url: str) -> Order:
    parsed = httpx.URL(f"{url}/v2/job")
    body = json.dumps(JOB).encode()
    headers = {"Host": parsed.netloc.decode(), **HEADERS, "Content-Type": "application/json"}
    return Order(
        "POST",
        Target(parsed.scheme, parsed.host, parsed.port or 80, parsed.raw_path),
        [(name.encode(), value.encode()) for name, value in headers.items()]
        + [(b"Content-Length", b"%d" % len(body))],
        body=body,
        length=len(body),
        sending=Sending(),
        connect=10.0,
        read=60.0,
        write=60.0,
    )


async def _measure_pair(url: str, parser: str, jobs: int, turns: int) -> Figures:
    order = _order(url)
    ours: list[float] = []
    bare: list[float] = []
    async with (
        AsyncProdia(
            TOKEN,
            base_url=url,
            max_concurrency=CONCURRENCY,
            transport=DirectTransport(parser=parser),
        ) as client,
        DirectTransport(parser=parser) as transport,
    ):
        for _ in range(turns):
            for costs, one_job in (
                (ours, lambda: client.job(JOB)),
                (bare, lambda: _bare(transport, order)),
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
                    _measure_pair(
                        parameters["url"],
                        parameters["contender"].rpartition(" ")[2],
                        parameters["jobs"],
                        parameters["turns"],
                    )
                )
            )
        return
    print("ms of CPU per job")
    jobs, turns, count = (300, 2, 1) if chosen.quick else (1000, 4, 5)
    with serving(SERVER_CPU) as server:
        url = server.url(delay_ms=DELAY_MS)
        contenders = [
            *(
                Contender(f"{OURS}, {parser}", {"url": url, "jobs": jobs, "turns": turns})
                for parser in PARSERS
            ),
            Contender(NULL, {"jobs": 5 * jobs}),
        ]
        results = rounds(contenders, count)
    results.table({"added_ms": "our layers", "cpu_ms": "whole job", "bare_ms": BARE[:12]})
    for parser in PARSERS:
        added = results.median(f"{OURS}, {parser}", "added_ms")
        goal(f"5: our layers over the bare transport, {parser}", added, 0.08, " ms")


if __name__ == "__main__":
    main()
