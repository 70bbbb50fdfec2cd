"""
Inputs out of what a program holds: open files, uploads of a web framework, Pillow's pictures.

Each is a function that returns a fresh iterator over the same bytes, as a body
wants it, since an attempt may be sent again; and each can be measured before,
since a body has a length. Files are read in blocks off the event loop, and are
never held whole. The whole of a file is sent, from its beginning, wherever it
stands; where it stands afterwards nobody should rely on.
"""

from __future__ import annotations

import inspect
import io
import os
import threading
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary

import anyio
import anyio.to_thread

from ._errors import InvalidRequestError
from ._files import safe_name
from ._media import suffix_of, type_of_name
from ._show import shown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

T = TypeVar("T")

BLOCK_BYTES = 1024 * 1024
"""How much of a file is read at once. Measured: smaller costs more, larger delays other tasks."""

PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
"""
Pillow's modes that PNG has a form for. Documented: Pillow, "Image file formats",
PNG; without `I`, which newer ones no longer write.
"""


class BinaryFile(Protocol):
    """A file that is open for reading bytes, and can be read from any place."""

    def read(self, size: int = -1, /) -> bytes:
        """Read."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place."""


class AsyncBinaryFile(Protocol):
    """The same where reading is awaited: a web framework's upload, a file of an async library."""

    async def read(self, size: int = -1, /) -> bytes:
        """Read."""

    async def seek(self, offset: int, /) -> Any:
        """Go to a place."""


@runtime_checkable
class Drawn(Protocol):
    """A picture as Pillow has it."""

    @property
    def mode(self) -> str:
        """What its pixels are."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""

    def save(self, fp: Any, format: str | None = None, /) -> None:
        """Write it."""


class Facts(NamedTuple):
    """What was found out of a source: how many bytes it has, and the first of them."""

    size: int
    head: bytes


class Source(ABC):
    """
    Bytes that can be read any number of times; call it for an iterator over them.

    Attributes:
        name: A file name to give it, if it suggests one: only a suggestion.
        content_type: Its media type, if it says one.
    """

    __slots__ = ("content_type", "name")

    def __init__(self, name: str | None, content_type: str | None) -> None:
        self.content_type = content_type if isinstance(content_type, str) and content_type else None
        self.name = None
        if isinstance(name, str) and name.strip(" ./\\"):
            suffix = suffix_of(self.content_type)
            self.name = safe_name(name, fallback="input", suffix=suffix)

    @abstractmethod
    async def measure(self, head_bytes: int) -> Facts:
        """
        Find out its size and its first bytes.

        Raises:
            InvalidRequestError: It cannot be read.
        """

    @abstractmethod
    def __call__(self) -> AsyncIterator[bytes]:
        """Return a fresh iterator over all of its bytes."""


def source_of(content: object) -> Source | None:
    """
    Return a source for what can be one; ``None`` for anything else.

    Raises:
        InvalidRequestError: It is a file or a picture, and cannot be sent: it
            is closed, open as text, cannot be read twice, or has no form in PNG.
    """
    if isinstance(content, Drawn):
        return Picture(content)
    name = content_type = None
    if not isinstance(content, io.IOBase):  # the standard library's know neither
        name = getattr(content, "filename", None)
        content_type = getattr(content, "content_type", None)
    # An upload holds a plain file, which can be read from its end too.
    inner = getattr(content, "file", None) or getattr(content, "wrapped", None)
    if name is None:
        name = _telling_name(getattr(content, "name", None))
    if _is_file(inner):
        return OpenFile(inner, name, content_type)
    if not hasattr(content, "read"):
        return None
    if inspect.iscoroutinefunction(getattr(content, "read", None)):
        if not hasattr(content, "seek"):
            raise _unseekable(content)
        return AsyncFile(content, name, content_type)
    return OpenFile(content, name, content_type)


def _is_file(value: object) -> bool:
    read = getattr(value, "read", None)
    return callable(read) and hasattr(value, "seek") and not inspect.iscoroutinefunction(read)


def _telling_name(name: object) -> str | None:
    """Return the name of an open file, unless it tells nothing, as a temporary one's."""
    if isinstance(name, os.PathLike):
        name = os.fspath(name)
    if not isinstance(name, str) or type_of_name(name) is None:
        return None
    return os.path.basename(name)  # noqa: PTH119  (a name, perhaps of no file)


def _unseekable(file: object) -> InvalidRequestError:
    return InvalidRequestError(
        f"an input must be readable twice, in case it is sent again, and "
        f"{type(file).__name__} cannot go back to its beginning; "
        "read it first and give the bytes, or save it and give the path"
    )


def _closed() -> InvalidRequestError:
    return InvalidRequestError(
        "the file of an input is closed; it must stay open until the job has been sent"
    )


def _not_bytes(block: object) -> InvalidRequestError:
    instead = '; open it with "rb"' if isinstance(block, str) else ""
    return InvalidRequestError(
        f"the file of an input must give bytes, not {type(block).__name__}{instead}"
    )


