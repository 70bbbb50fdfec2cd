"""One answer while it comes: order, back-pressure, skipping, leaving, damage."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import on_both_loops, until
from raw_server import (
    JOB_JSON,
    JOB_PART,
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
    AsyncProdia,
    BadRequestError,
    DeadlineExceededError,
    JobFailedError,
    JobResult,
    MalformedResponseError,
    OutputPart,
    ProdiaError,
    ResponseError,
    TruncatedResponseError,
)

if TYPE_CHECKING:
    from prodia_async import JobStream

VIDEO = {"type": "inference.veo.txt2vid.v1"}


def client(server: RawServer, **options: object) -> AsyncProdia:
    return AsyncProdia("token", base_url=server.url, max_concurrency=1, **options)  # type: ignore[arg-type]


async def collect(stream: JobStream) -> list[object]:
    return [await each.read() if isinstance(each, OutputPart) else each async for each in stream]


async def stream_output(stream: JobStream) -> OutputPart:
    async for each in stream:
        if isinstance(each, OutputPart):
            return each
    pytest.fail("there is no output")


@on_both_loops
async def test_the_job_result_comes_before_the_first_output_byte() -> None:
    """The job part is handed over while the server has not begun the output yet."""
    import threading

    seen = threading.Event()

    def reply(conversation: Conversation) -> None:
        body = multipart(JOB_PART, OUTPUT_PART)
        head = http(body=b"", length=len(body))
        conversation.send(head + JOB_PART)
        assert seen.wait(5)
        conversation.send(body[len(JOB_PART) :])

    with RawServer([reply]) as server:
        async with client(server) as prodia, prodia.stream(VIDEO) as stream:
            first = await anext(aiter(stream))
            assert isinstance(first, JobResult)
            seen.set()
            output = await anext(aiter(stream))
            assert isinstance(output, OutputPart)
            assert (output.filename, output.content_type) == ("picture", "image/png")
            assert await output.read() == PICTURE
            assert [each async for each in stream] == []
            assert "complete" in repr(stream)
            assert "image/png 'picture'" in repr(output)


@on_both_loops
async def test_an_unread_output_is_skipped() -> None:
    """The next step passes over what was not read, or not to its end."""
    parts = [part("output", str(at), None, bytes([at]) * 100_000) for at in range(4)]
    with RawServer([say(http(body=multipart(JOB_PART, *parts)))]) as server:
        async with client(server) as prodia, prodia.stream(VIDEO) as stream:
            read = []
            async for each in stream:
                if isinstance(each, OutputPart) and each.filename == "1":
                    read.append(await anext(each.aiter_bytes()))
                elif isinstance(each, OutputPart) and each.filename == "3":
                    read.append(await each.read())
        assert set(read[0]) == {1}
        assert read[1] == bytes([3]) * 100_000
        assert prodia.statistics().completed == 1


@on_both_loops
async def test_an_output_can_be_read_once() -> None:
    """Reading twice, or after the stream moved on, is a clear mistake."""
    body = multipart(JOB_PART, OUTPUT_PART, OUTPUT_PART)
    with RawServer([say(http(body=body))]) as server:
        async with client(server) as prodia, prodia.stream(VIDEO) as stream:
            outputs = [each async for each in stream if isinstance(each, OutputPart)]
            with pytest.raises(RuntimeError, match="once"):
                await outputs[0].read()


@on_both_loops
async def test_a_part_that_was_passed_over() -> None:
    """Whoever still reads it is told, rather than given a piece; at its end there is nothing."""
    body = multipart(JOB_PART, *[part("output", str(at), None, bytes(300_000)) for at in range(4)])
    with RawServer([say(http(body=body))]) as server:
        async with client(server) as prodia, prodia.stream(VIDEO) as stream:
            first = await stream.output()
            late = first.aiter_bytes()
            await anext(late)
            second = await stream.output()
            with pytest.raises(RuntimeError, match="went on to its next part"):
                await anext(late)
            chunks = second.aiter_bytes()
            assert sum([len(chunk) async for chunk in chunks]) == 300_000
            with pytest.raises(StopAsyncIteration):
                await anext(chunks)
            for number in ("2", "3"):  # an error names three parts at the most
                assert (await stream.output()).filename == number


@on_both_loops
async def test_saving_as_it_comes(tmp_path: Path) -> None:
    """Outputs go to disk in a folder under safe, different names, or to the file that is named."""
    big = os.urandom(3_000_000)
    parts = [
        part("output", "../clip.mp4", "video/mp4", big),
        part("output", "../clip.mp4", "video/mp4", b"2"),
        part("output", None, None, PICTURE),
    ]
    with RawServer([say(http(body=multipart(JOB_PART, *parts)))]) as server:
        async with client(server) as prodia, prodia.stream(VIDEO) as stream:
            saved = [
                await each.save(tmp_path) async for each in stream if isinstance(each, OutputPart)
            ]
    assert [each.name for each in saved] == ["clip.mp4", "clip-2.mp4", "output.png"]
    assert await anyio.Path(saved[0]).read_bytes() == big
    assert sorted(os.listdir(tmp_path)) == sorted(each.name for each in saved)


@on_both_loops
async def test_leaving_early_closes_and_frees() -> None:
    """A block left after the job result closes the connection and gives the slot back."""

    def endless(conversation: Conversation) -> None:
        opening = JOB_PART + part("output", "a", "video/mp4", b"")[:-2]
        conversation.send(http(body=opening, length=10**12))
        while True:
            conversation.send(bytes(100_000))

    with RawServer([endless]) as server:
        async with client(server) as prodia:
            async with prodia.stream(VIDEO) as stream:
                async for _ in stream:
                    break
            assert prodia.statistics().in_flight == 0
            await until(lambda: server.open == 0)
            assert (await prodia.job(VIDEO)).outputs
        assert server.connections == 2


@on_both_loops
async def test_a_slow_reader_slows_the_server_down() -> None:
    """Nothing is read ahead beyond what the socket and one buffer hold."""
    sent = 0

    def flood(conversation: Conversation) -> None:
        nonlocal sent
        head = part("output", "a", "video/mp4", b"")[:-2]
        conversation.send(http(body=JOB_PART + head, length=10**12))
        while True:
            conversation.send(bytes(100_000))
            sent += 100_000

    with RawServer([flood]) as server:
        async with client(server) as prodia, prodia.stream(VIDEO) as stream:
            async for each in stream:
                if isinstance(each, OutputPart):
                    await anext(each.aiter_bytes())
                    before = -1
                    while sent != before:
                        before = sent
                        await anyio.sleep(0.2)
                    break
    assert sent < 30_000_000


@on_both_loops
async def test_a_gigabyte_needs_no_memory(tmp_path: Path) -> None:
    """A large output is written as it comes; memory stays flat."""
    size = 200_000_000

    def reply(conversation: Conversation) -> None:
        opening = JOB_PART + part("output", "big.mp4", "video/mp4", b"")[:-2]
        closing = multipart(b"")
        closing = b"\r\n" + closing
        conversation.send(http(body=opening, length=len(opening) + size + len(closing)))
        piece = bytes(1_000_000)
        for _ in range(size // len(piece)):
            conversation.send(piece)
        conversation.send(closing)

    with RawServer([reply]) as server:
        async with client(server) as prodia, prodia.stream(VIDEO) as stream:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            async for each in stream:
                if isinstance(each, OutputPart):
                    saved = await each.save(tmp_path)
                    assert (await anyio.Path(saved).stat()).st_size == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


@on_both_loops
async def test_a_cut_answer_leaves_no_file(tmp_path: Path) -> None:
    """A truncated output is an error with the job result, and no file under its final name."""
    body = JOB_PART + part("output", "a.mp4", "video/mp4", bytes(2_000_000))[:-10]
    with RawServer([say(http(body=body, length=None), close=True)]) as server:
        async with client(server) as prodia:
            with pytest.raises(TruncatedResponseError) as caught:
                async with prodia.stream(VIDEO) as stream:
                    async for each in stream:
                        if isinstance(each, OutputPart):
                            await each.save(tmp_path / "a.mp4")
            assert prodia.statistics().in_flight == 0
            assert prodia.statistics().failed == 1
    assert caught.value.job is not None
    assert [each.fate for each in caught.value.attempts] == ["ran"]
    assert caught.value.bytes_received > 1_900_000
    assert os.listdir(tmp_path) == []


@on_both_loops
async def test_a_file_that_cannot_be_opened_costs_nothing(tmp_path: Path) -> None:
    """The error is the caller's OSError, and the output can still be saved elsewhere."""
    await anyio.Path(tmp_path / "a-file").write_bytes(b"")
    with RawServer() as server:
        async with client(server) as prodia, prodia.stream(VIDEO) as stream:
            part = await stream_output(stream)
            for wrong in (tmp_path / "a-file" / "x.png", "", tmp_path / ("n" * 300)):
                with pytest.raises(OSError) as caught:
                    await part.save(wrong)
                assert caught.value.filename == str(wrong)
            saved = await part.save(tmp_path / "typo" / "x.png")
        assert await anyio.Path(saved).read_bytes() == PICTURE
        assert prodia.statistics().completed == 1
    assert sorted(os.listdir(tmp_path)) == ["a-file", "typo"]


