"""Photometric views: other colours, grey, blur; every pixel stays where it is, so that a mask still fits.

Source: ADPretrain, NeurIPS 2025, section 3.2: "random color jitters, random gray scale, and random Gaussian
blur"; the paper gives no strengths. These are the official code's: jitter (0.4, 0.4, 0.4, 0.1) with
probability 0.8, grey 0.2, blur of sigma 0.1 to 2 with probability 0.5, those of SimSiam without crop and
flip. The blur is a true Gaussian, where the code takes Pillow's three box blurs."""

from __future__ import annotations

from torch import Tensor

from kizu.views._augment import Recipe, augment
from kizu.views._colour import Jitter
from kizu.views._images import working_images
from kizu.views._random import Draws, Range


def photometric(
    images: Tensor,
    *,
    generator: Draws,
    jitter: Jitter = (0.4, 0.4, 0.4, 0.1),
    jitter_chance: float = 0.8,
    grey_chance: float = 0.2,
    blur_sigma: Range = (0.1, 2.0),
    blur_chance: float = 0.5,
) -> Tensor:
    """Copies of `images` (B, 3, H, W) in [0, 1] in other colours and focus, drawn for each image.

    jitter: strengths of brightness, contrast, saturation and hue. blur_sigma: in pixels. The others are
    probabilities. The result has the dtype and device of `images`. With a CPU generator, a batch equals its
    images one by one, up to rounding. Raises ShapeError, UsageError.

    >>> import torch
    >>> images = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    >>> off = {"jitter_chance": 0.0, "grey_chance": 0.0, "blur_chance": 0.0}
    >>> same = photometric(images, generator=torch.Generator().manual_seed(1), **off)
    >>> bool((same - images).abs().max() < 1e-6)
    True
    """
    height, width = working_images(images).shape[2:]
    whole = Recipe(
        crop_scale=(1.0, 1.0),
        crop_ratio=(width / height, width / height),
        jitter=jitter,
        jitter_chance=jitter_chance,
        grey_chance=grey_chance,
        blur_sigma=blur_sigma,
        blur_chance=blur_chance,
        flip_chance=0.0,
    )
    return augment(images, whole, generator, None)
