"""What the losses of embeddings share: directions in float32 or better, checks, the mean over a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kizu.checks import bind_shape
from kizu.errors import ShapeError, UnknownName, UsageError

REDUCTIONS = ("mean", "none")


def same_shapes(**embeddings: Tensor) -> None:
    """Raise ShapeError unless all are (B, D) alike with B and D at least 1, UsageError unless they are
    floating point tensors."""
    bound: dict[str, tuple[int, str]] = {}
    for name, values in embeddings.items():
        matrix(name, values, "B D", bound)


def matrix(name: str, values: Tensor, pattern: str, bound: dict[str, tuple[int, str]]) -> None:
    """Check one (rows, D) matrix of embeddings against the letters bound so far."""
    if not isinstance(values, Tensor) or not values.dtype.is_floating_point:
        raise UsageError(
            f"{name} must be a floating point tensor, got {getattr(values, 'dtype', type(values).__name__)}."
        )
    bind_shape(name, tuple(values.shape), pattern, bound)
    if not values.numel():
        raise ShapeError(f"{name} is empty: {tuple(values.shape)}; a loss of nothing is not defined.")


def directions(embeddings: Tensor) -> Tensor:
    """Rows of length one, in float32 at least; a row of zeros stays zero."""
    wide = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
    return torch.nn.functional.normalize(wide, dim=1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """(B, D), (B, D) -> (B,) cosines in [-1, 1]."""
    return (directions(a) * directions(b)).sum(dim=1)


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """The mean over (B,) losses, or the losses themselves. Raises UnknownName."""
    if reduction not in REDUCTIONS:
        raise UnknownName("reduction", reduction, REDUCTIONS)
    return losses.mean() if reduction == "mean" else losses


def check_temperature(temperature: float) -> None:
    """Raise UsageError unless it is a positive number."""
    if not 0 < temperature < math.inf:
        raise UsageError(f"temperature must be a positive number, got {temperature}.")
