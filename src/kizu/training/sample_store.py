"""The samples of a fit, kept for many passes in any order: in memory as small as loses nothing, past a budget
on disk."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from kizu.errors import ShapeError
from kizu.images import floats_digest, image_digest, open_image
from kizu.roi import Roi, open_region
from kizu.training.prefetch import Position
from kizu.types import Batch, FeatureMaps

MEMORY_SHARE = 0.25
"""Of the memory free at the beginning; samples past it are read from their files again each time."""


@dataclass
class _Sample:
    """values: the image (3, H, W), its features [(C_l, h_l, w_l)], or None: to be read from `path` again."""

    values: Tensor | list[Tensor] | None
    path: str
    label: int
    mask: Tensor | None


class SampleStore:
    """Images by number, or, with `extract`, their features; `stream` is the endless shuffled sequence of a
    training.

    extract: images (B, 3, H, W) -> FeatureMaps, for batches that come without features. dtype: in which
    features are kept (bfloat16 when they were computed so). budget: bytes, a quarter of the free memory
    unless given. white_level, roi: with which files are read again."""

    def __init__(
        self,
        extract: Callable[[Tensor], FeatureMaps] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        budget: int | None = None,
        white_level: int | None = None,
        roi: Roi | None = None,
    ) -> None:
        self._extract, self._dtype, self._white_level, self._roi = extract, dtype, white_level, roi
        self._budget = int(psutil.virtual_memory().available * MEMORY_SHARE) if budget is None else budget
        self._samples: list[_Sample] = []
        self.size: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def labels(self) -> Tensor:
        """(n,) int64: 0 good, 1 anomalous, -1 unknown."""
        return torch.tensor([sample.label for sample in self._samples], dtype=torch.int64)

    def add(self, batch: Batch) -> None:
        """Keep a batch. Raises ShapeError for another size than before, UsageError for features where images
        are needed."""
        if self._samples and batch.size != self.size:
            raise ShapeError(
                f"All images must have one size: {self.size} so far, then {batch.size}. Resize them, or give "
                "their paths."
            )
        self.size = batch.size
        if self._extract is None:
            values: list[Tensor | list[Tensor]] = [
                image.clone() for image in _smallest(batch.require_images())
            ]
        else:
            levels = [level.to("cpu", self._dtype) for level in features_of(batch, self._extract)]
            values = [[level[row].clone() for level in levels] for row in range(len(batch))]
        for row, value in enumerate(values):
            self._budget -= (
                value.nbytes if isinstance(value, Tensor) else sum(level.nbytes for level in value)
            )
            path = batch.paths[row] if batch.paths else ""
            label = -1 if batch.labels is None else int(batch.labels[row])
            mask = None if batch.masks is None else batch.masks[row].clone()
            self._samples.append(_Sample(None if self._budget < 0 and path else value, path, label, mask))

    def take(self, numbers: list[int]) -> Batch:
        """Samples by number, images bit for bit as they came."""
        chosen = [self._samples[number] for number in numbers]
        values = [self._values(sample) for sample in chosen]
        images = features = None
        if self._extract is None:
            images = torch.stack([value for value in values if isinstance(value, Tensor)])
        else:
            features = [torch.stack(same).float() for same in zip(*values, strict=True)]
        masks = [sample.mask for sample in chosen if sample.mask is not None]
        return Batch(
            images,
            features,
            torch.tensor([sample.label for sample in chosen]),
            torch.stack(masks) if len(masks) == len(chosen) else None,
            tuple(sample.path for sample in chosen),
            size=self.size,
        )

    def good(self) -> SampleStore:
        """Those that are not labelled anomalous, in a store that shares them with this one."""
        store = SampleStore(
            self._extract,
            dtype=self._dtype,
            budget=self._budget,
            white_level=self._white_level,
            roi=self._roi,
        )
        store._samples, store.size = [sample for sample in self._samples if sample.label != 1], self.size
        return store

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All samples once, in the order in which they came."""
        for start in range(0, len(self), batch_size):
            yield self.take(list(range(start, min(start + batch_size, len(self)))))

    def stream(self, position: Position, *, seed: int) -> dict[str, Tensor | list[Tensor]]:
        """The samples at a position of the run: every one once in a pass, in a new order each pass.

        "images" (B, 3, H, W) or "features", a list of levels; "numbers" (B,) of the samples; "labels" (B,);
        "masks" (B, H, W) where all have one."""
        places = range(position.first, position.first + position.count)
        numbers = [int(_order(len(self), seed, n // len(self))[n % len(self)]) for n in places]
        batch = self.take(numbers)
        named = {
            "numbers": torch.tensor(numbers),
            "images": batch.images,
            "features": batch.features,
            "labels": batch.labels,
            "masks": batch.masks,
        }
        return {name: value for name, value in named.items() if value is not None}

    def digests(self) -> list[str]:
        """What identifies each image: the decoded file, or the numbers where there was no file."""
        return [
            image_digest(sample.path) if sample.path else _tensor_digest(self._values(sample))
            for sample in self._samples
        ]

    def _opened(self, path: str) -> NDArray[np.uint8]:
        """(H, W, 3) of a file, as it was when it came."""
        if self._roi is not None:
            return open_region(path, self._roi, size=self.size, white_level=self._white_level)
        return open_image(path, size=self.size, white_level=self._white_level)

    def _values(self, sample: _Sample) -> Tensor | list[Tensor]:
        values = sample.values
        if values is None:
            image = torch.from_numpy(self._opened(sample.path)).permute(2, 0, 1)
            if self._extract is None:
                return image.float().div_(255.0)
            return [
                level[0].to("cpu", self._dtype) for level in self._extract(image[None].float().div_(255.0))
            ]
        if isinstance(values, Tensor) and values.dtype == torch.uint8:
            return values.float().div_(255.0)
        return values


def features_of(batch: Batch, extract: Callable[[Tensor], FeatureMaps]) -> FeatureMaps:
    """The features that a batch carries, else those of its images."""
    return batch.features if batch.features is not None else extract(batch.require_images())


def _smallest(images: Tensor) -> Tensor:
    """As uint8 when that gives back the very same floats, else as they are."""
    whole = (images * 255.0).round()
    return whole.to(torch.uint8) if torch.equal(whole.div(255.0), images) else images


def _tensor_digest(values: Tensor | list[Tensor]) -> str:
    if isinstance(values, Tensor):
        return floats_digest(values.float().contiguous().numpy())
    total = hashlib.sha256()
    for tensor in values:
        total.update(f"{tuple(tensor.shape)}".encode() + tensor.float().contiguous().numpy().tobytes())
    return total.hexdigest()[:32]


@functools.lru_cache(maxsize=4)
def _order(count: int, seed: int, turn: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + turn))
