"""A record as it stood at one moment, whatever a run writes meanwhile."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from .._errors import InvalidRequestError
from ._arrivals import find, last_arrived
from ._decide import NANO, State, is_in_doubt
from ._folder import FLIGHT, Reserve, boot_id, is_process, marks_of
from ._opening import is_same_boot, money
from ._outputs import open_store, relative, settled
from ._record import Finish, get, shard_name, unpacked_id
from ._values import NO_WORD, BatchSummary, RecordDamagedError, Row

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

_STATES = {
    State.DONE: "done",
    State.FAILED: "failed",
    State.IN_DOUBT: "in doubt",
    State.DUPLICATE: "duplicate",
    State.INVALID: "failed",
}

_ENDED = (State.DONE, State.FAILED, State.INVALID)
_OF = {"done": State.DONE, "failed": State.FAILED, "in doubt": State.IN_DOUBT}  # of rows under way

_SELECT = (
    "SELECT job.i, k, state, id, session, attempts, refusals, again, at, ms, job_id, seed, "
    "job.price, shard, off, bytes, sha256, ext, error, request.line "
    "FROM job LEFT JOIN request ON request.i = job.i"
)


class Piece(NamedTuple):
    """
    Where one output lies, and what it was when it was made safe.

    Attributes:
        path: As `Row.paths` has it.
        shard: With layout ``tar``: the shard that it is a member of.
        offset: Where it begins in the shard.
        size: Its bytes.
        sha256: In hexadecimal digits.
    """

    path: str
    shard: str | None = None
    offset: int | None = None
    size: int | None = None
    sha256: str | None = None


class Snapshot:
    """
    Reads what a folder held at one moment: all of it in one read transaction.

    What lies beside the record, in memory that outlives its process, is read
    just before, so that it says nothing of a run that the record does not know of.

    Args:
        folder: The run's.
        connection: That reads the record, and is in no transaction.

    Attributes:
        folder: The run's.
        is_running: Whether a process of this machine held the folder then, as far as can be told.
        place: Where its outputs are: a folder in it, or what `Batch` was given as `outputs`.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._connection = connection
        with self.reading():
            while not self._look(connection):  # a run has begun between two looks
                connection.execute("ROLLBACK")
            made_with = get(connection, "made with") or {}
            base = made_with.get("outputs")
            is_tar = made_with.get("layout") == "tar"
            self.place = settled(base) if base else ("shards" if is_tar else "out")
            self._prefix = "" if is_tar else f"{self.place.rstrip('/')}/"
            self._epoch = float(get(connection, "began") or 0)

    def _look(self, connection: sqlite3.Connection) -> bool:
        """Look at what lies beside the record, and then take the record as it stands."""
        before = get(connection, "lease") or {}
        is_alive = _is_alive(before)
        self._marks = marks_of(self.folder)
        self._are_marks_there = (self.folder / FLIGHT).is_file()
        self._arrived = {} if is_alive else last_arrived(connection, self.folder)
        self._kept = {
            (facts["i"], facts["k"]): (path, facts) for path, facts in Reserve(self.folder).kept()
        }
        connection.execute("BEGIN")
        self._lease = get(connection, "lease") or {}
        self.is_running = is_alive and not self._lease.get("released")
        return bool(self._lease.get("token") == before.get("token"))

    def __repr__(self) -> str:
        return f"<Snapshot of {str(self.folder)!r}>"

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """
        Give the connection, for a block; what SQLite raises in it is ours.

        Raises:
            RecordDamagedError: In the block: the record cannot be read.
        """
        try:
            yield self._connection
        except (sqlite3.DatabaseError, ValueError, TypeError, AttributeError) as error:
            # The last two are a value of another kind than its column holds.
            raise RecordDamagedError(f"the record in {self.folder} is damaged: {error}") from error

    def setting(self, name: str) -> Any:
        """
        Return one of the run's settings, or ``None``.

        Args:
            name: Of the setting, as the record has it.
        """
        with self.reading() as connection:
            return get(connection, name)

    def summary(self) -> BatchSummary:
        """Add up all rows of the folder, all its runs together."""
        with self.reading() as connection:
            states = dict(
                connection.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall()
            )
            under_way = connection.execute(
                "SELECT i, state, ifnull(open.expected, 0) FROM open LEFT JOIN job USING(i)"
            ).fetchall()
            told, doubtful, again = money(connection)
            (first,) = connection.execute(
                "SELECT count(*) FROM job WHERE state=4 AND again > 0"
            ).fetchone()
            for i, before, expected in under_way:
                row = self._open.get(i)
                if row is None:
                    continue
                if before is not None:
                    states[before] -= 1  # what it was, it is no more
                state = _OF.get(row.state)
                states[state] = states.get(state, 0) + 1
                mark = self._marks.get(i)
                risky = 1 if mark is None else mark.risky
                doubtful += expected * risky * (state == State.IN_DOUBT)
                told += round(NANO * (row.dollars or 0))
            (seconds,) = connection.execute(
                "SELECT sum(ifnull(max(0, ended - began), "
                "(SELECT max(t) FROM sample WHERE sample.s=session.s))) FROM session"
            ).fetchone()
            last = connection.execute(
                "SELECT s, ended, stopped FROM session ORDER BY s DESC LIMIT 1"
            ).fetchone()
            # An equal row is done, or has failed, with the one that was run.
            duplicates = states.get(State.DUPLICATE, 0)
            equal = dict(
                connection.execute(
                    "SELECT p.state, count(*) FROM job AS d JOIN job AS p ON p.k=d.k "
                    "WHERE d.state=5 AND p.state<>5 GROUP BY p.state"
                ).fetchall()
                if duplicates
                else ()
            )
            ended = [states.get(state, 0) + equal.get(state, 0) for state in _ENDED]
            left = get(connection, "left") or {}
        stopped, count = None, 0
        if last is not None and not self.is_running:
            number, is_over, why = last
            stopped = why if is_over is not None else NO_WORD
            # Of a process that died nobody knows more than what it had taken up.
            open_states = [self._open[i].state for i, *_ in under_way if i in self._open]
            count = len(under_way) - sum(state in _OF for state in open_states)
            count = left["rows"] if left.get("session") == number else count
        return BatchSummary(
            done=ended[0],
            failed=ended[1] + ended[2],
            in_doubt=states.get(State.IN_DOUBT, 0),
            left=count,
            duplicates=duplicates,
            dollars=told / NANO,
            doubtful_dollars=doubtful / NANO,
            paid_again=again - first,  # the first payment of one in doubt is no second one
            seconds=float(seconds or 0.0),
            stopped=stopped,
        )

    def rows(self) -> Iterator[Row]:
        """Yield every row, by its number; what is under way last."""
        yield from self._rows(f"{_SELECT} ORDER BY job.i")
        yield from self.under_way

    def failures(self) -> Iterator[Row]:
        """Yield the rows that failed, by their numbers."""
        yield from self._rows(f"{_SELECT} WHERE state IN (3, 6) ORDER BY job.i")
        yield from (row for row in self.under_way if row.state == "failed")

    def in_doubt(self) -> Iterator[Row]:
        """Yield the rows that may have been paid and whose output nobody has."""
        yield from self._rows(f"{_SELECT} WHERE state=4 ORDER BY job.i")
        yield from (row for row in self.under_way if row.state == "in doubt")

    def pick(self, numbers: Sequence[int]) -> list[Row]:
        """
        Return the rows of some numbers, in the order of the input.

        Args:
            numbers: As `Row.row` has them; what there is no row of is left out.
        """
        marks = ",".join("?" * len(numbers))
        return list(self._rows(f"{_SELECT} WHERE job.i IN ({marks}) ORDER BY job.i", numbers))

    def _rows(self, query: str, arguments: Sequence[object] = ()) -> Iterator[Row]:
        with self.reading() as connection:
            for values in connection.execute(query, arguments):
                if values[0] not in self._open:
                    yield self._row(values)

    def _row(self, values: tuple[Any, ...]) -> Row:
        i, k, state, id_ = values[:4]
        of = values
        if state == State.DUPLICATE:
            found = self._connection.execute(
                f"{_SELECT} WHERE k=? AND state<>5 LIMIT 1", (k,)
            ).fetchone()
            of = found or values
        (n, _, _, _, _, attempts, refusals, again, at, ms, job_id, seed, price, shard, off,
         size, sha256, ext, error, line) = of  # fmt: skip
        paths = self._paths(n, k, ext) if size is not None else ()
        return Row(
            row=i, id=id_, key=k.hex(), state=_STATES[State(state)],
            path=paths[0] if paths else None, paths=paths,
            shard=f"shards/shard-{shard:05}.tar" if shard is not None else None, offset=off,
            bytes=size, sha256=sha256.hex() if sha256 else None, job_id=unpacked_id(job_id),
            seed=seed, seconds=ms / 1000 if ms is not None else None, attempts=attempts or 0,
            refusals=refusals or 0, paid_again=again or 0,
            dollars=price / NANO if price is not None else None, error=error,
            request=_said(k, error, json.loads(line)) if line else None,
            finished_at=self._epoch + at / 1000 if at is not None else None,
        )  # fmt: skip

    def _paths(self, i: int, k: bytes, ext: str) -> tuple[str, ...]:
        more = self._connection.execute(
            "SELECT n, path FROM output WHERE i=? ORDER BY n", (i,)
        ).fetchall()
        names = {0: relative(i, k, ext), **dict(more)}
        return tuple(f"{self._prefix}{name}" for _, name in sorted(names.items()))

    @property
    def under_way(self) -> Collection[Row]:
        """The rows that had not come to their end."""
        return self._open.values()

    @cached_property
    def _open(self) -> dict[int, Row]:
        """The rows that are under way; what the record said of them before holds no more."""
        with self.reading() as connection:
            return {row.row: row for row in self._open_rows(connection)}

    def _open_rows(self, connection: sqlite3.Connection) -> Iterator[Row]:
        are_exact = is_same_boot(self._lease) and self._are_marks_there
        for i, k, id_, sent, known, line in connection.execute(
            "SELECT i, k, id, sent, job_id, request FROM open ORDER BY i"
        ):
            kept = self._kept.get((i, k.hex()))
            if kept is not None:
                yield self._kept_row(*kept, line)
                continue
            mark = self._marks.get(i)
            job_id = known or (mark.job_id if mark is not None else None)
            end = None if self.is_running else self._arrived.get(i)
            is_here = end is not None and end.k == k and find(self.folder, end) is not None
            job_id = job_id or (end.job_id if end is not None and is_here else None)
            is_doubtful = is_in_doubt(
                job_id=job_id, is_marked=mark is not None, was_sent=sent is not None,
                are_exact=are_exact,
            )  # fmt: skip
            if not is_doubtful and job_id is None and not is_here:
                continue  # it was taken, and never left
            # What is with the server or has arrived, the next run takes in.
            is_known = self.is_running or is_here or not is_doubtful
            state = "in flight" if is_known else "in doubt"
            request = json.loads(line)
            yield Row(row=i, id=id_, key=k.hex(), state=state, job_id=job_id, request=request)

    def _kept_row(self, path: Path, facts: Mapping[str, Any], line: str) -> Row:
        """Return a row that the record could not take, and that was kept aside."""
        names = facts.get("files")
        end = Finish.from_json({n: each for n, each in facts.items() if n not in {"files", "line"}})
        if names is None:
            paths = [
                self._prefix + (one.path or relative(end.i, end.k, one.ext, n))
                for n, one in enumerate(end.saved)
            ]
        else:
            paths = [os.path.relpath(path.parent / name, self.folder) for name in names]
        first = end.saved[0] if end.saved else None
        number = None if first is None else first.shard
        return Row(
            row=end.i, id=end.id, key=end.k.hex(), state=_STATES[State(end.state)], error=end.error,
            path=paths[0] if paths else None, paths=tuple(paths),
            shard=None if number is None else f"shards/{shard_name(number)}",
            offset=None if first is None else first.offset,
            bytes=None if first is None else first.size,
            sha256=None if first is None else first.sha256.hex(),
            job_id=end.job_id, seed=end.seed, seconds=end.ms / 1000, attempts=end.attempts,
            refusals=end.refusals, paid_again=end.again, request=json.loads(line),
            dollars=None if end.price is None else end.price / NANO,
            finished_at=self._epoch + end.at / 1000,
        )  # fmt: skip

    def pieces(self, row: Row) -> list[Piece]:
        """Return where a row's outputs lie, as far as the record knows what they were."""
        known = {0: (row.offset, row.bytes, row.sha256)}
        if len(row.paths) > 1:
            with self.reading() as connection:
                known |= {
                    n: (offset, size, sha256.hex())
                    for n, offset, size, sha256 in connection.execute(
                        "SELECT n, off, bytes, sha256 FROM output WHERE i=? AND n>0", (row.row,)
                    )
                }
        return [Piece(path, row.shard, *known[n]) for n, path in enumerate(row.paths) if n in known]

    def read(self, row: Row) -> bytes:
        """Return the bytes of a row's first output; as `read_output` does."""
        return read_output(self.folder, row)


