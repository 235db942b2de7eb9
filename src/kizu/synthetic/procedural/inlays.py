"""Two materials side by side: textures and patterns of other families, parted by an outline of the class's
own."""

from __future__ import annotations

import math

import numpy as np

from kizu.synthetic.procedural import patterns, textures
from kizu.synthetic.procedural.canvas import Canvas, step
from kizu.synthetic.procedural.noise import Field
from kizu.synthetic.procedural.parameters import Parameters

MATERIALS = (
    textures.brushed, patterns.weave, textures.cast, textures.wood, patterns.stripes, textures.leather, textures.cloud, patterns.dots,
    textures.granite, patterns.hexagons, textures.grained, patterns.checks, textures.marble, patterns.knit, patterns.corrugated,
)  # fmt: skip


def inlay(c: Canvas, k: Parameters) -> Field:
    """A disc, bar, corner, wave, frame or row of windows of one material in another, with a rim or a shadow
    between."""
    u, v, px = c.place(0.75)
    below = MATERIALS[k.whole(1, 0, 14)](c, Parameters(0, c.whole(0, 30)))
    above = MATERIALS[(k.whole(1, 0, 14) + k.whole(2, 1, 14)) % 15](c, Parameters(0, c.whole(0, 30)))
    size = k.between(3, 0.45, 0.8)
    square = np.maximum(np.abs(u), np.abs(v))
    windows = np.maximum(np.abs(u - np.round(u)), np.abs(v - np.round(v))) - 0.4 * size
    outlines = (
        np.hypot(u, v) - size,
        np.abs(v) - 0.5 * size,
        np.maximum(u, v),
        v - 0.25 * np.sin(u * 5),
        np.abs(square - size) - 0.15,
        windows,
    )
    d = outlines[k.whole(0, 0, 5)]
    cover = step(d, 1.2 * px)
    far = c.u(0.01, 0.05) * c.size
    shadow = np.roll(
        step(d, 5 * px), (-round(far * math.sin(c.light)), -round(far * math.cos(c.light))), (0, 1)
    )
    below = below * (1 - c.u(0.0, 0.6) * shadow)
    if k.draws[4] > 0.5:
        above = above * c.relief(np.clip(d, -0.08, 0) * (-0.8 / px))
    gain = c.u(0.2, 0.5) / max(float(above.mean()), 0.05), c.u(0.45, 0.8) / max(float(below.mean()), 0.05)
    return below * gain[1] + cover * (above * gain[0] - below * gain[1])
