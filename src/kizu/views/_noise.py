"""Perlin noise of a batch; lattice and angle are drawn for each image.

Source: Perlin, "Improving noise", 2002 (fade 6t^5 - 15t^4 + 10t^3), with gradients of length one, times
sqrt(2), so that values lie in [-1, 1]. DRAEM and GLASS draw the noise upright and rotate the raster. Here
the noise is computed at the rotated positions, which needs no interpolation and allows images of any size
(theirs must be a multiple of the cells). Pixels that the rotation brings in from outside are 0, as in their
code."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kizu.views._random import below, between

EXPONENTS = 6
"""A side has 2^0 ... 2^5 cells; rows and columns are drawn separately."""

_NODES = 2 ** (EXPONENTS - 1) + 1
COLUMNS = 3 + _NODES**2
"""Uniform draws that one noise uses."""


def noise(u: Tensor, height: int, width: int, device: torch.device) -> Tensor:
    """(B, height, width) float32 noise from draws u (B, COLUMNS): cells down, cells across, angle (-90 to 90
    degrees), gradients."""
    exponent = torch.tensor(EXPONENTS)
    cells = 2 ** torch.stack([below(u[:, 0], exponent), below(u[:, 1], exponent)])
    return lattice_noise(
        cells, between(u[:, 2], (-math.pi / 2, math.pi / 2)), u[:, 3:] * 2 * math.pi, height, width, device
    )


def lattice_noise(
    cells: Tensor, turn: Tensor, gradients: Tensor, height: int, width: int, device: torch.device
) -> Tensor:
    """(B, height, width) float32 noise of given lattices.

    cells: (2, B), down and across. turn: (B,) radians. gradients: (B, nodes^2) angles in radians, row by
    row of a square lattice."""
    down = torch.arange(height, device=device)[:, None] - (height - 1) / 2
    across = torch.arange(width, device=device)[None, :] - (width - 1) / 2
    cos, sin = _each(turn.cos(), device), _each(turn.sin(), device)
    y, x = cos * down + sin * across + (height - 1) / 2, cos * across - sin * down + (width - 1) / 2
    within = (y >= -1e-3) & (y <= height - 1 + 1e-3) & (x >= -1e-3) & (x <= width - 1 + 1e-3)
    y, x = (
        y.clamp(0, height - 1) * _each(cells[0] / height, device),
        x.clamp(0, width - 1) * _each(cells[1] / width, device),
    )
    row, column = y.floor(), x.floor()
    y, x = y - row, x - column
    nodes = math.isqrt(gradients.shape[1])
    node = row.long() * nodes + column.long()
    slopes = torch.stack([gradients.sin(), gradients.cos()]).to(device, torch.float32)
    corners = [_corner(slopes, node + i * nodes + j, y - i, x - j) for i in (0, 1) for j in (0, 1)]
    upper, lower = torch.lerp(corners[0], corners[1], _fade(x)), torch.lerp(corners[2], corners[3], _fade(x))
    return math.sqrt(2) * torch.lerp(upper, lower, _fade(y)) * within


def _each(values: Tensor, device: torch.device) -> Tensor:
    return values.to(device, torch.float32)[:, None, None]


def _fade(t: Tensor) -> Tensor:
    return t * t * t * (t * (t * 6 - 15) + 10)


def _corner(slopes: Tensor, node: Tensor, y: Tensor, x: Tensor) -> Tensor:
    flat = node.flatten(1)
    return slopes[0].gather(1, flat).view(node.shape) * y + slopes[1].gather(1, flat).view(node.shape) * x
