"""Fit with a promised false-alarm rate: split conformal with many good images, cross-conformal with few.

The methods:

    split   Some good images are kept from fitting and only scored. The promise holds exactly:
            P(false alarm) <= rate.
    cross   K folds (Vovk 2015, "Cross-conformal predictors"): each fold is scored by a detector fitted on the
            others, all n scores are pooled, and the final detector is fitted on all n images. No image is
            lost to fitting, but the promise is no longer a theorem: it holds if a detector that saw more good
            images does not score good parts higher. docs/results/calibration.md has measured false alarms.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

from kizu import calibration
from kizu.detectors.base import Detector
from kizu.errors import TooFewImages, UsageError
from kizu.evaluation.seen import refuse_seen
from kizu.protocols.base import hold_out, units
from kizu.samples import Samples
from kizu.training import FitOptions
from kizu.types import Progress

METHODS = ("auto", "split", "cross", "none")
DEFAULT_RATE = 0.01
HELD_OUT = 0.2
FOLDS = 5
SAMPLED = 4096
AnyDetector = TypeVar("AnyDetector", bound=Detector)


def fit_calibrated(
    detector: AnyDetector,
    data: Samples,
    *,
    false_alarm_rate: float | None = None,
    method: str = "auto",
    seed: int = 0,
    options: FitOptions | None = None,
) -> AnyDetector:
    """Fit on good images and calibrate on good images that the fit has not seen.

    data: good images; for a detector that learns from labels also flawed ones, which are all used for
    fitting.
    false_alarm_rate: None asks for 1 %, or for the smallest rate that the images can back. method: "split",
    "cross", "none", or "auto", which is split when it can back the rate. seed: of what is held out. options:
    with a folder, the fit of each fold has the folder fold_1, fold_2, ... in it, the last fit the folder
    final; resume goes on with whichever was interrupted, to the same model bit for bit.

    Raises TooFewImages when a named rate cannot be backed, saying how many images it needs; UsageError when
    the representation has seen the calibration images; and what `detector.fit` raises."""
    options = options or FitOptions()
    chosen = choose(data, false_alarm_rate, method)
    good, flawed = _parts(data)
    if chosen == "cross":
        return _cross(detector, good, flawed, false_alarm_rate, seed, options)
    kept, held = hold_out(good, HELD_OUT, seed) if chosen == "split" else (good, good.take([]))
    if len(held):
        refuse_seen(detector.representation, held)
    detector.fit(kept.concat(flawed), options=options.within("final"))
    return calibrate(detector, held, false_alarm_rate, progress=options.progress) if len(held) else detector


def choose(data: Samples, false_alarm_rate: float | None, method: str) -> str:
    """The method that `fit_calibrated` will use: "split", "cross" or "none". Raises what it raises before it
    does any work."""
    if method not in METHODS:
        raise UsageError(f"The calibration method is one of {', '.join(METHODS)}, got {method!r}.")
    count = len(np.unique(units(_parts(data)[0])))
    if method == "none" or (method == "auto" and false_alarm_rate is None and count < 2):
        return "none"
    return plan(count, false_alarm_rate, method)


def plan(count: int, false_alarm_rate: float | None, method: str) -> str:
    """ "split" or "cross" for `count` good images (or groups). Raises TooFewImages when neither can back a
    named rate.

    >>> plan(40, 0.05, "auto"), plan(100, 0.05, "auto")
    ('cross', 'split')
    """
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
            f"leave {available} ({method}). Provide at least {total}, or ask for "
            f"{calibration.smallest_rate(max(available, 1)):.3g} or more."
        )
    return method


def calibrate(
    detector: AnyDetector, held: Samples, false_alarm_rate: float | None, *, progress: Progress | None = None
) -> AnyDetector:
    """Split-conformal calibration of a fitted detector on good images it was not fitted on.

    Raises TooFewImages, and UsageError when the representation has seen the images."""
    refuse_seen(detector.representation, held)
    scores, pixels, peaks = score(detector, held, progress)
    return _set(detector, scores, pixels, peaks, false_alarm_rate, "split")


def score(
    detector: Detector, samples: Samples, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores (n,), a few thousand map values, the highest map value of each image (n,)), all float32."""
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


def _parts(data: Samples) -> tuple[Samples, Samples]:
    """(images not labelled anomalous, images labelled anomalous)."""
    return data.take(np.flatnonzero(data.labels != 1)), data.anomalous


def _cross(
    detector: AnyDetector,
    good: Samples,
    flawed: Samples,
    rate: float | None,
    seed: int,
    options: FitOptions,
) -> AnyDetector:
    refuse_seen(detector.representation, good)
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    folds = calibration.folds(len(good), FOLDS, seed, units(good).tolist())
    for number, held in enumerate(folds, 1):
        rest = good.take(np.setdiff1d(np.arange(len(good)), held))
        fold = detector.clone().fit(rest.concat(flawed), options=options.within(f"fold_{number}"))
        parts.append(score(fold, good.take(held), options.progress))
        del fold
    scores, pixels, peaks = (np.concatenate(values) for values in zip(*parts, strict=True))
    detector.fit(good.concat(flawed), options=options.within("final"))
    return _set(detector, scores, pixels, peaks, rate, "cross")


def _set(
    detector: AnyDetector,
    scores: np.ndarray,
    pixels: np.ndarray,
    peaks: np.ndarray,
    rate: float | None,
    method: str,
) -> AnyDetector:
    """Set the calibration, and the display range of heat maps: its middle is a good part's peak at the
    promised rate."""
    if not len(scores):
        raise TooFewImages("None of the calibration images could be read.")
    if rate is None:
        rate = max(DEFAULT_RATE, calibration.smallest_rate(len(scores)))
    low = float(np.median(pixels))
    middle = float(np.quantile(peaks, 1.0 - rate))
    display = (low, low + 2.0 * max(middle - low, 1e-6 * max(abs(middle), 1e-6)))
    return detector.set_calibration(torch.from_numpy(scores), rate, method=method, map_range=display)
