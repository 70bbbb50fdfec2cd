"""What was paid for is kept, or its loss is told: when reading is cut off, when others raise."""

from __future__ import annotations

import json
import logging
import pickle
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
import trio
from conftest import on_both_loops, until
from raw_server import (
    GOOD_BODY,
    JOB_JSON,
    JOB_PART,
    MULTIPART_TYPE,
    OUTPUT_PART,
    PICTURE,
    Conversation,
    RawServer,
    http,
    multipart,
    part,
    say,
)

from prodia_async import (
    AsyncProdia,
    AttemptDetails,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    Input,
    InvalidRequestError,
    JobFailedError,
    OutputPart,
    ProdiaError,
    RetryPolicy,
    ServerError,
    TruncatedResponseError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PING = {"type": "inference.ping.v1"}
TOKEN = "secret-token-of-many-letters"
FAST = RetryPolicy(backoff_initial=0.01)


def client(server: RawServer, **options: Any) -> AsyncProdia:
    options.setdefault("retry", FAST)
    return AsyncProdia(TOKEN, base_url=server.url, **options)


def stalling_in(body: bytes, **how: Any) -> Any:
    def reply(conversation: Conversation) -> None:
        conversation.charge()
        conversation.send(http(body=body, length=None, **how))
        conversation.stall()

    return reply


@on_both_loops
async def test_reading_on_after_a_cancelled_read_is_told() -> None:
    """A read that was cancelled closed the connection; what looks like the end is none."""
    with RawServer([stalling_in(bytes(5000), content_type="video/mp4")]) as server:
        async with client(server) as prodia:
            with pytest.raises(TruncatedResponseError, match="cut off before"):
                async with prodia.stream(PING, multipart=False) as stream:
                    part = await anext(aiter(stream))
                    assert isinstance(part, OutputPart)
                    chunks = part.aiter_bytes()
                    with anyio.move_on_after(0.2):
                        while True:
                            await anext(chunks)
                    await anext(chunks)
            assert prodia.statistics().failed == 1


@on_both_loops
async def test_a_part_that_was_passed_over_does_not_look_complete(tmp_path: Path) -> None:
    """A save that goes on in another task while the stream moves on is an error, and no file."""
    go_on = threading.Event()

    def reply(conversation: Conversation) -> None:
        body = multipart(JOB_PART, part("output", "a", None, bytes(900_000)), OUTPUT_PART)
        conversation.send(http(body=body)[:500_000])
        go_on.wait(5)
        conversation.send(http(body=body)[500_000:])

    with RawServer([reply]) as server:
        async with client(server) as prodia, prodia.stream(PING) as stream:
            parts = aiter(stream)
            await anext(parts)
            first = await anext(parts)
            assert isinstance(first, OutputPart)
            chunks = first.aiter_bytes()
            await anext(chunks)
            go_on.set()
            await anext(parts)
            with pytest.raises(RuntimeError, match="went on to its next part"):
                await anext(chunks)


@on_both_loops
async def test_a_complete_answer_is_not_lost_while_its_end_is_awaited() -> None:
    """Everything up to the closing boundary is here: a deadline that passes then costs nothing."""

    def reply(conversation: Conversation) -> None:
        conversation.send(http(body=GOOD_BODY, length=len(GOOD_BODY) + 10))
        conversation.stall()

    with RawServer([reply, reply]) as server:
        async with client(server) as prodia:
            assert (await prodia.job(PING, deadline=0.12)).output.content == PICTURE
            began = time.monotonic()
            async with prodia.stream(PING) as stream:
                async for each in stream:
                    if isinstance(each, OutputPart):
                        assert await each.read() == PICTURE
                        assert time.monotonic() - began < 0.1
            assert time.monotonic() - began < 0.6


class Raising(logging.Handler):
    """A handler that cannot write."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the log's disk is full")


@on_both_loops
async def test_a_log_handler_that_raises_harms_nobody() -> None:
    """Neither the answer nor the slot is lost to somebody's logging."""
    logger = logging.getLogger("prodia_async")
    handler = Raising()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with RawServer([say(http("503 Busy", b""))]) as server:
            async with client(server, max_concurrency=1) as prodia:
                assert (await prodia.job(PING)).outputs
                assert (await prodia.job(PING)).outputs
            assert server.charges == 2
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


@on_both_loops
async def test_a_hook_that_ends_the_program_frees_the_slot() -> None:
    """What is no Exception goes through, and the slot is back all the same."""

    class End(BaseException):
        pass

    def hook(details: AttemptDetails) -> None:
        if details.event == "finished":
            raise End

    with RawServer() as server:
        async with client(server, hook=hook) as prodia:
            with pytest.raises(End):
                await prodia.job(PING)
            assert prodia.statistics().in_flight == 0


async def test_an_async_hook_is_refused() -> None:
    """Nobody would await it."""

    async def hook(details: AttemptDetails) -> None:
        del details

    with pytest.raises(InvalidRequestError, match="plain function"):
        AsyncProdia("t", hook=hook)  # type: ignore[arg-type]


@pytest.mark.parametrize("raises", [True, False])
@on_both_loops
async def test_hooks_of_the_users_own_client(raises: bool) -> None:
    """A response hook that reads the answer, or raises for its status, costs nothing."""

    async def look(response: httpx.Response) -> None:
        if raises:
            response.raise_for_status()
        else:
            await response.aread()

    busy = say(http("429 Busy", b"busy", "Retry-After: 0.05", content_type="text/plain"))
    with RawServer([busy]) as server:
        async with httpx.AsyncClient(event_hooks={"response": [look]}) as own:
            async with client(server, http_client=own) as prodia:
                response = await prodia.job(PING)
    assert [each.status_code for each in response.attempts] == [429, 200]
    assert response.output.content == PICTURE


@on_both_loops
async def test_a_fault_whose_body_says_that_the_job_ran() -> None:
    """A 5xx that carries a completed job is not sent again: it would be paid twice."""
    answer = http("500 Oh", JOB_JSON, content_type="application/json")
    with RawServer([say(answer, charge=True)]) as server:
        async with client(server) as prodia:
            with pytest.raises(ServerError, match="its answer says that the job ran"):
                await prodia.job(PING)
    assert (len(server.requests), server.charges) == (1, 1)


PRICED = JOB_JSON.replace(b'"config"', b'"price":{"product":"p","dollars":0.25},"config"')


@on_both_loops
async def test_dollars_spent_on_failures_count() -> None:
    """What a failed, a cut and a left answer cost is in the totals too."""
    job_part = part("job", "job.json", "application/json", PRICED)
    failed = part("job", "job.json", "application/json", PRICED.replace(b"completed", b"failed"))
    answers = [
        say(http(body=multipart(failed))),
        say(http(body=job_part + OUTPUT_PART[:-9])),
        say(http(body=multipart(job_part, OUTPUT_PART))),
        say(http(body=multipart(job_part, OUTPUT_PART))),
    ]
    with RawServer(answers) as server:
        async with client(server, price=True) as prodia:
            for kind in (JobFailedError, TruncatedResponseError):
                with pytest.raises(kind):
                    await prodia.job(PING)
            await prodia.job(PING)
            with pytest.raises(LookupError):
                async with prodia.stream(PING) as stream:
                    async for _ in stream:
                        raise LookupError
            assert prodia.statistics().dollars == 1.0


@pytest.mark.parametrize("uncertain", [True, False])
@on_both_loops
async def test_closing_with_jobs_under_way(uncertain: bool) -> None:
    """Jobs in flight may have run, queued ones were not sent; both are told, and counted."""

    def stall(conversation: Conversation) -> None:
        conversation.charge()
        conversation.stall()

    errors: list[ProdiaError] = []
    retry = RetryPolicy(retry_uncertain=uncertain, backoff_initial=0.01)
    with RawServer([stall] * 9) as server:
        prodia = client(server, max_concurrency=2, adaptive=False, retry=retry)

        async def run() -> None:
            try:
                await prodia.job(PING)
            except ProdiaError as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(run)
            await until(lambda: len(server.requests) == 2)
            await prodia.aclose()
        counts = prodia.statistics()
    kinds = sorted((type(each).__name__, each.may_have_run) for each in errors)
    assert kinds == [("ConnectError", False)] * 2 + [("ConnectionLostError", True)] * 2
    assert {ConnectError, ConnectionLostError} == {type(each) for each in errors}
    assert (counts.failed, counts.in_flight, counts.queued) == (4, 0, 0)
    assert server.charges == 2


@on_both_loops
async def test_a_deadline_that_cuts_an_attempt_off_records_it() -> None:
    """The attempt that was under way is on the error, and every start has its finish."""
    told: list[str] = []
    with RawServer([stalling_in(b"")]) as server:
        async with client(server, hook=lambda details: told.append(details.event)) as prodia:
            with pytest.raises(DeadlineExceededError) as caught:
                await prodia.job(PING, deadline=0.2)
    assert [each.fate for each in caught.value.attempts] == ["ran"]
    assert told == ["queued", "started", "finished", "finished"]


async def slow_to_close() -> AsyncIterator[bytes]:
    try:
        while True:
            yield bytes(100_000)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)


