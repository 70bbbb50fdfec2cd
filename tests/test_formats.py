"""What may be asked for: typed formats, their ranges, and the Accept header."""

import copy
import pickle
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prodia_async._errors import InvalidRequestError
from prodia_async._formats import JPEG, MULTIPART, PNG, Format, Subsampling, WebP, accept_header

FLAGS = st.none() | st.booleans()
FORMATS = st.one_of(
    st.builds(
        JPEG,
        quality=st.none() | st.integers(0, 95),
        optimize=FLAGS,
        progressive=FLAGS,
        subsampling=st.sampled_from([None, *get_args(Subsampling)]),
    ),
    st.builds(PNG, compress_level=st.none() | st.integers(0, 9), optimize=FLAGS),
    st.builds(
        WebP,
        quality=st.none() | st.integers(0, 100),
        lossless=FLAGS,
        alpha_quality=st.none() | st.integers(0, 100),
        method=st.none() | st.integers(0, 6),
    ),
)


@pytest.mark.parametrize(
    ("accept", "alone", "with_job"),
    [
        (None, "*/*", "multipart/form-data"),
        (JPEG(), "image/jpeg", "multipart/form-data; image/jpeg"),
        (
            WebP(lossless=True),
            "image/webp;lossless=1",
            "multipart/form-data; image/webp;lossless=1",
        ),
        (
            JPEG(quality=95, optimize=False, progressive=True, subsampling="444"),
            "image/jpeg;quality=95;optimize=0;progressive=1;subsampling=444",
            "multipart/form-data; image/jpeg;quality=95;optimize=0;progressive=1;subsampling=444",
        ),
        (
            PNG(compress_level=0, optimize=True),
            "image/png;compress-level=0;optimize=1",
            "multipart/form-data; image/png;compress-level=0;optimize=1",
        ),
        (
            WebP(quality=0, alpha_quality=100, method=6),
            "image/webp;quality=0;alpha-quality=100;method=6",
            "multipart/form-data; image/webp;quality=0;alpha-quality=100;method=6",
        ),
        (" video/mp4 ", "video/mp4", "multipart/form-data; video/mp4"),
        ("Image/SVG+xml", "Image/SVG+xml", "multipart/form-data; Image/SVG+xml"),
        (
            "image/x-new;depth=12",
            "image/x-new;depth=12",
            "multipart/form-data; image/x-new;depth=12",
        ),
        ('a/b;c="d e"', 'a/b;c="d e"', 'multipart/form-data; a/b;c="d e"'),
        ("image/png;", "image/png;", "multipart/form-data; image/png;"),
    ],
)
def test_accept_header(accept: Format | str | None, alone: str, with_job: str) -> None:
    """The wire form, with the job result and without."""
    assert accept_header(accept, multipart=False) == alone
    assert accept_header(accept, multipart=True) == with_job


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("multipart/form-data", "multipart/form-data"),
        ("Multipart/Form-Data ; ", "multipart/form-data"),
        ("multipart/form-data; image/png", "multipart/form-data; image/png"),
        ("multipart/form-data;image/jpeg;quality=50", "multipart/form-data; image/jpeg;quality=50"),
    ],
)
def test_the_documents_own_spelling(text: str, wire: str) -> None:
    """The whole header as the guide writes it is taken, but contradicts multipart=False."""
    assert accept_header(text, multipart=True) == wire
    with pytest.raises(InvalidRequestError, match="although multipart=False"):
        accept_header(text, multipart=False)


@given(FORMATS, st.booleans())
def test_a_format_and_its_text_ask_for_the_same(wanted: Format, multipart: bool) -> None:
    """str() of a format, given as text, passes the same checks and is the same header."""
    assert accept_header(str(wanted), multipart=multipart) == accept_header(
        wanted, multipart=multipart
    )


