"""
Jobs for the rows of a Daft data frame.

::

    import daft
    from prodia_async.integrations.daft import prodia_udf

    make = prodia_udf(to="pictures/", job_type="inference.flux-fast.schnell.txt2img.v2")
    frame = daft.read_csv("prompts.csv").with_column("job", make("prompt", "seed"))
    frame = frame.with_columns({"path": frame["job"]["path"], "state": frame["job"]["state"]})

The store is the record, as with Ray (`prodia_async.integrations.ray`): the same
frame again pays for nothing that is there.

What Daft's native runner does not do: a process of it that dies ends the query
(the same call again goes on from the store), and it has one process, so one
client. There is no driver that could die alone, hence no lease.

Extra: ``daft``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ..batch._cluster import COLUMNS, Doubt, Worker, WorkerOptions
from ..batch._driver import begin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["prodia_udf"]


def prodia_udf(
    *,
    to: str,
    job_type: str | None = None,
    config: Mapping[str, Any] | None = None,
    accept: str | None = None,
    max_concurrency: int = 64,
    submit: Literal["sync", "async"] = "sync",
    on_doubt: Doubt = "retry",
    retry_failed: bool = False,
    also: bool = False,
    base_url: str | None = None,
    token_variable: str = "PRODIA_TOKEN",  # noqa: S107  (the name of a variable)
) -> Callable[..., Any]:
    """
    Make a function that makes a column expression.

    Args:
        to: Where outputs and records go: a folder, or any URL that fsspec knows.
        job_type: The type of rows that name none.
        config: Of all rows; ``{column}`` in a string is filled in.
        accept: The format, as a media type.
        max_concurrency: The most jobs in flight. Chosen.
        submit: ``"async"`` leaves each job with the server, so that the next run
            collects what one that died had sent.
        on_doubt: ``"retry"`` sends a job that may have been paid once more
            and counts it (`paid_again`); ``"hold"`` leaves it for a person.
        retry_failed: Send again what failed in an earlier run.
        also: Allow other settings than those of an earlier run in that place.
        base_url: Of the API; by default the environment says it.
        token_variable: The variable that holds the token.

    Returns:
        A function of the names of the columns that belong to the job; it
        returns an expression whose values are structs with ``key, state, path,
        paths, bytes, seed, dollars, seconds, job_id, attempts, refusals,
        paid_again, error``.

    Raises:
        BatchChangedError: The place holds a run with other settings.
        BatchError: The store cannot be read or written.
        ImportError: Daft is not installed.
    """
    try:
        import daft  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ImportError("prodia_udf needs Daft: pip install 'prodia-async[daft]'") from error
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
        lease_seconds=0,
    )
    begin(options, also=also)
    integer, number, string = daft.DataType.int64(), daft.DataType.float64(), daft.DataType.string()
    types = {
        "paths": daft.DataType.list(string), "bytes": integer, "seed": integer, "dollars": number,
        "seconds": number, "attempts": integer, "refusals": integer, "paid_again": integer,
    }  # fmt: skip
    struct = daft.DataType.struct({name: types.get(name, string) for name in COLUMNS})

    def make(*columns: str) -> Any:
        runner = _runner(daft, options, columns, struct)
        return runner(*(daft.col(name) for name in columns))

    return make


def _runner(daft: Any, options: WorkerOptions, columns: tuple[str, ...], struct: Any) -> Any:
    class Runner:
        def __init__(self) -> None:
            self._worker: Worker | None = None

        @daft.method(return_dtype=struct)  # type: ignore[untyped-decorator]
        async def run(self, *values: Any) -> dict[str, Any]:
            if self._worker is None:
                self._worker = Worker(options)
            row = dict(zip(columns, values, strict=True))
            (told,) = await self._worker.rows([row])
            return told

    return daft.cls(Runner, max_concurrency=2 * options.max_concurrency)().run
