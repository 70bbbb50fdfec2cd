"""The command line, as a process of its own against an emulator on this machine."""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import prodia_async
from prodia_async import Output, _cli
from prodia_async._catalogue_data import job_types
from prodia_async._cli import _target, _types
from prodia_async.emulator import Emulator

TOKEN = "token-that-must-not-show"
SCENE = "inference.flux-fast.schnell.txt2img.v2"
COMBINE = "inference.nano-banana.img2img.v2"


Done = subprocess.CompletedProcess[bytes]
Run = Callable[..., Done]


def environment(**variables: str) -> dict[str, str]:
    """Ours, without what would lead to an account, and with a terminal of a known width."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PRODIA_")}
    return kept | {"COLUMNS": "100"} | variables


def cli(*arguments: object, cwd: Path, **variables: str) -> Done:
    return subprocess.run(
        [sys.executable, "-m", "prodia_async", *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


def python(program: str) -> Done:
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )


def picture(path: Path) -> tuple[str | None, tuple[int, int]]:
    """Return the format and the size in pixels of a picture that decodes to its end."""
    with Image.open(path) as opened:
        opened.load()
        return opened.format, opened.size


def error_line(done: Done) -> str:
    """Return the one line that was said, after looking for what must never be."""
    shown = (done.stdout + done.stderr).decode()
    assert "Traceback" not in shown
    assert TOKEN not in shown
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("prodia-async: ")
    return line.removeprefix("prodia-async: ")


@pytest.fixture(scope="module")
def api() -> Iterator[Emulator]:
    with Emulator(tokens=[TOKEN]) as emulator:
        yield emulator


@pytest.fixture
def job(api: Emulator, tmp_path: Path) -> Run:
    """Run ``prodia-async job`` in an empty folder, with the emulator's address and token."""

    def run(*arguments: object, **variables: str) -> Done:
        ready = {"PRODIA_BASE_URL": api.base_url, "PRODIA_TOKEN": TOKEN}
        return cli("job", *arguments, cwd=tmp_path, **(ready | variables))

    return run


