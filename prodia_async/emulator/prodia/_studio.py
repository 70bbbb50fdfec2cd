"""
A plan to its outputs: drawn, encoded, and remembered.

The same plan gives the same bytes. Two caches keep repeated jobs cheap: raw
pictures, which several encodings share, and encoded outputs.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from .._bodies import Content, held_by, whole
from ..drawing import _films, _pictures, _vectors
from ..drawing._encoding import Encoding, encode
from ..drawing._shelf import Shelf
from ._forms import InputFile, go_json
from ._jobs import UNREADABLE, medium_of, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ._jobs import Plan

_RAW_BYTES = 64 << 20
"""Memory for raw pictures (chosen): some twenty of 1024 by 1024."""

_ENCODED_BYTES = 64 << 20
"""Memory for encoded outputs (chosen): about a thousand JPEGs of 1024 by 1024."""

_PNG = Encoding("image/png")

_CONFIDENCES = (0.95, 0.8, 0.6)
"""Of the things found in every picture (chosen): the default threshold of 0.5 shows all three."""

_STILL_SIDE = 288
"""Pixels of the shorter side of the pictures that films are made from (chosen)."""

_LONGEST = 60
"""Seconds of the longest film (chosen): the longest documented one has 15."""

_SECONDS = 5.0
"""How long a film is where its type has no duration (chosen)."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output; `filename` is ``None`` where each job makes up an id of its own."""

    filename: str | None
    content_type: str
    content: Content


