"""Jobs that are left with the server: submitted once, asked about as often as it takes."""

from __future__ import annotations

import contextlib
import json
import pickle
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import on_both_loops
from raw_server import (
    JOB_JSON,
    PICTURE,
    Conversation,
    RawRequest,
    RawServer,
    http,
    say,
)

from prodia_async import (
    AsyncJob,
    AsyncProdia,
    BadRequestError,
    CapacityError,
    ConnectionLostError,
    DeadlineExceededError,
    InvalidRequestError,
    Job,
    JobFailedError,
    JobNotFoundError,
    MalformedResponseError,
    ProdiaError,
    ResponseTooLargeError,
    RetryPolicy,
    Timing,
    TruncatedResponseError,
    WebP,
    _async_jobs,
    _waiting,
)
from prodia_async._async_jobs import (
    BROKE_OFF,
    GOES_ON,
    check_job_id,
    check_output_name,
    judge,
    lifetime_of,
    read_listing,
    read_state,
)
from prodia_async._polling import GRACE
from prodia_async._results import FAILED_STATES, SUCCEEDED_STATES, read_job_result
from prodia_async._show import shown
from prodia_async._vocabulary import Finished
from prodia_async._waiting import skip_waiting
from prodia_async._wire import Headers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ID = "6b0e8cc2-6f5e-4f0b-9f3e-0c7c5d3e2a11"
VIDEO = Job("inference.wan2-2.lightning.txt2vid.v0", {"prompt": "a wave"})
JSON = "application/json"
FAST = RetryPolicy(backoff_initial=0.01)


class JobServer(RawServer):
    """
    Answers as the async endpoints do; what is told by a test comes first.

    Each value of `answers` is a list of answers for the end of a path; the
    last one stays.
    """

    def __init__(self, **answers: list[bytes]) -> None:
        super().__init__()
        self.answers: dict[str, list[bytes]] = {
            "async": [http("201 Created", JOB_JSON.replace(b"completed", b"processing"),
                           content_type=JSON)],
            "state": [text(b"processing"), text(b"processed")],
            "json": [http(body=JOB_JSON, content_type=JSON)],
            "output": [http(body=b'["video.mp4", "poster"]', content_type=JSON)],
            "file": [http(body=PICTURE + b"IEND\xaeB`\x82", content_type="image/png")],
            **answers,
        }  # fmt: skip
        self.replies = Always(self._answer)  # type: ignore[assignment]

    def _answer(self, conversation: Conversation) -> None:
        request = self.requests[-1]
        name = route(request)
        if name == "async":
            conversation.charge()
        with self.lock:
            answers = self.answers[name]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        conversation.send(answer)

    def asked(self, name: str) -> int:
        return sum(route(request) == name for request in self.requests)


class Always:
    """A list of replies that never runs out."""

    def __init__(self, reply: Callable[[Conversation], None]) -> None:
        self.reply = reply

    def pop(self, _: int) -> Callable[[Conversation], None]:
        return self.reply


def route(request: RawRequest) -> str:
    path = request.head.split(" ")[1].partition("?")[0]
    if "/output/" in path:
        return "file"
    return {"current": "state", "json": "json", "output": "output"}.get(
        path.replace(".", "/").rsplit("/", 1)[-1], "async"
    )


def text(body: bytes) -> bytes:
    return http(body=body, content_type="text/plain")


def client(server: RawServer, **options: Any) -> AsyncProdia:
    return AsyncProdia("secret-token", base_url=server.url, retry=FAST, **options)


@on_both_loops
async def test_submitted_waited_for_and_collected() -> None:
    """One submission, one charge; the job result and every output by name."""
    with JobServer() as server:
        async with client(server, price=True) as prodia:
            job = await prodia.submit(VIDEO, accept="video/mp4")
            assert (job.id, repr(job)) == (ID, f"<AsyncJob {ID} processing>")
            response = await job.result(poll=0.01)
            assert prodia.statistics().in_flight == 0
    assert response.job is not None
    assert response.job.config == {"seed": 42}
    assert [each.filename for each in response.outputs] == ["video.mp4", "poster"]
    assert response.output.content.startswith(PICTURE)
    assert [each.status_code for each in response.attempts] == [201]
    assert response.request_id == "11111111-2222-4333-8444-555555555555"
    first = server.requests[0]
    assert first.head.startswith("POST /v2/job/async?price=true ")
    assert first.header("accept") == "video/mp4"
    assert json.loads(first.body) == VIDEO.to_wire()
    asked_for_price = {route(each) for each in server.requests if "?price=true" in each.head}
    assert asked_for_price == {"async", "json"}  # who knows what a question does with it
    assert all(r.header("authorization") == "Bearer secret-token" for r in server.requests)
    assert server.charges == 1


