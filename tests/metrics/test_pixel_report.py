"""Metrics and curves together are those of the two functions apart."""

import numpy as np

from kizu.metrics.pixel_curves import pixel_curves
from kizu.metrics.pixel_metrics import pixel_metrics
from kizu.metrics.pixel_report import pixel_report


def test_the_same_figures_and_curves() -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 20, 24), bool)
    masks[:3, 4:9, 5:12] = True
    maps = (rng.normal(size=masks.shape) + 2 * masks).astype(np.float32)
    figures, curves = pixel_report(maps, masks, fpr_limit=0.2, points=40)
    assert figures == pixel_metrics(maps, masks, fpr_limit=0.2)
    assert curves == pixel_curves(maps, masks, fpr_limit=0.2, points=40)
