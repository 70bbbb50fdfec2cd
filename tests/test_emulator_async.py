"""Async jobs of the emulator: submitted, read, failed, expired, and charged once."""

from __future__ import annotations

import io
import json
import logging
import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from prodia_async.emulator import Behaviour, Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "a-token-nobody-may-see"
PING: dict[str, Any] = {"type": "inference.ping.v1"}
FILM: dict[str, Any] = {
    "type": "inference.veo.fast.txt2vid.v1",
    "config": {"prompt": "waves", "seed": 1},
}
BANANA: dict[str, Any] = {"type": "inference.nano-banana.txt2img.v2", "config": {"prompt": "x"}}
SMALL: dict[str, Any] = {
    "type": "inference.flux-fast.schnell.txt2img.v2",
    "config": {"prompt": "a lake", "seed": 1, "width": 256, "height": 256},
}


class Reader:
    """The five requests of the async API, with a token."""

    def __init__(self, emulator: Emulator) -> None:
        self.url = f"{emulator.base_url}/v2/job/async"
        self.http = httpx.Client(
            headers={"authorization": f"Bearer {TOKEN}"},
            verify=False,
        )

    def post(self, job: Any, **options: Any) -> httpx.Response:
        return self.http.post(self.url, json=job, **options)

    def submit(self, job: Any = SMALL, **options: Any) -> str:
        response = self.post(job, **options)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    def get(self, key: str, path: str) -> httpx.Response:
        return self.http.get(f"{self.url}/{key}/{path}")

    def state(self, key: str) -> str:
        return self.get(key, "job.state.current").text

    def finish(self, key: str) -> str:
        while (state := self.state(key)) == "processing":
            pass
        return state


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(tokens=[TOKEN]) as emulator:
        yield emulator


@pytest.fixture
def reader(emulator: Emulator) -> Iterator[Reader]:
    reader = Reader(emulator)
    with reader.http:
        yield reader


# The flow.


def test_from_submission_to_output(emulator: Emulator, reader: Reader) -> None:
    """A film is submitted, polled, listed and fetched, and charged once."""
    emulator.hold()
    response = reader.post(FILM)
    created = response.json()
    assert (response.status_code, response.headers["content-type"]) == (201, "application/json")
    assert response.content.startswith(b'{"id":"')
    assert response.content.endswith(b"}\n")
    assert uuid.UUID(created["id"]).version == 4
    assert created["state"] == {"current": "processing", "history": None}
    assert (reader.state(created["id"]), emulator.busy) == ("processing", 1)
    emulator.release()
    assert reader.finish(created["id"]) == "processed"
    assert emulator.busy == 0
    listing = reader.get(created["id"], "output")
    assert listing.content == b'["video.mp4"]\n'
    film = reader.get(created["id"], "output/video.mp4")
    assert (film.headers["content-type"], film.content[4:8]) == ("video/mp4", b"ftyp")
    totals = emulator.ledger.totals()
    assert (totals.submitted, totals.ran, totals.charged, totals.dollars) == (1, 1, 1, 0.8)


def test_the_finished_result(emulator: Emulator, reader: Reader) -> None:
    """job.json has the filled config, metrics, and the times of the submission."""
    created = reader.post(SMALL).json()
    reader.finish(created["id"])
    response = reader.get(created["id"], "job.json")
    result = response.json()
    assert response.headers["content-type"] == "application/json"
    assert result["config"] == {**SMALL["config"], "steps": 4}
    assert result["state"]["current"] == "processed"
    assert result["metrics"]["elapsed"] > 0
    assert (result["created_at"], result["expires_at"]) == (
        created["created_at"],
        created["expires_at"],
    )
    start, end = (datetime.fromisoformat(created[name]) for name in ("created_at", "expires_at"))
    assert end - start == timedelta(seconds=300)
    assert result["updated_at"] > result["created_at"]


def test_a_form_and_a_format(reader: Reader) -> None:
    """A multipart submission works likewise; Accept decides the type of the first output."""
    files: list[tuple[str, Any]] = [("job", ("job.json", json.dumps(SMALL), "application/json"))]
    for accept, media_type in (("image/png", "image/png"), ("application/json", "image/jpeg")):
        response = reader.http.post(reader.url, files=files, headers={"accept": accept})
        key = response.json()["id"]
        reader.finish(key)
        [name] = reader.get(key, "output").json()
        assert str(uuid.UUID(name)) == name
        assert reader.get(key, f"output/{name}").headers["content-type"] == media_type


