"""Whether to try again and after how long; decisions first, then the loop."""

import asyncio
import gc
import math
import pickle
import weakref
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import pytest
import tenacity
from conftest import on_both_loops
from hypothesis import given, settings
from hypothesis import strategies as st

from prodia_async._attempts import Attempts, Fate
from prodia_async._checks import seconds as check_seconds
from prodia_async._errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    CapacityError,
    ConnectError,
    ConnectionLostError,
    InvalidRequestError,
    JobFailedError,
    JobNotFoundError,
    MalformedResponseError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ProdiaError,
    ServerError,
    TruncatedResponseError,
)
from prodia_async._retry import (
    ABSURD_SECONDS,
    BUDGET_IS_EMPTY,
    Decision,
    RetryBudget,
    RetryPolicy,
    call_state,
    parse_retry_after,
    retrying,
)
from prodia_async._show import shown

NOW = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("0", 0.0),
            ("5", 5.0),
            (" 5 ", 5.0),
            ("1.5", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("007", 7.0),
            ("31622400", ABSURD_SECONDS),
            ("31622401", None),
            ("9" * 35, None),
            ("9" * 5000, None),
            ("-10", None),
            ("+5", None),
            ("1e3", None),
            ("inf", None),
            ("nan", None),
            ("abc", None),
            ("", None),
            (" ", None),
            (".", None),
            ("1.2.3", None),
            ("5s", None),
            ("0x10", None),
            ("1_000", None),
            ("\u0661\u0662", None),
            ("\x00", None),
            ("5, 10", 10.0),
            ("10,5", 10.0),
            ("5, ", 5.0),
            ("5, abc", None),
            ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
            ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0),
            ("Sun Nov  6 08:49:47 1994", 10.0),
            ("Sun, 06 Nov 1994 08:49:27 GMT", 0.0),
            ("Sun, 06 Nov 1994 09:49:47 +0100", 10.0),
            ("Fri, 31 Dec 100000 23:59:59 GMT", None),
            ("Fri, 31 Dec 2099 23:59:59 GMT", None),
            ("Sun, 32 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 +99999999999999", None),
            ("Sun, 06 Nov", None),
        ],
    )
    def test_one_value(self, value: str, seconds: float | None) -> None:
        """Seconds, fractions and all three forms of date; anything else is as good as none."""
        assert parse_retry_after([value], date=DATE) == seconds

    @pytest.mark.parametrize(
        ("values", "seconds"),
        [
            ([], None),
            (["5", "10"], 10.0),
            (["10", "5"], 10.0),
            (["abc", "5"], 5.0),
            (["5", "-10"], 5.0),
            (["5", "Sun, 06 Nov 1994 08:49:47 GMT"], 10.0),
            (["abc", ""], None),
        ],
    )
    def test_of_several_the_largest(self, values: list[str], seconds: float | None) -> None:
        """Two headers: the larger counts, and one that is garbled does not."""
        assert parse_retry_after(values, date=DATE) == seconds

    @pytest.mark.parametrize("off", [timedelta(days=-1), timedelta(0), timedelta(days=1)])
    def test_a_servers_wrong_clock_does_not_matter(self, off: timedelta) -> None:
        """A date is read relative to the answer's own Date."""
        until = format_datetime(NOW + off + timedelta(seconds=7), usegmt=True)
        date = format_datetime(NOW + off, usegmt=True)
        assert parse_retry_after([until], date=date, now=NOW) == 7.0

    @pytest.mark.parametrize("date", [None, "", "garbled", "5"])
    def test_without_a_date_our_clock_has_to_do(self, date: str | None) -> None:
        """And without that there is nothing to go by."""
        until = "Sun, 06 Nov 1994 08:50:07 GMT"
        assert parse_retry_after([until], date=date, now=NOW) == 30.0
        assert parse_retry_after([until], date=date) is None

    @given(
        st.lists(
            st.text()
            | st.text("0123456789 :-+,.GMTSunovJa/")
            | st.from_regex(r"(Sun, )?\d{1,6}[ -](Jan|Feb|xx)[ -]\d{1,8} \d\d:\d\d:\d\d GMT"),
            max_size=3,
        ),
        st.none() | st.text() | st.just(DATE),
    )
    def test_it_never_raises_and_is_never_negative(
        self, values: list[str], date: str | None
    ) -> None:
        """Whatever a server sends, it is a sane number of seconds or nothing."""
        seconds = parse_retry_after(values, date=date, now=NOW)
        assert seconds is None or 0 <= seconds <= ABSURD_SECONDS


