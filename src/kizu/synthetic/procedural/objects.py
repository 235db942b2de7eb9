"""One body on a ground: outlines and profiles of the class's own, lit, with a shadow."""

from __future__ import annotations

import math

import numpy as np

from kizu.synthetic.procedural import patterns, textures
from kizu.synthetic.procedural.canvas import Canvas, ridge, step, unit, wave
from kizu.synthetic.procedural.ink import Ink
from kizu.synthetic.procedural.noise import Field, lookup, strip
from kizu.synthetic.procedural.parameters import Parameters

GROUNDS = (
    textures.wood, textures.cast, textures.granite, textures.marble, textures.brushed, textures.leather, textures.rust,
    patterns.weave, patterns.tiles, patterns.perforated, patterns.corrugated, patterns.bricks,
)  # fmt: skip
"""What a body may lie on."""


def ground(c: Canvas) -> Field:
    """A background that says nothing of the class: plain, cloudy, streaked, rippled, speckled or one of many
    textures, held back."""
    kind, tone = c.whole(0, 6), c.palette(1)[0][:, None, None]
    if kind == 0:
        return np.broadcast_to(tone, (3, c.size, c.size)).copy()
    if kind == 1:
        return tone * (1 + 0.12 * c.cloud(c.u(0.8, 2.2)))
    if kind == 2:
        return tone * (1 + 0.1 * c.cloud(0.8, aspect=c.u(4, 30), turn=c.u(0, math.pi)))
    if kind == 3:
        return tone * (0.85 + 0.3 * wave(c.pose(c.u(3, 12))[0]))
    if kind == 4:
        return c.mix(unit(c.band(c.u(6, 20), 0.5), 0.12))
    texture = c.pick(GROUNDS)(c, Parameters(0, c.whole(0, 99)))
    return tone + c.u(0.3, 0.7) * (texture - texture.mean())


def lay(c: Canvas, d: Field, px: float, body: Field, *, bevel: float = 0.0) -> Field:
    """The image of a body on a ground, with its shadow.

    d (size, size) is the distance from the outline, negative inside; px a pixel in the same unit; body (size,
    size) shade of one colour or (3, size, size); bevel the width of a rounded rim."""
    cover = step(d, 1.2 * px)
    if body.ndim == 2:
        behind = ground(c)
        dark = float(behind.mean()) > 0.45
        tone = c.palette(1)[0] * 0.35 + (c.u(0.0, 0.12) if dark else c.u(0.5, 0.65))
        body = tone[:, None, None] * body
    else:
        behind = ground(c)
    if bevel:
        rim = np.clip(d * (-1 / bevel), 0, 1)
        body = body * c.relief(rim * (2 - rim) * (0.45 * bevel / px))
    far = c.u(0.02, 0.08) * c.size
    dx, dy = round(far * math.cos(c.light)), round(far * math.sin(c.light))
    shadow = np.roll(step(d, 6 * px), (-dy, -dx), (0, 1))
    behind *= 1 - c.u(0.25, 0.6) * shadow
    behind += cover * (body - behind)
    return behind


def finish(c: Canvas, u: Field) -> Field:
    """The shade (size, size) of a worked surface: matt, brushed or grained."""
    kind = c.whole(0, 2)
    if kind == 0:
        return c.grain(0.03)
    if kind == 1:
        return 1 + 0.12 * c.cloud(0.8, aspect=12, turn=c.u(0, math.pi))
    return 1 + 0.08 * c.cloud(1.2) + 0.2 * np.clip(u, -1, 1)


def _polar(u: Field, v: Field) -> tuple[Field, Field]:
    """Radius, and angle in turns."""
    return np.hypot(u, v), np.arctan2(v, u) * (1 / (2 * math.pi)) + 0.5


def polygon(c: Canvas, k: Parameters) -> Field:
    """A regular polygon, whole, with a hole, or as a frame."""
    u, v, px = c.place(0.7)
    sides = k.whole(0, 3, 8)
    radius, turn = _polar(u, v)
    sector = (turn * sides - np.floor(turn * sides) - 0.5) * (2 * math.pi / sides)
    d = radius * np.cos(sector) - math.cos(math.pi / sides)
    hole = k.pick(1, (0.0, 0.0, 0.35, 0.55))
    if hole:
        d = np.maximum(d, hole * math.cos(math.pi / sides) - radius)
    return lay(c, d, px, finish(c, u), bevel=k.between(2, 0.06, 0.3))


