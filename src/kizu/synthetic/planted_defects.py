"""The defects that are laid on a finished surface, and the mask of what a defect changed.

Defects that need the drawing of the product itself (chip, missing, misplaced, misprint) live with the
products. Here each defect is a function of a Job; it changes the job's surface in place. `strength` runs from
about 0.3 (subtle) to 1 (obvious), and beyond when a first try was too faint to count."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from kizu.synthetic.planted_noise import Field, Points, fractal, grid, noise, path_distance, smooth, walk
from kizu.synthetic.planted_render import Scene, Surface, colour, tint

THRESHOLD = 4.0
"""A pixel counts as changed when the noise-free values differ by more than this many of 255 grey levels in
some colour."""
LEAST_CONTRAST = 9.0
"""Least mean change, in grey levels, over the mask."""
LEAST_AREA = 0.0006
"""Least area of a mask, as a share of the image."""


@dataclass
class Job:
    """One defect to lay: on which surface, how strong, in which colour (None: the colour beneath the skin)."""

    scene: Scene
    surface: Surface
    rng: np.random.Generator
    strength: float
    colour: Field | None

    @property
    def paint(self) -> Field:
        """The colour (3,) of the defect."""
        return self.surface.under if self.colour is None else self.colour

    def hair(self, width: float) -> float:
        """A half width, but never thinner than the camera can show."""
        return max(width, 1.1 / self.scene.size)

    def spot(self, margin: float) -> tuple[float, float]:
        """A random place on the product, `margin` away from its edge where that can be had."""
        small = np.array(
            Image.fromarray(self.surface.solid).resize((64, 64), Image.Resampling.BOX), np.float32
        )
        small[:4] = small[-4:] = small[:, :4] = small[:, -4:] = 0
        inner = np.zeros((0, 2), np.intp)
        for tries in (margin, margin / 2, 0.0):
            wide = 2 * round(tries * 32) + 1
            inner = np.argwhere(ndimage.minimum_filter(small, wide) > 0.9)
            if len(inner):
                break
        row, column = inner[int(self.rng.integers(len(inner)))]
        jitter = self.rng.random(2)
        return (float(column) + jitter[0]) / 32 - 1, (float(row) + jitter[1]) / 32 - 1

    def blob(
        self,
        centre: tuple[float, float],
        radius: float,
        *,
        rough: float = 0.3,
        stretch: float = 1.6,
        detail: int = 3,
    ) -> Field:
        """Distance from a ragged outline over its radius: -1 at the centre, 0 on the outline, growing
        outwards."""
        x, y = grid(self.scene.side)
        angle, ratio = float(self.rng.uniform(0, math.pi)), math.sqrt(float(self.rng.uniform(1.0, stretch)))
        dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
        along = (dx * math.cos(angle) + dy * math.sin(angle)) / np.float32(radius * ratio)
        across = (dy * math.cos(angle) - dx * math.sin(angle)) * np.float32(ratio / radius)
        return (
            np.hypot(along, across)
            - 1
            + np.float32(rough) * fractal(self.rng, self.scene.side, 1.1 / radius, detail)
        )

    def uniform(self, low: float, high: float) -> float:
        """A draw between two numbers."""
        return float(self.rng.uniform(low, high))


def _line(job: Job, heading: float, length: float, *, steps: int, wander: float, pull: float = 0.0) -> Points:
    """A walk through a place on the product."""
    x, y = job.spot(0.12)
    start = (x - 0.5 * length * math.cos(heading), y - 0.5 * length * math.sin(heading))
    return walk(job.rng, start, heading, length, steps=steps, wander=wander, pull=pull)


def scratch(job: Job) -> None:
    """One to three strokes of a hard point: a groove with raised lips that lays bare what is beneath."""
    length = job.uniform(0.25, 0.5) * (0.8 + 0.6 * job.strength)
    heading = job.uniform(0, 2 * math.pi)
    points = _line(job, heading, length, steps=18, wander=0.02)
    for stroke in range(int(job.rng.choice([1, 1, 2, 3]))):
        gap = stroke * job.uniform(0.025, 0.05)
        moved = [(x - gap * math.sin(heading), y + gap * math.cos(heading)) for x, y in points]
        width = job.hair(job.uniform(0.004, 0.008)) * (1.0 if stroke == 0 else 0.8)
        away, along = path_distance(moved, job.scene.side, 5 * width)
        press = 1 + 0.25 * np.sin(along * np.float32(job.uniform(15, 40)) + np.float32(job.uniform(0, 6)))
        press *= smooth(along, 0.0, 0.12) * smooth(along, 1.0, 0.7) * job.surface.solid
        core = np.exp(-((away / np.float32(width)) ** 2)) * press
        lip = np.exp(-(((away - 1.9 * width) / np.float32(0.8 * width)) ** 2)) * press
        job.surface.height += np.float32(width * (0.5 + job.strength)) * (0.35 * lip - core)
        job.surface.paint(np.clip(core * (0.35 + 0.55 * job.strength), 0, 1), job.paint)


def dent(job: Job) -> None:
    """A bowl pressed into the surface, with a slight wall around it; only light shows it."""
    radius = job.uniform(0.07, 0.13) * (0.7 + 0.5 * job.strength)
    away = 1 + job.blob(job.spot(radius), radius, rough=0.10, stretch=1.8, detail=2)
    bowl = np.exp(-1.6 * np.maximum(away, 0) ** 3)
    wall = np.exp(-(((away - 1.25) / 0.3) ** 2))
    deep = np.float32(radius * (0.12 + 0.42 * job.strength))
    job.surface.height += deep * job.surface.solid * (0.12 * wall - bowl)
    job.surface.albedo *= 1 - 0.10 * np.float32(job.strength) * bowl * job.surface.solid


def stain(job: Job) -> None:
    """A dried spill or a bloom of rust: a ragged patch with a darker rim, cloudy inside, and a few splashes."""
    radius = job.uniform(0.08, 0.17) * (0.7 + 0.5 * job.strength)
    x, y = job.spot(0.08)
    shape = job.blob((x, y), radius, rough=0.34, detail=4)
    for _ in range(int(job.rng.integers(0, 4))):
        angle, far = job.uniform(0, 2 * math.pi), radius * job.uniform(1.1, 1.8)
        shape = np.minimum(
            shape,
            job.blob(
                (x + far * math.cos(angle), y + far * math.sin(angle)),
                radius * job.uniform(0.1, 0.25),
                rough=0.15,
            ),
        )
    cloud = fractal(job.rng, job.scene.side, 10, 3)
    cover = smooth(shape, 0.06, -0.10) * (0.75 + 0.16 * cloud) + 0.25 * np.exp(
        -(((shape + 0.08) / 0.09) ** 2)
    )
    cover = np.clip(cover * (0.30 + 0.45 * job.strength), 0, 0.92) * job.surface.solid
    job.surface.paint(cover, tint(job.paint) * (1 + 0.10 * cloud), metal=0.0)
    job.surface.gloss *= 1 - 0.6 * cover


def _fissure(job: Job, points: Points, width: float) -> None:
    """One run of a crack: black in the middle, its edges broken and lit."""
    away, along = path_distance(points, job.scene.side, 6 * width)
    ragged = np.maximum(1 + 0.3 * noise(job.rng, job.scene.side, 60), 0.3)
    local = np.float32(width) * (1.15 - 0.75 * along) * ragged
    on = job.surface.solid * smooth(along, 1.0, 0.93)
    away /= local
    core, edge = smooth(away, 1.35, 0.5) * on, smooth(away, 3.2, 1.2) * on
    job.surface.paint(
        np.clip(core * (0.45 + 0.5 * job.strength), 0, 1),
        job.surface.under * np.float32(0.10),
        gloss=0.0,
        metal=0.0,
    )
    job.surface.height -= np.float32(width) * (1.5 * core + 0.35 * edge)


def crack(job: Job) -> None:
    """A jagged fissure that thins out and sends off branches."""
    length = job.uniform(0.40, 0.75) * (0.7 + 0.6 * job.strength)
    calm = 1.0 if job.scene.grain is None else 0.35
    heading = (
        job.uniform(0, 2 * math.pi)
        if job.scene.grain is None
        else job.scene.grain + float(job.rng.normal(0, 0.08))
    )
    points = _line(job, heading, length, steps=30, wander=0.42 * calm, pull=0.35)
    width = job.hair(job.uniform(0.0045, 0.0075)) * (0.85 + 0.4 * job.strength)
    _fissure(job, points, width)
    for _ in range(int(job.rng.integers(0, 3))):
        root = points[int(job.rng.integers(5, 24))]
        aside = heading + calm * float(job.rng.choice([-1, 1])) * job.uniform(0.5, 1.1)
        branch = walk(
            job.rng, root, aside, length * job.uniform(0.15, 0.35), steps=12, wander=0.4 * calm, pull=0.35
        )
        _fissure(job, branch, 0.7 * width)


def hole(job: Job) -> None:
    """A small hole or pit: dark, deep, its rim torn up; fibres of the rim reach over it."""
    radius = job.hair(job.uniform(0.030, 0.055)) * (0.7 + 0.6 * job.strength)
    x, y = job.spot(0.08)
    shape = job.blob((x, y), radius, rough=0.30, stretch=1.7)
    inner, rim = smooth(shape, 0.12, -0.22), np.exp(-(((shape - 0.2) / 0.22) ** 2))
    job.surface.paint(rim * 0.22, np.clip(job.surface.under * np.float32(1.5) + np.float32(0.08), 0, 1))
    job.surface.paint(
        inner * (0.62 + 0.3 * min(job.strength, 1.0)), job.paint * np.float32(0.10), gloss=0.0, metal=0.0
    )
    job.surface.height += np.float32(radius) * (0.25 * rim - 0.9 * inner)


def snag(job: Job) -> None:
    """A pulled thread: it stands out of the weave along its own direction, and its neighbours are squeezed."""
    length = job.uniform(0.25, 0.5) * (0.7 + 0.6 * job.strength)
    x, y = job.spot(0.15)
    heading = job.scene.turn + float(job.rng.choice([0.0, math.pi / 2]))
    start = (x - 0.5 * length * math.cos(heading), y - 0.5 * length * math.sin(heading))
    points = walk(job.rng, start, heading, length, steps=24, wander=0.06)
    width = job.hair(job.uniform(0.014, 0.020)) * (0.8 + 0.4 * job.strength)
    away, along = path_distance(points, job.scene.side, 4 * width)
    local = away / (
        np.float32(width) * (0.35 + 0.65 * np.sin(np.float32(math.pi) * np.clip(along, 0.02, 0.98)))
    )
    thread, squeezed = smooth(local, 1.1, 0.75), np.exp(-(((local - 1.7) / 0.6) ** 2))
    twist = 1 + 0.16 * np.sin(along * np.float32(length / width * 3.2) + away * np.float32(1.5 / width))
    job.surface.albedo *= 1 - 0.38 * squeezed
    job.surface.paint(thread * 0.92, tint(job.paint) * twist)
    job.surface.height += (
        thread * np.float32(1.1 * width) * np.sqrt(np.clip(1.2 - local, 0, 1))
        - np.float32(0.3 * width) * squeezed
    )


def fibre(job: Job) -> None:
    """A hair or a lint that fell on the part: thin, curled, with its own shadow."""
    length = job.uniform(0.35, 0.7) * (0.7 + 0.6 * job.strength)
    points = _line(job, job.uniform(0, 2 * math.pi), length, steps=40, wander=0.13)
    width = job.hair(job.uniform(0.0045, 0.0085))
    away, _ = path_distance(points, job.scene.side, 4 * width)
    moved = [(px + 1.6 * width, py + 1.6 * width) for px, py in points]
    shadow, _ = path_distance(moved, job.scene.side, 5 * width)
    job.surface.albedo *= 1 - 0.45 * np.exp(-((shadow / np.float32(1.7 * width)) ** 2))
    cover = smooth(away, 1.25 * width, 0.6 * width)
    job.surface.paint(cover * (0.55 + 0.4 * min(job.strength, 1.0)), job.paint, gloss=0.05, metal=0.0)
    job.surface.height += cover * np.float32(0.8 * width)


def particle(job: Job) -> None:
    """Grains that do not belong: chips, crumbs or solder balls, scattered about one place, each with its
    shadow."""
    x, y = job.spot(0.10)
    shape = np.full((job.scene.side, job.scene.side), 9.0, np.float32)
    largest = job.hair(job.uniform(0.020, 0.034)) * (0.8 + 0.7 * job.strength)
    for number in range(int(job.rng.integers(1, 6))):
        radius = largest if number == 0 else largest * job.uniform(0.35, 0.8)
        aside = job.rng.normal(0.0, 0.09, 2) if number else np.zeros(2)
        shape = np.minimum(
            shape,
            job.blob((x + aside[0], y + aside[1]), radius, rough=0.14, stretch=1.5, detail=2)
            * np.float32(radius),
        )
    soft = 0.5 * job.hair(0.006)
    move = max(round(0.35 * largest / job.scene.pixel), 1)
    shadow = smooth(np.roll(shape, (move, move), (0, 1)), 0.6 * largest, -0.2 * largest)
    body = smooth(shape, soft, -soft)
    job.surface.albedo *= 1 - 0.5 * shadow * (1 - body)
    facets = 1 + 0.12 * noise(job.rng, job.scene.side, 60)
    job.surface.paint(
        body * (0.65 + 0.3 * min(job.strength, 1.0)), tint(job.paint) * facets, gloss=0.12, metal=0.1
    )
    dome = np.sqrt(np.clip(-shape / np.float32(largest), 0, 1)) * (0.75 + 0.25 * facets)
    job.surface.height += body * np.float32(0.9 * largest) * dome


def discolour(job: Job) -> None:
    """A patch of another colour with soft borders: burnt, bleached or the wrong dye; the relief stays."""
    radius = job.uniform(0.16, 0.28) * (0.7 + 0.5 * job.strength)
    shape = job.blob(job.spot(0.10), radius, rough=0.35, stretch=1.8)
    cover = (
        smooth(shape, 0.45, -0.55) * (1 + 0.10 * fractal(job.rng, job.scene.side, 8, 2)) * job.surface.solid
    )
    cover = np.clip(cover * (0.22 + 0.5 * job.strength), 0, 0.9)
    grey = job.surface.albedo.mean(axis=0)
    mean = np.float32((grey * cover).sum() / max(float(cover.sum()), 1e-6))
    dyed = tint(job.paint) * np.clip(grey / max(mean, np.float32(1e-3)), 0.5, 1.6)
    job.surface.paint(cover, dyed)


def smudge(job: Job) -> None:
    """A wiped place: colour dragged along one direction under a dull greasy film."""
    radius = job.uniform(0.14, 0.24) * (0.7 + 0.5 * job.strength)
    shape = job.blob(job.spot(0.12), radius, rough=0.25, stretch=2.2)
    cover = np.clip(smooth(shape, 0.15, -0.25) * (0.45 + 0.5 * job.strength), 0, 0.95) * job.surface.solid
    angle = job.uniform(0, math.pi)
    taps = [t * (0.03 + 0.05 * job.strength) / job.scene.pixel for t in np.linspace(-1, 1, 9)]
    moves = [(round(t * math.sin(angle)), round(t * math.cos(angle))) for t in taps]
    dragged = sum(np.roll(job.surface.albedo, move, (1, 2)) for move in moves) / np.float32(len(moves))
    streak = noise(job.rng, job.scene.side, 70, 7, turn=angle)
    job.surface.paint(cover, (0.84 * dragged + 0.16 * tint(job.paint)) * (1 + 0.10 * streak))
    job.surface.gloss *= 1 - 0.75 * cover


SURFACE: dict[str, Callable[[Job], None]] = {
    "scratch": scratch,
    "dent": dent,
    "stain": stain,
    "crack": crack,
    "hole": hole,
    "snag": snag,
    "fibre": fibre,
    "particle": particle,
    "discolour": discolour,
    "smudge": smudge,
}
"""Defects laid on a finished surface."""
STRUCTURE: tuple[str, ...] = ("chip", "missing", "misplaced", "misprint")
"""Defects that a product's own drawing plants."""


