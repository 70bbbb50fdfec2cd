"""
What has come from the server, and is not in the record yet, where no kill can take it.

An answer that lies in our memory was paid for, and dies with the process. So its
bytes go into their file at once, under a temporary name and not yet synced, and
what is to be recorded of it into a slot of ``arrived.bin``: the kernel has both
from then on, whatever becomes of us. Such a row gives its slot at the client
to the next one, while the disk takes its time; when the process is killed before
the record has it, the next start takes it in, if its bytes are what they should be.

A power cut may take what is not synced. So no more rows than may be in flight
at once have given their slot away and are not safe yet; beyond, a row holds it.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

from ._outputs import part_of, relative
from ._record import Finish, shard_name, sync_folder

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from ._record import Record, Saved

ARRIVED = "arrived.bin"

SLOT_BYTES = 4096
"""Of one row's facts. Chosen: one page, which holds those of some twenty outputs."""

_HEAD = struct.Struct("<II")  # checksum and length of the JSON behind it
_PIECE = 1 << 20  # read at once


class Arrivals:
    """
    The slots of one run. They are taken and given back in the event loop alone.

    Args:
        path: The file; made if it is missing.
        most: Rows that may have given their slot at the client away and not be safe yet.
    """

    def __init__(self, path: Path, most: int) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._most = most
        self._free: list[int] = []
        self._count = 0
        self.let_go = 0
        """Rows that have given their slot away, and are not safe yet."""

    def start(self) -> None:
        """Begin anew, once the record has what was left. Blocks."""
        os.ftruncate(self._file, 0)

    def take(self) -> int:
        """Return a place for the facts of a row."""
        if self._free:
            return self._free.pop()
        self._count += 1
        return self._count - 1

    def give_back(self, slot: int) -> None:
        """
        Take a place back, once its row is safe.

        What stands there is of no more use: the record has the row.
        """
        self._free.append(slot)

    def may_let_go(self) -> bool:
        """Return whether one more row may give its slot at the client away before it is safe."""
        return self.let_go < self._most

    def note(self, slot: int, end: Finish) -> bool:
        """
        Write down what is to be recorded of a row whose bytes have been written.

        Blocks for no disk. Return whether it stands there: facts that are too
        long, or a disk that is full, leave the row as it was.
        """
        facts = end.to_json()
        del facts["request"]  # which the record has
        content = json.dumps(facts, separators=(",", ":")).encode()
        if len(content) > SLOT_BYTES - _HEAD.size:
            return False
        content = _HEAD.pack(zlib.crc32(content), len(content)) + content
        try:
            return os.pwrite(self._file, content, slot * SLOT_BYTES) == len(content)
        except OSError:
            return False

    def close(self) -> None:
        """Close the file; what stands in it stays."""
        os.close(self._file)


def last_arrived(connection: sqlite3.Connection, folder: Path) -> dict[int, Finish]:
    """
    Return what the last run of a folder noted, by row. Blocks.

    What an earlier one did is never taken for it, though a power cut may bring
    its notes back.

    Args:
        connection: Of the record.
        folder: The run's.
    """
    try:
        facts = _facts_in((folder / ARRIVED).read_bytes())
    except OSError:
        return {}
    (last,) = connection.execute("SELECT max(s) FROM session").fetchone()
    return {i: end for i, end in facts.items() if end.session == last}


def _facts_in(content: bytes) -> dict[int, Finish]:
    found = {}
    for start in range(0, len(content), SLOT_BYTES):
        slot = content[start : start + SLOT_BYTES]
        with suppress(struct.error, ValueError, KeyError, TypeError):
            checksum, length = _HEAD.unpack_from(slot)
            facts = slot[_HEAD.size : _HEAD.size + length]
            if len(facts) == length > 0 and zlib.crc32(facts) == checksum:
                end = Finish.from_json(json.loads(facts))
                found[end.i] = end
    return found


def find(folder: Path, end: Finish) -> list[tuple[Path, Path]] | None:
    """
    Look whether all outputs of a row that had arrived are there, with the bytes that came.

    Blocks.

    Args:
        folder: The run's.
        end: What was noted of the row.

    Returns:
        The file that each lies in, and the name it is to have; ``None`` if one is
        missing, or is not what came.
    """
    files = []
    for number, one in enumerate(end.saved):
        if one.shard is not None:
            path = folder / "shards" / shard_name(one.shard)
            named = [(path, path)]
        else:
            path = folder / "out" / relative(end.i, end.k, one.ext, number)
            named = [(part_of(path), path), (path, path)]
        whole = [each for each in named if _is_whole(each[0], one)]
        if not whole:
            return None
        files.append(whole[0])
    return files or None


def _is_whole(path: Path, one: Saved) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(one.offset or 0)
            digest = hashlib.sha256()
            left = one.size
            while left and (piece := file.read(min(left, _PIECE))):
                digest.update(piece)
                left -= len(piece)
            is_longer = one.shard is None and bool(file.read(1))
    except OSError:
        return False
    return not left and not is_longer and digest.digest() == one.sha256


def take_in(record: Record, folder: Path) -> tuple[int, set[int]]:
    """
    Make safe what had arrived when the last process ended, and record it.

    Blocks. A row that the record has by now is left alone.

    Args:
        record: In a transaction; its writer has not started, and nor has this run.
        folder: The run's.

    Returns:
        How many rows were taken in, and those whose bytes are not what came:
        they were paid for, and nobody has their output.
    """
    taken = 0
    damaged = set()
    connection = record.connection
    for i, end in last_arrived(connection, folder).items():
        row = connection.execute("SELECT k, request FROM open WHERE i=?", (i,)).fetchone()
        if row is None or row[0] != end.k:
            continue
        files = find(folder, end)
        if files is None:
            damaged.add(i)
            continue
        for (path, name), one in zip(files, end.saved, strict=True):
            _make_safe(path, one)
            if path != name:
                path.replace(name)
        for above in {name.parent for _, name in files}:
            sync_folder(above)
        end.request = row[1]
        record.finish(connection, end)
        taken += 1
    return taken, damaged


def _make_safe(path: Path, one: Saved) -> None:
    """Write an output where it lies once more, and sync it: the last sync may have lost it."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        at, end = one.offset or 0, (one.offset or 0) + one.size
        while at < end:
            at += os.pwrite(file, os.pread(file, min(_PIECE, end - at), at), at)
        os.fsync(file)
    finally:
        os.close(file)
