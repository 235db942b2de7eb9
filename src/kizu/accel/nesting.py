"""Positions that share a cell of a coarse level share all that is learned of it alone.

PaDiM repeats coarse levels over the finest grid, so a position's features are those of one cell of each
level. Levels are taken as stages, the coarsest first (levels of one grid are one stage); the positions of
equal cells in all stages so far are a group of a stage. A group of stage s has one group of stage s - 1 as
its parent, and there are as few of them as the grids have cells: with grids of 14, 28 and 56 to a side, 196,
784 and 3,136."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kizu.types import FeatureMaps

Grids = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Stage:
    """levels: of which it consists. count: cells of its grid. width: channels. cells: for this stage and all
    before it, the cell of each group (G,); groups: for all before it, the group of each group (G,). siblings:
    every so many groups in turn have one parent."""

    levels: tuple[int, ...]
    count: int
    width: int
    cells: tuple[Tensor, ...]
    groups: tuple[Tensor, ...]
    siblings: int = 1

    def __len__(self) -> int:
        return len(self.cells[0])


@dataclass(frozen=True)
class Nesting:
    """stages: the coarsest first; home: the last stage's group of each position (P,)."""

    stages: tuple[Stage, ...]
    home: Tensor

    @property
    def widths(self) -> list[int]:
        """Channels before each stage, and all of them."""
        return [sum(stage.width for stage in self.stages[:number]) for number in range(len(self.stages) + 1)]

    @functools.cached_property
    def triangles(self) -> list[Tensor]:
        """For each stage the places of what a factor (d, D) has, row by row: all before the stage and a
        triangle of its own."""
        made = []
        for before, after in zip(self.widths, self.widths[1:], strict=False):
            row, column = torch.ones(after - before, after).tril(before).nonzero(as_tuple=True)
            made.append(row * after + column)
        return made


@functools.lru_cache(maxsize=16)
def nesting(grids: Grids, widths: tuple[int, ...], device: torch.device) -> Nesting:
    """Of levels with these grids (h, w) and numbers of channels; levels without channels have no stage."""
    height, width = max(grids, key=lambda grid: grid[0] * grid[1])
    used = sorted(
        {grid for grid, channels in zip(grids, widths, strict=True) if channels},
        key=lambda grid: (grid[0] * grid[1], grid),
    )
    stages: list[Stage] = []
    with torch.inference_mode(False):  # it outlives the call
        home = torch.zeros(height * width, dtype=torch.int64)
        for h, w in used:
            rows, columns = torch.arange(height) * h // height, torch.arange(width) * w // width
            codes, home = torch.unique(
                home * (h * w) + (rows[:, None] * w + columns).flatten(), return_inverse=True
            )
            parent, own = codes // (h * w), codes % (h * w)
            cells = (*(cell[parent] for cell in stages[-1].cells), own) if stages else (own,)
            groups = (*(group[parent] for group in stages[-1].groups), parent) if stages else ()
            levels = tuple(number for number, grid in enumerate(grids) if grid == (h, w) and widths[number])
            stages.append(
                Stage(levels, h * w, sum(widths[level] for level in levels), cells, groups, _siblings(parent))
            )
        there = [
            replace(
                one,
                cells=tuple(cell.to(device) for cell in one.cells),
                groups=tuple(group.to(device) for group in one.groups),
            )
            for one in stages
        ]
        return Nesting(tuple(there), home.to(device))


def _siblings(parent: Tensor) -> int:
    """Groups of one parent, where all parents (G,), rising, have as many; else 1."""
    number = len(parent) // (int(parent[-1]) + 1)
    return number if torch.equal(parent, torch.arange(len(parent)) // number) else 1


def grids_of(features: FeatureMaps) -> Grids:
    """(h, w) of each level."""
    return tuple((int(level.shape[2]), int(level.shape[3])) for level in features)


def cells_of(features: FeatureMaps, channels: list[Tensor], nest: Nesting) -> list[Tensor]:
    """For each stage the chosen channels of its cells, (B, C, d), in the features' type. channels: those of
    each level."""
    return [
        torch.cat([_take(features[level], channels[level]) for level in stage.levels], dim=2)
        for stage in nest.stages
    ]


def _take(level: Tensor, channels: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, d). gather is several times faster than index_select along a row."""
    B, C, h, w = level.shape
    rows = level.permute(0, 2, 3, 1).reshape(-1, C)
    return rows.gather(1, channels.to(level.device).expand(len(rows), -1)).view(B, h * w, -1)


def joined(cells: list[Tensor], stage: Stage, part: slice) -> Tensor:
    """Of some groups of a stage the features so far: cells (C, B, d) of each stage -> (p, B, D)."""
    found = [one[place[part]] for one, place in zip(cells, stage.cells, strict=False)]
    return found[0] if len(found) == 1 else torch.cat(found, dim=-1)
