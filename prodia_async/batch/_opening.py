"""
Opening a folder, and giving it back: what an earlier run left is settled before anything is sent.

Everything here blocks, and runs in threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sqlite3
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from .._show import shown
from .._version import __version__
from ._arrivals import ARRIVED, Arrivals, find, last_arrived, take_in
from ._decide import State, is_in_doubt
from ._folder import FLIGHT, Lock, Mark, Marks, Reserve, boot_id, process_started, refuse_network
from ._outputs import Content, Files, Shards, Store, Task, relative, settled
from ._record import (
    Finish,
    Promise,
    Record,
    get,
    put,
    wall,
)
from ._trade import RESULT_SECONDS
from ._values import BatchChangedError, BatchError, FolderInUseError, RecordDamagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from ._outputs import Place

RECORD = "run.sqlite"


@dataclass(frozen=True, slots=True)
class ToCollect:
    """A job that an earlier run left with the server."""

    i: int
    key: bytes
    id: str | None
    type: str
    expected: int | None
    again: int
    job_id: str
    left: float
    line: str


@dataclass(slots=True)
class Opened:
    """A folder that is ours."""

    folder: Path
    lock: Lock
    record: Record
    marks: Marks
    arrivals: Arrivals
    reserve: Reserve
    place: Place
    session: int
    epoch: float
    token: str
    rows: int
    """Rows in the record."""
    told: int
    """What answers told, in units of 10^-9 dollars."""
    doubtful: int
    prices: dict[str, int]
    sync_only: set[str]
    collect: list[ToCollect] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def open_folder(
    folder: Path,
    *,
    notify: Callable[..., None],
    slots: int,
    layout: str,
    outputs: str | None,
    api: str,
    settings: dict[str, Any],
    lease_seconds: float,
) -> Opened:
    """
    Take a folder: a new one, or one to go on with. Blocks.

    Args:
        folder: Where it is.
        notify: Has the event loop call a function.
        slots: Jobs in flight at once.
        layout: As `Batch` takes it.
        outputs: As `Batch` takes it.
        api: The API that the jobs are for.
        settings: What is written down of this run.
        lease_seconds: As `Batch` takes it.

    Raises:
        FolderInUseError: Another run, alive, holds it.
        RecordDamagedError: Its record cannot be read.
        BatchChangedError: It was made with another layout or for another API, or jobs are left
            with another server.
        BatchError: It cannot be written, or lies where a record is not safe.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BatchError(f"the folder {folder} cannot be made: {error.strerror}") from error
    refuse_network(folder)
    with contextlib.ExitStack() as undo:
        lock = Lock(folder)
        undo.callback(lock.release)
        reserve = Reserve(folder)
        reserve.take()
        try:
            record = Record(folder / RECORD, notify=notify)
        except OSError as error:
            raise BatchError(f"the record in {folder} cannot be opened: {error}") from error
        undo.callback(record.close)
        token = secrets.token_hex(8)
        try:
            opened = _open(
                folder, lock, reserve, record, layout, outputs, api, settings, token,
                lease_seconds, slots,
            )  # fmt: skip
        except sqlite3.OperationalError as error:
            raise BatchError(f"the record in {folder} cannot be written: {error}") from error
        except sqlite3.Error as error:
            raise RecordDamagedError(f"the record in {folder} is damaged: {error}") from error
        except OSError as error:
            raise BatchError(
                f"the folder {folder} cannot be written: {error.strerror or error}"
            ) from error
        undo.pop_all()
        return opened


