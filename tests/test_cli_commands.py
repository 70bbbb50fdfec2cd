"""The command line for what is typed short, left with the server, or made by the second API."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import select
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from raw_server import JOB_JSON, PICTURE, RawServer, http, say
from test_cli import (
    COMBINE,
    SCENE,
    TOKEN,
    Done,
    Run,
    cli,
    environment,
    error_line,
    picture,
    serving,
)

from prodia_async import (
    APITimeoutError,
    ConnectionLostError,
    InvalidRequestError,
    Output,
    _cli,
)
from prodia_async._catalogue import names
from prodia_async._cli import _app, _config, _names, _show, _target
from prodia_async._results import read_job_result
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VIDEO = "inference.wan2-2.lightning.txt2vid.v0"


@pytest.fixture(scope="module")
def api() -> Iterator[Emulator]:
    with Emulator(tokens=[TOKEN]) as emulator:
        yield emulator


@pytest.fixture
def run(api: Emulator, tmp_path: Path) -> Run:
    """Run the command line in an empty folder, with the emulator's addresses and token."""

    def run(*arguments: object, **variables: str) -> Done:
        ready = {
            "PRODIA_BASE_URL": api.base_url, "PRODIA_TOKEN": TOKEN,
            "FIREWORKS_API_BASE": api.fireworks_url, "FIREWORKS_API_KEY": TOKEN,
        }  # fmt: skip
        return cli(*arguments, cwd=tmp_path, **(ready | variables))

    return run


# Names of types.


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        (SCENE, SCENE),
        ("ping", "inference.ping.v1"),
        ("ping.v1", "inference.ping.v1"),
        ("flux-fast.schnell", SCENE),
        ("Flux-Fast.Schnell.txt2img", SCENE),
        ("flux-fast.schnell.txt2img.v1", "inference.flux-fast.schnell.txt2img.v1"),
        ("upscale", "inference.upscale.v1"),
        ("lightning.txt2vid", VIDEO),
        ("wan2-2.txt2vid", VIDEO),
        ("inference.brand-new.v9", "inference.brand-new.v9"),
        ("workflow.serial", "workflow.serial.v1"),
        (" ", " "),
    ],
)
def test_a_short_name_is_its_newest_type(typed: str, name: str) -> None:
    """Words in their order will do, and a whole name passes, known or not."""
    assert _names.full_type(typed) == name


def test_inputs_tell_which_type_is_meant() -> None:
    """With a file it is img2img."""
    found = _names.full_type("flux-fast.schnell", has_inputs=True)
    assert found == "inference.flux-fast.schnell.img2img.v2"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("flux", r"'flux' is short for several: (inference\.flux\S+ ){5}.* and \d+ more"),
        ("flux-fast.schnel", r"no known type; did you mean inference\.flux-fast\.schnell"),
        ("birefnett", r"did you mean inference\.birefnet"),
        ("flux-fast.v9", r"is short for no known type"),
        ("zzz", r"is short for no known type; `prodia-async types` lists them"),
    ],
)
def test_a_short_name_that_is_none(typed: str, expected: str) -> None:
    """Near misses are named."""
    with pytest.raises(InvalidRequestError, match=expected):
        _names.full_type(typed)


def test_a_slip_in_a_whole_name_is_said_and_sent(run: Run) -> None:
    """The service gains types, so it decides."""
    done = run("job", f"{SCENE}2x", "-c", "prompt=a")
    said = done.stderr.decode().splitlines()
    assert f"{SCENE}2x is not known here; did you mean {SCENE}" in said[0]
    assert "unknown job type" in said[1]
    assert done.returncode == 1


# Settings, files, formats.


def test_text_is_text(run: Run, api: Emulator) -> None:
    """A prompt of digits is no number; a number is one where the type takes one, or by :=."""
    done = run("job", "flux-fast.schnell", "-c", "prompt=12", "-c", "steps=3", "-c", "odd:=7")
    assert done.returncode == 0, done.stderr
    assert api.ledger[-1].config == {"prompt": "12", "steps": 3, "odd": 7}


