"""One worker of a run on many machines: is each job paid once, whatever died before?"""

import asyncio
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import until

from prodia_async import AsyncProdia, InvalidRequestError, Job, JobRequest
from prodia_async.batch import (
    Batch,
    BatchChangedError,
    BatchError,
    BatchRecord,
    to_folder,
    to_store,
)
from prodia_async.batch._cluster import (
    COLUMNS,
    Worker,
    WorkerOptions,
    after_loss,
    check_settings,
    next_step,
)
from prodia_async.batch._driver import begin
from prodia_async.batch._lease import LeaseView
from prodia_async.batch._objects import LEASE, RUN, Done, ObjectRecord, Sent
from prodia_async.batch._outputs import Content
from prodia_async.emulator import Emulator

TYPE = "inference.flux-fast.schnell.txt2img.v2"
DONE = Done(key="0" * 32, type=TYPE)


# The lease.


def test_a_lease_holds_while_it_changes() -> None:
    """Only a change is a sign of life, and it lasts for the length of the lease."""
    view = LeaseView(30.0)
    assert not view.holds(0.0)
    assert view.is_over(0.0)
    view.seen("a-1", 100.0)
    assert view.holds(100.0)
    assert view.holds(129.9)
    assert not view.holds(130.0)
    view.seen("a-1", 129.0)
    assert not view.holds(130.0)
    assert not view.is_over(159.9)
    assert view.is_over(160.0)
    view.seen("a-2", 170.0)
    assert view.holds(199.0)
    assert not view.is_over(199.0)


def test_a_lease_that_was_given_up_is_over_at_once() -> None:
    """However fresh the object is; a new driver's sign of life opens it again."""
    view = LeaseView(30.0)
    view.seen("a-1", 0.0, released=True)
    assert not view.holds(0.0)
    assert view.is_over(0.0)
    view.seen("b-1", 1.0)
    assert view.holds(1.0)


# What to do about a job.


@pytest.mark.parametrize(
    ("done", "sent", "on_doubt", "retry_failed", "step"),
    [
        (None, None, "retry", False, "run"),
        (None, None, "hold", False, "run"),
        (DONE, None, "retry", True, "have"),
        (DONE, Sent(), "hold", False, "have"),
        (replace(DONE, state="failed"), None, "retry", False, "have"),
        (replace(DONE, state="failed"), None, "retry", True, "run"),
        (replace(DONE, state="failed"), Sent(times=2), "hold", True, "run"),
        (None, Sent(job_id="j", keeps_until=101.0), "hold", False, "collect"),
        (None, Sent(job_id="j"), "hold", False, "collect"),
        (None, Sent(job_id="j", keeps_until=100.0), "hold", False, "doubt"),
        (None, Sent(job_id="j", keeps_until=100.0), "retry", False, "run"),
        (None, Sent(), "retry", False, "run"),
        (None, Sent(times=2), "retry", False, "doubt"),
        (None, Sent(), "hold", False, "doubt"),
    ],
)
def test_what_to_do(
    done: Done | None, sent: Sent | None, on_doubt: Any, retry_failed: bool, step: str
) -> None:
    """Done is never sent again; what may have been paid once more at most; an id is asked for."""
    found = next_step(done, sent, now=100.0, on_doubt=on_doubt, retry_failed=retry_failed)
    assert found == step


def test_a_lost_result_is_paid_again_once_at_most() -> None:
    """And not at all where a person is to decide."""
    assert after_loss(Sent(times=1), on_doubt="retry") == "run"
    assert after_loss(Sent(times=2), on_doubt="retry") == "doubt"
    assert after_loss(Sent(times=1), on_doubt="hold") == "doubt"


# The store.


