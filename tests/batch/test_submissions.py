"""Jobs that are left with the server, a few at a time."""

from __future__ import annotations

import anyio
from conftest import on_both_loops

from prodia_async.batch._submissions import WEIGHT, Submissions


class Clock:
    """Time that stands until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@on_both_loops
async def test_one_at_a_time_before_anything_is_known() -> None:
    """The second waits for the first one's end, whatever that is."""
    submissions = Submissions(10, Clock())
    order = []

    async def one(name: str) -> None:
        async with submissions.one():
            order.append(name)
            await anyio.sleep(0.01)
            order.append(f"{name} ended")

    async with anyio.create_task_group() as group:
        for name in ("a", "b", "c"):
            group.start_soon(one, name)
    assert [each.endswith("ended") for each in order] == [False, True] * 3


@on_both_loops
async def test_more_at_a_time_where_an_answer_takes_long() -> None:
    """Both times are averages, of which the newest is a fifth."""
    clock = Clock()
    submissions = Submissions(10, clock)
    assert submissions.most == 1
    async with submissions.one() as turn:
        assert turn == 100.0
        clock.now += 1.0
        submissions.answered(100.0)
    assert submissions.most == 1
    clock.now += 1.0
    submissions.ended(turn)
    assert submissions.most == 8  # 1.5 * 10 * 1.0 / 2.0
    submissions.answered(clock.now)
    assert WEIGHT == 0.2
    assert submissions.most == 6  # 1.5 * 10 * 0.8 / 2.0
    clock.now += 100.0
    submissions.ended(clock.now - 12.0)
    assert submissions.most == 3  # 1.5 * 10 * 0.8 / 4.0
