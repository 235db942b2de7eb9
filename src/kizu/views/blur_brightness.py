"""Blur and brightness: the whole image out of focus and in other light, the negative of corrupted images.

Source: few-shot contrastive fine-tuning, section 4.3: for CIFAR-10-C and CIFAR-100-C the "negative
augmentation comprises blurring and randomly perturbing image brightness and contrast". The paper gives no
ranges; these are this file's own choice. They start above zero: a negative that equals its image would teach
nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.checks import numbers
from kizu.views import _colour, _linear
from kizu.views._images import working_images
from kizu.views._random import Draws, Range, between, check_range, uniforms

_COLUMNS = 5


def blur_brightness(
    images: Tensor,
    *,
    generator: Draws,
    blur_sigma: Range = (0.5, 2.0),
    strength: Range = (0.2, 0.5),
) -> Tensor:
    """Copies of `images` (B, 3, H, W) in [0, 1], blurred, brighter or darker, of more or less contrast, drawn
    for each image.

    blur_sigma: in pixels. strength: by how much the factors of brightness and of contrast differ from 1, up
    or down with equal probability; at most below 1.

    The result has the dtype and device of `images`. With a CPU generator, a batch equals its images one by
    one, up to rounding. Raises ShapeError, UsageError.

    >>> images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> changed = blur_brightness(images, generator=torch.Generator().manual_seed(1))
    >>> bool(((changed - images).abs().amax((1, 2, 3)) > 0.05).all())
    True
    """
    check_range("blur_sigma", blur_sigma, 1e-3, 1e3)
    check_range("strength", strength, 0.0, 1.0)
    numbers(least=0.0, most=1.0, above=False, strength=strength[1])
    x = working_images(images)
    u = uniforms(generator, len(x), _COLUMNS)
    x = _linear.blur(x, between(u[:, 0], blur_sigma))
    brightness, contrast = (_factor(u[:, 1:3], strength), _factor(u[:, 3:5], strength))
    x = (x * brightness.to(x)).clamp(0, 1)
    mean = _colour.grey(x).mean(dim=(2, 3), keepdim=True)
    return (mean + contrast.to(x) * (x - mean)).clamp(0, 1).to(images.dtype)


def _factor(u: Tensor, strength: Range) -> Tensor:
    """1 + s or 1 - s with s drawn from `strength`, (B, 1, 1, 1), from draws (B, 2)."""
    sign = torch.where(u[:, 0] < 0.5, -1.0, 1.0)
    return (1 + sign * between(u[:, 1], strength))[:, None, None, None]
