"""
A credential that shows itself nowhere: what it looks like, and how it goes out of what came.

Who sees an error is not always who may see the token: an error lands in logs,
in bug reports and on other people's screens. We never write the token, but a
server or a proxy may say it back. What they say goes through here first.

A credential of `MIN_SECRET` letters or more goes wherever it stands, and so
does the start of one that was cut off. A shorter one is none: real ones have
hundreds of letters. It may be a part of any word, or a word itself, so of a
message it goes only as a word of its own, which leaves the message readable;
of data, which somebody may need as they are, only behind ``Bearer``.
"""

from __future__ import annotations

import json
import re
from itertools import takewhile
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

B = TypeVar("B", bytes, bytearray)

REDACTED = "[token]"

MIN_SECRET = 8
"""
From how many letters on a credential goes wherever it stands, and how much of a longer one is
already a secret. Chosen: real ones have hundreds of letters, and words hardly ever so many in
common with one.
"""

_THE_SAME_IN_JSON = re.compile(r"[!#-\[\]-~]+")  # printable ASCII but a quote and a backslash


class Secret(str):
    """A string that does not show itself where it is only looked at: a credential."""

    __slots__ = ()

    def __repr__(self) -> str:
        return REDACTED


def blotted(text: str, secret: str) -> str:
    """
    Return a text for people with a credential blotted out.

    Args:
        text: A message, or a header's value.
        secret: May be empty: there is none then.
    """
    return _without(text, secret) if len(secret) >= MIN_SECRET else _without_the_word(text, secret)


def blotted_words(body: bytes, secret: str) -> bytes:
    """Return the bytes of a text for people with a credential blotted out, as `blotted` does."""
    return _of_bytes(blotted, body, secret)


def blotted_name(text: str | None, secret: str) -> str | None:
    """Return a name that came along with data, of which a short credential may be a part."""
    if not text or not secret:
        return text
    return (_without if len(secret) >= MIN_SECRET else _without_bearer)(text, secret)


def blotted_data(body: B, secret: str) -> B | bytes:
    """
    Return data with a credential blotted out, and nothing else changed.

    Args:
        body: JSON, for instance, with the user's own prompt in it, of which
            a credential of a few letters may be a word.
        secret: May be empty: there is none then.
    """
    return _of_bytes(_without if len(secret) >= MIN_SECRET else _without_bearer, body, secret)


def _forms(secret: str) -> tuple[str, ...]:
    """Return the ways in which a credential is written: as it is, and in JSON."""
    if _THE_SAME_IN_JSON.fullmatch(secret):
        return (secret,)
    in_json = json.dumps(secret)[1:-1]
    return (secret,) if in_json == secret else (secret, in_json)


def _without(text: str, secret: str) -> str:
    """Return a text without a credential and without the start of one, wherever it stands."""
    forms = _forms(secret)
    starts = re.compile("|".join(re.escape(form[:MIN_SECRET]) for form in forms))
    pieces: list[str] = []
    done = 0
    while found := starts.search(text, done):
        pieces += text[done : found.start()], REDACTED
        done = found.start() + max(_run(form, text, found.start()) for form in forms)
    return "".join([*pieces, text[done:]])


def _run(form: str, text: str, at: int) -> int:
    """Return how many of the first letters of ``form`` stand in a text at a place."""
    pairs = zip(form, text[at : at + len(form)], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _without_the_word(text: str, secret: str) -> str:
    """Return a text without a short credential where it is a word: no part of one or of a name."""
    if not secret or secret not in text:
        return text
    word = rf"(?<!\w)(?<!\w\.)(?<![^\W\d_]['\u2019]){re.escape(secret)}(?!\w)(?!\.\w)"
    return re.sub(word, REDACTED, text)


def _without_bearer(text: str, secret: str) -> str:
    """Return a text without a short credential where it is called one."""
    return re.sub(rf"((?i:bearer)\s+){re.escape(secret)}(?!\w)", rf"\1{REDACTED}", text)


def _of_bytes(change: Callable[[str, str], str], body: B, secret: str) -> B | bytes:
    # Most often there is nothing to be done, and a body is not taken apart for it.
    if not secret or not any(form[:MIN_SECRET].encode() in body for form in _forms(secret)):
        return body
    text = body.decode("utf-8", "surrogateescape")
    return change(text, secret).encode("utf-8", "surrogateescape")
