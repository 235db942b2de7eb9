"""From a product's surface to its photograph: pose, light, shading and camera of the planted products.

A product is a height map with colour, gloss and metal; light and camera turn it into pixels. Everything is
drawn larger (SUPER) and averaged down. Colours are linear reflectances, channel first; heights are in half
image widths."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy import ndimage

from kizu.synthetic.planted_noise import Field, fractal, grid, noise, smooth, window

SUPER = 1.5
"""Working pixels per image pixel and direction."""
BAND = 48
"""Rows lit at a time: as many as stay in a core's cache."""


def colour(code: str) -> Field:
    """Linear reflectance (3,) of a colour given as rrggbb."""
    value = np.array([int(code[k : k + 2], 16) for k in (0, 2, 4)], np.float32) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


def tint(values: Field) -> Field:
    """A colour (3,) shaped to meet channel-first images."""
    return values[:, None, None] if values.ndim == 1 else values


@dataclass
class Surface:
    """What the camera looks at; every array is (S, S) but `albedo` (3, S, S). `under` is the colour (3,)
    beneath the skin; what throws a shadow is `raised`, or `solid` when that is None."""

    albedo: Field
    height: Field
    gloss: Field
    metal: Field
    solid: Field
    under: Field
    shine: float = 40.0
    lift: float = 0.0
    raised: Field | None = None

    def copy(self) -> Surface:
        """The same surface with arrays of its own."""
        arrays = {
            name: getattr(self, name).copy() for name in ("albedo", "height", "gloss", "metal", "solid")
        }
        return dataclasses.replace(self, **arrays)

    def paint(
        self,
        cover: Field,
        paint: Field,
        *,
        gloss: float | None = None,
        metal: float | None = None,
        at: tuple = (...,),
    ) -> None:
        """Lay a colour (3,) or (3, ...) over the part `at` (an index of the last two axes), as far as `cover`
        in [0, 1] says."""
        for plane, value in zip(self.albedo, paint, strict=True):
            step = value - plane[at]
            step *= cover
            plane[at] += step
        for layer, value in ((self.gloss, gloss), (self.metal, metal)):
            if value is not None:
                step = np.float32(value) - layer[at]
                step *= cover
                layer[at] += step


