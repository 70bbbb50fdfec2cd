"""What bytes are: media types by magic number and by extension, and whether a file is whole."""

from __future__ import annotations

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


class EndCheck:
    """
    Looks for the end that a file's own format prescribes, while the file goes by.

    Only formats that mark their end are judged (PNG, JPEG, GIF, WebP); for
    any other the answer is that nothing is wrong, which proves nothing.
    """

    __slots__ = ("_head", "_size", "_tail")

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""
        self._size = 0

    def add(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        if len(self._head) < SNIFF_BYTES:
            self._head += bytes(data[: SNIFF_BYTES - len(self._head)])
        self._tail = (self._tail + bytes(data[-_TAIL_BYTES:]))[-_TAIL_BYTES:]
        self._size += len(data)

    def is_cut_short(self) -> bool:
        """Whether what went by lacks its end."""
        match sniff(self._head):
            case "image/png":
                return b"IEND\xaeB`\x82" not in self._tail
            case "image/jpeg":
                return b"\xff\xd9" not in self._tail
            case "image/gif":
                return b";" not in self._tail
            case "image/webp":
                return self._size < int.from_bytes(self._head[4:8], "little") + 8
            case _:
                return False


def is_cut_short(content: bytes) -> bool:
    """Tell whether a file lacks the end that its own format prescribes; see `EndCheck`."""
    check = EndCheck()
    check.add(content)
    return check.is_cut_short()
