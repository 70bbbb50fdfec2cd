"""The pictures that the peers send, and what the ledger shall say of them."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from prodia_async.emulator import Record

COLOURS = {"product.jpg": "teal", "scene.jpg": "olive"}
COMBINE: dict[str, Any] = {
    "type": "inference.nano-banana.img2img.v2",
    "config": {"prompt": "put the product into the scene", "images": list(COLOURS)},
}
"""The guide's job for several input images; it names both."""

STRAWBERRY: dict[str, Any] = {
    "type": "inference.flux-fast.schnell.txt2img.v2",
    "config": {"prompt": "a ripe strawberry", "seed": 42},
}
"""The guide's job for output formats."""


def jpeg(colour: str) -> bytes:
    """Return a small JPEG file, the same one every time."""
    file = io.BytesIO()
    Image.new("RGB", (256, 256), colour).save(file, "JPEG")
    return file.getvalue()


def lay_out(folder: Path) -> dict[str, bytes]:
    """Write both pictures to a folder and return them by their names."""
    files = {name: jpeg(colour) for name, colour in COLOURS.items()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return files


def sha256(content: bytes) -> str:
    """Return the digest that the ledger keeps of an input."""
    return hashlib.sha256(content).hexdigest()


def received(record: Record) -> list[tuple[str, str | None, str]]:
    """Return name, type and digest of each input, in wire order."""
    return [(each.filename, each.content_type, each.sha256) for each in record.inputs]
