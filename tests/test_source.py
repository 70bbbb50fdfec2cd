"""Whether one more job is to be fetched."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import on_both_loops

from prodia_async._line import Line, State
from prodia_async._scheduler import Scheduler, Ticket
from prodia_async._source import AHEAD, MAX_LINES, MOST_ASIDE

if TYPE_CHECKING:
    from prodia_async._source import Source


def fetched(scheduler: Scheduler, source: Source, job_type: str = "job") -> Ticket:
    """One more job, which has asked for its slot."""
    ticket = scheduler.ticket(job_type, source)
    ticket.request()
    return ticket


def desk(max_concurrency: int = 2) -> tuple[Scheduler, Source]:
    scheduler = Scheduler(max_concurrency=max_concurrency, clock=lambda: 100.0, rand=lambda: 0.0)
    return scheduler, scheduler.source()


def shut(scheduler: Scheduler, job_type: str) -> None:
    """Have the server fail all of a type."""
    ticket = scheduler.ticket(job_type)
    ticket.request()
    ticket.troubled("fault", budget_is_empty=True)
    ticket.close()


def test_the_window_counts_what_is_under_way_or_unread() -> None:
    """Not what only waits: that is bounded by itself."""
    scheduler, source = desk(1)
    source.window = 2
    source.taken = 1
    fetched(scheduler, source)
    assert source.wants_more()
    source.taken = 2
    assert not source.wants_more()
    fetched(scheduler, source).close()
    source.taken = 1
    waiting = fetched(scheduler, source)
    source.taken = 2
    waiting.close()
    assert not source.wants_more()
    assert repr(source) == "<Source 2 taken, 0 of them wait, 0 aside>"


def test_every_sort_of_waiting_counts_and_is_not_in_the_window() -> None:
    """New, queued, and out a refusal; what was put aside is no more in it."""
    scheduler, source = desk(1)
    source.window = 1
    running = fetched(scheduler, source)
    running.refused(5.0, retry_after=5.0)
    fetched(scheduler, source)
    assert source.put_aside("job", 1)
    new = scheduler.ticket("another", source)
    assert source.waits() == 3
    new.close()
    assert source.waits() == 2
    source._several = True
    source.taken = 3
    assert source.wants_more()
    source.taken = 4
    assert not source.wants_more()


def test_a_source_alone_fetches_while_fewer_wait_out_refusals() -> None:
    """Four times the bound, and not one more."""
    scheduler, source = desk(1)
    for number in range(AHEAD):
        assert source.wants_more(), number
        scheduler.line("job")  # a type that is known
        ticket = fetched(scheduler, source, f"type-{number}")
        ticket.refused(5.0, retry_after=5.0)
    assert source.waits() == AHEAD
    assert not source.wants_more()


def test_a_job_is_put_aside_behind_one_of_its_type() -> None:
    """And taken up when that one has started; one at a time, in their order."""
    scheduler, source = desk(1)
    assert not source.put_aside("job", 1)  # nothing is known of the type
    first = fetched(scheduler, source)
    assert not source.put_aside("job", 1)
    second = fetched(scheduler, source)
    assert source.put_aside("job", 1)
    assert source.put_aside("job", 2)
    assert not source.put_aside("other", 3)
    assert (source.aside, source.take_up()) == (2, None)
    first.released(served=True)
    assert second.holds_slot()
    assert source.wants_more()
    assert source.take_up() == 1
    fetched(scheduler, source)
    assert source.take_up() is None
    second.released(served=True)
    assert (source.take_up(), source.aside, source.take_up()) == (2, 0, None)


def test_past_a_type_that_is_shut_others_are_looked_for() -> None:
    """While one that is open has nothing in line; then no more than a few are put aside."""
    scheduler, source = desk(2)
    shut(scheduler, "dead")
    fetched(scheduler, source, "dead")
    assert not source.wants_more()  # nothing says that there is another type
    scheduler.ticket("alive", source).request()
    source.aside = MOST_ASIDE - 2
    assert source.wants_more()
    source.aside = MOST_ASIDE - 1
    assert not source.wants_more()
    source.aside = 0
    for _ in range(2):
        fetched(scheduler, source, "alive")
    assert source.waits() == 2
    source.aside = AHEAD * 2 - 3
    assert source.wants_more()
    source.aside += 1
    assert not source.wants_more()


def test_nothing_is_fetched_while_all_types_are_shut() -> None:
    """One in line is enough to ask whether the server is back."""
    scheduler, source = desk(2)
    for job_type in "ab":
        fetched(scheduler, source, job_type).released(served=True)
        shut(scheduler, job_type)
    assert source.wants_more()
    fetched(scheduler, source, "a")
    assert not source.wants_more()


def test_what_ended_is_not_fetched_from() -> None:
    """But what was put aside is still taken up."""
    scheduler, source = desk(1)
    running = fetched(scheduler, source)
    fetched(scheduler, source)
    assert source.put_aside("job", 1)
    source.ended = True
    assert not source.wants_more()
    running.released(served=True)
    assert source.wants_more()
    assert source.take_up() == 1
    assert not source.wants_more()


def test_a_source_of_many_types_forgets_those_that_are_done() -> None:
    """Its memory does not grow with every type name it ever saw; nor does the scheduler's."""
    scheduler, source = desk(2)
    running = fetched(scheduler, source, "long")
    for number in range(3 * MAX_LINES):
        fetched(scheduler, source, f"type-{number}").close()
    assert len(source._lines) <= MAX_LINES + 1
    assert len(scheduler._lines) <= MAX_LINES
    running.released(served=True)
    assert scheduler.line("long") is running.line


