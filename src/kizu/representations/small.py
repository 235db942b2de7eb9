"""Small: one of the small untrained networks of one-class learning as a representation, "small/lenet".

Detectors that train their encoder (Deep SVDD, auto-encoders, rotation prediction, CSI) start from it where
their papers start from nothing; features of its random weights are good for nothing else."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from kizu.errors import ModelFileError, UnknownName, UsageError
from kizu.nn.small_networks import NAMES, drawn
from kizu.representations.base import Representation
from kizu.types import FeatureMaps


class Small(Representation):
    """architecture: a name of kizu.nn.small_networks. levels: which stages, from 1, finest first; by default
    the last. seed: of the weights.

    Images are brought from [0, 1] to [-1, 1]. Raises UnknownName, UsageError for stages it has not."""

    def __init__(self, architecture: str, *, levels: tuple[int, ...] | None = None, seed: int = 0) -> None:
        super().__init__()
        if architecture not in NAMES:
            raise UnknownName("small network", architecture, NAMES)
        self.net = drawn(architecture, seed)
        stages = len(self.net.channels)
        self.levels = levels or (stages,)
        if (
            sorted(set(self.levels)) != list(self.levels)
            or not 1 <= self.levels[0] <= self.levels[-1] <= stages
        ):
            raise UsageError(
                f"small/{architecture} has stages 1 to {stages}; levels are some of them, rising, got "
                f"{list(self.levels)}."
            )
        self.channels = tuple(self.net.channels[level - 1] for level in self.levels)
        self.strides = tuple(self.net.strides[level - 1] for level in self.levels)
        self.card = {
            "name": f"small/{architecture}@{','.join(map(str, self.levels))}",
            "kind": "small",
            "architecture": architecture,
            "levels": list(self.levels),
            "source": "random",
            "seed": seed,
            "licence": "none needed (random weights)",
            "trained_on": [],
        }

    def forward(self, images: Tensor) -> FeatureMaps:
        """Images (B, 3, H, W) in [0, 1] -> [(B, C_l, h_l, w_l)], finest first."""
        dtype = next(self.net.parameters()).dtype
        every = self.net((images * 2 - 1).to(dtype))
        return [every[level - 1] for level in self.levels]

    @classmethod
    def from_card(cls, card: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Raises ModelFileError."""
        try:
            net = cls(card["architecture"], levels=tuple(card["levels"]), seed=card.get("seed") or 0)
            net.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError, UnknownName, UsageError) as error:
            raise ModelFileError(f"The small network's card and tensors do not fit ({error}).") from error
        net.card = {**net.card, **card}
        return net

    def for_inference(self, dtype: torch.dtype, device: torch.device) -> Representation:
        """The network in `dtype`."""
        twin = super().for_inference(dtype, device)
        assert isinstance(twin, Small)
        twin.net = twin.net.to(dtype)
        return twin
