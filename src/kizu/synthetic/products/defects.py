"""The defects that are laid on a finished surface.

Each is a function of a DefectSite, whose surface it changes in place: colour, height and gloss, so that
light, shadow and blur treat a defect as they treat the product. `strength` runs from 0.3 (subtle) to 1
(obvious), and up to 1.8 when a first try was too faint to count. The defects in STRUCTURE need the drawing of
the product itself and are planted by the products' builders."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy import ndimage

from kizu.synthetic.canvas import Canvas
from kizu.synthetic.lighting import Surface, as_image, linear_colour
from kizu.synthetic.noise import Field, resized, rotated
from kizu.synthetic.products.canvas import ProductCanvas
from kizu.synthetic.shapes import Point, Points, moved, polyline_distance, random_walk, smoothstep


class DefectSite(Canvas):
    """A surface, and what a defect on it needs: randomness of its own, a strength and a colour.

    surface: changed in place. colour (3,): of the defect; the colour beneath the skin when `code` (rrggbb) is
    "". turn: the product's, in radians. grain_direction (radians): along which the material splits, None if
    it does in none."""

    def __init__(
        self, canvas: ProductCanvas, surface: Surface, rng: Generator, strength: float, code: str
    ) -> None:
        super().__init__(canvas.size, rng)
        self.surface, self.strength = surface, strength
        self.colour = linear_colour(code) if code else surface.under
        self.turn, self.grain_direction, self._image_size = (
            canvas.turn,
            canvas.grain_direction,
            canvas.image_size,
        )

    def uniform(self, low: float, high: float) -> float:
        """A draw between two numbers."""
        return float(self.rng.uniform(low, high))

    def sign(self) -> float:
        """-1 or 1."""
        return float(self.rng.choice([-1, 1]))

    def visible(self, width: float) -> float:
        """A half width, but never thinner than the camera can show."""
        return max(width, 1.1 / self._image_size)

    def place(self, margin: float) -> Point:
        """A random place on the product, `margin` away from its edge where there is such a place."""
        small = resized(self.surface.solid, 64, method=Image.Resampling.BOX)
        small[:4] = small[-4:] = small[:, :4] = small[:, -4:] = 0
        inner = np.zeros((0, 2), np.intp)
        for distance in (margin, margin / 2, 0.0):
            inner = np.argwhere(ndimage.minimum_filter(small, 2 * round(distance * 32) + 1) > 0.9)
            if len(inner):
                break
        row, column = inner[int(self.rng.integers(len(inner)))]
        jitter = self.rng.random(2)
        return (float(column) + jitter[0]) / 32 - 1, (float(row) + jitter[1]) / 32 - 1

    def blob(
        self, centre: Point, radius: float, *, rough: float = 0.3, stretch: float = 1.6, octaves: int = 3
    ) -> Field:
        """Distance (size, size) from a ragged outline over its radius: -1 at the centre, 0 on the outline.

        rough: how far the outline strays, in radii. stretch: largest ratio of its length to its width."""
        angle, ratio = self.uniform(0, math.pi), math.sqrt(self.uniform(1.0, stretch))
        along, across = rotated(self.x - np.float32(centre[0]), self.y - np.float32(centre[1]), angle)
        distance = np.hypot(along / np.float32(radius * ratio), across * np.float32(ratio / radius)) - 1
        return distance + np.float32(rough) * self.fractal(1.1 / radius, octaves)


def _walk_across(
    site: DefectSite, heading: float, length: float, *, steps: int, wander: float, pull: float = 0.0
) -> Points:
    """A random walk whose middle would lie at a random place of the product if it ran straight."""
    x, y = site.place(0.12)
    start = (x - 0.5 * length * math.cos(heading), y - 0.5 * length * math.sin(heading))
    return random_walk(site.rng, start, heading, length, steps=steps, wander=wander, pull=pull)


def scratch(site: DefectSite) -> None:
    """One to three strokes of a hard point: grooves with raised lips that show what is beneath the skin."""
    length = site.uniform(0.25, 0.5) * (0.8 + 0.6 * site.strength)
    heading = site.uniform(0, 2 * math.pi)
    points = _walk_across(site, heading, length, steps=18, wander=0.02)
    for stroke in range(int(site.rng.choice([1, 1, 2, 3]))):
        gap = stroke * site.uniform(0.025, 0.05)
        beside = moved(points, -gap * math.sin(heading), gap * math.cos(heading))
        width = site.visible(site.uniform(0.004, 0.008)) * (1.0 if stroke == 0 else 0.8)
        distance, along = polyline_distance(beside, site.size, 5 * width)
        press = 1 + 0.25 * np.sin(along * np.float32(site.uniform(15, 40)) + np.float32(site.uniform(0, 6)))
        press *= smoothstep(along, 0.0, 0.12) * smoothstep(along, 1.0, 0.7) * site.surface.solid
        core = np.exp(-((distance / np.float32(width)) ** 2)) * press
        lip = np.exp(-(((distance - 1.9 * width) / np.float32(0.8 * width)) ** 2)) * press
        site.surface.height += np.float32(width * (0.5 + site.strength)) * (0.35 * lip - core)
        site.surface.paint(np.clip(core * (0.35 + 0.55 * site.strength), 0, 1), site.colour)


def dent(site: DefectSite) -> None:
    """A bowl pressed into the surface, with a slight wall around it; only light shows it."""
    radius = site.uniform(0.07, 0.13) * (0.7 + 0.5 * site.strength)
    distance = 1 + site.blob(site.place(radius), radius, rough=0.10, stretch=1.8, octaves=2)
    bowl = np.exp(-1.6 * np.maximum(distance, 0) ** 3)
    wall = np.exp(-(((distance - 1.25) / 0.3) ** 2))
    depth = np.float32(radius * (0.12 + 0.42 * site.strength))
    site.surface.height += depth * site.surface.solid * (0.12 * wall - bowl)
    site.surface.albedo *= 1 - 0.10 * np.float32(site.strength) * bowl * site.surface.solid


def stain(site: DefectSite) -> None:
    """A dried spill or a bloom of rust: a ragged cloudy patch with a darker rim, and a few splashes."""
    radius = site.uniform(0.08, 0.17) * (0.7 + 0.5 * site.strength)
    x, y = site.place(0.08)
    shape = site.blob((x, y), radius, rough=0.34, octaves=4)
    for _ in range(int(site.rng.integers(0, 4))):
        angle, distance = site.uniform(0, 2 * math.pi), radius * site.uniform(1.1, 1.8)
        centre = (x + distance * math.cos(angle), y + distance * math.sin(angle))
        shape = np.minimum(shape, site.blob(centre, radius * site.uniform(0.1, 0.25), rough=0.15))
    cloud = site.fractal(10, 3)
    rim = np.exp(-(((shape + 0.08) / 0.09) ** 2))
    cover = smoothstep(shape, 0.06, -0.10) * (0.75 + 0.16 * cloud) + 0.25 * rim
    cover = np.clip(cover * (0.30 + 0.45 * site.strength), 0, 0.92) * site.surface.solid
    site.surface.paint(cover, as_image(site.colour) * (1 + 0.10 * cloud), metal=0.0)
    site.surface.gloss *= 1 - 0.6 * cover


def crack(site: DefectSite) -> None:
    """A jagged fissure that thins out and branches; in material with a grain it runs along the grain."""
    length = site.uniform(0.40, 0.75) * (0.7 + 0.6 * site.strength)
    if site.grain_direction is None:
        bend, heading = 1.0, site.uniform(0, 2 * math.pi)
    else:
        bend, heading = 0.35, site.grain_direction + float(site.rng.normal(0, 0.08))
    points = _walk_across(site, heading, length, steps=30, wander=0.42 * bend, pull=0.35)
    width = site.visible(site.uniform(0.0045, 0.0075)) * (0.85 + 0.4 * site.strength)
    _fissure(site, points, width)
    for _ in range(int(site.rng.integers(0, 3))):
        root = points[int(site.rng.integers(5, 24))]
        fork = heading + bend * site.sign() * site.uniform(0.5, 1.1)
        reach = length * site.uniform(0.15, 0.35)
        branch = random_walk(site.rng, root, fork, reach, steps=12, wander=0.4 * bend, pull=0.35)
        _fissure(site, branch, 0.7 * width)


def _fissure(site: DefectSite, points: Points, width: float) -> None:
    """One run of a crack: black in the middle, its edges broken and lit."""
    distance, along = polyline_distance(points, site.size, 6 * width)
    ragged = np.maximum(1 + 0.3 * site.noise(60), 0.3)
    distance /= np.float32(width) * (1.15 - 0.75 * along) * ragged
    present = site.surface.solid * smoothstep(along, 1.0, 0.93)
    core, edge = smoothstep(distance, 1.35, 0.5) * present, smoothstep(distance, 3.2, 1.2) * present
    cover = np.clip(core * (0.45 + 0.5 * site.strength), 0, 1)
    site.surface.paint(cover, site.surface.under * np.float32(0.10), gloss=0.0, metal=0.0)
    site.surface.height -= np.float32(width) * (1.5 * core + 0.35 * edge)


def hole(site: DefectSite) -> None:
    """A small hole or pit: dark, deep, its rim torn up; fibres of the rim reach over it."""
    radius = site.visible(site.uniform(0.030, 0.055)) * (0.7 + 0.6 * site.strength)
    shape = site.blob(site.place(0.08), radius, rough=0.30, stretch=1.7)
    inner, rim = smoothstep(shape, 0.12, -0.22), np.exp(-(((shape - 0.2) / 0.22) ** 2))
    cover = inner * (0.62 + 0.3 * min(site.strength, 1.0))
    site.surface.paint(rim * 0.22, np.clip(site.surface.under * np.float32(1.5) + np.float32(0.08), 0, 1))
    site.surface.paint(cover, site.colour * np.float32(0.10), gloss=0.0, metal=0.0)
    site.surface.height += np.float32(radius) * (0.25 * rim - 0.9 * inner)


def snag(site: DefectSite) -> None:
    """A pulled thread: it stands out of the weave along its direction and squeezes its neighbours."""
    length = site.uniform(0.25, 0.5) * (0.7 + 0.6 * site.strength)
    x, y = site.place(0.15)
    heading = site.turn + float(site.rng.choice([0.0, math.pi / 2]))
    start = (x - 0.5 * length * math.cos(heading), y - 0.5 * length * math.sin(heading))
    points = random_walk(site.rng, start, heading, length, steps=24, wander=0.06)
    width = site.visible(site.uniform(0.014, 0.020)) * (0.8 + 0.4 * site.strength)
    distance, along = polyline_distance(points, site.size, 4 * width)
    taper = 0.35 + 0.65 * np.sin(np.float32(math.pi) * np.clip(along, 0.02, 0.98))
    local = distance / (np.float32(width) * taper)
    thread, squeezed = smoothstep(local, 1.1, 0.75), np.exp(-(((local - 1.7) / 0.6) ** 2))
    twist = 1 + 0.16 * np.sin(along * np.float32(length / width * 3.2) + distance * np.float32(1.5 / width))
    site.surface.albedo *= 1 - 0.38 * squeezed
    site.surface.paint(thread * 0.92, as_image(site.colour) * twist)
    bulge = thread * np.float32(1.1 * width) * np.sqrt(np.clip(1.2 - local, 0, 1))
    site.surface.height += bulge - np.float32(0.3 * width) * squeezed


def fibre(site: DefectSite) -> None:
    """A hair or a lint that fell on the part: thin, curled, with its own shadow."""
    length = site.uniform(0.35, 0.7) * (0.7 + 0.6 * site.strength)
    points = _walk_across(site, site.uniform(0, 2 * math.pi), length, steps=40, wander=0.13)
    width = site.visible(site.uniform(0.0045, 0.0085))
    distance, _ = polyline_distance(points, site.size, 4 * width)
    shadow, _ = polyline_distance(moved(points, 1.6 * width, 1.6 * width), site.size, 5 * width)
    site.surface.albedo *= 1 - 0.45 * np.exp(-((shadow / np.float32(1.7 * width)) ** 2))
    cover = smoothstep(distance, 1.25 * width, 0.6 * width)
    site.surface.paint(cover * (0.55 + 0.4 * min(site.strength, 1.0)), site.colour, gloss=0.05, metal=0.0)
    site.surface.height += cover * np.float32(0.8 * width)


def particle(site: DefectSite) -> None:
    """Foreign grains, chips, crumbs or solder balls, scattered about one place, each with its shadow."""
    x, y = site.place(0.10)
    shape = np.full((site.size, site.size), 9.0, np.float32)
    largest = site.visible(site.uniform(0.020, 0.034)) * (0.8 + 0.7 * site.strength)
    for number in range(int(site.rng.integers(1, 6))):
        radius = largest if number == 0 else largest * site.uniform(0.35, 0.8)
        dx, dy = site.rng.normal(0.0, 0.09, 2) if number else (0.0, 0.0)
        grain = site.blob((x + dx, y + dy), radius, rough=0.14, stretch=1.5, octaves=2)
        shape = np.minimum(shape, grain * np.float32(radius))
    edge = 0.5 * site.visible(0.006)
    offset = max(round(0.35 * largest / site.pixel), 1)
    shadow = smoothstep(np.roll(shape, (offset, offset), (0, 1)), 0.6 * largest, -0.2 * largest)
    body = smoothstep(shape, edge, -edge)
    site.surface.albedo *= 1 - 0.5 * shadow * (1 - body)
    facets = 1 + 0.12 * site.noise(60)
    cover = body * (0.65 + 0.3 * min(site.strength, 1.0))
    site.surface.paint(cover, as_image(site.colour) * facets, gloss=0.12, metal=0.1)
    dome = np.sqrt(np.clip(-shape / np.float32(largest), 0, 1)) * (0.75 + 0.25 * facets)
    site.surface.height += body * np.float32(0.9 * largest) * dome


def discolour(site: DefectSite) -> None:
    """A patch of another colour with soft borders: burnt, bleached or the wrong dye; the relief stays."""
    radius = site.uniform(0.16, 0.28) * (0.7 + 0.5 * site.strength)
    shape = site.blob(site.place(0.10), radius, rough=0.35, stretch=1.8)
    cover = smoothstep(shape, 0.45, -0.55) * (1 + 0.10 * site.fractal(8, 2)) * site.surface.solid
    cover = np.clip(cover * (0.22 + 0.5 * site.strength), 0, 0.9)
    grey = site.surface.albedo.mean(axis=0)
    mean = np.float32((grey * cover).sum() / max(float(cover.sum()), 1e-6))
    dyed = as_image(site.colour) * np.clip(grey / max(mean, np.float32(1e-3)), 0.5, 1.6)
    site.surface.paint(cover, dyed)


def smudge(site: DefectSite) -> None:
    """A wiped place: colour dragged along one direction under a dull greasy film."""
    radius = site.uniform(0.14, 0.24) * (0.7 + 0.5 * site.strength)
    shape = site.blob(site.place(0.12), radius, rough=0.25, stretch=2.2)
    cover = smoothstep(shape, 0.15, -0.25) * (0.45 + 0.5 * site.strength)
    cover = np.clip(cover, 0, 0.95) * site.surface.solid
    angle = site.uniform(0, math.pi)
    steps = [t * (0.03 + 0.05 * site.strength) / site.pixel for t in np.linspace(-1, 1, 9)]
    offsets = [(round(step * math.sin(angle)), round(step * math.cos(angle))) for step in steps]
    dragged = sum(np.roll(site.surface.albedo, offset, (1, 2)) for offset in offsets) / np.float32(9)
    streak = site.noise(70, 7, turn=angle)
    site.surface.paint(cover, (0.84 * dragged + 0.16 * as_image(site.colour)) * (1 + 0.10 * streak))
    site.surface.gloss *= 1 - 0.75 * cover


SURFACE: dict[str, Callable[[DefectSite], None]] = {
    function.__name__: function
    for function in (scratch, dent, stain, crack, hole, snag, fibre, particle, discolour, smudge)
}
"""Defects that are laid on a finished surface, by name."""
STRUCTURE: tuple[str, ...] = ("chip", "missing", "misplaced", "misprint")
"""Defects that a product's builder plants."""
