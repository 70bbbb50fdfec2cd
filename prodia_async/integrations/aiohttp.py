"""
For services on ``aiohttp.web``.

::

    client = AsyncProdia()
    app = web.Application()
    install(app, client)

    async def picture(request):
        job = Job(TYPE, {"prompt": request.query["prompt"]})
        return await job_response(request, client, job, accept=WebP())

The same as `prodia_async.integrations.starlette`: answers leave with their
caller, errors become answers of RFC 9457, the service's end waits for the jobs
in flight, and a HEAD is answered 405. To send the client's own requests through
an aiohttp session see ``prodia_async.transports``. It needs the extra ``aiohttp``.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from .._errors import ProdiaError
from ._problems import problem_of, refusal_of
from ._service import (
    ALIVE_SECONDS,
    CLIENT_CLOSED,
    DRAIN_SECONDS,
    EVENT_STREAM,
    BrokenBodyError,
    Opened,
    check_open,
    events_of,
    headers_of,
    log_problem,
    show_inline,
    shut_down,
    type_of,
)

try:
    from aiohttp import web
except ModuleNotFoundError as exc:
    raise ImportError(
        "prodia_async.integrations.aiohttp needs aiohttp: pip install 'prodia-async[aiohttp]'",
        name=exc.name,
    ) from exc

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable

    from aiohttp.typedefs import Handler

    from .._client import AsyncProdia
    from .._models import JobRequest
    from .._options import JobLike
    from ._problems import Problem
    from ._service import Render

__all__ = ["install", "job_response", "map_events", "problem_response", "stream_response"]

T = TypeVar("T")

LOOK_SECONDS = 0.02
"""How often it is looked whether the caller is still there: aiohttp does not tell. Chosen."""


def install(
    app: web.Application, client: AsyncProdia, *, drain_seconds: float = DRAIN_SECONDS
) -> None:
    """
    Have an app answer this package's errors, and end in good order.

    A `ProdiaError` becomes an answer of RFC 9457 (`problem_response`). When the
    app shuts down (``web.run_app`` does at SIGTERM and SIGINT) the client takes
    no new jobs, the sources of its maps stop, and those in flight finish; then
    it is closed. What was left then without an answer is logged.

    Args:
        app: Before it is started.
        client: Closed when the app ends.
        drain_seconds: How long its end waits for jobs in flight; give
            ``run_app(shutdown_timeout=)`` no less. Chosen: 25 s; Kubernetes kills after 30 s.
    """

    async def drain(app: web.Application) -> None:
        del app
        await shut_down(client, drain_seconds)

    app.middlewares.append(_answer_errors)
    app.on_shutdown.append(drain)


def problem_response(error: ProdiaError) -> web.Response:
    """
    Return the answer of RFC 9457 for an error, for handlers of your own.

    Args:
        error: What a job ended with.

    Returns:
        The answer that `install` would have sent, with its status, ``may_have_run`` and
        ``request_id``; with 503 a ``Retry-After``.
    """
    return _response_of(problem_of(error))


def _response_of(problem: Problem) -> web.Response:
    return web.Response(body=problem.content, status=problem.status, headers=problem.headers)


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ProdiaError as error:
        log_problem(error)
        return problem_response(error)


async def _while_caller_is_there(
    request: web.Request, run: Callable[[], Awaitable[T]]
) -> tuple[T] | None:
    """Run something; when the caller leaves cancel it and return ``None``."""
    task = asyncio.ensure_future(run())
    try:
        while not task.done():
            await asyncio.wait([task], timeout=LOOK_SECONDS)
            if _has_left(request) and not task.done():
                return None
        return (task.result(),)
    except ConnectionResetError:
        if not _has_left(request):
            raise  # what an input was read from
        return None  # it left in the middle of a piece
    finally:
        if not task.done():
            task.cancel()
            # Its own end, whatever it is, is nobody's any more; only that it is over.
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()


def _has_left(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _nobody_is_there() -> web.Response:
    return web.Response(status=CLIENT_CLOSED)


async def job_response(
    request: web.Request, client: AsyncProdia, job: JobLike, **options: Any
) -> web.StreamResponse:
    """
    Run a job and answer with its first output; leave with the caller.

    Args:
        request: Whose caller waits for it.
        client: Runs it.
        job: As `AsyncProdia.job` takes it.
        options: As `AsyncProdia.job` takes them: ``accept``, ``inputs``, ``deadline`` ...

    Returns:
        The output under its media type, with the job's id, seed and dollars as
        ``x-prodia-...`` headers. An empty answer that nobody receives when the
        caller has left.

    Raises:
        ProdiaError: As `AsyncProdia.job` does; `install` makes an answer of it.
    """
    if (refusal := refusal_of(request.method)) is not None:
        return _response_of(refusal)
    check_open(client)
    done = await _while_caller_is_there(request, lambda: client.job(job, **options))
    if done is None:
        return _nobody_is_there()
    (response,) = done
    output = response.output
    headers = {**headers_of(response), "content-type": type_of(output.content_type)}
    return web.Response(body=output.content, headers=headers)


async def stream_response(
    request: web.Request, client: AsyncProdia, job: JobLike, **options: Any
) -> web.StreamResponse:
    """
    Run a job and answer with its first output while it comes.

    The answer's head leaves when the output has begun, so what goes wrong
    before is an answer of its own. Bytes are read as fast as the caller takes
    them. An output that breaks off breaks the answer off, so that no caller
    takes a piece for the whole. A caller that leaves frees the slot.

    Nothing is kept, so a reader that asks for a range (browsers do, again and
    again, for the rest of a film that broke off) is answered 416, and no job is
    run for it. Safari plays only what comes in ranges: save a film for it first.

    Args:
        request: Whose caller waits for it.
        client: Runs it.
        job: As `AsyncProdia.stream` takes it.
        options: As `AsyncProdia.stream` takes them: ``accept``, ``inputs``, ``deadline`` ...

    Returns:
        An answer that is the output while it comes, or 416 for a part of one.

    Raises:
        ProdiaError: As on entering `AsyncProdia.stream`.
    """
    wanted = request.headers.get("range")
    if (refusal := refusal_of(request.method, wanted)) is not None:
        return _response_of(refusal)
    check_open(client)
    opened = await _while_caller_is_there(request, lambda: Opened.of(client, job, options))
    if opened is None:
        return _nobody_is_there()
    try:
        headers = {**opened[0].headers, "content-type": opened[0].content_type}
        response = web.StreamResponse(headers=headers)
        await _send(request, response, lambda: opened[0].send(response.write))
    finally:
        await opened[0].aclose()
    return response


async def map_events(
    request: web.Request,
    client: AsyncProdia,
    jobs: Iterable[JobLike | JobRequest] | AsyncIterable[JobLike | JobRequest],
    *,
    render: Render = show_inline,
    **options: Any,
) -> web.StreamResponse:
    """
    Run many jobs and answer with server-sent events, one for each as it ends.

    ``start``, then ``outcome`` (``index``, ``url``, ``seed``, ``dollars``,
    ``seconds``, ``totals``) or ``failure`` (``index``, ``problem``, ``totals``),
    then ``end`` (the totals, and ``stopped``: whether the source was stopped
    before all was done). A caller that leaves cancels what is in flight. An
    ``EventSource`` that lost its connection and asks again would have all
    run, and charged, again: it is answered 204, which ends it.

    Args:
        request: Whose caller reads.
        client: Runs them.
        jobs: As `AsyncProdia.map` takes them.
        render: Makes of a `JobOutcome` what its event says beside that; by
            default ``url``, a ``data:`` URL of the first output.
        options: As `AsyncProdia.map` takes them.

    Raises:
        ConnectError: The client drains, or was closed; nothing was sent.
        InvalidRequestError: `jobs` is nothing that `AsyncProdia.map` takes.
    """
    if "last-event-id" in request.headers:
        return web.Response(status=204)
    if (refusal := refusal_of(request.method)) is not None:
        return _response_of(refusal)
    check_open(client)
    client.map(jobs, **options)  # says at once what is wrong with it
    headers = {"cache-control": "no-store", "x-accel-buffering": "no", "content-type": EVENT_STREAM}
    response = web.StreamResponse(headers=headers)

    async def send_events() -> None:
        alive = asyncio.ensure_future(_stay_alive(response))
        try:
            async with aclosing(events_of(client, jobs, render=render, options=options)) as events:
                async for event in events:
                    await response.write(event)
        finally:
            alive.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await alive

    await _send(request, response, send_events)
    return response


async def _stay_alive(response: web.StreamResponse) -> None:
    while True:
        await asyncio.sleep(ALIVE_SECONDS)
        await response.write(b":\n\n")


async def _send(
    request: web.Request, response: web.StreamResponse, body: Callable[[], Awaitable[None]]
) -> None:
    """Send a response whose body comes bit by bit; break it off if that breaks off."""
    await response.prepare(request)
    try:
        await _while_caller_is_there(request, body)
    except BrokenBodyError:
        # aiohttp would end the body in good order, and nobody would notice.
        if request.transport is not None:
            request.transport.abort()