@on_both_loops
async def test_the_clients_headers_are_on_every_request() -> None:
    """On the submission and on each question: a gateway may let nothing pass without them."""
    with JobServer() as server:
        async with client(server, extra_headers={"X-Gateway": "a pass"}) as prodia:
            job = await prodia.submit(VIDEO, extra_headers={"X-Own": "1"})
            await job.result(poll=0.01)
            async with prodia.async_job(ID).stream("video.mp4") as part:
                await part.read()
            assert (
                await prodia.with_options(extra_headers=None).async_job(ID).state() == "processed"
            )
    assert {each.head.split(" ")[0] for each in server.requests[1:]} == {"GET"}
    assert {each.header("accept") for each in server.requests[1:]} == {"*/*"}
    *with_it, last = server.requests
    assert {route(each) for each in with_it} == {"async", "state", "json", "output", "file"}
    assert [each.header("x-gateway") for each in with_it] == ["a pass"] * len(with_it)
    assert [each.header("x-own") for each in with_it] == ["1", *[None] * (len(with_it) - 1)]
    assert last.header("x-gateway") is None


@pytest.mark.slow
@on_both_loops
async def test_one_call_via_async() -> None:
    """`via="async"` submits, waits and collects within one deadline."""
    with JobServer() as server:
        async with client(server, deadline=5) as prodia:
            response = await prodia.job(VIDEO, accept=WebP(), via="async")
            with pytest.raises(InvalidRequestError, match="via"):
                await prodia.job(VIDEO, via="post")  # type: ignore[arg-type]
    assert len(response.outputs) == 2
    assert server.requests[0].header("accept") == "image/webp"
    assert server.charges == 1


@on_both_loops
async def test_picked_up_by_id_in_another_place() -> None:
    """An id is enough to collect a job; nothing is sent before it is asked for."""
    with JobServer() as server:
        async with client(server) as prodia:
            job = prodia.async_job(ID)
            assert server.requests == []
            assert await job.state() == "processing"
            assert (await job.wait(poll=0.01)).succeeded
            assert await job.outputs() == ["video.mp4", "poster"]
            assert (await job.result()).job is not None
    assert server.charges == 0


@on_both_loops
async def test_an_output_as_a_stream(tmp_path: Path) -> None:
    """An output goes to disk as it comes, under its own name."""
    with JobServer() as server:
        async with client(server) as prodia:
            async with prodia.async_job(ID).stream("video.mp4") as part:
                assert (part.filename, part.content_type) == ("video.mp4", "image/png")
                saved = await part.save(tmp_path)
            async with prodia.async_job(ID).stream("a b?.mp4") as part:
                pass  # leaving it unread is fine
            server.answers["file"] = [http(body=b"x", content_type="model/gltf-binary")]
            async with prodia.async_job(ID).stream("a.glb") as part:
                assert part.content_type == "model/gltf-binary"
            assert prodia.statistics().in_flight == 0
    assert saved == tmp_path / "video.mp4"
    assert (await anyio.Path(saved).read_bytes()).startswith(PICTURE)
    assert "/output/a%20b%3F.mp4 " in server.requests[-2].head


@pytest.mark.parametrize("word", [b'"processed"\n', b"Processed", b"completed", b" succeeded "])
@on_both_loops
async def test_words_of_success(word: bytes) -> None:
    """Success has several words, and may come in quotes (row 23)."""
    with JobServer(state=[text(word)]) as server:
        async with client(server) as prodia:
            assert (await prodia.async_job(ID).wait(poll=0.01)).id == ID


