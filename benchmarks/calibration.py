"""The promise of calibration, kept or not: wanted 5 %, measured false alarms over 50 seeds, split and cross,
for every detector that learns from good images alone.

For each seed: `--known` good images of one planted product are drawn; the detector is fitted and calibrated
on them (split: a third held out; cross: 5 folds), and its false alarms are counted on the other good
images. The promise is the mean over draws. Cells (a detector and a method) that are done are kept in runs/.

    python benchmarks/calibration.py [--seeds 50] [--known 60] [--quick --out FOLDER] ->
    benchmarks/results/calibration.json, docs/results/calibration.md and .png
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _harness
import matplotlib
import numpy as np
import torch

import kizu
from kizu import registry
from kizu.calibration import conformal_threshold, folds
from kizu.loader import batches

matplotlib.use("Agg")
RATE = 0.05
METHODS = ("split", "cross")
NETWORK = {"patchcore": "random/resnet18@2", "padim": "random/resnet18@1,2", "gaussian": "random/resnet18@3"}

REMARKS = (
    "Split conformal promises floor((n + 1) 0.05) / (n + 1) exactly (for scores without ties), which is "
    "at most 5 %; the mean",
    "should sit on it within a few standard errors. Cross-conformal has no such theorem; fitting on all "
    "images instead of four",
    "fifths of them makes it err on the safe side. One draw's rate scatters widely, for its threshold is "
    "an order statistic of",
    "few scores: the promise is about draws, not about each one.",
    "",
    "![false alarms over seeds](calibration.png)",
)
"""The lines below the table."""


def false_alarms(name: str, images: torch.Tensor, known: int, seed: int, method: str) -> float:
    """Share of new good images called anomalous, one draw."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    mine, new = images[order[:known]], images[order[known:]]
    parameters: dict[str, Any] = {"image_size": int(images.shape[-1]), "batch_size": 64}

    def fit(rows: torch.Tensor) -> Any:
        return kizu.detector(name, net(name), **parameters).fit(rows)

    if method == "split":
        held = known // 3
        model = fit(mine[held:])
        scores = model.predict(mine[:held]).score.numpy()
    else:
        model = fit(mine)
        parts = []
        for part in folds(known, 5, seed):
            rest = np.setdiff1d(np.arange(known), part)
            parts.append(fit(mine[rest]).predict(mine[part]).score.numpy())
        scores = np.concatenate(parts)
    return float((model.predict(new).score.numpy() > conformal_threshold(scores, RATE)).mean())


def net(name: str) -> Any:
    """The representation of a detector, opened once."""
    if name not in _NETS:
        _NETS[name] = kizu.representation(NETWORK.get(name, "random/resnet18@2,3"))
    return _NETS[name]


_NETS: dict[str, Any] = {}


def detectors() -> list[str]:
    """Those that learn from good images alone."""
    names = registry.names("detectors")
    return [name for name in names if registry.load("detectors", name).supervision == "normal"]


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--known", type=int, default=60)
    parser.add_argument("--new", type=int, default=200)
    parser.add_argument("--product", default="leather")
    parser.add_argument("--only", choices=detectors(), help="measure this detector's cells alone")
    return _harness.parsed(parser, arguments, quick={"seeds": 2, "known": 57, "new": 5, "only": "gaussian"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    given = options(arguments)
    setting = f"{given.product}_{given.seeds}_{given.known}_{given.new}"
    cells = given.runs / "calibration" / setting
    cells.mkdir(parents=True, exist_ok=True)
    rows, missing = [], 0
    for name in detectors():
        for method in METHODS:
            cell = cells / f"{name}_{method}.json"
            if not cell.exists() and given.only in (None, name):
                cell.write_text(json.dumps(measure(name, method, given)), "utf-8")
            if cell.exists():
                rows.append(json.loads(cell.read_text("utf-8")))
            else:
                missing += 1
    if missing:
        print(f"{missing} cells are not measured yet; run again without --only.")
    facts = {name: getattr(given, name) for name in ("product", "known", "new", "seeds")}
    print(_harness.write("calibration", given.results, **facts, rows=rows))
    _document(rows, given)


def measure(name: str, method: str, options: argparse.Namespace) -> dict[str, Any]:
    """One detector and method over all seeds."""
    with tempfile.TemporaryDirectory() as folder:
        total = options.known + options.new
        samples = kizu.dataset(
            "planted",
            Path(folder) / "d",
            products=options.product,
            train=total,
            test_good=1,
            test_defective=1,
            size=64,
        )
        images = torch.cat([batch.images for batch in batches(samples.train, image_size=(64, 64))])
    rates = [false_alarms(name, images, options.known, seed, method) for seed in range(options.seeds)]
    held = options.known // 3 if method == "split" else options.known
    error = float(np.std(rates, ddof=1) / np.sqrt(len(rates)))
    exact = float(np.floor((held + 1) * RATE + 1e-9) / (held + 1))
    print(
        f"{name:20} {method:6} wanted {RATE:.3f} theory {exact:.3f} measured {np.mean(rates):.4f} +- "
        f"{error:.4f}",
        flush=True,
    )
    facts = {
        "detector": name,
        "method": method,
        "calibration_images": held,
        "wanted": RATE,
        "mean": float(np.mean(rates)),
    }
    return {**facts, "standard_error": error, "theory": exact, "rates": rates}


def _document(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """calibration.md and calibration.png."""
    _draw(rows, options.pages / "calibration.png")
    lines = [
        "# The promise of calibration, measured",
        "",
        f"`python benchmarks/calibration.py --seeds {options.seeds} --known {options.known}`: planted "
        f"{options.product}, 64 pixels, {options.known} good images to fit and calibrate on, {options.new} "
        f"new ones to count false alarms on, {options.seeds} seeds. Wanted: at most {RATE:.0%}, on average "
        "over draws.",
        "",
        "| detector | method | calibration images | exact expectation | measured mean | standard error |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        theory = f"{row['theory']:.2%}" if row["method"] == "split" else ""
        names = (row["detector"], row["method"], row["calibration_images"], theory)
        cells = (*names, f"{row['mean']:.2%}", f"{row['standard_error']:.2%}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    (options.pages / "calibration.md").write_text("\n".join([*lines, "", *REMARKS]) + "\n", "utf-8")


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6))
    axes.boxplot(
        [row["rates"] for row in rows],
        tick_labels=[f"{row['detector']}\n{row['method']}" for row in rows],
        showmeans=True,
    )
    axes.axhline(RATE, color="crimson", linewidth=1, label="promised")
    axes.set_ylabel("false alarms")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
