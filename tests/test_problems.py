"""Errors as answers of RFC 9457: each class, its status, and what the body says."""

from __future__ import annotations

import json

import pytest

from prodia_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    CapacityError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    InvalidRequestError,
    JobFailedError,
    JobNotFoundError,
    JobResult,
    MalformedResponseError,
    NoOutputError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ProdiaError,
    QueueFullError,
    ResponseTooLargeError,
    ServerError,
    TruncatedResponseError,
)
from prodia_async._errors import JobRefusedError
from prodia_async._sessions import Unfinished
from prodia_async.fireworks import ContentFilteredError
from prodia_async.integrations import _problems, _service


class Hostile:
    """A tag of somebody's."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


STATUSES: list[tuple[ProdiaError, int, str]] = [
    (InvalidRequestError("no type"), 422, "invalid-request"),
    (BadRequestError("bad", status_code=400), 400, "refused"),
    (PermissionDeniedError("no", status_code=403), 403, "refused"),
    (JobNotFoundError("gone", status_code=404), 404, "refused"),
    (PayloadTooLargeError("big", status_code=413), 413, "refused"),
    (AuthenticationError("who?", status_code=401), 502, "credentials"),
    (APIStatusError("teapot", status_code=418), 502, "unreadable"),
    (CapacityError("busy", status_code=429), 503, "busy"),
    (QueueFullError("full"), 503, "busy"),
    (DeadlineExceededError("late"), 504, "deadline"),
    (DeadlineExceededError("late", stage="running"), 504, "deadline"),
    (DeadlineExceededError("late", stage="refused"), 503, "busy"),
    (DeadlineExceededError("late", stage="queued"), 503, "busy"),
    (APITimeoutError("silence"), 504, "deadline"),
    (JobFailedError("it failed"), 422, "job-failed"),
    (JobRefusedError("no prompt", status_code=400), 422, "job-failed"),
    (ContentFilteredError("filtered"), 422, "job-failed"),
    (ServerError("oops", status_code=500), 502, "unreachable"),
    (MalformedResponseError("?"), 502, "unreadable"),
    (TruncatedResponseError("..."), 502, "unreadable"),
    (NoOutputError("no output"), 502, "unreadable"),
    (ResponseTooLargeError("!"), 502, "unreadable"),
    (ConnectError("refused"), 502, "unreachable"),
    (ConnectError.of_closing("not sent"), 503, "closing"),
    (ConnectionLostError("reset"), 502, "unreachable"),
    (APIConnectionError("?"), 502, "unreachable"),
    (ProdiaError("?"), 502, "unreachable"),
]


@pytest.mark.parametrize(("error", "status", "word"), STATUSES)
def test_the_status_of_each_error(error: ProdiaError, status: int, word: str) -> None:
    """The table at the top of the module."""
    problem = _problems.problem_of(error)
    body = json.loads(problem.content)
    assert (problem.status, body["status"], body["type"]) == (
        status,
        status,
        f"urn:prodia-async:{word}",
    )
    assert body["title"] == _problems.TITLES[word]
    assert body["may_have_run"] is error.may_have_run
    assert problem.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in problem.headers) == (status == 503)


def test_every_class_of_error_is_in_the_table() -> None:
    """A new one must say what a service answers."""

    def below(cls: type[ProdiaError]) -> set[type[ProdiaError]]:
        return {cls}.union(*(below(each) for each in cls.__subclasses__()))

    told = {type(error) for error, _, _ in STATUSES}
    ours = {each for each in below(ProdiaError) if each.__module__ == "prodia_async"}
    assert {each.__name__ for each in ours - told} == {"ResponseError"}  # a base


@pytest.mark.parametrize(
    ("retry_after", "header", "body"), [(None, "1", 1), (0.0, "0", 0.0), (2.1, "3", 2.1)]
)
def test_when_to_try_again(retry_after: float | None, header: str, body: float) -> None:
    """Whole seconds in the header, and never earlier than asked."""
    error = CapacityError("busy", status_code=429, retry_after=retry_after)
    problem = _problems.problem_of(error)
    assert (problem.headers["retry-after"], problem.body["retry_after"]) == (header, body)


def test_why_a_job_failed() -> None:
    """In the server's own words, wherever they were; with the job's id."""
    job = JobResult(id="7", error="too dark")
    body = _problems.problem_of(JobFailedError("the job failed", job=job)).body
    assert (body["reason"], body["job_id"]) == ("too dark", "7")
    told = JobFailedError("the job failed", reason="no face")
    assert _problems.problem_of(told).body["reason"] == "no face"
    assert _problems.problem_of(JobFailedError("?")).body["reason"] is None
    assert "job_id" not in _problems.problem_of(JobFailedError("?")).body


def test_what_the_api_says_of_the_token_is_not_told() -> None:
    """The detail of a 401 is for the service's log."""
    error = AuthenticationError("401: the token abc is unknown", status_code=401)
    assert "abc" not in _problems.problem_of(error).content.decode()


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (ConnectionLostError("reset", request_id="r"), "WARNING"),
        (CapacityError("busy", status_code=429), "INFO"),
        (JobFailedError("failed"), None),
    ],
)
def test_what_is_logged(
    error: ProdiaError, level: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """What may have been paid for and lost is a warning; a failed job is the caller's."""
    with caplog.at_level("DEBUG", logger="prodia_async"):
        _service.log_problem(error)
    assert [each.levelname for each in caplog.records] == ([level] if level else [])
    for record in caplog.records:
        assert record.__dict__["prodia_may_have_run"] is error.may_have_run
        assert record.__dict__["prodia_request_id"] == error.request_id
        assert ("may have been charged" in record.message) == error.may_have_run


@pytest.mark.parametrize(
    ("job", "request_id", "names"),
    [
        (None, None, set()),
        (JobResult(), "r", {"x-prodia-request-id"}),
        (JobResult(id="7\r\nx: y"), None, {"x-prodia-job-id"}),
    ],
)
def test_the_headers_of_a_film(
    job: JobResult | None, request_id: str | None, names: set[str]
) -> None:
    """What came over the network cannot become a header of its own."""
    headers = _service.stream_headers(job, request_id)
    assert set(headers) == names | {"cache-control", "accept-ranges"}
    assert not any(letter in value for value in headers.values() for letter in "\r\n")


async def test_what_was_left_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each job that a shutdown left without an answer, in one line."""

    class Client:
        async def drain(self, timeout: float | None = None) -> tuple[object, ...]:
            assert timeout == 3
            return left

    left: tuple[object, ...] = ("job 7",)
    assert await _service.shut_down(Client(), 3) == left  # type: ignore[arg-type]
    assert "1 job was left without an answer" in caplog.text
    assert "'job 7'" in caplog.text
    left = (Unfinished("a.type", 1, Hostile(), True), Hostile())
    assert await _service.shut_down(Client(), 3) == left  # type: ignore[arg-type]
    assert "2 jobs were left without an answer" in caplog.text
    assert "index=1, tag=<Hostile instance at" in caplog.text
