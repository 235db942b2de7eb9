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
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from kizu import calibration, checks
from kizu.detectors.base import Detector
from kizu.detectors.scored import Scored, decision_of, score_batches
from kizu.errors import NearlyEqual, TooFewImages, UsageError, counted
from kizu.evaluation.calibration_method import choose, good_and_flawed, held_out
from kizu.evaluation.copies import grouped, identify, nearly_equal
from kizu.evaluation.seen import refuse_seen
from kizu.loader import batches
from kizu.protocols.base import hold_out, units
from kizu.samples import Samples
from kizu.training import FitOptions
from kizu.types import Progress

FOLDS = 5
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
    collected: list[Scored] | None = None,
) -> AnyDetector:
    """Fit on good images and calibrate on good images that the fit has not seen.

    data: good images, copies of one another among them or not; for a detector that learns from labels also
    flawed ones, which are all used for fitting. false_alarm_rate: None asks for 1 %, or for the smallest rate
    that the images can back. method: "split", "cross", "none", or "auto", which is split when a fifth of the
    images can back the rate, or when the detector or its adaptation is trained. Split holds out a fifth, and
    up to half of the images where a named rate needs that many. seed: of what is held out. options: with a
    folder, the fit has the folder final in it; resume goes on with it, to the same model bit for bit.
    collected: grows by the scores of the good images that the calibration is made of, one entry a fold.

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
        data, unread, _ = identified(data, options.progress, detector.white_level)
    chosen = choose(detector, data, false_alarm_rate, method)
    good, flawed = good_and_flawed(data)
    flawed = flawed.concat(unread)  # the fit notes them
    if chosen == "cross":
        parts, sides = cross_scored(detector, good, flawed, seed, options)
        detector.fit(good.concat(flawed), options=options)
        return _set(detector, parts, sides, false_alarm_rate, "cross", collected)
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
    if not len(held):
        return detector
    scored = score(detector, held, options.progress)
    return _set(detector, [scored], [held], false_alarm_rate, "split", collected)


def with_copies_grouped(
    data: Samples, progress: Progress | None = None, *, white_level: int | None = None
) -> Samples:
    """The samples with images of the same pixels in one group. Warns of images that are nearly equal and of
    different groups: frames of one part, it seems, which the promise takes for different parts."""
    known, unread, _ = identified(data, progress, white_level)
    return known.concat(unread)


def identified(
    data: Samples, progress: Progress | None, white_level: int | None
) -> tuple[Samples, Samples, list[str]]:
    """(the same of the files that can be read, the others, which calibrate nothing, digests of the first)."""
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
    digests = [image.digest for image in images if image.digest]
    return known.take(np.flatnonzero(readable)), known.take(np.flatnonzero(~readable)), digests


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


def score(detector: Detector, samples: Samples, progress: Progress | None = None) -> Scored:
    """The scores of good images, as calibration needs them."""
    loader = batches(
        samples,
        image_size=detector.image_size,
        batch_size=detector.batch_size,
        on_error="collect",
        digests=True,
        white_level=detector.white_level,
        roi=detector.roi,
    )
    return score_batches(detector.predict_batches, iter(loader), loader.errors, progress)


def cross_scored(
    detector: Detector, good: Samples, flawed: Samples, seed: int, options: FitOptions
) -> tuple[list[Scored], list[Samples]]:
    """(scores of each fold of the good images by a detector fitted on the others, the folds)."""
    refuse_seen(detector.representation, good)
    parts, sides = list[Scored](), list[Samples]()
    for held in calibration.folds(len(good), FOLDS, seed, units(good).tolist()):
        rest = good.take(np.setdiff1d(np.arange(len(good)), held))
        fold = detector.clone().fit(rest.concat(flawed), options=options)
        sides.append(good.take(held))
        parts.append(score(fold, sides[-1], options.progress))
        del fold
    return parts, sides


def _set(
    detector: AnyDetector,
    parts: list[Scored],
    held: list[Samples],
    rate: float | None,
    method: str,
    collected: list[Scored] | None = None,
) -> AnyDetector:
    """Set the calibration. What it was calibrated on is noted in `seen_`, files that could not be read in
    `skipped_`."""
    detector.decision_ = decision_of(parts, groups_of(parts, held), false_alarm_rate=rate, method=method)
    detector.seen_["calibrated"] = [digest for part in parts for digest in part.digests]
    known = {path for path, _ in detector.skipped_}
    detector.skipped_ += [error for part in parts for error in part.errors if error[0] not in known]
    if collected is not None:
        collected += parts
    return detector


def groups_of(parts: Sequence[Scored], held: Sequence[Samples]) -> list[str]:
    """One label for each scored image; equal for those of one part. held: the images of each part."""
    unit_of_path = {
        path: f"{number} {unit}"
        for number, samples in enumerate(held)
        for path, unit in zip(samples.paths, units(samples), strict=True)
    }
    return [unit_of_path[path] for part in parts for path in part.paths]
