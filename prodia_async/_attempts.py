"""
What one job has been through: its attempts, what each came to, and what follows from them.

Pure: the clock is passed in, nothing waits, and nothing here knows of errors
or sockets. What happened to the job is its *fate*:

==============  ==========================================
fate            cases
==============  ==========================================
succeeded       the answer was read to its end
not run         429: no idle worker
undelivered     no connection, or the request not fully sent
server fault    5xx: it may have run
uncertain       silence or a broken connection afterwards
refused         400, 401, 403, 404, 413, other 4xx
ran             a damaged answer, a failed job
==============  ==========================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Fate: TypeAlias = Literal[
    "succeeded", "not run", "undelivered", "server fault", "uncertain", "refused", "ran"
]
"""What an attempt came to; the table at the top of this module."""

MAY_HAVE_RUN: frozenset[Fate] = frozenset({"succeeded", "server fault", "uncertain", "ran"})
"""The fates of a job that may have run, and so may have been charged."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    One exchange for a job.

    Attributes:
        number: From 1.
        fate: What it came to.
        status_code: The HTTP status, or ``None`` if none came.
        request_id: The ``x-request-id`` header, if one came.
        seconds: How long it took.
        retry_after: Seconds the server asked us to wait, if it did.
        wait: Seconds waited after it before the next; 0 after the last.
        error: The error it ended with, by class name; ``None`` on success.
    """

    number: int
    fate: Fate
    status_code: int | None
    request_id: str | None
    seconds: float
    retry_after: float | None = None
    wait: float = 0.0
    error: str | None = None

    def __str__(self) -> str:
        what = str(self.status_code or self.error or self.fate)
        return f"{what} then {self.wait:.1f} s" if self.wait else what
