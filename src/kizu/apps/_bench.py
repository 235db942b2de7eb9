"""`kizu bench`: the cells of an experiment, then its tables and plots beside the published rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from kizu.apps._screen import Screen
from kizu.evaluation.experiment import RECORD, run_experiment
from kizu.evaluation.plan import Experiment, published_rows, read_experiment
from kizu.reports.table import table
from kizu.store import read_record, replacing

METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro_0.3")


def bench(experiment: Path, out: Path, data_root: Path | None, *, overwrite: bool, as_json: bool) -> int:
    """Run what is not done yet, all of it with `overwrite`; write results.csv, results.md and a plot a metric
    into `out`. Returns 1 when a cell failed, or files of a data set were not used."""
    screen = Screen(as_json)
    plan = read_experiment(experiment)
    done = run_experiment(plan, out, data_root, screen.say, overwrite=overwrite)
    written = write_tables(plan, out)
    results = _results(out)
    failed = results.filter(pl.col("error").is_not_null()).height
    screen.say(f"{done} cells, {failed} failed. Tables: {written}")
    skipped = read_record(out, RECORD).get("skipped", [])
    tables = {"tables": str(written), "results": str(out / "results.csv")}
    screen.result({"cells": done, "failed": failed, "skipped": skipped, **tables})
    return 1 if failed or skipped else 0


def _results(out: Path) -> pl.DataFrame:
    figures = (*METRICS, "fit_seconds", "predict_seconds", "measure_seconds")
    numbers = dict.fromkeys(figures, pl.Float64)  # of a column without a number too
    return pl.read_csv(out / "results.csv", infer_schema_length=None, schema_overrides=numbers)


def write_tables(plan: Experiment, out: Path) -> Path:
    """results.md and plots from results.csv."""
    results = _results(out)
    parts = [f"# {plan.name}", plan.description, _how(results)]
    for metric in METRICS:
        if results[metric].drop_nulls().is_empty():
            continue
        rows = _published(plan.parts["published"], metric, sorted(results["category"].unique()))
        parts += [table(results, metric=metric, published=rows, plot=out / f"{metric.replace('.', '_')}.png")]
        parts += [f"![{metric}]({metric.replace('.', '_')}.png)"]
    parts += [str(entry["note"]) for entry in plan.parts["published"] if "note" in entry]
    path = out / "results.md"
    with replacing(path) as temporary:
        temporary.write_text("\n\n".join(part.strip() for part in parts if part) + "\n", "utf-8")
    return path


def _how(results: pl.DataFrame) -> str:
    spent = results.select(pl.col("fit_seconds", "predict_seconds", "measure_seconds").sum()).row(0)
    seeds = sorted(results["seed"].unique().to_list())
    counts = results["left_out"].drop_nulls().to_list() if "left_out" in results.columns else []
    left_out = max(counts, default=0)
    seen = (
        f" Up to {left_out} test images that had been learned from, or were trained on before, are left out."
        if left_out
        else ""
    )
    return (
        f"{results.height} runs, seeds {', '.join(map(str, seeds))}; fit {spent[0]:.0f} s, predict "
        f"{spent[1]:.0f} s, measure {spent[2]:.0f} s in all. Mean and standard deviation over seeds, in per "
        "cent; nothing is chosen on the test set." + seen
    )


def _published(entries: list[dict[str, Any]], metric: str, categories: list[str]) -> pl.DataFrame | None:
    """The published rows that the experiment names, of one metric; where a data set has one category only,
    papers do not name it."""
    frames = []
    for entry in entries:
        frame = published_rows(entry)
        if frame is None:
            continue
        if len(categories) == 1:
            frame = frame.with_columns(pl.col("category").fill_null(categories[0]))
        frames.append(frame.filter(pl.col("metric") == metric))
    return (
        pl.concat(frames, how="vertical_relaxed")
        if frames and any(frame.height for frame in frames)
        else None
    )
