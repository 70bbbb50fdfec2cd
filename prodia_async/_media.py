"""What bytes are: media types by magic number and by extension, and whether a file is whole."""

from __future__ import annotations

import json

OCTET_STREAM = "application/octet-stream"

SNIFF_BYTES = 32
"""How many leading bytes `sniff` looks at."""

# How many last bytes an end mark may lie in; some writers pad.
_TAIL_BYTES = 64

# One extension first for each type: the one that is written. The stdlib's
# mimetypes reads whatever tables a machine happens to have, so it is not used.
_EXTENSIONS: dict[str, tuple[str, ...]] = {
    "image/jpeg": (".jpg", ".jpeg", ".jpe"),
    "image/png": (".png",),
    "image/webp": (".webp",),
    "image/gif": (".gif",),
    "image/avif": (".avif",),
    "image/heic": (".heic",),
    "image/bmp": (".bmp",),
    "image/tiff": (".tiff", ".tif"),
    "image/svg+xml": (".svg",),
    "video/mp4": (".mp4", ".m4v"),
    "video/quicktime": (".mov",),
    "video/webm": (".webm",),
    "audio/wav": (".wav",),
    "audio/mpeg": (".mp3",),
    "audio/ogg": (".ogg",),
    "audio/flac": (".flac",),
    "audio/mp4": (".m4a",),
    "text/plain": (".txt",),
    "application/json": (".json",),
}
_TYPES = {extension: kind for kind, extensions in _EXTENSIONS.items() for extension in extensions}

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypmif1", "image/heic"),
    (4, b"ftypqt  ", "video/quicktime"),
    (4, b"ftypM4A ", "audio/mp4"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"\xff\xf2", "audio/mpeg"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
)


def sniff(head: bytes) -> str | None:
    """
    Tell a media type from the first bytes of a file.

    Args:
        head: The first `SNIFF_BYTES` bytes, or more, or all there are.

    Returns:
        The media type, or ``None`` when no known magic number is there.
    """
    # Letters alone are too common in texts; a second place has to agree.
    if head.startswith(b"RIFF"):
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(head[8:12])
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return "image/bmp"
    for offset, magic, kind in _MAGIC:
        if head.startswith(magic, offset):
            return kind
    return None


def type_of_name(name: str) -> str | None:
    """Tell a media type from a file name's extension; ``None`` when it is not a known one."""
    dot = name.rfind(".")
    return _TYPES.get(name[dot:].lower()) if dot >= 0 else None


def bare_type(content_type: str | None) -> str | None:
    """Return a Content-Type without its parameters and in lower case; ``None`` for nothing."""
    bare = (content_type or "").partition(";")[0].strip().lower()
    return bare or None


def suffix_of(content_type: str | None) -> str:
    """Return the extension to write for a media type, with its dot; ``""`` when unknown."""
    return _EXTENSIONS.get(bare_type(content_type) or "", ("",))[0]


_SVG = "image/svg+xml"

MAX_JSON_BYTES = 1024 * 1024
"""Longest JSON that is read to see whether it is whole; of more only the last bytes are. Chosen."""

_UNKNOWN_LENGTHS = frozenset({0, 0xFFFFFFFF})
"""What a writer that cannot go back leaves in a RIFF header."""

_NEEDED_BOXES: dict[str, tuple[frozenset[bytes], ...]] = {
    # A film has its index, whole or in fragments, a picture its description; both their data.
    **dict.fromkeys(
        ("video/mp4", "video/quicktime", "audio/mp4"),
        (frozenset({b"moov", b"moof"}), frozenset({b"mdat"})),
    ),
    **dict.fromkeys(("image/avif", "image/heic"), (frozenset({b"meta"}), frozenset({b"mdat"}))),
}
_BOXES = frozenset().union(*(each for needed in _NEEDED_BOXES.values() for each in needed))


