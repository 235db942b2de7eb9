"""The textures among the products: each fills the image, and no place of it is ever shown twice."""

from __future__ import annotations

import math

import numpy as np

from kizu.synthetic.lighting import Surface, as_image
from kizu.synthetic.noise import Field, image_cells, lattice_noise
from kizu.synthetic.products.canvas import ProductCanvas
from kizu.synthetic.shapes import bevel, box, coverage, smoothstep


def fabric(canvas: ProductCanvas) -> Surface:
    """A plain weave of blue warp and pale weft; threads wander, differ in tone and are spun of fibres."""
    rng = canvas.rng
    canvas.pose(4.0, shift=0.2, zoom=0.05)
    count = canvas.fine(26) / 2
    u = (canvas.u + 0.008 * canvas.noise(5)) * np.float32(count) + np.float32(rng.random() * 8)
    v = (canvas.v + 0.008 * canvas.noise(5)) * np.float32(count) + np.float32(rng.random() * 8)
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu - np.float32(0.5), v - iv - np.float32(0.5)
    over = np.where((iu + iv) % 2 > 0, np.float32(1), np.float32(-1))
    cu, cv = np.cos(np.float32(math.pi) * fu), np.cos(np.float32(math.pi) * fv)
    warp, weft = cu * (0.62 + 0.38 * over * cv), cv * (0.62 - 0.38 * over * cu)
    top = smoothstep(warp - weft, -0.12, 0.12)
    tones = rng.normal(1.0, 0.07, (2, 97)).astype(np.float32)
    tone = top * tones[0][iu.astype(np.intp) % 97] + (1 - top) * tones[1][iv.astype(np.intp) % 97]
    fibres = top * canvas.noise(canvas.fine(40), canvas.fine(180, pixels=1.5), turn=canvas.turn)
    fibres += (1 - top) * canvas.noise(canvas.fine(180, pixels=1.5), canvas.fine(40), turn=canvas.turn)
    surface = canvas.blank("3f5f86", under="23262b")
    surface.paint(1 - top, "9fb0bd")
    surface.albedo *= tone * (1 + 0.14 * fibres) * (1 + 0.03 * canvas.noise(2.5))
    surface.height += np.float32(0.30 / count) * np.maximum(warp, weft) + np.float32(0.022 / count) * fibres
    return surface


def metal(canvas: ProductCanvas) -> Surface:
    """A brushed steel sheet: long fine streaks, a broad gleam across them and the slight waves of rolling."""
    canvas.pose(2.0)
    streaks = canvas.noise(canvas.fine(150, pixels=1.4), 2.2, turn=canvas.turn) * 0.55
    streaks += canvas.noise(canvas.fine(250, pixels=1), 7, turn=canvas.turn) * 0.75
    streaks += canvas.noise(canvas.fine(34), 1.0, turn=canvas.turn) * 0.22
    surface = canvas.blank("b9bdc2", gloss=0.05, metal=0.62, under="dfe3e8", shine=18.0)
    across = canvas.v - np.float32(canvas.rng.normal(-0.15, 0.12)) + 0.04 * canvas.noise(2)
    gleam = np.exp(-((across / 0.55) ** 2))
    surface.albedo *= (0.86 + 0.22 * gleam) * (1 + 0.085 * streaks)
    surface.height += 0.0011 * streaks + 0.004 * canvas.noise(2.5, 1.5)
    return surface


def wood(canvas: ProductCanvas) -> Surface:
    """A planed board: year rings cut lengthwise, dark late wood, pores, and a glossy varnish."""
    rng = canvas.rng
    canvas.pose(2.5)
    canvas.grain_direction = canvas.turn
    warp = 0.05 * canvas.noise(1.8, 0.8) + 0.008 * canvas.noise(7, 2.0)
    bow = np.float32(rng.normal(0.0, 0.05)) * canvas.u**2
    depth = canvas.v + warp + bow
    years = np.interp(depth, np.linspace(-1.6, 1.6, 9), np.cumsum(rng.uniform(0.6, 1.6, 9)) - 4)
    t = years.astype(np.float32) * np.float32(min(2.6, canvas.image_size / 36))
    t = t + np.float32(rng.random() * 20 + 10)
    t += 0.05 * canvas.noise(canvas.fine(120, pixels=2), 4, turn=canvas.turn)
    ring = t - np.floor(t)
    late = smoothstep(ring, 0.10, 0.95) ** 1.5 * smoothstep(ring, 1.0, 0.94)
    tones = rng.uniform(0.45, 1.0, 64).astype(np.float32)
    late *= tones[np.floor(t).astype(np.intp) % 64]
    fibre = canvas.noise(canvas.fine(200, pixels=1.3), 6, turn=canvas.turn)
    fibre = fibre + 0.5 * canvas.noise(canvas.fine(60), 2, turn=canvas.turn)
    pores = smoothstep(canvas.noise(canvas.fine(240, pixels=1.1), 14, turn=canvas.turn), 1.5, 2.4)
    pores = pores * (0.3 + 0.7 * late)
    surface = canvas.blank("c2935f", gloss=0.03, under="e3c79c", shine=14.0)
    surface.paint(late * 0.8, "7d4d2a")
    surface.paint(pores * 0.75, "40261a")
    surface.albedo *= (1 + 0.075 * fibre) * (1 + 0.04 * canvas.noise(1.5))
    surface.height += 0.0010 * fibre - 0.003 * pores - 0.002 * late
    return surface


