"""
Traces and metrics of every job, for OpenTelemetry.

::

    client = instrument(AsyncProdia())

Traces: a span for each job (``generate_content`` and the job type, by the
conventions for generative AI), and below it one for each attempt (by those for
HTTP), whose context travels along as W3C ``traceparent``.

Metrics, with labels that cannot grow without bound:

=====================================  =========  =====  =======================================
name                                   kind       unit   labels
=====================================  =========  =====  =======================================
``gen_ai.client.operation.duration``   histogram  s      job type, ``error.type``
``prodia.client.queue.duration``       histogram  s      job type
``prodia.client.refusals``             counter    1      job type
``prodia.client.retries``              counter    1      job type, ``error.type``
``prodia.client.dollars``              counter    {USD}  job type
=====================================  =========  =====  =======================================

Prompts, files and tokens are in none of them. Without `instrument` nothing of
this costs anything. It needs the extra ``opentelemetry``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from .._base import BaseClient
from .._errors import InvalidRequestError
from .._hooks import JobDetails, tell
from .._show import shown, words_of
from .._version import __version__

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ModuleNotFoundError as exc:
    raise ImportError(
        "prodia_async.integrations.opentelemetry needs OpenTelemetry's API: "
        "pip install 'prodia-async[opentelemetry]'",
        name=exc.name,
    ) from exc

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from .._attempts import Attempt
    from .._hooks import AttemptDetails, AttemptHook

__all__ = ["instrument"]

AnyClient = TypeVar("AnyClient", bound=BaseClient)

OPERATION = "generate_content"
"""Source: OpenTelemetry's semantic conventions for generative AI, ``gen_ai.operation.name``."""

MAX_TYPES = 100
"""Job types that have a label of their own; a caller may be able to invent more. Chosen."""

OTHER = "_OTHER"
"""The label of what has none of its own. Source: the conventions for HTTP methods."""

NOWHERE = Context()
"""
Where measurements are made: in no span, so that no exemplars are drawn. Measured:
those of two histograms cost as much as both spans.
"""

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0, 600.0)
"""Bounds of the histograms: pictures take a tenth of a second, films minutes. Chosen."""


