"""What an API does to a batch, and what a batch makes of its input, over sockets."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import tarfile
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import on_both_loops, until
from PIL import Image

from prodia_async import (
    JPEG,
    AsyncProdia,
    InvalidRequestError,
    Job,
    JobRequest,
    Output,
    RetryPolicy,
)
from prodia_async._keys import content_key, digest_bytes
from prodia_async.batch import (
    Batch,
    BatchChangedError,
    BatchJob,
    BatchProgress,
    BatchRecord,
    PriceUnknownError,
    grid,
    read_jobs,
)
from prodia_async.batch._decide import DOUBTS
from prodia_async.batch._ends import Ends
from prodia_async.batch._folder import marks_of
from prodia_async.batch._record import Record
from prodia_async.batch._trade import IN_MEMORY, ProdiaTrade, trade_of
from prodia_async.emulator import Emulator
from prodia_async.fireworks import (
    AsyncFireworks,
    CannyEdgeDetection,
    ControlNet,
    ImageToImage,
    Kontext,
    QRCode,
    TextToImage,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from prodia_async import AttemptDetails
    from prodia_async.batch import BatchSummary

SCHNELL = "inference.flux-fast.schnell.txt2img.v2"
OTHER = "inference.flux-2.klein.4b.txt2img.v1"
SMALL = {"width": 256, "height": 256}
QUICK = RetryPolicy(backoff_initial=0.01, backoff_max=0.02)


def fox(seed: int, **config: Any) -> dict[str, Any]:
    return {"type": SCHNELL, "config": {"prompt": "a fox", "seed": seed, **SMALL, **config}}


@asynccontextmanager
async def batch_of(
    emulator: Emulator, folder: Path, *, client: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Batch]:
    given = {"base_url": emulator.base_url, "retry": QUICK, **(client or {})}
    async with AsyncProdia("any", **given) as made:
        settings = {"progress": False, "signals": False, **options}
        async with Batch(folder, made, **settings) as batch:
            yield batch


async def run(emulator: Emulator, folder: Path, jobs: Any, **options: Any) -> BatchSummary:
    async with batch_of(emulator, folder, **options) as batch:
        return await batch.run(jobs)


@pytest.fixture(name="api")
def _api() -> Iterator[Emulator]:
    with Emulator(workers=20, retry_after=0.05) as emulator:
        yield emulator


# A dead API.


async def test_a_dead_api_does_not_burn_the_list(tmp_path: Path, api: Emulator) -> None:
    """Promise 6: every request is a 500 for some seconds; then all rows are done, none failed."""
    api.fail_next(100_000, 500)
    seen: list[BatchProgress] = []

    async with (
        batch_of(api, tmp_path / "run", progress=seen.append) as batch,
        anyio.create_task_group() as group,
    ):
        summary: BatchSummary | None = None

        async def work() -> None:
            nonlocal summary
            summary = await batch.run(fox(n) for n in range(200))

        group.start_soon(work)
        await anyio.sleep(2.5)
        asked = api.ledger.totals().received
        await anyio.sleep(1.0)
        assert api.ledger.totals().received - asked < 20, "it goes on asking a dead API"
        api.forget_planned()
    assert summary is not None
    assert (summary.done, summary.failed, summary.in_doubt) == (200, 0, 0), summary
    assert api.ledger.totals().charged == 200


BROKEN: dict[str, dict[str, Any]] = {
    "a portal": {"status": 200, "body": "<html>log in</html>", "content_type": "text/html"},
    "a way to it": {"status": 302, "body": ""},
    "no money": {"status": 402, "body": "insufficient funds"},
}


@pytest.mark.parametrize("how", ["cut off", *BROKEN])
async def test_answers_that_say_nothing_of_a_row_do_not_burn_the_list(
    tmp_path: Path, api: Emulator, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A few are paid for nothing; live line and log say why; then all others are done."""
    seen: list[BatchProgress] = []
    options: dict[str, Any] = {"progress": seen.append, "client": {"max_concurrency": 4}}
    summary: BatchSummary | None = None

    async def rows() -> AsyncIterator[Any]:
        for n in range(100):
            if n == 10:
                await until(lambda: api.ledger.totals().charged == 10)
                if how == "cut off":
                    api.truncate_next(100_000, framing="chunked")
                else:
                    api.fail_next(100_000, **BROKEN[how])
            yield fox(n)

    async with (
        batch_of(api, tmp_path / "run", **options) as batch,
        anyio.create_task_group() as group,
    ):

        async def work() -> None:
            nonlocal summary
            summary = await batch.run(rows())

        group.start_soon(work)
        await anyio.sleep(2.5)
        assert api.ledger.totals().received <= 10 + DOUBTS + 4 + 2
        assert "asked whether it is back" in str(seen[-1].waiting_for)
        assert "nothing new is sent" in caplog.text
        assert "the batch goes on" not in caplog.text
        api.forget_planned()
    assert summary is not None
    assert summary.failed == 0
    assert summary.in_doubt <= (0 if how == "no money" else 4), summary
    assert summary.done + summary.in_doubt == 100
    assert "the batch goes on" in caplog.text
    assert api.ledger.totals().charged <= 100 + (DOUBTS + 4 + 2 if how == "cut off" else 0)


async def test_rows_that_wait_for_a_worker_are_called_back(tmp_path: Path) -> None:
    """A hundred are under way, four with the server, and answers are lost: few are paid for."""
    with Emulator(workers=4, latency=0.02, retry_after=0.05) as api:
        async with (
            batch_of(api, tmp_path / "run", client={"max_concurrency": 100}) as batch,
            anyio.create_task_group() as group,
        ):
            api.truncate_next(100_000, framing="chunked")
            group.start_soon(batch.run, [fox(n) for n in range(300)])
            await anyio.sleep(3.0)
            assert DOUBTS <= api.ledger.totals().charged <= DOUBTS + 2 * 4 + 2
            api.forget_planned()
        summary = BatchRecord(tmp_path / "run").summary()
        assert (summary.failed, summary.left) == (0, 0)
        assert summary.done >= 295
        assert api.ledger.totals().charged <= 300 + DOUBTS + 2 * 4 + 2


async def test_a_stop_while_the_api_is_down_says_that_it_was(tmp_path: Path, api: Emulator) -> None:
    """Also to whoever did not look at the live line."""
    api.truncate_next(100_000, framing="chunked")
    async with batch_of(api, tmp_path / "run") as batch, anyio.create_task_group() as group:

        async def stop() -> None:
            await until(lambda: batch._run is not None and batch._run.outage.since is not None)
            batch.stop()

        group.start_soon(stop)
        summary = await batch.run([fox(n) for n in range(20)])
    (note,) = (each for each in summary.notes if each.startswith("the API was down when it ended"))
    assert "TruncatedResponseError" in note


