"""The path of one request: what an attempt came to, what is told of it, and what is let go."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import re
import time
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import on_both_loops, until
from raw_server import (
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
    APIConnectionError,
    APITimeoutError,
    AsyncProdia,
    AttemptDetails,
    BadRequestError,
    CapacityError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    InvalidRequestError,
    JobDetails,
    JobFailedError,
    JobRefusedError,
    JobRequest,
    MalformedResponseError,
    ProdiaError,
    QueueFullError,
    RetryPolicy,
    ServerError,
    TruncatedResponseError,
)
from prodia_async import _engine as engine_module
from prodia_async._hooks import tell
from prodia_async._retry import RetryBudget
from prodia_async._scheduler import Scheduler
from prodia_async._verdicts import fate_of, stage_of_attempt, trouble_of
from prodia_async._vocabulary import Vocabulary
from prodia_async._waiting import skip_waiting
from prodia_async._wire import Sending, WireRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from prodia_async._attempts import Fate
    from prodia_async._exchange import Reply

PING = {"type": "inference.ping.v1"}
TOKEN = "secret-token-of-many-letters"
FAST = RetryPolicy(backoff_initial=0.01, backoff_max=0.02)


def client(server: RawServer, **options: Any) -> AsyncProdia:
    options.setdefault("retry", FAST)
    return AsyncProdia(TOKEN, base_url=server.url, **options)


def stall(conversation: Conversation) -> None:
    conversation.charge()
    conversation.stall()


def reset(conversation: Conversation) -> None:
    conversation.charge()
    conversation.reset()


def refusal(*headers: str) -> Callable[[Conversation], None]:
    return say(http("429 Too Many Requests", b"busy", *headers, content_type="text/plain"))


# ------------------------------------------------------------------ decisions


@pytest.mark.parametrize(
    ("error", "answered", "sent", "own", "fate"),
    [
        (None, True, True, True, "succeeded"),
        (ValueError(), True, True, False, "succeeded"),
        (ValueError(), True, True, True, "ran"),
        (TruncatedResponseError("x"), True, True, True, "ran"),
        (CapacityError("x", status_code=429), True, True, True, "ran"),
        (KeyboardInterrupt(), True, True, True, "ran"),
        (CapacityError("x", status_code=429), False, True, True, "not run"),
        (ConnectError("x"), False, True, True, "undelivered"),
        (APITimeoutError("x"), False, True, True, "uncertain"),
        (ServerError("x", status_code=500, fate="ran"), False, True, True, "ran"),
        (ValueError(), False, False, True, "refused"),
        (ValueError(), False, True, True, "uncertain"),
        (KeyboardInterrupt(), False, True, True, "uncertain"),
        (KeyboardInterrupt(), False, False, True, "undelivered"),
    ],
)
def test_what_an_attempt_came_to(
    error: BaseException | None, answered: bool, sent: bool, own: bool, fate: Fate
) -> None:
    """An answer that had begun means it ran; else the error says; else what was handed over."""
    assert fate_of(error, answered=answered, sent=sent, own=own) == fate


@pytest.mark.parametrize(
    ("fate", "status_code", "trouble"),
    [
        ("server fault", 500, "fault"),
        ("uncertain", None, "fault"),
        ("uncertain", 503, "fault"),
        ("undelivered", None, "unreachable"),
        ("refused", 401, "unauthorized"),
        ("refused", 403, "unauthorized"),
        ("refused", 400, None),
        ("refused", None, None),
        ("not run", 429, None),
        ("ran", None, None),
        ("succeeded", 200, None),
    ],
)
def test_what_it_says_of_the_server(
    fate: Fate, status_code: int | None, trouble: str | None
) -> None:
    """Faults, nobody there, or not for us; a refusal of one job says nothing."""
    assert trouble_of(fate, status_code) == trouble


@pytest.mark.parametrize(
    ("stage", "may_have_run", "answered", "told"),
    [
        ("connecting", False, False, "connecting"),
        ("sending", False, False, "sending"),
        ("running", True, False, "running"),
        ("running", True, True, "reading"),
    ],
)
def test_how_far_it_had_come(stage: Any, may_have_run: bool, answered: bool, told: str) -> None:
    """By what was handed over, and whether the answer had begun."""
    sending = Sending()
    sending.stage, sending.may_have_run = stage, may_have_run
    assert stage_of_attempt(sending, answered=answered) == told


# ------------------------------------------------------------------ slots and budgets


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the scheduler was told of each attempt."""
    calls: list[tuple[Any, ...]] = []
    release, trouble, refuse = Scheduler.release, Scheduler.trouble, Scheduler.refuse

    def on_release(self: Scheduler, ticket: Any, *, served: bool, answered: bool) -> None:
        calls.append(("released", served, answered))
        release(self, ticket, served=served, answered=answered)

    def on_trouble(self: Scheduler, ticket: Any, what: Any, *, at_once: bool) -> None:
        calls.append(("troubled", what, at_once))
        trouble(self, ticket, what, at_once=at_once)

    def on_refuse(self: Scheduler, ticket: Any, wait: Any, retry_after: Any) -> None:
        calls.append(("refused", wait is None, retry_after))
        refuse(self, ticket, wait, retry_after)

    monkeypatch.setattr(Scheduler, "release", on_release)
    monkeypatch.setattr(Scheduler, "trouble", on_trouble)
    monkeypatch.setattr(Scheduler, "refuse", on_refuse)
    return calls


