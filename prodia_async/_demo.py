"""
What ``prodia-async demo`` does: the documents' guides, run on an emulator in this process.

Files and numbers only; `_contact_sheet` makes a page of them and `_cli` a
terminal's output. Nothing here looks at the environment, so an account that
happens to be set up is never used.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageChops

from ._client import AsyncProdia
from ._formats import JPEG, PNG, Format, WebP
from ._models import Input, Job
from .emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ._attempts import Attempt
    from ._models import JobResponse

TEXT_TO_IMAGE = "inference.flux-fast.schnell.txt2img.v2"
COMBINE = "inference.nano-banana.img2img.v2"

PROMPT = "a photo of a strawberry on a wooden table, soft morning light"
SEED = 42

FORMATS: tuple[tuple[str, Format, int], ...] = (
    ("webp.webp", WebP(), 29),
    ("jpeg-q50.jpg", JPEG(quality=50), 39),
    ("jpeg.jpg", JPEG(), 53),
    ("jpeg-q95-444.jpg", JPEG(quality=95, subsampling="444"), 142),
    ("webp-lossless.webp", WebP(lossless=True, method=6), 610),
    ("png.png", PNG(), 861),
)
"""File name, format, kilobytes. Documented: guide "Output Image Formats", by size."""

SCENES = (
    "a lake and mountains at dawn",
    "a green meadow on a summer day",
    "a quiet coast at sunset",
    "a mountain pass at night, full moon",
    "a forest in the winter mist",
)
"""What the hundred show, twenty of each."""

JOBS = 100
WORKERS = 20
LATENCY = 0.5
"""Seconds a worker takes for one of the hundred. Chosen: long enough to see the queue."""
RETRY_AFTER = 0.5
"""Seconds a refused job is asked to wait. Chosen."""

TOKEN = "no-account-needed"  # noqa: S105  (the emulator takes any)

STEPS = len(FORMATS) + 3 + JOBS
"""How often `run_demo` calls `advance`."""


@dataclass(frozen=True, slots=True)
class FormatPicture:
    """
    The one picture in one of the formats.

    Attributes:
        accept: What was asked for.
        path: Where it lies.
        size: Bytes.
        documented_kb: Kilobytes that the documents give for their picture.
    """

    accept: Format
    path: Path
    size: int
    documented_kb: int


@dataclass(frozen=True, slots=True)
class Combination:
    """Two pictures and what became of them: paths, and what was asked."""

    sources: tuple[Path, Path]
    result: Path
    prompt: str


@dataclass(frozen=True, slots=True)
class RunJob:
    """
    One of the hundred.

    Attributes:
        path: Its picture.
        prompt: With `seed`, what it was made from.
        ended: Seconds from the start of all to its end.
        attempts: What was tried; all but the last were refused.
    """

    path: Path
    prompt: str
    seed: int
    ended: float
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class ManyJobs:
    """
    The hundred at once. Times are in seconds.

    Attributes:
        jobs: In the order they were asked for.
        elapsed: From the first request to the last answer.
        ideal: The least that so many workers could take.
        refusals: How often no worker was idle (429), each waited out.
        peak: The most workers that were busy at once.
    """

    jobs: tuple[RunJob, ...]
    elapsed: float
    ideal: float
    refusals: int
    peak: int


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What a demo did and where it lies."""

    folder: Path
    formats: tuple[FormatPicture, ...]
    combination: Combination
    many: ManyJobs

    @property
    def lossless_agree(self) -> bool:
        """Whether PNG and lossless WebP decode to the same pixels."""
        first, second = (decode(picture.path) for picture in self.formats if lossless(picture))
        return ImageChops.difference(first, second).getbbox() is None


def decode(path: Path) -> Image.Image:
    """Return the pixels of a picture, its file closed."""
    with Image.open(path) as picture:
        return picture.convert("RGB")


def lossless(picture: FormatPicture) -> bool:
    """Whether the format keeps every pixel."""
    return isinstance(picture.accept, PNG) or (
        isinstance(picture.accept, WebP) and bool(picture.accept.lossless)
    )


