"""The second API: what it refuses, what it sends, every shape it reads, and what it pays once."""

from __future__ import annotations

import base64
import copy
import json
import logging
import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import on_both_loops
from raw_server import Conversation, RawServer, http, say

from prodia_async import (
    JPEG,
    PNG,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CapacityError,
    ConnectionLostError,
    DeadlineExceededError,
    InvalidRequestError,
    JobFailedError,
    JobNotFoundError,
    MalformedResponseError,
    Output,
    PayloadTooLargeError,
    PermissionDeniedError,
    ProdiaError,
    ResponseTooLargeError,
    RetryPolicy,
    ServerError,
    TruncatedResponseError,
    WebP,
)
from prodia_async import fireworks as door
from prodia_async.emulator import Emulator, FireworksBehaviour
from prodia_async.fireworks import (
    AsyncFireworks,
    ContentFilteredError,
    Generate,
    ImageResponse,
    Kontext,
    TextToImage,
    estimate,
)
from prodia_async.fireworks._kontext import submission

KEY = "fw_secret-of-many-letters"
FAST = RetryPolicy(backoff_initial=0.01, backoff_max=0.02)
SDXL = "stable-diffusion-xl-1024-v1-0"
FLUX_PATH = "/workflows/accounts/fireworks/models/flux-1-schnell-fp8/text_to_image"
PNG_BYTES = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4 + b"IEND\xaeB`\x82"
JPEG_BYTES = b"\xff\xd8\xff\xe0" + bytes(300) + b"\xff\xd9"
B64 = base64.b64encode(PNG_BYTES).decode()
PREFIXED = f"data:image/png;base64,{B64}"
Reply = "Callable[[Conversation], None]"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIREWORKS_API_KEY", raising=False)
    monkeypatch.delenv("FIREWORKS_API_BASE", raising=False)


def client(server: RawServer, **options: Any) -> AsyncFireworks:
    options.setdefault("retry", FAST)
    return AsyncFireworks(KEY, base_url=server.url, **options)


def picture(*headers: str, content: bytes = PNG_BYTES, charge: bool = True) -> Any:
    headers = headers or ("Seed: 7", "Finish-Reason: SUCCESS")
    return say(http("200 OK", content, *headers, content_type="image/png"), charge=charge)


def told(value: Any, status: str = "200 OK", *headers: str, charge: bool = False) -> Any:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return say(http(status, body, *headers, content_type="application/json"), charge=charge)


OVERLOADED = {"error": {"object": "error", "type": "server_error", "message": "busy"}}


def body_of(server: RawServer, index: int = 0) -> Any:
    return json.loads(server.requests[index].body)


SUBMITTED = told({"request_id": "task-1"}, charge=True)
POLL = 0.001


def state(status: str, sample: str | None = None, details: Any = None) -> Any:
    result = None if sample is None else {"sample": sample}
    return told({"id": "task-1", "status": status, "result": result, "details": details})


# ------------------------------------------------------------------ building one


def test_a_missing_key_names_the_variable() -> None:
    """Without a key the error says where one is looked for."""
    with pytest.raises(InvalidRequestError, match=r"FIREWORKS_API_KEY.*api_key="):
        AsyncFireworks()


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key and base URL come from the environment when they are not given."""
    monkeypatch.setenv("FIREWORKS_API_KEY", KEY)
    assert "https://api.fireworks.ai/inference/v1:" in repr(AsyncFireworks())
    monkeypatch.setenv("FIREWORKS_API_BASE", "https://fw.example.com/v1/")
    assert "<AsyncFireworks https://fw.example.com/v1: 0 of 64 in flight" in repr(AsyncFireworks())


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "a b"},
        {"api_key": 7},
        {"base_url": "http://api.example.com"},
        {"max_concurrency": 0},
        {"timeout": 0},
        {"deadline": -1},
        {"retry": 3},
        {"hook": 3},
        {"transport": httpx.AsyncHTTPTransport(), "http_client": httpx.AsyncClient()},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    """Each option says what is allowed, when the client is built, as AsyncProdia's does."""
    with pytest.raises(InvalidRequestError) as caught:
        AsyncFireworks(**{"api_key": KEY, **options})
    assert "a b" not in str(caught.value)


def test_pickling_is_refused_and_says_what_to_ship() -> None:
    """The client holds a key; requests and answers are what crosses processes."""
    for dump in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="send the requests"):
            dump(AsyncFireworks(KEY))
    request = Kontext("x", input_image=b"y", seed=3)
    assert pickle.loads(pickle.dumps(request)) == request


def test_the_door_names_its_classes() -> None:
    """Tracebacks and pickles say prodia_async.fireworks, and each class is explained."""
    assert door.__all__ == sorted(door.__all__)
    for name in door.__all__:
        value = getattr(door, name)
        if name in {"ImageOutcome", "OrderLike"}:  # one of several, explained where they are
            continue
        assert value.__module__ == "prodia_async.fireworks"
        assert value.__doc__
        assert not value.__doc__.startswith(f"{name}("), "dataclass wrote it"
        assert pickle.loads(pickle.dumps(value)) is value


