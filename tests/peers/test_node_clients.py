"""The official JavaScript package and the AI SDK's provider, as they come from npm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from peer_pictures import (
    BEGINNINGS,
    COLOURS,
    FAMILIES,
    STRAWBERRY,
    input_file,
    jpeg,
    lay_out,
    received,
    sha256,
)

from prodia_async import JPEG, AsyncProdia
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (HERE / "node_modules").is_dir(), reason="`nox -s peers` installs the npm packages"
    ),
]


class Sample(Protocol):
    """Runs one sample of a script and returns what it told."""

    def __call__(self, script: str, name: str, *, token: str = "the-token") -> dict[str, Any]: ...


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Serve one token, and have a refused client come back at once."""
    with Emulator(tokens=["the-token"], retry_after=0.01) as emulator:
        yield emulator


@pytest.fixture
def sample(emulator: Emulator, tmp_path: Path) -> Sample:
    """Run samples against the emulator, in a folder with the two pictures."""
    lay_out(tmp_path)

    def run(script: str, name: str, *, token: str = "the-token") -> dict[str, Any]:
        done = subprocess.run(
            ["node", HERE / script, name],
            cwd=tmp_path,
            env=os.environ | {"PRODIA_TOKEN": token, "PRODIA_BASE_URL": emulator.base_url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    return run


# The official package: https://www.npmjs.com/package/prodia


def test_prodia_runs_the_readme_sample(emulator: Emulator, sample: Sample) -> None:
    """It sends a form of one part, and gets the job result and a picture."""
    told = sample("prodia_samples.mjs", "readme")
    (record,) = emulator.ledger
    assert (record.status, record.parts, record.job_filename) == (200, ("job",), "job.json")
    assert record.accept == "multipart/form-data"
    assert told["job"]["id"] == record.job_id
    assert told["job"]["state"]["current"] == "completed"
    assert told["size"] > 1000
    assert emulator.ledger.totals().charged == 1


async def test_prodia_gets_the_bytes_that_this_package_gets(
    emulator: Emulator, sample: Sample
) -> None:
    """Encoder parameters after the secondary type mean the same from either client."""
    told = sample("prodia_samples.mjs", "accept")
    async with AsyncProdia("the-token", base_url=emulator.base_url) as client:
        response = await client.job(STRAWBERRY, accept=JPEG(quality=95, subsampling="444"))
    theirs, ours = emulator.ledger
    assert theirs.accept == ours.accept
    assert told["sha256"] == sha256(response.output.content)


def test_prodia_sends_each_file_twice(emulator: Emulator, sample: Sample) -> None:
    """A File is also a Blob for it: two files are four inputs, which a lenient server takes."""
    emulator.behave(strict_filenames=False)
    told = sample("prodia_samples.mjs", "files")
    (record,) = emulator.ledger
    assert record.parts == ("input", "input", "input", "input", "job")
    assert received(record) == [
        (sent, "image/jpeg", sha256(jpeg(colour)))
        for name, colour in COLOURS.items()
        for sent in (name, "image.jpg")
    ]
    assert (record.status, record.charged) == (200, True)
    assert told["job"]["config"]["images"] == list(COLOURS)


def test_a_strict_server_refuses_the_files_that_prodia_sends(
    emulator: Emulator, sample: Sample
) -> None:
    """Input names must differ, as documented; this client's two images.jpg are then a 400."""
    told = sample("prodia_samples.mjs", "files")
    (record,) = emulator.ledger
    assert (record.status, record.charged) == (400, False)
    assert told["error"] == "ProdiaUserError"
    assert told["message"].startswith("filename 'image.jpg' is not unique")
    assert told["message"].endswith(f"(id: {record.job_id})")


def test_prodia_names_every_buffer_image_jpg(emulator: Emulator, sample: Sample) -> None:
    """That does for a type that takes its inputs by their places, unless the server is strict."""
    emulator.behave(strict_filenames=False)
    assert sample("prodia_samples.mjs", "buffers")["size"] > 1000
    emulator.behave(strict_filenames=True)
    assert "is not unique" in sample("prodia_samples.mjs", "buffers")["message"]
    lenient, strict = emulator.ledger
    assert [name for name, *_ in received(lenient)] == ["image.jpg", "image.jpg"]
    assert (lenient.status, strict.status) == (200, 400)
    assert emulator.ledger.totals().charged == 1


def test_a_config_cannot_name_the_buffers_that_prodia_sends(
    emulator: Emulator, sample: Sample
) -> None:
    """What the job calls product.jpg was sent as image.jpg, so any server must refuse it."""
    told = sample("prodia_samples.mjs", "namedBuffers")
    assert told["message"].startswith("filename 'product.jpg' not found in request")
    assert [record.status for record in emulator.ledger] == [400]
    assert emulator.ledger.totals().charged == 0


def test_prodia_reads_what_is_wrong_with_a_config(emulator: Emulator, sample: Sample) -> None:
    """Its own tests expect the schema's words and the job's id in one message."""
    told = sample("prodia_samples.mjs", "badConfig")
    (record,) = emulator.ledger
    assert told["error"] == "ProdiaUserError"
    assert "steps" in told["message"]
    assert "maximum: got 1,000" in told["message"]
    assert f"(id: {record.job_id})" in told["message"]


def test_prodia_reads_that_a_token_is_bad(emulator: Emulator, sample: Sample) -> None:
    """Its own tests expect status and plain text, and no second request."""
    told = sample("prodia_samples.mjs", "readme", token="another-token")
    assert told == {"error": "ProdiaBadResponseError", "message": "401 token is invalid"}
    assert [record.status for record in emulator.ledger] == [401]


def test_prodia_waits_for_an_idle_worker(emulator: Emulator, sample: Sample) -> None:
    """Three refusals are three repetitions, and one charge in the end."""
    emulator.fail_next(3, 429, retry_after=0.01)
    assert sample("prodia_samples.mjs", "readme")["size"] > 1000
    assert [record.status for record in emulator.ledger] == [429, 429, 429, 200]
    assert emulator.ledger.totals().charged == 1


def test_prodia_gives_up_after_eleven_refusals(emulator: Emulator, sample: Sample) -> None:
    """It counts refusals rather than time, and then loses a job that nothing is wrong with."""
    emulator.workers = 0
    assert sample("prodia_samples.mjs", "readme")["error"] == "ProdiaCapacityError"
    assert [record.status for record in emulator.ledger] == [429] * 11
    assert emulator.ledger.totals().charged == 0


def test_prodia_runs_a_type_of_each_family(
    emulator: Emulator, sample: Sample, tmp_path: Path
) -> None:
    """Whatever a type makes and takes, the package gets its first output; each is charged once."""
    # Two inputs of one client are two of one name.
    emulator.behave(strict_filenames=False)
    jobs = []
    for job, inputs, _ in FAMILIES.values():
        for kind in inputs:
            (tmp_path / kind).write_bytes(input_file(kind))
        jobs.append({"job": job, "inputs": inputs})
    (tmp_path / "families.json").write_text(json.dumps(jobs))
    told = sample("prodia_samples.mjs", "families")
    for name, (_, _, media_type) in FAMILIES.items():
        assert told[name]["state"] == "completed", name
        beginning = told[name]["beginning"].encode("latin-1")
        assert beginning.startswith(BEGINNINGS[media_type][:8]), name
    assert [record.status for record in emulator.ledger] == [200] * len(FAMILIES)
    assert emulator.ledger.totals().charged == len(FAMILIES)


# The AI SDK's provider: https://www.npmjs.com/package/@ai-sdk/prodia


def test_ai_sdk_makes_a_picture(emulator: Emulator, sample: Sample) -> None:
    """It sends JSON, asks for PNG and for the price, and reads the job result."""
    told = sample("ai_sdk_samples.mjs", "image")
    (record,) = emulator.ledger
    assert record.content_type == "application/json"
    assert (record.accept, record.price) == ("multipart/form-data; image/png", True)
    assert record.config == {"prompt": "a cat with a hat", "width": 512, "height": 512, "seed": 42}
    assert told["type"] == "image/png"
    assert told["metadata"]["jobId"] == record.job_id
    assert told["metadata"]["dollars"] == record.dollars > 0
    assert told["metadata"]["seed"] == 42


def test_ai_sdk_runs_a_type_of_each_family(emulator: Emulator, sample: Sample) -> None:
    """What it sends for pictures and films is taken by every family, the closed ones too."""
    told = sample("ai_sdk_samples.mjs", "families")
    assert {name: kind for name, kind in told.items() if "2img" in name} == dict.fromkeys(
        (name for name in told if "2img" in name), "image/png"
    )
    assert {told[name] for name in told if "2vid" in name} == {"video/mp4"}
    assert [record.status for record in emulator.ledger] == [200] * len(told)
    assert len(told) == 11


def test_ai_sdk_edits_a_picture(emulator: Emulator, sample: Sample) -> None:
    """One input goes along after the job, and a text comes back beside the picture."""
    told = sample("ai_sdk_samples.mjs", "edit")
    (record,) = emulator.ledger
    assert (record.status, record.parts) == (200, ("job", "input"))
    assert received(record) == [("input.jpg", "image/jpeg", sha256(jpeg(COLOURS["scene.jpg"])))]
    assert record.config is not None
    assert record.config["include_messages"] is True
    assert told["type"] == "image/jpeg"
    assert told["text"]


def test_ai_sdk_takes_the_last_output_for_the_film(emulator: Emulator, sample: Sample) -> None:
    """With a poster frame beside the film, it hands over the poster as the film."""
    film = sample("ai_sdk_samples.mjs", "video")
    emulator.behave(poster=True)
    poster = sample("ai_sdk_samples.mjs", "video")
    assert [record.status for record in emulator.ledger] == [200, 200]
    assert film["type"] == poster["type"] == "video/mp4"
    assert film["head"] == "ftyp"
    assert poster["head"] != "ftyp"


def test_ai_sdk_loses_the_text_of_a_multipart_error(emulator: Emulator, sample: Sample) -> None:
    """It reads errors as JSON alone, so the reason stays in a body that it does not show."""
    told = sample("ai_sdk_samples.mjs", "badType")
    (record,) = emulator.ledger
    assert (record.status, record.error, record.charged) == (400, "unknown job type", False)
    assert (told["message"], told["status"]) == ("Bad Request", 400)
    assert '"error":"unknown job type"' in told["body"]


def test_ai_sdk_is_told_that_a_token_is_bad(emulator: Emulator, sample: Sample) -> None:
    """A 401 is an error at once; of its text it shows nothing."""
    told = sample("ai_sdk_samples.mjs", "image", token="another-token")
    assert (told["message"], told["status"]) == ("Unauthorized", 401)
    assert told["body"] == "token is invalid"
    assert [record.status for record in emulator.ledger] == [401]


def test_ai_sdk_waits_for_an_idle_worker(emulator: Emulator, sample: Sample) -> None:
    """It obeys the Retry-After of a 429, and one job is charged."""
    emulator.fail_next(2, 429, retry_after=0.01)
    assert sample("ai_sdk_samples.mjs", "image")["size"] > 1000
    first, *_, last = records = list(emulator.ledger)
    assert [record.status for record in records] == [429, 429, 200]
    assert last.at - first.at < 2  # on its own it waits 2 s before the first repetition
    assert emulator.ledger.totals().charged == 1
