"""The exact figures, each a sum over the distinct defect scores of one `Counts`.

D defects, n normals; at the k-th highest distinct defect score: d_k defects and t_k normals have exactly that
score, TP_k defects and FP_k normals have it or a higher one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kizu.metrics._counts import Counts


def auroc(counts: Counts) -> float:
    """Chance that a defect scores above a normal, ties counting half: 1 - sum d_k (FP_k - t_k / 2) / (D
    n)."""
    lost = np.dot(counts.defects, counts.above - 0.5 * counts.tied)
    return float(1.0 - lost / (counts.found[-1] * counts.normals))


def average_precision(counts: Counts) -> float:
    """Step-wise area under precision over recall: sum d_k TP_k / (TP_k + FP_k) / D."""
    precision = counts.found / (counts.found + counts.above)
    return float(np.dot(counts.defects, precision) / counts.found[-1])


def f1_at_each(counts: Counts) -> NDArray[np.float64]:
    """F1 (K,) of `score >= threshold`: 2 TP_k / (D + TP_k + FP_k). Between two defect scores F1 only
    falls."""
    return 2.0 * counts.found / (counts.found[-1] + counts.found + counts.above)


def f1_max(counts: Counts) -> float:
    """The largest F1 that any threshold reaches."""
    return float(f1_at_each(counts).max())


def aupro(counts: Counts, fpr_limit: float) -> float:
    """Area under the per-region overlap up to the false-positive rate `fpr_limit`, divided by it.

    Each defect pixel, of weight w = 1 / (R |region|), adds w times its `share_of_area`."""
    share = share_of_area(counts.above - counts.tied, counts.above, fpr_limit * counts.normals)
    return _capped(np.dot(_weights(counts), share))


def aupro_pessimistic_ties(counts: Counts, fpr_limit: float) -> float:
    """As `aupro`, but a pixel is found only where all normals tied with it are alarmed: from FP_k on, so
    that its share is max(0, 1 - FP_k / (fpr_limit n))."""
    left = 1.0 - counts.above / (fpr_limit * counts.normals)
    return _capped(np.dot(_weights(counts), np.maximum(left, 0.0)))


def share_of_area(
    above: NDArray[np.float64], reached: NDArray[np.float64], limit: float
) -> NDArray[np.float64]:
    """Share of the area from 0 to `limit` false alarms that lies behind a defect pixel.

    above: normals with a higher score. reached: normals with its score or a higher one. limit: in normals.
    A tied pixel is found along a straight line: nothing at `above` false alarms, all of it at `reached`. With
    what is left of the limit at either end, a and b, that is (a + b) / 2 (a - b) / (reached - above), and a
    where nothing is tied."""
    first, last = np.maximum(limit - above, 0.0), np.maximum(limit - reached, 0.0)
    tied = reached - above
    inside = np.divide(first - last, tied, out=np.ones_like(first), where=tied > 0)
    return inside * (first + last) / (2.0 * limit)


def pixel_figures(counts: Counts, fpr_limit: float) -> dict[str, float]:
    """The four figures of maps by name."""
    return {
        "auroc": auroc(counts),
        "ap": average_precision(counts),
        "f1_max": f1_max(counts),
        "aupro": aupro(counts, fpr_limit),
    }


def trapezoid(counts: Counts) -> float:
    """Area under the polygon through all points (recall, precision), from (0, 1): sum d_k (precision before +
    precision at) / 2 / D."""
    before = counts.found - counts.defects
    alarms = before + counts.above - counts.tied
    last = np.divide(before, alarms, out=np.ones(alarms.size), where=alarms > 0)
    here = counts.found / (counts.found + counts.above)
    return float(np.dot(counts.defects, last + here) / (2.0 * counts.found[-1]))


def _weights(counts: Counts) -> NDArray[np.float64]:
    if counts.weights is None:
        raise ValueError("These counts know no regions.")
    return counts.weights


def _capped(area: float) -> float:
    """The weights sum to 1 but for rounding: a perfect map gives exactly 1 at most."""
    return float(min(area, 1.0))
