"""A video takes long, so it is left with the server: its id is enough to collect it later."""

import asyncio
import os
import sys
from pathlib import Path

from prodia_async import AsyncProdia, Job
from prodia_async.emulator import Emulator

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")
VIDEO = Job("inference.wan2-2.lightning.txt2vid.v0", {"prompt": "a wave rolls onto the beach"})


async def submit() -> str:
    """Leave the job with the server; this returns at once."""
    async with AsyncProdia() as client:
        return (await client.submit(VIDEO, accept="video/mp4")).id


async def collect(job_id: str) -> None:
    """Wait for the job, which any process can do, and save what it made."""
    async with AsyncProdia() as client:
        job = client.async_job(job_id)
        print("it is", await job.state())
        response = await job.result(poll=1.0)
        print("made", await response.output.save(FOLDER / "video.mp4"))


def main() -> None:
    """Keep the id where a crash cannot reach it, between the two halves."""
    note = FOLDER / "job-id.txt"
    note.write_text(asyncio.run(submit()), encoding="utf-8")
    print("submitted", note.read_text(encoding="utf-8"))
    asyncio.run(collect(note.read_text(encoding="utf-8")))
    note.unlink()


FOLDER.mkdir(parents=True, exist_ok=True)
if os.environ.get("PRODIA_TOKEN"):
    main()
else:  # no account: a local stand-in for the API answers
    with Emulator(latency=0.5) as emulator:
        os.environ |= {"PRODIA_TOKEN": "any", "PRODIA_BASE_URL": emulator.base_url}
        main()
