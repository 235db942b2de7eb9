"""The circuit board among the planted products: a fixed layout of traces, pads and parts, as one drawing
number has."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from kizu.synthetic.planted_noise import Field, box, decal, inside, line, smooth, write
from kizu.synthetic.planted_render import Scene, Surface, colour, tint


@dataclass(frozen=True)
class Part:
    """One component: what it is, its centre and its half sizes in board coordinates."""

    kind: str
    u: float
    v: float
    half_u: float
    half_v: float

    @property
    def reach(self) -> float:
        """Radius of the circle around the part and its legs."""
        return math.hypot(self.half_u, self.half_v) + 0.09


PARTS: tuple[Part, ...] = (
    Part("chip", -0.17, -0.12, 0.26, 0.15),
    Part("chip", 0.53, 0.46, 0.16, 0.12),
    Part("can", 0.62, -0.56, 0.16, 0.16),
    Part("can", 0.30, -0.62, 0.12, 0.12),
    Part("crystal", -0.12, 0.48, 0.15, 0.07),
    *(Part("resistor", -0.70, -0.62 + 0.17 * k, 0.085, 0.045) for k in range(4)),
    *(Part("capacitor", -0.42 + 0.16 * k, -0.62, 0.045, 0.080) for k in range(3)),
    *(Part("capacitor", 0.36, -0.26 + 0.17 * k, 0.080, 0.045) for k in range(3)),
    *(Part("resistor", -0.70 + 0.17 * k, 0.34, 0.045, 0.085) for k in range(3)),
    *(Part("resistor", 0.72, -0.16 + 0.17 * k, 0.085, 0.045) for k in range(2)),
    Part("led", 0.18, 0.48, 0.075, 0.055),
)
PINS: tuple[float, ...] = tuple(-0.62 + 0.11 * k for k in range(8))
HOLES: tuple[tuple[float, float], ...] = ((-0.84, -0.84), (0.84, -0.84), (-0.84, 0.84), (0.84, 0.84))


def _ends(part: Part) -> list[tuple[float, float]]:
    """Where a two-ended part is soldered."""
    if part.half_u > part.half_v:
        return [(part.u - part.half_u, part.v), (part.u + part.half_u, part.v)]
    return [(part.u, part.v - part.half_v), (part.u, part.v + part.half_v)]


def _legs(part: Part) -> list[tuple[float, float]]:
    """Where the legs of a chip meet the board."""
    number = max(round(part.half_u / 0.042), 2)
    across = [part.u + part.half_u * (2 * k + 1 - number) / number for k in range(number)]
    return [(u, part.v + side * (part.half_v + 0.045)) for side in (-1, 1) for u in across]


@functools.lru_cache(maxsize=4)
def _copper(side: int) -> Image.Image:
    """The traces: from every joint in steps of 45 degrees to a neighbour, always the same."""
    rng = np.random.Generator(np.random.PCG64(2024))
    joints = [end for part in PARTS for end in (_legs(part) if part.kind == "chip" else _ends(part))] + [
        (u, 0.80) for u in PINS
    ]

    def draw(pen: ImageDraw.ImageDraw) -> None:
        for u, v in joints:
            others = sorted(joints, key=lambda other: math.dist(other, (u, v)))
            tu, tv = others[int(rng.integers(3, 12))]
            step = min(abs(tu - u), abs(tv - v))
            knee = (u + math.copysign(step, tu - u), v + math.copysign(step, tv - v))
            line(pen, [(u, v), knee, (tu, tv)], 0.014)

    return decal(side, draw)


@functools.lru_cache(maxsize=4)
def _pads(side: int) -> Image.Image:
    """The solder lands under all parts, and the rings of the mounting holes."""

    def draw(pen: ImageDraw.ImageDraw) -> None:
        for part in PARTS:
            for u, v in _legs(part) if part.kind == "chip" else _ends(part):
                wide = 0.016 if part.kind == "chip" else 0.034
                line(
                    pen,
                    [(u, v - wide), (u, v + wide)] if part.kind == "chip" else [(u - 0.01, v), (u + 0.01, v)],
                    2 * wide,
                )
        for u, v in HOLES:
            line(pen, [(u - 0.001, v), (u + 0.001, v)], 0.15)

    return decal(side, draw)


@functools.lru_cache(maxsize=4)
def _silk(side: int) -> Image.Image:
    """The white legend: outlines, a name and a polarity mark."""

    def draw(pen: ImageDraw.ImageDraw) -> None:
        write(pen, "KIZU R2", (0.52, 0.80), 0.075, 0.014)
        for part in PARTS:
            if part.kind in ("can", "chip", "crystal"):
                hu, hv = part.half_u + 0.03, part.half_v + (0.085 if part.kind == "chip" else 0.03)
                corners = [
                    (part.u - hu, part.v - hv),
                    (part.u + hu, part.v - hv),
                    (part.u + hu, part.v + hv),
                    (part.u - hu, part.v + hv),
                ]
                line(pen, [*corners, corners[0]], 0.010)

    return decal(side, draw)


def circuit(scene: Scene) -> Surface:
    """A green printed circuit board with chips, cans and small parts, laid in its fixture with little play."""
    scene.pose(1.5, shift=0.02, zoom=0.008)
    rng = scene.rng
    surface = scene.blank(colour("2c2f33"), under=colour("c79a5a"), shine=30.0)
    surface.albedo *= 1 + 0.05 * scene.fractal(scene.fine(50), 2)
    body = box(scene.u, scene.v, 0.955, 0.955, 0.05)
    for u, v in HOLES:
        body = np.maximum(
            body, np.float32(0.045) - np.hypot(scene.u - np.float32(u), scene.v - np.float32(v))
        )
    board = inside(body, scene.pixel)
    mask = tint(colour("1f6b45")) * (1 + np.float32(rng.normal(0, 0.03)) + 0.02 * scene.fractal(8, 2))
    surface.paint(board, mask, gloss=0.10)
    copper, pads = scene.stamp(_copper(scene.side)), scene.stamp(_pads(scene.side))
    surface.paint(board * copper * 0.75, colour("3f9463"))
    surface.paint(board * scene.stamp(_silk(scene.side)) * 0.85, colour("e6e9e2"), gloss=0.04)
    surface.paint(board * pads, colour("c9c9c6"), gloss=0.25, metal=0.5)
    surface.height += board * (0.03 + 0.004 * copper + 0.010 * pads + 0.0006 * scene.noise(40))
    surface.solid, surface.raised, surface.lift = board, np.zeros_like(board), 0.06
    chosen = int(scene.flaw_rng.integers(len(PARTS))) if scene.flaw in ("missing", "misplaced") else -1
    for index, part in enumerate(PARTS):
        play = rng.normal(0.0, 0.0035, 2), float(rng.normal(0, 0.012)), float(rng.normal(1.0, 0.05))
        if index == chosen and scene.flaw == "missing":
            continue
        _mount(scene, surface, part, play, slip=index == chosen)
    _header(scene, surface)
    return surface


def _mount(scene: Scene, surface: Surface, part: Part, play: tuple, *, slip: bool) -> None:
    """Draw one part with the play (shift, turn, tone) of good work, or slipped and turned."""
    (du, dv), turn, tone = play
    if slip:
        rng = scene.flaw_rng
        way, far = float(rng.uniform(0, 2 * math.pi)), 0.015 + 0.035 * scene.strength
        du, dv = du + far * math.cos(way), dv + far * math.sin(way)
        turn += float(rng.choice([-1, 1])) * (0.10 + 0.5 * scene.strength * float(rng.uniform(0.3, 1)))
    at = scene.around(part.u + du, part.v + dv, part.reach)
    u, v = scene.u[at] - np.float32(part.u + du), scene.v[at] - np.float32(part.v + dv)
    u, v = (
        u * np.float32(math.cos(turn)) + v * np.float32(math.sin(turn)),
        v * np.float32(math.cos(turn)) - u * np.float32(math.sin(turn)),
    )
    _DRAW[part.kind](scene, surface, part, at, u, v, tone)


def _lay(
    scene: Scene,
    surface: Surface,
    at: tuple,
    distance: Field,
    code: str,
    tone: float,
    *,
    gloss: float,
    metal: float,
    height: Field,
) -> None:
    """Lay one body: colour, shine, height and shadow."""
    cover = inside(distance, scene.pixel)
    surface.paint(cover, colour(code) * np.float32(tone), gloss=gloss, metal=metal, at=at)
    surface.height[at] += cover * (np.float32(0.03) + height - surface.height[at])
    if surface.raised is not None:
        surface.raised[at] = np.maximum(surface.raised[at], cover)


def _chip(scene: Scene, surface: Surface, part: Part, at: tuple, u: Field, v: Field, tone: float) -> None:
    number = max(round(part.half_u / 0.042), 2)
    pitch = np.float32(2 * part.half_u / number)
    leg = np.abs((u / pitch + number / 2) % 1 - 0.5) * pitch - np.float32(0.015)
    legs = np.maximum(
        np.maximum(leg, np.abs(v) - np.float32(part.half_v + 0.055)), np.abs(u) - np.float32(part.half_u)
    )
    drop = 0.05 * smooth(np.abs(v), part.half_v + 0.04, part.half_v)
    _lay(scene, surface, at, legs, "c2c4c6", 1.0, gloss=0.3, metal=0.7, height=drop)
    case = box(u, v, part.half_u, part.half_v, 0.012)
    rim = 0.07 * smooth(case, 0.0, -0.025)
    _lay(scene, surface, at, case, "2a2b2d", tone, gloss=0.07, metal=0.0, height=rim)
    dot = np.hypot(u + np.float32(part.half_u - 0.045), v - np.float32(part.half_v - 0.045)) - np.float32(
        0.018
    )
    surface.height[at] -= 0.010 * inside(dot, scene.pixel)
    mark = np.minimum(np.abs(v + 0.02) - 0.012, np.abs(v - 0.035) - 0.008)
    mark = np.maximum(mark, np.abs(u) - np.float32(0.55 * part.half_u))
    mark = np.maximum(mark, 0.006 - np.abs(((u + 1) / np.float32(0.034)) % 1 - 0.5) * np.float32(0.034))
    surface.paint(inside(mark, scene.pixel) * 0.5, colour("9a9c9e"), at=at)


def _can(scene: Scene, surface: Surface, part: Part, at: tuple, u: Field, v: Field, tone: float) -> None:
    radius = np.hypot(u, v)
    edge = radius - np.float32(part.half_u)
    _lay(
        scene, surface, at, edge, "b9bcc0", tone, gloss=0.2, metal=0.7, height=0.11 * smooth(edge, 0.0, -0.05)
    )
    cross = np.maximum(np.minimum(np.abs(u), np.abs(v)) - 0.006, radius - np.float32(0.6 * part.half_u))
    surface.height[at] -= 0.012 * inside(cross, 2 * scene.pixel)
    minus = np.maximum(edge + 0.02, u + np.float32(0.55 * part.half_u))
    surface.paint(inside(minus, scene.pixel) * 0.9, colour("34373b"), metal=0.1, at=at)


def _crystal(scene: Scene, surface: Surface, part: Part, at: tuple, u: Field, v: Field, tone: float) -> None:
    edge = box(u, v, part.half_u, part.half_v, part.half_v)
    _lay(
        scene,
        surface,
        at,
        edge,
        "c6c8c9",
        tone,
        gloss=0.25,
        metal=0.8,
        height=0.07 * smooth(edge, 0.0, -0.03),
    )
    surface.height[at] -= 0.006 * smooth(np.abs(edge + 0.03), 0.008, 0.0)


def _small(scene: Scene, surface: Surface, part: Part, at: tuple, u: Field, v: Field, tone: float) -> None:
    """Resistor, ceramic capacitor or diode: a body with two tinned ends."""
    code, shine = {"resistor": ("26272a", 0.08), "capacitor": ("b08a5e", 0.10), "led": ("f0e6b0", 0.45)}[
        part.kind
    ]
    length, half = (u, part.half_u) if part.half_u > part.half_v else (v, part.half_v)
    edge = box(u, v, part.half_u, part.half_v, 0.008)
    _lay(
        scene, surface, at, edge, "c9cacb", 1.0, gloss=0.3, metal=0.6, height=0.045 * smooth(edge, 0.0, -0.02)
    )
    core = np.maximum(edge, np.abs(length) - np.float32(0.66 * half))
    surface.paint(inside(core, scene.pixel), colour(code) * np.float32(tone), gloss=shine, metal=0.0, at=at)
    if part.kind == "resistor":
        mark = np.maximum(np.abs(u) if part.half_u < part.half_v else np.abs(v), np.abs(length)) - np.float32(
            0.014
        )
        surface.paint(inside(mark, scene.pixel) * 0.7, colour("d8d8d4"), at=at)


def _header(scene: Scene, surface: Surface) -> None:
    """The pin strip at the lower edge."""
    at = scene.around((PINS[0] + PINS[-1]) / 2, 0.80, 0.52)
    u, v = scene.u[at], scene.v[at] - np.float32(0.80)
    strip = box(u - np.float32((PINS[0] + PINS[-1]) / 2), v, 0.45, 0.052, 0.01)
    _lay(
        scene,
        surface,
        at,
        strip,
        "222326",
        1.0,
        gloss=0.08,
        metal=0.0,
        height=0.06 * smooth(strip, 0.0, -0.02),
    )
    for pin in PINS:
        spot = box(u - np.float32(pin), v, 0.022, 0.022, 0.004)
        surface.paint(inside(spot, scene.pixel), colour("d9b65a"), gloss=0.4, metal=0.7, at=at)
        surface.height[at] += 0.05 * smooth(spot, 0.0, -0.012)


_DRAW = {
    "chip": _chip,
    "can": _can,
    "crystal": _crystal,
    "resistor": _small,
    "capacitor": _small,
    "led": _small,
}
