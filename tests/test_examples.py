"""Each example as its user runs it: without an account, and against an API with a token."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from prodia_async.emulator import Emulator

FOLDER = Path(__file__).parents[1] / "examples"
PICTURES = {
    "output_formats": {
        *("format-1.webp", "format-2.jpg", "format-3.jpg", "format-4.jpg"),
        *("format-5.webp", "format-6.png", "format-7.png"),
    },
    "combine_images": {"fruit.jpg", "hills.jpg", "combined.jpg"},
    "many_jobs": {f"lake-{number:02}.jpg" for number in range(100)},
    "inference": {"puppies.jpg"},
    "polling_async_jobs": {"video.mp4"},
    "job_pricing": {f"study-{number}.jpg" for number in range(6)},
    "workflows": {"cat.jpg"},
}
PINGS = {"inference": 1}
"""Jobs that make no picture."""


def run(name: str, *arguments: object, cwd: Path, **variables: str) -> str:
    """Run an example to its good end and return what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PRODIA_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", FOLDER / f"{name}.py", *map(str, arguments)],
        cwd=cwd,
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_example_is_known_here() -> None:
    """An example that nobody runs would rot."""
    assert {path.stem for path in FOLDER.glob("*.py")} >= set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_it_is_short_and_imports_only_what_is_public(name: str) -> None:
    """20 to 40 lines, give or take, and no private module."""
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert 20 <= len(text.splitlines()) <= 45
    assert "prodia_async._" not in text


