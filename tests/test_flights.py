"""
Each decision on the path of one request, with everything around it played: no socket, no waiting.

What crosses a real socket is in test_engine.py. Here a sender answers out of a list, the scheduler
is watched, and time stands still unless a test moves it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import warnings
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import anyio
import pytest
import tenacity
from conftest import on_both_loops

from prodia_async import _engine as engine_module
from prodia_async._admission import Held
from prodia_async._attempts import Attempt, Timing
from prodia_async._engine import Engine
from prodia_async._errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CapacityError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    JobFailedError,
    MalformedResponseError,
    ProdiaError,
    QueueFullError,
    ServerError,
    TruncatedResponseError,
)
from prodia_async._hooks import AttemptDetails, JobDetails
from prodia_async._retry import RetryBudget, RetryPolicy
from prodia_async._retry import retrying as _retrying
from prodia_async._scheduler import Scheduler, Ticket
from prodia_async._sessions import Unfinished
from prodia_async._vocabulary import Terms, Vocabulary
from prodia_async._waiting import skip_waiting
from prodia_async._wire import Headers, WireRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

TOKEN = "secret-token-of-many-letters"
REQUEST = WireRequest("POST", "/job", (), (("x-own", "1"),), None, "a.type")
AT_ONCE = RetryPolicy(backoff_initial=0.0)


class Reply:
    """An answer: its body out of a list, a wait for ever where that says so."""

    def __init__(
        self, status: int = 200, *body: bytes, on_close: Exception | None = None, **headers: str
    ) -> None:
        self.status_code = status
        self.headers = Headers([(name.replace("_", "-"), each) for name, each in headers.items()])
        self.body = list(body)
        self.asked = self.closed = 0
        self.on_close = on_close

    @property
    def request_id(self) -> str | None:
        return self.headers.get("x-request-id")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        self.asked += 1
        await anyio.lowlevel.checkpoint()
        if not self.body:
            raise StopAsyncIteration
        chunk = self.body.pop(0)
        if chunk == b"for ever":
            await anyio.sleep_forever()
        return chunk

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed += 1
        if self.on_close is not None:
            raise self.on_close


class Sender:
    """Answers out of a list: replies, errors to raise, functions to be called; then well."""

    def __init__(self, steps: tuple[Any, ...]) -> None:
        self.steps = list(steps)
        self.sent: list[tuple[WireRequest, str, float]] = []
        self.sending: Any = None
        self.closed = self.abandoned = 0
        self.on_close: Exception | None = None

    async def send(
        self, request: WireRequest, authorization: str, sending: Any, timeout: float
    ) -> Any:
        self.sent.append((request, authorization, timeout))
        self.sending = sending
        await anyio.lowlevel.checkpoint()
        step = self.steps.pop(0) if self.steps else Reply(200, x_request_id="r-good")
        if callable(step):
            step = await step(sending)
        if isinstance(step, BaseException):
            raise step
        return step

    async def aclose(self) -> None:
        self.closed += 1
        if self.on_close is not None:
            raise self.on_close

    def abandon(self) -> None:
        self.abandoned += 1


async def never(sending: Any) -> None:
    """Let the server have all of it, and say nothing."""
    sending.may_have_run = True
    sending.stage = "running"
    await anyio.sleep_forever()


class Words(Vocabulary[str]):
    """A vocabulary that can be told what to do."""

    def __init__(self, *, read: Any = None, error: Any = None, dollars: float = 0.25) -> None:
        self.on_read = read
        self.on_error = error
        self.price = dollars
        self.forgot = 0
        self.errors: list[tuple[Any, Any, bytes]] = []

    async def read(self, reply: Any) -> str:
        if isinstance(self.on_read, BaseException):
            raise self.on_read
        return "read" if self.on_read is None else await self.on_read(reply)

    async def read_error(self, reply: Any, headers: Any, blot: Any) -> ProdiaError | None:
        self.errors.append((reply, headers, blot(f"it was {TOKEN}!".encode())))
        found: ProdiaError | None = None if self.on_error is None else await self.on_error()
        return found

    def partial(self) -> Any:
        return {"job_id": "j-1"}

    def dollars(self) -> float:
        return self.price

    def forget(self) -> None:
        self.forgot += 1


def terms(**options: Any) -> Terms:
    async def authorize() -> str:
        return f"Bearer {TOKEN}"

    given: dict[str, Any] = {
        "authorize": authorize, "retry": AT_ONCE, "deadline": None, "timeout": 5.0, "hook": None,
    }  # fmt: skip
    return Terms(**(given | options))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class World(SimpleNamespace):
    engine: Engine
    sender: Sender
    scheduler: Scheduler
    clock: Clock

    async def run(self, words: Words | None = None, **options: Any) -> Any:
        with anyio.fail_after(10):  # rather than hang where something is broken
            return await self.engine.run(REQUEST, words or Words(), terms(**options))

    async def begin(self, words: Words | None = None, **options: Any) -> Any:
        return await self.engine.begin(REQUEST, words or Words(), terms(**options))

    async def failure(self, words: Words | None = None, **options: Any) -> Any:
        with pytest.raises(ProdiaError) as caught:
            await self.run(words, **options)
        return caught.value

    def counts(self) -> tuple[int, int, int, float]:
        found = self.engine.statistics()
        return found.completed, found.failed, found.cancelled, found.dollars


@contextlib.asynccontextmanager
async def world(*steps: Any, still: bool = True, **options: Any) -> AsyncGenerator[World, None]:
    """An engine over a played sender; its clock stands still, but where time is skipped."""
    sender = Sender(steps)
    scheduler = Scheduler(**options)

    def make_sender() -> Any:
        return sender

    engine = Engine(make_sender=make_sender, make_scheduler=lambda: scheduler)
    session = engine.session()
    clock = Clock()
    if still:
        session.clock = scheduler.clock = clock
    try:
        yield World(engine=engine, sender=sender, scheduler=scheduler, clock=clock)
    finally:
        await engine.aclose()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the scheduler was told of each attempt."""
    calls: list[tuple[Any, ...]] = []
    release, trouble, refuse = Scheduler.release, Scheduler.trouble, Scheduler.refuse

    def on_release(self: Scheduler, ticket: Any, *, served: bool, answered: bool) -> None:
        calls.append(("released", served, answered))
        release(self, ticket, served=served, answered=answered)

    def on_trouble(self: Scheduler, ticket: Any, what: Any, *, at_once: bool) -> None:
        calls.append(("troubled", what, at_once))
        trouble(self, ticket, what, at_once=at_once)

    def on_refuse(self: Scheduler, ticket: Any, wait: Any, retry_after: Any) -> None:
        calls.append(("refused", wait, retry_after))
        refuse(self, ticket, wait, retry_after)

    monkeypatch.setattr(Scheduler, "release", on_release)
    monkeypatch.setattr(Scheduler, "trouble", on_trouble)
    monkeypatch.setattr(Scheduler, "refuse", on_refuse)
    return calls


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Held | None], list[tuple[Any, ...]]]:
    """Have the scheduler say why nothing is sent, and note what it was asked about."""

    def say(held: Held | None) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []

        def answer(self: Scheduler, job_type: str, credential: Any = None) -> Held | None:
            calls.append((job_type, credential))
            return held

        monkeypatch.setattr(Scheduler, "held", answer)
        return calls

    return say


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Have tickets say whether they may start, and note until when they were to wait."""

    def play(*answers: bool) -> list[float]:
        calls: list[float] = []
        left = list(answers)
        start = Ticket.start

        async def answer(self: Ticket, until: float = 0.0) -> bool:
            calls.append(until)
            return await start(self) if not left or left.pop(0) else False

        monkeypatch.setattr(Ticket, "start", answer)
        return calls

    return play


# ------------------------------------------------------------------ the ends of a request


@on_both_loops
async def test_a_request_that_goes_well(told: list[tuple[Any, ...]]) -> None:
    """What was sent, what came, and what was counted; the answer's words are let go."""
    readings: list[Any] = []

    async def read(reply: Any) -> str:
        readings.append(reply)
        return "read"

    words = Words(read=read)
    reply = Reply(200, x_request_id="r-1")
    async with world(reply) as w:
        value, finished = await w.run(words)
        assert readings == [reply]
        assert w.sender.sent == [(REQUEST, f"Bearer {TOKEN}", 5.0)]
        assert TOKEN not in repr(w.sender.sent[0][1])
        assert w.counts() == (1, 0, 0, 0.25)
    assert value == "read"
    assert (finished.request_id, finished.headers) == ("r-1", reply.headers)
    assert finished.attempts == (Attempt(1, "succeeded", 200, "r-1", 0.0),)
    assert finished.timing == Timing(0, 0, 0, 0)
    assert told == [("released", True, True)]
    assert (words.forgot, reply.closed) == (1, 1)


