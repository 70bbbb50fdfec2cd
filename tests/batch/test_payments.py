"""What is paid, on every path: nothing twice in silence, and every sum as the server has it."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import until
from processes import Child, charges, settle
from processes import run as run_child
from test_troubles import QUICK, SCHNELL, SMALL, batch_of, fox, run

from prodia_async import Job, JobRequest, RetryPolicy
from prodia_async.batch import Batch, BatchChangedError, BatchError, BatchJob, BatchRecord
from prodia_async.batch._trade import Facts, ProdiaTrade
from prodia_async.emulator import Emulator
from prodia_async.fireworks import AsyncFireworks, Kontext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from prodia_async import AttemptDetails

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


async def test_two_runs_at_once_behind_a_first(tmp_path: Path, api: Emulator) -> None:
    """One is refused: each would send what the other has under way."""
    jobs = [fox(n) for n in range(3)]
    refused: list[RuntimeError] = []

    async def run_them() -> None:
        try:
            await batch.run(jobs)
        except RuntimeError as error:
            refused.append(error)

    async with batch_of(api, tmp_path / "run") as batch:
        await batch.run(jobs[:1])
        async with anyio.create_task_group() as group:
            group.start_soon(run_them)
            group.start_soon(run_them)
        assert (await batch.run(jobs)).done_before == 3
    assert ["this batch is running already" in str(error) for error in refused] == [True]
    assert api.ledger.totals().charged == 3


async def test_an_equal_row_is_not_sent_when_the_first_is_left_with_the_server(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id cannot be asked about for a while, and a row that is equal to it comes then."""
    monkeypatch.setattr("prodia_async.batch._decide.ASK_AGAIN_SECONDS", ())
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


# Faults that may be paid.


async def test_a_server_fault_before_a_success_is_counted(tmp_path: Path, api: Emulator) -> None:
    """The client sent it again by itself after a 500 that was charged: paid twice, and told so."""
    api.fail_next(3, 500, charged=True)
    summary = await run(
        api, tmp_path / "run", [fox(n) for n in range(3)], client={"max_concurrency": 1}
    )
    assert (summary.done, api.ledger.totals().charged) == (3, 6)
    for told in (summary, BatchRecord(tmp_path / "run").summary()):
        assert told.paid_again == 3
        assert told.doubtful_dollars == pytest.approx(3 * PRICE)


async def test_faults_that_may_be_paid_count_against_the_limit(
    tmp_path: Path, api: Emulator
) -> None:
    """Each job is a 500 that was charged, then a success: ten prices are ten charges."""
    for _ in range(60):
        api.fail_next(1, 500, charged=True)
        api.slow_next(1, bytes_per_second=1e9)  # the next request takes the next plan
    await run(
        api, tmp_path / "run", [fox(n) for n in range(40)], max_cost=10 * PRICE,
        client={"max_concurrency": 1},
    )  # fmt: skip
    assert api.ledger.totals().charged == 10


async def test_a_fault_counts_while_its_job_goes_on(tmp_path: Path, api: Emulator) -> None:
    """Before the next attempt ends, no other job is sent for the money that may be gone."""
    api.fail_next(2, 500, charged=True)
    retry = RetryPolicy(backoff_initial=3.0)
    summary = await run(
        api, tmp_path / "run", [fox(n) for n in range(9)], max_cost=4 * PRICE,
        client={"max_concurrency": 2, "retry": retry},
    )  # fmt: skip
    assert api.ledger.totals().charged == 4, summary


async def test_a_job_is_called_back_before_an_attempt_beyond_the_limit(
    tmp_path: Path, api: Emulator
) -> None:
    """Each attempt is a 500 that is charged: the client would go on, and the money is gone."""
    api.fail_next(1000, 500, charged=True)
    summary = await run(
        api, tmp_path / "run", [fox(n) for n in range(9)], max_cost=6 * PRICE,
        client={"max_concurrency": 1},
    )  # fmt: skip
    assert api.ledger.totals().charged == 6, summary
    assert "max_cost" in str(summary.stopped)
    for told in (summary, BatchRecord(tmp_path / "run").summary()):
        assert told.in_doubt == 2
        assert told.doubtful_dollars == pytest.approx(6 * PRICE)


