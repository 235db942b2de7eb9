"""What detectors share whose head is built for one grid: auto-encoders, and Deep SVDD with an embedding."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from kizu.checks import MAX_SIDE
from kizu.detectors.encoder import EncoderDetector
from kizu.errors import ModelFileError, UsageError
from kizu.training import SampleStore
from kizu.types import FeatureMaps


class GridDetector(EncoderDetector):
    """Base of those that read the encoder's last level and must know its grid before the head is built.

    grid_: (h, w), from the first image of a fit, kept in the model file. The member's head has it too."""

    _shapes: ClassVar[dict[str, str]] = {"steps": "1", "grid": "2"}
    grid_: tuple[int, int]

    def _first_features(self, samples: SampleStore) -> FeatureMaps:
        features = super()._first_features(samples)
        self.grid_ = (int(features[-1].shape[2]), int(features[-1].shape[3]))
        return features

    def _check_samples(self, samples: SampleStore) -> None:
        if self.grid_[0] * self.grid_[1] * self.batch_size < 2:
            raise UsageError(
                f"Images of {samples.size} leave one number a channel to normalise: take larger images, or a "
                "larger batch_size."
            )

    def _set_network(self, network: nn.Module, steps: int) -> None:
        super()._set_network(network, steps)
        self.grid_ = self.network_.head.grid

    def _state(self) -> dict[str, Tensor]:
        return {**super()._state(), "grid": torch.tensor(self.grid_)}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        h, w = (int(side) for side in tensors["grid"])
        if not (0 < h <= MAX_SIDE and 0 < w <= MAX_SIDE):
            raise ModelFileError(f"The model has a grid of {h} x {w}; sides are 1 to {MAX_SIDE}.")
        self.grid_ = (h, w)
        super()._restore(tensors)
