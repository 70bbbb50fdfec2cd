"""Every combination of some values, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from math import prod
from typing import Any

from .._errors import InvalidRequestError
from .._models import Job, JobRequest, wire_job
from .._show import shown
from ._values import BatchJob


class Grid:
    """Jobs for every combination; what `grid` returns. Can be iterated over any number of times."""

    def __init__(self, job: BatchJob, values: Mapping[str, Iterable[Any]]) -> None:
        self._job = job
        self._values = {
            name: each if isinstance(each, range) else tuple(each) for name, each in values.items()
        }

    def __len__(self) -> int:
        return prod(len(each) for each in self._values.values() if isinstance(each, Sized))

    def __repr__(self) -> str:
        sizes = " x ".join(f"{len(each)} {name}" for name, each in self._values.items())
        return f"<Grid {sizes}>"

    def __iter__(self) -> Iterator[BatchJob]:
        for settings in _combined(list(self._values.items()), {}):
            yield _with(self._job, settings)


def grid(job: Any, **values: Iterable[Any]) -> Grid:
    """
    Make every combination of some settings of a job.

    ::

        grid(Job("inference.flux-fast.schnell.txt2img.v2"), prompt=["a cat"], seed=range(4))

    Args:
        job: What they have in common: a `Job`, a mapping, a `JobRequest`, a
            `BatchJob`, or an order of `AsyncFireworks`.
        values: Settings of the job's config, each with all that it shall be.
            The last one varies fastest.

    Returns:
        The jobs, made as they are needed; ``len()`` tells how many.
        `BatchRecord.grid` shows what came of them.

    Raises:
        InvalidRequestError: A setting's values are no collection, or a string.
    """
    for name, each in values.items():
        if isinstance(each, str | bytes | Mapping) or not isinstance(each, Iterable):
            raise InvalidRequestError(f"{name} must be a list of values, not {shown(each)}")
    made = Grid(job if isinstance(job, BatchJob) else BatchJob(job), values)
    next(iter(made), None)  # what cannot be combined is told now
    return made


def _combined(
    left: Sequence[tuple[str, Iterable[Any]]], chosen: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    # itertools.product would make a list of each of them first, of a billion seeds too.
    if not left:
        yield chosen
        return
    (name, values), *rest = left
    for value in values:
        yield from _combined(rest, {**chosen, name: value})


def _with(job: BatchJob, settings: Mapping[str, Any]) -> BatchJob:
    return replace(job, request=_request_with(job.request, settings))


def _request_with(request: Any, settings: Mapping[str, Any]) -> Any:
    if isinstance(request, JobRequest):
        return replace(request, job=_request_with(request.job, settings))
    if isinstance(request, Job):
        return replace(request, config={**(request.config or {}), **settings})
    if isinstance(request, Mapping):
        wire = wire_job(request)
        return {**wire, "config": {**(wire.get("config") or {}), **settings}}
    try:
        return replace(request, **settings)
    except TypeError as error:
        names = " and ".join(settings)
        raise InvalidRequestError(f"a grid cannot vary {names} of {shown(request)}") from error
