"""How detectors by reconstruction learned, side by side: loss, test figures and feature diversity along the
training, and landscapes.

Figures 4, 5a and 5b and the last/best of table 6 of ReContrast, of runs that `kizu diagnose` wrote.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from kizu.errors import LayoutError, UsageError
from kizu.reports._draw import figure
from kizu.reports._lines import lines, square
from kizu.reports._page import photo_uri, render
from kizu.store import replacing

_KEYS = (
    "name",
    "detector",
    "representation",
    "parameters",
    "images",
    "steps",
    "tests",
    "last",
    "best_oracle",
    "landscape",
)
_CHARTS = (
    ("Training loss", "steps", "loss"),
    ("Diversity of the encoder's features", "steps", "diversity"),
    ("Image AUROC on the test set", "tests", "image_auroc"),
    ("AUPRO (FPR up to 0.3) on the test set", "tests", "aupro_0.3"),
)
_FIGURES = (("image AUROC", "image_auroc"), ("pixel AUROC", "pixel_auroc"), ("AUPRO 0.3", "aupro_0.3"))


def diagnosis(folders: Sequence[Path | str], out: Path | str) -> Path:
    """Write the page `out` (an .html file) about the diagnoses in `folders`; returns it.

    Raises UsageError without a folder or with two runs of one name, LayoutError for a folder that holds no
    whole diagnosis."""
    runs = [_opened(Path(folder)) for folder in folders]
    names = [run["name"] for run in runs]
    if not runs or len(set(names)) < len(names):
        raise UsageError(
            f"A page is about runs of different names, at least one; got {', '.join(names) or 'none'}."
        )
    out = Path(out)
    with replacing(out) as temporary:
        temporary.write_text(render("diagnosis.html.j2", **_content(runs)), encoding="utf-8")
    return out


def _opened(folder: Path) -> dict[str, Any]:
    try:
        run: dict[str, Any] = json.loads((folder / "diagnosis.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LayoutError(
            f"{folder} holds no readable diagnosis.json ({error}). `kizu diagnose` writes it."
        ) from error
    lost = [key for key in _KEYS if key not in run]
    if lost:
        raise LayoutError(f"{folder / 'diagnosis.json'} lacks {', '.join(lost)}. Run `kizu diagnose` again.")
    return run


def _content(runs: list[dict[str, Any]]) -> dict[str, Any]:
    names = [run["name"] for run in runs]
    charts = [(title, _chart(runs, names, title, part, key)) for title, part, key in _CHARTS]
    first = runs[0]
    images = first["images"]
    return {
        "title": "How the reconstruction was learned",
        "about": f"{first['representation']}, {images['train']} good images to learn from, "
        f"{images['test']} to test on.",
        "names": names,
        "charts": [(title, drawn) for title, drawn in charts if drawn],
        "columns": [label for label, _ in _FIGURES],
        "rows": [_row(run) for run in runs],
        "squares": [_square(run) for run in runs if run["landscape"]],
        "skipped": list(
            dict.fromkeys((one["path"], one["error"]) for run in runs for one in run.get("skipped", []))
        ),
        "best": max(runs, key=lambda run: run["last"]["image_auroc"])["name"] if len(runs) > 1 else None,
    }


def _chart(runs: list[dict[str, Any]], names: list[str], title: str, part: str, key: str) -> Markup:
    given = {
        run["name"]: ([row["step"] for row in run[part]], [row.get(key, math.nan) for row in run[part]])
        for run in runs
    }
    return lines(title, given, ("iteration", title), order=names)


def _row(run: dict[str, Any]) -> dict[str, Any]:
    last, best = run["last"], run["best_oracle"]
    pairs = [(_percent(last.get(key)), _percent(best.get(key))) for _, key in _FIGURES]
    return {"name": run["name"], "pairs": pairs, "last": last["step"], "best": best["step"]}


def _percent(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{100 * value:.2f}"


def _square(run: dict[str, Any]) -> dict[str, Any]:
    values, offsets = np.asarray(run["landscape"]["values"], dtype=np.float64), run["landscape"]["offsets"]
    drawn = square(values)
    span = (
        figure(float(values.min())),
        figure(float(values.max())),
        figure(float(values[len(values) // 2, len(values) // 2])),
    )
    return {
        "name": run["name"],
        "uri": photo_uri(drawn, 60_000),
        "side": len(drawn),
        "span": span,
        "ends": (offsets[0], offsets[-1]),
    }
