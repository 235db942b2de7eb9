"""AUROC, average precision, F1-max and AUPRO of maps that come in batches: bounded memory, mergeable, proven
error bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kizu.checks import check_shapes, whole_numbers
from kizu.errors import UsageError
from kizu.metrics._figures import share_of_area
from kizu.metrics._inputs import as_numpy, as_scores, check_classes, check_limit, defect_index
from kizu.metrics._regions import region_weights
from kizu.metrics._sketch import LARGEST, Sketch, keys_of

BLOCK = 2**20
"""Pixels worked on at a time."""
ROUNDING = 1e-12
"""What float64 sums may lose; every bound is widened by it."""


class StreamingPixelMetrics:
    """The four figures of `pixel_metrics`, from batches, in memory that does not grow with the data.

    Scores are counted in at most `buckets` cells of a histogram over the ordered bits of float32 (see
    _sketch.py): no range is needed, and monotone changes such as exp only move cells. Updates in any order or
    in any pieces, and merges,
    give the same result. Memory: 28 bytes a cell, 7 MiB by default, and a few times one block of 2^20 pixels
    during an update.

    Error: the exact figure lies between the value with every cell sorted for the method and the value with
    every cell sorted against it. `bounds` gives both, `compute` the middle, which is off by at most half
    their distance (`<key>_error`). With p_c and q_c the shares of defects and normals in cell c, the AUROC is
    off by at most sum p_c q_c / 2. Half the distance was at most 5e-5 for any of the four on 33 million
    float32 pixels in 2^18 cells. When no more than `buckets` different scores came in (8-bit or 16-bit maps)
    the figures are exact. float64 scores are rounded to float32, which the bounds account for.

    fpr_limit: where AUPRO's area ends, in (0, 1]. buckets: the largest number of cells, at least 2. Raises
    UsageError for other values.

    >>> import numpy as np
    >>> metrics = StreamingPixelMetrics()
    >>> metrics.update(np.array([[[0.1, 0.2], [0.3, 0.9]]], np.float32), np.array([[[0, 0], [0, 1]]]))
    >>> round(metrics.compute()["auroc"], 6)
    1.0
    """

    def __init__(self, *, fpr_limit: float = 0.3, buckets: int = 2**18) -> None:
        check_limit(fpr_limit)
        whole_numbers(least=2, buckets=buckets)
        self.fpr_limit = fpr_limit
        self.buckets = buckets
        self._sketch = Sketch(buckets)
        self._regions = 0

    @check_shapes(maps="B H W", masks="B H W")
    def update(self, maps: Any, masks: Any) -> None:
        """Count a batch: maps (B, H, W) higher is more anomalous, masks (B, H, W) bool, 0/1 or 0/255; sizes
        may change between batches.

        Whole images only: a region must not be split over updates. numpy or torch. Raises ShapeError,
        UsageError (masks that are not binary), NotFinite; after an error nothing has been counted."""
        scores, masks = as_scores("maps", maps), as_numpy(masks)
        index = defect_index(masks)
        weights, regions = region_weights(index, scores.shape)
        flat = scores.reshape(-1)
        for begin in range(0, flat.size, BLOCK):
            low, high = np.searchsorted(index, (begin, begin + BLOCK))
            self._count(flat[begin : begin + BLOCK], index[low:high] - begin, weights[low:high])
        self._regions += regions

    def _count(self, scores: NDArray[Any], defects: NDArray[np.intp], weights: NDArray[np.float64]) -> None:
        if scores.dtype != np.float32:
            narrow = np.clip(scores, -LARGEST, LARGEST).astype(np.float32)
            self._sketch.rounded |= not np.array_equal(narrow, scores)
            scores = narrow
        keys = keys_of(scores)
        self._sketch.add(np.delete(keys, defects), keys[defects], weights)

    def merge(self, other: StreamingPixelMetrics) -> None:
        """Count all that `other` has counted (another worker's share of the images). Raises UsageError when
        their settings differ."""
        if not isinstance(other, StreamingPixelMetrics):
            raise UsageError(f"StreamingPixelMetrics merge with their like, got {type(other).__name__}.")
        if (self.fpr_limit, self.buckets) != (other.fpr_limit, other.buckets):
            raise UsageError(
                f"Only equal settings merge: fpr_limit {self.fpr_limit} and {other.fpr_limit}, buckets "
                f"{self.buckets} and {other.buckets}."
            )
        self._sketch.merge(other._sketch)
        self._regions += other._regions

    def compute(self) -> dict[str, float]:
        """{"auroc", "ap", "f1_max", "aupro"} and for each "<key>_error": the exact figure is no further than
        this from the value.

        Raises UsageError when no normal or no defect pixel has been counted.
        """
        bounds = self.bounds()
        values = {key: (low + high) / 2 for key, (low, high) in bounds.items()}
        errors = {f"{key}_error": (high - low) / 2 for key, (low, high) in bounds.items()}
        return values | errors

    def bounds(self) -> dict[str, tuple[float, float]]:
        """{key: (low, high)}: the exact figure of all pixels counted lies between them. Raises UsageError as
        `compute`."""
        normals, defects, weights = self._sketch.sums[:, ::-1]
        check_classes(int(normals.sum()), int(defects.sum()), "pixels")
        cells = _Cells(normals, defects, weights / self._regions)
        apart = self._sketch.apart
        found = {
            "auroc": cells.auroc(apart),
            "ap": cells.ap(apart),
            "f1_max": cells.f1_max(apart),
            "aupro": cells.aupro(apart, self.fpr_limit),
        }
        return {
            key: (float(max(low - ROUNDING, 0.0)), float(min(high + ROUNDING, 1.0)))
            for key, (low, high) in found.items()
        }


class _Cells:
    """Lowest and highest value of each figure, given only what each cell holds, highest cell first.

    Per cell: n normals, d defects, w weight; F normals and T defects in higher cells. `apart` means that a
    cell is one single score."""

    def __init__(
        self, normals: NDArray[np.float64], defects: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> None:
        kept = defects > 0
        above, found = np.cumsum(normals), np.cumsum(defects)
        self.N, self.D = above[-1], found[-1]
        self.n, self.d, self.w = normals[kept], defects[kept], weights[kept]
        self.F, self.T = above[kept] - self.n, found[kept] - self.d

    def auroc(self, apart: bool) -> tuple[float, float]:
        """A pair within a cell counts 0 to 1; one half when it is a tie."""
        missed, open_pairs = (
            np.dot(self.d, self.F) / self.D / self.N,
            np.dot(self.d, self.n) / self.D / self.N,
        )
        if apart:
            return 1 - missed - open_pairs / 2, 1 - missed - open_pairs / 2
        return 1 - missed - open_pairs, 1 - missed

    def ap(self, apart: bool) -> tuple[float, float]:
        """Highest: all defects tied above all normals. Lowest: normals first, then defect by defect; the i-th
        has precision (T + i) / (T + i + F + n), concave in i, so that their mean is no less than the mean of
        the first and the last."""
        found, above = self.T + self.d, self.F + self.n
        last = found / (found + above)
        first = (self.T + 1) / (self.T + 1 + above)
        if apart:
            return np.dot(self.d, last) / self.D, np.dot(self.d, last) / self.D
        return np.dot(self.d, first + last) / 2 / self.D, np.dot(self.d, found / (found + self.F)) / self.D

    def f1_max(self, apart: bool) -> tuple[float, float]:
        """Lowest: the threshold at the foot of a cell is always there. Highest: all defects of the cell and
        none of its normals."""
        found = self.T + self.d
        low = (2 * found / (self.D + found + self.F + self.n)).max()
        return low, low if apart else (2 * found / (self.D + found + self.F)).max()

    def aupro(self, apart: bool, fpr_limit: float) -> tuple[float, float]:
        """A defect pixel has F to F + n normals above it. Where the cell is one score, all of it enters along
        a straight line."""
        limit, last = fpr_limit * self.N, self.F + self.n
        if apart:
            tied = np.dot(self.w, share_of_area(self.F, last, limit))
            return tied, tied
        low, high = (np.dot(self.w, share_of_area(f, f, limit)) for f in (last, self.F))
        return low, high
