"""Opening a fitted detector that `Detector.save` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kizu import cards, registry, store
from kizu import precision as precisions
from kizu.adaptation.base import Adaptation
from kizu.detectors._appearance import Appearance
from kizu.detectors.base import Detector
from kizu.detectors.runtime import Runtime, build
from kizu.errors import KizuError, ModelFileError, UsageError
from kizu.representations.sources import unpack


def load_detector(
    path: Path | str, *, device: str | torch.device = "auto", precision: str | None = None
) -> Detector:
    """Nothing of the file is executed and no network is touched.

    device, precision: where and how to run it, when not as it was fitted. Raises ModelFileError; UsageError
    for a device or precision that is not there.
    """
    if not isinstance(path, str | Path):
        raise UsageError(f"kizu.load takes the path of a model, got {type(path).__name__}.")
    device = str(device) if isinstance(device, torch.device) else device
    Runtime(device=device, precision=precision or "auto")
    card = store.load_card(path)
    cards.check(card, "detector", path)
    tensors = store.load_tensors(path)
    store.expect(path, tensors, dict.fromkeys(tensors, "..."))
    try:
        kind = registry.load("detectors", card["detector"])
        parameters = {**_parameters(card["parameters"]), "device": device}
        parameters |= {"precision": precision} if precision else {}
        representation = unpack(card["representation"], tensors)
        base = representation.unadapted if card.get("adaptation") else representation
        adaptation = Adaptation(**card["adaptation"]) if card.get("adaptation") else None
        detector: Detector = build(kind, base, parameters, adaptation=adaptation)
        detector.representation_ = representation
        _adopt_precision(detector, card)
    except (KeyError, TypeError, AttributeError, KizuError) as error:
        raise ModelFileError(
            f"{path}: the card does not describe a detector that this kizu can build ({error})."
        ) from error
    _restore_state(path, detector, store.without_prefix(tensors, "detector."))
    detector.fitted_, detector.images_seen_ = True, card["images"]
    detector.size_ = None if card["size"] is None else (card["size"][0], card["size"][1])
    detector.seen_ = {role: card["seen"][role] for role in ("fitted", "calibrated")}
    events = ("date", "images", "digests", "left_out")
    detector.history_ = [{name: one[name] for name in events} for one in card.get("history", [])]
    if card["calibration"]:
        _restore_calibration(path, detector, card["calibration"], tensors)
    return detector


def _adopt_precision(detector: Detector, card: dict[str, Any]) -> None:
    """On the machine where it was fitted "auto" is what it was then: its decision was calibrated so."""
    choice = precisions.Choice.of(card.get("precision"))
    here = choice is not None and choice.machine == precisions.machine()
    if choice is not None and here and detector.precision == "auto" == card["parameters"]["precision"]:
        detector.precision_ = choice


def _restore_state(path: Path | str, detector: Detector, state: dict[str, torch.Tensor]) -> None:
    store.expect(path, state, type(detector)._shapes)
    try:
        detector._restore(state)
        detector._prepare_scoring()
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError, KizuError) as error:
        raise ModelFileError(f"{path}: the tensors do not fit together ({error}).") from error


def _parameters(raw: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}


def _restore_calibration(
    path: Path | str, detector: Detector, card: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> None:
    store.expect(path, tensors, {"calibration.scores": "n", "calibration.groups": "n"})
    shown, sizes = card.get("map_range"), card.get("file_sizes")
    try:
        detector.set_calibration(
            tensors["calibration.scores"].float().numpy(),
            None if card.get("fixed") else card["false_alarm_rate"],
            groups=tensors["calibration.groups"].tolist(),
            method=card["method"],
            map_range=None if shown is None else (shown[0], shown[1]),
            threshold=card.get("threshold") if card.get("fixed") else None,
        )
        assert detector.decision_ is not None  # just set
        if sizes:
            detector.decision_.file_sizes = (sizes[0], sizes[1], sizes[2], sizes[3])
        detector.decision_.appearance = Appearance.restored(path, tensors)
    except KizuError as error:
        raise ModelFileError(f"{path}: the calibration gives no decision ({error}).") from error
