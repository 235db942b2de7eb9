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
    """(what `pixel_metrics` gives, what `pixel_curves` gives); the pixels are sorted once for both.

    maps: (n, H, W), higher is more anomalous.
    masks: (n, H, W) bool, 0/1 or 0/255. Both numpy or torch.

    Raises ShapeError; UsageError for masks that are not binary, a missing class, a bad limit or points < 2;
    NotFinite."""
    check_limit(fpr_limit)
    counts = count_pixels(maps, masks)
    return _figures.pixel_figures(counts, fpr_limit), _curves.pixel_lines(counts, fpr_limit, points)
