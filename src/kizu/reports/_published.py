"""Published rows beside an experiment's own: their figures, and why they may not be compared."""

from __future__ import annotations

from typing import Any

import polars as pl

from kizu.papers.base import DEFINITIONS


def published_rows(
    frame: pl.DataFrame, published: pl.DataFrame, metric: str, categories: list[str]
) -> list[dict[str, Any]]:
    """Published rows of the same metric and data sets: {"facts", "cells", "mean", "reason"}, cells and mean
    as fractions, reason why the row cannot be compared, "" if it can."""
    kept = published.filter(
        (pl.col("metric") == metric) & pl.col("dataset").is_in(frame["dataset"].unique().to_list())
    )
    rows = []
    keys = ["source", "row", "variant", "dataset", "protocol", "shots", "detector", "backbone", "weights"]
    keys += ["selection"]
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
            rows.append(
                {"facts": facts, "cells": cells, "mean": mean, "reason": why_not(facts, frame, metric)}
            )
    return rows


def why_not(facts: dict[str, Any], frame: pl.DataFrame, metric: str) -> str:
    """The first condition of a published row that none of our runs meets; "" when one meets all."""
    computed = DEFINITIONS.get(metric, metric)
    if facts["variant"] is None:
        return f"which variant of the metric the paper does not state; here: {computed}"
    if facts["variant"] != computed:
        return f"metric: {facts['variant']}; here: {computed}"
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
        present = ours[name].unique().to_list()
        if name == "weights" and (wanted is None or present == [None]):
            return "weights not stated " + ("by the paper" if wanted is None else "by these results")
        if name == "shots" and wanted is None and facts["protocol"] in ("few_shot", "imbalanced"):
            return "shots not stated by the paper"
        ours = ours.filter(pl.col(name).eq_missing(pl.lit(wanted, dtype=pl.String)))
        if ours.is_empty():
            here = ", ".join(
                sorted(str(value) if value is not None else "all good images" for value in present)
            )
            return f"{name}: {wanted if wanted is not None else 'all good images'}; here: {here}"
    backbone = facts["backbone"]
    if backbone is None:
        return "backbone not stated by the paper"
    if not ours["representation"].str.starts_with(backbone).any():
        return f"backbone: {backbone}; here: {', '.join(sorted(ours['representation'].unique()))}"
    return ""
