"""
The decisions of a batch: plain functions and plain objects; nobody here waits, reads or writes.

==============  ==============================================================
`on_lookup`     what becomes of a row, by what the record says of its key
`is_in_doubt`   whether a row that came to no end may have been paid
`after_error`   what a job's error means for it: failed, in doubt, not consumed
`may_go_again`  whether a job that came to nothing may be sent once more
`ask_again_in`  when a job that is with the server is asked about anew
`Purse`         whether one more job may be paid for
`Outage`        whether the API is down, and when to ask again
`differences`   whether these are other jobs than those the folder is for
`wants_async`   which way to send a job of a type
`most_unnamed`  how many may be on their way to be left with the server
==============  ==============================================================

Money is counted in integers of 10^-9 dollars, so that a million additions stay exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, TypeAlias

from .._errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    CapacityError,
    ConnectError,
    DeadlineExceededError,
    JobFailedError,
    PermissionDeniedError,
    ProdiaError,
    QueueFullError,
    ResponseError,
    ServerError,
)
from .._show import shown

NANO = 1_000_000_000
"""Of our units in a dollar."""


class State(IntEnum):
    """What the record says of a row."""

    DONE = 2
    FAILED = 3
    IN_DOUBT = 4
    DUPLICATE = 5
    INVALID = 6


OnDoubt: TypeAlias = Literal["retry", "hold"]

Step: TypeAlias = Literal["run", "run again", "done", "failed", "in doubt", "invalid"]
"""What becomes of a row."""


def on_lookup(state: State | None, *, on_doubt: OnDoubt, retry_failed: bool) -> Step:
    """
    Decide what becomes of a row.

    Args:
        state: What the record says of its key; ``None`` if it was never seen.
        on_doubt: Whether what may have been paid is sent once more.
        retry_failed: Whether what failed is sent once more.

    Returns:
        ``run again`` is a run that may pay a second time, and is counted.
    """
    match state:
        case None:
            return "run"
        case State.FAILED:
            return "run" if retry_failed else "failed"
        case State.IN_DOUBT:
            return "run again" if on_doubt == "retry" else "in doubt"
        case State.INVALID:
            return "invalid"
        case _:
            return "done"


def is_in_doubt(*, job_id: str | None, is_marked: bool, was_sent: bool, are_exact: bool) -> bool:
    """
    Decide whether a row that came to no end may have been paid, with nothing to show for it.

    The one place that decides it: for the run's own summary, for whoever reads the
    record, and for the next start.

    Args:
        job_id: The server's id, under which what it made is collected.
        is_marked: Whether it was marked as being with the server, or as perhaps paid.
        was_sent: Whether the record says that it was sent.
        are_exact: Whether the marks are as they were at the last moment: then the
            record's own note of a job that was sent, and refused since, counts for nothing.
    """
    return job_id is None and (is_marked or (was_sent and not are_exact))


Verdict: TypeAlias = Literal["failed", "in doubt", "trouble", "refused", "unpaid", "unserved"]
"""
What an error means for its row: it failed; or it may have been paid and nobody
has its output. Or it is no fault of the row's: the API has trouble, the
credential is refused, no money is left, nothing is served at this address.
"""

EVERYWHERE: Mapping[int, Verdict] = {
    402: "unpaid", 404: "unserved", 405: "unserved", 407: "refused", 410: "unserved"
}  # fmt: skip
"""What statuses mean that say nothing of a job. Chosen; other 4xx say what is wrong with it."""

WANTED: Mapping[Verdict | None, str] = {
    "refused": "the credential is refused ({why}): give a valid one",
    "unpaid": "no job is taken without payment ({why}): look at what is left on the account",
    "unserved": "nothing is served here ({why}): look at the address (base_url), and at the job "
    "type or model",
    "in doubt": "no answer has come whole{waited} ({why}), and each may have been paid: look at "
    "what lies between here and the API",
    "trouble": "the API has not answered{waited} ({why})",
}
"""What a person is to know and to do of an API that does not work, by what all rows came to."""


def after_error(error: BaseException) -> Verdict:
    """Decide what a job's error means for its row."""
    match error:
        case AuthenticationError() | PermissionDeniedError():
            return "refused"
        case CapacityError() | QueueFullError() | ConnectError() | ServerError():
            return "trouble"
        case JobFailedError():
            return "failed"
        case APIStatusError() if error.status_code in EVERYWHERE:
            return EVERYWHERE[error.status_code]
        case ResponseError() | APIConnectionError() | DeadlineExceededError():
            return "in doubt" if error.may_have_run else "trouble"
        case ProdiaError():
            return "in doubt" if error.may_have_run else "failed"
        case _:
            return "failed"


