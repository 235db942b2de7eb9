"""The textures among the planted products: each fills the image and never shows the same place twice."""

from __future__ import annotations

import math

import numpy as np

from kizu.synthetic.planted_noise import Field, bevel, box, cells, inside, noise, smooth
from kizu.synthetic.planted_render import Scene, Surface, break_edge, colour, tint


def fabric(scene: Scene) -> Surface:
    """A plain weave of blue warp and pale weft; threads wander, differ in tone and are themselves spun of
    fibres."""
    rng = scene.rng
    scene.pose(4.0, shift=0.2, zoom=0.05)
    count = scene.fine(26) / 2
    u = (scene.u + 0.008 * scene.noise(5)) * np.float32(count) + np.float32(rng.random() * 8)
    v = (scene.v + 0.008 * scene.noise(5)) * np.float32(count) + np.float32(rng.random() * 8)
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu - np.float32(0.5), v - iv - np.float32(0.5)
    over = np.where((iu + iv) % 2 > 0, np.float32(1), np.float32(-1))
    cu, cv = np.cos(np.float32(math.pi) * fu), np.cos(np.float32(math.pi) * fv)
    warp, weft = cu * (0.62 + 0.38 * over * cv), cv * (0.62 - 0.38 * over * cu)
    top = smooth(warp - weft, -0.12, 0.12)
    tones = rng.normal(1.0, 0.07, (2, 97)).astype(np.float32)
    tone = top * tones[0][iu.astype(np.intp) % 97] + (1 - top) * tones[1][iv.astype(np.intp) % 97]
    fibres = top * scene.noise(scene.fine(40), scene.fine(180, pixels=1.5), turn=scene.turn)
    fibres += (1 - top) * scene.noise(scene.fine(180, pixels=1.5), scene.fine(40), turn=scene.turn)
    surface = scene.blank(colour("3f5f86"), under=colour("23262b"))
    surface.paint(1 - top, colour("9fb0bd"))
    surface.albedo *= tone * (1 + 0.14 * fibres) * (1 + 0.03 * scene.noise(2.5))
    surface.height += np.float32(0.30 / count) * np.maximum(warp, weft) + np.float32(0.022 / count) * fibres
    return surface


def metal(scene: Scene) -> Surface:
    """A brushed steel sheet: long fine streaks, a broad gleam across them and the slight waves of rolling."""
    scene.pose(2.0)
    streaks = scene.noise(scene.fine(150, pixels=1.4), 2.2, turn=scene.turn) * 0.55
    streaks += scene.noise(scene.fine(250, pixels=1), 7, turn=scene.turn) * 0.75
    streaks += scene.noise(scene.fine(34), 1.0, turn=scene.turn) * 0.22
    surface = scene.blank(colour("b9bdc2"), gloss=0.05, metal=0.62, under=colour("dfe3e8"), shine=18.0)
    gleam = np.exp(
        -(((scene.v - np.float32(scene.rng.normal(-0.15, 0.12)) + 0.04 * scene.noise(2)) / 0.55) ** 2)
    )
    surface.albedo *= (0.86 + 0.22 * gleam) * (1 + 0.085 * streaks)
    surface.height += 0.0011 * streaks + 0.004 * scene.noise(2.5, 1.5)
    return surface


def wood(scene: Scene) -> Surface:
    """A planed board: year rings cut lengthwise, dark late wood, pores, and a varnish that shows the light."""
    rng = scene.rng
    scene.pose(2.5)
    scene.grain = scene.turn
    warp = 0.05 * scene.noise(1.8, 0.8) + 0.008 * scene.noise(7, 2.0)
    bow = np.float32(rng.normal(0.0, 0.05)) * scene.u**2
    depth = scene.v + warp + bow
    pitch = np.interp(depth, np.linspace(-1.6, 1.6, 9), np.cumsum(rng.uniform(0.6, 1.6, 9)) - 4).astype(
        np.float32
    )
    t = pitch * np.float32(min(2.6, scene.size / 36)) + np.float32(rng.random() * 20 + 10)
    t += 0.05 * scene.noise(scene.fine(120, pixels=2), 4, turn=scene.turn)
    ring = t - np.floor(t)
    late = smooth(ring, 0.10, 0.95) ** 1.5 * smooth(ring, 1.0, 0.94)
    tones = rng.uniform(0.45, 1.0, 64).astype(np.float32)
    late *= tones[np.floor(t).astype(np.intp) % 64]
    fibre = scene.noise(scene.fine(200, pixels=1.3), 6, turn=scene.turn) + 0.5 * scene.noise(
        scene.fine(60), 2, turn=scene.turn
    )
    pores = smooth(scene.noise(scene.fine(240, pixels=1.1), 14, turn=scene.turn), 1.5, 2.4) * (
        0.3 + 0.7 * late
    )
    surface = scene.blank(colour("c2935f"), gloss=0.03, under=colour("e3c79c"), shine=14.0)
    surface.paint(late * 0.8, colour("7d4d2a"))
    surface.paint(pores * 0.75, colour("40261a"))
    surface.albedo *= (1 + 0.075 * fibre) * (1 + 0.04 * scene.noise(1.5))
    surface.height += 0.0010 * fibre - 0.003 * pores - 0.002 * late
    return surface


