"""Inputs from what a program holds: measured, sent whole, again and again, off the loop."""

from __future__ import annotations

import gc
import gzip
import io
import os
import socket
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from conftest import on_both_loops
from PIL import Image
from raw_server import RawServer, http, say
from starlette.datastructures import Headers, UploadFile

from prodia_async import AsyncProdia, InvalidRequestError, Output, RetryPolicy
from prodia_async._models import Input, Job, JobRequest, as_input
from prodia_async._requests import encode_job, input_parts
from prodia_async._sources import BLOCK_BYTES, PNG_MODES, AsyncFile, OpenFile, source_of
from prodia_async._uploads import FormBody

if TYPE_CHECKING:
    from collections.abc import Iterator

PNG_BYTES = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10_000  # more than two blocks


async def sent(*inputs: Any) -> list[tuple[str, str, bytes]]:
    """Name, type and bytes of each input as they are sent, which must be the same twice."""
    parts = await input_parts([as_input(each) for each in inputs])
    found = []
    for part in parts:
        bodies = []
        for _ in range(2):
            body = FormBody([part])
            content = b"".join([bytes(chunk) async for chunk in body])
            assert len(content) == body.content_length
            bodies.append(content.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0])
        assert bodies[0] == bodies[1]
        found.append((part.filename, part.content_type, bodies[0]))
    return found


class Spool(tempfile.SpooledTemporaryFile[bytes]):
    def __del__(self) -> None:
        self.close()  # as a framework does when the request is over


def upload(content: bytes, name: str | None, kind: str | None, **more: Any) -> UploadFile:
    """An upload as FastAPI and Starlette hand it over."""
    file = Spool(max_size=1000)
    file.write(content)
    headers = Headers({"content-type": kind} if kind else {})
    return UploadFile(file, filename=name, headers=headers, **more)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "photo.png").write_bytes(PNG_BYTES)
    return tmp_path / "photo.png"


@on_both_loops
async def test_an_output_of_another_job() -> None:
    """It is sent under a name that cannot clash, with the type it came with."""
    output = Output(b"x", "image/webp", "the same")
    assert await sent(output, output) == [
        ("input-1.webp", "image/webp", b"x"),
        ("input-2.webp", "image/webp", b"x"),
    ]
    assert await sent(Input(output, "a", "b/c")) == [("a", "b/c", b"x")]


@on_both_loops
async def test_tuples(path: Path) -> None:
    """As the documents' own samples write them: a name, what it is made of, and its type."""
    with path.open("rb") as file:
        assert await sent(("a.png", b"x"), (None, b"y", "a/b"), ("c", file)) == [
            ("a.png", "image/png", b"x"),
            ("input-2", "a/b", b"y"),
            ("c", "image/png", PNG_BYTES),
        ]
    wrong: Any
    for wrong in ((), (b"x",), ("a", b"x", "a/b", {})):
        with pytest.raises(InvalidRequestError, match=rf"a tuple must be .* not of {len(wrong)}"):
            as_input(wrong)


@on_both_loops
async def test_open_files(path: Path) -> None:
    """All of it is sent, wherever it stands and whatever kind of file it is."""
    with path.open("rb") as plain, path.open("rb", buffering=0) as raw, path.open("r+b") as both:
        plain.seek(100)
        both.read()
        named = ("photo.png", "image/png", PNG_BYTES)
        assert await sent(plain) == await sent(raw) == await sent(both) == [named]
        assert [name for name, *_ in await sent(plain, raw, both)] == [
            "photo.png", "photo-2.png", "photo-3.png",
        ]  # fmt: skip
    with tempfile.TemporaryFile() as temporary, tempfile.SpooledTemporaryFile() as spooled:
        for file in (temporary, spooled):
            file.write(PNG_BYTES)
            assert await sent(file) == [("input-1.png", "image/png", PNG_BYTES)]
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(PNG_BYTES, 1))
    with gzip.open(packed) as unpacked:
        assert await sent(unpacked) == [("input-1.png", "image/png", PNG_BYTES)]
    assert await sent(io.BytesIO(PNG_BYTES)) == [("input-1.png", "image/png", PNG_BYTES)]
    with tempfile.NamedTemporaryFile(suffix=".png") as temporary_name:
        temporary_name.write(PNG_BYTES)
        name = Path(temporary_name.name).name
        assert await sent(temporary_name) == [(name, "image/png", PNG_BYTES)]


