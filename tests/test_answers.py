"""Answers as values: the same for every cut, nothing lost, every fault with its own error."""

import json
import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from prodia_async import _answers
from prodia_async._answers import (
    EARLY_LOOKS,
    MAX_JOB_BYTES,
    SMALL_CHUNK,
    AnswerEvent,
    AnswerReader,
    Collector,
    JobReceived,
    OutputData,
    OutputFinished,
    OutputStarted,
    check_answer,
    error_for,
)
from prodia_async._errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CapacityError,
    JobFailedError,
    JobNotFoundError,
    MalformedResponseError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ProdiaError,
    ResponseError,
    ResponseTooLargeError,
    ServerError,
    TruncatedResponseError,
)
from prodia_async._outputs import Output
from prodia_async._results import JobResult, JobState
from prodia_async._statuses import MAX_ERROR_BYTES, retry_after
from prodia_async._wire import Headers

B = "0123456789abcdef" * 3
FORM = f"multipart/form-data; boundary={B}"
JPEG = b"\xff\xd8\xff\xe0" + b"\r\n--" + B[:20].encode() + bytes(30) + b"\xff\xd9"
JOB = b'{"id":"j-1","state":{"current":"completed","history":null}}\n'


def part(name: str, content: bytes, filename: str | None = None, kind: str | None = None) -> bytes:
    lines = [f"--{B}", f'Content-Disposition: form-data; name="{name}"']
    if filename is not None:
        lines[1] += f'; filename="{filename}"'
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, "", ""]).encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{B}--\r\n".encode()


def job(content: bytes = JOB) -> bytes:
    return part("job", content, "job.json", "application/json")


def headers(content_type: str | None = FORM, **more: str) -> Headers:
    pairs = [] if content_type is None else [("content-type", content_type)]
    return Headers([*pairs, *((name.replace("_", "-"), value) for name, value in more.items())])


GOOD = form(
    job(),
    part("output", JPEG, "5ea5", "image/jpeg"),
    part("extra", b"ignored"),
    part("output", b""),
    part("output", b"hello", "message.txt", "text/plain"),
)
WHOLE = [
    Output(JPEG, "image/jpeg", "5ea5"),
    Output(b"", "application/octet-stream"),
    Output(b"hello", "text/plain", "message.txt"),
]


def normal(events: list[AnswerEvent]) -> list[object]:
    """Join what the cuts have split."""
    joined: list[object] = []
    for event in events:
        if isinstance(event, OutputData):
            if joined and isinstance(joined[-1], bytes):
                joined[-1] += bytes(event.data)
            else:
                joined.append(bytes(event.data))
        else:
            joined.append(event)
    return joined


def read(
    chunks: list[bytes], head: Headers, *, multipart: bool = True
) -> tuple[list[object], ProdiaError | None]:
    """Feed chunks and the end; return joined events and the fault, if one was raised."""
    events: list[AnswerEvent] = []
    try:
        reader = AnswerReader(head, multipart=multipart)
        for chunk in chunks:
            events += reader.receive_data(chunk)
        events += reader.receive_eof()
    except ProdiaError as error:
        return normal(events), error
    return normal(events), None


def collect(
    body: bytes, head: Headers | None = None, *, multipart: bool = True
) -> tuple[Collector, ProdiaError | None]:
    """Collect one body in one chunk, and judge it."""
    collector = Collector()
    try:
        reader = AnswerReader(headers() if head is None else head, multipart=multipart)
        collector.add(reader.receive_data(body))
        collector.add(reader.receive_eof())
    except ProdiaError as error:
        return collector, error
    wrong = check_answer(
        collector.job,
        collector.outputs,
        multipart=multipart,
        is_proven=reader.is_proven,
    )
    return collector, wrong


def test_a_good_answer() -> None:
    """The job, and every output in order: without name, without type, empty, and text."""
    collector, wrong = collect(GOOD)
    assert wrong is None
    assert collector.job is not None
    assert collector.job.id == "j-1"
    assert collector.outputs == WHOLE


