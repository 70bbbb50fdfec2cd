"""
What the report shows, as numbers: read from the record in a few passes, whatever its size.

`Figures` is plain; drawing is elsewhere.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from ._decide import State
from ._values import dollars_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

MOST_CAUSES = 12
BUCKETS = 400
"""Points of the throughput's curve, whatever the run's length. Chosen: about one a pixel pair."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Failures that have one cause: how many, one of them, and what to do."""

    count: int
    what: str
    example: str
    row: int
    advice: str
    is_doubt: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """
    What a report shows.

    Attributes:
        times: Seconds a job took, each with how many jobs did.
        throughput: For each bucket: its start in seconds, rows done a second, refusals a second.
        breaks: Seconds at which one run ended and the next began.
        causes: Why rows failed or are in doubt, the most frequent first.
        other_failures: Rows whose cause is not listed.
        types: Job types, with the rows of each.
        refusals: Answers 429, all runs together.
    """

    times: Sequence[tuple[float, int]]
    throughput: Sequence[tuple[float, float, float]]
    breaks: Sequence[float]
    causes: Sequence[Cause]
    other_failures: int
    types: Sequence[tuple[str, int]]
    refusals: int

    @property
    def jobs(self) -> int:
        """How many jobs are done; rows that are equal to one are none of their own."""
        return sum(count for _, count in self.times)

    def percentile(self, share: float) -> float | None:
        """Return the seconds that this share of the jobs did not exceed."""
        if not self.times:
            return None
        seen = 0
        for seconds, count in self.times:
            seen += count
            if seen >= share * self.jobs:
                return seconds
        return self.times[-1][0]


def figures(connection: sqlite3.Connection, lost: Sequence[int] = ()) -> Figures:
    """
    Read them.

    Args:
        connection: Of the record.
        lost: Rows that were with the server when the last process died.
    """
    times = [
        (ms / 1000, count)
        for ms, count in connection.execute(
            "SELECT ms, count(*) FROM job WHERE state=2 AND ms IS NOT NULL GROUP BY ms ORDER BY ms"
        )
    ]
    samples = connection.execute("SELECT s, t, done, refused FROM sample ORDER BY s, t").fetchall()
    throughput, breaks, refusals = curve(samples)
    failed = connection.execute("SELECT i, state, error FROM job WHERE state IN (3, 4, 6)")
    died = "InDoubt: the process ended while the job was with the server"
    listed, others = causes(chain(failed, ((i, State.IN_DOUBT, died) for i in lost)))
    types = connection.execute(
        "SELECT name, count(*) FROM job JOIN type ON type.t = job.type WHERE state<>5 "
        "GROUP BY name ORDER BY 2 DESC LIMIT 6"
    ).fetchall()
    return Figures(times, throughput, breaks, listed, others, types, refusals)


def curve(
    samples: Sequence[tuple[int, int, int, int]],
) -> tuple[list[tuple[float, float, float]], list[float], int]:
    """
    Turn samples, taken once a second, into a curve of rates.

    Args:
        samples: Session, second within it, rows done and refusals so far in it.

    Returns:
        Points (seconds, done a second, refusals a second), the places where one
        run followed another, and all refusals together.
    """
    steps: list[tuple[float, float, float, float]] = []
    breaks: list[float] = []
    base = 0.0
    refusals = 0
    last: tuple[int, int, int, int] | None = None
    for sample in samples:
        session, t, done, refused = sample
        if last is not None and last[0] == session:
            seconds = t - last[1]
            new = max(0, done - last[2])
            more = max(0, refused - last[3])
            refusals += more
            steps.append((base + last[1], seconds, new, more))
        elif last is not None:
            base += last[1] + 1.0
            breaks.append(base)
        last = sample
    end = steps[-1][0] + steps[-1][1] if steps else 0.0
    width = max(1.0, end / BUCKETS)
    count = int(end / width) + 1 if steps else 0
    done_in, refused_in = [0.0] * count, [0.0] * count
    for start, span, finished, turned_away in steps:
        # A step that was long, since the machine slept, is spread over its seconds.
        first, past = int(start / width), int((start + span - 1e-9) / width) + 1
        for bucket in range(first, min(past, count)):
            done_in[bucket] += finished / (past - first)
            refused_in[bucket] += turned_away / (past - first)
    points = [
        (bucket * width, done_in[bucket] / width, refused_in[bucket] / width)
        for bucket in range(count)
    ]
    return points[:-1] if len(points) > 2 else points, breaks, refusals


def causes(
    failed: Iterable[tuple[int, int, str | None]],
) -> tuple[list[Cause], int]:
    """Group failures by what they say, without the numbers and names that differ."""
    counts: Counter[tuple[str, bool]] = Counter()
    first: dict[tuple[str, bool], tuple[int, str]] = {}
    others = 0
    for i, state, error in failed:
        text = error or "no reason was recorded"
        key = (alike(text), state == 4)
        if key not in counts and len(counts) >= 1000:
            others += 1
            continue
        counts[key] += 1
        first.setdefault(key, (i, text))
    listed = [
        Cause(count, key[0], first[key][1], first[key][0], _advice(first[key][1], key[1]), key[1])
        for key, count in counts.most_common(MOST_CAUSES)
    ]
    return listed, others + sum(counts.values()) - sum(cause.count for cause in listed)


def _advice(error: str, is_doubt: bool) -> str:
    said = advice(error)
    return f"{said} {DOUBT}" if is_doubt and DOUBT not in said else said


def alike(error: str) -> str:
    """Return what errors of one cause have in common."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "…", error)
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "…", text)
    text = re.sub(r"\d+(\.\d+)?", "…", text)
    return text[:160]


DOUBT = "It may have been paid. The next run sends it again, unless --on-doubt hold."

ADVICE = {
    "Invalid": "The row is no job. Mend the file and run it again: what is done stays done.",
    "BadRequestError": "The server refuses the settings; nothing was charged. Mend the rows.",
    "JobFailedError": "It ran and failed. Look at the prompt or the input, then --retry-failed.",
    "JobRefusedError": "The server refuses it and did not run it. Mend the rows.",
    "InvalidRequestError": "It was never sent. Mend the row or its input files.",
    "ServerError": "A fault of the service. Run it again with --retry-failed.",
    "InDoubt": DOUBT,
    "JobNotFoundError": "The result expired before it was collected. The next run makes it again.",
    "ConnectionLostError": "The connection broke after it was sent.",
    "APITimeoutError": "No answer came in time; a larger timeout waits longer.",
    "DeadlineExceededError": "Its deadline was too short for a busy server.",
    "PayloadTooLargeError": "Its input files are too large for this type.",
    "ConnectError": "The server could not be reached; run it again with --retry-failed.",
    "ContentFilteredError": "The service's filter objects to it.",
    "TruncatedResponseError": "It was paid and arrived damaged; what came whole is in damaged/.",
    "MalformedResponseError": "It was paid and arrived damaged; what came whole is in damaged/.",
    "ResponseTooLargeError": "Raise max_response_bytes.",
}


def advice(error: str) -> str:
    """Say what to do about an error, by its class."""
    return ADVICE.get(error.partition(":")[0], "Read the error, then --retry-failed.")


def money_line(dollars: float, count: int) -> str:
    """Say what a job cost."""
    return f"{dollars_text(dollars / count)} a job" if count and dollars else ""
