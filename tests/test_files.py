"""Names that stay in their folder, and files that are there whole or not at all."""

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prodia_async import _files
from prodia_async._files import (
    MAX_NAME_BYTES,
    PendingFile,
    Saving,
    is_passage,
    numbered,
    safe_name,
)

SUFFIXES = st.sampled_from(["", ".png", ".mp4"])


def write_file(target: Path, content: bytes | memoryview, *, replace: bool) -> Path:
    """Write a file as whoever keeps an answer does."""
    with PendingFile(target.parent) as pending:
        pending.write([content])
        return pending.publish(target, replace=replace)


@pytest.mark.parametrize(
    ("received", "safe"),
    [
        ("a.png", "a.png"),
        ("../x.png", "x.png"),
        ("/etc/passwd", "passwd.png"),
        ("C:\\x.png", "x.png"),
        ("C:x.png", "x.png"),
        ("a\\..\\b.png", "b.png"),
        ("..", "output.png"),
        (".", "output.png"),
        ("...", "output.png"),
        ("", "output.png"),
        (None, "output.png"),
        ("dir/", "output.png"),
        ("\x00", "output.png"),
        ("a\x00b.png", "a_b.png"),
        ("a\r\nb.png", "a__b.png"),
        ("a.png. . ", "a.png"),
        ("  a.png", "a.png"),
        (".hidden.png", "hidden.png"),
        ("CON", "_CON.png"),
        ("con.txt", "_con.txt"),
        ("con .txt", "_con .txt"),
        ("COM1.png", "_COM1.png"),
        ("LPT\u00b9.png", "_LPT\u00b9.png"),
        ("conin$", "_conin$.png"),
        ("console.png", "console.png"),
        ("a<b>:c|d?e*.png", "a_b__c_d_e_.png"),
        ("\U0001f353 caf\xe9.png", "\U0001f353 caf\xe9.png"),
        ("\U0001f469\u200d\U0001f52c.png", "\U0001f469\u200d\U0001f52c.png"),
        ("\u202egpj.exe", "_gpj.exe"),
        ("a\ud800.png", "a_.png"),
        (
            "name.with a long tail that is no extension",
            "name.with a long tail that is no extension.png",
        ),
    ],
)
def test_safe_name(received: str | None, safe: str) -> None:
    """What is harmful is taken out, what is harmless is kept."""
    assert safe_name(received, fallback="output", suffix=".png") == safe


@given(st.one_of(st.text(), st.text("./\\ :_conCON\x00\u202e\U0001f353", max_size=400)), SUFFIXES)
@example("\U0001f353" * 100, ".png")
@example("x" * 199 + ". . .y" * 50, "")
@example("con", "")
def test_safe_name_is_always_safe(received: str, suffix: str) -> None:
    """Any name at all becomes one visible, short name in its own folder."""
    name = safe_name(received, fallback="output", suffix=suffix)
    assert name
    assert 0 < len(name.encode()) <= MAX_NAME_BYTES
    assert Path(name).name == name == os.path.normpath(name)
    assert not set(name) & set('\x00\r\n/\\:<>"|?*\u202e')
    assert name[0] not in ". "
    assert name[-1] not in ". "
    assert name.partition(".")[0].rstrip().lower() not in {"con", "nul", "com1"}


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [("a.png", 1, "a.png"), ("a.png", 2, "a-2.png"), ("a", 12, "a-12"), ("a.b.c", 3, "a.b-3.c")],
)
def test_numbered(name: str, number: int, expected: str) -> None:
    """The number stands before the extension; the first has none."""
    assert numbered(name, number) == expected


def test_fifty_writers_of_one_name_make_fifty_files(tmp_path: Path) -> None:
    """Nobody overwrites anybody, and no temporary file is left."""
    start = threading.Barrier(8)

    def save(number: int) -> Path:
        if number < 8:
            start.wait()
        return write_file(tmp_path / "a.png", b"%d" % number, replace=False)

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(save, range(50)))
    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in paths)
    assert {path.read_bytes() for path in paths} == {b"%d" % number for number in range(50)}
    assert tmp_path / "a-50.png" in paths


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)


