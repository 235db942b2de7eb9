"""The objects among the planted products, and the table of all products with the defects that befall each."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from kizu.synthetic.planted_circuit import circuit
from kizu.synthetic.planted_noise import Field, bevel, box, decal, inside, line, noise, smooth, write
from kizu.synthetic.planted_render import Scene, Surface, break_edge, colour, tint
from kizu.synthetic.planted_textures import concrete, fabric, leather, metal, tiles, wood


@dataclass(frozen=True)
class Product:
    """How a product is drawn, whether it is a "texture" or an "object", and its defects with the colour of
    each."""

    build: Callable[[Scene], Surface]
    kind: str
    defects: dict[str, str]


def _body(
    scene: Scene, ground: Surface, distance: Field, paint: Field, *, gloss: float, metal: float, lift: float
) -> Field:
    """Put a body (inside `distance`) on a background; returns its coverage."""
    cover = inside(distance, scene.pixel)
    ground.paint(cover, paint, gloss=gloss, metal=metal)
    ground.solid = cover
    ground.lift = lift
    return cover


def bolt(scene: Scene) -> Surface:
    """A zinc-plated hexagon bolt on its side, lying at any angle on a pale belt."""
    scene.pose(180.0, shift=0.08, zoom=0.02)
    u, v = scene.u, scene.v
    ground = scene.blank(colour("aeb4b6"), under=colour("7d7f80"), shine=22.0)
    ground.albedo *= 1 + 0.025 * scene.fractal(scene.fine(40), 2)
    pitch = 0.062 if scene.size >= 128 else 0.125
    phase = np.float32(scene.rng.random())
    turns = (u + np.float32(pitch / 2 / 0.34) * v) / np.float32(pitch) + phase
    ridge = np.abs(turns - np.floor(turns) - 0.5) * 2 - 0.5
    ridge *= smooth(u, -0.16, -0.06)
    if scene.flaw == "missing":
        start = float(scene.flaw_rng.uniform(0.0, 0.45))
        worn = smooth(
            np.abs(u - np.float32(start + 0.1) + 0.03 * v),
            0.10 + 0.06 * scene.strength,
            0.04 + 0.05 * scene.strength,
        )
        ridge = ridge * (1 - worn) - worn * (0.10 + 0.35 * scene.strength)
    radius = np.float32(0.152) + np.float32(0.42 * pitch) * ridge - 0.06 * smooth(u, 0.72, 0.80)
    shank = np.maximum(np.abs(v) - radius, np.abs(u - 0.14) - 0.66)
    head = box(u + 0.63, v, 0.12, 0.31, 0.03)
    flange = box(u + 0.49, v, 0.025, 0.35, 0.012)
    body = scene.cut(np.minimum(np.minimum(shank, head), flange), where=-u - 0.66)
    tone = tint(colour("c9cac6")) * (1 + 0.025 * scene.fractal(5, 2))
    cover = _body(scene, ground, body, tone, gloss=0.30, metal=0.85, lift=0.10)
    facets = (
        np.where(np.abs(v) < 0.165, 0.30, 0.30 - 0.75 * (np.abs(v) - 0.165))
        - 0.25 * smooth(np.abs(u + 0.63), 0.08, 0.13) * 0.12
    )
    height = np.where(shank < head, np.sqrt(np.maximum(radius**2 - v * v, 0)), facets)
    height = height + inside(flange, scene.pixel) * (0.31 - 0.8 * v * v - height)
    ground.height += cover * (height + 0.0006 * scene.noise(9))
    break_edge(scene, ground, width=0.025, depth=0.008)
    return ground


@functools.lru_cache(maxsize=4)
def _cap_print(side: int) -> Image.Image:
    """The print of the bottle cap: two rings, a name and a mountain."""

    def draw(pen: ImageDraw.ImageDraw) -> None:
        for radius, width in ((0.53, 0.022), (0.47, 0.010)):
            circle = [
                (radius * math.cos(k * math.pi / 60), radius * math.sin(k * math.pi / 60)) for k in range(121)
            ]
            line(pen, circle, width)
        write(pen, "KIZU", (0.0, 0.10), 0.20, 0.045)
        line(pen, [(-0.24, -0.10), (-0.08, -0.32), (0.02, -0.20), (0.10, -0.28), (0.24, -0.10)], 0.04)
        line(pen, [(-0.2, 0.29), (0.2, 0.29)], 0.025)

    return decal(side, draw)


def cap(scene: Scene) -> Surface:
    """A printed crown cap from above, at any turn, on a dark mat."""
    scene.pose(180.0, shift=0.06, zoom=0.02)
    u, v = scene.u, scene.v
    ground = scene.blank(colour("3a3f45"), under=colour("c9c9c4"), shine=45.0)
    ground.albedo *= 1 + 0.05 * scene.fractal(scene.fine(50), 2)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    flute = np.cos(angle * np.float32(21))
    body = scene.cut(radius - np.float32(0.775) - 0.028 * flute)
    tone = tint(colour("b3262a")) * (1 + np.float32(scene.rng.normal(0, 0.03)) + 0.015 * scene.fractal(5, 2))
    cover = _body(scene, ground, body, tone, gloss=0.30, metal=0.12, lift=0.10)
    skirt = smooth(radius, 0.60, 0.80)
    ground.height += cover * (
        0.16
        - 0.15 * skirt**1.4
        + 0.022 * skirt * flute
        - 0.02 * smooth(radius, 0.55, 0.60)
        + 0.012 * (1 - radius**2)
    )
    printed = _printed(scene, _cap_print(scene.side), wear=0.0)
    ground.paint(printed * cover, colour("f0ead8"), gloss=0.2)
    break_edge(scene, ground, width=0.03)
    return ground


def _printed(scene: Scene, canvas: Image.Image, *, wear: float) -> Field:
    """Coverage of a print, within the register of a good one, or misprinted: doubled, off register, faded in
    a patch or cut off."""
    slack = scene.rng.normal(0.0, 0.005, 2)
    shift = (float(slack[0]), float(slack[1]))
    good = scene.stamp(canvas, shift=shift) * (1 - np.float32(wear))
    if scene.flaw != "misprint":
        return good
    rng, strength = scene.flaw_rng, scene.strength
    way, fault = float(rng.uniform(0, 2 * math.pi)), int(rng.integers(3))
    far = 0.02 + 0.06 * strength
    off = (shift[0] + far * math.cos(way), shift[1] + far * math.sin(way))
    if fault == 0:
        return np.maximum(good, (0.35 + 0.45 * np.float32(min(strength, 1))) * scene.stamp(canvas, shift=off))
    if fault == 1:
        return scene.stamp(canvas, shift=off, turn=float(rng.normal(0, 0.12)))
    inked = np.nonzero(good > 0.5)
    pick = int(rng.integers(len(inked[0])))
    dx, dy = (
        scene.x - scene.x[inked[0][pick], inked[1][pick]],
        scene.y - scene.y[inked[0][pick], inked[1][pick]],
    )
    patch = np.hypot(dx, dy) - (0.08 + 0.16 * strength) + 0.05 * noise(rng, scene.side, 14)
    return good * (1 - smooth(patch, 0.03, -0.03))


@functools.lru_cache(maxsize=4)
def _capsule_print(side: int) -> Image.Image:
    return decal(side, lambda pen: write(pen, "K125", (-0.33, 0.0), 0.15, 0.030))


def capsule(scene: Scene) -> Surface:
    """A two-coloured gelatine capsule with a printed code on a grey tray, roughly level."""
    scene.pose(18.0, shift=0.08, zoom=0.02)
    u, v = scene.u, scene.v
    ground = scene.blank(colour("8e979c"), under=colour("efe9dc"), shine=70.0)
    ground.albedo *= 1 + 0.03 * scene.fractal(scene.fine(45), 2)
    cap_side = smooth(u, 0.075, 0.06)
    radius = np.float32(0.262) + np.float32(0.014) * cap_side
    axis = np.maximum(np.abs(u) - np.float32(0.44), 0.0)
    across = np.sqrt(axis * axis + v * v)
    body = scene.cut(across - radius)
    cover = _body(scene, ground, body, colour("e9e1cb"), gloss=0.55, metal=0.0, lift=0.12)
    ground.paint(cap_side * cover, tint(colour("2f6f8f")) * (1 + np.float32(scene.rng.normal(0, 0.03))))
    ground.paint(cover * smooth(across, 0.17, 0.28) * 0.25, colour("ffffff"))
    ground.paint(cover * np.exp(-(((u - 0.072) / 0.012) ** 2)) * 0.45, colour("1d4152"))
    ground.paint(_printed(scene, _capsule_print(scene.side), wear=0.05) * cover, colour("f4f4f0"))
    ground.height += cover * (
        0.92 * np.sqrt(np.maximum(radius**2 - across**2, 0.0)) + 0.0016 * scene.noise(9)
    )
    break_edge(scene, ground, depth=0.03, width=0.04)
    return ground


def gear(scene: Scene) -> Surface:
    """A turned steel gear with bore, keyway and lightening holes, at any angle on black foam."""
    scene.pose(180.0, shift=0.05, zoom=0.015)
    u, v = scene.u, scene.v
    ground = scene.blank(colour("2b2d2f"), under=colour("d9dde2"), shine=24.0)
    ground.albedo *= 1 + 0.12 * scene.fractal(scene.fine(70), 2)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    tooth = angle * np.float32(18 / (2 * math.pi))
    index = np.floor(tooth + 0.5)
    flank = np.abs(tooth - index)
    reach = 0.74 + 0.105 * smooth(flank, 0.34 - 0.0, 0.17)
    if scene.flaw == "missing":
        first, lost = int(scene.flaw_rng.integers(18)), 1 + int(scene.strength > 0.75)
        gone = ((index.astype(np.intp) - first) % 18) < lost
        stub = (
            np.float32(0.745)
            + np.float32(0.05 * max(1 - scene.strength, 0.0))
            + 0.008 * noise(scene.flaw_rng, scene.side, 40)
        )
        reach = np.where(gone, np.minimum(reach, stub), reach)
    sixth = np.float32(math.pi / 3)
    folded = (angle + sixth / 2) % sixth - sixth / 2
    holes = np.hypot(radius * np.cos(folded) - np.float32(0.44), radius * np.sin(folded)) - np.float32(0.105)
    bore = np.minimum(radius - 0.17, box(u - 0.17, v, 0.055, 0.045))
    body = scene.cut(np.maximum(np.maximum(radius - reach, -holes), -bore), where=radius - 0.6)
    turned = np.interp(radius, np.linspace(0, 1.5, 400), scene.rng.standard_normal(400)).astype(np.float32)
    sheen = 1 + 0.16 * np.cos(2 * (angle + scene.turn) + np.float32(scene.rng.normal(0.8, 0.15)))
    tone = tint(colour("a9adb2")) * (1 + 0.05 * turned) * sheen * (1 + 0.02 * scene.fractal(6, 3))
    cover = _body(scene, ground, body, tone, gloss=0.08, metal=0.6, lift=0.09)
    hub = 0.03 * smooth(radius, 0.29, 0.27) - 0.012 * smooth(np.abs(radius - 0.62), 0.03, 0.01)
    ground.height += cover * (bevel(body, 0.022, 0.035) + 0.10 + hub + 0.0008 * turned)
    break_edge(scene, ground, width=0.025, depth=0.008)
    return ground


@functools.lru_cache(maxsize=4)
def _biscuit_stamp(side: int) -> Image.Image:
    return decal(side, lambda pen: write(pen, "KIZU", (0.0, 0.0), 0.22, 0.060)).filter(
        ImageFilter.GaussianBlur(side / 170)
    )


def biscuit(scene: Scene) -> Surface:
    """A butter biscuit: scalloped edge, embossed name, docking holes, baked browner outwards; on a blue belt."""
    scene.pose(25.0, shift=0.06, zoom=0.025)
    rng = scene.rng
    u, v = scene.u, scene.v
    ground = scene.blank(colour("5b7892"), under=colour("e9cf9b"), shine=20.0)
    ground.albedo *= 1 + 0.03 * scene.fractal(scene.fine(60), 2)
    ends = np.abs(u) - 0.70 > np.abs(v) - 0.54
    wave = -0.020 * np.abs(np.cos(np.where(ends, v, u) * np.float32(math.pi / 0.118)))
    outline = box(u, v, 0.70, 0.54, 0.04) + wave + 0.004 * scene.noise(8)
    body = scene.cut(outline)
    crumb, cloud = scene.fractal(scene.fine(50), 3), scene.fractal(3, 3)
    brown = smooth(outline + 0.035 * cloud + np.float32(rng.normal(0, 0.012)), -0.22, 0.02)
    tone = tint(colour("dcb271")) * (1 - brown) + tint(colour("a9692d")) * brown
    cover = _body(
        scene, ground, body, tone * (1 + 0.05 * crumb) * (1 + 0.03 * cloud), gloss=0.03, metal=0.0, lift=0.10
    )
    holes = np.full_like(u, 9.0)
    for row in (-0.36, -0.18, 0.18, 0.36):
        across = u - np.clip(np.round(u / np.float32(0.24)), -2, 2) * np.float32(0.24)
        holes = np.minimum(holes, np.hypot(across, v - np.float32(row)))
    pits, name = smooth(holes + 0.004 * crumb, 0.034, 0.016), scene.stamp(_biscuit_stamp(scene.side))
    ground.paint(pits * cover * 0.55, colour("7d4a1e"))
    ground.height += cover * (
        bevel(body, 0.10, 0.08) + 0.0022 * crumb + 0.007 * cloud - 0.035 * pits - 0.024 * name
    )
    break_edge(scene, ground, depth=0.035, width=0.05)
    return ground


PRODUCTS: dict[str, Product] = {
    "biscuit": Product(
        biscuit,
        "object",
        {"chip": "", "crack": "", "discolour": "4b2a14", "fibre": "2a211c", "particle": "3d6f9e"},
    ),
    "bolt": Product(
        bolt, "object", {"chip": "", "dent": "", "missing": "", "scratch": "4b4d4e", "stain": "8a4a20"}
    ),
    "cap": Product(
        cap, "object", {"chip": "", "dent": "", "misprint": "", "scratch": "", "smudge": "5d5552"}
    ),
    "capsule": Product(
        capsule,
        "object",
        {"chip": "", "crack": "", "dent": "", "discolour": "b08a3c", "misprint": "", "particle": "3a332c"},
    ),
    "circuit": Product(
        circuit,
        "object",
        {
            "discolour": "4a3a1c",
            "fibre": "d9d4c8",
            "misplaced": "",
            "missing": "",
            "particle": "d5d6d6",
            "scratch": "",
        },
    ),
    "concrete": Product(
        concrete, "texture", {"crack": "", "hole": "", "particle": "2f2b27", "stain": "4f4638"}
    ),
    "fabric": Product(
        fabric,
        "texture",
        {"discolour": "8a7f5a", "fibre": "c4552d", "hole": "", "snag": "b9c6cf", "stain": "3a2c20"},
    ),
    "gear": Product(
        gear, "object", {"chip": "", "dent": "", "missing": "", "scratch": "55585c", "stain": "8a4a20"}
    ),
    "leather": Product(
        leather, "texture", {"dent": "", "discolour": "3c2a22", "hole": "", "scratch": "", "stain": "d8ceb4"}
    ),
    "metal": Product(
        metal, "texture", {"dent": "", "fibre": "35302c", "scratch": "63666a", "stain": "7d4320"}
    ),
    "tiles": Product(
        tiles, "texture", {"chip": "", "crack": "", "misplaced": "", "missing": "", "stain": "9a7a3a"}
    ),
    "wood": Product(wood, "texture", {"crack": "", "hole": "", "scratch": "", "stain": "2e2018"}),
}
"""Every product by name, with its defects; a defect's value is its colour as rrggbb, "" for the colour
beneath the skin."""
