"""
The second API: the routes of the Fireworks image API and of its picture host.

What is to be made is decided in `_orders`, what is said in `_answers`. The order in which an order
is judged: planned reply, key (401), size of the body (413), JSON (400), model
(404), headers and fields (400), rate (429), idle worker (429). So a wrong order
is refused with its reason however busy the workers are.

Workers, latencies, tokens, planned replies and the ledger are those of the
first API. Finished Kontext pictures are fetched from a port of their own, as
from another host: it answers 500 to whoever shows it a key.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import time
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route

from .._desk import TEXT, Answer, Visit
from .._ledger import ReceivedInput, Record
from .._refusals import Refused
from ..drawing import _pictures
from ..drawing._encoding import encode
from ..drawing._shelf import Shelf
from ._answers import (
    artifacts_answer,
    base64_text,
    error_answer,
    image_answer,
    is_far_over,
    json_answer,
    poll_answer,
    rate_headers,
    runs,
    state_at,
)
from ._behaviour import FireworksBehaviour, KontextState
from ._edits import FIELDS, PART, Edit, draw_edit, edit_order, read_form
from ._fields import (
    FLUX_FIELDS,
    KONTEXT_FIELDS,
    POLL_FIELDS,
    SDXL_FIELDS,
    check_fields,
    read_body,
    unknown_fields,
)
from ._models import MODELS, Model, find_model
from ._orders import Order, flux_order, kontext_order, read_headers, sdxl_order
from ._refusals import refusal
from ._webhooks import Webhook, call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from .._capacity import Pool
    from .._desk import Desk
    from .._script import PlannedReply, Script

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


@dataclass(frozen=True, slots=True, kw_only=True)
class FireworksRecord(Record):
    """
    One request to the second API, beside what every `Record` has.

    `type` is the model; `config` the body as it came, without an input picture
    (see `inputs`) and without a webhook's secret; `job_id` the id of the
    answer, for Kontext the ``request_id``.
    """

    endpoint: str | None = None
    """
    ``text_to_image``, ``image_generation``, ``image_to_image``, ``control_net``,
    ``canny_edge_detection``, ``qr_code``, ``kontext``, ``get_result`` or ``sample``; ``None``
    for a path that does not exist.
    """
    ignored: tuple[str, ...] = ()
    """Fields of the body that the endpoint does not know, which the service drops in silence."""
    seed: int | None = None
    """The seed the picture was made with."""
    images: int = 0
    """How many pictures were made."""
    finish_reason: str | None = None
    """What the answer said of them."""
    state: KontextState | None = None
    """What a poll was told."""


@dataclass(slots=True, kw_only=True, eq=False)
class OrderVisit(Visit):
    """
    A request to this API; the attributes of a `FireworksRecord` mean what they mean there.

    Attributes:
        behaviour: What held when it arrived.
    """

    record_type = FireworksRecord

    behaviour: FireworksBehaviour = field(default_factory=FireworksBehaviour)
    endpoint: str | None = None
    ignored: tuple[str, ...] = ()
    seed: int | None = None
    images: int = 0
    finish_reason: str | None = None
    state: KontextState | None = None


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
    The routes and the judgements of the Fireworks image API.

    Args:
        desk: Who receives, and has the workers: those of the first API.
        script: What was planned on request.
        samples_port: The port of the picture host.
        webhooks: Where the calls of webhooks are written down.
    """

    def __init__(
        self, desk: Desk, script: Script, *, samples_port: int, webhooks: list[Webhook]
    ) -> None:
        self._desk = desk
        self._script = script
        self._samples_port = samples_port
        self._webhooks = webhooks
        self._encoded: Shelf[bytes] = Shelf(_ENCODED_BYTES)
        self._tasks: Shelf[_Task] = Shelf(_TASK_BYTES)
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
                *(
                    self._route(f"{_OLDER}/{{model}}/{edit}", edit, self._edit_route(edit))
                    for edit in FIELDS
                ),
                self._route(model, "kontext", self._kontext),
                self._route(f"{model}/get_result", "get_result", self._get_result),
            ],
            exception_handlers={HTTPException: self._no_route},
        )
        return [Mount(PREFIX, app=api), Route("/samples/{id}/{filename}", self._get_sample)]

    # Requests.

    def _route(
        self, path: str, endpoint: str, judge: Callable[[OrderVisit], Awaitable[Answer]]
    ) -> Route:
        async def judged(visit: OrderVisit) -> Answer:
            reply = self._desk.planned(visit, self._script)
            if reply is not None:
                return await self._planned(visit, reply)
            self._check_key(visit)
            return await judge(visit)

        async def answer_to(request: Request) -> Response:
            visit = self._arrive(request)
            visit.endpoint = endpoint
            return await self._desk.answer(visit, judged)

        return Route(path, answer_to, methods=["POST"])

    async def _planned(self, visit: OrderVisit, reply: PlannedReply) -> Answer:
        name = visit.request.path_params["model"]
        if name in MODELS and visit.endpoint != "get_result":
            visit.type = name

        async def note() -> None:
            visit.config = _shown(await self._read(visit))

        return await self._desk.reply(visit, reply, refusal(reply.status), note)

    async def _no_route(self, request: Request, exc: Exception) -> Response:
        """Answer paths and methods that do not exist."""
        visit = self._arrive(request)

        def write(status: int) -> Answer:
            visit.error = "method not allowed" if status == 405 else "path not found"
            return error_answer(refusal(status, visit.error), visit.behaviour)

        return self._desk.no_route(visit, exc, write)

    def refusal(self, status: int) -> Refused:
        """Make a refusal in this API's words."""
        return refusal(status)

    def write_refusal(self, visit: OrderVisit, refused: Refused) -> Answer:
        """Write a refusal: JSON, whatever was asked for."""
        return error_answer(refused, visit.behaviour)

    def _arrive(self, request: Request) -> OrderVisit:
        visit = self._desk.arrive(OrderVisit, request, self)
        visit.behaviour = self._desk.settings.fireworks
        visit.headers.update(_lower(visit.behaviour.headers))
        return visit

    def _check_key(self, visit: OrderVisit) -> None:
        if not self._desk.authorised(visit):
            on_workflow = visit.request.url.path.startswith(f"{PREFIX}/workflows/")
            raise refusal(visit.behaviour.missing_key_status if on_workflow else 401)

    async def _read(self, visit: OrderVisit) -> Mapping[str, Any]:
        content = bytearray()
        async for chunk in self._desk.body(visit):
            content += chunk
        return read_body(bytes(content))

    async def _noted(
        self, visit: OrderVisit, families: frozenset[str], fields: Mapping[str, Any]
    ) -> tuple[Model, Mapping[str, Any]]:
        """Read the body of an order, and note what it says."""
        name = visit.request.path_params["model"]
        body = await self._read(visit)
        visit.config, visit.ignored = _shown(body), unknown_fields(body, fields)
        model = find_model(name, families)
        visit.type = name
        return model, body

    # Endpoints.

    async def _text_to_image(self, visit: OrderVisit) -> Answer:
        families = frozenset({"flux"})
        model, body = await self._noted(visit, families, FLUX_FIELDS)
        wanted = read_headers(visit.request.headers)
        order = flux_order(model, body, wanted, visit.behaviour)
        return await self._pictures(visit, order, older=False)

    async def _doubled(self, visit: OrderVisit) -> Answer:
        if not visit.behaviour.doubled_path:
            raise refusal(404)
        return await self._text_to_image(visit)

    async def _image_generation(self, visit: OrderVisit) -> Answer:
        with_flux = visit.behaviour.flux_on_image_generation
        families = frozenset({"sdxl", "flux"} if with_flux else {"sdxl"})
        model, body = await self._noted(visit, families, SDXL_FIELDS)
        wanted = read_headers(visit.request.headers)
        order = sdxl_order(model, body, wanted, visit.behaviour)
        return await self._pictures(visit, order, older=True)

    def _edit_route(self, edit: Edit) -> Callable[[OrderVisit], Awaitable[Answer]]:
        async def judge(visit: OrderVisit) -> Answer:
            name, fields = visit.request.path_params["model"], FIELDS[edit]
            body: Mapping[str, Any]
            files: Mapping[str, bytes] = {}
            if edit == "qr_code":
                body = await self._read(visit)
            else:
                body, files = await read_form(visit.request.headers, self._desk.body(visit))
            visit.config, visit.ignored = _shown(body), unknown_fields(body, fields)
            model = find_model(name, frozenset({"sdxl"}))
            visit.type = name
            picture = files.get(PART.get(edit, ""))
            if picture is not None:
                visit.inputs = (_seen(picture, PART[edit]),)
            wanted = read_headers(visit.request.headers)
            order = await self._desk.off_loop(
                lambda: edit_order(
                    edit, model, body, picture=picture, wanted=wanted, behaviour=visit.behaviour
                )
            )
            return await self._pictures(visit, order, older=True)

        return judge

    async def _pictures(self, visit: OrderVisit, order: Order, *, older: bool) -> Answer:
        """Make the pictures of an order and write its answer."""
        self._count(visit)
        workers = self._worker(visit, order.model)

        async def make() -> list[bytes]:
            return [await self._drawn(each) for each in _single(order)]

        # From here on it runs and is charged, whether or not the client stays
        # to hear of it: this server never cancels a handler.
        try:
            contents, elapsed = await self._desk.work(order.model.name, make)
        finally:
            workers.release()
        answer_id = str(uuid.uuid4())
        _note_run(visit, order, answer_id)
        visit.finish_reason = order.finish_reason
        await self._desk.look_after(visit, elapsed)
        if not order.wanted.as_json:
            return image_answer(order, contents[0])
        shape = visit.behaviour.json_shape or ("array" if older else "list-prefixed")
        return artifacts_answer(order, contents, answer_id, shape)

    async def _kontext(self, visit: OrderVisit) -> Answer:
        families = frozenset({"kontext"})
        model, body = await self._noted(visit, families, KONTEXT_FIELDS)
        # Decoding an input picture takes a while, so it is done off the loop.
        order = await self._desk.off_loop(lambda: kontext_order(model, body, visit.behaviour))
        if order.picture is not None:
            visit.inputs = (_seen(order.picture),)
        self._count(visit)
        task = _Task(order, tuple(visit.behaviour.kontext_states))
        visit.job_id = task_id = str(uuid.uuid4())
        if runs(task.states):
            self._desk.spawn(self._work(task, self._worker(visit, model), visit, task_id))
            _note_run(visit, order, task_id)
        elif order.webhook_url is not None:
            self._desk.spawn(self._tell(task, visit, task_id))
        self._tasks.put(task_id, task, _TASK_SIZE + len(order.picture or b""))
        return json_answer({"request_id": task_id})

    async def _work(self, task: _Task, workers: Pool, visit: OrderVisit, task_id: str) -> None:
        """Keep a worker busy with a task that nobody waits for."""
        order = task.order
        try:
            # A stopping emulator draws no more, and nobody will ask for it.
            with contextlib.suppress(Refused):
                await self._desk.work(order.model.name, lambda: self._drawn(order))
                task.done = True
        finally:
            workers.release()
        if task.done:
            await self._tell(task, visit, task_id)

    async def _tell(self, task: _Task, visit: OrderVisit, task_id: str) -> None:
        """Call the webhook of a task that has ended."""
        order = task.order
        if order.webhook_url is None:
            return
        state = state_at(task.states, len(task.states), done=task.done, filtered=order.filtered)
        with contextlib.suppress(Refused):
            sample = await self._sample(visit, task_id, task) if state == "Ready" else None
            body = poll_answer(task_id, state, sample).body
            url, secret = order.webhook_url, order.webhook_secret
            if isinstance(body, bytes):
                self._webhooks.append(await self._desk.off_loop(lambda: call(url, body, secret)))

    async def _get_result(self, visit: OrderVisit) -> Answer:
        find_model(visit.request.path_params["model"], frozenset({"kontext"}))
        body = await self._read(visit)
        visit.config, visit.ignored = body, unknown_fields(body, POLL_FIELDS)
        task_id = check_fields(body, POLL_FIELDS)["id"]
        visit.job_id = task_id
        task = self._tasks.get(task_id)
        if task is None or task.order.model.name != visit.request.path_params["model"]:
            visit.state = "Task not found"
            return poll_answer(task_id, "Task not found", None)
        state = state_at(task.states, task.polls, done=task.done, filtered=task.order.filtered)
        task.polls += 1
        visit.state = state
        sample = await self._sample(visit, task_id, task) if state == "Ready" else None
        return poll_answer(task_id, state, sample)

    async def _sample(self, visit: OrderVisit, task_id: str, task: _Task) -> str:
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
        visit.endpoint, visit.job_id = "sample", task_id
        if "authorization" in request.headers:
            text = "an Authorization header came to the picture host: the key has leaked"
            visit.error = text
            return self._desk.respond(visit, _text(500, text))
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
            visit.error = "no such picture"
            return self._desk.respond(visit, _text(404, "no such picture"))
        try:
            content = await self._drawn(task.order)
        except Refused as refused:
            visit.error = refused.text
            return self._desk.respond(visit, _text(refused.status, refused.text))
        media_type = task.order.wanted.encoding.media_type
        return self._desk.respond(visit, Answer(200, media_type, content))

    # Workers and pictures.

    def _count(self, visit: OrderVisit) -> None:
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

    def _worker(self, visit: OrderVisit, model: Model) -> Pool:
        """Take an idle worker, or refuse; the caller releases it."""
        workers = self._desk.admit(model.name)
        if workers is None:
            raise refusal(visit.behaviour.busy_status)
        return workers

    async def _drawn(self, order: Order) -> bytes:
        """Draw the one picture of an order, or find it: equal orders give equal bytes."""
        key = (
            *("fireworks", order.look, order.seed, order.size, order.filtered),
            *(order.sketch, order.picture, order.wanted.encoding),
            *(order.edit, order.strength, order.bounds),
        )
        content = self._encoded.get(key)
        if content is None:
            content = await self._desk.once(key, lambda: _draw(order))
            self._encoded.put(key, content, len(content))
        return content


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _text(status: int, text: str) -> Answer:
    return Answer(status, TEXT, text.encode())


def _note_run(visit: OrderVisit, order: Order, id: str) -> None:
    visit.ran = visit.charged = True
    visit.dollars, visit.job_id = order.dollars, id
    visit.seed, visit.images = order.seed, order.samples


def _shown(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out of a body what the ledger should not keep: large pictures, and secrets."""
    hidden = {"input_image": "<picture>", "webhook_secret": "<secret>"}
    return {
        name: hidden[name] if name in hidden and value is not None else value
        for name, value in body.items()
    }


def _seen(picture: bytes, name: str = "input_image") -> ReceivedInput:
    digest = hashlib.sha256(picture).hexdigest()
    return ReceivedInput(name, None, len(picture), digest)


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
    elif order.edit is not None:
        picture = draw_edit(replace(order, look=look))
    elif order.picture is None:
        picture = _pictures.scene(look, order.seed, order.size)
    else:
        with Image.open(io.BytesIO(order.picture)) as source:
            upright = ImageOps.exif_transpose(source).convert("RGB")
        picture = _pictures.restyle(upright, look, order.seed, order.size, 0.5)
    return encode(picture, order.wanted.encoding)
