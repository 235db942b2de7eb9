"""The results of the study: results.csv, README.md and the figures, from the runs that are finished. No
torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import polars as pl

from kizu.outputs import replacing, write_record
from kizu.papers.spd import spd as published

METRICS = {
    "image_ap": "image AU-PR",
    "image_auroc": "image AU-ROC",
    "pixel_ap": "pixel AU-PR",
    "pixel_auroc": "pixel AU-ROC",
}
"""AU-PR as average precision."""
NAMES = {"simsiam": "SimSiam", "moco": "MoCo", "simclr": "SimCLR", "supervised": "Sup. pre-train"}
ROWS = {
    "": "+SPD (eta = 0.1)",
    "eta_0.5": "+SPD (eta = 0.5)",
    "eta_1": "+SPD (eta = 1.0)",
    "cutpaste": "+SPD w/ CutPaste",
    "cross_entropy": "+SPD w/ Xent",
    "smooth_blend_paper": "+SPD, SmoothBlend as printed",
}
KEYS = ("objective", "spd", "variant", "seed", "dataset", "category", "protocol", "detector")


def write(out: Path, docs: Path) -> str:
    """All files into `docs`; a sentence saying where they are."""
    frame = gather(out)
    if frame.is_empty():
        return "No run is finished yet."
    from study_figures import curves, pairs, scatter

    docs.mkdir(parents=True, exist_ok=True)
    write_record(docs, "experiment.json", {"name": "spd_study"})
    with replacing(docs / "results.csv") as temporary:
        frame.write_csv(temporary)
    means = over_categories(frame)
    drawn = [scatter(means, docs), pairs(means, docs), *curves(out, docs)]
    with replacing(docs / "README.md") as temporary:
        temporary.write_text(
            page(
                means,
                json.loads((out / "settings.json").read_text("utf-8")),
                [name for name in drawn if name],
            ),
            "utf-8",
        )
    return f"Tables: {docs / 'README.md'}"


def gather(out: Path) -> pl.DataFrame:
    """One row a finished cell; the metrics as fractions."""
    rows = []
    for done in sorted(out.glob("*/done.json")):
        job = json.loads(done.read_text("utf-8"))
        for path in sorted(done.parent.glob("*/results.csv")):
            facts = {name: job[name] for name in ("objective", "spd", "variant")}
            cells = pl.read_csv(path, infer_schema_length=None).iter_rows(named=True)
            rows += [{**facts, **line, "seed": job["seed"]} for line in cells]
    if not rows:
        return pl.DataFrame()
    kept = ("train_images", "test_normal", "test_anomalous", *METRICS, "aupro_0.3")
    order = pl.col("objective").replace_strict({name: rank for rank, name in enumerate(NAMES)}, default=-1)
    table = pl.DataFrame(rows, infer_schema_length=None).select(*KEYS, *kept)
    return table.with_columns(pl.col(*METRICS, "aupro_0.3").cast(pl.Float64)).sort(order, *KEYS)


def over_categories(frame: pl.DataFrame) -> pl.DataFrame:
    """The unweighted mean over the categories of a data set, per run; in per cent."""
    keys = [name for name in KEYS if name not in ("category", "protocol")]
    means = [(100 * pl.col(name).mean()).alias(name) for name in METRICS]
    return frame.group_by(keys, maintain_order=True).agg(*means)


def page(means: pl.DataFrame, settings: dict[str, Any], drawn: list[str]) -> str:
    """The markdown."""
    main = means.filter((pl.col("variant") == "") & (pl.col("objective") != "untrained"))
    ablated = means["variant"].n_unique() > 1
    title = f"# Does SPD help? {'Tables 2 and 5' if ablated else 'Table 2'} of the paper in small"
    parts = [title, how_it_was_run(main, settings), *verdict(main)]
    for (dataset, detector), group in main.group_by(["dataset", "detector"], maintain_order=True):
        floor = means.filter(
            (pl.col("objective") == "untrained")
            & (pl.col("dataset") == dataset)
            & (pl.col("detector") == detector)
        )
        first = settings.get("init") or "untrained"
        parts += [f"## {dataset}, {detector}", pair_table(group, floor, first)]
    if ablated:
        parts += ["## Table 5 in small: SimSiam", ablation(means)]
    parts += ["## The paper's Table 2 (not comparable)", THEIRS, paper_table("2")]
    if drawn:
        parts += ["## Figures", *(f"![{name}]({name})" for name in drawn)]
    return "\n\n".join(parts) + "\n"


THEIRS = (
    "ResNet-50 trained on the 1.28 million images of ImageNet, tested on VisA and MVTec AD with PaDiM: "
    "other images, another budget, other test sets, and AU-PR by the trapezoid rule. Only the sign and the "
    "order of the differences can be held against ours."
)


def how_it_was_run(main: pl.DataFrame, settings: dict[str, Any]) -> str:
    """Settings, seeds and the command, as one paragraph."""
    seeds = ", ".join(map(str, sorted(main["seed"].unique())))
    data = ", ".join(Path(source).name for source in settings["data"])
    more = f" Parameters set: {', '.join(settings['set'])}." if settings["set"] else ""
    again = (
        f"--data {data.replace(', ', ' ')} --steps {settings['steps']} --image-size {settings['image_size']}"
    )
    begin = f"continued from {settings['init']}, " if settings.get("init") else ""
    again = (f"--init {settings['init']} " if settings.get("init") else "") + again
    again += "".join(f" --set {text}" for text in settings["set"] or [])
    return (
        f"{settings['backbone']}, {begin}{settings['stages']} stages, {settings['steps']} steps of "
        f"{settings['batch_size']} images of {data}, views of {settings['size']} pixels; with and without "
        f"SPD: the same initial weights, images and order. Seeds {seeds}; mean ± standard deviation over "
        f"seeds, in per cent; test images of {settings['image_size']} pixels.{more}\nDifference: with minus "
        "without, paired by seed, mean ± standard error; bold where 0 is outside its 95 % interval "
        "(Student's t; many such intervals are looked at here, so some would be outside by chance "
        f"alone).\n\nAgain: `python experiments/spd_study/study.py {again}`; all runs: "
        "[results.csv](results.csv)."
    )


def verdict(main: pl.DataFrame) -> list[str]:
    """The differences, averaged over data sets and detectors."""
    lines = table_head(["pretraining", *METRICS.values(), "better in"])
    differences = paired(main)
    if differences.is_empty():
        return ["No pair of runs with and without SPD is finished yet."]
    for objective in [*dict.fromkeys(main["objective"]), "all"]:
        part = differences if objective == "all" else differences.filter(pl.col("objective") == objective)
        if part.is_empty():
            continue
        seeds = part.group_by("seed").agg(pl.col(*METRICS).mean())
        cells = part.group_by("objective", "dataset", "detector").agg(pl.col(*METRICS).mean())
        wins = sum(int((cells[name].drop_nulls() > 0).sum()) for name in METRICS)
        of = sum(cells[name].drop_nulls().len() for name in METRICS)
        lines.append(
            row(
                [
                    NAMES.get(objective, objective),
                    *(difference(seeds[name]) for name in METRICS),
                    f"{wins} of {of}",
                ]
            )
        )
    explanation = (
        "Difference that SPD makes, mean over data sets and detectors. Better in: means above 0 among data "
        "set x detector x metric."
    )
    return ["## All together", explanation, "\n".join(lines)]


def paired(main: pl.DataFrame) -> pl.DataFrame:
    """With minus without, where both have been run."""
    keys = ["objective", "dataset", "detector", "seed"]
    on, off = (main.filter(pl.col("spd") == side).select(*keys, *METRICS) for side in (True, False))
    both = on.join(off, on=keys, suffix="_off", maintain_order="left")
    return both.select(*keys, *((pl.col(name) - pl.col(f"{name}_off")).alias(name) for name in METRICS))


def pair_table(group: pl.DataFrame, floor: pl.DataFrame, first: str) -> str:
    """Without, with, difference, for each objective; before them the network that was not trained here, by
    the name `first`."""
    lines = table_head(["pretraining", *METRICS.values()])
    if floor.height:
        lines.append(row([first, *(spread(floor[name]) for name in METRICS)]))
    for objective in dict.fromkeys(group["objective"]):
        part = group.filter(pl.col("objective") == objective)
        for label, side in ((NAMES[objective], False), ("+SPD", True)):
            lines.append(
                row([label, *(spread(part.filter(pl.col("spd") == side)[name]) for name in METRICS)])
            )
        differences = paired(part)
        lines.append(row(["difference", *(difference(differences[name]) for name in METRICS)]))
    return "\n".join(lines)


def ablation(means: pl.DataFrame) -> str:
    """Each variant less plain SimSiam, by data set and detector, beside the paper's."""
    simsiam = means.filter(pl.col("objective") == "simsiam")
    lines = table_head(["", "data set", "detector", *METRICS.values()])
    for (dataset, detector), group in simsiam.group_by(["dataset", "detector"], maintain_order=True):
        plain = group.filter(~pl.col("spd"))
        for variant, label in ROWS.items():
            gained = paired(pl.concat([plain, group.filter(pl.col("spd") & (pl.col("variant") == variant))]))
            if gained.height:
                lines.append(row([label, dataset, detector, *(difference(gained[name]) for name in METRICS)]))
    explanation = (
        "Difference to SimSiam without SPD at the same budget. The paper's Table 5 (not comparable):"
    )
    return "\n".join(lines) + f"\n\n{explanation}\n\n{paper_table('5')}"


