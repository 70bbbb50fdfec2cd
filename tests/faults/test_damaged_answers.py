"""Rows 10 and 12 to 18 of the fault matrix: answers that are not what the API promises."""

from __future__ import annotations

import gc
import gzip
import os
import resource
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from conftest import on_both_loops
from raw_server import (
    BOUNDARY,
    GOOD_BODY,
    JOB_JSON,
    JOB_PART,
    MULTIPART_TYPE,
    OUTPUT_PART,
    PICTURE,
    Conversation,
    RawServer,
    http,
    multipart,
    part,
    say,
)

from prodia_async import (
    APIStatusError,
    AsyncProdia,
    CapacityError,
    Input,
    JobFailedError,
    MalformedResponseError,
    PayloadTooLargeError,
    ProdiaError,
    ResponseError,
    ResponseTooLargeError,
    RetryPolicy,
    TruncatedResponseError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PING = {"type": "inference.ping.v1"}


async def ask(server: RawServer, **options: object) -> tuple[ProdiaError, int]:
    """Send one job, which must fail, and return its error and how often it was sent."""
    retry = RetryPolicy(backoff_initial=0.01)
    async with AsyncProdia("secret-token", base_url=server.url, retry=retry) as prodia:
        with pytest.raises(ProdiaError) as caught:
            await prodia.job(PING, **options)  # type: ignore[arg-type]
        assert prodia.statistics().in_flight == 0
    return caught.value, len(server.requests)


def chunked(body: bytes, *, end: bool) -> bytes:
    head = http(body=b"", length=None).removesuffix(b"\r\n") + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + f"{len(body):x}\r\n".encode() + body + b"\r\n" + (b"0\r\n\r\n" if end else b"")


CUT = GOOD_BODY[:-500]
TWO_LENGTHS = http(body=CUT, length=None).replace(
    b"\r\n\r\n", b"\r\nContent-Length: 10\r\nContent-Length: 11\r\n\r\n", 1
)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http(body=CUT, length=len(GOOD_BODY)), TruncatedResponseError),
        (http(body=CUT), TruncatedResponseError),
        (http(body=CUT, length=None), TruncatedResponseError),
        (chunked(CUT, end=False), TruncatedResponseError),
        (chunked(CUT, end=True), TruncatedResponseError),
        (http(length=len(GOOD_BODY) - 700), TruncatedResponseError),
        (TWO_LENGTHS, MalformedResponseError),
        (b"220 mail.example.com ESMTP\r\n\r\n", MalformedResponseError),
    ],
)
@on_both_loops
async def test_a_cut_answer_is_never_a_success(answer: bytes, kind: type[ProdiaError]) -> None:
    """However the body is framed, a missing end is noticed, and costs one charge (row 10)."""
    with RawServer([say(answer, charge=True, close=True)]) as server:
        error, sent = await ask(server)
    assert isinstance(error, kind)
    assert error.may_have_run
    assert (sent, server.charges) == (1, 1)


@on_both_loops
async def test_what_was_whole_rides_on_the_error() -> None:
    """The job result and each output that was complete are on the error (row 10)."""
    body = JOB_PART + OUTPUT_PART + OUTPUT_PART[:-100]
    with RawServer([say(http(body=body), charge=True, close=True)]) as server:
        error, _ = await ask(server)
    assert error.job is not None
    assert error.job_id == "6b0e8cc2-6f5e-4f0b-9f3e-0c7c5d3e2a11"
    assert [each.content for each in error.outputs] == [PICTURE]


@on_both_loops
async def test_a_proxy_that_repeats_headers_costs_nothing() -> None:
    """Equal Content-Types and request ids twice are one."""
    answer = http("200 OK", GOOD_BODY, f"Content-Type: {MULTIPART_TYPE}")
    twice = answer.replace(
        b"\r\nx-request-id:", b"\r\nx-request-id: r-1\r\nx-request-id: r-1\r\nold:", 1
    )
    with RawServer([say(twice)]) as server:
        async with AsyncProdia("secret-token", base_url=server.url) as prodia:
            response = await prodia.job(PING)
    assert response.output.content == PICTURE
    assert response.request_id == "r-1"


HUGE_HEADER = b"HTTP/1.1 200 OK\r\nX-Big: " + b"a" * 200_000 + b"\r\n\r\n"
MANY_HEADERS = b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 20_000 + b"\r\n"


