"""
Rows against the record: which are new, which are done, which are equal to one under way.

`admit` runs in the record's thread, inside its transaction, and asks of the
record only what a few hundred rows need: two queries, whatever its size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ._decide import Overlap, State, differences, on_lookup
from ._record import Finish

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from ._decide import OnDoubt
    from ._record import Record
    from ._trade import Asked
    from ._values import BadRow


@dataclass(slots=True)
class Coming:
    """A row of the input: its number, and a job or why it is none."""

    n: int
    key: bytes
    asked: Asked | None
    bad: BadRow | None
    expected: int | None = None
    mends: bytes | None = None
    """The key of a row of the record that was no job, whose place it takes."""


Outcome: TypeAlias = Literal["take", "done", "failed", "in doubt", "same", "equal"]


@dataclass(slots=True)
class Placed:
    """
    What becomes of a row.

    Attributes:
        outcome: ``take`` it; it is ``done``, ``failed`` or ``in doubt`` already;
            it is the ``same`` row as one under way, or ``equal`` to one.
        i: The number it has in the record.
        again: How often it may have been paid before.
        is_duplicate: Whether it was written down as one of an earlier row.
        held: What the record had it for, of one that is to be run again.
    """

    outcome: Outcome
    i: int
    again: int = 0
    is_duplicate: bool = False
    held: State | None = None


@dataclass(slots=True)
class Admission:
    """What `admit` found."""

    placed: list[Placed] = field(default_factory=list)
    differences: tuple[str, ...] = ()


class Named:
    """The numbers of the record's rows that the input has named so far: a bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def __contains__(self, i: int) -> bool:
        byte = i >> 3
        return byte < len(self._bits) and bool(self._bits[byte] >> (i & 7) & 1)

    def add(self, numbers: Iterable[int]) -> None:
        """Note that these have been named."""
        for i in numbers:
            byte = i >> 3
            if byte >= len(self._bits):
                self._bits.extend(bytes(byte + 4096 - len(self._bits)))
            self._bits[byte] |= 1 << (i & 7)


