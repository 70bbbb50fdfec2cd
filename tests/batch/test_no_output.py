"""Jobs that end well and make nothing: paid for, not done, and not run again unasked."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from raw_server import JOB_PART, OUTPUT_PART, RawServer, http, multipart, part, say

from prodia_async import AsyncProdia, Job, RetryPolicy
from prodia_async.batch import Batch, BatchRecord
from prodia_async.batch._cluster import Worker, WorkerOptions
from prodia_async.batch._decide import DOUBTS
from prodia_async.batch._record import Record

if TYPE_CHECKING:
    from pathlib import Path

    from prodia_async.batch import BatchSummary

SCHNELL = "inference.flux-fast.schnell.txt2img.v2"
FOX = {"type": SCHNELL, "config": {"prompt": "a fox", "seed": 1}}
ANSWER = {"id": "job-1", "state": {"current": "completed"}, "price": {"dollars": 0.0025}}
NOTHING = http(
    body=multipart(part("job", "job.json", "application/json", json.dumps(ANSWER).encode()))
)


async def run(url: str, folder: Path, job: Any = FOX, **options: Any) -> BatchSummary:
    quick = RetryPolicy(backoff_initial=0.01, backoff_max=0.02)
    async with AsyncProdia("any", base_url=url, retry=quick) as client:
        async with Batch(folder, client, progress=False, signals=False, **options) as batch:
            return await batch.run([job])


async def test_an_answer_without_an_output_is_a_failure_that_was_paid(tmp_path: Path) -> None:
    with RawServer([say(NOTHING), say(http(body=multipart(JOB_PART, OUTPUT_PART)))]) as server:
        for _ in range(2):  # the second sends nothing
            summary = await run(server.url, tmp_path / "run", max_cost=0.004)
            assert (summary.done, summary.failed, summary.in_doubt) == (0, 1, 0)
            assert (summary.dollars, summary.exit_code) == (0.0025, 1)
        assert len(server.requests) == 1
        record = BatchRecord(tmp_path / "run")
        assert record.summary().dollars == 0.0025
        (row,) = record.failures()
        assert (row.state, row.path, row.dollars, row.job_id) == ("failed", None, 0.0025, "job-1")
        assert "without an output" in str(row.error)
        assert record.verify().checked == 0
        summary = await run(server.url, tmp_path / "run", retry_failed=True)
        assert (summary.done, summary.failed, len(server.requests)) == (1, 0, 2)


async def test_one_that_the_record_cannot_take_is_kept_aside_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with RawServer([say(NOTHING)]) as server:
        with monkeypatch.context() as patch:
            patch.setattr(Record, "_finish_all", is_full)
            summary = await run(server.url, tmp_path / "run")
        assert (summary.done, summary.failed, summary.exit_code) == (0, 1, 3)
        record = BatchRecord(tmp_path / "run")
        assert [row.state for row in record.rows()] == ["failed"]
        assert (record.summary().failed, record.summary().dollars) == (1, 0.0025)
        assert [(row.state, row.dollars) for row in record.failures()] == [("failed", 0.0025)]
        summary = await run(server.url, tmp_path / "run")
        assert (summary.failed, summary.dollars, len(server.requests)) == (1, 0.0025, 1)


async def test_it_is_none_for_a_cluster_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRODIA_TOKEN", "any-token")
    with RawServer([say(NOTHING)]) as server:
        worker = Worker(
            WorkerOptions(
                to=str(tmp_path / "run"), job_type=SCHNELL, base_url=server.url, lease_seconds=0
            )
        )
        for _ in range(2):
            (told,) = await worker.rows([{"prompt": "a fox"}])
            assert (told["state"], told["path"], told["dollars"]) == ("failed", None, 0.0025)
            assert "without an output" in told["error"]
        await worker.aclose()
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("job", "done"),
    [
        ({"type": "inference.ping.v1"}, 1),
        (Job.serial(Job("inference.ping.v1"), Job(SCHNELL, {"prompt": "a fox"})), 0),
        ({"type": "inference.nobody-knows.v1"}, 0),
    ],
)
async def test_only_a_type_that_makes_none_is_done_without(
    tmp_path: Path, job: Any, done: int
) -> None:
    with RawServer([say(NOTHING)]) as server:
        summary = await run(server.url, tmp_path / "run", job)
    assert (summary.done, summary.failed) == (done, 1 - done)


async def test_a_server_that_makes_nothing_any_more_does_not_burn_the_list(tmp_path: Path) -> None:
    """Each is paid: after a few one at a time asks, and waits longer each time."""
    with RawServer([say(http(body=multipart(JOB_PART, OUTPUT_PART)))] + [say(NOTHING)] * 60) as it:
        async with (
            AsyncProdia("any", base_url=it.url, max_concurrency=2) as client,
            Batch(tmp_path / "run", client, progress=False, signals=False) as batch,
            anyio.create_task_group() as group,
        ):
            group.start_soon(stop_after, batch, 3.5)
            summary = await batch.run(Job(SCHNELL, {"seed": n}) for n in range(60))
    assert (summary.done, summary.in_doubt) == (1, 0)
    assert DOUBTS <= summary.failed <= DOUBTS + 4, summary
    assert summary.stopped


async def stop_after(batch: Batch, seconds: float) -> None:
    await anyio.sleep(seconds)
    batch.stop()
