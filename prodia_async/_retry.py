"""
Whether to try again, and after how long.

What happened to the job decides, since the API documents no idempotency key
(`_attempts` draws the table of fates):

==============  =============================================================
fate            by default
==============  =============================================================
not run         again, bounded by time
undelivered     again, `max_attempts`
server fault    again, `max_attempts`, from a budget shared by all jobs; when
                that is empty, when the API is back
uncertain       raise; with `retry_uncertain` again, `max_attempts`, from the
                budget, and never without it
refused, ran    raise
==============  =============================================================

The decisions are plain methods on plain values (`RetryPolicy.decide`);
tenacity runs the loop, and only the loop waits.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import tenacity as _t

from . import _waiting
from ._checks import flag, integer, number
from ._errors import InvalidRequestError
from ._show import shown

if TYPE_CHECKING:
    from datetime import datetime

    from ._attempts import Attempts

T = TypeVar("T")

Random: TypeAlias = Callable[[], float]
"""Returns a number from 0 up to 1."""

ABSURD_SECONDS = 366 * 86400.0
"""A Retry-After beyond a year is a mistake, and is read as none. Chosen."""

MIN_WAIT, MIN_WAIT_MAX = 0.01, 1.0
"""Least wait after a refusal, however little the server asks: doubled with each. Chosen."""

_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


def parse_retry_after(
    values: Sequence[str], *, date: str | None, now: datetime | None = None
) -> float | None:
    """
    Read Retry-After headers.

    Args:
        values: The header's values; normally one. Of several the largest holds.
        date: The answer's own Date header. A Retry-After that is a date is
            read relative to it, so that a server's wrong clock does not matter.
        now: The time to use where there is no such header.

    Returns:
        Seconds to wait, 0 for a date in the past; ``None`` for no header, or
        one that is negative, garbled or beyond `ABSURD_SECONDS`.
    """
    read = [
        _read_one_retry_after(each.strip(), date, now)
        for value in values
        # Proxies join headers of one name by a comma; the comma in a date follows letters.
        for each in (value.split(",") if re.fullmatch(r"[0-9., ]*", value) else [value])
    ]
    return max((seconds for seconds in read if seconds is not None), default=None)


def _read_one_retry_after(value: str, date: str | None, now: datetime | None) -> float | None:
    if _SECONDS.fullmatch(value):
        seconds = float(value)
    else:
        until = _read_date(value)
        since = _read_date(date or "") or now
        if until is None or since is None:
            return None
        seconds = max(0.0, (until - since).total_seconds())
    return seconds if seconds <= ABSURD_SECONDS else None


def _read_date(text: str) -> datetime | None:
    """Read an HTTP date in any of its three forms (RFC 9110, 5.6.7)."""
    try:
        read = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # All HTTP dates are in UTC; the asctime form does not say so.
    return read.replace(tzinfo=read.tzinfo or UTC)


class RetryBudget:
    """
    What the retries of server faults draw from, shared by all jobs of a client.

    A dead API is not to be hammered by a thousand jobs that each have three
    more attempts. The figures are those of botocore's standard mode: 500
    tokens, 5 a retry, given back when the job succeeds, and 1 for each other
    success.
    """

    __slots__ = ("capacity", "cost", "tokens")

    def __init__(self, capacity: float = 500.0, cost: float = 5.0) -> None:
        self.capacity = capacity
        self.cost = cost
        self.tokens = capacity

    def __repr__(self) -> str:
        return f"<RetryBudget {self.tokens:g} of {self.capacity:g} tokens>"

    def draw(self) -> bool:
        """Take the tokens for one retry; false if there are not enough."""
        if self.tokens < self.cost:
            return False
        self.tokens -= self.cost
        return True

    def succeeded(self, retries: int) -> None:
        """Refill after a job that succeeded after so many retries of server faults."""
        refill = self.cost * retries if retries else 1.0
        self.tokens = min(self.capacity, self.tokens + refill)


class Decision(NamedTuple):
    """
    What to do after a failed attempt.

    Attributes:
        wait: Seconds to wait before the next attempt; ``None`` to give up.
        reason: Why we give up, if more is to say than the error says.
        drawn: Whether the next attempt was paid from the retry budget.
        budget_is_empty: Whether it could not be: then it is to wait, beyond
            `wait`, until the API is back.
    """

    wait: float | None
    reason: str | None = None
    drawn: bool = False
    budget_is_empty: bool = False


GIVE_UP = Decision(None)

BUDGET_IS_EMPTY = (
    "the retry budget that all jobs of this client share is empty, "
    "since too many of them met faults"
)

Wait: TypeAlias = Callable[[_t.RetryCallState], float]
"""A wait strategy of tenacity's: ``tenacity.wait_exponential_jitter(...)``, say."""

