"""A hundred jobs at once: refusals are waited out, and one failure stops nothing."""

import asyncio
import os
import sys
from pathlib import Path

from prodia_async import AsyncProdia, Job
from prodia_async.emulator import Emulator

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")
CONFIG = {"prompt": "a lake at dawn", "width": 512, "height": 512}


async def main() -> None:
    """Save each picture as soon as it is made, then tell how it went."""
    jobs = (
        Job("inference.flux-fast.schnell.txt2img.v2", CONFIG | {"seed": seed})
        for seed in range(100)
    )
    async with AsyncProdia() as client, client.map(jobs) as outcomes:
        async for outcome in outcomes:
            if outcome.response is None:
                print(f"seed {outcome.index} failed: {outcome.error}")
            else:
                await outcome.response.output.save(FOLDER / f"lake-{outcome.index:02}.jpg")
        done = client.statistics()
    print(f"{done.completed} completed, {done.failed} failed; the pictures are in {FOLDER}")
    print(f"{done.refusals} refusals waited out; jobs at once, as learned: {dict(done.limits)}")


FOLDER.mkdir(parents=True, exist_ok=True)
if os.environ.get("PRODIA_TOKEN"):
    asyncio.run(main())
else:  # no account: a local stand-in for the API answers
    with Emulator(workers=20, latency=0.3) as emulator:
        os.environ |= {"PRODIA_TOKEN": "any", "PRODIA_BASE_URL": emulator.base_url}
        asyncio.run(main())
