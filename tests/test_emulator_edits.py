"""The older path's pictures from pictures, edges and codes, by raw HTTP and by the client."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image, ImageStat

from prodia_async.emulator import Emulator, FireworksRecord
from prodia_async.fireworks import AsyncFireworks

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "/image_generation/accounts/fireworks/models/stable-diffusion-xl-1024-v1-0"


def picture(size: tuple[int, int] = (640, 512)) -> bytes:
    image = Image.new("RGB", size, "navy")
    image.paste("white", (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2))
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


def send(
    emulator: Emulator, edit: str, part: str | None, accept: str = "image/png", **fields: str
) -> httpx.Response:
    files = {} if part is None else {part: ("a.png", picture(), "image/png")}
    # With a field of its own a form is a form even without a picture.
    files = files or {"other": ("a.txt", b"x", "text/plain")}
    return httpx.post(
        f"{emulator.fireworks_url}{MODEL}/{edit}",
        data=fields,
        files=files,
        headers={"authorization": "Bearer x", "accept": accept},
        verify=False,
    )


def opened(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    image = Image.open(io.BytesIO(response.content))
    image.load()
    return image


def test_a_picture_from_a_picture(emulator: Emulator) -> None:
    """The more of it stays, the more alike they are; nulls are empty texts; it costs its steps."""
    base = Image.open(io.BytesIO(picture())).convert("RGB")
    far: list[float] = []
    for kept in ("0.95", "0.05"):
        fields = {"prompt": "a fox", "image_strength": kept, "seed": "7", "negative_prompt": ""}
        made = opened(send(emulator, "image_to_image", "init_image", steps="10", **fields))
        assert made.size == (1152, 896)
        small, other = (each.resize((8, 8)) for each in (made.convert("RGB"), base))
        far.append(sum(abs(a - b) for a, b in zip(small.tobytes(), other.tobytes(), strict=True)))
    assert far[0] < far[1]
    record = emulator.ledger[-1]
    assert isinstance(record, FireworksRecord)
    assert (record.endpoint, record.seed, record.dollars) == ("image_to_image", 7, 0.0013)
    assert [item.filename for item in record.inputs] == ["init_image"]
    assert record.config is not None
    assert record.config["prompt"] == "a fox"


@pytest.mark.parametrize(
    ("size", "made"),
    [
        ((640, 512), (1152, 896)), ((512, 512), (1024, 1024)), ((512, 1024), (768, 1344)),
        ((300, 400), (896, 1152)), ((900, 100), (1536, 640)), ((480, 640), (896, 1152)),
        ((1600, 900), (1344, 768)), ((900, 1600), (768, 1344)), ((500, 494), (1024, 1024)),
    ],
)  # fmt: skip
def test_a_picture_of_any_size_starts_one(
    emulator: Emulator, size: tuple[int, int], made: tuple[int, int]
) -> None:
    """Where no size is asked for it is one of the nine, the one of the nearest ratio."""
    files = {"control_image": ("a.png", picture(size), "image/png")}
    response = httpx.post(
        f"{emulator.fireworks_url}{MODEL}/control_net",
        data={"prompt": "a", "control_net_name": "canny"},
        files=files,
        headers={"authorization": "Bearer x", "accept": "image/png"},
        verify=False,
    )
    assert opened(response).size == made


@pytest.mark.parametrize(
    ("edit", "part", "fields", "problem"),
    [
        ("image_to_image", "init_image", {"prompt": "a"}, "image_strength: field required"),
        (
            "image_to_image",
            "init_image",
            {"prompt": "a", "init_image_mode": "STEP_SCHEDULE"},
            "step_schedule_end: field required",
        ),
        (
            "image_to_image",
            "init_image",
            {"prompt": "a", "image_strength": "1.5"},
            "image_strength: input should be 1 or less",
        ),
        (
            "image_to_image",
            "init_image",
            {"prompt": "a", "image_strength": "much"},
            "image_strength: input should be a number",
        ),
        ("image_to_image", None, {"prompt": "a", "image_strength": "1"}, "init_image: field"),
        ("control_net", "control_image", {"prompt": "a"}, "control_net_name: field required"),
        ("control_net", None, {"prompt": "a", "control_net_name": "canny"}, "control_image: f"),
        ("canny_edge_detection", None, {"min_val": "1"}, "image: field required"),
        ("canny_edge_detection", "image", {"min_val": "x"}, "min_val: input should be a number"),
    ],
)
def test_what_is_refused(
    emulator: Emulator, edit: str, part: str | None, fields: dict[str, str], problem: str
) -> None:
    """A field that is missing or wrong is named, and nothing is charged."""
    response = send(emulator, edit, part, **fields)
    assert response.status_code == 400
    assert problem in response.json()["error"]["message"]
    assert emulator.ledger.totals().charged == 0


def test_bodies_that_are_no_form(emulator: Emulator) -> None:
    """JSON, a form that is cut and a file that is no picture are 400; another model is 404."""
    url = f"{emulator.fireworks_url}{MODEL}/image_to_image"
    headers = {"authorization": "Bearer x"}
    for content, kind in ((b"{}", "application/json"), (b"--b\r\n", "multipart/form-data")):
        response = httpx.post(
            url, content=content, headers={**headers, "content-type": kind}, verify=False
        )
        assert response.status_code == 400
    files = {"image": ("a.png", b"no picture", "image/png")}
    for model, status in ((MODEL, 400), (MODEL.replace("stable", "unstable"), 404)):
        url = f"{emulator.fireworks_url}{model}/canny_edge_detection"
        response = httpx.post(url, files=files, headers=headers, verify=False)
        assert response.status_code == status, response.text


def test_edges(emulator: Emulator) -> None:
    """A black picture with white lines, of the picture's own size; fewer where more is asked."""
    means = []
    for high in ("50", "255"):
        made = opened(send(emulator, "canny_edge_detection", "image", min_val=high, max_val=high))
        assert made.size == (640, 512)
        assert {value for _, value in made.convert("L").getcolors() or ()} <= {0, 255}
        means.append(ImageStat.Stat(made.convert("L")).mean[0])
    assert 0 < means[1] <= means[0] < 30
    assert emulator.ledger[-1].dollars == 0


async def test_the_client_is_served(emulator: Emulator) -> None:
    """Every edit of the package's own client comes back as a picture."""
    async with AsyncFireworks("key", base_url=emulator.fireworks_url) as client:
        made: dict[str, Any] = {
            "image_to_image": await client.image_to_image("a", picture(), image_strength=0.4),
            "control_net": await client.control_net("a", picture(), control_net_name="canny"),
            "canny_edge_detection": await client.canny_edge_detection(picture()),
            "qr_code": await client.qr_code("https://example.org", width=256, height=256),
        }
    for response in made.values():
        assert response.image.content.startswith(b"\x89PNG")
    assert Image.open(io.BytesIO(made["qr_code"].image.content)).size == (256, 256)
    endpoints = [each.endpoint for each in emulator.ledger if isinstance(each, FireworksRecord)]
    assert endpoints == list(made)
