"""A batch in a process of its own, for tests that end it in every way: one JSON argument."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from prodia_async import AsyncProdia, InvalidRequestError, Job, JobRequest, RetryPolicy
from prodia_async.batch import Batch, BatchError, BatchJob, _watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prodia_async.batch import BatchProgress

_watch.TICK_SECONDS = 0.01


def jobs(wanted: dict[str, Any]) -> Iterator[BatchJob]:
    for seed in range(wanted["jobs"]):
        config = {"prompt": "a fox", "seed": seed, "width": 256, "height": 256}
        config |= wanted.get("config", {})
        yield BatchJob(
            JobRequest(Job(wanted["type"], config), accept=wanted.get("accept")), id=f"fox-{seed}"
        )


def told(progress: BatchProgress) -> None:
    print("done", progress.done, flush=True)


async def main(wanted: dict[str, Any]) -> int:
    exec(wanted.get("first", ""), {})
    retry = RetryPolicy(**wanted.get("retry", {}))
    options = wanted.get("client", {})
    async with AsyncProdia(retry=retry, **options) as client:
        async with Batch(
            wanted["folder"], client, progress=told, **wanted.get("batch", {})
        ) as batch:
            if wanted.get("before"):
                exec(wanted["before"], {"batch": batch, "client": client})
            summary = await batch.run(jobs(wanted))
            print(
                "summary", json.dumps({name: getattr(summary, name) for name in summary.__slots__})
            )
            print("in doubt", json.dumps(batch.in_doubt()))
    return summary.exit_code


if __name__ == "__main__":
    try:
        status = asyncio.run(main(json.loads(sys.argv[1])))
    except BatchError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        status = 3
    except InvalidRequestError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)
