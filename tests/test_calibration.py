"""The promise is kept: against the definition, against exact arithmetic, and over many draws."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kizu.calibration import conformal_threshold, folds, images_needed, p_values, smallest_rate
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
