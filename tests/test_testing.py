"""The pytest plugin in a project of its own, answers made up, recorded and replayed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import httpx
import pytest
import respx
from raw_server import Conversation, RawServer

from prodia_async import (
    AsyncProdia,
    CapacityError,
    ConnectionLostError,
    Input,
    InvalidRequestError,
    Job,
    JobFailedError,
    JobRequest,
    Output,
)
from prodia_async.emulator import Emulator
from prodia_async.testing import (
    NotRecordedError,
    ProdiaFixture,
    answer,
    no_waiting,
    record,
    replay,
)
from prodia_async.testing._recordings import describe, key_of

PROJECT = Path(__file__).parent / "plugin_project"
TOKEN = "a-secret-token-of-mine"
JOB = Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": "a cat", "seed": 7})
URL = "https://inference.prodia.com/v2/job"


def run_project(
    python: str | Path, mode: str, *, project: Path = PROJECT
) -> subprocess.CompletedProcess[str]:
    """Run the tests of the project beside us, as its own pytest would."""
    plugins = {
        "asyncio": ("-p", "no:anyio", "-o", "asyncio_default_fixture_loop_scope=function"),
        "anyio": ("-p", "no:asyncio"),
    }[mode]
    return subprocess.run(
        [str(python), "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", ".", "-W", "error",
         "-p", "no:cacheprovider", *plugins, "checks_app.py"],
        cwd=project, env={**os.environ, "MODE": mode}, check=False,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def outcomes(done: subprocess.CompletedProcess[str]) -> tuple[int, int]:
    passed, failed = (re.search(rf"(\d+) {word}", done.stdout) for word in ("passed", "failed"))
    return int(passed[1]) if passed else 0, int(failed[1]) if failed else 0


@pytest.mark.parametrize(("mode", "times"), [("asyncio", 1), ("anyio", 2)])
def test_the_plugin_in_a_project(mode: str, times: int) -> None:
    """Found by its entry point; waits take no time; only the wrong handling fails."""
    done = run_project(sys.executable, mode)
    assert outcomes(done) == (3 * times, times), done.stdout + done.stderr
    assert "test_the_wrong_way_is_found" in done.stdout.partition("short test summary")[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_plugin_from_a_wheel(tmp_path: Path) -> None:
    """A project of its own: a fresh environment with the wheel, its extra and pytest-asyncio."""
    root = Path(__file__).parent.parent
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, root], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    wanted = [f"prodia-async[testing] @ file://{wheel}", "pytest-asyncio", "trio"]
    subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
    project = shutil.copytree(PROJECT, tmp_path / "project")
    where = "import prodia_async; print(prodia_async.__file__)"
    found = subprocess.run(
        [python, "-c", where], cwd=project, check=True, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(tmp_path))
    for mode, times in (("asyncio", 1), ("anyio", 2)):
        done = run_project(python, mode, project=project)
        assert outcomes(done) == (3 * times, times), done.stdout + done.stderr
        assert "test_the_wrong_way_is_found" in done.stdout.partition("short test summary")[2]


async def test_the_fixture_in_this_very_suite(prodia: ProdiaFixture) -> None:
    """Its client is the emulator's; PRODIA_TOKEN and PRODIA_BASE_URL lead there too."""
    assert os.environ["PRODIA_BASE_URL"] == prodia.base_url == prodia.emulator.base_url
    await prodia.client.job(JOB)
    assert prodia.waited == 0.0
    assert "ledger" in repr(prodia)


def test_the_fixture_in_a_plain_test(prodia: ProdiaFixture) -> None:
    """A test that runs its own loop leaves a client that is closed all the same."""
    prodia.emulator.fail_next(1, 429, retry_after=5)
    response = asyncio.run(prodia.client.job(JOB))
    assert response.job is not None
    assert 5 <= prodia.waited < 7


def test_a_fixture_that_has_not_begun() -> None:
    """It can be looked at."""
    assert repr(ProdiaFixture()) == "<ProdiaFixture not begun>"


async def ask(*answers: httpx.Response, job: Job = JOB, **options: object) -> object:
    with respx.mock, no_waiting():
        respx.post(URL).mock(side_effect=list(answers))
        async with AsyncProdia("token") as client:
            return await client.job(job, **options)  # type: ignore[arg-type]


async def test_an_answer_made_up() -> None:
    """The client reads it as it reads the server's; defaults are a job and a picture."""
    response = await ask(answer(status=429, retry_after=30), answer(JOB, dollars=0.5))
    assert response.job.config == {"prompt": "a cat", "seed": 7}  # type: ignore[attr-defined]
    assert response.job.price.dollars == 0.5  # type: ignore[attr-defined]
    assert response.output.content_type == "image/png"  # type: ignore[attr-defined]
    assert response.request_id == "a-request-of-a-test"  # type: ignore[attr-defined]
    assert [each.status_code for each in response.attempts] == [429, 200]  # type: ignore[attr-defined]
    assert response.attempts[0].wait >= 30  # type: ignore[attr-defined]


