"""The app's tests; each async one runs under pytest-asyncio or anyio, as the run says."""

import os
import time

import app
import pytest

if os.environ["MODE"] == "anyio":
    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(request):
        return request.param

elif os.environ["MODE"] == "asyncio":
    pytestmark = pytest.mark.asyncio


async def test_a_busy_server(prodia):
    began = time.monotonic()
    prodia.emulator.fail_next(2, 429, retry_after=30)
    picture = await app.make("a cat", client=prodia.client)
    assert picture.startswith(b"\xff\xd8")
    assert [each.config["prompt"] for each in prodia.emulator.jobs] == ["a cat"]
    assert prodia.waited >= 60
    assert time.monotonic() - began < 5


async def test_an_app_with_a_client_of_its_own(prodia):
    prodia.emulator.fail_next(1, 503)
    assert await app.make_with_own_client("a cat")
    assert 0 < prodia.waited < 1


async def test_what_a_person_reads(prodia):
    prodia.emulator.fail_next(1, 429, retry_after=3600)
    assert await app.tell("a cat", client=prodia.client) == "busy, again in 3600 s"


async def test_the_wrong_way_is_found(prodia):
    prodia.emulator.fail_next(1, 429, retry_after=3600)
    assert await app.tell_wrongly("a cat", client=prodia.client) != "done"
