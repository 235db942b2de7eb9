"""Accuracy at the F1-optimal threshold, as medical tables print it. It looks at the labels: an upper bound
and not a decision."""

from __future__ import annotations

from typing import Any

import numpy as np

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_scores


@check_shapes(scores="n", labels="n")
def accuracy_oracle(scores: Any, labels: Any) -> float:
    """Share of images that `score >= t` classifies correctly, at the threshold t where its F1 is largest.

    The threshold is chosen on these very labels: an upper bound, never a decision. Where several thresholds
    reach the largest F1, the lowest is used, as in ReContrast's evaluation_noseg. F1 is maximised, not
    accuracy: another threshold may have a higher accuracy.

    scores: (n,), higher is more anomalous; they are ranked as they are, without sigmoid or min-max.
    labels: (n,), 0 normal, 1 anomalous. Both numpy or torch.
    Returns 0 to 1, higher is better.

    Raises ShapeError; UsageError when a class is missing or a label is neither 0 nor 1; NotFinite.

    >>> accuracy_oracle([0.1, 0.4, 0.3, 0.9], [0, 0, 1, 1])
    0.75
    """
    counts = count_scores(scores, labels)
    f1 = _figures.f1_at_each(counts)
    lowest = int(np.flatnonzero(f1 == f1.max())[-1])
    right = counts.found[lowest] + counts.normals - counts.above[lowest]
    return float(right / (counts.found[-1] + counts.normals))