Stop: TypeAlias = Callable[[_t.RetryCallState], bool]
"""A stop strategy of tenacity's: ``tenacity.stop_after_delay(60)``, say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """
    Whether a failed attempt is made again, and after how long. Times are in seconds.

    ::

        RetryPolicy(max_attempts=6)
        RetryPolicy(wait=tenacity.wait_random(1, 5), stop=tenacity.stop_after_delay(90))

    Args:
        max_attempts: Attempts in all for one job, those refused for capacity
            (429) not counted: they are normal, and bounded by time. Chosen.
        backoff_initial: Wait after the first fault; doubled with each
            further one. A random part of up to half is taken off. Chosen.
        backoff_max: Longest such wait. Chosen.
        max_retry_after: A server that asks for more is not waited for: the
            error is raised at once, with the number in `retry_after`. Chosen.
        max_capacity_wait: How long one job may wait while the server, busy,
            accepts none of its type. Chosen.
        retry_uncertain: Also retry when the job may already have run. It can
            then be charged twice. Such retries draw from the budget that all
            jobs of a client share, so that a server that runs jobs and loses
            their answers does not charge each of them `max_attempts` times.
        wait: A wait strategy of tenacity's, in the place of `backoff_initial`
            and `backoff_max`, for faults; 429 is left to the scheduler. What
            the server asks for by Retry-After stays a floor.
        stop: A stop strategy of tenacity's, in the place of `max_attempts`.
            Both are asked with a ``tenacity.RetryCallState`` whose
            ``attempt_number`` counts the faults, whose ``outcome`` holds the
            error and whose ``seconds_since_start`` counts from the call.

    Raises:
        InvalidRequestError: A value is out of its range.
    """

    max_attempts: int = 4
    backoff_initial: float = 0.5
    backoff_max: float = 8.0
    max_retry_after: float = 120.0
    max_capacity_wait: float = 600.0
    retry_uncertain: bool = False
    wait: Wait | None = None
    stop: Stop | None = None

    def __post_init__(self) -> None:
        integer("max_attempts (which counts from 1: no retries)", self.max_attempts, least=1)
        for name in ("backoff_initial", "backoff_max", "max_retry_after", "max_capacity_wait"):
            most = math.inf if name.startswith("max_") else ABSURD_SECONDS
            number(name, getattr(self, name), most=most, unit="seconds")
        flag("retry_uncertain", self.retry_uncertain)
        for name in ("wait", "stop"):
            strategy = getattr(self, name)
            if strategy is not None and not callable(strategy):
                raise InvalidRequestError(
                    f"{name} must be a {name} strategy of tenacity's, not {shown(strategy)}"
                )

    def decide(
        self,
        attempts: Attempts,
        budget: RetryBudget,
        *,
        now: float,
        error: BaseException | None = None,
        rand: Random = random.random,
    ) -> Decision:
        """
        Decide what to do after the last of ``attempts``, which failed.

        Draws from ``budget`` when the answer is to retry what may have run.

        Args:
            attempts: What the job has been through; at least one attempt.
            budget: What retries of faults draw from.
            now: The clock.
            error: What the last attempt raised, for strategies of tenacity's.
            rand: Makes the random part of a wait.

        Raises:
            InvalidRequestError: A strategy of the user's returned no number of seconds.
        """
        last = attempts.last
        assert last is not None  # noqa: S101  (there is one to decide about)
        match last.fate:
            case "not run":
                return self._after_refusal(attempts, last.retry_after, now, rand)
            case "undelivered" | "server fault":
                pass
            case "uncertain" if self.retry_uncertain:
                pass
            case _:
                return GIVE_UP
        state = call_state(attempts, now, error) if self.wait or self.stop else None
        if self._is_enough(attempts, state):
            return GIVE_UP
        if last.retry_after is not None and last.retry_after > self.max_retry_after:
            return Decision(None, self._too_long(last.retry_after))
        wait = self._wait(last.retry_after, attempts.faults, rand, state)
        if last.fate == "undelivered":
            return Decision(wait)
        if budget.draw():
            return Decision(wait, drawn=True)
        if last.fate == "uncertain":
            return Decision(None, BUDGET_IS_EMPTY)
        return Decision(wait, BUDGET_IS_EMPTY, budget_is_empty=True)

    def _is_enough(self, attempts: Attempts, state: _t.RetryCallState | None) -> bool:
        if self.stop is not None and state is not None:
            return bool(self.stop(state))
        return attempts.faults >= self.max_attempts

    def _after_refusal(
        self, attempts: Attempts, retry_after: float | None, now: float, rand: Random
    ) -> Decision:
        if retry_after is not None and retry_after > self.max_retry_after:
            return Decision(None, self._too_long(retry_after))
        wait = self._wait(retry_after, attempts.refusals, rand)
        refused_for = now - attempts.refused_since
        if refused_for + wait > self.max_capacity_wait:
            return Decision(
                None,
                f"it was refused {attempts.refusals} times in {refused_for:.0f} s and "
                f"max_capacity_wait is {self.max_capacity_wait:g} s; a wrong job type or token "
                "can look like this too",
            )
        return Decision(wait)

    def _too_long(self, retry_after: float) -> str:
        return (
            f"the server asks to wait {retry_after:g} s and max_retry_after is "
            f"{self.max_retry_after:g} s"
        )

    def _wait(
        self,
        retry_after: float | None,
        number: int,
        rand: Random,
        state: _t.RetryCallState | None = None,
    ) -> float:
        """Return the seconds to wait after the so-manieth failure in a row."""
        if self.wait is not None and state is not None:
            own = _seconds_of(self.wait(state))
            return own if retry_after is None else max(own, retry_after)
        if retry_after:
            # A floor: the random part only ever adds, by up to a quarter. A server that
            # asks for next to nothing again and again is not asked a thousand times a second.
            least = min(MIN_WAIT_MAX, MIN_WAIT * 2.0 ** min(number - 1, 60))
            return max(retry_after, least) * (1 + 0.25 * rand())
        # The exponent is capped since 2.0**1024 is an error.
        backoff = min(self.backoff_max, self.backoff_initial * 2.0 ** min(number - 1, 60))
        return backoff * (1 - 0.5 * rand())


def _seconds_of(value: object) -> float:
    """Check what a wait strategy of the user's returned."""
    return number("what a wait strategy returns", value, most=ABSURD_SECONDS, unit="seconds")


