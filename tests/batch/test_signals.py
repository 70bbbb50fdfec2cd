"""SIGINT and SIGTERM are for every run of a process, and for whoever heard them before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from processes import ROOT, TOKEN

from prodia_async.batch import BatchRecord
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import os, signal, sys
import anyio
from prodia_async import AsyncProdia
from prodia_async.batch import Batch

def theirs(*_):
    print("theirs", flush=True)

def fox(seed):
    config = {"prompt": "a fox", "seed": seed, "width": 256, "height": 256}
    return {"type": "inference.flux-fast.schnell.txt2img.v2", "config": config}

async def one(folder, client, first, count):
    async with Batch(folder, client, progress=False) as batch:
        summary = await batch.run([fox(first + n) for n in range(count)])
    print(folder, "ended", summary, flush=True)

async def main(second):
    signal.signal(signal.SIGTERM, theirs)
    async with AsyncProdia(max_concurrency=4) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(one, "a", client, 0, 200)
            await anyio.sleep(0.3)
            group.start_soon(one, "b", client, 1000, second)
        await anyio.sleep(0.1)
        assert signal.getsignal(signal.SIGTERM) is theirs
        os.kill(os.getpid(), signal.SIGTERM)
    print("over", flush=True)

anyio.run(main, int(sys.argv[2]), backend=sys.argv[1])
"""


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("second", [200, 2])
def test_two_runs_of_a_process_hear_a_signal_both(tmp_path: Path, loop: str, second: int) -> None:
    """Each ends in good order, also when the other has ended before; then it is whose it was."""
    with Emulator(workers=8, latency=0.1, tokens=[TOKEN]) as api:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, loop, str(second)],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PRODIA_TOKEN": TOKEN, "PRODIA_BASE_URL": api.base_url,
                              "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert process.stdout is not None
        told = process.stdout.readline() if second == 2 else ""
        api.ledger.wait_for(lambda totals: totals.charged >= 40, 30)
        process.send_signal(signal.SIGTERM)
        rest, said = process.communicate(timeout=40)
        told += rest
        assert process.returncode == 0, said
        assert api.ledger.totals().charged < 202
    stopped = {line[0] for line in told.splitlines() if line.endswith("stopped: SIGTERM")}
    assert stopped == ({"a", "b"} if second == 200 else {"a"}), told
    assert told.endswith("theirs\nover\n")
    assert BatchRecord(tmp_path / "a").summary().in_doubt == 0
