"""``batch``, ``report``, ``export``, ``verify`` as the processes that they are."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from processes import SCHNELL, TOKEN

from prodia_async._cli import run as cli_run
from prodia_async._cli._batch import _say
from prodia_async.batch import Batch, BatchSummary
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Here = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[2]
PROMPTS = ROOT / "examples" / "prompts.csv"
SMALL = ("-c", "width=256", "-c", "height=256")


@pytest.fixture(name="api", scope="module")
def _api() -> Iterator[Emulator]:
    with Emulator(tokens=[TOKEN], retry_after=0.1) as emulator:
        yield emulator


def run(api: Emulator, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "prodia_async", *map(str, arguments)],
        env=os.environ | variables(api) | {"PYTHONPATH": str(ROOT)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def variables(api: Emulator) -> dict[str, str]:
    return {"PRODIA_TOKEN": TOKEN, "PRODIA_BASE_URL": api.base_url}


@pytest.fixture(name="run_here")
def _run_here(
    api: Emulator, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Here:
    """Run it in this process, which saves a second each time."""
    for name, value in variables(api).items():
        monkeypatch.setenv(name, value)

    def run_it(*arguments: object) -> subprocess.CompletedProcess[str]:
        given = list(map(str, arguments))
        capfd.readouterr()
        status = cli_run(given)
        told = capfd.readouterr()
        return subprocess.CompletedProcess(given, status, told.out, told.err)

    return run_it


def test_a_csv_from_its_plan_to_its_report(api: Emulator, run_here: Here, tmp_path: Path) -> None:
    """Plan, run, go on, refuse other settings, report, export, verify and mend: one folder."""
    folder = tmp_path / "run"
    ask = ("batch", PROMPTS, "-o", folder, "--type", "flux-fast.schnell.txt2img.v2", *SMALL)
    api.ledger.clear()
    plan = run_here(*ask, "--accept", "webp", "--dry-run")
    assert plan.stdout.startswith("8 rows: 8 to run, 0 done already")
    assert "cost: $0.02 (estimated)" in plan.stdout
    assert (plan.returncode, api.ledger.totals().received) == (0, 0)
    assert not folder.exists()

    first = run(api, *ask, "--accept", "webp", "--max-cost", 25)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("8 done, 0 failed, 0 in doubt, $0.02")
    again = run_here("batch", "-o", folder)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("8 done (8 before)")

    other = run_here(*ask, "--accept", "png")
    assert other.returncode == 2
    assert "different: accept was 'image/webp' and is 'image/png'" in other.stderr
    assert "--also" in other.stderr
    assert api.ledger.totals().charged == 8

    report = run_here("report", folder, "--sheet")
    assert report.returncode == 0, report.stderr
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/webp') == 8
    assert "a harbour" not in page
    assert "a small harbour with red boats" in page
    assert "stopped" not in page
    with Image.open(folder / "contact-sheet.jpg") as sheet:
        assert sheet.format == "JPEG"

    assert run_here("export", folder, tmp_path / "all.csv").stdout.startswith("8 rows")
    with (tmp_path / "all.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows][:2] == ["strawberry", "lake"]
    files = [folder / row["path"] for row in rows]
    assert all(path.suffix == ".webp" and path.is_file() for path in files)
    assert run_here("verify", folder, "--hashes").returncode == 0
    files[3].unlink()
    files[5].write_bytes(b"x")
    found = run_here("verify", folder)
    assert (found.returncode, "1 missing, 1 damaged" in found.stdout) == (1, True)
    mended = run_here("batch", "-o", folder)
    assert mended.stdout.startswith("8 done (6 before)"), mended.stderr
    assert api.ledger.totals().charged == 10

    both = run_here(*ask, "--accept", "png", "--also")
    assert both.stdout.startswith("8 done, "), both.stderr
    assert api.ledger.totals().charged == 18
    assert TOKEN not in "".join(
        path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()
    )


def test_what_a_folder_remembers(
    run_here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each option gets to the batch, and whoever goes on need not say again what costs money."""
    given: list[dict[str, Any]] = []

    class Told(Batch):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            given.append(options)
            super().__init__(*arguments, **options)

    monkeypatch.setattr("prodia_async.batch.Batch", Told)
    (tmp_path / "one.txt").write_text("a cat\n")
    folder = tmp_path / "run"
    ask = ("batch", tmp_path / "one.txt", "-o", folder, "--type", SCHNELL, *SMALL)
    options = ("--submit", "sync", "--on-doubt", "hold", "--layout", "tar", "--max-cost", 2)
    told = run_here(*ask, *options, "--price-per-job", 0.5, "--retry-failed", "--also", "-q")
    assert told.returncode == 0, told.stderr
    kept = {
        "submit": "sync", "on_doubt": "hold", "layout": "tar", "max_cost": 2.0, "price": 0.5,
        "outputs": None,
    }  # fmt: skip
    once = {"retry_failed": True, "also": True, "progress": False}
    assert given.pop() == kept | once
    assert run_here("batch", "-o", folder).returncode == 0
    assert given.pop() == kept | {"retry_failed": False, "also": False, "progress": None}


