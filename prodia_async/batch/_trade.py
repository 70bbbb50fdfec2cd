"""
What a batch needs of an API: one face for `AsyncProdia` and `AsyncFireworks`.

Everything goes through the clients' public methods. A *trade* knows how a job
of its API is written as a line of a file, what its key is made of, what it is
expected to cost, and how it is run, submitted and collected.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .._async_jobs import ASK_KIND
from .._catalogue import job_type as catalogued
from .._catalogue import load_catalogue
from .._client import AsyncProdia
from .._errors import InvalidRequestError, ProdiaError
from .._keys import Digester, canonical_accept, content_key
from .._models import Job, JobRequest, NoOutputError, as_input, wire_job
from .._requests import encode_json
from .._retry import GIVE_UP, RetryPolicy
from .._show import shown
from ..fireworks import (
    AsyncFireworks,
    Kontext,
    TextToImage,
    estimate,
)
from ..fireworks._kinds import KINDS, PICTURES
from ._outputs import Content, safe_ext
from ._values import BatchJob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from .._attempts import Attempts
    from .._catalogue_data import Hint
    from .._hooks import AttemptDetails
    from .._outputs import Output
    from .._retry import Decision
    from ._decide import OnDoubt

RESULT_SECONDS = 300.0
"""How long a result is kept where the answer does not say. Documented by examples: 300 s."""


IN_MEMORY = "in memory"
"""Member of a line some input of which only memory had. No job has one of that name."""


@dataclass(slots=True)
class Asked:
    """
    One job, with all that a batch needs to know of it.

    Attributes:
        request: What the API's client takes.
        type: Its job type.
        line: How it is written as a line of an input file. An input in memory has
            its digest there and cannot be read again, which `IN_MEMORY` marks.
        key: Its content key.
        id: The user's name for it.
        files: Those among its inputs, with the digests that are part of the key.
    """

    request: Any
    type: str
    line: dict[str, Any]
    key: bytes
    id: str | None
    files: Sequence[tuple[Path, bytes]] = ()


@dataclass(slots=True)
class Made:
    """What came of a job."""

    outputs: list[Content]
    job_id: str | None = None
    seed: int | None = None
    dollars: float | None = None
    attempts: int = 1
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """What a table knows of a job type: dollars and seconds of a job; whether it permits async."""

    dollars: float | None = None
    seconds: float | None = None
    permits_async: bool | None = None


@dataclass(slots=True)
class Flight:
    """
    One row's way through the client, as its hook tells it.

    Attributes:
        times: Attempts that began.
        refusals: Attempts that were refused for lack of capacity.
        risky: Attempts that may have been paid though nothing came of them.
        counted: How many of these are counted as such.
        stage: ``out`` while an attempt is with the server, ``over`` once one succeeded,
            ``waiting`` for the next; ``ended`` in between.
        on_start: Called before the bytes of an attempt leave.
        on_refused: Called when an attempt has ended and cannot have been paid.
        on_wait: Called when an attempt has ended and another is to follow.
        is_recalled: Returns whether nothing more of it is to be sent.
    """

    on_start: Callable[[], None]
    on_refused: Callable[[], None]
    on_wait: Callable[[], None]
    is_recalled: Callable[[], bool]
    times: int = 0
    refusals: int = 0
    stage: Literal["queued", "out", "ended", "over", "waiting"] = "queued"
    risky: int = 0
    counted: int = 0


class RecalledError(Exception):
    """A job was called back in the last moment before its bytes would have left; nothing failed."""


_FLIGHT: ContextVar[Flight | None] = ContextVar("prodia_batch_flight", default=None)


@contextmanager
def watching(flight: Flight) -> Iterator[None]:
    """Have the hook tell a row of its attempts, for a block."""
    token = _FLIGHT.set(flight)
    try:
        yield
    finally:
        _FLIGHT.reset(token)


def hook_with(theirs: Callable[[AttemptDetails], None] | None) -> Callable[[AttemptDetails], None]:
    """Return a hook that tells the row in whose task it is called, and the user's own."""

    def told(details: AttemptDetails) -> None:
        flight = _FLIGHT.get()
        if flight is not None and not _is_question(details.job_type):
            if details.event == "started":
                flight.times += 1
                flight.stage = "out"
                flight.on_start()
            elif details.event in {"finished", "waiting"} and details.attempt is not None:
                fate = details.attempt.fate
                if flight.stage == "out":
                    flight.stage = "over" if fate == "succeeded" else "ended"
                    flight.refusals += fate == "not run"
                    risky = fate in {"server fault", "uncertain", "ran"}
                    flight.risky += risky
                    if flight.stage == "ended" and not risky:
                        flight.on_refused()
                if details.event == "waiting":
                    flight.stage = "waiting"
                    flight.on_wait()
        if theirs is not None:
            theirs(details)

    return told