@pytest.mark.parametrize("max_attempts", [1, 4])
async def test_hold_sends_no_server_fault_again(
    tmp_path: Path, api: Emulator, max_attempts: int
) -> None:
    """Neither the batch nor the client, whatever its policy: it is in doubt, at its price."""
    api.fail_next(3, 500, charged=True)
    retry = replace(QUICK, max_attempts=max_attempts, retry_uncertain=True)
    summary = await run(
        api, tmp_path / "run", [fox(n) for n in range(9)], on_doubt="hold",
        client={"retry": retry, "max_concurrency": 1},
    )  # fmt: skip
    assert api.ledger.totals().charged == 9, f"paid twice: {summary}"
    assert (summary.done, summary.in_doubt, summary.paid_again) == (6, 3, 0)
    assert BatchRecord(tmp_path / "run").summary().doubtful_dollars == pytest.approx(3 * PRICE)


async def test_hold_waits_for_a_dead_api_all_the_same(tmp_path: Path, api: Emulator) -> None:
    """What may be paid is in doubt, but the next rows are not sent into the fire."""
    api.fail_next(100_000, 500)
    async with (
        batch_of(api, tmp_path / "run", on_doubt="hold", client={"max_concurrency": 2}) as batch,
        anyio.create_task_group() as group,
    ):

        async def revive() -> None:
            await anyio.sleep(2.0)
            api.forget_planned()

        group.start_soon(revive)
        summary = await batch.run([fox(n) for n in range(30)])
    assert summary.in_doubt < 8, summary
    assert summary.done == 30 - summary.in_doubt


@pytest.mark.parametrize("submit", ["sync", "async"])
async def test_what_is_refused_is_sent_again_under_hold(
    tmp_path: Path, api: Emulator, submit: str
) -> None:
    """A busy server has run nothing, so nothing is in doubt."""
    api.fail_next(5, 429, retry_after=0.01)
    summary = await run(
        api, tmp_path / "run", [fox(n) for n in range(5)], on_doubt="hold", submit=submit
    )
    assert (summary.done, summary.paid_again, api.ledger.totals().charged) == (5, 0, 5)


async def test_a_doubt_is_sent_again_once_in_each_run(tmp_path: Path, api: Emulator) -> None:
    """Also when the doubt is of an earlier run: three payments in two runs."""
    api.drop_next(1000, at="sent")
    for paid in (2, 3):
        summary = await run(api, tmp_path / "run", [fox(1)])
        assert api.ledger.totals().charged == paid, f"twice in one run: {summary}"
        assert (summary.in_doubt, summary.paid_again) == (1, 1)
        assert summary.doubtful_dollars == pytest.approx(paid * PRICE)
    api.forget_planned()
    summary = await run(api, tmp_path / "run", [fox(1)])
    for told in (summary, BatchRecord(tmp_path / "run").summary()):
        assert (told.done, told.in_doubt) == (1, 0)
        assert told.dollars + told.doubtful_dollars == pytest.approx(4 * PRICE)


async def test_a_job_in_an_outage_is_sent_again_once(tmp_path: Path, api: Emulator) -> None:
    """Each 500 may be paid: three rows that meet nothing else are sent twice each, and failed."""
    api.fail_next(100_000, 500, charged=True)
    retry = replace(QUICK, max_attempts=1)
    summary = await run(api, tmp_path / "run", [fox(n) for n in range(3)], client={"retry": retry})
    assert api.ledger.totals().charged == 6, summary
    assert (summary.failed, summary.paid_again) == (3, 3)
    assert summary.doubtful_dollars == pytest.approx(6 * PRICE)


async def test_a_fault_and_then_a_busy_server_is_a_fault(tmp_path: Path, api: Emulator) -> None:
    """Sent once more after the first time, and not after the second; what it met is told."""
    for _ in range(3):
        api.fail_next(1, 500, charged=True)
        api.fail_next(1, 429, retry_after=0.3)
    retry = replace(QUICK, max_retry_after=0.1)
    summary = await run(api, tmp_path / "run", [fox(1)], client={"retry": retry})
    assert (summary.failed, summary.paid_again) == (1, 2), summary
    assert (api.ledger.totals().received, api.ledger.totals().charged) == (4, 2)
    (failure,) = BatchRecord(tmp_path / "run").failures()
    assert failure.error == "ServerError: HTTP 500, and then the server was busy"


async def test_what_was_never_sent_was_not_sent_again(tmp_path: Path, api: Emulator) -> None:
    """In doubt before, and the limit is reached before any is sent: they are in doubt still."""
    jobs = [fox(n) for n in range(5)]
    api.drop_next(5, at="sent")
    await run(api, tmp_path / "run", jobs, on_doubt="hold")
    summary = await run(api, tmp_path / "run", jobs, max_cost=0.0001)
    assert api.ledger.totals().received == 5
    assert (summary.paid_again, summary.in_doubt) == (0, 5)


