"""The Dirichlet distribution that makes some probability vectors most likely.

Source: Minka, Estimating a Dirichlet distribution, 2000: the fixed point, Newton's method, the start from
moments and the inverse of the digamma function. The fixed point never lowers the likelihood, but closes in on
it slowly where rows are much alike; Newton's step is taken wherever it is the better one."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST, MOST = 1e-6, 1e6
"""Of a concentration. Rows that are all equal have no maximum: their likelihood rises without end."""


def dirichlet(log_rows: Tensor, *, iterations: int = 200, tolerance: float = 1e-8) -> Tensor:
    """Concentrations (..., D) of logarithms of probability vectors (..., n, D), in float64.

    The likelihood has one maximum. It ends after `iterations` steps, or when no concentration changes by more
    than `tolerance` of itself. One row, or equal rows, end at a bound (LEAST, MOST): still a density, but no
    maximum.

    >>> rows = torch.tensor([[0.2, 0.8], [0.4, 0.6], [0.6, 0.4], [0.8, 0.2]]).double().log()
    >>> alpha = dirichlet(rows)
    >>> bool((alpha[0] - alpha[1]).abs() < 1e-6), 2.0 < float(alpha[0]) < 3.0
    (True, True)
    """
    rows = log_rows.double()
    means = rows.mean(-2)  # (..., D): what the likelihood sees of the rows
    alpha = _moments(rows.exp()).clamp(LEAST, MOST)
    for _ in range(iterations):
        fixed, newton = _fixed_point(alpha, means), _newton(alpha, means)
        better = likelihood(newton, means) > likelihood(fixed, means)
        after = torch.where(better[..., None], newton, fixed)
        change = ((after - alpha).abs() / alpha).max()
        alpha = after
        if change < tolerance:
            break
    return alpha


def likelihood(alpha: Tensor, means: Tensor) -> Tensor:
    """Mean logarithm of the density (...) of rows whose logarithms have `means` (..., D).

    >>> float(likelihood(torch.ones(2), torch.tensor([-1.0, -2.0])))  # uniform: the density is 1
    0.0
    """
    return torch.lgamma(alpha.sum(-1)) - torch.lgamma(alpha).sum(-1) + ((alpha - 1) * means).sum(-1)


def _fixed_point(alpha: Tensor, means: Tensor) -> Tensor:
    """alpha <- psi^-1(psi(sum alpha) + mean log p)."""
    return inverse_digamma(torch.digamma(alpha.sum(-1, keepdim=True)) + means).clamp(LEAST, MOST)


def _newton(alpha: Tensor, means: Tensor) -> Tensor:
    """The Hessian is a diagonal plus one number everywhere, so its inverse needs no matrix."""
    total = alpha.sum(-1, keepdim=True)
    gradient = torch.digamma(total) - torch.digamma(alpha) + means
    diagonal = -torch.polygamma(1, alpha)
    shared = (gradient / diagonal).sum(-1, keepdim=True) / (
        1 / torch.polygamma(1, total) + (1 / diagonal).sum(-1, keepdim=True)
    )
    return (alpha - (gradient - shared) / diagonal).clamp(LEAST, MOST)


def inverse_digamma(values: Tensor) -> Tensor:
    """x > 0 with psi(x) = values, by Newton's method from Minka's start: five steps give 14 digits.

    >>> inverse_digamma(torch.digamma(torch.tensor([0.5, 1.0, 3.0]).double()))
    tensor([0.5000, 1.0000, 3.0000], dtype=torch.float64)
    """
    euler = 0.5772156649015329
    x = torch.where(values >= -2.22, values.exp() + 0.5, -1.0 / (values + euler))
    for _ in range(5):
        x = x - (torch.digamma(x) - values) / torch.polygamma(1, x)
    return x


def _moments(rows: Tensor) -> Tensor:
    """Concentrations with the mean of the rows (..., n, D), their sum from the variances."""
    mean = rows.mean(-2).clamp_min(1e-12)
    variance = rows.var(-2, correction=0).clamp_min(1e-12)
    total = (mean * (1 - mean) / variance - 1).clamp_min(LEAST).log().mean(-1, keepdim=True).exp()
    return mean * total
