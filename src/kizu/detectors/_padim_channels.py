"""The random subset of channels of PaDiM, drawn over all levels and divided among them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def draw_channels(total: int, dimensions: int | None, seed: int) -> Tensor:
    """A random subset (D,) of `total` channels; all of them if `dimensions` is None or not less. In falling
    order, the coarsest level's first, so that the two forms of a model file can be turned into each other.

    >>> draw_channels(4, None, seed=0)
    tensor([3, 2, 1, 0])
    """
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return order[: total if dimensions is None else dimensions].sort(descending=True).values


def channels_by_level(channels: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """Channels (D,), numbered over all levels together -> those of each level, numbered within it.

    >>> channels_by_level(torch.tensor([6, 4, 1]), widths=(4, 4))
    [tensor([1]), tensor([2, 0])]
    """
    bounds = itertools.pairwise(itertools.accumulate(widths, initial=0))
    return [channels[(channels >= start) & (channels < stop)] - start for start, stop in bounds]
