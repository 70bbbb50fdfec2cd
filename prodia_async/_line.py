"""One job type's line: who waits for a slot, in which order, and what is known of the type."""

from __future__ import annotations

import heapq
from collections import deque
from enum import IntEnum
from math import inf
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ._limit import SILENCE_MIN, SILENCE_ROUND_TRIPS

if TYPE_CHECKING:
    from ._admission import Gate
    from ._limit import Fixed, Limit


class State(IntEnum):
    """Where a ticket is; from those up to WAITING it may ask for a slot."""

    NEW = 0  # has not asked yet
    IDLE = 1  # between two attempts
    WAITING = 2  # out a refusal
    QUEUED = 3
    IN_FLIGHT = 4
    CLOSED = 5


class Standing(Protocol):
    """
    A ticket, as far as its line is concerned.

    Attributes:
        age: Lower is older.
        state: Where it is.
        since: When it came there.
        was_refused: Whether it goes before all that were not.
    """

    age: int
    state: State
    since: float
    was_refused: bool


TicketT = TypeVar("TicketT", bound=Standing)


class Line(Generic[TicketT]):
    """One job type as one credential may ask for it: its limit, its gate, its queue."""

    __slots__ = (
        "counts", "dead", "flying", "fresh", "gate", "keeper", "limit", "name", "refused_since",
        "returned", "round_trip", "was_shut",
    )  # fmt: skip

    def __init__(self, name: str, limit: Limit | Fixed, gate: Gate) -> None:
        self.name = name
        self.limit = limit
        self.gate = gate
        self.counts = [0] * len(State)
        self.flying: dict[TicketT, None] = {}  # in flight, the one that was sent first in front
        self.refused_since = inf  # nothing was served since, and nothing is
        self.round_trip = 0.0  # of the latest refusal
        # Tickets that left the queue stay in these until they are met or outnumber the rest.
        self.fresh: deque[TicketT] = deque()  # by age
        self.returned: list[tuple[bool, int, TicketT]] = []  # heap: refused ones first, by age
        self.dead = 0
        self.keeper: TicketT | None = None  # the queued ticket that watches the clock
        self.was_shut = False

    @property
    def in_flight(self) -> int:
        """How many are with the server."""
        return self.counts[State.IN_FLIGHT]

    @property
    def queued(self) -> int:
        """How many wait for a slot."""
        return self.counts[State.QUEUED]

    def is_idle(self) -> bool:
        """Return whether no ticket is left that could ask for anything."""
        return not any(self.counts[: State.CLOSED]) and self.gate.reason is None

    def is_served(self, now: float) -> bool:
        """Return whether a job was not refused for so long that a worker must have it."""
        for oldest in self.flying:
            return now - oldest.since >= max(SILENCE_MIN, SILENCE_ROUND_TRIPS * self.round_trip)
        return False

    def push(self, ticket: TicketT) -> None:
        """Put a ticket into the queue."""
        if ticket.was_refused or (self.fresh and self.fresh[-1].age > ticket.age):
            heapq.heappush(self.returned, (not ticket.was_refused, ticket.age, ticket))
        else:
            self.fresh.append(ticket)

    def pop(self) -> TicketT:
        """Take the first in line; call only with somebody queued."""
        fresh, returned = self.fresh, self.returned
        while True:
            while fresh and fresh[0].state is not State.QUEUED:
                fresh.popleft()
                self.dead -= 1
            if returned and (not returned[0][0] or not fresh or returned[0][1] < fresh[0].age):
                ticket = heapq.heappop(returned)[2]
                if ticket.state is not State.QUEUED:
                    self.dead -= 1
                    continue
                return ticket
            return fresh.popleft()

    def last(self) -> TicketT:
        """Return one that is likely to be queued for long; call only with somebody queued."""
        while self.fresh:
            if self.fresh[-1].state is State.QUEUED:
                return self.fresh[-1]
            self.fresh.pop()
            self.dead -= 1
        while self.returned[-1][2].state is not State.QUEUED:
            self.returned.pop()  # a heap stays one without its last leaf
            self.dead -= 1
        return self.returned[-1][2]

    def forget(self) -> None:
        """Note that a queued ticket left, and sweep when those outnumber the rest."""
        self.dead += 1
        if self.dead > 64 and self.dead > self.queued:
            self.fresh = deque(t for t in self.fresh if t.state is State.QUEUED)
            self.returned = [e for e in self.returned if e[2].state is State.QUEUED]
            heapq.heapify(self.returned)
            self.dead = 0
