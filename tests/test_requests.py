"""A job as a request: what goes out, and every mistake found before that."""

import json
import math
import os
import types
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import on_both_loops

from prodia_async._catalogue import input_limit, names
from prodia_async._errors import InvalidRequestError
from prodia_async._formats import JPEG
from prodia_async._models import Input, Job, JobRequest
from prodia_async._requests import encode_job, encode_json, input_parts
from prodia_async._uploads import BytesBody, FormBody
from prodia_async._wire import WireRequest

JPEG_BYTES = b"\xff\xd8\xff\xe0" + bytes(20)
PNG_BYTES = b"\x89PNG\r\n\x1a\n" + bytes(20)


async def encode(job: Any = None, *inputs: Any, price: bool = False, **more: Any) -> WireRequest:
    return await encode_job(JobRequest(job or Job("t"), inputs, **more), price=price)


async def body_of(request: WireRequest) -> bytes:
    assert request.body is not None
    return b"".join([bytes(chunk) async for chunk in request.body])


async def refused(job: Any = None, *inputs: Any, **more: Any) -> str:
    """The message of the error that this raises: short, and on one line."""
    with pytest.raises(InvalidRequestError) as caught:
        await encode(job, *inputs, **more)
    message = str(caught.value)
    assert len(message) < 700
    assert message.encode()
    assert message.isprintable()
    return message


@on_both_loops
async def test_a_job_without_inputs_is_json() -> None:
    """The configuration itself, UTF-8, without blanks; the type is what capacity is counted by."""
    request = await encode(Job("t", {"prompt": "caf\xe9", "seed": 0}))
    assert isinstance(request.body, BytesBody)
    assert request.body.content_type == "application/json"
    assert await body_of(request) == '{"type":"t","config":{"prompt":"caf\xe9","seed":0}}'.encode()
    assert (request.method, request.path, request.kind) == ("POST", "/v2/job", "t")
    assert request.query == ()
    assert request.headers == (("accept", "multipart/form-data"),)


@on_both_loops
async def test_a_mapping_goes_out_as_it_is() -> None:
    """Workflows, unknown fields and mappings that are no dict pass."""
    job = types.MappingProxyType({"type": "workflow.serial.v1", "jobs": [{"type": "a"}]})
    assert json.loads(await body_of(await encode(job))) == dict(job)


@on_both_loops
async def test_a_job_with_inputs_is_a_form() -> None:
    """The job part first, named job.json, then the inputs in order."""
    request = await encode(Job("t"), JPEG_BYTES, Input(b"x", "b.bin"))
    assert isinstance(request.body, FormBody)
    content = await body_of(request)
    assert content.index(b'name="job"; filename="job.json"') < content.index(b"input-1.jpg")
    assert content.index(b"input-1.jpg") < content.index(b"b.bin")
    assert b"Content-Type: application/json\r\n\r\n" in content


@on_both_loops
async def test_names_types_and_sizes(tmp_path: Path) -> None:
    """Given, else by the bytes, else by the extension; names likewise."""
    (tmp_path / "photo.png").write_bytes(JPEG_BYTES)
    (tmp_path / "text.txt").write_bytes(b"abc")
    (tmp_path / "noext").write_bytes(b"abc")

    async def factory() -> AsyncIterator[bytes]:
        yield b"abc"

    inputs = [
        Input(PNG_BYTES),
        Input(b"abc", "a.mp4"),
        Input(PNG_BYTES, "c", "a/b; c=d"),
        Input(tmp_path / "photo.png"),
        Input(tmp_path / "text.txt", "other", size=3),
        Input(tmp_path / "noext"),
        Input(factory, size=3),
        Input(factory, content_type="video/mp4", size=3),
        Input(b""),
    ]
    assert [
        (part.filename, part.content_type, part.size) for part in await input_parts(inputs)
    ] == [
        ("input-1.png", "image/png", 28),
        ("a.mp4", "video/mp4", 3),
        ("c", "a/b; c=d", 28),
        ("photo.png", "image/jpeg", 24),
        ("other", "application/octet-stream", 3),
        ("noext", "application/octet-stream", 3),
        ("input-7", "application/octet-stream", 3),
        ("input-8.mp4", "video/mp4", 3),
        ("input-9", "application/octet-stream", 0),
    ]


