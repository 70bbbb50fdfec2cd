"""
The Accept header: in which form the answer goes out.

Two forms are documented: a media type with parameters for the encoder
(``image/jpeg;quality=95``), and ``multipart/form-data; image/png``, where a
bare second type stands as a parameter and means the first output. Parameters
after that second type (``multipart/form-data; image/webp;lossless=1``) belong to it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .._refusals import Refused, bad_request
from ..drawing._encoding import Encoding

Options = Mapping[str, int | str]
"""Encoder parameters by their wire names, in range; only those that were given."""

_RANGES: Mapping[str, Mapping[str, range | tuple[str, ...]]] = {
    # Source: guide "Output Image Formats", one table per type.
    "image/jpeg": {
        "quality": range(96),
        "optimize": range(2),
        "progressive": range(2),
        "subsampling": ("444", "422", "420"),
    },
    "image/png": {"compress-level": range(10), "optimize": range(2)},
    "image/webp": {
        "quality": range(101),
        "lossless": range(2),
        "alpha-quality": range(101),
        "method": range(7),
    },
}


_WHOLE = re.compile(r"-?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What the client asked for.

    Attributes:
        form: ``multipart``: the job result and all outputs; ``direct``: the
            bytes of a single output; ``json``: the job result alone.
        first: How to encode the first output; ``None`` leaves it native.
    """

    form: Literal["multipart", "direct", "json"] = "direct"
    first: Encoding | None = None


@dataclass(frozen=True, slots=True)
class _Range:
    """One element of the header, split but not yet judged."""

    media_type: str
    second: str | None
    parameters: tuple[tuple[str, str], ...] = field(default=())
    weight: float = 1.0


def asks_for_multipart(header: str | None) -> bool:
    """Tell whether an error should go out as multipart; never raises."""
    ranges = _split(header or "")
    return bool(ranges) and ranges[0].media_type == "multipart/form-data"


def read_accept(
    header: str | None, offers: Collection[str] = tuple(_RANGES), *, clamp: bool = False
) -> Wanted:
    """
    Read the header.

    Args:
        header: Its value; ``None`` or empty when there was none, which counts
            as ``*/*``. Of a comma list the heaviest usable element counts, the
            first of equals.
        offers: Media types the job's first output can have.
        clamp: Take the nearest value for a number out of its range, and ignore
            other parameters that make no sense.

    Returns:
        What to send.

    Raises:
        Refused: 400, naming it: a parameter out of its documented range, an
            unknown parameter, or nothing in the list that is on offer,
            multipart or JSON. What the service does then is not documented.
    """
    ranges = _split(header or "*/*")
    groups = {"*/*", *(f"{offer.partition('/')[0]}/*" for offer in offers)}
    for item in ranges:
        match item.media_type:
            case "application/json":
                return Wanted("json")
            case "multipart/form-data" | "multipart/*":
                if item.second is None or item.second in groups:
                    return Wanted("multipart")
                if item.second not in offers:
                    raise bad_request(f"accept: unsupported output type '{item.second}'")
                return Wanted("multipart", _encoding(item.second, item.parameters, clamp))
            case media_type if media_type in groups:
                return Wanted()
            case media_type if media_type in offers:
                return Wanted("direct", _encoding(media_type, item.parameters, clamp))
    raise bad_request(f"accept: unsupported output type '{header}'")


def _split(header: str) -> list[_Range]:
    """Split a header into its elements, heaviest first; weightless ones are left out."""
    ranges = []
    for element in header.split(","):
        media_type, *fields = (text.strip() for text in element.split(";"))
        second, weight, parameters = None, 1.0, []
        for text in fields:
            name, equals, value = (part.strip() for part in text.partition("="))
            if not equals:
                second = name.lower() if "/" in name else second
            elif name.lower() == "q":
                weight = _weight(value)
            else:
                parameters.append((name.lower(), value.strip('"').lower()))
        if media_type and weight > 0:
            ranges.append(_Range(media_type.lower(), second, tuple(parameters), weight))
    return sorted(ranges, key=lambda item: -item.weight)


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def _encoding(
    media_type: str,
    parameters: tuple[tuple[str, str], ...],
    clamp: bool,
) -> Encoding:
    options: dict[str, int | str] = {}
    for name, text in parameters:
        try:
            options[name] = _option(media_type, name, text, clamp=clamp)
        except Refused:
            if not clamp:
                raise
    return Encoding(media_type, tuple(sorted(options.items())))


def _option(media_type: str, name: str, text: str, *, clamp: bool) -> int | str:
    allowed = _RANGES.get(media_type, {}).get(name)
    if allowed is None:
        raise bad_request(f"accept: {media_type} has no parameter '{name}'")
    if isinstance(allowed, tuple):
        if text not in allowed:
            raise bad_request(
                f"accept: {media_type} {name}: got '{text}', want one of {', '.join(allowed)}"
            )
        return text
    if _WHOLE.fullmatch(text):
        value = int(text)
        if value in allowed:
            return value
        if clamp:
            return min(max(value, allowed.start), allowed.stop - 1)
    raise bad_request(
        f"accept: {media_type} {name}: got '{text}', want {allowed.start} to {allowed.stop - 1}"
    )
