"""What is read from a record and shown: figures, pages, progress, words."""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from prodia_async import AsyncProdia, InvalidRequestError, Job, JobRequest
from prodia_async.batch import (
    BadRow,
    Batch,
    BatchError,
    BatchJob,
    BatchPlan,
    BatchProgress,
    BatchRecord,
    BatchSummary,
    Figure,
    RecordDamagedError,
    grid,
    read_jobs,
)
from prodia_async.batch._decide import State
from prodia_async.batch._figures import Figures, advice, alike, causes, curve
from prodia_async.batch._outputs import relative, safe_ext
from prodia_async.batch._progress import PLAIN_SECONDS, Plain, bar, shower
from prodia_async.batch._record import is_kept, packed_id, unpacked_id
from prodia_async.batch._report import throughput_svg
from prodia_async.batch._values import dollars_text, seconds_text
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

SCHNELL = "inference.flux-fast.schnell.txt2img.v2"


@pytest.mark.parametrize(
    ("dollars", "text"),
    [(0, "$0.00"), (24.91, "$24.91"), (1234.5, "$1,234.50"), (0.0025, "$0.0025"),
     (0.02, "$0.02"), (0.125, "$0.125"), (0.00035, "$0.00035"), (0.999, "$0.999")],
)  # fmt: skip
def test_dollars_in_words(dollars: float, text: str) -> None:
    """Cents, or as many digits as it takes to see a small price."""
    assert dollars_text(dollars) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (59.4, "59 s"), (60, "1:00"), (761, "12:41"),
     (3600, "1:00:00"), (11232, "3:07:12"), (2 * 86400 + 3 * 3600 + 420, "2 d 03:07")],
)  # fmt: skip
def test_seconds_in_words(seconds: float, text: str) -> None:
    """As a clock shows them."""
    assert seconds_text(seconds) == text


def test_a_summary_in_words() -> None:
    """One line; what is not there is not said, but for failures and doubts."""
    summary = BatchSummary(
        done=9998, done_before=1204, failed=2, dollars=24.91, seconds=761, duplicates=3
    )
    assert str(summary) == "9,998 done (1,204 before), 2 failed, 0 in doubt, $24.91, 12:41"
    again = BatchSummary(done=4, dollars=0.01, doubtful_dollars=0.0025, paid_again=1)
    assert str(again) == "4 done, 0 failed, 0 in doubt, $0.01 (and perhaps $0.0025 in vain), 0.0 s"
    odd = BatchSummary(done=1, in_doubt=2, doubtful_dollars=0.005, left=3, stopped="SIGTERM")
    assert str(odd) == (
        "1 done, 0 failed, 2 in doubt (at most $0.005), 3 left, $0.00, 0.0 s; stopped: SIGTERM"
    )


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, 0), ({"failed": 1}, 1), ({"in_doubt": 1}, 1), ({"left": 1, "failed": 1}, 2),
        ({"stopped": "x"}, 2), ({"broken": "x", "stopped": "y", "failed": 1}, 3),
    ],
)  # fmt: skip
def test_exit_codes(given: dict[str, Any], code: int) -> None:
    """The worst counts."""
    assert BatchSummary(**given).exit_code == code


def test_a_plan_in_words() -> None:
    """Rows, money and time with how sure they are, and what is wrong, by its lines."""
    plan = BatchPlan(
        rows=30, invalid=tuple(BadRow(n, "why") for n in range(12)), invalid_count=15,
        duplicates=1, done=2, failed_before=3, in_doubt=4, to_run=5,
        dollars=Figure(0.0125, "estimated"), seconds=Figure(None, "unknown"),
        samples=("{}",), differences=("type was 'a' and is 'b'",),
    )  # fmt: skip
    text = str(plan)
    assert text.startswith("30 rows: 5 to run, 2 done already, 1 duplicate, 15 invalid\n")
    assert "before: 3 failed, 4 in doubt" in text
    assert "cost: $0.013 (estimated)" in text or "cost: $0.012 (estimated)" in text
    assert "time: unknown" in text
    assert "line 9: why\nand 5 more invalid rows" in text
    assert "different: type was" in text
    assert plan._repr_html_().startswith("<pre>30 rows")


