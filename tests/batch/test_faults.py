"""What goes wrong with folders, disks, records and clocks, over real processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from processes import TOKEN, Child, charges, check_all_done, run, settle

from prodia_async.batch import BatchError, BatchRecord, RecordDamagedError
from prodia_async.batch._folder import (
    NETWORK_FILE_SYSTEMS,
    Marks,
    Reserve,
    file_system_of,
    is_process,
    marks_of,
    process_started,
    refuse_network,
)
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(120)
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="nothing else tells of a process")


@pytest.fixture(name="api")
def _api() -> Iterator[Emulator]:
    with Emulator(workers=20, latency=0.02) as emulator:
        yield emulator


# Who holds a folder.


def test_a_folder_has_one_run(tmp_path: Path, api: Emulator) -> None:
    """A second one is refused, and told by whom; a dead one's folder is taken over at once."""
    api.hold()
    wanted = {"folder": tmp_path / "run", "jobs": 5}
    first = Child(api, wanted)
    api.ledger.wait_for(lambda totals: totals.received >= 5, 30)
    second = run(api, wanted)
    assert second.process.returncode == 3
    assert f"another run holds {tmp_path / 'run'}: pid {first.process.pid} on" in second.stderr
    assert api.ledger.totals().received == 5
    first.end(signal.SIGKILL)
    api.release()
    settle(api)
    third = run(api, wanted)
    assert third.process.returncode == 0, third.stderr
    check_all_done(api, tmp_path / "run", 5)


def forge_lease(folder: Path, *without: str, **other: Any) -> None:
    with closing(sqlite3.connect(folder / "run.sqlite")) as connection, connection:
        (line,) = connection.execute("SELECT v FROM run WHERE k='lease'").fetchone()
        lease = {**json.loads(line), **other}
        lease = {name: value for name, value in lease.items() if name not in without}
        connection.execute("UPDATE run SET v=? WHERE k='lease'", (json.dumps(lease),))


@on_linux
def test_a_number_that_another_process_has_by_now(tmp_path: Path, api: Emulator) -> None:
    """It does not hold the folder, and what the dead one had sent is in doubt."""
    api.hold()
    wanted = {"folder": tmp_path / "run", "jobs": 3, "batch": {"submit": "sync"}}
    child = Child(api, wanted)
    api.ledger.wait_for(lambda totals: totals.received >= 3, 30)
    record = BatchRecord(tmp_path / "run")
    assert record.is_running()
    child.process.kill()  # and nobody asks what became of it: it is there, and has ended
    os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
    assert not record.is_running()
    child.end()
    api.release()
    forge_lease(tmp_path / "run", pid=os.getpid())
    assert not record.is_running()
    assert record.summary().in_doubt == 3
    forge_lease(tmp_path / "run", "started", pid=os.getpid())  # as an older version has it
    assert record.is_running()
    forge_lease(tmp_path / "run", pid=os.getpid(), started=process_started(os.getpid()))
    assert record.is_running()


