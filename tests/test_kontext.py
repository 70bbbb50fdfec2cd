"""Kontext tasks: submitted and paid once, asked about for free, in whatever fault."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import on_both_loops
from raw_server import Conversation, RawServer, http, say
from test_fireworks import (
    B64,
    JPEG_BYTES,
    KEY,
    PNG_BYTES,
    POLL,
    PREFIXED,
    SUBMITTED,
    body_of,
    client,
    picture,
    state,
    told,
)

from prodia_async import (
    APIStatusError,
    AttemptDetails,
    CapacityError,
    ConnectionLostError,
    DeadlineExceededError,
    InvalidRequestError,
    JobDetails,
    JobFailedError,
    JobNotFoundError,
    MalformedResponseError,
    PermissionDeniedError,
    ProdiaError,
    RetryPolicy,
    ServerError,
    TruncatedResponseError,
    _requests,
    _uploads,
)
from prodia_async._waiting import skip_waiting
from prodia_async.fireworks import (
    ContentFilteredError,
)
from prodia_async.fireworks._kontext import check_sample_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def lose(conversation: Conversation) -> None:
    conversation.reset()


@on_both_loops
async def test_kontext_is_submitted_once_and_asked_about() -> None:
    """One submission, POSTs to get_result until it is ready, and the picture from its host."""
    with RawServer([picture()]) as host, RawServer() as server:
        sample = f"{host.url}/a%20b/x.png?sig=a%2Bb&x=1#top"
        server.replies += [SUBMITTED, state("Pending"), state("Ready", sample)]
        async with client(server) as fireworks:
            response = await fireworks.kontext(
                "x", input_image=PNG_BYTES, safety_tolerance=2, aspect_ratio="7:3", poll=POLL
            )
            counts = fireworks.statistics()
        heads = [request.head.split(" HTTP")[0] for request in server.requests]
        assert server.charges == 1
    model = "/workflows/accounts/fireworks/models/flux-kontext-pro"
    assert heads == [f"POST {model}", *[f"POST {model}/get_result"] * 2]
    assert body_of(server)["input_image"] == PREFIXED
    assert body_of(server)["seed"] == response.image.seed
    assert body_of(server, 1) == {"id": "task-1"}
    assert host.requests[0].head.startswith("GET /a%20b/x.png?sig=a%2Bb&x=1 HTTP/1.1\r\n")
    assert (response.image.content, response.image.id) == (PNG_BYTES, "task-1")
    assert (len(response.attempts), counts.completed, counts.failed) == (1, 1, 0)


@on_both_loops
async def test_the_key_goes_to_its_own_origin_alone() -> None:
    """Another host, or another port of the same, never sees the key; its own origin does."""
    with RawServer([picture()]) as host, RawServer() as server:
        for where in (host, server):
            server.replies += [SUBMITTED, state("Ready", f"{where.url}/x.png")]
            server.replies += [picture()] * (where is server)
            async with client(server) as fireworks:
                await fireworks.kontext("x", poll=POLL)
        assert host.requests[0].header("host") == host.url.removeprefix("http://")
    assert host.requests[0].header("authorization") is None
    assert KEY not in host.requests[0].head
    assert server.requests[-1].header("authorization") == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("url", "base", "own"),
    [
        ("https://API.example.com:443/x", "https://api.example.com/v1", True),
        ("https://api.example.com:8443/x", "https://api.example.com/v1", False),
        ("https://cdn.example.com/x", "https://api.example.com/v1", False),
        ("https://api.example.com.evil.org/x", "https://api.example.com/v1", False),
        ("http://api.example.com/x", "http://api.example.com/v1", True),
        ("https://api.example.com/x", "http://api.example.com/v1", False),
    ],
)
def test_what_is_the_same_origin(url: str, base: str, own: bool) -> None:
    """Scheme, host and port, all three."""
    assert check_sample_url(url, base)[1] is own


@pytest.mark.parametrize(
    "url",
    ["http://api.example.com/x?secret", "http://127.0.0.1/x", "https://u:secret@x.org/", "https://",
     "https://[::1", "ftp://x.org/secret", "https://x.org:65536/secret", "https://x.org:0/secret",
     "https://xn--/secret", "https://\u2028x.org/secret", "https://x.org:99999999999/secret"],
)  # fmt: skip
def test_where_no_picture_is_fetched_from(url: str) -> None:
    """Plain http where the API is not, a user name, and what is no URL are refused."""
    with pytest.raises(MalformedResponseError, match="must lie at") as caught:
        check_sample_url(url, "https://api.example.com/v1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("sample", [B64, PREFIXED])
@on_both_loops
async def test_a_sample_may_be_the_picture_itself(sample: str) -> None:
    """Base64, with a prefix or without, is read; nothing is fetched."""
    with RawServer([SUBMITTED, state("ready", sample)]) as server:
        async with client(server) as fireworks:
            response = await fireworks.kontext("x", poll=POLL, seed=4)
    assert (response.image.content, response.image.seed) == (PNG_BYTES, 4)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("replies", "kind", "message"),
    [
        ([state("Request Moderated")], ContentFilteredError, "'Request Moderated'"),
        ([state("Content Moderated", details={"reason": "x y"})], ContentFilteredError, "x y"),
        ([state("Error", details={"message": "it broke"})], JobFailedError, "failed: it broke"),
        ([state("Failed")], JobFailedError, "does not say why"),
        ([state("Error", details="odd")], JobFailedError, "failed: odd"),
        ([state("Task not found")] * 6, JobNotFoundError, "'Task not found'; it was asked 6 times"),
        ([told({"error": "x"}, "404 Not Found")] * 6, JobNotFoundError, "404"),
        ([told(b"{")] * 6, MalformedResponseError, "must be JSON"),
        ([told([])] * 6, MalformedResponseError, "state must be an object"),
        ([told({"error": "x"}, "403 No")] * 6, PermissionDeniedError, "403"),
        ([state("Ready")], MalformedResponseError, "no sample"),
        ([state("Ready", "%")], MalformedResponseError, "base64"),
        ([state("Ready", "aGVsbG8=")], MalformedResponseError, "must be a picture"),
    ],
)
@pytest.mark.slow
@on_both_loops
async def test_a_task_that_brings_no_picture(
    replies: list[Any], kind: type[ProdiaError], message: str
) -> None:
    """It ends at once, as what it is, with the task's id; what was paid is said to be."""
    with RawServer([SUBMITTED, *replies]) as server:
        async with client(server) as fireworks:
            with pytest.raises(kind, match=message) as caught:
                await fireworks.kontext("x", poll=POLL)
            counts = fireworks.statistics()
        assert (len(server.requests), server.charges) == (1 + len(replies), 1)
    error = caught.value
    assert (error.job_id, error.may_have_run) == ("task-1", True)
    assert error.attempts
    assert (counts.completed, counts.failed, counts.in_flight) == (0, 1, 0)
    if isinstance(error, ContentFilteredError):
        assert (error.image, error.images) == (None, ())


