"""The streaming twin: bounds that hold, pieces and merges that do not matter, memory that does not grow."""

from __future__ import annotations

import importlib

import metrics_truth as truth
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kizu import metrics
from kizu.errors import NotFinite, ShapeError, UsageError
from kizu.metrics._sketch import keys_of

KEYS = ["auroc", "ap", "f1_max", "aupro"]


def _streamed(maps, masks, pieces=1, **settings):
    streaming = metrics.StreamingPixelMetrics(**settings)
    for part in np.array_split(np.arange(len(maps)), pieces):
        streaming.update(maps[part], masks[part])
    return streaming


CHANGES = {
    "as they are": lambda m: m,
    "exp": np.exp,
    "heavy tail": lambda m: np.exp(12 * m),
    "shifted": lambda m: m + np.float32(1000),
    "float64": lambda m: m.astype(np.float64) * np.pi,
    "beyond float32": lambda m: np.exp(100 * m.astype(np.float64)),
    "ties": np.round,
}


@pytest.mark.parametrize("buckets", [2, 16, 256, 2**18])
@pytest.mark.parametrize("change", CHANGES)
def test_the_exact_figures_lie_within_the_bounds(change, buckets):
    maps, masks = truth.planted(np.random.default_rng(0), n=8, size=32)
    maps = CHANGES[change](maps)
    exact = metrics.pixel_metrics(maps, masks)
    streaming = _streamed(maps, masks, pieces=3, buckets=buckets)
    bounds, values = streaming.bounds(), streaming.compute()
    assert list(values) == KEYS + [f"{key}_error" for key in KEYS]
    for key in KEYS:
        low, high = bounds[key]
        assert 0 <= low <= exact[key] <= high <= 1
        assert abs(values[key] - exact[key]) <= values[f"{key}_error"] + 1e-15


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(2, 64),
    st.sampled_from([0.05, 0.3, 1.0]),
    st.sampled_from([None, 1, 10]),
)
def test_bounds_hold_for_any_data(seed, buckets, limit, levels):
    maps, masks = truth.planted(np.random.default_rng(seed), n=4, size=10, normal_images=1, levels=levels)
    exact = metrics.pixel_metrics(maps, masks, limit)
    bounds = _streamed(maps, masks, buckets=buckets, fpr_limit=limit).bounds()
    for key in KEYS:
        assert bounds[key][0] <= exact[key] <= bounds[key][1]


@pytest.mark.parametrize("change", ["as they are", "exp", "heavy tail", "shifted"])
def test_default_cells_are_fine_enough_on_any_range(change):
    rng = np.random.default_rng(1)
    maps, masks = truth.planted(rng, n=20, size=96)
    values = _streamed(CHANGES[change](maps), masks, pieces=5, buckets=2**16).compute()
    assert all(values[f"{key}_error"] < 1e-4 for key in KEYS), values


def test_few_different_scores_are_exact():
    maps, masks = truth.planted(np.random.default_rng(2), n=8, size=32, levels=10)
    values = _streamed(maps, masks, pieces=4, buckets=256).compute()
    exact = metrics.pixel_metrics(maps, masks)
    for key in KEYS:
        assert values[key] == pytest.approx(exact[key], abs=2e-12)
        assert values[f"{key}_error"] < 2e-12


def test_as_many_scores_as_cells_are_kept_apart_and_one_more_is_not():
    maps, masks = np.arange(64, dtype=np.float32).reshape(1, 8, 8), np.zeros((1, 8, 8), bool)
    masks[0, 2:5, 3:6] = True
    assert _streamed(maps, masks, buckets=64).compute()["auroc_error"] < 2e-12
    assert _streamed(maps, masks, buckets=63).compute()["auroc_error"] > 1e-4


@pytest.mark.parametrize("buckets", [16, 1000])
def test_pieces_order_and_merges_give_the_same_sketch(buckets, monkeypatch):
    maps, masks = truth.planted(np.random.default_rng(3), n=12, size=32)
    whole = _streamed(maps, masks, buckets=buckets)
    backwards = _streamed(maps[::-1], masks[::-1], pieces=12, buckets=buckets)
    merged, other = (
        _streamed(maps[:3], masks[:3], buckets=buckets),
        _streamed(maps[3:], masks[3:], buckets=buckets),
    )
    merged.merge(other)
    late = metrics.StreamingPixelMetrics(buckets=buckets)
    late.merge(other)
    late.update(maps[:3], masks[:3])
    monkeypatch.setattr(importlib.import_module("kizu.metrics.streaming_pixel_metrics"), "BLOCK", 700)
    blocks = _streamed(maps, masks, buckets=buckets)
    for twin in (backwards, merged, late, blocks):
        assert np.array_equal(twin._sketch.cells, whole._sketch.cells)
        assert np.allclose(twin._sketch.sums, whole._sketch.sums, rtol=1e-12)
        assert twin.compute() == pytest.approx(whole.compute(), abs=1e-12)


def test_memory_is_bounded_and_image_sizes_may_differ():
    rng = np.random.default_rng(4)
    streaming = metrics.StreamingPixelMetrics(buckets=500)
    for size in (16, 33, 64):
        maps, masks = truth.planted(rng, n=5, size=size)
        streaming.update(torch.tensor(maps), torch.tensor(masks))
        assert streaming._sketch.cells.size <= 500
        assert streaming._sketch.sums.shape == (3, streaming._sketch.cells.size)
    assert 0 < streaming.compute()["auroc"] < 1


def test_keys_sort_as_the_numbers_do():
    values = np.array(
        [-3e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, np.nextafter(np.float32(1), np.float32(2)), 3e38],
        np.float32,
    )
    keys = keys_of(values).astype(np.int64)
    assert np.array_equal(np.sign(np.diff(keys)), np.sign(np.diff(values.astype(np.float64))))


def test_errors_leave_the_count_untouched():
    maps, masks = truth.planted(np.random.default_rng(5))
    streaming = metrics.StreamingPixelMetrics()
    with pytest.raises(UsageError, match="no anomalous pixels"):
        streaming.compute()
    streaming.update(maps, masks)
    before = streaming.compute()
    with pytest.raises(NotFinite):
        streaming.update(np.where(masks, np.nan, maps), masks)
    with pytest.raises(UsageError, match="masks must hold"):
        streaming.update(maps, masks * 3)
    with pytest.raises(ShapeError):
        streaming.update(maps, masks[:1])
    with pytest.raises(UsageError, match="Only equal settings"):
        streaming.merge(metrics.StreamingPixelMetrics(fpr_limit=0.05))
    assert streaming.compute() == before
    with pytest.raises(UsageError, match="buckets"):
        metrics.StreamingPixelMetrics(buckets=1)
    with pytest.raises(UsageError, match="fpr_limit"):
        metrics.StreamingPixelMetrics(fpr_limit=0)
