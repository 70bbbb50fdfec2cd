"""A run's folder: who may open it, and what becomes of what it cannot take."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import until
from test_troubles import batch_of, fox, run

from prodia_async import AsyncProdia
from prodia_async.batch import (
    Batch,
    BatchError,
    BatchRecord,
    FolderInUseError,
    RecordDamagedError,
    _folder,
    _opening,
)
from prodia_async.batch._folder import (
    Lock,
    Marks,
    Reserve,
    allocate,
    boot_id,
    refuse_network,
    written_whole,
)
from prodia_async.batch._objects import ObjectRecord
from prodia_async.batch._opening import renew
from prodia_async.batch._outputs import Content
from prodia_async.batch._record import Record
from prodia_async.batch._snapshot import _is_alive
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PRICE = 0.0025


@pytest.fixture(name="api")
def _api() -> Iterator[Emulator]:
    with Emulator(workers=4) as emulator:
        yield emulator


@pytest.fixture(name="elsewhere", autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, of this test's own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return Reserve(tmp_path / "run").elsewhere


def change(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "run.sqlite")) as connection, connection:
        for each in statements:
            connection.execute(each)


def lease_of(folder: Path, **other: Any) -> dict[str, Any]:
    """Return what a record's lease says, changed first as told."""
    with closing(sqlite3.connect(folder / "run.sqlite")) as connection, connection:
        (line,) = connection.execute("SELECT v FROM run WHERE k='lease'").fetchone()
        lease: dict[str, Any] = {**json.loads(line), **other}
        connection.execute("UPDATE run SET v=? WHERE k='lease'", (json.dumps(lease),))
    return lease


# What cannot be opened.


async def test_a_folder_that_cannot_be_made(tmp_path: Path, api: Emulator) -> None:
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(BatchError, match="cannot be made"):
        await run(api, tmp_path / "run", [fox(1)])
    assert api.ledger.totals().received == 0


@pytest.mark.parametrize(
    ("statement", "kind", "match"),
    [
        ("DROP TABLE session", BatchError, "cannot be written: no such table"),
        (
            "CREATE TRIGGER t BEFORE INSERT ON session BEGIN SELECT RAISE(ABORT, 'broken'); END",
            RecordDamagedError,
            "is damaged: broken",
        ),
        (None, BatchError, "cannot be written: Is a directory"),
    ],
)
async def test_a_folder_that_cannot_be_gone_on_with(
    tmp_path: Path, api: Emulator, statement: str | None, kind: type[BatchError], match: str
) -> None:
    """Nothing is sent, the error says what it is, and the folder is free for another try."""
    folder = tmp_path / "run"
    await run(api, folder, [fox(1)])
    if statement is not None:
        change(folder, statement)
    else:
        (folder / "flight.bin").unlink()
        (folder / "flight.bin").mkdir()
    with pytest.raises(BatchError, match=match) as caught:
        await run(api, folder, [fox(2)])
    assert type(caught.value) is kind
    assert api.ledger.totals().received == 1
    Lock(folder).release()


async def test_a_record_that_cannot_be_opened(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_opening, "Record", refuse)
    with pytest.raises(BatchError, match=r"cannot be opened: .*Permission denied"):
        await run(api, tmp_path / "run", [fox(1)])
    Lock(tmp_path / "run").release()


def test_where_nothing_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems without Linux's files, `flock` or `posix_fallocate` are served as they can be."""

    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(_folder, "fcntl", None)
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    refuse_network(tmp_path)
    assert boot_id() == ""
    Lock(tmp_path).release()
    path = tmp_path / "space"
    path.write_bytes(b"abc")
    with path.open("r+b") as file:
        allocate(file.fileno(), 3_000_000)
    assert path.stat().st_size == 3_000_000
    assert path.read_bytes()[:4] == b"abc\0"


def test_a_reserve_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="there is no room for a run"):
        Reserve(tmp_path / "missing").take()


def test_marks_that_were_never_begun_are_closed(tmp_path: Path) -> None:
    """As when a folder turns out to be somebody else's."""
    marks = Marks(tmp_path / "flight.bin")
    assert marks.marked() == {}
    marks.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(marks._file)


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    """What was to be copied is missing, and not what was to be written."""
    with pytest.raises(FileNotFoundError) as caught:
        with written_whole(tmp_path / "new.txt"):
            (tmp_path / "old.txt").read_bytes()
    assert caught.value.filename == str(tmp_path / "old.txt")
    assert [each.name for each in tmp_path.iterdir()] == ["tmp"]


# Leases.


