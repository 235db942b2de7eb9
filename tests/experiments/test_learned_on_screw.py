"""Learned detectors on screw: end to end at an absurd size, going on after a stop, and what the page says."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
from trees import mvtec_category

FOLDER = Path(__file__).parents[2] / "experiments" / "learned_on_screw"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="installed without its experiments")


@pytest.fixture
def screw(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    import screw

    return screw


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    import screw_tables

    return screw_tables


def words(root: Path, *more: str) -> list[str]:
    places = ["--out", str(root / "runs"), "--docs", str(root / "docs"), "--data-root", str(root)]
    size = ["--image-size", "64", "--batch-size", "2", "--representation", "kizu/starter@2"]
    what = ["--every", "1", "--detectors", "cflow", "nothing"]
    return [*places, *size, *what, "--set", "cflow.iterations=2", *more]


@pytest.mark.slow
def test_end_to_end(
    screw: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mvtec_category(tmp_path / "mvtec-screw" / "screw")
    tests: list[int] = []
    measured = screw.Measured.__call__

    def stopped(self: Any, step: int, fitted: Any) -> dict[str, float]:
        tests.append(step)
        if len(tests) == 2:
            raise KeyboardInterrupt
        return measured(self, step, fitted)

    monkeypatch.setattr(screw.Measured, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        screw.main(words(tmp_path))
    screw.main(words(tmp_path))
    assert tests == [1, 2, 2], "it went on after its first step"
    said = capsys.readouterr().out
    assert "nothing is left out" in said
    record = json.loads((tmp_path / "runs" / "cflow_0" / "run.json").read_text("utf-8"))
    assert [test["step"] for test in record["tests"]] == [1, 2]
    assert all(0 <= test["image_auroc"] <= 1 for test in record["tests"])
    rows = pl.read_csv(tmp_path / "docs" / "results.csv")
    assert rows["step"].to_list() == [1, 2]
    assert (tmp_path / "docs" / "curves.png").exists()
    screw.main(words(tmp_path))
    assert len(tests) == 3, "nothing is trained again"
    with pytest.raises(SystemExit, match="holds another run: parameters"):
        screw.main(words(tmp_path, "cflow.iterations=3"))


def test_without_the_data_it_says_so(screw: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="There is no mvtec-screw in"):
        screw.main(words(tmp_path))


def test_what_is_set(screw: ModuleType, tmp_path: Path) -> None:
    options = screw.parsed(words(tmp_path, "uniad.clip=1e-2", 'uniad.training_precision="bf16"'))
    assert screw.given("uniad", options) == {"clip": 0.01, "training_precision": "bf16"}
    assert screw.given("cflow", options) == {"iterations": 2}
    with pytest.raises(SystemExit, match="value as in JSON"):
        screw.given("cflow", screw.parsed(words(tmp_path, "cflow.clamp=two")))


def run(name: str, seed: int, aurocs: list[float]) -> dict[str, Any]:
    tests = [
        {
            "step": step,
            "loss": 1 / step,
            "image_auroc": value,
            "pixel_auroc": 0.9,
            "aupro_0.3": 0.5 + seed / 10,
        }
        for step, value in enumerate(aurocs, 1)
    ]
    return {
        "detector": name,
        "seed": seed,
        "representation": "imagenet/efficientnet_lite0@2,3",
        "parameters": {"iterations": len(aurocs), "image_size": [256, 256]},
        "images": {"train": 320, "test": 160},
        "given": {"clamp": 2.0} if name == "cflow" else {},
        "minutes": 30.0,
        "tests": tests,
    }


def test_what_the_page_says(tables: ModuleType, tmp_path: Path) -> None:
    made = [run("cflow", 1, [0.9, 0.6]), run("uniad", 0, [0.5, 0.7]), run("cflow", 0, [0.7, 0.8])]
    for number, record in enumerate(made):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "run.json").write_text(json.dumps(record), "utf-8")
    runs = tables.gather(tmp_path)
    assert [(one["detector"], one["seed"]) for one in runs] == [("uniad", 0), ("cflow", 0), ("cflow", 1)]
    text = tables.page(runs)
    assert "defaults but for cflow.clamp=2.0. The last" in text
    assert "cflow" not in tables.parameters(runs[:1])
    assert "| cflow | 2,3 | 2 | 30 | 70.0 ± 14.1 | 85.0 ± 7.1 | 90.0 ± 0.0 | 55.0 ± 7.1 |" in text
    assert "| uniad | 2,3 | 2 | 30 | 70.0 | 70.0 | 90.0 | 50.0 |" in text
    assert "| ReContrast | uniad | screw | unified | image_auroc | 87.5 |" in text
    assert "| ReContrast | cflow | screw | one_class | image_auroc | 91.9 |" in text
    assert "| ADPretrain | uniad | mean | unified | image_auroc | 97.1 |" in text
    assert tables.frame(runs)["image_auroc"].to_list() == [50.0, 70.0, 70.0, 80.0, 90.0, 60.0]