@pytest.mark.parametrize("how", ["address", "money"])
@pytest.mark.parametrize("count", [2, 200])
async def test_what_wants_a_person_consumes_no_row(
    tmp_path: Path, api: Emulator, how: str, count: int
) -> None:
    """A wrong address, no money from the start: it stops and says what to do, and goes on then."""
    client: dict[str, Any] = {"max_concurrency": 4}
    if how == "address":
        client["base_url"] = f"{api.base_url}/wrong"
    else:
        api.fail_next(100_000, 402, body="insufficient funds")
    jobs = [fox(n) for n in range(count)]
    summary = await run(api, tmp_path / "run", jobs, client=client)
    assert (summary.failed, summary.in_doubt, summary.exit_code) == (0, 0, 2), summary
    wanted = "here (JobNotFoundError: 404" if how == "address" else "payment (APIStatusError: 402"
    assert wanted in str(summary.stopped)
    assert api.ledger.totals().received <= 12
    api.forget_planned()
    assert (await run(api, tmp_path / "run", jobs)).done == count
    assert api.ledger.totals().charged == count


async def test_rows_at_fault_hold_nobody_up(tmp_path: Path, api: Emulator) -> None:
    """Every second is refused for its own sake, and then all: no wait, and no question."""
    seen: list[BatchProgress] = []
    jobs = [fox(n, steps=4 if n % 2 else 99) for n in range(60)]
    options: dict[str, Any] = {"progress": seen.append, "client": {"max_concurrency": 4}}
    with anyio.fail_after(15):
        summary = await run(api, tmp_path / "mixed", jobs, **options)
        assert (summary.done, summary.failed) == (30, 30), summary
        summary = await run(api, tmp_path / "bad", jobs[::2], **options)
    assert (summary.done, summary.failed, summary.exit_code) == (0, 30, 1), summary
    assert not any(each.waiting_for for each in seen)


async def test_jobs_left_with_a_server_that_shows_none_do_not_burn_the_list(
    tmp_path: Path, api: Emulator
) -> None:
    """Submitted and paid, and nobody tells what became of them: no more are, meanwhile."""
    api.fail_next(100_000, 200, body="<html>log in</html>", content_type="text/html", reads=True)
    options: dict[str, Any] = {"submit": "async", "client": {"max_concurrency": 4}}
    async with (
        batch_of(api, tmp_path / "run", **options) as batch,
        anyio.create_task_group() as group,
    ):
        group.start_soon(batch.run, [fox(n) for n in range(60)])
        await anyio.sleep(3.0)
        submitted = api.ledger.totals().submitted
        api.forget_planned()
        assert 4 <= submitted <= 5 + 4 + 2
    assert api.ledger.totals().submitted == 60
    assert BatchRecord(tmp_path / "run").summary().done == 60


async def test_a_probe_that_is_told_to_wait_is_not_the_last(tmp_path: Path, api: Emulator) -> None:
    """A dead API that comes back busy: whoever asked is put off, and another asks after it."""
    api.fail_next(100_000, 500)
    retry = replace(QUICK, max_retry_after=0.1)
    options: dict[str, Any] = {"client": {"max_concurrency": 2, "retry": retry}}
    async with (
        batch_of(api, tmp_path / "run", **options) as batch,
        anyio.create_task_group() as group,
    ):

        async def revive() -> None:
            await anyio.sleep(3.0)
            api.forget_planned()
            api.fail_next(1, 429, retry_after=0.5)

        group.start_soon(revive)
        with anyio.fail_after(30):
            summary = await batch.run(fox(n) for n in range(6))
    assert (summary.done, summary.failed, summary.in_doubt) == (6, 0, 0), summary


async def test_a_refused_credential_ends_the_run(tmp_path: Path) -> None:
    """Rows are not consumed: a person must act, and the next run has all of them."""
    with Emulator(tokens=["good"]) as api:
        summary = await run(api, tmp_path / "run", (fox(n) for n in range(500)))
        assert summary.exit_code == 2
        assert "credential is refused" in str(summary.stopped)
        assert (summary.done, summary.failed) == (0, 0)
        assert api.ledger.totals().received < 200
        async with AsyncProdia("good", base_url=api.base_url) as client:
            async with Batch(tmp_path / "run", client, progress=False) as batch:
                assert (await batch.run(fox(n) for n in range(30))).done == 30


