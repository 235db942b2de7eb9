"""The canvas of a scene: random draws, posed coordinates, and colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from kizu.synthetic import lighting
from kizu.synthetic.canvas import Canvas
from kizu.synthetic.noise import Field, rotated

T = TypeVar("T")


class SceneCanvas(Canvas):
    """One scene being drawn. Its images are float32 (3, size, size), 0 to 1.

    light: azimuth (radians) from which every relief and shadow of the scene is lit. All colours of a scene
    share one mood, drawn with the canvas: grey, one hue, two hues, or free."""

    def __init__(self, size: int, rng: Generator) -> None:
        super().__init__(size, rng)
        self._draws: list[float] = []
        self.light = self.uniform(0, 2 * math.pi)
        self._hue, self._mood = self.uniform(), self.uniform()

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A draw between two numbers. Drawn 64 at a time, which is several times faster than one by one."""
        if not self._draws:
            self._draws = self.rng.random(64).tolist()
        return low + (high - low) * self._draws.pop()

    def integer(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return min(int(self.uniform(low, high + 1)), high)

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.uniform() < probability

    def choice(self, options: Sequence[T]) -> T:
        """One of several."""
        return options[self.integer(0, len(options) - 1)]

    def pose(self, cells: float, *, zoom: float = 0.22, warp: float = 0.0) -> tuple[Field, Field, float]:
        """u, v (size, size) in cells, `cells` across the image, at any angle and place, sometimes in
        perspective; and the side of a pixel in cells.

        zoom: jitter of the scale, as a natural logarithm. warp: smooth displacement, in cells."""
        half = 0.5 * cells * math.exp(self.uniform(-zoom, zoom))
        u, v = rotated(self.x, self.y, self.uniform(0, 2 * math.pi))
        if self.chance(0.35):
            depth = 1 / (1 + self.uniform(-0.3, 0.3) * u + self.uniform(-0.3, 0.3) * v)
            u, v = u * depth, v * depth
        u, v = u * half + self.uniform(0, 16), v * half + self.uniform(0, 16)
        if warp:
            u += warp * self.smooth(3)
            v += warp * self.smooth(3)
        return u, v, half * self.pixel

    def pose_object(self, radius: float) -> tuple[Field, Field, float]:
        """u, v (size, size) about an object of that radius (in image units), turned, in units of its radius;
        and the side of a pixel in these units."""
        scale = 1 / (radius * math.exp(self.uniform(-0.2, 0.2)))
        x, y = self.x - self.uniform(-0.2, 0.2), self.y - self.uniform(-0.2, 0.2)
        u, v = rotated(x, y, self.uniform(0, 2 * math.pi))
        return u * scale, v * (scale * self.uniform(1.0, 1.25)), scale * self.pixel

    def palette(self, number: int) -> Field:
        """Colours (number, 3) of the scene's mood that differ in lightness."""
        order = self.rng.random((4, number), np.float32)
        spread, low = self.uniform(0.45, 0.85), self.uniform(0.06, 1.0)
        if number == 1:
            spread = 0.1
        light = np.linspace(0, spread, number, dtype=np.float32) + low * (0.94 - spread)
        light = light + (order[3] - 0.5) * (0.5 * spread / number)
        if self.chance(0.5):
            light = light[::-1]
        elif number > 2 and self.chance(0.5):
            light = light[np.argsort(order[0])]
        mood = self._mood
        hue = self._hue + (0.04 if mood < 0.5 else 0.12 if mood < 0.7 else 1.0) * order[1]
        if 0.5 < mood < 0.8:
            hue = hue + 0.5 * (order[2] > 0.5)
        saturation = 0.12 * mood / 0.25 if mood < 0.25 else 0.8
        chroma = np.minimum(light, 1 - light) * saturation * np.sqrt(order[2])
        thirds = np.array([0, 1 / 3, 2 / 3], np.float32)
        tint = chroma[:, None] * np.cos((2 * math.pi) * (hue[:, None] - thirds))
        return np.clip(light[:, None] + tint, 0.02, 0.98).astype(np.float32)

    def tone(self, contrast: float = 1.0, lightness: float = 0.0) -> Field:
        """One colour (3, 1, 1) of the palette, times `contrast` plus `lightness`."""
        return (self.palette(1)[0] * contrast + lightness)[:, None, None]

    def mix(self, t: Field, colours: Field | None = None) -> Field:
        """The image that has the first of two colours (2, 3) where t (size, size) is 0 and the second where
        it is 1; colours None: of the palette."""
        pair = self.palette(2) if colours is None else colours
        return pair[0][:, None, None] + t * (pair[1] - pair[0])[:, None, None]

    def ramp(self, t: Field, number: int) -> Field:
        """The image that runs through `number` colours as t (size, size) runs from 0 to 1."""
        colours = self.palette(number)
        stops, places = np.linspace(0, 1, number), np.linspace(0, 1, 256)
        table = np.stack([np.interp(places, stops, colours[:, k]) for k in range(3)]).astype(np.float32)
        return table.take((np.clip(t, 0, 1) * 255).astype(np.uint8), axis=1)

    def tones(self, keys: NDArray[np.int32], number: int) -> Field:
        """The image that gives each key (size, size), 0 to 1023, one of `number` colours, slightly varied."""
        table = self.palette(number)[self.rng.integers(0, number, 1024)]
        table *= 1 + 0.06 * self.rng.standard_normal((1024, 1), np.float32)
        return np.ascontiguousarray(table.T).take(keys, axis=1)

    def relief(self, height: Field) -> Field:
        """Factors (size, size) about 1 that the scene's light lays on a height map (pixels)."""
        return lighting.relief(height, self.light)

    def shadow(self, cover: Field, distance: float) -> Field:
        """A cover (size, size) moved away from the light by `distance`, a share of the image's side."""
        pixels = distance * self.size
        offset = -round(pixels * math.sin(self.light)), -round(pixels * math.cos(self.light))
        return np.roll(cover, offset, (0, 1))
