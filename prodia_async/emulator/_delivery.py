"""
Answers on their way out: as they are, or with a planned mishap.

What HTTP itself would not let through is written on the connection directly;
the server sees that as a client who has left. A connection that may speak HTTP/2
is only ever reset so, with all that is under way on it, and an answer that ends
early ends its stream in good order.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.responses import Response

from ._bodies import Body, length_of, pieces_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
    from concurrent.futures import Executor

    from starlette.types import Receive, Scope, Send

    from ._script import Mishap

Address = tuple[str, int]

_PIECE = 1 << 16
"""Bytes that are handed to the server at once (chosen)."""

_BEATS = 20
"""Pieces a second of a slow answer (chosen)."""

_ARRIVAL = 0.02
"""Seconds for what was sent to arrive before a connection is reset (chosen)."""


class Delivery(Response):
    """
    A response that sends one answer.

    Args:
        status: HTTP status.
        headers: With ``content-type``; the length is added.
        body: What to send.
        mishap: What shall go wrong, if anything.
        pool: Where lazy bodies are made.
        transport_of: Finds the connection of a client.
        writes_raw: Whether what is written on it is HTTP/1.1.
        sleep: Waits, but not beyond the emulator's end.
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: Body,
        *,
        mishap: Mishap | None,
        pool: Executor,
        transport_of: Callable[[Address | None], asyncio.WriteTransport | None],
        writes_raw: bool,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        super().__init__(status_code=status)
        self._status = status
        self._given = headers
        self._body = body
        self._mishap = mishap
        self._pool = pool
        self._transport_of = transport_of
        self._writes_raw = writes_raw
        self._sleep = sleep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        mishap = self._mishap
        if mishap is None:
            await self._all(send)
        elif mishap.bytes_per_second is not None:
            await self._slowly(send, mishap.bytes_per_second, mishap.first_byte)
        elif mishap.framing == "chunked":
            await self._part(send, self._share(mishap.share), length=None, last=True)
        else:
            transport = self._transport_of(scope.get("client"))
            if transport is not None and (self._writes_raw or mishap.framing is None):
                await self._broken(transport, receive, send, mishap)
                return
            length = length_of(self._body) if mishap.framing == "length" else None
            await self._part(send, self._share(mishap.share), length=length, last=True)

    # In good order.

    async def _start(self, send: Send, length: int | None) -> None:
        headers = [(name.encode(), value.encode("latin-1")) for name, value in self._pairs(length)]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})

    def _pairs(self, length: int | None) -> Iterator[tuple[str, str]]:
        yield from self._given.items()
        if length is not None:
            yield "content-length", str(length)

    async def _all(self, send: Send) -> None:
        await self._start(send, length_of(self._body))
        if isinstance(self._body, bytes):
            await send({"type": "http.response.body", "body": self._body})
            return
        async for piece in self._pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        """Make the body off the loop, piece by piece: no more than one is in memory."""
        loop = asyncio.get_running_loop()
        making = pieces_of(self._body)
        while True:
            if isinstance(self._body, bytes):
                piece = next(making, None)
            else:
                piece = await loop.run_in_executor(self._pool, next, making, None)
            if piece is None:
                return
            for start in range(0, len(piece), _PIECE):
                yield piece[start : start + _PIECE]

    async def _slowly(self, send: Send, bytes_per_second: float, first_byte: float) -> None:
        await self._sleep(first_byte)
        await self._start(send, length_of(self._body))
        step = max(1, round(bytes_per_second / _BEATS))
        async for piece in self._pieces():
            for start in range(0, len(piece), step):
                beat = piece[start : start + step]
                await send({"type": "http.response.body", "body": beat, "more_body": True})
                pause, began = len(beat) / bytes_per_second, time.perf_counter()
                await self._sleep(pause)
                if time.perf_counter() - began < pause / 2:
                    return  # the emulator is stopping, and cuts the connection
        await send({"type": "http.response.body", "body": b""})

    # With a mishap.

    def _share(self, share: float) -> int:
        """Count the bytes that do go out: never all of them."""
        length = length_of(self._body)
        return max(0, min(int(length * share), length - 1))

    async def _part(self, send: Send, share: int, *, length: int | None, last: bool) -> None:
        """Send so many bytes, telling a length or none; `last` says that this was all."""
        await self._start(send, length)
        async for piece in self._first(share):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if last:
            await send({"type": "http.response.body", "body": b""})

    async def _first(self, length: int) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                if length <= 0:
                    return
                yield piece[:length]
                length -= len(piece)

    async def _broken(
        self, transport: asyncio.WriteTransport, receive: Receive, send: Send, mishap: Mishap
    ) -> None:
        share = self._share(mishap.share)
        if mishap.at == "head" and self._writes_raw:
            head = self._head("length")
            transport.write(head[: len(head) // 2])
        elif mishap.framing is not None:
            transport.write(self._head(mishap.framing))
            async for piece in self._first(share):
                transport.write(piece)
                await self._written(transport)
            transport.close()
        elif mishap.at == "body":
            await self._part(send, share, length=length_of(self._body), last=False)
        if mishap.framing is None:
            await self._written(transport)
            if mishap.at != "sent":
                await asyncio.sleep(_ARRIVAL)
            _reset(transport)
        # Until the server knows: an application that ends without an answer is an error to it.
        while (await receive())["type"] != "http.disconnect":
            pass

    def _head(self, framing: str) -> bytes:
        """Write the head of the answer by hand."""
        try:
            phrase = HTTPStatus(self._status).phrase
        except ValueError:
            phrase = ""
        length = length_of(self._body) if framing == "length" else None
        lines = [f"HTTP/1.1 {self._status} {phrase}"]
        lines += (f"{name}: {value}" for name, value in self._pairs(length))
        if framing == "close":
            lines.append("connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    @staticmethod
    async def _written(transport: asyncio.WriteTransport) -> None:
        """Wait until the kernel has it all, or the client has left."""
        # It tells its protocol alone, and that is the server's.
        while transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def _reset(transport: asyncio.WriteTransport) -> None:
    """Close a connection with a reset rather than an end."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