async def test_one_type_that_always_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows fail for themselves, since others succeed; the exit status says that some did."""
    monkeypatch.setattr("prodia_async.batch._decide.TAIL_SECONDS", 1.0)
    client = {"retry": replace(QUICK, max_capacity_wait=1.0)}

    def latency(job_type: str) -> float:
        if job_type == OTHER:
            raise RuntimeError("this type is broken")
        return 0.01

    with Emulator(workers=10, latency=latency) as api:
        jobs = [
            {"type": OTHER, "config": {"prompt": "x", "seed": n}} if n % 10 == 5 else fox(n)
            for n in range(60)
        ]
        summary = await run(api, tmp_path / "run", jobs, client=client)
        # One that is called back between two attempts is in doubt: the first may have been paid.
        assert (summary.done, summary.failed + summary.in_doubt) == (54, 6), summary
        assert summary.exit_code == 1
        failures = list(BatchRecord(tmp_path / "run").failures())
        assert {row.row % 10 for row in failures} == {5}
        assert {str(row.error).partition(":")[0] for row in failures} == {"ServerError"}
        again = await run(api, tmp_path / "run", jobs, client=client)
        assert (again.done, again.failed + again.in_doubt) == (54, 6)
        assert api.ledger.totals().succeeded == 54


async def test_rows_at_fault_that_follow_each_other_stop_nobody(tmp_path: Path) -> None:
    """Nobody can tell them from a dead API but rows that were never sent: those ask first."""

    def latency(job_type: str) -> float:
        if job_type == OTHER:
            raise RuntimeError("this type is broken")
        return 0.01

    async def jobs() -> AsyncIterator[Any]:
        for n in range(4):
            yield {"type": OTHER, "config": {"prompt": "x", "seed": n}}
        for n in range(30):
            yield fox(n)

    with Emulator(workers=10, latency=latency) as api, anyio.fail_after(40):
        summary = await run(api, tmp_path / "run", jobs(), client={"max_concurrency": 2})
    assert (summary.done, summary.failed + summary.in_doubt) == (30, 4), summary


async def test_one_job_that_fails_alone_is_a_failure(tmp_path: Path, api: Emulator) -> None:
    """With nobody beside it that succeeds, its end is the end of the run."""
    api.fail_next(4, 502)
    summary = await run(api, tmp_path / "run", [fox(1)])
    assert (summary.done, summary.failed, summary.exit_code) == (0, 1, 1)
    summary = await run(api, tmp_path / "run", [fox(1)], retry_failed=True)
    assert (summary.done, summary.failed, summary.exit_code) == (1, 0, 0)


async def test_a_long_retry_after_is_waited_out(tmp_path: Path, api: Emulator) -> None:
    """A row that is told to come again later does, and has not failed."""
    api.fail_next(1, 429, retry_after=1.0)
    retry = RetryPolicy(max_retry_after=0.5)
    began = time.monotonic()
    summary = await run(api, tmp_path / "run", [fox(1)], client={"retry": retry})
    assert (summary.done, summary.failed) == (1, 0)
    assert 1.0 <= time.monotonic() - began < 8


# What may have been paid.


@pytest.mark.parametrize("on_doubt", ["retry", "hold"])
async def test_an_answer_that_was_lost(tmp_path: Path, api: Emulator, on_doubt: Any) -> None:
    """It is charged and nobody has it: once more, and counted, or left for a person."""
    api.drop_next(3, at="sent")
    folder = tmp_path / "run"
    summary = await run(api, folder, [fox(n) for n in range(20)], on_doubt=on_doubt)
    if on_doubt == "retry":
        assert (summary.done, summary.in_doubt, summary.paid_again) == (20, 0, 3)
        assert summary.exit_code == 0
        assert api.ledger.totals().charged == 23
    else:
        assert (summary.done, summary.in_doubt, summary.paid_again) == (17, 3, 0)
        assert summary.exit_code == 1
        assert api.ledger.totals().charged == 20
        assert len(list(BatchRecord(folder).in_doubt())) == 3
    assert summary.doubtful_dollars == pytest.approx(3 * 0.0025)
    assert BatchRecord(folder).summary().doubtful_dollars == pytest.approx(3 * 0.0025)


async def test_an_answer_that_is_lost_twice_is_left_for_a_person(tmp_path: Path) -> None:
    """Paying again has an end: once in each run."""
    with Emulator(workers=1) as api:
        api.drop_next(2, at="sent")
        summary = await run(api, tmp_path / "run", [fox(1)])
        assert (summary.done, summary.in_doubt) == (0, 1)
        assert api.ledger.totals().charged == 2


async def test_a_damaged_answer_keeps_what_came_whole(tmp_path: Path, api: Emulator) -> None:
    """It was paid: it is sent once more, and what the first one brought is not thrown away."""
    api.drop_next(1, at=0.5)
    summary = await run(api, tmp_path / "run", [fox(1)])
    assert (summary.done, summary.paid_again) == (1, 1)


# Async.


async def test_a_type_that_does_not_permit_async(tmp_path: Path) -> None:
    """It falls back, says so once, remembers it, and a bad job is still a bad job."""
    with Emulator(sync_only_types=[SCHNELL]) as api:
        folder = tmp_path / "run"
        jobs = [fox(n) for n in range(20)]
        summary = await run(api, folder, [*jobs, fox(1, steps=99)], submit="async")
        assert (summary.done, summary.failed) == (20, 1)
        assert [note for note in summary.notes if "does not permit async" in note]
        how = BatchRecord(folder).setting("submit")
        assert how[SCHNELL].startswith("sync: the server refuses it as async")
        tried = api.ledger.totals().received
        await run(api, folder, [fox(n) for n in range(20, 40)], submit="async", also=True)
        assert api.ledger.totals().received == tried + 20


async def test_async_jobs_by_the_catalogue(tmp_path: Path, api: Emulator) -> None:
    """``auto`` says why, in the record."""
    await run(api, tmp_path / "run", [fox(1)], submit="auto")
    assert BatchRecord(tmp_path / "run").setting("submit")[SCHNELL].startswith("sync: ")


# Money.


async def test_the_limit_counts_what_is_in_flight(tmp_path: Path, api: Emulator) -> None:
    """Promise 5: eight slots are free, and no job is sent that could go beyond it."""
    api.latency = 0.1
    folder = tmp_path / "run"
    summary = await run(api, folder, (fox(n) for n in range(50)), max_cost=0.0125)
    assert (summary.done, summary.exit_code) == (5, 2)
    assert "max_cost" in str(summary.stopped)
    assert api.ledger.totals().dollars == pytest.approx(0.0125)
    more = await run(api, folder, (fox(n) for n in range(50)), max_cost=0.02)
    assert (more.done, more.done_before) == (8, 5)
    assert api.ledger.totals().dollars == pytest.approx(0.02)


async def test_doubts_count_towards_the_limit(tmp_path: Path, api: Emulator) -> None:
    """What may have been paid is taken to be."""
    api.drop_next(4, at="sent")
    folder = tmp_path / "run"
    jobs = [fox(n) for n in range(10)]
    first = await run(api, folder, jobs, max_cost=0.0125, on_doubt="hold")
    assert first.done + first.in_doubt == 5
    assert api.ledger.totals().dollars == pytest.approx(0.0125)


async def test_a_price_that_nobody_knows(tmp_path: Path, api: Emulator) -> None:
    """Is a question before anything is sent; the answer to it is taken."""
    job = {"type": "inference.brand-new.v1", "config": {}}
    with pytest.raises(PriceUnknownError, match="price="):
        await run(api, tmp_path / "run", [job], max_cost=1.0)
    assert api.ledger.totals().received == 0
    summary = await run(api, tmp_path / "run", [job], max_cost=0.1, price=0.2)
    assert "max_cost" in str(summary.stopped)
    assert api.ledger.totals().received == 0


# The input.


async def test_an_input_that_changed(tmp_path: Path, api: Emulator) -> None:
    """Rows inserted, sorted, edited and moved: only what is new is paid."""
    path = tmp_path / "foxes.txt"
    foxes = [f"fox {n}" for n in range(12)]
    path.write_text("\n".join(foxes), encoding="utf-8")
    options: dict[str, Any] = {"job_type": SCHNELL, "config": {**SMALL, "seed": 3}}
    first = await run(api, tmp_path / "run", read_jobs(path, **options))
    assert (first.done, first.done_before) == (12, 0)
    foxes = [*reversed(foxes[1:]), "a new fox", "another"]
    moved = path.rename(tmp_path / "other.txt")
    moved.write_text("\n".join(foxes), encoding="utf-8")
    second = await run(api, tmp_path / "run", read_jobs(moved, **options))
    assert (second.done, second.done_before) == (13, 11)
    assert api.ledger.totals().charged == 14
    record = BatchRecord(tmp_path / "run")
    assert record.summary().done == 14
    assert len({row.row for row in record.rows()}) == 14


async def test_rows_that_were_inserted_make_no_duplicates(tmp_path: Path, api: Emulator) -> None:
    """Nor do those below them: the manifest has the lines that the input has."""
    await run(api, tmp_path / "run", [fox(n) for n in range(80)])
    jobs = [fox(100 + n) for n in range(3)] + [fox(n) for n in range(80)]
    summary = await run(api, tmp_path / "run", jobs)
    assert (summary.done, summary.done_before, summary.duplicates) == (83, 80, 0)
    record = BatchRecord(tmp_path / "run")
    assert (record.summary().done, record.summary().duplicates) == (83, 0)
    assert record.export(tmp_path / "manifest.jsonl") == 83
    # One that is in the input twice is one, in another piece of it too, and only once.
    for _ in range(2):
        await run(api, tmp_path / "run", [*jobs, fox(5)])
        assert (record.summary().done, record.summary().duplicates) == (84, 1)
    assert api.ledger.totals().charged == 83


async def test_the_order_of_a_half_done_list_changes_nothing(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first hundred are done; it is turned round, so that none of the first is known."""
    jobs = [fox(n) for n in range(400)]
    await run(api, tmp_path / "run", jobs[:100])
    async with batch_of(api, tmp_path / "run") as batch:
        assert (await batch.plan(jobs[::-1])).differences == ()
        summary = await batch.run(jobs[::-1])
    assert (summary.done, summary.done_before) == (400, 100)
    assert api.ledger.totals().charged == 400
    others = [fox(1000 + n, steps=2) for n in range(300)]
    for most in (1000, 100):  # all of them are looked at, or the first alone
        monkeypatch.setattr("prodia_async.batch._run.MOST_FIRST_ROWS", most)
        with pytest.raises(BatchChangedError, match="steps was None and is 2"):
            await run(api, tmp_path / "run", [*others, *(jobs if most == 100 else ())])
    assert api.ledger.totals().charged == 400


