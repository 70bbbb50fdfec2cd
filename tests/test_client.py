"""The client: what it takes, what it refuses, and what it never shows."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import pickle
import sys
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
import respx
from conftest import on_both_loops
from raw_server import JOB_JSON, OUTPUT_PART, PICTURE, RawServer, http, multipart, part, say

from prodia_async import (
    PNG,
    AsyncProdia,
    AttemptDetails,
    AuthenticationError,
    DeadlineExceededError,
    Input,
    InvalidRequestError,
    Job,
    JobDetails,
    JobRequest,
    ResponseError,
    RetryPolicy,
    WebP,
)
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

    from prodia_async._progress import MapProgress

PING = {"type": "inference.ping.v1"}
TOKEN = "eyJhbGciOiJkaXIi..secret-of-many-letters.x.y"


# ------------------------------------------------------------------ building one


class Hostile:
    """Anything of a caller's that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "option", sorted(set(inspect.signature(AsyncProdia).parameters) - {"validate", "hook"})
)
def test_whatever_is_given_is_refused_in_our_words(option: str) -> None:
    """Also what has no repr that works: the error names it by its type, and is ours."""
    options: dict[str, Any] = {"token": TOKEN, option: Hostile()}
    with pytest.raises(InvalidRequestError, match=r"Hostile|must be"):
        AsyncProdia(**options)


