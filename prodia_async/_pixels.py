"""How large a picture is that is to be sent: its first bytes say it, and Pillow reads them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

HEAD_BYTES = 1 << 20
"""How far a picture's size is looked for. Chosen: cameras put previews of some 100 KB before it."""


async def size_of(chunks: AsyncIterable[bytes | memoryview]) -> tuple[int, int] | None:
    """
    Return a picture's width and height.

    Args:
        chunks: Its bytes from the beginning; only as many are taken as are needed.

    Returns:
        Pixels; ``None`` where they are no picture that Pillow knows, or there
        is no Pillow (extra ``pillow``).
    """
    try:
        from PIL import ImageFile  # noqa: PLC0415  (an extra)
    except ImportError:
        return None
    parser = ImageFile.Parser()
    taken = 0
    async for chunk in chunks:
        taken += len(chunk)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nothing is decoded, however large it is
            try:
                parser.feed(bytes(chunk))
            except Exception:  # noqa: BLE001  (no picture: the service decides)
                return None
        if parser.image is not None:
            width, height = parser.image.size
            return width, height
        if taken >= HEAD_BYTES:
            break
    return None
