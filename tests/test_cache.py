"""Answers kept in a folder: what is known again, what is not, and what a broken folder costs."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import on_both_loops
from raw_server import (
    JOB_JSON,
    OUTPUT_PART,
    PICTURE,
    Conversation,
    RawServer,
    http,
    multipart,
    part,
    say,
)

from prodia_async import (
    PNG,
    AsyncProdia,
    DeadlineExceededError,
    Input,
    InvalidRequestError,
    Job,
    JobResponse,
    Timing,
)
from prodia_async._cache import AnswerCache, has_seed, pack, unpack
from prodia_async._outputs import Output
from prodia_async._results import JobResult, Price
from prodia_async.fireworks import AsyncFireworks, CannyEdgeDetection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TYPE = "inference.ping.v1"
SEEDED = {"type": TYPE, "config": {"prompt": "a cat", "seed": 7}}
URL = "https://x.example"


def answers(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.is_file())


@on_both_loops
async def test_a_cell_that_runs_twice_pays_once(tmp_path: Path) -> None:
    """The second answer is the first, byte for byte, marked as cached, and not counted."""
    priced = JOB_JSON.replace(b'"config"', b'"price":{"product":"p","dollars":0.25},"config"')
    body = multipart(part("job", "job.json", "application/json", priced), OUTPUT_PART)
    with RawServer([say(http(body=body), charge=True)]) as server:
        for again in (False, True):
            async with AsyncProdia("t", base_url=server.url, cache=tmp_path, price=True) as prodia:
                response = await prodia.job(SEEDED)
                assert response.cached is again
                assert response.content == PICTURE
                assert response.outputs[0].content_type == "image/png"
                assert response.outputs[0].filename == "picture"
                assert response.seed == 42
                assert response.request_id == "11111111-2222-4333-8444-555555555555"
                assert response.dollars == (None if again else 0.25)
                assert prodia.statistics().dollars == (0.0 if again else 0.25)
    assert server.charges == 1


@pytest.mark.parametrize(
    "other",
    [
        {"job": {**SEEDED, "config": {"prompt": "a dog", "seed": 7}}},
        {"job": {**SEEDED, "config": {"prompt": "a cat", "seed": 8}}},
        {"job": {**SEEDED, "type": "inference.pong.v1"}},
        {"accept": PNG()},
        {"inputs": [b"1"]},
        {"job": {**SEEDED, "config": {"prompt": "a cat"}}},
        {"multipart": False, "accept": "image/png"},
        {"extra_query": {"a": "b"}},
    ],
)
async def test_what_is_not_the_same(tmp_path: Path, other: dict[str, Any]) -> None:
    """Another type, config, seed, format or input; and what has no seed is asked each time."""
    direct = say(http(body=PICTURE + b"IEND\xaeB`\x82", content_type="image/png"), charge=True)
    with RawServer() as server:
        async with AsyncProdia("t", base_url=server.url, cache=tmp_path) as prodia:
            await prodia.job(SEEDED)
            if other.get("multipart") is False:
                server.replies.append(direct)
            call = {"job": SEEDED, **other}
            assert not (await prodia.job(**call)).cached
    assert server.charges == 2


@on_both_loops
async def test_an_input_of_the_same_bytes(tmp_path: Path) -> None:
    """What counts is what is in the file, not where it lies."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(PICTURE)
    with RawServer() as server:
        async with AsyncProdia("t", base_url=server.url, cache=tmp_path / "c") as prodia:
            await prodia.job(SEEDED, inputs=[tmp_path / "one" / "a.png"])
            again = await prodia.job(SEEDED, inputs=[Input(tmp_path / "two" / "a.png")])
            assert again.cached
            (tmp_path / "two" / "a.png").write_bytes(PICTURE + b"x")
            assert not (await prodia.job(SEEDED, inputs=[tmp_path / "two" / "a.png"])).cached


async def test_the_clients_own_format_counts(tmp_path: Path) -> None:
    """A default of the client's is part of what is asked."""
    with RawServer() as server:
        async with AsyncProdia("t", base_url=server.url, cache=tmp_path) as prodia:
            await prodia.job(SEEDED)
            assert not (await prodia.with_options(accept=PNG()).job(SEEDED)).cached
            assert (await prodia.job(SEEDED, accept=PNG())).cached
            assert not (await prodia.with_options(cache=None).job(SEEDED)).cached


async def test_another_server_is_another_answer(tmp_path: Path) -> None:
    """What an emulator made is not handed out as the API's."""
    for _ in range(2):
        with RawServer() as server:
            async with AsyncProdia("t", base_url=server.url, cache=tmp_path) as prodia:
                assert not (await prodia.job(SEEDED)).cached


