"""The headers of a part: all dialects are read, in linear time, and never trusted."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prodia_async._errors import MalformedResponseError, ProdiaError
from prodia_async._multipart import MAX_PART_HEADER_BYTES, MultipartDecoder
from prodia_async._part_headers import (
    MAX_BOUNDARY_LENGTH,
    parse_boundary,
    parse_disposition,
    parse_parameters,
    parse_part,
    parse_part_headers,
)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ("Multipart/Form-Data;BOUNDARY=abc", b"abc"),
        ('multipart/form-data; charset="utf-8"; boundary="a b:=;c" ; x', b"a b:=;c"),
        ("multipart/form-data ; boundary = a=b/c:d?e ; charset=utf-8", b"a=b/c:d?e"),
        ("multipart/form-data; boundary=a; boundary=b", b"a"),
        (r'multipart/form-data; boundary="a\"b%22"', b'a"b%22'),
        (f"multipart/form-data; boundary={'x' * 70}", b"x" * 70),
        (f"multipart/form-data; boundary={'x' * MAX_BOUNDARY_LENGTH}", b"x" * MAX_BOUNDARY_LENGTH),
    ],
)
def test_boundary(content_type: str, boundary: bytes) -> None:
    """A boundary is found in any spelling."""
    assert parse_boundary(content_type) == boundary


@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        ("image/jpeg", "must be multipart/form-data, not 'image/jpeg'"),
        ("", "must be multipart/form-data, not ''"),
        ("multipart/mixed; boundary=abc", "must be multipart/form-data"),
        ("x" * 10_000, r"x\.\.\.'"),
        ("multipart/form-data", "must come with a boundary"),
        ("multipart/form-data; boundary", "must come with a boundary"),
        ("multipart/form-data; boundary=", "must come with a boundary"),
        ('multipart/form-data; boundary=""', "must come with a boundary"),
        ("multipart/form-data; xboundary=abc", "must come with a boundary"),
        (f"multipart/form-data; boundary={'x' * (MAX_BOUNDARY_LENGTH + 1)}", "at most 200 .* 201"),
        ('multipart/form-data; boundary="a\r\nb"', "printable ASCII"),
        ("multipart/form-data; boundary=aé", "printable ASCII"),
        ('multipart/form-data; boundary="abc "', "printable ASCII"),
    ],
)
def test_no_boundary(content_type: str, message: str) -> None:
    """Another type or a bad boundary is refused with what was expected and what came."""
    with pytest.raises(MalformedResponseError, match=message) as caught:
        MultipartDecoder(content_type)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("value", "parameters"),
    [
        ("form-data", []),
        ("form-data;;; a=1;;", [("a", "1")]),
        ("form-data; flag; =x; a = 1 2 ", [("flag", ""), ("a", "1 2")]),
        ('form-data; a="1;2=\\"3\\""; b=4', [("a", '1;2="3"'), ("b", "4")]),
        ('form-data; a="x\\\\y\\z"', [("a", "x\\y\\z")]),
        ('form-data; a="C:\\"; b=1', [("a", "C:\\"), ("b", "1")]),
        ('form-data; a="x"y"; b="', [("a", 'x"y'), ("b", "")]),
        ('form-data; a="x; b=1', [("a", "x; b=1")]),
        ('form-data; a="" ; b=""', [("a", ""), ("b", "")]),
    ],
)
def test_parameters(value: str, parameters: list[tuple[str, str]]) -> None:
    """Parameters are read in the dialects that are written, and never refused."""
    assert parse_parameters(value) == ("form-data", parameters)


@pytest.mark.parametrize(
    "unit", ['a="\\";', 'a="x;', 'a="x"y;', '"', "\\", ";", "=", 'a="\\"', " ", 'a=" ', "a*0=b;"]
)
def test_hostile_parameters_take_linear_time(unit: str) -> None:
    """A header as long as the limit allows is read in a few milliseconds, whatever is in it."""
    value = "form-data; " + unit * (MAX_PART_HEADER_BYTES // len(unit))
    started = time.process_time()
    parse_disposition(value)
    assert time.process_time() - started < 0.25


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('form-data; name="a%22b"; filename="%20%0A"', ('a"b', "%20%0A")),
        ("form-data; name=output; name=job; filename=a; filename=b", ("output", "a")),
        ("form-data; filename=plain; filename*=UTF-8'en'%c3%a9; name=n", ("n", "é")),
        ("form-data; filename*=iso-8859-1''%e9; name*=utf-8''n", ("n", "é")),
        ("form-data; name*=utf-8''job; name=output", ("output", None)),
        ("form-data; filename*=utf-8''%ff; filename=plain", (None, "plain")),
        ("form-data; filename*=rot13''x; filename=plain", (None, "plain")),
        ("form-data; filename*=x; filename=plain", (None, "plain")),
        ("form-data; filename*0=a; filename*1=b; filename*3=d", (None, "ab")),
        ("form-data; filename*1*=%C3%A9; filename*0*=utf-8''a; filename*2=.b", (None, "aé.b")),
        ("form-data; filename*1=b; filename=plain", (None, "plain")),
        ('form-data; name="../x"; filename="C:\\a\\b.png"', ("../x", "C:\\a\\b.png")),
        ('form-data; name="\x00"; filename=""', ("\x00", "")),
        ("attachment; name=job; filename=x", (None, "x")),
        ("", (None, None)),
    ],
)
def test_disposition(value: str, expected: tuple[str | None, str | None]) -> None:
    """The first name counts, extended filenames win, and odd names come as they are."""
    assert parse_disposition(value) == expected


def test_part_headers() -> None:
    """Names are lower case, folds are joined, values are UTF-8 or else Latin-1."""
    block = b"A-B :  1 \r\n\t 2 \r\nc:\r\nD: \xc3\xa9\r\nd: \xe9:\xff"
    expected = (("a-b", "1  2"), ("c", ""), ("d", "é"), ("d", "é:ÿ"))
    assert parse_part_headers(block) == expected
    assert parse_part_headers(b"") == ()


@pytest.mark.parametrize(
    "block", [b"a", b": b", b" a: b", b"a b: c", b"a: b\r\nc", b"\xe9: b", b"x" * 9999]
)
def test_bad_part_headers(block: bytes) -> None:
    """A line that is no header is refused with the line, cut when long."""
    with pytest.raises(MalformedResponseError, match="must be 'name: value', not b'") as caught:
        parse_part_headers(block)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("encoding", ["", "7bit", "8BIT", "Binary", "base64", "quoted-printable"])
def test_transfer_encoding(encoding: str) -> None:
    """Bodies that would have to be decoded are refused, the others are bytes as they are."""
    block = f"Content-Type:\r\nContent-Transfer-Encoding: {encoding}".encode()
    if encoding in {"base64", "quoted-printable"}:
        with pytest.raises(MalformedResponseError, match=f"7bit, not '{encoding}'"):
            parse_part(block)
    else:
        assert parse_part(block).content_type is None


@given(st.text(), st.binary())
@settings(deadline=None)
def test_garbage_headers(text: str, block: bytes) -> None:
    """Parameters are never refused, and header lines only with our error."""
    parse_disposition(text)
    parse_disposition(f"form-data; filename*={text}; name*0*={text}")
    try:
        parse_part(block)
    except ProdiaError as error:
        assert isinstance(error, MalformedResponseError)  # noqa: PT017 - garbage may be fine
