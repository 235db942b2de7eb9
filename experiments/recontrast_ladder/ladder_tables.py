"""Tables of the ablation: results.csv, README.md and curves, from the runs that are finished. No torch."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import polars as pl

from kizu.outputs import replacing, write_record
from kizu.papers.recontrast import recontrast as published
from kizu.reports.diagnosis import diagnosis

ORDER = ("A", "B", "B+hm", "C", "D", "C+cp", "E-gl", "E", "full")
CLAIMS = (
    ("A", "B", "the global loss lifts the frozen encoder"),
    ("B", "B+hm", "hard mining lifts it further"),
    ("C", "B", "training the encoder jointly loses to a frozen one"),
    ("C", "D", "stop-gradient recovers some of it"),
    ("C", "C+cp", "contrastive pairs recover some of it"),
    ("D", "E", "pairs on top of stop-gradient help"),
    ("B", "E", "both exceed the frozen encoder"),
    ("E-gl", "E", "the global loss helps there too"),
    ("E", "full", "hard mining is best of all"),
    ("A", "B+hm", "global loss and hard mining lift the frozen encoder"),
    ("C", "E", "stop-gradient and pairs recover all of it"),
    ("B+hm", "full", "the whole method exceeds the frozen encoder"),
)
"""(lower, higher, in words): what section 3.5 of the paper reads from table 6."""
NAMES = {"planted": "planted circuit", "screw": "MVTec AD screw", "magnetic_tile": "magnetic tile"}
COLOURS = {"B": "#8a919d", "C": "#c65416", "D": "#2f8f6b", "E": "#20689e", "full": "#8a5aa8"}
FIGURES = ("image_auroc", "pixel_auroc", "aupro_0.3")


def write(options: argparse.Namespace) -> str:
    """All files into `docs`; a sentence saying where they are."""
    runs = gather(options.out)
    if not runs:
        return "No run is finished yet."
    docs: Path = options.docs
    docs.mkdir(parents=True, exist_ok=True)
    write_record(docs, "experiment.json", {"name": "recontrast_ladder"})
    table = frame(runs)
    with replacing(docs / "results.csv") as temporary:
        table.write_csv(temporary)
    drawn = curves(runs, docs)
    with replacing(docs / "README.md") as temporary:
        temporary.write_text(page(table, runs, drawn), "utf-8")
    first = [
        folder
        for variant in ORDER
        if (folder := options.out / "planted" / f"{variant}_0").joinpath("diagnosis.json").exists()
    ]
    if first:
        diagnosis(first, docs / "planted.html")
    return f"Tables: {docs / 'README.md'}"


def gather(out: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """(data set, variant, seed) -> diagnosis."""
    runs = {}
    for path in sorted(out.glob("*/*/diagnosis.json")):
        variant, _, seed = path.parent.name.rpartition("_")
        runs[path.parent.parent.name, variant, int(seed)] = json.loads(path.read_text("utf-8"))
    return dict(
        sorted(
            runs.items(),
            key=lambda item: (list(NAMES).index(item[0][0]), ORDER.index(item[0][1]), item[0][2]),
        )
    )


def frame(runs: dict[tuple[str, str, int], dict[str, Any]]) -> pl.DataFrame:
    """One row a run, in per cent."""
    rows = []
    for (dataset, variant, seed), run in runs.items():
        row: dict[str, Any] = {
            "dataset": dataset,
            "variant": variant,
            "seed": seed,
            "iterations": run["last"]["step"],
        }
        for which in ("last", "best_oracle"):
            row |= {f"{name}_{which}": _percent(run[which].get(name)) for name in FIGURES}
        diverse = [line["diversity"] for line in run["steps"]]
        rows.append(
            {
                **row,
                "diversity_first": diverse[0],
                "diversity_last": diverse[-1],
                "best_step_oracle": run["best_oracle"]["step"],
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def page(table: pl.DataFrame, runs: dict[tuple[str, str, int], dict[str, Any]], drawn: list[str]) -> str:
    """The README."""
    parameters = next(iter(runs.values()))["parameters"]
    side = parameters["image_size"][0]
    name = next(iter(runs.values()))["representation"].partition("@")[0]
    parts = [
        f"# The ablation of ReContrast on {name}",
        "",
        f"Variants of table 6: {parameters['iterations']} iterations of {parameters['batch_size']} images of "
        f"{side}",
        "pixels (the paper: 2,000 of 16 at 256, Wide ResNet-50 trained on ImageNet, encoder's rate 1e-5). "
        "The encoder's rate here is",
        f"{_rate(runs)}. The split is fixed, seeds are those of the training; ± is the sample standard "
        "deviation.",
        "*last* is the figure of the last iteration; *best* is picked on the test labels, an oracle, as the "
        "paper's is. results.csv holds",
        f"the runs. Written by `{command(runs, parameters, name)}`.",
        "",
    ]
    for dataset in table["dataset"].unique(maintain_order=True):
        parts += [*_table(table.filter(pl.col("dataset") == dataset), dataset), ""]
    parts += ["## Does the order of the paper hold?", "", *_verdict(table), ""]
    parts += ["## Curves", "", *[f"![{name}]({name})" for name in drawn], ""]
    if any(key[0] == "planted" for key in runs):
        parts += [
            "`planted.html` here is the page that `kizu diagnose` writes: curves of the first seed, "
            "landscapes of A, B and full.",
            "",
        ]
    return "\n".join(parts)


def command(runs: dict[tuple[str, str, int], dict[str, Any]], parameters: dict[str, Any], name: str) -> str:
    """What makes these runs."""
    options = {
        "representation": name,
        "iterations": parameters["iterations"],
        "batch-size": parameters["batch_size"],
        "image-size": parameters["image_size"][0],
        "encoder-rate": _rate(runs),
        "variants": " ".join(dict.fromkeys(variant for _, variant, _ in runs)),
    }
    said = " ".join(f"--{option} {value}" for option, value in options.items())
    return f"python experiments/recontrast_ladder/ladder.py {said}"


def _rate(runs: dict[tuple[str, str, int], dict[str, Any]]) -> str:
    rates = {
        run["parameters"]["encoder_learning_rate"]
        for run in runs.values()
        if "encoder_learning_rate" in run["parameters"]
    }
    return " or ".join(f"{rate:g}" for rate in sorted(rates)) or "-"


def _table(rows: pl.DataFrame, dataset: str) -> list[str]:
    seeds = rows["seed"].n_unique()
    lines = [f"## {NAMES[dataset]}, {seeds} seed{'s' if seeds > 1 else ''}", ""]
    lines += [
        "| variant | image AUROC last | best (oracle) | AUPRO last | best (oracle) | "
        "diversity, first -> last | paper (MVTec AD), last/best |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    for variant in ORDER:
        chosen = rows.filter(pl.col("variant") == variant)
        if chosen.is_empty():
            continue
        cells = [
            _spread(chosen[f"{name}_{which}"].to_list())
            for name in ("image_auroc", "aupro_0.3")
            for which in ("last", "best_oracle")
        ]
        first, last = (statistics.fmean(chosen[f"diversity_{end}"]) for end in ("first", "last"))
        lines.append(f"| {variant} | {' | '.join(cells)} | {first:.4f} -> {last:.4f} | {_paper(variant)} |")
    return lines


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.fmean(known):.1f}" + (f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else "")


def _paper(variant: str) -> str:
    table = published("6").filter((pl.col("dataset") == "mvtec") & (pl.col("metric") == "image_auroc"))
    name = "Ours" if variant == "full" else f"Config.{variant}"
    return "/".join(
        f"{table.filter(pl.col('row') == f'{name} ({which})')['value'][0]:.2f}" for which in ("last", "best")
    )


def _verdict(table: pl.DataFrame) -> list[str]:
    """Each claim of the paper against our last-iteration image AUROC, over data sets and seeds."""
    lines = [
        "| the paper says | "
        + " | ".join(NAMES[name] for name in table["dataset"].unique(maintain_order=True))
        + " |"
    ]
    lines += ["|---" * (1 + table["dataset"].n_unique()) + "|"]
    for lower, higher, words in CLAIMS:
        cells = [
            _claim(table.filter(pl.col("dataset") == name), lower, higher)
            for name in table["dataset"].unique(maintain_order=True)
        ]
        lines.append(f"| {lower} < {higher}: {words} | {' | '.join(cells)} |")
    lines += [
        "",
        "A cell: mean difference of the last image AUROC in points, and in how many seeds it has the paper's "
        "sign.",
    ]
    return lines


def _claim(rows: pl.DataFrame, lower: str, higher: str) -> str:
    low, high = (
        rows.filter(pl.col("variant") == variant).select("seed", "image_auroc_last")
        for variant in (lower, higher)
    )
    both = high.join(low, on="seed", suffix="_low")
    gaps = (both["image_auroc_last"] - both["image_auroc_last_low"]).to_list()
    return f"{statistics.fmean(gaps):+.1f}, {sum(gap > 0 for gap in gaps)} of {len(gaps)}" if gaps else "-"


def curves(runs: dict[tuple[str, str, int], dict[str, Any]], docs: Path) -> list[str]:
    """diversity.png and training.png: a panel a data set, a line a run of B, C, D, E and full."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in NAMES if any(key[0] == name for key in runs)]
    files = []
    charts = (
        ("diversity.png", "steps", "diversity", "diversity of level 2"),
        ("training.png", "tests", "image_auroc", "image AUROC"),
    )
    for file, part, key, label in charts:
        figure, axes = pyplot.subplots(
            1, len(names), figsize=(4.2 * len(names), 3.2), squeeze=False, layout="constrained"
        )
        for axis, name in zip(axes[0], names, strict=True):
            for (dataset, variant, seed), run in runs.items():
                if dataset == name and variant in COLOURS:
                    points = [(row["step"], row[key]) for row in run[part]]
                    legend = variant if seed == min(k[2] for k in runs) else None
                    axis.plot(*zip(*points, strict=True), color=COLOURS[variant], lw=1.2, label=legend)
            axis.set_title(NAMES[name], fontsize=10)
            axis.set_xlabel("iteration", fontsize=9)
            axis.set_ylabel(label, fontsize=9)
            axis.tick_params(labelsize=8)
        axes[0][0].legend(fontsize=8)
        with replacing(docs / file) as temporary:
            figure.savefig(temporary, dpi=110, format="png")
        pyplot.close(figure)
        files.append(file)
    return files