def paid_attempts(error: BaseException) -> int:
    """Count the attempts of a job that may have been paid, though nothing came of them."""
    if not isinstance(error, ProdiaError):
        return 0
    risky = sum(each.fate in {"server fault", "uncertain", "ran"} for each in error.attempts)
    return max(risky, int(error.may_have_run))


def may_go_again(doubts: int, *, on_doubt: OnDoubt, is_retried: bool) -> bool:
    """
    Decide whether a job that came to nothing may be sent once more in this run.

    Args:
        doubts: How often it may have been paid since it was sent last.
        on_doubt: Whether what may have been paid is sent once more.
        is_retried: Whether that was done in this run already.
    """
    return not doubts or (on_doubt == "retry" and not is_retried)


ASK_AGAIN_SECONDS = (2.0, 4.0, 8.0)
"""Waits before a job whose id is known is asked about anew, after all questions failed. Chosen."""

MOST_DENIALS = 2
"""
So often the server may deny a job that it has taken, and whose result must be there still.
Chosen: six seconds in all, and replicas of a store agree within a second or two.
"""


def ask_again_in(times: int, *, is_denied: bool, left: float) -> float | None:
    """
    Decide when a job that is with the server is asked about anew.

    Args:
        times: How often it was asked about in vain before.
        is_denied: Whether the server knows no such job.
        left: Seconds until its result expires.

    Returns:
        The seconds until then; ``None`` when it is not asked about any more in this run.
    """
    most = MOST_DENIALS if is_denied else len(ASK_AGAIN_SECONDS)
    if times >= most or (is_denied and left <= 0):
        return None
    return ASK_AGAIN_SECONDS[times]


# Money.


def to_nano(dollars: float) -> int:
    """Return dollars in units of 10^-9."""
    return round(dollars * NANO)


class Purse:
    """
    What was spent, what may have been, and what is about to be.

    A job's price is expected to be the highest that an answer of its type has
    told so far; before the first, what a table or the user says.

    Args:
        limit: The most to spend, in dollars; ``None`` for no limit.
        told: Spent already, in our units.
        doubtful: What jobs in doubt may have cost, in our units.
    """

    def __init__(self, limit: float | None, *, told: int = 0, doubtful: int = 0) -> None:
        self.limit = None if limit is None else to_nano(limit)
        self.told = told
        self.doubtful = doubtful
        self.in_flight = 0
        self._seen: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<Purse {self.told / NANO:.6g} told, {self.in_flight / NANO:.6g} in flight>"

    def seen(self, job_type: str, price: int) -> None:
        """Learn a price that was told, now or in an earlier run."""
        self._seen[job_type] = max(price, self._seen.get(job_type, 0))

    def known(self, job_type: str) -> int | None:
        """Return the highest price told for a type, ``None`` before the first."""
        return self._seen.get(job_type)

    def expected(self, job_type: str, hint: float | None) -> int | None:
        """Return what a job of a type is expected to cost; ``None`` when nobody knows."""
        known = self._seen.get(job_type)
        if known is not None:
            return known
        return None if hint is None else to_nano(hint)

    def affords(self, price: int) -> bool:
        """Return whether one more job of that price stays within the limit."""
        if self.limit is None:
            return True
        return self.told + self.in_flight + self.doubtful + price <= self.limit

    def started(self, price: int) -> None:
        """Count a job that is about to be sent."""
        self.in_flight += price

    def ended(self, price: int, *, told: int = 0, doubtful: int = 0) -> None:
        """
        Count a job's end.

        Args:
            price: What `started` was told.
            told: What its answer says it cost.
            doubtful: What it may have cost without an answer.
        """
        self.in_flight -= price
        self.told += told
        self.doubtful += doubtful


# A dead API.

TROUBLES = 3
"""Rows that must run into trouble, with no success between, for an outage. Chosen."""

DOUBTS = 5
"""
As many if each of them may have been paid and no answer came whole. Chosen: a server that
loses one answer in three does so once in 243 jobs, and what was paid till then is little.
"""

