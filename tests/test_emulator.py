"""
What the emulator says on the wire, read with httpx, raw sockets and the stdlib's e-mail parser.

The client's own decoder is not used here: it is what the emulator is a witness for.
"""

from __future__ import annotations

import email
import email.policy
import hashlib
import io
import json
import re
import socket
import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKEN = "a-token-nobody-may-see"
SCHNELL = "inference.flux-fast.schnell.txt2img.v2"
BANANA = "inference.nano-banana.img2img.v2"
FLEX = "inference.flux-2.flex.img2img.v1"
CUT = "inference.remove-background.v1"
PING = {"type": "inference.ping.v1"}

File = tuple[str | None, bytes | str, str | None]
Reply = tuple[dict[str, Any], list[tuple[str | None, str, bytes]]]


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator(tokens=[TOKEN], privileged_types=["inference.flux-2.max.img2img.v1"]) as running:
        yield running


@pytest.fixture
def emulator(running: Emulator) -> Emulator:
    running.ledger.clear()
    return running


@pytest.fixture(scope="module")
def http(running: Emulator) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=running.base_url, headers=headers, verify=False) as client:
        yield client


def small(prompt: str = "a lake", **config: Any) -> dict[str, Any]:
    config = {"prompt": prompt, "seed": 42, "width": 256, "height": 256, **config}
    return {"type": SCHNELL, "config": config}


def picture(colour: str, size: tuple[int, int] = (64, 48), format: str = "PNG") -> bytes:
    target = io.BytesIO()
    Image.new("RGB", size, colour).save(target, format)
    return target.getvalue()


def post(
    http: httpx.Client, job: Mapping[str, Any], accept: str | None = None, price: bool = False
) -> httpx.Response:
    headers = {} if accept is None else {"accept": accept}
    return http.post("/v2/job?price=true" if price else "/v2/job", json=job, headers=headers)


def send(
    http: httpx.Client,
    job: Mapping[str, Any],
    *inputs: tuple[str, bytes, str],
    accept: str = "multipart/form-data",
) -> httpx.Response:
    files: list[tuple[str, Any]] = [("job", ("job.json", json.dumps(job), "application/json"))]
    files += [("input", item) for item in inputs]
    return http.post("/v2/job", files=files, headers={"accept": accept})


def read(response: httpx.Response) -> Reply:
    """Read a multipart answer: the job result, and name, type and bytes of each output."""
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + response.content, policy=email.policy.HTTP)
    parts = list(message.iter_parts())
    names = [part.get_param("name", header="content-disposition") for part in parts]
    assert names == ["job"] + ["output"] * (len(parts) - 1)
    bodies = [part.get_payload(decode=True) for part in parts]
    outputs = [
        (part.get_filename(), part.get_content_type(), bytes(body))
        for part, body in zip(parts[1:], bodies[1:], strict=True)
        if isinstance(body, bytes)
    ]
    assert isinstance(bodies[0], bytes)
    return json.loads(bodies[0]), outputs


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


# Who may ask.


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN])
def test_a_bad_token_is_401_in_plain_text(emulator: Emulator, header: str | None) -> None:
    """A missing or wrong token gets the documented text, even where multipart was asked for."""
    headers = {"accept": "multipart/form-data"}
    if header is not None:
        headers["authorization"] = header
    response = httpx.post(f"{emulator.base_url}/v2/job", json=PING, headers=headers, verify=False)
    assert (response.status_code, response.text) == (401, "token is invalid")
    assert response.headers["content-type"].startswith("text/plain")
    assert emulator.ledger[-1].charged is False


def test_a_privileged_type_is_403(http: httpx.Client, emulator: Emulator) -> None:
    """A type the token may not run is refused before its configuration is looked at."""
    response = post(http, {"type": "inference.flux-2.max.img2img.v1"})
    assert response.status_code == 403
    assert response.headers["content-type"].startswith("text/plain")
    assert emulator.ledger[-1].type == "inference.flux-2.max.img2img.v1"


def test_every_answer_has_a_request_id(http: httpx.Client, emulator: Emulator) -> None:
    """Successes, refusals and unknown paths bear a UUID, and the ledger has the same one."""
    answers = [
        post(http, PING),
        post(http, {"type": "inference.none.v1"}),
        http.get("/v2/job"),
        http.get("/nowhere"),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 405, 404]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len({uuid.UUID(text) for text in ids}) == 4
    assert [record.request_id for record in emulator.ledger] == ids