@pytest.mark.parametrize("own", [True, False])
@on_both_loops
async def test_whose_error_it_was(own: bool, told: list[tuple[Any, ...]]) -> None:
    """A reader's own is none of the request's: that came to a good end, and is told to nobody."""
    details: list[AttemptDetails] = []
    async with world() as w:
        exchange = await w.begin(hook=details.append)
        finished = await exchange.end(KeyError("x"), own=own)
        assert w.counts() == ((0, 1, 0, 0.25), (1, 0, 0, 0.25))[own is False]
    assert finished.attempts[-1].fate == ("ran" if own else "succeeded")
    assert (details[-1].error is None) is (not own)  # type: ignore[attr-defined]
    assert told == [("released", True, True)]


@on_both_loops
async def test_an_exchange_ends_badly_by_its_own_fault_unless_told() -> None:
    """Nobody has to say so."""
    async with world() as w:
        exchange = await w.begin()
        await exchange.end(KeyError("x"))
        assert w.counts() == (0, 1, 0, 0.25)


@on_both_loops
async def test_a_cancellation_is_no_failure() -> None:
    """Whatever it is called; and a reader's own is none at all."""
    async with world() as w:
        for own, counts in [(True, (0, 0, 1, 0.25)), (False, (1, 0, 1, 0.5))]:
            exchange = await w.begin()
            await exchange.end(KeyboardInterrupt(), own=own)
            assert w.counts() == counts


@on_both_loops
async def test_a_price_below_nothing_is_none() -> None:
    """The sum of what was spent never shrinks."""
    async with world() as w:
        await w.run(Words(dollars=-5.0))
        assert w.counts() == (1, 0, 0, 0.0)


@on_both_loops
async def test_what_is_no_job_of_its_own_is_not_counted() -> None:
    """A step of a job is neither counted nor told as a job; a drain waits for all but questions."""
    details: list[AttemptDetails] = []
    async with world() as w:
        exchange = await w.begin(counted=False, hook=details.append)
        assert len(w.engine.under_way) == 1
        await exchange.end()
        assert w.engine.under_way == {}
        exchange = await w.begin(counted=False, free=True, hook=details.append)
        assert w.engine.under_way == {}
        await exchange.end()
        assert w.counts() == (0, 0, 0, 0.0)
    assert [each.event for each in details] == ["started", "finished"] * 2


@on_both_loops
async def test_a_slot_that_was_given_back_early_is_not_given_back_again(
    told: list[tuple[Any, ...]],
) -> None:
    """The worker was free then, whatever the reader came to."""
    async with world() as w:
        exchange = await w.begin()
        exchange.give_back()
        exchange.give_back()
        assert told == [("released", True, True)]
        await exchange.end()
    assert told == [("released", True, True)]


@on_both_loops
async def test_a_good_answer_is_closed_as_its_reader_wants() -> None:
    """Whoever is cancelled meanwhile does not wait for it; it counts as cancelled all the same."""
    reply = Reply()
    async with world(reply) as w:
        with anyio.CancelScope() as scope:

            async def read(_: Any) -> str:
                scope.cancel()
                return ""

            await w.run(Words(read=read))
        assert scope.cancelled_caught
        assert reply.closed == 0
        assert w.engine.under_way == {}


@on_both_loops
async def test_a_bad_answer_is_closed_whatever_comes() -> None:
    """A cancellation while it is read does not leave a connection half closed."""
    reply = Reply()
    async with world(reply) as w:
        with anyio.CancelScope() as scope:

            async def read(_: Any) -> str:
                scope.cancel()
                await anyio.sleep_forever()
                return ""

            await w.run(Words(read=read))
        assert scope.cancelled_caught
        assert w.counts() == (0, 0, 1, 0.25)
    assert reply.closed == 1


@on_both_loops
async def test_an_answer_that_cannot_be_closed_is_counted_all_the_same() -> None:
    """The slot comes back, and the error goes to the caller."""
    async with world(Reply(200, on_close=OSError("x"))) as w:
        with pytest.raises(OSError, match="x"):
            await w.run()
        assert w.engine.statistics().in_flight == 0
        assert w.counts() == (1, 0, 0, 0.25)


# ------------------------------------------------------------------ what is left, and closing


@on_both_loops
async def test_what_is_told_of_the_unfinished() -> None:
    """Its names; whether it may have run: handed over, answered, or so in an earlier attempt."""
    seen: list[Unfinished] = []

    async def look(sending: Any) -> Any:
        (flight,) = w.engine.under_way
        for sending.may_have_run in (False, True):
            seen.append(flight.unfinished())
        sending.may_have_run = False
        return ServerError("x", status_code=500)

    async def again(_: Any) -> Any:
        (flight,) = w.engine.under_way
        seen.append(flight.unfinished())
        return Reply()

    async def read(_: Any) -> str:
        (flight,) = w.engine.under_way
        seen.append(flight.unfinished())
        return ""

    def hook(details: AttemptDetails) -> None:
        if details.event == "waiting":  # nothing is handed over to anybody now
            (flight,) = w.engine.under_way
            seen.append(flight.unfinished())

    async with world(look, again) as w:
        terms_of_one = terms(index=3, tag="mine", hook=hook)
        flight = w.engine.flight(REQUEST, Words(read=read), terms_of_one)
        seen.append(flight.unfinished())
        await flight.run()
        flight = w.engine.flight(REQUEST, Words(read=read), terms())
        await flight.run()  # answered at once, and nothing before
    assert seen[0] == Unfinished("a.type", 3, "mine", may_have_run=False)
    assert [each.may_have_run for each in seen] == [False] * 2 + [True] * 5


