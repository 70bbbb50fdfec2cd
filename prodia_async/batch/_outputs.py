"""
Where outputs go: files in folders of a thousand, tar shards, or any store that fsspec knows.

Bytes are made safe here, in threads, and only then handed to the record: a
temporary name, fsync, rename; or appended to a shard and synced, once for all
that came together; or put into a store as one finished object.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import re
import secrets
import tarfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from .._errors import InvalidRequestError
from .._show import shown
from ._record import Promise, Saved, notifier, shard_name, sync_folder
from ._values import BatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._record import Finish, Record

Layout: TypeAlias = Literal["files", "tar"]

SHARD_BYTES = 1 << 30
"""Size at which a shard is full. Chosen: what readers of WebDataset shards are used to."""

FILE_THREADS, UPLOAD_THREADS = 4, 16
"""Outputs being made safe at once, on a disk and over a network. Chosen."""

ATOMIC_STORES = frozenset(
    {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "r2", "hf", "memory"}
)
"""Where an object is there whole or not at all. Elsewhere it is put aside and renamed."""

MARK = ".prodia-async"
"""An object that is put beside the outputs when a run begins."""

_BLOCK = 512

_sync = getattr(os, "fdatasync", os.fsync)  # macOS has the one only


@dataclass(slots=True)
class Content:
    """One output on its way to a place: its bytes and its extension, without a dot."""

    content: bytes
    ext: str


Landed: TypeAlias = "Callable[[Task], None]"


def _nobody(_: Task) -> None:
    """Nobody is to be told."""


class Place(Protocol):
    """Where outputs go. Everything here blocks, and is called in the savers' threads alone."""

    threads: int
    most_at_once: int
    is_disk: bool
    lands: bool
    """Whether what is written here outlives the process before it is synced."""

    def save(self, each: Sequence[Task], landed: Landed = _nobody) -> None:
        """
        Make outputs safe, and say in their tasks where they lie.

        Args:
            each: Whose outputs.
            landed: Is told of each whose bytes have been written, and are not synced yet.
        """

    def forget(self, end: Finish, outputs: Sequence[Content]) -> None:
        """
        Remove what lies under a temporary name, since something else holds it by now.

        Args:
            end: Of which row.
            outputs: All that came of it.
        """

    def close(self) -> None:
        """Finish what is open."""


@dataclass(slots=True)
class Task:
    """
    A row that is to be made safe: its outputs first, then what the record is to know.

    Attributes:
        end: What the record is to know.
        outputs: What is to be saved.
        promise: Is settled once the record has it.
        line: The request, for the layouts that keep it beside the outputs.
        slot: Where it is noted that it has arrived; ``None`` where that is of no use.
        is_noted: Whether it stands there: from then on the bytes that were written are
            what a killed process leaves, and stay until something else holds them.
    """

    end: Finish
    outputs: Sequence[Content]
    promise: Promise
    line: str
    slot: int | None = None
    is_noted: bool = False


def stem(i: int, key: bytes) -> str:
    """Return the base name of a row's outputs, without extension."""
    return f"{i:08}-{key.hex()[:8]}"


def relative(i: int, key: bytes, ext: str, number: int = 0) -> str:
    """Return a row's output under the folder of outputs: two levels, a thousand files in each."""
    more = f"-{number + 1}" if number else ""
    dot = f".{ext}" if ext else ""
    return f"{i // 100_000:03}/{i // 1000 % 100:02}/{stem(i, key)}{more}{dot}"


def part_of(path: Path) -> Path:
    """Return the name under which a file lies until it is synced."""
    return path.with_name(f"{path.name}.part")


def safe_ext(suffix: str) -> str:
    """Return an extension that is one, without its dot; ``bin`` for what is not known."""
    ext = suffix.lower().lstrip(".")
    return ext if re.fullmatch(r"[a-z0-9]{1,8}", ext) else "bin"


