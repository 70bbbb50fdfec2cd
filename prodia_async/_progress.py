"""``map(progress=...)``: a line that fills in, or a function that is told how it goes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ._errors import InvalidRequestError
from ._hooks import logger

if TYPE_CHECKING:
    from collections.abc import Callable


class Progress(Protocol):
    """Told of each job of many as it ends."""

    def ended(self, *, failed: bool, dollars: float) -> None:
        """Take note of one that has ended."""

    def close(self) -> None:
        """Leave the line as it is."""


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
        except Exception:  # noqa: BLE001  (logged)
            with contextlib.suppress(Exception):
                logger.exception("the progress function %r failed", self._tell)

    def close(self) -> None:
        """Do nothing: all has been told."""


class Bar:
    """
    A bar of tqdm's.

    Args:
        total: How many there are, if that is known.
        make: Makes the bar; ``tqdm.auto.tqdm``.
    """

    def __init__(self, total: int | None, make: Callable[..., Any]) -> None:
        self._bar = make(total=total, unit="job")
        self._failed = 0
        self._dollars = 0.0

    def ended(self, *, failed: bool, dollars: float) -> None:
        """Fill in one more, with what failed and what it cost so far."""
        self._failed += failed
        self._dollars += dollars
        told = {}
        if self._failed:
            told["failed"] = str(self._failed)
        if self._dollars:
            told["dollars"] = f"{self._dollars:.4g}"
        if told:
            self._bar.set_postfix(told, refresh=False)
        self._bar.update(1)

    def close(self) -> None:
        """Leave the line as it is."""
        self._bar.close()


def bar(total: int | None) -> Bar:
    """
    Return a bar that suits where it is shown.

    Raises:
        InvalidRequestError: tqdm is not installed.
    """
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415  (an extra)
    except ImportError:
        raise InvalidRequestError(
            "progress=True needs tqdm: pip install 'prodia-async[notebook]'"
        ) from None
    return Bar(total, tqdm)
