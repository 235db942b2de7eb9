"""AUROC, average precision, F1-max and AUPRO of anomaly maps: exact, from one pass."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_pixels
from kizu.metrics._inputs import check_limit


@check_shapes(maps="n H W", masks="n H W")
def pixel_metrics(maps: Any, masks: Any, fpr_limit: float = 0.3) -> dict[str, float]:
    """{"auroc", "ap", "f1_max", "aupro"} over all pixels of a data set.

    maps: (n, H, W) higher is more anomalous, ranked as they come.   masks: (n, H, W) bool, 0/1 or 0/255; normal images have empty
    masks and belong in.   numpy or torch, any float or integer type; nothing is rounded.   fpr_limit: where AUPRO's area ends.
    The first three equal scikit-learn's on the flattened pixels; `aupro` as in the function of that name. Each 0 to 1, higher is better.
    Normal and defect pixels are sorted apart: O(P log P) for P pixels on all cores, and memory for one copy of the maps.

    Raises ShapeError; UsageError for masks that are not binary, a missing class or a bad limit; NotFinite.
    """
    check_limit(fpr_limit)
    counts = count_pixels(maps, masks)
    return {
        "auroc": _figures.auroc(counts),
        "ap": _figures.average_precision(counts),
        "f1_max": _figures.f1_max(counts),
        "aupro": _figures.aupro(counts, fpr_limit),
    }
