"""Metrics: pure functions of raw scores; higher is more anomalous (level 1)."""

# From here to the end: written by tools/exports.py, from the files of this folder.
from __future__ import annotations

from typing import TYPE_CHECKING

from kizu import registry

if TYPE_CHECKING:
    from kizu.metrics.accuracy_oracle import accuracy_oracle
    from kizu.metrics.aupro import aupro
    from kizu.metrics.aupro_200_thresholds import aupro_200_thresholds
    from kizu.metrics.aupro_per_image import aupro_per_image
    from kizu.metrics.aupro_pessimistic_ties import aupro_pessimistic_ties
    from kizu.metrics.auroc import auroc
    from kizu.metrics.average_precision import average_precision
    from kizu.metrics.f1_max import f1_max
    from kizu.metrics.f1_oracle import f1_oracle
    from kizu.metrics.image_curves import image_curves
    from kizu.metrics.image_metrics import image_metrics
    from kizu.metrics.loco_auroc import loco_auroc
    from kizu.metrics.pixel_curves import pixel_curves
    from kizu.metrics.pixel_metrics import pixel_metrics
    from kizu.metrics.pixel_report import pixel_report
    from kizu.metrics.spot_diff_pixel_202 import spot_diff_pixel_202
    from kizu.metrics.spro import spro
    from kizu.metrics.streaming_pixel_metrics import StreamingPixelMetrics
    from kizu.metrics.trapezoid_au_pr import trapezoid_au_pr

__all__ = [
    "StreamingPixelMetrics", "accuracy_oracle", "aupro", "aupro_200_thresholds", "aupro_per_image",
    "aupro_pessimistic_ties", "auroc", "average_precision", "f1_max", "f1_oracle", "image_curves",
    "image_metrics", "loco_auroc", "pixel_curves", "pixel_metrics", "pixel_report", "spot_diff_pixel_202",
    "spro", "trapezoid_au_pr",
]  # fmt: skip

registry.open_room(__name__)