@on_both_loops
async def test_an_engine_that_was_not_closed_says_so() -> None:
    """Its connections are given up; one that was closed, or never used, or half made, is silent."""
    sender = Sender(())

    def make() -> Engine:
        return Engine(make_sender=lambda: sender, make_scheduler=Scheduler)  # type: ignore[arg-type, return-value]

    engine = make()
    engine.session()
    with pytest.warns(ResourceWarning) as warned:
        engine.__del__()
    assert [str(each.message) for each in warned] == [
        "a client was not closed: use `async with`, or `await client.aclose()`"
    ]
    assert warned[0].source is engine
    assert sender.abandoned == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.__del__()  # nothing is left to give up
        make().__del__()
        Engine.__new__(Engine).__del__()
        closed = make()
        closed.session()
        await closed.aclose()
        closed.__del__()
    assert (sender.abandoned, sender.closed) == (1, 1)
    del warned, engine
    gc.collect()


@on_both_loops
async def test_closing() -> None:
    """Once: the connections of this loop in good order; others' are given up, come what may."""
    async with world() as w:
        w.sender.on_close = OSError("x")
        soon: list[Any] = []
        other = SimpleNamespace(
            sender=Sender(()), scheduler=Scheduler(), closed=False, soon=soon.append
        )
        w.engine._sessions._open["another loop"] = other  # type: ignore[assignment]
        with pytest.raises(OSError, match="x"):
            await w.engine.aclose()
        assert w.engine.closed
        assert w.scheduler.closed
        assert (w.sender.closed, w.sender.abandoned, other.sender.abandoned) == (1, 0, 1)
        assert soon == [other.scheduler.close]
        await w.engine.aclose()
        assert await w.engine.drain() == ()
        assert (w.sender.closed, other.sender.abandoned) == (1, 1)
        with pytest.raises(RuntimeError, match="closed"):
            w.engine.session()
        with pytest.raises(ConnectError, match="closed"):
            await w.run()
        with pytest.raises(ConnectionLostError, match="asks no more"):
            await w.run(counted=False, free=True)


@on_both_loops
async def test_closing_in_a_loop_without_a_session() -> None:
    """There is nothing of its own to close."""
    sender = Sender(())
    engine = Engine(make_sender=lambda: sender, make_scheduler=Scheduler)  # type: ignore[arg-type, return-value]
    soon: list[Any] = []
    other = SimpleNamespace(sender=sender, scheduler=Scheduler(), closed=False, soon=soon.append)
    engine._sessions._open["another loop"] = other  # type: ignore[assignment]
    await engine.aclose()
    assert (sender.closed, sender.abandoned) == (0, 1)


@on_both_loops
async def test_draining() -> None:
    """No new jobs, but questions; sources stop; only what was sent is waited for."""
    async with world(never, max_concurrency=1, still=False) as w:
        stopped: list[bool] = []
        w.scheduler.stop_sources = lambda: stopped.append(True)  # type: ignore[method-assign]
        assert not w.engine.is_draining
        left: list[tuple[Unfinished, ...]] = []
        refused: list[str] = []
        closed: list[bool] = []
        async with anyio.create_task_group() as group:

            async def run(index: int) -> None:
                try:
                    await w.run(index=index)
                except ConnectError as error:
                    refused.append(error.message)
                    closed.append(w.engine.closed)

            for index in range(2):
                group.start_soon(run, index)
                await anyio.wait_all_tasks_blocked()

            async def drain() -> None:
                left.append(await w.engine.drain(0.1))

            group.start_soon(drain)
            await anyio.wait_all_tasks_blocked()
            assert w.engine.is_draining
            assert stopped == [True]
            with pytest.raises(
                ConnectError,
                match=r"^the client is draining and takes no new jobs; this was not sent$",
            ) as caught:
                await w.run()
            assert caught.value.client_is_closing
            assert not w.engine.closed
            await w.run(counted=False, free=True)
            with anyio.fail_after(5):
                while not left:
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    assert [[(each.index, each.may_have_run) for each in one] for one in left] == [[(0, True)]]
    assert closed == [False]  # whoever was not sent is told before the connections go
    assert refused == ["the client was closed before this job was sent"]
    assert w.sender.closed == 1


@on_both_loops
async def test_a_drain_waits_for_what_was_sent() -> None:
    """It returns when that has ended, and nothing was left."""

    async def slow(_: Any) -> Any:
        await anyio.sleep(0.1)
        return Reply()

    async with world(slow, still=False) as w:
        found: list[Any] = []

        async def run() -> None:
            found.append(await w.run())

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            assert await w.engine.drain(5) == ()
            assert len(found) == 1


@on_both_loops
async def test_a_drain_tells_of_a_job_that_waits_out_a_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was sent, and is sent no more; that it ends before the connections go hides it not."""
    monkeypatch.setattr(engine_module, "DRAIN_LOOK_SECONDS", 0.001)
    async with world(CapacityError("busy", status_code=429, retry_after=60.0), still=False) as w:
        async with anyio.create_task_group() as group:

            async def run() -> None:
                with pytest.raises(ConnectError):
                    await w.run(index=5)

            group.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            w.engine.flight(REQUEST, Words(), terms())  # whom the drain waits for meanwhile
            left = await w.engine.drain(0.05)
    assert [(each.index, each.may_have_run) for each in left] == [(5, False)]


@on_both_loops
async def test_a_drain_that_is_overtaken_by_a_close() -> None:
    """It ends with it, and tells what the close cut off."""
    async with world(never, still=False) as w:
        left: list[tuple[Unfinished, ...]] = []

        async def drain() -> None:
            left.append(await w.engine.drain())

        async with anyio.create_task_group() as group:
            group.start_soon(partial(w.run, index=3))
            await anyio.wait_all_tasks_blocked()
            group.start_soon(drain)
            await anyio.sleep(0.05)
            await w.engine.aclose()
            with anyio.fail_after(5):
                while not left:
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    assert [[(each.index, each.may_have_run) for each in one] for one in left] == [[(3, True)]]


@on_both_loops
async def test_a_job_that_waited_while_its_client_drained_is_not_sent(
    starts: Callable[..., list[float]],
) -> None:
    """Unless it was sent before: then it goes on; and a question always does."""
    starts()

    async def drain(_: Any) -> Any:
        w.engine.is_draining = True
        return ServerError("x", status_code=500)

    async with world(drain) as w:
        flight = w.engine.flight(REQUEST, Words(), terms())
        again = w.engine.flight(REQUEST, Words(), terms())
        step = w.engine.flight(REQUEST, Words(), terms(counted=False))
        question = w.engine.flight(REQUEST, Words(), terms(counted=False, free=True))
        assert not flight.was_sent
        await flight.run()
        assert flight.was_sent
        for each in (again, step):
            with pytest.raises(
                ConnectError, match=r"^the client is draining, and this job was not"
            ) as c:
                await each.run()
            assert c.value.client_is_closing
            assert not each.was_sent
        await question.run()
        assert len(w.sender.sent) == 3


@on_both_loops
async def test_a_closed_client_gives_no_place_in_line() -> None:
    """A job was not sent, and may be sent elsewhere; a question is about one that is paid for."""
    async with world() as w:
        await w.engine.aclose()
        with pytest.raises(
            ConnectError, match=r"^the client was closed before this job was sent$"
        ) as job:
            w.engine.flight(REQUEST, Words(), terms())
        assert job.value.client_is_closing
        assert not job.value.may_have_run
        with pytest.raises(
            ConnectionLostError, match=r"^the client was closed, and asks no more\b"
        ) as question:
            w.engine.flight(REQUEST, Words(), terms(counted=False, free=True))
        assert question.value.may_have_run
        assert w.engine.under_way == {}
        assert w.sender.sent == []


@on_both_loops
async def test_a_job_that_waited_while_its_client_closed_is_not_sent() -> None:
    """It says so, and is not tried again."""
    async with world() as w:
        flight = w.engine.flight(REQUEST, Words(), terms())
        flight._session.closed = True
        with pytest.raises(
            ConnectError, match=r"^the client was closed before this job was sent$"
        ) as caught:
            await flight.run()
        assert caught.value.client_is_closing
        assert not caught.value.may_have_run
        assert w.sender.sent == []


@on_both_loops
async def test_draining_does_not_wait_for_who_does_not_hear(patience: list[float]) -> None:
    """A job that was never sent, and whose thread is slow to tell it so, for a second."""
    async with world() as w:
        w.engine.flight(REQUEST, Words(), terms())
        assert await w.engine.drain(0.01) == ()
        assert w.engine.closed
    assert patience == [0.01, 1.0]


@on_both_loops
async def test_a_place_in_line() -> None:
    """By the type of the request; one of a source is the source's, and not held to a bound."""
    async with world(max_concurrency=1) as w:
        exchange = await w.begin()
        assert list(w.engine.statistics().limits) == ["a.type"]
        with pytest.raises(QueueFullError, match="max_queued is 0"):
            await w.run(max_queued=0)
        source = w.scheduler.source()
        with anyio.move_on_after(0.02) as scope:
            await w.run(max_queued=0, source=source)
        assert scope.cancelled_caught
        await exchange.end()
        before = source.wants_more()
        flights = [
            w.engine.flight(REQUEST, Words(), terms(source=source, max_queued=0)) for _ in range(9)
        ]
        assert (before, source.wants_more()) == (True, False)
        for flight in flights:
            flight._ticket.close()


