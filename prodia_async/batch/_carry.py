"""
A run carried from a store to a folder, and from a folder to a store. The keys are the same.

What is carried is paid for already: a batch that goes on in the folder, or workers that go on
over the store, find it done.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from .._version import __version__
from ._cluster import WorkerOptions
from ._decide import NANO, State
from ._objects import RUN, Done, ObjectRecord
from ._outputs import Content, settled
from ._record import INSERT_JOB, JOB_COLUMNS, connect, get, packed_id, put

if TYPE_CHECKING:
    import os
    import sqlite3
    from collections.abc import Iterator

    from ._reader import RecordReader

RECORD = "run.sqlite"


def folder_of(url: str) -> Path:
    """Return a temporary folder with the record of a run in a store; outputs stay there."""
    folder = Path(tempfile.mkdtemp(prefix="prodia-record-"))
    to_folder(url, folder)
    return folder


def to_folder(url: str, folder: str | os.PathLike[str]) -> int:
    """
    Write the record of a store's run into a new folder; outputs stay in the store. Blocks.

    A ``Batch(folder, client, outputs=url)`` goes on from there.

    Args:
        url: The store that the workers wrote to.
        folder: A folder without a record.

    Returns:
        How many jobs it knows of.

    Raises:
        FileExistsError: The folder has a record.
        BatchError: The store cannot be read.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / RECORD
    if target.exists():
        raise FileExistsError(f"{folder} holds a record already; give a folder without one")
    record = ObjectRecord(url)
    count = 0
    with closing(connect(target, read_only=False)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        put(
            connection,
            "made with",
            {"layout": "files", "outputs": settled(record.url), "api": "prodia"},
        )
        put(connection, "package", __version__)
        epoch = 0.0
        types: dict[str, int] = {}
        for done in _all(record):
            epoch = epoch or (done.finished_at or 0.0) - (done.seconds or 0.0)
            _insert(connection, count, done, epoch, types)
            count += 1
        put(connection, "began", epoch)
        connection.execute("COMMIT")
    return count


def _all(record: ObjectRecord) -> Iterator[Done]:
    listing = record.listing()
    for key in sorted(listing.done | listing.failed | listing.sent):
        done = record.done(key)
        if done is None:
            sent = record.sent(key)
            job_id = sent.job_id if sent is not None else None
            error = "it was sent and may have been paid; its result is not in the store"
            done = Done(key=key, type="unknown", state="in doubt", job_id=job_id, error=error)
        yield done


_STATES = {"done": State.DONE, "failed": State.FAILED, "in doubt": State.IN_DOUBT}


def _insert(
    connection: sqlite3.Connection, i: int, done: Done, epoch: float, types: dict[str, int]
) -> None:
    if done.type not in types:
        cursor = connection.execute("INSERT INTO type(name) VALUES(?)", (done.type,))
        types[done.type] = int(cursor.lastrowid or 0)
    at = round(1000 * ((done.finished_at or epoch) - epoch))
    first = done.names[0] if done.names else None
    values = {
        "i": i, "k": bytes.fromhex(done.key), "state": int(_STATES[done.state]),
        "attempts": done.attempts, "refusals": done.refusals, "again": done.paid_again,
        "at": max(0, at), "ms": None if done.seconds is None else round(1000 * done.seconds),
        "job_id": packed_id(done.job_id), "seed": done.seed, "error": done.error,
        "price": None if done.dollars is None else round(done.dollars * NANO),
        "type": types[done.type], "bytes": done.sizes[0] if done.sizes else None,
        "sha256": bytes.fromhex(done.hashes[0]) if done.hashes else None,
        "ext": first.rpartition(".")[2] if first else None,
    }  # fmt: skip
    connection.execute(INSERT_JOB, [values.get(name) for name in JOB_COLUMNS])
    for number, name in enumerate(done.names):
        connection.execute(
            "INSERT INTO output(i, n, path, bytes, sha256) VALUES(?,?,?,?,?)",
            (i, number, name, done.sizes[number], bytes.fromhex(done.hashes[number])),
        )
    if done.request is not None:
        line = json.dumps(done.request, ensure_ascii=False, default=str)
        connection.execute("INSERT INTO request VALUES(?,?)", (i, line))


def to_store(record: RecordReader, url: str) -> int:
    """
    Put what a folder's run has done into a store, so that workers find it done. Blocks.

    Args:
        record: The folder's record.
        url: The store that the workers will be told.

    Returns:
        How many jobs were put.

    Raises:
        BatchError: The store cannot be written.
    """
    store = ObjectRecord(url)
    there = store.listing().done
    with closing(record.connect()) as connection:
        settings = get(connection, "settings") or WorkerOptions(to=url).settings()
    if store.get(RUN) is None:
        text = json.dumps({"settings": settings, "version": __version__, "began": 0})
        store.put(RUN, text.encode())
    count = 0
    for row in record.rows():
        if row.state != "done" or row.path is None or row.key in there:
            continue
        outputs = [
            Content(record.read_path(path, row), path.rpartition(".")[2]) for path in row.paths
        ]
        done = Done(
            key=row.key,
            type=str((row.request or {}).get("type", "unknown")),
            job_id=row.job_id,
            seed=row.seed,
            dollars=row.dollars,
            seconds=row.seconds,
            attempts=row.attempts,
            refusals=row.refusals,
            paid_again=row.paid_again,
            finished_at=row.finished_at,
            request=row.request,
        )
        store.finish(done, outputs)
        count += 1
    return count