def test_the_job_may_come_last_and_unnamed() -> None:
    """The part's form name alone makes it the job."""
    collector, wrong = collect(form(part("output", JPEG), part("job", b"\xef\xbb\xbf" + JOB)))
    assert wrong is None
    assert collector.job is not None
    assert collector.outputs == [Output(JPEG, "image/jpeg")]


BODIES: dict[str, tuple[bytes, Headers, bool]] = {
    "good": (GOOD, headers(), True),
    "no job": (form(part("output", JPEG)), headers(), True),
    "two jobs": (form(job(), job(b'{"id":"other"}'), part("output", b"x")), headers(), True),
    "bad job": (form(job(b"[]"), part("output", b"x")), headers(), True),
    "truncated": (GOOD[:-30], headers(), True),
    "garbled": (form(job()) [:-50] + b"garbage", headers(), True),
    "bad part": (form(job(), b"--" + B.encode() + b"\r\nnonsense\r\n\r\nx\r\n"), headers(), True),
    "direct": (JPEG, headers("image/jpeg"), False),
    "direct, no type": (JPEG, headers(None), False),
    "direct for multipart": (JPEG, headers("image/jpeg"), True),
    "json job": (JOB, headers("application/json"), True),
    "json output": (b'{"labels":[1]}', headers("application/json"), False),
    "html": (b"<html>no</html>", headers("text/html; charset=utf-8"), True),
    "short": (JPEG, headers("image/jpeg", content_length="1000"), False),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_any_cut(name: str) -> None:
    """Two chunks, or single bytes, give the same outputs and the same error as one chunk."""
    body, head, multipart = BODIES[name]
    whole, fault = read([body], head, multipart=multipart)
    cuts = [[body[:cut], body[cut:]] for cut in range(len(body) + 1)]
    for chunks in [*cuts, [bytes([byte]) for byte in body]]:
        events, again = read(chunks, head, multipart=multipart)
        # The job comes as soon as it can; of a damaged answer that may be never.
        assert without_job(events) == without_job(whole)
        if fault is None:
            assert events == whole
        assert (type(again), str(again)) == (type(fault), str(fault))


def without_job(events: list[object]) -> list[object]:
    return [event for event in events if not isinstance(event, JobReceived)]


@pytest.mark.parametrize("end", [b"}", b"}\r\n", b"}\n \n"])
def test_the_job_comes_before_the_delimiter_that_ends_it(end: bytes) -> None:
    """A server may send that only with the first output, much later; and it comes once."""
    reader = AnswerReader(headers(), multipart=True)
    start = part("job", JOB.rstrip()[:-1]).removesuffix(b"\r\n")
    assert reader.receive_data(start) == []
    assert [type(event) for event in reader.receive_data(end)] == [JobReceived]
    rest = form(b"\r\n", part("output", JPEG))
    assert not any(isinstance(event, JobReceived) for event in reader.receive_data(rest))
    assert reader.receive_eof() == []


def test_a_job_that_goes_on_after_its_end() -> None:
    """What was given out early was too early: the answer is malformed, the outputs are kept."""
    body = form(job(JOB + b"{}"), part("output", JPEG))
    cut = body.index(b"{}") - 1
    for chunks in ([body], [body[:cut], body[cut:]]):
        events, wrong = read(chunks, headers())
        assert isinstance(wrong, MalformedResponseError)
        assert JPEG in events


def test_any_truncation() -> None:
    """Every body that stops early is an error, and the outputs that were whole are there."""
    for end in range(len(GOOD) - 2):
        collector, wrong = collect(GOOD[:end])
        assert isinstance(wrong, TruncatedResponseError), end
        assert collector.outputs == WHOLE[: len(collector.outputs)], end


def test_a_job_part_full_of_braces_takes_linear_time() -> None:
    """Dripped byte by byte, a job part is not read anew at each brace."""
    looked: list[int] = []

    def counted(text: bytes) -> None:
        looked.append(len(text))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_answers, "read_job_result", counted)
        reader = AnswerReader(headers(), multipart=True)
        reader.receive_data(part("job", b"").removesuffix(b"\r\n"))
        for _ in range(60_000):
            reader.receive_data(b"}")
    assert sum(looked) <= (EARLY_LOOKS + 1) * 60_000
    assert len(looked) > 10


