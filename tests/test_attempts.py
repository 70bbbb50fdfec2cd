"""What one job has been through: counts, clocks and what follows, with the clock passed in."""

from __future__ import annotations

import pickle
from typing import get_args

import pytest

from prodia_async._attempts import Attempt, Attempts, Fate, Timing

FATES: tuple[Fate, ...] = get_args(Fate)


def through(*fates: Fate, began: float = 0.0) -> Attempts:
    """A job whose attempts took 1 s each, with 1 s between them."""
    attempts = Attempts(began)
    for number, fate in enumerate(fates):
        attempts.start(began + 2 * number)
        attempts.end(began + 2 * number + 1, fate)
    return attempts


def test_one_that_has_not_begun() -> None:
    """Nothing is known, nothing is under way, and the first is number 1."""
    attempts = Attempts(5.0)
    assert (len(attempts), attempts.all, attempts.last, attempts.number) == (0, (), None, 1)
    assert not attempts.is_under_way
    assert not attempts.may_have_run
    assert not attempts.frees_a_worker
    assert attempts.spent(7.0) == Timing(queued=2.0, backoff=0.0, running=0.0, total=2.0)


def test_one_under_way() -> None:
    """Between start and end, and no longer."""
    attempts = Attempts(0.0)
    attempts.start(1.0)
    assert attempts.is_under_way
    attempts.end(3.5, "succeeded")
    assert not attempts.is_under_way
    assert attempts.number == 2


def test_an_attempt_keeps_what_is_told() -> None:
    """In the order of its fields; the seconds are reckoned; it pickles."""
    attempts = Attempts(0.0)
    attempts.start(1.0)
    attempt = attempts.end(
        1.5, "not run", status_code=429, request_id="r", retry_after=2.0, error="CapacityError"
    )
    assert attempt == Attempt(1, "not run", 429, "r", 0.5, 2.0, 0.0, "CapacityError")
    assert attempts.all == (attempt,)
    assert attempts.last is attempt
    assert pickle.loads(pickle.dumps(attempt)) == attempt


@pytest.mark.parametrize("fate", FATES)
def test_who_frees_a_worker(fate: Fate) -> None:
    """Success does, and so does a damaged answer: a worker ran it. Nothing else says so."""
    for before in ("server fault", "succeeded"):
        attempts = through("ran", before, fate)
        assert attempts.frees_a_worker is (fate in {"succeeded", "ran"})


@pytest.mark.parametrize("fate", FATES)
def test_who_may_have_run(fate: Fate) -> None:
    """Any attempt, not just the last: a refusal afterwards takes no doubt back."""
    doubtful = fate in {"succeeded", "server fault", "uncertain", "ran"}
    assert through(fate).may_have_run is doubtful
    assert through(fate, "not run").may_have_run is doubtful
    assert through("refused", fate).may_have_run is doubtful


@pytest.mark.parametrize("fate", FATES)
def test_what_is_a_fault(fate: Fate) -> None:
    """All but success, and refusals for capacity, which are normal."""
    attempts = through("undelivered", fate)
    assert attempts.faults == 1 + (fate not in {"succeeded", "not run"})
    assert attempts.refusals == (fate == "not run")


def test_every_wait_after_a_fault_is_backoff() -> None:
    """Two waits of 1 s and 2 s are 3 s."""
    attempts = Attempts(0.0)
    for wait in (1.0, 2.0):
        attempts.start(0.0)
        attempts.end(0.0, "undelivered")
        attempts.waits(wait)
    assert attempts.spent(5.0) == Timing(queued=2.0, backoff=3.0, running=0.0, total=5.0)


def test_refusals_count_in_a_row() -> None:
    """Anything else begins anew."""
    assert through("not run", "not run").refusals == 2
    assert through("not run", "not run", "undelivered").refusals == 0
    assert through("not run", "server fault", "not run").refusals == 1


@pytest.mark.parametrize(
    ("fates", "since"),
    [
        (["not run"], 100.0),  # since it began: it waited in line before
        (["not run", "not run"], 100.0),
        (["undelivered", "not run"], 100.0),  # the server did nothing with it
        (["server fault", "not run"], 101.0),
        (["not run", "server fault", "not run"], 103.0),
        (["uncertain"], 101.0),
    ],
)
def test_since_when_it_is_refused(fates: list[Fate], since: float) -> None:
    """From its beginning, or since the server last did something with it."""
    assert through(*fates, began=100.0).refused_since == since


@pytest.mark.parametrize(
    ("accepted", "since"), [(float("-inf"), 100.0), (99.0, 100.0), (101.5, 101.5)]
)
def test_others_that_are_accepted_begin_it_anew(accepted: float, since: float) -> None:
    """While the server takes jobs of the type, it is not so that it takes none."""
    attempts = Attempts(100.0)
    attempts.start(101.0)
    attempts.end(102.0, "not run", accepted=accepted)
    assert attempts.refused_since == since
    attempts.start(103.0)
    attempts.end(104.0, "not run", accepted=float("-inf"))
    assert attempts.refused_since == since


def test_waits_are_noted_on_the_attempt_they_come_after() -> None:
    """The last one; the others stay as they are."""
    attempts = through("not run", "server fault")
    assert attempts.waits(1.5).wait == 1.5
    assert [each.wait for each in attempts.all] == [0.0, 1.5]


def test_where_the_time_goes() -> None:
    """A wait after a refusal is spent in line, any other is backoff; all add up."""
    attempts = Attempts(10.0)
    attempts.start(11.0)
    attempts.end(11.5, "not run")
    attempts.waits(2.0)
    attempts.start(14.0)
    attempts.end(17.0, "server fault")
    attempts.waits(4.0)
    attempts.start(21.0)
    attempts.end(22.0, "succeeded")
    spent = attempts.spent(22.0)
    assert spent == Timing(queued=3.5, backoff=4.0, running=4.5, total=12.0)
    assert spent.queued + spent.backoff + spent.running == spent.total


def test_a_wait_that_was_cut_short() -> None:
    """No time is negative."""
    attempts = Attempts(0.0)
    attempts.start(0.0)
    attempts.end(1.0, "server fault")
    attempts.waits(60.0)
    assert attempts.spent(2.0).queued == 0.0


def test_what_was_drawn() -> None:
    """Only what the budget paid for is given back to it."""
    attempts = through("server fault")
    attempts.waits(1.0, drawn=True)
    attempts.waits(1.0)
    assert attempts.drawn == 1


@pytest.mark.parametrize(
    ("attempt", "text"),
    [
        (Attempt(1, "not run", 429, None, 0.1, wait=2.04), "429 then 2.0 s"),
        (Attempt(1, "undelivered", None, None, 0.1, error="ConnectError"), "ConnectError"),
        (Attempt(1, "refused", None, None, 0.1), "refused"),
    ],
)
def test_attempts_read_shortly(attempt: Attempt, text: str) -> None:
    """Status, else error, else fate; and the wait after it."""
    assert str(attempt) == text
