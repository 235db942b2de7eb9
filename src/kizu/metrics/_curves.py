"""Thinned curves whose every point is a true operating point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kizu.errors import UsageError
from kizu.metrics._counts import Counts

Curve = dict[str, list[float]]


def corners(counts: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Normals above, defects above and region overlap at every corner of the staircase, from "nothing" to
    "everything" called a defect.

    Two corners a distinct defect score: just above it (its own normals and defects left out) and at it. (2K +
    2,) each; the overlap is NaN without regions."""
    true = np.r_[0.0, counts.found]
    overlap = np.full(true.size, np.nan) if counts.weights is None else np.r_[0.0, np.cumsum(counts.weights)]
    false = np.empty(2 * counts.above.size + 2)
    false[0], false[-1] = 0, counts.normals
    false[1:-1:2], false[2:-1:2] = counts.above - counts.tied, counts.above
    return false, np.repeat(true, 2), np.minimum(np.repeat(overlap, 2), 1.0)


def roc(counts: Counts, points: int) -> Curve:
    """x: false-positive rate, y: true-positive rate, from (0, 0) to (1, 1)."""
    false, true, _ = corners(counts)
    return thin(false / counts.normals, true / true[-1], points)


def precision_recall(counts: Counts, points: int) -> Curve:
    """x: recall, y: precision, from the first alarm to everything alarmed; no point is made up at recall
    0."""
    false, true, _ = corners(counts)
    alarms = true + false
    some = alarms > 0
    return thin(true[some] / true[-1], true[some] / alarms[some], points)


def per_region_overlap(counts: Counts, fpr_limit: float, points: int) -> Curve:
    """x: false-positive rate up to the limit, y: per-region overlap."""
    false, _, overlap = corners(counts)
    rate = false / counts.normals
    kept = rate <= fpr_limit
    return thin(rate[kept], overlap[kept], points)


def pixel_lines(counts: Counts, fpr_limit: float, points: int) -> dict[str, Curve]:
    """The three curves of maps by name."""
    return {
        "roc": roc(counts, points),
        "pr": precision_recall(counts, points),
        "pro": per_region_overlap(counts, fpr_limit, points),
    }


def thin(x: NDArray[np.float64], y: NDArray[np.float64], points: int) -> Curve:
    """At most `points` of the points, evenly along the path (|dx| + |dy|), first and last among them."""
    if points < 2:
        raise UsageError(f"points must be at least 2, got {points}.")
    path = np.r_[0.0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))]
    wanted = np.searchsorted(path, np.linspace(0.0, path[-1], points))
    kept = np.unique(np.r_[0, np.minimum(wanted[1:-1], x.size - 1), x.size - 1])
    return {"x": x[kept].tolist(), "y": y[kept].tolist()}