@pytest.mark.parametrize("name", PICTURES)
def test_it_runs_against_an_api_with_a_token(name: str, tmp_path: Path) -> None:
    """With PRODIA_TOKEN and PRODIA_BASE_URL every job goes there, and none is refused for good."""
    with Emulator(tokens=["the-account"], retry_after=0.2) as api:
        run(
            *(name, tmp_path / "chosen" / "folder"),
            cwd=tmp_path,
            PRODIA_TOKEN="the-account",
            PRODIA_BASE_URL=api.base_url,
        )
        assert api.ledger.totals().ran == len(PICTURES[name]) + PINGS.get(name, 0)
        assert set(api.ledger.totals().statuses) <= {200, 201, 429}
    assert {path.name for path in (tmp_path / "chosen" / "folder").iterdir()} == PICTURES[name]


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Run ``output_formats`` once without an account: what it printed, and its folder."""
    folder = tmp_path_factory.mktemp("formats")
    return run("output_formats", cwd=folder), folder / "pictures"


def test_output_formats_without_an_account(formats: tuple[str, Path]) -> None:
    """Sizes have the documented order, and the three lossless files hold the same pixels."""
    told, _ = formats
    rows = re.findall(r"([\d,]+) bytes  pixels (\w{8})  (\S+)", told)
    assert [accept for *_, accept in rows] == [
        "image/webp",
        "image/jpeg;quality=50",
        "image/jpeg",
        "image/jpeg;quality=95;subsampling=444",
        "image/webp;lossless=1;method=6",
        "image/png;compress-level=9;optimize=1",
        "image/png",
    ]
    sizes = [int(size.replace(",", "")) for size, *_ in rows]
    assert sizes[:5] == sorted(sizes[:5])
    assert sizes[4] < sizes[6]
    assert len({pixels for _, pixels, _ in rows[4:]}) == 1
    assert len({pixels for _, pixels, _ in rows}) == 5


def test_output_formats_reads_back_what_was_asked_for(
    formats: tuple[str, Path], tmp_path: Path
) -> None:
    """Chroma and tables in the JPEG files are those of the quality in the Accept header."""
    told, folder = formats
    found = re.findall(r"chroma (\d+), luma table \[(.*)\]", told)
    for number, chroma, quality in ((2, 2, 50), (3, 2, 75), (4, 0, 95)):
        Image.new("RGB", (8, 8)).save(tmp_path / "same.jpg", quality=quality)
        with (
            JpegImageFile(str(folder / f"format-{number}.jpg")) as jpeg,
            JpegImageFile(str(tmp_path / "same.jpg")) as same,
        ):
            assert jpeg.quantization == same.quantization
            assert get_sampling(jpeg) == chroma
            luma = ", ".join(map(str, jpeg.quantization[0][:4]))
            assert found[number - 2] == ({0: "444", 2: "420"}[chroma], luma)


def test_combine_images_without_an_account(tmp_path: Path) -> None:
    """It names the three pictures, which are written and whole."""
    told = run("combine_images", cwd=tmp_path)
    for name in PICTURES["combine_images"]:
        assert str(Path("pictures") / name) in told
        with Image.open(tmp_path / "pictures" / name) as picture:
            picture.load()


def test_many_jobs_without_an_account(tmp_path: Path) -> None:
    """All hundred complete, although twenty workers had to refuse some."""
    told = run("many_jobs", cwd=tmp_path)
    assert "100 completed, 0 failed" in told
    (refusals,) = re.findall(r"(\d+) refusals", told)
    assert int(refusals) > 0
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == PICTURES["many_jobs"]


def test_inference_without_an_account(tmp_path: Path) -> None:
    """It pings, makes a picture and prints the job result, defaults and seed filled in."""
    told = run("inference", cwd=tmp_path)
    ping, made, result = told.split("\n", 2)
    assert re.fullmatch(r"ping: request [0-9a-f-]{36} took [\d.]+ s", ping)
    assert made == f"made {Path('pictures', 'puppies.jpg')}"
    job = json.loads(result)
    assert job["state"]["current"] == "completed"
    assert job["config"]["prompt"] == "puppies in a cloud, 4k"
    assert {"seed", "steps", "width", "height"} <= set(job["config"])


def test_polling_async_jobs_without_an_account(tmp_path: Path) -> None:
    """The job is still running when it is asked for, and its film is whole when it is saved."""
    told = run("polling_async_jobs", cwd=tmp_path)
    assert re.search(r"^submitted [0-9a-f-]{36}$", told, re.MULTILINE)
    assert "it is processing" in told
    film = (tmp_path / "pictures" / "video.mp4").read_bytes()
    assert film[4:8] == b"ftyp"
    assert b"moov" in film


def test_job_pricing_adds_up(tmp_path: Path) -> None:
    """Its sums are those of the jobs, and what the ledger charged."""
    account = "the-account"
    with Emulator(tokens=[account]) as api:
        variables = {"PRODIA_TOKEN": account, "PRODIA_BASE_URL": api.base_url}
        told = run("job_pricing", cwd=tmp_path, **variables)
        charged = api.ledger.totals()
    each = [float(dollars) for dollars in re.findall(r"study \d: \$([\d.]+)", told)]
    together = [float(dollars) for dollars in re.findall(r"\$([\d.]+) together", told)]
    (everything,) = re.findall(r"\$([\d.]+) in all", told)
    assert (len(each), len(together), charged.charged) == (6, 2, 6)
    assert sum(each) == pytest.approx(charged.dollars)
    assert sum(together) == pytest.approx(charged.dollars)
    assert float(everything) == pytest.approx(charged.dollars)


def test_workflows_enlarges_the_picture(tmp_path: Path) -> None:
    """The picture that passed the check comes back at twice its size."""
    assert "made" in run("workflows", cwd=tmp_path)
    with Image.open(tmp_path / "pictures" / "cat.jpg") as picture:
        assert picture.size == (2048, 2048)


def test_workflows_tells_that_the_check_tripped(tmp_path: Path) -> None:
    """A moderation that trips is one line that says so, and no picture."""
    with Emulator() as api:
        api.behave(moderation=1.0)
        told = run("workflows", cwd=tmp_path, PRODIA_TOKEN="any", PRODIA_BASE_URL=api.base_url)
    assert told.startswith("no picture: ")
    assert "moderat" in told
    assert not (tmp_path / "pictures" / "cat.jpg").exists()
