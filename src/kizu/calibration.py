"""Scores of normal parts -> a decision with a promised false-alarm rate; no defect is needed.

Split conformal prediction (Vovk, Gammerman and Shafer 2005; Laxhammar and Falkman 2010; Bates, Candes, Lei,
Romano and Sesia 2023): if a new good part and the n calibration parts are exchangeable, its rank among them
is uniform, so that p = (1 + #{calibration scores >= score}) / (n + 1) satisfies P(p <= a) <= a for every a,
whatever the detector and whatever the distribution. Calling a part anomalous when p <= a therefore raises a
false alarm with probability at most a, over the draw of calibration set and part. Higher scores are more
anomalous throughout. With n images the smallest possible p is 1/(n+1).

Groups (several images of one part, copies of one file) count once. Images of one part resemble each other, so
that n of them know less than n parts; a part's images share its one vote: with K groups

    p = (1 + sum_k mean_{i in k} 1{score_i >= score}) / (K + 1)

is valid for an image of a new part when parts are exchangeable, and images within a part (Lee, Barber and
Willett 2023, "Distribution-free inference with hierarchical data", Theorem 1). The smallest p is 1/(K+1).

What holds on average over draws may fail for one draw. `certified_rate` bounds the rate of the draw at hand:
the share of new parts above the k-th largest of n independent scores is at most Beta(k, n - k + 1), whatever
the distribution (order statistics; Vovk 2012, "Conditional validity of inductive conformal predictors")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kizu.checks import is_real, listed, whole_numbers
from kizu.errors import NotFinite, TooFewImages, UsageError

Groups: TypeAlias = "Sequence[object] | NDArray[Any]"
DEFAULT_RATE = 0.01
"""Asked for where no rate is named and the images can back it."""


def images_needed(false_alarm_rate: float) -> int:
    """How many calibration images a promise needs: the smallest n with 1/(n+1) <= rate. Raises UsageError.

    >>> images_needed(0.01)
    99
    """
    _check_rate(false_alarm_rate)
    if false_alarm_rate < 1e-9:
        raise UsageError(
            f"No number of images backs a false-alarm rate of {false_alarm_rate:g}. Ask for more."
        )
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


def conformal_threshold(
    normal_scores: Any, false_alarm_rate: float, *, groups: Groups | None = None
) -> float:
    """The threshold t for which `score > t` raises a false alarm with probability at most `false_alarm_rate`.

    normal_scores: (n,) scores of normal images held out from fitting, higher is more anomalous. groups: (n,)
    one label an image, equal for images of one part; None: each is a part. t is the smallest of the scores
    for which `score > t` is the same decision as `p_values(score) <= rate`, ties included; without groups
    their k-th smallest, k = n + 1 - floor((n + 1) rate). Source: see the head of this module.

    Raises TooFewImages when the rate is below 1/(K+1) for K groups, saying how many it needs; NotFinite;
    UsageError for a rate outside (0, 1).

    >>> conformal_threshold([0.1, 0.2, 0.3, 0.4], 0.25)
    0.4
    >>> conformal_threshold([0.1, 0.2, 0.3, 0.4], 0.01)
    Traceback (most recent call last):
        ...
    kizu.errors.TooFewImages: A false-alarm rate of 0.01 takes 99 calibration images, got 4: ...
    """
    scores = _scores(normal_scores, "normal_scores")
    _check_rate(false_alarm_rate)
    weights, count = _weights(len(scores), groups)
    if (count + 1) * false_alarm_rate + 1e-9 < 1.0:
        need, what = images_needed(false_alarm_rate), "images" if groups is None else "groups of images"
        raise TooFewImages(
            f"A false-alarm rate of {false_alarm_rate:g} takes {need} calibration {what}, got {count}: "
            f"with {count} the smallest promise is 1/{count + 1} = {1 / (count + 1):.4g}. Add good images or "
            "ask for a larger rate."
        )
    values, above = _above(scores, weights, strict=True)
    return float(values[np.argmax(1.0 + above <= (count + 1) * false_alarm_rate + 1e-9)])


def p_values(scores: Any, normal_scores: Any, *, groups: Groups | None = None) -> np.ndarray:
    """Conformal p-values (m,) float64 in [1/(K+1), 1] of scores (m,) against normal_scores (n,) of K groups.

    groups: (n,) as for `conformal_threshold`; without them p = (1 + #{normal >= score}) / (n + 1). Small
    means anomalous. Both scores: higher is more anomalous. Raises NotFinite, TooFewImages when n = 0.

    >>> p_values([0.05, 0.25, 0.9], [0.1, 0.2, 0.3]).tolist()
    [1.0, 0.5, 0.25]
    >>> p_values([0.25], [0.1, 0.2, 0.3], groups=["part 1", "part 2", "part 2"]).tolist()
    [0.5]
    """
    normal = _scores(normal_scores, "normal_scores")
    tested = _scores(scores, "scores", empty=True)
    weights, count = _weights(len(normal), groups)
    values, above = _above(normal, weights, strict=False)
    place = np.searchsorted(values, tested, side="left")
    return (1.0 + np.append(above, 0.0)[place]) / (count + 1.0)


def certified_rate(
    normal_scores: Any,
    threshold: float,
    *,
    groups: Groups | None = None,
    confidence: float = 0.95,
) -> float:
    """The false-alarm rate that `score > threshold` does not exceed, with `confidence` over the draw of the n
    independent calibration parts.

    groups: (n,) as for `conformal_threshold`; a part with any image above the threshold counts as above it,
    and the rate is of parts. Source: see the head of this module. Raises NotFinite, TooFewImages, UsageError.

    >>> scores = range(29)
    >>> round(certified_rate(scores, threshold=28), 3)
    0.098
    """
    scores = _scores(normal_scores, "normal_scores")
    _check_confidence(confidence)
    labels = group_numbers(len(scores), groups)
    count = int(labels.max()) + 1
    above = len(np.unique(labels[scores > threshold]))
    if above == count:
        return 1.0
    from scipy.stats import beta

    return float(beta.ppf(confidence, above + 1, count - above))


def exceedance_p_value(above: int, new: int, known_above: int, known: int) -> float:
    """The probability that at least `above` of `new` parts pass a limit which `known_above` of `known` other
    parts passed, if all are exchangeable; at most so much where scores tie.

    The limit is the (known_above + 1)-th largest of the known scores, or lies below the one before it: the
    number above it is Beta-binomial with parameters known_above + 1 and known - known_above (order
    statistics; the chance of the known parts is counted in). It is the number that follows from a promise
    that holds, whatever the scores' distribution. Raises UsageError for counts that cannot be.

    >>> exceedance_p_value(1, 1, 0, 99)  # one new part above the largest of 99 scores
    0.01
    >>> exceedance_p_value(8, 18, 0, 49) < 1e-4
    True
    """
    whole_numbers(least=0, above=above, new=new, known_above=known_above)
    whole_numbers(known=known)
    if above > new or known_above > known:
        raise UsageError(
            f"Of {new} new parts {above} lie above, of {known} known ones {known_above}: more than there are."
        )
    if not above or known_above == known:
        return 1.0
    from scipy.stats import betabinom

    return round(float(betabinom.sf(above - 1, new, known_above + 1, known - known_above)), 15)


def parts_needed(false_alarm_rate: float, *, confidence: float = 0.95) -> int:
    """How many independent good parts it takes to certify a rate: the smallest n for which a threshold at the
    largest of n scores has it with `confidence`, (1 - rate)^n <= 1 - confidence. Raises UsageError.

    >>> [parts_needed(rate) for rate in (0.1, 0.05, 0.02, 0.01)]
    [29, 59, 149, 299]
    """
    _check_rate(false_alarm_rate)
    _check_confidence(confidence)
    return math.ceil(math.log(1.0 - confidence) / math.log1p(-false_alarm_rate) - 1e-9)


def folds(count: int, parts: int, seed: int, groups: Groups | None = None) -> list[np.ndarray]:
    """Split `count` images into `parts` disjoint held-out sets of row numbers, for cross-conformal
    calibration.

    groups: one label an image (the same part photographed several times); a group is never divided, for
    images of one part in training and calibration are not exchangeable with a new part. seed: of the draw.
    Raises TooFewImages when there are fewer than two groups (or images, without groups).

    >>> [rows.tolist() for rows in folds(4, 2, seed=0, groups=["a", "a", "b", "b"])]
    [[0, 1], [2, 3]]
    """
    whole_numbers(least=0, seed=seed)
    labels = group_numbers(count, groups)
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


def group_numbers(count: int, groups: Groups | None) -> np.ndarray:
    """(count,) int64 from 0 on: number of the group of each image; groups is one label an image, or None. An
    image whose label is None is a group of its own.

    >>> group_numbers(4, ["b", "a", "b", None]).tolist()
    [1, 0, 1, 2]
    """
    if groups is None or not count:
        return np.arange(count)
    labels = listed(groups=groups)
    if len(labels) != count:
        raise UsageError(f"groups has one label an image: {count} images, {len(labels)} labels.")
    names = [f"image {row}" if label is None else f"group {label}" for row, label in enumerate(labels)]
    return np.unique(names, return_inverse=True)[1]


def _weights(count: int, groups: Groups | None) -> tuple[np.ndarray, int]:
    """(share of its group's one vote of each image (count,), number of groups)."""
    labels = group_numbers(count, groups)
    sizes = np.bincount(labels)
    return 1.0 / sizes[labels], len(sizes)


def _above(scores: np.ndarray, weights: np.ndarray, *, strict: bool) -> tuple[np.ndarray, np.ndarray]:
    """(distinct scores, rising; for each the weight of the scores above it, or at least it)."""
    values, place = np.unique(scores, return_inverse=True)
    weight = np.bincount(place, weights)
    at_least = weight[::-1].cumsum()[::-1]
    return values, at_least - weight if strict else at_least


def _scores(values: Any, name: str, *, empty: bool = False) -> np.ndarray:
    try:
        array = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
        array = np.asarray(array, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} are numbers, one an image; got {values!r:.80}.") from error
    if not empty and not len(array):
        raise TooFewImages("Calibration needs at least one normal image that the detector was not fitted on.")
    if not np.isfinite(array).all():
        raise NotFinite(
            f"{name} holds NaN or infinity at {np.flatnonzero(~np.isfinite(array))[:5].tolist()}: the "
            "detector's scores are broken."
        )
    return array


def _check_confidence(confidence: float) -> None:
    if not is_real(confidence) or not 0.0 < confidence < 1.0:
        raise UsageError(f"A confidence lies between 0 and 1 (0.95 is usual), got {confidence!r}.")


def _check_rate(rate: float) -> None:
    if not is_real(rate) or not 0.0 < rate < 1.0:
        raise UsageError(f"A false-alarm rate lies between 0 and 1 (0.01 is one in a hundred), got {rate!r}.")
