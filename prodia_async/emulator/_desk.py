"""
The desk: the way of every request, whichever API it is for.

::

    arrive      a visit is opened, with what the headers say
    planned     a reply that was planned for it, or a mishap for its answer
    authorised  whether the token is one
    body        read, up to the largest
    admit       an idle worker, or a refusal
    work        the worker is held: drawing, latency, `Emulator.hold`
    once        equal drawings are made once
    respond     the answer goes out, and the ledger gets its record

An API is routes and judgements: it reads a body, decides what is to be made and
writes answers and refusals. A third one would be a folder beside the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ._delivery import Address, Delivery
from ._ledger import Ledger, ReceivedInput, Record
from ._refusals import Refused
from ._script import Mishap, PlannedReply, Script, seconds_text

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Coroutine,
        Hashable,
        Mapping,
    )

    from ._bodies import Body
    from ._capacity import Capacity, Pool
    from ._settings import Settings

TEXT = "text/plain; charset=utf-8"

STOPPING = "the emulator is stopping"

log = logging.getLogger("prodia_async.emulator")

_GONE_AFTER = 0.001
"""Seconds after which it is worth asking whether the client has left (chosen)."""

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer before it is a response."""

    status: int
    content_type: str
    body: Body
    headers: Mapping[str, str] = field(default_factory=dict)


