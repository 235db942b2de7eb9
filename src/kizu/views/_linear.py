"""Crop, resize, flip and blur as two matrix products, one for the rows and one for the columns of each image.

A batch in which every image has another window or another blur is still one product, on any device. The
weights are exactly those of the antialiased bilinear resize and of the Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor


def resize_weights(start: Tensor, length: Tensor, size_in: int, size_out: int) -> Tensor:
    """(B, size_out, size_in) weights of the antialiased bilinear resize (torchvision's) of the pixels
    start ... start + length - 1; start, length: (B,).

    A pixel of the result is a mean weighted by a triangle. The triangle is two result pixels wide, or two
    source pixels when the image is enlarged, and is cut off at the window."""
    start, length = start.double()[:, None, None], length.double()[:, None, None]
    step = length / size_out
    centre = start + (torch.arange(size_out)[None, :, None] + 0.5) * step
    pixel = torch.arange(size_in)[None, None, :] + 0.5
    weights = (1 - (pixel - centre).abs() / step.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixel > start) & (pixel < start + length))
    return weights / weights.sum(dim=2, keepdim=True)


def blur_weights(sigma: Tensor, size: int) -> Tensor:
    """(B, size, size) weights of a Gaussian blur of `sigma` (B,) pixels. The border pixel is repeated
    outwards, and the Gaussian reaches as far as the image is wide."""
    position = torch.arange(size)
    cumulative = summed_gaussian(sigma, size, torch.arange(-1, size)[None, None, :] - position[None, :, None])
    cumulative[..., 0], cumulative[..., -1] = 0, 1
    weights = cumulative.diff(dim=2)
    # A weight below 1e-9 changes no colour, but numbers near the smallest float make products slow.
    return weights * (weights > 1e-9)


def summed_gaussian(sigma: Tensor, radius: int, upto: Tensor) -> Tensor:
    """Sum of a Gaussian's taps -radius ... upto, where all taps sum to 1.

    sigma: (B,). upto: whole numbers that broadcast to (B, ...); the result has their shape."""
    taps = torch.arange(-radius, radius + 1).double()
    kernel = torch.exp(-0.5 * (taps / sigma.double()[:, None]) ** 2)
    table = torch.nn.functional.pad((kernel / kernel.sum(dim=1, keepdim=True)).cumsum(dim=1), (1, 0))
    index = (upto + radius + 1).clamp(0, 2 * radius + 1).expand(len(sigma), *upto.shape[1:])
    return table.gather(1, index.reshape(len(sigma), -1)).view(index.shape)


def transform(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, C, H, W) with rows (B, h, H) and columns (B, w, W) -> (B, C, h, w)."""
    rows, columns = rows.to(images)[:, None], columns.to(images)[:, None]
    return rows @ (images @ columns.transpose(2, 3))


def blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of (B, C, H, W), each image with its sigma of (B,) in pixels."""
    return transform(images, blur_weights(sigma, images.shape[2]), blur_weights(sigma, images.shape[3]))
