"""
HTTP/2 beside HTTP/1.1, by hypercorn; the extra ``emulator-http2`` brings it.

With a certificate the two are negotiated in the TLS handshake, as the service
does; without one a client has to know beforehand that HTTP/2 is spoken.

The connections are accepted here and handed to hypercorn one by one (its own
`serve` keeps them to itself), so that they can be broken on request, and so
that the end does not wait for clients who do not take part in closing TLS.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

from ._door import BACKLOG, close_listeners

if TYPE_CHECKING:
    import socket
    import threading
    from collections.abc import Awaitable, Callable

    from ._app import App
    from ._delivery import Address

Certificate = tuple[str, str]
"""Paths of a certificate chain and its key, both PEM."""

_STOP_SECONDS = 0.5
"""How long a stopping server lets answers drain before it cuts connections (chosen)."""


class Http2Server:
    """Hypercorn's connections, with a prompt end, and nothing logged."""

    def __init__(
        self, app: App, up: threading.Event, keep_alive: int, certificate: Certificate | None
    ) -> None:
        self._app = app
        self._up = up
        self._keep_alive = keep_alive
        self._tls = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
            self._tls.set_alpn_protocols(["h2", "http/1.1"])
        self.exit = asyncio.Event()
        self._servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._opening: asyncio.Future[None] | None = None

    async def serve(self, sockets: list[socket.socket]) -> None:
        """Serve until `exit` is set."""
        self._talk, self._end = _hypercorn(self._app, self._keep_alive)
        for listener in sockets:
            self._servers.append(await self._listen(listener))
        self._up.set()
        await self.exit.wait()
        await close_listeners(self._servers)
        self._app.desk.close()
        await self._end()
        if self._connections:
            await asyncio.wait(list(self._connections), timeout=_STOP_SECONDS)
        for writer in self._connections.values():
            writer.transport.abort()
        if self._connections:
            await asyncio.wait(list(self._connections), timeout=_STOP_SECONDS)

    async def _listen(self, listener: socket.socket) -> asyncio.Server:
        return await asyncio.start_server(
            self._connected, sock=listener, ssl=self._tls, backlog=BACKLOG
        )

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: Any = asyncio.current_task()
        self._connections[task] = writer
        try:
            await self._talk(reader, writer)
        finally:
            del self._connections[task]
            writer.transport.abort()

    def transport_of(self, client: Address | None) -> asyncio.WriteTransport | None:
        """Find the connection of a client."""
        for writer in self._connections.values():
            if writer.get_extra_info("peername")[:2] == client:
                return writer.transport
        return None

    async def shut(self) -> None:
        """Accept no more connections at the first address, and end the others."""
        await close_listeners(self._servers[:1])
        for writer in list(self._connections.values()):
            writer.transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def welcome(self, listener: socket.socket) -> None:
        """Accept connections at the first address again."""

        async def reopen() -> None:
            self._servers[0] = await self._listen(listener)

        self._opening = asyncio.ensure_future(reopen())


def _hypercorn(
    app: App, keep_alive: int
) -> tuple[
    Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    Callable[[], Awaitable[None]],
]:
    """Make what talks to one connection, and what tells all of them to come to an end."""
    # Behind an extra, so imported on use.
    from hypercorn.app_wrappers import ASGIWrapper  # noqa: PLC0415  (an extra)
    from hypercorn.asyncio.tcp_server import TCPServer  # noqa: PLC0415  (an extra)
    from hypercorn.asyncio.worker_context import WorkerContext  # noqa: PLC0415  (an extra)
    from hypercorn.config import Config  # noqa: PLC0415  (an extra)

    config = Config()
    config.errorlog = config.accesslog = None
    config.include_server_header = False
    config.keep_alive_timeout = keep_alive
    asgi: Any = app.asgi
    wrapped = ASGIWrapper(asgi)
    context = WorkerContext(None)
    state: Any = {}

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        await TCPServer(wrapped, loop, config, context, state, reader, writer)

    async def end() -> None:
        await context.terminated.set()

    return talk, end
