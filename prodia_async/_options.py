"""What `AsyncProdia` and its jobs may be told: each option once, with its check."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar

from ._base import Account, BaseOptions, TokenSource
from ._checks import flag
from ._errors import InvalidRequestError
from ._formats import accept_header
from ._models import Job, JobRequest
from ._show import shown

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from ._formats import Format
    from ._hooks import AttemptHook
    from ._models import InputLike
    from ._retry import RetryPolicy

ACCOUNT = Account(
    credential="token",
    option="token",
    variable="PRODIA_TOKEN",
    url="https://inference.prodia.com",  # documented: reference "Inference"
    url_variable="PRODIA_BASE_URL",
    # Every sample in the documents has the address of the jobs themselves.
    url_suffixes=("/v2/job/async", "/v2/job", "/v2"),
    requests="the jobs (Job, JobRequest, mappings)",
)

JobLike = Job | Mapping[str, Any]
"""A `Job`, or the same as a mapping: ``{"type": ..., "config": {...}}``."""

Validate: TypeAlias = Literal["off", "known", "warn"]
"""How jobs are checked before they are sent; see `AsyncProdia`."""


class Options(TypedDict, total=False):
    """What `AsyncProdia.with_options` may change."""

    token: TokenSource
    """The API token, or a function that returns one."""
    retry: RetryPolicy
    """When to try again."""
    timeout: float
    """Seconds of silence on the wire allowed within one attempt."""
    deadline: float | None
    """Seconds for one job in all."""
    price: bool
    """Ask what each job cost."""
    accept: Format | str | None
    """The format of outputs where a job does not say."""
    extra_headers: Mapping[str, str] | None
    """Further headers for every request."""
    max_queued: int | None
    """How many jobs may wait for a slot; one more is a `QueueFullError`."""
    cache: str | os.PathLike[str] | None
    """A folder that keeps answers."""
    hook: AttemptHook | None
    """A function to be told of every job and attempt."""
    validate: Validate | None
    """How jobs are checked before they are sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions(BaseOptions):
    """
    `Options` with all their defaults, checked.

    Raises:
        InvalidRequestError: A value is out of its range.
    """

    token: TokenSource | None = field(default=None, repr=False)
    price: bool = False
    accept: Format | str | None = None
    validate: Validate | None = None

    def __post_init__(self) -> None:
        BaseOptions.__post_init__(self)
        flag("price", self.price)
        accept_header(self.accept, multipart=True)
        if self.validate not in (None, "off", "known", "warn"):
            raise InvalidRequestError(
                f'validate must be "off", "known", "warn" or None, not {shown(self.validate)}'
            )

    @property
    def credential(self) -> TokenSource | None:
        """The token."""
        return self.token


class JobOptions(TypedDict, total=False):
    """What `AsyncProdia.job`, `submit` and `stream` take beside the job."""

    inputs: Sequence[InputLike]
    """Files that the job works on, in order."""
    accept: Format | str | None
    """The format of the first output."""
    multipart: bool
    """Have the job result come along."""
    price: bool | None
    """Ask what the job cost."""
    deadline: float | None
    """Seconds for the job in all."""
    extra_headers: Mapping[str, str] | None
    """Further request headers."""
    extra_query: Mapping[str, str] | None
    """Further query parameters."""


Method = TypeVar("Method", bound="Callable[..., Any]")


def shows_options(method: Method) -> Method:
    """Have ``help`` and an editor show each option of a method that takes `JobOptions`."""
    signature = inspect.signature(method)
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    wanted = inspect.signature(JobRequest).parameters
    options = [
        wanted[name].replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name in JobOptions.__annotations__
    ]
    before = [each for each in own if each.kind is not each.KEYWORD_ONLY]
    after = [each for each in own if each.kind is each.KEYWORD_ONLY]
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*before, *options, *after]
    )
    return method
