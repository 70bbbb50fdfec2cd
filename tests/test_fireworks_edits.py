"""The second API beyond one prompt and one picture: edits, edges, codes, tags, webhooks."""

from __future__ import annotations

import hashlib
import hmac
import io
import re
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from conftest import on_both_loops
from PIL import Image as Pillow
from python_multipart import FormParser
from raw_server import Conversation, RawServer, http, say
from test_async_jobs import Always
from test_fireworks import (
    B64,
    JPEG_BYTES,
    PNG_BYTES,
    POLL,
    SDXL,
    SUBMITTED,
    body_of,
    client,
    picture,
    state,
    told,
)  # fmt: skip

from prodia_async import JPEG, BadRequestError, InvalidRequestError, Output
from prodia_async._hooks import JobDetails
from prodia_async.fireworks import (
    AsyncFireworks,
    CannyEdgeDetection,
    ControlNet,
    Generate,
    ImageToImage,
    Kontext,
    QRCode,
    TextToImage,
    verify_webhook,
)
from prodia_async.fireworks._edits import with_seed

if TYPE_CHECKING:
    from pathlib import Path

    from raw_server import RawRequest

MODEL = f"/image_generation/accounts/fireworks/models/{SDXL}"


def form(request: RawRequest) -> tuple[dict[str, str], dict[str, tuple[str, bytes]]]:
    """Read a form with somebody else's parser: its fields, and its files by name."""
    fields: dict[str, str] = {}
    files: dict[str, tuple[str, bytes]] = {}
    content_type = request.header("content-type") or ""
    boundary = content_type.partition("boundary=")[2]

    def on_field(field: Any) -> None:
        fields[field.field_name.decode()] = field.value.decode()

    def on_file(file: Any) -> None:
        file.file_object.seek(0)
        files[file.field_name.decode()] = (file.file_name.decode(), file.file_object.read())

    parser = FormParser("multipart/form-data", on_field, on_file, boundary=boundary)
    parser.write(request.body)
    parser.finalize()
    return fields, files


def path_of(request: RawRequest) -> str:
    return request.head.split(" ")[1]


class Slow(io.BytesIO):
    """An upload that takes its time."""

    async def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]  # awaited
        await anyio.sleep(0.05)
        return super().read(size)

    async def seek(self, offset: int, whence: int = 0) -> int:  # type: ignore[override]
        return super().seek(offset, whence)


@on_both_loops
async def test_looking_at_a_picture_is_part_of_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it took is gone when the order is sent."""
    spent: list[float] = []
    with RawServer([picture(), SUBMITTED, state("Ready", B64)]) as server:
        async with client(server, deadline=30.0) as fireworks:
            run = fireworks._engine.run

            async def note(wire: Any, answer: Any, terms: Any) -> Any:
                spent.append(terms.spent)
                return await run(wire, answer, terms)

            monkeypatch.setattr(fireworks._engine, "run", note)
            await fireworks.image_to_image("a cat", Slow(PNG_BYTES), image_strength=0.4)
            await fireworks.kontext("a cat", input_image=Slow(PNG_BYTES), poll=POLL)
    assert len(spent) == 3
    assert min(spent[:2]) > 0.04


@on_both_loops
async def test_image_to_image_is_a_form(tmp_path: Path) -> None:
    """The picture is a file of the form, all else its fields, as the service's package sent it."""
    path = tmp_path / "start.png"
    path.write_bytes(PNG_BYTES)
    with RawServer([picture(), told({}, "500 Oh"), picture()]) as server:
        async with client(server) as fireworks:
            response = await fireworks.image_to_image(
                "a cat", path, image_strength=0.4, steps=20, crop_padding=False,
                seed=7, accept="image/jpeg", extra_body={"new_thing": [1], "words": "x"},
            )  # fmt: skip
            await fireworks.image_to_image(
                "a dog", JPEG_BYTES, init_image_mode="STEP_SCHEDULE", step_schedule_end=1.0
            )
            counts = fireworks.statistics()
    first, again = server.requests[0], server.requests[2]
    assert path_of(first) == f"{MODEL}/image_to_image"
    assert first.header("accept") == "image/jpeg"
    fields, files = form(first)
    assert fields == {
        "prompt": "a cat", "image_strength": "0.4", "steps": "20", "seed": "7", "samples": "1",
        "crop_padding": "false", "new_thing": "[1]", "words": "x",
    }  # fmt: skip
    assert files == {"init_image": ("start.png", PNG_BYTES)}
    assert b'name="prompt"\r\n\r\na cat' in first.body, "a plain field has no file's name or type"
    fields, files = form(again)
    assert (fields["init_image_mode"], fields["step_schedule_end"]) == ("STEP_SCHEDULE", "1.0")
    assert files["init_image"] == ("input-1.jpg", JPEG_BYTES)
    assert form(server.requests[1]) == (fields, files), "a retry sends the same, seed and all"
    assert (response.seed, response.content, response.output) == (7, PNG_BYTES, response.image)
    assert response.dollars == pytest.approx(0.0026)
    assert counts.dollars == pytest.approx(0.0026), "steps that nobody gave have no price"


