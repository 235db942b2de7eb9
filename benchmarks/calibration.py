"""The promise of calibration, kept or not: wanted 1, 5 and 10 %, measured false alarms over seeds, for every
detector, split and cross, and for good images in four situations.

    plain      every image shows a part of its own
    groups     every part was photographed three times, under other light and noise, and has a group
    copies     every file is there twice, without a word
    residual   plain, with the residual adaptation

Detectors that are trained are measured on plain images, by split: they refuse cross.

For each seed the parts to learn from are drawn (split: 500, cross: 120; half as many with groups or copies),
the detector is fitted and calibrated on them by `fit_calibrated`, as `kizu fit` does, and false alarms are
counted on one image of each new part. The promise is the mean over draws. What is done is kept in
runs/calibration, draw by draw, and the command goes on with what is missing.

    python benchmarks/calibration.py [--seeds 50] [--only NAME] [--quick --out FOLDER]
        -> docs/results/calibration.md and .png
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _harness
import matplotlib
import numpy as np
import polars as pl
import torch
from PIL import Image

import kizu
from kizu.calibration import conformal_threshold
from kizu.errors import TooFewImages
from kizu.evaluation.calibrated import fit_calibrated
from kizu.images import open_image
from kizu.samples import Samples

matplotlib.use("Agg")
RATES = (0.01, 0.05, 0.1)
SIZE = 32
SITUATIONS = ("plain", "groups", "copies", "residual")
TRAINED: dict[str, Any] = {"iterations": 15, "batch_size": 8, "embedding_width": 32, "score_rule": "mean"}
DETECTORS: dict[str, tuple[str, dict[str, Any]]] = {
    "gaussian": ("random/resnet10t@2", {}),
    "padim": ("random/resnet10t@1,2", {"dimensions": 30}),
    "patchcore": ("random/resnet10t@1,2", {"coreset": 0.02}),
    "simplenet": ("random/resnet10t@1,2", {"iterations": 30, "hidden": 32, "batch_size": 8}),
    "reverse_distillation": ("random/resnet10t@1,2", {**TRAINED, "loss": "regional"}),
    "recontrast": ("random/resnet10t@1,2", {**TRAINED, "loss": "regional"}),
}
METHODS = ("split", "cross")
CROSS = 0.24
"""Parts that cross learns from, as a share of those that split does: it calibrates on all of them."""
Cell = tuple[str, str, str]
Draws = list[list[float | None]]


def draw_data(folder: Path, total: int) -> list[list[str]]:
    """Three photographs of each of `total` parts, and a copy of the first: paths by part."""
    counts = {"train": total, "test_good": 1, "test_defective": 1, "size": 64, "seed": 11}
    parts = kizu.dataset("planted", folder / "parts", products="leather", **counts).train.paths
    rows = []
    for number, path in enumerate(parts):
        rows.append(
            [path, *(str(folder / "more" / f"{number:04}_{kind}.png") for kind in ("1", "2", "copy"))]
        )
        if not Path(rows[-1][-1]).exists():
            photograph_again(path, rows[-1][1:], seed=number)
    return rows


def photograph_again(path: str, others: list[str], seed: int) -> None:
    """Two photographs of the part under other light, with noise; and a copy of the file."""
    Path(others[0]).parent.mkdir(parents=True, exist_ok=True)
    generator, pixels = np.random.default_rng(seed), open_image(path).astype(np.float32)
    for other in others[:2]:
        light = generator.uniform(0.97, 1.03)
        noisy = pixels * light + generator.normal(0, 1.5, pixels.shape)
        Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)).save(other)
    shutil.copy(path, others[2])


def parts_known(given: argparse.Namespace, situation: str, method: str) -> int:
    """How many parts are learned from."""
    share = (CROSS if method == "cross" else 1.0) * (0.5 if situation in ("groups", "copies") else 1.0)
    return round(share * given.known)


def false_alarms(
    name: str, situation: str, method: str, data: list[list[str]], given: argparse.Namespace, seed: int
) -> list[float | None]:
    """Share of new good parts called anomalous in one draw, at each of RATES; None where it is not backed."""
    order = np.random.default_rng(seed).permutation(len(data))
    count = parts_known(given, situation, method)
    images = {"groups": (0, 1, 2), "copies": (0, 3)}.get(situation, (0,))
    rows = [(data[part][which], str(part)) for part in order[:count] for which in images]
    table = pl.DataFrame({"image": [path for path, _ in rows], "label": [0] * len(rows)})
    if situation == "groups":
        table = table.with_columns(pl.Series("group", [part for _, part in rows]))
    representation, parameters = DETECTORS[name]
    adaptation = kizu.Adaptation("residual", {"shots": 4}, seed) if situation == "residual" else None
    detector = kizu.detector(name, representation, adaptation=adaptation, image_size=SIZE, **parameters)
    fit_calibrated(detector, Samples(table), method=method, false_alarm_rate=max(RATES), seed=seed)
    decision = detector.decision_
    assert decision is not None  # it was calibrated
    new = detector.predict([data[part][0] for part in order[given.known :]]).score.numpy()
    rates: list[float | None] = []
    for rate in RATES:
        try:
            threshold = conformal_threshold(decision.scores, rate, groups=decision.groups)
            rates.append(float((new > threshold).mean()))
        except TooFewImages:
            rates.append(None)
    return rates


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument(
        "--known", type=int, default=500, help="parts to learn from by split; cross: 0.24 of it"
    )
    parser.add_argument("--new", type=int, default=200, help="new good parts to count false alarms on")
    parser.add_argument("--only", choices=sorted(DETECTORS), help="measure this detector's cells alone")
    given = _harness.parsed(parser, arguments, quick={"seeds": 2, "known": 100, "new": 5, "only": "gaussian"})
    torch.set_num_threads(1)
    runs = given.runs / "calibration" / f"{given.known}_{given.new}"
    runs.mkdir(parents=True, exist_ok=True)
    data = draw_data(runs / "data", given.known + given.new)
    cells: dict[Cell, Draws] = {}
    for situation, name, method in itertools.product(SITUATIONS, DETECTORS, METHODS):
        if is_left_out(name, situation, method):
            continue
        path = runs / f"{name}-{situation}-{method}.json"
        draws = json.loads(path.read_text("utf-8")) if path.exists() else []
        for seed in range(len(draws), given.seeds if given.only in (None, name) else 0):
            draws.append(false_alarms(name, situation, method, data, given, seed))
            path.write_text(json.dumps(draws), "utf-8")
        cells[name, situation, method] = draws[: given.seeds]
        print(name, situation, method, *shares(draws), flush=True)
        write(cells, given)


def is_left_out(name: str, situation: str, method: str) -> bool:
    """What is trained is measured on plain images, and refuses cross."""
    trained = "iterations" in DETECTORS[name][1]
    return trained and (method == "cross" or situation != "plain")


def shares(draws: Draws) -> list[str]:
    """Mean and standard error at each rate, in per cent; empty where nothing was measured."""
    texts = []
    for number in range(len(RATES)):
        values = np.asarray([draw[number] for draw in draws if draw[number] is not None], dtype=float)
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
        texts.append(f"{100 * values.mean():.1f} ± {100 * error:.1f}" if len(values) else "")
    return texts


def write(cells: dict[Cell, Draws], given: argparse.Namespace) -> None:
    """The page and its picture."""
    lines = [
        "# The promise of calibration, measured",
        "",
        f"`python benchmarks/calibration.py --seeds {given.seeds}`: planted leather at {SIZE} pixels;",
        f"{given.known} (split) or {parts_known(given, 'plain', 'cross')} (cross) good parts to learn from,",
        f"half as many with groups or copies; false alarms on {given.new} new good parts. The script says",
        "what the situations are.",
        "Per cent, mean over the draws and its standard error; empty: not backed by so few parts.",
        "",
        "| situation | detector | method | draws | wanted 1 | wanted 5 | wanted 10 |",
        "|---|---|---|---|---|---|---|",
    ]
    for (name, situation, method), draws in cells.items():
        if draws:
            lines.append(f"| {situation} | {name} | {method} | {len(draws)} | {' | '.join(shares(draws))} |")
    lines += [
        "",
        "Split promises the wanted rate as an average over draws: its means should not lie above it by more",
        "than a few standard errors. Cross is an estimate. One draw's rate scatters, for a threshold is an",
        "order statistic: the certificate that `kizu fit` prints is about the draw at hand.",
        "",
        "![false alarms over draws, wanted 10 %](calibration.png)",
    ]
    (given.pages / "calibration.md").write_text("\n".join(lines) + "\n", "utf-8")
    picture(cells, given.pages / "calibration.png")


def picture(cells: dict[Cell, Draws], path: Path) -> None:
    """Box plots of the draws at the largest rate."""
    from matplotlib import pyplot

    shown = {key: [draw[-1] for draw in draws if draw[-1] is not None] for key, draws in cells.items()}
    shown = {key: values for key, values in shown.items() if values}
    if not shown:
        return
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.24 * len(shown)))
    axes.boxplot(
        list(shown.values()),
        orientation="horizontal",
        showmeans=True,
        tick_labels=[" ".join(key) for key in shown],
    )
    axes.axvline(RATES[-1], color="crimson", linewidth=1, label="wanted")
    axes.set_xlabel("false alarms")
    axes.invert_yaxis()
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