@pytest.mark.parametrize("api", ["prodia", "fireworks"])
@on_both_loops
async def test_the_deadline_covers_the_look(api: str, tmp_path: Path) -> None:
    """An input that is slow to be read keeps nobody beyond it, and what it took is gone of it."""
    took = 30.0
    asked = 0

    async def slow() -> AsyncIterator[bytes]:
        nonlocal asked
        asked += 1
        await anyio.sleep(took if asked == 1 else 0.0)
        yield PICTURE

    def stall(conversation: Conversation) -> None:
        conversation.stall()

    async def run(deadline: float) -> Any:
        picture = Input(slow, "a.png", size=len(PICTURE))
        if isinstance(client, AsyncProdia):
            return await client.job(SEEDED, inputs=[picture], deadline=deadline)
        return await client.run(CannyEdgeDetection(picture, deadline=deadline))

    kind = AsyncProdia if api == "prodia" else AsyncFireworks
    with RawServer([stall] * 2) as server:
        async with kind("t", base_url=server.url, cache=tmp_path) as client:
            with anyio.fail_after(5), pytest.raises(DeadlineExceededError) as caught:
                await run(0.2)
            assert not caught.value.may_have_run
            assert "0.2 s" in caught.value.message
            assert f"an answer that is kept in {tmp_path}, by the bytes" in caught.value.message
            assert server.requests == []
            took, asked = 0.4, 0
            began = anyio.current_time()
            with anyio.fail_after(5), pytest.raises(DeadlineExceededError) as caught:
                await run(0.6)
            assert 0.55 <= anyio.current_time() - began < 0.9
            assert caught.value.may_have_run
            with pytest.raises(InvalidRequestError, match="deadline"):
                await run(-1.0)
    assert len(server.requests) == 1


async def test_of_many(tmp_path: Path) -> None:
    """A map that is run again pays for nothing it had."""
    jobs = [{"type": TYPE, "config": {"seed": seed}} for seed in range(5)]
    with RawServer() as server:
        async with AsyncProdia("t", base_url=server.url, cache=tmp_path) as prodia:
            for again in (False, True):
                async with prodia.map(jobs) as outcomes:
                    found = [outcome.unwrap().cached async for outcome in outcomes]
                assert found == [again] * 5
    assert server.charges == 5


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "old"])
@on_both_loops
async def test_a_damaged_file_is_noticed_and_asked_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in the log, paid again, and whole afterwards."""
    caplog.set_level(logging.WARNING, logger="prodia_async")
    with RawServer() as server:
        async with AsyncProdia("t", base_url=server.url, cache=tmp_path) as prodia:
            await prodia.job(SEEDED)
            (kept,) = answers(tmp_path)
            content = kept.read_bytes()
            kept.write_bytes(
                {
                    "cut": content[:-100],
                    "empty": b"",
                    "flipped": content[:-50] + b"?" + content[-49:],
                    "old": b"something else\n" + content,
                }[damage]
            )
            assert not (await prodia.job(SEEDED)).cached
            assert (await prodia.job(SEEDED)).cached
        assert kept.read_bytes() == content
    assert server.charges == 2
    assert any("asked for anew" in each for each in caplog.messages)


@pytest.mark.parametrize("fault", ["a file in its way", "read-only", "full"])
@on_both_loops
async def test_a_folder_that_cannot_be_written_costs_no_answer(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is handed out, and the log says why it was not kept."""
    caplog.set_level(logging.WARNING, logger="prodia_async")
    folder = tmp_path / "cache"
    folder.mkdir()
    if fault == "read-only":
        if os.geteuid() == 0:
            folder = _read_only_anyway()
        else:
            folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    elif fault == "full":
        monkeypatch.setattr("prodia_async._files.PendingFile.write", _full)
    with RawServer() as server:
        async with AsyncProdia("t", base_url=server.url, cache=folder) as prodia:
            if fault == "a file in its way":
                folder.rmdir()
                folder.write_bytes(b"")
            assert (await prodia.job(SEEDED)).content == PICTURE
    assert any("could not be kept" in each for each in caplog.messages)
    if fault == "full":
        assert answers(folder) == []


