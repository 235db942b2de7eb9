"""The most likely Dirichlet against another optimiser, and against the one that rows were drawn from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import gammaln

from kizu.nn.dirichlet import MOST, dirichlet, inverse_digamma


@pytest.mark.parametrize("true", [[0.5, 2.0, 1.0], [8.0, 3.0, 5.0, 1.5], [0.2, 0.3], [300.0, 900.0, 600.0]])
def test_another_optimiser_finds_the_same(true: list[float]) -> None:
    rows = np.random.default_rng(0).dirichlet(true, size=200).clip(1e-12)
    means = np.log(rows).mean(0)

    def loss(log_alpha: np.ndarray) -> float:
        alpha = np.exp(log_alpha)
        return -(gammaln(alpha.sum()) - gammaln(alpha).sum() + ((alpha - 1) * means).sum())

    expected = np.exp(minimize(loss, np.log(true), method="BFGS", options={"gtol": 1e-9}).x)
    got = dirichlet(torch.from_numpy(np.log(rows))).numpy()
    assert got == pytest.approx(expected, rel=1e-4)
    assert got == pytest.approx(true, rel=0.35)


def test_several_at_once_are_each_alone() -> None:
    generator = np.random.default_rng(1)
    rows = torch.from_numpy(
        np.log(np.stack([generator.dirichlet([1.0, 2.0], 40), generator.dirichlet([4, 3], 40)]))
    )
    together = dirichlet(rows)
    for number in range(2):
        assert torch.allclose(together[number], dirichlet(rows[number]), rtol=1e-5)


def test_equal_rows_stay_finite() -> None:
    alpha = dirichlet(torch.tensor([[0.3, 0.7]]).double().log().expand(5, 2))
    assert bool(torch.isfinite(alpha).all())
    assert alpha.max() <= MOST
    assert alpha[0] / alpha.sum() == pytest.approx(0.3, rel=0.01)


def test_inverse_digamma_far_and_wide() -> None:
    x = torch.logspace(-5, 5, 60, dtype=torch.float64)
    assert torch.allclose(inverse_digamma(torch.digamma(x)), x, rtol=1e-9)
