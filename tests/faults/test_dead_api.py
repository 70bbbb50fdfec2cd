"""A server that is down, or refuses: no batch is emptied into it, and it is not hammered."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from raw_server import http

from prodia_async import AsyncProdia, CapacityError, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROWS = 50_000
PING = {"type": "inference.ping.v1"}
DOWN_SECONDS = 3.0
JOB_SECONDS = 0.1
WORKERS = 20


class Api:
    """A server of so many workers that can be broken, in whatever way, at any moment."""

    def __init__(self) -> None:
        self.answer: bytes | None = None  # instead of working
        self.dead_type = b"no type at all"
        self.requests: list[float] = []  # while it is broken
        self.dead_requests = 0
        self.served: list[float] = []
        self.busy = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._conversations: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for each in self._conversations:
            each.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._converse(reader, writer))
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
                body = await reader.readexactly(int(fields[b"content-length"]))
                writer.write(await self._respond(body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _respond(self, body: bytes) -> bytes:
        if self.answer is not None:
            self.requests.append(time.monotonic())
            return self.answer
        if self.dead_type in body:
            self.dead_requests += 1
            return http("500 Internal Server Error", b"dead")
        if self.busy >= WORKERS:
            return http("429 Busy", b"", "Retry-After: 1")
        self.busy += 1
        try:
            await asyncio.sleep(JOB_SECONDS)
        finally:
            self.busy -= 1
        self.served.append(time.monotonic())
        return http()


@asynccontextmanager
async def api() -> AsyncIterator[Api]:
    server = Api()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Rows:
    """Many rows, and how many of them were fetched."""

    def __init__(self, *types: str) -> None:
        self.fetched = 0
        self.types = types or (PING["type"],)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(ROWS):
            self.fetched += 1
            yield {"type": self.types[number % len(self.types)]}


BROKEN = {
    "500": http("500 Internal Server Error", b"down"),
    "401": http("401 Unauthorized", b"expired", "WWW-Authenticate: Bearer"),
    "403": http("403 Forbidden", b"not for you"),
}


@pytest.mark.parametrize("how", [*BROKEN, "nobody listens"])
async def test_an_outage_consumes_next_to_no_rows(how: str) -> None:
    """Under 1 % of 50,000 are, the server is not hammered, and found again when it is back."""
    async with api() as server, AsyncProdia("t", base_url=server.url) as prodia:
        rows = Rows()
        failed: list[Exception] = []

        async def run() -> None:
            async with prodia.map(rows) as outcomes:
                async for outcome in outcomes:
                    if outcome.error is not None:
                        failed.append(outcome.error)

        task = asyncio.ensure_future(run())
        try:
            await asyncio.sleep(1.0)
            assert not failed
            before = rows.fetched
            if how == "nobody listens":
                await server.stop()
                # Those that are open are closed, as a process does that ends.
                server.answer = http("503 Ending", b"", "Connection: close")
            else:
                server.answer = BROKEN[how]
            await asyncio.sleep(DOWN_SECONDS)
            consumed = rows.fetched - before
            requests = len(server.requests)
            server.answer = None
            if how == "nobody listens":
                await server.start()
            back = time.monotonic()
            await asyncio.sleep(15 * JOB_SECONDS)
        finally:
            task.cancel()
            await asyncio.wait([task])
    # What is fetched beyond those that ended well before: the whole outage's.
    assert consumed <= 3 * WORKERS
    assert len(failed) <= 2 * WORKERS
    # What was on its way, what is sent before it is known, and some two probes a second.
    assert requests <= WORKERS + 8 + 4 * DOWN_SECONDS
    # A probe each half second, then its job, and all are at work again. The goal, five job
    # times of a longer job and nine tenths, is kept in virtual time; this machine is shared.
    late = [each for each in server.served if 8 <= (each - back) / JOB_SECONDS < 14]
    assert len(late) >= 0.6 * 6 * WORKERS


async def test_a_dead_type_does_not_stop_the_others() -> None:
    """Six hundred healthy jobs beside as many of a type that always fails."""
    async with api() as server, AsyncProdia("t", base_url=server.url) as prodia:
        server.dead_type = b"dead"
        jobs = [{"type": "alive"}, {"type": "dead"}] * 600
        done = 0
        began = time.monotonic()
        async with prodia.map(jobs) as outcomes:
            with anyio.fail_after(60):
                async for outcome in outcomes:
                    done += outcome.error is None
                    if done == 600:
                        break
        seconds = time.monotonic() - began
        assert len(server.served) >= 600
        least = 600 / WORKERS * JOB_SECONDS
        assert seconds <= least / 0.5  # 0.9 on a machine that does nothing else
        assert server.dead_requests <= 16 + 8 + 4 * seconds


async def test_a_long_retry_after_holds_its_type() -> None:
    """The job that was told raises; the others fail here, unsent; a map pauses."""
    async with api() as server, AsyncProdia("t", base_url=server.url) as prodia:
        server.answer = http("429 Busy", b"", "Retry-After: 3600")
        with pytest.raises(CapacityError) as told:
            await prodia.job(PING)
        assert told.value.retry_after == 3600
        assert len(server.requests) == 1
        for _ in range(20):
            with pytest.raises(CapacityError, match="not sent") as here:
                await prodia.job(PING)
            assert 3590 < (here.value.retry_after or 0) <= 3600
        rows = Rows()
        with anyio.move_on_after(0.3):
            async with prodia.map(rows) as outcomes:
                async for _ in outcomes:
                    pytest.fail("nothing can have come")
        assert rows.fetched <= 1
        assert len(server.requests) == 1
        server.answer = None
        assert (await prodia.job({"type": "inference.other.v1"})).outputs


@pytest.mark.parametrize("adaptive", [True, False])
async def test_the_end_of_patience_is_no_burst(adaptive: bool) -> None:
    """Two hundred queued jobs that have waited long enough fail, unsent."""
    async with api() as server:
        server.answer = http("429 Busy", b"", "Retry-After: 0.5")
        retry = RetryPolicy(max_capacity_wait=1.2)
        async with AsyncProdia(
            "t", base_url=server.url, retry=retry, adaptive=adaptive, max_concurrency=16
        ) as prodia:
            began = time.monotonic()
            found = await asyncio.gather(
                *(prodia.job(PING) for _ in range(200)), return_exceptions=True
            )
            assert time.monotonic() - began < 8
            assert all(isinstance(each, CapacityError) for each in found)
            late = [each for each in server.requests if each - began > 1.0]
            assert len(late) <= 16 + 5
            if adaptive:  # else each waits for itself alone
                assert len(server.requests) <= 16 * 4 + 5
