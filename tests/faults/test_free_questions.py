"""
Questions about a job that is paid for: asked in whatever fault, past the bounds of paid jobs.

Each test counts what was charged: a paid job is lost when its result is, or when it is paid again.
"""

from __future__ import annotations

import pickle
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import on_both_loops
from raw_server import JOB_JSON, PICTURE, Conversation, http
from test_async_jobs import ID, VIDEO, JobServer, client, text

from prodia_async import (
    AsyncProdia,
    DeadlineExceededError,
    Job,
    JobFailedError,
    JobNotFoundError,
    MalformedResponseError,
    ProdiaError,
    ResponseTooLargeError,
    RetryPolicy,
    ServerError,
    TruncatedResponseError,
)
from prodia_async._waiting import skip_waiting

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE = PICTURE + b"IEND\xaeB`\x82"
PAGE = http(body=b"<html>Sign in to the guests' network</html>", content_type="text/html")
DENIED = http("403 Forbidden", b"<h1>Blocked</h1>", content_type="text/html")
NOT_FOUND = http("404 Not Found", b"no such job", content_type="text/plain")
JSON = "application/json"


def result(**more: str) -> bytes:
    """Return a job result with further fields."""
    fields = "".join(f',"{name}":{value}' for name, value in more.items())
    return http(body=JOB_JSON.rstrip()[:-1] + fields.encode() + b"}", content_type=JSON)


async def test_an_outage_of_seconds_loses_nothing() -> None:
    """503 for 7.5 s, real time: the waits are the default policy's, the number of them is not."""
    began = time.monotonic()

    class Down(JobServer):
        def _answer(self, conversation: Conversation) -> None:
            if self.charges and time.monotonic() - began < 7.5:
                conversation.send(http("503 Busy", b""))
            else:
                super()._answer(conversation)

    with Down() as server:
        async with AsyncProdia("secret-token", base_url=server.url) as prodia:
            response = await prodia.job(VIDEO, via="async")
            counts = prodia.statistics()
    assert len(response.outputs) == 2
    assert (server.charges, counts.completed, counts.failed) == (1, 1, 0)


@pytest.mark.parametrize("question", ["state", "json", "output", "file"])
@pytest.mark.parametrize(
    "fault",
    [http("502 Bad Gateway", b""), PAGE, DENIED, NOT_FOUND, http("401 Unauthorized", b"x"),
     http("400 Bad Request", b"x"), http("429 Busy", b"", "Retry-After: 0.01"),
     http("307 Elsewhere", b"", "Location: /portal")],
    ids=["502", "page", "403", "404", "401", "400", "429", "307"],
)  # fmt: skip
@on_both_loops
async def test_one_fault_of_any_kind_is_not_a_loss(question: str, fault: bytes) -> None:
    """Even with max_attempts=1, which rules out paying twice, one bad answer is asked again."""
    policy = RetryPolicy(max_attempts=1, backoff_initial=0.01)
    page_is_file = fault is PAGE and question == "file"
    with JobServer() as server:
        server.answers[question].insert(0, fault)
        async with AsyncProdia("secret-token", base_url=server.url, retry=policy) as prodia:
            job = await prodia.submit(VIDEO)
            response = await job.result(poll=0.01)
    assert len(response.outputs) == 2
    # A page in a file's place cannot be told from a file that is text: nothing says what it is.
    assert (response.output.content == WHOLE) is not page_is_file
    assert server.charges == 1


@on_both_loops
async def test_a_long_outage_ends_when_the_result_must_be_gone() -> None:
    """Five minutes after the last good answer nothing can be there; the error tells the id."""
    with JobServer() as server, skip_waiting() as skipped:
        async with client(server) as prodia:
            job = await prodia.submit(VIDEO)
            server.answers["state"] = [http("503 Busy", b"")]
            with pytest.raises(ServerError, match="must be gone by now") as caught:
                await job.result()
    assert 290 <= skipped.waited <= 320
    assert (caught.value.job_id, caught.value.may_have_run) == (ID, True)
    assert len(caught.value.attempts) > 30
    assert server.charges == 1


