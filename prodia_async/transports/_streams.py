"""Connections for httpcore's pools, which read each response once more to prove its end."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
import httpcore

from .._wire import sending_now
from ._network import READ_AHEAD, SOCKET_OPTIONS, StalledError, Wire, dial, settle
from ._parsers import H11Response
from ._settled import BadResponseError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._wire import Sending

_COURTESIES = (b"\x04", b"\x06", b"\x08")
"""HTTP/2's frames SETTINGS, PING and WINDOW_UPDATE. Source: RFC 9113, section 6."""

_ANSWERS, _RST_STREAM, _END_STREAM = (0, 1), 3, 1
"""More of its frames, and a flag: DATA and HEADERS. Source: as above."""

_WINDOW_UPDATE, _LEAVE = b"\x08\x00", 2**30
"""A frame that gives leave to send a gigabyte: as long as the reset that it stands for."""

_STREAMS_KEPT = 256
"""How many ended answers are remembered. Chosen: a reset comes at once, of 100 at a time."""


class _Pieces(Wire):
    """What came on a connection of asyncio's and was not read."""

    __slots__ = ("_is_paused", "pieces", "reader", "unread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.pieces: deque[bytes] = deque()
        self.unread = 0
        self.reader: asyncio.Future[None] | None = None
        self._is_paused = False

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        self.unread += len(data)
        if self.unread > READ_AHEAD and not self._is_paused and self.transport is not None:
            self._is_paused = True
            self.transport.pause_reading()
        settle(self.reader)
        if self._is_refused():
            self._stop_draining()

    def _on_end(self) -> None:
        settle(self.reader)

    def _is_refused(self) -> bool:
        first = self.pieces[0] if self.pieces else b""
        return first[:5] == b"HTTP/" and first[9:10] in {b"4", b"5"}

    def take(self) -> bytes:
        """Remove the next bytes; there must be some."""
        data = self.pieces.popleft()
        self.unread -= len(data)
        if self._is_paused and not self.pieces and self.transport is not None:
            self._is_paused = False
            if not self.has_ended:
                self.transport.resume_reading()
        return data

    def abort(self) -> None:
        self.pieces.clear()
        self.unread = 0
        super().abort()


class _Stream(httpcore.AsyncNetworkStream):
    """
    A connection of asyncio's, for httpcore.

    Not httpcore's own, which goes through anyio: that holds what it has read
    beyond 64 KB where it cannot be seen, and it might be another answer.
    """

    def __init__(self, wire: _Pieces) -> None:
        self._wire = wire

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        # A piece is handed on as it came, whatever `max_bytes` is: cutting it would copy it.
        wire = self._wire
        if not wire.pieces and not wire.has_ended:
            wire.reader = wire.loop.create_future()
            timer = timeout and wire.loop.call_later(timeout, settle, wire.reader)
            try:
                await wire.reader
            finally:
                if timer:
                    timer.cancel()
            if not wire.pieces and not wire.has_ended:
                raise httpcore.ReadTimeout(f"nothing was received for {timeout:g} seconds")
        if wire.pieces:
            return wire.take()
        if wire.error is not None:
            raise httpcore.ReadError(f"the connection broke: {wire.error}") from wire.error
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # An answer that came early can be read after this error, and httpcore does.
        try:
            if not await self._wire.write(buffer, timeout):
                raise httpcore.WriteError("the connection has ended, or the request was refused")
        except StalledError as error:
            raise httpcore.WriteTimeout(str(error)) from None

    async def aclose(self) -> None:
        self._wire.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> _Stream:
        wire = self._wire
        try:
            if wire.transport is None or wire.has_ended or wire.pieces:
                # Bytes from before the handshake must never pass for protected ones.
                raise httpcore.ConnectError(f"{server_hostname} did not begin with TLS")
            async with asyncio.timeout(timeout):
                wire.transport = await wire.loop.start_tls(
                    wire.transport, wire, ssl_context, server_hostname=server_hostname
                )
        except BaseException as exc:
            wire.abort()
            if isinstance(exc, TimeoutError):
                raise httpcore.ConnectTimeout(
                    f"{server_hostname} did not finish the TLS handshake in time"
                ) from exc
            if isinstance(exc, (OSError, ValueError)):
                raise httpcore.ConnectError(f"TLS with {server_hostname} failed: {exc}") from exc
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        wire = self._wire
        if info == "is_readable":
            return bool(wire.pieces) or wire.is_stale()
        if info == "has_ended":  # ours alone
            return wire.has_ended
        if wire.transport is None or info not in {"ssl_object", "socket"}:
            return None
        return wire.transport.get_extra_info(info)


def _has_unread(tls: ssl.SSLObject) -> bool:
    """Return whether TLS holds bytes that were not read yet; where it does, one is lost."""
    try:
        tls.read(1)
    except ssl.SSLError as exc:
        return not isinstance(exc, ssl.SSLWantReadError)
    return True


class Frames:
    """
    Reads along in HTTP/2, so that no answer is lost to a reset behind it.

    A server that needs no more of an upload may answer and then reset the
    stream (RFC 9113, 8.1; Go's does). httpcore goes on to send, finds the
    stream closed, and forgets the answer over that. So such a reset is read as
    leave to send on: the body ends then, and the answer is had.
    """

    def __init__(self) -> None:
        self._skip = 0  # bytes of a frame of which the head was read
        self._held = b""  # the start of a frame that is not here yet
        self.ended: dict[bytes, bool] = {}  # the streams of ended answers; whether they were reset

    def receive(self, data: bytes) -> bytes:
        """Return the frames that httpcore is to see, perhaps none yet."""
        data = self._held + data
        at, size = self._skip, len(data)
        while at + 9 <= size:
            length, kind = int.from_bytes(data[at : at + 3]), data[at + 3]
            stream = data[at + 5 : at + 9]
            if kind == _RST_STREAM:
                if at + 13 > size:
                    break
                if stream in self.ended:
                    # Of what it throws away it may complain again.
                    leave = 1 if self.ended[stream] else _LEAVE
                    self.ended[stream] = True
                    more = _WINDOW_UPDATE + stream + leave.to_bytes(4)
                    data = data[: at + 3] + more + data[at + 13 :]
            elif kind in _ANSWERS and data[at + 4] & _END_STREAM:
                self.ended[stream] = False
                if len(self.ended) > _STREAMS_KEPT:
                    del self.ended[next(iter(self.ended))]
            at += 9 + length
        self._skip = max(0, at - size)
        self._held = data[at:]
        return data[:at]


class ProvenStream(httpcore.AsyncNetworkStream):
    """
    One connection of a pool: it can be used again only when its response is proven.

    A pool looks at an idle connection before it uses it again, and closes one
    that is readable: the server has spoken unasked, or ended. So this one
    calls itself readable unless the last response on it was `settle`d. HTTP/2
    numbers its streams and needs no proof.
    """

    def __init__(
        self, stream: httpcore.AsyncNetworkStream, tls: tuple[ssl.SSLObject, ...] = ()
    ) -> None:
        self._has_read = True  # since the last request began; the first write begins one
        self._stream = stream
        self._tls = tls  # outermost first; two for TLS through a proxy that is reached over TLS
        self._proof: H11Response | None = None
        self._sending: Sending | None = None
        self._frames = Frames()
        self._is_settled = self._is_http2 = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        self._has_read = True
        while self._is_http2 and data and not (seen := self._frames.receive(data)):
            data = await self._stream.read(max_bytes, timeout)
        if self._is_http2:
            return seen if data else b""
        proof = self._proof
        if proof is not None and data:
            self._note_an_answer()
            try:
                proof.receive(data)
            except BadResponseError as error:
                raise httpcore.RemoteProtocolError(str(error)) from None
            proof.pieces.clear()
            proof.unread = 0
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._has_read and not self._is_http2:
            # The first bytes of a request: httpcore, and SOCKS, read only after all is written.
            if self._is_settled and self.get_extra_info("is_readable"):
                # It went bad since the pool looked. The pool closes it and takes another.
                raise httpcore.ConnectionNotAvailable
            self._has_read = self._is_settled = False
            method = buffer.partition(b" ")[0]
            self._is_http2 = method == b"PRI"
            is_http1 = method.isalpha() and not self._is_http2  # SOCKS begins with a number
            self._proof = H11Response(method.decode("ascii")) if is_http1 else None
            # What answers a CONNECT is a proxy.
            self._sending = sending_now.get() if is_http1 and method != b"CONNECT" else None
        try:
            await self._stream.write(buffer, timeout)
        except httpcore.WriteError:
            # Courtesies to a server that has gone must not cost what it said before.
            if not self._is_http2 or buffer[3:4] not in _COURTESIES:
                raise
        except httpcore.WriteTimeout as exc:
            # After an error of this class httpcore looks for an answer, which may be a success.
            if not self._is_http2 and self._stream.get_extra_info("is_readable"):
                raise httpcore.WriteError(str(exc)) from exc
            raise
        except BaseException:
            # Cut off, and nobody will look for an answer.
            if not self._is_http2 and self.get_extra_info("is_readable"):
                self._note_an_answer()
            raise
        finally:
            self._look_for_an_end()

    def _note_an_answer(self) -> None:
        # Who answers before all of a request is there may have run it on what was.
        if self._sending is not None:
            self._sending.may_have_run = True

    def _look_for_an_end(self) -> None:
        sending = sending_now.get()  # of whoever calls, for each task writes its own pieces
        if sending is None or not self._is_http2:
            return
        sending.carrier = sending.carrier or self  # its head goes first
        was_reset = self._frames.ended.get(sending.stream.to_bytes(4))
        if sending.carrier is self and was_reset is not None:
            sending.may_have_run, sending.is_answered = True, was_reset

    def settle(self) -> None:
        """Note that a response was read to its end."""
        self._is_settled = (
            self._proof is not None
            and self._proof.is_settled
            and not any(map(_has_unread, self._tls))
        )

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> ProvenStream:
        stream = None
        try:
            stream = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        finally:
            if stream is None:
                # httpcore does this when the handshake fails, not when it is cancelled.
                with anyio.CancelScope(shield=True):
                    await self._stream.aclose()
        return ProvenStream(stream, (*self._tls, stream.get_extra_info("ssl_object")))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self._has_read and not (self._is_settled or self._is_http2):
            return True
        return self._stream.get_extra_info(info)


class Backend(httpcore.AsyncNetworkBackend):
    """Opens the streams of a pool on the running loop."""

    def __init__(self, *, is_asyncio: bool) -> None:
        self._is_asyncio = is_asyncio

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> ProvenStream:
        del socket_options  # the pools are given none
        try:
            with anyio.fail_after(timeout):
                if not self._is_asyncio:
                    return ProvenStream(
                        await httpcore.TrioBackend().connect_tcp(
                            host, port, None, local_address, SOCKET_OPTIONS
                        )
                    )
                loop = asyncio.get_running_loop()
                wire = await dial(lambda: _Pieces(loop), host, port, local_address=local_address)
                return ProvenStream(_Stream(wire))
        except TimeoutError as exc:
            raise httpcore.ConnectTimeout(f"{host}:{port} did not answer in time") from exc
        except (OSError, ValueError, OverflowError) as exc:  # the last two: no such name or port
            raise httpcore.ConnectError(f"could not connect to {host}:{port}: {exc}") from exc