def _is_question(kind: str) -> bool:
    """Return whether what is sent asks about a job that the server has, which costs nothing."""
    return kind in {ASK_KIND, "sample"} or kind.endswith(" get_result")


def credential_with(theirs: Any) -> Callable[[], Awaitable[str]]:
    """
    Return a credential that is asked for just before an attempt is sent, and is refused then.

    A cancellation comes a turn of the loop late: a job that was cancelled when
    it was given its slot would be on its way by then, and be paid for nothing.
    """

    async def credential() -> str:
        flight = _FLIGHT.get()
        if flight is not None and flight.is_recalled():
            raise RecalledError
        return str(await theirs()) if callable(theirs) else theirs

    return credential


class Trade(Protocol):
    """One API, as a batch sees it."""

    api: str
    can_submit: bool
    server: str
    """Its address."""

    async def asked(self, item: Any) -> Asked:
        """Read one item of the input; raises InvalidRequestError."""

    def facts(self, asked: Asked) -> Facts:
        """Return what is known of a job before it is run."""

    async def run(self, asked: Asked) -> Made:
        """Run a job to its end."""

    async def submit(self, asked: Asked) -> tuple[str, float]:
        """Leave a job with the server; returns its id and the seconds its result is kept."""

    async def collect(self, job_id: str) -> Made:
        """Wait for a job that was left with the server, and fetch what it made."""

    def max_concurrency(self) -> int:
        """Return the most jobs in flight at once."""

    def statistics(self) -> Any:
        """Return the client's statistics."""

    def is_closed(self) -> bool:
        """Return whether the client was closed, so that nothing can be sent any more."""


class _Once(RetryPolicy):
    """Sends nothing again that may have been paid, whatever the policy that it is made of says."""

    def decide(self, attempts: Attempts, *args: Any, **given: Any) -> Decision:
        return GIVE_UP if attempts.may_have_run else super().decide(attempts, *args, **given)


def trade_of(client: object, *, on_doubt: OnDoubt = "retry") -> Trade:
    """
    Return the trade of a client.

    Args:
        client: The client.
        on_doubt: With ``"hold"`` not even the client's own `RetryPolicy` sends again what
            may have been paid.

    Raises:
        InvalidRequestError: It is no client.
    """
    if on_doubt == "hold" and isinstance(client, AsyncProdia | AsyncFireworks):
        own = client._retry  # noqa: SLF001
        once = _Once(**{each.name: getattr(own, each.name) for each in fields(own)})
        client = client.with_options(retry=once)
    if isinstance(client, AsyncProdia):
        return ProdiaTrade(client)
    if isinstance(client, AsyncFireworks):
        return FireworksTrade(client)
    raise InvalidRequestError(
        f"a batch needs an AsyncProdia or an AsyncFireworks, not {type(client).__name__}"
    )