def test_standard_input_is_kept_to_go_on_with(
    api: Emulator, run_here: Here, tmp_path: Path
) -> None:
    """A bad line fails alone, with its number; the failures go straight back in."""
    folder = tmp_path / "run"
    lines = '{"prompt": "a fox"}\nno json\n{"prompt": "", "id": "b"}\n{"prompt": "x [fail]"}\n'
    first = run(api, "batch", "-", "-o", folder, "--type", SCHNELL, *SMALL, stdin=lines)
    assert first.returncode == 1
    assert first.stdout.startswith("1 done, 3 failed")
    assert "line 2: it is no JSON" in first.stderr
    assert "line 3: no prompt" in first.stderr
    again = run_here("batch", "-o", folder)
    assert again.stdout.startswith("1 done (1 before), 3 failed")
    assert run_here("export", folder, folder / "failures.jsonl").stdout.startswith("3 rows in")
    lines_of = (folder / "failures.jsonl").read_text(encoding="utf-8").splitlines()
    unread, empty, failed = map(json.loads, lines_of)
    assert (unread["_failed"]["line"], unread["_failed"]["text"]) == (2, "no json")
    assert (empty["id"], empty["_failed"]["error"]) == ("b", "no prompt")
    assert failed["config"]["prompt"] == "x [fail]"
    before = api.ledger.totals().ran
    retried = run_here("batch", folder / "failures.jsonl", "-o", folder, "--retry-failed")
    assert retried.returncode == 1, retried.stderr
    assert "line 1: it could not be read, and has not been mended: it is no JSON" in retried.stderr
    assert retried.stdout.startswith("0 done, 3 failed")
    assert api.ledger.totals().ran == before + 1
    assert run_here("report", folder).stdout.startswith("1 done, 3 failed")
    mended = json.dumps(empty | {"prompt": "a bear"})
    (folder / "failures.jsonl").write_text(mended, encoding="utf-8")
    assert run_here("batch", folder / "failures.jsonl", "-o", folder).stdout.startswith("1 done")
    assert run_here("report", folder).stdout.startswith("2 done, 1 failed")


def test_standard_input_that_is_refused_takes_nothing_away(
    api: Emulator, run_here: Here, tmp_path: Path
) -> None:
    """Other jobs on standard input, for the same folder: what was there goes on, moved too."""
    folder = tmp_path / "run"
    ask = ("batch", "-", "-o", folder, "--type", SCHNELL, *SMALL)
    first = run(api, *ask, "--max-cost", 0.003, stdin="prompt,seed\na fox,1\na fox,2\n")
    assert first.stdout.startswith("1 done, 0 failed, 0 in doubt, 1 left"), first.stderr
    refused = run(api, *ask, stdin="prompt,seed\nan owl,1\nan owl,2\n")
    assert refused.returncode == 2
    assert "different: config.prompt was 'a fox' and is 'an owl'" in refused.stderr
    moved = folder.rename(tmp_path / "moved")
    again = run_here("batch", "-o", moved, "--max-cost", 1)
    assert again.stdout.startswith("2 done (1 before)"), again.stderr
    assert not list(moved.glob("*.part"))