class Files:
    """A file for each output, on a local disk."""

    threads = FILE_THREADS
    most_at_once = 1
    is_disk = True
    lands = True

    def __init__(self, folder: Path, touched: Callable[[str], None]) -> None:
        self._folder = folder
        self._touched = touched
        self._made: set[str] = set()

    def save(self, each: Sequence[Task], landed: Landed = _nobody) -> None:
        """Write each output under a temporary name, sync it, and name it."""
        for task in each:
            end = task.end
            written: list[tuple[int, str, str]] = []
            end.saved = []
            try:
                for number, output in enumerate(task.outputs):
                    digest = hashlib.sha256(output.content).digest()
                    name = relative(end.i, end.k, output.ext, number)
                    written.append(self._open(name, is_there=task.is_noted))
                    _write(written[-1][0], output.content)
                    end.saved.append(
                        Saved(name if number else None, output.ext, digest, len(output.content))
                    )
                landed(task)
                for file, temporary, path in written:
                    _sync(file)
                    os.rename(temporary, path)  # noqa: PTH104  (as `_open`)
                    self._touched(os.path.dirname(path))  # noqa: PTH120  (likewise)
            except BaseException:
                end.saved = []  # whoever keeps it aside is to keep the bytes as well
                if not task.is_noted:
                    for _, temporary, _ in written:
                        with contextlib.suppress(OSError):
                            os.unlink(temporary)  # noqa: PTH108  (likewise)
                raise
            finally:
                for file, _, _ in written:
                    os.close(file)

    def _open(self, name: str, *, is_there: bool) -> tuple[int, str, str]:
        path = os.path.join(self._folder, name)  # noqa: PTH118  (ten times as fast)
        folder = os.path.dirname(path)  # noqa: PTH120  (likewise)
        if folder not in self._made:
            self._make(Path(folder))
        temporary = f"{path}.part"
        # The same bytes are written over those that are there, which are never gone in between.
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (0 if is_there else os.O_TRUNC)
        return os.open(temporary, flags, 0o644), temporary, path

    def _make(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        above = folder
        while above != self._folder.parent:  # their names are to be safe as well
            above = above.parent
            sync_folder(above)
        self._made.add(str(folder))

    def forget(self, end: Finish, outputs: Sequence[Content]) -> None:
        """Remove the files that were not named."""
        for number, output in enumerate(outputs):
            path = self._folder / relative(end.i, end.k, output.ext, number)
            with contextlib.suppress(OSError):
                part_of(path).unlink(missing_ok=True)

    def close(self) -> None:
        """There is nothing open."""


def _write(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        # A full disk takes a part, and says so only the next time.
        left = left[os.write(file, left) :]


class Shards:
    """WebDataset shards: each row a JSON of what was asked, and its outputs beside it."""

    threads = 1
    most_at_once = 256
    is_disk = True
    lands = True

    def __init__(self, folder: Path, ends: Sequence[tuple[int, str, int]]) -> None:
        self._folder = folder
        self._shard = max((number for number, _, _ in ends), default=-1)
        self._file: int | None = None
        self._end = 0
        self._failed: tuple[Sequence[Task], int, int] | None = None
        folder.mkdir(exist_ok=True)
        known = {path: size for _, path, size in ends}
        there: dict[str, int] = {}
        for path in folder.glob(shard_name(0).replace("0", "[0-9]")):
            size = known.get(path.name, 0)
            there[path.name] = path.stat().st_size
            # What lies behind the last recorded end was never recorded, and may be torn.
            if there[path.name] > size:
                os.truncate(path, size)
        last = max(ends, default=None)
        # One that is gone, or was cut, is not gone on with: it would begin with a hole.
        self._last = last if last is not None and there.get(last[1], 0) >= last[2] else None

    def save(self, each: Sequence[Task], landed: Landed = _nobody) -> None:
        """Append all of them and sync once."""
        self._open(0)
        failed, self._failed = self._failed, None
        if failed is not None and failed[0] is each and failed[1] == self._shard:
            self._end = failed[2]  # over the same bytes, which are never gone in between
        began = (each, self._shard, self._end)
        try:
            for task in each:
                self._append(task)
                landed(task)
            _sync(self._open(0))
        except BaseException:
            self._failed = began
            for task in each:
                task.end.saved = []  # whoever keeps it aside is to keep the bytes as well
            with contextlib.suppress(OSError):
                os.ftruncate(self._open(0), self._end)  # behind the last that is whole
            raise

    def _append(self, task: Task) -> None:
        name = stem(task.end.i, task.end.k)
        pieces = [_member(f"{name}.json", task.line.encode())]
        for number, output in enumerate(task.outputs):
            more = f".{number + 1}" if number else ""
            pieces.append(_member(f"{name}{more}.{output.ext}", output.content))
        size = sum(len(piece) for member in pieces for piece in member)
        file = self._open(size)
        offset = self._end
        buffer = b"".join(piece for member in pieces for piece in member)
        left = memoryview(buffer)
        at = offset
        while left:
            written = os.pwrite(file, left, at)
            at += written
            left = left[written:]
        self._end = at
        task.end.saved = []
        offset += sum(len(piece) for piece in pieces[0])
        for number, output in enumerate(task.outputs):
            more = f".{number + 1}" if number else ""
            member = pieces[number + 1]
            task.end.saved.append(
                Saved(
                    f"{name}{more}.{output.ext}",
                    output.ext,
                    hashlib.sha256(output.content).digest(),
                    len(output.content),
                    self._shard,
                    offset + len(member[0]),
                )
            )
            offset += sum(len(piece) for piece in member)

    def _open(self, size: int) -> int:
        if self._file is None and self._last is not None:
            number, path, end = self._last
            self._last = None
            self._shard, self._end = number, end
            self._file = os.open(self._folder / path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if self._file is not None and self._end and self._end + size > SHARD_BYTES:
            self._end_shard(self._file)
        if self._file is None:
            self._shard += 1
            self._end = 0
            path = shard_name(self._shard)
            self._file = os.open(self._folder / path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            sync_folder(self._folder)
        return self._file

    def _end_shard(self, file: int) -> None:
        """End the shard as a tar ends: readers complain else."""
        os.pwrite(file, bytes(2 * _BLOCK), self._end)
        _sync(file)
        os.close(file)
        self._file = None

    def forget(self, end: Finish, outputs: Sequence[Content]) -> None:
        """What lies in a shard and is not recorded, the next start cuts off."""

    def close(self) -> None:
        """End the shard; all that is recorded of it is safe."""
        if self._file is not None:
            try:
                self._end_shard(self._file)
            except OSError:
                os.close(self._file)
                self._file = None


def _member(name: str, content: bytes) -> tuple[bytes, bytes, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    info.mtime = int(time.time())
    return info.tobuf(tarfile.USTAR_FORMAT), content, bytes(-len(content) % _BLOCK)


class Store:
    """
    Objects in a store that fsspec knows: put whole, under their final names.

    Raises:
        BatchError: fsspec is missing, does not know the store, or cannot write to it.
    """

    threads = UPLOAD_THREADS
    most_at_once = 1
    is_disk = False
    lands = False

    def __init__(self, url: str) -> None:
        self._fs, self._root = open_store(url)
        protocols = self._fs.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        self._is_atomic = bool(names & ATOMIC_STORES)
        try:
            # A bucket that is not there is found out now, not when jobs have been paid.
            if not self._is_atomic:
                self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(f"{self._root}/{MARK}", b"outputs of prodia-async\n")
        except Exception as error:
            raise BatchError(f"{url} cannot be written: {error!s:.300}") from error

    def save(self, each: Sequence[Task], landed: Landed = _nobody) -> None:
        """Put each output; it is there whole, or not at all."""
        del landed  # what was sent and not acknowledged is nowhere
        for task in each:
            end = task.end
            end.saved = [
                self._save(end.i, end.k, number, output)
                for number, output in enumerate(task.outputs)
            ]

    def _save(self, i: int, key: bytes, number: int, output: Content) -> Saved:
        name = relative(i, key, output.ext, number)
        path = f"{self._root}/{name}"
        try:
            if self._is_atomic:
                self._fs.pipe_file(path, output.content)
            else:
                temporary = f"{path}.{secrets.token_hex(4)}.part"
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._fs.pipe_file(temporary, output.content)
                self._fs.mv(temporary, path)
        except Exception as error:
            # Each store has errors of its own, and none of them is ours.
            raise OSError(f"{path} cannot be put: {error!s:.300}") from error
        digest = hashlib.sha256(output.content).digest()
        return Saved(name if number else None, output.ext, digest, len(output.content))

    def forget(self, end: Finish, outputs: Sequence[Content]) -> None:
        """There are no temporary names."""

    def close(self) -> None:
        """There is nothing open."""


def settled(outputs: str) -> str:
    """Return where outputs go, whatever the working folder is when they are looked for."""
    scheme, colon, path = outputs.rpartition("://")
    if scheme not in {"", "file", "local"} or Path(path).is_absolute():
        return outputs
    return f"{scheme}{colon}{Path.cwd() / Path(path).expanduser()}"


def open_store(url: str) -> tuple[Any, str]:
    """
    Return the file system of a URL, and the path in it.

    Raises:
        BatchError: fsspec, or what it needs for this store, is missing.
        InvalidRequestError: It is no URL that fsspec knows.
    """
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise BatchError("outputs=... needs fsspec: pip install 'prodia-async[batch]'") from error
    try:
        fs, root = url_to_fs(url)
    except ImportError as error:
        raise BatchError(f"outputs={shown(url)}: {error}") from error
    except (ValueError, TypeError) as error:
        raise InvalidRequestError(f"outputs={shown(url)}: {error}") from error
    return fs, str(root).rstrip("/")


class Savers:
    """
    The threads that make outputs safe and then hand their rows to the record.

    Nothing of it comes back to the event loop in between: one call wakes it
    when the record has committed.

    Args:
        place: Where outputs go.
        record: The record.
        note: Is called, in a thread, with a slot and what is known of a row whose
            outputs have been written; returns whether it stands there.
        on_full: Is called, in a thread, when the disk could not take something,
            before it is tried once more.
    """

    def __init__(
        self,
        place: Place,
        record: Record,
        note: Callable[[int, Finish], bool],
        on_full: Callable[[BaseException], None],
    ) -> None:
        self._place = place
        self._record = record
        self._note = note
        self._on_full = on_full
        self._notify = notifier()
        self._news: deque[Promise] = deque()
        self._is_told = False
        self._queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name="prodia-saver", daemon=True)
            for _ in range(place.threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def lands(self) -> bool:
        """Whether what is written outlives the process before it is synced."""
        return self._place.lands

    def put(self, task: Task) -> None:
        """Queue a row."""
        self._queue.put(task)

    def close(self) -> None:
        """Wait until all that is queued is safe. Blocks."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._place.close()

    def _work(self) -> None:
        is_over = False
        while not is_over:
            task = self._queue.get()
            if task is None:
                break
            tasks = [task]
            while len(tasks) < self._place.most_at_once:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    is_over = True
                    break
                tasks.append(more)
            self._save(tasks)

    def _save(self, tasks: list[Task]) -> None:
        try:
            try:
                self._place.save(tasks, self._landed)
            except OSError as error:
                if self._place.is_disk:
                    self._on_full(error)
                self._place.save(tasks, self._landed)
        except Exception as error:  # noqa: BLE001  (told to the row that waits)
            for task in tasks:
                self._notify(_settle_one, (task.promise, error))
            return
        for task in tasks:
            self._record.finished(task.end, task.promise)

    def _landed(self, task: Task) -> None:
        if task.slot is not None and self._note(task.slot, task.end):
            task.is_noted = True
            self._news.append(task.promise)
            if not self._is_told:
                self._is_told = True
                self._notify(Savers._land, self)

    def _land(self) -> None:
        """Tell in the event loop what has landed: one wake for what has come by then."""
        # Before the first look: what a thread adds from now on is seen, or told of anew.
        self._is_told = False
        while self._news:
            self._news.popleft().land()


def _settle_one(settled: tuple[Promise, BaseException]) -> None:
    promise, error = settled
    promise.settle(None, error)