def lay(
    name: str, scene: Scene, surface: Surface, rng: np.random.Generator, strength: float, paint: str | None
) -> None:
    """Lay a surface defect on `surface`, in place. `paint` is its colour as rrggbb, or None for the colour
    beneath the skin."""
    SURFACE[name](Job(scene, surface, rng, strength, None if paint is None else colour(paint)))


def changed(clean: Field, flawed: Field) -> np.ndarray:
    """Mask (H, W), True where two noise-free twins (3, H, W), in grey levels, differ by more than THRESHOLD.

    The change is averaged over a pixel's neighbours first (sigma 0.7 pixels at 256) and specks are dropped,
    gaps are closed: outlines come out smooth and without dust."""
    size = clean.shape[1]
    unit = max(size / 256, 0.5)
    level = ndimage.gaussian_filter(np.abs(flawed - clean).max(axis=0), 0.7 * unit, mode="nearest")
    mask = level > THRESHOLD
    reach = max(round(2 * unit), 1)
    disc = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1]) <= reach + 0.3
    mask = ndimage.binary_closing(np.pad(mask, 2 * reach), disc)[
        2 * reach : -2 * reach, 2 * reach : -2 * reach
    ]
    holes, number = ndimage.label(~mask)
    mask |= _small(holes, number, 30 * unit * unit)
    parts, number = ndimage.label(mask, np.ones((3, 3)))
    return mask & ~_small(parts, number, max(14 * unit * unit, 5))


def _small(labels: np.ndarray, number: int, area: float) -> np.ndarray:
    """True on the labelled parts (1 to `number`) smaller than `area` pixels."""
    little = np.bincount(labels.ravel(), minlength=number + 1) < area
    little[0] = False
    return little[labels]


def shows(mask: np.ndarray, clean: Field, flawed: Field) -> bool:
    """Whether a mask is large enough, and the change within it strong enough, to count as a visible defect."""
    if mask.sum() < max(LEAST_AREA * mask.size, 12):
        return False
    return bool(np.abs(flawed - clean).max(axis=0)[mask].mean() >= LEAST_CONTRAST)
