"""
Two pictures into one: send files along with a job, and name them in its config.

Runs on your account if PRODIA_TOKEN is set, else on a local emulator.
"""

import asyncio
import os
import sys
from pathlib import Path

from prodia_async import AsyncProdia, Job
from prodia_async.emulator import Emulator

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")


async def show(client: AsyncProdia) -> None:
    for name, prompt in {"fruit": "a bowl of fruit", "hills": "misty hills at dawn"}.items():
        made = await client.job(Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": prompt}))
        print("made", await made.output.save(FOLDER / f"{name}.jpg"))

    combined = await client.job(
        Job(
            "inference.nano-banana.img2img.v2",
            {"prompt": "the fruit in front of the hills", "images": ["fruit.jpg", "hills.jpg"]},
        ),
        inputs=[FOLDER / "fruit.jpg", FOLDER / "hills.jpg"],
    )
    print("combined them into", await combined.output.save(FOLDER / "combined.jpg"))


async def main() -> None:
    if os.environ.get("PRODIA_TOKEN"):
        async with AsyncProdia() as client:
            await show(client)
    else:
        async with Emulator() as api, AsyncProdia("any-token", base_url=api.base_url) as client:
            await show(client)


FOLDER.mkdir(parents=True, exist_ok=True)
asyncio.run(main())