@on_both_loops
async def test_what_may_stand_for_inputs(tmp_path: Path) -> None:
    """Bytes, buffers, paths and texts, in a list or from a generator."""
    path = tmp_path / "a.png"
    path.write_bytes(PNG_BYTES)

    def several() -> Iterator[Any]:
        yield str(path)
        yield bytearray(b"x")

    request = JobRequest(Job("t"), several())  # type: ignore[arg-type]  # forgiven
    for _ in range(2):
        content = await body_of(await encode_job(request))
        assert b'filename="a.png"' in content
        assert b'filename="input-2"' in content


@on_both_loops
async def test_accept_query_and_headers() -> None:
    """Each option is where it belongs; a request's own price wins over the client's."""
    request = await encode(
        accept=JPEG(quality=5),
        multipart=False,
        price=True,
        extra_query={"a": "1 \xe9\r\n&"},
        extra_headers={"X-Trace": " abc\t"},
    )
    assert request.query == (("price", "true"), ("a", "1 \xe9\r\n&"))
    assert request.headers == (("accept", "image/jpeg;quality=5"), ("x-trace", "abc"))
    quiet = JobRequest(Job("t"), price=False)
    assert (await encode_job(quiet, price=True)).query == ()
    assert (await encode_job(JobRequest(Job("t"), price=True))).query == (("price", "true"),)


class Odd:
    def __repr__(self) -> str:
        return "odd\nthing"


def cycle() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["again"] = [inner]
    return inner


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "job.config.x = nan"),
        ([1, math.inf], "job.config.x[1] = inf"),
        ({"y": (1, b"secret")}, "job.config.x.y[1] = <6 bytes>"),
        (datetime(2026, 1, 1, tzinfo=UTC), "job.config.x = datetime.datetime(2026"),
        ({1, 2}, "job.config.x = {1, 2}"),
        (Path("a"), "job.config.x = PosixPath('a')" if os.name == "posix" else "Path"),
        (Odd(), "job.config.x = odd thing"),
        ("a\ud800", "job.config.x = 'a\\ud800'"),
        ({"\ud800": 1}, "job.config.x: a key must be a string, not '\\ud800'"),
        ({(1, 2): 1}, "a key must be a string, not (1, 2)"),
        ({b"k": 1}, "a key must be a string, not <1 bytes>"),
        ({math.nan: 1}, "a key must be a string, not nan"),
        (types.MappingProxyType({"y": [Odd()]}), "job.config.x.y[0] = odd thing"),
        (10**5000, "job.config.x = <int of 16610 bits>"),
        (cycle(), "nested too deeply, or contains itself"),
        (deep(100_000), "nested too deeply, or contains itself"),
        ("x" * 10**6 + "\ud800", "job.config.x = 'xxx"),
        ({"k" * 10**5: math.nan}, "k... = nan"),
    ],
    ids=lambda value: type(value).__name__,
)
@on_both_loops
async def test_what_json_cannot_carry(value: Any, message: str) -> None:
    """It is named by its place, not guessed at, and costs nothing."""
    text = await refused(Job("t", {"ok": [1], "x": value}))
    assert "JSON cannot carry" in text
    assert message in text
    assert "secret" not in text


def test_what_nobody_can_name() -> None:
    """A value that only fails once is reported with the reason."""

    class Fickle(dict[str, Any]):
        looks = 0

        def items(self) -> Any:
            self.looks += 1
            return [("a", math.nan if self.looks == 1 else 1)]

    with pytest.raises(InvalidRequestError, match=r"JSON cannot carry the job \(.*float"):
        encode_json([Fickle(a=1)])


