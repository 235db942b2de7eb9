"""Checks that the functions of this room share, so that their errors read alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kizu import engine
from kizu.errors import NotFinite, ShapeError, UsageError

CHUNK = 8192


def to_tensor(name: str, value: Any) -> Tensor:
    """A float tensor from a tensor or an array, copied only where it must be."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value) if value.flags.writeable else value.copy())
    if not isinstance(value, Tensor):
        raise ShapeError(f"{name} must be a tensor or a numpy array, got {type(value).__name__}.")
    return value.detach() if value.is_floating_point() else value.to(torch.float64)


def check_rows(name: str, value: Tensor) -> None:
    """Raise ShapeError unless (N, D) with D > 0, UsageError when N is 0."""
    if value.ndim != 2 or value.shape[1] == 0:
        raise ShapeError(f"{name} must have shape (N, D) with D > 0, got {tuple(value.shape)}.")
    if value.shape[0] == 0:
        raise UsageError(f"{name} has no rows: at least one is needed.")


@engine.one_thread()
def check_finite(name: str, value: Tensor) -> None:
    """Raise NotFinite, naming the first row, when (N, D) holds NaN or infinity. One pass of one thread, no
    copy."""
    for start in range(0, len(value), CHUNK):
        part = value[start : start + CHUNK]
        low, high = torch.aminmax(part)
        if not math.isfinite(float(low) + float(high)):
            row = start + int((~torch.isfinite(part)).any(1).nonzero()[0, 0])
            raise NotFinite(
                f"{name} holds NaN or infinity, first in row {row}: find out where it comes from before "
                "measuring distances."
            )


def check_queries(queries: Tensor, bank: Tensor, k: int) -> None:
    """Raise ShapeError unless queries are (Q, D) of the bank's D, UsageError unless 1 <= k <= N."""
    if queries.ndim != 2 or queries.shape[1] != bank.shape[1]:
        raise ShapeError(
            f"queries must have shape (Q, {bank.shape[1]}) for this bank of {bank.shape[1]} features, got "
            f"{tuple(queries.shape)}."
        )
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= bank.shape[0]:
        raise UsageError(
            f"k must be a whole number from 1 to the {bank.shape[0]} rows of the bank, got {k!r}."
        )


def check_count(name: str, value: int, least: int, most: int, what: str) -> None:
    """Raise UsageError unless `value` is a whole number in least..most."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
        raise UsageError(f"{name} must be a whole number from {least} to {most} (the {what}), got {value!r}.")