@on_both_loops
async def test_what_is_lost_after_the_submission_is_asked_again() -> None:
    """Not found for a moment, lost, cut, faulty, refused: the task is asked again, paid once."""
    cut = say(http(body=b"{", length=90), close=True)
    cut_picture = say(http(body=PNG_BYTES[:50], length=100), close=True)
    host_replies = [cut_picture, lose, picture(charge=False)]
    with RawServer(host_replies) as host, RawServer() as server:
        server.replies += [
            SUBMITTED, *[state("Task not found")] * 5, state("Pending"), lose, cut,
            told({}, "500 Oh"), told({}, "429 Busy", "Retry-After: 0.01"), state("Queued"),
            state("Ready", f"{host.url}/x"),
        ]  # fmt: skip
        async with client(server) as fireworks:
            response = await fireworks.kontext("x", poll=POLL)
        assert server.charges == 1
        submissions = [each for each in server.requests if b"prompt" in each.body]
    assert response.image.content == PNG_BYTES
    assert (len(submissions), len(host.requests)) == (1, 3)


def leads_to(place: str, status: str = "302 Found") -> Callable[[Conversation], None]:
    return say(http(status, b"", f"Location: {place}", content_type=None))


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 To", "308 At"])
@on_both_loops
async def test_a_picture_that_lies_somewhere_else(status: str) -> None:
    """Its host may lead on, to another host or within its own, and the key goes nowhere with it."""
    with RawServer() as host, RawServer() as other, RawServer() as server:
        host.replies += [leads_to(f"{other.url}/y.png?sig=1", status)]
        other.replies += [leads_to("z.png", status), picture()]
        server.replies += [SUBMITTED, state("Ready", f"{host.url}/x.png")]
        async with client(server) as fireworks:
            assert (await fireworks.kontext("x", poll=POLL)).image.content == PNG_BYTES
        assert server.charges == 1
    paths = [each.head.split()[1] for each in (*host.requests, *other.requests)]
    assert paths == ["/x.png", "/y.png?sig=1", "/z.png"]
    assert not any(KEY in each.head for each in (*host.requests, *other.requests))


