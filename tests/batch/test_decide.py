"""Every decision of a batch, asked for without a loop, a server or a disk."""

from __future__ import annotations

from typing import Any

import pytest

from prodia_async import (
    APIStatusError,
    APITimeoutError,
    Attempt,
    AuthenticationError,
    BadRequestError,
    CapacityError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    InvalidRequestError,
    JobFailedError,
    JobNotFoundError,
    JobRefusedError,
    MalformedResponseError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ProdiaError,
    QueueFullError,
    ServerError,
    TruncatedResponseError,
)
from prodia_async.batch._decide import (
    DOUBTS,
    NANO,
    PATIENCE_SECONDS,
    PROBE_MAX_SECONDS,
    PROBE_SECONDS,
    TAIL_SECONDS,
    Outage,
    Overlap,
    Purse,
    State,
    after_error,
    ask_again_in,
    differences,
    first_to_collect,
    flat,
    is_in_doubt,
    may_go_again,
    most_unnamed,
    on_lookup,
    paid_attempts,
    to_nano,
    wants_async,
)


@pytest.mark.parametrize(
    ("job_id", "is_marked", "was_sent", "are_exact", "doubt"),
    [
        (None, False, False, True, False),
        (None, False, False, False, False),
        (None, True, False, True, True),  # the record is some milliseconds late
        (None, True, True, False, True),
        (None, False, True, True, False),  # it was refused since
        (None, False, True, False, True),  # what told so is gone
        ("an id", True, True, False, False),  # it is collected
    ],
)
def test_what_is_in_doubt(
    job_id: str | None, is_marked: bool, was_sent: bool, are_exact: bool, doubt: bool
) -> None:
    """What was sent and not refused, and has no id to ask for it with."""
    found = is_in_doubt(job_id=job_id, is_marked=is_marked, was_sent=was_sent, are_exact=are_exact)
    assert found is doubt


LOOKUPS = [
    # state, on_doubt, retry_failed, what becomes of the row
    (None, "retry", False, "run"),
    (None, "hold", True, "run"),
    (State.DONE, "retry", True, "done"),
    (State.DUPLICATE, "retry", True, "done"),
    (State.FAILED, "retry", False, "failed"),
    (State.FAILED, "hold", True, "run"),
    (State.IN_DOUBT, "retry", False, "run again"),
    (State.IN_DOUBT, "hold", False, "in doubt"),
    (State.IN_DOUBT, "hold", True, "in doubt"),
    (State.INVALID, "retry", True, "invalid"),
]


@pytest.mark.parametrize(("state", "on_doubt", "retry_failed", "step"), LOOKUPS)
def test_what_becomes_of_a_row(state: Any, on_doubt: Any, retry_failed: bool, step: str) -> None:
    """What is done is never run; what may be paid runs again only if that is wanted."""
    assert on_lookup(state, on_doubt=on_doubt, retry_failed=retry_failed) == step


def status(kind: Any, code: int) -> ProdiaError:
    error = kind("no", status_code=code)
    assert isinstance(error, ProdiaError)
    return error


VERDICTS = [
    (status(AuthenticationError, 401), "refused"),
    (status(PermissionDeniedError, 403), "refused"),
    (status(CapacityError, 429), "trouble"),
    (status(ServerError, 502), "trouble"),
    (status(APIStatusError, 402), "unpaid"),
    (status(JobNotFoundError, 404), "unserved"),
    (status(APIStatusError, 405), "unserved"),
    (status(APIStatusError, 407), "refused"),
    (status(APIStatusError, 410), "unserved"),
    (status(APIStatusError, 409), "failed"),
    (status(PayloadTooLargeError, 413), "failed"),
    (status(APIStatusError, 422), "failed"),
    (status(JobRefusedError, 404), "failed"),
    (APIStatusError("to a login page", status_code=302, may_have_run=True), "in doubt"),
    (ConnectError("no"), "trouble"),
    (QueueFullError("no"), "trouble"),
    (ConnectionLostError("no"), "in doubt"),
    (APITimeoutError("no"), "in doubt"),
    (TruncatedResponseError("no"), "in doubt"),
    (MalformedResponseError("no"), "in doubt"),
    (DeadlineExceededError("no", may_have_run=True), "in doubt"),
    (DeadlineExceededError("no", may_have_run=False), "trouble"),
    (JobFailedError("no"), "failed"),
    (status(BadRequestError, 400), "failed"),
    (InvalidRequestError("no"), "failed"),
    (ProdiaError("no", may_have_run=True), "in doubt"),
    (ValueError("a bug in an input's iterator"), "failed"),
]


