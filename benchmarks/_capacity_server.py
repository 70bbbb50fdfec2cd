"""
A server with K workers and no queue over real sockets, in a process of its own.

::

    POST /v2/job            200 with a small multipart answer after the job's time, or at once
                            429 with Retry-After when all workers are busy
    GET  /ledger            {"served": ..., "refused": ..., "busy": ...}
    POST /workers/<K>       change K; jobs under way go on

It prints its port and ends when its standard input does, so it cannot outlive
whoever started it. Nothing of the package is used here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BOUNDARY = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab"


def _answer() -> bytes:
    job = json.dumps(
        {
            "id": "11111111-2222-4333-8444-555555555555",
            "type": "inference.ping.v1",
            "state": {"current": "completed"},
            "config": {},
            "metrics": {"elapsed": 0.1},
        }
    )
    body = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="job"; filename="job.json"\r\n'
        f"Content-Type: application/json\r\n\r\n{job}\r\n"
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="output"; filename="output.txt"\r\n'
        f"Content-Type: text/plain\r\n\r\npong\r\n--{BOUNDARY}--\r\n"
    ).encode()
    head = (
        "HTTP/1.1 200 OK\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    return head + body


class CapacityServer:
    """K workers, jobs of `seconds` give or take a fifth, and a ledger."""

    def __init__(self, workers: int, seconds: float, retry_after: str) -> None:
        self.workers = workers
        self.seconds = seconds
        self.busy = self.served = self.refused = 0
        self._ok = _answer()
        wait = f"Retry-After: {retry_after}\r\n" if retry_after else ""
        self._refusal = (
            f"HTTP/1.1 429 Too Many Requests\r\n{wait}Content-Length: 0\r\n\r\n".encode()
        )
        self._rng = random.Random(1)

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests until the client closes it."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *fields = head.split("\r\n")
                headers = {
                    name.strip().lower(): value.strip()
                    for name, _, value in (f.partition(":") for f in fields)
                }
                await self._read_body(reader, headers)
                writer.write(await self._respond(*line.split(" ")[:2]))
                await writer.drain()
        writer.close()

    async def _read_body(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> None:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                await reader.readexactly(size + 2)
            await reader.readuntil(b"\r\n")
        else:
            await reader.readexactly(int(headers.get("content-length", "0")))

    async def _respond(self, method: str, target: str) -> bytes:
        path = target.partition("?")[0]
        if (method, path) == ("POST", "/v2/job"):
            if self.busy >= self.workers:
                self.refused += 1
                return self._refusal
            self.busy += 1
            try:
                await asyncio.sleep(self.seconds * self._rng.uniform(0.8, 1.2))
            finally:
                self.busy -= 1
            self.served += 1
            return self._ok
        if path.startswith("/workers/"):
            self.workers = int(path.rpartition("/")[2])
        ledger = {"served": self.served, "refused": self.refused, "busy": self.busy}
        body = json.dumps(ledger).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@contextmanager
def serving(workers: int, seconds: float, retry_after: str = "1") -> Iterator[int]:
    """Run a server in a process of its own; gives its port on 127.0.0.1."""
    arguments = [str(workers), str(seconds), "--retry-after", retry_after]
    with subprocess.Popen(
        [sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


async def _main(arguments: argparse.Namespace) -> None:
    server = CapacityServer(arguments.workers, arguments.seconds, arguments.retry_after)
    listener = await asyncio.start_server(server.connection, "127.0.0.1", 0, backlog=4096)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    listener.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("workers", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--retry-after", default="1")
    asyncio.run(_main(parser.parse_args()))
