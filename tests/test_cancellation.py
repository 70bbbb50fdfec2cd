"""Row 19 of the fault matrix: wherever a job is cancelled, all is as before."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from conftest import on_both_loops, open_sockets, until
from raw_server import JOB_PART, Conversation, RawServer, http, say

from prodia_async import AsyncProdia, Input, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PING = {"type": "inference.ping.v1"}


def silent(conversation: Conversation) -> None:
    conversation.stall()


def half_an_answer(conversation: Conversation) -> None:
    conversation.send(http()[:-100])
    conversation.stall()


def between_parts(conversation: Conversation) -> None:
    conversation.send(http(body=JOB_PART, length=100_000))
    conversation.stall()


def no_connection(conversation: Conversation) -> bool:
    conversation.server.over.wait()
    return False


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield bytes(100_000)


async def cancel_when(
    prodia: AsyncProdia, ready: Callable[[], bool], inputs: list[Input] | None = None
) -> None:
    """Start a job, cancel it when ``ready``, and check that it is out at once."""
    async with anyio.create_task_group() as group:

        async def run() -> None:
            await prodia.job(PING, inputs=inputs or [])

        group.start_soon(run)
        await until(ready)
        began = time.monotonic()
        group.cancel_scope.cancel()
    assert time.monotonic() - began < 0.1
    counts = prodia.statistics()
    assert (counts.in_flight, counts.queued, counts.waiting) == (0, 0, 0)


@pytest.mark.parametrize("reply", [silent, half_an_answer, between_parts])
@on_both_loops
async def test_while_the_server_is_at_work(reply: Callable[[Conversation], None]) -> None:
    """Cancelled while waiting for an answer, or within it: out, slot and connection back."""
    with RawServer([reply]) as server:
        async with AsyncProdia("t", base_url=server.url, max_concurrency=1) as prodia:
            await cancel_when(prodia, lambda: bool(server.requests))
            await until(lambda: server.open == 0)
            assert (await prodia.job(PING)).outputs


@on_both_loops
async def test_while_sending() -> None:
    """Cancelled in the middle of an upload that the server does not read."""
    with RawServer(on_connect=no_connection) as server:
        async with AsyncProdia("t", base_url=server.url, max_concurrency=1) as prodia:
            upload = [Input(endless, "a.bin", size=10**9)]
            await cancel_when(prodia, lambda: server.connections == 1, upload)


@on_both_loops
async def test_while_waiting_out_a_refusal() -> None:
    """Cancelled during Retry-After: nothing of it is left."""
    busy = say(http("429 Busy", b"", "Retry-After: 60"))
    with RawServer([busy]) as server:
        async with AsyncProdia("t", base_url=server.url, max_concurrency=1) as prodia:
            await cancel_when(prodia, lambda: prodia.statistics().waiting == 1)


@on_both_loops
async def test_while_backing_off() -> None:
    """Cancelled between two attempts after a server fault."""
    fault = say(http("503 Busy", b""))
    retry = RetryPolicy(backoff_initial=60, backoff_max=60)
    with RawServer([fault]) as server:
        async with AsyncProdia("t", base_url=server.url, retry=retry) as prodia:
            await cancel_when(prodia, lambda: len(server.requests) == 1)


@on_both_loops
async def test_while_queued() -> None:
    """Cancelled in the queue: whoever comes next is not held up."""
    with RawServer([silent]) as server:
        async with AsyncProdia("t", base_url=server.url, max_concurrency=1) as prodia:
            async with anyio.create_task_group() as group:
                group.start_soon(prodia.job, PING)
                await until(lambda: len(server.requests) == 1)
                with anyio.move_on_after(0.05):
                    await prodia.job(PING)
                assert prodia.statistics().queued == 0
                group.cancel_scope.cancel()
            assert (await prodia.job(PING)).outputs


@on_both_loops
async def test_in_the_tick_of_a_hand_over() -> None:
    """A slot handed to a job that is cancelled in the same tick goes to the next."""
    with RawServer() as server:
        async with AsyncProdia("t", base_url=server.url, max_concurrency=1) as prodia:
            for ticks in range(30):
                done = 0

                async def run(scope: anyio.CancelScope) -> None:
                    nonlocal done
                    with scope:
                        await prodia.job(PING)
                        done += 1

                scopes = [anyio.CancelScope() for _ in range(3)]
                with anyio.fail_after(5):
                    async with anyio.create_task_group() as group:
                        for scope in scopes:
                            group.start_soon(run, scope)
                        while not done:
                            await anyio.lowlevel.checkpoint()
                        for _ in range(ticks):
                            await anyio.lowlevel.checkpoint()
                        scopes[1].cancel()
                assert done >= 2
                assert prodia.statistics().in_flight == 0


@pytest.mark.slow
@on_both_loops
async def test_random_cancellations_leave_full_concurrency() -> None:
    """After many jobs cancelled at random moments every slot still works, on few sockets."""
    random_source = random.Random(20261120)
    before = open_sockets()

    def dawdle(conversation: Conversation) -> None:
        conversation.server.over.wait(0.003)
        conversation.send(http())

    with RawServer([dawdle] * 5000) as server:
        async with AsyncProdia("t", base_url=server.url, max_concurrency=8) as prodia:

            async def one() -> None:
                with anyio.move_on_after(random_source.uniform(0, 0.02)):
                    await prodia.job(PING)

            for _ in range(30):
                async with anyio.create_task_group() as group:
                    for _ in range(20):
                        group.start_soon(one)
            counts = prodia.statistics()
            assert (counts.in_flight, counts.queued, counts.waiting) == (0, 0, 0)
            with anyio.fail_after(10):
                async with anyio.create_task_group() as group:
                    for _ in range(8):
                        group.start_soon(prodia.job, PING)
            assert prodia.statistics().completed >= 8
        await until(lambda: server.open == 0)
    assert open_sockets() - before <= 2
