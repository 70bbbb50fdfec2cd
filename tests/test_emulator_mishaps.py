"""Every error can be provoked: drops, slow answers, cuts, films of real size, unknown types."""

from __future__ import annotations

import http.client
import io
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from prodia_async.emulator import Behaviour, Emulator, FireworksBehaviour

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB = {"type": "inference.flux-fast.schnell.txt2img.v2", "config": {"prompt": "a fox", "seed": 1}}
FILM = {"type": "inference.veo.fast.txt2vid.v2", "config": {"prompt": "a fox"}}
HEADERS = {"authorization": "Bearer x"}


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def client(emulator: Emulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=emulator.base_url, headers=HEADERS, verify=False) as client:
        yield client


def raw(emulator: Emulator, accept: str = "image/jpeg") -> tuple[bytes, bool]:
    """Send a job over a connection of its own; return what came and whether a reset ended it."""
    body = json.dumps(JOB).encode()
    with socket.create_connection(("127.0.0.1", emulator.port), timeout=10) as connection:
        connection.sendall(
            f"POST /v2/job HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nAccept: {accept}\r\n"
            "Connection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionResetError:
            return received, True
    return received, False


# Drops.


def test_a_drop_once_the_request_was_sent(emulator: Emulator) -> None:
    """Not a byte comes back, and the job ran and is charged; the next one is answered."""
    emulator.drop_next()
    assert raw(emulator) == (b"", True)
    (record,) = emulator.ledger
    assert (record.status, record.charged, record.mishap) == (200, True, "dropped at sent")
    assert emulator.planned == 0


def test_a_drop_within_the_head(emulator: Emulator) -> None:
    """Half of the head comes, and no more."""
    emulator.drop_next(at="head")
    received, reset = raw(emulator)
    assert reset
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in received
    assert emulator.jobs[0].charged


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_drop_within_the_body(emulator: Emulator, share: float) -> None:
    """That share of what Content-Length promised comes: at 1 all but the last byte."""
    emulator.drop_next(at=share)
    received, reset = raw(emulator)
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert reset
    assert len(body) == min(int(length * share), length - 1)
    assert emulator.jobs[0].mishap == f"dropped at {share}"


def test_drops_queue_with_planned_replies(emulator: Emulator, client: httpx.Client) -> None:
    """A refusal, a drop, an answer: in the order in which they were planned."""
    emulator.fail_next(1, 429, retry_after=30)
    emulator.drop_next()
    assert emulator.planned == 2
    assert client.post("/v2/job", json=JOB).headers["retry-after"] == "30"
    with pytest.raises(httpx.TransportError):
        client.post("/v2/job", json=JOB)
    assert client.post("/v2/job", json=JOB).status_code == 200
    assert [record.status for record in emulator.ledger] == [429, 200, 200]
    assert [job.config for job in emulator.jobs] == [JOB["config"], JOB["config"]]


def test_planned_mishaps_can_be_forgotten(emulator: Emulator, client: httpx.Client) -> None:
    """What nobody met befalls nobody."""
    emulator.drop_next(3)
    emulator.truncate_next(reads=True)
    emulator.drop_next(2, at="connect")
    assert emulator.planned == 6
    emulator.forget_planned()
    assert emulator.planned == 0
    assert client.post("/v2/job", json=JOB).status_code == 200


def test_a_refused_connection(emulator: Emulator) -> None:
    """Nobody listens, as often as was asked for; then the next attempt gets through."""
    emulator.drop_next(2, at="connect")
    for _ in range(2):
        with pytest.raises(httpx.ConnectError):
            httpx.post(f"{emulator.base_url}/v2/job", json=JOB, headers=HEADERS, verify=False)
    response = httpx.post(f"{emulator.base_url}/v2/job", json=JOB, headers=HEADERS, verify=False)
    assert response.status_code == 200
    assert [record.status for record in emulator.ledger] == [200]
    assert emulator.planned == 0


@pytest.mark.skipif(
    os.environ.get("PRODIA_TEST_LOOP") == "uvloop", reason="uvloop's attempts are not seen"
)
async def test_a_refused_connection_after_one_that_was_kept(emulator: Emulator) -> None:
    """An idle connection is closed, so that the next request has to connect."""
    async with httpx.AsyncClient(base_url=emulator.base_url, headers=HEADERS) as client:
        assert (await client.post("/v2/job", json=JOB)).status_code == 200
        emulator.drop_next(at="connect")
        with pytest.raises(httpx.ConnectError):
            await client.post("/v2/job", json=JOB)
        assert (await client.post("/v2/job", json=JOB)).status_code == 200


def test_a_port_opens_again_for_those_who_are_not_seen(emulator: Emulator) -> None:
    """Another process gets through soon after the planned refusals were used up."""
    emulator.drop_next(at="connect")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", emulator.port))
    code = (
        "import socket, sys, time\n"
        "for _ in range(200):\n"
        "    try: socket.create_connection(('127.0.0.1', int(sys.argv[1]))); break\n"
        "    except OSError: time.sleep(0.02)\n"
        "else: sys.exit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(emulator.port)], check=False)
    assert done.returncode == 0


def test_refusals_add_up_and_end_with_the_emulator() -> None:
    """A second plan adds to the first; a stopped emulator starts anew and refuses nobody."""
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="not running"):
        emulator.drop_next(at="connect")
    with emulator:
        emulator.drop_next(at="connect")
        emulator.drop_next(at="connect")
        assert emulator.planned == 2
    with emulator:
        assert emulator.planned == 0
        socket.create_connection(("127.0.0.1", emulator.port)).close()


@pytest.mark.parametrize("at", ["nowhere", -0.1, 1.1, True])
def test_a_drop_at_no_known_moment(emulator: Emulator, at: Any) -> None:
    """It is refused, with what may be said."""
    with pytest.raises(ValueError, match="at is 'connect', 'sent', 'head' or a number"):
        emulator.drop_next(at=at)


# Slow and short answers.


def test_a_slow_answer(emulator: Emulator, client: httpx.Client) -> None:
    """Silence first, then a trickle, and all of it in the end."""
    whole = client.post("/v2/job", json=JOB, headers={"accept": "image/webp"}).content
    emulator.slow_next(bytes_per_second=len(whole) / 0.3, first_byte=0.2)
    began = time.perf_counter()
    with client.stream("POST", "/v2/job", json=JOB, headers={"accept": "image/webp"}) as response:
        head = time.perf_counter() - began
        pieces = list(response.iter_raw())
    assert head >= 0.2
    assert time.perf_counter() - began >= 0.45
    assert len(pieces) > 2
    assert b"".join(pieces) == whole
    assert emulator.ledger[-1].mishap == "slow"


def test_stopping_does_not_wait_for_a_slow_answer() -> None:
    """An hour of trickling ends with the emulator."""
    with Emulator() as emulator:
        emulator.slow_next(bytes_per_second=1)
        thread = threading.Thread(target=raw, args=(emulator,))
        thread.start()
        emulator.ledger.wait_for(lambda totals: totals.answered == 1)
        began = time.perf_counter()
    thread.join()
    assert time.perf_counter() - began < 3


@pytest.mark.parametrize("framing", ["close", "length", "chunked"])
def test_an_answer_that_ends_early(emulator: Emulator, framing: Any) -> None:
    """The connection ends in good order; what tells of the cut is as was asked for."""
    emulator.truncate_next(keep=0.25, framing=framing)
    received, reset = raw(emulator, "multipart/form-data")
    assert not reset
    head, _, body = received.partition(b"\r\n\r\n")
    lowered = head.lower()
    assert (b"content-length" in lowered) == (framing == "length")
    assert (b"transfer-encoding: chunked" in lowered) == (framing == "chunked")
    assert body.endswith(b"0\r\n\r\n") == (framing == "chunked")
    assert 10_000 < len(body) < 60_000
    assert emulator.jobs[0].mishap == "truncated"


def test_what_cannot_be_planned(emulator: Emulator) -> None:
    """Values that mean nothing are refused when they are planned."""
    with pytest.raises(ValueError, match="bytes_per_second"):
        emulator.slow_next(bytes_per_second=0)
    with pytest.raises(ValueError, match="keep"):
        emulator.truncate_next(keep=2)
    with pytest.raises(ValueError, match="framing"):
        emulator.truncate_next(framing="lines")  # type: ignore[arg-type]


def test_a_download_that_is_cut(emulator: Emulator, client: httpx.Client) -> None:
    """Reads of async jobs have mishaps of their own."""
    job_id = client.post("/v2/job/async", json=JOB).json()["id"]
    while client.get(f"/v2/job/async/{job_id}/job.state.current").text != "processed":
        time.sleep(0.005)
    emulator.drop_next(at=0.5, reads=True)
    with pytest.raises(httpx.TransportError):
        client.get(f"/v2/job/async/{job_id}/output")
    assert client.get(f"/v2/job/async/{job_id}/output").status_code == 200


def test_mishaps_of_the_second_api() -> None:
    """The orders of Fireworks meet them too."""
    with Emulator(fireworks=FireworksBehaviour(shrink=16)) as emulator:
        url = (
            f"{emulator.fireworks_url}/workflows/accounts/fireworks/models"
            "/flux-1-schnell-fp8/text_to_image"
        )
        emulator.drop_next(at="head")
        with pytest.raises(httpx.TransportError):
            httpx.post(url, json={"prompt": "a fox"}, headers=HEADERS, verify=False)
        assert emulator.jobs[0].charged
        assert emulator.jobs[0].mishap == "dropped at head"
        response = httpx.post(url, json={"prompt": "a fox"}, headers=HEADERS, verify=False)
        assert response.status_code == 200


def test_jobs_are_those_that_ran(emulator: Emulator, client: httpx.Client) -> None:
    """Refusals and reads are in the ledger alone."""
    emulator.fail_next(2, 429)
    for _ in range(3):
        client.post("/v2/job", json=JOB)
    job_id = client.post("/v2/job/async", json=FILM).json()["id"]
    client.get(f"/v2/job/async/{job_id}/job.json")
    assert [job.type for job in emulator.jobs] == [JOB["type"], FILM["type"]]
    config = emulator.jobs[0].config
    assert config is not None
    assert config["prompt"] == "a fox"
    assert len(emulator.ledger) == 5


# Films of real size.


def boxes(film: bytes) -> dict[str, int]:
    """List the top-level boxes of an MP4 file and their sizes."""
    found, position = {}, 0
    while position < len(film):
        size, name = struct.unpack_from(">I4s", film, position)
        found[name.decode()] = size
        position += size
    return found


@pytest.mark.parametrize("prompt", ["a fox [3 MB]", "a fox [3000 KB]", "a fox"])
def test_a_film_of_three_megabytes(emulator: Emulator, client: httpx.Client, prompt: str) -> None:
    """It has exactly the size that was asked for, whoever asked, and its boxes add up."""
    if "[" not in prompt:
        emulator.behave(film_bytes=3_000_000)
    job = {**FILM, "config": {"prompt": prompt, "seed": 1}}
    film = client.post("/v2/job", json=job, headers={"accept": "video/mp4"}).content
    assert len(film) == 3_000_000
    assert list(boxes(film)) == ["ftyp", "moov", "mdat", "free"]
    assert sum(boxes(film).values()) == len(film)
    # Coded at the size at which it is shown.
    assert struct.unpack(">2H", film[film.index(b"avc1", 64) + 28 :][:4]) == (1280, 720)


def test_a_film_that_is_too_small(client: httpx.Client) -> None:
    """Less than two frames cannot be had: it is as small as it can be."""
    job = {**FILM, "config": {"prompt": "a fox [1 KB]"}}
    film = client.post("/v2/job", json=job, headers={"accept": "video/mp4"}).content
    assert 1000 < len(film) < 40_000
    assert sum(boxes(film).values()) == len(film)


def test_a_large_film_in_a_form_and_through_async(emulator: Emulator, client: httpx.Client) -> None:
    """The same bytes come whichever way they are fetched, with their length told."""
    job = {**FILM, "config": {"prompt": "a fox [1 MB]", "seed": 1}}
    direct = client.post("/v2/job", json=job, headers={"accept": "video/mp4"}).content
    form = client.post("/v2/job", json=job, headers={"accept": "multipart/form-data"})
    assert int(form.headers["content-length"]) == len(form.content)
    assert direct in form.content
    job_id = client.post("/v2/job/async", json=job).json()["id"]
    while client.get(f"/v2/job/async/{job_id}/job.state.current").text != "processed":
        time.sleep(0.005)
    assert client.get(f"/v2/job/async/{job_id}/output/video.mp4").content == direct
    emulator.truncate_next(keep=0.5, framing="length")
    with pytest.raises(httpx.RemoteProtocolError, match="received"):
        client.post("/v2/job", json=job, headers={"accept": "video/mp4"})


def test_a_large_film_costs_no_memory(emulator: Emulator) -> None:
    """Forty megabytes are written while they are read."""
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=60)
    job = json.dumps({**FILM, "config": {"prompt": "a fox [40 MB]", "duration_seconds": 4}})
    headers = {**HEADERS, "accept": "video/mp4", "content-type": "application/json"}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection.request("POST", "/v2/job", job, headers)
    response = connection.getresponse()
    length = 0
    while chunk := response.read(1 << 16):
        length += len(chunk)
    connection.close()
    assert length == 40_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000