@pytest.fixture
def here(
    api: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Run:
    """Run the command line in this process, for what does not get far."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRODIA_BASE_URL", api.base_url)
    monkeypatch.setenv("PRODIA_TOKEN", TOKEN)

    def run(arguments: list[str]) -> Done:
        return Done(arguments, _cli.run(arguments), *capfdbinary.readouterr())

    return run


# What it does.


def test_help_tells_the_commands_and_where_the_token_comes_from(tmp_path: Path) -> None:
    """Without arguments there is help; the job's tells that no option takes a token."""
    overview = cli(cwd=tmp_path)
    assert overview.returncode == 0
    assert {"demo", "job", "emulator"} <= set(re.findall(r"\w+", overview.stdout.decode()))
    detail = cli("job", "--help", cwd=tmp_path).stdout.decode()
    assert "PRODIA_TOKEN" in detail
    assert "--token" not in detail


@pytest.mark.parametrize(
    "command",
    ["job", "submit", "status", "collect", "batch", "report", "export", "verify", "fireworks",
     "types", "demo", "emulator"],
)  # fmt: skip
def test_each_command_has_its_help(command: str, tmp_path: Path) -> None:
    """What it does, how it is called, and what each option is for; a reader may leave early."""
    whole = cli(command, "--help", cwd=tmp_path, TERM="dumb")
    text = whole.stdout.decode()
    assert (whole.returncode, whole.stderr) == (0, b"")
    assert f"Usage: prodia-async {command} " in text
    assert "[[" not in text
    options = re.findall(r"(?m)^[\u2502|].*--[a-z-]+ .*$", text)
    assert options
    assert all(re.search(r"\S {2,}\S.*[A-Za-z]{3}", line) for line in options)
    writer = closed_pipe()
    left = subprocess.run(
        [sys.executable, "-m", "prodia_async", command, "--help"], cwd=tmp_path,
        env=environment(), stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False,
    )  # fmt: skip
    os.close(writer)
    assert left.stderr == b""


def test_version(tmp_path: Path) -> None:
    """The version is the package's."""
    done = cli("--version", cwd=tmp_path)
    assert done.stdout.decode().split() == ["prodia-async", prodia_async.__version__]
    assert done.returncode == 0


def test_a_job_writes_its_picture_and_tells_about_it(job: Run, tmp_path: Path) -> None:
    """The named file holds the picture; size, seed, time and attempts are told."""
    done = job(SCENE, "-c", "prompt=a cat", "-c", "seed=7", "-o", "cat.jpg", "--price")
    assert (done.returncode, done.stderr) == (0, b"")
    told = dict(line.split(None, 1) for line in done.stdout.decode().splitlines())
    size = (tmp_path / "cat.jpg").stat().st_size
    assert told["wrote"] == f"cat.jpg (image/jpeg, {size:,} bytes)"
    assert told["seed"] == "7"
    assert told["attempts"] == "1 (200)"
    assert re.fullmatch(r"\d+\.\d\d s.*", told["time"])
    assert told["price"] == "$0.0025"


def test_the_current_folder_is_the_default(job: Run, tmp_path: Path) -> None:
    """Without -o the picture keeps the name it came under, with the right extension."""
    assert job(SCENE, "-c", "prompt=cat", "--accept", "image/webp").returncode == 0
    (written,) = tmp_path.iterdir()
    assert written.suffix == ".webp"
    assert picture(written) == ("WEBP", (1024, 1024))


def test_a_folder_is_made(job: Run, tmp_path: Path) -> None:
    """A name that ends in a slash is a folder, made with its parents."""
    assert job(SCENE, "-c", "prompt=cat", "-o", "deep/down/").returncode == 0
    assert [path.suffix for path in (tmp_path / "deep" / "down").iterdir()] == [".jpg"]


def test_standard_output_carries_the_bytes_alone(job: Run, tmp_path: Path) -> None:
    """With -o - the picture goes to standard output, what is told to standard error."""
    done = job(SCENE, "-c", "prompt=cat", "-c", "seed=1", "-o", "-", "--accept", "image/png")
    assert done.returncode == 0
    assert done.stdout.startswith(b"\x89PNG")
    assert done.stdout.endswith(b"IEND\xaeB`\x82")
    assert b"standard output (image/png" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_json_is_the_whole_job_result(job: Run, tmp_path: Path) -> None:
    """With --json standard output is one JSON object, as the server sent it."""
    done = job(SCENE, "-c", "prompt=cat", "-c", "seed=3", "-o", "cat.jpg", "--json")
    result = json.loads(done.stdout)
    assert result["config"] == {
        "prompt": "cat",
        "seed": 3,
        "steps": 4,
        "width": 1024,
        "height": 1024,
    }
    assert result["state"]["current"] == "completed"
    assert b"wrote     cat.jpg" in done.stderr


def test_values_are_json_or_text(job: Run, api: Emulator, tmp_path: Path) -> None:
    """Numbers and lists arrive as such, other values as text; a file is merged in order."""
    (tmp_path / "base.json").write_text('{"prompt": "from the file", "steps": 2}')
    done = job(
        *(SCENE, "-c", "@base.json", "-c", "steps=3", "-c", 'loras=["a", "b"]'),
        *("-c", "style_preset=anime", "-c", "note=a=b: NaN, 1e", "-c", "odd=NaN", "-o", "x.jpg"),
    )
    assert done.returncode == 0, done.stderr
    assert api.ledger[-1].config == {
        "prompt": "from the file",
        "steps": 3,
        "loras": ["a", "b"],
        "style_preset": "anime",
        "note": "a=b: NaN, 1e",
        "odd": "NaN",
    }


def test_inputs_travel_by_name_and_in_order(job: Run, api: Emulator, tmp_path: Path) -> None:
    """Files given with -i arrive under their base names, in order, whole."""
    (tmp_path / "in").mkdir()
    for name, colour in (("b.png", "red"), ("a.png", "blue")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / "in" / name)
    done = job(
        *(COMBINE, "-c", "prompt=join them", "-c", 'images=["b.png", "a.png"]'),
        *("-i", "in/b.png", "-i", tmp_path / "in" / "a.png", "-o", "joined.jpg"),
    )
    assert done.returncode == 0, done.stderr
    received = [(file.filename, file.size) for file in api.ledger[-1].inputs]
    assert received == [
        (name, (tmp_path / "in" / name).stat().st_size) for name in ("b.png", "a.png")
    ]


def test_direct_leaves_the_job_result_out(job: Run, api: Emulator, tmp_path: Path) -> None:
    """With --direct the output comes alone, and no seed is known."""
    done = job(SCENE, "-c", "prompt=cat", "-c", "seed=5", "--direct", "-o", "cat.jpg")
    assert done.returncode == 0
    assert b"seed" not in done.stdout
    assert picture(tmp_path / "cat.jpg") == ("JPEG", (1024, 1024))


def test_a_job_without_outputs_says_so(job: Run, tmp_path: Path) -> None:
    """A ping makes nothing, which is no error."""
    done = job("inference.ping.v1")
    assert done.returncode == 0
    assert b"nothing: this job made no output" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_file_for_several_outputs_is_numbered(tmp_path: Path) -> None:
    """A second output never replaces the first: it gets a number."""
    target = _target.Target(str(tmp_path / "cut.png"))
    written = dict(enumerate(target.write([Output(b"1", "image/png"), Output(b"2", "image/png")])))
    assert [path.name for _, path in written.values() if path] == ["cut.png", "cut-2.png"]
    assert (tmp_path / "cut-2.png").read_bytes() == b"2"


def test_base_url_option_wins_over_the_environment(job: Run, api: Emulator) -> None:
    """--base-url is used although the environment names another address."""
    done = job(
        *("inference.ping.v1", "--base-url", f"{api.base_url}/v2"),
        PRODIA_BASE_URL="http://127.0.0.1:1",
    )
    assert done.returncode == 0, done.stderr


# Bad input and bad luck: one line, and a status.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--bogus"], "No such option: --bogus"),
        (["bogus"], "No such command 'bogus'"),
        (["job"], "Missing argument 'TYPE'"),
        (["job", SCENE, "--bogus"], "No such option: --bogus"),
        (["job", SCENE, "-c", "prompt"], "-c must read key=value or @file.json, not 'prompt'"),
        (["job", SCENE, "-c", "=x"], "-c must read key=value or @file.json, not '=x'"),
        (["job", SCENE, "-c", "@no.json"], "-c @no.json cannot be read: No such file"),
        (["job", SCENE, "-c", "@list.json"], "-c @list.json must hold a JSON object, not list"),
        (["job", SCENE, "-c", "@bad.json"], "-c @bad.json is not JSON"),
        (["job", SCENE, "-i", "no.png"], "cannot read the input 'no.png'"),
        (["job", SCENE, "--accept", "image/jpeg;quality=96"], "0 to 95, not 96"),
        (["job", " "], "a job needs a type"),
        (["job", COMBINE, "-c", 'images=["x.png"]'], "x.png"),
        (["job", SCENE, "--deadline-seconds", "-1"], "--deadline-seconds must be"),
        (["job", SCENE, "--timeout-seconds", "nan"], "--timeout-seconds must be"),
        (["job", SCENE, "--direct", "--json"], "--json needs the job result"),
        (["job", SCENE, "--direct", "--price"], "--price needs the job result"),
        (["job", SCENE, "--json", "-o", "-"], "--json needs standard output"),
        (["job", SCENE, "--base-url", "http://example.com"], "plain http to example.com"),
        (["emulator", "--port", "http"], "'--port'"),
        (["emulator", "--port", "65536"], "'--port'"),
        (["emulator", "--workers", "-1"], "'--workers'"),
        (["emulator", "--latency", "nan"], "must be a number of seconds from 0, not nan"),
        (["emulator", "--retry-after", "-1"], "must be a number of seconds from 0, not -1"),
        (["emulator", "--host", "0.0.0.0"], "--allow-remote lets other machines in"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str], expected: str, api: Emulator, here: Run
) -> None:
    """What was asked wrongly is said in one line, and nothing is sent."""
    Path("list.json").write_text("[1]")
    Path("bad.json").write_text("{")
    before = api.ledger.totals().received
    done = here(arguments)
    assert expected in error_line(done)
    assert done.returncode == 2
    assert api.ledger.totals().received == before


