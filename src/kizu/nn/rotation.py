"""Images turned about their middle."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Images (B, C, H, W) turned counter-clockwise by `degrees`, same shape.

    Bilinear; what comes in from outside is the image mirrored at its border, so that no corner is empty.
    Turns by 90, 180 and 270 degrees of square images are exact.

    >>> rotate(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), 90).squeeze()
    tensor([[2., 4.],
            [1., 3.]])
    """
    quarters, rest = divmod(degrees % 360, 90)
    B, C, H, W = images.shape
    if not rest and (H == W or not quarters % 2):
        return torch.rot90(images, int(quarters), (2, 3))
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos, -sin * H / W, 0.0], [sin * W / H, cos, 0.0]]).to(images)
    grid = functional.affine_grid(turn.expand(B, 2, 3), [B, C, H, W], align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