@pytest.mark.parametrize(
    ("items", "config"),
    [
        (["prompt=true"], {"prompt": "true"}),
        (["prompt=[1]", "seed=1"], {"prompt": "[1]", "seed": 1}),
        (["a=1", "b=x", "c:=[1]", 'd="x"'], {"a": 1, "b": "x", "c": [1], "d": "x"}),
        (["prompt=@a.txt", "other=@@home"], {"prompt": "from a file", "other": "@home"}),
        (["prompt :=null"], {"prompt": None}),
    ],
)
def test_what_a_setting_is(
    items: list[str], config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a type that nobody knows: text for prompts, else JSON if it is JSON."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("from a file\n")
    assert _config.read_config(items, "inference.nobody-knows.v1") == config


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["job"], "Missing argument 'TYPE'"),
        (["job", SCENE, "-c", "seed:=x"], "seed:= takes JSON, and 'x' is none; seed= takes text"),
        (["job", SCENE, "-c", "prompt=@no.txt"], "-c @no.txt cannot be read: No such file"),
        (["job", SCENE, "-c", "prompt=@bytes"], "-c @bytes is not UTF-8"),
        (["job", SCENE, "--accept", "pngg"], "--accept must be a media type such as image/png"),
        (["job", SCENE, "-i", ""], "-i must be a file, or read name=file"),
        (["job", "--job", "no.json"], "--job no.json cannot be read: No such file"),
        (["job", "--job", "seven.json"], "--job seven.json must hold a job or a list of jobs"),
        (["job", "--job", "odd.json"], "must hold type, config and jobs alone, not prompt"),
        (["job", "--job", "flow.json", SCENE], "--job flow.json holds a workflow"),
        (["job", "--job", "flow.json", "-c", "a=b"], "--job flow.json holds a workflow"),
        (["job", "--job", "empty.json"], "a job needs a type"),
        (["collect", "a/b"], "must be a plain id as `prodia-async submit` printed it"),
        (["collect", "a", "b", "-o", "x.png"], "-o must be a folder for several jobs"),
        (["collect", "a", "-o", "-", "--json"], "--json needs standard output"),
        (["collect", "a", "--poll-seconds", "nan"], "--poll-seconds must be"),
        (["status"], "Missing argument 'ID...'"),
        (["fireworks"], "PROMPT is missing"),
        (["fireworks", "x", "-c", "seed"], "-c must read key=value, not 'seed'"),
        (["fireworks", "x", "-c", "aspect=1"], "did you mean aspect_ratio?"),
        (["fireworks", "x", "-c", "zzz=1"], "-c zzz is no field of text_to_image"),
        (["fireworks", "x", "-i", "a.png"], "-i belongs to the Kontext models"),
        (["fireworks", "x", "-c", "extra_body={}"], "-c extra_body is no field of text_to_image"),
        (["fireworks", "x", "-c", "seed:=x"], "-c seed:= takes JSON, and 'x' is none"),
        (["fireworks", "x", "--extra-body", "new"], "--extra-body must read key=value or @file"),
        (["fireworks", "x", "--extra-body", "a:=x"], "--extra-body a:= takes JSON, and 'x' is no"),
        (["fireworks", "x", "--extra-body", "a=@no"], "--extra-body @no cannot be read: No such"),
        (["fireworks", "x", "--extra-body", "@seven.json"], "--extra-body @seven.json must hold a"),
        (["fireworks", "x", "--extra-body", "seed=7"], "extra_body has seed, which this request"),
        (["fireworks", "x", "-k", "controlnet"], "not 'controlnet'; did you mean control_net?"),
        (["fireworks", "x", "-k", "zzz"], "--kind must be one of text_to_image, generate, kontext"),
        (["fireworks", "x", "-k", "qr-code", "-i", "bytes"], "not to qr_code"),
        (["fireworks", "x", "-k", "image-to-image"], "-i is missing: image_to_image needs"),
        (["fireworks", "x", "-k", "image-to-image", "-i", "bytes"], "image_strength is needed"),
        (["fireworks", "x", "-k", "control_net", "-i", "bytes"], "-c control_net_name= is missing"),
        (["fireworks", "-k", "control_net", "-i", "bytes"], "PROMPT is missing"),
        (["fireworks", "x", "-k", "canny_edge_detection", "-i", "bytes"], "PROMPT belongs to what"),
        (["fireworks", "-k", "canny_edge_detection"], "-i is missing: canny_edge_detection needs"),
        (["fireworks", "-k", "canny_edge_detection", "-i", ""], "-i must be a file"),
        (["fireworks", "-k", "canny_edge_detection", "-i", "no.png"], "no.png"),
        (["fireworks", "-k", "canny_edge_detection", "-i", "bytes", "-c", "image=x"], "min_val"),
        (["fireworks", "-k", "canny_edge_detection", "-i", "https://a/b.png"], "cannot be a URL"),
        (["fireworks", "--task", "7", "-k", "kontext"], "--task collects what was asked for"),
        (["fireworks", "--task", "7", "--extra-body", "a=1"], "--task collects what was asked for"),
        (["fireworks", "x", "--task", "7"], "--task collects what was asked for before"),
        (["fireworks", "x", "-o", "-", "--json"], "--json needs standard output"),
        (["emulator", "--slow", "0"], "--slow must be a number of bytes a second above 0, not 0"),
        (["emulator", "--slow", "nan"], "--slow must be a number of bytes a second above 0"),
        (["emulator", "--fail", "200"], "--fail must be a status from 400 to 599, or read 503x3"),
    ],
)  # fmt: skip
def test_what_is_typed_wrongly_is_one_line(
    arguments: list[str],
    expected: str,
    *,
    api: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """It says what and why, with status 2, and nothing is sent."""
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("PRODIA_BASE_URL", api.base_url), ("PRODIA_TOKEN", TOKEN),
        ("FIREWORKS_API_BASE", api.fireworks_url), ("FIREWORKS_API_KEY", TOKEN),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "seven.json").write_text("7")
    (tmp_path / "odd.json").write_text('{"type": "x.v1", "prompt": "y"}')
    (tmp_path / "flow.json").write_text('[{"type": "inference.ping.v1"}]')
    (tmp_path / "empty.json").write_text("{}")
    before = api.ledger.totals().received
    done = Done(arguments, _cli.run(arguments), *capfdbinary.readouterr())
    assert expected in error_line(done)
    assert done.returncode == 2
    assert api.ledger.totals().received == before


