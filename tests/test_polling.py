"""Whether a free question is asked again, and after how long: plain decisions on a passed clock."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import on_both_loops

from prodia_async import (
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
    MalformedResponseError,
    PermissionDeniedError,
    ProdiaError,
    ResponseTooLargeError,
    RetryPolicy,
    ServerError,
    TruncatedResponseError,
    _waiting,
)
from prodia_async import _polling as polling_module
from prodia_async._attempts import Attempt
from prodia_async._polling import (
    DOUBT_SECONDS,
    GRACE,
    MAX_ATTEMPTS,
    MIN_WAIT,
    QUESTION_SECONDS,
    EndedJobs,
    Pace,
    Patience,
    ask,
    count,
    free,
)
from prodia_async._scheduler import Scheduler
from prodia_async._vocabulary import Terms


def patience(backoff_initial: float = 0.5, **options: Any) -> Patience:
    retry = RetryPolicy(backoff_initial=backoff_initial, backoff_max=8.0)
    defaults: dict[str, Any] = {"until": 300.0, "known": True}
    return Patience(retry, **(defaults | options))


def status(kind: type[Any], code: int, **more: Any) -> ProdiaError:
    error: ProdiaError = kind(f"{code}", status_code=code, **more)
    return error


def zero() -> float:
    return 0.0


FAULTS = [
    ConnectError("x"), ConnectionLostError("x"), APITimeoutError("x"), status(ServerError, 503),
    status(CapacityError, 429),
]  # fmt: skip
ODD = [MalformedResponseError("x"), TruncatedResponseError("x")]
DENIALS = [
    status(JobNotFoundError, 404), status(AuthenticationError, 401),
    status(PermissionDeniedError, 403), status(BadRequestError, 400),
]  # fmt: skip


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_a_fault_is_asked_again_until_the_result_must_be_gone(error: ProdiaError) -> None:
    """Not a number ends it but time, and the last question is asked as late as can be."""
    patient = patience()
    now, waits = 0.0, []
    while (verdict := patient.decide(error, now, zero)).wait is not None:
        waits.append(verdict.wait)
        now += verdict.wait
    assert waits[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert now == 300.0
    assert len(waits) > 30
    assert verdict.reason == (
        f"it was asked {len(waits) + 1} times in 300 s, and the result must be gone by now"
    )


def test_the_random_part_takes_off_up_to_half() -> None:
    """So a thousand jobs do not ask in step."""
    assert patience().decide(FAULTS[0], 0.0, lambda: 1.0).wait == 0.25
    assert 0.25 <= (patience().decide(FAULTS[0], 0.0).wait or 0.0) <= 0.5


def test_a_policy_without_waits_hammers_nobody() -> None:
    """Zero seconds of backoff are a hundredth."""
    assert patience(backoff_initial=0.0).decide(FAULTS[0], 0.0, zero).wait == MIN_WAIT
    many = patience(until=1e9)
    for _ in range(2000):
        many.decide(FAULTS[0], 0.0, zero)  # 2.0 ** 1024 would be an error


def test_retry_after_is_a_floor_until_the_result_is_gone() -> None:
    """It is waited out with a random part on top; but once more is asked before it is too late."""
    busy = status(CapacityError, 429, retry_after=20.0)
    assert patience().decide(busy, 0.0, zero).wait == 20.0
    assert patience().decide(busy, 0.0, lambda: 1.0).wait == 25.0
    assert patience().decide(status(ServerError, 503, retry_after=0.1), 0.0, zero).wait == 0.5
    patient = patience()
    hour = status(ServerError, 503, retry_after=3600.0)
    assert patient.decide(hour, 10.0, zero).wait == 290.0
    assert patient.decide(hour, 300.0, zero).wait is None


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
def test_an_answer_without_sense_passes_or_is_meant(error: ProdiaError, known: bool) -> None:
    """A proxy's page passes; one that comes time and again is the server's own."""
    patient = patience(known=known)
    for number in range(GRACE):
        assert patient.decide(error, number * 1.0, zero).wait is not None
    assert patient.decide(error, 9.0, zero) == (None, f"it was asked {GRACE + 1} times in 9 s")


def test_in_a_row_means_in_a_row() -> None:
    """What comes between says that there is more wrong than the answer."""
    patient = patience()
    for _ in range(4):
        for error in [ODD[0]] * GRACE + [DENIALS[0]] * GRACE:
            assert patient.decide(error, 0.0, zero).wait is not None
        assert patient.decide(FAULTS[3], 0.0, zero).wait is not None


@pytest.mark.parametrize("error", DENIALS, ids=lambda error: type(error).__name__)
def test_a_denial_is_doubted_where_the_server_knew_the_job(error: ProdiaError) -> None:
    """So many times and so long, whichever is more; nobody else is made to wait."""
    assert patience(known=False).decide(error, 0.0, zero) == (None, "")
    fast = patience()
    for number in range(GRACE * 2):
        assert fast.decide(error, 10.0 + number * 0.01, zero).wait is not None
    assert fast.decide(error, 10.0 + DOUBT_SECONDS, zero).wait is None
    slow = patience()
    for number in range(GRACE):
        assert slow.decide(error, number * 10.0, zero).wait is not None
    verdict = slow.decide(error, GRACE * 10.0, zero)
    assert verdict == (None, f"it was asked {GRACE + 1} times in {GRACE * 10} s")


def test_what_will_not_change_is_believed_at_once() -> None:
    """A failure, a size, bad input, and what is no status of an answer."""
    for error in (
        ResponseTooLargeError("x"), JobFailedError("x"), InvalidRequestError("x"),
        DeadlineExceededError("x"),
    ):  # fmt: skip
        assert patience().decide(error, 0.0, zero) == (None, "")


def test_the_pace_of_looks() -> None:
    """Each wait is longer than the last, up to a most, which a longer first one lifts."""
    pace = Pace(1.0, growth=1.25, longest=1.5, below=0.2, above=0.2)
    waits = [pace.next(lambda: 0.5) for _ in range(4)]
    assert waits == pytest.approx([1.0, 1.25, 1.5, 1.5])
    assert Pace(30.0, growth=2.0, longest=10.0, below=0.0, above=0.25).next(zero) == 30.0
    ends = [Pace(1.0, growth=1.0, longest=1.0, below=0.2, above=0.3).next(f) for f in (zero, _one)]
    assert ends == pytest.approx([0.8, 1.3])
    assert 0.8 <= Pace(1.0, growth=1.0, longest=1.0, below=0.2, above=0.2).next() <= 1.2


def _one() -> float:
    return 1.0


def test_an_end_is_news_once() -> None:
    """And what is remembered is bounded."""
    ended = EndedJobs()
    assert [ended.add("a"), ended.add("a"), ended.add("b")] == [True, False, True]
    for number in range(100_000):
        ended.add(f"{number}")
    assert ended.add("a")
    assert not ended.add("99999")


def test_how_many_ends_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there is memory for; then the oldest is forgotten, and only that."""
    monkeypatch.setattr(polling_module, "MAX_ENDED", 3)
    ended = EndedJobs()
    assert [ended.add(each) for each in "abcabc"] == [True] * 3 + [False] * 3
    assert [ended.add(each) for each in "dbcda"] == [True, False, False, False, True]


