"""What shows itself in a notebook, the grid that fills in, and the example notebook."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import nbclient
import nbformat
import pytest
from browser import chromium, needs_chromium
from nbconvert import HTMLExporter

from prodia_async import (
    AsyncProdia,
    CapacityError,
    InvalidRequestError,
    Job,
    JobRequest,
    JobResponse,
    JobResult,
    Output,
    Price,
    Timing,
    _grid,
    _notebook,
)
from prodia_async._models import Failed, Raised, Succeeded
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from prodia_async import JobOutcome
    from prodia_async.testing import ProdiaFixture

NOTEBOOK = Path(__file__).parent.parent / "examples" / "notebook.ipynb"
TYPE = "inference.flux-fast.schnell.txt2img.v2"
JOB = Job(TYPE, {"prompt": "a cat"})


def response(*outputs: Output, **job: Any) -> JobResponse:
    timing = Timing(0.0, 0.0, 1.0, 1.25)
    return JobResponse(JobResult(**job), outputs, "r", (), timing)


PICTURE = Output(b"<png>", "image/png")
PAID = {"config": {"seed": 7}, "price": Price(dollars=0.0025)}


@pytest.mark.parametrize(
    ("kind", "keys", "html"),
    [
        ("image/png", {"image/png"}, None),
        ("image/jpeg; x=y", {"image/jpeg"}, None),
        ("image/webp", {"image/webp", "text/html"}, "<img"),
        ("image/avif", {"text/html"}, "<img"),
        ("image/svg+xml", {"image/svg+xml", "text/html"}, "<img"),
        ("video/mp4", {"text/html"}, "width:480px"),
        ("audio/wav", {"text/html"}, "<audio"),
        ("text/html", set(), None),
        ("application/zip", set(), None),
    ],
)
def test_the_forms_of_an_output(kind: str, keys: set[str], html: str | None) -> None:
    """What exports cannot show has a twin in HTML; a film is of a size that one can see."""
    bundle = Output(b"<b>", kind)._repr_mimebundle_()
    assert set(bundle) == {"text/plain"} | keys
    if html is not None:
        assert html in str(bundle["text/html"])


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/zip"])
def test_what_is_no_picture_is_no_markup(kind: str) -> None:
    """It is escaped, or only counted."""
    html = _notebook.media_html(Output(b"<script>", kind))
    assert "<script" not in html
    assert ("&lt;script&gt;" in html) == (kind != "application/zip")


def test_a_response_shows_itself() -> None:
    """Every output, and below them seed, dollars and seconds."""
    bundle = response(PICTURE, Output(b"", "video/mp4"), **PAID)._repr_mimebundle_()
    html = str(bundle["text/html"])
    assert html.count("<img") == html.count("<video") == 1
    assert "seed 7 · $0.0025 · 1.25 s" in html
    bare = JobResponse(None, (), None, (), Timing(0, 0, 0, 0.5))
    assert "no outputs" in str(bare._repr_mimebundle_()["text/html"])
    cached = SimpleNamespace(outputs=(), cached=True)
    assert ">from the cache<" in _notebook.caption(cached)
    assert _notebook.caption(SimpleNamespace()) == ""


def test_an_outcome_shows_itself() -> None:
    """The answer, or the error and whether it may have been paid for."""
    good = Succeeded(3, JobRequest(JOB), response(PICTURE))
    assert "#3 · 1.25 s" in str(good._repr_mimebundle_()["text/html"])
    error = CapacityError("<busy>", status_code=429)
    html = str(
        Failed(4, JobRequest(JOB), None, cast("Raised", error))._repr_mimebundle_()["text/html"]
    )
    assert "#4: CapacityError" in html
    assert "&lt;busy&gt;" in html
    assert "ValueError" in _notebook.error_html(ValueError("x"))


class Hostile(Exception):  # noqa: N818  (a tag as well as an error)
    """What somebody tags a job with, or raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


