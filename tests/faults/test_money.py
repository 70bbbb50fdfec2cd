"""Rows 1, 2, 3, 5, 7, 8, 9 of the fault matrix: what is sent again, and what never is."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import TYPE_CHECKING

import anyio
import pytest
from conftest import on_both_loops, until
from raw_server import (
    GOOD_BODY,
    Conversation,
    RawServer,
    http,
    say,
)

from prodia_async import (
    APITimeoutError,
    AsyncProdia,
    CapacityError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    MalformedResponseError,
    RetryPolicy,
    ServerError,
    TruncatedResponseError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PING = {"type": "inference.ping.v1"}
FAST = RetryPolicy(backoff_initial=0.01, backoff_max=0.02)
TOKEN = "secret-token-of-many-letters"


def client(server: RawServer, **options: object) -> AsyncProdia:
    options.setdefault("retry", FAST)
    return AsyncProdia(TOKEN, base_url=server.url, **options)  # type: ignore[arg-type]


def refusal(*headers: str) -> Callable[[Conversation], None]:
    return say(http("429 Too Many Requests", b"busy", *headers, content_type="text/plain"))


NOW = formatdate(usegmt=True)


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        (["Retry-After: 1"], 1.0),
        (["Retry-After: 0.3"], 0.3),
        (["Retry-After: 0.1", "Retry-After: 0.4"], 0.4),
        (
            ["Date: Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After: Sun, 06 Nov 1994 08:49:38 GMT"],
            1.0,
        ),
        (
            ["Date: Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After: Sunday, 06-Nov-94 08:49:38 GMT"],
            1.0,
        ),
        (["Date: Sun, 06 Nov 1994 08:49:37 GMT", "Retry-After: Sun Nov  6 08:49:38 1994"], 1.0),
        (["Date: " + NOW, "Retry-After: Sun, 06 Nov 1994 08:49:38 GMT"], 0.0),
        *(([f"Retry-After: {odd}"], 0.0) for odd in ("", "-10", "abc", "9" * 35)),
        (["Retry-After: Sun, 06 Nov 100000 08:49:38 GMT"], 0.0),
        ([], 0.0),
    ],
)
@pytest.mark.slow
@on_both_loops
async def test_a_refusal_is_waited_out(headers: list[str], least: float) -> None:
    """A 429 is tried again, never before the server asked (rows 1 and 2)."""
    with RawServer([refusal(*headers)]) as server:
        async with client(server) as prodia:
            began = time.monotonic()
            response = await prodia.job(PING)
            waited = time.monotonic() - began
            assert [each.status_code for each in response.attempts] == [429, 200]
            assert prodia.statistics().in_flight == 0
        assert waited >= least
        assert (len(server.requests), server.charges) == (2, 1)


@on_both_loops
async def test_a_long_retry_after_is_raised_at_once() -> None:
    """A server that asks for a day is not waited for (row 3)."""
    with RawServer([refusal("Retry-After: 86400")]) as server:
        async with client(server) as prodia:
            with pytest.raises(
                CapacityError, match="86400 s and max_retry_after is 120 s"
            ) as caught:
                await prodia.job(PING)
        assert caught.value.retry_after == 86400
        assert not caught.value.may_have_run
        assert (len(server.requests), server.charges) == (1, 0)


@on_both_loops
async def test_capacity_is_bounded_by_time() -> None:
    """A job that is refused for longer than max_capacity_wait says what else may be wrong."""
    with RawServer([refusal("Retry-After: 0.05")] * 50) as server:
        retry = RetryPolicy(max_capacity_wait=0.5)
        async with client(server, retry=retry) as prodia:
            with pytest.raises(CapacityError, match="a wrong job type or token"):
                await prodia.job(PING)
        assert 3 < len(server.requests) < 12
        assert server.charges == 0


@pytest.mark.parametrize("status", ["500 Oh", "502 Bad Gateway", "503 Busy", "504 Late"])
@on_both_loops
async def test_a_server_fault_is_tried_four_times(status: str) -> None:
    """A 5xx is retried with backoff, and the error keeps request id and body (row 5)."""
    page = b"<html><head><style>p{}</style></head><body><h1>Bad\n gateway</h1></body></html>"
    with RawServer([say(http(status, page, content_type="text/html"))] * 4) as server:
        async with client(server) as prodia:
            with pytest.raises(ServerError) as caught:
                await prodia.job(PING)
        error = caught.value
        assert (error.status_code, error.body) == (int(status[:3]), page)
        assert error.request_id == "11111111-2222-4333-8444-555555555555"
        assert error.may_have_run
        assert [bool(each.wait) for each in error.attempts] == [True, True, True, False]
        assert "Bad gateway" in str(error)
        assert len(server.requests) == 4


@on_both_loops
async def test_a_refused_connection_is_retried_and_names_the_host() -> None:
    """A server that is not there is tried again; the message names it, not the token (row 7)."""
    with RawServer() as server:
        url = server.url
    async with AsyncProdia(TOKEN, base_url=url, retry=FAST) as prodia:
        with pytest.raises(ConnectError, match=url.removeprefix("http://")) as caught:
            await prodia.job(PING)
    assert not caught.value.may_have_run
    assert len(caught.value.attempts) == 4
    assert TOKEN not in repr(caught.value) + str(caught.value)


@on_both_loops
async def test_an_unknown_host_is_retried() -> None:
    """A name that does not resolve is a connection that was not made (row 7)."""
    async with AsyncProdia(TOKEN, base_url="https://nowhere.invalid", retry=FAST) as prodia:
        with pytest.raises(ConnectError, match=r"nowhere\.invalid"):
            await prodia.job(PING)


def reset(conversation: Conversation) -> None:
    conversation.charge()
    conversation.reset()


def hang_up(conversation: Conversation) -> None:
    conversation.charge()
    conversation.close()


def reset_in_the_head(conversation: Conversation) -> None:
    conversation.charge()
    conversation.send(http()[:40])
    conversation.reset()


@pytest.mark.parametrize("fault", [reset, hang_up, reset_in_the_head])
@on_both_loops
async def test_a_lost_connection_is_not_tried_again(
    fault: Callable[[Conversation], None],
) -> None:
    """Once the request was sent the job may have run, so it is not sent again (row 8)."""
    with RawServer([fault]) as server:
        async with client(server) as prodia:
            with pytest.raises((ConnectionLostError, MalformedResponseError)) as caught:
                await prodia.job(PING)
            assert prodia.statistics().in_flight == 0
        assert caught.value.may_have_run
        assert "may have run and been charged" in str(caught.value)
        assert (len(server.requests), server.charges) == (1, 1)


@on_both_loops
async def test_a_lost_connection_is_tried_again_when_asked() -> None:
    """With retry_uncertain the caller takes the risk of paying twice, and it is told."""
    with RawServer([reset]) as server:
        retry = RetryPolicy(retry_uncertain=True, backoff_initial=0.01)
        async with client(server, retry=retry) as prodia:
            response = await prodia.job(PING)
        assert [each.fate for each in response.attempts] == ["uncertain", "succeeded"]
        assert (len(server.requests), server.charges) == (2, 2)


@on_both_loops
async def test_a_reset_in_the_body_keeps_what_came() -> None:
    """A connection that breaks within a 200: the job ran, what was whole is kept (row 8)."""

    def fault(conversation: Conversation) -> None:
        conversation.charge()
        conversation.send(http()[:-20])
        time.sleep(0.1)  # let it arrive before the reset overtakes it
        conversation.reset()

    with RawServer([fault]) as server:
        async with client(server) as prodia:
            with pytest.raises(TruncatedResponseError) as caught:
                await prodia.job(PING)
        assert caught.value.job is not None
        assert caught.value.job.config == {"seed": 42}
        assert caught.value.may_have_run
        assert (len(server.requests), server.charges) == (1, 1)


def stall(conversation: Conversation) -> None:
    conversation.charge()
    conversation.stall()


def stall_in_the_body(conversation: Conversation) -> None:
    conversation.charge()
    conversation.send(http()[:-1000])
    conversation.stall()


@on_both_loops
async def test_silence_is_a_timeout_and_not_tried_again() -> None:
    """A server that says nothing for `timeout` seconds may be running the job (row 8)."""
    with RawServer([stall]) as server:
        async with client(server, timeout=0.3) as prodia:
            with pytest.raises(APITimeoutError, match=r"0\.3 s") as caught:
                await prodia.job(PING)
            assert prodia.statistics().in_flight == 0
        assert caught.value.may_have_run
        assert isinstance(caught.value, TimeoutError)
        assert (len(server.requests), server.charges) == (1, 1)


@on_both_loops
async def test_silence_in_the_body_is_a_truncated_answer() -> None:
    """An answer that stops half-way is not complete, and is not asked for again (row 8)."""
    with RawServer([stall_in_the_body]) as server:
        async with client(server, timeout=0.3) as prodia:
            with pytest.raises(TruncatedResponseError, match="fell silent") as caught:
                await prodia.job(PING)
        assert 0 < caught.value.bytes_received < len(GOOD_BODY)
        assert (len(server.requests), server.charges) == (1, 1)


@on_both_loops
async def test_a_stale_connection_is_replaced() -> None:
    """A connection the server closed while it lay idle costs nothing (row 9)."""

    def answer_and_leave(conversation: Conversation) -> None:
        conversation.charge()
        conversation.send(http())
        conversation.close()

    with RawServer([answer_and_leave]) as server:
        async with client(server) as prodia:
            await prodia.job(PING)
            await anyio.sleep(0.1)
            response = await prodia.job(PING)
        assert len(response.attempts) == 1
        assert (len(server.requests), server.charges, server.connections) == (2, 2, 2)


@on_both_loops
async def test_a_deadline_covers_the_waits() -> None:
    """The deadline ends a job that waits out a refusal, and nothing may have been paid."""
    with RawServer([refusal("Retry-After: 30")]) as server:
        async with client(server) as prodia:
            began = time.monotonic()
            with pytest.raises(DeadlineExceededError, match=r"deadline of 0\.3 s") as caught:
                await prodia.job(PING, deadline=0.3)
            assert time.monotonic() - began < 0.3 + 0.1
            assert prodia.statistics().waiting == 0
        assert not caught.value.may_have_run
        assert isinstance(caught.value, TimeoutError)


@on_both_loops
async def test_a_deadline_ends_a_drip() -> None:
    """One byte now and then keeps a connection alive, but not beyond the deadline (row 11)."""

    def drip(conversation: Conversation) -> None:
        conversation.charge()
        for byte in http():
            conversation.send(bytes([byte]))
            if conversation.server.over.wait(0.05):
                return

    with RawServer([drip]) as server:
        async with client(server, deadline=0.5) as prodia:
            began = time.monotonic()
            with pytest.raises(DeadlineExceededError) as caught:
                await prodia.job(PING)
            assert time.monotonic() - began < 0.5 + 0.1
            assert prodia.statistics().in_flight == 0
        assert caught.value.may_have_run
        assert (len(server.requests), server.charges) == (1, 1)


@on_both_loops
async def test_an_unsent_body_is_not_a_charge() -> None:
    """A request that broke before its last byte cannot have run, so it is sent again."""
    from prodia_async import Input

    size = 30_000_000

    async def content() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield bytes(1_000_000)

    def reset_first(conversation: Conversation) -> bool:
        if conversation.number > 1:
            return True
        conversation.read_head()
        conversation.reset()
        return False

    with RawServer(on_connect=reset_first) as server:
        async with client(server) as prodia:
            response = await prodia.job(PING, inputs=[Input(content, size=size)])
        assert [each.fate for each in response.attempts] == ["undelivered", "succeeded"]
        assert (len(server.requests), server.charges) == (1, 1)
        assert len(server.requests[0].body) > size


@on_both_loops
async def test_an_input_that_cannot_be_read_is_the_callers() -> None:
    """An OSError out of the caller's own input is raised as it is, and nothing is sent again."""
    from prodia_async import Input

    async def broken() -> AsyncIterator[bytes]:
        yield b"1"
        raise FileNotFoundError("the caller's own file")

    with RawServer() as server:
        async with client(server) as prodia:
            with pytest.raises(FileNotFoundError, match="the caller's own file"):
                await prodia.job(PING, inputs=[Input(broken, size=10)])
            assert prodia.statistics().in_flight == 0
            await until(lambda: server.connections == 1)
        assert server.requests == []
