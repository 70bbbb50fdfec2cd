"""
The path of one request: slot, attempts, reply. Not a word of any API's vocabulary.

::

    run                      within its deadline
      Flight.open            until an answer of success has begun
        retrying             decides after each attempt (_retry)
          ticket.start       waits for its turn (_scheduler)
          sender.send        one exchange (_transport)
          error_for          an error status, in the vocabulary's words
      vocabulary.read        the answer; from here on nothing is sent again
      Flight.finish          gives the slot back, counts

A success status means that the job ran, so reading its answer lies outside
the attempts: whatever goes wrong there, sending it again would pay twice.

An engine outlives event loops: each loop gets connections and a scheduler of
its own (a *session*), made on first use, and so does a forked child.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

import anyio
import anyio.lowlevel

from ._errors import DeadlineExceededError, ProdiaError
from ._hooks import AttemptDetails, AttemptHook, logger, tell
from ._retry import Attempt, History, RetryBudget, RetryPolicy, attempt_of, retrying
from ._scheduler import Scheduler, SchedulerStatistics
from ._transport import Reply, Sender, Sending
from ._wire import REDACTED, Headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._wire import WireRequest

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MAX_ERROR_BYTES = 64 * 1024
"""How much of an error's body is read. Chosen."""

MIN_SECRET = 8
"""Shortest credential that is blotted out of errors. Chosen: real ones have hundreds of letters."""


class Vocabulary(Protocol[T_co]):
    """What an API makes of an answer."""

    async def read(self, reply: Reply) -> T_co:
        """
        Read a success answer.

        Raises:
            ResponseError: It is not what the API promises.
            JobFailedError: It says that the job failed.
        """

    def error_for(self, status_code: int, headers: Headers, body: bytes) -> ProdiaError:
        """Turn an error status into the error to raise; ``body`` may be cut."""

    def partial(self) -> dict[str, object]:
        """Return what was complete of the answer being read, as attributes for an error."""

    def dollars(self) -> float:
        """Return what the answer that was read says it cost; 0 if it does not."""


@dataclass(frozen=True, slots=True)
class Finished:
    """
    What a request took.

    Attributes:
        request_id: The ``x-request-id`` header.
        attempts: Oldest first; the last succeeded.
        queued: Seconds waited for a slot, or out a refusal.
        backoff: Seconds waited between attempts after faults.
        running: Seconds spent in attempts.
        total: Seconds in all.
    """

    request_id: str | None
    attempts: tuple[Attempt, ...]
    queued: float
    backoff: float
    running: float
    total: float


class _Session:
    """What belongs to one event loop in one process."""

    __slots__ = ("_loop", "pid", "scheduler", "sender")

    def __init__(self, sender: Sender, scheduler: Scheduler, token: object) -> None:
        self.sender = sender
        self.scheduler = scheduler
        self.pid = os.getpid()
        self._loop = getattr(token, "native_token", token)

    def is_gone(self) -> bool:
        """Whether its loop was closed, or belongs to the process we were forked from."""
        # Only asyncio tells whether a loop was closed.
        closed = getattr(self._loop, "is_closed", None)
        return self.pid != os.getpid() or (closed is not None and bool(closed()))