@on_both_loops
async def test_an_ended_job_says_itself_when_it_is_gone() -> None:
    """`expires_at` holds for what is collected, by the server's own clock."""
    soon = result(updated_at='"2026-02-03T04:05:06Z"', expires_at='"2026-02-03T04:05:16Z"')
    down = http("503 Busy", b"")
    with JobServer(json=[soon], output=[down]) as server, skip_waiting() as skipped:
        async with client(server) as prodia:
            with pytest.raises(ServerError, match="must be gone"):
                await prodia.async_job(ID).result(poll=0.01)
    assert 9 <= skipped.waited <= 12


@on_both_loops
async def test_a_job_that_is_not_found_for_long_is_lost() -> None:
    """One 404 after our own submission is patience; after some seconds it is believed."""
    with JobServer(state=[NOT_FOUND]) as server, skip_waiting() as skipped:
        async with client(server) as prodia:
            job = await prodia.submit(VIDEO)
            with pytest.raises(JobNotFoundError, match="has expired") as caught:
                await job.wait()
    assert 5 <= skipped.waited <= 12
    assert caught.value.job_id == ID


@on_both_loops
async def test_questions_go_past_the_bound_and_the_budget() -> None:
    """With every slot taken and the budget empty, a paid job is collected all the same."""

    class Busy(JobServer):
        def _answer(self, conversation: Conversation) -> None:
            if self.requests[-1].head.startswith("POST /v2/job "):
                conversation.stall()
            else:
                super()._answer(conversation)

    with Busy() as server:
        server.answers["state"].insert(0, http("502 Bad Gateway", b""))
        async with client(server, max_concurrency=1) as prodia, anyio.create_task_group() as tasks:
            budget = prodia._engine.budget
            job = await prodia.submit(VIDEO)
            tasks.start_soon(prodia.job, Job("inference.slow.v1"))
            while prodia.statistics().in_flight == 0:
                await anyio.sleep(0.01)
            budget.tokens = 0.0
            with anyio.fail_after(5):
                response = await job.result(poll=0.01)
            assert budget.tokens == 0.0, "a question neither draws nor fills"
            tasks.cancel_scope.cancel()
    assert len(response.outputs) == 2


@on_both_loops
async def test_many_questions_are_asked_few_at_a_time() -> None:
    """A thousand waiting jobs do not open a thousand connections."""
    with JobServer(state=[text(b"processing"), *[text(b"processed")] * 9]) as server:
        async with client(server) as prodia, anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(prodia.async_job(ID).state)
    assert server.connections <= 50, "32, and what is being closed"


@on_both_loops
async def test_open_streams_keep_nobody_from_asking() -> None:
    """A reader of his own pace holds none of the few places that questions have."""
    with JobServer() as server:
        async with client(server) as prodia:
            job = prodia.async_job(ID)
            streams = [job.stream("video.mp4") for _ in range(40)]
            for each in streams:
                await each.__aenter__()
            with anyio.fail_after(5):
                assert await job.outputs()
            for each in streams:
                await each.__aexit__(None, None, None)


def cut(content: bytes, *headers: str) -> Callable[[Conversation], None]:
    """Return a reply without a length that ends where the connection does."""
    answer = http("200 OK", content, *headers, "Connection: close",
                  content_type="image/png", length=None)  # fmt: skip

    def reply(conversation: Conversation) -> None:
        conversation.send(answer)
        conversation.close()

    return reply


class CutServer(JobServer):
    """Cuts the first outputs short, where only the format itself can tell."""

    def __init__(self, cuts: int, **answers: list[bytes]) -> None:
        self.cuts = cuts
        super().__init__(**answers)

    def _answer(self, conversation: Conversation) -> None:
        if "/output/" in self.requests[-1].head and self.cuts:
            self.cuts -= 1
            cut(WHOLE[:1000])(conversation)
        else:
            super()._answer(conversation)


@on_both_loops
async def test_half_an_output_is_asked_for_again() -> None:
    """1,000 of 2,068 bytes of a PNG, and nothing in HTTP that tells: noticed, asked again, free."""
    with CutServer(2) as server:
        async with client(server) as prodia:
            response = await prodia.job(VIDEO, via="async")
    assert [each.content for each in response.outputs] == [WHOLE, WHOLE]
    assert (server.asked("file"), server.charges) == (4, 1)