@on_both_loops
async def test_a_redirect_back_to_the_api_brings_no_key() -> None:
    """Another host must not say what is asked with it; the API itself may lead on within."""
    with RawServer() as host, RawServer() as server:
        host.replies += [leads_to(f"{server.url}/x.png")]
        server.replies += [SUBMITTED, state("Ready", f"{host.url}/x.png"), picture()]
        server.replies += [SUBMITTED, state("Ready", f"{server.url}/y.png")]
        server.replies += [leads_to("/z.png"), picture()]
        async with client(server) as fireworks:
            for _ in range(2):
                await fireworks.kontext("x", poll=POLL)
    asked = {each.head.split()[1]: each.header("authorization") for each in server.requests}
    own = f"Bearer {KEY}"
    assert (asked["/x.png"], asked["/y.png"], asked["/z.png"]) == (None, own, own)


@on_both_loops
async def test_a_picture_that_lies_nowhere() -> None:
    """Round and round, or at no address: it ends, with the task's id and without a signature."""
    for place in ("/x?signature", "ftp://x/?signature"):
        with RawServer([leads_to(place)] * 50) as host, RawServer() as server:
            server.replies += [SUBMITTED, state("Ready", f"{host.url}/x?signature")]
            async with client(server) as fireworks:
                with pytest.raises(MalformedResponseError) as caught:
                    await fireworks.kontext("x", poll=POLL)
        assert (caught.value.job_id, caught.value.may_have_run) == ("task-1", True)
        assert "signature" not in str(caught.value)
        assert len(host.requests) == (20 if place[0] == "/" else 5)
    with RawServer([say(http("304 Not Modified", b"", content_type=None))]) as host:
        with RawServer([SUBMITTED, state("Ready", f"{host.url}/x")]) as server:
            async with client(server) as fireworks:
                with pytest.raises(APIStatusError, match="304"):
                    await fireworks.kontext("x", poll=POLL)


@on_both_loops
async def test_a_picture_that_is_gone_can_be_asked_for_again() -> None:
    """A sample that cannot be fetched fails with the id; kontext_result picks the task up."""
    gone = say(http("404 Not Found", b"gone", content_type="text/plain"))
    cut = picture(content=PNG_BYTES[:-8])
    with RawServer([gone, *[cut] * 5, picture()]) as host, RawServer() as server:
        ready = state("Ready", f"{host.url}/x?signature")
        server.replies += [SUBMITTED, ready, ready, ready]
        async with client(server) as fireworks:
            with pytest.raises(JobNotFoundError, match="404 Not Found: gone") as caught:
                await fireworks.kontext("x", poll=POLL)
            assert caught.value.job_id == "task-1"
            with pytest.raises(TruncatedResponseError):
                await fireworks.kontext_result("task-1", poll=POLL)
            response = await fireworks.kontext_result("task-1", poll=POLL)
    assert (response.image.content, response.image.seed) == (PNG_BYTES, None)
    assert (response.request, response.attempts) == (None, ())
    assert "signature" not in str(caught.value)
    assert "wrong key" not in str(caught.value)


@on_both_loops
async def test_a_submission_is_retried_as_any_request() -> None:
    """Refused and faulty submissions are sent again, a lost one is not."""
    replies = [told({}, "503 Busy", "Retry-After: 0.01"), told({}, "500 Oh"), SUBMITTED]
    with RawServer([*replies, state("Ready", B64), lose, told({})]) as server:
        async with client(server) as fireworks:
            response = await fireworks.kontext("x", poll=POLL)
            assert [each.status_code for each in response.attempts] == [503, 500, 200]
            with pytest.raises(ConnectionLostError):
                await fireworks.kontext("x", poll=POLL)
            with pytest.raises(MalformedResponseError, match="must bring a request_id"):
                await fireworks.kontext("x", poll=POLL)
        assert server.charges == 1


@on_both_loops
async def test_a_sample_at_no_address_keeps_the_task_s_id() -> None:
    """Where the picture should lie is the server's word, and the task is paid for."""
    with RawServer([SUBMITTED, state("Ready", "http://127.0.0.1:70000/x?secret")]) as server:
        async with client(server) as fireworks:
            with pytest.raises(MalformedResponseError, match="must lie at a URL") as caught:
                await fireworks.kontext("x", poll=POLL)
    assert (caught.value.job_id, caught.value.may_have_run) == ("task-1", True)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "fault",
    [told({}, "502 Bad"), told({"error": "x"}, "401 No"), told({"error": "x"}, "403 No"),
     told({"error": "x"}, "400 No"), say(http(body=b"<html>", content_type="text/html"))],
    ids=["502", "401", "403", "400", "page"],
)  # fmt: skip
@on_both_loops
async def test_one_bad_answer_about_a_task_is_not_a_loss(fault: Any) -> None:
    """Even with max_attempts=1, which rules out paying twice."""
    policy = RetryPolicy(max_attempts=1, backoff_initial=0.01)
    with RawServer([SUBMITTED, fault, state("Ready", B64)]) as server:
        async with client(server, retry=policy) as fireworks:
            await fireworks.kontext("x", poll=POLL)
        assert server.charges == 1