@pytest.mark.parametrize("answer", [HUGE_HEADER, MANY_HEADERS])
@on_both_loops
async def test_a_monstrous_head_is_refused(answer: bytes) -> None:
    """Heads beyond any reason are an error, not memory (row 12)."""
    with RawServer([say(answer, charge=True)]) as server:
        error, sent = await ask(server)
    assert isinstance(error, MalformedResponseError)
    assert (sent, server.charges) == (1, 1)


@on_both_loops
async def test_informational_answers_are_passed_over() -> None:
    """Two thousand `100 Continue` before the answer do no harm (row 12)."""
    with RawServer([say(b"HTTP/1.1 100 Continue\r\n\r\n" * 2000 + http())]) as server:
        async with AsyncProdia("t", base_url=server.url) as prodia:
            response = await prodia.job(PING)
    assert response.output.content == PICTURE


GARBAGE = [
    (http(body=b"\x00\xff" * 3000), TruncatedResponseError),
    (http(body=GOOD_BODY, content_type="multipart/form-data"), MalformedResponseError),
    (http(body=GOOD_BODY, content_type='multipart/form-data; boundary=""'), MalformedResponseError),
    (http(body=b"<html>all is well</html>", content_type="text/html"), MalformedResponseError),
    (http(body=b""), TruncatedResponseError),
    (http(body=b"", content_type=None), MalformedResponseError),
    (http(body=multipart(OUTPUT_PART)), MalformedResponseError),
    (http(body=multipart(JOB_PART, JOB_PART, OUTPUT_PART)), MalformedResponseError),
    (http(body=multipart(part("job", None, None, b"{nonsense"))), MalformedResponseError),
    (http(body=multipart(part("job", None, None, b"[1]"))), MalformedResponseError),
]


@pytest.mark.parametrize(("answer", "kind"), GARBAGE)
@on_both_loops
async def test_garbage_is_a_typed_error(answer: bytes, kind: type[ProdiaError]) -> None:
    """No end, no boundary, no job part, two of them, no JSON, a web page (rows 13 and 14)."""
    with RawServer([say(answer, charge=True)]) as server:
        error, sent = await ask(server)
    assert type(error) is kind
    assert (sent, server.charges) == (1, 1)


@on_both_loops
async def test_boundary_like_bytes_in_a_picture() -> None:
    """Bytes in a picture that nearly are a boundary stay in the picture (row 13)."""
    content = b"\n--" + BOUNDARY.encode() + b"--\r\n--" + BOUNDARY[:-1].encode() + b"\r\n--\r\n"
    body = multipart(JOB_PART, part("output", "a", "image/png", content))
    with RawServer([say(http(body=body))]) as server:
        async with AsyncProdia("t", base_url=server.url) as prodia:
            response = await prodia.job(PING)
    assert response.output.content == content


@on_both_loops
async def test_a_failed_job_inside_a_success() -> None:
    """A 200 whose job failed is an error, with the server's reason (row 14)."""
    failed = JOB_JSON.replace(b'"completed"', b'"failed"').replace(
        b'"config"', b'"error":"no face detected","config"'
    )
    body = multipart(part("job", "job.json", "application/json", failed))
    with RawServer([say(http(body=body), charge=True)]) as server:
        error, sent = await ask(server)
    assert isinstance(error, JobFailedError)
    assert "no face detected" in str(error)
    assert error.job_id
    assert (sent, server.charges) == (1, 1)


def flood(head: bytes, piece: bytes, pieces: int) -> Callable[[Conversation], None]:
    """Return a reply that sends far more than anybody should read."""

    def reply(conversation: Conversation) -> None:
        conversation.charge()
        conversation.send(head)
        for _ in range(pieces):
            conversation.send(piece)

    return reply


def peak_kilobytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@on_both_loops
async def test_an_endless_job_part_is_refused() -> None:
    """200 MB of job JSON are not read into memory (row 14)."""
    head = http(body=b"", length=None) + JOB_PART[: JOB_PART.index(b"{")] + b'{"a":"'
    before = peak_kilobytes()
    with RawServer([flood(head, b"x" * 1_000_000, 200)]) as server:
        error, sent = await ask(server)
        assert isinstance(error, ResponseTooLargeError)
    assert peak_kilobytes() - before < 60_000
    assert (sent, server.charges) == (1, 1)


