"""AUROC, average precision and F1-max of image scores, in one go."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_scores


@check_shapes(scores="n", labels="n")
def image_metrics(scores: Any, labels: Any) -> dict[str, float]:
    """{"auroc", "ap", "f1_max"} of image scores: exact, ties handled, equal to scikit-learn.

    scores: (n,), higher is more anomalous; they are ranked as they are, without sigmoid or min-max.
    labels: (n,), 0 normal, 1 anomalous. Both numpy or torch.
    Each figure is 0 to 1, higher is better; F1-max is chosen with the labels. O(n log n).

    Raises ShapeError; UsageError when a class is missing or a label is neither 0 nor 1; NotFinite.

    >>> image_metrics([0.1, 0.4, 0.3, 0.9], [0, 0, 1, 1])
    {'auroc': 0.75, 'ap': 0.8333333333333333, 'f1_max': 0.8}
    """
    counts = count_scores(scores, labels)
    return {
        "auroc": _figures.auroc(counts),
        "ap": _figures.average_precision(counts),
        "f1_max": _figures.f1_max(counts),
    }
