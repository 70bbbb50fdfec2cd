"""The record's one writer: what lies in its queue is written together, and means the same."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from prodia_async.batch import BatchError
from prodia_async.batch._decide import State
from prodia_async.batch._record import Finish, Promise, Record, Saved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(name="record")
def _record(tmp_path: Path) -> Iterator[Record]:
    record = Record(tmp_path / "run.sqlite", notify=lambda call, argument: call(argument))
    record.connection.executemany(
        "INSERT INTO open(i, k, type, again, request) VALUES(?,?,'a',0,'{}')",
        [(i, bytes([i]) * 16) for i in range(6)],
    )
    yield record
    record.stop()
    record.close()


def end(i: int, **changes: Any) -> Finish:
    facts: dict[str, Any] = {"state": State.DONE, "id": None, "session": 1, "type": "a", **changes}
    return Finish(i, bytes([i]) * 16, **facts)


def in_one_commit(record: Record, *works: Callable[[], None]) -> None:
    """Have all of it lie in the queue when the writer looks."""
    held = threading.Event()
    record.start()
    record.tell(lambda _: held.wait(10))
    for work in works:
        work()
    held.set()
    record.stop()


def rows(record: Record, query: str) -> list[Any]:
    return record.connection.execute(query).fetchall()


def test_what_is_written_together_is_written_in_its_order(record: Record) -> None:
    """A look sees what came before it and nothing behind it; a row's last word counts."""
    seen: list[Any] = []

    def look(connection: Any) -> None:
        query = "SELECT (SELECT count(*) FROM job), (SELECT count(sent) FROM open)"
        seen.append(connection.execute(query).fetchone())

    promise = Promise()
    in_one_commit(
        record,
        lambda: record.sent(0, 7.0, 1),
        lambda: record.sent(1, 7.5, 1),
        lambda: record.finished(end(0, price=5, request="{}"), None),
        lambda: record.tell(look),
        lambda: record.sent(2, 8.0, 3),
        lambda: record.sent(2, 9.0, 4),
        lambda: record.finished(end(1, price=9, state=State.FAILED, error="E: x"), None),
        lambda: record.finished(end(3, type="b", price=2), promise),
        lambda: record.finished(end(0, price=4, request="[]"), None),
        lambda: record.tell(look),
    )
    assert seen == [(1, 1), (3, 1)]
    assert promise.is_settled
    assert promise.error is None
    assert rows(record, "SELECT i, sent, times FROM open ORDER BY i") == [
        (2, 9.0, 4), (4, None, 0), (5, None, 0),
    ]  # fmt: skip
    assert rows(record, "SELECT i, state, price, error FROM job ORDER BY i") == [
        (0, 2, 4, None), (1, 3, 9, "E: x"), (3, 2, 2, None),
    ]  # fmt: skip
    assert rows(record, "SELECT i, line FROM request") == [(0, "[]")]
    assert rows(record, "SELECT name, price FROM type ORDER BY t") == [("a", 9), ("b", 2)]


def test_where_outputs_lie(record: Record) -> None:
    """Each output but what row, key and extension say; a shard reaches to its last block."""
    digest = bytes(32)
    two = [Saved(None, "jpg", digest, 3), Saved("two", "png", digest, 4)]
    in_tar = [Saved("a", "jpg", digest, 513, 1, 1024), Saved("b", "jpg", digest, 5, 2, 0)]
    in_one_commit(
        record,
        lambda: record.finished(end(0, saved=two), None),
        lambda: record.finished(end(1, saved=in_tar), None),
        lambda: record.finished(end(2, saved=[Saved("c", "jpg", digest, 1, 1, 512)]), None),
    )
    assert rows(record, "SELECT i, n, path, off, bytes FROM output ORDER BY i, n") == [
        (0, 1, "two", None, 4), (1, 0, "a", 1024, 513), (1, 1, "b", 0, 5), (2, 0, "c", 512, 1),
    ]  # fmt: skip
    assert rows(record, "SELECT n, path, bytes FROM shard ORDER BY n") == [
        (1, "shard-00001.tar", 2048), (2, "shard-00002.tar", 512),
    ]  # fmt: skip
    assert rows(record, "SELECT i, shard, off, bytes, ext FROM job ORDER BY i") == [
        (0, None, None, 3, "jpg"), (1, 1, 1024, 513, "jpg"), (2, 1, 512, 1, "jpg"),
    ]  # fmt: skip


def test_one_that_fails_takes_nothing_with_it(record: Record) -> None:
    """Neither what was written beside it, nor what was learned: its type, and its price."""

    def fail(_: object) -> None:
        raise ValueError("by itself")

    failed, kept = Promise(), Promise()
    in_one_commit(
        record,
        lambda: record.finished(end(0, type="new", price=3), kept),
        lambda: record.put(fail, failed),
    )
    assert (kept.error, str(failed.error)) == (None, "by itself")
    assert rows(record, "SELECT job.i, name, type.price FROM job JOIN type ON t=type") == [
        (0, "new", 3)
    ]


@pytest.mark.parametrize("fails", [1, 2])
def test_a_folder_is_safe_before_the_record_says_that_its_outputs_are(
    record: Record, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """One that could not be made so is tried again with the row, which is not done before."""
    left, tried = fails, []
    troubles: list[BaseException] = []

    def full_at_first(folder: str) -> None:
        nonlocal left
        tried.append(folder)
        if left:
            left -= 1
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("prodia_async.batch._record.sync_folder", full_at_first)
    record.on_trouble = troubles.append
    promise = Promise()
    in_one_commit(
        record, lambda: record.touched("out/000"), lambda: record.finished(end(0), promise)
    )
    assert tried == ["out/000"] * 2
    assert [type(each) for each in troubles] == [BatchError]
    assert (promise.error is None) == (fails == 1)
    assert rows(record, "SELECT i FROM job") == ([(0,)] if fails == 1 else [])
    with pytest.raises(BatchError, match="the record is closed"):
        record.finished(end(1), Promise())
