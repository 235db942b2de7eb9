"""Feature maps computed once for all cells of an experiment that look at the same images through the same
representation."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import torch
from torch import Tensor

from kizu.detectors.base import Detector
from kizu.errors import EmptyData
from kizu.loader import batches
from kizu.representations.weights import digest
from kizu.samples import Samples
from kizu.types import Batch

MEMORY_SHARE = 0.35


class FeatureCache:
    """Maps by image path, in the precision in which they were computed (bf16 stays bf16: nothing is lost).

    One cache serves one (representation, image size, precision); asked for another, it forgets and begins
    again. Images past the memory budget are computed anew each time."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._maps: dict[str, list[Tensor]] = {}
        self._bytes = 0

    def batches(self, detector: Detector, samples: Samples) -> Iterator[Batch]:
        """Batches of `samples` with their features, in row order; files that cannot be read are left out.

        A detector that needs the images themselves gets them, without features.
        """
        if detector.needs_images:
            with batches(
                samples, image_size=detector.image_size, batch_size=detector.batch_size, on_error="collect"
            ) as loader:
                yield from loader
            return
        levels = tuple(detector.representation.card.get("levels", ()))
        key = (
            digest(detector.representation),
            levels,
            detector.image_size,
            detector.precision,
            detector.device,
        )
        if key != self._key:
            self._key, self._maps, self._bytes = key, {}, 0
        frozen = detector.representation.frozen(detector.precision, detector.device)
        budget = MEMORY_SHARE * (psutil.virtual_memory().available + self._bytes)
        size = torch.zeros(1).expand(detector.batch_size, 3, *detector.image_size)
        step = detector.batch_size
        for start in range(0, len(samples), step):
            paths = samples.paths[start : start + step]
            missing = [path for path in paths if path not in self._maps]
            fresh = {path: maps for path, maps in _computed(frozen, missing, detector) if maps}
            for path, maps in fresh.items():
                if self._bytes < budget:
                    self._maps[path] = maps
                    self._bytes += sum(level.nbytes for level in maps)
            found = {path: self._maps.get(path) or fresh.get(path) for path in paths}
            known = {path: maps for path, maps in found.items() if maps}
            if known:
                features = [torch.stack(levels).float() for levels in zip(*known.values(), strict=True)]
                yield Batch(size[: len(known)], tuple(known), features=features)

    def require(self, detector: Detector, samples: Samples) -> list[Batch]:
        """All batches of a few images. Raises EmptyData when none could be read."""
        found = list(self.batches(detector, samples))
        if not found:
            raise EmptyData(f"None of the {len(samples)} images could be read.")
        return found


def _computed(frozen: object, paths: list[str], detector: Detector) -> Iterator[tuple[str, list[Tensor]]]:
    if not paths:
        return
    dtype = getattr(frozen, "dtype", torch.float32)
    with batches(
        paths, image_size=detector.image_size, batch_size=detector.batch_size, on_error="collect"
    ) as loader:
        for batch in loader:
            levels = [level.to(dtype).cpu() for level in frozen(batch.images)]  # type: ignore[operator]
            for row, path in enumerate(batch.paths):
                yield path, [level[row].clone() for level in levels]
