"""Values of any kind and the server's own words, fit for a message: one line, short, harmless."""

from __future__ import annotations

import reprlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SHOWN = 120
"""How many characters of a value a message shows. Chosen: a line or two with the sentence."""

MAX_MESSAGE = 500
"""How many characters of the server's text a message quotes. Chosen."""


class _Shown(reprlib.Repr):
    """A `repr` that never fails, is short, and never prints the contents of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = MAX_SHOWN
        self.maxlevel = 3

    def repr_bytes(self, value: bytes | bytearray, level: int) -> str:
        del level
        return f"<{len(value)} bytes>"

    repr_bytearray = repr_bytes

    def repr_memoryview(self, value: memoryview, level: int) -> str:
        del level
        return f"<{value.nbytes} bytes>"

    def repr_int(self, value: int, level: int) -> str:
        # Python refuses to write out an int of more than 4,300 digits.
        if value.bit_length() > 256:
            return f"<int of {value.bit_length()} bits>"
        return super().repr_int(value, level)


_SHOWN = _Shown()


def shown(value: object) -> str:
    """
    Write any value for a message: on one line, at most `MAX_SHOWN` characters of it.

    Bytes are only counted, since they are pictures more often than not. A
    value whose own ``repr`` fails is shown by its type. Nothing that a
    terminal would obey is left in it.
    """
    text = printable(" ".join(_SHOWN.repr(value).splitlines()))
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def words_of(value: object, write: Callable[[object], str] = str) -> str:
    """Return the ``str`` of anything, or its ``repr``; of what has none that works, its type."""
    try:
        return write(value)
    except Exception:  # noqa: BLE001  (it is the caller's own)
        return shown(value)


class Told:
    """
    Gives a dataclass a ``repr`` like the usual one, that never fails for a value of the caller's.

    A tag may be anything, and whoever prints an outcome that was paid for must not get its error.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        mine: Any = self  # a dataclass, as said
        pairs = (
            f"{each.name}={words_of(getattr(self, each.name), repr)}"
            for each in fields(mine)
            if each.repr
        )
        return f"{type(self).__qualname__}({', '.join(pairs)})"


def one_line(text: str, *, longest: int = MAX_MESSAGE) -> str:
    """Fit a text of the server's into a message: one line, short, nothing a terminal obeys."""
    # Cut first: joining the words of a whole page would cost more than is shown.
    return printable(" ".join(text[: 20 * longest].split())[:longest])


def printable(text: str) -> str:
    """Put a visible mark in the place of every character that a terminal might obey."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
