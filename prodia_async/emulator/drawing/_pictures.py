"""
Pictures that look like photographs, drawn in a few milliseconds.

Everything is done by Pillow's own C loops at half size: small grids of numbers
enlarged smoothly (skies, clouds, mist, light), polygons drawn large and
reduced (ridges, trees), radial gradients (sun, fruit). The result is enlarged
once and gets its film grain at full size. The grain decides the file sizes and
is tuned to those of the guide "Output Image Formats".

The same look, seed and size give the same pixels.
"""

from __future__ import annotations

import functools
import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

if TYPE_CHECKING:
    from collections.abc import Sequence

Colour = tuple[int, int, int]
Size = tuple[int, int]

_SMOOTH = Image.Resampling.BICUBIC
_WORK_PIXELS = 512 * 512
"""Pixels at which a scene is composed (chosen): a quarter of the usual picture."""


_SMALL = (128, 128)
"""Pixels at which soft colours are mixed (chosen)."""


@dataclass(frozen=True, slots=True)
class _Mood:
    """The colours of one kind of light."""

    words: tuple[str, ...]
    top: Colour
    middle: Colour
    horizon: Colour
    haze: Colour
    near: Colour
    light: Colour
    sun_height: float


_MOODS = (
    _Mood(
        words=("dawn", "morning", "sunrise", "cloud", "pink"),
        top=(96, 126, 176),
        middle=(206, 178, 186),
        horizon=(252, 218, 178),
        haze=(224, 190, 182),
        near=(58, 56, 66),
        light=(255, 236, 200),
        sun_height=0.46,
    ),
    _Mood(
        words=("noon", "day", "summer", "meadow", "green", "sky", "blue"),
        top=(58, 116, 194),
        middle=(136, 184, 226),
        horizon=(216, 232, 238),
        haze=(170, 196, 206),
        near=(48, 78, 40),
        light=(255, 252, 236),
        sun_height=0.2,
    ),
    _Mood(
        words=("dusk", "sunset", "evening", "orange", "red", "fire"),
        top=(52, 52, 104),
        middle=(164, 92, 122),
        horizon=(252, 158, 88),
        haze=(176, 104, 112),
        near=(30, 24, 40),
        light=(255, 214, 140),
        sun_height=0.5,
    ),
    _Mood(
        words=("night", "moon", "star", "dark", "space", "neon"),
        top=(10, 15, 40),
        middle=(28, 42, 82),
        horizon=(84, 102, 138),
        haze=(66, 82, 116),
        near=(9, 13, 24),
        light=(232, 238, 250),
        sun_height=0.24,
    ),
    _Mood(
        words=("desert", "sand", "dune", "gold", "lion", "warm"),
        top=(84, 138, 186),
        middle=(184, 198, 196),
        horizon=(246, 220, 180),
        haze=(232, 190, 146),
        near=(140, 76, 42),
        light=(255, 244, 214),
        sun_height=0.3,
    ),
    _Mood(
        words=("mist", "fog", "rain", "winter", "snow", "forest", "grey", "gray"),
        top=(142, 162, 176),
        middle=(186, 200, 206),
        horizon=(226, 230, 226),
        haze=(198, 208, 210),
        near=(46, 62, 64),
        light=(252, 252, 246),
        sun_height=0.34,
    ),
    _Mood(
        words=("autumn", "fall", "fox", "wood", "harvest"),
        top=(112, 146, 180),
        middle=(206, 206, 194),
        horizon=(248, 226, 184),
        haze=(220, 188, 148),
        near=(112, 58, 28),
        light=(255, 240, 206),
        sun_height=0.4,
    ),
)
_LAKE_WORDS = ("lake", "sea", "ocean", "water", "river", "boat", "beach", "fish")
_TABLE_WORDS = (
    *("berry", "berries", "fruit", "apple", "orange", "cherry", "food", "bowl", "table"),
    *("product", "bottle", "cup", "still life", "studio"),
)


