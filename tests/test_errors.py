"""The error tree: its shape, its messages, and that it survives pickling whole."""

import copy
import pickle

import pytest

from prodia_async import _errors
from prodia_async._attempts import Attempt
from prodia_async._errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    CapacityError,
    ConnectError,
    DeadlineExceededError,
    InternalServerError,
    InvalidRequestError,
    JobFailedError,
    JobRefusedError,
    MalformedResponseError,
    ProdiaError,
    QueueFullError,
    RateLimitError,
    ResponseError,
    ServerError,
    TruncatedResponseError,
)
from prodia_async._outputs import Output
from prodia_async._results import JobResult, JobState

CLASSES = [each for each in vars(_errors).values() if isinstance(each, type)]
ERRORS = sorted({each for each in CLASSES if issubclass(each, ProdiaError)}, key=str)


def full(kind: type[ProdiaError]) -> ProdiaError:
    """An error with every attribute set to something that is not its default."""
    job = JobResult(id="j-1", state=JobState(current="failed"), config={"seed": 7})
    attempts = [Attempt(1, "not run", 429, "r-0", 0.1, retry_after=2.0, wait=2.5, error="X")]
    if issubclass(kind, APIStatusError):
        return kind(
            "what came",
            status_code=418,
            body=b"\x00body",
            headers={"a": "b"},
            retry_after=1.5,
            attempts=attempts,
            request_id="r-1",
            may_have_run=True,
            job=job,
        )
    output = Output(b"picture", "image/png", "a.png")
    error = kind("what came", attempts=attempts, request_id="r-1", job=job, outputs=[output])
    if isinstance(error, ResponseError):
        error.bytes_received = 99
    return error


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_pickles_with_all_it_knows(kind: type[ProdiaError], protocol: int) -> None:
    """Class, message and every attribute come out of a pickle as they went in."""
    error = full(kind)
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    assert again.__dict__ == error.__dict__
    assert (again.args, str(again)) == (error.args, str(error))


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_copies(kind: type[ProdiaError]) -> None:
    """A copy is equal in all attributes, and of the same class."""
    error = full(kind)
    for again in (copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert again.__dict__ == error.__dict__


def test_the_stdlibs_families() -> None:
    """Code that catches ValueError or TimeoutError catches ours."""
    assert issubclass(InvalidRequestError, ValueError)
    assert issubclass(DeadlineExceededError, TimeoutError)
    assert issubclass(APITimeoutError, TimeoutError)
    assert RateLimitError is CapacityError
    assert InternalServerError is ServerError


@pytest.mark.parametrize("kind", ERRORS)
def test_may_have_run_is_what_the_tree_says(kind: type[ProdiaError]) -> None:
    """Uncertain, server fault, and what ran may have cost money; all else has not."""
    free = (ConnectError, JobRefusedError)
    paid = (APIConnectionError, ServerError, ResponseError, JobFailedError)
    error = kind("x", status_code=400) if issubclass(kind, APIStatusError) else kind("x")
    assert error.may_have_run is (issubclass(kind, paid) and not issubclass(kind, free))
    assert ("may have run and been charged" in str(error)) is error.may_have_run


def test_a_doubt_can_be_stated_either_way() -> None:
    """The raiser knows better than the class."""
    assert ServerError("x", status_code=500, may_have_run=False).may_have_run is False
    assert BadRequestError("x", status_code=302, may_have_run=True).may_have_run is True
    assert ServerError("x", status_code=500, fate="ran").fate == "ran"
    assert JobFailedError("x", fate="refused").may_have_run is False


def test_the_text_tells_history_and_ids() -> None:
    """The last four attempts, the wait after each, and both ids are in the text."""
    attempts = [Attempt(n, "server fault", 500 + n, None, 0.1, wait=n / 2) for n in range(1, 6)]
    error = BadRequestError(
        "bad.", status_code=400, attempts=attempts, request_id="r-1", job=JobResult(id="j-1")
    )
    assert error.message == "bad."
    assert str(error) == (
        "bad. Tried 5 times (..., 502 then 1.0 s, 503 then 1.5 s, 504 then 2.0 s, "
        "505 then 2.5 s). Ids: job j-1, request r-1"
    )


def test_a_short_history_is_told_whole() -> None:
    """One attempt is not worth a word; two are, without an ellipsis."""
    one = Attempt(1, "undelivered", None, None, 0.1, error="ConnectError")
    assert str(ProdiaError("x", attempts=[one])) == "x"
    assert (
        str(ProdiaError("x", attempts=[one, one]))
        == "x. Tried 2 times (ConnectError, ConnectError)"
    )


def test_ids_from_the_network_cannot_flood_or_break_the_text() -> None:
    """A request id of 200 KB with line ends shows as one short line."""
    error = TruncatedResponseError("x", request_id="a\nb" * 70_000)
    assert len(str(error)) < 400
    assert "\n" not in str(error)


class TestTelling:
    """`tell` is the one writer, and never loses what was known."""

    def test_nothing_told_changes_nothing(self) -> None:
        """It returns the error, as it was."""
        error = full(TruncatedResponseError)
        before = dict(vars(error))
        assert error.tell() is error
        assert vars(error) == before
        assert error.message == "what came"

    def test_all_of_it(self) -> None:
        """What was not known is filled in."""
        job = JobResult(id="j-9")
        output = Output(b"picture", "image/png", "a.png")
        attempt = Attempt(1, "ran", 200, None, 0.1)
        error = MalformedResponseError("odd.").tell(
            reason="because",
            attempts=[attempt],
            request_id="r-9",
            job=job,
            outputs=[output],
            bytes_received=7,
            besides=". Given up: enough",
        )
        assert vars(error) == {
            "reason": "because",
            "attempts": (attempt,),
            "request_id": "r-9",
            "fate": "ran",
            "may_have_run": True,
            "job": job,
            "job_id": "j-9",
            "outputs": (output,),
            "bytes_received": 7,
        }
        assert error.message == "odd. Given up: enough"

    def test_what_it_brought_along_stays(self) -> None:
        """The id of its own answer, its own job, the server's own words; and doubt only grows."""
        error = full(JobFailedError).tell(
            reason="mine", request_id="r-2", job=JobResult(id="j-2"), may_have_run=False
        )
        error.tell(reason="later")
        assert (error.request_id, error.job_id, error.reason) == ("r-1", "j-1", "mine")
        assert error.job is not None
        assert error.job.id == "j-1"
        assert error.may_have_run
        assert ConnectError("x").tell(may_have_run=True).may_have_run
        assert not ConnectError("x").tell(may_have_run=False).may_have_run

    def test_an_id_alone(self) -> None:
        """Where a job's id is known and its result is not; the id that is told counts."""
        assert ConnectError("x").tell(job_id="j-3").job_id == "j-3"
        assert full(JobFailedError).tell(job_id="j-3").job_id == "j-3"

    def test_a_secret_goes(self) -> None:
        """The message is the only text that could hold one."""
        error = BadRequestError("bad: abc", status_code=400).tell(secret="abc")
        assert error.message == "bad: [token]"
        assert "abc" not in repr(error)


def test_what_some_errors_know_besides() -> None:
    """Stage, queue, status: each where it means something, and pickled with the rest."""
    late = DeadlineExceededError("x", stage="refused", retry_after=3.0, may_have_run=True)
    crowded = QueueFullError("x", queued=7, retry_after=2.0)
    failed = JobFailedError("x", status_code=400, reason="no face")
    for error in (late, crowded, failed):
        again = pickle.loads(pickle.dumps(error))
        assert vars(again) == vars(error)
    assert (late.stage, late.retry_after, late.may_have_run) == ("refused", 3.0, True)
    assert (crowded.queued, crowded.retry_after, crowded.may_have_run) == (7, 2.0, False)
    assert (failed.status_code, failed.reason) == (400, "no face")
    assert DeadlineExceededError("x").stage is None


def test_nothing_a_terminal_obeys_is_in_the_text() -> None:
    """A request id or a job id with an escape sequence shows without it."""
    error = TruncatedResponseError("x", request_id="a\x1b[31mb", job=JobResult(id="\x9b2Jc"))
    assert str(error).isprintable()


def test_a_refused_job_is_both() -> None:
    """Who catches failed jobs catches it, and who catches bad requests does too."""
    error = full(JobRefusedError)
    assert isinstance(error, JobFailedError)
    assert isinstance(error, BadRequestError)
    assert (error.status_code, error.body, error.fate) == (418, b"\x00body", "refused")
