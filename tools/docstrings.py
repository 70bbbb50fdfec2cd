"""
Docstrings, written for `help()`, as the site's Markdown wants them: an extension of griffe.

Literal blocks lose the ``::`` that begins them, and tables between lines of ``=``
become Markdown's. What runs is not touched.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

RULE = re.compile(r"^=+(?:  +=+)+$")


class Rewrite(griffe.Extension):
    """Rewrites the docstring of each object as it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one; called by griffe."""
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Return a docstring without what only reStructuredText would know how to show."""
    return "\n".join(_without_colons(_with_tables(text.splitlines())))


def _without_colons(lines: list[str]) -> list[str]:
    return [
        line[: line.rindex("::")] + (":" if line.strip() != "::" else "")
        if line.endswith("::")
        else line
        for line in lines
    ]


def _with_tables(lines: list[str]) -> list[str]:
    written: list[str] = []
    at = 0
    while at < len(lines):
        if RULE.match(lines[at]):
            rules = [n for n in range(at, len(lines)) if lines[n] == lines[at]][:3]
            # Between the first two is the head, unless there is nothing else.
            written += _table(
                lines[at], lines[at + 1 : rules[-2]], lines[rules[-2] + 1 : rules[-1]]
            )
            at = rules[-1] + 1
        else:
            written.append(lines[at])
            at += 1
    return written


def _table(rule: str, head: list[str], body: list[str]) -> list[str]:
    spans = [found.span() for found in re.finditer("=+", rule)]
    starts = [start for start, _ in spans]
    ends = [*starts[1:], None]

    def cells(line: str) -> list[str]:
        return [
            line[start:end].strip().replace("|", "\\|")
            for start, end in zip(starts, ends, strict=True)
        ]

    rows: list[list[str]] = []
    for line in body:
        found = cells(line)
        if found[0] or not rows:
            rows.append(found)
        else:  # the row before goes on
            rows[-1] = [f"{old} {more}".strip() for old, more in zip(rows[-1], found, strict=True)]
    heads = [cells(line) for line in head] or [[""] * len(starts)]
    lines = [*heads, ["---"] * len(starts), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
