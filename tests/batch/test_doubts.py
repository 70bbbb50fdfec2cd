"""What is in doubt: the run that ends, whoever reads its record and the next start say the same."""

from __future__ import annotations

import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import until
from processes import SCHNELL, Child, check_alike, check_all_done, run, settle

from prodia_async import AsyncProdia, RetryPolicy
from prodia_async.batch import Batch, BatchJob, BatchRecord
from prodia_async.batch._trade import Facts, ProdiaTrade
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from prodia_async import AttemptDetails
    from prodia_async.batch._run import Run

pytestmark = pytest.mark.timeout(120)


def fox(seed: int, **config: Any) -> dict[str, Any]:
    config = {"prompt": "a fox", "seed": seed, "width": 256, "height": 256, **config}
    return {"type": SCHNELL, "config": config}


def foxes(count: int) -> list[dict[str, Any]]:
    return [fox(n) for n in range(count)]


@pytest.fixture(name="api")
def _api() -> Iterator[Emulator]:
    with Emulator(workers=20, latency=0.02) as emulator:
        yield emulator


@asynccontextmanager
async def batch_of(
    api: Emulator, folder: Path, client: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Batch]:
    given = {"retry": RetryPolicy(backoff_initial=0.01, max_retry_after=0.1), **(client or {})}
    async with AsyncProdia("any", base_url=api.base_url, **given) as made:
        settings = {"progress": False, "signals": False, **options}
        async with Batch(folder, made, **settings) as batch:
            yield batch


def run_of(batch: Batch) -> Run:
    assert batch._run is not None
    return batch._run


@pytest.mark.parametrize("dollars", [0.0025, None])
async def test_a_lost_answer_whose_next_attempt_waits(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch, dollars: float | None
) -> None:
    """It may have been paid, whether anybody knows what it costs, until another attempt ends it."""
    monkeypatch.setattr(ProdiaTrade, "facts", lambda *_: Facts(dollars))
    api.drop_next(1, at="sent")
    folder = tmp_path / "run"

    def busy_from_then_on(details: AttemptDetails) -> None:
        if details.event == "finished":
            api.fail_next(100, 429, retry_after=60)

    async with batch_of(api, folder, {"max_concurrency": 1, "hook": busy_from_then_on}) as batch:
        async with anyio.create_task_group() as group:
            group.start_soon(batch.run, [fox(0)])
            await until(lambda: batch._run is not None and batch._run.delayed != [])
            assert 0 in run_of(batch).marks, "a kill here would forget that it may be paid"
            batch.stop()
        told = run_of(batch).summary()
        assert (told.in_doubt, told.left, told.exit_code) == (1, 0, 2)
        assert batch.record.summary().in_doubt == 1
        price = "$0.0025" if dollars else "an unknown price"
        assert batch.in_doubt() == [f"row 0: {SCHNELL}, at most {price}"]
    check_alike(told, BatchRecord(folder))


@pytest.mark.parametrize("stop", ["stop", "stop_now", "cancel"])
async def test_what_was_in_doubt_before_and_is_not_sent_again(
    tmp_path: Path, api: Emulator, stop: str
) -> None:
    """Is in doubt still, and what failed has failed still; only what was sent is paid again."""
    folder = tmp_path / "run"
    jobs = [*foxes(6), fox(0, steps=99), fox(1, steps=98), *foxes(40)[6:]]
    api.drop_next(4, at="sent")
    async with batch_of(api, folder, on_doubt="hold") as batch:
        first = await batch.run(jobs[:8])
        assert (first.done, first.in_doubt, first.failed, first.paid_again) == (2, 4, 2, 0)
        assert len(batch.in_doubt()) == 4
    check_alike(first, BatchRecord(folder))
    api.hold()
    options: dict[str, Any] = {"retry_failed": True, "client": {"max_concurrency": 1}}
    async with batch_of(api, folder, **options) as batch, anyio.create_task_group() as group:
        group.start_soon(batch.run, jobs)
        await until(lambda: api.busy == 1)
        going = run_of(batch)
        if stop == "stop":
            batch.stop()
            api.release()
        elif stop == "stop_now":
            going.stop_now("at once")
        else:
            group.cancel_scope.cancel()
    told = going.summary()
    is_sent = stop == "stop"
    assert (told.done, told.in_doubt) == ((3, 3) if is_sent else (2, 4)), told
    assert (told.failed, told.paid_again) == (2, 1)
    assert len(batch.in_doubt()) == told.in_doubt
    assert told.left > 0
    found = BatchRecord(folder).summary()
    assert (found.done, found.failed, found.in_doubt) == (told.done, 2, told.in_doubt)
    assert found.left == told.left
    assert found.doubtful_dollars == pytest.approx(told.doubtful_dollars)
    rows = [row.row for row in BatchRecord(folder).rows()]
    assert len(rows) == len(set(rows))
    api.release()


async def test_a_run_that_is_cancelled_before_it_begins(tmp_path: Path, api: Emulator) -> None:
    """It ends, and nothing is in doubt."""
    async with batch_of(api, tmp_path / "run") as batch, anyio.create_task_group() as group:
        group.start_soon(batch.run, foxes(3))
        group.cancel_scope.cancel()
    assert api.ledger.totals().received == BatchRecord(tmp_path / "run").summary().in_doubt == 0


