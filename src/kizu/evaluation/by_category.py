"""Figures of each category by itself and their mean, for a model that serves several; scores of two
categories are never pooled."""

from __future__ import annotations

from typing import Any

import numpy as np

from kizu.evaluation.loco import loco_figures
from kizu.evaluation.predict import Predictions
from kizu.samples import Samples

KEPT = ("image", "pixel", "decision", "images")


def by_category(test: Samples, predictions: Predictions) -> dict[str, Any]:
    """What metrics.json holds beside the pooled figures; `test` is the table that was predicted.

    Several categories: "categories", a list of {"category", "image", "pixel", "decision", "images"}, and
    "mean", {"image", "pixel"} of unweighted means, null where a category has no such figure. Pixel figures
    are null when the maps did not fit in memory, sPRO is with a region of interest. MVTec LOCO AD: also
    "loco", see `loco_figures`, of each category and of the mean. One category of another data set:
    nothing."""
    names = np.asarray(test.take(predictions.rows).table["category"].to_list())
    known = sorted(set(names.tolist()))
    entries = []
    for name in known:
        part = predictions.take(np.flatnonzero(names == name))
        loco = loco_figures(test.take(part.rows), part.scores, None if part.roi else part.maps)
        if len(known) > 1:
            figures = part.measure(test).metrics
            entries.append({"category": name, **{key: figures[key] for key in KEPT}, **loco})
        elif loco:
            return loco
    if not entries:
        return {}
    parts = [key for key in ("image", "pixel", "loco") if key in entries[0]]
    return {
        "categories": entries,
        "mean": {key: _mean([entry.get(key) for entry in entries]) for key in parts},
    }


def _mean(figures: list[dict[str, float | None] | None]) -> dict[str, float | None] | None:
    known = [one for one in figures if one]
    if len(known) < len(figures):
        return None
    columns = {name: [one.get(name) for one in known] for name in known[0]}
    return {
        name: None if None in values else float(np.mean(np.asarray(values, float)))
        for name, values in columns.items()
    }