def test_the_price_comes_with_the_finished_job(reader: Reader) -> None:
    """price=true on the POST or on the GET shows the price, but not before the end."""
    early = reader.post(SMALL, params={"price": "true"})
    late = reader.submit()
    assert "price" not in early.json()
    for key, query, there in (
        (early.json()["id"], "", True),
        (late, "?price=true", True),
        (late, "", False),
    ):
        reader.finish(key)
        result = reader.get(key, f"job.json{query}").json()
        assert ("price" in result) is there
        if there:
            assert result["price"]["dollars"] == 0.0025


def test_a_workflow_in_the_background(emulator: Emulator, reader: Reader) -> None:
    """A workflow may be submitted too; it costs what its steps cost."""
    job = {"type": "workflow.serial.v1", "jobs": [SMALL, {"type": "inference.upscale.v1"}]}
    key = reader.submit(job)
    assert reader.finish(key) == "processed"
    assert len(reader.get(key, "job.json").json()["jobs"]) == 2
    assert emulator.ledger[0].dollars == 0.0035


def test_jobs_survive_the_connection_and_a_restart(emulator: Emulator) -> None:
    """Whoever knows the key can collect, also after the emulator was stopped and started."""
    first = Reader(emulator)
    key = first.submit(FILM)
    first.finish(key)
    first.http.close()
    emulator.stop()
    emulator.start()
    second = Reader(emulator)
    with second.http:
        assert second.get(key, "output").json() == ["video.mp4"]
    assert emulator.async_jobs == {key: "processed"}


def test_stopping_fails_what_is_under_way(emulator: Emulator, reader: Reader) -> None:
    """A job that runs while the emulator stops ends failed, and its worker is idle again."""
    emulator.hold()
    key = reader.submit()
    emulator.stop()
    assert emulator.busy == 0
    assert emulator.async_jobs == {key: "failed"}


# Refusals.


def test_a_type_without_permit_is_400(emulator: Emulator, reader: Reader) -> None:
    """nano-banana does not permit async, alone or in a workflow; which types can be said."""
    serial = {"type": "workflow.serial.v1", "jobs": [SMALL, BANANA]}
    for job in (BANANA, serial):
        response = reader.post(job)
        assert response.status_code == 400
        assert "does not support async" in response.json()["error"]
    with Emulator(sync_only_types=["inference.ping.v1"]) as other:
        reader = Reader(other)
        with reader.http:
            assert [reader.post(job).status_code for job in (PING, BANANA)] == [400, 201]
    assert emulator.ledger.totals().charged == 0


def test_bad_configurations_are_400(reader: Reader) -> None:
    """A submission is judged as a sync job is, before anything is created."""
    wrong = {**SMALL, "config": {"steps": 1000}}
    assert "maximum: got 1,000" in reader.post(wrong).json()["error"]
    assert reader.post({"type": "x"}).json()["error"] == "unknown job type"
    assert reader.http.post(reader.url, content=b"{").status_code == 400


def test_the_async_limit(emulator: Emulator, reader: Reader) -> None:
    """One unfinished job more than the limit is a 429; a finished one makes room."""
    emulator.max_async_jobs = 2
    emulator.hold()
    ids = [reader.submit() for _ in range(2)]
    refused = reader.post(SMALL)
    assert (refused.status_code, refused.text) == (429, "async job limit reached")
    assert refused.headers["retry-after"] == "1"
    emulator.release()
    assert {reader.finish(key) for key in ids} == {"processed"}
    reader.submit()
    assert emulator.ledger.totals().charged == 3


def test_no_idle_worker(emulator: Emulator, reader: Reader) -> None:
    """Async jobs hold the same workers as sync ones."""
    emulator.workers = 1
    emulator.hold()
    reader.submit()
    assert reader.post(SMALL).text == "no idle capacity"
    sync = reader.http.post(f"{emulator.base_url}/v2/job", json=SMALL)
    assert sync.status_code == 429


READS = ("job.state.current", "job.json", "output", "output/video.mp4")


@pytest.mark.parametrize("path", READS)
def test_every_read_needs_the_token(emulator: Emulator, reader: Reader, path: str) -> None:
    """Without a token each read is a 401, for known and unknown ids alike."""
    key = reader.submit(FILM)
    reader.finish(key)
    for job in (key, str(uuid.uuid4())):
        url = f"{emulator.base_url}/v2/job/async/{job}/{path}"
        response = httpx.get(url, verify=False)
        assert (response.status_code, response.text) == (401, "token is invalid")
        assert uuid.UUID(response.headers["x-request-id"]).version == 4


