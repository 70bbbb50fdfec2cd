"""What each job cost, what each kind of job cost together, and all of them."""

import asyncio
import os
import sys
from pathlib import Path

from prodia_async import AsyncProdia, Job
from prodia_async.emulator import Emulator

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")
TYPES = ["inference.flux-fast.schnell.txt2img.v2", "inference.nano-banana.txt2img.v2"]
JOBS = [Job(name, {"prompt": f"a lake, study {n}"}) for n in range(3) for name in TYPES]


async def main() -> None:
    """Run the jobs with their price asked for, and add up."""
    spent: dict[str, float] = {}
    async with AsyncProdia(price=True) as client:
        async with client.map(JOBS, ordered=True) as outcomes:
            async for outcome in outcomes:
                response = outcome.unwrap()
                await response.output.save(FOLDER / f"study-{outcome.index}.jpg")
                price = response.job.price if response.job else None
                product = (price and price.product) or "a job that bears no price"
                dollars = (price and price.dollars) or 0.0
                spent[product] = spent.get(product, 0.0) + dollars
                print(f"study {outcome.index}: ${dollars:.4f} for {product}")
        for product, dollars in spent.items():
            print(f"${dollars:.4f} together for {product}")
        print(f"${client.statistics().dollars:.4f} in all")


FOLDER.mkdir(parents=True, exist_ok=True)
if os.environ.get("PRODIA_TOKEN"):
    asyncio.run(main())
else:  # no account: a local stand-in for the API answers
    with Emulator() as emulator:
        os.environ |= {"PRODIA_TOKEN": "any", "PRODIA_BASE_URL": emulator.base_url}
        asyncio.run(main())
