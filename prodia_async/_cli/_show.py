"""What is said of a job that ran, for people."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .._models import JobResponse
    from .._outputs import Output


@contextlib.contextmanager
def spinner(job_type: str) -> Iterator[None]:
    """Show that something is going on, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(f"{job_type} is running"):
        yield


def wrote(output: Output, path: Path | None) -> str:
    return (
        f"wrote     {path or 'standard output'} "
        f"({output.content_type}, {len(output.content):,} bytes)"
    )


def summary(response: JobResponse) -> Iterator[str]:
    job, timing = response.job, response.timing
    if not response.outputs:
        yield "wrote     nothing: this job made no output"
    if job is not None and (job.config or {}).get("seed") is not None:
        yield f"seed      {(job.config or {})['seed']}"
    waited = timing.queued + timing.backoff
    waiting = f", {waited:.2f} s of it waiting" if waited >= 0.005 else ""
    yield f"time      {timing.total:.2f} s{waiting}"
    tried = ", ".join(map(str, response.attempts))
    yield f"attempts  {len(response.attempts)} ({tried})"
    if job is not None and job.price is not None and job.price.dollars is not None:
        yield f"price     ${job.price.dollars:g}"
