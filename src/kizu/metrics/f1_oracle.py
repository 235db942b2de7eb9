"""F1 at the F1-optimal threshold, as medical tables print it: `f1_max` under the name that says that the
labels chose it."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_scores


@check_shapes(scores="n", labels="n")
def f1_oracle(scores: Any, labels: Any) -> float:
    """F1 of `score >= t` at the threshold t where it is largest, chosen on these very labels: an upper bound,
    never a decision.

    scores: (n,) higher is more anomalous.   labels: (n,) 0 normal, 1 anomalous.   numpy or torch. Returns 0 to 1, higher is better.
    Printed by AE-FLOW and ReContrast (utils.py, evaluation_noseg) beside the accuracy at the same threshold, `accuracy_oracle`.

    Raises ShapeError; UsageError when a class is missing or a label is neither 0 nor 1; NotFinite.
    """
    return _figures.f1_max(count_scores(scores, labels))
