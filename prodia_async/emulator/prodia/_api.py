"""
The first API: its routes, and what is answered at them.

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

import json
import time
import uuid
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from .._bodies import joined
from .._desk import STOPPING, TEXT, Answer, Visit, log
from .._ledger import ReceivedInput
from .._refusals import TEXTS, Refused, bad_request
from ._accept import Wanted, asks_for_multipart, read_accept
from ._behaviour import word
from ._forms import Form, FormReader, InputFile, Part, disposition_fields, go_json, write_form
from ._jobs import Life, Plan, completed, failed, now, price, read_job, route, under_way
from ._openapi import describe
from ._store import AsyncJob, Store
from ._studio import Output, Studio
from ._workflows import make_plan, offers

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from .._capacity import Pool
    from .._desk import Desk
    from .._script import PlannedReply, Plans

_JSON = "application/json"


@dataclass(slots=True, kw_only=True, eq=False)
class JobVisit(Visit):
    """
    A request to this API.

    Attributes:
        job: The job configuration, once it is read.
    """

    job: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Done:
    """What became of a job that a worker ran: its outputs, or why it failed."""

    elapsed: float
    outputs: tuple[Output, ...] = ()
    error: str | None = None


class Prodia:
    """
    The routes and the judgements of the Prodia v2 API.

    Args:
        desk: Who receives, and has the workers.
        plans: What was planned on request.
        store: The async jobs.
    """

    def __init__(self, desk: Desk, plans: Plans, store: Store) -> None:
        self._desk = desk
        self._plans = plans
        self._store = store
        self._studio = Studio()

    def routes(self) -> list[Route]:
        """Make what belongs into the application."""
        reads = "/v2/job/async/{id}"
        return [
            self._route("/v2/job", partial(self._job, submitted=False), "POST"),
            self._route("/v2/job/async", partial(self._job, submitted=True), "POST"),
            self._route(f"{reads}/job.state.current", partial(self._read_job, self._state)),
            self._route(f"{reads}/job.json", partial(self._read_job, self._job_json)),
            self._route(f"{reads}/output", partial(self._read_job, self._listing)),
            self._route(f"{reads}/output/{{filename}}", partial(self._read_job, self._output)),
            self._route("/v2/openapi.json", self._openapi),
        ]

    def _route(
        self, path: str, judge: Callable[[JobVisit], Awaitable[Answer]], method: str = "GET"
    ) -> Route:
        async def answer_to(request: Request) -> Response:
            visit = self._desk.arrive(JobVisit, request, self)
            return await self._desk.answer(visit, judge)

        return Route(path, answer_to, methods=[method])

    async def no_route(self, request: Request, exc: Exception) -> Response:
        """Answer paths and methods that do not exist."""
        visit = self._desk.arrive(JobVisit, request, self)

        def write(status: int) -> Answer:
            visit.error = "method not allowed" if status == 405 else "404 page not found"
            return Answer(status, TEXT, visit.error.encode())

        return self._desk.no_route(visit, exc, write)

    # Refusals.

    def refusal(self, status: int) -> Refused:
        """Make a refusal in this API's words."""
        return Refused(status, TEXTS[status])

    def write_refusal(self, visit: JobVisit, refused: Refused) -> Answer:
        """Write a refusal: a failed job result where that is documented, else a line of text."""
        if not refused.as_job:
            return Answer(refused.status, TEXT, refused.text.encode())
        behaviour, moment = self._desk.settings.behaviour, now()
        life = Life(
            id=str(uuid.uuid4()),
            created=moment,
            updated=moment,
            expires_after=behaviour.expires_after,
        )
        result = failed(visit.job, refused.text, life, in_history=behaviour.error_in_history)
        visit.job_id = life.id
        form = Wanted("multipart" if asks_for_multipart(visit.accept) else "json")
        return _deliver(form, result, (), status=refused.status)

    # Jobs, received.

    async def _job(self, visit: JobVisit, *, submitted: bool) -> Answer:
        reply = self._desk.planned(visit, self._plans.jobs)
        if reply is not None:
            return await self._planned(visit, reply)
        plan = await self._receive(visit, submitted=submitted)
        return self._submit(visit, plan) if submitted else await self._run(visit, plan)

    async def _planned(self, visit: JobVisit, reply: PlannedReply) -> Answer:
        async def note() -> None:
            self._note_job(visit, await self._read(visit))

        refused = Refused(reply.status, reply.text, as_job=reply.status == 400)
        return await self._desk.reply(visit, reply, refused, note)

    async def _receive(self, visit: JobVisit, *, submitted: bool) -> Plan:
        """Read and judge a job, all but whether a worker is idle."""
        settings = self._desk.settings
        behaviour = settings.behaviour
        self._check_token(visit)
        form = await self._read(visit)
        job = self._note_job(visit, form)
        kind = route(job, settings.privileged_types, behaviour)
        if submitted:
            self._check_permit(kind.name)
        wanted = read_accept(visit.accept, offers(kind, job), clamp=behaviour.clamp_encoder)
        plan = make_plan(
            kind, job, form, wanted, behaviour=behaviour, privileged=settings.privileged_types
        )
        if submitted:
            for name in plan.types:
                self._check_permit(name)
        return plan

    def _check_permit(self, name: str) -> None:
        if name in self._desk.settings.sync_only_types:
            raise bad_request(f"job type {name} does not support async")

    def _check_token(self, visit: JobVisit) -> None:
        if not self._desk.authorised(visit):
            raise self.refusal(401)

    async def _read(self, visit: JobVisit) -> Form:
        media_type, reader = visit.content_type, None
        if media_type == "multipart/form-data":
            header = visit.request.headers.get("content-type", "")
            boundary = disposition_fields(header).get("boundary", "")
            if not boundary:
                raise bad_request("multipart: no boundary in the Content-Type")
            reader = FormReader(boundary.encode())
        chunks = []
        try:
            async for chunk in self._desk.body(visit):
                if reader is not None:
                    reader.feed(chunk)
                else:
                    chunks.append(chunk)
            form = Form("json", b"".join(chunks)) if reader is None else reader.finish()
        finally:
            if reader is not None:
                visit.parts = tuple(reader.part_names)
                visit.inputs = tuple(_seen(item) for item in reader.inputs)
                visit.job_filename = reader.job_filename
        if media_type not in {None, "application/json", "multipart/form-data"}:
            raise bad_request(
                f"content type: got {media_type}, want application/json or multipart/form-data"
            )
        return form

    def _note_job(self, visit: JobVisit, form: Form) -> Mapping[str, Any]:
        job = visit.job = read_job(form)
        name, config = job.get("type"), job.get("config")
        visit.type = name if isinstance(name, str) else None
        visit.config = config if isinstance(config, dict) else None
        return job

    # Work.

    def _admit(self, plan: Plan) -> tuple[Plan, Pool]:
        """Find an idle worker, and whether the job shall fail."""
        workers = self._desk.admit(plan.kind.name)
        if workers is None:
            raise self.refusal(429)
        if plan.failure is None:
            failure = self._plans.failures.take(plan.types, plan.prompts)
            plan = plan if failure is None else replace(plan, failure=failure)
        return plan, workers

    async def _run(self, visit: JobVisit, plan: Plan) -> Answer:
        plan, workers = self._admit(plan)
        # From here on the job runs and is charged, whether or not the client
        # stays to hear of it: this server never cancels a handler.
        created = now()
        try:
            done = await self._work(plan)
        finally:
            workers.release()
        behaviour = self._desk.settings.behaviour
        life = Life(
            id=str(uuid.uuid4()),
            created=created,
            updated=now(),
            expires_after=behaviour.expires_after,
        )
        visit.ran, visit.job_id = True, life.id
        await self._desk.look_after(visit, done.elapsed)
        if done.error is not None:
            visit.error = done.error
            if behaviour.failure_status == 200:
                visit.charged, visit.dollars = True, plan.dollars
            result = failed(plan.request, done.error, life, in_history=behaviour.error_in_history)
            form = Wanted("multipart" if plan.wanted.form == "multipart" else "json")
            return _deliver(form, result, (), status=behaviour.failure_status)
        visit.charged, visit.dollars = True, plan.dollars
        result = completed(plan, life, elapsed=done.elapsed)
        if visit.price:
            result["price"] = price(plan, null=behaviour.price_null)
        return _deliver(plan.wanted, result, done.outputs)

    async def _work(self, plan: Plan) -> _Done:
        """Run a job that has a worker; raises `Refused` when it cannot be brought to an end."""

        async def make() -> tuple[Output, ...]:
            return () if plan.failure or plan.makes_nothing else await self._outputs(plan)

        outputs, elapsed = await self._desk.work(plan.kind.name, make)
        return _Done(elapsed, outputs, plan.failure)

    async def _outputs(self, plan: Plan) -> tuple[Output, ...]:
        key = self._studio.key(plan)
        ready = self._studio.ready(key)
        if ready is not None:
            return ready
        return await self._desk.once(("prodia", key), lambda: self._studio.make(plan))

    # Async jobs.

    def _submit(self, visit: JobVisit, plan: Plan) -> Answer:
        settings = self._desk.settings
        if self._store.running >= settings.max_async_jobs:
            raise Refused(429, "async job limit reached")
        plan, workers = self._admit(plan)
        clock, created = time.monotonic(), now()
        lifetime = settings.behaviour.expires_after
        job = AsyncJob(
            id=str(uuid.uuid4()),
            plan=plan,
            created=created,
            updated=created,
            expires_after=lifetime,
            deadline=clock + lifetime,
            priced=visit.price,
        )
        self._store.add(job, clock)
        self._store.running += 1
        task = self._desk.spawn(self._in_background(job, workers))

        def finished(_: asyncio.Task[None]) -> None:
            if job.state == "processing":
                # The loop ended before the task's first step.
                self._end(job, workers, error=STOPPING)

        task.add_done_callback(finished)
        visit.submitted = visit.ran = visit.charged = True
        visit.dollars, visit.job_id = plan.dollars, job.id
        return Answer(201, _JSON, go_json(self._result(job, priced=False)))

    async def _in_background(self, job: AsyncJob, workers: Pool) -> None:
        done = None
        error = STOPPING
        try:
            done = await self._work(job.plan)
        except Refused as refusal:
            error = refusal.text
        except Exception as exc:  # noqa: BLE001  # likewise
            log.exception("job %s could not be run", job.id)
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

    async def _read_job(
        self, read: Callable[[JobVisit, AsyncJob], Answer], visit: JobVisit
    ) -> Answer:
        """Find the job that a read is about, unless a reply was planned for the read."""
        visit.job_id = job_id = visit.request.path_params["id"]
        reply = self._desk.planned(visit, self._plans.reads)
        if reply is not None:
            return await self._planned(visit, reply)
        self._check_token(visit)
        job = self._store.get(job_id, time.monotonic())
        if job is None:
            raise Refused(404, "job not found")
        return read(visit, job)

    def _state(self, visit: JobVisit, job: AsyncJob) -> Answer:
        del visit
        behaviour = self._desk.settings.behaviour
        state = word(behaviour.state_words, job.state)
        text = json.dumps(state) if behaviour.quoted_state else state
        return Answer(200, TEXT, text.encode())

    def _job_json(self, visit: JobVisit, job: AsyncJob) -> Answer:
        priced = job.priced or visit.price
        return Answer(200, _JSON, go_json(self._result(job, priced=priced)))

    def _result(self, job: AsyncJob, *, priced: bool) -> dict[str, Any]:
        """Make the ``job.json`` of an async job."""
        behaviour = self._desk.settings.behaviour
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

    def _listing(self, visit: JobVisit, job: AsyncJob) -> Answer:
        del visit
        if job.outputs is None:
            # What an unfinished job answers is not documented.
            raise Refused(404, "job has no output yet")
        names = list(job.outputs)
        listing = self._desk.settings.behaviour.listing
        body = names if listing is None else listing(names)
        return Answer(200, _JSON, body if isinstance(body, bytes) else go_json(body))

    def _output(self, visit: JobVisit, job: AsyncJob) -> Answer:
        output = (job.outputs or {}).get(visit.request.path_params["filename"])
        if output is None:
            raise Refused(404, "output not found")
        return Answer(200, output.content_type, joined([output.content]))

    async def _openapi(self, visit: JobVisit) -> Answer:
        self._check_token(visit)
        return Answer(200, _JSON, go_json(describe()))


def _deliver(
    wanted: Wanted, result: Mapping[str, Any], outputs: tuple[Output, ...], status: int = 200
) -> Answer:
    if wanted.form == "direct" and len(outputs) == 1:
        return Answer(status, outputs[0].content_type, joined([outputs[0].content]))
    job = go_json(result)
    if wanted.form == "json" or not (outputs or wanted.form == "multipart"):
        return Answer(status, _JSON, job)
    # Only a single output can be sent directly, so several go out as multipart.
    parts = [Part("job", "job.json", _JSON, job)]
    parts += (
        Part("output", item.filename or str(uuid.uuid4()), item.content_type, item.content)
        for item in outputs
    )
    return Answer(status, *write_form(parts))


def _seen(item: InputFile) -> ReceivedInput:
    return ReceivedInput(item.filename, item.content_type, len(item.content), item.sha256)