@pytest.mark.slow
@pytest.mark.parametrize("word", [b"", b"<html>", b'{"state":1}', b"\x00" * 9, b"x" * 99])
@on_both_loops
async def test_a_state_that_is_no_word(word: bytes) -> None:
    """Something else than a word is an answer the API does not promise."""
    with JobServer(state=[text(word)]) as server:
        async with client(server) as prodia:
            with pytest.raises(MalformedResponseError, match="state must be a word") as caught:
                await prodia.async_job(ID).wait(poll=0.01)
    assert caught.value.job_id == ID


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ({"updated_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T00:01:00Z"}, 60.0),
        ({"created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T00:00:30Z"}, 30.0),
        ({"updated_at": "2026-01-01T00:00:00Z", "expires_at": "2025-01-01T00:00:00Z"}, 300.0),
        ({"updated_at": "2026-01-01T00:00:00", "expires_at": "2026-01-01T00:01:00Z"}, 300.0),
        ({"updated_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T00:00:00.5Z"}, 0.5),
        ({"updated_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T00:00:00Z"}, 300.0),
        ({"expires_at": "2026-01-01T00:01:00Z"}, 300.0),
        ({"updated_at": "2026-01-01T00:00:00Z"}, 300.0),
    ],
)
def test_how_long_a_result_can_be_had(times: dict[str, str], seconds: float) -> None:
    """By the server's own clock; five minutes where it does not say, or says nonsense."""
    job = read_job_result(json.dumps(times).encode())
    assert job is not None
    assert lifetime_of(job) == seconds


@pytest.mark.parametrize(
    ("sent", "word"),
    [(b"'processed'", "processed"), (b'"  Timed Out " ', "timed out"), (b"MAX", "max")],
)
def test_a_state_is_read_as_a_word(sent: bytes, word: str) -> None:
    """Quotes, blanks and capitals are nothing; a letter at either end belongs to the word."""
    assert read_state(sent) == word


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"<p>Sign in</p>", "'<p>sign in</p>'"),
        (b"process\xffed", "'process\N{REPLACEMENT CHARACTER}ed'"),
    ],
)
def test_what_came_in_a_states_place_is_told(sent: bytes, told: str) -> None:
    """A page of a network's, say; and bytes that are no UTF-8 are no error of ours."""
    with pytest.raises(MalformedResponseError) as caught:
        read_state(sent)
    assert caught.value.message == f"a job's state must be a word, not {told}"


def test_what_each_word_means_for_whoever_waits() -> None:
    """Only these: a word that nobody knows is neither an end nor a sign of life."""
    assert {judge(word) for word in GOES_ON} == {"goes on"}
    assert {judge(word) for word in SUCCEEDED_STATES | FAILED_STATES | BROKE_OFF} == {"ended"}
    assert judge("simmering") == "unknown"


def test_what_is_refused_is_told_in_full() -> None:
    """What was expected, what came, and why a name matters."""
    assert check_job_id("Ab-1._~" + 193 * "z").startswith("Ab-1._~z")
    with pytest.raises(InvalidRequestError) as caught:
        check_job_id("a/b")
    assert caught.value.message == "a job id must be a plain id as submit() gave it, not 'a/b'"
    with pytest.raises(InvalidRequestError) as caught:
        check_job_id("..")
    assert caught.value.message == "a job id must be more than dots, not '..'"
    with pytest.raises(InvalidRequestError) as caught:
        check_output_name("../x")
    refused = (
        "an output's name must be a plain file name, not '../x': it goes into a URL that is "
        "fetched with your token"
    )
    assert caught.value.message == refused
    with pytest.raises(MalformedResponseError) as malformed:
        read_listing(b'["../x"]')
    assert malformed.value.message == f"the server lists an output that is refused: {refused}"
    with pytest.raises(MalformedResponseError) as malformed:
        read_listing(b"{" * 99)
    assert malformed.value.message == (
        f"the outputs of a job must be listed as a JSON array of names, not {b'{' * 80!r}"
    )


@on_both_loops
async def test_a_job_result_that_is_none() -> None:
    """What is no JSON object in its place is no answer."""
    with JobServer(state=[text(b"processed")], json=[text(b"[" * 99)]) as server:
        async with client(server) as prodia:
            job = await prodia.submit(VIDEO)
            with pytest.raises(MalformedResponseError) as caught:
                await job.wait()
    told = f"a job result must be a JSON object, not {b'[' * 80!r}; "
    assert caught.value.message.startswith(told)
    assert job.job is not None
    assert (caught.value.job_id, caught.value.job) == (ID, job.job)  # what it said last