def test_a_job_part_of_too_many_values() -> None:
    """It is not read, which would hold up everything else; the outputs are there all the same."""
    text = b'{"created_at":"x","config":{"a":[' + b"[1]," * 1_000_000 + b"1]}}"
    began = time.process_time()
    collector, wrong = collect(form(job(text), part("output", JPEG)))
    assert time.process_time() - began < 0.3
    assert isinstance(wrong, MalformedResponseError)
    assert "a JSON object of at most 50000 values, not b'{" in wrong.message
    assert [each.content for each in collector.outputs] == [JPEG]


def test_nothing_received_is_lost_to_a_fault_in_the_same_chunk() -> None:
    """What was complete comes out first; the fault is raised by the next call, and again."""
    reader = AnswerReader(headers(), multipart=True)
    events = reader.receive_data(
        job() + part("output", JPEG) + b"--" + B.encode() + b"\r\nno header\r\n\r\n"
    )
    assert [type(event) for event in events if not isinstance(event, OutputData)] == [
        JobReceived,
        OutputStarted,
        OutputFinished,
    ]
    for call in (reader.check, lambda: reader.receive_data(b"x"), reader.receive_eof, reader.check):
        with pytest.raises(MalformedResponseError, match="no header"):
            call()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "must have a job part, but has none"),
        ([job(), job()], "must have one job part, not two"),
        ([job(b"[1]")], "must be a JSON object, not b'[1]'"),
        ([job(b"")], "must be a JSON object, not b''"),
        ([job(b"x" * 10**5)], "must be a JSON object"),
        ([job(b"{"), job()], "must have one job part, not two"),
        ([job(), job(b"{")], "must have one job part, not two"),
    ],
)
def test_a_bad_job_part_does_not_cost_the_outputs(parts: list[bytes], message: str) -> None:
    """The outputs after it are paid for: they are collected before the fault is raised."""
    collector, wrong = collect(form(*parts, part("output", JPEG)))
    assert isinstance(wrong, MalformedResponseError)
    assert message in wrong.message
    assert len(wrong.message) < 500
    assert [output.content for output in collector.outputs] == [JPEG]


def test_the_first_of_two_jobs_is_kept() -> None:
    """A second one does not take its place."""
    collector, _ = collect(form(job(), job(b'{"id":"other"}')))
    assert collector.job is not None
    assert collector.job.id == "j-1"