FAILED = JOB_JSON.replace(b"completed", b"failed")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (say(http()), ("released", True, True)),
        (say(http(body=JOB_PART + OUTPUT_PART[:-9])), ("released", True, True)),
        (say(http(body=multipart(part("job", None, None, FAILED)))), ("released", True, True)),
        (say(http("400 Bad", b"no", content_type="text/plain")), ("released", False, True)),
        (say(http("401 Who", b"no", content_type="text/plain")), ("troubled", "unauthorized")),
        (say(http("403 No", b"no", content_type="text/plain")), ("troubled", "unauthorized")),
        (say(http("500 Oh", b"no", content_type="text/plain")), ("troubled", "fault")),
        (reset, ("troubled", "fault")),
        (refusal("Retry-After: 500"), ("refused", True, 500.0)),
    ],
)
@on_both_loops
async def test_what_the_scheduler_is_told(
    reply: Callable[[Conversation], None],
    expected: tuple[Any, ...],
    told: list[tuple[Any, ...]],
) -> None:
    """A damaged answer frees its worker as a good one does; each refusal by what it says."""
    told.clear()
    with RawServer([reply]) as server:
        async with client(server, retry=RetryPolicy(max_attempts=1)) as prodia:
            with anyio.move_on_after(10):
                with contextlib.suppress(ProdiaError):
                    await prodia.job(PING)
    assert [each[: len(expected)] for each in told] == [expected]


async def test_a_cancelled_attempt_says_nothing_of_the_server(told: list[tuple[Any, ...]]) -> None:
    """Whoever gave up did so for reasons of his own."""
    with RawServer([stall]) as server:
        async with client(server) as prodia:
            with anyio.move_on_after(0.2):
                await prodia.job(PING)
            counts = prodia.statistics()
    assert told == [("released", False, False)]
    assert (counts.cancelled, counts.failed, counts.completed) == (1, 0, 0)


