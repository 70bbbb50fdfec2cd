"""The contact sheet: many small pictures in one JPEG, for a chat or a mail."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from ._folder import written_whole
from ._pictures import evenly, pillow, thumbnail
from ._values import BatchError

if TYPE_CHECKING:
    from pathlib import Path

    from ._snapshot import Snapshot

CELL, GAP = 144, 4
"""Pixels. Chosen: twenty across are a picture that a phone shows and a screen fits."""


def write_sheet(record: Snapshot, path: Path, most: int = 200) -> Path:
    """Write it, with so many pictures at most."""
    image = pillow()
    pictures = [
        picture
        for row in evenly(record, most)
        if (picture := thumbnail(record, row, CELL)) is not None
    ]
    if not pictures:
        raise BatchError(f"{record.folder} has no picture to show")
    across = min(20, max(1, round((len(pictures) * 1.6) ** 0.5)))
    if len(pictures) > 3 * across:
        # A last line that is half empty looks like a fault.
        del pictures[len(pictures) // across * across :]
    down = ceil(len(pictures) / across)
    size = (across * (CELL + GAP) + GAP, down * (CELL + GAP) + GAP)
    sheet = image.new("RGB", size, (24, 24, 27))
    for number, picture in enumerate(pictures):
        row, column = divmod(number, across)
        left = GAP + column * (CELL + GAP) + (CELL - picture.width) // 2
        top = GAP + row * (CELL + GAP) + (CELL - picture.height) // 2
        sheet.paste(picture, (left, top))
    with written_whole(path) as temporary:
        sheet.save(temporary, "JPEG", quality=85)
    return path