@on_both_loops
async def test_a_listing_without_an_end_is_not_collected() -> None:
    """An answer to a question is small, or it is none."""

    class Endless(JobServer):
        def _answer(self, conversation: Conversation) -> None:
            conversation.send(http(length=1 << 30, body=b"", content_type=JSON))
            with contextlib.suppress(OSError):
                for _ in range(200):
                    conversation.send(bytes(1 << 18))

    with Endless() as server:
        async with client(server) as prodia:
            with pytest.raises(ResponseTooLargeError, match="8388608"):
                await prodia.async_job(ID).outputs()
    assert len(server.requests) == 1


FAILED = JOB_JSON.replace(b'"completed"', b'"failed"').replace(
    b'"config"', b'"error":"no face","config"'
)


@pytest.mark.parametrize(
    ("word", "result"),
    [
        (b"failed", FAILED),
        (b"failed", JOB_JSON.replace(b'"config"', b'"error":"no face","config"')),
        (b"processed", FAILED),
    ],
)
@on_both_loops
async def test_a_failed_job(word: bytes, result: bytes) -> None:
    """A job that ended failed is an error with the server's reason, whichever surface says so."""
    failed = http(body=result, content_type=JSON)
    with JobServer(state=[text(word)], json=[failed]) as server:
        async with client(server) as prodia:
            job = await prodia.submit(VIDEO)
            with pytest.raises(JobFailedError, match="no face") as caught:
                await job.result()
    error = caught.value
    assert (error.job_id, error.reason, error.may_have_run) == (ID, "no face", True)
    assert error.job == job.job
    assert [each.status_code for each in error.attempts] == [201]
    assert server.asked("output") == 0


@on_both_loops
async def test_a_failure_that_the_job_result_does_not_tell() -> None:
    """The state alone says that it failed; each job is counted, and none twice."""
    with JobServer(state=[text(b"failed")]) as server:
        async with client(server) as prodia:
            errors: list[JobFailedError] = []
            for job_id in ("one", "two", "two"):
                with pytest.raises(JobFailedError) as caught:
                    await prodia.async_job(job_id).wait()
                errors.append(caught.value)
            assert prodia.statistics().failed == 2
    error = errors[-1]
    assert error.message == "the job failed (failed): 'the server does not say why'"
    assert (error.job_id, error.reason, error.job) == ("two", None, read_job_result(JOB_JSON))


@on_both_loops
async def test_an_unknown_or_expired_job() -> None:
    """404 says what it may mean, on every question."""
    gone = http("404 Not Found", b"gone", content_type="text/plain")
    with JobServer(state=[gone], output=[gone], file=[gone]) as server:
        async with client(server) as prodia:
            job = prodia.async_job(ID)
            for ask in (job.state, job.outputs, job.wait, job.result):
                with pytest.raises(JobNotFoundError) as caught:
                    await ask()
                assert caught.value.message.endswith(
                    "; the job is unknown, or has expired: results are kept for some five minutes"
                )
                assert (caught.value.job_id, caught.value.may_have_run) == (ID, True)
            with pytest.raises(JobNotFoundError, match="has expired"):
                async with job.stream("video.mp4"):
                    pytest.fail("the block must not be entered")


@on_both_loops
async def test_one_denial_of_a_job_that_was_there_is_doubted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever submitted it: once the server has told us of it, one 404 is a replica's that lags."""
    caplog.set_level("INFO", "prodia_async")
    gone = http("404 Not Found", b"gone", content_type="text/plain")
    told: set[str] = set()
    with JobServer(state=[text(b"processing"), gone, text(b"processed")]) as server:
        async with client(server, hook=lambda each: told.add(each.job_type)) as prodia:
            job = prodia.async_job(ID)
            assert await job.state() == "processing"
            assert await job.state() == "processed"
    assert server.asked("state") == 3
    assert [each for each in caplog.messages if "asked again" in each] == [
        f"job {ID}: JobNotFoundError; it is asked again in 0.0 s"
    ]
    assert told == {"GET /v2/job/async"}


@on_both_loops
async def test_a_long_listing_comes_in_pieces() -> None:
    """All of them are put together."""
    names = [f"{number:06}.png" for number in range(30_000)]
    with JobServer(output=[http(body=json.dumps(names).encode(), content_type=JSON)]) as server:
        async with client(server) as prodia:
            assert await prodia.async_job(ID).outputs() == names


