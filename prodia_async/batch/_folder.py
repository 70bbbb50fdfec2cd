"""
A run's folder: who holds it, what is kept free in it, and what is with the server right now.

::

    run.sqlite        the record (`_record`), with -wal and -shm beside it
    lock              held by the run that is alive, by the kernel: it goes with the process
    flight.bin        one slot for each job on its way, in memory that the kernel keeps
    arrived.bin       what has come from the server, and is not in the record yet (`_arrivals`)
    reserve.bin       a few megabytes to fall back on when the disk is full
    reserve/          what the record could not take; the next run takes it in
    out/ or shards/   what was made
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import socket
import stat
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .._keys import digest_bytes
from ._values import BatchError, FolderInUseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._outputs import Content, Place
    from ._record import Finish

try:
    import fcntl
except ImportError:  # pragma: no cover  (Windows: the lease in the record is all there is)
    fcntl = None  # type: ignore[assignment]

FLIGHT = "flight.bin"

RESERVE_BYTES = 4 << 20
"""Kept free for the last commits on a full disk. Measured: SQLite's WAL wants about 4 MB."""

NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "beegfs",
        "gpfs", "davfs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.davfs2",
        "fuse.goofys", "fuse.mount-s3", "fuse.glusterfs", "fuse.ceph", "fuse.juicefs",
    }
)  # fmt: skip
"""Where SQLite's write-ahead log is not safe. Documented: sqlite.org/wal.html, "does not work"."""


def file_system_of(path: Path, mounts: str) -> str:
    """
    Return the type of the file system that a path lies on; ``""`` when it is not told.

    Args:
        path: An absolute path.
        mounts: The text of ``/proc/self/mountinfo``.
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split()
        if not dash or len(fields) < 5:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
        # The last of equal ones lies on top.
        if (path.is_relative_to(point)) and len(point) >= best:
            best, kind = len(point), after.split()[0]
    return kind


def refuse_network(folder: Path, mounts: str | None = None) -> None:
    """
    Refuse a folder where a record cannot be safe. Blocks.

    Raises:
        BatchError: It lies on a network file system.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return  # no Linux: nothing tells
    kind = file_system_of(folder.absolute(), mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        raise BatchError(
            f"{folder} lies on a network file system ({kind}), where a record can be damaged; "
            "take a folder on a local disk, and outputs=... for a place anywhere"
        )


def allocate(file: int, size: int) -> None:
    """
    Make a file of so many bytes that the disk has really got. Blocks.

    Raises:
        OSError: The disk has not got them.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    have = os.fstat(file).st_size  # macOS has no such call
    os.lseek(file, have, os.SEEK_SET)
    while have < size:
        have += os.write(file, bytes(min(size - have, 1 << 20)))


def boot_id() -> str:
    """Return what changes when the machine starts anew; ``""`` where nothing tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def process_started(pid: int) -> int | None:
    """Return when a process began, in ticks since the machine did; ``None`` where nothing tells."""
    stat = _process(pid)
    return int(stat[19]) if stat else None


def is_process(pid: int, started: int | None) -> bool:
    """
    Return whether a process lives, and is the one that was meant, as far as can be told.

    Args:
        pid: Its number, which another may have by now.
        started: When it began, as `process_started` told then; ``None`` if that was not known.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    stat = _process(pid)
    # One that has ended, and that its parent has not asked about, is there to be counted alone.
    return not stat or (stat[0] not in "ZX" and started in {None, int(stat[19])})


def _process(pid: int) -> list[str]:
    """Return what Linux tells of a process, from its state (the third field) on."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    return stat.rpartition(")")[2].split()  # its name may be anything


