"""Time that is skipped rather than waited for, and time that is not."""

from __future__ import annotations

import time
from dataclasses import dataclass

import anyio
import pytest
from conftest import on_both_loops

from prodia_async import AsyncProdia, CapacityError, DeadlineExceededError, Job, RetryPolicy
from prodia_async import _waiting as waiting
from prodia_async.emulator import Emulator

JOB = Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": "a cat"})


@dataclass
class Counts:
    in_flight: int = 0
    started: int = 0


class Engine:
    def __init__(self) -> None:
        self.counts = Counts()

    def statistics(self) -> Counts:
        return self.counts


@on_both_loops
async def test_without_it_waiting_takes_its_time() -> None:
    """Sleeping sleeps, and an event ends a wait before its time."""
    began = time.perf_counter()
    await waiting.sleep(0.05)
    assert time.perf_counter() - began >= 0.05
    event = anyio.Event()
    event.set()
    await waiting.wait_for(event, 60)
    await waiting.wait_for(anyio.Event(), 0.01)
    assert time.perf_counter() - began < 1


@on_both_loops
async def test_skipped_time_is_told_and_takes_none() -> None:
    """The clock goes on as if it had been waited; whoever waits with others waits once."""
    began, clock = time.perf_counter(), waiting.current_time()
    done: list[int] = []

    async def sleep(seconds: int) -> None:
        await waiting.sleep(seconds)
        done.append(seconds)

    with waiting.skip_waiting() as skipped:
        async with anyio.create_task_group() as group:
            for seconds in (30, 10, 20):
                group.start_soon(sleep, seconds)
        assert done == [10, 20, 30]
        assert 29.9 <= skipped.waited < 31
        await waiting.wait_for(anyio.Event(), 100)
        assert 129.9 <= skipped.waited < 132
    assert 130 <= waiting.current_time() - clock < 135
    assert time.perf_counter() - began < 2


@on_both_loops
async def test_an_event_ends_a_skipped_wait() -> None:
    """What was waited for comes while the server works: nothing is skipped."""
    engine = Engine()
    engine.counts.in_flight = 1
    waiting.watch(engine)
    event = anyio.Event()
    with waiting.skip_waiting() as skipped:
        async with anyio.create_task_group() as group:
            group.start_soon(waiting.wait_for, event, 60)
            await anyio.sleep(0.02)
            event.set()
        assert skipped.waited < 1


@on_both_loops
async def test_a_request_in_flight_lets_time_pass_as_it_does() -> None:
    """Until it ends, or has not moved for a while."""
    engine = Engine()
    engine.counts = Counts(in_flight=1, started=1)
    waiting.watch(engine)
    began = time.perf_counter()
    with waiting.skip_waiting():
        async with anyio.create_task_group() as group:
            group.start_soon(waiting.sleep, 60)
            await anyio.sleep(0.05)
            assert group.cancel_scope.cancel_called is False
            engine.counts = Counts(in_flight=0, started=1)
        assert 0.05 <= time.perf_counter() - began < 0.2
        engine.counts = Counts(in_flight=1, started=2)
        await waiting.sleep(60)
        assert waiting.STUCK_SECONDS <= time.perf_counter() - began < 2


@on_both_loops
async def test_deadlines_come_nearer() -> None:
    """A job whose deadline is skipped has had its time."""
    with waiting.skip_waiting():
        with waiting.until(waiting.current_time() + 20) as scope:
            await waiting.sleep(30)
        assert scope.cancelled_caught
        with waiting.until(waiting.current_time() + 40) as scope:
            await waiting.sleep(30)
        assert not scope.cancelled_caught


def test_one_within_another_counts_for_both() -> None:
    """A fixture's and a test's own are one."""
    with waiting.skip_waiting() as outer:
        with waiting.skip_waiting() as inner:
            assert inner is outer
        assert waiting._skipping is outer
        assert repr(outer) == "<Skipping: 0 s not waited so far>"
    assert waiting._skipping is None


@on_both_loops
async def test_a_job_waits_out_nothing() -> None:
    """Retry-After, backoff and the time that a busy server is given."""
    began = time.perf_counter()
    async with Emulator() as emulator, AsyncProdia("token", base_url=emulator.base_url) as client:
        with waiting.skip_waiting() as skipped:
            emulator.fail_next(2, 429, retry_after=30)
            response = await client.job(JOB)
            assert [round(each.wait) >= 30 for each in response.attempts] == [True, True, False]
            assert 60 <= skipped.waited < 80
            emulator.fail_next(3, 503)
            await client.job(JOB)
            assert 61 < skipped.waited < 84
            emulator.fail_next(500, 429, retry_after=30)
            with pytest.raises(CapacityError) as caught:
                await client.job(JOB)
            assert 16 <= len(caught.value.attempts) <= 21
            emulator.forget_planned()
            emulator.fail_next(1, 429, retry_after=30)
            with pytest.raises(DeadlineExceededError):
                await client.job(JOB, deadline=20)
    assert time.perf_counter() - began < 5


@pytest.mark.slow
@on_both_loops
async def test_refused_jobs_wait_for_those_in_flight() -> None:
    """Time is not skipped past a worker that is about to be idle: few refusals, as in life."""
    async with (
        Emulator(workers=2, latency=0.05, retry_after=5) as emulator,
        AsyncProdia("token", base_url=emulator.base_url, retry=RetryPolicy()) as client,
    ):
        with waiting.skip_waiting():
            async with client.map([JOB] * 20) as outcomes:
                async for outcome in outcomes:
                    outcome.unwrap()
        assert client.statistics().refusals < 30


@on_both_loops
async def test_polls_take_no_time() -> None:
    """An async job that takes its time is asked about as often as it would be."""
    began = time.perf_counter()
    async with (
        Emulator(latency=0.05) as emulator,
        AsyncProdia("token", base_url=emulator.base_url) as client,
    ):
        with waiting.skip_waiting() as skipped:
            await client.job(JOB, via="async")
            assert skipped.waited > 0.8
    assert time.perf_counter() - began < 2
