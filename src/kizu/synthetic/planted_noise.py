"""Noise fields, signed distances, strokes and decals: the brushes of the planted products (numpy + Pillow).

Coordinates run over [-1, 1] in both directions, x to the right and y down; distances are in the same unit.
`side` is the working side in pixels. Every field is float32 (side, side)."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Field: TypeAlias = NDArray[np.floating]
Points: TypeAlias = "list[tuple[float, float]]"

STROKES: dict[str, list[Points]] = {
    "K": [[(0, 0), (0, 1)], [(0.6, 0), (0, 0.55), (0.6, 1)]],
    "I": [[(0.3, 0), (0.3, 1)]],
    "Z": [[(0, 0), (0.6, 0), (0, 1), (0.6, 1)]],
    "U": [[(0, 0), (0, 0.75), (0.15, 1), (0.45, 1), (0.6, 0.75), (0.6, 0)]],
    "R": [[(0, 1), (0, 0), (0.45, 0), (0.6, 0.25), (0.45, 0.5), (0, 0.5), (0.6, 1)]],
    "C": [[(0.6, 0.1), (0.4, 0), (0.15, 0), (0, 0.2), (0, 0.8), (0.15, 1), (0.4, 1), (0.6, 0.9)]],
    "1": [[(0.1, 0.2), (0.3, 0), (0.3, 1)]],
    "2": [[(0, 0.2), (0.15, 0), (0.45, 0), (0.6, 0.25), (0, 1), (0.6, 1)]],
    "5": [[(0.6, 0), (0.05, 0), (0, 0.45), (0.4, 0.4), (0.6, 0.65), (0.45, 1), (0, 0.95)]],
}
"""The stroke font of prints: polylines in a box 0.6 wide and 1 high."""


@functools.lru_cache(maxsize=8)
def grid(side: int) -> tuple[Field, Field]:
    """x and y of every pixel centre; read-only."""
    line = ((np.arange(side, dtype=np.float32) + 0.5) * (2.0 / side) - 1.0).astype(np.float32)
    x, y = np.meshgrid(line, line)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def resized(values: Field, side: int, box: tuple[float, float, float, float] | None = None) -> Field:
    """Bicubic resampling of a float field to (side, side); `box` (left, top, right, bottom) is the part to
    take."""
    return np.array(
        Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC, box=box), dtype=np.float32
    )


def noise(
    rng: np.random.Generator, side: int, rows: float, columns: float | None = None, *, turn: float = 0.0
) -> Field:
    """Smooth noise of about unit spread with `rows` x `columns` bumps across the image, turned clockwise by
    `turn` radians."""
    columns = rows if columns is None else columns
    rows, columns = min(rows, side / 2), min(columns, side / 2)
    wide = side if turn == 0.0 else 2 * math.ceil(side * (abs(math.sin(turn)) + 1.0) / 2)
    values = rng.standard_normal((math.ceil(rows) + 3, math.ceil(columns) + 3), dtype=np.float32)
    top, left = 1 + rng.random(2)
    found = resized(values, wide, (left, top, left + columns, top + rows))
    if turn:
        found = np.array(
            Image.fromarray(found).rotate(-math.degrees(turn), Image.Resampling.BILINEAR), dtype=np.float32
        )
        cut = (wide - side) // 2
        found = found[cut : cut + side, cut : cut + side]
    return found * np.float32(1.45)


def fractal(rng: np.random.Generator, side: int, bumps: float, octaves: int, *, gain: float = 0.55) -> Field:
    """`octaves` noises, from `bumps` across the image, each twice as fine and `gain` times as strong as the
    one before; unit spread.

    Summed as a pyramid: each level is the one before at twice the size plus new random numbers, so only the
    last is full size."""
    bumps = min(bumps, side / 2**octaves)
    count = math.ceil(bumps) + 3
    total = rng.standard_normal((count, count), dtype=np.float32)
    power = 1.0
    for octave in range(1, octaves):
        count *= 2
        total = resized(total, count) + np.float32(gain**octave) * rng.standard_normal(
            (count, count), dtype=np.float32
        )
        power += gain ** (2 * octave)
    unit = 2 ** (octaves - 1)
    top, left = unit * (1 + rng.random(2))
    return resized(total, side, (left, top, left + bumps * unit, top + bumps * unit)) * np.float32(
        1.3 / math.sqrt(power)
    )


def cells(rng: np.random.Generator, side: int, count: float) -> tuple[Field, Field]:
    """Worley noise: distances, in cells, to the nearest and the second nearest of jittered points, `count`
    across the image."""
    half = max(side // 2, 8)
    number = math.ceil(count) + 4
    jitter = rng.random((2, number, number), dtype=np.float32) * np.float32(0.9)
    start = 1.5 + rng.random(2)
    line = (np.arange(half, dtype=np.float32) + 0.5) * np.float32(count / half)
    py, px = (line + np.float32(start[0]))[:, None], (line + np.float32(start[1]))[None, :]
    iy, ix = np.floor(py).astype(np.intp), np.floor(px).astype(np.intp)
    first = np.full((half, half), 9.0, np.float32)
    second = first.copy()
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            jy, jx = iy + down, ix + right
            away = (jitter[0][jy, jx] + jy - py) ** 2 + (jitter[1][jy, jx] + jx - px) ** 2
            away = away.astype(np.float32)
            second = np.minimum(second, np.maximum(first, away))
            first = np.minimum(first, away)
    return resized(np.sqrt(first), side), resized(np.sqrt(second), side)


def smooth(values: Field, low: float, high: float) -> Field:
    """0 below `low`, 1 above `high` (or the reverse when low > high), a cubic between."""
    t = np.clip((values - np.float32(low)) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def inside(distance: Field, pixel: float) -> Field:
    """Coverage in [0, 1] of the inside (negative side) of a signed distance, one and a half working pixels
    soft."""
    return np.clip(0.5 - distance * np.float32(1.0 / (1.5 * pixel)), 0.0, 1.0)


def box(u: Field, v: Field, half_u: float, half_v: float, radius: float = 0.0) -> Field:
    """Signed distance to a rectangle with rounded corners."""
    qu, qv = np.abs(u) - np.float32(half_u - radius), np.abs(v) - np.float32(half_v - radius)
    outer = np.sqrt(np.maximum(qu, 0) ** 2 + np.maximum(qv, 0) ** 2)
    return outer + np.minimum(np.maximum(qu, qv), 0) - np.float32(radius)


def bevel(distance: Field, width: float, height: float) -> Field:
    """Height of a body with edges rounded over `width`: 0 outside, `height` deeper inside than `width`."""
    t = 1.0 - np.clip(-distance * np.float32(1.0 / width), 0.0, 1.0)
    return np.float32(height) * np.sqrt(np.maximum(1.0 - t * t, 0.0))


def path_distance(points: Points, side: int, reach: float) -> tuple[Field, Field]:
    """Distance to a polyline (`reach` where farther), and how far along it, 0 to 1, the nearest place lies."""
    x, y = grid(side)
    away, along = np.full((side, side), reach, np.float32), np.zeros((side, side), np.float32)
    lengths = [math.dist(a, b) for a, b in itertools.pairwise(points)]
    total, gone = max(sum(lengths), 1e-9), 0.0
    for (ax, ay), (bx, by), length in zip(points, points[1:], lengths, strict=False):
        rows, columns = window(side, (ax + bx) / 2, (ay + by) / 2, length / 2 + reach)
        px, py = x[rows, columns] - np.float32(ax), y[rows, columns] - np.float32(ay)
        t = np.clip((px * (bx - ax) + py * (by - ay)) / max(length * length, 1e-12), 0.0, 1.0)
        distance = np.hypot(px - t * (bx - ax), py - t * (by - ay)).astype(np.float32)
        nearer = distance < away[rows, columns]
        away[rows, columns] = np.where(nearer, distance, away[rows, columns])
        along[rows, columns] = np.where(nearer, (gone + t * length) / total, along[rows, columns])
        gone += length
    return away, along


def window(side: int, x: float, y: float, reach: float) -> tuple[slice, slice]:
    """Rows and columns of the square of half side `reach` around (x, y), cut at the image's edge; may be
    empty."""

    def span(centre: float) -> slice:
        low, high = ((centre - reach + 1) / 2 * side, (centre + reach + 1) / 2 * side)
        return slice(min(max(math.floor(low), 0), side), min(max(math.ceil(high), 0), side))

    return span(y), span(x)


def walk(
    rng: np.random.Generator,
    start: tuple[float, float],
    heading: float,
    length: float,
    *,
    steps: int,
    wander: float,
    pull: float = 0.0,
) -> Points:
    """A random walk with momentum: `steps` equal steps, turning by about `wander` radians a step.

    pull: how strongly, 0 to 1 a step, the heading is drawn back to where it set out for.
    """
    points, turn, aside = [start], 0.0, 0.0
    for _ in range(steps):
        turn = 0.6 * (1 - pull) * turn + float(rng.normal(0.0, wander))
        aside = (1 - pull) * aside + turn
        x, y = points[-1]
        points.append(
            (x + length / steps * math.cos(heading + aside), y + length / steps * math.sin(heading + aside))
        )
    return points


def write(
    draw: ImageDraw.ImageDraw, text: str, centre: tuple[float, float], height: float, width: float
) -> None:
    """Write `text` on a decal in the stroke font; `height` and stroke `width` in image units."""
    left = centre[0] - height * (0.9 * len(text) - 0.3) / 2
    for glyph in text:
        for stroke in STROKES.get(glyph, []):
            dots = [(left + x * height, centre[1] + (y - 0.5) * height) for x, y in stroke]
            line(draw, dots, width)
        left += 0.9 * height


def line(draw: ImageDraw.ImageDraw, points: Points, width: float) -> None:
    """A polyline with round ends on a decal; coordinates and `width` in image units."""
    side = draw.im.size[0]
    dots = [((x + 1) / 2 * side, (y + 1) / 2 * side) for x, y in points]
    thick = max(width / 2 * side, 1.0)
    draw.line(dots, fill=255, width=max(round(thick), 1), joint="curve")
    for x, y in (dots[0], dots[-1]):
        draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=255)


def decal(side: int, draw: Callable[[ImageDraw.ImageDraw], None]) -> Image.Image:
    """A grey canvas (side, side), white where `draw` drew, anti-aliased by drawing it at twice the size."""
    canvas = Image.new("L", (2 * side, 2 * side), 0)
    draw(ImageDraw.Draw(canvas))
    return canvas.reduce(2)
