"""
What comes of rows: made, failed, in doubt, set aside or given back, and the record of it.

Everything here is called shielded: what came from the server was paid for, and
is not let go of before it is safe and written down.
"""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from .._errors import (
    CapacityError,
    DeadlineExceededError,
    JobFailedError,
    JobNotFoundError,
    ProdiaError,
    ServerError,
)
from .._hooks import log
from .._show import printable, words_of
from ._decide import (
    State,
    after_error,
    ask_again_in,
    is_in_doubt,
    may_go_again,
    paid_attempts,
    to_nano,
)
from ._folder import keep_aside
from ._outputs import Task
from ._record import Finish, Promise
from ._trade import RecalledError, complete_outputs, content_of, no_output
from ._values import NO_FOLDER, BatchError

if TYPE_CHECKING:
    from pathlib import Path

    from ._decide import Verdict
    from ._going import Going
    from ._standing import Standing
    from ._trade import Made

MOST_ENDED = 256
"""Rows whose end is remembered, for one that is equal and was looked up meanwhile. Chosen."""

MOST_LATE = 5
"""So often a row's deadline may pass before it is sent; then it has failed. Chosen."""


_OURS: dict[str, bool] = {"was_sent": True, "are_exact": True}
"""Of a run that lives: its marks are as they are."""


@dataclass(slots=True)
class Kept:
    """A row's answer on its way to be safe."""

    row: Going
    made: Made
    task: Task

    @property
    def error(self) -> BaseException | None:
        """What it could not be made safe for."""
        return self.task.promise.error