@pytest.mark.parametrize("way", ["sync", "async", "fireworks"])
async def test_a_file_that_is_replaced_during_the_run_is_not_sent_as_what_it_was(
    tmp_path: Path, api: Emulator, way: str
) -> None:
    """Nothing is sent, and the next run knows it as what it is now."""
    path = tmp_path / "a.png"

    def draw(color: str) -> None:
        Image.new("RGB", (1024, 1024), color).save(path, "PNG")

    def rows() -> list[Any]:
        draw("red")
        if way == "fireworks":
            return [ImageToImage("x", path, image_strength=0.5, seed=n) for n in range(3)]
        job = "inference.flux-2.klein.4b.img2img.v1"
        return [JobRequest(Job(job, {"prompt": "x", "seed": n}), (path,)) for n in range(3)]

    client = (
        AsyncFireworks("any", base_url=api.fireworks_url, max_concurrency=1)
        if way == "fireworks"
        else AsyncProdia("any", base_url=api.base_url, max_concurrency=1)
    )
    settings: dict[str, Any] = {"progress": False, "signals": False, "also": True}
    settings["submit"] = "async" if way == "async" else "sync"

    async def replace_it() -> None:
        await until(lambda: api.busy == 1)
        draw("blue")
        api.release()

    api.hold()
    async with client, Batch(tmp_path / "run", client, **settings) as batch:
        async with anyio.create_task_group() as group:
            group.start_soon(replace_it)
            summary = await batch.run(rows())
        assert (summary.done, summary.failed, summary.in_doubt) == (1, 2, 0), summary
        assert api.ledger.totals().charged == 1
        failures = [str(row.error) for row in batch.record.failures()]
        assert all("changed after the batch had looked at it" in each for each in failures)
        rows_now = rows()[:2]
        draw("blue")
        assert (await batch.run(rows_now)).done == 2
        assert api.ledger.totals().charged == 3


async def test_equal_rows_run_once_and_share(tmp_path: Path, api: Emulator) -> None:
    """Each keeps its own name in the manifest; ``sample`` asks for more of the same."""
    api.latency = 0.05
    jobs = [
        BatchJob(fox(1), id="first"),
        *(BatchJob(fox(1), id=f"same-{n}") for n in range(300)),
        BatchJob(fox(1), id="one-more", sample=1),
        BatchJob(fox(2), id="other"),
    ]
    for done_before in (0, 3):
        summary = await run(api, tmp_path / "run", jobs)
        assert summary.done == 303, summary
        assert summary.done_before in {done_before, 303}
        assert api.ledger.totals().charged == 3
    rows = list(BatchRecord(tmp_path / "run").rows())
    assert [row.id for row in rows] == [job.id for job in jobs]
    assert {row.path for row in rows[:301]} == {rows[0].path}
    assert len({row.path for row in rows}) == 3
    assert [row.state for row in rows].count("duplicate") == 300


async def test_what_changed_is_never_silent(tmp_path: Path, api: Emulator) -> None:
    """Promise 8: another setting, format, layout or API is told, and nothing is sent."""
    folder = tmp_path / "run"
    await run(api, folder, grid(fox(0), seed=range(5)))
    with pytest.raises(BatchChangedError, match="Nothing was sent") as caught:
        await run(api, folder, grid(fox(0, steps=2), seed=range(5)))
    assert caught.value.differences == ("config.steps was None and is 2",)
    with pytest.raises(BatchChangedError) as caught:
        await run(api, folder, [JobRequest(fox(n), accept="image/png") for n in range(5)])
    assert caught.value.differences == ("accept was None and is 'image/png'",)

    async def one_by_one() -> AsyncIterator[Any]:
        yield {"type": ""}  # which says nothing of the others
        for n in range(1, 5):
            yield fox(n, steps=3)

    with pytest.raises(BatchChangedError, match="steps was None and is 3"):
        await run(api, folder, one_by_one())
    with pytest.raises(BatchChangedError, match="layout was 'files' and is 'tar'"):
        await run(api, folder, [], layout="tar")
    async with AsyncFireworks("any", base_url=api.fireworks_url) as client:
        with pytest.raises(BatchChangedError, match="api was 'prodia'"):
            async with Batch(folder, client, progress=False):
                pass
    assert api.ledger.totals().charged == 5
    assert BatchRecord(folder).summary().stopped is None
    both = await run(api, folder, grid(fox(0, steps=2), seed=range(5)), also=True)
    assert (both.done, api.ledger.totals().charged) == (5, 10)