# ------------------------------------------------------------------ one attempt


@pytest.mark.parametrize(
    ("status", "is_success"), [(199, False), (200, True), (299, True), (300, False)]
)
@on_both_loops
async def test_what_is_a_success(status: int, is_success: bool) -> None:
    """Any 2xx; only such an answer is read, and says that the server takes the type."""
    async with world(Reply(status), still=False) as w:
        session = w.engine.session()
        if is_success:
            assert (await w.run())[0] == "read"
        else:
            error = await w.failure()
            assert isinstance(error, APIStatusError)
            assert error.attempts[-1].status_code == status
        assert (session.accepted("a.type") > 0) is is_success


@on_both_loops
async def test_an_attempt_of_the_callers_own_error(told: list[tuple[Any, ...]]) -> None:
    """A token that cannot be had says nothing of the server; nothing is sent, nor tried again."""

    async def authorize() -> str:
        raise KeyError("no token")

    async with world() as w:
        with pytest.raises(KeyError, match="no token"):
            await w.run(authorize=authorize)
        assert w.sender.sent == []
        assert w.counts() == (0, 1, 0, 0.25)
    assert told == [("released", False, False)]


@on_both_loops
async def test_what_an_attempt_is_remembered_by() -> None:
    """The status, the id, the wish and the class of its error; of an answer, the answer's own."""
    busy = CapacityError("x", status_code=429, request_id="r-1", retry_after=0.0)
    failed = JobFailedError("x", status_code=503, request_id="r-2", fate="server fault")
    lost = ConnectError("x")

    async def later(_: Any) -> Any:
        w.clock.now += 2.0
        return lost

    async with world(busy, failed, later, Reply(202, x_request_id="r-4")) as w:
        fault = TruncatedResponseError("x", request_id=None)
        error = await w.failure(Words(read=fault))
    assert error is fault
    assert error.attempts == (
        Attempt(1, "not run", 429, "r-1", 0.0, 0.0, error="CapacityError"),
        Attempt(2, "server fault", 503, "r-2", 0.0, error="JobFailedError"),
        Attempt(3, "undelivered", None, None, 2.0, error="ConnectError"),
        Attempt(4, "ran", 202, "r-4", 0.0, error="TruncatedResponseError"),
    )
    assert error.request_id == "r-4"
    assert error.may_have_run


@on_both_loops
async def test_a_readers_own_error_gets_no_request_id() -> None:
    """It may come from another request altogether."""
    async with world() as w:
        for own in (True, False):
            exchange = await w.begin()
            error = ProdiaError("x")
            await exchange.end(error, own=own)
            assert error.request_id == ("r-good" if own else None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ServerError("x", status_code=500), ("troubled", "fault", False)),
        (ConnectError("x"), ("troubled", "unreachable", False)),
        (ProdiaError("x", fate="not run"), ("refused", None, None)),
        (CapacityError("x", status_code=429, retry_after=500.0), ("refused", None, 500.0)),
        (BadRequestError("x", status_code=400), ("released", False, True)),
        (ProdiaError("x"), ("released", False, False)),
        (MalformedResponseError("x"), ("released", True, True)),
        (AuthenticationError("x", status_code=401), ("troubled", "unauthorized", False)),
    ],
)
@on_both_loops
async def test_what_the_scheduler_is_told(
    error: ProdiaError, expected: tuple[Any, ...], told: list[tuple[Any, ...]]
) -> None:
    """Each by what it says of the server, whether it answered, and whether a worker is free."""
    async with world(error) as w:
        retry = RetryPolicy(max_attempts=1, max_capacity_wait=0.0)
        assert await w.failure(retry=retry) is error
    assert told == [expected]


@on_both_loops
async def test_an_empty_budget_is_told_to_the_scheduler(told: list[tuple[Any, ...]]) -> None:
    """So that nothing is sent before a probe has succeeded."""
    async with world(ServerError("x", status_code=500)) as w:
        w.engine.budget = RetryBudget(capacity=0)
        w.engine.session().scheduler._rand = lambda: 0.0
        flight = w.engine.flight(REQUEST, Words(), terms())
        with anyio.move_on_after(0.05):
            await flight.run()
    assert told == [("troubled", "fault", True)]


@on_both_loops
async def test_a_question_that_fails_is_asked_once() -> None:
    """It draws nothing, gives its place back, and raises what came."""
    async with world() as w:
        questions = w.engine.session().questions
        budget = w.engine.budget
        budget.tokens = 7.0
        for error in (
            ServerError("x", status_code=500), CapacityError("x", status_code=429),
            BadRequestError("x", status_code=400), ConnectError("x"),
        ):  # fmt: skip
            w.sender.steps.append(error)
            assert await w.failure(free=True, counted=False) is error
            assert questions.borrowed_tokens == 0
        assert len(w.sender.sent) == 4
        await w.run(free=True, counted=False)
        assert budget.tokens == 7.0
        await w.run()
        assert budget.tokens == 8.0


@on_both_loops
async def test_what_retries_drew_comes_back() -> None:
    """All of it, once the job succeeded; and nothing of it before, nor for a failure."""
    fault = ServerError("x", status_code=500)
    async with world(fault, fault) as w:
        budget = w.engine.budget
        budget.tokens = 100.0
        exchange = await w.begin()
        assert budget.tokens == 90.0
        await exchange.end()
        assert budget.tokens == 100.0
        exchange = await w.begin()
        await exchange.end(KeyError("x"))
        assert budget.tokens == 100.0