@on_both_loops
async def test_a_view_shares_all_but_its_options() -> None:
    """with_options gives another key over the same connections and totals, and nothing else."""
    with RawServer([picture(), picture()]) as server:
        async with client(server) as fireworks:
            view = fireworks.with_options(api_key="fw_another-key", deadline=5.0)
            await fireworks.text_to_image("x")
            await view.text_to_image("x")
            assert fireworks.statistics() == view.statistics()
            with pytest.raises(InvalidRequestError, match=r"takes .*api_key.*, not price"):
                fireworks.with_options(price=True)  # type: ignore[call-arg]
        sent = [request.header("authorization") for request in server.requests]
    assert sent == [f"Bearer {KEY}", "Bearer fw_another-key"]


# ------------------------------------------------------------------ before anything is sent

RATIOS = "1:1, 21:9, 16:9, 3:2, 5:4, 4:5, 2:3, 9:16, 9:21, 4:3, 3:4"
BAD_FLUX: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": 7}, "prompt"),
    ({"aspect_ratio": "16:10"}, f"one of {RATIOS}, not '16:10'"),
    ({"num_inference_steps": 0}, "num_inference_steps must be an integer of at least 1, not 0"),
    ({"num_inference_steps": 1.5}, "num_inference_steps"),
    ({"num_inference_steps": True}, "num_inference_steps"),
    ({"seed": -1}, "seed must be an integer of at least 0, not -1"),
    ({"seed": "1"}, "seed"),
    ({"seed": 10**5000}, "JSON cannot carry"),
    ({"guidance_scale": float("nan")}, "guidance_scale"),
    ({"guidance_scale": "3"}, "guidance_scale"),
    ({"guidance_scale": 10**400}, "guidance_scale"),
    ({"safety_check": 1}, "safety_check must be True or False"),
    ({"raise_if_filtered": 1}, "raise_if_filtered"),
    ({"deadline": 0}, "deadline"),
    ({"model": "../x"}, "model must be a name"),
    ({"model": ".."}, "model must be a name"),
    ({"model": "a/b"}, "model must be a name"),
    ({"accept": "image/webp"}, "'image/png', 'image/jpeg' or 'application/json'"),
    ({"accept": WebP()}, "image/webp"),
    ({"accept": 7}, "accept must be"),
    ({"accept": PNG(compress_level=3)}, "the one parameter it may have is quality"),
    ({"accept": JPEG(optimize=True)}, "the one parameter it may have is quality"),
    ({"accept": "image/jpeg", "jpeg_quality": 101}, "0 to 100, not 101"),
    ({"accept": "image/jpeg;quality=101"}, "0 to 100"),
    ({"accept": "image/jpeg;quality=5", "jpeg_quality": 5}, "not both"),
    ({"jpeg_quality": 5}, "image/jpeg alone"),
    ({"json_image": "image/png"}, "application/json alone"),
    ({"accept": "application/json", "json_image": "image/webp"}, "one of image/png, image/jpeg"),
]
PAIRS = "1024x1024, 1152x896, 896x1152, 1216x832, 832x1216, 1344x768, 768x1344, 1536x640, 640x1536"
BAD_SDXL: list[tuple[dict[str, Any], str]] = [
    ({"width": 1000, "height": 1000}, f"one of {PAIRS}, or both be left out, not 1000 and 1000"),
    ({"width": 1024}, "not 1024 and None"),
    ({"steps": 0}, "steps must be an integer of at least 1, not 0"),
    ({"samples": 0}, "samples must be an integer of at least 1, not 0"),
    ({"samples": None}, "samples"),
    ({"seed": -1}, "seed"),
    ({"sampler": "EULER"}, "one of K_EULER, K_DPMPP_2M, not 'EULER'"),
    ({"cfg_scale": "x"}, "cfg_scale"),
    ({"negative_prompt": 3}, "negative_prompt must be a string"),
    ({"lora_adapter_name": "x"}, "belong together"),
    ({"samples": 2, "accept": "image/png"}, "application/json alone"),
]
BAD_KONTEXT: list[tuple[dict[str, Any], str]] = [
    ({"aspect_ratio": "22:9"}, "between 21:9 and 9:21"),
    ({"aspect_ratio": "0:0"}, "between"),
    ({"aspect_ratio": "wide"}, "between"),
    ({"aspect_ratio": 2}, "between"),
    ({"output_format": "webp"}, "'png' or 'jpeg'"),
    ({"safety_tolerance": 7}, "0 to 6"),
    ({"safety_tolerance": 3, "input_image": b"x"}, "at most 2 with an input image"),
    ({"webhook_url": ""}, "1 to 2083"),
    ({"webhook_secret": 3}, "webhook_secret must be a string, not int"),
    ({"input_image": 3}, "an input must be"),
    ({"input_image": b"no picture"}, "10 bytes of no known format"),
    ({"input_image": "no/such/file.png"}, "cannot read the input"),
    ({"poll": 0}, "poll"),
]
BAD = [
    *(("text_to_image", {"prompt": "x", **call}, message) for call, message in BAD_FLUX),
    *(("generate", {"prompt": "x", "model": SDXL, **call}, message) for call, message in BAD_SDXL),
    *(("kontext", {"prompt": "x", **call}, message) for call, message in BAD_KONTEXT),
    ("kontext_result", {"task_id": ""}, "task id"),
    ("kontext_result", {"task_id": "x", "model": "a b"}, "model"),
]


