"""Feature maps of several levels -> one grid of patch features: alignment, neighbourhoods, pooled dimensions."""

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


def repeated_channels(features: FeatureMaps, channels: Tensor, *, less: Tensor | None = None) -> Tensor:
    """`align_levels(features, mode="nearest")[:, channels]` for rising `channels` (D,), without the others being made: (B, D, h, w).

    less: (h * w, D) float32, taken away from every image; what is left is float32. In memory the positions come first, then images, then
    channels: flattened to (h * w, B, D) it is contiguous.
    """
    height, width = finest_grid(features)
    kind = features[0].dtype if less is None else torch.promote_types(features[0].dtype, less.dtype)
    made, start, done = features[0].new_empty(height, width, len(features[0]), len(channels), dtype=kind), 0, 0
    taken = None if less is None else less.view(height, width, 1, -1)
    for level in features:
        mine = channels[(channels >= start) & (channels < start + level.shape[1])].to(level.device) - start
        part = slice(done, done + len(mine))
        _repeat(_take(level, mine).to(kind), made[..., part], None if taken is None else taken[..., part])
        start, done = start + level.shape[1], part.stop
    return made.permute(2, 3, 0, 1)


def _take(level: Tensor, channels: Tensor) -> Tensor:
    """Channels (d,) of a level (B, C, h, w): (h, w, B, d). gather is several times faster than index_select along a row."""
    B, C, h, w = level.shape
    rows = level.permute(0, 2, 3, 1).reshape(-1, C)
    return rows.gather(1, channels.expand(len(rows), -1)).view(B, h, w, -1).permute(1, 2, 0, 3)


def _repeat(cells: Tensor, out: Tensor, less: Tensor | None) -> None:
    """Write cells (h, w, B, d), each repeated over its part of the grid, into `out` (H, W, B, d), less what is taken away (H, W, 1, d)."""
    (high, wide), (height, width) = cells.shape[:2], out.shape[:2]
    if height % high == 0 and width % wide == 0:

        def parted(grid: Tensor) -> Tensor:
            return grid.unflatten(1, (wide, -1)).unflatten(0, (high, -1))  # (h, H/h, w, W/w, ..., d)

        source, out, less = cells[:, None, :, None], parted(out), None if less is None else parted(less)
    else:
        rows, columns = (torch.arange(size, device=out.device) * count // size for size, count in ((height, high), (width, wide)))
        source = cells[rows[:, None], columns]
    if less is None:
        out.copy_(source)
    else:
        torch.sub(source, less, out=out)


def local_mean(feature: Tensor, neighbourhood: int) -> Tensor:
    """Mean over the neighbourhood x neighbourhood window around each position, zero-padded: (B, C, h, w) -> same.

    As PatchCore's implementations: windows at the border count the zeros outside. neighbourhood is odd; 1 changes nothing.
    """
    if neighbourhood < 1 or neighbourhood % 2 == 0:
        raise UsageError(f"A neighbourhood has an odd side of at least 1 patch, got {neighbourhood}.")
    if neighbourhood == 1:
        return feature
    return functional.avg_pool2d(feature, neighbourhood, stride=1, padding=neighbourhood // 2)


def pooled_neighbourhood(feature: Tensor, neighbourhood: int, dimensions: int) -> Tensor:
    """PatchCore's released recipe: unfold each window (B, C*k*k, h, w) and average-pool those values to `dimensions`.

    Source: Roth et al., CVPR 2022, section 3.1 (adaptive average pooling), order of values as in the released code: channel-major.
    """
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
