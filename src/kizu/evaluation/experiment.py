"""Run an experiment: every cell of its plan once, kept in a file, and all results in one table.

A cell's results are one line of cells.jsonl in the output folder (a row for each category, where it covers
all); an interrupted run goes on with the cells that are not there. results.csv holds the same rows flat."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any

import polars as pl

import kizu
from kizu import store
from kizu.errors import (
    KizuError,
    LayoutError,
    MaskError,
    UsageError,
    listed_unused,
    some,
)
from kizu.evaluation.cache import FeatureCache
from kizu.evaluation.cell import failed_row, run_cell
from kizu.evaluation.measure import HEADLINE
from kizu.evaluation.plan import ALL, Cell, Experiment, cells, refuse_repeated
from kizu.locks import locked
from kizu.representations.sources import split_levels
from kizu.samples import Samples

RECORD = "experiment.json"


def run_experiment(
    experiment: Experiment,
    out: Path | str,
    data_root: Path | None,
    say: Callable[[str], None],
    *,
    overwrite: bool = False,
) -> int:
    """Run the cells that `out` does not hold yet, all with `overwrite`; returns how many it holds now.

    Interrupted, it loses the cell at hand and no other. A cell that cannot be run is a row of results.csv
    with its error, and is tried again by the next run. Files of the data sets that are not used, or cannot be
    read, are said, and listed as `skipped` in experiment.json. Raises UsageError when `out` holds cells of
    other images or of another saved representation under the same name, and while another run writes into
    it; LayoutError and MaskError."""
    out = Path(out)
    if overwrite or not store.has_record(out, RECORD):
        store.check_output(out, RECORD, overwrite=overwrite)
    tables = [_samples(entry, data_root) for entry in experiment.parts["dataset"]]
    categories = {at: _categories(entry, tables[at]) for at, entry in enumerate(experiment.parts["dataset"])}
    listed = list(cells(experiment, categories))
    refuse_repeated(listed)
    with locked(out):
        if overwrite:
            store.remove_folder(out, RECORD)
        return _run(experiment, out, tables, listed, say)


def _run(
    experiment: Experiment, out: Path, tables: list[Samples], listed: list[Cell], say: Callable[[str], None]
) -> int:
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
    cache = FeatureCache()
    for number, cell in enumerate(listed):
        if cell.key in rows:
            continue
        at = experiment.parts["dataset"].index(cell.dataset)
        named = _categories(cell.dataset, tables[at]) if cell.category == ALL else cell.category
        samples = tables[at].where(category=named)
        try:
            row = run_cell(cell, samples, cache)
        except (LayoutError, MaskError):
            raise  # it is the same in every cell of this data set
        except KizuError as error:
            row = failed_row(cell, error)  # not kept: another run tries again
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


def _lines(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a cell."""
    return list(row.get("rows") or [{key: value for key, value in row.items() if key != "skipped"}])


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
    whole = {str(row.get("key")): row for row in store.read_rows(log)}
    lines = [line for row in whole.values() for line in _lines(row)]
    if not all(isinstance(line.get(name), float | int | NoneType) for line in lines for name in HEADLINE):
        raise LayoutError(f"{log} is damaged: a figure is no number. Begin anew, with --overwrite.")
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
    eyes = rows[0].get("representation") or cell.representation
    who = f"{cell.dataset['name']}/{cell.category} {cell.detector} on {eyes}"
    return f"{who} {settings} seed={cell.seed}: {outcome}"


def _mean(values: list[float | None]) -> float | None:
    """The unweighted mean over categories; none where one has none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
