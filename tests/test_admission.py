"""Whether jobs may be sent at all, with the clock passed in."""

from __future__ import annotations

from math import inf

import pytest

from prodia_async._admission import (
    PROBE_MAX,
    PROBE_MIN,
    PROBE_SHARE,
    TROUBLES,
    TROUBLES_PER_SUCCESS,
    Gate,
    Held,
    Trouble,
)

NOW = 100.0


def gate() -> Gate:
    """A gate without randomness: nothing is taken off any wait."""
    return Gate(lambda: 0.0)


def troubled(gate: Gate, count: int, now: float = NOW, what: Trouble = "fault") -> Gate:
    for _ in range(count):
        gate.troubled(now, what, probe=False, at_once=False)
    return gate


def closed(now: float = NOW) -> Gate:
    return troubled(gate(), TROUBLES, now)


def fail_probe(gate: Gate, now: float) -> None:
    assert gate.may_start(now)
    assert gate.started()
    gate.troubled(now, "fault", probe=True, at_once=False)
    gate.probe_ended(now)


def test_it_closes_after_so_many_troubles_in_a_row() -> None:
    """Not before; then nothing starts, and it is told why."""
    each = troubled(gate(), TROUBLES - 1)
    assert each.may_start(NOW)
    assert not each.started()
    assert each.held(NOW) is None
    assert each.next_change() == inf
    assert repr(each) == "<Gate open>"
    troubled(each, 1)
    assert not each.may_start(NOW)
    assert each.held(NOW) == Held("fault", None)
    assert each.since == NOW
    assert repr(each) == "<Gate closed: fault>"


@pytest.mark.parametrize("what", ["fault", "unreachable", "unauthorized"])
def test_the_reason_is_the_latest_trouble(what: Trouble) -> None:
    """Troubles of every sort count together."""
    each = troubled(troubled(gate(), TROUBLES - 1), 1, what=what)
    assert each.reason == what


def test_an_empty_budget_closes_it_at_once() -> None:
    """One trouble is enough then."""
    each = gate()
    each.troubled(NOW, "fault", probe=False, at_once=True)
    assert each.reason == "fault"


def test_what_went_well_before_the_first_trouble_does_not_count() -> None:
    """An outage after a million good jobs is noticed as soon as any."""
    each = gate()
    for _ in range(1000):
        each.succeeded(NOW - 1, probe=False)
    assert troubled(each, TROUBLES).reason == "fault"


def test_a_success_after_the_first_trouble_starts_the_count_anew() -> None:
    """What was sent when troubles were known, and ended well, says that the server works."""
    each = troubled(gate(), TROUBLES - 1)
    each.succeeded(NOW, probe=False)
    troubled(each, TROUBLES - 1)
    assert each.reason is None


def test_a_success_that_was_sent_before_the_outage_does_not() -> None:
    """It is only held against the troubles by its number: of three, one is half an outage."""
    each = troubled(gate(), TROUBLES - 1)
    each.succeeded(NOW - 0.001, probe=False)
    troubled(each, 1, NOW + 1)
    assert each.reason == "fault"
    other = troubled(gate(), 1)
    passed = 1 + TROUBLES // TROUBLES_PER_SUCCESS
    for _ in range(passed):
        other.succeeded(NOW - 1, probe=False)
    troubled(other, TROUBLES_PER_SUCCESS * passed - 2)
    assert other.reason is None
    troubled(other, 1)
    assert other.reason == "fault"


@pytest.mark.parametrize("what", ["unauthorized", "fault", "unreachable"])
def test_a_credential_that_is_refused_is_refused_whatever_ends_well(what: Trouble) -> None:
    """A success of before says that a server works at times, and nothing of a credential."""
    each = troubled(gate(), 1, NOW, what)
    for _ in range(TROUBLES + 1):
        each.succeeded(NOW - 1, probe=False)
    troubled(each, TROUBLES - 2, NOW, what)
    assert each.reason is None
    troubled(each, 1, NOW, what)
    assert each.reason == ("unauthorized" if what == "unauthorized" else None)


def test_a_late_success_of_before_does_not_open_it() -> None:
    """Jobs that were under way when the server went down may still end well."""
    each = closed()
    each.succeeded(NOW - 1, probe=False)
    assert each.reason == "fault"
    each.succeeded(NOW, probe=False)
    assert each.reason is None


