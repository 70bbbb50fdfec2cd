"""
The routes: who waits, who is refused, and what is recorded of it.

The order in which `POST /v2/job` decides: planned reply, token (401), size of
the upload (413), form and JSON (400), job type (400, 403), Accept (400),
configuration and inputs (400, 413), idle worker (429). So a wrong job is
refused with its reason however busy the workers are, and whatever is not 200
is decided before any work is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ._accept import Wanted, asks_for_multipart, read_accept
from ._forms import Form, FormReader, InputFile, Part, disposition_fields, go_json, write_form
from ._jobs import Plan, completed, failed, plan, read_job, route
from ._ledger import Ledger, ReceivedInput, Record
from ._refusals import TEXTS, Refused, bad_request
from ._script import PlannedReply, Script, seconds_text
from ._studio import Output, Studio

if TYPE_CHECKING:
    from ._capacity import Capacity

Latency = float | tuple[float, float] | Callable[[str], float]
RetryAfter = float | str | Callable[[], str | None] | None

_TEXT = "text/plain; charset=utf-8"

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
    held: bool = False


@dataclass(slots=True)
class _Visit:
    """A request under way: what will become its `Record`."""

    request: Request
    number: int
    request_id: str
    at: float = field(default_factory=time.time)
    started: float = field(default_factory=time.perf_counter)
    notes: dict[str, Any] = field(default_factory=dict)
    job: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer before it is a response."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class App:
    """The ASGI application and the work behind it."""

    def __init__(
        self, settings: Settings, capacity: Capacity, ledger: Ledger, script: Script
    ) -> None:
        self._settings = settings
        self._capacity = capacity
        self._ledger = ledger
        self._script = script
        self._studio = Studio()
        # A private source with a fixed seed: the sequence of latencies repeats.
        self._random = random.Random(0)
        self._making: dict[Hashable, asyncio.Future[tuple[Output, ...]]] = {}
        self._closing = asyncio.Event()
        self._let_go = asyncio.Event()
        self._pool = ThreadPoolExecutor(thread_name_prefix="prodia-emulator-draw")
        self.asgi = Starlette(
            routes=[Route("/v2/job", self._post_job, methods=["POST"])],
            exception_handlers={HTTPException: self._no_route},
        )

    def close(self) -> None:
        """Answer every job under way at once; call it on the loop."""
        self._closing.set()
        self._let_go.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def let_go(self) -> None:
        """Let the jobs finish that were held; call it on the loop."""
        self._let_go.set()
        self._let_go = asyncio.Event()

    # Requests.

    async def _post_job(self, request: Request) -> Response:
        visit = self._arrive(request)
        try:
            answer = await self._job(visit)
        except Refused as refusal:
            answer = self._refuse(visit, refusal)
        except ClientDisconnect:
            visit.notes["error"] = "the client left before its request was whole"
            self._record(visit, None)
            return Response()
        self._record(visit, answer.status)
        return _response(visit, answer)

    async def _no_route(self, request: Request, exc: Exception) -> Response:
        """Answer paths and methods that do not exist; the ledger shows them too."""
        visit = self._arrive(request)
        status = exc.status_code if isinstance(exc, HTTPException) else 500
        text = "method not allowed" if status == 405 else "404 page not found"
        visit.notes["error"] = text
        self._record(visit, status)
        return _response(visit, _Answer(status, _TEXT, text.encode()))

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
        reply = self._script.take()
        if reply is not None:
            return await self._planned(visit, reply)
        self._check_token(visit.request)
        form = await self._read(visit)
        job = self._note_job(visit, form)
        kind = route(job, self._settings.privileged_types)
        wanted = read_accept(visit.notes["accept"])
        return await self._run(visit, plan(kind, job, form, wanted))

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
        retry_after = next((v for k, v in headers.items() if k.lower() == "retry-after"), None)
        visit.notes["retry_after"] = retry_after
        if reply.body is not None:
            return _Answer(reply.status, reply.content_type, reply.body, headers)
        answer = self._refuse(visit, Refused(reply.status, reply.text, as_job=reply.status == 400))
        return _Answer(answer.status, answer.content_type, answer.body, headers)

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

    async def _run(self, visit: _Visit, plan: Plan) -> _Answer:
        workers = self._capacity.pool(plan.kind.name)
        if not workers.acquire():
            raise Refused(429, TEXTS[429])
        # From here on the job runs and is charged, whether or not the client
        # stays to hear of it: this server never cancels a handler.
        created = datetime.now(UTC)
        started = time.perf_counter()
        try:
            latency = self._latency(plan.kind.name)
            outputs = await self._outputs(plan)
            left = latency - (time.perf_counter() - started)
            if left > 0:
                await self._sleep(left)
            if self._settings.held:
                await self._let_go.wait()
            if self._closing.is_set():
                raise Refused(503, "the emulator is stopping")
            elapsed = time.perf_counter() - started
        finally:
            workers.release()
        result = completed(plan, created=created, elapsed=elapsed, priced=visit.notes["price"])
        visit.notes.update(ran=True, charged=True, dollars=plan.kind.dollars, job_id=result["id"])
        if elapsed > _GONE_AFTER:
            visit.notes["client_gone"] = await visit.request.is_disconnected()
        return _deliver(plan.wanted, result, outputs)

    async def _outputs(self, plan: Plan) -> tuple[Output, ...]:
        if not plan.outputs:
            return ()
        if self._closing.is_set():
            raise Refused(503, "the emulator is stopping")
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
            raise Refused(503, "the emulator is stopping") from None

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
        result = failed(visit.job, refusal.text)
        visit.notes["job_id"] = result["id"]
        multipart = asks_for_multipart(visit.notes["accept"])
        answer = _deliver(Wanted("multipart" if multipart else "json"), result, ())
        return _Answer(refusal.status, answer.content_type, answer.body, headers)

    def _retry_after(self) -> str | None:
        value = self._settings.retry_after
        if callable(value):
            return value()
        return value if value is None or isinstance(value, str) else seconds_text(value)

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


def _deliver(wanted: Wanted, result: Mapping[str, Any], outputs: tuple[Output, ...]) -> _Answer:
    if wanted.form == "direct" and len(outputs) == 1:
        return _Answer(200, outputs[0].content_type, outputs[0].content)
    job = go_json(result)
    if wanted.form == "json" or not (outputs or wanted.form == "multipart"):
        return _Answer(200, "application/json", job)
    # Only a single output can be sent directly, so several go out as multipart.
    parts = [Part("job", "job.json", "application/json", job)]
    parts += (
        Part("output", item.filename or str(uuid.uuid4()), item.content_type, item.content)
        for item in outputs
    )
    return _Answer(200, *write_form(parts))


def _seen(item: InputFile) -> ReceivedInput:
    return ReceivedInput(item.filename, item.content_type, len(item.content), item.sha256)


def _response(visit: _Visit, answer: _Answer) -> Response:
    return Response(
        answer.body,
        answer.status,
        headers={
            "content-type": answer.content_type,
            "x-request-id": visit.request_id,
            **answer.headers,
        },
    )