# The answer's form.


def test_the_job_result(http: httpx.Client) -> None:
    """A result repeats the request and adds id, times, state, metrics and computed values."""
    config: dict[str, Any] = {"prompt": "a fox", "width": 256, "height": 512}
    job = {"type": SCHNELL, "config": config}
    result, [(filename, media_type, _)] = read(post(http, job, "multipart/form-data"))
    assert uuid.UUID(result["id"]).version == 4
    assert result["state"] == {"current": "completed", "history": None}
    created, expires = (result[name] for name in ("created_at", "expires_at"))
    assert created.endswith("Z")
    lifetime = datetime.fromisoformat(expires) - datetime.fromisoformat(created)
    assert lifetime == timedelta(seconds=300)
    assert result["config"] | {"seed": 0} == config | {"seed": 0, "steps": 4}
    assert isinstance(result["config"]["seed"], int)
    assert result["metrics"]["elapsed"] > 0
    assert result["metrics"]["ips"] == pytest.approx(4 / result["metrics"]["elapsed"], rel=0.01)
    assert "price" not in result
    assert media_type == "image/jpeg"
    assert filename is not None
    assert str(uuid.UUID(filename)) == filename


def test_multipart_as_go_writes_it(http: httpx.Client) -> None:
    """Boundary, header order, escapes and the final newline are byte for byte Go's."""
    response = post(http, small("<b> & é"), "multipart/form-data")
    match = re.fullmatch(
        r"multipart/form-data; boundary=([0-9a-f]{60})", response.headers["content-type"]
    )
    assert match is not None
    line = f"--{match[1]}"
    start = (
        f'{line}\r\nContent-Disposition: form-data; name="job"; filename="job.json"\r\n'
        'Content-Type: application/json\r\n\r\n{"id":"'
    )
    assert response.content.startswith(start.encode())
    assert '"prompt":"\\u003cb\\u003e \\u0026 é"'.encode() in response.content
    assert f'}}\n\r\n{line}\r\nContent-Disposition: form-data; name="output"; '.encode() in (
        response.content
    )
    assert response.content.endswith(f"\r\n{line}--\r\n".encode())
    assert response.headers["content-length"] == str(len(response.content))


@pytest.mark.parametrize("accept", [None, "*/*", "image/*", "text/html, */*;q=0.8", "image/jpeg"])
def test_a_picture_alone(http: httpx.Client, accept: str | None) -> None:
    """Without multipart a single output is sent as it is, and a JPEG by default."""
    headers = {} if accept is None else {"accept": accept}
    if accept is None:
        del http.headers["accept"]
    response = http.post("/v2/job", json=small(), headers=headers)
    http.headers["accept"] = "*/*"
    assert response.headers["content-type"] == "image/jpeg"
    assert opened(response.content).format == "JPEG"


def test_the_heaviest_element_counts(http: httpx.Client) -> None:
    """Of a list the element with the largest q is taken, the first of equals, and never q=0."""
    for accept, media_type in (
        ("image/png;q=0.5, image/webp", "image/webp"),
        ("image/png, image/webp", "image/png"),
        ("image/png;q=0, */*;q=0.1", "image/jpeg"),
        ("audio/wav, image/webp;q=0.2;quality=1", "image/webp"),
    ):
        assert post(http, small(), accept).headers["content-type"] == media_type


def test_json_alone(http: httpx.Client) -> None:
    """Accept: application/json brings the job result and no output."""
    response = post(http, small(), "application/json", price=True)
    assert response.headers["content-type"] == "application/json"
    assert response.json()["price"] == {
        "product": "inference-flux-schnell-small-steps-4",
        "dollars": 0.0025,
    }


def test_the_documented_price(http: httpx.Client) -> None:
    """A schnell job of 1024 by 1024 in four steps has the product code of the price page."""
    job = {"type": SCHNELL, "config": {"prompt": "puppies in a cloud, 4k", "seed": 42}}
    result, _ = read(post(http, job, "multipart/form-data", price=True))
    assert result["price"]["product"] == "inference-flux-schnell-large-steps-4"