class ProdiaTrade:
    """Prodia's v2 API."""

    api = "prodia"
    can_submit = True

    def __init__(self, client: AsyncProdia) -> None:
        self.server = client._base_url  # noqa: SLF001
        self._client = client.with_options(
            hook=hook_with(client._hook),  # noqa: SLF001  (the user's own goes on being told)
            token=credential_with(client._token),  # noqa: SLF001
        )
        self._digester = Digester()

    async def asked(self, item: Any) -> Asked:
        given = item if isinstance(item, BatchJob) else BatchJob(item)
        request = given.request
        if not isinstance(request, JobRequest):
            request = JobRequest(_job(request))
        wire = wire_job(request.job)
        inputs = [as_input(each) for each in request.inputs]
        digests = await self._digester.inputs(inputs) if inputs else []
        await load_catalogue()  # for `facts`
        # What an input is called in the request counts, where it has no name of its own.
        accept = canonical_accept(request.accept)
        line: dict[str, Any] = {} if given.id is None else {"id": given.id}
        line |= {name: value for name, value in wire.items() if value is not None}
        encode_json(line)  # half a surrogate pair can be sent no more than it can be recorded
        key = content_key(wire, inputs=digests, accept=accept, sample=given.sample)
        if inputs:
            line["inputs"] = [
                _written(each.content, digest.digest, line)
                for each, digest in zip(inputs, digests, strict=True)
            ]
            request = replace(request, inputs=tuple(inputs))
        if accept is not None:
            line["accept"] = accept
        if given.sample:
            line["sample"] = given.sample
        files = [
            (each.content, digest.digest)
            for each, digest in zip(inputs, digests, strict=True)
            if isinstance(each.content, Path)
        ]
        return Asked(request, str(wire["type"]), line, key, given.id, files)

    def facts(self, asked: Asked) -> Facts:
        known = catalogued(asked.type)
        if known is None:
            return Facts()
        permit = known.permits_async
        permits = None if permit is None else permit.value
        return Facts(_highest(known.dollars), _highest(known.seconds), permits)

    async def run(self, asked: Asked) -> Made:
        await _look_again(self._digester, asked)
        request = asked.request
        response = await self._client.job(
            request.job,
            inputs=request.inputs,
            accept=request.accept,
            multipart=True,
            price=True if request.price is None else request.price,
            deadline=request.deadline,
            extra_headers=request.extra_headers,
            extra_query=request.extra_query,
        )
        return _prodia_made(response)

    async def submit(self, asked: Asked) -> tuple[str, float]:
        await _look_again(self._digester, asked)
        request = asked.request
        job = await self._client.submit(
            request.job,
            inputs=request.inputs,
            accept=request.accept,
            price=True if request.price is None else request.price,
            deadline=request.deadline,
            extra_headers=request.extra_headers,
            extra_query=request.extra_query,
        )
        said = job.job
        if said is None or said.expires_at is None or said.created_at is None:
            return job.id, RESULT_SECONDS
        # The server's own two times, so that its clock need not agree with ours.
        return job.id, (said.expires_at - said.created_at).total_seconds()

    async def collect(self, job_id: str) -> Made:
        client = self._client.with_options(price=True)
        return _prodia_made(await client.async_job(job_id).result())

    def max_concurrency(self) -> int:
        return self._client.statistics().max_concurrency

    def statistics(self) -> Any:
        return self._client.statistics()

    def is_closed(self) -> bool:
        return self._client._engine.closed  # noqa: SLF001  (no other way tells)


async def _look_again(digester: Digester, asked: Asked) -> None:
    """
    Look whether a job's files are what it is known by, just before it is sent.

    Behind that the client itself looks, until all of it has been sent.

    Raises:
        InvalidRequestError: One has changed since, or cannot be read any more.
    """
    for path, digest in asked.files:
        if await digester.digest(path) != digest:
            raise InvalidRequestError(
                f"the input {str(path)!r} changed after the batch had looked at it, and nothing "
                "was sent; run the batch again, for which it is another job"
            )


def _written(content: object, digest: bytes, line: dict[str, Any]) -> str:
    """Return what a job's line says of an input, and mark the line if it cannot say enough."""
    if isinstance(content, Path):
        return str(content.absolute())
    line[IN_MEMORY] = True
    return digest.hex()


