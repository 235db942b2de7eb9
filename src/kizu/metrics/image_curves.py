"""ROC and precision-recall curves of image scores, thinned for drawing."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _curves
from kizu.metrics._counts import count_scores


@check_shapes(scores="n", labels="n")
def image_curves(scores: Any, labels: Any, points: int = 512) -> dict[str, dict[str, list[float]]]:
    """{"roc": {"x": false-positive rate, "y": true-positive rate}, "pr": {"x": recall, "y": precision}}.

    Every point is a true operating point of `score >= t` for some t. The points run from the highest
    threshold to the lowest, at most `points` of them in each curve.

    scores: (n,), higher is more anomalous; they are ranked as they are, without sigmoid or min-max.
    labels: (n,), 0 normal, 1 anomalous. Both numpy or torch.

    Raises ShapeError; UsageError for a missing class, labels other than 0 and 1, or points < 2; NotFinite.

    >>> image_curves([0.1, 0.9], [0, 1])["roc"]
    {'x': [0.0, 0.0, 1.0], 'y': [0.0, 1.0, 1.0]}
    """
    counts = count_scores(scores, labels)
    return {"roc": _curves.roc(counts, points), "pr": _curves.precision_recall(counts, points)}
