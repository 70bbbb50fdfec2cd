"""
The path of one request: slot, attempts, reply. Not a word of any API's vocabulary.

::

    run                      within its deadline
      Flight.begin           until an answer of success has begun
        retrying             decides after each attempt (_retry)
          ticket.start       waits for its turn (_scheduler)
          sender.send        one exchange (_transport)
          error_for          an error status, in the vocabulary's words
      vocabulary.read        the answer; from here on nothing is sent again
      Flight.end             gives the slot back, counts

A success status means that the job ran, so reading its answer lies outside
the attempts: whatever goes wrong there, sending it again would pay twice.

An engine outlives event loops: each loop gets connections and a scheduler of
its own (a *session*), made on first use, and so does a forked child.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

import anyio
import anyio.lowlevel

from ._errors import ConnectError, DeadlineExceededError, ProdiaError
from ._hooks import AttemptDetails, AttemptHook, log, tell
from ._retry import (
    Attempt,
    Decision,
    Fate,
    History,
    RetryBudget,
    RetryPolicy,
    attempt_of,
    retrying,
)
from ._scheduler import Scheduler, SchedulerStatistics
from ._transport import Reply, Sender, Sending
from ._waiting import clock_of, until
from ._wire import REDACTED, Headers, Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._scheduler import Ticket
    from ._source import Source
    from ._wire import WireRequest

S = TypeVar("S")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MAX_ERROR_BYTES = 64 * 1024
"""How much of an error's body is read. Chosen."""

ERROR_BODY_SECONDS = 10.0
"""How long the body of an error is read. Chosen: its status says the most of it."""

MAX_QUESTIONS = 32
"""
How many free questions of a session are asked at once. Chosen: enough for some hundred polls a
second, and few beside the connections of the jobs.
"""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """
    On which terms a request is run.

    Attributes:
        authorize: Returns the Authorization header for an attempt; empty for none.
        retry: When to try again.
        deadline: Seconds for all of it, or ``None``.
        timeout: Seconds of silence allowed within an attempt.
        hook: Told of every attempt.
        counted: Whether it is a job of its own in the statistics, rather
            than a step of one (a question about it, say).
        spent: Seconds of the deadline that are gone already.
        free: Whether it is a question that costs nothing: it waits for no
            slot but for one of `MAX_QUESTIONS`, is sent once, and neither
            draws on the retry budget nor fills it. Whoever asks decides
            whether to ask again.
        source: Who fetched it, where it is one of many.
    """

    authorize: Callable[[], Awaitable[str]]
    retry: RetryPolicy
    deadline: float | None
    timeout: float
    hook: AttemptHook | None
    counted: bool = True
    spent: float = 0.0
    free: bool = False
    source: Source | None = None


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

    __slots__ = ("_loop", "accepted", "clock", "closed", "pid", "questions", "scheduler", "sender")

    def __init__(self, sender: Sender, scheduler: Scheduler, token: object) -> None:
        self.sender = sender
        self.scheduler = scheduler
        self.pid = os.getpid()
        self._loop: Any = getattr(token, "native_token", token)
        # The same clock as anyio's, without looking for the loop at each reading.
        self.clock = clock_of(getattr(self._loop, "time", anyio.current_time))
        scheduler.clock = self.clock
        self.accepted: dict[str, float] = {}
        """When the server last accepted a request, by kind."""
        self.questions = anyio.CapacityLimiter(MAX_QUESTIONS)
        self.closed = False

    def is_gone(self) -> bool:
        """Whether its loop has ended, or belongs to the process we were forked from."""
        if self.pid != os.getpid():
            return True
        if hasattr(self._loop, "is_closed"):
            return bool(self._loop.is_closed())
        try:  # trio tells when it is asked to do something
            self._loop.run_sync_soon(_do_nothing)
        except RuntimeError:
            return True
        return False


def _do_nothing() -> None:
    pass


