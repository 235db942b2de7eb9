"""The objects among the products, each lying on a background of its own.

Every builder draws its product's normal variation from the canvas's randomness, plants the defects that need
the drawing itself (a missing tooth, a chipped edge, a misprint), and returns the finished surface."""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image, ImageFilter

from kizu.synthetic.lighting import Colour, Surface, as_image
from kizu.synthetic.noise import Field, lattice_noise
from kizu.synthetic.pen import Pen
from kizu.synthetic.products.canvas import ProductCanvas
from kizu.synthetic.shapes import bevel, box, coverage, smoothstep


def _place_body(
    canvas: ProductCanvas,
    ground: Surface,
    distance: Field,
    colour: Colour,
    gloss: float,
    metal: float,
    lift: float,
) -> Field:
    """Put a body (where `distance` is negative) `lift` above a background; returns its coverage."""
    cover = coverage(distance, canvas.edge)
    ground.paint(cover, colour, gloss=gloss, metal=metal)
    ground.solid = cover
    ground.lift = lift
    return cover


def bolt(canvas: ProductCanvas) -> Surface:
    """A zinc-plated hexagon bolt on its side, lying at any angle on a pale belt."""
    canvas.pose(180.0, shift=0.08, zoom=0.02)
    u, v = canvas.u, canvas.v
    ground = canvas.blank("aeb4b6", under="7d7f80", shine=22.0)
    ground.albedo *= 1 + 0.025 * canvas.fractal(canvas.fine(40), 2)
    pitch = 0.062 if canvas.image_size >= 128 else 0.125
    phase = np.float32(canvas.rng.random())
    turns = (u + np.float32(pitch / 2 / 0.34) * v) / np.float32(pitch) + phase
    ridge = np.abs(turns - np.floor(turns) - 0.5) * 2 - 0.5
    ridge *= smoothstep(u, -0.16, -0.06)
    if canvas.defect == "missing":
        middle, strength = np.float32(float(canvas.defect_rng.uniform(0.0, 0.45)) + 0.1), canvas.strength
        worn = smoothstep(np.abs(u - middle + 0.03 * v), 0.10 + 0.06 * strength, 0.04 + 0.05 * strength)
        ridge = ridge * (1 - worn) - worn * (0.10 + 0.35 * strength)
    radius = np.float32(0.152) + np.float32(0.42 * pitch) * ridge - 0.06 * smoothstep(u, 0.72, 0.80)
    shank = np.maximum(np.abs(v) - radius, np.abs(u - 0.14) - 0.66)
    head = box(u + 0.63, v, 0.12, 0.31, 0.03)
    flange = box(u + 0.49, v, 0.025, 0.35, 0.012)
    body = canvas.chip(np.minimum(np.minimum(shank, head), flange), where=-u - 0.66)
    tone = as_image("c9cac6") * (1 + 0.025 * canvas.fractal(5, 2))
    cover = _place_body(canvas, ground, body, tone, gloss=0.30, metal=0.85, lift=0.10)
    facets = np.where(np.abs(v) < 0.165, 0.30, 0.30 - 0.75 * (np.abs(v) - 0.165))
    facets = facets - 0.25 * smoothstep(np.abs(u + 0.63), 0.08, 0.13) * 0.12
    height = np.where(shank < head, np.sqrt(np.maximum(radius**2 - v * v, 0)), facets)
    height = height + coverage(flange, canvas.edge) * (0.31 - 0.8 * v * v - height)
    ground.height += cover * (height + 0.0006 * canvas.noise(9))
    canvas.fracture(ground, width=0.025, depth=0.008)
    return ground


@functools.lru_cache(maxsize=4)
def _cap_print(size: int) -> Image.Image:
    """The print of the bottle cap: two rings, a name and a mountain."""
    pen = Pen(size)
    for radius, width in ((0.53, 0.022), (0.47, 0.010)):
        angles = [k * math.pi / 60 for k in range(121)]
        pen.line([(radius * math.cos(a), radius * math.sin(a)) for a in angles], width, round_ends=True)
    pen.write("KIZU", (0.0, 0.10), 0.20, 0.045)
    mountain = [(-0.24, -0.10), (-0.08, -0.32), (0.02, -0.20), (0.10, -0.28), (0.24, -0.10)]
    pen.line(mountain, 0.04, round_ends=True)
    pen.line([(-0.2, 0.29), (0.2, 0.29)], 0.025, round_ends=True)
    return pen.image()