@on_both_loops
async def test_an_output_that_stays_half_is_an_error() -> None:
    """It comes to an end, and what came whole is on it."""
    with CutServer(99) as server:
        async with client(server) as prodia:
            with pytest.raises(TruncatedResponseError, match="cut short") as caught:
                await prodia.async_job(ID).result(poll=0.01)
    assert (caught.value.bytes_received, caught.value.job_id) == (1000, ID)
    assert "Asking again costs nothing" in str(caught.value)
    assert "charged again" not in str(caught.value)
    assert "Asking again" in str(pickle.loads(pickle.dumps(caught.value)))


@on_both_loops
async def test_what_http_proved_whole_is_not_taken_away_by_a_guess() -> None:
    """A length says that it is all there, whatever its last bytes look like."""
    odd = http(body=WHOLE + bytes(500), content_type="image/png")
    with JobServer(file=[odd]) as server:
        async with client(server) as prodia:
            response = await prodia.async_job(ID).result(poll=0.01)
    assert len(response.output.content) == len(WHOLE) + 500
    assert server.asked("file") == 2


@on_both_loops
async def test_one_bound_for_all_that_is_collected() -> None:
    """Outputs that fit one by one and not together are refused, those that fitted handed over."""
    big = http(body=bytes(600), content_type="video/mp4")
    with JobServer(file=[big]) as server:
        async with client(server, max_response_bytes=1000) as prodia:
            with pytest.raises(ResponseTooLargeError, match="together") as caught:
                await prodia.async_job(ID).result(poll=0.01)
    assert [len(each.content) for each in caught.value.outputs] == [600]
    assert server.asked("file") == 2


class Silent(JobServer):
    """Takes questions and says nothing."""

    def _answer(self, conversation: Conversation) -> None:
        conversation.stall()


@pytest.mark.parametrize("question", ["state", "outputs", "stream", "wait", "result"])
@on_both_loops
async def test_the_deadline_of_the_client_holds_for_every_question(question: str) -> None:
    """A silent server is left when the time is up, and not after timeout times attempts."""
    took: list[float] = []
    with Silent() as server:
        async with client(server, deadline=0.3) as prodia:
            job = prodia.async_job(ID)
            for _ in range(3):  # a busy machine may stand still, but not each time
                began = time.monotonic()
                with pytest.raises(DeadlineExceededError) as caught:
                    if question == "stream":
                        async with job.stream("video.mp4"):
                            pytest.fail("the block must not be entered")
                    else:
                        await getattr(job, question)()
                took.append(time.monotonic() - began)
                assert (caught.value.job_id, caught.value.may_have_run) == (ID, True)
                if took[-1] < 0.6:
                    break
    assert min(took) < 0.6


@on_both_loops
async def test_the_deadline_holds_while_a_stream_is_read() -> None:
    """And the error has the job's id; so has one about the bytes."""

    class Stalls(JobServer):
        stalls = True

        def _answer(self, conversation: Conversation) -> None:
            conversation.send(http(body=WHOLE[:1000], length=5000, content_type="image/png"))
            if self.stalls:
                conversation.stall()
            conversation.close()

    with Stalls() as server:
        async with client(server, deadline=0.3) as prodia:
            with pytest.raises(DeadlineExceededError) as caught:
                async with prodia.async_job(ID).stream("video.mp4") as part:
                    await part.read()
            assert caught.value.job_id == ID
            server.stalls = False
            with pytest.raises(TruncatedResponseError) as broken:
                async with prodia.async_job(ID).stream("video.mp4") as part:
                    await part.read()
            assert broken.value.job_id == ID
            with pytest.raises(ProdiaError, match="mine") as mine:
                async with prodia.async_job(ID).stream("video.mp4"):
                    raise ProdiaError("mine")
            assert mine.value.job_id is None
            assert prodia.statistics().in_flight == 0


@on_both_loops
async def test_a_deadline_tells_what_the_trouble_was() -> None:
    """The last fault is in the message, and the cause."""
    with JobServer(state=[http("503 Busy", b"", "Retry-After: 60")]) as server:
        async with client(server) as prodia:
            with pytest.raises(DeadlineExceededError, match=r"last trouble: 503") as caught:
                await prodia.async_job(ID).wait(deadline=0.2)
    assert isinstance(caught.value.__cause__, ServerError)
    assert (caught.value.stage, caught.value.retry_after) == ("running", 60)
    assert caught.value.job_id == ID  # though the server has said nothing of it


