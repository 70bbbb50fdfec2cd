"""
Multipart, both ways: request bodies read, answers written as Go writes them.

Reading uses python-multipart; names, order and bytes are kept exactly. What a
header means follows Go's ``mime`` package, since the service's own boundary
and messages point to Go. Writing is a few joins.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from .._bodies import joined
from .._refusals import bad_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._bodies import Body, Content


@dataclass(frozen=True, slots=True)
class InputFile:
    """One ``input`` part: its bytes, and what its headers said."""

    filename: str
    content_type: str | None
    content: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Form:
    """
    A request's body, whichever way it came.

    Attributes:
        kind: ``json`` or ``multipart``.
        job: The bytes of the job configuration.
        job_filename: The filename of the ``job`` part, if it had one.
        inputs: The ``input`` parts in wire order.
        part_names: Names of all parts in wire order; empty for JSON.
    """

    kind: Literal["json", "multipart"]
    job: bytes
    job_filename: str | None = None
    inputs: tuple[InputFile, ...] = ()
    part_names: tuple[str, ...] = ()


class FormReader:
    """
    A multipart request body, fed as it arrives.

    What was seen so far can be looked at at any time, so that the ledger knows
    the inputs even of a request that is refused for its form.
    """

    def __init__(self, boundary: bytes) -> None:
        self.jobs: list[bytes] = []
        self.job_filename: str | None = None
        self.inputs: list[InputFile] = []
        self.part_names: list[str] = []
        self._ended = False
        self._field = bytearray()
        self._value = bytearray()
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes; raises `Refused` (400) when they cannot continue a form."""
        try:
            self._parser.write(chunk)
        except FormParserError as exc:
            raise bad_request(f"multipart: {exc}") from exc

    def finish(self) -> Form:
        """Make the form; raises `Refused` (400) unless it is whole and has one job part."""
        if not self._ended:
            raise bad_request("multipart: NextPart: EOF")
        if len(self.jobs) != 1:
            raise bad_request(f"multipart: want exactly one part 'job', got {len(self.jobs)}")
        return Form(
            "multipart",
            self.jobs[0],
            self.job_filename,
            tuple(self.inputs),
            tuple(self.part_names),
        )

    def _part_begin(self) -> None:
        self._headers = {}
        self._chunks = []

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers.setdefault(_decode(self._field).lower(), _decode(self._value).strip())
        self._field.clear()
        self._value.clear()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(bytes(data[start:end]))

    def _part_end(self) -> None:
        content = b"".join(self._chunks)
        self._chunks = []
        fields = disposition_fields(self._headers.get("content-disposition", ""))
        name, filename = fields.get("name", ""), fields.get("filename")
        self.part_names.append(name)
        if name == "job":
            self.jobs.append(content)
            self.job_filename = filename
        elif name == "input":
            self.inputs.append(
                InputFile(
                    # Go's FileName() is the base name.
                    (filename or "").rpartition("/")[2],
                    self._headers.get("content-type"),
                    content,
                    hashlib.sha256(content).hexdigest(),
                )
            )

    def _end(self) -> None:
        self._ended = True


_FIELD = re.compile(r';\s*([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
_ESCAPED = re.compile(r'\\([()<>@,;:\\"/\[\]?=])')


def disposition_fields(header: str) -> dict[str, str]:
    """
    Read the parameters of a Content-Disposition or Content-Type header.

    Args:
        header: Its value.

    Returns:
        Names in lower case; of two of one name the first. A backslash escapes
        only the characters that need it, as in Go. ``name*`` (RFC 5987)
        stands for ``name``.
    """
    fields: dict[str, str] = {}
    for match in _FIELD.finditer(header):
        name, value = match[1].lower(), match[2].strip()
        if value.startswith('"'):
            value = _ESCAPED.sub(r"\1", value[1:-1])
        if name.endswith("*") and value.lower().startswith("utf-8''"):
            name, value = name[:-1], unquote(value[7:])
        fields.setdefault(name, value)
    return fields


def _decode(raw: bytes | bytearray) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def go_json(value: Any) -> bytes:
    """Write JSON as Go's encoder does: compact, no bare ``<``, ``>``, ``&``, a final newline."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # These characters can only stand inside strings, where the escape means the same.
    for character in "<>&\u2028\u2029":
        if character in text:
            text = text.replace(character, f"\\u{ord(character):04x}")
    return f"{text}\n".encode()


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an answer."""

    name: str
    filename: str
    content_type: str
    content: Content


def write_form(parts: Sequence[Part]) -> tuple[str, Body]:
    """
    Write an answer as Go's ``mime/multipart`` does.

    Args:
        parts: In the order in which they go out.

    Returns:
        The value of the Content-Type header and the body. The boundary is 60
        lower-case hex digits, unquoted.
    """
    boundary = secrets.token_hex(30)
    pieces: list[Content] = []
    for part in parts:
        pieces += (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="{part.name}"; filename="{part.filename}"\r\n'
            f"Content-Type: {part.content_type}\r\n\r\n".encode(),
            part.content,
            b"\r\n",
        )
    pieces.append(f"--{boundary}--\r\n".encode())
    return f"multipart/form-data; boundary={boundary}", joined(pieces)
