"""The Ledoit-Wolf estimate against scikit-learn's; the score and its shares against their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.covariance
import torch

import kizu
from kizu.nn.density import ledoit_wolf, pool, whitening
from kizu.errors import UsageError
from kizu.representations.sources import open_representation


@pytest.mark.parametrize(
    ("count", "D", "scale", "shift"),
    [(2, 8, 1.0, 0.0), (5, 40, 1.0, 0.0), (200, 10, 3.0, 100.0), (60, 30, 1e-3, -5.0)],
)
def test_ledoit_wolf_is_scikit_learns(count: int, D: int, scale: float, shift: float) -> None:
    rows = torch.randn(
        count, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ) @ torch.diag(torch.linspace(0.1, 2, D).double())
    rows = rows * scale + shift
    mean, covariance, shrinkage = ledoit_wolf(rows)
    expected, expected_shrinkage = sklearn.covariance.ledoit_wolf(rows.numpy())
    assert np.allclose(mean.numpy(), rows.mean(0).numpy())
    assert np.isclose(shrinkage, expected_shrinkage, rtol=1e-6)
    assert np.allclose(covariance.numpy(), expected, rtol=1e-6, atol=1e-9 * scale**2)


def test_degenerate_sets_stay_sound() -> None:
    for count in (1, 9):
        _, covariance, shrinkage = ledoit_wolf(torch.ones(count, 4).double())
        assert torch.equal(covariance, torch.eye(4, dtype=torch.float64))
        assert shrinkage == 1.0


@pytest.mark.parametrize("sigma", [-1.0, math.nan, math.inf])
def test_sigma_that_cannot_be_meant(sigma: float) -> None:
    with pytest.raises(UsageError, match="sigma"):
        kizu.detector("gaussian", "random/resnet10t@3", sigma=sigma)


def test_whitening_is_mahalanobis() -> None:
    root = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    covariance = root @ root.T
    difference = torch.randn(6, dtype=torch.float64)
    expected = torch.sqrt(difference @ torch.linalg.inv(covariance) @ difference)
    assert torch.allclose((whitening(covariance) @ difference).norm(), expected, rtol=1e-4)


def test_scores_and_their_shares() -> None:
    net = open_representation("random/resnet10t@3")
    known, query = (
        torch.rand(12, 3, 64, 64),
        torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5)),
    )
    detector = kizu.detector(
        "gaussian", net, image_size=64, sigma=0.0, precision="fp32", alignment="grid"
    ).fit(known)
    extractor = net.inference_copy("fp32")
    rows, tested = (
        (pooled / length).double().numpy()
        for pooled, length in (pool(extractor(known)), pool(extractor(query)))
    )
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    covariance, _ = sklearn.covariance.ledoit_wolf(rows)
    difference = tested - rows.mean(0)
    expected = np.sqrt(np.einsum("bd,de,be->b", difference, np.linalg.inv(covariance), difference))
    features = extractor(query)
    map_, score = detector.scorer()(features, tuple(features[0].shape[2:]))
    assert np.allclose(score.numpy(), expected, rtol=1e-3)
    assert np.allclose(map_.mean((1, 2)).numpy(), score.numpy(), rtol=1e-3), "the shares' mean is the score"
