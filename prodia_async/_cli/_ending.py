"""Ctrl-C and SIGTERM in a command that pays: one end, with a word about what was paid for."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .._attempts import MAY_HAVE_RUN
from .._hooks import logger
from .._show import one_line
from ._app import InterruptedJobError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .._hooks import AttemptDetails


class Watch(logging.Handler):
    """
    Notes what becomes of a job, for when its command is told to end.

    Its client takes it as a hook; the id of a job that is left with the server is in the log.

    Args:
        what: What to call the job.
        how: What waits for one that is left with the server; ``{}`` stands for its id.
        job_id: Its id, if it was submitted before.
    """

    def __init__(self, what: str, *, how: str = "", job_id: str | None = None) -> None:
        super().__init__(logging.INFO)
        self._what = what
        self._how = how
        self._job_id = job_id
        self._may_have_run = False

    def __call__(self, details: AttemptDetails) -> None:
        """Note what an attempt came to; one that is cut off is told too."""
        if details.attempt is not None and details.attempt.fate in MAY_HAVE_RUN:
            self._may_have_run = True

    def emit(self, record: logging.LogRecord) -> None:
        """Note the id of a job that was submitted."""
        self._job_id = getattr(record, "job_id", None) or self._job_id

    def told(self) -> str:
        """Say what was under way, whether it may have been paid, and how to go on."""
        if self._how and self._job_id is not None:
            job_id = one_line(self._job_id)
            return (
                f"{self._what} was submitted as {job_id} and may be charged; "
                f"{self._how.format(job_id)}"
            )
        if self._may_have_run:
            return f"{self._what} may have run and been charged"
        return f"{self._what} did not run, so nothing was charged"

    @contextmanager
    def listening(self) -> Generator[None, None, None]:
        """Hear the package's log, and end as `ending` does."""
        before = logger.level
        logger.addHandler(self)
        logger.setLevel(min(before or logging.INFO, logging.INFO))
        try:
            with ending(self.told):
                yield
        finally:
            logger.setLevel(before)
            logger.removeHandler(self)


@contextmanager
def ending(told: Callable[[], str]) -> Generator[None, None, None]:
    """
    Have SIGTERM end a command as Ctrl-C does, and say of either what was under way.

    Args:
        told: Says it.

    Raises:
        InterruptedJobError: In the place of the interruption.
    """
    terminated: list[int] = []

    def terminate(number: int, frame: object) -> None:
        del frame
        terminated.append(number)
        # asyncio knows how to end its loop at that one. A shell starts background jobs with it
        # ignored, and then asyncio leaves it so.
        if callable(signal.getsignal(signal.SIGINT)):
            signal.raise_signal(signal.SIGINT)
        else:
            raise KeyboardInterrupt

    with _handling({signal.SIGTERM: terminate}):
        try:
            yield
        except KeyboardInterrupt:
            if terminated:
                raise InterruptedJobError(f"terminated; {told()}", status=143) from None
            raise InterruptedJobError(f"interrupted; {told()}", status=130) from None


@contextmanager
def undisturbed() -> Generator[None, None, None]:
    """Let what was paid for be written before anything: a first signal is put off for ever."""
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        del frame
        if came:
            raise KeyboardInterrupt
        came.append(number)

    with _handling({signal.SIGTERM: note, signal.SIGINT: note}):
        yield


@contextmanager
def _handling(
    handlers: dict[signal.Signals, Callable[[int, object], None]],
) -> Generator[None, None, None]:
    """Handle signals, but those that are ignored, where that is possible: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            if earlier is not None:  # else it was not set from Python
                signal.signal(number, earlier)
