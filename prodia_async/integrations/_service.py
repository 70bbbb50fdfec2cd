"""What the services have in common, whichever framework: headers, events, streams, the end."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import anyio

from .._errors import ConnectError, JobFailedError, MalformedResponseError, ProdiaError
from .._media import OCTET_STREAM
from .._show import words_of
from .._stream import OutputPart
from ._problems import problem_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from .._client import AsyncProdia
    from .._models import JobOutcome, JobResponse
    from .._results import JobResult

    Render = Callable[[JobOutcome], Awaitable[Mapping[str, Any]]]
    """Makes of an outcome what its event says, beside what every event says."""

logger = logging.getLogger("prodia_async")

DRAIN_SECONDS = 25.0
"""How long a shutdown waits for jobs in flight. Chosen: Kubernetes kills after 30 s."""

ALIVE_SECONDS = 15.0
"""How often an event stream without news says that it lives. Chosen: half of what proxies allow."""

EVENT_STREAM = "text/event-stream"
CLIENT_CLOSED = 499
"""What is logged for a caller that has left; nobody receives it. nginx's number."""


class BrokenBodyError(RuntimeError):
    """Ends an answer that has begun in the only way that its reader notices: broken off."""


def facts_of(response: JobResponse) -> dict[str, Any]:
    """Return what an event or the headers of an answer say of a job that was done."""
    job = response.job
    return {
        "job_id": job.id if job is not None else None,
        "seed": response.seed,
        "dollars": response.dollars,
        "seconds": round(response.timing.total, 3),
    }


def headers_of(response: JobResponse) -> dict[str, str]:
    """Return the headers of an answer that is a job's output."""
    facts = {**facts_of(response), "request_id": response.request_id}
    return {
        **{
            f"x-prodia-{name.replace('_', '-')}": ascii_of(value)
            for name, value in facts.items()
            if value is not None
        },
        "cache-control": "no-store",
    }


def stream_headers(job: JobResult | None, request_id: str | None) -> dict[str, str]:
    """Return the headers of an answer that is an output while it comes."""
    headers = {"cache-control": "no-store", "accept-ranges": "none"}
    # A browser that asked again for a range would have the job run, and charged, again.
    if job is not None and job.id:
        headers["x-prodia-job-id"] = ascii_of(job.id)
    if request_id:
        headers["x-prodia-request-id"] = ascii_of(request_id)
    return headers


def ascii_of(value: object) -> str:
    """Write something that came over the network for a header."""
    return "".join(letter for letter in str(value) if " " <= letter <= "~")[:200]


def type_of(content_type: str) -> str:
    """Write a media type, which came over the network too, for a header: the output is paid for."""
    return ascii_of(content_type).strip() or OCTET_STREAM


def event(name: str, number: int, data: Mapping[str, Any]) -> bytes:
    """Write one server-sent event; JSON has no bare line ends."""
    return f"id: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def show_inline(outcome: JobOutcome) -> Mapping[str, Any]:
    """Return the first output of an outcome as a ``data:`` URL."""
    response = outcome.response
    if response is None or not response.outputs:
        return {}
    output = response.outputs[0]
    encoded = base64.b64encode(output.content).decode()
    return {
        "content_type": output.content_type,
        "url": f"data:{output.content_type};base64,{encoded}",
    }


class Counted:
    """Jobs that are counted as they are pulled, so that it is known whether all were."""

    def __init__(self, jobs: Iterable[Any] | AsyncIterable[Any]) -> None:
        self._jobs = jobs
        self.all_pulled = False

    async def __aiter__(self) -> AsyncGenerator[Any, None]:
        if isinstance(self._jobs, AsyncIterable):
            async for job in self._jobs:
                yield job
        else:
            for job in self._jobs:
                yield job
        self.all_pulled = True


async def events_of(
    client: AsyncProdia,
    jobs: Iterable[Any] | AsyncIterable[Any],
    *,
    render: Render,
    options: Mapping[str, Any],
) -> AsyncGenerator[bytes, None]:
    """
    Run many jobs and write an event for each as it ends: close it in good order.

    Yields:
        ``start``; an ``outcome`` or a ``failure`` for each job, with the totals
        so far; ``end`` with the totals, and whether the source was stopped
        before it had given all.
    """
    counted = Counted(jobs)
    totals: dict[str, Any] = {"done": 0, "failed": 0, "dollars": 0.0}
    number = 0
    # With this id a browser that reconnects tells that it had seen the start.
    yield event("start", number, totals)
    async with client.map(counted, **options) as outcomes:
        async for outcome in outcomes:
            number += 1
            yield event(*await _told(outcome, number, totals, render))
    totals["stopped"] = not counted.all_pulled
    yield event("end", number + 1, totals)


