"""Alignment and neighbourhoods by brute force."""

import pytest
import torch
from torch.nn import functional

from kizu.errors import UsageError
from kizu.nn.patches import align_levels, finest_grid, local_mean, pooled_neighbourhood, to_rows


def test_levels_meet_on_the_finest_grid() -> None:
    levels = [torch.rand(2, 3, 8, 6), torch.rand(2, 5, 4, 3)]
    assert finest_grid(levels) == (8, 6)
    aligned = align_levels(levels)
    assert torch.equal(aligned[:, :3], levels[0])
    assert torch.equal(
        aligned[:, 3:], functional.interpolate(levels[1], size=(8, 6), mode="bilinear", align_corners=False)
    )
    repeated = align_levels(levels, mode="nearest")
    assert torch.equal(repeated[:, 3:], levels[1].repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_local_mean_counts_zeros_at_the_border() -> None:
    feature = torch.rand(1, 2, 4, 5)
    padded = functional.pad(feature, (1, 1, 1, 1))
    expected = torch.stack(
        [padded[:, :, y : y + 3, x : x + 3].mean((2, 3)) for y in range(4) for x in range(5)], -1
    ).reshape(1, 2, 4, 5)
    assert torch.allclose(local_mean(feature, 3), expected, atol=1e-6)
    assert torch.equal(local_mean(feature, 1), feature)
    with pytest.raises(UsageError, match="odd"):
        local_mean(feature, 2)


def test_pooled_neighbourhood_averages_channel_major_values() -> None:
    feature = torch.rand(1, 4, 3, 3)
    pooled = pooled_neighbourhood(
        feature, 3, 4
    )  # 4 channels x 9 values -> one value a channel: its window's mean
    assert torch.allclose(pooled, local_mean(feature, 3), atol=1e-6)
    window = functional.pad(feature, (1, 1, 1, 1))[0, :, 0:3, 0:3].reshape(4, 9).flatten()
    assert torch.allclose(
        pooled_neighbourhood(feature, 3, 6)[0, :, 0, 0], window.reshape(6, 6).mean(1), atol=1e-6
    )


def test_rows_are_image_by_image() -> None:
    grid = torch.arange(24.0).reshape(2, 3, 2, 2)
    rows = to_rows(grid)
    assert rows.shape == (8, 3)
    assert torch.equal(rows[0], grid[0, :, 0, 0])
    assert torch.equal(rows[5], grid[1, :, 0, 1])
