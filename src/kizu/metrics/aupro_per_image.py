"""AUPRO of each anomalous image by itself, then averaged: the copy that RD4AD and ReContrast print."""

from __future__ import annotations

from typing import Any

import numpy as np

from kizu.checks import check_shapes
from kizu.errors import UsageError
from kizu.metrics._inputs import as_numpy, as_scores, check_limit
from kizu.metrics._thresholds import kept_rates, sorted_pixels


@check_shapes(maps="n H W", masks="n H W")
def aupro_per_image(maps: Any, masks: Any, fpr_limit: float = 0.3) -> float:
    """Mean over images with a defect of the area under PRO over FPR, at 200 equidistant thresholds in that
    image's range.

    Points with FPR < fpr_limit are kept and their FPR is divided by the largest kept; prediction is score >
    threshold. Normal images do not count at all, so false alarms on them cost nothing: only for comparison
    with papers that print it (RD4AD and ReContrast code: compute_pro in a loop over images).

    maps: (n, H, W), higher is more anomalous.
    masks: (n, H, W) bool, 0/1 or 0/255. Both numpy or torch.
    Returns 0 to 1, higher is better.

    Raises ShapeError; UsageError as `aupro`, also when a defect fills its whole image; NotFinite, also when
    fewer than two rates of an image lie below the limit."""
    check_limit(fpr_limit)
    scores, truth = as_scores("maps", maps), as_numpy(masks)
    marked = np.flatnonzero(truth.reshape(len(truth), -1).any(axis=1)) if truth.size else np.zeros(0, np.intp)
    if marked.size == 0:
        raise UsageError(
            "There are no anomalous pixels: the metric is not defined. Both normal and anomalous pixels are "
            "needed."
        )
    return float(np.mean([_area(scores[[image]], truth[[image]], fpr_limit) for image in marked]))


def _area(maps: Any, masks: Any, fpr_limit: float) -> float:
    rate, overlap = kept_rates(sorted_pixels(maps, masks), 200, fpr_limit)
    return float(np.trapezoid(overlap, rate / rate.max()))