@on_both_loops
async def test_a_listing_as_large_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last byte."""
    monkeypatch.setattr(_async_jobs, "MAX_TEXT_BYTES", 10)
    listings = [http(body=each, content_type=JSON) for each in (b'["a", "b"]', b'["a",  "b"]')]
    with JobServer(output=listings) as server:
        async with client(server) as prodia:
            assert await prodia.async_job(ID).outputs() == ["a", "b"]
            with pytest.raises(ResponseTooLargeError) as caught:
                await prodia.async_job(ID).outputs()
    assert caught.value.message == "the answer has more than 10 bytes"


@pytest.mark.slow
@pytest.mark.parametrize(
    "listing",
    [b'["../x"]', b'["a/b"]', b'["a\\\\b"]', b'[".."]', b'[""]', b"[7]", b'{"a":1}', b'"x"', b"",
     b"[" * 5000],
)  # fmt: skip
@on_both_loops
async def test_a_listing_that_is_refused(listing: bytes) -> None:
    """A listing that is no list, or has a name that leaves its folder, is refused (row 23)."""
    bad = http(body=listing, content_type=JSON)
    with JobServer(output=[bad]) as server:
        async with client(server) as prodia:
            with pytest.raises(MalformedResponseError):
                await prodia.async_job(ID).result(poll=0.01)
    assert server.asked("file") == 0


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "..", ".", "", "a\nb", 7])
async def test_names_and_ids_that_cannot_go_into_a_url(name: Any) -> None:
    """What would leave its folder in a URL that carries the token is refused before sending."""
    async with AsyncProdia("t") as prodia:
        with pytest.raises(InvalidRequestError, match="name"):
            prodia.async_job(ID).stream(name)
        with pytest.raises(InvalidRequestError, match="id"):
            prodia.async_job(name)


@on_both_loops
async def test_questions_are_repeated_whatever_went_wrong() -> None:
    """A lost connection, a fault or a cut answer is asked again: asking costs nothing."""
    lost = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"

    class Flaky(JobServer):
        def _answer(self, conversation: Conversation) -> None:
            if len(self.requests) == 2:
                conversation.reset()
            elif len(self.requests) == 3:
                conversation.send(lost)
                conversation.close()
            elif len(self.requests) == 4:
                conversation.send(http("503 Busy", b""))
            else:
                super()._answer(conversation)

    with Flaky() as server:
        async with client(server) as prodia:
            job = await prodia.submit(VIDEO)
            assert len((await job.result(poll=0.01)).outputs) == 2
    assert server.charges == 1
    assert server.asked("async") == 1


@on_both_loops
async def test_a_question_that_is_always_cut_ends() -> None:
    """An answer that is cut each time is asked for again GRACE times, and then given up."""
    lost = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf"

    class Broken(JobServer):
        def _answer(self, conversation: Conversation) -> None:
            conversation.send(lost)
            conversation.close()

    with Broken() as server:
        async with client(server) as prodia:
            with pytest.raises(TruncatedResponseError):
                await prodia.async_job(ID).state()
    assert len(server.requests) == 1 + GRACE


@on_both_loops
async def test_a_lost_submission_is_not_repeated() -> None:
    """A submission that may have been taken is a matter of money: it is not sent again."""

    class Lost(JobServer):
        def _answer(self, conversation: Conversation) -> None:
            conversation.charge()
            conversation.reset()

    with Lost() as server:
        async with client(server) as prodia:
            with pytest.raises(ConnectionLostError) as caught:
                await prodia.submit(VIDEO)
    assert caught.value.may_have_run
    assert (len(server.requests), server.charges) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http("400 Bad", b"this type does not permit async", content_type="text/plain"),
         BadRequestError),
        (http("429 Busy", b"too many", "Retry-After: 999", content_type="text/plain"),
         CapacityError),
        (http("201 Created", b"{}", content_type=JSON), MalformedResponseError),
        (http("201 Created", b"<html>", content_type="text/html"), MalformedResponseError),
        (http("201 Created", PICTURE, content_type="image/png"), MalformedResponseError),
    ],
)  # fmt: skip
@on_both_loops
async def test_a_submission_that_is_not_taken(answer: bytes, kind: type[Exception]) -> None:
    """400, the async limit, and answers without an id are typed errors."""
    answers = {"async": [answer]}
    with JobServer(**answers) as server:
        async with client(server) as prodia:
            with pytest.raises(kind) as caught:
                await prodia.submit(VIDEO)
    if PICTURE in answer:
        error = caught.value
        assert isinstance(error, MalformedResponseError)
        assert error.message == ("the answer to a submission must bring the job's id, and has none")
        assert [each.content for each in error.outputs] == [PICTURE]


@pytest.mark.parametrize("job_id", ["job:7", "a/b", "..", "é", "x" * 201])
@pytest.mark.parametrize("via", ["submit", "job"])
@on_both_loops
async def test_an_id_that_nobody_can_ask_about(via: str, job_id: str) -> None:
    """The server took the job, so it is no mistake of the caller's; it may be charged."""
    taken = JOB_JSON.replace(ID.encode(), job_id.encode()).replace(b"completed", b"processing")
    accepted = http("201 Created", taken, content_type=JSON)
    with JobServer(**{"async": [accepted]}) as server:
        async with client(server) as prodia:
            with pytest.raises(MalformedResponseError, match="cannot stand in a URL") as caught:
                await (prodia.submit(VIDEO) if via == "submit" else prodia.job(VIDEO, via="async"))
            counts = prodia.statistics()
        assert server.charges == 1
    error = caught.value
    assert shown(job_id) in error.message
    assert (error.may_have_run, error.job_id) == (True, job_id)
    assert [each.fate for each in error.attempts] == ["succeeded"]
    assert error.request_id is not None
    assert (counts.failed, counts.completed, counts.cancelled) == (1, 0, 0)