@on_both_loops
async def test_outputs_larger_than_allowed_are_refused() -> None:
    """`max_response_bytes` bounds what is collected; what was whole is kept."""
    body = multipart(JOB_PART, OUTPUT_PART, part("output", "b", None, bytes(100_000)))
    with RawServer([say(http(body=body))]) as server:
        async with AsyncProdia("t", base_url=server.url, max_response_bytes=50_000) as prodia:
            with pytest.raises(ResponseTooLargeError, match="max_response_bytes=50000") as caught:
                await prodia.job(PING)
    assert [each.content for each in caught.value.outputs] == [PICTURE]


@on_both_loops
async def test_odd_output_names_are_kept_and_saved_safely(tmp_path: Path) -> None:
    """Names that are equal, hostile or empty: every output is there, and in the folder (row 15)."""
    names = ["same.png", "same.png", "../x", "C:\\x", "", None]
    parts = [part("output", name, "image/png", bytes([at])) for at, name in enumerate(names)]
    body = multipart(JOB_PART, *parts, part("output", "zero", "image/png", b""))
    with RawServer([say(http(body=body))]) as server:
        async with AsyncProdia("t", base_url=server.url) as prodia:
            response = await prodia.job(PING)
    assert [each.content for each in response.outputs] == [
        *map(bytes, [[0], [1], [2], [3], [4], [5]]),
        b"",
    ]
    saved = [await each.save(tmp_path) for each in response.outputs]
    assert len(set(saved)) == 7
    assert {each.parent for each in saved} == {tmp_path}
    assert sorted(os.listdir(tmp_path)) == sorted(each.name for each in saved)


BOMB = gzip.compress(bytes(50_000_000))
TRUNCATED_GZIP = gzip.compress(GOOD_BODY)[:-20]


@pytest.mark.parametrize(
    ("encoding", "body"), [("gzip", BOMB), ("gzip", TRUNCATED_GZIP), ("br", GOOD_BODY), ("x", b"")]
)
@on_both_loops
async def test_an_encoding_is_refused(encoding: str, body: bytes) -> None:
    """No compression was asked for, so none is taken, and no bomb goes off (row 16)."""
    before = peak_kilobytes()
    with RawServer(
        [say(http("200 OK", body, f"Content-Encoding: {encoding}"), charge=True)]
    ) as server:
        error, sent = await ask(server)
    assert isinstance(error, MalformedResponseError)
    assert encoding in str(error)
    assert server.requests[0].header("accept-encoding") == "identity"
    assert peak_kilobytes() - before < 30_000
    assert (sent, server.charges) == (1, 1)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Again", "308 Moved"])
@on_both_loops
async def test_a_redirect_is_not_followed(status: str) -> None:
    """A redirect would carry the token elsewhere, or the job a second time (row 17)."""
    with RawServer() as other:
        moved = http(status, b"", f"Location: {other.url}/v2/job")
        with RawServer([say(moved, charge=True)]) as server:
            error, sent = await ask(server)
        assert other.requests == []
    assert isinstance(error, APIStatusError)
    assert "not followed" in str(error)
    assert (sent, server.charges) == (1, 1)


@pytest.mark.parametrize(
    ("status", "kind"),
    [("413 Too Large", PayloadTooLargeError), ("429 Busy", CapacityError)],
)
@on_both_loops
async def test_an_early_answer_is_seen(status: str, kind: type[ProdiaError]) -> None:
    """An answer sent before the upload was read is the answer (row 18)."""
    answer = http(status, b"no", "Retry-After: 999", "Connection: close", content_type="text/plain")

    def early(conversation: Conversation) -> bool:
        conversation.read_head()
        conversation.send(answer)
        conversation.socket.settimeout(5)
        deadline = time.monotonic() + 5
        while conversation.socket.recv(1 << 20) and time.monotonic() < deadline:
            pass  # a polite server reads on, and throws it away
        return False

    with RawServer(on_connect=early) as server:
        error, _ = await ask(server, inputs=[Input(bytes(20_000_000), "big.bin")])
        assert server.connections == 1
    assert type(error) is kind


@on_both_loops
async def test_a_direct_picture_that_lacks_its_end() -> None:
    """Without multipart and without a length only its format's end tells that it is whole."""
    answer = http(body=PICTURE, content_type="image/png", length=None)
    with RawServer([say(answer, close=True)]) as server:
        error, _ = await ask(server, multipart=False, accept="image/png")
    assert isinstance(error, TruncatedResponseError)
    assert error.outputs[0].content == PICTURE


