"""The emulator's life, its workers, its ledger and its planned replies."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from PIL import Image

from prodia_async.emulator import CATALOGUE, Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

PING = {"type": "inference.ping.v1"}
TOKEN = "a-token-nobody-may-see"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(workers=1) as emulator:
        yield emulator


def post(emulator: Emulator, job: object = PING, **options: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {TOKEN}", **options.pop("headers", {})}
    return httpx.post(
        f"{emulator.base_url}/v2/job", json=job, headers=headers, verify=False, **options
    )


def raw(emulator: Emulator, body: bytes = b"", length: int | None = None) -> socket.socket:
    """Open a connection and send a JSON job, whole or in part."""
    connection = socket.create_connection(("127.0.0.1", emulator.port), timeout=10)
    connection.sendall(
        b"POST /v2/job HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n"
        b"Content-Type: application/json\r\n"
        + f"Content-Length: {len(body) if length is None else length}\r\n\r\n".encode()
        + body
    )
    return connection


def answer(connection: socket.socket) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    body = response.read()
    response.close()
    return response.status, body


def until_busy(emulator: Emulator, workers: int) -> None:
    while emulator.busy < workers:
        time.sleep(0.001)


# Life.


async def test_in_asyncio() -> None:
    """It starts and stops in a running asyncio loop without holding it up."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    async with Emulator() as emulator, httpx.AsyncClient(verify=False) as client:
        started = ticks
        url, headers = f"{emulator.base_url}/v2/job", {"authorization": "Bearer x"}
        assert (await client.post(url, json=PING, headers=headers)).status_code == 200
        before = ticks
    ticking.cancel()
    assert started > 0
    assert ticks > before


def test_in_trio() -> None:
    """It works the same under trio."""

    async def main() -> int:
        async with Emulator() as emulator, httpx.AsyncClient(verify=False) as client:
            url, headers = f"{emulator.base_url}/v2/job", {"authorization": "Bearer x"}
            return (await client.post(url, json=PING, headers=headers)).status_code

    assert trio.run(main) == 200


def test_start_and_stop_are_quick_and_clean() -> None:
    """Ten lives, with a connection left open in each, take no time and leave no thread."""
    threads = threading.active_count()
    began = time.perf_counter()
    for _ in range(10):
        with Emulator() as emulator, httpx.Client(verify=False) as client:
            headers = {"authorization": "Bearer x"}
            client.post(f"{emulator.base_url}/v2/job", json=PING, headers=headers)
            emulator.stop()
    assert time.perf_counter() - began < 5
    assert threading.active_count() == threads


