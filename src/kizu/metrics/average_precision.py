"""Average precision: the step-wise area under precision over recall."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_scores


@check_shapes(scores="n", labels="n")
def average_precision(scores: Any, labels: Any) -> float:
    """Sum over thresholds of (recall gained) x precision; equal to scikit-learn's average_precision_score.

    Not the area by the trapezoid rule that some papers call AU-PR: that is `trapezoid_au_pr`.

    scores: (n,), higher is more anomalous; they are ranked as they are, without sigmoid or min-max.
    labels: (n,), 0 normal, 1 anomalous. Both numpy or torch.
    Returns 0 to 1, higher is better. O(n log n).

    Raises ShapeError; UsageError when a class is missing or a label is neither 0 nor 1; NotFinite.

    >>> average_precision([0.1, 0.9, 0.8, 0.7], [0, 1, 0, 1])
    0.8333333333333333
    """
    return _figures.average_precision(count_scores(scores, labels))
