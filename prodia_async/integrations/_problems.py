"""
An error of this package as an HTTP answer: a status, headers, and a body of RFC 9457.

==============================================  ====================================
error                                           status
==============================================  ====================================
found before anything was sent                  422
refused by the API with 400, 403, 404, 413      the same
its 401 (the service's own token)               502: no business of the caller's
no capacity, a full queue, a deadline that      503 with Retry-After
passed while the job waited for capacity
this service's client drains, or was closed     503 with Retry-After
another deadline, silence                       504
a job result that says ``failed``               422 with ``reason``
everything else                                 502
==============================================  ====================================

The body says whether the job may have run (and been charged), and the ids to
ask the API's people with. It never has the token, nor what the API said of it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._errors import (
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    CapacityError,
    ConnectError,
    DeadlineExceededError,
    InvalidRequestError,
    JobFailedError,
    ProdiaError,
    QueueFullError,
    ResponseError,
    ServerError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBLEM_JSON = "application/problem+json"

RETRY_AFTER = 1
"""Seconds after which a caller may try again, where nobody said. Chosen."""

HANDED_ON = frozenset({400, 403, 404, 413})
"""The API's refusals that are about what the caller asked."""

WAITS_FOR_CAPACITY = frozenset({"queued", "refused"})
"""Stages at which a deadline says that the server is busy, not that the job is slow."""

TITLES = {
    "invalid-request": "The job cannot be sent",
    "refused": "The API refused the job",
    "credentials": "This service's own credentials were refused",
    "busy": "No capacity",
    "closing": "This service is about to end",
    "deadline": "The job was not done in time",
    "job-failed": "The job failed",
    "unreadable": "The API's answer cannot be read",
    "unreachable": "The API cannot be reached, or has a fault",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """
    What to answer.

    Attributes:
        status: The HTTP status.
        headers: `content-type`, and `retry-after` where it makes sense.
        body: Of RFC 9457.
    """

    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def content(self) -> bytes:
        """The body as JSON."""
        return json.dumps(self.body, ensure_ascii=False).encode()


def problem_of(error: ProdiaError) -> Problem:
    """Return what a service answers when a job ended with this error."""
    status, word = _status_of(error)
    body: dict[str, Any] = {
        "type": f"urn:prodia-async:{word}",
        "title": TITLES[word],
        "status": status,
        # What the API says of our token is for our log, not for the caller.
        "detail": TITLES[word] if word == "credentials" else error.message,
        "may_have_run": error.may_have_run,
        "request_id": error.request_id,
    }
    if error.job_id is not None:
        body["job_id"] = error.job_id
    if isinstance(error, JobFailedError):
        body["reason"] = error.reason or (error.job.failure if error.job is not None else None)
    headers = {"content-type": PROBLEM_JSON, "cache-control": "no-store"}
    if status == 503:
        wait = getattr(error, "retry_after", None)
        body["retry_after"] = RETRY_AFTER if wait is None else wait
        # The header takes whole seconds; earlier than asked it must not be.
        headers["retry-after"] = str(math.ceil(body["retry_after"]))
    return Problem(status, headers, body)


def refusal_of(method: str, wanted: str | None = None) -> Problem | None:
    """
    Return the answer to a request that no job is worth: for a head alone, or for a rest.

    Frameworks hand HEAD to what is there for GET, and whoever checks a link asks
    so. And measured: under ``<video>`` Chromium asks for the rest of a film that
    broke off, some once a second for as long as the page is there.

    Args:
        method: The request's.
        wanted: Its Range header, where the answer is an output that is not kept.
    """
    headers = {"content-type": PROBLEM_JSON, "cache-control": "no-store"}
    if method == "HEAD":
        status, word, title = 405, "head", "What a job answers has no head without the job"
        headers["allow"] = "GET"
    elif wanted is not None and wanted.replace(" ", "") != "bytes=0-":
        status, word, title = 416, "range", "An output that is streamed has no ranges"
    else:
        return None
    body = {
        "type": f"urn:prodia-async:{word}",
        "title": title,
        "status": status,
        "detail": "It is made anew, and charged anew, each time; nothing was sent now",
        "may_have_run": False,
        "request_id": None,
    }
    return Problem(status, headers, body)


def _status_of(error: ProdiaError) -> tuple[int, str]:
    match error:
        case InvalidRequestError():
            return 422, "invalid-request"
        case CapacityError() | QueueFullError():
            return 503, "busy"
        case ConnectError(client_is_closing=True):
            return 503, "closing"
        case DeadlineExceededError(stage=stage):
            return (503, "busy") if stage in WAITS_FOR_CAPACITY else (504, "deadline")
        case APITimeoutError():
            return 504, "deadline"
        case JobFailedError():
            return 422, "job-failed"
        case AuthenticationError():
            return 502, "credentials"
        case ServerError():
            return 502, "unreachable"
        case APIStatusError(status_code=status) if status in HANDED_ON:
            return status, "refused"
        case APIStatusError() | ResponseError():
            return 502, "unreadable"
        case _:
            return 502, "unreachable"
