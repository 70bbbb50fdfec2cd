"""A process that is killed loses nothing that it has submitted, as long as the ids survive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from prodia_async.emulator import Emulator

ROOT = Path(__file__).parents[1]
JOBS = 10

SUBMIT = """
import asyncio, sys
from prodia_async import AsyncProdia, Job

async def main():
    async with AsyncProdia() as client:
        with open(sys.argv[1], "a", encoding="utf-8") as ids:
            for seed in range(int(sys.argv[2])):
                config = {"prompt": "a lake", "seed": seed, "width": 256, "height": 256}
                job = Job("inference.flux-fast.schnell.txt2img.v2", config)
                print((await client.submit(job)).id, file=ids, flush=True)
        print("all are submitted", flush=True)
        await asyncio.Event().wait()  # until it is killed

asyncio.run(main())
"""

COLLECT = """
import asyncio, json, sys
from prodia_async import AsyncProdia

async def collect(client, job_id):
    response = await client.async_job(job_id).result(poll=0.05)
    return response.job.id, response.job.config["seed"], len(response.output.content)

async def main():
    with open(sys.argv[1], encoding="utf-8") as ids:
        async with AsyncProdia() as client:
            found = await asyncio.gather(*(collect(client, line.strip()) for line in ids))
    print(json.dumps(found))

asyncio.run(main())
"""


def test_ten_jobs_outlive_the_process_that_submitted_them(tmp_path: Path) -> None:
    """Ten are submitted, kill -9, another process collects all ten: ten charges in the ledger."""
    ids = tmp_path / "ids.txt"
    with Emulator(tokens=["the-token"]) as emulator:
        emulator.hold()  # none has ended when the process is killed
        env = os.environ | {
            "PRODIA_TOKEN": "the-token",
            "PRODIA_BASE_URL": emulator.base_url,
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-W", "error", "-c"]
        with subprocess.Popen(
            [*command, SUBMIT, ids, str(JOBS)], env=env, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"all are submitted\n"
            process.kill()
            assert process.wait(timeout=10) == -signal.SIGKILL
        assert set(emulator.async_jobs.values()) == {"processing"}

        emulator.release()
        collected = subprocess.run(
            [*command, COLLECT, ids],
            env=env,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert collected.stderr == ""
        found = json.loads(collected.stdout)
        assert [job_id for job_id, *_ in found] == ids.read_text(encoding="utf-8").split()
        assert [seed for _, seed, _ in found] == list(range(JOBS))
        assert min(size for *_, size in found) > 0
        totals = emulator.ledger.totals()
        assert (totals.submitted, totals.charged, totals.ran) == (JOBS, JOBS, JOBS)
