"""From light to pixels: the last steps of every image. Light is linear; what leaves the camera is uint8."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from kizu.synthetic.lighting import Light
from kizu.synthetic.noise import Field, resized


def expose(image: Field, light: Light, size: int) -> Field:
    """The camera before its noise: average down, blur, white balance and the sRGB curve.

    image: (3, S, S) linear. Returns (3, size, size) in grey levels 0 to 255."""
    small = np.stack([resized(plane, size, method=Image.Resampling.HAMMING) for plane in image])
    sigma = light.blur * max(size / 256, 0.7)
    small = ndimage.gaussian_filter(small, (0, sigma, sigma), mode="nearest", truncate=2.5)
    linear = np.clip(small * light.white[:, None, None], 0.0, None)
    rolled = np.where(linear > 0.8, 0.8 + 0.2 * np.tanh((linear - 0.8) * 2.5), linear)
    return (255 * np.clip(1.055 * np.maximum(rolled, 1e-7) ** (1 / 2.4) - 0.055, 0.0, 1.0)).astype(np.float32)


def sensor_noise(rng: Generator, light: Light, size: int) -> Field:
    """Noise (3, size, size) in grey levels: white, and partly shared by the colours and by neighbours, as the
    Bayer mosaic of a colour sensor leaves it."""
    white = rng.standard_normal((3, size, size), dtype=np.float32)
    noise = np.float32(0.45 * light.grain) * white
    noise[:, :, 1:] += np.float32(0.30 * light.grain) * white[:, :, :-1]
    noise += np.float32(0.38 * light.grain) * white.sum(axis=0)
    return noise


def develop(levels: Field, noise: Field) -> NDArray[np.uint8]:
    """Levels (3, H, W) plus noise, stronger in the dark half of the curve, as an image (H, W, 3) uint8."""
    return to_uint8(levels + noise * (1.25 - 0.5 * levels / 255) + 0.5)


def binomial_blur(image: Field) -> Field:
    """(3, H, W), weighted 1 2 1 along rows and columns a pixel apart (more in large images) save the rim."""
    step = max(1, round(image.shape[1] / 96))
    out = image.copy()
    out[:, step:-step] = 0.5 * image[:, step:-step] + 0.25 * (image[:, 2 * step :] + image[:, : -2 * step])
    rows = out.copy()
    sides = rows[:, :, 2 * step :] + rows[:, :, : -2 * step]
    out[:, :, step:-step] = 0.5 * rows[:, :, step:-step] + 0.25 * sides
    return out


def to_uint8(levels: Field) -> NDArray[np.uint8]:
    """Grey levels (3, H, W), clipped to 0 to 255 and cut to whole numbers, as an image (H, W, 3)."""
    return np.ascontiguousarray(np.clip(levels, 0, 255).astype(np.uint8).transpose(1, 2, 0))
