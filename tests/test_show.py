"""What goes into a message: short, on one line, and nothing that a terminal would obey."""

from dataclasses import dataclass, field

import pytest

from prodia_async._show import MAX_MESSAGE, MAX_SHOWN, Told, one_line, shown, words_of


class Coloured:
    def __repr__(self) -> str:
        return "\x1b[31mred\x07"


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Verbose:
    def __repr__(self) -> str:
        return "line\n" * 1000


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        "\ud800",
        10**6000,
        [b"secret" * 10] * 1000,
        {"k": {"k": {"k": {"k": b"secret"}}}},
        bytearray(b"secret"),
        memoryview(b"secret"),
        Hostile(),
        Verbose(),
        [Hostile()],
    ],
    ids=lambda value: type(value).__name__,
)
def test_shown_is_short_and_safe(value: object) -> None:
    """Any value is shown on one encodable line, cut, without the contents of bytes."""
    text = shown(value)
    assert len(text) <= MAX_SHOWN
    assert "\n" not in text
    assert "secret" not in text
    assert text.encode()


def test_shown_shows_what_is_small() -> None:
    """Values that fit read as their repr does, blanks included; bytes are counted."""
    for value in ("a  b", 5, None, 1.5, {"a": [1, "b"]}, float("nan")):
        assert shown(value) == repr(value)
    assert shown([b"ab", memoryview(b"abc")]) == "[<2 bytes>, <3 bytes>]"


class HostileError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@dataclass(repr=False)
class Pair(Told):
    first: object
    second: object = field(default=None, repr=False)


@dataclass
class Usual:
    first: object


def test_what_the_caller_brings_is_shown_as_ever() -> None:
    """As `repr` and `str` have it, whole; by its type alone where they fail."""
    for value in ("x" * 999, HostileError, [1], ValueError("no")):
        assert (words_of(value, repr), words_of(value)) == (repr(value), str(value))
        told = repr(Pair(value, Hostile()))
        assert told == repr(Usual(value)).replace("Usual", "Pair")
    assert words_of(Hostile(), repr).startswith("<Hostile instance at")
    assert words_of(HostileError()).startswith("HostileError")
    assert repr(Pair(Hostile())).startswith("Pair(first=<Hostile instance at")


def test_no_escape_sequence_gets_through() -> None:
    """What a terminal obeys is a visible mark, in a foreign repr and in the server's words."""
    assert shown(Coloured()) == "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}"
    assert one_line("a\x1b]0;title\x07\u202eb") == "a\ufffd]0;title\ufffd\ufffdb"


def test_one_line_is_one_line() -> None:
    """Runs of blanks and line ends become one blank; it is cut where it is told to be."""
    assert one_line("  two\r\n words\t") == "two words"
    assert len(one_line("x" * 10**6)) == MAX_MESSAGE
    assert one_line("abcdef", longest=3) == "abc"
