"""AUROC of MVTec LOCO AD: structural and logical anomalies, each against the same good images, and the mean
of the two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kizu.errors import UsageError
from kizu.metrics import _figures
from kizu.metrics._counts import count_scores
from kizu.metrics._inputs import as_numpy

KINDS = ("structural", "logical")


def loco_auroc(scores: Any, kinds: Sequence[str]) -> dict[str, float]:
    """{"structural", "logical", "mean"}: AUROC of the images of that kind against all good ones, and the mean
    of both.

    scores: (n,), higher is more anomalous; numpy or torch.
    kinds: n words, "good", "structural" or "logical".
    Each figure is 0 to 1, higher is better. Source: Bergmann et al., Beyond Dents and Scratches (IJCV 2022),
    per category.

    Raises UsageError for other words, another number of them, or a kind that no image has; NotFinite.

    >>> loco_auroc([0.1, 0.9, 0.05], ["good", "structural", "logical"])
    {'structural': 1.0, 'logical': 0.0, 'mean': 0.5}
    """
    values, words = as_numpy(scores), np.asarray(kinds)
    if values.ndim != 1 or words.shape != values.shape:
        raise UsageError(
            f"scores and kinds must be n scores and n words, got shapes {values.shape} and {words.shape}."
        )
    odd = sorted(set(words.tolist()) - {"good", *KINDS})
    if odd:
        raise UsageError(f"kinds must be 'good', 'structural' or 'logical', got {', '.join(map(repr, odd))}.")
    found = {}
    for kind in KINDS:
        chosen = (words == kind) | (words == "good")
        found[kind] = _figures.auroc(count_scores(values[chosen], words[chosen] == kind))
    return {**found, "mean": (found["structural"] + found["logical"]) / 2.0}
