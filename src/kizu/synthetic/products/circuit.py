"""The circuit board among the products: one fixed layout of traces, pads and parts."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kizu.synthetic.lighting import Colour, Surface, as_image, linear_colour
from kizu.synthetic.noise import Field, rotated
from kizu.synthetic.pen import Pen
from kizu.synthetic.products.canvas import ProductCanvas
from kizu.synthetic.shapes import Points, box, coverage, smoothstep


@dataclass(frozen=True)
class Part:
    """One component: its kind, its centre and its half sizes in board coordinates."""

    kind: str
    u: float
    v: float
    half_u: float
    half_v: float

    @property
    def reach(self) -> float:
        """Radius of a circle around the part and its legs."""
        return math.hypot(self.half_u, self.half_v) + 0.09

    @property
    def legs(self) -> int:
        """Legs on each side of a chip."""
        return max(round(self.half_u / 0.042), 2)

    @property
    def joints(self) -> Points:
        """Where the part is soldered: at its two ends, or at the legs of a chip."""
        if self.kind == "chip":
            across = [self.u + self.half_u * (2 * k + 1 - self.legs) / self.legs for k in range(self.legs)]
            return [(u, self.v + side * (self.half_v + 0.045)) for side in (-1, 1) for u in across]
        if self.half_u > self.half_v:
            return [(self.u - self.half_u, self.v), (self.u + self.half_u, self.v)]
        return [(self.u, self.v - self.half_v), (self.u, self.v + self.half_v)]


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
"""The parts in the order in which they are mounted."""
PINS: tuple[float, ...] = tuple(-0.62 + 0.11 * k for k in range(8))
"""u of the pins of the strip at the lower edge."""
HOLES: tuple[tuple[float, float], ...] = ((-0.84, -0.84), (0.84, -0.84), (-0.84, 0.84), (0.84, 0.84))
"""Centres of the mounting holes."""


@functools.lru_cache(maxsize=4)
def _copper(size: int) -> Image.Image:
    """The traces: from every joint in steps of 45 degrees to a neighbour, always the same."""
    rng = np.random.Generator(np.random.PCG64(2024))
    pen = Pen(size)
    joints = [joint for part in PARTS for joint in part.joints] + [(u, 0.80) for u in PINS]
    for u, v in joints:
        others = sorted(joints, key=lambda other: math.dist(other, (u, v)))
        end_u, end_v = others[int(rng.integers(3, 12))]
        step = min(abs(end_u - u), abs(end_v - v))
        knee = (u + math.copysign(step, end_u - u), v + math.copysign(step, end_v - v))
        pen.line([(u, v), knee, (end_u, end_v)], 0.014, round_ends=True)
    return pen.image()


@functools.lru_cache(maxsize=4)
def _pads(size: int) -> Image.Image:
    """The solder lands under all parts, and the rings of the mounting holes."""
    pen = Pen(size)
    for part in PARTS:
        du, dv, width = (0.0, 0.016, 0.032) if part.kind == "chip" else (0.01, 0.0, 0.068)
        for u, v in part.joints:
            pen.line([(u - du, v - dv), (u + du, v + dv)], width, round_ends=True)
    for u, v in HOLES:
        pen.line([(u - 0.001, v), (u + 0.001, v)], 0.15, round_ends=True)
    return pen.image()


@functools.lru_cache(maxsize=4)
def _legend(size: int) -> Image.Image:
    """The white print: a name, and the outlines of the larger parts."""
    pen = Pen(size)
    pen.write("KIZU R2", (0.52, 0.80), 0.075, 0.014)
    for part in PARTS:
        if part.kind in ("can", "chip", "crystal"):
            hu, hv = part.half_u + 0.03, part.half_v + (0.085 if part.kind == "chip" else 0.03)
            left, right, top, bottom = part.u - hu, part.u + hu, part.v - hv, part.v + hv
            corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
            pen.line(corners, 0.010, round_ends=True)
    return pen.image()


def circuit(canvas: ProductCanvas) -> Surface:
    """A green circuit board with chips, cans and small parts, laid in its fixture with little play."""
    canvas.pose(1.5, shift=0.02, zoom=0.008)
    rng = canvas.rng
    surface = canvas.blank("2c2f33", under="c79a5a", shine=30.0)
    surface.albedo *= 1 + 0.05 * canvas.fractal(canvas.fine(50), 2)
    body = box(canvas.u, canvas.v, 0.955, 0.955, 0.05)
    for u, v in HOLES:
        hole = np.float32(0.045) - np.hypot(canvas.u - np.float32(u), canvas.v - np.float32(v))
        body = np.maximum(body, hole)
    board = coverage(body, canvas.edge)
    varnish = as_image("1f6b45") * (1 + np.float32(rng.normal(0, 0.03)) + 0.02 * canvas.fractal(8, 2))
    surface.paint(board, varnish, gloss=0.10)
    copper, pads = canvas.stamp(_copper(canvas.size)), canvas.stamp(_pads(canvas.size))
    surface.paint(board * copper * 0.75, "3f9463")
    surface.paint(board * canvas.stamp(_legend(canvas.size)) * 0.85, "e6e9e2", gloss=0.04)
    surface.paint(board * pads, "c9c9c6", gloss=0.25, metal=0.5)
    surface.height += board * (0.03 + 0.004 * copper + 0.010 * pads + 0.0006 * canvas.noise(40))
    surface.solid, surface.raised, surface.lift = board, np.zeros_like(board), 0.06
    chosen = int(canvas.defect_rng.integers(len(PARTS))) if canvas.defect in ("missing", "misplaced") else -1
    for index, part in enumerate(PARTS):
        du, dv = rng.normal(0.0, 0.0035, 2)
        turn, tone = float(rng.normal(0, 0.012)), float(rng.normal(1.0, 0.05))
        if index == chosen and canvas.defect == "missing":
            continue
        if index == chosen:
            du, dv, turn = _slipped(canvas, du, dv, turn)
        spot = _Spot(canvas, surface, part.u + du, part.v + dv, part.reach, turn)
        _DRAW[part.kind](spot, part, tone)
    _pin_strip(_Spot(canvas, surface, 0.0, 0.80, 0.76, 0.0))
    return surface


def _slipped(canvas: ProductCanvas, du: float, dv: float, turn: float) -> tuple[float, float, float]:
    """Shift and turn of a part that was mounted badly."""
    rng = canvas.defect_rng
    direction, distance = float(rng.uniform(0, 2 * math.pi)), 0.015 + 0.035 * canvas.strength
    turn += float(rng.choice([-1, 1])) * (0.10 + 0.5 * canvas.strength * float(rng.uniform(0.3, 1)))
    return du + distance * math.cos(direction), dv + distance * math.sin(direction), turn


class _Spot:
    """The part of the board around (u, v): only its window `at` of the raster is drawn on.

    u, v: the window's coordinates about that place, in axes turned by `turn`."""

    def __init__(
        self, canvas: ProductCanvas, surface: Surface, u: float, v: float, reach: float, turn: float
    ) -> None:
        self.surface, self.edge = surface, canvas.edge
        self.at = canvas.around(u, v, reach)
        self.u, self.v = rotated(canvas.u[self.at] - np.float32(u), canvas.v[self.at] - np.float32(v), turn)

    def cover(self, distance: Field) -> Field:
        """Coverage of the shape with that signed distance."""
        return coverage(distance, self.edge)

    def body(
        self, distance: Field, colour: str, tone: float, height: Field, *, gloss: float, metal: float = 0.0
    ) -> None:
        """Put a body where `distance` is negative: `height` above the board, and throwing a shadow."""
        cover, surface = self.cover(distance), self.surface
        self.paint(cover, linear_colour(colour) * np.float32(tone), gloss=gloss, metal=metal)
        surface.height[self.at] += cover * (np.float32(0.03) + height - surface.height[self.at])
        if surface.raised is not None:
            surface.raised[self.at] = np.maximum(surface.raised[self.at], cover)

    def paint(
        self, cover: Field, colour: Colour, *, gloss: float | None = None, metal: float | None = None
    ) -> None:
        """Blend in a colour, gloss and metal."""
        self.surface.paint(cover, colour, gloss=gloss, metal=metal, at=self.at)

    def raise_by(self, cover: Field, height: float) -> None:
        """Lift (or, below 0, press in) the surface by `height` where `cover` is 1."""
        self.surface.height[self.at] += height * cover


