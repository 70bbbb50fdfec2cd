"""
The report: one page that needs nothing beside it and no script, in the light and in the dark.

Written from the record alone, so at any moment: after a crash, and while the
run goes on. It stays below 3 MB whatever the size of the run, since it shows a
sample of the pictures and draws its curves from sums.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .._version import __version__
from ._figures import figures, money_line
from ._folder import written_whole
from ._pictures import data_uri, evenly, extremes, prompt_of, thumbnail
from ._values import NO_FOLDER, NO_WORD, BatchError, counted, dollars_text, seconds_text

if TYPE_CHECKING:
    from ._figures import Figures
    from ._snapshot import Snapshot
    from ._values import BatchSummary, Row

MOST_PICTURES, EXTREMES = 200, 8
MOST_BYTES = 2_700_000
"""What the pictures may take before fewer are shown. Documented: a page is below 3 MB."""

TEMPLATE = Path(__file__).parent / "report.html.j2"

# Colours that matplotlib is told, and what the page puts in their place.
_INK, _MUTED, _DONE, _REFUSED, _GRID = "#010203", "#020304", "#030405", "#040506", "#050607"
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _DONE: "var(--done)",
    _REFUSED: "var(--refused)",
    _GRID: "var(--line)",
}


def write_report(record: Snapshot, path: Path) -> Path:
    """Write the page, whole or not at all."""
    page = report(record, path.parent)
    with written_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")
    return path


def report(record: Snapshot, base: Path) -> str:
    """
    Return the page.

    Args:
        record: The record, at one moment.
        base: The folder that its links are relative to.
    """
    try:
        import jinja2  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise BatchError("a report needs Jinja2: pip install 'prodia-async[batch]'") from error
    summary = record.summary()
    lost = [row.row for row in record.in_doubt() if row.error is None]
    with record.reading() as connection:
        found = figures(connection, lost)
        began = connection.execute("SELECT min(began), max(ended) FROM session").fetchone()
        sessions = connection.execute("SELECT count(*) FROM session").fetchone()[0]
    running = record.is_running
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    rows = evenly(record, MOST_PICTURES)
    odd = {name: some for name, some in extremes(record, EXTREMES).items() if summary.done > 40}
    budget = [MOST_BYTES]
    return template.render(
        name=record.folder.absolute().name,
        version=__version__,
        began=_when(began[0]),
        state=_state(summary, running=running),
        running=running,
        sessions=sessions,
        tiles=_tiles(summary, found),
        throughput=_safe(throughput_svg(found)),
        narrow=_safe(throughput_svg(found, width=4.2)),
        latency=_safe(latency_svg(found)),
        has_times=bool(found.times),
        has_curve=len(found.throughput) > 1,
        percentiles=[
            (name, f"{1000 * value:.0f} ms" if value < 1 else seconds_text(value))
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
            if (value := found.percentile(share)) is not None
        ],
        causes=found.causes,
        most=max((cause.count for cause in found.causes), default=1),
        other_failures=found.other_failures,
        types=found.types,
        pictures=_pictures(record, rows, base, budget),
        odd=[
            (name, pictures)
            for name, some in odd.items()
            if (pictures := _pictures(record, some, base, budget))
        ],
        jobs=found.jobs,
        refusals=found.refusals,
        summary=summary,
    )


def _safe(svg: str) -> Any:
    from markupsafe import Markup  # noqa: PLC0415  (Jinja2 brings it)

    return Markup(svg)  # noqa: S704  (drawn here; its texts are numbers)


def _when(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _state(summary: BatchSummary, *, running: bool) -> tuple[str, str]:
    """Return a word for how it stands, and its colour's name."""
    if running:
        return "running", "going"
    if summary.stopped:
        is_bad = summary.stopped in {NO_WORD, NO_FOLDER}
        return f"stopped: {summary.stopped}", "bad" if is_bad else "warn"
    if summary.failed and not summary.done:
        return "finished, all failed", "bad"
    if summary.failed or summary.in_doubt:
        return "finished, with failures", "warn"
    return "finished", "good"


