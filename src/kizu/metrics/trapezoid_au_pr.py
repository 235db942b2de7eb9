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

    Up to about 2 points below `average_precision` on small sets, and without its meaning as an expectation: only for comparing with papers
    that print it (spot-diff, utils/metrics.py; SimpleNet). scores: (n,) higher is more anomalous.   labels: (n,) 0 normal, 1 anomalous.
    numpy or torch. Returns 0 to 1, higher is better.

    Raises ShapeError; UsageError when a class is missing or a label is neither 0 nor 1; NotFinite.
    """
    return _figures.trapezoid(count_scores(scores, labels))