_locks: WeakKeyDictionary[object, threading.Lock] = WeakKeyDictionary()
_locks_lock = threading.Lock()


def _lock_of(file: object) -> threading.Lock:
    """Return the lock of a file: it has one place to read from, whoever reads it."""
    try:
        with _locks_lock:
            return _locks.setdefault(file, threading.Lock())
    except TypeError:  # it cannot be held weakly
        return threading.Lock()


class OpenFile(Source):
    """A binary file that the caller has open."""

    __slots__ = ("_file", "_lock")

    def __init__(self, file: Any, name: str | None, content_type: str | None) -> None:
        super().__init__(name, content_type)
        if getattr(file, "closed", False):
            raise _closed()
        if isinstance(file, io.TextIOBase):
            raise _not_bytes("")
        seekable = getattr(file, "seekable", None)
        if not hasattr(file, "seek") or (seekable is not None and not seekable()):
            raise _unseekable(file)
        self._file = file
        self._lock = _lock_of(file)

    async def measure(self, head_bytes: int) -> Facts:
        """Find out its size and its first bytes, off the loop."""
        return await _in_thread(partial(self._measure, head_bytes))

    def _measure(self, head_bytes: int) -> Facts:
        with self._lock, _Reading():
            size = self._file.seek(0, os.SEEK_END)
            if not isinstance(size, int):  # some files of frameworks say nothing
                size = self._file.tell()
        return Facts(size, self._read(0, head_bytes))

    def _read(self, offset: int, most: int) -> bytes:
        with self._lock, _Reading():
            self._file.seek(offset)
            block = self._file.read(most)
        if not isinstance(block, bytes | bytearray | memoryview):
            raise _not_bytes(block)
        return bytes(block)

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        """Read it from its beginning to its end, in blocks, off the loop."""
        offset = 0
        while block := await _in_thread(partial(self._read, offset, BLOCK_BYTES)):
            yield block
            offset += len(block)


async def _in_thread(step: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(step, abandon_on_cancel=True)


class _Reading:
    """What goes wrong in somebody else's file, in our words."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):  # io.UnsupportedOperation is one too
            raise InvalidRequestError(
                f"the file of an input cannot be read: {error.strerror or error}"
            ) from error
        if isinstance(error, ValueError):
            raise (_closed() if "closed" in str(error) else _broken(error)) from error


def _broken(error: BaseException) -> InvalidRequestError:
    return InvalidRequestError(f"the file of an input cannot be read: {shown(error)}")


class AsyncFile(Source):
    """A file whose `read` and `seek` are awaited."""

    __slots__ = ("_file", "_lock")

    def __init__(self, file: AsyncBinaryFile, name: str | None, content_type: str | None) -> None:
        super().__init__(name, content_type)
        self._file = file
        self._lock = anyio.Lock()

    async def measure(self, head_bytes: int) -> Facts:
        """Find out its size, by going to its end or else by reading it, and its first bytes."""
        head = await self._read(0, head_bytes)
        return Facts(await self._size(), head)

    async def _size(self) -> int:
        file: Any = self._file
        async with self._lock:
            with _Reading():
                try:
                    size = await file.seek(0, os.SEEK_END)
                except TypeError:  # an upload that goes to places counted from the beginning only
                    size = None
                if size is None and hasattr(file, "tell"):
                    size = await file.tell()
        if isinstance(size, int):
            return size
        total = 0
        async for block in self():
            total += len(block)
        return total

    async def _read(self, offset: int, most: int) -> bytes:
        async with self._lock:
            with _Reading():
                await self._file.seek(offset)
                block = await self._file.read(most)
        if not isinstance(block, bytes | bytearray | memoryview):
            raise _not_bytes(block)
        return bytes(block)

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        """Read it from its beginning to its end, in blocks."""
        offset = 0
        while block := await self._read(offset, BLOCK_BYTES):
            yield block
            offset += len(block)


class Picture(Source):
    """A picture of Pillow's, sent as PNG: nothing of it is lost."""

    __slots__ = ("_encoded", "_picture")

    def __init__(self, picture: Drawn) -> None:
        super().__init__(None, "image/png")
        if picture.mode not in PNG_MODES:
            raise InvalidRequestError(
                f"a picture of mode {shown(picture.mode)} has no form in PNG; give "
                'picture.convert("RGB")'
            )
        self._picture = picture
        self._encoded: bytes | None = None

    async def measure(self, head_bytes: int) -> Facts:
        """Encode it, off the loop, once: every attempt sends the same bytes."""
        content = await _in_thread(self._encode)
        return Facts(len(content), content[:head_bytes])

    def _encode(self) -> bytes:
        if self._encoded is None:
            file = io.BytesIO()
            try:
                self._picture.save(file, "PNG")
            except (OSError, ValueError) as error:
                raise InvalidRequestError(
                    f"a picture cannot be written as PNG: {shown(error)}"
                ) from error
            self._encoded = file.getvalue()
        return self._encoded

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        """Yield it as PNG."""
        yield await _in_thread(self._encode)
