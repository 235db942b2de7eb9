"""F1 and accuracy at the F1-optimal threshold, against a literal sweep and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from kizu import metrics
from kizu.errors import UsageError


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.sampled_from([0.5, 2, 1000]))
@pytest.mark.slow
def test_oracles_equal_the_literal_sweep(seed, count, levels):
    rng = np.random.default_rng(seed)
    labels = np.r_[0, 1, rng.integers(0, 2, count)]
    scores = np.round(levels * (rng.standard_normal(count + 2) + labels)) / levels
    cuts = np.unique(scores)
    f1 = [f1_score(labels, scores >= cut) for cut in cuts]
    first = int(np.flatnonzero(np.isclose(f1, max(f1), rtol=0, atol=1e-12))[0])
    assert metrics.f1_oracle(scores, labels) == pytest.approx(max(f1), abs=1e-12)
    assert metrics.accuracy_oracle(scores, labels) == pytest.approx(
        accuracy_score(labels, scores >= cuts[first]), abs=1e-12
    )
    assert metrics.f1_oracle(scores, labels) == metrics.f1_max(scores, labels)


def test_of_equal_f1_the_lowest_threshold():
    scores, labels = np.array([5, 4, 3, 2, 1]), np.array([1, 0, 1, 0, 0])
    # F1 at 5: 2/3, at 3: 4/5; with the third anomalous image far down, 5 and 1 would both give it
    assert metrics.accuracy_oracle(scores, labels) == pytest.approx(4 / 5)
    scores, labels = np.array([6, 5, 4, 3]), np.array([1, 0, 0, 1])
    assert metrics.f1_oracle(scores, labels) == pytest.approx(2 / 3)
    assert metrics.accuracy_oracle(scores, labels) == pytest.approx(1 / 2), "at 6 it would be 3/4"


def test_refusals():
    for member in (metrics.f1_oracle, metrics.accuracy_oracle):
        with pytest.raises(UsageError, match="no anomalous images"):
            member(np.zeros(3), np.zeros(3))
