"""Request bodies: exact, replayable, cut into small views, honest about what changed."""

import email
import email.policy
import gc
import hashlib
import io
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import on_both_loops
from python_multipart import FormParser

from prodia_async import _uploads
from prodia_async._errors import InvalidRequestError
from prodia_async._sources import BLOCK_BYTES
from prodia_async._uploads import (
    VIEW_BYTES,
    BytesBody,
    FileFacts,
    FormBody,
    FormPart,
    measure,
)
from prodia_async._wire import Body

BIG = os.urandom(3 * VIEW_BYTES + 17)
NAME = "caf\xe9 \U0001f353 100%;x='y'.png"


async def read(body: Body) -> bytes:
    """Take a body to its end, and check the length it promised."""
    content = b"".join([bytes(chunk) async for chunk in body])
    assert len(content) == body.content_length
    return content


def part(content: bytes, filename: str = "a.png", kind: str = "image/png") -> FormPart:
    return FormPart("input", filename, kind, content, len(content))


def made(size: int, *chunks: Any, closed: list[bool] | None = None) -> FormPart:
    """A part whose bytes a function makes."""

    async def factory() -> AsyncIterator[bytes]:
        try:
            for chunk in chunks:
                if isinstance(chunk, BaseException):
                    raise chunk
                yield chunk
        finally:
            if closed is not None:
                closed.append(True)

    return FormPart("input", "f.bin", "a/b", factory, size)


def parse_with_email(body: Body, content: bytes) -> list[tuple[str, str, str, bytes]]:
    head = f"Content-Type: {body.content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message = email.message_from_bytes(head + content, policy=email.policy.HTTP)
    found = []
    for each in message.iter_parts():
        raw = each.get_payload(decode=True)
        assert isinstance(raw, bytes)
        name = str(each.get_param("name", header="content-disposition"))
        found.append((name, str(each.get_filename()), each.get_content_type(), raw))
    return found


def parse_with_python_multipart(body: Body, content: bytes) -> list[tuple[bytes, bytes, bytes]]:
    found: list[tuple[bytes, bytes, bytes]] = []

    def on_file(file: Any) -> None:
        file.file_object.seek(0)
        found.append((file.field_name, file.file_name, file.file_object.read()))

    boundary = body.content_type.partition("boundary=")[2]
    parser = FormParser("multipart/form-data", None, on_file, boundary=boundary)
    parser.write(content)
    parser.finalize()
    return found


@on_both_loops
async def test_two_independent_parsers_agree(tmp_path: Path) -> None:
    """Every byte of every kind of source arrives, by the stdlib's parser and another."""
    path = tmp_path / "x"
    path.write_bytes(BIG)
    parts = [
        FormPart("job", "job.json", "application/json", b'{"type":"t"}', 12),
        part(b"", "empty.png"),
        part(b"\r\n--boundary\r\n\r\n--", "tricky.bin"),
        part(BIG, "big.png"),
        FormPart("input", "file.png", "image/png", measure(path, 32), len(BIG)),
        made(len(BIG) + 3, BIG, b"", bytearray(b"abc")),
    ]
    sources = [b'{"type":"t"}', b"", b"\r\n--boundary\r\n\r\n--", BIG, BIG, BIG + b"abc"]
    body = FormBody(parts)
    content = await read(body)
    hashes = [hashlib.sha256(source).digest() for source in sources]
    by_email = parse_with_email(body, content)
    assert [(name, filename, kind) for name, filename, kind, _ in by_email] == [
        (each.name, each.filename, each.content_type) for each in parts
    ]
    assert [hashlib.sha256(raw).digest() for *_, raw in by_email] == hashes
    by_other = parse_with_python_multipart(body, content)
    assert [hashlib.sha256(raw).digest() for *_, raw in by_other] == hashes


@on_both_loops
async def test_a_filename_goes_out_as_browsers_write_it() -> None:
    """UTF-8 as it stands, in quotes: what servers compare config.images with."""
    body = FormBody([part(b"x", NAME)])
    content = await read(body)
    assert f'filename="{NAME}"\r\n'.encode() in content
    assert [name for _, name, _ in parse_with_python_multipart(body, content)] == [NAME.encode()]


@on_both_loops
async def test_exact_bytes() -> None:
    """The form on the wire, octet by octet."""
    body = FormBody([part(b"PNG")])
    boundary = body.content_type.removeprefix("multipart/form-data; boundary=")
    assert (
        await read(body)
        == (
            f'--{boundary}\r\nContent-Disposition: form-data; name="input"; filename="a.png"\r\n'
            f"Content-Type: image/png\r\n\r\nPNG\r\n--{boundary}--\r\n"
        ).encode()
    )