def test_a_job_and_a_workflow_from_files(run: Run, api: Emulator, tmp_path: Path) -> None:
    """A whole job, with settings on top; a list of jobs is a workflow; - is standard input."""
    (tmp_path / "a.json").write_text(
        json.dumps({"type": SCENE, "config": {"prompt": "x", "steps": 1}})
    )
    assert run("job", "--job", "a.json", "-c", "steps=2", "-o", "a.png").returncode == 0
    assert api.ledger[-1].config == {"prompt": "x", "steps": 2}
    assert run("job", "--job", "a.json", "-o", "b.png").returncode == 0
    assert api.ledger[-1].config == {"prompt": "x", "steps": 1}
    steps = [{"type": SCENE, "config": {"prompt": "x"}}, {"type": "workflow.moderate.v1"}]
    ready = {"PRODIA_BASE_URL": api.base_url, "PRODIA_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-m", "prodia_async", "job", "--job", "-", "-o", "flow.webp"],
        cwd=tmp_path, env=environment(**ready), input=json.dumps(steps).encode(),
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert api.ledger[-1].type == "workflow.serial.v1"
    assert picture(tmp_path / "flow.webp")[0] == "WEBP"


def test_an_input_by_a_name_of_its_own(run: Run, api: Emulator, tmp_path: Path) -> None:
    """`-i name=path` says what the config calls it; a file of such a name is a file."""
    assert run("job", "flux-fast.schnell", "-c", "prompt=a", "-o", "a=b.jpg").returncode == 0
    done = run(
        *("job", COMBINE, "-c", "prompt=x", "-c", 'images=["one.jpg", "a=b.jpg"]', "-o", "x.jpg"),
        *("-i", "one.jpg=a=b.jpg", "-i", "a=b.jpg"),
    )
    assert done.returncode == 0, done.stderr
    assert [each.filename for each in api.ledger[-1].inputs] == ["one.jpg", "a=b.jpg"]
    assert _config.read_inputs([str(tmp_path / "a=b.jpg")])[0].filename is None


