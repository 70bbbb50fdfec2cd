"""What each job type of the emulator makes: pictures, masks, labels, films, text and drawings."""

from __future__ import annotations

import email
import email.policy
import io
import json
import struct
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import httpx
import pytest
from PIL import Image

from prodia_async.emulator import CATALOGUE, Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

File = tuple[str, bytes, str]

WAV = b"RIFF\x24\0\0\0WAVEfmt "
MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isomavc1"

CHECKLIST = {
    *("ping.v1", "flux-fast.schnell.txt2img.v1", "flux-fast.schnell.txt2img.v2"),
    *("flux.schnell.txt2img.v1", "flux.dev.txt2img.v1", "sdxl.txt2img.v1"),
    *(f"flux-2.{size}.img2img.v1" for size in ("pro", "flex", "dev", "max")),
    *(f"flux-2.{size}.txt2img.v1" for size in ("pro", "flex", "dev", "max")),
    *("nano-banana.img2img.v2", "nano-banana.txt2img.v2", "gemini-3-pro.img2img.v1"),
    *("gemini-3-1-flash.img2img.v1", "recraft.img2img.v1", "recraft.v4.txt2vec.v1"),
    *("sam3.segment.v1", "segment.v2", "birefnet.segment.v1", "remove-background.v1"),
    *("mask-background.v1", "upscale.v1", "faceswap.v1", "vit.img2label.v2", "facerestore.v1"),
    *("veo.txt2vid.v2", "veo.img2vid.v1", "wan2-2.lightning.txt2vid.v0", "wan2-7.img2vid.v1"),
    *(f"minimax.h3.fast.{kind}.v1" for kind in ("txt2vid", "img2vid", "ref2vid")),
}


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture
def emulator(running: Emulator) -> Iterator[Emulator]:
    running.ledger.clear()
    before = running.behaviour
    yield running
    running.behaviour = before


@pytest.fixture(scope="module")
def http(running: Emulator) -> Iterator[httpx.Client]:
    headers = {"authorization": "Bearer x"}
    with httpx.Client(base_url=running.base_url, headers=headers, verify=False) as client:
        yield client


def picture(colour: str = "teal", size: tuple[int, int] = (64, 48)) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", size, colour).save(target, "PNG")
    return target.getvalue()


SIDES = (256, 300)
"""As small as every type takes them."""


def png(name: str = "a.png", size: tuple[int, int] = (64, 48)) -> File:
    return name, picture(size=size), "image/png"


def send(
    http: httpx.Client,
    name: str,
    config: dict[str, Any] | None = None,
    *inputs: File,
    accept: str = "multipart/form-data",
    query: str = "",
) -> httpx.Response:
    job = {"type": name} if config is None else {"type": name, "config": config}
    files: list[tuple[str, Any]] = [("job", ("job.json", json.dumps(job), "application/json"))]
    files += [("input", item) for item in inputs]
    return http.post(f"/v2/job{query}", files=files, headers={"accept": accept})


def read(response: httpx.Response) -> tuple[dict[str, Any], list[tuple[str | None, str, bytes]]]:
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + response.content, policy=email.policy.HTTP)
    parts = [
        (part.get_filename(), part.get_content_type(), part.get_payload(decode=True))
        for part in message.iter_parts()
    ]
    bodies = [(name, kind, body) for name, kind, body in parts if isinstance(body, bytes)]
    return json.loads(bodies[0][2]), bodies[1:]


def error(response: httpx.Response) -> str:
    assert response.status_code == 400
    return str(read(response)[0]["error"])


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def valid(name: str) -> tuple[dict[str, Any] | None, list[File]]:
    """Make the smallest good job of a type."""
    kind = CATALOGUE[name]
    properties = kind.config.get("properties", {})
    config: dict[str, Any] = {"prompt": "a lake"} if "prompt" in properties else {}
    for side in ("width", "height"):
        if side in properties:
            config[side] = max(512, properties[side].get("minimum", 0))
    if "first_frame" in properties:
        config["first_frame"] = "0.png"
    content = {"video": MP4, "audio": WAV}.get(kind.takes[0], picture(size=SIDES))
    files = [(f"{n}.png", content, "image/png") for n in range(kind.inputs[0])]
    return config, files


RUNNABLE = sorted(set(CATALOGUE) - {"workflow.serial.v1"})


# All of them.