class Engine:
    """
    Runs requests: bounded, retried, within their deadlines.

    Args:
        make_sender: Makes what sends, for the running event loop.
        make_scheduler: Makes a scheduler.
        retry: When to try again.
    """

    def __init__(
        self,
        *,
        make_sender: Callable[[], Sender],
        make_scheduler: Callable[[], Scheduler],
        retry: RetryPolicy,
    ) -> None:
        self._sessions: dict[object, _Session] = {}
        self.closed = False
        self._make_sender = make_sender
        self._make_scheduler = make_scheduler
        self.retry = retry
        self._budget = RetryBudget()
        # Made now, since it checks its arguments; the first session gets it.
        self._spare_scheduler: Scheduler | None = make_scheduler()
        self._past = self._spare_scheduler.statistics()

    def __del__(self) -> None:
        if self._sessions and not self.closed:
            warnings.warn(
                "a client was not closed: use `async with`, or `await client.aclose()`",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
            self._abandon_all()

    def session(self) -> _Session:
        """
        Return what belongs to the running event loop, made on first use.

        Raises:
            RuntimeError: The client was closed, or no event loop runs.
        """
        if self.closed:
            raise RuntimeError("this client is closed; make a new one")
        token = anyio.lowlevel.current_token()
        session = self._sessions.get(token)
        if session is not None and session.pid == os.getpid():
            return session
        self._drop_gone()
        scheduler = self._spare_scheduler or self._make_scheduler()
        self._spare_scheduler = None
        session = self._sessions[token] = _Session(self._make_sender(), scheduler, token)
        return session

    def _drop_gone(self) -> None:
        for token, session in list(self._sessions.items()):
            if session.is_gone():
                del self._sessions[token]
                self._past = _sum([self._past, session.scheduler.statistics()], past=True)
                session.sender.abandon()

    def _abandon_all(self) -> None:
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            session.sender.abandon()

    async def run(
        self,
        request: WireRequest,
        vocabulary: Vocabulary[T],
        *,
        authorize: Callable[[], Awaitable[str]],
        deadline: float | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        hook: AttemptHook | None = None,
    ) -> tuple[T, Finished]:
        """
        Run one request to its end.

        Args:
            request: What to send, as often as it takes.
            vocabulary: Reads the answer.
            authorize: Returns the Authorization header for an attempt.
            deadline: Seconds for all of it.
            retry: A policy other than the engine's.
            timeout: Seconds of silence allowed, other than the sender's.
            hook: Told of every attempt.

        Returns:
            What the vocabulary read, and what it took.

        Raises:
            DeadlineExceededError: It took longer than ``deadline``.
            ProdiaError: It failed; the attempts are attached.
        """
        session = self.session()
        flight = Flight(
            request,
            vocabulary,
            authorize=authorize,
            session=session,
            policy=retry or self.retry,
            budget=self._budget,
            timeout=timeout,
            hook=hook,
        )
        if deadline is None:
            return await flight.run()
        with anyio.move_on_after(deadline):
            return await flight.run()
        raise flight.out_of_time(deadline)

    def statistics(self) -> SchedulerStatistics:
        """Return what all sessions do and have done, added up."""
        return _sum(
            [self._past, *(session.scheduler.statistics() for session in self._sessions.values())]
        )

    async def aclose(self) -> None:
        """Close the connections, for good."""
        if self.closed:
            return
        self.closed = True
        self._past = self.statistics()
        session = self._sessions.pop(anyio.lowlevel.current_token(), None)
        try:
            if session is not None:
                await session.sender.aclose()
        finally:
            self._abandon_all()


_NOW = frozenset({"in_flight", "queued", "waiting"})
_NOT_ADDED = frozenset({"limits", "max_concurrency"})


def _sum(each: list[SchedulerStatistics], *, past: bool = False) -> SchedulerStatistics:
    """Add up the counts of several schedulers; of `past` ones nothing goes on any more."""
    added = {
        field.name: sum(getattr(counts, field.name) for counts in each)
        for field in fields(SchedulerStatistics)
        if field.name not in _NOT_ADDED
    }
    if past:
        added.update(dict.fromkeys(_NOW, 0))
    limits = {kind: limit for counts in each for kind, limit in counts.limits.items()}
    return replace(each[0], limits=MappingProxyType(limits), **added)


class Flight(Generic[T]):
    """One request on its way, from its place in line to its end."""

    __slots__ = (
        "_attempt_began", "_authorize", "_backoff", "_began", "_budget", "_history", "_hook",
        "_policy", "_reply", "_request", "_running", "_scheduler", "_sender", "_sending",
        "_ticket", "_timeout", "_vocabulary",
    )  # fmt: skip

    def __init__(
        self,
        request: WireRequest,
        vocabulary: Vocabulary[T],
        *,
        authorize: Callable[[], Awaitable[str]],
        session: _Session,
        policy: RetryPolicy,
        budget: RetryBudget,
        timeout: float | None,
        hook: AttemptHook | None,
    ) -> None:
        self._request = request
        self._vocabulary = vocabulary
        self._authorize = authorize
        self._scheduler = session.scheduler
        self._sender = session.sender
        self._policy = policy
        self._budget = budget
        self._timeout = timeout
        self._hook = hook
        self._ticket = self._scheduler.ticket(request.kind)
        self._history = History()
        self._sending: Sending | None = None
        self._reply: Reply | None = None
        self._began = self._attempt_began = anyio.current_time()
        self._running = self._backoff = 0.0

    async def run(self) -> tuple[T, Finished]:
        """Open, read and finish."""
        try:
            reply = await self.open()
            try:
                value = await self._vocabulary.read(reply)
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await reply.aclose()
                raise
            await reply.aclose()
        except Exception as error:
            self.finish(error)
            raise
        except BaseException:
            self.finish(None, cancelled=True)
            raise
        return value, self.finish(None, dollars=self._vocabulary.dollars())

    async def open(self) -> Reply:
        """Make attempts until an answer of success has begun; its body is not read yet."""
        return await retrying(self._attempt, decide=self._decide)

    async def _attempt(self) -> Reply:
        await self._ticket.start()
        self._attempt_began = anyio.current_time()
        self._sending = Sending()
        self._tell("started", None)
        try:
            authorization = await self._authorize()
            reply = await self._sender.send(
                self._request, authorization, self._sending, timeout=self._timeout
            )
            if 200 <= reply.status_code < 300:
                self._reply = reply
                return reply
            try:
                body = await reply.read_start(MAX_ERROR_BYTES)
            finally:
                with anyio.CancelScope(shield=True):
                    await reply.aclose()
            # A server that echoes the request must not put the token into an error.
            headers, body = _without_secret(reply.headers, body, authorization)
            raise self._vocabulary.error_for(reply.status_code, headers, body)
        except Exception as error:
            self._attempt_ended(error)
            raise

    def _attempt_ended(self, error: Exception | None) -> None:
        now = anyio.current_time()
        seconds = now - self._attempt_began
        self._running += seconds
        number = len(self._history.attempts) + 1
        reply = self._reply
        attempt = attempt_of(number, error, seconds)
        if reply is not None:
            attempt = replace(attempt, status_code=reply.status_code, request_id=reply.request_id)
            if isinstance(error, ProdiaError):
                error.request_id = error.request_id or reply.request_id
        self._history.add(attempt, now)
        self._sending = None
        logger.debug("%s: attempt %d: %s in %.3f s", self._request.kind, number, attempt, seconds)
        self._tell("finished", attempt)
        # A refusal is given back by `_decide`, which knows how long to wait.
        if attempt.fate != "not run":
            self._ticket.released(served=attempt.fate in {"succeeded", "ran"})

    def _decide(self, error: BaseException) -> float | None:
        history = self._history
        decision = self._policy.decide(history, self._budget, now=anyio.current_time())
        refused = history.attempts[-1].fate == "not run"
        if refused:
            self._ticket.refused(decision.wait or 0.0)
        if decision.wait is None:
            if decision.reason and isinstance(error, ProdiaError):
                error.args = (f"{error.message.rstrip('.')}. Given up: {decision.reason}",)
            return None
        history.waited(decision.wait)
        logger.info(
            "%s: attempt %d: %s", self._request.kind, len(history.attempts), history.attempts[-1]
        )
        self._tell("waiting", history.attempts[-1])
        if refused:
            return 0.0  # the ticket waits it out, and is first in line then
        self._backoff += decision.wait
        return decision.wait

    def _tell(
        self, event: Literal["started", "finished", "waiting"], attempt: Attempt | None
    ) -> None:
        if self._hook is not None:
            number = attempt.number if attempt else len(self._history.attempts) + 1
            details = AttemptDetails(
                event=event,
                job_type=self._request.kind,
                number=number,
                attempt=attempt,
                seconds_queued=self._ticket.seconds_queued,
            )
            tell(self._hook, details)

    def finish(
        self, error: Exception | None, *, dollars: float = 0.0, cancelled: bool = False
    ) -> Finished:
        """
        Give the slot back and count; the last thing that happens to a flight.

        Args:
            error: What it failed with; the attempts are attached to it.
            dollars: What it cost, as far as the answer said.
            cancelled: Whether it was cut off.
        """
        if self._reply is not None and not cancelled:
            self._attempt_ended(error)
        self._ticket.close()
        completed = error is None and not cancelled
        self._scheduler.record(completed=completed, dollars=dollars)
        attempts = tuple(self._history.attempts)
        if isinstance(error, ProdiaError):
            error.attempts = attempts
            error.may_have_run = error.may_have_run or self._earlier_may_have_run()
        elif completed:
            self._budget.succeeded(self._history.server_faults)
        total = anyio.current_time() - self._began
        return Finished(
            self._reply.request_id if self._reply else None,
            attempts,
            queued=max(0.0, total - self._running - self._backoff),
            backoff=self._backoff,
            running=self._running,
            total=total,
        )

    def _earlier_may_have_run(self) -> bool:
        fates = {attempt.fate for attempt in self._history.attempts}
        return not fates.isdisjoint({"server fault", "uncertain", "ran"})

    def out_of_time(self, deadline: float) -> DeadlineExceededError:
        """Return the error for a deadline that passed."""
        with_server = self._sending is not None and self._sending.may_have_run
        where = "it was with the server" if with_server else "it was not with the server"
        error = DeadlineExceededError(
            f"the job did not finish within its deadline of {deadline:g} s; {where} when it passed",
            attempts=self._history.attempts,
            request_id=self._reply.request_id if self._reply else None,
            may_have_run=with_server or self._earlier_may_have_run(),
        )
        error.__dict__.update(self._vocabulary.partial())
        return error


def _without_secret(headers: Headers, body: bytes, authorization: str) -> tuple[Headers, bytes]:
    """Blot the credential out of an answer; one of a few letters is none, and would blot words."""
    secret = authorization.rpartition(" ")[2]
    if len(secret) < MIN_SECRET:
        return headers, body
    return headers.without(secret), body.replace(secret.encode(), REDACTED.encode())
