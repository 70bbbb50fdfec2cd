"""
multipart/form-data, bytes to events; knows nothing of Prodia and does no I/O.

Theory. python-multipart is the tokeniser: over any number of chunks it decides
which bytes are a delimiter, of which kind, and with that where each part ends.
All else is ours: where a delimiter may be at all (``find``), the headers
(`_part_headers`), the limits, and whether the body is whole.

It is shown an abridged body, for two reasons. It is strict or silent at the
edges (0.0.34): it refuses a preamble, folded headers, padding after the first
delimiter and a part without a CRLF of its own after the blank line, bounds
headers line by line, and calls a body that stops half-way a success; encoders
write all of these. And each call costs 2 µs, half of what ``find`` takes for a
whole chunk of 64 KiB (measured). So header blocks are emptied, padding is left
out, and of the payload it gets only the places where a delimiter may be. The
rest never passes through it. What it makes of the whole body, where it takes
that, is what we make of it: a test holds the two beside each other, and a
third parser that shares no code with either.

    preamble CRLF --B CRLF  header: ... CRLF CRLF  payload CRLF --B-- epilogue
             └─ parser ──┘  └─ `_read_headers` ─┘          └─ parser┘

A payload begins at the start of a line: the delimiter after it may use the
line end of the blank line before it (Werkzeug's empty part). The preamble is
a payload too, one that nobody gets.

Completeness is ours: a part counts when the delimiter after it was seen, the
message when the closing delimiter was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from ._errors import (
    MalformedResponseError,
    ResponseError,
    ResponseTooLargeError,
    TruncatedResponseError,
)
from ._part_headers import PartStarted, parse_boundary, parse_part

MAX_PARTS = 1000
"""Most parts. Chosen: a job has a handful of outputs. Go and Django stop at 1,000 parts, too."""

MAX_PART_HEADER_BYTES = 16 * 1024
"""
Most bytes of a part's headers, with their line ends and the blank line. Chosen: what Node takes
for all headers of a message; encoders write a few hundred bytes.
"""

MAX_PART_HEADERS = 32
"""Most headers of a part. Chosen: encoders write one to three (measured); proxies may add some."""

_PLACEHOLDER = b"\0"
"""Stands for payload that the parser is not shown; never part of a delimiter."""

_NOT_BLANK = re.compile(rb"[^ \t]")


@dataclass(slots=True)
class PartData:
    """
    The next bytes of the current part; never empty.

    Handed on as it is to whoever reads the part. Not frozen, for there is one
    for each chunk, and a frozen one takes twice as long to make (measured).

    Attributes:
        data: A view of the chunk that was handed in, which it keeps alive;
            nothing was copied. (Only bytes that looked like a delimiter, and
            turned out to be none, are a small copy.)
    """

    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class PartFinished:
    """The delimiter after the part was seen: all of its bytes have been delivered."""


@dataclass(frozen=True, slots=True)
class MessageFinished:
    """The closing delimiter was seen; whatever follows it is ignored."""


Event = PartStarted | PartData | PartFinished | MessageFinished

_PART_FINISHED = PartFinished()
_MESSAGE_FINISHED = MessageFinished()


class MultipartDecoder:
    """
    An incremental decoder of one multipart/form-data body.

    Feed it with `receive_data`, in chunks of any size cut anywhere, and end
    with `receive_eof`. The events do not depend on the cuts, except that the
    bytes of a part may come in more or fewer pieces.

    Nothing received is lost to a later fault: events that were complete before
    it are returned as usual, and the error is raised by the next call (at once
    when there are none). `error` tells without waiting for that call. From
    then on every call raises that same error.

    At most `MAX_PART_HEADER_BYTES` are kept between calls, and nothing is held
    back but what may be the start of a delimiter. Fastest with chunks of 32 KiB
    or more (measured; a call costs about 2 µs, and CPython's ``find`` has a bad
    case below 30,000 bytes).

    Attributes:
        finished: Whether the closing delimiter was seen.
        bytes_received: All bytes handed in so far, those after the end too.
        error: What the next call will raise, or ``None``.
    """

    __slots__ = (
        "_closed", "_ended", "_events", "_header_block", "_in_part", "_lead", "_line_start",
        "_needle", "_padded", "_parser", "_parts", "_pending", "_reported", "_skip",
        "bytes_received", "error", "finished",
    )  # fmt: skip

    def __init__(self, content_type: str) -> None:
        """
        Begin a body.

        Args:
            content_type: The response's Content-Type, with the boundary.

        Raises:
            MalformedResponseError: Not multipart/form-data, or no usable boundary.
        """
        boundary = parse_boundary(content_type)
        self.finished = False
        self.bytes_received = 0
        self.error: ResponseError | None = None

        self._events: list[Event] = []
        self._parts = 0
        # The header block so far, behind the CRLF of its delimiter; None in a payload.
        self._header_block: bytearray | None = None
        # Whether the payload is a part's; before the first delimiter it is the preamble.
        self._in_part = False
        # Whether nothing of the payload has come yet.
        self._line_start = True

        self._needle = b"\r\n--" + boundary
        # Only the callbacks in use: the parser pays for each.
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )
        # What the parser is to read before the next piece of payload, to get there.
        self._lead = self._needle[2:] + b"\r\n\r\n"
        self._skip = 0  # bytes of the lead that it will report as payload
        self._pending = 0  # bytes it holds back, since they may become a delimiter
        self._padded = False  # blanks were left out behind those bytes
        self._reported = 0  # payload bytes it reported in the current call
        self._ended = False  # it saw a delimiter
        self._closed = False  # and that was the closing one

    def __repr__(self) -> str:
        if self.error is not None:
            where = type(self.error).__name__
        elif self.finished:
            where = "finished"
        else:
            where = self._where()
        return (
            f"<MultipartDecoder: {where}, {self._parts} part{'s' * (self._parts != 1)} begun, "
            f"{self.bytes_received} bytes received>"
        )

    def receive_data(self, data: bytes) -> list[Event]:
        """
        Take the next bytes of the body and return the events they complete.

        Args:
            data: Any number of bytes; may split anything anywhere.

        Returns:
            Events in wire order: `PartStarted`, any number of `PartData` and
            `PartFinished` for each part, then one `MessageFinished`. Often
            empty; always empty after the end.

        Raises:
            MalformedResponseError: These bytes, or earlier ones whose events
                were returned first, cannot continue a multipart body.
            ResponseTooLargeError: Likewise, they go over a limit.
        """
        if self.error is not None:
            # Without the traceback of the last time, which would grow.
            raise self.error.with_traceback(None)
        self.bytes_received += len(data)
        events = self._events = []
        try:
            self._read(data)
        except ResponseError as error:
            error.bytes_received = self.bytes_received
            self.error = error
            if not events:
                raise
        finally:
            # They belong to the caller now, and with them the chunk.
            self._events = []
        return events

    def receive_eof(self) -> None:
        """
        Say that the body has ended.

        Raises:
            TruncatedResponseError: The closing delimiter has not been seen.
            MalformedResponseError: Found in the last data, after events.
            ResponseTooLargeError: Likewise.
        """
        if self.error is not None:
            # Without the traceback of the last time, which would grow.
            raise self.error.with_traceback(None)
        if not self.finished:
            self.error = TruncatedResponseError(
                f"the body must end with {self._needle[2:].decode()}--, but ended "
                f"after {self.bytes_received} bytes {self._where()}"
            )
            self.error.bytes_received = self.bytes_received
            raise self.error

    def _where(self) -> str:
        if self._header_block is not None:
            return f"in the headers of part {self._parts}"
        if self._in_part:
            return f"in the body of part {self._parts}"
        return "before the first delimiter"

    def _read(self, data: bytes) -> None:
        position = 0
        while position < len(data) and not self.finished:
            if self._header_block is not None:
                position = self._read_headers(data, position, self._header_block)
            elif self._line_start:
                position = self._read_line_start(data, position)
            elif self._pending:
                position = self._judge(data, position)
            else:
                position = self._scan(data, position)

    def _start_headers(self) -> None:
        if self._parts == MAX_PARTS:
            raise ResponseTooLargeError(
                f"the body must have at most {MAX_PARTS} parts, but another one begins"
            )
        self._parts += 1
        self._header_block = bytearray(b"\r\n")

    def _read_headers(self, data: bytes, position: int, block: bytearray) -> int:
        """Collect the header block; return the position behind it, or the end of the data."""
        before = len(block)
        limit = MAX_PART_HEADER_BYTES
        stop = min(len(data), position + 2 + limit - before)
        blank_line = data.find(b"\r\n\r\n", position, stop)
        block += data[position : stop if blank_line == -1 else blank_line + 4]
        # The blank line may also have begun before this data.
        end = block.find(b"\r\n\r\n", max(0, before - 3))
        if end == -1:
            if len(block) == 2 + limit:
                raise ResponseTooLargeError(
                    f"the headers of a part must have at most {limit} bytes; "
                    f"those of part {self._parts} have more"
                )
            return stop
        started = parse_part(bytes(block[2:end]))
        if len(started.headers) > MAX_PART_HEADERS:
            raise ResponseTooLargeError(
                f"a part must have at most {MAX_PART_HEADERS} headers; "
                f"part {self._parts} has {len(started.headers)}"
            )
        self._header_block = None
        self._in_part = self._line_start = True
        self._events.append(started)
        return position + end + 4 - before

    def _read_line_start(self, data: bytes, position: int) -> int:
        """Look whether a payload begins like a delimiter that has no CRLF of its own."""
        if not self._parts:
            # Line ends before the first delimiter; here a bare LF counts, as in python-multipart.
            position = len(data) - len(data.lstrip(b"\r\n"))
            first = self._lead[:-2]
            if data.startswith(first, position):
                # What nearly everybody sends. The lead stands for it, so the parser need not look.
                self._line_start = False
                self._start_headers()
                return position + len(first)
            if position == len(data):
                return position
        self._line_start = False
        # A start is enough where the data ends.
        if self._needle.startswith(data[position : position + len(self._needle) - 2], 2):
            self._lead += b"\r\n"
            self._skip = self._pending = 2
        return position

    def _scan(self, data: bytes, position: int) -> int:
        """Pass on payload up to the next place where a delimiter may be, and have that judged."""
        needle = self._needle
        end = len(data)
        start = data.find(needle, position)
        if start == -1:
            # A delimiter cut by the end of the data begins at the last CR, as it has no other.
            start = data.rfind(b"\r", max(position, end - len(needle) + 1))
            if start == -1 or not needle.startswith(data[start:]):
                start = end
        if self._in_part and start > position:
            view = memoryview(data)
            self._events.append(PartData(view if start - position == end else view[position:start]))
        return start if start == end else self._judge(data, start)

    def _judge(self, data: bytes, position: int) -> int:
        """
        Have the parser read what may be a delimiter, and not one byte more.

        Returns:
            The position behind what was read. `_pending` tells whether it is undecided.
        """
        rest = self._needle[self._pending :]
        if not rest.startswith(data[position : position + len(rest)]):
            # Not a delimiter after all. The parser reports what it held back;
            # what follows is to be scanned again, for it may be anything.
            self._feed(_PLACEHOLDER)
            self._pending = 0
            return position
        # Behind the delimiter's boundary, where CRLF or hyphens tell its kind.
        tail = position + len(self._needle) - self._pending
        end = tail + 2
        if position == tail and data[position] in b" \t":
            # Padding, which not every version of python-multipart knows, and
            # which may be long: it never gets to the parser.
            self._padded = True
            text = _NOT_BLANK.search(data, position)
            return text.start() if text else len(data)
        if self._padded:
            if data[position] != b"\r\n"[position - tail]:
                raise MalformedResponseError(
                    f"blanks after a delimiter must end in CRLF, but did not {self._where()}"
                )
            end = position + 1
        elif position < tail and data[tail : tail + 1] in {b" ", b"\t"}:
            end = tail
        piece = data[position:end]
        self._reported = 0
        self._feed(self._lead + piece)
        self._lead = b""
        self._pending += len(piece) - self._reported
        if self._ended:
            self._end_payload()
        return position + len(piece)

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except MultipartParseError as exc:
            # Neither 0.0.20 nor 0.0.34 refuses anything we show it; a stricter one may.
            raise MalformedResponseError(
                f"python-multipart refused what came {self._where()}: {exc}"
            ) from exc

    def _end_payload(self) -> None:
        if self._in_part:
            self._events.append(_PART_FINISHED)
        if self._closed:
            self.finished = True
            self._events.append(_MESSAGE_FINISHED)
            # The parser holds our methods; without them no cycle is left to the garbage collector.
            self._parser.callbacks = {}
            return
        # Back to where only a blank line is missing before the next payload.
        self._lead = b"\r\n"
        self._skip = self._pending = 0
        self._in_part = self._padded = self._ended = False
        self._start_headers()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if data is _PLACEHOLDER:
            return
        self._reported += end - start
        dropped = min(self._skip, end - start)
        self._skip -= dropped
        if self._in_part and start + dropped < end:
            self._events.append(PartData(memoryview(data)[start + dropped : end]))

    def _on_part_end(self) -> None:
        self._ended = True

    def _on_end(self) -> None:
        self._closed = True