def test_it_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A whole life, with answers, refusals and a client that leaves, is silent at every level."""
    with caplog.at_level(logging.DEBUG, "uvicorn"), Emulator() as emulator:
        post(emulator)
        post(emulator, {"type": "x"})
        raw(emulator, b"{", length=10).close()
        emulator.ledger.wait_for(lambda totals: totals.abandoned == 1)
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


def test_it_can_start_again() -> None:
    """After its end it has no address; a second life keeps the ledger."""
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="not running"):
        _ = emulator.base_url
    for _ in range(2):
        with emulator:
            assert post(emulator).status_code == 200
            with pytest.raises(RuntimeError, match="already"):
                emulator.start()
    assert len(emulator.ledger) == 2
    assert "stopped" in repr(emulator)


def test_a_port_in_use(emulator: Emulator) -> None:
    """A taken port is one OSError that names it, from every way to start."""
    second = Emulator(port=emulator.port)

    async def main() -> None:
        async with second:
            raise AssertionError

    for start in (second.start, lambda: asyncio.run(main())):
        with pytest.raises(OSError, match=str(emulator.port)):
            start()
    second.stop()


async def test_a_cancelled_start_leaves_nothing_running() -> None:
    """Cancelled while it starts, it stops again."""
    emulator = Emulator()

    async def enter() -> None:
        async with emulator:
            await asyncio.Event().wait()

    task = asyncio.create_task(enter())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(RuntimeError):
        _ = emulator.base_url


def test_stopping_answers_what_is_under_way() -> None:
    """Jobs under way get a 503 and half-sent uploads are cut, so that stopping takes no time."""
    with Emulator(latency=60) as emulator, ThreadPoolExecutor() as pool:
        waiting = pool.submit(post, emulator)
        until_busy(emulator, 1)
        half = raw(emulator, b'{"type":', length=1000)
        emulator.ledger.wait_for(lambda totals: totals.received == 2)
        began = time.perf_counter()
        emulator.stop()
        assert time.perf_counter() - began < 3
        assert waiting.result().status_code == 503
        with half:
            assert closed(half)


def closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1000) == b""
    except ConnectionResetError:
        return True


def test_only_loopback_unless_said() -> None:
    """An address that others can reach is refused until it is asked for twice."""
    for host in ("0.0.0.0", "192.168.1.1", "example.org"):
        with pytest.raises(ValueError, match="allow_remote"):
            Emulator(host=host)
    with Emulator(host="0.0.0.0", allow_remote=True) as emulator:
        assert emulator.base_url == f"http://127.0.0.1:{emulator.port}"
    with Emulator(host="localhost") as emulator:
        assert post(emulator).status_code == 200


def test_mistakes_are_found_when_it_is_made() -> None:
    """A string for tokens and negative workers are errors at once."""
    with pytest.raises(TypeError, match="collection"):
        Emulator(tokens="abc")
    with pytest.raises(ValueError, match="-1"):
        Emulator(workers=-1)
    with pytest.raises(ValueError, match="-2"):
        Emulator(type_workers={"inference.ping.v1": -2})


def test_serve_forever_ends_when_stopped() -> None:
    """The blocking way returns once stop is called from another thread."""
    emulator = Emulator()
    thread = threading.Thread(target=emulator.serve_forever)
    assert emulator.wait(0)
    thread.start()
    while not emulator.running:
        time.sleep(0.001)
    assert not emulator.wait(0)
    emulator.stop()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("missing", ["uvicorn", "PIL", "starlette"])
def test_without_the_extra(missing: str) -> None:
    """A missing dependency is an ImportError that says what to install."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "try:\n    import prodia_async.emulator\n"
        "except ImportError as exc:\n    print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'prodia-async[emulator]'" in done.stdout
    assert missing in done.stdout


# Workers.


def test_no_idle_worker_is_429() -> None:
    """With every worker busy the next job is refused, and taken again once one is idle."""
    with Emulator(workers=2) as emulator, ThreadPoolExecutor() as pool:
        emulator.hold()
        running = [pool.submit(post, emulator) for _ in range(2)]
        until_busy(emulator, 2)
        refused = post(emulator)
        emulator.release()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert [job.result().status_code for job in running] == [200, 200]
        assert post(emulator).status_code == 200
        assert emulator.peak_busy == 2
    totals = emulator.ledger.totals()
    assert (totals.ran, totals.refused, dict(totals.statuses)) == (3, 1, {200: 3, 429: 1})


@pytest.mark.parametrize(
    ("value", "header"),
    [(1.0, "1"), (0, "0"), (1.5, "1.5"), (86400, "86400"), ("soon", "soon"), (None, None)],
)
def test_forms_of_retry_after(
    emulator: Emulator, value: float | str | None, header: str | None
) -> None:
    """Retry-After is written as asked, or left out."""
    emulator.workers = 0
    emulator.retry_after = value
    assert post(emulator).headers.get("retry-after") == header
    assert emulator.ledger[-1].retry_after == header


def test_retry_after_from_a_function(emulator: Emulator) -> None:
    """A function makes each header anew."""
    answers = iter(["1", "2"])
    emulator.workers = 0
    emulator.retry_after = lambda: next(answers)
    assert [post(emulator).headers["retry-after"] for _ in range(2)] == ["1", "2"]


