"""
What the server says of a job, as pydantic models that keep fields this package does not know.

The one module that imports pydantic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime  # noqa: TC003  (pydantic reads it)
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ._show import shown

SUCCEEDED_STATES = frozenset({"completed", "processed", "succeeded"})
"""State words of success. Documented: `completed` (sync), `processed` (async); last: chosen."""

FAILED_STATES = frozenset({"failed", "cancelled", "canceled", "expired"})
"""State words of failure. Documented: `failed`; the others are chosen, out of caution."""


MAX_JOB_VALUES = 50_000
"""
Most values (by its commas) of a job result that is read. Chosen: live ones have
some thirty. Reading one that is oddly shaped takes 1.5 µs a value and stands in
the way of everything else on the loop meanwhile (measured: 1 s for 7 MB).
"""


class _Received(BaseModel):
    """What the server sends: frozen, and unknown fields are kept."""

    # A price that is no number would spoil every sum it goes into.
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True, allow_inf_nan=False)

    def __repr__(self) -> str:
        # A result may carry a whole picture in its config.
        pairs = (f"{name}={shown(value)}" for name, value in self if value is not None)
        return f"{type(self).__name__}({', '.join(pairs)})"


class Price(_Received):
    """What a job cost. Source: reference "Price"."""

    product: str | None = None
    """What it was charged as."""
    dollars: float | None = None
    """In US dollars."""


class JobState(_Received):
    """Where a job stands. Source: reference "Inference", job result."""

    current: str | None = None
    """One word, as the server has it."""
    history: list[Any] | None = None
    """What it was before, oldest first, as the server has it."""


class JobMetrics(_Received):
    """How a job ran. Source: reference "Inference", job result."""

    elapsed: float | None = None
    """Inference time in seconds."""
    ips: float | None = None
    """Iterations per second, where that means something."""


class JobResult(_Received):
    """
    What the server says of a job: the job, and what became of it.

    Unknown fields are kept (``model_extra``). A field that does not have its
    documented type is read as absent, so that an odd time stamp cannot cost
    a picture that was paid for.
    """

    id: str | None = None
    """Made by the server."""
    type: str | None = None
    """The job type."""
    created_at: datetime | None = None
    """When the server took it, in UTC."""
    updated_at: datetime | None = None
    """When it last changed, in UTC."""
    expires_at: datetime | None = None
    """Until when an async job's outputs can be collected, in UTC."""
    state: JobState = JobState()
    """`current` is ``completed`` or ``processed`` on success."""
    config: dict[str, Any] | None = None
    """The job's config with defaults and computed values (the seed) filled in."""
    metrics: JobMetrics | None = None
    """How it ran."""
    price: Price | None = None
    """Only when it was asked for, and the server knew it."""
    error: str | None = None
    """Why it failed, when it did."""

    @property
    def succeeded(self) -> bool:
        """Whether the state is one of success: ``completed`` or ``processed``."""
        return state_word(self) in SUCCEEDED_STATES

    @property
    def failed(self) -> bool:
        """Whether the state is one of failure: ``failed``."""
        return state_word(self) in FAILED_STATES

    @property
    def failure(self) -> str | None:
        """
        Why the job failed, in the server's words.

        `error` where it is set, else the last message in the state's history
        (where a client of 2025 found it).
        """
        if self.error:
            return self.error
        for entry in reversed(self.state.history or []):
            if isinstance(entry, Mapping) and isinstance(entry.get("message"), str):
                return str(entry["message"])
        return None


def state_word(job: JobResult) -> str:
    """Return the word for a job's state as it is compared: lower case, no blanks; may be empty."""
    return (job.state.current or "").strip().lower()


def dollars_of(job: JobResult | None) -> float | None:
    """
    Return what a job cost, as far as the server said.

    A negative price is none: it would take away from the sum of what was paid.
    """
    if job is None or job.price is None or job.price.dollars is None or job.price.dollars < 0:
        return None
    return job.price.dollars


def seed_of(job: JobResult | None) -> int | None:
    """Return the seed that was used, as the server filled it in, or ``None``."""
    seed = (job.config or {}).get("seed") if job is not None else None
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None


def read_job_result(content: bytes | bytearray | memoryview) -> JobResult | None:
    """
    Read a job result, forgiving what is odd in it.

    Bytes that are no UTF-8 are replaced; a field that is not of its documented
    type is dropped, and nothing else with it.

    Returns:
        The job result, or ``None`` if ``content`` is not a JSON object or has
        more than `MAX_JOB_VALUES`. Never an error, whatever it is.
    """
    text = bytes(content)
    if len(text) > MAX_JOB_VALUES and text.count(b",") > MAX_JOB_VALUES:
        return None
    try:
        return JobResult.model_validate_json(text)
    except ValidationError:
        # Take the whole apart only when it does not fit as it stands.
        return _read_oddly_shaped(text)


def _read_oddly_shaped(content: bytes) -> JobResult | None:
    # The stdlib's reader takes what pydantic's does not: a byte order mark,
    # half a surrogate pair, nesting beyond 200, whole numbers of any length.
    text = content.decode("utf-8-sig", errors="replace")
    try:
        values = json.loads(text, parse_int=_read_int)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    _salvage(values)
    try:
        return JobResult.model_validate(values)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            _drop(values, fault["loc"])
    return JobResult.model_validate(values)


def _read_int(digits: str) -> int | float:
    # Python refuses to read an int of more than 4,300 digits; as a float it is infinite.
    return int(digits) if len(digits) < 1000 else float(digits)


def _salvage(values: dict[str, Any]) -> None:
    """Keep the sense of what decides whether a job failed, and why, in shapes it might have."""
    if isinstance(values.get("state"), str):
        values["state"] = {"current": values["state"]}
    error = values.get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        values["error"] = error["message"]
    elif error is not None and not isinstance(error, str):
        values["error"] = shown(error)


def _drop(values: dict[str, Any], place: tuple[int | str, ...]) -> None:
    """Remove what lies at ``place``, or the last of its ancestors that is there."""
    name, *rest = place
    inner = values.get(str(name))
    if rest and isinstance(inner, dict) and str(rest[0]) in inner:
        _drop(inner, tuple(rest))
    else:
        values.pop(str(name), None)