@pytest.mark.parametrize("form", ["{}", "multipart/form-data; {}"])
@pytest.mark.parametrize(
    ("encoding", "media_type"),
    [
        ("image/png", "image/png"),
        ("image/png;compress-level=9;optimize=1", "image/png"),
        ("image/webp; lossless=1; method=0", "image/webp"),
        ("image/webp;quality=10;alpha-quality=0", "image/webp"),
        ("image/jpeg;quality=95;subsampling=444;optimize=1;progressive=1", "image/jpeg"),
    ],
)
def test_the_asked_format(http: httpx.Client, form: str, encoding: str, media_type: str) -> None:
    """Each format with its parameters is understood alone and behind multipart."""
    response = post(http, small(), form.format(encoding))
    assert response.status_code == 200
    if form == "{}":
        content, sent = response.content, response.headers["content-type"]
    else:
        _, [(_, sent, content)] = read(response)
    assert sent == media_type
    assert opened(content).format == media_type.rpartition("/")[2].upper()


def test_encoder_parameters_reach_the_encoder(http: httpx.Client) -> None:
    """Progressive scans and chroma are those asked for, by Accept or the older config field."""
    plain = post(http, small(), "image/jpeg").content
    rich = post(http, small(), "image/jpeg;progressive=1;subsampling=444").content
    older = post(http, small(progressive=True), "image/jpeg").content
    assert [opened(data).info.get("progressive") for data in (plain, rich, older)] == [None, 1, 1]
    # Two bits a side in the frame header: 0x22 is 4:2:0, 0x11 is 4:4:4.
    factors = [
        data[data.index(marker) + 11]
        for data, marker in ((plain, b"\xff\xc0"), (rich, b"\xff\xc2"))
    ]
    assert factors == [0x22, 0x11]


@pytest.mark.parametrize(
    ("accept", "named"),
    [
        ("image/jpeg;quality=96", "quality"),
        ("image/webp;method=7", "method"),
        ("multipart/form-data; image/png;compress-level=10", "compress-level"),
        ("image/jpeg;subsampling=411", "subsampling"),
        ("image/webp;lossless=yes", "lossless"),
        ("image/png;quality=5", "quality"),
        ("audio/wav", "audio/wav"),
        ("multipart/form-data; video/mp4", "video/mp4"),
    ],
)
def test_an_accept_out_of_range_is_400(
    http: httpx.Client, emulator: Emulator, accept: str, named: str
) -> None:
    """What cannot be encoded is refused by name before anything runs."""
    response = post(http, small(), accept)
    assert response.status_code == 400
    assert named.encode() in response.content
    assert emulator.ledger.totals().ran == 0


def test_ping_has_no_output(http: httpx.Client) -> None:
    """Ping answers with the job result alone, in the form asked for."""
    assert post(http, PING).json()["type"] == "inference.ping.v1"
    result, outputs = read(post(http, PING, "multipart/form-data"))
    assert outputs == []
    assert "config" not in result


# What is refused, and in which words.


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"steps": 1000}, "at '/config/steps': maximum: got 1,000, want 4"),
        ({"steps": 0}, "at '/config/steps': minimum: got 0, want 1"),
        ({"steps": "4"}, "at '/config/steps': got string, want integer"),
        ({"steps": 2.5}, "at '/config/steps': got number, want integer"),
        ({"steps": True}, "at '/config/steps': got boolean, want integer"),
        ({"prompt": None}, "at '/config/prompt': got null, want string"),
        ({"prompt": ""}, "at '/config/prompt': minLength: got 0, want 1"),
        ({"style_preset": "oil"}, "at '/config/style_preset': value must be one of '3d-model', "),
        ({"loras": ["a"] * 4}, "at '/config/loras': maxItems: got 4, want 3"),
        ({"loras": [1]}, "at '/config/loras/0': got number, want string"),
    ],
)
def test_a_config_against_its_schema(http: httpx.Client, config: dict[str, Any], line: str) -> None:
    """A wrong value is named with its place, in the words of the service's validator."""
    response = post(http, small(**config))
    error = response.json()["error"]
    assert response.status_code == 400
    assert error.startswith("jsonschema validation failed with ")
    assert f"\n- {line}" in error