def _check_alone(job: Mapping[str, Any]) -> None:
    for name in ("input", "inputs", "accept", "sample"):
        if job.get(name) is not None:
            raise InvalidRequestError(
                f"a mapping is the job alone, of type, config and jobs, and this one has "
                f"{name}={shown(job[name])}: write BatchJob(JobRequest(job, inputs=[...], "
                "accept=...), sample=...)"
            )


def _job(value: Any) -> Job | Mapping[str, Any]:
    if isinstance(value, Job):
        return value
    if isinstance(value, Mapping):
        _check_alone(value)
        known = {"type", "config", "jobs"}
        return {name: each for name, each in value.items() if name in known or each is not None}
    raise InvalidRequestError(
        f"a batch takes JobRequest, Job, mappings and BatchJob, not {shown(value)}"
    )


def _highest(hint: Hint | None) -> float | None:
    return None if hint is None else hint.high or hint.low


def _prodia_made(response: Any) -> Made:
    job = response.job
    config = (job and job.config) or {}
    seed = config.get("seed")
    return Made(
        [content_of(each) for each in response.outputs],
        job_id=job.id if job else None,
        seed=seed if type(seed) is int and abs(seed) < 2**63 else None,
        dollars=_price(job),
        attempts=len(response.attempts) or 1,
        refusals=sum(each.fate == "not run" for each in response.attempts),
    )


def _price(job: Any) -> float | None:
    dollars = job.price.dollars if job is not None and job.price is not None else None
    return dollars if dollars is not None and 0 <= dollars < 1e6 else None


def no_output(job_type: str, made: Made) -> NoOutputError | None:
    """
    Return why an answer is none though its job ended well; ``None`` for one that is.

    It was paid for and has no output, and its type is not known to make none.
    """
    if made.outputs:
        return None
    known = catalogued(job_type)
    if known is not None and not (known.outputs.media or known.outputs.note):
        return None
    return NoOutputError("the job completed without an output, and is taken to be paid for")


def content_of(output: Output) -> Content:
    """Return an output's bytes and its extension."""
    return Content(output.content, safe_ext(output.suffix))


_NOT_CONTENT = frozenset(
    {"deadline", "poll", "raise_if_filtered", "tag", "webhook_url", "webhook_secret"}
)


class FireworksTrade:
    """The Fireworks image API."""

    api = "fireworks"
    can_submit = False

    def __init__(self, client: AsyncFireworks) -> None:
        self.server = client._base_url  # noqa: SLF001
        self._client = client.with_options(
            hook=hook_with(client._hook),  # noqa: SLF001  (the user's own goes on being told)
            api_key=credential_with(client._token),  # noqa: SLF001
        )
        self._digester = Digester()

    async def asked(self, item: Any) -> Asked:
        given = item if isinstance(item, BatchJob) else BatchJob(item)
        order = _order(given.request)
        name = next(each for each, kind in KINDS.items() if isinstance(order, kind))
        line: dict[str, Any] = {} if given.id is None else {"id": given.id}
        config: dict[str, Any] = {}
        keyed: dict[str, Any] = {}
        files: list[tuple[Path, bytes]] = []
        for each in fields(order):
            value = getattr(order, each.name)
            if each.name in _NOT_CONTENT or value is None:
                continue
            if each.name == PICTURES.get(type(order)) and not _is_address(value):
                content = as_input(value).content
                digest = await self._digester.digest(content)
                config[each.name] = _written(content, digest, line)
                keyed[each.name] = digest.hex()
                files += [(content, digest)] if isinstance(content, Path) else []
                continue
            if each.name == "accept":
                value = canonical_accept(value)
            config[each.name] = keyed[each.name] = value
        encode_json({"id": given.id, "config": keyed})
        key = content_key({"type": name, "config": keyed}, sample=given.sample)
        line |= {"type": name, "config": config}
        if given.sample:
            line["sample"] = given.sample
        return Asked(order, f"{name}/{order.model}", line, key, given.id, files)

    def facts(self, asked: Asked) -> Facts:
        order = asked.request
        if isinstance(order, Kontext):
            return Facts(permits_async=False)
        dollars = estimate(order.steps, order.model, images=order.samples).dollars
        return Facts(dollars, None, permits_async=False)

    async def run(self, asked: Asked) -> Made:
        await _look_again(self._digester, asked)
        order = asked.request
        response = await self._client.run(order)
        dollars = self.facts(asked).dollars
        seed = next((each.seed for each in response.images if each.seed is not None), None)
        return Made(
            [content_of(each) for each in response.images],
            job_id=response.images[0].id if response.images else None,
            seed=seed,
            dollars=dollars,
            attempts=len(response.attempts) or 1,
            refusals=sum(each.fate == "not run" for each in response.attempts),
        )

    # It has no jobs that are left with the server, which `can_submit` says.

    async def submit(self, asked: Asked) -> tuple[str, float]:
        raise NotImplementedError  # as above

    async def collect(self, job_id: str) -> Made:
        raise NotImplementedError  # as above

    def max_concurrency(self) -> int:
        return self._client.statistics().max_concurrency

    def statistics(self) -> Any:
        return self._client.statistics()

    def is_closed(self) -> bool:
        return self._client._engine.closed  # noqa: SLF001  (no other way tells)


