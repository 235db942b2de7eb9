"""Shapes: signed distances and their coverage, profiles across a line, polylines and outlines.

A signed distance is negative inside a shape, 0 on its outline and grows outwards, in image units (half an
image is 1) or in those of the coordinates passed in. Shapes are joined by the minimum and intersected by the
maximum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.random import Generator

from kizu.synthetic.noise import Field, grid

Point: TypeAlias = tuple[float, float]
"""x and y."""
Points: TypeAlias = list[Point]
"""The corners of a polyline or an outline."""


def coverage(distance: Field, width: float) -> Field:
    """How much of each pixel a shape covers: 1 inside, 0 outside, linear over `width` about its outline.

    >>> coverage(np.array([-1.0, 0.0, 0.25, 1.0]), 1.0).tolist()
    [1.0, 0.5, 0.25, 0.0]
    """
    return np.clip(0.5 - distance * (1 / width), 0, 1)


def smoothstep(values: Field, low: float, high: float) -> Field:
    """0 below `low`, 1 above `high` (the reverse when low > high), and a cubic between.

    >>> smoothstep(np.array([0.0, 1.0, 2.0, 3.0]), 1.0, 3.0).tolist()
    [0.0, 0.0, 0.5, 1.0]
    """
    t = np.clip((values - np.float32(low)) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def to_unit(field: Field, spread: float = 0.22) -> Field:
    """Noise of standard deviation 1, brought to mean 0.5 and deviation `spread` and clipped to [0, 1]."""
    return np.clip(0.5 + spread * field, 0, 1)


def sine_wave(t: Field) -> Field:
    """A sine between 0 and 1 with period 1; 0.5 at t = 0."""
    return 0.5 + 0.5 * np.sin(t * (2 * math.pi))


def triangle_wave(t: Field) -> Field:
    """A triangle wave with period 1: 0 at whole numbers, 1 halfway between them.

    >>> triangle_wave(np.array([0.0, 0.25, 0.5, 1.0])).tolist()
    [0.0, 0.5, 1.0, 0.0]
    """
    return 1 - np.abs((t - np.floor(t)) * 2 - 1)


def polar(u: Field, v: Field) -> tuple[Field, Field]:
    """Radius, and angle in turns, 0 to 1."""
    return np.hypot(u, v), np.arctan2(v, u) * (1 / (2 * math.pi)) + 0.5


def box(u: Field, v: Field, half_u: float, half_v: float, radius: float = 0.0) -> Field:
    """Signed distance to a rectangle about 0 with rounded corners.

    >>> box(np.array([0.0, 2.0]), np.array([0.0, 0.0]), 1.0, 0.5).tolist()
    [-0.5, 1.0]
    """
    qu, qv = np.abs(u) - np.float32(half_u - radius), np.abs(v) - np.float32(half_v - radius)
    outer = np.sqrt(np.maximum(qu, 0) ** 2 + np.maximum(qv, 0) ** 2)
    return outer + np.minimum(np.maximum(qu, qv), 0) - np.float32(radius)


def regular_polygon(radius: Field, turn: Field, sides: int) -> Field:
    """Signed distance to a regular polygon about 0 with its corners at radius 1, in `polar` coordinates."""
    sector = (turn * sides - np.floor(turn * sides) - 0.5) * (2 * math.pi / sides)
    return radius * np.cos(sector) - math.cos(math.pi / sides)


def bevel(distance: Field, width: float, height: float) -> Field:
    """Height of a body with edges rounded over `width`: 0 outside, `height` deeper inside than `width`."""
    t = 1.0 - np.clip(-distance * np.float32(1.0 / width), 0.0, 1.0)
    return np.float32(height) * np.sqrt(np.maximum(1.0 - t * t, 0.0))


def polyline_distance(points: Points, size: int, reach: float) -> tuple[Field, Field]:
    """Distance (size, size) to a polyline (`reach` where it is farther), and how far along the polyline, 0 to
    1, its nearest place lies."""
    x, y = grid(size)
    nearest, along = np.full((size, size), reach, np.float32), np.zeros((size, size), np.float32)
    lengths = [math.dist(a, b) for a, b in itertools.pairwise(points)]
    total, passed = max(sum(lengths), 1e-9), 0.0
    for (ax, ay), (bx, by), length in zip(points, points[1:], lengths, strict=False):
        at = window(size, (ax + bx) / 2, (ay + by) / 2, length / 2 + reach)
        px, py = x[at] - np.float32(ax), y[at] - np.float32(ay)
        t = np.clip((px * (bx - ax) + py * (by - ay)) / max(length * length, 1e-12), 0.0, 1.0)
        distance = np.hypot(px - t * (bx - ax), py - t * (by - ay)).astype(np.float32)
        nearer = distance < nearest[at]
        nearest[at] = np.where(nearer, distance, nearest[at])
        along[at] = np.where(nearer, (passed + t * length) / total, along[at])
        passed += length
    return nearest, along


def window(size: int, x: float, y: float, reach: float) -> tuple[slice, slice]:
    """Rows and columns of the square of half side `reach` about (x, y), cut off at the image's edge; may be
    empty.

    >>> window(100, 0.0, 1.0, 0.5)
    (slice(75, 100, None), slice(25, 75, None))
    """

    def span(centre: float) -> slice:
        low, high = (centre - reach + 1) / 2 * size, (centre + reach + 1) / 2 * size
        return slice(min(max(math.floor(low), 0), size), min(max(math.ceil(high), 0), size))

    return span(y), span(x)


def random_walk(
    rng: Generator,
    start: Point,
    heading: float,
    length: float,
    *,
    steps: int,
    wander: float,
    pull: float = 0.0,
) -> Points:
    """A random walk with momentum: `steps` equal steps, `length` in all, each turned by about `wander`
    radians.

    pull: how strongly, 0 to 1 a step, the direction is drawn back to `heading` (radians)."""
    points, turn, deviation = [start], 0.0, 0.0
    for _ in range(steps):
        turn = 0.6 * (1 - pull) * turn + float(rng.normal(0.0, wander))
        deviation = (1 - pull) * deviation + turn
        x, y = points[-1]
        direction = heading + deviation
        points.append((x + length / steps * math.cos(direction), y + length / steps * math.sin(direction)))
    return points


def polygon_outline(sides: int, turn: float = 0.0, *, inner: float = 1.0) -> Points:
    """Corners of a regular polygon about 0 with radius 1; with `inner` below 1, of a star whose inner corners
    lie at that radius."""
    number = sides if inner == 1.0 else 2 * sides
    radii = [1.0 if n % 2 == 0 else inner for n in range(number)]
    angles = [turn + n * (2 * math.pi / number) for n in range(number)]
    return [(radius * math.cos(a), radius * math.sin(a)) for radius, a in zip(radii, angles, strict=True)]


def bar_outline(ratio: float, turn: float = 0.0) -> Points:
    """Corners of a rectangle about 0: half length 1, half width `ratio`."""
    return moved([(-1, -ratio), (1, -ratio), (1, ratio), (-1, ratio)], turn=turn)


def bezier(start: Point, pull: Point, end: Point) -> Points:
    """Six points of the quadratic Bezier curve from `start` to `end`, drawn towards `pull`.

    >>> bezier((0, 0), (1, 0), (1, 1))[-1]
    (1.0, 1.0)
    """
    weights = [((1 - t) ** 2, 2 * (1 - t) * t, t * t) for t in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    (ax, ay), (bx, by), (cx, cy) = start, pull, end
    return [(p * ax + q * bx + r * cx, p * ay + q * by + r * cy) for p, q, r in weights]


def moved(
    points: Sequence[Point], x: float = 0.0, y: float = 0.0, scale: float = 1.0, turn: float = 0.0
) -> Points:
    """The points enlarged `scale` times, turned clockwise by `turn` radians about 0, then moved by (x, y).

    >>> moved([(1, 0), (0, 1)], 5, 5, scale=2)
    [(7.0, 5.0), (5.0, 7.0)]
    """
    cos, sin = math.cos(turn) * scale, math.sin(turn) * scale
    return [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in points]