def test_files_that_standard_input_names_are_those_of_the_working_folder(
    api: Emulator, tmp_path: Path
) -> None:
    """A path in a row is relative to where the command was given; when it goes on as well."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    rows = tmp_path / "rows.csv"
    rows.write_text("prompt,input\na fox,a.png\nan owl,a.png\n", encoding="utf-8")
    env = os.environ | variables(api) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "prodia_async", "batch", "-o", "run"]
    ask = [*command, "-", "-t", "flux-2.klein.4b.img2img.v1", "--max-cost", "0.003"]
    told = []
    for each, where in ((ask, tmp_path), ([*command, "--max-cost", "1"], tmp_path)):
        with rows.open("rb") as stdin:
            done = subprocess.run(
                each, cwd=where, env=env, stdin=stdin, capture_output=True, text=True, timeout=60,
                check=False,
            )  # fmt: skip
        told.append(done.stdout + done.stderr)
    assert told[0].startswith("1 done, 0 failed, 0 in doubt, 1 left"), told
    assert told[1].startswith("2 done (1 before), 0 failed"), told


def test_a_prompt_file_of_that_name_is_none_of_standard_input(
    api: Emulator, run_here: Here, tmp_path: Path
) -> None:
    """``input.txt`` elsewhere is a prompt a line, whatever its first line looks like."""
    prompts = tmp_path / "input.txt"
    prompts.write_text("prompt, painted\n{a brace\n", encoding="utf-8")
    done = run_here("batch", prompts, "-o", tmp_path / "run", "-t", SCHNELL, *SMALL)
    assert done.stdout.startswith("2 done, 0 failed"), done.stderr
    more = run_here("batch", "-o", tmp_path / "run", "-c", "steps=2", "--also", "--dry-run")
    assert '"width": 256' in more.stdout, "a setting on top of the folder's own"
    assert '"steps": 2' in more.stdout


def test_what_a_folder_is_made_with_cannot_be_added_to(
    api: Emulator, run_here: Here, tmp_path: Path
) -> None:
    """Another layout is no other job: ``--also`` would not help, so it is not advised."""
    prompts = tmp_path / "one.txt"
    prompts.write_text("a fox\n", encoding="utf-8")
    ask = ("batch", prompts, "-o", tmp_path / "run", "-t", SCHNELL, *SMALL)
    assert run_here(*ask).returncode == 0
    refused = run_here(*ask, "--layout", "tar")
    assert refused.returncode == 2
    assert "layout was 'files' and is 'tar'. Give what it was made with" in refused.stderr
    assert "--also" not in refused.stderr


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_the_status_tells_though_nobody_listens(api: Emulator, tmp_path: Path, closed: str) -> None:
    """A pipe that is closed, as by ``head``: all done is 0 and some failed is 1, all the same."""
    rows = tmp_path / "rows.csv"
    command = [sys.executable, "-W", "error", "-m", "prodia_async", "batch", str(rows), "-o",
               str(tmp_path / "run"), "-t", SCHNELL, *SMALL]  # fmt: skip
    for line, status, told in (("a,4", 0, "1 done, 0 failed"), ("a,4\nb,99", 1, "1 done (1 b")):
        rows.write_text(f"prompt,steps\n{line}\n", encoding="utf-8")
        read_end, write_end = os.pipe()
        os.close(read_end)
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        done = subprocess.run(
            command, env=os.environ | variables(api) | {"PYTHONPATH": str(ROOT)}, timeout=60,
            text=True, check=False, **{**pipes, closed: write_end},
        )  # fmt: skip
        os.close(write_end)
        assert done.returncode == status, done
        assert closed == "stdout" or done.stdout.startswith(told)
        assert "Traceback" not in (done.stderr or "")
        assert "Exception" not in (done.stderr or "")


def test_a_damaged_record_is_a_promise_that_cannot_be_kept(
    api: Emulator, run_here: Here, tmp_path: Path
) -> None:
    """Exit status 3, of every command on the folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.sqlite").write_bytes(b"no record at all" * 100)
    for command in (("batch", "-o", folder), ("report", folder), ("verify", folder)):
        done = run_here(*command)
        assert done.returncode == 3, command
        assert "is damaged" in done.stderr


