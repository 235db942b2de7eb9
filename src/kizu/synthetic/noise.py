"""Random fields: lattice, fractal, spectral and cell noise, and the coordinates that they are drawn over.

Everything that this package draws is a float32 array over a square raster of `size` pixels a side, rows down
and columns across. Coordinates run over [-1, 1], x to the right and y down, so a length of 1 is half an
image. All randomness comes from the generator that is passed in."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

Field: TypeAlias = NDArray[np.floating]
"""float32 in fact; to a type checker, a float32 array times a Python number is float64."""

Box: TypeAlias = tuple[float, float, float, float]


@functools.lru_cache(maxsize=16)
def grid(size: int) -> tuple[Field, Field]:
    """x and y (size, size) of every pixel centre; read-only.

    >>> grid(4)[0][0].tolist()
    [-0.75, -0.25, 0.25, 0.75]
    """
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
    return _read_only(*np.meshgrid(axis, axis))


@functools.lru_cache(maxsize=8)
def frequencies(size: int) -> tuple[Field, Field]:
    """fx, fy (size, size // 2 + 1) of a half-plane Fourier transform, in cycles per image; read-only."""
    axes = np.fft.rfftfreq(size, 1 / size), np.fft.fftfreq(size, 1 / size)
    return _read_only(*(field.astype(np.float32) for field in np.meshgrid(*axes)))


def _read_only(x: Field, y: Field) -> tuple[Field, Field]:
    x.flags.writeable = y.flags.writeable = False
    return x, y


def rotated(x: Field, y: Field, angle: float, zoom: float = 1.0) -> tuple[Field, Field]:
    """Coordinates of (x, y) in axes turned clockwise by `angle` radians and `zoom` times as long."""
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    return x * cos + y * sin, y * cos - x * sin


def resized(
    values: Field, size: int, box: Box | None = None, *, method: Image.Resampling = Image.Resampling.BICUBIC
) -> Field:
    """A field, or its part `box` (left, top, right, bottom in pixels), resampled to (size, size)."""
    return np.array(Image.fromarray(values).resize((size, size), method, box=box), dtype=np.float32)


def lattice_noise(
    rng: Generator, size: int, rows: float, columns: float | None = None, *, turn: float = 0.0
) -> Field:
    """Smooth noise (size, size), standard deviation about 1: random numbers on a lattice, joined by cubics.

    rows, columns: bumps down and across the image (columns None: as many). turn: clockwise, in radians."""
    columns = rows if columns is None else columns
    rows, columns = min(rows, size / 2), min(columns, size / 2)
    wide = size if turn == 0.0 else 2 * math.ceil(size * (abs(math.sin(turn)) + 1.0) / 2)
    values = rng.standard_normal((math.ceil(rows) + 3, math.ceil(columns) + 3), dtype=np.float32)
    top, left = 1 + rng.random(2)
    field = resized(values, wide, (left, top, left + columns, top + rows))
    if turn:
        image = Image.fromarray(field).rotate(-math.degrees(turn), Image.Resampling.BILINEAR)
        margin = (wide - size) // 2
        field = np.array(image, dtype=np.float32)[margin : margin + size, margin : margin + size]
    return field * np.float32(1.45)


def spline_noise(rng: Generator, size: int, cells: int) -> Field:
    """Smooth noise like `lattice_noise`, of a whole number of cells each way, standard deviation about 1.

    Two small matrix products with B-spline weights: several times faster than resampling for small images."""
    weights = _spline_weights(size, cells)
    lattice = rng.standard_normal((cells + 3, cells + 3), np.float32)
    return weights @ (lattice * np.float32(2.09)) @ weights.T


@functools.lru_cache(maxsize=256)
def _spline_weights(size: int, cells: int) -> Field:
    """Cubic B-spline weights (size, cells + 3) of `cells` cells along a side of `size` pixels; read-only."""
    position = (np.arange(size) + 0.5) * (cells / size)
    cell = np.minimum(position.astype(np.intp), cells - 1)
    t = position - cell
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights = np.zeros((size, cells + 3), np.float32)
    for k, part in enumerate(parts):
        weights[np.arange(size), cell + k] = part / 6
    weights.flags.writeable = False
    return weights


def fractal_noise(rng: Generator, size: int, bumps: float, octaves: int, *, gain: float = 0.55) -> Field:
    """The sum (size, size) of `octaves` lattice noises, standard deviation about 1.

    The first has `bumps` bumps across the image; each is twice as fine and `gain` times as strong as the one
    before. Summed as a pyramid: each level is the one before at twice the size plus new random numbers, so
    that only the last has full size."""
    bumps = min(bumps, size / 2**octaves)
    count = math.ceil(bumps) + 3
    total = rng.standard_normal((count, count), dtype=np.float32)
    power = 1.0
    for octave in range(1, octaves):
        count *= 2
        detail = rng.standard_normal((count, count), dtype=np.float32)
        total = resized(total, count) + np.float32(gain**octave) * detail
        power += gain ** (2 * octave)
    unit = 2 ** (octaves - 1)
    top, left = unit * (1 + rng.random(2))
    field = resized(total, size, (left, top, left + bumps * unit, top + bumps * unit))
    return field * np.float32(1.3 / math.sqrt(power))


def spectral_noise(rng: Generator, amplitude: Field) -> Field:
    """Gaussian noise (n, n), mean 0 and standard deviation 1, with the given spectrum.

    amplitude (n, n // 2 + 1): strength of each wave of `frequencies(n)`; only ratios count."""
    size = amplitude.shape[0]
    wave = rng.standard_normal((2, *amplitude.shape), np.float32)
    wave *= amplitude
    wave[:, 0, 0] = 0
    field = fft.irfft2(wave[0] + np.complex64(1j) * wave[1], s=(size, size))
    return field / (float(field.std()) + 1e-12)


def periodic_noise(rng: Generator, knots: int, length: int = 1024) -> Field:
    """Closed noise (length,) along a line, standard deviation about 1, linear between `knots` knots."""
    values = rng.standard_normal(knots, np.float32)
    places = np.arange(length) * (knots / length)
    return (np.interp(places, np.arange(knots + 1), np.append(values, values[0])) * 1.22).astype(np.float32)


def lookup(table: NDArray, t: Field) -> NDArray:
    """`table` (n,) read at t (any shape): t from 0 to 1 runs once through the table, which repeats outside.

    >>> lookup(np.array([10, 20, 30, 40]), np.array([0.0, 0.3, 0.99, 1.0])).tolist()
    [10, 20, 40, 10]
    """
    n = len(table)
    return table[np.floor(t * n).astype(np.int32) % n]


def cell_index(u: Field, v: Field, number: int = 32) -> NDArray[np.int32]:
    """A number 0 to number^2 - 1 (as u) for the unit cell of (u, v); repeats after `number` (power of 2)
    cells.

    >>> cell_index(np.array([0.5, 1.5]), np.array([0.5, 2.5])).tolist()
    [0, 65]
    """
    mask = number - 1
    return (np.floor(v).astype(np.int32) & mask) * number + (np.floor(u).astype(np.int32) & mask)


def worley(rng: Generator, u: Field, v: Field, jitter: float) -> tuple[Field, Field, NDArray[np.int32]]:
    """Cell noise (Worley 1996) with one random point per unit cell of the coordinates u, v.

    Returns the distances (as u) to the nearest and the second nearest point, and the number 0 to 1023 of the
    nearest. jitter: 0 (points on a square lattice) to 1 (anywhere in their cells)."""
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu, v - iv
    column, row = iu.astype(np.int32), iv.astype(np.int32)
    points = (0.5 + jitter * (rng.random((2, 1024), np.float32) - 0.5)).astype(np.float32)

    def neighbour(down: int, right: int) -> tuple[Field, NDArray[np.int32]]:
        key = ((row + down) & 31) * 32 + ((column + right) & 31)
        dx, dy = points[0].take(key) - (fu - right), points[1].take(key) - (fv - down)
        return dx * dx + dy * dy, key

    return _two_nearest(u.shape, neighbour)


def image_cells(rng: Generator, size: int, count: float) -> tuple[Field, Field]:
    """Cell noise over the whole image, `count` cells across: distances (size, size), in cells, to the nearest
    and the second nearest point. Drawn at half size and enlarged, which blunts the creases."""
    half = max(size // 2, 8)
    number = math.ceil(count) + 4
    jitter = rng.random((2, number, number), dtype=np.float32) * np.float32(0.9)
    start = 1.5 + rng.random(2)
    axis = (np.arange(half, dtype=np.float32) + 0.5) * np.float32(count / half)
    v, u = (axis + np.float32(start[0]))[:, None], (axis + np.float32(start[1]))[None, :]
    row, column = np.floor(v).astype(np.intp), np.floor(u).astype(np.intp)

    def neighbour(down: int, right: int) -> tuple[Field, NDArray]:
        iv, iu = row + down, column + right
        squared = (jitter[0][iv, iu] + iv - v) ** 2 + (jitter[1][iv, iu] + iu - u) ** 2
        return squared.astype(np.float32), iu

    first, second, _ = _two_nearest((half, half), neighbour)
    return resized(first, size), resized(second, size)


def _two_nearest(
    shape: tuple[int, ...], neighbour: Callable[[int, int], tuple[Field, NDArray]]
) -> tuple[Field, Field, NDArray[np.int32]]:
    """The smallest and second smallest distance over the 3 x 3 cells around each place, and the nearest's
    key.

    neighbour(down, right): squared distances to the points of the cells that far away, and their keys."""
    first, second = np.full(shape, 9.0, np.float32), np.full(shape, 9.0, np.float32)
    nearest = np.zeros(shape, np.int32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            squared, key = neighbour(down, right)
            np.copyto(nearest, key, where=squared < first, casting="same_kind")
            np.minimum(second, np.maximum(first, squared), out=second)
            np.minimum(first, squared, out=first)
    return np.sqrt(first), np.sqrt(second), nearest
