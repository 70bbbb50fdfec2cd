"""
Prompts from a file into a folder; kill it and run it again: it goes on, and pays once.

It needs the extras ``batch`` and ``emulator``.
"""

import asyncio
import os
import sys
from pathlib import Path

from prodia_async import AsyncProdia
from prodia_async.batch import Batch, read_jobs
from prodia_async.emulator import Emulator

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "run"
SCHNELL = "inference.flux-fast.schnell.txt2img.v2"
JOBS = read_jobs(Path(__file__).with_name("prompts.csv"), job_type=SCHNELL)


async def main() -> None:
    """Say what it will cost, run it, and write a page about it."""
    async with AsyncProdia() as client, Batch(FOLDER, client, max_cost=1.0) as batch:
        print(await batch.plan(JOBS), await batch.run(JOBS), sep="\n")
    print(batch.record.write_report().absolute().as_uri())


if os.environ.get("PRODIA_TOKEN"):
    asyncio.run(main())
else:  # no account: a local stand-in for the API answers
    with Emulator() as emulator:
        os.environ |= {"PRODIA_TOKEN": "any", "PRODIA_BASE_URL": emulator.base_url}
        asyncio.run(main())
