"""Colour jitter alone: slight changes of light and colour of the whole image.

Source: Li et al., CutPaste, CVPR 2021, and its re-implementations, which train on images jittered so, by 0.1
each. The formulas are torchvision's ColorJitter for float images."""

from __future__ import annotations

from torch import Tensor

from kizu.views import _colour
from kizu.views._images import working_images
from kizu.views._random import Draws, uniforms


def colour_jitter(
    images: Tensor, *, generator: Draws, jitter: _colour.Jitter = (0.1, 0.1, 0.1, 0.1)
) -> Tensor:
    """Copies of `images` (B, 3, H, W) in [0, 1] in other light, factors and order drawn for each image.

    jitter: strengths of brightness, contrast, saturation and hue. The result has the dtype and device of
    `images`. With a CPU generator, a batch equals its images one by one, up to rounding. Raises ShapeError,
    UsageError.

    >>> import torch
    >>> images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> same = colour_jitter(images, generator=torch.Generator().manual_seed(1), jitter=(0, 0, 0, 0))
    >>> bool((same == images).all())
    True
    """
    _colour.check_jitter(jitter)
    x = working_images(images)
    u = uniforms(generator, len(x), _colour.COLUMNS)
    return _colour.jitter(x, jitter, u).clamp(0, 1).to(images.dtype)