def test_the_checklist_is_covered() -> None:
    """Every type that the checklist names is in the catalogue."""
    assert {f"inference.{name}" for name in CHECKLIST} <= set(CATALOGUE)
    assert {"workflow.serial.v1", "workflow.moderate.v1"} <= set(CATALOGUE)


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_type_runs(http: httpx.Client, emulator: Emulator, name: str) -> None:
    """The smallest good job of each type gives outputs of its native type and its price."""
    config, files = valid(name)
    result, outputs = read(send(http, name, config, *files, query="?price=true"))
    kind = CATALOGUE[name]
    assert result["state"]["current"] == "completed"
    assert result["price"]["dollars"] == emulator.ledger[-1].dollars
    native = {"workflow.moderate.v1": "image/png"}.get(name, kind.native)
    assert [output[1] for output in outputs][:1] == ([] if kind.work == "nothing" else [native])
    assert ("seed" in result.get("config", {})) == kind.seeded


@pytest.mark.parametrize("name", RUNNABLE)
def test_no_configuration_is_a_server_error(http: httpx.Client, name: str) -> None:
    """Fields that a type does not know may hold anything: it is a 400 or does no harm."""
    config, files = valid(name)
    for junk in ([1], {"a": None}, "\0x", -1, 1e300, True):
        wild = dict.fromkeys(
            ("seed", "aspect_ratio", "ratio", "resolution", "size", "duration", "strength"), junk
        ) | {"style_preset": junk, "duration_seconds": junk, "upscale": junk, "model": junk}
        response = send(http, name, {**wild, **(config or {})}, *files)
        assert response.status_code in {200, 400}, response.text


def test_aliases_are_the_same_type(http: httpx.Client) -> None:
    """sam3 answers to segment.v2 and schnell v1 to v0, under the name that was asked for."""
    for one, other in (
        ("inference.sam3.segment.v1", "inference.segment.v2"),
        ("inference.flux-fast.schnell.txt2img.v1", "inference.flux-fast.schnell.txt2img.v0"),
    ):
        config, files = valid(one)
        results = [read(send(http, name, config, *files))[0] for name in (one, other)]
        assert [result["type"] for result in results] == [one, other]


# What is refused.


@pytest.mark.parametrize(
    ("name", "config", "line"),
    [
        ("upscale.v1", {"upscale": 3}, "'/config/upscale': value must be one of 2, 4, 8"),
        ("veo.txt2vid.v2", {"duration_seconds": 5}, "value must be one of 4, 6, 8"),
        ("veo.txt2vid.v1", {"duration_seconds": 8}, "at '/config/duration_seconds': false schema"),
        ("minimax.h3.fast.txt2vid.v1", {"resolution": "720P"}, "value must be '768P'"),
        ("minimax.h3.fast.img2vid.v1", {}, "missing properties 'prompt', 'first_frame'"),
        ("sam3.segment.v1", {"prompt": "x" * 501}, "maxLength: got 501, want 500"),
        ("sam3.segment.v1", {"prompt": "x", "points": []}, "additional properties 'points' not"),
        ("recraft.img2img.v1", {"prompt": "x" * 1001}, "maxLength: got 1,001, want 1,000"),
        ("recraft.img2img.v1", {"prompt": "x", "strength": 1.5}, "maximum: got 1.5, want 1"),
        ("recraft.img2img.v1", {"prompt": "x", "style": "icon", "style_id": "u"}, "not failed"),
        ("minimax.h3.fast.ref2vid.v1", {"references": ["a"] * 13}, "maxItems: got 13, want 12"),
        ("nano-banana.img2img.v2", {"images": []}, "minItems: got 0, want 1"),
        ("flux-2.max.img2img.v1", {"width": 4096}, "maximum: got 4,096, want 2,048"),
        ("flux-2.pro.txt2img.v1", {"width": 100}, "multipleOf: got 100, want 16"),
        ("flux-fast.schnell.txt2img.v1", {"prompt": "ab"}, "minLength: got 2, want 3"),
        ("birefnet.segment.v1", {"contour": 1}, "got number, want boolean"),
        ("wan2-7.txt2vid.v1", {"duration": 1}, "minimum: got 1, want 2"),
    ],
)
def test_the_words_of_each_keyword(
    http: httpx.Client, name: str, config: dict[str, Any], line: str
) -> None:
    """A value against its schema is refused in the words of the service's validator."""
    text = error(send(http, f"inference.{name}", config))
    assert text.startswith("jsonschema validation failed with 'inference.")
    assert line in text