@on_both_loops
async def test_edges_and_lines_and_codes() -> None:
    """An output of one request is the input of the next."""
    many = told(
        [{"base64": b64encode(PNG_BYTES).decode(), "finishReason": "SUCCESS", "seed": 3}] * 2
    )
    with RawServer([picture(), many, picture()]) as server:
        async with client(server) as fireworks:
            edges = await fireworks.canny_edge_detection(PNG_BYTES, min_val=50, max_val=150.5)
            drawn = await fireworks.control_net(
                "a cat",
                edges.image,
                control_net_name="canny",
                conditioning_scale=0.7,
                samples=2,
            )
            code = await fireworks.qr_code("https://example.com", width=512, extra_body={"a": None})
    canny, control, qr = server.requests
    assert path_of(canny) == f"{MODEL}/canny_edge_detection"
    assert form(canny)[0] == {"min_val": "50", "max_val": "150.5"}
    assert form(canny)[1]["image"][1] == PNG_BYTES
    assert path_of(control) == f"{MODEL}/control_net"
    assert control.header("accept") == "application/json"
    fields, files = form(control)
    assert (fields["control_net_name"], fields["conditioning_scale"]) == ("canny", "0.7")
    assert files["control_image"][1] == PNG_BYTES
    assert path_of(qr) == f"{MODEL}/qr_code"
    assert body_of(server, 2) == {"prompt": "https://example.com", "width": 512, "a": None}
    assert (len(drawn.outputs), drawn.config["control_net_name"]) == (2, "canny")
    assert (edges.dollars, code.dollars, code.config["width"]) == (None, None, 512)
    assert edges.config == {"model": SDXL, "min_val": 50, "max_val": 150.5}


@on_both_loops
async def test_what_an_input_picture_may_be(tmp_path: Path) -> None:
    """Another answer's picture, an open file, a Pillow image, a tuple: for Kontext too."""
    drawn = Pillow.new("RGB", (8, 8), "red")
    given: list[Any] = [
        Output(PNG_BYTES, "image/png"), io.BytesIO(PNG_BYTES), drawn, ("x.png", PNG_BYTES),
    ]  # fmt: skip
    with RawServer() as server:
        async with client(server) as fireworks:
            for each in given:
                server.replies += [
                    SUBMITTED,
                    state("Ready", b64encode(PNG_BYTES).decode()),
                    picture(),
                ]
                await fireworks.kontext("x", input_image=each, poll=POLL)
                await fireworks.image_to_image("x", each, image_strength=1)
        for number, each in enumerate(given):
            sent = body_of(server, number * 3)["input_image"]
            assert sent.startswith("data:image/png;base64,")
            assert form(server.requests[number * 3 + 2])[1]["init_image"][1].startswith(b"\x89PNG")
            if each is not drawn:
                assert sent == f"data:image/png;base64,{b64encode(PNG_BYTES).decode()}"


