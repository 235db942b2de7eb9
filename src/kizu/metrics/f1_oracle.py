"""F1 at the F1-optimal threshold, as medical tables print it: `f1_max` under the name that says that the
labels chose it."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_scores


@check_shapes(scores="n", labels="n")
def f1_oracle(scores: Any, labels: Any) -> float:
    """F1 of `score >= t` at the threshold t where it is largest: `f1_max` under the name that medical papers
    print.

    The threshold is chosen on these very labels: an upper bound, never a decision. AE-FLOW and ReContrast
    (utils.py, evaluation_noseg) print it beside the accuracy at the same threshold, `accuracy_oracle`.

    scores: (n,), higher is more anomalous; they are ranked as they are, without sigmoid or min-max.
    labels: (n,), 0 normal, 1 anomalous. Both numpy or torch.
    Returns 0 to 1, higher is better.

    Raises ShapeError; UsageError when a class is missing or a label is neither 0 nor 1; NotFinite.

    >>> f1_oracle([0.1, 0.4, 0.3, 0.9], [0, 0, 1, 1])
    0.8
    """
    return _figures.f1_max(count_scores(scores, labels))
