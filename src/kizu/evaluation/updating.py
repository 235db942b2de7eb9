"""Learning on with a promise: more good images for a fitted model, and a decision that holds afterwards.

What was calibrated before the update were scores of another model. The methods:

    split   A part of the new images is kept from learning and scored; so are the images of the old
            calibration that lie among those given, which the model never learned from. The promise holds
            exactly, for as small a rate as their number can back.
    cross   Each fold of the new images is scored by the old model updated with the others; these scores join
            the old ones, and the final model learns from all new images. An estimate, by the assumption of
            cross-conformal calibration (`kizu.evaluation.calibrated`): a model that saw more good images does
            not score good parts higher.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kizu import calibration, checks
from kizu.detectors.base import Detector
from kizu.detectors.decision import Decision
from kizu.detectors.scored import Scored, decision_of
from kizu.digests import seen_digests
from kizu.errors import EmptyData, TooFewImages, UsageError, counted, some
from kizu.evaluation.calibrated import FOLDS, groups_of, identified, score
from kizu.evaluation.calibration_method import METHODS, held_out
from kizu.protocols.base import hold_out, units
from kizu.samples import Samples
from kizu.training import FitOptions

AnyDetector = TypeVar("AnyDetector", bound=Detector)


@dataclass(frozen=True)
class _Images:
    """fresh: new to the model. held: calibrated on before, never learned from. unread: files that could not
    be read. left_out: how many were learned from before."""

    fresh: Samples
    held: Samples
    unread: Samples
    left_out: int


def update_calibrated(
    detector: AnyDetector,
    data: Samples,
    *,
    false_alarm_rate: float | None = None,
    method: str = "auto",
    seed: int = 0,
    options: FitOptions | None = None,
) -> AnyDetector:
    """Learn from more good images and calibrate anew.

    data: good images. Those that the model has learned from are left out and counted (`history_`); those of
    its calibration are scored again. false_alarm_rate: None asks for the rate (or the named threshold) that
    the model has, and where that cannot be backed for the smallest rate that can. method: "split", "cross",
    "none" (no decision), or "auto": split where a fifth of the new images and the old calibration images
    among the data back the rate, else cross; none for a model that is not calibrated, unless a rate is named.
    seed: of what is held out. On an error the detector stays as it was.

    Raises UsageError for a detector that cannot learn on, for images labelled anomalous, and for "cross"
    without an earlier calibration; EmptyData without a new image; TooFewImages for a named rate that cannot
    be backed, and where all new images would be held out."""
    _check(detector, data, false_alarm_rate, method, seed)
    options = options or FitOptions()
    images = _sorted(detector, data, options)
    chosen = _chosen(detector.decision_, images, false_alarm_rate, method)
    twin = copy.copy(detector)
    if chosen == "split":
        _split(twin, images, false_alarm_rate, seed, options)
    elif chosen == "cross":
        _cross(twin, images, false_alarm_rate, seed, options)
    else:
        twin.update(images.fresh.concat(images.unread), options=options)
    twin.history_[-1]["left_out"] = images.left_out
    vars(detector).update(vars(twin))
    return detector


def _check(detector: Detector, data: Samples, rate: float | None, method: str, seed: int) -> None:
    detector.check_update()
    checks.whole_numbers(least=0, seed=seed)
    if method not in METHODS:
        raise UsageError(f"The calibration method is one of {', '.join(METHODS)}, got {method!r}.")
    if not isinstance(data, Samples):
        raise UsageError(f"update_calibrated takes Samples, got {type(data).__name__}.")
    if method == "none" and rate is not None:
        raise UsageError(f"A false-alarm rate, {rate:g}, has no effect without calibration.")
    if method == "cross" and detector.decision_ is None:
        raise UsageError(
            "Cross adds to the scores of an earlier calibration; this model has none: use split."
        )
    refuse_flawed(data)


def refuse_flawed(data: Samples) -> None:
    """Raise UsageError, listing them, for images that are labelled anomalous where good ones are due."""
    flawed = data.anomalous.paths
    if flawed:
        raise UsageError(
            f"Only good images are taken here, and {counted(len(flawed), 'is', 'are')} labelled anomalous: "
            f"{some(flawed, 3)}. Give the folder of good images alone."
        )


def _sorted(detector: Detector, data: Samples, options: FitOptions) -> _Images:
    """The images by what the model knows of them. A new image of a part that was learned from is learned
    from; one of a part that was calibrated on is held out."""
    known, unread, digests = identified(data, options.progress, detector.white_level)
    fitted = set(detector.seen_["fitted"]) | seen_digests(detector.representation_.card)
    learned = np.asarray([digest in fitted for digest in digests], dtype=bool)
    calibrated = np.isin(digests, detector.seen_["calibrated"]) & ~learned
    part = units(known)
    fresh = ~learned & ~calibrated & ~np.isin(part, np.unique(part[calibrated]))
    if not fresh.any():
        raise EmptyData(
            f"There is no new image to learn from: of {len(data)} images the model has learned from "
            f"{int(learned.sum())} before, and was calibrated on {int(calibrated.sum())}."
        )
    return _Images(known.take(_rows(fresh)), known.take(_rows(~learned & ~fresh)), unread, int(learned.sum()))


def _rows(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.flatnonzero(chosen)


def _chosen(before: Decision | None, images: _Images, rate: float | None, method: str) -> str:
    if method != "auto":
        return method
    if before is None:
        return "none" if rate is None else "split"
    new, old = len(np.unique(units(images.fresh))), len(np.unique(units(images.held)))
    wanted = _wanted(before, rate)
    backed = new > 1 and held_out(new, None) + old >= calibration.images_needed(wanted)
    return "split" if backed else "cross"


def _split(detector: Detector, images: _Images, rate: float | None, seed: int, options: FitOptions) -> None:
    before, fresh = detector.decision_, images.fresh
    new, old = len(np.unique(units(fresh))), len(np.unique(units(images.held)))
    wanted = _wanted(before, rate)
    needed = calibration.images_needed(wanted)
    if new < 2:
        raise TooFewImages("Split holds out some of the new images and learns from others: give at least 2.")
    count = max(held_out(new, None), min(max(needed - old, 0), new // 2))
    if rate is not None and count + old < needed:
        raise TooFewImages(
            f"A false-alarm rate of {rate:g} takes {needed} good images to calibrate on. Of the {new} new "
            f"ones {count} are held out, and {old} of the old calibration are among the images given: give "
            "those too, or more new ones, or ask for "
            f"{calibration.smallest_rate(count + old):.3g} or more."
        )
    kept, held = hold_out(fresh, count / new, seed)
    held = held.concat(images.held)
    detector.update(kept.concat(images.unread), options=options)
    scored = score(detector, held, options.progress)
    limit, threshold = _limit(before, rate, wanted if count + old >= needed else None)
    groups = groups_of([scored], [held])
    detector.decision_ = decision_of([scored], groups, false_alarm_rate=limit, threshold=threshold)
    _note(detector, [scored], [])


def _cross(detector: Detector, images: _Images, rate: float | None, seed: int, options: FitOptions) -> None:
    before, fresh = detector.decision_, images.fresh
    assert before is not None  # checked
    parts, sides = list[Scored](), list[Samples]()
    labels = units(fresh).tolist()
    alone = len(set(labels)) < 2
    folds = [np.arange(len(fresh))] if alone else calibration.folds(len(fresh), FOLDS, seed, labels)
    for rows in folds:
        fold = copy.copy(detector)
        fold.decision_ = None
        if not alone:
            fold.update(fresh.take(np.setdiff1d(np.arange(len(fresh)), rows)), options=options)
        sides.append(fresh.take(rows))
        parts.append(score(fold, sides[-1], options.progress))
    seen = detector.seen_["calibrated"]
    detector.update(fresh.concat(images.unread), options=options)
    enough = before.parts + sum(len(np.unique(units(side))) for side in sides)
    wanted = max(_wanted(before, None), calibration.smallest_rate(enough))
    limit, threshold = _limit(before, rate, wanted)
    detector.decision_ = decision_of(
        parts,
        groups_of(parts, sides),
        false_alarm_rate=limit,
        threshold=threshold,
        method="cross",
        earlier=before,
    )
    _note(detector, parts, seen)


def _wanted(before: Decision | None, rate: float | None) -> float:
    """The rate that is asked for: the named one, else the model's own; a named threshold has none."""
    if rate is not None:
        return rate
    return calibration.DEFAULT_RATE if before is None or before.fixed else before.false_alarm_rate


def _limit(
    before: Decision | None, rate: float | None, wanted: float | None
) -> tuple[float | None, float | None]:
    """(rate, threshold) that is asked for: the named rate, else the model's own."""
    if rate is None and before is not None and before.fixed:
        return None, before.threshold
    return (rate if rate is not None else wanted), None


def _note(detector: Detector, parts: list[Scored], earlier: list[str]) -> None:
    """What it is calibrated on now, and which files could not be read."""
    detector.seen_["calibrated"] = [*earlier, *(digest for part in parts for digest in part.digests)]
    known = {path for path, _ in detector.skipped_}
    detector.skipped_ += [error for part in parts for error in part.errors if error[0] not in known]
