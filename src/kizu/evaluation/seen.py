"""Whether a detector has seen images before: those it was fitted or calibrated on, and those its
representation was trained or adapted on. Images are known by their pixels, not by names of files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kizu.detectors.base import Detector
from kizu.digests import seen_digests as seen_digests
from kizu.errors import ImageError, UsageError, counted, some
from kizu.evaluation.copies import for_each
from kizu.images import image_digest
from kizu.representations.base import Representation
from kizu.samples import Samples
from kizu.types import Progress


def seen_rows(detector: Detector, samples: Samples, progress: Progress | None = None) -> list[int]:
    """Rows of the samples that the detector has seen in any way. Files that cannot be read are not among
    them."""
    known = seen_digests(detector.representation_.card).union(*detector.seen_.values())
    return _rows_of(known, samples, progress)


def leave_out_seen(
    test: Samples,
    representation: Representation,
    learned: Samples,
    *,
    dataset: str = "",
    digests: dict[str, str] | None = None,
) -> tuple[Samples, int]:
    """The test images that are not among the `learned` ones and that the representation has not seen; and how
    many others there are.

    dataset: name of the data set. digests: of paths, as far as they have been computed; it grows. Raises
    UsageError where nothing is left to measure on, or the representation was trained on that data set."""
    refuse_trained_on(representation, dataset, "Take another representation.")
    digests = {} if digests is None else digests
    _add_digests(learned.paths, digests)
    known = seen_digests(representation.card).union(digests[path] for path in learned.paths) - {""}
    rows = _rows_of(known, test, digests=digests)
    left = test.take(np.setdiff1d(np.arange(len(test)), rows)) if rows else test
    refuse_all_seen(test, left)
    return left, len(rows)


def refuse_all_seen(samples: Samples, left: Samples, advice: str = "") -> None:
    """Raise UsageError where no image, or no good one, is left of samples that a model has seen. advice: one
    more way out, after a comma."""
    good = len(samples.normal)
    if not len(left) or (good and not len(left.normal)):
        what = counted(good, "good image") if good else counted(len(samples), "image")
        raise UsageError(
            f"The model has seen all {what} of this data, so that nothing can be measured on them. Give "
            "other images, or fit on a part of these (a folder train/good and a folder test/ with good and "
            f"flawed ones){advice}."
        )


def refuse_trained_on(representation: Representation, dataset: str, advice: str) -> None:
    """Raise UsageError for a representation that was trained on this data set, by its name."""
    if was_trained_on(representation, dataset):
        name = representation.card["name"]
        raise UsageError(f"{name} was trained on {dataset}: its numbers on it are too good. {advice}")


def was_trained_on(representation: Representation, dataset: str) -> bool:
    """Whether the representation's card says that it was trained on a data set of this name; a card that
    lists its images says it better."""
    card = representation.card
    return bool(dataset) and dataset in card.get("trained_on", []) and "images_seen" not in card


def refuse_seen(representation: Representation, samples: Samples) -> None:
    """Raise UsageError when the representation has seen images that a detector is to be calibrated on."""
    rows = _rows_of(seen_digests(representation.card), samples)
    if rows:
        raise UsageError(
            f"{representation.card['name']} has seen {len(rows)} of the {len(samples)} images to calibrate "
            f"on: {some(samples.take(rows).paths, 3)}. Good parts that it has not seen score higher, so the "
            "promise would not hold. Adapt within the fit instead (adaptation=NAME), or calibrate on other "
            "images."
        )


def _rows_of(
    known: set[str],
    samples: Samples,
    progress: Progress | None = None,
    digests: dict[str, str] | None = None,
) -> list[int]:
    """Rows of the samples whose digest is known. No file is opened where nothing is known."""
    if not known:
        return []
    digests = {} if digests is None else digests
    _add_digests(samples.paths, digests, progress)
    return [row for row, path in enumerate(samples.paths) if digests[path] in known]


def _add_digests(paths: Sequence[str], digests: dict[str, str], progress: Progress | None = None) -> None:
    """Add those that are not there yet; "" for a file that cannot be read."""
    new = [path for path in dict.fromkeys(paths) if path not in digests]
    digests.update(zip(new, for_each(_digest, new, progress), strict=True))


def _digest(path: str) -> str:
    try:
        return image_digest(path)
    except ImageError:
        return ""
