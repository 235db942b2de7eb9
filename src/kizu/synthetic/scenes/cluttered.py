"""Scenes of many bodies: dead leaves, heaps, cables, felt, boards and print. See `textures` for c and k."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from kizu.synthetic.noise import Field
from kizu.synthetic.pen import Pen
from kizu.synthetic.scenes.canvas import SceneCanvas
from kizu.synthetic.scenes.parameters import ClassParameters
from kizu.synthetic.shapes import Points, bar_outline, moved, polygon_outline

LEAVES = ("discs", "mixed", "bars", "triangles", "splinters", "squares", "needles", "hexagons")
"""What dead leaves may be shaped like."""


def _outlines(c: SceneCanvas, kind: str) -> Callable[[], Points]:
    """A function that draws one outline of that kind at each call."""
    if kind == "bars":
        return lambda: bar_outline(c.uniform(0.15, 0.6), c.uniform(0, math.pi))
    if kind == "splinters":
        return lambda: polygon_outline(3, c.uniform(0, 6.3), inner=c.uniform(0.25, 0.6))
    if kind == "needles":
        return lambda: bar_outline(0.08, c.uniform(0, math.pi))
    if kind == "mixed":
        corners, inner = (3, 4, 5, 16), (1.0, 1.0, 0.6)
        return lambda: polygon_outline(c.choice(corners), c.uniform(0, 6.3), inner=c.choice(inner))
    sides = {"discs": 18, "triangles": 3, "squares": 4, "hexagons": 6}[kind]
    return lambda: polygon_outline(sides, c.uniform(0, 6.3))


def leaves(c: SceneCanvas, k: ClassParameters) -> Field:
    """Dead leaves: bodies of one kind whose sizes follow a power law cover each other until nothing is bare;
    some carry textures."""
    pen, number = Pen(c.size), k.integer(1, 90, 220)
    draw_outline, power = _outlines(c, k.choice(0, LEAVES)), k.between(2, 1.0, 2.6)
    least, most = 0.05, k.between(3, 0.5, 0.9)
    centres = np.zeros((256, 2), np.float32)
    rim = k.draws[4] > 0.6
    for n in range(number):
        radius = most
        if n >= 12:
            radius = (least**-power + c.uniform() * (most**-power - least**-power)) ** (-1 / power)
        x, y = c.uniform(-1.1, 1.1), c.uniform(-1.1, 1.1)
        centres[n + 1] = x, y
        outline = draw_outline()
        if rim:
            pen.polygon(moved(outline, x, y, radius + 0.035), 255)
        pen.polygon(moved(outline, x, y, radius), n + 1)
    image = pen.coloured(_varied_colours(c, k.integer(5, 4, 9)))
    slope = 0.5 * c.rng.standard_normal((2, 256), np.float32)
    texture = np.where(c.rng.random((2, 256)) < k.between(6, 0.3, 0.9), 0.15, 0.0)
    level = 1 - (slope * centres.T).sum(0, keepdims=True)
    # Per leaf: slope of its shade along x and y, weights of two textures, shade at the image's middle.
    leaf = np.concatenate([slope, texture, level]).astype(np.float32).take(pen.numbers(), axis=1)
    ripples = c.gabor(c.uniform(8, 18), 2.0, c.uniform(0, 3))
    return image * (leaf[4] + leaf[0] * c.x + leaf[1] * c.y + leaf[2] * c.cloud(1.0) + leaf[3] * ripples)


def _varied_colours(c: SceneCanvas, number: int) -> Field:
    """256 colours (256, 3) about a palette of so many; the last one is dark."""
    colours = c.palette(number)[c.rng.integers(0, number, 256)]
    colours = np.clip(colours + 0.06 * c.rng.standard_normal((256, 3), np.float32), 0, 1)
    colours[255] = 0.08
    return colours


def _heap_parts(kind: str) -> list[tuple[Points, int]]:
    """The parts of a small body of radius 1: outlines, and which of four tones (rim, body, light, depth)."""
    polygon, bar = polygon_outline, bar_outline
    if kind == "nuts":
        bore = (_disc(14, 0, 0, 0.62), 2), (_disc(14, 0, 0, 0.52), 3)
        return [(polygon(6), 0), (polygon(6, 0.05), 1), *bore]
    if kind == "rings":
        return [(polygon(16), 1), (_disc(16, -0.06, -0.06, 0.88), 2), (_disc(16, 0, 0, 0.6), 3)]
    if kind == "pins":
        return [(bar(0.16), 0), (moved(bar(0.08), 0, -0.04, 0.97), 2), (_disc(10, -0.9, 0, 0.25), 1)]
    if kind == "pills":
        light = (_disc(16, -0.05, -0.05, 0.92), 1), (_disc(12, -0.25, -0.25, 0.4), 2)
        return [(polygon(16), 0), *light, (bar(0.06, 0.3), 0)]
    if kind == "screws":
        thread = [(moved(bar(1.6, 0.2), -0.3 + 0.16 * n, 0, 0.12), n % 2 * 2) for n in range(8)]
        return [(bar(0.13), 1), *thread, (moved(bar(2.6), -0.92, 0, 0.13), 2)]
    if kind == "crosses":
        light = (moved(bar(0.2), scale=0.9), 1), (moved(bar(0.2, 1.571), scale=0.9), 2)
        return [(bar(0.28), 0), (bar(0.28, math.pi / 2), 0), *light]
    if kind == "stars":
        star = polygon(5, inner=0.45)
        return [(star, 0), (moved(star, scale=0.85), 1), (moved(star, -0.08, -0.08, 0.45), 2)]
    ends = (_disc(12, -0.4, 0, 0.45), 1), (_disc(12, 0.4, 0, 0.45), 1)
    return [(bar(0.4), 0), *ends, (moved(bar(0.2), 0, -0.1, 0.7), 2)]


def _disc(sides: int, x: float, y: float, radius: float) -> Points:
    return moved(polygon_outline(sides), x, y, radius)


HEAPS = ("nuts", "rings", "pins", "pills", "screws", "crosses", "stars", "grains")
"""What a heap may be of."""


def heap(c: SceneCanvas, k: ClassParameters) -> Field:
    """Many bodies of one kind thrown on each other, or side by side."""
    parts = _heap_parts(k.choice(0, HEAPS))
    radius = k.log(1, 0.16, 0.4) * c.uniform(0.85, 1.15)
    pen = Pen(c.size, 255)
    for n in range(min(int(k.between(2, 1.6, 4.0) / radius**1.7), 60)):
        x, y, turn = c.uniform(-1.05, 1.05), c.uniform(-1.05, 1.05), c.uniform(0, 2 * math.pi)
        for outline, tone in parts:
            pen.polygon(moved(outline, x, y, radius, turn), 4 * n + tone)
    bodies = c.palette(3)[c.rng.integers(0, 3 if k.draws[3] > 0.5 else 1, 64)] * 0.6 + 0.3
    colours = (bodies[:, None] * np.array([[0.45], [0.85], [1.15], [0.2]], np.float32)).reshape(256, 3)
    colours *= 1 + 0.08 * c.rng.standard_normal((256, 1), np.float32)
    colours[255] = c.palette(2)[0] * 0.4
    return pen.coloured(colours) * c.grain(0.03)


def _curve(x: float, y: float, heading: float, step: float, turns: Sequence[float]) -> Points:
    """The points of a path from (x, y): before every next step of that length, it turns by one of `turns`."""
    points = [(x, y)]
    for turn in turns:
        heading += turn
        x, y = x + step * math.cos(heading), y + step * math.sin(heading)
        points.append((x, y))
    return points


def cables(c: SceneCanvas, k: ClassParameters) -> Field:
    """Bent tubes that cross: each drawn as a dark, a plain and a bright line."""
    pen, number, width = Pen(c.size), k.integer(0, 6, 22), k.log(1, 0.07, 0.26)
    main, spread = c.uniform(0, math.pi), k.choice(2, (0.15, 0.6, 3.14))
    curl = k.between(3, 0.0, 0.45)
    for n in range(number):
        heading = main + c.uniform(-spread, spread)
        x, y = c.uniform(-1, 1) - 1.6 * math.cos(heading), c.uniform(-1, 1) - 1.6 * math.sin(heading)
        points = _curve(x, y, heading, 0.36, [c.uniform(-curl, curl) for _ in range(10)])[:10]
        pen.tube(points, width * 1.2, 255)
        for share, tone in ((1.0, 1), (0.6, 2), (0.2, 3)):
            offset = -(1 - share) * 0.2 * width
            pen.tube(moved(points, offset, offset), width * share, 4 * n + tone)
    bodies = c.palette(4)[c.rng.integers(0, 4, 64)] * 0.8 + 0.1
    colours = (bodies[:, None] * np.array([[1.0], [0.6], [0.95], [1.3]], np.float32)).reshape(256, 3)
    colours[0], colours[255] = c.palette(1)[0] * 0.7, 0.04
    return pen.coloured(colours) * c.grain(0.03)


def fibres(c: SceneCanvas, k: ClassParameters) -> Field:
    """Felt, wool, straw: many thin lines of one curl, length and order."""
    pen, number = Pen(c.size), k.integer(0, 60, 150)
    width, length = k.log(1, 0.03, 0.09), k.between(2, 0.5, 1.6)
    spread, curl = k.choice(3, (0.2, 0.7, 3.14)), k.between(4, 0, 0.5)
    main = c.uniform(0, math.pi)
    for _ in range(number):
        heading, x, y = main + c.uniform(-spread, spread), c.uniform(-1.3, 1.3), c.uniform(-1.3, 1.3)
        points = _curve(x, y, heading, 0.2 * length, [c.uniform(-curl, curl)] * 5)
        pen.line(points, width, c.integer(40, 255))
    return c.ramp(pen.coverage(), 3)


def board(c: SceneCanvas, k: ClassParameters) -> Field:
    """A circuit board: traces in steps of 45 degrees, vias, pads in rows, dark and light parts."""
    pen = Pen(c.size)
    pitch, width = k.log(0, 0.14, 0.3), k.log(1, 0.03, 0.07)
    for _ in range(k.integer(2, 10, 26)):
        points = _trace(c, pitch)
        pen.line(points, width, 1)
        for x, y in (points[0], points[-1]):
            pen.disc(x, y, width * 1.3, 2)
            pen.disc(x, y, width * 0.6, 0)
    for _ in range(k.integer(3, 2, 9)):
        x, y = c.uniform(-1, 1), c.uniform(-1, 1)
        length, pad = pitch * c.choice((0.8, 1.2, 2.0)), pitch * c.choice((0.5, 0.8))
        turn = c.choice((0.0, math.pi / 2))
        for side in (-1, 1):
            dx, dy = length * side * math.cos(turn), length * side * math.sin(turn)
            pen.polygon(moved(bar_outline(0.6, turn + math.pi / 2), x + dx, y + dy, pad), 2)
        pen.polygon(moved(bar_outline(pad / length, turn), x, y, length), c.choice((3, 3, 4)))
    colours = np.zeros((256, 3), np.float32)
    colours[0] = c.palette(1)[0] * 0.45
    colours[1], colours[2] = colours[0] * 1.5 + c.uniform(0.04, 0.2), (0.85, 0.8, c.uniform(0.5, 0.85))
    colours[3], colours[4] = 0.12, c.palette(1)[0]
    return np.clip(pen.coloured(colours), 0, 1) * c.grain(0.03)


def _trace(c: SceneCanvas, pitch: float) -> Points:
    """A path on a lattice: straight pieces, each turned by 45 degrees against the one before."""
    x, y = round(c.uniform(-1, 1) / pitch) * pitch, round(c.uniform(-1, 1) / pitch) * pitch
    eighth, points = 2 * c.integer(0, 3), [(x, y)]
    for _ in range(c.integer(2, 5)):
        length, angle = pitch * c.integer(1, 4), eighth % 8 * math.pi / 4
        x, y = x + length * math.cos(angle), y + length * math.sin(angle)
        points.append((x, y))
        eighth += c.choice((-1, 1))
    return points


def text(c: SceneCanvas, k: ClassParameters) -> Field:
    """Rows of marks: print, codes, labels; one height, boldness and spacing."""
    pen = Pen(c.size)
    rows, bold = k.integer(0, 3, 7), k.between(1, 0.12, 0.26)
    turn = c.uniform(-0.5, 0.5) + c.integer(0, 3) * math.pi / 2
    height = 1.4 / rows * k.between(2, 0.6, 0.9)
    width, corners = height * k.between(3, 0.5, 0.9), (k.table * 2.99).astype(int).reshape(8, 4, 2).tolist()
    for row in range(-1, rows + 1):
        y, x = (row + 0.5) * 2.4 / rows - 1.2, -1.4 + c.uniform(0, 0.3)
        while x < 1.4:
            mark = corners[c.integer(0, 6)]
            points = [(x + 0.5 * a * width, y + 0.5 * b * height - 0.5 * height) for a, b in mark]
            pen.line(moved(points, turn=turn), bold * height)
            x += width * (1.45 if c.chance(0.85) else 2.6)
    return c.mix(pen.coverage()) * (1 + 0.06 * c.cloud(1.4))
