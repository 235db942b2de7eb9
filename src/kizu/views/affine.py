"""Affine: the image turned, moved and scaled a little, as a part lies in a fixture; blurred and grey on
demand.

Source: few-shot contrastive fine-tuning, section 4.3: the regular augmentation "comprises affine
transformation and color manipulations (e.g. blurring and grayscaleing)", for CIFAR-10-C the affine part
alone. The paper gives no ranges; these are this file's own choice, those of the blur are SimSiam's."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from kizu.checks import numbers
from kizu.views import _colour, _linear
from kizu.views._images import working_images
from kizu.views._random import Draws, Range, between, check_range, log_between, uniforms

AUGMENTATIONS = {"industrial": (0.5, 0.2), "affine": (0.0, 0.0)}
"""Probabilities of blur and of grey by the name that detectors and adaptations take; "affine" is the paper's
choice for CIFAR."""
_COLUMNS = 7


def affine(
    images: Tensor,
    *,
    generator: Draws,
    rotation: Range = (-10.0, 10.0),
    shift: float = 0.05,
    scale: Range = (0.9, 1.1),
    blur_chance: float = 0.0,
    blur_sigma: Range = (0.1, 2.0),
    grey_chance: float = 0.0,
) -> Tensor:
    """Copies of `images` (B, 3, H, W) in [0, 1], turned, moved and scaled, drawn for each image.

    rotation: in degrees, counter-clockwise. shift: at most this fraction of the side, along each axis. scale:
    above 1 is nearer. What comes in from outside is the image mirrored at its border. blur_chance,
    grey_chance: probabilities of a blur of blur_sigma pixels, and of losing the colour.

    The result has the dtype and device of `images`. With a CPU generator, a batch equals its images one by
    one, up to rounding. Raises ShapeError, UsageError.

    >>> images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> same = affine(images, generator=torch.Generator(), rotation=(0, 0), shift=0.0, scale=(1, 1))
    >>> bool((same - images).abs().max() < 1e-5)
    True
    """
    check_range("rotation", rotation, -360.0, 360.0)
    check_range("scale", scale, 1e-2, 1e2)
    check_range("blur_sigma", blur_sigma, 1e-3, 1e3)
    numbers(least=0.0, most=1.0, shift=shift, blur_chance=blur_chance, grey_chance=grey_chance)
    x = working_images(images)
    u = uniforms(generator, len(x), _COLUMNS)
    angle = between(u[:, 0], rotation) * math.pi / 180
    moves = between(u[:, 1:3], (-2 * shift, 2 * shift))  # affine_grid counts from -1 to 1
    x = _move(x, angle, moves, log_between(u[:, 3], scale))
    blurred, greyed = (u[:, 4] < blur_chance).nonzero()[:, 0], (u[:, 6] < grey_chance).nonzero()[:, 0]
    if len(blurred):
        x[blurred] = _linear.blur(x[blurred], between(u[blurred, 5], blur_sigma))
    if len(greyed):
        x[greyed] = _colour.grey(x[greyed]).expand_as(x[greyed])
    return x.clamp(0, 1).to(images.dtype)


def _move(images: Tensor, angle: Tensor, moves: Tensor, scale: Tensor) -> Tensor:
    """Images (B, 3, H, W) turned by angle (B,) radians, moved by moves (B, 2) half sides, scaled by (B,)."""
    H, W = images.shape[2:]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    across = torch.stack([cos, -sin * H / W, moves[:, 0]], dim=1)
    down = torch.stack([sin * W / H, cos, moves[:, 1]], dim=1)
    turn = torch.stack([across, down], dim=1).to(images)
    grid = functional.affine_grid(turn, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
