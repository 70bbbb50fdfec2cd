"""The demo, once, as a process of its own without account or network; then its files and page."""

import os
import re
import signal
import subprocess
import sys
from base64 import b64decode
from dataclasses import dataclass
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

BY_SIZE = [
    ("webp.webp", "WEBP"),
    ("jpeg-q50.jpg", "JPEG"),
    ("jpeg.jpg", "JPEG"),
    ("jpeg-q95-444.jpg", "JPEG"),
    ("webp-lossless.webp", "WEBP"),
    ("png.png", "PNG"),
]


@dataclass(frozen=True)
class Demo:
    folder: Path
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Run it with an account set up that nobody answers for, which it must not touch."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "sheet & more"
    nowhere = {"PRODIA_TOKEN": "token-that-must-not-show", "PRODIA_BASE_URL": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-m", "prodia_async", "demo", "--out", str(folder)],
        env=os.environ | nowhere | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return Demo(folder, done)


def pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()


def test_it_ends_well_and_says_where_everything_is(demo: Demo) -> None:
    """Status 0, nothing on standard error, and the folder and the page are named."""
    assert (demo.done.returncode, demo.done.stderr) == (0, "")
    assert str(demo.folder) in demo.done.stdout
    assert (demo.folder / "index.html").as_uri() in demo.done.stdout
    assert "token-that-must-not-show" not in demo.done.stdout


def test_the_size_table_stands_beside_the_documented_sizes(demo: Demo) -> None:
    """Six rows: Accept, size here, size documented, file."""
    rows = re.findall(r"^(image/\S+) +(\d+) KB +(\d+) KB +(\S+)", demo.done.stdout, re.MULTILINE)
    assert [(int(documented), name) for _, _, documented, name in rows] == [
        (kilobytes, name)
        for kilobytes, (name, _) in zip((29, 39, 53, 142, 610, 861), BY_SIZE, strict=True)
    ]
    for _, here, _, name in rows:
        assert int(here) == round((demo.folder / "formats" / name).stat().st_size / 1000)


def test_the_sizes_have_the_documented_order(demo: Demo) -> None:
    """WebP is smallest, PNG largest, and each file is what its name says."""
    sizes = []
    for name, kind in BY_SIZE:
        path = demo.folder / "formats" / name
        with Image.open(path) as picture:
            assert (picture.format, picture.size) == (kind, (1024, 1024))
        sizes.append(path.stat().st_size)
    assert sizes == sorted(sizes)


def test_the_lossless_formats_agree(demo: Demo) -> None:
    """PNG and lossless WebP decode to the same pixels, and the demo says so."""
    formats = demo.folder / "formats"
    assert pixels(formats / "png.png") == pixels(formats / "webp-lossless.webp")
    assert pixels(formats / "png.png") != pixels(formats / "jpeg.jpg")
    assert "decode to the same pixels" in demo.done.stdout


def test_every_picture_is_there_and_whole(demo: Demo) -> None:
    """Three of the combination and a hundred, all different, and nothing else."""
    combined, hundred = (sorted((demo.folder / name).iterdir()) for name in ("combined", "hundred"))
    assert [path.name for path in combined] == ["combined.jpg", "fruit.jpg", "mountains.jpg"]
    assert [path.name for path in hundred] == [f"{number:03}.jpg" for number in range(1, 101)]
    assert len({pixels(path) for path in [*combined, *hundred]}) == 103
    assert {path.name for path in demo.folder.iterdir()} == {
        *("formats", "combined", "hundred", "index.html")
    }


def test_the_hundred_met_refusals_and_none_was_lost(demo: Demo) -> None:
    """The statistics tell the time, the least possible, and refusals that were waited out."""
    told = demo.done.stdout
    elapsed, ideal = re.findall(r"([\d.]+) s in all; .* ([\d.]+) s is the least", told)[0]
    assert float(elapsed) >= float(ideal) == 2.5
    (refusals,) = re.findall(r"(\d+) refusals \(429\) waited out, none lost", told)
    assert int(refusals) > 0


def test_interrupting_it_is_one_line(tmp_path: Path) -> None:
    """Ctrl-C ends it with status 130 and no traceback, whatever it was doing."""
    told, status = ("", ""), 0
    for number in range(3):
        folder = tmp_path / f"demo-{number}"
        with subprocess.Popen(
            [sys.executable, "-m", "prodia_async", "demo", "--out", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while not (folder / "formats" / "webp.webp").exists():
                assert process.poll() is None
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                told = process.communicate(timeout=20)
                status = process.returncode
                break
            # We were too slow, on a machine that stood still: it had ended by itself.
    assert told == ("", "prodia-async: interrupted\n")
    assert status == 130


class Page(HTMLParser):
    """Collects what a browser would load, and where links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in {"src", "srcset", "data", "poster", "background"}:
                self.loaded.append(value or "")
            elif name == "href":
                self.links.append(value or "")


def test_the_page_needs_nothing_beside_it(demo: Demo) -> None:
    """Every picture is embedded and decodes; no script, no style sheet, no other address."""
    text = (demo.folder / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags & {"script", "link", "iframe", "object", "base"}
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"https?://|src=.//", text)
    assert len(page.loaded) == 1 + 6 + 3 + 100
    for source in page.loaded:
        head, _, encoded = source.partition("base64,")
        assert head == "data:image/webp;"
        with Image.open(BytesIO(b64decode(encoded))) as picture:
            picture.load()


def test_the_page_links_to_every_picture(demo: Demo) -> None:
    """The links lead to the files beside the page, whatever the folder is called."""
    page = Page((demo.folder / "index.html").read_text(encoding="utf-8"))
    linked = {(demo.folder / link).resolve() for link in page.links}
    written = {path for path in demo.folder.glob("*/*") if path.is_file()}
    assert linked == {path.resolve() for path in written}


def test_the_page_is_small_and_for_every_screen(demo: Demo) -> None:
    """Below 2 MB, with a viewport for phones and colours for the dark."""
    page = demo.folder / "index.html"
    assert page.stat().st_size < 2_000_000
    text = page.read_text(encoding="utf-8")
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert "$" not in re.sub(r"base64,[^\"]*", "", text)