def _open(  # noqa: PLR0917  (all that a folder is)
    folder: Path,
    lock: Lock,
    reserve: Reserve,
    record: Record,
    layout: str,
    outputs: str | None,
    api: str,
    settings: dict[str, Any],
    token: str,
    lease_seconds: float,
    slots: int,
) -> Opened:
    connection = record.connection
    _wait_for_lease(folder, connection, lease_seconds)
    made_with = get(connection, "made with")
    if made_with is not None and made_with.get("outputs"):
        made_with["outputs"] = settled(made_with["outputs"])  # as an older version has it not
    wanted = {"layout": layout, "outputs": outputs, "api": api}
    if made_with is not None and made_with != wanted:
        changed = [
            f"{name} was {shown(made_with.get(name))} and is {shown(value)}"
            for name, value in wanted.items()
            if made_with.get(name) != value
        ]
        error = BatchChangedError(
            f"{folder} was made otherwise: {'; '.join(changed)}. Give what it was made with, or "
            "take a new folder"
        )
        error.differences = tuple(changed)
        raise error
    marks = Marks(folder / FLIGHT)
    arrivals = Arrivals(folder / ARRIVED, slots)
    connection.execute("BEGIN IMMEDIATE")
    put(connection, "made with", wanted)
    if made_with is None:
        put(connection, "began", wall())
        put(connection, "package", __version__)
    are_exact = is_same_boot(get(connection, "lease")) and marks.was_there
    put(connection, "lease", _lease(token, 0))
    epoch = float(get(connection, "began"))
    kept = reserve.rows()
    arrived, damaged = take_in(record, folder)
    before = connection.execute("SELECT settings FROM session ORDER BY s DESC LIMIT 1").fetchone()
    session = connection.execute(
        "INSERT INTO session(began, pid, host, settings) VALUES(?,?,?,?)",
        (wall(), os.getpid(), socket.gethostname(), json.dumps(settings, default=str)),
    ).lastrowid
    assert session is not None  # noqa: S101  (SQLite numbers rows)
    collect = settle(
        record, marks.left, session, epoch, are_exact=are_exact, damaged=damaged, kept=kept
    )
    _check_server(before, settings, len(collect))
    connection.execute("COMMIT")
    arrivals.start()
    marks.start()
    opened = Opened(
        folder=folder,
        lock=lock,
        record=record,
        marks=marks,
        arrivals=arrivals,
        reserve=reserve,
        place=_place(folder, layout, outputs, record, connection),
        session=session,
        epoch=epoch,
        token=token,
        rows=0,
        told=0,
        doubtful=0,
        prices={},
        sync_only=set(),
        collect=collect,
    )
    if arrived:
        opened.notes.append(f"{arrived} outputs that had arrived when a run died were taken in")
    _sweep(opened, [*marks.left, *(each.i for each in collect)])
    _adopt(opened)
    _add_up(opened)
    return opened


def _add_up(opened: Opened) -> None:
    """Read what the record says of money, of prices and of types."""
    connection = opened.record.connection
    (opened.rows,) = connection.execute("SELECT count(*) FROM job").fetchone()
    opened.told, opened.doubtful, _ = money(connection)
    for name, price, sync_only in connection.execute("SELECT name, price, sync_only FROM type"):
        if price is not None:
            opened.prices[name] = price
        if sync_only:
            opened.sync_only.add(name)


def settle_between(opened: Opened) -> list[int]:
    """
    Decide, between two runs on an open folder, about what the first has left.

    As the next start does: a run that was cancelled leaves as much open as one that was killed.
    In the writer's thread.

    Returns:
        The rows that are marked no more, once this is committed.
    """
    marked = opened.marks.marked()
    opened.collect = settle(
        opened.record, marked, opened.session, opened.epoch,
        are_exact=True, kept=opened.reserve.rows() | _arrived(opened),
    )  # fmt: skip
    _add_up(opened)
    return sorted(marked.keys() - {each.i for each in opened.collect})


def _check_server(before: tuple[str] | None, settings: Mapping[str, Any], count: int) -> None:
    """
    Refuse to ask one server about jobs that are with another.

    Args:
        before: The settings of the run before.
        settings: This run's.
        count: How many jobs are to be collected.

    Raises:
        BatchChangedError: Another server has them, and that they are lost is not agreed to.
    """
    was = json.loads(before[0]).get("server") if before is not None else None
    here = settings.get("server")
    if not count or was in {None, here} or settings.get("also"):
        return
    jobs = "1 job was" if count == 1 else f"{count} jobs were"
    error = BatchChangedError(
        f"{jobs} left with {was}, and this client asks {here}, which knows none of them. Nothing "
        "was sent. Go on with the first, or give them up as in doubt (also=True, --also)"
    )
    error.differences = (f"server was {shown(was)} and is {shown(here)}",)
    raise error


def _lease(token: str, beat: int) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "started": process_started(os.getpid()),
        "host": socket.gethostname(),
        "boot": boot_id(),
        "token": token,
        "beat": beat,
    }


def is_same_boot(lease: Mapping[str, Any] | None) -> bool:
    """Return whether a lease is of this machine, since it started last."""
    if not lease:
        return False
    here = (socket.gethostname(), boot_id())
    return bool(here[1]) and (lease.get("host"), lease.get("boot")) == here


