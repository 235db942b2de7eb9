"""Cosine distance of feature maps, position by position or of the whole map, and hard-normal mining by
gradient.

Guo et al., ReContrast, NeurIPS 2023: Eq. 1 (distance map), Eq. 2 (regional), Eq. 3 (global), Eq. 4
(stop-gradient), Eq. 5 (mining). The released code of reverse distillation has used Eq. 3 while its paper
prints Eq. 2. Mining: the printed Eq. 5 keeps f_D in the value and stops its gradient where the distance lies
below mean + alpha * deviation of the mini-batch; so does this. The deviation is the population's (the
released code divides by n - 1: a relative 1 / 2n apart)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kizu.checks import bind_shape
from kizu.errors import ShapeError, UnknownName, UsageError
from kizu.losses._cosine import reduced

SCOPES = ("global", "regional")
ALPHA_START, ALPHA_END, ALPHA_RAMP = -3.0, 1.0, 0.1
"""Section 3.1: alpha rises linearly from -3 to 1 over the first tenth of the iterations."""


def cosine(
    prediction: Tensor,
    target: Tensor,
    *,
    scope: str = "global",
    stop_gradient: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Lower is better: 1 - cos(prediction, target), each image in [0, 2], 0 when the two point the same way.

    prediction, target: (B, C, h, w), or (B, C). scope: "global" takes a map as one vector of C*h*w numbers
    (Eq. 3), "regional" averages the distance of the h*w positions (Eq. 2). stop_gradient: send none to the
    target (Eq. 4). reduction: "mean" -> (), "none" -> (B,). float32, or float64 when given. Raises
    ShapeError, UsageError, UnknownName."""
    _check(prediction, target)
    if scope not in SCOPES:
        raise UnknownName("scope", scope, SCOPES)
    if stop_gradient:
        target = target.detach()
    if scope == "global":
        return reduced(
            1 - functional.cosine_similarity(_wide(prediction).flatten(1), _wide(target).flatten(1), dim=1),
            reduction,
        )
    return reduced(distance_map(prediction, target).flatten(1).mean(1), reduction)


def distance_map(a: Tensor, b: Tensor) -> Tensor:
    """Eq. 1: (B, C, h, w) twice -> (B, h, w), 1 - cosine at each position; (B, C) -> (B,)."""
    return 1 - functional.cosine_similarity(_wide(a), _wide(b), dim=1)


def mined(prediction: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Eq. 5: `prediction` (B, C, h, w) in value; its gradient is zero at the easy positions, untouched at the
    hard ones."""
    with torch.no_grad():
        easy = easy_positions(distance_map(prediction, target), alpha)
    return torch.where(easy[:, None], prediction.detach(), prediction)


def easy_positions(distances: Tensor, alpha: float) -> Tensor:
    """Distances (B, h, w) -> bool: below mean + alpha * standard deviation, both over the whole batch."""
    return distances < distances.mean() + alpha * distances.std(correction=0)


def alpha_at(
    step: int, steps: int, *, start: float = ALPHA_START, end: float = ALPHA_END, ramp: float = ALPHA_RAMP
) -> float:
    """alpha of step `step` (from 0) of `steps`: linear from `start`, `end` from ramp * steps on.

    Under a Gaussian the share of positions that get no gradient is Phi(alpha): 84 % at 1.
    """
    reach = ramp * steps
    return end if step >= reach else start + (end - start) * step / reach


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _check(prediction: Tensor, target: Tensor) -> None:
    bound: dict[str, tuple[int, str]] = {}
    for name, values in (("prediction", prediction), ("target", target)):
        if not isinstance(values, Tensor) or not values.dtype.is_floating_point:
            raise UsageError(
                f"{name} must be a floating point tensor, got "
                f"{getattr(values, 'dtype', type(values).__name__)}."
            )
        bind_shape(name, tuple(values.shape), "B C h w" if values.ndim == 4 else "B C", bound)
        if not values.numel():
            raise ShapeError(f"{name} is empty: {tuple(values.shape)}; a loss of nothing is not defined.")