@on_both_loops
async def test_an_outage_is_waited_out_while_the_task_may_live() -> None:
    """However many faults there are, `timeout` after the submission is the end."""
    down = [told({}, "503 Busy")] * 12
    with skip_waiting() as skipped, RawServer([SUBMITTED, *down, state("Ready", B64)]) as server:
        async with client(server, retry=RetryPolicy()) as fireworks:
            await fireworks.kontext("x", poll=POLL)
            assert skipped.waited > 30
            server.replies += [SUBMITTED, *[told({}, "503 Busy")] * 999]
            with pytest.raises(ServerError, match="must be gone by now") as caught:
                await fireworks.kontext("x", poll=POLL)
    assert caught.value.job_id == "task-1"
    assert 600 < skipped.waited < 800


@on_both_loops
async def test_questions_about_tasks_go_past_the_bound() -> None:
    """A slot is for what is paid: a task is collected while another picture takes them all."""
    with RawServer() as server:
        async with (
            client(server, max_concurrency=1) as fireworks,
            anyio.create_task_group() as tasks,
        ):
            server.replies += [Conversation.stall, state("Ready", B64)]
            tasks.start_soon(fireworks.text_to_image, "slow")
            while not server.requests:
                await anyio.sleep(0.01)
            with anyio.fail_after(5):
                await fireworks.kontext_result("task-1", poll=POLL)
            tasks.cancel_scope.cancel()


@on_both_loops
async def test_what_a_hook_is_told_of_a_task() -> None:
    """One job of several requests: its attempts are those of the submission, however it ended."""
    for replies, lasts, error in (
        ([state("Ready", B64)], None, None),
        ([state("Error")], None, JobFailedError),
        ([state("Pending")] * 500, 0.2, anyio.get_cancelled_exc_class()),
    ):
        seen: list[JobDetails] = []

        def hook(details: AttemptDetails, seen: list[JobDetails] = seen) -> None:
            if isinstance(details, JobDetails):
                seen.append(details)

        with RawServer([SUBMITTED, *replies]) as server:
            async with client(server, hook=hook) as fireworks:
                with anyio.move_on_after(lasts), contextlib.suppress(JobFailedError):
                    await fireworks.kontext("x", poll=POLL)
                counts = fireworks.statistics()
        queued, finished = seen
        assert (queued.event, finished.event) == ("queued", "finished")
        assert type(finished.error) is (error or type(None))
        ended = (counts.completed, counts.failed, counts.cancelled)
        assert ended == (error is None, error is JobFailedError, lasts is not None)
        assert finished.number == 1
        assert finished.attempt is not None
        assert finished.attempt.fate == "succeeded"


@on_both_loops
async def test_what_a_hook_is_told_of_a_task_that_is_picked_up() -> None:
    """The job is of the model that was named."""
    seen: list[AttemptDetails] = []
    with RawServer([state("Ready", B64)]) as server:
        async with client(server, hook=seen.append) as fireworks:
            await fireworks.kontext_result("task-1", model="flux-kontext-max", poll=POLL)
    jobs = [each.job_type for each in seen if isinstance(each, JobDetails)]
    assert jobs == ["flux-kontext-max"] * 2


@on_both_loops
async def test_a_deadline_tells_the_trouble_with_a_task() -> None:
    """The last fault is in the message, and the cause."""
    with RawServer([SUBMITTED, *[told({"detail": "down"}, "503 Busy")] * 99]) as server:
        async with client(server) as fireworks:
            with pytest.raises(DeadlineExceededError, match=r"trouble: 503 .* down") as caught:
                await fireworks.kontext("x", poll=POLL, deadline=0.3)
    assert isinstance(caught.value.__cause__, CapacityError)