PROBE_SECONDS, PROBE_MAX_SECONDS = 1.0, 30.0
"""
Wait before the first probe, doubled after each that failed, up to a bound; with none where
a probe may be paid for nothing, so that some nine are all. Chosen.
"""

PATIENCE_SECONDS = 600.0
"""How long an outage is waited out. Chosen: as long as `RetryPolicy.max_capacity_wait`."""


TAIL_SECONDS = 60.0
"""How long it is waited out when only rows are left that ran into it before. Chosen."""


class Outage:
    """
    Tells a row's own failure from the API's.

    A row that runs into trouble is set aside, since trouble says nothing of
    the row. The next success shows that the API works, and what was set aside
    failed by itself. `TROUBLES` in a row (or `DOUBTS`, of rows whose answers
    were lost) show that it does not: everything set aside is to be sent again,
    nothing new is taken up, and one row at a time asks whether it is back. What
    is wrong with a row itself, such as a 400, counts neither way.

    Attributes:
        since: When it began; ``None`` while the API works, as far as we know.
        reason: What the API does, in the words of the last error.
        has_worked: Whether anything has succeeded yet.
    """

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self._patience = patience
        self._in_a_row = 0
        self._kind: Verdict | None = None  # of all in a row; "trouble" if they differ
        self.has_worked = False
        self._wait = PROBE_SECONDS
        self._probe_at = 0.0
        self._probing = False
        self.since: float | None = None
        self.reason = ""

    def __repr__(self) -> str:
        return f"<Outage {self._in_a_row} in a row, since {self.since}>"

    def succeeded(self) -> bool:
        """Note a success; return whether it ended an outage."""
        was_out = self.since is not None
        self._in_a_row = 0
        self._kind = None
        self.has_worked = True
        self._probing = False
        self._wait = PROBE_SECONDS
        self.since = None
        return was_out

    def troubled(self, now: float, verdict: Verdict, reason: str) -> bool:
        """Note a row that ran into trouble; return whether the API is taken to be down."""
        self._in_a_row += 1
        self._kind = verdict if self._kind in {None, verdict} else "trouble"
        self.reason = reason
        if self._probing:
            self._probing = False
            most = math.inf if verdict == "in doubt" else PROBE_MAX_SECONDS
            self._wait = min(2 * self._wait, most)
            self._probe_at = now + self._wait
        elif self.since is None and self._in_a_row >= (
            DOUBTS if self._kind == "in doubt" else TROUBLES
        ):
            self.since = now
            self._probe_at = now + self._wait
        return self.since is not None

    def may_start(self, now: float) -> bool:
        """Return whether a row may be taken up now; during an outage it is then the probe."""
        if self.since is None:
            return True
        if self._probing or now < self._probe_at:
            return False
        self._probing = True
        return True

    def not_sent(self) -> None:
        """Take back a start: the probe was never sent."""
        self._probing = False

    def asked_in_vain(self, now: float) -> None:
        """Note the end of a probe that told nothing, such as one that was refused for a while."""
        if self._probing:
            self._probing = False
            self._probe_at = now + self._wait

    def is_their_own(self, now: float) -> bool:
        """
        Return whether rows that all ran into trouble are to be taken to have failed.

        Nothing else is left to tell an outage from rows that always fail; but none fails
        for want of money.
        """
        if self._kind == "unpaid" or self.since is None:
            return False
        return now - self.since >= TAIL_SECONDS

    def needs_a_person(self) -> bool:
        """Return whether nothing can succeed before somebody does something about it."""
        is_new = self._kind in {"unpaid", "unserved"} and not self.has_worked
        return self._kind == "refused" or is_new

    def given_up(self, now: float) -> str | None:
        """Return why there is no use in waiting on, and what to do, or ``None``."""
        if self.since is None or not (self.needs_a_person() or now - self.since >= self._patience):
            return None
        return self.wanted(f" for {self._patience:.0f} s")

    def wanted(self, waited: str = "") -> str:
        """Return what is wrong and what to do about it."""
        said = WANTED[self._kind].format(why=self.reason, waited=waited)
        return f"{said}. Run it again after that: it goes on with what is left"


# A changed run.


