"""Reading an answer: step by step, to its end and no further, with nothing kept of a failed one."""

from __future__ import annotations

import gc
import logging
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import anyio
import pytest
from conftest import on_both_loops
from raw_server import (
    GOOD_BODY,
    JOB_JSON,
    JOB_PART,
    MULTIPART_TYPE,
    OUTPUT_PART,
    PICTURE,
    multipart,
    part,
)

from prodia_async import _reading as reading_module
from prodia_async._answers import (
    MAX_JOB_BYTES,
    Collector,
    JobReceived,
    OutputData,
    warn_of_format,
    warn_of_type,
)
from prodia_async._errors import (
    BadRequestError,
    JobFailedError,
    MalformedResponseError,
    ProdiaError,
    ResponseError,
    ResponseTooLargeError,
    ServerError,
    TruncatedResponseError,
)
from prodia_async._reading import DRAIN_MARGIN, DRAIN_SECONDS, AnswerFeed, CollectedAnswer
from prodia_async._results import JobResult, read_job_result
from prodia_async._wire import Headers

if TYPE_CHECKING:
    from collections.abc import Iterable


class Clock:
    """Time that passes only where somebody sleeps: exact, and the same on a busy machine."""

    def __init__(self) -> None:
        self.now = 0.0
        self.deadline = math.inf
        self.ends: list[tuple[float, anyio.CancelScope]] = []

    def current_time(self) -> float:
        return self.now

    def current_effective_deadline(self) -> float:
        return self.deadline

    def move_on_after(self, seconds: float) -> anyio.CancelScope:
        scope = anyio.CancelScope()
        self.ends.append((self.now + seconds, scope))
        return scope

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        for end, scope in self.ends:
            if end <= until:
                self.now = max(self.now, end)
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        self.now = until


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock for the module under test, in the place of the loop's."""
    clock = Clock()
    names = ("current_time", "current_effective_deadline", "move_on_after")
    its_own = SimpleNamespace(**{name: getattr(clock, name) for name in names})
    monkeypatch.setattr(reading_module, "anyio", its_own)
    return clock


class Reply:
    """A reply out of a list: bytes, seconds to wait, or an error to raise."""

    request_id = "r-1"
    secret = ""

    def __init__(
        self,
        steps: Iterable[bytes | float | Exception],
        *,
        status: int = 200,
        content_type: str = MULTIPART_TYPE,
        clock: Any = None,
        **headers: str,
    ) -> None:
        self.sleep = anyio.sleep if clock is None else clock.sleep
        self.status_code = status
        pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.headers = Headers([("content-type", content_type), *pairs])
        self.steps = list(steps)
        self.asked = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        self.asked += 1
        await anyio.lowlevel.checkpoint()
        while self.steps:
            step = self.steps.pop(0)
            if isinstance(step, Exception):
                raise step
            if isinstance(step, bytes):
                return step
            await self.sleep(step)
        raise StopAsyncIteration


def feed(reply: Any, *, multipart: bool = True) -> AnswerFeed:
    return AnswerFeed(reply, multipart=multipart)


async def drained(each: AnswerFeed) -> list[object]:
    events: list[object] = []
    while (more := await each.next()) is not None:
        events += more
    assert await each.next() is None  # and ever after
    return events


LENGTH = str(len(GOOD_BODY))


@on_both_loops
async def test_the_end_of_the_body_is_read_and_no_more() -> None:
    """With a length it is there already, and nothing is read after it."""
    known = Reply([GOOD_BODY, b"somebody else's", b"and more"], content_length=LENGTH)
    await drained(feed(known))
    assert known.asked == 2
    assert known.steps == [b"and more"]
    await drained(feed(Reply([GOOD_BODY], content_length=LENGTH)))


