"""The public surface as a user types it. Checked by mypy, never run."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

import httpx
import tenacity

from prodia_async import (
    JPEG,
    PNG,
    APIStatusError,
    AsyncProdia,
    Attempt,
    AttemptDetails,
    CapacityError,
    DeadlineExceededError,
    Input,
    Job,
    JobDetails,
    JobFailedError,
    JobOutcome,
    JobRefusedError,
    JobRequest,
    JobResponse,
    JobResult,
    JobStream,
    MapProgress,
    Output,
    OutputPart,
    Price,
    ProdiaError,
    QueueFullError,
    RateLimitError,
    ResponseError,
    RetryPolicy,
    SchedulerStatistics,
    Timing,
    WebP,
)
from prodia_async.fireworks import (
    AsyncFireworks,
    Image,
    ImageOutcome,
    ImageResponse,
    ImageToImage,
    OrderLike,
    QRCode,
    verify_webhook,
)
from prodia_async.types import InputLike, JobLike, JobState, Outcomes, Unfinished


async def token() -> str:
    return "t"


async def chunks() -> AsyncIterator[bytes]:
    yield b"x"


def hook(details: AttemptDetails) -> None:
    assert_type(details.attempt, Attempt | None)
    match details:
        case JobDetails(event="finished", index=index, dollars=dollars):
            assert_type(index, int | None)
            assert_type(dollars, float)
        case _:
            assert_type(details.request_id, str | None)


async def readme() -> None:
    """The README's first example."""
    async with AsyncProdia() as client:
        job = Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": "a strawberry", "seed": 42})
        response = await client.job(job, accept=WebP(quality=90))
        print(response.seed, response.output)
        await response.save("strawberry.webp")


async def defaults() -> None:
    client = AsyncProdia(accept=PNG(), extra_headers={"x": "y"}, max_queued=3, cache=Path("c"))
    client.with_options(accept=None, max_queued=None, cache="c", validate="warn")
    client.with_options(validate="all")  # type: ignore[arg-type]  # no such check
    policy = RetryPolicy(
        wait=tenacity.wait_exponential_jitter(), stop=tenacity.stop_after_delay(60)
    )
    client.with_options(retry=policy)
    await client.job(Job("t"), imputs=[b"x"])  # type: ignore[call-arg]  # no such option
    await client.submit(Job("t"), via="async")  # type: ignore[call-arg]  # it always is
    left = await client.drain(timeout=5.0)
    assert_type(left[0].may_have_run, bool)


async def of_ones_own(client: AsyncProdia, job: JobLike, *inputs: InputLike) -> list[JobState]:
    left: tuple[Unfinished, ...] = ()
    outcomes: Outcomes[JobLike | JobRequest, JobOutcome] = client.map([job])
    response = await client.job(job, inputs=inputs)
    left += await client.drain()
    print(outcomes, left)
    return [response.job.state] if response.job is not None else []


def progress(told: MapProgress) -> None:
    assert_type(told.done, int)


async def bulk(client: AsyncProdia) -> None:
    jobs = [JobRequest(Job("t"), via="async", tag=("row", 1))]
    async with client.map(jobs, accept=WebP(), price=True, progress=progress) as outcomes:
        async for outcome in outcomes:
            assert_type(outcome.tag, Any)
            if outcome.error is not None:
                print(outcome.error)
            else:
                await outcome.response.save("out/")
        outcomes.stop()
    assert_type(outcomes.unread(), tuple[JobOutcome, ...])


def told_apart_by_themselves(outcome: JobOutcome) -> Path | None:
    """An outcome is true if it was answered."""
    if outcome:
        assert_type(outcome.response, JobResponse)
        assert_type(outcome.error, None)
        return None
    assert_type(outcome.response, None)
    raise outcome.error


def stages(error: DeadlineExceededError | QueueFullError | JobRefusedError) -> None:
    assert_type(error.reason, str | None)
    if isinstance(error, DeadlineExceededError) and error.stage == "refused":
        assert_type(error.retry_after, float | None)
    if isinstance(error, JobRefusedError):
        assert_type(error.status_code, int)


async def build() -> None:
    AsyncProdia()
    AsyncProdia("token", max_concurrency=5, adaptive=False, price=True, hook=hook)
    AsyncProdia(token, transport=httpx.AsyncHTTPTransport(), deadline=None)
    AsyncProdia(http_client=httpx.AsyncClient(), retry=RetryPolicy(max_attempts=1))
    AsyncProdia(tokn="x")  # type: ignore[call-arg]  # no such option
    AsyncProdia("t", "https://x")  # type: ignore[call-arg]  # by keyword only
    RetryPolicy(max_attempts="4")  # type: ignore[arg-type]  # a number
    async with AsyncProdia() as client:
        assert_type(client, AsyncProdia)
        assert_type(client.with_options(price=True, deadline=None), AsyncProdia)
        client.with_options(max_concurrency=3)  # type: ignore[call-arg]  # not shared by views
        assert_type(client.statistics(), SchedulerStatistics)