def test_json_is_strict_and_plain() -> None:
    """What JSON has a form for goes out, tuples and other mappings too."""
    value = {
        "a": (1, 2.5, None, True),
        "b": types.MappingProxyType({"c": "\U0001f353"}),
        "d": deep(80),
    }
    assert json.loads(encode_json(value)) == {
        "a": [1, 2.5, None, True],
        "b": {"c": "\U0001f353"},
        "d": deep(80),
    }


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("a.png", "not one str; write inputs=[...]"),
        (b"x", "not one bytes"),
        (Path("a"), "not one P"),
        (Input(b"x"), "not one Input"),
        (None, "must be a list of inputs, not NoneType"),
        (5, "not int"),
        ({"a.png": b"x"}, "must be a list of inputs, not dict"),
        ({b"x", b"y"}, "not set"),
        ([5], "an input must be bytes, a path, an Output"),
        ([None], "not NoneType"),
        ([["a.png"]], "not list"),
        ([b"x", Input(b"y", "input-1")], "two inputs are named 'input-1'"),
        ([Input(b"x", "a"), Input(b"y", "a")], "two inputs are named 'a'"),
        (["/no/such/file.png"], "cannot read the input '/no/such/file.png'"),
        (["/"], "it is a folder"),
        (["a\x00b"], "cannot hold a NUL"),
        ([Input(b"x", content_type="a/b\r\nX-Evil: 1")], "content_type must be plain ASCII"),
        ([Input(b"x", content_type="a/\xe9")], "content_type must be plain ASCII"),
    ],
)
@on_both_loops
async def test_bad_inputs(inputs: Any, message: str) -> None:
    """Each is named with what would do."""
    with pytest.raises(InvalidRequestError) as caught:
        await encode_job(JobRequest(Job("t"), inputs))
    assert message in str(caught.value)


async def test_a_wrong_size(tmp_path: Path) -> None:
    """A path whose size was promised must keep the promise."""
    (tmp_path / "a").write_bytes(b"abc")
    assert "has 3 bytes and was said to have 4" in await refused(
        None, Input(tmp_path / "a", size=4)
    )


@pytest.mark.parametrize(
    "name",
    [
        'a"b', "a/b", "a\\b", "../x", "C:\\x", "a\rb", "a\nb", "a\r\nX: 1", "\x00",
        "a\x7f", "a\ud800", ".", "..", " ", "x" * 10**6 + '"',
    ],
    ids=ascii,
)  # fmt: skip
@on_both_loops
async def test_filenames_that_do_not_arrive(name: str) -> None:
    """Quotes, folders, controls, broken Unicode, dots alone: refused, and said shortly."""
    assert "an input's filename must be" in await refused(None, Input(b"x", name))


@pytest.mark.parametrize(
    "name", ["a b", "caf\xe9", "100%.png", "a;b'c", "\U0001f353", ".a", "\u202ea"]
)
@on_both_loops
async def test_filenames_that_arrive(name: str) -> None:
    """Anything else goes out as it is, and the config may name it."""
    request = await encode(Job("t", {"image": name}), Input(b"x", name))
    assert f'filename="{name}"'.encode() in await body_of(request)


@pytest.mark.parametrize(
    ("config", "ok"),
    [
        ({"images": ["a.png", "b.png"]}, True),
        ({"images": ("a.png", "a.png")}, True),
        ({"images": []}, True),
        ({"image": None}, True),
        ({"image": 5, "images": [None, 5]}, True),
        ({"images": "a.png"}, True),
        ({"image": "https://x/y.png"}, True),
        ({"image": "data:image/png;base64,xx"}, True),
        ({"prompt": "c.png", "style": "c.png"}, True),
        ({"images": ["a.png", "c.png"]}, False),
        ({"image": "A.PNG"}, False),
        ({"image": ""}, False),
        ({"first_frame": "c.png"}, False),
        ({"last_frame": "c.png"}, False),
        ({"mask": "c.png"}, False),
        ({"audio": "c.wav"}, False),
        ({"video": "c.mp4"}, False),
        ({"references": ["c.png"]}, False),
    ],
)
@on_both_loops
async def test_names_in_the_config(config: dict[str, Any], ok: bool) -> None:
    """Every file that the config names must be there; addresses and other fields pass."""
    inputs = [Input(b"x", "a.png"), Input(b"y", "b.png")]
    if ok:
        await encode(Job("t", config), *inputs)
    else:
        message = await refused(Job("t", config), *inputs)
        assert f"config.{next(iter(config))} names " in message
        assert "['a.png', 'b.png']" in message


