"""One object on a background: outlines and profiles of the class, lit, with a shadow.

See `textures` for c, k and px. u, v are coordinates about the object, in units of its radius; d is the signed
distance to its outline in the same units."""

from __future__ import annotations

import math

import numpy as np

from kizu.synthetic.noise import Field, lookup, periodic_noise
from kizu.synthetic.pen import Pen
from kizu.synthetic.scenes.canvas import SceneCanvas
from kizu.synthetic.scenes.compositing import place_object, surface_finish
from kizu.synthetic.scenes.parameters import ClassParameters
from kizu.synthetic.shapes import (
    bezier,
    box,
    coverage,
    moved,
    polar,
    regular_polygon,
    sine_wave,
    triangle_wave,
)


def polygon(c: SceneCanvas, k: ClassParameters) -> Field:
    """A regular polygon, whole, with a hole, or as a frame."""
    u, v, px = c.pose_object(0.7)
    sides = k.integer(0, 3, 8)
    radius, turn = polar(u, v)
    d = regular_polygon(radius, turn, sides)
    hole = k.choice(1, (0.0, 0.0, 0.35, 0.55))
    if hole:
        d = np.maximum(d, hole * math.cos(math.pi / sides) - radius)
    return place_object(c, d, px, surface_finish(c, u), bevel=k.between(2, 0.06, 0.3))


def star(c: SceneCanvas, k: ClassParameters) -> Field:
    """A star of n points and one depth."""
    u, v, px = c.pose_object(0.78)
    radius, turn = polar(u, v)
    inner = k.between(1, 0.3, 0.75)
    d = radius - (inner + (1 - inner) * triangle_wave(turn * k.integer(0, 4, 11)))
    return place_object(c, d, px, surface_finish(c, u), bevel=k.between(2, 0.08, 0.35))


def gear(c: SceneCanvas, k: ClassParameters) -> Field:
    """A wheel of n teeth with a bore, and spokes or a hub."""
    u, v, px = c.pose_object(0.78)
    radius, turn = polar(u, v)
    teeth = k.integer(0, 8, 22)
    tooth = np.clip((triangle_wave(turn * teeth) - 0.5) * k.between(1, 2.0, 5.0), -0.5, 0.5)
    d = np.maximum(radius - 0.88 - k.between(2, 0.1, 0.24) * tooth, k.between(3, 0.12, 0.28) - radius)
    shade = surface_finish(c, u)
    if k.draws[4] > 0.4:
        spokes = k.integer(5, 3, 6)
        between_spokes = 0.13 - triangle_wave(turn * spokes) * (radius * 2.2 / spokes)
        d = np.maximum(d, -np.maximum(np.abs(radius - 0.52) - 0.17, between_spokes))
    return place_object(c, d, px, shade, bevel=0.08)


def washer(c: SceneCanvas, k: ClassParameters) -> Field:
    """A ring or a tube's mouth: one ratio of radii, flat, round or stepped."""
    u, v, px = c.pose_object(0.75)
    radius = np.hypot(u, v)
    inner = k.between(0, 0.2, 0.8)
    middle, half = 0.5 * (1 + inner), 0.5 * (1 - inner)
    d = np.abs(radius - middle) - half
    across = np.clip((radius - middle) / half, -1, 1)
    profiles = np.zeros_like(across), np.sqrt(1 - across * across), coverage(np.abs(across) - 0.5, 0.1)
    body = surface_finish(c, u) * c.relief(profiles[k.integer(1, 0, 2)] * (0.3 * half / px))
    return place_object(c, d, px, body, bevel=0.06)


def nut(c: SceneCanvas, k: ClassParameters) -> Field:
    """A bolt head or nut: a polygon chamfered by a circle, and a socket of another shape."""
    u, v, px = c.pose_object(0.72)
    radius, turn = polar(u, v)
    sides = k.choice(0, (6, 4, 12, 8))
    d = np.maximum(regular_polygon(radius, turn, sides) + 0.02 * math.cos(math.pi / sides), radius - 1.0)
    au, av = np.abs(u), np.abs(v)
    size = k.between(1, 0.3, 0.5)
    six = np.maximum(au, au * 0.5 + av * 0.866)
    upright = np.maximum(au - size * 0.28, av - size * 1.1)
    level = np.maximum(av - size * 0.28, au - size * 1.1)
    slot = np.maximum(au - size * 0.22, av - size * 1.4)
    torx = size * 0.75 + 0.1 * triangle_wave(turn * 6) - radius
    sockets = radius - size, six - size, np.minimum(upright, level), slot, torx
    socket = sockets[k.integer(2, 0, 4)]
    shade = c.relief(np.clip(socket, -0.1, 0.1) * (0.7 / px)) * (1 - 0.6 * coverage(socket, 2 * px))
    shade = shade * (1 + 0.25 * coverage(np.abs(radius - 0.82) - 0.03, 3 * px))
    return place_object(c, d, px, surface_finish(c, u) * shade, bevel=0.12)


