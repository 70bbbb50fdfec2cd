"""Media types by magic number and by name, and whether a file has its end."""

import io
import wave

import pytest
from PIL import Image

from prodia_async._media import (
    MAX_JSON_BYTES,
    OCTET_STREAM,
    SNIFF_BYTES,
    EndCheck,
    bare_type,
    is_cut_short,
    sniff,
    suffix_of,
    type_of_name,
)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40) + b"\x00\x00\x00\x00IEND\xaeB`\x82"
JPEG = b"\xff\xd8\xff\xe0" + bytes(100) + b"\xff\xd9"
GIF = b"GIF89a" + bytes(100) + b"\x00;"
WEBP = b"RIFF" + (104).to_bytes(4, "little") + b"WEBP" + bytes(100)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (WEBP, "image/webp"),
        (GIF, "image/gif"),
        (b"GIF87a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"RIFF\x00\x00\x00\x00AVI ", None),
        (b"\x00\x00\x00\x20ftypisom", "video/mp4"),
        (b"\x00\x00\x00\x20ftypqt  ", "video/quicktime"),
        (b"\x00\x00\x00\x20ftypM4A ", "audio/mp4"),
        (b"\x00\x00\x00\x20ftypavif", "image/avif"),
        (b"\x00\x00\x00\x20ftypheic", "image/heic"),
        (b"\x1aE\xdf\xa3", "video/webm"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90", "audio/mpeg"),
        (b"OggS", "audio/ogg"),
        (b"fLaC", "audio/flac"),
        (b"BM\x00\x00\x00\x00\x00\x00\x00\x00\x36", "image/bmp"),
        (b"II*\x00", "image/tiff"),
        (b"BMW is a car", None),
        (b"I said: WEBP is small", None),
        (b'{"a": 1}', None),
        (b"", None),
    ],
)
def test_sniff(head: bytes, kind: str | None) -> None:
    """Each format is known by its first bytes; words in a text are no format."""
    assert sniff(head) == kind
    assert sniff(head[:SNIFF_BYTES]) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.JPG", "image/jpeg"),
        ("a.b.jpeg", "image/jpeg"),
        (".png", "image/png"),
        ("a.svg", "image/svg+xml"),
        ("png", None),
        ("a.", None),
        ("a.xyz", None),
        ("", None),
    ],
)
def test_type_of_name(name: str, kind: str | None) -> None:
    """The last extension counts, in any case; an unknown one says nothing."""
    assert type_of_name(name) == kind


def test_bare_type_and_suffix() -> None:
    """Parameters, blanks and case do not matter; nothing stays nothing."""
    assert bare_type(" Image/PNG ; charset=x") == "image/png"
    assert bare_type(None) is bare_type("") is bare_type(" ; a=b") is None
    assert suffix_of("IMAGE/JPEG;q=1") == ".jpg"
    assert suffix_of(OCTET_STREAM) == suffix_of(None) == suffix_of("nonsense") == ""


def box(name: bytes, content: bytes = b"", *, large: bool = False) -> bytes:
    if large:
        return b"\0\0\0\1" + name + (16 + len(content)).to_bytes(8, "big") + content
    return (8 + len(content)).to_bytes(4, "big") + name + content


def wav() -> bytes:
    """A second of silence, by the standard library's writer."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 8000, 400, "NONE", ""))
        writer.writeframes(bytes(800))
    return file.getvalue()


def picture(kind: str) -> bytes:
    """A picture by Pillow, whose files end as those of the world do."""
    file = io.BytesIO()
    Image.radial_gradient("L").resize((24, 16)).save(file, kind)
    return file.getvalue()


FTYP = box(b"ftyp", b"isom\0\0\2\0isomiso2")
AVIF = box(b"ftyp", b"avif\0\0\0\0avifmif1") + box(b"meta", bytes(60)) + box(b"mdat", bytes(90))
WHOLE: dict[str, tuple[bytes, str | None]] = {
    "png": (picture("PNG"), None),
    "jpeg": (picture("JPEG"), None),
    "gif": (picture("GIF"), None),
    "webp": (picture("WEBP"), None),
    "wav": (wav(), None),
    "mp4": (FTYP + box(b"moov", bytes(50)) + box(b"free") + box(b"mdat", bytes(99)), None),
    "mp4, index last": (FTYP + box(b"mdat", bytes(99), large=True) + box(b"moov", bytes(9)), None),
    "mp4, in fragments": (FTYP + box(b"moof", bytes(20)) + box(b"mdat", bytes(30)), None),
    "avif": (AVIF, None),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>\n', "image/svg+xml"),
    "json": (b'{"labels": [{"a": 1}, {"b": 2}]}\n', "application/json; charset=utf-8"),
}


def test_a_cut_shows_wherever_it_is() -> None:
    """A whole file is not called cut; one that lost its end is, at every single place."""
    for name, (whole, content_type) in WHOLE.items():
        assert not is_cut_short(whole, content_type), name
        first = 1 if content_type else 16
        end = len(whole.rstrip())
        missed = [at for at in range(first, end) if not is_cut_short(whole[:at], content_type)]
        assert not missed, (name, missed)


def test_the_judgement_does_not_depend_on_the_pieces() -> None:
    """However a file goes by, the judgement is that on the whole."""
    for name, (whole, content_type) in WHOLE.items():
        for file in (whole, whole[:-14]):
            for step in (1, 7, 13, SNIFF_BYTES, 1000):
                check = EndCheck(content_type)
                for at in range(0, len(file), step):
                    check.add(memoryview(file)[at : at + step])
                assert check.is_cut_short() is (file is not whole), (name, step)


def test_bytes_behind_the_end_are_forgiven() -> None:
    """Some writers pad; a mark a few bytes before the end is an end all the same."""
    for name in ("png", "jpeg", "gif", "webp", "wav"):
        assert not is_cut_short(WHOLE[name][0] + bytes(20)), name


def test_what_says_nothing_of_its_end_is_never_called_cut() -> None:
    """Text, films without a known end, lengths that a writer left open, and nothing at all."""
    assert not is_cut_short(b"")
    assert not is_cut_short(b"text")
    assert not is_cut_short(b"\x1aE\xdf\xa3" + bytes(40))
    assert not is_cut_short(FTYP + bytes(8))  # a last box that goes on to the end
    assert not is_cut_short(FTYP + b"\0\0\0\3abcd")  # no box at all
    assert not is_cut_short(FTYP + b"\0\0\0\1abcd" + bytes(8))
    for unknown in (bytes(4), b"\xff" * 4):
        assert not is_cut_short(b"RIFF" + unknown + b"WAVE" + bytes(20))
    assert not is_cut_short(b"[" * 100_000, "application/json")


def test_a_film_lacks_what_it_needs() -> None:
    """A cut between two boxes shows too: by what is not there."""
    for present in (FTYP, FTYP + box(b"moov", bytes(50)), FTYP + box(b"mdat", bytes(50))):
        assert is_cut_short(present)
    assert is_cut_short(AVIF[:24])


def test_long_json_is_judged_by_its_end() -> None:
    """A megabyte is read, of more the last bracket counts; what is kept is bounded."""
    text = b"[" + b'"abcdefgh",' * 120_000 + b'"end"]'
    assert not is_cut_short(text, "application/geo+json")
    assert is_cut_short(text[:-1], "application/geo+json")
    check = EndCheck("application/json")
    for _ in range(100):
        check.add(text)
    assert len(check._json or b"") <= MAX_JSON_BYTES + 1
