"""The ablation of ReContrast: end to end at an absurd size, and the words of its tables on runs made up for
it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "recontrast_ladder"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="installed without its experiments")


@pytest.fixture
def ladder(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    import ladder

    return ladder


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    import ladder_tables

    return ladder_tables


@pytest.mark.slow
def test_end_to_end(
    ladder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ladder, "PLANTED", {"train": 6, "test_good": 4, "test_defective": 6})
    places = ["--out", str(tmp_path / "runs"), "--docs", str(tmp_path / "docs"), "--data-root", str(tmp_path)]
    size = [
        "--iterations",
        "2",
        "--batch-size",
        "2",
        "--image-size",
        "64",
        "--every",
        "1",
        "--landscape",
        "2",
    ]
    what = ["--representation", "random/resnet10t@1,2,3", "--variants", "A", "C", "--seeds", "0"]
    ladder.main([*places, *size, *what])
    said = capsys.readouterr().out
    assert "screw is left out: mvtec-screw is not in" in said
    assert said.count("planted") == 2
    rows = pl.read_csv(tmp_path / "docs" / "results.csv")
    assert rows["variant"].to_list() == ["A", "C"]
    assert rows["iterations"].to_list() == [2, 2]
    assert all(
        (tmp_path / "docs" / name).exists()
        for name in ("README.md", "diversity.png", "training.png", "planted.html")
    )
    made = tmp_path / "runs" / "planted" / "A_0" / "diagnosis.json"
    assert json.loads(made.read_text("utf-8"))["landscape"]["values"]
    before = made.stat().st_mtime_ns
    ladder.main([*places, *size, *what])  # nothing is trained again
    assert made.stat().st_mtime_ns == before


def run(variant: str, seed: int, auroc: float, best: float) -> tuple[tuple[str, str, int], dict[str, object]]:
    tests = [
        {"step": 1, "image_auroc": best, "aupro_0.3": 0.5},
        {"step": 2, "image_auroc": auroc, "aupro_0.3": 0.4},
    ]
    parameters = {"iterations": 2, "batch_size": 8, "image_size": [128, 128], "encoder_learning_rate": 1e-4}
    steps = [{"step": 1, "loss": 1.0, "diversity": 0.05}, {"step": 2, "loss": 0.5, "diversity": 0.01}]
    made = {
        "parameters": parameters,
        "representation": "kizu/starter@1,2,3",
        "steps": steps,
        "tests": tests,
        "last": tests[1],
        "best_oracle": tests[0],
    }
    return ("screw", variant, seed), made


def test_what_the_tables_say(tables: ModuleType) -> None:
    runs = dict([run("C", 0, 0.5, 0.6), run("C", 1, 0.7, 0.7), run("D", 0, 0.8, 0.9), run("D", 1, 0.6, 0.9)])
    text = tables.page(tables.frame(runs), runs, ["diversity.png"])
    assert (
        "| C | 60.0 ± 14.1 | 65.0 ± 7.1 | 40.0 ± 0.0 | 50.0 ± 0.0 | 0.0500 -> 0.0100 | 91.54/95.96 |" in text
    )
    assert "| C < D: stop-gradient recovers some of it | +10.0, 1 of 2 |" in text
    assert "| E < full: hard mining is best of all | - |" in text
    assert "encoder's rate here is\n0.0001" in text