def _chip(spot: _Spot, part: Part, tone: float) -> None:
    u, v = spot.u, spot.v
    pitch = np.float32(2 * part.half_u / part.legs)
    leg = np.abs((u / pitch + part.legs / 2) % 1 - 0.5) * pitch - np.float32(0.015)
    legs = np.maximum(leg, np.abs(v) - np.float32(part.half_v + 0.055))
    legs = np.maximum(legs, np.abs(u) - np.float32(part.half_u))
    drop = 0.05 * smoothstep(np.abs(v), part.half_v + 0.04, part.half_v)
    spot.body(legs, "c2c4c6", 1.0, drop, gloss=0.3, metal=0.7)
    case = box(u, v, part.half_u, part.half_v, 0.012)
    spot.body(case, "2a2b2d", tone, 0.07 * smoothstep(case, 0.0, -0.025), gloss=0.07)
    dot = np.hypot(u + np.float32(part.half_u - 0.045), v - np.float32(part.half_v - 0.045))
    spot.raise_by(spot.cover(dot - np.float32(0.018)), -0.010)
    text = np.minimum(np.abs(v + 0.02) - 0.012, np.abs(v - 0.035) - 0.008)
    text = np.maximum(text, np.abs(u) - np.float32(0.55 * part.half_u))
    text = np.maximum(text, 0.006 - np.abs(((u + 1) / np.float32(0.034)) % 1 - 0.5) * np.float32(0.034))
    spot.paint(0.5 * spot.cover(text), "9a9c9e")