def _said(key: bytes, error: str | None, line: dict[str, Any]) -> dict[str, Any]:
    """Return what a row says, as a line of an input file; with its fault, if it was no job."""
    if "invalid" not in line:
        return line
    row = line.get("row") or {}
    failed = {**row.get("_failed", {}), "key": key.hex(), "line": line.get("line")}
    failed["error"] = line.get("why") or error
    if not row:
        failed["text"] = line["invalid"]
    return {**row, "_failed": failed}


def _is_alive(lease: Mapping[str, Any]) -> bool:
    """Return whether the process of a lease is one of this machine, and lives."""
    if lease.get("released") or lease.get("host") != socket.gethostname():
        return False
    if lease.get("boot") != boot_id():
        return False
    return is_process(int(lease["pid"]), lease.get("started"))


def read_output(folder: Path, row: Row) -> bytes:
    """
    Return the bytes of a row's first output.

    Args:
        folder: The run's.
        row: Of its record.

    Raises:
        OSError: It is not there.
        InvalidRequestError: The row has none.
    """
    if row.path is None:
        raise InvalidRequestError(f"row {row.row} has no output: it is {row.state}")
    return read_piece(folder, Piece(row.path, row.shard, row.offset, row.bytes))


def read_piece(folder: Path, piece: Piece) -> bytes:
    """
    Return the bytes of an output.

    Raises:
        OSError: It is not there.
    """
    if piece.shard is not None:
        with (folder / piece.shard).open("rb") as file:
            file.seek(piece.offset or 0)
            return file.read(piece.size or 0)
    if "://" in piece.path:
        fs, inner = open_store(piece.path)
        return bytes(fs.cat_file(inner))
    return (folder / piece.path).read_bytes()
