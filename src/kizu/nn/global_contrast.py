"""Global contrast normalisation: each image minus its mean, over its mean absolute deviation.

Source: Ruff et al., Deep One-Class Classification, ICML 2018, section 4.1: L1 norm; the released code divides
by the mean, not the sum, of absolute values."""

from __future__ import annotations

from torch import Tensor

LEAST = 1e-8
"""Of the divisor: an image of one colour gives zeros."""


def global_contrast(images: Tensor) -> Tensor:
    """Images (B, C, H, W) -> the same shape: mean 0 and mean absolute value 1 over all values of an image.

    >>> import torch
    >>> global_contrast(torch.tensor([0.25, 0.75]).reshape(1, 1, 1, 2)).flatten()
    tensor([-1.,  1.])
    """
    centred = images - images.mean(dim=(1, 2, 3), keepdim=True)
    return centred / centred.abs().mean(dim=(1, 2, 3), keepdim=True).clamp_min(LEAST)
