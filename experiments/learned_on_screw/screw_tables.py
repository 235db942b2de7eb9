"""results.csv, README.md and curves.png from the runs that are finished. No torch."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import polars as pl

from kizu.outputs import replacing, write_record
from kizu.papers.adpretrain import adpretrain
from kizu.papers.recontrast import recontrast

ORDER = ("uniad", "cflow", "glass")
FIGURES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro_0.3": "AUPRO"}
COLOURS = {"uniad": "#20689e", "cflow": "#c65416", "glass": "#2f8f6b"}
COLUMNS = ("detector", "category", "protocol", "metric", "value", "backbone", "weights")


def write(options: argparse.Namespace) -> str:
    """All files into `docs`; a sentence saying where they are."""
    runs = gather(options.out)
    if not runs:
        return "No run is finished yet."
    docs: Path = options.docs
    docs.mkdir(parents=True, exist_ok=True)
    write_record(docs, "experiment.json", {"name": "learned_on_screw"})
    with replacing(docs / "results.csv") as temporary:
        frame(runs).write_csv(temporary)
    with replacing(docs / "README.md") as temporary:
        temporary.write_text(page(runs), "utf-8")
    draw(runs, docs / "curves.png")
    return f"Tables: {docs / 'README.md'}"


def gather(out: Path) -> list[dict[str, Any]]:
    """The finished runs, detectors in ORDER and others after them, seeds in order."""
    runs = [json.loads(path.read_text("utf-8")) for path in out.glob("*/run.json")]
    names = [*ORDER, *sorted({run["detector"] for run in runs} - set(ORDER))]
    return sorted(runs, key=lambda run: (names.index(run["detector"]), run["seed"]))


def frame(runs: list[dict[str, Any]]) -> pl.DataFrame:
    """One row a test: detector, seed, iterations of the run, step, loss, figures in per cent, minutes of the
    run's training without its tests."""
    rows = [
        {
            "detector": run["detector"],
            "seed": run["seed"],
            "iterations": run["parameters"]["iterations"],
            "step": test["step"],
            "loss": test["loss"],
            **{name: percent(test.get(name)) for name in FIGURES},
            "minutes": round(run["minutes"], 1),
        }
        for run in runs
        for test in run["tests"]
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def page(runs: list[dict[str, Any]]) -> str:
    """The README."""
    first = runs[0]
    size, images = first["parameters"]["image_size"][0], first["images"]
    lines = [
        "# Learned detectors on MVTec AD screw",
        "",
        f"Trained on the {images['train']} good images of the official split, tested on {images['test']}, at "
        f"{size} pixels, on features of {first['representation'].partition('@')[0]}, one model for the "
        f"category. {parameters(runs)} The last step counts; the best on the "
        "test images is an oracle's, and says what choosing by them would claim.",
        "`python experiments/learned_on_screw/screw.py --data-root FOLDER` runs it, `--report` writes this "
        "page.",
        "",
        "| detector | levels | steps | minutes | image AUROC | its best (oracle) | pixel AUROC | AUPRO |",
        "|---|---|---|---|---|---|---|---|",
        *(line(name, runs) for name in dict.fromkeys(run["detector"] for run in runs)),
        "",
        "Means over seeds, ± standard deviation where there are several. Minutes are of the training alone.",
        "",
        "![Figures along the training](curves.png)",
        "",
        "Published figures stand on other networks and images of other sizes; those of ADPretrain are means "
        "over the data set. None of them is comparable: they say what these methods reach elsewhere.",
        "",
        *published(),
    ]
    return "\n".join(lines) + "\n"


def parameters(runs: list[dict[str, Any]]) -> str:
    """A sentence about what was not left at its default."""
    named = dict.fromkeys(
        f"{run['detector']}.{name}={json.dumps(value)}"
        for run in runs
        for name, value in run["given"].items()
    )
    if not named:
        return "All other parameters are the detectors' defaults."
    return f"All other parameters are the detectors' defaults but for {', '.join(named)}."


def line(name: str, runs: list[dict[str, Any]]) -> str:
    """A row of the table: one detector, all of its seeds."""
    mine = [run for run in runs if run["detector"] == name]
    last = [run["tests"][-1] for run in mine]
    best = [max(test["image_auroc"] for test in run["tests"]) for run in mine]
    figures = {key: spread([percent(test.get(key)) for test in last]) for key in FIGURES}
    cells = [
        name,
        mine[0]["representation"].partition("@")[2],
        f"{mine[0]['parameters']['iterations']:,}",
        f"{statistics.fmean(run['minutes'] for run in mine):.0f}",
        figures["image_auroc"],
        spread([percent(value) for value in best]),
        figures["pixel_auroc"],
        figures["aupro_0.3"],
    ]
    return f"| {' | '.join(cells)} |"


def published() -> list[str]:
    """Rows of the papers' own tables about these detectors on screw, and ADPretrain's means over the data
    set."""
    mine = pl.col("detector").is_in(ORDER) & (pl.col("dataset") == "mvtec")
    parts = {
        "ReContrast": recontrast().filter(mine & (pl.col("category") == "screw")),
        "ADPretrain": adpretrain("1").filter(mine & (pl.col("category") == "mean")),
    }
    both = pl.concat([part.select(pl.lit(name).alias("by"), *COLUMNS) for name, part in parts.items()])
    lines = ["| as printed by | detector | category | protocol | metric | value | network | weights |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    rows = both.sort("detector", "by", "metric", "weights", nulls_last=True).iter_rows()
    cells = (["" if value is None else str(value) for value in row] for row in rows)
    return [*lines, *(f"| {' | '.join(row)} |" for row in cells)]


def percent(value: float | None) -> float | None:
    """Of a share, to two digits."""
    return None if value is None else round(100 * value, 2)


def spread(values: list[float | None]) -> str:
    """Mean ± standard deviation."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.fmean(known):.1f}" + (f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else "")


def draw(runs: list[dict[str, Any]], file: Path) -> None:
    """A panel a figure, a line a run, over the share of its steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(FIGURES), figsize=(12.6, 3.4), layout="constrained")
    for axis, (key, label) in zip(axes, FIGURES.items(), strict=True):
        seen: set[str] = set()
        for run in runs:
            name, steps = run["detector"], run["parameters"]["iterations"]
            points = [(100 * t["step"] / steps, 100 * t[key]) for t in run["tests"] if t.get(key) is not None]
            legend = None if name in seen else f"{name}, {steps:,} steps"
            seen.add(name)
            colour = COLOURS.get(name)
            axis.plot(*zip(*points, strict=True), color=colour, marker="o", ms=3, lw=1.2, label=legend)
        axis.set_title(label, fontsize=10)
        axis.set_xlabel("per cent of the steps", fontsize=9)
        axis.tick_params(labelsize=8)
    axes[0].legend(fontsize=8)
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    pyplot.close(figure)
