"""Textures without a drawing: noises of several spectra, and the materials that come out of them."""

from __future__ import annotations

import math

import numpy as np

from kizu.synthetic.procedural.canvas import Canvas, ridge, step, unit, wave
from kizu.synthetic.procedural.noise import Field, lookup, strip, turned, worley
from kizu.synthetic.procedural.parameters import Parameters


def cloud(c: Canvas, k: Parameters) -> Field:
    """Noise of one spectrum, 1 / f^a, through a few colours."""
    return c.ramp(unit(c.cloud(k.between(0, 0.7, 2.4)), k.pick(1, (0.2, 0.28))), k.whole(2, 2, 4))


def veins(c: Canvas, k: Parameters) -> Field:
    """Ridges where a noise crosses zero: lightning, veins, crumpled paper."""
    field = np.abs(c.cloud(k.between(0, 1.3, 2.2)))
    return c.ramp(1 - np.sqrt(field * k.between(1, 0.5, 1.4)), 3)


def marble(c: Canvas, k: Parameters) -> Field:
    """Bands bent by a turbulence."""
    u, _, _ = c.pose(k.log(0, 2, 7))
    t = wave(u + k.between(1, 0.25, 0.9) * c.cloud(k.between(2, 1.8, 2.4)))
    return c.ramp(t ** k.pick(3, (1.0, 2.5)), 3)


def wood(c: Canvas, k: Parameters) -> Field:
    """Year rings cut lengthwise, and the fibres along them."""
    u, v, _ = c.pose(k.log(0, 4, 12), zoom=0.2)
    angle = math.atan2(float(v[0, -1] - v[0, 0]), float(u[0, -1] - u[0, 0]))
    rings = u + k.between(1, 0.01, 0.06) * (v - v.mean()) ** 2 + k.between(2, 0.1, 0.5) * c.smooth(3)
    late = (rings - np.floor(rings)) ** k.between(3, 1, 3)
    fibre = c.cloud(1.0, aspect=k.log(4, 6, 16), turn=math.pi / 2 - angle)
    return c.mix(0.8 * late + 0.1 * fibre) * (1 + 0.07 * fibre)


def brushed(c: Canvas, k: Parameters) -> Field:
    """Metal brushed along one direction, with a gleam across."""
    turn = c.u(0, math.pi)
    streaks = c.cloud(k.between(0, 0.4, 1.3), aspect=k.log(1, 6, 50), turn=turn)
    _, v = turned(c.x, c.y, turn)
    gleam = np.exp(-(((v - c.u(-0.7, 0.7)) / k.between(2, 0.25, 0.7)) ** 2))
    base = c.palette(1)[0] * 0.5 + 0.25
    return base[:, None, None] * (0.75 + 0.4 * gleam + k.between(3, 0.12, 0.35) * streaks)


def turned_metal(c: Canvas, k: Parameters) -> Field:
    """A faced disc: rings of the lathe about a centre, and the fans of light that they throw."""
    x, y = c.x - c.u(-0.8, 0.8), c.y - c.u(-0.8, 0.8)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    rings = lookup(strip(c.rng, int(k.log(0, 24, 110))), radius * 0.45)
    fans = np.cos(angle * k.pick(1, (2, 2, 4, 3)) + c.u(0, 6)) ** 2 + 0.15 * c.smooth(4)
    base = c.palette(1)[0] * 0.4 + 0.25
    return base[:, None, None] * (0.65 + k.between(2, 0.25, 0.7) * fans + k.between(3, 0.1, 0.3) * rings)


def grained(c: Canvas, k: Parameters) -> Field:
    """Noise about one frequency and direction: ripples, hair, scuffed plastic."""
    turn = c.u(0, math.pi)
    field = c.gabor(k.log(0, 4, 18), k.log(1, 1.0, 4.0), turn)
    if k.draws[2] > 0.6:
        field = 0.7 * (field + c.gabor(k.log(0, 4, 18), k.log(1, 1.0, 4.0), turn + k.between(3, 0.7, 1.6)))
    return c.ramp(unit(field), k.whole(4, 2, 3))


def labyrinth(c: Canvas, k: Parameters) -> Field:
    """Stripes without direction, or spots: a narrow band of frequencies cut at one level."""
    field = c.band(k.log(0, 4, 14), k.between(1, 0.12, 0.35))
    return c.mix(step(field - k.pick(2, (0.0, 0.9, -0.9, 0.4)), k.between(3, 0.25, 1.2)))


def granite(c: Canvas, k: Parameters) -> Field:
    """Three minerals: blotches of two grain sizes cut out of noise."""
    coarse, fine = c.band(k.log(0, 4, 10), 0.5), c.band(k.log(1, 10, 22), 0.5)
    colours = c.palette(3)
    image = c.mix(step(k.between(2, -0.2, 0.8) - coarse, 0.5), colours[:2])
    image += step(k.between(3, 0.4, 1.3) - fine, 0.5) * (colours[2][:, None, None] - image)
    return image * c.grain(0.05)


def leather(c: Canvas, k: Parameters) -> Field:
    """Cushions of uneven size parted by creases, lit from one side."""
    u, v, px = c.pose(k.log(0, 6, 16), warp=k.between(1, 0.1, 0.4))
    first, second, _ = worley(c.rng, u, v, k.between(2, 0.7, 1.0))
    pillow = np.sqrt(np.clip(second - first, 0, k.between(3, 0.25, 0.9)))
    shade = c.relief(pillow * (k.between(4, 0.5, 1.3) / px))
    return c.palette(1)[0][:, None, None] * (0.45 + 0.6 * pillow) * shade * c.grain(0.03)