async def _told(
    outcome: JobOutcome, number: int, totals: dict[str, Any], render: Render
) -> tuple[str, int, dict[str, Any]]:
    data: dict[str, Any] = {"index": outcome.index}
    response = outcome.response
    error: BaseException | None = outcome.error
    shown: Mapping[str, Any] = {}
    try:
        shown = await render(outcome)
        json.dumps(shown)
    except Exception as own:  # noqa: BLE001  (logged; the other jobs are paid for too)
        shown, error = {}, own
    if response is not None:
        data |= facts_of(response)
        totals["dollars"] = round(totals["dollars"] + (data["dollars"] or 0.0), 6)
    totals["done" if error is None else "failed"] += 1
    if isinstance(error, ProdiaError):
        data["problem"] = problem_of(error).body
    elif error is not None:
        # What a function of the service's own raised is for its log.
        logger.error("job %d of a map failed", outcome.index, exc_info=error)
        ran = response is not None
        data["problem"] = {"title": "Internal error", "status": 500, "may_have_run": ran}
    data |= {**shown, "totals": totals}
    return ("outcome" if error is None else "failure"), number, data


class Opened:
    """
    An output of a job, opened: its answer has begun, and its first bytes are here.

    Attributes:
        content_type: Of the output, fit for a header.
        headers: Of the answer.
    """

    def __init__(self, stack: AsyncExitStack, part: OutputPart, headers: dict[str, str]) -> None:
        self._stack = stack
        self._part = part
        self.content_type = type_of(part.content_type)
        self.headers = headers

    @classmethod
    async def of(cls, client: AsyncProdia, job: Any, options: Mapping[str, Any]) -> Opened:
        """Run a job until its first output has begun."""
        async with AsyncExitStack() as stack:
            stream = await stack.enter_async_context(client.stream(job, **options))
            async for part in stream:
                if isinstance(part, OutputPart):
                    headers = stream_headers(stream.job, stream.request_id)
                    return cls(stack.pop_all(), part, headers)
            raise MalformedResponseError("the job completed without an output", job=stream.job)
        raise AssertionError  # pragma: no cover  (the block returns or raises)

    async def send(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """
        Hand the bytes on as they come, as fast as they are taken.

        Raises:
            BrokenBodyError: The answer broke off.
        """
        try:
            async for chunk in self._part.aiter_bytes():
                await send(chunk)
        except ProdiaError as error:
            log_lost(error)
            raise BrokenBodyError(f"the output broke off: {error.message}") from error

    async def aclose(self) -> None:
        """Free the slot; a reader that left is no error of the job's."""
        with anyio.CancelScope(shield=True):
            await self._stack.aclose()


def check_open(client: AsyncProdia) -> None:
    """
    Check that a client still takes jobs.

    Raises:
        ConnectError: It drains, or was closed: nothing was sent.
    """
    if client.is_closing:
        raise ConnectError.of_closing("this service is about to end; nothing was sent")


def log_lost(error: ProdiaError) -> None:
    """Log what was, or may have been, paid for and lost."""
    level = logging.WARNING if error.may_have_run else logging.INFO
    logger.log(
        level,
        "%s%s",
        error.message,
        ": it may have been charged" if error.may_have_run else "",
        extra={
            "prodia_error": type(error).__name__,
            "prodia_request_id": error.request_id,
            "prodia_job_id": error.job_id,
            "prodia_may_have_run": error.may_have_run,
        },
    )


def log_problem(error: ProdiaError) -> None:
    """Log an error that becomes an answer: a failed job is the caller's, the rest is ours."""
    if not isinstance(error, JobFailedError):
        log_lost(error)


async def shut_down(client: AsyncProdia, seconds: float) -> tuple[object, ...]:
    """Drain a client, and log what was left without an answer."""
    left = await client.drain(timeout=seconds)
    if left:
        logger.warning(
            "%s left without an answer and may have been charged: %s",
            "1 job was" if len(left) == 1 else f"{len(left)} jobs were",
            ", ".join(words_of(each, repr) for each in left),
        )
    return left
