"""Heat-map colours: raw map -> colours, overlays and contours. Pure functions on NumPy arrays.

The display range (low, high) is fixed by the caller, so that one colour means one value in every image of a
run. The ramp is matplotlib's inferno: perceptually uniform, rising in lightness, so that it is read right
without colour vision and in grey print."""

from __future__ import annotations

import functools
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kizu.errors import ShapeError, UsageError

RAMP = "inferno"
CLEAR_BELOW = 0.25
"""Share of the display range under which an overlay leaves the image untouched."""
OPAQUE = 0.8
"""Opacity of the overlay at the top of the display range."""


@functools.lru_cache(maxsize=1)
def ramp() -> NDArray[np.uint8]:
    """(256, 3) uint8 colours from low to high."""
    from matplotlib import colormaps

    colours = colormaps[RAMP](np.linspace(0.0, 1.0, 256))[:, :3]
    return np.asarray(np.round(colours * 255), dtype=np.uint8)


def to_unit(heat: NDArray[np.floating], map_range: tuple[float, float]) -> NDArray[np.float32]:
    """(H, W) raw map -> (H, W) float32 in [0, 1] over the display range; what is not finite counts as low
    (NaN) or as its end.

    Raises ShapeError for another shape and UsageError for a range that is not low <= high.
    """
    if heat.ndim != 2:
        raise ShapeError(f"A heat map must have shape (H, W), got {heat.shape}.")
    low, high = map_range
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise UsageError(f"map_range must be (low, high), finite, low <= high; got {map_range}.")
    if high == low:
        return (heat > high).astype(np.float32)
    unit = (heat.astype(np.float64) - low) / (high - low)
    return np.nan_to_num(np.clip(unit, 0.0, 1.0), nan=0.0).astype(np.float32)


def resize_map(heat: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) -> (h, w) float32, bilinear, averaged when shrinking. `size` is (h, w)."""
    resized = Image.fromarray(np.ascontiguousarray(heat, dtype=np.float32))
    return np.asarray(resized.resize((size[1], size[0]), Image.Resampling.BILINEAR), dtype=np.float32)


def colour(unit: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(H, W) in [0, 1] -> (H, W, 3) uint8."""
    index = np.round(np.clip(unit, 0.0, 1.0) * 255).astype(np.uint8)
    return cast("NDArray[np.uint8]", ramp()[index])


def overlay(image: NDArray[np.uint8], unit: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Lay the colours on the image, the more opaque the higher the value; low values leave the image as
    it is.

    image: (H, W, 3) uint8, unit: (H, W) in [0, 1]. Raises ShapeError when the sizes differ.
    """
    if image.shape != (*unit.shape, 3):
        raise ShapeError(
            f"image must have shape (H, W, 3) with the (H, W) of the map, got {image.shape} and {unit.shape}."
        )
    alpha = OPAQUE * np.sqrt(np.clip((unit - CLEAR_BELOW) / (1 - CLEAR_BELOW), 0.0, 1.0))[..., None]
    mixed = image * (1 - alpha) + colour(unit) * alpha
    return np.round(mixed).astype(np.uint8)


def grow(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) bool -> (H, W) bool: the mask and every pixel that touches it (8 neighbours)."""
    height, width = mask.shape
    padded = np.pad(mask, 1)
    grown = np.zeros_like(mask)
    for down in range(3):
        for right in range(3):
            grown |= padded[down : down + height, right : right + width]
    return grown


def draw_contours(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A copy of the image with a white line of one pixel around the mask and a black one around that. Raises
    ShapeError when the (H, W) of the two differ."""
    if image.shape != (*mask.shape, 3):
        raise ShapeError(f"image must have shape (H, W, 3) of the mask, got {image.shape} and {mask.shape}.")
    white = grow(mask)
    drawn = image.copy()
    drawn[grow(white) & ~white] = 0
    drawn[white & ~mask] = 255
    return drawn


def draw_outline(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A copy of the image with a white line around the mask and a black one around that, to be seen on any
    ground.

    The lines run outside the mask, so that they hide no flaw, however thin. Raises ShapeError when the (H, W)
    of the two differ."""
    if image.shape != (*mask.shape, 3):
        raise ShapeError(
            f"image must have shape (H, W, 3) with the (H, W) of the mask, got {image.shape} and "
            f"{mask.shape}."
        )
    near = grow(mask)
    white = grow(near)
    drawn = image.copy()
    drawn[grow(white) & ~white] = 0
    drawn[white & ~near] = 255
    return drawn
