"""
What the emulator's second API says on the wire, read with httpx alone.

It follows the checklist of the API's reference, contradictions included: each
switch of `FireworksBehaviour` has a test that turns it.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from prodia_async.emulator import Emulator, FireworksBehaviour, FireworksRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "fw_nobody-may-see-this"
MODELS = "/accounts/fireworks/models"
SCHNELL = f"/workflows{MODELS}/flux-1-schnell-fp8/text_to_image"
DEV = f"/workflows{MODELS}/flux-1-dev-fp8/text_to_image"
SDXL = f"/image_generation{MODELS}/stable-diffusion-xl-1024-v1-0"
KONTEXT = f"/workflows{MODELS}/flux-kontext-pro"
POLL = f"{KONTEXT}/get_result"
SMALL = FireworksBehaviour(shrink=16)
RATIOS = ("1:1", "21:9", "16:9", "3:2", "5:4", "4:5", "2:3", "9:16", "9:21", "4:3", "3:4")
PAIRS = (
    *((1024, 1024), (1152, 896), (896, 1152), (1216, 832), (832, 1216)),
    *((1344, 768), (768, 1344), (1536, 640), (640, 1536)),
)


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator(tokens=[KEY], fireworks=SMALL, max_upload_bytes=1 << 20) as running:
        yield running


@pytest.fixture
def emulator(running: Emulator) -> Iterator[Emulator]:
    running.ledger.clear()
    yield running
    running.fireworks = SMALL
    running.retry_after = 1.0
    running.workers = 20
    running.forget_planned()


@pytest.fixture(scope="module")
def http(running: Emulator) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=running.fireworks_url, headers=headers, verify=False) as client:
        del client.headers["accept"]
        yield client


def switch(emulator: Emulator, **switches: Any) -> None:
    emulator.fireworks = replace(SMALL, **switches)


def send(
    http: httpx.Client, path: str = SCHNELL, accept: str | None = None, **body: Any
) -> httpx.Response:
    headers = {} if accept is None else {"accept": accept}
    return http.post(path, json={"prompt": "a lake", "seed": 7, **body}, headers=headers)


def last(emulator: Emulator) -> FireworksRecord:
    record = emulator.ledger[-1]
    assert isinstance(record, FireworksRecord)
    return record


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def message(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert error["object"] == "error"
    return str(error["message"])


# The two synchronous endpoints.


@pytest.mark.parametrize("path", [SCHNELL, DEV, SDXL])
def test_an_image(http: httpx.Client, emulator: Emulator, path: str) -> None:
    """A plain request gives a picture, its seed, its finish reason and its length."""
    response = send(http, path, accept="image/png")
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert response.headers["seed"] == "7"
    assert response.headers["finish-reason"] == "SUCCESS"
    assert int(response.headers["content-length"]) == len(response.content)
    assert opened(response.content).format == "PNG"
    assert (last(emulator).ran, last(emulator).seed, last(emulator).images) == (True, 7, 1)


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        (None, "PNG"),
        ("*/*", "PNG"),
        ("image/png", "PNG"),
        ("image/jpeg", "JPEG"),
        ("image/png;q=0.1, image/jpeg", "JPEG"),
        ("image/webp, image/jpeg;q=0.2", "JPEG"),
    ],
)
def test_accept(http: httpx.Client, accept: str | None, format: str) -> None:
    """The Accept header decides; without one, or with a wildcard, it is PNG."""
    response = send(http, accept=accept)
    assert opened(response.content).format == format
    assert response.headers["content-type"] == f"image/{format.lower()}"


def test_an_accept_that_cannot_be_met(http: httpx.Client, emulator: Emulator) -> None:
    """Another type is refused with what could be had, and nothing is charged."""
    response = send(http, accept="image/webp")
    assert response.status_code == 400
    assert "image/jpeg" in message(response)
    assert emulator.ledger.totals().charged == 0


def test_jpeg_quality(http: httpx.Client) -> None:
    """Jpeg-Quality counts for JPEG only, and must be 0 to 100."""

    def sized(quality: str, accept: str = "image/jpeg") -> httpx.Response:
        headers = {"accept": accept, "jpeg-quality": quality}
        return http.post(SCHNELL, json={"prompt": "a lake", "seed": 7}, headers=headers)

    low, high = sized("10").content, sized("100").content
    assert len(low) < len(high)
    assert sized("101").status_code == sized("best").status_code == 400
    assert sized("101", "image/png").status_code == 200


def test_the_format_inside_json(http: httpx.Client) -> None:
    """Json-Return-Image-Accept picks it, PNG if it is absent, and only for JSON."""
    body = {"prompt": "a lake", "seed": 7}
    for inner, kind in ((None, "PNG"), ("image/png", "PNG"), ("image/jpeg", "JPEG")):
        headers = {"accept": "application/json"}
        if inner:
            headers["json-return-image-accept"] = inner
        [uri] = http.post(SCHNELL, json=body, headers=headers).json()["base64"]
        prefix, _, text = uri.partition(",")
        assert prefix == f"data:image/{kind.lower()};base64"
        assert opened(base64.b64decode(text)).format == kind
    headers = {"accept": "application/json", "json-return-image-accept": "image/webp"}
    assert http.post(SCHNELL, json=body, headers=headers).status_code == 400


def test_the_same_seed_gives_the_same_bytes(http: httpx.Client, emulator: Emulator) -> None:
    """Prompt, seed and size decide the picture; steps and the form of the answer do not."""
    first = send(http).content
    assert send(http, num_inference_steps=1, guidance_scale=1).content == first
    [uri] = send(http, accept="application/json").json()["base64"]
    assert base64.b64decode(uri.partition(",")[2]) == first
    assert send(http, seed=8).content != first
    assert send(http, prompt="a fox").content != first
    with Emulator(fireworks=SMALL) as other:
        url = other.fireworks_url + SCHNELL
        headers = {"authorization": "Bearer x"}
        body = {"prompt": "a lake", "seed": 7}
        assert httpx.post(url, json=body, headers=headers, verify=False).content == first


@pytest.mark.parametrize("body", [{"seed": 0}, {}])
def test_a_seed_is_drawn(http: httpx.Client, emulator: Emulator, body: dict[str, int]) -> None:
    """Seed 0 and no seed draw one, report it, and it repeats the picture."""
    response = http.post(SCHNELL, json={"prompt": "a lake", **body})
    seed = int(response.headers["seed"])
    assert 0 < seed < 2**32
    assert last(emulator).seed == seed
    assert send(http, seed=seed).content == response.content
    drawn = http.post(
        SCHNELL, json={"prompt": "a lake", **body}, headers={"accept": "application/json"}
    ).json()["seed"]
    assert drawn != seed


def test_each_ratio_has_its_size(http: httpx.Client, emulator: Emulator) -> None:
    """The eleven ratios give about a megapixel in that ratio; without one it is square."""
    switch(emulator, shrink=8)
    for ratio in RATIOS:
        across, down = map(int, ratio.split(":"))
        width, height = opened(send(http, aspect_ratio=ratio).content).size
        assert width / height == pytest.approx(across / down, rel=0.06)
        assert (width % 8, height % 8) == (0, 0)
        assert width * height * 64 == pytest.approx(2**20, rel=0.08)
    assert opened(send(http).content).size == (128, 128)


def test_full_size(http: httpx.Client, emulator: Emulator) -> None:
    """Without the switch for small pictures they have the size that was asked for."""
    emulator.fireworks = FireworksBehaviour()
    picture = send(http, accept="image/jpeg", aspect_ratio="16:9").content
    assert opened(picture).size == (1344, 768)
    assert opened(send(http, SDXL, "image/jpeg", width=640, height=1536).content).size == (
        640,
        1536,
    )


def test_a_scene(http: httpx.Client, emulator: Emulator) -> None:
    """At full size the picture is a scene, the same for the same seed, also from Kontext."""
    emulator.fireworks = FireworksBehaviour()
    contents = [send(http, accept="image/jpeg", seed=seed).content for seed in (7, 7, 8)]
    assert contents[0] == contents[1] != contents[2]
    target = io.BytesIO()
    Image.new("L", (90, 60), 40).save(target, "JPEG")
    text = base64.b64encode(target.getvalue()).decode()
    url = ready(http, submitted(http, input_image=text, output_format="jpeg"))
    assert opened(fetch(url).content).size == (1280, 832)


def test_a_sample_is_not_there_before_it_is_done(http: httpx.Client, emulator: Emulator) -> None:
    """Whoever guesses the URL of a task under way finds nothing yet."""
    url = ready(http, submitted(http))
    emulator.hold()
    try:
        task = submitted(http, seed=8)
        parts = url.split("/")
        parts[-2] = task
        assert fetch("/".join(parts)).status_code == 404
    finally:
        emulator.release()
    ready(http, task)
    assert fetch("/".join(parts)).status_code == 200


def test_the_nine_pairs(http: httpx.Client) -> None:
    """The older path takes the nine sizes, as numbers or as text, and no other."""
    for width, height in PAIRS:
        picture = send(http, SDXL, width=width, height=str(height)).content
        assert opened(picture).size == (width // 16, height // 16)
    wrong: tuple[tuple[Any, Any], ...] = ((1024, 896), (512, 512), (1024, None), ("wide", 1024))
    for pair in wrong:
        assert send(http, SDXL, width=pair[0], height=pair[1]).status_code == 400


# JSON.


def test_json_on_a_workflow(http: httpx.Client) -> None:
    """By default it is an object with an id, a list of data URIs, a seed and a reason."""
    response = send(http, accept="application/json")
    body = response.json()
    assert set(body) == {"id", "base64", "finishReason", "seed"}
    assert (body["seed"], body["finishReason"], len(body["base64"])) == (7, "SUCCESS", 1)
    assert "seed" not in response.headers


def test_json_on_the_older_path(http: httpx.Client) -> None:
    """By default it is an array with a bare picture and a seed of its own for each sample."""
    artifacts = send(http, SDXL, "application/json", samples=3).json()
    assert [artifact["seed"] for artifact in artifacts] == [7, 8, 9]
    pictures = [base64.b64decode(artifact["base64"]) for artifact in artifacts]
    assert len({opened(picture).tobytes() for picture in pictures}) == 3
    assert pictures[1] == send(http, SDXL, seed=8).content


@pytest.mark.parametrize("path", [SCHNELL, SDXL])
def test_each_json_shape(http: httpx.Client, emulator: Emulator, path: str) -> None:
    """The switch gives any of the four shapes on either path, with the same picture."""
    content = send(http, path).content
    text = base64.b64encode(content).decode()
    found = {}
    for shape in ("list-prefixed", "list", "string", "array"):
        switch(emulator, json_shape=shape)
        found[shape] = send(http, path, "application/json").json()
    assert found["list-prefixed"]["base64"] == [f"data:image/png;base64,{text}"]
    assert found["list"]["base64"] == [text]
    assert found["string"]["base64"] == text
    assert [each["base64"] for each in found["array"]] == [text]


# Filtered pictures.


@pytest.mark.parametrize("path", [SCHNELL, SDXL])
def test_a_filtered_picture(http: httpx.Client, emulator: Emulator, path: str) -> None:
    """The word in the prompt gives 200, the reason in header or JSON, and a black picture."""
    assert send(http, path, prompt="a [filtered] lake").headers["finish-reason"] == "SUCCESS"
    response = send(http, path, prompt="a [filtered] lake", safety_check=True)
    assert (response.status_code, response.headers["finish-reason"]) == (200, "CONTENT_FILTERED")
    assert opened(response.content).getextrema() == ((0, 0),) * 3
    switch(emulator, always_check_safety=True)
    answer = send(http, path, "application/json", prompt="a [filtered] lake").json()
    first = answer[0] if isinstance(answer, list) else answer
    assert first["finishReason"] == "CONTENT_FILTERED"
    assert (last(emulator).finish_reason, last(emulator).charged) == ("CONTENT_FILTERED", True)
    switch(emulator, filter_word="other")
    assert send(http, path, prompt="[filtered]").headers["finish-reason"] == "SUCCESS"


# Keys.


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}, {"authorization": KEY}])
def test_a_key_is_needed(emulator: Emulator, header: dict[str, str]) -> None:
    """Without a known key it is 401 in JSON whatever was accepted; a switch makes it 404."""

    def status(path: str) -> int:
        headers = {**header, "accept": "image/png"}
        url = emulator.fireworks_url + path
        response = httpx.post(url, json={"prompt": "x"}, headers=headers, verify=False)
        assert response.headers["content-type"] == "application/json"
        assert message(response)
        return response.status_code

    assert [status(path) for path in (SCHNELL, SDXL, KONTEXT, POLL)] == [401] * 4
    switch(emulator, missing_key_status=404)
    assert [status(path) for path in (SCHNELL, SDXL, KONTEXT, POLL)] == [404, 401, 404, 404]
    assert KEY not in repr(emulator.ledger.records())


# Bad bodies.


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": None},
        {"prompt": 5},
        {"aspect_ratio": "2:1"},
        {"aspect_ratio": None},
        {"num_inference_steps": 0},
        {"num_inference_steps": 1.5},
        {"num_inference_steps": True},
        {"guidance_scale": "high"},
        {"seed": -1},
        {"seed": 2**70},
        {"safety_check": "yes"},
    ],
    ids=json.dumps,
)
def test_a_bad_field(http: httpx.Client, emulator: Emulator, body: dict[str, Any]) -> None:
    """It is 400 in the error form or, by switch, 422 with detail; both name the field."""
    [name] = body
    response = send(http, accept="image/png", **body)
    assert response.status_code == 400
    assert message(response).startswith(f"{name}: ")
    switch(emulator, validation_status=422)
    response = send(http, **body)
    assert response.status_code == 422
    [detail] = response.json()["detail"]
    assert detail["loc"] == ["body", name]
    assert detail["msg"]
    assert emulator.ledger.totals().charged == 0


@pytest.mark.parametrize(
    "body",
    [
        {"samples": 0},
        {"samples": 2},
        {"steps": 0},
        {"sampler": "EULER"},
        {"cfg_scale": "7"},
        {"prompt": None},
        {"lora_adapter_name": "a"},
    ],
    ids=json.dumps,
)
def test_a_bad_field_on_the_older_path(http: httpx.Client, body: dict[str, Any]) -> None:
    """Its own fields are checked too; several samples need JSON to come in."""
    assert send(http, SDXL, **body).status_code == 400


def test_the_body_of_the_last_official_package(http: httpx.Client, emulator: Emulator) -> None:
    """It sends every field, most of them null, and nothing of it is unknown."""
    nulls = (
        *("negative_prompt", "width", "height", "cfg_scale", "sampler", "steps", "style_preset"),
        *("lora_adapter_name", "lora_weight_filename", "text_prompts"),
    )
    body = {
        **dict.fromkeys(nulls),
        "samples": 1,
        "safety_check": False,
        "apply_invisible_watermark": False,
        "return_latents": False,
        "clip_guidance_preset": "NONE",
        "model": "ignored",
    }
    assert send(http, SDXL, "image/jpeg", **body).status_code == 200
    assert last(emulator).ignored == ()
    weighted: dict[str, Any] = {"prompt": None, "text_prompts": [{"text": "a lake", "weight": 1}]}
    assert send(http, SDXL, **weighted).content == send(http, SDXL).content


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b'{"seed": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_object(http: httpx.Client, content: bytes) -> None:
    """Anything but a JSON object is 400."""
    response = http.post(SCHNELL, content=content)
    assert response.status_code == 400
    assert message(response)


def test_every_fault_of_a_body_is_named(http: httpx.Client, emulator: Emulator) -> None:
    """Several wrong fields are told together."""
    switch(emulator, validation_status=422)
    detail = http.post(SCHNELL, json={"seed": -1, "aspect_ratio": "x"}).json()["detail"]
    assert [each["loc"][-1] for each in detail] == ["prompt", "aspect_ratio", "seed"]
    assert detail[0]["type"] == "missing"


def test_half_a_character(http: httpx.Client) -> None:
    """A lone surrogate in the prompt, which JSON can hold, is drawn all the same."""
    assert http.post(SCHNELL, content=b'{"prompt": "\\ud800"}').status_code == 200


def test_unknown_fields(http: httpx.Client, emulator: Emulator) -> None:
    """They are dropped in silence, and the ledger names them."""
    usual = send(http).content
    wrong: dict[str, Any] = {"width": 512, "steps": 0, "samples": 4, "negative_prompt": "x"}
    assert send(http, **wrong).content == usual
    assert last(emulator).ignored == tuple(wrong)
    assert last(emulator).config == {"prompt": "a lake", "seed": 7, **wrong}
    assert send(http, SDXL, aspect_ratio="x").status_code == 200
    assert last(emulator).ignored == ("aspect_ratio",)


def test_a_body_that_is_too_large(http: httpx.Client) -> None:
    """It is 413, with a length or without."""
    chunks = iter([b"x" * (1 << 19)] * 3)
    for content in (b"x" * (1 << 21), chunks):
        response = http.post(SCHNELL, content=content)
        assert response.status_code == 413
        assert message(response)


# Paths.


def test_models_and_their_paths(http: httpx.Client, emulator: Emulator) -> None:
    """A model is found on its own endpoint only; anything else is 404, GET is 405."""
    switch(emulator, flux_on_image_generation=False)
    for path in (
        f"/image_generation{MODELS}/flux-1-schnell-fp8",
        f"/workflows{MODELS}/stable-diffusion-xl-1024-v1-0/text_to_image",
        f"/workflows{MODELS}/flux-1-schnell-fp8",
        f"/workflows{MODELS}/flux-kontext-pro/text_to_image",
        f"/workflows{MODELS}{MODELS}/flux-1-dev-fp8/text_to_image",
        f"/workflows{MODELS}/nobody/text_to_image",
        "/images",
    ):
        response = send(http, path)
        assert response.status_code == 404, path
        assert message(response)
    got = http.get(POLL)
    assert (got.status_code, got.headers["allow"]) == (405, "POST")
    assert message(got)
    assert emulator.ledger.totals().statuses == {404: 7, 405: 1}


def test_the_doubled_path(http: httpx.Client, emulator: Emulator) -> None:
    """By switch, the path that some documents print is served too."""
    switch(emulator, doubled_path=True)
    path = f"/workflows{MODELS}{MODELS}/flux-1-dev-fp8/text_to_image"
    assert send(http, path).content == send(http, DEV).content


def test_flux_on_the_older_path(http: httpx.Client, emulator: Emulator) -> None:
    """By switch, the older path takes the flux models, at their price."""
    switch(emulator, flux_on_image_generation=True)
    path = f"/image_generation{MODELS}/flux-1-schnell-fp8"
    assert send(http, path, width=1344, height=768, steps=4).status_code == 200
    assert last(emulator).dollars == 0.0014


def test_both_apis_share_a_server(http: httpx.Client, emulator: Emulator) -> None:
    """The first API answers beside it, and its errors keep their form."""
    headers = {"authorization": f"Bearer {KEY}"}
    url = f"{emulator.base_url}/v2/job"
    job = {"type": "inference.ping.v1"}
    assert httpx.post(url, json=job, headers=headers, verify=False).status_code == 200
    assert httpx.get(url, verify=False).text == "method not allowed"
    assert emulator.fireworks_url == f"{emulator.base_url}/inference/v1"


# Capacity, rates and faults.


def test_no_idle_worker(http: httpx.Client, emulator: Emulator) -> None:
    """It is 429 with Retry-After, 429 without, or 503, and costs nothing."""
    emulator.workers = 0
    busy = send(http)
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "1")
    assert message(busy)
    emulator.retry_after = None
    assert "retry-after" not in send(http).headers
    assert send(http, KONTEXT).status_code == 429
    switch(emulator, busy_status=503)
    assert send(http).status_code == 503
    assert emulator.ledger.totals().charged == 0
    assert send(http, prompt=None).status_code == 400


def test_capacity_by_model() -> None:
    """The workers are those of the emulator, and a model may have its own."""
    emulator = Emulator(workers=1, type_workers={"flux-1-dev-fp8": 0}, fireworks=SMALL)
    headers = {"authorization": "Bearer x"}
    with emulator, httpx.Client(headers=headers, verify=False) as client:
        url = emulator.fireworks_url
        assert client.post(url + DEV, json={"prompt": "x"}).status_code == 429
        assert client.post(url + SCHNELL, json={"prompt": "x"}).status_code == 200
        assert emulator.peak_busy == 1
        assert emulator.busy == 0


def test_the_rate(http: httpx.Client, emulator: Emulator) -> None:
    """The headers count down; a little over is served and says so, far over is 429."""
    switch(emulator, rate_limit=4)
    answers = [send(http) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 6 + [429]
    remaining = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
    assert remaining == ["3", "2", "1", "0", "0", "0", "0"]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"4"}
    over = [answer.headers.get("x-ratelimit-over-limit") for answer in answers]
    assert over == [None] * 4 + ["yes"] * 3
    assert answers[-1].headers["retry-after"] == "1"
    switch(emulator)
    assert "x-ratelimit-limit-requests" not in send(http).headers


def test_the_rate_forgets(http: httpx.Client, emulator: Emulator) -> None:
    """What was served before the window no longer counts."""
    switch(emulator, rate_limit=1, rate_window=0.02)
    answers = []
    for _ in range(3):
        answers.append(send(http))
        time.sleep(0.05)  # time is the subject
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["0"] * 3
    assert [answer.status_code for answer in answers] == [200] * 3


def test_headers_as_they_stand(http: httpx.Client, emulator: Emulator) -> None:
    """Any header can be added to every answer, as the one that users report."""
    switch(emulator, headers={"X-Ratelimit-Over-Limit": "yes"})
    for response in (send(http), send(http, seed=-1), http.get(POLL)):
        assert response.headers.get_list("x-ratelimit-over-limit") == ["yes"]


@pytest.mark.parametrize("status", [402, 403, 404, 408, 412, 413, 422, 429, 500, 503, 504])
def test_planned_errors(http: httpx.Client, emulator: Emulator, status: int) -> None:
    """fail_next plans any status in the error form, with headers of its own."""
    emulator.fail_next(status=status, retry_after=2.5, headers={"X-Ratelimit-Over-Limit": "yes"})
    response = send(http, accept="image/png")
    assert response.status_code == status
    assert response.headers["retry-after"] == "2.5"
    assert response.headers["x-ratelimit-over-limit"] == "yes"
    kind = "invalid_request_error" if status < 500 else "internal_server_error"
    assert response.json()["error"]["type"] == kind
    assert (last(emulator).planned, last(emulator).charged) == (True, False)
    assert send(http).status_code == 200


def test_a_planned_page(http: httpx.Client, emulator: Emulator) -> None:
    """A gateway's HTML comes as it stands, charged if it says so; a bare 429 has no Retry-After."""
    page = "<html><h1>502 Bad Gateway</h1></html>"
    emulator.fail_next(status=502, body=page, content_type="text/html", charged=True)
    emulator.fail_next(status=429, before_body=True)
    response = send(http)
    assert (response.text, response.headers["content-type"]) == (page, "text/html")
    assert (last(emulator).charged, last(emulator).type) == (True, "flux-1-schnell-fp8")
    assert "retry-after" not in send(http).headers


