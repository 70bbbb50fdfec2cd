"""The whole path over real sockets, against the emulator, which shares no code with the client."""

from __future__ import annotations

import hashlib
import io
import logging
from typing import TYPE_CHECKING

import anyio
import pytest
from conftest import on_both_loops
from PIL import Image

from prodia_async import (
    JPEG,
    PNG,
    AsyncProdia,
    AttemptDetails,
    AuthenticationError,
    BadRequestError,
    CapacityError,
    Input,
    Job,
    JobDetails,
    JobFailedError,
    JobNotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RetryPolicy,
    WebP,
)
from prodia_async.emulator import Behaviour, Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PING = {"type": "inference.ping.v1"}
PICTURE = Job(
    "inference.flux-fast.schnell.txt2img.v2",
    {"prompt": "a strawberry", "seed": 42, "width": 256, "height": 256},
)


@on_both_loops
async def test_a_picture_and_its_job_result() -> None:
    """Defaults come filled in, the picture decodes, and the price comes when asked."""
    async with Emulator() as emulator:
        async with AsyncProdia("t", base_url=emulator.base_url, price=True) as prodia:
            response = await prodia.job(PICTURE, accept=WebP(lossless=True))
            assert prodia.statistics().dollars > 0
    job = response.job
    assert job is not None
    assert job.succeeded
    assert job.config is not None
    assert (job.config["steps"], job.config["seed"]) == (4, 42)
    assert job.price is not None
    assert job.price.dollars
    assert response.output.content_type == "image/webp"
    assert Image.open(io.BytesIO(response.output.content)).size == (256, 256)


@on_both_loops
async def test_lossless_formats_hold_the_same_pixels() -> None:
    """PNG, the smallest PNG and lossless WebP differ in size alone."""
    formats = [PNG(), PNG(compress_level=9, optimize=True), WebP(lossless=True, method=6)]
    async with Emulator() as emulator, AsyncProdia("t", base_url=emulator.base_url) as prodia:
        contents = [(await prodia.job(PICTURE, accept=each)).output.content for each in formats]
        jpeg = (await prodia.job(PICTURE, accept=JPEG(quality=95, subsampling="444"))).output
    pixels = {Image.open(io.BytesIO(each)).convert("RGB").tobytes() for each in contents}
    assert len(pixels) == 1
    assert len(set(contents)) == 3
    first_component = Image.open(io.BytesIO(jpeg.content)).layer[0]  # type: ignore[attr-defined]
    assert first_component[1:3] == (1, 1)


@on_both_loops
async def test_inputs_arrive_as_they_are_and_again_after_a_refusal(tmp_path: Path) -> None:
    """The job part comes first, then the inputs, names and bytes exact, on every attempt."""
    first, second = picture_bytes(1), picture_bytes(2)
    path = tmp_path / "zwei wörter.png"
    await anyio.Path(path).write_bytes(first)

    async def pieces() -> AsyncIterator[bytes]:
        yield second[:1000]
        yield second[1000:]

    inputs: list[Path | Input] = [path, Input(pieces, "scene.png", size=len(second))]
    job = Job(
        "inference.nano-banana.img2img.v2",
        {"prompt": "combine", "images": ["zwei wörter.png", "scene.png"]},
    )
    async with Emulator(retry_after=0.01) as emulator:
        emulator.fail_next(1, 429)
        async with AsyncProdia("t", base_url=emulator.base_url) as prodia:
            response = await prodia.job(job, inputs=inputs)
        records = emulator.ledger.records()
    assert [each.status_code for each in response.attempts] == [429, 200]
    for record in records:
        assert record.parts == ("job", "input", "input")
        assert record.job_filename == "job.json"
        assert [each.filename for each in record.inputs] == ["zwei wörter.png", "scene.png"]
        assert [each.sha256 for each in record.inputs] == [
            hashlib.sha256(each).hexdigest() for each in (first, second)
        ]
    assert [record.charged for record in records] == [False, True]


