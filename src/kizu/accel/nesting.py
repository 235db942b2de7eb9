"""Which positions share the cells of coarse levels: the bookkeeping of PaDiM's fast twin
(nested_gaussians.py).

PaDiM repeats coarse levels over the finest grid. The features of a position are thus those of one cell of
each level, and neighbouring positions have the same cell of the coarse ones. The levels are processed in
stages, the last (coarsest) level first; levels of one grid that follow each other are one stage. Positions
whose cells agree in all stages up to stage s form one group of stage s. Each group of stage s lies in one
group of stage s - 1, its parent. With grids of 14, 28 and 56 cells a side there are 196, 784 and 3,136
groups.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from kizu.types import FeatureMaps, Grids, grids_of


@dataclass(frozen=True)
class Stage:
    """One or more levels of the same grid, with the groups of positions that they and the stages before
    define.

    levels: numbers of the levels, the coarsest (last) first. cell_count: cells of their grid, C. width:
    chosen channels of these levels, d. cells: for each stage up to this one, the cell (G,) of every group of
    this stage. ancestors: for each stage before this one, the group (G,) there in which every group of this
    stage lies. children_per_parent: how many consecutive groups share a parent, if it is the same number for
    all; otherwise 1.
    """

    levels: tuple[int, ...]
    cell_count: int
    width: int
    cells: tuple[Tensor, ...]
    ancestors: tuple[Tensor, ...]
    children_per_parent: int

    @property
    def group_count(self) -> int:
        """G."""
        return len(self.cells[0])


@dataclass(frozen=True)
class Nesting:
    """stages: the coarsest first. group_of_position: the last stage's group of each position (P,). finest:
    (h, w) of the positions' grid."""

    stages: tuple[Stage, ...]
    group_of_position: Tensor
    finest: tuple[int, int]

    @functools.cached_property
    def widths(self) -> list[int]:
        """Channels before each stage, and those of all stages: [0, ..., D]."""
        return list(itertools.accumulate((stage.width for stage in self.stages), initial=0))

    @functools.cached_property
    def packed_entries(self) -> list[Tensor]:
        """For each stage the entries of its rows of W, (d, D_s) row by row, that are not zero by
        construction: all columns of the stages before, and a lower triangle. Numbers of the flattened matrix,
        (K,)."""
        entries = []
        for before, after in itertools.pairwise(self.widths):
            row, column = torch.ones(after - before, after).tril(before).nonzero(as_tuple=True)
            entries.append(row * after + column)
        return entries

    def groups_of_positions(self, number: int) -> Tensor:
        """The group of stage `number` of each position (P,)."""
        groups = (*self.stages[-1].ancestors, torch.arange(self.stages[-1].group_count))
        return groups[number].to(self.group_of_position.device)[self.group_of_position]

    def cells_of_positions(self, number: int) -> Tensor:
        """The cell of stage `number` of each position (P,)."""
        return self.stages[-1].cells[number][self.group_of_position]


@functools.lru_cache(maxsize=16)
def nesting(grids: Grids, widths: tuple[int, ...], device: torch.device) -> Nesting:
    """The stages of levels with these grids (h, w) and numbers of chosen channels; a level without any has
    none."""
    height, width = max(grids, key=lambda grid: grid[0] * grid[1])
    used = [number for number in reversed(range(len(grids))) if widths[number]]
    stages: list[Stage] = []
    group = torch.zeros(height * width, dtype=torch.int64)
    with torch.inference_mode(False):  # the result is cached, and used outside of inference mode too
        for (h, w), numbers in itertools.groupby(used, key=lambda number: grids[number]):
            levels = tuple(numbers)
            rows, columns = torch.arange(height) * h // height, torch.arange(width) * w // width
            cell = (rows[:, None] * w + columns).flatten()  # of each position
            codes, group = torch.unique(group * (h * w) + cell, return_inverse=True)
            parent, cell = codes // (h * w), codes % (h * w)  # of each group
            previous = stages[-1] if stages else None
            stages.append(
                Stage(
                    levels=levels,
                    cell_count=h * w,
                    width=sum(widths[level] for level in levels),
                    cells=(*(_inherit(previous.cells, parent) if previous else ()), cell.to(device)),
                    ancestors=(*_inherit(previous.ancestors, parent), parent.to(device)) if previous else (),
                    children_per_parent=_children_per_parent(parent) if previous else 1,
                )
            )
    return Nesting(tuple(stages), group.to(device), (height, width))


def _inherit(of_parents: tuple[Tensor, ...], parent: Tensor) -> tuple[Tensor, ...]:
    """What is known of each parent group, for each of its children."""
    return tuple(values[parent.to(values.device)] for values in of_parents)


def _children_per_parent(parent: Tensor) -> int:
    """How many consecutive groups have one parent (G,), rising, if all parents have as many; otherwise 1."""
    number = len(parent) // (int(parent[-1]) + 1)
    return number if torch.equal(parent, torch.arange(len(parent)) // number) else 1


def cells_of_stages(features: FeatureMaps, nest: Nesting) -> list[Tensor]:
    """Chosen channels [(B, d_l, h_l, w_l)] -> for each stage those of its cells, (C, B, d)."""
    cells = []
    for stage in nest.stages:
        levels = [features[number].flatten(2).permute(2, 0, 1) for number in stage.levels]
        cells.append(levels[0] if len(levels) == 1 else torch.cat(levels, dim=2))
    return cells


def nesting_of(features: FeatureMaps, device: torch.device | None = None) -> Nesting:
    """The nesting of chosen channels [(B, d_l, h_l, w_l)], on `device` or on theirs."""
    widths = tuple(level.shape[1] for level in features)
    return nesting(grids_of(features), widths, device or features[0].device)


def features_of_groups(cells: list[Tensor], stage: Stage, part: slice) -> Tensor:
    """The features of some groups of a stage, (p, n, D_s): what their cells hold, side by side.

    cells: values (C, n, d) of the cells of each stage, at least up to this one. part: which groups.
    """
    values = [one[cell[part]] for one, cell in zip(cells, stage.cells, strict=False)]
    return values[0] if len(values) == 1 else torch.cat(values, dim=-1)
