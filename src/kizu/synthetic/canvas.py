"""One image being drawn: its raster, its randomness, and the noises that every drawing uses."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from kizu.synthetic import noise
from kizu.synthetic.noise import Field, frequencies, grid, rotated


class Canvas:
    """A raster of `size` x `size` pixels, all of whose randomness comes from `rng`.

    x, y (size, size): coordinates of the pixel centres, -1 to 1. pixel: side of a pixel in these coordinates.
    Every noise is a float32 field (size, size) of mean 0 and standard deviation about 1."""

    def __init__(self, size: int, rng: Generator) -> None:
        self.size, self.rng = size, rng
        self.x, self.y = grid(size)
        self.pixel = 2.0 / size

    def noise(self, rows: float, columns: float | None = None, *, turn: float = 0.0) -> Field:
        """Smooth noise of `rows` x `columns` bumps, turned by `turn` radians."""
        return noise.lattice_noise(self.rng, self.size, rows, columns, turn=turn)

    def fractal(self, bumps: float, octaves: int) -> Field:
        """The sum of `octaves` smooth noises, from `bumps` bumps across the image, each twice as fine."""
        return noise.fractal_noise(self.rng, self.size, bumps, octaves)

    def smooth(self, cells: int) -> Field:
        """Smooth noise of that many cells a side."""
        return noise.spline_noise(self.rng, self.size, min(cells, self.size // 2))

    def cloud(self, power: float, *, aspect: float = 1.0, turn: float = 0.0) -> Field:
        """Noise of amplitude 1 / frequency^power, `aspect` times longer along `turn` (radians)."""
        fx, fy = rotated(*frequencies(self.size), turn)
        squared = fx * fx * aspect**2 + fy * fy + 0.5
        return noise.spectral_noise(self.rng, squared ** (-0.5 * power))

    def band(self, frequency: float, width: float) -> Field:
        """Noise about one frequency (cycles per image) in all directions; width: of its band, in factors of
        e."""
        fx, fy = frequencies(self.size)
        offset = np.log((fx * fx + fy * fy + 1e-3) / self.resolvable(frequency) ** 2) * (0.5 / width)
        return noise.spectral_noise(self.rng, np.exp(-0.5 * offset * offset))

    def gabor(self, frequency: float, width: float, turn: float) -> Field:
        """Noise about one frequency in one direction (Gabor noise): frequency and width of the band in cycles
        per image, turn in radians."""
        fx, fy = frequencies(self.size)
        frequency = self.resolvable(frequency)
        dx = np.abs(fx - frequency * abs(math.cos(turn)))
        dy = fy - math.copysign(frequency * math.sin(turn), math.sin(2 * turn))
        return noise.spectral_noise(self.rng, np.exp((dx * dx + dy * dy) * (-0.5 / width**2)))

    def resolvable(self, frequency: float) -> float:
        """The frequency (cycles per image), or the highest that has three pixels a cycle."""
        return min(frequency, self.size / 3)

    def grain(self, amount: float) -> Field:
        """Factors (size, size) about 1 that vary from pixel to pixel with standard deviation `amount`."""
        return 1 + amount * self.rng.standard_normal((self.size, self.size), np.float32)