# ------------------------------------------------------------------ an error's answer


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the engine would wait for an error's answer; it is played for real."""
    seconds: list[float] = []

    def move_on_after(delay: float) -> anyio.CancelScope:
        seconds.append(delay)
        return anyio.move_on_after(min(delay, 0.05))

    its_own = SimpleNamespace(
        move_on_after=move_on_after, CancelScope=anyio.CancelScope, sleep=anyio.sleep
    )
    monkeypatch.setattr(engine_module, "anyio", its_own)
    return seconds


ONCE = RetryPolicy(max_attempts=1)


@pytest.mark.parametrize(
    ("status", "longest"), [(400, 1.0), (403, 1.0), (499, 1.0), (500, 10.0), (503, 10.0)]
)
@on_both_loops
async def test_how_long_an_errors_answer_is_read(
    status: int, longest: float, patience: list[float]
) -> None:
    """A refusal for a second, a fault for ten; what came is on the error, the answer is closed."""
    reply = Reply(status, b"too many", b" steps", b"for ever", content_type="text/plain")
    async with world(reply) as w:
        error = await w.failure(retry=ONCE, timeout=77.0)
    assert patience == [77.0, longest]
    assert (error.body, error.reason, error.status_code) == (
        b"too many steps", "too many steps", status,
    )  # fmt: skip
    assert reply.closed == 1


@on_both_loops
async def test_an_errors_answer_that_says_more(patience: list[float]) -> None:
    """What the vocabulary makes of it is the error, and nothing more is read."""
    found = ServerError("x", status_code=500, fate="ran")

    async def error() -> ProdiaError:
        return found

    reply = Reply(500, b"never read")
    words = Words(error=error)
    async with world(reply) as w:
        assert await w.failure(words) is found
        assert len(w.sender.sent) == 1
    assert patience == [5.0]
    assert (reply.asked, reply.closed, found.fate) == (0, 1, "ran")


@on_both_loops
async def test_an_errors_answer_that_stalls(patience: list[float]) -> None:
    """What it would have said nobody knows, so the job may have run; nothing more is read of it."""

    async def error() -> ProdiaError:
        await anyio.sleep_forever()
        raise AssertionError

    reply = Reply(503, b"never read", x_request_id="r-1")
    async with world(reply) as w:
        found = await w.failure(Words(error=error), timeout=0.05)
        assert len(w.sender.sent) == 1
    assert patience == [0.05]
    assert isinstance(found, ServerError)
    assert (found.fate, found.may_have_run, found.job_id) == ("uncertain", True, "j-1")
    assert (found.body, found.request_id) == (b"", "r-1")
    assert (reply.asked, reply.closed) == (0, 1)


@on_both_loops
async def test_an_errors_answer_is_closed_whatever_comes() -> None:
    """A cancellation does not leave a connection half closed."""
    reply = Reply(500)
    async with world(reply) as w:
        with anyio.CancelScope() as scope:

            async def error() -> ProdiaError:
                scope.cancel()
                await anyio.sleep_forever()
                raise AssertionError

            await w.run(Words(error=error))
        assert scope.cancelled_caught
    assert reply.closed == 1


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [([b"a" * 65_535, b"b", b"c"], 2), ([b"a" * 65_537, b"b"], 1), ([b"a" * 65_535], 2)],
)
@on_both_loops
async def test_how_much_of_an_errors_answer_is_read(pieces: list[bytes], kept: int) -> None:
    """64 KiB, and no piece after that."""
    reply = Reply(400, *pieces)
    async with world(reply) as w:
        error = await w.failure()
    assert error.body == b"".join(pieces)[: 64 * 1024]
    assert reply.asked == kept


@on_both_loops
async def test_an_errors_answer_that_breaks_off() -> None:
    """What came is what there is."""

    class Broken(Reply):
        async def __anext__(self) -> bytes:
            if not self.body:
                raise TruncatedResponseError("broke")
            return self.body.pop()

    async with world(Broken(400, b"so far")) as w:
        assert (await w.failure()).body == b"so far"


@on_both_loops
async def test_a_server_that_echoes_the_token() -> None:
    """It is in no header, body or message, whoever reads the answer."""
    said = f"who is {TOKEN}?"
    echo: dict[str, Any] = {"x_echo": f"<{TOKEN}>", "content_type": "text/plain"}
    words = Words()
    async with world(Reply(400, said.encode(), **echo)) as w:
        error = await w.failure(words)
    ((reply, headers, blotted),) = words.errors
    assert reply.status_code == 400
    assert headers["x-echo"] == "<[token]>"
    assert blotted == b"it was [token]!"
    assert (error.body, error.headers["x-echo"]) == (b"who is [token]?", "<[token]>")
    assert (error.reason, TOKEN in str(error)) == ("who is [token]?", False)


@pytest.mark.parametrize(("secret", "shown"), [("1234567", "1234567"), ("12345678", "[token]")])
@on_both_loops
async def test_a_short_secret_is_a_word(secret: str, shown: str) -> None:
    """A credential of a few letters would blot parts of words."""

    async def authorize() -> str:
        return f"Bearer {secret}"

    async with world(ConnectError(f"no way to x{secret} by {secret}")) as w:
        error = await w.failure(retry=ONCE, authorize=authorize)
    assert error.message == f"no way to x{shown} by [token]"


@pytest.mark.parametrize("scheme", ["", "Bearer ", "Of Two Words "])
@on_both_loops
async def test_what_the_secret_is(scheme: str) -> None:
    """The last word of the header, which may be its only one."""

    async def authorize() -> str:
        return f"{scheme}{TOKEN}"

    async with world(ConnectError(f"no way to {TOKEN}")) as w:
        error = await w.failure(retry=ONCE, authorize=authorize)
    assert error.message == "no way to [token]"


@on_both_loops
async def test_each_attempt_has_its_own_secret() -> None:
    """Without one, nothing is blotted: not even with the one before."""
    tokens = [f"Bearer {TOKEN}", ""]

    async def authorize() -> str:
        return tokens.pop(0)

    async with world(ConnectError("x"), ConnectError(f"at {TOKEN}")) as w:
        error = await w.failure(
            retry=RetryPolicy(max_attempts=2, backoff_initial=0), authorize=authorize
        )
        assert [each[1] for each in w.sender.sent] == [f"Bearer {TOKEN}", ""]
    assert error.message == f"at {TOKEN}"


# ------------------------------------------------------------------ waiting for a server


@pytest.mark.parametrize(
    ("held", "retry_after"),
    [
        (None, None),
        (Held("capacity", None), None),
        (Held("fault", 9e9), None),
        (Held("capacity", 1000.0 + 120.0), None),
        (Held("capacity", 1000.0 + 120.5), 120.5),
    ],
)
@on_both_loops
async def test_a_job_that_would_wait_too_long_fails_now(
    held: Held | None, retry_after: float | None, asked: Callable[..., list[Any]]
) -> None:
    """By max_retry_after, and only where the server said how long it takes none of the type."""
    async with world() as w:
        calls = asked(held)
        if retry_after is None:
            await w.run(credential="whose")
        else:
            error = await w.failure(credential="whose")
            assert isinstance(error, CapacityError)
            assert error.message == (
                "not sent: the server takes no job of this type for another 120 s, as it told one "
                "before, and max_retry_after is 120 s"
            )
            assert (error.status_code, error.retry_after) == (429, retry_after)
            assert (error.attempts, error.may_have_run) == ((), False)
        assert len(w.sender.sent) == (retry_after is None)
    assert calls[0] == ("a.type", "whose")


