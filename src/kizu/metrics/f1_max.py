"""F1-max: the best F1 that any threshold reaches. It looks at the labels, so it is an upper bound and not a
decision."""

from __future__ import annotations

from typing import Any

import numpy as np

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_scores


@check_shapes(scores="n", labels="n")
def f1_max(scores: Any, labels: Any) -> float:
    """The largest F1 = 2 P R / (P + R) over all thresholds, P precision and R recall.

    Equal to the maximum over scikit-learn's precision_recall_curve. The labels choose the threshold: this is
    an upper bound, not a decision.

    scores: (n,), higher is more anomalous; they are ranked as they are, without sigmoid or min-max.
    labels: (n,), 0 normal, 1 anomalous. Both numpy or torch.
    Returns 0 to 1, higher is better. O(n log n).

    Raises ShapeError; UsageError when a class is missing or a label is neither 0 nor 1; NotFinite.

    >>> f1_max([0.1, 0.4, 0.3, 0.9], [0, 0, 1, 1])
    0.8
    """
    return _figures.f1_max(count_scores(scores, labels))


@check_shapes(scores="n", labels="n")
def f1_max_threshold_oracle(scores: Any, labels: Any) -> float:
    """The highest t at which `score >= t` reaches F1-max, in the units of the scores.

    It is chosen with the labels: never a threshold for deployment. Arguments and errors as `f1_max`.

    >>> f1_max_threshold_oracle([0.1, 0.4, 0.3, 0.9], [0, 0, 1, 1])
    0.3
    """
    counts = count_scores(scores, labels)
    return float(counts.thresholds[int(np.argmax(_figures.f1_at_each(counts)))])
