"""One client across event loops, processes and forgetfulness (row 21 of the fault matrix)."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import warnings
from typing import TYPE_CHECKING

import pytest
import trio
from conftest import open_sockets
from raw_server import PICTURE, Conversation, RawServer, http

from prodia_async import AsyncProdia
from prodia_async.types import Unfinished

if TYPE_CHECKING:
    from collections.abc import Callable

PING = {"type": "inference.ping.v1"}


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_several_loops_one_after_the_other(run: Callable[..., None]) -> None:
    """Each loop gets connections of its own, and the totals go on."""
    with RawServer() as server:
        before = open_sockets()
        client = AsyncProdia("t", base_url=server.url)

        async def one() -> None:
            async def ask() -> None:
                response = await client.job(PING)
                assert response.output.content == PICTURE

            await ask()
            await ask()

        async def close() -> None:
            await client.aclose()

        def run_once(main: Callable[[], object]) -> None:
            run(main() if run is asyncio.run else main)

        for _ in range(3):
            run_once(one)
        assert client.statistics().completed == 6
        assert client.statistics().in_flight == 0
        run_once(close)
        assert client.statistics().completed == 6
        gc.collect()
        assert len(server.requests) == 6
        assert server.connections == 3
        # The server's own ends of the connections are in this process too.
        assert open_sockets() - before <= 3


def test_a_job_cut_off_by_the_end_of_its_loop_leaves_nothing() -> None:
    """A loop that ends with jobs in flight leaves no slot taken for the next loop."""

    def stall(conversation: Conversation) -> None:
        conversation.stall()

    with RawServer([stall] * 3) as server:
        client = AsyncProdia("t", base_url=server.url, max_concurrency=3, adaptive=False)

        async def leave() -> None:
            tasks = [asyncio.ensure_future(client.job(PING)) for _ in range(3)]
            while len(server.requests) < 3:
                await asyncio.sleep(0.01)
            del tasks

        async def again() -> None:
            async with client:
                await asyncio.gather(*(client.job(PING) for _ in range(3)))

        asyncio.run(leave())
        assert client.statistics().in_flight == 0
        asyncio.run(again())
        assert client.statistics().completed == 3


def test_an_unclosed_client_warns_once() -> None:
    """Forgetting to close is one ResourceWarning, without a traceback from anywhere else."""
    with RawServer() as server:

        async def forget() -> None:
            client = AsyncProdia("t", base_url=server.url)
            await client.job(PING)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asyncio.run(forget())
            gc.collect()
    assert [each.category for each in caught] == [ResourceWarning]
    assert "aclose" in str(caught[0].message)


def test_a_client_that_was_never_used_needs_no_closing() -> None:
    """Building a client opens nothing, so forgetting it is fine."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        AsyncProdia("t")
        gc.collect()
    assert caught == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_its_own_connections() -> None:
    """A child opens its own connections, and the parent's go on working."""
    script = """
        import asyncio, os, sys
        from prodia_async import AsyncProdia

        client = AsyncProdia("t", base_url=sys.argv[1])

        async def ask():
            await client.job({"type": "inference.ping.v1"})

        async def ask_and_close():
            await ask()
            await client.aclose()

        with asyncio.Runner() as runner:
            runner.run(ask())
            child = os.fork()
            if child == 0:
                asyncio.run(ask_and_close())
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert status == 0, status
            runner.run(ask_and_close())
    """
    with RawServer() as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(script), server.url],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        by_connection = [request.connection for request in server.requests]
    assert by_connection == [1, 2, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_wait_for_the_jobs_of_its_parent() -> None:
    """They are in its copy of memory, and never come to an end there; nor are they its own."""
    script = """
        import asyncio, os, sys
        from prodia_async import AsyncProdia

        client = AsyncProdia("t", base_url=sys.argv[1])

        async def drain():
            async with asyncio.timeout(5):
                assert await client.drain() == ()

        async def fork():
            job = asyncio.ensure_future(client.job({"type": "inference.ping.v1"}))
            while not client.statistics().in_flight:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            child = os.fork()
            if child == 0:
                asyncio._set_running_loop(None)
                try:
                    asyncio.run(drain())
                except TimeoutError:
                    os._exit(3)
                os._exit(0)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert status == 0, status
            assert await client.drain() == ()
            await job

        asyncio.run(fork())
    """

    def slow(conversation: Conversation) -> None:
        conversation.server.over.wait(1.0)
        conversation.send(http())

    with RawServer([slow]) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(script), server.url],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(server.requests) == 1


def test_a_drain_does_not_wait_for_a_loop_that_was_closed() -> None:
    """Its jobs were sent and never answered, which is told; nobody waits for them for ever."""

    def stall(conversation: Conversation) -> None:
        conversation.stall()

    async def drain() -> tuple[Unfinished, ...]:
        async with asyncio.timeout(5):
            return await client.drain()

    with RawServer([stall]) as server:
        client = AsyncProdia("t", base_url=server.url)
        loop = asyncio.new_event_loop()
        task = loop.create_task(client.job(PING))
        while not server.requests:
            loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()  # over its head
        left = asyncio.run(drain())
        coroutine = task.get_coro()
        assert coroutine is not None
        coroutine.close()  # or asyncio complains that nobody ended it
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    assert left == (Unfinished("inference.ping.v1", None, None, may_have_run=True),)
