"""An answer of the API, made up, for respx and for transports of one's own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx

from .._errors import InvalidRequestError
from .._media import OCTET_STREAM, sniff, suffix_of
from .._models import Job, JobRequest
from .._outputs import Output
from .._show import shown
from .._uploads import FormPart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

JOB_ID = "7c1d0f0e-0000-4000-8000-00000000000"
BOUNDARY = "a" * 60
"""As long as the server's: 60 hex digits. Measured; see the samples of the reference."""

FAKE_PICTURE = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS"
    b"\xde\x00\x00\x00\x0cIDATx\x9cc\xf8\xcf\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef\x00\x00"
    b"\x00\x00IEND\xaeB`\x82"
)
"""A PNG of one red pixel: what an answer has when it was not told its outputs."""

OutputLike: TypeAlias = "bytes | Output | tuple[str, bytes] | tuple[str, bytes, str]"
"""An output of `answer`: its bytes, an `Output`, or its name and bytes, and perhaps its type."""


def answer(
    job: Job | JobRequest | Mapping[str, Any] | None = None,
    outputs: Sequence[OutputLike] = (FAKE_PICTURE,),
    *,
    status: int = 200,
    error: str | None = None,
    dollars: float | None = None,
    retry_after: float | None = None,
    multipart: bool = True,
    request_id: str = "a-request-of-a-test",
) -> httpx.Response:
    """
    Make an answer as the API gives it.

    ::

        respx.post("https://inference.prodia.com/v2/job").mock(
            side_effect=[answer(status=429, retry_after=30), answer(job, [b"..."])]
        )

    Args:
        job: What was asked, or fields of the job result: ``config`` with the
            seed, ``state``, ``price``. What is missing is made up.
        outputs: In wire order; by default one PNG of one pixel. Types are
            told by the bytes.
        status: An error status other than 2xx answers with ``error`` as text.
        error: Why the job failed: its state is then ``failed``.
        dollars: What it cost.
        retry_after: The Retry-After header, in seconds.
        multipart: ``False``: the first output alone, as the same option of a job asks.
        request_id: The ``x-request-id`` header.

    Returns:
        A response for ``return_value`` or ``side_effect`` of a respx route, or
        for the handler of an ``httpx.MockTransport``.

    Raises:
        InvalidRequestError: ``multipart=False`` without an output, or an
            output that is none of these.
    """
    headers = {"x-request-id": request_id}
    if retry_after is not None:
        headers["retry-after"] = f"{retry_after:g}"
    files = [_as_output(each, number) for number, each in enumerate(outputs, 1)]
    if not 200 <= status < 300:
        headers["content-type"] = "text/plain; charset=utf-8"
        text = error or ("no idle capacity" if status == 429 else f"made up by a test: {status}")
        return httpx.Response(status, headers=headers, content=text.encode())
    if not multipart:
        if not files:
            raise InvalidRequestError("an answer with multipart=False needs an output")
        headers["content-type"] = files[0].content_type
        return httpx.Response(status, headers=headers, content=files[0].content)
    result = json.dumps(_job_result(job, error, dollars)).encode()
    parts = [_part("job", "job.json", "application/json", result)]
    if error is None:
        parts += [_part("output", str(f.filename), f.content_type, f.content) for f in files]
    headers["content-type"] = f"multipart/form-data; boundary={BOUNDARY}"
    return httpx.Response(
        status, headers=headers, content=b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
    )


def _job_result(
    job: Job | JobRequest | Mapping[str, Any] | None, error: str | None, dollars: float | None
) -> dict[str, Any]:
    if isinstance(job, JobRequest):
        job = job.job
    asked = job.to_wire() if isinstance(job, Job) else dict(job or {})
    result: dict[str, Any] = {
        "id": JOB_ID,
        "type": "inference.flux-fast.schnell.txt2img.v2",
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:01Z",
        "expires_at": "2026-01-01T00:05:00Z",
        "state": {"current": "failed" if error else "completed"},
        "config": {"seed": 42},
        "metrics": {"elapsed": 0.5},
        **asked,
    }
    if error is not None:
        result["error"] = error
    if dollars is not None:
        result["price"] = {"product": result["type"], "dollars": dollars}
    return result


def _as_output(given: OutputLike, number: int) -> Output:
    content_type: str | None = None
    name: str | None = None
    match given:
        case Output():
            content, name, content_type = given.content, given.filename, given.content_type
        case bytes():
            content = given
        case (str(name), bytes(content)):
            pass
        case (str(name), bytes(content), str(content_type)):
            pass
        case _:
            raise InvalidRequestError(
                "an output must be bytes, an Output, (name, bytes) or (name, bytes, type), "
                f"not {shown(given)}"
            )
    content_type = content_type or sniff(content) or OCTET_STREAM
    suffix = suffix_of(content_type) or ".bin"
    return Output(content, content_type, name or f"output-{number}{suffix}")


def _part(name: str, filename: str, content_type: str, content: bytes) -> bytes:
    part = FormPart(name, filename, content_type, content, len(content))
    return part.head(BOUNDARY) + content + b"\r\n"
