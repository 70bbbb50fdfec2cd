"""``AsyncProdia``: Prodia's vocabulary over the engine."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast

from . import _waiting
from ._async_jobs import AsyncJob, Calls, submitted_id
from ._base import BaseClient, TokenSource
from ._checks import flag, optional
from ._errors import InvalidRequestError
from ._formats import accept_header
from ._grid import Grid, axis, fill, requests_of
from ._hooks import log
from ._map import own_error
from ._models import Failed, Job, JobOutcome, JobRequest, JobResponse, Succeeded
from ._options import ACCOUNT, ClientOptions, JobLike, JobOptions, Options, Validate, shows_options
from ._polling import EndedJobs, count, told_as_one
from ._reading import AnswerFeed, CollectedAnswer
from ._requests import encode_job
from ._sessions import Unfinished
from ._show import shown
from ._stream import JobStream, StreamBlock
from ._uploads import looked_at
from ._wire import MAX_RESPONSE_BYTES

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    import httpx

    from ._answers import Collector
    from ._formats import Format
    from ._hooks import AttemptHook
    from ._map import Outcomes
    from ._models import InputLike, Raised
    from ._progress import MapProgress
    from ._retry import RetryPolicy
    from ._source import Source
    from ._vocabulary import Finished, Terms
    from ._wire import WireRequest


class AsyncProdia(BaseClient):
    """
    Runs jobs on the Prodia v2 inference API.

    One client is meant to be shared by everything in a program: it holds the
    connections, and it learns how much the server can take. Building it does
    no I/O. It works across several event loops one after the other, each with
    connections of its own, and in a forked child.

    Args:
        token: The API token, or a function that returns one, awaited for
            each attempt. By default the environment variable PRODIA_TOKEN.
        base_url: By default the environment variable PRODIA_BASE_URL, else
            ``https://inference.prodia.com``. May carry a path; a ``/v2`` at
            its end may be given or left out.
        max_concurrency: The most jobs in flight at once. Chosen.
        adaptive: Learn below that bound how many jobs of each type the server
            takes, from its refusals (429). With ``False`` the bound is fixed.
        retry: When to try again; `RetryPolicy()` by default.
        timeout: Seconds of silence on the wire allowed within one attempt. The
            server sends nothing while a job runs, so it must be longer than
            the longest job. Chosen.
        connect_timeout: Seconds a connection may take, TLS included. Chosen.
        deadline: Seconds for one job in all: queue, waits, every attempt,
            upload and download. By default none.
        price: Ask what each job cost; the answer is in ``response.dollars``.
        accept: The format of outputs where a job does not say; see `job`.
        extra_headers: Further headers for every request; a job's own win.
        max_queued: How many jobs may wait for a slot. One more ends at once
            in a `QueueFullError`, and nothing is sent: a service sheds load so.
            By default any number may wait. Jobs of a `map` never count, since
            they are fetched when one may start.
        cache: A folder that keeps answers. A job with a seed that was
            answered before, of the same type, config, inputs and format, is
            answered from it: ``response.cached`` is true then, and nothing is
            sent or charged. It is for `job` and `map`.
        transport: An httpx transport to use instead of our own; closed with
            the client. It then belongs to one event loop.
        http_client: A client of your own to send through; never closed here.
        allow_http: Allow plain http to a host that is not this machine. The
            token then travels where anybody can read it.
        max_response_bytes: The most that `job` collects in memory for one
            answer. Chosen: 1 GiB.
        hook: A function to be told of every job and attempt; see `AttemptHook`.
        validate: ``"known"`` checks jobs of known types before they are sent,
            by what their documentation states for certain, and tells all
            that is wrong at once. ``"warn"`` logs the same, and what is
            likely wrong (a name that is nearly a known one), and sends the
            job. ``"off"`` refuses nothing but what cannot be sent. By default
            the number of inputs and the names of files are checked. Unknown
            types and options pass in any case.

    Raises:
        InvalidRequestError: No token was found, or an argument is out of its range.
    """

    _account = ACCOUNT
    _options: ClientOptions

    def __init__(
        self,
        token: TokenSource | None = None,
        *,
        base_url: str | None = None,
        max_concurrency: int = 64,
        adaptive: bool = True,
        retry: RetryPolicy | None = None,
        timeout: float = 600.0,
        connect_timeout: float = 10.0,
        deadline: float | None = None,
        price: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
        http_client: httpx.AsyncClient | None = None,
        allow_http: bool = False,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        hook: AttemptHook | None = None,
        validate: Validate | None = None,
        accept: Format | str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        max_queued: int | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(
            base_url=base_url,
            max_concurrency=max_concurrency,
            adaptive=adaptive,
            connect_timeout=connect_timeout,
            transport=transport,
            http_client=http_client,
            allow_http=allow_http,
            max_response_bytes=max_response_bytes,
        )
        self._ended = EndedJobs()
        self._set_options(
            ClientOptions(
                token=token,
                retry=retry,
                timeout=timeout,
                deadline=deadline,
                price=price,
                hook=hook,
                validate=validate,
                accept=accept,
                extra_headers=extra_headers,
                max_queued=max_queued,
                cache=cache,
            )
        )

    def with_options(self, **overrides: Unpack[Options]) -> AsyncProdia:
        """
        Return a view of this client with other defaults.

        It shares connections, scheduler and totals, so it is light, and
        closing either closes both.

        Args:
            overrides: `token`, `retry`, `timeout`, `deadline`, `price`,
                `accept`, `extra_headers`, `max_queued`, `cache`, `hook` or
                `validate`, as the client takes them.

        Raises:
            InvalidRequestError: Another option was given, or one is out of its range.
        """
        return self._view(overrides)

    @shows_options
    async def job(
        self,
        job: JobLike,
        *,
        via: Literal["sync", "async"] = "sync",
        **options: Unpack[JobOptions],
    ) -> JobResponse:
        """
        Run one job and return its answer, whole.

        Refusals for lack of capacity and server faults are waited out and
        tried again as the `RetryPolicy` says.

        Args:
            job: ``Job(type=..., config=...)`` or the same as a mapping.
            inputs: Files the job works on, in order: paths, bytes, outputs, files; see `InputLike`.
            accept: The format of the first output: ``JPEG(...)``,
                ``PNG(...)``, ``WebP(...)`` or a media type such as
                ``"video/mp4"``. The server's default for pictures is JPEG.
            multipart: Have the job result come along. ``False`` saves a few
                bytes and leaves ``response.job`` at ``None``.
            price: As the client's option.
            deadline: As the client's option.
            extra_headers: Further request headers.
            extra_query: Further query parameters.
            via: ``"sync"`` waits on the connection; ``"async"`` leaves the job with the server
                and asks about it, for jobs of minutes. Not every type permits it (then: 400).

        Returns:
            The job result and every output, in wire order.

        Raises:
            InvalidRequestError: It cannot be sent; nothing was.
            QueueFullError: `max_queued` jobs wait already; nothing was sent.
            DeadlineExceededError: The deadline passed.
            APIConnectionError: No complete answer came.
            APIStatusError: The server refused it, or had a fault.
            ResponseError: It ran, but the answer is not what the API promises.
            JobFailedError: It ended ``failed``.
        """
        return await self._answer(JobRequest(job, via=via, **options))

    @shows_options
    async def submit(self, job: JobLike, **options: Unpack[JobOptions]) -> AsyncJob:
        """
        Leave a job with the server, to be collected later.

        The answer comes at once and holds the job's id: keep it, and the job
        can be picked up by any process with `async_job`. The submission is
        tried again as `job` is; once it was accepted, asking costs nothing.

        Args:
            job: ``Job(type=..., config=...)`` or the same as a mapping.
            inputs: Files the job works on, in order: paths, bytes, outputs, files; see `InputLike`.
            accept: The format of the first output: ``JPEG(...)``,
                ``PNG(...)``, ``WebP(...)`` or a media type such as
                ``"video/mp4"``. The server's default for pictures is JPEG.
            multipart: Does not matter here, since the job result and the
                outputs are fetched one by one.
            price: As the client's option.
            deadline: As the client's option, for the submission alone.
            extra_headers: Further request headers.
            extra_query: Further query parameters.

        Returns:
            The job, with its `id`.

        Raises:
            ProdiaError: As `job` does. 400 also means that this type does not
                permit it.
        """
        return await self._submit(JobRequest(job, **options))

    def async_job(self, job_id: str) -> AsyncJob:
        """
        Pick up a job that was submitted before, here or in another process.

        Nothing is sent until it is asked for something.

        Args:
            job_id: Its `AsyncJob.id`.

        Raises:
            InvalidRequestError: `job_id` cannot be an id.
        """
        return AsyncJob(job_id, self._calls())

    def _calls(self) -> Calls:
        """Return what an `AsyncJob` needs of its client."""
        return Calls(
            self._engine,
            self._terms,
            self._options.price,
            self._max_response_bytes,
            self._headers,
            self._ended,
        )

    @shows_options
    def stream(
        self, job: JobLike, **options: Unpack[JobOptions]
    ) -> AbstractAsyncContextManager[JobStream]:
        """
        Run one job and read its answer while it comes.

        ::

            async with client.stream(job, accept="video/mp4") as stream:
                async for part in stream:
                    match part:
                        case JobResult():
                            print(part.id)
                        case OutputPart():
                            await part.save("clip.mp4")

        Until the answer begins it is tried again as with `job`; once it has
        begun the job has run, and nothing is sent again. Memory is bounded
        by the piece in hand, whatever the size. Leaving the block early
        closes the connection and frees the slot.

        Args:
            job: ``Job(type=..., config=...)`` or the same as a mapping.
            inputs: Files the job works on, in order: paths, bytes, outputs, files; see `InputLike`.
            accept: The format of the first output: ``JPEG(...)``,
                ``PNG(...)``, ``WebP(...)`` or a media type such as
                ``"video/mp4"``. The server's default for pictures is JPEG.
            multipart: Have the job result come along, first.
            price: As the client's option.
            deadline: As the client's option; the reader's own time does not count.
            extra_headers: Further request headers.
            extra_query: Further query parameters.

        Returns:
            A context manager that gives a `JobStream` when the answer begins.

        Raises:
            ProdiaError: As `job` does; on entering the block what concerns
                the request, while reading what concerns the answer.
        """
        return StreamBlock(self._stream(JobRequest(job, **options)))

    def map(
        self,
        jobs: Iterable[JobLike | JobRequest] | AsyncIterable[JobLike | JobRequest],
        *,
        ordered: bool = False,
        buffer: int = 0,
        accept: Format | str | None = None,
        price: bool | None = None,
        via: Literal["sync", "async"] = "sync",
        progress: bool | Callable[[MapProgress], None] = False,
    ) -> Outcomes[JobLike | JobRequest, JobOutcome]:
        """
        Run many jobs, few at a time.

        ::

            async with client.map(jobs) as outcomes:
                async for outcome in outcomes:
                    ...

        The next job is pulled from ``jobs`` only when one may start, so a
        million cost no more memory than a hundred. One failure never stops
        the rest. A consumer that stops reading stops new work. Leaving the
        block cancels what is in flight, and closes an async generator of jobs.

        Inside an async generator of your own, close that one in good order
        (``contextlib.aclosing``): left half-way it keeps the block open.

        A server that is down, refuses the token or asks for an hour's
        patience empties no source: nothing is pulled meanwhile, and one job
        at a time asks whether it is back. Types do not stop each other: jobs
        of one that the server is slow to take are put aside, some thousands
        at the most, unless outcomes are wanted in order.

        To end early and lose nothing, stop rather than leave::

            loop.add_signal_handler(signal.SIGINT, outcomes.stop)

        Whatever came and was not read when the block was left, by Ctrl-C too,
        is in ``outcomes.unread()`` afterwards.

        Args:
            jobs: `Job`, mapping or `JobRequest`, from an iterable or an async
                iterable. If it raises, what was started still comes out,
                and then its error is raised.
            ordered: Deliver outcomes in the order of the jobs rather than as
                they complete.
            buffer: How many outcomes may lie unread, beyond `max_concurrency`.
            accept: The format of outputs where a job does not say; see `job`.
            price: Ask what each job cost, where a job does not say.
            via: ``"async"`` leaves every job with the server and asks about
                it; a `JobRequest` may say so for itself.
            progress: ``True`` shows how it goes: a bar in a terminal or a
                notebook, lines in a log. Needs tqdm (the extra `notebook`).
                A function is given a `MapProgress` as each job ends.

        Returns:
            What gives the outcomes; ``async with`` starts the work, ``async
            for`` reads. Its ``stop()`` pulls no more, its ``unread()`` has
            what came and was not read.

        Raises:
            InvalidRequestError: `jobs` is not iterable, or is a single job;
                `buffer` is negative; another option is out of its range.
        """
        if via not in {"sync", "async"}:
            raise InvalidRequestError(f'via must be "sync" or "async", not {shown(via)}')
        accept_header(accept, multipart=True)
        optional(flag, "price", price)

        async def run(index: int, item: JobLike | JobRequest, source: Source) -> JobOutcome:
            request = item if isinstance(item, JobRequest) else JobRequest(item)
            request = _with_defaults(request, accept=accept, price=price, via=via)
            try:
                response = await self._answer(request, source, index)
                return Succeeded(index, request, response, tag=request.tag)
            except BaseException as error:  # noqa: BLE001  (one failure never stops the rest)
                return Failed(index, request, None, cast("Raised", own_error(error)), request.tag)

        return self._outcomes(
            jobs,
            run,
            alone=(Job, JobRequest),
            many="jobs",
            single="job(...)",
            ordered=ordered,
            buffer=buffer,
            job_type_of=_job_type_of,
            progress=progress,
        )

    async def grid(
        self,
        job: JobLike,
        *,
        rows: Mapping[str, Iterable[Any]] | None = None,
        columns: Mapping[str, Iterable[Any]] | None = None,
        inputs: Sequence[InputLike] = (),
        accept: Format | str | None = None,
        price: bool | None = None,
        deadline: float | None = None,
    ) -> Grid:
        """
        Run a job in every combination of some values, in a table that fills in live.

        ::

            await client.grid(job, rows={"prompt": ["a cat", "a dog"]}, columns={"seed": range(4)})

        In a notebook the table is shown while it fills in, with failures in
        their cells and the dollars below; what it has stays shown when the
        cell is interrupted. The jobs run as those of `map` do.

        Args:
            job: What all have in common.
            rows: Config keys and their values; of several keys every combination is a row.
            columns: The same for columns.
            inputs: As `job` takes them, and so the others.
            accept: As `job` takes it.
            price: As `job` takes it.
            deadline: As `job` takes it, for each.

        Returns:
            The `Grid`: ``grid[row, column]`` is an outcome.

        Raises:
            InvalidRequestError: Rows or columns are no such mapping, or there
                are more than 1000 cells. What is wrong with a single job is in its cell.
        """
        grid = Grid(axis("rows", rows), axis("columns", columns))
        options = {"inputs": inputs, "accept": accept, "price": price, "deadline": deadline}
        jobs = requests_of(job, grid, options)
        return await fill(grid, self.map(jobs))

    async def _answer(
        self, request: JobRequest, source: Source | None = None, index: int | None = None
    ) -> JobResponse:
        """Run a job in whichever way it asks for, unless its answer is kept."""
        run = self._run if request.via == "sync" else self._run_async
        if self._cache is None:
            return await run(request, source, index)
        key = partial(self._cache.key, self._with_own(request))
        found = await self._cache.find(key, self._terms(request.deadline).deadline)
        if found.answer is not None:
            return found.answer
        response = await run(replace(request, deadline=found.left), source, index)
        if found.key is not None:
            await self._cache.put(found.key, response)
        return response

    async def _run(
        self, request: JobRequest, source: Source | None, index: int | None
    ) -> JobResponse:
        wire, terms = await self._prepare(request, source, index)
        answer = CollectedAnswer(
            multipart=request.multipart,
            max_bytes=self._max_response_bytes,
            job_type=wire.kind,
            accept=str(request.accept or self._options.accept or ""),
        )
        collected, finished = await self._engine.run(wire, answer, terms)
        return _response(collected, finished)

    async def _run_async(
        self, request: JobRequest, source: Source | None, index: int | None
    ) -> JobResponse:
        began = _waiting.current_time()
        terms = self._terms(None, index=index, tag=request.tag)
        with told_as_one(terms, _job_type_of(request) or "") as told:
            submitted = await self._submit(request, source, index)
            # The deadline is one for both: what the submission took is gone.
            own = request.deadline
            deadline = self._options.deadline if own is None else own
            left = None if deadline is None else began + deadline - _waiting.current_time()
            response = await self._result(submitted, None if left is None else max(left, 0.001))
            told.attempts = response.attempts
            told.dollars = max(0.0, response.dollars or 0.0)
            return response

    async def _result(self, submitted: AsyncJob, deadline: float | None) -> JobResponse:
        try:
            return await submitted.result(deadline=deadline)
        except BaseException as error:
            self._calls().ended(submitted.id, cancelled=not isinstance(error, Exception))
            raise

    def _with_own(self, request: JobRequest) -> JobRequest:
        """Return a request with the client's own defaults where it says nothing."""
        options = self._options
        return _with_defaults(request, accept=options.accept, extra_headers=options.extra_headers)

    async def _submit(
        self, request: JobRequest, source: Source | None = None, index: int | None = None
    ) -> AsyncJob:
        wire, terms = await self._prepare(request, source, index, submit=True)
        answer = CollectedAnswer(multipart=False, max_bytes=self._max_response_bytes, final=False)
        try:
            # It counts when it has ended, since until then nobody knows how.
            collected, finished = await self._engine.run(
                wire, answer, replace(terms, counted=False)
            )
            job_id = submitted_id(collected, finished)
        except BaseException as error:
            count(self._engine, cancelled=not isinstance(error, Exception))
            raise
        # If whoever waits is cut off, this is the one place that knows what was paid for.
        extra = {"job_type": wire.kind, "job_id": job_id, "index": index, "tag": request.tag}
        extra["request_id"] = finished.request_id
        log(logging.INFO, "%s: submitted as %s", wire.kind, job_id, extra=extra)
        left = Unfinished(wire.kind, index, request.tag, may_have_run=True, job_id=job_id)
        return AsyncJob(job_id, self._calls(), job=collected.job, submitted=finished, left=left)

    async def _prepare(
        self,
        request: JobRequest,
        source: Source | None = None,
        index: int | None = None,
        *,
        submit: bool = False,
    ) -> tuple[WireRequest, Terms]:
        """Check and encode a job; looking at its files is part of its deadline."""
        self._engine.session()  # a closed client says so at once
        terms = self._terms(request.deadline, source, index=index, tag=request.tag)
        encoding = partial(
            encode_job,
            self._with_own(request),
            price=self._options.price,
            submit=submit,
            validate=self._options.validate,
        )
        wire, spent = await looked_at(encoding, terms.deadline, "looking at its inputs")
        return wire, replace(terms, spent=spent) if spent else terms

    @asynccontextmanager
    async def _stream(self, request: JobRequest) -> AsyncGenerator[JobStream, None]:
        wire, terms = await self._prepare(request)
        answer = CollectedAnswer(multipart=request.multipart, max_bytes=self._max_response_bytes)
        flight = await self._engine.begin(wire, answer, terms)
        reply = flight.reply
        stream: JobStream | None = None
        try:
            feed = AnswerFeed(reply, multipart=request.multipart)
            stream = JobStream(
                feed,
                flight.within,
                request_id=reply.request_id,
                multipart=request.multipart,
                job_type=wire.kind,
                give_back=flight.give_back,
            )
            yield stream
        except BaseException as error:
            # What the block itself raised says nothing of this job.
            own = stream is None or error is stream.error or not isinstance(error, Exception)
            answer.note(stream.job if stream else None)
            await flight.end(error, own=own)
            raise
        answer.note(stream.job)
        # An error that the block swallowed counts all the same.
        await flight.end(stream.error)


