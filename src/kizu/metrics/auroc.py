"""AUROC: the chance that an anomalous item scores above a normal one."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_scores


@check_shapes(scores="n", labels="n")
def auroc(scores: Any, labels: Any) -> float:
    """Area under the ROC curve, ties counting half; equal to scikit-learn's roc_auc_score.

    scores: (n,), higher is more anomalous; they are ranked as they are, without sigmoid or min-max.
    labels: (n,), 0 normal, 1 anomalous. Both numpy or torch.
    Returns 0 to 1, higher is better, 0.5 for scores without information. O(n log n).

    Raises ShapeError; UsageError when a class is missing or a label is neither 0 nor 1; NotFinite.

    >>> auroc([0.1, 0.4, 0.3, 0.9], [0, 0, 1, 1])
    0.75
    """
    return _figures.auroc(count_scores(scores, labels))