def test_no_two_bodies_share_a_boundary() -> None:
    """It is random, and long enough not to be met in a picture."""
    types = {FormBody([]).content_type for _ in range(100)}
    assert len(types) == 100
    assert all(len(each) >= len("multipart/form-data; boundary=") + 32 for each in types)


@on_both_loops
async def test_every_attempt_sends_the_same(tmp_path: Path) -> None:
    """A body can be sent any number of times, also from the start while half sent."""
    path = tmp_path / "x"
    path.write_bytes(BIG)
    body = FormBody(
        [
            part(BIG),
            FormPart("input", "f", "a/b", measure(path, 8), len(BIG)),
            made(4, b"ab", b"cd"),
        ]
    )
    half = aiter(body)
    await anext(half)
    first = await read(body)
    assert await read(body) == first
    await half.aclose()  # type: ignore[attr-defined]  # it is a generator
    bare = BytesBody(BIG, "a/b")
    assert await read(bare) == await read(bare) == BIG


@on_both_loops
async def test_memory_goes_out_in_views_of_at_most_256_kb() -> None:
    """Big bytes are not copied, small ones are joined, and no write is larger."""
    edge = [bytes(VIEW_BYTES - less) for less in (0, 1, 200, 400)]
    small = [bytes(100_000)] * 10
    body = FormBody([part(each) for each in [*edge, *small, BIG]] + [made(len(BIG), BIG)])
    chunks = [chunk async for chunk in body]
    assert max(map(len, chunks)) == VIEW_BYTES
    assert any(isinstance(chunk, memoryview) and chunk.obj is BIG for chunk in chunks)
    assert sum(map(len, chunks)) == body.content_length
    views = [chunk async for chunk in BytesBody(BIG, "a/b")]
    assert [len(view) for view in views] == [VIEW_BYTES] * 3 + [17]
    assert [bytes(chunk) async for chunk in BytesBody(b"x", "a/b")] == [b"x"]


@on_both_loops
async def test_a_small_job_is_one_write() -> None:
    """The heads ride with the bytes between them."""
    assert len([chunk async for chunk in FormBody([part(b"job"), part(b"input")])]) == 1


@on_both_loops
async def test_files_are_read_in_blocks(tmp_path: Path) -> None:
    """A file is never held whole, and one of no bytes is a part all the same."""
    path = tmp_path / "x"
    path.write_bytes(bytes(2 * BLOCK_BYTES + 1))
    facts = measure(path, 4)
    body = FormBody([FormPart("input", "x", "a/b", facts, facts.size)])
    assert [len(chunk) async for chunk in body][1:-1] == [BLOCK_BYTES, BLOCK_BYTES, 1]
    path.write_bytes(b"")
    empty = FormBody([FormPart("input", "x", "a/b", measure(path, 4), 0)])
    assert b"\r\n\r\n\r\n--" in await read(empty)


def test_measure(tmp_path: Path) -> None:
    """Size, time and first bytes, as they are now."""
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    assert measure(path, 4) == FileFacts(path, 10, path.stat().st_mtime_ns, b"0123")


def break_nothing(path: Path) -> None:
    """Leave it missing."""


