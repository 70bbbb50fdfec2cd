"""
What the documentation shows and that this project's own programs make.

::

    python tools/document.py           # the reference of job types, and the contact sheet
    python benchmarks/scheduling.py --plot docs/assets/dip.svg

The pictures are the emulator's, laid out by Pillow. ``tests/test_document.py``
fails when the page of job types is not what the catalogue says.
"""

import asyncio
import io
from pathlib import Path

from catalogue import table
from PIL import Image

from prodia_async import AsyncProdia, Job
from prodia_async.emulator import Emulator

DOCS = Path(__file__).parents[1] / "docs"
PROMPTS = (
    "a strawberry", "a lake at dawn", "a red boat", "puppies in a cloud", "a bowl of fruit",
    "a mountain in snow", "a lighthouse", "a city at night",
)  # fmt: skip


def job_types_page() -> str:
    """Return the page of job types."""
    return (
        "# Job types\n\n"
        "Made from the catalogue by `python tools/document.py`. After each fact stands how sure it "
        "is: A documented by Prodia, B recorded from or tested against the live service, C assumed "
        "by other clients, I our inference. `prodia-async types NAME` tells all of one type, with "
        "the source of each fact; `prodia_async.job_types` has a typed helper for each.\n\n"
        f"{table()}"
    )


async def pictures() -> list[Image.Image]:
    """Have the emulator draw."""
    async with (
        Emulator(workers=8) as emulator,
        AsyncProdia("any-token", base_url=emulator.base_url) as client,
    ):
        jobs = [
            Job("inference.flux-fast.schnell.txt2img.v2", {"prompt": prompt, "seed": 42})
            for prompt in PROMPTS
        ]
        responses = await asyncio.gather(*map(client.job, jobs))
    return [Image.open(io.BytesIO(each.output.content)) for each in responses]


def contact_sheet(drawn: list[Image.Image], side: int = 240, gap: int = 8) -> Image.Image:
    """Lay pictures out in rows of four."""
    rows = -(-len(drawn) // 4)
    sheet = Image.new("RGB", (4 * side + 3 * gap, rows * side + (rows - 1) * gap), "white")
    for number, picture in enumerate(drawn):
        row, column = divmod(number, 4)
        where = (column * (side + gap), row * (side + gap))
        sheet.paste(picture.resize((side, side), Image.Resampling.LANCZOS), where)
    return sheet


def main() -> None:
    """Write all of it."""
    (DOCS / "reference" / "job-types.md").write_text(job_types_page(), encoding="utf-8")
    sheet = contact_sheet(asyncio.run(pictures()))
    sheet.save(DOCS / "assets" / "contact-sheet.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()