FATES: list[tuple[ProdiaError, Fate]] = [
    (CapacityError("x", status_code=429), "not run"),
    (ServerError("x", status_code=500), "server fault"),
    (ConnectError("x"), "undelivered"),
    (ConnectionLostError("x"), "uncertain"),
    (APITimeoutError("x"), "uncertain"),
    (APIConnectionError("x"), "uncertain"),
    (MalformedResponseError("x"), "ran"),
    (TruncatedResponseError("x"), "ran"),
    (JobFailedError("x"), "ran"),
    (BadRequestError("x", status_code=400), "refused"),
    (AuthenticationError("x", status_code=401), "refused"),
    (PermissionDeniedError("x", status_code=403), "refused"),
    (JobNotFoundError("x", status_code=404), "refused"),
    (PayloadTooLargeError("x", status_code=413), "refused"),
    (APIStatusError("x", status_code=302), "refused"),
    (InvalidRequestError("x"), "refused"),
]


@pytest.mark.parametrize(("error", "fate"), FATES, ids=lambda value: type(value).__name__)
def test_fate(error: ProdiaError, fate: Fate) -> None:
    """Each class states what happened to the job."""
    assert error.fate == fate


class TestBudget:
    def test_it_empties_and_refills(self) -> None:
        """A hundred retries empty it; a success after retries gives back what those took."""
        budget = RetryBudget()
        assert [budget.draw() for _ in range(101)] == [True] * 100 + [False]
        assert repr(budget) == "<RetryBudget 0 of 500 tokens>"
        budget.succeeded(retries=0)
        assert budget.tokens == 1.0
        assert not budget.draw()
        budget.succeeded(retries=2)
        assert [budget.draw() for _ in range(3)] == [True, True, False]

    def test_it_never_overflows(self) -> None:
        """A full budget stays full, however well all goes."""
        budget = RetryBudget(capacity=10)
        budget.succeeded(retries=50)
        assert budget.tokens == 10


def history(*fates: Fate, retry_after: float | None = None, at: float = 0.0) -> Attempts:
    """A job that has met these, a second apart, the last one with a Retry-After."""
    attempts = Attempts(at + 1)
    for number, fate in enumerate(fates, 1):
        wish = retry_after if number == len(fates) else None
        attempts.start(at + number)
        attempts.end(at + number, fate, retry_after=wish)
    return attempts


def decide(
    policy: RetryPolicy,
    record: Attempts,
    *,
    now: float | None = None,
    rand: float = 0.0,
    budget: RetryBudget | None = None,
    error: BaseException | None = None,
) -> Decision:
    return policy.decide(
        record,
        budget or RetryBudget(),
        now=float(len(record)) if now is None else now,
        error=error,
        rand=lambda: rand,
    )


UNCERTAIN: list[Fate] = ["uncertain"]
REFUSED: list[Fate] = ["not run"]