@pytest.mark.usefixtures("no_hard_links")
def test_a_file_system_without_hard_links(tmp_path: Path) -> None:
    """Names are numbered there too, by any number of writers at once."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: write_file(tmp_path / "a", b"%d" % n, replace=False), range(20)))
    assert len(os.listdir(tmp_path)) == 20
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"%d" % n for n in range(20)}


@pytest.mark.usefixtures("no_hard_links")
def test_a_reserved_name_is_freed_if_the_move_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The empty file that held the name is no half-written output."""

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="Input/output"):
        write_file(tmp_path / "a", b"x", replace=False)
    assert os.listdir(tmp_path) == []


def test_replace(tmp_path: Path) -> None:
    """A named target is replaced in one step; a reader of the old file keeps it."""
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with target.open("rb") as reader:
        assert write_file(target, memoryview(b"new"), replace=True) == target
        assert reader.read() == b"old"
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_a_dangling_link_is_a_taken_name(tmp_path: Path) -> None:
    """An output is never written through a link that lies in the folder."""
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    assert write_file(tmp_path / "a", b"x", replace=False).name == "a-2"
    assert not (tmp_path / "elsewhere").exists()


def test_an_empty_file(tmp_path: Path) -> None:
    """Nothing is a content too."""
    assert write_file(tmp_path / "a", b"", replace=False).read_bytes() == b""


def test_no_folder(tmp_path: Path) -> None:
    """A missing folder is an OSError, and is not made."""
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "no" / "a", b"x", replace=True)
    assert os.listdir(tmp_path) == []


def test_thousands_of_one_name_take_no_time(tmp_path: Path) -> None:
    """The next free number is found in a few looks, not by asking for each."""
    for number in range(1, 3001):
        (tmp_path / numbered("a.png", number)).touch()
    looks = 0
    original = os.path.lexists

    def counted(path: Path) -> bool:
        nonlocal looks
        looks += 1
        return original(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os.path, "lexists", counted)
        assert write_file(tmp_path / "a.png", b"x", replace=False).name == "a-3001.png"
    assert looks < 30


def test_another_writer_was_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that was free when it was looked at, and is not when it is taken, is passed over."""
    monkeypatch.setattr(_files, "_first_free_number", lambda target: 1)
    assert [write_file(tmp_path / "a", b"", replace=False).name for _ in range(2)] == ["a", "a-2"]

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert write_file(tmp_path / "a", b"", replace=False).name == "a-3"


def save(
    path: str | Path, content: bytes = b"new", name: str | None = None, *, overwrite: bool = False
) -> Path:
    """Do what the outputs do, in one thread."""
    saving = Saving(path, name, ".png", overwrite=overwrite)
    try:
        saving.open(content)
        saving.write([content])
        return saving.publish()
    finally:
        saving.discard()


def test_what_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is there, or a path that ends in a slash; it is made, with its parents."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    assert save("there", name="../x.png") == Path("there/x.png")
    assert save("out/") == Path("out/output.png")
    assert save("out/") == Path("out/output-2.png")
    assert save("a/b/c/", name="x") == Path("a/b/c/x.png")
    assert save("d/e/x.png", name="ignored") == Path("d/e/x.png")
    assert save(".", name="y.png") == Path("y.png")


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    """It is numbered past, replaced when asked for, and written anew if it is the same."""
    target = tmp_path / "a.png"
    assert save(target, b"old") == target
    assert save(target, b"new").name == "a-2.png"
    assert save(target, b"old") == target
    assert target.read_bytes() == b"old"
    assert save(target, b"new", overwrite=True) == target
    assert target.read_bytes() == b"new"
    (tmp_path / "link").symlink_to(target)
    assert save(tmp_path / "link", b"new").name == "link-2"
    assert sorted(os.listdir(tmp_path)) == ["a-2.png", "a.png", "link", "link-2"]


def test_errors_name_what_the_user_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the temporary name, and not what became of the path on the way."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for path, kind in [
        ("file/x.png", FileExistsError),
        ("file/x/", NotADirectoryError),
        ("file/", FileExistsError),
        ("", OSError),
        ("a\0b", OSError),
        ("x" * 300, OSError),
    ]:
        with pytest.raises(kind) as caught:
            save(path)
        assert caught.value.filename == path
    assert os.listdir(tmp_path) == ["file"]


def test_a_path_that_cannot_be_looked_at_is_no_passage(tmp_path: Path) -> None:
    """Nor is a folder, a file, or nothing at all."""
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "no", tmp_path / "file" / "x"):
        assert not is_passage(path)
    assert is_passage(Path("/dev/stdin"))
    assert is_passage(Path("/proc/self/status"))


fifos = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")


@fifos
def test_a_pipe_is_written_and_never_replaced(tmp_path: Path) -> None:
    """All goes through to its reader, more than it holds at once too; the pipe stays a pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = os.urandom(300_000)
    for overwrite in (False, True):
        with ThreadPoolExecutor(1) as pool:
            saved = pool.submit(save, pipe, content, overwrite=overwrite)
            time.sleep(0.1)  # it waits for its reader
            assert pipe.read_bytes() == content
            assert saved.result() == pipe
        assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


