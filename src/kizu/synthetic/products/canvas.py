"""The canvas of a product: its raster, its pose in the image, and the defect that its drawing must plant."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator
from PIL import Image

from kizu.synthetic.canvas import Canvas
from kizu.synthetic.lighting import Surface, as_image, linear_colour
from kizu.synthetic.noise import Field, fractal_noise, rotated
from kizu.synthetic.shapes import Point, moved, smoothstep, window

SUPERSAMPLING = 1.5
"""Pixels of the raster per image pixel and direction; the camera averages them down."""


class ProductCanvas(Canvas):
    """One product being drawn, for an image of `image_size` pixels a side, at SUPERSAMPLING times that size.

    u, v (size, size): the product's coordinates, set by `pose`. edge: width over which an outline fades, one
    and a half pixels. defect, strength, defect_rng: what a builder must plant, how strongly (0.3 to 1.8), and
    its own randomness: nothing of a defect is drawn from `rng`, so that the rest of the product stays as it
    is. chipped: signed distance to the piece that a chip broke out. grain_direction: along which the material
    splits, in radians.
    """

    def __init__(
        self,
        image_size: int,
        rng: Generator,
        defect: str = "",
        defect_rng: Generator | None = None,
        strength: float = 1,
    ) -> None:
        super().__init__(round(image_size * SUPERSAMPLING), rng)
        self.image_size, self.edge = image_size, 1.5 * self.pixel
        self.defect, self.strength = defect, strength
        self.defect_rng = rng if defect_rng is None else defect_rng
        self.chipped: Field | None = None
        self.grain_direction: float | None = None
        self.pose(0.0)

    def pose(self, turn: float, *, shift: float = 0.0, zoom: float = 0.0) -> None:
        """Draw the product's pose: turned by up to `turn` degrees, shifted by up to `shift`, scaled by up to
        `zoom`, each in both directions."""
        rng = self.rng
        self.turn = math.radians(float(rng.uniform(-turn, turn)))
        self.dx, self.dy = (float(v) for v in rng.uniform(-shift, shift, 2))
        self.zoom = 1.0 + float(rng.uniform(-zoom, zoom))
        x, y = self.x[:1] - np.float32(self.dx), self.y[:, :1] - np.float32(self.dy)
        self.u, self.v = rotated(x, y, self.turn, self.zoom)

    def around(self, u: float, v: float, reach: float) -> tuple[slice, slice]:
        """The window of the raster around a place of the product."""
        c, s = math.cos(self.turn) * self.zoom, math.sin(self.turn) * self.zoom
        return window(self.size, u * c - v * s + self.dx, u * s + v * c + self.dy, reach * self.zoom)

    def fine(self, count: float, *, pixels: float = 4.0) -> float:
        """`count` repetitions across the image, or as many as leave each of them `pixels` image pixels."""
        return min(count, self.image_size / pixels)

    def blank(
        self, colour: str, *, gloss: float = 0.0, metal: float = 0.0, under: str, shine: float = 40.0
    ) -> Surface:
        """A flat surface of one colour, with another under its skin; both as rrggbb."""
        shape = (self.size, self.size)
        albedo = np.array(np.broadcast_to(as_image(colour), (3, *shape)), np.float32)
        height, glossy, metallic, solid = (
            np.full(shape, value, np.float32) for value in (0, gloss, metal, 1)
        )
        return Surface(albedo, height, glossy, metallic, solid, linear_colour(under), shine)

    def stamp(self, decal: Image.Image, *, shift: Point = (0.0, 0.0), turn: float = 0.0) -> Field:
        """Coverage (size, size), 0 to 1, of a grey decal that is laid in the product's coordinates, moved by
        `shift` and turned by `turn` radians within them."""
        side, angle = decal.size[0], self.turn + turn
        c, s = math.cos(angle) / self.zoom, math.sin(angle) / self.zoom
        ratio = side / self.size
        mx, my = moved([shift], turn=-turn)[0]
        cx, cy = (self.dx + 1) / 2 * self.size, (self.dy + 1) / 2 * self.size
        ax = side / 2 * (1 - mx) - ratio * (c * cx + s * cy)
        ay = side / 2 * (1 - my) - ratio * (c * cy - s * cx)
        affine = (ratio * c, ratio * s, ax, -ratio * s, ratio * c, ay)
        canvas = (self.size, self.size)
        posed = decal.transform(canvas, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        return np.asarray(posed, np.float32) / np.float32(255)

    def chip(self, distance: Field, *, where: Field | None = None) -> Field:
        """The signed distance of a body, with a piece broken out of its edge (where `where` is positive) if
        the defect is a chip; the piece is kept in `chipped`."""
        if self.defect != "chip":
            return distance
        rng = self.defect_rng
        edge = np.abs(distance) < 2 * self.pixel
        edge &= (np.abs(self.x) < 0.86) & (np.abs(self.y) < 0.86)
        if where is not None:
            edge &= where > 0
        rows, columns = np.nonzero(edge)
        pick = int(rng.integers(len(rows)))
        radius = (0.05 + 0.10 * self.strength) * float(rng.uniform(0.8, 1.2))
        dx, dy = self.x - self.x[rows[pick], columns[pick]], self.y - self.y[rows[pick], columns[pick]]
        stretch, angle = float(rng.uniform(1.0, 1.7)), float(rng.uniform(0, math.pi))
        along, across = rotated(dx, dy, angle)
        piece = np.sqrt((along / np.float32(stretch)) ** 2 + across**2) - np.float32(radius)
        piece += np.float32(0.22 * radius) * fractal_noise(rng, self.size, 1.2 / radius, 3)
        self.chipped = piece
        return np.maximum(distance, -piece)

    def fracture(self, surface: Surface, *, width: float = 0.035, depth: float = 0.02) -> None:
        """Give the rim that a chip left, `width` wide, the colour beneath the skin, and roughen it."""
        if self.chipped is None:
            return
        near = smoothstep(self.chipped, width, 0.3 * width) * surface.solid
        rough = fractal_noise(self.defect_rng, self.size, self.fine(60), 2)
        surface.paint(near * 0.85, as_image(surface.under) * (1 + 0.12 * rough), gloss=0.03)
        surface.height -= near * np.float32(depth) * (1 + 0.25 * rough)