class _FreeTicket:
    """In the place of a scheduler's ticket, for a question that costs nothing."""

    __slots__ = ("_limiter", "seconds_queued")

    def __init__(self, limiter: anyio.CapacityLimiter) -> None:
        self._limiter = limiter
        self.seconds_queued = 0.0

    async def start(self) -> None:
        await self._limiter.acquire_on_behalf_of(self)

    def refused(self, wait: float | None, *, retry_after: float | None) -> None:
        del wait, retry_after
        self.close()

    def released(self, *, served: bool) -> None:
        del served
        self.close()

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has none, or gave it back
            self._limiter.release_on_behalf_of(self)


class Engine:
    """
    Runs requests: bounded, retried, within their deadlines.

    Args:
        make_sender: Makes what sends, for the running event loop.
        make_scheduler: Makes a scheduler.
    """

    def __init__(
        self,
        *,
        make_sender: Callable[[], Sender],
        make_scheduler: Callable[[], Scheduler],
    ) -> None:
        self._sessions: dict[object, _Session] = {}
        self._closed_sessions: list[_Session] = []
        self.closed = False
        self._make_sender = make_sender
        self._make_scheduler = make_scheduler
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

    def flight(self, request: WireRequest, vocabulary: Vocabulary[T], terms: Terms) -> Flight[T]:
        """Give a request its place in line; nothing is sent yet."""
        return Flight(request, vocabulary, terms, self.session(), self._budget)

    async def run(
        self, request: WireRequest, vocabulary: Vocabulary[T], terms: Terms
    ) -> tuple[T, Finished]:
        """
        Run one request to its end.

        Returns:
            What the vocabulary read, and what it took.

        Raises:
            DeadlineExceededError: It took longer than the deadline.
            ProdiaError: It failed; the attempts are attached.
        """
        flight = self.flight(request, vocabulary, terms)
        return await flight.within(flight.run)

    def statistics(self) -> SchedulerStatistics:
        """Return what all sessions do and have done, added up."""
        sessions = [*list(self._sessions.values()), *self._closed_sessions]
        return _sum([self._past, *(session.scheduler.statistics() for session in sessions)])

    async def aclose(self) -> None:
        """Close the connections, for good."""
        if self.closed:
            return
        self.closed = True
        # Their jobs come to their ends yet, and count.
        self._closed_sessions = list(self._sessions.values())
        for session in self._closed_sessions:
            session.closed = session.scheduler.closed = True
        mine = self._sessions.pop(anyio.lowlevel.current_token(), None)
        try:
            if mine is not None:
                mine.scheduler.close()
                await mine.sender.aclose()
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
    """
    One request on its way, from its place in line to its end.

    `begin`, then read the reply, then `end`, in whatever way it went. Each
    step goes through `within`, which keeps the deadline.
    """

    __slots__ = (
        "_attempt_began", "_backoff", "_began", "_budget", "_clock", "_deadline_at", "_history",
        "_reply", "_request", "_running", "_secret", "_sending", "_session", "_terms", "_ticket",
        "_vocabulary",
    )  # fmt: skip

    def __init__(
        self,
        request: WireRequest,
        vocabulary: Vocabulary[T],
        terms: Terms,
        session: _Session,
        budget: RetryBudget,
    ) -> None:
        self._request = request
        self._vocabulary = vocabulary
        self._terms = terms
        self._session = session
        self._budget = budget
        self._ticket: Ticket | _FreeTicket = (
            _FreeTicket(session.questions)
            if terms.free
            else session.scheduler.ticket(request.kind, terms.source)
        )
        self._history = History()
        self._sending: Sending | None = None
        self._reply: Reply | None = None
        self._clock = session.clock
        self._began = self._attempt_began = self._clock()
        self._deadline_at = (
            None if terms.deadline is None else self._began + terms.deadline - terms.spent
        )
        self._running = self._backoff = 0.0
        self._secret = Secret()

    async def within(self, step: Callable[[], Awaitable[S]]) -> S:
        """
        Do one step within what is left of the deadline.

        Raises:
            DeadlineExceededError: Nothing was left; the step was cancelled.
        """
        if self._deadline_at is None:
            return await step()
        with until(self._deadline_at):
            return await step()
        raise self._out_of_time()

    async def run(self) -> tuple[T, Finished]:
        """Begin, read and end."""
        reply = await self.begin()
        try:
            value = await self._vocabulary.read(reply)
        except BaseException as error:
            await self.end(error)
            raise
        return value, await self.end()

    async def begin(self) -> Reply:
        """Make attempts until an answer of success has begun; its body is not read yet."""
        try:
            return await retrying(self._attempt, decide=self._decide)
        except BaseException as error:
            self._finish(error)
            raise

    def give_back(self) -> None:
        """Give the slot back before the end, since a reader of his own pace reads the answer."""
        self._ticket.close()

    async def end(self, error: BaseException | None = None, *, own: bool = True) -> Finished:
        """
        Close the reply, give the slot back and count; the last thing that happens.

        Args:
            error: What it ended with.
            own: Whether that is this request's error. What a caller's own
                code raised while it read the answer is not.
        """
        assert self._reply is not None  # noqa: S101  (`begin` returned it)
        try:
            if error is None:
                await self._reply.aclose()
            else:
                with anyio.CancelScope(shield=True):
                    await self._reply.aclose()
        finally:
            finished = self._finish(error, own=own)
        return finished

    async def _attempt(self) -> Reply:
        await self._ticket.start()
        if self._session.closed:
            raise ConnectError("the client was closed before this job was sent")
        self._attempt_began = self._clock()
        self._sending = Sending()
        self._tell("started", None)
        try:
            authorization = Secret(await self._terms.authorize())
            self._secret = Secret(authorization.rpartition(" ")[2])
            reply = await self._session.sender.send(
                self._request, authorization, self._sending, self._terms.timeout
            )
            if 200 <= reply.status_code < 300:
                self._reply = reply
                self._session.accepted[self._request.kind] = self._clock()
                return reply
            body = b""
            try:
                with anyio.move_on_after(ERROR_BODY_SECONDS):
                    body = await reply.read_start(MAX_ERROR_BYTES)
            finally:
                with anyio.CancelScope(shield=True):
                    await reply.aclose()
            # A server that echoes the request must not put the token into an error.
            headers, body = _without_secret(reply.headers, body, self._secret)
            raise self._vocabulary.error_for(reply.status_code, headers, body)
        except Exception as error:
            self._attempt_ended(error)
            raise

    def _attempt_ended(self, error: BaseException | None, *, own: bool = True) -> None:
        """Record how the attempt ended and give its slot back; only then tell anybody."""
        now = self._clock()
        seconds = now - self._attempt_began
        self._running += seconds
        attempt = self._describe(error, seconds, own=own)
        self._sending = None
        self._history.add(attempt, now)
        if attempt.fate == "not run":
            # A job waits for capacity in the queue too, while the server takes none of its kind.
            accepted = self._session.accepted.get(self._request.kind, self._began)
            waiting_since = max(self._began, accepted)
            self._history.first_refused = min(self._history.first_refused, waiting_since)
            # Its slot is given back by `_decide`, which knows how long to wait.
        else:
            self._ticket.released(served=attempt.fate in {"succeeded", "ran"})
        log(logging.DEBUG, "%s: attempt %d: %s", self._request.kind, attempt.number, attempt)
        self._tell("finished", attempt)

    def _describe(self, error: BaseException | None, seconds: float, *, own: bool) -> Attempt:
        number = len(self._history.attempts) + 1
        reply = self._reply
        if reply is not None:
            if isinstance(error, ProdiaError) and own:
                error.request_id = error.request_id or reply.request_id
            return Attempt(
                number,
                "succeeded" if error is None or not own else "ran",
                reply.status_code,
                reply.request_id,
                seconds,
                error=None if error is None else type(error).__name__,
            )
        if error is None or isinstance(error, Exception):
            return attempt_of(number, error, seconds)
        # Cut off from outside: by a deadline, or by whoever waited for it.
        sent = self._sending is not None and self._sending.may_have_run
        fate: Fate = "uncertain" if sent else "undelivered"
        return Attempt(number, fate, None, None, seconds, error=type(error).__name__)

    def _decide(self, error: BaseException) -> float | None:
        if self._session.closed or not isinstance(error, ProdiaError):
            return None  # closing withdraws the ticket, in whatever state
        if self._terms.free:
            return None
        history = self._history
        last = history.attempts[-1]
        if last.fate == "server fault" and error.job is not None and error.job.succeeded:
            decision = Decision(None, "its answer says that the job ran")
        else:
            decision = self._terms.retry.decide(history, self._budget, now=self._clock())
        if last.fate == "not run":
            self._ticket.refused(decision.wait, retry_after=last.retry_after)
        if decision.wait is None:
            if decision.reason:
                error.args = (f"{error.message.rstrip('.')}. Given up: {decision.reason}",)
            return None
        history.waited(decision.wait)
        last = history.attempts[-1]
        log(logging.INFO, "%s: attempt %d: %s", self._request.kind, last.number, last)
        self._tell("waiting", last)
        if last.fate == "not run":
            return 0.0  # the ticket waits it out, and is first in line then
        self._backoff += decision.wait
        return decision.wait

    def _tell(
        self, event: Literal["started", "finished", "waiting"], attempt: Attempt | None
    ) -> None:
        if self._terms.hook is not None:
            number = attempt.number if attempt else len(self._history.attempts) + 1
            details = AttemptDetails(
                event=event,
                job_type=self._request.kind,
                number=number,
                attempt=attempt,
                seconds_queued=self._ticket.seconds_queued,
            )
            tell(self._terms.hook, details)

    def _finish(self, error: BaseException | None, *, own: bool = True) -> Finished:
        """Give the slot back and count, whatever happened."""
        try:
            if self._sending is not None:
                self._attempt_ended(error, own=own)
        finally:
            self._ticket.close()
            completed = error is None or not own
            if self._terms.counted:
                self._session.scheduler.record(
                    completed=completed, dollars=self._vocabulary.dollars()
                )
        attempts = tuple(self._history.attempts)
        if completed:
            if not self._terms.free:
                self._budget.succeeded(self._history.server_faults)
        elif isinstance(error, ProdiaError):
            error.attempts = attempts
            error.may_have_run = error.may_have_run or self._earlier_may_have_run()
            if len(self._secret) >= MIN_SECRET:
                error.args = (error.message.replace(self._secret, REDACTED),)
        total = self._clock() - self._began
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

    def _out_of_time(self) -> DeadlineExceededError:
        """Return the error for a deadline that passed; what was cut off is recorded already."""
        attempts = self._history.attempts
        with_server = bool(attempts) and attempts[-1].fate in {"uncertain", "ran"}
        where = "it was with the server" if with_server else "it was not with the server"
        error = DeadlineExceededError(
            f"the job did not finish within its deadline of {self._terms.deadline:g} s; "
            f"{where} when it passed",
            attempts=attempts,
            request_id=self._reply.request_id if self._reply else None,
            may_have_run=self._earlier_may_have_run(),
        )
        error.__dict__.update(self._vocabulary.partial())
        return error


def _without_secret(headers: Headers, body: bytes, secret: str) -> tuple[Headers, bytes]:
    """Blot the credential out of an answer; one of a few letters is none, and would blot words."""
    if len(secret) < MIN_SECRET:
        return headers, body
    return headers.without(secret), body.replace(secret.encode(), REDACTED.encode())
