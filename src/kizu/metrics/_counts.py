"""The one pass behind every exact figure: how many normal scores lie at or above each distinct defect score.

Defect pixels are few. Defect scores and normal scores are sorted apart, never together; every figure of this
room is then a sum over the distinct defect scores (see _figures.py). Normal scores below the lowest defect
score cannot change any figure and are made equal before the sort, which then costs them nothing. The normals
are sorted in as many parts as there are cores (numpy's sort leaves the interpreter lock), each part in a
buffer of its own: the memory is one copy of the maps."""

from __future__ import annotations

import functools
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kizu.metrics._inputs import (
    as_labels,
    as_numpy,
    as_scores,
    check_classes,
    check_finite,
    defect_index,
    ranking_dtype,
)
from kizu.metrics._regions import region_weights

SMALL = 2**20
"""Fewer scores than this are counted in one part: threads would cost more than they save."""
BLOCK = 2048
"""Thresholds looked up at a time: the piece of sorted normals that they fall into stays in the cache."""


@dataclass(frozen=True)
class Counts:
    """K distinct defect scores, highest first, and what lies at or above them.

    thresholds (K,): the scores.
    defects (K,): defects with exactly that score. found (K,): defects with that score or a higher one.
    above (K,): normals with that score or a higher one. tied (K,): normals with exactly that score.
    normals: all normals.
    weights (K,): sum of 1 / (R |region|) over the defects with that score (they sum to 1), or None without
    regions. Counts are whole numbers in float64 (exact to 2^53), the type that the figures need."""

    thresholds: NDArray[Any]
    defects: NDArray[np.float64]
    found: NDArray[np.float64]
    above: NDArray[np.float64]
    tied: NDArray[np.float64]
    normals: int
    weights: NDArray[np.float64] | None = None


def count_scores(scores: Any, labels: Any) -> Counts:
    """Counts of image scores (n,) with labels (n,). Raises UsageError, NotFinite."""
    values, truth = as_scores("scores", scores), as_labels(labels)
    defects, normals = values[truth], values[~truth]
    check_classes(normals.size, defects.size, "images")
    normals.sort()
    return _assemble(_distinct(defects, None), [_ranks(normals, np.unique(defects))], normals.size)


def count_pixels(maps: Any, masks: Any) -> Counts:
    """Counts of pixel scores: maps (n, H, W), masks (n, H, W). Raises UsageError, NotFinite."""
    maps, masks = as_numpy(maps), as_numpy(masks)
    dtype = ranking_dtype("maps", maps)
    parts = _parts(len(maps), maps.size)
    with ThreadPoolExecutor(len(parts)) as pool:
        split = list(pool.map(lambda part: _split(maps[part], masks[part], dtype), parts))
        defects = np.concatenate([buffer[found] for buffer, found in split])
        normals = maps.size - defects.size
        check_classes(normals, defects.size, "pixels")
        check_finite("maps", defects)
        floor = _below(defects.min())
        if floor == -np.inf:  # then an infinity among the normals could not be told from the filling
            check_finite("maps", maps)
        sorting = [pool.submit(_sort, buffer, found, floor) for buffer, found in split]
        weights = _weights([found for _, found in split], parts, maps.shape)
        ranked = _distinct(defects, weights)
        buffers = [job.result() for job in sorting]
        found = list(pool.map(lambda buffer: _ranks(buffer, ranked[0]), buffers))
    return _assemble(ranked, found, normals)


def _parts(images: int, pixels: int) -> list[slice]:
    """Slices of the images, one a worker."""
    workers = min(os.cpu_count() or 1, 8, max(1, pixels // SMALL), max(1, images))
    edges = [images * i // workers for i in range(workers + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _split(
    maps: NDArray[Any], masks: NDArray[Any], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """A flat copy of the maps in the ranking type, and where its defects are."""
    buffer = np.empty(maps.size, dtype)
    np.copyto(buffer.reshape(maps.shape), maps, casting="unsafe")
    return buffer, defect_index(masks)


def _weights(
    found: list[NDArray[np.intp]], parts: list[slice], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """1 / (R |region|) of every defect pixel."""
    pixels = shape[1] * shape[2]
    weights, regions = region_weights(
        np.concatenate([index + part.start * pixels for index, part in zip(found, parts, strict=True)]), shape
    )
    return weights / regions


def _below(lowest: Any) -> float:
    """A number well below the lowest defect score; minus infinity when its type has none."""
    below = float(lowest) - max(1.0, abs(float(lowest)))
    return below if below > -float(np.finfo(lowest.dtype).max) else -np.inf


def _sort(buffer: NDArray[Any], defects: NDArray[np.intp], floor: float) -> NDArray[Any]:
    """Sort one buffer in place, its defects and all that lies below the floor made equal to the floor. Raises
    NotFinite."""
    buffer[defects] = floor
    lowest = buffer.min()
    if np.isnan(lowest) or lowest == -np.inf < floor:
        check_finite("maps", buffer)
    np.maximum(buffer, buffer.dtype.type(floor), out=buffer)
    buffer.sort()
    if buffer[-1] == np.inf:
        check_finite("maps", buffer)
    return buffer


def _distinct(
    defects: NDArray[Any], weights: NDArray[np.float64] | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Distinct defect scores, lowest first, how many defects have each, and the sum of their weights."""
    if weights is None:
        values, number = np.unique(defects, return_counts=True)
        return values, number, None
    order = np.argsort(defects)
    ranked = defects[order]
    starts = np.r_[0, np.flatnonzero(ranked[1:] != ranked[:-1]) + 1]
    return ranked[starts], np.diff(np.r_[starts, ranked.size]), np.add.reduceat(weights[order], starts)


def _ranks(ranked: NDArray[Any], thresholds: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of the ascending scores are at or above, and equal to, each ascending threshold."""
    left = _search(ranked, thresholds, "left")
    tied = np.zeros(thresholds.size, np.int64)
    met = np.flatnonzero(ranked.take(left, mode="clip") == thresholds)
    tied[met] = _search(ranked, thresholds[met], "right") - left[met]
    return ranked.size - left, tied


def _assemble(
    ranked: tuple[Any, Any, Any], found: list[tuple[NDArray[np.int64], NDArray[np.int64]]], normals: int
) -> Counts:
    """The parts' ranks summed, everything turned to highest first."""
    above, tied = (
        functools.reduce(np.add, column)[::-1].astype(np.float64) for column in zip(*found, strict=True)
    )
    thresholds, number, weights = ranked
    defects = number[::-1].astype(np.float64)
    return Counts(
        thresholds[::-1],
        defects,
        np.cumsum(defects),
        above,
        tied,
        normals,
        None if weights is None else weights[::-1].copy(),
    )


def _search(ranked: NDArray[Any], wanted: NDArray[Any], side: Any) -> NDArray[np.int64]:
    """np.searchsorted for ascending `wanted`, in blocks that stay in the cache: half the time."""
    out = np.empty(wanted.size, np.int64)
    edges = np.r_[ranked.searchsorted(wanted[::BLOCK], side), ranked.size]
    for number, begin in enumerate(range(0, wanted.size, BLOCK)):
        low, high = edges[number], edges[number + 1]
        found = ranked[low:high].searchsorted(wanted[begin : begin + BLOCK], side)
        np.add(found, low, out=out[begin : begin + BLOCK])
    return out