class Studio:
    """Makes outputs; `make` may run in many threads at once."""

    def __init__(self) -> None:
        self._raw: Shelf[Image.Image] = Shelf(_RAW_BYTES)
        self._encoded: Shelf[tuple[Output, ...]] = Shelf(_ENCODED_BYTES)

    @staticmethod
    def key(plan: Plan) -> Hashable:
        """Make what two plans share exactly when their outputs are the same."""
        if plan.steps:
            return tuple((Studio.key(step), step.chained) for step in plan.steps)
        return (
            *_drawing_key(plan),
            json.dumps(plan.config, sort_keys=True),
            plan.wanted.first,
            plan.poster,
            plan.film_bytes,
        )

    def ready(self, key: Hashable) -> tuple[Output, ...] | None:
        """Find outputs that were made before."""
        return self._encoded.get(key)

    def make(self, plan: Plan) -> tuple[Output, ...]:
        """Draw and encode all outputs of a plan; takes milliseconds of CPU time."""
        outputs = self._serial(plan) if plan.steps else self._make(plan)
        self._encoded.put(self.key(plan), outputs, sum(held_by(item.content) for item in outputs))
        return outputs

    def _serial(self, plan: Plan) -> tuple[Output, ...]:
        outputs: tuple[Output, ...] = ()
        for step in plan.steps:
            whole = step
            if step.chained is not None and outputs:
                if step.kind.work == "moderate":
                    continue  # it only looks
                inputs = list(step.inputs)
                inputs.insert(step.chained, _as_input(outputs))
                whole = replace(step, inputs=tuple(inputs))
            outputs = self._make(whole)
        return outputs

    def _make(self, plan: Plan) -> tuple[Output, ...]:
        match plan.kind.work:
            case "nothing":
                return ()
            case "segment":
                return self._segmented(plan)
            case "masks":
                return self._masks(plan)
            case "label":
                labels = Output("labels.json", "application/json", go_json(plan.config["labels"]))
                return labels, self._passed(plan)
            case "moderate":
                return (self._passed(plan),)
            case "vector":
                drawing = _vectors.drawing(plan.prompt, plan.seed, plan.size)
                return (Output("image.svg", "image/svg+xml", drawing.encode()),)
            case "film":
                return self._filmed(plan)
        encoding = plan.first
        picture = self._drawn(plan, lambda: self._draw(plan))
        outputs = [Output(None, encoding.media_type, encode(picture, encoding))]
        if plan.kind.work == "scene" and plan.config.get("n") == 2:
            other = self._draw(replace(plan, seed=plan.seed + 1))
            # Only the first output takes the type that was asked for.
            outputs.append(
                Output(None, plan.kind.native, encode(other, Encoding(plan.kind.native)))
            )
        if plan.config.get("output_message_count"):
            text = f"Here is your picture: {plan.prompt}\n"
            outputs.append(Output("message.txt", "text/plain", text.encode()))
        return tuple(outputs)

    def _segmented(self, plan: Plan) -> tuple[Output, ...]:
        encoding = plan.first
        (cut,) = self._inputs(plan, "RGBA")
        foreground = self._drawn(plan, lambda: _pictures.cut_out(cut))
        mask = encode(foreground.getchannel("A"), _PNG)
        suffix = encoding.media_type.rpartition("/")[2].replace("jpeg", "jpg")
        return (
            Output(f"foreground.{suffix}", encoding.media_type, encode(foreground, encoding)),
            Output("mask.png", "image/png", mask),
        )

    def _masks(self, plan: Plan) -> tuple[Output, ...]:
        """Make a mask for each thing that was found: so many that the threshold can be seen."""
        # SAM 2 finds everything; it has neither a prompt nor a threshold.
        threshold = plan.config.get("confidence_threshold", 0)
        count = sum(confidence >= threshold for confidence in _CONFIDENCES)
        masks = _pictures.masks(plan.prompt, plan.size, count)
        return tuple(
            # The first one takes the type that was asked for, as any first output does.
            Output(None, encoding.media_type, encode(mask, encoding))
            for mask, encoding in zip(masks, (plan.first, *[_PNG] * count), strict=False)
        )

    def _passed(self, plan: Plan) -> Output:
        """Hand the input picture on, as it is unless a format was asked for."""
        (item,) = plan.inputs
        if plan.wanted.first is None:
            with Image.open(io.BytesIO(item.content)) as opened:
                media_type = opened.get_format_mimetype() or "application/octet-stream"
            return Output(None, media_type, item.content)
        (picture,) = self._inputs(plan, "RGB")
        return Output(None, plan.first.media_type, encode(picture, plan.first))

    def _filmed(self, plan: Plan) -> tuple[Output, ...]:
        stills = [item for item in plan.inputs if medium_of(item.content) == "image"]
        scale = _STILL_SIDE / min(plan.size)
        size = round(plan.size[0] * scale), round(plan.size[1] * scale)
        pictures = [
            ImageOps.fit(picture, size)
            for picture in self._inputs(replace(plan, inputs=tuple(stills[:2])), "RGB")
        ]
        look = plan.prompt
        if not pictures:
            pictures = [_pictures.scene(look, plan.seed, size)]
        if len(pictures) == 1:
            # The camera comes nearer.
            width, height = size
            near = (width // 8, height // 8, width * 7 // 8, height * 7 // 8)
            pictures.append(pictures[0].resize(size, box=near))
        config = plan.config
        seconds = config.get("duration", config.get("duration_seconds", _SECONDS))
        if not isinstance(seconds, (int, float)) or not 0 < seconds <= _LONGEST:
            seconds = _SECONDS  # a type without a duration was given one
        content = _content(plan, pictures, float(seconds))
        film = Output("video.mp4", "video/mp4", content)
        if not plan.poster:
            return (film,)
        poster = encode(pictures[0], Encoding("image/jpeg"))
        return film, Output("poster.jpg", "image/jpeg", poster)

    def _draw(self, plan: Plan) -> Image.Image:
        size = plan.size
        look = f"{plan.prompt} {plan.config.get('style_preset', '')}".strip()
        match plan.kind.work:
            case "restyle":
                # An inpainting type has a mask after the picture.
                picture, *masks = self._inputs(plan, "RGB")
                strength = float(plan.config.get("strength", 0.5))
                restyled = _pictures.restyle(picture, look, plan.seed, size, strength)
                if not masks:
                    return restyled
                # White is what is replaced.
                mask = masks[0].convert("L").resize(size)
                return Image.composite(restyled, ImageOps.fit(picture, size), mask)
            case "cutout":
                (picture,) = self._inputs(plan, "RGBA")
                return _pictures.cut_out(picture)
            case "mask":
                (picture,) = self._inputs(plan, "RGBA")
                return _pictures.cut_out(picture).getchannel("A")
            case "enlarge" | "restore":
                (picture,) = self._inputs(plan, "RGB")
                return picture.resize(size, Image.Resampling.BICUBIC)
            case "swap":
                source, target = self._inputs(plan, "RGB")
                return _pictures.swap(source, target)
            case "compose":
                scene = _pictures.scene(look, plan.seed, size)
                if not plan.inputs:
                    return scene
                return _pictures.hang(scene, self._inputs(plan, "RGB"), plan.seed)
            case _:
                return _pictures.scene(look, plan.seed, size)

    def _drawn(self, plan: Plan, draw: Callable[[], Image.Image]) -> Image.Image:
        key = _drawing_key(plan)
        picture = self._raw.get(key)
        if picture is None:
            picture = draw()
            size = picture.width * picture.height * len(picture.getbands())
            self._raw.put(key, picture, size)
        return picture

    @staticmethod
    def _inputs(plan: Plan, mode: str) -> list[Image.Image]:
        pictures = []
        for item in plan.inputs:
            if plan.kind.takes != ("image",) and medium_of(item.content) != "image":
                continue  # a film or a sound, where pictures are not all that may come
            try:
                with Image.open(io.BytesIO(item.content)) as picture:
                    pictures.append(ImageOps.exif_transpose(picture).convert(mode))
            except UNREADABLE as exc:
                # Its header was read when the job was checked; the rest is damaged.
                raise unreadable(item) from exc
        return pictures


def _as_input(outputs: tuple[Output, ...]) -> InputFile:
    """Make an input of what a step hands on: its first output, or the picture beside labels."""
    output = next(
        (item for item in outputs if item.content_type.startswith(("image/", "video/"))),
        outputs[0],
    )
    content = whole(output.content)
    digest = hashlib.sha256(content).hexdigest()
    return InputFile(output.filename or "output", output.content_type, content, digest)


def _content(plan: Plan, pictures: list[Image.Image], seconds: float) -> Content:
    """Make a film: a small one, or one of the size that was asked for."""
    if plan.film_bytes is None:
        return _films.film(pictures, plan.size, seconds)
    first, last = pictures

    def frame_at(part: float) -> Image.Image:
        return Image.blend(first, last, part)

    size = max(plan.film_bytes, _films.smallest(plan.size, seconds))
    return _films.Reel(frame_at, plan.size, seconds, size)


def _drawing_key(plan: Plan) -> tuple[Hashable, ...]:
    return (
        plan.kind.name,
        plan.prompt,
        str(plan.config.get("style_preset")),
        str(plan.config.get("strength")),
        plan.seed,
        plan.size,
        tuple(item.sha256 for item in plan.inputs),
    )
