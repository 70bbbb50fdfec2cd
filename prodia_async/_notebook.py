"""
How answers show themselves in a notebook: HTML out of values, and nothing else.

At the bottom of the house, so that what shows itself may import it: it takes
whatever has the attributes that it looks for. Everything that came over the
network is escaped. Colours are the page's own, so that light and dark both do.

A picture is shown at its own size, between `LEAST` and `MOST` pixels wide; a
film always `FILM` wide, since some are tiny. The HTML holds the bytes, so it
outlives the kernel, and exports show it.
"""

from __future__ import annotations

import sys
from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LEAST, MOST, FILM = 160, 512, 480
"""Pixels. Chosen: what one can see, and two fit beside each other."""

THUMB = 200
"""Pixels of a picture among many. Chosen."""

MAX_SHOWN = 60
"""How many of a list are shown; each is whole, in the notebook's file. Chosen."""

NATIVE = frozenset({"image/png", "image/jpeg", "image/gif"})
"""What every front end shows by itself, exports among them."""

_CARD = (
    "display:inline-block;vertical-align:top;margin:0 8px 8px 0;"
    "border:1px solid rgba(128,128,128,.4);border-radius:6px;overflow:hidden"
)
_BOUND = f"max-width:min(100%,{MOST}px)"  # of what is around a picture, or it would be as wide
_CAPTION = "padding:4px 8px;font-size:12px;line-height:1.5;opacity:.8;overflow-wrap:anywhere"
_WRONG = "padding:8px;font-size:12px;line-height:1.5;color:#c0392b;overflow-wrap:anywhere"


def bare(content_type: str) -> str:
    """Return a media type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def media_html(output: Any, width: int | None = None) -> str:
    """
    Show one output: a picture, a film, a sound, a text.

    Args:
        output: What has `content` and `content_type`.
        width: Pixels; by default its own, within the bounds above.
    """
    kind = bare(output.content_type)
    # The type is the server's word, and must not become markup.
    source = f"data:{escape(kind)};base64,{b64encode(output.content).decode()}"
    if kind.startswith("image/"):
        size = f"width:{width}px" if width else f"min-width:{LEAST}px;max-width:100%"
        return f'<img src="{source}" alt="" style="display:block;{size}">'
    if kind.startswith("video/"):
        size = f"width:{width or FILM}px;max-width:100%"
        return f'<video controls loop src="{source}" style="display:block;{size}"></video>'
    if kind.startswith("audio/"):
        return f'<audio controls src="{source}"></audio>'
    if kind.startswith("text/") or kind == "application/json":
        text = escape(output.content[:4000].decode(errors="replace"))
        return f'<pre style="margin:8px;white-space:pre-wrap">{text}</pre>'
    return f'<div style="{_CAPTION}">{escape(kind)}, {len(output.content)} bytes</div>'


def output_bundle(output: Any) -> dict[str, bytes | str]:
    """Return all forms of an output for a notebook to choose from."""
    kind = bare(output.content_type)
    bundle: dict[str, bytes | str] = {"text/plain": repr(output)}
    if kind in NATIVE:
        bundle[kind] = output.content
    elif kind.startswith(("image/", "video/", "audio/")):
        if kind == "image/webp":
            bundle[kind] = output.content
        elif kind == "image/svg+xml":
            bundle[kind] = output.content.decode(errors="replace")
        bundle["text/html"] = f'<div style="{_BOUND}">{media_html(output)}</div>'
    elif kind.startswith("text/"):
        bundle["text/plain"] = output.content.decode(errors="replace")
    return bundle


def caption(response: Any, label: str = "") -> str:
    """Write what is said below an answer: seed, dollars, seconds."""
    job = getattr(response, "job", None)
    config = getattr(job, "config", None) or {}
    price = getattr(job, "price", None)
    timing = getattr(response, "timing", None)
    words = [label] if label else []
    if "seed" in config:
        words.append(f"seed {config['seed']}")
    if price is not None and price.dollars is not None:
        words.append(f"${price.dollars:g}")
    if timing is not None:
        words.append(f"{timing.total:.2f} s")
    if getattr(response, "cached", False):
        words.append("from the cache")
    return f'<div style="{_CAPTION}">{escape(" · ".join(words))}</div>' if words else ""


def response_html(response: Any, width: int | None = None, label: str = "") -> str:
    """Show an answer: every output, and below them seed, dollars and seconds."""
    shown = "".join(media_html(each, width) for each in response.outputs)
    if not shown:
        shown = f'<div style="{_CAPTION}">no outputs</div>'
    bound = "" if width else f";{_BOUND}"
    return f'<div style="{_CARD}{bound}">{shown}{caption(response, label)}</div>'


def error_html(error: BaseException, label: str = "", width: int | None = None) -> str:
    """Show what went wrong, and whether it may have been paid for."""
    size = f"width:{width}px;box-sizing:border-box;" if width else f"max-width:{MOST}px;"
    name = f"<b>{escape(label + ': ' if label else '')}{escape(type(error).__name__)}</b>"
    return f'<div style="{_CARD};{size}{_WRONG}">{name}<br>{escape(_words_of(error)[:600])}</div>'


def _words_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  (it is the caller's own)
        return "it cannot be shown"


def outcome_html(outcome: Any, width: int | None = None) -> str:
    """Show an outcome: its answer or its error, under its number."""
    label = f"#{outcome.index}"
    if outcome.response is not None:
        return response_html(outcome.response, width, label)
    return error_html(outcome.error, label, width)


def bundle(value: Any, html: str) -> dict[str, bytes | str]:
    """Return a value's own words, and its HTML."""
    return {"text/plain": repr(value), "text/html": html}