def test_wrong_usage_ends_the_process_with_status_2(tmp_path: Path) -> None:
    """The status of a wrong option is that of the process, too."""
    done = cli("demo", "--bogus", cwd=tmp_path)
    assert error_line(done).startswith("No such option: --bogus")
    assert done.returncode == 2


@pytest.mark.parametrize("token", ["", f"{TOKEN}\n", f"{TOKEN} x"])
def test_a_token_that_cannot_be_one(token: str, job: Run) -> None:
    """A missing or cut token is found before anything is sent."""
    done = job(SCENE, "-c", "prompt=cat", PRODIA_TOKEN=token)
    assert "token" in error_line(done)
    assert done.returncode == 2


def test_what_the_server_refuses_is_one_line(job: Run) -> None:
    """A 401 and a 400 end with status 1 and the server's words."""
    refused = job(SCENE, "-c", "prompt=cat", PRODIA_TOKEN="another-token-altogether")
    assert "token is invalid" in error_line(refused)
    unknown = job("inference.unknown.v1", "-c", "prompt=cat")
    assert "400" in error_line(unknown)
    assert (refused.returncode, unknown.returncode) == (1, 1)


def test_no_server_within_the_deadline(job: Run) -> None:
    """When nobody listens, the deadline ends it."""
    done = job(
        "inference.ping.v1", "--deadline-seconds", "0.2", PRODIA_BASE_URL="http://127.0.0.1:1"
    )
    assert "deadline of 0.2 s" in error_line(done)
    assert done.returncode == 1


