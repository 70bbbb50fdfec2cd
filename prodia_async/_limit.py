"""
How many jobs of one type may be in flight, learned from what the server does.

The server has K workers and no queue: a job sent while all are busy is refused
at once (429, `Retry-After`). K is unknown, differs by job type, is shared with
strangers and changes. What is known:

* A refusal says that as many jobs as we have in flight *are* being served, so
  that number becomes the limit. Refusals of one burst lower the limit one by
  one to the same number, so a burst is one cut however many belong to it.
* A completion says that a worker has become idle. The next job starts at that
  moment (the *self-clock*): no worker waits for a timer, no timer is guessed.
* Silence says something too. A refusal comes at once, so jobs that were not
  refused within a few round trips are being served. While the limit is what
  holds jobs back, each such silence confirms it and lets it rise: at first by
  doubling, after a refusal again from a *probe* of one job, by 1, 2, 4 and so
  on while nothing is refused. A probe is due once per job time, seldom enough
  to cost few refusals.
* A refusal without a probe under way says that a *stranger* took the worker.
  Whoever has many jobs in flight then leaves a worker idle for a moment now
  and then, in proportion to what it has, and all probe equally often (less
  often while the latest `Retry-After` lasts). What is given up grows with the
  share and what is found does not, so shares become equal.
* Whoever has nothing in flight can knock only once per `Retry-After`. Where
  that is many job times, those who have much would never hear of those who
  have nothing, and would find every gap before them. Then gaps are left
  though no stranger was noticed, are twice as long, and nobody who has more
  than one job in flight probes while the latest `Retry-After` lasts.
* A probe that is refused costs its job a `Retry-After`. Near the end that is
  the end of all, so none is sent that the jobs left cannot repay.

With nothing of a type in flight there is no clock but the server's: nobody
starts before `Retry-After` has passed.
"""

from __future__ import annotations

from math import inf

INITIAL_LIMIT = 16
"""
Jobs of an unknown type that may start at once. Chosen by simulation: in a run
of a hundred jobs on 20 workers a start with 4 loses 8 per cent of it; with one
worker fifteen jobs hear a 429 that costs nothing, since the rest are waiting.
"""

FIRST_SILENCE = 0.1
"""Seconds without a refusal that confirm a limit before any refusal was timed. Chosen."""

SILENCE_ROUND_TRIPS = 2.0
SILENCE_MIN = 0.05
"""A limit is confirmed after so many times a refusal's round trip, and at least so long. Chosen."""

PROBE_JOB_TIMES = 3
PROBE_JOBS = 10
"""
A probe is due after `limit` completions, which is one job time; while that is
fewer than `PROBE_JOBS`, after that many or `PROBE_JOB_TIMES`, whichever is
sooner. Chosen by simulation (`benchmarks/scheduling.py`).
"""

PROBE_WAITS = 2
PROBE_JOB_TIMES_MAX = 8
"""
Where as many jobs are served as ever were, and no stranger was noticed, a probe
is due once in so many times the latest Retry-After, but within so many job
times: a refusal costs its job that wait, which near the end of a run is its
end. Below what was served before the rule above holds. Chosen by simulation.
"""

GAP_EVERY = 5
GAP_JOB_TIMES = 0.125
GAP_MEMORY = 50
"""
Among strangers one completion in so many leaves its worker idle for that part
of a job time; strangers are remembered for so many job times. Chosen by
simulation: costs one per cent of goodput while there are any, otherwise nothing.
"""

LONG_JOB_TIMES = 5.0
LONG_GAP = 2.0
LONG_GAPS = 6
LONG_GAP_FROM = 6
"""
A Retry-After of so many job times is long: gaps are so many times as long, and
whoever is known to be served so many jobs or more leaves so many gaps per job
time though it has noticed no stranger. Chosen by simulation: with ten clients
on 20 workers and ten job times Jain's index rises from between 0.3 and 0.9 to
0.94 or more, for 2 per cent of a single client's goodput on such a server.
"""


class Fixed:
    """``adaptive=False``: the limit is the bound, and a refusal holds back its own job only."""

    __slots__ = ("limit",)

    def __init__(self, max_concurrency: int) -> None:
        self.limit = max_concurrency

    def may_start(self, in_flight: int, now: float) -> bool:
        """Return whether the bound is not reached."""
        del now
        return in_flight < self.limit

    def next_change(self, in_flight: int, now: float) -> float:
        """Return infinity: time changes nothing."""
        del in_flight, now
        return inf

    def started(self, in_flight: int, now: float) -> None:
        """Learn nothing."""

    def served(self, now: float, seconds: float, *, backlog: float, may_probe: bool) -> None:
        """Learn nothing."""

    def refused(self, in_flight: int, now: float, wait: float, round_trip: float) -> None:
        """Learn nothing."""