@given(st.text())
def test_any_text_gives_a_clean_header_or_an_error(text: str) -> None:
    """Whatever is asked for, nothing but printable ASCII gets into the header."""
    try:
        wire = accept_header(text, multipart=True)
    except InvalidRequestError as error:
        wire = str(error)[:400]
        whole = wire == str(error)
    else:
        whole = wire.isascii()
    assert whole
    assert wire.isprintable()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (JPEG, {"quality": 96}, "JPEG quality must be an integer from 0 to 95, not 96"),
        (JPEG, {"quality": -1}, "not -1"),
        (JPEG, {"quality": True}, "not True"),
        (JPEG, {"quality": 90.0}, "not 90.0"),
        (JPEG, {"quality": "90"}, "not '90'"),
        (JPEG, {"quality": 10**5000}, "not <int of 16610 bits>"),
        (JPEG, {"optimize": 1}, "JPEG optimize must be True or False, not 1"),
        (JPEG, {"progressive": "1"}, "JPEG progressive"),
        (JPEG, {"subsampling": 444}, "one of '444', '422', '420', not 444"),
        (JPEG, {"subsampling": "411"}, "not '411'"),
        (PNG, {"compress_level": 10}, "PNG compress_level must be an integer from 0 to 9"),
        (PNG, {"optimize": 0}, "PNG optimize"),
        (WebP, {"quality": 101}, "WebP quality must be an integer from 0 to 100"),
        (WebP, {"alpha_quality": 101}, "WebP alpha_quality"),
        (WebP, {"method": 7}, "WebP method must be an integer from 0 to 6"),
        (WebP, {"lossless": None, "method": -1}, "WebP method"),
    ],
)
def test_a_value_out_of_range(kind: Any, options: dict[str, Any], message: str) -> None:
    """It is refused when it is built, with the range and what came."""
    with pytest.raises(InvalidRequestError) as caught:
        kind(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        ("image/jpeg;quality=96", "JPEG quality must be an integer from 0 to 95, not 96"),
        ("image/jpeg;QUALITY=200", "not 200"),
        ("image/jpeg;quality=x", "not 'x'"),
        ("image/jpeg;quality=99999999999999", "not '99999999999999'"),
        ("image/jpeg;quality=96;quality=5", "each parameter once"),
        ("image/jpeg;optimize=yes", "must be True or False, not 'yes'"),
        ("image/png;compress-level=-1", "not -1"),
        ("image/webp;alpha-quality=101", "not 101"),
        ("image/jpeg;subsampling=411", "not '411'"),
        ("multipart/form-data; image/webp;method=9", "not 9"),
        ("image/png;x", "must read name=value, not 'x'"),
        ("image/png;a b=c", "must read name=value"),
        ("", "must be a media type"),
        ("png", "must be a media type"),
        ("image/png, image/jpeg", "must be a media type"),
        ("image/png\r\nX-Evil: 1", "must be a media type"),
        ("image/png;a=1\nb", "must be a media type"),
        ("image/png\x00", "must be a media type"),
        ("image/\xe9", "must be a media type"),
        ("multipart/form-databased", "must be a media type"),
        ("x" * 10_000, "must be a media type"),
        (b"image/png", "not <9 bytes>"),
        (5, "not 5"),
        (JPEG, "not <class"),
    ],
)
def test_bad_accept(accept: Any, message: str) -> None:
    """A mistake is named shortly, and costs nothing."""
    with pytest.raises(InvalidRequestError) as caught:
        accept_header(accept, multipart=True)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


@given(FORMATS)
def test_formats_are_values(wanted: Format) -> None:
    """Equal, hashable, and whole after a pickle or a copy."""
    assert pickle.loads(pickle.dumps(wanted)) == copy.copy(wanted) == wanted
    assert len({wanted, copy.copy(wanted)}) == 1
    assert not str(wanted).startswith(MULTIPART)


def test_json_is_the_job_result_alone() -> None:
    """It is asked for as such, since no output beside the job result is of that type."""
    for multipart in (True, False):
        assert accept_header("application/json", multipart=multipart) == "application/json"
        assert (
            accept_header("Application/JSON; q=1", multipart=multipart) == "Application/JSON; q=1"
        )
