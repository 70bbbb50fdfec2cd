"""A credential goes out of whatever is said back, and nothing else does."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from conftest import on_both_loops
from hypothesis import given
from hypothesis import strategies as st
from raw_server import BOUNDARY, JOB_PART, OUTPUT_PART, RawServer, http, multipart, part, say

from prodia_async import AsyncProdia, OutputPart, ProdiaError, RetryPolicy
from prodia_async._secret import (
    MIN_SECRET,
    REDACTED,
    Secret,
    blotted,
    blotted_data,
    blotted_name,
    blotted_words,
)
from prodia_async.fireworks import AsyncFireworks, Kontext, TextToImage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from _pytest.logging import LogCaptureFixture

LONG = "eyJhbGciOiJkaXIi..a-token-of-many-letters.x.y"
SHORT = ("a", "to", "the", "lost", "1234567", "-", "5")
PING = {"type": "inference.ping.v1"}
ONCE = RetryPolicy(max_attempts=1)


def test_a_secret_shows_itself_nowhere() -> None:
    """It is a string for who sends it, and a mark for who looks at it."""
    secret = Secret(LONG)
    assert (repr(secret), repr([secret])) == (REDACTED, f"[{REDACTED}]")
    assert f"Bearer {secret}" == f"Bearer {LONG}"


@pytest.mark.parametrize(
    ("secret", "text", "left"),
    [
        # A long one wherever it stands, whole or cut off.
        ("12345678", "x12345678y 1234567 12345678", f"x{REDACTED}y 1234567 {REDACTED}"),
        ("123456789", "no 12345678", f"no {REDACTED}"),
        ("123456789", "no 12345678x", f"no {REDACTED}x"),
        ("123456789", "123456781234567812345678", REDACTED * 3),
        ('1234"6789\\x', r'{"a":"1234\"6789\\x"}', f'{{"a":"{REDACTED}"}}'),
        ('12345678"x', r"12345678\"x 12345678", f"{REDACTED} {REDACTED}"),
        ('12345678"x', '12345678"x', REDACTED),
        # A short one where it is a word.
        ("a", "a bad token: 'a' <a> \u201ca\u201d a.", "T bad token: 'T' <T> \u201cT\u201d T."),
        ("a", "a_ aa a1 1a \u00e1a a\u00e9", "T_ aa a1 1a \u00e1a a\u00e9".replace("T_", "a_")),
        ("t", "don't", "don't"),
        ("t", "don\u2019t", "don\u2019t"),
        ("5", "1.5 s, 5.25 s, 5 s, 5.", "1.5 s, 5.25 s, T s, T."),
        ("a", "a.png, x.a, a.", "a.png, x.a, T."),
        ("-", "x-request-id - -", "x-request-id T T"),
        ("1234567", "Bearer 1234567, 12345678", "Bearer T, 12345678"),
        (".*", "any .* of .x", "any T of .x"),
        # None at all.
        ("", "a text", "a text"),
        ("", "", ""),
    ],
)
def test_what_goes_out_of_a_message(secret: str, text: str, left: str) -> None:
    """All of a credential of eight letters and more; of a shorter one what stands as a word."""
    left = left.replace("T", REDACTED) if len(secret) < MIN_SECRET else left
    assert blotted(text, secret) == left
    assert blotted_words(text.encode(), secret) == left.encode()


@pytest.mark.parametrize(
    ("secret", "text", "left"),
    [
        ("12345678", b'{"p":"12345678"}', b'{"p":"T"}'),
        ("cat", b'{"prompt":"a cat","cat":1}', b'{"prompt":"a cat","cat":1}'),
        ("cat", b"Bearer cat, bEARER  cat; Bearer cats", b"Bearer T, bEARER  T; Bearer cats"),
        ("", b"Bearer cat", b"Bearer cat"),
        ("12345678", b"\xff\xc3\xa912345678\xfe", b"\xff\xc3\xa9T\xfe"),
    ],
)  # fmt: skip
def test_what_goes_out_of_data(secret: str, text: bytes, left: bytes) -> None:
    """A short one is a word of the user's own there, unless it is called a token."""
    left = left.replace(b"T", REDACTED.encode())
    assert blotted_data(text, secret) == left
    assert blotted_data(bytearray(text), secret) == left


def test_bytes_without_a_secret_are_not_copied() -> None:
    """A job result is looked at often, and hardly ever has one in it."""
    body = b"x" * 100
    assert blotted_data(body, LONG) is body
    assert blotted_words(body, "a") is body