async def test_all_answers_are_lost(tmp_path: Path, api: Emulator) -> None:
    """Nobody has told a price: what was expected counts, in the record too; equal rows are rows."""
    api.drop_next(4, at="sent")
    folder = tmp_path / "run"
    jobs = [*foxes(4), BatchJob(fox(0), id="again"), fox(0, steps=99), fox(0, steps=99)]
    for _ in range(2):
        async with batch_of(api, folder, on_doubt="hold") as batch:
            told = await batch.run(jobs)
            assert (told.in_doubt, told.failed, told.left, told.exit_code) == (4, 2, 0, 1)
            assert told.doubtful_dollars == pytest.approx(0.01)
            assert len(batch.in_doubt()) == 4
            check_alike(told, batch.record)
        check_alike(told, BatchRecord(folder))
    assert api.ledger.totals().charged == 4


async def test_a_plan_says_the_same(tmp_path: Path, api: Emulator) -> None:
    """Of what was with the server when the run was left, before anything is sent again."""
    folder = tmp_path / "run"
    api.hold()
    async with batch_of(api, folder, {"max_concurrency": 3}) as batch:
        async with anyio.create_task_group() as group:
            group.start_soon(batch.run, foxes(9))
            await until(lambda: api.busy == 3)
            here = await batch.plan(foxes(9))
            assert (here.in_doubt, here.to_run, here.done) == (0, 6, 3), "they are under way"
            group.cancel_scope.cancel()
        assert batch.record.summary().in_doubt == 3
        plan = await batch.plan(foxes(9))
        assert (plan.in_doubt, plan.to_run) == (3, 9)
    api.release()


@pytest.mark.parametrize("submit", ["sync", "async"])
async def test_a_second_run_in_the_block_knows_what_the_first_left(
    tmp_path: Path, api: Emulator, submit: Any
) -> None:
    """What has an id is collected, what has none is in doubt: under hold, nothing is sent again."""
    api.hold()
    async with batch_of(api, tmp_path / "run", on_doubt="hold", submit=submit) as batch:
        async with anyio.create_task_group() as group:
            group.start_soon(batch.run, foxes(5))
            await until(lambda: api.ledger.totals().received >= 5)
            await until(lambda: api.busy == 5)
            if submit == "async":
                await until(
                    lambda: all(each.job_id for each in run_of(batch).marks.marked().values())
                )
            group.cancel_scope.cancel()
        api.release()
        told = await batch.run(foxes(5))
    assert (told.done, told.in_doubt) == ((5, 0) if submit == "async" else (0, 5))
    settle(api)  # what was given up runs to its end at the server
    totals = api.ledger.totals()
    assert (totals.charged, totals.submitted) == (5, 5 if submit == "async" else 0)
    check_alike(told, BatchRecord(tmp_path / "run"))


DIES = """
import os, signal
from prodia_async.batch import _record
finish = _record.Record._finish_all
def dies(self, connection, ends):
    if any(end.state == 4 for end in ends):
        os.kill(os.getpid(), signal.SIGKILL)
    finish(self, connection, ends)
_record.Record._finish_all = dies
"""


def test_a_kill_before_the_record_has_a_doubt(tmp_path: Path, api: Emulator) -> None:
    """What marks the row stays until the record has it."""
    api.drop_next(1, at="sent")
    wanted = {
        "folder": tmp_path / "run",
        "jobs": 3,
        "batch": {"on_doubt": "hold"},
        "client": {"max_concurrency": 1},
    }
    child = Child(api, {**wanted, "first": DIES})
    assert child.end() == -signal.SIGKILL, child.stderr
    assert [row.row for row in BatchRecord(tmp_path / "run").in_doubt()] == [0]
    held = run(api, wanted)
    assert (held.process.returncode, held.summary()["in_doubt"]) == (1, 1), held.stderr
    assert api.ledger.totals().charged == 3


def test_what_was_in_doubt_and_is_sent_when_the_next_run_is_killed(
    tmp_path: Path, api: Emulator
) -> None:
    """It is one job in doubt, not two, and may have been paid twice."""
    folder = tmp_path / "run"
    wanted = {"folder": folder, "jobs": 4, "client": {"max_concurrency": 4}}
    for times in (1, 2):
        api.hold()
        child = Child(api, wanted)
        while api.busy < 4:
            time.sleep(0.01)
        child.end(signal.SIGKILL)
        api.release()
        settle(api)
        record = BatchRecord(folder)
        found = record.summary()
        assert (found.in_doubt, found.left, found.done) == (4, 0, 0)
        assert found.doubtful_dollars == pytest.approx(4 * times * 0.0025)
        assert [(row.row, row.state) for row in record.rows()] == [
            (n, "in doubt") for n in range(4)
        ]
    last = run(api, wanted)
    assert last.process.returncode == 0, last.stderr
    assert check_all_done(api, folder, 4) == 8
