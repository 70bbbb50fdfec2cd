"""Proxies, and which way is chosen."""

import asyncio
import importlib.util
import os
import traceback
from typing import Any

import httpcore
import httpx
import pytest
from wire import (
    OK,
    TRUSTING,
    Server,
    client_tls,
    fetch,
    read_request,
    scripted,
    server_tls,
)

from prodia_async import AsyncProdia, ConnectError, InvalidRequestError, RetryPolicy
from prodia_async.transports import default_transport
from prodia_async.transports._direct import DirectTransport
from prodia_async.transports._proxies import environment_proxy
from prodia_async.transports._sharded import ShardedTransport

# --- proxies, and the choice


async def test_tls_through_a_proxy_over_tls() -> None:
    """A tunnel through a proxy that is reached over TLS: both are checked, both are kept."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await read_request(reader)).startswith(b"CONNECT localhost:443 ")
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await writer.start_tls(server_tls())
        for _ in range(2):
            await read_request(reader)
            writer.write(OK)

    async with Server(script=script).running(ssl=server_tls()) as proxy:
        transport = ShardedTransport(
            proxy=f"https://localhost:{proxy.port}", ssl_context=client_tls()
        )
        for _ in range(2):
            assert await fetch(transport, "https://localhost/") == (200, b"ok")
        assert len(proxy.writers) == 1
        await transport.aclose()


async def test_a_socks_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SOCKS pool of httpcore is used, with our streams; without its package the error says."""
    made: list[dict[str, Any]] = []

    class Pool(httpcore.AsyncConnectionPool):
        def __init__(self, *, proxy_url: Any, proxy_auth: Any, **options: Any) -> None:
            made.append({"url": bytes(proxy_url), "auth": proxy_auth})
            super().__init__(**options)

    monkeypatch.setattr(httpcore, "AsyncSOCKSProxy", Pool)
    async with Server().running() as server:
        transport = ShardedTransport(proxy="socks5://u:p@proxy.test:1080", ssl_context=TRUSTING)
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        with pytest.raises(ImportError, match=r"httpx\[socks\]"):
            await fetch(transport, server.url)
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
        assert await fetch(transport, server.url) == (200, b"ok")
        await transport.aclose()
    assert made == [{"url": b"socks5://proxy.test:1080/", "auth": (b"u", b"p")}]


async def proxy_script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    request = await read_request(reader)
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.split(b"\r\n")[0])
        + request.split(b"\r\n")[0]
    )


async def test_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy that the environment names is the one that is asked."""
    async with scripted(proxy_script) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        transport = default_transport("http://example.test/x")
        assert isinstance(transport, ShardedTransport)
        status, line = await fetch(transport, "http://example.test/x")
        assert (status, line) == (200, b"POST http://example.test/x HTTP/1.1")
        await transport.aclose()


@pytest.mark.parametrize("answer", [b"407 Denied", b"502 Bad", b"200 OK", b""])
async def test_what_a_proxy_says_is_no_answer_to_the_job(answer: bytes) -> None:
    """A tunnel that is refused, or that breaks off, has carried nothing."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if answer:
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % answer)
        writer.close()

    async with scripted(script) as proxy:
        transport = ShardedTransport(
            proxy=f"http://127.0.0.1:{proxy.port}", ssl_context=client_tls()
        )
        retry = RetryPolicy(max_attempts=2, backoff_initial=0.01)
        async with AsyncProdia(
            "t", base_url="https://example.test/v2", transport=transport, retry=retry
        ) as prodia:
            with pytest.raises(ConnectError) as caught:
                await prodia.job({"type": "inference.ping.v1"})
    assert not caught.value.may_have_run
    assert [each.fate for each in caught.value.attempts] == ["undelivered"] * 2


async def test_through_a_proxy_over_tls() -> None:
    """A proxy that is itself reached over TLS is checked with the transport's context."""
    async with Server(script=proxy_script).running(ssl=server_tls()) as proxy:
        transport = ShardedTransport(
            proxy=httpx.Proxy(f"https://u:p@localhost:{proxy.port}"), ssl_context=client_tls()
        )
        assert (await fetch(transport, "http://example.test/x"))[0] == 200
        await transport.aclose()


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({}, "https://example.com/", None),
        ({"https_proxy": "http://p:1"}, "https://example.com/", "http://p:1"),
        ({"https_proxy": "p:1"}, "https://example.com/", "http://p:1"),
        ({"https_proxy": "http://p:1"}, "http://example.com/", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://example.com/", "http://p:1"),
        ({"all_proxy": "socks5://p:1"}, "https://example.com/", "socks5://p:1"),
        ({"all_proxy": "http://p:1", "no_proxy": "example.com"}, "https://a.example.com/", None),
        ({"all_proxy": "http://p:1", "no_proxy": "*"}, "https://example.com/", None),
        ({"all_proxy": "http://p:1", "no_proxy": "x.com"}, "https://example.com/", "http://p:1"),
    ],
)
async def test_the_proxy_of_the_environment(
    environment: dict[str, str], url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY, ALL_PROXY and NO_PROXY decide."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(url) == expected
    assert isinstance(default_transport(url), ShardedTransport if expected else DirectTransport)


@pytest.mark.parametrize("proxy", ["ftp://me:hunter2@p:1", "http://me:hunter2@p:x"])
async def test_a_proxy_that_is_none(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the environment that is wrong, and what is in it may be a secret."""
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")
    async with AsyncProdia("t", base_url="https://api.example.com") as prodia:
        with pytest.raises(InvalidRequestError, match="HTTPS_PROXY") as caught:
            await prodia.job({"type": "inference.ping.v1"})
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in shown
    assert not caught.value.may_have_run


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "emulator.localhost"])
def test_this_machine_needs_no_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Plain http to this machine may carry a token, so it must not go through a proxy."""
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert environment_proxy(f"http://{host}:8080") is None
    assert environment_proxy("http://api.example.com") == "http://proxy.example:3128"
