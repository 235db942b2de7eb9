"""Weak global augmentation: slight changes of light, pose and focus, which are no defects.

Source: Zou et al., SPot-the-Difference, ECCV 2022, section 3.2 and the supplement. The supplement gives a
crop "with a ratio [0.9, 1.0]", jitter (0.1, 0.1, 0.1, 0.05) with probability 0.8, Gaussian blur of sigma
0.1 to 0.3 with probability 0.5, and a horizontal flip.

Where the paper is silent, this file chooses: the ratio is of the area, cropped as RandomResizedCrop does,
with its aspect limits 3/4 to 4/3; the flip has probability 0.5. (Such a crop is tried ten times; at 224
pixels none fits for 12 % of the images, which stay uncropped, and 94 % of the area is kept on average.)"""

from __future__ import annotations

from torch import Tensor

from kizu.views._augment import Recipe, augment
from kizu.views._colour import Jitter
from kizu.views._random import Draws, Range


def weak(
    images: Tensor,
    *,
    generator: Draws,
    crop_scale: Range = (0.9, 1.0),
    crop_ratio: Range = (3 / 4, 4 / 3),
    jitter: Jitter = (0.1, 0.1, 0.1, 0.05),
    blur_sigma: Range = (0.1, 0.3),
    flip_chance: float = 0.5,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Weakly augmented copies of `images` (B, 3, H, W) in [0, 1], drawn for each image.

    crop_scale: fraction of the area that stays. crop_ratio: its width / height before it is stretched back.
    jitter: strengths of brightness, contrast, saturation and hue, with probability 0.8. blur_sigma: in
    pixels of the result, with probability 0.5. flip_chance: probability of a horizontal flip. size: (h, w)
    of the result, by default that of `images`.

    The result has the dtype and device of `images`. With a CPU generator, a batch equals its images one by
    one, up to rounding. Raises ShapeError, UsageError.

    >>> import torch
    >>> images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> weak(images, generator=torch.Generator().manual_seed(1)).shape == images.shape
    True
    """
    recipe = Recipe(
        crop_scale=crop_scale,
        crop_ratio=crop_ratio,
        jitter=jitter,
        grey_chance=0.0,
        blur_sigma=blur_sigma,
        flip_chance=flip_chance,
    )
    return augment(images, recipe, generator, size)
