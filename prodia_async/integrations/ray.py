"""
Jobs for the rows of a Ray data set; what is done is not paid for again, whatever dies.

::

    import ray
    from prodia_async.integrations.ray import run_jobs

    rows = ray.data.read_parquet("s3://prompts/")
    done = run_jobs(rows, to="s3://pictures/run-7/", job_type="...", workers=4)
    done.write_parquet("s3://pictures/run-7-manifest/")

Ray reads and writes the data sets, schedules the workers and restarts those
that die. What is kept here is the money: the store is the record, so the same
call again, after a worker or the driver was killed, pays for nothing that is
there. Its own checkpoints do not do that. What was in flight at the kill may
be paid again, and is counted (`paid_again`) where its submission was noted.

One client lives in each worker, and its bound holds for all that the worker
runs. Workers need no gate between them: the scheduler listens to the server,
which all of them share. Equal rows of one worker are run once; equal rows that
two workers begin at the same time may both be paid, so drop duplicates first.

Extra: ``ray`` (and what the store needs: ``s3fs`` for S3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from .._checks import integer
from ..batch._cluster import COLUMNS, Doubt, Worker, WorkerOptions
from ..batch._driver import begin

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

__all__ = ["ProdiaJobs", "run_jobs"]

BATCH_ROWS = 100
"""Rows that a worker is given at once. Chosen: small enough to lose little time when one dies."""


class ProdiaJobs:
    """
    The class for ``Dataset.map_batches(..., batch_format="pyarrow")`` by itself.

    `run_jobs` makes use of it, and holds the driver's lease besides; without
    that, give `lease_seconds=0` and know that a driver that is killed leaves
    workers behind that finish what they have.

    Args:
        options: What the workers are told; plain values, and no secret among them.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._worker: Worker | None = None

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """Run a batch of rows; each gains the columns of `COLUMNS`."""
        if self._worker is None:
            self._worker = Worker(self._options)
        told = await self._worker.rows(batch.to_pylist())
        return with_columns(batch, told)


def with_columns(table: pa.Table, told: list[dict[str, Any]]) -> pa.Table:
    """Return the table with what its rows gained; a column of such a name is replaced."""
    import pyarrow as pa  # noqa: PLC0415  (an extra)

    types = {
        "paths": pa.list_(pa.string()),
        "bytes": pa.int64(),
        "seed": pa.int64(),
        "dollars": pa.float64(),
        "seconds": pa.float64(),
        "attempts": pa.int64(),
        "refusals": pa.int64(),
        "paid_again": pa.int64(),
    }
    for name in COLUMNS:
        column = pa.array([each[name] for each in told], type=types.get(name, pa.string()))
        # A seed that the row asked for is the row's own, and the same.
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, column)
    return table


def run_jobs(
    rows: Any,
    *,
    to: str,
    job_type: str | None = None,
    config: Mapping[str, Any] | None = None,
    accept: str | None = None,
    columns: tuple[str, ...] | None = None,
    workers: int = 2,
    max_concurrency: int = 64,
    submit: Literal["sync", "async"] = "sync",
    on_doubt: Doubt = "retry",
    retry_failed: bool = False,
    also: bool = False,
    base_url: str | None = None,
    token_variable: str = "PRODIA_TOKEN",  # noqa: S107  (the name of a variable)
    lease_seconds: float = 30.0,
    batch_rows: int = BATCH_ROWS,
    ray_remote_args: Mapping[str, Any] | None = None,
) -> Any:
    """
    Run a job for each row of a data set.

    A row is read as `read_jobs` reads one of a file: a column is a member of
    the config (``prompt``, ``seed``), or ``config.x``, ``type``, ``input``, ``id``.

    Args:
        rows: A ``ray.data.Dataset``.
        to: Where outputs and records go: any URL that fsspec knows and that
            all workers reach.
        job_type: The type of rows that name none.
        config: Of all rows; ``{column}`` in a string is filled in.
        accept: The format, as a media type.
        columns: Those that belong to the job; by default all.
        workers: Actors, each with one client.
        max_concurrency: The most jobs in flight in each.
        submit: ``"async"`` leaves each job with the server, so that a worker
            that takes another's place collects what that one had sent.
        on_doubt: ``"retry"`` sends a job that may have been paid once more
            and counts it (`paid_again`); ``"hold"`` leaves it for a person.
        retry_failed: Send again what failed in an earlier run.
        also: Allow other settings than those of an earlier run in that place.
        base_url: Of the API; by default the workers' environment says it.
        token_variable: The variable in which each worker finds its token.
        lease_seconds: Workers stop starting jobs so long after the driver
            gave its last sign of life.
        batch_rows: Rows that a worker is given at once.
        ray_remote_args: Further arguments for ``map_batches``.

    Returns:
        A ``ray.data.Dataset``, lazy as all of them, of the rows with the
        columns ``key, state, path, paths, bytes, seed, dollars, seconds,
        job_id, attempts, refusals, paid_again, error``. `state` is ``done``,
        ``failed``, ``in doubt``, or ``left`` where the driver was gone.

    Raises:
        InvalidRequestError: An argument is out of its range.
        BatchChangedError: The place holds a run with other settings.
        BatchError: The store cannot be read or written. In a worker: another
            version of the package, or no token; before its first row.
        ImportError: Ray is not installed.
    """
    try:
        import ray.data  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ImportError("run_jobs needs Ray: pip install 'prodia-async[ray]'") from error
    integer("workers", workers, least=1)
    integer("batch_rows", batch_rows, least=1)
    integer("max_concurrency", max_concurrency, least=1)
    options = WorkerOptions(
        to=to,
        job_type=job_type,
        config=dict(config or {}),
        accept=accept,
        max_concurrency=max_concurrency,
        submit=submit,
        on_doubt=on_doubt,
        retry_failed=retry_failed,
        base_url=base_url,
        token_variable=token_variable,
        lease_seconds=lease_seconds,
        columns=columns,
    )
    lease = begin(options, also=also)
    # Ray's own bounds multiply; these leave the client's bound the one that holds.
    at_once = -(-max_concurrency // batch_rows) + 1
    done = rows.map_batches(
        ProdiaJobs,
        fn_constructor_args=(options,),
        batch_size=batch_rows,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2 * at_once),
        max_concurrency=at_once,
        max_restarts=-1,
        max_task_retries=-1,
        **{"num_cpus": 0.5, **(ray_remote_args or {})},
    )
    done._prodia_lease = lease  # noqa: SLF001  (as long as anybody can read it)
    return done