def test_money_is_a_question_before_the_run(api: Emulator, run_here: Here, tmp_path: Path) -> None:
    """A price that nobody knows is asked for, not guessed; the limit is kept; 2 is work left."""
    file = tmp_path / "pings.jsonl"
    lines = (json.dumps({"config": {"n": n}}) for n in range(5))
    file.write_text("\n".join(lines), encoding="utf-8")
    new = ("batch", file, "-o", tmp_path / "run", "--type", "inference.brand-new.v1")
    refused = run_here(*new, "--max-cost", 1)
    assert refused.returncode == 2
    assert "--price-per-job" in refused.stderr
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"fox {n}" for n in range(10)), encoding="utf-8")
    folder = tmp_path / "foxes"
    ask = ("batch", prompts, "-o", folder, "--type", SCHNELL, *SMALL, "--max-cost", 0.01)
    first = run_here(*ask)
    assert first.returncode == 2
    assert first.stdout.startswith("4 done, 0 failed, 0 in doubt, 6 left, $0.01")
    assert "max_cost" in first.stdout
    more = run_here(*ask[:-1], 1)
    assert more.stdout.startswith("10 done (4 before)"), more.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("batch", "-o", "new"), 2, "needs a file of jobs"),
        (("batch", "missing.csv", "-o", "new"), 2, "there is no such file"),
        (("report", "."), 3, "holds no record"),
        (("export", ".", "x.jsonl"), 3, "holds no record"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run_here: Here, tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    """No traceback, and the status says whose fault it is."""
    done = run_here(*(tmp_path / each if each == "new" else each for each in arguments))
    assert done.returncode == status
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_short_name_and_a_format_as_job_takes_them(
    api: Emulator, run_here: Here, tmp_path: Path
) -> None:
    """A type by a part of its name, a setting that is text, a format with its quality."""
    prompts = tmp_path / "two.txt"
    prompts.write_text("7\na fox\n", encoding="utf-8")
    ask = ("batch", prompts, "-o", tmp_path / "run", "-t", "flux-fast.schnell", *SMALL)
    done = run(api, *ask, "--accept", "jpeg;quality=95", "-c", "style_preset=anime")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("2 done, 0 failed")
    asked = [each for each in api.ledger.records() if each.type == SCHNELL][-2:]
    assert {(each.config or {})["prompt"] for each in asked} == {"7", "a fox"}
    several = run_here(*ask[:4], "-t", "flux")
    assert "TYPE 'flux' is short for several" in several.stderr
    assert several.returncode == 2


def test_why_rows_failed_is_said(api: Emulator, tmp_path: Path) -> None:
    """What the failures have in common, how many there are, and what to do about it."""
    rows = tmp_path / "rows.csv"
    rows.write_text("prompt,steps\na,4\nb,99\nc,98\n", encoding="utf-8")
    done = run(api, "batch", rows, "-o", tmp_path / "run", "-t", SCHNELL, *SMALL)
    assert done.returncode == 1
    assert done.stdout.startswith("1 done, 2 failed")
    (line,) = done.stderr.splitlines()
    assert line.startswith("2 failed: JobRefusedError: 400 Bad Request: ")
    assert line.endswith("want 4. The server refuses it and did not run it. Mend the rows."), line
    strange = os.environ | variables(api) | {"PRODIA_TOKEN": "another"}
    ask = [sys.executable, "-m", "prodia_async", "batch", str(rows), "-o", "other", "-t", SCHNELL,
           "-c", "heigth=300"]  # fmt: skip
    refused = subprocess.run(
        ask, cwd=tmp_path, env=strange, capture_output=True, text=True, timeout=60, check=False
    )
    slip, left = refused.stderr.splitlines()
    assert slip.startswith("prodia-async: config.heigth is not known; did you mean height?")
    assert left == "prodia-async: 3 jobs left; `prodia-async batch -o other` goes on with it"
    assert "check the token (PRODIA_TOKEN)): give a valid one. " in refused.stdout


def test_a_plan_needs_no_account(tmp_path: Path) -> None:
    """It sends nothing."""
    (tmp_path / "one.txt").write_text("a fox\n", encoding="utf-8")
    ask = [sys.executable, "-m", "prodia_async", "batch", "one.txt", "-o", "run", "-t", SCHNELL,
           "--dry-run"]  # fmt: skip
    env = {name: value for name, value in os.environ.items() if "PRODIA" not in name}
    done = subprocess.run(
        ask, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.startswith("1 row: 1 to run, 0 done already, 0 duplicates")
    assert (done.returncode, done.stderr) == (0, "")


def test_prompts_without_a_type_are_one_line(api: Emulator, tmp_path: Path) -> None:
    """Nothing is made for them, so that giving the type is all there is to do."""
    prompts = tmp_path / "two.txt"
    prompts.write_text("a\nb\n", encoding="utf-8")
    done = run(api, "batch", prompts, "-o", tmp_path / "run")
    assert done.stderr == (
        f"prodia-async: --type is missing: a line of {prompts} is a prompt, and says no type\n"
    )
    assert (done.returncode, (tmp_path / "run").exists()) == (2, False)


def test_what_is_written_has_the_name_that_was_given(
    api: Emulator, run_here: Here, tmp_path: Path
) -> None:
    """Missing folders are made; what cannot be written is called as the user calls it."""
    prompts = tmp_path / "one.txt"
    prompts.write_text("a fox\n", encoding="utf-8")
    folder = tmp_path / "run"
    assert run(api, "batch", prompts, "-o", folder, "-t", SCHNELL, *SMALL).returncode == 0
    assert run_here("export", folder, tmp_path / "new" / "all.csv").stdout.startswith("1 row in")
    assert (tmp_path / "new" / "all.csv").exists()
    verified = run(api, "verify", folder)
    assert verified.stdout == "1 output is there and whole\n"
    (tmp_path / "report.html").mkdir()
    (tmp_path / "all.csv").mkdir()
    for command in (
        ("report", folder, "-o", tmp_path / "report.html"),
        ("export", folder, tmp_path / "all.csv"),
    ):
        done = run(api, *command)
        assert done.stderr == f"prodia-async: {command[-1]}: Is a directory\n"
        assert done.returncode == 1
    assert not list(tmp_path.glob(".*.part"))


def test_ctrl_c_says_what_a_second_one_does_and_then_how_to_go_on(tmp_path: Path) -> None:
    """While it ends, that another one ends it at once; when it has, only that it was stopped."""
    prompts = tmp_path / "nine.txt"
    prompts.write_text("\n".join("abcdefghi"), encoding="utf-8")
    with Emulator(tokens=[TOKEN], workers=1, latency=1.5) as slow:
        process = subprocess.Popen(
            [sys.executable, "-m", "prodia_async", "batch", str(prompts), "-o", "run", "-t",
             SCHNELL, *SMALL],
            cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"PRODIA_BASE_URL": slow.base_url, "PRODIA_TOKEN": TOKEN},
        )  # fmt: skip
        slow.ledger.wait_for(lambda totals: totals.received >= 1, timeout=30)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "ending: SIGINT; a second one stops at once" in said
    assert out.rstrip().endswith("; stopped: SIGINT")
    assert "`prodia-async batch -o run` goes on with it" in said


def test_a_progress_that_nobody_reads_ends_no_run(tmp_path: Path) -> None:
    """As with ``2>&1 | head -1``: what is on its way comes home, and is kept."""
    prompts = tmp_path / "nine.txt"
    prompts.write_text("\n".join("abcdefghi"), encoding="utf-8")
    reader, writer = os.pipe()
    os.close(reader)
    with Emulator(tokens=[TOKEN], workers=1, latency=1.5) as slow:
        process = subprocess.Popen(
            [sys.executable, "-m", "prodia_async", "batch", str(prompts), "-o", "run", "-t",
             SCHNELL, *SMALL],
            cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=writer,
            env=os.environ | {"PRODIA_BASE_URL": slow.base_url, "PRODIA_TOKEN": TOKEN},
        )  # fmt: skip
        os.close(writer)
        slow.ledger.wait_for(lambda totals: totals.received >= 1, timeout=30)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        assert slow.ledger.totals().charged == 1
    assert len(list((tmp_path / "run" / "out").rglob("*.jpg"))) == 1


@pytest.mark.parametrize("count", [20, 21, 1500])
def test_of_many_jobs_in_doubt_some_are_named(
    capfd: pytest.CaptureFixture[str], count: int
) -> None:
    """As many as a screen takes, and where the others are."""
    _say(BatchSummary(in_doubt=count), [f"row {n}: x" for n in range(count)], [])
    told = capfd.readouterr()
    lines = told.err.splitlines()
    assert lines[:20] == [f"in doubt: row {n}: x" for n in range(20)]
    assert len(lines) == min(count, 21)
    if count > 20:
        where = "`prodia-async export FOLDER failures.jsonl` has them all"
        assert lines[20] == f"and {count - 20:,} more in doubt; {where}"
    assert f"{count:,} in doubt" in told.out
