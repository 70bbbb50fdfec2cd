"""
The ways to run a job that users have today, each as one function that runs one job.

All read the whole answer; those named "decoded" also take the multipart body
apart with python-multipart, as a careful user would by hand, and parse the
job's JSON. None retries, counts or checks: less than a client has to do.
aiohttp, requests and httptools are not dependencies of the package, so
they are imported where they are used.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from typing import Any

import httpx
from _harness import JOB, TOKEN, OneJob
from python_multipart.multipart import MultipartParser, parse_options_header

from prodia_async import AsyncProdia
from prodia_async.transports import aiohttp_transport
from prodia_async.transports._direct import DirectTransport

HEADERS = {
    "Authorization": f"Bearer {TOKEN}",
    "Accept": "multipart/form-data; image/jpeg",
    "Accept-Encoding": "identity",
}

Opener = Callable[[str, int], AbstractAsyncContextManager[OneJob]]
"""Takes the base URL and the concurrency."""


def decode_by_hand(content_type: str, body: bytes) -> tuple[Any, bytes]:
    """Take a multipart answer apart: the job's JSON, and the output's bytes."""
    boundary = parse_options_header(content_type)[1][b"boundary"]
    parts: list[list[bytes]] = []
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": lambda: parts.append([]),
            "on_part_data": lambda data, start, end: parts[-1].append(data[start:end]),
        },
    )
    parser.write(body)
    parser.finalize()
    job, output = (b"".join(part) for part in parts)
    return json.loads(job), output


def _opener_of_ours(parser: str) -> Opener:
    @asynccontextmanager
    async def ours(url: str, concurrency: int) -> AsyncIterator[OneJob]:
        """The package, with its defaults but for the concurrency."""
        transport = DirectTransport(parser=parser)
        async with AsyncProdia(
            TOKEN, base_url=url, max_concurrency=concurrency, transport=transport
        ) as client:

            async def one_job() -> None:
                response = await client.job(JOB)
                assert len(response.output.content) > 1000

            yield one_job

    return ours


def _httpx_job(choose: Callable[[], httpx.AsyncClient], url: str, *, decoded: bool) -> OneJob:
    async def one_job() -> None:
        response = await choose().post(f"{url}/v2/job", json=JOB, headers=HEADERS)
        response.raise_for_status()
        if decoded:
            decode_by_hand(response.headers["content-type"], response.content)

    return one_job


def _httpx_opener(limits: httpx.Limits | None, *, decoded: bool) -> Opener:
    @asynccontextmanager
    async def open_client(url: str, concurrency: int) -> AsyncIterator[OneJob]:
        # Its timeout of 5 s holds for the wait in its own queue as well, so some jobs would fail.
        given = limits or httpx.Limits(
            max_connections=concurrency, max_keepalive_connections=concurrency
        )
        async with httpx.AsyncClient(limits=given, timeout=60) as client:
            yield _httpx_job(lambda: client, url, decoded=decoded)

    return open_client


_DEFAULT_LIMITS = httpx.Limits(
    max_connections=100, max_keepalive_connections=20, keepalive_expiry=5.0
)
"""Those of httpx 0.28, written out."""


@asynccontextmanager
async def httpx_pools_of_5(url: str, concurrency: int) -> AsyncIterator[OneJob]:
    """A client for each five jobs in flight, one after the other."""
    limits = httpx.Limits(max_connections=5, max_keepalive_connections=5)
    context = httpx.create_ssl_context()
    clients = [
        httpx.AsyncClient(limits=limits, timeout=60, verify=context)
        for _ in range(-(-concurrency // 5))
    ]
    turns = iter(range(10**9))
    yield _httpx_job(lambda: clients[next(turns) % len(clients)], url, decoded=True)
    for client in clients:
        await client.aclose()


def _aiohttp_opener(*, decoded: bool) -> Opener:
    @asynccontextmanager
    async def open_session(url: str, concurrency: int) -> AsyncIterator[OneJob]:
        aiohttp = import_module("aiohttp")
        connector = aiohttp.TCPConnector(limit=concurrency)
        async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:

            async def one_job() -> None:
                async with session.post(f"{url}/v2/job", json=JOB) as response:
                    body = await response.read()
                    if decoded:
                        decode_by_hand(response.headers["content-type"], body)

            yield one_job

    return open_session


@asynccontextmanager
async def over_aiohttp(url: str, concurrency: int) -> AsyncIterator[OneJob]:
    """The package over aiohttp, its extra."""
    transport = aiohttp_transport(max_connections=concurrency)
    async with AsyncProdia(
        TOKEN, base_url=url, max_concurrency=concurrency, transport=transport
    ) as client:
        yield lambda: client.job(JOB)


OURS = "prodia_async"
FAST = "prodia_async[fast]"
HTTPX = "httpx, default limits"
HTTPX_RAISED = "httpx, limits raised"
HTTPX_POOLS = "httpx, pools of 5"
AIOHTTP_RAW = "aiohttp, not decoded"
AIOHTTP = "aiohttp, decoded"
REQUESTS = "requests + threads"
NODE = "npm prodia 1.6.0"

OPENERS: dict[str, Opener] = {
    OURS: _opener_of_ours("h11"),
    FAST: _opener_of_ours("httptools"),
    HTTPX: _httpx_opener(_DEFAULT_LIMITS, decoded=True),
    f"{HTTPX}, not decoded": _httpx_opener(_DEFAULT_LIMITS, decoded=False),
    HTTPX_RAISED: _httpx_opener(None, decoded=True),
    HTTPX_POOLS: httpx_pools_of_5,
    AIOHTTP_RAW: _aiohttp_opener(decoded=False),
    AIOHTTP: _aiohttp_opener(decoded=True),
    "prodia_async[aiohttp]": over_aiohttp,
}