def _can(spot: _Spot, part: Part, tone: float) -> None:
    u, v = spot.u, spot.v
    radius = np.hypot(u, v)
    edge = radius - np.float32(part.half_u)
    spot.body(edge, "b9bcc0", tone, 0.11 * smoothstep(edge, 0.0, -0.05), gloss=0.2, metal=0.7)
    cross = np.maximum(np.minimum(np.abs(u), np.abs(v)) - 0.006, radius - np.float32(0.6 * part.half_u))
    spot.raise_by(coverage(cross, 2 * spot.edge), -0.012)
    minus = np.maximum(edge + 0.02, u + np.float32(0.55 * part.half_u))
    spot.paint(0.9 * spot.cover(minus), "34373b", metal=0.1)


def _crystal(spot: _Spot, part: Part, tone: float) -> None:
    edge = box(spot.u, spot.v, part.half_u, part.half_v, part.half_v)
    spot.body(edge, "c6c8c9", tone, 0.07 * smoothstep(edge, 0.0, -0.03), gloss=0.25, metal=0.8)
    spot.raise_by(smoothstep(np.abs(edge + 0.03), 0.008, 0.0), -0.006)


_SMALL = {"resistor": ("26272a", 0.08), "capacitor": ("b08a5e", 0.10), "led": ("f0e6b0", 0.45)}
"""Colour and gloss of the small parts."""


def _small(spot: _Spot, part: Part, tone: float) -> None:
    """Resistor, ceramic capacitor or diode: a body with two tinned ends."""
    u, v = spot.u, spot.v
    colour, gloss = _SMALL[part.kind]
    along, half = (u, part.half_u) if part.half_u > part.half_v else (v, part.half_v)
    edge = box(u, v, part.half_u, part.half_v, 0.008)
    spot.body(edge, "c9cacb", 1.0, 0.045 * smoothstep(edge, 0.0, -0.02), gloss=0.3, metal=0.6)
    core = np.maximum(edge, np.abs(along) - np.float32(0.66 * half))
    spot.paint(spot.cover(core), linear_colour(colour) * np.float32(tone), gloss=gloss, metal=0.0)
    if part.kind == "resistor":
        across = u if part.half_u < part.half_v else v
        mark = np.maximum(np.abs(across), np.abs(along)) - np.float32(0.014)
        spot.paint(0.7 * spot.cover(mark), "d8d8d4")


def _pin_strip(spot: _Spot) -> None:
    """The strip of pins at the lower edge."""
    strip = box(spot.u - np.float32((PINS[0] + PINS[-1]) / 2), spot.v, 0.45, 0.052, 0.01)
    spot.body(strip, "222326", 1.0, 0.06 * smoothstep(strip, 0.0, -0.02), gloss=0.08)
    for pin in PINS:
        tip = box(spot.u - np.float32(pin), spot.v, 0.022, 0.022, 0.004)
        spot.paint(spot.cover(tip), "d9b65a", gloss=0.4, metal=0.7)
        spot.raise_by(smoothstep(tip, 0.0, -0.012), 0.05)


_DRAW = {"chip": _chip, "can": _can, "crystal": _crystal, **dict.fromkeys(_SMALL, _small)}