@pytest.mark.parametrize(
    ("rest", "headers", "waited"),
    [
        ([], {}, 0.0),
        ([b"epilogue", b"more"], {}, 0.0),
        ([TruncatedResponseError("broke")], {}, 0.0),
        ([DRAIN_SECONDS * 0.9, b"more"], {}, DRAIN_SECONDS * 0.9),
        ([30.0], {}, DRAIN_SECONDS),
        # A length and chunks: only the last chunk ends it, and that may never come.
        ([30.0], {"content_length": LENGTH, "transfer_encoding": "chunked"}, DRAIN_SECONDS),
        ([30.0], {"content_length": "1"}, DRAIN_SECONDS),
    ],
)
@on_both_loops
async def test_the_end_of_the_body_is_waited_for(
    rest: list[bytes | float | Exception], headers: dict[str, Any], waited: float, clock: Clock
) -> None:
    """Where no length tells that it is there: a tenth of a second long, and no longer."""
    reply = Reply([GOOD_BODY, *rest], clock=clock, **headers)
    events = await drained(feed(reply))
    assert any(isinstance(each, JobReceived) for each in events)
    assert clock.now == waited
    assert reply.steps == []


@pytest.mark.parametrize(
    ("deadline", "waited"),
    [(0.08, 0.08 - DRAIN_MARGIN), (DRAIN_MARGIN, 0.0), (0.01, 0.0), (9.0, DRAIN_SECONDS)],
)
@on_both_loops
async def test_waiting_for_the_end_costs_nobody_the_answer(
    deadline: float, waited: float, clock: Clock
) -> None:
    """It ends a little before the deadline does."""
    clock.deadline = 5.0 + deadline
    clock.now = 5.0
    await drained(feed(Reply([GOOD_BODY, 30.0], clock=clock)))
    assert clock.now == pytest.approx(5.0 + waited)


@on_both_loops
async def test_an_end_that_was_cut_off_is_none() -> None:
    """After a step that was cancelled the rest is lost, whatever the connection says."""
    each = feed(Reply([JOB_PART, 30.0]))
    await each.next()
    with anyio.move_on_after(0.05):
        await each.next()
    with pytest.raises(TruncatedResponseError) as caught:
        await each.next()
    assert caught.value.message == "reading was cut off before, and the rest is lost"
    assert caught.value.bytes_received == len(JOB_PART) == each.bytes_received


def test_what_is_proven() -> None:
    """A length, chunks, or a form: with nothing of these an end proves nothing."""
    assert feed(Reply([])).is_proven
    cases: list[tuple[dict[str, Any], bool]] = [
        ({"content_length": "5"}, True),
        ({"transfer_encoding": "gzip, Chunked"}, True),
        ({"content_length": "x"}, False),
        ({}, False),
    ]
    for headers, proven in cases:
        reply = Reply([], content_type="image/png", **headers)
        assert feed(reply, multipart=False).is_proven is proven


def answer(**options: Any) -> CollectedAnswer:
    return CollectedAnswer(**{"multipart": True, "max_bytes": 10**6, **options})


async def read(reply: Any, **options: Any) -> tuple[CollectedAnswer, ProdiaError | None]:
    reading = answer(**options)
    try:
        assert isinstance(await reading.read(reply), Collector)
    except ProdiaError as error:
        return reading, error
    return reading, None


@on_both_loops
async def test_a_whole_answer() -> None:
    """Its job, its outputs and what it cost; `forget` lets go of all of it."""
    priced = JOB_JSON.replace(b'"config"', b'"price":{"dollars":0.5},"config"')
    reading, error = await read(Reply([multipart(part("job", None, None, priced), OUTPUT_PART)]))
    assert error is None
    assert reading.dollars() == 0.5
    told = reading.partial()
    assert told["job_id"] == "6b0e8cc2-6f5e-4f0b-9f3e-0c7c5d3e2a11"
    assert [each.content for each in told["outputs"]] == [PICTURE]
    reading.forget()
    assert reading.partial() == {"job": None, "outputs": (), "job_id": None}
    assert reading.dollars() == 0.0
    with pytest.raises(ResponseTooLargeError):  # nor is anything kept that comes after
        reading._collector.add([OutputData(b"x")])
    reading.note(read_job_result(priced.replace(b"0.5", b"-1000")))
    assert reading.dollars() == 0.0
    reading.note(read_job_result(priced))
    assert reading.dollars() == 0.5


