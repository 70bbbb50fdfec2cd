"""One picture in every output format: how large each file is, and what it kept."""

import asyncio
import os
import sys
from pathlib import Path

from PIL import Image, JpegImagePlugin

from prodia_async import JPEG, PNG, AsyncProdia, Job, WebP
from prodia_async.emulator import Emulator

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")
JOB = Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": "a ripe strawberry", "seed": 42})
LOSSY = (WebP(), JPEG(quality=50), JPEG(), JPEG(quality=95, subsampling="444"))
LOSSLESS = (WebP(lossless=True, method=6), PNG(compress_level=9, optimize=True), PNG())


async def main() -> None:
    """Run the same job once for each format, smallest first."""
    exact = set()
    async with AsyncProdia() as client:
        for number, accept in enumerate((*LOSSY, *LOSSLESS), start=1):
            output = (await client.job(JOB, accept=accept)).output
            path = await output.save(FOLDER / f"format-{number}{output.suffix}")
            print(f"{len(output.content):>9,} bytes  {path}  {accept}")
            with Image.open(path) as picture:
                if isinstance(picture, JpegImagePlugin.JpegImageFile):
                    chroma = ("4:4:4", "4:2:2", "4:2:0")[JpegImagePlugin.get_sampling(picture)]
                    print(f"{'':17}chroma {chroma}, luma table {picture.quantization[0][:4]} ...")
                if accept in LOSSLESS:
                    exact.add(picture.convert("RGB").tobytes())
    print("lossless formats hold the same pixels:", "yes" if len(exact) == 1 else "NO")


FOLDER.mkdir(parents=True, exist_ok=True)
with Emulator() as emulator:
    # Without an account, the local stand-in for the API answers.
    if not os.environ.get("PRODIA_TOKEN"):
        os.environ |= {"PRODIA_TOKEN": "any", "PRODIA_BASE_URL": emulator.base_url}
    asyncio.run(main())
