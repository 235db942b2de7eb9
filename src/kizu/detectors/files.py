"""Opening a fitted detector that `Detector.save` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from kizu import cards, registry, store
from kizu import precision as precisions
from kizu.adaptation.base import Adaptation
from kizu.detectors._appearance import Appearance
from kizu.detectors.base import Detector
from kizu.detectors.decision import lies_outside
from kizu.detectors.runtime import Runtime, build
from kizu.errors import KizuError, ModelFileError, UsageError
from kizu.representations.sources import unpack
from kizu.roi import Roi


def load_detector(
    path: Path | str,
    *,
    device: str | torch.device = "auto",
    precision: str | None = None,
    roi: Any = None,
) -> Detector:
    """Nothing of the file is executed and no network is touched.

    device, precision: where and how to run it, when not as it was fitted. roi: what `Roi.of` takes, where the
    region that it learned lies in the images to come, when not where it did. Raises ModelFileError;
    UsageError for a device or precision that is not there, or a region that it has not learned.
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
    if roi is not None:
        _move(detector, Roi.of(roi))
    return detector


def _move(detector: Detector, roi: Roi) -> None:
    """Look for what was learned at another place of the images. Raises UsageError for a region of another
    shape: it would be scored against what it does not look like."""
    learned, sizes = detector.roi, detector.decision_.file_sizes if detector.decision_ else None
    if learned is not None:
        sides: tuple[int, ...] | None = (learned.box[3], learned.box[2]) * 2
    else:
        sides = sizes
    same = np.array_equal(roi.inside, learned.inside if learned else None)  # type: ignore[arg-type]
    if not same or (sides and lies_outside((roi.box[3], roi.box[2]), sides[:2], sides[2:])):
        what = f"a region of {sides[0]} x {sides[1]} pixels" if learned and sides else "whole images"
        raise UsageError(
            f"The model learned {what} (height x width){', of another shape' if not same else ''}; a region "
            f"of {roi.box[3]} x {roi.box[2]} shows it something else, and its decision would not hold. Fit a "
            "model with this --roi (Python: roi=)."
        )
    detector.roi = roi
    if learned is None and detector.decision_ is not None:
        detector.decision_.file_sizes = None  # the region was compared with them, in the place of the files


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
        peaks = tensors.get("calibration.peaks")
        if peaks is not None:
            store.expect(path, tensors, {"calibration.scores": "n", "calibration.peaks": "n"})
            detector.decision_.set_peaks(peaks.float().numpy())
        if sizes:
            detector.decision_.file_sizes = (sizes[0], sizes[1], sizes[2], sizes[3])
        detector.decision_.appearance = Appearance.restored(path, tensors)
    except KizuError as error:
        raise ModelFileError(f"{path}: the calibration gives no decision ({error}).") from error