def test_a_client_that_leaves_too_early(emulator: Emulator) -> None:
    """A request that never became whole is recorded as abandoned, and costs nothing."""
    head = f"POST /inference/v1{SCHNELL} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    with socket.create_connection(("127.0.0.1", emulator.port)) as connection:
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        emulator.ledger.wait_for(lambda totals: totals.received == 1)
    totals = emulator.ledger.wait_for(lambda totals: totals.abandoned == 1)
    assert totals.charged == 0


# Money.


@pytest.mark.parametrize(
    ("path", "body", "dollars"),
    [
        (SCHNELL, {}, 0.0014),
        (SCHNELL, {"num_inference_steps": 3}, 0.00105),
        (DEV, {"num_inference_steps": 28}, 0.014),
        (SDXL, {"steps": 10, "samples": 2}, 0.0026),
    ],
)
def test_money(
    http: httpx.Client, emulator: Emulator, path: str, body: dict[str, int], dollars: float
) -> None:
    """The ledger charges by step and by picture; no answer says so."""
    response = send(http, path, "application/json", **body)
    assert response.status_code == 200
    assert (last(emulator).charged, last(emulator).dollars) == (True, dollars)
    assert emulator.ledger.totals().dollars == dollars
    assert "price" not in response.text


# Kontext.


