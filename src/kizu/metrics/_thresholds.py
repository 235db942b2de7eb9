"""Rates at a list of given thresholds, prediction being strictly above: what the papers' threshold sweeps are
made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kizu.errors import NotFinite
from kizu.metrics._inputs import as_numpy, as_scores, check_classes, defect_index
from kizu.metrics._regions import region_weights


@dataclass(frozen=True)
class Pixels:
    """Normal scores and defect scores, each ascending, and the weight 1 / (R |region|) of each defect pixel
    in that order."""

    normals: NDArray[Any]
    defects: NDArray[Any]
    weights: NDArray[np.float64]

    def false_alarms(self, thresholds: NDArray[Any]) -> NDArray[np.int64]:
        """Normal pixels strictly above each threshold."""
        return self.normals.size - np.searchsorted(self.normals, thresholds, side="right")

    def found(self, thresholds: NDArray[Any]) -> NDArray[np.int64]:
        """Defect pixels strictly above each threshold."""
        return self.defects.size - np.searchsorted(self.defects, thresholds, side="right")

    def overlap(self, thresholds: NDArray[Any]) -> NDArray[np.float64]:
        """Mean over regions of the share of the region strictly above each threshold."""
        missed = np.r_[0.0, np.cumsum(self.weights)]
        return 1.0 - missed[np.searchsorted(self.defects, thresholds, side="right")]


def sorted_pixels(maps: Any, masks: Any) -> Pixels:
    """Split and sort maps (n, H, W) by masks (n, H, W). Raises UsageError, NotFinite."""
    scores, index = as_scores("maps", maps), defect_index(as_numpy(masks))
    check_classes(scores.size - index.size, index.size, "pixels")
    weights, regions = region_weights(index, scores.shape)
    flat = scores.reshape(-1)
    order = np.argsort(flat[index])
    return Pixels(np.sort(np.delete(flat, index)), flat[index][order], weights[order] / regions)


def equidistant(pixels: Pixels, count: int) -> NDArray[np.float64]:
    """`count` thresholds from the lowest score, evenly up to but without the highest."""
    low = float(min(pixels.normals[0], pixels.defects[0]))
    high = float(max(pixels.normals[-1], pixels.defects[-1]))
    return low + (high - low) / count * np.arange(count, dtype=np.float64)


def kept_rates(
    pixels: Pixels, count: int, fpr_limit: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False-positive rate and overlap at equidistant thresholds, highest first, where the rate is below the
    limit.

    Raises NotFinite when fewer than two different rates are left: the published copies divide 0 by 0 there.
    """
    thresholds = equidistant(pixels, count)[::-1]
    rate: NDArray[np.float64] = pixels.false_alarms(thresholds) / float(pixels.normals.size)
    kept = rate < fpr_limit
    if not kept.any() or rate[kept].max() == rate[kept].min():
        raise NotFinite(
            f"Of {count} equidistant thresholds fewer than two false-positive rates lie below {fpr_limit}: "
            "this variant is not defined on these maps (heavy tails do that). Use aupro, which looks at "
            "every threshold."
        )
    return rate[kept], pixels.overlap(thresholds)[kept]
