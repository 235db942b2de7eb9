"""Random fields and lookups: all float32, all drawn from the generator that is handed in."""

from __future__ import annotations

import functools
import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Field: TypeAlias = NDArray[np.floating]
"""float32 in fact; by their types, a float32 array times a Python number is float64."""


@functools.lru_cache(maxsize=8)
def grid(size: int) -> tuple[Field, Field]:
    """x, y (size, size) of the pixel centres: -1 to 1 from left to right and from top to bottom; read-only."""
    axis = ((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    x.flags.writeable = y.flags.writeable = False
    return x, y


@functools.lru_cache(maxsize=8)
def frequencies(size: int) -> tuple[Field, Field]:
    """fx, fy (size, size // 2 + 1) of a half-plane Fourier transform, cycles per image; read-only."""
    down, across = np.fft.fftfreq(size, 1 / size), np.fft.rfftfreq(size, 1 / size)
    fy, fx = (a.astype(np.float32) for a in np.meshgrid(down, across, indexing="ij"))
    fx.flags.writeable = fy.flags.writeable = False
    return fx, fy


def spectral(rng: np.random.Generator, amplitude: Field) -> Field:
    """Gaussian noise (n, n), mean 0 and standard deviation 1, of the amplitudes (n, n // 2 + 1) at
    `frequencies(n)`."""
    n = amplitude.shape[0]
    wave = rng.standard_normal((2, *amplitude.shape), np.float32)
    wave *= amplitude
    wave[:, 0, 0] = 0
    field = fft.irfft2(wave[0] + np.complex64(1j) * wave[1], s=(n, n))
    return field / (float(field.std()) + 1e-12)


@functools.lru_cache(maxsize=256)
def spline(size: int, cells: int) -> Field:
    """Cubic B-spline weights (size, cells + 3) of `cells` cells along a side of `size` pixels."""
    place = (np.arange(size) + 0.5) * (cells / size)
    whole = np.minimum(place.astype(np.intp), cells - 1)
    t = place - whole
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights = np.zeros((size, cells + 3), np.float32)
    for k, part in enumerate(parts):
        weights[np.arange(size), whole + k] = part / 6
    weights.flags.writeable = False
    return weights


def smooth(rng: np.random.Generator, size: int, cells: int, across: int = 0) -> Field:
    """Smooth noise (size, size), about mean 0 and deviation 1, of `cells` cells down and `across` (0: as
    many) across."""
    down, wide = spline(size, cells), spline(size, across or cells)
    lattice = rng.standard_normal((down.shape[1], wide.shape[1]), np.float32)
    return down @ (lattice * np.float32(2.09)) @ wide.T


def strip(rng: np.random.Generator, knots: int, length: int = 1024) -> Field:
    """A closed smooth noise (length,) along a line, deviation about 1, of `knots` knots."""
    values = rng.standard_normal(knots, np.float32)
    bent = np.interp(np.arange(length) * (knots / length), np.arange(knots + 1), np.append(values, values[0]))
    return (bent * 1.22).astype(np.float32)


def lookup(table: NDArray, t: Field) -> NDArray:
    """`table` (n,) read at t (any shape), where 0 to 1 runs once through it, and round again outside."""
    n = len(table)
    return table[np.floor(t * n).astype(np.int32) % n]


def bins(u: Field, v: Field, number: int = 32) -> NDArray[np.int32]:
    """A number 0 to number^2 - 1 (as u) for the unit cell that (u, v) lies in; repeats after `number` (a
    power of 2) cells."""
    mask = number - 1
    return (np.floor(v).astype(np.int32) & mask) * number + (np.floor(u).astype(np.int32) & mask)


def worley(
    rng: np.random.Generator, u: Field, v: Field, jitter: float
) -> tuple[Field, Field, NDArray[np.int32]]:
    """Distances (as u) to the nearest and second nearest of one point per unit cell, and the number 0 to 1023
    of the nearest.

    jitter: 0 (a square lattice) to 1 (points anywhere in their cells).
    """
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu, v - iv
    column, row = iu.astype(np.int32), iv.astype(np.int32)
    spots = (0.5 + jitter * (rng.random((2, 1024), np.float32) - 0.5)).astype(np.float32)
    first, second = np.full(u.shape, 9.0, np.float32), np.full(u.shape, 9.0, np.float32)
    nearest = np.zeros(u.shape, np.int32)
    for j in (-1, 0, 1):
        rows = ((row + j) & 31) * 32
        for i in (-1, 0, 1):
            key = rows + ((column + i) & 31)
            dx, dy = spots[0].take(key) - (fu - i), spots[1].take(key) - (fv - j)
            far = dx * dx + dy * dy
            np.copyto(nearest, key, where=far < first)
            np.minimum(second, np.maximum(first, far), out=second)
            np.minimum(first, far, out=first)
    return np.sqrt(first), np.sqrt(second), nearest


def turned(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    """The coordinates (as x) seen from axes turned by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return x * cos + y * sin, y * cos - x * sin
