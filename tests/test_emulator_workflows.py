"""Workflows of the emulator: steps that feed each other, and moderation."""

from __future__ import annotations

import email
import email.policy
import io
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

DRAW: dict[str, Any] = {
    "type": "inference.flux-fast.schnell.txt2img.v2",
    "config": {"prompt": "a lake", "seed": 1, "width": 320, "height": 256},
}
ENLARGE: dict[str, Any] = {"type": "inference.upscale.v1", "config": {"upscale": 2}}
MODERATE: dict[str, Any] = {"type": "workflow.moderate.v1", "config": {"threshold": 0.95}}
FILM: dict[str, Any] = {
    "type": "inference.wan2-2.lightning.img2vid.v0",
    "config": {"prompt": "x", "seed": 1},
}
NSFW: dict[str, Any] = {**DRAW, "config": {"prompt": "an nsfw lake", "width": 256, "height": 256}}


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(privileged_types=["inference.flux-2.max.txt2img.v1"]) as emulator:
        yield emulator


def picture(colour: str = "red", size: tuple[int, int] = (64, 48)) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", size, colour).save(target, "PNG")
    return target.getvalue()


def run(
    emulator: Emulator,
    *jobs: Any,
    accept: str = "multipart/form-data",
    inputs: tuple[tuple[str, bytes], ...] = (),
    query: str = "",
) -> httpx.Response:
    job = {"type": "workflow.serial.v1", "jobs": list(jobs)}
    files: list[tuple[str, Any]] = [("job", ("job.json", json.dumps(job), "application/json"))]
    files += [("input", (name, content, "image/png")) for name, content in inputs]
    return httpx.post(
        f"{emulator.base_url}/v2/job{query}",
        files=files,
        headers={"authorization": "Bearer x", "accept": accept},
        verify=False,
    )


def read(response: httpx.Response) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + response.content, policy=email.policy.HTTP)
    parts = [
        (part.get_content_type(), part.get_payload(decode=True)) for part in message.iter_parts()
    ]
    bodies = [(kind, body) for kind, body in parts if isinstance(body, bytes)]
    return json.loads(bodies[0][1]), bodies[1:]


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


# Steps.


def test_one_step_feeds_the_next(emulator: Emulator) -> None:
    """A picture is drawn and enlarged; the result shows both jobs filled, and costs both."""
    response = run(emulator, DRAW, ENLARGE, query="?price=true")
    result, [(media_type, content)] = read(response)
    assert result["type"] == "workflow.serial.v1"
    assert (media_type, opened(content).size) == ("image/jpeg", (640, 512))
    assert "config" not in result
    assert [job["type"] for job in result["jobs"]] == [DRAW["type"], ENLARGE["type"]]
    assert result["jobs"][0]["config"]["steps"] == 4
    assert result["price"] == {"product": "workflow-serial", "dollars": 0.0035}
    assert emulator.ledger[-1].dollars == 0.0035
    alone = httpx.post(
        f"{emulator.base_url}/v2/job",
        json=DRAW,
        headers={"authorization": "Bearer x", "accept": "image/jpeg"},
        verify=False,
    )
    small = opened(content).resize((320, 256))
    first = opened(alone.content)
    middles = [image.resize((1, 1)).getpixel((0, 0)) for image in (small, first)]
    assert middles[0] == pytest.approx(middles[1], abs=3)


def test_a_picture_becomes_a_film(emulator: Emulator) -> None:
    """The format is that of the last step: a film cannot be had as a picture."""
    answer = run(emulator, DRAW, MODERATE, FILM, accept="video/mp4")
    assert (answer.headers["content-type"], answer.content[4:8]) == ("video/mp4", b"ftyp")
    assert run(emulator, DRAW, FILM, accept="image/png").status_code == 400
    refused = run(emulator, DRAW, FILM, ENLARGE)
    assert refused.status_code == 400
    assert "at '/jobs/2'" in read(refused)[0]["error"]


def test_the_same_workflow_gives_the_same_bytes(emulator: Emulator) -> None:
    """It is as repeatable as its steps, and another seed makes another picture."""
    other = {**DRAW, "config": {**DRAW["config"], "seed": 2}}
    answers = [
        run(emulator, job, ENLARGE, accept="image/png").content for job in (DRAW, DRAW, other)
    ]
    assert answers[0] == answers[1] != answers[2]


