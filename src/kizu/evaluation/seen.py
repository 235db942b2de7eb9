"""Whether a detector has seen images before: those it was fitted or calibrated on, and those its
representation was trained or adapted on. Images are known by their pixels, not by names of files."""

from __future__ import annotations

from typing import Any

from kizu.detectors.base import Detector
from kizu.errors import ImageError, UsageError, some
from kizu.evaluation.copies import for_each
from kizu.images import image_digest
from kizu.representations.base import Representation
from kizu.samples import Samples
from kizu.types import Progress


def seen_digests(card: dict[str, Any]) -> set[str]:
    """What identifies the images that a card lists under "images_seen", those of the cards within it too.

    >>> parts = [{"images_seen": ["c"]}]
    >>> sorted(seen_digests({"images_seen": ["a"], "base": {"images_seen": ["b"]}, "parts": parts}))
    ['a', 'b', 'c']
    >>> seen_digests({"recipe": {"images_seen": 5}})
    set()
    """
    values = [one for value in card.values() for one in (value if isinstance(value, list) else [value])]
    inner = [seen_digests(value) for value in values if isinstance(value, dict)]
    listed = card.get("images_seen")
    own = {one for one in listed if isinstance(one, str)} if isinstance(listed, list) else set()
    return own.union(*inner)


def seen_rows(detector: Detector, samples: Samples, progress: Progress | None = None) -> list[int]:
    """Rows of the samples that the detector has seen in any way. Files that cannot be read are not among
    them."""
    known = seen_digests(detector.representation_.card).union(*detector.seen_.values())
    return _rows_of(known, samples, progress)


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


def _rows_of(known: set[str], samples: Samples, progress: Progress | None = None) -> list[int]:
    """Rows of the samples whose digest is known. No file is opened where nothing is known."""
    digests = for_each(_digest, samples.paths, progress) if known else []
    return [row for row, digest in enumerate(digests) if digest in known]


def _digest(path: str) -> str:
    try:
        return image_digest(path)
    except ImageError:
        return ""