@on_linux
def test_a_process_is_known_by_its_number_and_its_beginning() -> None:
    named = "open('/proc/self/comm', 'w').write('a) Z 1'); print(flush=True)"
    sleeper = [sys.executable, "-c", f"import time; {named}; time.sleep(60)"]
    with subprocess.Popen(sleeper, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            began = process_started(process.pid)
            assert began is not None
            since = began / os.sysconf("SC_CLK_TCK")
            assert abs(time.clock_gettime(time.CLOCK_BOOTTIME) - since) < 60
            assert is_process(process.pid, began)
            assert is_process(process.pid, None)
            assert not is_process(process.pid, began + 1)
        finally:
            process.kill()
    assert not is_process(process.pid, None)
    assert process_started(process.pid) is None


@pytest.mark.parametrize("error", [None, PermissionError])
def test_where_nothing_tells_more_a_number_is_a_process(
    monkeypatch: pytest.MonkeyPatch, error: type[OSError] | None
) -> None:
    """No Linux; or another user's process, where these are hidden."""

    def kill(*_: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: Path("/nothing/here").read_bytes())
    assert is_process(1, 77)
    assert process_started(1) is None


LEASE = """
import json, sqlite3, sys, threading, time
def live(path, beats):
    c = sqlite3.connect(path)
    for beat in range(beats):
        c.execute("UPDATE run SET v=? WHERE k='lease'",
                  (json.dumps({"pid": 7, "host": "elsewhere", "beat": beat}),))
        c.commit()
        time.sleep(0.1)
live(sys.argv[1], int(sys.argv[2]))
"""


def test_a_run_on_another_machine_is_told_by_its_beat(tmp_path: Path, api: Emulator) -> None:
    """Its lease says nothing by its time, only by going on: a silent one is dead."""
    wanted = {"folder": tmp_path / "run", "jobs": 2, "batch": {"lease_seconds": 1.5}}
    assert run(api, wanted).process.returncode == 0
    record = tmp_path / "run" / "run.sqlite"
    import sys

    with subprocess.Popen([sys.executable, "-c", LEASE, record, "100"]) as other:
        try:
            time.sleep(0.5)
            refused = run(api, wanted)
        finally:
            other.kill()
    assert refused.process.returncode == 3
    assert "pid 7 on elsewhere" in refused.stderr
    taken = run(api, wanted)
    assert taken.process.returncode == 0, taken.stderr
    assert taken.summary()["done_before"] == 2


# Records.


def test_a_record_of_a_newer_format_is_refused(tmp_path: Path, api: Emulator) -> None:
    """Its promises are not known here; it is not touched."""
    wanted = {"folder": tmp_path / "run", "jobs": 2}
    run(api, wanted)
    path = tmp_path / "run" / "run.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    refused = run(api, wanted)
    assert refused.process.returncode == 3
    assert "has format 99" in refused.stderr
    with pytest.raises(RecordDamagedError, match="install a newer one"):
        BatchRecord(tmp_path / "run").summary()
    assert api.ledger.totals().charged == 2


def crashed(tmp_path: Path, api: Emulator) -> Path:
    """Return a folder whose process was killed, with most of its record in the log."""
    wanted = {"folder": tmp_path / "run", "jobs": 400}
    child = Child(api, wanted)
    child.until(lambda done: done >= 60)
    child.end(signal.SIGKILL)
    settle(api)
    return tmp_path / "run"


def test_a_record_cut_anywhere(tmp_path: Path, api: Emulator) -> None:
    """200 cuts: what can be read is a prefix of what was written, or it is refused; never wrong."""
    folder = crashed(tmp_path, api)
    with sqlite3.connect(folder / "run.sqlite") as connection:
        query = "SELECT i, k, state, bytes, sha256, price FROM job"
        truth = set(connection.execute(query).fetchall())
    connection.close()
    saved = tmp_path / "saved"
    shutil.copytree(folder, saved, ignore=lambda _, names: [n for n in names if n == "out"])
    rand = random.Random(5)
    cuts = [("run.sqlite-wal", 140), ("run.sqlite", 60)]
    counts = {"prefix": 0, "refused": 0}
    for name, times in cuts:
        whole = (saved / name).read_bytes() if (saved / name).exists() else b""
        for _ in range(times):
            target = tmp_path / "cut"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(saved, target)
            (target / "run.sqlite-shm").unlink(missing_ok=True)
            (target / name).write_bytes(whole[: rand.randrange(len(whole) + 1)])
            try:
                rows = list(BatchRecord(target).rows())
                BatchRecord(target).summary()
            except RecordDamagedError:
                counts["refused"] += 1
                continue
            counts["prefix"] += 1
            found = {
                (row.row, bytes.fromhex(row.key), row.bytes, bytes.fromhex(row.sha256 or ""))
                for row in rows
                if row.state == "done"
            }
            assert found <= {(i, k, size, sha) for i, k, _, size, sha, _ in truth}
    assert counts["prefix"] > 20
    assert sum(counts.values()) == 200


@pytest.mark.parametrize("change", ["sha256='text'", "state='x'", "price='dear'"])
def test_a_value_of_another_kind_is_damage(tmp_path: Path, api: Emulator, change: str) -> None:
    """What a damaged page may hold is refused as such, and is never an error of Python's."""
    folder = crashed(tmp_path, api)
    with sqlite3.connect(folder / "run.sqlite") as connection:
        connection.execute(f"UPDATE job SET {change}")
    connection.close()
    with pytest.raises(RecordDamagedError, match="is damaged"):
        list(BatchRecord(folder).rows())


def test_what_is_no_record_is_refused(tmp_path: Path, api: Emulator) -> None:
    """A file of something else under its name is left as it is."""
    folder = tmp_path / "run"
    folder.mkdir()
    for content in (b"not a database, but a text", os.urandom(8192)):
        (folder / "run.sqlite").write_bytes(content)
        refused = run(api, {"folder": folder, "jobs": 2})
        assert refused.process.returncode == 3
        assert "RecordDamagedError" in refused.stderr
        assert (folder / "run.sqlite").read_bytes() == content
        with pytest.raises(RecordDamagedError):
            list(BatchRecord(folder).rows())
    assert api.ledger.totals().received == 0


# Disks.


def limited(size: int) -> str:
    return f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, -1))"