@dataclass
class Scene:
    """One image about to be drawn: the working grid, the pose, the randomness, and the flaw a builder must
    plant, if any.

    `fresh` is the fracture a chip left, `grain` the direction (radians) along which the material splits.
    """

    size: int
    rng: np.random.Generator
    flaw: str | None = None
    flaw_rng: np.random.Generator = field(default_factory=np.random.default_rng)
    strength: float = 1.0
    fresh: Field | None = None
    grain: float | None = None

    def __post_init__(self) -> None:
        self.side = round(self.size * SUPER)
        self.pixel = 2.0 / self.side
        self.x, self.y = grid(self.side)
        self.pose(0.0)

    def pose(self, turn: float, *, shift: float = 0.0, zoom: float = 0.0) -> None:
        """Fix the product's own coordinates u, v: turned by up to `turn` degrees, shifted by up to `shift`,
        scaled by up to `zoom`."""
        rng = self.rng
        self.turn = math.radians(float(rng.uniform(-turn, turn)))
        self.dx, self.dy = (float(v) for v in rng.uniform(-shift, shift, 2))
        self.zoom = 1.0 + float(rng.uniform(-zoom, zoom))
        c, s = math.cos(self.turn) / self.zoom, math.sin(self.turn) / self.zoom
        x, y = self.x[:1] - np.float32(self.dx), self.y[:, :1] - np.float32(self.dy)
        self.u, self.v = x * np.float32(c) + y * np.float32(s), y * np.float32(c) - x * np.float32(s)

    def around(self, u: float, v: float, reach: float) -> tuple[slice, slice]:
        """The window of the image around a place of the product."""
        c, s = math.cos(self.turn) * self.zoom, math.sin(self.turn) * self.zoom
        return window(self.side, u * c - v * s + self.dx, u * s + v * c + self.dy, reach * self.zoom)

    def fine(self, count: float, *, pixels: float = 4.0) -> float:
        """`count` repetitions across the image, or as many as `pixels` image pixels each allow."""
        return min(count, self.size / pixels)

    def noise(self, rows: float, columns: float | None = None, *, turn: float = 0.0) -> Field:
        """Smooth noise from the product's own randomness."""
        return noise(self.rng, self.side, rows, columns, turn=turn)

    def fractal(self, count: float, octaves: int) -> Field:
        """Fractal noise from the product's own randomness."""
        return fractal(self.rng, self.side, count, octaves)

    def blank(
        self,
        paint: Field,
        *,
        gloss: float = 0.0,
        metal: float = 0.0,
        under: Field | None = None,
        shine: float = 40.0,
    ) -> Surface:
        """A flat surface of one colour (3,) or of an image (3, S, S)."""
        shape = (self.side, self.side)
        albedo = np.array(np.broadcast_to(tint(paint), (3, *shape)), np.float32)
        height, shiny, metallic, solid = (
            np.full(shape, value, np.float32) for value in (0.0, gloss, metal, 1.0)
        )
        return Surface(
            albedo, height, shiny, metallic, solid, under=paint if under is None else under, shine=shine
        )

    def stamp(
        self, canvas: Image.Image, *, shift: tuple[float, float] = (0.0, 0.0), turn: float = 0.0
    ) -> Field:
        """Coverage of a decal laid in the product's coordinates, moved by `shift` and turned by `turn`
        radians within them."""
        side, angle = canvas.size[0], self.turn + turn
        c, s = math.cos(angle) / self.zoom, math.sin(angle) / self.zoom
        ratio = side / self.side
        ct, st = math.cos(turn), math.sin(turn)
        mx, my = shift[0] * ct + shift[1] * st, shift[1] * ct - shift[0] * st
        cx, cy = (self.dx + 1) / 2 * self.side, (self.dy + 1) / 2 * self.side
        ax, ay = (
            side / 2 * (1 - mx) - ratio * (c * cx + s * cy),
            side / 2 * (1 - my) - ratio * (c * cy - s * cx),
        )
        data = (ratio * c, ratio * s, ax, -ratio * s, ratio * c, ay)
        done = canvas.transform(
            (self.side, self.side), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
        )
        return np.asarray(done, np.float32) / np.float32(255)

    def cut(self, distance: Field, *, where: Field | None = None) -> Field:
        """Bite a piece out of a body's edge when the flaw is a chip; the fracture is remembered in `fresh`."""
        if self.flaw != "chip":
            return distance
        rng = self.flaw_rng
        edge = np.abs(distance) < 2 * self.pixel
        edge &= (np.abs(self.x) < 0.86) & (np.abs(self.y) < 0.86)
        if where is not None:
            edge &= where > 0
        rows, columns = np.nonzero(edge)
        pick = int(rng.integers(len(rows)))
        radius = (0.05 + 0.10 * self.strength) * float(rng.uniform(0.8, 1.2))
        dx, dy = self.x - self.x[rows[pick], columns[pick]], self.y - self.y[rows[pick], columns[pick]]
        stretch, angle = float(rng.uniform(1.0, 1.7)), float(rng.uniform(0, math.pi))
        along, across = (
            dx * math.cos(angle) + dy * math.sin(angle),
            dy * math.cos(angle) - dx * math.sin(angle),
        )
        bite = np.sqrt((along / np.float32(stretch)) ** 2 + across**2) - np.float32(radius)
        bite += np.float32(0.22 * radius) * fractal(rng, self.side, 1.2 / radius, 3)
        self.fresh = bite
        return np.maximum(distance, -bite)


def break_edge(scene: Scene, surface: Surface, *, width: float = 0.035, depth: float = 0.02) -> None:
    """Colour and roughen the fracture that `Scene.cut` left, `width` wide, with the colour beneath the skin."""
    if scene.fresh is None:
        return
    near = smooth(scene.fresh, width, 0.3 * width) * surface.solid
    grain = fractal(scene.flaw_rng, scene.side, scene.fine(60), 2)
    surface.paint(near * 0.85, tint(surface.under) * (1 + 0.12 * grain), gloss=0.03)
    surface.height -= near * np.float32(depth) * (1 + 0.25 * grain)