@on_both_loops
async def test_tags_and_further_fields() -> None:
    """What the caller calls a request comes back with its outcome, and to the hook; never sent."""
    told_of: list[tuple[Any, Any]] = []
    asked: list[Any] = [
        TextToImage("a", tag=("row", 1), extra_body={"new": {"x": 1}}),
        Generate("b", model=SDXL, tag="two", extra_body={"new": 2}),
        QRCode("c", tag=[3]),
        TextToImage("d"),
        Kontext("e", tag=5, poll=POLL, extra_body={"new": 3}),
    ]

    def answer(conversation: Conversation) -> None:
        where = path_of(conversation.server.requests[-1])
        reply = picture()
        if where.endswith("qr_code"):
            reply = told({"error": "no"}, "400 No")
        elif where.endswith("get_result"):
            reply = state("Ready", b64encode(PNG_BYTES).decode())
        elif "kontext" in where:
            reply = SUBMITTED
        reply(conversation)

    with RawServer() as server:
        server.replies = Always(answer)  # type: ignore[assignment]

        def hook(details: Any) -> None:
            told_of.append((details.index, details.tag))

        async with client(server, max_concurrency=1, hook=hook) as fireworks:
            async with fireworks.map(asked, ordered=True) as outcomes:
                seen = [(each.index, each.tag, each.error is None) async for each in outcomes]
    assert seen == [
        (0, ("row", 1), True), (1, "two", True), (2, [3], False), (3, None, True), (4, 5, True),
    ]  # fmt: skip
    assert {(0, "('row', 1)"), (1, "'two'")} <= {(index, repr(tag)) for index, tag in told_of}
    bodies = [body_of(server, index) for index in range(len(server.requests))]
    assert {str(each["new"]) for each in bodies if "new" in each} == {"{'x': 1}", "2", "3"}
    assert all("tag" not in each for each in bodies)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageToImage("", b"x", image_strength=1), "prompt must be a string"),
        (lambda: ImageToImage("x", 3, image_strength=1), "an input must be"),  # type: ignore[arg-type]
        (lambda: ImageToImage("x", b"x"), "image_strength is needed, from 0 to 1"),
        (lambda: ImageToImage("x", b"x", image_strength=1.1), "image_strength must be a number"),
        (lambda: ImageToImage("x", b"x", init_image_mode="Z"), "one of IMAGE_STRENGTH"),  # type: ignore[arg-type]
        (lambda: ImageToImage("x", b"x", init_image_mode="STEP_SCHEDULE"), "step_schedule_end"),
        (lambda: ImageToImage("x", b"x", image_strength=1, width=7), "width and height must be"),
        (lambda: ImageToImage("x", b"x", image_strength=1, steps=0), "steps must be an integer"),
        (lambda: ImageToImage("x", b"x", image_strength=1, cfg_scale=float("nan")), "cfg_scale"),
        (lambda: ImageToImage("x", b"x", image_strength=1, sampler="E"), "one of K_EULER"),
        (lambda: ImageToImage("x", b"x", image_strength=1, samples=0), "samples must be"),
        (lambda: ImageToImage("x", b"x", image_strength=1, lora_adapter_name="a"), "belong"),
        (lambda: ImageToImage("x", b"x", image_strength=1, crop_padding=1), "crop_padding"),  # type: ignore[arg-type]
        (lambda: ImageToImage("x", b"x", image_strength=1, step_schedule_start=2), "from 0.* to 1"),
        (lambda: ImageToImage("x", b"x", image_strength=1, raise_if_filtered=0), "raise_if"),  # type: ignore[arg-type]
        (lambda: ImageToImage("x", b"x", image_strength=1, samples=2, accept="image/png"), "alone"),
        (lambda: ControlNet("x", b"x", control_net_name=""), "must name a network"),
        (lambda: ControlNet("x", None, control_net_name="canny"), "an input must be"),  # type: ignore[arg-type]
        (lambda: ControlNet("x", b"x", control_net_name="c", conditioning_scale=-1), "conditio"),
        (lambda: CannyEdgeDetection(b"x", min_val=-1), "min_val must be a number"),
        (lambda: CannyEdgeDetection(b"x", model="a b"), "model must be a name"),
        (lambda: CannyEdgeDetection(b"x", deadline=0), "deadline must be"),
        (lambda: CannyEdgeDetection(b"x", accept="image/webp"), "accept must be"),
        (lambda: CannyEdgeDetection(object()), "an input must be"),  # type: ignore[arg-type]
        (lambda: QRCode(" "), "prompt must be a string"),
        (lambda: QRCode("x", width=0), "width must be an integer"),
        (lambda: QRCode("x", extra_body={"width": 3}), "extra_body has width, which this request"),
        (lambda: TextToImage("x", extra_body={"prompt": 3}), "extra_body has prompt"),
        (lambda: Generate("x", model=SDXL, extra_body=[1]), "must be a mapping"),  # type: ignore[arg-type]
        (lambda: Kontext("x", extra_body={1: 2}), "must be a mapping"),  # type: ignore[dict-item]
        (lambda: with_seed("x"), "a request must be a TextToImage"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_cannot_be_asked(make: Any, message: str) -> None:
    """Found when it is built, with what is allowed."""
    with pytest.raises(InvalidRequestError, match=message):
        make()


def test_requests_show_themselves_without_their_pictures() -> None:
    """Nor with a tag or what is beside the fields."""
    edit = ImageToImage("x", PNG_BYTES, image_strength=1, seed=4, tag=object())
    assert repr(edit) == f"ImageToImage('x', model={SDXL!r}, seed=4)"
    assert edit == ImageToImage("x", PNG_BYTES, image_strength=1, seed=4)
    control = ControlNet("x", PNG_BYTES, control_net_name="c")
    assert repr(control) == f"ControlNet('x', model={SDXL!r}, seed=None)"
    assert "PNG" not in repr(CannyEdgeDetection(PNG_BYTES))
    assert with_seed(QRCode("x")) == QRCode("x")
    assert isinstance(with_seed(control), ControlNet)
    assert with_seed(control) != control


@on_both_loops
async def test_a_response_says_what_one_types_first(tmp_path: Path) -> None:
    """Content, seed, dollars, config, and a file in one call."""
    with RawServer([picture(), SUBMITTED, state("Ready", b64encode(PNG_BYTES).decode())]) as server:
        async with client(server) as fireworks:
            response = await fireworks.run("a cat")
            saved = await response.save(tmp_path / "new" / "cat.png")
            made = await fireworks.run(Kontext("x", poll=POLL, webhook_secret="s3cret"))
    assert saved.read_bytes() == response.content == PNG_BYTES
    assert response.dollars == 0.0014
    assert response.config == {
        "prompt": "a cat", "model": "flux-1-schnell-fp8", "seed": response.request.seed,  # type: ignore[union-attr]
    }  # fmt: skip
    assert not response.cached
    assert (made.dollars, made.config["prompt"]) == (None, "x")
    assert "s3cret" not in str(made.config)


# ------------------------------------------------------------------ kept answers, and many


@on_both_loops
async def test_what_was_asked_before_is_not_paid_again(tmp_path: Path) -> None:
    """With a seed of the caller's own: the same bytes, nothing sent, nothing charged."""
    path = tmp_path / "in.png"
    path.write_bytes(PNG_BYTES)
    several = told([{"base64": b64encode(PNG_BYTES).decode(), "finishReason": "SUCCESS", "seed": n}
                    for n in (5, 6)], charge=True)  # fmt: skip
    ready = state("Ready", b64encode(PNG_BYTES).decode())
    asked: list[Any] = [
        TextToImage("a", seed=7), Generate("b", model=SDXL, seed=5, samples=2),
        ImageToImage("c", path, image_strength=1, seed=1), QRCode("d"), CannyEdgeDetection(path),
        Kontext("e", seed=3, input_image=path, poll=POLL),
        Kontext("e", seed=3, input_image="https://example.com/x.png", poll=POLL),
        Kontext("e", seed=3, poll=POLL),
    ]  # fmt: skip
    with RawServer([picture(), several, picture(), picture(), picture()]) as server:
        server.replies += [SUBMITTED, ready] * 3
        async with client(server, cache=tmp_path / "kept") as fireworks:
            first = [await fireworks.run(each) for each in asked]
            sent = len(server.requests)
            again = [await fireworks.run(each) for each in asked]
            assert fireworks.statistics().completed == len(asked)
        assert (len(server.requests), server.charges) == (sent, len(asked))
        for before, after in zip(first, again, strict=True):
            assert (before.cached, after.cached, after.dollars) == (False, True, None)
            assert [each.content for each in after.images] == [
                each.content for each in before.images
            ]
            assert [each.seed for each in after.images] == [each.seed for each in before.images]
            assert after.images[0].id == before.images[0].id
            assert after.request == before.request
            assert after.request_id == before.request_id


@on_both_loops
async def test_what_is_not_kept(tmp_path: Path) -> None:
    """No seed of the caller's own, another view, a filtered picture, a missing file."""
    filtered = picture("Seed: 7", "Finish-Reason: CONTENT_FILTERED")
    lax = TextToImage("b", seed=7, raise_if_filtered=False)
    with RawServer([picture()] * 4 + [filtered] * 2) as server:
        async with client(server, cache=tmp_path / "kept") as fireworks:
            for order in (TextToImage("a"), TextToImage("a"), TextToImage("a", seed=1)):
                assert not (await fireworks.run(order)).cached
            view = fireworks.with_options(cache=None)
            assert not (await view.run(TextToImage("a", seed=1))).cached
            for _ in range(2):
                assert not (await fireworks.run(lax)).cached
            with pytest.raises(InvalidRequestError, match="cannot read the input"):
                await fireworks.run(ImageToImage("x", "no.png", image_strength=1, seed=1))
            with pytest.raises(InvalidRequestError, match="a request must be"):
                await fireworks.run(7)  # type: ignore[arg-type]
            with pytest.raises(InvalidRequestError, match="cache must be a folder"):
                fireworks.with_options(cache=7)  # type: ignore[arg-type]
        assert len(server.requests) == 6


@on_both_loops
async def test_many_have_the_options_of_many(capsys: pytest.CaptureFixture[str]) -> None:
    """A format where a request does not say, progress told, and what came before the end kept."""
    seen: list[Any] = []
    asked: list[Any] = ["a", TextToImage("b", accept="image/jpeg"), Kontext("c", poll=POLL), 7]
    with RawServer() as server:

        def answer(conversation: Conversation) -> None:
            where = path_of(conversation.server.requests[-1])
            ready = state("Ready", b64encode(PNG_BYTES).decode())
            reply = (
                ready if "get_result" in where else SUBMITTED if "kontext" in where else picture()
            )
            reply(conversation)

        server.replies = Always(answer)  # type: ignore[assignment]
        async with client(server) as fireworks:
            async with fireworks.map(
                asked, accept="application/json", progress=seen.append
            ) as many:
                outcomes = [each async for each in many]
            async with fireworks.map(["x"], progress=True) as many:
                async for _ in many:
                    many.stop()
            with pytest.raises(InvalidRequestError, match="progress"):
                fireworks.map([], progress=1)  # type: ignore[arg-type]
            with pytest.raises(InvalidRequestError, match="accept must be"):
                fireworks.map([], accept="image/webp")
            assert await fireworks.drain() == ()
        accepted = [each.header("accept") for each in server.requests if "text_to" in each.head]
    assert sorted(accepted) == ["application/json", "image/jpeg", "image/png"]  # type: ignore[type-var]
    assert sum(each.error is not None for each in outcomes) == 1
    assert (seen[-1].total, seen[-1].done, seen[-1].failed) == (4, 4, 1)
    assert seen[-1].dollars == pytest.approx(0.0028)
    assert "1/1" in capsys.readouterr().err


@on_both_loops
async def test_defaults_of_the_client(tmp_path: Path) -> None:
    """A format and headers hold where a request does not say; what it says wins."""
    ready = state("Ready", b64encode(PNG_BYTES).decode())
    several = told([{"base64": b64encode(PNG_BYTES).decode(), "finishReason": "SUCCESS", "seed": n}
                    for n in (5, 6)])  # fmt: skip
    jpeg = say(http("200 OK", JPEG_BYTES, "Seed: 7", content_type="image/jpeg"))
    with RawServer([jpeg, picture(), several, jpeg, jpeg, SUBMITTED, ready, picture()]) as server:
        async with client(
            server, accept=JPEG(quality=80), extra_headers={"X-Team": "blue"}, max_concurrency=1,
            cache=tmp_path / "kept",
        ) as fireworks:  # fmt: skip
            await fireworks.run("a")
            await fireworks.text_to_image("b", accept="image/png")
            await fireworks.generate("c", model=SDXL, samples=2)
            async with fireworks.map([QRCode("d"), TextToImage("e", seed=1)]) as outcomes:
                assert [each.error async for each in outcomes] == [None, None]
            await fireworks.run(Kontext("f", poll=POLL))
            view = fireworks.with_options(accept=None, extra_headers=None)
            assert not (await view.run(TextToImage("e", seed=1))).cached, "it asks for a PNG"
            assert (await fireworks.run(TextToImage("e", seed=1))).cached
    sent = server.requests
    assert [each.header("accept") for each in sent] == [
        "image/jpeg", "image/png", "application/json", "image/jpeg", "image/jpeg",
        "application/json", "application/json", "image/png",
    ]  # fmt: skip
    assert [each.header("jpeg-quality") for each in sent] == [
        "80", None, None, "80", "80", None, None, None,
    ]  # fmt: skip
    assert [each.header("x-team") for each in sent] == ["blue"] * 7 + [None]


@on_both_loops
async def test_the_clients_headers_stay_with_the_service() -> None:
    """A picture at another host is fetched without them, at its own with them."""
    with RawServer() as server, RawServer([picture()]) as host:
        for sample in (f"{host.url}/x.png", f"{server.url}/x.png"):
            server.replies += [SUBMITTED, state("Ready", sample)]
            if sample.startswith(server.url):
                server.replies.append(picture())
            async with client(server, extra_headers={"X-Team": "blue"}) as fireworks:
                await fireworks.run(Kontext("x", poll=POLL))
    assert [each.header("x-team") for each in host.requests] == [None]
    assert [each.header("x-team") for each in server.requests] == ["blue"] * 5


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"accept": "image/webp"}, "accept must be"),
        ({"accept": 7}, "accept must be"),
        ({"extra_headers": {"Authorization": "x"}}, "cannot be set by extra_headers"),
        ({"extra_headers": {"x": "a\nb"}}, "plain ASCII"),
        ({"extra_headers": [1]}, "extra_headers must be a mapping"),
    ],
)
def test_defaults_are_checked(options: dict[str, Any], why: str) -> None:
    """When the client is built, or the view of it."""
    with pytest.raises(InvalidRequestError, match=why):
        AsyncFireworks("key", **options)
    with pytest.raises(InvalidRequestError, match=why):
        AsyncFireworks("key").with_options(**options)


