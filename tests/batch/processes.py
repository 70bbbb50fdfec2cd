"""Processes that run a batch, and what the emulator's ledger says of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prodia_async.batch import BatchRecord

if TYPE_CHECKING:
    from prodia_async.emulator import Emulator

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).parent / "child.py"
SCHNELL = "inference.flux-fast.schnell.txt2img.v2"
TOKEN = "a-secret-token-of-the-tests"


class Child:
    """One process that runs a batch."""

    def __init__(self, emulator: Emulator, wanted: dict[str, Any], **popen: Any) -> None:
        env = os.environ | {
            "PRODIA_TOKEN": TOKEN,
            "PRODIA_BASE_URL": emulator.base_url,
            "PYTHONPATH": str(ROOT),
        }
        wanted = {"type": SCHNELL, **wanted, "folder": str(wanted["folder"])}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(CHILD), json.dumps(wanted)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )
        self.lines: list[str] = []
        self.stderr = ""

    def until(self, condition: Any, seconds: float = 30.0) -> None:
        """Read what it tells until a condition holds, of its last count of rows done."""
        assert self.process.stdout is not None
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError(self.process.communicate()[1])
            self.lines.append(line)
            if condition(self.reported):
                return
        raise AssertionError("it took too long")

    @property
    def reported(self) -> int:
        """How many rows it has called done."""
        told = [line for line in self.lines if line.startswith("done ")]
        return int(told[-1].split()[1]) if told else 0

    def end(self, signal_number: int | None = None, seconds: float = 60.0) -> int:
        """Send a signal, if one is given; return the exit status."""
        if signal_number is not None:
            self.process.send_signal(signal_number)
        stdout, self.stderr = self.process.communicate(timeout=seconds)
        # A line that was cut by the kill is none.
        self.lines += [line for line in stdout.splitlines(keepends=True) if line.endswith("\n")]
        return self.process.returncode

    def summary(self) -> dict[str, Any]:
        """Return the summary it printed."""
        line = next(line for line in self.lines if line.startswith("summary "))
        found: dict[str, Any] = json.loads(line.removeprefix("summary "))
        return found


def run(emulator: Emulator, wanted: dict[str, Any], **popen: Any) -> Child:
    """Run a batch to its end."""
    child = Child(emulator, wanted, **popen)
    child.end()
    return child


def charges(emulator: Emulator) -> Counter[int]:
    """Count the charges of each seed."""
    return Counter(
        record.config["seed"]
        for record in emulator.ledger
        if record.charged and record.config is not None
    )


def wait_for_charges(emulator: Emulator, count: int) -> None:
    """Wait until the server has charged so many jobs."""
    emulator.ledger.wait_for(lambda totals: totals.charged >= count, 30)


def settle(emulator: Emulator, seconds: float = 10.0) -> None:
    """Wait until the server has no job under way: those of a dead process run, and are charged."""
    end = time.monotonic() + seconds
    while emulator.busy and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.02)


def seeds(rows: Any) -> set[int]:
    """Return the seeds that rows were asked for."""
    return {row.request["config"]["seed"] for row in rows if row.request}


def check_honest(emulator: Emulator, folder: Path, reported: int) -> None:
    """Check, after any death, that nothing that was told is gone and nothing paid is unknown."""
    record = BatchRecord(folder)
    rows = list(record.rows())
    done = [row for row in rows if row.state == "done"]
    assert len(done) >= reported, "rows were called done and are gone"
    verified = record.verify(hashes=True)
    assert (verified.missing, verified.wrong) == ((), ())
    known = seeds(done) | seeds(record.in_doubt())
    known |= seeds(row for row in rows if row.job_id is not None)
    assert set(charges(emulator)) <= known, "something was paid that nobody knows of"


TOLD = ("done", "failed", "in_doubt", "left", "dollars", "doubtful_dollars", "stopped")


def check_alike(summary: Any, record: BatchRecord) -> None:
    """Check that a run and whoever reads its record say the same of it."""
    said = summary if isinstance(summary, dict) else {n: getattr(summary, n) for n in TOLD}
    found = record.summary()
    assert {name: said[name] for name in TOLD} == {name: getattr(found, name) for name in TOLD}
    assert len(list(record.in_doubt())) == found.in_doubt


def check_all_done(emulator: Emulator, folder: Path, jobs: int) -> int:
    """Check that a folder is complete; return how many jobs were paid twice."""
    record = BatchRecord(folder)
    summary = record.summary()
    assert (summary.done, summary.failed, summary.in_doubt) == (jobs, 0, 0)
    assert str(record.verify(hashes=True)) == f"{jobs:,} outputs are there and whole"
    files = [path for path in (folder / "out").rglob("*") if path.is_file()]
    assert len(files) == jobs, "files that nobody knows of"
    paid = charges(emulator)
    assert set(paid) == set(range(jobs))
    return sum(paid.values()) - jobs
