"""Light on a surface: what a height map with colour, gloss and metal looks like under one lamp.

Colours are linear reflectances, channel first; heights are in image units (half an image is 1)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from types import EllipsisType
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy import ndimage

from kizu.synthetic.noise import Field, grid, resized

BILINEAR = Image.Resampling.BILINEAR
Colour: TypeAlias = Field | str
"""Linear reflectance (3,) or (3, H, W), or an sRGB colour as rrggbb."""
Window: TypeAlias = tuple[slice, slice] | EllipsisType
"""Rows and columns of a raster; ... for all of it."""
BAND = 48
"""Rows lit at a time: as many as stay in a core's cache."""


def linear_colour(code: str) -> Field:
    """Linear reflectance (3,) of an sRGB colour given as rrggbb.

    >>> linear_colour("ff8000").round(3).tolist()
    [1.0, 0.2160000056028366, 0.0]
    """
    value = np.array([int(code[k : k + 2], 16) for k in (0, 2, 4)], np.float32) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


def as_image(colour: Colour) -> Field:
    """A colour (3,), or rrggbb, as (3, 1, 1), to meet images (3, H, W); an image stays as it is."""
    if isinstance(colour, str):
        colour = linear_colour(colour)
    return colour[:, None, None] if colour.ndim == 1 else colour


@dataclass
class Surface:
    """What the camera looks at: every array is (S, S), but `albedo` (3, S, S).

    gloss: strength of the highlights; shine: their sharpness. metal: share of mirrored surroundings. solid:
    where the product is, 0 to 1. under: the colour (3,) beneath the skin. What throws a shadow is `raised`,
    or `solid` where that is None; it stands `lift` above the ground."""

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
        """A copy that can be painted without changing this surface."""
        names = ("albedo", "height", "gloss", "metal", "solid")
        return dataclasses.replace(self, **{name: getattr(self, name).copy() for name in names})

    def paint(
        self,
        cover: Field,
        colour: Colour,
        *,
        gloss: float | None = None,
        metal: float | None = None,
        at: Window = ...,
    ) -> None:
        """Blend in a colour ((3,), (3, ...) or rrggbb), gloss and metal, as far as `cover` in [0, 1] says.

        at: the rows and columns that `cover` spans."""
        values = linear_colour(colour) if isinstance(colour, str) else colour
        layers = [*zip(self.albedo, values, strict=True), (self.gloss, gloss), (self.metal, metal)]
        for layer, value in layers:
            if value is not None:
                step = np.asarray(value, np.float32) - layer[at]
                step *= cover
                layer[at] += step


@dataclass(frozen=True)
class Light:
    """One shot: the lamp's direction (azimuth and height, radians), the share of ambient light, how light
    falls off across the image, exposure, white balance (3,), and the camera's blur (pixels at 256) and
    noise."""

    azimuth: float
    height: float
    ambient: float
    falloff: tuple[float, float]
    power: float
    white: Field
    blur: float
    grain: float

    @classmethod
    def draw(cls, rng: Generator) -> Light:
        """A shot of one inspection station: its lamp stands at the upper left, never quite in its place."""
        azimuth, height = math.radians(float(rng.normal(228, 9))), math.radians(float(rng.uniform(44, 56)))
        falloff_x, falloff_y = (float(v) for v in rng.normal(0.0, 0.05, 2))
        white = (1 + rng.normal(0.0, 0.012, 3)).astype(np.float32)
        power, ambient = float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12)), float(rng.uniform(0.36, 0.46))
        blur, grain = float(rng.uniform(0.35, 0.6)), float(rng.uniform(1.0, 1.8))
        return cls(azimuth, height, ambient, (falloff_x, falloff_y), power, white, blur, grain)

    @property
    def direction(self) -> tuple[float, float, float]:
        """Unit vector (x, y, z) towards the lamp; z towards the camera."""
        flat = math.cos(self.height)
        return math.cos(self.azimuth) * flat, math.sin(self.azimuth) * flat, math.sin(self.height)


def relief(height: Field, azimuth: float) -> Field:
    """Factors (size, size) about 1 that light from one side (radians) lays on a height map (pixels): the
    quick way to light, by the slope alone."""
    shade = np.ones_like(height)
    shade[:, 1:-1] += (height[:, 2:] - height[:, :-2]) * (0.5 * math.cos(azimuth))
    shade[1:-1] += (height[2:] - height[:-2]) * (0.5 * math.sin(azimuth))
    return np.clip(shade, 0.25, 1.9)


