"""Image-level figures against scikit-learn, closed forms and invariances."""

from __future__ import annotations

import metrics_truth as truth
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kizu import metrics
from kizu.errors import NotFinite, ShapeError, UsageError
from kizu.metrics.f1_max import f1_max_threshold_oracle

SINGLE = {"auroc": metrics.auroc, "ap": metrics.average_precision, "f1_max": metrics.f1_max}


@st.composite
def scored(draw):
    """Scores from few values (heavy ties) or many, with both classes."""
    n = draw(st.integers(2, 60))
    values = draw(
        st.sampled_from(
            [st.integers(-3, 3).map(float), st.floats(-1e6, 1e6, width=32), st.floats(-1e300, 1e300)]
        )
    )
    scores = draw(st.lists(values, min_size=n, max_size=n))
    labels = draw(
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda found: 0 < sum(found) < len(found))
    )
    return np.array(scores), np.array(labels)


@settings(max_examples=50, deadline=None)
@given(scored())
def test_equal_to_sklearn_with_any_ties(case):
    scores, labels = case
    got, want = metrics.image_metrics(scores, labels), truth.sklearn_three(scores, labels)
    assert set(got) == {"auroc", "ap", "f1_max"}
    for key, value in want.items():
        assert got[key] == pytest.approx(value, abs=1e-12)
        assert SINGLE[key](scores, labels) == got[key]
    assert metrics.trapezoid_au_pr(scores, labels) == pytest.approx(
        truth.sklearn_trapezoid(scores, labels), abs=1e-12
    )


def test_the_oracle_threshold_reaches_f1_max():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    scores = np.round(rng.standard_normal(200) + labels, 1)
    predicted = scores >= f1_max_threshold_oracle(scores, labels)
    hits = np.sum(predicted & (labels == 1))
    assert 2 * hits / (predicted.sum() + labels.sum()) == pytest.approx(metrics.f1_max(scores, labels))


def _hits_with_false_alarms(false_alarms):
    """The supplement's curves: 100 positives, 100,000 negatives; the i-th hit comes tied with false_alarms[i]
    false positives."""
    scores, labels = [], []
    for rank, count in enumerate(false_alarms):
        scores += [-float(rank)] * (count + 1)
        labels += [1] + [0] * count
    rest = 100_000 - sum(false_alarms)
    return np.array(scores + [-1000.0] * rest), np.array(labels + [0] * rest)


def test_the_published_vector_model_b():
    scores, labels = _hits_with_false_alarms([0] * 90 + [3000] * 10)
    figures = metrics.image_metrics(scores, labels)
    assert round(100 * metrics.trapezoid_au_pr(scores, labels), 2) == 90.59
    assert [round(100 * figures[key], 2) for key in ("ap", "auroc", "f1_max")] == [90.09, 98.5, 94.74]


def test_the_published_vector_model_a_needs_nine_false_alarms_a_hit():
    scores, labels = _hits_with_false_alarms([9] * 100)
    figures = metrics.image_metrics(scores, labels)
    assert round(100 * metrics.trapezoid_au_pr(scores, labels), 2) == 10.45
    assert [round(100 * figures[key], 2) for key in ("ap", "f1_max")] == [10.0, 18.18]


@pytest.mark.parametrize("change", [lambda s: s + 1000.0, lambda s: 7.0 * s, np.exp, lambda s: s**3])
def test_only_the_order_counts(change):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 500)
    scores = np.round(rng.standard_normal(500) + labels, 2)
    assert metrics.image_metrics(change(scores), labels) == metrics.image_metrics(scores, labels)


def test_far_scores_are_not_squashed():
    labels = np.array([0, 0, 1, 0, 1, 1])
    scores = np.array([0.1, 0.4, 0.35, 0.2, 0.8, 0.9], np.float32)
    assert metrics.auroc(scores + 20, labels) == metrics.auroc(scores, labels) == pytest.approx(8 / 9)


