"""The eight promises, over real processes and signals; the emulator's ledger is the witness."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from processes import (
    Child,
    charges,
    check_alike,
    check_all_done,
    check_honest,
    run,
    settle,
    wait_for_charges,
)

from prodia_async.batch import BatchRecord
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(180)


def kill_and_go_on(
    emulator: Emulator,
    wanted: dict[str, Any],
    *,
    kills: int,
    slots: int,
    first: float = 0.0,
    last: float = 0.45,
) -> int:
    """SIGKILL so often, at random, each time once jobs are with the server; then finish."""
    folder, jobs = wanted["folder"], wanted["jobs"]
    rand = random.Random(7)
    in_flight = 0
    for _ in range(kills):
        before = emulator.ledger.totals().charged
        child = Child(emulator, wanted)
        wait_for_charges(emulator, min(before, jobs - 1) + 1)
        time.sleep(rand.uniform(first, last))
        child.end(signal.SIGKILL)
        in_flight += slots
        settle(emulator)
        check_honest(emulator, folder, child.reported)
    child = run(emulator, wanted)
    assert child.process.returncode == 0, child.stderr
    twice = check_all_done(emulator, folder, jobs)
    assert twice <= in_flight
    # What may have been paid twice is counted: all that were, and perhaps some that were not.
    again = BatchRecord(folder).summary().paid_again
    assert twice <= again <= in_flight
    return twice


def test_nothing_finished_is_paid_again(tmp_path: Path) -> None:
    """Promises 1 to 3: three SIGKILLs at random; what is paid twice was in flight, and is known."""
    with Emulator(workers=20, latency=0.1) as emulator:
        wanted = {"folder": tmp_path / "run", "jobs": 150, "client": {"max_concurrency": 20}}
        twice = kill_and_go_on(emulator, wanted, kills=3, slots=20)
        assert twice > 0, "no job was in flight: this test has shown nothing"
        third = run(emulator, wanted)
        assert third.summary()["done_before"] == 150
        assert emulator.ledger.totals().charged == 150 + twice


def test_async_jobs_are_collected_rather_than_paid_again(tmp_path: Path) -> None:
    """Promise 3: whose id is on the disk is collected by the next run, and paid once."""
    folder = tmp_path / "run"
    with Emulator(workers=20, latency=0.05) as emulator:
        emulator.hold()
        wanted = {
            "folder": folder,
            "jobs": 60,
            "client": {"max_concurrency": 20},
            "batch": {"submit": "async"},
        }
        child = Child(emulator, wanted)
        emulator.ledger.wait_for(lambda totals: totals.submitted == 20, 30)
        until_collectable(folder, 20)
        child.end(signal.SIGKILL)
        emulator.release()
        check_honest(emulator, folder, child.reported)
        second = run(emulator, wanted)
        assert second.process.returncode == 0, second.stderr
        assert check_all_done(emulator, folder, 60) == 0
        assert emulator.ledger.totals().submitted == 60


def until_collectable(folder: Path, count: int) -> None:
    """Wait until the record has the ids of so many jobs."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if sum(row.job_id is not None for row in BatchRecord(folder).rows()) == count:
            return
        time.sleep(0.05)
    raise AssertionError("the ids are not in the record")