def picture_bytes(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (320, 200), (seed * 90, 40, 60)).save(buffer, "PNG")
    return buffer.getvalue()


@on_both_loops
async def test_a_thousand_jobs_against_twenty_workers() -> None:
    """All complete, none is lost, none is sent twice, and refusals are few."""
    async with Emulator(workers=20, latency=0.01, retry_after=0.05) as emulator:
        async with AsyncProdia("t", base_url=emulator.base_url) as prodia:
            async with prodia.map(PING for _ in range(1000)) as outcomes:
                jobs = [each.unwrap().job async for each in outcomes]
            counts = prodia.statistics()
        totals = emulator.ledger.totals()
    assert len({job.id for job in jobs if job}) == 1000
    assert (totals.ran, totals.charged, totals.refused) == (1000, 1000, counts.refusals)
    assert counts.completed == 1000
    assert counts.refusals < 250


@pytest.mark.parametrize(
    ("job", "inputs", "message"),
    [
        ({"type": "inference.nothing.v1"}, [], "unknown job type"),
        (Job("inference.flux.schnell.txt2img.v1", {"prompt": "x" * 9, "steps": 1000}), [],
         "maximum: got 1,000"),
    ],
)  # fmt: skip
@on_both_loops
async def test_a_bad_job_says_what_is_wrong(job: Job, inputs: list[bytes], message: str) -> None:
    """A 400 is raised at once, in the server's words, with the ids."""
    async with Emulator() as emulator, AsyncProdia("t", base_url=emulator.base_url) as prodia:
        with pytest.raises(BadRequestError, match=message) as caught:
            await prodia.job(job, inputs=inputs)
        assert len(emulator.ledger) == 1
    assert caught.value.job_id
    assert caught.value.request_id
    assert not caught.value.may_have_run


@on_both_loops
async def test_statuses_that_are_final() -> None:
    """401, 403 and 413 are raised at once, as what they are."""
    async with Emulator(tokens=["right"], max_upload_bytes=1000) as emulator:
        wrong = AsyncProdia("wrong", base_url=emulator.base_url)
        async with wrong, AsyncProdia("right", base_url=emulator.base_url) as prodia:
            with pytest.raises(AuthenticationError, match="token is invalid"):
                await wrong.job(PING)
            emulator.fail_next(1, 403)
            with pytest.raises(PermissionDeniedError):
                await prodia.job(PING)
            with pytest.raises(PayloadTooLargeError):
                await prodia.job(
                    {"type": "inference.flux.schnell.img2img.v1", "config": {"prompt": "abc"}},
                    inputs=[bytes(2000)],
                )
        assert emulator.ledger.totals().charged == 0


@on_both_loops
async def test_hooks_and_logs_follow_each_attempt(caplog: pytest.LogCaptureFixture) -> None:
    """A hook is told of every attempt; each retry is one line at INFO; a broken hook harms none."""
    told: list[AttemptDetails] = []

    def hook(details: AttemptDetails) -> None:
        told.append(details)
        raise LookupError("a broken metric")

    caplog.set_level(logging.INFO, logger="prodia_async")
    retry = RetryPolicy(backoff_initial=0.01)
    async with Emulator() as emulator:
        emulator.fail_next(1, 503)
        async with AsyncProdia("t", base_url=emulator.base_url, retry=retry, hook=hook) as prodia:
            await prodia.job(PING)
    of_attempts = [each for each in told if not isinstance(each, JobDetails)]
    assert [(each.event, each.number) for each in of_attempts] == [
        ("started", 1), ("finished", 1), ("waiting", 1), ("started", 2), ("finished", 2),
    ]  # fmt: skip
    of_jobs = [each for each in told if isinstance(each, JobDetails)]
    assert [(each.event, each.number) for each in of_jobs] == [("queued", 0), ("finished", 2)]
    attempt = of_attempts[1].attempt
    assert attempt is not None
    assert (attempt.fate, attempt.status_code) == ("server fault", 503)
    infos = [each.message for each in caplog.records if each.levelno == logging.INFO]
    assert len(infos) == 1
    assert infos[0].startswith("inference.ping.v1: attempt 1: 503 then 0.0")


