"""An output: how it shows itself, where it is saved, and what it never overwrites."""

import io
import os
import struct
import sys
import time
import zlib
from pathlib import Path

import anyio
import pytest
from conftest import on_both_loops
from PIL import Image

from prodia_async._outputs import Output


class TestOutput:
    def test_print(self) -> None:
        """Type, size and name, short whatever they are; never the bytes."""
        assert repr(Output(b"secret", "image/png", "a.png")) == "<Output image/png 6 bytes 'a.png'>"
        assert repr(Output(b"", "image/png")) == "<Output image/png 0 bytes>"
        assert len(repr(Output(b"", "x" * 10**6, "y" * 10**6))) < 300

    def test_repr_is_harmless(self) -> None:
        """The type is the server's word and may hold what a terminal obeys; it is not shown."""
        assert "\x1b" not in repr(Output(b"", "image/png\x1b]0;owned\x07", "\x1b[2J"))

    def test_suffix(self) -> None:
        """By type; an unknown one has none."""
        assert Output(b"", "image/jpeg; x=y", "a.png").suffix == ".jpg"
        assert Output(b"", "a/b").suffix == ""

    @pytest.mark.parametrize(
        ("kind", "key", "shown"),
        [
            ("image/png; x=y", "image/png", b"<b>"),
            ("image/svg+xml", "image/svg+xml", "<b>"),
            ("text/plain", "text/plain", "<b>"),
            ("text/html", "text/plain", "<b>"),
            (
                "video/mp4",
                "text/html",
                (
                    '<video controls loop src="data:video/mp4;base64,PGI+" '
                    'style="display:block;width:480px;max-width:100%"></video>'
                ),
            ),
            ("audio/wav", "text/html", '<audio controls src="data:audio/wav;base64,PGI+"></audio>'),
            ("application/zip", "text/plain", "<Output application/zip 3 bytes>"),
        ],
    )
    def test_in_a_notebook(self, kind: str, key: str, shown: bytes | str) -> None:
        """Pictures and video show themselves; markup is never run as such."""
        told = Output(b"<b>", kind)._repr_mimebundle_()[key]
        assert told == shown or (key == "text/html" and str(shown) in str(told))

    def test_a_type_is_no_markup(self) -> None:
        """A hostile Content-Type stays inside its attribute."""
        html = Output(b"", 'video/"><script>')._repr_mimebundle_()["text/html"]
        assert "<script" not in str(html)


@on_both_loops
async def test_save_to_a_file(tmp_path: Path) -> None:
    """A file that is there stays, unless it is to be replaced or holds the same."""
    target = tmp_path / "new" / "a.bin"
    old, new = Output(b"old", "image/png", "../x"), Output(b"new", "image/png", "../x")
    assert await old.save(str(target)) == await old.save(target) == target
    assert await new.save(target) == tmp_path / "new" / "a-2.bin"
    assert target.read_bytes() == b"old"
    assert await new.save(target, overwrite=True) == target
    assert target.read_bytes() == b"new"


@on_both_loops
async def test_save_into_a_folder(tmp_path: Path) -> None:
    """The received name is made safe and numbered, never put over another file."""
    for filename, name in [
        ("../x.png", "x.png"),
        ("C:\\x.png", "x-2.png"),
        (None, "output.png"),
        ("id", "id.png"),
        ("", "output-2.png"),
        ("\x00", "output-3.png"),
    ]:
        saved = await Output(b"%d" % len(name), "image/png", filename).save(tmp_path)
        assert saved == tmp_path / name
    assert len(os.listdir(tmp_path)) == 6


@on_both_loops
async def test_fifty_at_once_into_one_folder(tmp_path: Path) -> None:
    """Fifty outputs of one name are fifty files."""
    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(Output(b"%d" % number, "image/png", "a.png").save, tmp_path)
    names = os.listdir(tmp_path)
    contents = {(tmp_path / name).read_bytes() for name in names}
    assert contents == {b"%d" % number for number in range(50)}
    assert len(names) == 50


@on_both_loops
async def test_a_path_with_a_slash_is_a_folder(tmp_path: Path) -> None:
    """It is made, and pictures that follow each other are all there."""
    folder = f"{tmp_path}/out/"
    saved = [await Output(b"%d" % at, "image/png").save(folder) for at in range(3)]
    assert [each.name for each in saved] == ["output.png", "output-2.png", "output-3.png"]
    assert [each.read_bytes() for each in saved] == [b"0", b"1", b"2"]


@on_both_loops
async def test_nowhere_to_save(tmp_path: Path) -> None:
    """A file where a folder is needed is an OSError that names the path as it was given."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/a\.png") as caught:
        await Output(b"x", "image/png").save(tmp_path / "file" / "a.png")
    assert caught.value.filename == str(tmp_path / "file" / "a.png")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")
@on_both_loops
async def test_a_pipe_that_nobody_reads_can_be_left(tmp_path: Path) -> None:
    """Saving to a pipe waits for its reader, and is cancelled like any other wait."""
    os.mkfifo(tmp_path / "pipe")
    began = time.monotonic()
    with anyio.move_on_after(0.2) as scope:
        await Output(b"x", "image/png").save(tmp_path / "pipe")
    assert scope.cancelled_caught
    assert time.monotonic() - began < 1
    assert (tmp_path / "pipe").is_fifo()


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, kind)
    return file.getvalue()


def test_as_pillow_has_it() -> None:
    """A picture is decoded at once; what is none, or half of one, is said to be so."""
    whole = picture("PNG")
    opened = Output(whole, "image/png").to_pil()
    assert (opened.size, opened.getpixel((0, 0))) == ((8, 6), (255, 0, 0))
    for content in (b"", b"text", whole[:-30]):
        with pytest.raises(ValueError, match="no picture that Pillow can read"):
            Output(content, "image/png").to_pil()


def test_a_picture_that_pillow_will_not_read() -> None:
    """Whatever Pillow calls it: one that would take 10 GB of memory, too."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    whole = picture("PNG")
    huge = whole[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + whole[33:]
    with pytest.raises(ValueError, match="no picture that Pillow can read: Image size") as caught:
        Output(huge, "image/png").to_pil()
    assert caught.value.__cause__ is not None


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named, and how to get it."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"prodia-async\[pillow\]"):
        Output(b"", "image/png").to_pil()
