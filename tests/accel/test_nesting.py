"""Groups of positions, counted and looked up by brute force."""

from __future__ import annotations

import pytest
import torch

from kizu.accel.nesting import cells_of_stages, features_of_groups, nesting, nesting_of
from kizu.nn.patches import align_levels

SIZES = [
    ((8, 6), (4, 3)),
    ((7, 5), (4, 3)),
    ((4, 3), (8, 6)),
    ((4, 4), (4, 4), (2, 2)),
    ((6, 5), (4, 3), (3, 2)),
]
CPU = torch.device("cpu")


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kept", [[1, 2], [0], [0, 1, 2]])
def test_features_of_groups_are_the_aligned_levels(
    sizes: tuple[tuple[int, int], ...], kept: list[int]
) -> None:
    """Each position's group has the features that repeating the levels gives, the last level's first."""
    levels = [torch.rand(2, 3 + number, *grid) for number, grid in enumerate(sizes)]
    levels = [level[:, kept] for level in levels]
    nest = nesting_of(levels)
    cells = cells_of_stages(levels, nest)
    rows = features_of_groups(cells, nest.stages[-1], slice(None))
    aligned = [
        align_levels([level, torch.empty(2, 0, *max(sizes))], mode="nearest") for level in reversed(levels)
    ]
    expected = torch.cat(aligned, 1).flatten(2).permute(2, 0, 1)
    assert torch.equal(rows[nest.group_of_position], expected)


@pytest.mark.parametrize("sizes", SIZES)
def test_groups_are_positions_of_equal_cells(sizes: tuple[tuple[int, int], ...]) -> None:
    nest = nesting(sizes, (2,) * len(sizes), CPU)
    height, width = max(sizes)
    grids = list(dict.fromkeys(reversed(sizes)))
    cells = [
        [(y * h // height) * w + x * w // width for y in range(height) for x in range(width)]
        for h, w in grids
    ]
    group = nest.group_of_position
    for number in reversed(range(len(grids))):
        stage = nest.stages[number]
        assert stage.group_count == len(set(zip(*cells[: number + 1], strict=True)))
        assert nest.groups_of_positions(number).tolist() == group.tolist()
        for before in range(number + 1):
            assert stage.cells[before][group].tolist() == cells[before]
            assert nest.cells_of_positions(before).tolist() == cells[before]
        if number:
            group = stage.ancestors[-1][group]
    assert nest.widths[-1] == 2 * len(sizes)


def test_levels_without_channels_have_no_stage() -> None:
    nest = nesting(((8, 8), (4, 4), (2, 2)), (0, 5, 3), CPU)
    assert [stage.levels for stage in nest.stages] == [(2,), (1,)]
    assert [stage.children_per_parent for stage in nest.stages] == [1, 4]
    assert len(nest.group_of_position) == 64
    assert nest.finest == (8, 8)
    assert int(nest.group_of_position.max()) == 15
    assert [len(entries) for entries in nest.packed_entries] == [3 * 4 // 2, 5 * 3 + 5 * 6 // 2]