def cap(canvas: ProductCanvas) -> Surface:
    """A printed crown cap from above, at any turn, on a dark mat."""
    canvas.pose(180.0, shift=0.06, zoom=0.02)
    u, v = canvas.u, canvas.v
    ground = canvas.blank("3a3f45", under="c9c9c4", shine=45.0)
    ground.albedo *= 1 + 0.05 * canvas.fractal(canvas.fine(50), 2)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    flute = np.cos(angle * np.float32(21))
    body = canvas.chip(radius - np.float32(0.775) - 0.028 * flute)
    tone = as_image("b3262a") * (1 + np.float32(canvas.rng.normal(0, 0.03)) + 0.015 * canvas.fractal(5, 2))
    cover = _place_body(canvas, ground, body, tone, gloss=0.30, metal=0.12, lift=0.10)
    skirt = smoothstep(radius, 0.60, 0.80)
    height = 0.16 - 0.15 * skirt**1.4 + 0.022 * skirt * flute - 0.02 * smoothstep(radius, 0.55, 0.60)
    ground.height += cover * (height + 0.012 * (1 - radius**2))
    printed = _printed(canvas, _cap_print(canvas.size), wear=0.0)
    ground.paint(printed * cover, "f0ead8", gloss=0.2)
    canvas.fracture(ground, width=0.03)
    return ground


def _printed(canvas: ProductCanvas, decal: Image.Image, *, wear: float) -> Field:
    """Coverage of a print, slightly off register; a misprint is doubled, shifted or faded in a patch."""
    dx, dy = (float(v) for v in canvas.rng.normal(0.0, 0.005, 2))
    good = canvas.stamp(decal, shift=(dx, dy)) * (1 - np.float32(wear))
    if canvas.defect != "misprint":
        return good
    rng, strength = canvas.defect_rng, canvas.strength
    direction, fault = float(rng.uniform(0, 2 * math.pi)), int(rng.integers(3))
    distance = 0.02 + 0.06 * strength
    off = (dx + distance * math.cos(direction), dy + distance * math.sin(direction))
    if fault == 0:
        return np.maximum(good, (0.35 + 0.45 * np.float32(min(strength, 1))) * canvas.stamp(decal, shift=off))
    if fault == 1:
        return canvas.stamp(decal, shift=off, turn=float(rng.normal(0, 0.12)))
    rows, columns = np.nonzero(good > 0.5)
    pick = int(rng.integers(len(rows)))
    x, y = canvas.x[rows[pick], columns[pick]], canvas.y[rows[pick], columns[pick]]
    patch = np.hypot(canvas.x - x, canvas.y - y) - (0.08 + 0.16 * strength)
    patch = patch + 0.05 * lattice_noise(rng, canvas.size, 14)
    return good * (1 - smoothstep(patch, 0.03, -0.03))


@functools.lru_cache(maxsize=4)
def _capsule_print(size: int) -> Image.Image:
    pen = Pen(size)
    pen.write("K125", (-0.33, 0.0), 0.15, 0.030)
    return pen.image()


def capsule(canvas: ProductCanvas) -> Surface:
    """A two-coloured gelatine capsule with a printed code on a grey tray, roughly level."""
    canvas.pose(18.0, shift=0.08, zoom=0.02)
    u, v = canvas.u, canvas.v
    ground = canvas.blank("8e979c", under="efe9dc", shine=70.0)
    ground.albedo *= 1 + 0.03 * canvas.fractal(canvas.fine(45), 2)
    cap_side = smoothstep(u, 0.075, 0.06)
    radius = np.float32(0.262) + np.float32(0.014) * cap_side
    axis = np.maximum(np.abs(u) - np.float32(0.44), 0.0)
    across = np.sqrt(axis * axis + v * v)
    body = canvas.chip(across - radius)
    cover = _place_body(canvas, ground, body, "e9e1cb", gloss=0.55, metal=0.0, lift=0.12)
    ground.paint(cap_side * cover, as_image("2f6f8f") * (1 + np.float32(canvas.rng.normal(0, 0.03))))
    ground.paint(cover * smoothstep(across, 0.17, 0.28) * 0.25, "ffffff")
    ground.paint(cover * np.exp(-(((u - 0.072) / 0.012) ** 2)) * 0.45, "1d4152")
    ground.paint(_printed(canvas, _capsule_print(canvas.size), wear=0.05) * cover, "f4f4f0")
    dome = 0.92 * np.sqrt(np.maximum(radius**2 - across**2, 0.0))
    ground.height += cover * (dome + 0.0016 * canvas.noise(9))
    canvas.fracture(ground, depth=0.03, width=0.04)
    return ground