@on_both_loops
async def test_who_waits_however_long_it_takes(asked: Callable[..., list[Any]]) -> None:
    """A question, which needs no worker; and what a source fetched, since the source waits."""
    async with world() as w:
        asked(Held("capacity", 9e9))
        await w.run(free=True, counted=False)
        await w.run(source=w.scheduler.source())
        assert len(w.sender.sent) == 2


@pytest.mark.parametrize(
    ("held", "kind", "why"),
    [
        (None, CapacityError, "the server had no capacity for this type"),
        (Held("capacity", None), CapacityError, "the server had no capacity for this type"),
        (Held("fault", None), ConnectError, "the server met job after job with a fault"),
        (Held("unreachable", None), ConnectError, "nobody listens at the server's address"),
        (Held("unauthorized", None), ConnectError, "the server takes none with this credential"),
    ],
)
@on_both_loops
async def test_a_job_that_was_never_sent(
    held: Held | None,
    kind: type[ProdiaError],
    why: str,
    asked: Callable[..., list[Any]],
    starts: Callable[..., list[float]],
) -> None:
    """It says how long it waited, and for what; nothing is tried again."""
    starts(False)
    async with world() as w:
        calls = asked(held)
        error = await w.failure(credential="whose", retry=RetryPolicy(max_capacity_wait=77.5))
        assert w.sender.sent == []
        assert w.engine.statistics().queued == 0
    assert type(error) is kind
    assert error.message == (
        f"this was not sent: nothing was sent for 77.5 s (max_capacity_wait), since {why}"
    )
    assert getattr(error, "status_code", 429) == 429
    assert (error.attempts, error.may_have_run) == ((), False)
    assert calls == [("a.type", "whose")] * 2


@on_both_loops
async def test_a_job_that_was_sent_once_and_then_no_more(
    asked: Callable[..., list[Any]], starts: Callable[..., list[float]]
) -> None:
    """The error that it met is raised, and says why it was given up."""
    starts(True, False)
    fault = ServerError("it broke.", status_code=500)
    async with world(fault) as w:
        asked(Held("fault", None))
        error = await w.failure()
    assert error is fault
    assert error.message == (
        "it broke. Given up: nothing was sent for 600 s (max_capacity_wait), since the server met "
        "job after job with a fault"
    )
    assert [each.fate for each in error.attempts] == ["server fault"]


@on_both_loops
async def test_until_when_a_job_waits(starts: Callable[..., list[float]]) -> None:
    """From when the server began to take none; or to be down, while the budget is empty."""
    until = starts()

    def later(error: Exception) -> Any:
        async def step(_: Any) -> Any:
            w.clock.now += 10.0
            if w.engine.budget.tokens < 5:
                # Its gate is closed: what comes next would wait for it.
                w.scheduler.trouble = lambda ticket, *_, **__: Scheduler.release(  # type: ignore[method-assign]
                    w.scheduler, ticket, served=False, answered=True
                )
            return error

        return step

    fault = [ServerError("x", status_code=500) for _ in range(4)]
    lost = ConnectError("x")
    async with world(*map(later, [fault[0], fault[1], lost, fault[2], fault[3]])) as w:
        w.engine.budget = RetryBudget(capacity=5)
        w.engine.budget.cost = 5.0
        await w.run(retry=RetryPolicy(backoff_initial=0.0, max_attempts=9))
    # The first was drawn; the second found the budget empty, at 1020; what was not delivered is
    # another matter, and the fourth finds it empty anew, at 1040.
    assert until == [1600.0, 1610.0, 1620.0, 1620.0, 1640.0, 1640.0]


@on_both_loops
async def test_until_when_a_job_waits_while_others_are_taken(
    starts: Callable[..., list[float]],
) -> None:
    """From when the server last accepted one of the type."""
    until = starts()

    async def later(_: Any) -> Any:
        w.clock.now += 10.0
        w.engine.session().accept("another.type")
        w.clock.now -= 3.0
        w.engine.session().accept("a.type")
        return CapacityError("busy", status_code=429, retry_after=0.0)

    async with world(later) as w:
        await w.run()
    assert until == [1600.0, 1607.0]


@on_both_loops
async def test_a_strategy_sees_the_error() -> None:
    """As tenacity has it: the outcome of the attempt before."""
    seen: list[Any] = []

    def wait(state: tenacity.RetryCallState) -> float:
        assert state.outcome is not None
        seen.append(state.outcome.exception())
        return 0.0

    lost = ConnectError("x")
    async with world(lost) as w:
        await w.run(retry=RetryPolicy(wait=wait))
    assert seen == [lost]


@on_both_loops
async def test_no_doubt_is_taken_back() -> None:
    """A refusal after a fault does not mean that nothing ran."""
    async with world(
        ServerError("x", status_code=500), BadRequestError("no", status_code=400)
    ) as w:
        error = await w.failure()
    assert isinstance(error, BadRequestError)
    assert error.may_have_run


@on_both_loops
async def test_why_a_job_is_given_up() -> None:
    """The policy's reason is told with the error; without one it is left as it was."""
    asks = CapacityError("busy.", status_code=429, retry_after=500.0)
    async with world(asks, BadRequestError("no", status_code=400)) as w:
        error = await w.failure()
        assert error.message == (
            "busy. Given up: the server asks to wait 500 s and max_retry_after is 120 s"
        )
        assert (await w.failure(credential="another")).message == "no"


@on_both_loops
async def test_a_refusal_is_waited_out_in_line_and_a_fault_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ticket keeps a refusal's wait; a fault's is slept."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("prodia_async._waiting.sleep", sleep)
    monkeypatch.setattr(
        "prodia_async._engine.retrying", lambda *a, **k: _retrying(*a, sleep=sleep, **k)
    )
    busy = CapacityError("x", status_code=429, retry_after=3.0)
    async with world(busy, ConnectError("x"), still=False) as w:
        with skip_waiting():
            retry = RetryPolicy(wait=tenacity.wait_fixed(7.0))
            finished = (await w.run(retry=retry))[1]
    assert slept == [0.0, 7.0]
    assert [each.wait for each in finished.attempts][1:] == [7.0, 0.0]
    assert 3.0 <= finished.attempts[0].wait <= 3.75
    assert finished.timing.backoff == 7.0


# ------------------------------------------------------------------ deadlines


