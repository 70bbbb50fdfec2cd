"""
Webhooks of Kontext tasks: called once, when a task has ended, and signed.

Documented are the two fields (``webhook_url``, ``webhook_secret``) and that the
secret is for a signature; all else is chosen: a POST of what ``get_result``
answers, and ``X-Fireworks-Signature: sha256=`` with the hex HMAC-SHA256 of the
body, keyed with the secret. Only this machine is called: a stand-in that is
used in tests sends nothing to anybody else.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGNATURE = "X-Fireworks-Signature"
"""The header that proves who called (chosen)."""

_TIMEOUT = 5.0
"""Seconds for the one who is called to answer (chosen)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One call that was made, or was not."""

    url: str
    """Where to."""
    body: bytes
    """What was sent: JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The headers that were set, the signature among them if there was a secret."""
    status: int | None = None
    """What was answered; ``None``: nothing."""
    error: str | None = None
    """Why nothing was."""


def signature(body: bytes, secret: str) -> str:
    """Sign a body."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def call(url: str, body: bytes, secret: str | None) -> Webhook:
    """
    Call a webhook, once; blocks until it has answered.

    Args:
        url: Of which the host must be this machine, or nothing is sent.
        body: JSON.
        secret: What to sign it with, if anything.
    """
    headers = {"Content-Type": "application/json"}
    if secret is not None:
        headers[SIGNATURE] = signature(body, secret)
    status, error = None, None
    if not _is_here(url):
        error = "not called: the emulator calls this machine alone"
    else:
        request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310  # checked
        # No proxy of the user's: it is this machine that is called.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_TIMEOUT) as response:
                status = response.status
        except urllib.error.HTTPError as exc:
            status = exc.code
            exc.close()
        except (OSError, ValueError) as exc:
            error = f"{type(exc).__name__}: {exc}"
    return Webhook(url=url, body=body, headers=headers, status=status, error=error)


def _is_here(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"}:
            return False
        host = parts.hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
