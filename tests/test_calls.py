"""
What a client hands on: to the engine, to what reads answers, to what counts, to a hook.

What crosses a socket is in test_client.py. Here answers come out of a list, within the process,
and time stands still unless a test moves it.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from conftest import on_both_loops
from raw_server import GOOD_BODY, JOB_JSON, MULTIPART_TYPE, OUTPUT_PART, PICTURE, multipart, part

from prodia_async import (
    PNG,
    AsyncProdia,
    AttemptDetails,
    BadRequestError,
    ConnectError,
    DeadlineExceededError,
    InvalidRequestError,
    Job,
    JobDetails,
    JobFailedError,
    JobRequest,
    JobResponse,
    MalformedResponseError,
    RetryPolicy,
    Timing,
    _waiting,
)
from prodia_async import _client as client_module
from prodia_async._attempts import Attempt
from prodia_async._base import BaseClient
from prodia_async._cache import AnswerCache
from prodia_async._client import _job_type_of, _response, _with_defaults
from prodia_async._reading import AnswerFeed, CollectedAnswer
from prodia_async._requests import encode_job
from prodia_async._sessions import Unfinished
from prodia_async._stream import JobStream
from prodia_async._vocabulary import Finished
from prodia_async._wire import MAX_RESPONSE_BYTES, Headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from prodia_async._progress import MapProgress

PING = {"type": "inference.ping.v1"}
TOKEN = "secret-token-of-many-letters"
ID = "6b0e8cc2-6f5e-4f0b-9f3e-0c7c5d3e2a11"
REQUEST_ID = "11111111-2222-4333-8444-555555555555"
JSON = "application/json"
PROCESSING = JOB_JSON.replace(b"completed", b"processing")


class Played(httpx.AsyncBaseTransport):
    """Answers out of a list: a status, a body, its type; a function to be awaited; then well."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else (200, GOOD_BODY, MULTIPART_TYPE)
        if not isinstance(answer, tuple):
            answer = await answer()
        status, body, kind = answer
        headers = {"content-type": kind, "x-request-id": REQUEST_ID}
        return httpx.Response(status, headers=headers, content=body)


def client(*answers: Any, **options: Any) -> AsyncProdia:
    return AsyncProdia(
        TOKEN,
        base_url="http://localhost",
        retry=RetryPolicy(max_attempts=1),
        transport=Played(*answers),
        **options,
    )


