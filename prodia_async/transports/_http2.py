"""HTTP/2, over one of httpcore's pools."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import httpx

from ._sharded import ABSENT, Shard, ShardedTransport

if TYPE_CHECKING:
    import ssl

    import httpcore


class Http2Transport(ShardedTransport):
    """
    One pool that speaks HTTP/2 where the server does.

    httpcore cannot tell the server to drop a single response. So a pool on
    whose connection one was given up is retired: it takes no more requests,
    and is closed when the last of the others has ended.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        connect_timeout: float | None,
        idle_timeout: float,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        super().__init__(
            connect_timeout=connect_timeout, idle_timeout=idle_timeout, ssl_context=ssl_context
        )
        self._max_connections = max_connections
        self._current: Shard | None = None

    async def _make_context(self) -> ssl.SSLContext:
        # Not the shared one: httpcore writes "h2" into it, which the others do not speak.
        return await anyio.to_thread.run_sync(httpx.create_ssl_context)

    async def _take(self, context: ssl.SSLContext) -> Shard:
        shard = self._current
        if shard is not None and shard.load == 0 and _was_closed(shard.stream):
            # httpcore looks at the clock only, and would lose this request.
            await self._retire(shard)
        if self._current is None:
            self._current = Shard(
                self._make_pool(
                    context,
                    http2=True,
                    max_connections=self._max_connections,
                    max_keepalive_connections=self._max_connections,
                )
            )
            self._shards[self._current] = None
        self._current.load += 1
        return self._current

    async def _give_back(
        self, shard: Shard, response: httpcore.Response | None, *, is_clean: bool
    ) -> None:
        shard.load -= 1
        if response is not None:
            # In HTTP/1.1 an answer given up closes its own connection, and only that.
            is_shared = response.extensions.get("http_version") == b"HTTP/2"
            is_clean = is_clean or not is_shared
            if is_shared:
                shard.stream = response.extensions["network_stream"]
        if not is_clean or shard.is_retired:
            await self._retire(shard)

    async def _retire(self, shard: Shard) -> None:
        shard.is_retired = True
        if self._current is shard:
            self._current = None
        if shard.load == 0 and self._shards.pop(shard, ABSENT) is not ABSENT:
            await shard.pool.aclose()

    def _forget_all(self) -> None:
        super()._forget_all()
        self._current = None


def _was_closed(stream: Any) -> bool:
    """Return whether the other side has closed a connection, whatever it said before."""
    if stream is None or not hasattr(select, "POLLRDHUP"):  # not every system can tell
        return False
    if stream.get_extra_info("has_ended"):
        return True
    socket = stream.get_extra_info("socket")
    fileno = -1 if socket is None else socket.fileno()
    if fileno < 0:  # closed here already
        return True
    poll = select.poll()
    poll.register(fileno, select.POLLRDHUP)
    return bool(poll.poll(0))
