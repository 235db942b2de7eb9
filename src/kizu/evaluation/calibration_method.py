"""Which calibration a fit gets, and how many good images it holds out: decided before any work is done."""

from __future__ import annotations

import numpy as np

from kizu import calibration
from kizu.calibration import DEFAULT_RATE as DEFAULT_RATE
from kizu.detectors.base import Detector
from kizu.errors import TooFewImages, UsageError
from kizu.protocols.base import units
from kizu.samples import Samples

METHODS = ("auto", "split", "cross", "none")
HELD_OUT = 0.2


def choose(detector: Detector, data: Samples, false_alarm_rate: float | None, method: str) -> str:
    """The method that `fit_calibrated` will use: "split", "cross" or "none". Raises what it raises before it
    does any work."""
    if method not in METHODS:
        raise UsageError(f"The calibration method is one of {', '.join(METHODS)}, got {method!r}.")
    if method == "none" and false_alarm_rate is not None:
        raise UsageError(
            f"A false-alarm rate, {false_alarm_rate:g}, has no effect without calibration. Leave one of them "
            "away."
        )
    good = good_and_flawed(data)[0]
    count = len(np.unique(units(good)))
    # of two images each would be scored by the other: by a distance, both alike
    least = 2 if detector.trains else 3
    if method == "none" or (method == "auto" and false_alarm_rate is None and count < least):
        return "none"
    if detector.trains and method == "cross":
        raise UsageError(
            "Cross-conformal calibration pools the scores of several fits, and two trainings give two scales "
            f"of scores: for {type(detector).__name__} the rate would be wrong. Use split."
        )
    kind = "good images" if count == len(good) else "groups of good images"
    return plan(count, false_alarm_rate, "split" if detector.trains else method, kind)


def plan(count: int, false_alarm_rate: float | None, method: str, kind: str = "good images") -> str:
    """ "split" or "cross" for `count` good images, or groups, as `kind` says. Raises TooFewImages where
    neither can back a named rate.

    >>> plan(40, 0.05, "auto"), plan(100, 0.05, "auto"), plan(40, 0.05, "split")
    ('cross', 'split', 'split')
    """
    rate = DEFAULT_RATE if false_alarm_rate is None else false_alarm_rate
    needed = calibration.images_needed(rate)
    if method == "auto":
        method = "split" if held_out(count, None) >= needed else "cross"
    available = held_out(count, false_alarm_rate) if method == "split" else count
    if false_alarm_rate is not None and available < needed:
        total, most = (needed, "") if method == "cross" else (2 * needed, ", at most half of them")
        raise TooFewImages(
            f"A false-alarm rate of {rate:g} takes {needed} {kind} to calibrate on; {count} {kind} leave "
            f"{available} ({method}{most}). Provide at least {total}, or ask for "
            f"{calibration.smallest_rate(max(available, 1)):.3g} or more."
        )
    return method


def held_out(count: int, false_alarm_rate: float | None) -> int:
    """How many of `count` good images (or groups) split holds out: a fifth, or as many as a named rate needs,
    at most half. The others are learned from.

    >>> held_out(20, None), held_out(20, 0.1), held_out(16, 0.1), held_out(1000, 0.01)
    (4, 9, 8, 200)
    """
    fifth = min(max(round(count * HELD_OUT), 1), count - 1)
    if false_alarm_rate is None:
        return fifth
    return max(fifth, min(calibration.images_needed(false_alarm_rate), count // 2))


def good_and_flawed(data: Samples) -> tuple[Samples, Samples]:
    """(images not labelled anomalous, images labelled anomalous)."""
    return data.take(np.flatnonzero(data.labels != 1)), data.anomalous