class Api(Protocol):
    """What the desk asks of an API."""

    def refusal(self, status: int) -> Refused:
        """Make a refusal in the API's own words for a status."""
        ...

    def write_refusal(self, visit: Any, refused: Refused) -> Answer:
        """Write a refusal in the API's form."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class Visit:
    """
    A request under way: what will become its record, and how its answer goes out.

    The attributes that a `Record` has mean what they mean there.

    Attributes:
        request: The request.
        api: Whose it is.
        started: When it arrived, on the performance counter.
        headers: Of the answer, whatever it will be.
        plan: What will befall the answer on its way.
    """

    record_type: ClassVar[type[Record]] = Record

    request: Request
    api: Api
    number: int
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    at: float = field(default_factory=time.time)
    started: float = field(default_factory=time.perf_counter)
    headers: dict[str, str] = field(default_factory=dict)
    plan: Mishap | None = None

    accept: str | None = None
    user_agent: str | None = None
    content_type: str | None = None
    content_length: int | None = None
    price: bool = False
    type: str | None = None
    config: Mapping[str, Any] | None = None
    parts: tuple[str, ...] = ()
    job_filename: str | None = None
    inputs: tuple[ReceivedInput, ...] = ()
    error: str | None = None
    retry_after: str | None = None
    planned: bool = False
    mishap: str | None = None
    submitted: bool = False
    ran: bool = False
    charged: bool = False
    dollars: float = 0.0
    job_id: str | None = None
    client_gone: bool = False

    def record(self, status: int | None) -> Record:
        """Make the record of an answer that is decided."""
        request, client = self.request, self.request.client
        # mypy takes the class for its instances.
        shared = _noted(type(self))  # type: ignore[arg-type]
        noted = {name: getattr(self, name) for name in shared}
        return self.record_type(
            seconds=time.perf_counter() - self.started,
            method=request.method,
            path=request.url.path,
            client=None if client is None else (client.host, client.port),
            status=status,
            **noted,
        )


AVisit = TypeVar("AVisit", bound=Visit)


@cache
def _noted(visit_type: type[Visit]) -> tuple[str, ...]:
    """Name what a visit and its record share."""
    mine = {each.name for each in fields(visit_type)}
    return tuple(each.name for each in fields(visit_type.record_type) if each.name in mine)


class Desk:
    """
    The way of a request, and the workers behind it.

    Attributes:
        settings: Read once per request.
        pool: Where bodies are made and pictures drawn.
        transport_of: Finds the connection of a client.
        writes_raw: Whether what is written on such a connection is HTTP/1.1.
        closing: Set when the emulator stops.
    """

    def __init__(self, settings: Settings, capacity: Capacity, ledger: Ledger) -> None:
        self.settings = settings
        self.pool = ThreadPoolExecutor(thread_name_prefix="prodia-emulator-draw")
        self.transport_of: Callable[[Address | None], asyncio.WriteTransport | None]
        self.transport_of = lambda _: None
        self.writes_raw = True
        self.closing = asyncio.Event()
        self._capacity = capacity
        self._ledger = ledger
        # A private source with a fixed seed: the sequence of latencies repeats.
        self._random = random.Random(0)
        self._let_go = asyncio.Event()
        self._making: dict[Hashable, asyncio.Future[Any]] = {}
        # The loop itself keeps only weak references to what runs on it.
        self._background: set[asyncio.Task[None]] = set()

    @property
    def working(self) -> bool:
        """Whether jobs run in the background."""
        return bool(self._background)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that nobody waits for."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def close(self) -> None:
        """Answer everything under way at once; call it on the loop."""
        self.closing.set()
        self._let_go.set()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def let_go(self) -> None:
        """Let the jobs finish that were held; call it on the loop."""
        self._let_go.set()
        self._let_go = asyncio.Event()

    # A request from its arrival to its answer.

    def arrive(self, visit_type: type[AVisit], request: Request, api: Api) -> AVisit:
        """Open a visit."""
        headers = request.headers
        length = headers.get("content-length", "")
        return visit_type(
            request=request,
            api=api,
            number=self._ledger.arrive(),
            accept=headers.get("accept"),
            user_agent=headers.get("user-agent"),
            content_type=headers.get("content-type", "").partition(";")[0].strip().lower() or None,
            content_length=int(length) if length.isdigit() else None,
            price=request.query_params.get("price") == "true",
        )

    async def answer(self, visit: AVisit, judge: Callable[[AVisit], Awaitable[Answer]]) -> Response:
        """Turn whatever comes of a visit into a response and a record."""
        try:
            try:
                answer = await judge(visit)
            except Refused as refused:
                answer = self.refuse(visit, refused)
        except ClientDisconnect:
            visit.error = "the client left before its request was whole"
            self._ledger.write(visit.record(None))
            return Response()
        except Exception as exc:  # a bug in a function of the user's, or ours
            # Answered here and not by the framework, so that it has a request id too.
            log.exception("request %s could not be answered", visit.request_id)
            visit.error = f"{type(exc).__name__}: {exc}"
            answer = Answer(500, TEXT, b"internal server error")
        return self.respond(visit, answer)

    def no_route(self, visit: Visit, exc: Exception, write: Callable[[int], Answer]) -> Response:
        """Answer paths and methods that do not exist; the ledger shows them too."""
        status = exc.status_code if isinstance(exc, HTTPException) else 500
        if isinstance(exc, HTTPException) and exc.headers:
            visit.headers.update(exc.headers)
        return self.respond(visit, write(status))

    def refuse(self, visit: Visit, refused: Refused) -> Answer:
        """Write a refusal; a 429 says when to come again."""
        visit.error = refused.text
        if refused.status == 429:
            visit.retry_after = value = self._retry_after()
            if value is not None:
                visit.headers["retry-after"] = value
        return visit.api.write_refusal(visit, refused)

    def respond(self, visit: Visit, answer: Answer) -> Response:
        """Write the record of a visit, and send its answer."""
        self._ledger.write(visit.record(answer.status))
        return Delivery(
            answer.status,
            {
                "content-type": answer.content_type,
                "x-request-id": visit.request_id,
                **visit.headers,
                **answer.headers,
            },
            answer.body,
            mishap=visit.plan,
            pool=self.pool,
            transport_of=self.transport_of,
            writes_raw=self.writes_raw,
            sleep=self.sleep,
        )

    # Its stations.

    def planned(self, visit: Visit, script: Script) -> PlannedReply | None:
        """Take what is planned for a request: the answer itself, or what will befall it."""
        planned = script.take()
        if isinstance(planned, Mishap):
            visit.plan = planned
            visit.mishap = str(planned)
            return None
        return planned

    async def reply(
        self,
        visit: Visit,
        reply: PlannedReply,
        refused: Refused,
        note: Callable[[], Awaitable[None]],
    ) -> Answer:
        """
        Write a planned reply.

        Args:
            visit: Who gets it.
            reply: The reply.
            refused: What stands for a body that was not given.
            note: Reads the body, for the ledger.
        """
        if not reply.before_body:
            # The answer is decided already; the ledger gets what can be read.
            with contextlib.suppress(Refused):
                await note()
        if reply.charged:
            # The job is known if its body was read; if not, the charge has no price.
            visit.ran = visit.charged = True
        visit.planned, visit.error = True, refused.text
        headers = {name.lower(): value for name, value in reply.headers.items()}
        visit.headers.update(headers)
        visit.retry_after = headers.get("retry-after")
        if reply.body is not None:
            return Answer(reply.status, reply.content_type, reply.body)
        return visit.api.write_refusal(visit, refused)

    def authorised(self, visit: Visit) -> bool:
        """Tell whether a request shows a token that is valid."""
        scheme, _, token = visit.request.headers.get("authorization", "").partition(" ")
        token, tokens = token.strip(), self.settings.tokens
        known = bool(token) if tokens is None else token in tokens
        return known and scheme.lower() == "bearer"

    async def body(self, visit: Visit) -> AsyncGenerator[bytes, None]:
        """Read the body, refusing (413) one that is too large before the rest of it."""
        limit = self.settings.max_upload_bytes
        if (visit.content_length or 0) > limit:
            raise visit.api.refusal(413)
        received = 0
        async for chunk in visit.request.stream():
            received += len(chunk)
            if received > limit:
                raise visit.api.refusal(413)
            yield chunk

    def admit(self, type: str) -> Pool | None:
        """Find an idle worker for a job type; whoever gets one releases it."""
        workers = self._capacity.pool(type)
        return workers if workers.acquire() else None

    async def work(self, type: str, make: Callable[[], Awaitable[Made]]) -> tuple[Made, float]:
        """
        Hold a worker that was found for as long as its job takes.

        Args:
            type: What the latency depends on.
            make: Makes the outputs; its time counts towards the latency.

        Returns:
            What was made, and the seconds that it took.

        Raises:
            Refused: 503: it cannot be brought to an end, since the emulator stops.
        """
        started = time.perf_counter()
        latency = self._latency(type)
        made = await make()
        left = latency - (time.perf_counter() - started)
        if left > 0:
            await self.sleep(left)
        if self.settings.held and not self.closing.is_set():
            await self._let_go.wait()
        if self.closing.is_set():
            raise Refused(503, STOPPING)
        return made, time.perf_counter() - started

    async def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Make something off the loop, once for all who ask for it meanwhile."""
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = self._begin(make)
            making.add_done_callback(lambda _: self._making.pop(key))
        made: Made = await self._ended(making)
        return made

    async def off_loop(self, make: Callable[[], Made]) -> Made:
        """Make something off the loop; 503 when the emulator stops before it had begun."""
        return await self._ended(self._begin(make))

    def _begin(self, make: Callable[[], Made]) -> asyncio.Future[Made]:
        if self.closing.is_set():
            raise Refused(503, STOPPING)
        return asyncio.get_running_loop().run_in_executor(self.pool, make)

    async def _ended(self, making: asyncio.Future[Made]) -> Made:
        try:
            return await making
        except asyncio.CancelledError:
            # What had not begun is cancelled at the end, and only then.
            if not self.closing.is_set():
                raise
            raise Refused(503, STOPPING) from None

    async def look_after(self, visit: Visit, elapsed: float) -> None:
        """Note whether the client has left meanwhile."""
        if elapsed > _GONE_AFTER:
            visit.client_gone = await visit.request.is_disconnected()

    async def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the emulator's own end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.closing.wait()

    def _latency(self, type: str) -> float:
        latency = self.settings.latency
        if callable(latency):
            return latency(type)
        if isinstance(latency, tuple):
            return self._random.uniform(*latency)
        return latency

    def _retry_after(self) -> str | None:
        value = self.settings.retry_after
        if callable(value):
            return value()
        return value if value is None or isinstance(value, str) else seconds_text(value)