@pytest.mark.parametrize("reply", [stall, refusal()])
@pytest.mark.parametrize("via", ["sync", "async"])
@on_both_loops
async def test_a_job_that_ran_out_of_time_failed(
    reply: Callable[[Conversation], None], via: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody gave it up: it counts as failed, and the hook and the log name the error raised."""
    seen: list[JobDetails] = []

    def hook(details: AttemptDetails) -> None:
        if isinstance(details, JobDetails):
            seen.append(details)

    caplog.clear()
    with RawServer([reply] * 99) as server:
        async with client(server, hook=hook) as prodia:
            with pytest.raises(DeadlineExceededError) as raised:
                await prodia.job(PING, via=via, deadline=0.3)
            counts = prodia.statistics()
    assert (counts.cancelled, counts.failed, counts.completed) == (0, 1, 0)
    finished = [each.error for each in seen if each.event == "finished"]
    assert finished == [raised.value]
    assert len(raised.value.attempts) >= 1
    lost = [each.getMessage() for each in caplog.records if "its answer is lost" in each.message]
    assert all("DeadlineExceededError" in each for each in lost)
    assert bool(lost) == raised.value.may_have_run


@on_both_loops
async def test_success_refills_the_budget() -> None:
    """What a job's retries drew comes back when it succeeds; any other success gives a little."""
    fault = say(http("500 Oh", b"", content_type=None))
    with RawServer([fault, fault]) as server:
        async with client(server) as prodia:
            budget = prodia._engine.budget = RetryBudget(capacity=100)
            budget.tokens = 50.0
            await prodia.job(PING)
            assert budget.tokens == 50.0
            await prodia.job(PING)
            assert budget.tokens == 51.0


@on_both_loops
async def test_uncertain_retries_draw_from_the_budget() -> None:
    """A server that runs jobs and loses their answers is not paid four times for each."""
    with RawServer([reset] * 50) as server:
        retry = RetryPolicy(retry_uncertain=True, backoff_initial=0.01, max_attempts=4)
        async with client(server, retry=retry) as prodia:
            prodia._engine.budget = RetryBudget(capacity=15)
            for _ in range(3):
                with pytest.raises(ConnectionLostError):
                    await prodia.job(PING)
            with pytest.raises(ConnectionLostError, match="budget"):
                await prodia.job(PING)
    assert server.charges == 4 + 3


@pytest.mark.parametrize("others_are_taken", [True, False])
@on_both_loops
async def test_capacity_is_waited_for_since_the_last_acceptance(others_are_taken: bool) -> None:
    """While the server takes others of the type, it is not so that it takes none."""

    def hook(details: AttemptDetails) -> None:
        if others_are_taken and details.event == "waiting" and details.number <= 8:
            prodia._engine.session().accept("inference.ping.v1")

    with RawServer([refusal("Retry-After: 30")] * 100) as server:
        retry = RetryPolicy(max_capacity_wait=200.0)
        async with client(server, retry=retry, hook=hook) as prodia:
            with skip_waiting(), pytest.raises(CapacityError, match="max_capacity_wait"):
                await prodia.job(PING)
    assert (len(server.requests) > 8) is others_are_taken


# ------------------------------------------------------------------ what errors say


@pytest.mark.slow
@pytest.mark.parametrize(("status", "most"), [("400 Bad", 3.0), ("500 Oh", 3.0)])
@on_both_loops
async def test_an_error_whose_body_stalls(
    status: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read for a bounded time, and what came of it is on the error."""
    assert engine_module.REFUSAL_BODY_SECONDS == 1.0
    assert engine_module.ERROR_BODY_SECONDS == 10.0
    monkeypatch.setattr(engine_module, "ERROR_BODY_SECONDS", 1.0)

    def reply(conversation: Conversation) -> None:
        conversation.send(http(status, b"steps: got 1,000", content_type="text/plain", length=500))
        conversation.stall()

    with RawServer([reply]) as server:
        async with client(server, retry=RetryPolicy(max_attempts=1)) as prodia:
            began = time.monotonic()
            with pytest.raises((BadRequestError, ServerError), match="got 1,000") as caught:
                await prodia.job(PING)
            assert 0.9 < time.monotonic() - began < most
    assert caught.value.body == b"steps: got 1,000"
    assert caught.value.reason == "steps: got 1,000"


@on_both_loops
async def test_a_damaged_answer_keeps_its_request_id() -> None:
    """For whoever asks the service what became of it."""
    with RawServer([say(http(body=b"nothing", content_type="text/html"))]) as server:
        async with client(server) as prodia:
            with pytest.raises(MalformedResponseError) as caught:
                await prodia.job(PING)
    assert caught.value.request_id == "11111111-2222-4333-8444-555555555555"
    assert caught.value.attempts[-1].request_id == caught.value.request_id


@on_both_loops
async def test_outputs_that_came_whole_ride_on_a_deadline() -> None:
    """A job that is cut off in its second output hands over the first, and its result."""

    def reply(conversation: Conversation) -> None:
        conversation.charge()
        conversation.send(http(body=JOB_PART + OUTPUT_PART * 2, length=10**6)[:-100])
        conversation.stall()

    with RawServer([reply]) as server:
        async with client(server) as prodia:
            with pytest.raises(DeadlineExceededError) as caught:
                await prodia.job(PING, deadline=0.4)
    error = caught.value
    assert [each.content for each in error.outputs] == [PICTURE]
    assert error.job is not None
    assert error.job_id == error.job.id
    assert (error.stage, error.may_have_run) == ("reading", True)


@pytest.mark.slow
@on_both_loops
async def test_how_far_a_job_had_come() -> None:
    """A slow job, a busy server and a full client are three things."""
    busy = refusal("Retry-After: 30")
    with RawServer([stall, busy, stall]) as server:
        async with client(server, max_concurrency=1, adaptive=False) as prodia:
            with pytest.raises(DeadlineExceededError) as slow:
                await prodia.job(PING, deadline=0.3)
            with pytest.raises(DeadlineExceededError) as refused:
                await prodia.job({"type": "b"}, deadline=0.3)
            async with anyio.create_task_group() as group:
                group.start_soon(prodia.job, {"type": "c"})
                await until(lambda: len(server.requests) == 3)
                with pytest.raises(DeadlineExceededError) as queued:
                    await prodia.job({"type": "c"}, deadline=0.3)
                group.cancel_scope.cancel()
    assert (slow.value.stage, slow.value.retry_after, slow.value.may_have_run) == (
        "running", None, True,
    )  # fmt: skip
    assert (refused.value.stage, refused.value.retry_after) == ("refused", 30.0)
    assert isinstance(refused.value.__cause__, CapacityError)
    assert not refused.value.may_have_run
    assert (queued.value.stage, queued.value.attempts) == ("queued", ())


@on_both_loops
async def test_a_deadline_does_not_hide_why() -> None:
    """The last attempt's error is its cause, with the host and the system's own words."""
    with RawServer() as server:
        url = server.url
    retry = RetryPolicy(max_attempts=99, backoff_initial=0.05, backoff_max=0.05)
    async with AsyncProdia(TOKEN, base_url=url, retry=retry, deadline=0.4) as prodia:
        with pytest.raises(DeadlineExceededError) as caught:
            await prodia.job(PING)
    assert isinstance(caught.value.__cause__, ConnectError)
    assert url.removeprefix("http://") in str(caught.value)
    assert not caught.value.may_have_run


@pytest.mark.parametrize(("own", "clients"), [(0.2, 30.0), (2.0, 0.01)])
@on_both_loops
async def test_a_jobs_own_deadline_beats_the_clients(own: float, clients: float) -> None:
    """Shorter or longer."""
    is_short = own < clients

    def dawdle(conversation: Conversation) -> None:
        conversation.server.over.wait(5.0 if is_short else 0.5)
        conversation.send(http())

    with RawServer([dawdle]) as server:
        async with client(server, deadline=clients) as prodia:
            began = time.monotonic()
            if is_short:
                with pytest.raises(DeadlineExceededError, match=r"deadline of 0\.2 s"):
                    await prodia.job(PING, deadline=own)
                assert time.monotonic() - began < 4.0
            else:
                assert (await prodia.job(PING, deadline=own)).outputs


@on_both_loops
async def test_one_deadline_for_submission_and_result() -> None:
    """What the submission took is gone."""

    def submission(conversation: Conversation) -> None:
        conversation.server.over.wait(0.4)
        processing = JOB_JSON.replace(b"completed", b"processing")
        conversation.send(http("201 Created", processing, content_type="application/json"))

    state = say(http(body=b"processing", content_type="text/plain"))
    with RawServer([submission, *[state] * 50]) as server:
        async with client(server) as prodia:
            began = time.monotonic()
            with pytest.raises(DeadlineExceededError):
                await prodia.job(PING, via="async", deadline=0.7)
            assert 0.6 < time.monotonic() - began < 1.0


@on_both_loops
async def test_where_the_time_went() -> None:
    """Waiting for a slot is queued, being with the server is running."""

    def dawdle(conversation: Conversation) -> None:
        conversation.server.over.wait(0.3)
        conversation.send(http())

    with RawServer([dawdle, dawdle]) as server:
        async with client(server, max_concurrency=1) as prodia:
            timings = []

            async def run() -> None:
                timings.append((await prodia.job(PING)).timing)

            async with anyio.create_task_group() as group:
                group.start_soon(run)
                group.start_soon(run)
    first, second = timings
    assert first.queued < 0.1
    assert 0.25 < second.queued < 0.5
    assert 0.25 < second.running < 0.5
    for each in timings:
        assert each.queued + each.backoff + each.running == pytest.approx(each.total)


# ------------------------------------------------------------------ a 5xx that ran


LONG = part("output", "film", "video/mp4", bytes(200_000))


def late(conversation: Conversation) -> None:
    conversation.charge()
    body = multipart(LONG, JOB_PART)
    answer = http("500 Oh", body)
    conversation.send(answer[: -len(JOB_PART) - 100])
    conversation.server.over.wait(0.4)
    conversation.send(answer[-len(JOB_PART) - 100 :])


@on_both_loops
async def test_a_fault_that_says_late_that_the_job_ran() -> None:
    """Its job part lies behind 200 KB and some waiting; it is not sent again, nothing is lost."""
    with RawServer([late]) as server:
        async with client(server) as prodia:
            with pytest.raises(ServerError, match="says that the job ran") as caught:
                await prodia.job(PING)
        assert (len(server.requests), server.charges) == (1, 1)
    error = caught.value
    assert error.fate == "ran"
    assert [len(each.content) for each in error.outputs] == [200_000]
    assert error.job is not None
    assert error.status_code == 500


@pytest.mark.parametrize("stalls", [True, False])
@on_both_loops
async def test_a_fault_that_was_cut_is_uncertain(stalls: bool) -> None:
    """What was cut off may have said that the job ran, so it is not sent again."""

    def cut(conversation: Conversation) -> None:
        conversation.charge()
        conversation.send(http("502 Oh", multipart(OUTPUT_PART, LONG, JOB_PART))[:100_000])
        if stalls:
            conversation.stall()
        conversation.close()

    with RawServer([cut]) as server:
        async with client(server, timeout=0.4) as prodia:
            with pytest.raises(ServerError) as caught:
                await prodia.job(PING)
        assert (len(server.requests), server.charges) == (1, 1)
    assert caught.value.fate == "uncertain"
    assert caught.value.may_have_run
    assert [each.content for each in caught.value.outputs] == [PICTURE]


@on_both_loops
async def test_a_json_fault_that_was_cut_is_uncertain() -> None:
    """Half a job result says nothing, which is no leave to pay again."""

    def cut(conversation: Conversation) -> None:
        conversation.send(http("500 Oh", JOB_JSON, content_type="application/json")[:-60])
        conversation.close()

    with RawServer([cut]) as server:
        async with client(server) as prodia:
            with pytest.raises(ServerError) as caught:
                await prodia.job(PING)
    assert caught.value.fate == "uncertain"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind", "ran"),
    [
        ("200 OK", JobFailedError, True),
        ("500 Oh", JobFailedError, True),
        ("400 Bad", JobRefusedError, False),
        ("403 No", JobRefusedError, False),
    ],
)
@on_both_loops
async def test_a_failed_job_is_one_class(
    status: str, kind: type[JobFailedError], ran: bool
) -> None:
    """Whatever the status: the answer is a job result that says failed, and why."""
    failed = FAILED.replace(b'"config"', b'"error":"no face found","config"')
    with RawServer([say(http(status, failed, content_type="application/json"))]) as server:
        async with client(server) as prodia:
            with pytest.raises(JobFailedError, match="no face found") as caught:
                await prodia.job(PING)
        assert len(server.requests) == 1
    assert type(caught.value) is kind
    assert caught.value.reason == "no face found"
    assert caught.value.may_have_run is ran
    assert caught.value.job is not None


async def test_a_refusal_stays_a_refusal_whatever_it_brings() -> None:
    """A 429 found no idle worker, so nothing ran, and it is tried again."""
    busy = say(http("429 Busy", FAILED, "Retry-After: 0.05", content_type="application/json"))
    with RawServer([busy]) as server:
        async with client(server) as prodia:
            response = await prodia.job(PING)
    assert [each.fate for each in response.attempts] == ["not run", "succeeded"]


# ------------------------------------------------------------------ admission


@on_both_loops
async def test_a_long_retry_after_holds_for_the_type() -> None:
    """Later jobs of the type fail at once and are not sent; others are."""
    with RawServer([refusal("Retry-After: 3600")]) as server:
        async with client(server) as prodia:
            with pytest.raises(CapacityError):
                await prodia.job(PING)
            began = time.monotonic()
            with pytest.raises(CapacityError, match="not sent") as caught:
                await prodia.job(PING)
            assert time.monotonic() - began < 0.5
            assert (await prodia.job({"type": "other"})).outputs
            view = prodia.with_options(token="another-token-altogether")
            assert (await view.job(PING)).outputs
        assert len(server.requests) == 3
    assert caught.value.retry_after == pytest.approx(3600, abs=5)
    assert caught.value.attempts == ()


@on_both_loops
async def test_a_dead_api_is_waited_for_and_no_longer_than_asked() -> None:
    """With an empty budget a job waits for the first success; in the end it says why."""
    fault = say(http("500 Oh", b"", content_type=None))
    with RawServer([fault] * 100) as server:
        retry = RetryPolicy(
            max_attempts=50, backoff_initial=0.01, backoff_max=0.02, max_capacity_wait=0.5
        )
        async with client(server, retry=retry) as prodia:
            prodia._engine.budget = RetryBudget(capacity=4)
            with pytest.raises(ServerError, match="with a fault") as caught:
                await prodia.job(PING)
    assert caught.value.may_have_run
    assert len(server.requests) < 10


@on_both_loops
async def test_a_job_that_finds_the_server_refusing() -> None:
    """It waits as long as it may, is never sent, and says why; or its deadline says so."""
    busy = refusal("Retry-After: 30")
    with RawServer([busy]) as server:
        retry = RetryPolicy(max_capacity_wait=0.4)
        async with client(server, retry=retry) as prodia:
            with pytest.raises(CapacityError, match="max_capacity_wait"):
                await prodia.job(PING)
            began = time.monotonic()
            with pytest.raises(CapacityError, match="this was not sent") as caught:
                await prodia.job(PING)
            assert 0.3 < time.monotonic() - began < 1.0
            with pytest.raises(DeadlineExceededError) as late:
                await prodia.job(PING, deadline=0.2)
        assert len(server.requests) == 1
    assert caught.value.attempts == ()
    assert (late.value.stage, late.value.attempts) == ("refused", ())
    assert late.value.retry_after == pytest.approx(30, abs=8)


@on_both_loops
async def test_a_job_that_finds_the_server_down() -> None:
    """It was not sent, so it is safe to send again, and the error says so."""
    fault = say(http("500 Oh", b"", content_type=None))
    with RawServer([fault] * 20) as server:
        retry = RetryPolicy(max_attempts=2, backoff_initial=0.01, max_capacity_wait=0.1)
        async with client(server, retry=retry) as prodia:
            prodia._engine.budget = RetryBudget(capacity=4)
            with pytest.raises(ServerError):
                await prodia.job(PING)
            with pytest.raises(ConnectError, match="job after job with a fault") as caught:
                await prodia.job(PING)
    assert not caught.value.may_have_run


@on_both_loops
async def test_a_question_that_waited_while_its_client_closed() -> None:
    """It has no slot to be told by; it looks, and is not sent. The job that it is about is paid."""
    with RawServer() as server:
        prodia = client(server)
        engine = prodia._engine
        questions = engine.session().questions
        holders = [object() for _ in range(int(questions.total_tokens))]
        for holder in holders:
            questions.acquire_on_behalf_of_nowait(holder)
        request = WireRequest("GET", "/v2/job/async/1", (), (), None, "question")
        terms = replace(prodia._terms(None), free=True, counted=False)
        async with anyio.create_task_group() as group:

            async def ask() -> None:
                with pytest.raises(ConnectionLostError, match="client was closed"):
                    await engine.run(request, Words(), terms)

            group.start_soon(ask)
            await anyio.sleep(0.05)
            await prodia.aclose()
            questions.release_on_behalf_of(holders[0])
        assert server.requests == []


class Words(Vocabulary[bytes]):
    """An API that says nothing of prices, and whose errors are plain text."""

    async def read(self, reply: Reply) -> bytes:
        return b"".join([chunk async for chunk in reply])


@on_both_loops
async def test_the_least_that_an_api_must_say() -> None:
    """Only how an answer is read: the rest has defaults."""
    bad = say(http("400 Bad", b"no such thing", content_type="text/plain"))
    with RawServer([say(http(body=b"x" * 5000)), bad]) as server:
        async with client(server) as prodia:
            engine = prodia._engine
            request = WireRequest("GET", "/v1/thing", (), (), None, "thing")
            terms = prodia._terms(None)
            body, finished = await engine.run(request, Words(), terms)
            assert body == b"x" * 5000
            assert finished.headers["content-length"] == "5000"
            with pytest.raises(BadRequestError, match="no such thing"):
                await engine.run(request, Words(), terms)
            exchange = await engine.begin(request, Words(), terms)
            assert prodia.statistics().in_flight == 1
            exchange.give_back()
            exchange.give_back()
            assert prodia.statistics().in_flight == 0
            await exchange.end()
            assert prodia.statistics().completed == 2
        with pytest.raises(NotImplementedError):
            await Vocabulary().read(exchange.reply)


@pytest.mark.slow
@on_both_loops
async def test_a_readers_own_time_does_not_count() -> None:
    """The deadline is for waiting; between two steps the reader may take as long as he likes."""
    with RawServer() as server:
        async with client(server) as prodia:
            request = WireRequest("GET", "/v1/thing", (), (), None, "thing")
            terms = replace(prodia._terms(None), deadline=0.4)
            exchange = await prodia._engine.begin(request, Words(), terms)
            await anyio.sleep(0.6)
            assert await exchange.within(lambda: Words().read(exchange.reply))
            with pytest.raises(DeadlineExceededError):
                await exchange.within(lambda: anyio.sleep(1))
            await exchange.end()


@on_both_loops
async def test_the_body_of_an_error_is_bounded() -> None:
    """Its start is enough."""
    page = b"<p>" + b"x" * 300_000
    with RawServer([say(http("400 Bad", page, content_type="text/html"))]) as server:
        async with client(server) as prodia:
            with pytest.raises(BadRequestError) as caught:
                await prodia.job(PING)
    assert caught.value.body == page[: 64 * 1024]


@on_both_loops
async def test_a_hook_may_send_headers_along() -> None:
    """What it puts there when an attempt starts goes with that attempt."""

    def hook(details: AttemptDetails) -> None:
        if details.event == "started":
            details.headers["x-trace"] = str(details.number)

    fault = say(http("500 Oh", b"", content_type=None))
    with RawServer([fault]) as server:
        async with client(server, hook=hook) as prodia:
            await prodia.job(PING)
    assert [each.header("x-trace") for each in server.requests] == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-user", "Jos\u00e9"), ("x-number", 5), ("x-lines", "a\r\nb: c"), (7, "qqq"),
        ("a b", "qqq"),
        ("Authorization", "Bearer other"), ("Host", "elsewhere"), ("content-length", "3"),
        ("Transfer-Encoding", "chunked"), ("accept-encoding", "gzip"),
    ],
)  # fmt: skip
@on_both_loops
async def test_a_header_that_a_hook_may_not_send(
    name: Any, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged and left out: a broken trace costs no job, and contradicts no request."""

    def hook(details: AttemptDetails) -> None:
        details.headers.update({name: value, "X-Good": " kept "})

    with RawServer() as server:
        async with client(server, hook=hook) as prodia:
            assert (await prodia.job(PING)).output.content == PICTURE
        host = server.url.removeprefix("http://")
    (request,) = server.requests
    assert request.header("x-good") == "kept"
    assert request.header("authorization") == "Bearer secret-token-of-many-letters"
    assert request.header("host") == host
    assert request.header("accept-encoding") == "identity"
    assert request.header("transfer-encoding") is None
    assert request.head.lower().count("content-length") == 1
    assert "x-user" not in request.head
    (said,) = ours(caplog)
    assert said.startswith("inference.ping.v1: ")
    assert re.search(r" (in|by) the headers of a hook(;| is| must)", said)
    assert "it is left out" in said
    assert str(value) not in said


@on_both_loops
async def test_a_hook_that_asks_for_a_cancelled_future(caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged as any other: nobody was cancelled, and the answer is paid for."""

    def hook(details: AttemptDetails) -> None:
        future: asyncio.Future[None] = asyncio.Future(loop=loop)
        future.cancel()
        future.result()

    loop = asyncio.new_event_loop()
    with RawServer() as server:
        async with client(server, hook=hook) as prodia:
            assert (await prodia.job(PING)).output.content == PICTURE
            assert prodia.statistics().completed == 1
    loop.close()
    assert "failed on 'finished'" in caplog.text

    def interrupted(details: AttemptDetails) -> None:
        raise KeyboardInterrupt

    details = AttemptDetails(
        event="started", job_type="x", number=1, attempt=None, seconds_queued=0.0
    )
    with pytest.raises(KeyboardInterrupt):
        tell(interrupted, details)


def ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what we logged; in debug mode asyncio has things to say as well."""
    return [each.getMessage() for each in caplog.records if each.name == "prodia_async"]


@on_both_loops
async def test_a_type_that_is_refused_for_long_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once, not for each of many jobs, and not before it is long: it may be a wrong type."""
    caplog.set_level("WARNING", "prodia_async")
    with RawServer([refusal("Retry-After: 4")] * 99) as server, skip_waiting():
        async with client(server, retry=RetryPolicy(max_capacity_wait=20)) as prodia:
            with pytest.raises(CapacityError):
                await prodia.job({"type": "inference.flux.kleen.v1"})
        assert ours(caplog) == []
        async with client(server) as prodia:
            async with anyio.create_task_group() as group:

                async def run() -> None:
                    with pytest.raises(DeadlineExceededError):
                        await prodia.job({"type": "inference.flux.kleen.v1"}, deadline=100)

                for _ in range(3):
                    group.start_soon(run)
    # A slow machine may have one on its way when its deadline passes, which is another warning.
    (told,) = [each for each in ours(caplog) if "its answer is lost" not in each]
    assert told.startswith("inference.flux.kleen.v1: refused ")
    assert "tried for 600 s (max_capacity_wait), and a wrong job type" in told


@on_both_loops
async def test_closing_wakes_those_who_wait() -> None:
    """Jobs that wait out a Retry-After are told at once, and nothing of them is sent."""
    busy = refusal("Retry-After: 60")
    with RawServer([busy] * 3) as server:
        prodia = client(server)
        errors: list[ProdiaError] = []

        async def run() -> None:
            try:
                await prodia.job(PING)
            except ProdiaError as error:
                errors.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(run)
            await until(lambda: prodia.statistics().waiting == 3)
            began = time.monotonic()
            await prodia.aclose()
        assert time.monotonic() - began < 0.5
    assert [str(each).partition(".")[0] for each in errors] == [
        "the client was closed before this job was sent"
    ] * 3
    assert not any(each.may_have_run for each in errors)


@on_both_loops
async def test_a_full_queue_sheds_load() -> None:
    """One more than may wait is refused at once, nothing of it sent; jobs of a map never are."""
    release = [False]

    def dawdle(conversation: Conversation) -> None:
        while not release[0]:
            conversation.server.over.wait(0.01)
        conversation.send(http())

    with RawServer([dawdle] * 20) as server:
        async with client(server, max_concurrency=1, max_queued=1) as prodia:
            async with anyio.create_task_group() as group:
                for _ in range(2):
                    group.start_soon(prodia.job, PING)
                await until(lambda: prodia.statistics().queued == 1)
                with pytest.raises(QueueFullError, match="max_queued") as caught:
                    await prodia.job(PING)
                with anyio.move_on_after(0.1):
                    await prodia.with_options(max_queued=None).job(PING)
                release[0] = True
            async with prodia.map([PING] * 5) as outcomes:
                assert [each.error async for each in outcomes] == [None] * 5
        assert not caught.value.may_have_run
        assert len(server.requests) == 7


# ------------------------------------------------------------------ draining


@on_both_loops
async def test_draining() -> None:
    """What was sent comes to its end, what was not is told so, and the client is closed then."""
    go_on = [False]

    def dawdle(conversation: Conversation) -> None:
        conversation.charge()
        while not go_on[0]:
            conversation.server.over.wait(0.01)
        conversation.send(http())

    with RawServer([dawdle] * 9) as server:
        prodia = client(server, max_concurrency=2, adaptive=False)
        found: list[object] = []

        async def run() -> None:
            try:
                found.append((await prodia.job(PING)).content)
            except ConnectError as error:
                found.append((type(error), error.client_is_closing))

        assert not prodia.is_closing
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(run)
            await until(lambda: len(server.requests) == 2)

            async def drain() -> None:
                assert await prodia.drain() == ()

            group.start_soon(drain)
            await anyio.sleep(0.1)
            assert prodia.is_closing
            with pytest.raises(ConnectError, match="draining") as caught:
                await prodia.job(PING)
            assert caught.value.client_is_closing
            go_on[0] = True
        refused = (ConnectError, True)
        assert sorted(map(str, found)) == sorted(map(str, [PICTURE, PICTURE, refused, refused]))
        assert server.charges == 2
        assert await prodia.drain() == ()
        with pytest.raises(RuntimeError, match="closed"):
            await prodia.job(PING)


@pytest.mark.parametrize("timeout", [None, 0.2])
@on_both_loops
async def test_what_was_never_sent_is_told_and_not_left(
    timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However soon the drain looks: whoever waits has an error before it returns."""
    monkeypatch.setattr(engine_module, "DRAIN_LOOK_SECONDS", 0)
    go_on = [False]

    def dawdle(conversation: Conversation) -> None:
        conversation.charge()
        while not go_on[0] and not conversation.server.over.is_set():
            conversation.server.over.wait(0.01)
        conversation.send(http())

    errors: list[ConnectError] = []
    with RawServer([dawdle] * 9) as server:
        prodia = client(server, max_concurrency=1, adaptive=False)

        async def run() -> None:
            try:
                await prodia.job(PING)
            except ConnectError as error:
                errors.append(error)
            except ConnectionLostError:
                pass  # the one that was sent, where time was up

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(run)
            await until(lambda: len(server.requests) == 1)
            go_on[0] = timeout is None
            left = await prodia.drain(timeout=timeout)
            go_on[0] = True
            assert len(errors) == 19, "they were told before"
        assert [each.may_have_run for each in left] == [True] * (timeout is not None)
        assert all(each.client_is_closing and not each.may_have_run for each in errors)
        assert server.charges == 1


@on_both_loops
async def test_draining_takes_no_longer_than_it_may() -> None:
    """What is left is listed, by the names the caller gave it, and cut off."""
    with RawServer([stall] * 3) as server:
        prodia = client(server, max_concurrency=1, adaptive=False)

        async def run() -> None:
            jobs = [JobRequest(PING, tag="first"), JobRequest(PING, tag="second")]
            async with prodia.map(jobs) as outcomes:
                errors = [outcome.error async for outcome in outcomes]
            assert any(isinstance(each, APIConnectionError) for each in errors)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await until(lambda: len(server.requests) == 1)
            began = time.monotonic()
            left = await prodia.drain(timeout=0.3)
            assert time.monotonic() - began < 1.0
        assert [(each.tag, each.index, each.may_have_run) for each in left] == [("first", 0, True)]
        assert left[0].job_type == "inference.ping.v1"
    with pytest.raises(InvalidRequestError, match="timeout"):
        await prodia.drain(timeout=0)


async def test_a_map_ends_when_its_client_drains() -> None:
    """Its source is not asked for more, and its loop ends with what it had."""
    pulled = 0

    def jobs() -> Any:
        nonlocal pulled
        while True:
            pulled += 1
            yield PING

    with RawServer([]) as server:
        prodia = client(server, max_concurrency=2)
        count = 0
        async with anyio.create_task_group() as group:
            async with prodia.map(jobs()) as outcomes:
                async for _ in outcomes:
                    count += 1
                    if count == 20:
                        group.start_soon(prodia.drain)
        assert count <= 30
        assert pulled <= 40


# ------------------------------------------------------------------ hooks and logs


@on_both_loops
async def test_a_hook_is_told_of_jobs() -> None:
    """Queued and finished, with the place among many, the tag, the id of the answer, the price."""
    priced = JOB_JSON.replace(b'"config"', b'"price":{"product":"p","dollars":0.25},"config"')
    body = multipart(part("job", "job.json", "application/json", priced), OUTPUT_PART)
    seen: list[AttemptDetails] = []
    bad = say(http("400 Bad", b"no", content_type="text/plain"))
    with RawServer([say(http(body=body)), bad]) as server:
        async with client(server, hook=seen.append, max_concurrency=1) as prodia:
            jobs = [JobRequest(PING, tag="a"), JobRequest(PING, tag="b")]
            async with prodia.map(jobs) as outcomes:
                assert [outcome.error is None async for outcome in outcomes] == [True, False]
    of_jobs = [each for each in seen if isinstance(each, JobDetails)]
    assert [(each.event, each.index, each.tag) for each in of_jobs if each.tag == "a"] == [
        ("queued", 0, "a"), ("finished", 0, "a"),
    ]  # fmt: skip
    done, failed = [each for each in of_jobs if each.event == "finished"]
    assert (done.dollars, done.error, done.number) == (0.25, None, 1)
    assert done.request_id == failed.request_id == "11111111-2222-4333-8444-555555555555"
    assert done.seconds > 0
    assert (failed.index, failed.tag, type(failed.error)) == (1, "b", BadRequestError)
    started = [each for each in seen if each.event == "started"]
    assert [(each.index, each.tag, each.request_id) for each in started] == [
        (0, "a", None), (1, "b", None),
    ]  # fmt: skip


@on_both_loops
async def test_what_was_paid_for_and_lost_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """With fields for whoever reads logs by machine; a refusal is none."""
    caplog.set_level(logging.INFO, logger="prodia_async")
    caplog.clear()
    bad = say(http("400 Bad", b"no", content_type="text/plain"))
    with RawServer([reset, bad, stall]) as server:
        async with client(server) as prodia:
            for kind in (ConnectionLostError, BadRequestError):
                with pytest.raises(kind):
                    await prodia.job(PING)
            with anyio.move_on_after(0.2):
                await prodia.job(PING)
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert [each.message.rpartition(": ")[0] for each in warnings] == [
        "inference.ping.v1: it may have been paid for, and its answer is lost"
    ] * 2
    extra = vars(warnings[0])
    assert (extra["job_type"], extra["attempt"], extra["fate"]) == (
        "inference.ping.v1", 1, "uncertain",
    )  # fmt: skip


@on_both_loops
async def test_a_submission_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """If whoever waits is cut off, the id is in the log."""
    caplog.set_level(logging.INFO, logger="prodia_async")
    caplog.clear()
    processing = JOB_JSON.replace(b"completed", b"processing")
    with RawServer(
        [say(http("201 Created", processing, content_type="application/json"))]
    ) as server:
        async with client(server) as prodia:
            job = await prodia.submit(PING)
    (line,) = [each for each in caplog.records if "submitted as" in each.message]
    assert line.message == f"inference.ping.v1: submitted as {job.id}"
    assert vars(line)["job_id"] == job.id


@on_both_loops
async def test_an_answer_of_another_type_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody before the server may have mixed two answers up."""
    caplog.set_level(logging.WARNING, logger="prodia_async")
    caplog.clear()
    with RawServer() as server:
        async with client(server) as prodia:
            await prodia.job(PING)
            assert caplog.messages == []
            await prodia.job({"type": "inference.pong.v1"})
            async with prodia.stream({"type": "inference.pong.v1"}) as stream:
                async for _ in stream:
                    pass
    assert [each.partition(":")[0] for each in caplog.messages] == ["inference.pong.v1"] * 2
    assert "'inference.ping.v1'" in caplog.messages[0]


# ------------------------------------------------------------------ memory


async def test_errors_keep_no_answers_alive() -> None:
    """Failures that are collected do not hold what came of their answers."""
    size = 2_000_000
    body = JOB_PART + part("output", "film", "video/mp4", bytes(size))

    def cut(conversation: Conversation) -> None:
        conversation.send(http(body=body, content_type=MULTIPART_TYPE)[:-50_000])
        conversation.close()

    errors: list[ProdiaError] = []
    before = 0
    with RawServer([cut] * 12) as server:
        async with client(server) as prodia:
            for number in range(12):
                with pytest.raises(TruncatedResponseError) as caught:
                    await prodia.job(PING)
                errors.append(caught.value)
                del caught
                if number == 1:
                    gc.collect()
                    tracemalloc.start()
                    before = tracemalloc.get_traced_memory()[0]
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
    assert all(each.__traceback__ is not None for each in errors)
    assert grown < 2 * size