def test_other_schema_messages(http: httpx.Client) -> None:
    """Missing and forbidden members and multiples have their own words."""
    strict = {"type": "inference.flux-fast.schnell.txt2img.v1", "config": {"extra": 1}}
    error = post(http, strict).json()["error"]
    assert "- at '/config': missing property 'prompt'\n" in error
    assert "- at '/config': additional properties 'extra' not allowed" in error
    assert "missing property 'config'" in post(http, {"type": SCHNELL}).json()["error"]
    flex = {"type": FLEX, "config": {"prompt": "x", "width": 100, "guidance": 11}}
    error = post(http, flex).json()["error"]
    assert "multipleOf: got 100, want 16" in error
    assert "maximum: got 11, want 10" in error


@pytest.mark.parametrize("accept", ["multipart/form-data", "multipart/form-data; image/png"])
def test_a_400_is_multipart_where_that_was_asked_for(http: httpx.Client, accept: str) -> None:
    """A refused job is a failed job result in the negotiated form, with an id and no output."""
    result, outputs = read(post(http, {"type": "inference.none.v1"}, accept))
    assert result["error"] == "unknown job type"
    assert result["state"]["current"] == "failed"
    assert uuid.UUID(result["id"]).version == 4
    assert outputs == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"type":NaN}', b"[" * 100_000])
def test_a_body_that_is_no_job_is_400(http: httpx.Client, body: bytes) -> None:
    """Damaged JSON, and JSON that is no object, is a 400 with a failed job result."""
    response = http.post("/v2/job", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["state"]["current"] == "failed"


def test_damaged_forms_are_400(http: httpx.Client) -> None:
    """A form cut short, without a job, with two, or without a boundary is refused."""
    part = b'--b\r\nContent-Disposition: form-data; name="job"\r\n\r\n%s\r\n'
    part %= json.dumps(PING).encode()
    forms = [
        (part, "b"),
        (part + b"--b", "b"),
        (part + b"--b\r\n", "b"),
        (part + part + b"--b--\r\n", "b"),
        (b"--b--\r\n", "b"),
        (part, ""),
    ]
    for body, boundary in forms:
        media_type = f"multipart/form-data; boundary={boundary}"
        response = http.post("/v2/job", content=body, headers={"content-type": media_type})
        assert response.status_code == 400
        assert "multipart" in response.json()["error"]
    wrong = http.post("/v2/job", content=b"a=1", headers={"content-type": "text/plain"})
    assert "text/plain" in wrong.json()["error"]


# Requests as forms.


def test_a_form_in_any_order(http: httpx.Client, emulator: Emulator) -> None:
    """The job may come last, without filename or type, and inputs without a filename."""
    job: tuple[str, File] = (
        "job",
        (None, json.dumps({"type": BANANA, "config": {"prompt": "x"}}), None),
    )
    red, blue = picture("red"), picture("blue", format="JPEG")
    files: list[tuple[str, File]] = [
        ("input", ("r.png", red, "image/png")),
        ("other", (None, b"ignored", None)),
        ("input", ("", blue, "application/octet-stream")),
        job,
    ]
    boundary = "x" * 70
    headers = {"content-type": f'multipart/form-data; boundary="{boundary}"'}
    assert http.post("/v2/job", files=files, headers=headers).status_code == 200
    record = emulator.ledger[-1]
    assert record.parts == ("input", "other", "input", "job")
    assert record.job_filename is None
    assert [(item.filename, item.content_type, item.size) for item in record.inputs] == [
        ("r.png", "image/png", len(red)),
        ("", "application/octet-stream", len(blue)),
    ]
    assert record.inputs[1].sha256 == hashlib.sha256(blue).hexdigest()


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('filename="two words; é.png"', "two words; é.png"),
        (r'filename="a\"b\\c.png"', 'a"b\\c.png'),
        ("filename=bare.png", "bare.png"),
        ("filename*=utf-8''%C3%A9.png", "é.png"),
        ('filename="folder/base.png"', "base.png"),
        ('filename="a%22b.png"', "a%22b.png"),
    ],
)
def test_filenames_as_go_reads_them(
    http: httpx.Client, emulator: Emulator, header: str, name: str
) -> None:
    """Quoting, escapes and folders in a filename mean what Go's mime package makes of them."""
    job = json.dumps({"type": CUT, "config": {"image": name}}, ensure_ascii=False)
    line = "--b\r\nContent-Disposition: form-data; name="
    body = (
        f'{line}"input"; {header}\r\n\r\n'.encode()
        + picture("red", (256, 256))
        + f'\r\n{line}"job"\r\n\r\n{job}\r\n--b--\r\n'.encode()
    )
    media_type = "multipart/form-data; boundary=b"
    response = http.post("/v2/job", content=body, headers={"content-type": media_type})
    assert emulator.ledger[-1].inputs[0].filename == name
    assert response.status_code == 200


