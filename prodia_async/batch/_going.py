"""What a run is made of: its options, its counts, its rows, and where they come from."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from .._errors import InvalidRequestError
from .._keys import digest_bytes
from .._models import Job, JobRequest
from .._show import printable
from ._admit import Coming
from ._rows import mended_by, said_by
from ._values import BadRow, BatchJob

if TYPE_CHECKING:
    from ._decide import OnDoubt, State, Submit
    from ._trade import Asked, Flight


CHUNK_SECONDS = 0.01
"""How long rows are read together while nothing else runs. Chosen: what a user would not see."""


@dataclass(slots=True, eq=False)
class Going:
    """
    A row on its way.

    Attributes:
        held: What the record has it for, since an earlier run; it stays so until this one
            has come to another end.
        risky: How often this run has sent it and may have paid for it in vain.
        expires: Until when what it made can be had, by the clock of the run.
        late: How often its deadline passed before it was sent.
        answered: For how many of all such times it was sent once more.
        is_again: Whether it was sent last for one of them.
        retried: Whether it is sent, or was, once more after one of them, in this run.
    """

    i: int
    key: bytes
    id: str | None
    type: str
    line: str
    expected: int
    asked: Asked | None
    again: int = 0
    held: State | None = None
    risky: int = 0
    answered: int = 0
    late: int = 0
    is_again: bool = False
    job_id: str | None = None
    retried: bool = False
    returned: int = 0
    expires: float = 0.0
    not_before: float = 0.0
    equal: int = 0
    began: float = 0.0
    sent_at: float = 0.0
    turn_at: float | None = None
    flight: Flight | None = None
    scope: anyio.CancelScope | None = None
    is_sync: bool = False
    is_probe: bool = False
    has_landed: bool = False
    error: BaseException | None = None
    attempts: int = 0
    refusals: int = 0

    @property
    def own_flight(self) -> Flight:
        """How far it has come, of a row that is or was under way."""
        assert self.flight is not None  # noqa: S101  (set before anything is told of it)
        return self.flight


@dataclass(frozen=True, slots=True)
class Options:
    """What `Batch` was given."""

    submit: Submit
    on_doubt: OnDoubt
    retry_failed: bool
    max_cost: float | None
    price: float | None
    also: bool
    lease_seconds: float
    signals: bool


@dataclass(slots=True)
class Counts:
    """What is counted; rows, duplicates included."""

    done: int = 0
    before: int = 0
    failed: int = 0
    in_doubt: int = 0  # rows too: of jobs there are as many as `Standing.doubts`
    duplicates: int = 0
    seen: int = 0
    again: int = 0
    finished: int = 0
    notes: list[str] = field(default_factory=list)


class Source:
    """Rows from whatever was given, a few at a time."""

    def __init__(self, jobs: Any) -> None:
        if isinstance(jobs, str | bytes | Mapping | BatchJob) or not isinstance(
            jobs, Iterable | AsyncIterable
        ):
            raise InvalidRequestError(
                f"a batch takes an iterable of jobs, not {type(jobs).__name__}; for a file: "
                "read_jobs(path)"
            )
        self.total = len(jobs) if isinstance(jobs, Sized) else getattr(jobs, "total", None)
        self._chunks: AsyncIterator[list[Any]] | None = None
        self._async: AsyncIterator[Any] | None = None
        self._plain: Iterator[Any] | None = None
        self._error: Exception | None = None
        if hasattr(jobs, "chunks"):
            self._chunks = jobs.chunks()
        elif isinstance(jobs, AsyncIterable):
            self._async = aiter(jobs)
        else:
            self._plain = iter(jobs)

    async def some(self, most: int) -> list[Any] | None:
        """
        Return the next rows, at least one; ``None`` when there are no more.

        Raises:
            BaseException: What the input raised, once the rows before it have been returned.
        """
        if self._error is not None:
            raise self._error
        if self._chunks is not None:
            return await anext(self._chunks, None)
        if self._async is not None:
            item = await anext(self._async, _END)
            return None if item is _END else [_as_given(item)]
        assert self._plain is not None  # noqa: S101  (it is one of the three)
        items = []
        until = time.monotonic() + CHUNK_SECONDS
        try:
            for item in self._plain:
                items.append(_as_given(item))
                if len(items) == most or time.monotonic() >= until:
                    break
        except Exception as error:
            if not items:
                raise
            self._error = error
        return items or None

    async def aclose(self) -> None:
        """Close what can be closed."""
        for each in (self._chunks, self._async):
            close = getattr(each, "aclose", None)
            if close is not None:
                with suppress(Exception), anyio.move_on_after(5):
                    await close()


_END = object()


def _as_given(value: Any) -> Any:
    """
    Return an item of the input as it is when it is given.

    A generator may fill one mapping anew for each row, and rows are sent after the next were read.
    """
    try:
        return _copy_of(value)
    except Exception:  # noqa: BLE001  (one that holds itself, or cannot be copied, is itself)
        return value


def _copy_of(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copy_of(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_copy_of(each) for each in value]
    if isinstance(value, BatchJob):
        return _with(value, request=_copy_of(value.request))
    if isinstance(value, JobRequest):
        inputs = tuple(value.inputs) if isinstance(value.inputs, list) else value.inputs
        headers, query = _copy_of(value.extra_headers), _copy_of(value.extra_query)
        job = _copy_of(value.job)
        return _with(value, job=job, inputs=inputs, extra_headers=headers, extra_query=query)
    if isinstance(value, Job):
        return _with(value, config=_copy_of(value.config), jobs=_copy_of(value.jobs))
    return value


def _with(value: Any, **changes: Any) -> Any:
    """Return a copy with other values: `replace` calls a class, which may take other arguments."""
    made = copy(value)
    for name, each in changes.items():
        object.__setattr__(made, name, each)
    return made


def no_job(n: int, item: Any, error: InvalidRequestError) -> Coming:
    """Return an item of the input that the API cannot take."""
    line = getattr(item, "line", n + 1)
    return bad_row(n, BadRow(line, error.message, row=said_by(item)))


def bad_row(n: int, row: BadRow) -> Coming:
    mends = mended_by(row)  # which it has not done yet: it is the same row
    said = f"bad row {row.line} {row.why} {row.start}"
    key = mends or digest_bytes(said.encode(errors="replace"))
    bad = BadRow(row.line, printable(row.why), printable(row.start), row.row)
    return Coming(n, key, None, bad, mends=mends)
