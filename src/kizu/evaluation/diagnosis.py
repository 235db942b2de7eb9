"""How a detector by reconstruction learns: loss, feature diversity and test figures during its training, and
the landscape of its map.

A diagnosis is a folder:

    diagnosis.json   name, detector, representation, parameters, protocol, seed, images (train, test),
                     inputs: digests of the weights and of both lists of images
                     "steps": rows {step, loss, diversity}
                     "tests": rows {step, image_auroc, pixel_auroc, aupro_0.3}
                     "last": the last of these
                     "best_oracle": the one of the highest image AUROC; it is chosen on the test labels
                     "landscape": null or {offsets, values}
                     "skipped": [{path, error}] of files that were not used
    training/        log.jsonl, and checkpoint.kizu until the end

Source: ReContrast (NeurIPS 2023), figures 4, 5a and 5b, and the "last/best" of table 6.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from kizu import registry, store
from kizu.detectors.base import Detector
from kizu.detectors.reconstruction import ReconstructionDetector
from kizu.errors import EmptyData, LayoutError, NotFitted, UnknownName, UsageError
from kizu.evaluation.measure import fits_in_memory, headline
from kizu.evaluation.predict import predict_all
from kizu.loader import batches
from kizu.locks import locked
from kizu.protocols.base import Split
from kizu.representations.weights import digest
from kizu.samples import Samples
from kizu.training import FitOptions
from kizu.types import Batch, Progress

NAME = "diagnosis.json"
RECORD = "diagnosing.json"
"""Marks the folder of a diagnosis from its beginning."""
TESTED = ("image_auroc", "pixel_auroc", "aupro_0.3")
LANDSCAPE_IMAGES = 8
"""Good test images over which the landscape's map is averaged."""


def variants() -> dict[str, tuple[str, dict[str, Any]]]:
    """Variant of ReContrast's table 6 -> (detector, parameters): A, B, B+hm, C, D, C+cp, E-gl, E, full."""
    detectors = ("reverse_distillation", "recontrast")
    return {
        name: (detector, parameters)
        for detector in detectors
        for name, parameters in registry.module("detectors", detector).ABLATIONS.items()
    }


def variant(name: str) -> tuple[str, dict[str, Any]]:
    """(detector, parameters) of a variant. Raises UnknownName."""
    known = variants()
    if name not in known:
        raise UnknownName("variant", name, known)
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
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train on split.train, test on split.test every `every` steps and at the end, and write the folder
    `out`.

    landscape: points along a side of figure 4's square, 0 for none; each point predicts 8 test images.
    checkpoint_every: steps between checkpoints. An interrupted run goes on from its last checkpoint; a
    finished one is read. overwrite: remove what is there first. Returns what diagnosis.json holds. Raises
    UsageError for a detector that does not learn by reconstruction and while another run writes into `out`,
    EmptyData without flawed or without good test images, LayoutError when `out` holds another run,
    OutputExists when it is not kizu's."""
    reconstruction = _checked(detector, split, landscape)
    facts = _facts(name, detector, split, every, landscape)
    if overwrite or not store.has_record(out, RECORD):
        store.check_output(out, RECORD, overwrite=overwrite)
    with locked(out):
        if overwrite:
            store.remove_folder(out, RECORD)
        if store.has_record(out, RECORD):
            _check_same(out, store.read_record(out, RECORD), facts)
        else:
            store.write_record(out, RECORD, facts)
        if (out / NAME).exists():
            return read_diagnosis(out)
        return _run(reconstruction, split, out, facts, checkpoint_every, progress)


def _run(
    detector: ReconstructionDetector,
    split: Split,
    out: Path,
    facts: dict[str, Any],
    checkpoint_every: int,
    progress: Progress | None,
) -> dict[str, Any]:
    training, evaluator = out / "training", Evaluator(split.test, detector)
    options = FitOptions(
        progress=progress,
        folder=training,
        resume=(training / "checkpoint.kizu").exists(),
        checkpoint_every=checkpoint_every,
        evaluate=evaluator,
        evaluate_every=facts["every"],
    )
    detector.fit(split.train, options=options)
    curves = _curves(detector.log_)
    landscape = _landscape(detector, split.test, facts["landscape_side"])
    read = {"train": detector.images_seen_, "test": len(split.test) - len(evaluator.errors)}
    unread = dict.fromkeys([*detector.skipped_, *evaluator.errors])
    skipped = [{"path": path, "error": reason} for path, reason in unread]
    record = {**facts, **curves, "images": read, "landscape": landscape, "skipped": skipped}
    store.write_json(out / NAME, record)
    (training / "checkpoint.kizu").unlink(missing_ok=True)
    return record