def test_what_came_whole_is_kept_when_the_rest_did_not(
    job: Run, api: Emulator, tmp_path: Path
) -> None:
    """An answer that ends too early is an error, but the outputs before the cut are written."""
    parts = [
        'Content-Disposition: form-data; name="job"; filename="job.json"\r\n\r\n{"id": "1"}',
        'Content-Disposition: form-data; name="output"; filename="a.png"\r\n\r\nwhole',
        'Content-Disposition: form-data; name="output"; filename="b.png"\r\n\r\nno end',
    ]
    cut = "".join(f"--x\r\n{part}\r\n" for part in parts).removesuffix("\r\n")
    api.fail_next(1, 200, body=cut, content_type="multipart/form-data; boundary=x", charged=True)
    done = job(SCENE, "-c", "prompt=cat", "-o", "kept/")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "kept").iterdir()] == [
        ("a.png", b"whole")
    ]
    assert done.stdout.startswith(b"wrote     kept/a.png")
    assert "may have run" in error_line(Done(done.args, done.returncode, b"", done.stderr))
    assert done.returncode == 1


@pytest.mark.parametrize("out", ["file/", "file/cat.jpg", "/proc/cat.jpg"])
def test_a_folder_that_cannot_be_written_is_found_before_the_job_runs(
    out: str, job: Run, api: Emulator, tmp_path: Path
) -> None:
    """Where the picture cannot be kept, none is paid for."""
    (tmp_path / "file").write_bytes(b"")
    before = api.ledger.totals().received
    done = job(SCENE, "-c", "prompt=cat", "-o", out)
    assert out.rstrip("/").rpartition("/")[0] in error_line(done)
    assert done.returncode == 1
    assert api.ledger.totals().received == before


def test_a_demo_that_cannot_be_written(tmp_path: Path) -> None:
    """A demo into what is a file is one line."""
    (tmp_path / "file").write_bytes(b"")
    done = cli("demo", "--out", "file", cwd=tmp_path)
    assert "file" in error_line(done)
    assert done.returncode == 1


def test_a_reader_that_leaves_early_is_no_traceback(api: Emulator, tmp_path: Path) -> None:
    """A broken pipe on standard output ends without a word about it."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "prodia_async", "job", SCENE, "-c", "prompt=cat", "-o", "-"],
        cwd=tmp_path,
        env=environment(PRODIA_BASE_URL=api.base_url, PRODIA_TOKEN=TOKEN),
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("missing", ["typer", "rich", "starlette"])
def test_without_its_extra_it_says_which(missing: str, tmp_path: Path) -> None:
    """A missing dependency is named, with the command that installs it."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['emulator'];"
        "from prodia_async.__main__ import main; sys.exit(main())"
    )
    done = python(program)
    assert "pip install 'prodia-async[cli]'" in error_line(done)
    assert done.returncode != 0


