"""Feature maps computed once for all cells of an experiment that have the same images and representation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psutil
import torch
from torch import Tensor

from kizu.detectors.base import Detector
from kizu.errors import EmptyData
from kizu.loader import Batches, batches
from kizu.reader import Errors
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
        self.digests: dict[str, str] = {}
        """What identifies images, by path, as far as it was asked for."""

    def batches(self, detector: Detector, samples: Samples, errors: Errors) -> Iterator[Batch]:
        """Batches of `samples` with their features, in row order; `errors` grows by (path, reason) of files
        that cannot be read.

        A detector for which features are not enough gets the images.
        """
        labels = torch.tensor(samples.labels)
        if not detector.takes_features:
            with _decoded(samples, detector) as loader:
                yield from (replace(batch, labels=labels[list(batch.rows)]) for batch in loader)
                errors += loader.errors
            return
        key = _key(detector)
        if key != self._key:
            self._key, self._maps, self._bytes = key, {}, 0
        extractor = detector.representation.inference_copy(detector.precision, detector.device)
        budget = MEMORY_SHARE * (psutil.virtual_memory().available + self._bytes)
        step = detector.batch_size
        for start in range(0, len(samples), step):
            paths = samples.paths[start : start + step]
            missing = [path for path in paths if path not in self._maps]
            fresh = {path: maps for path, maps in _computed(extractor, missing, detector, errors) if maps}
            for path, maps in fresh.items():
                if self._bytes < budget:
                    self._maps[path] = maps
                    self._bytes += sum(level.nbytes for level in maps)
            maps_of = {path: self._maps.get(path) or fresh.get(path) for path in paths}
            known = {path: maps for path, maps in maps_of.items() if maps}
            if known:
                features = [torch.stack(levels).float() for levels in zip(*known.values(), strict=True)]
                rows = tuple(start + row for row, path in enumerate(paths) if path in known)
                yield Batch(
                    features=features,
                    labels=labels[list(rows)],
                    paths=tuple(paths[row - start] for row in rows),
                    rows=rows,
                    size=detector.image_size,
                )

    def require(self, detector: Detector, samples: Samples, errors: Errors) -> list[Batch]:
        """All batches of a few images; `errors` as for `batches`. Raises EmptyData when none could be
        read."""
        parts = list(self.batches(detector, samples, errors))
        if not parts:
            raise EmptyData(f"None of the {len(samples)} images could be read.")
        return parts


def _key(detector: Detector) -> tuple[object, ...]:
    """What must be the same for features to be those of another detector."""
    return (
        digest(detector.representation),
        tuple(detector.representation.card.get("levels", ())),
        detector.image_size,
        detector.white_level,
        detector.roi,
        detector.precision,
        detector.device,
    )


def _decoded(images: Samples | list[str], detector: Detector) -> Batches:
    """The images as the detector looks at them."""
    return batches(
        images,
        image_size=detector.image_size,
        batch_size=detector.batch_size,
        on_error="collect",
        white_level=detector.white_level,
        roi=detector.roi,
    )


def _computed(
    extractor: object, paths: list[str], detector: Detector, errors: Errors
) -> Iterator[tuple[str, list[Tensor]]]:
    if not paths:
        return
    dtype = getattr(extractor, "dtype", torch.float32)
    with _decoded(paths, detector) as loader:
        for batch in loader:
            levels = [level.to(dtype).cpu() for level in extractor(batch.images)]  # type: ignore[operator]
            for row, path in enumerate(batch.paths):
                yield path, [level[row].clone() for level in levels]
        errors += loader.errors