def heard(prodia: AsyncProdia, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Note what the client has its engine run, and on which terms."""
    noted: list[tuple[Any, Any]] = []
    run = prodia._engine.run

    async def note(wire: Any, answer: Any, terms: Any) -> Any:
        noted.append((wire, terms))
        return await run(wire, answer, terms)

    monkeypatch.setattr(prodia._engine, "run", note)
    return noted


def counts(prodia: AsyncProdia) -> tuple[int, int, int, float]:
    found = prodia.statistics()
    return found.completed, found.failed, found.cancelled, found.dollars


REFUSED = (400, b"no such thing", "text/plain")
SUBMITTED = (201, PROCESSING, JSON)


def test_what_a_client_is_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it hands on where nothing is said; and the folder of answers knows the server."""
    given: list[dict[str, Any]] = []
    make = BaseClient.__init__

    def note(self: BaseClient, **options: Any) -> None:
        given.append(options)
        make(self, **options)

    monkeypatch.setattr(BaseClient, "__init__", note)
    prodia = AsyncProdia(TOKEN)
    assert given == [
        {
            "base_url": None, "max_concurrency": 64, "adaptive": True, "connect_timeout": 10.0,
            "transport": None, "http_client": None, "allow_http": False,
            "max_response_bytes": MAX_RESPONSE_BYTES,
        }
    ]  # fmt: skip
    options = prodia._options
    assert (options.timeout, options.deadline, options.price) == (600.0, None, False)
    assert prodia._cache is None
    kept: list[Any] = []
    monkeypatch.setattr(
        "prodia_async._base.AnswerCache",
        lambda folder, *, base_url: kept.append((folder, base_url)),
    )
    client(cache=tmp_path)
    assert kept == [(tmp_path, "http://localhost")]


# ------------------------------------------------------------------ one job


@pytest.mark.parametrize(
    ("item", "job_type"),
    [
        (Job("a.type"), "a.type"),
        ({"type": "a.type"}, "a.type"),
        (JobRequest(Job("a.type")), "a.type"),
        (JobRequest({"type": "a.type"}), "a.type"),
        ({"type": 7}, None),
        ({"kind": "a.type"}, None),
        (None, None),
        ("a.type", None),
    ],
)
def test_which_type_a_job_is_of(item: Any, job_type: str | None) -> None:
    """What is no job has none, and is told so when its turn comes."""
    assert _job_type_of(item) == job_type


def test_what_a_request_does_not_say() -> None:
    """Is filled in; what it says stays; and one that says all is handed on as it is."""
    bare = JobRequest(PING)
    assert _with_defaults(bare) is bare
    assert _with_defaults(bare, accept=PNG(), price=False, via="async") == JobRequest(
        PING, accept=PNG(), price=False, via="async"
    )
    full = JobRequest(PING, accept="image/webp", price=True, via="async")
    assert _with_defaults(full, accept=PNG(), price=False, via="async") is full
    assert _with_defaults(full, extra_headers={}) is full
    theirs = {"X-Team": "blue", "X-B": "1"}
    assert _with_defaults(bare, extra_headers=theirs).extra_headers == {
        "x-team": "blue",
        "x-b": "1",
    }
    own = JobRequest(PING, extra_headers={"x-TEAM": "red"})
    assert _with_defaults(own, extra_headers=theirs).extra_headers == {"x-team": "red", "x-b": "1"}
    wrong = JobRequest(PING, extra_headers=7)  # type: ignore[arg-type]  # told where it is encoded
    assert _with_defaults(wrong, extra_headers=theirs) is wrong


def test_what_a_response_is_made_of() -> None:
    """Of what was collected, and of what it took."""
    attempt = Attempt(1, "succeeded", 200, "r", 3.0)
    headers = Headers([("a", "b")])
    collected: Any = SimpleNamespace(job=object(), outputs=[object()])
    timing = Timing(1.0, 2.0, 3.0, 6.0)
    finished = Finished("r", headers, (attempt,), timing)
    response = _response(collected, finished)
    assert response == JobResponse(
        collected.job, tuple(collected.outputs), "r", (attempt,), timing, headers
    )
    assert response.headers is headers


@on_both_loops
async def test_how_a_job_is_encoded_and_read() -> None:
    """With the client's own where it says nothing; checks, prices and sizes are the client's."""
    encoded: list[Any] = []
    read: list[Any] = []

    async def note(request: JobRequest, **given: Any) -> Any:
        encoded.append((request, given))
        return await encode_job(request, **given)

    def make(**given: Any) -> Any:
        read.append(given)
        return CollectedAnswer(**given)

    own = {"price": True, "validate": "off", "max_response_bytes": 10**6}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_module, "encode_job", note)
        patch.setattr(client_module, "CollectedAnswer", make)
        async with client((200, GOOD_BODY, MULTIPART_TYPE), SUBMITTED, **own) as prodia:
            view = prodia.with_options(accept=PNG(), extra_headers={"x-a": "1"}, validate="warn")
            await view.job(PING)
            await prodia.submit(PING, accept="video/mp4")
            await prodia.job(PING, multipart=True, accept="image/png")
            await prodia.job(PING)
    assert encoded == [
        (
            JobRequest(PING, accept=PNG(), extra_headers={"x-a": "1"}),
            {"price": True, "submit": False, "validate": "warn"},
        ),
        (
            JobRequest(PING, accept="video/mp4"),
            {"price": True, "submit": True, "validate": "off"},
        ),
        (
            JobRequest(PING, accept="image/png"),
            {"price": True, "submit": False, "validate": "off"},
        ),
        (JobRequest(PING), {"price": True, "submit": False, "validate": "off"}),
    ]
    answer = {"multipart": True, "max_bytes": 10**6, "job_type": "inference.ping.v1"}
    assert read == [
        answer | {"accept": "image/png"},
        {"multipart": False, "max_bytes": 10**6, "final": False},
        answer | {"accept": "image/png"},
        answer | {"accept": ""},
    ]


