"""
Run image and video generation jobs on the Prodia v2 inference API.

The front door: names out of the rooms, nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    Timing,
)
from ._outputs import Output
from ._retry import Attempt, RetryPolicy
from ._scheduler import SchedulerStatistics
from ._version import __version__

if TYPE_CHECKING:
    from ._async_jobs import AsyncJob
    from ._results import JobResult, Price
    from ._stream import JobStream, OutputPart

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

# In rooms that take long to import, and that only a client needs.
_LATER = {
    "AsyncJob": "_async_jobs",
    "JobResult": "_results",
    "JobStream": "_stream",
    "OutputPart": "_stream",
    "Price": "_results",
}


def __getattr__(name: str) -> Any:
    room = _LATER.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{room}", __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__


# Tracebacks and pickles name the front door, not the room behind it.
for _value in [globals()[_name] for _name in __all__ if _name not in _LATER]:
    if isinstance(_value, type):
        _value.__module__ = __name__
