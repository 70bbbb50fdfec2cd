"""Every snippet of the README and the documentation runs, as a reader would run it."""

import ast
import asyncio
import importlib
import inspect
import io
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prodia_async import AsyncProdia, Job, ProdiaError, __version__
from prodia_async.emulator import Emulator

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?:^(?P<mark>[ ]*<!-- not run: (?P<why>[^\n]+) -->)\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>\w+)\n(?P<code>.*?)^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)
RUNS = {"python", "console"}
"""Languages that are run; ``text`` is for drawings."""


@dataclass(frozen=True)
class Snippet:
    page: Path
    line: int
    language: str
    code: str
    why_not: str | None


def snippets(page: Path) -> Iterator[Snippet]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start("code"))
        code = textwrap.dedent(found["code"])
        yield Snippet(page, line, found["language"], code, found["why"])


WITH_CODE = [page for page in PAGES if any(each.language in RUNS for each in snippets(page))]


def test_every_snippet_runs_or_says_why_not() -> None:
    """What is not run has its reason beside it, and no fence is in a language nobody looks at."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("```") == 2 * len(list(FENCE.finditer(text))), page
        for each in snippets(page):
            assert each.why_not or each.language in {*RUNS, "text"}, f"{page.name}:{each.line}"
            assert each.why_not is None or len(each.why_not) > 10


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_snippets_of_a_page_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one folder with some files, with a client and a job at hand, as the page's reader has."""
    monkeypatch.chdir(tmp_path)
    for name in ("mug.jpg", "table.png"):
        Image.new("RGB", (320, 240), "sienna").save(name)
    with Emulator(workers=20, latency=0.01, retry_after=0.1) as emulator:
        monkeypatch.setenv("PRODIA_TOKEN", "a-token")
        monkeypatch.setenv("PRODIA_BASE_URL", emulator.base_url)
        monkeypatch.setenv("FIREWORKS_API_KEY", "a-key")
        monkeypatch.setenv("FIREWORKS_API_BASE", emulator.fireworks_url)
        asyncio.run(run_all([each for each in snippets(page) if each.why_not is None]))


async def run_all(page: list[Snippet]) -> None:
    async with AsyncProdia() as client:
        job = Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": "a lake", "seed": 1})
        names: dict[str, Any] = {"client": client, "job": job}
        for each in page:
            if each.language == "console":
                await asyncio.to_thread(run_console, each)
            elif each.language == "python" and "asyncio.run(" in each.code:
                await asyncio.to_thread(run_program, each)
                # What a reader has imported by then holds for the pieces that follow.
                tree = ast.parse(each.code)
                kinds = ast.Import | ast.ImportFrom
                tree.body = [node for node in tree.body if isinstance(node, kinds)]
                exec(compile(tree, str(each.page), "exec"), names)
            elif each.language == "python":
                await run_here(each, names)
        for made in names.values():
            if isinstance(made, AsyncProdia):  # a page's own, that lives as long as its program
                await made.aclose()


async def run_here(each: Snippet, names: dict[str, Any]) -> None:
    """Run a piece of a program, which may await, among the names of the pieces before it."""
    code = compile(
        "\n" * each.line + each.code, str(each.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    with redirect_stdout(io.StringIO()):
        running = eval(code, names)
        if inspect.iscoroutine(running):
            await running


def run_program(each: Snippet) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", each.code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{each.page.name}:{each.line}"


def run_console(each: Snippet) -> None:
    scripts = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["bash", "-ec", each.code],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.returncode == 0, f"{each.page.name}:{each.line}\n{done.stdout}\n{done.stderr}"


def test_the_page_of_settings_has_every_extra_and_variable() -> None:
    """By the names that they are installed and set by."""
    page = (ROOT / "docs" / "guides" / "settings.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in project["optional-dependencies"]:
        assert f"`{extra}`" in page, extra
    source = "".join(path.read_text() for path in (ROOT / "prodia_async").rglob("_*.py"))
    variables = set(re.findall(r'variable="([A-Z_]+)"', source))
    assert len(variables) == 4
    for variable in variables:
        assert f"`{variable}`" in page, variable


def test_the_changelog_is_about_this_version() -> None:
    """Its newest entry is."""
    heads = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0].rstrip(",") == __version__


@pytest.mark.parametrize("door", ["", ".batch", ".fireworks", ".testing"])
def test_every_error_is_on_the_page_of_errors(door: str) -> None:
    """What happened, and what to do; by the name that it is caught by."""
    module = importlib.import_module(f"prodia_async{door}")
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for name in module.__all__:
        thing = getattr(module, name)
        if isinstance(thing, type) and issubclass(thing, ProdiaError):
            assert f"`{name}`" in page, name


LINK = re.compile(r"\[[^\]]*\]\((?!https?://)([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    """Each relative link and picture is there."""
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