async def test_questions_are_not_paid(tmp_path: Path, api: Emulator) -> None:
    """A job that is with the server is asked about, and the questions meet faults."""
    api.fail_next(5, 500, reads=True)
    summary = await run(api, tmp_path / "run", [fox(n) for n in range(3)], submit="async")
    assert (summary.done, summary.paid_again, summary.doubtful_dollars) == (3, 0, 0.0)
    assert {row.attempts for row in BatchRecord(tmp_path / "run").rows()} == {1}


async def test_a_task_that_is_asked_about_is_not_called_back(tmp_path: Path) -> None:
    """A stop while the other API works on it: it is paid for, and is waited for."""
    with Emulator(workers=2, latency=1.0) as api:
        async with (
            AsyncFireworks("any-key-at-all", base_url=api.fireworks_url) as client,
            Batch(tmp_path / "run", client, progress=False, signals=False) as batch,
            anyio.create_task_group() as group,
        ):

            async def stop() -> None:
                await until(lambda: api.ledger.totals().received > 0)
                await anyio.sleep(0.2)
                batch.stop()

            group.start_soon(stop)
            summary = await batch.run([Kontext("a fox", seed=3, poll=0.05)])
    assert (summary.done, summary.in_doubt) == (1, 0), summary


async def test_a_deadline_that_cannot_be_met_has_an_end(tmp_path: Path, api: Emulator) -> None:
    """It passes before the job is sent, each time: that is no reason to go on for ever."""
    request = JobRequest(Job(SCHNELL, {"prompt": "x", "seed": 1, **SMALL}), deadline=1e-6)
    with anyio.fail_after(30):
        summary = await run(api, tmp_path / "run", [request, fox(2)])
    assert (summary.done, summary.failed) == (1, 1)
    (failure,) = BatchRecord(tmp_path / "run").failures()
    assert str(failure.error).startswith("DeadlineExceededError")


# From run to run.


async def test_what_untold_jobs_were_expected_to_cost_is_remembered(
    tmp_path: Path, api: Emulator
) -> None:
    """``max_cost`` is for all runs together, also where no answer tells a price."""
    api.behave(price_null=True)
    for _ in range(3):
        summary = await run(
            api, tmp_path / "run", [fox(n) for n in range(30)], max_cost=5 * PRICE,
            client={"max_concurrency": 2},
        )  # fmt: skip
        assert api.ledger.totals().charged == summary.done == 5, summary
        for told in (summary, BatchRecord(tmp_path / "run").summary()):
            assert told.dollars == pytest.approx(5 * PRICE)


async def test_what_is_in_doubt_is_remembered_at_the_price_expected(
    tmp_path: Path, api: Emulator
) -> None:
    """Nothing but doubt so far, and no answer has told a price: the next run's limit counts it."""
    api.drop_next(1000, at="sent")
    for _ in range(3):
        summary = await run(
            api, tmp_path / "run", [fox(n) for n in range(20)], max_cost=4 * PRICE,
            client={"max_concurrency": 2}, on_doubt="hold",
        )  # fmt: skip
        assert api.ledger.totals().charged == 4
        for told in (summary, BatchRecord(tmp_path / "run").summary()):
            assert told.doubtful_dollars == pytest.approx(4 * PRICE)


