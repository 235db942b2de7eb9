"""Patterns that repeat: stripes, cloth, tiles, lattices, plates. See `textures` for c, k and px."""

from __future__ import annotations

import math

import numpy as np

from kizu.synthetic.noise import Field, cell_index, lookup, rotated
from kizu.synthetic.scenes.canvas import SceneCanvas
from kizu.synthetic.scenes.parameters import ClassParameters
from kizu.synthetic.shapes import coverage, sine_wave, to_unit, triangle_wave

SQRT3 = 1.7320508


def _in_cell(u: Field) -> Field:
    """Position within the unit cell, -0.5 to 0.5."""
    return u - np.floor(u) - 0.5


def stripes(c: SceneCanvas, k: ClassParameters) -> Field:
    """Parallel bands: a soft wave, hard edges, or a bar code of the class's."""
    u, _, px = c.pose(k.log(0, 3, 13), warp=k.choice(1, (0.0, 0.0, 0.15)))
    kind = k.integer(2, 0, 2)
    if kind == 0:
        return c.ramp(sine_wave(u), 2)
    if kind == 1:
        return c.mix(coverage(triangle_wave(u) - k.between(3, 0.3, 0.7), 4 * px))
    code = np.repeat(k.table[:12] > 0.5, 16).astype(np.float32)
    return c.mix(lookup(code, u * 0.25))


def checks(c: SceneCanvas, k: ClassParameters) -> Field:
    """A chess board, drawn out or skewed."""
    u, v, px = c.pose(k.log(0, 3, 11))
    u = u + k.choice(1, (0.0, 0.0, 0.5)) * v
    sharp = 1 / (math.pi * px)
    board = np.sin(u * math.pi) * np.sin(v * (math.pi * k.choice(2, (1.0, 0.5, 0.33))))
    return c.mix(np.clip(0.5 + board * sharp, 0, 1)) * (1 + 0.05 * c.smooth(12))


def tartan(c: SceneCanvas, k: ClassParameters) -> Field:
    """Crossed bands of the class's sett, woven in twill."""
    u, v, _ = c.pose(k.log(0, 1.2, 3.0), zoom=0.25)
    sett = np.repeat((k.table[:9] * 4).astype(np.int32), 1 + (k.table[9:18] * 5).astype(np.int32))
    colours = np.ascontiguousarray(c.palette(4).T)
    twill = ((u + v) * 14) % 1 > 0.5
    return np.where(twill, colours.take(lookup(sett, u), axis=1), colours.take(lookup(sett, v), axis=1))


def weave(c: SceneCanvas, k: ClassParameters) -> Field:
    """Warp over weft: plain, twill, satin or basket, of one thread count and fullness."""
    u, v, _ = c.pose(k.log(0, 7, 16), warp=0.12)
    iu, iv, fu, fv = np.floor(u), np.floor(v), _in_cell(u), _in_cell(v)
    basket = (np.floor(iu / 2) + np.floor(iv / 2)) % 2
    order = ((iu + iv) % 2, (iu + iv) % 3, (iu * 2 + iv) % 5, basket)[k.integer(1, 0, 3)] < 1
    across, along = np.where(order, fu, fv), np.where(order, fv, fu)
    thread = np.clip(1 - (across * k.between(2, 2.0, 2.5)) ** 2, 0, 1)
    thread = thread * (1 - k.between(3, 0.3, 1.2) * along * along)
    fibre = 1 + 0.12 * c.rng.standard_normal(u.shape, np.float32)
    return c.mix(order.astype(np.float32)) * (0.2 + 0.85 * thread) * fibre


