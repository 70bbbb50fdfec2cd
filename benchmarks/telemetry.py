"""
What does telling OpenTelemetry cost a job? And nothing where it is not asked?

The same jobs through the same client, with a transport that answers at once:
without `instrument`, with it over OpenTelemetry's API alone (no SDK set up), and
with the SDK, whose spans go to an exporter that drops them. Beside them a hook
that does nothing but call the SDK, as often as any telemetry of these two spans
and two histograms must: what is below that is not ours to save. CPU time a job,
median and spread of the rounds; the rounds take turns. Goal: at most 60 us more
with the SDK.

    python benchmarks/telemetry.py [jobs a round] [rounds]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from typing import TYPE_CHECKING

import httpx
from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import NoOpTracerProvider, Span, SpanKind, set_span_in_context

from prodia_async import AsyncProdia, Job
from prodia_async.integrations.opentelemetry import instrument
from prodia_async.testing import answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prodia_async import AttemptDetails

JOB = Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": "a cat", "seed": 1})
GOAL_MICROSECONDS = 60.0


class Dropped(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Do nothing."""
        del spans
        return SpanExportResult.SUCCESS


def make_client() -> AsyncProdia:
    """Make a client whose jobs are answered at once."""
    content, headers = answer(JOB).content, answer(JOB).headers

    def reply(request: httpx.Request) -> httpx.Response:
        del request
        return httpx.Response(200, headers=headers, content=content)

    return AsyncProdia("a-token", transport=httpx.MockTransport(reply))


class Bare:
    """A hook of two spans and two measurements a job, which are told nothing that changes."""

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        self._tracer = tracers.get_tracer("bare")
        meter = meters.get_meter("bare")
        self._histograms = [meter.create_histogram(name, "s") for name in ("one", "two")]
        self._labels = {"gen_ai.request.model": JOB.type}
        self._spans: list[Span] = []

    def __call__(self, details: AttemptDetails) -> None:
        """Open a span at a beginning, and close it at the end."""
        if details.event in ("queued", "started"):
            context = set_span_in_context(self._spans[-1]) if self._spans else None
            self._spans.append(self._tracer.start_span("x", context, SpanKind.CLIENT, self._labels))
        elif details.event == "finished":
            self._spans.pop().end()
            if not self._spans:
                for each in self._histograms:
                    each.record(0.1, self._labels, NOWHERE)


NOWHERE = Context()


async def measure(client: AsyncProdia, jobs: int) -> float:
    """Return the microseconds of CPU that a job took."""
    began = time.process_time()
    for _ in range(jobs):
        await client.job(JOB)
    return (time.process_time() - began) / jobs * 1e6


async def main(jobs: int, rounds: int) -> None:
    """Measure them in turns, and say what came out."""
    tracers = TracerProvider()
    # Handed over a second later by a thread of the SDK's, as in earnest.
    tracers.add_span_processor(BatchSpanProcessor(Dropped(), max_queue_size=1 << 20))
    meters = MeterProvider([InMemoryMetricReader()])
    plain, api, sdk = make_client(), make_client(), make_client()
    instrument(api, tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())
    instrument(sdk, tracer_provider=tracers, meter_provider=meters)
    bare = make_client().with_options(hook=Bare(tracers, meters))
    clients = {"without": plain, "API alone": api, "the SDK bare": bare, "with the SDK": sdk}
    took: dict[str, list[float]] = {name: [] for name in clients}
    for client in clients.values():
        await measure(client, jobs // 4)
    for _ in range(rounds):
        for name, client in clients.items():
            took[name].append(await measure(client, jobs))
    base = statistics.median(took["without"])
    for name, each in took.items():
        middle = statistics.median(each)
        print(f"{name:14} {middle:7.1f} us a job  ({min(each):.1f} to {max(each):.1f})"
              f"  {middle - base:+6.1f}")  # fmt: skip
    more = statistics.median(took["with the SDK"]) - base
    verdict = "met" if more <= GOAL_MICROSECONDS else "missed"
    print(f"goal: at most +{GOAL_MICROSECONDS:g} us with the SDK: {verdict}")
    for client in clients.values():
        await client.aclose()
    tracers.shutdown()
    meters.shutdown()


if __name__ == "__main__":
    numbers = [int(each) for each in sys.argv[1:]]
    asyncio.run(main(*[*numbers, 2000, 7][:2] if numbers else (2000, 7)))