def progress(**given: Any) -> BatchProgress:
    known = {
        "done": 50, "failed": 1, "in_doubt": 0, "total": 200, "in_flight": 7,
        "jobs_per_second": 12.5, "refusals_per_second": 0.0, "dollars": 0.125,
        "projected_dollars": 0.5, "seconds": 4.0, "seconds_left": 12.0,
    }  # fmt: skip
    return BatchProgress(**{**known, **given})


def test_progress_in_words() -> None:
    """What is known, and no more."""
    assert str(progress()) == (
        "50/200 done, 12.5/s, 7 in flight, 1 failed, $0.125 of about $0.50, 12 s left"
    ) or str(progress()).startswith("50/200 done, 12.5/s, 7 in flight, 1 failed, $0.125 of about")
    bare = progress(total=None, projected_dollars=None, seconds_left=None, refusals_per_second=2.0)
    assert str(bare) == "50 done, 12.5/s, 7 in flight, 2 refused/s, 1 failed, $0.125"
    last = progress(is_last=True, in_doubt=2, waiting_for="ending: SIGTERM")
    assert "left" not in str(last)
    assert str(last).endswith("ending: SIGTERM")
    assert 'value="51" max="200"' in bar(progress())
    assert "max=" not in bar(progress(total=None))


def test_plain_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    """One each quarter of a minute, and one at the end of a run that was longer."""
    now = 0.0
    plain = Plain(clock=lambda: now)
    for tick in range(200):
        now = tick * 0.25
        plain(progress())
    assert capsys.readouterr().err.count("\n") == int(199 * 0.25 / PLAIN_SECONDS)
    plain(progress(is_last=True, seconds=PLAIN_SECONDS - 1))
    assert capsys.readouterr().err == ""
    plain(progress(is_last=True, seconds=50.0))
    assert capsys.readouterr().err.count("\n") == 1
    for _ in range(9):
        plain(progress(waiting_for="ending: SIGINT"))
    assert capsys.readouterr().err.count("ending: SIGINT\n") == 1
    for why in ("the API is asked", "the API is asked", "a busy server", "the API is asked"):
        plain(progress(waiting_for=why))
    assert capsys.readouterr().err.count("the API is asked\n") == 2


