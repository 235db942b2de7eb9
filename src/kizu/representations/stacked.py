"""Stacked: the levels of several representations of the same images, one representation after the other."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from kizu import store
from kizu.errors import ModelFileError, UsageError
from kizu.representations.base import Representation
from kizu.representations.sources import from_card
from kizu.types import FeatureMaps


class Stacked(Representation):
    """Levels of all parts in turn: ReContrast scores with a trained and a frozen encoder so.

    Raises UsageError without parts.
    """

    def __init__(self, parts: list[Representation]) -> None:
        super().__init__()
        if not parts:
            raise UsageError("Stacked takes at least one representation.")
        self.parts = nn.ModuleList(parts)
        self.channels = tuple(width for part in parts for width in part.channels)
        self.strides = tuple(stride for part in parts for stride in part.strides)
        name = " | ".join(str(part.card["name"]) for part in parts)
        self.card = {"name": name, "kind": "stacked", "parts": [part.card for part in parts]}

    @property
    def offsets(self) -> tuple[float, ...]:
        """Those of the parts in turn."""
        return tuple(offset for part in self._each() for offset in part.offsets)

    def forward(self, images: Tensor) -> FeatureMaps:
        """Images (B, 3, H, W) in [0, 1] -> the levels of the first part, then those of the second, ..."""
        return [level for part in self.parts for level in part(images)]

    def state(self) -> dict[str, Tensor]:
        """What the parts must have stored, under their numbers."""
        return {
            f"{n}.{name}": value
            for n, part in enumerate(self._each())
            for name, value in part.state().items()
        }

    def sealed_card(self) -> dict[str, Any]:
        """The card, those of the parts sealed within it."""
        return {**self.card, "parts": [part.sealed_card() for part in self._each()]}

    @classmethod
    def from_card(cls, card: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Raises ModelFileError."""
        try:
            cards = list(card["parts"])
        except (KeyError, TypeError) as error:
            raise ModelFileError(
                f"The card of the stacked representation is incomplete ({error})."
            ) from error
        return cls([from_card(one, store.without_prefix(tensors, f"{n}.")) for n, one in enumerate(cards)])

    def for_inference(self, dtype: torch.dtype, device: torch.device) -> Stacked:
        """Each part as its kind bears it."""
        return Stacked([part.for_inference(dtype, device) for part in self._each()]).eval()

    def _each(self) -> list[Representation]:
        return [part for part in self.parts if isinstance(part, Representation)]