LIMITS = """
import anyio, errno, os, resource, sys
sys.path.insert(0, sys.argv[2])
from raw_server import RawServer, PICTURE
from prodia_async import AsyncProdia, OutputPart

async def main():
    with RawServer() as server:
        async with AsyncProdia("t", base_url=server.url) as prodia:
            async with prodia.stream({"type": "inference.ping.v1"}) as stream:
                async for part in stream:
                    if not isinstance(part, OutputPart):
                        continue
                    await anyio.to_thread.run_sync(int)  # the thread is there already
                    free = os.dup(0)  # the lowest that is free, and so the first out of bounds
                    os.close(free)
                    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
                    try:
                        await part.save(sys.argv[1] + "/x.png")
                    except OSError as error:
                        print(errno.errorcode[error.errno], error.filename)
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                    saved = await part.save(sys.argv[1] + "/x.png")
                    print(saved.read_bytes() == PICTURE, os.listdir(sys.argv[1]))
anyio.run(main)
"""


def test_no_file_can_be_opened(tmp_path: Path) -> None:
    """Out of file descriptors: an OSError that names the path, and the output is still there."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITS, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stdout == f"EMFILE {tmp_path}/x.png\nTrue ['x.png']\n", done.stderr


@on_both_loops
async def test_a_part_is_taken_once_by_whoever_comes_first(tmp_path: Path) -> None:
    """Of two that save one part at once, one gets it, and the other is told; no file is left."""
    results: list[object] = []

    async def save(part: OutputPart, name: str) -> None:
        try:
            results.append(await part.save(tmp_path / name))
        except RuntimeError as error:
            results.append(str(error))

    with RawServer() as server:
        async with client(server) as prodia, prodia.stream(VIDEO) as stream:
            part = await stream_output(stream)
            async with anyio.create_task_group() as group:
                group.start_soon(save, part, "a")
                group.start_soon(save, part, "b")
    assert sum("read once" in str(each) for each in results) == 1
    assert len(os.listdir(tmp_path)) == 1


@on_both_loops
async def test_a_fault_behind_a_whole_output_is_raised_after_it() -> None:
    """What is whole is handed over first, even when the fault came in the same piece."""
    body = multipart(JOB_PART, OUTPUT_PART, JOB_PART)
    with RawServer([say(http(body=body, length=len(body) + 10))]) as server:
        async with client(server) as prodia:
            got: list[object] = []
            with pytest.raises(MalformedResponseError, match="one job part, not two"):
                async with prodia.stream(VIDEO) as stream:
                    async for each in stream:
                        got.append(await each.read() if isinstance(each, OutputPart) else each)
    assert isinstance(got[0], JobResult)
    assert got[1] == PICTURE


@on_both_loops
async def test_a_failed_job_is_an_error() -> None:
    """A job part that says "failed" raises while iterating."""
    failed = JOB_JSON.replace(b'"completed"', b'"failed"')
    body = multipart(part("job", "job.json", "application/json", failed))
    with RawServer([say(http(body=body))]) as server:
        async with client(server) as prodia:
            with pytest.raises(JobFailedError):
                async with prodia.stream(VIDEO) as stream:
                    await collect(stream)


@on_both_loops
async def test_retries_come_before_the_block() -> None:
    """A refusal is waited out on entering; a 400 is raised there."""
    busy = say(http("429 Busy", b"", "Retry-After: 0.05"))
    bad = say(http("400 Bad", b"no", content_type="text/plain"))
    with RawServer([busy]) as server:
        async with client(server) as prodia:
            async with prodia.stream(VIDEO) as stream:
                assert len(await collect(stream)) == 2
            server.replies.append(bad)
            with pytest.raises(BadRequestError):
                async with prodia.stream(VIDEO):
                    pytest.fail("the block must not be entered")
            assert prodia.statistics().in_flight == 0
        assert len(server.requests) == 3


@on_both_loops
async def test_a_deadline_covers_reading() -> None:
    """A drip that goes on beyond the deadline is ended on time."""

    def drip(conversation: Conversation) -> None:
        conversation.send(http()[:400])
        while not conversation.server.over.wait(0.05):
            conversation.send(b"x")

    with RawServer([drip]) as server:
        async with client(server) as prodia:
            began = time.monotonic()
            with pytest.raises(DeadlineExceededError) as caught:
                async with prodia.stream(VIDEO, deadline=0.4) as stream:
                    with pytest.raises(DeadlineExceededError) as inside:
                        await collect(stream)
                    # Whoever catches it in the block is told as much as whoever does outside.
                    assert (inside.value.may_have_run, inside.value.stage) == (True, "reading")
                    raise inside.value
            assert time.monotonic() - began < 0.4 + 0.1
            assert prodia.statistics().in_flight == 0
    error = caught.value
    assert (error.may_have_run, error.stage, error.retry_after) == (True, "reading", None)
    assert "its answer had begun" in error.message
    assert [each.fate for each in error.attempts] == [error.fate] == ["ran"]


@on_both_loops
async def test_a_direct_answer_streams_too() -> None:
    """With multipart=False the one output comes without a job result; HTTP proves it whole."""
    whole = PICTURE + b"IEND\xaeB`\x82" + bytes(100)
    with RawServer([say(http(body=whole, content_type="image/png"))]) as server:
        async with client(server) as prodia:
            async with prodia.stream(VIDEO, multipart=False) as stream:
                assert await collect(stream) == [whole]


@on_both_loops
async def test_an_output_that_may_be_cut_is_handed_over_with_the_error(tmp_path: Path) -> None:
    """Nobody said how long it is, and its format says it lacks its end: it is not thrown away."""
    answer = say(http(body=PICTURE, content_type="image/png", length=None), close=True)
    with RawServer([answer] * 4) as server:
        async with client(server) as prodia:
            with pytest.raises(TruncatedResponseError, match="lacks the end") as caught:
                async with prodia.stream(VIDEO, multipart=False) as stream:
                    await (await stream.output()).read()
            assert [each.content for each in caught.value.outputs] == [PICTURE]
            assert caught.value.path is None
            with pytest.raises(TruncatedResponseError, match="lacks the end") as caught:
                async with prodia.stream(VIDEO, multipart=False) as stream:
                    await (await stream.output()).save(tmp_path / "a.png")
            assert caught.value.path == tmp_path / "a.png"
            assert await anyio.Path(tmp_path / "a.png").read_bytes() == PICTURE
            seen = b""
            with pytest.raises(TruncatedResponseError, match="lacks the end"):
                async with prodia.stream(VIDEO, multipart=False) as stream:
                    async for chunk in (await stream.output()).aiter_bytes():
                        seen += chunk
            assert seen == PICTURE
            # Who does not read it does not ask.
            async with prodia.stream(VIDEO, multipart=False) as stream:
                assert len([each async for each in stream]) == 1
            assert prodia.statistics().failed == 3


@on_both_loops
async def test_a_stream_judges_as_a_job_does(tmp_path: Path) -> None:
    """A portal's page is no film, and a job that has not ended is no answer."""
    page = http(body=b"Please log in", content_type="text/plain")
    unfinished = multipart(
        part("job", None, None, JOB_JSON.replace(b'"completed"', b'"processing"'))
    )
    picture = http(body=PICTURE, content_type="image/png")
    with RawServer([say(page), say(http(body=unfinished)), say(picture)]) as server:
        async with client(server) as prodia:
            with pytest.raises(MalformedResponseError, match="beginning b'Please log in'"):
                async with prodia.stream(VIDEO) as stream:
                    await (await stream.output()).save(tmp_path / "clip.mp4")
            with pytest.raises(MalformedResponseError, match="must be final") as caught:
                async with prodia.stream(VIDEO) as stream:
                    await collect(stream)
            assert caught.value.job_id is not None
            # A picture is paid for: it is handed over first.
            with pytest.raises(MalformedResponseError, match=r"brought <OutputPart image/png>"):
                async with prodia.stream(VIDEO) as stream:
                    async for each in stream:
                        assert isinstance(each, OutputPart)
                        assert await each.read() == PICTURE
            assert prodia.statistics().failed == 3
    assert os.listdir(tmp_path) == []