@fifos
def test_nobody_reads_the_pipe(tmp_path: Path) -> None:
    """Waiting for a reader ends when nobody wants the file any more; so does writing to it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    descriptors = len(os.listdir("/dev/fd"))
    with ThreadPoolExecutor(1) as pool:
        waiting = Saving(pipe, None, "")
        opening = pool.submit(waiting.open)
        time.sleep(0.1)
        assert not opening.done()
        waiting.discard()
        assert opening.result(5) is None
        with pytest.raises(ValueError, match="discarded"):
            waiting.write([b"x"])
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        stuck = Saving(pipe, None, "")
        stuck.open()
        assert stuck.may_wait
        writing = pool.submit(stuck.write, [bytes(1_000_000)])
        time.sleep(0.1)
        stuck.discard()
        with pytest.raises(ValueError, match="discarded"):
            writing.result(5)
        os.close(reader)
    assert len(os.listdir("/dev/fd")) == descriptors


@fifos
def test_the_reader_of_a_pipe_goes(tmp_path: Path) -> None:
    """That is an error of the system's, which names the pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    saving = Saving(pipe, None, "")
    saving.open()
    os.close(reader)
    with pytest.raises(BrokenPipeError) as caught:
        saving.write([b"x"])
    assert caught.value.filename == str(pipe)
    saving.discard()
    socket_path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(socket_path))
        with pytest.raises(OSError, match="socket"):
            save(socket_path)
    assert sorted(os.listdir(tmp_path)) == ["pipe", "socket"]


def test_discarded_before_it_is_open(tmp_path: Path) -> None:
    """A thread that comes late opens nothing."""
    saving = Saving(tmp_path / "a", None, "")
    saving.discard()
    saving.open()
    with pytest.raises(ValueError, match="discarded"):
        saving.publish()
    assert os.listdir(tmp_path) == []


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    """Whatever the source of the chunks raises, the folder stays as it was."""

    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), PendingFile(tmp_path) as pending:
        pending.write(chunks())
    assert os.listdir(tmp_path) == []


def test_published_once(tmp_path: Path) -> None:
    """A second publish is a mistake; a discard after it is not, and keeps the file."""
    pending = PendingFile(tmp_path)
    pending.open()
    pending.write([b"x"])
    pending.publish(tmp_path / "a", replace=False)
    pending.discard()
    with pytest.raises(ValueError, match="published or discarded"):
        pending.publish(tmp_path / "b", replace=False)
    assert os.listdir(tmp_path) == ["a"]


def test_discarded_before_it_was_opened(tmp_path: Path) -> None:
    """A thread that opens late, after whoever wanted the file has gone, makes none."""
    pending = PendingFile(tmp_path)
    pending.discard()
    pending.discard()
    pending.open()
    with pytest.raises(ValueError, match="published or discarded"):
        pending.write([b"x"])
    assert os.listdir(tmp_path) == []


FILL_THE_DISK = """
import os, resource, signal, sys
from pathlib import Path
from prodia_async._files import PendingFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder, size, replace = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
try:
    with PendingFile(folder) as pending:
        pending.write([bytes(1000)] * (size // 1000))
        pending.publish(folder / "a.mp4", replace=replace)
except OSError as error:
    print("OSError", error.errno)
print(sorted(os.listdir(folder)))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE there")
@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("size", [1_000_000, 101_000], ids=["write", "close"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, size: int, replace: bool) -> None:
    """No half file under the final name, no temporary one, and the old file as it was."""
    (tmp_path / "old").write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, str(tmp_path), str(size), str(replace)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout == f"OSError {errno.EFBIG}\n['old']\n"
    assert (tmp_path / "old").read_bytes() == b"old"
