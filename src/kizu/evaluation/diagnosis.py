"""How a detector by reconstruction learns: loss, feature diversity and test figures along its training, and
its map's landscape.

diagnosis.json   name, detector, representation, parameters, protocol, seed, images (train, test); "steps": rows {step, loss, diversity};
                 "tests": rows {step, image_auroc, pixel_auroc, aupro_0.3}; "last": the last of these;
                 "best_oracle": the one of the highest image AUROC, chosen on the test labels, hence its name;
                 "landscape": null or {offsets, values}
training/        log.jsonl, and until the end checkpoint.kizu

ReContrast (NeurIPS 2023): figures 4, 5a and 5b, and the "last/best" of table 6.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from kizu import registry, store
from kizu.detectors.reconstruction import ReconstructionDetector
from kizu.detectors.base import Detector
from kizu.errors import EmptyData, LayoutError, NotFitted, UnknownName, UsageError
from kizu.evaluation.measure import fits_in_memory, measure
from kizu.evaluation.predict import predict_all
from kizu.loader import batches
from kizu.protocols.base import Split
from kizu.samples import Samples
from kizu.training import FitOptions
from kizu.types import Batch, Progress

NAME = "diagnosis.json"
TESTED = ("image_auroc", "pixel_auroc", "aupro_0.3")
LOOKED_AT = 8
"""Test images whose mean map the landscape is of."""


def rungs() -> dict[str, tuple[str, dict[str, Any]]]:
    """Rung of ReContrast's table 6 -> (detector, parameters): A, B, B+hm, C, D, C+cp, E-gl, E, full."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for detector in ("reverse_distillation", "recontrast"):
        ladder: dict[str, dict[str, Any]] = registry.module("detectors", detector).ABLATIONS
        found |= {name: (detector, parameters) for name, parameters in ladder.items()}
    return found


def rung(name: str) -> tuple[str, dict[str, Any]]:
    """(detector, parameters) of a rung. Raises UnknownName."""
    known = rungs()
    if name not in known:
        raise UnknownName("rung", name, known)
    return known[name]


def diagnose(
    name: str,
    detector: Detector,
    split: Split,
    out: Path,
    *,
    every: int = 250,
    landscape: int = 0,
    checkpoint_every: int = 200,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train on split.train, test on split.test every `every` steps and at the end, and write `out`; returns
    diagnosis.json.

    landscape: points a side of figure 4's square, 0 for none; each costs a look at 8 test images. An
    interrupted run goes on from its last checkpoint (one every checkpoint_every steps), a finished one is
    read. Raises UsageError for a detector that does not learn by reconstruction, EmptyData without flawed or
    without good images to test on, LayoutError when `out` is another run's."""
    if not isinstance(detector, ReconstructionDetector):
        raise UsageError(
            f"{type(detector).__name__} is not trained step by step; rungs of the ladder are "
            f"{', '.join(rungs())}."
        )
    if landscape == 1 or landscape < 0:
        raise UsageError(
            f"landscape is how many points a side has, at least 2, or 0 for none; got {landscape}."
        )
    if len(set(split.test.labels.tolist())) < 2:
        raise EmptyData("Figures along the training need good and flawed images to test on.")
    wanted = _facts(name, detector, split, every, landscape)
    if (out / NAME).exists():
        return _same(out, wanted)
    training = out / "training"
    resume = (training / "checkpoint.kizu").exists()
    exam = _Exam(split.test, detector)
    options = FitOptions(
        progress=progress,
        folder=training,
        resume=resume,
        checkpoint_every=checkpoint_every,
        evaluate=exam,
        evaluate_every=every,
    )
    detector.fit(split.train, options=options)
    made = {**wanted, **_learned(detector.log_), "landscape": _landscape(detector, split.test, landscape)}
    store.write_json(out / NAME, made)
    (training / "checkpoint.kizu").unlink(missing_ok=True)
    return made


def read_diagnosis(folder: Path) -> dict[str, Any]:
    """diagnosis.json of a folder. Raises LayoutError."""
    try:
        made: dict[str, Any] = json.loads((folder / NAME).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LayoutError(
            f"{folder} holds no readable {NAME} ({error}). `kizu diagnose` writes it."
        ) from error
    return made


def forget(out: Path) -> None:
    """Remove what a diagnosis wrote, for a new one."""
    (out / NAME).unlink(missing_ok=True)
    shutil.rmtree(out / "training", ignore_errors=True)


class _Exam:
    """The test set, decoded once where it fits; called along the training."""

    def __init__(self, test: Samples, detector: Detector) -> None:
        self._test, self._held = test, None
        if fits_in_memory(len(test) * 3, detector.image_size):
            self._held = self._read(detector)

    def _read(self, detector: Detector) -> list[Batch]:
        with batches(
            self._test, image_size=detector.image_size, batch_size=detector.batch_size, on_error="collect"
        ) as loader:
            return list(loader)

    def __call__(self, step: int, detector: Any) -> dict[str, float]:
        """Figures of the detector as it is; those that are not defined are left out."""
        seen = predict_all(detector, self._test, source=self._held)
        readable = self._test.take(seen.rows)
        figures = measure(readable, seen.scores, None, seen.pixels(readable)).metrics
        image, pixel = figures["image"] or {}, figures["pixel"] or {}
        made = {
            "image_auroc": image.get("auroc"),
            "pixel_auroc": pixel.get("auroc"),
            "aupro_0.3": pixel.get("aupro_0.3"),
        }
        return {key: value for key, value in made.items() if value is not None}


def _facts(name: str, detector: Detector, split: Split, every: int, landscape: int) -> dict[str, Any]:
    """What decides the outcome."""
    plain = {
        key: list(value) if isinstance(value, tuple) else value for key, value in detector.parameters.items()
    }
    return {
        "name": name,
        "detector": type(detector).__name__,
        "representation": detector.representation.card["name"],
        "parameters": plain,
        "protocol": split.protocol,
        "seed": split.seed,
        "images": {"train": len(split.train), "test": len(split.test)},
        "every": every,
        "landscape_side": landscape,
    }


def _same(out: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    held = read_diagnosis(out)
    odd = [key for key, value in wanted.items() if held.get(key) != value]
    if odd:
        raise LayoutError(
            f"{out} holds the diagnosis of another run: {', '.join(odd)} differ. Give another folder, or "
            "--overwrite."
        )
    return held


def _learned(log: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows of the log, taken apart."""
    steps = [{key: row[key] for key in ("step", "loss", "diversity")} for row in log]
    tests = [
        {key: row[key] for key in ("step", *TESTED) if key in row} for row in log if "image_auroc" in row
    ]
    if not tests:
        raise NotFitted(
            "The training left no figures; its folder was written by a run that did not watch. Give another "
            "folder."
        )
    best = max(tests, key=lambda row: row["image_auroc"])
    return {"steps": steps, "tests": tests, "last": tests[-1], "best_oracle": best}


def _landscape(detector: ReconstructionDetector, test: Samples, side: int) -> dict[str, Any] | None:
    if not side:
        return None
    good = test.normal.take(list(range(min(LOOKED_AT, len(test.normal)))))
    with batches(good, image_size=detector.image_size, batch_size=LOOKED_AT, on_error="collect") as loader:
        images = torch.cat([batch.require_images() for batch in loader])
    offsets, values = detector.map_landscape(images, steps=side, seed=detector.seed)
    return {"offsets": offsets.tolist(), "values": values.tolist(), "images": len(images)}