@pytest.mark.parametrize(
    ("out", "accept", "kind"),
    [("s.png", None, "PNG"), ("s.webp", None, "WEBP"), ("s.JPG", None, "JPEG"),
     ("s.png", "jpeg;quality=50", "JPEG"), ("s", "webp", "WEBP"), ("s.pdf", None, "JPEG")],
)  # fmt: skip
def test_the_ending_asks_for_its_format(
    out: str, accept: str | None, kind: str, run: Run, tmp_path: Path
) -> None:
    """`-o s.png` holds a PNG; what is said with --accept counts more."""
    extra = () if accept is None else ("--accept", accept)
    assert run("job", "flux-fast.schnell", "-c", "prompt=a", "-o", out, *extra).returncode == 0
    assert picture(tmp_path / out)[0] == kind


def test_an_ending_that_the_type_does_not_make_asks_for_nothing() -> None:
    """A picture's ending for a film, or a film's for a picture, is a name and no more."""
    from pathlib import Path

    from prodia_async import Job

    film, scene = Job(VIDEO), Job(SCENE)
    assert _config.read_accept(None, Path("x.mp4"), film) == "video/mp4"
    assert _config.read_accept(None, Path("x.png"), film) is None
    assert _config.read_accept(None, Path("x.mp4"), scene) is None
    assert _config.read_accept(None, Path("x.webp"), Job("inference.new.v1")) == "image/webp"
    assert _config.read_accept(None, None, scene) is None
    assert _config.read_accept("mp4", None, film) == "video/mp4"


# Where outputs go.


