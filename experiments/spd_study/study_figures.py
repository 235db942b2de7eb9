"""The study's figures: image against pixel AU-PR as in Fig. 7, with against without SPD, and SPD's curves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from kizu.store import replacing

COLOURS = {"simsiam": "#20689e", "moco": "#c65416", "simclr": "#2f8f6b", "supervised": "#8a5aa8"}
NAMES = {"simsiam": "SimSiam", "moco": "MoCo", "simclr": "SimCLR", "supervised": "supervised"}
MARKS = {"padim": "o", "patchcore": "s"}
GREY = "#8a919d"


def scatter(means: pl.DataFrame, docs: Path) -> str:
    """A panel a data set: image AU-PR against pixel AU-PR, open without SPD, filled with it, an arrow from
    one to the other."""
    main = means.filter(pl.col("variant") == "")
    datasets = list(dict.fromkeys(main["dataset"]))
    figure, axes = panels(len(datasets), 4.1)
    for axis, dataset in zip(axes, datasets, strict=True):
        part = main.filter(pl.col("dataset") == dataset).drop_nulls(["image_ap", "pixel_ap"])
        for (objective, detector), group in part.group_by(["objective", "detector"], maintain_order=True):
            colour = COLOURS.get(objective, GREY)
            points = {side: centre(group.filter(pl.col("spd") == side)) for side in (False, True)}
            for side, point in points.items():
                if point:
                    x, y, dx, dy = point
                    face = colour if side else "white"
                    axis.errorbar(
                        x,
                        y,
                        xerr=dx,
                        yerr=dy,
                        fmt=MARKS[detector],
                        ms=7,
                        mec=colour,
                        mfc=face,
                        ecolor=colour,
                        elinewidth=0.7,
                    )
            if points[False] and points[True]:
                axis.annotate(
                    "",
                    points[True][:2],
                    points[False][:2],
                    arrowprops={"arrowstyle": "->", "color": colour, "lw": 1},
                )
        tidy(axis, dataset, "image AU-PR, %", "pixel AU-PR, %")
    key(figure, main, {"white": "without SPD", GREY: "with SPD"})
    return save(figure, docs, "scatter.png")


def pairs(means: pl.DataFrame, docs: Path) -> str:
    """A panel a metric, a point a run: x without SPD, y with it; above the diagonal SPD helps."""
    main = means.filter((pl.col("variant") == "") & (pl.col("objective") != "untrained"))
    names = {
        "image_ap": "image AU-PR",
        "image_auroc": "image AU-ROC",
        "pixel_ap": "pixel AU-PR",
        "pixel_auroc": "pixel AU-ROC",
    }
    keys = ["objective", "dataset", "detector", "seed"]
    on, off = (main.filter(pl.col("spd") == side).select(*keys, *names) for side in (True, False))
    both = on.join(off, on=keys, suffix="_off", maintain_order="left")
    if both.is_empty():
        return ""
    figure, axes = panels(4, 3.4)
    for axis, (metric, title) in zip(axes, names.items(), strict=True):
        rows = both.drop_nulls([metric, f"{metric}_off"])
        for r in rows.iter_rows(named=True):
            axis.plot(
                r[f"{metric}_off"],
                r[metric],
                MARKS[r["detector"]],
                ms=5,
                mfc="none",
                mec=COLOURS[r["objective"]],
            )
        low = min([*rows[metric], *rows[f"{metric}_off"]], default=0) - 1
        high = max([*rows[metric], *rows[f"{metric}_off"]], default=100) + 1
        axis.plot([low, high], [low, high], color=GREY, lw=0.8)
        tidy(axis, title, "without SPD, %", "with SPD, %")
    key(figure, main, {})
    return save(figure, docs, "with_and_without.png")


def curves(out: Path, docs: Path) -> list[str]:
    """The logs of the runs with SPD: cosines to x+ and x-, the loss, and the auxiliary classifier's share of
    right answers."""
    logs_of: dict[str, list[pl.DataFrame]] = {}
    for done in sorted(out.glob("*/done.json")):
        job = json.loads(done.read_text("utf-8"))
        if job["spd"] and not job["variant"]:
            lines = (done.parent / "representation" / "log.jsonl").read_text("utf-8").splitlines()
            logs_of.setdefault(job["objective"], []).append(
                pl.DataFrame([json.loads(line) for line in lines])
            )
    if not logs_of:
        return []
    figure, axes = panels(len(logs_of), 3.4)
    colours = {
        "cos_positive": "#20689e",
        "cos_negative": "#c65416",
        "spd_accuracy": "#2f8f6b",
        "loss_spd": "#16181d",
    }
    for axis, (objective, logs) in zip(
        axes, sorted(logs_of.items(), key=lambda item: list(COLOURS).index(item[0])), strict=True
    ):
        for name in [name for name in colours if name in logs[0].columns]:
            for log in logs:
                axis.plot(log["step"], log[name], color=colours[name], lw=0.7, alpha=0.35)
            mean = (
                pl.concat([log.select("step", name) for log in logs])
                .group_by("step")
                .agg(pl.col(name).mean())
                .sort("step")
            )
            axis.plot(mean["step"], mean[name], color=colours[name], lw=1.7, label=name)
        tidy(axis, f"{NAMES[objective]} + SPD", "step", "")
        axis.legend(frameon=False, fontsize=8)
    return [save(figure, docs, "curves.png")]


def centre(group: pl.DataFrame) -> tuple[float, float, float, float] | None:
    """Mean and standard deviation over seeds."""
    if group.is_empty():
        return None
    x, y = group["image_ap"], group["pixel_ap"]
    return float(x.mean()), float(y.mean()), float(x.std() or 0.0), float(y.std() or 0.0)  # type: ignore[arg-type]


def panels(count: int, side: float) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side * count, side + 0.7), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def tidy(axis: Any, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(color="#dfe3e8", lw=0.7)
    axis.set_axisbelow(True)


def key(figure: Any, main: pl.DataFrame, faces: dict[str, str]) -> None:
    """One legend for all panels: colours, marks, and what open and filled mean."""
    from matplotlib.lines import Line2D

    present = dict.fromkeys(main["objective"])
    shown = [
        Line2D([], [], marker="o", ls="none", color=COLOURS[name], label=label)
        for name, label in NAMES.items()
        if name in present
    ]
    if "untrained" in present:
        shown.append(Line2D([], [], marker="o", ls="none", mec=GREY, mfc="white", label="untrained"))
    shown += [Line2D([], [], marker=mark, ls="none", color=GREY, label=name) for name, mark in MARKS.items()]
    shown += [
        Line2D([], [], marker="o", ls="none", mec=GREY, mfc=face, color=GREY, label=label)
        for face, label in faces.items()
    ]
    columns = min(len(shown), 3 * len(figure.axes))
    figure.legend(handles=shown, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def save(figure: Any, docs: Path, name: str) -> str:
    with replacing(docs / name) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return name
