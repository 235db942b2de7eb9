"""Focal: cross-entropy that fades for samples already classified well; for classes of unequal size.

Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, Eq. 4 and 5: -alpha_t (1 - p_t)^gamma log(p_t)
with p_t the probability of the true class. Their best setting is gamma 2 with alpha 0.25 for the rare class.
They divide by the number of objects; here `reduction` is the plain mean over samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kizu import checks
from kizu.errors import ShapeError, UsageError
from kizu.losses._embeddings import reduce_loss


def focal(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float = 2.0,
    alpha: float | Sequence[float] | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Lower is better, at least 0: cross-entropy of each sample times (1 - p_t)^gamma, and times its class's
    weight.

    logits: (B,) of class 1 against class 0, or (B, K) of K classes (softmax). targets: (B,) integers, the
    true classes. gamma: 0 is the cross-entropy. alpha: None for no weights; for (B,) the weight of class 1,
    class 0 having 1 - alpha; for (B, K) one weight a class. reduction: "mean" -> (), "none" -> (B,). float32,
    or float64 when given. Raises ShapeError, UsageError, UnknownName.

    >>> focal(torch.tensor([0.0, 4.0]), torch.tensor([1, 1]), gamma=2.0, reduction="none")
    tensor([1.7329e-01, 5.8715e-06])
    """
    checks.numbers(least=0.0, gamma=gamma)
    _check(logits, targets)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    both = torch.stack([torch.zeros_like(wide), wide], dim=1) if wide.ndim == 1 else wide  # (B, K)
    weights = _class_weights(alpha, binary=wide.ndim == 1, classes=both.shape[1])
    if int(targets.min()) < 0 or int(targets.max()) >= both.shape[1]:
        raise UsageError(
            f"targets are classes 0 to {both.shape[1] - 1}, got {int(targets.min())} to {int(targets.max())}."
        )
    truth = functional.one_hot(targets.long(), both.shape[1]).bool()
    total = both.logsumexp(dim=1)
    log_p = both[truth] - total
    # log(1 - p_t) from the other classes: 1 - p_t itself cancels to 0 for a sample that is classified well
    log_rest = both.masked_fill(truth, -torch.inf).logsumexp(dim=1) - total
    losses = -(gamma * log_rest).exp() * log_p
    if weights is not None:
        losses = losses * weights.to(losses)[targets.long()]
    return reduce_loss(losses, reduction)


def _check(logits: Tensor, targets: Tensor) -> None:
    if not isinstance(logits, Tensor) or not logits.dtype.is_floating_point:
        raise UsageError(
            f"logits must be a floating point tensor, got {getattr(logits, 'dtype', type(logits).__name__)}."
        )
    if logits.ndim not in (1, 2) or (logits.ndim == 2 and logits.shape[1] < 2):
        raise ShapeError(
            f"logits must have shape (B,), or (B, K) with at least 2 classes, got {tuple(logits.shape)}."
        )
    if not logits.numel():
        raise ShapeError(f"logits is empty: {tuple(logits.shape)}; a loss of nothing is not defined.")
    if not isinstance(targets, Tensor) or targets.dtype.is_floating_point or targets.dtype.is_complex:
        raise UsageError(
            f"targets must be a tensor of integers, got {getattr(targets, 'dtype', type(targets).__name__)}."
        )
    checks.bind_shape("targets", tuple(targets.shape), "B", {"B": (logits.shape[0], "logits")})


def _class_weights(alpha: float | Sequence[float] | None, *, binary: bool, classes: int) -> Tensor | None:
    """(K,) float64, or None for equal weights of 1."""
    if alpha is None:
        return None
    if isinstance(alpha, int | float):
        if not binary:
            raise UsageError(f"alpha is one weight a class for {classes} classes, got the number {alpha!r}.")
        checks.numbers(least=0.0, most=1.0, alpha=alpha)
        return torch.tensor([1.0 - alpha, alpha], dtype=torch.float64)
    weights = [float(weight) for weight in alpha]
    if binary or len(weights) != classes or not all(0 <= weight < math.inf for weight in weights):
        expected = "one number from 0 to 1" if binary else f"{classes} weights, each at least 0"
        raise UsageError(f"alpha is {expected}, got {alpha!r}.")
    return torch.tensor(weights, dtype=torch.float64)
