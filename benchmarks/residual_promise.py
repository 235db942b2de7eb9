"""The promise of calibration under the residual adaptation: wanted 10 %, measured over seeds, split and
cross.

For each seed, `--known` good images of one planted product are drawn; detector and adaptation are fitted and
calibrated on them by `fit_calibrated`, as `kizu fit` does, and false alarms are counted on the other good
images. The promise is the mean over draws. Cells that are done are kept in runs/.

    python benchmarks/residual_promise.py [--seeds 20] -> docs/results/residual_promise.md
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kizu
from kizu.evaluation.calibrated import fit_calibrated
from kizu.samples import Samples

RATE = 0.1
REPRESENTATION = "kizu/starter@2,3"
DETECTORS: dict[str, dict[str, Any]] = {
    "patchcore": {"coreset": 0.05},
    "padim": {"dimensions": 50},
    "gaussian": {},
    "simplenet": {"iterations": 60, "hidden": 64, "noise": 0.3, "learning_rate": 2e-3},
}
HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "results" / "residual_promise.md"


def false_alarms(name: str, adapted: bool, method: str, good: Samples, known: int, seed: int) -> float:
    """Share of new good images called anomalous in one draw."""
    order = np.random.default_rng(seed).permutation(len(good))
    adaptation = kizu.Adaptation("residual", {"shots": 4}, seed) if adapted else None
    detector = kizu.detector(name, REPRESENTATION, adaptation=adaptation, image_size=64, **DETECTORS[name])
    fit_calibrated(detector, good.take(order[:known]), false_alarm_rate=RATE, method=method, seed=seed)
    flagged = detector.predict(good.take(order[known:])).is_anomalous
    assert flagged is not None  # it is calibrated
    return float(flagged.double().mean())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--known", type=int, default=60)
    parser.add_argument("--new", type=int, default=100)
    parser.add_argument("--product", default="leather")
    parser.add_argument("--runs", type=Path, default=HERE.parent / "runs" / "residual_promise")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.runs.mkdir(parents=True, exist_ok=True)
    counts = {
        "train": options.known + options.new,
        "test_good": 1,
        "test_defective": 1,
        "size": 64,
        "seed": 11,
    }
    data = kizu.dataset("planted", options.runs / "data", products=options.product, **counts)
    rows = []
    for name in DETECTORS:
        for adapted in (False, True):
            for method in ("split", "cross"):
                cell = options.runs / f"{name}-{'residual' if adapted else 'plain'}-{method}.json"
                rates: list[float] = json.loads(cell.read_text("utf-8")) if cell.exists() else []
                for seed in range(len(rates), options.seeds):
                    rates.append(false_alarms(name, adapted, method, data.train.normal, options.known, seed))
                    cell.write_text(json.dumps(rates), "utf-8")
                rows.append((name, adapted, method, rates[: options.seeds]))
                print(name, adapted, method, f"{np.mean(rates):.3f}", flush=True)
                PAGE.write_text(page(rows, options), "utf-8")


def page(rows: list[tuple[str, bool, str, list[float]]], options: argparse.Namespace) -> str:
    """The page of results."""
    lines = [
        "# The promise under the residual adaptation",
        "",
        f"Wanted: at most {RATE:.0%} false alarms on average over draws. `python "
        "benchmarks/residual_promise.py`:",
        f"planted {options.product} at 64 pixels, {REPRESENTATION}, {options.known} good images to fit and",
        f"calibrate, {options.new} new good ones, {options.seeds} seeds; 4 reference images. Mean,",
        "standard error; empty: not run yet, the command goes on with what is missing.",
        "",
        "| detector | method | plain | with residual |",
        "|---|---|---|---|",
    ]
    table = {(name, adapted, method): rates for name, adapted, method, rates in rows}
    for name in DETECTORS:
        for method in ("split", "cross"):
            cells = []
            for adapted in (False, True):
                rates = np.asarray(table.get((name, adapted, method), ()))
                if not len(rates):
                    cells.append("")
                    continue
                error = rates.std(ddof=1) / math.sqrt(len(rates))
                cells.append(f"{100 * rates.mean():.1f} ± {100 * error:.1f} %")
            lines.append(f"| {name} | {method} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
