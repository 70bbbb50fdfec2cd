"""
A table of jobs that fills in as they end: what `AsyncProdia.grid` returns, and shows.

What is shown is decided from the outcomes alone. Where IPython runs the display
is renewed while the jobs run; elsewhere the grid is simply returned.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _notebook
from ._errors import InvalidRequestError
from ._models import Job, JobRequest, wire_job
from ._show import shown
from ._waiting import current_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._map import Outcomes
    from ._models import JobOutcome

RENEW_SECONDS = 0.25
"""Least time between two renewals of what is shown: each sends the whole. Chosen."""

MAX_CELLS = 1000
"""Most cells: a grid is looked at. Chosen; `AsyncProdia.map` has no such bound."""


class Grid:
    """
    A table of jobs, and what became of each.

    Args:
        rows: What each row sets in the config, in order.
        columns: What each column sets, in order.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], columns: Sequence[Mapping[str, Any]]
    ) -> None:
        self.rows = tuple(rows)
        """What each row sets in the config, in order."""
        self.columns = tuple(columns)
        """What each column sets, in order."""
        self.outcomes: dict[tuple[int, int], JobOutcome] = {}
        """The outcomes so far, by row and column, both from 0."""
        self.interrupted = False
        """Whether it was left before all had ended."""
        self._cells: dict[tuple[int, int], str] = {}

    def __repr__(self) -> str:
        return f"<Grid {len(self.rows)} x {len(self.columns)}: {self.summary()}>"

    def __getitem__(self, place: tuple[int, int]) -> JobOutcome:
        return self.outcomes[place]

    @property
    def done(self) -> int:
        """How many have ended well."""
        return sum(each.response is not None for each in self.outcomes.values())

    @property
    def failed(self) -> int:
        """How many have ended otherwise."""
        return len(self.outcomes) - self.done

    @property
    def dollars(self) -> float:
        """What the answers told of their prices, added up."""
        answers = (each.response for each in self.outcomes.values())
        return sum(each.dollars or 0.0 for each in answers if each is not None)

    def summary(self) -> str:
        """Return how far it has come, in words."""
        cells = len(self.rows) * len(self.columns)
        words = [f"{self.done} of {cells} done"]
        if self.failed:
            words.append(f"{self.failed} failed")
        if self.dollars:
            words.append(f"${self.dollars:.6g}")
        if self.interrupted:
            left = cells - len(self.outcomes)
            words.append(f"interrupted: {left} not seen; those in flight may have been charged")
        return " · ".join(words)

    def add(self, outcome: JobOutcome) -> None:
        """
        Fill in the cell of an outcome.

        Args:
            outcome: Its `index` says which cell.
        """
        place = divmod(outcome.index, len(self.columns))
        self.outcomes[place] = outcome
        # Written once: a renewal then costs no more than putting the cells together.
        if outcome.response is not None:
            cell = _notebook.response_html(outcome.response, _notebook.THUMB)
        else:
            cell = _notebook.error_html(outcome.error, "", _notebook.THUMB)
        self._cells[place] = cell

    def _repr_html_(self) -> str:
        names = [", ".join(f"{k} = {v}" for k, v in each.items()) for each in self.columns]
        rows = [", ".join(f"{k} = {v}" for k, v in each.items()) for each in self.rows]
        return _notebook.grid_html(self.summary(), rows, names, self._cells)


def axis(name: str, given: Mapping[str, Iterable[Any]] | None) -> list[dict[str, Any]]:
    """
    Return what each row, or column, sets: every combination of the values.

    Raises:
        InvalidRequestError: It is no mapping of config keys to lists, or one is empty.
    """
    if given is None:
        return [{}]
    example = f'{name} must be like {{"prompt": ["a cat", "a dog"]}}'
    if not isinstance(given, Mapping):
        raise InvalidRequestError(f"{example}, not {shown(given)}")
    lists = []
    for key, values in given.items():
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise InvalidRequestError(f"{example}; {key!r} has {shown(values)}")
        # An endless one is not gone through: it would be too many anyway.
        lists.append([(key, value) for value in itertools.islice(values, MAX_CELLS + 1)])
        if not lists[-1]:
            raise InvalidRequestError(f"{example}; {key!r} has no values")
    if math.prod(map(len, lists)) > MAX_CELLS:
        raise InvalidRequestError(f"a grid has at most {MAX_CELLS} {name}; map has no such bound")
    return [dict(each) for each in itertools.product(*lists)]


def requests_of(
    job: Job | Mapping[str, Any], grid: Grid, options: Mapping[str, Any]
) -> list[JobRequest]:
    """Return the job of each cell, row by row."""
    wire = wire_job(job)
    config = wire.get("config") or {}
    cells = len(grid.rows) * len(grid.columns)
    if cells > MAX_CELLS:
        raise InvalidRequestError(
            f"a grid has at most {MAX_CELLS} cells, not {cells}; map has no such bound"
        )
    return [
        JobRequest({**wire, "config": {**config, **row, **column}}, **options)
        for row in grid.rows
        for column in grid.columns
    ]


async def fill(grid: Grid, outcomes: Outcomes[Any, JobOutcome]) -> Grid:
    """Run the jobs of a grid, and show it while it fills in."""
    show = _display(grid)
    shown_at = current_time()
    try:
        async with outcomes:
            async for outcome in outcomes:
                grid.add(outcome)
                if current_time() - shown_at >= RENEW_SECONDS:
                    show()
                    shown_at = current_time()
    except BaseException:
        for outcome in outcomes.unread():  # they came, and are paid for
            grid.add(outcome)
        grid.interrupted = True
        raise
    finally:
        show()
    return grid


def _display(grid: Grid) -> Callable[[], None]:
    """Show a grid where a notebook runs; return what renews it."""
    if _notebook.running() is None:
        return lambda: None
    from IPython.display import display  # noqa: PLC0415  (it is here, since it runs)

    handle = display(grid, display_id=True)
    return lambda: handle.update(grid)
