"""Opening a fitted detector that `Detector.save` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from kizu import registry, store
from kizu.adaptation.base import Adaptation
from kizu.detectors.base import Detector
from kizu.detectors.runtime import Runtime, build
from kizu.errors import ModelFileError, UsageError
from kizu.representations.sources import unpack


def load_detector(path: Path | str, *, device: str = "auto", precision: str | None = None) -> Detector:
    """Nothing of the file is executed and no network is touched.

    device, precision: where and how to run it, when not as it was fitted. Raises ModelFileError; UsageError
    for a device or precision that is not there.
    """
    if not isinstance(path, str | Path):
        raise UsageError(f"kizu.load takes the path of a model, got {type(path).__name__}.")
    Runtime(device=device, precision=precision or "auto")
    tensors, card = store.load(path)
    if card.get("kind") != "detector":
        raise ModelFileError(
            f"{path} holds a {card.get('kind')}, not a detector. Representations are opened by "
            "kizu.representation."
        )
    try:
        kind = registry.load("detectors", str(card["detector"]))
        parameters = {**_parameters(card["parameters"]), "device": device}
        parameters |= {"precision": precision} if precision else {}
        representation = unpack(card["representation"], tensors)
        base = getattr(representation, "base", representation) if card.get("adaptation") else representation
        adaptation = Adaptation(**card["adaptation"]) if card.get("adaptation") else None
        detector: Detector = build(kind, base, parameters, adaptation=adaptation)
        detector.representation_ = representation
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        raise ModelFileError(
            f"{path}: the card does not describe a detector that this kizu can build ({error})."
        ) from error
    _restore_state(path, detector, store.without_prefix(tensors, "detector."))
    detector.fitted_, detector.images_seen_ = True, int(card.get("images", 0))
    _restore_origin(path, detector, card)
    if card.get("calibration"):
        _restore_calibration(path, detector, card["calibration"], tensors)
    return detector


def _restore_state(path: Path | str, detector: Detector, state: dict[str, torch.Tensor]) -> None:
    store.expect(path, state, type(detector)._shapes)
    store.expect(path, state, dict.fromkeys(state, "..."))
    try:
        detector._restore(state)
        detector._prepare_scoring()
    except (KeyError, IndexError, RuntimeError) as error:
        raise ModelFileError(f"{path}: the tensors do not fit together ({error}).") from error


def _parameters(raw: Any) -> dict[str, Any]:
    """JSON has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in dict(raw).items()}


def _restore_origin(path: Path | str, detector: Detector, card: dict[str, Any]) -> None:
    """What it was fitted and calibrated on, and at which size."""
    try:
        size = card["size"]
        detector.size_ = None if size is None else (int(size[0]), int(size[1]))
        detector.seen_ = {role: [str(one) for one in card["seen"][role]] for role in ("fitted", "calibrated")}
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelFileError(f"{path}: the card does not say what it was fitted on ({error}).") from error


def _restore_calibration(
    path: Path | str, detector: Detector, card: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> None:
    store.expect(path, tensors, {"calibration.scores": "n", "calibration.groups": "n"})
    scores: np.ndarray = tensors["calibration.scores"].numpy()
    groups: list[int] = tensors["calibration.groups"].tolist()
    try:
        display = card.get("map_range")
        map_range = (float(display[0]), float(display[1])) if display else None
        detector.set_calibration(
            scores,
            float(card["false_alarm_rate"]),
            groups=groups,
            method=str(card["method"]),
            map_range=map_range,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: the calibration in the card is incomplete ({error}).") from error