@on_both_loops
async def test_names_without_any_input() -> None:
    """It says that there are none, and cuts a name of a megabyte."""
    message = await refused(Job("t", {"image": "x" * 10**6}))
    assert "which no input bears; inputs: there are none" in message
    assert "config must be a mapping, not 'image'" in await refused(
        {"type": "t", "config": "image"}
    )
    await encode_job(JobRequest({"type": "t", "config": "image"}), validate="off")
    await encode_job(JobRequest({"type": "t", "config": {"mask": "auto"}}), validate="off")


@on_both_loops
async def test_a_price_without_the_result_that_it_is_in() -> None:
    """It is refused where it was asked for; after a submission the result is asked for anyway."""
    with pytest.raises(InvalidRequestError, match="price=True needs the job result"):
        await encode_job(JobRequest(Job("t"), multipart=False, price=True))
    for wrong in ({"price": "yes"}, {"multipart": 1}):
        with pytest.raises(InvalidRequestError, match="must be True or False, not"):
            await encode_job(JobRequest(Job("t"), **wrong))
    submitted = await encode_job(JobRequest(Job("t"), multipart=False, price=True), submit=True)
    assert submitted.query == (("price", "true"),)


@on_both_loops
async def test_too_many_inputs() -> None:
    """The documented limits of known types, both sides of the edge; unknown types have none."""
    limits = {name: most for name in names() if (most := input_limit(name)) is not None}
    assert limits["inference.flux-2.flex.img2img.v1"] == 10
    assert len(limits) >= 20
    for kind, most in limits.items():
        inputs = [b"x"] * (most + 1)
        await encode(Job(kind), *inputs[1:])
        await encode(Job("unknown"), *inputs)
        assert f"{kind} takes at most {most} inputs, not {most + 1}" in await refused(
            Job(kind), *inputs
        )


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"a b": "x"}, "is no header name"),
        ({"": "x"}, "is no header name"),
        ({"x\r\ny": "x"}, "is no header name"),
        ({"\xe9": "x"}, "is no header name"),
        ({5: "x"}, "5 in extra_headers is no header name"),
        ({"x" * 10**6 + " ": "x"}, "is no header name"),
        ({"x": "secret\r\nX-Evil: 1"}, "the value of 'x'"),
        ({"x": "secret\x00"}, "must be plain ASCII"),
        ({"x": "secret\xe9"}, "must be plain ASCII"),
        ({"x": b"secret"}, "must be plain ASCII"),
        ({"x": None}, "must be plain ASCII"),
        ({"Authorization": "secret"}, "cannot be set by extra_headers"),
        ({"ACCEPT": "secret"}, "cannot be set"),
        ({"content-Length": "5"}, "cannot be set"),
        ({"Transfer-Encoding": "chunked"}, "cannot be set"),
        ({"Content-Encoding": "gzip"}, "cannot be set"),
        ({"Host": "secret"}, "cannot be set"),
        ([("x", "secret")], "extra_headers must be a mapping, not list"),
        ("x: secret", "extra_headers must be a mapping, not str"),
    ],
)
@on_both_loops
async def test_bad_headers(headers: Any, message: str) -> None:
    """Nothing can be smuggled in, nothing of ours overridden, and no value is shown."""
    text = await refused(extra_headers=headers)
    assert message in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"x": 5}, "not 'x' to int"),
        ({5: "x"}, "not 5 to str"),
        ({"x": b"secret"}, "not 'x' to bytes"),
        ({"x": "secret\ud800"}, "broken Unicode"),
        ({"\ud800": "x"}, "broken Unicode"),
        ([("x", "secret")], "extra_query must be a mapping, not list"),
    ],
)
@on_both_loops
async def test_bad_query(query: Any, message: str) -> None:
    """Texts to texts that can be encoded; no value is shown."""
    text = await refused(extra_query=query)
    assert message in text
    assert "secret" not in text


@pytest.mark.parametrize(
    "make",
    [
        lambda: encode(accept="image/png\r\nX-Evil: 1"),
        lambda: encode("inference.x"),
        lambda: encode({"config": {}}),
        lambda: encode({"type": 5}),
    ],
)
@on_both_loops
async def test_other_mistakes(make: Callable[[], Any]) -> None:
    """What other rooms check is checked here too."""
    with pytest.raises(InvalidRequestError):
        await make()