@on_both_loops
async def test_the_first_output() -> None:
    """One line for the usual case; what is not there is said in one, too."""
    only_job = say(http(body=multipart(JOB_PART)))
    with RawServer([say(http()), only_job]) as server:
        async with client(server) as prodia:
            async with prodia.stream(VIDEO) as stream:
                assert await (await stream.output()).read() == PICTURE
                with pytest.raises(ResponseError, match="without a further output"):
                    await stream.output()
            async with prodia.stream(VIDEO) as stream:
                with pytest.raises(ResponseError, match="without an output"):
                    await stream.output()
            assert prodia.statistics().completed == 2


@on_both_loops
async def test_a_stream_is_a_block() -> None:
    """Taken for the stream itself, or awaited, it says how it is meant; nothing was sent."""
    with RawServer() as server:
        async with client(server) as prodia:
            block: Any = prodia.stream(VIDEO)
            with pytest.raises(TypeError, match=r"async with client\.stream"):
                async for _ in block:
                    pass
            with pytest.raises(AttributeError, match="'output' is the stream's, and that a block"):
                await block.output()
            assert not hasattr(block, "nonsense")
            with pytest.raises(TypeError, match="opened by a block, not awaited"):
                await block
    assert server.requests == []


@on_both_loops
async def test_reading_after_the_block(tmp_path: Path) -> None:
    """That is a mistake of the reader's, and is called one; the server is not blamed."""
    with RawServer() as server:
        async with client(server) as prodia:
            async with prodia.stream(VIDEO) as stream:
                part = await stream.output()
            for reading in (part.read, lambda: part.save(tmp_path), lambda: anext(aiter(stream))):
                with pytest.raises(RuntimeError, match="the block of this stream was left"):
                    await reading()
            assert os.listdir(tmp_path) == []
            async with prodia.stream(VIDEO) as stream:
                await collect(stream)
            assert [each async for each in stream] == []  # complete, and stays so
            part.leave()