def _tiles(summary: BatchSummary, found: Figures) -> list[tuple[str, str, str, str]]:
    rows = summary.done + summary.failed + summary.in_doubt + summary.left
    rate = summary.done / summary.seconds if summary.seconds else 0.0
    failed = f"{summary.failed:,} failed, {summary.in_doubt:,} in doubt"
    if summary.left:
        failed += f", {summary.left:,} left"
    if summary.duplicates:
        failed += f", {counted(summary.duplicates, 'duplicate')}"
    busy = "busy server (429), waited out" if found.refusals else "the server was never busy (429)"
    money = [money_line(summary.dollars, found.jobs)]
    if summary.doubtful_dollars:
        why = "in doubt" if summary.in_doubt else "in vain"
        money.append(f"up to {dollars_text(summary.doubtful_dollars)} more {why}")
    if summary.paid_again:
        money.append(f"{summary.paid_again:,} perhaps paid twice")
    return [
        ("done", f"{summary.done:,}", f"/ {rows:,}", failed),
        ("dollars", dollars_text(summary.dollars), "", "; ".join(each for each in money if each)),
        ("time", seconds_text(summary.seconds), "", f"{rate:.3g} a second" if rate else ""),
        ("refused", f"{found.refusals:,}", "", busy),
    ]


def _pictures(
    record: Snapshot, rows: list[Row], base: Path, budget: list[int]
) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        prompt = prompt_of(row)
        item: dict[str, Any] = {
            "prompt": prompt,
            "facts": facts(row),
            "link": link(record, row, base),
            "image": None,
            "row": row.row,
        }
        if budget[0] > 0 and (picture := thumbnail(record, row)) is not None:
            item["image"] = data_uri(picture)
            item["size"] = picture.size
            budget[0] -= len(item["image"]) + len(prompt) + 300
        if item["image"] is not None or budget[0] > 0:
            found.append(item)
    return found


def facts(row: Row) -> str:
    """Say what is known of a row's output, on one line."""
    known = [
        f"row {row.row}",
        row.id and str(row.id),
        row.seed is not None and f"seed {row.seed}",
        row.dollars is not None and dollars_text(row.dollars),
        row.seconds is not None and seconds_text(row.seconds),
        row.bytes is not None and f"{row.bytes / 1000:,.0f} KB",
    ]
    return " · ".join(each for each in known if each)


def link(record: Snapshot, row: Row, base: Path) -> str:
    """Return where a row's output lies, as a link from a folder; empty where it leads nowhere."""
    if row.path is None:
        return ""
    if "://" in row.path:
        return row.path if row.path.startswith(("http://", "https://", "file://")) else ""
    path = record.folder / (row.shard or row.path)
    if not path.is_file():
        return ""
    return quote(os.path.relpath(path, base).replace(os.sep, "/"))