@pytest.mark.parametrize(("method", "call", "message"), BAD)
async def test_bad_input_is_found_before_anything_is_sent(
    method: str, call: dict[str, Any], message: str
) -> None:
    """Each mistake is named with what is allowed, and no connection is made."""
    with RawServer() as server:
        async with client(server) as fireworks:
            with pytest.raises(InvalidRequestError, match=message):
                await getattr(fireworks, method)(**call)
        assert server.connections == 0


@pytest.mark.parametrize(
    ("method", "name"),
    [("text_to_image", "steps"), ("text_to_image", "width"), ("text_to_image", "samples"),
     ("generate", "aspect_ratio"), ("generate", "num_inference_steps"), ("kontext", "steps")],
)  # fmt: skip
async def test_a_field_of_another_endpoint_cannot_be_passed(method: str, name: str) -> None:
    """The server would ignore it silently, so the call does not take it."""
    async with AsyncFireworks(KEY) as fireworks:
        with pytest.raises(TypeError, match=name):
            await getattr(fireworks, method)("x", **{name: 4})


# ------------------------------------------------------------------ what is sent


@on_both_loops
async def test_text_to_image_on_the_workflows_endpoint() -> None:
    """Its own names for its fields, the format in the headers, the key as Bearer."""
    with RawServer([picture()]) as server:
        async with client(server) as fireworks:
            response = await fireworks.text_to_image(
                "é", aspect_ratio="16:9", guidance_scale=3.5, num_inference_steps=4, seed=7,
                safety_check=True, accept=JPEG(quality=90),
            )  # fmt: skip
    request = server.requests[0]
    assert request.head.startswith(f"POST {FLUX_PATH} HTTP/1.1\r\n")
    assert body_of(server) == {
        "prompt": "é", "aspect_ratio": "16:9", "guidance_scale": 3.5, "num_inference_steps": 4,
        "seed": 7, "safety_check": True,
    }  # fmt: skip
    assert request.header("accept") == "image/jpeg"
    assert request.header("jpeg-quality") == "90"
    assert request.header("authorization") == f"Bearer {KEY}"
    assert request.header("content-type") == "application/json"
    assert (response.image.content, response.image.content_type) == (PNG_BYTES, "image/png")
    assert response.headers["finish-reason"] == "SUCCESS"
    assert response.request_id == "11111111-2222-4333-8444-555555555555"
    assert [each.status_code for each in response.attempts] == [200]
    assert response.timing.total > 0


@on_both_loops
async def test_generate_on_the_older_endpoint() -> None:
    """Several samples are asked for as JSON, and nothing that was not given is sent."""
    answer = [{"base64": B64, "finishReason": "SUCCESS", "seed": n, "id": f"i{n}"} for n in (7, 8)]
    with RawServer([told(answer)]) as server:
        async with client(server) as fireworks:
            response = await fireworks.generate(
                "x", model="accounts/acme/models/sd-1.5", width=1344, height=768, steps=30,
                sampler="K_EULER", samples=2, seed=7, json_image="image/png",
            )  # fmt: skip
    request = server.requests[0]
    assert " /image_generation/accounts/acme/models/sd-1.5 " in request.head
    assert body_of(server) == {
        "prompt": "x", "width": 1344, "height": 768, "sampler": "K_EULER", "steps": 30, "seed": 7,
        "samples": 2,
    }  # fmt: skip
    assert request.header("accept") == "application/json"
    assert request.header("json-return-image-accept") == "image/png"
    assert [(each.seed, each.id) for each in response.images] == [(7, "i7"), (8, "i8")]


@pytest.mark.parametrize("seed", [None, 0])
@on_both_loops
async def test_a_seed_is_drawn_here_and_kept_by_a_retry(seed: int | None) -> None:
    """None and 0 are random here, never at the server: a retry sends the same, and it is told."""
    busy = told({"error": "x"}, "500 Oh")
    with RawServer([busy, picture("Finish-Reason: SUCCESS")]) as server:
        async with client(server) as fireworks:
            response = await fireworks.text_to_image("x", seed=seed)
    sent = [body_of(server, index)["seed"] for index in (0, 1)]
    assert sent[0] == sent[1] == response.image.seed
    assert 1 <= sent[0] < 2**32
    assert response.request is not None
    assert response.request.seed == sent[0]
    assert body_of(server)["aspect_ratio"] == "1:1"
    assert server.requests[0].header("accept") == "image/png"


@on_both_loops
async def test_an_error_tells_the_seed_that_was_drawn() -> None:
    """Nobody else knows it, and the picture may have been made."""
    with RawServer([told({}, "400 Bad")]) as server:
        async with client(server) as fireworks:
            with pytest.raises(BadRequestError) as caught:
                await fireworks.text_to_image("x")
    assert caught.value.__notes__ == [f"the seed was {body_of(server)['seed']}"]