@on_both_loops
async def test_slow_readers_hold_no_slots() -> None:
    """The job part says that the server has finished: the next job starts while one reads on."""
    big = bytes(5_000_000)
    body = multipart(JOB_PART, part("output", "a", "video/mp4", big))
    with RawServer([say(http(body=body))] * 4) as server:
        async with client(server) as prodia, AsyncExitStack() as stack:
            parts = []
            for _ in range(4):  # max_concurrency is 1
                with anyio.fail_after(5):
                    stream = await stack.enter_async_context(prodia.stream(VIDEO))
                    parts.append(await stream.output())
            assert prodia.statistics().in_flight == 0
            assert [await each.read() for each in parts] == [big] * 4
        assert prodia.statistics().completed == 4


@on_both_loops
async def test_a_job_that_goes_on_keeps_its_slot() -> None:
    """A job part that does not say that the job has ended frees nothing."""
    going = JOB_JSON.replace(b'"completed"', b'"processing"')
    body = multipart(part("job", None, None, going), OUTPUT_PART)
    with RawServer([say(http(body=body))]) as server:
        async with client(server) as prodia, prodia.stream(VIDEO) as stream:
            assert await (await stream.output()).read() == PICTURE
            assert prodia.statistics().in_flight == 1


@pytest.mark.slow
@on_both_loops
async def test_the_readers_own_time_does_not_count() -> None:
    """A film that is handed over whole is no error, however long its reader took."""
    big = os.urandom(3_000_000)
    body = multipart(JOB_PART, part("output", "a", "video/mp4", big))
    with RawServer([say(http(body=body))]) as server:
        async with client(server) as prodia:
            async with prodia.stream(VIDEO, deadline=0.6) as stream:
                content = b""
                async for chunk in (await stream.output()).aiter_bytes():
                    if len(content) < 1_000_000 <= len(content) + len(chunk):
                        await anyio.sleep(0.8)
                    content += chunk
                assert content == big
                assert [each async for each in stream] == []
            assert prodia.statistics().completed == 1


