"""What an argument may be: each check takes what it says, and says what it takes."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from prodia_async._checks import flag, header, integer, number, optional, path, seconds, string
from prodia_async._errors import InvalidRequestError
from prodia_async._show import shown

if TYPE_CHECKING:
    from collections.abc import Callable

NO_NUMBERS = [math.nan, "1", None, True, 10**400, 10**5000, [1], b"1"]


def test_a_header_is_returned_as_it_is_sent() -> None:
    """Its name in lower case, and no blank around its value; what it cannot be says its name."""
    assert header("it", "X-Mine", " \tXa b\t") == ("x-mine", "Xa b")
    for name, value, said in (
        ("a b", "x", "'a b' in it is no header name"),
        (b"a", "x", "<1 bytes> in it is no header name"),
        ("Host", "x", "'Host' cannot be set by it; the client does"),
        ("a", "\u00e9", "the value of 'a' in it must be plain ASCII"),
        ("a", b"x", "the value of 'a' in it must be plain ASCII"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            header("it", name, value)
        assert caught.value.message == said


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (lambda value: integer("it", value), 0),
        (lambda value: integer("it", value, least=1), 1),
        (lambda value: integer("it", value, least=-3, most=7), 7),
        (lambda value: integer("it", value), 10**400),
        (lambda value: number("it", value), 0),
        (lambda value: number("it", value), math.inf),
        (lambda value: number("it", value, least=-1.5, most=1.5), -1.5),
        (lambda value: number("it", value, most=1), 1),
        (lambda value: seconds("it", value), 0.001),
        (lambda value: seconds("it", value), math.inf),
        (lambda value: flag("it", value), False),
        (lambda value: string("it", value), "x"),
        (lambda value: path("it", value), "a/b"),
    ],
)
def test_what_is_right_is_returned(check: Callable[[Any], Any], value: Any) -> None:
    """At the very edge of the range too."""
    assert check(value) == value


@pytest.mark.parametrize("value", [*NO_NUMBERS[:5], 1.0, -1, 1.5], ids=shown)
def test_no_integer(value: Any) -> None:
    """True is none, 1.0 is none; and the message says what was expected."""
    with pytest.raises(InvalidRequestError) as caught:
        integer("buffer", value, most=2**64)
    assert caught.value.message == (
        f"buffer must be an integer from 0 to 18446744073709551616, not {shown(value)}"
    )


@pytest.mark.parametrize(("value", "least"), [(0, 1), (-1, 0), (4, 5)])
def test_too_small_an_integer(value: int, least: int) -> None:
    """Where there is no largest, the message names the smallest alone."""
    with pytest.raises(InvalidRequestError, match=f"an integer of at least {least}, not {value}$"):
        integer("buffer", value, least=least)


def test_too_large_an_integer() -> None:
    """Both ends are named."""
    with pytest.raises(InvalidRequestError, match=r"an integer from 1 to 9, not 10$"):
        integer("buffer", 10, least=1, most=9)


@pytest.mark.parametrize("value", [*NO_NUMBERS, -0.5, -math.inf], ids=shown)
def test_no_number(value: Any) -> None:
    """What cannot be reckoned with is no number, nor is one below the range."""
    with pytest.raises(InvalidRequestError) as caught:
        number("backoff", value, unit="seconds")
    assert caught.value.message == (
        f"backoff must be a number of seconds of at least 0, not {shown(value)}"
    )


def test_a_number_beyond_its_range() -> None:
    """Both ends are named, and no unit where there is none."""
    with pytest.raises(InvalidRequestError, match=r"^it must be a number from 0 to 1, not 1\.5$"):
        number("it", 1.5, most=1.0)


@pytest.mark.parametrize("value", [*NO_NUMBERS, 0, 0.0, -1, -math.inf], ids=shown)
def test_no_seconds(value: Any) -> None:
    """A limit is above 0 and a number."""
    wanted = re.escape(f"deadline must be a number of seconds above 0, not {shown(value)}")
    with pytest.raises(InvalidRequestError, match=f"^{wanted}$"):
        seconds("deadline", value)


@pytest.mark.parametrize("value", [0, 1, None, "yes", ""], ids=shown)
def test_no_flag(value: Any) -> None:
    """Nothing but True and False is."""
    with pytest.raises(InvalidRequestError, match=r"^it must be True or False, not "):
        flag("it", value)


@pytest.mark.parametrize("value", ["", 1, None, b"x"], ids=shown)
def test_no_string(value: Any) -> None:
    """An empty one is none, and bytes are none."""
    with pytest.raises(InvalidRequestError, match=r"^it must be a string that is not empty, not "):
        string("it", value)


@pytest.mark.parametrize("value", [None, 1, b"x", os.DirEntry, "", "a\0b"], ids=shown)
def test_no_path(value: Any) -> None:
    """A string is one, and what stands for one; bytes are none."""
    with pytest.raises(InvalidRequestError, match=r"^it must be a path, not "):
        path("it", value)
    assert path("it", Path("a/b")) == str(Path("a/b"))


def test_what_may_be_left_out() -> None:
    """Nothing passes, and what is there is checked within its limits."""
    optional(integer, "it", None, least=1)
    optional(integer, "it", 1, least=1)
    with pytest.raises(InvalidRequestError, match=r"^it must be an integer of at least 1, not 0"):
        optional(integer, "it", 0, least=1)
