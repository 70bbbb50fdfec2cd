"""
Files on disk: names that cannot escape their folder, and writing that never shows half a file.

A name that came over the network is a suggestion. What is written goes to a
temporary name in the target's own folder first and gets its final name in one
step, so a reader never sees a part of it, and a full disk leaves nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import BinaryIO

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


def choose_target(path: Path, received: str | None, suffix: str) -> tuple[Path, bool]:
    """
    Decide where a received file goes. Blocks.

    Args:
        path: What the user gave: a file, or an existing folder.
        received: The name the file came under.
        suffix: Extension, with its dot, for a name that has none.

    Returns:
        The file to write, and whether one of that name may be replaced: only
        if the user named it.
    """
    if path.is_dir():
        return path / safe_name(received, fallback="output", suffix=suffix), False
    return path, True


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
    number = 1
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


def write_file(target: Path, content: bytes | memoryview, *, replace: bool) -> Path:
    """
    Write ``content`` so that ``target`` holds all of it or is not touched. Blocks.

    Returns:
        The path written: ``target``, or with ``replace=False`` the first free numbered name.

    Raises:
        OSError: The folder is missing or cannot be written, or the disk is full.
    """
    with PendingFile(target.parent) as pending:
        pending.write([content])
        return pending.publish(target, replace=replace)
