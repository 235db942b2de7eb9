"""Nine corruptions of 32 x 32 pictures at the strength of level 2 of CIFAR-10-C, for whom clean CIFAR
is all there is.

Written from the definitions and constants of D. Hendrycks, T. Dietterich: Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations, ICLR 2019 (their code: Apache-2.0). The packages of these
corruptions (imagecorruptions, imagecorruptions-imaug, corrupt-tta) hold the strengths of ImageNet-C, for 224
pixels, without a way to set them: at their level 2 Gaussian noise is twice as strong as CIFAR-10-C's (0.12
for 0.06), shot noise has ten times the variance, and the disk of the defocus a radius of 4 pixels for 0.4. So
the arithmetic is here, on NumPy and SciPy, and every draw comes from one generator.

What differs from the authors' script: random draws; motion_blur is a sampled line here and ImageMagick's
there; glass_blur swaps pixels, where the script's swap of two array views copies one of them; zoom_blur zooms
about the exact centre. Like theirs, results are cut to 0..255 and rounded down."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
LEVEL = 2
_AT_ONCE = 100
"""Pictures that are worked on together, for the memory that fog takes: 256 x 256 numbers each."""


def corrupted(name: str, images: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """(n, H, W, 3) uint8 -> the same corrupted by `name`, one of CORRUPTIONS, each with its own draws."""
    parts = [
        CORRUPTIONS[name](images[at : at + _AT_ONCE].astype(np.float64) / 255.0, generator)
        for at in range(0, len(images), _AT_ONCE)
    ]
    whole = np.concatenate(parts) if parts else images.astype(np.float64)
    return (np.clip(whole, 0.0, 1.0) * 255.0 + 1e-9).astype(np.uint8)  # 1e-9: 200 / 255 * 255 stays 200


def gaussian_noise(x: Floats, generator: np.random.Generator) -> Floats:
    """x + normal noise of standard deviation 0.06."""
    return x + generator.normal(scale=0.06, size=x.shape)


def shot_noise(x: Floats, generator: np.random.Generator) -> Floats:
    """Counts of light: Poisson(250 x) / 250."""
    return generator.poisson(x * 250.0) / 250.0


def impulse_noise(x: Floats, generator: np.random.Generator) -> Floats:
    """2 % of the values become 0 or 1, as often the one as the other; channels by themselves."""
    hit = generator.random(x.shape) < 0.02
    return np.where(hit, generator.random(x.shape) < 0.5, x)


def defocus_blur(x: Floats, generator: np.random.Generator) -> Floats:
    """A disk of radius 0.4, one pixel, softened by a Gaussian of 0.5 on 3 x 3 pixels: that Gaussian."""
    side = np.exp(-0.5 * (np.arange(-1, 2) / 0.5) ** 2)
    side /= side.sum()
    rows = ndimage.correlate1d(x, side, axis=1, mode="mirror")
    return ndimage.correlate1d(rows, side, axis=2, mode="mirror")


def glass_blur(x: Floats, generator: np.random.Generator) -> Floats:
    """Blurred by 0.25; from the last pixel to the first each is swapped with one that is 0 or 1 to the left
    and 0 or 1 above; blurred by 0.25 again."""
    soft = _gaussian(x, 0.25)
    every = np.arange(len(x))
    for row in range(x.shape[1] - 1, 1, -1):
        for column in range(x.shape[2] - 1, 1, -1):
            up, left = generator.integers(0, 2, size=(2, len(x)))
            here = soft[every, row, column].copy()
            soft[every, row, column] = soft[every, row - up, column - left]
            soft[every, row - up, column - left] = here
    return _gaussian(soft, 0.25)


def motion_blur(x: Floats, generator: np.random.Generator) -> Floats:
    """Dragged along a line at -45 to 45 degrees: 13 samples one pixel apart, whose weights fall like a
    Gaussian of 1.5."""
    weights = np.exp(-0.5 * (np.arange(13) / 1.5) ** 2)
    weights /= weights.sum()
    out = np.zeros_like(x)
    for number, angle in enumerate(np.deg2rad(generator.uniform(-45.0, 45.0, size=len(x)))):
        for step, weight in enumerate(weights):
            move = (step * np.sin(angle), step * np.cos(angle), 0.0)
            out[number] += weight * ndimage.shift(x[number], move, order=1, mode="nearest")
    return out


def zoom_blur(x: Floats, generator: np.random.Generator) -> Floats:
    """Mean of the picture and of its eleven enlargements about the centre by 1, 1.01, ..., 1.1."""
    zooms = np.arange(1.0, 1.105, 0.01)
    total = x.copy()
    centre = (np.array(x.shape[1:3]) - 1) / 2
    for zoom in zooms:
        matrix = np.array([1.0, 1.0 / zoom, 1.0 / zoom, 1.0])
        offset = np.array([0.0, *(centre * (1 - 1 / zoom)), 0.0])
        total += ndimage.affine_transform(x, matrix, offset, order=1, mode="nearest")
    return total / (len(zooms) + 1)


def fog(x: Floats, generator: np.random.Generator) -> Floats:
    """Half a cloud is added, and the picture brought back to its brightest value."""
    cloud = _clouds(len(x), generator)[:, : x.shape[1], : x.shape[2], None]
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return (x + 0.5 * cloud) * brightest / (brightest + 0.5)


def contrast(x: Floats, generator: np.random.Generator) -> Floats:
    """Half the distance to the mean of each channel."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    return (x - mean) * 0.5 + mean


CORRUPTIONS: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    one.__name__: one
    for one in (
        *(gaussian_noise, shot_noise, impulse_noise),
        *(defocus_blur, glass_blur, motion_blur, zoom_blur, fog, contrast),
    )
}


def _gaussian(x: Floats, sigma: float) -> Floats:
    return ndimage.gaussian_filter(x, sigma, axes=(1, 2), mode="nearest")


def _clouds(count: int, generator: np.random.Generator, side: int = 256, decay: float = 3.0) -> Floats:
    """(count, side, side) fractal heights from 0 to 1, by the diamond-square method on a torus: with each
    halving of the steps new points are the mean of four neighbours and noise, whose width falls by decay
    squared."""
    heights = np.zeros((count, side, side))
    step, width = side, 100.0**2
    while step > 1:
        half = step // 2
        corners = heights[:, ::step, ::step]
        near = corners + np.roll(corners, -1, axis=1)
        middles = (near + np.roll(near, -1, axis=2)) / 4
        middles += generator.uniform(-width, width, size=corners.shape)
        heights[:, half::step, half::step] = middles
        beside = middles + np.roll(middles, 1, axis=1)
        above = middles + np.roll(middles, 1, axis=2)
        for edge, part, axis in (
            (beside, np.s_[:, ::step, half::step], 2),
            (above, np.s_[:, half::step, ::step], 1),
        ):
            two = corners + np.roll(corners, -1, axis=axis)
            heights[part] = (edge + two) / 4 + generator.uniform(-width, width, size=corners.shape)
        step, width = half, width / decay**2
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights / heights.max(axis=(1, 2), keepdims=True)
