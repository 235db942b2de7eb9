"""AUROC, average precision, F1-max and AUPRO of anomaly maps: exact, from one pass."""

from __future__ import annotations

from typing import Any

from kizu.checks import check_shapes
from kizu.metrics import _figures
from kizu.metrics._counts import count_pixels
from kizu.metrics._inputs import check_limit


@check_shapes(maps="n H W", masks="n H W")
def pixel_metrics(maps: Any, masks: Any, fpr_limit: float = 0.3) -> dict[str, float]:
    """{"auroc", "ap", "f1_max", "aupro"} over all pixels of a data set; exact.

    maps: (n, H, W), higher is more anomalous; they are ranked as they are, any float or integer type, nothing
    is rounded.
    masks: (n, H, W) bool, 0/1 or 0/255; normal images belong to it, with empty masks. Both numpy or torch.
    fpr_limit: where AUPRO's area ends.
    Each figure is 0 to 1, higher is better. The first three equal scikit-learn's on the flattened pixels;
    "aupro" is that of the function `aupro`. Normal and defect pixels are sorted apart: O(P log P) for P
    pixels on all cores, and memory for one copy of the maps.

    Raises ShapeError; UsageError for masks that are not binary, a missing class or a bad limit; NotFinite.

    >>> import numpy as np
    >>> pixel_metrics(np.array([[[0.1, 0.2], [0.3, 0.9]]]), np.array([[[0, 0], [0, 1]]]))
    {'auroc': 1.0, 'ap': 1.0, 'f1_max': 1.0, 'aupro': 1.0}
    """
    check_limit(fpr_limit)
    return _figures.pixel_figures(count_pixels(maps, masks), fpr_limit)