@on_both_loops
async def test_looking_at_inputs_is_part_of_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it took is gone when the job is sent; and it ends when the deadline passes."""
    clock = SimpleNamespace(now=1000.0)

    async def slow(*args: Any, **given: Any) -> Any:
        clock.now += 3.0
        return await encode_job(*args, **given)

    async def stall(*_: Any, **__: Any) -> Any:
        await anyio.sleep_forever()

    async with client() as prodia:
        noted = heard(prodia, monkeypatch)
        await prodia.job(PING)
        monkeypatch.setattr(client_module, "encode_job", slow)
        with monkeypatch.context() as patch:
            patch.setattr(_waiting, "current_time", lambda: clock.now)
            patch.setattr(_waiting, "until", _Scope)
            await prodia.job(PING, deadline=60.0)
        monkeypatch.setattr(client_module, "encode_job", stall)
        with pytest.raises(DeadlineExceededError) as caught:
            await prodia.job(PING, deadline=0.01)
    assert [(terms.deadline, terms.spent) for _, terms in noted] == [(None, 0.0), (60.0, 3.0)]
    assert _Scope.deadlines == [1060.0]
    assert str(caught.value).startswith(
        "the job was not sent within its deadline of 0.01 s: looking at its inputs took longer"
    )
    assert not caught.value.may_have_run


class _Scope:
    """Remembers until when; cuts nothing off."""

    deadlines: list[float] = []  # noqa: RUF012  (of the one test)

    def __init__(self, deadline: float) -> None:
        _Scope.deadlines[:] = [deadline]

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


# ------------------------------------------------------------------ one that is read as it comes

PRICED = JOB_JSON.replace(b'"config"', b'"price":{"dollars":0.25},"config"')


def answer_of(job: bytes, *parts: bytes, status: int = 200) -> tuple[int, bytes, str]:
    return status, multipart(part("job", "job.json", JSON, job), *parts), MULTIPART_TYPE


@on_both_loops
async def test_a_stream_counts_by_what_came_of_it() -> None:
    """With its price, also where it failed; what the block itself raises says nothing of it."""
    failed = PRICED.replace(b"completed", b"failed")
    good = answer_of(PRICED, OUTPUT_PART)
    answers = [good, answer_of(failed), answer_of(failed), good, (200, b"", "multipart/form-data")]
    async with client(*answers) as prodia:
        async with prodia.stream(PING) as stream:
            assert stream.request_id == REQUEST_ID
            async for _ in stream:
                pass
        assert counts(prodia) == (1, 0, 0, 0.25)
        with pytest.raises(JobFailedError):
            async with prodia.stream(PING) as stream:
                await anext(stream)
        assert counts(prodia) == (1, 1, 0, 0.5)
        async with prodia.stream(PING) as stream:
            with pytest.raises(JobFailedError):
                await anext(stream)
        assert counts(prodia) == (1, 2, 0, 0.75)
        with pytest.raises(LookupError):
            async with prodia.stream(PING) as stream:
                await anext(stream)
                raise LookupError
        assert counts(prodia) == (2, 2, 0, 1.0)
        with pytest.raises(MalformedResponseError):
            async with prodia.stream(PING) as stream:
                raise AssertionError("it has no beginning")
        assert counts(prodia) == (2, 3, 0, 1.0)
        assert prodia.statistics().in_flight == 0


@on_both_loops
async def test_a_stream_that_is_given_up() -> None:
    """By a cancellation inside the block: that is what it counts as."""
    async with client() as prodia:
        with anyio.CancelScope() as scope:
            async with prodia.stream(PING):
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        assert counts(prodia) == (0, 0, 1, 0.0)


async def test_what_a_stream_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was asked for, whatever that was."""
    made: list[tuple[str, dict[str, Any]]] = []

    def noting(kind: Any) -> Any:
        def make(*args: Any, **given: Any) -> Any:
            made.append((kind.__name__, given))
            return kind(*args, **given)

        return make

    for kind in (CollectedAnswer, AnswerFeed, JobStream):
        monkeypatch.setattr(client_module, kind.__name__, noting(kind))
    picture = (200, PICTURE, "image/png")
    async with client((200, GOOD_BODY, MULTIPART_TYPE), picture, max_response_bytes=99) as prodia:
        for whole in (True, False):
            made.clear()
            async with prodia.stream(PING, multipart=whole):
                pass
            asked = {"multipart": whole}
            ((_, stream),) = made[2:]
            assert callable(stream.pop("give_back"))
            assert made == [
                ("CollectedAnswer", asked | {"max_bytes": 99}),
                ("AnswerFeed", asked),
                ("JobStream", asked | {"request_id": REQUEST_ID, "job_type": PING["type"]}),
            ]


