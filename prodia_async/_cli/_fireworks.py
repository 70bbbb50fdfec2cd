"""``fireworks``: a picture of the second API."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from .._errors import ProdiaError
from ..fireworks import (
    AsyncFireworks,
    CannyEdgeDetection,
    ContentFilteredError,
    Generate,
    ImageResponse,
    ImageToImage,
    Kontext,
    TextToImage,
)
from ..fireworks._kinds import KINDS, PICTURES
from ..fireworks._orders import FLUX_SCHNELL, KONTEXT_PRO, POLL_SECONDS
from . import _options as options
from ._app import app, named, wrong
from ._config import media_of, read_config, read_setting, read_text
from ._ending import Watch
from ._job import show_all, show_rest
from ._show import effort, spinner
from ._target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ..fireworks._edits import Order

SDXL = (
    "stable-diffusion-xl-1024-v1-0", "playground-v2-1024px-aesthetic",
    "playground-v2-5-1024px-aesthetic", "SSD-1B", "japanese-stable-diffusion-xl",
)  # fmt: skip
"""The models of the older endpoint. Source: digest "Fireworks image API", section 1."""


@app.command("fireworks")
def _fireworks(
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT", help="What to show, or what a QR code says; @FILE reads it."
        ),
    ] = None,
    *,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            "-k",
            metavar="KIND",
            help=f"{', '.join(KINDS)}. By default what the model makes, and with -i a picture "
            "from a picture.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="flux-1-schnell-fp8 (the default), flux-1-dev-fp8, flux-kontext-pro, "
            f"flux-kontext-max, {', '.join(SDXL)}, or another by its whole name.",
        ),
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="KEY=VALUE",
            help="A field of the request: aspect_ratio=16:9, seed=7, num_inference_steps=4. May "
            "be given again.",
        ),
    ] = None,
    extra_body: Annotated[
        list[str] | None,
        typer.Option(
            "--extra-body",
            metavar="KEY=VALUE",
            help="A further field that the service takes and nobody here knows, sent as it is; "
            "read as `job -c` reads one. May be given again.",
        ),
    ] = None,
    picture: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="The picture to start from, to follow the lines of, or to find the edges of: a "
            "file, or for a Kontext model a URL too.",
        ),
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="png or jpeg. By default what the ending of -o says."),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            callback=named("-o"),
            help="A file, a folder (ends in / or exists), or - for standard output.",
        ),
    ] = ".",
    task: Annotated[
        str | None,
        typer.Option(
            "--task", metavar="ID", help="Collect a Kontext task that was submitted before."
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="By default FIREWORKS_API_BASE from the environment, else the live API.",
        ),
    ] = None,
    deadline: options.Deadline = None,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT,
    poll: options.Poll = POLL_SECONDS,
    keep_filtered: Annotated[
        bool,
        typer.Option("--keep-filtered", help="Write a picture that the service filtered, too."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print seed, reason and price as JSON.")
    ] = False,
) -> None:
    """
    Make a picture on the Fireworks image API.

    `--kind canny_edge_detection` finds the edges of a picture and `--kind
    qr_code` writes a QR code; `--kind control_net -c control_net_name=canny`
    draws along the lines of either.

    The key is taken from the environment variable FIREWORKS_API_KEY, for the
    reason that the token of the other API is.
    """
    target = Target(out, as_json=as_json)
    order: Order | None = None
    if task is None:
        order = make_order(
            prompt,
            model,
            config or [],
            kind=kind,
            extra=extra_body or [],
            accept=accept,
            file=target.file,
            picture=picture,
            poll=poll,
            keep_filtered=keep_filtered,
        )
    elif prompt is not None or config or extra_body or picture is not None or kind is not None:
        wrong(
            "--task", "collects what was asked for before; give no prompt and no settings with it"
        )

    asked = order.model if order is not None else model or KONTEXT_PRO
    again = "" if asked == KONTEXT_PRO else f" -m {asked}"
    watch = Watch(
        asked, how=f"`prodia-async fireworks --task {{}}{again}` picks it up", job_id=task
    )

    async def run() -> ImageResponse:
        async with AsyncFireworks(
            base_url=base_url, timeout=timeout, deadline=deadline, hook=watch
        ) as client:
            target.prepare()
            if order is not None:
                return await client.run(order)
            return await client.kontext_result(task or "", model=asked, poll=poll)

    with watch.listening():
        try:
            with spinner(f"{asked} is at work"):
                response = anyio.run(run)
        except ProdiaError as error:
            if not isinstance(error, ContentFilteredError):
                show_rest(error, target)
            raise
        facts = json.dumps(_facts(response), indent=2) if as_json else None
        show_all(target, response.images, _summary(response), facts)


def make_order(
    prompt: str | None,
    model: str | None,
    items: Sequence[str],
    *,
    kind: str | None = None,
    extra: Sequence[str] = (),
    accept: str | None = None,
    file: Path | None = None,
    picture: str | None = None,
    poll: float = POLL_SECONDS,
    keep_filtered: bool = False,
) -> Order:
    """
    Make the request for a picture of what was typed.

    Raises:
        InvalidRequestError: It cannot be sent; says what is wrong.
    """
    order = _kind_of(kind, model, has_picture=picture is not None)
    values = _settings(order, items)
    if order is not CannyEdgeDetection:
        values["prompt"] = _prompt(prompt)
    elif prompt is not None:
        wrong("PROMPT", "belongs to what is drawn; the edges of a picture have none")
    _add_picture(values, order, picture)
    if model is not None or order is Generate:
        values["model"] = model or SDXL[0]
    media = media_of(accept, file, {"image/png", "image/jpeg"})
    if order is Kontext:
        values["poll"] = poll
        if media is not None:
            values.setdefault("output_format", media.partition("/")[2])
    elif media is not None:
        values["accept"] = media
    if "raise_if_filtered" in _names(order):
        values["raise_if_filtered"] = not keep_filtered
    if extra:
        values["extra_body"] = read_config(extra, option="--extra-body")
    for each in fields(order):
        if each.default is MISSING and each.name not in values:
            wrong("-c", f"{each.name}= is missing: {_kind_name(order)} needs it")
    made: Order = order(**values)
    return made


def _kind_of(typed: str | None, model: str | None, *, has_picture: bool) -> type[Any]:
    """Return what is asked for: what was typed, or what the model makes."""
    if typed is not None:
        name = typed.strip().lower().replace("-", "_")
        if name not in KINDS:
            near = get_close_matches(name, KINDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            wrong("--kind", f"must be one of {', '.join(KINDS)}, not {typed!r}{hint}")
        return KINDS[name]
    name = (model or FLUX_SCHNELL).rpartition("/")[2]
    if "kontext" in name:
        return Kontext
    if name in SDXL:
        return ImageToImage if has_picture else Generate
    return TextToImage


def _prompt(typed: str | None) -> str:
    if typed is None:
        wrong("PROMPT", "is missing; say what to show")
    return read_text("PROMPT", typed[1:]).strip() if typed.startswith("@") else typed


def _add_picture(values: dict[str, Any], order: type[Any], picture: str | None) -> None:
    name = PICTURES.get(order)
    if name is None and picture is not None:
        wrong(
            "-i",
            f"belongs to the Kontext models and to --kind {', '.join(_with_pictures())}, not to "
            f"{_kind_name(order)}",
        )
    if name is not None and picture is None and order is not Kontext:
        wrong("-i", f"is missing: {_kind_name(order)} needs a picture")
    if name is not None and picture is not None:
        if not picture:
            wrong("-i", "must be a file")
        values[name] = picture


def _kind_name(order: type[Any]) -> str:
    """Return what an order is called here."""
    return next(name for name, each in KINDS.items() if each is order)


def _with_pictures() -> Iterator[str]:
    return (name for name, order in KINDS.items() if order in PICTURES and order is not Kontext)


_NOT_TYPED = frozenset(
    {"accept", "deadline", "extra_body", "model", "poll", "prompt", "raise_if_filtered", "tag"}
)
"""Fields that have an option of their own here, or no sense."""


def _names(order: type[Any]) -> dict[str, str]:
    return {each.name: str(each.type) for each in fields(order)}


def _settings(order: type[Any], items: Sequence[str]) -> dict[str, Any]:
    picture = PICTURES.get(order)
    own = {
        name: kind
        for name, kind in _names(order).items()
        if name not in _NOT_TYPED and name != picture
    }
    values: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals or not key:
            wrong("-c", f"must read key=value, not {item!r}")
        name = key.removesuffix(":").strip()
        if name not in own:
            near = get_close_matches(name, own, n=1)
            hint = f"; did you mean {near[0]}?" if near else f", only {', '.join(own)}"
            wrong("-c", f"{name} is no field of {_kind_name(order)}{hint}")
        values[name] = read_setting(key, text, is_text="str" in own[name])
    return values


def _summary(response: ImageResponse) -> Iterator[str]:
    facts = _facts(response)
    seeds = [str(each["seed"]) for each in facts["images"] if each["seed"] is not None]
    if seeds:
        yield f"seed      {', '.join(seeds)}"
    if any(each.is_filtered for each in response.images):
        yield "filtered  the service says that it filtered what it made"
    yield from effort(response)
    if facts["dollars"] is not None:
        yield f"price     ${facts['dollars']:g}, by the steps (no answer tells)"


def _facts(response: ImageResponse) -> dict[str, Any]:
    order = response.request
    return {
        "model": None if order is None else order.model,
        "images": [
            {"seed": each.seed, "finish_reason": each.finish_reason, "id": each.id,
             "content_type": each.content_type, "bytes": len(each.content)}
            for each in response.images
        ],
        "dollars": response.dollars,
        "request_id": response.request_id,
    }  # fmt: skip
