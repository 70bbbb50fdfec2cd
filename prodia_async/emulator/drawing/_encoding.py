"""Pillow's encoders, by the parameter names of the Accept header."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True, slots=True)
class Encoding:
    """A media type for an output, with its encoder's parameters."""

    media_type: str
    options: tuple[tuple[str, int | str], ...] = ()


# Source of the defaults: guide "Output Image Formats". They are Pillow's own
# but for the chroma, which is named so that no Pillow can change it.
_SUBSAMPLING = {"444": "4:4:4", "422": "4:2:2", "420": "4:2:0"}


def encode(picture: Image.Image, encoding: Encoding) -> bytes:
    """
    Encode a picture.

    Args:
        picture: RGB, RGBA or L; it is not changed.
        encoding: Where the format has no transparency, it is laid on white.

    Returns:
        The file's bytes.
    """
    options = dict(encoding.options)
    target = io.BytesIO()
    match encoding.media_type:
        case "image/jpeg":
            _flattened(picture).save(
                target,
                "JPEG",
                quality=options.get("quality", 75),
                optimize=bool(options.get("optimize", 0)),
                progressive=bool(options.get("progressive", 0)),
                subsampling=_SUBSAMPLING[str(options.get("subsampling", "420"))],
            )
        case "image/png":
            picture.save(
                target,
                "PNG",
                compress_level=options.get("compress-level", 6),
                optimize=bool(options.get("optimize", 0)),
            )
        case _:
            lossless = bool(options.get("lossless", 0))
            picture.save(
                target,
                "WEBP",
                # For lossless files Pillow would take the quality for the effort.
                quality=80 if lossless else options.get("quality", 80),
                lossless=lossless,
                alpha_quality=options.get("alpha-quality", 100),
                method=options.get("method", 4),
                # Keep the colours below full transparency: lossless means all pixels.
                exact=lossless,
            )
    return target.getvalue()


def _flattened(picture: Image.Image) -> Image.Image:
    if picture.mode != "RGBA":
        return picture
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=picture.getchannel("A"))
    return white