def test_objects_come_back_as_they_were_put(tmp_path: Path) -> None:
    """Outputs first, then the word that they are there; one listing tells what is."""
    record = ObjectRecord(str(tmp_path / "run"))
    assert record.listing().done == frozenset()
    done = record.finish(replace(DONE, seed=7, dollars=0.1), [Content(b"abc", "webp")] * 2)
    assert done.names == (f"{DONE.key}.webp", f"{DONE.key}-2.webp")
    assert record.done(DONE.key) == done
    assert record.get(done.names[1]) == b"abc"
    record.mark_sent("1" * 32, Sent(job_id="j", times=2))
    assert record.sent("1" * 32) == Sent(job_id="j", times=2)
    assert record.sent(DONE.key) is None
    record.finish(replace(DONE, key="2" * 32, state="failed", error="E: x"))
    found = record.listing()
    assert (set(found.done), set(found.failed), set(found.sent)) == (
        {DONE.key},
        {"2" * 32},
        {"1" * 32},
    )


def test_what_was_cut_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    """A record that is no JSON, or another's, is not believed; a cut .sent is still a warning."""
    record = ObjectRecord(str(tmp_path))
    for text in (b"", b'{"key": "x"', b'{"strange": 1}', b"[]"):
        record.put(f"{DONE.key}.json", text)
        assert record.done(DONE.key) is None
        record.put(f"{DONE.key}.sent", text)
        assert record.sent(DONE.key) == Sent()


def test_a_store_that_does_not_answer_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For two minutes, with waits that grow; then it is an error that names the store."""
    now, waits = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        waits.append(seconds)

    record = ObjectRecord(str(tmp_path), sleep=sleep, now=lambda: now)
    calls = 0

    def broken(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        if calls < 4 or calls > 100:
            raise OSError("the network is down")

    monkeypatch.setattr(record._fs, "pipe_file", broken)
    monkeypatch.setattr(record._fs, "mv", lambda *_: None)
    record.put("x", b"y")
    assert waits == [0.25, 0.5, 1.0]
    calls = 100
    with pytest.raises(BatchError, match="could not put x for 120 s: the network is down"):
        record.put("x", b"y")
    assert max(waits) == 8.0
    assert 110 < now < 125


def test_a_store_that_forbids_it_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is tried twice that nobody will allow."""
    record = ObjectRecord(str(tmp_path), sleep=lambda _: pytest.fail("it waited"))

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(record._fs, "pipe_file", forbidden)
    with pytest.raises(BatchError, match="does not allow to put x"):
        record.put("x", b"y")


# Settings.


def test_a_changed_run_is_not_silent(tmp_path: Path) -> None:
    """Another type for the same place is told with both; also=True allows it."""
    options = WorkerOptions(to=str(tmp_path), job_type="a", lease_seconds=0)
    begin(options, also=False)
    begin(options, also=False)
    other = replace(options, job_type="b")
    with pytest.raises(BatchChangedError, match="job_type was 'a' and is 'b'") as caught:
        begin(other, also=False)
    assert caught.value.differences == ("job_type was 'a' and is 'b'",)
    check_settings(ObjectRecord(str(tmp_path)), other, also=True)
    assert json.loads((tmp_path / RUN).read_text())["settings"]["job_type"] == "b"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"submit": "later"}, "submit must be one of"),
        ({"on_doubt": "ask"}, "on_doubt must be one of"),
        ({"to": ""}, "to must be a store's URL"),
    ],
)
def test_options_check_themselves(wrong: dict[str, Any], message: str) -> None:
    """Before a worker is started."""
    with pytest.raises(InvalidRequestError, match=message):
        WorkerOptions(**{"to": "x", **wrong})


def test_what_travels_has_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options pickle and name the variable only; a worker says what to send instead of it."""
    monkeypatch.setenv("PRODIA_TOKEN", "the-very-secret-token")
    options = WorkerOptions(to=str(tmp_path), base_url="http://127.0.0.1:9", lease_seconds=0)
    assert b"secret" not in pickle.dumps(options)
    assert "secret" not in repr(options)
    with pytest.raises(TypeError, match="send its WorkerOptions"):
        pickle.dumps(Worker(options))


def test_a_worker_refuses_before_its_first_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of the package; no token."""
    options = WorkerOptions(to=str(tmp_path), lease_seconds=0)
    monkeypatch.delenv("PRODIA_TOKEN", raising=False)
    with pytest.raises(BatchError, match="has no PRODIA_TOKEN"):
        Worker(options)
    with pytest.raises(BatchError, match=r"and the run began with 0\.0\.0"):
        Worker(replace(options, version="0.0.0"))