def _with_defaults(
    request: JobRequest,
    *,
    accept: Format | str | None = None,
    price: bool | None = None,
    via: Literal["sync", "async"] = "sync",
    extra_headers: Mapping[str, str] | None = None,
) -> JobRequest:
    """Fill in what a request does not say itself."""
    changes: dict[str, Any] = {}
    if request.accept is None and accept is not None:
        changes["accept"] = accept
    if request.price is None and price is not None:
        changes["price"] = price
    if request.via == "sync" and via == "async":
        changes["via"] = via
    if extra_headers and isinstance(request.extra_headers, Mapping | None):
        # Names are the same in any case, and what the job says wins.
        own = {name.lower(): value for name, value in (request.extra_headers or {}).items()}
        theirs = {name.lower(): value for name, value in extra_headers.items()}
        changes["extra_headers"] = {**theirs, **own}
    return replace(request, **changes) if changes else request


def _job_type_of(item: JobLike | JobRequest) -> str | None:
    """Tell the type of one job of many; ``None`` for what is none, as it will turn out."""
    job = item.job if isinstance(item, JobRequest) else item
    job_type = job.type if isinstance(job, Job) else None
    if isinstance(job, Mapping):
        job_type = job.get("type")
    return job_type if isinstance(job_type, str) else None


def _response(collected: Collector, finished: Finished) -> JobResponse:
    return JobResponse(
        collected.job,
        tuple(collected.outputs),
        finished.request_id,
        finished.attempts,
        finished.timing,
        finished.headers,
    )
