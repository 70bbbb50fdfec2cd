"""
Questions that cost nothing: asked about a job that is paid for, until its result is gone.

A job that was left with a server is paid when it is accepted. From then on
the one thing that can be lost is its result, so a question about it is asked
again in whatever fault, and what ends the asking is time, not a number of
attempts:

=====================  =======================================================
what came              what is done
=====================  =======================================================
no answer, 5xx, 429    asked again until the result must be gone
an answer that makes   asked again `GRACE` times in a row: a page of a proxy's
no sense, or is cut    passes, a server that means it does not
404, 401, 403, 400     doubted for a moment if the server knew the job before:
and the like           `GRACE` times in a row, or `DOUBT_SECONDS`; else believed
too large, failed      believed
=====================  =======================================================

The decisions are plain methods with the clock passed in; `ask` alone waits.
"""

from __future__ import annotations

import logging
import random
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from . import _waiting
from ._errors import (
    APIConnectionError,
    APIStatusError,
    CapacityError,
    ProdiaError,
    ResponseError,
    ResponseTooLargeError,
    ServerError,
)
from ._hooks import JobDetails, log, tell
from ._sessions import Awaited

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from ._attempts import Attempt
    from ._engine import Engine
    from ._retry import RetryPolicy
    from ._sessions import Unfinished
    from ._vocabulary import Terms

T = TypeVar("T")

RESULT_SECONDS = 300.0
"""
How long a result can be had after it was made, where the server does not say. Documented:
reference "Async" (five minutes).
"""

GRACE = 5
"""
So many answers in a row may make no sense, or deny what the server said before. Chosen: a client
of the service behind Kontext met ``Task not found`` just after submitting, and tolerates as many.
"""

DOUBT_SECONDS = 5.0
"""
For so long at the least is a denial doubted, however fast the questions follow each other.
Chosen: replicas of a store agree within a second or two.
"""

QUESTION_SECONDS = 30.0
"""
Silence after which a question is asked again. Chosen: no job runs while it is answered, so the
client's `timeout`, which is made for jobs, is too long.
"""

MIN_WAIT = 0.01
"""Shortest wait between two questions, whatever the policy says. Chosen."""

ADVICE = "Asking again costs nothing"
"""What to do about a question that failed, in the place of what is said of a job."""

MAX_ATTEMPTS = 100
"""How many of its attempts an error tells, the latest. Chosen."""


MAX_ENDED = 100_000
"""How many ids of ended jobs a client remembers, so as to count each once. Chosen: some 10 MB."""


class Verdict(NamedTuple):
    """
    What to do after a question that failed.

    Attributes:
        wait: Seconds until it is asked again; ``None``: the error stands.
        reason: Why it stands, if more is to say than the error says.
    """

    wait: float | None
    reason: str = ""


class Pace:
    """
    How long to wait between two looks at a job that goes on.

    Args:
        first: Seconds before the first.
        growth: By what each wait is longer than the last.
        longest: Where that ends.
        below: Random part that is taken off at most; 0.2 is a fifth.
        above: Random part that is added at most.
    """

    __slots__ = ("_above", "_below", "_growth", "_longest", "_wait")

    def __init__(
        self, first: float, *, growth: float, longest: float, below: float, above: float
    ) -> None:
        self._wait = first
        self._growth = growth
        self._longest = max(first, longest)
        self._below = below
        self._above = above

    def next(self, rand: Callable[[], float] = random.random) -> float:
        """Return the next wait."""
        wait = self._wait
        self._wait = min(wait * self._growth, self._longest)
        return wait * (1 - self._below + (self._below + self._above) * rand())


class Patience:
    """
    Whether a question that failed is asked again, and after how long; made for one question.

    Args:
        retry: Says how long to wait after the first fault (doubled with each further one), and
            how long at the most; its other rules are for what costs something.
        until: Clock time at which the result must be gone.
        known: Whether the server has said before, to us, that it knows the job.
        grace: See `GRACE`.
        doubt: See `DOUBT_SECONDS`.
    """

    __slots__ = (
        "_denials", "_denied_since", "_doubt", "_faults", "_grace", "_known", "_odd", "_retry",
        "_since", "_until",
    )  # fmt: skip

    def __init__(
        self,
        retry: RetryPolicy,
        *,
        until: float,
        known: bool,
        grace: int = GRACE,
        doubt: float = DOUBT_SECONDS,
    ) -> None:
        self._retry = retry
        self._until = until
        self._known = known
        self._grace = grace
        self._doubt = doubt
        self._faults = self._odd = self._denials = 0
        self._since = self._denied_since = 0.0

    def decide(
        self, error: ProdiaError, now: float, rand: Callable[[], float] = random.random
    ) -> Verdict:
        """Decide what to do after the question ended with ``error`` at ``now``."""
        if not self._faults:
            self._since = now
        self._faults += 1
        match error:
            case CapacityError() | ServerError() | APIConnectionError():
                self._odd = self._denials = 0
            case ResponseTooLargeError():
                return Verdict(None)
            case ResponseError():
                self._odd += 1
                if self._odd > self._grace:
                    return Verdict(None, self._story(now))
            case APIStatusError() if not self._known:
                return Verdict(None)
            case APIStatusError():
                self._denials += 1
                if self._denials == 1:
                    self._denied_since = now
                if self._denials > self._grace and now - self._denied_since >= self._doubt:
                    return Verdict(None, self._story(now))
            case _:
                return Verdict(None)
        if now >= self._until:
            return Verdict(None, f"{self._story(now)}, and the result must be gone by now")
        return Verdict(self._wait(getattr(error, "retry_after", None), now, rand))

    def _story(self, now: float) -> str:
        times = "once" if self._faults == 1 else f"{self._faults} times"
        return f"it was asked {times} in {now - self._since:.0f} s"

    def _wait(self, retry_after: float | None, now: float, rand: Callable[[], float]) -> float:
        # The exponent is capped since 2.0**1024 is an error.
        doubled = self._retry.backoff_initial * 2.0 ** min(self._faults - 1, 60)
        wait = min(self._retry.backoff_max, doubled) * (1 - 0.5 * rand())
        if retry_after is not None:
            wait = max(wait, retry_after * (1 + 0.25 * rand()))
        # One more question is asked before the result is gone, even if the server is to be
        # asked later yet: then there will be nothing to ask for.
        return min(max(wait, MIN_WAIT), self._until - now)


