"""The example, as its user runs it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "batch.py"


def test_the_example_goes_on_where_it_ended(tmp_path: Path) -> None:
    """Twenty lines; run twice, it makes its eight pictures once, and writes its page."""
    text = EXAMPLE.read_text(encoding="utf-8")
    theory = ast.parse(text).body[0].end_lineno  # what it is about, in its docstring
    lines = [line.strip() for line in text.splitlines()[theory:]]
    code = [line for line in lines if line and not line.startswith('"')]
    assert len(code) <= 20
    assert "prodia_async._" not in text
    # Asyncio's debug mode has its own things to say on stderr.
    env = {
        name: os.environ[name]
        for name in os.environ
        if not name.startswith(("PRODIA_", "PYTHONASYNCIO"))
    }
    for before in ("", " (8 before)"):
        done = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLE, tmp_path / "run"],
            env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert f"8 done{before}, 0 failed" in done.stdout
    assert len(list((tmp_path / "run" / "out").rglob("*.jpg"))) == 8
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
