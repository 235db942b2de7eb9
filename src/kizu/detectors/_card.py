"""The card of a fitted detector's file; `kizu.cards` says what may stand in it."""

from __future__ import annotations

import dataclasses
from typing import Any

from kizu import store


def card_of(detector: Any, representation: dict[str, Any]) -> dict[str, Any]:
    """What the detector is, what it has seen and how it computes, as plain JSON values. representation: the
    card of what looks at images."""
    trained_in = getattr(detector, "trained_in_", None)
    return {
        "kind": "detector",
        "detector": type(detector).__module__.rpartition(".")[2],
        "parameters": detector.parameters,
        "precision": detector.precision_.facts() if detector.precision_ else None,
        "trained_in": trained_in.facts() if trained_in else None,
        "adaptation": dataclasses.asdict(detector.adaptation) if detector.adaptation else None,
        "representation": representation,
        "calibration": detector.decision_.facts() if detector.decision_ else None,
        "images": detector.images_seen_,
        "size": detector.size_,
        "seen": detector.seen_,
        "history": detector.history_,
        "provenance": store.provenance(),
    }
