"""The models of the second API: their endpoints, prices and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ._refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Model:
    """
    One model.

    Attributes:
        name: Its name in the path, in the ledger, and for `type_workers`.
        family: Which endpoint serves it.
        dollars_per_step: 0 where one picture has a price of its own.
        dollars: Price of one picture where steps do not count.
        steps: Steps when none are given.
    """

    name: str
    family: Literal["flux", "sdxl", "kontext"]
    dollars_per_step: float = 0.0
    dollars: float = 0.0
    steps: int = 0

    def price(self, steps: int, samples: int) -> float:
        """Work out what an order costs."""
        # Rounded, since 0.00035 times 3 is not 0.00105 in binary.
        return round((self.dollars_per_step * steps + self.dollars) * samples, 8)


MODELS: Mapping[str, Model] = {
    model.name: model
    for model in (
        # Dollars per step: copies of the price page. 28 steps: the same.
        Model("flux-1-schnell-fp8", "flux", 0.00035, steps=4),
        Model("flux-1-dev-fp8", "flux", 0.0005, steps=28),
        # 30 steps are chosen: the documents only say "model default".
        Model("stable-diffusion-xl-1024-v1-0", "sdxl", 0.00013, steps=30),
        Model("playground-v2-1024px-aesthetic", "sdxl", 0.00013, steps=30),
        Model("playground-v2-5-1024px-aesthetic", "sdxl", 0.00013, steps=30),
        Model("SSD-1B", "sdxl", 0.00013, steps=30),
        Model("japanese-stable-diffusion-xl", "sdxl", 0.00013, steps=30),
        # Billed per picture; the amounts are chosen, no document gives them.
        Model("flux-kontext-pro", "kontext", dollars=0.04),
        Model("flux-kontext-max", "kontext", dollars=0.08),
    )
}

RATIOS: Mapping[str, tuple[int, int]] = {
    # The eleven are documented; the sizes are chosen: about one megapixel, in multiples of 64.
    "1:1": (1024, 1024),
    "21:9": (1536, 640),
    "16:9": (1344, 768),
    "3:2": (1216, 832),
    "5:4": (1088, 896),
    "4:5": (896, 1088),
    "2:3": (832, 1216),
    "9:16": (768, 1344),
    "9:21": (640, 1536),
    "4:3": (1152, 896),
    "3:4": (896, 1152),
}

PAIRS = frozenset(
    {
        *((1024, 1024), (1152, 896), (896, 1152), (1216, 832), (832, 1216)),
        *((1344, 768), (768, 1344), (1536, 640), (640, 1536)),
    }
)
"""The nine sizes the older path takes. Source: the older capture of the reference."""


def find_model(name: str, families: frozenset[str]) -> Model:
    """
    Find a model that an endpoint serves.

    Raises:
        Refused: 404.
    """
    model = MODELS.get(name)
    if model is None or model.family not in families:
        raise refusal(404)
    return model
