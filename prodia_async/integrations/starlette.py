"""
For services on Starlette and FastAPI.

::

    client = AsyncProdia()
    app = FastAPI()
    install(app, client)

    @app.get("/picture")
    async def picture(request: Request, prompt: str):
        return await job_response(request, client, Job(TYPE, {"prompt": prompt}), accept=WebP())

Answers leave with their caller: when the caller has gone the job is cancelled
here, and its slot is free within a tenth of a second. (The API cannot cancel:
what had been sent may run, and be charged.) Errors become answers of RFC 9457,
and the service's end waits for the jobs in flight. For a HEAD no job is run: it
is answered 405. It needs the extra ``starlette``.
"""

from __future__ import annotations

import signal
import threading
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel

from .._errors import ProdiaError
from ._problems import problem_of, refusal_of
from ._service import (
    ALIVE_SECONDS,
    CLIENT_CLOSED,
    DRAIN_SECONDS,
    EVENT_STREAM,
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
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
except ModuleNotFoundError as exc:
    raise ImportError(
        "prodia_async.integrations.starlette needs Starlette: "
        "pip install 'prodia-async[starlette]'",
        name=exc.name,
    ) from exc

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        Awaitable,
        Callable,
        Generator,
        Iterable,
        Mapping,
    )

    from starlette.applications import Starlette
    from starlette.types import Receive, Scope, Send

    from .._client import AsyncProdia
    from .._models import JobRequest
    from .._options import JobLike
    from ._problems import Problem
    from ._service import Render

__all__ = ["install", "job_response", "map_events", "problem_response", "stream_response"]

T = TypeVar("T")


def install(app: Starlette, client: AsyncProdia, *, drain_seconds: float = DRAIN_SECONDS) -> None:
    """
    Have an app answer this package's errors, and end in good order.

    A `ProdiaError` becomes an answer of RFC 9457 (`problem_response`). At
    SIGTERM or SIGINT, while the server lets its answers finish, the client
    takes no new jobs and the sources of its maps stop; at the app's end it is
    closed. What was left then without an answer is logged.

    Args:
        app: FastAPI's is one too.
        client: Closed when the app ends.
        drain_seconds: How long its end waits for jobs in flight. Give it and
            the server's own limit (uvicorn's ``--timeout-graceful-shutdown``)
            less than what kills the process. Chosen: 25 s; Kubernetes kills after 30 s.
    """
    app.add_exception_handler(ProdiaError, _answer_error)
    app.add_exception_handler(ClientDisconnect, _nobody_is_there)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[Any, None]:
        stopping = anyio.Event()

        async def drain() -> None:
            await stopping.wait()
            await shut_down(client, drain_seconds)

        raised: list[Exception] = []
        async with inner(app) as state:
            async with anyio.create_task_group() as group:
                group.start_soon(drain)
                with _told_at_signals(stopping):
                    try:
                        yield state
                    except Exception as error:  # noqa: BLE001  (raised below, and not in a group)
                        raised.append(error)
                stopping.set()
            if raised:
                raise raised[0]

    app.router.lifespan_context = lifespan


@contextmanager
def _told_at_signals(stopping: anyio.Event) -> Generator[None, None, None]:
    """Set an event at SIGTERM and SIGINT, beside what the server does then."""
    if threading.current_thread() is not threading.main_thread():
        yield  # there signals cannot be had, and the end of the app has to do
        return
    token = anyio.lowlevel.current_token()
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, frame: Any) -> None:
        # In the main thread, between two of its instructions: only a note for the loop.
        threading.Thread(
            target=anyio.from_thread.run_sync, args=(stopping.set,), kwargs={"token": token}
        ).start()
        before[signal.Signals(number)](number, frame)

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.getsignal(number)
        # One that was left to its default ends the process: not ours to soften.
        if callable(before[number]):
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, handler)


def problem_response(error: ProdiaError) -> Response:
    """
    Return the answer of RFC 9457 for an error, for handlers of your own.

    Args:
        error: What a job ended with.

    Returns:
        The answer that `install` would have sent, with its status, ``may_have_run`` and
        ``request_id``; with 503 a ``Retry-After``.
    """
    return _response_of(problem_of(error))


