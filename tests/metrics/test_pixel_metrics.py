"""Pixel-level figures against scikit-learn and literal sweeps over every threshold."""

from __future__ import annotations

import metrics_truth as truth
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from kizu import metrics
from kizu.errors import NotFinite, ShapeError, UsageError
from kizu.metrics import _counts
from kizu.metrics._regions import label_regions


@settings(max_examples=16, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([None, 0.5, 1, 4]),
    st.sampled_from([0.05, 0.3, 1.0]),
    st.integers(0, 4),
)
def test_all_four_equal_the_literal_definitions(seed, levels, limit, normal_images):
    maps, masks = truth.planted(
        np.random.default_rng(seed), n=5, size=9, normal_images=normal_images, levels=levels
    )
    got = metrics.pixel_metrics(maps, masks, fpr_limit=limit)
    want = truth.sklearn_three(maps.ravel(), masks.ravel())
    assert set(got) == {"auroc", "ap", "f1_max", "aupro"}
    for key, value in want.items():
        assert got[key] == pytest.approx(value, abs=1e-10)
    assert got["aupro"] == pytest.approx(truth.aupro_official(maps, masks, limit), abs=1e-10)
    assert got["aupro"] == pytest.approx(truth.aupro_straight(maps, masks, limit), abs=1e-10)
    assert metrics.aupro(maps, masks, limit) == got["aupro"]
    against = metrics.aupro_pessimistic_ties(maps, masks, limit)
    assert against == pytest.approx(truth.aupro_stairs(maps, masks, limit), abs=1e-10)
    assert against <= got["aupro"] + 1e-12
    one_normal = 1 / (2 * (~masks).sum() * limit)
    assert abs(against - truth.aupro_ranks(maps, masks, limit)) <= one_normal + 1e-12


@pytest.mark.parametrize("shades", [2, 6, 30, 256])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_maps_of_8_bits_have_the_official_aupro(shades, limit):
    rng = np.random.default_rng(shades)
    masks = truth.planted(rng, n=4, size=12, normal_images=1)[1]
    maps = np.clip(rng.integers(0, shades, masks.shape) + masks * shades // 4, 0, 255).astype(np.uint8)
    want = truth.aupro_official(maps, masks, limit)
    assert metrics.aupro(maps, masks, limit) == pytest.approx(want, abs=1e-12)
    assert metrics.pixel_metrics(maps, masks, limit)["aupro"] == pytest.approx(want, abs=1e-12)
    assert metrics.aupro_pessimistic_ties(maps, masks, limit) < want - 1e-4


def test_with_one_region_and_no_limit_aupro_is_the_auroc_of_scikit_learn():
    rng = np.random.default_rng(0)
    masks = np.zeros((3, 10, 10), bool)
    masks[1, 2:6, 3:8] = True
    for maps in (rng.random(masks.shape), rng.integers(0, 5, masks.shape).astype(np.uint8) + masks):
        want = truth.sklearn_three(maps.ravel(), masks.ravel())["auroc"]
        assert metrics.aupro(maps, masks, 1.0) == pytest.approx(want, abs=1e-12)


def test_a_tie_is_a_straight_step_by_hand():
    maps = np.array([[[9, 5, 5, 5, 5, 0, 0, 0, 0, 0, 0, 0]]], np.uint8)
    masks = np.array([[[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]], bool)
    # 1/2 at once, then straight to all of the region at 3 of 10 normals: 3/4 on average, 2/3 up to 2 of 10
    assert metrics.aupro(maps, masks, 0.3) == pytest.approx(3 / 4, abs=1e-12)
    assert metrics.aupro(maps, masks, 0.2) == pytest.approx(2 / 3, abs=1e-12)
    assert metrics.aupro_pessimistic_ties(maps, masks, 0.3) == pytest.approx(1 / 2, abs=1e-12)


@pytest.mark.parametrize("seed", [298388, 1, 2, 3])
def test_a_limit_that_falls_on_a_normal_pixel(seed):
    maps, masks = truth.planted(np.random.default_rng(seed), n=5, size=9, normal_images=0)
    for alarms in (1, 7, 30):
        limit = alarms / (~masks).sum()
        for twin in (truth.aupro_stairs, truth.aupro_straight, truth.aupro_official):
            assert metrics.aupro(maps, masks, limit) == pytest.approx(twin(maps, masks, limit), abs=1e-10)


def test_without_ties_all_definitions_agree():
    maps, masks = truth.planted(np.random.default_rng(5))
    for twin in (truth.aupro_straight, truth.aupro_stairs, truth.aupro_official):
        assert metrics.aupro(maps, masks) == pytest.approx(twin(maps, masks), abs=1e-12)


def test_threads_and_blocks_change_nothing(monkeypatch):
    maps, masks = truth.planted(np.random.default_rng(6), n=9, size=40, levels=20)
    want = metrics.pixel_metrics(maps, masks)
    monkeypatch.setattr(_counts, "SMALL", 1000)
    monkeypatch.setattr(_counts, "BLOCK", 3)
    monkeypatch.setattr(_counts.os, "cpu_count", lambda: 5)
    assert metrics.pixel_metrics(maps, masks) == pytest.approx(want, abs=1e-15)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 0.9), st.integers(1, 9), st.integers(1, 9))
