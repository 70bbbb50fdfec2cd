"""``map(progress=...)``: a line that fills in, or a function that is told how it goes."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Sized
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, TextIO

from ._checks import flag
from ._errors import InvalidRequestError
from ._hooks import is_its_own, log, logger
from ._notebook import running
from ._show import words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


SIZED = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix} [{elapsed}<{remaining}, {rate_fmt}]"
UNSIZED = "jobs: {n_fmt}{postfix} [{elapsed}, {rate_fmt}]"
"""What a line says; the end, which a narrow terminal cuts off, is what one can do without."""

LOG_SECONDS = 15.0
"""Between two lines in a log. Chosen, as for a batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapProgress:
    """How far many jobs are."""

    total: int | None
    """How many there are; ``None`` where nobody knows."""
    done: int
    """How many have ended, well or not."""
    failed: int
    """How many of those failed."""
    dollars: float
    """What the answers told that they cost, added up."""


class Teller:
    """
    Tells a function of the caller's as each job ends.

    Args:
        total: How many there are, if that is known.
        tell: The function. What it raises is logged and goes no further: a
            broken display must not cost a paid answer.
    """

    def __init__(self, total: int | None, tell: Callable[[MapProgress], None]) -> None:
        self._told = MapProgress(total=total, done=0, failed=0, dollars=0.0)
        self._tell = tell

    def ended(self, *, failed: bool, dollars: float) -> None:
        """Take note of one that has ended, and tell."""
        told = self._told
        self._told = MapProgress(
            total=told.total,
            done=told.done + 1,
            failed=told.failed + failed,
            dollars=told.dollars + dollars,
        )
        try:
            self._tell(self._told)
        except BaseException as error:
            if not is_its_own(error):
                raise
            with contextlib.suppress(Exception):
                logger.exception("the progress function %r failed", self._tell)

    def close(self) -> None:
        """Do nothing: all has been told."""


class Bar:
    """
    A bar of tqdm's. What it raises goes no further: a terminal that is gone costs no paid answer.

    Args:
        total: How many there are, if that is known.
        make: Makes the bar; ``tqdm.auto.tqdm``.
        log: Where to write lines rather than a bar that fills in.
    """

    def __init__(
        self, total: int | None, make: Callable[..., Any], log: TextIO | None = None
    ) -> None:
        self._bar: Any = None
        self._failed = 0
        self._dollars = 0.0
        options: dict[str, Any] = {"total": total, "unit": " job", "bar_format": SIZED}
        if total is None:
            options["bar_format"] = UNSIZED
        if log is not None:
            options |= {"file": Lines(log), "mininterval": LOG_SECONDS, "maxinterval": inf}
        with self._careful():
            self._bar = make(**options)

    def ended(self, *, failed: bool, dollars: float) -> None:
        """Fill in one more, with what failed and what it cost so far."""
        self._failed += failed
        self._dollars += dollars
        if self._bar is None:
            return
        told = [
            *([f"{self._failed:,} failed"] if self._failed else []),
            *([f"${self._dollars:.4g}"] if self._dollars else []),
        ]
        with self._careful():
            if told:
                self._bar.set_postfix_str(", ".join(told), refresh=False)
            self._bar.update(1)

    def close(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            with self._careful():
                self._bar.close()

    @contextlib.contextmanager
    def _careful(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  (whatever a terminal, or tqdm, may raise)
            if self._bar is not None:
                self._bar.disable = True  # or it would try again when it is collected
            self._bar = None
            log(logging.WARNING, "the progress is shown no more: %s", words_of(error))


class Lines:
    """A stream that makes a line of each state of a bar, for a log or a pipe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write a line of what is there to be seen."""
        line = text.strip()
        if line:
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        """Pass on what was written."""
        self._stream.flush()


def _log_stream() -> TextIO | None:
    """Return standard error where nobody sees a line fill in: no terminal, and no notebook."""
    if running() is not None or sys.stderr is None or sys.stderr.isatty():
        return None
    return sys.stderr


def bar(total: int | None) -> Bar:
    """
    Return a bar that suits where it is shown.

    Raises:
        InvalidRequestError: tqdm is not installed.
    """
    try:
        with warnings.catch_warnings():
            # Without ipywidgets a notebook has the bar as text, which needs no warning in red.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415  (an extra)
    except ImportError:
        raise InvalidRequestError(
            "progress=True needs tqdm: pip install 'prodia-async[notebook]'"
        ) from None
    return Bar(total, tqdm, _log_stream())


def progress_of(wanted: bool | Callable[[MapProgress], None], items: object) -> Teller | Bar | None:
    """Return what is told of each job of a ``map`` as it ends, if that was asked for."""
    total = len(items) if isinstance(items, Sized) else None
    if callable(wanted):
        return Teller(total, wanted)
    return bar(total) if flag("progress", wanted) else None