@pytest.mark.parametrize(("error", "verdict"), VERDICTS, ids=lambda each: type(each).__name__)
def test_what_an_error_means(error: Exception, verdict: str) -> None:
    """Whether the job may have run decides, and whose fault it was."""
    assert after_error(error) == verdict


def attempt(fate: Any) -> Attempt:
    return Attempt(1, fate, None, None, 0.1)


@pytest.mark.parametrize(
    ("fates", "may_have_run", "count"),
    [
        ([], False, 0),
        ([], True, 1),
        (["not run", "undelivered", "refused"], False, 0),
        (["server fault"] * 4, True, 4),
        (["not run", "uncertain"], True, 1),
        (["ran"], True, 1),
        (["uncertain", "refused", "ran"], True, 2),
    ],
)
def test_how_often_an_error_may_have_been_paid(
    fates: list[str], may_have_run: bool, count: int
) -> None:
    """Each attempt that reached a worker, and at least one if the job may have run."""
    attempts = [attempt(fate) for fate in fates]
    error = ConnectionLostError("no", attempts=attempts, may_have_run=may_have_run)
    assert paid_attempts(error) == count
    assert paid_attempts(ValueError()) == 0


@pytest.mark.parametrize(
    ("doubts", "on_doubt", "is_retried", "may"),
    [
        (0, "hold", False, True),
        (0, "retry", True, True),
        (1, "retry", False, True),
        (2, "retry", False, True),
        (1, "retry", True, False),
        (1, "hold", False, False),
    ],
)
def test_what_may_be_paid_goes_again_once(
    doubts: int, on_doubt: Any, is_retried: bool, may: bool
) -> None:
    """Only where that is wanted, and never a second time; what cannot be paid goes as often."""
    assert may_go_again(doubts, on_doubt=on_doubt, is_retried=is_retried) is may


def test_when_a_job_with_an_id_is_asked_about_anew() -> None:
    """Three times; twice if it is denied while its result must be there; never once it is not."""
    for left in (1.0, 0.0, -1.0):
        waits = [ask_again_in(n, is_denied=False, left=left) for n in range(5)]
        assert waits == [2.0, 4.0, 8.0, None, None]
    assert [ask_again_in(n, is_denied=True, left=0.1) for n in range(4)] == [2.0, 4.0, None, None]
    assert ask_again_in(0, is_denied=True, left=0.0) is None


def test_money_counts_told_flying_and_doubtful() -> None:
    """One more job is affordable only if all that may have been spent stays within the limit."""
    purse = Purse(1.0, told=to_nano(0.4), doubtful=to_nano(0.1))
    price = to_nano(0.25)
    assert purse.affords(price)
    purse.started(price)
    assert purse.affords(price)  # 0.4 + 0.1 + 0.25 + 0.25 is the limit, to the last digit
    assert not purse.affords(price + 1)
    purse.started(price)
    assert not purse.affords(1)
    purse.ended(price, told=to_nano(0.05))
    assert purse.affords(to_nano(0.2))
    assert not purse.affords(to_nano(0.2) + 1)
    purse.ended(price, doubtful=price)
    assert (purse.told, purse.doubtful, purse.in_flight) == (
        to_nano(0.45), to_nano(0.35), 0,
    )  # fmt: skip
    assert Purse(None, told=10 * NANO).affords(NANO)
    assert not Purse(0.0).affords(1)
    assert Purse(0.0).affords(0)
    purse.started(to_nano(0.125))
    assert repr(purse) == "<Purse 0.45 told, 0.125 in flight>"