@on_both_loops
async def test_a_deadline_ends_the_waiting_not_the_job() -> None:
    """A job that is not done in time is an error with its id, and can be waited for again."""
    with JobServer(state=[text(b"processing")]) as server:
        async with client(server) as prodia:
            job = await prodia.submit(VIDEO)
            began = time.monotonic()
            with pytest.raises(DeadlineExceededError, match="goes on at the server") as caught:
                await job.wait(poll=0.01, deadline=0.3)
            assert time.monotonic() - began < 0.4
            error = caught.value
            assert error.message == (
                "the job did not finish within 0.3 s and was last 'processing'; it goes on at the "
                "server, and can be waited for again"
            )
            assert (error.job_id, error.may_have_run, error.stage) == (ID, True, "running")
            assert (error.job, error.attempts) == (job.job, job.attempts)
            assert len(job.attempts) == 1
            server.answers["state"] = [text(b"processed")]
            assert len((await job.result()).outputs) == 2
            for bad in (0, -1, float("nan")):
                for ask in (job.wait, job.result):
                    with pytest.raises(InvalidRequestError, match=r"^poll"):
                        await ask(poll=bad)
                    with pytest.raises(InvalidRequestError, match=r"^deadline"):
                        await ask(deadline=bad)


@pytest.mark.parametrize(
    "words", [[b"processing"] * 12, [*[b"simmering"] * 4, b"processing", *[b"simmering"] * 4]]
)
@on_both_loops
async def test_a_job_that_goes_on_is_waited_for_longer_than_timeout(words: list[bytes]) -> None:
    """It is paid for; `timeout` bounds only how long nobody knows whether it goes on."""
    states = [text(word) for word in [*words, b"processed"]]
    with JobServer(state=states) as server, skip_waiting() as skipped:
        async with client(server, timeout=60) as prodia:
            assert (await prodia.async_job(ID).wait(poll=10)).succeeded
    assert skipped.waited > 60
    assert server.asked("state") == len(words) + 1


@on_both_loops
async def test_a_drain_tells_the_ids_of_what_is_waited_for() -> None:
    """A job that was left with the server is not lost: its id is what picks it up elsewhere."""
    with JobServer(state=[text(b"processing")]) as server:
        async with client(server) as prodia, anyio.create_task_group() as tasks:
            submitted, picked_up = await prodia.submit(VIDEO), prodia.async_job("another")

            async def wait(job: AsyncJob) -> None:
                with pytest.raises(ProdiaError, match="the client was closed"):
                    await job.wait(poll=0.01)

            tasks.start_soon(wait, submitted)
            tasks.start_soon(wait, picked_up)
            while server.asked("state") < 2:
                await anyio.sleep(0.01)
            left = await prodia.drain(timeout=0.02)
    assert sorted((each.job_type, each.job_id, each.may_have_run) for each in left) == [
        ("GET /v2/job/async", "another", True),
        (VIDEO.type, ID, True),
    ]


@pytest.mark.slow
@on_both_loops
async def test_polls_grow_apart() -> None:
    """Each wait is longer than the last, so a long job is asked about ever more gently."""
    with JobServer(state=[text(b"processing")]) as server:
        async with client(server) as prodia:
            with pytest.raises(DeadlineExceededError):
                await prodia.async_job(ID).wait(poll=0.05, deadline=1.0)
    # Without growth there would be some twenty looks.
    assert 4 <= server.asked("state") <= 12