class TestDecisions:
    @pytest.mark.parametrize(
        ("fates", "wait"),
        [
            (["not run"], 0.5),
            (["not run"] * 3, 2.0),
            (["not run"] * 50, 8.0),
            (["not run"] * 590, 8.0),
            (["undelivered"], 0.5),
            (["undelivered"] * 3, 2.0),
            (["undelivered"] * 4, None),
            (["server fault"], 0.5),
            (["server fault", "undelivered", "server fault"], 2.0),
            (["server fault"] * 4, None),
            (["not run"] * 9 + ["server fault"], 0.5),
            (["server fault", "not run", "not run"], 1.0),
            (["not run"] * 9 + ["server fault", "not run"], 0.5),
            (["server fault"] * 3 + ["not run"] * 9, 8.0),
            (["server fault"] * 3 + ["not run"] * 9 + ["server fault"], None),
            (["uncertain"], None),
            (["refused"], None),
            (["ran"], None),
        ],
    )
    def test_table(self, fates: list[Fate], wait: float | None) -> None:
        """By default: capacity by time only, faults four times in all, the rest never."""
        assert decide(RetryPolicy(), history(*fates)).wait == wait

    def test_uncertain_on_request(self) -> None:
        """With retry_uncertain it counts and waits as any other fault."""
        policy = RetryPolicy(retry_uncertain=True)
        assert decide(policy, history("uncertain", "server fault", "uncertain")).wait == 2.0
        assert decide(policy, history(*UNCERTAIN * 4)).wait is None
        assert decide(policy, history("ran")).wait is None

    def test_one_attempt_means_no_retry(self) -> None:
        """But a refusal for capacity is no attempt."""
        policy = RetryPolicy(max_attempts=1)
        assert decide(policy, history("server fault")).wait is None
        assert decide(policy, history("not run")).wait == 0.5

    @pytest.mark.parametrize("fate", ["not run", "server fault"])
    @pytest.mark.parametrize(("rand", "wait"), [(0.0, 10.0), (0.5, 11.25), (1 - 2**-53, 12.5)])
    def test_retry_after_is_a_floor(self, fate: Fate, rand: float, wait: float) -> None:
        """Never earlier than asked, at most a quarter later."""
        found = decide(RetryPolicy(), history(fate, retry_after=10.0), rand=rand).wait
        assert found == pytest.approx(wait)
        assert found is not None
        assert 10.0 <= found <= 12.5

    @pytest.mark.parametrize(("refusals", "wait"), [(1, 0.01), (2, 0.02), (4, 0.08), (50, 1.0)])
    def test_next_to_nothing_is_waited_longer_each_time(self, refusals: int, wait: float) -> None:
        """A server that asks for a millisecond is asked ever more slowly, up to once a second."""
        record = history(*REFUSED * refusals, retry_after=0.001)
        assert decide(RetryPolicy(), record).wait == wait

    @pytest.mark.parametrize("fate", ["not run", "server fault", "undelivered"])
    @pytest.mark.parametrize(("rand", "wait"), [(0.0, 0.5), (1 - 2**-53, 0.25)])
    @pytest.mark.parametrize("retry_after", [None, 0.0])
    def test_backoff_jitters_downwards(
        self, fate: Fate, rand: float, wait: float, retry_after: float | None
    ) -> None:
        """Without a wish of the server's, or with one of 0 s: ours, by up to half shorter."""
        record = history(fate, retry_after=retry_after)
        assert decide(RetryPolicy(), record, rand=rand).wait == pytest.approx(wait)

    @pytest.mark.parametrize("fate", ["not run", "server fault"])
    def test_too_long_a_wait_is_not_waited_for(self, fate: Fate) -> None:
        """It is given up at once, and says what was asked and what is allowed."""
        decision = decide(RetryPolicy(), history(fate, retry_after=86400.0))
        assert decision.wait is None
        assert decision.reason == "the server asks to wait 86400 s and max_retry_after is 120 s"
        assert decide(RetryPolicy(), history(fate, retry_after=120.0)).wait == 120.0

    def test_capacity_is_bounded_by_time(self) -> None:
        """From the first refusal on, the next wait included; then a wrong type is suspected."""
        policy = RetryPolicy(max_capacity_wait=100.0, backoff_max=8.0)
        record = history(*REFUSED * 20, at=1000.0)
        assert decide(policy, record, now=1093.0).wait == 8.0
        decision = decide(policy, record, now=1093.5)
        assert decision.wait is None
        assert decision.reason is not None
        assert "refused 20 times in 92 s" in decision.reason
        assert decision.reason.endswith("a wrong job type or token can look like this too")

    def test_another_fate_starts_the_clock_anew(self) -> None:
        """Being served, even badly, ends a time of refusals."""
        record = history("not run", "server fault", "not run", at=1000.0)
        assert decide(RetryPolicy(max_capacity_wait=5.0), record, now=1003.0).wait == 0.5
        assert record.refused_since == 1002.0

    def test_no_capacity_wait_at_all(self) -> None:
        """0 raises the first refusal."""
        assert decide(RetryPolicy(max_capacity_wait=0.0), history("not run")).wait is None

    def test_the_budget_is_for_server_faults(self) -> None:
        """Empty, those wait until the API is back; what cannot have run never draws."""
        budget = RetryBudget(capacity=12)
        for _ in range(2):
            assert decide(RetryPolicy(), history("server fault"), budget=budget).wait == 0.5
        for fate in ("not run", "undelivered"):
            assert decide(RetryPolicy(), history(fate), budget=budget) == Decision(0.5)
        decision = decide(RetryPolicy(), history("server fault"), budget=budget)
        assert decision == Decision(0.5, BUDGET_IS_EMPTY, budget_is_empty=True)
        assert budget.tokens == 2

    def test_what_may_have_run_draws_too(self) -> None:
        """And with an empty budget it is not sent again at all: it would be paid again."""
        policy, budget = RetryPolicy(retry_uncertain=True), RetryBudget(capacity=7)
        assert decide(policy, history("uncertain"), budget=budget) == Decision(0.5, drawn=True)
        assert decide(policy, history("uncertain"), budget=budget) == Decision(
            None, BUDGET_IS_EMPTY
        )
        assert budget.tokens == 2

    def test_giving_up_draws_nothing(self) -> None:
        """A last attempt, or too long a wait, leaves the budget to others."""
        budget = RetryBudget()
        decide(RetryPolicy(max_attempts=1), history("server fault"), budget=budget)
        decide(RetryPolicy(), history("server fault", retry_after=500.0), budget=budget)
        assert budget.tokens == budget.capacity

    @settings(max_examples=200)
    @given(
        st.lists(st.sampled_from([fate for _, fate in FATES]), min_size=1, max_size=12),
        st.none() | st.floats(0, ABSURD_SECONDS),
        st.floats(0, 1, exclude_max=True),
    )
    def test_bounds_hold_for_any_history(
        self, fates: list[Fate], retry_after: float | None, rand: float
    ) -> None:
        """A wait is finite, at least what was asked, at most 1.25 times that or backoff_max."""
        policy = RetryPolicy(retry_uncertain=True)
        wait = decide(policy, history(*fates, retry_after=retry_after), rand=rand).wait
        if wait is not None:
            asked = retry_after or 0.0
            assert asked <= wait <= max(asked * 1.25, policy.backoff_max)