def test_what_expired_before_it_was_collected_is_in_doubt(tmp_path: Path) -> None:
    """Promise 3: under ``hold`` never run again; under ``retry`` once more, and counted."""
    folder = tmp_path / "run"
    with Emulator(workers=20, latency=0.05) as emulator:
        emulator.hold()
        options = {"submit": "async", "on_doubt": "hold"}
        wanted = {"folder": folder, "jobs": 5, "batch": options}
        child = Child(emulator, wanted)
        emulator.ledger.wait_for(lambda totals: totals.submitted == 5, 30)
        until_collectable(folder, 5)
        child.end(signal.SIGKILL)
        emulator.release()
        settle(emulator)
        emulator.expire()
        held = run(emulator, wanted)
        assert held.process.returncode == 1, held.stderr
        assert held.summary()["in_doubt"] == 5
        assert emulator.ledger.totals().submitted == 5
        wanted["batch"] = {"submit": "async"}
        again = run(emulator, wanted)
        assert again.process.returncode == 0, again.stderr
        assert again.summary()["paid_again"] == 5
        assert emulator.ledger.totals().submitted == 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_ends_in_good_order(tmp_path: Path, number: int) -> None:
    """Promise 4: no new jobs; those with the server are finished; each is charged once."""
    with Emulator(workers=10, latency=0.2) as emulator:
        wanted = {"folder": tmp_path / "run", "jobs": 60, "client": {"max_concurrency": 10}}
        child = Child(emulator, wanted)
        child.until(lambda done: done >= 15)
        assert child.end(number) == 2, child.stderr
        settle(emulator)
        summary = child.summary()
        assert summary["stopped"].startswith(signal.Signals(number).name)
        assert summary["in_doubt"] == 0
        assert emulator.ledger.totals().charged == summary["done"] < 60
        check_alike(summary, BatchRecord(tmp_path / "run"))
        check_honest(emulator, tmp_path / "run", summary["done"])
        assert run(emulator, wanted).process.returncode == 0
        assert check_all_done(emulator, tmp_path / "run", 60) == 0


def test_two_signals_end_at_once(tmp_path: Path) -> None:
    """Promise 4: what is with the server is left there, named, and priced."""
    with Emulator(workers=10, latency=0.0) as emulator:
        emulator.hold()
        wanted = {"folder": tmp_path / "run", "jobs": 60, "client": {"max_concurrency": 10}}
        child = Child(emulator, wanted)
        while emulator.busy < 10:
            time.sleep(0.01)
        child.process.send_signal(signal.SIGTERM)
        child.until(lambda _: any("waiting" in line for line in child.lines) or True)
        time.sleep(0.3)
        assert child.process.poll() is None, "it did not wait for the jobs in flight"
        began = time.monotonic()
        assert child.end(signal.SIGTERM) == 2, child.stderr
        assert time.monotonic() - began < 3
        emulator.release()
        settle(emulator)
        summary = child.summary()
        assert summary["in_doubt"] == 10
        assert summary["doubtful_dollars"] == pytest.approx(0.025)
        line = next(line for line in child.lines if line.startswith("in doubt"))
        assert line.count("at most $0.0025") == 10
        check_honest(emulator, tmp_path / "run", 0)
        check_alike(summary, BatchRecord(tmp_path / "run"))
        assert len(list(BatchRecord(tmp_path / "run").in_doubt())) == 10

        held = run(emulator, {**wanted, "batch": {"on_doubt": "hold"}})
        assert held.process.returncode == 1
        assert held.summary()["in_doubt"] == 10
        assert set(charges(emulator).values()) == {1}
        retried = run(emulator, wanted)
        assert retried.process.returncode == 0, retried.stderr
        assert retried.summary()["paid_again"] == 10
        assert check_all_done(emulator, tmp_path / "run", 60) == 10


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("submit", ["sync", "async"])
def test_twenty_kills(tmp_path: Path, submit: str) -> None:
    """Goal 1: 20 SIGKILLs, 50 in flight, 2,500 jobs."""
    with Emulator(workers=50, latency=0.5, max_async_jobs=200, max_records=10_000_000) as emulator:
        wanted = {
            "folder": tmp_path / "run",
            "jobs": 2500,
            "client": {"max_concurrency": 50},
            "batch": {"submit": submit},
        }
        twice = kill_and_go_on(emulator, wanted, kills=20, slots=50)
        print(f"\n{submit}: {twice} paid twice by 20 kills")
        assert twice <= (1000 if submit == "sync" else 30)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_twenty_sigterms(tmp_path: Path) -> None:
    """Goal 2: 20 SIGTERMs, and each job is charged exactly once."""
    with Emulator(workers=50, latency=0.1) as emulator:
        wanted = {"folder": tmp_path / "run", "jobs": 2500, "client": {"max_concurrency": 50}}
        for _ in range(20):
            before = emulator.ledger.totals().charged
            child = Child(emulator, wanted)
            wait_for_charges(emulator, before + 20)
            assert child.end(signal.SIGTERM) == 2, child.stderr
            check_honest(emulator, tmp_path / "run", child.summary()["done"])
        assert run(emulator, wanted).process.returncode == 0
        assert check_all_done(emulator, tmp_path / "run", 2500) == 0