class Lock:
    """
    Holds a folder for this process, for as long as it lives.

    Args:
        folder: The run's folder.

    Raises:
        FolderInUseError: Another process, alive, holds it.
        BatchError: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BatchError(f"the folder {folder} cannot be written: {error.strerror}") from error
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._file, 400).decode(errors="replace").strip()
            os.close(self._file)
            raise FolderInUseError(
                f"another run holds {folder}: {holder or 'it does not say which'}; "
                "wait for its end, or stop it"
            ) from error
        os.ftruncate(self._file, 0)
        with contextlib.suppress(OSError):  # a full disk must not keep what is to be gone on with
            os.write(self._file, f"pid {os.getpid()} on {socket.gethostname()}".encode())

    def release(self) -> None:
        """Give the folder back."""
        os.close(self._file)


class Reserve:
    """Disk space to fall back on, and a place for what the record cannot take."""

    def __init__(self, folder: Path, size: int = RESERVE_BYTES) -> None:
        self._space = folder / "reserve.bin"
        self._folder = folder / "reserve"
        self._size = size

    def take(self) -> None:
        """
        Take the space. Blocks.

        Raises:
            BatchError: The disk has not got it.
        """
        file: int | None = None
        try:
            file = os.open(self._space, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            allocate(file, self._size)
        except OSError as error:
            self.give_back()
            raise BatchError(
                f"there is no room for a run in {self._space.parent}: {error.strerror}; "
                f"at least {self._size >> 20} MB must be free to begin, and what is made on top"
            ) from error
        finally:
            if file is not None:
                os.close(file)

    def give_back(self) -> None:
        """Free the space, for what is in hand. Blocks."""
        with contextlib.suppress(OSError):
            self._space.unlink(missing_ok=True)

    @property
    def elsewhere(self) -> Path:
        """A folder on another disk, perhaps, for what this one cannot take."""
        name = digest_bytes(os.fsencode(self._space.parent.absolute())).hex()
        return Path(tempfile.gettempdir()) / f"prodia-async-{name}"

    def keep(
        self, row: int, facts: dict[str, Any], line: str, outputs: Sequence[Content]
    ) -> Path | None:
        """
        Keep what became of a row, in files of its own. Blocks.

        Returns:
            Where; ``None`` when there is no space for it.
        """
        written: list[Path] = []
        try:
            self._folder.mkdir(exist_ok=True)
            if not facts["saved"]:
                facts["files"] = []
                for number, output in enumerate(outputs):
                    path = self._folder / f"{row}-{number + 1}.{output.ext}"
                    written.append(path)
                    _write_synced(path, output.content)
                    facts["files"].append(path.name)
            path = self._folder / f"{row}.json"
            temporary = path.with_suffix(".part")
            written.append(temporary)
            _write_synced(temporary, json.dumps({**facts, "line": line}).encode())
            temporary.replace(path)
        except OSError:
            for path in written:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            return None
        return self._folder

    def kept(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield what an earlier run kept, with the files to remove once the record has it."""
        folders = [self._folder]
        if _is_ours(self.elsewhere):
            folders.append(self.elsewhere / self._folder.name)
        for folder in folders:
            for path in sorted(folder.glob("*.json")):
                with contextlib.suppress(OSError, ValueError):
                    yield path, json.loads(path.read_text(encoding="utf-8"))

    def rows(self) -> set[int]:
        """Return which rows are kept."""
        return {facts["i"] for _, facts in self.kept()}


def keep_aside(
    reserve: Reserve, place: Place, end: Finish, line: str, outputs: Sequence[Content]
) -> Path | None:
    """
    Keep what the disk or the record cannot take, here or else in the system's temporary folder.

    Blocks. What its place has of it under a temporary name goes only then.

    Returns:
        Where; ``None`` when nothing took it.
    """
    where = reserve.keep(end.i, end.to_json(), line, outputs)
    other = reserve.elsewhere
    if where is None and _is_made(other):
        where = Reserve(other).keep(end.i, end.to_json(), line, outputs)
    if where is not None:
        place.forget(end, outputs)
    return where


