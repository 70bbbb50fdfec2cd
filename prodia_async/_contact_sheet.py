"""
The demo's `index.html`: one file that needs nothing beside it.

Pictures are embedded as small WebP thumbnails; only the links behind them
lead to the files in the same folder.
"""

from __future__ import annotations

import io
from base64 import b64encode
from html import escape
from string import Template
from typing import TYPE_CHECKING

from PIL import Image, ImageChops

from ._demo import LATENCY, PROMPT, SEED, WORKERS, decode
from ._formats import JPEG, PNG, WebP
from ._version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from ._demo import DemoReport, FormatPicture, ManyJobs

_DETAIL = 64
"""Side of the magnified detail, in pixels of the picture. Chosen."""


def contact_sheet(report: DemoReport) -> str:
    """
    Draw the page for a demo's report.

    Reads the pictures the report names. Links are relative to its folder.
    """
    largest = max(picture.size for picture in report.formats)
    first, second = report.combination.sources
    many = report.many
    return _PAGE.substitute(
        version=escape(__version__),
        jobs=len(report.formats) + 3 + len(many.jobs),
        prompt=escape(PROMPT),
        seed=SEED,
        scene=_figure(
            report,
            next(shot.path for shot in report.formats if shot.accept == PNG()),
            720,
            f"“{PROMPT}”, seed {SEED}",
        ),
        rows="".join(_format_row(picture, largest) for picture in report.formats),
        agreement="the same pixels, every one"
        if report.lossless_agree
        else "different pixels, which is a fault",
        details="".join(_details(report)),
        combine_prompt=escape(report.combination.prompt),
        first=_figure(report, first, 480, "the first input"),
        second=_figure(report, second, 480, "the second input"),
        combined=_figure(report, report.combination.result, 480, "what came of them"),
        count=len(many.jobs),
        workers=WORKERS,
        tiles="".join(_tiles(many)),
        timeline=_timeline(many),
        elapsed=f"{many.elapsed:.1f}",
        hundred="".join(
            f'<a href="{_link(report, job.path)}" title="{escape(job.prompt)}, seed {job.seed}">'
            f"{_image(_thumbnail(job.path, 96), f'{job.prompt}, seed {job.seed}')}</a>"
            for job in many.jobs
        ),
    )


def _thumbnail(path: Path, side: int) -> Image.Image:
    with Image.open(path) as picture:
        picture.draft("RGB", (side, side))
        picture.thumbnail((side, side))
        return picture.convert("RGB")


def _image(picture: Image.Image, text: str, *, exact: bool = False) -> str:
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", lossless=exact, quality=80)
    source = f"data:image/webp;base64,{b64encode(encoded.getvalue()).decode()}"
    return (
        f'<img src="{source}" alt="{escape(text)}" width="{picture.width}" '
        f'height="{picture.height}">'
    )


def _link(report: DemoReport, path: Path) -> str:
    return escape(path.relative_to(report.folder).as_posix())