# ------------------------------------------------------------------ many


@on_both_loops
async def test_each_job_of_many_is_run_as_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its source, place and tag; and its outcome says which it was, well or not."""
    async with client((200, GOOD_BODY, MULTIPART_TYPE), REFUSED, max_concurrency=1) as prodia:
        noted = heard(prodia, monkeypatch)
        jobs: list[Any] = [JobRequest(PING, tag="a"), JobRequest(PING, tag="b"), PING]
        async with prodia.map(jobs, accept=PNG(), price=False, ordered=True) as outcomes:
            found = [outcome async for outcome in outcomes]
    assert [(each.index, each.tag, each.error is None) for each in found] == [
        (0, "a", True), (1, "b", False), (2, None, True),
    ]  # fmt: skip
    assert [each.request for each in found] == [
        JobRequest(PING, accept=PNG(), price=False, tag=tag) for tag in ("a", "b", None)
    ]
    assert isinstance(found[1].error, BadRequestError)
    assert [(terms.index, terms.tag, terms.counted) for _, terms in noted] == [
        (0, "a", True), (1, "b", True), (2, None, True),
    ]  # fmt: skip
    assert all(terms.source is not None for _, terms in noted)


@on_both_loops
async def test_many_that_are_left_with_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, and each way of saying so counts; a submission counts nothing by itself."""
    listing = (200, b'["a.png"]', JSON)
    ended = [(200, b"processed", "text/plain"), (200, JOB_JSON, JSON), listing,
             (200, b"a picture", "image/jpeg")]  # fmt: skip
    for jobs, via in (
        ([JobRequest(PING, tag="a")], "async"),
        ([JobRequest(PING, via="async", tag="a")], "sync"),
    ):
        async with client(SUBMITTED, *ended) as prodia:
            noted = heard(prodia, monkeypatch)
            async with prodia.map(jobs, via=via) as outcomes:  # type: ignore[arg-type]  # one of two
                (outcome,) = [outcome async for outcome in outcomes]
            assert counts(prodia) == (1, 0, 0, 0.0)
        (wire, terms), *questions = noted
        assert (wire.path, wire.kind) == ("/v2/job/async", "inference.ping.v1")
        assert (terms.index, terms.tag, terms.counted) == (0, "a", False)
        assert terms.source is not None
        assert [terms.source for _, terms in questions] == [None] * 4
        assert outcome.request == JobRequest(PING, via="async", tag="a")
        assert outcome.unwrap().outputs[0].content == b"a picture"


