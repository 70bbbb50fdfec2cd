"""Drawings as SVG text: the same words, seed and size give the same drawing."""

from __future__ import annotations

import random
from xml.sax.saxutils import escape


def drawing(look: str, seed: int, size: tuple[int, int]) -> str:
    """
    Make a landscape of a sky, a sun and three ridges.

    Args:
        look: The prompt; it is the drawing's title too.
        seed: Another seed, another landscape.
        size: Width and height in user units.

    Returns:
        A whole SVG document.
    """
    width, height = size
    title = "".join(character for character in look if character.isprintable())
    chance = random.Random(f"{look} {seed}")
    hue = chance.randrange(360)
    shapes = [
        f'<rect width="{width}" height="{height}" fill="hsl({hue} 60% 85%)"/>',
        (
            f'<circle cx="{chance.uniform(0.2, 0.8) * width:.1f}" '
            f'cy="{chance.uniform(0.2, 0.4) * height:.1f}" r="{min(size) / 10:.1f}" '
            f'fill="hsl({(hue + 40) % 360} 90% 70%)"/>'
        ),
    ]
    for level in (0.5, 0.65, 0.8):
        points = [f"0,{height}"]
        points += (
            f"{width * step / 8:.1f},{height * (level + chance.uniform(-0.08, 0.08)):.1f}"
            for step in range(9)
        )
        points.append(f"{width},{height}")
        light = round(75 - 60 * level)
        shapes.append(
            f'<polygon points="{" ".join(points)}" fill="hsl({(hue + 180) % 360} 30% {light}%)"/>'
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">\n'
        f"<title>{escape(title)}</title>\n" + "\n".join(shapes) + "\n</svg>\n"
    )
