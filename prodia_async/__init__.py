"""
Run image and video generation jobs on the Prodia v2 inference API.

The front door: names out of the rooms, nothing else.
"""

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
    MalformedResponseError,
    PayloadTooLargeError,
    PermissionDeniedError,
    ProdiaError,
    RateLimitError,
    ResponseError,
    ResponseTooLargeError,
    ServerError,
    TruncatedResponseError,
)
from ._formats import JPEG, PNG, WebP
from ._hooks import AttemptDetails, AttemptHook
from ._models import (
    Input,
    Job,
    JobOutcome,
    JobRequest,
    JobResponse,
    JobResult,
    Output,
    Price,
    Timing,
)
from ._retry import Attempt, RetryPolicy
from ._scheduler import SchedulerStatistics
from ._stream import JobStream, OutputPart
from ._version import __version__

__all__ = [
    "JPEG",
    "PNG",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
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
    "JobFailedError",
    "JobNotFoundError",
    "JobOutcome",
    "JobRequest",
    "JobResponse",
    "JobResult",
    "JobStream",
    "MalformedResponseError",
    "Output",
    "OutputPart",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "Price",
    "ProdiaError",
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

# Tracebacks and pickles name the front door, not the room behind it.
for _value in [globals()[_name] for _name in __all__]:
    if isinstance(_value, type):
        _value.__module__ = __name__