def submitted(http: httpx.Client, **body: Any) -> str:
    response = send(http, KONTEXT, **body)
    assert response.status_code == 200, response.text
    [(name, value)] = response.json().items()
    assert name == "request_id"
    return str(value)


def poll(http: httpx.Client, id: str) -> dict[str, Any]:
    response = http.post(POLL, json={"id": id})
    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == {"id", "status", "result", "progress", "details"}
    assert answer["id"] == id
    return dict(answer)


def ready(http: httpx.Client, id: str) -> str:
    """Poll until it is ready; return the sample."""
    for _ in range(10_000):
        answer = poll(http, id)
        if answer["status"] == "Ready":
            return str(answer["result"]["sample"])
        assert answer["result"] is None
    raise AssertionError("it never became ready")


def fetch(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers=headers, verify=False)


def test_kontext(http: httpx.Client, emulator: Emulator) -> None:
    """A task is submitted, polled, and its picture fetched from another origin without a key."""
    task = submitted(http)
    record = last(emulator)
    assert (record.job_id, record.charged, record.seed) == (task, True, 7)
    url = ready(http, task)
    assert httpx.URL(url).port not in {None, emulator.port}
    response = fetch(url)
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    assert opened(response.content).size == (64, 64)
    assert last(emulator).endpoint == "sample"
    assert fetch(ready(http, submitted(http))).content == response.content
    assert emulator.ledger.totals().charged == 2