def knit(c: SceneCanvas, k: ClassParameters) -> Field:
    """Rows of V stitches, with stripes of the class."""
    u, v, _ = c.pose(k.log(0, 4.5, 10), warp=0.1)
    fu = np.abs(_in_cell(u))
    row = v * k.between(1, 1.1, 1.6) + fu * k.between(2, 0.9, 1.8)
    loop = triangle_wave(row) * np.sqrt(np.clip(triangle_wave(fu * 2), 0, 1))
    bands = lookup((k.table[:8] > 0.55).astype(np.float32), np.floor(row) / 8)
    return c.mix(bands * k.choice(3, (0.0, 1.0))) * (0.2 + 0.9 * loop) * c.grain(0.05)


def bricks(c: SceneCanvas, k: ClassParameters) -> Field:
    """Courses of bricks or boards in one bond, each with its own tone."""
    u, v, px = c.pose(k.log(0, 4, 9))
    ratio, bond = k.choice(1, (2.0, 3.0, 5.0, 1.4)), k.choice(2, (0.5, 0.33, 0.25))
    row = np.floor(v)
    along = u / ratio + bond * row
    key = cell_index(along, v)
    fu, fv = along - np.floor(along), v - row
    rim = np.minimum(np.minimum(fu, 1 - fu) * ratio, np.minimum(fv, 1 - fv)) - k.between(3, 0.05, 0.13)
    body = coverage(-rim, 1.5 * px)
    clay = c.tones(key, k.integer(4, 1, 3)) * (1 + k.between(5, 0.04, 0.16) * c.cloud(0.8))
    shade = c.relief(np.minimum(rim, 0.12) * (0.8 / px))
    return (clay + (1 - body) * (c.palette(2)[1][:, None, None] - clay)) * shade


def tiles(c: SceneCanvas, k: ClassParameters) -> Field:
    """Square tiles with grout and the class's motif on each."""
    u, v, px = c.pose(k.log(0, 2.2, 6))
    fu, fv = _in_cell(u), _in_cell(v)
    square = np.maximum(np.abs(fu), np.abs(fv))
    radius = np.hypot(fu, fv)
    size = k.between(1, 0.16, 0.32)
    motif = (
        radius - size,
        np.abs(radius - size) - 0.06,
        np.abs(fu) + np.abs(fv) - 1.3 * size,
        np.minimum(abs(fu), abs(fv)) - 0.06,
        square - size,
    )
    colours = c.palette(3)
    ground = c.mix(coverage(motif[k.integer(2, 0, 4)], 1.5 * px), colours[:2])
    ground *= 1 + 0.08 * c.rng.standard_normal(1024, np.float32)[cell_index(u, v)]
    grout = coverage(k.between(3, 0.44, 0.475) - square, 1.5 * px)
    return ground + grout * (colours[2][:, None, None] - ground)


def hexagons(c: SceneCanvas, k: ClassParameters) -> Field:
    """A honeycomb: walls, cells of several tones, or domes."""
    u, v, px = c.pose(k.log(0, 4, 10))
    v = v / SQRT3
    a_u, a_v = _in_cell(u), _in_cell(v) * SQRT3
    b_u, b_v = u - np.round(u), (v - np.round(v)) * SQRT3
    first = a_u * a_u + a_v * a_v < b_u * b_u + b_v * b_v
    hu, hv = np.abs(np.where(first, a_u, b_u)), np.abs(np.where(first, a_v, b_v))
    edge = 0.5 - np.maximum(hu, hu * 0.5 + hv * 0.8660254)
    key = cell_index(np.where(first, u, u + 0.5), np.where(first, v, v + 0.5))
    kind = k.integer(1, 0, 2)
    wall = coverage(edge - k.between(2, 0.03, 0.12), 1.5 * px)
    if kind == 0:
        return c.mix(wall)
    if kind == 1:
        return c.tones(key ^ (first.astype(np.int32) * 512), k.integer(3, 3, 5)) * (1 - 0.7 * wall)
    return c.tones(key, 1) * c.relief(np.minimum(edge, k.between(2, 0.08, 0.3)) * (1.0 / px))