def test_uploaded_files_go_to_the_first_step(emulator: Emulator) -> None:
    """An input without a name goes to the first step, a named one to whoever names it."""
    _, [(_, content)] = read(run(emulator, ENLARGE, ENLARGE, inputs=(("a.png", picture()),)))
    assert opened(content).size == (256, 192)
    swap = {"type": "inference.faceswap.v1", "config": {"source": "face.png"}}
    inputs = (("face.png", picture("blue")), ("a.png", picture("red")))
    answer = run(emulator, ENLARGE, swap, inputs=inputs, accept="image/png")
    image = opened(answer.content)
    assert image.size == (128, 96)
    blue, red = image.getpixel((64, 48)), image.getpixel((2, 2))
    assert isinstance(blue, tuple)
    assert isinstance(red, tuple)
    assert (blue[2] > 200, red[0] > 200) == (True, True)


def test_a_named_file_replaces_the_step_before(emulator: Emulator) -> None:
    """A step that names all the files it takes does without the output before it."""
    named = {"type": ENLARGE["type"], "config": {"image": "a.png", "upscale": 4}}
    answer = run(emulator, DRAW, named, inputs=(("a.png", picture()),), accept="image/png")
    assert opened(answer.content).size == (256, 192)


@pytest.mark.parametrize(
    ("jobs", "text"),
    [
        ([], "at '/jobs': minItems: got 0, want 1"),
        ([DRAW, {"type": "inference.none.v1"}], "unknown job type"),
        ([DRAW, {"config": {}}], "at '/jobs/1': missing property 'type'"),
        ([DRAW, "x"], "at '/jobs/1': got string, want object"),
        ([{**DRAW, "config": {"steps": 9}}], "at '/jobs/0/config/steps': maximum: got 9, want 4"),
        ([MODERATE], "input image is required"),
        ([{"type": "inference.ping.v1"}, ENLARGE], "input image is required"),
        ([DRAW, {"type": "workflow.serial.v1", "jobs": [DRAW]}], "cannot be a step"),
        ([DRAW, {**MODERATE, "config": {"threshold": 2}}], "maximum: got 2, want 1"),
    ],
)
def test_a_workflow_that_cannot_run(emulator: Emulator, jobs: list[Any], text: str) -> None:
    """What is wrong with any step is found before anything runs, with its place."""
    response = run(emulator, *jobs)
    assert response.status_code == 400
    assert text in read(response)[0]["error"]
    assert emulator.ledger.totals().ran == 0


def test_no_jobs_at_all(emulator: Emulator) -> None:
    """A workflow without the member jobs says so; one with a privileged step is a 403."""
    response = httpx.post(
        f"{emulator.base_url}/v2/job",
        json={"type": "workflow.serial.v1"},
        headers={"authorization": "Bearer x"},
        verify=False,
    )
    assert "missing property 'jobs'" in response.json()["error"]
    secret = {"type": "inference.flux-2.max.txt2img.v1", "config": {"prompt": "x"}}
    assert run(emulator, DRAW, secret).status_code == 403


# Moderation.


def test_moderation_lets_a_lake_pass(emulator: Emulator) -> None:
    """The picture before it goes out as it is, in the format that was asked for."""
    for accept, kind in (("image/png", "PNG"), ("image/webp", "WEBP")):
        assert opened(run(emulator, DRAW, MODERATE, accept=accept).content).format == kind


@pytest.mark.parametrize(("status", "charged"), [(400, False), (200, True)])
def test_a_tripped_moderation(emulator: Emulator, status: Any, charged: bool) -> None:
    """A marked prompt fails the workflow, naming moderation, as 400 or by the switch as 200."""
    emulator.behave(failure_status=status)
    response = run(emulator, NSFW, MODERATE, ENLARGE)
    result, outputs = read(response)
    assert (response.status_code, outputs) == (status, [])
    assert result["state"]["current"] == "failed"
    assert "moderation" in result["error"]
    assert "0.95" in result["error"]
    record = emulator.ledger[-1]
    assert (record.ran, record.charged) == (True, charged)


def test_thresholds_and_scores(emulator: Emulator) -> None:
    """The score is set by a switch; from the threshold on it trips, below it does not."""
    emulator.behave(moderation=0.5)
    codes = []
    for threshold in (0.4, 0.5, 0.6):
        step = {**MODERATE, "config": {"threshold": threshold}}
        codes.append(run(emulator, DRAW, step).status_code)
    assert codes == [400, 400, 200]
    emulator.behave(moderation=0.0)
    assert run(emulator, NSFW, MODERATE).status_code == 200


def test_a_step_that_fails_fails_the_workflow(emulator: Emulator) -> None:
    """Planned failures and markers count for the steps of a workflow too."""
    emulator.fail_jobs(1, "broken", type=ENLARGE["type"])
    assert run(emulator, DRAW).status_code == 200
    assert read(run(emulator, DRAW, ENLARGE))[0]["error"] == "broken"
    marked = {**DRAW, "config": {"prompt": "a lake [fail: dark]"}}
    assert read(run(emulator, marked, ENLARGE))[0]["error"] == "dark"