def paper_table(number: str) -> str:
    """A published table as printed: values, and where a row is "+SPD" of another, the difference."""
    frame = published(number)
    datasets = list(dict.fromkeys(frame["dataset"]))
    printed = {(r["row"], r["dataset"], r["metric"]): r["value"] for r in frame.iter_rows(named=True)}
    lines = table_head(["row", *(f"{dataset} {name}" for dataset in datasets for name in METRICS.values())])
    plain = ""
    for label in dict.fromkeys(frame["row"]):
        base = base_of(label, plain)
        plain = label if not base else plain
        cells = []
        for column in [(dataset, name) for dataset in datasets for name in METRICS]:
            value, before = printed.get((label, *column)), printed.get((base, *column))
            more = f" ({value - before:+.1f})" if value is not None and before is not None else ""
            cells.append("" if value is None else f"{value:.1f}{more}")
        lines.append(row([label, *cells]))
    return "\n".join(lines)


def base_of(label: str, plain: str) -> str:
    """The row that a row with SPD is measured against; empty for one without."""
    if label.startswith("+"):
        return "SimSiam w/ Res50"
    return label.removesuffix("+SPD").strip() if label.endswith("+SPD") else ""


def spread(values: pl.Series) -> str:
    """Mean ± sample standard deviation."""
    known = values.drop_nulls()
    if known.is_empty():
        return ""
    return f"{known.mean():.1f}" + (f" ± {known.std():.1f}" if known.len() > 1 else "")


def difference(values: pl.Series) -> str:
    """Mean ± standard error; bold where the 95 % interval leaves 0 out."""
    from scipy.stats import t

    known = values.drop_nulls()
    if known.is_empty():
        return ""
    mean = float(known.mean())  # type: ignore[arg-type]
    if known.len() < 2:
        return f"{mean:+.1f}"
    error = float(known.std()) / math.sqrt(known.len())  # type: ignore[arg-type]
    text = f"{mean:+.1f} ± {error:.1f}"
    return f"**{text}**" if abs(mean) > float(t.ppf(0.975, known.len() - 1)) * error else text


def table_head(names: list[str]) -> list[str]:
    return [row(names), row(["---", *["---:"] * (len(names) - 1)])]


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