def read_diagnosis(folder: Path) -> dict[str, Any]:
    """diagnosis.json of a folder. Raises LayoutError."""
    try:
        record: dict[str, Any] = json.loads((folder / NAME).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LayoutError(
            f"{folder} holds no readable {NAME} ({error}). `kizu diagnose` writes it."
        ) from error
    return record


class Evaluator:
    """Test figures of a detector as it is now. The test images are decoded once, if they fit in memory.
    errors: (path, reason) of those that cannot be read."""

    def __init__(self, test: Samples, detector: Detector) -> None:
        self._test, self._batches, self.errors = test, None, list[tuple[str, str]]()
        if fits_in_memory(len(test) * 3, detector.image_size):
            self._batches = self._decode(detector)

    def __call__(self, step: int, detector: Any) -> dict[str, float]:
        """Those of image_auroc, pixel_auroc and aupro_0.3 that are defined."""
        predictions = predict_all(detector, self._test, source=self._batches)
        self.errors = predictions.errors or self.errors
        figures = headline(predictions.measure(self._test).metrics)
        return {name: value for name in TESTED if (value := figures[name]) is not None}

    def _decode(self, detector: Detector) -> list[Batch]:
        with batches(
            self._test,
            image_size=detector.image_size,
            batch_size=detector.batch_size,
            on_error="collect",
            white_level=detector.white_level,
            roi=detector.roi,
        ) as loader:
            decoded = list(loader)
            self.errors = loader.errors
            return decoded


def _checked(detector: Detector, split: Split, landscape: int) -> ReconstructionDetector:
    if not isinstance(detector, ReconstructionDetector):
        raise UsageError(
            f"{type(detector).__name__} is not trained step by step; the variants that are: "
            f"{', '.join(variants())}."
        )
    if landscape == 1 or landscape < 0:
        raise UsageError(
            f"landscape is how many points a side has, at least 2, or 0 for none; got {landscape}."
        )
    if len(set(split.test.labels.tolist())) < 2:
        raise EmptyData("Figures during the training need good and flawed images to test on.")
    return detector


def _facts(name: str, detector: Detector, split: Split, every: int, landscape: int) -> dict[str, Any]:
    """All that decides the outcome."""
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
        "inputs": [digest(detector.representation), split.train.digest(), split.test.digest()],
        "every": every,
        "landscape_side": landscape,
    }


def _check_same(out: Path, before: dict[str, Any], facts: dict[str, Any]) -> None:
    """Raise LayoutError when a folder is that of another run."""
    different = [key for key, value in facts.items() if before.get(key) != value]
    if different:
        raise LayoutError(
            f"{out} holds the diagnosis of another run: {', '.join(different)} differ. Give another folder, "
            "or --overwrite."
        )


def _curves(log: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows of the training's log, by what they say."""
    steps = [{key: row[key] for key in ("step", "loss", "diversity")} for row in log]
    tests = [
        {key: row[key] for key in ("step", *TESTED) if key in row} for row in log if "image_auroc" in row
    ]
    if not tests:
        raise NotFitted(
            "The training left no test figures: its folder was written by a run that did not test. Give "
            "another folder."
        )
    best = max(tests, key=lambda row: row["image_auroc"])
    return {"steps": steps, "tests": tests, "last": tests[-1], "best_oracle": best}


def _landscape(detector: ReconstructionDetector, test: Samples, side: int) -> dict[str, Any] | None:
    if not side:
        return None
    good = test.normal.take(list(range(min(LANDSCAPE_IMAGES, len(test.normal)))))
    with batches(
        good,
        image_size=detector.image_size,
        batch_size=LANDSCAPE_IMAGES,
        on_error="collect",
        white_level=detector.white_level,
        roi=detector.roi,
    ) as loader:
        images = torch.cat([batch.require_images() for batch in loader])
    offsets, values = detector.map_landscape(images, steps=side, seed=detector.seed)
    return {"offsets": offsets.tolist(), "values": values.tolist(), "images": len(images)}
