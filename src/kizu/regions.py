"""Where the flaws are: the connected regions of a map above a threshold, in pixels of the original image.

    map (H, W) > threshold -> regions (8-connected) -> box, area, peak and centre, scaled to the image

A map is as fine as the detector's input, not as the image: with s = image side / map side, cell j covers the
pixels from s j to s (j + 1). Nothing finer is invented: boxes are rounded outwards, to whole pixels.

The threshold of a calibrated model is `decision_.map_threshold`: the conformal threshold of the highest map
value of each good image that was held out, at the promised false-alarm rate. So at most that share of good
parts has any region, on average over calibration sets (kizu.calibration; an estimate for "cross")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kizu.checks import is_real
from kizu.errors import NotFinite, ShapeError, UsageError

_TOUCHING = np.ones((3, 3), dtype=int)


@dataclass(frozen=True)
class Region:
    """One flaw region, in pixels of the original image; x to the right, y downwards, pixel (0, 0) at the top
    left.

    box: (x, y, width, height). area: pixels. peak: the highest map value. peak_at: (x, y) of the pixel there.
    centre: (x, y) of the centre of mass of the area, every pixel counting the same."""

    box: tuple[int, int, int, int]
    area: int
    peak: float
    peak_at: tuple[int, int]
    centre: tuple[float, float]


def find_regions(
    heat: Any,
    threshold: float,
    size: tuple[int, int] | None = None,
    *,
    inside: NDArray[np.bool_] | None = None,
    origin: tuple[int, int] = (0, 0),
) -> list[Region]:
    """The regions of one map above the threshold, the highest peak first.

    heat: (H, W) array or tensor, higher is more anomalous. size: (height, width) of the original image in
    pixels, or of its region of interest; None: that of the map. inside: (H, W), regions lie in it alone.
    origin: (x, y) of the region of interest in the image. Raises ShapeError, UsageError, NotFinite.

    >>> heat = np.zeros((4, 4))
    >>> heat[1, 1:3] = 2.0, 3.0
    >>> find_regions(heat, 1.0, (8, 8))
    [Region(box=(2, 2, 4, 2), area=8, peak=3.0, peak_at=(5, 3), centre=(3.5, 2.5))]
    """
    values = _values(heat)
    numbers = number_regions(values, threshold, inside=inside)
    height, width = _size(values.shape if size is None else size)
    scale = (height / values.shape[0], width / values.shape[1])
    found = []
    for number, place in enumerate(ndimage.find_objects(numbers), 1):
        corner = (place[0].start, place[1].start)
        found.append(_region(numbers[place] == number, values[place], corner, scale, (height, width), origin))
    return found


def number_regions(
    heat: Any, threshold: float, *, inside: NDArray[np.bool_] | None = None
) -> NDArray[np.int32]:
    """(H, W) int32: 0 outside of all regions, else the place of the region in `find_regions`, from 1 on. The
    arguments are those of `find_regions`."""
    values = _values(heat)
    if not is_real(threshold) or not np.isfinite(threshold):
        raise UsageError(f"threshold is a map value, a finite number, got {threshold!r}.")
    above = values > threshold
    if inside is not None:
        if inside.shape != values.shape or inside.dtype != np.bool_:
            raise ShapeError(
                f"inside has the shape of the map, {values.shape}, bool; got {inside.shape} {inside.dtype}."
            )
        above &= inside
    numbers, count = ndimage.label(above, _TOUCHING)
    if not count:
        return np.zeros(values.shape, dtype=np.int32)
    peaks = ndimage.maximum(values, numbers, np.arange(1, count + 1))
    places = np.zeros(count + 1, dtype=np.int32)
    places[1 + np.argsort(-np.asarray(peaks), kind="stable")] = np.arange(1, count + 1)
    return np.asarray(places[numbers], dtype=np.int32)


def _region(
    own: NDArray[np.bool_],
    values: NDArray[Any],
    corner: tuple[int, int],
    scale: tuple[float, float],
    size: tuple[int, int],
    origin: tuple[int, int],
) -> Region:
    """A region from the part of the map (h, w) that holds it, which begins at `corner`."""
    rows, columns = np.nonzero(own)
    spots = np.where(own, values, -np.inf)
    peak = np.unravel_index(int(spots.argmax()), spots.shape)
    first, last, at, centre = [], [], [], []
    for axis, cells in enumerate((rows, columns)):
        step, begin = scale[axis], corner[axis]
        first.append(min(int(np.floor(begin * step + 1e-9)), size[axis] - 1))
        last.append(max(int(np.ceil((begin + own.shape[axis]) * step - 1e-9)), first[axis] + 1))
        at.append(min(int((begin + int(peak[axis]) + 0.5) * step), size[axis] - 1))
        centre.append((begin + float(cells.mean()) + 0.5) * step - 0.5)
    x, y = origin
    return Region(
        box=(x + first[1], y + first[0], last[1] - first[1], last[0] - first[0]),
        area=max(round(len(rows) * scale[0] * scale[1]), 1),
        peak=float(values[peak]),
        peak_at=(x + at[1], y + at[0]),
        centre=(x + centre[1], y + centre[0]),
    )


def _values(heat: Any) -> NDArray[Any]:
    values = heat.detach().cpu().numpy() if hasattr(heat, "detach") else np.asarray(heat)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "biuf":
        raise ShapeError(f"A map has shape (H, W) and numbers, got {values.shape} {values.dtype}.")
    if not np.isfinite(values).all():
        raise NotFinite("The map holds NaN or infinity: what is above a threshold is not known.")
    return values


def _size(size: Any) -> tuple[int, int]:
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UsageError(f"size is (height, width) of the image in pixels, got {size!r:.80}.")
    return int(size[0]), int(size[1])