def _figure(report: DemoReport, path: Path, side: int, caption: str) -> str:
    return (
        f'<figure><a href="{_link(report, path)}">{_image(_thumbnail(path, side), caption)}</a>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _name(picture: FormatPicture) -> str:
    """Say a format as people do: ``WebP lossless``, ``JPEG 95, 4:4:4``."""
    accept = picture.accept
    kind = accept.media_type.partition("/")[2]
    name = {"webp": "WebP"}.get(kind, kind.upper())
    if isinstance(accept, JPEG):
        quality = f" {accept.quality}" if accept.quality is not None else ""
        chroma = f", {':'.join(accept.subsampling)}" if accept.subsampling else ""
        return name + quality + chroma
    return f"{name} lossless" if isinstance(accept, WebP) and accept.lossless else name


def _format_row(picture: FormatPicture, largest: int) -> str:
    return (
        f"<tr><th scope=row>{escape(_name(picture))}<code>"
        f"{escape(str(picture.accept)).replace(';', ';<wbr>')}</code></th>"
        f"<td class=bar><i style='width:{100 * picture.size / largest:.1f}%'></i></td>"
        f"<td>{picture.size / 1000:,.0f} KB</td><td class=muted>{picture.documented_kb} KB</td>"
        "</tr>"
    )


def _details(report: DemoReport) -> list[str]:
    """Cut the same spot out of each format: there, where the smallest JPEG differs most."""
    opened = {picture.path: decode(picture.path) for picture in report.formats}
    exact = next(opened[shot.path] for shot in report.formats if shot.accept == PNG())
    rough = next(opened[shot.path] for shot in report.formats if shot.accept == JPEG(quality=50))
    loss = ImageChops.difference(exact, rough).convert("L").reduce(_DETAIL)
    sums = loss.tobytes()
    row, column = divmod(sums.index(max(sums)), loss.width)
    left = min(column * _DETAIL, exact.width - _DETAIL)
    top = min(row * _DETAIL, exact.height - _DETAIL)
    spot = (left, top, left + _DETAIL, top + _DETAIL)
    return [
        f'<figure><a href="{_link(report, picture.path)}">'
        f"{_image(opened[picture.path].crop(spot), f'detail as {_name(picture)}', exact=True)}</a>"
        f"<figcaption>{escape(_name(picture))}</figcaption></figure>"
        for picture in report.formats
    ]


def _tiles(many: ManyJobs) -> list[str]:
    return [
        f"<div><b>{value}</b><span>{escape(text)}</span></div>"
        for value, text in (
            (f"{many.elapsed:.1f} s", f"for {len(many.jobs)} jobs"),
            (
                f"{many.ideal:.1f} s",
                f"is the least {WORKERS} workers could take, at {LATENCY:g} s a job",
            ),
            (f"{many.refusals}", "refusals (429), each waited out"),
            (f"{many.peak} of {WORKERS}", "workers busy at the height"),
        )
    ]


def _timeline(many: ManyJobs) -> str:
    """Draw each job as a line of its attempts, in order of completion."""
    width, line = 1000, 4
    scale = width / many.elapsed
    marks = []

    def mark(kind: str, row: int, start: float, seconds: float, least: float = 0.0) -> None:
        marks.append(
            f'<rect class="{kind}" x="{max(start, 0) * scale:.1f}" y="{row * line}" '
            f'width="{max(seconds * scale, least):.1f}" height="{line - 1}"/>'
        )

    for row, job in enumerate(sorted(many.jobs, key=lambda job: job.ended)):
        served = job.attempts[-1]
        start = job.ended - served.seconds
        mark("ran", row, start, served.seconds)
        for attempt in reversed(job.attempts[:-1]):
            mark("waited", row, start - attempt.wait, attempt.wait)
            start -= attempt.wait + attempt.seconds
            # A refusal takes a millisecond; it is drawn wide enough to be seen.
            mark("refused", row, start, attempt.seconds, least=5)
    return (
        f'<svg viewBox="0 0 {width} {line * len(many.jobs)}" preserveAspectRatio="none" '
        f'role="img" aria-label="When each of the jobs ran">{"".join(marks)}</svg>'
    )


_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>prodia-async: contact sheet</title>
<style>
:root {
  color-scheme: light dark;
  --page: #fbfaf8; --card: #fff; --line: #e6e2dc; --text: #23201c; --muted: #766f66;
  --accent: #c2410c; --soft: #f3d9c8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #151413; --card: #1e1c1a; --line: #35312d; --text: #ece8e2; --muted: #a39b91;
    --accent: #f0884d; --soft: #4a3325;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: clamp(1.25rem, 4vw, 3.5rem) clamp(1rem, 4vw, 2.5rem);
  max-width: 70rem; background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
h1 { font-size: clamp(1.8rem, 5vw, 2.6rem); line-height: 1.15; letter-spacing: -.02em; margin: 0; }
h2 { font-size: 1.35rem; letter-spacing: -.01em; margin: 0 0 .35rem; }
p { margin: .3rem 0 0; max-width: 44rem; }
header { margin-bottom: 2.5rem; }
section { border-top: 1px solid var(--line); padding: 2rem 0 2.25rem; }
.muted, figcaption, footer, .key { color: var(--muted); }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .85rem; margin-top: .45rem; }
img { display: block; width: 100%; height: auto; border-radius: .5rem; background: var(--line); }
a { color: inherit; }
code { font: .82em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.pair { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1.5rem 2.25rem;
  margin-top: 1.4rem; align-items: center; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .55rem 0; border-bottom: 1px solid var(--line); text-align: left; }
thead th { font-size: .8rem; font-weight: 500; color: var(--muted); }
tbody tr:last-child > * { border-bottom: 0; }
tbody th { font-weight: 600; line-height: 1.3; }
tbody th code { display: block; font-weight: 400; color: var(--muted); overflow-wrap: break-word; }
td:nth-last-child(-n+2), thead th:nth-last-child(-n+2) {
  text-align: right; white-space: nowrap; padding-left: .9rem;
}
.bar { width: 34%; padding-left: .9rem; }
.bar i { display: block; height: .55rem; min-width: 2px; border-radius: 1rem;
  background: var(--accent); }
.details { display: grid; grid-template-columns: repeat(3, 1fr); gap: .9rem; margin-top: 1.2rem; }
.details img { image-rendering: pixelated; }
.sum { display: grid; grid-template-columns: 1fr auto 1fr; gap: .9rem; margin-top: 1.4rem; }
.sum > :nth-child(n+4) { grid-column: 1 / -1; }
.sum > span { font-size: 1.7rem; line-height: 1; color: var(--muted); text-align: center;
  align-self: center; }
.tiles { display: grid; grid-template-columns: repeat(2, 1fr); gap: .8rem; margin: 1.4rem 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: .7rem;
  padding: .85rem 1rem; }
.tiles b { display: block; font-size: 1.55rem; line-height: 1.2; letter-spacing: -.02em; }
.tiles span { font-size: .85rem; line-height: 1.35; color: var(--muted); display: block; }
.timeline { background: var(--card); border: 1px solid var(--line); border-radius: .7rem;
  padding: .9rem 1rem .6rem; }
.timeline svg { display: block; width: 100%; height: clamp(13rem, 40vw, 22rem); }
.ran { fill: var(--accent); } .waited { fill: var(--soft); } .refused { fill: var(--text); }
.axis { display: flex; justify-content: space-between; font-size: .8rem; color: var(--muted);
  border-top: 1px solid var(--line); margin-top: .5rem; padding-top: .35rem; }
.key { font-size: .85rem; margin: .7rem 0 1.5rem; }
.key i { display: inline-block; width: .85rem; height: .5rem; border-radius: 2px;
  margin-right: .35rem; background: var(--accent); }
.key i.no { background: var(--text); margin-left: 1rem; width: .35rem; }
.key i.wait { background: var(--soft); margin-left: 1rem; }
.hundred { display: grid; grid-template-columns: repeat(10, 1fr); gap: 4px; }
.hundred img { border-radius: .25rem; }
footer { border-top: 1px solid var(--line); padding-top: 1.25rem; font-size: .9rem; }
@media (min-width: 46rem) {
  .pair { grid-template-columns: 5fr 6fr; }
  .details { grid-template-columns: repeat(6, 1fr); }
  .sum { grid-template-columns: 1fr auto 1fr auto 1fr; }
  .sum > :nth-child(n+4) { grid-column: auto; }
  .sum > span { padding-bottom: 1.8rem; }
  .tiles { grid-template-columns: repeat(4, 1fr); }
  .hundred { grid-template-columns: repeat(20, 1fr); }
}
@media (prefers-color-scheme: dark) { .ran { opacity: .9; } }
@media (max-width: 32rem) { .bar { width: 4rem; min-width: 3rem; } }
</style>
</head>
<body>
<header>
<h1>Contact sheet</h1>
<p class="muted">$jobs jobs, run by prodia-async $version on its local emulator of the Prodia v2
API: no account, no network. The emulator draws its scenes itself, so sizes are its own.</p>
</header>

<section>
<h2>One picture, six formats</h2>
<p>The same prompt and seed each time; only the <code>Accept</code> header differs.</p>
<div class="pair">
$scene
<table>
<thead><tr><th>Format</th><th></th><th>here</th><th>documented</th></tr></thead>
<tbody>$rows</tbody>
</table>
</div>
<p style="margin-top:2rem">The same detail, magnified, where the JPEG of quality 50 loses most.
PNG and lossless WebP hold $agreement.</p>
<div class="details">$details</div>
</section>

<section>
<h2>Two pictures into one</h2>
<p>Both travel with the job, which names them in <code>config.images</code>:
“$combine_prompt”.</p>
<div class="sum">$first<span>+</span>$second<span>=</span>$combined</div>
</section>

<section>
<h2>$count jobs at once, $workers workers</h2>
<p>With no worker idle the server refuses (429) and says when to ask again. The client learns from
the refusals how many jobs the server takes, and keeps just that many with it.</p>
<div class="tiles">$tiles</div>
<div class="timeline">$timeline
<div class="axis"><span>0 s</span><span>each line is a job</span><span>$elapsed s</span></div></div>
<p class="key"><i></i>with a worker <i class="no"></i>refused
<i class="wait"></i>waiting as asked</p>
<div class="hundred">$hundred</div>
</section>

<footer>The pictures lie in the folders beside this page, and each one here links to its file.
With a token in <code>PRODIA_TOKEN</code>, <code>prodia-async job</code> and the examples run on
the live API.</footer>
</body>
</html>
""")
