"""Feature maps of several levels -> one grid of patch features: alignment, neighbourhoods, pooling."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kizu.errors import UsageError
from kizu.types import Centre, Centres, FeatureMaps


def finest_grid(features: FeatureMaps) -> tuple[int, int]:
    """(h, w) of the level with the most positions."""
    finest = max(features, key=lambda level: level.shape[2] * level.shape[3])
    return int(finest.shape[2]), int(finest.shape[3])


def finest_level(features: FeatureMaps) -> int:
    """Number of the level with the most positions, the first of them."""
    return max(range(len(features)), key=lambda level: features[level].shape[2] * features[level].shape[3])


def finest_centre(features: FeatureMaps, centres: Centres | None) -> Centre | None:
    """(stride, offset) of the finest level; None where no centres are given."""
    return None if centres is None else centres[finest_level(features)]


def align_levels(features: FeatureMaps, *, mode: str = "bilinear") -> Tensor:
    """Bring every level (B, C_l, h_l, w_l) to the finest grid and stack: (B, sum C_l, h, w).

    mode "bilinear" (align_corners=False; PatchCore) or "nearest" (PaDiM's repetition of coarse cells).
    """
    size = finest_grid(features)
    return torch.cat([_to_grid(level, size, mode) for level in features], dim=1)


def choose_channels(features: FeatureMaps, channels: Sequence[Tensor]) -> FeatureMaps:
    """Levels [(B, C_l, h_l, w_l)] and the channels (d_l,) chosen of each -> [(B, d_l, h_l, w_l)].

    Networks compute in channels-last layout: gathering rows takes a quarter of the time of indexing."""
    levels = []
    for level, chosen in zip(features, channels, strict=True):
        B, C, h, w = level.shape
        rows = level.permute(0, 2, 3, 1).reshape(-1, C)
        kept = rows.gather(1, chosen.to(level.device).expand(len(rows), -1)).view(B, h, w, -1)
        levels.append(kept.permute(0, 3, 1, 2))
    return levels


def draw_channels(widths: Sequence[int], dimensions: int | None, seed: int) -> Tensor:
    """A random subset of each of several numbers of channels, which are numbered one after the other:
    (D,); all if `dimensions` is None or not less. In falling order, the coarsest level's first, so that the
    two forms of PaDiM's model file can be turned into each other.

    >>> draw_channels([3, 1], None, seed=0)
    tensor([3, 2, 1, 0])
    """
    drawn, start = [], 0
    for width in widths:
        order = torch.randperm(width, generator=torch.Generator().manual_seed(seed))
        drawn.append(start + order[: width if dimensions is None else dimensions])
        start += width
    return torch.cat(drawn).sort(descending=True).values


def channels_by_level(channels: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Channels (D,), numbered over all levels together -> those of each level, numbered within it.

    >>> channels_by_level(torch.tensor([6, 4, 1]), widths=(4, 4))
    [tensor([1]), tensor([2, 0])]
    """
    bounds = itertools.pairwise(itertools.accumulate(widths, initial=0))
    return [channels[(channels >= start) & (channels < stop)] - start for start, stop in bounds]


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


def patch_features(features: FeatureMaps, neighbourhood: int, dimensions: int | None) -> Tensor:
    """Patch features (B, D, h, w) on the finest level's grid, of [(B, C_l, h_l, w_l)]: means over the
    neighbourhood (PatchCore, CVPR 2022, section 3.1), or pooled to `dimensions` as its released code does."""
    if dimensions is None:
        return align_levels([local_mean(level, neighbourhood) for level in features])
    pooled = align_levels([pooled_neighbourhood(level, neighbourhood, dimensions) for level in features])
    if len(features) == 1:
        return pooled
    B, _, h, w = pooled.shape
    rows = functional.adaptive_avg_pool1d(to_rows(pooled), dimensions)
    return rows.reshape(B, h, w, dimensions).permute(0, 3, 1, 2)


def from_rows(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `to_rows`: (B*h*w, D) -> the shape of `like`, (B, D, h, w).

    >>> level = torch.arange(12.0).reshape(1, 3, 2, 2)
    >>> torch.equal(from_rows(to_rows(level), level), level)
    True
    """
    B, D, h, w = like.shape
    return rows.reshape(B, h, w, D).permute(0, 3, 1, 2)


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