def scene(look: str, seed: int, size: Size) -> Image.Image:
    """
    Draw a scene.

    Args:
        look: The prompt, with the style. Words in it choose the subject and
            the light; other words choose by chance, always the same.
        seed: Where everything lies.
        size: Width and height in pixels.

    Returns:
        An RGB picture. The same arguments give the same pixels.
    """
    style = random.Random(look)
    chance = random.Random(f"{seed} {look}")
    words = look.lower()
    mood = _chosen_mood(words, style)
    scale = min(1.0, (_WORK_PIXELS / (size[0] * size[1])) ** 0.5)
    work = (max(8, round(size[0] * scale)), max(8, round(size[1] * scale)))
    subject = style.random()
    if any(word in words for word in _TABLE_WORDS):
        picture = _table(work, style, chance)
    elif any(word in words for word in _LAKE_WORDS) or subject < 0.35:
        picture = _lake(work, mood, chance)
    else:
        picture = _hills(work, mood, chance)
    return _developed(picture, size, chance)


def restyle(picture: Image.Image, look: str, seed: int, size: Size, strength: float) -> Image.Image:
    """
    Paint a picture again in another light.

    Args:
        picture: RGB.
        look: The prompt: its light colours the result.
        seed: Where brush and grain fall.
        size: Of the result.
        strength: 0 leaves the picture nearly as it is, 1 changes it most.

    Returns:
        An RGB picture in which the old one can be recognised.
    """
    chance = random.Random(f"{seed} {look} restyle")
    mood = _chosen_mood(look.lower(), random.Random(look))
    scale = min(1.0, (_WORK_PIXELS / (size[0] * size[1])) ** 0.5)
    work = (max(8, round(size[0] * scale)), max(8, round(size[1] * scale)))
    original = picture.resize(work, _SMOOTH)
    # Broad strokes: medians flatten areas and keep edges. At half the size,
    # since they are slow.
    half = (max(4, work[0] // 2), max(4, work[1] // 2))
    painted = original.resize(half, Image.Resampling.BOX).filter(ImageFilter.MedianFilter(3))
    painted = painted.resize(work, _SMOOTH).filter(ImageFilter.UnsharpMask(3, 170, 1))
    tones = ImageOps.autocontrast(ImageOps.grayscale(painted), cutoff=1)
    toned = ImageOps.colorize(tones, mood.near, mood.light, mid=_mix(mood.middle, mood.haze, 0.5))
    painted = Image.blend(painted, toned, 0.45)
    wash = ImageOps.colorize(_noise(work, 9, chance, stretch=0.4), (206, 206, 206), (255, 255, 255))
    painted = ImageChops.multiply(painted, wash)
    return _developed(Image.blend(original, painted, 0.25 + 0.75 * strength), size, chance)


def hang(scene: Image.Image, pictures: Sequence[Image.Image], seed: int) -> Image.Image:
    """
    Hang pictures side by side in a scene, first to last from left to right.

    Args:
        scene: RGB; it is not changed.
        pictures: RGB, at least one.
        seed: How they lean.

    Returns:
        A new RGB picture of the scene's size.
    """
    chance = random.Random(f"{seed} hang")
    result = scene.copy()
    width, height = scene.size
    columns = min(len(pictures), 5)
    rows = -(-len(pictures) // columns)
    cell = (width / columns, height * (0.86 if rows > 1 else 1) / rows)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        in_row = min(columns, len(pictures) - row * columns)
        left = (width - in_row * cell[0]) / 2 + column * cell[0]
        lift = chance.uniform(-0.03, 0.03) * cell[1]
        top = (height - rows * cell[1]) / 2 + row * cell[1] + lift
        centre = (round(left + cell[0] / 2), round(top + cell[1] / 2))
        _hang_one(result, picture, centre, (cell[0] * 0.8, cell[1] * 0.74))
    return result


def cut_out(picture: Image.Image) -> Image.Image:
    """
    Free the subject of a picture from its background.

    The subject is what differs from the colours at the rim, weighted towards
    the middle; where nothing stands out, an oval in the middle.

    Args:
        picture: RGBA; what is transparent in it stays so.

    Returns:
        An RGBA picture of the same size, its alpha 0 outside, 255 inside, and
        soft between.
    """
    small = picture.convert("RGB").resize(_SMALL, Image.Resampling.BOX)
    width, height = _SMALL
    # Each row's background is taken from its two ends, smoothed up and down.
    ends = Image.new("RGB", (16, height))
    ends.paste(small.crop((0, 0, 8, height)), (0, 0))
    ends.paste(small.crop((width - 8, 0, width, height)), (8, 0))
    ground = ends.filter(ImageFilter.MedianFilter(3)).resize((1, height), Image.Resampling.BOX)
    difference = ImageChops.difference(small, ground.resize(_SMALL))
    red, green, blue = difference.split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    oval = ImageChops.invert(Image.radial_gradient("L")).resize(_SMALL, _SMOOTH)
    oval = oval.point([_bounded((value - 24) * 4) for value in range(256)])
    stands_out = ImageOps.autocontrast(most.filter(ImageFilter.GaussianBlur(0.8)), cutoff=2)
    mask = ImageChops.multiply(stands_out, oval).filter(ImageFilter.MedianFilter(5))
    mask = mask.point([_bounded((value - 84) * 5) for value in range(256)])
    covered = mask.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    if not isinstance(covered, int) or not 16 < covered < 235:
        mask = oval.point([_bounded((value - 90) * 6) for value in range(256)])
    mask = mask.filter(ImageFilter.GaussianBlur(0.8))
    alpha = mask.resize(picture.size, _SMOOTH)
    result = picture.copy()
    result.putalpha(ImageChops.multiply(alpha, picture.getchannel("A")))
    return result


# Subjects.


def masks(look: str, size: Size, count: int) -> list[Image.Image]:
    """
    Draw one mask for each of some things: 255 where it is, 0 where it is not.

    Args:
        look: What was looked for; decides where the things stand.
        size: Width and height in pixels.
        count: How many; they stand side by side and do not touch.

    Returns:
        Grey pictures.
    """
    width, height = size
    chance = random.Random(look)
    drawn = []
    for index in range(count):
        mask = Image.new("L", size)
        left = width * (index + chance.uniform(0.1, 0.2)) / count
        right = width * (index + chance.uniform(0.8, 0.9)) / count
        top, bottom = height * chance.uniform(0.1, 0.4), height * chance.uniform(0.6, 0.9)
        ImageDraw.Draw(mask).ellipse((left, top, max(left, right), bottom), fill=255)
        drawn.append(mask)
    return drawn


def swap(source: Image.Image, target: Image.Image) -> Image.Image:
    """Put the middle of one picture into the middle of another, with soft edges."""
    width, height = target.size
    face = max(1, width // 3), max(1, height // 3)
    patch = ImageOps.fit(source, face)
    edge = Image.new("L", face)
    ImageDraw.Draw(edge).ellipse((0, 0, face[0] - 1, face[1] - 1), fill=255)
    edge = edge.filter(ImageFilter.GaussianBlur(max(face) / 24))
    result = target.copy()
    result.paste(patch, ((width - face[0]) // 2, (height - face[1]) // 2), edge)
    return result


def _hills(size: Size, mood: _Mood, chance: random.Random) -> Image.Image:
    picture = _sky(size, mood, chance)
    horizon = chance.uniform(0.5, 0.6)
    layers = chance.choice((4, 5, 5, 6))
    for layer in range(layers):
        depth = layer / (layers - 1)
        top = horizon + (0.96 - horizon) * depth**1.35 * 0.86
        rise = chance.uniform(0.10, 0.15) * (1.15 - 0.55 * depth)
        ridge = _ridge(chance, top, rise, 1.05 - 0.35 * depth)
        colour = _mix(mood.haze, mood.near, depth**0.85 * 0.95)
        # Mist gathers in the valleys: each layer pales towards its foot.
        foot = _mix(colour, mood.haze, 0.6 * (1 - depth))
        # Made small and enlarged once: it is soft anyway.
        fill = _gradient(_SMALL, colour, foot, top - rise, min(1.2, top + 0.26))
        if depth > 0.2:
            shade = _noise(_SMALL, round(6 + 26 * depth), chance, stretch=2.6)
            low = round(255 - 96 * depth)
            fill = ImageChops.multiply(
                fill, ImageOps.colorize(shade, (low, low, low), (255, 255, 255))
            )
        fill = fill.resize(size, Image.Resampling.BILINEAR)
        trees = depth > 0.55 and chance.random() < 0.8
        mask = _below(size, ridge, chance if trees else None, 0.016 + 0.034 * depth**2)
        picture.paste(fill, mask=mask)
    return _vignetted(picture)


def _lake(size: Size, mood: _Mood, chance: random.Random) -> Image.Image:
    width, height = size
    picture = _sky(size, mood, chance)
    shore = chance.uniform(0.56, 0.64)
    for layer in range(3):
        depth = layer / 2
        rise = chance.uniform(0.10, 0.17) * (1.0 - 0.5 * depth)
        ridge = _ridge(chance, shore - 0.01 - 0.04 * (1 - depth), rise, 1.0 - 0.2 * depth)
        colour = _mix(mood.haze, mood.near, 0.15 + 0.6 * depth)
        fill = _gradient(size, colour, _mix(colour, mood.haze, 0.5), shore - rise, shore)
        trees = chance if depth == 1 else None
        picture.paste(fill, mask=_below(size, ridge, trees, 0.018))
    line = round(height * shore)
    water_height = height - line
    above = picture.crop((0, max(0, line - water_height), width, line))
    mirror = above.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((width, water_height), _SMOOTH)
    # Ripples: the mirror image is smeared downwards and broken into bands.
    mirror = mirror.resize((width, max(2, water_height // 6)), Image.Resampling.BOX)
    mirror = mirror.resize((width, water_height), _SMOOTH)
    bands = _noise((width, water_height), 70, chance, stretch=9.0)
    deep = _mix(mood.near, mood.top, 0.55)
    mirror = Image.blend(mirror, Image.new("RGB", mirror.size, deep), 0.22)
    bright = ImageOps.colorize(bands, (176, 180, 186), (255, 255, 255))
    mirror = ImageChops.multiply(mirror, bright)
    fade = _gradient(mirror.size, (255, 255, 255), (150, 154, 164), 0.0, 1.0)
    picture.paste(ImageChops.multiply(mirror, fade), (0, line))
    # A line of mist hides where water meets shore.
    mist = Image.new("L", (1, 64), 0)
    mist.putdata([round(120 * max(0.0, 1 - abs(row - 32) / 9) ** 2) for row in range(64)])
    band = mist.resize((width, height // 2), _SMOOTH)
    picture.paste(mood.haze, (0, line - height // 4), band)
    return _vignetted(picture)


def _table(size: Size, style: random.Random, chance: random.Random) -> Image.Image:
    width, height = size
    wall = style.choice(((132, 148, 158), (176, 156, 134), (110, 132, 124), (188, 182, 174)))
    wood = style.choice(((150, 104, 66), (182, 150, 116), (112, 84, 66), (196, 190, 182)))
    picture = _gradient(
        size, _mix(wall, (255, 255, 255), 0.22), _mix(wall, (0, 0, 0), 0.25), 0, 0.7
    )
    glow = _noise(size, 3, chance)
    picture = ImageChops.multiply(
        picture, ImageOps.colorize(glow, (170, 170, 176), (255, 252, 246))
    )
    # Lights far behind, out of focus.
    for _ in range(chance.randint(5, 9)):
        spot = round(min(size) * chance.uniform(0.05, 0.13))
        disc = Image.new("L", (spot * 2, spot * 2), 0)
        ImageDraw.Draw(disc).ellipse((spot * 0.3, spot * 0.3, spot * 1.7, spot * 1.7), fill=64)
        disc = disc.filter(ImageFilter.GaussianBlur(spot * 0.07))
        where = (round(width * chance.uniform(-0.1, 1)), round(height * chance.uniform(-0.1, 0.42)))
        picture.paste(_mix(wall, (255, 246, 226), 0.75), where, disc)
    edge = chance.uniform(0.56, 0.62)
    board = _gradient(
        size, _mix(wood, (0, 0, 0), 0.28), _mix(wood, (255, 255, 255), 0.12), edge, 1.0
    )
    grain = _noise(size, 60, chance, stretch=14.0)
    board = ImageChops.multiply(board, ImageOps.colorize(grain, (206, 200, 194), (255, 255, 255)))
    mask = _gradient(size, (0, 0, 0), (255, 255, 255), edge - 0.012, edge + 0.012).getchannel("R")
    picture.paste(board, mask=mask)
    reds = ((190, 34, 38), (214, 62, 44), (168, 26, 52))
    others = ((226, 140, 40), (212, 180, 60), (112, 142, 52), (86, 52, 98), (232, 120, 84))
    colours = reds if style.random() < 0.6 else others
    count = chance.randint(3, 5)
    unit = min(width, height)
    places = []
    for index in range(count):
        x = 0.5 + (index - (count - 1) / 2) * 0.19 + chance.uniform(-0.03, 0.03)
        y = edge + chance.uniform(0.1, 0.26)
        places.append((y, x, chance.uniform(0.085, 0.125)))
    # Far ones first, so that near ones stand before them.
    for y, x, radius in sorted(places):
        r = round(unit * radius * (0.75 + y * 0.5))
        _fruit(picture, (round(width * x), round(height * y)), r, chance.choice(colours), chance)
    return _vignetted(picture)


def _fruit(
    picture: Image.Image, foot: tuple[int, int], radius: int, colour: Colour, chance: random.Random
) -> None:
    """Set one fruit on the table; `foot` is the point it stands on."""
    x, y = foot
    shadow = Image.new("L", (radius * 6, radius * 3), 0)
    ImageDraw.Draw(shadow).ellipse(
        (radius * 1.9, radius * 1.05, radius * 4.7, radius * 1.95), fill=150
    )
    shadow = shadow.filter(ImageFilter.GaussianBlur(radius * 0.22))
    picture.paste((22, 14, 12), (x - radius * 3, y - round(radius * 1.6)), shadow)
    side = radius * 2
    # The gradient is 0 in the middle; a crop off its centre puts the light upper left.
    light = ImageChops.invert(Image.radial_gradient("L")).crop((64, 60, 222, 218))
    light = ImageOps.autocontrast(light.resize((side, side), _SMOOTH))
    body = ImageOps.colorize(
        light, _mix(colour, (12, 6, 8), 0.72), _mix(colour, (255, 244, 226), 0.34), mid=colour
    )
    speckle = _noise((side, side), 34, chance, stretch=0.6)
    body = ImageChops.multiply(body, ImageOps.colorize(speckle, (226, 220, 212), (255, 255, 255)))
    glint = Image.new("L", (side, side), 0)
    ImageDraw.Draw(glint).ellipse((side * 0.27, side * 0.16, side * 0.41, side * 0.27), fill=190)
    body.paste((255, 252, 244), mask=glint.filter(ImageFilter.GaussianBlur(radius * 0.075)))
    ball = Image.new("L", (side * 2, side * 2), 0)
    ImageDraw.Draw(ball).ellipse((2, 6, side * 2 - 3, side * 2 - 3), fill=255)
    picture.paste(body, (x - radius, y - side + round(radius * 0.1)), ball.reduce(2))
    stem = Image.new("L", (side * 2, side * 2), 0)
    lean = chance.uniform(-0.25, 0.25)
    ImageDraw.Draw(stem).line(
        ((side, side * 0.62), (side + side * lean, side * 0.14)), fill=255, width=max(2, side // 14)
    )
    picture.paste(
        (58, 44, 26), (x - radius, y - round(side * 1.22) + round(radius * 0.1)), stem.reduce(2)
    )


# Elements.


def _sky(size: Size, mood: _Mood, chance: random.Random) -> Image.Image:
    side = 224
    small = Image.new("RGB", (1, 3))
    for row, colour in enumerate((mood.top, mood.middle, mood.horizon)):
        small.putpixel((0, row), colour)
    sky = small.resize((side, side), Image.Resampling.BILINEAR, box=(0, 0.3, 1, 3))
    x = chance.uniform(0.18, 0.82)
    y = mood.sun_height + chance.uniform(-0.06, 0.04)
    glow = ImageChops.invert(Image.radial_gradient("L")).resize((side * 2, side * 2), _SMOOTH)
    glow = glow.point([round((value / 255) ** 2.4 * 190) for value in range(256)])
    left, top = round(x * side) - side, round(y * side) - side
    sky.paste(mood.light, (left, top), glow)
    clouds = _noise((side, side), 4, chance, stretch=1.8)
    for cells, part in ((8, 0.4), (17, 0.3), (34, 0.24), (64, 0.16)):
        clouds = Image.blend(clouds, _noise((side, side), cells, chance, stretch=2.0), part)
    clouds = ImageOps.autocontrast(clouds, cutoff=1)
    cover = chance.randint(112, 150)
    clouds = clouds.point([_bounded((value - cover) * 2.6, 215) for value in range(256)])
    # Thinner towards the horizon, where one looks through less of them.
    fade = Image.linear_gradient("L").resize((side, side))
    clouds = ImageChops.multiply(clouds, fade.point([255 - value // 2 for value in range(256)]))
    # Lit from above: where a cloud is thick its lower side is grey.
    white = _mix(mood.horizon, mood.light, 0.55)
    grey = _mix(_mix(mood.middle, mood.haze, 0.5), white, 0.2)
    thick = clouds.copy()
    thick.paste(clouds, (0, side // 32))
    sky.paste(ImageOps.colorize(thick, white, grey), mask=clouds)
    sky = sky.resize(size, _SMOOTH)
    unit = min(size)
    radius = max(2, round(unit * chance.uniform(0.022, 0.034)))
    disc = Image.new("L", (radius * 8, radius * 8), 0)
    ImageDraw.Draw(disc).ellipse((radius * 2, radius * 2, radius * 6, radius * 6), fill=255)
    disc = disc.reduce(2).filter(ImageFilter.GaussianBlur(max(1.0, radius * 0.08)))
    where = (round(x * size[0]) - radius * 2, round(y * size[1]) - radius * 2)
    sky.paste(_mix(mood.light, (255, 255, 255), 0.5), where, disc)
    return sky


def _ridge(chance: random.Random, top: float, rise: float, rough: float) -> list[float]:
    """Heights of a ridge from left to right, by halving: 0 is the picture's top, 1 its foot."""
    points = [chance.uniform(-1, 1), chance.uniform(-1, 1)]
    swing = 1.0
    while len(points) < 257:
        middles = [
            (a + b) / 2 + chance.uniform(-swing, swing) for a, b in itertools.pairwise(points)
        ]
        points = [point for pair in zip(points, middles, strict=False) for point in pair] + points[
            -1:
        ]
        swing *= 0.5 / rough if rough > 0 else 0.5
        if len(points) > 65:
            swing *= rough * 0.85
    low, high = min(points), max(points)
    return [top - rise * (point - low) / (high - low or 1) for point in points]


def _below(
    size: Size, ridge: Sequence[float], trees: random.Random | None, tall: float
) -> Image.Image:
    """Make the mask of all that lies below a ridge, with firs on it where asked for."""
    width, height = size[0] * 2, size[1] * 2
    mask = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(mask)
    step = width / (len(ridge) - 1)
    line = [(index * step, value * height) for index, value in enumerate(ridge)]
    draw.polygon([*line, (width, height), (0, height)], fill=255)
    if trees is not None:
        unit = min(width, height)
        x = 0.0
        while x < width:
            grove = trees.random() < 0.8
            foot = ridge[min(len(ridge) - 1, int(x / step))] * height + unit * 0.006
            high = unit * tall * trees.uniform(0.55, 1.25)
            if grove:
                draw.polygon(_fir(x, foot, high, trees), fill=255)
            x += high * trees.uniform(0.16, 0.4) if grove else high * trees.uniform(0.6, 2.4)
    return mask.reduce(2)


def _fir(x: float, foot: float, high: float, chance: random.Random) -> list[tuple[float, float]]:
    left, right = [], []
    for tier in range(4):
        low = foot - high * tier / 4.6
        half = high * 0.2 * (1 - tier / 4.4) * chance.uniform(0.85, 1.15)
        left += [(x - half, low), (x - half * 0.45, low - high / 5.2)]
        right += [(x + half, low), (x + half * 0.45, low - high / 5.2)]
    return [*left, (x, foot - high), *reversed(right)]


def _noise(size: Size, cells: int, chance: random.Random, *, stretch: float = 1.0) -> Image.Image:
    """Make soft spots of grey: `cells` of them from top to bottom, wider by `stretch`."""
    width, height = size
    across = max(2, round(cells * width / height / stretch))
    grid = Image.frombytes("L", (across, max(2, cells)), chance.randbytes(across * max(2, cells)))
    return grid.resize(size, _SMOOTH)


def _gradient(size: Size, above: Colour, below: Colour, start: float, end: float) -> Image.Image:
    """Make one colour above `start` run into another below `end` (parts of the height)."""
    rows = []
    for row in range(128):
        part = ((row + 0.5) / 128 - start) / max(end - start, 1e-6)
        rows.append(_mix(above, below, min(1.0, max(0.0, part))))
    column = Image.new("RGB", (1, 128))
    column.putdata(rows)
    return column.resize(size, Image.Resampling.BILINEAR)


def _vignetted(picture: Image.Image) -> Image.Image:
    fall = Image.radial_gradient("L").point(
        [round(255 - 70 * (value / 255) ** 2.6) for value in range(256)]
    )
    fall = fall.resize(picture.size, Image.Resampling.BILINEAR)
    return ImageChops.multiply(picture, Image.merge("RGB", (fall, fall, fall)))


def _hang_one(
    result: Image.Image, picture: Image.Image, centre: tuple[int, int], room: tuple[float, float]
) -> None:
    """Lay one picture down as a print: shadow, frame, white mat, picture."""
    unit = min(room)
    mat, frame = max(2, round(unit * 0.05)), max(1, round(unit * 0.016))
    border = 2 * (mat + frame)
    scale = min((room[0] - border) / picture.width, (room[1] - border) / picture.height)
    inner = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    outer = (inner[0] + border, inner[1] + border)
    left, top = centre[0] - outer[0] // 2, centre[1] - outer[1] // 2
    soft = max(2, round(unit * 0.05))
    # The shadow is blurred small: nobody sees the difference, and it is cheap.
    shadow = Image.new("L", ((outer[0] + soft * 6) // 4 + 1, (outer[1] + soft * 6) // 4 + 1), 0)
    shadow.paste(
        150, (soft * 3 // 4, soft * 3 // 4, (outer[0] + soft * 3) // 4, (outer[1] + soft * 3) // 4)
    )
    shadow = shadow.filter(ImageFilter.GaussianBlur(soft / 4))
    shadow = shadow.resize((outer[0] + soft * 6, outer[1] + soft * 6), Image.Resampling.BILINEAR)
    result.paste((8, 8, 12), (left - soft * 3 + soft // 2, top - soft * 3 + soft), shadow)
    result.paste((38, 32, 28), (left, top, left + outer[0], top + outer[1]))
    result.paste(
        (246, 244, 238),
        (left + frame, top + frame, left + outer[0] - frame, top + outer[1] - frame),
    )
    inset = mat + frame
    result.paste(picture.resize(inner, _SMOOTH), (left + inset, top + inset))


def _developed(picture: Image.Image, size: Size, chance: random.Random) -> Image.Image:
    """Enlarge what was composed to its full size, and give it film grain."""
    picture = ImageEnhance.Color(picture).enhance(1.08).point(_LEVELS * 3)
    if picture.size != size:
        # Hamming never overshoots an edge, which would wrap around below.
        picture = picture.resize(size, Image.Resampling.HAMMING)
    tile = _grain()
    grain = Image.new("RGB", size)
    left, top = -chance.randrange(_TILE), -chance.randrange(_TILE)
    for y in range(top, size[1], _TILE):
        for x in range(left, size[0], _TILE):
            grain.paste(tile, (x, y))
    # Bytes wrap around, so 255 is one step darker; _LEVELS keeps all away from both ends.
    return ImageChops.add_modulo(picture, grain)


_LEVELS = [round(6 + value * 243 / 255) for value in range(256)]
"""Room at both ends for the grain, which is 5 steps at most (chosen)."""

_TILE = 512
"""Side of the square of grain that is repeated (chosen): too large to be noticed."""

_ZERO = 8
"""The byte that stands for no grain while it is being mixed."""

# Tuned so that a scene of 1024 by 1024 comes near the documented file sizes:
# coarse grain is what JPEG and WebP keep, fine grain what PNG has to store.
_COARSE = [_ZERO + round((value - 127.5) * 2.2 / 127.5) for value in range(256)]
_FINE = [_ZERO + (-1 if value < 34 else 1 if value >= 222 else 0) for value in range(256)]
_TINT = [_ZERO + (-1 if value < 14 else 1 if value >= 242 else 0) for value in range(256)]


@functools.cache
def _grain() -> Image.Image:
    """Make the square of grain, once: each byte is a step up or, wrapped around, down."""
    chance = random.Random("grain")
    half = _TILE // 2
    coarse = Image.frombytes("L", (half, half), chance.randbytes(half * half))
    coarse = coarse.resize((_TILE, _TILE), _SMOOTH).point(_COARSE)
    fine = Image.frombytes("L", (_TILE, _TILE), chance.randbytes(_TILE * _TILE)).point(_FINE)
    grey = ImageChops.add(coarse, fine, 1, -_ZERO)
    tint = Image.frombytes("RGB", (_TILE, _TILE), chance.randbytes(_TILE * _TILE * 3))
    tile = ImageChops.add(Image.merge("RGB", (grey, grey, grey)), tint.point(_TINT * 3), 1, -_ZERO)
    return tile.point([(value - _ZERO) % 256 for value in range(256)] * 3)


def _chosen_mood(words: str, style: random.Random) -> _Mood:
    for mood in _MOODS:
        if any(word in words for word in mood.words):
            return mood
    return style.choice(_MOODS)


def _bounded(value: float, most: int = 255) -> int:
    return min(most, max(0, round(value)))


def _mix(one: Colour, other: Colour, part: float) -> Colour:
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(one, other, strict=True))
    return (red, green, blue)