class TestStrategies:
    """A user's own strategies, as tenacity has them."""

    def test_a_wait_of_tenacitys(self) -> None:
        """It takes the place of our backoff, and counts the faults."""
        policy = RetryPolicy(wait=tenacity.wait_incrementing(start=10, increment=5))
        assert decide(policy, history("server fault")).wait == 10.0
        faults: list[Fate] = ["server fault", "not run", "undelivered"]
        assert decide(policy, history(*faults)).wait == 15.0

    def test_a_refusal_is_not_theirs(self) -> None:
        """What the scheduler waits out stays ours."""
        policy = RetryPolicy(
            wait=tenacity.wait_fixed(77), stop=tenacity.stop_after_attempt(1), max_capacity_wait=60
        )
        assert decide(policy, history("not run")).wait == 0.5

    @pytest.mark.parametrize(("asked", "wait"), [(None, 3.0), (1.0, 3.0), (9.0, 9.0)])
    def test_retry_after_stays_a_floor(self, asked: float | None, wait: float) -> None:
        """A strategy cannot come back earlier than the server asked."""
        policy = RetryPolicy(wait=tenacity.wait_fixed(3))
        assert decide(policy, history("server fault", retry_after=asked)).wait == wait

    def test_a_stop_of_tenacitys(self) -> None:
        """It takes the place of max_attempts, in both directions."""
        policy = RetryPolicy(max_attempts=1, stop=tenacity.stop_after_attempt(3))
        assert decide(policy, history("server fault", "server fault")).wait is not None
        thrice: list[Fate] = ["server fault"] * 3
        assert decide(policy, history(*thrice)).wait is None

    def test_a_stop_by_time(self) -> None:
        """Seconds count from the call, by the job's own clock."""
        policy = RetryPolicy(stop=tenacity.stop_after_delay(60))
        record = history("server fault", at=1000.0)  # began at 1001
        assert decide(policy, record, now=1060.9).wait is not None
        assert decide(policy, record, now=1061.0).wait is None

    def test_what_a_strategy_can_see(self) -> None:
        """The error, how many faults, how long was waited."""
        seen: list[tenacity.RetryCallState] = []

        def wait(state: tenacity.RetryCallState) -> float:
            seen.append(state)
            return 0.0

        record = history("server fault", "undelivered")
        record.waits(2.5)
        error = ConnectError("x")
        assert decide(RetryPolicy(wait=wait), record, error=error, now=7.0).wait == 0.0
        state = seen[0]
        assert (state.attempt_number, state.idle_for, state.seconds_since_start) == (2, 2.5, 6.0)
        assert state.outcome is not None
        assert state.outcome.exception() is error

    def test_a_strategy_is_shown_no_call(self) -> None:
        """There is no function to repeat: no arguments, and a controller that is tenacity's own."""
        state = call_state(history("server fault"), 2.0)
        assert (state.fn, state.args, state.kwargs) == (None, (), {})
        assert isinstance(state.retry_object, tenacity.Retrying)

    @pytest.mark.parametrize("value", [math.nan, -1, "1", None, math.inf])
    def test_a_wait_that_is_none(self, value: Any) -> None:
        """What a strategy returns is checked as any number is."""
        with pytest.raises(
            InvalidRequestError, match=r"^what a wait strategy returns must be a number of seconds "
        ):
            decide(RetryPolicy(wait=lambda _: value), history("server fault"))

    @pytest.mark.parametrize("name", ["wait", "stop"])
    def test_what_is_no_strategy(self, name: str) -> None:
        """A number is none."""
        with pytest.raises(
            InvalidRequestError, match=f"{name} must be a {name} strategy of tenacity's, not 3"
        ):
            RetryPolicy(**{name: 3})  # type: ignore[arg-type]

    def test_a_policy_with_strategies_is_a_value(self) -> None:
        """It pickles, for other processes."""
        policy = RetryPolicy(wait=tenacity.wait_fixed(3), stop=tenacity.stop_after_attempt(2))
        again = pickle.loads(pickle.dumps(policy))
        assert decide(again, history("server fault")).wait == 3.0