def test_unknown_members_of_a_closed_type(http: httpx.Client) -> None:
    """A type whose page forbids unknown fields does so at the top too; others take a name."""
    for name, allowed in (("flux-fast.schnell.txt2img.v1", False), ("flux.dev.txt2img.v1", True)):
        config = {"prompt": "a lake"}
        job = {"type": f"inference.{name}", "name": "mine", "config": config}
        response = http.post("/v2/job", json=job)
        assert (response.status_code == 200) is allowed
        if not allowed:
            assert "at '': additional properties 'name' not allowed" in response.json()["error"]


def test_one_of_several_schemas(http: httpx.Client) -> None:
    """A Wan job one character too long gets the failures of all its siblings, as was observed."""
    config = {"prompt": "x", "negative_prompt": "x" * 501}
    text = error(send(http, "inference.wan2-7.img2vid.v1", config, png()))
    assert "\n- at '': oneOf failed, none matched\n  - at '" in text
    assert "maxLength: got 501, want 500" in text
    assert "at '/type': value must be 'inference.wan2-7.txt2img.v1'" in text
    config["negative_prompt"] = "x" * 500
    assert send(http, "inference.wan2-7.img2vid.v1", config, png()).status_code == 200


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("nano-banana.img2img.v2", 3),
        ("gemini-3-pro.img2img.v1", 3),
        ("gemini-3-1-flash.img2img.v1", 14),
        ("flux-2.dev.img2img.v1", 8),
        ("flux-2.flex.img2img.v1", 10),
        ("seedream-5-0.lite.img2img.v1", 14),
        ("flux-kontext.pro.img2img.v1", 1),
    ],
)
def test_most_inputs(http: httpx.Client, name: str, most: int) -> None:
    """Each type takes as many inputs as the guide says, and not one more."""
    files = [png(f"{n}.png", (8, 8)) for n in range(most + 1)]
    config = {"prompt": "x"}
    assert send(http, f"inference.{name}", config, *files[:most]).status_code == 200
    assert error(send(http, f"inference.{name}", config, *files)) == "config: too many images"


def test_inputs_of_the_wrong_kind(http: httpx.Client) -> None:
    """A sound or a film where a picture belongs is named; where they belong they are taken."""
    sound, film = ("a.wav", WAV, "audio/wav"), ("a.mp4", MP4, "video/mp4")
    text = error(send(http, "inference.remove-background.v1", None, sound))
    assert text == "input 'a.wav': got audio, want image"
    text = error(send(http, "inference.wan2-7.vid2vid.v1", {"prompt": "x"}, png()))
    assert text == "input 'a.png': got image, want video"
    assert send(http, "inference.wan2-7.vid2vid.v1", {"prompt": "x"}, film).status_code == 200
    config = {"prompt": "x", "image": "a.png", "audio": "a.wav"}
    assert send(http, "inference.wan2-7.img2vid.v1", config, png(), sound).status_code == 200


def test_references(http: httpx.Client) -> None:
    """ref2vid takes nine pictures, three films, three sounds, and never sounds alone."""
    name, config = "inference.minimax.h3.fast.ref2vid.v1", {"prompt": "x"}
    sounds = [(f"{n}.wav", WAV, "audio/wav") for n in range(4)]
    pictures = [png(f"{n}.png", (8, 8)) for n in range(10)]
    assert send(http, name, config, *pictures[:9], *sounds[:3]).status_code == 200
    assert "too many audios" in error(send(http, name, config, pictures[0], *sounds))
    assert "too many images" in error(send(http, name, config, *pictures))
    assert "at least one" in error(send(http, name, config, *sounds[:1]))


# Pictures.


@pytest.mark.parametrize(("factor", "dollars"), [(2, 0.001), (4, 0.002), (8, 0.003)])
def test_upscale(http: httpx.Client, emulator: Emulator, factor: int, dollars: float) -> None:
    """The picture grows by the factor, and so does the price."""
    response = send(
        http, "inference.upscale.v1", {"upscale": factor}, png(), accept="multipart/form-data"
    )
    _, [(_, _, content)] = read(response)
    assert opened(content).size == (64 * factor, 48 * factor)
    assert emulator.ledger[-1].dollars == dollars


def test_an_upscale_too_large(http: httpx.Client, emulator: Emulator) -> None:
    """An output that would fill the memory is a 413 that costs nothing."""
    item = png(size=(4000, 4000))
    assert send(http, "inference.upscale.v1", {"upscale": 8}, item).status_code == 413
    assert emulator.ledger.totals().charged == 0