def test_jobs_of_a_credential_are_put_aside_too() -> None:
    """By what is in line of their own; and nothing is counted as taken before it was."""
    scheduler, _ = desk(1)
    source = scheduler.source("key")
    assert source.taken == 0
    for _ in range(2):
        fetched(scheduler, source, "job")
    assert source.put_aside("job", 1)
    assert not scheduler.source().put_aside("job", 1)


def test_types_in_use_are_never_forgotten() -> None:
    """However many there are; and the idle ones are not looked for at each new one."""
    scheduler, _ = desk(1)
    tickets = [scheduler.ticket(f"type-{number}") for number in range(MAX_LINES + 5)]
    assert all(scheduler.line(f"type-{number}") for number in range(MAX_LINES + 5))
    assert scheduler._sweep_at == 2 * MAX_LINES
    for ticket in tickets:
        ticket.close()
    scheduler.ticket("another")
    assert len(scheduler._lines) == MAX_LINES + 6


def test_stopping_is_told_and_lasts() -> None:
    """All sources of a scheduler, those to come too; not one that has left."""
    scheduler, source = desk()
    gone = scheduler.source()
    gone.close()
    told: list[str] = []
    source.on_stop = lambda: told.append("source")
    gone.on_stop = lambda: told.append("gone")
    scheduler.stop_sources()
    assert told == ["source"]
    assert not source.wants_more()
    assert gone.wants_more()
    assert not scheduler.source().wants_more()
    scheduler.source().stop()


@on_both_loops
async def test_who_waits_is_told_when_it_is_stopped_or_closed() -> None:
    """With False, or with an error."""
    scheduler = Scheduler(max_concurrency=1)
    one, two = scheduler.source(), scheduler.source()
    found: list[object] = []

    async def wait(source: Source) -> None:
        try:
            found.append(await source.until_wanted())
        except RuntimeError as error:
            found.append(str(error))

    for source in (one, two):
        fetched(scheduler, source)
        fetched(scheduler, source)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, one)
            tasks.start_soon(wait, two)
            await anyio.wait_all_tasks_blocked()
            one.stop()
            await anyio.wait_all_tasks_blocked()
            assert found == [False]
            scheduler.close()
    assert found == [False, "this client is closed; make a new one"]
    with pytest.raises(RuntimeError, match="closed"):
        two.wants_more()
    assert not one.wants_more()


def test_how_many_are_left_counts_for_probes() -> None:
    """The scheduler adds up what is queued, put aside and not fetched yet."""
    scheduler, source = desk(64)
    tickets = [fetched(scheduler, source) for _ in range(16)]
    line = tickets[0].line
    assert scheduler._backlog(line) == 0
    fetched(scheduler, source)
    assert scheduler._backlog(line) == inf
    source.left, source.aside = 7, 2
    assert scheduler._backlog(line) == 10
    tickets[0].refused(5.0, retry_after=5.0)
    assert scheduler._backlog(line) == 11


def test_whoever_came_first_is_first_in_line_however_he_came_back() -> None:
    """By age; only whom the server refused goes before all."""

    class Waits:
        state = State.QUEUED

        def __init__(self, age: int, *, was_refused: bool = False) -> None:
            self.age = age
            self.was_refused = was_refused

    none: Any = None
    line: Line[Any] = Line("job", none, none)
    for waits in (Waits(2), Waits(5), Waits(3), Waits(4), Waits(9, was_refused=True)):
        line.push(waits)
    assert [line.pop().age for _ in range(5)] == [9, 2, 3, 4, 5]
