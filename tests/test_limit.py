"""What is learned of the server's capacity, with the clock passed in."""

from __future__ import annotations

from math import inf

import pytest

from prodia_async._limit import GAP_EVERY, GAP_MEMORY, LONG_GAPS, Fixed, Limit


def test_slow_start_doubles_with_every_silence() -> None:
    """A limit that no refusal contradicts for two round trips is doubled."""
    limit = Limit(64)
    seen = []
    now = 0.0
    for _ in range(4):
        seen.append(limit.limit)
        limit.started(limit.limit, now)
        assert not limit.may_start(limit.limit, now + 0.09)
        now = limit.next_change(limit.limit, now)
        limit.may_start(limit.limit, now)
    assert seen == [16, 32, 64, 64]
    assert limit.next_change(64, now) == inf


def test_silence_counts_from_the_moment_the_limit_is_reached() -> None:
    """Time that passes below the limit confirms nothing."""
    limit = Limit(64)
    limit.started(15, 0.0)
    assert limit.may_start(15, 50.0)
    assert not limit.may_start(16, 50.0)
    limit.started(16, 50.0)
    assert limit.next_change(16, 50.0) == pytest.approx(50.1)


def test_a_burst_of_refusals_is_one_cut_to_what_is_being_served() -> None:
    """Twelve refusals out of 32 leave a limit of 20."""
    limit = Limit(64)
    limit.limit = 32
    for left in range(31, 19, -1):
        limit.refused(left, 1.0, 1.0, 0.02)
    assert limit.limit == 20
    assert limit._strangers == 0


def learned(served: int, wait: float = 1.0, best: int = 64) -> Limit:
    """What is known after one job too many was refused at the time 1.0; more were served once."""
    limit = Limit(64)
    limit.limit = served + 1
    limit.refused(served, 1.0, wait, 0.02)
    limit._best = best
    return limit


def serve(
    limit: Limit | Fixed, count: int, *, held_back: bool = True, may_probe: bool = True
) -> list[int]:
    """Complete jobs of a second, as if at the time 9.0; the limits seen on the way."""
    seen = []
    for _ in range(count):
        limit.served(9.0, 1.0, backlog=1e9 if held_back else 0, may_probe=may_probe)
        seen.append(limit.limit)
    return seen


@pytest.mark.parametrize(("served", "due"), [(1, 3), (3, 9), (5, 10), (20, 20)])
def test_a_probe_is_due_after_about_a_job_time(served: int, due: int) -> None:
    """Below what was served before, one job more is tried once per so many completions."""
    limit = learned(served)
    assert serve(limit, due) == [served] * (due - 1) + [served + 1]


@pytest.mark.parametrize(("wait", "due"), [(0.1, 20), (1.0, 40), (3.0, 120), (4.9, 160)])
def test_a_probe_is_rare_where_nothing_was_ever_better(wait: float, due: int) -> None:
    """Once in two Retry-Afters, but within eight job times."""
    limit = learned(20, wait, best=20)
    assert serve(limit, due) == [20] * (due - 1) + [21]


def test_the_best_is_what_was_served() -> None:
    """Not what was on its way when the first of a burst was refused."""
    limit = Limit(64)
    limit.limit = 32
    for left in (31, 30, 29):
        limit.refused(left, 1.0, 1.0, 0.02)
    serve(limit, 1)
    assert limit._best == 29


@pytest.mark.parametrize(("backlog", "probes"), [(39, False), (40, True)])
def test_no_probe_that_the_jobs_left_cannot_repay(backlog: int, probes: bool) -> None:
    """A refusal's wait and the job itself must fit into the time the jobs left take."""
    limit = learned(20)
    for _ in range(50):
        limit.served(9.0, 1.0, backlog=backlog, may_probe=True)
    assert (limit.limit > 20) is probes


def test_a_probe_that_is_served_is_followed_by_larger_ones() -> None:
    """Jobs shorter than the silence confirm a limit by a round of completions."""
    limit = learned(4)
    serve(limit, 10)
    assert limit.limit == 5
    assert serve(limit, 5) == [5] * 4 + [7]
    assert serve(limit, 7)[-1] == 11
    assert serve(limit, 100)[-1] == 64


