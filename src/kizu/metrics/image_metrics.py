"""AUROC, average precision and F1-max of image scores, in one go."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_scores


@check_shapes(scores="n", labels="n")
def image_metrics(scores: Any, labels: Any) -> dict[str, float]:
    """{"auroc", "ap", "f1_max"} of image scores (n,) with labels (n,): 0 normal, 1 anomalous. Higher scores
    are more anomalous.

    Exact, ties handled, equal to scikit-learn; the scores are ranked as they come. numpy or torch. Each
    figure 0 to 1, higher is better; F1-max is chosen with the labels in sight. O(n log n).

    Raises ShapeError; UsageError when a class is missing or a label is neither 0 nor 1; NotFinite.
    """
    counts = count_scores(scores, labels)
    return {
        "auroc": _figures.auroc(counts),
        "ap": _figures.average_precision(counts),
        "f1_max": _figures.f1_max(counts),
    }
