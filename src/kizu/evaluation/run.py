"""Evaluate a fitted detector on labelled images and write a run folder: all that reports ever read.

The run folder:

    run.json         what was run: detector, parameters, representation, data, protocol, seed, counts,
                     calibration, seconds, versions, notes, warnings
    samples.parquet  one row a test image: row, image, mask, label, category, defect, split, group, dataset,
                     score, p_value, is_anomalous
    maps.npz         key str(row): float16 (H, W); times the entry "scale" it is the raw map (scale is a power
                     of two, so that only rounding is lost)
    images/, masks/  thumbnails of the test images; masks at the size of the maps
    metrics.json     image, pixel, decision, by_defect, and, where there are several categories, each of them
                     and their mean; null where a figure is not defined
    curves.json      ROC, PR and PRO curves, thinned to true operating points
    log.jsonl        what happened when
"""

from __future__ import annotations

import functools
import json
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from kizu import store
from kizu.detectors.base import Detector
from kizu.errors import UsageError, counted
from kizu.evaluation.by_category import by_category
from kizu.evaluation.measure import Measured
from kizu.evaluation.predict import Predictions, predict_all
from kizu.evaluation.promises import doubts
from kizu.evaluation.seen import refuse_all_seen, refuse_trained_on, seen_rows, was_trained_on
from kizu.images import open_image
from kizu.loader import masks_for
from kizu.roi import open_region
from kizu.samples import Samples
from kizu.types import Progress

THUMBNAIL = 320
HEADROOM = 1024.0
"""float16 reaches 65,504: the first batch's largest value is stored at about this, which leaves a factor 64
above it."""


@dataclass
class Run:
    """What run.json says beside what the detector knows itself; `evaluate` fills in seconds, errors, warnings
    (what makes the figures doubtful), seen (whether figures are made of images that the model has seen) and
    left_out (how many such images were not used)."""

    name: str
    protocol: str = "one_class"
    seed: int = 0
    dataset: str = ""
    category: str = ""
    command: str = ""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    errors: list[tuple[str, str]] = field(default_factory=list)
    write_images: bool = True
    allow_seen: bool = False
    seen: bool = False
    left_out: int = 0