def test_a_missing_token_names_the_variable() -> None:
    """Without a token the error says where one is looked for."""
    with pytest.raises(InvalidRequestError, match="PRODIA_TOKEN"):
        AsyncProdia()


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Token and base URL come from the environment when they are not given."""
    monkeypatch.setenv("PRODIA_TOKEN", TOKEN)
    monkeypatch.setenv("PRODIA_BASE_URL", "https://api.example.com/prodia/v2/")
    assert "https://api.example.com/prodia:" in repr(AsyncProdia())


@pytest.mark.parametrize("token", ["", "a\nb", "a b", "tökén", "a\x00", 7, b"abc"])
def test_a_token_that_is_none(token: Any) -> None:
    """An empty token, one with a newline and the like are refused, and not shown."""
    with pytest.raises(InvalidRequestError, match="token") as caught:
        AsyncProdia(token)
    if isinstance(token, str) and len(token) > 2:
        assert token not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["http://api.example.com", "http://10.0.0.1", "ftp://x.example", "api.example.com", "https://",
     "https://user:pass@x.example", "https://x.example?a=b", "https://x.example#f", "http://[",
     7],
)  # fmt: skip
def test_a_base_url_that_is_none(url: Any) -> None:
    """Plain http to another machine, credentials, a query and the like are refused."""
    with pytest.raises(InvalidRequestError) as caught:
        AsyncProdia(TOKEN, base_url=url)
    assert "pass" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1", "http://localhost", "http://[::1]:8", "http://a.localhost",
     "https://x.example/deep/path"],
)  # fmt: skip
def test_a_base_url_that_is_one(url: str) -> None:
    """This machine may be spoken to in plain http, others by https."""
    assert url in repr(AsyncProdia(TOKEN, base_url=url))


def test_plain_http_can_be_allowed() -> None:
    """allow_http is the explicit choice to let the token travel in clear."""
    assert "http://10.0.0.1" in repr(
        AsyncProdia(TOKEN, base_url="http://10.0.0.1", allow_http=True)
    )


@pytest.mark.parametrize(
    "options",
    [
        {"max_concurrency": 0},
        {"max_concurrency": 1.5},
        {"max_concurrency": True},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"connect_timeout": -1},
        {"deadline": 0},
        {"deadline": "1"},
        {"retry": 3},
        {"validate": "all"},
        {"hook": 7},
        {"transport": httpx.AsyncHTTPTransport(), "http_client": httpx.AsyncClient()},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    """Each option says what is allowed, when the client is built."""
    with pytest.raises(InvalidRequestError):
        AsyncProdia(TOKEN, **options)


def test_building_needs_no_loop_and_pickling_is_refused() -> None:
    """A client can be made anywhere, and says what to ship instead of itself."""
    client = AsyncProdia(TOKEN)
    with pytest.raises(TypeError, match="send the jobs"):
        pickle.dumps(client)
    with pytest.raises(TypeError, match="send the jobs"):
        copy.deepcopy(client)


# ------------------------------------------------------------------ before anything is sent

BAD_JOBS: list[tuple[dict[str, Any], str]] = [
    ({"job": {}}, "type"),
    ({"job": {"config": {}}}, "type"),
    ({"job": {"type": ""}}, "type"),
    ({"job": "inference.ping.v1"}, "mapping"),
    ({"job": {**PING, "config": {"x": float("nan")}}}, r"job\.config\.x = nan"),
    ({"job": {**PING, "config": {"x": [b"bytes"]}}}, r"job\.config\.x\[0\] = <5 bytes>"),
    ({"job": {**PING, "config": {"x": "\ud800"}}}, r"job\.config\.x"),
    ({"job": {**PING, "config": {"images": ["a.png"]}}}, "config.images names 'a.png'"),
    ({"job": PING, "inputs": [Input(b"1", "a"), Input(b"2", "a")]}, "two inputs are named 'a'"),
    ({"job": PING, "inputs": [Input(b"1", 'a"b')]}, "filename"),
    ({"job": PING, "inputs": [Input(b"1", "a\r\nb")]}, "filename"),
    ({"job": PING, "inputs": [Input(b"1", "a\x00b")]}, "filename"),
    ({"job": PING, "inputs": [Input(b"1", "a/b")]}, "filename"),
    ({"job": PING, "inputs": ["no/such/file.png"]}, "cannot read the input 'no/such/file.png'"),
    ({"job": PING, "inputs": ["."]}, "cannot read the input"),
    ({"job": PING, "inputs": b"picture"}, "list of inputs"),
    ({"job": PING, "inputs": "picture.png"}, "list of inputs"),
    ({"job": PING, "inputs": [7]}, "not int"),
    ({"job": PING, "accept": "image/jpeg;quality=96"}, "JPEG quality must be .* 0 to 95"),
    ({"job": PING, "accept": "image/webp;quality=101"}, "0 to 100"),
    ({"job": PING, "accept": "image/png;compress-level=10"}, "0 to 9"),
    ({"job": PING, "accept": "image/jpeg;subsampling=411"}, "'444', '422', '420'"),
    ({"job": PING, "accept": "image/png\r\nx: y"}, "media type"),
    ({"job": PING, "accept": 7}, "media type"),
    ({"job": PING, "deadline": 0}, "deadline"),
    ({"job": PING, "deadline": -1}, "deadline"),
    ({"job": PING, "extra_headers": {"Authorization": "x"}}, "Authorization"),
    ({"job": PING, "extra_headers": {"x-a": "b\r\nc: d"}}, "x-a"),
    ({"job": PING, "extra_query": {"a": 1}}, "extra_query"),
    (
        {
            "job": {"type": "inference.nano-banana.img2img.v2", "config": {"prompt": "x"}},
            "inputs": [b"1", b"2", b"3", b"4"],
        },
        "at most 3 inputs, not 4",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD_JOBS)
async def test_bad_input_is_found_before_anything_is_sent(
    call: dict[str, Any], message: str
) -> None:
    """Each mistake is named with what is allowed, and no connection is made."""
    with RawServer() as server:
        async with AsyncProdia(TOKEN, base_url=server.url) as client:
            with pytest.raises(InvalidRequestError, match=message) as caught:
                await client.job(**call)
        assert server.connections == 0
    assert caught.value.attempts == ()
    assert not caught.value.may_have_run


# ------------------------------------------------------------------ what is sent


@on_both_loops
async def test_a_job_without_inputs_is_json() -> None:
    """The job itself is the body; the token, the format and an honest name are in the headers."""
    with RawServer() as server:
        async with AsyncProdia(TOKEN, base_url=server.url + "/v2", price=True) as client:
            response = await client.job(
                Job("inference.ping.v1", {"prompt": "é"}),
                accept=WebP(lossless=True),
                extra_headers={"X-Team": "blue"},
                extra_query={"a": "b c"},
            )
    request = server.requests[0]
    assert request.head.startswith("POST /v2/job?price=true&a=b+c HTTP/1.1\r\n")
    assert json.loads(request.body) == {"type": "inference.ping.v1", "config": {"prompt": "é"}}
    assert request.header("authorization") == f"Bearer {TOKEN}"
    assert request.header("accept") == "multipart/form-data; image/webp;lossless=1"
    assert request.header("content-type") == "application/json"
    assert request.header("x-team") == "blue"
    assert (request.header("user-agent") or "").startswith("prodia-async/")
    assert response.job is not None
    assert response.job.config == {"seed": 42}
    assert response.output.content == PICTURE
    assert response.request_id == "11111111-2222-4333-8444-555555555555"


@on_both_loops
async def test_a_direct_answer_has_no_job_result() -> None:
    """With multipart=False the answer is the picture alone."""
    picture = PICTURE + b"IEND\xaeB`\x82"
    with RawServer([say(http(body=picture, content_type="image/png"))]) as server:
        async with AsyncProdia(TOKEN, base_url=server.url) as client:
            response = await client.job(PING, accept=PNG(), multipart=False)
    assert server.requests[0].header("accept") == "image/png"
    assert response.job is None
    assert response.output.content == picture
    assert response.output.content_type == "image/png"


@on_both_loops
async def test_a_token_function_is_asked_for_each_attempt() -> None:
    """A token that is renewed is used at once, also by a retry."""
    tokens = iter(["first-token", "second-token"])

    async def fresh() -> str:
        await anyio.lowlevel.checkpoint()
        return next(tokens)

    busy = say(http("503 Busy", b"", content_type=None))
    with RawServer([busy]) as server:
        retry = RetryPolicy(backoff_initial=0.01)
        async with AsyncProdia(fresh, base_url=server.url, retry=retry) as client:
            await client.job(PING)
    sent = [request.header("authorization") for request in server.requests]
    assert sent == ["Bearer first-token", "Bearer second-token"]


def test_a_missing_token_leads_to_one_that_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tries the package without an account is told of the emulator, with the variable."""
    monkeypatch.delenv("PRODIA_TOKEN", raising=False)
    with pytest.raises(InvalidRequestError, match=r"PRODIA_TOKEN.*`prodia-async emulator`"):
        AsyncProdia()


