"""The promise is kept: against the definition, against exact arithmetic, and over many draws."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kizu import calibration
from kizu.calibration import (
    certified_rate,
    conformal_threshold,
    folds,
    images_needed,
    p_values,
    parts_needed,
    smallest_rate,
)
from kizu.detectors.decision import Decision
from kizu.errors import NotFinite, TooFewImages, UsageError


def test_p_values_are_the_definition() -> None:
    normal = np.array([3.0, 1.0, 2.0, 2.0])
    for score in (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0):
        expected = (1 + sum(value >= score for value in normal)) / 5
        assert p_values([score], normal)[0] == expected


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.lists(st.integers(-1, 6), min_size=1, max_size=20),
    st.integers(1, 99),
)
def test_threshold_and_p_values_decide_alike(normal: list[int], tested: list[int], percent: int) -> None:
    rate = percent / 100
    if len(normal) < images_needed(rate):
        with pytest.raises(TooFewImages):
            conformal_threshold(normal, rate)
        return
    flagged = np.asarray(tested) > conformal_threshold(normal, rate)
    by_p = [
        Fraction(1 + sum(v >= score for v in normal), len(normal) + 1) <= Fraction(percent, 100)
        for score in tested
    ]
    assert flagged.tolist() == by_p


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), min_size=1, max_size=40),
    st.lists(st.integers(-1, 6), min_size=1, max_size=10),
    st.integers(1, 99),
)
def test_a_group_has_one_vote(images: list[tuple[int, int]], tested: list[int], percent: int) -> None:
    """Against the definition in exact fractions: each group votes with its mean."""
    scores, groups = [score for score, _ in images], [group for _, group in images]
    by_group: dict[int, list[int]] = {}
    for score, group in images:
        by_group.setdefault(group, []).append(score)
    exact = [
        Fraction(1 + sum(Fraction(sum(v >= score for v in own), len(own)) for own in by_group.values()))
        / (len(by_group) + 1)
        for score in tested
    ]
    assert np.allclose(p_values(tested, scores, groups=groups), [float(p) for p in exact], rtol=1e-12)
    rate = percent / 100
    if len(by_group) < images_needed(rate):
        with pytest.raises(TooFewImages):
            conformal_threshold(scores, rate, groups=groups)
        return
    flagged = np.asarray(tested) > conformal_threshold(scores, rate, groups=groups)
    assert flagged.tolist() == [p <= Fraction(percent, 100) for p in exact]


def test_groups_of_one_are_images() -> None:
    scores = np.random.default_rng(0).normal(size=40)
    assert conformal_threshold(scores, 0.1, groups=range(40)) == conformal_threshold(scores, 0.1)
    assert np.array_equal(p_values(scores, scores, groups=range(40)), p_values(scores, scores))
    with pytest.raises(UsageError, match="40 images, 39 labels"):
        conformal_threshold(scores, 0.1, groups=range(39))
    with pytest.raises(TooFewImages, match="9 calibration groups of images, got 8"):
        conformal_threshold(scores, 0.1, groups=list(range(8)) * 5)


@pytest.mark.parametrize(("parts", "size", "rate"), [(30, 1, 0.05), (30, 6, 0.05), (5, 6, 1 / 6)])
def test_the_promise_is_kept_with_parts_of_several_images(parts: int, size: int, rate: float) -> None:
    """Images of one part have correlation 0.9. Counted by image, 5 parts of 6 images seem to back 1/31: new
    parts are called anomalous three times as often."""
    rng, draws = np.random.default_rng(1), 4000

    def draw(count: int) -> np.ndarray:
        part = np.repeat(rng.normal(size=count), size) * 0.9**0.5
        return part + rng.normal(size=count * size) * 0.1**0.5

    groups = np.repeat(np.arange(parts), size)
    alarms, by_image = [], []
    for _ in range(draws):
        scores, new = draw(parts), draw(20)
        alarms.append(np.mean(new > conformal_threshold(scores, rate, groups=groups)))
        by_image.append(np.mean(new > conformal_threshold(scores, 1 / 31)) if parts == 5 else 0.0)
    assert np.mean(alarms) <= rate + 3 * np.std(alarms) / draws**0.5
    assert np.mean(alarms) > 0.5 * rate  # it is no empty promise
    if parts == 5:
        assert np.mean(by_image) > 2.5 / 31
        with pytest.raises(TooFewImages):
            conformal_threshold(scores, 1 / 31, groups=groups)


def test_what_is_certified_holds_for_the_draw() -> None:
    """Of 2,000 draws of 59 parts at most 5 % have a larger rate than certified; the bound is exact for the
    largest score, 1 - 0.05^(1/n)."""
    rng, above = np.random.default_rng(2), []
    for _ in range(2000):
        scores = rng.uniform(size=59)
        threshold = conformal_threshold(scores, 0.05)
        above.append(1 - threshold > certified_rate(scores, threshold))
    assert np.mean(above) <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5
    assert certified_rate(range(59), 58) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert certified_rate(range(59), -1) == 1.0
    assert certified_rate([1.0, 5.0, 2.0, 3.0], 4.0, groups=list("aabc")) == certified_rate(range(3), 1)
    with pytest.raises(UsageError, match="confidence"):
        certified_rate(range(5), 1, confidence=1.0)


def test_parts_that_a_certificate_takes() -> None:
    assert [parts_needed(rate) for rate in (0.1, 0.05, 0.02, 0.01)] == [29, 59, 149, 299]
    for rate in (0.3, 0.07, 0.01, 0.001):
        n = parts_needed(rate)
        assert certified_rate(range(n), n - 1) <= rate < certified_rate(range(n - 1), n - 2)


def test_the_smallest_promise() -> None:
    assert smallest_rate(99) == 0.01
    assert images_needed(0.01) == 99
    assert images_needed(0.05) == 19
    assert conformal_threshold(np.arange(99.0), 0.01) == 98.0
    with pytest.raises(TooFewImages, match="takes 99 calibration images, got 98"):
        conformal_threshold(np.arange(98.0), 0.01)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        conformal_threshold([1.0, 2.0], rate)


def test_scores_that_are_none() -> None:
    with pytest.raises(NotFinite):
        conformal_threshold([1.0, float("nan")], 0.5)
    with pytest.raises(TooFewImages):
        p_values([1.0], [])


@pytest.mark.parametrize("heavy", [False, True])
def test_the_promise_is_kept_over_many_draws(heavy: bool) -> None:
    """P(false alarm) = floor((n + 1) a) / (n + 1) exactly for continuous scores; the mean over draws must sit
    on it."""
    rng = np.random.default_rng(0)
    draws, n, rate = 4000, 50, 0.05
    alarms = []
    for _ in range(draws):
        scores = rng.standard_cauchy(n + 20) if heavy else rng.normal(size=n + 20)
        alarms.append(np.mean(scores[n:] > conformal_threshold(scores[:n], rate)))
    exact = np.floor((n + 1) * rate) / (n + 1)
    assert abs(np.mean(alarms) - exact) < 4 * np.std(alarms) / np.sqrt(draws)
    assert exact <= rate


def test_folds_keep_groups_together() -> None:
    groups = ["a", "a", "b", "c", "c", "c", "d", "e"]
    parts = folds(8, 3, 0, groups)
    assert sorted(np.concatenate(parts).tolist()) == list(range(8))
    for group in set(groups):
        rows = {row for row, name in enumerate(groups) if name == group}
        assert sum(bool(rows & set(part.tolist())) for part in parts) == 1
    assert [part.tolist() for part in folds(8, 3, 0, groups)] == [part.tolist() for part in parts]
    with pytest.raises(TooFewImages):
        folds(3, 2, 0, ["same", "same", "same"])


NO_NUMBER = ["0.1", None, True, [0.1], float("nan")]


@pytest.mark.parametrize("value", NO_NUMBER)
def test_what_is_no_rate(value: object) -> None:
    for function in (calibration.images_needed, calibration.parts_needed):
        with pytest.raises(UsageError, match="between 0 and 1"):
            function(value)
    with pytest.raises(UsageError, match="between 0 and 1"):
        calibration.conformal_threshold([0.1, 0.2], value)
    with pytest.raises(UsageError, match="between 0 and 1"):
        calibration.certified_rate([0.1, 0.2], 0.2, confidence=value)


def test_what_are_no_scores_or_groups() -> None:
    for scores in (["a"], [[0.1], [0.2, 0.3]], {"a": 1}):
        with pytest.raises(UsageError, match="are numbers, one an image"):
            calibration.p_values([0.5], scores)
        with pytest.raises(UsageError, match="are numbers, one an image"):
            Decision(scores, 0.3)
    with pytest.raises(UsageError, match="groups is a list"):
        calibration.p_values([0.5], [0.1], groups=5)
    with pytest.raises(NotFinite):
        Decision([0.1, 0.2, 1e39], 0.3)
    alone = calibration.p_values([0.15], [0.1, 0.2, 0.9], groups=[None, None, None])
    assert alone.tolist() == [0.75], "an image without a group is a part of its own"


@pytest.mark.parametrize(
    "limits", [(float("nan"), 1), (5, 1), (1, 1), (1,), ("a", 1), 3, "ab", (0, math.inf)]
)
def test_what_is_no_display_range(limits: object) -> None:
    with pytest.raises(UsageError, match="map_range is"):
        Decision([0.1, 0.2, 0.3], 0.3, map_range=limits)
    kept = Decision([0.1, 0.2, 0.3], 0.3, map_range=np.array([0, 1], np.float32)).map_range
    assert kept == (0.0, 1.0)


@pytest.mark.parametrize("rate", [5e-324, 1e-320, 1e-10])
def test_a_rate_that_nothing_backs(rate: float) -> None:
    with pytest.raises(UsageError, match="No number of images backs"):
        calibration.images_needed(rate)
    with pytest.raises(UsageError, match="No number of images backs"):
        calibration.conformal_threshold([0.1, 0.2], rate)
