"""
The routes: who waits, who is refused, and what is recorded of it.

The order in which `POST /v2/job` decides: planned reply, token (401), size of
the upload (413), form and JSON (400), job type (400, 403), Accept (400),
configuration and inputs (400, 413), idle worker (429). So a wrong job is
refused with its reason however busy the workers are, and whatever is not 200
is decided before any work is done, but for jobs that run and fail.

`POST /v2/job/async` decides likewise, whether the type permits it after the
type, the async limit (429) before the idle worker; the job then runs in the
background on the same workers. It is charged when it is submitted. The four
reads decide: planned reply, token (401), id (404).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ._accept import Wanted, asks_for_multipart, read_accept
from ._behaviour import Behaviour, word
from ._bodies import joined
from ._delivery import Address, Delivery
from ._fireworks import Fireworks
from ._fireworks_answers import FireworksBehaviour
from ._forms import Form, FormReader, InputFile, Part, disposition_fields, go_json, write_form
from ._jobs import Life, Plan, completed, failed, now, price, read_job, route, under_way
from ._ledger import Ledger, ReceivedInput, Record
from ._openapi import describe
from ._refusals import TEXTS, Refused, bad_request
from ._script import Failures, Mishap, PlannedReply, Script, seconds_text
from ._store import AsyncJob, Store
from ._studio import Output, Studio
from ._workflows import make_plan, offers

if TYPE_CHECKING:
    from ._bodies import Body
    from ._capacity import Capacity, Pool
    from ._webhooks import Webhook

Latency = float | tuple[float, float] | Callable[[str], float]
RetryAfter = float | str | Callable[[], str | None] | None

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"

_STOPPING = "the emulator is stopping"

_log = logging.getLogger("prodia_async.emulator")

_GONE_AFTER = 0.001
"""Seconds after which it is worth asking whether the client has left (chosen)."""


@dataclass(slots=True)
class Settings:
    """
    What may be changed while the emulator runs; see `Emulator` for the meanings.

    Read by the loop once per request, so one assignment from any thread is enough.
    """

    tokens: frozenset[str] | None
    privileged_types: frozenset[str]
    latency: Latency
    retry_after: RetryAfter
    max_upload_bytes: int
    max_async_jobs: int
    sync_only_types: frozenset[str]
    behaviour: Behaviour
    held: bool = False
    fireworks: FireworksBehaviour = field(default_factory=FireworksBehaviour)


@dataclass(slots=True)
class _Visit:
    """A request under way: what will become its `Record`, and how its answer will go out."""

    request: Request
    number: int
    request_id: str
    at: float = field(default_factory=time.time)
    started: float = field(default_factory=time.perf_counter)
    notes: dict[str, Any] = field(default_factory=dict)
    job: Mapping[str, Any] | None = None
    mishap: Mishap | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer before it is a response."""

    status: int
    content_type: str
    body: Body
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Done:
    """What became of a job that a worker ran: its outputs, or why it failed."""

    elapsed: float
    outputs: tuple[Output, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Plans:
    """What was planned on request: replies to jobs, replies to reads, jobs that fail."""

    jobs: Script = field(default_factory=Script)
    reads: Script = field(default_factory=Script)
    failures: Failures = field(default_factory=Failures)


class App:
    """The ASGI application and the work behind it."""

    def __init__(
        self,
        settings: Settings,
        capacity: Capacity,
        ledger: Ledger,
        plans: Plans,
        store: Store,
        *,
        samples_port: int,
        webhooks: list[Webhook],
    ) -> None:
        self._settings = settings
        self._capacity = capacity
        self._ledger = ledger
        self._plans = plans
        self._store = store
        self._studio = Studio()
        # A private source with a fixed seed: the sequence of latencies repeats.
        self._random = random.Random(0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._making: dict[Hashable, asyncio.Future[tuple[Output, ...]]] = {}
        self._closing = asyncio.Event()
        self._let_go = asyncio.Event()
        self._pool = ThreadPoolExecutor(thread_name_prefix="prodia-emulator-draw")
        self.transport_of: Callable[[Address | None], asyncio.WriteTransport | None]
        self.transport_of = lambda _: None
        self.writes_raw = True
        self._fireworks = Fireworks(
            settings,
            capacity,
            ledger,
            plans.jobs,
            pool=self._pool,
            closing=self._closing,
            latency=self._latency,
            retry_after=self._retry_after,
            sleep=self._sleep,
            samples_port=samples_port,
            webhooks=webhooks,
            deliver=self._deliver,
        )
        self.asgi = Starlette(
            routes=[
                Route("/v2/job", self._post_job, methods=["POST"]),
                Route("/v2/job/async", self._post_async, methods=["POST"]),
                Route("/v2/job/async/{id}/job.state.current", self._get_state),
                Route("/v2/job/async/{id}/job.json", self._get_job),
                Route("/v2/job/async/{id}/output", self._get_listing),
                Route("/v2/job/async/{id}/output/{filename}", self._get_output),
                Route("/v2/openapi.json", self._get_openapi),
                *self._fireworks.routes(),
            ],
            exception_handlers={HTTPException: self._no_route},
        )
        # A wrong path is a 404 with a request id, not a redirect without one.
        self.asgi.router.redirect_slashes = False

    @property
    def working(self) -> bool:
        """Whether jobs run in the background."""
        return bool(self._tasks)

    def close(self) -> None:
        """Answer every job under way at once; call it on the loop."""
        self._closing.set()
        self._let_go.set()
        self._fireworks.let_go()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def let_go(self) -> None:
        """Let the jobs finish that were held; call it on the loop."""
        self._let_go.set()
        self._let_go = asyncio.Event()
        self._fireworks.let_go()

    # Requests.

    async def _post_job(self, request: Request) -> Response:
        return await self._answer(request, self._job)

    async def _post_async(self, request: Request) -> Response:
        return await self._answer(request, self._async_job)

    async def _get_state(self, request: Request) -> Response:
        return await self._answer(request, self._state)

    async def _get_job(self, request: Request) -> Response:
        return await self._answer(request, self._job_json)

    async def _get_listing(self, request: Request) -> Response:
        return await self._answer(request, self._listing)

    async def _get_output(self, request: Request) -> Response:
        return await self._answer(request, self._output)

    async def _get_openapi(self, request: Request) -> Response:
        return await self._answer(request, self._openapi)

    async def _answer(
        self, request: Request, work: Callable[[_Visit], Awaitable[_Answer]]
    ) -> Response:
        """Turn whatever comes of a request into a response and a record."""
        visit = self._arrive(request)
        try:
            try:
                answer = await work(visit)
            except Refused as refusal:
                answer = self._refuse(visit, refusal)
        except ClientDisconnect:
            visit.notes["error"] = "the client left before its request was whole"
            self._record(visit, None)
            return Response()
        except Exception as exc:  # noqa: BLE001  # a bug in a function of the user's, or ours
            # Answered here and not by the framework, so that it has a request id too.
            _log.exception("request %s could not be answered", visit.request_id)
            visit.notes["error"] = f"{type(exc).__name__}: {exc}"
            answer = _Answer(500, _TEXT, b"internal server error")
        self._record(visit, answer.status)
        return self._delivery(visit, answer)

    async def _no_route(self, request: Request, exc: Exception) -> Response:
        """Answer paths and methods that do not exist; the ledger shows them too."""
        visit = self._arrive(request)
        status = exc.status_code if isinstance(exc, HTTPException) else 500
        text = "method not allowed" if status == 405 else "404 page not found"
        visit.notes["error"] = text
        self._record(visit, status)
        return self._delivery(visit, _Answer(status, _TEXT, text.encode()))

    def _arrive(self, request: Request) -> _Visit:
        visit = _Visit(request, self._ledger.arrive(), str(uuid.uuid4()))
        headers = request.headers
        length = headers.get("content-length", "")
        visit.notes.update(
            accept=headers.get("accept"),
            user_agent=headers.get("user-agent"),
            content_type=headers.get("content-type", "").partition(";")[0].strip().lower() or None,
            content_length=int(length) if length.isdigit() else None,
            price=request.query_params.get("price") == "true",
        )
        return visit

    async def _job(self, visit: _Visit) -> _Answer:
        reply = self._planned_for(visit, self._plans.jobs)
        if reply is not None:
            return await self._planned(visit, reply)
        plan = await self._receive(visit, submitted=False)
        return await self._run(visit, plan)

    async def _async_job(self, visit: _Visit) -> _Answer:
        reply = self._planned_for(visit, self._plans.jobs)
        if reply is not None:
            return await self._planned(visit, reply)
        plan = await self._receive(visit, submitted=True)
        return self._submit(visit, plan)

    async def _receive(self, visit: _Visit, *, submitted: bool) -> Plan:
        """Read and judge a job, all but whether a worker is idle."""
        settings = self._settings
        behaviour = settings.behaviour
        self._check_token(visit.request)
        form = await self._read(visit)
        job = self._note_job(visit, form)
        kind = route(job, settings.privileged_types, behaviour)
        if submitted:
            self._check_permit(kind.name)
        wanted = read_accept(
            visit.notes["accept"], offers(kind, job), clamp=behaviour.clamp_encoder
        )
        plan = make_plan(
            kind, job, form, wanted, behaviour=behaviour, privileged=settings.privileged_types
        )
        if submitted:
            for name in plan.types:
                self._check_permit(name)
        return plan

    def _check_permit(self, name: str) -> None:
        if name in self._settings.sync_only_types:
            raise bad_request(f"job type {name} does not support async")

    @staticmethod
    def _planned_for(visit: _Visit, script: Script) -> PlannedReply | None:
        """Take what is planned for a request: the answer itself, or what will befall it."""
        planned = script.take()
        if isinstance(planned, Mishap):
            visit.mishap = planned
            visit.notes["mishap"] = str(planned)
            return None
        return planned

    async def _planned(self, visit: _Visit, reply: PlannedReply) -> _Answer:
        if not reply.before_body:
            # The answer is decided already; the ledger gets what can be read.
            with contextlib.suppress(Refused):
                self._note_job(visit, await self._read(visit))
        if reply.charged:
            # The job is known if its body was read; if not, the charge has no price.
            visit.notes.update(ran=True, charged=True)
        headers = dict(reply.headers)
        visit.notes.update(planned=True, error=reply.text)
        if reply.body is not None:
            answer = _Answer(reply.status, reply.content_type, reply.body, headers)
        else:
            refused = Refused(reply.status, reply.text, as_job=reply.status == 400)
            answer = self._refuse(visit, refused)
            answer = _Answer(answer.status, answer.content_type, answer.body, headers)
        # What the plan says, not what a refusal of our own would have said.
        retry_after = next((v for k, v in headers.items() if k.lower() == "retry-after"), None)
        visit.notes["retry_after"] = retry_after
        return answer

    def _check_token(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        tokens = self._settings.tokens
        known = bool(token) if tokens is None else token in tokens
        if scheme.lower() != "bearer" or not known:
            raise Refused(401, TEXTS[401])

    async def _read(self, visit: _Visit) -> Form:
        """Read the body, refusing one that is too large before the rest of it."""
        limit = self._settings.max_upload_bytes
        if (visit.notes["content_length"] or 0) > limit:
            raise Refused(413, TEXTS[413])
        media_type = visit.notes["content_type"]
        reader = None
        if media_type == "multipart/form-data":
            header = visit.request.headers.get("content-type", "")
            boundary = disposition_fields(header).get("boundary", "")
            if not boundary:
                raise bad_request("multipart: no boundary in the Content-Type")
            reader = FormReader(boundary.encode())
        received = 0
        chunks = []
        try:
            async for chunk in visit.request.stream():
                received += len(chunk)
                if received > limit:
                    raise Refused(413, TEXTS[413])
                if reader is not None:
                    reader.feed(chunk)
                else:
                    chunks.append(chunk)
            form = Form("json", b"".join(chunks)) if reader is None else reader.finish()
        finally:
            if reader is not None:
                visit.notes["parts"] = tuple(reader.part_names)
                visit.notes["inputs"] = tuple(_seen(item) for item in reader.inputs)
                visit.notes["job_filename"] = reader.job_filename
        if media_type not in {None, "application/json", "multipart/form-data"}:
            raise bad_request(
                f"content type: got {media_type}, want application/json or multipart/form-data"
            )
        return form

    def _note_job(self, visit: _Visit, form: Form) -> Mapping[str, Any]:
        job = visit.job = read_job(form)
        kind, config = job.get("type"), job.get("config")
        visit.notes["type"] = kind if isinstance(kind, str) else None
        visit.notes["config"] = config if isinstance(config, dict) else None
        return job

    # Work.

    def _admit(self, plan: Plan) -> tuple[Plan, Pool]:
        """Find an idle worker, and whether the job shall fail."""
        workers = self._capacity.pool(plan.kind.name)
        if not workers.acquire():
            raise Refused(429, TEXTS[429])
        if plan.failure is None:
            failure = self._plans.failures.take(plan.types, plan.prompts)
            plan = plan if failure is None else replace(plan, failure=failure)
        return plan, workers

    async def _run(self, visit: _Visit, plan: Plan) -> _Answer:
        plan, workers = self._admit(plan)
        # From here on the job runs and is charged, whether or not the client
        # stays to hear of it: this server never cancels a handler.
        created = now()
        try:
            done = await self._work(plan)
        finally:
            workers.release()
        behaviour = self._settings.behaviour
        life = Life(
            id=str(uuid.uuid4()),
            created=created,
            updated=now(),
            expires_after=behaviour.expires_after,
        )
        visit.notes.update(ran=True, job_id=life.id)
        if done.elapsed > _GONE_AFTER:
            visit.notes["client_gone"] = await visit.request.is_disconnected()
        if done.error is not None:
            visit.notes["error"] = done.error
            if behaviour.failure_status == 200:
                visit.notes.update(charged=True, dollars=plan.dollars)
            result = failed(plan.request, done.error, life, in_history=behaviour.error_in_history)
            form = Wanted("multipart" if plan.wanted.form == "multipart" else "json")
            return _deliver(form, result, (), status=behaviour.failure_status)
        visit.notes.update(charged=True, dollars=plan.dollars)
        result = completed(plan, life, elapsed=done.elapsed)
        if visit.notes["price"]:
            result["price"] = price(plan, null=behaviour.price_null)
        return _deliver(plan.wanted, result, done.outputs)

    async def _work(self, plan: Plan) -> _Done:
        """Run a job that has a worker; raises `Refused` when it cannot be brought to an end."""
        started = time.perf_counter()
        latency = self._latency(plan.kind.name)
        outputs = () if plan.failure else await self._outputs(plan)
        left = latency - (time.perf_counter() - started)
        if left > 0:
            await self._sleep(left)
        if self._settings.held:
            await self._let_go.wait()
        if self._closing.is_set():
            raise Refused(503, _STOPPING)
        return _Done(time.perf_counter() - started, outputs, plan.failure)

    # Async jobs.

    def _submit(self, visit: _Visit, plan: Plan) -> _Answer:
        if self._store.running >= self._settings.max_async_jobs:
            raise Refused(429, "async job limit reached")
        plan, workers = self._admit(plan)
        clock, created = time.monotonic(), now()
        lifetime = self._settings.behaviour.expires_after
        job = AsyncJob(
            id=str(uuid.uuid4()),
            plan=plan,
            created=created,
            updated=created,
            expires_after=lifetime,
            deadline=clock + lifetime,
            priced=visit.notes["price"],
        )
        self._store.add(job, clock)
        self._store.running += 1
        task = asyncio.create_task(self._in_background(job, workers))
        self._tasks.add(task)

        def finished(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if job.state == "processing":
                # The loop ended before the task's first step.
                self._end(job, workers, error=_STOPPING)

        task.add_done_callback(finished)
        visit.notes.update(
            submitted=True, ran=True, charged=True, dollars=plan.dollars, job_id=job.id
        )
        return _Answer(201, _JSON, go_json(self._result(job, priced=False)))

    async def _in_background(self, job: AsyncJob, workers: Pool) -> None:
        done = None
        error = _STOPPING
        try:
            done = await self._work(job.plan)
        except Refused as refusal:
            error = refusal.text
        except Exception as exc:  # noqa: BLE001  # likewise
            _log.exception("job %s could not be run", job.id)
            error = f"internal server error: {type(exc).__name__}"
        self._end(job, workers, done, error=error)

    def _end(self, job: AsyncJob, workers: Pool, done: _Done | None = None, *, error: str) -> None:
        """Enter what became of a job, in the same step in which its worker becomes idle."""
        workers.release()
        self._store.running -= 1
        # The job is kept until it expires; its files need not be.
        job.plan = job.plan.without_inputs()
        if done is None:
            elapsed = (now() - job.created).total_seconds()
            job.fail(now(), elapsed=elapsed, error=error)
        elif done.error is not None:
            job.fail(now(), elapsed=done.elapsed, error=done.error)
        else:
            outputs = {item.filename or str(uuid.uuid4()): item for item in done.outputs}
            job.finish(now(), elapsed=done.elapsed, outputs=outputs)

    async def _find(self, visit: _Visit) -> AsyncJob | _Answer:
        """Find the job that a read is about, or the reply that was planned for the read."""
        job_id = visit.request.path_params["id"]
        visit.notes["job_id"] = job_id
        reply = self._planned_for(visit, self._plans.reads)
        if reply is not None:
            return await self._planned(visit, reply)
        self._check_token(visit.request)
        job = self._store.get(job_id, time.monotonic())
        if job is None:
            raise Refused(404, "job not found")
        return job

    async def _state(self, visit: _Visit) -> _Answer:
        found = await self._find(visit)
        if isinstance(found, _Answer):
            return found
        behaviour = self._settings.behaviour
        state = word(behaviour.state_words, found.state)
        text = json.dumps(state) if behaviour.quoted_state else state
        return _Answer(200, _TEXT, text.encode())

    async def _job_json(self, visit: _Visit) -> _Answer:
        found = await self._find(visit)
        if isinstance(found, _Answer):
            return found
        priced = found.priced or visit.notes["price"]
        return _Answer(200, _JSON, go_json(self._result(found, priced=priced)))

    def _result(self, job: AsyncJob, *, priced: bool) -> dict[str, Any]:
        """Make the ``job.json`` of an async job."""
        behaviour = self._settings.behaviour
        state = word(behaviour.job_state_words, job.state)
        life = Life(
            id=job.id, created=job.created, updated=job.updated, expires_after=job.expires_after
        )
        if job.error is not None:
            return failed(
                job.plan.request,
                job.error,
                life,
                state=state,
                in_history=behaviour.error_in_history,
            )
        if job.elapsed is None:
            return under_way(job.plan, life, state=state)
        result = completed(job.plan, life, elapsed=job.elapsed, state=state)
        if priced:
            result["price"] = price(job.plan, null=behaviour.price_null)
        return result

    async def _listing(self, visit: _Visit) -> _Answer:
        found = await self._find(visit)
        if isinstance(found, _Answer):
            return found
        if found.outputs is None:
            # What an unfinished job answers is not documented.
            raise Refused(404, "job has no output yet")
        names = list(found.outputs)
        listing = self._settings.behaviour.listing
        body = names if listing is None else listing(names)
        return _Answer(200, _JSON, body if isinstance(body, bytes) else go_json(body))

    async def _output(self, visit: _Visit) -> _Answer:
        found = await self._find(visit)
        if isinstance(found, _Answer):
            return found
        output = (found.outputs or {}).get(visit.request.path_params["filename"])
        if output is None:
            raise Refused(404, "output not found")
        return _Answer(200, output.content_type, joined([output.content]))

    async def _openapi(self, visit: _Visit) -> _Answer:
        self._check_token(visit.request)
        return _Answer(200, _JSON, go_json(describe()))

    # Outputs.

    async def _outputs(self, plan: Plan) -> tuple[Output, ...]:
        if plan.makes_nothing:
            return ()
        if self._closing.is_set():
            raise Refused(503, _STOPPING)
        key = self._studio.key(plan)
        ready = self._studio.ready(key)
        if ready is not None:
            return ready
        making = self._making.get(key)
        if making is None:
            loop = asyncio.get_running_loop()
            making = loop.run_in_executor(self._pool, self._studio.make, plan)
            self._making[key] = making
            making.add_done_callback(lambda _: self._making.pop(key))
        try:
            return await making
        except asyncio.CancelledError:
            # Drawings that had not begun are cancelled at the end, and only then.
            if not self._closing.is_set():
                raise
            raise Refused(503, _STOPPING) from None

    def _latency(self, type: str) -> float:
        latency = self._settings.latency
        if callable(latency):
            return latency(type)
        if isinstance(latency, tuple):
            return self._random.uniform(*latency)
        return latency

    async def _sleep(self, seconds: float) -> None:
        """Wait, but not beyond the emulator's own end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    # Answers.

    def _refuse(self, visit: _Visit, refusal: Refused) -> _Answer:
        visit.notes["error"] = refusal.text
        headers: dict[str, str] = {}
        if refusal.status == 429:
            visit.notes["retry_after"] = value = self._retry_after()
            if value is not None:
                headers["retry-after"] = value
        if not refusal.as_job:
            return _Answer(refusal.status, _TEXT, refusal.text.encode(), headers)
        behaviour, moment = self._settings.behaviour, now()
        life = Life(
            id=str(uuid.uuid4()),
            created=moment,
            updated=moment,
            expires_after=behaviour.expires_after,
        )
        result = failed(visit.job, refusal.text, life, in_history=behaviour.error_in_history)
        visit.notes["job_id"] = life.id
        multipart = asks_for_multipart(visit.notes["accept"])
        form = Wanted("multipart" if multipart else "json")
        return _deliver(form, result, (), status=refusal.status)

    def _retry_after(self) -> str | None:
        value = self._settings.retry_after
        if callable(value):
            return value()
        return value if value is None or isinstance(value, str) else seconds_text(value)

    def _delivery(self, visit: _Visit, answer: _Answer) -> Response:
        headers = {
            "content-type": answer.content_type,
            "x-request-id": visit.request_id,
            **answer.headers,
        }
        return self._deliver(answer.status, headers, answer.body, visit.mishap)

    def _deliver(
        self, status: int, headers: Mapping[str, str], body: Body, mishap: Mishap | None
    ) -> Response:
        return Delivery(
            status,
            headers,
            body,
            mishap=mishap,
            pool=self._pool,
            transport_of=self.transport_of,
            writes_raw=self.writes_raw,
            sleep=self._sleep,
        )

    def _record(self, visit: _Visit, status: int | None) -> None:
        request = visit.request
        client = request.client
        self._ledger.write(
            Record(
                number=visit.number,
                at=visit.at,
                seconds=time.perf_counter() - visit.started,
                method=request.method,
                path=request.url.path,
                client=None if client is None else (client.host, client.port),
                request_id=visit.request_id,
                status=status,
                **visit.notes,
            )
        )


def _deliver(
    wanted: Wanted, result: Mapping[str, Any], outputs: tuple[Output, ...], status: int = 200
) -> _Answer:
    if wanted.form == "direct" and len(outputs) == 1:
        return _Answer(status, outputs[0].content_type, joined([outputs[0].content]))
    job = go_json(result)
    if wanted.form == "json" or not (outputs or wanted.form == "multipart"):
        return _Answer(status, _JSON, job)
    # Only a single output can be sent directly, so several go out as multipart.
    parts = [Part("job", "job.json", _JSON, job)]
    parts += (
        Part("output", item.filename or str(uuid.uuid4()), item.content_type, item.content)
        for item in outputs
    )
    return _Answer(status, *write_form(parts))


def _seen(item: InputFile) -> ReceivedInput:
    return ReceivedInput(item.filename, item.content_type, len(item.content), item.sha256)
