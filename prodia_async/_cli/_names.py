"""Names of job types, as they are typed."""

from __future__ import annotations


def complete_type(incomplete: str) -> list[str]:
    from .._catalogue import names  # noqa: PLC0415  (a job itself does not need it)

    return [name for name in names() if name.startswith(incomplete)]