def test_interrupting_it_while_it_loads_is_one_line(tmp_path: Path) -> None:
    """Loading takes a moment, and nothing is paid in it."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    done = cli("job", "ping", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (error_line(done), done.returncode) == ("interrupted", 130)


# The emulator, until it is told to end.


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start ``prodia-async emulator`` and yield it with its export line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "prodia_async", "emulator", *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, next(line for line in process.stdout if line.startswith("export "))
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_emulator_serves_until_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    """What it prints is enough to run a job; a signal ends it with status 0, in order."""
    with serving("--token", TOKEN, "--workers", "3") as (process, line):
        exported = dict(pair.split("=", 1) for pair in shlex.split(line)[1:])
        assert exported["PRODIA_TOKEN"] == TOKEN
        assert cli("job", "inference.ping.v1", cwd=tmp_path, **exported).returncode == 0
        wrong = exported | {"PRODIA_TOKEN": "another-token"}
        assert cli("job", "inference.ping.v1", cwd=tmp_path, **wrong).returncode == 1
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert "Stopped after 2 requests; 1 job ran." in out
    assert (process.returncode, err) == (0, "")


def test_the_emulator_refuses_as_it_is_told(tmp_path: Path) -> None:
    """Without workers each job is refused, with the Retry-After of the option."""
    with serving("--workers", "0", "--retry-after", "200") as (_, line):
        exported = dict(pair.split("=", 1) for pair in shlex.split(line)[1:])
        done = cli("job", "inference.ping.v1", cwd=tmp_path, **exported)
    assert "200" in error_line(done)
    assert done.returncode == 1


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    """The line names the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("emulator", "--port", port, cwd=tmp_path)
    assert str(port) in error_line(done)
    assert done.returncode == 1