@on_both_loops
async def test_a_bad_token_function_is_told() -> None:
    """A function that returns no token fails the job before anything is sent."""

    async def empty() -> str:
        return ""

    with RawServer() as server:
        async with AsyncProdia(empty, base_url=server.url) as client:
            with pytest.raises(InvalidRequestError, match="token"):
                await client.job(PING)
            assert client.statistics().in_flight == 0
        assert server.requests == []


@on_both_loops
async def test_a_token_function_that_is_not_awaited_is_told() -> None:
    """It may have blocked the loop, and what it returned is not shown."""
    with RawServer() as server:
        async with AsyncProdia(lambda: TOKEN, base_url=server.url) as client:  # type: ignore[arg-type]
            with pytest.raises(InvalidRequestError, match="must be async") as caught:
                await client.job(PING)
            assert TOKEN not in str(caught.value)
            assert not caught.value.may_have_run
        assert server.requests == []


@pytest.mark.parametrize("wrong", ["known ", [], {}, True])
def test_another_word_for_validate(wrong: Any) -> None:
    """Whatever it is, hashable or not."""
    with pytest.raises(InvalidRequestError, match="validate must be"):
        AsyncProdia(TOKEN, validate=wrong)


@on_both_loops
async def test_a_map_that_begins_while_its_client_drains() -> None:
    """In a loop that has had none yet, say: its rows are not used up by errors."""
    pulled = iter([PING] * 9)
    with RawServer() as server:
        async with AsyncProdia(TOKEN, base_url=server.url) as client:
            client._engine.is_draining = True
            async with client.map(pulled) as outcomes:
                assert [each async for each in outcomes] == []
    assert len(list(pulled)) == 9


