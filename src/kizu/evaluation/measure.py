"""Scores, decisions and maps of labelled images -> metrics.json and curves.json."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil

from kizu.loader import masks_for
from kizu.metrics.accuracy_oracle import accuracy_oracle
from kizu.metrics.image_curves import image_curves
from kizu.metrics.image_metrics import image_metrics
from kizu.metrics.pixel_report import pixel_report
from kizu.metrics.streaming_pixel_metrics import StreamingPixelMetrics
from kizu.roi import Roi
from kizu.samples import Samples

MEMORY_SHARE = 0.5
FPR_LIMIT = 0.3
HEADLINE = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro_0.3")
"""The figures that tables show."""


@dataclass(frozen=True)
class Measured:
    """metrics: as metrics.json; curves: as curves.json."""

    metrics: dict[str, Any]
    curves: dict[str, Any]


Pixels = tuple[dict[str, float | None] | None, dict[str, Any] | None, int]
"""(metrics, curves, images left out for want of a mask)."""


def measure(test: Samples, scores: np.ndarray, flagged: np.ndarray | None, pixels: Pixels) -> Measured:
    """All the numbers of a run. Thresholds chosen on these labels carry _oracle in their names.

    scores (n,), flagged (n,) bool or None, in the rows of `test`; pixels from `exact_pixels` or
    `StreamedPixels`."""
    labels = test.labels
    image, curves = _image(scores, labels)
    pixel, pixel_lines, left_out = pixels
    metrics = {
        "image": image,
        "pixel": pixel,
        "decision": _decision(labels, flagged),
        "by_defect": _by_defect(test, scores, flagged),
        "images": {
            "normal": int((labels == 0).sum()),
            "anomalous": int((labels == 1).sum()),
            "without_mask": left_out,
        },
    }
    return Measured(metrics, {"image": curves, "pixel": pixel_lines})


def exact_pixels(test: Samples, maps: np.ndarray, roi: Roi | None = None) -> Pixels:
    """Exact pixel metrics of maps (n, H, W) in the rows of `test`, over the images whose every pixel is
    labelled.

    A flawed image without a mask, or whose mask is empty at this size, is left out and counted. roi: of which
    the maps are. All null when no pixel is flawed."""
    rows = np.flatnonzero(_has_mask(test))
    masks = masks_for(test.take(rows), (maps.shape[1], maps.shape[2]), roi=roi)
    kept = (test.labels[rows] == 0) | masks.any(axis=(1, 2))
    if not kept.all():
        rows, masks = rows[kept], masks[kept]
    left_out = len(test) - len(rows)
    if not masks.any() or masks.all():
        return None, None, left_out
    values, curves = pixel_report(maps if len(rows) == len(maps) else maps[rows], masks, fpr_limit=FPR_LIMIT)
    return _named(values), curves, left_out


class StreamedPixels:
    """The same for sets whose maps do not fit in memory: within the error bounds of StreamingPixelMetrics,
    and no curves."""

    def __init__(self, roi: Roi | None = None) -> None:
        self._roi = roi
        self.metrics, self.left_out, self.flawed = StreamingPixelMetrics(fpr_limit=FPR_LIMIT), 0, False

    def update(self, part: Samples, maps: np.ndarray) -> None:
        """Add maps (B, H, W) of the rows of `part`."""
        rows = np.flatnonzero(_has_mask(part))
        masks = masks_for(part.take(rows), (maps.shape[1], maps.shape[2]), roi=self._roi)
        kept = (part.labels[rows] == 0) | masks.any(axis=(1, 2))
        self.left_out += len(part) - int(kept.sum())
        self.flawed = self.flawed or bool(masks.any())
        if kept.any():
            self.metrics.update(maps[rows[kept]], masks[kept])

    def result(self) -> Pixels:
        """What `measure` takes."""
        return (_named(self.metrics.compute()) if self.flawed else None), None, self.left_out


def _has_mask(test: Samples) -> np.ndarray:
    return test.table["mask"].is_not_null().to_numpy() | (test.labels == 0)


def _named(values: dict[str, float]) -> dict[str, float | None]:
    named = {
        "auroc": values["auroc"],
        "ap": values["ap"],
        "f1_max_oracle": values["f1_max"],
        "aupro_0.3": values["aupro"],
    }
    return {name: defined(value) for name, value in named.items()}


def _image(
    scores: np.ndarray, labels: np.ndarray
) -> tuple[dict[str, float | None] | None, dict[str, Any] | None]:
    if len(np.unique(labels)) < 2:
        return None, None
    values = image_metrics(scores, labels)
    named = {"auroc": values["auroc"], "ap": values["ap"], "f1_max_oracle": values["f1_max"]}
    named["accuracy_oracle"] = accuracy_oracle(scores, labels)
    return {name: defined(value) for name, value in named.items()}, image_curves(scores, labels)


def _decision(labels: np.ndarray, flagged: np.ndarray | None) -> dict[str, Any] | None:
    if flagged is None:
        return None
    normal, anomalous = labels == 0, labels == 1
    alarms, detected = int((flagged & normal).sum()), int((flagged & anomalous).sum())
    return {
        "false_alarms": alarms,
        "false_alarm_rate": alarms / int(normal.sum()) if normal.any() else None,
        "detected": detected,
        "missed": int(anomalous.sum()) - detected,
        "detection_rate": detected / int(anomalous.sum()) if anomalous.any() else None,
    }


def _by_defect(test: Samples, scores: np.ndarray, flagged: np.ndarray | None) -> list[dict[str, Any]]:
    """Each kind of defect against all good images."""
    labels, kinds = test.labels, np.asarray(test.table["defect"].to_list())
    rows = []
    for kind in sorted(set(kinds[labels == 1])):
        of_kind = (kinds == kind) & (labels == 1)
        chosen = of_kind | (labels == 0)
        value = image_metrics(scores[chosen], labels[chosen])["auroc"] if (labels == 0).any() else None
        rows.append(
            {
                "defect": str(kind),
                "images": int(of_kind.sum()),
                "auroc": defined(value),
                "detected": None if flagged is None else int((flagged & of_kind).sum()),
            }
        )
    return rows


def flatten(metrics: dict[str, Any]) -> dict[str, Any]:
    """metrics.json -> one flat dict: image_auroc, pixel_ap, aupro_0.3, false_alarm_rate, mean_image_auroc,
    ...; None where a figure is not defined."""
    image, pixel = metrics["image"] or {}, metrics["pixel"] or {}
    flat: dict[str, Any] = {}
    for name in ("auroc", "ap", "f1_max_oracle", "accuracy_oracle"):
        flat[f"image_{name}"] = image.get(name)
    for name in ("auroc", "ap", "f1_max_oracle"):
        flat[f"pixel_{name}"] = pixel.get(name)
    flat["aupro_0.3"] = pixel.get("aupro_0.3")
    flat.update(metrics["decision"] or {})
    mean = metrics.get("mean", {})
    flat |= {f"mean_{part}_{name}": value for part in mean for name, value in (mean[part] or {}).items()}
    flat |= {f"loco_{name}": value for name, value in (metrics.get("loco") or {}).items()}
    return flat


def headline(metrics: dict[str, Any]) -> dict[str, float | None]:
    """metrics.json -> the figures named in HEADLINE, None where a figure is not defined."""
    flat = flatten(metrics)
    return {name: flat[name] for name in HEADLINE}


def defined(value: float | None) -> float | None:
    """None for NaN: an undefined number is null in JSON, never zero."""
    return None if value is None or math.isnan(value) else float(value)


def fits_in_memory(images: int, size: tuple[int, int]) -> bool:
    """Whether the maps of so many images can be held for exact pixel metrics."""
    return images * size[0] * size[1] * 4 < MEMORY_SHARE * psutil.virtual_memory().available
