"""Pieces that the losses share: checks, unit rows in float32 or better, the mean over a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.checks import bind_shape
from kizu.errors import ShapeError, UnknownName, UsageError

REDUCTIONS = ("mean", "none")


def check_same_shape(**embeddings: Tensor) -> None:
    """Raise ShapeError unless all are (B, D) alike, B and D at least 1; UsageError unless they are floating
    point."""
    bound: dict[str, tuple[int, str]] = {}
    for name, values in embeddings.items():
        check_float(name, values, "B D", bound)


def check_float(name: str, values: Tensor, pattern: str, bound: dict[str, tuple[int, str]]) -> None:
    """Check that a tensor is floating point, not empty, and fits `pattern` with the letters bound so far."""
    if not isinstance(values, Tensor) or not values.dtype.is_floating_point:
        raise UsageError(
            f"{name} must be a floating point tensor, got {getattr(values, 'dtype', type(values).__name__)}."
        )
    bind_shape(name, tuple(values.shape), pattern, bound)
    if not values.numel():
        raise ShapeError(f"{name} is empty: {tuple(values.shape)}; a loss of nothing is not defined.")


def at_least_float32(values: Tensor) -> Tensor:
    """float64 as it is, everything else as float32."""
    return values if values.dtype == torch.float64 else values.float()


def unit_rows(embeddings: Tensor) -> Tensor:
    """(B, D) -> rows of length one, in float32 at least; a row of zeros stays zero."""
    return torch.nn.functional.normalize(at_least_float32(embeddings), dim=1)


def row_cosines(a: Tensor, b: Tensor) -> Tensor:
    """(B, D), (B, D) -> (B,) cosines in [-1, 1]."""
    return (unit_rows(a) * unit_rows(b)).sum(dim=1)


def reduce_loss(losses: Tensor, reduction: str) -> Tensor:
    """The mean over (B,) losses, or the losses themselves. Raises UnknownName."""
    if reduction not in REDUCTIONS:
        raise UnknownName("reduction", reduction, REDUCTIONS)
    return losses.mean() if reduction == "mean" else losses