def flower(c: SceneCanvas, k: ClassParameters) -> Field:
    """A rounded outline of the class's: a few harmonics of the angle."""
    u, v, px = c.pose_object(0.7)
    radius, turn = polar(u, v)
    angle = turn * (2 * math.pi)
    outline = np.full_like(angle, 0.75)
    for n in range(2, 7):
        outline += float(k.table[n] * 0.55 / n**0.7) * np.cos(n * angle + float(k.table[n + 8] * 6.28))
    return place_object(c, radius - outline, px, surface_finish(c, u), bevel=k.between(0, 0.15, 0.7))


def screw(c: SceneCanvas, k: ClassParameters) -> Field:
    """A screw from its side: head, shank, thread of one pitch, point."""
    u, v, px = c.pose_object(0.95)
    pitch, shank, head = k.between(0, 7, 15), k.between(1, 0.12, 0.24), k.between(2, 1.5, 2.4)
    start = k.between(3, -0.6, 0.1)
    thread = np.where(u > start, triangle_wave(u * pitch + np.sign(v) * 0.25), 0.5)
    width = shank * (0.8 + 0.4 * thread)
    if k.draws[4] > 0.4:
        width = width * np.clip((1 - u) / k.between(5, 0.15, 0.8), 0, 1)
    flat, cone, dome = 1.0, np.clip((-0.62 - u) / 0.25, 0, 1), np.sqrt(np.clip((u + 1.0) / 0.3, 0, 1))
    width = np.where(u < -0.7, shank * head * k.choice(6, (flat, cone, dome)), width)
    d = np.maximum(np.abs(v) - width, np.abs(u) - 0.95)
    across = np.clip(v / (width + 1e-3), -1, 1)
    shade = (0.35 + 0.75 * np.sqrt(1 - 0.9 * across * across)) * (1 + 0.2 * across)
    slope = np.where(u > start, 0.7 + 0.5 * triangle_wave(u * pitch + 0.5 * across), 1.0)
    return place_object(c, d, px, shade * slope * c.grain(0.03))


def turned_part(c: SceneCanvas, k: ClassParameters) -> Field:
    """A body of revolution from its side: bottle, pawn, valve, with the class's profile and bands."""
    u, v, px = c.pose_object(0.92)
    steps = k.table[:9] * 0.45 + 0.12
    if k.draws[0] > 0.5:
        width = np.interp(u, np.linspace(-0.9, 0.9, 9), steps).astype(np.float32)
    else:
        width = steps.take(np.clip(((u + 0.9) * (9 / 1.8)).astype(np.int32), 0, 8))
    d = np.maximum(np.abs(v) - width, np.abs(u) - 0.9)
    across = np.clip(v / width, -1, 1)
    gleam = np.exp(-(((across - c.uniform(-0.5, 0.5)) / 0.15) ** 2))
    shade = 0.4 + 0.6 * np.sqrt(1 - 0.95 * across * across) + 0.35 * gleam
    bands = lookup((k.table[10:26] > 0.7).astype(np.float32), u * 0.5 + 0.5)
    return place_object(c, d, px, shade * (1 - 0.45 * bands))


def spring(c: SceneCanvas, k: ClassParameters) -> Field:
    """A coil from its side."""
    u, v, px = c.pose_object(0.95)
    number, tall, wire = k.integer(0, 6, 13), k.between(1, 0.2, 0.42), k.between(2, 0.03, 0.06)
    t = (u * 0.5 + 0.5) * number
    best = np.full(u.shape, 9.0, np.float32)
    shade = np.zeros_like(best)
    for lean, tone in ((-0.28, 0.4), (0.28, 1.0)):
        middle = (np.floor(t - lean * v / tall) + 0.5 + lean * v / tall) * (2 / number) - 1
        d = np.maximum(np.abs(u - middle) * 0.9 - wire, np.abs(v) - tall)
        lit = tone * (0.45 + 0.7 * np.sqrt(np.clip(1 - ((u - middle) / wire) ** 2, 0, 1)))
        shade = np.where(d < px, lit, shade)
        best = np.minimum(best, d)
    return place_object(c, np.maximum(best, np.abs(u) - 0.95), px, shade)


def package(c: SceneCanvas, k: ClassParameters) -> Field:
    """A chip with n legs on two or four sides, a dot at leg one, and a line of print."""
    u, v, px = c.pose_object(0.62)
    wide, tall = k.between(0, 0.55, 1.0), k.between(1, 0.4, 0.95)
    pins = k.integer(2, 3, 8)
    au, av = np.abs(u), np.abs(v)
    body = np.maximum(au - wide, av - tall)
    rows = np.maximum(av - tall - 0.22, au - wide * 0.95)
    legs = np.maximum(rows, 0.5 - triangle_wave(u * (pins * 0.5 / wide)))
    if k.draws[3] > 0.5:
        columns = np.maximum(au - wide - 0.22, av - tall * 0.95)
        legs = np.minimum(legs, np.maximum(columns, 0.5 - triangle_wave(v * (pins * 0.5 / tall))))
    dot = np.hypot(u + wide - 0.2, v - tall + 0.2) - 0.08
    text = np.maximum(np.abs(v + 0.05) - 0.09, au - 0.6 * wide)
    marks = np.minimum(np.maximum(text, 0.5 - lookup(k.table, u * 0.37)), dot)
    case = coverage(body, 1.2 * px)
    shade = (1 - case) * 0.85 + case * (0.17 + 0.45 * coverage(marks, 2 * px) + 0.05 * c.smooth(8))
    return place_object(c, np.minimum(body, legs), px, c.tone(0.15, 0.85) * shade, bevel=0.07)


