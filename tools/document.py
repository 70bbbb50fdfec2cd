"""
What the documentation shows and that this project's own programs make.

::

    python tools/document.py           # the reference of job types, badges, the contact sheet
    python benchmarks/scheduling.py --plot docs/assets/dip.svg

The pictures are the emulator's, laid out by Pillow. ``tests/test_document.py``
fails when the page of job types is not what the catalogue says, or a badge not what
``pyproject.toml`` says.
"""

import asyncio
import io
import re
import tomllib
from html import escape
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
        "---\nsearch:\n  boost: 0.3\n---\n\n# Job types\n\n"
        "Made from the catalogue by `python tools/document.py`. After each fact stands how sure it "
        "is: A documented by Prodia, B recorded from or tested against the live service, C assumed "
        "by other clients, I our inference. `prodia-async types NAME` tells all of one type, with "
        "the source of each fact; `prodia_async.job_types` has a typed helper for each.\n\n"
        f"{table()}"
    )


def facts() -> list[tuple[str, str]]:
    """Return what badges say: a word and what is true of it, as the project's own file has it."""
    told = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    classifiers = "\n".join(told["project"]["classifiers"])
    pythons = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", classifiers, re.MULTILINE)
    loops = [name for name in ("asyncio", "trio") if f"framework :: {name}" in classifiers.lower()]
    found = [("Python", ", ".join(pythons)), ("on", ", ".join(loops))]
    if told["tool"]["mypy"]["strict"]:
        found.append(("typed", "mypy --strict"))
    return [*found, ("licence", told["project"]["license"])]


def badges() -> str:
    """Return all of them as one drawing, which needs nothing from elsewhere."""
    drawn, at = "", 0
    for word, fact in facts():
        left, right = (round(6.6 * len(text)) + 14 for text in (word, fact))
        middle = 'y="14" text-anchor="middle"'
        drawn += (
            f'<g transform="translate({at})"><rect width="{left + right}" height="20" rx="4" '
            f'fill="#5e35b1"/><path d="M4 0h{left - 4}v20H4a4 4 0 0 1-4-4V4a4 4 0 0 1 4-4" '
            f'fill="#455"/><text x="{left / 2:g}" {middle}>{escape(word)}</text>'
            f'<text x="{left + right / 2:g}" {middle}>{escape(fact)}</text></g>\n'
        )
        at += left + right + 6
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{at - 6}" height="20" role="img" '
        'fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">\n'
        f"<title>{escape(badges_in_words())}</title>\n{drawn}</svg>\n"
    )


def badges_in_words() -> str:
    """Return what stands in the drawing's place where it is not shown."""
    return " · ".join(" ".join(fact) for fact in facts())


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
    (DOCS / "assets" / "badges.svg").write_text(badges(), encoding="utf-8")
    sheet = contact_sheet(asyncio.run(pictures()))
    sheet.save(DOCS / "assets" / "contact-sheet.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()
