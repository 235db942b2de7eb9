"""Features of an image at several sizes, averaged over positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from kizu.errors import ShapeError
from kizu.nn.density import pool
from kizu.types import FeatureMaps

Encode = Callable[[Tensor], FeatureMaps]
"""Images (B, 3, H, W) -> FeatureMaps."""


def pooled_pyramid(encode: Encode, images: Tensor, scales: int, coarsest: int) -> Tensor:
    """(B, scales sum C_l), at least float32: means over positions of the features of images (B, 3, H, W),
    then of the images at half their size, and so on. coarsest: the largest stride of a level.

    Source: Rudolph et al., DifferNet, WACV 2021, section 3.1. Smaller images are bilinear and antialiased.
    Raises ShapeError for images that are too small.

    >>> pooled_pyramid(lambda images: [images], torch.full((1, 3, 8, 8), 0.5), 2, 1)
    tensor([[0.5000, 0.5000, 0.5000, 0.5000, 0.5000, 0.5000]])
    """
    H, W = images.shape[2:]
    check_size((H, W), scales, coarsest)
    sizes = [(H >> scale, W >> scale) for scale in range(scales)]
    features = [encode(_shrunk(images, size)) for size in sizes]
    return torch.cat([pool(levels)[0] for levels in features], dim=1)


def check_size(size: tuple[int, int], scales: int, coarsest: int) -> None:
    """Raise ShapeError where the smallest copy of an image of `size` (H, W) is less than a cell of the
    coarsest level.

    >>> check_size((64, 64), 3, 32)
    Traceback (most recent call last):
        ...
    kizu.errors.ShapeError: Images of 64 x 64 pixels are too small for scales=3: the smallest copy ...
    """
    least = coarsest << (scales - 1)
    if min(size) < least:
        raise ShapeError(
            f"Images of {size[0]} x {size[1]} pixels are too small for scales={scales}: the smallest copy "
            f"must hold one cell of the coarsest level, {coarsest} pixels. Take at least {least} pixels, "
            "finer levels, or fewer scales."
        )


def _shrunk(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[2:]) == size:
        return images
    return functional.interpolate(images, size=size, mode="bilinear", antialias=True)
