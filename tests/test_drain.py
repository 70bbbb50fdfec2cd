"""A client that drains while jobs are left with the server: collected, or told with their ids."""

from __future__ import annotations

import io
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import on_both_loops, until
from raw_server import RawServer, http, say

from prodia_async import (
    AsyncProdia,
    ConnectError,
    ConnectionLostError,
    Job,
    JobRequest,
    JobResponse,
)
from prodia_async.emulator import Emulator
from prodia_async.fireworks import AsyncFireworks
from prodia_async.types import Unfinished

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

TYPE = "inference.flux-fast.schnell.txt2img.v2"
FOX = Job(TYPE, {"prompt": "a fox", "seed": 1})


@pytest.fixture
def api() -> Iterator[Emulator]:
    with Emulator(workers=2, latency=0.6) as emulator:
        yield emulator


async def tried(found: list[object], job: Callable[[], Awaitable[object]]) -> None:
    try:
        found.append(await job())
    except Exception as error:
        found.append(error)


def ways(client: AsyncProdia) -> dict[str, Callable[[], Awaitable[object]]]:
    async def by_map() -> object:
        async with client.map([FOX], via="async") as outcomes:
            return (await anext(outcomes)).unwrap()

    async def by_hand() -> object:
        return await (await client.submit(FOX)).result(poll=0.05)

    async def by_stream() -> object:
        job = await client.submit(FOX)
        await job.wait(poll=0.05)
        async with job.stream((await job.outputs())[0]) as part:
            await anyio.sleep(0.3)
            return await part.read()

    return {
        "job": lambda: client.job(FOX, via="async"),
        "map": by_map,
        "submit": by_hand,
        "stream": by_stream,
    }


@pytest.mark.parametrize("way", ["job", "map", "submit", "stream"])
@on_both_loops
async def test_a_drain_waits_for_what_is_left_with_the_server(way: str, api: Emulator) -> None:
    """It is paid for, though no request is under way most of the time; its waiter has it."""
    found: list[object] = []
    client = AsyncProdia("t", base_url=api.base_url)
    async with anyio.create_task_group() as group:
        group.start_soon(tried, found, ways(client)[way])
        await until(lambda: api.ledger.totals().submitted == 1)
        await anyio.sleep(0.1)
        assert await client.drain(timeout=8) == ()
    (response,) = found
    content = response.output.content if isinstance(response, JobResponse) else response
    assert isinstance(content, bytes)
    assert content[:2] == b"\xff\xd8"
    assert api.ledger.totals().charged == 1


@on_both_loops
async def test_a_drain_waits_for_a_kontext_picture(api: Emulator) -> None:
    """So it does for the second API's tasks."""
    found: list[object] = []
    client = AsyncFireworks("t", base_url=api.fireworks_url)
    async with anyio.create_task_group() as group:
        group.start_soon(tried, found, lambda: client.kontext("a fox", poll=0.3))
        await until(lambda: api.ledger.totals().answered == 1)
        assert await client.drain(timeout=8) == ()
    assert not isinstance(found[0], Exception), found
    assert api.ledger.totals().charged == 1


@on_both_loops
async def test_what_a_drain_cuts_off_is_told_with_its_id(api: Emulator) -> None:
    """By the drain and by the error of whoever waited; another client collects it, paid once."""
    found: list[Any] = []
    client = AsyncProdia("t", base_url=api.base_url)

    async def by_map() -> object:
        async with client.map([JobRequest(FOX, via="async", tag="mine")]) as outcomes:
            return (await anext(outcomes)).unwrap()

    async with anyio.create_task_group() as group:
        group.start_soon(tried, found, by_map)
        await until(lambda: api.ledger.totals().submitted == 1)
        await anyio.sleep(0.1)
        left = await client.drain(timeout=0.1)
    (error,) = found
    assert isinstance(error, ConnectionLostError)
    assert error.may_have_run
    assert error.job_id is not None
    assert "closed" in error.message
    assert left == (Unfinished(TYPE, 0, "mine", may_have_run=True, job_id=error.job_id),)
    async with AsyncProdia("t", base_url=api.base_url) as other:
        response = await other.async_job(error.job_id).result(poll=0.1)
    assert response.output.content[:2] == b"\xff\xd8"
    assert api.ledger.totals().charged == 1


