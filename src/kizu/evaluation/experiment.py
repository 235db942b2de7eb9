"""An experiment is a TOML file of names and keywords; its cells are the product of what it lists, each done
once and kept.

    name = "magnetic_tile_few_shot"
    [[dataset]]
    name = "magnetic_tile"          # a file of kizu/datasets; path is looked for under the data folder
    path = "magnetic-tile"
    [[representation]]
    name = "random/resnet18"
    [[detector]]
    name = "patchcore"
    parameters = { image_size = 224 }
    [[protocol]]
    name = "few_shot"
    seeds = [0, 1, 2, 3, 4]
    grid = { shots = [5, 10, 50], leak_safe = [false, true] }

A grid lists values for a keyword of the protocol or a parameter of the detector (`grid = { image_size = [224, 320]
}`), every one of which is run. A cell's results are one line of cells.jsonl in the output folder; a run that
was interrupted goes on with the cells that are not there yet. results.csv holds the same rows flat, for the
tables. A protocol that trains one model for all categories (its module says TOGETHER) makes one cell of a
data set, whose line holds a row for each category."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

import kizu
from kizu import registry, store
from kizu.detectors.base import Detector
from kizu.errors import LayoutError, NotFinite, UnknownParameter, UsageError
from kizu.evaluation.cache import FeatureCache
from kizu.evaluation.measure import measure
from kizu.evaluation.predict import predict_all
from kizu.protocols.base import Split
from kizu.samples import Samples

KEYS = {"name", "description", "dataset", "representation", "detector", "protocol", "published"}
ALL = "all categories"
"""What stands as the category of a cell that covers all of them."""
PARTS: dict[str, set[str]] = {
    "dataset": {"name", "path", "filters", "categories"},
    "representation": {"name"},
    "detector": {"name", "parameters", "grid"},
    "protocol": {"name", "seeds", "grid"},
    "published": {"paper", "table", "note", "where"},
}


@dataclass(frozen=True)
class Experiment:
    """A checked experiment file."""

    name: str
    description: str
    parts: dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Cell:
    """One combination; `key` names it in cells.jsonl."""

    dataset: dict[str, Any]
    category: str
    representation: str
    detector: str
    parameters: dict[str, Any]
    protocol: str
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def key(self) -> str:
        """A digest of all that decides the outcome."""
        return hashlib.sha256(json.dumps(vars(self), sort_keys=True).encode()).hexdigest()[:16]


def read_experiment(path: Path | str) -> Experiment:
    """Parse and check an experiment: every name exists, every keyword is in the signature it goes to.

    Raises LayoutError for a file that is missing or not TOML, UnknownName, UnknownParameter, UsageError.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LayoutError(f"{path} is not a readable TOML file: {error}") from error
    for key in raw:
        if key not in KEYS:
            raise UnknownParameter(f"experiment {path.name}", key, KEYS)
    parts = {name: list(raw.get(name, [])) for name in PARTS}
    for name in ("dataset", "representation", "detector", "protocol"):
        if not parts[name]:
            raise UsageError(f"{path.name} lists no [[{name}]].")
    for name, entries in parts.items():
        for entry in entries:
            for key in entry:
                if key not in PARTS[name]:
                    raise UnknownParameter(f"[[{name}]] in {path.name}", key, PARTS[name])
    _check_signatures(parts)
    return Experiment(str(raw.get("name", path.stem)), str(raw.get("description", "")), parts)


def _check_signatures(parts: dict[str, list[dict[str, Any]]]) -> None:
    for entry in parts["dataset"]:
        registry.check_keywords(
            f"dataset {entry['name']}", registry.load("datasets", entry["name"]), entry.get("filters", {})
        )
    for entry in parts["detector"]:
        kind = registry.load("detectors", entry["name"])
        parameters, grid = entry.get("parameters", {}), entry.get("grid", {})
        registry.check_keywords(kind.__name__, kind.__init__, {**parameters, **grid})
        _check_grid(f"[[detector]] {entry['name']}", grid)
        twice = sorted(set(parameters) & set(grid))
        if twice:
            raise UsageError(
                f"[[detector]] {entry['name']} has {twice[0]} in parameters and in grid; keep one of them."
            )
    for entry in parts["protocol"]:
        registry.check_keywords(
            f"protocol {entry['name']}", registry.load("protocols", entry["name"]), entry.get("grid", {})
        )
        _check_grid(f"[[protocol]] {entry['name']}", entry.get("grid", {}))


