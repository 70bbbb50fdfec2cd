"""Media types by magic number and by name, and whether a file has its end."""

import pytest

from prodia_async._media import (
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


@pytest.mark.parametrize("whole", [PNG, JPEG, GIF, WEBP], ids=["png", "jpeg", "gif", "webp"])
def test_a_cut_shows(whole: bytes) -> None:
    """A whole file is not called cut; one that lost its end is, wherever."""
    assert not is_cut_short(whole)
    assert not is_cut_short(whole + bytes(20)) or whole is WEBP
    for length in range(SNIFF_BYTES, len(whole) - 12):
        assert is_cut_short(whole[:length])


def test_formats_without_an_end_prove_nothing() -> None:
    """Text, video and nothing at all are never called cut."""
    assert not is_cut_short(b"")
    assert not is_cut_short(b"text")
    assert not is_cut_short(b"\x00\x00\x00\x20ftypisom")


@pytest.mark.parametrize("step", [1, 7, SNIFF_BYTES, 1000])
@pytest.mark.parametrize("whole", [PNG, JPEG, GIF, WEBP], ids=["png", "jpeg", "gif", "webp"])
def test_a_cut_shows_in_pieces_too(whole: bytes, step: int) -> None:
    """However a file goes by, the judgement is that on the whole."""
    for file in (whole, whole[:-13]):
        check = EndCheck()
        for at in range(0, len(file), step):
            check.add(memoryview(file)[at : at + step])
        assert check.is_cut_short() is is_cut_short(file) is (file is not whole)
