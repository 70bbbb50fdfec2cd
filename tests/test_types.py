"""
What type checkers say: mypy (which checks everything else too) and pyright, which editors have.

They differ: a truth value of one attribute tells another one's type to mypy
alone, and an alias written as strings side by side is nothing to pyright.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from test_docs import PAGES, ROOT, snippets

SURFACE = ROOT / "tests" / "typing" / "api.py"

with_node = pytest.mark.skipif(shutil.which("node") is None, reason="pyright runs on node")


def pyright(folder: Path, mode: str) -> list[str]:
    """Check the files of a folder; returns what is wrong, a line each."""
    settings = {
        "include": ["."],
        "typeCheckingMode": mode,
        "reportUnnecessaryTypeIgnoreComment": True,
        "pythonVersion": "3.11",
        "extraPaths": [str(ROOT)],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "-p", str(folder), "--pythonpath", sys.executable,
         "--outputjson"],
        cwd=folder, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["summary"]["filesAnalyzed"] == len(list(folder.glob("*.py")))
    return [
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}: {each['message']}"
        for each in told["generalDiagnostics"]
    ]


def pages(folder: Path) -> int:
    """Write the documents' pieces of Python as modules, a page each; returns how many."""
    for page in PAGES:
        pieces = [each for each in snippets(page) if each.language == "python"]
        body = []
        for each in pieces:
            if each.why_not is None and "asyncio.run(" in each.code:
                name = f"{page.stem}_{each.line}.py".replace("-", "_").lower()
                (folder / name).write_text(each.code)
                tree = ast.parse(each.code)
                body += [ast.unparse(node) for node in tree.body if hasattr(node, "names")]
            elif each.why_not is None:
                body.append(each.code)
        code = "\n".join(body)
        if code:
            given = ["client: AsyncProdia"]
            if not re.search(r"^job = ", code, re.MULTILINE):
                given.append("job: Job")
            head = f"async def page({', '.join(given)}) -> None:\n"
            text = f"from prodia_async import AsyncProdia, Job\n\n\n{head}"
            name = f"{page.stem}_page.py".replace("-", "_").lower()
            (folder / name).write_text(text + textwrap.indent(code, "    "))
    return len(list(folder.glob("*.py")))


@with_node
def test_the_surface_is_the_same_to_pyright(tmp_path: Path) -> None:
    """In strict mode; where mypy is to find an error pyright finds one too."""
    shutil.copy(SURFACE, tmp_path)
    assert pyright(tmp_path, "strict") == []


@with_node
def test_what_pyright_shall_find_is_found(tmp_path: Path) -> None:
    """This test can fail: an input that is none, an answer that may be missing, a lone ignore."""
    (tmp_path / "wrong.py").write_text(
        "from prodia_async import AsyncProdia, Job, JobOutcome\n"
        "async def wrong(client: AsyncProdia, outcome: JobOutcome) -> None:\n"
        "    await client.job(Job('t'), inputs=[5])\n"
        "    print(outcome.response.content)\n"
        "    print(client)  # type: ignore\n"
    )
    found = pyright(tmp_path, "strict")
    assert [each.split(":")[1] for each in found] == ["3", "4", "5"]


@with_node
def test_the_documents_are_right_to_pyright(tmp_path: Path) -> None:
    """Every piece of Python of the README and the guides."""
    assert pages(tmp_path) > 15
    assert pyright(tmp_path, "standard") == []


def test_the_documents_are_right_to_mypy(tmp_path: Path) -> None:
    """The same to mypy."""
    assert pages(tmp_path) > 15
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-version", "3.11", "--cache-dir",
         str(ROOT / ".mypy_cache"), *map(str, tmp_path.glob("*.py"))],
        cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


# The documents' first example, as people copy it.


def test_the_readmes_first_example_is_checked_as_it_stands(tmp_path: Path) -> None:
    """It is one of the pages above, whole."""
    pages(tmp_path)
    first = next(each for each in snippets(ROOT / "README.md") if each.language == "python")
    assert first.code in {each.read_text() for each in tmp_path.glob("readme_*.py")}
