"""Fit with a promised false-alarm rate: split conformal with many good images, cross-conformal with few.

The methods:

    split   Some good images are kept from fitting and only scored: a fifth, or as many as a named rate needs,
            at most half. The promise holds exactly: P(false alarm) <= rate.
    cross   K folds (Vovk 2015, "Cross-conformal predictors"): each fold is scored by a detector fitted on the
            others, all n scores are pooled, and the final detector is fitted on all n images. No image is
            lost to fitting, but the rate is an expectation, no promise: it holds if a detector that saw more
            good images does not score good parts higher, which no theorem says (Barber, Candes, Ramdas and
            Tibshirani 2021, section 2, for what such methods can guarantee). Two trainings give two scales of
            scores, so that it is refused for what is trained.
            docs/results/calibration.md has measured false alarms.

Images of one group, and images with the same pixels, are one part: they lie on one side of every division and
count once.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from kizu import calibration, checks
from kizu.detectors.base import Detector
from kizu.detectors.decision import file_sizes
from kizu.errors import NearlyEqual, TooFewImages, UsageError, counted
from kizu.evaluation.calibration_method import DEFAULT_RATE, choose, good_and_flawed, held_out
from kizu.evaluation.copies import grouped, identify, nearly_equal
from kizu.evaluation.seen import refuse_seen
from kizu.loader import batches
from kizu.protocols.base import hold_out, units
from kizu.samples import Samples
from kizu.training import FitOptions
from kizu.types import Batch, Progress

FOLDS = 5
SAMPLED = 4096
_LOG = logging.getLogger(__name__)
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

    data: good images, copies of one another among them or not; for a detector that learns from labels also
    flawed ones, which are all used for fitting. false_alarm_rate: None asks for 1 %, or for the smallest rate
    that the images can back. method: "split", "cross", "none", or "auto", which is split when a fifth of the
    images can back the rate, or when the detector or its adaptation is trained. Split holds out a fifth, and
    up to half of the images where a named rate needs that many. seed: of what is held out. options: with a
    folder, the fit has the folder final in it; resume goes on with it, to the same model bit for bit.

    Raises TooFewImages when a named rate cannot be backed, saying how many images it needs; UsageError when
    the representation has seen the calibration images, or for "cross" with what is trained; and what
    `detector.fit` raises."""
    checks.whole_numbers(least=0, seed=seed)
    if not isinstance(data, Samples):
        raise UsageError(
            f"fit_calibrated takes Samples, got {type(data).__name__}: kizu.dataset('folder', PATH) has them "
            "as .to_learn."
        )
    options = options or FitOptions()
    unread = data.take([])
    if method != "none":
        data, unread = _known(data, options.progress, detector.white_level)
    chosen = choose(detector, data, false_alarm_rate, method)
    good, flawed = good_and_flawed(data)
    flawed = flawed.concat(unread)  # the fit notes them
    if chosen == "cross":
        return _cross(detector, good, flawed, false_alarm_rate, seed, options)
    kept, held = _held(good, false_alarm_rate, seed) if chosen == "split" else (good, good.take([]))
    if len(held):
        refuse_seen(detector.representation, held)
    try:
        detector.fit(kept.concat(flawed), options=options.within("final"))
    except TooFewImages as error:
        if not len(held):
            raise
        raise TooFewImages(
            f"{error} Of {len(good)} good images {counted(len(held), 'is', 'are')} held out to calibrate on; "
            "with --calibration none (Python: method='none') all are learned from."
        ) from error
    return calibrate(detector, held, false_alarm_rate, progress=options.progress) if len(held) else detector


def with_copies_grouped(
    data: Samples, progress: Progress | None = None, *, white_level: int | None = None
) -> Samples:
    """The samples with images of the same pixels in one group. Warns of images that are nearly equal and of
    different groups: frames of one part, it seems, which the promise takes for different parts."""
    known, unread = _known(data, progress, white_level)
    return known.concat(unread)


def _known(data: Samples, progress: Progress | None, white_level: int | None) -> tuple[Samples, Samples]:
    """The same of the files that can be read; and the others, which calibrate nothing."""
    images = identify(data.paths, progress, white_level=white_level)
    known = grouped(data, images)
    near = nearly_equal(images, units(known))
    if near:
        first, second = (data.paths[row] for row in near[0])
        what = counted(len(near), "pair of good images is", "pairs of good images are")
        warnings.warn(
            f"{what} nearly equal, such as {first} and {second}. Images of one "
            "part are no two parts: give them one group (column group of a CSV file), or the promise of "
            "false alarms may not hold.",
            NearlyEqual,
            stacklevel=4,
        )
    readable = np.asarray([bool(image.digest) for image in images], dtype=bool)
    return known.take(np.flatnonzero(readable)), known.take(np.flatnonzero(~readable))


