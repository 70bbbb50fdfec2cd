"""What was planned on request: replies in place of the real answer, mishaps, jobs that fail."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ._refusals import TEXTS, phrase

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


def seconds_text(seconds: float) -> str:
    """Write a Retry-After: whole seconds without a fraction, others with one."""
    return str(int(seconds)) if seconds == int(seconds) else str(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedReply:
    """An answer decided beforehand."""

    status: int = 503
    """The HTTP status."""
    body: bytes | None = None
    """
    The body; ``None`` makes a failed job result of a 400 and a line of plain text of anything
    else.
    """
    content_type: str = "text/plain; charset=utf-8"
    """Of `body`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers, as they stand."""
    charged: bool = False
    """
    Whether the ledger counts a job as run and charged all the same, as a server that fails
    after its work would.
    """
    before_body: bool = False
    """Whether it is sent before the request's body is read."""

    @property
    def text(self) -> str:
        """The line that stands for a body that was not given."""
        return TEXTS.get(self.status) or phrase(self.status)


Framing = Literal["close", "length", "chunked"]
"""
How an answer that ends early claims its length: not at all, so that the end of
the connection is its end; with the length it should have had; in chunks, with
the last one in its place, so that for HTTP it is whole.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    """
    What goes wrong with an answer on its way; the work is done, and charged, all the same.

    Attributes:
        at: ``sent``: nothing goes out; ``head``: half of the head; ``body``: `share` of the body.
        share: Of the body, how much goes out: 0 to 1, and never all of it.
        framing: ``None`` resets the connection then; else it ends in good order.
        bytes_per_second: The pace of an answer that is whole, but slow.
        first_byte: Seconds until its first byte.
    """

    at: Literal["sent", "head", "body"] = "body"
    share: float = 0.0
    framing: Framing | None = None
    bytes_per_second: float | None = None
    first_byte: float = 0.0

    def __str__(self) -> str:
        if self.bytes_per_second is not None:
            return "slow"
        if self.framing is not None:
            return "truncated"
        return f"dropped at {self.share if self.at == 'body' else self.at}"


class Script:
    """Planned replies and mishaps in the order in which requests will get them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # any thread may plan
        self._planned: deque[tuple[PlannedReply | Mishap, int]] = deque()
        """With how many requests are still to get it."""

    def __len__(self) -> int:
        with self._lock:
            return sum(count for _, count in self._planned)

    def add(self, planned: PlannedReply | Mishap, count: int) -> None:
        """Plan the same for the next `count` requests."""
        if count > 0:
            with self._lock:
                self._planned.append((planned, count))

    def take(self) -> PlannedReply | Mishap | None:
        """Take what is planned for the request that has just arrived, if anything is."""
        with self._lock:
            if not self._planned:
                return None
            planned, count = self._planned.popleft()
            if count > 1:
                self._planned.appendleft((planned, count - 1))
            return planned

    def clear(self) -> None:
        """Forget what was planned."""
        with self._lock:
            self._planned.clear()


@dataclass(slots=True)
class _Failure:
    """Jobs that will fail: how many are left (``None``: all), which ones, and why."""

    left: int | None
    error: str
    type: str | None
    prompt: str | None


class Failures:
    """Jobs that a worker will run and that will end ``failed``; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planned: list[_Failure] = []

    def add(self, count: int | None, error: str, type: str | None, prompt: str | None) -> None:
        """Plan the next `count` jobs of that type, with that in their prompt, to fail."""
        with self._lock:
            self._planned.append(_Failure(count, error, type, prompt))

    def take(self, types: Collection[str], prompts: str) -> str | None:
        """Find the error for a job that is about to run, if it shall fail."""
        if not self._planned:
            return None
        with self._lock:
            for planned in self._planned:
                if planned.type is not None and planned.type not in types:
                    continue
                if planned.prompt is not None and planned.prompt not in prompts:
                    continue
                if planned.left is not None:
                    planned.left -= 1
                    if not planned.left:
                        self._planned.remove(planned)
                return planned.error
        return None

    def clear(self) -> None:
        """Forget what was planned."""
        with self._lock:
            self._planned.clear()


@dataclass(frozen=True, slots=True)
class Plans:
    """What was planned on request: replies to jobs, replies to reads, jobs that fail."""

    jobs: Script = field(default_factory=Script)
    reads: Script = field(default_factory=Script)
    failures: Failures = field(default_factory=Failures)