async def test_bad_jobs_fail_alone(tmp_path: Path, api: Emulator) -> None:
    """What is no job, what has no file, what the server refuses: the others are done."""
    jobs: list[Any] = [
        fox(1), {"typ": "x"}, 3, JobRequest(fox(2), inputs=[tmp_path / "missing.jpg"]),
        Job(SCHNELL, {"prompt": "a", "steps": 1000}), BatchJob({"type": ""}), fox(3),
    ]  # fmt: skip
    summary = await run(api, tmp_path / "run", jobs)
    assert (summary.done, summary.failed) == (2, 5), summary
    again = await run(api, tmp_path / "run", jobs)
    assert (again.done, again.failed, again.done_before) == (2, 5, 2)
    with pytest.raises(InvalidRequestError, match="a batch takes an iterable of jobs"):
        await run(api, tmp_path / "run", fox(1))


@pytest.mark.parametrize("mended", ['{"prompt": "a"}\n{"prompt": "b"}\n', '{"prompt": "a"}\n'])
async def test_a_bad_row_that_was_taken_out_is_forgotten(
    tmp_path: Path, api: Emulator, mended: str
) -> None:
    """Once the input was read to its end and taken in, and not where several make one folder."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\nno json\n{"prompt": "b"}\n[1]\n', encoding="utf-8")
    jobs = read_jobs(path, job_type=SCHNELL, config=SMALL)
    for _ in range(2):
        assert (await run(api, tmp_path / "run", jobs)).failed == 2
    record = BatchRecord(tmp_path / "run")
    path.write_text(mended, encoding="utf-8")
    assert (await run(api, tmp_path / "run", jobs, also=True)).failed == 0
    async with batch_of(api, tmp_path / "run") as batch:

        def ends(error: Exception | None) -> Iterator[Any]:
            yield next(iter(jobs))
            if error is not None:
                raise error
            batch.stop()

        with pytest.raises(ValueError, match="mine"):
            await batch.run(ends(ValueError("mine")))
        assert (await batch.run(ends(None))).stopped
    assert record.summary().failed == 2
    assert (await run(api, tmp_path / "run", jobs)).exit_code == 0
    assert (record.summary().failed, list(record.failures())) == (0, [])
    assert api.ledger.totals().charged == 2


async def test_an_input_that_raises(tmp_path: Path) -> None:
    """What is in flight is paid for, so it is finished; then the input's own error comes out."""

    async def jobs() -> AsyncIterator[Any]:
        for n in range(4):
            yield fox(n)
        await until(lambda: api.busy == 4)
        raise ValueError("the list is broken")

    with Emulator(workers=4, latency=0.2) as api:
        with pytest.raises(ValueError, match="the list is broken"):
            await run(api, tmp_path / "run", jobs())
        total = BatchRecord(tmp_path / "run").summary()
        assert (total.done, total.in_doubt) == (4, 0), total
        assert (await run(api, tmp_path / "run", [fox(n) for n in range(6)])).done == 6
        assert api.ledger.totals().charged == 6


@on_both_loops
async def test_on_every_loop_from_every_source(tmp_path: Path) -> None:
    """A list, an async generator; asyncio and trio; a job that makes no output."""

    async def source() -> AsyncIterator[Any]:
        for n in range(10):
            yield fox(n)

    with Emulator() as api:
        summary = await run(api, tmp_path / "run", source())
        assert (summary.done, summary.exit_code) == (10, 0)
        ping = {"type": "inference.ping.v1"}
        summary = await run(api, tmp_path / "run", [*(fox(n) for n in range(10)), ping])
        assert (summary.done, summary.done_before) == (11, 10)
        assert api.ledger.totals().ran == 11


async def test_a_stop_by_the_program(tmp_path: Path, api: Emulator) -> None:
    """``stop()`` is one signal: what is with the server is finished, the rest is left."""
    api.latency = 0.1
    async with batch_of(api, tmp_path / "run", client={"max_concurrency": 5}) as batch:

        def endless() -> Iterator[Any]:
            for n in range(10_000):
                if n == 100:
                    batch.stop()
                yield fox(n)

        summary = await batch.run(endless())
    assert summary.exit_code == 2
    assert summary.in_doubt == 0
    assert api.ledger.totals().charged == summary.done


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("rows", [5, 8])
async def test_a_stop_with_nothing_left_is_none(
    tmp_path: Path, api: Emulator, is_listed: bool, rows: int
) -> None:
    """Of a list it is known that it has no more; of another iterable once somebody asked it."""
    api.hold()
    slots = 5 if is_listed else 6
    async with batch_of(api, tmp_path / "run", client={"max_concurrency": slots}) as batch:

        async def stop() -> None:
            await until(lambda: api.busy == min(rows, slots))
            batch.stop()
            api.release()

        async with anyio.create_task_group() as group:
            group.start_soon(stop)
            jobs = [fox(n) for n in range(rows)]
            summary = await batch.run(jobs if is_listed else iter(jobs))
    left = max(0, rows - slots)
    assert (summary.done, summary.left) == (rows - left, left)
    assert (summary.stopped is None, summary.exit_code) == ((False, 2) if left else (True, 0))
    record = BatchRecord(tmp_path / "run").summary()
    assert (record.stopped, record.exit_code) == (summary.stopped, summary.exit_code)


@pytest.mark.parametrize("submit", ["sync", "async"])
async def test_a_stop_that_leaves_jobs_behind_is_told(
    tmp_path: Path, api: Emulator, submit: str
) -> None:
    """Nothing of the input is left, but jobs are: in doubt, or with the server under their ids."""
    api.hold()
    options: dict[str, Any] = {"submit": submit, "client": {"max_concurrency": 5}}
    async with batch_of(api, tmp_path / "run", **options) as batch:

        async def stop() -> None:
            await until(lambda: api.busy == 5)
            if submit == "sync":
                assert batch._run is not None
                batch._run.stop_now("twice")
            else:
                await until(lambda: all(row.job_id for row in batch._run.in_flight))  # type: ignore[union-attr]
                api.fail_next(10_000, 400, body="no", reads=True)
                batch.stop()
            api.release()

        async with anyio.create_task_group() as group:
            group.start_soon(stop)
            summary = await batch.run([fox(n) for n in range(5)])
    assert (summary.done, summary.in_doubt, summary.left) == (
        (0, 5, 0) if submit == "sync" else (0, 0, 5)
    )
    assert (summary.stopped is not None, summary.exit_code) == (True, 2)


