"""
What one job has been through: its attempts, what each came to, and what follows from them.

Pure: the clock is passed in, nothing waits, and nothing here knows of errors
or sockets. What happened to the job in an attempt is its *fate*, and decides
everything else, since the API documents no idempotency key:

==============  ======================================  =======  ============
fate            cases                                   may run  frees worker
==============  ======================================  =======  ============
succeeded       the answer was read to its end          ran      yes
not run         429: no idle worker                     no       had none
undelivered     no connection, request not fully sent   no       had none
server fault    500, 502, 503, 504 and other 5xx        may      nobody knows
uncertain       silence or a break after it was sent    may      nobody knows
refused         400, 401, 403, 404, 413, other 4xx      no       had none
ran             a damaged answer, a failed job          ran      yes
==============  ======================================  =======  ============
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Fate: TypeAlias = Literal[
    "succeeded", "not run", "undelivered", "server fault", "uncertain", "refused", "ran"
]
"""What an attempt came to; the table at the top of this module."""

MAY_HAVE_RUN: frozenset[Fate] = frozenset({"succeeded", "server fault", "uncertain", "ran"})
"""The fates of a job that may have run, and so may have been charged."""

FREES_A_WORKER: frozenset[Fate] = frozenset({"succeeded", "ran"})
"""The fates after which a worker of the server's is known to be idle again."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One exchange for a job."""

    number: int
    """From 1."""
    fate: Fate
    """What it came to."""
    status_code: int | None
    """The HTTP status, or ``None`` if none came."""
    request_id: str | None
    """The ``x-request-id`` header, if one came."""
    seconds: float
    """How long it took."""
    retry_after: float | None = None
    """Seconds the server asked us to wait, if it did."""
    wait: float = 0.0
    """Seconds waited after it before the next; 0 after the last."""
    error: str | None = None
    """The error it ended with, by class name; ``None`` on success."""

    def __str__(self) -> str:
        what = str(self.status_code or self.error or self.fate)
        return f"{what} then {self.wait:.1f} s" if self.wait else what


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one job went. All in seconds."""

    queued: float
    """Waiting for a slot, including waits after a refusal (429)."""
    backoff: float
    """Waiting between attempts after a fault."""
    running: float
    """In attempts, from the first byte out to the last byte in."""
    total: float
    """From the call to its end."""


class Attempts:
    """
    The attempts of one job, oldest first.

    Args:
        began: When the job took its place in line.

    Attributes:
        began: As given.
        faults: Attempts that ended in anything but success or a refusal for capacity.
        drawn: Retries that were paid from the retry budget.
        refusals: Refusals for capacity since anything else happened.
        refused_since: Since when the server has taken no job of this type,
            nor done anything with this one; what `max_capacity_wait` bounds.
    """

    __slots__ = (
        "_backoff", "_ended", "_running", "_started", "began", "drawn", "faults", "refusals",
        "refused_since",
    )  # fmt: skip

    def __init__(self, began: float) -> None:
        self.began = self.refused_since = began
        self.faults = 0
        self.refusals = 0
        self.drawn = 0
        self._ended: list[Attempt] = []
        self._started: float | None = None
        self._running = self._backoff = 0.0

    def __len__(self) -> int:
        return len(self._ended)

    @property
    def all(self) -> tuple[Attempt, ...]:
        """Those that have ended, oldest first."""
        return tuple(self._ended)

    @property
    def last(self) -> Attempt | None:
        """The one that ended last, if any did."""
        return self._ended[-1] if self._ended else None

    @property
    def number(self) -> int:
        """The number of the one that is under way, or comes next; from 1."""
        return len(self._ended) + 1

    @property
    def is_under_way(self) -> bool:
        """Whether one has started and not ended."""
        return self._started is not None

    @property
    def may_have_run(self) -> bool:
        """Whether any of those that have ended may have run the job."""
        return any(attempt.fate in MAY_HAVE_RUN for attempt in self._ended)

    @property
    def frees_a_worker(self) -> bool:
        """Whether the last one left a worker idle, as a damaged answer does too."""
        return bool(self._ended) and self._ended[-1].fate in FREES_A_WORKER

    def start(self, now: float) -> None:
        """Note that an attempt is about to be sent."""
        self._started = now

    def end(
        self,
        now: float,
        fate: Fate,
        *,
        status_code: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        error: str | None = None,
        accepted: float = float("-inf"),
    ) -> Attempt:
        """
        Note how the attempt under way ended, in the words of `Attempt`.

        ``accepted`` is when the server last accepted any job of the type: it
        is not so that it takes none.
        """
        assert self._started is not None  # noqa: S101  (`start` came before)
        seconds = now - self._started
        self._started = None
        self._running += seconds
        attempt = Attempt(
            self.number, fate, status_code, request_id, seconds, retry_after, error=error
        )
        self._ended.append(attempt)
        if fate == "not run":
            self.refusals += 1
            self.refused_since = max(self.refused_since, accepted)
            return attempt
        self.refusals = 0
        if fate != "undelivered":  # else the server did nothing with it
            self.refused_since = now
        self.faults += fate != "succeeded"
        return attempt

    def waits(self, seconds: float, *, drawn: bool = False) -> Attempt:
        """
        Note how long the wait after the last attempt is, and return that attempt.

        Args:
            seconds: Until the next one may start.
            drawn: Whether the next one was drawn from the retry budget.
        """
        last = self._ended[-1] = replace(self._ended[-1], wait=seconds)
        if last.fate != "not run":  # that wait is spent in line
            self._backoff += seconds
        self.drawn += drawn
        return last

    def spent(self, now: float) -> Timing:
        """Return where the time went up to ``now``."""
        total = now - self.began
        queued = max(0.0, total - self._running - self._backoff)
        return Timing(queued, self._backoff, self._running, total)
