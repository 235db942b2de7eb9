"""Windows of an image, seen by an encoder one by one: what auto-encoders that learn from crops are scored
with."""

from __future__ import annotations

import torch
from torch import Tensor

from kizu.errors import ShapeError
from kizu.nn.windows import starts
from kizu.representations.base import Representation
from kizu.types import FeatureMaps


def corners(size: tuple[int, int], crop: int | None, stride: int) -> list[tuple[int, int]]:
    """(top, left) of windows of `crop` pixels, `stride` apart; the last of a row or column ends where the
    image ends. Without crop it is the image. Raises ShapeError for images smaller than a window.

    >>> corners((5, 4), 4, 3), corners((5, 4), None, 3)
    ([(0, 0), (1, 0)], [(0, 0)])
    """
    if crop is None:
        return [(0, 0)]
    if min(size) < crop:
        raise ShapeError(f"Images of {size} pixels are smaller than a window of {crop}: crop={min(size)}.")
    rows, columns = (starts(side, crop, stride) for side in size)
    return [(top, left) for top in rows for left in columns]


class Windowed(Representation):
    """An encoder's last level for each of n windows, and the image: [(B, n C, h, w), (B, 3, H, W)].

    Within a fitted detector only; no file holds it."""

    def __init__(self, encoder: Representation, crop: int | None = None, stride: int = 1) -> None:
        super().__init__()
        self.encoder, self.crop, self.stride = encoder, crop, stride
        self.channels, self.strides = (encoder.channels[-1], 3), (encoder.strides[-1], 1)
        self.card = {**encoder.card, "name": str(encoder.card["name"]), "kind": "windowed"}

    def forward(self, images: Tensor) -> FeatureMaps:
        """Images (B, 3, H, W) in [0, 1]. Raises ShapeError for images smaller than a window."""
        H, W = images.shape[2:]
        height, width = (self.crop, self.crop) if self.crop else (H, W)
        levels = [
            self.encoder(images[:, :, top : top + height, left : left + width])[-1]
            for top, left in corners((H, W), self.crop, self.stride)
        ]
        return [torch.cat(levels, dim=1), images]

    def for_inference(self, dtype: torch.dtype, device: torch.device) -> Representation:
        """The encoder as its kind bears it."""
        return Windowed(self.encoder.for_inference(dtype, device), self.crop, self.stride).eval()
