"""sPRO and the kinds of MVTec LOCO AD, against literal sweeps over every threshold."""

from __future__ import annotations

import metrics_truth as truth
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from kizu import metrics
from kizu.errors import NotFinite, ShapeError, UsageError


def points(maps, masks, saturations):
    """(FPR, sPRO) for the prediction score > t at every t, from nothing predicted to everything."""
    free = [~layers.any(axis=0) for layers in masks]
    thresholds = [np.inf, *np.unique(np.concatenate([scores.ravel() for scores in maps]))[::-1], -np.inf]
    fpr = [
        sum((s[f] > t).sum() for s, f in zip(maps, free, strict=True)) / sum(f.sum() for f in free)
        for t in thresholds
    ]
    overlap = [
        np.mean(
            [
                min((scores[layer] > t).sum() / min(area, layer.sum()), 1.0)
                for scores, layers, areas in zip(maps, masks, saturations, strict=True)
                for layer, area in zip(layers, areas, strict=True)
            ]
        )
        for t in thresholds
    ]
    return np.array(fpr), np.array(overlap)


def stairs(fpr, overlap, limit):
    return np.sum(np.diff(np.minimum(fpr, limit)) * overlap[:-1]) / limit


def drawn(rng, *, levels=None):
    """Images of different sizes with 0 to 3 defects, which may overlap, and saturations below, at and above
    their areas."""
    maps, masks, saturations = [], [], []
    for image in range(5):
        height, width = rng.integers(6, 12, 2)
        layers = np.zeros((0 if image == 0 else rng.integers(1, 4), height, width), bool)
        for layer in layers:
            y, x = rng.integers(0, height - 3), rng.integers(0, width - 3)
            layer[y : y + rng.integers(1, 4), x : x + rng.integers(1, 4)] = True
            layer[rng.integers(height), rng.integers(width)] = True  # a defect may have several parts
        scores = rng.standard_normal((height, width)) + layers.any(axis=0)
        maps.append((scores if levels is None else np.round(scores * levels)).astype(np.float32))
        masks.append(layers)
        saturations.append(rng.integers(1, 12, len(layers)))
    return maps, masks, saturations


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 1, 3]), st.sampled_from([0.05, 0.3, 1.0]))
def test_spro_equals_the_literal_definition(seed, levels, limit):
    maps, masks, saturations = drawn(np.random.default_rng(seed), levels=levels)
    got = metrics.spro(maps, masks, saturations, limit)
    fpr, overlap = points(maps, masks, saturations)
    assert got == pytest.approx(truth.area_to(fpr, overlap, limit) / limit, abs=1e-10)
    if levels is None:  # no ties: the curve has no slanted step
        assert got == pytest.approx(stairs(fpr, overlap, limit), abs=1e-10)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("levels", [None, 2])
def test_spro_with_whole_regions_is_aupro(seed, levels):
    maps, masks = truth.planted(np.random.default_rng(seed), levels=levels)
    layers = [
        np.array([region for at, region in truth.regions_of(masks) if at == image]).reshape(-1, 24, 24)
        for image in range(len(maps))
    ]
    areas = [layer.sum(axis=(1, 2)) for layer in layers]
    assert metrics.spro(maps, layers, areas, 0.3) == pytest.approx(metrics.aupro(maps, masks, 0.3), abs=1e-12)
    easier = metrics.spro(maps, layers, [np.maximum(area // 2, 1) for area in areas], 0.3)
    assert easier > metrics.spro(maps, layers, areas, 0.3)
    tensors = metrics.spro(torch.from_numpy(maps), [torch.from_numpy(layer) for layer in layers], areas, 0.3)
    assert tensors == metrics.spro(maps, layers, areas, 0.3)


def test_spro_by_hand():
    maps = [np.array([[9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0]])]
    masks = [np.array([[[1, 0, 1, 0, 1, 0, 0, 0, 0, 0]]], bool)]
    # two of three pixels are enough: the first before any false alarm, the second behind one of seven
    assert metrics.spro(maps, masks, [[2]], 2 / 7) == pytest.approx((1 + 0.5) / 2)
    assert metrics.spro(maps, masks, [[1]], 2 / 7) == 1.0
    assert metrics.spro([np.zeros((1, 10))], masks, [[2]], 0.3) == pytest.approx(0.15), (
        "ties: a straight line"
    )


def test_spro_refusals():
    scores, mask = np.zeros((4, 4)), np.zeros((1, 4, 4), bool)
    mask[0, 1, 1] = True
    none = np.zeros((0, 4, 4), bool)
    for bad, error, message in (
        (([scores], [mask], [], 0.05), UsageError, "for each map, got 1, 1 and 0"),
        (([scores], [mask], [[1]], 0.0), UsageError, "fpr_limit"),
        (([scores], [mask], [[0]], 0.05), UsageError, "from 1 on"),
        (([scores], [mask], [[1, 2]], 0.05), ShapeError, r"must be \(1,\)"),
        (([scores], [mask[:, :3]], [[1]], 0.05), ShapeError, r"got \(4, 4\) and \(1, 3, 4\)"),
        (([scores], [~mask & False], [[1]], 0.05), UsageError, "marks no pixel"),
        (([scores], [mask * 3], [[1]], 0.05), UsageError, "0 and 1"),
        (([scores], [none], [[]], 0.05), UsageError, "no anomalous pixels"),
        (([scores], [~none.any(axis=0, keepdims=True)], [[1]], 0.05), UsageError, "no normal pixels"),
        (([scores * np.nan], [mask], [[1]], 0.05), NotFinite, r"maps\[0\]"),
    ):
        with pytest.raises(error, match=message):
            metrics.spro(*bad)


def test_loco_auroc():
    rng = np.random.default_rng(0)
    kinds = np.array(["good"] * 20 + ["structural"] * 9 + ["logical"] * 15)[rng.permutation(44)]
    scores = np.round(rng.standard_normal(44) + (kinds == "structural") * 1.5 + (kinds == "logical"), 1)
    got = metrics.loco_auroc(scores, kinds.tolist())
    for kind in ("structural", "logical"):
        chosen = (kinds == "good") | (kinds == kind)
        assert got[kind] == pytest.approx(roc_auc_score(kinds[chosen] == kind, scores[chosen]), abs=1e-12)
    assert got["mean"] == pytest.approx((got["structural"] + got["logical"]) / 2)
    with pytest.raises(UsageError, match="got 'scratch'"):
        metrics.loco_auroc(scores, ["scratch", *kinds[1:]])
    with pytest.raises(UsageError, match=r"\(44,\) and \(43,\)"):
        metrics.loco_auroc(scores, kinds[1:])
    with pytest.raises(UsageError, match="no anomalous images"):
        metrics.loco_auroc(scores[kinds != "logical"], kinds[kinds != "logical"])
