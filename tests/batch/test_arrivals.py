"""What has arrived and is not recorded yet: it is never more than allowed, and no kill takes it."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import until
from processes import SCHNELL, Child, charges, check_all_done, check_honest, run, settle

from prodia_async import AsyncProdia
from prodia_async.batch import Batch, BatchRecord, _outputs
from prodia_async.batch._arrivals import ARRIVED, SLOT_BYTES, Arrivals, find, last_arrived, take_in
from prodia_async.batch._decide import State
from prodia_async.batch._folder import marks_of
from prodia_async.batch._opening import settle as settle_rows
from prodia_async.batch._outputs import Content, Task
from prodia_async.batch._record import Finish, Promise, Record, Saved
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from prodia_async.batch._run import Run

pytestmark = pytest.mark.timeout(180)


def fox(seed: int) -> dict[str, Any]:
    return {
        "type": SCHNELL,
        "config": {"prompt": "a fox", "seed": seed, "width": 256, "height": 256},
    }


@pytest.fixture(name="api")
def _api() -> Iterator[Emulator]:
    with Emulator(workers=20, latency=0.02) as emulator:
        yield emulator


def run_of(batch: Batch) -> Run:
    assert batch._run is not None
    return batch._run


# How many.


class Gate:
    """Holds threads back where it was put, until it is opened."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self.open = threading.Event()
        self.waiting = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        with self._lock:
            self.waiting += 1
        assert self.open.wait(60)
        return self._call(*args, **options)


@pytest.mark.parametrize(
    ("layout", "held", "sent"),
    [("files", "_write", (4, 4)), ("files", "_sync", (8, 8)), ("tar", "_sync", (5, 8))],
)
async def test_what_may_be_lost_is_never_more_than_may_be_in_flight(
    tmp_path: Path,
    api: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    *,
    layout: Any,
    held: str,
    sent: tuple[int, int],
) -> None:
    """
    To a kill: what only memory has. To a power cut: that, and as many that are not synced yet.

    With four in flight: four answers that nobody could write are all that is sent.
    Four that are written and not synced make way for four more, and for none after these.
    """
    monkeypatch.setattr(_outputs.Files, "threads", 20)
    monkeypatch.setattr(_outputs, held, gate := Gate(getattr(_outputs, held)))
    async with AsyncProdia("any", base_url=api.base_url, max_concurrency=4) as client:
        settings: dict[str, Any] = {"progress": False, "signals": False, "layout": layout}
        async with (
            Batch(tmp_path / "run", client, **settings) as batch,
            anyio.create_task_group() as group,
        ):
            group.start_soon(batch.run, [fox(n) for n in range(30)])
            try:
                await until(lambda: api.ledger.totals().charged >= sent[0])
                await anyio.sleep(0.4)
                assert api.ledger.totals().received <= sent[1]
                assert gate.waiting
                assert run_of(batch).watch.progress().done == 0, "told before it is safe"
            finally:
                gate.open.set()
    assert api.ledger.totals().charged == 30
    assert BatchRecord(tmp_path / "run").summary().done == 30


@pytest.mark.parametrize(("jobs", "written"), [(30, 8), (4, 4)])
async def test_what_has_landed_is_made_safe_whatever_becomes_of_the_run(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch, jobs: int, written: int
) -> None:
    """Cancelled, or stopped at once: the run ends when they are recorded; none is in doubt."""
    monkeypatch.setattr(_outputs.Files, "threads", 20)
    monkeypatch.setattr(_outputs, "_sync", gate := Gate(_outputs._sync))
    folder = tmp_path / "run"
    async with AsyncProdia("any", base_url=api.base_url, max_concurrency=4) as client:
        async with (
            Batch(folder, client, progress=False, signals=False) as batch,
            anyio.create_task_group() as group,
        ):
            unsafe: list[int] = []

            async def work() -> None:
                try:
                    await batch.run([fox(n) for n in range(jobs)])
                finally:
                    unsafe.append(run_of(batch).arrivals.let_go)

            group.start_soon(work)
            await until(lambda: gate.waiting == written)
            await anyio.sleep(0.2)
            going = run_of(batch)
            going.stop_now("now")
            assert len(batch.in_doubt()) == written - 4, "what has landed is in doubt"
            group.cancel_scope.cancel()
            threading.Timer(0.2, gate.open.set).start()
    assert unsafe == [0], "it ended before they were safe"
    summary = going.summary()
    assert (summary.done, summary.in_doubt) == (written, 0)
    assert summary.dollars == pytest.approx(written * 0.0025)
    assert api.ledger.totals().charged == BatchRecord(folder).summary().done == written


