"""Whom to trust: one TLS context for the process, made off the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx
from anyio.lowlevel import RunVar

if TYPE_CHECKING:
    import ssl

_contexts: dict[str, ssl.SSLContext] = {}
_building: RunVar[anyio.Lock] = RunVar("prodia_async_ssl_context")


def _make() -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def shared_ssl_context() -> ssl.SSLContext:
    """
    Return the process's TLS context, made on first use.

    It trusts what httpx trusts: ``SSL_CERT_FILE``, else ``SSL_CERT_DIR``,
    else certifi. Making one takes 20 ms (measured), so it is done in a thread
    and once. Runs under asyncio and under trio.
    """
    if not _contexts:
        async with _building.get(None) or _set_up_lock():
            if not _contexts:
                context = await anyio.to_thread.run_sync(_make, abandon_on_cancel=True)
                # Another thread with its own loop may have been faster; the first one stays.
                _contexts.setdefault("shared", context)
    return _contexts["shared"]


def _set_up_lock() -> anyio.Lock:
    lock = anyio.Lock()
    _building.set(lock)
    return lock
