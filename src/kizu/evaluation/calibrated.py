"""Fit with a promised false-alarm rate: split conformal when good images abound, cross-conformal when they
are few.

split  some good images are kept from fitting and only scored. The promise holds exactly: P(false alarm) <=
rate. cross  K folds (Vovk 2015, "Cross-conformal predictors"): each fold is scored by a detector fitted on
the others, all n scores
       are pooled, and the final detector is fitted on all n. Nothing is given away, but the promise is no
       longer a theorem: it holds when a detector that saw more good images does not score good parts higher,
       which is what fitting on more does; measured false alarms are in docs/results/calibration.md.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

from kizu import calibration
from kizu.detectors.base import Detector
from kizu.training import FitOptions
from kizu.types import Progress
from kizu.errors import TooFewImages, UsageError
from kizu.protocols.base import hold_out, units
from kizu.samples import Samples

METHODS = ("auto", "split", "cross", "none")
DEFAULT_RATE = 0.01
HELD_OUT = 0.2
FOLDS = 5
SAMPLED = 4096
AnyDetector = TypeVar("AnyDetector", bound=Detector)


def fit_calibrated(
    detector: AnyDetector,
    good: Samples,
    *,
    false_alarm_rate: float | None = None,
    method: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> AnyDetector:
    """Fit on good images and calibrate. method: "split", "cross", "none", or "auto" as the head of this
    module says.

    false_alarm_rate None asks for 1 %, or for the smallest that the images can back. Raises TooFewImages when
    a named rate cannot be backed, saying how many images it takes."""
    chosen = choose(good, false_alarm_rate, method)
    if chosen == "none":
        return detector.fit(good, options=FitOptions(progress=progress))
    if chosen == "split":
        kept, held = hold_out(good, HELD_OUT, seed)
        detector.fit(kept, options=FitOptions(progress=progress))
        return calibrate(detector, held, false_alarm_rate, progress=progress)
    return _cross(detector, good, false_alarm_rate, seed, progress)


def choose(good: Samples, false_alarm_rate: float | None, method: str) -> str:
    """The method that will be taken: "split", "cross" or "none". Raises what `fit_calibrated` raises before
    it does any work."""
    if method not in METHODS:
        raise UsageError(f"The calibration method is one of {', '.join(METHODS)}, got {method!r}.")
    count = len(np.unique(units(good)))
    if method == "none" or (method == "auto" and false_alarm_rate is None and count < 2):
        return "none"
    return plan(count, false_alarm_rate, method)


def plan(count: int, false_alarm_rate: float | None, method: str) -> str:
    """ "split" or "cross" for `count` good images (or groups). Raises TooFewImages when neither can back a
    named rate."""
    rate = DEFAULT_RATE if false_alarm_rate is None else false_alarm_rate
    needed = calibration.images_needed(rate)
    held = min(max(round(count * HELD_OUT), 1), count - 1)
    if method == "auto":
        method = "split" if held >= needed else "cross"
    available = held if method == "split" else count
    if false_alarm_rate is not None and available < needed:
        total = needed if method == "cross" else round(needed / HELD_OUT)
        raise TooFewImages(
            f"A false-alarm rate of {rate:g} takes {needed} good images to calibrate on; {count} good images "
            f"leave {available} "
            f"({method}). Provide at least {total}, or ask for "
            f"{calibration.smallest_rate(max(available, 1)):.3g} or more."
        )
    return method


def calibrate(
    detector: AnyDetector, held: Samples, false_alarm_rate: float | None, *, progress: Progress | None = None
) -> AnyDetector:
    """Split-conformal calibration of a fitted detector on good images it was not fitted on."""
    scores, pixels, peaks = score(detector, held, progress)
    return _set(detector, scores, pixels, peaks, false_alarm_rate, "split")


def score(
    detector: Detector, samples: Samples, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores (n,), a few thousand map values, highest map value an image (n,)) of images."""
    scores, pixels, peaks, done = [], [], [], 0
    for part in detector.predict_batches(samples):
        scores.append(part.score.numpy())
        peaks.append(part.map.flatten(1).amax(1).numpy())
        flat = part.map.flatten()
        pixels.append(flat[:: max(len(flat) // SAMPLED, 1)].numpy())
        done += len(part)
        if progress:
            progress(done, "calibrating")
    empty = np.zeros(0, dtype=np.float32)
    return tuple(np.concatenate(values) if values else empty for values in (scores, pixels, peaks))  # type: ignore[return-value]


def _cross(
    detector: AnyDetector, good: Samples, rate: float | None, seed: int, progress: Progress | None
) -> AnyDetector:
    groups = units(good).tolist()
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for held in calibration.folds(len(good), FOLDS, seed, groups):
        rest = np.setdiff1d(np.arange(len(good)), held)
        fold = detector.clone().fit(good.take(rest), options=FitOptions(progress=progress))
        found.append(score(fold, good.take(held), progress))
        del fold
    scores, pixels, peaks = (np.concatenate(values) for values in zip(*found, strict=True))
    detector.fit(good, options=FitOptions(progress=progress))
    return _set(detector, scores, pixels, peaks, rate, "cross")


def _set(
    detector: AnyDetector,
    scores: np.ndarray,
    pixels: np.ndarray,
    peaks: np.ndarray,
    rate: float | None,
    method: str,
) -> AnyDetector:
    """Attach the calibration, and the display range of heat maps: a good part's peak at the promised rate is
    its middle."""
    if not len(scores):
        raise TooFewImages("None of the calibration images could be read.")
    if rate is None:
        rate = max(DEFAULT_RATE, calibration.smallest_rate(len(scores)))
    low = float(np.median(pixels))
    middle = float(np.quantile(peaks, 1.0 - rate))
    display = (low, low + 2.0 * max(middle - low, 1e-6 * max(abs(middle), 1e-6)))
    return detector.set_calibration(torch.from_numpy(scores), rate, method=method, map_range=display)