def _order(value: Any) -> Any:
    """
    Return the order that an item of the input is.

    Raises:
        InvalidRequestError: It is none; or it has files that its order has no place for.
    """
    if isinstance(value, tuple(KINDS.values())):
        return value
    if isinstance(value, str):
        return TextToImage(value)
    beside: dict[str, Any] = {}
    inputs: Sequence[Any] = ()
    if isinstance(value, JobRequest):
        inputs = value.inputs
        beside = {"accept": value.accept, "deadline": value.deadline}
        value = value.job
    if isinstance(value, Job):
        value = value.to_wire()
    if isinstance(value, Mapping):
        _check_alone(value)
        kind = KINDS.get(str(value.get("type", "text_to_image")))
        config = value.get("config")
        if config is None and inputs:
            config = {}  # of edges nothing else need be said
        if kind is None or not isinstance(config, Mapping):
            raise InvalidRequestError(
                f"a job for Fireworks needs a type of {', '.join(KINDS)} and a config, "
                f"not {shown(value)}"
            )
        if inputs:
            beside[_place_of(kind, inputs)] = inputs[0]
        needed = {
            each.name: each.default is each.default_factory is MISSING for each in fields(kind)
        }
        given = {name: each for name, each in beside.items() if each is not None and name in needed}
        settings = {**given, **config}
        for name in [*settings, *needed]:
            if name not in needed:
                raise InvalidRequestError(
                    f"{kind.__name__} has no setting {shown(name)}; it has {', '.join(needed)}"
                )
            if needed[name] and name not in settings:
                raise InvalidRequestError(f"{kind.__name__} needs a setting {name!r}")
        return kind(**settings)
    orders = ", ".join(each.__name__ for each in KINDS.values())
    raise InvalidRequestError(
        f"a batch on Fireworks takes {orders}, prompts and BatchJob, not {shown(value)}"
    )


def _place_of(kind: type[Any], inputs: Sequence[Any]) -> str:
    """Return the field that a job's one input file is for."""
    place = PICTURES.get(kind)
    if place is None:
        raise InvalidRequestError(
            f"{kind.__name__} takes no input file, and {len(inputs)} were given"
        )
    if len(inputs) > 1:
        raise InvalidRequestError(
            f"{kind.__name__} takes one input file, its {place}, and {len(inputs)} were given"
        )
    return place


def _is_address(value: object) -> bool:
    return isinstance(value, str) and value.lower().startswith(("http://", "https://", "data:"))


def complete_outputs(error: BaseException) -> Sequence[Output]:
    """Return what came whole before a job's answer broke; it is paid for."""
    return error.outputs if isinstance(error, ProdiaError) else ()