@on_both_loops
async def test_a_credential_that_comes_back_is_not_kept() -> None:
    """A job result that says it has it nowhere; nor has that of an error."""
    secret = "a-secret-token"
    said = JOB_JSON.replace(b'"config"', b'"error":"%s","config"' % secret.encode())
    body = multipart(part("job", None, None, said))
    reply, fault = Reply([body]), Reply([body], status=500)
    reply.secret = fault.secret = secret
    reading, error = await read(reply)
    assert error is None
    found: Any = fault
    for job in (
        reading.partial()["job"],
        (await answer().read_error(found, found.headers, bytes)).job,  # type: ignore[union-attr]  # a 500
    ):
        assert job is not None
        assert job.id is not None
        assert secret not in job.model_dump_json()
    page = Reply([secret.encode()], content_type="text/plain")
    page.secret = secret
    broken = feed(page)
    with pytest.raises(MalformedResponseError, match=r"beginning b'\[token\]'") as caught:
        while await broken.next() is not None:
            pass
    assert secret not in caught.value.message


@on_both_loops
async def test_a_page_where_a_job_result_was_asked_for() -> None:
    """Whatever text it is, it is none of the answer's parts; without one it may be the output."""
    page = Reply([b"oops"], content_type="text/plain", content_length="4")
    _, error = await read(page)
    assert isinstance(error, MalformedResponseError)
    assert error.message == (
        "the answer must be multipart/form-data, not 4 bytes of 'text/plain', beginning b'oops'"
    )
    text = Reply([b"oops"], content_type="text/plain", content_length="4")
    reading, error = await read(text, multipart=False)
    assert error is None
    assert [each.content for each in reading.partial()["outputs"]] == [b"oops"]


@pytest.mark.parametrize(
    ("headers", "is_whole"),
    [({}, False), ({"content_length": str(len(PICTURE))}, True)],
)
@on_both_loops
async def test_a_file_whose_end_nobody_told(headers: dict[str, Any], is_whole: bool) -> None:
    """It is looked at, but where HTTP says that it is whole."""
    reply = Reply([PICTURE], content_type="image/png", **headers)
    reading, error = await read(reply, multipart=False)
    assert (error is None) is is_whole
    assert [each.content for each in reading.partial()["outputs"]] == [PICTURE]
    assert isinstance(error, TruncatedResponseError | None)


@on_both_loops
async def test_what_was_whole_is_told_and_the_rest_let_go() -> None:
    """The outputs that came are on the error; the half of one is nowhere."""
    half = part("output", "b", "image/png", bytes(100_000))[:-10]
    reading, error = await read(Reply([JOB_PART + OUTPUT_PART, half]))
    assert isinstance(error, TruncatedResponseError)
    assert error.job is not None
    assert [each.content for each in error.outputs] == [PICTURE]
    assert reading._collector._chunks == []


@on_both_loops
async def test_no_frame_holds_what_was_read() -> None:
    """Neither the traceback of a damaged answer nor that of a cut one keeps its pieces alive."""
    gone: list[int] = []

    class Piece(bytes):
        def __del__(self) -> None:
            gone.append(len(self))

    for end in (b"\r\nbroken\r\n\r\n", b""):
        delimiter = b"--" + MULTIPART_TYPE.partition("=")[2].encode()
        # The last piece brings no events, so the fault is raised where it was found.
        pieces = [JOB_PART, OUTPUT_PART[:-10], OUTPUT_PART[-10:], delimiter + end]
        _, error = await read(Reply([Piece(each) for each in pieces]))
        assert isinstance(error, ResponseError)
        gc.collect()
        assert len(gone) == len(pieces)
        assert error.__traceback__ is not None
        gone.clear()


