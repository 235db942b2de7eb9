"""What a projector learns from: features of a frozen representation minus the nearest ones of good images."""

from __future__ import annotations

from typing import Any

import psutil
import torch
from torch import Tensor

from kizu.neighbours.matching import minus_nearest
from kizu.nn.patches import from_rows, to_rows
from kizu.representations.base import InferenceCopy, Representation
from kizu.training.sample_store import MEMORY_SHARE
from kizu.types import FeatureMaps


class FrozenFeatures:
    """Features of a representation that is not trained; those of reference images are computed once and kept,
    as long as a quarter of the memory that was free at first holds them.

    precision: "fp32" or "bf16". budget: bytes, instead of that quarter."""

    def __init__(self, base: Representation, precision: str, budget: int | None = None) -> None:
        self.base, self._precision, self._budget = base, precision, budget
        self._copy: InferenceCopy | None = None
        self._kept: dict[int, list[Tensor]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenFeatures:
        """Itself: nothing of it is trained."""
        return self

    def __contains__(self, number: object) -> bool:
        return number in self._kept

    def __call__(self, images: Tensor) -> FeatureMaps:
        """Images (B, 3, H, W) in [0, 1] -> [(B, C_l, h_l, w_l)] float32, on the device of the images."""
        if self._copy is None or self._copy.device != images.device:
            self._copy = self.base.inference_copy(self._precision, str(images.device))
        return self._copy(images)

    def rows(self, number: int, image: Tensor | None) -> list[Tensor]:
        """[(h_l w_l, C_l)] of the reference image of that number: those that are kept, or of `image`
        (3, H, W)."""
        if number in self._kept:
            return self._kept[number]
        if image is None:
            raise KeyError(f"Reference {number} is neither kept nor given.")
        levels = [to_rows(level).clone() for level in self(image[None])]
        if self._budget is None:
            self._budget = int(_free_memory(image.device) * MEMORY_SHARE)
        size = sum(level.nbytes for level in levels)
        if size <= self._budget:
            self._budget -= size
            self._kept[number] = levels
        return levels


def residuals(features: FeatureMaps, banks: list[list[Tensor]], matching: str) -> FeatureMaps:
    """[(V B, C_l, h_l, w_l)], V views of B images -> each feature minus the nearest row of its image's bank.

    banks: of each image, [(N_l, C_l)] a level. matching: "l2" distance or "cosine" similarity; in both cases
    the row is subtracted as it is (kizu.representations.residual, of which this is the form for many
    banks)."""
    count = len(banks)
    found = []
    for number, level in enumerate(features):
        out = torch.empty_like(level)
        for image, bank in enumerate(banks):
            views = level[image::count]
            out[image::count] = from_rows(minus_nearest(to_rows(views), bank[number], matching), views)
        found.append(out)
    return found


def _free_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
