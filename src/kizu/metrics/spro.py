"""AU-sPRO: area under the saturated per-region overlap up to a false-positive rate, the localisation figure
of MVTec LOCO AD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kizu.errors import ShapeError, UsageError
from kizu.metrics._figures import share_of_area
from kizu.metrics._inputs import as_numpy, as_scores, check_classes, check_limit, defect_index


def spro(
    maps: Sequence[Any], masks: Sequence[Any], saturations: Sequence[Any], fpr_limit: float = 0.05
) -> float:
    """Exact AU-sPRO over all thresholds, after Bergmann et al., Beyond Dents and Scratches (IJCV 2022), and
    its code.

    sPRO(t) = mean over all defects of min(|predicted and defect| / saturation, 1), where predicted means
    score > t: of a missing part nobody knows which pixels are wrong, so some number of them is enough. FPR(t)
    = alarmed pixels that lie in no defect / all pixels that lie in no defect, good images included. The
    figure is the area under sPRO over FPR from 0 to `fpr_limit`, divided by it. The publication's limit is
    0.05; it evaluates structural and logical anomalies apart, each with all good images, and averages the
    two.

    maps: n arrays (H, W), higher is more anomalous, at the images' own size, to which the saturations refer.
    masks: n arrays (m, H, W), one layer a defect, m = 0 for a good image; bool, 0/1 or 0/255; layers may
    overlap.
    saturations: n arrays (m,), whole numbers of pixels from 1 on; one above the area of its defect counts as
    that area. All numpy or torch. Each of the three may be any sequence that makes its items when they are
    asked for; each item is asked for twice. Returns 0 to 1, higher is better.

    Pixels of equal score enter together, along a straight line, as in `aupro`, to which this is equal when
    every saturation is the area of one connected region. The official script joins chosen points of the
    curve, about 0.01 apart, by straight lines. O(P log P) for P pixels; memory: the defect-free scores from
    the lowest counted defect score on.

    Raises UsageError for lengths that differ, masks that are not binary or empty, a saturation below 1, a
    missing class or a bad limit; ShapeError for a mask of another shape than its map; NotFinite.

    >>> import numpy as np
    >>> heat, layer = np.array([[0.1, 0.2, 0.8, 0.05]]), np.array([[[0, 0, 1, 1]]])
    >>> spro([heat], [layer], [[1]]), spro([heat], [layer], [[2]])
    (1.0, 0.5)
    """
    check_limit(fpr_limit)
    if not len(maps) == len(masks) == len(saturations):
        raise UsageError(
            f"There must be masks and saturations for each map, got {len(maps)}, {len(masks)} and "
            f"{len(saturations)}."
        )
    counted: list[NDArray[Any]] = []
    weights: list[NDArray[np.float64]] = []
    free = 0
    for number in range(len(maps)):
        scores, layers, areas = _image(number, maps[number], masks[number], saturations[number])
        free += scores.size - int(layers.any(axis=0).sum())
        for layer, area in zip(layers, areas, strict=True):
            best = _highest(scores[layer], int(area))
            counted.append(best)
            weights.append(np.full(best.size, 1.0 / best.size))
    check_classes(free, len(counted), "pixels")
    found = np.concatenate(counted)
    normals = np.sort(
        np.concatenate([_free(number, maps, masks, saturations, found.min()) for number in range(len(maps))])
    )
    above, reached = (normals.size - normals.searchsorted(found, side) for side in ("right", "left"))
    share = share_of_area(above.astype(np.float64), reached.astype(np.float64), fpr_limit * free)
    return min(float(np.dot(np.concatenate(weights), share)) / len(counted), 1.0)


def _highest(scores: NDArray[Any], count: int) -> NDArray[Any]:
    """The `count` highest scores, or all of fewer: with them found the defect is saturated, the others never
    count."""
    count = min(count, scores.size)
    return np.partition(scores, scores.size - count)[scores.size - count :]


def _free(
    number: int, maps: Sequence[Any], masks: Sequence[Any], saturations: Sequence[Any], lowest: Any
) -> NDArray[Any]:
    """Scores of an image's defect-free pixels, those below `lowest` left out: they lie below every threshold
    that counts."""
    scores, layers, _ = _image(number, maps[number], masks[number], saturations[number])
    values = scores[~layers.any(axis=0)]
    return values[values >= lowest]


def _image(
    number: int, scores: Any, masks: Any, saturations: Any
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.int64]]:
    """One image, checked: scores (H, W), masks (m, H, W) bool, saturations (m,)."""
    values, layers, areas = as_scores(f"maps[{number}]", scores), as_numpy(masks), as_numpy(saturations)
    if values.ndim != 2 or layers.ndim != 3 or layers.shape[1:] != values.shape:
        raise ShapeError(
            f"maps[{number}] must be (H, W) and masks[{number}] (m, H, W), got {values.shape} and "
            f"{layers.shape}."
        )
    if areas.shape != (len(layers),):
        raise ShapeError(
            f"saturations[{number}] must be ({len(layers)},), one for each mask, got {areas.shape}."
        )
    defect_index(layers)
    layers = layers.astype(bool, copy=False)
    if not layers.any(axis=(1, 2)).all():
        raise UsageError(
            f"masks[{number}] has a layer that marks no pixel. A good image has no layers: shape (0, H, W)."
        )
    if areas.size and not (np.isfinite(areas) & (areas >= 1) & (areas == np.floor(areas))).all():
        raise UsageError(
            f"saturations are whole numbers of pixels from 1 on, got {areas.tolist()} for image {number}."
        )
    return values, layers, areas.astype(np.int64)
