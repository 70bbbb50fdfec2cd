"""
A plan to its outputs: drawn, encoded, and remembered.

The same plan gives the same bytes. Two caches keep repeated jobs cheap: raw
pictures, which several encodings share, and encoded outputs.
"""

from __future__ import annotations

import io
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from PIL import Image, ImageOps

from . import _pictures
from ._accept import Encoding
from ._encoding import encode
from ._jobs import UNREADABLE, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ._jobs import Plan

_RAW_BYTES = 64 << 20
"""Memory for raw pictures (chosen): some twenty of 1024 by 1024."""

_ENCODED_BYTES = 64 << 20
"""Memory for encoded outputs (chosen): about a thousand JPEGs of 1024 by 1024."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Output:
    """One output; `filename` is ``None`` where each job makes up an id of its own."""

    filename: str | None
    content_type: str
    content: bytes


class Shelf(Generic[Value]):
    """What was used last, up to a number of bytes; safe from any thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._items: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """Find a value; ``None`` if it is not kept."""
        with self._lock:
            found = self._items.get(key)
            if found is None:
                return None
            self._items.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value of `size` bytes, at the price of those used longest ago."""
        with self._lock:
            if key in self._items:
                return
            self._items[key] = value, size
            self._bytes += size
            while self._bytes > self._max_bytes:
                _, (_, freed) = self._items.popitem(last=False)
                self._bytes -= freed


class Studio:
    """Makes outputs; `make` may run in many threads at once."""

    def __init__(self) -> None:
        self._raw: Shelf[Image.Image] = Shelf(_RAW_BYTES)
        self._encoded: Shelf[tuple[Output, ...]] = Shelf(_ENCODED_BYTES)

    @staticmethod
    def key(plan: Plan) -> Hashable:
        """Make what two plans share exactly when their outputs are the same."""
        return (*_drawing_key(plan), json.dumps(plan.config, sort_keys=True), plan.first)

    def ready(self, key: Hashable) -> tuple[Output, ...] | None:
        """Find outputs that were made before."""
        return self._encoded.get(key)

    def make(self, plan: Plan) -> tuple[Output, ...]:
        """Draw and encode all outputs of a plan; takes milliseconds of CPU time."""
        outputs = self._make(plan)
        self._encoded.put(self.key(plan), outputs, sum(len(item.content) for item in outputs))
        return outputs

    def _make(self, plan: Plan) -> tuple[Output, ...]:
        encoding = plan.first
        if plan.kind.work == "nothing":
            return ()
        if plan.kind.work == "segment":
            (cut,) = self._inputs(plan, "RGBA")
            foreground = self._drawn(plan, lambda: _pictures.cut_out(cut))
            mask = encode(foreground.getchannel("A"), Encoding("image/png"))
            suffix = encoding.media_type.rpartition("/")[2].replace("jpeg", "jpg")
            return (
                Output(f"foreground.{suffix}", encoding.media_type, encode(foreground, encoding)),
                Output("mask.png", "image/png", mask),
            )
        picture = self._drawn(plan, lambda: self._draw(plan))
        outputs = [Output(None, encoding.media_type, encode(picture, encoding))]
        if plan.config.get("include_messages"):
            text = f"Here is your picture: {plan.prompt}\n"
            outputs.append(Output("message.txt", "text/plain", text.encode()))
        return tuple(outputs)

    def _draw(self, plan: Plan) -> Image.Image:
        size = plan.size
        look = f"{plan.prompt} {plan.config.get('style_preset', '')}".strip()
        match plan.kind.work:
            case "restyle":
                (picture,) = self._inputs(plan, "RGB")
                strength = float(plan.config.get("strength", 0.5))
                return _pictures.restyle(picture, look, plan.seed, size, strength)
            case "cutout":
                (picture,) = self._inputs(plan, "RGBA")
                return _pictures.cut_out(picture)
            case "compose":
                scene = _pictures.scene(look, plan.seed, size)
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
            try:
                with Image.open(io.BytesIO(item.content)) as picture:
                    pictures.append(ImageOps.exif_transpose(picture).convert(mode))
            except UNREADABLE as exc:
                # Its header was read when the job was checked; the rest is damaged.
                raise unreadable(item) from exc
        return pictures


def _drawing_key(plan: Plan) -> tuple[Hashable, ...]:
    return (
        plan.kind.name,
        plan.prompt,
        plan.config.get("style_preset"),
        plan.config.get("strength"),
        plan.seed,
        plan.size,
        tuple(item.sha256 for item in plan.inputs),
    )