# ------------------------------------------------------------------ what is read

SHAPES: list[tuple[Any, int]] = [
    ({"id": "a", "base64": [PREFIXED], "finishReason": "SUCCESS", "seed": 7}, 1),
    ({"id": "a", "base64": [PREFIXED, PREFIXED], "finishReason": "SUCCESS", "seed": 7}, 2),
    ({"id": "a", "base64": [B64], "finishReason": "SUCCESS", "seed": 7}, 1),
    ({"id": "a", "base64": B64, "finishReason": "SUCCESS", "seed": 7}, 1),
    ({"id": "a", "base64": PREFIXED, "finishReason": "success", "seed": "7"}, 1),
    ([{"id": "a", "base64": B64, "finishReason": "SUCCESS", "seed": 7}], 1),
    ([{"id": "a", "base64": B64, "seed": 7}, {"base64": [PREFIXED], "seed": 9}], 2),
    ({"base64": f"{B64[:76]}\r\n{B64[76:]}", "id": "a"}, 1),
]


@pytest.mark.parametrize(("shape", "count"), SHAPES)
@on_both_loops
async def test_every_json_shape_is_read(shape: Any, count: int) -> None:
    """Object or array, text or list, with prefix or without: the same pictures."""
    with RawServer([told(shape)]) as server:
        async with client(server) as fireworks:
            response = await fireworks.text_to_image("x", seed=7, accept="application/json")
    assert [each.content for each in response.images] == [PNG_BYTES] * count
    assert {each.content_type for each in response.images} == {"image/png"}
    assert (response.image.seed, response.image.id) == (7, "a")
    later = [each.seed for each in response.images[1:]]
    assert later == ([9] if isinstance(shape, list) else [None])[: count - 1]


@on_both_loops
async def test_what_a_picture_is_its_bytes_tell() -> None:
    """A JPEG said to be a PNG, and JSON said to be nothing, are what they are."""
    untyped = say(http(body=json.dumps({"base64": B64}).encode(), content_type=None))
    with RawServer([picture(content=JPEG_BYTES), untyped]) as server:
        async with client(server) as fireworks:
            first = (await fireworks.text_to_image("x")).image
            second = (await fireworks.text_to_image("x", seed=5)).image
    assert (first.content_type, first.suffix, first.seed) == ("image/jpeg", ".jpg", 7)
    assert (second.content_type, second.seed, second.finish_reason) == ("image/png", 5, None)


BROKEN: list[tuple[Any, type[ProdiaError], str]] = [
    (picture(content=PNG_BYTES[:-8]), TruncatedResponseError, "lacks the end"),
    (picture(content=b"<html>"), MalformedResponseError, "must be a picture"),
    (picture(content=b""), MalformedResponseError, "must be a picture"),
    (told(b"{"), MalformedResponseError, "must be JSON"),
    (told(b"[" * 1900), MalformedResponseError, "must be JSON"),
    (told([]), MalformedResponseError, "holds none"),
    (told([1]), MalformedResponseError, "array of objects"),
    (told(b"7"), MalformedResponseError, "array of objects"),
    (told({"base64": []}), MalformedResponseError, "holds none"),
    (told({"base64": [7]}), MalformedResponseError, "base64 as a string"),
    (told({"error": {"message": "no luck"}}), MalformedResponseError, "it says: no luck"),
    (told({"base64": "%"}), MalformedResponseError, "in base64"),
    (told({"base64": "aGVsbG8="}), MalformedResponseError, "must be a picture"),
    (picture("Content-Encoding: gzip"), MalformedResponseError, "not asked for"),
    (say(http(body=PNG_BYTES[:50], length=100), close=True), TruncatedResponseError, "after 50"),
    (picture(content=PNG_BYTES * 2), ResponseTooLargeError, "more than 2000 bytes"),
]


@pytest.mark.parametrize(("reply", "kind", "message"), BROKEN)
@on_both_loops
async def test_a_success_that_is_none(reply: Any, kind: type[ProdiaError], message: str) -> None:
    """What the API does not promise is a typed error, and is not sent again: it ran."""
    with RawServer([reply]) as server:
        async with client(server, max_response_bytes=2000) as fireworks:
            with pytest.raises(kind, match=message) as caught:
                await fireworks.text_to_image("x")
            assert fireworks.statistics().failed == 1
        assert len(server.requests) == 1
    assert caught.value.may_have_run


FILTERED: list[Any] = [
    picture("Finish-Reason: CONTENT_FILTERED", "Seed: 7"),
    picture("Finish-Reason: content_filtered", "Seed: 7", content=b""),
    told({"base64": [B64], "finishReason": "CONTENT_FILTERED", "seed": 7}, charge=True),
    told({"finishReason": "CONTENT_FILTERED", "seed": 7}, charge=True),
    told([{"base64": B64, "finishReason": "CONTENT_FILTERED", "seed": 7}], charge=True),
]


