"""One picture in every output format: how large each is, and what it kept."""

import asyncio
import os
import sys
import zlib
from pathlib import Path

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from prodia_async import JPEG, PNG, AsyncProdia, Job, WebP
from prodia_async.emulator import Emulator

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")
JOB = Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": "a ripe strawberry", "seed": 42})
FORMATS: list[JPEG | PNG | WebP] = [WebP(), JPEG(quality=50), JPEG()]
FORMATS += [JPEG(quality=95, subsampling="444"), WebP(lossless=True, method=6)]
FORMATS += [PNG(compress_level=9, optimize=True), PNG()]


async def main() -> None:
    """Run one job in each format, smallest first; the lossless ones end in equal pixels."""
    async with AsyncProdia() as client:
        for number, accept in enumerate(FORMATS, start=1):
            output = (await client.job(JOB, accept=accept)).output
            path = await output.save(FOLDER / f"format-{number}{output.suffix}")
            with Image.open(path) as picture:
                pixels = zlib.crc32(picture.convert("RGB").tobytes())
                print(f"{len(output.content):>8,} bytes  pixels {pixels:08x}  {accept}")
                if isinstance(picture, JpegImageFile):
                    chroma = ["444", "422", "420"][get_sampling(picture)]
                    print(f"{'':16}chroma {chroma}, luma table {picture.quantization[0][:4]} ...")


FOLDER.mkdir(parents=True, exist_ok=True)
if os.environ.get("PRODIA_TOKEN"):
    asyncio.run(main())
else:  # no account: a local stand-in for the API answers
    with Emulator() as emulator:
        os.environ |= {"PRODIA_TOKEN": "any", "PRODIA_BASE_URL": emulator.base_url}
        asyncio.run(main())
