"""Small pictures of what a batch made: which ones, and how they are drawn. Needs Pillow."""

from __future__ import annotations

import io
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from ._values import BatchError

if TYPE_CHECKING:
    from ._snapshot import Snapshot
    from ._values import Row

SIDE = 192
"""Pixels of a thumbnail's longer side. Measured: 2 to 4 KB and 4 ms each."""


def pillow() -> Any:
    """
    Return ``PIL.Image``.

    Raises:
        BatchError: Pillow is missing.
    """
    try:
        from PIL import Image  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise BatchError("pictures need Pillow: pip install 'prodia-async[batch]'") from error
    return Image


def thumbnail(record: Snapshot, row: Row, side: int = SIDE) -> Any:
    """Return a row's output as a small picture; ``None`` when it is none, or is not there."""
    image = pillow()
    try:
        with image.open(io.BytesIO(record.read(row))) as picture:
            picture.draft("RGB", (side, side))  # a JPEG is decoded small: half the time
            picture.thumbnail((side, side))
            return picture.convert("RGB")
    except Exception:  # noqa: BLE001  (a film, a file that is gone, anything: there is no picture)
        return None


def data_uri(picture: Any, quality: int = 72) -> str:
    """Return a picture as a ``data:`` address."""
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", quality=quality)
    return f"data:image/webp;base64,{b64encode(encoded.getvalue()).decode()}"


def evenly(record: Snapshot, most: int) -> list[Row]:
    """Return rows that are done, evenly over the run, at most so many."""
    with record.reading() as connection:
        (highest,) = connection.execute("SELECT ifnull(max(i), -1) FROM job").fetchone()
        found: dict[int, None] = {}
        steps = min(most, highest + 1)
        for step in range(steps):
            i = step * (highest + 1) // steps
            row = connection.execute(
                "SELECT i FROM job WHERE i>=? AND state=2 AND bytes IS NOT NULL ORDER BY i LIMIT 1",
                (i,),
            ).fetchone()
            if row is not None:
                found[row[0]] = None
    return record.pick(list(found)) if found else []


def extremes(record: Snapshot, each: int) -> dict[str, list[Row]]:
    """Return the slowest, largest and smallest rows."""
    with record.reading() as connection:
        numbers = {
            name: [
                i
                for (i,) in connection.execute(
                    f"SELECT i FROM job WHERE state=2 AND bytes > 0 {order} LIMIT ?",  # noqa: S608
                    (each,),
                )
            ]
            for name, order in (
                ("slowest", "ORDER BY ms DESC"),
                ("largest", "ORDER BY bytes DESC"),
                ("smallest", "ORDER BY bytes"),
            )
        }
    return {name: record.pick(found) if found else [] for name, found in numbers.items()}


def prompt_of(row: Row) -> str:
    """Return a row's prompt, as far as the record has kept it."""
    config = (row.request or {}).get("config")
    prompt = config.get("prompt") if isinstance(config, dict) else None
    return str(prompt) if prompt is not None else ""