def plate(c: SceneCanvas, k: ClassParameters) -> Field:
    """A flat part with holes where the drawing of its class has them."""
    u, v, px = c.pose_object(0.8)
    tall = k.between(0, 0.35, 0.95)
    corner = k.between(1, 0.0, 0.4) * tall
    d = box(u, v, 1.0, tall, corner)
    for x, y, r in (k.table[:24].reshape(8, 3) * 2 - 1)[: k.integer(2, 2, 6)].tolist():
        d = np.maximum(d, (0.12 + 0.07 * r) - np.hypot(u - x * 0.78, v - y * tall * 0.72))
    return place_object(c, d, px, surface_finish(c, u), bevel=0.07)


def capsule(c: SceneCanvas, k: ClassParameters) -> Field:
    """A pill or tablet: round to long, one colour or two, plain, scored or printed."""
    u, v, px = c.pose_object(0.8)
    long = k.between(0, 0.0, 0.6)
    radius = (1 - long) * 0.9
    d = np.hypot(np.maximum(np.abs(u) - long, 0), v) - radius
    if k.draws[1] < 0.6:
        dome = np.sqrt(np.clip(1 - ((d + radius) / radius) ** 2, 0, 1))
    else:
        dome = np.clip(d * (-4 / radius), 0, 1)
    halves = coverage(u, 2 * px) if k.draws[2] > 0.5 else np.zeros_like(u)
    score, cross = np.abs(u) - 0.04, np.minimum(np.abs(u), np.abs(v)) - 0.04
    ring = np.abs(np.hypot(u, v) - 0.4 * radius) - 0.05
    mark = coverage((score, cross, ring)[k.integer(3, 0, 2)], 2.5 * px)
    image = c.mix(halves, c.palette(2) * 0.6 + 0.35) * (1 - 0.35 * mark)
    return place_object(c, d, px, image * c.relief(dome * (0.35 / px)) * (0.75 + 0.3 * dome))


def ball(c: SceneCanvas, k: ClassParameters) -> Field:
    """A sphere with a highlight and the class's bands, meridians or spots."""
    u, v, px = c.pose_object(0.78)
    squared = u * u + v * v
    w = np.sqrt(np.clip(1 - squared, 0, 1))
    lean = k.between(0, 0.3, 1.2)
    pole, front = v * math.cos(lean) + w * math.sin(lean), w * math.cos(lean) - v * math.sin(lean)
    n = k.integer(1, 2, 6)
    marks = (
        sine_wave(pole * n),
        sine_wave(np.arctan2(u, front) * (n / math.pi)),
        sine_wave(pole * n) * sine_wave(u * n) * 2 - 0.2,
        0.5 + 0.25 * c.cloud(1.5),
    )
    image = c.mix(coverage(0.5 - marks[k.integer(2, 0, 3)], 0.3))
    lx, ly = math.cos(c.light) * 0.6, math.sin(c.light) * 0.6
    lit = np.clip(w * 0.75 - u * lx - v * ly, 0, 1)
    return place_object(c, np.sqrt(squared) - 1, px, image * (0.25 + 0.85 * lit) + 0.8 * lit**20)


def glyph(c: SceneCanvas, k: ClassParameters) -> Field:
    """A letter that no alphabet has: the class's strokes, by pens of all widths."""
    pen = Pen(c.size)
    turn, scale = c.uniform(-0.6, 0.6), c.uniform(0.5, 0.8)
    dx, dy = c.uniform(-0.2, 0.2), c.uniform(-0.2, 0.2)
    width, jitter = c.uniform(0.08, 0.24), 0.05
    nodes = (k.table.reshape(32, 2) * (2.99, 3.99)).astype(int).tolist()
    for stroke in range(k.integer(0, 3, 5)):
        points = [
            (a - 1 + c.uniform(-jitter, jitter), b / 1.5 - 1 + c.uniform(-jitter, jitter))
            for a, b in nodes[stroke * 3 : stroke * 3 + 3]
        ]
        if k.table[40 + stroke] > 0.5:
            points = bezier(*points)
        pen.tube(moved(points, dx, dy, scale, turn), width, 255)
    shade = 0.9 + 0.1 * lookup(periodic_noise(c.rng, 9), c.x * 0.5)
    return place_object(c, (0.5 - pen.coverage()) * (1.2 * c.pixel), c.pixel, shade)
