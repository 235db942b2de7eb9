"""Textures without a layout: noises of several spectra, and the materials that they make.

A family draws an image (3, size, size), 0 to 1, on a canvas `c`, of a class with parameters `k`; `px` is the
side of a pixel in the units of u, v."""

from __future__ import annotations

import math

import numpy as np

from kizu.synthetic.noise import Field, lookup, periodic_noise, rotated, worley
from kizu.synthetic.scenes.canvas import SceneCanvas
from kizu.synthetic.scenes.parameters import ClassParameters
from kizu.synthetic.shapes import coverage, sine_wave, to_unit, triangle_wave


def cloud(c: SceneCanvas, k: ClassParameters) -> Field:
    """Noise of one spectrum, 1 / f^a, through a few colours."""
    return c.ramp(to_unit(c.cloud(k.between(0, 0.7, 2.4)), k.choice(1, (0.2, 0.28))), k.integer(2, 2, 4))


def veins(c: SceneCanvas, k: ClassParameters) -> Field:
    """Ridges where a noise crosses zero: lightning, veins, crumpled paper."""
    field = np.abs(c.cloud(k.between(0, 1.3, 2.2)))
    return c.ramp(1 - np.sqrt(field * k.between(1, 0.5, 1.4)), 3)


def marble(c: SceneCanvas, k: ClassParameters) -> Field:
    """Bands bent by a turbulence."""
    u, _, _ = c.pose(k.log(0, 2, 7))
    t = sine_wave(u + k.between(1, 0.25, 0.9) * c.cloud(k.between(2, 1.8, 2.4)))
    return c.ramp(t ** k.choice(3, (1.0, 2.5)), 3)


def wood(c: SceneCanvas, k: ClassParameters) -> Field:
    """Year rings cut lengthwise, and the fibres along them."""
    u, v, _ = c.pose(k.log(0, 4, 12), zoom=0.2)
    angle = math.atan2(float(v[0, -1] - v[0, 0]), float(u[0, -1] - u[0, 0]))
    rings = u + k.between(1, 0.01, 0.06) * (v - v.mean()) ** 2 + k.between(2, 0.1, 0.5) * c.smooth(3)
    late = (rings - np.floor(rings)) ** k.between(3, 1, 3)
    fibre = c.cloud(1.0, aspect=k.log(4, 6, 16), turn=math.pi / 2 - angle)
    return c.mix(0.8 * late + 0.1 * fibre) * (1 + 0.07 * fibre)


def brushed(c: SceneCanvas, k: ClassParameters) -> Field:
    """Metal brushed along one direction, with a gleam across."""
    turn = c.uniform(0, math.pi)
    streaks = c.cloud(k.between(0, 0.4, 1.3), aspect=k.log(1, 6, 50), turn=turn)
    _, v = rotated(c.x, c.y, turn)
    gleam = np.exp(-(((v - c.uniform(-0.7, 0.7)) / k.between(2, 0.25, 0.7)) ** 2))
    return c.tone(0.5, 0.25) * (0.75 + 0.4 * gleam + k.between(3, 0.12, 0.35) * streaks)


def turned_metal(c: SceneCanvas, k: ClassParameters) -> Field:
    """A faced disc: rings of the lathe about a centre, and the fans of light that they throw."""
    x, y = c.x - c.uniform(-0.8, 0.8), c.y - c.uniform(-0.8, 0.8)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    rings = lookup(periodic_noise(c.rng, int(k.log(0, 24, 110))), radius * 0.45)
    fans = np.cos(angle * k.choice(1, (2, 2, 4, 3)) + c.uniform(0, 6)) ** 2 + 0.15 * c.smooth(4)
    return c.tone(0.4, 0.25) * (0.65 + k.between(2, 0.25, 0.7) * fans + k.between(3, 0.1, 0.3) * rings)


def grained(c: SceneCanvas, k: ClassParameters) -> Field:
    """Noise about one frequency and direction: ripples, hair, scuffed plastic."""
    turn = c.uniform(0, math.pi)
    field = c.gabor(k.log(0, 4, 18), k.log(1, 1.0, 4.0), turn)
    if k.draws[2] > 0.6:
        field = 0.7 * (field + c.gabor(k.log(0, 4, 18), k.log(1, 1.0, 4.0), turn + k.between(3, 0.7, 1.6)))
    return c.ramp(to_unit(field), k.integer(4, 2, 3))


def labyrinth(c: SceneCanvas, k: ClassParameters) -> Field:
    """Stripes without direction, or spots: a narrow band of frequencies cut at one level."""
    field = c.band(k.log(0, 4, 14), k.between(1, 0.12, 0.35))
    return c.mix(coverage(field - k.choice(2, (0.0, 0.9, -0.9, 0.4)), k.between(3, 0.25, 1.2)))


def granite(c: SceneCanvas, k: ClassParameters) -> Field:
    """Three minerals: blotches of two grain sizes cut out of noise."""
    coarse, fine = c.band(k.log(0, 4, 10), 0.5), c.band(k.log(1, 10, 22), 0.5)
    colours = c.palette(3)
    image = c.mix(coverage(k.between(2, -0.2, 0.8) - coarse, 0.5), colours[:2])
    image += coverage(k.between(3, 0.4, 1.3) - fine, 0.5) * (colours[2][:, None, None] - image)
    return image * c.grain(0.05)


def leather(c: SceneCanvas, k: ClassParameters) -> Field:
    """Cushions of uneven size parted by creases, lit from one side."""
    u, v, px = c.pose(k.log(0, 6, 16), warp=k.between(1, 0.1, 0.4))
    first, second, _ = worley(c.rng, u, v, k.between(2, 0.7, 1.0))
    pillow = np.sqrt(np.clip(second - first, 0, k.between(3, 0.25, 0.9)))
    shade = c.relief(pillow * (k.between(4, 0.5, 1.3) / px))
    return c.tone() * (0.45 + 0.6 * pillow) * shade * c.grain(0.03)