@on_both_loops
async def test_an_input_picture_is_read_within_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that nobody writes to is refused, and a disk that hangs is left; nothing is sent."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.png").write_bytes(PNG_BYTES)
    over = threading.Event()
    slow = _uploads.measure

    def hanging(*arguments: Any) -> Any:
        over.wait(20)
        return slow(*arguments)

    with RawServer() as server:
        async with client(server, deadline=0.3) as fireworks:
            (tmp_path / "b.png").write_bytes(PNG_BYTES)
            with monkeypatch.context() as patched:
                patched.setattr(
                    _requests, "measure", lambda path, n: (slow(path, n), path.unlink())[0]
                )
                with pytest.raises(InvalidRequestError, match=r"b\.png.*can no longer be read"):
                    await fireworks.kontext("x", input_image=tmp_path / "b.png")
            with pytest.raises(InvalidRequestError, match="no regular file"):
                await fireworks.kontext("x", input_image=tmp_path / "pipe")
            monkeypatch.setattr(_requests, "measure", hanging)
            began = time.monotonic()
            try:
                with pytest.raises(DeadlineExceededError, match="reading the input picture"):
                    await fireworks.kontext("x", input_image=tmp_path / "a.png")
                assert time.monotonic() - began < 1
            finally:
                over.set()
            assert fireworks.statistics().failed == 3
        assert server.requests == []


@on_both_loops
async def test_a_submission_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """It is what is left when the caller's own time-out takes the task away."""
    caplog.set_level("INFO", "prodia_async")
    with RawServer([SUBMITTED, *[state("Pending")] * 99]) as server:
        async with client(server) as fireworks:
            with anyio.move_on_after(0.2):
                await fireworks.kontext("x", poll=0.01)
    assert "flux-kontext-pro: submitted as task-1" in caplog.messages


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"upstream connect error or disconnect/reset before headers", "text/plain"),
        (b'{"message":"upstream connect error"}', "application/json"),
        (b'{"status":503,"error":"upstream connect error"}', "application/json"),
        (b'"upstream connect error"', "application/json"),
        (b'{"detail":"","error":{"upstream connect error":1}}', "application/json"),
    ],
)
@on_both_loops
async def test_a_gateway_s_503_is_not_trusted(body: bytes, content_type: str) -> None:
    """It may have lost the answer of a job that ran: repeated as a fault, not for ten minutes."""
    lost = say(http("503 Service Unavailable", body, content_type=content_type), charge=True)
    with RawServer([lost] * 9) as server:
        async with client(server) as fireworks:
            with pytest.raises(ServerError, match="upstream connect error") as caught:
                await fireworks.text_to_image("x")
        assert (len(server.requests), server.charges) == (4, 4)
    assert caught.value.may_have_run
    assert {each.fate for each in caught.value.attempts} == {"server fault"}


@pytest.mark.parametrize(
    "own", [{"detail": "busy"}, {"structured_error": {"errors": ["busy"]}}], ids=str
)
@on_both_loops
async def test_the_service_s_own_503_ran_nothing(own: dict[str, Any]) -> None:
    """In each form that the service writes beside ``error.message``, and nothing is sent again."""
    busy = told(own, "503 Busy", "Retry-After: 86400")
    with RawServer([busy]) as server:
        async with client(server) as fireworks:
            with pytest.raises(CapacityError, match="busy"):
                await fireworks.text_to_image("x")
        assert len(server.requests) == 1


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"deadline": 0.3}, {"timeout": 0.3}])
@on_both_loops
async def test_a_task_that_never_ends(options: dict[str, float]) -> None:
    """The deadline ends it, or else the timeout; the error has the id, and polls grow rarer."""
    with RawServer([SUBMITTED, *[state("Pending")] * 500]) as server:
        async with client(server, **options) as fireworks:
            began = time.monotonic()
            with pytest.raises(DeadlineExceededError, match="kontext_result") as caught:
                await fireworks.kontext("x", poll=0.02)
            assert time.monotonic() - began < 1
            assert fireworks.statistics().failed == 1
        assert 3 <= len(server.requests) <= 10
    assert (caught.value.job_id, caught.value.may_have_run) == ("task-1", True)
    assert len(caught.value.attempts) == 1


@on_both_loops
async def test_an_input_picture_from_disk_or_elsewhere(tmp_path: Path) -> None:
    """A path is read and sent as a data URI; a URL goes as it is."""
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG_BYTES)
    url = "https://example.com/a.png"
    with RawServer() as server:
        async with client(server) as fireworks:
            for given in (path, str(path), url, PREFIXED):
                server.replies += [SUBMITTED, state("Ready", B64)]
                await fireworks.kontext("x", input_image=given, poll=POLL)
        sent = [body_of(server, index)["input_image"] for index in (0, 2, 4, 6)]
    uri = f"data:image/jpeg;base64,{base64.b64encode(JPEG_BYTES).decode()}"
    assert sent == [uri, uri, url, PREFIXED]