@pytest.mark.parametrize(
    ("last", "held", "stage", "retry_after"),
    [
        (None, None, "queued", None),
        (None, Held("capacity", 1003.5), "refused", 3.5),
        (None, Held("capacity", 900.0), "refused", 0.0),
        (None, Held("capacity", None), "refused", None),
        (None, Held("fault", 1000.25), "queued", 0.25),
        (CapacityError("busy", status_code=429), None, "refused", None),
        (CapacityError("busy", status_code=429, retry_after=9.0), None, "refused", 9.0),
        (
            CapacityError("busy", status_code=429, retry_after=9.0), Held("fault", 1001.0),
            "refused", 9.0,
        ),
        (ServerError("oh", status_code=500), None, "queued", None),
        (ConnectError("oh"), Held("unreachable", None), "queued", None),
    ],
)  # fmt: skip
@on_both_loops
async def test_a_deadline_that_passes_between_attempts(
    last: ProdiaError | None,
    held: Held | None,
    stage: str,
    retry_after: float | None,
    *,
    monkeypatch: pytest.MonkeyPatch,
    asked: Callable[..., list[Any]],
) -> None:
    """How far it had come, what the server asked for, and what the attempt before met."""
    others: list[list[Any]] = []

    async def wait(self: Ticket, until: float = 0.0) -> bool:
        if last is not None and not self.attempts:
            return self.request()
        try:
            await anyio.sleep_forever()
            return False
        finally:
            flight._clock = Clock()
            others.append(asked(held))

    monkeypatch.setattr(Ticket, "start", wait)
    asked(None)
    steps = () if last is None else (last,)
    async with world(*steps, still=False) as w:
        flight = w.engine.flight(REQUEST, Words(), terms(deadline=0.1, credential="whose"))
        with pytest.raises(DeadlineExceededError) as caught:
            await flight.within(flight.run)
        assert w.counts() == (0, 1, 0, 0.25)
    error = caught.value
    assert others == [[("a.type", "whose")]]
    assert (error.stage, error.retry_after) == (stage, retry_after)
    assert error.__cause__ is last
    told = "" if last is None else f"; the attempt before: {last.args[0]}"
    where = {
        "queued": "it was waiting for a slot and not with the server",
        "refused": "the server had no capacity for it, and it was not with the server",
    }[stage]
    assert error.message == (
        f"the job did not finish within its deadline of 0.1 s; {where} when it passed{told}"
    )
    assert [each.fate for each in error.attempts] == ([] if last is None else [last.fate])
    assert error.may_have_run is isinstance(last, ServerError)
    assert error.fate == "refused"  # no attempt ended so
    assert error.request_id is None


@on_both_loops
async def test_a_deadline_that_passes_while_an_answer_is_read(
    asked: Callable[..., list[Any]],
) -> None:
    """What was whole is on the error, with the answer's id; the rest is let go of."""

    async def read(_: Any) -> str:
        await anyio.sleep_forever()
        return ""

    words = Words(read=read)
    async with world(Reply(200, x_request_id="r-1"), still=False) as w:
        asked(Held("capacity", 9e9))
        error = await w.failure(words, deadline=0.05, free=True)
    assert (error.stage, error.retry_after) == ("reading", None)
    assert (error.job_id, error.request_id, error.may_have_run) == ("j-1", "r-1", True)
    assert [each.fate for each in error.attempts] == [error.fate] == ["ran"]
    assert words.forgot >= 1


@on_both_loops
async def test_a_deadline_that_passes_between_two_steps_of_a_reader() -> None:
    """The attempt goes on, and the job ran all the same: so it is told inside the block too."""
    async with world(Reply(200, x_request_id="r-1"), still=False) as w:
        flight = w.engine.flight(REQUEST, Words(), terms(deadline=0.05))
        await flight.within(flight.begin)
        with pytest.raises(DeadlineExceededError) as caught:
            await flight.within(anyio.sleep_forever)
        error = caught.value
        assert (error.stage, error.retry_after, error.fate) == ("reading", None, "ran")
        assert (error.request_id, error.may_have_run, error.attempts) == ("r-1", True, ())
        assert "its answer had begun when it passed" in error.message
        await flight.end(error)
    assert [each.fate for each in error.attempts] == ["ran"]


@pytest.mark.parametrize(
    ("stage", "handed_over", "fate"),
    [("connecting", False, "undelivered"), ("sending", False, "undelivered"),
     ("running", True, "uncertain")],
)  # fmt: skip
@on_both_loops
async def test_a_deadline_that_passes_in_an_attempt(
    stage: str, handed_over: bool, fate: str, told: list[tuple[Any, ...]]
) -> None:
    """How far it had come says whether the job may have run; of the server it says nothing."""

    async def stall(sending: Any) -> None:
        sending.stage, sending.may_have_run = stage, handed_over
        await anyio.sleep_forever()

    async with world(stall, still=False) as w:
        error = await w.failure(deadline=0.05)
        assert w.counts() == (0, 1, 0, 0.25)  # it failed: nobody gave it up
    assert (error.stage, error.may_have_run) == (stage, handed_over)
    assert [each.fate for each in error.attempts] == [error.fate] == [fate]
    assert told == [("released", False, False)]


@on_both_loops
async def test_a_deadline_of_which_some_is_gone() -> None:
    """What was spent before counts, and each step takes what is left."""
    async with world(still=False) as w:
        flight = w.engine.flight(REQUEST, Words(), terms(deadline=100.0, spent=99.9))
        await flight.within(_nothing)
        with pytest.raises(DeadlineExceededError, match="deadline of 100 s"):
            await flight.within(anyio.sleep_forever)
        with pytest.raises(DeadlineExceededError):
            await flight.within(lambda: anyio.sleep(0.02))
        flight = w.engine.flight(REQUEST, Words(), terms(deadline=100.0))
        for _ in range(3):
            await flight.within(lambda: anyio.sleep(0.02))
        assert 99.5 < (flight._left or 0.0) < 99.95
        free = w.engine.flight(REQUEST, Words(), terms())
        await free.within(lambda: anyio.sleep(0.01))
        assert free._left is None


@on_both_loops
async def test_a_deadline_that_passes_in_a_step() -> None:
    """The answer's reader takes steps: what it knew then is on the error, before it ends."""
    fault = ServerError("x", status_code=500)
    async with world(fault, still=False) as w:
        exchange = await w.begin(deadline=0.1)
        assert await exchange.within(_one) == 1
        with pytest.raises(DeadlineExceededError) as caught:
            await exchange.within(anyio.sleep_forever)
        assert [each.fate for each in caught.value.attempts] == ["server fault"]
        assert caught.value.may_have_run
        assert caught.value.request_id == "r-good"
        await exchange.end(caught.value)


@on_both_loops
async def test_an_error_that_comes_as_the_deadline_passes() -> None:
    """It is the caller's own, and what is told."""
    details: list[Any] = []

    async def read(_: Any) -> str:
        try:
            await anyio.sleep_forever()
        finally:
            raise KeyError("mine")

    async with world(still=False) as w:
        with pytest.raises(KeyError, match="mine"):
            await w.run(Words(read=read), deadline=0.05, hook=details.append)
    assert type(details[-1].error) is KeyError


async def _one() -> int:
    return 1


async def _nothing() -> None:
    await anyio.lowlevel.checkpoint()


# ------------------------------------------------------------------ what is told


