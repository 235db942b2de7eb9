"""The streaming Ledoit-Wolf estimate against scikit-learn's; the score and its shares against their
definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf

import kizu
from kizu.detectors.gaussian import ShrunkCovariance, pooled, whitening
from kizu.representations.sources import open_representation


@pytest.mark.parametrize(
    ("count", "D", "scale", "shift"),
    [(2, 8, 1.0, 0.0), (5, 40, 1.0, 0.0), (200, 10, 3.0, 100.0), (60, 30, 1e-3, -5.0)],
)
def test_streaming_equals_two_passes(count: int, D: int, scale: float, shift: float) -> None:
    rows = torch.randn(
        count, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ) @ torch.diag(torch.linspace(0.1, 2, D).double())
    rows = rows * scale + shift
    moments = ShrunkCovariance()
    for part in rows.split(7):
        moments.update(part)
    mean, covariance, shrinkage = moments.finish()
    expected, expected_shrinkage = ledoit_wolf(rows.numpy())
    assert np.allclose(mean.numpy(), rows.mean(0).numpy())
    assert np.isclose(shrinkage, expected_shrinkage, rtol=1e-6)
    assert np.allclose(covariance.numpy(), expected, rtol=1e-6, atol=1e-9 * scale**2)


def test_degenerate_sets_stay_sound() -> None:
    one = ShrunkCovariance()
    one.update(torch.ones(1, 4))
    assert torch.equal(one.finish()[1], torch.eye(4, dtype=torch.float64))
    same = ShrunkCovariance()
    same.update(torch.ones(9, 4))
    assert torch.equal(same.finish()[1], torch.eye(4, dtype=torch.float64))


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
    detector = kizu.detector("gaussian", net, image_size=64, sigma=0.0, precision="fp32").fit(known)
    frozen = net.inference_copy("fp32")
    rows, tested = pooled(frozen(known)).double().numpy(), pooled(frozen(query)).double().numpy()
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    covariance, _ = ledoit_wolf(rows)
    difference = tested - rows.mean(0)
    expected = np.sqrt(np.einsum("bd,de,be->b", difference, np.linalg.inv(covariance), difference))
    features = frozen(query)
    map_, score = detector._score(features, tuple(features[0].shape[2:]))
    assert np.allclose(score.numpy(), expected, rtol=1e-3)
    assert np.allclose(map_.mean((1, 2)).numpy(), score.numpy(), rtol=1e-3), "the shares' mean is the score"
