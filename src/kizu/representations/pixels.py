"""Pixels: the image itself as features, one level of stride 1; what rebuilds images is compared with it."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor

from kizu.representations.base import Representation
from kizu.types import FeatureMaps


class Pixels(Representation):
    """[(B, 3, H, W)], the values in [0, 1] as they came.

    >>> import torch
    >>> image = torch.full((1, 3, 2, 2), 0.5)
    >>> bool((Pixels()(image)[0] == image).all())
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.strides = (3,), (1,)
        self.card = {"name": "pixels", "kind": "pixels", "licence": "none needed", "trained_on": []}

    @property
    def offsets(self) -> tuple[float, ...]:
        """A pixel looks at itself."""
        return (0.0,)

    def forward(self, images: Tensor) -> FeatureMaps:
        """Images (B, 3, H, W) float32 in [0, 1]."""
        return [images]

    @classmethod
    def from_card(cls, card: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """There is nothing to restore."""
        return cls()