def _wait_for_lease(folder: Path, connection: sqlite3.Connection, seconds: float) -> None:
    """
    See whether a run on another machine still holds the folder.

    On this machine the lock has told. Of another one only the beat of its
    lease can tell, and whether it goes on, not what a clock says.
    """
    lease = get(connection, "lease")
    if not lease or lease.get("released") or lease.get("host") == socket.gethostname():
        return
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(0.25, seconds / 10))
        now = get(connection, "lease")
        if now.get("released"):
            return
        if now != lease:
            raise FolderInUseError(
                f"another run holds {folder}: pid {now.get('pid')} on {now.get('host')}; "
                "wait for its end, or stop it"
            )


def renew(connection: sqlite3.Connection, token: str) -> bool:
    """Renew the lease; in the writer's thread. Return whether it was still ours."""
    lease = get(connection, "lease")
    if lease is None or lease.get("token") != token:
        return False
    put(connection, "lease", _lease(token, int(lease.get("beat", 0)) + 1))
    return True


class Money(NamedTuple):
    """
    What a folder has cost, in units of 10^-9 dollars.

    Attributes:
        told: What answers told; of one that told none, what was expected.
        doubtful: What was paid in vain on top of it, perhaps, as far as it is known.
        again: How often that was.
    """

    told: int
    doubtful: int
    again: int


_COST = "coalesce(price, expected, (SELECT price FROM type WHERE t=job.type), 0)"

_MONEY = (
    f"SELECT ifnull(sum(CASE state WHEN 2 THEN {_COST} WHEN 3 THEN price END), 0), "  # noqa: S608  (a text of ours)
    f"ifnull(sum(CASE WHEN state=4 OR again > 0 THEN max(ifnull(again, 0), state=4) * {_COST} "
    "END), 0), ifnull(sum(again), 0) FROM job"
)


def money(connection: sqlite3.Connection) -> Money:
    """Add up what a folder has cost; of rows that were given back, too."""
    rows = connection.execute(_MONEY).fetchone()
    before = get(connection, "given back") or (0, 0, 0)
    return Money(*(int(one) + other for one, other in zip(rows, before, strict=True)))