VIDEO = Job("inference.wan2-2.lightning.txt2vid.v0", {"prompt": "a wave"})


@on_both_loops
async def test_a_video_left_with_the_server(tmp_path: Path) -> None:
    """Submitted, picked up by id, waited for, saved; one charge, and the price with the result."""
    async with Emulator(latency=0.2) as emulator:
        emulator.behave(quoted_state=True)
        async with AsyncProdia("t", base_url=emulator.base_url, price=True) as prodia:
            submitted = await prodia.submit(VIDEO)
            response = await prodia.async_job(submitted.id).result(poll=0.05)
            assert response.job is not None
            assert response.job.price is not None
            assert response.job.price.dollars
            assert response.output.content_type == "video/mp4"
            assert (await response.output.save(tmp_path)).name == "video.mp4"
            again = await prodia.job(VIDEO, via="async", deadline=20)
            assert again.output.content[4:8] == b"ftyp"
        assert emulator.ledger.totals().charged == 2


@on_both_loops
async def test_async_jobs_that_fail_expire_or_are_not_permitted() -> None:
    """Each is a typed error that knows the job's id, where there is one."""
    async with Emulator() as emulator:
        async with AsyncProdia("t", base_url=emulator.base_url) as prodia:
            emulator.fail_jobs(1, "the film tore")
            failing = await prodia.submit(VIDEO)
            with pytest.raises(JobFailedError, match="the film tore") as failed:
                await failing.result(poll=0.05)
            assert failed.value.job_id == failing.id
            gone = await prodia.submit(VIDEO)
            emulator.expire(gone.id)
            with pytest.raises(JobNotFoundError, match="expired"):
                await gone.result()
            with pytest.raises(BadRequestError, match="does not support async"):
                await prodia.submit(
                    Job("inference.nano-banana.txt2img.v2", {"prompt": "a mug", "images": []})
                )


@on_both_loops
async def test_a_workflow_and_its_moderation() -> None:
    """Steps run one after the other; a tripped moderation names itself, refused or failed."""
    picture = {"width": 256, "height": 256, "seed": 1}
    steps = "inference.flux-fast.schnell.txt2img.v2"
    fine = Job.serial(Job(steps, {"prompt": "a cat", **picture}), Job.moderate(threshold=0.95))
    bad = Job.serial(Job(steps, {"prompt": "nsfw", **picture}), Job.moderate(threshold=0.95))
    async with Emulator() as emulator, AsyncProdia("t", base_url=emulator.base_url) as prodia:
        assert (await prodia.job(fine)).output.content_type == "image/jpeg"
        with pytest.raises(BadRequestError, match="moderat"):
            await prodia.job(bad)
        emulator.behave(failure_status=200)
        with pytest.raises(JobFailedError, match="moderat"):
            await prodia.job(bad)


@on_both_loops
async def test_errors_of_early_2025() -> None:
    """An error told only in the state's history is read there; an unknown type may be a 429."""
    async with Emulator(behaviour=Behaviour.early_2025()) as emulator:
        retry = RetryPolicy(max_capacity_wait=0.05)
        async with AsyncProdia("t", base_url=emulator.base_url, retry=retry) as prodia:
            with pytest.raises(BadRequestError, match="maximum: got 1,000") as caught:
                await prodia.job(
                    Job("inference.flux.schnell.txt2img.v1", {"prompt": "x" * 9, "steps": 1000})
                )
            assert caught.value.job_id
            with pytest.raises(CapacityError, match="a wrong job type"):
                await prodia.job({"type": "inference.nothing.v1"})
