"""Independent truths for the metrics tests: literal, slow, no code shared with kizu."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.ndimage import label
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score


def regions_of(masks):
    """Every ground-truth region as (image, bool mask)."""
    found = []
    for image, mask in enumerate(masks):
        labelled, count = label(mask, np.ones((3, 3)))
        found += [(image, labelled == number) for number in range(1, count + 1)]
    return found


def pro_points(maps, masks):
    """(FPR, PRO) for the prediction score > t at every t, from nothing predicted to everything."""
    regions, good = regions_of(masks), ~masks.astype(bool)
    thresholds = [np.inf, *np.unique(maps)[::-1], -np.inf]
    fpr = [np.mean(maps[good] > t) for t in thresholds]
    pro = [np.mean([np.mean(maps[image][region] > t) for image, region in regions]) for t in thresholds]
    return np.array(fpr), np.array(pro)


def area_to(x, y, limit):
    """Area under the polyline from x = 0 to x = limit, linear in between."""
    inside = x <= limit  # a jump that stands at the limit itself has no width
    x, y = np.r_[x[inside], limit], np.r_[y[inside], np.interp(limit, x, y)]
    if x[-2] == limit:
        x, y = x[:-1], y[:-1]
    return np.trapezoid(y, x)


def aupro_straight(maps, masks, limit=0.3):
    """Every threshold, points joined by straight lines: ties shared."""
    fpr, pro = pro_points(maps, masks)
    return area_to(fpr, pro, limit) / limit


def aupro_official(maps, masks, limit=0.3):
    """The rule of the official script for MVTec AD: walk all pixels from the highest score down, count up
    false alarms and region shares, keep the last point of every run of equal scores, join the points."""
    change = np.zeros((2, *masks.shape))
    change[0] = ~masks.astype(bool)
    regions = regions_of(masks)
    for image, region in regions:
        change[1, image] += region / region.sum()
    ranked = sorted(zip(maps.ravel().tolist(), *change.reshape(2, -1).tolist(), strict=True), reverse=True)
    points, false, overlap = [(0.0, 0.0)], 0.0, 0.0
    for at, (score, alarm, share) in enumerate(ranked):
        false, overlap = false + alarm, overlap + share
        if at + 1 == len(ranked) or ranked[at + 1][0] != score:
            points.append((false / change[0].sum(), overlap / len(regions)))
    area = 0.0
    for (x, y), (right, top) in itertools.pairwise(points):
        if x < limit and right > x:
            end = min(right, limit)
            area += (end - x) * (y + y + (top - y) * (end - x) / (right - x)) / 2
    return area / limit


def aupro_stairs(maps, masks, limit=0.3):
    """Every threshold, points joined by stairs that go right first: ties against the method."""
    fpr, pro = pro_points(maps, masks)
    width = np.diff(np.minimum(fpr, limit))
    return np.sum(width * pro[:-1]) / limit


def aupro_ranks(maps, masks, limit=0.3):
    """The official walk over the ranks of the normal scores, at every rank."""
    regions, normal = regions_of(masks), np.sort(maps[~masks.astype(bool)])
    fpr, pro = [1.0], [1.0]
    for rank, threshold in enumerate(normal):
        fpr.append(1.0 - (rank + 1) / len(normal))
        pro.append(np.mean([np.mean(maps[image][region] > threshold) for image, region in regions]))
    return area_to(np.array(fpr[::-1]), np.array(pro[::-1]), limit) / limit


def sklearn_three(scores, labels):
    """AUROC, AP and F1-max by scikit-learn."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = np.divide(
        2 * precision * recall, precision + recall, out=np.zeros_like(recall), where=precision + recall > 0
    )
    return {
        "auroc": roc_auc_score(labels, scores),
        "ap": average_precision_score(labels, scores),
        "f1_max": f1.max(),
    }


def sklearn_trapezoid(scores, labels):
    """auc(recall, precision)."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    return auc(recall, precision)


def planted(rng, n=6, size=24, normal_images=2, levels=None):
    """Maps and masks: random rectangles and diagonal chains, the first `normal_images` without a defect;
    `levels` makes heavy ties."""
    masks = np.zeros((n, size, size), bool)
    for mask in masks[normal_images:]:
        for _ in range(rng.integers(1, 4)):
            y, x = rng.integers(0, size - 5, 2)
            mask[y : y + rng.integers(1, 5), x : x + rng.integers(1, 5)] = True
        corner = rng.integers(0, size - 3)
        mask[np.arange(3) + corner, np.arange(3)[::-1]] = True
    maps = rng.standard_normal(masks.shape) + 1.5 * masks
    if levels is not None:
        maps = np.round(maps * levels)
    return maps.astype(np.float32), masks