def test_the_key_must_not_travel(http: httpx.Client, emulator: Emulator) -> None:
    """The other origin answers 500 to an Authorization header, and the ledger says why."""
    url = ready(http, submitted(http))
    assert fetch(url, authorization=f"Bearer {KEY}").status_code == 500
    error = last(emulator).error
    assert error is not None
    assert "Authorization" in error
    assert KEY not in repr(emulator.ledger.records())


def test_samples_lie_at_the_other_origin_only(http: httpx.Client, emulator: Emulator) -> None:
    """The API's own port does not have them, nor does the other one what was never made."""
    url = httpx.URL(ready(http, submitted(http)))
    assert fetch(str(url.copy_with(port=emulator.port))).status_code == 404
    assert fetch(str(url.copy_with(path="/samples/x/sample.png"))).status_code == 404
    switch(emulator, kontext_sample="gone")
    assert fetch(str(url)).status_code == 404


def test_a_plan_of_states(http: httpx.Client, emulator: Emulator) -> None:
    """Polls are told the planned states in order, each once, and the last for ever."""
    plan = ("Task not found", "Task not found", "Pending", "Pending", "Content Moderated")
    switch(emulator, kontext_states=plan)
    task = submitted(http)
    switch(emulator)
    assert [poll(http, task)["status"] for _ in range(6)] == [*plan, "Content Moderated"]
    assert last(emulator).state == "Content Moderated"


