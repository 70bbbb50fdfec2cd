"""``fireworks``: a picture of the second API."""

from __future__ import annotations

import json
from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from .._errors import ProdiaError
from ..fireworks import (
    AsyncFireworks,
    ContentFilteredError,
    Generate,
    ImageResponse,
    Kontext,
    TextToImage,
    estimate,
)
from ..fireworks._orders import FLUX_SCHNELL, POLL_SECONDS
from . import _options as options
from ._app import InterruptedJobError, app, wrong
from ._config import media_of, read_setting, read_text
from ._job import show_rest
from ._show import console, spinner, wrote
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
        str | None, typer.Argument(metavar="PROMPT", help="What to show; @FILE reads it.")
    ] = None,
    *,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="flux-1-schnell-fp8, flux-1-dev-fp8, flux-kontext-pro, flux-kontext-max, "
            f"{', '.join(SDXL)}, or another by its whole name.",
        ),
    ] = FLUX_SCHNELL,
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
    picture: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="The picture that a Kontext model starts from: a file or a URL.",
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

    The key is taken from the environment variable FIREWORKS_API_KEY, for the
    reason that the token of the other API is.
    """
    if as_json and out == "-":
        wrong("--json", "needs standard output for itself; give -o a file or a folder")
    target = Target(out)
    order: Order | None = None
    if task is None:
        order = make_order(
            prompt,
            model,
            config or [],
            accept=accept,
            file=target.file,
            picture=picture,
            poll=poll,
            keep_filtered=keep_filtered,
        )
    elif prompt is not None or config or picture is not None:
        wrong(
            "--task", "collects what was asked for before; give no prompt and no settings with it"
        )

    async def run() -> ImageResponse:
        async with AsyncFireworks(base_url=base_url, timeout=timeout, deadline=deadline) as client:
            target.prepare()
            if order is not None:
                return await client.run(order)
            return await client.kontext_result(task or "", model=model, poll=poll)

    try:
        with spinner(f"{model} is at work"):
            response = anyio.run(run)
    except KeyboardInterrupt:
        raise InterruptedJobError(
            "interrupted; a picture that was under way may have been made and charged"
        ) from None
    except ProdiaError as error:
        if not isinstance(error, ContentFilteredError):
            show_rest(error, target, as_json=as_json)
        raise
    say = console(stderr=as_json or target.is_standard_output)
    failure: OSError | None = None
    try:
        for image, path in target.write(response.images):
            say.print(wrote(image, path))
    except BrokenPipeError:
        raise
    except OSError as error:
        failure = error
    for line in _summary(response):
        say.print(line)
    if as_json:
        typer.echo(json.dumps(_facts(response), indent=2))
    if failure is not None:
        raise failure


def make_order(
    prompt: str | None,
    model: str,
    items: Sequence[str],
    *,
    accept: str | None,
    file: Path | None,
    picture: str | None,
    poll: float,
    keep_filtered: bool,
) -> Order:
    """
    Make the request for a picture of what was typed.

    Raises:
        InvalidRequestError: It cannot be sent; says what is wrong.
    """
    if prompt is None:
        wrong("PROMPT", "is missing; say what to show")
    if prompt.startswith("@"):
        prompt = read_text("PROMPT", prompt[1:]).strip()
    name = model.rpartition("/")[2]
    kind: type[TextToImage | Generate | Kontext] = TextToImage
    if "kontext" in name:
        kind = Kontext
    elif name in SDXL:
        kind = Generate
    values = _settings(kind, items)
    media = media_of(accept, file, {"image/png", "image/jpeg"})
    if kind is Kontext:
        if media is not None:
            values.setdefault("output_format", media.partition("/")[2])
        if picture is not None:
            values["input_image"] = picture
        values["poll"] = poll
    else:
        if picture is not None:
            wrong("-i", f"belongs to the Kontext models, not to {model}")
        if media is not None:
            values["accept"] = media
        values["raise_if_filtered"] = not keep_filtered
    return kind(prompt, model=model, **values)


def _settings(kind: type[Any], items: Sequence[str]) -> dict[str, Any]:
    own = {
        each.name: str(each.type)
        for each in fields(kind)
        if each.name not in {"prompt", "model", "input_image", "poll", "deadline", "accept"}
    }
    values: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals or not key:
            wrong("-c", f"must read key=value, not {item!r}")
        if key not in own:
            near = get_close_matches(key, own, n=1)
            hint = f"; did you mean {near[0]}?" if near else f", only {', '.join(own)}"
            wrong("-c", f"{key} is no field of this request ({kind.__name__}){hint}")
        values[key] = read_setting(key, text, is_text="str" in own[key])
    return values


def _summary(response: ImageResponse) -> Iterator[str]:
    facts = _facts(response)
    seeds = [str(each["seed"]) for each in facts["images"] if each["seed"] is not None]
    if seeds:
        yield f"seed      {', '.join(seeds)}"
    if any(each.is_filtered for each in response.images):
        yield "filtered  the service says that it filtered what it made"
    timing = response.timing
    waited = timing.queued + timing.backoff
    waiting = f", {waited:.2f} s of it waiting" if waited >= 0.005 else ""
    yield f"time      {timing.total:.2f} s{waiting}"
    if response.attempts:
        yield f"attempts  {len(response.attempts)} ({', '.join(map(str, response.attempts))})"
    if facts["dollars"] is not None:
        yield f"price     ${facts['dollars']:g}, by the steps (no answer tells)"


def _facts(response: ImageResponse) -> dict[str, Any]:
    order = response.request
    dollars = None
    if isinstance(order, TextToImage | Generate):
        dollars = estimate(order.steps, order.model, images=order.samples).dollars
    return {
        "model": None if order is None else order.model,
        "images": [
            {"seed": each.seed, "finish_reason": each.finish_reason, "id": each.id,
             "content_type": each.content_type, "bytes": len(each.content)}
            for each in response.images
        ],
        "dollars": dollars,
        "request_id": response.request_id,
    }  # fmt: skip