@on_both_loops
async def test_the_hook_is_told_of_a_task_as_of_one_job() -> None:
    """Queued, then finished, with its tag, whatever requests it takes in between."""
    events: list[Any] = []

    def hook(details: Any) -> None:
        if isinstance(details, JobDetails):
            events.append(
                (details.event, details.tag, details.number, type(details.error).__name__)
            )

    ready = state("Ready", b64encode(PNG_BYTES).decode())
    with RawServer([SUBMITTED, ready, ready, told({"error": "no"}, "400 No")]) as server:
        async with client(server, hook=hook) as fireworks:
            await fireworks.run(Kontext("x", poll=POLL, tag="mine"))
            await fireworks.kontext_result("task-1", poll=POLL)
            with pytest.raises(BadRequestError):
                await fireworks.run(Kontext("x", poll=POLL))
    assert events == [
        ("queued", "mine", 0, "NoneType"), ("finished", "mine", 1, "NoneType"),
        ("queued", None, 0, "NoneType"), ("finished", None, 0, "NoneType"),
        ("queued", None, 0, "NoneType"), ("finished", None, 1, "BadRequestError"),
    ]  # fmt: skip


@on_both_loops
async def test_a_cancelled_task_is_counted_as_that() -> None:
    """Neither completed nor failed."""
    pending = state("Pending")
    with RawServer([SUBMITTED, *[pending] * 99]) as server:
        async with client(server) as fireworks:
            with anyio.move_on_after(0.2):
                await fireworks.kontext("x", poll=0.01)
            counts = fireworks.statistics()
    assert (counts.completed, counts.failed, counts.cancelled) == (0, 0, 1)


