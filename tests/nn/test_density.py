"""The Gaussian density's three answers to a singular covariance, against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kizu.errors import TooFewImages, UnknownName
from kizu.nn.density import density, pool


def rows(count: int, D: int) -> torch.Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3.0


@pytest.mark.parametrize(("count", "D"), [(5, 12), (40, 6)])
def test_pseudo_inverse_is_numpys(count: int, D: int) -> None:
    """Fewer rows than dimensions, and more."""
    x = rows(count, D)
    mean, W, shrinkage = density(x, "pseudo_inverse")
    covariance = np.cov(x.numpy(), rowvar=False, bias=True)
    assert np.allclose(mean, x.mean(0))
    assert np.allclose((W.T @ W).numpy(), np.linalg.pinv(covariance, rcond=1e-10), rtol=1e-6, atol=1e-9)
    assert shrinkage == 0.0


def test_ridge_is_the_inverse_with_it_on_the_diagonal() -> None:
    x = rows(5, 12)
    _, W, _ = density(x, "ridge", ridge=0.1)
    covariance = np.cov(x.numpy(), rowvar=False, bias=True) + 0.1 * np.eye(12)
    assert np.allclose((W.T @ W).numpy(), np.linalg.inv(covariance))


def test_the_learned_rows_have_a_mean_squared_distance_of_their_rank() -> None:
    """The sum of squared Mahalanobis distances of a sample to its mean is n times the rank."""
    x = rows(5, 12)
    mean, W, _ = density(x, "pseudo_inverse")
    assert ((x - mean) @ W.T).square().sum(1).mean().item() == pytest.approx(4.0)


def test_pooling_is_exact_in_half_precision() -> None:
    level = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    pooled, length = pool([level])
    assert pooled.dtype == torch.float32
    assert torch.allclose(pooled, level.float().mean((2, 3)))
    assert torch.allclose(length[:, 0], pooled.norm(dim=1))
    assert pool([level.double()])[0].dtype == torch.float64


def test_unknown_covariance() -> None:
    with pytest.raises(UnknownName, match="ledoit_wolf"):
        density(rows(3, 2), "ledoit")


def test_pseudo_inverse_of_equal_rows_is_refused() -> None:
    for same in (rows(1, 12), rows(1, 12).expand(3, 12)):
        with pytest.raises(TooFewImages, match="pseudo_inverse"):
            density(same, "pseudo_inverse")