def star(c: Canvas, k: Parameters) -> Field:
    """A star of n points and one depth."""
    u, v, px = c.place(0.78)
    radius, turn = _polar(u, v)
    inner = k.between(1, 0.3, 0.75)
    d = radius - (inner + (1 - inner) * ridge(turn * k.whole(0, 4, 11)))
    return lay(c, d, px, finish(c, u), bevel=k.between(2, 0.08, 0.35))


def gear(c: Canvas, k: Parameters) -> Field:
    """A wheel of n teeth with a bore, and spokes or a hub."""
    u, v, px = c.place(0.78)
    radius, turn = _polar(u, v)
    teeth = k.whole(0, 8, 22)
    tooth = np.clip((ridge(turn * teeth) - 0.5) * k.between(1, 2.0, 5.0), -0.5, 0.5)
    d = np.maximum(radius - 0.88 - k.between(2, 0.1, 0.24) * tooth, k.between(3, 0.12, 0.28) - radius)
    shade = finish(c, u)
    if k.draws[4] > 0.4:
        spokes = k.whole(5, 3, 6)
        slot = np.maximum(
            np.abs(radius - 0.52) - 0.17, 0.13 - np.abs(ridge(turn * spokes) - 0.0) * (radius * 2.2 / spokes)
        )
        d = np.maximum(d, -slot)
    return lay(c, d, px, shade, bevel=0.08)


def washer(c: Canvas, k: Parameters) -> Field:
    """A ring or a tube's mouth: one ratio of radii, flat, round or stepped."""
    u, v, px = c.place(0.75)
    radius = np.hypot(u, v)
    inner = k.between(0, 0.2, 0.8)
    middle, half = 0.5 * (1 + inner), 0.5 * (1 - inner)
    d = np.abs(radius - middle) - half
    across = np.clip((radius - middle) / half, -1, 1)
    height = (np.zeros_like(across), np.sqrt(1 - across * across), step(np.abs(across) - 0.5, 0.1))[
        k.whole(1, 0, 2)
    ]
    body = finish(c, u) * c.relief(height * (0.3 * half / px))
    return lay(c, d, px, body, bevel=0.06)


def nut(c: Canvas, k: Parameters) -> Field:
    """A bolt head or nut: a polygon chamfered by a circle, and a socket of another shape."""
    u, v, px = c.place(0.72)
    radius, turn = _polar(u, v)
    sides = k.pick(0, (6, 4, 12, 8))
    sector = (turn * sides - np.floor(turn * sides) - 0.5) * (2 * math.pi / sides)
    d = np.maximum(radius * np.cos(sector) - math.cos(math.pi / sides) * 0.98, radius - 1.0)
    au, av = np.abs(u), np.abs(v)
    size = k.between(1, 0.3, 0.5)
    six = np.maximum(au, au * 0.5 + av * 0.866)
    cross = np.minimum(
        np.maximum(au - size * 0.28, av - size * 1.1), np.maximum(av - size * 0.28, au - size * 1.1)
    )
    socket = (
        radius - size,
        six - size,
        cross,
        np.maximum(au - size * 0.22, av - size * 1.4),
        size * 0.75 + 0.1 * ridge(turn * 6) - radius,
    )
    inner = socket[k.whole(2, 0, 4)]
    shade = c.relief(np.clip(inner, -0.1, 0.1) * (0.7 / px)) * (1 - 0.6 * step(inner, 2 * px))
    shade = shade * (1 + 0.25 * step(np.abs(radius - 0.82) - 0.03, 3 * px))
    return lay(c, d, px, finish(c, u) * shade, bevel=0.12)


def flower(c: Canvas, k: Parameters) -> Field:
    """A rounded outline of the class's own: a few harmonics of the angle."""
    u, v, px = c.place(0.7)
    radius, turn = _polar(u, v)
    angle = turn * (2 * math.pi)
    outline = np.full_like(angle, 0.75)
    for n in range(2, 7):
        outline += float(k.table[n] * 0.55 / n**0.7) * np.cos(n * angle + float(k.table[n + 8] * 6.28))
    return lay(c, radius - outline, px, finish(c, u), bevel=k.between(0, 0.15, 0.7))