def test_an_outcome_shows_itself_whatever_its_tag() -> None:
    """The answer was paid for: neither a tag nor an error that cannot be shown hides it."""
    good = Succeeded(3, JobRequest(JOB, tag=Hostile()), response(PICTURE), tag=Hostile())
    shown = good._repr_mimebundle_()
    assert "<img" in str(shown["text/html"])
    assert "tag=<Hostile instance at" in str(shown["text/plain"])
    bad = Failed(4, JobRequest(JOB), None, cast("Raised", Hostile()), tag=Hostile())
    shown = bad._repr_mimebundle_()
    assert "#4: Hostile" in str(shown["text/html"])
    assert "error=<Hostile instance at" in str(shown["text/plain"])
    assert "#4: Hostile" in str(_notebook.list_html([good, bad]))


def test_lists_show_themselves() -> None:
    """Answers, outcomes and outputs beside each other; no other list is touched."""
    good = Succeeded(0, JobRequest(JOB), response(PICTURE, **PAID))
    bad = Failed(1, JobRequest(JOB), None, cast("Raised", ValueError("x")))
    html = _notebook.list_html([good, bad])
    assert html is not None
    assert "2 · 1 failed · $0.0025" in html
    assert (_notebook.list_html([response(PICTURE)]) or "").count("<img") == 1
    assert (_notebook.list_html([PICTURE] * 70) or "").count("<img") == _notebook.MAX_SHOWN
    assert "70 · the first 60 are shown" in (_notebook.list_html([PICTURE] * 70) or "")
    others: list[list[Any]] = [[], [1], [PICTURE, 1], [JOB], [SimpleNamespace(outputs=())]]
    for other in others:
        assert _notebook.list_html(other) is None


def test_lists_are_told_to_a_notebook_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first client that is made there."""
    told: dict[type, object] = {}
    html = SimpleNamespace(for_type=told.__setitem__)
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters={"text/html": html}))
    fake = ModuleType("IPython")
    fake.get_ipython = lambda: shell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", fake)
    AsyncProdia("token")
    assert told == {list: _notebook.list_html}
    fake.get_ipython = lambda: None  # type: ignore[attr-defined]
    _notebook.show_lists()
    monkeypatch.delitem(sys.modules, "IPython")
    _notebook.show_lists()


async def test_statistics_and_async_jobs_show_themselves(prodia: ProdiaFixture) -> None:
    """As tables; an async job says how to pick it up."""
    job = await prodia.client.submit(JOB)
    html = job._repr_html_()
    assert f"client.async_job(&quot;{job.id}&quot;)" in html
    assert "kept until" in html
    assert "kept until" not in prodia.client.async_job("x")._repr_html_()
    await prodia.client.job(JOB)
    html = prodia.client.statistics()._repr_html_()
    assert "0 of 64" in html
    assert f"limit of {TYPE}" in html
    assert "cancelled" in html


async def test_a_grid(prodia: ProdiaFixture) -> None:
    """Every combination, failures in their cells, dollars summed; where nothing shows it too."""
    prodia.emulator.fail_jobs(1, "too dark", prompt="a dog")
    grid = await prodia.client.grid(
        JOB, rows={"prompt": ["a cat", "a dog"]}, columns={"seed": range(3)}, price=True
    )
    assert (grid.done, grid.failed) == (5, 1)
    assert repr(grid).startswith("<Grid 2 x 3: 5 of 6 done · 1 failed · $")
    assert grid.dollars == pytest.approx(5 * 0.0025)
    cell = grid[1, 2].request.job
    assert isinstance(cell, dict)
    assert cell["config"] == {"prompt": "a dog", "seed": 2}
    html = grid._repr_html_()
    assert html.count("<img") == 5
    assert "too dark" in html
    assert "prompt = a dog" in html
    single = await prodia.client.grid(JOB)
    assert (len(single.rows), len(single.columns), single.done) == (1, 1, 1)
    two = await prodia.client.grid(JOB, rows={"seed": [1, 2], "steps": [1, 2]})
    assert len(two.rows) == 4


@pytest.mark.parametrize(
    ("rows", "columns", "match"),
    [
        ([1], None, "rows must be like"),
        ({"prompt": "a cat"}, None, "'prompt' has 'a cat'"),
        ({"prompt": 5}, None, "'prompt' has 5"),
        (None, {"seed": []}, "columns must be like .* has no values"),
        ({"seed": range(5000)}, None, "at most 1000 rows"),
        ({"seed": range(50)}, {"steps": range(50)}, "at most 1000 cells, not 2500"),
    ],
)
async def test_what_is_no_grid(rows: Any, columns: Any, match: str) -> None:
    """It is refused before anything is sent."""
    async with AsyncProdia("token", base_url="http://127.0.0.1:9") as client:
        with pytest.raises(InvalidRequestError, match=match):
            await client.grid(JOB, rows=rows, columns=columns)


class Display:
    """IPython, as far as a grid needs it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.updates: list[str] = []
        fake, inner = ModuleType("IPython"), ModuleType("IPython.display")
        fake.get_ipython = lambda: self  # type: ignore[attr-defined]
        inner.display = self.display  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython", fake)
        monkeypatch.setitem(sys.modules, "IPython.display", inner)

    def display(self, grid: _grid.Grid, *, display_id: bool) -> Display:
        assert display_id
        return self

    def update(self, grid: _grid.Grid) -> None:
        self.updates.append(grid.summary())


