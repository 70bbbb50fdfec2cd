"""
Whether jobs may be sent at all, to a server that answers none of them well.

A busy server is the limit's matter (`_limit`). A server that is down, that asks
for an hour's patience or that knows our credential no longer is this module's:
each job sent to it is lost, or may be charged for nothing, and a source of
50,000 would be emptied into it. So a `Gate` closes, and while it is closed
nothing starts but one *probe* at a time, some ordinary job that asks whether
the server is back. The first success opens it.

* It closes after `TROUBLES` in a row. A success counts against them only if
  its job was sent after the first of them: what was sent before an outage may
  end well in the middle of it. Other successes are held against the faults
  by their number, so a server that fails one job in three stays open; a
  credential that is refused so often is refused, whatever ends well meanwhile.
* It closes at once when the budget of retries is empty, and when the server
  asks us to wait: then nothing is sent before that time has passed.
* The wait between probes grows with the time the gate has been closed, up to
  `PROBE_MAX`. So an outage costs little more than its own length, and a server
  that has been down for long is asked seldom.
* A probe that was cancelled tells nothing; another soon takes its place.

Everything is plain methods on plain state; the clock is passed in.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Trouble: TypeAlias = Literal["fault", "unreachable", "unauthorized"]
"""A 5xx or a broken answer; nobody listens; 401 or 403."""

Reason: TypeAlias = Literal["capacity", "fault", "unreachable", "unauthorized"]
"""Why nothing is sent: a `Trouble`, or a server that takes no more for now."""

TROUBLES = 8
"""
So many troubles in a row close a gate. Chosen: of a server that fails one job
in three as many follow each other once in some six thousand, and to one that
is down few are sent beyond those that were under way.
"""

TROUBLES_PER_SUCCESS = 1
"""Successes of jobs sent earlier keep a gate open up to so many times their number. Chosen."""

PROBE_MIN = 0.5
PROBE_SHARE = 0.05
PROBE_MAX = 8.0
"""
Seconds between two probes: that share of the time the gate has been closed, but
at least the first and at most the last. The random part takes off up to a
quarter. Chosen: some two requests a second at the most, and the longest wait of
`RetryPolicy`.
"""

HOLD_UNSAID = 0.5
"""
Seconds for which a type is held when a job gives up on a server that takes
none of it and does not say when it will. Chosen: `RetryPolicy`'s first wait.
"""

HOLD_LONG = 60.0
"""
A Retry-After of so many seconds holds its type though others of it are served:
no worker is busy for so long by chance, it is a quota. Chosen.
"""


@dataclass(frozen=True, slots=True)
class Held:
    """
    Why nothing is sent now.

    Attributes:
        reason: In a word.
        until: Clock time before which nothing will be sent; ``None`` when the
            first success ends it, whenever that is.
    """

    reason: Reason
    until: float | None


class Gate:
    """
    Lets jobs pass, or one probe at a time.

    Args:
        rand: Returns a number from 0 up to 1, for the random part of a wait.

    Attributes:
        reason: Why it is closed; ``None`` while it is open.
        since: When it was closed.
    """

    __slots__ = (
        "_first_at", "_hold_until", "_passed", "_probe_at", "_probing", "_rand", "_refusals",
        "_troubles", "reason", "since",
    )  # fmt: skip

    def __init__(self, rand: Callable[[], float] = random.random) -> None:
        self._rand = rand
        self._open()

    def __repr__(self) -> str:
        return f"<Gate {f'closed: {self.reason}' if self.reason else 'open'}>"

    def _open(self) -> None:
        self.reason: Reason | None = None
        self.since = inf
        self._troubles = self._refusals = self._passed = 0
        self._first_at = inf  # when the first of the troubles in a row was heard of
        self._probe_at = self._hold_until = -inf
        self._probing = False

    def may_start(self, now: float) -> bool:
        """Return whether a job may start: the gate is open, or a probe is due."""
        if self.reason is None:
            return True
        if now < self.since:  # another loop's clock: trio's starts anywhere
            self._open()
            return True
        return not self._probing and now >= self._probe_at

    def next_change(self) -> float:
        """Return when `may_start` may turn true with no event in between; infinity if never."""
        return inf if self.reason is None or self._probing else self._probe_at

    def held(self, now: float) -> Held | None:
        """Return why it is closed, and until when at least."""
        if self.reason is None:
            return None
        return Held(self.reason, self._hold_until if self._hold_until > now else None)

    def started(self) -> bool:
        """Note a start that `may_start` allowed; returns whether it is a probe."""
        if self.reason is None:
            return False
        self._probing = True
        return True

    def succeeded(self, began: float, *, probe: bool) -> None:
        """
        Note that the server did what it is there for.

        Args:
            began: When that attempt was sent.
            probe: It was this gate's probe.
        """
        if probe or began >= self._first_at:
            self._open()
        elif self._troubles:
            self._passed += 1

    def troubled(self, now: float, what: Trouble, *, probe: bool, at_once: bool) -> None:
        """Note an attempt that met trouble; ``at_once``: close without waiting for more."""
        self._first_at = min(self._first_at, now)
        self._troubles += 1
        self._refusals += what == "unauthorized"
        # While it is closed only a probe tells more: the others were sent before.
        if probe or (self.reason is None and (at_once or self._is_enough())):
            self._close(now, what)

    def hold(self, now: float, seconds: float) -> None:
        """Close: the server takes nothing for so long."""
        self._first_at = now  # what was sent before does not contradict it
        self._hold_until = max(self._hold_until, now + seconds)
        self._shut(now, "capacity", self._hold_until)

    def probe_ended(self, now: float) -> None:
        """Note that a probe is over; if it told nothing, the next follows in a moment."""
        if self._probing:
            self._probing = False
            self._probe_at = now + PROBE_MIN

    def _is_enough(self) -> bool:
        return self._refusals >= TROUBLES or self._troubles >= max(
            TROUBLES, TROUBLES_PER_SUCCESS * self._passed
        )

    def _close(self, now: float, what: Trouble) -> None:
        closed_for = now - self.since  # less than any time for one that was open until now
        wait = min(PROBE_MAX, max(PROBE_MIN, PROBE_SHARE * closed_for))
        self._shut(now, what, max(now + wait * (1 - 0.25 * self._rand()), self._hold_until))

    def _shut(self, now: float, reason: Reason, probe_at: float) -> None:
        if self.reason is None:
            self.since = now
        self.reason = reason
        self._probing = False
        self._probe_at = probe_at