def gear(canvas: ProductCanvas) -> Surface:
    """A turned steel gear with bore, keyway and lightening holes, at any angle on black foam."""
    canvas.pose(180.0, shift=0.05, zoom=0.015)
    u, v = canvas.u, canvas.v
    ground = canvas.blank("2b2d2f", under="d9dde2", shine=24.0)
    ground.albedo *= 1 + 0.12 * canvas.fractal(canvas.fine(70), 2)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    tooth = angle * np.float32(18 / (2 * math.pi))
    index = np.floor(tooth + 0.5)
    flank = np.abs(tooth - index)
    reach = 0.74 + 0.105 * smoothstep(flank, 0.34, 0.17)
    if canvas.defect == "missing":
        first, lost = int(canvas.defect_rng.integers(18)), 1 + int(canvas.strength > 0.75)
        gone = ((index.astype(np.intp) - first) % 18) < lost
        root = np.float32(0.745) + np.float32(0.05 * max(1 - canvas.strength, 0.0))
        stub = root + 0.008 * lattice_noise(canvas.defect_rng, canvas.size, 40)
        reach = np.where(gone, np.minimum(reach, stub), reach)
    sixth = np.float32(math.pi / 3)
    folded = (angle + sixth / 2) % sixth - sixth / 2
    holes = np.hypot(radius * np.cos(folded) - np.float32(0.44), radius * np.sin(folded)) - np.float32(0.105)
    bore = np.minimum(radius - 0.17, box(u - 0.17, v, 0.055, 0.045))
    body = canvas.chip(np.maximum(np.maximum(radius - reach, -holes), -bore), where=radius - 0.6)
    turned = np.interp(radius, np.linspace(0, 1.5, 400), canvas.rng.standard_normal(400)).astype(np.float32)
    sheen = 1 + 0.16 * np.cos(2 * (angle + canvas.turn) + np.float32(canvas.rng.normal(0.8, 0.15)))
    tone = as_image("a9adb2") * (1 + 0.05 * turned) * sheen * (1 + 0.02 * canvas.fractal(6, 3))
    cover = _place_body(canvas, ground, body, tone, gloss=0.08, metal=0.6, lift=0.09)
    hub = 0.03 * smoothstep(radius, 0.29, 0.27) - 0.012 * smoothstep(np.abs(radius - 0.62), 0.03, 0.01)
    ground.height += cover * (bevel(body, 0.022, 0.035) + 0.10 + hub + 0.0008 * turned)
    canvas.fracture(ground, width=0.025, depth=0.008)
    return ground


@functools.lru_cache(maxsize=4)
def _biscuit_stamp(size: int) -> Image.Image:
    pen = Pen(size)
    pen.write("KIZU", (0.0, 0.0), 0.22, 0.060)
    return pen.image().filter(ImageFilter.GaussianBlur(size / 170))


def biscuit(canvas: ProductCanvas) -> Surface:
    """A butter biscuit on a blue belt: scalloped edge, embossed name, docking holes, browner outwards."""
    canvas.pose(25.0, shift=0.06, zoom=0.025)
    rng = canvas.rng
    u, v = canvas.u, canvas.v
    ground = canvas.blank("5b7892", under="e9cf9b", shine=20.0)
    ground.albedo *= 1 + 0.03 * canvas.fractal(canvas.fine(60), 2)
    ends = np.abs(u) - 0.70 > np.abs(v) - 0.54
    wave = -0.020 * np.abs(np.cos(np.where(ends, v, u) * np.float32(math.pi / 0.118)))
    outline = box(u, v, 0.70, 0.54, 0.04) + wave + 0.004 * canvas.noise(8)
    body = canvas.chip(outline)
    crumb, cloud = canvas.fractal(canvas.fine(50), 3), canvas.fractal(3, 3)
    brown = smoothstep(outline + 0.035 * cloud + np.float32(rng.normal(0, 0.012)), -0.22, 0.02)
    tone = as_image("dcb271") * (1 - brown) + as_image("a9692d") * brown
    tone = tone * (1 + 0.05 * crumb) * (1 + 0.03 * cloud)
    cover = _place_body(canvas, ground, body, tone, gloss=0.03, metal=0.0, lift=0.10)
    holes = np.full_like(u, 9.0)
    for row in (-0.36, -0.18, 0.18, 0.36):
        across = u - np.clip(np.round(u / np.float32(0.24)), -2, 2) * np.float32(0.24)
        holes = np.minimum(holes, np.hypot(across, v - np.float32(row)))
    pits, name = smoothstep(holes + 0.004 * crumb, 0.034, 0.016), canvas.stamp(_biscuit_stamp(canvas.size))
    ground.paint(pits * cover * 0.55, "7d4a1e")
    height = bevel(body, 0.10, 0.08) + 0.0022 * crumb + 0.007 * cloud - 0.035 * pits - 0.024 * name
    ground.height += cover * height
    canvas.fracture(ground, depth=0.035, width=0.05)
    return ground