def test_a_record_that_cannot_grow_loses_nothing(tmp_path: Path, api: Emulator) -> None:
    """RLIMIT_FSIZE under the log: a clean stop with 3, and the next run pays for nothing again."""
    wanted = {"folder": tmp_path / "run", "jobs": 300, "client": {"max_concurrency": 10}}
    first = run(api, {**wanted, "before": limited(600_000)})
    assert first.process.returncode == 3, first.stderr
    summary = first.summary()
    assert "cannot be written" in summary["broken"]
    assert not any("LOST" in note for note in summary["notes"])
    settle(api)
    paid = api.ledger.totals().charged
    assert 0 < summary["done"] <= paid < 300
    second = run(api, wanted)
    assert second.process.returncode == 0, second.stderr
    assert check_all_done(api, tmp_path / "run", 300) == 0
    assert list((tmp_path / "run" / "reserve").iterdir()) == []


def test_a_disk_without_space_to_begin_is_told_before_anything_is_sent(
    tmp_path: Path, api: Emulator
) -> None:
    """A run that could not keep its promise does not begin."""
    refused = run(api, {"folder": tmp_path / "run", "jobs": 5, "first": limited(1_000_000)})
    assert refused.process.returncode == 3
    assert "there is no room for a run" in refused.stderr
    assert api.ledger.totals().received == 0


class Disk:
    """A tmpfs of its own, where this user may mount one."""

    def __init__(self, path: Path, options: str) -> None:
        path.mkdir()
        self.path = path
        self.mount(options)

    def mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(self.path)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a tmpfs cannot be mounted here")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)


def test_a_full_disk_loses_nothing(tmp_path: Path, api: Emulator) -> None:
    """Outputs, record and all on 8 MB: a stop with 3, what is in hand is kept, and it goes on."""
    with Disk(tmp_path / "disk", "size=8m") as disk:
        wanted = {
            "folder": disk.path / "run",
            "jobs": 40,
            "config": {"width": 512, "height": 512},
            "accept": "image/png",
            "client": {"max_concurrency": 6},
        }
        first = run(api, wanted)
        assert first.process.returncode == 3, first.stderr
        assert "No space left on device" in first.summary()["broken"]
        settle(api)
        paid = api.ledger.totals().charged
        assert 0 < paid < 40
        disk.mount("remount,size=64m")
        second = run(api, wanted)
        assert second.process.returncode == 0, second.stderr
        assert check_all_done(api, disk.path / "run", 40) == 0


def test_a_disk_that_cannot_be_written(tmp_path: Path, api: Emulator) -> None:
    """Is told at once, before anything is sent; what is on it can be read all the same."""
    with Disk(tmp_path / "disk", "size=16m") as disk:
        assert run(api, {"folder": disk.path / "run", "jobs": 2}).process.returncode == 0
        disk.mount("remount,ro")
        refused = run(api, {"folder": disk.path / "run", "jobs": 4})
        assert refused.process.returncode == 3
        assert "Read-only file system" in refused.stderr
        assert api.ledger.totals().charged == 2
        assert BatchRecord(disk.path / "run").summary().done == 2


