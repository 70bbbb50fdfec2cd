"""How large a picture is that is to be sent, by its first bytes."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from conftest import on_both_loops
from PIL import Image

from prodia_async import Input, InvalidRequestError, Job, JobRequest
from prodia_async._pixels import HEAD_BYTES, size_of
from prodia_async._requests import encode_job

SAM = Job("inference.sam3.segment.v1", {"prompt": "a cat"})


def picture(width: int, height: int, format: str = "PNG") -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (width, height), "sienna").save(held, format)
    return held.getvalue()


async def pieces(content: bytes, size: int) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


@on_both_loops
async def test_every_format_in_any_pieces() -> None:
    """Width first; a byte at a time, or all at once."""
    for name in ("PNG", "JPEG", "WEBP"):
        content = picture(300, 200, name)
        for size in (1, 64, len(content)):
            async with aclosing(pieces(content, size)) as chunks:
                assert await size_of(chunks) == (300, 200), (name, size)


@on_both_loops
async def test_what_is_no_picture() -> None:
    """Nothing is known of it, and no more of it is read than a picture's head may take."""
    assert await size_of(pieces(b"", 1)) is None
    assert await size_of(pieces(b"x" * 100, 10)) is None
    read = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal read
        while True:
            read += 65536
            yield bytes(65536)

    async with aclosing(endless()) as chunks:
        assert await size_of(chunks) is None
    assert read <= HEAD_BYTES


async def test_a_picture_that_is_too_large_for_pillow() -> None:
    """What it refuses to look at is left to the service, as what it does not know."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head
    png += struct.pack(">I", zlib.crc32(b"IHDR" + head)) + struct.pack(">I", 9) + b"IDAT"
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(png))
    assert await size_of(pieces(png, 1000)) is None


@on_both_loops
async def test_too_small_or_of_the_wrong_kind_is_found_before_sending() -> None:
    """By the sam3 page: 256x256 to 4096x4096, a picture."""
    await encode_job(JobRequest(SAM, [picture(256, 256)]), validate="known")
    with pytest.raises(InvalidRequestError, match="sides of 256 to 4096 pixels, not 255x256"):
        await encode_job(JobRequest(SAM, [picture(255, 256)]), validate="known")
    film = Input(b"x" * 100, "film.mp4", "video/mp4")
    with pytest.raises(InvalidRequestError, match="must be one of image/png"):
        await encode_job(JobRequest(SAM, [film]), validate="known")
    await encode_job(JobRequest(SAM, [picture(8, 8)]), validate="off")


@pytest.mark.slow
def test_without_pillow_nothing_is_known() -> None:
    """It is an extra, and the service decides then."""
    code = (
        "import sys, asyncio\n"
        "sys.modules['PIL'] = None\n"
        "from prodia_async._pixels import size_of\n"
        "async def none():\n"
        "    yield b'x'\n"
        "print(asyncio.run(size_of(none())))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
