"""
What may be asked for: output formats as media types with encoder parameters.

Names, ranges and defaults are documented: guide "Output Image Formats",
tables "JPEG", "PNG" and "WebP". A parameter left at ``None`` is not sent, so
the server's own default holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, get_args

from ._checks import flag, integer, optional
from ._errors import InvalidRequestError
from ._show import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

Subsampling: TypeAlias = Literal["444", "422", "420"]
"""How fine a `JPEG` keeps its colours: as fine as its light, half, or a quarter of that."""

MULTIPART = "multipart/form-data"
JSON_TYPE = "application/json"

_TCHARS = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf"(?P<type>{_TCHARS}/{_TCHARS})(?P<parameters>(\s*;[^;]*)*)")
_BARE_PARAMETER = re.compile(rf"\s*(?P<name>{_TCHARS})\s*=\s*(?P<value>{_TCHARS}|\"[^\"\\]*\")\s*")


class Format:
    """
    The base of `JPEG`, `PNG` and `WebP`.

    A media type whose set fields are its parameters, in the order they are written down.
    """

    __slots__ = ()

    media_type: ClassVar[str]

    def __str__(self) -> str:
        wire = [self.media_type]
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            if value is not None:
                text = str(int(value)) if isinstance(value, bool) else str(value)
                wire.append(f"{field.name.replace('_', '-')}={text}")
        return ";".join(wire)


@dataclass(frozen=True, slots=True, kw_only=True)
class JPEG(Format):
    """
    ``image/jpeg``, the server's default for pictures. Documented: guide "Output Image Formats".

    Args:
        quality: 0 to 95, bigger is better; the server's default is 75.
        optimize: Optimise the Huffman tables; default off.
        progressive: Progressive scan; default off.
        subsampling: Chroma: ``"444"``, ``"422"`` or ``"420"``, the default.

    Raises:
        InvalidRequestError: A value is out of its range.
    """

    media_type: ClassVar[str] = "image/jpeg"

    quality: int | None = None
    optimize: bool | None = None
    progressive: bool | None = None
    subsampling: Subsampling | None = None

    def __post_init__(self) -> None:
        optional(integer, "JPEG quality", self.quality, least=0, most=95)
        optional(flag, "JPEG optimize", self.optimize)
        optional(flag, "JPEG progressive", self.progressive)
        if self.subsampling is not None and self.subsampling not in get_args(Subsampling):
            allowed = ", ".join(repr(choice) for choice in get_args(Subsampling))
            raise InvalidRequestError(
                f"JPEG subsampling must be one of {allowed}, not {shown(self.subsampling)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PNG(Format):
    """
    ``image/png``, lossless. Documented: guide "Output Image Formats".

    Args:
        compress_level: 0 (fast) to 9 (small); the server's default is 6.
        optimize: Look for the smallest encoding; default off.

    Raises:
        InvalidRequestError: A value is out of its range.
    """

    media_type: ClassVar[str] = "image/png"

    compress_level: int | None = None
    optimize: bool | None = None

    def __post_init__(self) -> None:
        optional(integer, "PNG compress_level", self.compress_level, least=0, most=9)
        optional(flag, "PNG optimize", self.optimize)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebP(Format):
    """
    ``image/webp``, the smallest pictures. Documented: guide "Output Image Formats".

    Args:
        quality: 0 to 100, bigger is better; the server's default is 80.
        lossless: Keep every pixel, ignoring `quality`; default off.
        alpha_quality: 0 to 100, for the alpha plane; default 100.
        method: 0 (fast) to 6 (small); default 4.

    Raises:
        InvalidRequestError: A value is out of its range.
    """

    media_type: ClassVar[str] = "image/webp"

    quality: int | None = None
    lossless: bool | None = None
    alpha_quality: int | None = None
    method: int | None = None

    def __post_init__(self) -> None:
        optional(integer, "WebP quality", self.quality, least=0, most=100)
        optional(flag, "WebP lossless", self.lossless)
        optional(integer, "WebP alpha_quality", self.alpha_quality, least=0, most=100)
        optional(integer, "WebP method", self.method, least=0, most=6)


_TYPED: dict[str, type[JPEG | PNG | WebP]] = {kind.media_type: kind for kind in (JPEG, PNG, WebP)}


def accept_header(accept: Format | str | None, *, multipart: bool) -> str:
    """
    Say in the API's own grammar which answer is wanted.

    Args:
        accept: The format of the first output: a `Format`, or any media type
            as a string, with parameters or without. ``None`` leaves it to the server.
        multipart: Whether the job result shall come along.

    Returns:
        The value of the Accept header, for instance
        ``multipart/form-data; image/webp;lossless=1``; ``application/json``
        asks for the job result alone, either way.

    Raises:
        InvalidRequestError: The text is no media type, or a parameter of
            JPEG, PNG or WebP is out of its range.
    """
    match accept:
        case None:
            output = None
        case str():
            output = _check_text(accept, multipart=multipart)
        case Format() if type(accept) is not Format:
            output = str(accept)
        case _:
            raise InvalidRequestError(
                "accept must be JPEG(...), PNG(...), WebP(...) or a media type as a string, "
                f"not {shown(accept)}"
            )
    if not multipart:
        return output or "*/*"
    if output and output.partition(";")[0].strip().lower() == JSON_TYPE:
        # The job result alone: it is no format that an output beside it could have.
        return output
    return f"{MULTIPART}; {output}" if output else MULTIPART


def _check_text(text: str, *, multipart: bool) -> str | None:
    """Return the output format that ``text`` asks for, after checking what can be checked."""
    wanted = text.strip()
    if wanted.lower().startswith(MULTIPART):
        # As the API's documents write it, with the output's type as a parameter.
        if not multipart:
            raise InvalidRequestError(
                f"accept asks for {MULTIPART} although multipart=False; give the output's "
                f"format alone, not {shown(text)}"
            )
        wanted = wanted[len(MULTIPART) :].lstrip(" ;")
        if not wanted:
            return None
    match = _MEDIA_TYPE.fullmatch(wanted)
    if match is None or not wanted.isprintable() or not wanted.isascii():
        raise InvalidRequestError(
            f"accept must be a media type such as 'image/png' or 'image/jpeg;quality=95', "
            f"not {shown(text)}"
        )
    parameters = [part for part in match["parameters"].split(";") if part.strip()]
    pairs = [_split_parameter(part) for part in parameters]
    if len(dict(pairs)) < len(pairs):
        raise InvalidRequestError(f"accept must give each parameter once, not {shown(text)}")
    _check_parameters(match["type"].lower(), dict(pairs))
    return wanted


def _split_parameter(text: str) -> tuple[str, str]:
    match = _BARE_PARAMETER.fullmatch(text)
    if match is None:
        raise InvalidRequestError(
            f"a parameter in accept must read name=value, not {shown(text.strip())}"
        )
    return match["name"].lower(), match["value"].strip('"')


def _check_parameters(media_type: str, parameters: Mapping[str, str]) -> None:
    """Check the parameters we know the ranges of, by building the typed format from them."""
    kind = _TYPED.get(media_type)
    if kind is None:
        return
    known: dict[str, object] = {}
    for field in fields(kind):
        text = parameters.get(field.name.replace("_", "-"))
        if text is None:
            continue
        if "bool" in str(field.type):
            known[field.name] = {"0": False, "1": True}.get(text, text)
        elif "int" in str(field.type):
            known[field.name] = int(text) if re.fullmatch(r"-?\d{1,9}", text) else text
        else:
            known[field.name] = text
    kind(**known)  # type: ignore[arg-type]  # its own checks are the point