class Ends:
    """
    Ends the rows of a run.

    Args:
        run: The run.

    Attributes:
        suspended: Rows that ran into trouble, until it is clear whose it is.
        ended: The last rows that came to their end.
    """

    def __init__(self, run: Standing) -> None:
        self._run = run
        self.suspended: list[Going] = []
        self.ended: dict[bytes, State] = {}
        self._unsafe: deque[Kept] = deque()
        self._is_unsafe = anyio.Event()
        self._are_all_safe = False

    async def keep(self, row: Going, made: Made) -> None:
        """
        Make a row's outputs safe, then the record, and only then count it.

        Returns when it is safe; or, where it may, as soon as what came outlives
        this process: then the row has landed, and comes to its end behind this.
        """
        self.count_doubts(row, row.own_flight.risky)
        error = no_output(row.type, made)
        end = self.end(row, State.DONE if error is None else State.FAILED)
        end.error = None if error is None else _say(error)
        end.attempts = row.attempts + made.attempts
        end.refusals = row.refusals + made.refusals
        end.job_id = made.job_id or row.job_id
        end.seed = made.seed
        end.price = None if made.dollars is None else to_nano(made.dollars)
        if error is not None and end.price is None:
            end.price = end.expected  # it is a failure, and paid for all the same
        if end.price is not None:
            self._run.learn(row.type, end.price)
        task = Task(end, made.outputs, Promise(), row.line)
        kept = Kept(row, made, task)
        if made.outputs:
            if self._run.savers.lands:
                task.slot = self._run.arrivals.take()
            self._run.savers.put(task)
        else:
            self._run.record.finished(end, task.promise)
        await task.promise.change()
        if not task.promise.is_settled and self._run.arrivals.may_let_go():
            row.has_landed = True
            self._run.arrivals.let_go += 1
            task.promise.then = partial(self._landed_is_over, kept)
        else:
            with suppress(Exception):  # which `_end_kept` looks at
                await task.promise.wait()
            await self._end_kept(kept)
        if error is not None:
            self.troubled(error, "in doubt")  # if no job makes anything, it is not the row
        elif self.answered() or self.suspended:
            await self.end_suspended_as_failed()

    def _landed_is_over(self, kept: Kept) -> None:
        """A row that had landed is safe, or cannot be made so."""
        if kept.error is None:
            self._count_kept(kept, State.DONE)
        else:
            self._unsafe.append(kept)
            self._is_unsafe.set()

    async def keep_unsafe(self, *, task_status: Any) -> None:
        """
        Keep aside what had landed and cannot be made safe, until `all_are_safe` is called.

        A task of its own, and shielded from its first moment: one that began
        only then would never begin in a run that is being cancelled.
        """
        with anyio.CancelScope(shield=True):
            task_status.started()
            while not self._are_all_safe:
                await self._is_unsafe.wait()
                self._is_unsafe = anyio.Event()
                while self._unsafe:
                    await self._end_kept(self._unsafe.popleft())

    async def all_are_safe(self) -> None:
        """Wait until all that had landed is safe, or kept aside; shielded, at the end of a run."""
        with self._run.record.hurrying():  # there is nothing more to wait for
            while self._run.arrivals.let_go:
                await self._run.change(math.inf)
        self._are_all_safe = True
        self._is_unsafe.set()

    async def _end_kept(self, kept: Kept) -> None:
        state: State | None = State(kept.task.end.state)
        if kept.error is not None:  # it must not be lost, whatever it is
            state = await self.keep_aside(kept, kept.error)
        self._count_kept(kept, state)

    def _count_kept(self, kept: Kept, state: State | None) -> None:
        run, row, task = self._run, kept.row, kept.task
        if kept.error is None:
            run.marks.clear(row.i)
            if task.slot is not None:
                run.arrivals.give_back(task.slot)
        price = task.end.price
        # What no answer tells is taken to cost what was expected.
        price = row.expected if price is None else price
        if state == State.IN_DOUBT:
            run.purse.doubtful += price
        else:
            run.purse.told += price
        if state is None:
            run.under_way.pop(row.key, None)
        else:
            self.ended_with(row, state)
        if row.has_landed:
            run.arrivals.let_go -= 1
            run.has_ended(row)

    async def keep_aside(self, kept: Kept, error: BaseException) -> State | None:
        """
        Keep what the disk, the store or the record cannot take where the next run finds it.

        Returns:
            What the row is then: what it was to be; in doubt, if nothing took it; ``None`` if
            its bytes lie under a temporary name, and the next start takes them in.
        """
        row, opened, task = kept.row, self._run.opened, kept.task
        where = await anyio.to_thread.run_sync(
            keep_aside, opened.reserve, opened.place, task.end, row.line, task.outputs
        )
        state: State | None = State(task.end.state)
        said = f"row {row.i} is kept in {where}"
        if where is None and task.is_noted:
            state, said = None, f"row {row.i} is written and may not be safe from a power cut"
        elif where is None:
            state, said = State.IN_DOUBT, f"row {row.i} is LOST"
        self.break_off(error, said)
        return state

    def break_off(self, error: BaseException, what: str = "") -> None:
        if self._run.broken is None:
            why = error.message if isinstance(error, ProdiaError) else words_of(error)
            why = why or type(error).__name__
            self._run.broken = (
                f"{why}. What is in hand was kept; make room and run it again, it goes on from here"
            )
        if what:
            self.note(what, most=20)
        self._run.stop(NO_FOLDER)

    async def failed(self, row: Going, error: Exception) -> None:
        """Decide what a row's error means for it, and write it down."""
        flight = row.own_flight
        row.attempts += flight.times
        row.refusals += flight.refusals
        if isinstance(error, RecalledError):
            row.attempts -= 1  # which was not sent
            self._run.counts.again -= row.is_again
            await self.drop(row)
            return
        if isinstance(error, BatchError):  # the record, in the middle of a submission
            self.break_off(error)
            return
        if row.job_id is not None:
            row.error = error
            await self.failed_with_id(row, error)
            return
        verdict = after_error(error)
        if verdict != "failed":
            self.count_doubts(row, paid_attempts(error))
        if self._run.trade.is_closed() and verdict != "in doubt":
            self._run.stop("the client was closed")
            self.put_back(row)
            return
        row.late += isinstance(error, DeadlineExceededError) and not flight.times
        if row.late == MOST_LATE:
            verdict = "failed"
        elif self.may_go(row) and (
            isinstance(error, CapacityError) or (verdict == "trouble" and not flight.times)
        ):
            # A busy server, or nothing of it was sent for as long as the client
            # waits: that is no fault of its own, nor what it failed with.
            row.retried |= bool(flight.counted)
            self.delay(row, error)
            return
        if isinstance(error, CapacityError):  # it is not sent again for a fault before that
            codes = [each.status_code for each in error.attempts if each.fate == "server fault"]
            if codes and codes[-1]:
                message = f"HTTP {codes[-1]}, and then the server was busy"
                error = ServerError(message, status_code=codes[-1], attempts=error.attempts)
        row.error = error
        if verdict == "failed":
            await self.end_row(row, State.FAILED)
        elif verdict == "in doubt":
            await self.save_damaged(row, error)
            await self.go_again_or_end(row, is_down=self.troubled(error, verdict))
        elif flight.counted and self._run.options.on_doubt == "hold":
            self.troubled(error, verdict)
            await self.end_row(row, State.IN_DOUBT)
        else:
            self.suspend(row, error, verdict)

    def may_go(self, row: Going, lost: int = 0) -> bool:
        """Return whether a row may be sent once more; `lost` if its answer certainly is."""
        doubts = lost or (row.flight.counted if row.flight is not None else 0)
        on_doubt = self._run.options.on_doubt
        return may_go_again(doubts, on_doubt=on_doubt, is_retried=row.retried)

    async def go_again_or_end(self, row: Going, *, is_down: bool = False) -> None:
        """Send a row once more that may have been paid, if it may be; else it is in doubt."""
        if row.asked is not None and self.may_go(row, 1) and not self._run.stopped:
            if row.job_id is not None:  # of no use any more, and never to be taken for the next
                i, row.job_id = row.i, None
                try:
                    await self._run.record.ask(
                        lambda c: c.execute("UPDATE open SET job_id=NULL WHERE i=?", (i,))
                    )
                except BatchError as error:
                    self.break_off(error)
            row.retried = True
            # While it is down, those that were never paid ask before it.
            (self._run.ready.append if is_down else self._run.ready.appendleft)(row)
        else:
            await self.end_row(row, State.IN_DOUBT)

    async def failed_with_id(self, row: Going, error: Exception) -> None:
        if not isinstance(error, JobFailedError | JobNotFoundError):
            # It was left with the server and is paid, and nothing of it is to be had now.
            self.troubled(error, "in doubt")
        is_denied = isinstance(error, JobNotFoundError)
        now = self._run.clock()
        wait = ask_again_in(row.returned, is_denied=is_denied, left=row.expires - now)
        if isinstance(error, JobFailedError):
            await self.end_row(row, State.FAILED)
        elif wait is not None and not self._run.stopped:
            row.not_before = now + wait
            row.returned += 1
            self._run.delayed.append(row)
        elif is_denied and not (wait and self._run.stopped):
            # It was submitted, and nobody will ever see what it made.
            self.may_be_paid(row, 1)
            await self.go_again_or_end(row)
        else:
            # It stays with the server under its id, for the next run; under way, so that an
            # equal row is not sent.
            self.note(f"row {row.i} is left with the server as {row.job_id}: {_say(error)}", most=5)

    async def save_damaged(self, row: Going, error: Exception) -> None:
        """Keep what came whole of an answer that broke: it was paid for."""
        outputs = [content_of(each) for each in complete_outputs(error)]
        if not outputs:
            return
        folder = self._run.opened.folder / "damaged"
        with suppress(OSError):
            await anyio.to_thread.run_sync(_write_damaged, folder, row.i, outputs)
            self.note(f"what came whole of row {row.i} is in {folder}", most=5)

    def delay(self, row: Going, error: Exception) -> None:
        """A busy server is no fault of the row's, nor of the API's: it waits, and comes again."""
        if self._run.stopped:
            self.put_back(row)
            return
        asked = getattr(error, "retry_after", None) or random.uniform(1, 2)
        row.not_before = self._run.clock() + min(asked, 3600.0)
        if not row.risky:
            self._run.marks.clear(row.i)
        self._run.delayed.append(row)

    def suspend(self, row: Going, error: Exception, verdict: Verdict) -> None:
        """Set a row aside until it is clear whether it failed or the API did."""
        if not row.risky:
            self._run.marks.clear(row.i)
        self.suspended.append(row)
        self.troubled(error, verdict)

    def troubled(self, error: Exception, verdict: Verdict) -> bool:
        """Note what says nothing of its row; return whether the API is taken to be down."""
        outage = self._run.outage
        was_down = outage.since is not None
        if not outage.troubled(self._run.clock(), verdict, _say(error)):
            return False
        if not was_down:
            what = "nothing new is sent, and one job at a time asks whether the API is back: %s"
            log(logging.WARNING, what, outage.reason)
            self._run.call_back()
        suspended, self.suspended = self.suspended, []
        for row in suspended:
            if self.may_go(row):
                row.retried |= bool(row.risky)
                # Behind those that were never sent, so that each is asked about in its turn.
                self._run.ready.append(row)
            else:
                self.suspended.append(row)
        return True

    def answered(self) -> bool:
        """Note that the API works; return whether it was taken to be down."""
        was_down = self._run.outage.succeeded()
        if was_down:
            log(logging.WARNING, "the API is back, and the batch goes on")
        return was_down

    async def end_suspended_as_failed(self) -> None:
        suspended, self.suspended = self.suspended, []
        for row in suspended:
            await self.end_row(row, _own_end(row))

    def end_suspended(self, *, is_whole: bool) -> None:
        """
        At the end: those that ran into trouble failed, unless somebody ended the run.

        Args:
            is_whole: Whether it came to its end by itself.
        """
        for row in self.suspended:
            if not is_whole or self._run.stopped or self._run.broken:
                self.put_back(row)
            else:
                self.write_end(row, _own_end(row))
                self.ended_with(row, _own_end(row))
        self.suspended.clear()
        for row in [*self._run.ready, *self._run.delayed]:
            if row.job_id is None:
                self.put_back(row)

    async def drop(self, row: Going) -> None:
        """A row was called back before it was sent, or between two attempts."""
        flight = row.own_flight
        self.count_doubts(row, flight.risky)
        if self._run.stopped or not self.may_go(row):
            self.put_back(row)
        elif flight.counted:
            row.retried = True
            self._run.ready.append(row)
        else:
            if not row.risky:
                self._run.marks.clear(row.i)
            self._run.ready.appendleft(row)

    def count_doubts(self, row: Going, risky: int) -> None:
        """Count that so many attempts, since a row was sent last, may have been paid in vain."""
        flight = row.own_flight
        self.may_be_paid(row, max(0, risky - flight.counted))
        flight.counted = max(risky, flight.counted)

    def may_be_paid(self, row: Going, times: int) -> None:
        """Count how often a row may have been paid in vain."""
        row.again += times
        row.risky += times
        self._run.purse.doubtful += times * row.expected

    def leave(self) -> None:
        """
        At the end: give those that are still with the server their last word.

        What the run says of them, the record says from here on.
        """
        run = self._run
        for row in list(run.in_flight):
            flight = row.own_flight
            row.attempts += flight.times
            if is_in_doubt(job_id=row.job_id, is_marked=row.i in run.marks, **_OURS):
                self.count_doubts(row, flight.risky + (flight.stage in {"out", "over"}))
                self.put_back(row)
            elif row.job_id is None:
                self.put_back(row)
            else:
                run.under_way.pop(row.key, None)
            run.has_ended(row)

    def put_back(self, row: Going) -> None:
        """Give a row back to the input: the next run takes it up, as in doubt if it may be paid."""
        if row.risky:
            self.write_end(row, State.IN_DOUBT)
            self.ended_with(row, State.IN_DOUBT)
            return
        self._run.marks.clear(row.i)
        i = row.i
        with suppress(BatchError):
            self._run.record.tell(
                lambda connection: connection.execute(
                    "DELETE FROM open WHERE i=? AND job_id IS NULL", (i,)
                )
            )
        if row.held is None:
            self._run.under_way.pop(row.key, None)
        else:  # as the record has it, which has heard nothing else of it
            self.ended_with(row, row.held)

    async def end_row(self, row: Going, state: State) -> None:
        promise = self.write_end(row, state)
        try:
            await promise.wait()
        except BatchError as error:
            self.break_off(error)
        self.ended_with(row, state)
        if state == State.FAILED and isinstance(row.error, JobFailedError):
            self.answered()  # the API works

    def write_end(self, row: Going, state: State) -> Promise:
        end = self.end(row, state)
        end.error = _say(row.error) if row.error is not None else None
        promise = Promise()
        # Its mark goes when the record has it: until then, nothing else would know of it.
        promise.then = partial(self._is_written, row.i, promise)
        if state == State.IN_DOUBT:
            end.error = end.error or "InDoubt: the run was stopped before its answer came"
        try:
            self._run.record.finished(end, promise)
        except BatchError as error:
            promise.settle(None, error)
        return promise

    def _is_written(self, i: int, promise: Promise) -> None:
        if promise.error is None:
            self._run.marks.clear(i)

    def end(self, row: Going, state: State) -> Finish:
        return Finish(
            row.i, row.key, state, row.id, self._run.opened.session, row.type,
            attempts=row.attempts, refusals=row.refusals, again=row.again, at=self._run.now(),
            ms=round(1000 * (self._run.clock() - row.began)) if row.began else 0,
            job_id=row.job_id, request=row.line, expected=row.expected or None,
        )  # fmt: skip

    def ended_with(self, row: Going, state: State) -> None:
        """Count a row's end, and that of the rows that are equal to it."""
        self._run.under_way.pop(row.key, None)
        self.ended[row.key] = state
        while len(self.ended) > MOST_ENDED:
            self.ended.pop(next(iter(self.ended)))
        counts = self._run.counts
        if state == State.IN_DOUBT:
            cost = max(1, row.again) * row.expected
            self._run.doubt(row.i, row.id, row.type, cost)
        else:
            self._run.doubts.pop(row.i, None)
        if row.asked is None:  # it was collected; its row may come yet, or never
            rows = row.equal
            counts.finished += 1
        else:
            rows = 1 + row.equal
            counts.finished += rows
        if state == State.DONE:
            counts.done += rows
        elif state == State.IN_DOUBT:
            counts.in_doubt += rows
        else:
            counts.failed += rows

    def note(self, text: str, *, most: int = 50) -> None:
        notes = self._run.counts.notes
        if text not in notes and len(notes) < 50 + most:
            notes.append(text)


def _own_end(row: Going) -> State:
    """What becomes of a row whose trouble is its own: it may have been paid, or has failed."""
    is_doubtful = row.error is not None and after_error(row.error) == "in doubt"
    return State.IN_DOUBT if is_doubtful else State.FAILED


def _say(error: BaseException) -> str:
    message = error.message if isinstance(error, ProdiaError) else words_of(error)
    return printable(f"{type(error).__name__}: {message}"[:1000])


def _write_damaged(folder: Path, i: int, outputs: list[Any]) -> None:
    folder.mkdir(exist_ok=True)
    for number, output in enumerate(outputs):
        (folder / f"{i:08}-{number + 1}.{output.ext}").write_bytes(output.content)
