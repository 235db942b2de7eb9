"""What comes into a metric, made ready once: numpy or torch in, numpy out, and every refusal in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kizu.checks import is_real
from kizu.errors import NotFinite, UsageError

LARGEST_EXACT = 2**53
"""Integers up to here are float64 numbers."""


def as_numpy(values: Any) -> NDArray[Any]:
    """The values as a numpy array; a tensor comes from any device, detached, bfloat16 widened to float32. No
    copy where none is due."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)


def ranking_dtype(name: str, values: NDArray[Any]) -> np.dtype[Any]:
    """The float type that ranks these values without merging any two: float32 for up to 16-bit numbers and
    float32, else float64.

    Raises UsageError for what cannot be ranked: complex or extended numbers, text, objects, integers beyond
    2^53."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "f" and size <= 8:
        return np.dtype(np.float32) if size <= 4 else np.dtype(np.float64)
    if kind not in "biuf" or size > 8:
        raise UsageError(f"{name} must be real numbers, got {values.dtype}.")
    if size == 8 and values.size and max(-int(values.min()), int(values.max())) > LARGEST_EXACT:
        raise UsageError(f"{name} holds integers beyond 2^53, which float64 would merge. Divide them first.")
    return np.dtype(np.float32) if size <= 2 else np.dtype(np.float64)


def as_scores(name: str, values: Any) -> NDArray[Any]:
    """Scores of any shape in their ranking type, finite. Raises UsageError, NotFinite."""
    array = as_numpy(values)
    array = array.astype(ranking_dtype(name, array), copy=False)
    check_finite(name, array)
    return array


def check_finite(name: str, values: NDArray[Any]) -> None:
    """Raises NotFinite when there is a NaN or an infinity; says how many."""
    good = np.isfinite(values)
    if not good.all():
        count = int(values.size - np.count_nonzero(good))
        raise NotFinite(
            f"{name} must be finite, got {count} NaN or infinite values. Find the image they come from "
            "before measuring anything."
        )


def as_labels(labels: Any) -> NDArray[np.bool_]:
    """Image labels (n,) of 0 or 1 as bool. Raises UsageError for any other value (-1, 2, 0.5, null)."""
    array = as_numpy(labels)
    truth = array.astype(bool) if array.dtype.kind in "biuf" else np.zeros(array.shape, bool)
    if array.dtype.kind not in "biuf" or not np.array_equal(array, truth):
        raise UsageError(
            "labels must be 0 (normal) or 1 (anomalous), got other values. Leave images of unknown label out."
        )
    return truth


def defect_index(masks: NDArray[Any]) -> NDArray[np.intp]:
    """Flat, ascending positions of the defect pixels of masks of any shape. Raises UsageError for values
    other than 0, 1, 255 or bool."""
    if masks.dtype.kind not in "biuf":
        raise UsageError(f"masks must be bool or numbers 0 and 1, got {masks.dtype}.")
    flat = masks.reshape(-1)
    index = np.flatnonzero(flat)
    if flat.dtype != np.bool_:
        values = flat[index]
        bad = values[(values != 1) & (values != 255)]
        if bad.size:
            raise UsageError(
                f"masks must hold 0 and 1 (or 0 and 255, or bool), got {bad[0]} among {bad.size} other "
                "values. Masks of several defect kinds: pass masks > 0. Masks that were resized smoothly: "
                "resize them with nearest instead."
            )
    return index


def check_classes(normals: int, defects: int, what: str) -> None:
    """Raises UsageError when one class is missing: then no figure of this room is defined."""
    if normals == 0 or defects == 0:
        missing = "anomalous" if defects == 0 else "normal"
        raise UsageError(
            f"There are no {missing} {what}: the metric is not defined. Both normal and anomalous {what} are "
            "needed."
        )


def check_limit(fpr_limit: float) -> None:
    """Raises UsageError unless 0 < fpr_limit <= 1."""
    if not is_real(fpr_limit) or not 0 < fpr_limit <= 1:
        raise UsageError(f"fpr_limit must lie in (0, 1], got {fpr_limit!r}. Papers use 0.3.")
