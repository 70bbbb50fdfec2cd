"""
Files on disk: names that cannot escape their folder, and writing that never shows half a file.

A name that came over the network is a suggestion. What is written goes to a
temporary name in the target's own folder first and gets its final name in one
step, so a reader never sees a part of it, and a full disk leaves nothing. A
file that is there already is not replaced unless that was asked for: what it
holds may have been paid for. What is no file, a pipe or a device, is written
to as it is and never replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import select
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

PASSAGE_SECONDS = 0.05
"""How often a pipe that nobody reads is looked at. Chosen: nobody notices, and it costs nothing."""

MAX_NAME_BYTES = 200
"""Longest file name we write, in bytes of UTF-8. Chosen: below the usual 255, room for `-2`."""

# Control characters, what Windows forbids, both kinds of separator, and the
# marks that reverse the direction of text: they show "gpj.exe" as "exe.jpg".
_FORBIDDEN = re.compile(
    '[\\x00-\\x1f\\x7f-\\x9f<>:"/\\\\|?*'
    "\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff\\ud800-\\udfff]"
)
# Device names on Windows, with or without an extension.
_RESERVED = re.compile(r"(con(in\$|out\$)?|prn|aux|nul|(com|lpt)[\d¹²³]) *(\..*)?", re.IGNORECASE)


def safe_name(received: str | None, *, fallback: str, suffix: str = "") -> str:
    """
    Reduce a received file name to one that names a file in its folder and nothing else.

    Args:
        received: The name as it came; may hold a path, a drive, NUL, anything.
        fallback: What to call it when nothing usable is left.
        suffix: Extension, with its dot, to add when the name has none.

    Returns:
        A base name of at most `MAX_NAME_BYTES` bytes, never empty, never made of dots alone,
        never beginning with a dot nor ending in a dot or a blank.
    """
    base = re.split(r"[/\\]", received or "")[-1]
    base = re.sub(r"^[A-Za-z]:", "", base)
    base = _FORBIDDEN.sub("_", base).strip(" .")
    if not base.strip("_"):
        base = fallback
    if _RESERVED.fullmatch(base):
        base = f"_{base}"
    stem, extension = os.path.splitext(base)  # noqa: PTH122  (a name, not a path)
    if len(extension.encode()) > 16:
        stem, extension = base, ""
    extension = extension or suffix
    room = MAX_NAME_BYTES - len(extension.encode())
    return (stem.encode()[:room].decode(errors="ignore") + extension).rstrip(" .")


def numbered(name: str, number: int) -> str:
    """Return ``name`` for 1, ``stem-2.ext`` for 2, and so on."""
    if number == 1:
        return name
    stem, extension = os.path.splitext(name)  # noqa: PTH122  (a name, not a path)
    return f"{stem}-{number}{extension}"


def is_folder_path(path: str | os.PathLike[str]) -> bool:
    """Return whether a path means a folder: it is one, or ends in a separator. Blocks."""
    text = os.fspath(path)
    return text.endswith(("/", os.sep)) or os.path.isdir(text)  # noqa: PTH112  (as written)


def choose_target(path: str | os.PathLike[str], received: str | None, suffix: str) -> Path:
    """
    Decide where a received file goes, and make the folder it goes into. Blocks.

    Args:
        path: What the user gave: a file; or a folder, which is one that is
            there or a path that ends in a separator.
        received: The name the file came under, for a folder.
        suffix: Extension, with its dot, for a name that has none.

    Raises:
        OSError: The folder cannot be made, or nothing can have that name.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise OSError(errno.EINVAL, "a path must be a name without NUL")
    if is_folder_path(path):
        folder = Path(path)
        target = folder / safe_name(received, fallback="output", suffix=suffix)
    else:
        target = Path(path)
        folder = target.parent
    folder.mkdir(parents=True, exist_ok=True)
    return target