class TestPolicy:
    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("max_attempts", 0),
            ("max_attempts", -1),
            ("max_attempts", True),
            ("max_attempts", 4.0),
            ("max_attempts", "4"),
            ("max_attempts", None),
            ("retry_uncertain", 1),
            ("retry_uncertain", None),
            ("backoff_initial", math.inf),
            ("backoff_max", math.inf),
            *[
                (option, value)
                for option in (
                    "backoff_initial",
                    "backoff_max",
                    "max_retry_after",
                    "max_capacity_wait",
                )
                for value in (-1, -0.5, math.nan, -math.inf, "1", None, True, 10**400, 10**5000)
            ],
        ],
        ids=shown,
    )
    def test_out_of_range(self, option: str, value: Any) -> None:
        """Each option is checked when the policy is made, and named."""
        unit = (
            "" if option in {"max_attempts", "retry_uncertain"} else "must be a number of seconds"
        )
        with pytest.raises(InvalidRequestError, match=f"^{option} .*{unit}"):
            RetryPolicy(**{option: value})

    def test_in_range(self) -> None:
        """Zero waits and endless patience are legal; a policy is a value that pickles."""
        policy = RetryPolicy(
            backoff_initial=0, max_retry_after=math.inf, max_capacity_wait=math.inf
        )
        assert decide(policy, history("server fault")).wait == 0.0
        assert decide(policy, history("not run", retry_after=1e6), now=1e9).wait == 1e6
        assert pickle.loads(pickle.dumps(policy)) == policy
        assert hash(policy) == hash(pickle.loads(pickle.dumps(policy)))

    @pytest.mark.parametrize(
        "value", [0, -1, math.nan, "1", None, True, 10**400, 10**5000], ids=shown
    )
    def test_check_seconds(self, value: Any) -> None:
        """A limit is above 0 and a number."""
        with pytest.raises(
            InvalidRequestError, match="deadline must be a number of seconds above 0"
        ):
            check_seconds("deadline", value)

    @pytest.mark.parametrize("value", [1, 0.001, math.inf])
    def test_good_seconds(self, value: float) -> None:
        """Any positive number will do."""
        check_seconds("deadline", value)


class Loop:
    """An attempt that fails a number of times, and a sleep that only records."""

    def __init__(self, *outcomes: BaseException | str) -> None:
        self.outcomes = list(outcomes)
        self.log: list[object] = []

    async def attempt(self) -> str:
        outcome = self.outcomes.pop(0)
        self.log.append("attempt")
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def sleep(self, seconds: float) -> None:
        self.log.append(seconds)

    def decide(self, error: BaseException) -> float | None:
        return float(str(error)) if str(error) else None


@on_both_loops
async def test_every_wait_is_what_was_decided() -> None:
    """The first, the second and the third, and 0 s is 0 s."""
    loop = Loop(ValueError("0"), ValueError("2.5"), ValueError("0"), ValueError("3.5"), "done")
    assert await retrying(loop.attempt, decide=loop.decide, sleep=loop.sleep) == "done"
    assert loop.log == ["attempt", 0.0, "attempt", 2.5, "attempt", 0.0, "attempt", 3.5, "attempt"]