@dataclass(frozen=True)
class Light:
    """Where the light comes from and what the camera makes of it; all values of one shot."""

    azimuth: float
    height: float
    ambient: float
    fall: tuple[float, float]
    power: float
    white: Field
    blur: float
    grain: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Light:
        """A shot of one station: the lamp stands upper left and is never put back exactly."""
        azimuth, height = math.radians(float(rng.normal(228, 9))), math.radians(float(rng.uniform(44, 56)))
        fall = tuple(float(v) for v in rng.normal(0.0, 0.05, 2))
        white = (1 + rng.normal(0.0, 0.012, 3)).astype(np.float32)
        power, ambient = float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12)), float(rng.uniform(0.36, 0.46))
        return cls(
            azimuth,
            height,
            ambient,
            (fall[0], fall[1]),
            power,
            white,
            float(rng.uniform(0.35, 0.6)),
            float(rng.uniform(1.0, 1.8)),
        )


def shade(surface: Surface, light: Light) -> Field:
    """Light a surface: (3, S, S) linear. Diffuse and glossy light from the normals, mirror light on metal,
    dark hollows, a cast shadow."""
    side = surface.height.shape[0]
    lx, ly = (
        math.cos(light.azimuth) * math.cos(light.height),
        math.sin(light.azimuth) * math.cos(light.height),
    )
    towards = (lx, ly, math.sin(light.height))
    open_sky = 1.0 - _hollows(surface.height)
    if surface.lift:
        open_sky -= _cast(surface, lx / towards[2], ly / towards[2])
    image = np.empty_like(surface.albedo)
    for top in range(0, side, BAND):
        rows = slice(top, min(top + BAND, side))
        factor, flash = _band(surface, light, towards, rows, open_sky[rows])
        np.multiply(surface.albedo[:, rows], factor, out=image[:, rows])
        image[:, rows] += flash
    return image


def _band(
    surface: Surface, light: Light, towards: tuple[float, float, float], rows: slice, open_sky: Field
) -> tuple[Field, Field]:
    """What a band of rows does with its own colour, and the light it throws back uncoloured."""
    side = surface.height.shape[0]
    x, y = grid(side)[0][:1], grid(side)[1][rows, :1]
    nx, ny, nz = _normals(surface.height, rows)
    lx, ly, lz = (np.float32(value) for value in towards)
    level = (
        np.float32(light.power) * (1.0 + np.float32(light.fall[0]) * x)
        + np.float32(light.power * light.fall[1]) * y
    )
    level *= (1.0 - 0.07 * x * x) - 0.07 * y * y
    sky = nx * lx + ny * ly
    lamp = np.maximum(sky + nz * lz, 0.0)
    factor = level * open_sky * (light.ambient * (0.35 + 0.65 * nz) + (1 - light.ambient) / lz * lamp)
    half = 1 / np.sqrt(2 + 2 * lz)
    mirror = (sky + nz * (1 + lz)) * half
    flash = (
        surface.gloss[rows]
        * level
        * np.exp((mirror - 1.0) * np.float32(surface.shine))
        * np.clip(open_sky, 0, 1)
    )
    metal = surface.metal[rows]
    if metal.any():
        sky *= np.float32(-1 / math.cos(light.height))
        room = (
            0.50
            + 0.42 * np.sin(1.1 - 2.6 * sky)
            + 0.10 * np.sin(5.0 * sky + 1.0)
            + 0.25 * np.clip(mirror, 0, 1) ** 12
        )
        factor += metal * (level * np.clip(open_sky, 0.15, 1) * room - factor)
    return factor, flash


