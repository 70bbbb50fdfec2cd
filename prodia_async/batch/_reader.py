"""A record read: finished, crashed, or of a run that goes on while one looks."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .._errors import InvalidRequestError
from ._arrivals import find, last_arrived
from ._decide import NANO, State
from ._folder import FLIGHT, Lock, boot_id, marks_of
from ._opening import RECORD, is_same_boot, money
from ._outputs import open_store, relative
from ._record import connect, get, unpacked_id
from ._values import BatchSummary, RecordDamagedError, Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_STATES = {
    State.DONE: "done",
    State.FAILED: "failed",
    State.IN_DOUBT: "in doubt",
    State.DUPLICATE: "duplicate",
    State.INVALID: "failed",
}

_SELECT = (
    "SELECT job.i, k, state, id, session, attempts, refusals, again, at, ms, job_id, seed, "
    "job.price, shard, off, bytes, sha256, ext, error, request.line "
    "FROM job LEFT JOIN request ON request.i = job.i"
)


@dataclass(frozen=True, slots=True)
class Verification:
    """
    What `BatchRecord.verify` found.

    Attributes:
        checked: Outputs that were looked at.
        missing: Rows whose output is not there.
        wrong: Rows whose output has another size, or another hash.
        returned: Whether these rows were given back, to be run again.
    """

    checked: int
    missing: tuple[int, ...] = ()
    wrong: tuple[int, ...] = field(default=())
    returned: bool = False

    def __str__(self) -> str:
        if not self.missing and not self.wrong:
            are = "output is" if self.checked == 1 else "outputs are"
            return f"{self.checked:,} {are} there and whole"
        back = "; the next run makes them again" if self.returned else ""
        return (
            f"{self.checked:,} outputs checked, {len(self.missing):,} missing, "
            f"{len(self.wrong):,} damaged{back}"
        )


class RecordReader:
    """
    Reads what a folder holds: of a finished batch, a crashed or a running one.

    Nothing here changes the folder, but for what it is asked to write. Its
    methods block; in an event loop, call them in a thread.

    Args:
        folder: The folder that `Batch` was given.

    Raises:
        RecordDamagedError: There is no record, or it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / RECORD).is_file():
            raise RecordDamagedError(f"{folder} holds no record of a batch ({RECORD})")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {str(self.folder)!r}>"

    def __str__(self) -> str:
        return str(self.summary())

    def connect(self) -> sqlite3.Connection:
        """Return a connection that reads the record."""
        return connect(self.folder / RECORD, read_only=True)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """
        Give a connection that reads the record, for a block; what SQLite raises is ours.

        Raises:
            RecordDamagedError: In the block: the record cannot be read.
        """
        connection = self.connect()
        try:
            yield connection
        except (sqlite3.DatabaseError, ValueError, TypeError, AttributeError) as error:
            # The last two are a value of another kind than its column holds.
            raise RecordDamagedError(f"the record in {self.folder} is damaged: {error}") from error
        finally:
            connection.close()

    def setting(self, name: str) -> Any:
        """
        Return one of the run's settings, or ``None``.

        Args:
            name: Of the setting, as the record has it.
        """
        with self.reading() as connection:
            return get(connection, name)

    def is_running(self) -> bool:
        """Return whether a process of this machine holds the folder now, as far as can be told."""
        lease = self.setting("lease") or {}
        if lease.get("released") or lease.get("host") != socket.gethostname():
            return False
        if lease.get("boot") != boot_id():
            return False
        try:
            os.kill(int(lease["pid"]), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def summary(self) -> BatchSummary:
        """Add up all rows of the folder, all its runs together."""
        with self.reading() as connection:
            states = dict(
                connection.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall()
            )
            doubtful_rows = [row for row in self._open_rows(connection) if row.state == "in doubt"]
            told, doubtful = money(connection)
            expected = dict(connection.execute("SELECT i, ifnull(expected, 0) FROM open"))
            flying = sum(expected.get(row.row, 0) for row in doubtful_rows)
            (again,) = connection.execute("SELECT ifnull(sum(again), 0) FROM job").fetchone()
            (seconds,) = connection.execute("SELECT sum(ended - began) FROM session").fetchone()
            last = connection.execute(
                "SELECT ended, stopped FROM session ORDER BY s DESC LIMIT 1"
            ).fetchone()
            duplicates = states.get(State.DUPLICATE, 0)
            of_done = 0
            if duplicates:
                (of_done,) = connection.execute(
                    "SELECT count(*) FROM job AS d WHERE d.state=5 AND EXISTS "
                    "(SELECT 1 FROM job AS p WHERE p.k=d.k AND p.state=2)"
                ).fetchone()
            (sampled,) = connection.execute(
                "SELECT ifnull(sum(t), 0) FROM (SELECT max(t) AS t FROM sample GROUP BY s)"
            ).fetchone()
        running = self.is_running()
        stopped = None
        if last is not None and not running:
            stopped = last[1] if last[0] is not None else "the process ended without a word"
        return BatchSummary(
            done=states.get(State.DONE, 0) + of_done,
            failed=states.get(State.FAILED, 0) + states.get(State.INVALID, 0),
            in_doubt=states.get(State.IN_DOUBT, 0) + len(doubtful_rows),
            left=0,
            duplicates=duplicates,
            dollars=told / NANO,
            doubtful_dollars=(doubtful + flying) / NANO,
            paid_again=again,
            seconds=float(seconds or sampled),
            stopped=stopped,
        )

    def rows(self) -> Iterator[Row]:
        """Yield every row, by its number; what is under way last."""
        with self.reading() as connection:
            yield from self._rows(connection, f"{_SELECT} ORDER BY job.i")
            yield from self._open_rows(connection)

    def failures(self) -> Iterator[Row]:
        """Yield the rows that failed, by their numbers."""
        with self.reading() as connection:
            yield from self._rows(connection, f"{_SELECT} WHERE state IN (3, 6) ORDER BY job.i")

    def in_doubt(self) -> Iterator[Row]:
        """Yield the rows that may have been paid and whose output nobody has."""
        with self.reading() as connection:
            yield from self._rows(connection, f"{_SELECT} WHERE state=4 ORDER BY job.i")
            if not self.is_running():
                yield from (row for row in self._open_rows(connection) if row.state == "in doubt")

    def pick(self, numbers: Sequence[int]) -> list[Row]:
        """
        Return the rows of some numbers, in the order of the input.

        Args:
            numbers: As `Row.row` has them; what there is no row of is left out.
        """
        marks = ",".join("?" * len(numbers))
        with self.reading() as connection:
            query = f"{_SELECT} WHERE job.i IN ({marks}) ORDER BY job.i"
            return list(self._rows(connection, query, numbers))

    def _rows(
        self, connection: sqlite3.Connection, query: str, arguments: Sequence[object] = ()
    ) -> Iterator[Row]:
        made_with = get(connection, "made with") or {}
        epoch = float(get(connection, "began") or 0)
        for values in connection.execute(query, arguments):
            yield self._row(connection, values, made_with, epoch)

    def _row(
        self,
        connection: sqlite3.Connection,
        values: tuple[Any, ...],
        made_with: Mapping[str, Any],
        epoch: float,
    ) -> Row:
        i, k, state, id_ = values[:4]
        of = values
        if state == State.DUPLICATE:
            found = connection.execute(f"{_SELECT} WHERE k=? AND state<>5 LIMIT 1", (k,)).fetchone()
            of = found or values
        (n, _, _, _, _, attempts, refusals, again, at, ms, job_id, seed, price, shard, off,
         size, sha256, ext, error, line) = of  # fmt: skip
        paths = self._paths(connection, n, k, ext, made_with) if size is not None else ()
        return Row(
            row=i, id=id_, key=k.hex(), state=_STATES[State(state)],
            path=paths[0] if paths else None, paths=paths,
            shard=f"shards/shard-{shard:05}.tar" if shard is not None else None, offset=off,
            bytes=size, sha256=sha256.hex() if sha256 else None, job_id=unpacked_id(job_id),
            seed=seed, seconds=ms / 1000 if ms is not None else None, attempts=attempts or 0,
            refusals=refusals or 0, paid_again=again or 0,
            dollars=price / NANO if price is not None else None, error=error,
            request=json.loads(line) if line else None,
            finished_at=epoch + at / 1000 if at is not None else None,
        )  # fmt: skip

    def _paths(
        self,
        connection: sqlite3.Connection,
        i: int,
        k: bytes,
        ext: str,
        made_with: Mapping[str, Any],
    ) -> tuple[str, ...]:
        base = made_with.get("outputs")
        tar = made_with.get("layout") == "tar"
        prefix = "" if tar else f"{base.rstrip('/')}/" if base else "out/"
        more = connection.execute(
            "SELECT n, path FROM output WHERE i=? ORDER BY n", (i,)
        ).fetchall()
        names = {0: relative(i, k, ext), **dict(more)}
        return tuple(f"{prefix}{name}" for _, name in sorted(names.items()))

    def _open_rows(self, connection: sqlite3.Connection) -> Iterator[Row]:
        running = self.is_running()
        marks = marks_of(self.folder)
        arrived = {} if running else last_arrived(connection, self.folder)
        are_exact = is_same_boot(get(connection, "lease")) and (self.folder / FLIGHT).is_file()
        for i, k, id_, sent, known, line in connection.execute(
            "SELECT i, k, id, sent, job_id, request FROM open ORDER BY i"
        ):
            mark = marks.get(i)
            job_id = known or (mark.job_id if mark is not None else None)
            end = arrived.get(i)
            is_here = end is not None and end.k == k and find(self.folder, end) is not None
            job_id = job_id or (end.job_id if end is not None and is_here else None)
            if mark is None and job_id is None and not is_here and (are_exact or sent is None):
                continue  # it was taken, and never left
            # What is with the server or has arrived, the next run takes in.
            is_known = running or is_here or job_id is not None
            state = "in flight" if is_known else "in doubt"
            request = json.loads(line)
            yield Row(row=i, id=id_, key=k.hex(), state=state, job_id=job_id, request=request)

    def read(self, row: Row) -> bytes:
        """
        Return the bytes of a row's first output.

        Args:
            row: Of this record.

        Raises:
            OSError: It is not there.
            InvalidRequestError: The row has none.
        """
        if row.path is None:
            raise InvalidRequestError(f"row {row.row} has no output: it is {row.state}")
        return self.read_path(row.path, row)

    def read_path(self, path: str, row: Row) -> bytes:
        """
        Return the bytes of one of a row's outputs, by its path.

        Args:
            path: One of `Row.paths`.
            row: Whose it is.

        Raises:
            OSError: It is not there.
        """
        if row.shard is not None and path == row.path:
            with (self.folder / row.shard).open("rb") as file:
                file.seek(row.offset or 0)
                return file.read(row.bytes or 0)
        if "://" in path:
            fs, inner = open_store(path)
            return bytes(fs.cat_file(inner))
        return (self.folder / path).read_bytes()

    def verify(self, hashes: bool = False) -> Verification:
        """
        Look whether every output is there and whole.

        What is not is given back: the next run makes it, and pays for it, again.

        Args:
            hashes: Compare the bytes too, rather than the sizes alone.

        Raises:
            FolderInUseError: Something is to be given back, and a run holds the folder.
        """
        missing: list[int] = []
        wrong: list[int] = []
        checked = 0
        for row in self.rows():
            if row.state != "done" or row.path is None:
                continue
            checked += 1
            try:
                size, sha256 = self._facts(row, hashes=hashes)
            except (OSError, KeyError):
                missing.append(row.row)
                continue
            if size != row.bytes or (hashes and sha256 != row.sha256):
                wrong.append(row.row)
        if missing or wrong:
            self._give_back([*missing, *wrong])
        return Verification(checked, tuple(missing), tuple(wrong), bool(missing or wrong))

    def _facts(self, row: Row, *, hashes: bool) -> tuple[int, str]:
        assert row.path is not None  # noqa: S101
        if hashes or row.shard is not None:
            content = self.read(row)
            return len(content), hashlib.sha256(content).hexdigest()
        if "://" in row.path:
            fs, path = open_store(row.path)
            return int(fs.info(path)["size"]), ""
        return (self.folder / row.path).stat().st_size, ""

    def _give_back(self, numbers: Sequence[int]) -> None:
        lock = Lock(self.folder)
        try:
            with closing(connect(self.folder / RECORD, read_only=False)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                for table in ("job", "output", "request"):
                    connection.executemany(
                        f"DELETE FROM {table} WHERE i=?",  # noqa: S608  (names of ours)
                        [(i,) for i in numbers],
                    )
                connection.execute("COMMIT")
        finally:
            lock.release()
