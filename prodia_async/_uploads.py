"""
Request bodies: measured, replayable, and read from disk off the event loop.

A job may be sent more than once (429, 5xx), so nothing here is used up by
sending: bytes are kept, files are read again, functions are called again. No
body is ever held whole. Bytes go out in 256 KB views, since one big write is
copied whole by the transport and stalls every other task (57 ms for 50 MB,
measured). Files are read in 1 MB blocks in a worker thread: a thread hop a
block costs little, smaller blocks cost more (measured).
"""

from __future__ import annotations

import inspect
import os
import secrets
import stat
from collections.abc import AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import anyio
import anyio.to_thread

from . import _waiting
from ._closing import close_input
from ._errors import DeadlineExceededError, InvalidRequestError
from ._sources import BLOCK_BYTES
from ._sources import Source as OtherFile

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

T = TypeVar("T")

VIEW_BYTES = 256 * 1024
"""How much of a `bytes` object is handed over at once. Measured."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as it was when it was measured: bytes, and nanoseconds at its last change."""

    path: Path
    size: int
    modified: int
    head: bytes


def measure(path: Path, head_bytes: int) -> FileFacts:
    """
    Look at a file that shall be sent. Blocks.

    Raises:
        InvalidRequestError: It is missing, unreadable, or no regular file.
    """
    try:
        if "\0" in str(path):
            raise OSError(None, "a path cannot hold a NUL")
        # Before it is opened: opening a pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(None, "it is a folder" if path.is_dir() else "it is no regular file")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            return FileFacts(path, status.st_size, status.st_mtime_ns, file.read(head_bytes))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidRequestError(f"cannot read the input {str(path)!r}: {reason}") from error


def _read_block(facts: FileFacts, offset: int) -> bytes:
    """
    Read the next block of a file. Blocks.

    The file is opened anew each time (some 20 microseconds beside a read of
    1 MB), so that no open file is left behind wherever sending may stop.
    """
    wanted = min(BLOCK_BYTES, facts.size - offset)
    try:
        with facts.path.open("rb") as file:
            file.seek(offset)
            block = file.read(wanted)
            status = os.fstat(file.fileno())
    except OSError as error:
        raise InvalidRequestError(
            f"the input {str(facts.path)!r} can no longer be read: {error.strerror or error}"
        ) from error
    if (status.st_size, status.st_mtime_ns) != (facts.size, facts.modified) or len(block) < wanted:
        raise InvalidRequestError(
            f"the input {str(facts.path)!r} changed while the job was being sent: it had "
            f"{facts.size} bytes and now has {status.st_size}; every attempt must send the same"
        )
    return block


Source: TypeAlias = "bytes | FileFacts | Callable[[], AsyncIterator[bytes]]"
"""Where a part's bytes come from; each can be read any number of times."""


@dataclass(frozen=True, slots=True)
class FormPart:
    """
    One part of a multipart body.

    Attributes:
        filename: Its file name, already checked to need no escaping; ``""`` for a plain field.
        content_type: Its media type; ``""`` for a plain field.
    """

    name: str
    filename: str
    content_type: str
    source: Source
    size: int

    def head(self, boundary: str) -> bytes:
        """Return the delimiter and headers that go before the bytes."""
        filename = f'; filename="{self.filename}"' if self.filename else ""
        content_type = f"Content-Type: {self.content_type}\r\n" if self.content_type else ""
        return (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="{self.name}"{filename}\r\n'
            f"{content_type}\r\n"
        ).encode()


class BytesBody:
    """A body that is in memory."""

    __slots__ = ("content", "content_type")

    def __init__(self, content: bytes, content_type: str) -> None:
        self.content = content
        self.content_type = content_type

    @property
    def content_length(self) -> int:
        """Bytes in all."""
        return len(self.content)

    async def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        for view in _views(self.content):
            yield view


