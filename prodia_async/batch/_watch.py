"""What goes on beside a run: progress, samples for the plots, the lease, signals."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio

from .._hooks import log
from .._show import words_of
from ._decide import NANO
from ._opening import renew
from ._values import BatchError, BatchProgress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._ends import Ends
    from ._standing import Standing

TICK_SECONDS = 0.25
"""Between two looks at the progress. Documented: at most four a second."""

_HEARD = frozenset({"SIGINT", "SIGTERM"})
"""What ends a run in good order, and at once when it comes again."""

RATE_SECONDS = 10.0
"""What a rate is taken over. Chosen."""


_ears: list[socket.socket] = []
"""Ends of those of this process's runs that hear signals: a signal is for all of them."""

_before: dict[int, Any] = {}
"""What heard them before, and does again when none of the runs is left."""


def _heard(number: int, _: object) -> None:
    # In the main thread, between two of its instructions: a byte for each of the loops.
    for each in _ears:
        with suppress(OSError):
            each.send(bytes([number]))


@contextmanager
def _hearing() -> Iterator[socket.socket]:
    """Have what is heard come out of a socket, a byte for each signal, for a block."""
    ear, mouth = socket.socketpair()
    with ear, mouth:
        ear.setblocking(False)
        mouth.setblocking(False)
        _ears.append(mouth)
        try:
            if len(_ears) == 1:
                for number in (signal.SIGINT, signal.SIGTERM):
                    _before[number] = signal.signal(number, _heard)
            yield ear
        finally:
            _ears.remove(mouth)
            while _before and not _ears:
                each, handler = _before.popitem()
                # One that is not Python's cannot be put back, and what came after ours stays.
                if handler is not None and signal.getsignal(each) is _heard:
                    signal.signal(each, handler)


class Watch:
    """
    Looks at a run, and never changes it but for stopping it.

    Args:
        run: The run.
        ends: What ends its rows, and breaks it off.
    """

    def __init__(self, run: Standing, ends: Ends) -> None:
        self._run = run
        self._ends = ends
        self._times: deque[tuple[float, int, int]] = deque()

    async def listen(self, *, task_status: Any) -> None:
        """Hear SIGINT and SIGTERM; where that is possible, which is in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            task_status.started()
            return
        with _hearing() as ear:
            task_status.started()
            while True:
                await anyio.wait_readable(ear)
                for number in ear.recv(16):
                    name = signal.Signals(number).name
                    if self._run.stopped is None:
                        self._run.stop(name)
                        self.tell()
                    else:
                        self._run.stop_now(f"{name}, twice")

    async def tick(self) -> None:
        sampled = -1
        beat_at = self._run.clock()
        while True:
            self.tell()
            second = int(self._run.clock() - self._run.began)
            if second > sampled:
                sampled = second
                self._sample(second)
            if self._run.clock() >= beat_at and not self._run.broken:
                beat_at = self._run.clock() + self._run.options.lease_seconds / 3
                await self._beat()
            await anyio.sleep(TICK_SECONDS)

    async def _beat(self) -> None:
        try:
            ours = await self._run.record.ask(
                lambda connection: renew(connection, self._run.opened.token), linger=True
            )
        except BatchError as error:
            self._ends.break_off(error)
            return
        if not ours:
            self._ends.break_off(
                BatchError("another run has taken the folder over while this one slept")
            )

    def _sample(self, second: int) -> None:
        statistics = self._run.trade.statistics()
        counts = self._run.counts
        values = (
            self._run.opened.session, second, counts.done - counts.before, counts.failed,
            statistics.refusals, statistics.in_flight, self._run.purse.told,
        )  # fmt: skip
        with suppress(BatchError):
            self._run.record.tell(
                lambda connection: connection.execute(
                    "INSERT OR REPLACE INTO sample VALUES(?,?,?,?,?,?,?)", values
                )
            )

    def progress(self, *, is_last: bool = False) -> BatchProgress:
        """Return how it stands."""
        now = self._run.clock()
        statistics = self._run.trade.statistics()
        counts = self._run.counts
        self._times.append((now, counts.finished, statistics.refusals))
        while len(self._times) > 2 and now - self._times[0][0] > RATE_SECONDS:
            self._times.popleft()
        since, finished, refusals = self._times[0]
        seconds = max(now - since, 1e-9)
        rate = (counts.finished - finished) / seconds if now > since else 0.0
        ended = counts.done + counts.failed + counts.in_doubt
        left = None if self._run.total is None else max(0, self._run.total - ended)
        new = max(1, counts.finished)
        spent = self._run.purse.told / NANO
        each = (
            (self._run.purse.told - self._run.opened.told) / NANO / new if counts.finished else None
        )
        return BatchProgress(
            done=counts.done,
            failed=counts.failed,
            in_doubt=len(self._run.doubts),
            total=self._run.total,
            in_flight=statistics.in_flight,
            jobs_per_second=rate,
            refusals_per_second=(statistics.refusals - refusals) / seconds,
            dollars=spent,
            projected_dollars=spent + left * each if left is not None and each else None,
            seconds=now - self._run.began,
            seconds_left=left / rate if left is not None and rate else None,
            waiting_for=self._ended_by() if is_last else self._waiting_for(),
            is_last=is_last,
        )

    def _ended_by(self) -> str | None:
        return f"stopped: {self._run.stopped}" if self._run.stopped else None

    def _waiting_for(self) -> str | None:
        if self._run.stopped:
            more = "; a second one stops at once" if self._run.stopped in _HEARD else ""
            return f"ending: {self._run.stopped}{more}"
        if self._run.outage.since is not None:
            return f"the API is asked whether it is back ({self._run.outage.reason:.100})"
        if self._run.delayed and not self._run.in_flight:
            return "a busy server, which says when to come again"
        return None

    def tell(self, *, is_last: bool = False) -> None:
        if self._run.show is None:
            return
        try:
            self._run.show(self.progress(is_last=is_last))
        except Exception as error:  # noqa: BLE001  (a pipe that is closed, or the caller's own)
            # Whoever watches does not decide whether what is paid for is kept.
            self._run.show = None
            log(logging.WARNING, "the progress is shown no more: %s", words_of(error))