@on_both_loops
async def test_what_http_proves_whole_is_not_taken_away() -> None:
    """With a length, or in chunks, it is handed over whatever its last bytes are."""
    padded = PICTURE + b"IEND\xaeB`\x82" + bytes(100)
    answers = [
        http(body=padded, content_type="image/png"),
        chunked(padded, end=True).replace(MULTIPART_TYPE.encode(), b"image/png"),
    ]
    with RawServer([say(answer, charge=True) for answer in answers]) as server:
        async with AsyncProdia("secret-token", base_url=server.url) as prodia:
            for _ in answers:
                response = await prodia.job(PING, multipart=False, accept="image/png")
                assert response.content == padded
    assert server.charges == 2


@on_both_loops
async def test_the_last_chunk_is_withheld() -> None:
    """All that counts is here, and its length is told too: the answer does not wait."""
    answer = chunked(GOOD_BODY, end=False).replace(
        b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % len(GOOD_BODY), 1
    )

    def reply(conversation: Conversation) -> None:
        conversation.send(answer)
        conversation.stall()

    with RawServer([reply]) as server:
        async with AsyncProdia("secret-token", base_url=server.url, timeout=30) as prodia:
            began = time.monotonic()
            assert (await prodia.job(PING)).content == PICTURE
            assert time.monotonic() - began < 2


@on_both_loops
async def test_an_answer_of_another_type_is_worth_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Somebody else's answer, or a portal's page for a picture: used, and said."""
    page = http(body=b"Please log in", content_type="text/plain")
    with RawServer([say(http()), say(page), say(http())]) as server:
        async with AsyncProdia("secret-token", base_url=server.url) as prodia:
            await prodia.job({"type": "inference.other.v1"})
            await prodia.job(PING, multipart=False, accept="image/png")
            await prodia.job(PING)
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert len(warnings) == 2
    assert "inference.other.v1: the answer is of type 'inference.ping.v1'" in warnings[0]
    assert "asked for 'image/png', and the answer is 'text/plain'" in warnings[1]


async def test_errors_keep_no_answers_alive() -> None:
    """A map that collects its failures does not collect the bytes of their answers."""
    big = JOB_PART + part("output", "a", "image/png", bytes(200_000))
    cut = say(http(body=big[:-10], length=None), close=True)
    # Both say that they end their connection, or the next job would meet the end of it.
    nonsense = big + b"--" + BOUNDARY.encode() + b"\r\nnonsense\r\n\r\n"
    bad = say(http("200 OK", nonsense, "Connection: close"), close=True)
    with RawServer([cut, bad] * 50) as server:
        async with AsyncProdia("secret-token", base_url=server.url) as prodia:
            errors = []
            tracemalloc.start()
            try:
                for _ in range(100):
                    with pytest.raises(ResponseError) as caught:
                        await prodia.job(PING)
                    caught.value.outputs = ()  # what came whole may be had, and is asked for
                    errors.append(caught.value)
                    del caught
                gc.collect()
                kept = tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()
    assert kept < 100 * 40_000


@on_both_loops
async def test_a_picture_where_multipart_was_asked() -> None:
    """A picture without the job result that was asked for is an error that carries it."""
    with RawServer([say(http(body=PICTURE, content_type="image/png"))]) as server:
        error, _ = await ask(server)
    assert isinstance(error, MalformedResponseError)
    assert error.outputs[0].content == PICTURE


@on_both_loops
async def test_what_follows_the_end_does_not_count() -> None:
    """Bytes after the closing boundary are nobody's, and a break there costs nothing."""

    def reply(conversation: Conversation) -> None:
        body = GOOD_BODY + OUTPUT_PART
        conversation.send(http(body=body, length=len(body) + 1000, content_type=MULTIPART_TYPE))
        conversation.close()

    with RawServer([reply]) as server:
        async with AsyncProdia("t", base_url=server.url) as prodia:
            response = await prodia.job(PING)
    assert len(response.outputs) == 1


def test_every_response_error_says_that_it_may_be_paid() -> None:
    """The whole family of damaged answers counts as run."""
    for kind in (MalformedResponseError, TruncatedResponseError, ResponseTooLargeError):
        error = kind("x")
        assert isinstance(error, ResponseError)
        assert error.may_have_run