def test_a_price_that_was_told_beats_a_table() -> None:
    """The highest of its type counts, so that the limit holds; nobody's guess is ``None``."""
    purse = Purse(1.0)
    assert purse.expected("a", None) is None
    assert purse.expected("a", 0.03) == to_nano(0.03)
    assert purse.known("a") is None
    purse.seen("a", to_nano(0.02))
    purse.seen("a", to_nano(0.01))
    assert purse.expected("a", 0.03) == purse.known("a") == to_nano(0.02)
    assert purse.expected("b", None) is None
    purse.seen("gratis", 0)
    assert purse.expected("gratis", 0.03) == 0


def test_a_million_small_amounts_stay_exact() -> None:
    """Tenths of a cent, added up as floats, would be off by then."""
    assert sum([to_nano(0.0025)] * 1_000_000) == 2500 * NANO


# A dead API.


def test_one_row_in_trouble_is_no_outage() -> None:
    """Two are not either; the third in a row is, and a success in between begins anew."""
    outage = Outage()
    assert (outage.since, outage.reason) == (None, "")
    assert not outage.troubled(0.0, "trouble", "502")
    assert not outage.troubled(0.0, "trouble", "502")
    assert not outage.succeeded()
    assert not outage.troubled(1.0, "trouble", "502")
    assert not outage.troubled(1.0, "trouble", "502")
    assert outage.may_start(1.0)
    assert outage.troubled(1.0, "trouble", "503")
    assert outage.since == 1.0
    assert outage.reason == "503"
    assert "since 1.0" in repr(outage)


def out(at: float = 0.0, verdict: Any = "trouble") -> Outage:
    outage = Outage()
    for _ in range(3):
        outage.troubled(at, verdict, "why")
    return outage


def test_one_row_at_a_time_asks_whether_it_is_back() -> None:
    """First after a second, then after twice as long each time, up to a bound."""
    outage, now, wait = out(), 0.0, PROBE_SECONDS
    for _ in range(8):
        assert not outage.may_start(now + wait - 0.01)
        now += wait
        assert outage.may_start(now)
        assert not outage.may_start(now + 1000)
        assert outage.troubled(now, "trouble", "still")
        wait = min(2 * wait, PROBE_MAX_SECONDS)
    assert outage.may_start(now + wait)
    assert outage.succeeded()
    assert outage.since is None
    assert all(outage.may_start(now) for _ in range(3))
    for _ in range(3):
        outage.troubled(now, "trouble", "again")
    assert not outage.may_start(now + PROBE_SECONDS - 0.01)
    assert outage.may_start(now + PROBE_SECONDS)


def test_a_probe_that_was_not_sent_is_given_back() -> None:
    """Else nobody would ever ask again."""
    outage = out()
    assert outage.may_start(1.0)
    outage.not_sent()
    assert outage.may_start(1.0)


def test_a_probe_that_told_nothing_is_followed_by_another() -> None:
    """It ended without a word on whether the API is back; after a wait the next one asks."""
    outage = out()
    outage.asked_in_vain(0.5)  # nobody asks yet: the first probe is not put off by it
    assert outage.may_start(PROBE_SECONDS)
    outage.asked_in_vain(5.0)
    assert not outage.may_start(5.0 + PROBE_SECONDS - 0.01)
    assert outage.may_start(5.0 + PROBE_SECONDS)
    assert outage.troubled(7.0, "trouble", "still")
    outage.asked_in_vain(7.0)  # its end has been told already
    assert not outage.may_start(7.0 + 2 * PROBE_SECONDS - 0.01)
    assert outage.may_start(7.0 + 2 * PROBE_SECONDS)


def test_what_was_in_flight_when_it_began_is_no_probe() -> None:
    """Its trouble does not put the first probe off."""
    outage = out()
    outage.troubled(0.9, "trouble", "late")
    assert outage.may_start(PROBE_SECONDS)


