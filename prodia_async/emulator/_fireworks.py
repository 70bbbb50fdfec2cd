"""
The second API: the routes of the Fireworks image API and of its picture host.

What to answer is decided in `_fireworks_answers`. The order in which an order
is judged: planned reply, key (401), size of the body (413), JSON (400), model
(404), headers and fields (400), rate (429), idle worker (429). So a wrong order
is refused with its reason however busy the workers are.

Workers, latencies, tokens, planned replies and the ledger are those of the
first API. Finished Kontext pictures are fetched from a port of their own, as
from another host: it answers 500 to whoever shows it a key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import random
import time
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image, ImageOps
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from . import _pictures
from ._encoding import encode
from ._fireworks_answers import (
    FLUX_FIELDS,
    KONTEXT_FIELDS,
    MODELS,
    POLL_FIELDS,
    SDXL_FIELDS,
    Answer,
    FireworksBehaviour,
    KontextState,
    Model,
    Order,
    artifacts_answer,
    base64_text,
    check_fields,
    error_answer,
    find_model,
    flux_order,
    image_answer,
    is_far_over,
    json_answer,
    kontext_order,
    poll_answer,
    rate_headers,
    read_body,
    read_headers,
    refusal,
    runs,
    sdxl_order,
    state_at,
    unknown_fields,
)
from ._ledger import Ledger, ReceivedInput, Record
from ._refusals import Refused
from ._script import Mishap
from ._studio import Shelf
from ._webhooks import Webhook, call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
    from concurrent.futures import ThreadPoolExecutor

    from ._app import Settings
    from ._capacity import Capacity, Pool
    from ._script import PlannedReply, Script

PREFIX = "/inference/v1"
_ACCOUNT = "/accounts/fireworks/models"
_WORKFLOWS = f"/workflows{_ACCOUNT}"
_OLDER = f"/image_generation{_ACCOUNT}"

_ENCODED_BYTES = 64 << 20
"""Memory for encoded pictures (chosen)."""

_TASK_BYTES = 64 << 20
"""Memory for Kontext tasks with their input pictures (chosen)."""

_TASK_SIZE = 4096
"""What a task without an input picture counts for (chosen)."""

_GONE_AFTER = 0.001
"""Seconds after which it is worth asking whether the client has left (chosen)."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class FireworksRecord(Record):
    """
    One request to the second API, beside what every `Record` has.

    `type` is the model; `config` the body as it came, without an input picture
    (see `inputs`) and without a webhook's secret; `job_id` the id of the
    answer, for Kontext the ``request_id``.

    Attributes:
        endpoint: ``text_to_image``, ``image_generation``, ``kontext``,
            ``get_result`` or ``sample``; ``None`` for a path that does not exist.
        ignored: Fields of the body that the endpoint does not know, which the
            service drops in silence.
        seed: The seed the picture was made with.
        images: How many pictures were made.
        finish_reason: What the answer said of them.
        state: What a poll was told.
    """

    endpoint: str | None = None
    ignored: tuple[str, ...] = ()
    seed: int | None = None
    images: int = 0
    finish_reason: str | None = None
    state: KontextState | None = None


@dataclass(slots=True)
class _Visit:
    """A request under way: what will become its record."""

    request: Request
    behaviour: FireworksBehaviour
    number: int
    request_id: str
    at: float = field(default_factory=time.time)
    started: float = field(default_factory=time.perf_counter)
    notes: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    mishap: Mishap | None = None


@dataclass(slots=True)
class _Task:
    """A Kontext task: what was ordered, what polls are told, how far it is."""

    order: Order
    states: Sequence[KontextState]
    polls: int = 0
    done: bool = False

    @property
    def filename(self) -> str:
        """The last part of its sample's URL, after the id."""
        return "sample." + self.order.wanted.encoding.media_type.rpartition("/")[2]