@on_both_loops
async def test_an_untyped_output_is_recognised() -> None:
    """An output without Content-Type gets its type from its first bytes."""
    body = multipart(JOB_PART, part("output", None, None, PICTURE), part("output", None, None, b""))
    with RawServer([say(http(body=body))]) as server:
        async with client(server) as prodia, prodia.stream(VIDEO) as stream:
            kinds = [each.content_type async for each in stream if isinstance(each, OutputPart)]
    assert kinds == ["image/png", "application/octet-stream"]


@on_both_loops
async def test_errors_of_others_pass_through_the_block() -> None:
    """What the block raises comes out as it is, and keeps its own attempts."""
    bad = say(http("400 Bad", b"no", content_type="text/plain"))
    with RawServer() as server, RawServer([bad]) as other:
        async with client(server) as prodia, client(other) as second:
            with pytest.raises(LookupError):
                async with prodia.stream(VIDEO):
                    raise LookupError
            with pytest.raises(ProdiaError) as caught:
                async with prodia.stream(VIDEO):
                    await second.job(VIDEO)
    assert [each.status_code for each in caught.value.attempts] == [400]


@on_both_loops
async def test_cancelled_in_the_middle_of_a_part() -> None:
    """Cancelled while reading: out at once, slot and connection back."""

    def stall(conversation: Conversation) -> None:
        conversation.send(http()[:-100])
        conversation.stall()

    with RawServer([stall]) as server:
        async with client(server) as prodia:
            began = time.monotonic()
            with anyio.move_on_after(0.3):
                async with prodia.stream(VIDEO) as stream:
                    await collect(stream)
            assert time.monotonic() - began < 0.4
            assert prodia.statistics().in_flight == 0
            await until(lambda: server.open == 0)
