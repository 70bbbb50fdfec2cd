"""``Batch``: many jobs into a folder, and the truth about them, whatever dies meanwhile."""

from __future__ import annotations

from functools import partial
from inspect import iscoroutinefunction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.to_thread

from .. import _checks
from .._errors import InvalidRequestError
from .._show import shown
from ._batch_record import BatchRecord
from ._going import Options
from ._opening import close_folder, open_folder, settle_between
from ._outputs import Savers, settled
from ._planning import make_plan
from ._progress import shower
from ._record import notifier
from ._rows import JobReader
from ._run import Run
from ._trade import trade_of
from ._values import BatchError

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, Callable, Iterable
    from types import TracebackType
    from typing import Self

    from .._client import AsyncProdia
    from ..fireworks import AsyncFireworks
    from ._decide import OnDoubt, Submit
    from ._opening import Opened
    from ._outputs import Layout
    from ._values import BatchPlan, BatchProgress, BatchSummary


class Batch:
    """
    Runs many jobs into a folder, and goes on where an earlier run ended, however it ended.

    ::

        async with AsyncProdia() as client:
            async with Batch("strawberries/", client, max_cost=25.0) as batch:
                summary = await batch.run(jobs)
        print(summary)

    What the folder has is not run again: a job is known by its content (type,
    config, the bytes of its inputs, format), so rows may be inserted, sorted
    or moved. Equal rows run once. An output is on the disk, and the record
    says so, before it is counted. SIGINT or SIGTERM once ends in good order:
    no new jobs, and those that are with the server are finished; twice ends
    at once, and what may have been paid is known to the next run.

    Args:
        folder: Where record, outputs and reports go: a new folder, or one to
            go on with. On a local disk; `outputs` may be anywhere.
        client: An `AsyncProdia` or an `AsyncFireworks`; not closed here. Its
            bound is the batch's.
        layout: ``"files"``: a file for each output. ``"tar"``: WebDataset
            shards of 1 GB.
        submit: ``"sync"`` waits for each job on its connection. ``"async"``
            leaves it with the server under an id, which a rerun collects
            rather than pays again. ``"auto"``: async for types that are known to
            permit it and are dear or slow.
        on_doubt: What to do with a job that may have been paid and whose
            output nobody has. ``"retry"`` sends it again, at most once in each
            run, and counts it, as it counts what the client's `RetryPolicy` sends
            again after a server fault. ``"hold"`` leaves it for a person, and has
            nothing sent again that may have been paid, whatever that policy says.
        retry_failed: Also run what failed before.
        max_cost: The most dollars that the folder may cost, all runs
            together. Counted are what answers told, what is in flight or in
            doubt at the price expected of it, and what was paid for outputs
            that `BatchRecord.verify` gave back.
        progress: ``None`` shows a live line on a terminal and in a notebook,
            and plain lines elsewhere; ``False`` nothing; a function is called
            with a `BatchProgress`, at most four times a second.
        lease_seconds: How long a run on another machine may be silent before
            it is taken to be dead. On the same machine nobody has to wait.
        outputs: A folder, or any URL that fsspec knows (``s3://bucket/run-7``), for the
            outputs; the record stays in the folder.
        also: Take jobs of other types or settings into the same folder; and give up
            those that were left with another server than the client's.
        price: What a job costs at most, in dollars, where neither an answer nor
            the catalogue tells.
        signals: Whether to hear SIGINT and SIGTERM while jobs run; each is for
            all batches of the process. They can be heard in the main thread alone.

    Raises:
        InvalidRequestError: An argument is none of these.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        client: AsyncProdia | AsyncFireworks,
        *,
        layout: Layout = "files",
        submit: Submit = "auto",
        on_doubt: OnDoubt = "retry",
        retry_failed: bool = False,
        max_cost: float | None = None,
        progress: Callable[[BatchProgress], None] | Literal[False] | None = None,
        lease_seconds: float = 30.0,
        outputs: str | None = None,
        also: bool = False,
        price: float | None = None,
        signals: bool = True,
    ) -> None:
        _one_of("layout", layout, ("files", "tar"))
        _one_of("submit", submit, ("sync", "async", "auto"))
        _one_of("on_doubt", on_doubt, ("retry", "hold"))
        _checks.flag("retry_failed", retry_failed)
        _checks.flag("also", also)
        _checks.flag("signals", signals)
        _checks.seconds("lease_seconds", lease_seconds)
        if max_cost is not None:
            _checks.number("max_cost", max_cost, most=1e9, unit="dollars")
        if price is not None:
            _checks.number("price", price, most=1e6, unit="dollars")
        if progress is not None and progress is not False and not _is_plain(progress):
            raise InvalidRequestError(
                "progress must be None, False or a function that is called and not awaited, "
                f"not {shown(progress)}"
            )
        if outputs is not None:
            _checks.string("outputs", outputs)
            if layout == "tar":
                raise InvalidRequestError(
                    "layout='tar' writes its shards into the folder; outputs=... takes finished "
                    "objects, with layout='files'"
                )
        self._folder = Path(_checks.path("folder", folder))
        self._trade = trade_of(client, on_doubt=on_doubt)
        self._layout = layout
        self._outputs = outputs and settled(outputs)
        self._progress = progress
        self._options = Options(
            submit, on_doubt, retry_failed, max_cost, price, also, lease_seconds, signals
        )
        self._opened: Opened | None = None
        self._savers: Savers | None = None
        self._run: Run | None = None
        self._to_remember: dict[str, object] = {}
        self._notify: Callable[..., None] | None = None
        self._was_entered = self._was_used = self._is_running = False

    def __repr__(self) -> str:
        return f"<Batch {str(self._folder)!r} {self._trade.api} layout={self._layout}>"

    @property
    def record(self) -> BatchRecord:
        """What the folder holds; may be read at any time."""
        return BatchRecord(self._folder)

    async def __aenter__(self) -> Self:
        if self._was_entered:
            raise RuntimeError("the block of a batch is entered once; make another Batch")
        self._was_entered = True
        notify = self._notify = notifier()
        with anyio.CancelScope(shield=True):  # or a cancellation would leave the lock taken
            opened = await anyio.to_thread.run_sync(
                partial(
                    open_folder,
                    self._folder,
                    notify=notify,
                    slots=self._trade.max_concurrency(),
                    layout=self._layout,
                    outputs=self._outputs,
                    api=self._trade.api,
                    settings={
                        "submit": self._options.submit,
                        "on_doubt": self._options.on_doubt,
                        "max_cost": self._options.max_cost,
                        "server": self._trade.server,
                        "also": self._options.also,
                    },
                    lease_seconds=self._options.lease_seconds,
                )
            )
        opened.record.on_trouble = self._disk_trouble
        opened.record.start()
        self._opened = opened
        self._savers = Savers(opened.place, opened.record, opened.arrivals.note, self._disk_trouble)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        opened, savers = self._opened, self._savers
        self._opened = self._savers = None
        if opened is None or savers is None:
            return
        stopped = self._run.stopped if self._run is not None else None
        was_refused = self._run is not None and self._run.was_refused and not self._was_used
        if stopped is None and error is not None:
            stopped = type(error).__name__

        def close() -> None:
            savers.close()
            opened.record.stop()
            close_folder(opened, stopped=stopped, was_refused=was_refused)

        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(close)

    async def run(self, jobs: Iterable[Any] | AsyncIterable[Any]) -> BatchSummary:
        """
        Run all jobs that the folder has not got.

        Jobs that an earlier run left with the server are collected first.

        Args:
            jobs: `BatchJob`, `JobRequest`, `Job`, mappings, or orders of
                `AsyncFireworks`, from an iterable or an async iterable; what
                `read_jobs` and `grid` return. Pulled as there is capacity, so a
                million cost no more memory than a hundred.

        Returns:
            What became of them; also when it was stopped, or when the folder
            could not be written any more.

        Raises:
            BatchChangedError: They are other jobs than those of the folder; nothing was sent.
            PriceUnknownError: With `max_cost`: nobody knows what a job costs; nothing was sent.
            InvalidRequestError: `jobs` is not iterable.
            BatchError: A run before in this block could not write the folder any more.
            RuntimeError: The block is not entered, or the batch is running already.
            BaseException: What `jobs` raises, once all rows before it have come to their end,
                with a note of what became of them.
        """
        if self._opened is None or self._savers is None:
            raise RuntimeError("run jobs inside the block: async with Batch(...) as batch")
        if self._is_running:
            raise RuntimeError("this batch is running already; wait for its end")
        self._is_running = True  # before anything is waited for, or two would pass
        try:
            return await self._run_alone(self._opened, self._savers, jobs)
        finally:
            self._is_running = False

    async def _run_alone(self, opened: Opened, savers: Savers, jobs: Any) -> BatchSummary:
        await self._settle()
        show, end = shower(self._progress)
        if isinstance(jobs, JobReader):
            self.remember("input", jobs.options)
        run = self._run = Run(opened, self._trade, savers, self._options, show, self._to_remember)
        try:
            return await run.run(jobs)
        finally:
            run.watch.tell(is_last=True)
            end()

    async def _settle(self) -> None:
        """Settle what a run before in this block has left, however it ended."""
        before, opened = self._run, self._opened
        if before is None or opened is None:
            return
        if before.broken:
            raise BatchError(f"{before.broken}. This block is at its end: enter another Batch")
        self._was_used |= not before.was_refused
        for row in await opened.record.ask(lambda _: settle_between(opened)):
            opened.marks.clear(row)

    def remember(self, name: str, value: object) -> None:
        """
        Have a setting written into the record, for whoever goes on with the folder.

        It is written with the first rows that are taken up, so a run that was
        refused leaves no trace.

        Args:
            name: What it is called; `BatchRecord.setting` reads it.
            value: What JSON can carry.
        """
        self._to_remember[name] = value

    def _disk_trouble(self, error: BaseException) -> None:
        """Fall back on the reserve and take up no more jobs; in a thread."""
        if self._opened is not None:
            self._opened.reserve.give_back()
            if self._notify is not None:
                self._notify(self._break_off, error)

    def _break_off(self, error: BaseException) -> None:
        if self._run is not None:
            self._run.ends.break_off(error)

    def stop(self) -> None:
        """Take up no more jobs; `run` returns when those that are with the server have ended."""
        if self._run is not None:
            self._run.stop("stop() was called")

    def in_doubt(self) -> list[str]:
        """Return, after a run was stopped at once, what may have been paid: a line for each job."""
        return [] if self._run is None else self._run.doubt_lines()

    async def plan(self, jobs: Iterable[Any] | AsyncIterable[Any]) -> BatchPlan:
        """
        Say what `run` would do. Nothing is sent, and nothing is written.

        Args:
            jobs: As `run` takes them.

        Returns:
            Rows, invalid rows, duplicates, what is done already, dollars and
            seconds expected, and ten samples.
        """
        return await make_plan(self._folder, self._trade, self._options, jobs)


def _is_plain(function: object) -> bool:
    """Return whether something can be called, and answers at once."""
    called = getattr(function, "__call__", None)  # noqa: B004  (which may be a coroutine function)
    return callable(function) and not (iscoroutinefunction(function) or iscoroutinefunction(called))


def _one_of(what: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        listed = ", ".join(repr(each) for each in allowed)
        raise InvalidRequestError(f"{what} must be one of {listed}, not {shown(value)}")