@on_both_loops
async def test_a_deadline_that_passes_while_outputs_are_fetched_says_so() -> None:
    """The job is done by then, and its result is what could not be had in time."""
    with JobServer(output=[http("503 Busy", b"")]) as server:
        async with client(server) as prodia:
            with pytest.raises(DeadlineExceededError) as caught:
                await prodia.async_job(ID).result(poll=0.01, deadline=0.3)
    assert caught.value.stage == "reading"


@on_both_loops
async def test_words_that_nobody_knows_are_waited_for_within_bounds() -> None:
    """A word of no documented meaning for `timeout` seconds is an error."""
    odd, known = text(b"simmering"), text(b"processing")
    with JobServer(state=[odd, odd, known, odd]) as server, skip_waiting() as skipped:
        async with client(server, timeout=60) as prodia:
            with pytest.raises(MalformedResponseError, match=r"'simmering' for [67]\d s") as caught:
                await prodia.async_job(ID).wait()
    assert 60 <= skipped.waited <= 90
    assert caught.value.job_id == ID


@pytest.mark.parametrize("word", [b"error", b"timeout", b"rejected"])
@on_both_loops
async def test_words_that_sound_like_an_end_are_looked_into(word: bytes) -> None:
    """The job result says whether it is one."""
    failed = http(body=JOB_JSON.replace(b'"completed"', b'"failed"'), content_type=JSON)
    with JobServer(state=[text(word)], json=[failed, result()]) as server:
        async with client(server) as prodia:
            with pytest.raises(JobFailedError):
                await prodia.async_job(ID).wait()
            assert (await prodia.async_job(ID).wait()).succeeded


@pytest.mark.parametrize("word", [b"error", b"aborted"])
@on_both_loops
async def test_a_job_that_broke_off_is_no_success(word: bytes) -> None:
    """Where the job result says no other, it failed: an empty answer would pass for a good one."""
    for state in (b"", b'"state":{"current":"' + word + b'"},'):
        broken = http(body=b'{"id":"x",' + state + b'"error":"out of memory"}', content_type=JSON)
        nothing = [http(body=b"[]", content_type=JSON)]
        with JobServer(state=[text(word)], json=[broken], output=nothing) as server:
            async with client(server) as prodia:
                with pytest.raises(JobFailedError, match="out of memory") as caught:
                    await prodia.async_job(ID).result()
                counts = prodia.statistics()
        assert (caught.value.job_id, caught.value.reason) == (ID, "out of memory")
        assert word.decode() in caught.value.message
        assert caught.value.may_have_run
        assert (counts.failed, counts.completed) == (1, 0)
        assert server.asked("output") == 0


@on_both_loops
async def test_a_job_that_goes_on_behind_a_word_of_trouble_is_waited_for() -> None:
    """As long as a word that nobody knows: whoever ran it again would pay twice."""
    goes_on = http(body=JOB_JSON.replace(b'"completed"', b'"processing"'), content_type=JSON)
    with JobServer(state=[text(b"error")], json=[goes_on, result()]) as server:
        async with client(server) as prodia:
            assert (await prodia.async_job(ID).wait(poll=0.01)).succeeded
    with JobServer(state=[text(b"error")], json=[goes_on]) as server, skip_waiting():
        async with client(server, timeout=60) as prodia:
            with pytest.raises(MalformedResponseError, match="'error' for"):
                await prodia.async_job(ID).wait()
            assert prodia.statistics().failed == 0  # it may end well yet


@on_both_loops
async def test_an_end_without_outputs_is_one_only_if_the_job_result_says_so() -> None:
    """As `job` judges: an answer that is not final, with nothing in it, is none."""
    goes_on = http(body=JOB_JSON.replace(b'"completed"', b'"processing"'), content_type=JSON)
    nothing = [http(body=b"[]", content_type=JSON)]
    with JobServer(state=[text(b"processed")], json=[goes_on, result()], output=nothing) as server:
        async with client(server) as prodia:
            with pytest.raises(MalformedResponseError, match="must be final") as caught:
                await prodia.async_job(ID).result()
            assert (caught.value.job_id, caught.value.may_have_run) == (ID, True)
            assert (await prodia.async_job(ID).result()).outputs == ()


