"""
Run image and video generation jobs on the Prodia v2 inference API.

::

    async with AsyncProdia() as client:  # the token is in PRODIA_TOKEN
        job = Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": "a strawberry"})
        response = await client.job(job, accept=WebP(quality=90))
        await response.save("strawberry.webp")

Begin with `AsyncProdia`: its `job` runs one, `map` many, `stream` hands over what comes while it
comes, `submit` leaves a job with the server. Every error is a `ProdiaError` and says whether the
job may have been charged (`may_have_run`). Beside this: `prodia_async.batch` (overnight, into a
folder), `.fireworks` (the Fireworks image API), `.testing` (a pytest plugin), `.integrations`
(FastAPI, aiohttp, OpenTelemetry, Ray, Daft), `.job_types` (typed helpers), `.transports`, and
`.emulator` (a local stand-in, without an account).
"""

# The front door: names out of the modules, nothing else.

from . import types
from ._async_jobs import AsyncJob
from ._attempts import Attempt, Timing
from ._client import AsyncProdia
from ._errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    CapacityError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    InternalServerError,
    InvalidRequestError,
    JobFailedError,
    JobNotFoundError,
    JobRefusedError,
    MalformedResponseError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ProdiaError,
    QueueFullError,
    RateLimitError,
    ResponseError,
    ResponseTooLargeError,
    ServerError,
    TruncatedResponseError,
)
from ._formats import JPEG, PNG, WebP
from ._hooks import AttemptDetails, AttemptHook, JobDetails
from ._models import Input, Job, JobOutcome, JobRequest, JobResponse, NoOutputError
from ._outputs import Output
from ._progress import MapProgress
from ._results import JobResult, Price
from ._retry import RetryPolicy
from ._scheduler import SchedulerStatistics
from ._stream import JobStream, OutputPart
from ._version import __version__

__all__ = [
    "JPEG",
    "PNG",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncJob",
    "AsyncProdia",
    "Attempt",
    "AttemptDetails",
    "AttemptHook",
    "AuthenticationError",
    "BadRequestError",
    "CapacityError",
    "ConnectError",
    "ConnectionLostError",
    "DeadlineExceededError",
    "Input",
    "InternalServerError",
    "InvalidRequestError",
    "Job",
    "JobDetails",
    "JobFailedError",
    "JobNotFoundError",
    "JobOutcome",
    "JobRefusedError",
    "JobRequest",
    "JobResponse",
    "JobResult",
    "JobStream",
    "MalformedResponseError",
    "MapProgress",
    "NoOutputError",
    "Output",
    "OutputPart",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "Price",
    "ProdiaError",
    "QueueFullError",
    "RateLimitError",
    "ResponseError",
    "ResponseTooLargeError",
    "RetryPolicy",
    "SchedulerStatistics",
    "ServerError",
    "Timing",
    "TruncatedResponseError",
    "WebP",
    "__version__",
]

# Tracebacks and pickles name the front door, not the module behind it.
for _door, _there in ((__name__, globals()), (types.__name__, vars(types))):
    for _name in _there["__all__"]:
        if isinstance(_there[_name], type):
            _there[_name].__module__ = _door
