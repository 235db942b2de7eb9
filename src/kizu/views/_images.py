"""What every view does with its images: check them, compute in float32 or better, cut windows out and put
them back."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.checks import bind_shape
from kizu.errors import ShapeError, UsageError

MIN_SIDE = 8
"""Fewest pixels of an image's shorter side: a planted patch must be smaller than its image."""


def working_images(images: Tensor, name: str = "images") -> Tensor:
    """`images` (B, 3, H, W), checked, in the dtype to compute in: float64 as it is, everything else as
    float32.

    Raises ShapeError, UsageError."""
    if not isinstance(images, Tensor):
        raise UsageError(f"{name} must be a torch tensor (B, 3, H, W), got {type(images).__name__}.")
    bind_shape(name, tuple(images.shape), "B 3 H W", {})
    if not images.dtype.is_floating_point:
        raise UsageError(f"{name} must be floating point in [0, 1], got {images.dtype}; divide bytes by 255.")
    if images.shape[0] < 1 or min(images.shape[2:]) < MIN_SIDE:
        raise ShapeError(
            f"{name} must hold at least one image of {MIN_SIDE}x{MIN_SIDE} pixels or more, got "
            f"{tuple(images.shape)}."
        )
    return images if images.dtype == torch.float64 else images.float()


def as_output(images: Tensor, result: Tensor, return_mask: bool) -> Tensor | tuple[Tensor, Tensor]:
    """`result` in [0, 1] and in the dtype of `images`; with return_mask, also the mask (B, H, W) of the
    pixels that changed in any channel."""
    out = result.clamp(0, 1).to(images.dtype)
    return (out, (out != images).any(dim=1)) if return_mask else out


def cut(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels of each image. `rows` and `columns` broadcast to (B, h, w); the result is (B, C, h, w)."""
    return images[_index(images, rows, columns)]


def put(images: Tensor, rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """A copy of `images` with `values` (B, C, h, w) at these rows and columns. No pixel may occur twice."""
    out = images.clone()
    out[_index(images, rows, columns)] = values
    return out


def _index(images: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch = torch.arange(images.shape[0], device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return batch, channel, rows[:, None], columns[:, None]
