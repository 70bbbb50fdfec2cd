"""curl, requests and aiohttp, used as the API's documents use them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import aiohttp
import pytest
import requests
from peer_pictures import (
    BEGINNINGS,
    COLOURS,
    COMBINE,
    FAMILIES,
    STRAWBERRY,
    input_file,
    jpeg,
    lay_out,
    received,
    sha256,
)
from PIL import Image
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOTH = [(name, "image/jpeg", sha256(jpeg(colour))) for name, colour in COLOURS.items()]
"""What the ledger says of the two pictures, sent as they are."""

with_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Serve one token, and be strict about equal names."""
    with Emulator(tokens=["the-token"]) as emulator:
        emulator.behave(strict_filenames=True)
        yield emulator


# curl


def curl(
    emulator: Emulator, folder: Path, *arguments: str, token: str = "the-token"
) -> subprocess.CompletedProcess[str]:
    """Run curl as the documents do, against the emulator's /v2/job."""
    usual = ["-sSf", "--retry", "3", "-H", f"Authorization: Bearer {token}"]
    return subprocess.run(
        ["curl", *usual, *arguments, f"{emulator.base_url}/v2/job"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@with_curl
def test_curl_gets_a_picture(emulator: Emulator, tmp_path: Path) -> None:
    """--json with a picture's type in the Accept header answers with the picture alone."""
    accept = ["-H", "Accept: image/webp;quality=90", "--output", "strawberry.webp"]
    done = curl(emulator, tmp_path, *accept, "--json", json.dumps(STRAWBERRY))
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(tmp_path / "strawberry.webp") as picture:
        assert picture.format == "WEBP"
    (record,) = emulator.ledger
    assert (record.content_type, record.parts) == ("application/json", ())
    assert record.accept == "image/webp;quality=90"
    assert emulator.ledger.totals().charged == 1


@with_curl
def test_curl_gets_the_job_result(emulator: Emulator, tmp_path: Path) -> None:
    """--json alone asks for application/json, and gets the job result without the picture."""
    done = curl(emulator, tmp_path, "--json", json.dumps(STRAWBERRY))
    (record,) = emulator.ledger
    assert record.accept == "application/json"
    assert json.loads(done.stdout)["id"] == record.job_id


@with_curl
@pytest.mark.parametrize("job", ["job=@job.json", "job=@job.json;type=application/json"])
def test_curl_sends_pictures(emulator: Emulator, tmp_path: Path, job: str) -> None:
    """-F sends job and inputs in order, whether or not the job's type is said."""
    lay_out(tmp_path)
    (tmp_path / "job.json").write_text(json.dumps(COMBINE))
    accept = ["-H", "Accept: multipart/form-data; image/jpeg", "--output", "answer"]
    inputs = ["-F", "input=@product.jpg", "-F", "input=@scene.jpg"]
    done = curl(emulator, tmp_path, *accept, "-F", job, *inputs)
    assert (done.returncode, done.stderr) == (0, "")
    (record,) = emulator.ledger
    assert (record.parts, record.job_filename) == (("job", "input", "input"), "job.json")
    assert received(record) == BOTH
    answer = (tmp_path / "answer").read_bytes()
    assert re.match(rb'--[0-9a-f]{60}\r\nContent-Disposition: form-data; name="job"', answer)
    assert answer.count(b'name="output"') == 1
    assert emulator.ledger.totals().charged == 1


@with_curl
def test_curl_waits_for_an_idle_worker(emulator: Emulator, tmp_path: Path) -> None:
    """--retry 3 obeys Retry-After, in whole seconds."""
    emulator.fail_next(1, 429, retry_after=1)
    done = curl(
        *(emulator, tmp_path, "-H", "Accept: image/jpeg", "--output", "picture.jpg"),
        *("--json", json.dumps(STRAWBERRY)),
    )
    assert done.returncode == 0
    first, second = emulator.ledger
    assert (first.status, second.status) == (429, 200)
    assert second.at - first.at >= 1
    assert emulator.ledger.totals().charged == 1


@with_curl
def test_curl_fails_for_a_bad_token(emulator: Emulator, tmp_path: Path) -> None:
    """-f makes a 401 an error, and --retry leaves it alone."""
    done = curl(emulator, tmp_path, "--json", json.dumps(STRAWBERRY), token="another-token")
    assert done.returncode == 22
    assert "401" in done.stderr
    assert [record.status for record in emulator.ledger] == [401]


# requests


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """Make the session of the documents' Python samples."""
    retries = Retry(allowed_methods=None, status_forcelist=Retry.RETRY_AFTER_STATUS_CODES)
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", HTTPAdapter(max_retries=retries))
        session.headers.update({"Authorization": "Bearer the-token"})
        yield session


def test_requests_gets_a_picture(emulator: Emulator, session: requests.Session) -> None:
    """The documents' first Python sample: a JSON body, a picture, a request id."""
    accept = {"Accept": "image/jpeg"}
    answer = session.post(f"{emulator.base_url}/v2/job", headers=accept, json=STRAWBERRY)
    (record,) = emulator.ledger
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["x-request-id"] == record.request_id
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (1024, 1024))
    assert emulator.ledger.totals().charged == 1


def test_requests_sends_pictures(emulator: Emulator, session: requests.Session) -> None:
    """A list of files keeps its order, its names and the job's type."""
    files = [("job", ("job.json", io.BytesIO(json.dumps(COMBINE).encode()), "application/json"))]
    files += [("input", (name, io.BytesIO(jpeg(COLOURS[name])), "image/jpeg")) for name in COLOURS]
    answer = session.post(f"{emulator.base_url}/v2/job", files=files)
    (record,) = emulator.ledger
    assert (record.parts, record.job_filename) == (("job", "input", "input"), "job.json")
    assert received(record) == BOTH
    # It asks for */*, and the one output comes alone.
    assert record.accept == "*/*"
    assert answer.headers["content-type"].startswith("image/")


def test_requests_waits_for_an_idle_worker(emulator: Emulator, session: requests.Session) -> None:
    """A refused POST is repeated after Retry-After, since allowed_methods is None."""
    emulator.fail_next(1, 429, retry_after=1)
    answer = session.post(f"{emulator.base_url}/v2/job", json=STRAWBERRY)
    first, second = emulator.ledger
    assert (first.status, second.status, answer.status_code) == (429, 200, 200)
    assert second.at - first.at >= 1
    assert emulator.ledger.totals().charged == 1


def test_requests_repeats_an_upload_that_is_too_large(session: requests.Session) -> None:
    """413 is among the statuses that it repeats: eleven uploads, and its text is never seen."""
    with Emulator(max_upload_bytes=1000) as emulator:
        files = {"job": ("job.json", b"{}"), "input": ("large.jpg", bytes(2000))}
        with pytest.raises(requests.exceptions.RetryError, match="too many 413 error responses"):
            session.post(f"{emulator.base_url}/v2/job", files=files)
        assert [record.status for record in emulator.ledger] == [413] * 11
        assert emulator.ledger.totals().charged == 0


def test_requests_leaves_a_fault_alone(emulator: Emulator, session: requests.Session) -> None:
    """500 is not among them, so a server fault reaches the caller at once."""
    emulator.fail_next(1, 500)
    assert session.post(f"{emulator.base_url}/v2/job", json=STRAWBERRY).status_code == 500
    assert [record.status for record in emulator.ledger] == [500]


def test_requests_cannot_read_a_fraction(emulator: Emulator, session: requests.Session) -> None:
    """A Retry-After of 1.5 raises from within its retries, and the 429 is lost."""
    emulator.workers, emulator.retry_after = 0, 1.5
    with pytest.raises(requests.exceptions.InvalidHeader, match=r"1\.5"):
        session.post(f"{emulator.base_url}/v2/job", json=STRAWBERRY)
    assert [record.retry_after for record in emulator.ledger] == ["1.5"]


# aiohttp


def form(job: object, *names: str, quote_fields: bool = True) -> aiohttp.FormData:
    """Write a job and inputs as aiohttp does; every input is the picture of the product."""
    form = aiohttp.FormData(quote_fields=quote_fields)
    text = json.dumps(job)
    form.add_field("job", text, filename="job.json", content_type="application/json")
    for name in names:
        content = jpeg(COLOURS.get(name, "teal"))
        form.add_field("input", content, filename=name, content_type="image/jpeg")
    return form


async def post(emulator: Emulator, form: aiohttp.FormData) -> tuple[int, bytes]:
    """Send a form and return status and body."""
    headers = {"Authorization": "Bearer the-token", "Accept": "multipart/form-data; image/jpeg"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{emulator.base_url}/v2/job", data=form) as answer,
    ):
        return answer.status, await answer.read()


async def test_aiohttp_sends_pictures(emulator: Emulator) -> None:
    """FormData puts the Content-Type before the Content-Disposition; names and bytes arrive."""
    status, body = await post(emulator, form(COMBINE, *COLOURS))
    (record,) = emulator.ledger
    assert (status, record.parts) == (200, ("job", "input", "input"))
    assert received(record) == BOTH
    assert body.count(b'name="output"') == 1
    assert emulator.ledger.totals().charged == 1


async def test_aiohttp_escapes_a_blank_in_a_name(emulator: Emulator) -> None:
    """By default it percent-encodes names, so the config's own name for the file is not found."""
    job = {"type": COMBINE["type"], "config": {"prompt": "warmer", "images": ["two words.jpg"]}}
    escaped, _ = await post(emulator, form(job, "two words.jpg"))
    plain, _ = await post(emulator, form(job, "two words.jpg", quote_fields=False))
    refused, taken = emulator.ledger
    assert (escaped, plain) == (400, 200)
    assert refused.error == "filename 'two words.jpg' not found in request"
    assert [record.inputs[0].filename for record in (refused, taken)] == [
        "two%20words.jpg",
        "two words.jpg",
    ]
    assert emulator.ledger.totals().charged == 1


# One type of each family.


@with_curl
@pytest.mark.parametrize("name", FAMILIES)
def test_curl_runs_a_type_of_each_family(emulator: Emulator, tmp_path: Path, name: str) -> None:
    """A form with the job first and the inputs after it, as the documents' samples have it."""
    job, inputs, media_type = FAMILIES[name]
    (tmp_path / "job.json").write_text(json.dumps(job))
    parts = ["-F", "job=@job.json;type=application/json"]
    for index, kind in enumerate(inputs):
        (tmp_path / f"{index}.{kind}").write_bytes(input_file(kind))
        parts += ["-F", f"input=@{index}.{kind}"]
    accept = ["-H", "Accept: multipart/form-data", "-o", "answer"]
    done = curl(emulator, tmp_path, *parts, *accept)
    assert (done.returncode, done.stderr) == (0, "")
    content = (tmp_path / "answer").read_bytes()
    assert f"Content-Type: {media_type}\r\n\r\n".encode() + BEGINNINGS[media_type] in content
    assert emulator.ledger.totals().charged == 1


def test_requests_runs_a_type_of_each_family(emulator: Emulator) -> None:
    """One session runs them all, in the order of its requests."""
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = "Bearer the-token"
        for job, inputs, media_type in FAMILIES.values():
            files: list[tuple[str, tuple[str, bytes | str, str]]] = [
                ("job", ("job.json", json.dumps(job), "application/json"))
            ]
            files += [
                ("input", (f"{index}.{kind}", input_file(kind), "application/octet-stream"))
                for index, kind in enumerate(inputs)
            ]
            response = session.post(f"{emulator.base_url}/v2/job", files=files)
            assert response.status_code == 200, response.text
            type_ = response.headers["content-type"]
            content = response.content
            if type_.startswith("multipart/"):
                content = content.rpartition(f"Content-Type: {media_type}\r\n\r\n".encode())[2]
            assert content.startswith(BEGINNINGS[media_type])
    assert [record.type for record in emulator.ledger] == list(FAMILIES)
    assert len({record.client for record in emulator.ledger}) == 1