class FakeEngine:
    closed = False

    def __init__(self) -> None:
        self.scheduler = Scheduler()

    def session(self) -> Any:
        return SimpleNamespace(scheduler=self.scheduler)


async def run(answers: list[ProdiaError | str], **options: Any) -> tuple[Any, list[ProdiaError]]:
    noted: list[ProdiaError] = []
    engine: Any = options.pop("engine", FakeEngine())

    async def question() -> str:
        answer = answers.pop(0)
        if isinstance(answer, ProdiaError):
            raise answer
        return answer

    until = _waiting.current_time() + options.pop("lasts", 300.0)
    patient = patience(backoff_initial=0.0, until=until, **options)
    try:
        return await ask(question, patient, about="x", engine=engine, note=noted.append), noted
    except ProdiaError as error:
        return error, noted


@on_both_loops
async def test_asked_until_answered(caplog: pytest.LogCaptureFixture) -> None:
    """Every error is noted and logged in one line, and the answer returned."""
    caplog.set_level("INFO", "prodia_async")
    answer, noted = await run([FAULTS[0], FAULTS[3], "good"])
    assert (answer, noted) == ("good", [FAULTS[0], FAULTS[3]])
    assert caplog.messages == [
        "x: ConnectError; it is asked again in 0.0 s", "x: ServerError; it is asked again in 0.0 s",
    ]  # fmt: skip