async def test_a_grid_fills_in(prodia: ProdiaFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is renewed while jobs come, not for each of them."""
    shown = Display(monkeypatch)
    monkeypatch.setattr(_grid, "RENEW_SECONDS", 0.05)
    prodia.emulator.workers, prodia.emulator.latency = 2, 0.05
    await prodia.client.grid(JOB, rows={"seed": range(10)})
    assert 2 <= len(shown.updates) <= 10
    assert shown.updates[-1] == "10 of 10 done"


async def test_an_interrupted_grid_has_what_came(
    prodia: ProdiaFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lay unread then, while the table was drawn, is paid for: it is shown as well."""
    shown = Display(monkeypatch)
    drawn: list[JobOutcome] = []

    def add(self: _grid.Grid, outcome: JobOutcome) -> None:
        real(self, outcome)
        drawn.append(outcome)
        if len(drawn) == 1:
            raise KeyboardInterrupt

    real = _grid.Grid.add
    monkeypatch.setattr(_grid.Grid, "add", add)
    grid = _grid.Grid([{"seed": each} for each in range(5)], [{}])

    class Late:
        """Outcomes whose reader comes when all are here."""

        def __init__(self, outcomes: Any) -> None:
            self.outcomes = outcomes
            self.unread = outcomes.unread

        async def __aenter__(self) -> Any:
            await self.outcomes.__aenter__()
            while prodia.client.statistics().completed < 5:
                await asyncio.sleep(0.01)
            return self.outcomes

        async def __aexit__(self, *error: object) -> None:
            await self.outcomes.__aexit__(*error)

        def __aiter__(self) -> Any:
            return aiter(self.outcomes)

    with pytest.raises(KeyboardInterrupt):
        await _grid.fill(grid, Late(prodia.client.map([JOB] * 5)))  # type: ignore[arg-type]  # all of it that is used
    assert grid.done == len(drawn) == 5
    assert shown.updates[-1].startswith("5 of 5 done · interrupted: 0 not seen")


async def test_an_interrupted_grid(prodia: ProdiaFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps what it has, says what is missing, and frees its slots."""
    shown = Display(monkeypatch)
    prodia.emulator.hold()
    task = asyncio.create_task(prodia.client.grid(JOB, rows={"seed": range(10)}))
    while not prodia.client.statistics().in_flight:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shown.updates[-1].startswith("0 of 10 done · interrupted: 10 not seen")
    assert prodia.client.statistics().in_flight == 0
    prodia.emulator.release()


def run_notebook(notebook: Any, emulator: Emulator) -> Any:
    env = {**os.environ, "PRODIA_TOKEN": "t", "PRODIA_BASE_URL": emulator.base_url}
    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3")
    client.execute(env=env)
    return notebook


@pytest.fixture(scope="module")
def executed() -> Any:
    """Run the example by a real kernel."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with Emulator(workers=4, latency=0.1) as emulator:
        return run_notebook(notebook, emulator)


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(zmq|jupyter_client|traitlets)")


def test_the_example_notebook_runs(executed: Any) -> None:
    """Every cell, without an error; pictures, film, WebP, list and grid are in its outputs."""
    html = []
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", output
            html.append("".join(output.get("data", {}).get("text/html", "")))
    text = "".join(html)
    assert text.count("<img") >= 12
    assert "<video" in text
    assert "data:image/webp" in text
    assert "8 of 8 done" in text
    assert "seed 42" in text


def test_the_example_notebook_is_kept_without_outputs() -> None:
    """Pictures of the last run are nobody's to review."""
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@needs_chromium
async def test_the_exported_notebook_in_a_browser(executed: Any, tmp_path: Path) -> None:
    """Every picture and film in the exported HTML is one that a browser can show."""
    body, _ = HTMLExporter().from_notebook_node(executed)
    page_file = tmp_path / "notebook.html"
    page_file.write_text(body, encoding="utf-8")
    async with chromium() as browser:
        page = await browser.page()
        await page.size(1000, 1400)
        await page.open(page_file.as_uri())
        wide = "[...document.querySelectorAll('.jp-OutputArea img')].map(i => i.naturalWidth)"
        assert all(each > 0 for each in await page.run(wide))
        await page.until("document.querySelector('video').readyState >= 2")
        assert (
            await page.run("document.querySelector('video').getBoundingClientRect().width") >= 300
        )
        await page.picture(tmp_path / "notebook.png")
        # The names of a grid's rows are words, however narrow the page is.
        await page.size(500, 900)
        widths = "[...document.querySelectorAll('th > div')].map(each => each.offsetWidth)"
        assert await page.run(f"Math.min(...{widths})") >= 100


def test_progress_in_a_kernel() -> None:
    """A line that fills in, with what failed and what it cost; without ipywidgets no warning."""
    code = (
        "import prodia_async as p\n"
        f"jobs = [p.Job({TYPE!r}, {{'prompt': 'a cat', 'seed': n}}) for n in range(6)]\n"
        "async with p.AsyncProdia(price=True) as client:\n"
        "    async with client.map(jobs, progress=True) as outcomes:\n"
        "        async for _ in outcomes:\n"
        "            pass\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with Emulator(workers=3) as emulator:
        emulator.fail_next(2, 400)
        told = run_notebook(notebook, emulator).cells[0].outputs
    text = "".join(each.get("text", "") for each in told)
    assert "Warning" not in text
    assert "6/6, 2 failed, $0.01 [" in text.split("\r")[-1]


def test_an_interrupted_kernel() -> None:
    """A grid that is interrupted keeps what it has, and the kernel goes on."""
    code = (
        "import os, prodia_async as p\n"
        "client = p.AsyncProdia()\n"
        f"job = p.Job({TYPE!r}, {{'prompt': 'a cat'}})\n"
        "print('ready')\n"
    )
    cells = [
        nbformat.v4.new_code_cell(code),
        nbformat.v4.new_code_cell("await client.grid(job, rows={'seed': range(50)})"),
        nbformat.v4.new_code_cell("print(client.statistics().in_flight); await client.aclose()"),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with Emulator(workers=2, latency=0.2) as emulator:
        env = {**os.environ, "PRODIA_TOKEN": "t", "PRODIA_BASE_URL": emulator.base_url}
        client = nbclient.NotebookClient(notebook, timeout=60, allow_errors=True)

        def interrupt() -> None:
            emulator.ledger.wait_for(lambda totals: totals.ran >= 4, 30)
            os.kill(client.km.provisioner.pid, signal.SIGINT)  # type: ignore[union-attr]

        thread = threading.Thread(target=interrupt)
        thread.start()
        client.execute(env=env)
        thread.join()
        ran = emulator.ledger.totals().ran
    shown = [each for each in cells[1].outputs if each.output_type == "display_data"]
    assert "interrupted" in shown[0].data["text/html"]
    assert "<img" in shown[0].data["text/html"]
    assert cells[2].outputs[0].text.strip() == "0"
    assert ran < 15