@on_both_loops
async def test_what_a_hook_is_told() -> None:
    """Of the job when it is queued and when it ends, of each attempt, and of each wait."""
    details: list[Any] = []

    def hook(each: AttemptDetails) -> None:
        if each.event == "started":
            w.clock.now += 1.0
            each.headers["x-trace"] = f"{each.number}"
        details.append(each)

    fault = ServerError("x", status_code=500, request_id="r-1")
    async with world(fault, max_concurrency=1) as w:
        await w.run(Words(dollars=0.5), hook=hook, index=4, tag="mine")
        assert [each[0].headers for each in w.sender.sent] == [
            (("x-own", "1"), ("x-trace", "1")), (("x-own", "1"), ("x-trace", "2")),
        ]  # fmt: skip
        assert w.sender.sent[0][0] == replace(REQUEST, headers=w.sender.sent[0][0].headers)
    first = Attempt(1, "server fault", 500, "r-1", 1.0, error="ServerError")
    second = Attempt(2, "succeeded", 200, "r-good", 1.0)
    assert [(each.event, each.number, each.attempt) for each in details] == [
        ("queued", 0, None),
        ("started", 1, None),
        ("finished", 1, first),
        ("waiting", 1, first),
        ("started", 2, None),
        ("finished", 2, second),
        ("finished", 2, second),
    ]
    assert {(each.job_type, each.index, each.tag) for each in details} == {("a.type", 4, "mine")}
    assert len({each.key for each in details}) == 1
    jobs = [each for each in details if isinstance(each, JobDetails)]
    assert [(each.event, each.dollars, each.error, each.seconds) for each in jobs] == [
        ("queued", 0.0, None, 0.0), ("finished", 0.5, None, 2.0),
    ]  # fmt: skip


@on_both_loops
async def test_a_hook_tells_jobs_apart() -> None:
    """By a key that no other has meanwhile; and it is told of errors, and how long each queued."""
    details: list[Any] = []
    async with world(BadRequestError("no", status_code=400)) as w:
        flights = [w.engine.flight(REQUEST, Words(), terms(hook=details.append)) for _ in range(2)]
        for flight, seconds in zip(flights, (1.5, 2.5), strict=True):
            flight._ticket.seconds_queued = seconds
            with contextlib.suppress(BadRequestError):
                await flight.run()
        assert len({each.key for each in details}) == 2
    ends = [each for each in details if isinstance(each, JobDetails)][2:]
    assert [type(each.error) for each in ends] == [BadRequestError, type(None)]
    assert [each.seconds_queued for each in details] == [0, 0, 1.5, 1.5, 1.5, 2.5, 2.5, 2.5]


@on_both_loops
async def test_a_hook_that_adds_nothing_changes_nothing() -> None:
    """The request that is sent is the one that was given."""
    async with world() as w:
        await w.run(hook=lambda _: None)
        assert w.sender.sent[0][0] is REQUEST


@on_both_loops
async def test_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """One line for each attempt, each wait, and what may have been paid and is lost."""
    caplog.set_level(logging.DEBUG, "prodia_async")
    caplog.clear()
    fault = ServerError("x", status_code=500, request_id="r-1", retry_after=0.0)
    retry = RetryPolicy(max_attempts=2, wait=tenacity.wait_fixed(0.0))
    async with world(fault, BadRequestError("no", status_code=400)) as w:
        await w.failure(retry=retry, index=4, tag="mine")
        assert [(each.levelno, each.message) for each in caplog.records] == [
            (logging.DEBUG, "a.type: attempt 1: 500"),
            (logging.INFO, "a.type: attempt 1: 500"),
            (logging.DEBUG, "a.type: attempt 2: 400"),
            (
                logging.WARNING,
                "a.type: it may have been paid for, and its answer is lost: BadRequestError",
            ),
        ]
        names = ("job_type", "index", "tag", "attempt", "fate", "status_code", "request_id", "wait")
        extra = [tuple(getattr(each, name) for name in names) for each in caplog.records]
        assert extra[:2] == [("a.type", 4, "mine", 1, "server fault", 500, "r-1", 0.0)] * 2
        assert extra[2:] == [("a.type", 4, "mine", 2, "refused", 400, None, 0.0)] * 2
        caplog.clear()
        w.sender.steps.append(ServerError("x", status_code=500))
        await w.failure(retry=ONCE, counted=False, free=True)  # a question costs nothing
        assert [each.levelno for each in caplog.records] == [logging.DEBUG]
        caplog.clear()
        w.sender.steps.append(ServerError("x", status_code=500))
        await w.failure(retry=ONCE, counted=False)  # a step of a job does
        assert [each.levelno for each in caplog.records] == [logging.DEBUG, logging.WARNING]
        caplog.clear()
        caplog.set_level(logging.INFO, "prodia_async")
        await w.run()
        assert caplog.records == []


@on_both_loops
async def test_the_log_before_the_first_attempt(
    caplog: pytest.LogCaptureFixture, asked: Callable[..., list[Any]]
) -> None:
    """There is nothing to tell of one, and nothing was paid."""
    caplog.set_level(logging.DEBUG, "prodia_async")
    caplog.clear()
    async with world() as w:
        asked(Held("capacity", 9e9))
        await w.failure()
        flight = w.engine.flight(REQUEST, Words(), terms())
        flight._log(logging.INFO, "%s: %d of %d", None, 1, 2)
    (line,) = caplog.records
    assert line.message == "a.type: 1 of 2"
    names = ("attempt", "fate", "status_code", "request_id", "wait")
    assert [getattr(line, name) for name in names] == [None] * 5


@pytest.mark.parametrize(
    ("wait", "refusals", "warnings"), [(19.9, 1, 0), (20.0, 1, 1), (20.0, 3, 1)]
)
@on_both_loops
async def test_a_long_refusal_is_a_warning(
    wait: float,
    refusals: int,
    warnings: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From half a minute of it on, the wait that follows included; once until one is accepted."""
    caplog.set_level(logging.WARNING, "prodia_async")
    caplog.clear()
    monkeypatch.setattr(RetryPolicy, "_wait", lambda *_: wait)
    start = Ticket.start

    async def at_once(self: Ticket, until: float = 0.0) -> bool:
        w.clock.now += wait if self.attempts else 0.0  # what is waited for has passed
        return await start(self, until)

    async def later(_: Any) -> Any:
        w.clock.now += 10.0
        return CapacityError("busy", status_code=429)

    monkeypatch.setattr(Ticket, "start", at_once)
    async with world() as w:
        for _ in range(2):
            w.sender.steps += [later] * refusals
            await w.run()
    expected = (
        "a.type: refused 1 times, the server takes none of this type; it is tried for 600 s "
        "(max_capacity_wait), and a wrong job type or token can look like this too"
    )
    assert caplog.messages == [expected] * 2 * warnings


# ------------------------------------------------------------------ what an error keeps


@on_both_loops
async def test_what_an_error_lets_go_of() -> None:
    """The frames of ours that it passed through hold nothing, nor does what was collected."""
    played: dict[str, Any] = {
        "__name__": "prodia_async.played",
        "error": TruncatedResponseError("x"),
    }
    exec("async def read(reply):\n    held = reply\n    raise error", played)
    words = Words(read=played["read"])
    async with world() as w:
        error = await w.failure(words)
        assert words.forgot == 1
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_frame.f_globals is not played:
            traceback = traceback.tb_next
        assert traceback is not None
        assert traceback.tb_frame.f_locals == {}
        other = Words()
        exchange = await w.begin(other)
        await exchange.end(KeyError("x"))
        assert other.forgot == 0  # no error of ours: it may be the caller's to keep


@on_both_loops
async def test_an_error_between_two_attempts_keeps_no_frames() -> None:
    """It is kept for a deadline that may pass, and must not keep what it passed through."""
    lost = ConnectionLostError("x", fate="undelivered")

    async def look(_: Any) -> Any:
        assert lost.__traceback__ is None
        return Reply()

    async with world(lost, look) as w:
        await w.run()
