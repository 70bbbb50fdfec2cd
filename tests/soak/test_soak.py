"""Long runs, outside CI: ``nox -s soak``. Bounded in count and time, on 127.0.0.1 alone."""

from __future__ import annotations

import gc
import random
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
from conftest import on_both_loops, open_sockets, until
from raw_server import GOOD_BODY, MULTIPART_TYPE, Conversation, RawServer, http

from prodia_async import AsyncProdia

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PING = {"type": "inference.ping.v1"}

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]


def resident_kilobytes() -> int:
    """Return what this process has in memory now."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1])


class NullTransport(httpx.AsyncBaseTransport):
    """Answers at once, without a socket."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.lowlevel.checkpoint()
        headers = {"content-type": MULTIPART_TYPE, "content-length": str(len(GOOD_BODY))}
        return httpx.Response(200, headers=headers, stream=Whole())


class Whole(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield GOOD_BODY


@on_both_loops
async def test_ten_thousand_random_cancellations() -> None:
    """Jobs cancelled at random moments: then all slots work, and no socket is left."""
    seeded = random.Random(42)
    before = open_sockets()

    def dawdle(conversation: Conversation) -> None:
        conversation.server.over.wait(seeded.uniform(0, 0.01))
        if seeded.random() < 0.2:
            conversation.send(http("429 Busy", b"", "Retry-After: 0.01"))
        else:
            conversation.send(http())

    with RawServer([dawdle] * 20_000) as server:
        async with AsyncProdia("t", base_url=server.url, max_concurrency=32) as prodia:

            async def one() -> None:
                with anyio.move_on_after(seeded.uniform(0, 0.05)):
                    await prodia.job(PING)

            for _ in range(100):
                async with anyio.create_task_group() as group:
                    for _ in range(100):
                        group.start_soon(one)
            counts = prodia.statistics()
            assert (counts.in_flight, counts.queued, counts.waiting) == (0, 0, 0)
            assert counts.completed + counts.failed == 10_000
            del server.replies[:]
            barrier = 0

            def meet(conversation: Conversation) -> None:
                nonlocal barrier
                barrier += 1
                while barrier < 32 and not conversation.server.over.wait(0.01):
                    pass
                conversation.send(http())

            server.replies.extend([meet] * 32)
            with anyio.fail_after(60):
                async with (
                    AsyncProdia(
                        "t", base_url=server.url, max_concurrency=32, adaptive=False
                    ) as fixed,
                    anyio.create_task_group() as group,
                ):
                    for _ in range(32):
                        group.start_soon(fixed.job, PING)
        await until(lambda: server.open == 0)
    assert open_sockets() - before <= 2


async def test_a_million_jobs_through_map() -> None:
    """A million jobs from a generator, with a consumer that dawdles now and then: memory flat."""
    total = 1_000_000

    def jobs() -> Iterator[dict[str, str]]:
        for _ in range(total):
            yield PING

    done = 0
    settled = 0
    async with AsyncProdia("t", transport=NullTransport()) as prodia:
        async with prodia.map(jobs()) as outcomes:
            async for outcome in outcomes:
                assert outcome.error is None
                done += 1
                if done % 100_000 == 0:
                    await anyio.sleep(0.05)
                if done == 50_000:
                    gc.collect()
                    settled = resident_kilobytes()
        assert prodia.statistics().completed == total
    gc.collect()
    assert done == total
    assert resident_kilobytes() - settled < 5_000
