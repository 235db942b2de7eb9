"""What `kizu inspect` says at its end: how many were called anomalous, and what makes that doubtful."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kizu.errors import counted

if TYPE_CHECKING:
    from kizu.detectors.base import Detector


def warnings_of(rows: list[dict[str, Any]], detector: Detector) -> list[str]:
    """What makes the results doubtful; another product comes first, and alone. rows: of results.jsonl."""
    from kizu.evaluation.promises import broken_promise, other_product

    scored = [row for row in rows if row["score"] is not None]
    known = [bool(row["unlike"]) for row in scored if row.get("unlike") is not None]
    called = sum(bool(row["is_anomalous"]) for row in scored)
    other = other_product(sum(known), len(known), detector.decision_)
    broken = None if other else broken_promise(called, len(scored), detector.decision_, good=False)
    return [sentence for sentence in (other, broken) if sentence]


def summary(rows: list[dict[str, Any]], detector: Detector) -> str:
    """One sentence; of a model without a decision it is another one than of none called anomalous."""
    images = counted(len(rows), "image")
    if detector.decision_ is None:
        scored = sum(row["score"] is not None for row in rows)
        return (
            f"{images}, {scored} scored, none decided: the model is not calibrated. `kizu calibrate MODEL "
            "GOOD`, with good images that it has not learned from, gives it a decision."
        )
    return f"{images}, {sum(bool(row['is_anomalous']) for row in rows)} called anomalous."


def facts_of(detector: Detector) -> dict[str, Any]:
    """What inspection.json says of the model."""
    return {
        "model": detector.parameters,
        "detector": type(detector).__name__,
        "calibration": detector.decision_.facts() if detector.decision_ else None,
        "precision": detector.precision_.facts() if detector.precision_ else None,
    }
