"""What good images look like as a whole, and whether new ones look like them: not for flaws, which are small,
but for another product, another place of the camera, another light.

The description of an image is coarse: the mean colour and the mean absolute gradients of 8 x 8 cells. Its
distance from the nearest good image of another part is compared with the same distances among the good images
(nearest-neighbour conformal anomaly detection: Laxhammar and Falkman 2010, with each good image left out in
turn). An image is *unlike* them beyond the distance that a twentieth of the good images pass."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kizu.store import expect

CELLS = 8
WIDTH = 5 * CELLS * CELLS
MOST = 1024
"""Good images that are kept."""
SHARE = 20
"""One of so many good images lies beyond the limit."""


def describe(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, WIDTH) float32: red, green, blue, and the absolute differences of grey
    values along rows and columns, each the mean over a cell.

    >>> describe(torch.full((1, 3, 16, 16), 0.5)).unique().tolist()
    [0.0, 0.5]
    """
    images = images.detach().float().cpu()
    grey = images.mean(1, keepdim=True)
    across = functional.pad((grey[..., 1:] - grey[..., :-1]).abs(), (0, 1))
    down = functional.pad((grey[..., 1:, :] - grey[..., :-1, :]).abs(), (0, 0, 0, 1))
    return functional.adaptive_avg_pool2d(torch.cat([images, across, down], dim=1), CELLS).flatten(1)


class Appearance:
    """Descriptions (n, WIDTH) of good images that the model has not learned from, and the limit that follows.

    groups: (n,) equal for images of one part, which are no measure of how far two parts differ. Beyond MOST
    images every second, third, ... is kept. limit: the distance that `above` of the `parts` lie beyond;
    infinite where there are fewer than 2 parts."""

    def __init__(self, descriptions: NDArray[np.float32], groups: NDArray[np.int64]) -> None:
        step = -(-len(descriptions) // MOST)
        self.descriptions = np.ascontiguousarray(descriptions[::step], dtype=np.float32)
        self.groups = np.ascontiguousarray(groups[::step], dtype=np.int64)
        blocks = self.descriptions.reshape(len(self.descriptions), 5, -1).astype(np.float64)
        self._scale = np.repeat(np.maximum(blocks.std(0).mean(1), 1e-3), blocks.shape[2])
        self._known = self.descriptions / self._scale
        self.parts = len(np.unique(self.groups))
        self.above = self.parts // SHARE
        self.limit = self._limit() if self.parts > 1 else float("inf")

    def unlike(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B,) bool: whether each lies beyond the limit."""
        rows = describe(images).double().numpy() / self._scale
        return torch.from_numpy(_distances(rows, self._known).min(1) > self.limit)

    def tensors(self) -> dict[str, Tensor]:
        """As a model file has it."""
        return {
            "appearance.descriptions": torch.from_numpy(self.descriptions),
            "appearance.groups": torch.from_numpy(self.groups),
        }

    @classmethod
    def restored(cls, where: object, tensors: dict[str, Tensor]) -> Appearance | None:
        """Of a model file; None where it has none. Raises ModelFileError."""
        if "appearance.descriptions" not in tensors:
            return None
        expect(str(where), tensors, {"appearance.descriptions": f"n {WIDTH}", "appearance.groups": "n"})
        described = tensors["appearance.descriptions"].float().numpy()
        return cls(described, tensors["appearance.groups"].long().numpy()) if len(described) else None

    def _limit(self) -> float:
        """The (above + 1)-th largest distance of a part; of a part with several images the largest counts."""
        distances = _distances(self._known, self._known)
        distances[self.groups[:, None] == self.groups[None]] = np.inf
        nearest = distances.min(1)
        numbers = np.unique(self.groups, return_inverse=True)[1]
        of_part = np.zeros(self.parts)
        np.maximum.at(of_part, numbers, nearest)
        return float(np.sort(of_part)[-1 - self.above])


def _distances(rows: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, D), (m, D) -> (n, m) Euclidean."""
    squared = (rows**2).sum(1)[:, None] + (others**2).sum(1) - 2.0 * rows @ others.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))
