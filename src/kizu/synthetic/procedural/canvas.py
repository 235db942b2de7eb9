"""What every family draws with: random numbers, posed coordinates, colours, noise, relief, and the camera at
the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kizu.synthetic.procedural.noise import Field, frequencies, grid, smooth, spectral, turned

T = TypeVar("T")
FLOOR = 0.11
"""Least standard deviation, on the scale 0 to 1, of an image before the camera."""


class Canvas:
    """One image in the making: `size` pixels a side, all randomness from `rng`. Images are float32 (3,
    size, size), 0 to 1."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng
        self.x, self.y = grid(size)
        self.pixel = 2 / size
        self._draws: list[float] = []
        self.light = self.u(0, 2 * math.pi)
        self._hue, self._tint = self.u(), self.u()

    def u(self, low: float = 0.0, high: float = 1.0) -> float:
        """A draw between two numbers."""
        if not self._draws:
            self._draws = self.rng.random(64).tolist()
        return low + (high - low) * self._draws.pop()

    def whole(self, low: int, high: int) -> int:
        """A whole draw, both ends included."""
        return min(int(self.u(low, high + 1)), high)

    def chance(self, share: float) -> bool:
        """True in this share of the draws."""
        return self.u() < share

    def pick(self, of: Sequence[T]) -> T:
        """One of several."""
        return of[self.whole(0, len(of) - 1)]

    def pose(self, cells: float, *, zoom: float = 0.22, warp: float = 0.0) -> tuple[Field, Field, float]:
        """u, v (size, size) in cells, `cells` across the image, at any angle and place, and the size of a
        pixel in cells.

        zoom: jitter of the scale, as a logarithm. warp: smooth displacement, in cells.
        """
        half = 0.5 * cells * math.exp(self.u(-zoom, zoom))
        u, v = turned(self.x, self.y, self.u(0, 2 * math.pi))
        if self.chance(0.35):
            depth = 1 / (1 + self.u(-0.3, 0.3) * u + self.u(-0.3, 0.3) * v)
            u, v = u * depth, v * depth
        u, v = u * half + self.u(0, 16), v * half + self.u(0, 16)
        if warp:
            u += warp * self.smooth(3)
            v += warp * self.smooth(3)
        return u, v, half * self.pixel

    def place(self, radius: float) -> tuple[Field, Field, float]:
        """u, v (size, size) about a body of that radius (image: -1 to 1), in units of the radius, turned;
        and a pixel in these units."""
        scale = 1 / (radius * math.exp(self.u(-0.2, 0.2)))
        u, v = turned(self.x - self.u(-0.2, 0.2), self.y - self.u(-0.2, 0.2), self.u(0, 2 * math.pi))
        u, v = u * scale, v * (scale * self.u(1.0, 1.25))
        return u, v, scale * self.pixel

    def smooth(self, cells: int) -> Field:
        """Smooth noise of that many cells a side, deviation about 1."""
        return smooth(self.rng, self.size, min(cells, self.size // 2))

    def cloud(self, power: float, *, aspect: float = 1.0, turn: float = 0.0) -> Field:
        """Noise of amplitude 1 / f^power, deviation 1; `aspect` times longer along the direction `turn`
        (radians)."""
        fx, fy = turned(*frequencies(self.size), turn)
        squared = fx * fx * aspect**2 + fy * fy + 0.5
        return spectral(self.rng, squared ** (-0.5 * power))

    def band(self, frequency: float, width: float) -> Field:
        """Noise about one frequency (cycles per image) in all directions, deviation 1; width: octaves, as a
        logarithm."""
        fx, fy = frequencies(self.size)
        octave = np.log((fx * fx + fy * fy + 1e-3) / self.within(frequency) ** 2) * (0.5 / width)
        return spectral(self.rng, np.exp(-0.5 * octave * octave))

    def gabor(self, frequency: float, width: float, turn: float) -> Field:
        """Noise about one frequency (cycles per image) in the direction `turn` (radians), deviation 1;
        width: cycles per image."""
        fx, fy = frequencies(self.size)
        frequency = self.within(frequency)
        dx, dy = (
            np.abs(fx - frequency * abs(math.cos(turn))),
            fy - math.copysign(frequency * math.sin(turn), math.sin(2 * turn)),
        )
        return spectral(self.rng, np.exp((dx * dx + dy * dy) * (-0.5 / width**2)))

    def within(self, frequency: float) -> float:
        """A frequency (cycles per image) that the image can show: three pixels a cycle or more."""
        return min(frequency, self.size / 3)

    def palette(self, number: int) -> Field:
        """Colours (number, 3) that differ in lightness, of one mood: grey, one hue, two hues, or free."""
        order = self.rng.random((4, number), np.float32)
        spread, low = self.u(0.45, 0.85), self.u(0.06, 1.0)
        if number == 1:
            spread = 0.1
        light = (
            np.linspace(0, spread, number, dtype=np.float32)
            + low * (0.94 - spread)
            + (order[3] - 0.5) * (0.5 * spread / number)
        )
        if self.chance(0.5):
            light = light[::-1]
        elif number > 2 and self.chance(0.5):
            light = light[np.argsort(order[0])]
        mood = self._tint
        hue = self._hue + (0.04 if mood < 0.5 else 0.12 if mood < 0.7 else 1.0) * order[1]
        if 0.5 < mood < 0.8:
            hue = hue + 0.5 * (order[2] > 0.5)
        full = 0.12 * mood / 0.25 if mood < 0.25 else 0.8
        chroma = np.minimum(light, 1 - light) * full * np.sqrt(order[2])
        third = np.array([0, 1 / 3, 2 / 3], np.float32)
        return np.clip(
            light[:, None] + chroma[:, None] * np.cos((2 * math.pi) * (hue[:, None] - third)), 0.02, 0.98
        ).astype(np.float32)

    def mix(self, t: Field, colours: Field | None = None) -> Field:
        """The image that is the first of two colours (2, 3) where t (size, size) is 0 and the second where
        t is 1."""
        pair = self.palette(2) if colours is None else colours
        return pair[0][:, None, None] + t * (pair[1] - pair[0])[:, None, None]

    def ramp(self, t: Field, number: int) -> Field:
        """The image that runs through `number` colours as t (size, size) runs from 0 to 1."""
        colours = self.palette(number)
        stops, places = np.linspace(0, 1, number), np.linspace(0, 1, 256)
        table = np.stack([np.interp(places, stops, colours[:, k]) for k in range(3)]).astype(np.float32)
        return table.take((np.clip(t, 0, 1) * 255).astype(np.uint8), axis=1)

    def tones(self, keys: NDArray[np.int32], number: int) -> Field:
        """The image that gives each key (size, size), 0 to 1023, one of `number` colours."""
        table = self.palette(number)[self.rng.integers(0, number, 1024)]
        table *= 1 + 0.06 * self.rng.standard_normal((1024, 1), np.float32)
        return np.ascontiguousarray(table.T).take(keys, axis=1)

    def relief(self, height: Field) -> Field:
        """Factors (size, size) about 1 that light from one side lays on a height (pixels)."""
        shade = np.ones_like(height)
        shade[:, 1:-1] += (height[:, 2:] - height[:, :-2]) * (0.5 * math.cos(self.light))
        shade[1:-1] += (height[2:] - height[:-2]) * (0.5 * math.sin(self.light))
        return np.clip(shade, 0.25, 1.9)

    def grain(self, amount: float) -> Field:
        """Factors (size, size) about 1 of fine grain."""
        return 1 + amount * self.rng.standard_normal((self.size, self.size), np.float32)


def step(d: Field, width: float) -> Field:
    """1 where d < 0, 0 where d > 0, with an edge of that width."""
    return np.clip(0.5 - d * (1 / width), 0, 1)


def unit(field: Field, spread: float = 0.22) -> Field:
    """Noise of deviation 1 brought to about 0 to 1."""
    return np.clip(0.5 + spread * field, 0, 1)


def wave(t: Field) -> Field:
    """A wave between 0 and 1 with period 1."""
    return 0.5 + 0.5 * np.sin(t * (2 * math.pi))


def ridge(t: Field) -> Field:
    """A triangle wave with period 1: 0 at whole numbers, 1 between."""
    return 1 - np.abs((t - np.floor(t)) * 2 - 1)