def leather(canvas: ProductCanvas) -> Surface:
    """Pebbled leather: cushions of uneven size parted by creases, matt with a little shine."""
    count = canvas.fine(24)
    first, second = image_cells(canvas.rng, canvas.size, count)
    crease = smoothstep(second - first, 0.32, 0.02)
    cushion = np.sqrt(np.clip(second - first, 0, 0.8))
    pits = canvas.fractal(canvas.fine(48), 2)
    surface = canvas.blank("7a4328", gloss=0.075, under="c9a27e", shine=16.0)
    surface.albedo *= (1 + 0.05 * canvas.fractal(3, 3)) * (1 - 0.32 * crease) * (1 + 0.025 * pits)
    relief = np.float32(0.34 / count) * cushion + np.float32(0.018 / count) * pits
    surface.height += relief + 0.006 * canvas.noise(3)
    return surface


def concrete(canvas: ProductCanvas) -> Surface:
    """Fair-faced concrete: cloudy grey, sand grains, and the small pores that air leaves in any good slab."""
    cloud, sand = canvas.fractal(2.5, 4), canvas.fractal(canvas.fine(70), 2)
    near, _ = image_cells(canvas.rng, canvas.size, canvas.fine(26))
    size = 0.5 + 0.5 * canvas.noise(canvas.fine(26))
    pores = smoothstep(near - 0.15 * np.clip(size - 0.35, 0, 1.6), 0.04, -0.04)
    chips = smoothstep(canvas.noise(canvas.fine(55)), 1.5, 1.9)
    surface = canvas.blank("a3a19b", under="8b857c")
    surface.albedo *= (1 + 0.07 * cloud) * (1 + 0.075 * sand)
    surface.paint(chips * 0.35, "d2cfc6")
    surface.paint(pores * 0.45, "57544f")
    surface.height += 0.0017 * sand + 0.003 * cloud - 0.016 * pores
    return surface


def tiles(canvas: ProductCanvas) -> Surface:
    """Glazed wall tiles: cushion edges, grey grout; each tile has its own tone and stands a little askew."""
    rng = canvas.rng
    canvas.pose(1.5, shift=0.25, zoom=0.03)
    pitch = 0.62
    number = rng.integers(0, 50, 2)
    iu, iv = np.floor(canvas.u / pitch + 0.5), np.floor(canvas.v / pitch + 0.5)
    key = (iu.astype(np.intp) * 7 + iv.astype(np.intp) * 13 + int(number.sum())) % 61
    tones = rng.normal(0.0, 1.0, (4, 61)).astype(np.float32)[:, key]
    fu, fv = canvas.u - iu * np.float32(pitch), canvas.v - iv * np.float32(pitch)
    loose, slip = _loose_tile(canvas, iu, iv)
    fu, fv = fu - slip[0] * loose, fv - slip[1] * loose
    fu, fv = fu + slip[2] * loose * fv, fv - slip[2] * loose * fu
    body = canvas.chip(box(fu, fv, pitch / 2 - 0.026, pitch / 2 - 0.026, 0.03) - 0.002 * canvas.noise(12))
    glazed = coverage(body, canvas.edge) * (1 - loose * (canvas.defect == "missing"))
    sand = canvas.fractal(canvas.fine(70), 2)
    surface = canvas.blank("8f8d88", under="c98f6b")
    surface.albedo *= 1 + 0.10 * sand
    glaze = as_image("d9dfdb") * (1 + 0.022 * tones[0] + 0.012 * canvas.fractal(4, 3))
    surface.paint(glazed, glaze, gloss=0.16)
    surface.shine = 60.0
    tilt = 0.010 * (tones[1] * fu + tones[2] * fv) + 0.0016 * canvas.noise(6)
    surface.height += glazed * (bevel(body, 0.035, 0.030) + tilt) + (1 - glazed) * 0.003 * sand
    surface.solid = glazed.copy()
    _tile_bed(canvas, surface, loose * (1 - glazed) * coverage(body + 0.01, canvas.edge))
    canvas.fracture(surface, width=0.04, depth=0.012)
    return surface


def _loose_tile(canvas: ProductCanvas, iu: Field, iv: Field) -> tuple[Field, tuple[float, float, float]]:
    """Where the loose tile is (1 or 0), how far it slipped along u and v, and its turn; 0 if none is
    loose."""
    if canvas.defect not in ("missing", "misplaced"):
        return np.zeros_like(iu), (0.0, 0.0, 0.0)
    rng, strength = canvas.defect_rng, canvas.strength
    row, column = canvas.size // 2 + rng.integers(-canvas.size // 5, canvas.size // 5, 2)
    loose = ((iu == iu[row, column]) & (iv == iv[row, column])).astype(np.float32)
    if canvas.defect == "missing":
        return loose, (0.0, 0.0, 0.0)
    direction, distance = float(rng.uniform(0, 2 * math.pi)), 0.012 + 0.014 * strength
    turn = float(rng.choice([-1, 1])) * float(rng.uniform(0.03, 0.07)) * strength
    return loose, (distance * math.cos(direction), distance * math.sin(direction), turn)


def _tile_bed(canvas: ProductCanvas, surface: Surface, bare: Field) -> None:
    """The combed adhesive where a tile is missing."""
    if canvas.defect != "missing":
        return
    if canvas.image_size >= 128:
        comb = np.sin(canvas.u * 95 + 0.8 * lattice_noise(canvas.defect_rng, canvas.size, 5))
    else:
        comb = lattice_noise(canvas.defect_rng, canvas.size, 12)
    surface.paint(bare, as_image("77746f") * (1 + 0.07 * comb))
    surface.height += bare * (0.006 * comb - 0.012)