def test_faceswap(http: httpx.Client) -> None:
    """Two inputs are needed; the result has the target's size and the source in its middle."""
    name = "inference.faceswap.v1"
    source, target = ("s.png", picture("red"), ""), ("t.png", picture("blue", (90, 60)), "")
    _, [(_, _, content)] = read(
        send(http, name, {}, source, target, accept="multipart/form-data; image/png")
    )
    image = opened(content)
    assert image.size == (90, 60)
    assert (image.getpixel((45, 30)), image.getpixel((2, 2))) == ((255, 0, 0), (0, 0, 255))
    assert "not found in request" in error(send(http, name, {}, source))


def test_no_face(http: httpx.Client, emulator: Emulator) -> None:
    """A source whose name says so has no face, in the documented words, and costs nothing."""
    files = png("landscape.png"), png("b.png")
    text = error(send(http, "inference.faceswap.v1", {}, *files))
    assert text == "No face detected in the source image."
    assert (emulator.ledger[-1].ran, emulator.ledger[-1].charged) == (True, False)


def test_masks(http: httpx.Client) -> None:
    """sam3 gives a grey mask for each thing, black and white, and fewer above a threshold."""
    name, counts = "inference.sam3.segment.v1", []
    for threshold in (0.5, 0.7, 0.9, 1):
        config = {"prompt": "fruit", "confidence_threshold": threshold}
        _, outputs = read(send(http, name, config, png(size=(300, 260))))
        counts.append(len(outputs))
        for _, media_type, content in outputs:
            mask = opened(content)
            assert (media_type, mask.mode, mask.size) == ("image/png", "L", (300, 260))
            assert {value for _, value in mask.getcolors() or ()} == {0, 255}
    assert counts == [3, 2, 1, 0]
    _, outputs = read(
        send(http, name, {"prompt": "x"}, png(size=SIDES), accept="multipart/form-data; image/webp")
    )
    assert [output[1] for output in outputs] == ["image/webp", "image/png", "image/png"]


def test_mask_background(http: httpx.Client) -> None:
    """mask-background gives the mask that remove-background would cut with."""
    response = send(http, "inference.mask-background.v1", None, png(), accept="image/png")
    assert opened(response.content).mode == "L"


def test_inpainting_changes_what_is_white(http: httpx.Client) -> None:
    """The second input is the mask: black keeps the picture, white is painted anew."""
    mask = Image.new("L", (256, 256))
    mask.paste(255, (128, 0, 256, 256))
    target = io.BytesIO()
    mask.save(target, "PNG")
    files = png("a.png", (256, 256)), ("m.png", target.getvalue(), "image/png")
    config = {"prompt": "a red sun", "width": 256, "height": 256, "strength": 1, "seed": 1}
    accept = "multipart/form-data; image/png"
    response = send(http, "inference.sdxl.inpainting.v1", config, *files, accept=accept)
    image = opened(read(response)[1][0][2])
    assert image.getpixel((20, 20)) == (0, 128, 128)
    assert image.getpixel((200, 20)) != (0, 128, 128)


# Other things than pictures.


def test_labels(http: httpx.Client) -> None:
    """Vit gives labels as JSON and in the config, and passes the picture on."""
    name, item = "inference.vit.img2label.v2", png()
    result, [(label_name, media_type, labels), (_, second, passed)] = read(
        send(http, name, {}, item)
    )
    assert (label_name, media_type, second) == ("labels.json", "application/json", "image/png")
    assert json.loads(labels) == result["config"]["labels"]
    assert sum(label["score"] for label in json.loads(labels)) == pytest.approx(1, abs=1e-5)
    assert passed == item[1]
    alone = send(http, name, {}, item, accept="application/json").json()
    assert alone["config"]["labels"] == json.loads(labels)


def test_a_drawing(http: httpx.Client) -> None:
    """Recraft's vector type gives well-formed SVG of the asked size, and nothing else."""
    name, config = "inference.recraft.v4.txt2vec.v1", {"prompt": "a <b> & \0c", "size": "1536x768"}
    response = send(http, name, config, accept="image/svg+xml")
    assert response.headers["content-type"] == "image/svg+xml"
    root = ET.fromstring(response.content)
    assert (root.get("width"), root.get("height")) == ("1536", "768")
    assert "image/png" in error(send(http, name, config, accept="multipart/form-data; image/png"))


def boxes(content: bytes) -> dict[str, bytes]:
    """Split ISO-BMFF bytes into their boxes; sizes must add up."""
    found: dict[str, bytes] = {}
    while content:
        size, name = struct.unpack(">I4s", content[:8])
        assert 8 <= size <= len(content)
        found[name.decode()] = content[8:size]
        content = content[size:]
    return found


def inside(content: bytes, *path: str) -> bytes:
    for name in path:
        content = boxes(content)[name]
    return content