def test_what_a_map_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options, or their defaults."""

    def note(_: AsyncProdia, jobs: Any, run: Any, **given: Any) -> Any:
        assert callable(run)
        return jobs, given

    monkeypatch.setattr(AsyncProdia, "_outcomes", note)
    prodia: Any = client()
    words = {
        "alone": (Job, JobRequest), "many": "jobs", "single": "job(...)",
        "job_type_of": _job_type_of,
    }  # fmt: skip
    jobs = [PING] * 3
    assert prodia.map(jobs) == (
        jobs, {**words, "ordered": False, "buffer": 0, "progress": False},
    )  # fmt: skip
    _, given = prodia.map(jobs, ordered=True, buffer=7, progress=True, accept="multipart/form-data")
    assert given == {**words, "ordered": True, "buffer": 7, "progress": True}


def test_a_bar_is_for_as_many_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows how many, where that is known, and is closed when the block is left."""
    bars: list[Any] = []

    def bar(total: int | None) -> Any:
        bars.append((total, SimpleNamespace(close=object())))
        return bars[-1][1]

    monkeypatch.setattr("prodia_async._progress.bar", bar)
    prodia: Any = client()
    assert prodia.map([PING] * 3)._on_leave is None
    assert bars == []
    outcomes = prodia.map([PING] * 3, progress=True)
    ((total, made),) = bars
    assert total == 3
    assert outcomes._on_leave is made.close
    prodia.map(iter([PING]), progress=True)
    assert bars[-1][0] is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"jobs": "abc"}, r"^map takes an iterable of jobs, not str; for one: job\(\.\.\.\)"),
        ({"jobs": Job("a")}, r"^map takes an iterable of jobs, not Job; for one: job\(\.\.\.\)"),
        ({"jobs": [], "via": "fast"}, r"""^via must be "sync" or "async", not 'fast'"""),
        ({"jobs": [], "price": 1}, r"^price must be True or False, not 1"),
        ({"jobs": [], "progress": 1}, r"^progress must be True or False, not 1"),
    ],
)
def test_what_is_no_map(call: dict[str, Any], message: str) -> None:
    """It says what was wanted, what came, and what to call for a single job."""
    with pytest.raises(InvalidRequestError, match=message):
        client().map(**call)


@on_both_loops
async def test_what_a_progress_is_told() -> None:
    """How each ended, and what it cost where that is known."""
    told: list[tuple[int | None, int, int, float]] = []

    def progress(now: MapProgress) -> None:
        told.append((now.total, now.done, now.failed, now.dollars))

    answers = [(200, PRICED, JSON), REFUSED, (200, JOB_JSON, JSON)]
    async with client(*answers, max_concurrency=1) as prodia:
        jobs = [JobRequest(PING, accept=JSON)] * 3
        async with prodia.map(jobs, progress=progress) as outcomes:
            async for _ in outcomes:
                pass
    assert told == [(3, 1, 0, 0.25), (3, 2, 1, 0.25), (3, 3, 1, 0.25)]


