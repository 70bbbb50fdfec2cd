"""
The record: one SQLite file that knows what became of every row.

Write-ahead log, ``synchronous=FULL``, one thread that writes, and group commit:
the thread takes all that lies in its queue into one transaction, commits, and
tells everybody who waits with one call into the event loop, which never
touches SQLite itself. Measured, a job: 39 to 106 us of CPU and 1 to 7 ms until
it is safe, whether the disk takes 0.1 ms for an fsync or 10.

``job`` holds one line for each row that came to an end, ``open`` one for each
that is under way, so that the first is only ever appended to. Requests are in
a table of their own, since a million of them would be most of the file: they
are kept of rows that failed or are in doubt, of the first `KEEP_ALL` rows, and
of every `KEEP_EVERY`-th beyond.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import sqlite3
import tempfile
import threading
import time
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.lowlevel

from ._decide import State
from ._values import BatchError, RecordDamagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")

FORMAT = 1
"""Of the record. A newer one is refused, since its promises are not known here."""

LINGER_SECONDS = 0.005
"""How long a commit waits for company. Chosen; measured: 2 to 5 ms halve the CPU a job."""

MOST_IN_A_COMMIT = 1000
"""Messages. Chosen: some 20 ms of work, so that nobody waits long behind them."""

KEEP_ALL, KEEP_EVERY = 20_000, 64
"""Of which rows the request is kept. Chosen: some 6 MB beside a million rows."""

SCHEMA = """
CREATE TABLE run(k TEXT PRIMARY KEY, v TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE session(
  s INTEGER PRIMARY KEY, began REAL NOT NULL, ended REAL, pid INT, host TEXT, stopped TEXT,
  settings TEXT NOT NULL);
CREATE TABLE job(
  i INTEGER PRIMARY KEY, k BLOB NOT NULL, state INT NOT NULL, id TEXT, session INT,
  attempts INT, refusals INT, again INT, at INT, ms INT, job_id, seed INT, price INT,
  type INT, shard INT, off INT, bytes INT, sha256 BLOB, ext TEXT, error TEXT, expected INT);
CREATE INDEX job_k ON job(k);
CREATE TABLE open(
  i INTEGER PRIMARY KEY, k BLOB NOT NULL, id TEXT, type TEXT NOT NULL, expected INT,
  again INT NOT NULL, sent REAL, times INT NOT NULL DEFAULT 0, job_id TEXT, expires REAL,
  request TEXT NOT NULL);
CREATE TABLE request(i INTEGER PRIMARY KEY, line TEXT NOT NULL);
CREATE TABLE output(
  i INT NOT NULL, n INT NOT NULL, path TEXT NOT NULL, off INT, bytes INT, sha256 BLOB,
  PRIMARY KEY(i, n)) WITHOUT ROWID;
CREATE TABLE type(t INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, price INT, sync_only INT);
CREATE TABLE shard(n INTEGER PRIMARY KEY, path TEXT NOT NULL, bytes INT NOT NULL);
CREATE TABLE sample(
  s INT NOT NULL, t INT NOT NULL, done INT, failed INT, refused INT, in_flight INT, spent INT,
  PRIMARY KEY(s, t)) WITHOUT ROWID;
"""

JOB_COLUMNS = (
    "i", "k", "state", "id", "session", "attempts", "refusals", "again", "at", "ms", "job_id",
    "seed", "price", "type", "shard", "off", "bytes", "sha256", "ext", "error", "expected",
)  # fmt: skip
INSERT_JOB = (
    f"INSERT OR REPLACE INTO job({','.join(JOB_COLUMNS)}) "
    f"VALUES({','.join('?' * len(JOB_COLUMNS))})"
)


@dataclass(slots=True)
class Saved:
    """Where one output lies, once it is safe."""

    path: str | None
    """Relative to the folder of outputs; ``None`` when row, key and `ext` say it."""
    ext: str
    sha256: bytes
    size: int
    shard: int | None = None
    offset: int | None = None


@dataclass(slots=True)
class Finish:
    """What became of a row. All that the record is to know of it, in plain values."""

    i: int
    k: bytes
    state: int
    id: str | None
    session: int
    type: str
    attempts: int = 0
    refusals: int = 0
    again: int = 0
    at: int = 0
    ms: int = 0
    job_id: str | None = None
    seed: int | None = None
    price: int | None = None
    expected: int | None = None
    """What it was expected to cost: written where no answer told a price."""
    error: str | None = None
    request: str | None = None
    saved: list[Saved] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it for a file in the reserve."""
        facts = dict(zip(Finish.__slots__, _FINISH(self), strict=True))
        facts["k"] = self.k.hex()
        facts["saved"] = [
            {**dict(zip(Saved.__slots__, _SAVED(one), strict=True)), "sha256": one.sha256.hex()}
            for one in self.saved
        ]
        return facts

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Finish:
        """Read what `to_json` wrote."""
        saved = [Saved(**{**one, "sha256": bytes.fromhex(one["sha256"])}) for one in facts["saved"]]
        return cls(**{**facts, "k": bytes.fromhex(facts["k"]), "saved": saved})


_FINISH, _SAVED = attrgetter(*Finish.__slots__), attrgetter(*Saved.__slots__)


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """
    Open a record. Blocks.

    Raises:
        RecordDamagedError: It is no record, or one of a newer format.
    """
    if read_only and not os.access(path.parent, os.W_OK):
        return _connect_frozen(path)
    try:
        mode = "ro" if read_only else "rwc"
        connection = _open(f"{path.absolute().as_uri()}?mode={mode}")
    except sqlite3.Error as error:
        raise RecordDamagedError(f"the record {path} cannot be opened: {error}") from error
    try:
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA journal_size_limit=67108864")
            # The file is kept small by truncating rather than by overwriting in place.
            connection.execute("PRAGMA wal_autocheckpoint=1000")
        _check_format(connection, path, may_make=not read_only)
    except sqlite3.Error as error:
        connection.close()
        raise RecordDamagedError(
            f"the record {path} is damaged: {error}. Nothing was changed. If you have no copy of "
            "it, begin in a new folder: what is in this one is safe, and would be paid again"
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _open(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30, check_same_thread=False)


def _connect_frozen(path: Path) -> sqlite3.Connection:
    """Open a record where nothing can be written, not even the index of its log."""
    log = path.with_name(f"{path.name}-wal")
    if not log.exists() or not log.stat().st_size:
        connection = _open(f"{path.absolute().as_uri()}?immutable=1")
        _check_format(connection, path, may_make=False)
        return connection
    with tempfile.TemporaryDirectory() as folder:
        for each in (path, log):
            shutil.copy(each, folder)
        connection = connect(Path(folder) / path.name, read_only=True)
        connection.execute("SELECT count(*) FROM run").fetchone()
        return connection  # the files stay until it is closed


def _check_format(connection: sqlite3.Connection, path: Path, *, may_make: bool) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version == 0 and not tables:
        if not may_make:
            raise RecordDamagedError(f"{path} holds no record")
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.split(";"):
            if statement.strip():
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")
    elif version > FORMAT:
        raise RecordDamagedError(
            f"the record {path} has format {version}, and this version of prodia_async knows "
            f"format {FORMAT}; install a newer one"
        )
    elif version != FORMAT:
        raise RecordDamagedError(f"{path} is no record of a batch")
    else:
        connection.execute("SELECT i, k, state FROM job ORDER BY i LIMIT 1").fetchone()
        connection.execute("SELECT i FROM open LIMIT 1").fetchone()


class Promise:
    """
    What somebody in the event loop waits for.

    Attributes:
        is_settled: Whether it is known what it came to.
        error: What it failed with.
        then: Called when it is settled, in the event loop.
    """

    __slots__ = ("_event", "_value", "error", "is_settled", "then")

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._value: Any = None
        self.error: BaseException | None = None
        self.is_settled = False
        self.then: Callable[[], None] | None = None

    def land(self) -> None:
        """Tell that it outlives the process from here on; in the event loop."""
        self._event.set()

    def settle(self, value: Any, error: BaseException | None) -> None:
        """Tell what it came to; in the event loop."""
        self._value, self.error = value, error
        self.is_settled = True
        self._event.set()
        if self.then is not None:
            self.then()

    async def change(self) -> None:
        """Wait until it has landed or is settled."""
        await self._event.wait()

    async def wait(self) -> Any:
        """Return what it came to, or raise the error."""
        await self._event.wait()
        if not self.is_settled:  # it has only landed
            settled = anyio.Event()
            self.then = settled.set
            await settled.wait()
        if self.error is not None:
            raise self.error
        return self._value


Sent = tuple[float, int, int]
"""When a row was sent, how often, and its number."""

Work = tuple["Callable[[sqlite3.Connection], Any] | Finish | Sent", "Promise | None"]

Where = tuple["int | None", "int | None", "int | None", "bytes | None", "str | None"]

_NOWHERE: Where = (None, None, None, None, None)


def _outputs_of(end: Finish) -> list[tuple[Any, ...]]:
    return [
        (end.i, number, one.path or "", one.offset, one.size, one.sha256)
        for number, one in enumerate(end.saved)
        if number or one.path is not None
    ]


def _see_shards(shards: dict[int, int], saved: Iterable[Saved]) -> None:
    """Note how far the shards reach with these outputs; each is filled up to a block."""
    for one in saved:
        if one.shard is not None and one.offset is not None:
            end = one.offset + -(-one.size // 512) * 512
            shards[one.shard] = max(shards.get(one.shard, 0), end)


def notifier() -> Callable[[Callable[..., object], Any], None]:
    """Return a function that has the running event loop call another, from any thread."""
    token: Any = anyio.lowlevel.current_token()
    native = getattr(token, "native_token", token)
    call = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon

    def notify(function: Callable[..., object], argument: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            call(function, argument)

    return notify


def settle_all(settled: Iterable[tuple[Promise, Any, BaseException | None]]) -> None:
    """Tell everybody who waits for one commit."""
    for promise, value, error in settled:
        promise.settle(value, error)


class Record:
    """
    The record of a run, for the one process that writes it.

    Args:
        path: The SQLite file.
        linger: Seconds a commit waits for company.

    Raises:
        RecordDamagedError: It is no record, or one of a newer format.
    """

    def __init__(
        self, path: Path, *, notify: Callable[..., None], linger: float = LINGER_SECONDS
    ) -> None:
        self.path = path
        self._linger = linger
        self.connection = connect(path, read_only=False)
        """For the writer's thread; for others before `start` and after `stop`."""
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._folders: set[str] = set()
        self._types: dict[str, int] = {}
        self._prices: dict[str, int] = {}
        self._notify = notify
        self._is_closed = True
        self._thread: threading.Thread | None = None
        self.broken: BaseException | None = None
        """Why it cannot be written any more."""
        self.on_trouble: Callable[[BaseException], None] = lambda _: None
        """Called in the writer's thread after a commit failed, before it is tried once more."""

    def start(self) -> None:
        """Start the thread that writes."""
        self._is_closed = False
        self._thread = threading.Thread(target=self._write_all, name="prodia-record", daemon=True)
        self._thread.start()

    def tell(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        """Have something written, in its turn; nobody waits for it."""
        self.put(work, None)

    async def ask(self, work: Callable[[sqlite3.Connection], T], *, linger: bool = False) -> T:
        """
        Have something read or written, and wait until it is safe on the disk.

        Args:
            work: Is called in the writer's thread, inside a transaction.
            linger: Whether it may wait for company.

        Raises:
            BatchError: The record could not be written.
        """
        promise = Promise()
        self.put(work, promise)
        if not linger:
            self._hurry.set()
        result: T = await promise.wait()
        return result

    @contextlib.contextmanager
    def hurrying(self) -> Iterator[None]:
        """Have no commit wait for company, for a block."""
        linger, self._linger = self._linger, 0.0
        self._hurry.set()
        try:
            yield
        finally:
            self._linger = linger

    def put(self, work: Callable[[sqlite3.Connection], Any], promise: Promise | None) -> None:
        """Queue work from any thread."""
        self._put(work, promise)

    def sent(self, i: int, at: float, times: int) -> None:
        """
        Have it written that a row was sent; nobody waits for it.

        Args:
            i: The row.
            at: When, by the wall clock.
            times: How often, this time included.
        """
        self._put((at, times, i), None)

    def finished(self, end: Finish, promise: Promise | None) -> None:
        """
        Have it written what became of a row; from any thread.

        Args:
            end: What became of it. Its outputs are safe.
            promise: Is settled once it is on the disk.
        """
        self._put(end, promise)

    def _put(self, work: Any, promise: Promise | None) -> None:
        if self._is_closed:
            raise BatchError("the record is closed")
        self._queue.put((work, promise))

    def touched(self, folder: str) -> None:
        """Have a folder's own entry made safe before the next commit; from any thread."""
        self._folders.add(folder)

    def type_number(self, connection: sqlite3.Connection, name: str) -> int:
        """Return the number of a job type; in the writer's thread."""
        number = self._types.get(name)
        if number is None:
            connection.execute("INSERT OR IGNORE INTO type(name) VALUES(?)", (name,))
            (number,) = connection.execute("SELECT t FROM type WHERE name=?", (name,)).fetchone()
            self._types[name] = number
        return int(number)

    def finish(self, connection: sqlite3.Connection, end: Finish) -> None:
        """Write what became of a row; in the writer's thread."""
        self._finish_all(connection, [end])

    def _finish_all(self, connection: sqlite3.Connection, ends: Sequence[Finish]) -> None:
        """Write what became of rows: a statement for all of them costs half of one for each."""
        jobs, rows, requests, outputs = [], [], [], []
        shards: dict[int, int] = {}
        prices: dict[str, int] = {}
        for end in ends:
            saved = end.saved
            where = _NOWHERE
            if saved:
                first = saved[0]
                where = (first.shard, first.offset, first.size, first.sha256, first.ext)
                if len(saved) > 1 or first.path is not None:
                    outputs += _outputs_of(end)
                if first.shard is not None:
                    _see_shards(shards, saved)
            jobs.append(
                (
                    end.i, end.k, end.state, end.id, end.session, end.attempts,
                    end.refusals or None, end.again or None, end.at, end.ms,
                    packed_id(end.job_id), end.seed, end.price,
                    self._types.get(end.type) or self.type_number(connection, end.type),
                    *where, end.error, end.expected if end.price is None else None,
                )
            )  # fmt: skip
            rows.append((end.i,))
            if end.request is not None and is_kept(end.i, end.state):
                requests.append((end.i, end.request))
            if end.price is not None and end.price > self._prices.get(end.type, -1):
                self._prices[end.type] = prices[end.type] = end.price
        connection.executemany(INSERT_JOB, jobs)
        connection.executemany("DELETE FROM open WHERE i=?", rows)
        if requests:
            connection.executemany("INSERT OR REPLACE INTO request VALUES(?,?)", requests)
        if outputs:
            connection.executemany("INSERT OR REPLACE INTO output VALUES(?,?,?,?,?,?)", outputs)
        for number, size in shards.items():
            connection.execute(
                "INSERT OR IGNORE INTO shard VALUES(?,?,0)", (number, shard_name(number))
            )
            connection.execute("UPDATE shard SET bytes=max(bytes, ?) WHERE n=?", (size, number))
        for name, price in prices.items():
            connection.execute(
                "UPDATE type SET price=max(ifnull(price, 0), ?) WHERE name=?", (price, name)
            )

    def stop(self) -> None:
        """Write what is queued, and end the thread. Blocks."""
        if self._thread is not None:
            self._is_closed = True
            self._queue.put(None)
            self._hurry.set()
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Close the file. Blocks."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()

    # The writer's thread.

    def _write_all(self) -> None:
        is_over = False
        while not is_over:
            first = self._queue.get()
            if first is None:
                break
            if self._linger and not self._hurry.is_set():
                self._hurry.wait(self._linger)
            self._hurry.clear()
            group = [first]
            while len(group) < MOST_IN_A_COMMIT:
                try:
                    work = self._queue.get_nowait()
                except queue.Empty:
                    break
                if work is None:
                    is_over = True
                    break
                group.append(work)
            self._commit(group)

    def _commit(self, group: Sequence[Work]) -> None:
        error: BaseException | None = None
        values: list[Any] = []
        for is_second in (False, True):
            try:
                values = self._try(group)
                error = None
                break
            except Exception as caught:  # noqa: BLE001  (told to everybody who waits)
                error = caught
                with contextlib.suppress(sqlite3.Error):
                    self.connection.execute("ROLLBACK")
                self._types.clear()  # what was learned with it is not written down
                self._prices.clear()
                if not isinstance(caught, sqlite3.Error | OSError):
                    # One of them is at fault, not the disk: each on its own.
                    if len(group) > 1:
                        for work in group:
                            self._commit([work])
                        return
                    break
                if not is_second:
                    self.on_trouble(self._said(caught))
        if isinstance(error, sqlite3.Error | OSError):
            self.broken = error
            error = self._said(error)
        self._notify(
            settle_all,
            [
                (promise, None if error else value, error)
                for (_, promise), value in zip(
                    group, values if error is None else [None] * len(group), strict=True
                )
                if promise is not None
            ],
        )

    def _said(self, error: BaseException) -> BatchError:
        said = BatchError(f"the record {self.path} cannot be written: {error}")
        said.__cause__ = error
        return said

    def _try(self, group: Sequence[Work]) -> list[Any]:
        folders, self._folders = self._folders, set()
        try:
            for folder in folders:
                sync_folder(folder)
        except OSError:
            self._folders |= folders
            raise
        self.connection.execute("BEGIN IMMEDIATE")
        values: list[Any] = []
        sent: list[Sent] = []
        ends: list[Finish] = []
        for work, _ in group:
            value = None
            if isinstance(work, Finish):
                ends.append(work)
            elif isinstance(work, tuple):
                sent.append(work)
            else:
                # It may look at, or change, what those before it have written.
                self._write(sent, ends)
                value = work(self.connection)
            values.append(value)
        self._write(sent, ends)
        self.connection.execute("COMMIT")
        return values

    def _write(self, sent: list[Sent], ends: list[Finish]) -> None:
        """Write, and forget, what has gathered: a row is sent before it has come to its end."""
        if sent:
            self.connection.executemany("UPDATE open SET sent=?, times=? WHERE i=?", sent)
            sent.clear()
        if ends:
            self._finish_all(self.connection, ends)
            ends.clear()


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in a folder safe. Blocks."""
    if os.name == "nt":  # pragma: no cover  (a folder cannot be opened there, nor need it be)
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05}.tar"


def is_kept(i: int, state: int) -> bool:
    """Return whether the request of a row is kept once the row came to its end."""
    return state != State.DONE or i < KEEP_ALL or i % KEEP_EVERY == 0


def packed_id(job_id: str | None) -> bytes | str | None:
    """Return a UUID as its 16 bytes, and any other id as it is."""
    if job_id is None or len(job_id) != 36:
        return job_id
    try:
        packed = bytes.fromhex(job_id.replace("-", ""))
    except ValueError:
        return job_id
    return packed if len(packed) == 16 and unpacked_id(packed) == job_id else job_id


def unpacked_id(packed: bytes | str | None) -> str | None:
    """Return what `packed_id` packed."""
    if not isinstance(packed, bytes):
        return packed
    text = packed.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def get(connection: sqlite3.Connection, name: str) -> Any:
    """Return a setting of the run; ``None`` when it has none of that name."""
    found = connection.execute("SELECT v FROM run WHERE k=?", (name,)).fetchone()
    return None if found is None else json.loads(found[0])


def put(connection: sqlite3.Connection, name: str, value: object) -> None:
    """Write a setting of the run."""
    connection.execute("INSERT OR REPLACE INTO run VALUES(?,?)", (name, json.dumps(value)))


def wall() -> float:
    """Return the wall clock: seconds since the epoch. For people; nothing is decided by it."""
    return time.time()