@on_both_loops
async def test_a_kontext_picture_that_is_cut_off_is_told_with_its_id(api: Emulator) -> None:
    """And so it is where the client is closed without a drain."""
    found: list[Any] = []
    client = AsyncFireworks("t", base_url=api.fireworks_url)
    async with anyio.create_task_group() as group:
        group.start_soon(tried, found, lambda: client.kontext("a fox", poll=0.2))
        await until(lambda: api.ledger.totals().answered == 2)
        await anyio.sleep(0.05)  # its answer has been read, and the next look is not due
        await client.aclose()
    (error,) = found
    assert isinstance(error, ConnectionLostError)
    assert error.may_have_run
    assert error.job_id is not None
    async with AsyncFireworks("t", base_url=api.fireworks_url) as other:
        await other.kontext_result(error.job_id)
    assert api.ledger.totals().charged == 1


@pytest.mark.parametrize("way", ["job", "submit", "kontext"])
@on_both_loops
async def test_a_draining_client_leaves_no_new_job_with_the_server(way: str, api: Emulator) -> None:
    """Neither one that comes now, nor one that still waited for its slot."""
    found: list[Any] = []
    client = AsyncProdia("t", base_url=api.base_url, max_concurrency=1)
    second = AsyncFireworks("t", base_url=api.fireworks_url, max_concurrency=1)
    job = ways(client).get(way) or (lambda: second.kontext("a fox", poll=0.1))
    draining = second if way == "kontext" else client
    first = (
        (lambda: second.text_to_image("a fox")) if way == "kontext" else (lambda: client.job(FOX))
    )
    async with anyio.create_task_group() as group:
        group.start_soon(tried, [], first)
        await until(lambda: api.ledger.totals().received == 1)
        group.start_soon(tried, found, job)
        await anyio.sleep(0.05)
        before = api.ledger.totals().submitted
        group.start_soon(draining.drain)
        await anyio.sleep(0.05)
        await tried(found, job)
    assert [type(each) for each in found] == [ConnectError, ConnectError]
    assert all(each.client_is_closing and not each.may_have_run for each in found)
    assert api.ledger.totals().submitted == before
    assert api.ledger.totals().charged == 1
    await client.aclose()
    await second.aclose()


@pytest.mark.parametrize("end", ["drain", "aclose"])
@on_both_loops
async def test_a_client_that_is_closed_while_a_job_looks_at_its_input(
    end: str, api: Emulator
) -> None:
    """It was not sent, and its error says so; a service answers 503, and not 500."""
    found: list[Any] = []
    client = AsyncProdia("t", base_url=api.base_url)
    go_on = anyio.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            anyio.from_thread.run(go_on.wait)
            return super().read(size)

    job = {"type": "inference.flux.dev.img2img.v1", "config": {"prompt": "a fox"}}
    async with anyio.create_task_group() as group:
        group.start_soon(
            tried, found, lambda: client.job(job, inputs=[("a.png", Slow(b"abc"), "image/png")])
        )
        await anyio.sleep(0.1)
        await (client.drain() if end == "drain" else client.aclose())
        go_on.set()
    (error,) = found
    assert isinstance(error, ConnectError), repr(error)
    assert error.client_is_closing
    assert not error.may_have_run
    assert api.ledger.totals().received == 0
    with pytest.raises(RuntimeError, match="closed"):
        await client.job(FOX)


