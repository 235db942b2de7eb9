"""SSIM against windows by hand, and against SciPy's Gaussian filter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from kizu.errors import ShapeError, UsageError
from kizu.losses.ssim import ssim, ssim_map


def pair(shape: tuple[int, ...] = (2, 3, 17, 14), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(shape, generator=generator, dtype=torch.float64)
    return first, (first + 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def index(a: np.ndarray, b: np.ndarray, weights: np.ndarray, data_range: float) -> float:
    """Wang et al., Eq. 13, of one window."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
    var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
    cov = (weights * (a - mean_a) * (b - mean_b)).sum()
    top = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return float(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))


@pytest.mark.parametrize(("window", "sigma", "data_range"), [(11, 1.5, 1.0), (5, 0.7, 255.0)])
def test_every_window_by_hand(window: int, sigma: float, data_range: float) -> None:
    a, b = (values * data_range for values in pair())
    radius = window // 2
    line = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    weights = np.outer(line, line) / np.outer(line, line).sum()
    sides = ((0, 0), (0, 0), (radius, radius), (radius, radius))
    wide_a, wide_b = (np.pad(values.numpy(), sides, mode="symmetric") for values in (a, b))
    expected = np.zeros((2, 17, 14))
    for image, row, column in np.ndindex(2, 17, 14):
        cut = (slice(row, row + window), slice(column, column + window))
        expected[image, row, column] = np.mean(
            [index(wide_a[(image, c, *cut)], wide_b[(image, c, *cut)], weights, data_range) for c in range(3)]
        )
    got = ssim_map(a, b, window=window, sigma=sigma, data_range=data_range)
    assert np.allclose(got.numpy(), expected, atol=1e-9)
    loss = ssim(a, b, window=window, sigma=sigma, data_range=data_range)
    assert float(loss) == pytest.approx(1 - expected.mean(), abs=1e-9)


def test_local_means_are_those_of_scipy() -> None:
    """Of an image against a constant 0 what is left is c1 / (mean^2 + c1) * c2 / (variance + c2)."""
    a = pair((1, 1, 20, 23))[0]
    mean, square = (gaussian_filter(v, 1.5, truncate=3.5) for v in (a[0, 0].numpy(), a[0, 0].numpy() ** 2))
    expected = 1e-4 / (mean**2 + 1e-4) * 9e-4 / (square - mean**2 + 9e-4)
    assert np.allclose(ssim_map(a, torch.zeros_like(a))[0].numpy(), expected, atol=1e-12)


def test_what_it_says_of_images() -> None:
    a, b = pair()
    assert torch.allclose(ssim_map(a, a), torch.ones(2, 17, 14, dtype=torch.float64))
    assert torch.allclose(ssim_map(a, b), ssim_map(b, a))
    assert torch.allclose(ssim_map(a.flip(3), b.flip(3)), ssim_map(a, b).flip(2))
    constant = torch.full((1, 1, 12, 12), 0.2, dtype=torch.float64)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert float(ssim_map(constant, constant * 3)[0, 3, 3]) == pytest.approx(expected)
    assert float(ssim(a, b)) > 0.1
    assert math.isclose(float(ssim(a, b, reduction="none")[1]), float(ssim(a[1:], b[1:])), rel_tol=1e-12)


def test_half_precision_is_computed_in_float32_even_under_autocast() -> None:
    a, b = (values.float() for values in pair())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ssim_map(a, b), ssim_map(a, b))
        inside = ssim_map(a, b)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, ssim_map(a, b))


def test_misuse_is_refused() -> None:
    a, b = pair()
    for wrong in ({"window": 4}, {"window": 0}, {"sigma": 0.0}, {"data_range": -1.0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            ssim(a, b, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="target"):
        ssim_map(a, b[:, :, :5])
