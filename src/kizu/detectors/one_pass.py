"""Detectors that are computed from the features of good images in one pass: memory banks and densities."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterable, Iterator

import torch

from kizu import engine
from kizu.detectors.base import Detector
from kizu.training import FitOptions
from kizu.types import Batch, FeatureMaps


class OnePassDetector(Detector):
    """A member writes `_reset`, `_partial_fit`, `_finalize`, `scorer`, `_state` and `_restore`, and nothing
    else."""

    @abstractmethod
    def _reset(self) -> None:
        """Forget what was learned."""

    @abstractmethod
    def _partial_fit(self, features: FeatureMaps) -> None:
        """Take in the features of some good images, as `_preprocess` leaves them."""

    @abstractmethod
    def _finalize(self) -> None:
        """What was learned becomes attributes ending in `_`."""

    def _preprocess(self, features: FeatureMaps) -> FeatureMaps:
        """What of the features is learned from: a pure function of each image, done in several threads."""
        return features

    def _learn(self, batches: Iterator[Batch], options: FitOptions) -> int:
        self._reset()
        seen = 0
        for count, features in self._consume(batches):
            self._partial_fit(features)
            seen += count
            if options.progress:
                options.progress(seen, "features of good images")
        if seen:
            if options.progress:
                options.progress(seen, "building the model")
            self._finalize()
        return seen

    def _consume(self, batches: Iterable[Batch]) -> Iterator[tuple[int, FeatureMaps]]:
        """(images, preprocessed features) of the batches in order, some of them computed ahead on a CPU."""
        batches = iter(batches)
        first = next(batches, None)
        if first is None:
            return
        if first.images is not None:
            self._warm_up()
        cpu = self._device.type == "cpu"
        every = itertools.chain([first], batches)
        parts = (
            part
            for batch in every
            for part in (batch.split(engine.chunk_size(len(batch))) if cpu else [batch])
        )
        yield from engine.imap_ordered(self._preprocessed, parts) if cpu else map(self._preprocessed, parts)

    @torch.inference_mode()
    def _preprocessed(self, batch: Batch) -> tuple[int, FeatureMaps]:
        return len(batch), self._preprocess(self._features(batch))
