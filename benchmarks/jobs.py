"""
What does a job cost with 100 in flight, beside the clients that users have today?

Jobs that take the server 50 ms, answers of 53 KB, decoded: a job result and
the output's bytes; plain and over TLS; for us h11 reads, or httptools. The
figure is the client's CPU per job; jobs per second and the latency beyond the
server's 50 ms stand beside it.

::

    python benchmarks/jobs.py              # about six minutes
    python benchmarks/jobs.py --quick      # a smoke test
    python benchmarks/jobs.py --only httpx

The peers that are no dependencies of the package are left out when they are not
there: ``pip install aiohttp requests``, and for the official client
``npm install --no-package-lock --prefix benchmarks/peers`` with Node 18 or later.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from _harness import (
    JOB,
    SERVER_CPU,
    TOKEN,
    Contender,
    Figures,
    cpu_seconds,
    drive,
    missing,
    options,
    present,
    ratio_goal,
    report,
    rounds,
    summary,
)
from _peers import (
    AIOHTTP,
    AIOHTTP_RAW,
    FAST,
    HEADERS,
    HTTPX,
    HTTPX_POOLS,
    HTTPX_RAISED,
    NODE,
    OPENERS,
    OURS,
    REQUESTS,
    decode_by_hand,
)
from _server import CERTIFICATE, serving

DELAY_MS = 50
PEERS = Path(__file__).parent / "peers"
TLS = ", TLS"


async def _measure_async(name: str, url: str, jobs: int, concurrency: int) -> Figures:
    async with OPENERS[name](url, concurrency) as one_job:
        return await drive(one_job, jobs=jobs, concurrency=concurrency, delay_ms=DELAY_MS)


def _measure_requests(url: str, jobs: int, concurrency: int) -> Figures:
    """One session and a pool of threads, with the retry adapter of the API's documents."""
    requests: Any = import_module("requests")
    retry: Any = import_module("urllib3.util").Retry
    session = requests.Session()
    policy = retry(allowed_methods=None, status_forcelist=retry.RETRY_AFTER_STATUS_CODES)
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=policy))
    session.headers.update(HEADERS)

    def one_job(_: int) -> float:
        began = time.perf_counter()
        response = session.post(f"{url}/v2/job", json=JOB)
        response.raise_for_status()
        decode_by_hand(response.headers["content-type"], response.content)
        return time.perf_counter() - began

    with ThreadPoolExecutor(concurrency) as threads:
        list(threads.map(one_job, range(3 * concurrency)))
        cpu, wall = cpu_seconds(), time.perf_counter()
        latencies = list(threads.map(one_job, range(jobs)))
        cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    return summary(jobs=jobs, cpu=cpu, wall=wall, latencies=latencies, delay_ms=DELAY_MS)


def _measure(contender: str, url: str, jobs: int, concurrency: int, **_: object) -> Figures:
    contender = contender.removesuffix(TLS)
    if contender == REQUESTS:
        return _measure_requests(url, jobs, concurrency)
    return asyncio.run(_measure_async(contender, url, jobs, concurrency))


def _contenders(url: str, jobs: int, concurrency: int, *, tls: bool) -> list[Contender]:
    aiohttp = missing("aiohttp")
    node = ""
    if shutil.which("node") is None:
        node = "no node here"
    elif not (PEERS / "node_modules" / "prodia").is_dir():
        node = f"npm install --no-package-lock --prefix {PEERS}"
    # The slowest get fewer jobs; what they cost does not depend on it.
    contenders = [
        Contender(OURS, {"jobs": jobs}),
        Contender(FAST, {"jobs": jobs}, missing=missing("httptools")),
        Contender(AIOHTTP_RAW, {"jobs": jobs}, missing=aiohttp),
        Contender(AIOHTTP, {"jobs": jobs}, missing=aiohttp),
        Contender(HTTPX, {"jobs": jobs // 2}),
    ]
    if tls:
        for each in contenders:
            each.name += TLS
    else:
        contenders += [
            Contender("prodia_async[aiohttp]", {"jobs": jobs}, missing=aiohttp),
            Contender(HTTPX_POOLS, {"jobs": jobs // 2}),
            Contender(f"{HTTPX}, not decoded", {"jobs": jobs // 2}),
            Contender(HTTPX_RAISED, {"jobs": jobs // 6}),
            Contender(REQUESTS, {"jobs": jobs // 2}, missing=missing("requests")),
            Contender(
                NODE,
                {"jobs": jobs // 2, "delay_ms": DELAY_MS, "token": TOKEN, "job": JOB},
                command=["node", str(PEERS / "jobs.mjs")],
                missing=node,
            ),
        ]
    for each in contenders:
        each.params |= {"url": url, "concurrency": concurrency}
    return contenders


def main() -> None:
    """Measure all contenders and print the table and the goals."""
    chosen = options(__doc__)
    if chosen.measure:
        report(_measure(**chosen.measure))
        return
    print("100 in flight, 50 ms jobs, 53 KB answers; ms of the client's CPU per job")
    jobs, count = (300, 1) if chosen.quick else (3000, 5)
    with serving(SERVER_CPU) as server:
        os.environ["SSL_CERT_FILE"] = str(CERTIFICATE)  # whom httpx and aiohttp trust
        contenders = [
            each
            for tls in (False, True)
            for each in _contenders(server.url(delay_ms=DELAY_MS, tls=tls), jobs, 100, tls=tls)
        ]
        results = rounds(present(contenders, chosen.only), count)
    results.table(
        {
            "cpu_ms": "CPU ms/job",
            "jobs_per_s": "jobs/s",
            "p50_ms": "+p50 ms",
            "p99_ms": "+p99 ms",
            "peak_mb": "peak MB",
        },
        baseline=OURS,
    )
    for suffix in ("", TLS):
        for ours, over_aiohttp, over_httpx in ((OURS, 1.6, 0.30), (FAST, 1.2, 0.22)):
            for peer, most in ((AIOHTTP, over_aiohttp), (HTTPX, over_httpx)):
                ratio_goal(
                    f"3: CPU, {ours}{suffix} over {peer}",
                    results,
                    ours=ours + suffix,
                    peer=peer + suffix,
                    most=most,
                )
    ratio_goal("3: CPU, ours over the official client", results, ours=OURS, peer=NODE, most=0.4)


if __name__ == "__main__":
    main()