@pytest.mark.parametrize("reply", FILTERED)
@on_both_loops
async def test_a_filtered_picture_is_an_error_or_a_flag(reply: Any) -> None:
    """It is never a silent success, carries the picture, and is not sent again."""
    with RawServer([reply, reply]) as server:
        async with client(server) as fireworks:
            with pytest.raises(ContentFilteredError, match="from seed 7") as caught:
                await fireworks.text_to_image("x")
            response = await fireworks.text_to_image("x", raise_if_filtered=False)
        assert (len(server.requests), server.charges) == (2, 2)
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, ContentFilteredError)
    assert issubclass(ContentFilteredError, JobFailedError)
    assert error.image == error.images[0] == response.image
    assert response.image.is_filtered
    assert error.may_have_run
    assert [each.fate for each in error.attempts] == ["ran"]


@on_both_loops
async def test_pictures_are_saved_and_shown_as_outputs_are(tmp_path: Path) -> None:
    """An Image is an Output: it saves by its own type, and a notebook shows it."""
    with RawServer([picture(content=JPEG_BYTES)]) as server:
        async with client(server) as fireworks:
            image = (await fireworks.text_to_image("x")).image
    assert isinstance(image, Output)
    path = await image.save(tmp_path)
    assert (path.suffix, path.read_bytes()) == (".jpg", JPEG_BYTES)
    assert image._repr_mimebundle_()["image/jpeg"] == JPEG_BYTES
    assert repr(image) == "<Image image/jpeg 306 bytes seed=7 'SUCCESS'>"
    assert pickle.loads(pickle.dumps(image)) == image


# ------------------------------------------------------------------ errors and money

BODIES: list[tuple[Any, str]] = [
    ({"error": {"object": "error", "type": "t", "message": "why it is", "code": "x"}}, "why it is"),
    ({"error": "why it is"}, "why it is"),
    ({"error": {}, "structured_error": {"name": "b", "errors": ["why", "it is"]}}, "why; it is"),
    ({"structured_error": {"errors": []}, "message": "why it is"}, "why it is"),
    ({"detail": "why it is"}, "why it is"),
    ({"detail": [{"loc": ["body", "seed"], "msg": "why it is", "type": "t"}]},
     "body.seed: why it is"),
    ({"detail": [{"msg": "why"}, "it is", 7]}, "why; it is; 7"),
    ({"message": "why it is"}, "why it is"),
    ({"structured_error": {"errors": "odd"}}, "odd"),
    (b"<html><h1>why it is</h1></html>", "why it is"),
    (b"why it is", "why it is"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "message"), BODIES)
@on_both_loops
async def test_an_error_is_told_in_the_server_s_words(body: Any, message: str) -> None:
    """Wherever the body has its message, it is found, and the raw body is kept."""
    with RawServer([told(body, "400 Bad Request")]) as server:
        async with client(server) as fireworks:
            with pytest.raises(BadRequestError, match=re.escape(message)) as caught:
                await fireworks.text_to_image("x")
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert caught.value.body == raw


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        ("400 Bad Request", BadRequestError, "400 Bad Request: no"),
        ("401 Unauthorized", AuthenticationError, r"check the key \(FIREWORKS_API_KEY"),
        ("402 Payment Required", APIStatusError, "402 Payment Required: no"),
        ("403 Forbidden", PermissionDeniedError, "403 Forbidden: no"),
        ("404 Not Found", JobNotFoundError, "a wrong key can look like this"),
        ("405 Method Not Allowed", APIStatusError, "405 Method Not Allowed: no"),
        ("412 Precondition Failed", APIStatusError, "412 Precondition Failed: no"),
        ("413 Too Large", PayloadTooLargeError, "413 .*: no"),
        ("422 Unprocessable", BadRequestError, "422 .*: no"),
        ("307 Elsewhere", APIStatusError, "redirects are not followed"),
    ],
)
@on_both_loops
async def test_a_refusal_is_raised_at_once(
    status: str, kind: type[APIStatusError], message: str
) -> None:
    """What will not change is not asked twice, and says nothing of Prodia."""
    with RawServer([told({"error": "no"}, status)]) as server:
        async with client(server) as fireworks:
            with pytest.raises(kind, match=message) as caught:
                await fireworks.text_to_image("x")
        assert (len(server.requests), server.charges) == (1, 0)
    assert caught.value.status_code == int(status[:3])
    assert "PRODIA" not in str(caught.value)