def dots(c: SceneCanvas, k: ClassParameters) -> Field:
    """Discs or rings on a square or staggered lattice."""
    u, v, px = c.pose(k.log(0, 4, 12))
    u = u + k.choice(1, (0.0, 0.5)) * np.floor(v)
    radius = np.hypot(_in_cell(u), _in_cell(v)) - k.between(2, 0.17, 0.36)
    if k.draws[3] > 0.6:
        radius = np.abs(radius) - 0.08
    spots = coverage(radius, 1.5 * px)
    if k.draws[4] > 0.5:
        spots = spots * (c.rng.random(1024)[cell_index(u, v)] > 0.3)
    return c.mix(spots.astype(np.float32)) * (1 + 0.05 * c.smooth(10))


def zigzag(c: SceneCanvas, k: ClassParameters) -> Field:
    """Chevrons, herringbones and sine ribbons."""
    u, v, px = c.pose(k.log(0, 3, 8))
    bend = (triangle_wave(u), sine_wave(u) * 0.8, triangle_wave(u) ** 2)[k.integer(1, 0, 2)]
    t = v + k.between(2, 0.5, 1.6) * bend
    if k.draws[3] > 0.5:
        t = t + 0.5 * np.floor(u)
    return c.mix(coverage(triangle_wave(t) - k.between(4, 0.35, 0.65), 4 * px))


def truchet(c: SceneCanvas, k: ClassParameters) -> Field:
    """Quarter arcs or diagonals in cells turned at random: loops and mazes."""
    u, v, px = c.pose(k.log(0, 3.5, 9))
    fu, fv = u - np.floor(u), v - np.floor(v)
    fu = np.where(c.rng.random(1024)[cell_index(u, v)] > 0.5, fu, 1 - fu)
    arcs = np.minimum(np.abs(np.hypot(fu, fv) - 0.5), np.abs(np.hypot(1 - fu, 1 - fv) - 0.5))
    line = arcs if k.draws[1] < 0.6 else np.abs(fu - fv) * 0.7
    width = k.between(2, 0.08, 0.24)
    if k.draws[3] > 0.6:
        return c.ramp((0.5 - line) * 2, 3)
    return c.mix(coverage(line - width, 1.5 * px).astype(np.float32))


def perforated(c: SceneCanvas, k: ClassParameters) -> Field:
    """A metal sheet with punched holes or slots, lit from one side."""
    u, v, px = c.pose(k.log(0, 4, 9))
    u = u + k.choice(1, (0.0, 0.5)) * np.floor(v)
    fu, fv = np.abs(_in_cell(u)), np.abs(_in_cell(v))
    size = k.between(2, 0.2, 0.34)
    hole = (
        np.hypot(fu, fv) - size,
        np.maximum(fu, fv) - 0.85 * size,
        np.hypot(np.maximum(fu - 0.16, 0), fv) - 0.7 * size,
    )[k.integer(3, 0, 2)]
    sheet = 1 - coverage(hole, 1.5 * px)
    shade = c.relief(np.clip(hole, -0.05, 0.08) * (0.9 / px))
    metal = c.tone(0.5, 0.35) * (shade * (1 + 0.07 * c.cloud(0.7, aspect=10, turn=c.uniform(0, 3))))
    return metal * sheet + 0.08 * (1 - sheet) * c.uniform(0.3, 3.0)


def tread(c: SceneCanvas, k: ClassParameters) -> Field:
    """Tread plate: raised lozenges in turned groups."""
    u, v, px = c.pose(k.log(0, 4, 8))
    parity = (np.floor(u) + np.floor(v)) % 2 < 1
    fu, fv = _in_cell(u), _in_cell(v)
    along, across = np.where(parity, fu, fv), np.where(parity, fv, fu)
    bars = k.integer(1, 1, 3)
    if bars % 2:
        nearest = np.clip(np.round(across * bars * 1.4), -(bars - 1) / 2, (bars - 1) / 2) / (bars * 1.4)
        across = nearest - across
    else:
        across = np.abs(across) - 0.18
    lens = 1 - (along / k.between(2, 0.42, 0.56)) ** 2 - (across * bars / k.between(3, 0.2, 0.3)) ** 2
    bump = np.sqrt(np.clip(lens, 0, 0.6))
    return c.tone() * c.relief(bump * (0.25 / px)) * (0.6 + 0.4 * bump + 0.04 * c.cloud(0.8))