def shade(surface: Surface, light: Light) -> Field:
    """The lit surface (3, S, S), linear: diffuse and glossy light from the normals, mirrored surroundings on
    metal, dark hollows, and a cast shadow."""
    size = surface.height.shape[0]
    lx, ly, lz = light.direction
    open_sky = 1.0 - _hollows(surface.height)
    if surface.lift:
        open_sky -= _cast_shadow(surface, lx / lz, ly / lz)
    image = np.empty_like(surface.albedo)
    for top in range(0, size, BAND):
        rows = slice(top, min(top + BAND, size))
        factor, flash = _light_band(surface, light, rows, open_sky[rows])
        np.multiply(surface.albedo[:, rows], factor, out=image[:, rows])
        image[:, rows] += flash
    return image


def _light_band(surface: Surface, light: Light, rows: slice, open_sky: Field) -> tuple[Field, Field]:
    """For a band of rows: the factor on its own colour, and the light that it reflects uncoloured (Blinn and
    Phong's highlight, the half vector standing between lamp and camera)."""
    x, y = grid(surface.height.shape[0])[0][:1], grid(surface.height.shape[0])[1][rows, :1]
    nx, ny, nz = _normals(surface.height, rows)
    lx, ly, lz = (np.float32(value) for value in light.direction)
    level = np.float32(light.power) * (1.0 + np.float32(light.falloff[0]) * x)
    level = level + np.float32(light.power * light.falloff[1]) * y
    level *= (1.0 - 0.07 * x * x) - 0.07 * y * y
    side = nx * lx + ny * ly
    lamp = np.maximum(side + nz * lz, 0.0)
    factor = level * open_sky * (light.ambient * (0.35 + 0.65 * nz) + (1 - light.ambient) / lz * lamp)
    mirror = (side + nz * (1 + lz)) * (1 / np.sqrt(2 + 2 * lz))
    highlight = np.exp((mirror - 1.0) * np.float32(surface.shine))
    flash = surface.gloss[rows] * level * highlight * np.clip(open_sky, 0, 1)
    metal = surface.metal[rows]
    if metal.any():
        side *= np.float32(-1 / math.cos(light.height))
        surroundings = 0.50 + 0.42 * np.sin(1.1 - 2.6 * side) + 0.10 * np.sin(5.0 * side + 1.0)
        surroundings = surroundings + 0.25 * np.clip(mirror, 0, 1) ** 12
        factor += metal * (level * np.clip(open_sky, 0.15, 1) * surroundings - factor)
    return factor, flash


def _normals(height: Field, rows: slice) -> tuple[Field, Field, Field]:
    """Unit normals of a band of a height map, by central differences; level at the image's edge."""
    size = height.shape[0]
    slope = np.float32(-size / 4)
    band = height[rows]
    nx, ny = np.zeros_like(band), np.zeros_like(band)
    np.multiply(band[:, 2:] - band[:, :-2], slope, out=nx[:, 1:-1])
    first, last = max(rows.start, 1), min(rows.stop, size - 1)
    rise = height[first + 1 : last + 1] - height[first - 1 : last - 1]
    np.multiply(rise, slope, out=ny[first - rows.start : last - rows.start])
    nz = 1.0 / np.sqrt(1.0 + nx * nx + ny * ny)
    nx *= nz
    ny *= nz
    return nx, ny, nz


def _hollows(height: Field) -> Field:
    """The share of the sky that hollows lose, 0 to 0.6: where the height lies below its own blur."""
    small = _quarter(height)
    blurred = ndimage.gaussian_filter(small, 0.025 * small.shape[0], mode="nearest", truncate=3.0)
    lost = resized(blurred, height.shape[0], method=BILINEAR)
    lost -= height
    lost *= np.float32(2.2)
    return np.clip(lost, 0.0, 0.6, out=lost)


def _cast_shadow(surface: Surface, slope_x: float, slope_y: float) -> Field:
    """The soft shadow, 0 to 0.6, that a body standing `lift` above its ground throws beside itself."""
    body = surface.solid if surface.raised is None else surface.raised
    small = _quarter(body)
    reach = surface.lift * small.shape[0] / 2
    shifted = ndimage.shift(small, (-slope_y * reach, -slope_x * reach), order=1, mode="nearest")
    soft = 0.65 * shifted + 0.35 * small
    soft = ndimage.gaussian_filter(soft, 0.35 * reach + 0.5, mode="nearest", truncate=3.0)
    return resized(np.float32(0.6) * np.clip(soft, 0, 1), body.shape[0], method=BILINEAR) * (1 - body)


def _quarter(values: Field) -> Field:
    """A field at a quarter of its size: soft shadows need no more."""
    return resized(values, max(values.shape[0] // 4, 1), method=Image.Resampling.BOX)
