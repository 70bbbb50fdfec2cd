"""``map(progress=True)``: one line that fills in, in a terminal, a notebook or a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ._errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable


class Progress(Protocol):
    """Told of each job of many as it ends."""

    def ended(self, *, failed: bool, dollars: float) -> None:
        """Take note of one that has ended."""

    def close(self) -> None:
        """Leave the line as it is."""


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