@on_both_loops
async def test_uploads_of_a_web_framework() -> None:
    """Name and type are the browser's, made harmless; equal names are numbered."""
    content = PNG_BYTES
    same = [upload(content, "a b.png", "image/png") for _ in range(2)]
    assert await sent(*same) == [
        ("a b.png", "image/png", content),
        ("a b-2.png", "image/png", content),
    ]
    assert await sent(
        upload(b"x", '..\\"\r\n/e"vil', "image/jpeg"),
        upload(content, None, None),
        upload(content, "noext", "application/octet-stream"),
        upload(b"", "", "text/plain", size=0),
    ) == [
        ("e_vil.jpg", "image/jpeg", b"x"),
        ("input-2.png", "image/png", content),
        ("noext", "image/png", content),
        ("input-4.txt", "text/plain", b""),
    ]


@dataclass
class Field:
    """As aiohttp.web has an upload."""

    file: Any
    filename: str
    content_type: str


@on_both_loops
async def test_uploads_of_another() -> None:
    """What holds an open file and tells its name is an upload too."""
    field = Field(io.BytesIO(b"x"), "a.jpg", "image/jpeg")
    assert await sent(field) == [("a.jpg", "image/jpeg", b"x")]


class Slow:
    """A file that can only be awaited, as an async library has it."""

    def __init__(self, content: bytes, *, whence: bool = True, told: bool = True) -> None:
        self._file = io.BytesIO(content)
        self._whence = whence
        if told:
            self.tell = self._tell

    async def read(self, size: int = -1) -> bytes:
        await anyio.lowlevel.checkpoint()
        return self._file.read(size)

    async def seek(self, offset: int, *whence: int) -> None:
        if whence and not self._whence:
            raise TypeError("seek() takes 1 argument")
        await anyio.lowlevel.checkpoint()
        self._file.seek(offset, *whence)

    async def _tell(self) -> int:
        return self._file.tell()


@on_both_loops
async def test_files_that_are_awaited(path: Path) -> None:
    """They are measured by going to their end, or by reading where that cannot be done."""
    async with await anyio.open_file(path, "rb") as file:
        assert await sent(file) == [("photo.png", "image/png", PNG_BYTES)]
    for more in ({}, {"told": False}, {"whence": False, "told": False}):
        slow = Slow(PNG_BYTES, **more)
        assert isinstance(source_of(slow), AsyncFile)
        assert await sent(slow) == [("input-1.png", "image/png", PNG_BYTES)]


@on_both_loops
async def test_pictures() -> None:
    """A picture of Pillow's is sent as PNG in each mode that PNG has, without loss."""
    for mode in sorted(PNG_MODES):
        picture = Image.new(mode, (5, 4), 1 if mode in {"1", "L", "I;16", "P"} else None)
        ((name, kind, content),) = await sent(picture)
        assert (name, kind) == ("input-1.png", "image/png")
        again = Image.open(io.BytesIO(content))
        assert again.size == (5, 4)
        assert again.convert("RGB").tobytes() == picture.convert("RGB").tobytes()
    for mode in ("I", "CMYK", "YCbCr", "F", "LAB", "HSV"):
        with pytest.raises(InvalidRequestError, match=rf"'{mode}' has no form in PNG.*convert"):
            Input(Image.new(mode, (1, 1)))


