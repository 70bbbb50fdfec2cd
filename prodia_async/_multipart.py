"""
multipart/form-data, bytes to events; knows nothing of Prodia and does no I/O.

Theory. python-multipart's push parser decides what is a delimiter, over any
number of chunks. It is strict or silent at the edges, though (0.0.34): it
refuses a preamble, folded headers, padding after the first delimiter and a
part without a CRLF of its own after the blank line, bounds headers line by
line, and calls a body that stops half-way a success. And each call costs 2 µs,
half of what ``find`` takes for a whole chunk of 64 KiB (measured).

So it reads an abridged body: header blocks are emptied, padding is left out,
and of the payload it gets only the places where a delimiter may be. The rest
never passes through it.

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
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from ._errors import (
    MalformedResponseError,
    ResponseError,
    ResponseTooLargeError,
    TruncatedResponseError,
)

MAX_BOUNDARY_LENGTH = 200
"""
Chosen. RFC 2046 ends at 70 and the longest one measured is 67, but a writer
that goes further can still be read; python-multipart itself ends at 256.
"""

MAX_PARTS = 1000
"""Chosen: a job has a handful of outputs. Go and Django stop at 1,000 parts, too."""

MAX_PART_HEADER_BYTES = 16 * 1024
"""Chosen: what Node takes for all headers of a message; encoders write a few hundred bytes."""

MAX_PART_HEADERS = 32
"""Chosen: encoders write one to three (measured); proxies may add some."""

_PLACEHOLDER = b"\0"
"""Stands for payload that the parser is not shown; never part of a delimiter."""

_TRANSPARENT_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})

_FIELD_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FOLD = re.compile(rb"\r\n[ \t]+")
_QUOTED_PAIR = re.compile(r"\\([\"\\])")
_NOT_BLANK = re.compile(rb"[^ \t]")
_BOUNDARY = re.compile(r"[\x20-\x7e]*[\x21-\x7e]")
# A value is an RFC quoted string, or what a writer that escapes nothing puts
# between the first quote and the next one that can end it, or it has no end,
# or no quotes. Each alternative fails fast or takes what it looked at, so
# that a hostile header costs linear time.
_PARAMETER = re.compile(
    r"""
    [ \t]* ([^=;]*)
    (?: = [ \t]*
        (?: " ( (?: [^"\\] | \\. )*+ ) " (?= [ \t]* (?: ; | \Z ) )
          | " ( .*? ) " (?= [ \t]* (?: ; | \Z ) )
          | " ( .* )
          | ( [^;]* )
        )
    )?
    [ \t]* (?: ; | \Z )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class PartStarted:
    """
    The headers of a part are complete.

    Attributes:
        name: The field name; ``None`` when there is no form-data disposition.
        filename: As the writer meant it, which is not safe as a path. ``None``
            when there is none; may be empty.
        content_type: The value of Content-Type as it stands, or ``None``.
        headers: All headers in wire order, names in lower case.
    """

    name: str | None
    filename: str | None
    content_type: str | None
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PartData:
    """
    The next bytes of the current part; never empty.

    Attributes:
        data: A view of the chunk that was handed in, which it keeps alive;
            nothing was copied. (Only bytes that looked like a delimiter, and
            turned out to be none, are a small copy.)
    """

    data: memoryview


@dataclass(frozen=True, slots=True)
class PartFinished:
    """The delimiter after the part was seen: all of its bytes have been delivered."""


@dataclass(frozen=True, slots=True)
class MessageFinished:
    """The closing delimiter was seen; whatever follows it is ignored."""


Event = PartStarted | PartData | PartFinished | MessageFinished

_PART_FINISHED = PartFinished()
_MESSAGE_FINISHED = MessageFinished()