def test_a_job_part_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit it is read; one byte more is refused, and outputs before it are kept."""
    monkeypatch.setattr(_answers, "MAX_JOB_BYTES", 200)
    assert collect(form(job(JOB.ljust(200))))[1] is None
    collector, wrong = collect(form(part("output", JPEG), job(JOB.ljust(201))))
    assert isinstance(wrong, ResponseTooLargeError)
    assert "at most 200 bytes" in wrong.message
    assert len(collector.outputs) == 1


def test_200_mb_of_job() -> None:
    """It stops at the limit, whatever would follow."""
    reader = AnswerReader(headers(), multipart=True)
    reader.receive_data(job(b"").removesuffix(b"\r\n"))
    taken = 0
    with pytest.raises(ResponseTooLargeError):
        for _ in range(200):
            taken += 1_000_000
            reader.receive_data(b" " * 1_000_000)
    assert MAX_JOB_BYTES < taken < MAX_JOB_BYTES + 1_000_000


def test_finished_is_told_as_soon_as_all_has_come() -> None:
    """So that what follows the closing boundary need not be waited for."""
    reader = AnswerReader(headers(), multipart=True)
    reader.receive_data(GOOD[:-4])
    assert not reader.finished
    reader.receive_data(GOOD[-4:])
    assert reader.finished
    assert reader.receive_data(b"epilogue") == []
    assert reader.bytes_received == len(GOOD) + 8
    assert reader.receive_eof() == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x" * 10**6])
def test_an_encoding_that_was_not_asked_for(encoding: str) -> None:
    """It is refused before a byte of it is read."""
    with pytest.raises(MalformedResponseError, match="was not asked for") as caught:
        AnswerReader(headers(content_encoding=encoding), multipart=True)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_identity_is_no_encoding(encoding: str) -> None:
    """It means that there is none."""
    assert collect(GOOD, headers(content_encoding=encoding))[1] is None


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=x",
     "Multipart/Byteranges; boundary=x"],
)  # fmt: skip
def test_multipart_that_cannot_be_read(content_type: str) -> None:
    """No boundary, or another multipart type, whichever was asked for."""
    for multipart in (True, False):
        with pytest.raises(MalformedResponseError, match="multipart/form-data"):
            AnswerReader(headers(content_type), multipart=multipart)


WEBP = b"RIFF" + (104).to_bytes(4, "little") + b"WEBP" + bytes(100)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40) + b"IEND\xaeB`\x82"


class TestDirect:
    @pytest.mark.parametrize("picture", [JPEG, PNG, WEBP], ids=["jpeg", "png", "webp"])
    def test_a_picture(self, picture: bytes) -> None:
        """It is the one output; there is no job."""
        collector, wrong = collect(picture, headers("image/x; a=b"), multipart=False)
        assert wrong is None
        assert collector.job is None
        assert collector.outputs == [Output(picture, "image/x")]

    @pytest.mark.parametrize("picture", [JPEG, PNG, WEBP], ids=["jpeg", "png", "webp"])
    def test_cut_short(self, picture: bytes) -> None:
        """Without its format's end it is an error, which carries what came."""
        _, wrong = collect(picture[:-13], headers("image/x"), multipart=False)
        assert isinstance(wrong, TruncatedResponseError)
        assert "lacks the end" in wrong.message
        assert [output.content for output in wrong.outputs] == [picture[:-13]]

    def test_what_http_proves_is_not_taken_back(self) -> None:
        """With a length, or in chunks, a file without its format's end is whole all the same."""
        padded = JPEG + bytes(100)
        for proof in ({"content_length": str(len(padded))}, {"transfer_encoding": "chunked"}):
            collector, wrong = collect(padded, headers("image/jpeg", **proof), multipart=False)
            assert wrong is None
            assert collector.outputs == [Output(padded, "image/jpeg")]
        _, wrong = collect(padded, headers("image/jpeg"), multipart=False)
        assert isinstance(wrong, TruncatedResponseError)
        assert wrong.outputs == (Output(padded, "image/jpeg"),)

    def test_half_a_file_without_a_length(self) -> None:
        """Every format that knows its end is judged by it: text and sound and film too."""
        for content, kind in [
            (b"RIFF" + (1000).to_bytes(4, "little") + b"WAVE" + bytes(100), "audio/wav"),
            (b"\0\0\0\x10ftypisom\0\0\0\0\0\0\0\x99mdat" + bytes(20), "video/mp4"),
            (b"\0\0\0\x10ftypavif\0\0\0\0\0\0\0\x99meta" + bytes(20), "image/avif"),
            (b"<svg><path/>", "image/svg+xml"),
            (b'{"labels": [', "application/json"),
        ]:
            _, wrong = collect(content, headers(kind), multipart=False)
            assert isinstance(wrong, ResponseError), kind

    def test_text_where_a_job_was_asked_for(self) -> None:
        """A portal's page is no output where a job result was asked for."""
        for kind in ("text/plain", "text/html", "text/xml; charset=utf-8"):
            collector, wrong = collect(b"Please log in", headers(kind))
            assert isinstance(wrong, MalformedResponseError)
            assert "beginning b'Please log in'" in wrong.message
            assert (collector.outputs, wrong.outputs) == ([], ())
        assert collect(b"a caption", headers("text/plain"), multipart=False)[1] is None

    @pytest.mark.parametrize("came", [0, 1, len(JPEG) - 1])
    def test_shorter_than_its_length(self, came: int) -> None:
        """Content-Length is checked here too, since not every transport does."""
        head = headers("video/mp4", content_length=str(len(JPEG)))
        collector, wrong = collect(JPEG[:came], head, multipart=False)
        assert isinstance(wrong, TruncatedResponseError)
        assert f"must have {len(JPEG)} bytes" in wrong.message
        assert f"ended after {came}" in wrong.message
        assert collector.outputs == []

    @pytest.mark.parametrize("length", ["", "x", "-1", "5, 5", "\u0661", "9" * 5000])
    def test_a_length_that_is_none(self, length: str) -> None:
        """It proves nothing, and breaks nothing."""
        head = headers("image/jpeg", content_length=length)
        assert collect(JPEG, head, multipart=False)[1] is None

    def test_for_multipart(self) -> None:
        """A picture without the job that was asked for: an error that carries the picture."""
        collector, wrong = collect(JPEG, headers("image/jpeg"))
        assert isinstance(wrong, MalformedResponseError)
        assert wrong.outputs == (Output(JPEG, "image/jpeg"),) == tuple(collector.outputs)
        assert f"brought <Output image/jpeg {len(JPEG)} bytes>" in wrong.message

    def test_multipart_for_direct(self) -> None:
        """More than was asked for is welcome."""
        collector, wrong = collect(GOOD, multipart=False)
        assert wrong is None
        assert collector.job is not None
        assert collector.outputs == WHOLE

    @pytest.mark.parametrize("multipart", [True, False])
    def test_a_job_result_alone(self, multipart: bool) -> None:
        """Some types have their result in the config, and no output."""
        collector, wrong = collect(
            JOB, headers("Application/JSON; charset=utf-8"), multipart=multipart
        )
        assert wrong is None
        assert collector.job is not None
        assert collector.outputs == []

    @pytest.mark.parametrize(
        "content", [b'{"labels": ["cat"]}', b"[1]", b"\xef\xbb\xbf{}", b"[" * 10**5 + b"]" * 10**5]
    )
    def test_json_that_is_an_output(self, content: bytes) -> None:
        """JSON that is no job is the output itself where no job was asked for."""
        collector, wrong = collect(content, headers("application/json"), multipart=False)
        assert wrong is None
        assert collector.outputs == [Output(content, "application/json")]
        _, wrong = collect(content, headers("application/json"))
        assert isinstance(wrong, MalformedResponseError)

    @pytest.mark.parametrize(
        ("content", "kind", "message"),
        [
            (b"<h1>Welcome</h1>", "text/html", "of 'text/html', beginning b'<h1>Welcome</h1>'"),
            (b'{"lab', "application/json", """of 'application/json', beginning b'{"lab'"""),
            (b"", "application/json", "not 0 bytes of 'application/json'"),
            (b"", "image/png", "not 0 bytes of 'image/png'"),
            (b"", None, "not 0 bytes of no type"),
            (b"x" * 10**6, "text/html", "not 1000000 bytes"),
        ],
    )
    @pytest.mark.parametrize("multipart", [True, False])
    def test_what_is_no_answer(
        self, content: bytes, kind: str | None, message: str, multipart: bool
    ) -> None:
        """A proxy's page, broken JSON, nothing at all: said what was expected and what came."""
        _, wrong = collect(content, headers(kind), multipart=multipart)
        assert isinstance(wrong, MalformedResponseError)
        expected = "multipart/form-data" if multipart else "an output"
        assert f"the answer must be {expected}, " in wrong.message
        assert message in wrong.message
        assert len(wrong.message) < 400

    def test_a_page_without_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is gathered to be shown has a limit; an output has none here."""
        monkeypatch.setattr(_answers, "MAX_JOB_BYTES", 100)
        assert isinstance(collect(b"x" * 101, headers("text/html"))[1], ResponseTooLargeError)
        assert collect(b"x" * 101, headers("video/mp4"), multipart=False)[1] is None


class TestCollector:
    def test_it_has_a_limit(self) -> None:
        """All outputs together; those that were complete stay."""
        collector = Collector(max_bytes=10)
        one: list[AnswerEvent] = [OutputStarted(None, None), OutputData(b"12345"), OutputFinished()]
        collector.add([*one, *one])
        with pytest.raises(ResponseTooLargeError, match="max_response_bytes=10"):
            collector.add(one)
        assert len(collector.outputs) == 2

    def test_one_whole_chunk_is_not_copied(self) -> None:
        """The bytes of the transport become those of the output."""
        content = bytes(SMALL_CHUNK)
        collector = Collector()
        collector.add([OutputStarted(None, "a/b"), OutputData(content), OutputFinished()])
        assert collector.outputs[0].content is content

    def test_drips_cost_no_more_than_their_bytes(self) -> None:
        """A hundred thousand chunks of one byte are not a hundred thousand objects."""
        collector = Collector()
        collector.add([OutputStarted(None, "a/b"), OutputData(bytes(SMALL_CHUNK))])
        for _ in range(100_000):
            collector.add([OutputData(b"x")])
        assert len(collector._chunks) == 2
        collector.add([OutputData(bytes(SMALL_CHUNK)), OutputData(b"y"), OutputFinished()])
        expected = bytes(SMALL_CHUNK) + b"x" * 100_000 + bytes(SMALL_CHUNK) + b"y"
        assert collector.outputs[0].content == expected

    @pytest.mark.parametrize(
        ("kind", "content", "expected"),
        [
            ("image/png", JPEG, "image/png"),
            (None, JPEG, "image/jpeg"),
            (None, b"?", "application/octet-stream"),
        ],
    )
    def test_the_type(self, kind: str | None, content: bytes, expected: str) -> None:
        """The server's word, else what the bytes tell."""
        collector = Collector()
        collector.add([OutputStarted("n", kind), OutputData(content), OutputFinished()])
        assert collector.outputs == [Output(content, expected, "n")]