def test_a_wrong_job_is_400_however_busy(emulator: Emulator) -> None:
    """Validation and authentication come before capacity."""
    emulator.workers = 0
    assert post(emulator, {"type": "x"}).status_code == 400
    assert httpx.post(f"{emulator.base_url}/v2/job", json=PING, verify=False).status_code == 401
    assert post(emulator).status_code == 429


def test_capacity_changes_while_it_runs(emulator: Emulator) -> None:
    """Workers come and go at any time."""
    statuses = []
    for workers in (1, 0, 3):
        emulator.set_workers(workers)
        statuses.append(post(emulator).status_code)
    assert statuses == [200, 429, 200]


def test_a_type_with_workers_of_its_own() -> None:
    """A full pool of one type does not stand in the way of the others."""
    banana = {"type": "inference.flux.schnell.txt2img.v1", "config": {"prompt": "x"}}
    with Emulator(workers=1, type_workers={str(banana["type"]): 0}) as emulator:
        assert post(emulator, banana).status_code == 429
        assert post(emulator).status_code == 200
        emulator.set_workers(1, str(banana["type"]))
        emulator.set_workers(0, "inference.ping.v1")
        assert post(emulator, banana).status_code == 200
        assert post(emulator).status_code == 429


@pytest.mark.parametrize("latency", [0.1, (0.1, 0.12), lambda name: 0.1 if "ping" in name else 9])
def test_latency_is_how_long_a_job_takes(latency: Any) -> None:
    """Seconds, a range of seconds, or a function of the type; the metrics agree."""
    with Emulator(latency=latency) as emulator:
        began = time.perf_counter()
        elapsed = post(emulator).json()["metrics"]["elapsed"]
        assert 0.1 <= elapsed <= time.perf_counter() - began


def test_a_client_that_leaves_is_charged() -> None:
    """The worker stays busy until the job is done, and the ledger has a charge nobody saw."""
    with Emulator(workers=1) as emulator:
        emulator.hold()
        connection = raw(emulator, json.dumps(PING).encode())
        until_busy(emulator, 1)
        connection.close()
        assert post(emulator).status_code == 429
        emulator.release()
        emulator.ledger.wait_for(lambda totals: totals.answered == 2)
        record = emulator.ledger[-1]
        assert (record.ran, record.charged, record.client_gone) == (True, True, True)
        assert emulator.busy == 0


def test_a_held_server_can_be_stopped() -> None:
    """Stopping answers the jobs that were held, and charges none of them."""
    with Emulator() as emulator, ThreadPoolExecutor() as pool:
        emulator.hold()
        waiting = pool.submit(post, emulator)
        until_busy(emulator, 1)
        emulator.stop()
        assert waiting.result().status_code == 503
        assert emulator.ledger.totals().charged == 0


def test_a_client_that_leaves_too_early_is_not_charged(emulator: Emulator) -> None:
    """An upload that breaks off is recorded without a status, and costs nothing."""
    raw(emulator, b'{"type":', length=1000).close()
    totals = emulator.ledger.wait_for(lambda totals: totals.answered == 1)
    assert (totals.abandoned, totals.charged) == (1, 0)
    assert emulator.ledger[-1].status is None


def test_equal_jobs_at_once_are_drawn_once_and_charged_each() -> None:
    """Sharing a drawing is a matter of speed only: every job has its own result and charge."""
    job = {"type": "inference.flux.schnell.txt2img.v1", "config": {"prompt": "x", "seed": 1}}
    with Emulator(latency=0.2) as emulator, ThreadPoolExecutor(8) as pool:
        headers = {"accept": "image/webp"}
        bodies = list(pool.map(lambda _: post(emulator, job, headers=headers).content, range(8)))
        assert len(set(bodies)) == 1
        assert len({record.job_id for record in emulator.ledger}) == 8
        assert emulator.ledger.totals().dollars == 0.02


