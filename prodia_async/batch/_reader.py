"""A record read: finished, crashed, or of a run that goes on while one looks."""

from __future__ import annotations

import hashlib
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ._folder import Lock
from ._objects import RUN
from ._opening import RECORD, give_back
from ._outputs import MARK, open_store
from ._record import connect
from ._snapshot import Piece, Snapshot, read_output, read_piece
from ._values import BatchSummary, RecordDamagedError, Row, counted

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Verification:
    """
    What `BatchRecord.verify` found.

    Attributes:
        checked: Rows whose outputs were looked at.
        missing: Rows of which an output is not there.
        wrong: Rows of which an output has another size, or another hash.
        returned: Whether these rows were given back, to be run again.
        unseen: Rows whose outputs could not be looked at; these were not given back.
        why: Why the first of them could not.
    """

    checked: int
    missing: tuple[int, ...] = ()
    wrong: tuple[int, ...] = field(default=())
    returned: bool = False
    unseen: tuple[int, ...] = ()
    why: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether every output was seen, and is what it was."""
        return not (self.missing or self.wrong or self.unseen)

    def __str__(self) -> str:
        if self.is_whole:
            are = "output is" if self.checked == 1 else "outputs are"
            return f"{self.checked:,} {are} there and whole"
        back = "; the next run makes them again" if self.returned else ""
        unseen = (
            f"; {len(self.unseen):,} could not be looked at, and are not run again ({self.why})"
            if self.unseen
            else ""
        )
        return (
            f"{counted(self.checked, 'output')} checked, {len(self.missing):,} missing, "
            f"{len(self.wrong):,} damaged{back}{unseen}"
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
    def snapshot(self) -> Iterator[Snapshot]:
        """
        Give the record as it stands at this moment, for a block.

        What is read of it is of one piece, whatever a run writes meanwhile.

        Raises:
            RecordDamagedError: It cannot be read.
        """
        with closing(self.connect()) as connection:
            yield Snapshot(self.folder, connection)

    def setting(self, name: str) -> Any:
        """
        Return one of the run's settings, or ``None``.

        Args:
            name: Of the setting, as the record has it.
        """
        with self.snapshot() as snapshot:
            return snapshot.setting(name)

    def is_running(self) -> bool:
        """Return whether a process of this machine holds the folder now, as far as can be told."""
        with self.snapshot() as snapshot:
            return snapshot.is_running

    def summary(self) -> BatchSummary:
        """Add up all rows of the folder, all its runs together."""
        with self.snapshot() as snapshot:
            return snapshot.summary()

    def rows(self) -> Iterator[Row]:
        """Yield every row, by its number; what is under way last."""
        with self.snapshot() as snapshot:
            yield from snapshot.rows()

    def failures(self) -> Iterator[Row]:
        """Yield the rows that failed, by their numbers."""
        with self.snapshot() as snapshot:
            yield from snapshot.failures()

    def in_doubt(self) -> Iterator[Row]:
        """Yield the rows that may have been paid and whose output nobody has."""
        with self.snapshot() as snapshot:
            yield from snapshot.in_doubt()

    def pick(self, numbers: Sequence[int]) -> list[Row]:
        """
        Return the rows of some numbers, in the order of the input.

        Args:
            numbers: As `Row.row` has them; what there is no row of is left out.
        """
        with self.snapshot() as snapshot:
            return snapshot.pick(numbers)

    def read(self, row: Row) -> bytes:
        """
        Return the bytes of a row's first output.

        Args:
            row: Of this record.

        Raises:
            OSError: It is not there.
            InvalidRequestError: The row has none.
        """
        return read_output(self.folder, row)

    def read_path(self, path: str, row: Row) -> bytes:
        """
        Return the bytes of one of a row's outputs, by its path.

        Args:
            path: One of `Row.paths`.
            row: Whose it is.

        Raises:
            OSError: It is not there.
        """
        with self.snapshot() as snapshot:
            found = [piece for piece in snapshot.pieces(row) if piece.path == path]
        return read_piece(self.folder, found[0] if found else Piece(path))

    def verify(self, hashes: bool = False) -> Verification:
        """
        Look whether every output is there and whole.

        What is gone or damaged is given back: the next run makes it, and pays for it,
        again. What cannot be looked at now (a store that refuses, a disk that is not
        mounted) is told, and not given back.

        Args:
            hashes: Compare the bytes too, rather than the sizes alone.

        Raises:
            FolderInUseError: Something is to be given back, and a run holds the folder.
        """
        missing: list[int] = []
        wrong: list[int] = []
        unseen: list[int] = []
        keys: dict[int, str] = {}
        checked = 0
        why = ""
        with self.snapshot() as snapshot:
            for row in snapshot.rows():
                if row.state != "done" or row.bytes is None:
                    continue  # the last is kept aside, and no output yet
                pieces = snapshot.pieces(row)
                try:
                    is_whole = all(self._is_whole(each, hashes=hashes) for each in pieces)
                except FileNotFoundError:
                    missing.append(row.row)
                    keys[row.row] = row.key
                except Exception as error:  # noqa: BLE001  (each store has errors of its own)
                    unseen.append(row.row)
                    why = why or f"{type(error).__name__}: {error!s:.200}"
                    continue
                else:
                    if not is_whole:
                        wrong.append(row.row)
                        keys[row.row] = row.key
                checked += 1
            if missing and len(missing) == checked and not self._is_there(snapshot.place):
                # Not even the folder, or the mark of a store: it is elsewhere, or not mounted.
                unseen, missing, checked = sorted(unseen + missing), [], checked - len(missing)
                why = why or f"there is nothing at {snapshot.place}"
        if missing or wrong:
            self._give_back({i: keys[i] for i in (*missing, *wrong)})
        return Verification(
            checked, tuple(missing), tuple(wrong), bool(missing or wrong), tuple(unseen), why
        )

    def _is_there(self, place: str) -> bool:
        if place in {"out", "shards"}:
            return (self.folder / place).is_dir()
        fs, root = open_store(place)
        return any(fs.exists(f"{root}/{name}") for name in (MARK, RUN))

    def _is_whole(self, piece: Piece, *, hashes: bool) -> bool:
        if hashes or piece.shard is not None:
            content = read_piece(self.folder, piece)
            digest = hashlib.sha256(content).hexdigest()
            return (len(content), digest) == (piece.size, piece.sha256)
        if "://" in piece.path:
            fs, path = open_store(piece.path)
            return int(fs.info(path)["size"]) == piece.size
        return (self.folder / piece.path).stat().st_size == piece.size

    def _give_back(self, numbers: Mapping[int, str]) -> None:
        lock = Lock(self.folder)
        try:
            with closing(connect(self.folder / RECORD, read_only=False)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                give_back(connection, list(numbers))
                connection.execute("COMMIT")
        finally:
            lock.release()
