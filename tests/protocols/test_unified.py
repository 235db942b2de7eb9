"""unified: one model, one fit, a row for each category and the mean; MVTec LOCO AD's kinds in a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from trees import mvtec_loco as loco_tree

import kizu
from kizu import metrics
from kizu.datasets.mvtec_loco import defects, mvtec_loco
from kizu.detectors.gaussian import Gaussian
from kizu.errors import EmptyData
from kizu.evaluation import predict
from kizu.evaluation.run import Run, evaluate
from kizu.protocols.one_class import one_class
from kizu.protocols.unified import unified
from kizu.samples import Samples


@pytest.fixture
def two(tiny_planted: Samples) -> Samples:
    """Two categories of the same pictures: 12 good to learn from, 6 good and 6 flawed to test on, each."""
    names = pl.Series("category", ["left", "right"] * (len(tiny_planted) // 2))
    return Samples(tiny_planted.table.with_columns(names))


@pytest.mark.parametrize("official", [True, False])
def test_each_category_is_divided_as_by_one_class(two: Samples, official: bool) -> None:
    samples = two if official else Samples(two.table.with_columns(split=pl.lit(None, pl.String)))
    split = unified(samples, calibration=0.25, seed=4)
    for name in ("left", "right"):
        alone = one_class(samples.where(category=name), calibration=0.25, seed=4)
        for side in ("train", "calibration", "test"):
            assert getattr(split, side).where(category=name) == getattr(alone, side)
    assert (len(split.notes) == 0) == official
    assert official or split.notes[0].startswith("left: no official split")


def test_a_category_without_good_images(two: Samples) -> None:
    bad = two.where(category="left").anomalous.concat(two.where(category="right"))
    with pytest.raises(EmptyData, match="no good images"):
        unified(bad)
    with pytest.raises(EmptyData, match="no rows"):
        unified(two.take([]))


TEXT = """
[[dataset]]
name = "folder"
path = "{path}"
[[representation]]
name = "random/resnet10t@1,2"
[[detector]]
name = "gaussian"
parameters = {{ image_size = 64 }}
[[protocol]]
name = "unified"
[[protocol]]
name = "one_class"
"""


@pytest.mark.slow
def test_an_experiment_has_a_row_for_each_category(
    two: Samples,
    tmp_path: Path,
    run_cli: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two.to_csv(tmp_path / "two.csv")
    (tmp_path / "plan.toml").write_text(TEXT.format(path=tmp_path / "two.csv"))
    fits, real = [], Gaussian.fit
    monkeypatch.setattr(Gaussian, "fit", lambda self, *a, **k: fits.append(1) or real(self, *a, **k))
    for _ in range(2):  # the second time everything is there
        code, out, _ = run_cli("bench", tmp_path / "plan.toml", "-o", tmp_path / "out", "--json")
        assert (code, json.loads(out)["cells"], len(fits)) == (0, 3, 3)
    results = pl.read_csv(tmp_path / "out" / "results.csv")
    assert results.select("category", "protocol", "train_images").sort(pl.all()).rows() == [
        ("left", "one_class", 12),
        ("left", "unified", 24),
        ("right", "one_class", 12),
        ("right", "unified", 24),
    ]
    together = results.filter(pl.col("protocol") == "unified")
    split = unified(two)
    detector = kizu.detector("gaussian", "random/resnet10t@1,2", image_size=64).fit(split.train)
    for name, auroc in together.select("category", "image_auroc").iter_rows():
        test = split.test.where(category=name)
        scores = np.concatenate([part.score.numpy() for part in detector.predict_batches(test)])
        assert auroc == pytest.approx(metrics.auroc(scores, test.labels), abs=1e-6)
    text = (tmp_path / "out" / "results.md").read_text("utf-8")
    mean = 100 * together["image_auroc"].mean()
    assert any(
        "| unified |" in line and line.rstrip(" |").endswith(f"{mean:.1f}") for line in text.splitlines()
    )


def test_a_run_of_several_categories(two: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = kizu.detector("gaussian", "random/resnet10t@1,2", image_size=64).fit(two.train)
    run = evaluate(detector, two.test, tmp_path / "run", Run("two", write_images=False))
    alone = [
        evaluate(detector, two.test.where(category=name), tmp_path / name, Run(name, write_images=False))
        for name in ("left", "right")
    ]
    assert [entry["category"] for entry in run["categories"]] == ["left", "right"]
    for entry, want in zip(run["categories"], alone, strict=True):
        assert "categories" not in want
        assert entry["images"] == want["images"]
        for part in ("image", "pixel"):
            assert entry[part] == pytest.approx(want[part], abs=1e-6)
    for part in ("image", "pixel"):
        assert run["mean"][part] == pytest.approx(
            {key: (alone[0][part][key] + alone[1][part][key]) / 2 for key in alone[0][part]}, abs=1e-6
        )
    monkeypatch.setattr(predict, "fits_in_memory", lambda images, size: False)
    streamed = evaluate(detector, two.test, tmp_path / "streamed", Run("two", write_images=False))
    assert streamed["mean"] == {"image": run["mean"]["image"], "pixel": None}


def test_a_run_on_mvtec_loco(tmp_path: Path) -> None:
    loco_tree(tmp_path / "data")
    samples = mvtec_loco(tmp_path / "data")
    detector = kizu.detector("gaussian", "random/resnet10t@1,2", image_size=(12, 16)).fit(samples.train)
    got = evaluate(detector, samples.test, tmp_path / "run", Run("loco", write_images=False))["loco"]
    found = detector.predict(samples.test.paths)
    kinds = [
        {"structural": "structural", "logical": "logical"}.get(kind, "good")
        for kind in samples.test.table["defect"]
    ]
    want = {f"auroc_{key}": value for key, value in metrics.loco_auroc(found.score.numpy(), kinds).items()}
    for kind in ("structural", "logical"):
        rows = [row for row, word in enumerate(kinds) if word in (kind, "good")]
        marked = [defects(mask) if mask else [] for mask in samples.test.take(rows).table["mask"]]
        layers = [np.array([one.mask for one in ones]).reshape(-1, 12, 16) for ones in marked]
        areas = [[one.saturation for one in ones] for ones in marked]
        want[f"spro_0.05_{kind}"] = metrics.spro(found.map.numpy()[rows], layers, areas)
    want["spro_0.05_mean"] = (want["spro_0.05_structural"] + want["spro_0.05_logical"]) / 2
    assert got == pytest.approx(want, abs=1e-6)
    (tmp_path / "data" / "pushpins" / "defects_config.json").unlink()
    fewer = evaluate(detector, samples.test, tmp_path / "fewer", Run("loco", write_images=False))["loco"]
    assert fewer["spro_0.05_mean"] is None
    assert fewer["auroc_mean"] == got["auroc_mean"]
    half = evaluate(
        detector,
        samples.test.where(defect=["good", "logical"]),
        tmp_path / "half",
        Run("loco", write_images=False),
    )
    assert half["loco"] is None


@pytest.mark.slow
def test_evaluate_lists_the_categories(
    two: Samples, tmp_path: Path, run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    two.to_csv(tmp_path / "two.csv")
    parameters = (
        "--set",
        "image_size=64",
        "--representation",
        "random/resnet10t@1,2",
        "--calibration",
        "none",
    )
    assert (
        run_cli("fit", tmp_path / "two.csv", "--detector", "gaussian", *parameters, "-o", tmp_path / "model")[
            0
        ]
        == 0
    )
    code, out, _ = run_cli(
        "evaluate", tmp_path / "model", tmp_path / "two.csv", "-o", tmp_path / "run", "--json"
    )
    assert code == 0
    figures = json.loads(out)
    assert [entry["category"] for entry in figures["categories"]] == ["left", "right"]
    assert figures["mean_image_auroc"] == pytest.approx(
        np.mean([entry["image_auroc"] for entry in figures["categories"]])
    )
    assert 0 < figures["image_accuracy_oracle"] <= 1
    assert json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["protocol"] == "unified"
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert all(f"{name}, image" in page for name in ("left", "right", "mean over categories"))