def instrument(
    client: AnyClient,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> AnyClient:
    """
    Have a client tell OpenTelemetry of its jobs.

    A `hook` that the client has is told as before. Views that were made
    before (`with_options`) are not changed; those made later tell it too.

    Args:
        client: An `AsyncProdia` or `AsyncFireworks`; changed in place.
        tracer_provider: The global one by default.
        meter_provider: The global one by default.

    Returns:
        The client itself.

    Raises:
        InvalidRequestError: It is no client, or tells OpenTelemetry already.
    """
    if not isinstance(client, BaseClient):
        raise InvalidRequestError(f"instrument takes a client, not {shown(client)}")
    hook = client._hook  # noqa: SLF001  (the package's own)
    if isinstance(hook, _Telemetry):
        raise InvalidRequestError("this client tells OpenTelemetry already")
    url = urlsplit(client._base_url)  # noqa: SLF001
    provider = type(client).__name__.removeprefix("Async").lower()
    telemetry = _Telemetry(
        hook,
        provider=provider,
        host=url.hostname or "",
        port=url.port,
        tracer=trace.get_tracer("prodia_async", __version__, tracer_provider),
        meter=metrics.get_meter("prodia_async", __version__, meter_provider),
    )
    client._set_options(replace(client._options, hook=telemetry))  # noqa: SLF001
    return client


@dataclass(slots=True)
class _Job:
    """What is kept of a job while it goes on."""

    span: Span
    context: Context
    attempt: Span | None = None


class _Telemetry:
    """The hook: events in, spans and measurements out."""

    def __init__(
        self,
        inner: AttemptHook | None,
        *,
        provider: str,
        host: str,
        port: int | None,
        tracer: Any,
        meter: Any,
    ) -> None:
        self._inner = inner
        self._tracer = tracer
        self._provider = provider
        self._attempt: dict[str, Any] = {"http.request.method": "POST", "server.address": host}
        if port is not None:
            self._attempt["server.port"] = port
        self._jobs: dict[int, _Job] = {}
        self._labels: dict[str, dict[str, Any]] = {}

        def seconds(name: str, what: str) -> Any:
            return meter.create_histogram(
                name, "s", what, explicit_bucket_boundaries_advisory=SECONDS
            )

        self._duration = seconds("gen_ai.client.operation.duration", "Jobs, queue and waits too")
        self._queue = seconds("prodia.client.queue.duration", "Waiting for a slot")
        self._refusals = meter.create_counter(
            "prodia.client.refusals", "1", "Attempts that found no idle worker (429)"
        )
        self._retries = meter.create_counter(
            "prodia.client.retries", "1", "Attempts that another followed"
        )
        self._dollars = meter.create_counter(
            "prodia.client.dollars", "{USD}", "What answers told of their prices"
        )

    def __call__(self, details: AttemptDetails, /) -> None:
        if self._inner is not None:
            tell(self._inner, details)
        if isinstance(details, JobDetails):
            if details.event == "queued":
                self._begin(details)
            else:
                self._end(details)
        elif details.event == "started":
            self._attempt_started(details)
        elif details.event == "finished":
            self._attempt_finished(details)
        else:
            self._waits(details)

    def _labels_of(self, job_type: str) -> dict[str, Any]:
        labels = self._labels.get(job_type)
        if labels is None:
            name = job_type if len(self._labels) < MAX_TYPES else OTHER
            labels = {
                "gen_ai.operation.name": OPERATION,
                "gen_ai.provider.name": self._provider,
                "gen_ai.request.model": name,
            }
            if name is not OTHER:
                self._labels[job_type] = labels
        return labels

    def _begin(self, details: JobDetails) -> None:
        attributes = self._labels_of(details.job_type)
        if attributes["gen_ai.request.model"] is OTHER:  # of labels alone
            attributes = {**attributes, "gen_ai.request.model": details.job_type}
        if details.index is not None:
            attributes = {**attributes, "prodia.job.index": details.index}
        if details.tag is not None:
            attributes = {**attributes, "prodia.job.tag": words_of(details.tag)[:200]}
        span = self._tracer.start_span(
            f"{OPERATION} {details.job_type}", kind=SpanKind.CLIENT, attributes=attributes
        )
        self._jobs[details.key] = _Job(span, trace.set_span_in_context(span))

    def _end(self, details: JobDetails) -> None:
        job = self._jobs.pop(details.key, None)
        labels = self._labels_of(details.job_type)
        error = details.error
        if error is not None:
            labels = {**labels, "error.type": type(error).__name__}
        self._duration.record(details.seconds, labels, NOWHERE)
        self._queue.record(details.seconds_queued, self._labels_of(details.job_type), NOWHERE)
        if details.dollars:
            self._dollars.add(details.dollars, self._labels_of(details.job_type))
        if job is None:
            return
        span = job.span
        if span.is_recording():
            found: dict[str, Any] = {
                "prodia.job.attempts": details.number,
            }
            if details.seconds_queued:
                found["prodia.job.seconds_queued"] = details.seconds_queued
            if details.dollars:
                found["prodia.job.dollars"] = details.dollars
            if details.request_id is not None:
                found["gen_ai.response.id"] = details.request_id
            if error is not None:
                found["error.type"] = type(error).__name__
                may_have_run = getattr(error, "may_have_run", None)
                if may_have_run is not None:
                    found["prodia.job.may_have_run"] = may_have_run
                # Its message may hold what the caller wrote; its class does not.
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            span.set_attributes(found)
        span.end()

    def _attempt_started(self, details: AttemptDetails) -> None:
        job = self._jobs.get(details.key)
        attributes = self._attempt
        if details.number > 1:
            attributes = {**attributes, "http.request.resend_count": details.number - 1}
        span = self._tracer.start_span(
            "POST",
            context=job and job.context,
            kind=SpanKind.CLIENT,
            attributes=attributes,
        )
        if job is None:  # a submission: its job is not over with it, so it is not a span
            job = self._jobs[details.key] = _Job(span, trace.set_span_in_context(span))
        job.attempt = span
        _inject(span, details.headers)

    def _attempt_finished(self, details: AttemptDetails) -> None:
        attempt = details.attempt
        job = self._jobs.get(details.key)
        if attempt is None or job is None:
            return
        if attempt.fate == "not run":
            self._refusals.add(1, self._labels_of(details.job_type))
        self._close_attempt(job, attempt)
        if job.span is job.attempt:
            del self._jobs[details.key]

    def _close_attempt(self, job: _Job, attempt: Attempt) -> None:
        span = job.attempt
        if span is None:
            return
        if job.span is not span:
            job.attempt = None
        if span.is_recording():
            if attempt.status_code is not None:
                span.set_attribute("http.response.status_code", attempt.status_code)
            if attempt.error is not None:
                # Of one that succeeded the job's span has the id.
                span.set_attribute("prodia.request_id", attempt.request_id or "")
                span.set_attribute("prodia.attempt.fate", attempt.fate)
                span.set_attribute("error.type", attempt.error)
                span.set_status(Status(StatusCode.ERROR, attempt.error))
        span.end()

    def _waits(self, details: AttemptDetails) -> None:
        attempt, job = details.attempt, self._jobs.get(details.key)
        if attempt is None:
            return
        labels = self._labels_of(details.job_type)
        self._retries.add(1, {**labels, "error.type": attempt.error or OTHER})
        if job is not None:
            told: dict[str, Any] = {
                "prodia.wait": attempt.wait,
                "error.type": attempt.error or OTHER,
            }
            job.span.add_event("retry", told)


def _inject(span: Span, headers: dict[str, str]) -> None:
    """
    Write W3C's headers. Source: Trace Context, "traceparent Header".

    Not the process's own propagator: what baggage it has is none of the API's business.
    """
    context = span.get_span_context()
    if context.is_valid:
        ids = f"{context.trace_id:032x}-{context.span_id:016x}"
        headers["traceparent"] = f"00-{ids}-{context.trace_flags:02x}"
        if context.trace_state:
            headers["tracestate"] = context.trace_state.to_header()