@on_both_loops
async def test_it_tries_until_it_works() -> None:
    """Each failure is decided about, each wait waited, and the value returned."""
    loop = Loop(ValueError("1.5"), KeyError(2), "done")
    loop.decide = lambda error: 1.5 if isinstance(error, ValueError) else 0.0  # type: ignore[method-assign]  # a test's own
    assert await retrying(loop.attempt, decide=loop.decide, sleep=loop.sleep) == "done"
    assert loop.log == ["attempt", 1.5, "attempt", 0.0, "attempt"]


@on_both_loops
async def test_nothing_sleeps_after_the_last_attempt() -> None:
    """The error is raised at once, as it was, with its own cause."""
    last = ValueError("")
    last.__cause__ = KeyError()
    loop = Loop(ValueError("1"), last, "never")
    with pytest.raises(ValueError) as caught:
        await retrying(loop.attempt, decide=loop.decide, sleep=loop.sleep)
    assert caught.value is last
    assert isinstance(last.__cause__, KeyError)
    assert loop.log == ["attempt", 1.0, "attempt"]


@on_both_loops
async def test_a_first_failure_may_be_the_last() -> None:
    """Then it is raised as it was, and nothing is waited for."""
    last = ValueError("")
    loop = Loop(last, "never")
    with pytest.raises(ValueError) as caught:
        await retrying(loop.attempt, decide=loop.decide, sleep=loop.sleep)
    assert caught.value is last
    assert loop.log == ["attempt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@on_both_loops
async def test_what_is_no_error_is_not_decided_about(error: type[BaseException]) -> None:
    """It goes through untouched."""
    raised = error()
    loop = Loop(raised)
    with pytest.raises(error) as caught:
        await retrying(loop.attempt, decide=loop.decide, sleep=loop.sleep)
    assert caught.value is raised
    assert loop.log == ["attempt"]


@on_both_loops
async def test_what_is_no_error_goes_through_a_retry_too() -> None:
    """An interrupt in the second attempt is raised, not decided about."""
    raised = KeyboardInterrupt("1")
    loop = Loop(ValueError("1"), raised, "never")
    with pytest.raises(KeyboardInterrupt) as caught:
        await retrying(loop.attempt, decide=loop.decide, sleep=loop.sleep)
    assert caught.value is raised
    assert loop.log == ["attempt", 1.0, "attempt"]


@on_both_loops
async def test_cancellation_in_an_attempt_goes_through() -> None:
    """It is neither retried nor swallowed nor counted."""
    decided: list[BaseException] = []
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(_retry_for_ever, anyio.sleep_forever, decided)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert decided == []


@on_both_loops
async def test_cancellation_in_a_wait_goes_through() -> None:
    """And no further attempt is made."""
    decided: list[BaseException] = []

    async def fail() -> None:
        raise ValueError

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(_retry_for_ever, fail, decided)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert len(decided) == 1


async def _retry_for_ever(attempt: Any, decided: list[BaseException]) -> None:
    def decide(error: BaseException) -> float:
        decided.append(error)
        return 1000.0

    await retrying(attempt, decide=decide)


async def test_a_tasks_own_cancel_keeps_its_message() -> None:
    """A message given to asyncio's cancel() arrives as it was sent."""
    task = asyncio.ensure_future(_retry_for_ever(anyio.sleep_forever, []))
    await anyio.wait_all_tasks_blocked()
    task.cancel("why")
    with pytest.raises(asyncio.CancelledError, match="why"):
        await task


def test_a_mistake_in_decide_is_not_hidden() -> None:
    """An error in deciding is raised, not waited on."""

    def decide(error: BaseException) -> float | None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        anyio.run(lambda: retrying(Loop(ValueError()).attempt, decide=decide))


async def test_a_job_s_answer_is_not_kept_alive_by_tenacity() -> None:
    """Once it is done with, the value goes at once, without the garbage collector."""

    class Value:
        pass

    outcomes: list[Any] = [ValueError("0"), ValueError("0"), Value()]
    kept = weakref.ref(outcomes[-1])

    async def attempt() -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    was_enabled = gc.isenabled()
    gc.disable()
    try:
        value = await retrying(attempt, decide=lambda _: 0.0)
        assert kept() is value
        del value
        assert kept() is None
    finally:
        if was_enabled:
            gc.enable()