def _read_only_anyway() -> Path:
    from pathlib import Path

    return Path("/proc/self")  # where not even root makes a folder


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_two_processes_at_once_tear_nothing(tmp_path: Path) -> None:
    """Each sees whole answers only, whoever wrote them."""
    script = """
        import asyncio, sys
        from prodia_async import AsyncProdia

        async def main():
            url, folder = sys.argv[1:]
            async with AsyncProdia("t", base_url=url, cache=folder) as prodia:
                jobs = [{"type": "t", "config": {"seed": n % 20}} for n in range(200)]
                async with prodia.map(jobs) as outcomes:
                    async for outcome in outcomes:
                        assert len(outcome.unwrap().content) == 2056

        asyncio.run(main())
    """
    with RawServer() as server:
        code = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
        url = server.url
        both = [
            subprocess.Popen([*code, server.url, str(tmp_path)], stderr=subprocess.PIPE)
            for _ in range(2)
        ]
        for each in both:
            _, told = each.communicate(timeout=60)
            assert (each.returncode, told) == (0, b"")
    assert len(answers(tmp_path)) == 20
    for kept in answers(tmp_path):
        assert unpack(kept.read_bytes(), base_url=url) is not None


def test_what_is_no_folder(tmp_path: Path) -> None:
    """A file, or a number, is refused when the client is built."""
    file = tmp_path / "a"
    file.write_bytes(b"")
    for folder in (file, 7, "x" * 5000):
        with pytest.raises(InvalidRequestError, match="cache must be a folder"):
            AsyncProdia("t", cache=folder)  # type: ignore[arg-type]
    assert repr(AnswerCache(tmp_path, base_url=URL)) == f"<AnswerCache {tmp_path}>"


async def test_a_bad_job_is_told_by_the_client(tmp_path: Path) -> None:
    """The cache looks the other way: what is wrong is said where it is always said."""
    with RawServer() as server:
        async with AsyncProdia("t", base_url=server.url, cache=tmp_path) as prodia:
            with pytest.raises(InvalidRequestError, match="type"):
                await prodia.job({"config": {"seed": 1}})
            with pytest.raises(InvalidRequestError, match="cannot read"):
                await prodia.job(SEEDED, inputs=["no/such/file"])
    assert server.requests == []


@pytest.mark.parametrize(
    ("job", "found"),
    [
        ({"type": "t", "config": {"seed": 1}}, True),
        ({"type": "t", "config": {"seed": True}}, False),
        ({"type": "t", "config": {"seed": "1"}}, False),
        ({"type": "t", "config": {}}, False),
        ({"type": "t"}, False),
        ({"type": "t", "config": 7}, False),
        (Job.serial(Job("a", {"seed": 1}), Job.moderate()).to_wire(), True),
        (Job.serial(Job("a", {"seed": 1}), Job("b", {})).to_wire(), False),
        (Job.serial(Job.moderate()).to_wire(), False),
        ({"type": "t", "jobs": [], "config": {"seed": 1}}, True),
    ],
)
def test_who_has_a_seed(job: dict[str, Any], found: bool) -> None:
    """An integer; in a workflow each step that makes something."""
    assert has_seed(job) is found


def test_an_answer_without_a_job_result() -> None:
    """It comes back as it was, empty outputs and all."""
    response = JobResponse(None, (Output(b"", "text/plain", None),), None, (), Timing(0, 0, 0, 0))
    again = unpack(b"".join(pack(response, base_url=URL)), base_url=URL)
    assert again is not None
    assert (again.job, again.outputs, again.cached) == (None, response.outputs, True)


def test_unknown_fields_of_a_job_result_are_kept() -> None:
    """The server's own words survive, but for the price."""
    job = JobResult.model_validate({"id": "1", "novelty": [1], "price": {"dollars": 2.0}})
    response = JobResponse(job, (), "r", (), Timing(0, 0, 0, 0))
    again = unpack(b"".join(pack(response, base_url=URL)), base_url=URL)
    assert again is not None
    assert again.job is not None
    assert again.job.model_extra == {"novelty": [1]}
    assert again.job.price is None
    assert job.price == Price(dollars=2.0)
    assert unpack(b"".join(pack(response, base_url=URL)), base_url="https://y.example") is None


async def test_a_cancelled_job_leaves_nothing_half_written(tmp_path: Path) -> None:
    """Whenever it is cancelled, the folder has whole answers only."""
    with RawServer() as server:
        url = server.url
        async with AsyncProdia("t", base_url=url, cache=tmp_path) as prodia:
            for ticks in range(12):
                job = {"type": TYPE, "config": {"seed": ticks}}
                task = asyncio.ensure_future(prodia.job(job))
                await asyncio.sleep(0.002 * ticks)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(0.1)
    for each in answers(tmp_path):
        assert each.suffix == ".answer"
        assert unpack(each.read_bytes(), base_url=url) is not None