def test_answers_do_not_wait_for_acknowledgements(emulator: Emulator) -> None:
    """Small answers leave at once: with Nagle's algorithm each would take 40 ms."""
    headers = {"authorization": "Bearer x"}
    with httpx.Client(verify=False) as client:
        began = time.perf_counter()
        for _ in range(50):
            client.post(f"{emulator.base_url}/v2/job", json=PING, headers=headers)
    assert time.perf_counter() - began < 1.5


def test_small_jobs_cost_little(emulator: Emulator) -> None:
    """A small job and its client together take at most two milliseconds of CPU time."""
    config = {"prompt": "a fox", "seed": 1, "width": 256, "height": 256}
    body = json.dumps({"type": "inference.flux.schnell.txt2img.v1", "config": config}).encode()
    with raw(emulator, body) as connection:
        assert answer(connection)[0] == 200
        head = f"Content-Length: {len(body)}\r\n\r\n".encode()
        request = b"POST /v2/job HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n" + head + body
        began = time.process_time()
        for _ in range(200):
            connection.sendall(request)
            assert answer(connection)[0] == 200
        # A thousand a second leave one for the emulator alone; it takes about half.
        assert time.process_time() - began < 200 * 0.002


# The ledger.


def test_a_record(emulator: Emulator) -> None:
    """A record tells what came and what became of it."""
    target = io.BytesIO()
    Image.new("RGB", (256, 256), "red").save(target, "PNG")
    job = {"type": "inference.remove-background.v1", "config": {"image": "a.png"}}
    files: list[tuple[str, Any]] = [
        ("job", ("job.json", json.dumps(job), "application/json")),
        ("input", ("a.png", target.getvalue(), "image/png")),
    ]
    response = httpx.post(
        f"{emulator.base_url}/v2/job?price=true",
        files=files,
        headers={"authorization": f"Bearer {TOKEN}", "accept": "image/png", "user-agent": "me"},
        verify=False,
    )
    [record] = emulator.ledger
    assert (record.number, record.status, record.type) == (1, 200, job["type"])
    assert (record.config, record.accept, record.user_agent) == (job["config"], "image/png", "me")
    assert (record.content_type, record.job_filename) == ("multipart/form-data", "job.json")
    assert record.parts == ("job", "input")
    assert (record.price, record.ran, record.charged, record.dollars) == (True, True, True, 0.0025)
    assert record.content_length == int(response.request.headers["content-length"])
    assert record.request_id == response.headers["x-request-id"]
    assert record.seconds > 0
    assert record.error is None
    with pytest.raises(FrozenInstanceError):
        record.status = 500  # type: ignore[misc]  # that it cannot be set is the point


def test_the_ledger_is_bounded_and_its_totals_are_exact() -> None:
    """Old records go, the counts stay; clearing starts anew."""
    with Emulator(max_records=3) as emulator:
        for _ in range(5):
            post(emulator)
        assert [record.number for record in emulator.ledger] == [3, 4, 5]
        assert [record.number for record in emulator.ledger[1:]] == [4, 5]
        totals = emulator.ledger.totals()
        assert (totals.received, totals.charged, dict(totals.types)) == (5, 5, {PING["type"]: 5})
        emulator.ledger.clear()
        assert (len(emulator.ledger), emulator.ledger.totals().received) == (0, 0)


def test_no_token_in_the_ledger() -> None:
    """A token, valid or not, stands in no record and no repr."""
    with Emulator(tokens=[TOKEN]) as emulator:
        post(emulator)
        post(emulator, headers={"authorization": f"Bearer {TOKEN}x"})
        assert [record.status for record in emulator.ledger] == [200, 401]
        assert TOKEN not in repr((emulator, emulator.ledger, list(emulator.ledger)))


def test_waiting_for_the_ledger(emulator: Emulator) -> None:
    """A wait that is never fulfilled ends with an error."""
    with pytest.raises(TimeoutError, match=r"received=0"):
        emulator.ledger.wait_for(lambda totals: totals.received == 1, timeout=0.01)


