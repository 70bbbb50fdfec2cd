"""A process that is killed loses nothing that it has submitted, as long as the ids survive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
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


DRAIN = """
import asyncio, signal, sys
from pathlib import Path
from prodia_async import AsyncProdia, JobRequest

def jobs():
    seed = 0
    while True:
        config = {"prompt": "a lake", "seed": seed, "width": 256, "height": 256}
        job = {"type": "inference.flux-fast.schnell.txt2img.v2", "config": config}
        yield JobRequest(job, tag=seed)
        seed += 1

async def main():
    folder = Path(sys.argv[1])
    client = AsyncProdia(max_concurrency=50, adaptive=False)
    draining = []
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, lambda: draining.append(asyncio.ensure_future(client.drain(timeout=20)))
    )
    async with client.map(jobs()) as outcomes:
        async for outcome in outcomes:
            if outcome.error is None:
                await outcome.response.save(folder / f"{outcome.tag}.jpg")
            else:
                print("not sent", outcome.tag, outcome.error.may_have_run, flush=True)
    print("left", await draining[0], flush=True)

asyncio.run(main())
"""


def test_sigterm_with_fifty_jobs_in_flight(tmp_path: Path) -> None:
    """Every job that was charged is on the disk, each was charged once, and nothing is left."""
    with Emulator(tokens=["the-token"], workers=50, latency=0.4) as emulator:
        env = os.environ | {
            "PRODIA_TOKEN": "the-token",
            "PRODIA_BASE_URL": emulator.base_url,
            "PYTHONPATH": str(ROOT),
        }
        with subprocess.Popen(
            [sys.executable, "-c", DRAIN, str(tmp_path)], env=env, stdout=subprocess.PIPE, text=True
        ) as process:
            deadline = time.monotonic() + 30
            while len(emulator.ledger) < 120 and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            told, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        charged = [each for each in emulator.ledger if each.charged]
    lines = told.splitlines()
    assert lines[-1] == "left ()"
    assert not any("True" in line for line in lines)
    seeds = sorted(int(path.stem) for path in tmp_path.glob("*.jpg"))
    assert len(charged) == len(seeds) >= 100
    assert sorted((each.config or {})["seed"] for each in charged) == seeds