def give_back(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """Forget rows, so that they are run again; what they have cost stays."""
    before = money(connection)
    for table in ("job", "output", "request"):
        connection.executemany(
            f"DELETE FROM {table} WHERE i=?",  # noqa: S608  (names of ours)
            [(i,) for i in numbers],
        )
    given = get(connection, "given back") or (0, 0, 0)
    lost = (old - new for old, new in zip(before, money(connection), strict=True))
    put(connection, "given back", [one + other for one, other in zip(given, lost, strict=True)])


def settle(
    record: Record,
    marks: dict[int, Mark],
    session: int,
    epoch: float,
    *,
    are_exact: bool,
    damaged: Collection[int] = (),
    kept: Collection[int] = (),
) -> list[ToCollect]:
    """
    Decide about every row that was under way when the last process ended.

    One with an id is with the server, and is collected. One that was sent may
    have been paid, and is in doubt. One that was only taken never left.

    Args:
        record: The record.
        marks: What was marked as being with the server.
        session: The number of the run that decides.
        epoch: When the record began.
        are_exact: Whether the machine has not started anew since: then the
            marks are as they were at the last moment, and the record's own
            note of a job that was sent, and refused since, counts for nothing.
        damaged: Rows whose output had arrived, and is not what came any more.
        kept: Rows whose output was kept aside; they are left alone.

    Returns:
        The jobs to collect.
    """
    connection = record.connection
    collect = []
    rows = connection.execute(
        "SELECT i, k, id, type, expected, again, sent, times, job_id, expires, request FROM open"
    ).fetchall()
    now = wall()
    for i, k, id_, job_type, expected, again, sent, times, known, expires, line in rows:
        if i in kept:
            continue
        job_id = known
        if known is None and i in marks and marks[i].job_id is not None:
            # The server's answer was here, and the record was some milliseconds late.
            job_id = marks[i].job_id
            connection.execute("UPDATE open SET job_id=? WHERE i=?", (job_id, i))
        if job_id is not None:
            marked = marks[i].at + RESULT_SECONDS if i in marks else now
            left = (marked if expires is None else expires) - now
            collect.append(ToCollect(i, k, id_, job_type, expected, again, job_id, left, line))
        elif i in damaged or is_in_doubt(
            job_id=None, is_marked=i in marks, was_sent=sent is not None, are_exact=are_exact
        ):
            end = in_doubt(
                i, k, id_, session, job_type,
                again=again + marks.get(i, Mark(0.0, 1)).risky,
                attempts=max(times, marks.get(i, Mark(0.0, 1)).times),
                at=round(1000 * ((sent or (marks[i].at if i in marks else now)) - epoch)),
                why=(
                    "its output had arrived when the process ended, and is damaged on the disk"
                    if i in damaged
                    else "the process ended while the job was with the server"
                ),
                line=line,
                expected=expected,
            )  # fmt: skip
            record.finish(connection, end)
        else:
            connection.execute("DELETE FROM open WHERE i=?", (i,))
    return collect


def in_doubt(
    i: int,
    k: bytes,
    id_: str | None,
    session: int,
    job_type: str,
    *,
    again: int,
    attempts: int,
    at: int,
    why: str,
    line: str,
    expected: int | None,
) -> Finish:
    """Return the end of a row that may have been paid and whose output nobody has."""
    return Finish(
        i, k, State.IN_DOUBT, id_, session, job_type,
        attempts=attempts, again=again, at=at, error=f"InDoubt: {why}", request=line,
        expected=expected,
    )  # fmt: skip


def _place(
    folder: Path, layout: str, outputs: str | None, record: Record, connection: sqlite3.Connection
) -> Place:
    if outputs is not None:
        return Store(outputs)
    if layout == "tar":
        ends = connection.execute("SELECT n, path, bytes FROM shard ORDER BY n").fetchall()
        return Shards(folder / "shards", ends)
    (folder / "out").mkdir(exist_ok=True)
    return Files(folder / "out", record.touched)


def _sweep(opened: Opened, rows: list[int]) -> None:
    """Remove what a dead process was writing when it died: never under a final name."""
    out = opened.folder / "out"
    folders = {out / relative(i, bytes(16), "").rpartition("/")[0] for i in rows}
    for folder in folders:
        for path in folder.glob("*.part"):
            with contextlib.suppress(OSError):
                path.unlink()


def _adopt(opened: Opened) -> None:
    """Take in what an earlier run kept aside since the record, or the disk, could not take it."""
    taken = []
    connection = opened.record.connection
    for path, facts in opened.reserve.kept():
        names = facts.pop("files", None)
        line = facts.pop("line", "{}")
        end = Finish.from_json(facts)
        if names is not None:
            outputs = [
                Content((path.parent / name).read_bytes(), name.rpartition(".")[2])
                for name in names
            ]
            opened.place.save([Task(end, outputs, Promise(), line)])
        end.session = opened.session
        connection.execute("BEGIN IMMEDIATE")
        opened.record.finish(connection, end)
        connection.execute("COMMIT")
        taken += [path, *(path.parent / name for name in names or ())]
    if taken:
        opened.notes.append(f"{len(taken)} files that were kept in reserve/ were taken in")
    for path in taken:
        path.unlink()


def _arrived(opened: Opened) -> set[int]:
    """Return the rows that were written and could be kept nowhere: the next start takes them in."""
    connection = opened.record.connection
    keys = dict(connection.execute("SELECT i, k FROM open"))
    return {
        i
        for i, end in last_arrived(connection, opened.folder).items()
        if keys.get(i) == end.k and find(opened.folder, end)
    }


def close_folder(opened: Opened, *, stopped: str | None, was_refused: bool = False) -> None:
    """
    Give a folder back. Blocks; the record's writer must have ended.

    A run that was refused leaves no trace.

    Rows that were sent and did not come to an end are in doubt from here on.
    """
    record = opened.record
    connection = record.connection
    try:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("BEGIN IMMEDIATE")
            settle(
                record, opened.marks.marked(), opened.session, opened.epoch,
                are_exact=True, kept=opened.reserve.rows() | _arrived(opened),
            )  # fmt: skip
            lease = get(connection, "lease")
            if lease is not None and lease.get("token") == opened.token:
                put(connection, "lease", {**lease, "released": True})
            connection.execute(
                "UPDATE session SET ended=?, stopped=? WHERE s=?",
                (wall(), stopped, opened.session),
            )
            if was_refused:
                connection.execute("DELETE FROM session WHERE s=?", (opened.session,))
                connection.execute("DELETE FROM sample WHERE s=?", (opened.session,))
            connection.execute("COMMIT")
            opened.marks.clear_all()
    finally:
        record.close()
        opened.marks.close()
        opened.arrivals.close()
        opened.reserve.give_back()
        opened.lock.release()