# Planned replies.


def test_planned_replies_in_order(emulator: Emulator) -> None:
    """Planned errors go to the next requests, one each, and cost nothing."""
    emulator.fail_next(2, 503)
    emulator.fail_next(status=429, retry_after=7)
    emulator.fail_next(status=500, body="<html>", content_type="text/html", headers={"x-a": "b"})
    assert emulator.planned == 4
    answers = [post(emulator) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [503, 503, 429, 500, 200]
    assert answers[0].text == "service unavailable"
    assert answers[2].headers["retry-after"] == "7"
    assert (answers[3].text, answers[3].headers["x-a"]) == ("<html>", "b")
    assert answers[3].headers["content-type"] == "text/html"
    assert emulator.ledger.totals().charged == 1
    assert [record.planned for record in emulator.ledger] == [True] * 4 + [False]
    assert emulator.ledger[0].type == PING["type"]


def test_a_planned_400_is_a_failed_job(emulator: Emulator) -> None:
    """A 400 without a body of its own is a job result like any other 400."""
    emulator.fail_next(status=400)
    assert post(emulator).json()["state"]["current"] == "failed"


def test_a_planned_failure_after_the_work(emulator: Emulator) -> None:
    """A reply can say that the job ran and was charged all the same."""
    emulator.fail_next(status=502, charged=True)
    assert post(emulator).status_code == 502
    assert (emulator.ledger[-1].ran, emulator.ledger[-1].charged) == (True, True)
    emulator.fail_next(status=502)
    emulator.forget_planned()
    assert post(emulator).status_code == 200


def test_a_planned_reply_before_the_upload(emulator: Emulator) -> None:
    """The answer can come before the body has been sent, and the connection outlives it."""
    emulator.fail_next(status=413, before_body=True)
    body = json.dumps(PING).encode()
    with raw(emulator, body[:5], length=len(body)) as connection:
        assert answer(connection) == (413, b"request entity too large")
        connection.sendall(body[5:])
        connection.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(connection) == (404, b"404 page not found")


# What it is made of.


def test_the_annex_shares_no_code_with_the_house() -> None:
    """Importing the emulator's own modules imports nothing else of the package."""
    code = (
        "import sys, types, importlib.util, pathlib\n"
        "where = pathlib.Path(importlib.util.find_spec('prodia_async').origin).parent\n"
        "house = types.ModuleType('prodia_async'); house.__path__ = [str(where)]\n"
        "sys.modules['prodia_async'] = house\n"
        "import prodia_async.emulator\n"
        "print(*[n for n in sys.modules if n.startswith('prodia_async.')\n"
        "        and not n.startswith('prodia_async.emulator')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_catalogue_is_sound() -> None:
    """Every default passes its own schema, and every name is a documented kind of name."""
    for name, kind in CATALOGUE.items():
        assert name == kind.name
        assert name.startswith(("inference.", "workflow."))
        for field, schema in kind.config.get("properties", {}).items():
            default = schema.get("default")
            if default is not None:
                assert default in schema.get("enum", [default]), field
                if "minimum" in schema:
                    assert schema["minimum"] <= default <= schema["maximum"], field
        assert kind.inputs[0] <= kind.inputs[1]


@pytest.mark.parametrize("asked", [1.5, None])
def test_the_ledger_tells_what_a_planned_refusal_asked(asked: float | None) -> None:
    """The Retry-After in the ledger is the planned one, not the emulator's own."""
    with Emulator(retry_after=9) as emulator:
        emulator.fail_next(1, 429, retry_after=asked)
        answer = httpx.post(
            f"{emulator.base_url}/v2/job",
            json={"type": "inference.ping.v1"},
            headers={"authorization": "Bearer t"},
        )
        assert answer.headers.get("retry-after") == emulator.ledger[0].retry_after
        assert emulator.ledger[0].retry_after == (None if asked is None else "1.5")
