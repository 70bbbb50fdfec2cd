"""What is taken for a response, byte by byte: the same whichever library reads it."""

import tracemalloc
from collections.abc import Callable

import pytest

from prodia_async.transports._parsers import PARSERS, response_maker
from prodia_async.transports._settled import (
    CHUNK_ALLOWANCE,
    MAX_HEAD,
    BadResponseError,
    Response,
)

OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Length: 5\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

on_both = pytest.mark.parametrize("make", [response_maker(each) for each in PARSERS], ids=PARSERS)
Make = Callable[[str], Response]


def read(make: Make, *pieces: bytes, method: str = "POST", eof: bool = False) -> Response:
    response = make(method)
    for piece in pieces:
        if piece:
            response.receive(piece)
    if eof:
        response.receive_eof()
    return response


def body_of(response: Response) -> bytes:
    taken = []
    while response.pieces:
        taken.append(response.take())
    assert response.unread == 0
    return b"".join(taken)


# What came, its body, and whether its connection may be used again.
WHOLE = [
    (SIZED + b"hello", b"hello", True),
    (OK + b"content-length: 0\r\n\r\n", b"", True),
    (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello", True),
    (CHUNKED + b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n", b"hello", True),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hm\r\nA: b\r\n\r\n" + SIZED + b"hello", b"hello",
     True),
    (b"HTTP/1.1 204 None\r\n\r\n", b"", True),
    (b"HTTP/1.1 304 Same\r\n\r\n", b"", True),
    (OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
     b"hello", False),
    # What httptools alone refuses.
    (SIZED.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n") + b"hello", b"hello", True),
    (SIZED.replace(b"\r\n\r\n", b"\r\nX: a\r\n b\r\n\r\n") + b"hello", b"hello", True),
    (SIZED.replace(b"\r\n", b"\n") + b"hello", b"hello", True),
]  # fmt: skip


@on_both
def test_whole_responses_however_they_are_cut(make: Make) -> None:
    """Each two-way cut and byte by byte: the same body, and the same verdict about reuse."""
    for data, body, may_go_on in WHOLE:
        cuts = [[data[:cut], data[cut:]] for cut in range(len(data) + 1)]
        for pieces in (*cuts, [bytes([each]) for each in data]):
            response = read(make, *pieces)
            assert response.is_over
            assert response.is_settled is may_go_on
            assert body_of(response) == body
            response.receive_eof()
            assert not response.is_settled


@on_both
def test_what_follows_is_noticed(make: Make) -> None:
    """A second response, or one byte, in the same piece or the next: no more requests here."""
    behind = [b"x", SIZED + b"other", CHUNKED + b"0\r\n\r\n", b"HTTP/1.1 4", b"\0"]
    for data, body, _ in WHOLE[:5] + WHOLE[-3:]:
        for more in behind:
            for pieces in ([data + more], [data, more], [data[:-1], data[-1:] + more]):
                response = read(make, *pieces)
                assert response.is_over
                assert response.has_more
                assert not response.is_settled
                assert body_of(response) == body
                response.receive_eof()


@on_both
def test_a_body_may_end_with_its_connection(make: Make) -> None:
    """Without a length and chunks, and only then."""
    response = read(make, OK + b"\r\nhel", b"lo", eof=True)
    assert (response.is_over, response.is_settled) == (True, False)
    assert body_of(response) == b"hello"


@on_both
def test_every_truncation_is_one(make: Make) -> None:
    """Cut anywhere, a response that says where it ends has not ended."""
    for data, _, _ in WHOLE:
        for cut in range(len(data)):
            with pytest.raises(BadResponseError, match="disconnected"):
                read(make, data[:cut], eof=True)


@on_both
def test_the_answer_to_a_head_has_no_body(make: Make) -> None:
    """It may say a length all the same."""
    assert read(make, SIZED, method="HEAD").is_settled


def chunk_of(size: int) -> bytes:
    return b"1;" + b"x" * size + b"\r\na\r\n"


REFUSED = {
    "no HTTP": b"220 mail.example.com ESMTP\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a length below nothing": OK + b"Content-Length: -5\r\n\r\nhello",
    "a length of words": OK + b"Content-Length: five\r\n\r\nhello",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "gzip": OK + b"Transfer-Encoding: gzip\r\n\r\nhello",
    "chunked twice": CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "no size": CHUNKED + b"zz\r\nhello\r\n",
    "101": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "101 alone": b"HTTP/1.1 101 Switching\r\n\r\n" + SIZED + b"hello",
    "a head of 200 KB": OK + b"X: " + b"a" * 200_000 + b"\r\nContent-Length: 5\r\n\r\nhello",
    "20,000 headers": OK + b"a: b\r\n" * 20_000 + b"Content-Length: 5\r\n\r\nhello",
    "10,000 interim ones": b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    "a chunk extension of 110 KB": CHUNKED + chunk_of(110_000),
    "many of 2 KB": CHUNKED + chunk_of(2_000) * 100 + b"0\r\n\r\n",
    "a trailer of 110 KB": CHUNKED + b"0\r\nX: " + b"a" * 110_000,
}


@on_both
def test_what_is_refused(make: Make) -> None:
    """At once, byte by byte a KB at a time, and in one piece; and with no endless memory."""
    for data in REFUSED.values():
        for size in (1_000, 64_000, len(data)):
            with pytest.raises(BadResponseError):
                read(make, *[data[at : at + size] for at in range(0, len(data), size)])


@on_both
def test_what_never_ends_is_refused_in_time(make: Make) -> None:
    """An endless head, endless headers, an endless chunk extension: memory stays flat."""
    for start, more in (
        (OK + b"X: ", b"a" * 10_000),
        (OK, b"a: b\r\n" * 2_000),
        (CHUNKED + b"5;", b"a" * 10_000),
        (CHUNKED + b"0\r\nX: ", b"a" * 10_000),
    ):
        tracemalloc.start()
        response = make("POST")
        response.receive(start)
        fed = 0
        with pytest.raises(BadResponseError):
            while fed < 10_000_000:
                response.receive(more)
                fed += len(more)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert fed <= MAX_HEAD + 10_000
        assert peak < 3_000_000


@on_both
@pytest.mark.parametrize("rest", [b"", b"hello"])
def test_a_head_that_is_too_large_is_none_though_it_comes_at_once(make: Make, rest: bytes) -> None:
    """Else whether an answer is called malformed or broken off would hang on how it was cut."""
    head = OK + b"X-A: b\r\n" * (MAX_HEAD // 8) + b"Content-Length: 50\r\n\r\n"
    response = make("POST")
    with pytest.raises(BadResponseError, match="bytes of head"):
        response.receive(head + rest)
    assert response.status == 0


@on_both
def test_a_head_that_was_taken_stays_where_the_framing_behind_it_is_too_large(make: Make) -> None:
    """What came of the answer is told with it."""
    response = read(make, CHUNKED + b"5\r\nhello\r\n")
    with pytest.raises(BadResponseError):
        for _ in range(2 * MAX_HEAD // 1000):
            response.receive(b"5;" + b"a" * 1000)
    assert response.status == 200
    assert body_of(response) == b"hello"


@on_both
def test_what_is_no_body_is_bounded(make: Make) -> None:
    """100 KB of head are taken and one byte more is not; each chunk may add a little."""
    line = b"X: \r\nContent-Length: 0\r\n\r\n"
    fits = MAX_HEAD - len(OK + line) - 64
    assert read(make, OK + line.replace(b"X: ", b"X: " + b"a" * fits)).is_settled
    many = CHUNKED + chunk_of(CHUNK_ALLOWANCE - 10) * 2_000 + b"0\r\n\r\n"
    assert body_of(read(make, many)) == b"a" * 2_000


@on_both
def test_small_parts_are_joined(make: Make) -> None:
    """Parts that wait together come as one, so that a decoder gets large ones; large ones stay."""
    response = read(make, CHUNKED, b"1\r\na\r\n1\r\nb\r\n", b"1\r\nc\r\n")
    assert response.take() == b"abc"
    large = bytes(40_000)
    response = read(make, CHUNKED, b"9c40\r\n" + large + b"\r\n", b"9c40\r\n" + large + b"\r\n")
    assert [len(response.take()), len(response.take())] == [40_000, 40_000]


def test_only_what_is_installed() -> None:
    """The parser is one that is there."""
    with pytest.raises(ValueError, match="h11"):
        response_maker("my own")
