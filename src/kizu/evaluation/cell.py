"""One cell of an experiment: split, fit, predict, measure."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import kizu
from kizu import registry
from kizu.adaptation.base import Adaptation
from kizu.detectors.base import Detector
from kizu.detectors.runtime import parameter_names
from kizu.errors import EmptyData, KizuError, NotFinite
from kizu.evaluation.cache import FeatureCache
from kizu.evaluation.measure import HEADLINE, headline
from kizu.evaluation.plan import ALL, Cell
from kizu.evaluation.predict import predict_all
from kizu.evaluation.seen import leave_out_seen
from kizu.protocols.base import Split, seeds_adaptation_only
from kizu.samples import Samples


def run_cell(cell: Cell, samples: Samples, cache: FeatureCache | None = None) -> dict[str, Any]:
    """Split, fit, predict, measure: one flat row, or {"key", "rows"} with one for each category where one
    model serves all.

    The seed is that of the split, of the adaptation, and of the detector, where it has one, none is named for
    it, and the protocol leaves it to the seeds. A detector that ends in NaN is a row with its error, not the
    end of the table. The seconds of a shared fit are shared out evenly."""
    split: Split = registry.load("protocols", cell.protocol)(samples, **cell.settings, seed=cell.seed)
    if not len(split.test):
        raise EmptyData("There is no image to test on: all are for training, or none is labelled.")
    adaptation = Adaptation(**cell.adaptation, seed=cell.seed) if cell.adaptation else None
    parameters = {**_drawn(cell), **cell.parameters}
    detector = kizu.detector(cell.detector, cell.representation, adaptation=adaptation, **parameters)
    cache = cache or FeatureCache()
    test, left_out = leave_out_seen(
        split.test,
        detector.representation,
        _not_on_purpose(split, detector),
        dataset=cell.dataset["name"],
        digests=cache.digests,
    )
    split = dataclasses.replace(split, test=test)
    names = sorted(split.test.table["category"].unique()) if cell.category == ALL else [cell.category]
    tests = {name: split.test.where(category=name) if cell.category == ALL else split.test for name in names}
    rows = [_row(cell, split, detector, name, test) for name, test in tests.items()]
    started, skipped = time.perf_counter(), list[tuple[str, str]]()
    try:
        detector.fit(cache.require(detector, _learned_from(split, detector), skipped))
        fitted = (time.perf_counter() - started) / len(rows)
        counts = {"train_images": detector.images_seen_, "left_out": left_out}
        known = {"error": None, **counts, "fit_seconds": round(fitted, 3)}
        for row, test in zip(rows, tests.values(), strict=True):
            row |= known | _measured(detector, test, cache, skipped)
    except NotFinite as error:
        rows = [
            {**_row(cell, split, detector, name, test), "error": str(error)} for name, test in tests.items()
        ]
    unread = {"skipped": list(dict.fromkeys(skipped))} if skipped else {}
    return ({"key": cell.key, "rows": rows} if cell.category == ALL else rows[0]) | unread


def _learned_from(split: Split, detector: Detector) -> Samples:
    """The training images; only the good ones for a detector that learns from these."""
    return split.train if detector.supervision == "labelled" else split.train.normal


def _not_on_purpose(split: Split, detector: Detector) -> Samples:
    """The training images that no test image may be a copy of: all but those of the protocol's overlap."""
    learned, meant = _learned_from(split, detector), set(split.overlap)
    return learned.take([row for row, path in enumerate(learned.paths) if path not in meant])


def _drawn(cell: Cell) -> dict[str, int]:
    """The seed of the detector, where it has one and the cell's seed is not the adaptation's alone."""
    has_seed = "seed" in parameter_names(registry.load("detectors", cell.detector))
    return {"seed": cell.seed} if has_seed and not seeds_adaptation_only(cell.protocol) else {}


def failed_row(cell: Cell, error: KizuError) -> dict[str, Any]:
    """The row of a cell that could not be run."""
    return {
        "key": cell.key,
        "dataset": cell.dataset["name"],
        "category": cell.category,
        "representation": cell.representation,
        "weights": "",
        "detector": cell.detector,
        "parameters": json.dumps(cell.parameters, sort_keys=True),
        "protocol": cell.protocol,
        "shots": cell.settings.get("shots"),
        "seed": cell.seed,
        **dict.fromkeys(("train_images", "test_normal", "test_anomalous", *HEADLINE, "left_out"), None),
        "error": str(error),
        **dict.fromkeys(("fit_seconds", "predict_seconds", "measure_seconds"), None),
    }


def _row(cell: Cell, split: Split, detector: Detector, category: str, test: Samples) -> dict[str, Any]:
    """What is known before the detector is fitted; the figures are empty."""
    return {
        "key": cell.key,
        "dataset": cell.dataset["name"],
        "category": category,
        "representation": _representation(cell, detector),
        "weights": _weights(detector.representation.card),
        "detector": cell.detector,
        "parameters": json.dumps(cell.parameters, sort_keys=True),
        "protocol": _protocol(split),
        "shots": split.settings.get("shots"),
        "seed": cell.seed,
        "train_images": len(_learned_from(split, detector)),
        "test_normal": int((test.labels == 0).sum()),
        "test_anomalous": int((test.labels == 1).sum()),
        **dict.fromkeys(HEADLINE, None),
    }


def _measured(
    detector: Detector, test: Samples, cache: FeatureCache, skipped: list[tuple[str, str]]
) -> dict[str, Any]:
    """The figures of one category, of how many images they are, and the seconds that they took; `skipped`
    grows by (path, reason) of files that cannot be read."""
    started = time.perf_counter()
    predictions = predict_all(detector, test, source=cache.batches(detector, test, skipped))
    predicted = time.perf_counter()
    labels = test.labels[predictions.rows]
    counts = {"test_normal": int((labels == 0).sum()), "test_anomalous": int((labels == 1).sum())}
    figures = headline(predictions.measure(test).metrics)
    spent = {"predict_seconds": predicted - started, "measure_seconds": time.perf_counter() - predicted}
    return {**counts, **figures, **{name: round(value, 3) for name, value in spent.items()}}


def _protocol(split: Split) -> str:
    """Name and the settings that make it another protocol, as in "few_shot leak_safe" or "noisy ratio=0.1
    overlap"."""
    shares = [f"{name}={split.settings[name]}" for name in ("share", "ratio") if name in split.settings]
    switches = [name for name, value in split.settings.items() if value is True]
    return " ".join([split.protocol, *shares, *switches])


def _representation(cell: Cell, detector: Detector) -> str:
    """Its name and that of its adaptation, as in "kizu/starter@2,3 + residual shots=4"."""
    name = str(detector.representation.card["name"])
    if cell.adaptation is None:
        return name
    given = [f"{key}={value}" for key, value in cell.adaptation["parameters"].items()]
    return " ".join([name, "+", cell.adaptation["name"], *given])


def _weights(card: dict[str, Any]) -> str:
    """What the representation was trained on, in the words of the published tables."""
    trained = [str(name) for name in card.get("trained_on", [])]
    return "imagenet" if trained == ["imagenet-1k"] else " + ".join(trained) or "random"