class Limit:
    """
    What is known of the server's capacity for one job type. Pure: the clock is passed in.

    Attributes:
        limit: How many jobs may be in flight.
    """

    __slots__ = (
        "_asked_until", "_base", "_best", "_confirmed_at", "_credit", "_gap_credit", "_gap_from",
        "_gap_until", "_held_from", "_held_until", "_job_seconds", "_max", "_refused_at",
        "_round_trip", "_step", "_strangers", "limit",
    )  # fmt: skip

    def __init__(self, max_concurrency: int) -> None:
        self._max = max_concurrency
        self._base = 0  # known to be served
        self._best = 0  # the most that ever was
        self._step = min(INITIAL_LIMIT, max_concurrency)  # hoped for, beyond that
        self.limit = self._step
        self._confirmed_at = inf  # when silence will have confirmed `limit`
        self._credit = 0  # completions since `limit` last changed
        self._round_trip = FIRST_SILENCE / SILENCE_ROUND_TRIPS
        self._refused_at = self._asked_until = 0.0
        self._held_from = self._held_until = 0.0
        self._job_seconds = 0.0
        self._strangers = 0  # completions for which they are remembered
        self._gap_credit = 0
        self._gap_from = self._gap_until = 0.0

    def may_start(self, in_flight: int, now: float) -> bool:
        """Return whether one more job may start; a limit that silence confirmed rises."""
        if in_flight >= self.limit:
            if now < self._confirmed_at or self.limit >= self._max:
                return False
            self._raise(min(self._step * 2, self.limit))
        if in_flight == self.limit - 1 and self._gap_from <= now < self._gap_until:
            return False
        return in_flight > 0 or not self._held(now)

    def next_change(self, in_flight: int, now: float) -> float:
        """Return when `may_start` may turn true with no event in between; infinity if never."""
        if in_flight >= self.limit:
            return self._confirmed_at if self.limit < self._max else inf
        if in_flight == 0 and self._held(now):
            return self._held_until
        return self._gap_until

    def started(self, in_flight: int, now: float) -> None:
        """Note a start; `in_flight` counts it."""
        if in_flight == 1:
            self._confirmed_at = inf  # whatever was before does not speak for this one
        if self._step and in_flight >= self.limit and self._confirmed_at == inf:
            self._confirmed_at = now + max(SILENCE_MIN, SILENCE_ROUND_TRIPS * self._round_trip)

    def served(self, now: float, seconds: float, *, backlog: float, may_probe: bool) -> None:
        """
        Note a completion, before its job is taken from those in flight.

        Args:
            now: The clock.
            seconds: How long the attempt took.
            backlog: How many jobs a full limit holds back, those included
                that are not fetched yet; 0 when it is not full.
            may_probe: A refusal more would do no harm.
        """
        self._held_until = 0.0  # a worker is idle: what the server asked for is out of date
        self._job_seconds += (seconds - self._job_seconds) * (0.1 if self._job_seconds else 1.0)
        self._best = max(self._best, self._base)
        if not backlog:
            return
        self._leave_gap(now)
        self._credit += 1
        if self.limit >= self._max:
            return
        if self._step:
            # Jobs shorter than the silence confirm the limit themselves.
            if self._credit >= self.limit:
                self._raise(min(self._step * 2, self.limit))
        elif may_probe and self._credit >= self._probe_due(now) and self._is_repaid(backlog):
            self._raise(1)

    def _leave_gap(self, now: float) -> None:
        """Leave the worker idle for a moment, where strangers may look for one."""
        is_long = self._is_long()
        if self._strangers:
            self._strangers -= 1
            every, seconds = float(GAP_EVERY), GAP_JOB_TIMES * (LONG_GAP if is_long else 1.0)
        elif is_long and self._base >= LONG_GAP_FROM:
            every, seconds = self._base / LONG_GAPS, GAP_JOB_TIMES
        else:
            return
        self._gap_credit += 1
        if self._gap_credit >= every:
            self._gap_credit = 0
            self._gap_from, self._gap_until = now, now + seconds * self._job_seconds

    def _is_long(self) -> bool:
        """Return whether the latest Retry-After is many job times."""
        return self._asked_until - self._refused_at >= LONG_JOB_TIMES * self._job_seconds

    def _is_repaid(self, backlog: float) -> bool:
        """Return whether the jobs left keep the workers busy longer than a refusal would last."""
        wait = self._asked_until - self._refused_at
        return backlog * self._job_seconds >= (wait + self._job_seconds) * self.limit

    def refused(self, in_flight: int, now: float, wait: float, round_trip: float) -> None:
        """Note a refusal; `in_flight` no longer counts the refused job."""
        self._asked_until = until = now + wait
        self._held_until = max(self._held_until, until) if self._held(now) else until
        self._held_from = now
        self._round_trip = max(round_trip, 0.75 * self._round_trip + 0.25 * round_trip)
        # Without a probe under way, our own jobs cannot have taken the worker: a
        # stranger did. Nor if nothing of ours is there. (A job sent before the last
        # refusal belongs to the same burst as that one, and tells nothing new.)
        first_of_burst = now - round_trip >= self._refused_at
        if in_flight == 0 or (self._step == 0 and in_flight < self._base and first_of_burst):
            self._strangers = GAP_MEMORY * max(1, self._base)
        self._refused_at = now
        self._base = min(self.limit, in_flight)
        self._step = 0 if self._base else 1
        self.limit = self._base + self._step
        self._confirmed_at = inf
        self._credit = 0

    def _probe_due(self, now: float) -> float:
        """After how many completions a probe is due."""
        if self._strangers:
            # All probe equally often, whatever they have: that makes shares equal. While
            # the latest Retry-After lasts they do not: that keeps the crowd quiet.
            if not self._refused_at <= now < self._asked_until:
                return self._base
            if self._base > 1 and self._is_long():
                return inf
        due: float = max(self._base, min(PROBE_JOB_TIMES * self._base, PROBE_JOBS))
        if not self._strangers and self._base >= self._best and self._job_seconds:
            wait = self._asked_until - self._refused_at
            due *= max(1, min(PROBE_JOB_TIMES_MAX, PROBE_WAITS * wait / self._job_seconds))
        return due

    def _raise(self, step: int) -> None:
        self._base = self.limit
        self._step = step
        self.limit = min(self._base + step, self._max)
        self._confirmed_at = inf
        self._credit = 0

    def _held(self, now: float) -> bool:
        # A time before `_held_from` is another loop's clock: trio's starts anywhere.
        return self._held_from <= now < self._held_until
