"""
What an argument may be: one check for each sort of value, with the message that belongs to it.

Each returns the value as it came, so that a check can stand where the value is used.
"""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING

from ._errors import InvalidRequestError
from ._show import shown

if TYPE_CHECKING:
    from collections.abc import Callable

# What would contradict the request that is built.
_OWN_HEADERS = frozenset(
    {
        "accept", "accept-encoding", "authorization", "connection", "content-encoding",
        "content-length", "content-type", "expect", "host", "keep-alive", "proxy-connection",
        "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")
"""What a header's value may be."""


def optional(check: Callable[..., object], what: str, value: object, **limits: float) -> None:
    """
    Check a value that may be left out.

    Raises:
        InvalidRequestError: It is there, and out of its range.
    """
    if value is not None:
        check(what, value, **limits)


def integer(what: str, value: object, *, least: int = 0, most: int | None = None) -> int:
    """
    Check an integer; `True` is none.

    Args:
        what: What it is called in the message.
        value: What was given.
        least: The smallest that is allowed.
        most: The largest, if there is one.

    Raises:
        InvalidRequestError: It is no integer, or out of its range.
    """
    highest = math.inf if most is None else most
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= highest:
        return value
    raise InvalidRequestError(
        f"{what} must be an integer {_range(least, most)}, not {shown(value)}"
    )


def number(
    what: str, value: object, *, least: float = 0.0, most: float = math.inf, unit: str = ""
) -> float:
    """
    Check a number, an integer or not; NaN and what is beyond all floats are none.

    Args:
        what: What it is called in the message.
        value: What was given.
        least: The smallest that is allowed.
        most: The largest.
        unit: What is counted: ``"seconds"``.

    Raises:
        InvalidRequestError: It is no number, or out of its range.
    """
    read = _as_number(value)
    if not least <= read <= most:  # false for NaN
        counted = f"a number of {unit}" if unit else "a number"
        largest = None if most == math.inf else most
        raise InvalidRequestError(
            f"{what} must be {counted} {_range(least, largest)}, not {shown(value)}"
        )
    return read


def seconds(what: str, value: object) -> float:
    """
    Check a time limit: a number of seconds above 0, perhaps infinite.

    Raises:
        InvalidRequestError: It is none.
    """
    read = _as_number(value)
    if not read > 0:  # false for NaN
        raise InvalidRequestError(f"{what} must be a number of seconds above 0, not {shown(value)}")
    return read


def flag(what: str, value: object) -> bool:
    """
    Check what is to be True or False; 0 and 1 are neither.

    Raises:
        InvalidRequestError: It is neither.
    """
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{what} must be True or False, not {shown(value)}")
    return value


def string(what: str, value: object) -> str:
    """
    Check a string that is not empty.

    Raises:
        InvalidRequestError: It is empty, or no string.
    """
    if not isinstance(value, str) or not value:
        raise InvalidRequestError(f"{what} must be a string that is not empty, not {shown(value)}")
    return value


def header(where: str, name: object, value: object) -> tuple[str, str]:
    """
    Check a header of the caller's own; returned as it is sent.

    Args:
        where: What it stands in.
        name: In any case.
        value: Perhaps a secret, so no message shows it.

    Raises:
        InvalidRequestError: It cannot be sent, or is the client's own.
    """
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
        raise InvalidRequestError(f"{shown(name)} in {where} is no header name")
    if name.lower() in _OWN_HEADERS:
        raise InvalidRequestError(f"{name!r} cannot be set by {where}; the client does")
    if not isinstance(value, str) or not HEADER_VALUE.fullmatch(value):
        raise InvalidRequestError(f"the value of {name!r} in {where} must be plain ASCII")
    # Blanks around a value are no part of it, and h11 refuses them.
    return name.lower(), value.strip(" \t")


def path(what: str, value: object) -> str:
    """
    Check a path: a string, or what `os.fspath` makes one of.

    Raises:
        InvalidRequestError: It is none, is empty, or holds a NUL.
    """
    found = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(found, str) or not found or "\0" in found:
        raise InvalidRequestError(f"{what} must be a path, not {shown(value)}")
    return found


def _range(least: float, most: float | None) -> str:
    low, high = (f"{each:g}" if isinstance(each, float) else str(each) for each in (least, most))
    return f"of at least {low}" if most is None else f"from {low} to {high}"


def _as_number(value: object) -> float:
    """Return it as a float; NaN for what cannot be reckoned with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