def result(current: str | None, **more: Any) -> JobResult:
    return JobResult(id="j-1", state=JobState(current=current), **more)


class TestJudgement:
    @pytest.mark.parametrize("multipart", [True, False])
    @pytest.mark.parametrize("state", ["completed", "processed", None])
    def test_success(self, state: str | None, multipart: bool) -> None:
        """Success, or an answer that does not say, with outputs or without."""
        for outputs in ([], WHOLE):
            assert check_answer(result(state), outputs, multipart=multipart) is None

    def test_failed(self) -> None:
        """A failure inside a success status: the reason, the job, the outputs, one line."""
        error = check_answer(result("failed", error="bad\n  steps\x1b[31m"), WHOLE, multipart=True)
        assert isinstance(error, JobFailedError)
        assert error.message == "the job failed: bad steps\ufffd[31m"
        assert (error.job_id, error.outputs, error.may_have_run) == ("j-1", tuple(WHOLE), True)
        silent = check_answer(result("failed"), [], multipart=False)
        assert str(silent).startswith("the job failed: the server does not say why")
        long = check_answer(result("failed", error="x" * 10**6), [], multipart=True)
        assert len(str(long)) < 1000

    def test_unfinished(self) -> None:
        """A state that is not final, and no output, is no answer; with outputs it is."""
        error = check_answer(result("processing"), [], multipart=True)
        assert isinstance(error, MalformedResponseError)
        assert "must be final, yet says that the job is 'processing'" in error.message
        assert error.job_id == "j-1"
        assert check_answer(result("processing"), WHOLE, multipart=True) is None

    def test_nothing(self) -> None:
        """Neither job nor output."""
        error = check_answer(None, [], multipart=True)
        assert "brought nothing" in str(error)
        assert check_answer(None, [], multipart=False) is None


