"""
Ways to send. The client finds its own; two more are for those who need them.

A transport made here is handed to the client, which closes it::

    from prodia_async.transports import aiohttp_transport

    async with AsyncProdia(transport=aiohttp_transport(max_connections=64)) as prodia:
        ...

What comes out of all is httpx's errors only, and each of them says as much
about the job as it can. Nothing is sent twice, a connection is used again only
when its response is proven to be over, and closed means closed.

A transport of either kind belongs to the event loop it was first used on, and
is closed there.

For tests: ``respx.mock`` intercepts the default transport, `http2_transport`
and httpx's own, by way of httpcore; it does not see `aiohttp_transport`.
``respx.mock(using="httpx")`` sees only what goes through a client given as
``http_client=``: everything else is really sent.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import httpx

from .._checks import integer, optional, seconds
from .._errors import InvalidRequestError
from ._direct import DirectTransport
from ._network import is_under_asyncio
from ._proxies import environment_proxy

if TYPE_CHECKING:
    import ssl

    import aiohttp

    from ._sharded import ShardedTransport

__all__ = ["aiohttp_transport", "http2_transport"]

# What is built on httpcore is imported when it is asked for: httpcore imports trio wherever
# that is installed, a third of what importing the package would cost (measured).


def default_transport(url: httpx.URL | str) -> DirectTransport | ShardedTransport:
    """
    Make the transport that suits the place it is called from.

    Call it in the event loop that will use it.

    Args:
        url: Where the requests will go; decides about proxies (`environment_proxy`).

    Returns:
        A `DirectTransport` under asyncio without a proxy, else a `ShardedTransport`.

    Raises:
        InvalidRequestError: The environment names a proxy that is none.
    """
    proxy = environment_proxy(url)
    if proxy is None and is_under_asyncio():
        return DirectTransport()
    from ._sharded import ShardedTransport  # noqa: PLC0415  (as above)

    try:
        return ShardedTransport(proxy=proxy)
    except (httpx.InvalidURL, ValueError):
        pass
    # A password may be in it, so neither it nor its error is shown.
    raise InvalidRequestError(
        "the proxy that the environment names (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY) must read like "
        "'http://host:port', or begin with https:// or socks5://"
    )


def aiohttp_transport(
    *,
    session: aiohttp.ClientSession | None = None,
    max_connections: int = 64,
    connect_timeout: float | None = 10.0,
    idle_timeout: float = 30.0,
    ssl_context: ssl.SSLContext | None = None,
) -> httpx.AsyncBaseTransport:
    """
    Make a transport over aiohttp, for programs that have it anyway. asyncio only.

    It does less than the default transport in these points: a single header
    line of more than 8 KB is refused (`MalformedResponseError`), an answer of
    more bytes than it said is refused as a whole, and a connection given up in
    the middle of an upload stays open until the server has read or closed it.

    Args:
        session: A session of yours to send through. Its connections, cookies
            and proxies are used, the arguments below (but `connect_timeout`)
            have no meaning then, and it is never closed here.
        max_connections: The most connections at once; further requests wait.
            Chosen: the client's own ``max_concurrency``; give the same number.
        connect_timeout: Seconds to connect, TLS included but not DNS, where
            the request does not say; the client's requests do. ``None`` is no
            limit.
        idle_timeout: Seconds an idle connection is kept. Chosen, as for the
            default transport.
        ssl_context: Whom to trust; the process's shared one by default.

    Returns:
        A transport without redirects, decompression, or retries of its own;
        and without cookies, unless your session has them.

    Raises:
        ImportError: The extra ``aiohttp`` is not installed.
        InvalidRequestError: An argument is out of its range.
    """
    _check(max_connections, connect_timeout, idle_timeout)
    try:
        # An extra, looked for when it is asked for and not before.
        from ._aiohttp import AiohttpTransport, ClientSession  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ImportError(
            "aiohttp_transport needs aiohttp: pip install 'prodia-async[aiohttp]'"
        ) from error
    if session is not None and not isinstance(session, ClientSession):
        raise InvalidRequestError(
            f"session must be an aiohttp.ClientSession, not {type(session).__name__}"
        )
    return AiohttpTransport(
        session=session,
        max_connections=max_connections,
        connect_timeout=connect_timeout,
        idle_timeout=idle_timeout,
        ssl_context=ssl_context,
    )


def http2_transport(
    *,
    max_connections: int = 64,
    connect_timeout: float | None = 10.0,
    idle_timeout: float = 30.0,
    ssl_context: ssl.SSLContext | None = None,
) -> httpx.AsyncBaseTransport:
    """
    Make a transport that speaks HTTP/2 where the server does, over httpcore.

    For a gateway that allows few connections, or is far away: all jobs travel
    on one connection, 100 at a time at most (a limit of httpcore) and never
    more than the server allows; the others wait. A server that does not offer
    HTTP/2 is spoken to in HTTP/1.1. asyncio or trio; trio warns of httpcore's
    generators (ResourceWarning) when an answer is left early.

    One connection for all has its price. When it breaks, every job on it is
    lost (`ConnectionLostError`: each may have run). ``timeout`` counts the
    silence of the connection, not of the job: it cannot run out for one job
    while others are answered, and when it does, it does for all. An answer
    that is read slowly holds up the others once 16 MB of it lie unread.

    httpcore cannot tell the server to drop a single answer. So when one was
    left early, or its job was cancelled, the connection it was on takes no
    more requests, and is closed when the last of the others has ended.

    Args:
        max_connections: The most connections at once to a server without
            HTTP/2. Chosen: the client's own ``max_concurrency``.
        connect_timeout: Seconds for the TCP connection and again for TLS,
            where the request does not say; the client's requests do. ``None``
            is no limit.
        idle_timeout: Seconds an idle connection is kept. Chosen, as for the
            default transport.
        ssl_context: Whom to trust; what httpx trusts by default. Its ALPN
            protocols are set to ``http/1.1`` and ``h2``.

    Returns:
        A transport.

    Raises:
        ImportError: The extra ``http2`` is not installed.
        InvalidRequestError: An argument is out of its range.
    """
    _check(max_connections, connect_timeout, idle_timeout)
    try:
        import h2.events  # noqa: F401, PLC0415  (an extra; httpcore would miss it later)

        from ._http2 import Http2Transport  # noqa: PLC0415  (as above)
    except ImportError as error:
        raise ImportError("http2_transport needs h2: pip install 'prodia-async[http2]'") from error
    # At DEBUG it writes every header down, the token among them.
    logging.getLogger("hpack").setLevel(logging.INFO)
    return Http2Transport(
        max_connections=max_connections,
        connect_timeout=connect_timeout,
        idle_timeout=idle_timeout,
        ssl_context=ssl_context,
    )


def _check(max_connections: int, connect_timeout: float | None, idle_timeout: float) -> None:
    integer("max_connections", max_connections, least=1)
    optional(seconds, "connect_timeout", connect_timeout)
    seconds("idle_timeout", idle_timeout)
