"""Run an experiment: every cell of its plan once, kept in a file, and all results in one table.

A cell's results are one line of cells.jsonl in the output folder (a row for each category, where it covers
all); an interrupted run goes on with the cells that are not there. results.csv holds the same rows flat."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

import kizu
from kizu import registry, store
from kizu.adaptation.base import Adaptation
from kizu.detectors.base import Detector
from kizu.detectors.runtime import parameter_names
from kizu.errors import (
    EmptyData,
    KizuError,
    LayoutError,
    MaskError,
    NotFinite,
    UsageError,
    listed_unused,
    some,
)
from kizu.evaluation.cache import FeatureCache
from kizu.evaluation.measure import HEADLINE, headline
from kizu.evaluation.plan import ALL, Cell, Experiment, cells, refuse_repeated
from kizu.evaluation.predict import predict_all
from kizu.evaluation.seen import learned_digests, refuse_trained_on, seen_digests, unseen
from kizu.locks import locked
from kizu.protocols.base import Split
from kizu.representations.sources import split_levels
from kizu.samples import Samples

RECORD = "experiment.json"


def run_experiment(
    experiment: Experiment, out: Path | str, data_root: Path | None, say: Callable[[str], None]
) -> int:
    """Run the cells that `out` does not hold yet; returns how many it holds now.

    Interrupted, it loses the cell at hand and no other. A cell that cannot be run is a row of results.csv
    with its error, and is tried again by the next run. Files of the data sets that are not used, or cannot be
    read, are said, and listed as `skipped` in experiment.json. Raises UsageError when `out` holds cells of
    other images or of another saved representation under the same name, and while another run writes into
    it; LayoutError and MaskError."""
    out = Path(out)
    if not store.has_record(out, RECORD):
        store.check_output(out, RECORD, overwrite=False)
    tables = [_samples(entry, data_root) for entry in experiment.parts["dataset"]]
    with locked(out):
        return _run(experiment, out, tables, say)


def _run(experiment: Experiment, out: Path, tables: list[Samples], say: Callable[[str], None]) -> int:
    log = out / "cells.jsonl"
    rows = _read_rows(log)
    inputs = _inputs(experiment, tables)
    if rows:
        inputs = _checked_inputs(out, inputs)
    unused = list(dict.fromkeys(note for table in tables for note in table.unused))
    if unused:
        say(f"{listed_unused(unused)}.")
    skipped = [{"path": path, "error": reason} for path, reason in unused]
    facts = {"name": experiment.name, "description": experiment.description, **experiment.parts}
    store.write_record(out, RECORD, {**facts, "inputs": inputs, "skipped": skipped})
    categories = {at: _categories(entry, tables[at]) for at, entry in enumerate(experiment.parts["dataset"])}
    listed = list(cells(experiment, categories))
    refuse_repeated(listed)
    cache = FeatureCache()
    for number, cell in enumerate(listed):
        if cell.key in rows:
            continue
        at = experiment.parts["dataset"].index(cell.dataset)
        samples = tables[at].where(category=categories[at] if cell.category == ALL else cell.category)
        try:
            row = run_cell(cell, samples, cache)
        except (LayoutError, MaskError):
            raise  # it is the same in every cell of this data set
        except KizuError as error:
            row = _failed(cell, error)  # not kept: another run tries again
        else:
            with log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        rows[cell.key] = row
        say(f"[{number + 1}/{len(listed)}] {_sentence(cell, row)}")
    unread = [(path, reason) for cell in listed for path, reason in rows[cell.key].get("skipped", [])]
    if unread:
        skipped += [{"path": path, "error": reason} for path, reason in dict.fromkeys(unread)]
        store.write_record(out, RECORD, {**facts, "inputs": inputs, "skipped": skipped})
        say(f"{listed_unused(list(dict.fromkeys(unread)))}.")
    wanted = [line for cell in listed for line in _lines(rows[cell.key])]
    with store.replacing(out / "results.csv") as temporary:
        pl.DataFrame(wanted, infer_schema_length=None).write_csv(temporary)
    return len(listed)


def run_cell(cell: Cell, samples: Samples, cache: FeatureCache | None = None) -> dict[str, Any]:
    """Split, fit, predict, measure: one flat row, or {"key", "rows"} with one for each category where one
    model serves all.

    The seed is that of the split, of the adaptation, and of the detector, where it has one and none is named
    for it. A detector that ends in NaN is a row with its error, not the end of the table. The seconds of a
    shared fit are shared out evenly."""
    split: Split = registry.load("protocols", cell.protocol)(samples, **cell.settings, seed=cell.seed)
    if not len(split.test):
        raise EmptyData("There is no image to test on: all are for training, or none is labelled.")
    adaptation = Adaptation(**cell.adaptation, seed=cell.seed) if cell.adaptation else None
    drawn = (
        {"seed": cell.seed} if "seed" in parameter_names(registry.load("detectors", cell.detector)) else {}
    )
    parameters = {**drawn, **cell.parameters}
    detector = kizu.detector(cell.detector, cell.representation, adaptation=adaptation, **parameters)
    cache = cache or FeatureCache()
    test, left_out = _unseen(cell, split, detector, cache)
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


def _unseen(cell: Cell, split: Split, detector: Detector, cache: FeatureCache) -> tuple[Samples, int]:
    """The test images that neither the representation nor the detector has seen, and how many it has. Raises
    UsageError where none are left."""
    net = detector.representation
    refuse_trained_on(net, cell.dataset["name"], "Take another representation.")
    learned = learned_digests(_learned_from(split, detector), cache.digests)
    return unseen(split.test, seen_digests(net.card) | learned, cache.digests)


def _learned_from(split: Split, detector: Detector) -> Samples:
    """The training images; only the good ones for a detector that learns from these."""
    return split.train if detector.supervision == "labelled" else split.train.normal


def _failed(cell: Cell, error: KizuError) -> dict[str, Any]:
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


def _lines(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a cell."""
    return list(row.get("rows") or [{key: value for key, value in row.items() if key != "skipped"}])


