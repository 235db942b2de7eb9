"""Protocols in `kizu bench`: what a representation has seen is never measured, noise is on purpose, and the
seeds of reference_sensitivity reach the adaptation alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import kizu
from kizu import registry
from kizu.errors import UsageError
from kizu.evaluation.cell import run_cell
from kizu.evaluation.plan import ALL, Cell, read_experiment
from kizu.evaluation.seen import seen_rows
from kizu.images import image_digest
from kizu.protocols import noisy
from kizu.protocols.base import one_model_for_all, seeds_adaptation_only
from kizu.representations.sources import open_representation, save_representation
from kizu.samples import Samples

NET = "random/resnet10t@2"
SETTINGS: dict[str, dict[str, object]] = {
    "imbalanced": {"anomalies": 12, "normals": 12, "shots": 3},
    "sample_efficiency": {"share": 0.25},
    "noisy": {"ratio": 0.25},
}


def cell(protocol: str, samples: Samples, *, representation: str = NET, **more: Any) -> Cell:
    """A cell on the planted capsules, all settings small."""
    category = ALL if one_model_for_all(protocol) else "capsule"
    dataset = {"name": "planted", "path": str(Path(samples.paths[0]).parents[3])}
    facts = {"settings": SETTINGS.get(protocol, {}), **more}
    return Cell(dataset, category, representation, "gaussian", {"image_size": 32}, protocol, **facts)


def only_row(result: dict[str, Any]) -> dict[str, Any]:
    (row,) = result.get("rows", [result])
    return row


@pytest.mark.parametrize("protocol", registry.names("protocols"))
def test_what_the_representation_has_seen_is_left_out(
    protocol: str, tiny_planted: Samples, tmp_path: Path
) -> None:
    """One good and two flawed test images are among those that it was trained on; known by their pixels."""
    detector = "classifier" if protocol == "two_class" else "gaussian"
    net = open_representation(NET)
    seen = [tiny_planted.test.normal.paths[0], *tiny_planted.test.anomalous.paths[:2]]
    net.card["images_seen"] = [image_digest(path) for path in seen]
    save_representation(net, tmp_path / "net")
    plain = cell(protocol, tiny_planted, representation=str(tmp_path / "net"))
    if detector == "classifier":
        plain = replace(plain, detector=detector, parameters={"image_size": 32, "iterations": 1})
    split = registry.load("protocols", protocol)(tiny_planted, **plain.settings)
    measured = set(split.test.paths) - set(seen)
    row = only_row(run_cell(plain, tiny_planted))
    assert row["left_out"] == len(split.test) - len(measured) > 0
    assert row["test_normal"] + row["test_anomalous"] == len(measured)


@pytest.mark.parametrize("overlap", [True, False])
def test_noise_is_learned_from_and_measured(overlap: bool, tiny_planted: Samples) -> None:
    """With overlap all 12 flawed images are tested, without it the half that was not learned from."""
    added = noisy(tiny_planted, ratio=0.25, overlap=overlap)
    plan = cell("noisy", tiny_planted, settings={"ratio": 0.25, "overlap": overlap})
    row = only_row(run_cell(plan, tiny_planted))
    assert (row["train_images"], row["left_out"]) == (30, 0)
    assert (row["test_normal"], row["test_anomalous"]) == (12, len(added.test.anomalous))
    assert row["protocol"] == ("noisy ratio=0.25 overlap" if overlap else "noisy ratio=0.25")
    clean = only_row(run_cell(cell("one_class", tiny_planted), tiny_planted))
    assert row["image_auroc"] != clean["image_auroc"]


def test_only_the_meant_images_are_learned_from_and_tested(tiny_planted: Samples, tmp_path: Path) -> None:
    """A good test image that is also a training image is left out under noisy as under any other protocol."""
    table = tiny_planted.table
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(tiny_planted.train.paths[0]).read_bytes())
    twin = table.filter(pl.col("split") == "test").head(1).with_columns(image=pl.lit(str(copy)))
    row = only_row(run_cell(cell("noisy", tiny_planted), Samples(table.vstack(twin))))
    assert row["left_out"] == 1


def test_evaluating_by_hand_knows_the_added_images(tiny_planted: Samples) -> None:
    """`kizu evaluate` has no protocol: what a model has learned from is left out, or said by --allow-seen."""
    split = noisy(tiny_planted, ratio=0.1)
    detector = kizu.detector("gaussian", NET, image_size=32).fit(split.train)
    seen = split.test.take(seen_rows(detector, split.test)).paths
    assert sorted(seen) == sorted(split.overlap)
    assert len(seen) == 2


def test_seeds_draw_references_and_nothing_else(tiny_planted: Samples) -> None:
    """PaDiM draws 4 of 128 channels: without an adaptation its figures are the same for every seed, and are
    not under one_class; with three reference images of 24 they change."""
    assert [name for name in registry.names("protocols") if seeds_adaptation_only(name)] == [
        "reference_sensitivity"
    ]
    residual = {"name": "residual", "parameters": {"shots": 3}}
    ranges = []
    for protocol, adaptation in (
        ("reference_sensitivity", None),
        ("one_class", None),
        ("reference_sensitivity", residual),
    ):
        figures = []
        for seed in range(2):
            plan = cell(protocol, tiny_planted, seed=seed, adaptation=adaptation)
            small = {"image_size": 32, "dimensions": 4}
            row = only_row(run_cell(replace(plan, detector="padim", parameters=small), tiny_planted))
            assert (row["train_images"], row["protocol"], row["seed"]) == (24, protocol, seed)
            figures.append([row[metric] for metric in ("image_auroc", "pixel_auroc", "aupro_0.3")])
        ranges.append(np.ptp(figures, axis=0).max())
    assert ranges[0] == 0
    assert min(ranges[1:]) > 0


TEXT = """
[[dataset]]
name = "planted"
path = "{path}"
filters = {{ products = "capsule", train = 24, test_good = 12, test_defective = 12, size = 64, seed = 3 }}
[[representation]]
name = "random/resnet10t@2"
{adaptation}
[[detector]]
name = "gaussian"
parameters = {{ image_size = 32 }}
[[protocol]]
name = "reference_sensitivity"
seeds = [0, 1, 2]
"""


def test_the_experiment_needs_an_adaptation_and_gives_the_spread(
    tiny_planted: Samples, tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    file, path = tmp_path / "x.toml", Path(tiny_planted.paths[0]).parents[3]
    for text in ("", '[[adaptation]]\nname = "none"'):
        file.write_text(TEXT.format(path=path, adaptation=text))
        with pytest.raises(UsageError, match="seeds of reference_sensitivity are those of the adaptation"):
            read_experiment(file)
    residual = '[[adaptation]]\nname = "residual"\nparameters = { shots = 3 }'
    file.write_text(TEXT.format(path=path, adaptation=residual))
    assert run_cli("bench", file, "-o", tmp_path / "out")[0] == 0
    rows = pl.read_csv(tmp_path / "out" / "results.csv")
    assert (rows["seed"].to_list(), set(rows["train_images"])) == ([0, 1, 2], {24})
    figures = 100 * rows["image_auroc"]
    wanted = f"{figures.mean():.1f} ± {figures.std():.1f} (3)"
    assert wanted in (tmp_path / "out" / "results.md").read_text("utf-8")
