"""A transport that answers at once, without a socket: what is left of a job's cost is ours."""

from __future__ import annotations

import asyncio

import httpx
from _server import around, headers


class NullTransport(httpx.AsyncBaseTransport):
    """
    Answers each request with the same answer.

    Args:
        size: Bytes of the output.
        turns: Turns of the event loop that an answer takes.
    """

    def __init__(self, size: int, turns: int = 0) -> None:
        before, after = around()
        self._body = before + bytes(size) + after
        self._headers = headers(len(self._body))
        self._turns = turns

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Read the request's body and answer."""
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for _ in request.stream:
            pass
        for _ in range(self._turns):
            await asyncio.sleep(0)
        stream = httpx.ByteStream(self._body)
        return httpx.Response(200, headers=self._headers, stream=stream)
