"""Whether a representation has seen images before: by its card, which lists what it was trained or adapted
on."""

from __future__ import annotations

from typing import Any

from kizu.errors import UsageError, some
from kizu.images import image_digest
from kizu.representations.base import Representation
from kizu.samples import Samples


def seen_digests(card: dict[str, Any]) -> set[str]:
    """SHA-256 of the decoded images that a card lists under "images_seen", those of the cards within it too.

    >>> parts = [{"images_seen": ["c"]}]
    >>> sorted(seen_digests({"images_seen": ["a"], "base": {"images_seen": ["b"]}, "parts": parts}))
    ['a', 'b', 'c']
    """
    values = [one for value in card.values() for one in (value if isinstance(value, list) else [value])]
    inner = [seen_digests(value) for value in values if isinstance(value, dict)]
    return set(card.get("images_seen", ())).union(*inner)


def seen_images(representation: Representation, samples: Samples) -> list[str]:
    """Paths of the samples that the representation has seen. Files are opened only if its card lists any
    image."""
    digests = seen_digests(representation.card)
    return [path for path in samples.paths if image_digest(path) in digests] if digests else []


def refuse_seen(representation: Representation, samples: Samples) -> None:
    """Raise UsageError when the representation has seen images that a detector is to be calibrated on."""
    seen = seen_images(representation, samples)
    if seen:
        raise UsageError(
            f"{representation.card['name']} has seen {len(seen)} of the {len(samples)} images to calibrate "
            f"on: {some(seen, 3)}. Good parts that it has not seen score higher, so the promise would not "
            "hold. Adapt within the fit instead (adaptation=NAME), or calibrate on other images."
        )
