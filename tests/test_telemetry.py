"""OpenTelemetry with the real SDK: traces, the header on the wire, metrics of bounded labels."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    NoOpTracerProvider,
    SpanContext,
    StatusCode,
    TraceFlags,
    TraceState,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from prodia_async import (
    AsyncProdia,
    Attempt,
    AttemptDetails,
    CapacityError,
    InvalidRequestError,
    Job,
    JobDetails,
    JobFailedError,
    ProdiaError,
)
from prodia_async.integrations import opentelemetry as telemetry
from prodia_async.integrations.opentelemetry import instrument
from prodia_async.testing import ProdiaFixture, answer, no_waiting

if TYPE_CHECKING:
    from collections.abc import Iterator


class Hostile:
    """A tag of somebody's."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


TYPE = "inference.flux-fast.schnell.txt2img.v2"
JOB = Job(TYPE, {"prompt": "a secret prompt"})


class Told:
    """What OpenTelemetry was told."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def instrument(self, client: AsyncProdia) -> AsyncProdia:
        return instrument(client, tracer_provider=self.tracers, meter_provider=self.meters)

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def job(self) -> ReadableSpan:
        (found,) = (each for each in self.spans() if each.name != "POST")
        return found

    def attempts(self) -> list[ReadableSpan]:
        return [each for each in self.spans() if each.name == "POST"]

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    yield told
    told.tracers.shutdown()
    told.meters.shutdown()


async def test_one_trace_for_a_job_with_two_refusals_and_a_retry(
    prodia: ProdiaFixture, told: Told
) -> None:
    """A span for the job, in the caller's; below it one for each attempt."""
    client = told.instrument(prodia.client)
    prodia.emulator.fail_next(2, 429, retry_after=30)
    prodia.emulator.fail_next(1, 503)
    tracer = told.tracers.get_tracer("app")
    with tracer.start_as_current_span("page") as page:
        await client.job(JOB, price=True)
    job, attempts = next(s for s in told.spans() if s.name.startswith("gen")), told.attempts()
    assert job.name == f"generate_content {TYPE}"
    assert job.parent is not None
    assert job.parent.span_id == page.get_span_context().span_id
    assert job.attributes is not None
    assert job.attributes["gen_ai.operation.name"] == "generate_content"
    assert job.attributes["gen_ai.provider.name"] == "prodia"
    assert job.attributes["gen_ai.request.model"] == TYPE
    assert job.attributes["prodia.job.attempts"] == 4
    assert job.attributes["prodia.job.dollars"] == 0.0025
    assert job.attributes["gen_ai.response.id"]
    assert job.status.status_code is StatusCode.UNSET
    assert [each.name for each in job.events] == ["retry"] * 3
    assert job.events[0].attributes is not None
    assert float(str(job.events[0].attributes["prodia.wait"])) >= 30
    assert {each.context.trace_id for each in told.spans()} == {page.get_span_context().trace_id}
    assert {each.parent.span_id for each in attempts if each.parent} == {job.context.span_id}
    codes = [(each.attributes or {})["http.response.status_code"] for each in attempts]
    assert codes == [429, 429, 503, 200]
    again = [(each.attributes or {}).get("http.request.resend_count") for each in attempts]
    assert again == [None, 1, 2, 3]
    assert [each.status.status_code.name for each in attempts] == ["ERROR"] * 3 + ["UNSET"]
    assert "secret" not in str([each.to_json() for each in told.spans()])
    assert sum(p.value for p in told.points("prodia.client.refusals")) == 2
    assert sum(p.value for p in told.points("prodia.client.retries")) == 3
    assert sum(p.value for p in told.points("prodia.client.dollars")) == 0.0025
    (duration,) = told.points("gen_ai.client.operation.duration")
    assert duration.count == 1
    assert duration.explicit_bounds == telemetry.SECONDS
    assert [p.count for p in told.points("prodia.client.queue.duration")] == [1]


async def test_traceparent_is_on_the_wire(told: Told) -> None:
    """On each request, of its own attempt; and the token is in no span."""
    headers: list[httpx.Headers] = []

    def take(request: httpx.Request) -> httpx.Response:
        headers.append(request.headers)
        return answer(status=503) if len(headers) == 1 else answer(JOB)

    transport = httpx.MockTransport(take)
    with no_waiting():
        async with told.instrument(AsyncProdia("a-token-of-mine", transport=transport)) as client:
            await client.job(JOB, extra_headers={"x-mine": "1"})
    for sent, span in zip(headers, told.attempts(), strict=True):
        context = span.get_span_context()
        assert context is not None
        parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-"
        assert sent["traceparent"].startswith(parent)
        assert sent["x-mine"] == "1"
        assert sent["authorization"] == "Bearer a-token-of-mine"
    assert "a-token-of-mine" not in str([each.to_json() for each in told.spans()])