async def ask(
    question: Callable[[], Awaitable[T]],
    patience: Patience,
    *,
    about: str,
    engine: Engine,
    note: Callable[[ProdiaError], None],
) -> T:
    """
    Ask until there is an answer, or the patience is at its end.

    Once the engine is closed, nothing is asked again. ``about`` is for the log; ``note`` is told
    of every error, the last one too.

    Raises:
        ProdiaError: The last error, with the attempts of all.
    """
    attempts: list[Attempt] = []
    while True:
        try:
            return await question()
        except ProdiaError as error:
            note(error)
            attempts = [*attempts, *error.attempts][-MAX_ATTEMPTS:]
            wait, reason = patience.decide(error, _waiting.current_time())
            if wait is None or engine.closed:
                error.tell(attempts=attempts, besides=f"; {reason}" if reason else "")
                if isinstance(error, APIConnectionError | ResponseError):
                    error.__dict__["_advice"] = ADVICE
                raise
            what = type(error).__name__
        # Outside the handler, so that what happens meanwhile does not have this error as its past.
        log(logging.INFO, "%s: %s; it is asked again in %.1f s", about, what, wait)
        await _waiting.sleep(wait)


@contextmanager
def awaited(engine: Engine, told: Unfinished) -> Iterator[None]:
    """Have a drain wait for a job that is left with the server, while the block asks about it."""
    job = Awaited(told)
    engine.under_way[job] = None if engine.closed else engine.session()
    try:
        yield
    finally:
        del engine.under_way[job]


def free(terms: Terms, *, deadline: float | None = None, spent: float = 0.0) -> Terms:
    """Return the terms of a question: no slot, no budget, one attempt, a short silence."""
    return replace(
        terms,
        deadline=deadline,
        spent=spent,
        timeout=min(terms.timeout, QUESTION_SECONDS),
        counted=False,
        free=True,
    )


def count(
    engine: Engine, *, completed: bool = False, cancelled: bool = False, dollars: float = 0.0
) -> None:
    """Count the end of a job of several requests; a client that was closed counts no more."""
    if not engine.closed:
        scheduler = engine.session().scheduler
        scheduler.record(completed=completed, cancelled=cancelled, dollars=max(dollars, 0.0))


class OneJob:
    """What a hook shall be told at the end of a job of several requests, as far as is known."""

    attempts: Sequence[Attempt] = ()
    """Those that may have been paid for; without any, those of the error that ended it."""
    dollars: float = 0.0


@contextmanager
def told_as_one(terms: Terms, job_type: str) -> Iterator[OneJob]:
    """Tell the hook of the beginning and the end of the block, as of one job."""
    began = _waiting.current_time()
    queued = JobDetails(
        event="queued",
        job_type=job_type,
        number=0,
        attempt=None,
        seconds_queued=0.0,
        index=terms.index,
        tag=terms.tag,
        key=id(terms),
    )
    if terms.hook is not None:
        tell(terms.hook, queued)
    job = OneJob()
    error: BaseException | None = None
    try:
        yield job
    except BaseException as raised:
        error = raised
        raise
    finally:
        if terms.hook is not None:
            attempts = job.attempts or getattr(error, "attempts", ())
            ended = replace(
                queued,
                event="finished",
                number=len(attempts),
                attempt=attempts[-1] if attempts else None,
                dollars=job.dollars,
                error=error,
                seconds=_waiting.current_time() - began,
            )
            tell(terms.hook, ended)
        del error  # its traceback refers to this frame


class EndedJobs:
    """The ids of jobs whose end was counted, the latest `MAX_ENDED` of them."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}

    def add(self, job_id: str) -> bool:
        """Note that a job has ended; return whether that is news."""
        if job_id in self._ids:
            return False
        self._ids[job_id] = None
        if len(self._ids) > MAX_ENDED:
            del self._ids[next(iter(self._ids))]
        return True
