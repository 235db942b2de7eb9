"""The table of an experiment: mean and spread over seeds for each setting, beside published rows, as Markdown
and as a plot.

What was not run is an empty cell. A published row is comparable only where its figure is the same quantity
(the variant of the metric, such as average precision or the trapezoid rule), its detector, protocol,
shots, backbone and weights are those of a row that was run, and where it was not chosen on the test set;
otherwise it stands under "not comparable" with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from kizu.errors import DataError, UnknownName, UsageError
from kizu.reports._markdown import SETTING, markdown
from kizu.reports._published import published_rows
from kizu.reports._table_plot import plot as draw_plot
from kizu.store import replacing

_REQUIRED = ("representation", "detector", "dataset", "category", "protocol", "seed")


def table(
    results: Path | str | pl.DataFrame,
    *,
    metric: str = "image_auroc",
    published: pl.DataFrame | None = None,
    out: Path | str | None = None,
    plot: Path | str | None = None,
) -> str:
    """Tabulate one metric of an experiment; returns Markdown.

    results: CSV or table with one line per run: representation, detector, dataset, category, protocol, seed;
    then, optional, shots, weights and parameters (as JSON; the table shows those that a detector was run with
    several values of); and the metrics as fractions in [0, 1], empty where not run. published: rows of
    kizu.papers (per cent), such as `papers.recontrast("1")`. out: also write the Markdown there. plot: also
    write a PNG there, the same numbers as points with spread.

    A cell is `mean ± sample standard deviation (seeds)`, in per cent, without a spread for one seed. The last
    column is the mean over categories of each seed that has every category of the table, then over those
    seeds; it is empty where no seed has all. Raises DataError for missing columns, a setting that was run
    twice with one seed or a metric outside [0, 1], UsageError when no run has the metric, and UnknownName for
    a metric that is no column."""
    frame = _checked(results, metric)
    categories = frame["category"].unique().sort().to_list()
    rows = _rows(frame, metric, categories)
    theirs = [] if published is None else published_rows(frame, published, metric, categories)
    text = markdown(metric, categories, rows, theirs)
    if out is not None:
        with replacing(out) as temporary:
            temporary.write_text(f"<!-- written by kizu -->\n\n{text}", encoding="utf-8")
    if plot is not None:
        draw_plot(Path(plot), metric, categories, rows, theirs)
    return text


def _checked(results: Path | str | pl.DataFrame, metric: str) -> pl.DataFrame:
    frame = results if isinstance(results, pl.DataFrame) else pl.read_csv(results, infer_schema_length=None)
    missing = [name for name in _REQUIRED if name not in frame.columns]
    if missing:
        raise DataError(f"The results lack the columns {missing}; they have {frame.columns}.")
    if metric not in frame.columns:
        raise UnknownName(
            "metric of these results",
            metric,
            [c for c in frame.columns if c not in (*SETTING, "category", "seed", "weights")],
        )
    for name in ("shots", "weights", "parameters"):
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias(name))
    frame = _parameters_that_vary(frame)
    text = [pl.col(name).cast(pl.String) for name in (*SETTING, "category", "weights")]
    frame = frame.with_columns(*text, pl.col(metric).cast(pl.Float64)).filter(
        pl.col(metric).is_not_null() & pl.col(metric).is_not_nan()
    )
    frame = frame.with_columns(pl.col("category").fill_null("all"))
    if frame.is_empty():
        raise UsageError(f"No run has a value of {metric}; there is no table to make.")
    wrong = frame.filter(~pl.col(metric).is_between(0, 1))
    if wrong.height:
        raise DataError(f"{metric} must lie in [0, 1], got {wrong[metric][0]}. Give fractions, not percent.")
    keys = [*SETTING, "weights", "category", "seed"]
    twice = frame.filter(frame.select(keys).is_duplicated())
    if twice.height:
        raise DataError(
            "One setting stands twice with one seed, so its spread is not that of seeds: "
            f"{twice.select(keys).row(0)}."
        )
    return frame


def _parameters_that_vary(frame: pl.DataFrame) -> pl.DataFrame:
    """`parameters` (JSON) -> "name=value, ..." of those in which the runs of a detector differ; null where
    there is none."""
    runs = [
        (detector, json.loads(text) if text else {})
        for detector, text in frame.select("detector", "parameters").iter_rows()
    ]
    values: dict[tuple[str, str], set[str]] = {}
    for detector, name in {(detector, name) for detector, parameters in runs for name in parameters}:
        values[detector, name] = {
            json.dumps(parameters[name]) if name in parameters else ""
            for owner, parameters in runs
            if owner == detector
        }
    texts = [
        ", ".join(
            f"{name}={value}" for name, value in sorted(parameters.items()) if len(values[detector, name]) > 1
        )
        or None
        for detector, parameters in runs
    ]
    return frame.with_columns(pl.Series("parameters", texts, dtype=pl.String))


def _rows(frame: pl.DataFrame, metric: str, categories: list[str]) -> list[dict[str, Any]]:
    rows = []
    for key, runs in frame.group_by([*SETTING, "weights"], maintain_order=True):
        cells = [runs.filter(pl.col("category") == category)[metric].to_list() for category in categories]
        complete = (
            runs.group_by("seed")
            .agg(pl.len().alias("n"), pl.col(metric).mean())
            .filter(pl.col("n") == len(categories))
        )
        rows.append(
            {
                "setting": dict(zip((*SETTING, "weights"), key, strict=True)),
                "cells": cells,
                "mean": complete.sort("seed")[metric].to_list(),
            }
        )
    return rows
