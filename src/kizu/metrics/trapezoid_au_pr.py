"""AU-PR by the trapezoid rule, the variant that SPD / VisA and SimpleNet print for images."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_scores


@check_shapes(scores="n", labels="n")
def trapezoid_au_pr(scores: Any, labels: Any) -> float:
    """Area under the polygon through the (recall, precision) points from (0, 1) on: scikit-learn's
    auc(recall, precision).

    On small sets up to about 2 points below `average_precision`, and without its meaning as an expectation:
    only for comparison with papers that print it (spot-diff, utils/metrics.py; SimpleNet).

    scores: (n,), higher is more anomalous; they are ranked as they are, without sigmoid or min-max.
    labels: (n,), 0 normal, 1 anomalous. Both numpy or torch.
    Returns 0 to 1, higher is better.

    Raises ShapeError; UsageError when a class is missing or a label is neither 0 nor 1; NotFinite.

    >>> round(trapezoid_au_pr([0.1, 0.9, 0.8, 0.7], [0, 1, 0, 1]), 4)
    0.7917
    """
    return _figures.trapezoid(count_scores(scores, labels))
