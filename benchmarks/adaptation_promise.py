"""The promise of calibration under an adaptation, 10 % or --rate: measured over seeds, split and cross.

For each seed, `--known` good images of one planted product are drawn; detector and adaptation are fitted and
calibrated on them by `fit_calibrated`, as `kizu fit` does, and false alarms are counted on the other good
images. The promise is the mean over draws. Cells that are done are kept in runs/.

    python benchmarks/adaptation_promise.py [--adaptation NAME] [--known 60] [--seeds 20] [--only NAME]
    [--quick --out FOLDER] -> docs/results/NAME_promise.md, or NAME_promise_KNOWN.md for another --known
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

import _harness
import numpy as np
import torch

import kizu
from kizu.evaluation.calibrated import fit_calibrated
from kizu.samples import Samples

RATE = 0.1
DETECTORS: dict[str, dict[str, Any]] = {
    "patchcore": {"coreset": 0.05},
    "padim": {"dimensions": 50},
    "gaussian": {},
    "simplenet": {"iterations": 60, "hidden": 64, "noise": 0.3, "learning_rate": 2e-3},
}
ADAPTATIONS: dict[str, dict[str, Any]] = {
    "residual": {"shots": 4},
    "fewshot_contrastive": {"iterations": 10, "batch_size": 16, "hidden": 128, "dimensions": 64},
}
KNOWN = 60
"""Good images to fit and calibrate on, unless told."""
QUICK = {"seeds": 2, "known": 45, "new": 5, "only": "gaussian", "representation": "random/resnet10t@2"}


def false_alarms(
    given: argparse.Namespace, name: str, adapted: bool, method: str, good: Samples, seed: int
) -> float:
    """Share of new good images called anomalous in one draw."""
    order = np.random.default_rng(seed).permutation(len(good))
    known, new = order[: given.known], order[given.known :]
    chosen = kizu.Adaptation(given.adaptation, ADAPTATIONS[given.adaptation], seed)
    detector = kizu.detector(
        name,
        given.representation,
        adaptation=chosen if adapted else None,
        image_size=64,
        **DETECTORS[name],
    )
    fit_calibrated(detector, good.take(known), false_alarm_rate=given.rate, method=method, seed=seed)
    flagged = detector.predict(good.take(new)).is_anomalous
    assert flagged is not None  # it is calibrated
    return float(flagged.double().mean())


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--rate", type=float, default=RATE, help="of false alarms; few images need a larger one"
    )
    parser.add_argument("--known", type=int, default=KNOWN)
    parser.add_argument("--adaptation", choices=ADAPTATIONS, default="residual")
    parser.add_argument("--new", type=int, default=100)
    parser.add_argument("--product", default="leather")
    parser.add_argument("--representation", default="kizu/starter@2,3")
    parser.add_argument("--only", choices=DETECTORS, help="measure this detector's cells alone")
    return _harness.parsed(parser, arguments, quick=QUICK)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    given = options(arguments)
    torch.set_num_threads(1)
    network = given.representation.replace("/", "_")
    cells = (
        given.runs
        / "adaptation_promise"
        / f"{given.product}_{given.known}_{given.new}_{given.rate:g}_{network}"
    )
    cells.mkdir(parents=True, exist_ok=True)
    counts = {"train": given.known + given.new, "test_good": 1, "test_defective": 1}
    data = kizu.dataset("planted", cells / "data", products=given.product, size=64, seed=11, **counts)
    rows = []
    for name in DETECTORS:
        for adapted in (False, True):
            for method in ("split", "cross"):
                if method == "cross" and (
                    name == "simplenet" or (adapted and given.adaptation != "residual")
                ):
                    continue  # refused: what is trained has a scale of its own in every fold
                cell = cells / f"{name}-{given.adaptation if adapted else 'plain'}-{method}.json"
                rates: list[float] = json.loads(cell.read_text("utf-8")) if cell.exists() else []
                wanted = given.seeds if given.only in (None, name) else 0
                for seed in range(len(rates), wanted):
                    rates.append(false_alarms(given, name, adapted, method, data.train.normal, seed))
                    cell.write_text(json.dumps(rates), "utf-8")
                if rates:
                    rows.append((name, adapted, method, rates[: given.seeds]))
                    print(name, adapted, method, f"{np.mean(rates[: given.seeds]):.3f}", flush=True)
                ending = "" if given.known == KNOWN else f"_{given.known}"
                target = given.pages / f"{given.adaptation}_promise{ending}.md"
                target.write_text(page(rows, given), "utf-8")


def page(rows: list[tuple[str, bool, str, list[float]]], options: argparse.Namespace) -> str:
    """The page of results."""
    lines = [
        f"# The promise under the adaptation {options.adaptation}",
        "",
        f"Wanted: at most {options.rate:.0%} false alarms on average over draws. `python "
        f"benchmarks/adaptation_promise.py --adaptation {options.adaptation} --known {options.known} "
        f"--rate {options.rate:g}`:",
        f"planted {options.product} at 64 pixels, {options.representation}, {options.known} good images to "
        "fit and",
        f"calibrate, {options.new} new good ones, {options.seeds} seeds; "
        f"{_plain(ADAPTATIONS[options.adaptation])}. Mean,",
        "standard error; empty: not run yet, the command goes on with what is missing, or refused: what is",
        "trained step by step is not calibrated by folds.",
        "",
        f"| detector | method | plain | with {options.adaptation} |",
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


def _plain(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in parameters.items())


if __name__ == "__main__":
    main()