def table_html(rows: Mapping[str, object]) -> str:
    """Show names and values."""
    lines = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table>{lines}</table>"


def statistics_html(counts: Any) -> str:
    """Show what a client does and has done."""
    rows: dict[str, object] = {
        "in flight": f"{counts.in_flight} of {counts.max_concurrency}",
        "queued": counts.queued,
        "waiting out a refusal": counts.waiting,
        "completed": counts.completed,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
        "refusals, retries": f"{counts.refusals}, {counts.retries}",
        "seconds queued": f"{counts.seconds_queued:.1f}",
        "dollars": f"${counts.dollars:g}",
    }
    rows |= {f"limit of {name}": limit for name, limit in counts.limits.items()}
    return table_html(rows)


def async_job_html(job: Any, state: str) -> str:
    """Show a job that is with the server, and how to pick it up."""
    again = f'client.async_job("{job.id}")'
    rows: dict[str, object] = {"async job": job.id, "last seen": state, "pick it up with": again}
    expires = getattr(job.job, "expires_at", None)
    if expires is not None:
        rows["kept until"] = f"{expires:%Y-%m-%d %H:%M:%S} UTC"
    return table_html(rows)


def list_html(values: Sequence[Any]) -> str | None:
    """Show a list of answers, outcomes or outputs beside each other; of all else ``None``."""
    shows = [_shower(each) for each in values[:MAX_SHOWN]]
    if not shows or None in shows:
        return None
    cells = [show(each) for show, each in zip(shows, values, strict=False) if show is not None]
    dollars = sum(_dollars(each) for each in values)
    failed = sum(getattr(each, "error", None) is not None for each in values)
    words = [str(len(values))]
    if failed:
        words.append(f"{failed} failed")
    if dollars:
        words.append(f"${dollars:.6g}")
    if len(values) > MAX_SHOWN:
        words.append(f"the first {MAX_SHOWN} are shown")
    return f'<div>{"".join(cells)}<div style="{_CAPTION}">{" · ".join(words)}</div></div>'


def _shower(value: Any) -> Any:
    """Return what shows one element of a list, if it is one of ours."""
    if getattr(type(value), "__module__", "").partition(".")[0] != "prodia_async":
        return None
    if hasattr(value, "index") and hasattr(value, "response"):
        return lambda each: outcome_html(each, THUMB)
    if hasattr(value, "outputs"):
        return lambda each: response_html(each, THUMB)
    if hasattr(value, "content") and hasattr(value, "content_type"):
        return lambda each: f'<div style="{_CARD}">{media_html(each, THUMB)}</div>'
    return None


def _dollars(value: Any) -> float:
    price = getattr(getattr(getattr(value, "response", value), "job", None), "price", None)
    return getattr(price, "dollars", None) or 0.0


def running() -> Any:
    """Return IPython's shell where it runs, as it does in a notebook; else ``None``."""
    ipython: Any = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def show_lists() -> None:
    """In a notebook, have lists of answers show themselves; elsewhere do nothing."""
    formatter = getattr(running(), "display_formatter", None)
    if formatter is not None:
        formatter.formatters["text/html"].for_type(list, list_html)


def grid_html(
    title: str,
    rows: Iterable[str],
    columns: Sequence[str],
    cells: Mapping[tuple[int, int], str],
) -> str:
    """Show a table of cells that may be there or not yet."""
    line = "border:1px solid rgba(128,128,128,.3);padding:4px;vertical-align:top;text-align:left"
    # A width of its own: a front end that lacks space would break names into letters.
    name_of = f"width:{THUMB // 2}px;white-space:normal;overflow-wrap:anywhere"
    waits = f'<div style="width:{THUMB}px;height:{THUMB // 2}px;opacity:.4">…</div>'
    head = "".join(f'<th style="{line}">{escape(name)}</th>' for name in ["", *columns])
    body = "".join(
        f'<tr><th style="{line}"><div style="{name_of}">{escape(name)}</div></th>'
        + "".join(
            f'<td style="{line}">{cells.get((row, column), waits)}</td>'
            for column in range(len(columns))
        )
        + "</tr>"
        for row, name in enumerate(rows)
    )
    table = f'<table style="border-collapse:collapse"><tr>{head}</tr>{body}</table>'
    return (
        f'<div style="overflow-x:auto">{table}<div style="{_CAPTION}">{escape(title)}</div></div>'
    )
