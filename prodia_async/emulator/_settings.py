"""What may be changed while the emulator runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .fireworks._behaviour import FireworksBehaviour
    from .prodia._behaviour import Behaviour

Latency = float | tuple[float, float] | Callable[[str], float]
"""How long a worker holds a job: seconds, bounds of them, or a function of the job type."""

RetryAfter = float | str | Callable[[], str | None] | None
"""The Retry-After of a refusal: seconds, its text, what makes it, or none."""


@dataclass(slots=True)
class Settings:
    """
    The settings; see `Emulator` for their meanings.

    Read by the loop once per request, so one assignment from any thread is enough.
    """

    tokens: frozenset[str] | None
    privileged_types: frozenset[str]
    latency: Latency
    retry_after: RetryAfter
    max_upload_bytes: int
    max_async_jobs: int
    sync_only_types: frozenset[str]
    behaviour: Behaviour
    fireworks: FireworksBehaviour
    held: bool = False