@pytest.mark.parametrize("status", [408, 500, 502, 504])
@on_both_loops
async def test_a_server_fault_is_tried_again(status: int) -> None:
    """408, 500, 502 and 504 are retried, each a fault that may have run; one charge."""
    fault = say(http(f"{status} Oh", b"<h1>Bad gateway</h1>", content_type="text/html"))
    with RawServer([fault, picture(), *[fault] * 4]) as server:
        async with client(server) as fireworks:
            response = await fireworks.text_to_image("x")
            assert (len(server.requests), server.charges) == (2, 1)
            with pytest.raises(ServerError, match="Bad gateway") as caught:
                await fireworks.text_to_image("x")
        assert (len(server.requests), server.charges) == (6, 1)
    assert [each.fate for each in response.attempts] == ["server fault", "succeeded"]
    assert (caught.value.status_code, len(caught.value.attempts)) == (status, 4)


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503])
@on_both_loops
async def test_no_capacity_is_waited_out(status: int) -> None:
    """429 and 503 ran nothing: waited out beyond max_attempts, never before Retry-After."""
    busy = told(OVERLOADED, f"{status} Busy", "Retry-After: 0.05")
    with RawServer([*[busy] * 6, picture()]) as server:
        async with client(server) as fireworks:
            began = time.monotonic()
            response = await fireworks.text_to_image("x")
            assert time.monotonic() - began >= 0.3
            assert fireworks.statistics().refusals == 6
        assert (len(server.requests), server.charges) == (7, 1)
    assert {each.fate for each in response.attempts[:6]} == {"not run"}


@pytest.mark.parametrize("status", [429, 503])
@on_both_loops
async def test_a_capacity_error_keeps_its_status(status: int) -> None:
    """What was waited out for too long is raised as what it was."""
    busy = told(OVERLOADED, f"{status} Busy", "Retry-After: 86400")
    with RawServer([busy]) as server:
        async with client(server) as fireworks:
            with pytest.raises(CapacityError, match="busy") as caught:
                await fireworks.text_to_image("x")
    assert (caught.value.status_code, caught.value.retry_after) == (status, 86400)
    assert not caught.value.may_have_run


@on_both_loops
async def test_a_lost_connection_is_not_sent_again() -> None:
    """It may have run: one request, one charge, and the caller decides."""

    def lose(conversation: Conversation) -> None:
        conversation.charge()
        conversation.reset()

    with RawServer([lose, lose, picture()]) as server:
        async with client(server) as fireworks:
            with pytest.raises(ConnectionLostError) as caught:
                await fireworks.text_to_image("x")
            assert (len(server.requests), server.charges) == (1, 1)
            risky = fireworks.with_options(
                retry=RetryPolicy(retry_uncertain=True, backoff_initial=0)
            )
            await risky.text_to_image("x", seed=5)
        seeds = [body_of(server, index)["seed"] for index in (1, 2)]
    assert caught.value.may_have_run
    assert seeds == [5, 5]


@on_both_loops
async def test_the_deadline_covers_the_reading() -> None:
    """An answer that stalls half-way ends on time, and it may have run."""

    def stall(conversation: Conversation) -> None:
        conversation.send(http(body=PNG_BYTES[:50], length=100, content_type="image/png"))
        conversation.stall()

    with RawServer([stall]) as server:
        async with client(server) as fireworks:
            with pytest.raises(DeadlineExceededError, match=r"0\.2 s") as caught:
                await fireworks.text_to_image("x", deadline=0.2)
            assert fireworks.statistics().in_flight == 0
    assert caught.value.may_have_run


@on_both_loops
async def test_being_over_the_limit_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """x-ratelimit-over-limit is a flag on the answer and a line in the log."""
    caplog.set_level(logging.INFO, logger="prodia_async")
    over = picture("x-ratelimit-over-limit: yes", "x-ratelimit-limit-requests: 60")
    with RawServer([over, picture()]) as server:
        async with client(server) as fireworks:
            responses = [await fireworks.text_to_image("x") for _ in range(2)]
    assert [each.is_over_limit for each in responses] == [True, False]
    assert responses[0].headers["x-ratelimit-limit-requests"] == "60"
    assert [each for each in caplog.messages if "over the rate limit" in each]


@on_both_loops
async def test_the_key_is_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """No repr, error, log or pickle holds the key, even when the server sends it back."""
    caplog.set_level(logging.DEBUG, logger="prodia_async")
    echo = told({"error": f"bad: Bearer {KEY}"}, "401 No", f"X-Echo: {KEY}")
    with RawServer([echo]) as server:
        async with client(server) as fireworks:
            with pytest.raises(AuthenticationError, match="bad: Bearer") as caught:
                await fireworks.text_to_image("x")
            texts = [repr(fireworks), repr(fireworks.with_options(timeout=5))]
    error = caught.value
    texts += [str(error), repr(error), repr(vars(error)), repr(pickle.dumps(error))]
    assert not any(KEY in text for text in [*texts, *caplog.messages])
    secret = Kontext("x", input_image=b"\xff\xd8\xff" + bytes(99), webhook_secret="s3cr3t")
    assert "s3cr3t" not in repr(secret)
    assert len(repr(secret)) < 100


# ------------------------------------------------------------------ many, and money known before


def test_requests_show_themselves() -> None:
    """A request reads as it was made, and without what it holds of others."""
    assert repr(TextToImage("x")) == "TextToImage('x', model='flux-1-schnell-fp8', seed=None)"
    assert repr(Generate("y" * 999, model=SDXL, seed=3)).endswith(f"model={SDXL!r}, seed=3)")
    assert len(repr(Generate("y" * 999, model=SDXL))) < 250


