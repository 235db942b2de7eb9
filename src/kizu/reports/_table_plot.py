"""The table of an experiment as a plot: one row of points for each setting, by category."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kizu.reports._markdown import SETTING, mean_spread, named
from kizu.store import replacing

_COLOURS = ("#20689e", "#c65416", "#2f8f6b", "#8a5aa8", "#b58a00", "#5a6270", "#c14d7c", "#3aa0b5")
Rows = list[dict[str, Any]]


def plot(path: Path, metric: str, categories: list[str], rows: Rows, published: Rows) -> None:
    """Write a PNG. Our rows have points with spread, comparable published rows open marks, others grey
    ones."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = categories + (["mean"] if len(categories) > 1 else [])
    height = 1.9 + 0.42 * len(columns) + 0.17 * (len(rows) + len(published))
    drawn = Figure(figsize=(8.4, height), dpi=150, layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    _draw_ours(axes, rows, columns)
    _draw_published(axes, published, columns)
    axes.set_yticks(range(len(columns)), columns)
    axes.set_ylim(len(columns) - 0.5, -0.5)
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
        drawn.savefig(temporary, format="png", metadata={"Software": "kizu"})


def _draw_ours(axes: Any, rows: Rows, columns: list[str]) -> None:
    names = (*SETTING, "weights")
    differ = [name for name in names if len({row["setting"][name] for row in rows}) > 1] or ["detector"]
    for index, row in enumerate(rows):
        shift = 0.0 if len(rows) == 1 else 0.5 * index / (len(rows) - 1) - 0.25
        places, means, spreads = _points(row, columns, shift)
        axes.errorbar(
            means,
            places,
            xerr=spreads,
            fmt="osD^v"[index // len(_COLOURS) % 5],
            ms=5.5,
            lw=1.4,
            capsize=2.5,
            color=_COLOURS[index % len(_COLOURS)],
            label=", ".join(str(row["setting"][name]) for name in differ if row["setting"][name] is not None),
        )


def _draw_published(axes: Any, published: Rows, columns: list[str]) -> None:
    for index, row in enumerate(published):
        places, means, _ = _points(row, columns, 0.38)
        marker, ink = ("x+1234"[index % 6], "#8a919d") if row["reason"] else ("sDo^v<"[index % 6], "#16181d")
        label = f"{named(row)}, published" + (", not comparable" if row["reason"] else "")
        axes.plot(means, places, marker, ms=5.5, mfc="none", mec=ink, ls="none", zorder=3, label=label)


def _points(
    row: dict[str, Any], columns: list[str], shift: float
) -> tuple[list[float], list[float], list[float]]:
    places, means, spreads = [], [], []
    for index, values in enumerate((*row["cells"], row["mean"])[: len(columns)]):
        if values:
            mean, spread = mean_spread(values)
            places.append(index + shift)
            means.append(100 * mean)
            spreads.append(100 * (spread or 0.0))
    return places, means, spreads