def test_late_troubles_of_before_change_nothing() -> None:
    """What was under way when it closed does not put the probe off."""
    each = closed()
    due = each.next_change()
    troubled(each, 5, NOW + 0.4, "unreachable")
    assert each.next_change() == due
    assert each.reason == "fault"


def test_one_probe_at_a_time() -> None:
    """The first after a moment; while it is under way no other, and no time for one."""
    each = closed()
    assert each.next_change() == NOW + PROBE_MIN
    assert not each.may_start(NOW + PROBE_MIN - 0.001)
    assert each.may_start(NOW + PROBE_MIN)
    assert each.started()
    assert not each.may_start(NOW + 50)
    assert each.next_change() == inf


def test_the_first_success_opens_it() -> None:
    """For all, and with nothing remembered."""
    each = closed()
    assert each.started()
    each.succeeded(NOW + PROBE_MIN, probe=True)
    each.probe_ended(NOW + 1)
    assert each.may_start(NOW + 1)
    assert each.since == inf
    troubled(each, TROUBLES - 1, NOW + 2)
    assert each.reason is None


def test_probes_become_rare_within_a_bound() -> None:
    """Half a second apart at first, then a share of the time it has been closed, then no rarer."""
    each = closed()
    waits = []
    now = NOW
    for _ in range(200):
        now = each.next_change()
        fail_probe(each, now)
        waits.append(each.next_change() - now)
    assert waits[0] == pytest.approx(PROBE_MIN)
    share = [wait / (time - NOW) for wait, time in zip(waits, _times(waits), strict=True)]
    assert min(share) <= PROBE_SHARE + 1e-9
    assert waits[-1] == pytest.approx(PROBE_MAX)
    assert waits == pytest.approx(sorted(waits))
    assert sum(time - NOW <= 10 for time in _times(waits)) <= 20


def _times(waits: list[float]) -> list[float]:
    times = [NOW + PROBE_MIN]
    for wait in waits[:-1]:
        times.append(times[-1] + wait)
    return times


def test_probes_of_many_clients_are_spread() -> None:
    """Up to a quarter is taken off each wait."""
    each = troubled(Gate(lambda: 0.999), TROUBLES)
    assert each.next_change() == pytest.approx(NOW + 0.75 * PROBE_MIN, abs=0.001)


def test_a_probe_that_tells_nothing_is_followed_by_another() -> None:
    """In a moment, so that jobs that all end so are not sent one upon the other."""
    each = closed()
    assert each.started()
    each.probe_ended(NOW + 7)
    assert not each.may_start(NOW + 7)
    assert each.may_start(NOW + 7 + PROBE_MIN)


def test_a_hold_lasts_as_long_as_was_asked() -> None:
    """No probe before; the longest counts; then one, and its success opens."""
    each = gate()
    each.hold(NOW, 3600)
    each.hold(NOW + 1, 10)
    assert each.held(NOW + 2) == Held("capacity", NOW + 3600)
    assert not each.may_start(NOW + 3599.9)
    each.succeeded(NOW + 0.5, probe=False)
    assert each.reason == "capacity"
    assert each.next_change() == NOW + 3600
    assert each.may_start(NOW + 3600)
    assert each.held(NOW + 3600) == Held("capacity", None)
    assert each.started()
    each.succeeded(NOW + 3600, probe=True)
    assert each.held(NOW + 3601) is None


def test_a_short_hold_is_over_when_it_is_over() -> None:
    """Its probe does not wait for the rhythm of an outage's."""
    each = gate()
    each.hold(NOW, 0.05)
    assert each.may_start(NOW + 0.05)


def test_a_hold_in_an_outage_puts_the_probe_off() -> None:
    """What the server asks for is a floor."""
    each = closed()
    each.hold(NOW, 30)
    fail_probe(each, NOW + 30)
    each.hold(NOW + 30, 5)
    assert each.next_change() == NOW + 35
    assert each.since == NOW


def test_a_clock_that_starts_anew_opens_it() -> None:
    """Another event loop, trio's above all, has another clock."""
    each = closed()
    assert each.may_start(5.0)
    assert each.reason is None