# ------------------------------------------------------------------ webhooks

BODY = b'{"id": "task-1", "status": "Ready"}'
SECRET = "a-secret"
DIGEST = hmac.new(SECRET.encode(), BODY, hashlib.sha256)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Webhook-Signature": DIGEST.hexdigest()},
        {"x-fireworks-signature": f"sha256={DIGEST.hexdigest()}"},
        {"Signature": DIGEST.hexdigest().upper()},
        [("X-Signature", b64encode(DIGEST.digest()).decode())],
        [("x-signature", f"sha256={'0' * 64}, sha256={DIGEST.hexdigest()}")],
        [("x-old-signature", "0"), ("x-signature", DIGEST.hexdigest())],
        [(b"x-old-signature", b"\xff"), (b"X-Signature", DIGEST.hexdigest().encode())],
        {"x-signature": f"\udcff, {DIGEST.hexdigest()}"},
    ],
)
def test_a_signed_webhook_is_known(headers: Any) -> None:
    """In hexadecimal or base64, with a prefix or without, in whatever header says signature."""
    assert verify_webhook(BODY, headers, SECRET)
    assert not verify_webhook(BODY + b" ", headers, SECRET)
    assert not verify_webhook(BODY, headers, SECRET + "x")


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Signature": ""}, {"X-Signature": "sha256="}, {"Signature-Input": DIGEST.hexdigest()},
     {"X-Signature": "\u00e9\u2028"}, {"X-Signature": "\udcff"}, [(b"x-signature", b"\xff")],
     {"\udcff": "a"}, {"X-Signature": DIGEST.hexdigest()[:-1]}],
)  # fmt: skip
def test_an_unsigned_webhook_is_not(headers: Any) -> None:
    """Nothing is a signature but one."""
    assert verify_webhook(BODY, headers, SECRET) is False


def test_a_webhook_that_cannot_be_checked() -> None:
    """A missing secret would let everything pass, and is a mistake that is not shown."""
    for secret in ("", None, b"x"):
        with pytest.raises(InvalidRequestError, match="secret must be"):
            verify_webhook(BODY, {}, secret)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="bytes as they came, not dict"):
        verify_webhook({}, {}, SECRET)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="strings or bytes, not int"):
        verify_webhook(BODY, {"X-Signature": 5}, SECRET)  # type: ignore[arg-type]


def test_the_door_has_them_all() -> None:
    """What is asked, what comes, and nothing of how."""
    assert re.match(r"prodia_async\.fireworks$", verify_webhook.__module__)
    assert AsyncFireworks.control_net.__doc__
