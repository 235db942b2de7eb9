"""Groups of positions, counted and looked up by brute force."""

from __future__ import annotations

import pytest
import torch

from kizu.accel.nesting import cells_of, grids_of, joined, nesting
from kizu.nn.patches import align_levels

SIZES = [
    ((8, 6), (4, 3)),
    ((7, 5), (4, 3)),
    ((4, 3), (8, 6)),
    ((4, 4), (4, 4), (2, 2)),
    ((6, 5), (4, 3), (3, 2)),
]


@pytest.mark.parametrize("sizes", SIZES)
def test_joined_cells_are_the_aligned_levels(sizes: tuple[tuple[int, int], ...]) -> None:
    """Each position's group has the features that repeating the levels gives, the coarsest stage's first."""
    levels = [torch.rand(2, 3 + number, *grid) for number, grid in enumerate(sizes)]
    for chosen in ([1, 2], [0], [0, 1, 2]):
        channels = [torch.tensor(chosen) for _ in levels]
        nest = nesting(grids_of(levels), tuple(len(chosen) for _ in levels), torch.device("cpu"))
        rows = joined(
            [cells.transpose(0, 1) for cells in cells_of(levels, channels, nest)],
            nest.stages[-1],
            slice(None),
        )
        aligned = [
            align_levels([level, torch.empty(2, 0, *max(sizes))], mode="nearest")[:, chosen]
            for level in levels
        ]
        order = [level for stage in nest.stages for level in stage.levels]
        expected = torch.cat([aligned[level] for level in order], 1).flatten(2).permute(2, 0, 1)
        assert torch.equal(rows[nest.home], expected)


@pytest.mark.parametrize("sizes", SIZES)
def test_groups_are_positions_of_equal_cells(sizes: tuple[tuple[int, int], ...]) -> None:
    nest = nesting(sizes, (2,) * len(sizes), torch.device("cpu"))
    height, width = max(sizes)
    grids = sorted(set(sizes), key=lambda grid: grid[0] * grid[1])
    cells = [
        [(y * h // height) * w + x * w // width for y in range(height) for x in range(width)]
        for h, w in grids
    ]
    group = nest.home
    for number in reversed(range(len(grids))):
        stage = nest.stages[number]
        assert len(stage) == len(set(zip(*cells[: number + 1], strict=True)))
        for before in range(number + 1):
            assert stage.cells[before][group].tolist() == cells[before]
        if number:
            group = stage.groups[-1][group]
    assert nest.widths[-1] == 2 * len(sizes)


def test_levels_without_channels_have_no_stage() -> None:
    nest = nesting(((8, 8), (4, 4), (2, 2)), (0, 5, 3), torch.device("cpu"))
    assert [stage.levels for stage in nest.stages] == [(2,), (1,)]
    assert len(nest.home) == 64
    assert int(nest.home.max()) == 15
    assert [len(places) for places in nest.triangles] == [3 * 4 // 2, 5 * 3 + 5 * 6 // 2]