def is_passage(path: Path) -> bool:
    """
    Return whether a path is written to as it is, since what lies there is no file. Blocks.

    Pipes and devices are, and whatever lies in ``/dev`` or ``/proc``:
    ``/dev/stdout`` may well lead to a file, and is still not to be replaced.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # nothing there, or nothing we may look at
    if stat.S_ISREG(mode):
        folder = path.absolute().parent.as_posix()
        return folder in {"/dev", "/dev/fd"} or folder.startswith("/proc/")
    return not stat.S_ISDIR(mode)


class PendingFile:
    """
    A file being written under a temporary name, until `publish` names it.

    `open`, `write` and `publish` block; call them in a worker thread. Used as
    a context manager, it is opened, and removed unless it was published. It
    may be discarded at any time, also while a thread is still at work on it.

    Raises:
        OSError: The folder is missing or cannot be written, or the disk is full.
    """

    __slots__ = ("_file", "_is_over", "_lock", "_temporary")

    def __init__(self, folder: Path) -> None:
        self._temporary = folder / f".{secrets.token_hex(8)}.part"
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()
        self._is_over = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def open(self) -> None:
        """Make the file, unless it was discarded meanwhile."""
        with self._lock:
            if not self._is_over:
                self._file = self._temporary.open("xb")

    def write(self, chunks: Iterable[bytes | memoryview]) -> None:
        """Append ``chunks`` in order."""
        with self._lock:
            file = self._opened()
            for chunk in chunks:
                file.write(chunk)

    def publish(self, target: Path, *, replace: bool) -> Path:
        """
        Give the file its final name.

        Args:
            target: The path it shall have, in the folder it was made in.
            replace: Whether a file of that name is replaced. If not, the
                first free of ``name``, ``name-2``, ``name-3`` ... is taken.

        Returns:
            The path it has now.
        """
        with self._lock:
            self._opened().close()
            if replace:
                self._temporary.replace(target)
            else:
                target = _link_to_free_name(self._temporary, target)
            self._is_over = True
            return target

    def discard(self) -> None:
        """Close and remove the file, unless it was published."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            if self._file is not None:
                # A full disk may refuse even the last flush; the file goes all the same.
                with contextlib.suppress(OSError):
                    self._file.close()
                self._temporary.unlink(missing_ok=True)

    def _opened(self) -> BinaryIO:
        if self._file is None or self._is_over:
            raise ValueError("this file is not open: it was published or discarded before")
        return self._file


def _link_to_free_name(temporary: Path, target: Path) -> Path:
    """Move ``temporary`` to the first free numbered name of ``target``."""
    number = _first_free_number(target)
    while True:
        candidate = target.with_name(numbered(target.name, number))
        try:
            # A hard link fails if the name is taken, in one step, so two
            # writers cannot both win it.
            candidate.hardlink_to(temporary)
        except FileExistsError:
            number += 1
        except OSError:
            # A file system without hard links. The name is taken by an empty
            # file first, which fails in one step too if another has it.
            try:
                candidate.open("xb").close()
            except FileExistsError:
                number += 1
                continue
            try:
                return temporary.replace(candidate)
            except OSError:
                candidate.unlink()
                raise
        else:
            temporary.unlink()
            return candidate


def _first_free_number(target: Path) -> int:
    """
    Find the first number whose name is free, in about as many looks as it has binary digits.

    Names are given out in order, so one that is free has none that is taken
    behind it. Another writer may be faster; whoever takes the name finds out.
    """
    taken, free = 0, 1
    while _is_taken(target, free):
        taken, free = free, free * 2
    while free - taken > 1:
        middle = (taken + free) // 2
        if _is_taken(target, middle):
            taken = middle
        else:
            free = middle
    return free


def _is_taken(target: Path, number: int) -> bool:
    return os.path.lexists(target.with_name(numbered(target.name, number)))