@on_both_loops
async def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    """One whose file has gone bad meanwhile is a mistake that costs nothing."""
    whole = io.BytesIO()
    Image.new("RGB", (50, 50)).save(whole, "PNG")
    (tmp_path / "half.png").write_bytes(whole.getvalue()[:60])
    with Image.open(tmp_path / "half.png") as half:
        with pytest.raises(InvalidRequestError, match="cannot be written as PNG"):
            await sent(half)


@on_both_loops
async def test_a_picture_is_encoded_once() -> None:
    """Every attempt sends the same bytes, and an input that is used twice too."""
    picture = Image.new("L", (5, 4))
    each = Input(picture)
    first = await sent(each)
    picture.putpixel((0, 0), 99)
    assert await sent(each) == first
    source = source_of(picture)
    assert source is not None
    assert [chunk async for chunk in source()] != [first[0][2]]


def closed(file: Any) -> Any:
    file.close()
    return file


def test_what_cannot_be_an_input(path: Path) -> None:
    """Closed, open as text, or not readable twice: said at once, with the remedy."""
    with path.open(encoding="latin-1") as text:
        for wrong in (text, io.StringIO("x")):
            with pytest.raises(InvalidRequestError, match=r'not str; open it.*"rb"'):
                Input(wrong)  # type: ignore[arg-type]  # what it must not be
    for file in (path.open("rb"), io.BytesIO(), upload(b"", None, None).file):
        wrong = closed(file)
        with pytest.raises(InvalidRequestError, match="is closed; it must stay open until"):
            Input(wrong)
    left, right = socket.socketpair()
    with left, right, left.makefile("rb") as stream:
        with pytest.raises(InvalidRequestError, match=r"readable twice.*give the bytes, or save"):
            Input(stream)

    class OnlyRead:
        def read(self) -> bytes:
            return b""

    class OnlyAwaited:
        async def read(self) -> bytes:
            return b""

    for each in (OnlyRead(), OnlyAwaited()):
        with pytest.raises(InvalidRequestError, match=f"{type(each).__name__} cannot go back"):
            Input(each)  # type: ignore[arg-type]  # what it must not be


@on_both_loops
async def test_what_goes_wrong_in_a_file(path: Path) -> None:
    """Closed, changed or broken between two looks: our error, whoever raised."""
    with path.open("rb") as file:
        shut = Input(file)
    with pytest.raises(InvalidRequestError, match="is closed"):
        await sent(shut)
    (part,) = await input_parts([Input(both := io.BufferedRandom(io.FileIO(path, "r+b")))])
    both.truncate(10)
    with pytest.raises(InvalidRequestError, match=r"'photo.png' changed while .* 2560008 bytes"):
        _ = [chunk async for chunk in FormBody([part])]
    both.close()

    class Broken(io.BytesIO):
        error: BaseException | None = OSError(5, "Input/output error")
        block: Any = b""

        def read(self, size: int | None = -1, /) -> Any:
            if self.error is not None:
                raise self.error
            return self.block

        def seekable(self) -> bool:
            return True

    class Framework:
        """No file of the standard library's."""

        def __init__(self, file: Broken) -> None:
            self.read = file.read
            self.seek = file.seek

    broken = Broken()
    with pytest.raises(InvalidRequestError, match="cannot be read: Input/output error"):
        await sent(Framework(broken))
    broken.error = ValueError("out of range")
    with pytest.raises(InvalidRequestError, match="cannot be read: ValueError"):
        await sent(Framework(broken))
    broken.error, broken.block = None, "text"
    with pytest.raises(InvalidRequestError, match='must give bytes, not str; open it with "rb"'):
        await sent(Framework(broken))
    broken.error = LookupError("theirs")
    with pytest.raises(LookupError, match="theirs"):
        await sent(Framework(broken))

    class AwaitedText(Slow):
        async def read(self, size: int = -1) -> Any:
            return 5

    with pytest.raises(InvalidRequestError, match=r"must give bytes, not int$"):
        await sent(AwaitedText(b""))


