"""Fractals: iterated functions, escape-time sets, branching trees. See `textures` for c and k."""

from __future__ import annotations

import math

import numpy as np

from kizu.synthetic.noise import Field, rotated
from kizu.synthetic.pen import Pen
from kizu.synthetic.scenes.canvas import SceneCanvas
from kizu.synthetic.scenes.parameters import ClassParameters
from kizu.synthetic.shapes import sine_wave, to_unit

FOLDS = ("none", "sine", "swirl", "sphere", "fold")
"""What a flame does to a point after each affine map."""


def ifs(c: SceneCanvas, k: ClassParameters) -> Field:
    """The attractor of two to four affine maps of the class, as a density of points."""
    return _density(c, k, "none")


def flame(c: SceneCanvas, k: ClassParameters) -> Field:
    """Affine maps of the class with a bent step after each."""
    return _density(c, k, k.choice(0, FOLDS[1:]))


def _density(c: SceneCanvas, k: ClassParameters, fold: str) -> Field:
    """All points that the maps reach after so many steps, posed, counted per pixel and coloured."""
    x, y = _attractor(c, k, fold)
    x, y = x - x.mean(), y - y.mean()
    x = x * (c.uniform(0.4, 0.6) / (float(x.std()) + 0.02))
    y = y * (c.uniform(0.4, 0.6) / (float(y.std()) + 0.02))
    x, y = rotated(x, y, c.uniform(0, 2 * math.pi))
    n = c.size
    column, row = np.floor((x + 1) * (0.5 * n)), np.floor((y + 1) * (0.5 * n))
    inside = (column >= 0) & (column < n) & (row >= 0) & (row < n)
    pixels = (row * n + column)[inside].astype(np.int32)
    count = np.bincount(pixels, minlength=n * n).reshape(n, n).astype(np.float32)
    count[1:-1, 1:-1] += 0.125 * (count[2:, 1:-1] + count[:-2, 1:-1] + count[1:-1, 2:] + count[1:-1, :-2])
    tone = np.log1p(count)
    return c.ramp(tone * (0.45 / (float(tone.mean() + tone.std()) + 0.01)), 3)