async def one_job(client: AsyncProdia) -> None:
    config: Mapping[str, Any] = {"prompt": "x"}
    job = Job("t", config)
    assert_type(await client.job(job), JobResponse)
    await client.job({"type": "t", "config": {"prompt": "x"}})
    await client.job(job, inputs=["a.png", Path("b.png"), b"bytes", Input(b"x", "c.png")])
    await client.job(job, inputs=[Input(chunks, size=1), bytearray(b"x"), memoryview(b"x")])
    await client.job(job, accept=JPEG(quality=95, subsampling="444"), multipart=False)
    await client.job(job, accept="video/mp4", extra_headers={"x": "y"}, extra_query={"a": "b"})
    await client.job(job, accept=5)  # type: ignore[arg-type]  # no format
    await client.job("t")  # type: ignore[arg-type]  # no job
    await client.job(job, inputs=[5])  # type: ignore[list-item]  # no input
    JPEG(subsampling="411")  # type: ignore[arg-type]  # not documented
    PNG(compress_level=9, optimize=True)
    WebP(9)  # type: ignore[call-arg]  # by keyword only
    Job("t", config=[1])  # type: ignore[arg-type]  # a mapping


async def the_answer(response: JobResponse) -> None:
    assert_type(response.job, JobResult | None)
    assert_type(response.content, bytes)
    assert_type(response.seed, int | None)
    assert_type(response.dollars, float | None)
    assert_type(response.config["seed"], Any)
    assert_type(response.headers, Mapping[str, str])
    assert_type(await response.save("out/", overwrite=True), Path)
    assert_type(response.output.to_pil().size, tuple[int, int])
    assert_type(response.outputs, tuple[Output, ...])
    assert_type(response.output, Output)
    assert_type(response.output.content, bytes)
    assert_type(response.output.filename, str | None)
    assert_type(response.output.suffix, str)
    assert_type(await response.output.save("x"), Path)
    assert_type(response.request_id, str | None)
    assert_type(response.attempts, tuple[Attempt, ...])
    assert_type(response.timing, Timing)
    if response.job is not None:
        assert_type(response.job.created_at, datetime | None)
        assert_type(response.job.price, Price | None)
        assert_type(response.job.state.current, str | None)
        assert_type(response.job.succeeded, bool)
        response.job.id = "x"


async def streaming(client: AsyncProdia) -> None:
    async with client.stream(Job("t"), accept="video/mp4") as stream:
        assert_type(stream, JobStream)
        async for part in stream:
            match part:
                case JobResult():
                    assert_type(part.id, str | None)
                case OutputPart():
                    assert_type(await part.save("clip.mp4"), Path)
                    async for chunk in part.aiter_bytes():
                        assert_type(chunk, bytes)


async def many(client: AsyncProdia) -> None:
    async def jobs() -> AsyncIterator[Job]:
        yield Job("t")

    async with client.map(jobs(), ordered=True) as outcomes:
        async for outcome in outcomes:
            assert_type(outcome, JobOutcome)
            assert_type(outcome.index, int)
            response: JobResponse | None = outcome.response
            error: Exception | None = outcome.error
            print(response, error, outcome.tag)
            assert_type(outcome.unwrap(), JobResponse)
            if outcome.error is not None:
                raised: Exception = outcome.error
                print(raised)
                assert_type(outcome.response, None)
            else:
                assert_type(outcome.response, JobResponse)
            if outcome.response is not None:
                assert_type(outcome.error, None)
                await outcome.response.save("out/")
    async with client.map([Job("t"), {"type": "t"}, JobRequest(Job("t"), [b"x"])]):
        pass


async def second_api(headers: Mapping[str, str], body: bytes) -> None:
    client = AsyncFireworks(accept=PNG(), extra_headers={"x": "y"}, max_queued=3, cache="c")
    client.with_options(accept=None, extra_headers=None)
    client.with_options(price=True)  # type: ignore[call-arg]  # no answer tells it
    edges = await client.canny_edge_detection("a.png", min_val=50)
    drawn = await client.control_net("x", edges.image, control_net_name="canny", steps=20)
    assert_type(drawn, ImageResponse)
    assert_type(drawn.dollars, float | None)
    assert_type(drawn.output, Image)
    await client.image_to_image("x", b"x", image_strengh=1)  # type: ignore[call-arg]  # a slip
    await client.image_to_image("x", 5)  # type: ignore[arg-type]  # no input
    orders: list[OrderLike] = ["x", QRCode("x")]
    orders.append(ImageToImage("x", drawn.output, image_strength=0.5, tag=1))
    async with client.map(orders, accept=JPEG(), progress=progress) as outcomes:
        async for outcome in outcomes:
            assert_type(outcome, ImageOutcome)
            assert_type(outcome.response if outcome else None, ImageResponse | None)
            if outcome.error is None:
                assert_type(outcome.response, ImageResponse)
    assert_type(verify_webhook(body, headers, "secret"), bool)


def errors(error: ProdiaError) -> None:
    assert_type(error.may_have_run, bool)
    assert_type(error.job, JobResult | None)
    assert_type(error.outputs, tuple[Output, ...])
    match error:
        case CapacityError() | RateLimitError():
            assert_type(error.retry_after, float | None)
        case APIStatusError():
            assert_type(error.status_code, int)
            assert_type(error.body, bytes)
            assert_type(error.headers, Mapping[str, str])
        case ResponseError():
            assert_type(error.bytes_received, int)
        case JobFailedError():
            assert_type(error.job_id, str | None)
        case _:
            assert_type(error.request_id, str | None)
