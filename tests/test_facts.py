"""The facts of `facts.toml`, each shown by one raw request to the emulator."""

from __future__ import annotations

import base64
import email
import email.policy
import functools
import io
import json
import re
import struct
import time
import tomllib
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import httpx
import pytest
from PIL import Image

from prodia_async.emulator import Behaviour, Emulator, FireworksBehaviour

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FACTS = tomllib.loads(Path(__file__).with_name("facts.toml").read_text(encoding="utf-8"))["fact"]

REQUEST = frozenset(
    {
        *("fact", "page", "mark", "api", "method", "path", "query", "token", "accept"),
        *("send_headers", "type", "config", "job", "body", "inputs", "parts", "form", "job_last"),
        *("emulator", "behaviour", "fireworks", "fail", "repeat", "status"),
    }
)
"""What is no expectation but for `status`."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Emulator]:
    with Emulator(tokens=["token"], retry_after=None) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(verify=False) as client:
        # Each row sends what it says, and nothing that httpx would add.
        for header in ("accept", "accept-encoding", "user-agent"):
            del client.headers[header]
        yield client


# Requests.


@functools.cache
def file(kind: str) -> bytes:
    """Make a file: ``png:64x48``, ``wav``, ``mp4``, or a PNG padded to a size."""
    name, _, size = kind.partition(":")
    match name:
        case "wav":
            return b"RIFF\x24\0\0\0WAVEfmt " + bytes(24)
        case "mp4":
            return struct.pack(">I", 16) + b"ftypisom" + bytes(16)
        case "padded":
            return file("png:256x256") + bytes(int(size))
    width, height = map(int, size.split("x"))
    target = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(target, name.upper())
    return target.getvalue()


def written_out(value: Any) -> Any:
    """Write out ``@n`` and ``@png`` wherever they stand."""
    if isinstance(value, dict):
        return {name: written_out(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [written_out(inner) for inner in value]
    if value == "@png":
        return base64.b64encode(file("png:64x64")).decode()
    if isinstance(value, str) and re.fullmatch("@[0-9]+", value):
        return "x" * int(value[1:])
    return value


@dataclass
class Row:
    """A row, and the server that it asks."""

    fact: Mapping[str, Any]
    emulator: Emulator
    client: httpx.Client

    @property
    def is_fireworks(self) -> bool:
        return self.fact.get("api") == "fireworks"

    def ask(self, accept: str | None = None) -> httpx.Response:
        fact = self.fact
        root = self.emulator.fireworks_url if self.is_fireworks else self.emulator.base_url
        url = root + fact.get("path", "/v2/job") + ("?" + fact["query"] if "query" in fact else "")
        headers = dict(fact.get("send_headers", {}))
        if token := fact.get("token", "token"):
            headers["authorization"] = f"Bearer {token}"
        accept = fact.get("accept") if accept is None else accept
        if accept is not None:
            headers["accept"] = accept
        return self.client.request(fact.get("method", "POST"), url, headers=headers, **self.body())

    def body(self) -> dict[str, Any]:
        fact = self.fact
        if fact.get("method") == "GET":
            return {}
        if self.is_fireworks:
            return {"json": written_out(fact["body"])}
        job = written_out(fact.get("job")) or {
            "type": f"inference.{fact['type']}",
            "config": written_out(fact["config"]),
        }
        files = [("input", *each) for each in fact.get("inputs", ())]
        files += [tuple(each) for each in fact.get("parts", ())]
        if not files and not fact.get("form"):
            return {"json": job}
        parts: list[tuple[str, tuple[str, bytes, str]]] = [
            (part, (name, file(kind), *(declared or ("application/octet-stream",))))
            for part, name, kind, *declared in files
        ]
        place = len(parts) if fact.get("job_last") else 0
        parts.insert(place, ("job", ("job.json", json.dumps(job).encode(), "application/json")))
        return {"files": parts}

    def get(self, url: str) -> httpx.Response:
        return httpx.get(url, headers={"authorization": "Bearer token"}, verify=False)


# Answers.


@dataclass
class Part:
    name: str
    filename: str
    media_type: str
    content: bytes


def parts_of(response: httpx.Response) -> list[Part]:
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + response.content, policy=email.policy.HTTP)
    found = []
    for part in message.iter_parts():
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        name = part.get_param("name", header="content-disposition")
        found.append(Part(str(name), str(part.get_filename()), part.get_content_type(), content))
    return found


def result_of(response: httpx.Response) -> Any:
    if response.headers["content-type"].startswith("multipart/"):
        return json.loads(parts_of(response)[0].content)
    return response.json()


def outputs_of(response: httpx.Response) -> list[Part]:
    return [part for part in parts_of(response) if part.name == "output"]


def found_at(result: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(result, dict) or name not in result:
            return ...
        result = result[name]
    return result


def is_as(value: Any, expected: Any) -> bool:
    """Compare a value with what is expected of it: a kind or the value itself."""
    match expected:
        case "uuid":
            return bool(str(uuid.UUID(value)) == value)
        case "time":
            return bool(datetime.fromisoformat(value)) and str(value).endswith("Z")
        case "number":
            return isinstance(value, (int, float)) or str(value).isdigit()
        case "list":
            return isinstance(value, list)
        case "null":
            return value is None
    return bool(value == expected and type(value) is type(expected))


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def size_of(response: httpx.Response) -> str:
    if response.headers["content-type"] == "image/svg+xml":
        root = ET.fromstring(response.content)
        return f"{root.get('width')}x{root.get('height')}"
    if response.headers["content-type"] == "video/mp4":
        place = response.content.index(b"tkhd") + 4
        width, height = struct.unpack_from(">2I", response.content, place + 76)
        return f"{width >> 16}x{height >> 16}"
    width, height = opened(response.content).size
    return f"{width}x{height}"


def kontext(row: Row, response: httpx.Response) -> dict[str, Any]:
    """Poll a task until it is no more pending, or is told what the row wants."""
    url = f"{row.emulator.fireworks_url}{row.fact['path']}/get_result"
    while True:
        told: dict[str, Any] = httpx.post(
            url,
            json={"id": response.json()["request_id"]},
            headers={"authorization": "Bearer token"},
            verify=False,
        ).json()
        # A task is told as pending until its picture is there.
        if told["status"] in {row.fact["poll"], "Error"} and told["status"] != "Pending":
            return told
        if row.fact["poll"] == "Pending":
            return told
        time.sleep(0.005)


def followed(row: Row, response: httpx.Response) -> httpx.Response:
    """Wait for an async job and read what the row asks for."""
    url = f"{row.emulator.base_url}/v2/job/async/{response.json()['id']}"
    while row.get(f"{url}/job.state.current").text == "processing":
        time.sleep(0.005)
    if row.fact.get("expire"):
        row.emulator.expire(response.json()["id"])
    return row.get(f"{url}/{row.fact['follow']}")


def check(row: Row, response: httpx.Response, name: str, expected: Any) -> None:
    """Look whether an answer has what a row expects of it."""
    match name:
        case "says":
            assert expected in response.text.replace('\\"', '"').replace("\\u003c", "<"), (
                response.text
            )
        case "headers":
            for header, value in expected.items():
                assert is_as(response.headers.get(header), value), response.headers
        case "result":
            result = result_of(response)
            for path, value in expected.items():
                assert is_as(found_at(result, path), value), result
        case "absent":
            for path in expected:
                assert found_at(result_of(response), path) is ...
        case "outputs":
            assert [part.media_type for part in outputs_of(response)] == expected
        case "names":
            names = [part.filename for part in outputs_of(response)]
            assert len(names) == len(expected)
            assert all(map(is_as, names, expected))
        case "modes":
            assert [opened(part.content).mode for part in outputs_of(response)] == expected
        case "mask":
            for part in outputs_of(response):
                picture = opened(part.content)
                assert picture.mode == "L"
                assert {value for _, value in picture.getcolors() or ()} == {0, 255}
        case "parts_are":
            assert [part.name for part in parts_of(response)] == expected
        case "job_part":
            part = parts_of(response)[0]
            assert [part.filename, part.media_type] == expected
        case "boundary":
            media_type = response.headers["content-type"]
            assert re.fullmatch(f"multipart/form-data; boundary={expected}", media_type)
        case "size" | "film_size":
            assert size_of(response) == expected
        case "ratio":
            width, height = map(int, size_of(response).split("x"))
            assert width / height == pytest.approx(expected, rel=0.08)
        case "progressive":
            assert "progressive" in opened(response.content).info
        case "smaller_than":
            assert len(response.content) < len(row.ask(expected).content)
        case "same_as":
            assert response.content == row.ask(expected).content
        case "smaller_than_default":
            plain = Row({**row.fact, "send_headers": {}}, row.emulator, row.client)
            assert len(response.content) < len(plain.ask().content)
        case "lives":
            result = result_of(response)
            created, expires = (
                datetime.fromisoformat(result[each]) for each in ("created_at", "expires_at")
            )
            assert (expires - created).total_seconds() == expected
        case "ips":
            result = result_of(response)
            product = result["metrics"]["ips"] * result["metrics"]["elapsed"]
            assert product == pytest.approx(result["config"]["steps"], rel=0.01)
        case "json":
            told = response.json()
            for path, value in expected.items():
                assert is_as(found_at(told, path), value), told
        case "json_prefix":
            assert all(each.startswith(expected) for each in response.json()["base64"])
        case "shape":
            told = response.json()
            if expected == "array":
                assert all(isinstance(each["base64"], str) for each in told)
            else:
                kind = {"list": list, "string": str}[expected]
                assert isinstance(told["base64"], kind)
        case "count":
            assert len(response.json()) == expected
        case "charged":
            assert row.emulator.ledger[-1].dollars == pytest.approx(expected, abs=1e-9)
        case "poll":
            assert kontext(row, response)["status"] == expected
        case "sample":
            assert kontext(row, response)["result"]["sample"].startswith(expected)
        case "sample_type":
            sample = httpx.get(kontext(row, response)["result"]["sample"], verify=False)
            assert sample.headers["content-type"] == expected
        case "follow":
            then = followed(row, response)
            assert then.status_code == row.fact.get("then_status", 200)
            assert then.text == row.fact.get("then_text", then.text)
            if "then_json" in row.fact:
                assert then.json() == row.fact["then_json"]
            if "then_type" in row.fact:
                assert then.headers["content-type"] == row.fact["then_type"]
            for path, value in row.fact.get("then_result", {}).items():
                assert is_as(found_at(then.json(), path), value)
        case _:
            # Belongs to `follow`.
            assert name in {"then_status", "then_text", "then_json", "then_type", "then_result"} | {
                "expire"
            }, name


def named(fact: Mapping[str, Any]) -> str:
    about = fact.get("type") or fact.get("api", "prodia")
    return f"{about}: {fact['fact']}"


@pytest.mark.parametrize("fact", FACTS, ids=named)
def test_fact(fact: Mapping[str, Any], shared: Emulator, client: httpx.Client) -> None:
    """The emulator does what the page says."""
    own = {"emulator", "behaviour", "fireworks", "fail", "charged"} & set(fact)
    options: dict[str, Any] = dict(fact.get("emulator", {}))
    if "behaviour" in fact:
        options["behaviour"] = Behaviour(**fact["behaviour"])
    if "fireworks" in fact:
        options["fireworks"] = FireworksBehaviour(**fact["fireworks"])
    with Emulator(tokens=["token"], **options) if own else nullcontext(shared) as emulator:
        if "fail" in fact:
            emulator.fail_next(**fact["fail"])
        row = Row(fact, emulator, client)
        for _ in range(fact.get("repeat", 1) - 1):
            row.ask()
        response = row.ask()
        status = fact.get("status", 201 if fact.get("follow") else 200)
        assert response.status_code == status, response.text[:500]
        for name in fact.keys() - REQUEST:
            check(row, response, name, fact[name])


def test_the_facts_are_many_and_each_is_told_once() -> None:
    """Three hundred and more, with a page, a mark and a request each, and no row twice."""
    assert len(FACTS) > 300
    for fact in FACTS:
        assert fact["page"]
        assert fact["mark"] in {"A", "B", "C", "I"}
    rows = [json.dumps(fact, sort_keys=True) for fact in FACTS]
    assert len(set(rows)) == len(rows)
