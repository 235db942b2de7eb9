"""AUPRO at 200 equidistant thresholds, rescaled: the copy that ResAD, ADPretrain, ADer and UniAD-like code
print."""

from __future__ import annotations

from typing import Any

import numpy as np

from kizu.checks import check_shapes
from kizu.metrics._inputs import check_limit
from kizu.metrics._thresholds import kept_rates, sorted_pixels


@check_shapes(maps="n H W", masks="n H W")
def aupro_200_thresholds(maps: Any, masks: Any, fpr_limit: float = 0.3) -> float:
    """Area under PRO over FPR at 200 thresholds min + i (max - min) / 200, i < 200; prediction is score >
    threshold.

    Points with FPR < fpr_limit are kept, without interpolation at the limit, and their FPR is stretched to
    [0, 1] by minimum and maximum. The figure changes under monotone transforms of the scores and is undefined
    on heavy tails: only for comparison with papers that print it (ResAD and ADPretrain code: cal_pro_score).
    Regions are 8-connected; the rates are those of the whole data set.

    maps: (n, H, W), higher is more anomalous.
    masks: (n, H, W) bool, 0/1 or 0/255. Both numpy or torch.
    Returns 0 to 1, higher is better.

    Raises ShapeError; UsageError as `aupro`; NotFinite, also when fewer than two rates lie below the
    limit."""
    check_limit(fpr_limit)
    rate, overlap = kept_rates(sorted_pixels(maps, masks), 200, fpr_limit)
    return float(np.trapezoid(overlap, (rate - rate.min()) / (rate.max() - rate.min())))
