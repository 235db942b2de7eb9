"""A fitted detector over a whole table of images: its predictions, in memory or streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from kizu.detectors.base import Detector
from kizu.errors import EmptyData
from kizu.evaluation.measure import Measured, Pixels, StreamedPixels, exact_pixels, fits_in_memory, measure
from kizu.roi import Roi
from kizu.samples import Samples
from kizu.types import Batch, Progress

SAMPLED = 4096
"""Map values kept of each batch for the display range."""


@dataclass(frozen=True)
class Predictions:
    """What a detector says of the n readable images of a table.

    rows: their numbers in the table. scores (n,) float32, higher is more anomalous. p_values (n,) and flagged
    (n,) bool: the decision, None before calibration. maps (n, H, W) float32, or None when they did not fit in
    memory and were streamed. sample: some map values. size: (H, W) of a map, in pixels. errors: (path,
    reason) of every image that could not be read. roi: of which the maps are. unlike (n,) bool, whether each
    looks like another product; None where that is not known."""

    rows: list[int]
    scores: np.ndarray
    p_values: np.ndarray | None
    flagged: np.ndarray | None
    maps: np.ndarray | None
    streamed: StreamedPixels | None
    sample: np.ndarray
    size: tuple[int, int]
    errors: list[tuple[str, str]]
    roi: Roi | None = None
    unlike: np.ndarray | None = None

    def measure(self, test: Samples) -> Measured:
        """All figures of these predictions; `test` is the table that was predicted."""
        readable = test.take(self.rows)
        return measure(readable, self.scores, self.flagged, self._pixels(readable))

    def take(self, places: np.ndarray) -> Predictions:
        """The predictions at these places (not rows of the table). Streamed maps cannot be divided: they are
        left out, and so are the pixel figures."""
        return replace(
            self,
            rows=[self.rows[place] for place in places],
            scores=self.scores[places],
            p_values=None if self.p_values is None else self.p_values[places],
            flagged=None if self.flagged is None else self.flagged[places],
            maps=None if self.maps is None else self.maps[places],
            unlike=None if self.unlike is None else self.unlike[places],
            streamed=None,
        )

    def _pixels(self, readable: Samples) -> Pixels:
        if self.maps is not None:
            return exact_pixels(readable, self.maps, self.roi)
        return self.streamed.result() if self.streamed else (None, None, 0)


def predict_all(
    detector: Detector,
    test: Samples,
    *,
    source: Iterable[Batch] | None = None,
    each: Callable[[list[int], np.ndarray], None] | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Predict every image of `test`; from `source`, if its batches are in memory already.

    each(rows, maps (B, H, W)) is called with every batch as it comes. Raises EmptyData when no image could be
    read."""
    row_of = {path: row for row, path in enumerate(test.paths)}
    errors: list[tuple[str, str]] = []
    rows: list[int] = []
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("score", "p_value", "is_anomalous", "map", "sample", "unlike")
    }
    streamed = None if fits_in_memory(len(test), detector.image_size) else StreamedPixels(detector.roi)
    for part in detector.predict_batches(test if source is None else source, errors=errors):
        numbers, maps = [row_of[path] for path in part.paths], part.map.numpy()
        rows += numbers
        parts["score"].append(part.score.numpy())
        parts["sample"].append(maps.reshape(-1)[:: max(maps.size // SAMPLED, 1)])
        if part.p_value is not None and part.is_anomalous is not None:
            parts["p_value"].append(part.p_value.numpy())
            parts["is_anomalous"].append(part.is_anomalous.numpy())
        if part.unlike is not None:
            parts["unlike"].append(part.unlike.numpy())
        if streamed:
            streamed.update(test.take(numbers), maps)
        else:
            parts["map"].append(maps)
        if each:
            each(numbers, maps)
        if progress:
            progress(len(rows), "predicting test images")
    if not rows:
        first = f"; the first: {errors[0][0]}: {errors[0][1]}" if errors else ""
        raise EmptyData(f"None of the {len(test)} test images could be read{first}")
    p_values, flagged, maps_or_none = (_joined(parts[name]) for name in ("p_value", "is_anomalous", "map"))
    scores, sample = np.concatenate(parts["score"]), np.concatenate(parts["sample"])
    return Predictions(
        *(rows, scores, p_values, flagged, maps_or_none, streamed, sample, detector.image_size, errors),
        roi=detector.roi,
        unlike=_joined(parts["unlike"]),
    )


def _joined(parts: list[np.ndarray]) -> np.ndarray | None:
    return np.concatenate(parts) if parts else None
