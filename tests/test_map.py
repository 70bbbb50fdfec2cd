"""Many jobs: lazily pulled, none lost, one failure never stops the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import on_both_loops, until
from raw_server import Conversation, RawServer, http, say

from prodia_async import (
    AsyncProdia,
    BadRequestError,
    Input,
    InvalidRequestError,
    Job,
    JobOutcome,
    JobRequest,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PING = {"type": "inference.ping.v1"}


def client(server: RawServer, **options: Any) -> AsyncProdia:
    return AsyncProdia("secret-token", base_url=server.url, adaptive=False, **options)


@on_both_loops
async def test_every_job_has_an_outcome() -> None:
    """Iterables and async iterables of jobs, mappings and requests all come out, once each."""

    async def jobs() -> AsyncIterator[Any]:
        for number in range(30):
            yield (Job("inference.ping.v1"), PING, JobRequest(PING))[number % 3]

    with RawServer() as server:
        async with client(server, max_concurrency=4) as prodia, prodia.map(jobs()) as outcomes:
            indexes = [outcome.index async for outcome in outcomes if outcome.unwrap().outputs]
        assert sorted(indexes) == list(range(30))
        assert server.charges == 30
        assert server.connections <= 4


@on_both_loops
async def test_order_is_kept_when_asked() -> None:
    """With ordered=True outcomes come in the order of the jobs, though the first is the slowest."""

    def slow(conversation: Conversation) -> None:
        conversation.server.over.wait(0.2)
        conversation.send(http())

    with RawServer([slow]) as server:
        async with client(server, max_concurrency=4) as prodia:
            async with prodia.map([PING] * 20, ordered=True) as outcomes:
                indexes = [outcome.index async for outcome in outcomes]
    assert indexes == list(range(20))


@on_both_loops
async def test_one_failure_does_not_stop_the_rest() -> None:
    """A refused job, one that is no job, and an input that raises are outcomes like any other."""

    def broken() -> AsyncIterator[bytes]:
        raise LookupError("the caller's own trouble")

    bad = say(http("400 Bad Request", b"no such type", content_type="text/plain"))
    jobs: list[Any] = [PING, "no job", JobRequest(PING, [Input(broken, "a.png", size=3)]), {}, PING]
    with RawServer([bad]) as server:
        async with client(server, max_concurrency=1) as prodia:
            async with prodia.map(jobs, ordered=True) as outcomes:
                found = [outcome async for outcome in outcomes]
        kinds = [type(each.error) for each in found]
        assert kinds == [
            BadRequestError, InvalidRequestError, LookupError, InvalidRequestError, type(None),
        ]  # fmt: skip
        with pytest.raises(LookupError):
            found[2].unwrap()
        assert server.charges == 1


@on_both_loops
async def test_jobs_are_pulled_only_when_one_may_start() -> None:
    """An endless source is pulled no further than the jobs that may be under way."""
    pulled = 0

    def endless() -> Iterator[dict[str, str]]:
        nonlocal pulled
        while True:
            pulled += 1
            yield PING

    with RawServer() as server:
        async with client(server, max_concurrency=3) as prodia:
            async with prodia.map(endless()) as outcomes:
                read = 0
                async for _ in outcomes:
                    read += 1
                    assert pulled <= read + 3
                    if read > 50:
                        break
        assert prodia.statistics().in_flight == 0


@on_both_loops
async def test_a_consumer_that_stops_reading_stops_new_work() -> None:
    """Unread outcomes count against the window, so work comes to rest; `buffer` widens it."""
    with RawServer() as server:
        async with client(server, max_concurrency=2) as prodia:
            async with prodia.map([PING] * 100, buffer=5):
                await until(lambda: len(server.requests) >= 7)
                await anyio.sleep(0.2)
                assert len(server.requests) == 7


@on_both_loops
async def test_a_source_that_raises_loses_nothing() -> None:
    """What was started comes out, and then the source's own error is raised."""

    def failing() -> Iterator[dict[str, str]]:
        yield from [PING] * 5
        raise LookupError("the disk is gone")

    with RawServer() as server:
        async with client(server, max_concurrency=2) as prodia:
            found: list[JobOutcome] = []
            with pytest.raises(LookupError, match="the disk is gone"):
                async with prodia.map(failing()) as outcomes:
                    async for outcome in outcomes:
                        found.append(outcome)
    assert [each.error for each in found] == [None] * 5


@on_both_loops
async def test_leaving_the_block_cancels_what_is_in_flight() -> None:
    """Leaving early ends the jobs under way, and gives slots and connections back."""

    def stall(conversation: Conversation) -> None:
        conversation.stall()

    with RawServer([stall] * 4) as server:
        async with client(server, max_concurrency=4) as prodia:
            with anyio.fail_after(5):
                async with prodia.map([PING] * 10):
                    await until(lambda: len(server.requests) == 4)
            assert prodia.statistics().in_flight == 0
            assert (await prodia.job(PING)).outputs


@pytest.mark.parametrize("jobs", [PING, Job("inference.ping.v1"), "text", 7, None])
async def test_one_job_is_not_many(jobs: Any) -> None:
    """A single job, or what cannot be iterated, is refused before anything starts."""
    async with AsyncProdia("t") as prodia:
        with pytest.raises(InvalidRequestError, match="iterable of jobs"):
            prodia.map(jobs)


@pytest.mark.parametrize("buffer", [-1, True, 1.5])
async def test_a_buffer_counts_outcomes(buffer: Any) -> None:
    """A negative or fractional buffer is refused."""
    async with AsyncProdia("t") as prodia:
        with pytest.raises(InvalidRequestError, match="buffer"):
            prodia.map([], buffer=buffer)


async def test_no_jobs_are_no_outcomes() -> None:
    """An empty source ends at once, and reading outside the block is a clear mistake."""
    async with AsyncProdia("t") as prodia:
        manager = prodia.map([])
        async with manager as outcomes:
            assert [each async for each in outcomes] == []
            assert "0 read, 0 unread, 0 under way" in repr(outcomes)
        with pytest.raises(RuntimeError, match="inside the block"):
            await anext(outcomes)