MOUNTS = r"""
22 27 0:21 / /proc rw - proc proc rw
27 1 8:1 / / rw,relatime - ext4 /dev/root rw
30 27 0:40 / /mnt/share rw - nfs4 server:/share rw
31 27 0:41 / /mnt/my\040disk rw shared:1 - fuse.sshfs me@host: rw
32 30 0:42 / /mnt/share/local rw - xfs /dev/sdb rw
garbage
""".strip()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/run", "ext4"), ("/mnt/share/run", "nfs4"), ("/mnt/shared/run", "ext4"),
        ("/mnt/my disk/run", "fuse.sshfs"), ("/mnt/share/local/run", "xfs"),
    ],
)  # fmt: skip
def test_network_file_systems_are_refused(path: str, kind: str) -> None:
    """By the mount that a path lies on, with the remedy."""
    assert file_system_of(Path(path), MOUNTS) == kind
    if kind in NETWORK_FILE_SYSTEMS:
        with pytest.raises(BatchError, match=r"network file system .* outputs="):
            refuse_network(Path(path), MOUNTS)
    else:
        refuse_network(Path(path), MOUNTS)


def test_a_mount_table_that_says_nothing() -> None:
    """No Linux, or a strange one: it is let be."""
    assert file_system_of(Path("/x"), "") == ""
    refuse_network(Path("/x"), "")


# Clocks.


def test_a_clock_that_was_set_back_a_day(tmp_path: Path, api: Emulator) -> None:
    """Nothing is decided by the wall clock: what is done is done, what is left is run."""
    wanted = {"folder": tmp_path / "run", "jobs": 40, "client": {"max_concurrency": 4}}
    child = Child(api, wanted)
    child.until(lambda done: done >= 10)
    child.end(signal.SIGKILL)
    settle(api)
    back = "import time; t = time.time; time.time = lambda: t() - 86400"
    later = run(api, {**wanted, "first": back})
    assert later.process.returncode == 0, later.stderr
    assert check_all_done(api, tmp_path / "run", 40) <= 9
    assert BatchRecord(tmp_path / "run").summary().seconds >= 0
    BatchRecord(tmp_path / "run").write_report()


# What is in memory that outlives the process.


def test_marks_outlive_their_process(tmp_path: Path) -> None:
    """Set, cleared, set again, many at once: what is set is found; a torn file hurts nobody."""
    path = tmp_path / "flight.bin"
    marks = Marks(path)
    marks.start()
    for row in range(3000):
        marks.set(row, 1000.0 + row, 1)
    for row in range(0, 3000, 2):
        marks.clear(row)
    marks.set(1, 5.0, 2, risky=7)
    marks.set_id(1, "an-id")
    marks.set_id(3, "x" * 105)
    marks.set_id(9999, "nobody")
    marks.clear(7777)
    assert marks_of(tmp_path) == marks.marked()
    found = marks_of(tmp_path)
    assert set(found) == set(range(1, 3000, 2))
    assert (found[1], found[3]) == ((5.0, 2, "an-id", 7), (1003.0, 1, None, 1))
    marks.close()
    again = Marks(path)
    assert again.left == found
    again.start()
    assert marks_of(tmp_path) == {}
    again.close()
    path.write_bytes(b"torn")
    assert marks_of(tmp_path) == {}
    assert marks_of(tmp_path / "missing") == {}


def test_what_is_kept_aside_comes_back_whole(tmp_path: Path) -> None:
    """Facts and bytes; what cannot be kept leaves nothing half."""
    from prodia_async.batch._outputs import Content

    reserve = Reserve(tmp_path, size=1000)
    reserve.take()
    assert (tmp_path / "reserve.bin").stat().st_size == 1000
    where = reserve.keep(3, {"i": 3, "saved": []}, "{}", [Content(b"abc", "jpg")])
    assert where == tmp_path / "reserve"
    ((path, facts),) = reserve.kept()
    assert facts == {"i": 3, "saved": [], "files": ["3-1.jpg"], "line": "{}"}
    assert (path.parent / "3-1.jpg").read_bytes() == b"abc"
    reserve.give_back()
    assert not (tmp_path / "reserve.bin").exists()
    blocked = Reserve(tmp_path / "nowhere")
    assert blocked.keep(1, {"saved": []}, "{}", []) is None


def test_no_token_anywhere(tmp_path: Path, api: Emulator) -> None:
    """Neither in the folder of a killed run, nor in what it printed."""
    folder = crashed(tmp_path, api)
    for path in folder.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes(), path
    assert charges(api)
