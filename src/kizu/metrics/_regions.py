"""Ground-truth regions: connected components of defect pixels, 8-connected, image by image, found from the
defect pixels alone.

The same components as `scipy.ndimage.label(mask, ones((3, 3)))` on every image, but the cost follows the
defect pixels and not the images: pixels are joined to runs along the rows, runs that touch in the next row
are joined by a sparse graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def label_regions(index: NDArray[np.intp], shape: tuple[int, ...]) -> tuple[NDArray[Any], int]:
    """Region number of each defect pixel, and how many regions there are.

    index: (m,) flat ascending positions of the defect pixels in an array of `shape` (n, H, W). Returns labels
    (m,) from 0, and R."""
    if index.size == 0:
        return np.zeros(0, np.int32), 0
    _, H, W = shape
    row, column = np.divmod(index, W)
    row += row // H  # an empty row between images: regions never join across them
    width = W + 2  # empty columns between rows: a step to the side never wraps
    place = row * width + column
    breaks = np.flatnonzero(np.diff(place) != 1) + 1
    first, last = np.r_[0, breaks], np.r_[breaks - 1, place.size - 1]
    run_of, regions = _join_runs(place[first], place[last], width)
    return np.repeat(run_of, last - first + 1), regions


def _join_runs(starts: NDArray[Any], ends: NDArray[Any], width: int) -> tuple[NDArray[Any], int]:
    """Region of each run; a run touches the runs of the next row that reach from one left of its start to one
    right of its end."""
    runs = starts.size
    lowest = np.searchsorted(ends, starts + width - 1, side="left")
    highest = np.searchsorted(starts, ends + width + 1, side="right")
    links = highest - lowest
    upper = np.repeat(np.arange(runs), links)
    within = np.arange(upper.size) - np.repeat(np.cumsum(links) - links, links)
    lower = np.repeat(lowest, links) + within
    graph = coo_matrix((np.ones(upper.size, np.int8), (upper, lower)), shape=(runs, runs))
    count, region = connected_components(graph, directed=False)
    return region, int(count)


def region_weights(index: NDArray[np.intp], shape: tuple[int, ...]) -> tuple[NDArray[np.float64], int]:
    """Weight 1 / |region| of each defect pixel (m,), and the number of regions R: the weights sum to R."""
    labels, count = label_regions(index, shape)
    sizes = np.bincount(labels, minlength=count)
    return (1.0 / np.maximum(sizes, 1))[labels], count
