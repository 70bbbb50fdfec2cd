"""
The headers of one part, and the boundary: bytes and header values in, names and values out.

What encoders write here differs more than anything else in a multipart body:
two dialects of quoted strings, names in UTF-8 or not, `filename*`, folded
lines. All that is known of it is read; what cannot be meant is refused.
Source: RFC 7578, 2231, 5987, 6266; `wire-facts` of real encoders.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from ._errors import MalformedResponseError

MAX_BOUNDARY_LENGTH = 200
"""
Chosen. RFC 2046 ends at 70 and the longest one measured is 67, but a writer
that goes further can still be read; python-multipart itself ends at 256.
"""

_TRANSPARENT_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})

_FIELD_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FOLD = re.compile(rb"\r\n[ \t]+")
_QUOTED_PAIR = re.compile(r"\\([\"\\])")
# What nearly every writer sends; a new one for each answer, so remembering does not help.
_PLAIN_TYPE = re.compile(r"multipart/form-data; ?boundary=([0-9A-Za-z'_.-]{1,70})")
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
    if (plain := _PLAIN_TYPE.fullmatch(content_type)) is not None:
        return plain[1].encode("ascii")
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
