"""
One run over one input: rows are taken, sent, made safe, and only then counted.

::

    _work            as many as can be in flight; a slot is free once no kill can take the row
      _next          a row; one worker waits for it, the others end and are started again
        _take        which: one to collect, one that came back, the next of the input
      _one           sends it (`_trade`), and sees what came of it
        Ends.keep    bytes safe, then the record, then it is counted; shielded
        Ends.failed  what its error means for it (`_decide`)
    _pull            rows from the input, ahead of need, against the record (`_admit`)
    Watch.tick       progress, the plots' samples, the lease
    Watch.listen     SIGINT and SIGTERM: once is an end in good order, twice an end now
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from .._errors import (
    BadRequestError,
    InvalidRequestError,
)
from .._show import words_of
from ._admit import Coming, Named, admit, forget_bad, line_text
from ._decide import (
    NANO,
    State,
    first_to_collect,
    wants_async,
)
from ._ends import Ends
from ._going import Going, Options, Source, bad_row, no_job
from ._record import put, wall
from ._rows import mended_by
from ._standing import Standing, doubt_line
from ._submissions import Submissions
from ._trade import Asked, Facts, Flight, watching
from ._values import (
    BadRow,
    BatchChangedError,
    BatchError,
    BatchProgress,
    BatchSummary,
    PriceUnknownError,
    dollars_text,
)
from ._watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Mapping

    from anyio.abc import TaskGroup

    from ._opening import Opened, ToCollect
    from ._outputs import Savers
    from ._trade import Made, Trade

CHUNK = 64
"""Rows that are looked up together. Chosen: some 1 ms of work, two queries."""

FIRST_ROWS = 32
"""Rows that are looked at before a run on an older folder that knows none begins. Chosen."""

MOST_FIRST_ROWS = 10_000
"""How many, if the folder has others in their places. Chosen: some seconds, and 10 MB."""

LOOK_SECONDS = 0.2
"""How often it is looked whether a row that waits may be sent. Chosen."""

MOST_DELAYED = 1000
"""Rows that may wait out a Retry-After before no more are taken. Chosen."""


class Run(Standing):
    """
    One run.

    Args:
        opened: The folder.
        trade: The API.
        savers: The threads that make outputs safe.
        options: What the user wants.
        show: Is told of the progress.
        to_remember: Settings to be written with the first rows.
    """

    def __init__(  # noqa: PLR0917  (what a run is made of)
        self,
        opened: Opened,
        trade: Trade,
        savers: Savers,
        options: Options,
        show: Callable[[BatchProgress], None] | None,
        to_remember: Mapping[str, object],
    ) -> None:
        super().__init__(opened, trade, savers, options, show)
        self._to_remember = to_remember
        self._ways: dict[str, bool] = {}
        self._how: dict[str, str] = {}
        self._submissions: dict[str, Submissions] = {}
        self._n = 0
        self._exhausted = False
        self._is_first = True
        self._named = Named()
        self._is_pulling = False
        self._slots = trade.max_concurrency()
        self._ahead = min(self._slots, CHUNK)
        self._workers = self._idle = 0
        self._input_error: BaseException | None = None
        self._source: Any = None
        self.ends = Ends(self)
        self.watch = Watch(self, self.ends)
        self._started = False
        self._fatal: Exception | None = None
        self._unknown: list[Coming] = []

    async def run(self, jobs: Iterable[Any] | AsyncIterable[Any]) -> BatchSummary:
        """Run all of them."""
        self._source = Source(jobs)
        self.total = self._source.total
        self.began = self.clock()
        self._take_up_collection()
        is_whole = False
        try:
            async with anyio.create_task_group() as self.group:
                try:
                    if self.options.signals:
                        await self.group.start(self.watch.listen)
                    with anyio.CancelScope(shield=True):  # or it and its start wait for each other
                        await self.group.start(self.ends.keep_unsafe)
                    self.group.start_soon(self.watch.tick)
                    async with anyio.create_task_group() as workers:
                        self._start_worker(workers)
                finally:
                    with anyio.CancelScope(shield=True):
                        await self.ends.all_are_safe()
                is_whole = True
                self.group.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _only(group) from None
        finally:
            with anyio.CancelScope(shield=True):
                await self._source.aclose()
                self.ends.end_suspended(is_whole=is_whole)
                self.ends.leave()
                if self.outage.since is not None and self.outage.reason not in str(self.stopped):
                    self.ends.note(f"the API was down when it ended: {self.outage.reason}")
                with suppress(BatchError):
                    await self.record.ask(self._write_how)
        if self._fatal is not None:
            raise self._fatal
        if self._input_error is not None:
            raise self._told(self._input_error)
        if is_whole and self._is_through():
            self.stopped = None  # it was told to stop when there was nothing more to take up
        return self.summary()

    def _is_through(self) -> bool:
        """Return whether all rows of the input have come to an end."""
        is_left = self.ready or self.delayed or self.broken or self._left()
        return not is_left and (self._is_read() or self.counts.seen == self.total)

    def _is_read(self) -> bool:
        """Return whether the input has ended, and all its rows were taken up or counted."""
        is_over = self._exhausted and self._input_error is None
        return is_over and self.counts.seen == self._n

    def _told(self, error: BaseException) -> BaseException:
        """Return what the input raised, with a note of what became of the rows before it."""
        self.stopped = self.stopped or f"the input raised {words_of(error) or type(error).__name__}"
        count = self.counts.seen
        read = f"{count:,} row{'' if count == 1 else 's'}"
        error.add_note(
            f"the input raised this behind {read}, and all that came of these is recorded in "
            f"{self.opened.folder}: {self.summary()}. Run it again, with the whole input or the "
            "rest of it: what is done is not paid for again"
        )
        return error

    def summary(self) -> BatchSummary:
        """Return what became of the rows."""
        counts = self.counts
        return BatchSummary(
            done=counts.done,
            done_before=counts.before,
            failed=counts.failed,
            in_doubt=len(self.doubts),
            left=self._left(),
            duplicates=counts.duplicates,
            dollars=self.purse.told / NANO,
            doubtful_dollars=self.purse.doubtful / NANO,
            paid_again=counts.again,
            seconds=self.clock() - self.began,
            stopped=self.stopped,
            broken=self.broken,
            notes=tuple(counts.notes),
        )

    def _left(self) -> int:
        counts = self.counts
        return max(0, counts.seen - counts.done - counts.failed - counts.in_doubt)

    def doubt_lines(self) -> list[str]:
        """Return a line for each job in doubt, those included that will not come to an end."""
        flying = {
            row.i: doubt_line(row.i, row.id, row.type, (row.again + 1) * row.expected)
            for row in self.in_flight
            if row.job_id is None and not row.has_landed and row.i in self.marks
        }
        return [line for _, line in sorted({**self.doubts, **flying}.items())]

    # Rows.

    def _take_up_collection(self) -> None:
        left: dict[int, ToCollect] = {each.i: each for each in self.opened.collect}
        for i in first_to_collect((each.i, each.left) for each in left.values()):
            each = left[i]
            going = Going(
                i, each.key, each.id, each.type, each.line, each.expected or 0, None,
                again=each.again, job_id=each.job_id, expires=self.began + each.left,
            )  # fmt: skip
            self.under_way[each.key] = going
            self.ready.append(going)
        self.opened.collect = []

    def _start_worker(self, workers: TaskGroup) -> None:
        # No more than may be in flight, those that only our memory has included: what a
        # kill may cost twice is then what the user set.
        if not self._idle and self._workers < self._slots:
            self._workers += 1
            self._idle += 1
            workers.start_soon(self._work, workers)

    async def _work(self, workers: TaskGroup) -> None:
        while (row := await self._next()) is not None:
            self._idle -= 1
            self._start_worker(workers)
            await self._one(row)
            self._idle += 1
        self._idle -= 1
        self._workers -= 1

    async def _next(self) -> Going | None:
        """Return the next row to run; ``None`` when there is no more, or another waits for it."""
        while not (self.stopped or self.broken):
            now = self.clock()
            reason = self.outage.given_up(now)
            if reason is not None:
                self.stop(reason)
                return None
            if self._only_tried() and self.outage.is_their_own(now):
                self.ends.suspended += self.ready
                self.ready.clear()
                with anyio.CancelScope(shield=True):
                    await self.ends.end_suspended_as_failed()
            found = self._take(now)
            if not isinstance(found, float):
                if found is not None:
                    self._read_ahead()
                return found
            if self._idle > 1:
                return None
            await self.change(found)
        return None

    def _take(self, now: float) -> Going | float | None:
        """Take the next row, or return the seconds to wait for one; ``None``: there is no more."""
        row = self._due(now)
        if row is None and not self._exhausted and self._may_pull():
            if not self.outage.may_start(now):
                return LOOK_SECONDS
            self.outage.not_sent()
            self._pull_more()
            return self._until_one_is_due()
        if row is None:
            # What has landed never comes back; `all_are_safe` waits for it.
            may_come_back = len(self.in_flight) > self.arrivals.let_go
            if not self._exhausted or may_come_back or self.delayed or self._is_pulling:
                return self._until_one_is_due()
            has_worked = self.outage.has_worked
            if self.ends.suspended and self.outage.needs_a_person() and not has_worked:
                self.stop(self.outage.wanted())  # of so few rows, none has failed by itself
            return None
        if row.job_id is not None:
            return row
        if not self.outage.may_start(now):
            self.ready.appendleft(row)
            return LOOK_SECONDS
        known = self.purse.known(row.type)
        if known is not None and not row.again:  # told since it was read, and nothing counts it yet
            row.expected = known
        if not self.purse.affords(row.expected):
            self.ready.appendleft(row)
            self.outage.not_sent()
            if self.in_flight:
                return math.inf
            self.stop(self._too_dear(row))
            return None
        row.is_probe = self.outage.since is not None
        return row

    def _until_one_is_due(self) -> float:
        return LOOK_SECONDS if self.delayed or self.outage.since is not None else math.inf

    def _too_dear(self, row: Going) -> str:
        limit = dollars_text((self.purse.limit or 0) / NANO)
        spent = dollars_text(self.purse.told / NANO)
        doubtful = self.purse.doubtful
        doubt = f" and up to {dollars_text(doubtful / NANO)} in doubt" if doubtful else ""
        return (
            f"max_cost: {spent} spent{doubt}, and the next job, at "
            f"{dollars_text(row.expected / NANO)}, would go beyond {limit}"
        )

    def _only_tried(self) -> bool:
        """Whether all that is left are rows that ran into trouble before."""
        if self._is_pulling or self.in_flight or self.delayed:
            return False
        if not (self._exhausted and self.ready):
            return False
        return all(row.error is not None and row.job_id is None for row in self.ready)

    def _may_pull(self) -> bool:
        return len(self.delayed) < MOST_DELAYED

    def _due(self, now: float) -> Going | None:
        for row in self.delayed:
            if row.not_before <= now:
                self.delayed.remove(row)
                return row
        if self.outage.since is not None:
            # Those that were never sent ask first: it may be the others that are at fault.
            fresh = self._fresh()
            if fresh is not None:
                self.ready.remove(fresh)
                return fresh
            if not self._exhausted and not self._is_pulling and self._may_pull():
                return None
        return self.ready.popleft() if self.ready else None

    def _has_enough(self) -> bool:
        if self.outage.since is not None:
            return self._fresh() is not None
        return len(self.ready) >= self._ahead

    def _fresh(self) -> Going | None:
        return next((row for row in self.ready if row.error is None), None)

    def _read_ahead(self) -> None:
        """Have the next rows read and looked up before somebody waits for them."""
        may_pull = self.outage.since is None and not self._exhausted and self._may_pull()
        if may_pull and not self._has_enough():
            self._pull_more()

    def _pull_more(self) -> None:
        """
        Have rows taken from the input, if that is not under way.

        In a task of its own: an input that waits keeps nobody from what is due meanwhile, and a
        run that is stopped does not wait for it.
        """
        if not self._is_pulling:
            self._is_pulling = True
            self.group.start_soon(self._pull)

    async def _pull(self) -> None:
        """Take rows from the input until enough are to be run."""
        while not (self._has_enough() or self._exhausted or self.stopped or self.broken):
            await self._pull_some()
            self.changed()
        self._is_pulling = False
        self.changed()

    async def _pull_some(self) -> None:
        rows, self._unknown = self._unknown, []
        # No more than are needed: the next may be one that is made of what the first came to.
        least = max(1, min(4 * len(rows), MOST_FIRST_ROWS))
        while len(rows) < least and not self._exhausted:
            try:
                items = await self._source.some(CHUNK)
                for item in items or ():
                    rows.append(await self._coming(item))
            except anyio.get_cancelled_exc_class() as error:
                if anyio.current_effective_deadline() == -math.inf:
                    raise
                items, self._input_error = None, error  # it is the input's own
            except Exception as error:  # noqa: BLE001  (raised when what is under way has ended)
                if isinstance(error, InvalidRequestError) and not (rows or self.counts.seen):
                    self._fail(error)  # it is no list of jobs
                    return
                items, self._input_error = None, error
            self._exhausted = items is None
        with anyio.CancelScope(shield=True):
            await self._admit(rows)

    async def _admit(self, rows: list[Coming]) -> None:
        if not rows or self.stopped:
            return
        self._check_prices(rows)
        if self.stopped:
            return
        under_way = {key: going.i for key, going in self.under_way.items()}
        options = self.options
        is_first, at = self._is_first, self.now()
        is_enough = not self.opened.rows or self._exhausted or len(rows) >= FIRST_ROWS
        try:
            found = await self.record.ask(
                lambda connection: admit(
                    connection, self.record, rows, under_way=under_way, named=self._named,
                    on_doubt=options.on_doubt, retry_failed=options.retry_failed,
                    is_first=is_first, is_enough=is_enough, also=options.also,
                    session=self.opened.session, at=at,
                ),
                linger=bool(self.ready),
            )  # fmt: skip
        except BatchError as error:
            self.ends.break_off(error)
            return
        if not found.placed and len(rows) < MOST_FIRST_ROWS and not self._exhausted:
            self._unknown = rows  # one further down may be known: a list that was sorted anew
            return
        if found.differences:
            changed = BatchChangedError(
                "these are other jobs than those this folder was made for: "
                f"{'; '.join(found.differences)}. Nothing was sent. Take a new folder, or have "
                "them made in this one as well (also=True, --also)"
            )
            changed.differences = found.differences
            self._fail(changed)
            return
        if self._is_first:
            await self.record.ask(self._remember)
        self._is_first = False
        self._named.add(place.i for place in found.placed)
        self._count(rows, found.placed)

    def _remember(self, connection: Any) -> None:
        for name, value in self._to_remember.items():
            put(connection, name, value)

    @property
    def was_refused(self) -> bool:
        """Whether it ended before anything was taken up."""
        return self._fatal is not None and not self._started

    def _count(self, rows: list[Coming], placed: list[Any]) -> None:
        counts = self.counts
        counts.seen += len(rows)
        for row, place in zip(rows, placed, strict=True):
            counts.duplicates += place.is_duplicate
            if place.outcome == "take":
                assert row.asked is not None  # noqa: S101
                asked = row.asked
                going = Going(
                    place.i, row.key, asked.id, asked.type,
                    line_text(asked.line),
                    row.expected or 0, asked, again=place.again, held=place.held,
                    retried=place.held == State.IN_DOUBT,
                )  # fmt: skip
                self.doubts.pop(place.i, None)
                self.under_way[row.key] = going
                self.ready.append(going)
            elif place.outcome in {"equal", "same"}:
                other = self.under_way.get(row.key)
                if other is not None:
                    other.equal += 1
                else:  # it ended meanwhile
                    self._recount_later(row.key)
            elif place.outcome == "done":
                counts.done += 1
                counts.before += not place.is_duplicate
            elif place.outcome == "in doubt":
                counts.in_doubt += 1
                assert row.asked is not None  # noqa: S101  (what is no job is never in doubt)
                cost = max(1, place.again) * (row.expected or 0)
                self.doubt(place.i, row.asked.id, row.asked.type, cost)
            else:
                counts.failed += 1
                if row.bad is not None:
                    self.ends.note(f"line {row.bad.line}: {row.bad.why}", most=5)

    def _recount_later(self, key: bytes) -> None:
        """A row whose equal ended while it was looked up: as the record has it by now."""
        ended = self.ends.ended.get(key)
        if ended == State.DONE:
            self.counts.done += 1
        elif ended == State.IN_DOUBT:
            self.counts.in_doubt += 1
        elif ended is not None:
            self.counts.failed += 1

    async def _coming(self, item: Any) -> Coming:
        n = self._n
        self._n += 1
        if isinstance(item, BadRow):
            return bad_row(n, item)
        try:
            asked = await self.trade.asked(item)
        except InvalidRequestError as error:
            return no_job(n, item, error)
        expected = self._expected(asked, self._facts(asked))
        return Coming(n, asked.key, asked, None, expected, mended_by(item))

    def _facts(self, asked: Asked) -> Facts:
        facts = self.trade.facts(asked)
        if facts.dollars is None and self.options.price is not None:
            return Facts(self.options.price, facts.seconds, facts.permits_async)
        return facts

    def _expected(self, asked: Asked, facts: Facts) -> int | None:
        return self.purse.expected(asked.type, facts.dollars)

    def _check_prices(self, rows: list[Coming]) -> None:
        if self.purse.limit is None:
            return
        for row in rows:
            if row.asked is not None and row.expected is None:
                error = PriceUnknownError(
                    f"max_cost={self.options.max_cost:g} needs a price, and nobody knows what a "
                    f"job of {row.asked.type} costs. What does one cost at most? Say so with "
                    "price=... (--price-per-job), in dollars"
                )
                if not self._started:
                    self._fail(error)
                else:
                    self.stop(error.message)
                return

    def _fail(self, error: Exception) -> None:
        """End the run with an error: nothing was sent yet, or nothing more can be."""
        self._fatal = self._fatal or error
        self._exhausted = True
        self.stop(words_of(error))

    # One row.

    def _write_how(self, connection: Any) -> None:
        if self._how:
            put(connection, "submit", self._how)
        if self._is_read() and not self.options.also:
            forget_bad(connection, self._named)
        put(connection, "left", {"session": self.opened.session, "rows": self._left()})

    async def _one(self, row: Going) -> None:
        flight = row.flight = Flight(
            on_start=lambda: self._sent(row),
            on_refused=lambda: self._refused(row),
            on_wait=lambda: self._waits(row),
            is_recalled=lambda: self.is_called_back(row) and flight.stage != "over",
        )
        self._started = True
        row.began, row.turn_at = row.began or self.clock(), None
        self.in_flight.add(row)
        self.purse.started(row.expected)
        is_settled = False
        try:
            with anyio.CancelScope() as row.scope, watching(flight):
                try:
                    made = await self._make(row)
                except Exception as error:  # noqa: BLE001  (what it means is decided below)
                    with anyio.CancelScope(shield=True):
                        await self.ends.failed(row, error)
                else:
                    with anyio.CancelScope(shield=True):
                        await self.ends.keep(row, made)
                    if row.turn_at is not None:
                        self._submissions[row.type].ended(row.turn_at)
                is_settled = True
            if not is_settled:
                row.attempts += flight.times
                with anyio.CancelScope(shield=True):
                    await self.ends.drop(row)
                is_settled = True
        finally:
            row.scope = None
            if row.is_probe:
                row.is_probe = False
                self.outage.asked_in_vain(self.clock())
            if is_settled and not row.has_landed:
                self.has_ended(row)
            else:
                self.changed()

    def _sent(self, row: Going) -> None:
        """Note that an attempt's bytes are about to leave; in the hook, of no questions."""
        at, row.sent_at = wall(), self.clock()
        times = row.attempts + row.own_flight.times
        row.is_again = row.again > row.answered
        self.counts.again += row.is_again
        row.answered = row.again
        self.marks.set(row.i, at, times, row.risky + 1)
        if row.own_flight.times == 1:
            with suppress(BatchError):
                self.record.sent(row.i, at, times)

    def _refused(self, row: Going) -> None:
        """Note that an attempt came to nothing, and cannot have been paid; in the hook."""
        if row.risky:
            self.marks.set(row.i, wall(), row.attempts + row.own_flight.times, row.risky)
        else:
            self.marks.clear(row.i)

    def _waits(self, row: Going) -> None:
        """Note that an attempt failed and another is to follow; in the hook."""
        self.ends.count_doubts(row, row.own_flight.risky)
        # Its attempt that follows counts as in flight already.
        is_too_dear = row.job_id is None and not self.purse.affords(0)
        if (is_too_dear or self.is_called_back(row)) and row.scope is not None:
            row.scope.cancel()

    async def _make(self, row: Going) -> Made:
        if row.job_id is not None:
            return await self.trade.collect(row.job_id)
        asked = row.asked
        assert asked is not None  # noqa: S101  (only what is collected has none)
        if row.is_sync or not self._goes_async(asked):
            return await self.trade.run(asked)
        submissions = self._submissions.get(asked.type)
        if submissions is None:
            submissions = self._submissions[asked.type] = Submissions(self._slots, self.clock)
        try:
            async with submissions.one() as row.turn_at:
                job_id, kept = await self.trade.submit(asked)
                row.job_id = job_id
                self.marks.set_id(row.i, job_id)
                submissions.answered(row.sent_at)
        except BadRequestError as error:
            return await self._try_sync(row, asked, error)
        row.expires = self.clock() + kept
        i, expires = row.i, wall() + kept
        with anyio.CancelScope(shield=True):
            await self.record.ask(
                lambda connection: connection.execute(
                    "UPDATE open SET job_id=?, expires=? WHERE i=?", (job_id, expires, i)
                ),
                linger=True,
            )
        return await self.trade.collect(job_id)

    def _goes_async(self, asked: Asked) -> bool:
        way = self._ways.get(asked.type)
        if way is None:
            facts = self._facts(asked)
            permits = facts.permits_async
            if asked.type in self.opened.sync_only or not self.trade.can_submit:
                permits = False
            seen = self.purse.known(asked.type)
            dollars = facts.dollars if seen is None else seen / NANO
            way, why = wants_async(
                self.options.submit, permits=permits, dollars=dollars, seconds=facts.seconds
            )
            self._ways[asked.type] = way
            self._how[asked.type] = f"{'async' if way else 'sync'}: {why}"
        return way

    async def _try_sync(self, row: Going, asked: Asked, refusal: BadRequestError) -> Made:
        """Run a job that was refused as an async one: its type may not permit it, or it is bad."""
        row.is_sync = True
        made = await self.trade.run(asked)
        if asked.type not in self.opened.sync_only:
            self.opened.sync_only.add(asked.type)
            self._ways[asked.type] = False
            self._how[asked.type] = f"sync: the server refuses it as async ({refusal.message:.200})"
            self.ends.note(f"{asked.type} does not permit async, so its jobs are sent sync")
            name = asked.type

            def write(connection: Any) -> None:
                self.record.type_number(connection, name)
                connection.execute("UPDATE type SET sync_only=1 WHERE name=?", (name,))

            self.record.tell(write)
        return made


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
