"""AUPRO with ties counted against the method, as MVTec's script for MVTec 3D-AD, which walks the ranks of the
normal scores, does it."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_pixels
from kizu.metrics._inputs import check_limit


@check_shapes(maps="n H W", masks="n H W")
def aupro_pessimistic_ties(maps: Any, masks: Any, fpr_limit: float = 0.3) -> float:
    """`aupro`, but a pixel is found only when every normal pixel with the same score is alarmed.

    A constant map scores 0 instead of fpr_limit / 2. It is never above `aupro`, and below it only where
    normal and defect pixels share a score: the difference tells how much of a figure rests on ties. The rank
    script itself is a trapezoid over the ranks and differs by at most 1 / (2 n fpr_limit) for n normal
    pixels. Arguments, return value and errors as `aupro`.

    >>> import numpy as np
    >>> aupro_pessimistic_ties(np.zeros((1, 2, 2)), np.array([[[0, 0], [0, 1]]]))
    0.0
    """
    check_limit(fpr_limit)
    return _figures.aupro_pessimistic_ties(count_pixels(maps, masks), fpr_limit)
