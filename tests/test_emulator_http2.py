"""HTTP/2 and TLS: the same server for clients that speak as the service's own do."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from prodia_async.emulator import Emulator, FireworksBehaviour

if TYPE_CHECKING:
    from collections.abc import Iterator

CERTIFICATES = Path(__file__).parent / "certs"
PAIR = (CERTIFICATES / "localhost.pem", CERTIFICATES / "localhost.key")
JOB = {"type": "inference.flux-fast.schnell.txt2img.v2", "config": {"prompt": "a fox", "seed": 1}}
HEADERS = {"authorization": "Bearer x"}


def trust() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=PAIR[0])


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(http2=True, certificate=PAIR) as emulator:
        yield emulator


@pytest.mark.parametrize(("http2", "version"), [(True, "HTTP/2"), (False, "HTTP/1.1")])
def test_the_version_is_negotiated(emulator: Emulator, http2: bool, version: str) -> None:
    """Whoever speaks HTTP/2 gets it; the answer is the same in either."""
    assert emulator.base_url.startswith("https://127.0.0.1:")
    with httpx.Client(http2=http2, verify=trust(), headers=HEADERS) as client:
        url = f"{emulator.base_url}/v2/job"
        response = client.post(url, json=JOB, headers={"accept": "image/png"})
        assert (response.http_version, response.status_code) == (version, 200)
        assert response.headers["content-type"] == "image/png"
        assert client.post(url, json={"type": "x"}).status_code == 400
    assert [record.status for record in emulator.ledger] == [200, 400]
    assert len(emulator.jobs) == 1


async def test_many_streams_of_one_connection(emulator: Emulator) -> None:
    """Jobs run beside each other; what is beyond the workers is refused at once."""
    emulator.latency = 0.2
    async with httpx.AsyncClient(http2=True, verify=trust(), headers=HEADERS) as client:
        url = f"{emulator.base_url}/v2/job"
        ping = {"type": "inference.ping.v1"}
        answers = await asyncio.gather(*(client.post(url, json=ping) for _ in range(25)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 20 + [429] * 5
    assert len({record.client for record in emulator.ledger}) == 1


def test_a_large_film_is_streamed(emulator: Emulator) -> None:
    """Flow control holds it back as the client reads."""
    job = {"type": "inference.veo.txt2vid.v2", "config": {"prompt": "a fox [5 MB]"}}
    with httpx.Client(http2=True, verify=trust(), headers=HEADERS) as client:
        response = client.post(
            f"{emulator.base_url}/v2/job", json=job, headers={"accept": "video/mp4"}
        )
    assert len(response.content) == 5_000_000


def test_mishaps_over_http2(emulator: Emulator) -> None:
    """Slow and short answers, broken and refused connections can be had."""
    url = f"{emulator.base_url}/v2/job"
    with httpx.Client(http2=True, verify=trust(), headers=HEADERS) as client:
        whole = client.post(url, json=JOB, headers={"accept": "image/webp"}).content
        emulator.truncate_next(keep=0.5)
        short = client.post(url, json=JOB, headers={"accept": "image/webp"}).content
        assert short == whole[: len(whole) // 2]
        emulator.slow_next(bytes_per_second=len(whole) / 0.2)
        began = time.perf_counter()
        assert client.post(url, json=JOB, headers={"accept": "image/webp"}).content == whole
        assert time.perf_counter() - began > 0.1
        ats: tuple[Any, ...] = ("sent", "head", 0.5)
        for at in ats:
            emulator.drop_next(at=at)
            with pytest.raises(httpx.TransportError):
                client.post(url, json=JOB)
        assert client.post(url, json=JOB).status_code == 200
    with httpx.Client(http2=True, verify=trust(), headers=HEADERS) as client:
        emulator.drop_next(at="connect")
        with pytest.raises(httpx.ConnectError):
            client.post(url, json=JOB)
        assert client.post(url, json=JOB).status_code == 200
    assert len(emulator.jobs) == 8


def test_start_and_stop_are_quick_and_clean() -> None:
    """Several lives, each with a connection left open, leave no thread."""
    threads = threading.active_count()
    emulator = Emulator(http2=True, certificate=PAIR)
    with httpx.Client(http2=True, verify=trust(), headers=HEADERS) as client:
        for _ in range(3):
            with emulator:
                url = f"{emulator.base_url}/v2/job"
                assert client.post(url, json={"type": "inference.ping.v1"}).status_code == 200
    assert threading.active_count() <= threads


def test_without_a_certificate() -> None:
    """A client that knows beforehand may speak HTTP/2 in the clear."""
    with (
        Emulator(http2=True) as emulator,
        httpx.Client(http1=False, http2=True, verify=False, headers=HEADERS) as client,
    ):
        response = client.post(f"{emulator.base_url}/v2/job", json={"type": "inference.ping.v1"})
        assert (response.http_version, response.status_code) == ("HTTP/2", 200)
        plain = httpx.post(
            f"{emulator.base_url}/v2/job", json={"type": "inference.ping.v1"}, headers=HEADERS
        )
        assert (plain.http_version, plain.status_code) == ("HTTP/1.1", 200)


def test_tls_without_http2() -> None:
    """The usual server speaks TLS too, at the port of the second API's pictures as well."""
    behaviour = FireworksBehaviour(shrink=16, kontext_states=["Ready"])
    with (
        Emulator(certificate=PAIR, fireworks=behaviour) as emulator,
        httpx.Client(verify=trust(), headers=HEADERS) as client,
    ):
        response = client.post(f"{emulator.base_url}/v2/job", json={"type": "inference.ping.v1"})
        assert (response.http_version, response.status_code) == ("HTTP/1.1", 200)
        path = "/workflows/accounts/fireworks/models/flux-kontext-pro"
        url = emulator.fireworks_url + path
        task = client.post(url, json={"prompt": "x"}).json()["request_id"]
        told: dict[str, Any] = {"status": "Pending"}
        while told["status"] == "Pending":
            told = client.post(f"{url}/get_result", json={"id": task}).json()
        sample = told["result"]["sample"]
        assert sample.startswith("https://")
        assert httpx.get(sample, verify=trust()).status_code == 200


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error when the emulator is made, not when it starts."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"prodia-async\[emulator-http2\]"):
        Emulator(http2=True)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_speaks_http2(emulator: Emulator, tmp_path: Path) -> None:
    """As the documents' own trace shows it."""
    done = subprocess.run(
        [
            *("curl", "-sS", "--http2", "--cacert", PAIR[0], "-D", "-", "-o", tmp_path / "a.jpg"),
            *("-H", "Authorization: Bearer x", "-H", "Accept: image/jpeg"),
            *("--json", '{"type": "inference.flux.schnell.txt2img.v2", "config": {"prompt": "a"}}'),
            f"{emulator.base_url}/v2/job",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.startswith("HTTP/2 200")
    assert "x-request-id: " in done.stdout
    assert (tmp_path / "a.jpg").read_bytes().startswith(b"\xff\xd8")
