"""A line that fills in, or a function that is told."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tqdm import tqdm  # type: ignore[import-untyped]

from prodia_async._errors import InvalidRequestError
from prodia_async._progress import SIZED, Bar, MapProgress, Teller, bar

if TYPE_CHECKING:
    from pathlib import Path


class FakeTqdm:
    """What of a bar is used, written down."""

    def __init__(self, **options: Any) -> None:
        self.told: list[object] = [options]

    def set_postfix_str(self, told: str, *, refresh: bool) -> None:
        self.told.append((told, refresh))

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
        {"total": 7, "unit": " job", "bar_format": SIZED}, 1,
        ("1 failed", False), 1,
        ("1 failed, $0.0125", False), 1,
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


def test_a_log_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """One at the start, one every so often, one at the end; none returns to its beginning."""
    pytest.importorskip("tqdm")
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    each = bar(300)
    for number in range(300):
        each.ended(failed=number == 7, dollars=0.25)
    each.close()
    first, last = log.getvalue().splitlines()
    assert first.startswith("0%|")
    assert "300/300, 1 failed, $75 [" in last
    assert "\r" not in log.getvalue()
    log.truncate(0)
    each = bar(None)
    each.ended(failed=False, dollars=0.0)
    each.close()
    assert log.getvalue().splitlines()[-1].startswith("jobs: 1 [")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fills in, in one line."""
    pytest.importorskip("tqdm")
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    each = bar(1)
    each.ended(failed=False, dollars=0.0)
    each.close()
    assert screen.getvalue().count("\r") >= 2
    assert screen.getvalue().count("\n") == 1


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_shows_what_matters(width: int) -> None:
    """How many, how many failed and what it cost: what is cut off is the rest."""
    pytest.importorskip("tqdm")
    screen = io.StringIO()

    def make(**options: Any) -> Any:
        return tqdm(file=screen, ncols=width, mininterval=0, **options)

    each = Bar(300, make)
    for _ in range(3):
        each.ended(failed=True, dollars=0.0125)
    each.close()
    last = screen.getvalue().split("\r")[-1].rstrip("\n")
    assert "| 3/300, 3 failed, $0.0375" in last
    assert len(last) <= width


@pytest.mark.parametrize("breaks", ["make", "update", "close"])
def test_a_bar_that_breaks_costs_nothing(breaks: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is shown no more, and whoever ran the jobs hears nothing but a line in the log."""

    class Broken(FakeTqdm):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            if breaks == "make":
                raise BrokenPipeError

        def update(self, count: int) -> None:
            super().update(count)
            if breaks == "update":
                raise BrokenPipeError("gone")

        def close(self) -> None:
            raise BrokenPipeError("gone")

    each = Bar(2, Broken)
    each.ended(failed=False, dollars=0.0)
    each.ended(failed=False, dollars=0.0)
    each.close()
    assert caplog.text.count("the progress is shown no more") == 1


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["before", "during", "never there"])
def test_jobs_come_home_whoever_watches(ends: str, tmp_path: Path) -> None:
    """By a process whose standard error is closed at the other end, or not open at all."""
    pytest.importorskip("tqdm")
    program = tmp_path / "many.py"
    program.write_text(
        "import asyncio\n"
        "from prodia_async import AsyncProdia\n"
        "from prodia_async.emulator import Emulator\n"
        "async def main():\n"
        "    with Emulator(workers=4, latency=0.2) as api:\n"
        "        async with AsyncProdia('t', base_url=api.base_url) as client:\n"
        "            jobs = [{'type': 'inference.ping.v1'}] * 12\n"
        "            async with client.map(jobs, progress=True) as outcomes:\n"
        "                print(len([each.unwrap() async for each in outcomes]))\n"
        "asyncio.run(main())\n"
    )
    reader, writer = os.pipe()
    shell = 'exec "$0" "$1" 2>&-' if ends == "never there" else 'exec "$0" "$1"'
    process = subprocess.Popen(
        ["sh", "-c", shell, sys.executable, str(program)], stdout=subprocess.PIPE, stderr=writer
    )
    os.close(writer)
    if ends == "during":
        assert os.read(reader, 10)
    os.close(reader)
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"12\n", 0)


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


def test_a_function_that_asks_for_a_cancelled_future(caplog: pytest.LogCaptureFixture) -> None:
    """It costs no answer either; but Ctrl-C goes through."""
    error: BaseException = asyncio.CancelledError()

    def tell(_: MapProgress) -> None:
        raise error

    teller = Teller(None, tell)
    teller.ended(failed=False, dollars=0.0)
    assert caplog.text.count("the progress function") == 1
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        teller.ended(failed=False, dollars=0.0)
