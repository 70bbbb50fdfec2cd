"""Several steps as one job: make a picture, check that it is decent, enlarge it."""

import asyncio
import os
import sys
from pathlib import Path

from prodia_async import AsyncProdia, BadRequestError, Job, JobFailedError
from prodia_async.emulator import Emulator

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")
WORKFLOW = Job.serial(
    Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": "a cat in the grass", "seed": 7}),
    Job.moderate(threshold=0.95),
    Job("inference.upscale.v1", {"upscale": 2}),
)


async def main() -> None:
    """Run it in one call; each step works on what the last one made."""
    async with AsyncProdia() as client:
        try:
            response = await client.job(WORKFLOW, accept="image/jpeg")
        except (BadRequestError, JobFailedError) as error:  # also when the check trips
            print(f"no picture: {error}")
        else:
            print("made", await response.output.save(FOLDER / "cat.jpg"))


FOLDER.mkdir(parents=True, exist_ok=True)
if os.environ.get("PRODIA_TOKEN"):
    asyncio.run(main())
else:  # no account: a local stand-in for the API answers
    with Emulator() as emulator:
        os.environ |= {"PRODIA_TOKEN": "any", "PRODIA_BASE_URL": emulator.base_url}
        asyncio.run(main())
