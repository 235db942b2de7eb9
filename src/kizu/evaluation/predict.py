"""A fitted detector over a whole table of images: what comes back, in memory or streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from kizu.detectors.base import Detector
from kizu.errors import EmptyData
from kizu.evaluation.measure import Pixels, StreamedPixels, exact_pixels, fits_in_memory
from kizu.samples import Samples
from kizu.types import Batch, Progress

SAMPLED = 4096
"""Map values kept of each batch for the display range."""


@dataclass
class Seen:
    """What a detector said of the readable images. rows: their numbers in the table; scores (n,); p_values,
    flagged (n,) or None; maps (n, H, W), or None when they did not fit in memory and were streamed; sample:
    some map values; size (H, W)."""

    rows: list[int]
    scores: np.ndarray
    p_values: np.ndarray | None
    flagged: np.ndarray | None
    maps: np.ndarray | None
    streamed: StreamedPixels | None
    sample: np.ndarray
    size: tuple[int, int]
    errors: list[tuple[str, str]]

    def pixels(self, readable: Samples) -> Pixels:
        """Pixel metrics and curves for `measure`; `readable` is the table at `rows`."""
        if self.maps is not None:
            return exact_pixels(readable, self.maps)
        return self.streamed.result() if self.streamed else (None, None, 0)


def predict_all(
    detector: Detector,
    test: Samples,
    *,
    source: Iterable[Batch] | None = None,
    each: Callable[[list[int], np.ndarray], None] | None = None,
    progress: Progress | None = None,
) -> Seen:
    """Predict every image of `test`, from `source` when its batches are at hand already.

    each(rows, maps (B, H, W)) is called a batch as it comes. Raises EmptyData when none could be read.
    """
    row_of = {path: row for row, path in enumerate(test.paths)}
    errors: list[tuple[str, str]] = []
    rows: list[int] = []
    held: dict[str, list[np.ndarray]] = {
        "score": [],
        "p_value": [],
        "is_anomalous": [],
        "map": [],
        "sample": [],
    }
    streamed = None if fits_in_memory(len(test), detector.image_size) else StreamedPixels()
    for part in detector.predict_batches(test if source is None else source, errors=errors):
        numbers, maps = [row_of[path] for path in part.paths], part.map.numpy()
        rows += numbers
        held["score"].append(part.score.numpy())
        held["sample"].append(maps.reshape(-1)[:: max(maps.size // SAMPLED, 1)])
        if part.p_value is not None and part.is_anomalous is not None:
            held["p_value"].append(part.p_value.numpy())
            held["is_anomalous"].append(part.is_anomalous.numpy())
        if streamed:
            streamed.update(test.take(numbers), maps)
        else:
            held["map"].append(maps)
        if each:
            each(numbers, maps)
        if progress:
            progress(len(rows), "looking at test images")
    if not rows:
        raise EmptyData(
            f"None of the {len(test)} test images could be read; the first: {errors[0][0]}: {errors[0][1]}"
        )
    whole = {name: np.concatenate(values) if values else None for name, values in held.items()}
    scores, sample = whole["score"], whole["sample"]
    assert scores is not None  # rows is not empty
    assert sample is not None
    return Seen(
        rows,
        scores,
        whole["p_value"],
        whole["is_anomalous"],
        whole["map"],
        streamed,
        sample,
        detector.image_size,
        errors,
    )
