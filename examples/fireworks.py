"""The second API, Fireworks: a picture, the same again from its seed, and many at once."""

import asyncio
import os
import sys
from pathlib import Path

from prodia_async.emulator import Emulator
from prodia_async.fireworks import AsyncFireworks, ContentFilteredError, TextToImage, estimate

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")


async def main() -> None:
    """Make a picture, repeat it, then make twenty of one prompt."""
    cost = estimate(steps=4, images=22)
    print(f"22 pictures will cost ${cost.dollars:.4f} ({cost.confidence}: {cost.source})")
    async with AsyncFireworks() as client:
        try:
            first = await client.text_to_image("a lake at dawn", aspect_ratio="16:9")
        except ContentFilteredError as error:
            print(f"filtered, and probably paid: {error}")
            return
        print(first.image, await first.image.save(FOLDER / "lake.png"))
        again = await client.text_to_image(
            "a lake at dawn", aspect_ratio="16:9", seed=first.image.seed
        )
        print("the same seed gives the same bytes:", again.image.content == first.image.content)
        requests = (TextToImage("a boat", seed=n, accept="image/jpeg") for n in range(1, 21))
        async with client.map(requests) as outcomes:
            async for outcome in outcomes:
                image = outcome.unwrap().image
                await image.save(FOLDER / f"boat-{image.seed:02}.jpg")
        print(f"{client.statistics().completed} pictures are in {FOLDER}")


FOLDER.mkdir(parents=True, exist_ok=True)
if os.environ.get("FIREWORKS_API_KEY"):
    asyncio.run(main())
else:  # no account: a local stand-in for the API answers
    with Emulator(workers=4, latency=0.1) as emulator:
        os.environ |= {"FIREWORKS_API_KEY": "any", "FIREWORKS_API_BASE": emulator.fireworks_url}
        asyncio.run(main())