class TestStatus:
    @pytest.mark.parametrize(
        ("status", "kind", "may_have_run"),
        [
            (302, APIStatusError, True),
            (400, BadRequestError, False),
            (401, AuthenticationError, False),
            (402, APIStatusError, False),
            (403, PermissionDeniedError, False),
            (404, JobNotFoundError, False),
            (413, PayloadTooLargeError, False),
            (418, APIStatusError, False),
            (429, CapacityError, False),
            (500, ServerError, True),
            (503, ServerError, True),
            (599, ServerError, True),
            (999, ServerError, True),
        ],
    )
    def test_the_class(self, status: int, kind: type[APIStatusError], may_have_run: bool) -> None:
        """By status; only a fault at the server, or a redirect, may have run."""
        error = error_for(status, headers("text/plain", x_request_id="r-1"), b"why")
        assert type(error) is kind
        assert (error.status_code, error.request_id, error.body) == (status, "r-1", b"why")
        assert error.may_have_run is may_have_run
        assert error.message.startswith(str(status))

    FAILED = json.dumps({"id": "j-2", "error": "steps: maximum: got 1,000\nwant 4"}).encode()

    @pytest.mark.parametrize(
        ("kind", "body", "message", "job_id"),
        [
            (FORM, form(job(FAILED)), "steps: maximum: got 1,000 want 4", "j-2"),
            (FORM, form(job(FAILED), part("output", b"x"))[:-70], "steps: maximum", "j-2"),
            (FORM, b"garbage", "", None),
            ("multipart/form-data", b"garbage", "", None),
            ("application/json", FAILED, "steps: maximum: got 1,000 want 4", "j-2"),
            ("application/json", b'{"state":{"history":[{"message":"no face"}]}}', "no face", None),
            ("application/json", b'{"message": "m"}', "m", None),
            ("application/json", b'{"detail": "d", "message": 5}', "d", None),
            ("application/json", b'{"error": {"message": "deep"}}', "deep", None),
            ("application/json", b'{"detail": ["x"]}', '{"detail": ["x"]}', None),
            ("application/json", b'"quoted"', '"quoted"', None),
            ("application/json", b"[" * 10**5, "[[[[", None),
            ("application/problem+json", b'{"title": "t"}', '{"title": "t"}', None),
            ("text/plain", b"token is invalid\n", "token is invalid", None),
            ("text/plain", b"steps must be < 4 and > 0", "steps must be < 4 and > 0", None),
            ("text/plain", b"a\x1b[31mb\x00c\xff", "a\ufffd[31mb\ufffdc\ufffd", None),
            (None, b"plain", "plain", None),
            ("image/png", PNG, "", None),
            ("application/octet-stream", b"\x00", "", None),
            (
                "text/html",
                b"<html><style>p{}</style><h1>502 Bad</h1><p>Gate &lt;",
                "502 Bad Gate &lt;",
                None,
            ),
            ("text/html", b"<script>if (a<b) {}</script>no<!-- c>d --> way<br", "no way", None),
            (None, b"  <?xml v?><Error><Code>Slow</Code></Error>", "Slow", None),
            ("text/html", b"<script>never closed", "", None),
        ],
    )
    def test_the_message(
        self, kind: str | None, body: bytes, message: str, job_id: str | None
    ) -> None:
        """What the server says, wherever it says it, on one line."""
        error = error_for(400, headers(kind), body)
        if message:
            assert error.message.startswith(f"400 Bad Request: {message}")
        else:
            assert error.message == "400 Bad Request"
        assert error.job_id == job_id
        assert len(error.message) < 600
        assert "\n" not in error.message

    def test_an_encoded_body_is_not_quoted(self) -> None:
        """Nobody can read it; it is kept all the same."""
        head = headers("text/plain", content_encoding="gzip")
        error = error_for(500, head, b"\x1f\x8bxyz")
        assert isinstance(error, ServerError)
        assert error.message == "500 Internal Server Error"
        assert error.body == b"\x1f\x8bxyz"
        assert error_for(500, headers(content_encoding="gzip"), form(job())).job is None

    def test_an_unknown_status(self) -> None:
        """It has no phrase, and needs none."""
        assert error_for(599, headers(None), b"").message == "599"

    def test_a_redirect(self) -> None:
        """It says where it leads, shortly, or that it leads nowhere."""
        error = error_for(
            307, headers("text/html", location="https://else\r\n" * 1000), b"<p>moved"
        )
        assert error.message.startswith("307 Temporary Redirect: redirects are not followed")
        assert "https://else" in error.message
        assert len(error.message) < 300
        assert "it leads to None" in error_for(300, headers(None), b"").message

    def test_headers_and_body_are_kept(self) -> None:
        """Headers in lower case; of the body the start."""
        error = error_for(500, Headers([("X-A", "1"), ("x-a", "2")]), b"x" * 10**6)
        assert isinstance(error, ServerError)
        assert error.headers == {"x-a": "1, 2"}
        assert len(error.body) == MAX_ERROR_BYTES
        assert len(error.message) < 600

    @pytest.mark.parametrize("letters", [b"<", b"<script", b"<!--", b"<a ", b"</", b"<style>"])
    def test_a_hostile_page_costs_linear_time(self, letters: bytes) -> None:
        """64 KB that look like tags without end take milliseconds."""
        body = (letters * MAX_ERROR_BYTES)[:MAX_ERROR_BYTES]
        began = time.perf_counter()
        error_for(500, headers("text/html"), body)
        assert time.perf_counter() - began < 0.5