@on_both_loops
async def test_a_user_s_own_client_is_used_and_not_closed() -> None:
    """`http_client` sends, follows nothing, and stays open."""
    async with httpx.AsyncClient(follow_redirects=True, auth=("user", "pass")) as own:
        with RawServer() as server:
            async with AsyncProdia(TOKEN, base_url=server.url, http_client=own) as client:
                response = await client.job(PING)
        assert response.outputs
        assert not own.is_closed
        assert server.requests[0].header("authorization") == f"Bearer {TOKEN}"


async def test_respx_intercepts_the_default_transport() -> None:
    """A user's own tests can use respx as with any httpx client."""
    with respx.mock:
        route = respx.post("https://inference.prodia.com/v2/job").mock(
            side_effect=[
                httpx.Response(503),
                httpx.Response(200, json={"id": "1", "state": {"current": "completed"}}),
            ]
        )
        async with AsyncProdia(TOKEN, retry=RetryPolicy(backoff_initial=0.01)) as client:
            response = await client.job(PING)
    assert route.call_count == 2
    assert response.job is not None
    assert response.job.succeeded
    with pytest.raises(ResponseError, match="without an output"):
        _ = response.output


# ------------------------------------------------------------------ defaults


@on_both_loops
async def test_defaults_of_the_client() -> None:
    """Format and headers hold where a job says nothing; what it says wins."""
    with RawServer() as server:
        async with AsyncProdia(
            TOKEN, base_url=server.url, accept=PNG(), extra_headers={"X-Team": "blue", "X-B": "1"}
        ) as client:
            await client.job(PING)
            await client.job(PING, accept="image/webp", extra_headers={"x-team": "red"})
            view = client.with_options(accept=None, extra_headers={"X-C": "2"})
            async with view.stream(PING) as stream:
                async for _ in stream:
                    pass
    first, second, third = server.requests
    assert first.header("accept") == "multipart/form-data; image/png"
    assert (first.header("x-team"), first.header("x-b")) == ("blue", "1")
    assert second.header("accept") == "multipart/form-data; image/webp"
    assert (second.header("x-team"), second.header("x-b")) == ("red", "1")
    assert third.header("accept") == "multipart/form-data"
    assert (third.header("x-team"), third.header("x-c")) == (None, "2")


@on_both_loops
async def test_defaults_of_a_map() -> None:
    """They fill in what an item does not say; a tag comes back with its outcome."""
    with RawServer() as server:
        async with AsyncProdia(TOKEN, base_url=server.url, max_concurrency=1) as client:
            jobs: list[Any] = [
                PING,
                JobRequest(PING, accept="image/webp", price=False, tag={"row": 2}),
            ]
            async with client.map(jobs, accept=PNG(), price=True, ordered=True) as outcomes:
                tags = [outcome.tag async for outcome in outcomes]
    assert tags == [None, {"row": 2}]
    assert [each.header("accept") for each in server.requests] == [
        "multipart/form-data; image/png", "multipart/form-data; image/webp",
    ]  # fmt: skip
    assert ["price=true" in each.head for each in server.requests] == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["map", "item"])
