"""Scenes of many bodies: dead leaves, heaps, cables, boards, print, and bodies of all textures on a table."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from kizu.synthetic.procedural.canvas import Canvas
from kizu.synthetic.procedural.ink import Ink, Points
from kizu.synthetic.procedural.noise import Field
from kizu.synthetic.procedural.parameters import Parameters

Outline = list[tuple[float, float]]


def ngon(sides: int, turn: float, *, inner: float = 1.0) -> Outline:
    """The corners of a regular polygon (inner: every second corner at that radius) about 0, radius 1."""
    number = sides if inner == 1.0 else 2 * sides
    step = 2 * math.pi / number
    return [
        (
            (1.0 if n % 2 == 0 else inner) * math.cos(turn + n * step),
            (1.0 if n % 2 == 0 else inner) * math.sin(turn + n * step),
        )
        for n in range(number)
    ]


def slab(ratio: float, turn: float) -> Outline:
    """The corners of a rectangle about 0, half length 1, half width `ratio`."""
    cos, sin = math.cos(turn), math.sin(turn)
    return [
        (x * cos - y * ratio * sin, x * sin + y * ratio * cos)
        for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]


def at(outline: Points, x: float, y: float, scale: float) -> Outline:
    """The outline moved to (x, y) and made `scale` times as large."""
    return [(x + scale * a, y + scale * b) for a, b in outline]


def _maker(c: Canvas, kind: str) -> Callable[[], Outline]:
    """Draws one outline after the other of a kind."""
    if kind == "slabs":
        return lambda: slab(c.u(0.15, 0.6), c.u(0, math.pi))
    if kind == "splinters":
        return lambda: ngon(3, c.u(0, 6.3), inner=c.u(0.25, 0.6))
    if kind == "needles":
        return lambda: slab(0.08, c.u(0, math.pi))
    if kind == "mixed":
        return lambda: ngon(c.pick((3, 4, 5, 16)), c.u(0, 6.3), inner=c.pick((1.0, 1.0, 0.6)))
    sides = {"discs": 18, "triangles": 3, "squares": 4, "hexagons": 6}[kind]
    return lambda: ngon(sides, c.u(0, 6.3))


LEAVES = ("discs", "mixed", "slabs", "triangles", "splinters", "squares", "needles", "hexagons")


def leaves(c: Canvas, k: Parameters) -> Field:
    """Dead leaves: bodies of one kind whose sizes follow a power law cover each other until nothing is bare;
    some carry textures."""
    pen, number = Ink(c.size), k.whole(1, 90, 220)
    make, power = _maker(c, k.pick(0, LEAVES)), k.between(2, 1.0, 2.6)
    low, high = 0.05, k.between(3, 0.5, 0.9)
    places = np.zeros((256, 2), np.float32)
    rim = k.draws[4] > 0.6
    for n in range(number):
        radius = high if n < 12 else (low**-power + c.u() * (high**-power - low**-power)) ** (-1 / power)
        x, y = c.u(-1.1, 1.1), c.u(-1.1, 1.1)
        places[n + 1] = x, y
        outline = make()
        if rim:
            pen.polygon(at(outline, x, y, radius + 0.035), 255)
        pen.polygon(at(outline, x, y, radius), n + 1)
    image = pen.coloured(_many(c, k.whole(5, 4, 9)))
    numbers = pen.numbers()
    slope = 0.5 * c.rng.standard_normal((2, 256), np.float32)
    weights = np.where(c.rng.random((2, 256)) < k.between(6, 0.3, 0.9), 0.15, 0.0)
    own = (
        np.concatenate([slope, weights, 1 - (slope * places.T).sum(0, keepdims=True)])
        .astype(np.float32)
        .take(numbers, axis=1)
    )
    ripples = c.gabor(c.u(8, 18), 2.0, c.u(0, 3))
    return image * (own[4] + own[0] * c.x + own[1] * c.y + own[2] * c.cloud(1.0) + own[3] * ripples)


def _many(c: Canvas, number: int) -> Field:
    """256 colours (256, 3) about a palette of so many; the last one is dark."""
    colours = c.palette(number)[c.rng.integers(0, number, 256)]
    colours = np.clip(colours + 0.06 * c.rng.standard_normal((256, 3), np.float32), 0, 1)
    colours[255] = 0.08
    return colours


HEAP: dict[str, Callable[[], list[tuple[Outline, int]]]] = {
    "nuts": lambda: [
        (ngon(6, 0), 0),
        (ngon(6, 0.05), 1),
        (at(ngon(14, 0), 0, 0, 0.62), 2),
        (at(ngon(14, 0), 0, 0, 0.52), 3),
    ],
    "rings": lambda: [
        (ngon(16, 0), 1),
        (at(ngon(16, 0), -0.06, -0.06, 0.88), 2),
        (at(ngon(16, 0), 0, 0, 0.6), 3),
    ],
    "pins": lambda: [
        (slab(0.16, 0), 0),
        (at(slab(0.08, 0), 0, -0.04, 0.97), 2),
        (at(ngon(10, 0), -0.9, 0, 0.25), 1),
    ],
    "pills": lambda: [
        (ngon(16, 0), 0),
        (at(ngon(16, 0), -0.05, -0.05, 0.92), 1),
        (at(ngon(12, 0), -0.25, -0.25, 0.4), 2),
        (slab(0.06, 0.3), 0),
    ],
    "screws": lambda: [
        (slab(0.13, 0), 1),
        *((at(slab(1.6, 0.2), -0.3 + 0.16 * n, 0, 0.12), n % 2 * 2) for n in range(8)),
        (at(slab(2.6, 0), -0.92, 0, 0.13), 2),
    ],
    "crosses": lambda: [
        (slab(0.28, 0), 0),
        (slab(0.28, math.pi / 2), 0),
        (at(slab(0.2, 0), 0, 0, 0.9), 1),
        (at(slab(0.2, 1.571), 0, 0, 0.9), 2),
    ],
    "stars": lambda: [
        (ngon(5, 0, inner=0.45), 0),
        (at(ngon(5, 0, inner=0.45), 0, 0, 0.85), 1),
        (at(ngon(5, 0, inner=0.45), -0.08, -0.08, 0.45), 2),
    ],
    "grains": lambda: [
        (slab(0.4, 0), 0),
        (at(ngon(12, 0), -0.4, 0, 0.45), 1),
        (at(ngon(12, 0), 0.4, 0, 0.45), 1),
        (at(slab(0.2, 0), 0, -0.1, 0.7), 2),
    ],
}
"""Parts of a small body: outlines, and which of four tones (rim, body, light, depth)."""


def heap(c: Canvas, k: Parameters) -> Field:
    """Many bodies of one kind thrown on each other, or side by side."""
    parts = HEAP[k.pick(0, tuple(HEAP))]()
    radius = k.log(1, 0.16, 0.4) * c.u(0.85, 1.15)
    number = min(int(k.between(2, 1.6, 4.0) / radius**1.7), 60)
    pen = Ink(c.size, 255)
    for n in range(number):
        x, y, turn = c.u(-1.05, 1.05), c.u(-1.05, 1.05), c.u(0, 2 * math.pi)
        cos, sin = math.cos(turn) * radius, math.sin(turn) * radius
        for outline, tone in parts:
            pen.polygon([(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in outline], 4 * n + tone)
    bodies = c.palette(3)[c.rng.integers(0, 3 if k.draws[3] > 0.5 else 1, 64)] * 0.6 + 0.3
    colours = (bodies[:, None] * np.array([[0.45], [0.85], [1.15], [0.2]], np.float32)).reshape(256, 3)
    colours *= 1 + 0.08 * c.rng.standard_normal((256, 1), np.float32)
    colours[255] = c.palette(2)[0] * 0.4
    return pen.coloured(colours) * c.grain(0.03)


def cables(c: Canvas, k: Parameters) -> Field:
    """Bent tubes that cross: each drawn as a dark, a plain and a bright line."""
    pen, number, width = Ink(c.size), k.whole(0, 6, 22), k.log(1, 0.07, 0.26)
    main, spread = c.u(0, math.pi), k.pick(2, (0.15, 0.6, 3.14))
    curl = k.between(3, 0.0, 0.45)
    for n in range(number):
        way = main + c.u(-spread, spread)
        x, y = c.u(-1, 1) - 1.6 * math.cos(way), c.u(-1, 1) - 1.6 * math.sin(way)
        spots = []
        for _ in range(10):
            spots.append((x, y))
            way += c.u(-curl, curl)
            x, y = x + 0.36 * math.cos(way), y + 0.36 * math.sin(way)
        pen.line(spots, width * 1.2, 255, ends=True)
        for share, tone in ((1.0, 1), (0.6, 2), (0.2, 3)):
            pen.line(
                [(a - (1 - share) * 0.2 * width, b - (1 - share) * 0.2 * width) for a, b in spots],
                width * share,
                4 * n + tone,
                ends=True,
            )
    bodies = c.palette(4)[c.rng.integers(0, 4, 64)] * 0.8 + 0.1
    colours = (bodies[:, None] * np.array([[1.0], [0.6], [0.95], [1.3]], np.float32)).reshape(256, 3)
    colours[0], colours[255] = c.palette(1)[0] * 0.7, 0.04
    return pen.coloured(colours) * c.grain(0.03)


def fibres(c: Canvas, k: Parameters) -> Field:
    """Felt, wool, straw: many thin lines of one curl, length and order."""
    pen, number = Ink(c.size, 0), k.whole(0, 60, 150)
    width, length, spread, curl = (
        k.log(1, 0.03, 0.09),
        k.between(2, 0.5, 1.6),
        k.pick(3, (0.2, 0.7, 3.14)),
        k.between(4, 0, 0.5),
    )
    main = c.u(0, math.pi)
    for _ in range(number):
        way, x, y = main + c.u(-spread, spread), c.u(-1.3, 1.3), c.u(-1.3, 1.3)
        turn = c.u(-curl, curl)
        spots = []
        for _ in range(6):
            spots.append((x, y))
            way += turn
            x, y = x + 0.2 * length * math.cos(way), y + 0.2 * length * math.sin(way)
        pen.line(spots, width, c.whole(40, 255))
    return c.ramp(pen.cover(), 3)


def board(c: Canvas, k: Parameters) -> Field:
    """A circuit board: traces in steps of 45 degrees, vias, pads in rows, dark and light parts."""
    pen = Ink(c.size, 0)
    pitch, width = k.log(0, 0.14, 0.3), k.log(1, 0.03, 0.07)
    ways = [(math.cos(n * math.pi / 4), math.sin(n * math.pi / 4)) for n in range(8)]
    for _ in range(k.whole(2, 10, 26)):
        x, y, way = round(c.u(-1, 1) / pitch) * pitch, round(c.u(-1, 1) / pitch) * pitch, 2 * c.whole(0, 3)
        spots = [(x, y)]
        for _ in range(c.whole(2, 5)):
            far = pitch * c.whole(1, 4)
            x, y = x + far * ways[way % 8][0], y + far * ways[way % 8][1]
            spots.append((x, y))
            way += c.pick((-1, 1))
        pen.line(spots, width, 1)
        for x, y in (spots[0], spots[-1]):
            pen.disc(x, y, width * 1.3, 2)
            pen.disc(x, y, width * 0.6, 0)
    for _ in range(k.whole(3, 2, 9)):
        x, y, long, wide = c.u(-1, 1), c.u(-1, 1), pitch * c.pick((0.8, 1.2, 2.0)), pitch * c.pick((0.5, 0.8))
        turn = c.pick((0.0, math.pi / 2))
        for side in (-1, 1):
            dx, dy = long * side * math.cos(turn), long * side * math.sin(turn)
            pen.polygon(at(slab(0.6, turn + math.pi / 2), x + dx, y + dy, wide), 2)
        pen.polygon(at(slab(wide / long, turn), x, y, long), c.pick((3, 3, 4)))
    colours = np.zeros((256, 3), np.float32)
    colours[0] = c.palette(1)[0] * 0.45
    colours[1], colours[2] = colours[0] * 1.5 + c.u(0.04, 0.2), (0.85, 0.8, c.u(0.5, 0.85))
    colours[3], colours[4] = 0.12, c.palette(1)[0]
    return np.clip(pen.coloured(colours), 0, 1) * c.grain(0.03)


def text(c: Canvas, k: Parameters) -> Field:
    """Rows of marks: print, codes, labels; one height, boldness and spacing."""
    pen = Ink(c.size)
    rows, bold = k.whole(0, 3, 7), k.between(1, 0.12, 0.26)
    turn = c.u(-0.5, 0.5) + c.whole(0, 3) * math.pi / 2
    tall = 1.4 / rows * k.between(2, 0.6, 0.9)
    wide, marks = tall * k.between(3, 0.5, 0.9), (k.table * 2.99).astype(int).tolist()
    cos, sin = math.cos(turn), math.sin(turn)
    for row in range(-1, rows + 1):
        y0, x = (row + 0.5) * 2.4 / rows - 1.2, -1.4 + c.u(0, 0.3)
        while x < 1.4:
            mark = c.whole(0, 6) * 8
            spots = [
                (x + 0.5 * marks[mark + 2 * n] * wide, y0 + 0.5 * marks[mark + 2 * n + 1] * tall - 0.5 * tall)
                for n in range(4)
            ]
            pen.line([(a * cos - b * sin, a * sin + b * cos) for a, b in spots], bold * tall, 255)
            x += wide * (1.45 if c.chance(0.85) else 2.6)
    return c.mix(pen.cover()) * (1 + 0.06 * c.cloud(1.4))