def _normals(height: Field, rows: slice) -> tuple[Field, Field, Field]:
    """Unit normals of a band of a height map, by central differences; level at the image's edge."""
    side = height.shape[0]
    slope = np.float32(-side / 4)
    band = height[rows]
    nx, ny = np.zeros_like(band), np.zeros_like(band)
    np.multiply(band[:, 2:] - band[:, :-2], slope, out=nx[:, 1:-1])
    first, last = max(rows.start, 1), min(rows.stop, side - 1)
    np.multiply(
        height[first + 1 : last + 1] - height[first - 1 : last - 1],
        slope,
        out=ny[first - rows.start : last - rows.start],
    )
    nz = 1.0 / np.sqrt(1.0 + nx * nx + ny * ny)
    nx *= nz
    ny *= nz
    return nx, ny, nz


def _quarter(values: Field) -> Field:
    """A field at a quarter of its size."""
    small = (max(values.shape[0] // 4, 1),) * 2
    return np.asarray(Image.fromarray(values).resize(small, Image.Resampling.BOX), np.float32)


def _full(values: Field, side: int) -> Field:
    """A quarter-size field back at its full size."""
    return np.array(Image.fromarray(values).resize((side, side), Image.Resampling.BILINEAR), np.float32)


def _hollows(height: Field) -> Field:
    """How much of the sky hollows lose, 0 to 0.6: where the height lies below its own blur."""
    small = _quarter(height)
    sky = _full(
        ndimage.gaussian_filter(small, 0.025 * small.shape[0], mode="nearest", truncate=3.0), height.shape[0]
    )
    sky -= height
    sky *= np.float32(2.2)
    return np.clip(sky, 0.0, 0.6, out=sky)


def _cast(surface: Surface, slope_x: float, slope_y: float) -> Field:
    """The soft shadow, 0 to 0.6, that a body standing `lift` above its ground throws beside itself."""
    body = surface.solid if surface.raised is None else surface.raised
    small = _quarter(body)
    reach = surface.lift * small.shape[0] / 2
    moved = ndimage.shift(small, (-slope_y * reach, -slope_x * reach), order=1, mode="nearest")
    moved = ndimage.gaussian_filter(
        0.65 * moved + 0.35 * small, 0.35 * reach + 0.5, mode="nearest", truncate=3.0
    )
    shadow = _full(np.float32(0.6) * np.clip(moved, 0, 1), body.shape[0])
    return shadow * (1 - body)


def expose(image: Field, light: Light, size: int) -> Field:
    """The camera before its noise: average down, blur, white balance and the display curve; (3, H, W) in grey
    levels 0 to 255."""
    planes = [Image.fromarray(plane).resize((size, size), Image.Resampling.HAMMING) for plane in image]
    small = np.stack([np.asarray(plane, np.float32) for plane in planes])
    sigma = light.blur * max(size / 256, 0.7)
    small = ndimage.gaussian_filter(small, (0, sigma, sigma), mode="nearest", truncate=2.5)
    linear = np.clip(small * tint(light.white), 0.0, None)
    rolled = np.where(linear > 0.8, 0.8 + 0.2 * np.tanh((linear - 0.8) * 2.5), linear)
    return (255 * np.clip(1.055 * np.maximum(rolled, 1e-7) ** (1 / 2.4) - 0.055, 0.0, 1.0)).astype(np.float32)


def grain(rng: np.random.Generator, light: Light, size: int) -> Field:
    """Sensor noise (3, H, W) of unit kind: white, a little of it shared by the colours and by neighbours, as
    a Bayer mosaic leaves it."""
    own = rng.standard_normal((3, size, size), dtype=np.float32)
    noisy = np.float32(0.45 * light.grain) * own
    noisy[:, :, 1:] += np.float32(0.30 * light.grain) * own[:, :, :-1]
    noisy += np.float32(0.38 * light.grain) * own.sum(axis=0)
    return noisy


def develop(levels: Field, noise_field: Field) -> np.ndarray:
    """Noise, stronger in the dark half of the curve, and rounding: (3, H, W) levels to (H, W, 3) uint8."""
    noisy = levels + noise_field * (1.25 - 0.5 * levels / 255)
    return np.ascontiguousarray(np.clip(noisy + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0))