async def test_a_lease_that_is_given_up_while_it_is_watched(tmp_path: Path, api: Emulator) -> None:
    """A run on another machine that ends then is not waited for any longer."""
    folder = tmp_path / "run"
    await run(api, folder, [fox(1)])
    lease_of(folder, host="another-machine", released=False)

    def release() -> None:
        time.sleep(0.3)
        lease_of(folder, released=True)

    thread = threading.Thread(target=release)
    thread.start()
    began = time.monotonic()
    summary = await run(api, folder, [fox(1), fox(2)], lease_seconds=30)
    assert time.monotonic() - began < 20
    thread.join()
    assert (summary.done, api.ledger.totals().charged) == (2, 2)


async def test_a_lease_of_another_is_not_given_up(tmp_path: Path, api: Emulator) -> None:
    """Who took a folder over while this run slept still holds it when this one ends."""
    folder = tmp_path / "run"
    async with batch_of(api, folder) as batch:
        await batch.run([fox(1)])
        lease_of(folder, token="another's")
        with closing(sqlite3.connect(folder / "run.sqlite")) as connection:
            assert not renew(connection, "mine")
            assert renew(connection, "another's")
            connection.rollback()
            connection.execute("DELETE FROM run WHERE k='lease'")
            assert not renew(connection, "another's")
            connection.rollback()
    assert not lease_of(folder).get("released")
    lease_of(folder, host="another-machine")
    with pytest.raises(FolderInUseError):
        thread = threading.Timer(0.1, lease_of, [folder], {"beat": 77})
        thread.start()
        await run(api, folder, [fox(1)], lease_seconds=5)
    thread.join()


@pytest.mark.parametrize("why", ["taken over", "unwritable"])
async def test_a_run_whose_lease_is_gone_sends_nothing_more(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Somebody else may be running the same rows by now; what is in hand is kept."""
    folder = tmp_path / "run"
    ask = Record.ask

    async def is_full(self: Record, work: Any, *, linger: bool = False) -> Any:
        if "_beat" in work.__qualname__:
            raise BatchError("database or disk is full")
        return await ask(self, work, linger=linger)

    async def jobs() -> AsyncIterator[Any]:
        yield fox(1)
        await until(lambda: api.ledger.totals().charged == 1)
        if why == "taken over":
            lease_of(folder, token="another's")
        else:
            monkeypatch.setattr(Record, "ask", is_full)
        await until(lambda: batch._run is not None and batch._run.broken is not None)
        yield fox(2)

    async with batch_of(api, folder, lease_seconds=0.5) as batch:
        summary = await batch.run(jobs())
    assert (summary.done, summary.exit_code, api.ledger.totals().charged) == (1, 3, 1)
    told = "another run has taken the folder over" if why == "taken over" else "is full"
    assert told in str(summary.broken)


def test_a_folder_is_not_alive_by_a_number_of_before_the_last_start(tmp_path: Path) -> None:
    """The machine started anew since: whatever has that number now is no run of ours."""
    lease = {"host": socket.gethostname(), "boot": boot_id(), "pid": os.getpid(), "started": None}
    assert _is_alive(lease)
    assert not _is_alive({**lease, "boot": "another"})


# Records that are only read.


async def test_a_record_is_read_where_nothing_can_be_written(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log too, that was not merged when its process died; and the folder is left as it is."""
    folder, copied = tmp_path / "run", tmp_path / "copied"
    copied.mkdir()
    async with batch_of(api, folder) as batch:
        await batch.run([fox(1), fox(2)])
        for name in ("run.sqlite", "run.sqlite-wal"):
            shutil.copy(folder / name, copied)
    assert (copied / "run.sqlite-wal").stat().st_size
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: path not in {copied, folder} and access(path, mode)
    )
    before = sorted(copied.iterdir())
    assert (BatchRecord(copied).summary().done, BatchRecord(folder).summary().done) == (2, 2)
    assert sorted(copied.iterdir()) == before


@pytest.mark.parametrize(
    ("statement", "match"), [(None, "holds no record"), ("CREATE TABLE x(y)", "no record of a")]
)
def test_what_is_no_record_is_not_read_as_one(
    tmp_path: Path, statement: str | None, match: str
) -> None:
    """An empty file, and a database of somebody else's."""
    (tmp_path / "run.sqlite").touch()
    if statement is not None:
        change(tmp_path, statement)
    with pytest.raises(RecordDamagedError, match=match):
        BatchRecord(tmp_path).summary()