async def test_as_many_tasks_as_rows_not_as_slots(tmp_path: Path, api: Emulator) -> None:
    """However many may be in flight, few are if the input is short or slow."""
    api.latency = 1.0
    most = 0

    def show(_: BatchProgress) -> None:
        nonlocal most
        most = max(most, len(asyncio.all_tasks()))

    jobs = [fox(n) for n in range(30)]
    client = {"max_concurrency": 20_000}
    summary = await run(api, tmp_path / "run", jobs, progress=show, client=client)
    assert summary.done == 30
    assert 30 <= most < 200


async def test_a_progress_function_that_raises_takes_nothing(
    tmp_path: Path, api: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """At once or at the end, its error is logged once, and the summary comes all the same."""
    for last in (False, True):

        def show(progress: BatchProgress, last: bool = last) -> None:
            if progress.is_last or not last:
                raise RuntimeError("my own")

        caplog.clear()
        summary = await run(api, tmp_path / f"run-{last}", [fox(1)], progress=show)
        assert summary.done == 1
        assert caplog.text.count("the progress is shown no more: my own") == 1


async def test_the_last_progress_says_why_it_ended(tmp_path: Path, api: Emulator) -> None:
    """Nothing that could still be done about it, such as a second signal."""
    seen: list[BatchProgress] = []
    async with batch_of(api, tmp_path / "run", progress=seen.append) as batch:

        def source() -> Iterator[Any]:
            yield fox(1)
            assert batch._run is not None
            batch._run.stop("SIGINT")
            yield fox(2)

        await batch.run(source())
        assert seen[-1].waiting_for == "stopped: SIGINT"
        await batch.run([fox(1)])
    assert seen[-1].is_last
    assert seen[-1].waiting_for is None


async def test_a_caller_that_leaves(tmp_path: Path, api: Emulator) -> None:
    """A cancelled run keeps what is done, and what was with the server is in doubt."""
    api.latency = 0.2
    folder = tmp_path / "run"
    async with batch_of(api, folder, client={"max_concurrency": 5}) as batch:
        with anyio.move_on_after(0.5):
            await batch.run(fox(n) for n in range(100))
    record = BatchRecord(folder)
    charged = api.ledger.totals().charged
    found = record.summary()
    assert found.done + found.in_doubt >= charged > 0
    summary = await run(api, folder, [fox(n) for n in range(20)])
    assert summary.done == 20


async def test_a_client_that_is_closed(tmp_path: Path, api: Emulator) -> None:
    """No row is consumed by it; what was with the server is known."""
    api.latency = 0.1
    async with AsyncProdia("any", base_url=api.base_url, max_concurrency=5) as client:
        async with Batch(tmp_path / "run", client, progress=False) as batch:

            async def close() -> None:
                await anyio.sleep(0.4)
                await client.aclose()

            async with anyio.create_task_group() as group:
                group.start_soon(close)
                summary = await batch.run(fox(n) for n in range(500))
    assert summary.exit_code == 2
    assert summary.failed == 0
    assert summary.stopped == "the client was closed"
    assert summary.done + summary.in_doubt + 5 >= api.ledger.totals().charged


async def test_a_client_that_sheds_load(tmp_path: Path, api: Emulator) -> None:
    """``max_queued`` refuses jobs here: they come again, and none has failed."""
    api.latency = 0.02
    client = {"max_concurrency": 4, "max_queued": 1}
    summary = await run(api, tmp_path / "run", (fox(n) for n in range(30)), client=client)
    assert (summary.done, summary.failed) == (30, 0), summary


# Where outputs go.


async def test_shards(tmp_path: Path, api: Emulator) -> None:
    """WebDataset: a JSON and a picture a job; what lies behind the recorded end is cut off."""
    folder = tmp_path / "run"
    await run(api, folder, [fox(n) for n in range(5)], layout="tar")
    shard = folder / "shards" / "shard-00000.tar"
    with shard.open("r+b") as file:
        file.seek(-1024, 2)
        file.write(b"torn" * 1000)
    summary = await run(api, folder, [fox(n) for n in range(10)], layout="tar")
    assert (summary.done, summary.done_before) == (10, 5)
    with tarfile.open(shard) as tar:
        names = tar.getnames()
        assert len(names) == 20
        assert {name.rpartition(".")[2] for name in names} == {"json", "jpg"}
    record = BatchRecord(folder)
    assert str(record.verify(hashes=True)) == "10 outputs are there and whole"
    assert len(record.read(next(record.rows()))) > 1000


@pytest.mark.parametrize(("kept", "lost"), [(None, 3), (1000, 3), (-4000, 1)])
async def test_a_shard_that_was_deleted_or_cut_is_not_gone_on_with(
    tmp_path: Path, api: Emulator, kept: int | None, lost: int
) -> None:
    """What was in it is made again, in a shard that reads; nobody else's file is touched."""
    folder = tmp_path / "run"
    await run(api, folder, [fox(n) for n in range(3)], layout="tar")
    shard = folder / "shards" / "shard-00000.tar"
    content = shard.read_bytes()
    shard.unlink()
    if kept is not None:
        shard.write_bytes(content[:kept])
    (folder / "shards" / "mine.tar").write_bytes(b"mine")
    record = BatchRecord(folder)
    found = record.verify()
    assert len(found.missing + found.wrong) == lost
    summary = await run(api, folder, [fox(n) for n in range(6)], layout="tar")
    assert (summary.done, summary.done_before) == (6, 3 - lost)
    with tarfile.open(folder / "shards" / "shard-00001.tar") as tar:
        assert len(tar.getnames()) == 2 * (3 + lost)
    assert str(record.verify(hashes=True)) == "6 outputs are there and whole"
    assert (folder / "shards" / "mine.tar").read_bytes() == b"mine"


async def test_any_store_by_its_url(tmp_path: Path, api: Emulator) -> None:
    """Finished objects under the same names; the record stays here."""
    url = f"file://{tmp_path / 'store'}"
    summary = await run(api, tmp_path / "run", [fox(n) for n in range(5)], outputs=url)
    assert summary.done == 5
    files = list((tmp_path / "store").rglob("*.jpg"))
    assert len(files) == 5
    record = BatchRecord(tmp_path / "run")
    assert all(str(row.path).startswith(url) for row in record.rows())
    assert record.verify(hashes=True).checked == 5
    files[0].unlink()
    assert len(record.verify().missing) == 1


# The other API.


async def test_fireworks(tmp_path: Path, api: Emulator) -> None:
    """Orders, prompts and mappings; seeds are known, equal orders run once, dollars are counted."""
    async with AsyncFireworks("any", base_url=api.fireworks_url) as client:
        jobs: list[Any] = [
            TextToImage("a fox", seed=3),
            "a wolf",
            {"type": "text_to_image", "config": {"prompt": "a bear", "seed": 5}},
            BatchJob(TextToImage("a fox", seed=3), id="again"),
            {"type": "nonsense", "config": {}},
        ]
        dollars = 0.0
        for before in (0, 3):
            async with Batch(tmp_path / "run", client, progress=False, max_cost=1.0) as batch:
                summary = await batch.run(jobs)
                dollars = summary.dollars
            assert (summary.done, summary.failed) == (4, 1), summary
            assert summary.done_before in {before, 4}
        rows = [row for row in BatchRecord(tmp_path / "run").rows() if row.state == "done"]
        assert len(rows) == 3
        assert all(row.seed is not None and row.path for row in rows)
        assert dollars == pytest.approx(3 * 4 * 0.00035)


def drawn(color: str = "navy") -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (1024, 1024), color).save(target, "PNG")
    return target.getvalue()


