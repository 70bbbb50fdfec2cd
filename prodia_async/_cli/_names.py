"""Names of job types as they are typed: whole, without their beginning, or a part that tells."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from .._catalogue import job_type, names, near_misses
from .._show import printable
from ._app import note, wrong

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_NAMED = 6
"""How many types a message names. Chosen: a line that can be read."""

BEGINNINGS = ("inference.", "workflow.")


def complete_type(incomplete: str) -> list[str]:
    """Return the names that begin so, for a shell's completion."""
    return [name for name in names() if name.startswith(incomplete)]


def full_type(typed: str, *, has_inputs: bool = False) -> str:
    """
    Return the name of a type that was typed short.

    What is not known passes if it is a whole name, since the service gains
    types; one that looks like a slip of the pen is said to be that.

    Args:
        typed: As it was typed.
        has_inputs: Whether files come with the job: it tells img2img from txt2img.

    Raises:
        InvalidRequestError: It is short for none, or for several.
    """
    known = names()
    for name in (typed, f"inference.{typed}", f"workflow.{typed}"):
        if name in known:
            return name
    is_whole = typed.startswith(BEGINNINGS) and (_version(typed) or not short_for(typed, known))
    if is_whole or not typed.strip():
        near = near_misses(typed)
        if near:
            note(f"{printable(typed)} is not known here; did you mean {' or '.join(near)}?")
        return typed
    found = short_for(typed.lower(), known)
    if len(found) > 1:
        fitting = [name for name in found if _takes_inputs(name) is has_inputs]
        found = fitting if len(fitting) == 1 else found
    if len(found) != 1:
        wrong("TYPE", _why_not(typed, found, known))
    return found[0]


def _why_not(typed: str, found: Sequence[str], known: Sequence[str]) -> str:
    if found:
        more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
        return f"{typed!r} is short for several: {', '.join(found[:MAX_NAMED])}{more}"
    near = near_misses(f"inference.{typed}") or near_words(typed.lower(), known)
    if near:
        return f"{typed!r} is no known type; did you mean {' or '.join(near)}?"
    return (
        f"{typed!r} is short for no known type; `prodia-async types` lists them, and a whole name "
        "such as inference.NAME.v1 is taken as it is"
    )


def short_for(typed: str, known: Iterable[str]) -> list[str]:
    """
    Return the names that ``typed`` may be short for, sorted.

    Its words have to be in a name in their order. Of several versions of one
    type the newest counts, and of several names the one in which they stand together.
    """
    wanted = typed.split(".")
    found = [name for name in known if _has_words(name.split("."), wanted)]
    together = [name for name in found if f".{typed}." in f".{name}."]
    newest: dict[str, str] = {}
    for name in together or found:
        stem = re.sub(r"\.v[0-9]+$", "", name)
        newest[stem] = max(newest.get(stem, name), name, key=_version)
    exact = [name for stem, name in newest.items() if stem.partition(".")[2] == typed]
    return exact or sorted(newest.values())


def _takes_inputs(name: str) -> bool:
    known = job_type(name)
    return known is not None and known.inputs.least > 0


def near_words(typed: str, known: Sequence[str]) -> list[str]:
    """Return the names with a word that one of ``typed`` may be a slip of, at most three."""
    words = {word: name for name in reversed(known) for word in name.split(".")[1:-1]}
    slips = [get_close_matches(word, words, n=3, cutoff=0.75) for word in typed.split(".")]
    corrected = ".".join(
        near[0] if near else word for near, word in zip(slips, typed.split("."), strict=True)
    )
    return short_for(corrected, known)[:3] if any(slips) else []


def _has_words(words: list[str], wanted: list[str]) -> bool:
    left = iter(words)
    return all(any(word == each for each in left) for word in wanted)


def _version(name: str) -> int:
    last = re.search(r"\.v([0-9]+)$", name)
    return int(last[1]) if last else 0
