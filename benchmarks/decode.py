"""
How far is decoding from the least that it could take?

1. A body with one output in chunks of 64 KB into a sink that drops the bytes,
   against a bare ``bytes.find`` of the delimiter over the same chunks (and one
   copy of them). `AnswerReader` is what `stream` uses, `MultipartDecoder` what
   it is made of.
2. Output that looks like delimiters everywhere, against random bytes.
3. One answer of 53 KB, bytes in, validated `JobResponse` out.

All in one process, since nothing here waits: the contenders take turns, a
hundred rounds, and each figure is the median of its rounds.

::

    python benchmarks/decode.py            # half a minute
    python benchmarks/decode.py --quick    # a smoke test
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from _harness import CLIENT_CPU, Results, goal, options, pin, ratio_goal
from _peers import decode_by_hand
from _server import BOUNDARY, CONTENT_TYPE, OUTPUT_BYTES, around, headers
from python_multipart.multipart import MultipartParser

from prodia_async import JobResponse, Timing
from prodia_async._answers import AnswerReader, Collector, OutputData, check_answer
from prodia_async._multipart import MultipartDecoder, PartData
from prodia_async._wire import Headers

NEEDLE = f"\r\n--{BOUNDARY}".encode()
READER, DECODER = "AnswerReader", "MultipartDecoder"
FIND, COPY, PYTHON_MULTIPART = "bytes.find", "one copy", "python-multipart, count"

Way = Callable[[Sequence[bytes]], int]


def _reader(chunks: Sequence[bytes]) -> int:
    reader = AnswerReader(Headers(headers(sum(map(len, chunks)))), multipart=True)
    size = 0
    for chunk in chunks:
        for event in reader.receive_data(chunk):
            if isinstance(event, OutputData):
                size += len(event.data)
    reader.receive_eof()
    return size


def _decoder(chunks: Sequence[bytes]) -> int:
    decoder = MultipartDecoder(CONTENT_TYPE)
    size = 0
    for chunk in chunks:
        for event in decoder.receive_data(chunk):
            if isinstance(event, PartData):
                size += len(event.data)
    decoder.receive_eof()
    return size


def _python_multipart(chunks: Sequence[bytes]) -> int:
    size = 0

    def count(_: bytes, start: int, end: int) -> None:
        nonlocal size
        size += end - start

    parser = MultipartParser(BOUNDARY, {"on_part_data": count})
    for chunk in chunks:
        parser.write(chunk)
    parser.finalize()
    return size


def _find(chunks: Sequence[bytes]) -> int:
    return sum(chunk.find(NEEDLE) for chunk in chunks)


def _copy(chunks: Sequence[bytes]) -> int:
    return sum(len(bytearray(chunk)) for chunk in chunks)


WAYS: dict[str, Way] = {
    READER: _reader,
    DECODER: _decoder,
    FIND: _find,
    COPY: _copy,
    PYTHON_MULTIPART: _python_multipart,
}


def _cut(output: bytes, size: int) -> list[bytes]:
    before, after = around()
    body = before + output + after
    return [body[at : at + size] for at in range(0, len(body), size)]


def _cpu(call: Callable[[], object], times: int) -> float:
    """Return the CPU seconds of one call, from several in a row."""
    began = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - began) / times


def _by_turns(contenders: dict[str, Callable[[], object]], count: int, unit: float) -> Results:
    """Time the contenders by turns; a figure is seconds of one call times `unit`."""
    results = Results()
    times = {name: max(1, round(0.005 / _cpu(call, 2))) for name, call in contenders.items()}
    for call in contenders.values():
        call()
    for _ in range(count):
        for name, call in contenders.items():
            results.add(name, {"cpu": _cpu(call, times[name]) * unit})
    return results


def _into_a_sink(output: bytes, chunk: int, count: int) -> Results:
    chunks = _cut(output, chunk)
    assert _reader(chunks) == len(output), "not all of the output came out"
    ways: dict[str, Callable[[], object]] = {
        name: partial(way, chunks) for name, way in WAYS.items()
    }
    return _by_turns(ways, count, 1e12 / len(output))


def _hostile(size: int) -> dict[str, bytes]:
    """Return outputs that are hard to search for the delimiter."""
    near = NEEDLE[:-1] + b"X"
    return {
        "CR LF": b"\r\n" * (size // 2),
        "hyphens": b"-" * size,
        "almost the delimiter": near * (size // len(near)),
        "CR LF hyphens": b"\r\n--" * (size // 4),
        "zeros": bytes(size),
    }


def _answer(content: bytes) -> JobResponse:
    """Do what `AsyncProdia.job` does with an answer's bytes, once they are here."""
    reader = AnswerReader(Headers(headers(len(content))), multipart=True)
    collector = Collector()
    collector.add(reader.receive_data(content))
    collector.add(reader.receive_eof())
    outputs = tuple(collector.outputs)
    assert check_answer(collector.job, outputs, multipart=True) is None
    return JobResponse(collector.job, outputs, "id", (), Timing(0.0, 0.0, 0.0, 0.0))


def main() -> None:
    """Measure and print the tables and the goals."""
    chosen = options(__doc__)
    pin(CLIENT_CPU)
    count = 5 if chosen.quick else 101
    rng = random.Random(1)
    results = {}
    for name, size in {"861 KB": 861_000, "20 MB": 20_000_000}.items():
        print(f"\n{name} of random bytes in chunks of 64 KB into a sink; us of CPU per MB")
        results[name] = _into_a_sink(rng.randbytes(size), 65536, max(3, count * 861_000 // size))
        results[name].table({"cpu": "us/MB"}, baseline=FIND)

    print("\n861 KB of hostile bytes; us of CPU per MB, AnswerReader")
    hostile = Results()
    worst = 0.0
    for chunk in (32768, 65536, 262144):
        kinds = {"random": rng.randbytes(861_000), **_hostile(861_000)}
        cut = {kind: _cut(output, chunk) for kind, output in kinds.items()}
        calls: dict[str, Callable[[], object]] = {
            f"{kind}, {chunk // 1024} KB": partial(_reader, chunks) for kind, chunks in cut.items()
        }
        found = _by_turns(calls, max(3, count // 5), 1e12 / 861_000)
        plain = found.median(f"random, {chunk // 1024} KB", "cpu")
        worst = max([worst, *(found.median(name, "cpu") / plain for name in calls)])
        hostile.rounds |= found.rounds
    hostile.table({"cpu": "us/MB"}, baseline="random, 64 KB")

    print("\none answer of 53 KB, bytes in, JobResponse out; us of CPU")
    body = b"".join(_cut(rng.randbytes(OUTPUT_BYTES), 10**9))
    answer = _by_turns(
        {
            "AnswerReader, Collector": lambda: _answer(body),
            "by hand, python-multipart": lambda: decode_by_hand(CONTENT_TYPE, body),
            "bytes.find and a copy": lambda: (body.find(NEEDLE, 2000), bytearray(body)),
        },
        count,
        1e6,
    )
    answer.table({"cpu": "us"})

    large = results["20 MB"]
    for name in (DECODER, READER):
        ratio = large.median(name, "cpu") / large.median(FIND, "cpu")
        goal(f"1a: 20 MB into a sink, {name} over bytes.find", ratio, 1.5)
    goal("1b: worst-case data over random data, chunks of 32 KB or more", worst, 3)
    ratio_goal(
        "2: one answer of 53 KB, ours over by hand",
        answer,
        ours="AnswerReader, Collector",
        peer="by hand, python-multipart",
        most=1.2,
        figure="cpu",
    )


if __name__ == "__main__":
    main()
