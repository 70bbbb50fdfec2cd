"""Whom to trust."""

import asyncio
import ssl
import threading

import pytest
import trio
from wire import (
    CERTS,
    Server,
    client_tls,
    fetch,
    server_tls,
)

from prodia_async.transports import (
    _tls,
)
from prodia_async.transports._direct import DirectTransport
from prodia_async.transports._sharded import ShardedTransport
from prodia_async.transports._tls import shared_ssl_context


async def test_the_shared_context_is_made_once_and_off_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many who ask at once get one context, made in a thread."""
    makers = []

    def make() -> ssl.SSLContext:
        makers.append(threading.current_thread())
        return client_tls()

    monkeypatch.setattr(_tls, "_contexts", {})
    monkeypatch.setattr(_tls, "_make", make)
    contexts = await asyncio.gather(*[shared_ssl_context() for _ in range(20)])
    assert len(set(map(id, contexts))) == len(makers) == 1
    assert makers[0] is not threading.main_thread()


async def test_the_shared_context_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a context of its own, a transport trusts what httpx trusts, over HTTP/1.1."""
    monkeypatch.setattr(_tls, "_contexts", {})
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTS / "localhost.pem"))
    async with Server().running(ssl=server_tls()) as server:
        for transport in (DirectTransport(), ShardedTransport()):
            assert await fetch(transport, f"https://localhost:{server.port}/") == (200, b"ok")
            await transport.aclose()


def test_the_shared_context_under_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared context is made under trio as well."""
    monkeypatch.setattr(_tls, "_contexts", {})
    monkeypatch.setattr(_tls, "_make", client_tls)
    assert trio.run(shared_ssl_context) is _tls._contexts["shared"]