def _check_grid(owner: str, grid: dict[str, Any]) -> None:
    empty = [name for name, values in grid.items() if values == []]
    if empty:
        raise UsageError(f"{owner} has no value for {empty[0]} in its grid, so nothing of it would be run.")


def cells(experiment: Experiment, categories: dict[int, list[str]]) -> Iterator[Cell]:
    """Every combination; `categories` lists those of each [[dataset]] by its position.

    The order keeps cells together that look at the same images through the same representation by the same
    detector."""
    parts = experiment.parts
    for at, dataset in enumerate(parts["dataset"]):
        detectors = [
            (entry["name"], parameters)
            for entry in parts["detector"]
            for parameters in _each(entry.get("grid", {}), entry.get("parameters", {}))
        ]
        combinations = itertools.product(
            [*categories[at], ALL], parts["representation"], detectors, parts["protocol"]
        )
        for category, representation, (detector, parameters), protocol in combinations:
            if (category == ALL) != getattr(
                registry.module("protocols", protocol["name"]), "TOGETHER", False
            ):
                continue
            for settings, seed in itertools.product(
                _each(protocol.get("grid", {})), protocol.get("seeds", [0])
            ):
                yield Cell(
                    dataset,
                    category,
                    representation["name"],
                    detector,
                    parameters,
                    protocol["name"],
                    settings,
                    seed,
                )