def test_waiting_has_an_end() -> None:
    """A refused credential wants a person at once; a dead API after some minutes."""
    assert Outage().given_up(1e9) is None
    assert "credential is refused" in str(out(verdict="refused").given_up(0.0))
    outage = out(at=100.0)
    assert outage.given_up(100.0 + PATIENCE_SECONDS - 0.1) is None
    assert "has not answered for 600 s (why)" in str(outage.given_up(100.0 + PATIENCE_SECONDS))
    assert not Outage().is_their_own(1e9)
    assert not outage.is_their_own(100.0 + TAIL_SECONDS - 0.1)
    assert outage.is_their_own(100.0 + TAIL_SECONDS)
    mixed = Outage()
    for verdict in ("refused", "trouble", "refused"):
        mixed.troubled(0.0, verdict, "why")
    assert mixed.given_up(1.0) is None
    mixed.succeeded()
    for _ in range(3):
        mixed.troubled(0.0, "refused", "why")
    assert mixed.given_up(0.0) is not None


def test_no_address_and_no_money_want_a_person_who_set_it_up() -> None:
    """At once where nothing has worked; later it may come back, and asking is free."""
    why = str(out(verdict="unserved").given_up(0.0))
    assert why.startswith("nothing is served here (why): look at the address")
    assert why.endswith("Run it again after that: it goes on with what is left")
    assert "without payment (why): look at what is left" in str(out(verdict="unpaid").given_up(0.0))
    for verdict in ("unserved", "unpaid"):
        outage = Outage()
        assert not outage.has_worked
        outage.succeeded()
        assert outage.has_worked
        for _ in range(3):
            outage.troubled(0.0, verdict, "no")
        assert not outage.needs_a_person()
        assert outage.given_up(PATIENCE_SECONDS - 0.1) is None
        assert "(no): look at" in str(outage.given_up(PATIENCE_SECONDS))
        assert outage.is_their_own(PATIENCE_SECONDS) == (verdict == "unserved")
    one = Outage()
    one.troubled(0.0, "refused", "401")
    assert one.given_up(0.0) is None  # one row is no outage
    assert one.needs_a_person()
    assert one.wanted().startswith("the credential is refused (401)")
    assert out().wanted() == (
        "the API has not answered (why). Run it again after that: it goes on with what is left"
    )
    assert not Outage().needs_a_person()


def test_answers_that_are_lost_stop_the_list_later() -> None:
    """Five in a row, with no success between; fewer beside other trouble."""
    outage = Outage()
    for _ in range(DOUBTS - 1):
        assert not outage.troubled(0.0, "in doubt", "cut")
    outage.succeeded()
    for _ in range(DOUBTS - 1):
        assert not outage.troubled(0.0, "in doubt", "cut")
    assert outage.troubled(0.0, "in doubt", "cut")
    assert outage.given_up(PATIENCE_SECONDS - 0.1) is None
    why = str(outage.given_up(PATIENCE_SECONDS))
    assert why.startswith("no answer has come whole for 600 s (cut), and each may have been paid")
    mixed = Outage()
    assert not mixed.troubled(0.0, "in doubt", "cut")
    assert not mixed.troubled(0.0, "in doubt", "cut")
    assert mixed.troubled(0.0, "trouble", "502")
    assert "has not answered" in str(mixed.given_up(PATIENCE_SECONDS))


def test_asking_that_may_be_paid_is_seldom() -> None:
    """Each wait is twice the last, with no bound: nine are paid at most before it is given up."""
    outage, now, asked = Outage(), 0.0, 0
    for _ in range(DOUBTS):
        outage.troubled(now, "in doubt", "cut")
    while outage.given_up(now) is None:
        now += 0.5
        if outage.may_start(now):
            asked += 1
            outage.troubled(now, "in doubt", "cut")
    assert asked == 9


# Left with the server.


def test_as_few_submissions_at_once_as_keep_all_slots_busy() -> None:
    """Fifty slots, half a second each: a hundred come a second, and each takes its time."""
    assert most_unnamed(50, answer=None, cycle=0.5) == 1
    assert most_unnamed(50, answer=0.1, cycle=None) == 1
    assert most_unnamed(50, answer=0.1, cycle=0.0) == 1
    assert most_unnamed(50, answer=0.006, cycle=0.5) == 1
    assert most_unnamed(50, answer=0.0068, cycle=0.5) == 2
    assert most_unnamed(50, answer=0.1, cycle=0.5) == 15
    assert most_unnamed(50, answer=0.1, cycle=20.0) == 1
    assert most_unnamed(50, answer=1.0, cycle=0.5) == 50
    assert most_unnamed(1, answer=1.0, cycle=0.5) == 1


