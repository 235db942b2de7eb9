"""Cosine distance of feature maps, position by position or of the whole map, and hard-normal mining.

Source: Guo et al., ReContrast, NeurIPS 2023: Eq. 1 (distance map), Eq. 2 (regional), Eq. 3 (global), Eq. 4
(stop-gradient), Eq. 5 (mining). The released code of reverse distillation has used Eq. 3 while its paper
prints Eq. 2.

Mining: the printed Eq. 5 keeps f_D in the value and stops its gradient where the distance lies below
mean + alpha * deviation of the mini-batch; so does this. The deviation is the population's. The released code
divides by n - 1, which is a relative 1 / 2n apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kizu.checks import numbers, whole_numbers
from kizu.errors import UnknownName
from kizu.losses._embeddings import at_least_float32, check_float, reduce_loss

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
    """Lower is better: 1 - cos(prediction, target), each image in [0, 2], 0 when both point the same way.

    prediction, target: (B, C, h, w), or (B, C). scope: "global" takes a map as one vector of C*h*w numbers
    (Eq. 3), "regional" averages the distance of the h*w positions (Eq. 2). stop_gradient: send none to the
    target (Eq. 4). reduction: "mean" -> (), "none" -> (B,). The result is float32, or float64 when the
    inputs are. Raises ShapeError, UsageError, UnknownName.

    >>> one = torch.tensor([[1.0, 0.0]])
    >>> other = torch.tensor([[0.0, 1.0]])
    >>> cosine(one, one), cosine(one, other), cosine(one, -one)
    (tensor(0.), tensor(1.), tensor(2.))
    """
    _check(prediction, target)
    if scope not in SCOPES:
        raise UnknownName("scope", scope, SCOPES)
    if stop_gradient:
        target = target.detach()
    if scope == "global":
        a, b = at_least_float32(prediction).flatten(1), at_least_float32(target).flatten(1)
        return reduce_loss(1 - functional.cosine_similarity(a, b, dim=1), reduction)
    return reduce_loss(distance_map(prediction, target).flatten(1).mean(1), reduction)


def distance_map(a: Tensor, b: Tensor) -> Tensor:
    """Eq. 1: (B, C, h, w) twice -> (B, h, w), 1 - cosine at each position; (B, C) twice -> (B,).

    >>> distance_map(torch.ones(1, 2, 1, 1), -torch.ones(1, 2, 1, 1))
    tensor([[[2.]]])
    """
    return 1 - functional.cosine_similarity(at_least_float32(a), at_least_float32(b), dim=1)


def hard_mining(prediction: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Eq. 5: `prediction` (B, C, h, w) in value; its gradient is zero at the easy positions, untouched at
    the hard ones. Which are easy: see `easy_positions`."""
    with torch.no_grad():
        easy = easy_positions(distance_map(prediction, target), alpha)
    return torch.where(easy[:, None], prediction.detach(), prediction)


def easy_positions(distances: Tensor, alpha: float) -> Tensor:
    """Distances (B, h, w) -> bool (B, h, w): below mean + alpha * standard deviation, both over the whole
    batch.

    Raises UsageError when alpha is NaN or infinite.

    >>> easy_positions(torch.tensor([[[0.1, 0.2, 0.9]]]), alpha=1.0)
    tensor([[[ True,  True, False]]])
    """
    numbers(alpha=alpha)
    return distances < distances.mean() + alpha * distances.std(correction=0)


def mining_alpha(
    step: int, steps: int, *, start: float = ALPHA_START, end: float = ALPHA_END, ramp: float = ALPHA_RAMP
) -> float:
    """alpha in step `step` (from 0) of `steps`: linear from `start`, and `end` from ramp * steps on.

    If distances were Gaussian, a fraction Phi(alpha) of the positions would get no gradient: 84 % at alpha
    = 1. ramp: fraction of the run, 0 to 1. Raises UsageError.

    >>> [mining_alpha(step, 100) for step in (0, 5, 10, 99)]
    [-3.0, -1.0, 1.0, 1.0]
    """
    whole_numbers(least=0, step=step)
    whole_numbers(steps=steps)
    numbers(start=start, end=end)
    numbers(least=0, most=1, ramp=ramp)
    ramp_steps = ramp * steps
    return end if step >= ramp_steps else start + (end - start) * step / ramp_steps


def _check(prediction: Tensor, target: Tensor) -> None:
    bound: dict[str, tuple[int, str]] = {}
    for name, values in (("prediction", prediction), ("target", target)):
        check_float(name, values, "B C h w" if getattr(values, "ndim", 2) == 4 else "B C", bound)