@given(st.text(), st.text(alphabet="abc", min_size=8, max_size=12), st.text(), st.integers(8, 12))
def test_no_long_secret_is_left(before: str, secret: str, after: str, cut: int) -> None:
    """Whatever is around it, and however much of it is there."""
    text = blotted(before + secret[:cut] + after, secret)
    assert secret[:MIN_SECRET] not in text


# ------------------------------------------------------------------ on every path


def echoes(token: str) -> dict[str, bytes]:
    """Answers in which a server says the token back, each in a place of its own."""
    said = f"no Bearer {token} here; the token is {token}"
    in_json = json.dumps({"error": said, "state": {"current": "failed"}, "id": "j"}).encode()
    failed = json.dumps({"id": "j", "state": {"current": "failed"}, "error": said,
                         "config": {"seen": f"Bearer {token}"}}).encode()  # fmt: skip
    cut = f"{'x' * 60} {token}".encode()  # what is quoted of it ends in the midst of it
    header = f"X-Echo: {token}"
    return {
        "a refusal": http("401 Unauthorized", said.encode(), header, content_type="text/plain"),
        "a refusal in JSON": http("400 Bad", in_json, header, content_type="application/json"),
        "a fault": http("503 Busy", said.encode(), header, content_type="text/html"),
        "a fault with a job": http("500 Oh", multipart(part("job", None, None, failed)), header),
        "a failed job": http(
            "200 OK", multipart(part("job", None, "application/json", failed), OUTPUT_PART), header
        ),
        "a failed job in JSON": http("200 OK", failed, header, content_type="application/json"),
        "no JSON": http("200 OK", multipart(part("job", None, None, cut)), header),
        "a page": http("200 OK", cut, header, content_type="text/html"),
        "no HTTP": f"ECHO {token}\r\n\r\n".encode(),
    }


def leaks(error: BaseException | None, token: str, logged: list[str]) -> list[str]:
    """Return the texts around an error in which a token stands, as `Bearer` or as a whole word."""
    texts = list(logged)
    each = error
    while each is not None:
        texts += [str(each), repr(each), repr(vars(each)), *map(repr, each.args)]
        texts += traceback.format_exception(each)
        if isinstance(each, ProdiaError):
            each.outputs = ()  # an output's bytes are handed over as they came
            texts += [str(each.reason), str(getattr(each, "headers", "")), repr(each.job)]
            texts += [repr(each.job.model_dump())] if each.job else []
            texts.append(pickle.dumps(each).decode("latin-1"))
        each = each.__cause__ or each.__context__
    known = token[:MIN_SECRET] if len(token) >= MIN_SECRET else f"Bearer {token}"
    return [text for text in texts if known in text or f"token is {token}" in text]


async def fate_of(work: Awaitable[object]) -> ProdiaError | None:
    try:
        await work
    except ProdiaError as error:
        return error
    return None


async def watch(client: AsyncProdia) -> None:
    """Read a stream to its end."""
    async with client.stream(PING) as stream:
        await (await stream.output()).read()


PATHS: dict[str, Callable[[AsyncProdia], Awaitable[object]]] = {
    "job": lambda client: client.job(PING),
    "stream": watch,
    "submit": lambda client: client.submit(PING),
    "state": lambda client: client.async_job("j-1").state(),
    "result": lambda client: client.async_job("j-1").result(),
}


@pytest.mark.slow
@pytest.mark.parametrize("token", [LONG, 'quoted-"token\\of-mine', "to", "5"])
@on_both_loops
async def test_no_path_leads_to_the_token(token: str, caplog: LogCaptureFixture) -> None:
    """Neither errors nor causes, records, logs or pickles, whoever says it back and where."""
    caplog.set_level(logging.DEBUG, logger="prodia_async")
    met = Counter[str]()
    for place, answer in echoes(token).items():
        with RawServer([say(answer, close=True)] * 9) as server:
            options: Any = {"base_url": server.url, "retry": ONCE, "deadline": 0.2}
            async with AsyncProdia(token, **options) as client:
                for path, work in PATHS.items():
                    error = await fate_of(work(client))
                    met[path] += error is not None
                    assert not leaks(error, token, caplog.messages), (place, path)
    assert met == {"job": 9, "stream": 9, "submit": 9, "state": 9, "result": 9}


@pytest.mark.parametrize("token", [LONG, "to"])
@on_both_loops
async def test_no_path_of_the_second_api_leads_to_it(token: str, caplog: LogCaptureFixture) -> None:
    """The same, of pictures and of tasks."""
    caplog.set_level(logging.DEBUG, logger="prodia_async")
    for place, answer in echoes(token).items():
        with RawServer([say(answer, close=True)] * 9) as server:
            options: Any = {"base_url": server.url, "retry": ONCE, "deadline": 0.2}
            async with AsyncFireworks(token, **options) as client:
                for order in (TextToImage("a cat"), Kontext("a cat")):
                    error = await fate_of(client.run(order))
                    assert error is not None
                    assert not leaks(error, token, caplog.messages), (place, order)