# A changed run.

OLD = {"type": "x.v1", "config": {"prompt": "a", "steps": 4}, "accept": "image/webp"}


def test_rows_that_moved_are_the_same_run() -> None:
    """One row that is known, wherever, says that the file was edited and not swapped."""
    new = {**OLD, "type": "y.v1"}
    assert differences(Overlap(1, [(OLD, new)])) == ()
    assert differences(Overlap(0, [])) == ()


def test_what_changed_everywhere_is_told() -> None:
    """Type, format, and each setting; not the prompts that differ only here and there."""
    other = {**OLD, "config": {"prompt": "b", "steps": 4}}
    pairs = [(OLD, {**OLD, "type": "y.v1"}), (other, {**other, "type": "y.v1"})]
    assert differences(Overlap(0, pairs)) == ("type was 'x.v1' and is 'y.v1'",)
    pairs = [(OLD, {"type": "x.v1", "config": {"prompt": "a", "steps": 8}})]
    assert differences(Overlap(0, pairs)) == (
        "accept was 'image/webp' and is None",
        "config.steps was 4 and is 8",
    )
    pairs = [(OLD, other), (other, OLD)]
    (sentence,) = differences(Overlap(0, pairs))
    assert sentence == "config.prompt is another in every row: 'a' and now 'b'"
    mixed = [(OLD, {**OLD, "type": "y.v1"}), (OLD, other)]
    assert differences(Overlap(0, mixed)) == ("none of the first 2 rows is known to this folder",)


def test_a_line_flat() -> None:
    """A config that is no mapping, and what is absent, have no fields; an id is no setting."""
    assert flat({"id": "x", "type": "t", "config": {"a": None}, "accept": None}) == {
        "type": "t",
        "config.a": None,
    }
    assert flat({"type": "t", "config": [1]}) == {"type": "t"}


# Sync or async.

NOT_PERMITTED = "the type does not permit async"
UNKNOWN = "it is not known whether the type permits async"
CHEAP = "jobs of the type are cheap and quick"
DEAR = "a job costs 0.02 dollars or more"
SLOW = "a job takes 10 s or more"

WAYS = [
    ("sync", True, 1.0, 100.0, False, "sync was asked for"),
    ("async", True, None, None, True, "async was asked for"),
    ("async", None, None, None, True, "async was asked for"),
    ("async", False, 1.0, 100.0, False, NOT_PERMITTED),
    ("auto", None, 1.0, 100.0, False, UNKNOWN),
    ("auto", False, 1.0, 100.0, False, NOT_PERMITTED),
    ("auto", True, None, None, False, CHEAP),
    ("auto", True, 0.0199, 9.9, False, CHEAP),
    ("auto", True, 0.02, None, True, DEAR),
    ("auto", True, 0.02, 10.0, True, DEAR),
    ("auto", True, None, 10.0, True, SLOW),
]


@pytest.mark.parametrize(("submit", "permits", "dollars", "seconds", "way", "why"), WAYS)
def test_which_way_a_type_goes(
    submit: Any, permits: Any, dollars: Any, seconds: Any, *, way: bool, why: str
) -> None:
    """Async where it is asked for and not forbidden, or known to be permitted and worth it."""
    assert wants_async(submit, permits=permits, dollars=dollars, seconds=seconds) == (way, why)


def test_what_expires_first_is_collected_first() -> None:
    """What seems to have expired is asked for as well, last: a clock may be wrong."""
    assert first_to_collect([(1, 50.0), (2, -3.0), (3, 10.0), (4, -100.0)]) == [3, 1, 4, 2]
    assert first_to_collect([(1, 0.0), (2, 0.5)]) == [2, 1]