async def test_traceparent_is_on_the_wire_of_the_default_transport(told: Told) -> None:
    """Over a real socket, on one connection: each request has its own."""
    got: list[str] = []

    async def take(request: web.Request) -> web.Response:
        got.append(request.headers["traceparent"])
        made = answer(JOB)
        return web.Response(body=made.content, headers=dict(made.headers))

    app = web.Application()
    app.router.add_post("/v2/job", take)
    async with TestServer(app) as server:
        client = told.instrument(AsyncProdia("token", base_url=str(server.make_url(""))))
        async with client:
            for _ in range(3):
                await client.job(JOB)
    contexts = [each.get_span_context() for each in told.attempts()]
    assert [each[3:52] for each in got] == [
        f"{each.trace_id:032x}-{each.span_id:016x}" for each in contexts if each
    ]


async def test_tracestate_and_no_trace(told: Told) -> None:
    """What came with a trace goes on with it; where there is none, nothing is said."""
    headers: dict[str, str] = {}
    state = TraceState([("vendor", "x")])
    ids = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=state)
    telemetry._inject(NonRecordingSpan(ids), headers)
    assert headers == {"traceparent": f"00-{1:032x}-{2:016x}-01", "tracestate": "vendor=x"}
    read = TraceContextTextMapPropagator().extract(headers)
    assert trace.get_current_span(read).get_span_context() == ids
    headers.clear()
    telemetry._inject(INVALID_SPAN, headers)
    assert headers == {}


async def test_what_fails_is_told_as_it_failed(prodia: ProdiaFixture, told: Told) -> None:
    """By class; whether it may have run; a cancellation too. Nothing is kept of it."""
    client = told.instrument(prodia.client)
    prodia.emulator.behave(failure_status=200)
    prodia.emulator.fail_jobs(1, "the secret reason")
    with pytest.raises(JobFailedError):
        await client.job(JOB)
    span = told.job()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "JobFailedError"
    assert span.attributes["prodia.job.may_have_run"] is True
    assert span.status.status_code is StatusCode.ERROR
    assert "secret" not in span.to_json()
    told.exporter.clear()
    prodia.emulator.hold()
    task = asyncio.create_task(client.job(JOB))
    while not client.statistics().in_flight:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    prodia.emulator.release()
    span = told.job()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "CancelledError"
    assert "prodia.job.may_have_run" not in span.attributes
    (attempt,) = told.attempts()
    assert (attempt.attributes or {})["prodia.attempt.fate"] == "uncertain"
    hook = client._hook
    assert isinstance(hook, telemetry._Telemetry)
    assert hook._jobs == {}


async def test_a_job_that_was_never_sent(prodia: ProdiaFixture, told: Told) -> None:
    """Has a span and no attempt."""
    client = told.instrument(prodia.client)
    prodia.emulator.fail_next(1, 429, retry_after=3600)
    for _ in range(2):
        with pytest.raises(CapacityError):
            await client.job(JOB)
    assert len(told.attempts()) == 1
    assert len(told.spans()) == 3


async def test_many_at_once_are_kept_apart(prodia: ProdiaFixture, told: Told) -> None:
    """Each attempt is below its own job; index and tag are on the job's span."""
    client = told.instrument(prodia.client)
    prodia.emulator.fail_next(5, 503)
    async with client.map([JOB] * 20) as outcomes:
        async for outcome in outcomes:
            outcome.unwrap()
    spans = told.spans()
    jobs = {each.context.span_id: each for each in spans if each.name != "POST"}
    assert len(jobs) == 20
    assert len(spans) == 45
    assert all(each.parent and each.parent.span_id in jobs for each in told.attempts())


def test_what_a_span_says_of_its_job(told: Told) -> None:
    """Its place and its tag; a job that was told of in part harms nobody."""
    client = told.instrument(AsyncProdia("token"))
    hook = client._hook
    assert hook is not None
    about: dict[str, Any] = {"job_type": TYPE, "attempt": None, "seconds_queued": 0.0, "number": 0}
    lost = Attempt(1, "uncertain", None, None, 1.0)
    hook(JobDetails(event="queued", key=1, index=3, tag="x" * 300, **about))
    hook(AttemptDetails(event="finished", key=1, **about))
    hook(AttemptDetails(event="finished", key=1, **{**about, "attempt": lost}))
    hook(AttemptDetails(event="waiting", key=1, **about))
    hook(JobDetails(event="finished", key=1, seconds=1.0, error=KeyError("x"), **about))
    hook(JobDetails(event="finished", key=2, seconds=1.0, **about))
    hook(AttemptDetails(event="finished", key=3, **{**about, "attempt": lost}))
    hook(AttemptDetails(event="waiting", key=3, **{**about, "attempt": lost}))
    (span,) = told.spans()
    assert span.attributes is not None
    assert span.attributes["prodia.job.index"] == 3
    assert span.attributes["prodia.job.tag"] == "x" * 200
    assert sum(p.count for p in told.points("gen_ai.client.operation.duration")) == 2
    (retries,) = told.points("prodia.client.retries")
    assert retries.attributes["error.type"] == telemetry.OTHER