def _attractor(c: SceneCanvas, k: ClassParameters, fold: str) -> tuple[Field, Field]:
    """x, y (points,): about 2.5 a pixel, at 96 pixels and less."""
    number = k.integer(1, 2, 4)
    spin, lean, long, wide, dx, dy = k.table[: number * 6].reshape(6, number)[:, :, None]
    spin, lean = spin * (2 * math.pi), (lean - 0.5) * 1.2
    size = (0.95 if number == 2 else 0.8) * math.exp(c.uniform(-0.03, 0.03))
    a = (0.65 + 0.28 * long) * size
    b = (0.6 + 0.3 * wide) * np.where(long > 0.7, -size, size).astype(np.float32)
    xx, xy, yx, yy = a * np.cos(spin), -b * np.sin(spin + lean), a * np.sin(spin), b * np.cos(spin + lean)
    reach = 1.0 if fold == "none" else 0.6
    dx, dy = (dx * 2 - 1) * reach, (dy * 2 - 1) * reach
    target = int(2.5 * min(c.size, 96) ** 2)
    steps = int(math.log(target / 8) / math.log(number))
    x, y = c.rng.random((2, target // number**steps), np.float32) - 0.5
    for _ in range(steps):
        x, y = _folded((xx * x + xy * y + dx).ravel(), (yx * x + yy * y + dy).ravel(), fold)
    return x, y


def _folded(x: Field, y: Field, fold: str) -> tuple[Field, Field]:
    if fold == "sine":
        return np.sin(x * 1.8), np.sin(y * 1.8)
    if fold == "fold":
        return np.abs(x) - 0.4, y - 0.3 * x * x
    if fold == "none":
        return x, y
    squared = x * x + y * y
    factor = 0.6 / (squared + 0.25) if fold == "sphere" else np.cos(squared * 0.7)
    return x * factor, y * factor


def julia(c: SceneCanvas, k: ClassParameters) -> Field:
    """A filled Julia set of the class's constant, cropped and turned."""
    re, im = _cardioid(k.draws[0])
    push = k.between(1, 1.02, 1.12)
    scale = c.uniform(0.7, 1.3)
    x, y = c.x * scale + c.uniform(-0.4, 0.4), c.y * scale + c.uniform(-0.4, 0.4)
    x, y = rotated(x, y, c.uniform(0, 2 * math.pi))
    return _escape(c, x, y, (re * push, im * push), k.choice(2, (18, 26)), k.integer(3, 0, 2))


def mandelbrot(c: SceneCanvas, k: ClassParameters) -> Field:
    """A crop at the rim of the Mandelbrot set, about the class's place."""
    re, im = _cardioid(k.draws[0])
    scale = k.log(1, 0.15, 0.5) * c.uniform(0.8, 1.25)
    x, y = c.x * scale + c.uniform(-0.3, 0.3) * scale, c.y * scale + c.uniform(-0.3, 0.3) * scale
    x, y = rotated(x, y, c.uniform(0, 2 * math.pi))
    x, y = x + re * 1.06, y + im * 1.06
    return _escape(c, x, y, (x, y), 30, k.integer(2, 0, 2))


def _cardioid(t: float) -> tuple[float, float]:
    """Real and imaginary part of a place on the rim of the Mandelbrot set, t from 0 to 1 once around."""
    angle = t * 2 * math.pi
    re = 0.5 * math.cos(angle) - 0.25 * math.cos(2 * angle)
    return re, 0.5 * math.sin(angle) - 0.25 * math.sin(2 * angle)


def _escape(
    c: SceneCanvas, x: Field, y: Field, start: tuple[Field | float, Field | float], steps: int, kind: int
) -> Field:
    """z -> z^2 + start from z = x + iy, coloured by the steps to escape (kind 0) or by the nearest pass of a
    point (1) or a cross (2)."""
    a, b = start
    count, trap = np.zeros_like(x), np.full_like(x, 4.0)
    with np.errstate(all="ignore"):
        for _ in range(steps):
            xx, yy = x * x, y * y
            squared = xx + yy
            count += squared < 16
            if kind == 1:
                trap = np.fmin(trap, squared)
            elif kind == 2:
                trap = np.fmin(trap, np.minimum(np.abs(x - 0.3), np.abs(y)))
            y = 2 * x * y + b
            x = xx - yy + a
    if kind == 0:
        many = steps > 20
        return c.ramp(sine_wave(np.log1p(count) * c.uniform(0.7, 0.8)) if many else count * (1 / steps), 4)
    return c.ramp(np.sqrt(trap) * 0.9, 4) * (0.55 + 0.45 * (count * (1 / steps)))


def tree(c: SceneCanvas, k: ClassParameters) -> Field:
    """A branching tree or fern: one fork angle, ratio and number of branches."""
    pen = Pen(c.size)
    forks, spread, ratio = k.integer(0, 2, 3), k.between(1, 0.25, 1.1), k.between(2, 0.6, 0.78)
    bend, depth = (k.draws[3] - 0.5) * 0.5, 7 if forks == 2 else 5
    lean = c.uniform(0, 2 * math.pi)
    first = c.uniform(0.5, 0.65) if ratio < 0.7 else c.uniform(0.4, 0.5)
    level = [(-0.9 * math.cos(lean), -0.9 * math.sin(lean), lean, first)]
    fine = c.uniform(0.07, 0.14)
    for _ in range(depth):
        after = []
        for x, y, direction, length in level:
            end_x, end_y = x + length * math.cos(direction), y + length * math.sin(direction)
            pen.line([(x, y), (end_x, end_y)], length * fine + 0.012)
            for n in range(forks):
                turn = bend + spread * (2 * n / (forks - 1) - 1) + c.uniform(-0.12, 0.12)
                after.append((end_x, end_y, direction + turn, length * ratio))
        level = after
    colours = c.palette(2)
    back = c.mix(to_unit(c.cloud(1.8), 0.1), np.stack([colours[0], colours[0] * 0.7 + 0.1]))
    return back + pen.coverage() * (colours[1][:, None, None] - back)
