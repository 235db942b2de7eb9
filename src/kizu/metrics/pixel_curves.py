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
    """{"roc": {"x", "y"}, "pr": {"x", "y"}, "pro": {"x": false-positive rate up to fpr_limit, "y": region
    overlap}}.

    Every point is a true operating point of `score >= t` for some t. The points run from the highest
    threshold to the lowest, at most `points` of them in each curve.

    maps: (n, H, W), higher is more anomalous.
    masks: (n, H, W) bool, 0/1 or 0/255. Both numpy or torch.

    Raises ShapeError; UsageError for masks that are not binary, a missing class, a bad limit or points < 2;
    NotFinite.

    >>> import numpy as np
    >>> curves = pixel_curves(np.array([[[0.1, 0.2], [0.3, 0.9]]]), np.array([[[0, 0], [0, 1]]]))
    >>> curves["pr"]["y"]
    [1.0, 0.25]
    """
    check_limit(fpr_limit)
    return _curves.pixel_lines(count_pixels(maps, masks), fpr_limit, points)