def _each(grid: dict[str, Any], fixed: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Every combination of the grid's values, each with what is fixed."""
    lists = [value if isinstance(value, list) else [value] for value in grid.values()]
    return [{**(fixed or {}), **dict(zip(grid, values, strict=True))} for values in itertools.product(*lists)]


def run_experiment(
    experiment: Experiment, out: Path | str, data_root: Path | None, say: Callable[[str], None]
) -> int:
    """Run the cells that `out` does not hold yet; returns how many it holds now. Interrupted, it loses the
    cell at hand and no other."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    log = out / "cells.jsonl"
    rows = _read_rows(log)
    store.write_json(
        out / "experiment.json",
        {"name": experiment.name, "description": experiment.description, **experiment.parts},
    )
    tables = [_samples(entry, data_root) for entry in experiment.parts["dataset"]]
    categories = {at: _categories(entry, tables[at]) for at, entry in enumerate(experiment.parts["dataset"])}
    listed = list(cells(experiment, categories))
    cache = FeatureCache()
    for number, cell in enumerate(listed):
        if cell.key in rows:
            continue
        at = experiment.parts["dataset"].index(cell.dataset)
        row = run_cell(
            cell, tables[at].where(category=categories[at] if cell.category == ALL else cell.category), cache
        )
        rows[cell.key] = row
        with log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        say(f"[{number + 1}/{len(listed)}] {_sentence(cell, row)}")
    wanted = [line for cell in listed for line in _lines(rows[cell.key])]
    with store.replacing(out / "results.csv") as temporary:
        pl.DataFrame(wanted, infer_schema_length=None).write_csv(temporary)
    return len(listed)


def run_cell(cell: Cell, samples: Samples, cache: FeatureCache | None = None) -> dict[str, Any]:
    """Split, fit, predict, measure: one flat row, or {"key", "rows"} with one for each category where one
    model serves all.

    A detector that ends in NaN is a row with its error, not the end of the table. The seconds of a shared fit
    are shared out evenly."""
    split: Split = registry.load("protocols", cell.protocol)(samples, **cell.settings, seed=cell.seed)
    detector = kizu.detector(cell.detector, cell.representation, **cell.parameters)
    cache = cache or FeatureCache()
    names = sorted(split.test.table["category"].unique()) if cell.category == ALL else [cell.category]
    tests = {name: split.test.where(category=name) if cell.category == ALL else split.test for name in names}
    rows = [_row(cell, split, detector, name, test) for name, test in tests.items()]
    started = time.perf_counter()
    try:
        detector.fit(cache.require(detector, split.train))
        fitted = (time.perf_counter() - started) / len(rows)
        for row, test in zip(rows, tests.values(), strict=True):
            row |= {"error": None, "fit_seconds": round(fitted, 3), **_measured(detector, test, cache)}
    except NotFinite as error:
        rows = [
            {**_row(cell, split, detector, name, test), "error": str(error)} for name, test in tests.items()
        ]
    return {"key": cell.key, "rows": rows} if cell.category == ALL else rows[0]


def _row(cell: Cell, split: Split, detector: Detector, category: str, test: Samples) -> dict[str, Any]:
    """What is known before the detector is fitted; the figures are empty."""
    return {
        "key": cell.key,
        "dataset": cell.dataset["name"],
        "category": category,
        "representation": detector.representation.card["name"],
        "weights": _weights(detector.representation.card),
        "detector": cell.detector,
        "parameters": json.dumps(cell.parameters, sort_keys=True),
        "protocol": _protocol(split),
        "shots": split.settings.get("shots"),
        "seed": cell.seed,
        "train_images": len(split.train),
        "test_normal": int((test.labels == 0).sum()),
        "test_anomalous": int((test.labels == 1).sum()),
        **dict.fromkeys(("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro_0.3"), None),
    }


def _measured(detector: Detector, test: Samples, cache: FeatureCache) -> dict[str, Any]:
    """The figures of one category, and the seconds that they took."""
    started = time.perf_counter()
    seen = predict_all(detector, test, source=cache.batches(detector, test))
    predicted = time.perf_counter()
    readable = test.take(seen.rows)
    metrics = measure(readable, seen.scores, None, seen.pixels(readable)).metrics
    image, pixel = metrics["image"] or {}, metrics["pixel"] or {}
    row = {"image_auroc": image.get("auroc"), "image_ap": image.get("ap"), "pixel_auroc": pixel.get("auroc")}
    row |= {"pixel_ap": pixel.get("ap"), "aupro_0.3": pixel.get("aupro_0.3")}
    spent = {"predict_seconds": predicted - started, "measure_seconds": time.perf_counter() - predicted}
    return row | {name: round(value, 3) for name, value in spent.items()}


def _lines(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a cell."""
    return list(row.get("rows") or [row])


def _protocol(split: Split) -> str:
    """Name and the settings that make it another protocol, as in "few_shot leak_safe"."""
    return " ".join([split.protocol, *(name for name, value in split.settings.items() if value is True)])


def _weights(card: dict[str, Any]) -> str:
    """What the representation was trained on, in the words of the published tables."""
    trained = [str(name) for name in card.get("trained_on", [])]
    return "imagenet" if trained == ["imagenet-1k"] else " + ".join(trained) or "random"


def _samples(entry: dict[str, Any], data_root: Path | None) -> Samples:
    path = Path(entry["path"])
    if not path.is_absolute():
        path = (data_root or Path()) / path
    return kizu.dataset(entry["name"], path, **entry.get("filters", {}))


def _categories(entry: dict[str, Any], samples: Samples) -> list[str]:
    return list(entry.get("categories") or sorted(samples.table["category"].unique().to_list()))


def _read_rows(log: Path) -> dict[str, dict[str, Any]]:
    """Rows of an earlier run; a last line that was cut short is dropped."""
    if not log.exists():
        return {}
    whole = [json.loads(line) for line in log.read_text("utf-8").splitlines() if line.endswith("}")]
    log.write_text("".join(json.dumps(row) + "\n" for row in whole), "utf-8")
    return {row["key"]: row for row in whole}


def _sentence(cell: Cell, row: dict[str, Any]) -> str:
    settings = " ".join(f"{name}={value}" for name, value in cell.settings.items())
    rows = _lines(row)
    image, pixel = (_mean([line[name] for line in rows]) for name in ("image_auroc", "pixel_auroc"))
    found = "failed: " + rows[0]["error"] if rows[0]["error"] else f"image AUROC {image}, pixel AUROC {pixel}"
    return f"{cell.dataset['name']}/{cell.category} {cell.detector} {settings} seed={cell.seed}: {found}"


def _mean(values: list[float | None]) -> float | None:
    """The unweighted mean over categories; none where one has none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
