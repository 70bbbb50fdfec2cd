"""A first call: a ping, then a picture and all that the API says of its job."""

import asyncio
import os
import sys
from pathlib import Path

from prodia_async import AsyncProdia, Job
from prodia_async.emulator import Emulator

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")
PING = Job("inference.ping.v1")
PUPPIES = Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": "puppies in a cloud, 4k"})


async def main() -> None:
    """Ping, to see that token and network are right; then run a job that makes something."""
    async with AsyncProdia() as client:
        pong = await client.job(PING)
        print(f"ping: request {pong.request_id} took {pong.timing.total:.3f} s")

        response = await client.job(PUPPIES)
        print(f"made {await response.output.save(FOLDER / 'puppies.jpg')}")
        if response.job is not None:  # it comes along unless multipart=False
            print(response.job.model_dump_json(indent=2, exclude_unset=True))


FOLDER.mkdir(parents=True, exist_ok=True)
if os.environ.get("PRODIA_TOKEN"):
    asyncio.run(main())
else:  # no account: a local stand-in for the API answers
    with Emulator() as emulator:
        os.environ |= {"PRODIA_TOKEN": "any", "PRODIA_BASE_URL": emulator.base_url}
        asyncio.run(main())
