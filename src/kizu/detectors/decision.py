"""The decision of a fitted detector, from scores of good parts that it has not seen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kizu import calibration, checks
from kizu.detectors._appearance import Appearance
from kizu.errors import ImageError, TooFewImages, UnknownName, UsageError
from kizu.images import image_shape
from kizu.types import Batch

METHODS = ("split", "cross")
FileSizes = tuple[int, int, int, int]
"""The least height and width of some files, and the largest, in pixels."""
SIZE_TOLERANCE = 1.25
"""A file whose sides lie within this factor of those of the calibration files counts as of their size."""


def file_sizes(paths: Sequence[str]) -> FileSizes | None:
    """Of image files; None without any."""
    shapes = [image_shape(path) for path in paths]
    if not shapes:
        return None
    heights, widths = zip(*shapes, strict=True)
    return min(heights), min(widths), max(heights), max(widths)


def other_size(batch: Batch, known: FileSizes) -> tuple[int, int] | None:
    """(H, W) of the first image whose sides, before it was resized, lie outside `known`, beyond the
    tolerance; paths that are no files are left aside."""
    least, most = known[:2], known[2:]
    for shape in batch.file_sizes or _shapes(batch.paths):
        if lies_outside(shape, least, most):
            return shape
    return None


def lies_outside(shape: tuple[int, int], least: tuple[int, ...], most: tuple[int, ...]) -> bool:
    """Whether a side lies outside these, beyond the tolerance."""
    return any(
        not low <= side * SIZE_TOLERANCE or not side <= high * SIZE_TOLERANCE
        for side, low, high in zip(shape, least, most, strict=True)
    )


def _shapes(paths: Sequence[str]) -> Iterator[tuple[int, int]]:
    for path in paths:
        with contextlib.suppress(ImageError):
            yield image_shape(path)


class Decision:
    """`score > threshold` calls a part anomalous.

    scores: (n,) of held-out good images. false_alarm_rate: what is promised, on average over calibration
    sets. groups: (n,) one label an image, equal for images of one part, which count once. method: how the
    images were held out, "split" (a promise) or "cross" (an estimate). map_range (low, high): map values that
    a heat map shows as its coldest and hottest colour. Raises TooFewImages when the groups cannot back the
    promise, or when all scores are equal; UnknownName for another method; UsageError for what is no number.

    threshold: the limit itself, named instead of a rate (`fixed`). Nothing is promised for it: its
    false_alarm_rate is the share of parts above it, with the new part counted as one of them, an estimate.

    >>> decision = Decision([0.3, 0.1, 0.2, 0.4], 0.25)
    >>> decision.threshold, decision.parts
    (0.4000000059604645, 4)
    """

    def __init__(
        self,
        scores: Any,
        false_alarm_rate: float | None,
        *,
        groups: calibration.Groups | None = None,
        method: str = "split",
        map_range: tuple[float, float] | None = None,
        threshold: float | None = None,
    ) -> None:
        if method not in METHODS:
            raise UnknownName("calibration method", method, METHODS)
        if (false_alarm_rate is None) == (threshold is None):
            raise UsageError("A decision takes a false-alarm rate or a threshold, one of the two.")
        self.scores, self.method, self.fixed = _single_precision(scores), method, threshold is not None
        if threshold is not None:
            checks.numbers(threshold=threshold)
            self.threshold = float(threshold)
            beyond = np.nextafter(self.threshold, np.inf)
            false_alarm_rate = float(calibration.p_values([beyond], self.scores, groups=groups)[0])
        else:
            assert false_alarm_rate is not None  # one of the two is there
            self.threshold = calibration.conformal_threshold(self.scores, false_alarm_rate, groups=groups)
        self.false_alarm_rate = float(false_alarm_rate)
        self.map_range = None if map_range is None else _range(map_range)
        self.groups = calibration.group_numbers(len(self.scores), groups)
        self.parts = int(self.groups.max()) + 1
        if len(self.scores) > 1 and self.scores.min() == self.scores.max():
            raise TooFewImages(
                f"All {len(self.scores)} calibration images have the score {self.threshold:g}: they are "
                "copies of one image, or the detector is blind to what differs. No decision can be built on "
                "that. Give images of different parts."
            )
        self.file_sizes: FileSizes | None = None
        """Of the files behind the scores, where they were files."""
        self.peaks: NDArray[np.float32] | None = None
        """(n,) the highest map value of each of the images, where that is known."""
        self.map_threshold: float | None = None
        """A map value that at most `false_alarm_rate` of good parts exceed anywhere: what is above it is a
        flaw region (kizu.regions). None where the maps of the calibration are not known."""
        self.appearance: Appearance | None = None
        """What good images look like as a whole, where that is known."""
        self.certified_rate: float | None = None
        if method == "split":
            self.certified_rate = calibration.certified_rate(self.scores, self.threshold, groups=self.groups)

    def __call__(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B,) of new images -> (p-values (B,), whether each is called anomalous (B,))."""
        values = calibration.p_values(scores, self.scores, groups=self.groups)
        return torch.from_numpy(values), scores.double() > self.threshold

    def set_peaks(self, peaks: Any) -> None:
        """Take the highest map values (n,) of the same images, in their order; `map_threshold` follows. It is
        of the rate that is promised, or of the estimate that goes with a named threshold."""
        self.peaks = _single_precision(peaks)
        if len(self.peaks) != len(self.scores):
            raise UsageError(
                f"There are {len(self.scores)} scores and {len(self.peaks)} peaks: one an image."
            )
        rate = min(self.false_alarm_rate, 1.0 - 1e-9)
        groups = self.groups.tolist()
        self.map_threshold = calibration.conformal_threshold(self.peaks, rate, groups=groups)

    @property
    def parts_above(self) -> int:
        """How many of the parts have an image above the threshold."""
        return len(np.unique(self.groups[self.scores > self.threshold]))

    def facts(self) -> dict[str, Any]:
        """What reports and JSON say of it.

        method, images, parts (how many groups), false_alarm_rate, certified_rate (of this very threshold,
        with 95 % confidence; None for "cross"), threshold, fixed (whether it was named), map_threshold,
        map_range, file_sizes."""
        return {
            "method": self.method,
            "images": len(self.scores),
            "parts": self.parts,
            "false_alarm_rate": self.false_alarm_rate,
            "certified_rate": self.certified_rate,
            "threshold": self.threshold,
            "fixed": self.fixed,
            "map_threshold": self.map_threshold,
            "map_range": self.map_range and list(self.map_range),
            "file_sizes": self.file_sizes and list(self.file_sizes),
        }

    def tensors(self) -> dict[str, Tensor]:
        """What a model file holds beside the facts."""
        return {
            "calibration.scores": torch.from_numpy(self.scores),
            "calibration.groups": torch.from_numpy(self.groups),
            **({} if self.peaks is None else {"calibration.peaks": torch.from_numpy(self.peaks)}),
            **(self.appearance.tensors() if self.appearance else {}),
        }


def _single_precision(scores: Any) -> NDArray[np.float32]:
    """Scores as they are kept; one beyond float32 is infinite there, and refused for it."""
    try:
        with np.errstate(over="ignore"):
            return np.asarray(scores, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"scores are numbers, one an image; got {scores!r:.80}.") from error


def _range(map_range: Any) -> tuple[float, float]:
    limits = np.asarray(map_range).tolist()
    if not isinstance(limits, list) or len(limits) != 2:
        raise UsageError(f"map_range is (low, high), got {map_range!r:.80}.")
    checks.numbers(map_range=limits[0])
    checks.numbers(least=limits[0], above=True, map_range=limits[1])
    return float(limits[0]), float(limits[1])
