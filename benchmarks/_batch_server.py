"""
A server that charges by seed, over real sockets, in a process of its own.

::

    POST /v2/job    after the job's time: 200 with a job result and 53 KB, charged to its seed;
                    at once: 429 when all workers are busy
    GET /ledger     {"charged": ..., "seeds": ..., "busy": ..., "refused": ..., "ports": {...}},
                    the ports with what was charged to each connection

It prints its port and ends when its standard input does. Nothing of the package is used here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

BOUNDARY = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab"
PICTURE = b"\xff\xd8" + bytes(53_000) + b"\xff\xd9"
PRICE = 0.0025


def answer(seed: int) -> bytes:
    """Return a whole answer for a job of that seed."""
    job = {
        "id": f"11111111-2222-4333-8444-{seed:012}",
        "type": "inference.flux-fast.schnell.txt2img.v2",
        "state": {"current": "completed"},
        "config": {"seed": seed},
        "price": {"product": "x", "dollars": PRICE},
    }
    part = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name="
    body = b"".join(
        [
            f'{part}"job"; filename="job.json"\r\nContent-Type: application/json\r\n\r\n'.encode(),
            json.dumps(job).encode(),
            f'\r\n{part}"output"; filename="o.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'.encode(),
            PICTURE,
            f"\r\n--{BOUNDARY}--\r\n".encode(),
        ]
    )
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Server:
    """Some workers, jobs of one length, and a ledger."""

    def __init__(self, workers: int, seconds: float) -> None:
        self._workers, self._seconds = workers, seconds
        self._busy = 0
        self._charged: Counter[int] = Counter()
        self._refused = 0
        self._ports: Counter[int] = Counter()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests until the client closes it."""
        port = writer.get_extra_info("peername")[1]
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                _, _, rest = head.partition("content-length:")
                body = await reader.readexactly(int(rest.split()[0])) if rest else b""
                if head.startswith("get"):
                    writer.write(self._ledger())
                elif self._busy >= self._workers:
                    self._refused += 1
                    writer.write(
                        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0.2\r\n"
                        b"Content-Length: 0\r\n\r\n"
                    )
                else:
                    self._busy += 1
                    seed = int(json.loads(body)["config"]["seed"])
                    try:
                        await asyncio.sleep(self._seconds)
                    finally:
                        self._busy -= 1
                        self._charged[seed] += 1  # it ran, whoever has left
                        self._ports[port] += 1
                    writer.write(answer(seed))
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            writer.close()

    def _ledger(self) -> bytes:
        ledger = {
            "charged": sum(self._charged.values()),
            "seeds": len(self._charged),
            "busy": self._busy,
            "refused": self._refused,
            "ports": self._ports,
        }
        body = json.dumps(ledger).encode()
        return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def _main(workers: int, seconds: float) -> None:
    server = Server(workers, seconds)
    listening = await asyncio.start_server(server.connection, "127.0.0.1", 0, limit=1 << 20)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextmanager
def serving(workers: int, seconds: float) -> Iterator[str]:
    """Give the base URL of a server, for a block."""
    command = [sys.executable, __file__, str(workers), str(seconds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def ledger(url: str) -> dict[str, Any]:
    """Return what a server has charged."""
    with urllib.request.urlopen(f"{url}/ledger", timeout=10) as response:
        found: dict[str, Any] = json.load(response)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workers", type=int)
    parser.add_argument("seconds", type=float)
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.workers, arguments.seconds))