@dataclass(frozen=True, slots=True)
class Overlap:
    """
    What the first rows of an input and the record have in common.

    Attributes:
        known: How many of the rows' keys the record knows, wherever.
        others: For rows whose numbers the record has under another key: what it
            holds there, and what the input has.
    """

    known: int
    others: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]


def differences(overlap: Overlap) -> tuple[str, ...]:
    """
    Say what makes these other jobs than those the folder was made for.

    A row that was inserted, changed or moved leaves others that are known.
    When none of the first rows is, while the record has jobs at their numbers,
    somebody has changed the type, the model, the format, a setting, or the file.

    Returns:
        One sentence for each field that differs; empty when it is the same run.
    """
    if overlap.known or not overlap.others:
        return ()
    changes: dict[str, list[tuple[object, object]]] = {}
    for old, new in overlap.others:
        flat_old, flat_new = flat(old), flat(new)
        for name in {**flat_old, **flat_new}:
            pair = (flat_old.get(name), flat_new.get(name))
            if pair[0] != pair[1]:
                changes.setdefault(name, []).append(pair)
    everywhere = {
        name: pairs for name, pairs in changes.items() if len(pairs) == len(overlap.others)
    }
    if not everywhere:
        return (f"none of the first {len(overlap.others)} rows is known to this folder",)
    return tuple(
        f"{name} was {shown(pairs[0][0])} and is {shown(pairs[0][1])}"
        if len({repr(pair) for pair in pairs}) == 1
        else f"{name} is another in every row: {shown(pairs[0][0])} and now {shown(pairs[0][1])}"
        for name, pairs in sorted(everywhere.items())
    )


def flat(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a job's line, those of its config by ``config.name``."""
    config = line.get("config")
    fields = {
        name: value
        for name, value in line.items()
        if name not in {"id", "config"} and value is not None
    }
    if isinstance(config, Mapping):
        fields |= {f"config.{name}": value for name, value in config.items()}
    return fields


# Sync or async.

DEAR_DOLLARS, SLOW_SECONDS = 0.02, 10.0
"""From where a job is left with the server rather than waited for. Chosen."""

Submit: TypeAlias = Literal["sync", "async", "auto"]


def wants_async(
    submit: Submit, *, permits: bool | None, dollars: float | None, seconds: float | None
) -> tuple[bool, str]:
    """
    Decide which way jobs of a type are sent.

    Args:
        submit: What the user wants.
        permits: Whether the type permits async; ``None`` when nobody knows.
        dollars: What one is known to cost.
        seconds: How long one is known to take.

    Returns:
        Whether they go async, and why.
    """
    if submit == "sync":
        return False, "sync was asked for"
    if permits is False:
        return False, "the type does not permit async"
    if submit == "async":
        return True, "async was asked for"
    if permits is None:
        return False, "it is not known whether the type permits async"
    if (dollars or 0) >= DEAR_DOLLARS:
        return True, f"a job costs {DEAR_DOLLARS:g} dollars or more"
    if (seconds or 0) >= SLOW_SECONDS:
        return True, f"a job takes {SLOW_SECONDS:g} s or more"
    return False, "jobs of the type are cheap and quick"


SPARE = 1.5
"""Submissions under way beside those that keep all slots busy. Chosen: they come unevenly."""


def most_unnamed(slots: int, *, answer: float | None, cycle: float | None) -> int:
    """
    Decide how many jobs may be on their way to the server with no id yet.

    A job that has an id is collected whatever becomes of us; one that was sent
    and has none may be paid twice. So there are as few as keep all slots busy:
    by Little's law their number is the rate at which they come, times the time
    that each takes.

    Args:
        slots: Jobs in flight at once.
        answer: Seconds until the server has answered a submission with an id.
        cycle: Seconds for which a job holds its slot, from its start until it is safe.
            Each is ``None`` before the first.

    Returns:
        One before both are known; never more than `slots`.
    """
    if not answer or not cycle:
        return 1
    return max(1, min(slots, math.ceil(SPARE * slots * answer / cycle)))


def first_to_collect(ids: Iterable[tuple[int, float]]) -> list[int]:
    """
    Put jobs that are with the server into the order in which to collect them.

    Asking is free, and a clock may be wrong, so what seems to have expired is
    asked for as well, last.

    Args:
        ids: Row numbers, each with the seconds until its result expires.
    """
    return [row for _, _, row in sorted((left <= 0, left, row) for row, left in ids)]
