"""The message that a Kontext task sends to its `webhook_url`: whether the service wrote it."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterable, Mapping

from .._errors import InvalidRequestError


def verify_webhook(
    body: bytes,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]],
    secret: str,
) -> bool:
    """
    Return whether a webhook's message was signed with its secret.

    ::

        @app.post("/done")
        async def done(request: Request) -> Response:
            body = await request.body()
            if not verify_webhook(body, request.headers, SECRET):
                return Response(status_code=401)

    The documents say that `webhook_secret` is for the check of a signature,
    and not how it is made. Chosen is what nearly all services do, and the
    emulator: HMAC-SHA256 of the body's bytes as they came, keyed with the
    secret, in hexadecimal or base64, with ``sha256=`` before it or not, in a
    header whose name ends in ``signature``. Several such headers, or several
    signatures in one, may be there: one that fits is enough.

    Args:
        body: The message's bytes as they came, not parsed and written again.
        headers: Its headers, names in any case; pairs of strings or of bytes, or a mapping.
        secret: The `webhook_secret` that was given with the order.

    Raises:
        InvalidRequestError: The secret is empty, or something is of a wrong type.
    """
    if not isinstance(secret, str) or not secret:
        # It is a secret, so it is not shown.
        raise InvalidRequestError("secret must be the webhook_secret of the order, not empty")
    if not isinstance(body, bytes | bytearray | memoryview):
        raise InvalidRequestError(
            f"body must be the message's bytes as they came, not {type(body).__name__}"
        )
    digest = hmac.new(secret.encode(), body, hashlib.sha256).digest()
    wanted = (digest.hex().encode(), b64encode(digest))
    return any(_fits(given, wanted) for given in _signatures(headers))


def _signatures(headers: Mapping[str, str] | Iterable[tuple[object, object]]) -> Iterable[bytes]:
    pairs: Iterable[tuple[object, object]]
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    for name, value in pairs:
        # Some frameworks hand them over in bytes, as they came.
        if _as_bytes(name).lower().endswith(b"signature"):
            for each in _as_bytes(value).split(b","):
                yield each.strip().removeprefix(b"sha256=")


def _as_bytes(text: object) -> bytes:
    """Return a name or a value, whatever whoever wrote the message put into it."""
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode(errors="backslashreplace")
    raise InvalidRequestError(
        f"headers must be names and values, strings or bytes, not {type(text).__name__}"
    )


def _fits(given: bytes, wanted: tuple[bytes, bytes]) -> bool:
    """Compare in a time that tells nothing of where they differ."""
    in_hex, in_base64 = wanted
    return hmac.compare_digest(given.lower(), in_hex) or hmac.compare_digest(given, in_base64)