async def test_what_a_grid_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job for each cell, row by row, with the options of all of them."""

    async def fill(*given: Any) -> Any:
        return given

    monkeypatch.setattr(client_module, "fill", fill)
    monkeypatch.setattr(AsyncProdia, "map", lambda _, jobs: jobs)
    prodia: Any = client()
    job = Job("a.type", {"steps": 4})
    grid, jobs = await prodia.grid(job, rows={"prompt": ["x", "y"]}, columns={"seed": [1]})
    assert (grid.rows, grid.columns) == (({"prompt": "x"}, {"prompt": "y"}), ({"seed": 1},))
    assert jobs == [
        JobRequest({"type": "a.type", "config": {"steps": 4, "prompt": prompt, "seed": 1}})
        for prompt in ("x", "y")
    ]
    options: dict[str, Any] = {
        "inputs": [b"1"], "accept": PNG(), "price": True, "deadline": 5.0
    }  # fmt: skip
    _, jobs = await prodia.grid(job, **options)
    assert jobs == [JobRequest({"type": "a.type", "config": {"steps": 4}}, **options)]
    for name in ("rows", "columns"):
        with pytest.raises(InvalidRequestError, match=f"^{name} must be like"):
            await prodia.grid(job, **{name: 7})


class Kept:
    """A cache that says what it is told to, and notes what it is asked."""

    find = AnswerCache.find
    folder = "kept"

    def __init__(self, key: str | None, kept: Any = None) -> None:
        self.of = key
        self.kept = kept
        self.asked: list[Any] = []

    async def key(self, request: JobRequest) -> str | None:
        self.asked.append(request)
        return self.of

    async def get(self, key: str) -> Any:
        self.asked.append(key)
        return self.kept

    async def put(self, key: str, response: Any) -> None:
        self.asked.append((key, response))


@on_both_loops
async def test_an_answer_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not paid again; one that is not is run as it were without, and kept if it has a key."""
    asked = JobRequest(PING, accept=PNG())
    async with client(accept=PNG()) as prodia:
        noted = heard(prodia, monkeypatch)
        for cache, runs in ((Kept(None), 1), (Kept("k"), 2), (Kept("k", "the answer"), 2)):
            monkeypatch.setattr(prodia, "_cache", cache)
            async with prodia.map([PING]) as outcomes:
                (outcome,) = [outcome async for outcome in outcomes]
            response: Any = outcome.unwrap()
            assert len(noted) == runs
            if cache.of is None:
                assert cache.asked == [asked]
            elif cache.kept is None:
                assert cache.asked == [asked, "k", ("k", response)]
            else:
                assert (cache.asked, response) == ([asked, "k"], "the answer")
    assert [(terms.index, terms.source is None) for _, terms in noted] == [(0, False)] * 2


# ------------------------------------------------------------------ left with the server


@on_both_loops
async def test_a_submission_counts_when_it_fails() -> None:
    """As failed, or as given up; one that was taken counts when its job has ended."""

    async def stall() -> Any:
        await anyio.sleep_forever()

    async with client(SUBMITTED, REFUSED, stall) as prodia:
        job = await prodia.submit(PING)
        assert (job.id, job.job is not None, len(job.attempts)) == (ID, True, 1)
        assert counts(prodia) == (0, 0, 0, 0.0)
        with pytest.raises(BadRequestError):
            await prodia.submit(PING)
        assert counts(prodia) == (0, 1, 0, 0.0)
        with anyio.move_on_after(0.05):
            await prodia.submit(PING)
        assert counts(prodia) == (0, 1, 1, 0.0)


@on_both_loops
async def test_one_request_of_two_jobs_at_once() -> None:
    """What a hook is told of the one is told apart from the other."""
    told: list[AttemptDetails] = []
    request = JobRequest(PING, via="async")
    both = anyio.Event()

    async def late() -> Any:
        await both.wait()
        return REFUSED

    async def last() -> Any:
        both.set()
        return REFUSED

    async with client(late, last, hook=told.append) as prodia:
        async with prodia.map([request] * 2) as outcomes:
            failed = {outcome.index async for outcome in outcomes if not outcome}
    keys = {(each.key, each.index) for each in told if isinstance(each, JobDetails)}
    assert failed == {index for _, index in keys} == {0, 1}
    assert len({key for key, _ in keys}) == 2