def make_a_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (break_nothing, "No such file"),
        (Path.mkdir, "it is a folder"),
        (make_a_pipe, "it is no regular file"),
        (lambda path: path.symlink_to(path.parent / "no"), "No such file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "it is no regular file"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    """It is found before anything is sent, at once, with its name and why."""
    path = tmp_path / "in.png"
    make(path)
    with pytest.raises(InvalidRequestError) as caught:
        measure(path, 4)
    assert "in.png" in str(caught.value)
    assert why in str(caught.value)


def test_a_path_that_is_none() -> None:
    """A NUL in a path is our error too."""
    with pytest.raises(InvalidRequestError, match="cannot hold a NUL"):
        measure(Path("a\x00b"), 4)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def touch_inside(path: Path) -> None:
    before = path.stat()
    path.write_bytes(bytes([7]) * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    os.utime(other, ns=(5, 5))
    other.replace(path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda path: os.truncate(path, 5), f"had {2 * BLOCK_BYTES} bytes and now has 5"),
        (grow, f"now has {2 * BLOCK_BYTES + 4}"),
        (touch_inside, "changed while the job was being sent"),
        (replace, "changed while the job was being sent"),
        (Path.unlink, "can no longer be read: No such file"),
    ],
)
@pytest.mark.parametrize("blocks", [0, 1])
async def test_a_file_that_changes(
    tmp_path: Path, change: Callable[[Path], None], why: str, blocks: int
) -> None:
    """Between attempts or in the middle of one, it is an error rather than a mixture."""
    path = tmp_path / "x"
    path.write_bytes(bytes(2 * BLOCK_BYTES))
    body = FormBody([FormPart("input", "x", "a/b", measure(path, 4), 2 * BLOCK_BYTES)])
    chunks = aiter(body)
    for _ in range(blocks + 1):
        await anext(chunks)
    change(path)
    with pytest.raises(InvalidRequestError, match=why):
        await anext(chunks)


@pytest.mark.parametrize(
    ("promised", "chunks", "message"),
    [
        (4, [b"abc"], "said to have 4 bytes and its function made 3"),
        (4, [], "made 0"),
        (4, [b"abc", b"de"], "made more than 4"),
        (0, [b"a"], "made more than 0"),
        (4, ["text"], "must make bytes, not str"),
        (4, [None], "not NoneType"),
        (4, [5], "not int"),
    ],
)
@on_both_loops
async def test_a_function_that_breaks_its_promise(
    promised: int, chunks: list[Any], message: str
) -> None:
    """Fewer bytes, more, or no bytes: an error before the body is complete, and it is closed."""
    closed: list[bool] = []
    body = FormBody([made(promised, *chunks, closed=closed)])
    sent = 0
    with pytest.raises(InvalidRequestError) as caught:
        async for chunk in body:
            sent += len(chunk)
    assert message in str(caught.value)
    assert sent < body.content_length
    assert closed == [True]


@pytest.mark.parametrize(
    "factory",
    [lambda: b"abc", lambda: iter([b"abc"]), lambda: None, lambda: io.BytesIO(b"abc")],
)
@on_both_loops
async def test_a_function_that_makes_no_async_iterator(factory: Any) -> None:
    """What it returned is named."""
    body = FormBody([FormPart("input", "x", "a/b", factory, 3)])
    with pytest.raises(InvalidRequestError, match="must return an async iterator of bytes, not"):
        await read(body)


@on_both_loops
async def test_a_coroutine_function_is_named_without_a_warning() -> None:
    """The usual slip, an async function that returns, is told and leaves nothing unawaited."""

    async def wrong() -> bytes:
        return b"abc"

    body = FormBody([FormPart("input", "x", "a/b", wrong, 3)])  # type: ignore[arg-type]  # the slip
    with pytest.raises(InvalidRequestError, match="not coroutine"):
        await read(body)
    gc.collect()


@on_both_loops
async def test_an_error_of_the_callers_goes_through() -> None:
    """What an input's function raises is the caller's own, and not dressed up."""
    body = FormBody([made(4, b"ab", ZeroDivisionError())])
    with pytest.raises(ZeroDivisionError):
        await read(body)


@on_both_loops
async def test_a_buffer_that_is_filled_anew() -> None:
    """A function may use one buffer for all its chunks."""

    async def factory() -> AsyncIterator[Any]:
        buffer = bytearray(2)
        for text in (b"ab", b"cd"):
            buffer[:] = text
            yield memoryview(buffer)

    body = FormBody([FormPart("input", "x", "a/b", factory, 4)])
    chunks = [chunk async for chunk in body]
    assert b"abcd" in b"".join(chunks)


@on_both_loops
async def test_stopping_early_closes_the_callers_iterator() -> None:
    """Closing the body closes what it reads from, at once, cancelled or not."""
    closed: list[bool] = []
    body = FormBody([made(10, b"ab", b"cd", closed=closed)])
    chunks = aiter(body)
    await anext(chunks)
    await anext(chunks)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await chunks.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert closed == [True]


@on_both_loops
async def test_a_stream_is_closed_too() -> None:
    """Not only generators have an end to close; and what has none needs none."""

    class Stream:
        closed = False

        def __aiter__(self) -> "Stream":
            return self

        async def __anext__(self) -> bytes:
            raise StopAsyncIteration

    class Closable(Stream):
        async def aclose(self) -> None:
            self.closed = True

    plain, closable = Stream(), Closable()
    await read(FormBody([FormPart("input", "x", "a/b", lambda: plain, 0)]))
    await read(FormBody([FormPart("input", "x", "a/b", lambda: closable, 0)]))
    assert closable.closed


async def test_reading_a_file_does_not_hold_up_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tasks run while the disk is slow."""
    path = tmp_path / "x"
    path.write_bytes(b"x" * 10)
    facts = measure(path, 4)
    read_block = _uploads._read_block
    other_ran = anyio.Event()

    def slow(facts: FileFacts, offset: int) -> bytes:
        anyio.from_thread.run(other_ran.wait)
        return read_block(facts, offset)

    monkeypatch.setattr(_uploads, "_read_block", slow)
    async with anyio.create_task_group() as group:
        group.start_soon(read, FormBody([FormPart("input", "x", "a/b", facts, 10)]))
        await anyio.wait_all_tasks_blocked()
        other_ran.set()