def call_state(
    attempts: Attempts, now: float, error: BaseException | None = None
) -> _t.RetryCallState:
    """Put what a job has been through as tenacity's strategies know it."""
    state = _t.RetryCallState(retry_object=_NO_LOOP, fn=None, args=(), kwargs={})
    state.attempt_number = attempts.faults
    state.idle_for = attempts.spent(now).backoff
    if error is not None:
        state.set_exception((type(error), error, error.__traceback__))
    state.start_time, state.outcome_timestamp = attempts.began, now
    return state


_NO_LOOP = _t.Retrying()


async def retrying(
    attempt: Callable[[], Awaitable[T]],
    *,
    decide: Callable[[BaseException], float | None],
    sleep: Callable[[float], Awaitable[None]] = _waiting.sleep,
) -> T:
    """
    Make attempts until one succeeds or ``decide`` gives up.

    Args:
        attempt: Makes one attempt; raises when it fails.
        decide: Takes what it raised; returns the seconds to wait before the
            next attempt, or ``None`` to raise it to the caller. Never asked
            about a cancellation, which always goes through.
        sleep: Waits.
    """
    decided: float | None = None

    def is_to_go_on(error: BaseException) -> bool:
        nonlocal decided
        decided = decide(error) if isinstance(error, Exception) else None
        return decided is not None

    # Most jobs succeed at once, and a controller takes a third of a job's own time to make.
    try:
        return await attempt()
    except Exception as error:
        if not is_to_go_on(error):
            raise
    await sleep(decided or 0.0)
    # What tenacity holds refers to itself, and goes when the garbage collector comes: so it is
    # never given the answer, which may be large.
    answers: list[T] = []

    async def attempt_again() -> None:
        answers.append(await attempt())

    controller = _t.AsyncRetrying(
        retry=_t.retry_if_exception(is_to_go_on),
        wait=lambda _: decided or 0.0,
        sleep=sleep,
    )
    await controller(attempt_again)
    return answers.pop()
