"""The last steps of every image: light, lens and sensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kizu.synthetic.procedural.canvas import FLOOR, Canvas
from kizu.synthetic.procedural.noise import Field


def develop(canvas: Canvas, image: Field) -> NDArray[np.uint8]:
    """The finished (size, size, 3) image: exposure, uneven light, vignette, slight blur and noise, each
    with its own chance."""
    mean, spread = float(image.mean()), float(image[:, ::2, ::2].std())
    contrast = max(canvas.u(0.8, 1.1), min(FLOOR / (spread + 1e-6), 6.0))
    image = (image - mean) * contrast + min(max(mean, 0.25), 0.75) * canvas.u(0.85, 1.15)
    if canvas.chance(0.75):
        image *= _light(canvas)
    if canvas.chance(0.3):
        image *= np.array([[[canvas.u(0.85, 1.1)]] for _ in range(3)], np.float32)
    for _ in range(canvas.pick((0, 0, 0, 1, 1, 2))):
        image = _blur(image)
    if canvas.chance(0.6):
        colours = 3 if canvas.chance(0.4) else 1
        image += canvas.u(0.005, 0.04) * canvas.rng.standard_normal(
            (colours, canvas.size, canvas.size), np.float32
        )
    image *= 255
    return np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def _light(canvas: Canvas) -> Field:
    """Factors (size, size) about 1: a slope, perhaps a soft patch, perhaps darker corners."""
    shade = 1 + canvas.u(-0.25, 0.25) * canvas.x + canvas.u(-0.25, 0.25) * canvas.y
    if canvas.chance(0.3):
        shade += canvas.u(0.05, 0.2) * canvas.smooth(2)
    if canvas.chance(0.3):
        shade -= canvas.u(0.1, 0.3) * (canvas.x * canvas.x + canvas.y * canvas.y)
    return np.clip(shade, 0.35, 1.6)


def _blur(image: Field) -> Field:
    """Weights 1 2 1 along rows and columns, a pixel apart (more in large images); the rim stays."""
    far = max(1, round(image.shape[1] / 96))
    out = image.copy()
    out[:, far:-far] = 0.5 * image[:, far:-far] + 0.25 * (image[:, 2 * far :] + image[:, : -2 * far])
    rows = out.copy()
    out[:, :, far:-far] = 0.5 * rows[:, :, far:-far] + 0.25 * (rows[:, :, 2 * far :] + rows[:, :, : -2 * far])
    return out
