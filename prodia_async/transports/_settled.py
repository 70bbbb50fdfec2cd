"""
One response as its bytes come in, and the proof that it is over and that nothing follows it.

A connection is used again only with that proof. What a server sends behind a
response would else be read as the next one: a job would get another job's
picture, or an error after it was charged. A library reads the HTTP
(`_parsers`); what none of them looks at, or what they differ in, is looked at
here, so that it does not depend on who reads:

- The head, interim heads, chunk sizes and extensions, trailers: all that is no
  body may have 100 KB, and a little more for each chunk.
- HTTP/1.x only, no 101, no transfer coding but ``chunked``: nobody asked for one.
- A head that says both a length and ``chunked`` is read as chunked, as RFC 9112
  has it, and its connection is not used again.
"""

from __future__ import annotations

from collections import deque

MAX_HEAD = 100 * 1024
"""Bytes that may be no body. Chosen: h11's limit in httpcore; servers send a few hundred."""

CHUNK_ALLOWANCE = 256
"""What each chunk may add to that. Chosen: a size takes 10 bytes, a signature in it 85."""

Pairs = list[tuple[bytes, bytes]]


class BadResponseError(Exception):
    """What came is no response, or none that is taken."""


class Response:
    """
    One response; a parser's class derives from it and fills it.

    Attributes:
        status: The HTTP status, 0 until the head is here.
        headers: Names and values, as they came.
        pieces: Parts of the body that nobody has taken yet.
        unread: Bytes in them.
        is_over: Whether its last byte is here.
        has_more: Whether anything came behind it.
    """

    __slots__ = (
        "_chunks", "_is_framed_twice", "_is_last", "_received", "_size", "has_more", "headers",
        "is_over", "pieces", "status", "unread",
    )  # fmt: skip

    def __init__(self) -> None:
        self.status = 0
        self.headers: Pairs = []
        self.pieces: deque[bytes] = deque()
        self.unread = 0
        self.is_over = self.has_more = False
        self._received = self._size = self._chunks = 0
        self._is_framed_twice = self._is_last = False

    def receive(self, data: bytes) -> None:
        """
        Take the next bytes of the connection, some at least.

        Raises:
            BadResponseError: These can be no response.
        """
        if self.is_over:
            self.has_more = True
            return
        self._received += len(data)
        had_begun = bool(self.status)
        self._parse(data)
        if self._received - self._size > MAX_HEAD + self._chunks * CHUNK_ALLOWANCE and not (
            self.is_over and self.has_more
        ):
            if not had_begun:
                self.status = 0  # a head that is refused is none, though all of it came at once
            raise BadResponseError(
                f"over {MAX_HEAD} bytes of head or framing, the most that is taken, "
                f"with {self._size} bytes of body"
            )

    def receive_eof(self) -> None:
        """
        Take the end of the connection.

        Raises:
            BadResponseError: The response was not over, nor ended by the connection.
        """
        if not self.is_over:
            self._parse_eof()
        if not self.is_over:
            raise BadResponseError(
                "the server disconnected in the middle of its answer"
                if self.status
                else "the server disconnected without an answer"
            )
        self._is_last = True

    @property
    def has_begun(self) -> bool:
        """Whether anything of it is here, be it half a line."""
        return self._received > 0

    @property
    def is_settled(self) -> bool:
        """Whether it is over, nothing came behind it, and its connection may be used again."""
        return self.is_over and not (self.has_more or self._is_last or self._is_framed_twice)

    def take(self) -> bytes:
        """Remove the next part of the body; there must be one."""
        pieces = self.pieces
        data = pieces.popleft()
        if pieces and len(data) < _SMALL_PIECE:
            data = b"".join((data, *pieces))
            pieces.clear()
        self.unread -= len(data)
        return data

    def _begin(self, status: int, version: bytes, headers: Pairs) -> None:
        """Take the head."""
        if not version.startswith(b"1."):
            raise BadResponseError(f"HTTP/{version.decode('latin-1')} where HTTP/1.1 was expected")
        is_chunked = has_length = False
        for name, value in headers:
            match name.lower():
                case b"transfer-encoding":
                    if is_chunked or value.strip().lower() != b"chunked":
                        raise BadResponseError("a transfer coding that nobody asked for")
                    is_chunked = True
                case b"content-length":
                    has_length = True
        self._is_framed_twice = is_chunked and has_length
        self.headers = headers
        self.status = status

    def _add(self, data: bytes) -> None:
        """Take a part of the body."""
        self.pieces.append(data)
        size = len(data)
        self.unread += size
        self._size += size

    def _end(self, *, is_last: bool) -> None:
        """Take its end; the last if the connection ends with it."""
        self.is_over = True
        self._is_last = is_last

    def _parse(self, data: bytes) -> None:
        raise NotImplementedError

    def _parse_eof(self) -> None:
        raise NotImplementedError


_SMALL_PIECE = 32 * 1024
"""Waiting parts below this are joined. Measured: decoders are slow under 30,000 bytes."""
