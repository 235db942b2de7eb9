"""The last steps of every picture: light, lens and sensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kizu.synthetic.procedural.canvas import FLOOR, Canvas
from kizu.synthetic.procedural.noise import Field


def develop(canvas: Canvas, picture: Field) -> NDArray[np.uint8]:
    """The finished (size, size, 3) picture: exposure, uneven light, vignette, slight blur and noise, each
    with its own chance."""
    mean, spread = float(picture.mean()), float(picture[:, ::2, ::2].std())
    contrast = max(canvas.u(0.8, 1.1), min(FLOOR / (spread + 1e-6), 6.0))
    picture = (picture - mean) * contrast + min(max(mean, 0.25), 0.75) * canvas.u(0.85, 1.15)
    if canvas.chance(0.75):
        picture *= _light(canvas)
    if canvas.chance(0.3):
        picture *= np.array([[[canvas.u(0.85, 1.1)]] for _ in range(3)], np.float32)
    for _ in range(canvas.pick((0, 0, 0, 1, 1, 2))):
        picture = _blur(picture)
    if canvas.chance(0.6):
        colours = 3 if canvas.chance(0.4) else 1
        picture += canvas.u(0.005, 0.04) * canvas.rng.standard_normal(
            (colours, canvas.size, canvas.size), np.float32
        )
    picture *= 255
    return np.ascontiguousarray(np.clip(picture, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _light(canvas: Canvas) -> Field:
    """Factors (size, size) about 1: a slope, perhaps a soft patch, perhaps darker corners."""
    shade = 1 + canvas.u(-0.25, 0.25) * canvas.x + canvas.u(-0.25, 0.25) * canvas.y
    if canvas.chance(0.3):
        shade += canvas.u(0.05, 0.2) * canvas.smooth(2)
    if canvas.chance(0.3):
        shade -= canvas.u(0.1, 0.3) * (canvas.x * canvas.x + canvas.y * canvas.y)
    return np.clip(shade, 0.35, 1.6)


def _blur(picture: Field) -> Field:
    """Weights 1 2 1 along rows and columns, a pixel apart (more in large pictures); the rim stays."""
    far = max(1, round(picture.shape[1] / 96))
    out = picture.copy()
    out[:, far:-far] = 0.5 * picture[:, far:-far] + 0.25 * (picture[:, 2 * far :] + picture[:, : -2 * far])
    rows = out.copy()
    out[:, :, far:-far] = 0.5 * rows[:, :, far:-far] + 0.25 * (rows[:, :, 2 * far :] + rows[:, :, : -2 * far])
    return out