@pytest.mark.slow
@on_both_loops
async def test_an_input_that_is_slow_to_close_does_not_delay_a_deadline() -> None:
    """The caller's own iterator may dawdle at its end; the deadline holds."""

    def deaf(conversation: Conversation) -> bool:
        conversation.server.over.wait()
        return False

    with RawServer(on_connect=deaf) as server:
        async with client(server) as prodia:
            began = time.monotonic()
            with pytest.raises(DeadlineExceededError):
                await prodia.job(PING, inputs=[Input(slow_to_close, size=10**9)], deadline=0.2)
            assert time.monotonic() - began < 0.2 + 1.2


@pytest.mark.slow
def test_trio_runs_leave_no_sessions_behind() -> None:
    """Each run's session goes when the next one begins; the totals stay."""
    with RawServer() as server:
        prodia = client(server)

        async def one() -> None:
            await prodia.job(PING)

        for _ in range(5):
            trio.run(one)
        assert len(prodia._engine._sessions) == 1
        assert prodia.statistics().completed == 5
        trio.run(prodia.aclose)


@on_both_loops
async def test_the_token_is_not_behind_an_error_either() -> None:
    """Neither the cause's request, nor locals in a traceback, nor a 200 that echoes shows it."""

    def reset(conversation: Conversation) -> None:
        conversation.reset()

    echoes = say(http(body=b"<p>" + TOKEN.encode(), content_type="text/html"))
    with RawServer([reset, echoes]) as server:
        async with client(server) as prodia:
            for is_ours_alone in (True, False):
                with pytest.raises(ProdiaError) as caught:
                    await prodia.job(PING)
                assert TOKEN not in str(caught.value) + repr(caught.value)
                error: BaseException | None = caught.value
                while error is not None:
                    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
                    ours = [each for each in shown.stack if "/prodia_async/" in each.filename]
                    # What the server said is in the locals of whoever reads it.
                    assert not is_ours_alone or TOKEN not in repr([each.locals for each in ours])
                    assert TOKEN.encode() not in pickle.dumps(getattr(error, "args", ()))
                    request = getattr(error, "_request", None)
                    if isinstance(request, httpx.Request):
                        assert "authorization" not in request.headers
                    error = error.__cause__


@on_both_loops
async def test_errors_of_the_block_keep_their_own_story() -> None:
    """A mistake made inside a stream's block says that nothing was sent, as it is true of it."""
    cut = say(http(body=JOB_PART + OUTPUT_PART[:-9], content_type=MULTIPART_TYPE))
    with RawServer([cut]) as server:
        async with client(server) as prodia:
            async with prodia.stream(PING) as stream:
                with pytest.raises(TruncatedResponseError):
                    async for each in stream:
                        if isinstance(each, OutputPart):
                            await each.read()
            assert (prodia.statistics().completed, prodia.statistics().failed) == (0, 1)
            with pytest.raises(InvalidRequestError) as caught:
                async with prodia.stream(PING):
                    await prodia.job({})
    assert not caught.value.may_have_run
    assert caught.value.attempts == ()
    assert json.loads(server.requests[0].body) == PING