async def test_a_row_that_was_kept_aside_is_read_with_where_it_lies(
    tmp_path: Path, api: Emulator
) -> None:
    """Its output was written, and the record could not be: whoever reads finds both."""
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        cannot_be_finished(patch, folder, is_blocked=False)
        summary = await run(api, folder, [fox(1)])
    assert f"row 0 is kept in {folder / 'reserve'}" in summary.notes
    (row,) = BatchRecord(folder).rows()
    assert (row.state, row.dollars) == ("done", PRICE)
    assert row.path is not None
    assert (folder / row.path).is_file()


async def test_nothing_is_done_outside_a_block(tmp_path: Path, api: Emulator) -> None:
    """Nor twice at once; and no name of any of it holds a token."""
    api.hold()
    async with AsyncProdia("a-secret-token", base_url=api.base_url) as client:
        batch = Batch(tmp_path / "run", client, progress=False, signals=False)
        await batch.__aexit__(None, None, None)
        batch.stop()
        assert repr(batch) == f"<Batch {str(tmp_path / 'run')!r} prodia layout=files>"
        async with batch, anyio.create_task_group() as group:
            group.start_soon(batch.run, [fox(1)])
            await until(lambda: api.busy == 1)
            with pytest.raises(RuntimeError, match="running already"):
                await batch.run([fox(2)])
            api.release()
    with batch.record.snapshot() as snapshot:
        assert repr(snapshot) == f"<Snapshot of {str(tmp_path / 'run')!r}>"
    assert repr(ObjectRecord(str(tmp_path))) == f"<ObjectRecord {str(tmp_path)!r}>"


def test_a_store_that_has_nothing_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some stores say so with an error, which is none."""
    record = ObjectRecord(str(tmp_path / "nothing"))
    assert record.names() == []

    def missing(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(record._fs, "find", missing)
    assert record.names() == []


# What cannot be taken.


def cannot_be_finished(patch: pytest.MonkeyPatch, folder: Path, *, is_blocked: bool = True) -> None:
    """Let neither the record nor the folder take a row, until it was tried to keep it aside."""
    if is_blocked:
        (folder / "reserve").write_text("in the way")
    keep_aside = _folder.keep_aside

    def kept(*given: Any) -> Any:
        try:
            return keep_aside(*given)
        finally:
            patch.undo()

    def is_full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    patch.setattr(Record, "_finish_all", is_full)
    patch.setattr("prodia_async.batch._ends.keep_aside", kept)


async def test_what_the_folder_cannot_take_is_kept_in_the_temporary_one(
    tmp_path: Path, api: Emulator, elsewhere: Path
) -> None:
    """And is taken in from there by the next run: it is paid once."""
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        cannot_be_finished(patch, folder)
        summary = await run(api, folder, [fox(1)])
    assert (summary.done, summary.in_doubt, summary.exit_code) == (1, 0, 3)
    assert f"row 0 is kept in {elsewhere / 'reserve'}" in summary.notes
    assert elsewhere.stat().st_mode & 0o077 == 0
    summary = await run(api, folder, [fox(1)])
    assert (summary.done, summary.dollars, summary.exit_code) == (1, PRICE, 0)
    assert BatchRecord(folder).verify(hashes=True).missing == ()
    assert list((elsewhere / "reserve").iterdir()) == []
    assert api.ledger.totals().charged == 1


async def test_a_temporary_folder_that_others_can_write_is_not_trusted(
    tmp_path: Path, api: Emulator, elsewhere: Path
) -> None:
    """Neither is anything put there, nor taken in from there."""
    folder = tmp_path / "run"
    folder.mkdir()
    (elsewhere / "reserve").mkdir(parents=True)
    (elsewhere / "reserve" / "0.json").write_text("{}")
    elsewhere.chmod(0o777)
    with pytest.MonkeyPatch.context() as patch:
        cannot_be_finished(patch, folder)
        summary = await run(api, folder, [fox(1)])
    assert summary.exit_code == 3
    assert [each.name for each in (elsewhere / "reserve").iterdir()] == ["0.json"]
    assert list(Reserve(folder).kept()) == []
    summary = await run(api, folder, [fox(1)])
    assert (summary.done, summary.exit_code, api.ledger.totals().charged) == (1, 0, 1)


def test_what_cannot_be_kept_whole_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two outputs goes again when there is no space for the second."""
    written = _folder._write_synced

    def is_full(path: Path, content: bytes) -> None:
        if path.name == "3-2.jpg":
            path.write_bytes(content[:1])
            raise OSError(28, "No space left on device")
        written(path, content)

    monkeypatch.setattr(_folder, "_write_synced", is_full)
    outputs = [Content(b"abc", "jpg"), Content(b"def", "jpg")]
    assert Reserve(tmp_path).keep(3, {"i": 3, "saved": []}, "{}", outputs) is None
    assert list((tmp_path / "reserve").iterdir()) == []