def parse_parameters(value: str) -> tuple[str, list[tuple[str, str]]]:
    r"""
    Split a header value such as ``form-data; name="a"``.

    Two dialects of quoted strings are in use, and nothing tells which one a
    writer speaks. ``\"`` and ``\\`` are read as the RFCs and Go mean them; any
    other backslash stands for itself, as in browsers. A quote that no blank
    and semicolon (or the end) follows does not end the string, since some
    writers escape nothing.

    Args:
        value: The whole header value. Never refused, whatever it is.

    Returns:
        What stands before the first semicolon, and the parameters in wire
        order with repetitions; both that and the parameter names lower case.
    """
    kind, _, rest = value.partition(";")
    parameters: list[tuple[str, str]] = []
    for key, quoted, loose, endless, plain in _PARAMETER.findall(rest):
        if key:
            text = _QUOTED_PAIR.sub(r"\1", quoted) if "\\" in quoted else quoted
            text = text or loose or endless or plain.rstrip(" \t")
            parameters.append((key.rstrip(" \t").lower(), text))
    return kind.strip(" \t").lower(), parameters


def parse_boundary(content_type: str) -> bytes:
    """
    Find the boundary in the Content-Type of a multipart/form-data body.

    Args:
        content_type: The header's value, in any letter case.

    Returns:
        The boundary without its leading hyphens, 1 to `MAX_BOUNDARY_LENGTH` bytes.

    Raises:
        MalformedResponseError: Another type, or no usable boundary.
    """
    kind, parameters = parse_parameters(content_type)
    # Cut, since the value came from elsewhere and goes into a message.
    came = repr(content_type if len(content_type) <= 300 else content_type[:300] + "...")
    if kind != "multipart/form-data":
        raise MalformedResponseError(f"Content-Type must be multipart/form-data, not {came}")
    boundary = next((text for key, text in parameters if key == "boundary"), None)
    if not boundary:
        raise MalformedResponseError(f"multipart/form-data must come with a boundary, not {came}")
    if len(boundary) > MAX_BOUNDARY_LENGTH:
        raise MalformedResponseError(
            f"the boundary must have at most {MAX_BOUNDARY_LENGTH} characters, not {len(boundary)}"
        )
    if not _BOUNDARY.fullmatch(boundary):
        raise MalformedResponseError(
            f"the boundary must be printable ASCII that does not end in a blank, not {boundary!r}"
        )
    return boundary.encode("ascii")


def parse_part_headers(block: bytes) -> tuple[tuple[str, str], ...]:
    """
    Read the header lines of one part.

    Args:
        block: The lines with CRLF between them, without the blank line. Empty
            when the part has no headers.

    Returns:
        ``(name, value)`` in wire order: names lower case, folded lines joined,
        values read as UTF-8, or as Latin-1 where they are not UTF-8.

    Raises:
        MalformedResponseError: A line is not ``name: value``.
    """
    if not block:
        return ()
    headers = []
    for line in _FOLD.sub(b" ", block).split(b"\r\n"):
        field, colon, content = line.partition(b":")
        field = field.rstrip(b" \t")
        if not colon or not _FIELD_NAME.fullmatch(field):
            shown = line if len(line) <= 100 else line[:100] + b"..."
            raise MalformedResponseError(f"a part's header must be 'name: value', not {shown!r}")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        headers.append((field.decode("ascii").lower(), text.strip(" \t")))
    return tuple(headers)


def parse_disposition(value: str) -> tuple[str | None, str | None]:
    r"""
    Find the name and the filename in a Content-Disposition.

    The first of several counts, or an output could turn into a job. ``%22``
    is a quote, as browsers write it; other escapes are left alone because
    hardly anyone writes them and a percent sign is legal in a filename. The
    extended forms of RFC 5987 and 2231 (``filename*``, ``filename*0``) win for
    the filename, as RFC 6266 asks, and lose for the name, which nobody but Go
    extends.

    Args:
        value: The whole header value. Never refused.

    Returns:
        ``(name, filename)``, each ``None`` when absent. The name is ``None``
        unless the disposition is form-data.
    """
    kind, parameters = parse_parameters(value)
    first: dict[str, str] = {}
    for key, text in parameters:
        first.setdefault(key, text.replace("%22", '"'))
    filename = _extended(first, "filename")
    if filename is None:
        filename = first.get("filename")
    if kind != "form-data":
        return None, filename
    name = first.get("name")
    return _extended(first, "name") if name is None else name, filename