def screw(c: Canvas, k: Parameters) -> Field:
    """A screw from its side: head, shank, thread of one pitch, point."""
    u, v, px = c.place(0.95)
    pitch, shank, head = k.between(0, 7, 15), k.between(1, 0.12, 0.24), k.between(2, 1.5, 2.4)
    start = k.between(3, -0.6, 0.1)
    thread = np.where(u > start, ridge(u * pitch + np.sign(v) * 0.25), 0.5)
    width = shank * (0.8 + 0.4 * thread)
    if k.draws[4] > 0.4:
        width = width * np.clip((1 - u) / k.between(5, 0.15, 0.8), 0, 1)
    cap = k.pick(6, (0.0, 1.0, 2.0))
    hat = (
        shank
        * head
        * (
            1
            if cap == 0
            else np.clip((-0.62 - u) / 0.25, 0, 1)
            if cap == 1
            else np.sqrt(np.clip((u + 1.0) / 0.3, 0, 1))
        )
    )
    width = np.where(u < -0.7, hat, width)
    d = np.maximum(np.abs(v) - width, np.abs(u) - 0.95)
    across = np.clip(v / (width + 1e-3), -1, 1)
    shade = (0.35 + 0.75 * np.sqrt(1 - 0.9 * across * across)) * (1 + 0.2 * across)
    slope = np.where(u > start, 0.7 + 0.5 * ridge(u * pitch + 0.5 * across), 1.0)
    return lay(c, d, px, shade * slope * c.grain(0.03))


def turned_part(c: Canvas, k: Parameters) -> Field:
    """A body of revolution from its side: bottle, pawn, valve, with the class's own profile and bands."""
    u, v, px = c.place(0.92)
    steps = k.table[:9] * 0.45 + 0.12
    place = np.linspace(-0.9, 0.9, 9)
    if k.draws[0] > 0.5:
        width = np.interp(u, place, steps).astype(np.float32)
    else:
        width = steps.take(np.clip(((u + 0.9) * (9 / 1.8)).astype(np.int32), 0, 8))
    d = np.maximum(np.abs(v) - width, np.abs(u) - 0.9)
    across = np.clip(v / width, -1, 1)
    shade = (
        0.4
        + 0.6 * np.sqrt(1 - 0.95 * across * across)
        + 0.35 * np.exp(-(((across - c.u(-0.5, 0.5)) / 0.15) ** 2))
    )
    bands = lookup((k.table[10:26] > 0.7).astype(np.float32), u * 0.5 + 0.5)
    return lay(c, d, px, shade * (1 - 0.45 * bands))


def spring(c: Canvas, k: Parameters) -> Field:
    """A coil from its side."""
    u, v, px = c.place(0.95)
    number, tall, wire = k.whole(0, 6, 13), k.between(1, 0.2, 0.42), k.between(2, 0.03, 0.06)
    t = (u * 0.5 + 0.5) * number
    best = np.full(u.shape, 9.0, np.float32)
    shade = np.zeros_like(best)
    for lean, tone in ((-0.28, 0.4), (0.28, 1.0)):
        middle = (np.floor(t - lean * v / tall) + 0.5 + lean * v / tall) * (2 / number) - 1
        d = np.maximum(np.abs(u - middle) * 0.9 - wire, np.abs(v) - tall)
        lit = tone * (0.45 + 0.7 * np.sqrt(np.clip(1 - ((u - middle) / wire) ** 2, 0, 1)))
        shade = np.where(d < px, lit, shade)
        best = np.minimum(best, d)
    return lay(c, np.maximum(best, np.abs(u) - 0.95), px, shade)


def package(c: Canvas, k: Parameters) -> Field:
    """A chip with n legs on two or four sides, a dot at leg one, and a line of print."""
    u, v, px = c.place(0.62)
    wide, tall = k.between(0, 0.55, 1.0), k.between(1, 0.4, 0.95)
    pins = k.whole(2, 3, 8)
    body = np.maximum(np.abs(u) - wide, np.abs(v) - tall)
    legs = np.maximum(
        np.maximum(np.abs(v) - tall - 0.22, np.abs(u) - wide * 0.95), 0.5 - ridge(u * (pins * 0.5 / wide))
    )
    if k.draws[3] > 0.5:
        side = np.maximum(
            np.maximum(np.abs(u) - wide - 0.22, np.abs(v) - tall * 0.95), 0.5 - ridge(v * (pins * 0.5 / tall))
        )
        legs = np.minimum(legs, side)
    dot = np.hypot(u + wide - 0.2, v - tall + 0.2) - 0.08
    text = np.maximum(np.abs(v + 0.05) - 0.09, np.abs(u) - 0.6 * wide)
    text = np.maximum(text, 0.5 - lookup(k.table, u * 0.37))
    case = step(body, 1.2 * px)
    shade = (1 - case) * 0.85 + case * (
        0.17 + 0.45 * step(np.minimum(text, dot), 2 * px) + 0.05 * c.smooth(8)
    )
    image = (c.palette(1)[0] * 0.15 + 0.85)[:, None, None] * shade
    return lay(c, np.minimum(body, legs), px, image, bevel=0.07)