@pytest.mark.parametrize("path", READS)
def test_unknown_and_expired_ids_are_404(emulator: Emulator, reader: Reader, path: str) -> None:
    """An key nobody gave, and one whose time has passed, are the same 404."""
    key, other = reader.submit(FILM), reader.submit(FILM)
    reader.finish(key)
    reader.finish(other)
    assert reader.get(key, path).status_code == 200
    emulator.expire(key)
    for gone in (key, str(uuid.uuid4())):
        response = reader.get(gone, path)
        assert (response.status_code, response.text) == (404, "job not found")
        assert emulator.ledger[-1].job_id == gone
    assert reader.get(other, path).status_code == 200
    assert list(emulator.async_jobs) == [other]


def test_a_short_life(emulator: Emulator, reader: Reader) -> None:
    """The lifetime is as short as one likes, and expires_at tells it."""
    emulator.behave(expires_after=0.05)
    result = reader.post(SMALL).json()
    start, end = (datetime.fromisoformat(result[name]) for name in ("created_at", "expires_at"))
    assert end - start == timedelta(seconds=0.05)
    while reader.get(result["id"], "job.json").status_code == 200:
        pass
    assert reader.get(result["id"], "job.json").status_code == 404
    assert emulator.async_jobs == {}


def test_outputs_that_are_not_there(emulator: Emulator, reader: Reader) -> None:
    """Names that were not listed are 404, and so is the listing of an unfinished job."""
    emulator.hold()
    key = reader.submit(FILM)
    assert reader.get(key, "output").status_code == 404
    assert reader.get(key, "output/video.mp4").status_code == 404
    emulator.release()
    reader.finish(key)
    for name in ("other.mp4", "..%2fvideo.mp4", "%2e%2e", "a/b"):
        assert reader.get(key, f"output/{name}").status_code == 404
    assert reader.http.get(f"{reader.url}/{key}").status_code == 404
    assert reader.http.delete(f"{reader.url}/{key}/job.json").status_code == 405


# Failures.


def test_a_job_that_fails(emulator: Emulator, reader: Reader) -> None:
    """It ends failed, tells why in job.json, has no output, and was charged."""
    job = {**SMALL, "config": {"prompt": "a fox [fail: out of memory]"}}
    key = reader.submit(job)
    assert reader.finish(key) == "failed"
    result = reader.get(key, "job.json").json()
    assert (result["state"]["current"], result["error"]) == ("failed", "out of memory")
    assert reader.get(key, "output").json() == []
    assert emulator.ledger.totals().charged == 1


def test_failures_are_planned(emulator: Emulator, reader: Reader) -> None:
    """So many jobs of a type or with a text in the prompt fail; the rest do not."""
    emulator.fail_jobs(1, "no luck", type=FILM["type"])
    emulator.fail_jobs(None, prompt="lake")
    errors = []
    for job in (PING, FILM, FILM, SMALL, SMALL):
        key = reader.submit(job)
        reader.finish(key)
        errors.append(reader.get(key, "job.json").json().get("error"))
    assert errors == [None, "no luck", None, "inference failed", "inference failed"]
    emulator.forget_failures()
    assert reader.finish(reader.submit()) == "processed"


def test_a_damaged_input_fails_in_the_background(reader: Reader) -> None:
    """What is found out while the job runs ends it, with the reason."""
    target = io.BytesIO()
    Image.new("RGB", (500, 500)).save(target, "JPEG")
    picture = target.getvalue()[:2000]
    job = json.dumps({"type": "inference.remove-background.v1"})
    files: list[tuple[str, Any]] = [
        ("job", ("job.json", job, "application/json")),
        ("input", ("a.jpg", picture, "image/jpeg")),
    ]
    key = reader.http.post(reader.url, files=files).json()["id"]
    assert reader.finish(key) == "failed"
    assert "a.jpg" in reader.get(key, "job.json").json()["error"]


def test_planned_replies(emulator: Emulator, reader: Reader) -> None:
    """Errors can be planned for submissions, and apart from them for reads."""
    key = reader.submit()
    emulator.fail_next(status=502)
    emulator.fail_next(2, 503, reads=True, retry_after=3)
    assert emulator.planned == 3
    assert reader.post(SMALL).status_code == 502
    answers = [reader.get(key, "job.state.current") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].headers["retry-after"] == "3"
    assert emulator.ledger.totals().charged == 1