class Passage:
    """
    A pipe or a device, written to as it is; the face of a `PendingFile`.

    Opening waits for the one who reads a pipe, writing for it to be emptied;
    both end soon after it was discarded, from whichever thread.

    Raises:
        OSError: It cannot be written, or its reader has gone.
    """

    __slots__ = ("_descriptor", "_is_over", "_lock", "_path")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._lock = threading.Lock()
        self._is_over = False

    def open(self) -> None:
        """Open it, unless it was discarded meanwhile."""
        with self._held():
            while not self._is_over:
                try:
                    # Without O_NONBLOCK nothing would end the wait for a reader.
                    self._descriptor = os.open(
                        self._path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0)
                    )
                except OSError as error:
                    if error.errno != errno.ENXIO or not self._path.is_fifo():
                        raise
                    time.sleep(PASSAGE_SECONDS)
                else:
                    return

    def write(self, chunks: Iterable[bytes | memoryview]) -> None:
        """Write ``chunks`` in order."""
        with self._held():
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    descriptor = self._opened()
                    try:
                        rest = rest[os.write(descriptor, rest) :]
                    except BlockingIOError:
                        select.select([], [descriptor], [], PASSAGE_SECONDS)

    def publish(self, target: Path, *, replace: bool) -> Path:
        """Close it; it has its name already."""
        del replace
        with self._held():
            self._opened()
            self._is_over = True
        return target

    def discard(self) -> None:
        """Close it. What was written is with its reader."""
        self._is_over = True
        self._close_if_over()

    def _opened(self) -> int:
        if self._descriptor is None or self._is_over:
            raise ValueError("this pipe is not open: it was finished or discarded before")
        return self._descriptor

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        finally:
            self._close_if_over()

    def _close_if_over(self) -> None:
        # Never while another thread uses it: that one closes it when it notices.
        if self._is_over and self._lock.acquire(blocking=False):
            try:
                if self._descriptor is not None:
                    os.close(self._descriptor)
                    self._descriptor = None
            finally:
                self._lock.release()


class Saving:
    """
    A received file on its way to where the user wants it.

    `open`, `write` and `publish` block; call them in a worker thread, which
    may be abandoned where `may_wait` says so. `discard` may be called at any
    time, and must be at the end.

    Args:
        path: What the user wrote: a file or a folder, see `choose_target`.
        received: The name the file came under.
        suffix: Extension, with its dot, for a name that has none.
        overwrite: Replace a file of that name. If not, the first free of
            ``name``, ``name-2``, ``name-3`` ... is taken.

    Raises:
        OSError: It cannot be written there; the error names the path as the user wrote it.
    """

    __slots__ = (
        "_file", "_is_over", "_lock", "_received", "_replace", "_suffix", "_target", "_written",
    )  # fmt: skip

    def __init__(
        self,
        path: str | os.PathLike[str],
        received: str | None,
        suffix: str,
        *,
        overwrite: bool = False,
    ) -> None:
        self._written = path
        self._received = received
        self._suffix = suffix
        self._replace = overwrite
        self._file: PendingFile | Passage | None = None
        self._target = Path(path)
        self._lock = threading.Lock()
        self._is_over = False

    @property
    def may_wait(self) -> bool:
        """Whether writing may have to wait for a reader."""
        return isinstance(self._file, Passage)

    def open(self, content: bytes | None = None) -> None:
        """
        Choose the place and open it, unless it was discarded meanwhile.

        Args:
            content: All that will be written, if it is known. A named file that
                holds just that already is written anew rather than numbered.
        """
        with self._naming():
            target = self._target = choose_target(self._written, self._received, self._suffix)
            with contextlib.suppress(FileNotFoundError):
                target.lstat()  # a name that nothing can have is found now, not at the end
            file = Passage(target) if is_passage(target) else PendingFile(target.parent)
            if content is not None and not is_folder_path(self._written):
                self._replace = self._replace or _holds(target, content)
            with self._lock:
                if self._is_over:
                    return
                self._file = file
            file.open()

    def write(self, chunks: Iterable[bytes | memoryview]) -> None:
        """Append ``chunks`` in order."""
        with self._naming():
            self._opened().write(chunks)

    def publish(self) -> Path:
        """Give the file its final name, and return it."""
        with self._naming():
            return self._opened().publish(self._target, replace=self._replace)

    def discard(self) -> None:
        """Remove what was written, unless it was published."""
        with self._lock:
            self._is_over = True
        if self._file is not None:
            self._file.discard()

    def _opened(self) -> PendingFile | Passage:
        if self._file is None:
            raise ValueError("this file is not open: it was discarded before")
        return self._file

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Have an error name the path that the user wrote, not the temporary one."""
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno, error.strerror or str(error), os.fspath(self._written)
            ) from error


def _holds(target: Path, content: bytes) -> bool:
    """Return whether a file holds just these bytes."""
    try:
        return (
            not target.is_symlink()
            and target.stat().st_size == len(content)
            and target.read_bytes() == content
        )
    except OSError:
        return False