@on_both_loops
async def test_async_jobs_in_bulk(how: str) -> None:
    """Each is submitted, waited for and collected; hooks and totals see one job each."""
    events: list[AttemptDetails] = []
    async with Emulator(latency=0.05) as emulator:
        video = Job("inference.wan2-2.lightning.txt2vid.v0", {"prompt": "a wave"})
        async with AsyncProdia(
            TOKEN, base_url=emulator.base_url, hook=events.append, price=True
        ) as client:
            jobs: list[Any] = [video] * 2
            if how == "item":
                jobs = [JobRequest(video, via="async", tag=number) for number in range(2)]
            async with client.map(jobs, via="async" if how == "map" else "sync") as outcomes:
                found = [outcome.unwrap() async for outcome in outcomes]
            counts = client.statistics()
    assert all(each.outputs for each in found)
    assert (counts.completed, counts.failed, counts.cancelled) == (2, 0, 0)
    of_jobs = [each for each in events if isinstance(each, JobDetails)]
    assert sorted((each.event, each.index) for each in of_jobs) == [
        ("finished", 0), ("finished", 1), ("queued", 0), ("queued", 1),
    ]  # fmt: skip
    paid = [each.dollars for each in of_jobs if each.event == "finished"]
    assert sum(paid) == pytest.approx(counts.dollars)
    assert all(paid)


@pytest.mark.slow
@on_both_loops
async def test_an_async_job_that_is_given_up() -> None:
    """It is counted as cancelled, and the hook is told."""
    events: list[AttemptDetails] = []
    async with Emulator(latency=5.0) as emulator:
        video = Job("inference.wan2-2.lightning.txt2vid.v0", {"prompt": "a wave"})
        async with AsyncProdia(TOKEN, base_url=emulator.base_url, hook=events.append) as client:
            with anyio.move_on_after(0.5):
                await client.job(video, via="async")
            counts = client.statistics()
    assert (counts.completed, counts.failed, counts.cancelled) == (0, 0, 1)
    last = events[-1]
    assert isinstance(last, JobDetails)
    assert last.event == "finished"
    assert last.error is not None
    assert not isinstance(last.error, Exception)


@on_both_loops
async def test_progress_of_many() -> None:
    """A function is told of each as it ends; a bar needs an extra."""
    told: list[tuple[int | None, int, int]] = []
    bad = say(http("400 Bad", b"no", content_type="text/plain"))
    with RawServer([bad]) as server:
        async with AsyncProdia(TOKEN, base_url=server.url, max_concurrency=1) as client:

            def progress(now: MapProgress) -> None:
                told.append((now.total, now.done, now.failed))

            async with client.map([PING] * 3, progress=progress) as outcomes:
                async for _ in outcomes:
                    pass
            async with client.map((PING for _ in range(1)), progress=progress) as outcomes:
                async for _ in outcomes:
                    pass
    assert told == [(3, 1, 1), (3, 2, 1), (3, 3, 1), (None, 1, 0)]


@on_both_loops
async def test_a_bar_of_many(capsys: pytest.CaptureFixture[str]) -> None:
    """What failed and what it cost stand beside it; it is left as it is in the end."""
    priced = JOB_JSON.replace(b'"config"', b'"price":{"product":"p","dollars":0.25},"config"')
    body = multipart(part("job", "job.json", "application/json", priced), OUTPUT_PART)
    bad = say(http("400 Bad", b"no", content_type="text/plain"))
    with RawServer([say(http(body=body)), bad]) as server:
        async with AsyncProdia(TOKEN, base_url=server.url, max_concurrency=1) as client:
            async with client.map([PING] * 3, progress=True) as outcomes:
                async for _ in outcomes:
                    pass
    shown = capsys.readouterr().err
    assert "3/3, 1 failed, $0.25 [" in shown