@pytest.mark.parametrize(
    ("state", "charged"),
    [
        ("Task not found", True),
        ("Pending", True),
        ("Request Moderated", False),
        ("Content Moderated", True),
        ("Error", False),
    ],
)
def test_states_that_give_no_picture(
    http: httpx.Client, emulator: Emulator, state: str, charged: bool
) -> None:
    """Each of the five can be the end; what never ran is not charged."""
    switch(emulator, kontext_states=(state,))
    task = submitted(http)
    assert last(emulator).charged is charged
    answer = poll(http, task)
    assert (answer["status"], answer["result"]) == (state, None)


def test_ready_waits_for_the_worker(http: httpx.Client, emulator: Emulator) -> None:
    """A task holds a worker from its submission until it is done, and is pending for as long."""
    switch(emulator, kontext_states=("Ready",))
    emulator.workers = 1
    emulator.hold()
    try:
        task = submitted(http)
        assert emulator.busy == 1
        assert send(http, KONTEXT).status_code == 429
        assert poll(http, task)["status"] == "Pending"
    finally:
        emulator.release()
    assert ready(http, task)
    assert emulator.busy == 0


@pytest.mark.parametrize("kind", ["base64", "data-uri"])
def test_a_sample_in_the_answer(http: httpx.Client, emulator: Emulator, kind: str) -> None:
    """By switch the picture is in the answer, bare or as a data URI."""
    switch(emulator, kontext_sample=kind)
    sample = ready(http, submitted(http, output_format="jpeg"))
    assert sample.startswith("data:image/jpeg;base64,") is (kind == "data-uri")
    assert opened(base64.b64decode(sample.rpartition(",")[2])).format == "JPEG"