@on_both_loops
async def test_a_submission_has_only_begun() -> None:
    """Its answer may say that the job is under way; a failure is a failure all the same."""
    for state, failed in [("processing", None), ("failed", JobFailedError)]:
        body = JOB_JSON.replace(b'"completed"', b'"%s"' % state.encode())
        reply = Reply([body], content_type="application/json")
        _, error = await read(reply, multipart=False, final=False)
        assert type(error) is (failed or type(None))
    reply = Reply([PICTURE], content_type="image/png")
    assert (await read(reply, multipart=False, final=False))[1] is None


async def read_error(
    steps: list[bytes | float | Exception], *, status: int = 500, **headers: str
) -> ProdiaError | None:
    reply: Any = Reply(steps, status=status, **headers)
    return await answer().read_error(reply, reply.headers, lambda body: body.replace(b"tok", b"*"))


@on_both_loops
async def test_errors_that_say_nothing_of_the_job_are_left_to_the_engine() -> None:
    """A refusal, a page, or what is encoded; nothing of them is read."""
    assert await read_error([GOOD_BODY], status=429) is None
    assert await read_error([b"<html>"], content_type="text/html") is None
    assert await read_error([GOOD_BODY], content_encoding="gzip") is None


@on_both_loops
async def test_an_error_that_says_that_the_job_ran() -> None:
    """Its job and outputs are on the error, with the server's words and not the token."""
    error = await read_error([GOOD_BODY])
    assert isinstance(error, ServerError)
    assert error.job is not None
    assert [each.content for each in error.outputs] == [PICTURE]
    said = JOB_JSON.replace(b'"config"', b'"error":"tok","config"')
    whole = multipart(part("job", None, None, said))
    for steps, kind in [
        ([said], "application/json"), ([whole], MULTIPART_TYPE),
        ([whole[:100], whole[100:]], MULTIPART_TYPE),
    ]:  # fmt: skip
        error = await read_error(list(steps), content_type=kind)
        assert isinstance(error, ServerError)
        assert error.job_id is not None
        assert error.fate == "ran"
        assert error.reason == (
            "*" if kind == "application/json" else "tok"
        )  # the engine's to blot
        assert error.body == b"".join(steps).replace(b"tok", b"*")
        assert error.message.endswith("its answer says that the job ran")


@on_both_loops
async def test_the_start_of_a_long_error_is_kept() -> None:
    """64 KiB of it, in however many pieces it came."""
    film = part("output", "film", "video/mp4", bytes(100_000))
    body = multipart(JOB_PART, film)
    for size in (40_000, 10**6):
        pieces: list[Any] = [body[at : at + size] for at in range(0, len(body), size)]
        heard: list[bytes] = []

        def blot(start: bytes, heard: list[bytes] = heard) -> bytes:
            heard.append(start)
            return start

        reply: Any = Reply(pieces, status=500)
        error = await answer().read_error(reply, reply.headers, blot)
        assert isinstance(error, ServerError)
        assert error.body == body[: 64 * 1024]
        assert [len(each.content) for each in error.outputs] == [100_000]
        assert len(heard[-1]) == 64 * 1024


@on_both_loops
async def test_a_form_that_came_whole_and_says_nothing() -> None:
    """Nothing was cut off that might have said that the job ran."""
    begun = part("job", None, None, JOB_JSON.replace(b"completed", b"processing"))
    error = await read_error([multipart(begun)])
    assert isinstance(error, ServerError)
    assert (error.fate, "cut short" in error.message) == ("server fault", False)


@pytest.mark.parametrize(("size", "is_whole"), [(MAX_JOB_BYTES, True), (MAX_JOB_BYTES + 1, False)])
@on_both_loops
async def test_how_long_a_json_error_may_be(size: int, is_whole: bool) -> None:
    """As long as a job result may be; what is longer is not read on."""
    error = await read_error([b" " * size, b" "], content_type="application/json")
    assert isinstance(error, ServerError)
    assert error.fate == "uncertain"
    error = await read_error([b" " * size], content_type="application/json")
    assert isinstance(error, ServerError)
    assert error.fate == ("server fault" if is_whole else "uncertain")


