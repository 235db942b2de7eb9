"""The report of a run as one HTML file that opens anywhere, without a network.

The verdict in plain words, the metrics, the score histogram, the curves, every kind of defect, the images
with the worst mistakes first, and what was run. A number that was not measured is an empty cell, never a
zero."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from kizu.errors import ImageError, UsageError
from kizu.reports import _svg, _words
from kizu.reports._draw import figure, frame, panel_images
from kizu.reports._heat import colour
from kizu.reports._page import mask_uri, photo_uri, render
from kizu.reports._run import MISTAKES, Run, number, open_run, section, worst_first
from kizu.store import replacing

_BYTES = 5_000_000
"""Bytes of images in a report, before base64; a long report shows them at a lower quality instead of
growing."""
_METRICS = (
    ("auroc", "AUROC"),
    ("ap", "AP"),
    ("aupro_0.3", "AUPRO (FPR ≤ 0.3)"),
    ("f1_max_oracle", "F1 max (oracle)"),
)
_SHOWN_ABOVE = ("name", "counts", "notes", "warnings", "errors", "map_range", "seen")


def html(
    run_folder: Path | str, out: Path | str | None = None, *, limit: int = 200, longest: int = 224
) -> Path:
    """Write the report of a run folder and return its path.

    out: the file, by default report.html in the run folder; an old one is replaced. limit: how many test
    images are shown at most, the worst mistakes first; the report says how many are not. longest: pixels of a
    image's longer side. Raises LayoutError when the folder is no run folder or a file in it is damaged."""
    if limit < 1 or longest < 16:
        raise UsageError(f"html needs limit >= 1 and longest >= 16, got {limit} and {longest}.")
    target = Path(out) if out is not None else Path(run_folder) / "report.html"
    with open_run(run_folder) as run:
        page = render("report.html.j2", **_content(run, limit, longest))
    with replacing(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def _content(run: Run, limit: int, longest: int) -> dict[str, Any]:
    chosen = worst_first(run).head(limit)
    counted = _words.tally(run)
    return {
        "title": str(run.info.get("name") or run.folder.name),
        "subtitle": _subtitle(run),
        "seen": run.info.get("seen") is True,
        "warnings": [str(one) for one in _listed(run.info.get("warnings"))],
        "learnt": _words.learnt(run),
        "measured": _words.measured(run),
        "sureness": _words.sureness(run),
        "tally": counted,
        "outcome": _outcome(counted),
        "metric_names": [name for _, name in _METRICS],
        "metrics": _metric_rows(run),
        "defects": _defect_rows(run),
        "histogram": _histogram(run),
        "curves": _curves(run, counted),
        "cards": _cards(run, chosen, longest),
        "total": run.samples.height,
        "mistakes": {kind: int((chosen["verdict"] == kind).sum()) for kind in MISTAKES},
        "kinds": sorted({defect for defect in chosen["defect"] if defect}),
        "legend": _legend(run),
        "details": _details(run),
        "notes": [str(note) for note in _listed(run.info.get("notes"))],
        "errors": [_error(entry) for entry in _listed(run.info.get("errors"))],
    }


def _subtitle(run: Run) -> str:
    parts = [run.info.get(key) for key in ("detector", "representation", "dataset", "category", "protocol")]
    return " · ".join(str(part) for part in parts if part)


def _outcome(counted: _words.Tally) -> list[dict[str, Any]]:
    """Two stacked bars: good parts passed and stopped, flawed parts found and missed."""
    if counted.false_alarms is None or counted.found is None:
        return []
    good = {
        "name": "good parts",
        "n": counted.good,
        "right": counted.good - counted.false_alarms,
        "wrong": counted.false_alarms,
    }
    flawed = {
        "name": "flawed parts",
        "n": counted.flawed,
        "right": counted.found,
        "wrong": counted.flawed - counted.found,
    }
    words = (("passed", "false alarm" if counted.false_alarms == 1 else "false alarms"), ("found", "missed"))
    return [{**bar, "words": pair} for bar, pair in zip((good, flawed), words, strict=True) if bar["n"]]


def _metric_rows(run: Run) -> list[tuple[str, list[str]]]:
    """All test images together; where there are several categories, the mean over them and then each."""
    each = [entry for entry in _listed(run.metrics.get("categories")) if isinstance(entry, dict)]
    parts = [("", run.metrics), *([("mean over categories, ", section(run.metrics, "mean"))] if each else [])]
    rows = []
    for name, figures in [*parts, *((f"{entry.get('category')}, ", entry) for entry in each)]:
        for level in ("image", "pixel"):
            values = section(figures, level)
            rows.append((name + level, [_fixed(values.get(key)) for key, _ in _METRICS]))
    return rows


def _fixed(value: Any) -> str:
    finite = number(value)
    return "" if finite is None else f"{finite:.3f}"


def _defect_rows(run: Run) -> list[dict[str, Any]]:
    """Kinds of defect with their images, AUROC (as measured by the run) and how many were found (counted
    here)."""
    entries = [entry for entry in _listed(run.metrics.get("by_defect")) if isinstance(entry, dict)]
    aurocs = {str(entry.get("defect")): _fixed(entry.get("auroc")) for entry in entries}
    flawed = run.samples.filter(pl.col("label") == 1).with_columns(pl.col("defect").fill_null("(not named)"))
    detected = pl.when(pl.col("is_anomalous").null_count() == 0).then(pl.col("is_anomalous").sum())
    grouped = flawed.group_by("defect").agg(pl.len().alias("images"), detected.alias("found")).sort("defect")
    return [{**row, "auroc": aurocs.get(row["defect"], "")} for row in grouped.iter_rows(named=True)]


def _histogram(run: Run) -> Markup:
    def scores(*labels: int | None) -> list[float]:
        return run.samples.filter(pl.col("label").is_in(labels, nulls_equal=True))["score"].to_list()

    return _svg.histogram(
        scores(0, None), scores(1), ("good or unlabelled parts", "flawed parts"), run.threshold
    )


def _curves(run: Run, counted: _words.Tally) -> list[tuple[str, Markup]]:
    point = None
    if counted.good and counted.flawed and counted.false_alarms is not None and counted.found is not None:
        point = (counted.false_alarms / counted.good, counted.found / counted.flawed)
    wanted = [
        ("image", "roc", "ROC, images", ("false alarm rate", "flaws found"), 1.0, point),
        ("image", "pr", "Precision, images", ("recall", "precision"), 1.0, None),
        ("pixel", "roc", "ROC, pixels", ("false positive rate", "true positive rate"), 1.0, None),
        ("pixel", "pr", "Precision, pixels", ("recall", "precision"), 1.0, None),
        ("pixel", "pro", "Region overlap", ("false positive rate", "mean overlap"), 0.3, None),
    ]
    drawn = []
    for level, kind, title, labels, x_limit, marked in wanted:
        points = section(section(run.curves, level), kind)
        xs, ys = (
            [float("nan") if (v := number(x)) is None else v for x in _listed(points.get(axis))]
            for axis in ("x", "y")
        )
        drawn.append((title, _svg.curve(title, xs, ys, labels, x_limit=x_limit, point=marked)))
    return [(title, chart) for title, chart in drawn if chart]


def _cards(run: Run, chosen: pl.DataFrame, longest: int) -> list[dict[str, Any]]:
    budget = _BYTES // (2 * max(1, chosen.height))
    map_range = run.map_range
    cards = []
    for rank, sample in enumerate(chosen.iter_rows(named=True)):
        facts = {
            "rank": rank,
            "name": PurePath(sample["image"] or "").name or f"row {sample['row']}",
            "path": sample["image"] or "",
            "defect": sample["defect"] or "",
            "verdict": sample["verdict"],
            "mistake": sample["verdict"] in MISTAKES,
            "lacking": "none" if sample["label"] == 0 else "not marked",
            "score": sample["score"],
            "score_text": figure(sample["score"]),
            "p_value": "" if sample["p_value"] is None else figure(sample["p_value"], 3),
        }
        cards.append(facts | _shots(run, sample, longest, map_range, budget))
    return cards


def _shots(
    run: Run, sample: dict[str, Any], longest: int, map_range: tuple[float, float], budget: int
) -> dict[str, Any]:
    nothing: dict[str, Any] = {
        "problem": "",
        "image": "",
        "truth": "",
        "heat": "",
        "decision": "",
        "wide": 1,
        "high": 1,
    }
    try:
        image, mask = run.image(sample["row"]), run.mask(sample["row"])
    except ImageError as error:
        return nothing | {"problem": error.reason}
    if image is None:
        return nothing | {"problem": "no image was kept"}
    shown = panel_images(image, run.heat(sample["row"]), mask, map_range, longest)
    decided = shown.heat is not None or sample["is_anomalous"] is not None
    return nothing | {
        "image": photo_uri(shown.image, budget * 4 // 5),
        "truth": "" if shown.truth is None else mask_uri(shown.truth),
        "heat": "" if shown.heat is None else photo_uri(shown.heat, budget * 2 // 5),
        "decision": photo_uri(_framed(shown.decision, sample["is_anomalous"]), budget * 4 // 5)
        if decided
        else "",
        "wide": shown.image.shape[1],
        "high": shown.image.shape[0],
    }


def _framed(pixels: NDArray[np.uint8], called: bool | None) -> NDArray[np.uint8]:
    return np.asarray(frame(pixels, called, max(2, max(pixels.shape) // 48)))


def _legend(run: Run) -> dict[str, str]:
    low, high = run.map_range
    strip = colour(np.repeat(np.linspace(0, 1, 128, dtype=np.float32)[None], 8, axis=0))
    return {"low": figure(low, 3), "high": figure(high, 3), "uri": photo_uri(strip, 4000)}


def _details(run: Run) -> list[tuple[str, str]]:
    counts = section(run.info, "counts")
    shown = (
        [("images", _plain({key: value for key, value in counts.items() if value is not None}))]
        if counts
        else []
    )
    rest = [
        (key, _plain(value))
        for key, value in run.info.items()
        if key not in _SHOWN_ABOVE and value is not None
    ]
    return [(key.replace("_", " "), text) for key, text in shown + rest if text]


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{str(key).replace('_', ' ')} {_plain(inner)}"
            for key, inner in value.items()
            if inner is not None
        )
    if isinstance(value, list):
        return (
            " × ".join(_plain(inner) for inner in value)
            if all(isinstance(v, int) for v in value)
            else ", ".join(map(_plain, value))
        )
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _error(entry: Any) -> tuple[str, str]:
    if isinstance(entry, dict):
        return str(entry.get("path", "")), str(entry.get("reason", ""))
    if isinstance(entry, list) and len(entry) == 2:
        return str(entry[0]), str(entry[1])
    return str(entry), ""