class TestRetryAfter:
    def test_of_two_headers_the_larger(self) -> None:
        """And an error carries it."""
        head = Headers([("Retry-After", "5"), ("retry-after", "10")])
        assert retry_after(head) == 10.0
        for status in (429, 503):
            error = error_for(status, head, b"")
            assert isinstance(error, APIStatusError)
            assert error.retry_after == 10.0

    @pytest.mark.parametrize("off", [-86400, 0, 86400])
    def test_a_date_by_the_servers_own_clock(self, off: int) -> None:
        """However wrong that is."""
        server = datetime.now(UTC) + timedelta(seconds=off)
        until = format_datetime(server + timedelta(seconds=7), usegmt=True)
        head = headers(None, date=format_datetime(server, usegmt=True), retry_after=until)
        assert retry_after(head) == 7.0

    def test_a_date_without_a_date(self) -> None:
        """Our own clock has to do."""
        until = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
        assert retry_after(headers(None, retry_after=until)) == pytest.approx(30, abs=2)

    @pytest.mark.parametrize("value", ["", "-10", "abc", "9" * 35])
    def test_none_that_means_anything(self, value: str) -> None:
        """The error comes without a number, and without a crash."""
        error = error_for(429, headers(None, retry_after=value), b"")
        assert isinstance(error, CapacityError)
        assert error.retry_after is None
        assert retry_after(headers(None)) is None


def test_every_fault_says_what_was_expected_and_what_came() -> None:
    """All messages of this module read as one line: must, and what came instead."""
    for body, head, multipart in BODIES.values():
        collector, wrong = collect(body, head, multipart=multipart)
        del collector
        if wrong is not None:
            assert isinstance(wrong, ResponseError)
            assert re.search(r"\bmust\b", wrong.message)
            assert wrong.message.isprintable()
            assert len(wrong.message) < 300