def test_tasks_of_others(http: httpx.Client) -> None:
    """An unknown id, or one of another model, is a task that is not found."""
    assert poll(http, "nobody")["status"] == "Task not found"
    task = submitted(http)
    other = http.post(f"/workflows{MODELS}/flux-kontext-max/get_result", json={"id": task})
    assert other.json()["status"] == "Task not found"
    assert http.post(POLL, json={}).status_code == 400


def test_an_input_image(http: httpx.Client, emulator: Emulator) -> None:
    """Base64 and data URI are the same picture, give their ratio, and stay out of the ledger."""
    target = io.BytesIO()
    Image.new("RGB", (120, 60), "teal").save(target, "PNG")
    text = base64.b64encode(target.getvalue()).decode()
    contents = []
    for value in (text, f"data:image/png;base64,{text}"):
        task = submitted(http, input_image=value, webhook_secret="hush")
        assert last(emulator).inputs[0].size == len(target.getvalue())
        contents.append(fetch(ready(http, task)).content)
    assert contents[0] == contents[1]
    width, height = opened(contents[0]).size
    assert width / height == pytest.approx(2, rel=0.06)
    assert "hush" not in repr(emulator.ledger.records())
    assert text not in repr(emulator.ledger.records())
    assert submitted(http, input_image="https://example.com/cat.png")


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": None},
        {"input_image": "no picture"},
        {"input_image": "AAAA"},
        {"input_image": "https://example.com/a.png", "safety_tolerance": 3},
        {"safety_tolerance": 7},
        {"aspect_ratio": "22:9"},
        {"aspect_ratio": "0:0"},
        {"aspect_ratio": "wide"},
        {"output_format": "webp"},
        {"webhook_url": ""},
        {"seed": -1},
    ],
    ids=json.dumps,
)
def test_a_bad_submission(http: httpx.Client, emulator: Emulator, body: dict[str, Any]) -> None:
    """It is refused at once and costs nothing."""
    assert send(http, KONTEXT, **body).status_code == 400
    assert emulator.ledger.totals().charged == 0


