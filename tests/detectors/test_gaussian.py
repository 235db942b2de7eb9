"""The Ledoit-Wolf estimate against scikit-learn's; the score and its shares against their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.covariance
import torch

import kizu
from kizu.errors import UsageError
from kizu.nn.density import ledoit_wolf, pool, whitening
from kizu.representations.sources import open_representation
from kizu.training import Position
from kizu.views.affine import affine


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


def test_copies_are_learned_in_place_of_the_images() -> None:
    """Eq. 4: mean and covariance of N_A augmented copies, each drawn by its image's own generator."""
    net = open_representation("random/resnet10t@3").eval()
    known = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    chosen = {"copies": 4, "covariance": "ridge", "ridge": 1e-3, "precision": "fp32", "image_size": 64}
    detector = kizu.detector("gaussian", net, **chosen, seed=2).fit(known)
    draws = Position(0, 0, 3).generators(2)
    views = [affine(known, generator=draws, blur_chance=0.5, grey_chance=0.2) for _ in range(4)]
    rows = torch.cat([net(view)[0].mean((2, 3)).detach() for view in views]).double()
    rows = rows / rows.norm(dim=1, keepdim=True)
    covariance = np.cov(rows.numpy(), rowvar=False, bias=True) + 1e-3 * np.eye(rows.shape[1])
    query = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    f = net(query)[0].mean((2, 3)).detach().double()
    difference = (f / f.norm(dim=1, keepdim=True) - rows.mean(0)).numpy()
    expected = np.sqrt(np.einsum("bi,ij,bj->b", difference, np.linalg.inv(covariance), difference))
    assert np.allclose(detector.predict(query).score, expected, rtol=1e-3)
    assert detector.images_seen_ == 3
    assert not detector.takes_features
    other = kizu.detector("gaussian", net, **chosen, seed=3, batch_size=1).fit(known)
    assert not torch.equal(other.mean_, detector.mean_)
    same = kizu.detector("gaussian", net, **chosen, seed=2, batch_size=1).fit(known)
    assert torch.allclose(same.mean_, detector.mean_, atol=1e-6)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("origin", ["mean", "zero"])
def test_the_shares_add_up_for_every_reading(normalise: bool, origin: str) -> None:
    """Eq. 5 as printed is from zero; without normalisation features keep their length. The map's mean is the
    score, or for Eq. 5 from zero as well."""
    net = open_representation("random/resnet10t@3").eval()
    known = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    chosen = {"normalise": normalise, "origin": origin, "sigma": 0.0, "alignment": "grid"}
    detector = kizu.detector("gaussian", net, **chosen, precision="fp32", image_size=64).fit(known)
    query = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    f = net(query)[0].mean((2, 3)).detach()
    f = f / f.norm(dim=1, keepdim=True) if normalise else f
    difference = f - detector.mean_ if origin == "mean" else f
    assert torch.allclose(
        detector.predict(query).score, (difference @ detector.whitening_.T).norm(dim=1), rtol=1e-3
    )
    assert torch.allclose(detector.predict(query).map.mean((1, 2)), detector.predict(query).score, rtol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"copies": -1}, "copies"),
        ({"seed": -3}, "seed"),
        ({"augmentation": "affine"}, "without copies"),
        ({"covariance": "oas"}, "ledoit_wolf"),
        ({"ridge": 0.1}, "than 'ridge'"),
        ({"origin": "median"}, "origin"),
    ],
)
def test_values_without_effect_or_out_of_range(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kizu.detector("gaussian", "random/resnet10t@3", **wrong)
