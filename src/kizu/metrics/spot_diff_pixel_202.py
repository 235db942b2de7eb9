"""Pixel AUROC and AU-PR at the 202 thresholds of spot-diff, the code of SPD / VisA."""

from __future__ import annotations

from typing import Any

import numpy as np

from kizu.checks import check_shapes
from kizu.metrics._thresholds import sorted_pixels


@check_shapes(maps="n H W", masks="n H W")
def spot_diff_pixel_202(maps: Any, masks: Any) -> dict[str, float]:
    """{"auroc", "au_pr"} by the trapezoid rule over 202 thresholds, rounded to 4 digits.

    Thresholds: 100 percentiles of the defect pixels' scores, 100 equidistant ones between their lowest and
    highest, and the lowest and highest score of all pixels, moved outwards by 1e-8. Prediction is score >
    threshold; precision is 1 when nothing is predicted. Normal images belong to the set. Within about 0.1
    point of `pixel_metrics`' auroc; only for comparison with papers that print it (amazon-science/spot-diff,
    utils/metrics.py; the original wants masks of 0/1).

    maps: (n, H, W), higher is more anomalous.
    masks: (n, H, W) bool, 0/1 or 0/255. Both numpy or torch.
    Both figures are 0 to 1, higher is better.

    Raises ShapeError; UsageError for masks that are not binary or a missing class; NotFinite."""
    pixels = sorted_pixels(maps, masks)
    low, high = pixels.defects[0], pixels.defects[-1]
    inside = np.r_[np.percentile(pixels.defects, np.linspace(100, 0, 100)), np.linspace(high, low, 100)]
    ends = [
        min(float(pixels.normals[0]), float(low)) - 1e-8,
        max(float(pixels.normals[-1]), float(high)) + 1e-8,
    ]
    thresholds = np.sort(np.r_[inside, ends])[::-1]
    false, found = pixels.false_alarms(thresholds), pixels.found(thresholds)
    recall = found / pixels.defects.size
    precision = np.divide(found, found + false, out=np.ones(found.size), where=found + false > 0)
    area = np.trapezoid(recall, false / pixels.normals.size)
    return {"auroc": round(float(area), 4), "au_pr": round(float(np.trapezoid(precision, recall)), 4)}
