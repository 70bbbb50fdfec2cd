"""Bodies that need not be in memory: bytes, and what is written while it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Lazy(Protocol):
    """
    Bytes that are made while they are read; each reading gives the same ones.

    Attributes:
        size: How many there are.
    """

    @property
    def size(self) -> int: ...

    def pieces(self) -> Iterator[bytes]:
        """Make them, in pieces of any size; each may take milliseconds of CPU time."""
        ...


Content = bytes | Lazy
"""What one output holds."""

Body = bytes | tuple[Content, ...]
"""What an answer holds: bytes, or a row of contents of which at least one is lazy."""


def joined(row: Iterable[Content]) -> Body:
    """Make a body of contents in a row: bytes, unless one of them is lazy."""
    row = tuple(row)
    whole = [each for each in row if isinstance(each, bytes)]
    return b"".join(whole) if len(whole) == len(row) else row


def size_of(content: Content) -> int:
    """Count the bytes of a content."""
    return len(content) if isinstance(content, bytes) else content.size


def length_of(body: Body) -> int:
    """Count the bytes of a body."""
    return len(body) if isinstance(body, bytes) else sum(map(size_of, body))


def held_by(content: Content) -> int:
    """Count the bytes that a content keeps in memory; a lazy one counts for a little."""
    return len(content) if isinstance(content, bytes) else _RECIPE


_RECIPE = 8 << 20
"""What a lazy content counts for where memory is bounded (chosen): two pictures of 720p."""


def whole(content: Content) -> bytes:
    """Make all the bytes of a content."""
    return content if isinstance(content, bytes) else b"".join(content.pieces())


def pieces_of(body: Body) -> Iterator[bytes]:
    """Go through a body from its begin to its end."""
    for content in (body,) if isinstance(body, bytes) else body:
        if isinstance(content, bytes):
            yield content
        else:
            yield from content.pieces()
