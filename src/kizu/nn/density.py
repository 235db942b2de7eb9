"""A Gaussian density of pooled features: the mean, and a matrix that makes its Mahalanobis distance a length.

Sources: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
Multivariate Analysis 88, 2004; few-shot contrastive fine-tuning, Eq. 4. With fewer rows than dimensions the
covariance of the sample is singular; the three choices of `density` are three answers to that."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.errors import TooFewImages, UnknownName
from kizu.nn.floats import at_least_float32
from kizu.types import FeatureMaps

COVARIANCES = ("ledoit_wolf", "pseudo_inverse", "ridge")


def density(
    rows: Tensor, covariance: str = "ledoit_wolf", *, ridge: float = 1e-6
) -> tuple[Tensor, Tensor, float]:
    """Rows (n, D) float64 -> mean (D,), W (D, D) with |W (x - mean)| the Mahalanobis distance, shrinkage.

    covariance: "ledoit_wolf", shrunk towards a multiple of the identity; "pseudo_inverse", which ignores
    directions in which the rows do not vary; "ridge", that of the sample plus `ridge` times the identity.
    shrinkage: what Ledoit and Wolf chose, else 0. Raises UnknownName; TooFewImages
    for a pseudo-inverse of rows that are all equal.

    >>> mean, W, _ = density(torch.tensor([[0.0, 1.0], [4.0, 1.0]]).double(), "pseudo_inverse")
    >>> mean.tolist(), round(float((W @ (torch.tensor([6.0, 9.0]) - mean)).norm()), 6)
    ([2.0, 1.0], 2.0)
    """
    if covariance not in COVARIANCES:
        raise UnknownName("covariance", covariance, COVARIANCES)
    if covariance == "ledoit_wolf":
        mean, shrunk, shrinkage = ledoit_wolf(rows)
        return mean, whitening(shrunk), shrinkage
    mean = rows.mean(0)
    centred = rows - mean
    if covariance == "pseudo_inverse":
        if bool((rows == rows[:1]).all()):
            raise TooFewImages(
                "The features of all good images are equal: no direction is left to covariance="
                "'pseudo_inverse'; all would score 0. Give different images, or take 'ledoit_wolf'."
            )
        return mean, pseudo_whitening(centred.T @ centred / len(rows)), 0.0
    identity = torch.eye(rows.shape[1], dtype=rows.dtype)
    return mean, _inverse_factor(centred.T @ centred / len(rows) + ridge * identity), 0.0


def pool(features: FeatureMaps) -> tuple[Tensor, Tensor]:
    """Mean over the positions of each level (B, C_l, h_l, w_l), stacked: (B, D), and its length (B, 1);
    float32, or float64 when the features are.

    >>> pool([torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 1, 1), 4.0)])
    (tensor([[3., 4.]]), tensor([[5.]]))
    """
    exact = [at_least_float32(level) for level in features]
    pooled = torch.cat([level.mean(dim=(2, 3)) for level in exact], dim=1)
    return pooled, pooled.norm(dim=1, keepdim=True).clamp_min(1e-12)


def ledoit_wolf(rows: Tensor) -> tuple[Tensor, Tensor, float]:
    """Rows (n, D) -> mean (D,), covariance (D, D) and its shrinkage in [0, 1]. In float64.

    The covariance is (1 - b / d) S + (b / d) m 1 with S that of the sample (denominator n), m its mean
    variance, d = |S - m 1|^2 / D, and b = sum_i |x_i x_i^T - S|^2 / (n^2 D), at most d (x_i centred; Ledoit
    and Wolf 2004, sections 3.2 and 3.3). One row alone, or equal rows, give the unit covariance: distances
    are then Euclidean.

    >>> ledoit_wolf(torch.tensor([[0.0, 0.0], [2.0, 2.0]]).double())
    (tensor([1., 1.], dtype=torch.float64), tensor([[1., 1.], [1., 1.]], dtype=torch.float64), 0.0)
    """
    n, D = rows.shape
    mean = rows.mean(0)
    centred = rows - mean
    sample = centred.T @ centred / n
    variance = sample.diagonal().mean()
    identity = torch.eye(D, dtype=rows.dtype)
    if variance <= 0:
        return mean, identity, 1.0
    spread = (sample - variance * identity).square().sum() / D
    error = (centred.square().sum(1).square().mean() - sample.square().sum()) / (n * D)
    shrinkage = float(error.clamp(0.0, float(spread)) / spread) if spread > 0 else 1.0
    return mean, (1 - shrinkage) * sample + shrinkage * variance * identity, shrinkage


def whitening(covariance: Tensor) -> Tensor:
    """W = L^-1 with S = L L^T, for a covariance S (D, D): |W (f - mu)| is the Mahalanobis distance.

    1e-6 of the mean variance is added to the diagonal, so that a singular S has a factor too.

    >>> whitening(torch.diag(torch.tensor([4.0, 1.0])))
    tensor([[0.5000, 0.0000], [0.0000, 1.0000]])
    """
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    offset = 1e-6 * covariance.diagonal().mean().clamp_min(1e-12)
    return _inverse_factor(covariance + offset * identity)


def pseudo_whitening(covariance: Tensor) -> Tensor:
    """W (D, D) with W^T W the pseudo-inverse of a covariance S (D, D): eigenvalues below D eps times the
    largest count as none.

    >>> pseudo_whitening(torch.diag(torch.tensor([4.0, 0.0])).double()).abs().sum(0)
    tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    values, vectors = torch.linalg.eigh(covariance)
    least = len(values) * torch.finfo(values.dtype).eps * values.max().clamp_min(0.0)
    scale = torch.where(values > least, values.clamp_min(1e-300).rsqrt(), torch.zeros_like(values))
    return scale[:, None] * vectors.T


def _inverse_factor(covariance: Tensor) -> Tensor:
    """L^-1 with S = L L^T."""
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), identity, upper=False)