def _protocol(split: Split) -> str:
    """Name and the settings that make it another protocol, as in "few_shot leak_safe"."""
    return " ".join([split.protocol, *(name for name, value in split.settings.items() if value is True)])


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


def _samples(entry: dict[str, Any], data_root: Path | None) -> Samples:
    path = Path(entry["path"])
    if not path.is_absolute():
        path = (data_root or Path()) / path
    samples = kizu.dataset(entry["name"], path, **entry.get("filters", {}))
    return samples.read_masks_by(entry["mask_rule"]) if "mask_rule" in entry else samples


def _categories(entry: dict[str, Any], samples: Samples) -> list[str]:
    return list(entry.get("categories") or sorted(samples.table["category"].unique().to_list()))


def _inputs(experiment: Experiment, tables: list[Samples]) -> dict[str, str]:
    """What the cells' keys name but do not hold: entry -> digest, of the images of each data set and of the
    representations that are files."""
    data = {
        "dataset " + json.dumps(entry, sort_keys=True): table.digest()
        for entry, table in zip(experiment.parts["dataset"], tables, strict=True)
    }
    saved = {
        entry["name"]: Path(split_levels(entry["name"])[0]) for entry in experiment.parts["representation"]
    }
    files = {
        f"representation {name}": store.content_digest(path) for name, path in saved.items() if path.exists()
    }
    return {**data, **files}


def _checked_inputs(out: Path, inputs: dict[str, str]) -> dict[str, str]:
    """These inputs and those of an earlier run. Raises UsageError where both name one and it has changed."""
    before: dict[str, str] = store.read_record(out, RECORD).get("inputs", {})
    changed = sorted(name for name, digest in inputs.items() if before.get(name, digest) != digest)
    if changed:
        raise UsageError(
            f"{out} holds cells of other inputs: what is called {some(changed, 3)} has changed since. One "
            "table shows one state of the inputs: give another -o."
        )
    return {**before, **inputs}


def _read_rows(log: Path) -> dict[str, dict[str, Any]]:
    """Rows of an earlier run; a last line that was cut short is dropped."""
    if not log.exists():
        return {}
    whole = {row["key"]: row for row in store.read_rows(log)}
    with store.replacing(log) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in whole.values()), "utf-8")
    return whole


def _sentence(cell: Cell, row: dict[str, Any]) -> str:
    settings = " ".join(f"{name}={value}" for name, value in cell.settings.items())
    rows = _lines(row)
    image, pixel = (_mean([line[name] for line in rows]) for name in ("image_auroc", "pixel_auroc"))
    outcome = (
        "failed: " + rows[0]["error"] if rows[0]["error"] else f"image AUROC {image}, pixel AUROC {pixel}"
    )
    return f"{cell.dataset['name']}/{cell.category} {cell.detector} {settings} seed={cell.seed}: {outcome}"


def _mean(values: list[float | None]) -> float | None:
    """The unweighted mean over categories; none where one has none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
