"""Detectors that are computed from the features of good images in one pass: memory banks and densities."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator

import torch

from kizu import engine
from kizu.detectors.base import Detector
from kizu.training import FitOptions
from kizu.types import Batch, FeatureMaps, Progress


class OnePassDetector(Detector):
    """A member writes `_reset`, `_partial_fit`, `_finalize`, `scorer`, `_state` and `_restore`, and nothing
    else."""

    _building: Callable[[int, int], None] | None = None
    """While the model is built, what takes long calls it with (done, of how many), unless it is None."""

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

    def _go_on(self) -> None:
        """After `_reset`: what was learned before is there again, for `_partial_fit` to add to. A member with
        this has `check_update` too."""

    def _learn(self, batches: Iterator[Batch], options: FitOptions) -> int:
        self._reset()
        return self._take_in(batches, options)

    def _update(self, batches: Iterator[Batch], options: FitOptions) -> int:
        self._reset()
        self._go_on()
        return self._take_in(batches, options)

    def _take_in(self, batches: Iterator[Batch], options: FitOptions) -> int:
        seen = 0
        for count, features in self._consume(batches):
            self._partial_fit(features)
            seen += count
            if options.progress:
                options.progress(seen, "features of good images")
        if seen:
            self._building = _share_built(seen, options.progress)
            try:
                self._finalize()
            finally:
                self._building = None
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


def _share_built(seen: int, progress: Progress | None) -> Callable[[int, int], None] | None:
    """Reports to `progress` that a model is being built from `seen` images, and how far; None without it."""
    if progress is None:
        return None
    progress(seen, "building the model")
    return lambda done, of: progress(seen, f"building the model, {100 * done // of} %")