def test_interrupting_a_job_is_one_line(tmp_path: Path) -> None:
    """Ctrl-C ends with status 130, and tells that the job may have run."""
    with Emulator(tokens=[TOKEN], latency=60) as api:
        process = subprocess.Popen(
            [sys.executable, "-m", "prodia_async", "job", SCENE, "-c", "prompt=cat"],
            cwd=tmp_path,
            env=environment(PRODIA_BASE_URL=api.base_url, PRODIA_TOKEN=TOKEN),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            while not api.busy:
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    assert "may have run" in error_line(done)
    assert done.returncode == 130


# The types.


def test_types_are_lines_of_columns(tmp_path: Path) -> None:
    """Not on a terminal: one line a type, seven columns between tabs, sorted by name."""
    done = cli("types", "flux-fast", cwd=tmp_path)
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert [SCENE, "txt2img", "0", "image/jpeg", "-", "0.3", "$0.0025"] in rows
    assert all(len(row) == 7 and "flux-fast" in row[0] for row in rows)
    assert rows == sorted(rows)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(cli("types", cwd=tmp_path).stdout.splitlines()) > 100


def test_one_type_with_all_that_is_known(tmp_path: Path) -> None:
    """Each fact with its source; the prefix may be left out, and an alias will do."""
    told = cli("types", "inference.segment.v2", cwd=tmp_path).stdout.decode()
    assert told == cli("types", "sam3.segment.v1", cwd=tmp_path).stdout.decode()
    page = "(A, job-type page inference-sam3-segment-v1)"
    assert told.startswith(f"inference.sam3.segment.v1  {page}\nalso inference.segment.v2\n")
    assert f"prompt: a string of 1 to 500 characters; required (A)  {page}\n" in told
    assert f"confidence_threshold: a number 0 to 1; default 0.5  {page}\n" in told
    assert "price      $0.0011  (C, third-party clients)\n" in told
    assert f"No other field is taken.  {page}\n" in told
    assert "async      unknown\n" in told


def test_every_type_can_be_told_of() -> None:
    """None of the catalogue's entries lacks what its page needs."""
    for kind in job_types().values():
        lines = list(_types._type_lines(kind))
        assert lines[0].startswith(kind.name)
        assert all(any(f"  {field.name}: " in line for line in lines) for field in kind.fields)
        assert len(_types._type_row(kind)) == len(_types._TYPE_COLUMNS)


def test_types_on_a_terminal_are_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a header, and every name whole on its line where there is room."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "140")
    assert _cli.run(["types", "upscale"]) == 0
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert shown[0].split() == list(_types._TYPE_COLUMNS)
    assert [
        "inference.upscale.v1",
        "upscale",
        "1",
        "image/jpeg",
        "-",
        "0.73-1.3",
        "$0.001-0.003",
    ] in [line.split() for line in shown]


def test_no_such_type(tmp_path: Path) -> None:
    """One line, status 2: it was asked wrongly."""
    done = cli("types", "no-such-thing", cwd=tmp_path)
    assert "knows no job type with 'no-such-thing' in its name" in error_line(done)
    assert done.returncode == 2


@pytest.mark.parametrize("command", ["job", "types"])
def test_a_shell_completes_names_of_types(command: str, tmp_path: Path) -> None:
    """By the protocol that the shells' own scripts use."""
    done = cli(
        cwd=tmp_path,
        _PRODIA_ASYNC_COMPLETE="complete_bash",
        COMP_WORDS=f"prodia-async {command} inference.sam",
        COMP_CWORD="2",
    )
    assert done.stdout.split() == [b"inference.sam2.segment.v1", b"inference.sam3.segment.v1"]


# What is paid for is written, whoever listens.

TWO_OUTPUTS = "inference.birefnet.segment.v1"


@pytest.fixture
def paired(api: Emulator, tmp_path: Path) -> Callable[..., Done]:
    """Run a job that makes two files, with standard output and error wherever a test wants them."""
    Image.new("RGB", (64, 64), "red").save(tmp_path / "in.png")

    def run(*arguments: str, **options: Any) -> Done:
        given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        variables = given.pop("variables", {})
        done: Done = subprocess.run(
            [sys.executable, "-m", "prodia_async", "job", TWO_OUTPUTS, "-i", "in.png", *arguments],
            cwd=tmp_path,
            env=environment(PRODIA_BASE_URL=api.base_url, PRODIA_TOKEN=TOKEN, **variables),
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
            **given,
        )
        return done

    return run


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("out", ["a.png", "-"])
def test_a_reader_that_leaves_costs_no_output(
    out: str, paired: Callable[..., Done], tmp_path: Path
) -> None:
    """Of lines or of the first output's bytes: the other one is in its file all the same."""
    writer = closed_pipe()
    done = paired("-o", out, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr.count(b"Traceback")) == (1, 0)
    made = {each.name for each in tmp_path.iterdir()} - {"in.png"}
    assert made == ({"a.png", "a-2.png"} if out == "a.png" else {"mask.png"})


def test_standard_error_that_nobody_reads_costs_no_output(
    paired: Callable[..., Done], tmp_path: Path
) -> None:
    """The same where the lines go to standard error, and where there is none at all."""
    writer = closed_pipe()
    done = paired("-o", "a.png", "--json", stderr=writer)
    os.close(writer)
    assert json.loads(done.stdout)["state"]["current"] == "completed"
    assert {"a.png", "a-2.png"} <= {each.name for each in tmp_path.iterdir()}
    done = paired("-o", "b.png", "-i", "none.png", stderr=None, preexec_fn=lambda: os.close(2))
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device here")
def test_a_full_disk_behind_standard_output_costs_no_output(
    paired: Callable[..., Done], tmp_path: Path
) -> None:
    """It is said what is full, since the files are whole."""
    with open("/dev/full", "wb") as full:  # noqa: PTH123  (a device)
        done = paired("-o", "a.png", stdout=full)
    assert done.stderr.decode() == "prodia-async: standard output: No space left on device\n"
    assert done.returncode == 1
    assert {"a.png", "a-2.png"} <= {each.name for each in tmp_path.iterdir()}


def test_a_name_that_the_terminal_has_no_letters_for(
    paired: Callable[..., Done], tmp_path: Path
) -> None:
    """It is shown with marks, and costs neither an output nor a traceback."""
    done = paired("-o", "\u00fc\n\u4e2d.png", variables={"PYTHONIOENCODING": "latin-1"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert [line.split(b" (")[0] for line in done.stdout.splitlines()[:2]] == [
        b"wrote     \xfc??.png", b"wrote     \xfc??-2.png",
    ]  # fmt: skip
    assert {"\u00fc\n\u4e2d.png", "\u00fc\n\u4e2d-2.png"} <= {e.name for e in tmp_path.iterdir()}


def test_an_id_that_nobody_reads_is_said_all_the_same(api: Emulator, tmp_path: Path) -> None:
    """The job is paid for, and its result lies five minutes for whoever knows the id."""
    writer = closed_pipe()
    done = subprocess.run(
        [sys.executable, "-m", "prodia_async", "submit", SCENE, "-c", "prompt=a"],
        cwd=tmp_path,
        env=environment(PRODIA_BASE_URL=api.base_url, PRODIA_TOKEN=TOKEN),
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writer)
    found = re.fullmatch(
        r"prodia-async: the job was submitted as ([0-9a-f-]{36}); .*\n", done.stderr.decode()
    )
    assert found is not None, done.stderr
    assert done.returncode == 1
    ready = {"PRODIA_BASE_URL": api.base_url, "PRODIA_TOKEN": TOKEN}
    assert cli("collect", found[1], "-o", "a.jpg", cwd=tmp_path, **ready).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("job", "ping", "-o", ""), ("collect", "j-1", "-o", " "), ("fireworks", "a", "-o", ""),
        ("demo", "-o", ""), ("batch", "x.txt", "-t", "ping", "-o", ""), ("report", ".", "-o", ""),
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_a_name_that_is_empty_is_found_before_anything_is_paid(
    arguments: tuple[str, ...], job: Run, api: Emulator, tmp_path: Path
) -> None:
    """Most often it is a shell's variable that is not set."""
    before = api.ledger.totals().received
    done = cli(*arguments, cwd=tmp_path, PRODIA_BASE_URL=api.base_url, PRODIA_TOKEN=TOKEN)
    assert error_line(done).startswith("-o must be a file or a folder, not ")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert api.ledger.totals().received == before


def test_standard_input_is_read_once(job: Run, api: Emulator, tmp_path: Path) -> None:
    """Whatever is to come from it a second time, or is not there, is said before the job runs."""
    run = [sys.executable, "-m", "prodia_async", "job", SCENE, "-o", "a.png", "-c", "prompt=@-"]
    variables = environment(PRODIA_BASE_URL=api.base_url, PRODIA_TOKEN=TOKEN)
    for more, given, said in (
        (["-c", "negative_prompt=@-"], b"a cat", "cannot read standard input again: -c has read"),
        ([], b"", "is to come from standard input, and nothing came"),
    ):
        done = subprocess.run(
            [*run, *more], input=given, cwd=tmp_path, env=variables, capture_output=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert said in error_line(done)
        assert done.returncode == 2


def test_a_name_that_says_something_else_than_is_in_it(job: Run, tmp_path: Path) -> None:
    """Nobody finds out months later what is in a file."""
    done = job(SCENE, "-c", "prompt=a cat", "-o", "a.bmp")
    assert b"wrote     a.bmp (image/jpeg, " in done.stdout
    assert b" bytes; its name says image/bmp)" in done.stdout.splitlines()[0]


def test_a_slip_in_a_setting_is_said(job: Run, api: Emulator, tmp_path: Path) -> None:
    """The service takes any field, without effect: the job is paid for all the same."""
    done = job(SCENE, "-c", "prompt=a cat", "-c", "heigth=512", "-c", "brand_new=1", "-o", "a.jpg")
    assert done.returncode == 0
    assert done.stderr.decode() == (
        "prodia-async: config.heigth is not known; did you mean height? It is sent as it is\n"
    )
    config = api.ledger[-1].config
    assert config is not None
    assert (config["heigth"], config["brand_new"]) == (512, 1)


def test_a_token_that_no_client_would_send(tmp_path: Path) -> None:
    """The emulator asks for it when it is started, not when a job is refused."""
    done = cli("emulator", "--token", "a b", cwd=tmp_path)
    assert error_line(done) == "--token must be printable ASCII without blanks, not 'a b'"
    assert done.returncode == 2
