"""The focal loss against its printed formula in float64, its limits, and its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from kizu.errors import ShapeError, UsageError
from kizu.losses.focal import focal


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


CLASSES = torch.tensor([0, 2, 1, 2, 0, 1])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_binary_is_the_printed_formula(gamma: float, alpha: float | None) -> None:
    logits, targets = drawn(6), CLASSES % 2
    truth = []
    for z, y in zip(logits.tolist(), targets.tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        p_t, a_t = (p, alpha) if y else (1 - p, None if alpha is None else 1 - alpha)
        truth.append(-(1.0 if a_t is None else a_t) * (1 - p_t) ** gamma * math.log(p_t))
    got = focal(logits, targets, gamma=gamma, alpha=alpha, reduction="none")
    assert got.tolist() == pytest.approx(truth, rel=1e-12)
    assert float(focal(logits, targets, gamma=gamma, alpha=alpha)) == pytest.approx(math.fsum(truth) / 6)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("alpha", [None, (0.2, 1.0, 3.0)])
def test_several_classes_are_the_printed_formula(
    gamma: float, alpha: tuple[float, float, float] | None
) -> None:
    logits = drawn(6, 3)
    truth = []
    for row, y in zip(logits.tolist(), CLASSES.tolist(), strict=True):
        p_t = math.exp(row[y]) / math.fsum(math.exp(z) for z in row)
        truth.append(-(1.0 if alpha is None else alpha[y]) * (1 - p_t) ** gamma * math.log(p_t))
    got = focal(logits, CLASSES, gamma=gamma, alpha=alpha, reduction="none")
    assert got.tolist() == pytest.approx(truth, rel=1e-12)


def test_gamma_0_is_the_cross_entropy() -> None:
    logits = drawn(6)
    expected = functional.binary_cross_entropy_with_logits(logits, (CLASSES % 2).double())
    assert torch.allclose(focal(logits, CLASSES % 2, gamma=0.0), expected, rtol=1e-12)
    many = drawn(6, 3)
    assert torch.allclose(
        focal(many, CLASSES, gamma=0.0), functional.cross_entropy(many, CLASSES), rtol=1e-12
    )


def test_two_classes_are_the_binary_loss_of_their_difference() -> None:
    both, targets = drawn(6, 2), CLASSES % 2
    binary = focal(both[:, 1] - both[:, 0], targets, alpha=0.25)
    assert torch.allclose(focal(both, targets, alpha=[0.75, 0.25]), binary, rtol=1e-12)


@pytest.mark.parametrize("shape", [(6,), (6, 3)])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradcheck(shape: tuple[int, ...], gamma: float) -> None:
    targets = CLASSES if len(shape) == 2 else CLASSES % 2
    logits = drawn(*shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: focal(z, targets, gamma=gamma), (logits,))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_sure_logits_stay_finite(gamma: float) -> None:
    logits = torch.tensor([200.0, -200.0, 200.0, -200.0], requires_grad=True)
    targets = torch.tensor([1, 0, 0, 1])
    losses = focal(logits, targets, gamma=gamma, reduction="none")
    assert losses.tolist() == pytest.approx([0, 0, 200, 200], abs=1e-6)
    losses.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_well_classified_samples_fade() -> None:
    """p_t = 0.9 counts 100 times less than by cross-entropy (Lin et al., section 3.2: gamma 2)."""
    z = torch.tensor([math.log(9.0)], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.int64)
    assert float(focal(z, one, gamma=0.0) / focal(z, one, gamma=2.0)) == pytest.approx(100, rel=1e-12)


def test_misuse_is_refused() -> None:
    z, y = drawn(6), CLASSES % 2
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="gamma"):
            focal(z, y, gamma=bad)
    for alpha in (1.5, -0.1, math.nan, True, [0.5, 0.5]):
        with pytest.raises(UsageError, match="alpha"):
            focal(z, y, alpha=alpha)
    for alpha in (0.25, [1.0, 1.0], [1.0, -1.0, 1.0]):
        with pytest.raises(UsageError, match="alpha"):
            focal(drawn(6, 3), CLASSES, alpha=alpha)
    with pytest.raises(UsageError, match="classes 0 to 1, got 0 to 2"):
        focal(z, CLASSES)
    with pytest.raises(UsageError, match="got -1 to"):
        focal(z, y - 1)
    with pytest.raises(UsageError, match="integers"):
        focal(z, y.double())
    with pytest.raises(ShapeError, match="at least 2 classes"):
        focal(drawn(6, 1), y)