async def test_what_has_landed_counts_towards_the_limit(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the price expected of it, until it is recorded at what it cost; and once."""
    monkeypatch.setattr(_outputs.Files, "threads", 20)
    monkeypatch.setattr(_outputs, "_sync", gate := Gate(_outputs._sync))
    folder = tmp_path / "run"
    async with AsyncProdia("any", base_url=api.base_url, max_concurrency=4) as client:
        settings: dict[str, Any] = {"progress": False, "signals": False, "max_cost": 0.015}
        async with Batch(folder, client, **settings) as batch, anyio.create_task_group() as group:
            group.start_soon(batch.run, [fox(n) for n in range(30)])
            await until(lambda: gate.waiting == 6)
            await anyio.sleep(0.3)
            going = run_of(batch)
            assert going.stopped is None, "it is not known yet what those cost"
            gate.open.set()
    assert (going.purse.in_flight, going.purse.told) == (0, 15_000_000)
    assert api.ledger.totals().received == BatchRecord(folder).summary().done == 6


@pytest.mark.parametrize("layout", ["files", "tar"])
async def test_what_has_landed_and_cannot_be_made_safe_is_kept_aside(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch, layout: Any
) -> None:
    """
    The disk takes the bytes and then fails to sync them: a stop, and nothing is paid again.

    What is kept is done, for the record as for the run that kept it.
    """

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    sync = _outputs._sync
    monkeypatch.setattr(_outputs, "_sync", broken)
    folder = tmp_path / "run"
    jobs = [fox(n) for n in range(30)]
    settings: dict[str, Any] = {"progress": False, "signals": False, "layout": layout}
    async with AsyncProdia("any", base_url=api.base_url, max_concurrency=4) as client:
        async with Batch(folder, client, **settings) as batch:
            first = await batch.run(jobs)
        assert first.exit_code == 3
        assert "Input/output error" in str(first.broken)
        paid = api.ledger.totals().charged
        assert 4 <= first.done == paid < 30
        record = BatchRecord(folder)
        found = record.summary()
        assert (found.done, found.in_doubt, found.dollars) == (paid, 0, first.dollars)
        assert [row.state for row in record.rows()] == ["done"] * paid
        assert all(record.read(row)[:2] == b"\xff\xd8" for row in record.rows())
        assert record.verify(hashes=True).checked == 0, "they are no outputs yet"
        assert not list(folder.rglob("*.part")), "it is held twice"
        monkeypatch.setattr(_outputs, "_sync", sync)
        async with Batch(folder, client, **settings) as batch:
            second = await batch.run(jobs)
    assert (second.done, second.done_before, second.paid_again) == (30, paid, 0)
    assert set(charges(api).values()) == {1}
    assert str(record.verify(hashes=True)) == "30 outputs are there and whole"
    assert list((folder / "reserve").iterdir()) == []


def test_a_shard_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in it is written over itself, and a full shard that is not safe is no end of it."""
    wrong: list[int] = []

    def sync(file: int) -> None:
        if wrong:
            raise OSError(wrong.pop(), "Input/output error")
        os.fsync(file)

    monkeypatch.setattr(_outputs, "_sync", sync)
    shards = _outputs.Shards(tmp_path / "shards", [])
    tasks = [
        Task(arrived(i, saved=[]), [Content(bytes([i]) * 600, "jpg")], Promise(), "{}")
        for i in range(3)
    ]
    where: list[tuple[Any, Any]] = []

    def landed(task: Task) -> None:
        (saved,) = task.end.saved
        where.append((saved.shard, saved.offset))
        path = tmp_path / "shards" / f"shard-{saved.shard:05}.tar"
        content = path.read_bytes()
        for i, (_, at) in enumerate(where):
            assert content[at : at + 600] == bytes([i % 3]) * 600

    wrong.append(5)
    with pytest.raises(OSError, match="Input/output"):
        shards.save(tasks, landed)
    assert [task.end.saved for task in tasks] == [[], [], []]
    shards.save(tasks, landed)
    assert where[:3] == where[3:]
    size = (tmp_path / "shards" / "shard-00000.tar").stat().st_size
    monkeypatch.setattr(_outputs, "SHARD_BYTES", size + 100)
    wrong.append(5)
    with pytest.raises(OSError, match="Input/output"):
        shards.save(tasks[:1])
    shards.save(tasks[1:2])
    assert tasks[1].end.saved[0].shard == 1
    wrong.append(5)
    shards.close()


@pytest.mark.parametrize("why", ["full", "long"])
async def test_a_row_that_cannot_be_noted_holds_its_slot(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """A full disk, or facts that are too long: it is in memory alone until it is safe."""
    if why == "long":
        monkeypatch.setattr("prodia_async.batch._arrivals.SLOT_BYTES", 100)
    else:

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.pwrite", full)
    monkeypatch.setattr(_outputs.Files, "threads", 20)
    monkeypatch.setattr(_outputs, "_sync", gate := Gate(_outputs._sync))
    async with AsyncProdia("any", base_url=api.base_url, max_concurrency=4) as client:
        async with (
            Batch(tmp_path / "run", client, progress=False, signals=False) as batch,
            anyio.create_task_group() as group,
        ):
            group.start_soon(batch.run, [fox(n) for n in range(12)])
            await until(lambda: gate.waiting == 4)
            await anyio.sleep(0.3)
            received = api.ledger.totals().received
            gate.open.set()
            assert received == 4
    assert api.ledger.totals().charged == BatchRecord(tmp_path / "run").summary().done == 12


# Notes.


def arrived(i: int, **changes: Any) -> Finish:
    facts: dict[str, Any] = {"session": 1, "saved": [Saved(None, "jpg", sha(b"abc"), 3)], **changes}
    return Finish(i, bytes([i]) * 16, State.DONE, None, type=SCHNELL, **facts)


def sha(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@pytest.fixture(name="record")
def _record(tmp_path: Path) -> Iterator[Record]:
    record = Record(tmp_path / "run.sqlite", notify=lambda *_: None)
    record.connection.execute("INSERT INTO session(s, began, settings) VALUES(1, 0, '{}')")
    for i in range(6):
        record.connection.execute(
            "INSERT INTO open(i, k, type, again, request) VALUES(?,?,?,0,?)",
            (i, bytes([i]) * 16, SCHNELL, f'{{"row": {i}}}'),
        )
    yield record
    record.close()


def test_notes(tmp_path: Path, record: Record) -> None:
    """Each in its slot, which is given to the next; read from whatever is left of the file."""
    arrivals = Arrivals(tmp_path / ARRIVED, 2)
    arrivals.start()
    assert [arrivals.take() for _ in range(3)] == [0, 1, 2]
    for slot in range(3):
        assert arrivals.note(slot, arrived(slot, request="x" * 5000))
    found = last_arrived(record.connection, tmp_path)
    assert found == {i: arrived(i) for i in range(3)}
    arrivals.give_back(1)
    assert (arrivals.take(), arrivals.take()) == (1, 3)
    assert arrivals.note(1, arrived(7, session=2))
    assert not arrivals.note(3, arrived(8, job_id="x" * SLOT_BYTES))
    assert set(last_arrived(record.connection, tmp_path)) == {0, 2}, "of another run"
    assert arrivals.may_let_go()
    arrivals.let_go = 2
    assert not arrivals.may_let_go()
    arrivals.close()
    content = (tmp_path / ARRIVED).read_bytes()
    (tmp_path / ARRIVED).write_bytes(content[: 2 * SLOT_BYTES + 20])
    assert set(last_arrived(record.connection, tmp_path)) == {0}
    (tmp_path / ARRIVED).write_bytes(content.replace(b'"price":null', b'"price":1234', 1))
    assert set(last_arrived(record.connection, tmp_path)) == {2}, "what is not what was noted"
    (tmp_path / ARRIVED).write_bytes(bytes(3))
    assert last_arrived(record.connection, tmp_path) == {}
    again = Arrivals(tmp_path / ARRIVED, 2)
    again.start()
    assert (tmp_path / ARRIVED).stat().st_size == 0
    again.close()
    (tmp_path / ARRIVED).unlink()
    assert last_arrived(record.connection, tmp_path) == {}


def test_what_is_taken_in(tmp_path: Path, record: Record) -> None:
    """Under either name, whole, of a row that is open under that key, and all of its outputs."""
    folder = tmp_path / "out" / "000" / "00"
    folder.mkdir(parents=True)

    def put(i: int, name: str, content: bytes = b"abc") -> None:
        (folder / f"{i:08}-{bytes([i]).hex() * 4}{name}").write_bytes(content)

    arrivals = Arrivals(tmp_path / ARRIVED, 9)
    two = [Saved(None, "jpg", sha(b"abc"), 3), Saved("two", "png", sha(b"de"), 2)]
    ends = [
        arrived(0), arrived(1), arrived(2),
        arrived(3, saved=two), arrived(4, saved=two), arrived(9), arrived(5, saved=[]),
    ]  # fmt: skip
    ends[2].k = bytes(16)
    for slot, end in enumerate(ends):
        assert arrivals.note(slot, end)
    arrivals.close()
    put(0, ".jpg.part")
    put(1, ".jpg")
    put(1, ".jpg.part", b"ab")  # of a save that was tried again
    put(2, ".jpg.part")
    put(3, ".jpg.part")
    put(3, "-2.png.part", b"de")
    put(4, ".jpg.part")
    put(4, "-2.png.part", b"dx")
    assert take_in(record, tmp_path) == (3, {4, 5})
    rows = record.connection.execute("SELECT i, state, sha256, bytes FROM job ORDER BY i")
    assert rows.fetchall() == [(i, State.DONE, sha(b"abc"), 3) for i in (0, 1, 3)]
    open_rows = record.connection.execute("SELECT i FROM open ORDER BY i").fetchall()
    assert open_rows == [(2,), (4,), (5,)]
    settle_rows(record, {}, 2, 0.0, are_exact=True, damaged={4, 5})
    doubtful = record.connection.execute("SELECT i, error FROM job WHERE state=4 ORDER BY i")
    assert [(i, error.endswith("damaged on the disk")) for i, error in doubtful] == [
        (4, True),
        (5, True),
    ]
    assert record.connection.execute("SELECT count(*) FROM open").fetchone() == (0,)
    record.connection.execute("DELETE FROM request WHERE i IN (4, 5)")
    requests = record.connection.execute("SELECT i, line FROM request ORDER BY i").fetchall()
    assert requests == [(i, f'{{"row": {i}}}') for i in (0, 1, 3)]
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "00000000-00000000.jpg", "00000001-01010101.jpg", "00000001-01010101.jpg.part",
        "00000002-02020202.jpg.part", "00000003-03030303-2.png", "00000003-03030303.jpg",
        "00000004-04040404-2.png.part", "00000004-04040404.jpg.part",
    ]  # fmt: skip


# Killed on the way.

AT = """
import os, signal, threading, time
from prodia_async.batch import _arrivals, _outputs, _record

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def at(owner, name, number, *, after=False, only=lambda args: True):
    call, count, lock = getattr(owner, name), [0], threading.Lock()
    def counted(*args, **options):
        with lock:
            if only(args):
                count[0] += 1
            dies = only(args) and count[0] == number
        if dies and not after:
            die()
        value = call(*args, **options)
        if dies:
            die()
        return value
    setattr(owner, name, counted)
"""

PLACES = {
    "half written": "at(_outputs, '_write', 20)",
    "written": "at(_outputs, '_write', 20, after=True)",
    "noted": "at(_arrivals.Arrivals, 'note', 20, after=True)",
    "being synced": "at(_outputs, '_sync', 20)",
    "synced": "at(_outputs, '_sync', 20, after=True)",
    "named": "at(os, 'rename', 20, after=True)",
    "being recorded": "at(_record.Record, '_finish_all', 4)",
    "recorded": "at(_record.Record, '_finish_all', 4, after=True)",
}


FAILING = """
from prodia_async.batch import _ends

def fail(*_):
    raise OSError(5, "Input/output error")

def failing(number):
    sync, count = _outputs._sync, [0]
    def counted(file):
        count[0] += 1
        (fail if count[0] >= number else sync)(file)
    _outputs._sync = counted

failing(20)
"""

FAILED_PLACES = {
    "written once more": "at(_outputs, '_sync', 24)",
    "given up": "at(_ends, 'keep_aside', 1)",
    "kept": "at(_ends, 'keep_aside', 1, after=True)",
    "kept nowhere": "_ends.keep_aside = lambda *_: None",
}


def noted(folder: Path) -> dict[int, Finish]:
    connection = sqlite3.connect(folder / "run.sqlite")
    try:
        return last_arrived(connection, folder)
    finally:
        connection.close()


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_takes_nothing_that_has_arrived(tmp_path: Path, api: Emulator, place: str) -> None:
    """Wherever on its way to the record: what was noted is taken in, and is paid once."""
    folder = tmp_path / "run"
    wanted = {"folder": folder, "jobs": 60, "client": {"max_concurrency": 10}}
    killed = Child(api, {**wanted, "first": AT + PLACES[place]})
    assert killed.end() == -signal.SIGKILL, killed.stderr
    settle(api)
    check_honest(api, folder, killed.reported)
    before = BatchRecord(folder)
    done = {row.row for row in before.rows() if row.state == "done"}
    came = {i: end for i, end in noted(folder).items() if i not in done}
    assert all(find(folder, end) for end in came.values())
    doubtful = {row.row for row in before.in_doubt()}
    assert not doubtful & set(came), "what has arrived is in doubt"
    # Each row is its own seed.
    assert doubtful | set(came) | done >= set(charges(api))
    assert len(doubtful) <= 10
    if place not in {"half written", "written"}:
        assert came
    again = run(api, wanted)
    assert again.process.returncode == 0, again.stderr
    assert (f"{len(came)} outputs that had arrived" in str(again.summary())) == bool(came)
    twice = check_all_done(api, folder, 60)
    assert twice <= len(doubtful)
    paid = charges(api)
    assert {paid[i] for i in came} <= {1}, "what had arrived was paid again"
    rows = {row.row: row for row in BatchRecord(folder).rows()}
    for i, end in came.items():
        assert (rows[i].sha256, rows[i].job_id) == (end.saved[0].sha256.hex(), end.job_id)
        assert (rows[i].dollars, rows[i].seed, rows[i].id) == (0.0025, i, f"fox-{i}")
        assert rows[i].request is not None
    assert BatchRecord(folder).summary().dollars == pytest.approx(60 * 0.0025)
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize("submit", ["sync", "async"])
@pytest.mark.parametrize("place", FAILED_PLACES)
def test_a_sync_that_fails_takes_nothing_that_has_arrived(
    tmp_path: Path, api: Emulator, place: str, submit: str
) -> None:
    """What was written stays until something else holds it, whether a kill comes between or not."""
    folder = tmp_path / "run"
    wanted = {
        "folder": folder,
        "jobs": 60,
        "client": {"max_concurrency": 10},
        "batch": {"submit": submit},
    }
    broken = Child(api, {**wanted, "first": AT + FAILING + FAILED_PLACES[place]})
    assert broken.end() == (3 if place == "kept nowhere" else -signal.SIGKILL), broken.stderr
    settle(api)
    before = BatchRecord(folder)
    came = set(noted(folder))
    assert came, "nothing had arrived: this test shows nothing"
    doubtful = {row.row for row in before.in_doubt()}
    assert not doubtful & came, "what has arrived is in doubt"
    told = before.summary()
    assert told.in_doubt == len(doubtful)
    if place == "kept nowhere":
        assert told.done == broken.summary()["done"]
    again = run(api, wanted)
    assert again.process.returncode == 0, again.stderr
    assert check_all_done(api, folder, 60) <= len(doubtful)
    paid = charges(api)
    assert {paid[i] for i in came} == {1}, "what had arrived was paid again"


HELD = (
    AT
    + """
def held(*args):
    if not os.path.exists({flag!r}):
        time.sleep(60)
_outputs._sync = held
"""
)


def held_back(
    api: Emulator, tmp_path: Path, count: int, **options: Any
) -> tuple[dict[str, Any], Path]:
    """Kill a run when so many answers have arrived, and none has been synced."""
    folder = tmp_path / "run"
    wanted = {"folder": folder, "jobs": 30, "client": {"max_concurrency": 4}, **options}
    held = "from prodia_async.batch import _outputs; _outputs.Files.threads = 20\n"
    child = Child(api, {**wanted, "first": held + HELD.format(flag=str(tmp_path / "never"))})
    end = time.monotonic() + 30
    while len(noted(folder) if (folder / "run.sqlite").exists() else ()) < count:
        assert time.monotonic() < end, "they never arrived"
        time.sleep(0.05)
    time.sleep(0.1)  # the slots that were given away are taken
    while api.ledger.totals().received < len(marks_of(folder)):
        assert time.monotonic() < end, "what was sent never came"
        time.sleep(0.05)
    child.end(signal.SIGKILL)
    settle(api)
    return wanted, folder


@pytest.mark.parametrize(
    ("layout", "submit", "count"),
    [("files", "sync", 8), ("files", "async", 8), ("tar", "sync", 1), ("tar", "async", 1)],
)
def test_what_arrived_is_taken_in(
    tmp_path: Path, api: Emulator, layout: str, submit: str, count: int
) -> None:
    """Twice as many as may be in flight, none synced: byte for byte, and none paid again."""
    options = {"layout": layout, "submit": submit}
    wanted, folder = held_back(api, tmp_path, count, batch=options)
    came = noted(folder)
    before = BatchRecord(folder)
    assert before.summary().done == 0
    doubtful = {row.row for row in before.in_doubt()}
    assert not doubtful & set(came)
    if layout == "files":
        assert not doubtful
    second = run(api, wanted)
    assert second.process.returncode == 0, second.stderr
    rows = {row.row: row for row in BatchRecord(folder).rows()}
    record = BatchRecord(folder)
    for i, end in came.items():
        assert hashlib.sha256(record.read(rows[i])).digest() == end.saved[0].sha256
    assert record.verify(hashes=True).checked == record.summary().done == 30
    paid = charges(api)
    assert sum(paid.values()) == 30 + second.summary()["paid_again"]
    assert {paid[i] for i in came} == {1}
    assert second.summary()["paid_again"] == len(doubtful)
    assert run(api, wanted).summary()["done_before"] == 30


@pytest.mark.parametrize("harm", ["cut", "flipped", "longer", "gone", "note"])
@pytest.mark.parametrize("on_doubt", ["hold", "retry"])
def test_what_arrived_and_is_damaged_is_in_doubt(
    tmp_path: Path, api: Emulator, harm: str, on_doubt: str
) -> None:
    """It is noticed before anything is recorded, said, and left for a person, or paid once more."""
    options = {"on_doubt": on_doubt}
    wanted, folder = held_back(api, tmp_path, 8, batch=options)
    victim = min(noted(folder))
    (path,) = (folder / "out").rglob(f"{victim:08}-*.part")
    content = path.read_bytes()
    if harm == "cut":
        path.write_bytes(content[:-1])
    elif harm == "flipped":
        path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    elif harm == "longer":
        path.write_bytes(content + b"x")
    elif harm == "gone":
        path.unlink()
    else:
        facts = (folder / ARRIVED).read_bytes()
        start = next(
            at for at in range(0, len(facts), SLOT_BYTES)
            if f'"i":{victim},'.encode() in facts[at : at + SLOT_BYTES]
        )  # fmt: skip
        (folder / ARRIVED).write_bytes(
            facts[: start + 30] + bytes([facts[start + 30] ^ 1]) + facts[start + 31 :]
        )
    assert {row.row for row in BatchRecord(folder).in_doubt()} == {victim}
    second = run(api, wanted)
    paid = charges(api)
    record = BatchRecord(folder)
    if on_doubt == "hold":
        assert second.process.returncode == 1, second.stderr
        (row,) = record.in_doubt()
        assert row.row == victim
        why = "with the server" if harm == "note" else "is damaged on the disk"
        assert str(row.error).startswith("InDoubt: ")
        assert str(row.error).endswith(why)
        assert set(paid.values()) == {1}
        assert record.summary().doubtful_dollars == pytest.approx(0.0025)
    else:
        assert second.process.returncode == 0, second.stderr
        assert check_all_done(api, folder, 30) == 1
        assert paid[victim] == 2
        assert second.summary()["paid_again"] == 1
    assert not list(folder.rglob("*.part"))
