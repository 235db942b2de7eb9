"""Pixel metrics and their curves together, from one pass over the pixels."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _curves, _figures
from kizu.metrics._counts import count_pixels
from kizu.metrics._inputs import check_limit


@check_shapes(maps="n H W", masks="n H W")
def pixel_report(
    maps: Any, masks: Any, fpr_limit: float = 0.3, points: int = 512
) -> tuple[dict[str, float], dict[str, dict[str, list[float]]]]:
    """(what `pixel_metrics` gives, what `pixel_curves` gives) for the price of one: the pixels are sorted
    once.

    maps: (n, H, W) higher is more anomalous.   masks: (n, H, W) bool, 0/1 or 0/255.   numpy or torch.
    Raises as they do: ShapeError; UsageError for masks that are not binary, a missing class, a bad limit or points < 2; NotFinite.
    """
    check_limit(fpr_limit)
    counts = count_pixels(maps, masks)
    figures = {
        "auroc": _figures.auroc(counts),
        "ap": _figures.average_precision(counts),
        "f1_max": _figures.f1_max(counts),
        "aupro": _figures.aupro(counts, fpr_limit),
    }
    curves = {
        "roc": _curves.roc(counts, points),
        "pr": _curves.precision_recall(counts, points),
        "pro": _curves.per_region_overlap(counts, fpr_limit, points),
    }
    return figures, curves