class _Boxes:
    """
    Walks the top-level boxes of an ISO media file (MP4, QuickTime, AVIF, HEIC) as it goes by.

    A box begins with its length in four bytes and its name in four more; a
    length of 1 stands for eight further bytes of length, and 0 for "to the end".
    """

    __slots__ = ("_header", "_next", "_seen", "_size", "_unclear")

    def __init__(self) -> None:
        self._header = b""
        self._next = 0  # where the next box begins
        self._size = 0
        self._seen: set[bytes] = set()
        self._unclear = False  # nothing can be said of where the file ends

    def add(self, data: bytes | memoryview) -> None:
        start = self._size
        self._size += len(data)
        while not self._unclear and self._next + len(self._header) < self._size:
            offset = self._next + len(self._header) - start
            self._header += bytes(data[offset : offset + 16 - len(self._header)])
            if not self._read_header():
                return

    def _read_header(self) -> bool:
        header = self._header
        length = int.from_bytes(header[:4], "big")
        if len(header) < (16 if length == 1 else 8):
            return False
        least = 8
        if length == 1:
            length, least = int.from_bytes(header[8:16], "big"), 16
        if header[4:8] in _BOXES:
            self._seen.add(header[4:8])
        self._unclear = length < least
        self._next += length
        self._header = b""
        return True

    def is_cut_short(self, kind: str) -> bool:
        if self._unclear:
            return False
        return self._next != self._size or not all(
            each & self._seen for each in _NEEDED_BOXES[kind]
        )


class EndCheck:
    """
    Looks for the end that a file's own format prescribes, while the file goes by.

    JPEG, PNG, GIF and SVG end in a mark, WebP and WAV say their length, MP4
    and AVIF are rows of boxes with lengths, JSON is whole when it can be read.
    Of any other format the answer is that nothing is wrong, which proves
    nothing. Nor is it proof where a file goes on behind its end: this is for
    files whose length nobody told.

    Args:
        content_type: The media type as it was told; only the first bytes
            count, but for SVG and JSON, which have no telling ones.
    """

    __slots__ = ("_boxes", "_head", "_json", "_kind", "_size", "_tail")

    def __init__(self, content_type: str | None = None) -> None:
        self._kind = bare_type(content_type) or ""
        is_json = self._kind == "application/json" or self._kind.endswith("+json")
        self._json: bytearray | None = bytearray() if is_json else None
        self._boxes = _Boxes()
        self._head = b""
        self._tail = b""
        self._size = 0

    def add(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        if len(self._head) < SNIFF_BYTES:
            self._head += bytes(data[: SNIFF_BYTES - len(self._head)])
        self._tail = (self._tail + bytes(data[-_TAIL_BYTES:]))[-_TAIL_BYTES:]
        self._size += len(data)
        self._boxes.add(data)
        if self._json is not None and len(self._json) <= MAX_JSON_BYTES:
            self._json += data[: MAX_JSON_BYTES + 1 - len(self._json)]

    def is_cut_short(self) -> bool:
        """Return whether what went by lacks its end."""
        kind = sniff(self._head) or (_SVG if self._kind == _SVG else "")
        match kind:
            case "image/png":
                return b"IEND\xaeB`\x82" not in self._tail
            case "image/jpeg":
                return b"\xff\xd9" not in self._tail
            case "image/gif":
                # The last block ends in a zero byte; a semicolon alone is a letter like any.
                return not self._tail.rstrip(b"\0\r\n ").endswith(b"\0;")
            case "image/webp" | "audio/wav":
                length = int.from_bytes(self._head[4:8], "little")
                return length not in _UNKNOWN_LENGTHS and self._size < length + 8
            case _ if kind == _SVG:
                _, mark, rest = self._tail.rpartition(b"</svg")
                return not mark or b">" not in rest
            case _ if kind in _NEEDED_BOXES:
                return self._boxes.is_cut_short(kind)
            case _ if self._json is not None:
                return _is_half_json(self._json, self._tail)
            case _:
                return False


def _is_half_json(text: bytearray, tail: bytes) -> bool:
    if len(text) > MAX_JSON_BYTES:
        return not tail.rstrip().endswith((b"}", b"]"))
    try:
        json.loads(text)
    except RecursionError:
        return False  # too deep for us, which proves nothing against it
    except ValueError:
        return True
    return False


def is_cut_short(content: bytes, content_type: str | None = None) -> bool:
    """Return whether a file lacks the end that its own format prescribes; see `EndCheck`."""
    check = EndCheck(content_type)
    check.add(content)
    return check.is_cut_short()
