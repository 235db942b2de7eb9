"""Scores of normal parts -> a decision with a promised false-alarm rate; no defect is needed.

Split conformal prediction (Vovk, Gammerman and Shafer 2005; Laxhammar and Falkman 2010; Bates, Candes, Lei,
Romano and Sesia 2023): if a new good part and the n calibration parts are exchangeable, its rank among them
is uniform, so that p = (1 + #{calibration scores >= score}) / (n + 1) satisfies P(p <= a) <= a for every a,
whatever the detector and whatever the distribution. Calling a part anomalous when p <= a therefore raises a
false alarm with probability at most a, over the draw of calibration set and part. Higher scores are more
anomalous throughout. With n images the smallest possible p is 1/(n+1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kizu.errors import NotFinite, TooFewImages, UsageError


def images_needed(false_alarm_rate: float) -> int:
    """How many calibration images a promise needs: the smallest n with 1/(n+1) <= rate. Raises UsageError.

    >>> images_needed(0.01)
    99
    """
    _check_rate(false_alarm_rate)
    return max(math.ceil(1.0 / false_alarm_rate - 1.0 - 1e-9), 1)


def smallest_rate(images: int) -> float:
    """The smallest false-alarm rate that `images` calibration images can promise: 1/(n+1). Raises
    TooFewImages for 0.

    >>> smallest_rate(99)
    0.01
    """
    if images < 1:
        raise TooFewImages("Calibration needs at least one normal image that the detector was not fitted on.")
    return 1.0 / (images + 1)


def conformal_threshold(normal_scores: Any, false_alarm_rate: float) -> float:
    """The threshold t for which `score > t` raises a false alarm with probability at most `false_alarm_rate`.

    normal_scores: (n,) scores of normal images held out from fitting, higher is more anomalous. t is their
    k-th smallest, k = n + 1 - floor((n + 1) rate); `score > t` is the same decision as `p_values(score) <=
    rate`, ties included. Source: Vovk, Gammerman and Shafer 2005; see the head of this module.

    Raises TooFewImages when the rate is below 1/(n+1), saying how many images it needs; NotFinite; UsageError
    for a rate outside (0, 1).

    >>> conformal_threshold([0.1, 0.2, 0.3, 0.4], 0.25)
    0.4
    >>> conformal_threshold([0.1, 0.2, 0.3, 0.4], 0.01)
    Traceback (most recent call last):
        ...
    kizu.errors.TooFewImages: A false-alarm rate of 0.01 takes 99 calibration images, got 4: ...
    """
    scores = np.sort(_scores(normal_scores, "normal_scores"))
    _check_rate(false_alarm_rate)
    n = len(scores)
    allowed = math.floor((n + 1) * false_alarm_rate + 1e-9)
    if allowed < 1:
        need = images_needed(false_alarm_rate)
        raise TooFewImages(
            f"A false-alarm rate of {false_alarm_rate:g} takes {need} calibration images, got {n}: "
            f"with {n} the smallest promise is 1/{n + 1} = {1 / (n + 1):.4g}. Add good images or ask for a "
            "larger rate."
        )
    return float(scores[n - allowed]) if allowed <= n else -math.inf


def p_values(scores: Any, normal_scores: Any) -> np.ndarray:
    """Conformal p-values (m,) float64 in [1/(n+1), 1] of scores (m,) against normal_scores (n,).

    p = (1 + #{normal >= score}) / (n + 1); small means anomalous. Both scores: higher is more anomalous.
    Raises NotFinite, TooFewImages when n = 0.

    >>> p_values([0.05, 0.25, 0.9], [0.1, 0.2, 0.3]).tolist()
    [1.0, 0.5, 0.25]
    """
    normal = np.sort(_scores(normal_scores, "normal_scores"))
    tested = _scores(scores, "scores", empty=True)
    above = len(normal) - np.searchsorted(normal, tested, side="left")
    return (1.0 + above) / (len(normal) + 1.0)


def folds(count: int, parts: int, seed: int, groups: Sequence[object] | None = None) -> list[np.ndarray]:
    """Split `count` images into `parts` disjoint held-out sets of row numbers, for cross-conformal
    calibration.

    groups: one label an image (the same part photographed several times); a group is never divided, for
    images of one part in training and calibration are not exchangeable with a new part. seed: of the draw.
    Raises TooFewImages when there are fewer than two groups (or images, without groups).

    >>> [rows.tolist() for rows in folds(4, 2, seed=0, groups=["a", "a", "b", "b"])]
    [[0, 1], [2, 3]]
    """
    labels = (
        np.arange(count)
        if groups is None
        else np.unique(np.asarray([str(group) for group in groups]), return_inverse=True)[1]
    )
    units = int(labels.max()) + 1 if count else 0
    if units < 2:
        raise TooFewImages(
            f"Cross-conformal calibration needs at least 2 images (of different groups), got {units}."
        )
    parts = min(parts, units)
    order = np.random.default_rng(seed).permutation(units)
    part_of_unit = np.empty(units, dtype=np.int64)
    part_of_unit[order] = np.arange(units) % parts
    return [np.flatnonzero(part_of_unit[labels] == part) for part in range(parts)]


def _scores(values: Any, name: str, *, empty: bool = False) -> np.ndarray:
    array = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
    array = np.asarray(array, dtype=np.float64).reshape(-1)
    if not empty and not len(array):
        raise TooFewImages("Calibration needs at least one normal image that the detector was not fitted on.")
    if not np.isfinite(array).all():
        raise NotFinite(
            f"{name} holds NaN or infinity at {np.flatnonzero(~np.isfinite(array))[:5].tolist()}: the "
            "detector's scores are broken."
        )
    return array


def _check_rate(rate: float) -> None:
    if not 0.0 < rate < 1.0:
        raise UsageError(f"A false-alarm rate lies between 0 and 1 (0.01 is one in a hundred), got {rate!r}.")
