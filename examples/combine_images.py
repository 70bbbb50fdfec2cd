"""Two pictures into one: files travel with the job, and its config names them."""

import asyncio
import os
import sys
from pathlib import Path

from prodia_async import AsyncProdia, Job
from prodia_async.emulator import Emulator

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")


async def main() -> None:
    """Make a picture of fruit and one of hills, then put the one before the other."""
    async with AsyncProdia() as client:
        for name, prompt in {"fruit.jpg": "a bowl of fruit", "hills.jpg": "hills at dawn"}.items():
            job = Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": prompt})
            response = await client.job(job)
            print("made", await response.output.save(FOLDER / name))

        config = {"prompt": "put the fruit on the hills", "images": ["fruit.jpg", "hills.jpg"]}
        response = await client.job(
            Job("inference.nano-banana.img2img.v2", config),
            inputs=[FOLDER / "fruit.jpg", FOLDER / "hills.jpg"],
        )
        print("combined them into", await response.output.save(FOLDER / "combined.jpg"))


FOLDER.mkdir(parents=True, exist_ok=True)
if os.environ.get("PRODIA_TOKEN"):
    asyncio.run(main())
else:  # no account: a local stand-in for the API answers
    with Emulator() as emulator:
        os.environ |= {"PRODIA_TOKEN": "any", "PRODIA_BASE_URL": emulator.base_url}
        asyncio.run(main())