# A worker.


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes options for a worker against an emulator of its own."""
    monkeypatch.setenv("PRODIA_TOKEN", "any-token")
    with Emulator(workers=20) as emulator:

        def make(**more: Any) -> WorkerOptions:
            return WorkerOptions(
                **{
                    "to": str(tmp_path / "run"),
                    "job_type": TYPE,
                    "accept": "image/webp",
                    "base_url": emulator.base_url,
                    "lease_seconds": 0,
                    **more,
                }
            )

        make.emulator = emulator  # type: ignore[attr-defined]  # for the tests' eyes
        yield make


async def run(options: WorkerOptions, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    worker = Worker(options)
    try:
        return await worker.rows(rows)
    finally:
        await worker.aclose()


ROWS: list[dict[str, Any]] = [{"prompt": f"a lake {n}", "seed": n} for n in range(1, 11)]


@pytest.mark.parametrize("submit", ["sync", "async"])
async def test_rows_are_paid_once(options: Any, submit: str, tmp_path: Path) -> None:
    """Equal rows once, a second run nothing; a bad row is in its own result."""
    given = options(submit=submit)
    rows = [*ROWS, ROWS[0], {"seed": 1}]
    told = await run(given, rows)
    assert [each["state"] for each in told] == ["done"] * 11 + ["failed"]
    assert told[0] == told[10]
    assert set(told[0]) == set(COLUMNS)
    assert told[0]["seed"] == 1
    assert told[0]["bytes"] == Path(told[0]["path"]).stat().st_size
    assert "no prompt" in told[11]["error"]
    assert options.emulator.ledger.totals().charged == 10
    again = await run(given, list(reversed(ROWS)))
    assert [each["key"] for each in again] == [each["key"] for each in reversed(told[:10])]
    assert options.emulator.ledger.totals().charged == 10


async def test_what_a_dead_worker_had_sent_is_collected(options: Any) -> None:
    """The id in the store is asked for, and nothing is sent."""
    given = options(submit="async")
    request = JobRequest(Job(TYPE, ROWS[0]), accept="image/webp")
    probe = Worker(given)
    key = (await probe._trade.asked(request)).key.hex()
    async with AsyncProdia(base_url=given.base_url) as client:
        job = await client.submit(request.job, accept="image/webp")
    probe._record.mark_sent(key, Sent(job_id=job.id))
    (told,) = await probe.rows([ROWS[0]])
    await probe.aclose()
    assert told["state"] == "done"
    assert told["key"] == key
    assert options.emulator.ledger.totals().charged == 1


async def test_an_expired_result_is_in_doubt_or_paid_again(options: Any) -> None:
    """Under hold it is left with its id; under retry it is sent once more, and counted."""
    held = options(on_doubt="hold")
    worker = Worker(held)
    (key,) = [each["key"] for each in await worker.rows([ROWS[0]])]
    (Path(held.to) / f"{key}.json").unlink()
    worker._record.mark_sent(key, Sent(job_id="00000000-0000-4000-8000-000000000000"))
    (told,) = await worker.rows([ROWS[0]])
    assert told["state"] == "in doubt"
    assert "may have been paid" in told["error"]
    await worker.aclose()
    (told,) = await run(replace(held, on_doubt="retry"), [ROWS[0]])
    assert (told["state"], told["paid_again"]) == ("done", 1)
    assert options.emulator.ledger.totals().charged == 2


async def test_failures_are_kept_and_tried_again_on_request(options: Any) -> None:
    """One row's failure is its own; it is not sent again unless that is said."""
    bad: dict[str, Any] = {"prompt": "x", "steps": 99}
    told = await run(options(), [bad, ROWS[0]])
    assert [each["state"] for each in told] == ["failed", "done"]
    assert "400" in told[0]["error"]
    received = options.emulator.ledger.totals().received
    (again,) = await run(options(), [bad])
    assert again["error"] == told[0]["error"]
    assert options.emulator.ledger.totals().received == received
    await run(options(retry_failed=True), [bad])
    assert options.emulator.ledger.totals().received == received + 1