def test_a_film_has_a_size() -> None:
    """Not none at all."""
    with pytest.raises(ValueError, match="film_bytes must be 1 or more"):
        Behaviour(film_bytes=0)


# Types that nobody knows.


def test_unknown_types_are_run_on_request() -> None:
    """What they make follows from the operation in their name."""
    with (
        Emulator(accept_unknown_types=True) as emulator,
        httpx.Client(base_url=emulator.base_url, headers=HEADERS, verify=False) as client,
    ):
        made = {}
        for operation in ("txt2img", "txt2vid", "txt2vec", "sing"):
            job = {"type": f"inference.brand-new.{operation}.v9", "config": {"mask": "auto"}}
            response = client.post("/v2/job", json=job)
            made[operation] = response.status_code, response.headers["content-type"]
        assert made == {
            "txt2img": (200, "image/jpeg"),
            "txt2vid": (200, "video/mp4"),
            "txt2vec": (200, "image/svg+xml"),
            "sing": (200, "image/jpeg"),
        }
        picture = io.BytesIO()
        Image.new("RGB", (64, 48), "red").save(picture, "PNG")
        files: list[tuple[str, tuple[str, bytes, str]]] = [
            ("job", ("job.json", b'{"type": "x"}', "application/json")),
            ("input", ("a.png", picture.getvalue(), "image/png")),
            ("input", ("a.wav", b"RIFF\0\0\0\0WAVEfmt ", "audio/wav")),
        ]
        assert client.post("/v2/job", files=files).status_code == 200
        emulator.behave(accept_unknown_types=False)
        assert client.post("/v2/job", json={"type": "x"}).status_code == 400


def test_as_many_plans_as_one_likes_take_no_memory() -> None:
    """The command line's ``--slow`` plans a billion, for all answers to come."""
    emulator = Emulator()
    tracemalloc.start()
    try:
        emulator.slow_next(10**9, bytes_per_second=1000)
        emulator.fail_next(2, 503)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert emulator.planned == 10**9 + 2
