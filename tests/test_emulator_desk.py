"""The desk that the emulated APIs share: a third one needs nothing but its own judgements."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from prodia_async.emulator import Behaviour, FireworksBehaviour, Ledger, PlannedReply
from prodia_async.emulator._capacity import Capacity
from prodia_async.emulator._desk import TEXT, Answer, Desk, Visit
from prodia_async.emulator._refusals import Refused
from prodia_async.emulator._script import Script
from prodia_async.emulator._settings import Settings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


def settings() -> Settings:
    return Settings(
        tokens=frozenset({"known"}),
        privileged_types=frozenset(),
        latency=0.0,
        retry_after=2,
        max_upload_bytes=10,
        max_async_jobs=1,
        sync_only_types=frozenset(),
        behaviour=Behaviour(),
        fireworks=FireworksBehaviour(),
    )


class Shouting:
    """An API that shouts back."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.script = Script()
        self.asgi = Starlette(routes=[Route("/shout", self.answer, methods=["POST"])])

    def refusal(self, status: int) -> Refused:
        return Refused(status, f"no: {status}")

    def write_refusal(self, visit: Visit, refused: Refused) -> Answer:
        assert visit.api is self
        return Answer(refused.status, TEXT, refused.text.encode())

    async def answer(self, request: Request) -> Response:
        return await self.desk.answer(self.desk.arrive(Visit, request, self), self.judge)

    async def judge(self, visit: Visit) -> Answer:
        reply = self.desk.planned(visit, self.script)
        if reply is not None:

            async def note() -> None:
                visit.config = {"body": [chunk async for chunk in self.desk.body(visit)]}

            return await self.desk.reply(visit, reply, self.refusal(reply.status), note)
        if not self.desk.authorised(visit):
            raise self.refusal(401)
        body = b"".join([chunk async for chunk in self.desk.body(visit)])
        visit.type = "shout"
        if body == b"bug":
            raise ZeroDivisionError
        workers = self.desk.admit("shout")
        if workers is None:
            raise self.refusal(429)

        async def make() -> bytes:
            return await self.desk.once(body, body.upper)

        try:
            loud, elapsed = await self.desk.work("shout", make)
        finally:
            workers.release()
        await self.desk.look_after(visit, elapsed)
        visit.ran = visit.charged = True
        return Answer(200, TEXT, loud)


@pytest.mark.parametrize(
    ("body", "token", "workers", "status", "text", "ran"),
    [
        (b"quiet", "known", 1, 200, "QUIET", True),
        (b"quiet", "other", 1, 401, "no: 401", False),
        (b"much too long", "known", 1, 413, "no: 413", False),
        (b"quiet", "known", 0, 429, "no: 429", False),
        (b"bug", "known", 1, 500, "internal server error", False),
    ],
)
async def test_a_third_api(
    body: bytes, token: str, workers: int, *, status: int, text: str, ran: bool
) -> None:
    """It says what it makes and how it refuses; all else, the record too, is the desk's."""
    ledger = Ledger(10)
    desk = Desk(settings(), Capacity(workers, {}), ledger)
    transport = httpx.ASGITransport(Shouting(desk).asgi, client=("192.0.2.1", 7))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        response = await client.post(
            "/shout", content=body, headers={"authorization": f"Bearer {token}"}
        )
    desk.close()
    assert (response.status_code, response.text) == (status, text)
    assert response.headers.get("retry-after") == ("2" if status == 429 else None)
    (record,) = ledger
    assert response.headers["x-request-id"] == record.request_id
    assert (record.status, record.ran, record.charged) == (status, ran, ran)
    assert (record.path, record.method, record.client) == ("/shout", "POST", ("192.0.2.1", 7))
    assert (record.error is None) == ran
    assert record.retry_after == response.headers.get("retry-after")


async def test_a_planned_reply_at_a_third_api() -> None:
    """It is charged, noted and worded as the plan and the API have it."""
    ledger = Ledger(10)
    desk = Desk(settings(), Capacity(1, {}), ledger)
    api = Shouting(desk)
    api.script.add(PlannedReply(status=503, charged=True, headers={"Retry-After": "9"}), 1)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(api.asgi), base_url="http://x"
    ) as client:
        response = await client.post("/shout", content=b"quiet")
    desk.close()
    assert (response.status_code, response.text) == (503, "no: 503")
    assert response.headers["retry-after"] == "9"
    (record,) = ledger
    assert (record.planned, record.charged, record.retry_after) == (True, True, "9")
    assert record.config == {"body": [b"quiet", b""]}


async def test_nothing_new_begins_at_a_desk_that_closes() -> None:
    """What is asked of it then is refused with 503, and who waits is let go."""
    desk = Desk(settings(), Capacity(1, {}), Ledger(10))
    desk.settings.held = True

    async def make() -> str:
        return "made"

    held = asyncio.create_task(desk.work("shout", make))
    await asyncio.sleep(0)
    desk.close()
    for waiting in (held, desk.off_loop(lambda: 1), desk.once("key", lambda: 1)):
        with pytest.raises(Refused) as refused:
            await waiting
        assert refused.value.status == 503
    assert not desk.working