def admit(
    connection: sqlite3.Connection,
    record: Record,
    rows: Sequence[Coming],
    *,
    under_way: Mapping[bytes, int],
    named: Named,
    on_doubt: OnDoubt,
    retry_failed: bool,
    is_first: bool,
    also: bool,
    session: int,
    at: int,
    is_enough: bool = True,
) -> Admission:
    """
    Place rows; those to be run are written down as taken.

    The first row that names one of the record's is that row, wherever it stands by
    now; another one that does is equal to it.

    Args:
        connection: Of the record.
        record: The record.
        rows: In their order.
        under_way: The numbers of rows that were under way *before* this was
            asked for, by their keys: one that ends meanwhile is found in it or in the record.
        named: What the input has named before; not changed here, for this may be called anew.
        on_doubt: As `Batch` takes it.
        retry_failed: As `Batch` takes it.
        is_first: Whether these are the first rows of the input.
        also: Whether other jobs than the folder's own are wanted.
        session: The run's number.
        at: Now, in milliseconds since the record began.
        is_enough: Whether the first rows need not be more for it to be told whether they are
            the folder's own; if they must, none is placed until one is known.
    """
    found = Admission()
    numbers = _numbers(connection, rows)
    known = _known(connection, rows)
    # What was left with the server in this run is not under way, and is paid for all the same.
    under_way = {**_left(connection), **under_way}
    if is_first and not also:
        found.differences = _differences(connection, rows, numbers, known)
        is_known = bool(known) or any(row.key in under_way for row in rows)
        if found.differences or not (is_known or is_enough):
            return found
    places = {}  # of rows that were no job and are mended: the numbers that they had
    for row in rows:
        number, state, _ = known.get(row.mends or b"", (0, None, 0))
        if state == State.INVALID:
            places[row.n] = number
            numbers[number] = (row.mends or b"", State.INVALID)
    new: dict[bytes, int] = {}
    mine: set[int] = set()
    next_free: int | None = None
    opens = []
    ids = []  # of rows that are done with, as the input has them now
    for row in rows:
        n = places.get(row.n, row.n)
        i = new.get(row.key, under_way.get(row.key, -1))
        if i >= 0:
            if i not in mine and i not in named:
                mine.add(i)
                found.placed.append(Placed("same", i))
            else:
                _duplicate(connection, record, row, n, numbers, session, at)
                found.placed.append(Placed("equal", i, is_duplicate=True))
            continue
        held = known.get(row.key)
        state = None if held is None else State(held[1])
        step = on_lookup(state, on_doubt=on_doubt, retry_failed=retry_failed)
        is_told_anew = row.bad is not None and row.key == row.mends
        if held is not None and step not in {"run", "run again"} and not is_told_anew:
            is_another = held[0] in mine or held[0] in named or row.n in places
            is_duplicate = is_another and _duplicate(
                connection, record, row, n, numbers, session, at
            )
            if not is_another and row.asked is not None and row.asked.id is not None:
                ids.append((row.asked.id, held[0]))
            mine.add(held[0])
            outcome: Outcome = {"done": "done", "in doubt": "in doubt"}.get(step, "failed")  # type: ignore[assignment]
            found.placed.append(Placed(outcome, *held[::2], is_duplicate))
            continue
        if held is not None:
            i = held[0]
        elif n not in numbers or numbers[n][1] == State.INVALID:
            i = n
        else:
            if next_free is None:
                # Beyond the numbers of these rows too, or one of them would be taken for it.
                next_free = max(_next_free(connection), rows[-1].n + 1)
            i, next_free = next_free, next_free + 1
        numbers[n] = (row.key, State.DONE)
        mine.add(i)
        if row.bad is not None:
            end = Finish(
                i, row.key, State.INVALID, None, session, "-", at=at,
                error=f"Invalid: line {row.bad.line}: {row.bad.why}",
                request=_bad_line(row.bad),
            )  # fmt: skip
            record.finish(connection, end)
            known[row.key] = (i, State.INVALID, 0)
            found.placed.append(Placed("failed", i))
            continue
        assert row.asked is not None  # noqa: S101  (a row is a job, or bad)
        again = held[2] if held is not None else 0
        new[row.key] = i
        found.placed.append(Placed("take", i, again, held=state))
        opens.append(
            (
                i,
                row.key,
                row.asked.id,
                row.asked.type,
                row.expected,
                again,
                line_text(row.asked.line),
            )
        )
    connection.executemany(
        "INSERT OR REPLACE INTO open(i, k, id, type, expected, again, request) "
        "VALUES(?,?,?,?,?,?,?)",
        opens,
    )
    connection.executemany("UPDATE job SET id=?1 WHERE i=?2 AND id IS NOT ?1", ids)
    return found


def forget_bad(connection: sqlite3.Connection, named: Named) -> None:
    """Forget the rows that were no jobs, and that an input that was read to its end has not got."""
    bad = connection.execute("SELECT i FROM job WHERE state=6").fetchall()
    gone = [each for each in bad if each[0] not in named]
    connection.executemany("DELETE FROM job WHERE i=?", gone)
    connection.executemany("DELETE FROM request WHERE i=?", gone)


MOST_ROW_BYTES = 1 << 16
"""Of a row that is no job, as it is kept to be mended. Chosen: a prompt has some KB."""


def _bad_line(bad: BadRow) -> str:
    """Write down what a row says that is no job."""
    facts: dict[str, Any] = {"invalid": bad.start, "line": bad.line, "why": bad.why}
    if bad.row is not None:
        text = json.dumps({**facts, "row": bad.row}, default=_plain)
        if len(text) <= MOST_ROW_BYTES:
            return text
    return json.dumps(facts)