class FormBody:
    """A ``multipart/form-data`` body, made of its parts as it is sent."""

    __slots__ = ("_boundary", "_parts", "content_length")

    def __init__(self, parts: Sequence[FormPart]) -> None:
        # 128 random bits cannot be in a part but by intent, and no part knows them.
        self._boundary = secrets.token_hex(16)
        self._parts = tuple(parts)
        self.content_length = len(self._tail) + sum(
            len(part.head(self._boundary)) + part.size + 2 for part in self._parts
        )

    @property
    def content_type(self) -> str:
        """The Content-Type header, with the boundary."""
        return f"multipart/form-data; boundary={self._boundary}"

    @property
    def _tail(self) -> bytes:
        return f"--{self._boundary}--\r\n".encode()

    async def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        # What is small is joined, up to one view: one write carries the heads around it.
        pending = b""
        for part in self._parts:
            pending += part.head(self._boundary)
            joined = len(pending) + part.size + 2 + len(self._tail)
            if isinstance(part.source, bytes) and joined <= VIEW_BYTES:
                pending += part.source
            else:
                for view in _views(pending):
                    yield view
                pending = b""
                # Closed here and now if sending stops, not whenever it is collected.
                async with aclosing(chunks_of(part)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            pending += b"\r\n"
        yield pending + self._tail


def _views(content: bytes) -> list[bytes | memoryview]:
    if len(content) <= VIEW_BYTES:
        return [content]
    whole = memoryview(content)
    return [whole[at : at + VIEW_BYTES] for at in range(0, len(content), VIEW_BYTES)]


async def chunks_of(part: FormPart) -> AsyncGenerator[bytes | memoryview, None]:
    """Yield a part's bytes, exactly as many as were promised."""
    match part.source:
        case bytes():
            for view in _views(part.source):
                yield view
        case FileFacts():
            for offset in range(0, part.size, BLOCK_BYTES):
                yield await anyio.to_thread.run_sync(
                    _read_block, part.source, offset, abandon_on_cancel=True
                )
        case factory:
            made = factory()
            if not isinstance(made, AsyncIterable):
                if inspect.iscoroutine(made):
                    made.close()  # or Python warns that nobody awaited it
                raise InvalidRequestError(
                    f"the function of the input {part.filename!r} must return an async iterator "
                    f"of bytes, not {type(made).__name__}"
                )
            sent = 0
            try:
                async for chunk in made:
                    if not isinstance(chunk, bytes | bytearray | memoryview):
                        raise InvalidRequestError(
                            f"the function of the input {part.filename!r} must make bytes, "
                            f"not {type(chunk).__name__}"
                        )
                    # A buffer may be filled anew while the old bytes are still to be sent.
                    content = bytes(chunk)
                    sent += len(content)
                    if sent > part.size:
                        break
                    for view in _views(content):
                        yield view
            finally:
                await close_input(made)
            if sent != part.size:
                if isinstance(factory, OtherFile):
                    raise InvalidRequestError(
                        f"the input {part.filename!r} changed while the job was being sent: it "
                        f"had {part.size} bytes; every attempt must send the same"
                    )
                more = "more than " if sent > part.size else ""
                raise InvalidRequestError(
                    f"the input {part.filename!r} was said to have {part.size} bytes and its "
                    f"function made {more}{min(sent, part.size)}"
                )


async def looked_at(
    look: Callable[[], Awaitable[T]], deadline: float | None, doing: str
) -> tuple[T, float]:
    """
    Look at what shall be sent, which is part of a job's deadline; also return how long it took.

    Raises:
        DeadlineExceededError: It took longer; the message says what we were ``doing``.
    """
    if deadline is None:
        return await look(), 0.0
    began = _waiting.current_time()
    with _waiting.until(began + deadline):
        found = await look()
        return found, _waiting.current_time() - began
    raise DeadlineExceededError(
        f"the job was not sent within its deadline of {deadline:g} s: {doing} took longer"
    )