@pytest.mark.parametrize(
    ("name", "config", "size", "frames"),
    [
        ("veo.fast.txt2vid.v2", {"duration_seconds": 4, "resolution": "1080p"}, (1920, 1080), 96),
        ("veo.txt2vid.v1", {"aspect_ratio": "9:16"}, (720, 1280), 120),
        ("minimax.h3.fast.txt2vid.v1", {"duration": 15}, (1366, 768), 360),
        ("wan2-7.txt2vid.v1", {"ratio": "1:1"}, (720, 720), 120),
        ("wan2-2.lightning.txt2vid.v0", {}, (854, 480), 120),
    ],
)
def test_a_film(
    http: httpx.Client, name: str, config: dict[str, Any], size: tuple[int, int], frames: int
) -> None:
    """A video type gives a few kilobytes of MP4, as long and as large as its config says."""
    job = {"prompt": "waves", "seed": 1, **config}
    response = send(http, f"inference.{name}", job, accept="multipart/form-data; video/mp4")
    _, [(filename, media_type, film)] = read(response)
    assert (filename, media_type) == ("video.mp4", "video/mp4")
    assert list(boxes(film)) == ["ftyp", "moov", "mdat"]
    assert 5_000 < len(film) < 20_000
    shown = struct.unpack(">2I", inside(film, "moov", "trak", "tkhd")[-8:])
    assert tuple(side >> 16 for side in shown) == size
    table = inside(film, "moov", "trak", "mdia", "minf", "stbl")
    assert struct.unpack(">I", inside(table, "stsz")[8:12])[0] == frames


def test_the_frames_of_a_film(http: httpx.Client) -> None:
    """The samples lie where the tables say, and are H.264 units of the kinds they should be."""
    response = send(
        http, "inference.veo.txt2vid.v1", {"prompt": "waves", "seed": 1}, accept="video/mp4"
    )
    film = response.content
    table = inside(film, "moov", "trak", "mdia", "minf", "stbl")
    count = struct.unpack(">I", inside(table, "stsz")[8:12])[0]
    sizes = struct.unpack(f">{count}I", inside(table, "stsz")[12:])
    keys = struct.unpack(">2I", inside(table, "stss")[8:])
    position = struct.unpack(">I", inside(table, "stco")[8:])[0]
    kinds = []
    for size in sizes:
        assert struct.unpack(">I", film[position : position + 4])[0] == size - 4
        kinds.append(film[position + 4])
        assert b"\0\0\0" not in film[position + 4 : position + size]
        position += size
    assert position == len(film)
    assert [index + 1 for index, kind in enumerate(kinds) if kind == 0x65] == list(keys)
    assert set(kinds) == {0x65, 0x41}
    assert sizes[0] > 16 * 384 / 2


def test_a_film_alone(http: httpx.Client) -> None:
    """A single film can be had without multipart; two equal jobs give equal bytes."""
    job = {"type": "inference.veo.txt2vid.v1", "config": {"prompt": "waves", "seed": 1}}
    answers = [
        http.post("/v2/job", json=job, headers={"accept": accept})
        for accept in ("video/mp4", "*/*", "video/*")
    ]
    assert {answer.headers["content-type"] for answer in answers} == {"video/mp4"}
    assert len({answer.content for answer in answers}) == 1


def test_a_poster(http: httpx.Client, emulator: Emulator) -> None:
    """A switch adds the first frame, which for a film from a picture is that picture."""
    emulator.behave(poster=True)
    name = "inference.wan2-2.lightning.img2vid.v0"
    for accept in ("multipart/form-data", "video/mp4"):
        _, [film, poster] = read(send(http, name, {"prompt": "x"}, png(), accept=accept))
        assert film[:2] == ("video.mp4", "video/mp4")
        assert poster[:2] == ("poster.jpg", "image/jpeg")
        colour = opened(poster[2]).getpixel((100, 100))
        assert isinstance(colour, tuple)
        assert max(abs(a - b) for a, b in zip(colour, (0, 128, 128), strict=True)) < 4


@pytest.mark.parametrize("name", ["nano-banana", "gemini-3-pro", "gemini-3-1-flash"])
def test_messages(http: httpx.Client, name: str) -> None:
    """The speaking models add a text when asked for one."""
    version = "v2" if name == "nano-banana" else "v1"
    config = {"prompt": "two foxes", "include_messages": True}
    result, [_, (filename, media_type, text)] = read(
        send(http, f"inference.{name}.txt2img.{version}", config)
    )
    assert (filename, media_type) == ("message.txt", "text/plain")
    assert b"two foxes" in text
    assert result["config"]["output_message_count"] == 1