async def test_every_order_of_the_other_api(tmp_path: Path, api: Emulator) -> None:
    """
    Pictures from pictures, edges and codes: as orders, as mappings, and as rows of a file.

    Whichever way one is written it is the same job, known by its picture's bytes, and runs once.
    """
    (tmp_path / "in.png").write_bytes(drawn())
    (tmp_path / "copy.png").write_bytes(drawn())
    (tmp_path / "gone.png").write_bytes(drawn("red"))
    there = str(tmp_path / "in.png")
    kept: dict[str, Any] = {"image_strength": 0.5, "seed": 1}
    control = {"prompt": "b", "control_net_name": "canny", "seed": 2}
    orders: list[Any] = [
        ImageToImage("a", drawn(), **kept),
        ControlNet("b", Output(drawn(), "image/png"), control_net_name="canny", seed=2),
        CannyEdgeDetection(("named.png", drawn())),
        QRCode("https://example.org", width=256, height=256),
        Kontext("c", input_image=io.BytesIO(drawn()), seed=3, poll=0.01),
    ]
    mappings: list[Any] = [
        {"type": "image_to_image", "config": {"prompt": "a", "init_image": there, **kept}},
        {"type": "control_net", "config": {**control, "control_image": there}},
        {"type": "canny_edge_detection", "config": {"image": there}},
        {"type": "qr_code", "config": {"prompt": "https://example.org", "width": 256,
                                       "height": 256}},
        {"type": "kontext", "config": {"prompt": "c", "input_image": there, "seed": 3}},
    ]  # fmt: skip
    rows = [
        {"type": "image_to_image", "prompt": "a", "input": "copy.png", **kept},
        {"type": "control_net", "input": "in.png", **control},
        {"type": "canny_edge_detection", "inputs": ["copy.png"]},
        {"type": "kontext", "prompt": "c", "input": "copy.png", "seed": 3},
        {"type": "qr_code", "prompt": "x", "input": "in.png"},
        {"type": "image_to_image", "prompt": "a", "inputs": ["in.png", "copy.png"], **kept},
        {"type": "image_to_image", "prompt": "a", "input": "missing.png", **kept},
        {"type": "canny_edge_detection", "config": {}},
    ]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folder = tmp_path / "run"
    async with AsyncFireworks("any", base_url=api.fireworks_url) as client:

        async def run(jobs: Any) -> BatchSummary:
            settings: dict[str, Any] = {"progress": False, "signals": False, "also": True}
            async with Batch(folder, client, **settings) as batch:
                return await batch.run(jobs)

        summary = await run(orders)
        assert (summary.done, summary.failed) == (5, 0), summary
        assert api.ledger.totals().charged == 5
        keys = [row.key for row in BatchRecord(folder).rows()]
        assert len(set(keys)) == 5
        for jobs in (mappings, read_jobs(tmp_path / "jobs.jsonl")):
            await run(jobs)
        assert api.ledger.totals().charged == 5, "an equal order was paid for again"
        other = {"type": "canny_edge_detection", "config": {"image": str(tmp_path / "gone.png")}}
        assert (await run([other])).done == 1
        assert api.ledger.totals().charged == 6, "another picture's edges are another job's"
    record = BatchRecord(folder)
    rows_of = list(record.rows())
    done = [row for row in rows_of if row.state == "done"]
    assert [row.key for row in done[:5]] == keys
    assert [record.read(row)[:4] for row in done] == [b"\x89PNG"] * 6
    reasons = {row.error.partition(": ")[2][:6]: row.error for row in rows_of if row.error}
    assert sorted(reasons) == ["line 5", "line 6", "line 7", "line 8"]
    assert "QRCode takes no input file, and 1 were given" in reasons["line 5"]
    assert "takes one input file, its init_image, and 2 were given" in reasons["line 6"]
    assert "missing.png" in reasons["line 7"]
    assert "needs a type of" in reasons["line 8"]
    assert "and a config" in reasons["line 8"]


async def test_a_picture_order_as_a_line_of_a_file(tmp_path: Path, api: Emulator) -> None:
    """What is written down names the file, or else its digest; the key is the bytes' alone."""
    path = tmp_path / "in.png"
    path.write_bytes(drawn())
    async with AsyncFireworks("any", base_url=api.fireworks_url) as client:
        trade = trade_of(client)
        by_path = await trade.asked(CannyEdgeDetection(path, min_val=5, extra_body={"new": 1}))
        by_bytes = await trade.asked(CannyEdgeDetection(drawn(), min_val=5, extra_body={"new": 1}))
        other = await trade.asked(CannyEdgeDetection(path, min_val=5, extra_body={"new": 2}))
        address = await trade.asked(Kontext("x", input_image="HTTPS://example.org/a.png"))
        for wrong, why in (
            (
                {"type": "canny_edge_detection", "config": {"min_val": 3}},
                "^CannyEdgeDetection needs a setting 'image'$",
            ),
            ({"type": "canny_edge_detection"}, "needs a type of .* and a config"),
            (
                {"type": "qr_code", "config": {}, "inputs": ["a"]},
                r"has inputs=\['a'\]: write Batch",
            ),
            (
                {"type": "qr_code", "config": {"prompt": "x", "size": 3}},
                "^QRCode has no setting 'size'; it has prompt, ",
            ),
            (3, "takes TextToImage, .*QRCode, prompts and BatchJob, not 3"),
        ):
            with pytest.raises(InvalidRequestError, match=why):
                await trade.asked(wrong)
        plain = await trade.asked(JobRequest(Job("text_to_image", {"prompt": "x"}), accept=JPEG()))
    digest = digest_bytes(drawn()).hex()
    assert (IN_MEMORY in by_path.line, IN_MEMORY in by_bytes.line) == (False, True)
    assert by_path.line["type"] == "canny_edge_detection"
    assert by_path.line["config"]["image"] == str(path)
    assert by_bytes.line["config"]["image"] == digest
    assert by_path.key == by_bytes.key != other.key
    assert by_path.type == "canny_edge_detection/stable-diffusion-xl-1024-v1-0"
    model = "stable-diffusion-xl-1024-v1-0"
    config = {"image": digest, "model": model, "min_val": 5, "extra_body": {"new": 1}}
    assert by_path.key == content_key({"type": "canny_edge_detection", "config": config})
    assert address.line["config"]["input_image"] == "HTTPS://example.org/a.png"
    assert plain.line["config"]["accept"] == "image/jpeg"
    assert trade.facts(by_path).dollars is None
    assert trade.facts(plain).dollars == pytest.approx(4 * 0.00035)