def plate(c: Canvas, k: Parameters) -> Field:
    """A flat part with holes where the drawing of its class has them."""
    u, v, px = c.place(0.8)
    tall = k.between(0, 0.35, 0.95)
    corner = k.between(1, 0.0, 0.4) * tall
    au, av = np.abs(u) - 1 + corner, np.abs(v) - tall + corner
    d = np.hypot(np.maximum(au, 0), np.maximum(av, 0)) + np.minimum(np.maximum(au, av), 0) - corner
    for x, y, r in (k.table[:24].reshape(8, 3) * 2 - 1)[: k.whole(2, 2, 6)].tolist():
        d = np.maximum(d, (0.12 + 0.07 * r) - np.hypot(u - x * 0.78, v - y * tall * 0.72))
    return lay(c, d, px, finish(c, u), bevel=0.07)


def capsule(c: Canvas, k: Parameters) -> Field:
    """A pill or tablet: round to long, one colour or two, plain, scored or printed."""
    u, v, px = c.place(0.8)
    long = k.between(0, 0.0, 0.6)
    radius = (1 - long) * 0.9
    d = np.hypot(np.maximum(np.abs(u) - long, 0), v) - radius
    dome = (
        np.sqrt(np.clip(1 - ((d + radius) / radius) ** 2, 0, 1))
        if k.draws[1] < 0.6
        else np.clip(d * (-4 / radius), 0, 1)
    )
    halves = step(u, 2 * px) if k.draws[2] > 0.5 else np.zeros_like(u)
    mark = (
        np.abs(u) - 0.04,
        np.minimum(np.abs(u), np.abs(v)) - 0.04,
        np.abs(np.hypot(u, v) - 0.4 * radius) - 0.05,
    )[k.whole(3, 0, 2)]
    tone = c.palette(2) * 0.6 + 0.35
    image = (
        c.mix(halves, tone)
        * (1 - 0.35 * step(mark, 2.5 * px))
        * c.relief(dome * (0.35 / px))
        * (0.75 + 0.3 * dome)
    )
    return lay(c, d, px, image)


def ball(c: Canvas, k: Parameters) -> Field:
    """A sphere with a highlight and the class's own bands, meridians or spots."""
    u, v, px = c.place(0.78)
    squared = u * u + v * v
    w = np.sqrt(np.clip(1 - squared, 0, 1))
    lean = k.between(0, 0.3, 1.2)
    pole, front = v * math.cos(lean) + w * math.sin(lean), w * math.cos(lean) - v * math.sin(lean)
    n = k.whole(1, 2, 6)
    kind = k.whole(2, 0, 3)
    mark = (
        wave(pole * n),
        wave(np.arctan2(u, front) * (n / math.pi)),
        wave(pole * n) * wave(u * n) * 2 - 0.2,
        0.5 + 0.25 * c.cloud(1.5),
    )[kind]
    lx, ly = math.cos(c.light) * 0.6, math.sin(c.light) * 0.6
    lit = np.clip(w * 0.75 - u * lx - v * ly, 0, 1)
    return lay(
        c, np.sqrt(squared) - 1, px, c.mix(step(0.5 - mark, 0.3)) * (0.25 + 0.85 * lit) + 0.8 * lit**20
    )


def glyph(c: Canvas, k: Parameters) -> Field:
    """A letter that no alphabet has: the class's own strokes, by pens of all widths."""
    pen = Ink(c.size)
    turn, scale = c.u(-0.6, 0.6), c.u(0.5, 0.8)
    cos, sin, dx, dy = math.cos(turn) * scale, math.sin(turn) * scale, c.u(-0.2, 0.2), c.u(-0.2, 0.2)
    width, jitter = c.u(0.08, 0.24), 0.05
    nodes = (k.table.reshape(32, 2) * (2.99, 3.99)).astype(int).tolist()
    for stroke in range(k.whole(0, 3, 5)):
        spots = [
            (a - 1 + c.u(-jitter, jitter), b / 1.5 - 1 + c.u(-jitter, jitter))
            for a, b in nodes[stroke * 3 : stroke * 3 + 3]
        ]
        if k.table[40 + stroke] > 0.5:
            (ax, ay), (bx, by), (ex, ey) = spots
            steps = [(1 - t, t) for t in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
            spots = [
                (s * s * ax + 2 * s * t * bx + t * t * ex, s * s * ay + 2 * s * t * by + t * t * ey)
                for s, t in steps
            ]
        pen.line([(x * cos - y * sin + dx, x * sin + y * cos + dy) for x, y in spots], width, 255, ends=True)
    cover = pen.cover()
    return lay(
        c, (0.5 - cover) * (1.2 * c.pixel), c.pixel, 0.9 + 0.1 * lookup(strip(c.rng, 9), c.x * 0.5), bevel=0.0
    )