@on_both_loops
async def test_a_submission_that_names_no_job() -> None:
    """All that came is on the error: somebody may have paid for it."""
    nameless = JOB_JSON.replace(f'"id":"{ID}",'.encode(), b"")
    async with client(answer_of(nameless, OUTPUT_PART, status=201)) as prodia:
        with pytest.raises(MalformedResponseError) as caught:
            await prodia.submit(PING)
    error = caught.value
    assert error.message == "the answer to a submission must bring the job's id, and has none"
    assert [each.fate for each in error.attempts] == ["succeeded"]
    assert error.request_id == REQUEST_ID
    assert error.job is not None
    assert error.job.config == {"seed": 42}
    assert [each.content for each in error.outputs] == [PICTURE]


async def test_a_submission_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, with fields for whoever reads it by machine."""
    caplog.set_level(logging.INFO, logger="prodia_async")
    async with client(SUBMITTED) as prodia:
        job = await prodia._submit(JobRequest(PING, tag="mine"), None, 3)
    assert job._left == Unfinished(PING["type"], 3, "mine", may_have_run=True, job_id=ID)
    (line,) = caplog.records
    assert (line.levelno, line.getMessage()) == (
        logging.INFO, f"inference.ping.v1: submitted as {ID}",
    )  # fmt: skip
    fields = {"job_type": "inference.ping.v1", "job_id": ID, "request_id": REQUEST_ID,
              "index": 3, "tag": "mine"}  # fmt: skip
    assert {name: vars(line)[name] for name in fields} == fields


async def test_a_job_is_counted_once() -> None:
    """Whoever tells of its end first; and as that says."""
    async with client(extra_headers={"X-Team": "blue"}) as prodia:
        calls = prodia._calls()
        assert (calls.price, calls.max_response_bytes) == (False, MAX_RESPONSE_BYTES)
        assert calls.headers == [("x-team", "blue")]
        calls.ended("a", completed=True, dollars=0.25)
        calls.ended("a")
        assert counts(prodia) == (1, 0, 0, 0.25)
        calls.ended("b")
        assert counts(prodia) == (1, 1, 0, 0.25)
        calls.ended("c", cancelled=True)
        assert counts(prodia) == (1, 1, 1, 0.25)


@on_both_loops
async def test_a_job_is_picked_up() -> None:
    """By its id, and asked about with the client's own credential and headers."""
    own = client((200, b"processing", "text/plain"), extra_headers={"x-team": "blue"})
    async with own as prodia:
        job = prodia.async_job("some-id")
        assert (job.id, await job.state()) == ("some-id", "processing")
        transport: Any = prodia._engine.session().sender._transport
    (request,) = transport.requests
    assert request.url.path == "/v2/job/async/some-id/job.state.current"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["x-team"] == "blue"


class Left:
    """A submitted job, as far as `job` asks for it; what it comes to is played."""

    def __init__(self, play: Callable[[], Awaitable[Any]], job_id: str = ID) -> None:
        self.play = play
        self.id = job_id
        self.deadlines: list[float | None] = []

    async def result(self, *, deadline: float | None) -> Any:
        self.deadlines.append(deadline)
        return await self.play()