def test_a_device_is_written_to_and_stays_one(tmp_path: Path, capfd: Any) -> None:
    """Never replaced: a pipe here, since a test has no business with a device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        target = _target.Target(str(pipe))
        target.prepare()
        ((_, written),) = target.write([Output(b"1234", "image/png")])
        assert os.read(reader, 99) == b"1234"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]
    assert written == pipe


def test_older_neighbours_are_not_overwritten(tmp_path: Path) -> None:
    """A further output gets a free name, and the ending of what it is."""
    (tmp_path / "clip-2.jpg").write_bytes(b"yesterday's")
    target = _target.Target(str(tmp_path / "clip.mp4"))
    outputs = [Output(b"1", "video/mp4"), Output(b"2", "image/jpeg"), Output(b"3", "x/y")]
    written = [path.name for _, path in target.write(outputs) if path]
    assert written == ["clip.mp4", "clip-2-2.jpg", "clip-3.mp4"]
    assert (tmp_path / "clip-2.jpg").read_bytes() == b"yesterday's"


def test_what_does_not_fit_goes_elsewhere_and_the_rest_is_written(tmp_path: Path) -> None:
    """A full disk costs none of what was paid for."""
    other = tmp_path / "tmp"
    other.mkdir()
    program = (
        "import pathlib\n"
        "from prodia_async import Output\n"
        "from prodia_async._cli._target import Target\n"
        "target = Target('out/')\n"
        "pathlib.Path('out').mkdir()\n"
        "pathlib.Path('out').chmod(0o500)\n"
        "real = Output.save\n"
        "async def save(self, path, **options):\n"
        "    if len(self.content) == 5000: raise OSError(28, 'No space left on device', 'out')\n"
        "    return await real(self, path, **options)\n"
        "Output.save = save\n"
        "pathlib.Path('out').chmod(0o700)\n"
        "outputs = [Output(bytes(5000), 'video/mp4'), Output(b'2', 'image/png')]\n"
        "try:\n"
        "    for output, path in target.write(outputs): print(path)\n"
        "except OSError as error: print('raised', error.strerror)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(TMPDIR=str(other)),
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    out, said = done.stdout.decode(), done.stderr.decode()
    assert out == "out/output.png\nraised No space left on device\n", said
    (kept,) = other.iterdir()
    assert (
        f"(video/mp4, 5,000 bytes) could not be written: No space left on device; it is in {kept}"
        in said
    )
    assert kept.read_bytes() == bytes(5000)


def test_what_fits_nowhere_is_said_to_be_lost(tmp_path: Path, api: Emulator) -> None:
    """By the process itself, under a limit on the size of files."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    whole = environment(PRODIA_BASE_URL=api.base_url, PRODIA_TOKEN=TOKEN)
    # What coverage notes would not fit either, and it would say so.
    untraced = {name: value for name, value in whole.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-B", "-m", "prodia_async", "job", SCENE, "-c", "prompt=a", "-o", "a.jpg"],
        cwd=tmp_path, env=untraced, capture_output=True, timeout=60, check=False, preexec_fn=limit,
    )  # fmt: skip
    first, last = done.stderr.decode().splitlines()
    assert "could not be written: File too large, nor into the folder for temporary" in first
    assert "it is lost" in first
    assert "File too large" in last
    assert done.returncode == 1
    assert b"seed" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_bytes_are_not_written_to_a_terminal(api: Emulator, tmp_path: Path) -> None:
    """It is found before the job runs; with a pipe behind it they are."""
    received = api.ledger.totals().received
    master, slave = pty.openpty()
    variables = environment(PRODIA_BASE_URL=api.base_url, PRODIA_TOKEN=TOKEN)
    ask = [sys.executable, "-m", "prodia_async", "job", SCENE, "-c", "prompt=a", "-o", "-"]
    try:
        done = subprocess.run(
            ask, cwd=tmp_path, env=variables, stdin=subprocess.DEVNULL, stdout=slave,
            stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(slave)
        os.close(master)
    assert done.stderr.decode() == (
        "prodia-async: -o - would write a file's bytes to the terminal; name a file, or add | cat\n"
    )
    assert (done.returncode, api.ledger.totals().received) == (2, received)


# What the server says.


def test_nothing_from_the_server_reaches_the_terminal_as_a_command(tmp_path: Path) -> None:
    """No escape sequence, wherever the server puts it."""
    evil = "\\u001b]0;owned\\u0007"
    job = json.loads(JOB_JSON) | {"config": {"seed": json.loads(f'"{evil}"')}}
    body = (
        b"--x\r\nContent-Disposition: form-data; name=job\r\n\r\n" + json.dumps(job).encode()
        + b"\r\n--x\r\nContent-Disposition: form-data; name=output\r\nContent-Type: image/\x1b[31m"
        b"\r\n\r\n" + PICTURE + b"\r\n--x--\r\n"
    )  # fmt: skip
    refused = http("400 Bad Request", b"\x1b[2Jno \x9b1m", content_type="text/plain")
    answer = http(body=body, content_type="multipart/form-data; boundary=x")
    with RawServer([say(answer), say(refused)]) as server:
        ready = {"PRODIA_BASE_URL": server.url, "PRODIA_TOKEN": TOKEN}
        for _ in range(2):
            done = cli("job", "inference.ping.v1", "-o", "x", cwd=tmp_path, **ready)
            assert b"\x1b" not in done.stdout + done.stderr
            assert b"\x07" not in done.stdout + done.stderr


@pytest.mark.parametrize("odd", ["[" * 300 + "]" * 300, '"half \\ud800 a pair"'])
def test_an_odd_job_result_is_printed_all_the_same(odd: str) -> None:
    """The picture was saved; its result is JSON, whatever is in it."""
    text = JOB_JSON.replace(b'"seed":42', b'"seed":42,"odd":' + odd.encode())
    result = read_job_result(text)
    assert result is not None
    read = json.loads(_show.result_json(result))
    assert read["config"] == json.loads(text)["config"]
    assert read["state"]["current"] == "completed"
    plain = read_job_result(JOB_JSON)
    assert plain is not None
    assert json.loads(_show.result_json(plain))["id"] == json.loads(JOB_JSON)["id"]


def test_messages_speak_the_words_of_the_command_line() -> None:
    """No keyword argument and no call of Python's."""
    for error in (
        ConnectionLostError("the connection was lost"), APITimeoutError("silence"),
        InvalidRequestError("no token: set the variable PRODIA_TOKEN, or give token=..."),
        InvalidRequestError("plain http to x would show it; use https, or allow_http=True"),
        InvalidRequestError("the server asks to wait 200 s and max_retry_after is 120 s"),
        InvalidRequestError("it was refused and max_capacity_wait is 600 s; a wrong type"),
        InvalidRequestError("over max_response_bytes=100 together; stream() has no such limit"),
        InvalidRequestError("it goes on at the server, and kontext_result() can pick it up"),
        InvalidRequestError("check the key (FIREWORKS_API_KEY, or api_key=)"),
    ):  # fmt: skip
        said = _app.in_our_words(str(error))
        assert not re.search(r"\w=|\(\)|=\.|[a-z]_[a-z]", said), said


# Jobs that are left with the server.


def test_submit_status_collect(run: Run, api: Emulator, tmp_path: Path) -> None:
    """An id is all that is printed; it is enough to ask and to fetch, from any process."""
    done = run("submit", "wan2-2.lightning.txt2vid", "-c", "prompt=a wave")
    assert (done.returncode, done.stderr) == (0, b"")
    job_id = done.stdout.decode().strip()
    assert api.ledger[-1].submitted
    assert run("status", job_id).stdout in {b"processing\n", b"processed\n"}
    done = run("collect", job_id, "-o", "film.mp4", "--poll-seconds", "0.1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"wrote     film.mp4 (video/mp4, ")
    assert b"attempts" not in done.stdout, "how it was submitted is not known here"
    assert (tmp_path / "film.mp4").stat().st_size > 1000
    assert api.ledger.totals().submitted == 1


def test_several_jobs_at_once(run: Run, api: Emulator, tmp_path: Path) -> None:
    """Each result is told; what is missing is an error, and costs the others nothing."""
    ids = [
        run("submit", VIDEO, "-c", f"prompt=wave {number}").stdout.decode().strip()
        for number in range(2)
    ]
    done = run("status", *ids, "no-such-job")
    assert [line.split("\t")[0] for line in done.stdout.decode().splitlines()] == ids
    assert "404" in error_line(Done(done.args, done.returncode, b"", done.stderr))
    assert done.returncode == 1
    done = run("collect", *ids, "no-such-job", "other-job", "-o", "films/", "--json")
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert sum("404 Not Found" in line for line in lines) == 2
    assert sum(line.startswith("wrote ") for line in lines) == 2
    assert len(list((tmp_path / "films").iterdir())) == 2
    results = re.findall(r'^  "id": "(.*)"', done.stdout.decode(), re.MULTILINE)
    assert sorted(results) == sorted(ids)


def test_interrupted_collecting_says_how_to_go_on(tmp_path: Path) -> None:
    """The job is paid for, so its id is what matters."""
    import signal

    with Emulator(tokens=[TOKEN], latency=60) as api:
        ready = {"PRODIA_BASE_URL": api.base_url, "PRODIA_TOKEN": TOKEN}
        job_id = (
            cli("submit", VIDEO, "-c", "prompt=x", cwd=tmp_path, **ready).stdout.decode().strip()
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "prodia_async", "collect", job_id],
            cwd=tmp_path, env=environment(**ready), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        with process:
            while not any("current" in each.path for each in api.ledger):
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    assert f"`prodia-async collect {job_id}` waits" in error_line(Done("", 130, out, err))
    assert process.returncode == 130


# The second API.


def test_a_picture_of_the_second_api(run: Run, api: Emulator, tmp_path: Path) -> None:
    """The ending asks for its format; seed and price are told."""
    done = run("fireworks", "a cat", "-o", "cat.jpg", "-c", "seed=7", "-c", "aspect_ratio=16:9")
    assert (done.returncode, done.stderr) == (0, b"")
    told = dict(line.split(None, 1) for line in done.stdout.decode().splitlines())
    assert (told["seed"], told["attempts"]) == ("7", "1 (200)")
    assert told["price"].startswith("$0.0014")
    assert picture(tmp_path / "cat.jpg")[0] == "JPEG"
    (tmp_path / "p.txt").write_text("a dog\n")
    sdxl = "stable-diffusion-xl-1024-v1-0"
    done = run("fireworks", "@p.txt", "-m", sdxl, "-c", "samples=2", "-o", "dogs/", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (len(facts["images"]), facts["model"]) == (2, sdxl)
    assert len(list((tmp_path / "dogs").iterdir())) == 2
    assert api.ledger[-1].config["prompt"] == "a dog"  # type: ignore[index]


def test_a_kontext_task(run: Run, tmp_path: Path) -> None:
    """A picture from a picture; a task that was submitted before is picked up by its id."""
    assert run("fireworks", "a cat", "-o", "a.png").returncode == 0
    done = run(
        *("fireworks", "make it snow", "-m", "flux-kontext-pro", "-i", "a.png", "-o", "b.png"),
        *("--json", "--poll-seconds", "0.05"),
    )
    assert done.returncode == 0, done.stderr
    task = json.loads(done.stdout)["images"][0]["id"]
    again = run("fireworks", "--task", task, "-m", "flux-kontext-pro", "-o", "c.png")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "c.png").read_bytes()
    assert picture(tmp_path / "b.png")[0] == "PNG"


def test_pictures_from_pictures_edges_and_codes(run: Run, api: Emulator, tmp_path: Path) -> None:
    """Each kind by its name; an SDXL model with -i makes a picture from a picture."""
    sdxl = "stable-diffusion-xl-1024-v1-0"
    code = run(
        "fireworks", "https://example.org", "-k", "qr_code", "-c", "width=512", "-o", "q.png"
    )
    assert (code.returncode, code.stderr) == (0, b"")
    assert picture(tmp_path / "q.png")[1] == (512, 1024)
    kind = ("-k", "canny-edge-detection")
    edges = run("fireworks", *kind, "-i", "q.png", "-c", "min_val=50", "-o", "e.jpg", "--json")
    assert edges.returncode == 0, edges.stderr
    assert picture(tmp_path / "e.jpg") == ("JPEG", (512, 1024))
    assert json.loads(edges.stdout)["dollars"] is None
    assert api.ledger[-1].config == {"min_val": "50"}, "a form is made of text"
    lines = run(
        *("fireworks", "a fox", "-k", "control_net", "-i", "e.jpg", "-c", "control_net_name=canny"),
        *("-c", "steps=10", "-c", "seed=7", "-o", "c.png"),
    )
    assert lines.returncode == 0, lines.stderr
    assert b"price     $0.0013, by the steps" in lines.stdout
    assert picture(tmp_path / "c.png")[0] == "PNG"
    first = [
        *("fireworks", "a fox", "-m", sdxl, "-i", "c.png", "-c", "image_strength=0.4"),
        *("-c", "samples=2", "-c", "negative_prompt=12", "-o", "two/"),
    ]
    assert run(*first).returncode == 0
    sent = api.ledger[-1].config
    assert sent is not None
    assert (sent["samples"], sent["negative_prompt"]) == ("2", "12")
    assert len(list((tmp_path / "two").iterdir())) == 2
    assert run("fireworks", "a fox", "-k", "generate", "-o", "g.png").returncode == 0
    endpoints = [each.endpoint for each in list(api.ledger)[-5:]]  # type: ignore[attr-defined]
    assert endpoints[:4] == ["qr_code", "canny_edge_detection", "control_net", "image_to_image"]
    assert api.ledger[-1].path.endswith(f"/image_generation/accounts/fireworks/models/{sdxl}")


def test_what_nobody_knows_yet_is_sent_as_it_is(run: Run, tmp_path: Path) -> None:
    """Read as the settings of a job are: text, JSON, a file; beside the fields that are known."""
    (tmp_path / "more.json").write_text('{"from_file": [1]}')
    (tmp_path / "in.png").write_bytes(PICTURE)
    extra = ("--extra-body", "a=x", "--extra-body", "b=7", "--extra-body", "c:=null")
    whole = PICTURE + b"IEND\xaeB`\x82"
    with RawServer([say(http("200 OK", whole, content_type="image/png"))] * 2) as server:
        base = {"FIREWORKS_API_BASE": server.url}
        plain = run("fireworks", "x", *extra, "--extra-body", "@more.json", "-c", "seed=1", **base)
        edit = run(
            *("fireworks", "-k", "canny_edge_detection", "-i", "in.png"),
            *("--extra-body", "new=1.5"),
            **base,
        )
    assert (plain.returncode, edit.returncode) == (0, 0), plain.stderr + edit.stderr
    sent = json.loads(server.requests[0].body)
    assert {"a": "x", "b": 7, "c": None, "from_file": [1], "seed": 1}.items() <= sent.items()
    assert b'name="new"\r\n\r\n1.5\r\n' in server.requests[1].body


def test_a_task_is_of_the_model_that_makes_them(run: Run, tmp_path: Path) -> None:
    """Without -m a task is asked for where Kontext's lie, not at the model of plain pictures."""
    done = run(
        *("fireworks", "x", "-k", "kontext", "-o", "a.png", "--json", "--poll-seconds", "0.05")
    )
    assert done.returncode == 0, done.stderr
    task = json.loads(done.stdout)["images"][0]["id"]
    again = run("fireworks", "--task", task, "-o", "b.png", "--poll-seconds", "0.05")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_filtered_picture(run: Run, tmp_path: Path) -> None:
    """An error, unless it is wanted all the same; the word for it is the command line's."""
    prompt = "something nsfw [filter]"
    body = PICTURE + b"IEND\xaeB`\x82"
    filtered = http("200 OK", body, "Seed: 7", "Finish-Reason: CONTENT_FILTERED",
                    content_type="image/png")  # fmt: skip
    with RawServer([say(filtered)] * 2) as server:
        base = {"FIREWORKS_API_BASE": server.url}
        done = run("fireworks", prompt, "-o", "x.png", **base)
        assert "--keep-filtered writes it" in error_line(done)
        assert done.returncode == 1
        assert not (tmp_path / "x.png").exists()
        kept = run("fireworks", prompt, "-o", "x.png", "--keep-filtered", **base)
    assert kept.returncode == 0
    assert b"filtered  the service says" in kept.stdout
    assert (tmp_path / "x.png").read_bytes() == body


# The types, and the emulator.


def test_types_as_json(tmp_path: Path) -> None:
    """A list for a part of names, one object for a name; every fact with its source."""
    listed = json.loads(cli("types", "flux-fast", "--json", cwd=tmp_path).stdout)
    assert SCENE in [each["name"] for each in listed]
    one = json.loads(cli("types", SCENE, "--json", cwd=tmp_path).stdout)
    assert one in listed
    (steps,) = [each for each in one["fields"] if each["name"] == "steps"]
    assert (steps["least"], steps["most"], steps["kind"]) == (1, 4, "integer")
    assert steps["source"].startswith("B, ")


@pytest.mark.parametrize("columns", [20, 60, 80, 100, 200])
def test_no_name_is_broken_in_two(columns: int, tmp_path: Path) -> None:
    """On a terminal of any width every name stands whole on a line (section 3, item 17)."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "prodia_async", "types"],
        env=environment(COLUMNS=str(columns), TERM="xterm"), cwd=tmp_path,
        stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    with process:
        while select.select([master], [], [], 20)[0]:
            try:
                read = os.read(master, 65536)
            except OSError:
                break
            if not read:
                break
            shown += read
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    words = text.split()
    canonical = [name for name in names() if name in words]
    assert len(canonical) > 100
    assert ("price" in words[:9]) is (columns == 200)
    if columns >= 60:
        assert max(map(len, text.splitlines())) <= columns


def test_near_misses_of_types(tmp_path: Path) -> None:
    """A filter that finds nothing names what is like it."""
    said = error_line(cli("types", "birefnett", cwd=tmp_path))
    assert "did you mean inference.birefnet" in said


def test_the_emulator_logs_and_fails_as_it_is_told(tmp_path: Path) -> None:
    """A line a request; the first ones fail; it says that the second API is there."""
    with serving("--log", "--fail", "503x2", "--fail", "400") as (process, line):
        exported = dict(pair.split("=", 1) for pair in line.split()[1:])
        done = cli("job", "ping", cwd=tmp_path, **exported)
        assert done.returncode == 1
        assert "400" in error_line(done)
        assert process.stdout is not None
        lines: list[str] = []
        while sum("POST /v2/job" in each for each in lines) < 3:
            lines.append(process.stdout.readline())
    logged = [each for each in lines if "POST /v2/job " in each]
    assert [each.split()[1] for each in logged] == ["503", "503", "400"]
    assert all("inference.ping.v1" in each and "not charged" in each for each in logged)
    assert any(each.startswith("export FIREWORKS_API_BASE=http://127.0.0.1:") for each in lines)


def test_the_emulator_is_as_slow_as_it_is_told(tmp_path: Path) -> None:
    """A picture of tens of kilobytes takes its time, after a failure that does not."""
    with serving("--slow", "20000", "--fail", "503") as (_, line):
        exported = dict(pair.split("=", 1) for pair in line.split()[1:])
        began = time.monotonic()
        done = cli(
            "job", "flux-fast.schnell", "-c", "prompt=x", "-c", "width=256", "-c", "height=256",
            "-o", "x.jpg", cwd=tmp_path, **exported,
        )  # fmt: skip
        seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert b"attempts  2 (503" in done.stdout
    assert seconds >= (tmp_path / "x.jpg").stat().st_size / 20000