# Switches.


@pytest.mark.parametrize(
    ("changes", "texts", "words"),
    [
        ({}, ["processing", "processed"], ["processing", "processed"]),
        ({"state_words": "sync"}, ["processing", "completed"], ["processing", "processed"]),
        ({"job_state_words": "sync"}, ["processing", "processed"], ["processing", "completed"]),
        ({"quoted_state": True}, ['"processing"', '"processed"'], ["processing", "processed"]),
        (
            {"state_words": {"processing": "queued"}},
            ["queued", "processed"],
            ["processing", "processed"],
        ),
    ],
)
def test_words_and_quotes(
    emulator: Emulator, reader: Reader, changes: Any, texts: list[str], words: list[str]
) -> None:
    """Each surface has its vocabulary, and the text can be quoted."""
    emulator.behave(**changes)
    emulator.hold()
    key = reader.submit()
    seen = [(reader.state(key), reader.get(key, "job.json").json()["state"]["current"])]
    emulator.release()
    while emulator.async_jobs[key] == "processing":
        pass
    seen.append((reader.state(key), reader.get(key, "job.json").json()["state"]["current"]))
    assert seen == list(zip(texts, words, strict=True))
    media_type = reader.get(key, "job.state.current").headers["content-type"]
    assert media_type.startswith("text/plain")


@pytest.mark.parametrize(
    ("listing", "body"),
    [
        (lambda names: ["../x", *names], b'["../x","video.mp4"]\n'),
        (lambda _: {"outputs": []}, b'{"outputs":[]}\n'),
        (lambda _: [1, None], b"[1,null]\n"),
        (lambda _: b"<html>", b"<html>"),
    ],
)
def test_a_listing_that_misbehaves(
    emulator: Emulator, reader: Reader, listing: Any, body: bytes
) -> None:
    """The listing can be anything: names that lead elsewhere, no list, no JSON."""
    emulator.behave(listing=listing)
    key = reader.submit(FILM)
    reader.finish(key)
    assert reader.get(key, "output").content == body
    assert reader.get(key, "output/video.mp4").status_code == 200


def test_a_poster_beside_the_film(emulator: Emulator, reader: Reader) -> None:
    """With the switch a film has two outputs, both listed and fetched by name."""
    emulator.behave(poster=True)
    key = reader.submit(FILM)
    reader.finish(key)
    assert reader.get(key, "output").json() == ["video.mp4", "poster.jpg"]
    assert reader.get(key, "output/poster.jpg").headers["content-type"] == "image/jpeg"


def test_old_behaviour(reader: Reader, emulator: Emulator) -> None:
    """Early 2025: unknown types are 429, results live 60 s, errors stand in the history alone."""
    emulator.behaviour = Behaviour.early_2025()
    unknown: tuple[dict[str, Any], ...] = ({"type": "inference.none.v1"}, {"config": {}})
    for job in unknown:
        for url in (reader.url, f"{emulator.base_url}/v2/job"):
            response = reader.http.post(url, json=job)
            assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    created = reader.post({**SMALL, "config": {"prompt": "[fail: dark]"}}).json()
    start, end = (datetime.fromisoformat(created[name]) for name in ("created_at", "expires_at"))
    assert end - start == timedelta(seconds=60)
    reader.finish(created["id"])
    wrong = reader.post({**SMALL, "config": {}})
    for result, text in (
        (reader.get(created["id"], "job.json").json(), "dark"),
        (wrong.json(), "missing property 'prompt'"),
    ):
        assert "error" not in result
        assert text in result["state"]["history"][-1]["message"]


def test_a_price_that_is_null(emulator: Emulator, reader: Reader) -> None:
    """The switch makes the price null on both surfaces, where one was asked for."""
    emulator.behave(price_null=True)
    sync = reader.http.post(f"{emulator.base_url}/v2/job?price=true", json=PING)
    assert sync.json()["price"] is None
    key = reader.submit()
    reader.finish(key)
    assert reader.get(key, "job.json?price=true").json()["price"] is None
    assert "price" not in reader.get(key, "job.json").json()


def test_a_failed_sync_job(emulator: Emulator, reader: Reader) -> None:
    """Its answer is a 400 that costs nothing, or by the switch a 200 that is charged."""
    url, job = f"{emulator.base_url}/v2/job", {**SMALL, "config": {"prompt": "[fail]"}}
    for status, charged in ((400, False), (200, True)):
        emulator.behave(failure_status=status)
        response = reader.http.post(url, json=job, headers={"accept": "image/png"})
        result = response.json()
        assert response.status_code == status
        assert (result["state"]["current"], result["error"]) == ("failed", "inference failed")
        record = emulator.ledger[-1]
        assert (record.ran, record.charged, record.job_id) == (True, charged, result["id"])