async def test_nothing_starts_without_the_driver(options: Any) -> None:
    """A lease that was given up stops the worker; what is there is handed over all the same."""
    given = options(lease_seconds=10.0)
    lease = begin(given, also=False)
    assert lease is not None
    worker = Worker(given)
    (first,) = await worker.rows([ROWS[0]])
    assert first["state"] == "done"
    lease.release()
    await worker._look_at_lease()
    told = await worker.rows(ROWS[:2])
    await worker.aclose()
    assert [each["state"] for each in told] == ["done", "left"]
    assert "driver is gone" in told[1]["error"]
    assert options.emulator.ledger.totals().charged == 1


async def test_what_may_have_been_paid_is_in_doubt_under_hold(options: Any) -> None:
    """A lost answer's job is sent by this run and by the next no more; else it has failed."""
    given = options(on_doubt="hold")
    options.emulator.drop_next(1, at="sent")
    for _ in range(2):
        (told,) = await run(given, [ROWS[0]])
        assert told["state"] == "in doubt"
    options.emulator.drop_next(1, at="sent")
    (told,) = await run(options(), [ROWS[1]])
    assert told["state"] == "failed"
    assert options.emulator.ledger.totals().charged == 2


async def test_a_job_that_failed_under_its_id_has_failed(options: Any) -> None:
    """A worker that died had submitted it: it is asked for once, and sent no more."""
    given = options(submit="async")
    row = {**ROWS[0], "prompt": "[fail]"}
    worker = Worker(given)
    async with AsyncProdia(base_url=given.base_url) as client:
        job = await client.submit(Job(TYPE, row), accept="image/webp")
    asked = await worker._trade.asked(JobRequest(Job(TYPE, row), accept="image/webp"))
    worker._record.mark_sent(asked.key.hex(), Sent(job_id=job.id))
    (told,) = await worker.rows([row])
    await worker.aclose()
    assert (told["state"], told["job_id"]) == ("failed", job.id)
    assert options.emulator.ledger.totals().submitted == 1


async def test_columns_of_others_are_not_sent(options: Any) -> None:
    """Whatever else a table has stays in it."""
    row = {**ROWS[0], "steps": 99, "note": "mine"}
    (told,) = await run(options(columns=("prompt", "seed", "height")), [row])
    assert told["state"] == "done"