@on_both_loops
async def test_a_file_that_tells_nothing_when_it_seeks() -> None:
    """Some frameworks' `seek` returns nothing; `tell` does. Some cannot be held weakly."""

    class Quiet:
        __slots__ = ("_file",)

        def __init__(self, content: bytes) -> None:
            self._file = io.BytesIO(content)

        def read(self, size: int = -1) -> bytes:
            return self._file.read(size)

        def seek(self, offset: int, whence: int = 0) -> None:
            self._file.seek(offset, whence)

        def tell(self) -> int:
            return self._file.tell()

    assert await sent(Quiet(PNG_BYTES)) == [("input-1.png", "image/png", PNG_BYTES)]


@on_both_loops
async def test_one_file_in_many_jobs_at_once(path: Path) -> None:
    """It has one place to read from, and everybody gets all of it."""
    with path.open("rb") as file:
        results: list[bytes] = []

        async def one() -> None:
            results.append((await sent(file))[0][2])

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(one)
    assert results == [PNG_BYTES] * 8


@on_both_loops
async def test_files_are_read_off_the_loop(path: Path) -> None:
    """Each read is in a worker thread, of a megabyte at the most."""
    here = threading.get_ident()
    sizes: list[int] = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert threading.get_ident() != here
            block = super().read(size)
            sizes.append(len(block))
            return block

    class Held:
        def __init__(self) -> None:
            file = Watched(PNG_BYTES)
            self.read, self.seek = file.read, file.seek

    assert (await sent(Held()))[0][2] == PNG_BYTES
    assert max(sizes) <= BLOCK_BYTES


@pytest.fixture
def busy_twice() -> Iterator[RawServer]:
    with RawServer([say(http("429 Busy", b"", "Retry-After: 0.01"))] * 2) as server:
        yield server


@on_both_loops
async def test_every_attempt_sends_the_same(path: Path, busy_twice: RawServer) -> None:
    """Two refusals and then the job: three equal requests, over a socket."""
    async with AsyncProdia("token", base_url=busy_twice.url, retry=RetryPolicy()) as client:
        with path.open("rb") as file:
            await client.job(
                Job("t", {"images": ["up.png", "photo.png"]}),
                inputs=[
                    upload(PNG_BYTES, "up.png", "image/png"), file, Image.new("L", (2, 2)),
                    ("n", io.BytesIO(b"n")),
                ],
            )  # fmt: skip
    bodies = [request.body for request in busy_twice.requests]
    assert len(bodies) == 3
    assert len({body.partition(b"\r\n")[2].rpartition(b"\r\n--")[0] for body in bodies}) == 1
    assert bodies[0].count(PNG_BYTES) == 2


@on_both_loops
async def test_one_input_is_not_a_list_of_them(path: Path) -> None:
    """A file is a sequence of lines, and a picture or an output is none at all."""
    with path.open("rb") as file:
        for single in (file, io.BytesIO(b"x"), Image.new("L", (1, 1)), Output(b"", "a/b")):
            with pytest.raises(InvalidRequestError, match=r"not one \w+; write inputs=\[...\]"):
                await encode_job(JobRequest(Job("t"), single))  # type: ignore[arg-type]


def test_locks_go_with_their_files() -> None:
    """A service that runs for months keeps nothing of the uploads it has seen."""
    from prodia_async import _sources

    gc.collect()
    before = len(_sources._locks)
    sources = [OpenFile(io.BytesIO(b""), None, None) for _ in range(10)]
    assert len(_sources._locks) == before + 10
    del sources
    gc.collect()
    assert len(_sources._locks) == before


def test_a_file_by_its_number_has_no_name(path: Path) -> None:
    """The name of a file that was opened by its descriptor is a number, and is not sent."""
    with os.fdopen(os.open(path, os.O_RDONLY), "rb") as file:
        assert OpenFile(file, None, None).name is None
        source = source_of(file)
        assert source is not None
        assert source.name is None
