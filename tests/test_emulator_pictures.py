"""The emulator's pictures: repeatable, varied, and near the documented sizes."""

from __future__ import annotations

import io
import itertools
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image, ImageChops, ImageStat

from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT = "puppies in a cloud, 4k"
DOCUMENTED = {
    "image/webp": 29,
    "image/jpeg;quality=50": 39,
    "image/jpeg": 53,
    "image/jpeg;quality=95;subsampling=444": 142,
    "image/webp;lossless=1;method=6": 610,
    "image/png": 861,
}
"""Kilobytes of one picture of 1024 by 1024. Source: guide "Output Image Formats"."""


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with (
        Emulator() as emulator,
        httpx.Client(
            base_url=emulator.base_url, headers={"authorization": "Bearer x"}, verify=False
        ) as client,
    ):
        yield client


def drawn(http: httpx.Client, accept: str = "image/png", **config: Any) -> bytes:
    config = {"prompt": DEFAULT, "seed": 42, "width": 512, "height": 512, **config}
    job = {"type": "inference.flux-fast.schnell.txt2img.v2", "config": config}
    response = http.post("/v2/job", json=job, headers={"accept": accept})
    assert response.status_code == 200
    return response.content


def composed(
    http: httpx.Client, type: str, colours: list[str], accept: str = "image/png", **config: Any
) -> Image.Image:
    job = {"type": type, "config": {"prompt": "prints on a wall", **config}}
    files: list[tuple[str, Any]] = [("job", ("job.json", json.dumps(job), "application/json"))]
    for colour in colours:
        target = io.BytesIO()
        Image.new("RGB", (300, 300), colour).save(target, "PNG")
        files.append(("input", (f"{colour}.png", target.getvalue(), "image/png")))
    response = http.post("/v2/job", files=files, headers={"accept": accept})
    assert response.status_code == 200
    return opened(response.content)


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def difference(one: bytes, other: bytes) -> float:
    """Mean absolute difference of two pictures, 0 to 255."""
    pair = ImageChops.difference(opened(one).convert("L"), opened(other).convert("L"))
    return ImageStat.Stat(pair).mean[0]


def test_the_documented_order_of_sizes(http: httpx.Client) -> None:
    """The six documented encodings of one picture come in order, each within a factor of two."""
    sizes = [len(drawn(http, accept, width=1024, height=1024)) / 1000 for accept in DOCUMENTED]
    for size, documented in zip(sizes, DOCUMENTED.values(), strict=True):
        assert documented / 2 < size < documented * 2
    for smaller, larger in itertools.pairwise(sizes):
        assert smaller * 1.1 < larger


@pytest.mark.parametrize("prompt", ["a strawberry on a table", "a night lake", "desert", "xyz"])
def test_the_order_holds_for_other_prompts(http: httpx.Client, prompt: str) -> None:
    """Other scenes and lights keep the order too."""
    formats = [name for name in DOCUMENTED if "lossless" not in name]
    formats.insert(4, "image/webp;lossless=1")
    sizes = [len(drawn(http, accept, prompt=prompt)) for accept in formats]
    assert sizes == sorted(sizes)


def test_lossless_means_the_same_pixels(http: httpx.Client) -> None:
    """PNG, PNG at most effort and lossless WebP decode to identical pixels."""
    plain, small, webp = (
        opened(drawn(http, accept)).tobytes()
        for accept in (
            "image/png",
            "image/png;compress-level=9;optimize=1",
            "image/webp;lossless=1",
        )
    )
    assert plain == small == webp


def test_the_same_job_gives_the_same_bytes() -> None:
    """Two emulators that know nothing of each other draw byte-identical pictures."""
    pictures = []
    for _ in range(2):
        with (
            Emulator() as emulator,
            httpx.Client(
                base_url=emulator.base_url, headers={"authorization": "Bearer x"}, verify=False
            ) as client,
        ):
            pictures.append(drawn(client, "image/jpeg"))
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("change", [{"seed": 43}, {"prompt": "a dark forest"}, {"seed": 2**40}])
def test_another_seed_or_prompt_is_another_picture(
    http: httpx.Client, change: dict[str, Any]
) -> None:
    """A change of seed or prompt is plain to see, far above the grain."""
    assert difference(drawn(http), drawn(http, **change)) > 4


def test_steps_do_not_change_the_picture(http: httpx.Client) -> None:
    """Only type, prompt, seed, size and inputs count."""
    assert drawn(http, steps=1) == drawn(http, steps=4)


def test_without_a_seed_each_picture_differs(http: httpx.Client) -> None:
    """A job without a seed gets a new one each time."""
    job = {
        "type": "inference.flux.schnell.txt2img.v1",
        "config": {"prompt": DEFAULT, "width": 256, "height": 256},
    }
    one, other = (http.post("/v2/job", json=job).content for _ in range(2))
    assert difference(one, other) > 4


@pytest.mark.parametrize("size", [(256, 1920), (1920, 256), (257, 333)])
def test_any_size_is_honoured(http: httpx.Client, size: tuple[int, int]) -> None:
    """Tall, wide and odd sizes come out as asked."""
    assert opened(drawn(http, width=size[0], height=size[1])).size == size


@pytest.mark.parametrize(
    "type", ["inference.nano-banana.img2img.v2", "inference.flux-2.flex.img2img.v1"]
)
def test_inputs_are_seen_in_order(http: httpx.Client, type: str) -> None:
    """Each input hangs in its own column, from left to right in the order of the request."""
    picture = composed(http, type, ["red", "lime", "blue"])
    seen = [
        picture.getpixel((round(picture.width * (2 * column + 1) / 6), picture.height // 2))
        for column in range(3)
    ]
    assert seen == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def test_config_decides_the_order(http: httpx.Client) -> None:
    """Names in the configuration put the inputs in their order, and leave the others out."""
    picture = composed(
        http,
        "inference.nano-banana.img2img.v2",
        ["red", "lime", "blue"],
        images=["blue.png", "red.png"],
    )
    quarter, middle = picture.width // 4, picture.height // 2
    assert picture.getpixel((quarter, middle)) == (0, 0, 255)
    assert picture.getpixel((3 * quarter, middle)) == (255, 0, 0)


def test_ten_inputs_are_all_seen(http: httpx.Client) -> None:
    """Flex takes ten inputs, and every one of them is in the picture."""
    names = ["red", "lime", "blue", "yellow", "aqua", "fuchsia", "black", "white", "navy", "maroon"]
    picture = composed(http, "inference.flux-2.flex.img2img.v1", names, width=1024, height=1024)
    colours = {colour for _, colour in picture.getcolors(1 << 22) or []}
    assert {Image.new("RGB", (1, 1), name).getpixel((0, 0)) for name in names} <= colours


def test_restyling_keeps_the_motif(http: httpx.Client) -> None:
    """An image-to-image result resembles its input, and strength takes it further away."""
    original = drawn(http, prompt="a strawberry on a table")
    distances = []
    for strength in (0.0, 1.0):
        job = {
            "type": "inference.flux.schnell.img2img.v1",
            "config": {"prompt": "neon night", "seed": 1, "strength": strength},
        }
        files: list[tuple[str, Any]] = [
            ("input", ("a.png", original, "image/png")),
            ("job", ("job.json", json.dumps(job), "application/json")),
        ]
        answer = http.post("/v2/job", files=files, headers={"accept": "image/png"}).content
        distances.append(difference(original, answer))
    unrelated = difference(original, drawn(http, prompt="mist"))
    assert 1 < distances[0] < distances[1] < unrelated
