"""What a run would do: the input read once, held against the record, and nothing sent."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from .._errors import InvalidRequestError
from .._show import printable
from ._admit import Coming, differences_of
from ._decide import NANO, Purse, State, on_lookup
from ._going import Source, bad_row, no_job
from ._opening import RECORD
from ._record import connect
from ._rows import mended_by
from ._run import MOST_FIRST_ROWS
from ._snapshot import Snapshot
from ._values import BadRow, BatchPlan, Figure

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable, Mapping
    from pathlib import Path

    from ._going import Options
    from ._trade import Trade

CHUNK = 256
"""Rows that are looked up together. Chosen."""

MOST_INVALID = 100
"""Invalid rows that a plan names. Chosen."""

SAMPLES = 10


class Planner:
    """
    Adds up rows.

    Args:
        record: The folder's, at one moment; ``None`` when it is new.
        options: What the user wants.
    """

    def __init__(self, record: Snapshot | None, options: Options) -> None:
        self._record = record
        self._options = options
        # What was seen goes into a file of its own, which SQLite removes: a
        # million keys in a set would be a hundred megabytes.
        self._seen = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._seen.execute("CREATE TABLE seen(k BLOB PRIMARY KEY) WITHOUT ROWID")
        self._seen.execute("BEGIN")
        self.purse = Purse(options.max_cost)
        self._under_way: dict[bytes, State] = {}
        if record is not None:
            for row in record.under_way:
                is_doubtful = row.state == "in doubt"
                state = State.IN_DOUBT if is_doubtful else State.DONE
                self._under_way[bytes.fromhex(row.key)] = state
            with record.reading() as connection:
                query = "SELECT name, price FROM type WHERE price > 0"
                for name, price in connection.execute(query):
                    self.purse.seen(name, price)
        self.rows = self.duplicates = self.done = self.failed = self.in_doubt = self.to_run = 0
        self.invalid: list[BadRow] = []
        self.invalid_count = 0
        self.nano = 0
        self.unknown = 0
        self.estimated = 0
        self.seconds = 0.0
        self.no_seconds = 0
        self.samples: list[tuple[int, str]] = []
        self.every = 1
        self.differences: tuple[str, ...] = ()

    def close(self) -> None:
        """Forget what was seen."""
        self._seen.close()

    def add(self, rows: list[Coming], facts: list[Any]) -> None:
        """Add some rows. Blocks."""
        if not self.rows and self._record is not None:
            with self._record.reading() as connection:
                self.differences = differences_of(connection, rows)
        held = {} if self._record is None else states(self._record, rows, self._under_way)
        for row, fact in zip(rows, facts, strict=True):
            self.rows += 1
            if row.bad is not None:
                self.invalid_count += 1
                if len(self.invalid) < MOST_INVALID:
                    self.invalid.append(row.bad)
                continue
            new = self._seen.execute("INSERT OR IGNORE INTO seen VALUES(?)", (row.key,)).rowcount
            if not new:
                self.duplicates += 1
                continue
            state = held.get(row.key)
            if state is not None and self.rows <= MOST_FIRST_ROWS:
                self.differences = ()  # a list that was sorted anew
            step = on_lookup(
                state,
                on_doubt=self._options.on_doubt,
                retry_failed=self._options.retry_failed,
            )
            self.in_doubt += state == State.IN_DOUBT
            self.failed += state == State.FAILED
            if step == "done":
                self.done += 1
            elif step in {"run", "run again"}:
                self._to_run(row, fact)

    def _to_run(self, row: Coming, fact: Any) -> None:
        assert row.asked is not None  # noqa: S101  (bad rows went before)
        asked = row.asked
        expected = self.purse.expected(asked.type, fact.dollars)
        self.unknown += expected is None
        self.estimated += self.purse.known(asked.type) is None
        self.nano += expected or 0
        self.seconds += fact.seconds or 0.0
        self.no_seconds += fact.seconds is None
        if self.to_run % self.every == 0:
            line = json.dumps(asked.line, ensure_ascii=False, default=str)
            self.samples.append((self.to_run, printable(line[:300])))
            if len(self.samples) == 2 * SAMPLES:
                self.samples = self.samples[::2]
                self.every *= 2
        self.to_run += 1

    def plan(self, slots: int) -> BatchPlan:
        """Return the plan; ``slots`` is how many jobs are run at once."""
        if self.unknown:
            dollars = Figure(None, "unknown")
        else:
            dollars = Figure(self.nano / NANO, "estimated" if self.estimated else "known")
        seconds = Figure(None, "unknown")
        if not self.no_seconds:
            seconds = Figure(self.seconds / slots, "estimated")
        step = max(1, len(self.samples) // SAMPLES)
        return BatchPlan(
            rows=self.rows,
            invalid=tuple(self.invalid),
            invalid_count=self.invalid_count,
            duplicates=self.duplicates,
            done=self.done,
            failed_before=self.failed,
            in_doubt=self.in_doubt,
            to_run=self.to_run,
            dollars=dollars,
            seconds=seconds,
            samples=tuple(line for _, line in self.samples[::step][:SAMPLES]),
            differences=self.differences,
        )


def states(
    record: Snapshot, rows: list[Coming], under_way: Mapping[bytes, State]
) -> dict[bytes, State]:
    """Return what the record says of the rows' keys; what a run only has to collect is done."""
    keys = [row.key for row in rows]
    marks = ",".join("?" * len(keys))
    with record.reading() as connection:
        found = {
            k: State(state)
            for k, state in connection.execute(
                f"SELECT k, state FROM job WHERE k IN ({marks}) AND state<>5",  # noqa: S608  (question marks)
                keys,
            )
        }
    return {**found, **{key: under_way[key] for key in keys if key in under_way}}


async def make_plan(
    folder: Path, trade: Trade, options: Options, jobs: Iterable[Any] | AsyncIterable[Any]
) -> BatchPlan:
    """Read an input to its end and say what a run would do."""
    source = Source(jobs)
    path = folder / RECORD
    record = None
    connection = None
    if path.exists():
        connection = await anyio.to_thread.run_sync(lambda: connect(path, read_only=True))
        record = await anyio.to_thread.run_sync(Snapshot, folder, connection)
    planner = Planner(record, options)
    try:
        n = 0
        while (items := await source.some(CHUNK)) is not None:
            rows, facts = [], []
            for item in items:
                row = await _coming(trade, n, item)
                n += 1
                rows.append(row)
                facts.append(_facts(trade, options, row))
            await anyio.to_thread.run_sync(planner.add, rows, facts)
        return planner.plan(trade.max_concurrency())
    finally:
        with anyio.CancelScope(shield=True):
            await source.aclose()
        planner.close()
        if connection is not None:
            connection.close()


async def _coming(trade: Trade, n: int, item: Any) -> Coming:
    if isinstance(item, BadRow):
        return bad_row(n, item)
    try:
        asked = await trade.asked(item)
    except InvalidRequestError as error:
        return no_job(n, item, error)
    return Coming(n, asked.key, asked, None, mends=mended_by(item))


def _facts(trade: Trade, options: Options, row: Coming) -> Any:
    if row.asked is None:
        return None
    facts = trade.facts(row.asked)
    return replace(facts, dollars=options.price) if facts.dollars is None else facts
