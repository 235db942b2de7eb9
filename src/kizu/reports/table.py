"""The table of an experiment: mean and spread over seeds for each setting, beside published rows, as Markdown
and as a plot.

What was not run is an empty cell. A published row is comparable only where its detector, protocol, shots,
backbone and weights are those of a row that was run, and where it was not chosen on the test set; otherwise
it stands under "not comparable" with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from kizu.errors import DataError, UnknownName, UsageError
from kizu.store import replacing

SETTING = ("representation", "detector", "parameters", "dataset", "protocol", "shots")
"""Columns that, together, make a row of the table; the category makes its column and the seed its spread."""
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

    results: CSV or table with one line per run: representation, detector, dataset, category, protocol, seed,
    then shots, weights and parameters (all three optional; parameters as JSON, of which the table shows those that a
    detector was run with several values of), and the metrics as fractions in [0, 1], empty where not run.
    published: rows of kizu.papers (percent), such as `papers.recontrast("1")`. out: also write the Markdown
    there. plot: also write a PNG there, the same numbers as points with spread. A cell is `mean ± sample
    standard deviation (seeds)`, in per cent, without a spread for one seed. The last column is the mean over
    categories, per seed, of the seeds that have every category of the table; empty where there is none.
    Raises DataError for missing columns, a setting that was run twice with one seed or a metric outside [0,
    1], UsageError when no run has the metric, and UnknownName for a metric that is no column."""
    frame = _checked(results, metric)
    categories = frame["category"].unique().sort().to_list()
    rows = _rows(frame, metric, categories)
    theirs = [] if published is None else _published(frame, published, metric, categories)
    text = _markdown(metric, categories, rows, theirs)
    if out is not None:
        with replacing(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if plot is not None:
        _plot(Path(plot), metric, categories, rows, theirs)
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
    """`parameters` (JSON) -> "name=value, ..." of those in which the runs of a detector differ, given or left out;
    null where there is none."""
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


def _published(
    frame: pl.DataFrame, published: pl.DataFrame, metric: str, categories: list[str]
) -> list[dict[str, Any]]:
    """Published rows of the same metric and data sets, with their cells in fractions and why they cannot be
    compared, "" if they can."""
    kept = published.filter(
        (pl.col("metric") == metric) & pl.col("dataset").is_in(frame["dataset"].unique().to_list())
    )
    rows = []
    keys = ["source", "row", "dataset", "protocol", "shots", "detector", "backbone", "weights", "selection"]
    for key, part in kept.group_by(keys, maintain_order=True):
        facts = dict(zip(keys, key, strict=True))
        value = {
            category or "all": printed / 100
            for category, printed in part.select("category", "value").iter_rows()
        }
        cells = [[value[c]] if c in value else [] for c in categories]
        same = len(categories) > 1 and set(categories) == set(value) - {
            "mean",
            "mean_textures",
            "mean_objects",
        }
        mean = [value["mean"]] if "mean" in value and same else []
        if any(cells) or mean:
            rows.append({"facts": facts, "cells": cells, "mean": mean, "reason": _why_not(facts, frame)})
    return rows


def _why_not(facts: dict[str, Any], frame: pl.DataFrame) -> str:
    """The first rule by which no run of ours stands under the conditions of a published row."""
    if facts["selection"] == "best_on_test":
        return "best step chosen on the test set"
    ours = frame.filter(pl.col("dataset") == facts["dataset"])
    shots = None if facts["shots"] is None else str(facts["shots"])
    rules = (
        ("detector", facts["detector"]),
        ("protocol", facts["protocol"]),
        ("shots", shots),
        ("weights", facts["weights"]),
    )
    for name, wanted in rules:
        held = ours[name].unique().to_list()
        if name == "weights" and (wanted is None or held == [None]):
            return "weights not stated " + ("by the paper" if wanted is None else "by these results")
        ours = ours.filter(pl.col(name).eq_missing(pl.lit(wanted, dtype=pl.String)))
        if ours.is_empty():
            said = ", ".join(sorted(str(h) if h is not None else "all good images" for h in held))
            return f"{name}: {wanted if wanted is not None else 'all good images'}; here: {said}"
    backbone = facts["backbone"]
    if backbone is None:
        return "backbone not stated by the paper"
    if not ours["representation"].str.starts_with(backbone).any():
        return f"backbone: {backbone}; here: {', '.join(sorted(ours['representation'].unique()))}"
    return ""


def _markdown(
    metric: str, categories: list[str], rows: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> str:
    many = len(categories) > 1
    used = [name for name in (*SETTING, "weights") if any(row["setting"][name] is not None for row in rows)]
    lines = [
        f"{metric} in per cent, mean ± standard deviation over seeds (number of seeds). Empty: not run.",
        "",
    ]
    lines += _heading([*used, *categories, *(["mean"] if many else [])], len(used))
    for row in rows:
        cells = [_cell(values) for values in (*row["cells"], *([row["mean"]] if many else []))]
        lines.append(_line([*(row["setting"][name] or "" for name in used), *cells]))
    for said, group in (
        (
            "Published, under the same detector, protocol, backbone and weights:",
            [t for t in theirs if not t["reason"]],
        ),
        ("Published, not comparable:", [t for t in theirs if t["reason"]]),
    ):
        if group:
            lines += [
                "",
                said,
                "",
                *_heading(["row", *categories, *(["mean"] if many else []), "why not", "source"], 1),
            ]
            lines += [
                _line(
                    [
                        _named(t),
                        *map(_cell, (*t["cells"], *([t["mean"]] if many else []))),
                        t["reason"],
                        t["facts"]["source"],
                    ]
                )
                for t in group
            ]
    return "\n".join(lines) + "\n"


def _named(row: dict[str, Any]) -> str:
    facts = row["facts"]
    said = [facts["backbone"], f"{facts['shots']} shots" if facts["shots"] is not None else None]
    more = ", ".join(part for part in said if part)
    return str(facts["row"]) + (f" ({more})" if more else "")


def _heading(names: list[str], words: int) -> list[str]:
    rules = [
        "---" if index < words or name in ("why not", "source") else "---:"
        for index, name in enumerate(names)
    ]
    return [_line(names), _line(rules)]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _cell(values: list[float]) -> str:
    """Fractions -> per cent; the sample standard deviation from two values on; empty for none."""
    if not values:
        return ""
    mean, spread = _mean_spread(values)
    if spread is None:
        return f"{100 * mean:.1f}"
    return f"{100 * mean:.1f} ± {100 * spread:.1f} ({len(values)})"


def _mean_spread(values: list[float]) -> tuple[float, float | None]:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5


def _plot(
    path: Path, metric: str, categories: list[str], rows: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> None:
    """One row of points per setting, by category; comparable published rows as open marks, the others as thin
    grey ones."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = categories + (["mean"] if len(categories) > 1 else [])
    drawn = Figure(
        figsize=(8.4, 1.9 + 0.42 * len(shown) + 0.17 * (len(rows) + len(theirs))),
        dpi=150,
        layout="constrained",
    )
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    colours = ("#20689e", "#c65416", "#2f8f6b", "#8a5aa8", "#b58a00", "#5a6270", "#c14d7c", "#3aa0b5")
    differ = [name for name in (*SETTING, "weights") if len({row["setting"][name] for row in rows}) > 1] or [
        "detector"
    ]
    for index, row in enumerate(rows):
        shift = 0.0 if len(rows) == 1 else 0.5 * index / (len(rows) - 1) - 0.25
        places, means, spreads = _points(row, shown, shift)
        label = ", ".join(str(row["setting"][name]) for name in differ if row["setting"][name] is not None)
        marker = "osD^v"[index // len(colours) % 5]
        axes.errorbar(
            means,
            places,
            xerr=spreads,
            fmt=marker,
            ms=5.5,
            lw=1.4,
            capsize=2.5,
            color=colours[index % len(colours)],
            label=label,
        )
    for index, row in enumerate(theirs):
        places, means, _ = _points(row, shown, 0.38)
        marker, ink = ("x+1234"[index % 6], "#8a919d") if row["reason"] else ("sDo^v<"[index % 6], "#16181d")
        label = f"{_named(row)}, published" + (", not comparable" if row["reason"] else "")
        axes.plot(means, places, marker, ms=5.5, mfc="none", mec=ink, ls="none", zorder=3, label=label)
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(f"{metric}, per cent (bars: standard deviation over seeds)")
    axes.grid(axis="x", color="#dfe3e8", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    handles, labels = axes.get_legend_handles_labels()
    ours_first = sorted(range(len(labels)), key=lambda i: "published" in labels[i])
    drawn.legend(
        [handles[i] for i in ours_first],
        [labels[i] for i in ours_first],
        loc="outside lower left",
        frameon=False,
        fontsize=8.5,
        ncols=2,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        drawn.savefig(temporary, format="png", metadata={"Software": None})


def _points(
    row: dict[str, Any], shown: list[str], shift: float
) -> tuple[list[float], list[float], list[float]]:
    places, means, spreads = [], [], []
    for index, values in enumerate((*row["cells"], row["mean"])[: len(shown)]):
        if values:
            mean, spread = _mean_spread(values)
            places.append(index + shift)
            means.append(100 * mean)
            spreads.append(100 * (spread or 0.0))
    return places, means, spreads