def test_a_name_that_was_not_sent(http: httpx.Client) -> None:
    """A config that names a missing file is refused in the documented words."""
    job = {"type": BANANA, "config": {"prompt": "x", "images": ["a.png", "b.png"]}}
    result, _ = read(send(http, job, ("a.png", picture("red"), "image/png")))
    assert result["error"] == "filename 'b.png' not found in request"
    result, _ = read(send(http, {"type": CUT}))
    assert result["error"] == "input image is required"


def test_two_inputs_of_one_name(http: httpx.Client, emulator: Emulator) -> None:
    """Equal names are refused; once they did no harm by position, but where the config has them."""
    files = [("image.jpg", picture(colour), "image/png") for colour in ("red", "blue")]
    result, _ = read(send(http, {"type": BANANA, "config": {"prompt": "x"}}, *files))
    assert result["error"].startswith("filename 'image.jpg' is not unique")
    emulator.behave(strict_filenames=False)
    assert send(http, {"type": BANANA, "config": {"prompt": "x"}}, *files).status_code == 200
    job = {"type": BANANA, "config": {"prompt": "x", "images": ["image.jpg"]}}
    result, _ = read(send(http, job, *files))
    assert "ambiguous" in result["error"]


def test_too_many_images(http: httpx.Client) -> None:
    """One input more than the type takes is refused, counting those the config names."""
    files = [(f"{n}.png", picture("red"), "image/png") for n in range(4)]
    job = {"type": BANANA, "config": {"prompt": "x"}}
    result, _ = read(send(http, job, *files))
    assert result["error"] == "config: too many images"
    named = {"type": BANANA, "config": {"prompt": "x", "images": ["0.png", "1.png", "2.png"]}}
    assert send(http, named, *files).status_code == 200
    assert send(http, small(), files[0]).status_code == 400


def test_an_input_that_is_no_picture(http: httpx.Client, emulator: Emulator) -> None:
    """Bytes that cannot be decoded, from the start or later, are a 400 that costs nothing."""
    for content in (b"not a picture", picture("red", (500, 500), "JPEG")[:2000]):
        response = send(http, {"type": CUT}, ("a.png", content, "image/png"))
        result, _ = read(response)
        assert response.status_code == 400
        assert "a.png" in result["error"]
    assert emulator.ledger.totals().charged == 0


def test_an_upload_that_is_too_large(http: httpx.Client) -> None:
    """413 comes by total size, with or without a length, and by pixels for flux-2 pro."""
    with Emulator(max_upload_bytes=1000) as small_one:
        url, headers = f"{small_one.base_url}/v2/job", {"authorization": "Bearer x"}
        known = httpx.post(url, content=b"x" * 2000, headers=headers, verify=False)
        parts = iter([b"x" * 500] * 4)
        chunked = httpx.post(url, content=parts, headers=headers, verify=False)
    assert (known.status_code, chunked.status_code) == (413, 413)
    wide = picture("red", (4000, 2300))
    job = {"type": "inference.flux-2.pro.img2img.v1", "config": {"prompt": "x"}}
    assert send(http, job, ("w.png", wide, "image/png")).status_code == 413