@on_both_loops
async def test_an_output_larger_than_allowed() -> None:
    """`max_response_bytes` bounds them together; what was collected before is on the error."""
    small = http(body=b"small", content_type="text/plain")
    big = http(body=bytes(998), content_type="video/mp4")
    with JobServer(file=[small, big]) as server:
        async with client(server, max_response_bytes=1000) as prodia:
            with pytest.raises(ResponseTooLargeError, match="=1000 together; stream") as caught:
                await prodia.async_job(ID).result(poll=0.01)
    assert [each.content for each in caught.value.outputs] == [b"small"]


@on_both_loops
async def test_outputs_as_large_as_allowed() -> None:
    """To the last byte; one byte more is too much, however many pieces it came in."""
    names = http(body=b'["a", "b"]', content_type=JSON)
    files = [http(body=bytes(n), content_type="video/mp4") for n in (1000, 200_000)]
    with JobServer(output=[names], file=[*files, *files]) as server:
        async with client(server, max_response_bytes=201_000) as prodia:
            response = await prodia.async_job(ID).result(poll=0.01)
        assert [len(each.content) for each in response.outputs] == [1000, 200_000]
        async with client(server, max_response_bytes=200_999) as prodia:
            with pytest.raises(ResponseTooLargeError) as caught:
                await prodia.async_job(ID).result(poll=0.01)
    assert caught.value.message == (
        "the outputs up to 'b' are larger than max_response_bytes=200999 together; stream() has "
        "no such limit"
    )


@on_both_loops
async def test_half_a_text_without_a_length_is_no_output() -> None:
    """Only its type says that it is JSON, and that it is cut short."""
    half = http("200 OK", b'{"a":', "Connection: close", content_type=JSON, length=None)

    class Cutting(JobServer):
        def _answer(self, conversation: Conversation) -> None:
            super()._answer(conversation)
            if "/output/" in self.requests[-1].head:
                conversation.close()

    with Cutting(file=[half]) as server, skip_waiting():
        async with client(server) as prodia:
            with pytest.raises(TruncatedResponseError, match="asked 6 times") as caught:
                await prodia.async_job(ID).result()
    assert caught.value.message.startswith(
        "the output 'video.mp4' is cut short: its last bytes are not an end; "
    )
    assert caught.value.bytes_received == 5


@on_both_loops
async def test_the_deadline_of_a_stream_counts_what_was_asked_in_vain() -> None:
    """Forty seconds or more were waited for the output to begin: less than sixty are left."""

    class Stalls(JobServer):
        def _answer(self, conversation: Conversation) -> None:
            if len(self.requests) == 1:
                conversation.send(http("503 Busy", b""))
            else:
                conversation.send(http(body=PICTURE, length=5000, content_type="image/png"))
                conversation.stall()

    policy = RetryPolicy(backoff_initial=80, backoff_max=80)
    begun, ended = anyio.Event(), anyio.Event()
    with Stalls() as server, skip_waiting() as skipped:
        async with AsyncProdia("t", base_url=server.url, retry=policy, deadline=100) as prodia:

            async def read() -> None:
                with pytest.raises(DeadlineExceededError):
                    async with prodia.async_job(ID).stream("video.mp4") as part:
                        begun.set()
                        await part.read()
                ended.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await begun.wait()
                assert 40 <= skipped.waited <= 80
                await _waiting.sleep(65)
                with anyio.fail_after(2):
                    await ended.wait()


@on_both_loops
async def test_a_jobs_time_is_its_submissions_and_the_wait() -> None:
    """Waits of the submission stay what they were; asking and collecting is running."""
    submitted = Finished(None, Headers(), (), Timing(1.0, 2.0, 4.0, 7.0))
    with JobServer() as server:
        async with client(server) as prodia:
            began = time.monotonic()
            response = await AsyncJob(ID, prodia._calls(), submitted=submitted).result(poll=0.01)
            picked_up = await prodia.async_job(ID).result(poll=0.01)
            seconds = time.monotonic() - began
    for timing, before in ((response.timing, submitted.timing), (picked_up.timing, None)):
        waits = (before.queued, before.backoff) if before else (0.0, 0.0)
        assert (timing.queued, timing.backoff) == waits
        took = timing.running - (before.running if before else 0.0)
        assert 0 < took <= seconds
        assert timing.total - (before.total if before else 0.0) == pytest.approx(took)


