"""The good images of a fit, kept for many passes in any order: 8 bits a value where nothing is lost by it,
from disk past a budget."""

from __future__ import annotations

import functools

import psutil
import torch
from torch import Tensor

from kizu.detectors._inputs import as_batches
from kizu.errors import ShapeError, UsageError
from kizu.images import open_image
from kizu.training import Position
from kizu.types import Batch

MEMORY_SHARE = 0.25
"""Of the memory free at the beginning; images past it are decoded again each time, when they came from files.
"""


class StoredImages:
    """Images by number. `stream` gives the endless shuffled sequence of a training run."""

    def __init__(self, budget: int | None = None) -> None:
        self._budget = int(psutil.virtual_memory().available * MEMORY_SHARE) if budget is None else budget
        self._held: list[Tensor | str] = []
        self.size: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self._held)

    def add(self, batch: Batch) -> Batch:
        """Keep a batch; it comes back without the features it may carry. Raises ShapeError for another size,
        UsageError without images."""
        images = batch.images
        if batch.features is not None:
            if images.numel() and not any(images.stride()):
                raise UsageError(
                    "This detector learns from images; the batches carry features of images that are not "
                    "there."
                )
            batch = next(
                iter(as_batches([Batch(images, batch.paths, batch.rows)], self.size, len(batch), []))
            )
        size = (int(images.shape[2]), int(images.shape[3]))
        if self._held and size != self.size:
            raise ShapeError(
                f"All images must have one size: {self.size} so far, then {size}. Resize them, or give their "
                "paths."
            )
        self.size = size
        for row, image in enumerate(_smallest(batch.images)):
            self._budget -= image.nbytes
            self._held.append(batch.paths[row] if self._budget < 0 and batch.paths else image.clone())
        return batch

    def take(self, numbers: list[int]) -> Tensor:
        """(B, 3, H, W) float32 in [0, 1], bit for bit as they came."""
        return torch.stack([self._one(number) for number in numbers])

    def stream(self, position: Position, *, seed: int) -> Tensor:
        """The images of a position in the run: every image once in a pass, in a new order each pass."""
        places = range(position.first, position.first + position.count)
        return self.take(
            [int(_order(len(self), seed, place // len(self))[place % len(self)]) for place in places]
        )

    def _one(self, number: int) -> Tensor:
        held = self._held[number]
        if isinstance(held, str):
            held = torch.from_numpy(open_image(held, size=self.size)).permute(2, 0, 1)
        return held.float().div_(255.0) if held.dtype == torch.uint8 else held


def _smallest(images: Tensor) -> Tensor:
    """As uint8 when that gives back the very same floats, else as they are."""
    whole = (images * 255.0).round()
    return whole.to(torch.uint8) if torch.equal(whole.div(255.0), images) else images


@functools.lru_cache(maxsize=4)
def _order(count: int, seed: int, turn: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + turn))