async def test_the_outputs_of_an_answer() -> None:
    """Bytes, an Output, name and bytes, with or without a type."""
    given = [
        b"\x89PNG\r\n\x1a\n and more",
        Output(b"x", "text/plain", "a.txt"),
        ("b", b"?"),
        ("c", b"y", "a/b"),
    ]
    response = await ask(answer(JobRequest(JOB), given))  # type: ignore[arg-type]
    got = [(each.filename, each.content_type) for each in response.outputs]  # type: ignore[attr-defined]
    assert got == [
        ("output-1.png", "image/png"),
        ("a.txt", "text/plain"),
        ("b", "application/octet-stream"),
        ("c", "a/b"),
    ]
    assert [each.content for each in response.outputs][2:] == [b"?", b"y"]  # type: ignore[attr-defined]
    direct = await ask(answer(multipart=False), multipart=False)
    assert direct.output.content_type == "image/png"  # type: ignore[attr-defined]
    with pytest.raises(InvalidRequestError, match="multipart=False needs an output"):
        answer(outputs=[], multipart=False)
    with pytest.raises(InvalidRequestError, match="must be bytes, an Output"):
        answer(outputs=[5])  # type: ignore[list-item]


async def test_an_answer_that_is_an_error() -> None:
    """A failed job, and an error status."""
    with pytest.raises(JobFailedError, match="too dark") as failed:
        await ask(answer({"config": {"seed": 3}}, error="too dark"))
    assert failed.value.outputs == ()
    with pytest.raises(CapacityError) as busy:
        await ask(answer(status=429, retry_after=3600))
    assert busy.value.retry_after == 3600
    assert answer(status=400, error="no prompt").text == "no prompt"
    assert "made up" in answer(status=500).text


async def run_some(client: AsyncProdia) -> list[object]:
    """A job that is refused first, one with an input, one that is left with the server."""
    first = await client.job(JOB, price=True)
    edit = Job("inference.nano-banana.img2img.v2", {"prompt": "x", "images": ["a.png"]})
    second = await client.job(
        edit, inputs=[Input(first.output.content, "a.png")], accept="image/png"
    )
    third = await client.job(JOB, via="async")
    return [first.job, first.outputs, second.outputs, third.outputs]


async def test_recorded_answers_are_replayed(tmp_path: Path) -> None:
    """The same outputs and waits, without a server; the token is nowhere in the folder."""
    folder = tmp_path / "deep" / "answers"
    with no_waiting() as skipped:
        with Emulator(tokens=[TOKEN]) as emulator:
            emulator.fail_next(1, 429, retry_after=30)
            async with AsyncProdia(
                TOKEN, base_url=emulator.base_url, transport=record(folder)
            ) as client:
                live = await run_some(client)
        before = skipped.waited
        assert before >= 30
        transport = replay(folder)
        for _ in range(2):  # the last answer is repeated
            async with AsyncProdia("other", transport=transport) as client:
                again = await run_some(client)
            assert [repr(each) for each in again] == [repr(each) for each in live]
            assert again[1:] == live[1:]
        assert skipped.waited >= before + 30
    texts = b"".join(path.read_bytes() for path in folder.iterdir())
    assert TOKEN.encode() not in texts
    assert b"uthorization" not in texts


async def test_a_token_that_the_server_echoes_is_blotted_out(tmp_path: Path) -> None:
    """In body and headers, and in what was asked; lengths stay, so that the answer can be read."""

    def echo(request: httpx.Request) -> httpx.Response:
        shown = request.headers["authorization"]
        return answer(JOB, [f"I saw {shown}".encode()], request_id=shown)

    job = Job(JOB.type, {"prompt": TOKEN})
    transport = record(tmp_path, transport=httpx.MockTransport(echo))
    async with AsyncProdia(TOKEN, transport=transport) as client:
        live = await client.job(job)
    assert TOKEN.encode() in live.output.content
    kept = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))
    assert TOKEN.encode() not in kept
    assert b"Bearer " + b"*" * len(TOKEN) in kept


async def test_a_recording_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    """Of the same question nothing older is left, which would be given after the new answers."""
    given = [answer(JOB, [each]) for each in (b"old 1", b"old 2", b"old 3", b"other", b"new")]
    other = Job(JOB.type, {"prompt": "a dog"})
    for jobs in ([JOB, JOB, JOB, other], [JOB]):
        transport = record(tmp_path, transport=httpx.MockTransport(lambda _: given.pop(0)))
        async with AsyncProdia(TOKEN, transport=transport) as client:
            for job in jobs:
                await client.job(job)
    async with AsyncProdia("none", transport=replay(tmp_path)) as client:
        again = [await client.job(job) for job in (JOB, JOB, other)]
    assert [each.output.content for each in again] == [b"new", b"new", b"other"]