def line_text(line: Mapping[str, Any]) -> str:
    """Write a job's line in ASCII: a path may hold what is no UTF-8, which SQLite refuses."""
    return json.dumps(line, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    if hasattr(value, "items"):
        return dict(value.items())
    return str(value)


def _numbers(
    connection: sqlite3.Connection, rows: Sequence[Coming]
) -> dict[int, tuple[bytes, int]]:
    """Return what the record has at these rows' numbers: key and state."""
    low, high = rows[0].n, rows[-1].n
    found = {
        i: (k, state)
        for i, k, state in connection.execute(
            "SELECT i, k, state FROM job WHERE i BETWEEN ? AND ?", (low, high)
        )
    }
    for i, k in connection.execute("SELECT i, k FROM open WHERE i BETWEEN ? AND ?", (low, high)):
        found[i] = (k, State.DONE)
    return found


def _known(
    connection: sqlite3.Connection, rows: Sequence[Coming]
) -> dict[bytes, tuple[int, int, int]]:
    """Return the record's rows of these keys: number, state, how often perhaps paid besides."""
    keys = list({row.key for row in rows} | {row.mends for row in rows if row.mends})
    found: dict[bytes, tuple[int, int, int]] = {}
    for start in range(0, len(keys), 500):
        some = keys[start : start + 500]
        marks = ",".join("?" * len(some))
        for k, i, state, again in connection.execute(
            # A price that it has, though it came to nothing, was paid as well.
            "SELECT k, i, state, ifnull(again, 0) + (state IN (3, 4) AND price IS NOT NULL) "  # noqa: S608
            f"FROM job WHERE k IN ({marks}) AND state<>5",
            some,
        ):
            found[k] = (i, state, again)
    return found


def _left(connection: sqlite3.Connection) -> dict[bytes, int]:
    """Return the numbers of the rows that are with the server, by their keys."""
    return dict(connection.execute("SELECT k, i FROM open WHERE job_id IS NOT NULL"))


def _next_free(connection: sqlite3.Connection) -> int:
    highest = connection.execute(
        "SELECT max(ifnull((SELECT max(i) FROM job), -1), ifnull((SELECT max(i) FROM open), -1))"
    ).fetchone()[0]
    return int(highest) + 1


def _duplicate(  # noqa: PLR0917  (all that a row is)
    connection: sqlite3.Connection,
    record: Record,
    row: Coming,
    n: int,
    numbers: dict[int, tuple[bytes, int]],
    session: int,
    at: int,
) -> bool:
    """Write a row down as equal to an earlier one, unless its number says that it only moved."""
    if n in numbers and numbers[n][0] != row.mends:
        return False
    numbers[n] = (row.key, State.DUPLICATE)
    job_type = row.asked.type if row.asked is not None else "-"
    id_ = row.asked.id if row.asked is not None else None
    end = Finish(n, row.key, State.DUPLICATE, id_, session, job_type, at=at)
    record.finish(connection, end)
    return True


def _differences(
    connection: sqlite3.Connection,
    rows: Sequence[Coming],
    numbers: Mapping[int, tuple[bytes, int]],
    known: Mapping[bytes, object],
) -> tuple[str, ...]:
    others = []
    same = 0
    for row in rows:
        held = numbers.get(row.n)
        if row.asked is None or held is None or held[1] == State.INVALID:
            continue
        if held[0] == row.key:  # known, or with the server
            same += 1
            continue
        line = connection.execute("SELECT line FROM request WHERE i=?", (row.n,)).fetchone()
        if line is not None:
            others.append((json.loads(line[0]), json.loads(line_text(row.asked.line))))
    return differences(Overlap(len(known) + same, others))


def differences_of(connection: sqlite3.Connection, rows: Sequence[Coming]) -> tuple[str, ...]:
    """Say what makes the first rows of an input others than those of a record."""
    return _differences(connection, rows, _numbers(connection, rows), _known(connection, rows))
