"""AUPRO: area under the per-region overlap, up to a false-positive rate."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_pixels
from kizu.metrics._inputs import check_limit


@check_shapes(maps="n H W", masks="n H W")
def aupro(maps: Any, masks: Any, fpr_limit: float = 0.3) -> float:
    """Exact AUPRO over all thresholds, after the MVTec AD evaluation (Bergmann et al., 2019/2021).

    PRO(t) = mean over all ground-truth regions of |predicted and region| / |region|, where predicted means
    score > t; regions are 8-connected components, image by image. FPR(t) = alarmed defect-free pixels / all
    defect-free pixels of the data set, normal images included. The figure is the area under PRO over FPR from
    0 to `fpr_limit`, divided by `fpr_limit`.

    Pixels of equal score enter together, along a straight line, as in the official script for MVTec AD: a
    constant map scores fpr_limit / 2. That matters for maps with few different scores, such as 8-bit ones;
    `aupro_pessimistic_ties` counts ties against the method. Without ties both are equal.

    maps: (n, H, W), higher is more anomalous.
    masks: (n, H, W) bool, 0/1 or 0/255. Both numpy or torch.
    Returns 0 to 1, higher is better.

    Raises ShapeError; UsageError for masks that are not binary, a missing class or a bad limit; NotFinite.

    >>> import numpy as np
    >>> masks = np.array([[[0, 0], [0, 1]]])
    >>> aupro(np.array([[[0.1, 0.2], [0.3, 0.9]]]), masks), aupro(np.zeros((1, 2, 2)), masks)
    (1.0, 0.15)
    """
    check_limit(fpr_limit)
    return _figures.aupro(count_pixels(maps, masks), fpr_limit)
