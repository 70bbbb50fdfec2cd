"""The live line: on a terminal, in a notebook, in a log."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._values import BatchProgress

    Show = Callable[[BatchProgress], None]

PLAIN_SECONDS = 15.0
"""Between two plain lines in a log. Chosen."""


def shower(
    wanted: Show | Literal[False] | None,
) -> tuple[Show | None, Callable[[], None]]:
    """
    Return what shows the progress, and what ends it.

    Args:
        wanted: As `Batch` takes it.
    """
    if wanted is False:
        return None, _nothing
    if wanted is not None:
        return wanted, _nothing
    if _in_notebook():
        return _notebook()
    if sys.stderr is not None and sys.stderr.isatty():
        return _terminal()
    return Plain(), _nothing


def _nothing() -> None:
    pass


class Plain:
    """A line every so often, for logs; and one at the end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock() + PLAIN_SECONDS
        self._is_ending = self._is_waiting = False

    def __call__(self, progress: BatchProgress) -> None:
        """Print a line if it is time for one."""
        now = self._clock()
        is_ending = (progress.waiting_for or "").startswith("ending")
        ends_now = is_ending and not self._is_ending and progress.in_flight > 0
        is_waiting = (progress.waiting_for or "").startswith("the API")
        waits_now = is_waiting and not self._is_waiting
        self._is_ending, self._is_waiting = is_ending, is_waiting
        is_late = progress.is_last and progress.seconds > PLAIN_SECONDS
        if now >= self._next or ends_now or waits_now or is_late:
            self._next = now + PLAIN_SECONDS
            print(progress, file=sys.stderr, flush=True)


def _terminal() -> tuple[Show, Callable[[], None]]:
    try:
        from rich.live import Live  # noqa: PLC0415  (an extra)
        from rich.text import Text  # noqa: PLC0415  (an extra)
    except ImportError:
        return Plain(), _nothing
    from rich.console import Console  # noqa: PLC0415  (an extra)

    live = Live(console=Console(stderr=True), auto_refresh=False, transient=False)
    live.start()

    def show(progress: BatchProgress) -> None:
        live.update(Text(str(progress)), refresh=True)

    return show, live.stop


def _in_notebook() -> bool:
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def _notebook() -> tuple[Show, Callable[[], None]]:
    from IPython.display import HTML, display  # noqa: PLC0415  (a notebook has it)

    handle: Any = None

    def show(progress: BatchProgress) -> None:
        nonlocal handle
        html = HTML(bar(progress))
        if handle is None:
            handle = display(html, display_id=True)
        else:
            handle.update(html)

    return show, _nothing


def bar(progress: BatchProgress) -> str:
    """Draw the progress for a notebook."""
    ended = progress.done + progress.failed + progress.in_doubt
    share = "" if not progress.total else f' value="{ended}" max="{progress.total}"'
    return f"<div><progress{share} style='width:20em'></progress> {progress}</div>"