def evaluate(
    detector: Detector,
    test: Samples,
    out: Path | str,
    run: Run,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Predict, measure and write the run folder `out` (whole or not at all); returns what metrics.json holds.

    Images that cannot be read are left out of the numbers and listed in run.json; so are images that the
    model was fitted or calibrated on, or its representation trained or adapted on, unless the run says
    allow_seen. Raises OutputExists, EmptyData when no labelled image can be read, UsageError when `test` has
    no labels, when no unseen good image is left, or when the representation was trained on a data set of this
    name."""
    labelled = test.take(np.flatnonzero(test.labels >= 0))
    if not len(labelled):
        raise UsageError(
            "Evaluation needs labelled images (label 0 or 1), got none. `kizu inspect` is for images without "
            "labels."
        )
    labelled = _unseen(detector, labelled, run, progress)
    with store.replacing_folder(out, record="run.json", overwrite=overwrite) as folder:
        log = _Log(folder / "log.jsonl")
        log("start", images=len(labelled))
        started = time.perf_counter()
        predictions = _predict(detector, labelled, folder, run, progress)
        run.seconds["predict"], run.errors = time.perf_counter() - started, run.errors + predictions.errors
        log("predicted", images=len(predictions.rows), unreadable=len(predictions.errors))
        if progress:
            progress(len(predictions.rows), "measuring")
        started = time.perf_counter()
        measured = predictions.measure(labelled)
        measured.metrics.update(by_category(labelled, predictions))
        run.seconds["measure"] = time.perf_counter() - started
        run.notes += _undefined(measured.metrics["images"])
        good = labelled.labels[predictions.rows] == 0
        run.warnings += doubts(detector.decision_, good, predictions.flagged, predictions.unlike)
        run.notes += _without_mask(labelled, measured.metrics)
        log("measured", **(measured.metrics["image"] or {}))
        _write(folder, detector, labelled, predictions, measured, run)
        log("done")
    return measured.metrics


def _without_mask(labelled: Samples, metrics: dict[str, Any]) -> list[str]:
    """Which flawed images no pixel figure counts, where some have masks."""
    count = metrics["images"]["without_mask"]
    if not count or labelled.table["mask"].is_null().all():
        return []
    which = counted(count, "flawed image has", "flawed images have")
    return [
        f"{which} no mask, or one that marks nothing at the size of the maps: no pixel figure counts them"
    ]


def _undefined(images: dict[str, int]) -> list[str]:
    """Why figures are null where only one class was measured."""
    both = "image AUROC, AP, F1 and accuracy"
    if not images["normal"]:
        return [f"there is no good image, so that {both} and the false-alarm rate are not defined"]
    if not images["anomalous"]:
        return [f"there is no flawed image, so that {both} and the detection rate are not defined"]
    return []


def _unseen(detector: Detector, labelled: Samples, run: Run, progress: Progress | None) -> Samples:
    """The labelled images that the model has not seen; with allow_seen all of them, and the run is marked."""
    rows = seen_rows(detector, labelled, progress)
    if run.allow_seen:
        run.seen = bool(rows) or was_trained_on(detector.representation, run.dataset)
        return labelled
    advice = "Say --allow-seen to run it all the same, marked as seen."
    refuse_trained_on(detector.representation, run.dataset, advice)
    unseen = labelled.take(np.setdiff1d(np.arange(len(labelled)), rows))
    run.left_out = len(rows)
    if rows:
        run.notes.append(f"left out: {counted(len(rows), 'image')} that the model has seen")
    refuse_all_seen(labelled, unseen, ", or say --allow-seen for figures marked as seen")
    return unseen


def _predict(
    detector: Detector, test: Samples, folder: Path, run: Run, progress: Progress | None
) -> Predictions:
    """Run the detector and write the maps as they come."""
    with zipfile.ZipFile(folder / "maps.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        scale = 0.0

        def keep(rows: list[int], maps: np.ndarray) -> None:
            nonlocal scale
            scale = scale or _scale(maps)
            for row, heat in zip(rows, maps, strict=True):
                _put(archive, str(row), np.clip(heat / scale, -65504, 65504).astype(np.float16))

        predictions = predict_all(detector, test, each=keep if run.write_images else None, progress=progress)
        _put(archive, "scale", np.float32(scale))
    return predictions


def display_range(detector: Detector, sample: np.ndarray) -> tuple[float, float]:
    """(low, high) of the heat maps' colours: the calibrated range, else the median and the 99.9 % quantile of
    `sample`."""
    known = detector.decision_ and detector.decision_.map_range
    if known:
        return float(known[0]), float(known[1])
    low, high = (float(value) for value in np.quantile(sample, (0.5, 0.999)))
    return low, high if high > low else low + 1.0


def _write(
    folder: Path, detector: Detector, test: Samples, predictions: Predictions, measured: Measured, run: Run
) -> None:
    if run.write_images:
        _thumbnails(folder, test, predictions, detector.white_level)
    readable = test.take(predictions.rows)
    _table(readable, predictions).write_parquet(folder / "samples.parquet")
    store.write_record(folder, "run.json", _facts(detector, readable, predictions, run))
    store.write_json(folder / "metrics.json", measured.metrics)
    store.write_json(folder / "curves.json", measured.curves)


def _table(readable: Samples, predictions: Predictions) -> pl.DataFrame:
    """samples.parquet."""
    empty = [None] * len(predictions.rows)
    return readable.table.drop("view").with_columns(
        pl.Series("row", predictions.rows, dtype=pl.Int64),
        pl.Series("score", predictions.scores, dtype=pl.Float32),
        pl.Series(
            "p_value", empty if predictions.p_values is None else predictions.p_values, dtype=pl.Float64
        ),
        pl.Series(
            "is_anomalous", empty if predictions.flagged is None else predictions.flagged, dtype=pl.Boolean
        ),
    )


def _facts(detector: Detector, readable: Samples, predictions: Predictions, run: Run) -> dict[str, Any]:
    """run.json."""
    labels, origin = readable.labels, store.provenance()
    return {
        "kizu": origin["kizu"],
        "name": run.name,
        "created": origin["created"],
        "command": run.command,
        "detector": type(detector).__module__.rpartition(".")[2],
        "parameters": detector.parameters,
        "representation": detector.representation.card["name"],
        "card": _short(detector.representation_.card),
        "dataset": run.dataset,
        "category": run.category,
        "protocol": run.protocol,
        "seed": run.seed,
        "image_size": list(predictions.size),
        "counts": {
            **run.counts,
            "test_normal": int((labels == 0).sum()),
            "test_anomalous": int((labels == 1).sum()),
        },
        "calibration": detector.decision_.facts() if detector.decision_ else None,
        "map_range": list(display_range(detector, predictions.sample)),
        "seconds": run.seconds,
        "seen": run.seen,
        "left_out": run.left_out,
        "notes": run.notes,
        "warnings": run.warnings,
        "errors": [{"path": path, "reason": reason} for path, reason in run.errors],
        "machine": origin,
        "commit": origin["commit"],
    }


def _short(card: dict[str, Any]) -> dict[str, Any]:
    """A card with the number of images seen instead of their list."""
    short = {key: _short(value) if isinstance(value, dict) else value for key, value in card.items()}
    if isinstance(card.get("images_seen"), list):
        short["images_seen"] = len(card["images_seen"])
    return short


def _thumbnails(folder: Path, test: Samples, predictions: Predictions, white_level: int | None) -> None:
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    labels = test.labels
    for row in predictions.rows:
        path, roi = test.paths[row], predictions.roi
        reading = open_image if roi is None else functools.partial(open_region, roi=roi)
        image = Image.fromarray(reading(path, white_level=white_level))
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        image.save(folder / "images" / f"{row}.jpg", quality=88)
        if labels[row] == 1:
            mask = masks_for(test.take([row]), predictions.size, allow_missing=True, roi=roi)[0]
            if mask.any():
                Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{row}.png")


def _scale(maps: np.ndarray) -> float:
    """The power of two by which the first maps come near HEADROOM."""
    peak = float(np.abs(maps).max())
    return 2.0 ** np.ceil(np.log2(peak / HEADROOM)) if peak > 0 else 1.0


def _put(archive: zipfile.ZipFile, name: str, array: Any) -> None:
    with archive.open(f"{name}.npy", "w") as stream:
        np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)


class _Log:
    """JSONL, one event a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, event: str, **facts: Any) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"time": time.time(), "event": event, **facts}) + "\n")
