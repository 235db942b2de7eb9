"""The variants that papers print, against straightforward re-implementations; each differs from the exact
figure as told."""

from __future__ import annotations

import metrics_truth as truth
import numpy as np
import pytest
from sklearn.metrics import auc

from kizu import metrics
from kizu.errors import NotFinite, UsageError


def _sweep(maps, masks, count):
    """FPR and PRO at equidistant thresholds, by masks and loops."""
    regions, good, low, high = truth.regions_of(masks), ~masks, float(maps.min()), float(maps.max())
    rates, overlaps = [], []
    for step in range(count):
        predicted = maps > low + step * (high - low) / count
        rates.append(predicted[good].mean())
        overlaps.append(np.mean([predicted[image][region].mean() for image, region in regions]))
    return np.array(rates), np.array(overlaps)


@pytest.mark.parametrize("seed", range(3))
def test_200_thresholds(seed):
    maps, masks = truth.planted(np.random.default_rng(seed))
    rates, overlaps = _sweep(maps, masks, 200)
    kept = rates < 0.3
    stretched = (rates[kept] - rates[kept].min()) / (rates[kept].max() - rates[kept].min())
    got = metrics.aupro_200_thresholds(maps, masks)
    assert got == pytest.approx(auc(stretched, overlaps[kept]), abs=1e-12)
    assert 0 < abs(got - metrics.aupro(maps, masks)) < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_per_image(seed):
    maps, masks = truth.planted(np.random.default_rng(seed))
    areas = []
    for image in range(2, len(maps)):
        rates, overlaps = _sweep(maps[[image]], masks[[image]], 200)
        kept = rates < 0.3
        areas.append(auc(rates[kept] / rates[kept].max(), overlaps[kept]))
    assert metrics.aupro_per_image(maps, masks) == pytest.approx(np.mean(areas), abs=1e-12)
    worse = maps.copy()
    worse[:2] += 100  # false alarms on normal images are free here, and here only
    assert metrics.aupro_per_image(worse, masks) == metrics.aupro_per_image(maps, masks)
    assert metrics.aupro(worse, masks) < metrics.aupro(maps, masks) - 0.1


@pytest.mark.parametrize("seed", range(3))
def test_spot_diff(seed):
    maps, masks = truth.planted(np.random.default_rng(seed))
    scores = maps.astype(np.float64)
    inside = scores[masks]
    cuts = [*np.percentile(inside, np.linspace(100, 0, 100)), *np.linspace(inside.max(), inside.min(), 100)]
    cuts += [scores.min() - 1e-8, scores.max() + 1e-8]
    false, true, precision = [], [], []
    for cut in sorted(cuts, reverse=True):
        predicted = scores > cut
        hits, alarms = (predicted & masks).sum(), predicted.sum()
        false.append((alarms - hits) / (~masks).sum())
        true.append(hits / masks.sum())
        precision.append(hits / alarms if alarms else 1.0)
    got = metrics.spot_diff_pixel_202(maps, masks)
    assert got == {"auroc": round(auc(false, true), 4), "au_pr": round(auc(true, precision), 4)}
    assert got["auroc"] == pytest.approx(metrics.pixel_metrics(maps, masks)["auroc"], abs=0.005)


def test_equidistant_thresholds_fail_on_heavy_tails_where_the_exact_figure_does_not_move():
    maps, masks = truth.planted(np.random.default_rng(4), levels=1000)
    tail = np.exp(maps.astype(np.float64) / 10)
    tail /= tail.max()
    assert metrics.aupro(tail, masks) == metrics.aupro(maps, masks)
    for member in (metrics.aupro_200_thresholds, metrics.aupro_per_image):
        with pytest.raises(NotFinite, match="Use aupro"):
            member(tail, masks)


def test_a_score_at_the_threshold_is_not_above_it():
    maps = np.array([[[0, 0, 0, 0, 100, 200, 0, 100]]], np.float32)  # thresholds 0, 1, ..., 199
    masks = np.array([[[0, 0, 0, 0, 0, 1, 0, 1]]], bool)
    # above 100..199: 1 of 2 regions at rate 0; above 0..99: both regions at rate 1 / 6; nothing else below
    # 0.3
    assert metrics.aupro_200_thresholds(maps, masks) == pytest.approx(0.75)


def test_a_constant_map_is_undefined_for_equidistant_thresholds():
    masks = truth.planted(np.random.default_rng(5))[1]
    with pytest.raises(NotFinite, match="equidistant"):
        metrics.aupro_200_thresholds(np.zeros(masks.shape), masks)


def test_per_image_needs_an_anomalous_image():
    with pytest.raises(UsageError, match="no anomalous pixels"):
        metrics.aupro_per_image(np.zeros((2, 4, 4)), np.zeros((2, 4, 4), bool))