@on_both_loops
async def test_two_drains_at_once(api: Emulator) -> None:
    """As where SIGTERM comes twice: both wait, and both tell what was left; neither fails."""
    for seconds in (8.0, 0.1):
        found: list[object] = []
        left: list[object] = []
        client = AsyncProdia("t", base_url=api.base_url)

        async def drain(client: AsyncProdia, seconds: float, left: list[object]) -> None:
            left.append(await client.drain(timeout=seconds))

        async with anyio.create_task_group() as group:
            group.start_soon(tried, found, partial(client.job, FOX))
            await until(lambda client=client: client.statistics().in_flight == 1)  # type: ignore[misc]
            await anyio.sleep(0.1)
            for _ in range(2):
                group.start_soon(drain, client, seconds, left)
        lost = (Unfinished(TYPE, None, None, may_have_run=True),)
        assert left == [() if seconds == 8.0 else lost] * 2
        assert isinstance(found[0], JobResponse if seconds == 8.0 else ConnectionLostError)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_map_of_another_thread_ends_as_well(backend: str, api: Emulator) -> None:
    """Its rows are not used up by errors: nothing more is pulled, and what was sent comes home."""
    api.latency = 0.02
    client = AsyncProdia("t", base_url=api.base_url, max_concurrency=2)
    pulled = 0
    found: list[object] = []

    def jobs() -> Iterator[Job]:
        nonlocal pulled
        for _ in range(100_000):
            pulled += 1
            yield FOX

    async def many() -> None:
        async with client.map(jobs()) as outcomes:
            async for outcome in outcomes:
                found.append(outcome.error)

    async def waiting() -> None:
        async def never() -> AsyncIterator[Job]:
            await anyio.sleep_forever()
            yield FOX

        async with client.map(never()) as outcomes:
            assert [each async for each in outcomes] == []

    threads = [
        threading.Thread(target=anyio.run, args=(each,), kwargs={"backend": backend})
        for each in (many, waiting)
    ]
    for thread in threads:
        thread.start()
    api.ledger.wait_for(lambda totals: totals.charged > 5, 20)

    assert anyio.run(client.drain) == ()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert pulled < 1000
    assert len(found) == pulled
    not_sent = [each for each in found if each is not None]
    assert len(not_sent) <= 4  # those that were on their way to their slots
    assert all(isinstance(each, ConnectError) and each.client_is_closing for each in not_sent)
    assert api.ledger.totals().charged == pulled - len(not_sent)


@pytest.mark.parametrize("how", ["aclose", "drain"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_job_of_another_thread_that_waits_is_told(backend: str, how: str) -> None:
    """Not only when the Retry-After has passed that it waits out: the client is closed now."""
    busy = say(http("429 Busy", b"", "Retry-After: 60", content_type=None))
    errors: list[BaseException] = []

    async def wait() -> None:
        try:
            with anyio.fail_after(20):
                await client.job(FOX)
        except Exception as error:
            errors.append(error)

    async def close() -> None:
        await (client.aclose() if how == "aclose" else client.drain(timeout=0.2))

    with RawServer([busy]) as server:
        client = AsyncProdia("t", base_url=server.url)
        thread = threading.Thread(target=anyio.run, args=(wait,), kwargs={"backend": backend})
        thread.start()
        while not client.statistics().waiting:
            time.sleep(0.01)
        anyio.run(close)
        thread.join(5)
        assert not thread.is_alive()
    (error,) = errors
    assert isinstance(error, ConnectError)
    assert error.client_is_closing


@on_both_loops
async def test_a_client_that_is_closed_while_it_drains(api: Emulator) -> None:
    """Whoever leaves `async with` meanwhile ends the drain, which tells what was cut off by it."""
    found: list[object] = []
    left: list[object] = []

    async def drain() -> None:
        left.append(await client.drain())

    async with anyio.create_task_group() as group:
        async with AsyncProdia("t", base_url=api.base_url) as client:
            group.start_soon(tried, found, lambda: client.job(FOX))
            await until(lambda: client.statistics().in_flight == 1)
            await anyio.sleep(0.1)
            group.start_soon(drain)
            await anyio.sleep(0.05)
    assert left == [(Unfinished(TYPE, None, None, may_have_run=True),)]
    assert isinstance(found[0], ConnectionLostError)
