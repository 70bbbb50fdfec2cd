"""What is said of a job that ran: lines for people, JSON for programs."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from .._media import bare_type, type_of_name
from .._show import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .._models import JobResponse
    from .._outputs import Output
    from .._results import JobResult
    from ..fireworks import ImageResponse


class Speaker:
    """
    Writes lines for people, and for programs.

    What is said comes after what was paid for is written: whoever has left, a
    full disk or a closed stream costs no output. Once saying a line fails, the
    others are left out; `check` tells.

    Args:
        stderr: To standard error; standard output belongs to something else.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        self._stderr = stderr
        self._failure: OSError | None = None

    def say(self, line: str) -> None:
        """Write a line as it is."""
        if self._failure is not None:
            return
        try:
            typer.echo(line, err=self._stderr)
        except BrokenPipeError as error:
            self._failure = error
        except OSError as error:
            name = "standard error" if self._stderr else "standard output"
            self._failure = OSError(error.errno, error.strerror, name)

    def check(self) -> None:
        """
        Look back, when all else is done.

        Raises:
            OSError: A line could not be written; a BrokenPipeError where the reader has left.
        """
        if self._failure is not None:
            raise self._failure


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
    name = "standard output" if path is None else printable(str(path))
    said = type_of_name(path.name) if path is not None else None
    is_other = said is not None and said != bare_type(output.content_type)
    promise = f"; its name says {said}" if is_other else ""
    kind = one_line(output.content_type)
    return f"wrote     {name} ({kind}, {len(output.content):,} bytes{promise})"


def effort(response: JobResponse | ImageResponse) -> Iterator[str]:
    """Say how long it took, and in how many attempts."""
    timing = response.timing
    waited = timing.queued + timing.backoff
    waiting = f", {waited:.2f} s of it waiting" if waited >= 0.005 else ""
    yield f"time      {timing.total:.2f} s{waiting}"
    if response.attempts:
        yield f"attempts  {len(response.attempts)} ({', '.join(map(str, response.attempts))})"


def summary(response: JobResponse) -> Iterator[str]:
    """Say what there is to say of a job besides its outputs."""
    job = response.job
    if not response.outputs:
        yield "wrote     nothing: this job made no output"
    if job is not None and (job.config or {}).get("seed") is not None:
        yield f"seed      {one_line(str((job.config or {})['seed']))}"
    yield from effort(response)
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
