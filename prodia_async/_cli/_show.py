"""What is said of a job that ran: lines for people, JSON for programs."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .._show import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .._models import JobResponse
    from .._outputs import Output
    from .._results import JobResult


def console(*, stderr: bool = False) -> Console:
    """Return what writes lines as they are."""
    return Console(highlight=False, markup=False, soft_wrap=True, stderr=stderr)


@contextlib.contextmanager
def spinner(what: str) -> Iterator[None]:
    """Show that something is going on, on a terminal only."""
    terminal = Console(stderr=True, markup=False)
    if not terminal.is_terminal:
        yield
        return
    with terminal.status(one_line(what)):
        yield


def wrote(output: Output, path: Path | None) -> str:
    """Say where an output went."""
    return (
        f"wrote     {path or 'standard output'} "
        f"({one_line(output.content_type)}, {len(output.content):,} bytes)"
    )


def summary(response: JobResponse) -> Iterator[str]:
    """Say what there is to say of a job besides its outputs."""
    job, timing = response.job, response.timing
    if not response.outputs:
        yield "wrote     nothing: this job made no output"
    if job is not None and (job.config or {}).get("seed") is not None:
        yield f"seed      {one_line(str((job.config or {})['seed']))}"
    waited = timing.queued + timing.backoff
    waiting = f", {waited:.2f} s of it waiting" if waited >= 0.005 else ""
    yield f"time      {timing.total:.2f} s{waiting}"
    if response.attempts:
        tried = ", ".join(map(str, response.attempts))
        yield f"attempts  {len(response.attempts)} ({tried})"
    if job is not None and job.price is not None and job.price.dollars is not None:
        yield f"price     ${job.price.dollars:g}"


def result_json(job: JobResult) -> str:
    """Return a job result as JSON, whatever the server put into it."""
    try:
        return job.model_dump_json(exclude_unset=True, indent=2)
    except (ValueError, RecursionError):
        # Nested beyond what pydantic writes, or half a surrogate pair.
        given = {name: getattr(job, name) for name in job.model_fields_set}
        return json.dumps({**given, **(job.model_extra or {})}, default=_plain)


def _plain(value: Any) -> Any:
    """Return what JSON has no word for in words that it has."""
    if hasattr(value, "model_fields_set"):
        given = {name: getattr(value, name) for name in value.model_fields_set}
        return {**given, **(value.model_extra or {})}
    return str(value)