def test_asking_about_a_task_costs_nothing() -> None:
    """A submission has no price that anybody knows, and a question none at all."""
    assert submission().dollars() == 0.0


@on_both_loops
async def test_map_takes_requests_of_all_kinds() -> None:
    """Prompts, requests, and what is neither; one failure stops nothing, seeds are recorded."""
    requests: list[Any] = [
        "a cat", TextToImage("a dog", seed=7), Generate("x", model=SDXL),
        Kontext("x", poll=POLL), 7, "",
    ]  # fmt: skip
    replies = [picture(), picture(), told({}, "400 No"), SUBMITTED, state("Ready", B64)]
    with RawServer(replies) as server:
        async with client(server, max_concurrency=1) as fireworks:
            async with fireworks.map(requests, ordered=True) as outcomes:
                found = [outcome async for outcome in outcomes]
    kinds = [type(each.error) for each in found]
    nothing = type(None)
    assert kinds == [
        nothing, nothing, BadRequestError, nothing, InvalidRequestError, InvalidRequestError,
    ]  # fmt: skip
    assert isinstance(found[0].unwrap(), ImageResponse)
    assert [each.request.seed for each in found[:4]] == [
        body_of(server, index)["seed"] for index in range(4)
    ]
    with pytest.raises(BadRequestError):
        found[2].unwrap()


@pytest.mark.parametrize("requests", ["a cat", TextToImage("x"), Kontext("x"), 7, None])
async def test_one_request_is_not_many(requests: Any) -> None:
    """A single prompt or request, or what cannot be iterated, is refused before anything starts."""
    async with AsyncFireworks(KEY) as fireworks:
        with pytest.raises(InvalidRequestError, match="iterable of requests"):
            fireworks.map(requests)
        with pytest.raises(InvalidRequestError, match="buffer"):
            fireworks.map([], buffer=-1)


@pytest.mark.parametrize(
    ("steps", "model", "images", "dollars"),
    [
        (4, "flux-1-schnell-fp8", 1, 0.0014),
        (None, "flux-1-schnell-fp8", 10, 0.014),
        (3, "accounts/fireworks/models/flux-1-schnell-fp8", 1, 0.00105),
        (28, "flux-1-dev-fp8", 1, 0.014),
        (30, SDXL, 2, 0.0078),
    ],
)
def test_an_estimate_counts_steps(
    steps: int | None, model: str, images: int, dollars: float
) -> None:
    """Price a step, steps, pictures; marked with where the price comes from."""
    found = estimate(steps, model, images=images)
    assert found.dollars == pytest.approx(dollars)
    assert (found.confidence, found.images) == ("reported", images)
    assert "price page" in found.source


@pytest.mark.parametrize("model", ["flux-kontext-pro", SDXL, "accounts/acme/models/sdxl"])
def test_an_estimate_that_cannot_be_made(model: str) -> None:
    """Where no price or no number of steps is known there are no dollars, and it says why."""
    found = estimate(None, model)
    assert (found.dollars, found.confidence) == (None, "unknown")
    assert "known" in found.source or "no text" in found.source


def test_an_estimate_of_more_than_can_be_reckoned() -> None:
    """No float holds it, and no server makes it; the order says so itself when it is sent."""
    assert estimate(10**12).dollars == 0.00035 * 10**12
    for steps, images in ((10**400, 1), (10**12, 2), (1, 10**13)):
        assert estimate(steps, images=images).dollars is None


@pytest.mark.parametrize(
    "call", [{"steps": 0}, {"steps": 1.5}, {"images": 0}, {"images": None}, {"model": "a b"}]
)
def test_an_estimate_of_nonsense(call: dict[str, Any]) -> None:
    """What could not be sent has no price."""
    with pytest.raises(InvalidRequestError):
        estimate(**call)


@on_both_loops
async def test_totals_count_estimated_dollars() -> None:
    """statistics().dollars adds up what was made, by steps, since no answer tells."""
    filtered = picture("Finish-Reason: CONTENT_FILTERED")
    with RawServer([filtered, picture(), told({}, "400 No")]) as server:
        async with client(server) as fireworks:
            with pytest.raises(ContentFilteredError):
                await fireworks.text_to_image("x")
            await fireworks.generate("x", model=SDXL)
            with pytest.raises(BadRequestError):
                await fireworks.text_to_image("x")
            assert fireworks.statistics().dollars == pytest.approx(0.0014)


# ------------------------------------------------------------------ against the emulator

SMALL = FireworksBehaviour(shrink=16)


def of(emulator: Emulator, **options: Any) -> AsyncFireworks:
    options.setdefault("retry", FAST)
    return AsyncFireworks(KEY, base_url=emulator.fireworks_url, **options)


@on_both_loops
async def test_the_same_prompt_and_seed_give_the_same_bytes() -> None:
    """What one call drew, its own request repeats; another seed is another picture."""
    async with Emulator(fireworks=SMALL) as emulator, of(emulator) as fireworks:
        first = await fireworks.text_to_image("a lake", aspect_ratio="16:9")
        assert first.request is not None
        async with fireworks.map([first.request, first.request, "a lake"]) as outcomes:
            contents = [outcome.unwrap().image.content async for outcome in outcomes]
        assert sorted(each == first.image.content for each in contents) == [False, True, True]
        assert fireworks.statistics().dollars == pytest.approx(4 * 0.0014)
        assert emulator.ledger.totals().dollars == pytest.approx(4 * 0.0014)


