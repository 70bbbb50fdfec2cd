"""Rows 4, 6, 20 and 22 of the fault matrix: many jobs and a server that cannot take them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import on_both_loops, until
from raw_server import RawServer, http, say

from prodia_async import AsyncProdia, CapacityError, JobOutcome, RetryPolicy, ServerError
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

PING = {"type": "inference.ping.v1"}


@on_both_loops
async def test_a_storm_of_refusals() -> None:
    """Five hundred jobs, twenty workers, a dip to five and back: all done, none twice (row 4)."""
    latency, jobs = 0.1, 500
    async with Emulator(workers=20, latency=latency, retry_after=0.2) as emulator:
        async with AsyncProdia("t", base_url=emulator.base_url) as prodia:

            async def dip() -> None:
                await until(lambda: prodia.statistics().completed >= 100)
                emulator.set_workers(5)
                await until(lambda: prodia.statistics().completed >= 200)
                emulator.set_workers(20)

            began = time.monotonic()
            async with anyio.create_task_group() as group:
                group.start_soon(dip)
                async with prodia.map([PING] * jobs) as outcomes:
                    ids = {outcome.unwrap().request_id async for outcome in outcomes}
            seconds = time.monotonic() - began
            refusals = prodia.statistics().refusals
        totals = emulator.ledger.totals()
    assert len(ids) == jobs
    assert (totals.ran, totals.charged) == (jobs, jobs)
    # The least such a server can take is 4 s; the rest is room for a busy machine.
    assert seconds < 4 * (400 / 20 + 100 / 5) * latency
    assert refusals < 0.5 * jobs


@on_both_loops
async def test_a_dead_api_is_not_hammered_and_burns_no_batch() -> None:
    """Two hundred jobs share one budget of retries; while it is empty they wait, and probe."""
    async with Emulator(workers=200) as emulator:
        emulator.fail_next(100_000, 503)
        retry = RetryPolicy(max_attempts=10, backoff_initial=0.01, backoff_max=0.05)
        async with AsyncProdia("t", base_url=emulator.base_url, retry=retry) as prodia:
            found: list[JobOutcome] = []

            async def come_back() -> None:
                await anyio.sleep(1.5)
                # One for each that was in flight, the hundred retries that 500 tokens pay
                # for, and a probe now and then.
                assert len(emulator.ledger) <= 64 + 100 + 15
                emulator.forget_planned()

            with anyio.fail_after(30):
                async with anyio.create_task_group() as group:
                    group.start_soon(come_back)
                    async with prodia.map([PING] * 200) as outcomes:
                        async for outcome in outcomes:
                            found.append(outcome)
            assert len(found) == 200
            # Those that had used up their attempts before it was noticed, or as a probe.
            assert sum(each.error is not None for each in found) <= 12
            assert prodia.statistics().in_flight == 0


@on_both_loops
async def test_jobs_behind_a_server_that_takes_none_give_up_together() -> None:
    """Jobs that queued for as long as others were refused do not start their wait anew."""
    busy = say(http("429 Busy", b"", "Retry-After: 0.05"))
    with RawServer([busy] * 2000) as server:
        retry = RetryPolicy(max_capacity_wait=0.5)
        async with AsyncProdia("t", base_url=server.url, retry=retry) as prodia:
            failed: list[CapacityError] = []

            async def one() -> None:
                try:
                    await prodia.job(PING)
                except CapacityError as error:
                    failed.append(error)

            began = time.monotonic()
            async with anyio.create_task_group() as group:
                for _ in range(40):
                    group.start_soon(one)
            assert time.monotonic() - began < 10
    assert len(failed) == 40
    assert server.charges == 0


@on_both_loops
async def test_one_broken_callback_of_many() -> None:
    """A callback of the caller's that raises fails its own job alone (row 20)."""
    calls = 0

    async def token() -> str:
        nonlocal calls
        calls += 1
        if calls == 500:
            raise LookupError("the vault is closed")
        return "token"

    async with Emulator(workers=100) as emulator:
        async with AsyncProdia(token, base_url=emulator.base_url) as prodia:
            async with prodia.map([PING] * 1000) as outcomes:
                errors = [outcome.error async for outcome in outcomes]
        assert sorted(map(str, filter(None, errors))) == ["the vault is closed"]
        assert emulator.ledger.totals().charged == 999


@on_both_loops
async def test_a_slow_consumer_and_an_endless_source() -> None:
    """However long the source, what is pulled is bounded by what may be under way (row 22)."""
    pulled = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal pulled
        while True:
            pulled += 1
            yield PING

    async with Emulator(workers=100) as emulator:
        async with AsyncProdia("t", base_url=emulator.base_url, max_concurrency=8) as prodia:
            async with prodia.map(endless()) as outcomes:
                read = 0
                async for _ in outcomes:
                    read += 1
                    await anyio.sleep(0.002)
                    assert pulled <= read + 8
                    if read == 100:
                        break


@pytest.mark.parametrize("retry", [RetryPolicy(max_attempts=1), RetryPolicy(max_capacity_wait=0)])
@on_both_loops
async def test_no_patience_at_all(retry: RetryPolicy) -> None:
    """With one attempt a fault is raised at once; with no capacity wait a refusal is."""
    answers = [say(http("503 Busy", b"")), say(http("429 Busy", b"", "Retry-After: 1"))]
    with RawServer(answers[retry.max_attempts > 1 :]) as server:
        async with AsyncProdia("t", base_url=server.url, retry=retry) as prodia:
            with pytest.raises((ServerError, CapacityError)):
                await prodia.job(PING)
        assert len(server.requests) == 1