def test_regions_are_scipys(seed, share, height, width):
    masks = np.random.default_rng(seed).random((3, height, width)) < share
    labels, count = label_regions(np.flatnonzero(masks), masks.shape)
    want, total = np.zeros(masks.shape, int), 0
    for image, mask in enumerate(masks):
        labelled, found = label(mask, np.ones((3, 3)))
        want[image] = np.where(labelled > 0, labelled + total, 0)
        total += found
    assert count == total
    pairs = set(zip(labels.tolist(), want[masks].tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == total


def test_perfect_constant_and_reversed_maps():
    masks = truth.planted(np.random.default_rng(7))[1]
    perfect = metrics.pixel_metrics(masks.astype(np.float32), masks)
    assert perfect == pytest.approx(dict.fromkeys(perfect, 1.0), abs=1e-15)
    constant = metrics.pixel_metrics(np.zeros(masks.shape), masks)
    share = masks.mean()
    assert constant == pytest.approx(
        {"auroc": 0.5, "ap": share, "f1_max": 2 * share / (1 + share), "aupro": 0.15}
    )
    for limit in (0.05, 0.3, 1.0):
        assert metrics.aupro(np.zeros(masks.shape), masks, limit) == pytest.approx(limit / 2, abs=1e-12)
        assert metrics.aupro_pessimistic_ties(np.zeros(masks.shape), masks, limit) == 0.0
    assert metrics.pixel_metrics(-masks.astype(float), masks)["aupro"] == 0.0


@pytest.mark.parametrize(
    "change",
    [np.exp, lambda m: m + 1000.0, lambda m: 3.0 * m, lambda m: m**3 - 5.0, lambda m: np.exp(20 * m)],
)
def test_only_the_order_counts(change):
    maps, masks = truth.planted(np.random.default_rng(8), levels=64)
    maps = maps.astype(np.float64) / 64
    assert metrics.pixel_metrics(change(maps), masks) == metrics.pixel_metrics(maps, masks)


def test_diagonal_neighbours_are_one_region_and_images_are_apart():
    masks, maps = np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4))
    masks[0, 3, :2] = masks[1, 0, :2] = True  # would touch if the images were one tall image
    masks[1, 1, 2] = masks[1, 2, 3] = True
    maps[0, 3, :2] = 1.0
    assert metrics.aupro(maps, masks) == pytest.approx(0.5 + 0.5 * 0.15)  # two of four regions; the rest tied


def test_numpy_torch_types_and_strides_agree():
    maps, masks = truth.planted(np.random.default_rng(9), levels=8)
    want = metrics.pixel_metrics(maps, masks)
    for dtype in (np.float16, np.float64, np.int16, np.int64, ">f4"):
        assert metrics.pixel_metrics(maps.astype(dtype), masks) == want
    for other in (
        masks.astype(np.uint8),
        masks.astype(np.uint8) * 255,
        masks.astype(np.float32),
        torch.tensor(masks),
    ):
        assert metrics.pixel_metrics(torch.tensor(maps), other) == want
    assert metrics.pixel_metrics(torch.tensor(maps, dtype=torch.bfloat16), masks) == want
    wide = np.repeat(np.repeat(maps, 2, axis=1), 3, axis=2)[:, ::2, ::3]
    assert not wide.flags.c_contiguous
    assert metrics.pixel_metrics(wide, np.asfortranarray(masks)) == want
    turned = metrics.pixel_metrics(maps.transpose(0, 2, 1), masks.transpose(0, 2, 1))
    assert turned == pytest.approx(want, abs=1e-12)
    frozen = maps.copy()
    frozen.flags.writeable = False
    assert metrics.pixel_metrics(frozen, masks) == want
    assert np.array_equal(frozen, maps)