def cracks(c: Canvas, k: Parameters) -> Field:
    """Thin dark lines between warped cells: dried mud, old glaze."""
    u, v, px = c.pose(k.log(0, 2.5, 8), warp=k.between(1, 0.05, 0.35))
    first, second, _ = worley(c.rng, u, v, 0.95)
    line = step(second - first - k.between(2, 0.03, 0.16), max(2 * px, 0.05))
    colours = c.palette(2)
    ground = c.mix(unit(c.cloud(1.2), 0.15), np.stack([colours[1], colours[1] * 0.8]))
    return ground + line * (colours[0][:, None, None] - ground)


def mosaic(c: Canvas, k: Parameters) -> Field:
    """Cells of flat colour, from squares to splinters, with or without leads."""
    u, v, px = c.pose(k.log(0, 3, 10))
    first, second, keys = worley(c.rng, u, v * k.pick(1, (1.0, 1.0, 0.45)), k.between(2, 0.3, 1.0))
    image = c.tones(keys, k.whole(3, 3, 6))
    lead = k.pick(4, (0.0, 0.07, 0.14))
    if lead:
        image = image * (1 - 0.85 * step(second - first - lead, max(1.5 * px, 0.04)))
    return image


def pebbles(c: Canvas, k: Parameters) -> Field:
    """Round stones or bubbles, each with its own light."""
    u, v, px = c.pose(k.log(0, 4, 11))
    first, _, keys = worley(c.rng, u, v, k.between(1, 0.5, 0.95))
    dome = np.sqrt(np.clip(1 - (first / k.between(2, 0.5, 0.75)) ** 2, 0, 1))
    shade = c.relief(dome * (0.35 / px))
    return c.tones(keys, k.whole(3, 2, 5)) * shade * (0.25 + 0.75 * np.minimum(1, 2.2 * dome))


def cast(c: Canvas, k: Parameters) -> Field:
    """A cast or blasted surface: only its roughness shows, by light from one side."""
    height = c.cloud(k.between(0, 0.9, 2.0)) * k.log(1, 0.6, 2.2)
    if k.draws[2] > 0.5:
        height = np.minimum(height, k.between(3, 0.0, 0.7))
    shade = c.relief(height * (c.size / 64) ** 0.3)
    return (c.palette(1)[0] * 0.6 + 0.2)[:, None, None] * shade


def rust(c: Canvas, k: Parameters) -> Field:
    """One material eating into another along a fractal front."""
    front = c.cloud(k.between(0, 1.5, 2.5)) - k.between(1, -0.5, 0.8)
    cover = step(-front, k.between(2, 0.1, 0.6))
    colours = c.palette(4)
    below = c.mix(unit(c.cloud(1.2), 0.15), colours[1:3] * 0.3 + colours[3] * 0.7)
    above = c.mix(unit(c.band(k.log(3, 5, 16), 0.4), 0.2), colours[:2] * 0.5 + colours[0] * 0.5)
    edge = np.exp(-((front / 0.25) ** 2))
    return (below + cover * (above - below)) * (1 - k.between(4, 0.0, 0.5) * edge)


def contours(c: Canvas, k: Parameters) -> Field:
    """Height lines or terraces of a smooth landscape."""
    height = (c.cloud(k.between(0, 2.3, 3.0)) + 0.5 * c.u(-1, 1)) * k.between(1, 1.2, 2.6)
    if k.draws[2] > 0.5:
        slope = sum(np.abs(d) for d in np.gradient(height)) + 0.02
        near = np.abs(height - np.floor(height) - 0.5) / slope
        return c.mix(step(near - k.between(3, 0.6, 1.3), 1.0))
    return c.ramp(np.floor(unit(height, 0.18) * 7) / 6, 4)


def moire(c: Canvas, k: Parameters) -> Field:
    """Two gratings or ring systems over each other."""
    u, v, _ = c.pose(1.0)
    number = k.log(0, 5, 13)
    first = u if k.draws[1] < 0.5 else np.hypot(u - u.mean() + c.u(-0.5, 0.5), v - v.mean() + c.u(-0.5, 0.5))
    second = (
        turned(u, v, k.between(2, 0.15, 0.8))[0]
        if k.draws[3] < 0.5
        else np.hypot(u - u.mean() + 0.2, v - v.mean() - 0.15)
    )
    return c.ramp(wave(first * number) * wave(second * (number * k.between(4, 0.85, 1.2))), 3)


def glow(c: Canvas, k: Parameters) -> Field:
    """Light fields: soft colour gradients, folded once or twice."""
    field = c.smooth(k.whole(0, 2, 3)) * k.between(1, 0.5, 1.2)
    return c.ramp(ridge(field * 0.5 + c.u()), k.whole(2, 3, 5))


def water(c: Canvas, k: Parameters) -> Field:
    """Ripples that catch the light: the sum of a few waves, bent, with sharp crests."""
    u, v, _ = c.pose(k.log(0, 2.5, 6), warp=k.between(1, 0.1, 0.4))
    total = np.zeros_like(u)
    for turn in k.table[: k.whole(2, 2, 5)].tolist():
        total += np.abs(np.sin(turned(u, v, turn * math.pi)[0] * math.pi + c.u(0, 6)))
    total = total - total.min()
    return c.ramp((1 - total / total.max()) ** k.between(3, 1.0, 2.2), 3)