def test_a_tag_that_cannot_be_shown(told: Told) -> None:
    """Whatever it is, it costs neither the span nor the job."""
    hook = told.instrument(AsyncProdia("token"))._hook
    assert hook is not None
    about: dict[str, Any] = {"job_type": TYPE, "attempt": None, "seconds_queued": 0.0, "number": 0}
    queued = JobDetails(event="queued", key=1, tag=Hostile(), **about)
    hook(queued)
    hook(JobDetails(event="finished", key=1, seconds=1.0, **about))
    (span,) = told.spans()
    assert span.attributes is not None
    assert "<Hostile instance at" in str(span.attributes["prodia.job.tag"])
    assert "tag=<Hostile instance at" in repr(queued)


async def test_a_submission_is_an_attempt(prodia: ProdiaFixture, told: Told) -> None:
    """Its job is not over with it; questions about it are told as what they are."""
    client = told.instrument(prodia.client)
    prodia.emulator.fail_next(1, 429, retry_after=1)
    job = await client.submit(JOB)
    await job.result()
    codes = [(each.attributes or {})["http.response.status_code"] for each in told.attempts()]
    assert codes[:2] == [429, 201]
    hook = client._hook
    assert isinstance(hook, telemetry._Telemetry)
    assert hook._jobs == {}


async def test_labels_are_bounded(
    prodia: ProdiaFixture, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many types a caller makes up; the span has the type as it is."""
    monkeypatch.setattr(telemetry, "MAX_TYPES", 3)
    client = told.instrument(prodia.client)
    prodia.emulator.behave(accept_unknown_types=True)
    for number in range(6):
        await client.job(Job(f"inference.made-up.txt2img.v{number}", {"prompt": "a"}))
    points = told.points("gen_ai.client.operation.duration")
    models = {point.attributes["gen_ai.request.model"] for point in points}
    assert len(models) == 4
    assert telemetry.OTHER in models
    names = {each.name for each in told.spans()}
    assert "generate_content inference.made-up.txt2img.v5" in names


async def test_a_hook_of_the_clients_own_is_told_as_before(
    prodia: ProdiaFixture, told: Told
) -> None:
    """And what it raises harms nobody."""
    events: list[str] = []

    def hook(details: AttemptDetails) -> None:
        events.append(details.event)
        raise ZeroDivisionError

    client = told.instrument(prodia.client.with_options(hook=hook))
    await client.job(JOB)
    assert events == ["queued", "started", "finished", "finished"]
    assert len(told.spans()) == 2


async def test_without_a_recording_tracer(prodia: ProdiaFixture) -> None:
    """The API alone does nothing, and says nothing on the wire."""
    client = instrument(prodia.client, tracer_provider=NoOpTracerProvider())
    await client.job(JOB)
    with pytest.raises(JobFailedError):
        await client.job(Job(TYPE, {"prompt": "[fail]"}))


async def test_a_job_that_is_not_sampled(told: Told) -> None:
    """It is told in numbers alone, and the API hears that nobody keeps its trace."""
    sampled: list[int] = []

    def take(request: httpx.Request) -> httpx.Response:
        # The lowest bit of the flags; others tell of how the id was drawn.
        sampled.append(int(request.headers["traceparent"][-2:], 16) & 1)
        return answer(JOB) if len(sampled) == 1 else answer(status=400)

    tracers = TracerProvider(ALWAYS_OFF)
    transport = httpx.MockTransport(take)
    async with AsyncProdia("token", transport=transport) as client:
        instrument(client, tracer_provider=tracers, meter_provider=told.meters)
        await client.job(JOB)
        with pytest.raises(ProdiaError):
            await client.job(JOB)
        hook = client._hook
        assert isinstance(hook, telemetry._Telemetry)
        assert hook._jobs == {}
    assert sampled == [0, 0]
    assert sum(p.count for p in told.points("gen_ai.client.operation.duration")) == 2
    tracers.shutdown()


async def test_what_cannot_be_instrumented(told: Told) -> None:
    """Something else, or a client twice."""
    async with AsyncProdia("token", base_url="http://127.0.0.1:9") as client:
        assert told.instrument(client) is client
        with pytest.raises(InvalidRequestError, match="already"):
            told.instrument(client)
    with pytest.raises(InvalidRequestError, match="takes a client, not 5"):
        instrument(5)  # type: ignore[type-var]
    async with AsyncProdia("token") as default:
        hook = told.instrument(default)._hook
        assert isinstance(hook, telemetry._Telemetry)
        assert "server.port" not in hook._attempt


def test_what_is_missing_names_the_extra() -> None:
    """Imported on use; the error says what to install."""
    code = "import sys; sys.modules['{}'] = None; import prodia_async.integrations.opentelemetry"
    for name, said in [("opentelemetry", True), ("prodia_async._hooks", False)]:
        command = [sys.executable, "-c", code.format(name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ("pip install 'prodia-async[opentelemetry]'" in done.stderr) == said