def cracks(c: SceneCanvas, k: ClassParameters) -> Field:
    """Thin dark lines between warped cells: dried mud, old glaze."""
    u, v, px = c.pose(k.log(0, 2.5, 8), warp=k.between(1, 0.05, 0.35))
    first, second, _ = worley(c.rng, u, v, 0.95)
    line = coverage(second - first - k.between(2, 0.03, 0.16), max(2 * px, 0.05))
    colours = c.palette(2)
    ground = c.mix(to_unit(c.cloud(1.2), 0.15), np.stack([colours[1], colours[1] * 0.8]))
    return ground + line * (colours[0][:, None, None] - ground)


def mosaic(c: SceneCanvas, k: ClassParameters) -> Field:
    """Cells of flat colour, from squares to splinters, with or without leads."""
    u, v, px = c.pose(k.log(0, 3, 10))
    first, second, keys = worley(c.rng, u, v * k.choice(1, (1.0, 1.0, 0.45)), k.between(2, 0.3, 1.0))
    image = c.tones(keys, k.integer(3, 3, 6))
    lead = k.choice(4, (0.0, 0.07, 0.14))
    if lead:
        image = image * (1 - 0.85 * coverage(second - first - lead, max(1.5 * px, 0.04)))
    return image


def pebbles(c: SceneCanvas, k: ClassParameters) -> Field:
    """Round stones or bubbles, each with its own light."""
    u, v, px = c.pose(k.log(0, 4, 11))
    first, _, keys = worley(c.rng, u, v, k.between(1, 0.5, 0.95))
    dome = np.sqrt(np.clip(1 - (first / k.between(2, 0.5, 0.75)) ** 2, 0, 1))
    shade = c.relief(dome * (0.35 / px))
    return c.tones(keys, k.integer(3, 2, 5)) * shade * (0.25 + 0.75 * np.minimum(1, 2.2 * dome))


def cast(c: SceneCanvas, k: ClassParameters) -> Field:
    """A cast or blasted surface: only its roughness shows, by light from one side."""
    height = c.cloud(k.between(0, 0.9, 2.0)) * k.log(1, 0.6, 2.2)
    if k.draws[2] > 0.5:
        height = np.minimum(height, k.between(3, 0.0, 0.7))
    shade = c.relief(height * (c.size / 64) ** 0.3)
    return c.tone(0.6, 0.2) * shade


def rust(c: SceneCanvas, k: ClassParameters) -> Field:
    """One material eating into another along a fractal front."""
    front = c.cloud(k.between(0, 1.5, 2.5)) - k.between(1, -0.5, 0.8)
    cover = coverage(-front, k.between(2, 0.1, 0.6))
    colours = c.palette(4)
    below = c.mix(to_unit(c.cloud(1.2), 0.15), colours[1:3] * 0.3 + colours[3] * 0.7)
    above = c.mix(to_unit(c.band(k.log(3, 5, 16), 0.4), 0.2), colours[:2] * 0.5 + colours[0] * 0.5)
    edge = np.exp(-((front / 0.25) ** 2))
    return (below + cover * (above - below)) * (1 - k.between(4, 0.0, 0.5) * edge)


def contours(c: SceneCanvas, k: ClassParameters) -> Field:
    """Height lines or terraces of a smooth landscape."""
    height = (c.cloud(k.between(0, 2.3, 3.0)) + 0.5 * c.uniform(-1, 1)) * k.between(1, 1.2, 2.6)
    if k.draws[2] > 0.5:
        slope = sum(np.abs(d) for d in np.gradient(height)) + 0.02
        near = np.abs(height - np.floor(height) - 0.5) / slope
        return c.mix(coverage(near - k.between(3, 0.6, 1.3), 1.0))
    return c.ramp(np.floor(to_unit(height, 0.18) * 7) / 6, 4)


def moire(c: SceneCanvas, k: ClassParameters) -> Field:
    """Two gratings or ring systems over each other."""
    u, v, _ = c.pose(1.0)
    number = k.log(0, 5, 13)
    x, y = u - u.mean(), v - v.mean()
    first = u if k.draws[1] < 0.5 else np.hypot(x + c.uniform(-0.5, 0.5), y + c.uniform(-0.5, 0.5))
    second = rotated(u, v, k.between(2, 0.15, 0.8))[0] if k.draws[3] < 0.5 else np.hypot(x + 0.2, y - 0.15)
    return c.ramp(sine_wave(first * number) * sine_wave(second * (number * k.between(4, 0.85, 1.2))), 3)


def glow(c: SceneCanvas, k: ClassParameters) -> Field:
    """Light fields: soft colour gradients, folded once or twice."""
    field = c.smooth(k.integer(0, 2, 3)) * k.between(1, 0.5, 1.2)
    return c.ramp(triangle_wave(field * 0.5 + c.uniform()), k.integer(2, 3, 5))


def water(c: SceneCanvas, k: ClassParameters) -> Field:
    """Ripples that catch the light: the sum of a few waves, bent, with sharp crests."""
    u, v, _ = c.pose(k.log(0, 2.5, 6), warp=k.between(1, 0.1, 0.4))
    total = np.zeros_like(u)
    for turn in k.table[: k.integer(2, 2, 5)].tolist():
        total += np.abs(np.sin(rotated(u, v, turn * math.pi)[0] * math.pi + c.uniform(0, 6)))
    total = total - total.min()
    return c.ramp((1 - total / total.max()) ** k.between(3, 1.0, 2.2), 3)