def test_kontext_ratios(http: httpx.Client) -> None:
    """Any ratio between 21:9 and 9:21 will do."""
    for ratio in ("21:9", "9:21", "7:5", "1:2"):
        across, down = map(int, ratio.split(":"))
        url = ready(http, submitted(http, aspect_ratio=ratio, output_format="jpeg"))
        width, height = opened(fetch(url).content).size
        assert width / height == pytest.approx(across / down, rel=0.06)


def test_a_filtered_task(http: httpx.Client) -> None:
    """The word in the prompt ends a task in Content Moderated."""
    task = submitted(http, prompt="a [filtered] lake")
    state = "Pending"
    while state == "Pending":
        state = poll(http, task)["status"]
    assert state == "Content Moderated"


def test_planned_errors_of_kontext(http: httpx.Client, emulator: Emulator) -> None:
    """Submissions and polls take planned replies too; a poll that failed counts no state."""
    emulator.fail_next(status=503)
    assert send(http, KONTEXT).status_code == 503
    switch(emulator, kontext_states=("Pending", "Error"))
    task = submitted(http)
    emulator.fail_next(status=500)
    assert http.post(POLL, json={"id": task}).status_code == 500
    assert [poll(http, task)["status"] for _ in range(2)] == ["Pending", "Error"]