def test_perfect_constant_and_reversed():
    labels = np.array([0, 1, 0, 1, 0])
    assert metrics.image_metrics(labels.astype(float), labels) == {"auroc": 1.0, "ap": 1.0, "f1_max": 1.0}
    assert metrics.image_metrics(np.ones(5), labels) == {
        "auroc": 0.5,
        "ap": 0.4,
        "f1_max": pytest.approx(4 / 7),
    }
    assert metrics.auroc(-labels.astype(float), labels) == 0.0


def test_numpy_torch_and_every_type_agree():
    rng = np.random.default_rng(2)
    scores, labels = rng.integers(-100, 100, 300), rng.integers(0, 2, 300)
    want = metrics.image_metrics(scores.astype(float), labels)
    for dtype in (np.int8, np.int64, np.float16, np.float32, ">f8"):
        assert metrics.image_metrics(scores.astype(dtype), labels.astype(bool)) == want
    for kind in (torch.bfloat16, torch.float16, torch.float32, torch.int32):
        assert metrics.image_metrics(torch.tensor(scores, dtype=kind), torch.tensor(labels)) == want
    assert (
        metrics.image_metrics(torch.tensor(scores, dtype=torch.float32, requires_grad=True), labels) == want
    )


def test_float64_is_not_rounded():
    scores = np.array([1.0, 1.0 + 1e-12, 1.0 + 2e-12])
    assert metrics.auroc(scores, np.array([0, 1, 1])) == 1.0


@pytest.mark.parametrize(
    "member", [metrics.image_metrics, metrics.auroc, metrics.image_curves, metrics.trapezoid_au_pr]
)
def test_errors_say_what_is_wrong(member):
    with pytest.raises(UsageError, match="no anomalous images"):
        member(np.arange(3.0), np.zeros(3))
    with pytest.raises(UsageError, match="no normal images"):
        member(np.arange(3.0), np.ones(3))
    with pytest.raises(UsageError, match="labels must be 0"):
        member(np.arange(3.0), np.array([0, 1, -1]))
    with pytest.raises(NotFinite, match="1 NaN"):
        member(np.array([0.0, np.nan, 1.0]), np.array([0, 0, 1]))
    with pytest.raises(ShapeError, match="n is 2 here but 3 in scores"):
        member(np.arange(3.0), np.array([0, 1]))
    with pytest.raises(UsageError, match="real numbers"):
        member(np.array([1j, 2j]), np.array([0, 1]))
    with pytest.raises(UsageError, match="2\\^53"):
        member(np.array([2**60, 2**60 + 1]), np.array([0, 1]))


def test_curve_points_are_operating_points():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 400)
    scores = np.round(rng.standard_normal(400) + labels, 1)
    curves = metrics.image_curves(scores, labels, points=40)
    cuts = [np.inf, *np.unique(scores)]
    real = {(np.mean(scores[labels == 0] >= t), np.mean(scores[labels == 1] >= t)) for t in cuts}
    roc = list(zip(curves["roc"]["x"], curves["roc"]["y"], strict=True))
    assert set(roc) <= real
    assert (roc[0], roc[-1], len(roc) <= 40) == ((0.0, 0.0), (1.0, 1.0), True)
    real = {(np.mean(scores[labels == 1] >= t), np.mean(labels[scores >= t])) for t in cuts[1:]}
    assert set(zip(curves["pr"]["x"], curves["pr"]["y"], strict=True)) <= real


def test_a_thinned_curve_keeps_its_area():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 5000)
    scores = rng.standard_normal(5000) + labels
    roc = metrics.image_curves(scores, labels)["roc"]
    assert len(roc["x"]) <= 512
    assert np.trapezoid(roc["y"], roc["x"]) == pytest.approx(metrics.auroc(scores, labels), abs=2e-3)
    with pytest.raises(UsageError, match="at least 2"):
        metrics.image_curves(scores, labels, points=1)