@pytest.mark.parametrize("shape", ["list-prefixed", "list", "string", "array"])
@on_both_loops
async def test_each_shape_of_the_emulator(shape: Any) -> None:
    """Flux and SDXL, binary and JSON, PNG and JPEG: the same picture in every shape."""
    behaviour = FireworksBehaviour(shrink=16, json_shape=shape)
    async with Emulator(fireworks=behaviour) as emulator, of(emulator) as fireworks:
        plain = await fireworks.text_to_image("x", seed=7)
        held = await fireworks.text_to_image("x", seed=7, accept="application/json")
        jpeg = await fireworks.text_to_image("x", accept=JPEG(quality=90))
        assert held.image.content == plain.image.content
        assert (held.image.seed, plain.image.seed, held.image.finish_reason) == (7, 7, "SUCCESS")
        assert jpeg.image.content_type == "image/jpeg"
        both = await fireworks.generate(
            "x", model=SDXL, samples=2, steps=9, seed=5, json_image="image/jpeg"
        )
        assert {each.content_type for each in both.images} == {"image/jpeg"}
        told_seeds = {"array": [5, 6], "string": [5]}.get(shape, [5, None])
        assert [each.seed for each in both.images] == told_seeds
        assert emulator.ledger.totals().dollars == pytest.approx(3 * 0.0014 + 2 * 9 * 0.00013)


@on_both_loops
async def test_kontext_against_the_emulator() -> None:
    """Submitted, asked about, fetched from a host that refuses any key."""
    behaviour = FireworksBehaviour(shrink=16, kontext_states=("Task not found", "Pending", "Ready"))
    async with Emulator(fireworks=behaviour) as emulator, of(emulator) as fireworks:
        response = await fireworks.kontext("x", poll=0.01, output_format="jpeg")
        assert response.image.content_type == "image/jpeg"
        again = await fireworks.kontext_result(str(response.image.id), poll=0.01)
        assert again.image.content == response.image.content
        with pytest.raises(ContentFilteredError, match="Content Moderated"):
            await fireworks.kontext("x [filtered]", poll=0.01)
        assert emulator.ledger.totals().charged == 2


@on_both_loops
async def test_filtered_refused_and_misspelt() -> None:
    """The emulator's own words, in the forms of both frameworks, arrive as typed errors."""
    async with Emulator(fireworks=SMALL, tokens=[KEY]) as emulator, of(emulator) as fireworks:
        with pytest.raises(ContentFilteredError) as caught:
            await fireworks.text_to_image("x [filtered]", safety_check=True)
        assert caught.value.image is not None
        assert caught.value.image.content_type == "image/png"
        with pytest.raises(AuthenticationError, match="API key"):
            await fireworks.with_options(api_key="fw_wrong").text_to_image("x")
        with pytest.raises(JobNotFoundError, match="model not found"):
            await fireworks.text_to_image("x", model="flux-9")
        emulator.fireworks = FireworksBehaviour(missing_key_status=404)
        with pytest.raises(JobNotFoundError, match="wrong key"):
            await fireworks.with_options(api_key="fw_wrong").text_to_image("x")


@pytest.mark.slow
@on_both_loops
async def test_five_hundred_at_once_against_twenty_workers() -> None:
    """All done, none twice, within sight of what the server can do, with few refusals."""
    latency, count, workers = 0.1, 500, 20
    behaviour = FireworksBehaviour(shrink=128, busy_status=503)
    async with Emulator(workers=workers, latency=latency, fireworks=behaviour) as emulator:
        async with of(emulator, retry=None) as fireworks:
            began = time.monotonic()
            async with fireworks.map(f"lake {n}" for n in range(count)) as outcomes:
                seeds = {outcome.unwrap().image.seed async for outcome in outcomes}
            seconds = time.monotonic() - began
            counts = fireworks.statistics()
        totals = emulator.ledger.totals()
    assert len(seeds) == count
    assert (totals.ran, totals.charged, counts.completed) == (count, count, count)
    # The ceiling is 2.5 s; the rest is room for a busy machine.
    assert seconds < 3 * count / workers * latency
    assert counts.refusals < 0.3 * count


# ------------------------------------------------------------------ the example


@pytest.mark.slow
def test_the_example_runs_as_its_user_runs_it(tmp_path: Path) -> None:
    """Without an account it repeats its own picture and saves all of them."""
    file = Path(__file__).parents[1] / "examples" / "fireworks.py"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FIREWORKS_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", file],
        cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "22 pictures will cost $0.0308" in done.stdout
    assert "the same seed gives the same bytes: True" in done.stdout
    assert "22 pictures are in pictures" in done.stdout
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {"lake.png", *(f"boat-{number:02}.jpg" for number in range(1, 21))}