# Arguments.


async def awaited(_: BatchProgress) -> None:
    """Nobody would await it."""


class Awaited:
    """Nor this."""

    async def __call__(self, _: BatchProgress) -> None: ...


@pytest.mark.parametrize(
    "given",
    [
        {"layout": "zip"}, {"submit": "later"}, {"on_doubt": "ask"}, {"retry_failed": 1},
        {"max_cost": -1}, {"max_cost": "1"}, {"progress": 3}, {"progress": awaited},
        {"progress": partial(awaited)}, {"progress": Awaited()}, {"lease_seconds": 0},
        {"outputs": ""}, {"outputs": "s3://x", "layout": "tar"}, {"price": float("nan")},
        {"signals": "x"},
    ],
)  # fmt: skip
async def test_arguments_are_checked(tmp_path: Path, given: dict[str, Any]) -> None:
    """Before a folder is made."""
    async with AsyncProdia("any") as client:
        with pytest.raises(InvalidRequestError):
            Batch(tmp_path / "run", client, **given)
        with pytest.raises(InvalidRequestError, match="an AsyncProdia or an AsyncFireworks"):
            Batch(tmp_path / "run", object())  # type: ignore[arg-type]
        folders: list[Any] = [client, "", "a\0b"]
        for folder in folders:
            for read in (lambda it: Batch(it, client), BatchRecord):
                with pytest.raises(InvalidRequestError, match="folder must be a path, not "):
                    read(folder)
    assert not (tmp_path / "run").exists()


async def test_blocks_are_entered_once(tmp_path: Path, api: Emulator) -> None:
    """And jobs are run inside."""
    async with AsyncProdia("any", base_url=api.base_url) as client:
        batch = Batch(tmp_path / "run", client, progress=False)
        with pytest.raises(RuntimeError, match="inside the block"):
            await batch.run([])
        async with batch:
            assert (await batch.run([])).exit_code == 0
            assert (await batch.run([fox(1)])).done == 1
            assert (await batch.run([fox(1)])).done_before == 1
        with pytest.raises(RuntimeError, match="once"):
            await batch.__aenter__()


# What a kill could cost.


async def test_a_row_that_only_memory_has_holds_its_slot(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    So what was sent, and a kill can take, is never more than may be in flight.

    What outlives the process has arrived, and gives its slot away: `test_arrivals`.
    """
    let_go = anyio.Event()
    keep = Ends.keep

    async def slow(self: Ends, row: Any, made: Any) -> None:
        await let_go.wait()
        await keep(self, row, made)

    monkeypatch.setattr(Ends, "keep", slow)
    async with (
        batch_of(api, tmp_path / "run", client={"max_concurrency": 4}) as batch,
        anyio.create_task_group() as group,
    ):
        group.start_soon(batch.run, [fox(n) for n in range(20)])
        try:
            await until(lambda: api.ledger.totals().charged == 4)
            await anyio.sleep(0.3)
            assert api.ledger.totals().received == 4
        finally:
            let_go.set()
    assert api.ledger.totals().charged == 20


async def test_a_job_is_known_by_its_id_before_the_record_has_it(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory that outlives the process; and until it is, no other is left with the server."""
    let_go = anyio.Event()
    ask = Record.ask

    async def slow(self: Record, work: Any, *, linger: bool = False) -> Any:
        if linger:  # the ids, and the lease
            await let_go.wait()
        return await ask(self, work, linger=linger)

    at_once: list[int] = []
    submit = ProdiaTrade.submit
    under_way = 0

    async def counted(self: ProdiaTrade, asked: Any) -> tuple[str, float]:
        nonlocal under_way
        under_way += 1
        at_once.append(under_way)
        try:
            return await submit(self, asked)
        finally:
            under_way -= 1

    monkeypatch.setattr(Record, "ask", slow)
    monkeypatch.setattr(ProdiaTrade, "submit", counted)
    folder = tmp_path / "run"
    async with (
        batch_of(api, folder, submit="async") as batch,
        anyio.create_task_group() as group,
    ):
        group.start_soon(batch.run, [fox(n) for n in range(6)])
        try:
            await until(
                lambda: sum(each.job_id is not None for each in marks_of(folder).values()) == 6
            )
            with sqlite3.connect(folder / "run.sqlite") as connection:
                assert connection.execute("SELECT count(job_id) FROM open").fetchone() == (0,)
            connection.close()
        finally:
            let_go.set()
    assert at_once == [1] * 6
    assert api.ledger.totals().submitted == 6


async def test_a_job_is_called_back_when_its_slot_has_come(tmp_path: Path, api: Emulator) -> None:
    """A stop in the last moment before its bytes leave: it is not sent, and not in doubt."""
    held: list[Batch] = []
    started = 0

    def stop(details: AttemptDetails) -> None:
        nonlocal started
        started += details.event == "started"
        if started == 5:
            held[0].stop()

    client = {"max_concurrency": 1, "hook": stop}
    async with batch_of(api, tmp_path / "run", client=client) as batch:
        held.append(batch)
        summary = await batch.run([fox(n) for n in range(20)])
    assert (summary.done, summary.left, summary.in_doubt) == (4, 16, 0)
    assert api.ledger.totals().received == 4


async def test_each_row_asks_a_dead_api_in_its_turn(tmp_path: Path, api: Emulator) -> None:
    """Those that were never sent before those that were."""
    api.fail_next(100_000, 500)

    def seeds() -> set[int]:
        return {record.config["seed"] for record in api.ledger if record.config is not None}

    async with (
        batch_of(api, tmp_path / "run", client={"max_concurrency": 1}) as batch,
        anyio.create_task_group() as group,
    ):
        group.start_soon(batch.run, [fox(n) for n in range(6)])
        try:
            await until(lambda: len(seeds()) == 5, 30)
        finally:
            api.forget_planned()