def test_growth_stops_unless_the_limit_is_what_holds_jobs_back() -> None:
    """Completions with an empty queue, or with too many waiting, raise nothing."""
    limit = learned(4)
    assert serve(limit, 100, held_back=False)[-1] == 4
    assert serve(limit, 100, may_probe=False)[-1] == 4


def test_nothing_in_flight_means_the_servers_clock() -> None:
    """Refused with nothing else under way, nobody starts before the latest Retry-After."""
    limit = Limit(64)
    limit.refused(1, 10.0, 5.0, 0.02)
    limit.refused(0, 11.0, 1.0, 0.02)
    assert limit.may_start(0, 11.0) is False
    assert limit.may_start(0, 14.9) is False
    assert limit.next_change(0, 14.9) == 15.0
    assert limit.may_start(0, 15.0)
    assert limit.limit == 1


def test_a_completion_overrules_the_servers_clock() -> None:
    """After a job was served there is an idle worker, whatever was said before."""
    limit = Limit(64)
    limit.refused(1, 10.0, 30.0, 0.02)
    limit.served(11.0, 1.0, backlog=9, may_probe=True)
    assert limit.may_start(0, 11.0)


def test_times_of_another_loop_hold_nobody_back() -> None:
    """A clock that starts anew, as trio's does in each run, ends a wait."""
    limit = Limit(64)
    limit.refused(0, 1e6, 100.0, 0.02)
    assert limit.may_start(0, 50.0)
    limit.refused(0, 50.0, 1.0, 0.02)
    assert limit.next_change(0, 50.5) == 51.0


def gap_after(limit: Limit, completions: int) -> float:
    """How long no job starts in the place of the last one that was completed."""
    served = limit.limit
    serve(limit, completions)
    assert limit.may_start(served - 2, 9.0)
    return 0.0 if limit.may_start(served - 1, 9.0) else limit.next_change(served - 1, 9.0) - 9.0


@pytest.mark.parametrize(("wait", "gap"), [(1.0, 0.125), (5.0, 0.25)])
def test_among_strangers_a_worker_is_left_idle_now_and_then(wait: float, gap: float) -> None:
    """A worker taken by somebody else is answered by short gaps; twice as long for long waits."""
    limit = learned(20, wait)
    limit.refused(19, 2.0, wait, 0.02)
    assert gap_after(limit, GAP_EVERY - 1) == 0
    assert gap_after(limit, 1) == pytest.approx(gap)
    assert limit.may_start(18, 9.26)