def leather(scene: Scene) -> Surface:
    """Pebbled leather: cushions of uneven size parted by creases, matt with a little shine."""
    count = scene.fine(24)
    first, second = cells(scene.rng, scene.side, count)
    crease = smooth(second - first, 0.32, 0.02)
    cushion = np.sqrt(np.clip(second - first, 0, 0.8))
    pits = scene.fractal(scene.fine(48), 2)
    surface = scene.blank(colour("7a4328"), gloss=0.075, under=colour("c9a27e"), shine=16.0)
    surface.albedo *= (1 + 0.05 * scene.fractal(3, 3)) * (1 - 0.32 * crease) * (1 + 0.025 * pits)
    surface.height += (
        np.float32(0.34 / count) * cushion + np.float32(0.018 / count) * pits + 0.006 * scene.noise(3)
    )
    return surface


def concrete(scene: Scene) -> Surface:
    """Fair-faced concrete: cloudy grey, sand grains, and the small pores that air leaves in any good slab."""
    cloud, sand = scene.fractal(2.5, 4), scene.fractal(scene.fine(70), 2)
    near, _ = cells(scene.rng, scene.side, scene.fine(26))
    size = 0.5 + 0.5 * scene.noise(scene.fine(26))
    pores = smooth(near - 0.15 * np.clip(size - 0.35, 0, 1.6), 0.04, -0.04)
    chips = smooth(scene.noise(scene.fine(55)), 1.5, 1.9)
    surface = scene.blank(colour("a3a19b"), under=colour("8b857c"))
    surface.albedo *= (1 + 0.07 * cloud) * (1 + 0.075 * sand)
    surface.paint(chips * 0.35, colour("d2cfc6"))
    surface.paint(pores * 0.45, colour("57544f"))
    surface.height += 0.0017 * sand + 0.003 * cloud - 0.016 * pores
    return surface


def tiles(scene: Scene) -> Surface:
    """Glazed wall tiles: cushion edges, grey grout; each tile has its own tone and stands a little askew."""
    rng = scene.rng
    scene.pose(1.5, shift=0.25, zoom=0.03)
    pitch = 0.62
    number = rng.integers(0, 50, 2)
    iu, iv = np.floor(scene.u / pitch + 0.5), np.floor(scene.v / pitch + 0.5)
    key = (iu.astype(np.intp) * 7 + iv.astype(np.intp) * 13 + int(number.sum())) % 61
    tones = rng.normal(0.0, 1.0, (4, 61)).astype(np.float32)[:, key]
    fu, fv = scene.u - iu * np.float32(pitch), scene.v - iv * np.float32(pitch)
    loose, slip = _loose_tile(scene, iu, iv)
    fu, fv = fu - slip[0] * loose, fv - slip[1] * loose
    fu, fv = fu + slip[2] * loose * fv, fv - slip[2] * loose * fu
    body = scene.cut(box(fu, fv, pitch / 2 - 0.026, pitch / 2 - 0.026, 0.03) - 0.002 * scene.noise(12))
    glazed = inside(body, scene.pixel) * (1 - loose * (scene.flaw == "missing"))
    sand = scene.fractal(scene.fine(70), 2)
    surface = scene.blank(colour("8f8d88"), under=colour("c98f6b"))
    surface.albedo *= 1 + 0.10 * sand
    glaze = colour("d9dfdb")[:, None, None] * (1 + 0.022 * tones[0] + 0.012 * scene.fractal(4, 3))
    surface.paint(glazed, glaze, gloss=0.16)
    surface.shine = 60.0
    tilt = 0.010 * (tones[1] * fu + tones[2] * fv) + 0.0016 * scene.noise(6)
    surface.height += glazed * (bevel(body, 0.035, 0.030) + tilt) + (1 - glazed) * 0.003 * sand
    surface.solid = glazed.copy()
    _tile_bed(scene, surface, loose * (1 - glazed) * inside(body + 0.01, scene.pixel))
    break_edge(scene, surface, width=0.04, depth=0.012)
    return surface


def _loose_tile(scene: Scene, iu: Field, iv: Field) -> tuple[Field, tuple[float, float, float]]:
    """Where the loose tile lies (1 or 0), and how far it slipped and turned; all 0 when none is loose."""
    if scene.flaw not in ("missing", "misplaced"):
        return np.zeros_like(iu), (0.0, 0.0, 0.0)
    rng = scene.flaw_rng
    middle = scene.side // 2 + rng.integers(-scene.side // 5, scene.side // 5, 2)
    loose = ((iu == iu[tuple(middle)]) & (iv == iv[tuple(middle)])).astype(np.float32)
    if scene.flaw == "missing":
        return loose, (0.0, 0.0, 0.0)
    way, far = float(rng.uniform(0, 2 * math.pi)), 0.012 + 0.014 * scene.strength
    slipped = (
        far * math.cos(way),
        far * math.sin(way),
        float(rng.choice([-1, 1])) * float(rng.uniform(0.03, 0.07)) * scene.strength,
    )
    return loose, slipped


def _tile_bed(scene: Scene, surface: Surface, bare: Field) -> None:
    """The combed adhesive where a tile has gone."""
    if scene.flaw != "missing":
        return
    comb = (
        np.sin(scene.u * 95 + 0.8 * noise(scene.flaw_rng, scene.side, 5))
        if scene.size >= 128
        else noise(scene.flaw_rng, scene.side, 12)
    )
    surface.paint(bare, tint(colour("77746f")) * (1 + 0.07 * comb))
    surface.height += bare * (0.006 * comb - 0.012)
