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


# One type at least of each way to make something: its job, what goes in, what comes out.
FAMILIES: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    name: ({"type": name, **({} if config is None else {"config": config})}, inputs, media_type)
    for name, config, inputs, media_type in (
        ("inference.flux-fast.schnell.txt2img.v1", {"prompt": "a fox"}, (), "image/jpeg"),
        ("inference.flux-2.dev.txt2img.v1", {"prompt": "a fox"}, (), "image/jpeg"),
        ("inference.recraft.v4.txt2img.v1", {"prompt": "a fox"}, (), "image/jpeg"),
        ("inference.seedream-4.txt2img.v1", {"prompt": "a fox"}, (), "image/jpeg"),
        ("inference.gemini-3-pro.txt2img.v1", {"prompt": "a fox"}, (), "image/jpeg"),
        ("inference.sdxl.img2img.v1", {"prompt": "a fox"}, ("jpeg",), "image/jpeg"),
        ("inference.flux-kontext.pro.img2img.v1", {"prompt": "a fox"}, ("jpeg",), "image/jpeg"),
        ("inference.flux.dev.inpainting.v2", {"prompt": "a"}, ("jpeg", "jpeg"), "image/jpeg"),
        ("inference.remove-background.v1", None, ("jpeg",), "image/png"),
        ("inference.birefnet.segment.v1", {}, ("jpeg",), "image/png"),
        ("inference.mask-background.v1", {}, ("jpeg",), "image/png"),
        ("inference.segment.v1", None, ("jpeg",), "image/png"),
        ("inference.sam3.segment.v1", {"prompt": "fruit"}, ("jpeg",), "image/png"),
        ("inference.upscale.v1", {"upscale": 2}, ("jpeg",), "image/jpeg"),
        ("inference.facerestore.v1", {}, ("jpeg",), "image/jpeg"),
        ("inference.faceswap.v1", {}, ("jpeg", "jpeg"), "image/jpeg"),
        ("inference.vit.img2label.v2", {}, ("jpeg",), "application/json"),
        ("inference.recraft.v4.txt2vec.v1", {"prompt": "a fox"}, (), "image/svg+xml"),
        ("inference.veo.txt2vid.v1", {"prompt": "a fox"}, (), "video/mp4"),
        ("inference.sora-2.pro.img2vid.v1", {"prompt": "a fox"}, ("jpeg",), "video/mp4"),
        ("inference.wan2-7.vid2vid.v1", {"prompt": "a fox"}, ("mp4",), "video/mp4"),
        ("inference.pruna.p-video.aud2vid.v1", {"prompt": "a fox"}, ("wav",), "video/mp4"),
    )
}

BEGINNINGS = {
    "image/jpeg": b"\xff\xd8\xff",
    "image/png": b"\x89PNG",
    "image/svg+xml": b"<?xml",
    "application/json": b"[",
    "video/mp4": b"\0\0\0 ftyp",
}
"""How a file of each type begins."""


def input_file(kind: str) -> bytes:
    """Return the smallest file of a kind that the emulator takes for one."""
    match kind:
        case "mp4":
            return b"\0\0\0\x10ftypisom" + bytes(20)
        case "wav":
            return b"RIFF\x24\0\0\0WAVEfmt " + bytes(24)
    return jpeg("teal")
