"""The Fireworks documents' own request samples, in requests and curl, against the emulator."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

requests = pytest.importorskip("requests", reason="requests is not installed")

PATH = "/workflows/accounts/fireworks/models/flux-1-schnell-fp8/text_to_image"
ORDER = {"prompt": "a beautiful sunset over the ocean", "aspect_ratio": "16:9", "seed": 7}
HEADERS = {"Authorization": "Bearer fw_key", "Content-Type": "application/json"}


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


def post(emulator: Emulator, accept: str, **order: Any) -> Any:
    headers = {**HEADERS, "Accept": accept}
    url = emulator.fireworks_url + PATH
    return requests.post(url, headers=headers, json={**ORDER, **order}, timeout=30)


def test_requests_gets_a_picture(emulator: Emulator) -> None:
    """The sample in Python: a JPEG, with the seed and the finish reason in the headers."""
    answer = post(emulator, "image/jpeg")
    assert answer.status_code == 200
    assert answer.content.startswith(b"\xff\xd8\xff")
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert (answer.headers["Seed"], answer.headers["Finish-Reason"]) == ("7", "SUCCESS")
    assert post(emulator, "image/jpeg").content == answer.content
    assert emulator.ledger.totals().charged == 2


def test_requests_gets_json(emulator: Emulator) -> None:
    """The same with JSON: one picture as a data URI, and its seed."""
    answer = post(emulator, "application/json").json()
    assert (answer["seed"], answer["finishReason"]) == (7, "SUCCESS")
    head, _, text = answer["base64"][0].partition(",")
    assert head.startswith("data:image/")
    assert base64.b64decode(text)


def test_requests_without_a_key(emulator: Emulator) -> None:
    """A missing key is a 401 with the usual JSON."""
    answer = requests.post(emulator.fireworks_url + PATH, json=ORDER, timeout=30)
    assert answer.status_code == 401
    assert answer.json()["error"]["message"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there")
def test_curl_writes_the_picture(emulator: Emulator, tmp_path: Path) -> None:
    """The sample in a shell: the picture lands in a file, the same as for requests."""
    target = tmp_path / "sunset.jpg"
    subprocess.run(
        [
            "curl", "-sSf", "--request", "POST", "-S", "--url", emulator.fireworks_url + PATH,
            "-H", "Content-Type: application/json", "-H", "Authorization: Bearer fw_key",
            "-H", "Accept: image/jpeg", "--data", json.dumps(ORDER), "-o", str(target),
        ],
        check=True, timeout=30,
    )  # fmt: skip
    assert target.read_bytes() == post(emulator, "image/jpeg").content
