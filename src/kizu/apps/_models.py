"""`kizu calibrate` and `kizu update`: a model file becomes another one, whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kizu
from kizu import store
from kizu.apps._commands import error_list, read, training
from kizu.apps._fit import promise
from kizu.apps._screen import Screen
from kizu.errors import UsageError, counted

if TYPE_CHECKING:
    from kizu.detectors.base import Detector
    from kizu.samples import Samples


@dataclass(frozen=True)
class Files:
    """The model that is read, and where the new one goes: None replaces it."""

    model: Path
    out: Path | None
    overwrite: bool

    def check(self, good: Path | None) -> None:
        """Raise, before any work, for an output that may not be written."""
        if self.out is None and self.overwrite:
            raise UsageError("--overwrite has no effect without -o: the model is replaced. Leave it away.")
        if self.out is None:
            store.check_output(self.model, store.CARD, overwrite=True)
        else:
            inputs: list[Path | str] = [self.model, *([good] if good else [])]
            store.check_output(self.out, store.CARD, overwrite=self.overwrite, inputs=inputs)

    @property
    def target(self) -> Path:
        """The file that is written."""
        return self.out or self.model

    def save(self, detector: Detector) -> None:
        """Write the model."""
        detector.save(self.target, overwrite=self.overwrite or self.out is None)


def calibrate(
    files: Files,
    good: Path | None,
    *,
    false_alarm_rate: float | None,
    threshold: float | None,
    dataset: str,
    category: str | None,
    precision: str | None,
    as_json: bool,
) -> int:
    """`kizu calibrate`."""
    from kizu.evaluation.calibrated import with_copies_grouped

    screen = Screen(as_json)
    files.check(good)
    if good is None and (dataset != "folder" or category or precision):
        raise UsageError(
            "--dataset, --category and --precision have no effect without GOOD: leave them away."
        )
    detector = kizu.load(files.model)
    if good is None:
        detector.recalibrate(false_alarm_rate=false_alarm_rate, threshold=threshold)
    else:
        detector = kizu.load(files.model, precision=precision) if precision else detector
        samples = _good(dataset, good, category, files)
        with screen.progress(len(samples)) as progress:
            known = with_copies_grouped(samples, progress, white_level=detector.white_level)
            detector.recalibrate(known, false_alarm_rate=false_alarm_rate, threshold=threshold)
    files.save(detector)
    skipped = detector.skipped_ if good is not None else []
    return _close(screen, files, detector, skipped, {})


def update(
    files: Files,
    good: Path,
    *,
    false_alarm_rate: float | None,
    method: str,
    seed: int,
    dataset: str,
    category: str | None,
    precision: str | None,
    as_json: bool,
) -> int:
    """`kizu update`."""
    from kizu.evaluation.updating import update_calibrated
    from kizu.training import FitOptions

    screen = Screen(as_json)
    files.check(good)
    detector = kizu.load(files.model, precision=precision)
    detector.check_update()
    samples = _good(dataset, good, category, files)
    before = detector.decision_
    with screen.progress(len(samples)) as progress:
        update_calibrated(
            detector,
            samples,
            false_alarm_rate=false_alarm_rate,
            method=method,
            seed=seed,
            options=FitOptions(progress=progress),
        )
    files.save(detector)
    event = detector.history_[-1]
    left_out = f"; {event['left_out']} left out, learned from before" if event["left_out"] else ""
    screen.say(f"Learned from {counted(event['images'], 'more good image')}{left_out}.")
    after = detector.decision_
    if before and after and before.method == "split" != after.method:
        screen.say(
            "The promise of the model before became an estimate: give the images of its calibration among "
            "GOOD, or more new ones, to have a promise again (or --calibration split, for a larger rate)."
        )
    known = {"images": detector.images_seen_, "added": event["images"], "left_out": event["left_out"]}
    return _close(screen, files, detector, detector.skipped_, known)


def _good(dataset: str, good: Path, category: str | None, files: Files) -> Samples:
    """The good images. Raises UsageError for flawed ones among them."""
    from kizu.evaluation.updating import refuse_flawed

    samples = read(dataset, good, category)
    store.refuse_inputs(files.target, samples.paths)
    refuse_flawed(samples.to_learn)
    return training(samples)


def _close(
    screen: Screen, files: Files, detector: Detector, skipped: list[tuple[str, str]], more: dict[str, Any]
) -> int:
    screen.say(f"Wrote {files.target}. {promise(detector)}")
    screen.unused(skipped)
    calibration = detector.decision_.facts() if detector.decision_ else None
    facts = {"model": str(files.target), **more, "calibration": calibration}
    screen.result({**facts, "skipped": error_list(skipped)})
    return 1 if skipped else 0