@pytest.mark.parametrize("token", SHORT)
async def test_messages_stay_readable(token: str) -> None:
    """A short token garbles no word: what is left without the marks are words of the sentence."""
    said = f"the token {token} is not one; latest-astonishing 12345678 words 1.5 to go"

    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(401, text=said)

    async with AsyncProdia(token, transport=httpx.MockTransport(refuse), retry=ONCE) as client:
        with pytest.raises(ProdiaError) as caught:
            await client.job(PING)
    assert caught.value.reason == " ".join(
        REDACTED if word == token else word for word in said.split()
    )


async def test_an_answer_that_is_a_success_holds_none(caplog: LogCaptureFixture) -> None:
    """Neither do its job result and its headers, which records and pickles are made of."""
    job = {"id": "j", "state": {"current": "completed"}, "config": {"seen": f"Bearer {LONG}"}}

    def answer(request: httpx.Request) -> httpx.Response:
        said = json.dumps({**job, "config": {"seen": request.headers["authorization"]}}).encode()
        content_type = "multipart/form-data; boundary=" + "0123456789abcdef" * 3 + "0123456789ab"
        headers = {"content-type": content_type, "x-request-id": LONG}
        return httpx.Response(
            200, content=multipart(part("job", None, None, said), OUTPUT_PART), headers=headers
        )

    caplog.set_level(logging.DEBUG, logger="prodia_async")
    async with AsyncProdia(LONG, transport=httpx.MockTransport(answer)) as client:
        response = await client.job(PING)
    assert response.config == {"seen": f"Bearer {REDACTED}"}
    assert (response.request_id, response.headers["x-request-id"]) == (REDACTED, REDACTED)
    assert LONG.encode() not in pickle.dumps(response)
    assert not any(LONG in text for text in caplog.messages)


def raw_part(*lines: str) -> bytes:
    return "\r\n".join([f"--{BOUNDARY}", *lines, "", "abc", ""]).encode()


NAMED = 'Content-Disposition: form-data; name="output"'
TOLD = "Bearer {}"


@pytest.mark.parametrize("token", [LONG, "to"])
@pytest.mark.parametrize(
    "lines",
    [
        (f'{NAMED}; filename="{TOLD}.png"', f"Content-Type: image/{TOLD}"),
        (f"{NAMED}; filename*=UTF-8''Bearer%20{{}}.png",),
        (f'Content-Disposition: form-data; name="{TOLD}"',),
        (f"no header, but {TOLD}",),
        (NAMED, f"Content-Transfer-Encoding: {TOLD}"),
        (f"x-{{}} {TOLD}",),
    ],
)
@on_both_loops
async def test_the_headers_of_a_part_hold_none(lines: tuple[str, ...], token: str) -> None:
    """Neither the names and types of outputs, nor errors, to whoever catches them where."""
    hostile = raw_part(*(line.format(token, token) for line in lines))
    caught: list[BaseException | None] = []
    shown: list[str] = []

    async def look() -> None:
        async with client.stream(PING) as stream:
            try:
                async for each in stream:
                    shown.append(repr(each))
                    if isinstance(each, OutputPart):
                        shown.extend([str(each.filename), each.content_type])
                        shown.append(repr(await each.read()))
            except ProdiaError as error:
                caught.append(error)
                shown.append(str(error))
                raise

    with RawServer([say(http(body=multipart(JOB_PART, hostile)))] * 2) as server:
        async with AsyncProdia(token, base_url=server.url, retry=ONCE) as client:
            try:
                response = await client.job(PING)
                shown += [repr(response), *(str(each.filename) for each in response.outputs)]
                shown += [pickle.dumps(response).decode("latin-1")]
            except ProdiaError as error:
                caught.append(error)
                shown += [repr(each) for each in error.outputs]
            caught.append(await fate_of(look()))
    assert shown
    assert not [text for text in shown if f"Bearer {token}" in text]
    assert not [each for each in caught if each is not None and leaks(each, token, [])]


def test_a_name_that_is_no_secret_stays() -> None:
    """A credential of a few letters may be a part of any name."""
    assert blotted_name("to-do.png", "to") == "to-do.png"
    assert blotted_name("Bearer to.png", "to") == f"Bearer {REDACTED}.png"
    assert blotted_name(f"{LONG}.png", LONG) == f"{REDACTED}.png"
    assert blotted_name(None, LONG) is None
    assert blotted_name("", LONG) == ""
    assert blotted_name("a", "") == "a"
