"""How rows end that nothing is had of: what is paid is told, kept, and never sent in silence."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from conftest import until
from raw_server import (
    JOB_PART,
    OUTPUT_PART,
    PICTURE,
    RawServer,
    http,
    multipart,
    part,
    say,
)
from test_no_output import NOTHING
from test_no_output import run as run_at
from test_troubles import SCHNELL, batch_of, fox, run

from prodia_async import AsyncProdia, Job, JobRequest, RetryPolicy
from prodia_async._polling import RESULT_SECONDS
from prodia_async.batch import BatchError, BatchJob, BatchRecord, _decide, _ends
from prodia_async.batch._ends import Ends
from prodia_async.batch._folder import Marks
from prodia_async.batch._record import Record
from prodia_async.batch._trade import ProdiaTrade, trade_of
from prodia_async.emulator import Emulator
from prodia_async.fireworks import AsyncFireworks, TextToImage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from prodia_async import AttemptDetails
    from prodia_async.batch import Batch, BatchProgress

PRICE = 0.0025
"""Of a job of schnell, by the catalogue."""


@pytest.fixture(name="api")
def _api() -> Iterator[Emulator]:
    with Emulator(workers=4, retry_after=0.05) as emulator:
        yield emulator


def is_full(*_: object, **__: object) -> None:
    raise BatchError("database or disk is full")


# Answers.


@pytest.mark.parametrize("can_be_written", [True, False])
async def test_what_came_whole_of_a_damaged_answer_is_kept(
    tmp_path: Path, can_be_written: bool
) -> None:
    """Of two outputs the second is cut: the first lies in a folder of its own, which is told."""
    whole = multipart(JOB_PART, OUTPUT_PART, part("output", "b.png", "image/png", PICTURE))
    cut = http(body=whole[:-1000], length=len(whole))
    if not can_be_written:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "damaged").write_text("in the way")
    with RawServer([say(cut, charge=True, close=True)]) as server:
        summary = await run_at(server.url, tmp_path / "run", on_doubt="hold")
    assert (summary.done, summary.in_doubt, server.charges) == (0, 1, 1)
    if can_be_written:
        (path,) = (tmp_path / "run" / "damaged").iterdir()
        assert (path.name, path.read_bytes()) == ("00000000-1.png", PICTURE)
    told = f"what came whole of row 0 is in {tmp_path / 'run' / 'damaged'}"
    assert (told in summary.notes) == can_be_written


async def test_a_failure_that_was_paid_costs_what_was_expected(tmp_path: Path) -> None:
    """Where its answer tells of no price, and makes nothing."""
    silent = {"id": "job-1", "state": {"current": "completed"}}
    body = multipart(part("job", "job.json", "application/json", json.dumps(silent).encode()))
    with RawServer([say(http(body=body))]) as server:
        summary = await run_at(server.url, tmp_path / "run")
    assert (summary.failed, summary.dollars) == (1, PRICE)
    assert BatchRecord(tmp_path / "run").summary().dollars == PRICE


async def test_a_row_that_nothing_can_take_is_told_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paid, and in doubt: for this run, and for the next."""
    with RawServer([say(NOTHING)]) as server:
        with monkeypatch.context() as patch:
            error = sqlite3.OperationalError("database or disk is full")
            patch.setattr(Record, "_finish_all", lambda *_: (_ for _ in ()).throw(error))
            patch.setattr(_ends, "keep_aside", lambda *_: patch.undo())  # there is none of it
            summary = await run_at(server.url, tmp_path / "run")
        assert (summary.done, summary.failed, summary.in_doubt) == (0, 0, 1)
        assert (summary.doubtful_dollars, summary.exit_code) == (PRICE, 3)
        assert "row 0 is LOST" in summary.notes
        found = BatchRecord(tmp_path / "run").summary()
        assert (found.in_doubt, found.doubtful_dollars) == (1, PRICE)
        summary = await run_at(server.url, tmp_path / "run", on_doubt="hold")
        assert (summary.in_doubt, len(server.requests)) == (1, 1)


# Ids.


async def test_a_job_that_fails_under_its_id_has_failed(tmp_path: Path, api: Emulator) -> None:
    """And says that the API works."""
    jobs = [fox(1, prompt="[fail]"), fox(2)]
    summary = await run(api, tmp_path / "run", jobs, submit="async")
    assert (summary.done, summary.failed, summary.in_doubt) == (1, 1, 0)
    (row,) = BatchRecord(tmp_path / "run").failures()
    assert "JobFailedError" in str(row.error)
    assert api.ledger.totals().submitted == 2