@on_both_loops
async def test_the_id_is_in_the_log_when_the_caller_is_cut_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line of INFO is what is left when the caller's own time-out takes the task away."""
    caplog.set_level("INFO", "prodia_async")
    with JobServer(state=[text(b"processing")]) as server:
        async with client(server) as prodia:
            with anyio.move_on_after(0.3):
                await prodia.job(VIDEO, via="async")
    assert [each for each in caplog.messages if "submitted" in each] == [
        f"{VIDEO.type}: submitted as {ID}"
    ]


@on_both_loops
async def test_an_async_job_is_counted_once_with_its_dollars() -> None:
    """Whoever asks, and however often; a price below nothing is none."""
    priced = result(price='{"product":"x","dollars":0.5}')
    with JobServer(json=[priced]) as server:
        async with client(server, price=True) as prodia:
            job = await prodia.submit(VIDEO)
            assert prodia.statistics().completed == 0, "nobody knows yet how it ends"
            await job.wait(poll=0.01)
            await job.result()
            await prodia.with_options(timeout=9).async_job(ID).wait()
            counts = prodia.statistics()
    assert (counts.completed, counts.failed, counts.dollars) == (1, 0, 0.5)
    with JobServer(json=[result(price='{"dollars":-1000}')]) as server:
        async with client(server, price=True) as prodia:
            await prodia.job(VIDEO, via="async")
            assert prodia.statistics().dollars == 0.0


@on_both_loops
async def test_failures_of_async_jobs_are_counted_as_such() -> None:
    """A failed job, one that is lost, a submission that is refused."""
    failed = http(body=JOB_JSON.replace(b'"completed"', b'"failed"'), content_type=JSON)
    answers: list[dict[str, list[bytes]]] = [
        {"json": [failed]}, {"output": [http(body=b'["../x"]')]}, {"state": [PAGE]},
        {"async": [http("400 Bad Request", b"x")]},
    ]  # fmt: skip
    seen: list[Any] = []
    for each in answers:
        with JobServer(**each) as server:
            async with client(server) as prodia:
                with pytest.raises(ProdiaError):
                    await prodia.job(VIDEO, via="async")
                counts = prodia.statistics()
                seen.append((counts.completed, counts.failed))
    # The second was made, and cannot be had: it is counted as what it was at the server.
    assert seen == [(0, 1), (1, 0), (0, 1), (0, 1)]


@on_both_loops
async def test_a_job_that_its_caller_gave_up_is_counted_as_that() -> None:
    """Neither completed nor failed; the same for a submission."""
    with JobServer(state=[text(b"processing")]) as server:
        async with client(server) as prodia:
            with anyio.move_on_after(0.2):
                await prodia.job(VIDEO, via="async")
            counts = prodia.statistics()
    assert (counts.completed, counts.failed, counts.cancelled) == (0, 0, 1)
    assert counts.dollars == 0.0, "nobody knows what it cost"


@on_both_loops
async def test_timing_counts_the_submission_and_its_waits() -> None:
    """`total` is the whole call, `queued` what the submission waited for capacity."""
    busy = http("429 Busy", b"", "Retry-After: 0.3")
    with JobServer() as server:
        server.answers["async"].insert(0, busy)
        async with client(server) as prodia:
            began = time.monotonic()
            job = await prodia.submit(VIDEO)
            response = await job.result(poll=0.05)
            seconds = time.monotonic() - began
            picked_up = await prodia.async_job(ID).result(poll=0.01)
    assert seconds - 0.05 <= response.timing.total <= seconds
    assert response.timing.queued >= 0.3
    assert [each.status_code for each in response.attempts] == [429, 201]
    assert picked_up.timing.queued == 0.0


@on_both_loops
async def test_closing_ends_the_asking() -> None:
    """A client that was closed asks nothing more."""
    with JobServer(state=[http("503 Busy", b"")]) as jobs:
        async with client(jobs) as prodia:
            async with anyio.create_task_group() as tasks:

                async def wait() -> None:
                    with pytest.raises((ProdiaError, RuntimeError)):
                        await prodia.async_job(ID).wait()

                tasks.start_soon(wait)
                await anyio.sleep(0.1)
                await prodia.aclose()
                asked = len(jobs.requests)
                await anyio.sleep(0.2)
        assert len(jobs.requests) - asked <= 1
