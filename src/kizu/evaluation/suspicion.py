"""Good pictures that do not look good: a flaw among the images to learn from raises the threshold, and then
flaws are missed.

The rule. Each good image has the score of a model that has not seen it. Scores of good images are largest
values over many patches, for which the Gumbel distribution is the model (Fisher and Tippett 1928); it is
fitted to the quartiles, which a few flawed images do not move. An image *stands out* when a set of as many
good images has one so high with probability below LEVEL: score > location + scale ln(n / LEVEL). The rule is
a reason to look, no proof."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kizu.detectors.base import Detector
from kizu.detectors.scored import Scored
from kizu.errors import NotFinite, UsageError, counted
from kizu.evaluation.calibrated import cross_scored, identified
from kizu.samples import Samples
from kizu.training import FitOptions

LEVEL = 0.05
"""The probability that any of a set of good images stands out."""
LEAST = 12
"""Images without which quartiles say too little; of fewer none stands out."""
ROUNDS = 3
"""How often the suspicious are left out and the others scored anew."""
MOST = 0.1
"""Share of the images that may be left out."""


@dataclass(frozen=True)
class Suspicion:
    """Good images, the highest score first. limit: the score beyond which one stands out. maps: (H, W) of the
    first ones, by path."""

    paths: list[str]
    scores: list[float]
    limit: float
    maps: dict[str, NDArray[np.float32]]

    @property
    def outstanding(self) -> list[str]:
        """Those that stand out."""
        return [path for path, score in zip(self.paths, self.scores, strict=True) if score > self.limit]


def outlier_limit(scores: Sequence[float] | NDArray[np.floating]) -> float:
    """The score above which one of these (n,) scores stands out; infinite for fewer than LEAST.

    >>> outlier_limit([1.0] * 5)
    inf
    """
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise NotFinite("scores hold NaN or infinity: the detector is broken.")
    if len(values) < LEAST:
        return math.inf
    low, high = np.quantile(values, (0.25, 0.75))
    first, last = (-math.log(-math.log(share)) for share in (0.25, 0.75))
    scale = float(high - low) / (last - first)
    location = float(high) - scale * last
    return location + scale * math.log(len(values) / LEVEL)


def suspicion(parts: Sequence[Scored]) -> Suspicion:
    """Of the scores that a calibration is made of (`fit_calibrated(collected=...)`)."""
    scores = np.concatenate([part.scores for part in parts]) if parts else np.zeros(0)
    paths = [path for part in parts for path in part.paths]
    order = np.argsort(-scores, kind="stable")
    limit = outlier_limit(scores) if len(scores) else math.inf
    maps = {path: map_ for part in parts for path, map_ in part.maps.items()}
    return Suspicion([paths[at] for at in order], [float(scores[at]) for at in order], limit, maps)


def without_suspicious(
    detector: Detector, data: Samples, *, seed: int = 0, options: FitOptions | None = None
) -> tuple[Samples, Suspicion]:
    """(the good images without those that stand out, what was left out and how the others scored last).

    Each image is scored by a model fitted on the other folds; those that stand out are left out, and the
    others scored anew, at most ROUNDS times. The detector itself is not fitted. Where all that is left out
    was good after all, a part like it is called anomalous on top of the promised rate.

    Raises UsageError for what is trained, whose folds have scales of their own, and where more than MOST of
    the images stand out: then there are two kinds of good images."""
    if detector.trains:
        raise UsageError(
            "Suspicious images are found by models fitted on parts of the images, and two trainings "
            f"of {type(detector).__name__} give two scales of scores. Find them with a detector that is "
            "computed in one pass (patchcore), and give its list to --leave-out."
        )
    options = options or FitOptions()
    known = identified(data, options.progress, detector.white_level)[0]
    left, none = known, known.take([])
    outstanding = Suspicion([], [], math.inf, {})
    for _ in range(ROUNDS):
        parts = cross_scored(detector, left, none, seed, options)[0]
        found = suspicion(parts)
        names = set(found.outstanding)
        if not names:
            break
        count = len(names)
        outstanding = Suspicion(
            [*outstanding.paths, *found.paths[:count]],
            [*outstanding.scores, *found.scores[:count]],
            -math.inf,
            outstanding.maps | found.maps,
        )
        refuse_many(len(outstanding.paths), len(known))
        left = left.take([row for row, path in enumerate(left.paths) if path not in names])
    gone = set(outstanding.paths)
    kept = data.take([row for row, path in enumerate(data.paths) if path not in gone])
    return kept, outstanding


def refuse_many(count: int, images: int) -> None:
    """Raise UsageError where more than MOST of the images stand out."""
    if count > MOST * images:
        raise UsageError(
            f"{counted(count, 'image')} of {images} stand out, more than {MOST:.0%}: that is no handful of "
            "flawed pictures but another kind of good ones, or another product. Look at them without "
            "--robust, and fit a model for each kind."
        )