def test_float64_is_not_rounded_and_the_ends_of_float32_are_ranked():
    masks = np.array([[[0, 0, 1, 1]]], bool)
    assert metrics.pixel_metrics(1 + 1e-12 * np.arange(4.0).reshape(1, 1, 4), masks)["auroc"] == 1.0
    last = float(np.finfo(np.float32).max)
    maps = np.array([[[-last, 0, -last, last]]], np.float32)
    assert metrics.pixel_metrics(maps, masks) == pytest.approx(
        truth.sklearn_three(maps.ravel(), masks.ravel()) | {"aupro": 0.5}
    )
    tiny = np.array([[[0, -1e-45, 1e-45, -0.0]]], np.float32)
    assert metrics.pixel_metrics(tiny, masks)["auroc"] == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [(0, 0, 0), (1, 2, 2)])
@pytest.mark.parametrize("lowest", [0.0, -3e38])
def test_nan_and_infinity_are_refused(bad, where, lowest):
    masks = np.zeros((2, 4, 4), bool)
    masks[1, 2, 1:4] = True
    maps = np.zeros((2, 4, 4), np.float32)
    maps[1, 2, 1] = lowest
    maps[where] = bad
    with pytest.raises(NotFinite, match="1 NaN or infinite"):
        metrics.pixel_metrics(maps, masks)


MEMBERS = [
    metrics.pixel_metrics,
    metrics.aupro,
    metrics.aupro_pessimistic_ties,
    metrics.aupro_200_thresholds,
    metrics.spot_diff_pixel_202,
    metrics.pixel_curves,
]


@pytest.mark.parametrize("member", MEMBERS)
def test_errors_say_what_is_wrong(member):
    maps, masks = truth.planted(np.random.default_rng(10))
    with pytest.raises(UsageError, match="no anomalous pixels"):
        member(maps, np.zeros_like(masks))
    with pytest.raises(UsageError, match="no normal pixels"):
        member(maps, np.ones_like(masks))
    with pytest.raises(UsageError, match=r"masks > 0"):
        member(maps, masks * 2)
    with pytest.raises(UsageError, match=r"resize them with nearest"):
        member(maps, masks * 0.5)
    with pytest.raises(ShapeError, match="H is 23 here but 24 in maps"):
        member(maps, masks[:, :-1])
    with pytest.raises(ShapeError):
        member(maps[0], masks[0])
    with pytest.raises(UsageError, match="no anomalous pixels"):
        member(maps[:0], masks[:0])


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.5, float("nan")])
def test_bad_limits_are_refused(limit):
    maps, masks = truth.planted(np.random.default_rng(11))
    for member in (
        metrics.pixel_metrics,
        metrics.aupro,
        metrics.aupro_pessimistic_ties,
        metrics.aupro_200_thresholds,
        metrics.aupro_per_image,
        metrics.pixel_curves,
    ):
        with pytest.raises(UsageError, match="fpr_limit"):
            member(maps, masks, fpr_limit=limit)


def test_curve_points_are_operating_points():
    maps, masks = truth.planted(np.random.default_rng(12), levels=6)
    curves = metrics.pixel_curves(maps, masks, points=30)
    real = {(round(x, 12), round(y, 12)) for x, y in zip(*truth.pro_points(maps, masks), strict=True)}
    pro = {(round(x, 12), round(y, 12)) for x, y in zip(curves["pro"]["x"], curves["pro"]["y"], strict=True)}
    assert pro <= real
    assert set(curves) == {"roc", "pr", "pro"}
    assert max(curves["pro"]["x"]) <= 0.3
    assert all(len(curve["x"]) == len(curve["y"]) <= 30 for curve in curves.values())
    assert all(type(value) is float for curve in curves.values() for axis in curve.values() for value in axis)