@pytest.mark.parametrize(
    ("own", "clients", "took", "left"),
    [
        (None, None, 3.0, [None]),
        (10.0, None, 3.0, [7.0]),
        (None, 9.0, 3.0, [6.0]),
        (10.0, 1.0, 3.0, [7.0]),
        (10.0, None, 30.0, [0.001]),
    ],
)
@on_both_loops
async def test_one_deadline_for_all_of_it(
    own: float | None,
    clients: float | None,
    took: float,
    left: list[float | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The result has what the submission left of it: the job's own, or else the client's."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(_waiting, "current_time", lambda: clock.now)

    response: Any = SimpleNamespace(attempts=(), dollars=None)

    async def answer() -> Any:
        return response

    submitted = Left(answer)
    asked: list[Any] = []

    async def submit(*given: Any) -> Left:
        asked.append(given)
        clock.now += took
        return submitted

    async with client(deadline=clients) as prodia:
        monkeypatch.setattr(prodia, "_submit", submit)
        request = JobRequest(PING, deadline=own, via="async")
        source: Any = object()
        assert await prodia._run_async(request, source, 5) is response
    assert asked == [(request, source, 5)]
    assert submitted.deadlines == left


ATTEMPTS = (
    Attempt(1, "not run", 429, None, 1.0),
    Attempt(2, "undelivered", None, None, 1.0),
    Attempt(3, "succeeded", 201, "r", 2.0),
)


async def gives(dollars: float | None) -> Any:
    return SimpleNamespace(attempts=ATTEMPTS, dollars=dollars)


async def fails(attempts: Sequence[Attempt]) -> Any:
    raise ConnectError("gone", attempts=attempts)


async def breaks() -> Any:
    raise LookupError


async def error_of(call: Awaitable[object]) -> Exception | None:
    try:
        await call
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize(
    ("play", "number", "dollars", "error"),
    [
        (lambda: gives(0.25), 3, 0.25, None),
        (lambda: gives(None), 3, 0.0, None),
        (lambda: gives(-1.0), 3, 0.0, None),
        (lambda: fails(ATTEMPTS), 3, 0.0, ConnectError),
        (lambda: fails(()), 0, 0.0, ConnectError),
        (breaks, 0, 0.0, LookupError),
    ],
)
@on_both_loops
async def test_what_a_hook_is_told_of_one_left_with_the_server(
    play: Callable[[], Awaitable[Any]],
    number: int,
    dollars: float,
    error: type[Exception] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One job, from its place in line to its end, whatever that is; and it is counted so."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(_waiting, "current_time", lambda: clock.now)

    ids = ["a", "b"]

    async def submit(*_: Any) -> Left:
        clock.now += 4.0
        return Left(play, ids.pop(0))

    told: list[Any] = []
    async with client(hook=told.append) as prodia:
        monkeypatch.setattr(prodia, "_submit", submit)
        request = JobRequest(PING, tag="mine", via="async")
        raised = await error_of(prodia._run_async(request, None, 7))
        assert type(raised) is (error or type(None))
        # An end that is known is counted by the job itself; here nobody else does.
        assert counts(prodia) == (0, int(error is not None), 0, 0.0)
        monkeypatch.setattr(prodia, "_hook", None)
        assert type(await error_of(prodia._run_async(request, None, 7))) is type(raised)
        assert counts(prodia) == (0, 2 * int(error is not None), 0, 0.0)
    begun = JobDetails(
        event="queued", job_type="inference.ping.v1", number=0, attempt=None, seconds_queued=0.0,
        index=7, tag="mine", key=told[0].key,
    )  # fmt: skip
    ended = JobDetails(
        event="finished", job_type="inference.ping.v1", number=number,
        attempt=ATTEMPTS[-1] if number else None, seconds_queued=0.0, index=7, tag="mine",
        key=told[0].key, dollars=dollars, error=raised, seconds=4.0,
    )  # fmt: skip
    assert told == [begun, ended]


@on_both_loops
async def test_one_left_with_the_server_that_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as that, not as failed, and the hook is told."""

    async def submit(*_: Any) -> Left:
        return Left(anyio.sleep_forever)

    told: list[Any] = []
    async with client(hook=told.append) as prodia:
        monkeypatch.setattr(prodia, "_submit", submit)
        with anyio.move_on_after(0.02):
            await prodia.job(PING, via="async")
        assert counts(prodia) == (0, 0, 1, 0.0)
    assert [each.event for each in told] == ["queued", "finished"]
    assert told[-1].error is not None
    assert not isinstance(told[-1].error, Exception)


async def test_a_hook_is_told_of_what_is_no_job() -> None:
    """It has no type, and ends before anything is sent."""
    told: list[Any] = []
    async with client(hook=told.append) as prodia:
        with pytest.raises(InvalidRequestError):
            await prodia.job({}, via="async")
    assert [(each.event, each.job_type) for each in told] == [("queued", ""), ("finished", "")]