@on_both_loops
async def test_a_job_that_made_nothing() -> None:
    """Its job result is all there is; there is no answer that brought an output."""
    with JobServer(output=[http(body=b"[]", content_type=JSON)]) as server:
        async with client(server) as prodia:
            response = await prodia.async_job(ID).result(poll=0.01)
    assert (response.outputs, response.request_id) == ((), None)
    assert response.job == read_job_result(JOB_JSON)


@on_both_loops
async def test_an_encoded_output_is_refused() -> None:
    """No compression was asked for."""
    with JobServer(file=[http("200 OK", b"x", "Content-Encoding: gzip")]) as server:
        async with client(server) as prodia:
            with pytest.raises(MalformedResponseError, match="gzip"):
                async with prodia.async_job(ID).stream("video.mp4"):
                    pytest.fail("the block must not be entered")
            assert prodia.statistics().in_flight == 0


async def test_an_async_job_is_not_pickled() -> None:
    """It says what to send instead."""
    async with AsyncProdia("t") as prodia:
        job: AsyncJob = prodia.async_job(ID)
        with pytest.raises(TypeError) as caught:
            pickle.dumps(job)
    assert str(caught.value) == (
        "an AsyncJob holds a client and cannot be pickled; send its id, and use "
        "client.async_job(id) there"
    )


async def test_an_async_job_shows_how_it_was_seen_last() -> None:
    """In a console and a notebook; nothing is asked for that."""
    with JobServer() as server:
        async with client(server) as prodia:
            job = prodia.async_job(ID)
            assert repr(job) == f"<AsyncJob {ID} not asked yet>"
            html = job._repr_html_()
            assert ID in html
            assert ">not asked yet<" in html
            await job.state()
            assert repr(job) == f"<AsyncJob {ID} processing>"
            assert ">processing<" in job._repr_html_()
    assert server.asked("state") == 1


def test_a_workflow_is_a_job() -> None:
    """Steps are jobs, written down as the API takes them."""
    step = Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": "a cat"})
    workflow = Job.serial(step, Job.moderate(threshold=0.95), {"type": "inference.upscale.v1"})
    assert workflow.to_wire() == {
        "type": "workflow.serial.v1",
        "jobs": [
            {"type": "inference.flux-fast.schnell.txt2img.v2", "config": {"prompt": "a cat"}},
            {"type": "workflow.moderate.v1", "config": {"threshold": 0.95}},
            {"type": "inference.upscale.v1"},
        ],
    }
    assert Job.moderate().to_wire() == {"type": "workflow.moderate.v1"}
    assert "workflow.serial.v1" in repr(workflow)
    assert pickle.loads(pickle.dumps(workflow)) == workflow


@pytest.mark.parametrize("steps", [(), ("x",), ({},), (7,)])
def test_a_workflow_of_no_jobs(steps: tuple[Any, ...]) -> None:
    """A workflow without steps, or with one that is no job, is refused."""
    with pytest.raises(InvalidRequestError):
        Job.serial(*steps)


@pytest.mark.parametrize("bad", [-0.1, 1.1, "1", True, float("nan")])
def test_a_threshold_out_of_range(bad: Any) -> None:
    """A threshold is a number from 0 to 1."""
    with pytest.raises(InvalidRequestError, match="threshold"):
        Job.moderate(threshold=bad)
    with pytest.raises(InvalidRequestError, match="list of jobs"):
        Job("workflow.serial.v1", jobs=bad)


@on_both_loops
async def test_a_tripped_moderation_is_an_error() -> None:
    """Whether the server refuses or fails the workflow, its reason is in the error."""
    said = b'{"id":"1","state":{"current":"failed"},"error":"moderation tripped at step 2"}'
    refused = say(http("400 Bad Request", said, content_type=JSON))
    failed = say(http(body=said, content_type=JSON))
    workflow = Job.serial(VIDEO, Job.moderate())
    with RawServer([refused, failed]) as server:
        async with client(server) as prodia:
            with pytest.raises(BadRequestError, match="moderation tripped at step 2"):
                await prodia.job(workflow)
            with pytest.raises(JobFailedError, match="moderation tripped at step 2"):
                await prodia.job(workflow)