def test_who_shows_what(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing, a function, or what fits the place: here, no terminal."""
    assert shower(False)[0] is None
    assert shower(print)[0] is print
    show, end = shower(None)
    assert isinstance(show, Plain)
    end()
    del capsys


def test_a_live_line_in_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the side of the errors, for the output may go into a file; without rich it is plain."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    show, end = shower(None)
    assert show is not None
    show(progress())
    end()
    told = capsys.readouterr()
    assert "50/200 done" in told.err
    assert told.out == ""
    monkeypatch.setitem(sys.modules, "rich.live", None)
    assert isinstance(shower(None)[0], Plain)


def test_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """One, that is drawn anew in its place."""
    drawn: list[str] = []

    class ZMQInteractiveShell:
        pass

    class Handle:
        def update(self, html: Any) -> None:
            drawn.append(f"anew {html.data}")

    def display(html: Any, *, display_id: bool) -> Handle:
        assert display_id
        drawn.append(html.data)
        return Handle()

    monkeypatch.setattr("IPython.get_ipython", ZMQInteractiveShell)
    monkeypatch.setattr("IPython.display.display", display)
    show, end = shower(None)
    assert show is not None
    show(progress())
    show(progress(done=60))
    end()
    assert drawn == [bar(progress()), f"anew {bar(progress(done=60))}"]


# Figures.


def test_a_curve_of_rates() -> None:
    """From counts once a second; a second run goes on where the first ended; gaps are spread."""
    samples = [
        (1, 0, 0, 0),
        (1, 1, 10, 1),
        (1, 2, 30, 1),
        (1, 6, 70, 5),
        (2, 0, 0, 0),
        (2, 1, 5, 0),
    ]
    points, breaks, refusals = curve(samples)
    assert refusals == 5
    assert breaks == [7.0]
    done = [rate for _, rate, _ in points]
    assert done[:6] == [10, 20, 10, 10, 10, 10]
    assert sum(done) == pytest.approx(75)
    assert curve([]) == ([], [], 0)
    assert curve([(1, 0, 0, 0)])[0] == []
    long = [(1, t, 2 * t, 0) for t in range(100_000)]
    points, _, _ = curve(long)
    assert 300 < len(points) <= 400
    assert [rate for _, rate, _ in points[:-1]] == pytest.approx(
        [2.0] * (len(points) - 1), rel=0.01
    )


def test_percentiles() -> None:
    """Of jobs, not of distinct times."""
    found = Figures([(1.0, 50), (2.0, 45), (9.0, 5)], [], [], [], 0, [], 0)
    assert [found.percentile(share) for share in (0.0, 0.5, 0.51, 0.95, 0.99, 1.0)] == [
        1.0, 1.0, 2.0, 2.0, 9.0, 9.0,
    ]  # fmt: skip
    assert Figures([], [], [], [], 0, [], 0).percentile(0.5) is None


def test_failures_are_grouped_by_cause() -> None:
    """Numbers, ids and quoted words differ from row to row, and are no causes."""
    errors: list[tuple[int, int, str | None]] = [
        (n, State.FAILED, f"BadRequestError: 400: row {n} says 'x{n}' is too long ({n}.5 s)")
        for n in range(30)
    ]
    errors.append((99, State.IN_DOUBT, None))
    errors += [(n, State.FAILED, f"E{'x' * (n - 200)}: unlike") for n in range(200, 220)]
    listed, others = causes(errors)
    assert (listed[0].count, listed[0].row, listed[0].is_doubt) == (30, 0, False)
    assert listed[0].example == errors[0][2]
    assert len(listed) == 12
    assert sum(cause.count for cause in listed) + others == len(errors)
    many, others = causes(
        (n, State.FAILED, f"{'a' * (n % 150)}{'b' * (n // 150)}") for n in range(3000)
    )
    assert sum(cause.count for cause in many) + others == 3000
    assert alike("job 11111111-2222-4333-8444-555555555555 took 3.5 s") == "job … took … s"
    assert "Mend the file" in advice("Invalid: line 3: no")
    assert "--retry-failed" in advice("SomethingNew: x")


def test_names_and_ids() -> None:
    """Two levels of folders; extensions that are some; a UUID in 16 bytes, any other as it is."""
    key = bytes(range(16))
    assert relative(12_345_678, key, "jpg") == "123/45/12345678-00010203.jpg"
    assert relative(7, key, "", 2) == "000/00/00000007-00010203-3"
    assert [safe_ext(each) for each in (".JPG", "", "../x", ".toolongext", ".mp4")] == [
        "jpg", "bin", "bin", "bin", "mp4",
    ]  # fmt: skip
    uuid = "11111111-2222-4333-8444-555555555555"
    packed = packed_id(uuid)
    assert isinstance(packed, bytes)
    assert unpacked_id(packed) == uuid
    for other in (None, "x", uuid.upper().replace("1", "A"), "z" * 36, uuid.replace("-", "0")):
        assert unpacked_id(packed_id(other)) == other
    assert is_kept(19_999, State.DONE)
    assert is_kept(20_032, State.DONE)
    assert not is_kept(20_033, State.DONE)
    assert is_kept(20_033, State.FAILED)


# Pages.


class Page(HTMLParser):
    """Checks that what is opened is closed, and collects what a page refers to."""

    VOID = frozenset({"meta", "img", "br", "path", "use", "rect", "link", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in {"href", "src"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


async def made(folder: Path, jobs: Any) -> BatchRecord:
    with Emulator() as api:
        async with AsyncProdia("any", base_url=api.base_url) as client:
            async with Batch(folder, client, progress=False) as batch:
                await batch.run(jobs)
                return batch.record


JOB: dict[str, Any] = {"type": SCHNELL, "config": {"width": 256, "height": 256}}


async def test_a_page_needs_nothing_beside_it(tmp_path: Path) -> None:
    """No script, no address but the files of the run; hostile prompts are text."""
    hostile = '<script>alert(1)</script> & "quotes" \''
    jobs = [
        *grid(JOB, prompt=[hostile, "a fox"], seed=range(3)),
        {**JOB, "config": {"prompt": "x [fail]"}},
    ]
    record = await made(tmp_path / "run", jobs)
    text = record.write_report().read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "&lt;script&gt;" in text
    outside = [link for link in page.links if not link.startswith(("data:image/", "out/", "#"))]
    assert outside == []
    files = {link for link in page.links if link.startswith("out/")}
    assert len(files) == 6
    assert all((tmp_path / "run" / link).is_file() for link in files)
    assert "JobRefusedError: 400" in text
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"#0[0-9]0[0-9]0[0-9]\b", text), "a colour of the plots was not replaced"
    elsewhere = record.write_report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "run/out/000" in elsewhere


async def test_a_page_says_what_is_so(tmp_path: Path) -> None:
    """One is no plural; what is in doubt was not paid twice; a file that is gone is no link."""
    with Emulator() as api:
        api.drop_next(1, at="sent")
        jobs = [{**JOB, "config": {**JOB["config"], "prompt": "a fox", "seed": n}} for n in (1, 2)]
        await batched(tmp_path / "run", api, [*jobs, jobs[1]], on_doubt="hold")
    record = BatchRecord(tmp_path / "run")
    assert record.summary().paid_again == 0
    text = record.write_report().read_text(encoding="utf-8")
    assert "perhaps paid twice" not in text
    assert "What was made" in text
    assert "0 failed, 1 in doubt, 1 duplicate<" in text
    assert "<b>2 <small>/ 3</small></b>" in text
    assert "unless --on-doubt hold." in text
    assert "refused a second" not in text
    assert len(Page(text).links) == 2
    (path,) = (tmp_path / "run").rglob("*.jpg")
    path.unlink()
    text = record.write_report().read_text(encoding="utf-8")
    assert Page(text).links == []
    assert '<span class="none">row 1</span>' in text
    assert record.verify().missing == (1,)


def test_the_plots_can_be_read_on_a_telephone() -> None:
    """A narrow one stands in the place of a wide one, and they share no names."""
    found = Figures([(1.0, 3)], [(0.0, 1.0, 0.5), (1.0, 2.0, 0.0)], [], [], 0, [], 1)
    wide, narrow = throughput_svg(found), throughput_svg(found, width=4.2)
    widths = [float(re.search(r'viewBox="0 0 ([0-9.]+)', svg)[1]) for svg in (wide, narrow)]  # type: ignore[index]
    assert widths[0] > 440
    assert widths[1] < 320
    names = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (wide, narrow)]
    referred = [set(re.findall(r"url\(#([^)]+)\)", svg)) for svg in (wide, narrow)]
    assert referred[0] <= names[0]
    assert not referred[0] & referred[1]


async def test_a_grid_shows_itself(tmp_path: Path) -> None:
    """Rows by one setting, columns by another; failures stand in their cells."""
    jobs = grid(JOB, prompt=["a fox", "a wolf [fail]"], seed=range(3))
    record = await made(tmp_path / "run", jobs)
    table = record.grid(rows="prompt", columns="seed")
    page = Page(str(table))
    assert len(page.links) == 3
    assert str(table).count("<tr>") == 3
    assert str(table).count("failed") >= 3
    assert table._repr_html_() == str(table)
    assert record._repr_html_().count("<img") == 3
    assert str(record).startswith("3 done, 3 failed")


async def test_a_manifest_in_every_form(tmp_path: Path) -> None:
    """JSON lines, CSV and Parquet say the same; another ending is refused."""
    import csv

    import pyarrow.parquet as pq

    record = await made(tmp_path / "run", grid(JOB, prompt=['a, "b"\n', "ü"], seed=range(2)))
    for name in ("m.jsonl", "m.csv", "m.parquet"):
        assert record.export(tmp_path / name) == 4
    text = (tmp_path / "m.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    with (tmp_path / "m.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    table = pq.read_table(tmp_path / "m.parquet").to_pylist()
    for line, cell, row in zip(lines, cells, table, strict=True):
        assert line["sha256"] == cell["sha256"] == row["sha256"]
        assert line["prompt"] == cell["prompt"] == row["prompt"]
        assert line["seed"] == int(cell["seed"]) == row["seed"]
        assert line["dollars"] == row["dollars"] == 0.0025
    with pytest.raises(InvalidRequestError, match=r"ends in \.jsonl, \.csv, \.parquet"):
        record.export(tmp_path / "m.xlsx")
    with pytest.raises(InvalidRequestError, match="as JSON lines"):
        record.export(tmp_path / "failures.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "m.csv",
        "m.jsonl",
        "m.parquet",
        "run",
    ]


async def batched(folder: Path, api: Emulator, jobs: Any, **options: Any) -> BatchSummary:
    async with AsyncProdia("any", base_url=api.base_url) as client:
        async with Batch(folder, client, progress=False, **options) as batch:
            return await batch.run(jobs)


def failures(record: BatchRecord, path: Path) -> list[dict[str, Any]]:
    record.export(path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
async def test_rows_that_were_no_jobs_are_mended_and_run(tmp_path: Path, form: str) -> None:
    """With line and reason; what held for all rows stands beside each, which keeps its place."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = [
        {"animal": "fox", "place": "snow", "seed": 1, "input": None},
        {"animal": "", "place": "sea", "seed": 2, "input": None},
        {"animal": "cat", "place": "hill", "seed": 3, "input": "gone.png"},
    ]
    path = tmp_path / f"jobs.{form}"
    if form == "csv":
        header = "animal,place,seed,input\n"
        path.write_text(f"{header}fox,snow,1,\n,sea,2,\ncat,hill,3,gone.png\n", encoding="utf-8")
    elif form == "jsonl":
        path.write_text("\n".join([*map(json.dumps, rows), "no json"]), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    config = {"prompt": "a {animal} in {place}", "width": 256, "height": 256}
    folder = tmp_path / "run"
    with Emulator() as api:
        first = await batched(folder, api, read_jobs(path, job_type=SCHNELL, config=config))
        bad = 3 if form == "jsonl" else 2
        assert (first.done, first.failed) == (1, bad)
        record = BatchRecord(folder)
        told = list(record.failures())
        line = 2 + (form == "csv")
        why = "{animal} is to be filled in, and the row has no animal"
        assert told[0].error == f"Invalid: line {line}: {why}"
        mended = tmp_path / "elsewhere" / "failures.jsonl"
        lines = failures(record, mended)
        assert [each["_failed"]["line"] for each in lines] == list(range(line, line + bad))
        assert (lines[0]["_failed"]["error"], lines[0]["place"]) == (why, "sea")
        assert record.export(tmp_path / "m.csv") == 1 + bad

        # As they stand, nothing is sent, and none is counted twice.
        for _ in range(2):
            again = await batched(folder, api, read_jobs(mended))
            assert (again.done, again.failed, again.notes[0]) == (0, bad, f"line 1: {why}")
            found = record.summary()
            assert (found.done, found.failed) == (1, bad)
            lines = failures(record, mended)
        assert api.ledger.totals().received == 1

        lines[0]["animal"] = "owl"
        lines[1]["input"] = None
        mended.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        last = await batched(folder, api, read_jobs(mended))
        assert (last.done, last.failed) == (2, bad - 2), last.notes
        found = record.summary()
        assert (found.done, found.failed, found.duplicates) == (3, bad - 2, 0)
        sent = {each.config["seed"]: each.config["prompt"] for each in api.ledger if each.config}
        assert sent == {1: "a fox in snow", 2: "a owl in sea", 3: "a cat in hill"}
        assert api.ledger.totals().charged == 3


async def test_a_row_that_is_mended_to_be_equal_to_another(tmp_path: Path) -> None:
    """Shares what that made, and is no failure any more."""
    with Emulator() as api:
        rows = [json.dumps({**JOB["config"], "prompt": each}) for each in ("a", "", "b")]
        (tmp_path / "jobs.jsonl").write_text("\n".join(rows), encoding="utf-8")
        jobs = read_jobs(tmp_path / "jobs.jsonl", job_type=SCHNELL)
        assert (await batched(tmp_path / "run", api, jobs)).failed == 1
        record = BatchRecord(tmp_path / "run")
        path = tmp_path / "failures.jsonl"
        (line,) = failures(record, path)
        path.write_text(json.dumps(line | {"prompt": "b"}), encoding="utf-8")
        assert (await batched(tmp_path / "run", api, read_jobs(path))).done == 1
        found = record.summary()
        assert (found.done, found.failed, found.duplicates) == (3, 0, 1)
        assert [row.state for row in record.rows()] == ["done", "duplicate", "done"]
        assert api.ledger.totals().charged == 2


async def test_what_failed_is_read_with_the_options_of_the_first_time(tmp_path: Path) -> None:
    """A prompt that was filled in is not filled in once more; what is wrong is told in its line."""
    (tmp_path / "jobs.csv").write_text("animal\nfox\nfox [fail]\n", encoding="utf-8")
    options: dict[str, Any] = {
        "job_type": SCHNELL,
        "config": {"prompt": "a {animal}", "width": 256, "height": 256},
    }
    with Emulator() as api:
        await batched(tmp_path / "run", api, read_jobs(tmp_path / "jobs.csv", **options))
        path = tmp_path / "failures.jsonl"
        (line,) = failures(BatchRecord(tmp_path / "run"), path)
        assert line["config"]["prompt"] == "a fox [fail]"
        assert line["_failed"]["row"] == 1
        assert line["_failed"]["error"].startswith("JobRefusedError: 400")
        told = await batched(tmp_path / "run", api, read_jobs(path, **options), retry_failed=True)
        assert (told.failed, api.ledger.totals().received) == (1, 3)


async def test_items_of_a_program_that_are_no_jobs(tmp_path: Path) -> None:
    """As lines too, where they can be written as one."""
    jobs: list[Any] = [
        {"typ": "x"}, 3, BatchJob({"type": ""}, id="b"), "x" * 100_000,
        JobRequest(Job(SCHNELL, {"prompt": "a"}), [tmp_path / "gone.png"], accept="image/png"),
        {"type": "", "config": {"prompt": "y" * 100_000}},
    ]  # fmt: skip
    record = await made(tmp_path / "run", jobs)
    lines = failures(record, tmp_path / "failures.jsonl")
    for line in lines:
        assert line.pop("_failed")["error"]
    assert lines == [
        {"typ": "x"}, {}, {"type": "", "id": "b"}, {},
        {"type": SCHNELL, "config": {"prompt": "a"}, "inputs": [str(tmp_path / "gone.png")],
         "accept": "image/png"}, {},
    ]  # fmt: skip


async def test_a_record_of_nothing(tmp_path: Path) -> None:
    """A run without rows has a page; it has no picture; and no folder is no record."""
    record = await made(tmp_path / "run", [])
    assert Page(record.write_report().read_text(encoding="utf-8")).links == []
    with pytest.raises(BatchError, match="no picture"):
        record.contact_sheet()
    assert list(record.rows()) == []
    with pytest.raises(RecordDamagedError, match="holds no record"):
        BatchRecord(tmp_path)


async def test_a_record_is_read_while_it_is_written(tmp_path: Path) -> None:
    """Rows under way are in flight, and the page says that it runs."""
    with Emulator(workers=4) as api:
        async with AsyncProdia("any", base_url=api.base_url, max_concurrency=4) as client:
            seen: list[BatchSummary] = []
            async with Batch(tmp_path / "run", client, progress=lambda _: look()) as batch:

                def look() -> None:
                    record = batch.record
                    seen.append(record.summary())
                    states = {row.state for row in record.rows()}
                    assert states <= {"done", "in flight"}
                    assert record.is_running()

                await batch.run(grid(JOB, prompt=["a fox"], seed=range(30)))
            assert seen
            assert batch.record.summary().done == 30
            assert not batch.record.is_running()


def finish_one(folder: Path) -> None:
    """Have one more row end, as a run that goes on does while somebody reads."""
    with sqlite3.connect(folder / "run.sqlite") as connection:
        names = [
            name for _, name, *_ in connection.execute("PRAGMA table_info(job)") if name != "i"
        ]
        columns = ",".join(names)
        connection.execute(
            f"INSERT INTO job(i, {columns}) SELECT (SELECT max(i) FROM job) + 1, {columns} "
            "FROM job WHERE state=2 ORDER BY i LIMIT 1"
        )
        i, k = connection.execute("SELECT i, k FROM job ORDER BY i").fetchone()
        connection.execute(
            "INSERT INTO output(i, n, path) SELECT max(i), 0, ? FROM job", (relative(i, k, "jpg"),)
        )
    connection.close()


@pytest.mark.parametrize("place", ["money", "_is_alive", "figures", "evenly", "extremes"])
async def test_what_is_shown_is_of_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A row that ends while a page is written is on all of it or on nothing of it."""
    from prodia_async.batch import _report, _snapshot

    folder = tmp_path / "run"
    record = await made(folder, grid(JOB, prompt=["a fox"], seed=range(6)))
    owner: Any = _snapshot if hasattr(_snapshot, place) else _report
    call = getattr(owner, place)

    def meanwhile(*args: Any) -> Any:
        finish_one(folder)
        return call(*args)

    monkeypatch.setattr(owner, place, meanwhile)
    page = record.write_report().read_text(encoding="utf-8")
    count = 7 if place == "_is_alive" else 6  # which is asked before the moment
    assert f"<b>{count} <small>/ {count}</small></b>" in page
    assert page.count('src="data:image/webp') == count
    assert f"All {count} " in page
    shown = record._repr_html_()
    assert f": {shown.count('<img')} done" in shown


def test_a_row_that_ends_while_rows_are_read_is_read_once(tmp_path: Path) -> None:
    """As it was when the first was read: neither twice nor not at all."""
    from prodia_async.batch._record import Finish, Record

    record = Record(tmp_path / "run.sqlite", notify=lambda *_: None)
    connection = record.connection
    connection.execute("INSERT INTO session(s, began, settings) VALUES(1, 0, '{}')")
    for i in range(4):
        connection.execute(
            "INSERT INTO open(i, k, type, again, sent, request) VALUES(?,?,'a',0,1.0,'{}')",
            (i, bytes([i]) * 16),
        )
    record.finish(connection, Finish(0, bytes(16), State.DONE, None, 1, "a"))
    rows = BatchRecord(tmp_path).rows()
    first = next(rows)
    record.finish(connection, Finish(1, bytes([1]) * 16, State.DONE, None, 1, "a"))
    assert [(row.row, row.state) for row in (first, *rows)] == [
        (0, "done"), (1, "in doubt"), (2, "in doubt"), (3, "in doubt"),
    ]  # fmt: skip
    again = [(row.row, row.state) for row in BatchRecord(tmp_path).rows()]
    assert again[:2] == [(0, "done"), (1, "done")]
    record.close()


def test_a_record_with_a_row_that_is_damaged(tmp_path: Path) -> None:
    """What cannot be read is an error of ours, never a wrong row."""
    from prodia_async.batch._record import Record

    record = Record(tmp_path / "run.sqlite", notify=lambda *_: None)
    record.close()
    with sqlite3.connect(tmp_path / "run.sqlite") as connection:
        connection.execute("INSERT INTO run VALUES('made with', '{')")
    connection.close()
    with pytest.raises(RecordDamagedError):
        list(BatchRecord(tmp_path).rows())


def test_a_run_that_begins_between_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies beside the record is of the run that the record knows of."""
    from prodia_async.batch import _snapshot
    from prodia_async.batch._record import Record, put

    record = Record(tmp_path / "run.sqlite", notify=lambda *_: None)
    put(record.connection, "lease", {"token": "old"})
    looks: list[str] = []

    def begin(folder: Path) -> dict[int, Any]:
        looks.append(folder.name)
        put(record.connection, "lease", {"token": "new", "released": True})
        return {}

    monkeypatch.setattr(_snapshot, "marks_of", begin)
    assert list(BatchRecord(tmp_path).rows()) == []
    assert len(looks) == 2
    record.close()