def test_a_bar_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named, before anything is pulled."""
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(InvalidRequestError, match=r"prodia-async\[notebook\]"):
        AsyncProdia(TOKEN).map([PING], progress=True)


@on_both_loops
async def test_a_broken_progress_function_costs_nothing() -> None:
    """It is logged, and the outcomes come."""

    def broken(_: MapProgress) -> None:
        raise LookupError

    with RawServer() as server:
        async with AsyncProdia(TOKEN, base_url=server.url) as client:
            async with client.map([PING] * 3, progress=broken) as outcomes:
                assert [each.error async for each in outcomes] == [None] * 3


@on_both_loops
async def test_a_submission_without_an_id() -> None:
    """It may have been paid for, and cannot be asked for."""
    odd = say(http("201 Created", b'{"state":{"current":"processing"}}',
                   content_type="application/json"))  # fmt: skip
    with RawServer([odd]) as server:
        async with AsyncProdia(TOKEN, base_url=server.url) as client:
            with pytest.raises(ResponseError, match="job's id") as caught:
                await client.submit(PING)
    assert caught.value.may_have_run


@on_both_loops
async def test_a_deadline_that_passes_over_the_inputs() -> None:
    """Looking at them is part of it; nothing was sent."""

    class Slow:
        async def seek(self, *_: int) -> int:
            await anyio.sleep(1)
            return 0

        async def read(self, *_: int) -> bytes:
            return b""

    with RawServer() as server:
        async with AsyncProdia(TOKEN, base_url=server.url) as client:
            with pytest.raises(DeadlineExceededError, match="inputs") as caught:
                await client.job(PING, inputs=[Slow()], deadline=0.1)
    assert not caught.value.may_have_run
    assert server.requests == []


@pytest.mark.parametrize("path", ["", "/", "/v2", "/v2/", "/v2/job", "/v2/job/", "/v2/job/async"])
@on_both_loops
async def test_the_address_of_every_sample(path: str) -> None:
    """A base URL that is the jobs' own is read as what was meant."""
    with RawServer() as server:
        async with AsyncProdia(TOKEN, base_url=server.url + path) as client:
            await client.job(PING)
    assert server.requests[0].head.startswith("POST /v2/job HTTP/1.1")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"accept": 7}, "media type"),
        ({"accept": "image/jpeg;quality=96"}, "0 to 95"),
        ({"extra_headers": {"Authorization": "x"}}, "Authorization"),
        ({"extra_headers": 7}, "mapping"),
        ({"max_queued": -1}, "max_queued"),
        ({"max_queued": 1.5}, "max_queued"),
        ({"price": "yes"}, "price must be True or False"),
        ({"adaptive": "x"}, "adaptive"),
        ({"allow_http": 1}, "allow_http"),
        ({"max_response_bytes": -1}, "max_response_bytes"),
        ({"base_url": "http://127.0.0.1:65536"}, "port"),
        ({"base_url": "http://127.0.0.1:0"}, "port"),
        ({"base_url": "https://xn--.example"}, "base URL"),
    ],
)
def test_options_that_are_none(call: dict[str, Any], message: str) -> None:
    """Each is named when the client is built, or the view of it."""
    with pytest.raises(InvalidRequestError, match=message):
        AsyncProdia(TOKEN, **call)


@pytest.mark.parametrize(
    ("call", "message"),
    [({"via": "fast"}, "via"), ({"accept": 7}, "media type"), ({"price": 1}, "price"),
     ({"progress": 1}, "progress"), ({"buffer": -1}, "buffer")],
)  # fmt: skip
def test_what_a_map_refuses(call: dict[str, Any], message: str) -> None:
    """Before anything is pulled."""
    with pytest.raises(InvalidRequestError, match=message):
        AsyncProdia(TOKEN).map([PING], **call)


def test_the_options_of_a_job_show() -> None:
    """`help` has each of them, and a slip is told at once."""
    parameters = inspect.signature(AsyncProdia.stream).parameters
    assert list(parameters)[:4] == ["self", "job", "inputs", "accept"]
    for method in (AsyncProdia.job, AsyncProdia.submit, AsyncProdia.stream):
        documented = inspect.getdoc(method) or ""
        assert "as `job` takes them" not in documented
        for name in list(inspect.signature(method).parameters)[1:]:
            assert f"{name}: " in documented, name
    with pytest.raises(TypeError, match="imputs"):
        AsyncProdia(TOKEN).stream(PING, imputs=[])  # type: ignore[call-arg]