def _held(good: Samples, false_alarm_rate: float | None, seed: int) -> tuple[Samples, Samples]:
    """(images to learn from, images held out); says it where these are more than a fifth."""
    count = len(np.unique(units(good)))
    held = held_out(count, false_alarm_rate)
    if held > held_out(count, None):
        kind = "good images" if count == len(good) else "groups of good images"
        _LOG.info(
            f"Calibrating on {held} of {count} {kind}, more than a fifth: a false-alarm rate of "
            f"{false_alarm_rate:g} takes as many. {counted(count - held, 'is', 'are')} learned from."
        )
    return hold_out(good, held / count, seed)


def calibrate(
    detector: AnyDetector, held: Samples, false_alarm_rate: float | None, *, progress: Progress | None = None
) -> AnyDetector:
    """Split-conformal calibration of a fitted detector on good images it was not fitted on.

    Raises TooFewImages, and UsageError when the representation has seen the images."""
    refuse_seen(detector.representation, held)
    scored = score(detector, held, progress)
    return _set(detector, [scored], [held], false_alarm_rate, "split")


@dataclass(frozen=True)
class Scored:
    """What a detector says of n good images, all float32. scores: (n,). pixels: a few thousand map values.
    peaks: (n,) the highest map value of each. paths, digests: those that could be read. errors: (path,
    reason) of the others."""

    scores: np.ndarray
    pixels: np.ndarray
    peaks: np.ndarray
    paths: list[str]
    digests: list[str]
    errors: list[tuple[str, str]]


def score(detector: Detector, samples: Samples, progress: Progress | None = None) -> Scored:
    """The scores of good images, as calibration needs them."""
    scores, pixels, peaks, paths, digests = [], [], [], list[str](), list[str]()
    loader = batches(
        samples,
        image_size=detector.image_size,
        batch_size=detector.batch_size,
        on_error="collect",
        digests=True,
        white_level=detector.white_level,
        roi=detector.roi,
    )

    def noted() -> Iterator[Batch]:
        for batch in loader:
            digests.extend(batch.digests)
            yield batch

    for part in detector.predict_batches(noted()):
        scores.append(part.score.numpy())
        peaks.append(part.map.flatten(1).amax(1).numpy())
        flat = part.map.flatten()
        pixels.append(flat[:: max(len(flat) // SAMPLED, 1)].numpy())
        paths += part.paths
        if progress:
            progress(len(paths), "calibrating")
    empty = np.zeros(0, dtype=np.float32)
    joined = [np.concatenate(values) if values else empty for values in (scores, pixels, peaks)]
    return Scored(joined[0], joined[1], joined[2], paths, digests, loader.errors)


def _cross(
    detector: AnyDetector,
    good: Samples,
    flawed: Samples,
    rate: float | None,
    seed: int,
    options: FitOptions,
) -> AnyDetector:
    refuse_seen(detector.representation, good)
    parts: list[Scored] = []
    folds = calibration.folds(len(good), FOLDS, seed, units(good).tolist())
    for held in folds:
        rest = good.take(np.setdiff1d(np.arange(len(good)), held))
        fold = detector.clone().fit(rest.concat(flawed), options=options)
        parts.append(score(fold, good.take(held), options.progress))
        del fold
    detector.fit(good.concat(flawed), options=options)
    return _set(detector, parts, [good.take(held) for held in folds], rate, "cross")


def _set(
    detector: AnyDetector, parts: list[Scored], held: list[Samples], rate: float | None, method: str
) -> AnyDetector:
    """Set the calibration, and the display range of heat maps: its middle is a good part's peak at the
    promised rate. What it was calibrated on is noted in `seen_`, files that could not be read in
    `skipped_`."""
    scores = np.concatenate([part.scores for part in parts])
    if not len(scores):
        raise TooFewImages("None of the calibration images could be read.")
    if len(scores) > len(parts) and all(np.ptp(part.scores) == 0 for part in parts if len(part.scores)):
        raise TooFewImages(
            f"The {len(scores)} calibration images have one and the same score in each fold: they are copies "
            "of one image, or the detector is blind to what differs. No decision can be built on that."
        )
    unit_of_path = {
        path: f"{number} {unit}"
        for number, samples in enumerate(held)
        for path, unit in zip(samples.paths, units(samples), strict=True)
    }
    paths = [path for part in parts for path in part.paths]
    groups = [unit_of_path[path] for path in paths]
    if rate is None:
        rate = max(DEFAULT_RATE, calibration.smallest_rate(len(set(groups))))
    low = float(np.median(np.concatenate([part.pixels for part in parts])))
    peaks = np.concatenate([part.peaks for part in parts])
    middle = float(np.quantile(peaks, 1.0 - rate))
    display = (low, low + 2.0 * max(middle - low, 1e-6 * max(abs(middle), 1e-6)))
    detector.set_calibration(scores, rate, groups=groups, method=method, map_range=display)
    assert detector.decision_ is not None  # just set
    detector.decision_.file_sizes = file_sizes(paths)
    detector.decision_.map_threshold = calibration.conformal_threshold(peaks, rate, groups=groups)
    detector.seen_["calibrated"] = [digest for part in parts for digest in part.digests]
    known = {path for path, _ in detector.skipped_}
    detector.skipped_ += [error for part in parts for error in part.errors if error[0] not in known]
    return detector
