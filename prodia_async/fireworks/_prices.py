"""What an order will cost: no answer of this API tells, so steps are counted here."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from .._checks import integer, optional
from ._orders import FLUX_SCHNELL, check_model

if TYPE_CHECKING:
    from collections.abc import Mapping


MAX_STEPS = 10**12
"""Beyond it nothing is reckoned, since a float ends somewhere. Chosen."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What pictures will cost, and how sure that is."""

    dollars: float | None
    """In all; ``None`` when no price is known."""
    model: str
    """Of which model."""
    steps: int | None
    """Counted for each picture; ``None`` when the number is not known."""
    images: int
    """How many pictures."""
    source: str
    """Where the price comes from, or why there is none."""
    confidence: Literal["reported", "unknown"]
    """
    ``"reported"``: copies of the price page agree, the page itself was not seen. ``"unknown"``:
    nobody says.
    """


@dataclass(frozen=True, slots=True)
class _Price:
    dollars_per_step: float
    steps: int | None


_SDXL = _Price(0.00013, None)

_PRICES: Mapping[str, _Price] = MappingProxyType(
    {
        # Steps when none are given: documented for schnell, in price texts for dev; the older
        # models have a default that no document names.
        "flux-1-schnell-fp8": _Price(0.00035, 4),
        "flux-1-dev-fp8": _Price(0.0005, 28),
        "stable-diffusion-xl-1024-v1-0": _SDXL,
        "playground-v2-1024px-aesthetic": _SDXL,
        "playground-v2-5-1024px-aesthetic": _SDXL,
        "SSD-1B": _SDXL,
        "japanese-stable-diffusion-xl": _SDXL,
    }
)
"""Reported: copies of the price page. Kontext is paid by the picture; no text says how much."""


def estimate(steps: int | None = None, model: str = FLUX_SCHNELL, *, images: int = 1) -> Estimate:
    """
    Tell what pictures will cost, before anything is sent.

    Args:
        steps: Steps of each picture; ``None`` for the model's default.
        model: The model's name.
        images: How many pictures.

    Returns:
        The estimate; its `dollars` are ``None`` when no price, or no default
        number of steps, is known.

    Raises:
        InvalidRequestError: `steps` or `images` is no number from 1, or `model` no name.
    """
    check_model(model)
    optional(integer, "steps", steps, least=1)
    integer("images", images, least=1)
    if (steps or 0) * images > MAX_STEPS:
        return Estimate(None, model, steps, images, "nobody makes so many steps", "unknown")
    name = model.removeprefix("accounts/fireworks/models/")
    price = _PRICES.get(name)
    if price is None:
        return Estimate(None, name, steps, images, "no text found gives a price", "unknown")
    steps = steps or price.steps
    if steps is None:
        source = "reported is a price per step; the model's default number of steps is not known"
        return Estimate(None, name, None, images, source, "unknown")
    source = f"copies of the price page: ${price.dollars_per_step:g} a step"
    # Rounded, since 0.00035 times 3 is not 0.00105 in binary.
    dollars = round(price.dollars_per_step * steps * images, 9)
    return Estimate(dollars, name, steps, images, source, "reported")