@pytest.mark.parametrize("is_written", [True, False])
async def test_an_id_of_no_use_is_gone_before_the_job_is_sent_again(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch, is_written: bool
) -> None:
    """Or it would be taken for the next; where the record cannot forget it the run ends."""
    monkeypatch.setattr(_decide, "MOST_DENIALS", 0)
    api.fail_next(1, 404, body="not found", reads=True)
    known: list[Any] = []
    submit, ask = ProdiaTrade.submit, Record.ask

    async def look(self: ProdiaTrade, asked: Any) -> Any:
        connection = sqlite3.connect(tmp_path / "run" / "run.sqlite")
        known.extend(connection.execute("SELECT job_id FROM open").fetchall())
        connection.close()
        return await submit(self, asked)

    async def forgets_nothing(self: Record, work: Any, *, linger: bool = False) -> Any:
        if "go_again_or_end" in work.__qualname__:
            is_full()
        return await ask(self, work, linger=linger)

    monkeypatch.setattr(ProdiaTrade, "submit", look)
    if not is_written:
        monkeypatch.setattr(Record, "ask", forgets_nothing)
    summary = await run(api, tmp_path / "run", [fox(1)], submit="async")
    if is_written:
        assert (summary.done, summary.paid_again, summary.exit_code) == (1, 1, 0)
        assert known == [(None,), (None,)]
        assert api.ledger.totals().submitted == 2
    else:
        assert (summary.done, summary.in_doubt, summary.exit_code) == (0, 1, 3)
        assert api.ledger.totals().submitted == 1
    assert summary.doubtful_dollars == PRICE


