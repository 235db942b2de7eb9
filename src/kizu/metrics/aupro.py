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

    Ties count against the method: a pixel counts as found only when every normal pixel with the same score is
    alarmed, so a constant map scores 0. The official script that walks the ranks of the normal scores does
    the same; the one that joins tied points by a straight line, and gives 0.15, is `aupro_shared_ties`.
    Without ties all of them agree, up to 1 / (2 n fpr_limit) for n normal pixels.

    maps: (n, H, W), higher is more anomalous.
    masks: (n, H, W) bool, 0/1 or 0/255. Both numpy or torch.
    Returns 0 to 1, higher is better.

    Raises ShapeError; UsageError for masks that are not binary, a missing class or a bad limit; NotFinite.

    >>> import numpy as np
    >>> masks = np.array([[[0, 0], [0, 1]]])
    >>> aupro(np.array([[[0.1, 0.2], [0.3, 0.9]]]), masks), aupro(np.zeros((1, 2, 2)), masks)
    (1.0, 0.0)
    """
    check_limit(fpr_limit)
    return _figures.aupro(count_pixels(maps, masks), fpr_limit)
