"""ROC, precision-recall and per-region-overlap curves of anomaly maps, thinned for drawing."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _curves
from kizu.metrics._counts import count_pixels
from kizu.metrics._inputs import check_limit


@check_shapes(maps="n H W", masks="n H W")
def pixel_curves(
    maps: Any, masks: Any, fpr_limit: float = 0.3, points: int = 512
) -> dict[str, dict[str, list[float]]]:
    """{"roc": {"x", "y"}, "pr": {"x", "y"}, "pro": {"x": false-positive rate up to fpr_limit, "y": per-region
    overlap}}.

    At most `points` points each, every one a true operating point of `score >= t` for some t, from the highest threshold to the lowest.
    maps: (n, H, W) higher is more anomalous.   masks: (n, H, W) bool, 0/1 or 0/255.   numpy or torch.

    Raises ShapeError; UsageError for masks that are not binary, a missing class, a bad limit or points < 2;
    NotFinite."""
    check_limit(fpr_limit)
    counts = count_pixels(maps, masks)
    return {
        "roc": _curves.roc(counts, points),
        "pr": _curves.precision_recall(counts, points),
        "pro": _curves.per_region_overlap(counts, fpr_limit, points),
    }
