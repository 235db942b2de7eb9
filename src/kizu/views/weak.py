"""Weak global augmentation: the slight changes of light, pose and focus that a flaw must be told from.

Zou et al., SPot-the-Difference, ECCV 2022: section 3.2 and the supplement, which gives crop "with a ratio
[0.9, 1.0]", jitter (0.1, 0.1, 0.1, 0.05) with chance 0.8, Gaussian blur of sigma 0.1 to 0.3 with chance 0.5,
horizontal flip. Silent, and filled in: the ratio is of the area, cropped as RandomResizedCrop does with its
own aspect limits 3/4 to 4/3 (ten tries must fit the frame: at 224 pixels 12 % of the images stay uncropped
and 94 % of the area is kept on average), the flip has chance 0.5."""

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
    """Weakly augmented copies of `images` (B, 3, H, W) in [0, 1], each by its own draws; same dtype and
    device.

    crop_scale: part of the area that stays; crop_ratio: its width / height before it is stretched back.
    jitter: strengths of brightness, contrast, saturation, hue (chance 0.8). blur_sigma: pixels of the result
    (chance 0.5). size: (h, w) of the result, by default that of `images`. With a CPU generator a batch draws
    what its images would draw one by one, and agrees with them to rounding. Raises ShapeError, UsageError.
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