def _is_made(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    return _is_ours(folder)


def _is_ours(folder: Path) -> bool:
    """Return whether nobody else can have put anything there: temporary folders are everybody's."""
    try:
        facts = folder.lstat()
    except OSError:
        return False
    if os.name == "nt":  # pragma: no cover  (there it is in the user's own profile)
        return True
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o022


_SLOT = struct.Struct("<qdii104s")  # row + 1, and what a `Mark` says
_ID_AT, _ID_BYTES = 24, 104
_CHUNK = 1024  # slots that the file grows by


class Mark(NamedTuple):
    """
    When a row was sent, how often it was, and the server's id for it once it has one.

    At last, how often it may have been paid, should its process end now.
    """

    at: float
    times: int
    job_id: str | None = None
    risky: int = 1


class Marks:
    """
    Which rows are with the server right now, in memory that outlives the process.

    A mark is set before the bytes leave and costs a store, no system call: the
    pages belong to the file, so the kernel has them whatever becomes of us.
    (The record has the same a few milliseconds later, safe against a power cut too.)

    Args:
        path: The file; made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._slots: dict[int, int] = {}
        self._free: list[int] = []
        self._map: mmap.mmap | None = None
        self._count = 0
        size = os.fstat(self._file).st_size // _SLOT.size * _SLOT.size
        self.was_there = size > 0
        """Whether there was a file at all."""
        self.left = _marks_in(os.pread(self._file, size, 0))
        """What the last process left, by row."""

    def start(self) -> None:
        """Begin anew, once the record knows what was left. Blocks."""
        os.ftruncate(self._file, 0)
        self._grow()

    def _grow(self) -> None:
        self._count += _CHUNK
        size = self._count * _SLOT.size
        # Blocks on the disk now: a store into a hole of a full disk would be a SIGBUS.
        allocate(self._file, size)
        if self._map is not None:
            self._map.flush()
            self._map.close()
        self._map = mmap.mmap(self._file, size)
        self._free += range(self._count - 1, self._count - _CHUNK - 1, -1)

    def set(self, row: int, at: float, times: int, risky: int = 1) -> None:
        """Mark a row; ``times`` is how often it was sent, this time included; as in `Mark`."""
        slot = self._slots.get(row)
        if slot is None:
            if not self._free:
                self._grow()
            slot = self._slots[row] = self._free.pop()
        assert self._map is not None  # noqa: S101  (`_grow` made it)
        _SLOT.pack_into(self._map, slot * _SLOT.size, row + 1, at, times, risky, b"")

    def set_id(self, row: int, job_id: str) -> None:
        """Note the server's id for a marked row; one too long is left to the record."""
        slot = self._slots.get(row)
        content = job_id.encode()
        if slot is None or self._map is None or len(content) > _ID_BYTES:
            return
        start = slot * _SLOT.size + _ID_AT
        self._map[start : start + _ID_BYTES] = content.ljust(_ID_BYTES, b"\0")

    def clear(self, row: int) -> None:
        """Take a row's mark away, once the record knows what became of it."""
        slot = self._slots.pop(row, None)
        if slot is not None and self._map is not None:
            _SLOT.pack_into(self._map, slot * _SLOT.size, 0, 0.0, 0, 0, b"")
            self._free.append(slot)

    def __contains__(self, row: int) -> bool:
        """Return whether a row is marked."""
        return row in self._slots

    def marked(self) -> dict[int, Mark]:
        """Return what is marked now, as `left` does."""
        return {} if self._map is None else _marks_in(self._map[:])

    def clear_all(self) -> None:
        """Take all marks away."""
        for row in list(self._slots):
            self.clear(row)

    def close(self) -> None:
        """Close the file; what is marked stays marked."""
        if self._map is not None:
            self._map.close()
            self._map = None
        os.close(self._file)


def marks_of(folder: Path) -> dict[int, Mark]:
    """Return the rows that a folder's last process had with the server. Blocks."""
    try:
        content = (folder / FLIGHT).read_bytes()
    except OSError:
        return {}
    return _marks_in(content[: len(content) // _SLOT.size * _SLOT.size])


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _marks_in(content: bytes) -> dict[int, Mark]:
    found = {}
    for row, at, times, risky, job_id in _SLOT.iter_unpack(content):
        if row > 0:
            known = job_id.rstrip(b"\0").decode(errors="replace") or None
            found[row - 1] = Mark(at, times, known, max(1, risky))
    return found


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """
    Name a file to write, which takes the place of ``path`` when the block is through.

    Folders that are missing are made.

    Raises:
        OSError: It cannot be written; the error names ``path``, which the user knows.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename not in {str(temporary), temporary}:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
