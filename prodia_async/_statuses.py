"""An error status to the error to raise, in nobody's vocabulary: kinds, messages, `Retry-After`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING

from ._errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    CapacityError,
    JobFailedError,
    JobNotFoundError,
    JobRefusedError,
    MalformedResponseError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ProdiaError,
    ServerError,
)
from ._media import bare_type
from ._retry import parse_retry_after
from ._show import one_line, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._results import JobResult
    from ._wire import Headers

MAX_ERROR_BYTES = 64 * 1024
"""How much of an error's body is read and kept. Chosen."""

STATUS_ERRORS: Mapping[int, type[APIStatusError]] = MappingProxyType(
    {
        400: BadRequestError,
        401: AuthenticationError,
        403: PermissionDeniedError,
        404: JobNotFoundError,
        413: PayloadTooLargeError,
        429: CapacityError,
    }
)
"""What a status is in every API; others are `ServerError` from 500, else `APIStatusError`."""

_NO_ADVICE: Mapping[int, str] = MappingProxyType({})

# Each alternative takes what it looked at, so that a page full of "<" costs linear time.
_TAGS = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1>|\Z)|<[a-z/!?][^<>]*>?",
    re.DOTALL | re.IGNORECASE,
)
_QUOTED_TYPES = re.compile(r"text/.*|application/(.*\+)?(json|xml)|")


def status_error(
    status_code: int,
    headers: Headers,
    body: bytes,
    *,
    said: str | None,
    kinds: Mapping[int, type[APIStatusError]] = STATUS_ERRORS,
    advice: Mapping[int, str] = _NO_ADVICE,
    job: JobResult | None = None,
) -> ProdiaError:
    """
    Turn an error status into the error to raise.

    Args:
        status_code: Anything but a success.
        headers: The answer's headers.
        body: The start of its body.
        said: The server's own words, as far as there are any.
        kinds: Which status is which error.
        advice: What to do about a status, for the end of its message.
        job: The job result, if one came.
    """
    kind = kinds.get(status_code, ServerError if status_code >= 500 else APIStatusError)
    reason = one_line(said or "") or None
    message = _message(status_code, headers, reason or "")
    request_id = headers.get("x-request-id")
    if job is not None and job.failed and kind is not CapacityError:
        if status_code >= 500:
            return JobFailedError(
                message, status_code=status_code, reason=reason, request_id=request_id, job=job
            )
        kind = JobRefusedError
    if status_code in advice:
        message = f"{message.rstrip('.')}; {advice[status_code]}"
    ran = job is not None and job.succeeded and kind is ServerError
    if ran:
        message = f"{message.rstrip('.')}; its answer says that the job ran"
    return kind(
        message,
        status_code=status_code,
        body=body[:MAX_ERROR_BYTES],
        headers=headers,
        job=job,
        retry_after=retry_after(headers),
        request_id=request_id,
        reason=reason,
        fate="ran" if ran else None,
        # A redirect is not followed, and whether something ran before it nobody says.
        may_have_run=True if status_code < 400 else None,
    )


def _message(status_code: int, headers: Headers, said: str) -> str:
    try:
        phrase = f"{status_code} {HTTPStatus(status_code).phrase}"
    except ValueError:
        phrase = str(status_code)
    if 300 <= status_code < 400:
        said = f"redirects are not followed; it leads to {shown(headers.get('location'))}"
    return f"{phrase}: {said}" if said else phrase


def retry_after(headers: Headers) -> float | None:
    """Return the seconds an answer asks us to wait, or ``None``."""
    asked = headers.get_all("retry-after")
    if not asked:
        return None
    # Without the server's clock, ours has to do.
    return parse_retry_after(asked, date=headers.get("date"), now=datetime.now(UTC))


def check_encoding(headers: Headers) -> None:
    """Raise a `MalformedResponseError` for an answer that came encoded: nobody asked for that."""
    encoding = encoding_of(headers)
    if encoding:
        raise MalformedResponseError(
            f"the answer is encoded as {shown(encoding)}, which was not asked for"
        )


def encoding_of(headers: Headers) -> str:
    """Return the Content-Encoding, ``""`` where there is none."""
    encoding = headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def text_of(headers: Headers, body: bytes) -> str | None:
    """Return an error's body as text, tags left out; ``None`` when it is no text."""
    kind = bare_type(headers.get("content-type")) or ""
    if not _QUOTED_TYPES.fullmatch(kind) or encoding_of(headers):
        return None
    text = body[:MAX_ERROR_BYTES].decode(errors="replace")
    if kind == "text/html" or text.lstrip()[:1] == "<":
        text = _TAGS.sub(" ", text)
    return text
