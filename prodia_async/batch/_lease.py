"""
Whether the driver of a cluster's run is still there. Pure: the clock is passed in.

A driver that was killed leaves workers behind that would go on spending. So it
keeps an object in the store and changes it again and again; a worker that has
seen no change for the length of the lease starts nothing any more. Only changes
count, never the times that are written in it, so that no clock of another
machine is believed.
"""

from __future__ import annotations

from math import inf

RENEWALS = 3
"""How often a lease is renewed, and looked at, in its time. Chosen: two may be missed."""


class LeaseView:
    """
    What one worker has seen of the lease.

    Args:
        seconds: How long a lease holds without being renewed.
    """

    __slots__ = ("_changed_at", "_last", "_released", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._last: object = None
        self._changed_at = -inf
        self._released = False

    def __repr__(self) -> str:
        return f"<LeaseView of {self.seconds:g} s{', released' if self._released else ''}>"

    def seen(self, beat: object, now: float, *, released: bool = False) -> None:
        """Note what the object said; the same twice is no sign of life."""
        self._released = released
        if beat != self._last:
            self._last = beat
            self._changed_at = now

    def holds(self, now: float) -> bool:
        """Return whether work may be started."""
        return not self._released and now - self._changed_at < self.seconds

    def is_over(self, now: float) -> bool:
        """Return whether it was given up, or missed for so long that nobody will renew it."""
        return self._released or now - self._changed_at >= 2 * self.seconds