def quasicrystal(c: SceneCanvas, k: ClassParameters) -> Field:
    """The sum of plane waves in n directions."""
    number = k.integer(0, 3, 8)
    u, v, _ = c.pose(k.log(1, 2.5, 6))
    total = np.zeros_like(u)
    for turn in range(number):
        total += np.cos(rotated(u, v, math.pi * turn / number)[0] * (2 * math.pi))
    t = total * (1.0 / math.sqrt(number))
    return c.ramp(to_unit(t, 0.3) if k.draws[2] < 0.5 else sine_wave(t * 0.7), 3)


def rings(c: SceneCanvas, k: ClassParameters) -> Field:
    """Concentric rings, spirals of n arms, or a sunburst of n rays."""
    x, y = c.x - c.uniform(-0.5, 0.5), c.y - c.uniform(-0.5, 0.5)
    radius, angle = np.hypot(x, y), np.arctan2(y, x) * (1 / (2 * math.pi)) + c.uniform()
    kind, zoom = k.integer(0, 0, 2), math.exp(c.uniform(-0.25, 0.25))
    arms = k.integer(1, 2, 6)
    rate = k.log(2, 2.5, 8) * zoom
    t = (radius * rate, radius * rate * 0.5 + angle * arms, angle * arms * 3 + 0.1 * np.sin(radius * 9))[kind]
    if k.draws[3] < 0.4:
        return c.ramp(sine_wave(t), 2)
    return c.mix(coverage(triangle_wave(t) - k.between(4, 0.35, 0.65), 0.25))


def scales(c: SceneCanvas, k: ClassParameters) -> Field:
    """Overlapping round scales: roof tiles, fish skin."""
    u, v, px = c.pose(k.log(0, 4, 9))
    pitch, radius = k.between(1, 0.3, 0.48), k.between(2, 0.58, 0.68)
    v = v / pitch
    row = np.floor(v)
    height, tone = np.zeros_like(u), np.zeros_like(u)
    for lower in (1, 0, -1):
        down = (v - row - lower) * pitch
        distance = np.hypot(_in_cell(u + 0.5 * ((row + lower) % 2)), down) / radius
        smooth = k.draws[3] < 0.5
        shade = (1 - distance**3) * (0.6 + down) if smooth else triangle_wave(distance * k.integer(4, 1, 3))
        height = np.where(distance < 1, 0.6 * down - 0.3 * distance**8, height)
        tone = np.where(distance < 1, shade, tone)
    return c.ramp(tone, k.integer(5, 2, 3)) * c.relief(height * (0.5 / px))


def corrugated(c: SceneCanvas, k: ClassParameters) -> Field:
    """Ribs and grooves under a slanting light: profile sheet, files, heat sinks."""
    u, v, px = c.pose(k.log(0, 4, 11))
    f = u - np.floor(u)
    arch = np.sqrt(np.clip(1 - (2 * f - 1) ** 2, 0, 1))
    height = (sine_wave(u), np.clip(triangle_wave(u) * 2.5 - 0.7, 0, 1), f, arch)[k.integer(1, 0, 3)]
    if k.draws[2] > 0.6:
        height = height * np.clip(triangle_wave(v) * 4 - 0.5, 0, 1)
    across = math.atan2(float(u[-1, 0] - u[0, 0]), float(u[0, -1] - u[0, 0]))
    c.light = across + c.uniform(-0.7, 0.7) + math.pi * c.integer(0, 1)
    shade = c.relief(height * (0.25 / px)) * (0.6 + 0.4 * height)
    return c.tone(0.7, 0.15) * shade * c.grain(0.03)
