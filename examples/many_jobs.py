"""
A hundred jobs at once: refusals are waited out, and one failure stops nothing.

Runs on your account if PRODIA_TOKEN is set, else on a local emulator with twenty workers.
"""

import asyncio
import os
import sys
from pathlib import Path

from prodia_async import AsyncProdia, Job
from prodia_async.emulator import Emulator

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")


def job(seed: int) -> Job:
    config = {"prompt": "a lake at dawn", "seed": seed, "width": 512, "height": 512}
    return Job("inference.flux-fast.schnell.txt2img.v2", config)


async def show(client: AsyncProdia) -> None:
    async with client.map(job(seed) for seed in range(100)) as outcomes:
        async for outcome in outcomes:
            if outcome.response is None:
                print(f"seed {outcome.index}: {outcome.error}")
            else:
                await outcome.response.output.save(FOLDER / f"lake-{outcome.index:02}.jpg")
    done = client.statistics()
    print(f"{done.completed} completed, {done.failed} failed, pictures in {FOLDER}")
    print(f"{done.refusals} refusals waited out; learned limits: {dict(done.limits)}")


async def main() -> None:
    if os.environ.get("PRODIA_TOKEN"):
        async with AsyncProdia() as client:
            await show(client)
    else:
        async with Emulator(workers=20, latency=0.3) as api:
            async with AsyncProdia("any-token", base_url=api.base_url) as client:
                await show(client)


FOLDER.mkdir(parents=True, exist_ok=True)
asyncio.run(main())
