"""
Pictures for a Parquet file of prompts, by Ray Data on two workers; again, it pays for nothing.

``pip install '.[ray]'``, then ``python examples/ray_batch.py [FOLDER]``. With
PRODIA_TOKEN set the jobs go to the service, else to a local emulator.
"""

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from prodia_async.emulator import Emulator
from prodia_async.integrations.ray import run_jobs

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "ray-pictures").absolute()
TYPE = "inference.flux-fast.schnell.txt2img.v2"


def main() -> None:
    """Write the prompts, run them, and tell what came of it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    prompts = pa.table({"prompt": [f"a lake, view {n}" for n in range(40)], "seed": range(1, 41)})
    pq.write_table(prompts, FOLDER / "prompts.parquet")
    service = nullcontext() if "PRODIA_TOKEN" in os.environ else Emulator(workers=20, latency=0.2)
    with service as emulator:
        if emulator is not None:
            os.environ |= {"PRODIA_TOKEN": "any-token", "PRODIA_BASE_URL": emulator.base_url}
        names = ("PRODIA_TOKEN", "PRODIA_BASE_URL")
        variables = {name: os.environ[name] for name in names if name in os.environ}
        ray.init(num_cpus=2, runtime_env={"env_vars": variables}, logging_level="warning")
        for _ in range(2):
            rows = ray.data.read_parquet(str(FOLDER / "prompts.parquet"))
            done = run_jobs(rows, to=str(FOLDER / "out"), job_type=TYPE, accept="image/webp")
            done.write_parquet(str(FOLDER / "manifest"), mode="overwrite")
            table = pq.read_table(FOLDER / "manifest")
            states, paid = table["state"].to_pylist(), sum(table["dollars"].to_pylist())
            print(f"{states.count('done')} of {len(states)} are done, they cost ${paid:.2f} in all")
        if emulator is not None:
            print(f"charged {emulator.ledger.totals().charged} times")
        ray.shutdown()


if __name__ == "__main__":
    main()