async def test_a_store_that_fails_is_the_failure_of_a_row(
    options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told in its result and in that of its equal, and nothing was sent."""

    def fails(*_: object) -> None:
        raise BatchError("the store cannot be read")

    monkeypatch.setattr(ObjectRecord, "done", fails)
    told = await run(options(), [ROWS[0], ROWS[0]])
    assert [(each["state"], "cannot be read" in each["error"]) for each in told] == (
        [("failed", True)] * 2
    )
    assert options.emulator.ledger.totals().received == 0


async def test_a_worker_that_is_cancelled_leaves_nobody_waiting(options: Any) -> None:
    """Nor an equal row, which waits for the first."""
    options.emulator.hold()
    worker = Worker(options())
    first = asyncio.create_task(worker.rows([ROWS[0]]))
    await until(lambda: options.emulator.busy == 1)
    second = asyncio.create_task(worker.rows([ROWS[0]]))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first, second], timeout=5)
    assert (first.cancelled(), second.cancelled(), worker._under_way) == (True, True, {})
    options.emulator.release()
    await worker.aclose()


async def test_a_worker_waits_for_a_sign_of_life(
    options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that missed its time may be back; what cannot be read, or says nothing, is none."""
    given = options(lease_seconds=0.3)
    lease = begin(given, also=False)
    assert lease is not None
    lease.over.set()  # its thread ends, and nothing is told
    worker = Worker(given)
    (first,) = await worker.rows([ROWS[0]])
    get = worker._record.get
    monkeypatch.setattr(worker._record, "get", lambda name: b"{")
    await worker._look_at_lease()
    await asyncio.sleep(0.3)
    monkeypatch.setattr(worker._record, "get", lambda name: None)
    await worker._look_at_lease()
    waiting = asyncio.create_task(worker.rows([ROWS[1]]))
    await asyncio.sleep(0.05)
    assert (first["state"], waiting.done()) == ("done", False)
    assert options.emulator.ledger.totals().received == 1
    lease.put()
    monkeypatch.setattr(worker._record, "get", get)
    assert [each["state"] for each in await waiting] == ["done"]
    await worker.aclose()


def test_a_driver_renews_while_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that fails once is tried again; given up it says so, once; forgotten it ends."""
    lease = begin(WorkerOptions(to=str(tmp_path), lease_seconds=0.03), also=False)
    assert lease is not None
    put, failed = ObjectRecord.put, threading.Event()

    def fails_once(self: ObjectRecord, name: str, content: bytes) -> None:
        if not failed.is_set():
            failed.set()
            raise BatchError("the store cannot be written")
        put(self, name, content)

    monkeypatch.setattr(ObjectRecord, "put", fails_once)
    assert failed.wait(5)
    before = (tmp_path / LEASE).read_bytes()
    end = time.monotonic() + 5
    while (tmp_path / LEASE).read_bytes() == before:
        assert time.monotonic() < end
        time.sleep(0.005)
    assert f"<Lease on {lease._record.url!r}, renewed " in repr(lease)
    lease.release()
    lease._thread.join(5)
    last = (tmp_path / LEASE).read_bytes()
    assert json.loads(last)["released"]
    lease.release()
    assert (tmp_path / LEASE).read_bytes() == last
    forgotten = begin(WorkerOptions(to=str(tmp_path), lease_seconds=0.03), also=False)
    assert forgotten is not None
    thread = forgotten._thread
    del forgotten
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("can_be_written", [True, False])
def test_a_driver_that_ends_gives_its_lease_up(tmp_path: Path, can_be_written: bool) -> None:
    """So that no worker goes on until it has run out; and a store that has gone is no error."""
    code = (
        "import shutil, sys\n"
        "from prodia_async.batch._driver import begin\n"
        "from prodia_async.batch._cluster import WorkerOptions\n"
        "from prodia_async.batch._objects import ObjectRecord\n"
        "from prodia_async.batch import BatchError\n"
        "held = begin(WorkerOptions(to=sys.argv[1], lease_seconds=60), also=False)\n"
        "def fails(*_):\n"
        "    raise BatchError('gone')\n"
        f"if not {can_be_written}:\n"
        "    ObjectRecord.put = fails\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert json.loads((tmp_path / LEASE).read_bytes())["released"] == can_be_written


def test_a_killed_driver_renews_nothing(tmp_path: Path) -> None:
    """The lease changes while the process lives, and not after a SIGKILL."""
    code = (
        "import sys, time\n"
        "from prodia_async.batch._driver import begin\n"
        "from prodia_async.batch._cluster import WorkerOptions\n"
        "held = begin(WorkerOptions(to=sys.argv[1], lease_seconds=0.3), also=False)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"held\n"
        lease = tmp_path / LEASE
        before, until = lease.read_bytes(), time.monotonic() + 10
        while lease.read_bytes() == before:
            assert time.monotonic() < until
            time.sleep(0.02)
        driver.kill()
        driver.wait()
    last = lease.read_bytes()
    time.sleep(0.4)
    assert lease.read_bytes() == last
    assert not json.loads(last)["released"]


def test_the_environment_is_not_touched() -> None:
    """Importing the adapters needs neither engine, and says which extra is missing."""
    code = (
        "import sys\n"
        "sys.modules['ray'] = sys.modules['daft'] = None\n"
        "from prodia_async.integrations import daft, ray\n"
        "for call in (lambda: ray.run_jobs(None, to='x'), lambda: daft.prodia_udf(to='x')):\n"
        "    try:\n"
        "        call()\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert "prodia-async[ray]" in done.stdout
    assert "prodia-async[daft]" in done.stdout


# From many machines to one, and back.


async def test_a_run_goes_to_a_folder_and_back(options: Any, tmp_path: Path) -> None:
    """The store's record is read as a batch's; a batch in the folder and workers go on from it."""
    given = options(to=f"file://{tmp_path}/run")
    told = await run(given, [*ROWS, {"prompt": "x", "steps": 99}])
    record = BatchRecord(given.to)
    summary = record.summary()
    assert (summary.done, summary.failed) == (10, 1)
    assert summary.dollars == pytest.approx(10 * 0.0025)
    assert {row.key for row in record.rows()} == {each["key"] for each in told}
    assert str(record.verify(hashes=True)).startswith("10 outputs are there")
    jobs = [JobRequest(Job(TYPE, row), accept="image/webp") for row in ROWS]
    assert to_folder(given.to, tmp_path / "folder") == 11
    with pytest.raises(FileExistsError, match="holds a record already"):
        to_folder(given.to, tmp_path / "folder")
    charged = options.emulator.ledger.totals().charged
    async with (
        AsyncProdia(base_url=given.base_url, price=True) as client,
        Batch(tmp_path / "folder", client, outputs=given.to, progress=False) as batch,
    ):
        more = JobRequest(Job(TYPE, {"prompt": "one more"}), accept="image/webp")
        summary = await batch.run([*jobs, more])
    assert summary.done == 11
    assert options.emulator.ledger.totals().charged == charged + 1
    back = f"file://{tmp_path}/back"
    assert to_store(BatchRecord(tmp_path / "folder"), back) == 11
    assert to_store(BatchRecord(tmp_path / "folder"), back) == 0
    again = await run(options(to=back), [*ROWS, {"prompt": "one more"}])
    assert [each["state"] for each in again] == ["done"] * 11
    assert options.emulator.ledger.totals().charged == charged + 1


async def test_what_a_store_has_lost_is_made_again(options: Any, tmp_path: Path) -> None:
    """What `verify` gives back, it gives back in the store: the next worker makes it."""
    given = options(to=f"file://{tmp_path}/run")
    told = await run(given, ROWS)
    Path(told[3]["path"].removeprefix("file://")).unlink()
    found = BatchRecord(given.to).verify()
    assert (len(found.missing), found.checked, found.returned) == (1, 10, True)
    record = BatchRecord(given.to)
    assert (record.summary().done, record.verify().is_whole) == (9, True)
    assert [each["state"] for each in await run(given, ROWS)] == ["done"] * 10
    assert options.emulator.ledger.totals().charged == 11
    assert str(BatchRecord(given.to).verify()) == "10 outputs are there and whole"


@pytest.mark.skipif(
    "PYTHONASYNCIODEBUG" in os.environ,
    reason="aiohttp's strict parser, in debug mode, refuses this server's two Server headers",
)
async def test_over_a_real_s3_server(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects over HTTP: made once, found by the next worker, read as a record."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", f"http://{host}:{port}")
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem(endpoint_url=f"http://{host}:{port}").mkdir("pictures")
        given = options(to="s3://pictures/run-7/")
        assert [each["state"] for each in await run(given, ROWS)] == ["done"] * 10
        told = await run(given, ROWS)
        assert told[0]["path"] == f"s3://pictures/run-7/{told[0]['key']}.webp"
        assert options.emulator.ledger.totals().charged == 10
        record = await asyncio.to_thread(BatchRecord, given.to)
        assert (await asyncio.to_thread(record.summary)).done == 10
        found = await asyncio.to_thread(record.verify, hashes=True)
        assert str(found).startswith("10 outputs are there")
    finally:
        server.stop()
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
