"""
The path of one request: slot, attempts, reply. Not a word of any API's vocabulary.

::

    run                      within its deadline
      begin                  until an answer of success has begun: a Flight
        retrying             decides after each attempt (_retry)
          ticket.start       waits for its turn (_scheduler)
          sender.send        one exchange (_exchange)
          error_for          an error status, in the vocabulary's words
      vocabulary.read        the answer; from here on nothing is sent again
      Flight.end             gives the slot back, counts

A success status means that the job ran, so reading its answer lies outside
the attempts: whatever goes wrong there, sending it again would pay twice.

This module waits and little else. What an attempt came to, and what follows,
is decided by plain functions and objects: `_attempts`, `_retry`, `_verdicts`;
what belongs to which event loop by `_sessions`.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import anyio

from ._attempts import Attempts
from ._errors import CapacityError, ConnectError, DeadlineExceededError, ProdiaError, Stage
from ._hooks import AttemptDetails, JobDetails, headers_of, log, logger, tell
from ._retry import Decision, RetryBudget, retrying
from ._secret import Secret, blotted_data
from ._sessions import FreeTicket, Session, Sessions, UnderWay, Unfinished, goes_on, left_of
from ._statuses import MAX_ERROR_BYTES
from ._verdicts import (
    STAGES,
    WHY_HELD,
    fate_of,
    forget_locals,
    stage_of_attempt,
    status_of,
    trouble_of,
)
from ._vocabulary import Finished, Terms, Vocabulary
from ._waiting import until
from ._wire import Headers, Sending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._attempts import Attempt
    from ._exchange import Reply, Sender
    from ._scheduler import Scheduler, SchedulerStatistics, Ticket
    from ._wire import WireRequest

S = TypeVar("S")
T = TypeVar("T")

ERROR_BODY_SECONDS = 10.0
"""How long the body of a 5xx is read, where its start says all. Chosen."""

REFUSAL_BODY_SECONDS = 1.0
"""How long the body of any other error is read. Chosen: its status says the most of it."""

REFUSED_LONG = 30.0
"""After so many seconds of refusals one warning is logged for the type. Chosen."""

REFUSED = (
    "%s: refused %d times, the server takes none of this type; it is tried for %g s "
    "(max_capacity_wait), and a wrong job type or token can look like this too"
)

DRAIN_LOOK_SECONDS = 0.02
"""How often a drain looks for ends, fifty times of what was not sent (threads are slow). Chosen."""

Event = Literal["started", "finished", "waiting"]


class Engine:
    """
    Runs requests: bounded, retried, within their deadlines.

    Args:
        make_sender: Makes what sends, for the running event loop.
        make_scheduler: Makes a scheduler.

    Attributes:
        budget: What retries of faults draw from.
        under_way: The jobs, and the submissions of such, that have not ended, and whose they are.
        is_draining: Whether no new jobs are taken.
    """

    def __init__(
        self, *, make_sender: Callable[[], Sender], make_scheduler: Callable[[], Scheduler]
    ) -> None:
        self._sessions = Sessions(make_sender=make_sender, make_scheduler=make_scheduler)
        self.budget = RetryBudget()
        self.under_way: dict[UnderWay, Session | None] = {}
        self.is_draining = False
        self._left: tuple[Unfinished, ...] = ()

    def __del__(self) -> None:
        # Half made, it has no sessions.
        sessions: Sessions | None = getattr(self, "_sessions", None)
        if sessions is not None and not sessions.closed and len(sessions):
            warnings.warn(
                "a client was not closed: use `async with`, or `await client.aclose()`",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
            sessions.abandon()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._sessions.closed

    def session(self) -> Session:
        """
        Return what belongs to the running event loop, made on first use.

        Raises:
            RuntimeError: The client was closed, or no event loop runs.
        """
        return self._sessions.current()

    def flight(self, request: WireRequest, vocabulary: Vocabulary[T], terms: Terms) -> Flight[T]:
        """
        Give a request its place in line; nothing is sent yet.

        Raises:
            QueueFullError: As many wait as may.
            ConnectError: The client is draining, or was closed, and takes no new jobs.
            ConnectionLostError: It was closed, and this asks about a job that is paid for.
        """
        if self.closed:
            raise terms.closing("the client was closed before this job was sent")
        if self.is_draining and not terms.free:
            raise terms.closing("the client is draining and takes no new jobs; this was not sent")
        return Flight(self, self._sessions.current(), request, vocabulary, terms)

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

    async def begin(
        self, request: WireRequest, vocabulary: Vocabulary[T], terms: Terms
    ) -> Flight[T]:
        """
        Send one request until an answer of success has begun.

        Returns:
            The flight: read its `reply`, then `end` it, in whatever way it went.

        Raises:
            DeadlineExceededError: It took longer than the deadline.
            ProdiaError: It failed; the attempts are attached.
        """
        flight = self.flight(request, vocabulary, terms)
        await flight.within(flight.begin)
        return flight

    def statistics(self) -> SchedulerStatistics:
        """Return what all sessions do and have done, added up."""
        return self._sessions.statistics()

    async def drain(self, timeout: float | None = None) -> tuple[Unfinished, ...]:
        """
        Take no new jobs, let those that were sent come to their ends, then close.

        Args:
            timeout: Seconds for that; ``None`` for as long as it takes.

        Returns:
            The jobs that were sent and left without an answer; empty where all have ended.
        """
        if self.closed:
            return ()
        self.session()  # of the loop that drains
        self._sessions.stop_sources()
        self.is_draining = True
        await self._until_none(timeout, was_sent=True)
        if not self.closed:  # by another drain, or by somebody who would not wait
            self._left = left_of(self.under_way)
            self.session().scheduler.close()  # whoever waits to be sent is told so now
            await self._until_none(50 * DRAIN_LOOK_SECONDS, was_sent=False)
            await self.aclose()
        return self._left

    async def _until_none(self, seconds: float | None, *, was_sent: bool) -> None:
        with anyio.move_on_after(seconds):
            # They may be other threads' jobs, so they are looked at rather than told of.
            while not self.closed and goes_on(self.under_way, was_sent=was_sent):  # noqa: ASYNC110
                await anyio.sleep(DRAIN_LOOK_SECONDS)

    async def aclose(self) -> None:
        """Close the connections, for good."""
        if self.closed:
            return
        self._left = self._left or left_of(self.under_way)
        mine, others = self._sessions.close()
        try:
            if mine is not None:
                mine.scheduler.close()
                await mine.sender.aclose()
        finally:
            for each in others:
                each.sender.abandon()


class Flight(Generic[T]):
    """One request on its way, from its place in line to its end."""

    __slots__ = (
        "_attempts", "_clock", "_dead_since", "_engine", "_error_at_last", "_gave_back", "_late",
        "_left", "_limit", "_reply", "_request", "_secret", "_sending", "_session", "_stage",
        "_terms", "_ticket", "_tried", "_vocabulary", "was_sent",
    )  # fmt: skip

    def __init__(
        self,
        engine: Engine,
        session: Session,
        request: WireRequest,
        vocabulary: Vocabulary[T],
        terms: Terms,
    ) -> None:
        self._engine = engine
        self._session = session
        self._request = request
        self._vocabulary = vocabulary
        self._terms = terms
        self._clock = session.clock
        self._attempts = Attempts(self._clock())
        self._left = None if terms.deadline is None else terms.deadline - terms.spent
        self._limit: anyio.CancelScope | None = None  # what cuts a step off at the deadline
        self._late: DeadlineExceededError | None = None  # what it ended with, if it was cut off
        self._ticket: Ticket | FreeTicket = (
            FreeTicket(session.questions)
            if terms.free
            else session.scheduler.ticket(
                request.kind,
                terms.source,
                credential=terms.credential,
                max_queued=None if terms.source else terms.max_queued,
            )
        )
        self._sending: Sending | None = None
        self._reply: Reply | None = None
        self._secret = Secret()
        self._stage: Stage | None = None  # of the attempt that was cut off
        self._error_at_last: ProdiaError | None = None  # of the last attempt but this one
        self._dead_since: float | None = None  # since when it waits for an API to come back
        self._tried = False  # whether what was raised came out of an attempt
        self._gave_back = False
        self.was_sent = False
        if not terms.free:
            engine.under_way[self] = session
        if terms.counted and terms.hook is not None:
            tell(terms.hook, self._as_job("queued"))

    def unfinished(self) -> Unfinished:
        sent = self._sending is not None and self._sending.may_have_run
        answered = self._reply is not None
        return Unfinished(
            self._request.kind,
            self._terms.index,
            self._terms.tag,
            sent or answered or self._attempts.may_have_run,
        )

    async def within(self, step: Callable[[], Awaitable[S]]) -> S:
        """
        Do one step within what is left of the deadline.

        What passes between two steps is the reader's own time, and does not count.

        Raises:
            DeadlineExceededError: Nothing was left; the step was cancelled.
        """
        if self._left is None:
            return await step()
        began = self._clock()
        with until(began + self._left) as self._limit:
            try:
                return await step()
            finally:
                self._left -= self._clock() - began
        raise self._late or self._out_of_time() from self._error_at_last

    async def run(self) -> tuple[T, Finished]:
        """Begin, read and end."""
        reply = await self.begin()
        try:
            value = await self._vocabulary.read(reply)
        except BaseException as error:
            await self.end(error)
            raise
        finished = await self.end()
        self._vocabulary.forget()
        return value, finished

    async def begin(self) -> Reply:
        """Make attempts until an answer of success has begun; its body is not read yet."""
        try:
            return await retrying(self._attempt, decide=self._decide)
        except BaseException as error:
            self._finish(error)
            raise

    @property
    def reply(self) -> Reply:
        """The answer that has begun: its status, its headers, its body while it comes."""
        assert self._reply is not None  # noqa: S101  (not before `begin`)
        return self._reply

    def give_back(self) -> None:
        """Give the slot back before the end: the server has finished, the reader has not."""
        if not self._gave_back:
            self._gave_back = True
            self._ticket.released(served=True)

    async def end(self, error: BaseException | None = None, *, own: bool = True) -> Finished:
        """
        Close the reply, give the slot back and count; the last thing that happens.

        Args:
            error: What it ended with.
            own: Whether that is this request's error. What a caller's own
                code raised while it read the answer is not.
        """
        reply = self.reply
        try:
            if error is None:
                await reply.aclose()
            else:
                with anyio.CancelScope(shield=True):
                    await reply.aclose()
        finally:
            finished = self._finish(error, own=own)
        return finished

    async def _attempt(self) -> Reply:
        self._tried = False
        self._check_held()
        since = self._attempts.refused_since if self._dead_since is None else self._dead_since
        until = since + self._terms.retry.max_capacity_wait
        if not await self._ticket.start(until):
            raise self._not_sent()
        if self._session.closed:
            raise self._terms.closing("the client was closed before this job was sent")
        if self._engine.is_draining and not self.was_sent and not self._terms.free:
            raise self._terms.closing("the client is draining, and this job was not sent yet")
        self._tried = self.was_sent = True
        self._attempts.start(self._clock())
        self._sending = Sending()
        request = self._tell("started", None)
        try:
            authorization = Secret(await self._terms.authorize())
            self._secret = Secret(authorization.rpartition(" ")[2])
            reply = await self._session.sender.send(
                request, authorization, self._sending, self._terms.timeout
            )
            if 200 <= reply.status_code < 300:
                self._reply = reply
                self._session.accept(self._request.kind)
                return reply
            raise await self._error_of(reply)
        except Exception as error:
            self._attempt_ended(error, is_undecided=True)
            raise

    def _check_held(self) -> None:
        """
        Fail now what would have to wait too long anyway; what a source fetched waits.

        Raises:
            CapacityError: The server asked all jobs of the type to wait for so long.
        """
        if self._terms.source is not None or self._terms.free:
            return
        held = self._session.scheduler.held(self._request.kind, self._terms.credential)
        if held is None or held.reason != "capacity" or held.until is None:
            return
        left = held.until - self._clock()
        most = self._terms.retry.max_retry_after
        if left > most:
            raise CapacityError(
                f"not sent: the server takes no job of this type for another {left:.0f} s, as it "
                f"told one before, and max_retry_after is {most:g} s",
                status_code=429,
                retry_after=left,
            )

    def _not_sent(self) -> ProdiaError:
        """Return the error for a server that took nothing for as long as we wait."""
        most = self._terms.retry.max_capacity_wait
        held = self._session.scheduler.held(self._request.kind, self._terms.credential)
        why = WHY_HELD[held.reason if held else "capacity"]
        given_up = f"nothing was sent for {most:g} s (max_capacity_wait), since {why}"
        if self._error_at_last is not None:
            return self._error_at_last.tell(besides=f". Given up: {given_up}")
        if held is None or held.reason == "capacity":
            return CapacityError(f"this was not sent: {given_up}", status_code=429)
        return ConnectError(f"this was not sent: {given_up}")

    async def _error_of(self, reply: Reply) -> ProdiaError:
        """Read an error status's answer, as far as it matters, and close it."""
        error: ProdiaError | None = None
        body = bytearray()
        # A server that echoes the request must not put the token into an error.
        headers = reply.headers.without(self._secret)
        blot = partial(blotted_data, secret=self._secret)
        try:
            with anyio.move_on_after(self._terms.timeout) as patience:
                error = await self._vocabulary.read_error(reply, headers, blot)
            if error is None and not patience.cancelled_caught:
                seconds = ERROR_BODY_SECONDS if reply.status_code >= 500 else REFUSAL_BODY_SECONDS
                with anyio.move_on_after(seconds):
                    await _read_start(reply, body)
        finally:
            with anyio.CancelScope(shield=True):
                await reply.aclose()
        if error is None:
            error = self._vocabulary.error_for(reply.status_code, headers, blot(bytes(body)))
        if patience.cancelled_caught:
            # What it would have said nobody knows: perhaps that the job ran.
            error.tell(fate="uncertain", **self._vocabulary.partial())
        return error

    def _attempt_ended(
        self, error: BaseException | None, *, own: bool = True, is_undecided: bool = False
    ) -> None:
        """Record how the attempt ended and give its slot back; only then tell anybody."""
        sending, reply = self._sending, self._reply
        self._sending = None
        sent = sending is not None and sending.may_have_run
        fate = fate_of(error, answered=reply is not None, sent=sent, own=own)
        if sending is not None and error is not None and not isinstance(error, Exception):
            self._stage = stage_of_attempt(sending, answered=reply is not None)
        if reply is not None and own and isinstance(error, ProdiaError):
            error.tell(request_id=reply.request_id)
        attempt = self._attempts.end(
            self._clock(),
            fate,
            status_code=status_of(error) if reply is None else reply.status_code,
            request_id=getattr(error, "request_id", None) if reply is None else reply.request_id,
            retry_after=getattr(error, "retry_after", None),
            error=None if error is None else type(error).__name__,
            accepted=self._session.accepted(self._request.kind),
        )
        # After an error of the attempt's the slot is given back by `_decide`, which knows more.
        if not is_undecided and not self._gave_back:
            self._ticket.released(served=self._attempts.frees_a_worker)
        if logger.isEnabledFor(logging.DEBUG):
            self._log(logging.DEBUG, "%s: attempt %d: %s", attempt)
        self._tell("finished", attempt)

    def _decide(self, error: BaseException) -> float | None:
        if not self._tried or self._session.closed:
            return None  # closing withdraws the ticket, in whatever state
        if not isinstance(error, ProdiaError):
            self._ticket.released(served=False)
            return None
        if self._terms.free:
            self._give_slot_back(error, Decision(None))
            return None
        decision = self._terms.retry.decide(
            self._attempts, self._engine.budget, now=self._clock(), error=error
        )
        if not decision.budget_is_empty:
            self._dead_since = None
        elif self._dead_since is None:
            self._dead_since = self._clock()
        self._give_slot_back(error, decision)
        if decision.wait is None:
            if decision.reason:
                error.tell(besides=f". Given up: {decision.reason}")
            return None
        attempt = self._attempts.waits(decision.wait, drawn=decision.drawn)
        # It is kept for a deadline that passes, and must not keep what it passed through.
        self._error_at_last = error.with_traceback(None)
        self._log(logging.INFO, "%s: attempt %d: %s", attempt)
        self._tell("waiting", attempt)
        if attempt.fate != "not run":
            return decision.wait
        refused = self._clock() + decision.wait - self._attempts.refused_since
        if refused >= REFUSED_LONG and self._session.is_news_of_refusal(self._request.kind):
            most = self._terms.retry.max_capacity_wait
            self._log(logging.WARNING, REFUSED, None, self._attempts.refusals, most)
        # The ticket waits a refusal out, and is first in line then.
        return 0.0

    def _give_slot_back(self, error: ProdiaError, decision: Decision) -> None:
        """Tell the scheduler what the attempt came to, and what comes of it."""
        status_code = status_of(error)
        trouble = trouble_of(error.fate, status_code)
        if error.fate == "not run":
            retry_after = getattr(error, "retry_after", None)
            self._ticket.refused(decision.wait, retry_after=retry_after)
        elif trouble is not None:
            self._ticket.troubled(trouble, budget_is_empty=decision.budget_is_empty)
        else:
            self._ticket.released(
                served=self._attempts.frees_a_worker, answered=status_code is not None
            )

    def _finish(self, error: BaseException | None, *, own: bool = True) -> Finished:
        """Give the slot back and count, whatever happened."""
        try:
            if self._attempts.is_under_way:
                self._attempt_ended(error, own=own)
            if self._is_cut_off(error):
                # Nobody gave it up: whoever counts, is told or reads the log meets what is raised.
                error = self._late = self._out_of_time()
        finally:
            self._ticket.close()
            completed = error is None or not own
            cancelled = not completed and not isinstance(error, Exception)
            dollars = max(0.0, self._vocabulary.dollars())
            self._engine.under_way.pop(self, None)
            if self._terms.counted:
                self._session.scheduler.record(
                    completed=completed, cancelled=cancelled, dollars=dollars
                )
        if completed:
            if not self._terms.free:
                self._engine.budget.succeeded(self._attempts.drawn)
        else:
            self._tell_error(error)
        timing = self._attempts.spent(self._clock())
        if self._terms.hook is not None and self._terms.counted:
            ended = self._as_job("finished", error if own else None, dollars, timing.total)
            tell(self._terms.hook, ended)
        reply = self._reply
        return Finished(
            reply.request_id if reply else None,
            reply.headers if reply else Headers(),
            self._attempts.all,
            timing,
        )

    def _is_cut_off(self, error: BaseException | None) -> bool:
        """Return whether it ends because its own deadline has passed."""
        cut = error is not None and not isinstance(error, Exception)
        return cut and self._limit is not None and self._limit.cancel_called

    def _tell_error(self, error: BaseException | None) -> None:
        """Write on the error what is known, warn of what is lost, and let go of the answer."""
        if isinstance(error, ProdiaError):
            error.tell(attempts=self._attempts.all, may_have_run=self._attempts.may_have_run)
            error.tell(secret=self._secret)
            self._vocabulary.forget()
            forget_locals(error)
        if self._attempts.may_have_run and not self._terms.free:
            self._log(
                logging.WARNING,
                "%s: it may have been paid for, and its answer is lost: %s",
                None,
                type(error).__name__,
            )

    def _out_of_time(self) -> DeadlineExceededError:
        """Return the error for a deadline that passed; what was cut off is recorded already."""
        attempts = self._attempts
        last = attempts.last
        # Between two steps of a reader's nothing has ended yet: the job ran all the same.
        stage: Stage | None = "reading" if self._reply is not None else self._stage
        retry_after = getattr(self._error_at_last, "retry_after", None)
        if stage is None:
            held = self._session.scheduler.held(self._request.kind, self._terms.credential)
            is_busy = held is not None and held.reason == "capacity"
            stage = "refused" if is_busy or (last and last.fate == "not run") else "queued"
            if retry_after is None and held is not None and held.until is not None:
                retry_after = max(0.0, held.until - self._clock())
        why = f"; the attempt before: {self._error_at_last.message}" if self._error_at_last else ""
        error = DeadlineExceededError(
            f"the job did not finish within its deadline of {self._terms.deadline:g} s; "
            f"{STAGES[stage]} when it passed{why}",
            stage=stage,
            retry_after=retry_after,
            attempts=attempts.all,
            request_id=self._reply.request_id if self._reply else None,
            fate="ran" if stage == "reading" else last.fate if last and self._stage else None,
        )
        error.tell(**self._vocabulary.partial())
        self._vocabulary.forget()
        return error

    def _as_job(
        self,
        event: Literal["queued", "finished"],
        error: BaseException | None = None,
        dollars: float = 0.0,
        seconds: float = 0.0,
    ) -> JobDetails:
        return JobDetails(
            event=event,
            job_type=self._request.kind,
            number=len(self._attempts),
            attempt=self._attempts.last,
            seconds_queued=self._ticket.seconds_queued,
            index=self._terms.index,
            tag=self._terms.tag,
            key=id(self),
            dollars=dollars,
            error=error,
            seconds=seconds,
        )

    def _tell(self, event: Event, attempt: Attempt | None) -> WireRequest:
        """Tell the hook; return the request, with the headers that the hook added."""
        if self._terms.hook is not None:
            details = AttemptDetails(
                event=event,
                job_type=self._request.kind,
                number=attempt.number if attempt else self._attempts.number,
                attempt=attempt,
                seconds_queued=self._ticket.seconds_queued,
                index=self._terms.index,
                tag=self._terms.tag,
                key=id(self),
            )
            tell(self._terms.hook, details)
            if event == "started" and details.headers:
                more = headers_of(details)
                return replace(self._request, headers=(*self._request.headers, *more))
        return self._request

    def _log(self, level: int, message: str, attempt: Attempt | None, *more: object) -> None:
        last = attempt or self._attempts.last
        extra = {
            "job_type": self._request.kind,
            "index": self._terms.index,
            "tag": self._terms.tag,
            "attempt": last.number if last else None,
            "fate": last.fate if last else None,
            "status_code": last.status_code if last else None,
            "request_id": last.request_id if last else None,
            "wait": last.wait if last else None,
        }
        about = (attempt.number, attempt) if attempt is not None else more
        log(level, message, self._request.kind, *about, extra=extra)


async def _read_start(reply: Reply, body: bytearray) -> None:
    """Read the start of an error's body into a buffer that outlives whoever cuts us off."""
    with contextlib.suppress(ProdiaError):  # what came is what there is
        async for chunk in reply:
            body += chunk
            if len(body) >= MAX_ERROR_BYTES:
                del body[MAX_ERROR_BYTES:]
                return