@on_both_loops
async def test_checks_can_be_switched_off_or_be_told() -> None:
    """By default a name that no input bears is refused; "off" and "warn" send the job."""
    job = {"type": "inference.brand-new.v9", "config": {"mask": "auto"}}
    slip = {"type": "inference.flux-fast.schnell.txt2img.v3x", "config": {"promt": "a cat"}}
    records: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    handler = Listener()
    logging.getLogger("prodia_async").addHandler(handler)
    try:
        with RawServer() as server:
            async with AsyncProdia(TOKEN, base_url=server.url) as client:
                with pytest.raises(InvalidRequestError, match="mask"):
                    await client.job(job)
                await client.with_options(validate="off").job(job)
                assert not [each for each in records if "mask" in each]
                await client.with_options(validate="warn").job(job)
                assert any("config.mask names 'auto'" in each for each in records)
                await client.with_options(validate="warn").job(slip)
                assert any("did you mean" in each for each in records)
            assert len(server.requests) == 3
    finally:
        logging.getLogger("prodia_async").removeHandler(handler)


# ------------------------------------------------------------------ views, totals, secrets


@on_both_loops
async def test_known_types_can_be_checked_before_sending() -> None:
    """With validate="known" everything that is wrong is told at once, and nothing is sent."""
    job = Job(
        "inference.flux-2.pro.img2img.v1", {"prompt": "x", "width": 100, "safety_tolerance": 9}
    )
    with RawServer() as server:
        async with AsyncProdia(TOKEN, base_url=server.url, validate="known") as client:
            with pytest.raises(InvalidRequestError, match="safety_tolerance") as caught:
                await client.job(job)
            assert "config.width" in str(caught.value)
            await client.with_options(validate=None).job(job)
            await client.job({"type": "inference.unknown.v1", "config": {"anything": 1}})
        assert len(server.requests) == 2


@on_both_loops
async def test_a_view_shares_all_but_its_options() -> None:
    """with_options gives other defaults over the same connections and totals."""
    with RawServer() as server:
        async with AsyncProdia(TOKEN, base_url=server.url) as client:
            view = client.with_options(token="another-token", price=True, deadline=5.0)
            await client.job(PING)
            await view.job(PING)
            assert client.statistics() == view.statistics()
            assert client.statistics().completed == 2
            with pytest.raises(InvalidRequestError, match="max_concurrency"):
                client.with_options(max_concurrency=3)  # type: ignore[call-arg]
            with pytest.raises(InvalidRequestError, match="timeout"):
                client.with_options(timeout=-1)
        assert server.connections == 1
        assert "price=true" in server.requests[1].head
        assert server.requests[1].header("authorization") == "Bearer another-token"


@on_both_loops
async def test_the_token_is_nowhere(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """No repr, error, log or pickle holds the token, even when the server sends it back."""
    echo = http("401 Unauthorized", f"bad: Bearer {TOKEN}".encode(), f"X-Echo: {TOKEN}",
                content_type="text/plain")  # fmt: skip
    caplog.set_level(logging.DEBUG, logger="prodia_async")
    with RawServer([say(http("503 Busy", TOKEN.encode())), say(echo)]) as server:
        retry = RetryPolicy(backoff_initial=0.01)
        async with AsyncProdia(TOKEN, base_url=server.url, retry=retry) as client:
            with pytest.raises(AuthenticationError, match=r"bad: Bearer \[token\]") as caught:
                await client.job(PING)
            shown = [repr(client), repr(client.with_options(price=True)), repr(client.statistics())]
    error = caught.value
    shown += [repr(error), str(error), repr(vars(error)), repr(pickle.dumps(error))]
    assert len(caplog.records) >= 2
    assert not any(TOKEN in text for text in [*shown, *caplog.messages])


def test_logging_is_left_to_the_user() -> None:
    """The package's logger has a handler that does nothing, and no level of its own."""
    logger = logging.getLogger("prodia_async")
    assert logger.level == logging.NOTSET
    assert [type(each) for each in logger.handlers] == [logging.NullHandler]


@on_both_loops
async def test_a_closed_client_says_so() -> None:
    """A client cannot be used after it was closed, and closing twice is fine."""
    client = AsyncProdia(TOKEN)
    await client.aclose()
    await client.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await client.job(PING)
