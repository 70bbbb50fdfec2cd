"""What the fixture ``prodia`` is: an emulator of its own, a client for it, and skipped time."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import anyio

from .._client import AsyncProdia
from .._waiting import skip_waiting

if TYPE_CHECKING:
    from typing import Self

    from .._waiting import Skipping
    from ..emulator import Emulator

TOKEN = "a-token-for-tests"  # noqa: S105  (the emulator takes any)


class ProdiaFixture:
    """
    An emulator of its own, a client for it, and time that is skipped.

    A context manager; the fixture ``prodia`` gives one that has begun.
    """

    emulator: Emulator
    """Plan faults with its ``fail_next`` and the like, and see in ``jobs`` what it was asked."""
    client: AsyncProdia
    """An `AsyncProdia` for it. It is closed at the end of the test."""

    def __init__(self) -> None:
        self.token = TOKEN
        """What the client sends, and PRODIA_TOKEN while a test runs."""
        self._undo = contextlib.ExitStack()
        self._skipping: Skipping

    def __repr__(self) -> str:
        return f"<ProdiaFixture {getattr(self, 'emulator', 'not begun')}>"

    @property
    def base_url(self) -> str:
        """Where the emulator is; PRODIA_BASE_URL while a test runs."""
        return self.emulator.base_url

    @property
    def waited(self) -> float:
        """Seconds that would have been waited: backoff, Retry-After, polls."""
        return self._skipping.waited

    def __enter__(self) -> Self:
        from ..emulator import Emulator  # noqa: PLC0415  (of an extra)

        with contextlib.ExitStack() as undo:
            self._skipping = undo.enter_context(skip_waiting())
            self.emulator = undo.enter_context(Emulator())
            self.client = AsyncProdia(self.token, base_url=self.emulator.base_url)
            undo.callback(self._close)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _close(self) -> None:
        # An async test has closed it in its own loop (see the plugin); then this does nothing.
        # A thread, since the test may have left a loop in this one.
        closing = threading.Thread(target=anyio.run, args=(self.client.aclose,))
        closing.start()
        closing.join()