def _extended(parameters: dict[str, str], key: str) -> str | None:
    """Read ``key*`` or ``key*0``, ``key*1`` ...; ``None`` if absent or not readable."""
    pieces: list[tuple[str, bool]] = []
    if f"{key}*" in parameters:
        pieces.append((parameters[f"{key}*"], True))
    for number in range(0 if pieces else len(parameters)):
        stem = f"{key}*{number}"
        if f"{stem}*" in parameters:
            pieces.append((parameters[f"{stem}*"], True))
        elif stem in parameters:
            pieces.append((parameters[stem], False))
        else:
            break
    if not pieces:
        return None
    charset = "utf-8"
    text, escaped = pieces[0]
    if escaped:
        charset, _, tail = text.partition("'")
        _, quote, text = tail.partition("'")
        # Any other codec than the two RFC 5987 names would be the server's choice.
        if not quote or charset.lower() not in {"utf-8", "iso-8859-1"}:
            return None
        pieces[0] = text, True
    raw = b"".join(unquote_to_bytes(text) if escaped else text.encode() for text, escaped in pieces)
    try:
        return raw.decode(charset)
    except UnicodeDecodeError:
        return None


# A server writes the same few blocks again and again, and each takes 6 µs to read
# (measured). What is kept is bounded, since blocks are.
@lru_cache(maxsize=64)
def parse_part(block: bytes) -> PartStarted:
    """
    Read the header lines of one part and what they say.

    The first of several equal headers counts.

    Args:
        block: The lines with CRLF between them, without the blank line.

    Raises:
        MalformedResponseError: A line is not ``name: value``, or the body is
            in a Content-Transfer-Encoding that would have to be decoded.
            RFC 7578 deprecates those for form-data.
    """
    headers = parse_part_headers(block)
    first: dict[str, str] = {}
    for key, value in headers:
        first.setdefault(key, value)
    encoding = first.get("content-transfer-encoding", "")
    if encoding.lower() not in _TRANSPARENT_ENCODINGS:
        raise MalformedResponseError(
            f"Content-Transfer-Encoding must be binary, 8bit or 7bit, not {encoding[:100]!r}"
        )
    name = filename = None
    if "content-disposition" in first:
        name, filename = parse_disposition(first["content-disposition"])
    return PartStarted(name, filename, first.get("content-type") or None, headers)


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

    At most `max_part_header_bytes` are kept between calls, and nothing is held
    back but what may be the start of a delimiter. Fastest with chunks of 32 KiB
    or more (measured; a call costs about 2 µs, and CPython's ``find`` has a bad
    case below 30,000 bytes).

    Attributes:
        finished: Whether the closing delimiter was seen.
        bytes_received: All bytes handed in so far, those after the end too.
        error: What the next call will raise, or ``None``.
    """

    __slots__ = (
        "_closed",
        "_ended",
        "_events",
        "_header_block",
        "_in_part",
        "_lead",
        "_line_start",
        "_max_part_header_bytes",
        "_max_part_headers",
        "_max_parts",
        "_needle",
        "_padded",
        "_parser",
        "_parts",
        "_pending",
        "_reported",
        "_skip",
        "bytes_received",
        "error",
        "finished",
    )

    def __init__(
        self,
        content_type: str,
        *,
        max_parts: int = MAX_PARTS,
        max_part_header_bytes: int = MAX_PART_HEADER_BYTES,
        max_part_headers: int = MAX_PART_HEADERS,
    ) -> None:
        """
        Begin a body.

        Args:
            content_type: The response's Content-Type, with the boundary.
            max_parts: How many parts may come.
            max_part_header_bytes: How many bytes the headers of one part may
                have, with their line ends and the blank line.
            max_part_headers: How many headers one part may have.

        Raises:
            MalformedResponseError: Not multipart/form-data, or no usable boundary.
        """
        boundary = parse_boundary(content_type)
        self._max_parts = max_parts
        self._max_part_header_bytes = max_part_header_bytes
        self._max_part_headers = max_part_headers
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
        if self._parts == self._max_parts:
            raise ResponseTooLargeError(
                f"the body must have at most {self._max_parts} parts, but another one begins"
            )
        self._parts += 1
        self._header_block = bytearray(b"\r\n")

    def _read_headers(self, data: bytes, position: int, block: bytearray) -> int:
        """Collect the header block; return the position behind it, or the end of the data."""
        before = len(block)
        limit = self._max_part_header_bytes
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
        if len(started.headers) > self._max_part_headers:
            raise ResponseTooLargeError(
                f"a part must have at most {self._max_part_headers} headers; "
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
