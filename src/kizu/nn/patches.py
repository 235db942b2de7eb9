"""Feature maps of several levels -> one grid of patch features: alignment, neighbourhoods, pooling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kizu.errors import UsageError
from kizu.types import FeatureMaps


def finest_grid(features: FeatureMaps) -> tuple[int, int]:
    """(h, w) of the level with the most positions."""
    finest = max(features, key=lambda level: level.shape[2] * level.shape[3])
    return int(finest.shape[2]), int(finest.shape[3])


def align_levels(features: FeatureMaps, *, mode: str = "bilinear") -> Tensor:
    """Bring every level (B, C_l, h_l, w_l) to the finest grid and stack: (B, sum C_l, h, w).

    mode "bilinear" (align_corners=False; PatchCore) or "nearest" (PaDiM's repetition of coarse cells).
    """
    size = finest_grid(features)
    return torch.cat([_to_grid(level, size, mode) for level in features], dim=1)


def local_mean(feature: Tensor, neighbourhood: int) -> Tensor:
    """Mean over the neighbourhood x neighbourhood window around each position, zero-padded: (B, C, h, w) ->
    same.

    As PatchCore's implementations: windows at the border count the zeros outside. neighbourhood is odd; 1
    changes nothing."""
    if neighbourhood < 1 or neighbourhood % 2 == 0:
        raise UsageError(f"A neighbourhood has an odd side of at least 1 patch, got {neighbourhood}.")
    if neighbourhood == 1:
        return feature
    return functional.avg_pool2d(feature, neighbourhood, stride=1, padding=neighbourhood // 2)


def pooled_neighbourhood(feature: Tensor, neighbourhood: int, dimensions: int) -> Tensor:
    """PatchCore's released recipe: unfold each window (B, C*k*k, h, w) and average-pool those values to
    `dimensions`.

    Source: Roth et al., CVPR 2022, section 3.1 (adaptive average pooling), order of values as in the released
    code: channel-major."""
    B, _, h, w = feature.shape
    windows = functional.unfold(feature, neighbourhood, padding=neighbourhood // 2)  # (B, C*k*k, h*w)
    pooled = functional.adaptive_avg_pool1d(windows.transpose(1, 2), dimensions)  # (B, h*w, dimensions)
    return pooled.transpose(1, 2).reshape(B, dimensions, h, w)


def to_rows(grid: Tensor) -> Tensor:
    """(B, D, h, w) -> (B*h*w, D), image by image, row by row."""
    B, D, h, w = grid.shape
    return grid.permute(0, 2, 3, 1).reshape(B * h * w, D)


def _to_grid(level: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if tuple(level.shape[2:]) == size:
        return level
    if mode == "nearest":
        return functional.interpolate(level, size=size, mode="nearest")
    return functional.interpolate(level, size=size, mode=mode, align_corners=False)