# Plots.


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib import rc_context  # noqa: PLC0415  (an extra)
        from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise BatchError("a report needs matplotlib: pip install 'prodia-async[batch]'") from error
    with rc_context({"font.size": 9.5}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_MUTED)
    axes.tick_params(colors=_MUTED, labelcolor=_MUTED, labelsize=9)
    axes.grid(axis="y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import rc_context  # noqa: PLC0415  (an extra)

    written = io.StringIO()
    salt = f"prodia-async {figure.get_figwidth()}"  # no two on a page have a name in common
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font: \1px var(--sans)", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return re.sub(r'width="[0-9.]+pt" height="[0-9.]+pt"', 'class="plot"', svg, count=1)


def throughput_svg(found: Figures, width: float = 6.4) -> str:
    """
    Draw rows done a second, and refusals, over the time of all runs.

    Args:
        found: What is drawn.
        width: In inches: a telephone makes a wide one so small that nobody can read it.
    """
    if len(found.throughput) < 2:
        return ""
    figure, axes = _figure(width, 2.45)
    scale, unit = _unit(found.throughput[-1][0])
    axes.xaxis.get_major_locator().set_params(integer=scale == 1)
    x = [at / scale for at, _, _ in found.throughput]
    done = [rate for _, rate, _ in found.throughput]
    refused = [rate for _, _, rate in found.throughput]
    axes.fill_between(x, done, color=_DONE, alpha=0.18, linewidth=0)
    axes.plot(x, done, color=_DONE, linewidth=1.4)
    if found.refusals:
        axes.plot(x, refused, color=_REFUSED, linewidth=1.2)
    for at in found.breaks:
        axes.axvline(at / scale, color=_MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.set_xlim(0, max(x[-1], 1e-9))
    axes.set_ylim(0, None)
    axes.set_xlabel(unit, color=_MUTED, fontsize=9)
    return _svg(figure)


def _unit(seconds: float) -> tuple[float, str]:
    if seconds < 600:
        return 1.0, "seconds"
    return (60.0, "minutes") if seconds < 3 * 3600 else (3600.0, "hours")


def latency_svg(found: Figures) -> str:
    """Draw how long jobs took, with p50, p95 and p99."""
    if not found.times:
        return ""
    figure, axes = _figure(4.2, 2.6)
    last = found.percentile(0.995) or found.times[-1][0]
    width = max(last, 0.001) * 1.1 / 48
    bins = [0] * 48
    for seconds, count in found.times:
        bins[min(47, int(seconds / width))] += count
    axes.bar([(number + 0.5) * width for number in range(48)], bins, width=width * 0.9, color=_DONE)
    top = max(bins)
    # Each a line lower than the one before, so that they never lie on each other.
    for step, share in enumerate((0.5, 0.95, 0.99)):
        value = found.percentile(share)
        if value is None:
            continue
        at = min(value, 47.9 * width)
        axes.axvline(at, color=_INK, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.annotate(
            f"p{share * 100:g}",
            (at, top * (1.04 - 0.11 * step)),
            textcoords="offset points",
            xytext=(3, 0),
            color=_INK,
            fontsize=8.5,
        )
    axes.set_xlim(0, 48 * width)
    axes.set_ylim(0, top * 1.14)
    axes.set_xlabel("seconds a job", color=_MUTED, fontsize=9)
    return _svg(figure)


# Notebooks.


def strip(record: Snapshot, most: int) -> str:
    """Return some pictures as HTML; empty where Pillow is missing."""
    try:
        rows = evenly(record, most)
        pictures = [(row, thumbnail(record, row, 128)) for row in rows]
    except BatchError:
        return ""
    return "".join(
        f'<img src="{data_uri(picture)}" title="{escape(prompt_of(row))}" style="margin:2px">'
        for row, picture in pictures
        if picture is not None
    )


class GridTable:
    """A table of pictures that shows itself in a notebook."""

    def __init__(self, html: str) -> None:
        self._html = html

    def __str__(self) -> str:
        return self._html

    def _repr_html_(self) -> str:
        return self._html


MOST_CELLS = 2000
"""Of a grid. Chosen: some 6 MB of HTML."""


def grid_table(record: Snapshot, rows: str, columns: str) -> GridTable:
    """Return what two settings make of each other."""
    cells: dict[tuple[str, str], Row] = {}
    down: dict[str, None] = {}
    across: dict[str, None] = {}
    for row in record.rows():
        config = (row.request or {}).get("config")
        if not isinstance(config, Mapping) or rows not in config or columns not in config:
            continue
        place = (str(config[rows]), str(config[columns]))
        down[place[0]] = across[place[1]] = None
        cells.setdefault(place, row)
        if len(cells) >= MOST_CELLS:
            break
    head = "".join(f"<th>{escape(columns)} {escape(name)}</th>" for name in across)
    body = "".join(
        f"<tr><th style='max-width:16em;text-align:left'>{escape(name)}</th>"
        + "".join(_cell(record, cells.get((name, other))) for other in across)
        + "</tr>"
        for name in down
    )
    return GridTable(f"<table><tr><th>{escape(rows)}</th>{head}</tr>{body}</table>")


def _cell(record: Snapshot, row: Row | None) -> str:
    if row is None:
        return "<td></td>"
    picture = thumbnail(record, row)
    if picture is None:
        return f"<td>{escape(row.state)}<br><small>{escape(row.error or '')[:120]}</small></td>"
    return f'<td><img src="{data_uri(picture)}" title="{escape(facts(row))}"></td>'