def test_a_stop_with_work_under_way() -> None:
    """An order that is held ends with 503 when the emulator stops, and no worker stays busy."""
    headers = {"authorization": "Bearer x"}
    with ThreadPoolExecutor() as threads:
        with Emulator(fireworks=SMALL) as emulator:
            emulator.hold()
            url = emulator.fireworks_url
            with httpx.Client(headers=headers, verify=False) as client:
                assert client.post(url + KONTEXT, json={"prompt": "x"}).status_code == 200
            held = threads.submit(
                httpx.post, url + SCHNELL, json={"prompt": "x"}, headers=headers, verify=False
            )
            emulator.ledger.wait_for(lambda totals: totals.received == 2)
        assert held.result().status_code == 503
    assert emulator.busy == 0


# The switches themselves.


@pytest.mark.parametrize(
    "switches",
    [
        {"missing_key_status": 403},
        {"validation_status": 500},
        {"json_shape": "tuple"},
        {"busy_status": 500},
        {"kontext_sample": "file"},
        {"kontext_states": ()},
        {"kontext_states": "Ready"},
        {"kontext_states": ("Done",)},
        {"filter_word": ""},
        {"rate_limit": 0},
        {"shrink": 0},
    ],
    ids=str,
)
def test_a_switch_that_means_nothing(switches: dict[str, Any]) -> None:
    """A wrong value is an error that names the switch, when it is set."""
    with pytest.raises(ValueError, match=next(iter(switches))):
        FireworksBehaviour(**switches)