def test_equal_names_can_be_refused(emulator: Emulator, reader: Reader) -> None:
    """With the switch two inputs of one name are a 400, though the job names neither."""
    emulator.behave(strict_filenames=True)
    job = json.dumps({"type": "inference.faceswap.v1"})
    files: list[tuple[str, Any]] = [("job", ("job.json", job, "application/json"))]
    files += [("input", ("image.jpg", b"1", "image/jpeg"))] * 2
    response = reader.http.post(f"{emulator.base_url}/v2/job", files=files)
    assert response.status_code == 400
    assert "'image.jpg' is not unique" in response.json()["error"]


@pytest.mark.parametrize(
    "accept", ["image/jpeg;quality=100", "image/webp;method=-3", "image/png;level=5;optimize=x"]
)
def test_encoder_parameters_can_be_clamped(emulator: Emulator, reader: Reader, accept: str) -> None:
    """With the switch a parameter out of range is the nearest in it, and others are ignored."""
    url, headers = f"{emulator.base_url}/v2/job", {"accept": accept}
    assert reader.http.post(url, json=SMALL, headers=headers).status_code == 400
    emulator.behave(clamp_encoder=True)
    clamped = reader.http.post(url, json=SMALL, headers=headers)
    assert clamped.status_code == 200
    media_type = accept.partition(";")[0]
    nearest = {"image/jpeg": ";quality=95", "image/webp": ";method=0"}.get(media_type, "")
    exact = reader.http.post(url, json=SMALL, headers={"accept": media_type + nearest})
    assert clamped.content == exact.content


def test_mistakes_in_a_behaviour() -> None:
    """A value that makes no sense is an error at once, and so is a switch nobody knows."""
    wrongs: tuple[dict[str, Any], ...] = (
        {"expires_after": -1},
        {"failure_status": 500},
        {"unknown_type_status": 404},
        {"state_words": "other"},
    )
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"0 or more|is 4|is 2|vocabulary"):
            Behaviour(**wrong)
    with pytest.raises(TypeError):
        Emulator().behave(colour="red")
    with pytest.raises(ValueError, match="max_async_jobs"):
        Emulator(max_async_jobs=-1)


# Always.


def test_a_bug_in_a_users_function(
    emulator: Emulator, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    """A latency function that raises is a 500 with a request key, and fails an async job."""

    def latency(name: str) -> float:
        raise ZeroDivisionError(name)

    emulator.latency = latency
    with caplog.at_level(logging.CRITICAL, "prodia_async.emulator"):
        response = reader.http.post(f"{emulator.base_url}/v2/job", json=PING)
        key = reader.submit(PING)
        assert reader.finish(key) == "failed"
    assert (response.status_code, response.text) == (500, "internal server error")
    record = next(record for record in emulator.ledger if record.status == 500)
    assert record.request_id == response.headers["x-request-id"]
    assert (record.error, record.charged) == ("ZeroDivisionError: inference.ping.v1", False)
    assert "ZeroDivisionError" in reader.get(key, "job.json").json()["error"]
    assert emulator.busy == 0


def test_no_redirects(reader: Reader, emulator: Emulator) -> None:
    """A path with a slash too many is a 404 with a request id."""
    response = reader.http.post(f"{emulator.base_url}/v2/job/", json=PING)
    assert response.status_code == 404
    assert uuid.UUID(response.headers["x-request-id"]).version == 4


def test_the_api_describes_itself(reader: Reader, emulator: Emulator) -> None:
    """openapi.json needs the token and names every endpoint."""
    url = f"{emulator.base_url}/v2/openapi.json"
    assert httpx.get(url, verify=False).status_code == 401
    paths = reader.http.get(url).json()["paths"]
    assert "/v2/job/async/{id}/output/{filename}" in paths
    assert len(paths) == 6


def test_the_store_is_bounded(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the most that are kept, the oldest are forgotten."""
    monkeypatch.setattr("prodia_async.emulator.prodia._store._MOST_KEPT", 2)
    ids = []
    for _ in range(3):
        ids.append(reader.submit(PING))
        reader.finish(ids[-1])
    codes = [reader.get(key, "job.json").status_code for key in ids]
    assert codes == [404, 200, 200]