async def run_demo(folder: Path, advance: Callable[[str], None]) -> DemoReport:
    """
    Run the guides and write their pictures.

    Args:
        folder: Where to; made if it is missing. Files of an earlier demo are replaced.
        advance: Called after each job with the name of the guide, `STEPS` times.

    Raises:
        OSError: The folder cannot be made or written.
    """
    for name in ("formats", "combined", "hundred"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    async with (
        Emulator() as emulator,
        AsyncProdia(TOKEN, base_url=emulator.base_url) as client,
    ):
        formats = await _every_format(client, folder / "formats", advance)
        combination = await _combine(client, folder / "combined", advance)
    many = await _many(folder / "hundred", advance)
    return DemoReport(folder, formats, combination, many)


async def _every_format(
    client: AsyncProdia, folder: Path, advance: Callable[[str], None]
) -> tuple[FormatPicture, ...]:
    """Guide "Output Image Formats": one prompt and seed, six Accept values."""
    job = Job(TEXT_TO_IMAGE, {"prompt": PROMPT, "seed": SEED})
    pictures = []
    for name, accept, documented_kb in FORMATS:
        response = await client.job(job, accept=accept)
        path = await response.output.save(folder / name, overwrite=True)
        size = len(response.output.content)
        pictures.append(FormatPicture(accept, path, size, documented_kb))
        advance("formats")
    return tuple(pictures)


async def _combine(
    client: AsyncProdia, folder: Path, advance: Callable[[str], None]
) -> Combination:
    """Guide "Combining Multiple Images": two pictures into one, by their names."""
    sources = {}
    for name, prompt in (
        ("fruit.jpg", "a bowl of fruit on a wooden table"),
        ("mountains.jpg", "mountains at dawn, mist in the valleys"),
    ):
        response = await client.job(Job(TEXT_TO_IMAGE, {"prompt": prompt, "seed": SEED}))
        sources[name] = await response.output.save(folder / name, overwrite=True)
        advance("combined")
    prompt = "put the fruit in front of the mountains"
    response = await client.job(
        Job(COMBINE, {"prompt": prompt, "images": list(sources)}),
        inputs=[Input(path, filename=name) for name, path in sources.items()],
    )
    result = await response.output.save(folder / "combined.jpg", overwrite=True)
    advance("combined")
    first, second = sources.values()
    return Combination((first, second), result, prompt)


async def _many(folder: Path, advance: Callable[[str], None]) -> ManyJobs:
    """A hundred jobs at once against twenty workers: refusals are waited out."""
    configs: list[dict[str, Any]] = [
        {"prompt": SCENES[index * len(SCENES) // JOBS], "seed": index + 1} for index in range(JOBS)
    ]
    jobs = [Job(TEXT_TO_IMAGE, {**config, "width": 512, "height": 512}) for config in configs]
    answers: dict[int, tuple[float, JobResponse]] = {}
    async with (
        Emulator(workers=WORKERS, latency=LATENCY, retry_after=RETRY_AFTER) as emulator,
        AsyncProdia(TOKEN, base_url=emulator.base_url) as client,
    ):
        start = time.perf_counter()
        async with client.map(jobs) as outcomes:
            async for outcome in outcomes:
                answers[outcome.index] = time.perf_counter() - start, outcome.unwrap()
                advance("hundred")
        elapsed = time.perf_counter() - start
        refusals, peak = client.statistics().refusals, emulator.peak_busy
    # The clock has stopped: writing files is no part of what was measured.
    done = []
    for index, (ended, response) in sorted(answers.items()):
        path = await response.output.save(folder / f"{index + 1:03}.jpg", overwrite=True)
        done.append(RunJob(path, **configs[index], ended=ended, attempts=response.attempts))
    ideal = math.ceil(JOBS / WORKERS) * LATENCY
    return ManyJobs(tuple(done), elapsed, ideal, refusals, peak)