def _response_of(problem: Problem) -> Response:
    return Response(problem.content, problem.status, headers=dict(problem.headers))


async def _answer_error(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, ProdiaError)  # noqa: S101  (it is installed for those)
    log_problem(error)
    return problem_response(error)


async def _nobody_is_there(request: Request, error: Exception) -> Response:
    del request, error
    return Response(status_code=CLIENT_CLOSED)


async def _while_caller_is_there(
    receive: Receive, run: Callable[[], Awaitable[T]]
) -> tuple[T] | None:
    """Run something; when the caller leaves cancel it and return ``None``."""
    result: list[T] = []
    raised: list[BaseException] = []
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass  # what is left of the request's body: nobody's
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            result.append(await run())
        except Exception as error:  # noqa: BLE001  (raised below, and not in a group)
            raised.append(error)
        group.cancel_scope.cancel()
    if raised:
        raise raised[0]
    return (result[0],) if result else None


async def job_response(
    request: Request, client: AsyncProdia, job: JobLike, **options: Any
) -> Response:
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
    done = await _while_caller_is_there(request.receive, lambda: client.job(job, **options))
    if done is None:
        return Response(status_code=CLIENT_CLOSED)
    (response,) = done
    output = response.output
    kind = type_of(output.content_type)
    return Response(output.content, media_type=kind, headers=headers_of(response))


async def stream_response(
    request: Request, client: AsyncProdia, job: JobLike, **options: Any
) -> Response:
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
    opened = await _while_caller_is_there(request.receive, lambda: Opened.of(client, job, options))
    if opened is None:
        return Response(status_code=CLIENT_CLOSED)
    return _OutputResponse(opened[0])


def map_events(
    request: Request,
    client: AsyncProdia,
    jobs: Iterable[JobLike | JobRequest] | AsyncIterable[JobLike | JobRequest],
    *,
    render: Render = show_inline,
    **options: Any,
) -> Response:
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
        return Response(status_code=204)
    if (refusal := refusal_of(request.method)) is not None:
        return _response_of(refusal)
    check_open(client)
    client.map(jobs, **options)  # says at once what is wrong with it
    return _EventResponse(lambda: events_of(client, jobs, render=render, options=options))


class _OutputResponse(Response):
    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.status_code = 200
        self.background = None
        self.init_headers({**opened.headers, "content-type": opened.content_type})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        try:
            await _while_caller_is_there(receive, lambda: self._send(send))
        finally:
            await self._opened.aclose()
        await _run_background(self)

    async def _send(self, send: Send) -> None:
        await _begin(send, self)
        await self._opened.send(lambda chunk: _more(send, chunk))
        await send({"type": "http.response.body", "body": b""})


class _EventResponse(Response):
    def __init__(self, events: Callable[[], AsyncGenerator[bytes, None]]) -> None:
        self._events = events
        self.status_code = 200
        self.background = None
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        self.init_headers({**headers, "content-type": EVENT_STREAM})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await _while_caller_is_there(receive, lambda: self._send(send))
        await _run_background(self)

    async def _send(self, send: Send) -> None:
        await _begin(send, self)
        sending = anyio.Lock()

        async def stay_alive() -> None:
            while True:
                await anyio.sleep(ALIVE_SECONDS)
                async with sending:
                    await _more(send, b":\n\n")

        async with anyio.create_task_group() as group:
            group.start_soon(stay_alive)
            async with aclosing(self._events()) as events:
                async for event in events:
                    async with sending:
                        await _more(send, event)
            group.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})


async def _run_background(response: Response) -> None:
    # FastAPI puts what a handler took as its background tasks there.
    if response.background is not None:
        await response.background()


async def _begin(send: Send, response: Response) -> None:
    start: Mapping[str, Any] = {
        "type": "http.response.start",
        "status": response.status_code,
        "headers": response.raw_headers,
    }
    await send(dict(start))


async def _more(send: Send, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})
