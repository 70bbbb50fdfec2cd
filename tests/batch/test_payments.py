"""What is paid, on every path: nothing twice in silence, and every sum as the server has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import until
from test_troubles import batch_of, fox, run

from prodia_async.batch import BatchChangedError, BatchError, BatchJob, BatchRecord
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

PRICE = 0.0025
"""Of a job of schnell, by the catalogue."""


@pytest.fixture(name="api")
def _api() -> Iterator[Emulator]:
    with Emulator(workers=20, retry_after=0.05) as emulator:
        yield emulator


# Two runs in one block.


async def test_a_second_run_in_the_block_knows_what_the_first_left_in_doubt(
    tmp_path: Path, api: Emulator
) -> None:
    """A timeout around ``run``, then ``run`` again, under hold: what was out is in doubt."""
    api.hold()
    jobs = [fox(n) for n in range(5)]
    async with batch_of(api, tmp_path / "run", on_doubt="hold", submit="sync") as batch:
        with anyio.move_on_after(1.0):
            await batch.run(jobs)
        api.release()
        await anyio.sleep(0.5)
        summary = await batch.run([*jobs, fox(5)])
        assert len(batch.in_doubt()) == 5
    assert api.ledger.totals().charged == 6, "paid again without a word, under hold"
    assert (summary.done, summary.in_doubt) == (1, 5)
    assert summary.doubtful_dollars == pytest.approx(5 * PRICE)
    assert BatchRecord(tmp_path / "run").summary().doubtful_dollars == pytest.approx(5 * PRICE)


async def test_a_second_run_in_the_block_collects_what_the_first_submitted(
    tmp_path: Path, api: Emulator
) -> None:
    """By their ids: none is thrown away, and none is paid again."""
    api.hold()
    jobs = [fox(n) for n in range(5)]
    async with batch_of(api, tmp_path / "run", submit="async") as batch:
        with anyio.move_on_after(1.5):
            await batch.run(jobs)
        assert api.ledger.totals().submitted == 5
        api.release()
        summary = await batch.run(jobs)
    assert summary.done == 5
    assert api.ledger.totals().submitted == 5, "ids were thrown away, and paid again"


async def test_an_equal_row_is_not_sent_when_the_first_is_left_with_the_server(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id cannot be asked about for a while, and a row that is equal to it comes then."""
    monkeypatch.setattr("prodia_async.batch._ends.ASK_AGAIN_SECONDS", ())
    api.fail_next(1000, 400, body="no", reads=True)
    is_left = anyio.Event()

    def left() -> bool:
        assert batch._run is not None
        return any("is left with the server" in note for note in batch._run.summary().notes)

    async def jobs() -> AsyncIterator[Any]:
        yield fox(1)
        await until(left, 30)
        yield BatchJob(fox(1), id="equal")
        is_left.set()

    async with batch_of(api, tmp_path / "run", submit="async") as batch:
        summary = await batch.run(jobs())
        assert is_left.is_set()
        assert (summary.done, summary.left, api.ledger.totals().submitted) == (0, 2, 1)
        api.forget_planned()
        summary = await batch.run([fox(1), BatchJob(fox(1), id="equal")])
    assert api.ledger.totals().submitted == 1, "paid again, though its id is known"
    assert summary.done == 2


async def test_a_second_run_that_is_refused_takes_nothing_of_the_first(
    tmp_path: Path, api: Emulator
) -> None:
    """The session of the block stays in the record, with what it did."""
    jobs = [fox(n) for n in range(40)]
    async with batch_of(api, tmp_path / "run") as batch:
        await batch.run(jobs)
        with pytest.raises(BatchChangedError):
            await batch.run([fox(n, steps=2) for n in range(40)])
    assert BatchRecord(tmp_path / "run").summary().seconds > 0
    assert (await run(api, tmp_path / "run", jobs)).done_before == 40


async def test_no_run_begins_in_a_block_whose_folder_cannot_be_written(
    tmp_path: Path, api: Emulator
) -> None:
    """What is in reserve is taken in by the next block; a run in this one would pay it again."""
    jobs = [fox(n) for n in range(5)]
    async with batch_of(api, tmp_path / "run") as batch:
        await batch.run(jobs[:1])
        assert batch._run is not None
        batch._run.ends.break_off(OSError("no space"))
        with pytest.raises(BatchError, match="enter another Batch"):
            await batch.run(jobs)
    assert api.ledger.totals().charged == 1
