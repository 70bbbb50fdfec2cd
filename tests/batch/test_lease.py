"""Whether a driver still lives, as one worker sees it, with the clock passed in."""

from __future__ import annotations

import pytest

from prodia_async.batch._lease import LeaseView


def test_before_anything_was_seen() -> None:
    """Nobody has said that work may start, and nobody will."""
    view = LeaseView(10.0)
    assert not view.holds(0.0)
    assert view.is_over(0.0)


@pytest.mark.parametrize(
    ("at", "holds", "is_over"),
    [
        (100.0, True, False),
        (109.9, True, False),
        (110.0, False, False),
        (119.9, False, False),
        (120.0, False, True),
    ],
)
def test_how_long_a_change_counts(at: float, holds: bool, is_over: bool) -> None:
    """Work starts for the length of the lease; after twice that it is given up."""
    view = LeaseView(10.0)
    view.seen(1, 100.0)
    assert (view.holds(at), view.is_over(at)) == (holds, is_over)


def test_the_first_beat_counts_whatever_it_is() -> None:
    """Nothing was seen before it, and an empty object is not nothing."""
    view = LeaseView(10.0)
    view.seen("", 100.0)
    assert view.holds(109.0)


def test_the_same_twice_is_no_sign_of_life() -> None:
    """Only a change renews the lease."""
    view = LeaseView(10.0)
    view.seen(1, 100.0)
    view.seen(1, 109.0)
    assert not view.holds(110.0)
    view.seen(2, 111.0)
    assert view.holds(120.9)


def test_one_that_was_given_up() -> None:
    """Nothing starts and nobody waits, though it was renewed just now; until it is taken again."""
    view = LeaseView(10.0)
    view.seen(1, 100.0, released=True)
    assert not view.holds(100.0)
    assert view.is_over(100.0)
    view.seen(2, 101.0)
    assert view.holds(101.0)
    assert not view.is_over(101.0)


def test_its_repr() -> None:
    """It says how long it holds, and whether it was given up."""
    view = LeaseView(2.5)
    assert repr(view) == "<LeaseView of 2.5 s>"
    view.seen(1, 0.0, released=True)
    assert repr(view) == "<LeaseView of 2.5 s, released>"