async def test_a_recording_that_cannot_be_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Found before anything is paid; what is found after it costs nobody the answer."""
    with Emulator() as emulator:
        (tmp_path / "file").touch()
        transport = record(tmp_path / "file" / "answers")
        async with AsyncProdia(TOKEN, base_url=emulator.base_url, transport=transport) as client:
            with pytest.raises(InvalidRequestError, match="nothing can be recorded in") as caught:
                await client.job(JOB)
        assert not caught.value.may_have_run
        assert emulator.ledger.totals().charged == 0
        folder = tmp_path / "answers"
        transport = record(folder)
        real = transport._keep  # type: ignore[attr-defined]

        def full(*args: object) -> None:
            shutil.rmtree(folder)
            real(*args)

        transport._keep = full  # type: ignore[attr-defined]
        async with AsyncProdia(TOKEN, base_url=emulator.base_url, transport=transport) as client:
            assert (await client.job(JOB)).output.content
        assert emulator.ledger.totals().charged == 1
    assert "was not recorded in" in caplog.text


async def test_a_recorded_job_whose_answer_is_lost_is_paid_once(tmp_path: Path) -> None:
    """What is read to be recorded is sent from a copy, and is sent all the same."""

    def lose(conversation: Conversation) -> None:
        conversation.charge()
        conversation.reset()

    with RawServer([lose] * 9) as server:
        client = AsyncProdia(TOKEN, base_url=server.url, transport=record(tmp_path))
        with pytest.raises(ConnectionLostError) as caught:
            await client.job(JOB, inputs=[b"x" * 2_000_000])
        await client.aclose()
        assert server.charges == 1
    assert caught.value.may_have_run


async def test_a_token_of_a_letter_spoils_no_recording(tmp_path: Path) -> None:
    """It stands by chance in pictures and prompts; what is called a token goes out all the same."""
    picture = bytes(range(256))

    def echo(request: httpx.Request) -> httpx.Response:
        return answer(JOB, [picture, f"I saw {request.headers['authorization']}".encode()])

    transport = record(tmp_path, transport=httpx.MockTransport(echo))
    async with AsyncProdia("a", transport=transport) as client:
        await client.job(Job(JOB.type, {"prompt": "a cat"}))
    async with AsyncProdia("b", transport=replay(tmp_path)) as client:
        again = await client.job(Job(JOB.type, {"prompt": "a cat"}))
    assert [each.content for each in again.outputs] == [picture, b"I saw Bearer *"]
    assert '"a cat"' in next(tmp_path.glob("*.json")).read_text()


@pytest.mark.parametrize("wrong", ["missing", "empty"])
def test_a_replay_without_a_folder(tmp_path: Path, wrong: str) -> None:
    """Says how to record it, before any job."""
    folder = tmp_path if wrong == "empty" else tmp_path / "no"
    with pytest.raises(NotRecordedError, match=r"there are no recorded answers .*record\("):
        replay(folder)


async def test_a_replay_without_the_asked_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clear error at once that shows what comes nearest; never the network."""
    transport = record(tmp_path, transport=httpx.MockTransport(lambda _: answer(JOB)))
    async with AsyncProdia(TOKEN, transport=transport) as client:
        await client.job(JOB)
    (tmp_path / "other.json").write_text("{")

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", no_network)
    async with AsyncProdia("none", transport=replay(tmp_path)) as client:
        with pytest.raises(NotRecordedError) as caught:
            await client.job(Job(JOB.type, {"prompt": "a dog", "seed": 7}))
        assert "job.config.prompt was recorded as 'a cat', not 'a dog'" in str(caught.value)
        assert not caught.value.may_have_run
        assert len(caught.value.attempts) <= 1
        for path in tmp_path.glob("*.body"):
            path.unlink()
        with pytest.raises(NotRecordedError, match=r"cannot be read: .* record it again"):
            await client.job(JOB)
        for path in tmp_path.glob("*-1.json"):
            path.write_text(json.dumps({"asked": 5}))
        with pytest.raises(NotRecordedError, match="cannot be read"):
            await client.job(JOB)


async def test_a_folder_with_nothing_readable(tmp_path: Path) -> None:
    """There is nothing nearest to show."""
    (tmp_path / "x.json").write_text("?")
    async with AsyncProdia("none", transport=replay(tmp_path)) as client:
        with pytest.raises(NotRecordedError, match="no answer to this was recorded") as caught:
            await client.job(JOB)
    assert "Nearest" not in str(caught.value)


def test_what_a_request_asks() -> None:
    """Boundaries do not matter; queries, names and contents do."""

    def key(body: bytes, content_type: str = "application/json", url: str = URL) -> str:
        request = httpx.Request("POST", url, headers={"content-type": content_type})
        return key_of(describe(request, body))

    def form(boundary: str, content: bytes) -> str:
        body = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="job"\r\n\r\n{{"a": 1}}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="input"\r\n\r\n'
        ).encode() + content + f"\r\n--{boundary}--\r\n".encode()  # fmt: skip
        return key(body, f"multipart/form-data; boundary={boundary}")

    assert key(b'{"a": 1, "b": 2}') == key(b'{"b":2,"a":1}')
    assert key(b'{"a": 1}') != key(b'{"a": 2}')
    assert key(b"{}") != key(b"{}", url=f"{URL}?price=true")
    assert key(b"no JSON") != key(b"no json")
    assert key(b"") != key(b"null")
    assert form("xyz", b"1") == form("abc", b"1")
    assert form("xyz", b"1") != form("xyz", b"1\r\n")
