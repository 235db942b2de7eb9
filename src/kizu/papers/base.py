"""Reads the published tables. One CSV per paper, one line per printed number.

The columns:

    paper, source      citation and table
    table, row         as printed
    metric             kizu's name for it, as in results.csv; `COSTS` are no figures of accuracy
    variant            what the paper's code computes under that name: a member of kizu.metrics, or
                       "aupro_dilated" (GLASS: predictions are dilated 5x5 for the overlap, not for the
                       false-positive rate); null: not known. `DEFINITIONS` has kizu's own
    value, spread      per cent, as printed, higher is better (costs: in the unit of their name, lower is
                       better); spread: standard deviation over runs, or null
    dataset, category  "mean", "mean_textures" and "mean_objects" are averages printed by the paper; category
                       is null where the data set has none
    protocol, shots    protocol: with the settings that make it another one, as in results.csv. shots: null
                       for all good images, under few_shot and imbalanced where the paper does not say
    runs               null where the paper does not say
    detector, backbone, weights
    selection          "last": the last training step; "best_on_test" where the paper or its code reports
                       the best one on the test set; null: not known
    note               what the reader must know, such as an arithmetic slip of the paper
"""

from __future__ import annotations

from importlib import resources

import polars as pl

from kizu.errors import UnknownName

SCHEMA: dict[str, type[pl.DataType]] = {
    "table": pl.String,
    "row": pl.String,
    "metric": pl.String,
    "variant": pl.String,
    "value": pl.Float64,
    "spread": pl.Float64,
    "dataset": pl.String,
    "category": pl.String,
    "protocol": pl.String,
    "shots": pl.Int64,
    "runs": pl.Int64,
    "detector": pl.String,
    "backbone": pl.String,
    "weights": pl.String,
    "selection": pl.String,
    "note": pl.String,
}

DEFINITIONS = {
    "image_auroc": "auroc",
    "image_ap": "average_precision",
    "image_f1_max_oracle": "f1_oracle",
    "image_accuracy_oracle": "accuracy_oracle",
    "pixel_auroc": "auroc",
    "pixel_ap": "average_precision",
    "aupro_0.3": "aupro",
    "loco_auroc_structural": "loco_auroc",
    "loco_auroc_logical": "loco_auroc",
    "loco_auroc_mean": "loco_auroc",
}
"""What kizu computes under each metric's name; a figure of another `variant` is another quantity."""

COSTS = ("parameters_millions", "gflops")
"""Metrics that say what a network costs. Their rows have the data set, protocol and detector "none"."""

TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
"""The five texture categories of MVTec AD; the other ten are objects."""


def published(paper: str, citation: str, table: str | None) -> pl.DataFrame:
    """All printed numbers of a paper, or of one of its tables ("1", "table1" and "Table 1" are the same).

    Raises UnknownName, listing the tables that are held, for another one.
    """
    data = resources.files("kizu.papers").joinpath(f"{paper}.csv").read_bytes()
    frame = pl.read_csv(data, schema=SCHEMA)
    source = pl.format("{}, Table {}", pl.lit(citation), pl.col("table"))
    frame = frame.select(pl.lit(paper).alias("paper"), source.alias("source"), pl.all())
    if table is None:
        return frame
    wanted = table.lower().removeprefix("table").strip(" .").upper()
    tables = frame["table"].unique(maintain_order=True).to_list()
    if wanted not in tables:
        raise UnknownName(f"table of {paper}", table, tables)
    return frame.filter(pl.col("table") == wanted)


def averages(frame: pl.DataFrame) -> pl.DataFrame:
    """Each printed average beside the mean of the printed rows that it is over, wherever the table prints
    those rows.

    Returns table, row, metric, dataset, shots, category, printed, recomputed (both percent), rows (how many
    were averaged), note. Averages over rows that the paper does not print are left out: nothing can be said
    of them."""
    keys = ["table", "row", "metric", "dataset", "shots"]
    is_average = pl.col("category").str.starts_with("mean")
    parts = frame.filter(~is_average)
    is_texture = pl.col("category").is_in(TEXTURES)
    means = [
        _means(parts, keys, "mean"),
        _means(parts.filter(is_texture), keys, "mean_textures"),
        _means(parts.filter(~is_texture), keys, "mean_objects"),
    ]
    printed = frame.filter(is_average).select(*keys, "category", pl.col("value").alias("printed"), "note")
    return printed.join(pl.concat(means), on=[*keys, "category"], how="inner", nulls_equal=True)


def _means(parts: pl.DataFrame, keys: list[str], name: str) -> pl.DataFrame:
    grouped = parts.group_by(keys, maintain_order=True).agg(
        pl.col("value").mean().alias("recomputed"), pl.len().alias("rows")
    )
    return grouped.with_columns(pl.lit(name).alias("category"))