def test_an_error_status() -> None:
    """Its body, its headers and its number make the error, as for every job."""
    headers = Headers([("content-type", "text/plain"), ("x-request-id", "r-1")])
    error = answer().error_for(400, headers, b"no such seed")
    assert isinstance(error, BadRequestError)
    assert error.message == "400 Bad Request: no such seed"
    assert (error.body, error.request_id) == (b"no such seed", "r-1")


@on_both_loops
async def test_an_error_that_was_cut_may_have_said_so() -> None:
    """It is uncertain whether the job ran; a page that only claims to be a form is no doubt."""
    cases: list[tuple[list[bytes | float | Exception], str, str]] = [
        ([JOB_PART[:50]], MULTIPART_TYPE, "uncertain"),
        ([b"Bad Gateway"], MULTIPART_TYPE, "server fault"),
        ([b'{"id":', TruncatedResponseError("broke")], "application/json", "uncertain"),
        ([b'{"id":'], "application/json", "server fault"),
        ([TruncatedResponseError("broke")], "application/json", "server fault"),
        ([b" " * 5_000_000] * 2, "application/json", "uncertain"),
    ]
    for steps, kind, fate in cases:
        error = await read_error(steps, content_type=kind)
        assert isinstance(error, ServerError)
        assert error.fate == fate, steps
        assert error.message.endswith("; the answer was cut short") is (fate == "uncertain")
        assert ("cut short" in error.message) is (fate == "uncertain")


@on_both_loops
async def test_too_much_for_one_answer() -> None:
    """What is over the limit is refused, and what was whole is kept."""
    body = multipart(JOB_PART, OUTPUT_PART, part("output", None, None, bytes(5_000)))
    reading, error = await read(Reply([body]), max_bytes=3_000)
    assert "max_response_bytes=3000" in str(error)
    assert len(reading.partial()["outputs"]) == 1


def test_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """Only for what differs, and never for what was not said."""
    caplog.set_level(logging.WARNING)
    warn_of_type(None, JobResult(type="a"), None)
    warn_of_type("a", None, None)
    warn_of_type("a", JobResult(), None)
    warn_of_type("a", JobResult(type="a"), None)
    for asked, came in [(None, "a/b"), ("", "a/b"), ("a/*", "c/d"), ("a/b;q=1", "A/B; c=d")]:
        warn_of_format(asked, came)
    assert caplog.records == []
    warn_of_type("a", JobResult(id="j", type="b\x1b[31m"), "r")
    warn_of_format("image/png;x=1", "text/plain\x1b[31m")
    assert len(caplog.records) == 2
    assert "\x1b" not in caplog.text
    assert getattr(caplog.records[0], "request_id", None) == "r"


@on_both_loops
async def test_the_type_that_came(caplog: pytest.LogCaptureFixture) -> None:
    """Compared where the output comes alone; beside a job result its own part says its type."""
    caplog.set_level(logging.WARNING)
    await read(Reply([GOOD_BODY]), job_type="inference.ping.v1", accept="image/webp")
    assert caplog.records == []
    plain = Reply([b"x"], content_type="text/plain", content_length="1")
    await read(plain, multipart=False, accept="image/png")
    assert caplog.messages == ["asked for 'image/png', and the answer is 'text/plain'"]
    caplog.clear()
    await read(Reply([GOOD_BODY]), job_type="inference.pong.v1")
    (line,) = caplog.records
    assert line.message == (
        "inference.pong.v1: the answer is of type 'inference.ping.v1'; it may be another job's"
    )
    assert getattr(line, "request_id", None) == "r-1"
    empty = Reply([JOB_JSON], content_type="application/json")
    _, error = await read(empty, multipart=False, accept="image/png")
    assert error is None
    _, error = await read(Reply([b"x"], content_type="image/png"))
    assert isinstance(error, MalformedResponseError)
