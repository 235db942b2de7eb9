"""Scores of good images that a detector has not learned from, and the decision that follows from them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kizu import calibration
from kizu.detectors._appearance import Appearance, describe
from kizu.detectors.decision import Decision, file_sizes
from kizu.errors import TooFewImages
from kizu.types import Batch, Prediction, Progress

SAMPLED = 4096
"""Map values that are kept of each batch."""
HIGHEST = 12
"""Images whose maps are kept."""


@dataclass(frozen=True)
class Scored:
    """What a detector says of n good images, all float32. scores: (n,). pixels: a few thousand map values.
    peaks: (n,) the highest map value of each. paths, digests: those that could be read. errors: (path,
    reason) of the others. looks: (n, WIDTH) what they look like, None where features came without images.
    maps: (H, W) of the HIGHEST highest scores, by path. rows: (n,) their numbers in the Samples, where these
    are known."""

    scores: NDArray[np.float32]
    pixels: NDArray[np.float32]
    peaks: NDArray[np.float32]
    paths: list[str]
    digests: list[str]
    errors: list[tuple[str, str]]
    looks: NDArray[np.float32] | None = None
    maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)


def score_batches(
    predict: Callable[[Iterator[Batch]], Iterator[Prediction]],
    batches: Iterator[Batch],
    errors: list[tuple[str, str]],
    progress: Progress | None = None,
) -> Scored:
    """The scores of batches of good images, by `predict`. errors: of whoever reads them."""
    scores, pixels, peaks = (list[NDArray[np.float32]]() for _ in range(3))
    paths, digests = list[str](), list[str]()
    looks: list[Tensor | None] = []
    rows: list[int] = []
    highest: list[tuple[float, str, NDArray[np.float32]]] = []

    def noted() -> Iterator[Batch]:
        for batch in batches:
            digests.extend(batch.digests)
            rows.extend(batch.rows)
            looks.append(None if batch.images is None else describe(batch.images))
            yield batch

    for part in predict(noted()):
        scores.append(part.score.numpy())
        peaks.append(part.map.flatten(1).amax(1).numpy())
        flat = part.map.flatten()
        pixels.append(flat[:: max(len(flat) // SAMPLED, 1)].numpy())
        paths += part.paths
        new = zip(part.score.tolist(), part.paths, part.map, strict=False)
        each = [*highest, *((score, path, map_.numpy()) for score, path, map_ in new)]
        highest = heapq.nlargest(HIGHEST, each, key=lambda one: one[:2])
        if progress:
            progress(sum(map(len, scores)), "scoring good images")
    seen = [one for one in looks if one is not None]
    return Scored(
        _joined_values(scores),
        _joined_values(pixels),
        _joined_values(peaks),
        paths,
        digests,
        errors,
        torch.cat(seen).numpy() if seen and len(seen) == len(looks) else None,
        {path: map_.copy() for _, path, map_ in highest},
        rows,
    )


def _joined_values(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def decision_of(
    parts: Sequence[Scored],
    groups: Sequence[object] | None,
    *,
    false_alarm_rate: float | None = None,
    threshold: float | None = None,
    method: str = "split",
    earlier: Decision | None = None,
) -> Decision:
    """The decision that scores of good images give, with the display range of heat maps: its middle is a good
    part's peak at the promised rate.

    parts: of one detector, or of one a fold. groups: one label an image, in the order of the parts; None:
    each image is a part. false_alarm_rate: None asks for DEFAULT_RATE, or for the smallest rate that the
    images can back. threshold: named instead of a rate. earlier: a decision whose scores count too, with its
    own groups. Raises TooFewImages."""
    scores = np.concatenate([part.scores for part in parts])
    if not len(scores):
        raise TooFewImages("None of the calibration images could be read.")
    if len(scores) > len(parts) and all(np.ptp(part.scores) == 0 for part in parts if len(part.scores)):
        raise TooFewImages(
            f"The {len(scores)} calibration images have one and the same score in each fold: they are copies "
            "of one image, or the detector is blind to what differs. No decision can be built on that."
        )
    numbers = calibration.group_numbers(len(scores), groups)
    sizes = file_sizes([path for part in parts for path in part.paths if path])
    looks = [part.looks for part in parts if part.looks is not None]
    appearance = Appearance(np.concatenate(looks), numbers) if len(looks) == len(parts) else None
    if earlier is not None:
        scores = np.concatenate([earlier.scores, scores])
        appearance = _joined(earlier.appearance, appearance)
        numbers = np.concatenate([earlier.groups, numbers + earlier.parts])
        sizes = _wider(earlier.file_sizes, sizes)
    if false_alarm_rate is None and threshold is None:
        most = int(numbers.max()) + 1
        false_alarm_rate = max(calibration.DEFAULT_RATE, calibration.smallest_rate(most))
    decision = Decision(scores, false_alarm_rate, groups=numbers.tolist(), method=method, threshold=threshold)
    decision.map_range = _display(parts, decision.false_alarm_rate)
    decision.file_sizes, decision.appearance = sizes, appearance
    peaks = [part.peaks for part in parts]
    if earlier is None or earlier.peaks is not None:
        earlier_peaks = [] if earlier is None or earlier.peaks is None else [earlier.peaks]
        decision.set_peaks(np.concatenate([*earlier_peaks, *peaks]))
    return decision


def _display(parts: Sequence[Scored], rate: float) -> tuple[float, float]:
    low = float(np.median(np.concatenate([part.pixels for part in parts])))
    middle = float(np.quantile(np.concatenate([part.peaks for part in parts]), max(1.0 - rate, 0.0)))
    return low, low + 2.0 * max(middle - low, 1e-6 * max(abs(middle), 1e-6))


def _joined(first: Appearance | None, second: Appearance | None) -> Appearance | None:
    if first is None or second is None:
        return None
    groups = np.concatenate([first.groups, second.groups + first.groups.max() + 1])
    return Appearance(np.concatenate([first.descriptions, second.descriptions]), groups)


def _wider(
    first: tuple[int, int, int, int] | None, second: tuple[int, int, int, int] | None
) -> tuple[int, int, int, int] | None:
    if first is None or second is None:
        return first or second
    least, most = np.minimum(first, second).tolist(), np.maximum(first, second).tolist()
    return (least[0], least[1], most[2], most[3])
