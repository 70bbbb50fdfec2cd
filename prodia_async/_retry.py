"""
Whether to try again, and after how long.

What happened to the job decides, since the API documents no idempotency key:

==============  ==========================================  =========================
fate            cases                                       by default
==============  ==========================================  =========================
not run         429                                         again, bounded by time
undelivered     DNS, refused, TLS, request not fully sent   again, `max_attempts`
server fault    500, 502, 503, 504 and other 5xx            again, `max_attempts`, from
                                                            a budget shared by all jobs
uncertain       silence or a broken connection after the    raise; again only with
                request was sent                            `retry_uncertain`
refused         400, 401, 403, 404, 413, other 4xx          raise
ran             a damaged answer, a failed job              raise
==============  ==========================================  =========================

The decisions are plain methods on plain values (`RetryPolicy.decide`);
tenacity runs the loop, and only the loop waits.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import tenacity as _t

from . import _waiting
from ._attempts import Attempt, Fate
from ._checks import flag, integer, number, seconds
from ._errors import APIStatusError, ProdiaError

if TYPE_CHECKING:
    from datetime import datetime

# What moved; until every module names where it lives now.
__all__ = ["Attempt", "Fate"]
check_seconds = seconds

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


def attempt_of(number: int, error: BaseException | None, seconds: float) -> Attempt:
    """Describe an attempt that ended with ``error``, or ``None`` for one that succeeded."""
    if error is None:
        return Attempt(number, "succeeded", 200, None, seconds)
    return Attempt(
        number,
        error.fate if isinstance(error, ProdiaError) else "refused",
        error.status_code if isinstance(error, APIStatusError) else None,
        error.request_id if isinstance(error, ProdiaError) else None,
        seconds,
        retry_after=retry_after_of(error),
        error=type(error).__name__,
    )


def retry_after_of(error: BaseException) -> float | None:
    """Return the seconds an error's answer asked us to wait, if it did."""
    return getattr(error, "retry_after", None)


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
    """

    wait: float | None
    reason: str | None = None


GIVE_UP = Decision(None)


@dataclass(slots=True)
class History:
    """
    What one job has been through; what `RetryPolicy.decide` goes by.

    Attributes:
        attempts: Oldest first; the last is the one to decide about.
        faults: Attempts that ended in anything but a refusal for capacity.
        server_faults: Those of them that were server faults.
        refusals: Refusals for capacity since anything else happened.
        first_refused: When the first of those refusals came, or since when
            the job has waited for the server to accept any of its kind.
    """

    attempts: list[Attempt] = field(default_factory=list)
    faults: int = 0
    server_faults: int = 0
    refusals: int = 0
    first_refused: float = 0.0

    def add(self, attempt: Attempt, now: float) -> None:
        """Record an attempt that ended at ``now``."""
        self.attempts.append(attempt)
        if attempt.fate == "not run":
            if not self.refusals:
                self.first_refused = now
            self.refusals += 1
        else:
            self.refusals = 0
            self.faults += attempt.fate != "succeeded"
            self.server_faults += attempt.fate == "server fault"

    def waited(self, wait: float) -> None:
        """Note on the last attempt how long the wait after it is."""
        self.attempts[-1] = replace(self.attempts[-1], wait=wait)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """
    Whether a failed attempt is made again, and after how long. Times are in seconds.

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
            then be charged twice.

    Raises:
        InvalidRequestError: A value is out of its range.
    """

    max_attempts: int = 4
    backoff_initial: float = 0.5
    backoff_max: float = 8.0
    max_retry_after: float = 120.0
    max_capacity_wait: float = 600.0
    retry_uncertain: bool = False

    def __post_init__(self) -> None:
        integer("max_attempts (which counts from 1: no retries)", self.max_attempts, least=1)
        for name in ("backoff_initial", "backoff_max", "max_retry_after", "max_capacity_wait"):
            most = math.inf if name.startswith("max_") else ABSURD_SECONDS
            number(name, getattr(self, name), most=most, unit="seconds")
        flag("retry_uncertain", self.retry_uncertain)

    def decide(
        self,
        history: History,
        budget: RetryBudget,
        *,
        now: float,
        rand: Random = random.random,
    ) -> Decision:
        """
        Decide what to do after the last attempt of ``history``, which failed.

        Draws from ``budget`` when the answer is to retry a server fault.
        """
        last = history.attempts[-1]
        match last.fate:
            case "not run":
                return self._after_refusal(history, last.retry_after, now, rand)
            case "undelivered" | "server fault":
                pass
            case "uncertain" if self.retry_uncertain:
                pass
            case _:
                return GIVE_UP
        if history.faults >= self.max_attempts:
            return GIVE_UP
        if last.retry_after is not None and last.retry_after > self.max_retry_after:
            return Decision(None, self._too_long(last.retry_after))
        if last.fate == "server fault" and not budget.draw():
            return Decision(
                None,
                "the retry budget that all jobs of this client share is empty, "
                "since too many of them met server faults",
            )
        return Decision(self._wait(last.retry_after, history.faults, rand))

    def _after_refusal(
        self, history: History, retry_after: float | None, now: float, rand: Random
    ) -> Decision:
        if retry_after is not None and retry_after > self.max_retry_after:
            return Decision(None, self._too_long(retry_after))
        wait = self._wait(retry_after, history.refusals, rand)
        refused_for = now - history.first_refused
        if refused_for + wait > self.max_capacity_wait:
            return Decision(
                None,
                f"it was refused {history.refusals} times in {refused_for:.0f} s and "
                f"max_capacity_wait is {self.max_capacity_wait:g} s; a wrong job type or token "
                "can look like this too",
            )
        return Decision(wait)

    def _too_long(self, retry_after: float) -> str:
        return (
            f"the server asks to wait {retry_after:g} s and max_retry_after is "
            f"{self.max_retry_after:g} s"
        )

    def _wait(self, retry_after: float | None, number: int, rand: Random) -> float:
        """Return the seconds to wait after the so-manieth failure in a row."""
        if retry_after:
            # A floor: the random part only ever adds, by up to a quarter. A server that
            # asks for next to nothing again and again is not asked a thousand times a second.
            least = min(MIN_WAIT_MAX, MIN_WAIT * 2.0 ** min(number - 1, 60))
            return max(retry_after, least) * (1 + 0.25 * rand())
        # The exponent is capped since 2.0**1024 is an error.
        backoff = min(self.backoff_max, self.backoff_initial * 2.0 ** min(number - 1, 60))
        return backoff * (1 - 0.5 * rand())


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
    # Most jobs succeed at once, and then tenacity has nothing to do.
    try:
        return await attempt()
    except Exception as error:
        seconds = decide(error)
        if seconds is None:
            raise
    await sleep(seconds)

    giving_up = False

    def wait(state: _t.RetryCallState) -> float:
        nonlocal giving_up
        error = state.outcome.exception() if state.outcome else None
        decided = decide(error) if error is not None else None
        giving_up = decided is None
        return decided or 0.0

    # tenacity asks `retry`, then `wait`, then `stop`.
    controller = _t.AsyncRetrying(
        retry=_t.retry_if_exception_type(Exception),
        wait=wait,
        stop=lambda _: giving_up,
        sleep=sleep,
        reraise=True,
    )
    try:
        return await controller(attempt)
    finally:
        # They refer back to the controller, and through it to the job's whole
        # answer, which would wait for the garbage collector.
        controller.iter_state.actions.clear()
