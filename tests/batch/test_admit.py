"""Rows held against a record: placed, numbered, found equal; what a dead process left."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from prodia_async.batch import BadRow
from prodia_async.batch._admit import Coming, Named, admit, differences_of
from prodia_async.batch._decide import State
from prodia_async.batch._folder import Mark
from prodia_async.batch._opening import give_back, money, settle
from prodia_async.batch._record import Finish, Record
from prodia_async.batch._trade import Asked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def key(n: int) -> bytes:
    return n.to_bytes(16, "big")


def row(n: int, k: int | None = None, id: str | None = None, **config: Any) -> Coming:
    k = n if k is None else k
    line = {"type": "x", "config": {"k": k, **config}}
    return Coming(n, key(k), Asked(None, "x", line, key(k), id), None, 5)


def bad(n: int, k: int) -> Coming:
    return Coming(n, key(k), None, BadRow(n + 1, "why", "start"))


@pytest.fixture(name="record")
def _record(tmp_path: Path) -> Iterator[Record]:
    record = Record(tmp_path / "run.sqlite", notify=lambda *_: None)
    yield record
    record.close()


def place(record: Record, rows: list[Coming], **given: Any) -> list[tuple[str, int]]:
    found = ask(record, rows, **given)
    assert found.differences == ()
    return [(each.outcome, each.i) for each in found.placed]


def ask(record: Record, rows: list[Coming], **given: Any) -> Any:
    options = {
        "under_way": {}, "named": Named(), "on_doubt": "retry", "retry_failed": False,
        "is_first": False, "also": False, "session": 1, "at": 0, **given,
    }  # fmt: skip
    return admit(record.connection, record, rows, **options)


def end(
    record: Record, i: int, state: State = State.DONE, k: int | None = None, **given: Any
) -> None:
    line = json.dumps({"type": "x", "config": {"k": i if k is None else k}})
    finish = Finish(i, key(i if k is None else k), state, None, 1, "x", request=line, **given)
    record.finish(record.connection, finish)


def states(record: Record) -> dict[int, tuple[int, int]]:
    query = "SELECT i, k, state FROM job ORDER BY i"
    return {
        i: (int.from_bytes(k, "big"), state) for i, k, state in record.connection.execute(query)
    }


def taken(record: Record) -> list[int]:
    return [i for (i,) in record.connection.execute("SELECT i FROM open ORDER BY i")]


def test_new_rows_are_taken_under_their_numbers(record: Record) -> None:
    """Written down as taken, with what they are and cost, before anything is sent."""
    rows = [row(0), row(1), row(2)]
    assert place(record, rows, is_first=True) == [("take", 0), ("take", 1), ("take", 2)]
    assert taken(record) == [0, 1, 2]
    found = record.connection.execute("SELECT type, expected, sent, request FROM open").fetchone()
    assert found == ("x", 5, None, '{"type":"x","config":{"k":0}}')


def test_what_is_known_is_not_taken(record: Record) -> None:
    """Done, failed, in doubt: as the options say; a failure that is retried keeps its number."""
    end(record, 0)
    end(record, 1, State.FAILED)
    end(record, 2, State.IN_DOUBT, again=1)
    rows = [row(0), row(1), row(2)]
    assert place(record, rows, on_doubt="hold") == [("done", 0), ("failed", 1), ("in doubt", 2)]
    assert taken(record) == []
    found = ask(record, rows, retry_failed=True).placed
    assert [(each.outcome, each.i, each.again, each.held) for each in found] == [
        ("done", 0, 0, None), ("take", 1, 0, State.FAILED), ("take", 2, 1, State.IN_DOUBT),
    ]  # fmt: skip


def test_equal_rows_share_one_job(record: Record) -> None:
    """In one chunk, with one under way, with one that is done: each is written down once."""
    rows = [row(0, 7), row(1, 7, "b"), row(2, 8), row(3, 9)]
    named = Named()
    named.add([50])
    found = place(record, rows, under_way={key(8): 50}, named=named)
    assert found == [("take", 0), ("equal", 0), ("equal", 50), ("take", 3)]
    assert states(record) == {1: (7, State.DUPLICATE), 2: (8, State.DUPLICATE)}
    end(record, 0, k=7)
    assert place(record, [row(0, 7), row(1, 7, "b"), row(4, 7)]) == [("done", 0)] * 3
    assert states(record)[4] == (7, State.DUPLICATE)


def test_the_row_that_is_being_collected_is_the_same(record: Record) -> None:
    """It is no duplicate of itself."""
    found = ask(record, [row(3), row(4, 3)], under_way={key(3): 3}).placed
    assert [(each.outcome, each.i, each.is_duplicate) for each in found] == [
        ("same", 3, False), ("equal", 3, True),
    ]  # fmt: skip


def test_what_was_left_with_the_server_is_not_taken_again(record: Record) -> None:
    """It is under way no more, but has an id: it is paid for, and will be collected."""
    place(record, [row(0)])
    record.connection.execute("UPDATE open SET job_id='abc'")
    assert place(record, [row(0), row(1), row(2, 0)]) == [("same", 0), ("take", 1), ("equal", 0)]
    ids = record.connection.execute("SELECT i, job_id FROM open").fetchall()
    assert ids == [(0, "abc"), (1, None)]


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.IN_DOUBT])
def test_the_first_row_that_names_another_is_that_row(record: Record, state: State) -> None:
    """Whether it is under way, left behind or at its end, and wherever it stands by now."""
    end(record, 0, state)
    named = Named()
    options: dict[str, Any] = {"named": named, "on_doubt": "hold", "under_way": {key(7): 9}}
    found = ask(record, [row(30, 0), row(31, 7)], **options).placed
    assert [each.is_duplicate for each in found] == [False, False]
    assert found[1].outcome == "same"
    assert list(states(record)) == [0]
    # A transaction that failed is begun again, so that only who asks knows whether it is named.
    assert 0 not in named
    assert 9 not in named
    named.add(each.i for each in found)
    found = ask(record, [row(40, 0), row(41, 7)], **options).placed
    assert [each.is_duplicate for each in found] == [True, True]
    assert found[1].outcome == "equal"
    assert list(states(record)) == [0, 40, 41]


def test_what_is_named_costs_a_bit() -> None:
    named = Named()
    assert 0 not in named
    assert 10**9 not in named
    numbers = [0, 7, 8, 9, 40_000, 1_000_000]
    named.add(numbers)
    assert [i for i in range(1_100_000) if i in named] == numbers
    assert len(named._bits) < 130_000


def test_rows_that_moved_are_not_written_again(record: Record) -> None:
    """Their numbers are taken by others that moved; what is new goes beyond all of them."""
    for i in range(4):
        end(record, i)
    rows = [row(0, 99), row(1, 0), row(2, 1), row(3, 2), row(4, 3)]
    assert place(record, rows) == [
        ("take", 5), ("done", 0), ("done", 1), ("done", 2), ("done", 3),
    ]  # fmt: skip
    assert states(record) == {i: (i, State.DONE) for i in range(4)}
    assert place(record, [row(2, 97), row(3, 98)]) == [("take", 6), ("take", 7)]
    assert len(set(taken(record))) == 3


def test_a_name_that_is_given_later_is_kept(record: Record) -> None:
    """Of the first row that is equal, wherever it stands; one without a name changes nothing."""
    for i in range(2):
        end(record, i)
    place(record, [row(0, 1, "b"), row(1, 0, "a"), row(2, 1, "again")])
    place(record, [row(0), row(1)])
    names = "SELECT i, id FROM job ORDER BY i"
    assert record.connection.execute(names).fetchall() == [(0, "a"), (1, "b"), (2, "again")]
    place(record, [row(0, 0, "another")])
    assert record.connection.execute(names).fetchone() == (0, "another")


def test_the_first_rows_wait_until_one_is_known(record: Record) -> None:
    """Done, or with the server: then no more of them need be looked at."""
    end(record, 0)
    end(record, 1, State.INVALID)
    options: dict[str, Any] = {"is_first": True, "is_enough": False}
    assert place(record, [bad(0, 9), row(1, 8)], **options) == []
    assert (taken(record), states(record)[1][1]) == ([], State.INVALID)
    assert place(record, [bad(0, 9), row(1, 8), row(2, 0)], **options)[1:] == [
        ("take", 1), ("done", 0),
    ]  # fmt: skip
    assert place(record, [row(40, 7)], under_way={key(7): 7}, **options) == [("same", 7)]
    assert len(place(record, [row(50)], is_first=True)) == 1
    assert len(place(record, [row(51)], also=True, **options)) == 1


def test_rows_that_are_no_jobs(record: Record) -> None:
    """They fail under their numbers, once; a row that was mended takes the number over."""
    assert place(record, [bad(0, 100), row(1)]) == [("failed", 0), ("take", 1)]
    assert place(record, [bad(0, 100), bad(2, 100)]) == [("failed", 0), ("failed", 0)]
    line = record.connection.execute("SELECT error FROM job WHERE i=0").fetchone()[0]
    assert line == "Invalid: line 1: why"
    assert place(record, [row(0)]) == [("take", 0)]
    end(record, 0)
    assert states(record)[0] == (0, State.DONE)


def test_other_jobs_are_told_before_anything_is_written(record: Record) -> None:
    """None known, all different: that is another run, unless it is wanted here as well."""
    for i in range(3):
        end(record, i)
    rows = [row(n, 50 + n, s=1) for n in range(3)]
    found = ask(record, rows, is_first=True)
    assert found.placed == []
    assert any("config.s was None and is 1" in each for each in found.differences)
    assert differences_of(record.connection, rows) == found.differences
    assert taken(record) == []
    assert place(record, rows, is_first=True, also=True) == [("take", 3), ("take", 4), ("take", 5)]
    assert differences_of(record.connection, [*rows[1:], row(2)]) == ()
    assert differences_of(record.connection, [bad(0, 200)]) == ()
    record.connection.execute("DELETE FROM request")
    assert differences_of(record.connection, [row(0, 70)]) == ()


def test_lines_hold_what_json_has_no_form_for(record: Record) -> None:
    """A mapping of another kind, a path: the record can write all that a batch takes."""
    from pathlib import PurePosixPath
    from types import MappingProxyType

    coming = row(0, p=PurePosixPath("/x"), m=MappingProxyType({"a": 1}))
    place(record, [coming])
    (line,) = record.connection.execute("SELECT request FROM open").fetchone()
    assert json.loads(line)["config"] == {"k": 0, "p": "/x", "m": {"a": 1}}


def test_many_keys_at_once(record: Record) -> None:
    """More than one query takes."""
    for i in range(0, 1200, 2):
        end(record, i)
    found = place(record, [row(n) for n in range(1200)])
    assert [outcome for outcome, _ in found] == ["done", "take"] * 600


# What a dead process left.


def test_what_was_sent_is_in_doubt_and_what_has_an_id_is_collected(record: Record) -> None:
    """What was only taken never left; a mark counts where the record is some milliseconds late."""
    place(record, [row(n) for n in range(5)])
    connection = record.connection
    connection.execute("UPDATE open SET sent=1000, times=2 WHERE i=1")
    connection.execute("UPDATE open SET sent=1000, job_id='abc', expires=1e12 WHERE i=2")
    connection.execute("UPDATE open SET again=3 WHERE i=3")
    marks = {3: Mark(1001.0, 4, risky=2), 2: Mark(1.0, 1, "other"), 4: Mark(1001.0, 1, "late")}
    collect = settle(record, marks, 2, 990.0, are_exact=False)
    assert [(each.i, each.job_id, each.left > 0) for each in collect] == [
        (2, "abc", True), (4, "late", False),
    ]  # fmt: skip
    assert taken(record) == [2, 4]
    ids = connection.execute("SELECT job_id FROM open ORDER BY i").fetchall()
    assert ids == [("abc",), ("late",)]
    query = "SELECT i, state, again, attempts, at FROM job ORDER BY i"
    assert connection.execute(query).fetchall() == [
        (1, State.IN_DOUBT, 1, 2, 10_000), (3, State.IN_DOUBT, 5, 4, 11_000),
    ]  # fmt: skip
    # Nobody has told a price, so what was expected counts, once for each time it may be paid.
    assert money(connection) == (0, 5 + 5 * 5, 6)


def test_what_was_sent_and_refused_is_not_in_doubt(record: Record) -> None:
    """Unless the machine has started anew: what was in its memory alone is gone then."""
    for are_exact, doubts in ((True, 0), (False, 1)):
        place(record, [row(0)])
        record.connection.execute("UPDATE open SET sent=1000, times=1")
        assert settle(record, {}, 2, 0.0, are_exact=are_exact) == []
        assert taken(record) == []
        assert len(states(record)) == doubts


def test_money_of_a_record(record: Record) -> None:
    """Told is told; a job that was paid again is doubtful once for each time."""
    end(record, 0, price=7)
    end(record, 1, price=9, again=2)
    end(record, 2, State.IN_DOUBT, again=1)
    end(record, 3, State.FAILED)
    assert money(record.connection) == (16, 9 * 2 + 9, 3)
    end(record, 4, expected=5)
    end(record, 5, price=1, expected=5)
    end(record, 6, State.IN_DOUBT, again=2, expected=20)
    end(record, 7, State.FAILED, again=1, expected=30)
    end(record, 8, State.FAILED, price=8)
    end(record, 9, State.IN_DOUBT, price=6)
    end(record, 10, State.DUPLICATE, k=0)
    whole = (16 + 5 + 1 + 8, 27 + 40 + 30 + 6, 6)
    assert money(record.connection) == whole
    give_back(record.connection, [0, 1, 4])
    assert 0 not in states(record)
    assert money(record.connection) == whole
    give_back(record.connection, [5])
    end(record, 0, price=7)
    assert money(record.connection) == (whole[0] + 7, *whole[1:])


def test_what_came_to_nothing_and_has_a_price_was_paid_before(record: Record) -> None:
    """A failure with a price, an answer that was lost: sent again, it is paid once more."""
    end(record, 0, State.FAILED, price=9)
    end(record, 1, State.IN_DOUBT, price=9)
    end(record, 2, State.IN_DOUBT, again=1)
    found = ask(record, [row(0), row(1), row(2)], retry_failed=True).placed
    assert [each.again for each in found] == [1, 1, 1]