@on_both_loops
async def test_the_last_error_has_the_attempts_of_all() -> None:
    """And says how often it was asked, and over what time."""
    attempt = Attempt(1, "server fault", 503, None, 0.1)

    def fault() -> ProdiaError:
        return status(ServerError, 503, attempts=(attempt,))

    error, noted = await run([fault() for _ in range(MAX_ATTEMPTS + 50)], lasts=-1.0)
    assert (error, len(error.attempts)) == (noted[-1], 1)
    assert "it was asked once in 0 s, and the result must be gone" in str(error)
    error, _ = await run([*(fault() for _ in range(2)), InvalidRequestError("no")])
    assert (str(error.message), len(error.attempts)) == ("no", 2)


@on_both_loops
async def test_only_the_latest_attempts_are_kept() -> None:
    """However long it was asked."""
    attempts = tuple(Attempt(n, "server fault", 503, None, 0.1) for n in range(MAX_ATTEMPTS + 50))
    error, _ = await run([status(ServerError, 503, attempts=attempts), InvalidRequestError("no")])
    assert [each.number for each in error.attempts] == list(range(50, MAX_ATTEMPTS + 50))


@on_both_loops
async def test_a_closed_client_asks_nothing_more() -> None:
    """What would be asked again is raised then."""
    engine = FakeEngine()
    engine.closed = True
    error, _ = await run([ConnectError("closed"), "never"], engine=engine)
    assert error.message == "closed"


def test_a_closed_client_counts_nothing_more() -> None:
    """What its jobs come to then, nobody asks."""
    engine: Any = FakeEngine()
    engine.closed = True
    count(engine, completed=True)  # would look for a session, and there is none


def test_what_is_counted() -> None:
    """A good end, a job that was given up, or else a failure; and a price, if it is one."""
    engine: Any = FakeEngine()
    count(engine, completed=True, dollars=0.5)
    count(engine, cancelled=True, dollars=-7.0)
    count(engine)
    count(engine, dollars=0.25)
    found = engine.scheduler.statistics()
    assert (found.completed, found.cancelled, found.failed, found.dollars) == (1, 1, 2, 0.75)


@pytest.mark.parametrize("error", [ConnectionLostError("x"), MalformedResponseError("x")])
@on_both_loops
async def test_a_question_may_be_asked_again_by_anybody(error: ProdiaError) -> None:
    """What is said of a job that may be paid twice is not said of a question."""
    found, _ = await run([type(error)("x")], lasts=-1.0)
    assert type(found) is type(error)
    assert str(found).endswith("Asking again costs nothing")
    assert "_advice" not in vars(BadRequestError("x", status_code=400))


def test_the_terms_of_a_question() -> None:
    """One attempt outside all bounds, and a silence that is short."""

    async def authorize() -> str:
        return ""

    terms = Terms(
        authorize=authorize, retry=RetryPolicy(), deadline=5.0, timeout=600.0, hook=None, spent=2.0
    )
    asked = free(terms)
    assert (asked.free, asked.counted, asked.deadline, asked.spent) == (True, False, None, 0.0)
    assert asked.timeout == QUESTION_SECONDS
    assert free(replace(terms, timeout=3.0)).timeout == 3.0
    timed = free(terms, deadline=9.0, spent=1.0)
    assert (timed.deadline, timed.spent) == (9.0, 1.0)
