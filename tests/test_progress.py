"""A line that fills in, or a function that is told."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from prodia_async._errors import InvalidRequestError
from prodia_async._progress import Bar, MapProgress, Teller, bar


class FakeTqdm:
    """What of a bar is used, written down."""

    def __init__(self, **options: Any) -> None:
        self.told: list[object] = [options]

    def set_postfix(self, told: dict[str, str], *, refresh: bool) -> None:
        self.told.append((dict(told), refresh))

    def update(self, count: int) -> None:
        self.told.append(count)

    def close(self) -> None:
        self.told.append("closed")


def test_a_bar_says_what_failed_and_what_it_cost() -> None:
    """And nothing of either while there is nothing to say."""
    made: list[FakeTqdm] = []

    def make(**options: Any) -> FakeTqdm:
        made.append(FakeTqdm(**options))
        return made[0]

    each = Bar(7, make)
    each.ended(failed=False, dollars=0.0)
    each.ended(failed=True, dollars=0.0)
    each.ended(failed=False, dollars=0.0125)
    each.close()
    assert made[0].told == [
        {"total": 7, "unit": "job"}, 1,
        ({"failed": "1"}, False), 1,
        ({"failed": "1", "dollars": "0.0125"}, False), 1,
        "closed",
    ]  # fmt: skip


def test_the_bar_is_tqdms(capsys: pytest.CaptureFixture[str]) -> None:
    """Outside a notebook it is a line on stderr."""
    pytest.importorskip("tqdm")
    each = bar(2)
    each.ended(failed=False, dollars=0.0)
    each.ended(failed=False, dollars=0.0)
    each.close()
    assert "2/2" in capsys.readouterr().err


def test_a_missing_tqdm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent."""
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(InvalidRequestError, match=r"prodia-async\[notebook\]"):
        bar(None)


def test_a_function_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It is told of the next one all the same."""
    told: list[MapProgress] = []

    def tell(progress: MapProgress) -> None:
        told.append(progress)
        raise LookupError

    each = Teller(None, tell)
    each.ended(failed=True, dollars=0.5)
    each.ended(failed=False, dollars=0.25)
    each.close()
    assert told[-1] == MapProgress(total=None, done=2, failed=1, dollars=0.75)
    assert caplog.text.count("the progress function") == 2
