"""The batches that a projector learns from: images with masks, planted defects, and their references."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kizu.errors import EmptyData
from kizu.pretraining._labelled import LabelledImages
from kizu.pretraining._residuals import FrozenFeatures
from kizu.pretraining.data import Turns
from kizu.training import Position
from kizu.views.cutpaste import cutpaste
from kizu.views.perlin import perlin
from kizu.views.smooth_blend import smooth_blend

PLANTS = ("none", "smooth_blend", "cutpaste", "perlin")
REFERENCE_SEED, PLANT_SEED, SHOTS_SEED = 1, 2, 3
"""Added to the seed of a run, for what is drawn beside the views."""


class Queries:
    """The stream of the training of a projector: images of the data sets in turn, each pass in a new order.

    data: the images. features: of the frozen representation; reference images whose features it keeps are
    not read again. shots: numbers of references to draw from, for each image, or for all of a step
    (per_step). plant: "none", or the view that plants a defect in good images of categories without anomalous
    ones, in `plant_share` of them (perlin takes its texture from another image of the data)."""

    def __init__(
        self,
        data: LabelledImages,
        features: FrozenFeatures,
        *,
        shots: tuple[int, ...],
        per_step: bool,
        plant: str,
        plant_share: float,
        seed: int,
    ) -> None:
        self.data, self.features, self.shots, self.per_step = data, features, shots, per_step
        self.plant, self.plant_share, self.seed = plant, plant_share, seed
        self._turns = Turns([len(table) for table in data.tables], seed)
        self._bare = data.without_anomalies
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="kizu-images")

    @property
    def skipped(self) -> dict[str, str]:
        """Files that could not be read, with the reason."""
        return self.data.skipped

    def __call__(self, position: Position) -> dict[str, Tensor]:
        """images (B, 3, S, S) in [0, 1], masks (B, S, S) bool, references (B, K) numbers, -1 where an image
        has fewer; and those of the references whose features are not kept: new (R,) numbers, new_images
        (R, 3, S, S) uint8."""
        places = range(position.first, position.first + position.count)
        drawn = list(self._pool.map(self._query, places))
        draws = position.generators(self.seed + REFERENCE_SEED)
        chosen = [
            self.data.references(number, self._count(place, position.step), draw, self.features)
            for place, (number, _), draw in zip(places, drawn, draws, strict=True)
        ]
        new = {one: image for found in chosen for one, image in found.items() if image is not None}
        side = self.data.side
        empty = torch.zeros(0, 3, side, side, dtype=torch.uint8)
        images, masks = self._planted(
            torch.stack([image for _, image in drawn]), [number for number, _ in drawn], position
        )
        references = torch.full((position.count, max(self.shots)), -1)
        for row, found in enumerate(chosen):
            references[row, : len(found)] = torch.tensor(list(found))
        return {
            "images": images,
            "masks": masks,
            "references": references,
            "new": torch.tensor(list(new), dtype=torch.int64),
            "new_images": torch.stack([_planes(image) for image in new.values()]) if new else empty,
        }

    def _query(self, place: int) -> tuple[int, Tensor]:
        """(number, (3, S, S) uint8) of a place in the sequence, or of the next image that can be read."""
        which, row = self._turns(place)
        count, start = len(self.data.tables[which]), int(self.data.starts[which])
        for offset in range(count):
            number = start + (row + offset) % count
            image = self.data.image(number)
            if image is not None:
                return number, _planes(image)
        raise EmptyData(f"None of the {count} images of a data set can be read: {self.data.paths[start]}.")

    def _count(self, place: int, step: int) -> int:
        """How many references an image gets."""
        number = step if self.per_step else place
        (draws,) = Position(0, number, 1).generators(self.seed + SHOTS_SEED)
        return self.shots[int(torch.randint(len(self.shots), (), generator=draws))]

    def _planted(self, images: Tensor, numbers: list[int], position: Position) -> tuple[Tensor, Tensor]:
        """uint8 images as floats, some with a planted defect; and their masks."""
        floats = images.float().div_(255.0)
        masks = torch.stack([self.data.mask(number) for number in numbers])
        if self.plant == "none":
            return floats, masks
        for row, draws in enumerate(position.generators(self.seed + PLANT_SEED)):
            chosen = float(torch.rand((), generator=draws)) < self.plant_share
            if chosen and self._bare[numbers[row]]:
                view, mask = self._plant(floats[row : row + 1], numbers[row], draws)
                floats[row], masks[row] = view[0], mask[0]
        return floats, masks

    def _plant(self, image: Tensor, number: int, draws: torch.Generator) -> Any:
        """The image (1, 3, S, S) of that number with a defect, and its mask (1, S, S)."""
        if self.plant == "perlin":
            step = 1 + int(torch.randint(len(self.data) - 1, (), generator=draws))
            number = (number + step) % len(self.data)
            found = self.data.image(number)
            texture = image.flip(2, 3) if found is None else _planes(found)[None].float().div_(255.0)
            return perlin(image, texture, generator=draws, return_mask=True)
        if self.plant == "cutpaste":
            return cutpaste(image, generator=draws, return_mask=True)
        return smooth_blend(image, generator=draws, return_mask=True)


def _planes(image: np.ndarray) -> Tensor:
    """(S, S, 3) uint8 -> (3, S, S)."""
    return torch.from_numpy(image).permute(2, 0, 1)
