"""What goes into a batch and what comes out of it: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .._checks import integer, string
from .._errors import InvalidRequestError, ProdiaError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._models import Job, JobRequest

Confidence: TypeAlias = Literal["known", "estimated", "unknown"]
"""How sure a figure is: told by answers of this run; from a table; by nobody."""

NO_WORD = "the process ended without a word"
NO_FOLDER = "the folder cannot be written any more"
"""Why a run stopped though nobody wanted it to."""

EXIT_DONE, EXIT_FAILED, EXIT_LEFT, EXIT_BROKEN = 0, 1, 2, 3


class BatchError(ProdiaError):
    """
    A batch could not keep its promise, or will not begin because it could not.

    The disk is full, the record is damaged or of a newer format, another run
    holds the folder, or the folder is where a record cannot be safe. What was
    finished is safe; the message says what to do, and a rerun goes on.
    """


class FolderInUseError(BatchError):
    """Another run, alive, holds the folder; the message names its process and host."""


class RecordDamagedError(BatchError):
    """The record cannot be read, or was written by a newer version."""


class BatchChangedError(InvalidRequestError):
    """These jobs are not the ones the folder was made for; nothing was sent."""

    differences: tuple[str, ...] = ()
    """What is different, one sentence each."""


class PriceUnknownError(InvalidRequestError):
    """``max_cost`` was given, and nobody knows what a job costs; nothing was sent."""


@dataclass(frozen=True, slots=True)
class BatchJob:
    """
    A job with a name of the user's own.

    Args:
        request: A `JobRequest`, a `Job`, a mapping of the wire form, or an
            order of `AsyncFireworks`.
        id: Any string; it stands in the manifest beside the job's output.
        sample: Equal jobs run once and share what they made. Another number
            here asks for one more of the same.

    Raises:
        InvalidRequestError: `id` is an empty string or none, or `sample` is no integer from 0.
    """

    request: JobRequest | Job | Mapping[str, Any] | Any
    id: str | None = None
    sample: int = 0

    def __post_init__(self) -> None:
        if self.id is not None:
            string("a batch job's id", self.id)
        integer("sample", self.sample)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row of an input file that is no job."""

    line: int
    """Where it stands, counted from 1 as an editor counts."""
    why: str
    """What is wrong with it, in one sentence."""
    start: str = ""
    """The first characters of it."""
    row: Mapping[str, Any] | None = field(default=None, repr=False)
    """What it says, as a line of an input file; ``None`` where it cannot be read, or is long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSummary:
    """What became of the rows of one `Batch.run`."""

    done: int = 0
    """Rows whose output is in the folder, duplicates and those from before included."""
    done_before: int = 0
    """How many of them were there before."""
    failed: int = 0
    """Rows that failed, now or before."""
    in_doubt: int = 0
    """Jobs that may have been paid and whose output nobody has; `Batch.in_doubt` names them."""
    left: int = 0
    """Rows that were seen and not run; more may be left behind them."""
    duplicates: int = 0
    """Rows that share the output of an equal one."""
    dollars: float = 0.0
    """
    What the folder's answers told that they cost, all runs together; of an answer that
    told nothing, what was expected.
    """
    doubtful_dollars: float = 0.0
    """What jobs in doubt may have cost on top of it, at most."""
    paid_again: int = 0
    """Jobs that were sent once more after they may have been paid."""
    seconds: float = 0.0
    """How long this run took."""
    stopped: str | None = None
    """Why it ended before its input did; ``None`` when it did not."""
    broken: str | None = None
    """What promise could not be kept; ``None`` when all were."""
    notes: tuple[str, ...] = ()
    """What else there is to know, one sentence each."""

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some failed, 2 stopped with work left, 3 a promise could not be kept."""
        if self.broken:
            return EXIT_BROKEN
        if self.stopped or self.left:
            return EXIT_LEFT
        return EXIT_FAILED if self.failed or self.in_doubt else EXIT_DONE

    def __str__(self) -> str:
        before = f" ({self.done_before:,} before)" if self.done_before else ""
        more = dollars_text(self.doubtful_dollars) if self.doubtful_dollars else ""
        doubt = f" (at most {more})" if more and self.in_doubt else ""
        # Nothing is in doubt any more, and what was paid in vain may have been.
        vain = f" (and perhaps {more} in vain)" if more and not self.in_doubt else ""
        parts = [
            f"{self.done:,} done{before}",
            f"{self.failed:,} failed",
            f"{self.in_doubt:,} in doubt{doubt}",
            *([f"{self.left:,} left"] if self.left else []),
            f"{dollars_text(self.dollars)}{vain}",
            seconds_text(self.seconds),
        ]
        text = ", ".join(parts)
        return f"{text}; stopped: {self.stopped}" if self.stopped else text


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and how sure it is."""

    value: float | None
    """``None`` when nobody knows."""
    confidence: Confidence
    """
    How sure it is: ``known`` (told by answers of this run), ``estimated`` (from a table),
    ``unknown``.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """What a run would do. Nothing was sent to find out."""

    rows: int
    """In the input, all together."""
    invalid: tuple[BadRow, ...]
    """Rows that are no jobs, in order; at most `MOST_INVALID` are named."""
    invalid_count: int
    """How many there are."""
    duplicates: int
    """Rows that are equal to an earlier one."""
    done: int
    """Rows whose output is in the folder already."""
    failed_before: int
    """Rows that failed in an earlier run."""
    in_doubt: int
    """Rows that may have been paid in an earlier run."""
    to_run: int
    """Jobs that would be sent."""
    dollars: Figure
    """What those would cost."""
    seconds: Figure
    """How long they would take, as many at once as the client allows."""
    samples: tuple[str, ...] = ()
    """Up to ten of them, evenly over the input, as one line of JSON each."""
    differences: tuple[str, ...] = ()
    """What makes these jobs others than those the folder was made for."""

    def __str__(self) -> str:
        lines = [
            (
                f"{counted(self.rows, 'row')}: {self.to_run:,} to run, {self.done:,} done already, "
                f"{counted(self.duplicates, 'duplicate')}, "
                f"{self.invalid_count:,} invalid"
            ),
        ]
        if self.failed_before or self.in_doubt:
            lines.append(f"before: {self.failed_before:,} failed, {self.in_doubt:,} in doubt")
        lines.append(f"cost: {_figure(self.dollars, dollars_text)}")
        lines.append(f"time: {_figure(self.seconds, seconds_text)}")
        lines += [f"line {row.line}: {row.why}" for row in self.invalid[:10]]
        if self.invalid_count > 10:
            lines.append(f"and {counted(self.invalid_count - 10, 'more invalid row')}")
        lines += [f"different: {each}" for each in self.differences]
        lines += [f"  {sample}" for sample in self.samples]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def _figure(figure: Figure, write: Any) -> str:
    if figure.value is None:
        return "unknown"
    return f"{write(figure.value)} ({figure.confidence})"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress:
    """How a run stands; at most four a second are told."""

    done: int
    """As in `BatchSummary`, so far."""
    failed: int
    """Likewise."""
    in_doubt: int
    """Likewise."""
    total: int | None
    """Rows in the input; ``None`` while that is not known."""
    in_flight: int
    """Jobs that are with the server now."""
    jobs_per_second: float
    """Finished over the last ten seconds or so."""
    refusals_per_second: float
    """Answers 429 over the same time."""
    dollars: float
    """What answers told so far, all runs of the folder together."""
    projected_dollars: float | None
    """What it will have cost at the end; ``None`` when that is not known."""
    seconds: float
    """Since the run began."""
    seconds_left: float | None
    """Expected; ``None`` when that is not known."""
    waiting_for: str | None = None
    """Why nothing new is sent, if nothing is; at the end, why it ended before its input did."""
    is_last: bool = False
    """Whether the run has ended."""

    def __str__(self) -> str:
        total = f"/{self.total:,}" if self.total is not None else ""
        parts = [
            f"{self.done:,}{total} done",
            f"{self.jobs_per_second:.3g}/s",
            f"{self.in_flight} in flight",
        ]
        if self.refusals_per_second >= 0.05:
            parts.append(f"{self.refusals_per_second:.2g} refused/s")
        parts.append(f"{self.failed:,} failed")
        if self.in_doubt:
            parts.append(f"{self.in_doubt:,} in doubt")
        projected = self.projected_dollars
        of = f" of about {dollars_text(projected)}" if projected is not None else ""
        parts.append(f"{dollars_text(self.dollars)}{of}")
        if self.seconds_left is not None and not self.is_last:
            parts.append(f"{seconds_text(self.seconds_left)} left")
        if self.waiting_for:
            parts.append(self.waiting_for)
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a record, as `BatchRecord.rows` gives it."""

    row: int
    """Its number in the input, from 0."""
    id: str | None
    """The user's own name for it."""
    key: str
    """Its content key, 32 hexadecimal digits."""
    state: str
    """
    ``done``, ``failed``, ``in doubt``, ``in flight`` or ``duplicate`` (of a row with the same
    key, whose output is given here as well).
    """
    path: str | None = None
    """Its first output, relative to the folder (or in `outputs`, or a URL)."""
    paths: tuple[str, ...] = ()
    """All its outputs."""
    shard: str | None = None
    """With layout ``tar``: the shard's path, and `path` is the member's name."""
    offset: int | None = None
    """Where the member's bytes begin in the shard."""
    bytes: int | None = None
    """Size of the first output."""
    sha256: str | None = None
    """Of the first output, in hexadecimal digits."""
    job_id: str | None = None
    """The server's id."""
    seed: int | None = None
    """The seed that made it."""
    seconds: float | None = None
    """From the moment it was taken up to its end."""
    attempts: int = 0
    """How often it was sent, refusals included."""
    refusals: int = 0
    """How many of these were refused for lack of capacity."""
    paid_again: int = 0
    """How often it may have been paid besides."""
    dollars: float | None = None
    """What its answer told that it cost."""
    error: str | None = None
    """What it failed with: a class name and a message."""
    request: Mapping[str, Any] | None = field(default=None, repr=False)
    """
    What was asked, as a line of an input file; ``None`` where the record of a large run keeps
    only a sample of them. Of a row that was no job: what it said, as far as it could be read,
    with its line number and what is wrong with it under ``_failed``.
    """
    finished_at: float | None = None
    """Seconds since the epoch."""


def dollars_text(dollars: float) -> str:
    """Write an amount: cents, or as many digits as a small one needs to be seen."""
    if dollars == 0 or dollars >= 1:
        return f"${dollars:,.2f}"
    return f"${dollars:.2g}" if dollars < 0.01 else f"${dollars:.3f}".removesuffix("0")


def counted(number: int, thing: str) -> str:
    """Write how many there are: ``1 row``, ``2 rows``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def seconds_text(seconds: float) -> str:
    """Write a time: ``0.4 s``, ``12 s``, ``12:41``, ``3:07:12``, ``2 d 03:07``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    days, hour = divmod(hours, 24)
    return f"{days} d {hour:02}:{minute:02}"
