"""Structural similarity: the map of two images, and the loss 1 - SSIM.

Sources: Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
Similarity", IEEE TIP 13, 2004, section III: the index, Gaussian weights of sigma 1.5 in a window of 11, K1 =
0.01, K2 = 0.03, moments of the window with weights that sum to one. Bergmann, Loewe, Fauser, Sattlegger and
Steger, VISAPP 2019, Eq. 3: the loss and the residual map of an auto-encoder. Both are about grey images;
colour is the mean over the channels. The window reaches over the border by symmetric reflection, so the map
has the size of the image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kizu.checks import numbers, whole_numbers
from kizu.errors import UsageError
from kizu.losses._embeddings import at_least_float32, check_float, reduce_loss

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def ssim(
    prediction: Tensor,
    target: Tensor,
    *,
    window: int = WINDOW,
    sigma: float = SIGMA,
    data_range: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Lower is better: 1 - SSIM, the mean over all pixels and channels; 0 for equal images, at most 2.

    prediction, target: images (B, C, H, W). window: odd side in pixels; sigma: of its Gaussian weights.
    data_range: largest possible difference of two values. reduction: "mean" -> (), "none" -> (B,). The result
    is float32, or float64 when the inputs are. Raises ShapeError, UsageError, UnknownName.

    >>> image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> round(float(ssim(image, image)), 6), bool(ssim(image, 1 - image) > 1)
    (0.0, True)
    """
    similar = ssim_map(prediction, target, window=window, sigma=sigma, data_range=data_range)
    return reduce_loss(1 - similar.flatten(1).mean(1), reduction)


def ssim_map(
    a: Tensor, b: Tensor, *, window: int = WINDOW, sigma: float = SIGMA, data_range: float = 1.0
) -> Tensor:
    """SSIM at each pixel, in [-1, 1]: (B, C, H, W) twice -> (B, H, W), the mean over the channels.

    The other arguments are those of `ssim`. Autocast is off: variances are small differences."""
    bound: dict[str, tuple[int, str]] = {}
    for name, values in (("prediction", a), ("target", b)):
        check_float(name, values, "B C H W", bound)
    whole_numbers(window=window)
    numbers(least=0.0, above=True, sigma=sigma, data_range=data_range)
    if window % 2 == 0:
        raise UsageError(f"window is an odd side in pixels, got {window}.")
    a, b = at_least_float32(a), at_least_float32(b)
    with torch.autocast(a.device.type, enabled=False):
        moments = torch.cat([a, b, a * a, b * b, a * b], dim=1)
        mean_a, mean_b, square_a, square_b, product = _local_mean(moments, window, sigma).chunk(5, dim=1)
        variances = (square_a - mean_a * mean_a) + (square_b - mean_b * mean_b)
        covariance = product - mean_a * mean_b
        c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
        luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
        return (luminance * (2 * covariance + c2) / (variances + c2)).mean(dim=1)


def _local_mean(values: Tensor, window: int, sigma: float) -> Tensor:
    """Gaussian mean of the window around each pixel, (B, C, H, W) -> the same: rows, then columns."""
    B, C, H, W = values.shape
    radius = window // 2
    offsets = torch.arange(-radius, radius + 1, dtype=values.dtype, device=values.device)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = weights / weights.sum()
    plain = values.reshape(B * C, 1, H, W)
    plain = functional.conv2d(plain[:, :, _reflected(H, radius, values.device)], weights[None, None, :, None])
    plain = functional.conv2d(plain[..., _reflected(W, radius, values.device)], weights[None, None, None, :])
    return plain.reshape(B, C, H, W)


def _reflected(size: int, radius: int, device: torch.device) -> Tensor:
    """Places -radius to size + radius within 0 to size - 1: d c b a | a b c d | d c b a, for any radius."""
    folded = torch.arange(-radius, size + radius, device=device) % (2 * size)
    return torch.where(folded < size, folded, 2 * size - 1 - folded)