def test_a_body_in_single_bytes(emulator: Emulator) -> None:
    """A form that arrives byte by byte over a raw socket is read the same."""
    job = json.dumps({"type": "inference.ping.v1"})
    body = f'--b\r\nContent-Disposition: form-data; name="job"\r\n\r\n{job}\r\n--b--\r\n'
    head = (
        "POST /v2/job HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: bearer {TOKEN}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", emulator.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(head.encode())
        for byte in body.encode():
            connection.sendall(bytes([byte]))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-type: application/json\r\n" in answer


# Types with more to them.


def test_nano_banana(http: httpx.Client) -> None:
    """The result has the fields of the live recording, and no seed."""
    job = {"type": BANANA, "config": {"prompt": "x"}}
    result, [(_, media_type, content)] = read(
        send(http, job, ("a.png", picture("red", (320, 160)), "image/png"))
    )
    assert result["config"] == {
        "prompt": "x",
        "aspect_ratio": "auto",
        "output_message_count": 0,
        "output_image_count": 1,
    }
    assert "ips" not in result["metrics"]
    assert media_type == "image/jpeg"
    width, height = opened(content).size
    assert width == pytest.approx(2 * height, rel=0.02)


def test_nano_banana_with_messages(http: httpx.Client) -> None:
    """include_messages adds a text, so that a direct answer is no longer possible."""
    job = {"type": BANANA, "config": {"prompt": "two foxes", "include_messages": True}}
    reply = send(http, job, ("a.png", picture("red"), "image/png"), accept="image/png")
    result, [(_, first, _), (name, second, text)] = read(reply)
    assert (first, name, second) == ("image/png", "message.txt", "text/plain")
    assert b"two foxes" in text
    assert result["config"]["output_message_count"] == 1


def test_remove_background(http: httpx.Client) -> None:
    """The subject stays, the background is transparent, or white where the format has no alpha."""
    subject = Image.new("RGB", (400, 320), "white")
    subject.paste((200, 20, 20), (120, 80, 280, 240))
    subject.paste((240, 240, 120), (0, 0, 400, 12))
    target = io.BytesIO()
    subject.save(target, "PNG")
    item = ("a.png", target.getvalue(), "image/png")
    for accept in ("*/*", "image/png", "image/webp;lossless=1"):
        # Two outputs go out as a form whatever was asked for: the foreground, then the mask.
        _, outputs = read(send(http, {"type": CUT}, item, accept=accept))
        cut, mask = (opened(output[2]) for output in outputs)
        assert (cut.mode, cut.size) == ("RGBA", (400, 320))
        assert (mask.mode, mask.size) == ("L", (400, 320))
        assert mask.getpixel((200, 160)) == 255
        assert cut.getpixel((200, 160)) == (200, 20, 20, 255)
        alpha = cut.getpixel((10, 160))
        assert isinstance(alpha, tuple)
        assert alpha[3] == 0
    exact = [
        opened(read(send(http, {"type": CUT}, item, accept=accept))[1][0][2]).tobytes()
        for accept in ("image/png", "image/webp;lossless=1")
    ]
    assert exact[0] == exact[1]
    _, outputs = read(send(http, {"type": CUT}, item, accept="image/jpeg;quality=95"))
    corner = opened(outputs[0][2]).getpixel((6, 4))
    assert isinstance(corner, tuple)
    assert min(corner) > 245


def test_birefnet_has_two_outputs(http: httpx.Client) -> None:
    """The foreground takes the asked type, the mask stays a grey PNG, both under their names."""
    job = {"type": "inference.birefnet.segment.v1"}
    item = ("a.png", picture("green", (90, 70)), "image/png")
    for accept, first, kind in (
        ("multipart/form-data", "foreground.png", "image/png"),
        ("image/png", "foreground.png", "image/png"),
        ("multipart/form-data; image/webp", "foreground.webp", "image/webp"),
    ):
        _, outputs = read(send(http, job, item, accept=accept))
        assert [output[:2] for output in outputs] == [(first, kind), ("mask.png", "image/png")]
        foreground, mask = (opened(output[2]) for output in outputs)
        assert (foreground.mode, mask.mode, mask.size) == ("RGBA", "L", (90, 70))


def test_sizes_that_follow_the_input(http: httpx.Client) -> None:
    """flux-2 and schnell img2img take the input's size when none is given, and say so."""
    item = ("a.png", picture("teal", (640, 480)), "image/png")
    for name in (FLEX, "inference.flux.schnell.img2img.v1"):
        result, [(_, _, content)] = read(
            send(http, {"type": name, "config": {"prompt": "x"}}, item)
        )
        config = result["config"]
        assert opened(content).size == (config["width"], config["height"]) == (640, 480)
    job = {"type": FLEX, "config": {"prompt": "x", "width": 128, "height": 64}}
    _, [(_, _, content)] = read(send(http, job, item))
    assert opened(content).size == (128, 64)


def test_v1_takes_a_resolution(http: httpx.Client) -> None:
    """The older schnell type has a resolution where the newer one has width and height."""
    job = {
        "type": "inference.flux-fast.schnell.txt2img.v1",
        "config": {"prompt": "a fox", "resolution": "576x1024"},
    }
    assert opened(post(http, job).content).size == (576, 1024)