async def test_a_guess_gives_way_to_what_is_told(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job in doubt at a price of the user's; from the first answer on, what it told counts."""
    monkeypatch.setattr(ProdiaTrade, "facts", lambda *_: Facts())
    api.drop_next(1, at="sent")
    options: dict[str, Any] = {"max_cost": 0.81, "price": 0.4, "client": {"max_concurrency": 1}}
    summary = await run(api, tmp_path / "run", [fox(0)], on_doubt="hold", **options)
    assert summary.doubtful_dollars == pytest.approx(0.4)
    for count in (2, 12):
        summary = await run(api, tmp_path / "run", [fox(n) for n in range(count)], **options)
        assert (summary.done, summary.stopped) == (count, None), summary
    assert BatchRecord(tmp_path / "run").summary().doubtful_dollars == pytest.approx(PRICE)


@pytest.mark.parametrize("latency", [0.0, 0.2])
async def test_rows_that_were_read_before_a_price_was_told_count_at_it(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch, latency: float
) -> None:
    """Read ahead, in flight or landed: the first answer says what each of them costs."""
    monkeypatch.setattr(ProdiaTrade, "facts", lambda *_: Facts())
    api.latency = latency
    options: dict[str, Any] = {"max_cost": 30 * PRICE, "price": PRICE / 25}
    rows = (fox(n) for n in range(500))
    summary = await run(api, tmp_path / "run", rows, client={"max_concurrency": 20}, **options)
    assert "max_cost" in str(summary.stopped)
    assert summary.done == api.ledger.totals().charged == 30


async def test_what_is_given_back_stays_paid(tmp_path: Path, api: Emulator) -> None:
    """Outputs are lost, and made again: each was paid twice, and the sums and the limit say so."""
    jobs = [fox(n) for n in range(4)]
    api.fail_next(1, 500, charged=True)
    client = {"max_concurrency": 1}
    first = await run(api, tmp_path / "run", jobs, client=client)
    record = BatchRecord(tmp_path / "run")
    for path in (tmp_path / "run" / "out").rglob("*.jpg"):
        path.unlink()
    assert len(record.verify().missing) == 4
    for told in (first, record.summary()):
        assert told.dollars == pytest.approx(4 * PRICE)
        assert told.doubtful_dollars == pytest.approx(PRICE)
        assert told.paid_again == 1
    assert record.summary().done == 0
    limited = await run(api, tmp_path / "run", jobs, client=client, max_cost=7 * PRICE)
    assert (limited.done, api.ledger.totals().charged) == (2, 7), limited
    second = await run(api, tmp_path / "run", jobs, client=client)
    assert api.ledger.totals().charged == 9
    for told in (second, record.summary()):
        assert told.dollars == pytest.approx(8 * PRICE)
        assert told.doubtful_dollars == pytest.approx(PRICE)


# Ids.


@pytest.mark.parametrize("denials", [1, 2])
async def test_a_denial_throws_no_living_id_away(
    tmp_path: Path, api: Emulator, denials: int
) -> None:
    """The result is kept for 300 s, and an answer or two do not know the job."""
    api.fail_next(denials, 404, body="not found", reads=True)
    summary = await run(api, tmp_path / "run", [fox(1)], submit="async")
    assert (summary.done, summary.paid_again) == (1, 0), summary
    assert api.ledger.totals().submitted == 1


@pytest.mark.parametrize("when", ["it is asked about", "it waits"])
async def test_a_stop_leaves_a_denied_id_to_the_next_run(
    tmp_path: Path, api: Emulator, when: str
) -> None:
    """It is neither in doubt nor sent again before it was asked about often enough."""
    api.fail_next(100, 404, body="not found", reads=True)
    held: list[Batch] = []

    def hook(details: AttemptDetails) -> None:
        if (details.event, details.job_type) == ("finished", "GET /v2/job/async"):
            held[0].stop()

    client = {"hook": hook} if when == "it is asked about" else {}
    options: dict[str, Any] = {"submit": "async", "client": client}
    async with (
        batch_of(api, tmp_path / "run", **options) as batch,
        anyio.create_task_group() as group,
    ):
        held.append(batch)

        async def stop() -> None:
            await until(lambda: batch._run is not None and batch._run.delayed != [])
            batch.stop()

        if when == "it waits":
            group.start_soon(stop)
        summary = await batch.run([fox(1)])
    assert (summary.in_doubt, summary.left) == (0, 1)
    api.forget_planned()
    summary = await run(api, tmp_path / "run", [fox(1)], submit="async")
    assert (summary.done, api.ledger.totals().submitted) == (1, 1)


async def test_ids_are_asked_for_where_the_jobs_are(tmp_path: Path, api: Emulator) -> None:
    """The folder goes on at another server, which knows none of them: that is not silent."""
    jobs = [fox(n) for n in range(3)]
    api.hold()
    async with batch_of(api, tmp_path / "run", submit="async") as batch:
        with anyio.move_on_after(1.5):
            await batch.run(jobs)
    assert api.ledger.totals().submitted == 3
    with Emulator(workers=5) as other:
        with pytest.raises(BatchChangedError, match="3 jobs were left with http") as caught:
            await run(other, tmp_path / "run", jobs, submit="async")
        assert "server was" in caught.value.differences[0]
        assert other.ledger.totals().received == 0
        api.release()
        summary = await run(api, tmp_path / "run", jobs, submit="async")
        assert (summary.done, api.ledger.totals().submitted) == (3, 3)
        summary = await run(other, tmp_path / "run", [*jobs, fox(4)], submit="async")
        assert (summary.done, other.ledger.totals().submitted) == (4, 1)


async def test_jobs_of_another_server_can_be_given_up(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If that is said: they are in doubt then."""
    monkeypatch.setattr("prodia_async.batch._decide.ASK_AGAIN_SECONDS", (0.1, 0.1, 0.1))
    api.hold()
    async with batch_of(api, tmp_path / "run", submit="async") as batch:
        with anyio.move_on_after(1.0):
            await batch.run([fox(1)])
    options: dict[str, Any] = {"submit": "async", "also": True, "on_doubt": "hold"}
    with Emulator(workers=5) as other:
        summary = await run(other, tmp_path / "run", [fox(1)], **options)
        assert (summary.in_doubt, other.ledger.totals().submitted) == (1, 0)
    api.release()


# Kills.


def test_a_kill_forgets_no_attempt_that_may_be_paid(tmp_path: Path) -> None:
    """Two faults that were charged, a third attempt under way, SIGKILL: three payments, maybe."""
    with Emulator(workers=4, latency=3.0) as api:
        api.fail_next(2, 500, charged=True)
        wanted = {
            "folder": tmp_path / "run",
            "jobs": 1,
            "client": {"max_concurrency": 1},
            "batch": {"submit": "sync"},
        }
        child = Child(api, wanted)
        api.ledger.wait_for(lambda totals: totals.charged == 2, 20)
        while not api.busy:
            time.sleep(0.01)
        time.sleep(0.2)
        child.end(signal.SIGKILL)
        assert BatchRecord(tmp_path / "run").summary().doubtful_dollars == pytest.approx(3 * PRICE)
        settle(api)
        assert api.ledger.totals().charged == 3
        api.latency = 0.0
        held = run_child(api, {**wanted, "batch": {"on_doubt": "hold"}})
        assert held.summary()["doubtful_dollars"] == pytest.approx(3 * PRICE)
        last = run_child(api, wanted)
        assert last.summary()["paid_again"] == 1
        found = BatchRecord(tmp_path / "run").summary()
        assert (found.done, found.paid_again, api.ledger.totals().charged) == (1, 3, 4)
        assert found.dollars + found.doubtful_dollars == pytest.approx(4 * PRICE)


def test_a_doubt_outlives_a_busy_server_and_a_kill(tmp_path: Path) -> None:
    """An attempt that may be paid, then only 429, then SIGKILL: it is in doubt, and paid once."""
    with Emulator(workers=4) as api:
        api.drop_next(1, at="sent")
        api.fail_next(1000, 429, retry_after=300)
        wanted = {
            "folder": tmp_path / "run",
            "jobs": 1,
            "client": {"max_concurrency": 1},
            "batch": {"submit": "sync"},
        }
        child = Child(api, wanted)
        api.ledger.wait_for(lambda totals: totals.received >= 2, 20)
        time.sleep(0.7)
        child.end(signal.SIGKILL)
        settle(api)
        record = BatchRecord(tmp_path / "run")
        assert [row.row for row in record.in_doubt()] == [0]
        assert record.summary().doubtful_dollars == pytest.approx(PRICE)
        api.forget_planned()
        held = run_child(api, {**wanted, "batch": {"on_doubt": "hold"}})
        assert charges(api) == {0: 1}, "paid again under hold"
        assert held.summary()["doubtful_dollars"] == pytest.approx(PRICE)


def test_an_id_that_is_of_no_use_is_not_taken_for_the_next(tmp_path: Path) -> None:
    """Denied, submitted again, killed before the second id came: two payments, maybe."""
    first = "from prodia_async.batch import _decide; _decide.MOST_DENIALS = 0"
    with Emulator(workers=4) as api:
        api.fail_next(1, 404, body="not found", reads=True)
        wanted = {
            "folder": tmp_path / "run",
            "jobs": 1,
            "client": {"max_concurrency": 1},
            "batch": {"submit": "async"},
            "first": first + DIES_ON_THE_SECOND,
        }
        child = Child(api, wanted)
        assert child.end() == -signal.SIGKILL, child.stderr
        settle(api)
        assert api.ledger.totals().submitted == 2
        record = BatchRecord(tmp_path / "run")
        assert [row.row for row in record.in_doubt()] == [0]
        assert record.summary().doubtful_dollars == pytest.approx(2 * PRICE)


DIES_ON_THE_SECOND = """
import os, signal
from prodia_async.batch import _trade
submit = _trade.ProdiaTrade.submit
async def dies(self, asked, count=iter((1, 2, 3))):
    n = next(count)
    found = await submit(self, asked)
    if n == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return found
_trade.ProdiaTrade.submit = dies
"""