class Fireworks:
    """
    The routes and the work behind them.

    Args:
        settings: Tokens, limits, behaviour: read once per request.
        capacity: Shared with the first API, by model name.
        ledger: Shared.
        script: Shared.
        pool: Where pictures are drawn.
        closing: Set when the emulator stops.
        latency: How long a worker holds an order of a model.
        retry_after: Makes the header of a 429.
        sleep: Waits, but not beyond the emulator's end.
        samples_port: The port of the picture host.
        webhooks: Where the calls of webhooks are written down.
        deliver: Makes a response of status, headers, body and what shall befall it.
    """

    def __init__(
        self,
        settings: Settings,
        capacity: Capacity,
        ledger: Ledger,
        script: Script,
        *,
        pool: ThreadPoolExecutor,
        closing: asyncio.Event,
        latency: Callable[[str], float],
        retry_after: Callable[[], str | None],
        sleep: Callable[[float], Awaitable[None]],
        samples_port: int,
        webhooks: list[Webhook],
        deliver: Callable[[int, Mapping[str, str], bytes, Mishap | None], Response],
    ) -> None:
        self._settings = settings
        self._capacity = capacity
        self._ledger = ledger
        self._script = script
        self._pool = pool
        self._closing = closing
        self._latency = latency
        self._retry_after = retry_after
        self._sleep = sleep
        self._samples_port = samples_port
        self._webhooks = webhooks
        self._deliver = deliver
        self._let_go = asyncio.Event()
        self._encoded: Shelf[bytes] = Shelf(_ENCODED_BYTES)
        self._making: dict[Hashable, asyncio.Future[bytes]] = {}
        self._tasks: Shelf[_Task] = Shelf(_TASK_BYTES)
        # The loop itself keeps only weak references to what runs on it.
        self._working: set[asyncio.Task[None]] = set()
        self._served: deque[float] = deque()

    def routes(self) -> list[Mount | Route]:
        """Make what belongs into the main application."""
        model = f"{_WORKFLOWS}/{{model}}"
        doubled = f"{_WORKFLOWS}{_ACCOUNT}/{{model}}/text_to_image"
        api = Starlette(
            routes=[
                self._route(f"{model}/text_to_image", "text_to_image", self._text_to_image),
                self._route(doubled, "text_to_image", self._doubled),
                self._route(f"{_OLDER}/{{model}}", "image_generation", self._image_generation),
                self._route(model, "kontext", self._kontext),
                self._route(f"{model}/get_result", "get_result", self._get_result),
            ],
            exception_handlers={HTTPException: self._no_route},
        )
        return [Mount(PREFIX, app=api), Route("/samples/{id}/{filename}", self._get_sample)]

    def let_go(self) -> None:
        """Let the orders finish that were held; call it on the loop."""
        self._let_go.set()
        self._let_go = asyncio.Event()

    # Requests.

    def _route(
        self, path: str, endpoint: str, judge: Callable[[_Visit], Awaitable[Answer]]
    ) -> Route:
        async def answer_to(request: Request) -> Response:
            visit = self._arrive(request)
            visit.notes["endpoint"] = endpoint
            try:
                answer = await self._answered(visit, judge)
            except ClientDisconnect:
                visit.notes["error"] = "the client left before its request was whole"
                self._record(visit, None)
                return Response()
            return self._respond(visit, answer)

        return Route(path, answer_to, methods=["POST"])

    async def _answered(
        self, visit: _Visit, judge: Callable[[_Visit], Awaitable[Answer]]
    ) -> Answer:
        try:
            planned = self._script.take()
            if isinstance(planned, Mishap):
                visit.mishap = planned
                visit.notes["mishap"] = str(planned)
            elif planned is not None:
                return await self._planned(visit, planned)
            self._check_key(visit)
            return await judge(visit)
        except Refused as refused:
            visit.notes["error"] = refused.text
            if refused.status == 429:
                visit.notes["retry_after"] = value = self._retry_after()
                if value is not None:
                    visit.headers["retry-after"] = value
            return error_answer(refused, visit.behaviour)

    async def _planned(self, visit: _Visit, reply: PlannedReply) -> Answer:
        name = visit.request.path_params["model"]
        if name in MODELS and visit.notes["endpoint"] != "get_result":
            visit.notes["type"] = name
        if not reply.before_body:
            # The answer is decided already; the ledger gets what can be read.
            with contextlib.suppress(Refused):
                visit.notes["config"] = _shown(await self._read(visit))
        if reply.charged:
            visit.notes.update(ran=True, charged=True)
        refused = refusal(reply.status)
        visit.notes.update(planned=True, error=refused.text)
        visit.headers.update(_lower(reply.headers))
        visit.notes["retry_after"] = visit.headers.get("retry-after")
        if reply.body is not None:
            return Answer(reply.status, reply.content_type, reply.body)
        return error_answer(refused, visit.behaviour)

    async def _no_route(self, request: Request, exc: Exception) -> Response:
        """Answer paths and methods that do not exist; the ledger shows them too."""
        visit = self._arrive(request)
        status = exc.status_code if isinstance(exc, HTTPException) else 500
        text = "method not allowed" if status == 405 else "path not found"
        visit.notes["error"] = text
        if isinstance(exc, HTTPException) and exc.headers:
            visit.headers.update(exc.headers)
        return self._respond(visit, error_answer(refusal(status, text), visit.behaviour))

    def _arrive(self, request: Request) -> _Visit:
        behaviour = self._settings.fireworks
        visit = _Visit(request, behaviour, self._ledger.arrive(), str(uuid.uuid4()))
        headers = request.headers
        length = headers.get("content-length", "")
        visit.notes.update(
            accept=headers.get("accept"),
            user_agent=headers.get("user-agent"),
            content_type=headers.get("content-type", "").partition(";")[0].strip().lower() or None,
            content_length=int(length) if length.isdigit() else None,
        )
        visit.headers.update(_lower(behaviour.headers))
        return visit

    def _check_key(self, visit: _Visit) -> None:
        scheme, _, key = visit.request.headers.get("authorization", "").partition(" ")
        key = key.strip()
        tokens = self._settings.tokens
        known = bool(key) if tokens is None else key in tokens
        if scheme.lower() != "bearer" or not known:
            on_workflow = visit.request.url.path.startswith(f"{PREFIX}/workflows/")
            raise refusal(visit.behaviour.missing_key_status if on_workflow else 401)

    async def _read(self, visit: _Visit) -> Mapping[str, Any]:
        """Read the body, refusing one that is too large before the rest of it."""
        limit = self._settings.max_upload_bytes
        if (visit.notes["content_length"] or 0) > limit:
            raise refusal(413)
        content = bytearray()
        async for chunk in visit.request.stream():
            content += chunk
            if len(content) > limit:
                raise refusal(413)
        return read_body(bytes(content))

    async def _noted(
        self, visit: _Visit, families: frozenset[str], fields: Mapping[str, Any]
    ) -> tuple[Model, Mapping[str, Any]]:
        """Read the body of an order, and note what it says."""
        name = visit.request.path_params["model"]
        body = await self._read(visit)
        visit.notes.update(config=_shown(body), ignored=unknown_fields(body, fields))
        model = find_model(name, families)
        visit.notes["type"] = name
        return model, body

    # Endpoints.

    async def _text_to_image(self, visit: _Visit) -> Answer:
        families = frozenset({"flux"})
        model, body = await self._noted(visit, families, FLUX_FIELDS)
        wanted = read_headers(visit.request.headers)
        order = flux_order(model, body, wanted, visit.behaviour)
        return await self._pictures(visit, order, older=False)

    async def _doubled(self, visit: _Visit) -> Answer:
        if not visit.behaviour.doubled_path:
            raise refusal(404)
        return await self._text_to_image(visit)

    async def _image_generation(self, visit: _Visit) -> Answer:
        with_flux = visit.behaviour.flux_on_image_generation
        families = frozenset({"sdxl", "flux"} if with_flux else {"sdxl"})
        model, body = await self._noted(visit, families, SDXL_FIELDS)
        wanted = read_headers(visit.request.headers)
        order = sdxl_order(model, body, wanted, visit.behaviour)
        return await self._pictures(visit, order, older=True)

    async def _pictures(self, visit: _Visit, order: Order, *, older: bool) -> Answer:
        """Make the pictures of an order and write its answer."""
        self._count(visit)
        workers = self._worker(visit, order.model)
        # From here on it runs and is charged, whether or not the client stays
        # to hear of it: this server never cancels a handler.
        started = time.perf_counter()
        try:
            latency = self._latency(order.model.name)
            contents = [await self._drawn(each) for each in _single(order)]
            await self._rest(started, latency)
            if self._closing.is_set():
                raise refusal(503, "the emulator is stopping")
        finally:
            workers.release()
        answer_id = str(uuid.uuid4())
        _note_run(visit, order, answer_id)
        visit.notes.update(finish_reason=order.finish_reason)
        if time.perf_counter() - started > _GONE_AFTER:
            visit.notes["client_gone"] = await visit.request.is_disconnected()
        if not order.wanted.as_json:
            return image_answer(order, contents[0])
        shape = visit.behaviour.json_shape or ("array" if older else "list-prefixed")
        return artifacts_answer(order, contents, answer_id, shape)

    async def _kontext(self, visit: _Visit) -> Answer:
        families = frozenset({"kontext"})
        model, body = await self._noted(visit, families, KONTEXT_FIELDS)
        # Decoding an input picture takes a while, so it is done off the loop.
        order = await self._finished(
            self._begun(lambda: kontext_order(model, body, visit.behaviour))
        )
        if order.picture is not None:
            visit.notes["inputs"] = (_seen(order.picture),)
        self._count(visit)
        task = _Task(order, tuple(visit.behaviour.kontext_states))
        task_id = str(uuid.uuid4())
        visit.notes["job_id"] = task_id
        if runs(task.states):
            work = self._work(task, self._worker(visit, model), visit, task_id)
            self._keep(asyncio.create_task(work))
            _note_run(visit, order, task_id)
        elif order.webhook_url is not None:
            self._keep(asyncio.create_task(self._tell(task, visit, task_id)))
        self._tasks.put(task_id, task, _TASK_SIZE + len(order.picture or b""))
        return json_answer({"request_id": task_id})

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _tell(self, task: _Task, visit: _Visit, task_id: str) -> None:
        """Call the webhook of a task that has ended."""
        order = task.order
        if order.webhook_url is None:
            return
        state = state_at(task.states, len(task.states), done=task.done, filtered=order.filtered)
        with contextlib.suppress(Refused):
            sample = await self._sample(visit, task_id, task) if state == "Ready" else None
            body = poll_answer(task_id, state, sample).body
            url, secret = order.webhook_url, order.webhook_secret
            called = await self._finished(self._begun(lambda: call(url, body, secret)))
            self._webhooks.append(called)

    async def _work(self, task: _Task, workers: Pool, visit: _Visit, task_id: str) -> None:
        """Keep a worker busy with a task that nobody waits for."""
        started = time.perf_counter()
        try:
            # A stopping emulator draws no more, and nobody will ask for it.
            with contextlib.suppress(Refused):
                latency = self._latency(task.order.model.name)
                await self._drawn(task.order)
                await self._rest(started, latency)
                task.done = True
        finally:
            workers.release()
        if task.done:
            await self._tell(task, visit, task_id)

    async def _get_result(self, visit: _Visit) -> Answer:
        find_model(visit.request.path_params["model"], frozenset({"kontext"}))
        body = await self._read(visit)
        visit.notes.update(config=body, ignored=unknown_fields(body, POLL_FIELDS))
        task_id = check_fields(body, POLL_FIELDS)["id"]
        visit.notes["job_id"] = task_id
        task = self._tasks.get(task_id)
        if task is None or task.order.model.name != visit.request.path_params["model"]:
            visit.notes["state"] = "Task not found"
            return poll_answer(task_id, "Task not found", None)
        state = state_at(task.states, task.polls, done=task.done, filtered=task.order.filtered)
        task.polls += 1
        visit.notes["state"] = state
        sample = await self._sample(visit, task_id, task) if state == "Ready" else None
        return poll_answer(task_id, state, sample)

    async def _sample(self, visit: _Visit, task_id: str, task: _Task) -> str:
        kind = visit.behaviour.kontext_sample
        if kind in {"base64", "data-uri"}:
            prefix = task.order.prefix if kind == "data-uri" else ""
            return prefix + base64_text(await self._drawn(task.order))
        # By the name under which the client has reached us, which works from afar too.
        host = visit.request.url.hostname or "127.0.0.1"
        host = f"[{host}]" if ":" in host else host
        return f"{visit.request.url.scheme}://{host}:{self._samples_port}/samples/{task_id}/{task.filename}"

    async def _get_sample(self, request: Request) -> Response:
        """Hand out a finished picture at the second origin, to those who show no key."""
        visit = self._arrive(request)
        visit.headers.clear()
        task_id = request.path_params["id"]
        visit.notes.update(endpoint="sample", job_id=task_id)
        if "authorization" in request.headers:
            text = "an Authorization header came to the picture host: the key has leaked"
            visit.notes["error"] = text
            return self._respond(visit, _text(500, text))
        task = self._tasks.get(task_id)
        server = request.scope.get("server")
        if (
            visit.behaviour.kontext_sample == "gone"
            or server is None
            or server[1] != self._samples_port
            or task is None
            or not task.done
            or task.filename != request.path_params["filename"]
        ):
            visit.notes["error"] = "no such picture"
            return self._respond(visit, _text(404, "no such picture"))
        try:
            content = await self._drawn(task.order)
        except Refused as refused:
            visit.notes["error"] = refused.text
            return self._respond(visit, _text(refused.status, refused.text))
        media_type = task.order.wanted.encoding.media_type
        return self._respond(visit, Answer(200, media_type, content))

    # Workers and pictures.

    def _count(self, visit: _Visit) -> None:
        """Count an order against the rate, and refuse it when it is far over."""
        behaviour = visit.behaviour
        if behaviour.rate_limit is None:
            self._served.clear()
            return
        now = time.monotonic()
        while self._served and self._served[0] <= now - behaviour.rate_window:
            self._served.popleft()
        served = len(self._served) + 1
        visit.headers.update(rate_headers(behaviour.rate_limit, served))
        # What was asked for by name wins.
        visit.headers.update(_lower(behaviour.headers))
        if is_far_over(behaviour.rate_limit, served):
            raise refusal(429, "rate limit exceeded")
        self._served.append(now)

    def _worker(self, visit: _Visit, model: Model) -> Pool:
        """Take an idle worker, or refuse; the caller releases it."""
        workers = self._capacity.pool(model.name)
        if not workers.acquire():
            raise refusal(visit.behaviour.busy_status)
        return workers

    async def _rest(self, started: float, latency: float) -> None:
        """Hold a worker for what is left of its latency, and while orders are held."""
        left = latency - (time.perf_counter() - started)
        if left > 0:
            await self._sleep(left)
        if self._settings.held and not self._closing.is_set():
            await self._let_go.wait()

    async def _drawn(self, order: Order) -> bytes:
        """Draw the one picture of an order, or find it: equal orders give equal bytes."""
        encoding = order.wanted.encoding
        key = (
            *(order.look, order.seed, order.size, order.filtered),
            *(order.sketch, order.picture, encoding),
        )
        content = self._encoded.get(key)
        if content is not None:
            return content
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = self._begun(lambda: _draw(order))
            making.add_done_callback(lambda _: self._making.pop(key))
        content = await self._finished(making)
        self._encoded.put(key, content, len(content))
        return content

    def _begun(self, make: Callable[[], Result]) -> asyncio.Future[Result]:
        if self._closing.is_set():
            raise refusal(503, "the emulator is stopping")
        return asyncio.get_running_loop().run_in_executor(self._pool, make)

    async def _finished(self, making: asyncio.Future[Result]) -> Result:
        try:
            return await making
        except asyncio.CancelledError:
            # What had not begun is cancelled at the end, and only then.
            if not self._closing.is_set():
                raise
            raise refusal(503, "the emulator is stopping") from None

    # Answers.

    def _respond(self, visit: _Visit, answer: Answer) -> Response:
        self._record(visit, answer.status)
        headers = {
            "content-type": answer.content_type,
            "x-request-id": visit.request_id,
            **visit.headers,
            **answer.headers,
        }
        return self._deliver(answer.status, headers, answer.body, visit.mishap)

    def _record(self, visit: _Visit, status: int | None) -> None:
        request = visit.request
        client = request.client
        self._ledger.write(
            FireworksRecord(
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


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _text(status: int, text: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", text.encode())


def _note_run(visit: _Visit, order: Order, id: str) -> None:
    visit.notes.update(
        ran=True,
        charged=True,
        dollars=order.dollars,
        job_id=id,
        seed=order.seed,
        images=order.samples,
    )


def _shown(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out of a body what the ledger should not keep: large pictures, and secrets."""
    hidden = {"input_image": "<picture>", "webhook_secret": "<secret>"}
    return {
        name: hidden[name] if name in hidden and value is not None else value
        for name, value in body.items()
    }


def _seen(picture: bytes) -> ReceivedInput:
    digest = hashlib.sha256(picture).hexdigest()
    return ReceivedInput("input_image", None, len(picture), digest)


def _single(order: Order) -> list[Order]:
    """Split an order into one for each of its pictures."""
    return [replace(order, seed=order.seed + index, samples=1) for index in range(order.samples)]


def _draw(order: Order) -> bytes:
    """Draw and encode the one picture of an order; takes milliseconds of CPU time."""
    if order.filtered:
        # What a filtered picture looks like is not documented; black is chosen.
        return encode(Image.new("RGB", order.size), order.wanted.encoding)
    # JSON can hold half a character, which no source of chance can be seeded with.
    look = order.look.encode(errors="replace").decode()
    if order.sketch:
        given = hashlib.sha256(order.picture or b"").hexdigest()
        spots = random.Random(f"{order.seed} {look} {given}").randbytes(4 * 4 * 3)
        picture = Image.frombytes("RGB", (4, 4), spots).resize(order.size)
    elif order.picture is None:
        picture = _pictures.scene(look, order.seed, order.size)
    else:
        with Image.open(io.BytesIO(order.picture)) as source:
            upright = ImageOps.exif_transpose(source).convert("RGB")
        picture = _pictures.restyle(upright, look, order.seed, order.size, 0.5)
    return encode(picture, order.wanted.encoding)