async def test_an_id_that_cannot_be_written_ends_the_run(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is with the server; the next run has its id from memory, and collects it."""
    ask = Record.ask

    async def takes_no_id(self: Record, work: Any, *, linger: bool = False) -> Any:
        if "_make" in work.__qualname__:
            is_full()
        return await ask(self, work, linger=linger)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "ask", takes_no_id)
        summary = await run(api, tmp_path / "run", [fox(1)], submit="async")
    assert (summary.done, summary.failed, summary.exit_code) == (0, 0, 3)
    assert "database or disk is full" in str(summary.broken)
    summary = await run(api, tmp_path / "run", [fox(1)], submit="async")
    assert (summary.done, summary.exit_code, api.ledger.totals().submitted) == (1, 0, 1)


async def test_an_id_without_a_time_is_collected_for_as_long_as_is_documented(
    api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that does not say until when its result is kept costs neither the id nor time."""
    async with AsyncProdia("any", base_url=api.base_url) as client:
        trade = ProdiaTrade(client)
        asked = await trade.asked(JobRequest(Job(SCHNELL, {"prompt": "a fox"})))
        submit = client.submit

        async def timeless(*given: Any, **options: Any) -> Any:
            job = await submit(*given, **options)
            assert job.job is not None
            return SimpleNamespace(id=job.id, job=replace(job.job, expires_at=None))

        monkeypatch.setattr(client, "submit", timeless)
        job_id, kept = await trade.submit(asked)
    assert kept == RESULT_SECONDS
    assert job_id


async def test_samples_of_one_order_are_orders_of_their_own() -> None:
    """Of the other API too: its line says which it is, or a later run would take them for one."""
    async with AsyncFireworks("any-key-at-all") as client:
        trade = trade_of(client)
        first, second = [
            await trade.asked(BatchJob(TextToImage("a fox"), sample=sample)) for sample in (0, 2)
        ]
    assert (first.line.get("sample"), second.line["sample"]) == (None, 2)
    assert first.key != second.key


# Ends of a run.


async def test_a_stop_while_the_server_is_busy_gives_rows_back(
    tmp_path: Path, api: Emulator
) -> None:
    """What was refused was never paid: it is left for the next run, and in doubt in none."""
    api.fail_next(1, 429, retry_after=60)
    held: list[Batch] = []

    def hook(details: AttemptDetails) -> None:
        if (details.event, details.number) == ("finished", 1):
            held[0].stop()

    client = {"retry": RetryPolicy(max_capacity_wait=0.1), "hook": hook}
    async with batch_of(api, tmp_path / "run", submit="sync", client=client) as batch:
        held.append(batch)
        summary = await batch.run([fox(1)])
    assert (summary.left, summary.in_doubt, summary.failed) == (1, 0, 0)
    summary = await run(api, tmp_path / "run", [fox(1)], submit="sync")
    assert (summary.done, summary.paid_again, api.ledger.totals().charged) == (1, 0, 1)


async def test_a_run_that_is_cancelled_while_the_server_is_busy(
    tmp_path: Path, api: Emulator
) -> None:
    """Its rows are as if they had never been taken."""
    api.fail_next(100, 429, retry_after=60)
    async with batch_of(api, tmp_path / "run", submit="sync") as batch:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(batch.run, [fox(1)])
                await until(lambda: api.ledger.totals().received == 1)
                await anyio.sleep(0.1)
                scope.cancel()
        assert batch.in_doubt() == []
    api.forget_planned()
    summary = await run(api, tmp_path / "run", [fox(1)], submit="sync", on_doubt="hold")
    assert (summary.done, summary.in_doubt, api.ledger.totals().charged) == (1, 0, 1)


async def test_what_was_in_doubt_and_met_a_busy_server_is_in_doubt(
    tmp_path: Path, api: Emulator
) -> None:
    """Stopped at once while it waits for a worker: the run says of it what the record says."""
    api.drop_next(1, at="sent")
    options: dict[str, Any] = {"submit": "sync", "on_doubt": "hold"}
    assert (await run(api, tmp_path / "run", [fox(1)], **options)).in_doubt == 1
    api.fail_next(100, 429, retry_after=60)
    async with (
        batch_of(api, tmp_path / "run", submit="sync") as batch,
        anyio.create_task_group() as group,
    ):

        async def stop() -> None:
            await until(lambda: api.ledger.totals().received == 2)
            await anyio.sleep(0.1)
            assert batch._run is not None
            batch._run.stop_now("at once")

        group.start_soon(stop)
        summary = await batch.run([fox(1)])
    assert (summary.in_doubt, summary.left, summary.doubtful_dollars) == (1, 0, PRICE)
    assert api.ledger.totals().charged == 1


async def test_a_failure_that_cannot_be_written_ends_the_run(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its mark is not taken to be written."""
    cleared: list[int] = []

    def is_cleared(self: Marks, i: int) -> None:
        cleared.append(i)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "finished", is_full)
        patch.setattr(Marks, "clear", is_cleared)
        jobs = [fox(1, prompt="[fail]"), fox(2)]
        summary = await run(api, tmp_path / "run", jobs, client={"max_concurrency": 1})
    assert (summary.failed, summary.exit_code) == (1, 3)
    assert "database or disk is full" in str(summary.broken)
    assert cleared == [0, 1, 0]  # refused; given back; and with all others, when the folder closes


def test_notes_are_told_once_and_not_without_end() -> None:
    """A million rows of one trouble are no million lines."""
    ends = Ends(cast("Any", SimpleNamespace(counts=SimpleNamespace(notes=[]))))
    for n in range(100):
        ends.note(f"row {n}", most=5)
        ends.note("the same", most=5)
    notes = ends._run.counts.notes
    assert len(notes) == 55
    assert notes.count("the same") == 1


# What all of it comes to.


@pytest.mark.parametrize("end", ["done", "failed", "in_doubt"])
async def test_an_equal_row_whose_first_ends_while_it_is_looked_up(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """It is counted as what the first came to, and nothing is sent for it."""
    held: list[Batch] = []
    ask = Record.ask
    looks = 0

    async def late(self: Record, work: Any, *, linger: bool = False) -> Any:
        nonlocal looks
        found = await ask(self, work, linger=linger)
        if "_admit" in work.__qualname__:
            looks += 1
            if looks == 2:
                api.release()
                run_now = held[0]._run
                assert run_now is not None
                await until(lambda: getattr(run_now.counts, end) == 1)
        return found

    async def jobs() -> AsyncIterator[Any]:
        yield fox(1, prompt="[fail]" if end == "failed" else "a fox")
        await until(lambda: api.ledger.totals().received == 1)
        yield fox(1, prompt="[fail]" if end == "failed" else "a fox")

    api.hold()
    if end == "in_doubt":
        api.drop_next(1, at="sent")
    monkeypatch.setattr(Record, "ask", late)
    async with batch_of(api, tmp_path / "run", submit="sync", on_doubt="hold") as batch:
        held.append(batch)
        summary = await batch.run(jobs())
    assert getattr(summary, end) == (1 if end == "in_doubt" else 2)
    assert (summary.left, summary.duplicates) == (0, 1)
    assert (summary.done, summary.failed) == (2 * (end == "done"), 2 * (end == "failed"))
    assert api.ledger.totals().received == 1


async def test_a_price_that_nobody_knows_further_down(tmp_path: Path, api: Emulator) -> None:
    """What is under way is kept, nothing more is sent, and the summary says what it wants."""

    async def jobs() -> AsyncIterator[Any]:
        yield fox(1)
        await until(lambda: api.ledger.totals().charged == 1)
        yield {"type": "inference.nobody-knows.v1", "config": {"prompt": "a fox"}}

    summary = await run(api, tmp_path / "run", jobs(), max_cost=1.0)
    assert (summary.done, summary.failed, api.ledger.totals().received) == (1, 0, 1)
    assert "nobody knows what a job of inference.nobody-knows.v1 costs" in str(summary.stopped)


async def test_what_is_no_error_comes_out_as_it_is(tmp_path: Path, api: Emulator) -> None:
    """And not in a group, whatever part of a run it was raised in; what was paid is kept."""

    class Ended(BaseException):
        pass

    def show(progress: BatchProgress) -> None:
        if progress.done and not progress.is_last:
            raise Ended

    async def jobs() -> AsyncIterator[Any]:
        yield fox(1)
        await anyio.sleep_forever()

    with pytest.raises(Ended):
        await run(api, tmp_path / "run", jobs(), progress=show)
    found = BatchRecord(tmp_path / "run").summary()
    assert (found.done, api.ledger.totals().charged) == (1, 1)
