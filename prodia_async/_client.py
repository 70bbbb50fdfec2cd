"""``AsyncProdia``: Prodia's vocabulary over the engine."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from . import _waiting
from ._async_jobs import AsyncJob
from ._base import Account, BaseClient, TokenSource
from ._errors import DeadlineExceededError, InvalidRequestError, MalformedResponseError
from ._grid import Grid, axis, fill, requests_of
from ._hooks import log
from ._map import own_error
from ._models import Failed, Job, JobOutcome, JobRequest, JobResponse, Succeeded, Timing
from ._polling import EndedJobs
from ._requests import encode_job
from ._show import one_line
from ._stream import AnswerFeed, CollectedAnswer, JobStream
from ._wire import MAX_RESPONSE_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from ._answers import Collector
    from ._formats import Format
    from ._hooks import AttemptHook
    from ._httpx import httpx
    from ._models import InputLike
    from ._retry import RetryPolicy
    from ._source import Source
    from ._vocabulary import Finished, Terms
    from ._wire import WireRequest

ACCOUNT = Account(
    credential="token",
    option="token",
    variable="PRODIA_TOKEN",
    url="https://inference.prodia.com",  # documented: reference "Inference"
    url_variable="PRODIA_BASE_URL",
    url_suffix="/v2",
    requests="the jobs (Job, JobRequest, mappings)",
)

JobLike = Job | Mapping[str, Any]


class Options(TypedDict, total=False):
    """What `AsyncProdia.with_options` may change."""

    token: TokenSource
    retry: RetryPolicy
    timeout: float
    deadline: float | None
    price: bool
    hook: AttemptHook | None
    validate: Literal["known"] | None


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
        price: Ask what each job cost; the answer is in ``response.job.price``.
        transport: An httpx transport to use instead of our own; closed with
            the client. It then belongs to one event loop.
        http_client: A client of your own to send through; never closed here.
        allow_http: Allow plain http to a host that is not this machine. The
            token then travels where anybody can read it.
        max_response_bytes: The most that `job` collects in memory for one
            answer. Chosen: 1 GiB.
        hook: A function to be told of every attempt; see `AttemptHook`.
        validate: ``"known"`` checks jobs of known types before they are sent,
            by what their documentation states for certain, and tells all
            that is wrong at once. Unknown types and options always pass.

    Raises:
        InvalidRequestError: No token was found, or an argument is out of its range.
    """

    _account = ACCOUNT
    _option_names = tuple(Options.__annotations__)

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
        validate: Literal["known"] | None = None,
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
            {
                "token": token,
                "retry": retry,
                "timeout": timeout,
                "deadline": deadline,
                "price": price,
                "hook": hook,
                "validate": validate,
            }
        )

    def _set_options(self, options: Mapping[str, Any]) -> None:
        super()._set_options(options)
        self._price: bool = options["price"]
        validate = options["validate"]
        if validate not in {None, "known"}:
            raise InvalidRequestError(f'validate must be "known" or None, not {validate!r:.80}')
        self._validate: Literal["known"] | None = validate

    def with_options(self, **overrides: Unpack[Options]) -> AsyncProdia:
        """
        Return a view of this client with other defaults.

        It shares connections, scheduler and totals, so it is light, and
        closing either closes both.

        Args:
            overrides: `token`, `retry`, `timeout`, `deadline`, `price`,
                `hook` or `validate`, as the client takes them.

        Raises:
            InvalidRequestError: Another option was given, or one is out of its range.
        """
        return self._view(overrides)

    async def job(
        self,
        job: JobLike,
        *,
        inputs: Sequence[InputLike] = (),
        accept: Format | str | None = None,
        multipart: bool = True,
        price: bool | None = None,
        deadline: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
        extra_query: Mapping[str, str] | None = None,
        via: Literal["sync", "async"] = "sync",
    ) -> JobResponse:
        """
        Run one job and return its answer, whole.

        Refusals for lack of capacity and server faults are waited out and
        tried again as the `RetryPolicy` says.

        Args:
            job: ``Job(type=..., config=...)`` or the same as a mapping.
            inputs: Files the job works on, in order: `Input`, bytes, or paths.
            accept: The format of the first output: ``JPEG(...)``,
                ``PNG(...)``, ``WebP(...)`` or a media type such as
                ``"video/mp4"``. The server's default for pictures is JPEG.
            multipart: Have the job result come along. ``False`` saves a few
                bytes and leaves ``response.job`` at ``None``.
            price: As the client's option.
            deadline: As the client's option.
            extra_headers: Further request headers.
            extra_query: Further query parameters.
            via: ``"sync"`` waits on the connection; ``"async"`` leaves the
                job with the server and asks about it, which suits jobs of
                minutes. Not every type permits it (then: 400).

        Returns:
            The job result and every output, in wire order.

        Raises:
            InvalidRequestError: It cannot be sent; nothing was.
            DeadlineExceededError: The deadline passed.
            APIConnectionError: No complete answer came.
            APIStatusError: The server refused it, or had a fault.
            ResponseError: It ran, but the answer is not what the API promises.
            JobFailedError: It ran and failed.
        """
        request = JobRequest(
            job, inputs, accept, multipart, price, deadline, extra_headers, extra_query
        )
        if via == "sync":
            return await self._run(request)
        if via != "async":
            raise InvalidRequestError(f'via must be "sync" or "async", not {via!r}')
        began = _waiting.current_time()
        submitted = await self._submit(request)
        calls = _Calls(self)
        # The deadline is one for both: what the submission took is gone.
        deadline = self._deadline if deadline is None else deadline
        left = None if deadline is None else began + deadline - _waiting.current_time()
        try:
            return await submitted.result(deadline=None if left is None else max(left, 0.001))
        except BaseException:
            calls.ended(submitted.id, completed=False)
            raise

    async def submit(
        self,
        job: JobLike,
        *,
        inputs: Sequence[InputLike] = (),
        accept: Format | str | None = None,
        multipart: bool = True,
        price: bool | None = None,
        deadline: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
        extra_query: Mapping[str, str] | None = None,
    ) -> AsyncJob:
        """
        Leave a job with the server, to be collected later.

        The answer comes at once and holds the job's id: keep it, and the job
        can be picked up by any process with `async_job`. The submission is
        tried again as `job` is; once it was accepted, asking costs nothing.

        Args: as `job` takes them. ``multipart`` does not matter here, since
        the job result and the outputs are fetched one by one.

        Returns:
            The job, with its `id`.

        Raises:
            ProdiaError: As `job` does. 400 also means that this type does not
                permit it.
        """
        return await self._submit(
            JobRequest(job, inputs, accept, multipart, price, deadline, extra_headers, extra_query)
        )

    def async_job(self, job_id: str) -> AsyncJob:
        """
        Pick up a job that was submitted before, here or in another process.

        Nothing is sent until it is asked for something.

        Raises:
            InvalidRequestError: `job_id` cannot be an id.
        """
        return AsyncJob(job_id, _Calls(self))

    def stream(
        self,
        job: JobLike,
        *,
        inputs: Sequence[InputLike] = (),
        accept: Format | str | None = None,
        multipart: bool = True,
        price: bool | None = None,
        deadline: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
        extra_query: Mapping[str, str] | None = None,
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

        Args: as `job` takes them.

        Returns:
            A context manager that gives a `JobStream` when the answer begins.

        Raises:
            ProdiaError: As `job` does; on entering the block what concerns
                the request, while reading what concerns the answer.
        """
        return self._stream(
            JobRequest(job, inputs, accept, multipart, price, deadline, extra_headers, extra_query)
        )

    def map(
        self,
        jobs: Iterable[JobLike | JobRequest] | AsyncIterable[JobLike | JobRequest],
        *,
        ordered: bool = False,
        buffer: int = 0,
    ) -> AbstractAsyncContextManager[AsyncIterator[JobOutcome]]:
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
        Several types in one source share its window, so a type that the
        server is slow to take sets the pace in the end; a ``map`` for each,
        side by side, keeps them apart.

        Args:
            jobs: `Job`, mapping or `JobRequest`, from an iterable or an async
                iterable. If it raises, what was started still comes out,
                and then its error is raised.
            ordered: Deliver outcomes in the order of the jobs rather than as
                they complete.
            buffer: How many outcomes may lie unread, beyond `max_concurrency`.

        Raises:
            InvalidRequestError: `jobs` is not iterable, or is a single job;
                `buffer` is negative.
        """
        return self._outcomes(
            jobs,
            self._run_one_of_many,
            alone=(Job, JobRequest),
            many="jobs",
            single="job(...)",
            ordered=ordered,
            buffer=buffer,
            job_type_of=_job_type_of,
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
        return await fill(grid, lambda: self.map(jobs))

    async def _run_one_of_many(
        self, index: int, item: JobLike | JobRequest, source: Source
    ) -> JobOutcome:
        request = item if isinstance(item, JobRequest) else JobRequest(item)
        try:
            response = await self._run(request, source)
            return Succeeded(index, request, response, tag=request.tag)
        except BaseException as error:  # noqa: BLE001  (one failure never stops the rest)
            return Failed(index, request, None, own_error(error), request.tag)

    async def _run(self, request: JobRequest, source: Source | None = None) -> JobResponse:
        wire, terms = await self._prepare(request, source)
        answer = CollectedAnswer(multipart=request.multipart, max_bytes=self._max_response_bytes)
        collected, finished = await self._engine.run(wire, answer, terms)
        return _response(collected, finished)

    async def _submit(self, request: JobRequest) -> AsyncJob:
        wire, terms = await self._prepare(request, submit=True)
        answer = CollectedAnswer(multipart=False, max_bytes=self._max_response_bytes, final=False)
        try:
            # It counts when it has ended, since until then nobody knows how.
            collected, finished = await self._engine.run(
                wire, answer, replace(terms, counted=False)
            )
        except BaseException as error:
            cancelled = not isinstance(error, Exception)
            self._engine.session().scheduler.record(cancelled=cancelled)
            raise
        job = collected.job
        if job is None or job.id is None:
            raise MalformedResponseError(
                "the answer to a submission must bring the job's id, and has none",
                attempts=finished.attempts,
                request_id=finished.request_id,
                outputs=collected.outputs,
                job=job,
            )
        # If whoever waits is cut off, this is the one place that knows what was paid for.
        log(logging.INFO, "%s: submitted as %s", wire.kind, one_line(job.id))
        return AsyncJob(job.id, _Calls(self), job=job, submitted=finished)

    async def _prepare(
        self, request: JobRequest, source: Source | None = None, *, submit: bool = False
    ) -> tuple[WireRequest, Terms]:
        """Check and encode a job; looking at its files is part of its deadline."""
        terms = self._terms(request.deadline, source)
        encoding = partial(
            encode_job,
            request,
            price=self._price,
            submit=submit,
            validate=self._validate == "known",
        )
        if terms.deadline is None:
            return await encoding(), terms
        began = _waiting.current_time()
        with _waiting.until(_waiting.current_time() + terms.deadline):
            wire = await encoding()
            return wire, replace(terms, spent=_waiting.current_time() - began)
        raise DeadlineExceededError(
            f"the job was not sent within its deadline of {terms.deadline:g} s: looking at its "
            "inputs took longer"
        )

    @asynccontextmanager
    async def _stream(self, request: JobRequest) -> AsyncGenerator[JobStream, None]:
        wire, terms = await self._prepare(request)
        answer = CollectedAnswer(multipart=request.multipart, max_bytes=0)
        exchange = await self._engine.begin(wire, answer, terms)
        reply = exchange.reply
        stream: JobStream | None = None
        try:
            feed = AnswerFeed(reply, multipart=request.multipart)
            stream = JobStream(feed, exchange.within, request_id=reply.request_id)
            yield stream
        except BaseException as error:
            # What the block itself raised says nothing of this job.
            own = stream is None or error is stream.error or not isinstance(error, Exception)
            answer.note(stream.job if stream else None)
            await exchange.end(error, own=own)
            raise
        answer.note(stream.job)
        # An error that the block swallowed counts all the same.
        await exchange.end(stream.error)


class _Calls:
    """What an `AsyncJob` needs of its client."""

    def __init__(self, client: AsyncProdia) -> None:
        self.engine = client._engine  # noqa: SLF001  (the client's own helper)
        self.terms = client._terms  # noqa: SLF001
        self.price = client._price  # noqa: SLF001
        self.max_response_bytes = client._max_response_bytes  # noqa: SLF001
        self._ended = client._ended  # noqa: SLF001

    def ended(self, job_id: str, *, completed: bool, dollars: float = 0.0) -> None:
        if self._ended.add(job_id):
            scheduler = self.engine.session().scheduler
            scheduler.record(completed=completed, dollars=max(dollars, 0.0))


def _job_type_of(item: JobLike | JobRequest) -> str | None:
    """Tell the type of one job of many; ``None`` for what is none, as it will turn out."""
    job = item.job if isinstance(item, JobRequest) else item
    job_type = job.type if isinstance(job, Job) else _as_mapping(job).get("type")
    return job_type if isinstance(job_type, str) else None


def _as_mapping(job: object) -> Mapping[str, Any]:
    return job if isinstance(job, Mapping) else {}


def _response(collected: Collector, finished: Finished) -> JobResponse:
    return JobResponse(
        collected.job,
        tuple(collected.outputs),
        finished.request_id,
        finished.attempts,
        Timing(finished.queued, finished.backoff, finished.running, finished.total),
    )
