"""One thing on another: backgrounds, objects that lie on them with a shadow, and inlays of two materials."""

from __future__ import annotations

import math

import numpy as np

from kizu.synthetic.noise import Field
from kizu.synthetic.scenes import patterns, textures
from kizu.synthetic.scenes.canvas import SceneCanvas
from kizu.synthetic.scenes.parameters import ClassParameters
from kizu.synthetic.shapes import coverage, sine_wave, to_unit

BACKGROUNDS = (
    textures.wood, textures.cast, textures.granite, textures.marble, textures.brushed, textures.leather,
    textures.rust, patterns.weave, patterns.tiles, patterns.perforated, patterns.corrugated, patterns.bricks,
)  # fmt: skip
"""What an object may lie on."""
MATERIALS = (
    textures.brushed, patterns.weave, textures.cast, textures.wood, patterns.stripes, textures.leather,
    textures.cloud, patterns.dots, textures.granite, patterns.hexagons, textures.grained, patterns.checks,
    textures.marble, patterns.knit, patterns.corrugated,
)  # fmt: skip
"""What an inlay is drawn of."""


def background(c: SceneCanvas) -> Field:
    """A background that says nothing about the class: plain, cloudy, streaked, rippled, speckled or one of
    many textures, at reduced contrast."""
    kind, tone = c.integer(0, 6), c.tone()
    if kind == 0:
        return np.broadcast_to(tone, (3, c.size, c.size)).copy()
    if kind == 1:
        return tone * (1 + 0.12 * c.cloud(c.uniform(0.8, 2.2)))
    if kind == 2:
        return tone * (1 + 0.1 * c.cloud(0.8, aspect=c.uniform(4, 30), turn=c.uniform(0, math.pi)))
    if kind == 3:
        return tone * (0.85 + 0.3 * sine_wave(c.pose(c.uniform(3, 12))[0]))
    if kind == 4:
        return c.mix(to_unit(c.band(c.uniform(6, 20), 0.5), 0.12))
    texture = c.choice(BACKGROUNDS)(c, ClassParameters(0, c.integer(0, 99)))
    return tone + c.uniform(0.3, 0.7) * (texture - texture.mean())


def place_object(c: SceneCanvas, distance: Field, px: float, body: Field, *, bevel: float = 0.0) -> Field:
    """The image (3, size, size) of an object on a background, with its shadow.

    distance (size, size): signed distance from the object's outline. px: side of a pixel in the same unit.
    body: its image (3, size, size), or the shade (size, size) of one colour. bevel: width of a rounded
    rim."""
    cover = coverage(distance, 1.2 * px)
    behind = background(c)
    if body.ndim == 2:
        bright = float(behind.mean()) > 0.45
        tone = c.palette(1)[0] * 0.35 + (c.uniform(0.0, 0.12) if bright else c.uniform(0.5, 0.65))
        body = tone[:, None, None] * body
    if bevel:
        rim = np.clip(distance * (-1 / bevel), 0, 1)
        body = body * c.relief(rim * (2 - rim) * (0.45 * bevel / px))
    shadow = c.shadow(coverage(distance, 6 * px), c.uniform(0.02, 0.08))
    behind *= 1 - c.uniform(0.25, 0.6) * shadow
    behind += cover * (body - behind)
    return behind


def surface_finish(c: SceneCanvas, u: Field) -> Field:
    """The shade (size, size), about 1, of a worked surface: matt, brushed, or mottled and darker along u."""
    kind = c.integer(0, 2)
    if kind == 0:
        return c.grain(0.03)
    if kind == 1:
        return 1 + 0.12 * c.cloud(0.8, aspect=12, turn=c.uniform(0, math.pi))
    return 1 + 0.08 * c.cloud(1.2) + 0.2 * np.clip(u, -1, 1)


def inlay(c: SceneCanvas, k: ClassParameters) -> Field:
    """A disc, bar, corner, wave, frame or row of windows of one material in another, with a shadow."""
    u, v, px = c.pose_object(0.75)
    first, step = k.integer(1, 0, 14), k.integer(2, 1, 14)
    below = MATERIALS[first](c, ClassParameters(0, c.integer(0, 30)))
    above = MATERIALS[(first + step) % 15](c, ClassParameters(0, c.integer(0, 30)))
    size = k.between(3, 0.45, 0.8)
    square = np.maximum(np.abs(u), np.abs(v))
    outlines = (
        np.hypot(u, v) - size,
        np.abs(v) - 0.5 * size,
        np.maximum(u, v),
        v - 0.25 * np.sin(u * 5),
        np.abs(square - size) - 0.15,
        np.maximum(np.abs(u - np.round(u)), np.abs(v - np.round(v))) - 0.4 * size,
    )
    distance = outlines[k.integer(0, 0, 5)]
    cover = coverage(distance, 1.2 * px)
    shadow = c.shadow(coverage(distance, 5 * px), c.uniform(0.01, 0.05))
    below = below * (1 - c.uniform(0.0, 0.6) * shadow)
    if k.draws[4] > 0.5:
        above = above * c.relief(np.clip(distance, -0.08, 0) * (-0.8 / px))
    above = above * (c.uniform(0.2, 0.5) / max(float(above.mean()), 0.05))
    below = below * (c.uniform(0.45, 0.8) / max(float(below.mean()), 0.05))
    return below + cover * (above - below)