@pytest.mark.parametrize(
    ("served", "wait", "gap"), [(20, 4.9, 0), (20, 5.0, 0.125), (6, 5.0, 0.125), (5, 5.0, 0)]
)
def test_a_long_wait_leaves_gaps_for_those_who_have_nothing(
    served: int, wait: float, gap: float
) -> None:
    """They would never be noticed otherwise, since they knock once per Retry-After."""
    limit = learned(served, wait)
    every = -(-served // LONG_GAPS)
    assert gap_after(limit, every - 1) == 0
    assert gap_after(limit, 1) == pytest.approx(gap)


def test_among_strangers_all_probe_equally_often() -> None:
    """Once per job time whatever the share, and less often while a Retry-After lasts."""
    limit = learned(2)
    limit.refused(1, 2.0, 1.0, 0.02)
    assert serve(limit, 1) == [2]
    limit.refused(1, 8.5, 1.0, 0.02)
    assert serve(limit, 3) == [1, 1, 2]


@pytest.mark.parametrize(
    ("left", "now", "probes"), [(2, 9.0, False), (2, 13.6, True), (1, 9.0, True)]
)
def test_while_a_long_wait_lasts_only_the_poorest_probe(
    left: int, now: float, probes: bool
) -> None:
    """Who has more than one job in flight would find each gap before those who have none."""
    limit = learned(left + 1, 5.0)
    limit.refused(left, 8.5, 5.0, 0.02)
    for _ in range(20):
        limit.served(now, 1.0, backlog=inf, may_probe=True)
    assert (limit.limit > left) is probes


def test_strangers_are_forgotten() -> None:
    """Fifty quiet job times after the last sign of strangers probes are seldom again."""
    limit = learned(2)
    limit.refused(1, 2.0, 1.0, 0.02)
    serve(limit, 2 * GAP_MEMORY)
    limit.refused(1, 3.0, 1.0, 60.0)
    assert serve(limit, 3) == [1, 1, 2]


def test_a_fixed_limit_learns_nothing() -> None:
    """With adaptive=False neither refusals nor completions change who may start."""
    limit = Fixed(7)
    limit.refused(0, 1.0, 100.0, 0.02)
    limit.started(7, 1.0)
    serve(limit, 100)
    assert limit.limit == 7
    assert limit.may_start(0, 1.0)
    assert not limit.may_start(7, 1.0)


def test_silence_after_a_probe_lets_it_rise_by_larger_ones() -> None:
    """By 1, 2 and 4 beyond what was known, one silence each."""
    limit = learned(20)
    serve(limit, 20)
    seen = []
    now = 10.0
    for _ in range(3):
        seen.append(limit.limit)
        limit.started(limit.limit, now)
        now = limit.next_change(limit.limit, now)
        assert limit.may_start(limit.limit, now)
    assert [*seen, limit.limit] == [21, 23, 27, 35]


@pytest.mark.parametrize(
    ("trips", "silence"),
    [([0.2], 0.4), ([0.01], 0.08), ([0.4, 0.1], 0.65), ([0.1, 0.4], 0.8), ([0.001] * 40, 0.05)],
)
def test_silence_is_two_round_trips_of_a_refusal(trips: list[float], silence: float) -> None:
    """Slower ones count at once, quicker ones little by little, and there is a least."""
    limit = Limit(64)
    limit.limit = 32
    for trip in trips:
        limit.refused(20, 1.0, 1.0, trip)
    serve(limit, 200)
    limit.limit, limit._step, limit._confirmed_at = 21, 1, inf
    limit.started(21, 50.0)
    assert limit.next_change(21, 50.0) - 50.0 == pytest.approx(silence)


def test_the_time_a_job_takes_is_a_mean_of_the_last_ones() -> None:
    """The first counts whole, each further one a tenth."""
    limit = learned(20)
    for seconds in (2.0, 3.0, 2.0):
        limit.served(9.0, seconds, backlog=0, may_probe=True)
    assert limit._job_seconds == pytest.approx(2.09)


@pytest.mark.parametrize(("wait", "is_long"), [(9.9, False), (10.0, True)])
def test_long_is_by_the_time_a_job_takes(wait: float, is_long: bool) -> None:
    """Ten seconds are five job times of two seconds."""
    limit = learned(20, wait)
    limit.served(9.0, 2.0, backlog=0, may_probe=True)
    assert limit._is_long() is is_long


def test_whose_refusal_shows_a_stranger() -> None:
    """One without a probe of ours, below what was served, and not of the same burst."""
    limit = learned(20)
    limit.refused(20, 5.0, 1.0, 0.02)
    assert limit._strangers == 0  # all that were served still are
    limit.refused(19, 5.01, 1.0, 0.02)
    assert limit._strangers == 0  # sent before the last refusal was heard
    limit.refused(18, 5.02, 1.0, 0.01)
    assert limit._strangers == GAP_MEMORY * 19
    alone = learned(1)
    alone.refused(0, 1.001, 1.0, 0.02)
    assert alone._strangers == GAP_MEMORY


def test_completions_are_counted_from_the_last_refusal() -> None:
    """A refusal starts the wait for the next probe anew."""
    limit = learned(20)
    assert serve(limit, 19)[-1] == 20
    limit.refused(20, 9.0, 1.0, 0.02)
    assert serve(limit, 20) == [20] * 19 + [21]


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_how_rare_a_probe_is_depends_on_the_time_a_job_takes(seconds: float) -> None:
    """Two Retry-Afters of two seconds are eight jobs of half a second, or two of two."""
    limit = learned(20, 2.0, best=20)
    done = 0
    while limit.limit == 20:
        limit.served(9.0, seconds, backlog=inf, may_probe=True)
        done += 1
    assert done == 20 * 4 / seconds


def test_short_jobs_confirm_the_first_limit() -> None:
    """A round of them, none refused, does what a silence does."""
    assert serve(Limit(64), 48) == [16] * 15 + [32] * 32 + [64]


def test_with_nothing_known_nothing_is_waited_for() -> None:
    """Below the limit time changes nothing any more."""
    limit = Limit(64)
    assert limit.may_start(3, 0.5)
    assert limit.next_change(3, 0.5) <= 0.5


def test_a_completion_overrules_the_servers_clock_from_the_first_second() -> None:
    """A loop's clock may start at zero."""
    limit = Limit(64)
    limit.refused(1, 0.1, 5.0, 0.02)
    limit.served(0.2, 0.1, backlog=0, may_probe=True)
    assert limit.may_start(0, 0.3)


def test_the_servers_clock_holds_only_who_has_nothing_in_flight() -> None:
    """With one in flight its completion will tell; another may start in the place of a third."""
    limit = Limit(64)
    limit.refused(2, 10.0, 5.0, 0.02)
    assert limit.may_start(1, 11.0)
    assert limit.next_change(1, 11.0) <= 11.0
    assert not limit.may_start(0, 11.0)
    assert limit.next_change(0, 11.0) == 15.0


def test_a_silence_begins_once() -> None:
    """With the first start that reaches the limit; it ends when nothing is in flight."""
    limit = Limit(64)
    limit.started(16, 0.0)
    limit.started(16, 0.05)
    assert limit.next_change(16, 0.05) == pytest.approx(0.1)
    limit.started(1, 50.0)
    assert limit.next_change(16, 50.0) == inf
    limit.started(2, 50.0)
    limit.started(16, 50.0)
    assert not limit.may_start(16, 50.05)
    assert limit.next_change(16, 50.0) == pytest.approx(50.1)


def test_after_a_refusal_no_silence_is_waited_for() -> None:
    """Only completions lead to a probe."""
    limit = learned(20)
    limit.started(20, 2.0)
    assert limit.next_change(20, 2.0) == inf
    assert not limit.may_start(20, 99.0)


def test_at_the_bound_nothing_more_is_learned() -> None:
    """Once a probe has led to it."""
    limit = Limit(20)
    limit.limit = 20
    limit.refused(19, 1.0, 1.0, 0.02)
    limit._best = 20
    assert serve(limit, 19)[-1] == 20
    serve(limit, 100)
    assert (limit._base, limit._step, limit.limit) == (19, 1, 20)


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_gaps_come_again_and_again(seconds: float) -> None:
    """Each fifth worker is left idle, for an eighth of the time that a job takes."""
    limit = learned(20, 0.1)
    limit.refused(19, 2.0, 0.1, 0.02)
    gaps: list[tuple[int, float]] = []
    for now in range(10, 25):
        limit.served(now, seconds, backlog=inf, may_probe=False)
        if not limit.may_start(18, now):
            gaps.append((now, limit.next_change(18, now) - now))
            assert not limit.may_start(18, limit.next_change(18, now) - 0.001)
            assert limit.may_start(18, limit.next_change(18, now))
    assert [at for at, _ in gaps] == [14, 19, 24]
    assert [lasts for _, lasts in gaps] == pytest.approx([seconds / 8] * 3)


@pytest.mark.parametrize(
    ("seconds", "backlog", "probes"),
    [(2.0, 29, False), (2.0, 30, True), (0.5, 59, False), (0.5, 60, True)],
)
def test_what_the_jobs_left_repay_is_by_the_time_they_take(
    seconds: float, backlog: int, probes: bool
) -> None:
    """Twenty workers for a second's wait and one job more."""
    limit = learned(20)
    for _ in range(50):
        limit.served(9.0, seconds, backlog=backlog, may_probe=True)
    assert (limit.limit > 20) is probes


def test_how_long_strangers_are_remembered() -> None:
    """Fifty completions for each job that was served."""
    limit = learned(2)
    limit.refused(1, 2.0, 1.0, 0.02)
    serve(limit, 2 * GAP_MEMORY - 1, may_probe=False)
    assert limit._strangers == 1
    serve(limit, 2, may_probe=False)
    assert limit._strangers == 0


@pytest.mark.parametrize(("now", "due"), [(8.5, 3), (9.4, 3), (9.5, 1), (8.4, 1)])
def test_how_long_a_retry_after_lasts(now: float, due: int) -> None:
    """From the refusal on and up to its end, that excluded; then all probe once a job time."""
    limit = learned(2)
    limit.refused(1, 8.5, 1.0, 0.02)
    done = 0
    while limit.limit == 1:
        limit.served(now, 1.0, backlog=inf, may_probe=True)
        done += 1
    assert done == due
