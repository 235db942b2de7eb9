"""AUPRO with tied points joined by a straight line, as MVTec's own script that sorts all pixels, and
anomalib, do it."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_pixels
from kizu.metrics._inputs import check_limit


@check_shapes(maps="n H W", masks="n H W")
def aupro_shared_ties(maps: Any, masks: Any, fpr_limit: float = 0.3) -> float:
    """`aupro`, but pixels of equal score enter together along a straight line.

    A constant map scores fpr_limit / 2 instead of 0. It differs from `aupro` only where normal and defect
    pixels share a score. Arguments, return value and errors as `aupro`.

    >>> import numpy as np
    >>> aupro_shared_ties(np.zeros((1, 2, 2)), np.array([[[0, 0], [0, 1]]]))
    0.15
    """
    check_limit(fpr_limit)
    return _figures.aupro_shared_ties(count_pixels(maps, masks), fpr_limit)
