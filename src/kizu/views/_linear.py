"""Crop, resize, flip and blur as two matrix products, one for the rows and one for the columns of each
image.

A batch in which every image has its own window or its own blur is one product, on any device, and the
weights are those of the antialiased bilinear resize and of the Gaussian themselves."""

from __future__ import annotations

import torch
from torch import Tensor


def resize_weights(start: Tensor, length: Tensor, size_in: int, size_out: int) -> Tensor:
    """(B, size_out, size_in): antialiased bilinear resize of the pixels start ... start + length - 1, as
    torchvision's.

    A pixel of the result is a weighted mean over a triangle of two of its own widths (of two source pixels
    when enlarging), which never reaches out of the window."""
    start, length = start.double()[:, None, None], length.double()[:, None, None]
    step = length / size_out
    centre = start + (torch.arange(size_out)[None, :, None] + 0.5) * step
    pixel = torch.arange(size_in)[None, None, :] + 0.5
    weights = (1 - (pixel - centre).abs() / step.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixel > start) & (pixel < start + length))
    return weights / weights.sum(dim=2, keepdim=True)


def blur_weights(sigma: Tensor, size: int) -> Tensor:
    """(B, size, size): Gaussian blur of `sigma` (B,) pixels, as far as the image is wide, the border pixel
    repeated outwards."""
    position = torch.arange(size)
    share = summed_gaussian(sigma, size, torch.arange(-1, size)[None, None, :] - position[None, :, None])
    share[..., 0], share[..., -1] = 0, 1
    weights = share.diff(dim=2)
    return weights * (
        weights > 1e-9
    )  # what lies below is no colour, but numbers near the smallest float make products slow


def summed_gaussian(sigma: Tensor, radius: int, upto: Tensor) -> Tensor:
    """Sum of the Gaussian's taps -radius ... upto; all taps sum to 1. sigma (B,), upto whole numbers that
    broadcast to (B, ...)."""
    taps = torch.arange(-radius, radius + 1).double()
    kernel = torch.exp(-0.5 * (taps / sigma.double()[:, None]) ** 2)
    table = torch.nn.functional.pad((kernel / kernel.sum(dim=1, keepdim=True)).cumsum(dim=1), (1, 0))
    place = (upto + radius + 1).clamp(0, 2 * radius + 1).expand(len(sigma), *upto.shape[1:])
    return table.gather(1, place.reshape(len(sigma), -1)).view(place.shape)


def transform(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, H, W) with rows (B, h, H) and columns (B, w, W) -> (B, C, h, w)."""
    rows, columns = rows.to(images)[:, None], columns.to(images)[:, None]
    return rows @ (images @ columns.transpose(2, 3))


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, each image by its own sigma (B,) in pixels."""
    return transform(images, blur_weights(sigma, images.shape[2]), blur_weights(sigma, images.shape[3]))
