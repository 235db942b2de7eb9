"""PaDiM's levels on their own: a Gaussian for each position of each level, and a distance map of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from kizu.store import without_prefix
from kizu.types import FeatureMaps, Grids


class LevelGaussians:
    """The same use as PaDiM's PositionGaussians, of which, or of their fast twins, it holds one for each
    level."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)

    def update(self, features: FeatureMaps) -> None:
        """Add the chosen channels [(B, d_l, h_l, w_l)] of B images."""
        for part, level in zip(self.parts, features, strict=True):
            part.update([level])

    def finalize(self) -> None:
        """Level by level: what the sums of one take is free before the next."""
        for part in self.parts:
            part.finalize()

    def distance(self) -> LevelDistances:
        """The module that measures distances."""
        return LevelDistances([part.distance() for part in self.parts])

    def tensors(self) -> dict[str, Tensor]:
        """Those of each level, their names after "level_0.", "level_1.", ..."""
        return {
            f"level_{number}.{name}": tensor
            for number, part in enumerate(self.parts)
            for name, tensor in part.tensors().items()
        }

    def restore(self, tensors: dict[str, Tensor], grids: Grids, widths: Sequence[int]) -> None:
        """Use what `tensors` gave, of either form. Raises ModelFileError if it does not fit."""
        for number, part in enumerate(self.parts):
            own = without_prefix(tensors, f"level_{number}.")
            part.restore(own, grids[number : number + 1], widths[number : number + 1])


class LevelDistances(nn.Module):
    """Chosen channels [(B, d_l, h_l, w_l)] -> distances [(B, h_l, w_l)], each level by its own module."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, features: FeatureMaps) -> list[Tensor]:
        """Every level."""
        return [part([level]) for part, level in zip(self.parts, features, strict=True)]
