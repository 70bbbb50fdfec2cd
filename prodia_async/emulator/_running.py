"""
One start to stop: the thread, its loop and the server in it.

Uvicorn runs in a thread, so that the emulator works the same under asyncio,
under trio, in a notebook and in synchronous code, and never shares the loop of
the client it is there to test.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import sys
import threading
from typing import TYPE_CHECKING

import uvicorn

from ._door import BACKLOG, Door, close_listeners
from ._http2 import Http2Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._app import App
    from ._delivery import Address
    from ._http2 import Certificate

_STOP_SECONDS = 0.5
"""How long a stopping server lets answers drain before it cuts connections (chosen)."""

_UNSEEN_SECONDS = 0.05
"""When a port opens again if this process does not try it any more (chosen)."""


class _Server(uvicorn.Server):
    """Uvicorn's server with a prompt end: no ticks to wait for, nothing logged."""

    def __init__(self, config: uvicorn.Config, app: App, up: threading.Event) -> None:
        super().__init__(config)
        self._app = app
        self._up = up
        self.exit = asyncio.Event()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        # Uvicorn's own also catches signals and logs each step.
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets)
        await self.main_loop()
        await self.shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up.set()

    async def main_loop(self) -> None:
        ticks = 0
        # The tick renews the Date header; every tenth one, by uvicorn's count.
        while not await self.on_tick(ticks):
            ticks += 10
            try:
                async with asyncio.timeout(1.0):
                    await self.exit.wait()
            except TimeoutError:
                continue
            self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await close_listeners(self.servers)
        for listener in sockets or ():
            listener.close()
        self._app.desk.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        if not await self._drained():
            # Clients in the middle of an upload, or too slow to read an answer.
            for connection in list(state.connections):
                if connection.transport is not None:
                    connection.transport.abort()
            await self._drained()

    def transport_of(self, client: Address | None) -> asyncio.WriteTransport | None:
        """Find the connection of a client."""
        for connection in self.server_state.connections:
            if getattr(connection, "client", None) == client:
                return connection.transport
        return None

    async def shut(self) -> None:
        """Accept no more connections at the first address, and end the idle ones."""
        await close_listeners(self.servers[:1])
        for connection in list(self.server_state.connections):
            connection.shutdown()
        # A transport closes its socket a turn later.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def welcome(self, listener: socket.socket) -> None:
        """Accept connections at the first address again."""
        self._opening = asyncio.ensure_future(self._open(listener))

    async def _open(self, listener: socket.socket) -> None:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        protocol = functools.partial(
            make,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        self.servers[0] = await asyncio.get_running_loop().create_server(
            protocol, sock=listener, ssl=self.config.ssl, backlog=BACKLOG
        )

    async def _drained(self) -> bool:
        deadline = asyncio.get_running_loop().time() + _STOP_SECONDS
        state = self.server_state
        while state.connections or state.tasks or self._app.desk.working:
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.005)
        return True


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.ProactorEventLoop()
    return asyncio.SelectorEventLoop()


class Running:
    """One start to stop: the thread, its loop and the server in it."""

    def __init__(
        self,
        make_app: Callable[[int], App],
        listeners: list[socket.socket],
        keep_alive: int,
        *,
        http2: bool,
        certificate: Certificate | None,
    ) -> None:
        self.address: tuple[str, int] = listeners[0].getsockname()[:2]
        self._make_app = make_app
        self._listeners = listeners
        self._keep_alive = keep_alive
        self._http2 = http2
        self._certificate = certificate
        self._app: App | None = None
        self._server: _Server | Http2Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._door: Door | None = None
        self._thread = threading.Thread(target=self._run, name="prodia-emulator", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise RuntimeError("the emulator's server could not start") from self._failure

    def let_go(self) -> None:
        """Let the jobs finish that were held."""
        if self._loop is not None and self._app is not None:
            self._loop.call_soon_threadsafe(self._app.desk.let_go)

    def refuse(self, count: int) -> None:
        """Refuse the next connections; returns once the port does."""
        if self._door is not None and self._door.left:
            self._door.more(count)
            return
        if self._server is not None and self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._server.shut(), self._loop).result()
        self._door = Door(self.address, count, self._reopen, self._spent)
        self._door.close()

    @property
    def refusing(self) -> int:
        """How many connections are still to be refused."""
        return 0 if self._door is None else self._door.left

    def accept(self) -> None:
        """Refuse no more connections."""
        if self._door is not None:
            self._door.give_up()

    def _reopen(self) -> None:
        """Listen again; connections are queued from here on, whichever thread this is."""
        listener = listen(*self.address)
        listener.listen(BACKLOG)
        loop, server = self._loop, self._server
        if loop is not None and server is not None:
            loop.call_soon_threadsafe(server.welcome, listener)

    def _spent(self) -> None:
        door, loop = self._door, self._loop
        if door is not None and loop is not None:
            loop.call_soon_threadsafe(loop.call_later, _UNSEEN_SECONDS, door.give_up)

    def stop(self) -> None:
        """Stop, and return once the thread has ended."""
        if self._door is not None:
            self._door.forget()
        if self._loop is not None and self._server is not None:
            self._loop.call_soon_threadsafe(self._server.exit.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            # A loop of asyncio's own, whichever the client's program has chosen for itself.
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(self._serve())
        except BaseException as exc:  # noqa: BLE001  # handed to the thread that starts us
            self._failure = exc
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        samples_port: int = self._listeners[1].getsockname()[1]
        app = self._app = self._make_app(samples_port)
        self._loop = asyncio.get_running_loop()
        if self._http2:
            other = Http2Server(app, self._ready, self._keep_alive, self._certificate)
            self._server = other
            app.desk.transport_of, app.desk.writes_raw = other.transport_of, False
            await other.serve(self._listeners)
            return
        chain, key = self._certificate or (None, None)
        config = uvicorn.Config(
            app.asgi,
            ssl_certfile=chain,
            ssl_keyfile=key,
            # Uvicorn's loggers stay as the user's program has set them up.
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_keep_alive=self._keep_alive,
        )
        self._server = server = _Server(config, app, self._ready)
        app.desk.transport_of = server.transport_of
        await server.serve(self._listeners)


def listen(host: str, port: int) -> socket.socket:
    """Take an address to listen at; raises OSError, naming it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off for each
    # connection; without, every answer waits 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except OSError as exc:
        listener.close()
        raise OSError(
            exc.errno, f"the emulator cannot listen on {host} port {port}: {exc.strerror or exc}"
        ) from exc
    return listener
