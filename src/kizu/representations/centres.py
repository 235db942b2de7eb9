"""Where the cells of a representation's levels look: the centre of the first cell of each, in pixels.

Cell i of a level of stride s looks around pixel o + s i, with pixels counted from 0. Bilinear upsampling with
align_corners=False puts it at (s - 1) / 2 + s i, the middle of its square. Padding decides about o as much:
with symmetric padding, as in ResNets, stride arithmetic gives o = 0, with TensorFlow's "same" padding s - 1.
And training decides, for kernels make up for the padding: a trained EfficientNet-Lite0 lies 5 pixels up and
left of the arithmetic at stride 16. So o is measured: it is the centre of the energy of the gradient of one
cell with respect to the image (the effective receptive field: Luo, Li, Urtasun and Zemel, NeurIPS 2016)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kizu.errors import ShapeError

PROBES, SIDE = 16, 256
"""Images of smooth noise, and their side in pixels: enough for half a pixel up to stride 8, one at 16."""
UNTRAINED = (4, 96)
"""Enough for random weights, whose cells look at little."""


def measured_offsets(net: Any, *, probes: int = PROBES, side: int = SIDE) -> tuple[float, ...]:
    """The offset of each level of a representation, in pixels, rounded to a tenth. Takes seconds.

    Mean over both axes, over `probes` images of smooth noise; for each the gradient of the cell in the middle
    along one random direction of its channels. Where there is no gradient, or the network does not take
    images of this size, it is the middle of each square, (stride - 1) / 2."""
    with torch.device("cpu"), torch.inference_mode(False), torch.enable_grad():
        images = _smooth_noise(probes, side).requires_grad_(True)
        try:
            levels = copy.deepcopy(net).to("cpu").eval()(images)
        except ShapeError:
            levels = []
        if not levels or not all(level.requires_grad for level in levels):
            return tuple((stride - 1) / 2 for stride in net.strides)
        return tuple(_offset(level, images, seed) for seed, level in enumerate(levels))


def _offset(level: Tensor, images: Tensor, seed: int) -> float:
    """Of one level (B, C, h, w), by its cell in the middle."""
    B, C, h, w = level.shape
    stride = images.shape[2] / h
    direction = torch.randn(B, C, generator=torch.Generator().manual_seed(seed))
    cell = (level[:, :, h // 2, w // 2] * direction).sum()
    (gradient,) = torch.autograd.grad(cell, images, retain_graph=True)
    energy = gradient.square().sum(1)  # (B, H, W)
    energy = energy / energy.sum((1, 2), keepdim=True).clamp_min(1e-30)
    pixels = torch.arange(images.shape[2], dtype=energy.dtype)
    down = (energy.sum(2) @ pixels).mean() - stride * (h // 2)
    right = (energy.sum(1) @ pixels).mean() - stride * (w // 2)
    return round(float(down + right) / 2, 1)


def _smooth_noise(count: int, side: int) -> Tensor:
    """(count, 3, side, side) in [0, 1]: noise of two scales, which wakes every kernel."""
    generator = torch.Generator().manual_seed(0)
    coarse = functional.interpolate(
        torch.rand(count, 3, side // 8, side // 8, generator=generator), size=side, mode="bilinear"
    )
    return (coarse + 0.3 * torch.rand(count, 3, side, side, generator=generator)) / 1.3
