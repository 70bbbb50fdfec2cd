"""``demo``: the guides, on a local emulator."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ._app import app, named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._demo import DemoReport


@app.command("demo")
def _demo(
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            callback=named("-o"),
            help="Where to write the pictures.",
        ),
    ] = "demo",
) -> None:
    """Run the API's guides on a local emulator, without an account, and show what came."""
    from .._contact_sheet import contact_sheet  # noqa: PLC0415  (only the demo needs Pillow)
    from .._demo import JOBS, STEPS, run_demo  # noqa: PLC0415  (only this needs it)

    folder = Path(out)
    page = folder / "index.html"
    titles = {
        "formats": "One prompt, six formats",
        "combined": "Two pictures into one",
        "hundred": f"{JOBS} jobs at once",
    }
    with _progress(STEPS + 1) as advance:
        report = anyio.run(run_demo, folder, lambda guide: advance(titles[guide]))
        page.write_text(contact_sheet(report), encoding="utf-8")
        advance("Contact sheet")
    say = Console(highlight=False, soft_wrap=True)
    _print_report(say, report)
    say.print(f"\nThe pictures are in {folder.resolve()}", markup=False)
    say.print(f"Open {page.resolve().as_uri()}", markup=False, style="bold")


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show a progress bar, on a terminal only; what is yielded advances it under a title."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _title: None
        return
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("Starting", total=total)
        yield lambda title: progress.update(bar, advance=1, description=title)


def _print_report(say: Console, report: DemoReport) -> None:
    from .._demo import LATENCY, WORKERS  # noqa: PLC0415  (only this needs it)

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("One prompt, six formats", no_wrap=True)
    table.add_column("here", justify="right", no_wrap=True)
    table.add_column("documented", justify="right", style="dim", no_wrap=True)
    table.add_column("file", no_wrap=True)
    for picture in report.formats:
        table.add_row(
            str(picture.accept),
            f"{picture.size / 1000:.0f} KB",
            f"{picture.documented_kb} KB",
            picture.path.name,
        )
    say.print()
    say.print(table)
    same = "the same pixels" if report.lossless_agree else "DIFFERENT pixels"
    say.print(f"PNG and lossless WebP decode to {same}.")
    many = report.many
    say.print(
        f"\n{len(many.jobs)} jobs at once against {WORKERS} workers\n"
        f"  {many.elapsed:.1f} s in all; with {LATENCY:g} s a job, {many.ideal:.1f} s is the least "
        "that so many workers can take\n"
        f"  {many.refusals} refusals (429) waited out, none lost; "
        f"{many.peak} workers busy at the height"
    )
