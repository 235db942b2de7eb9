"""A fitted detector <-> disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kizu import registry, store
from kizu.errors import ModelFileError, UsageError
from kizu.representations.sources import embed, unembed

if TYPE_CHECKING:
    from kizu.detectors.base import Detector


def save(detector: Detector, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write state, representation, calibration scores and card. Raises OutputExists."""
    tensors, representation = embed(detector.representation)
    tensors |= {f"detector.{name}": tensor for name, tensor in detector._state().items()}
    calibration = dict(detector.calibration_) if detector.calibration_ else None
    if calibration:
        tensors["calibration.scores"] = torch.from_numpy(calibration.pop("scores"))
    card = {
        "kind": "detector",
        "detector": type(detector).__module__.rpartition(".")[2],
        "parameters": detector.parameters,
        "representation": representation,
        "calibration": calibration,
        "images": detector.images_seen_,
        "provenance": store.provenance(),
    }
    return store.save(path, tensors, card, overwrite=overwrite)


def load(path: Path | str, *, device: str = "auto", precision: str | None = None) -> Detector:
    """Open a fitted detector that `save` wrote. Nothing of the file is executed and no network is touched.

    device, precision: where and how to run it, when not as it was fitted. Raises ModelFileError.
    """
    from kizu.detectors.base import build

    tensors, card = store.load(path)
    if card.get("kind") != "detector":
        raise ModelFileError(
            f"{path} holds a {card.get('kind')}, not a detector. Representations are opened by "
            "kizu.representation."
        )
    try:
        kind = registry.load("detectors", str(card["detector"]))
        parameters = {
            **_parameters(card["parameters"]),
            "device": device,
            **({"precision": precision} if precision else {}),
        }
        detector: Detector = build(kind, unembed(card["representation"], tensors), parameters)
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        raise ModelFileError(
            f"{path}: the card does not describe a detector that this kizu can build ({error})."
        ) from error
    own = {
        name.removeprefix("detector."): tensor
        for name, tensor in tensors.items()
        if name.startswith("detector.")
    }
    store.expect(path, own, type(detector)._shapes)
    store.expect(path, own, dict.fromkeys(own, "..."))
    try:
        detector._restore(own)
    except (KeyError, IndexError, RuntimeError) as error:
        raise ModelFileError(f"{path}: the tensors do not fit together ({error}).") from error
    detector.fitted_, detector.images_seen_ = True, int(card.get("images", 0))
    if card.get("calibration"):
        _restore_calibration(path, detector, card["calibration"], tensors)
    return detector


def _parameters(raw: Any) -> dict[str, Any]:
    """JSON has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in dict(raw).items()}


def _restore_calibration(
    path: Path | str, detector: Detector, card: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> None:
    store.expect(path, tensors, {"calibration.scores": "n"})
    scores: np.ndarray = tensors["calibration.scores"].numpy()
    try:
        display = card.get("map_range")
        map_range = (float(display[0]), float(display[1])) if display else None
        detector.set_calibration(
            scores, float(card["false_alarm_rate"]), method=str(card["method"]), map_range=map_range
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: the calibration in the card is incomplete ({error}).") from error
