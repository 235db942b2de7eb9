"""The pages in docs/results are what the present code and the present published tables give."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest

from kizu.apps import _bench
from kizu.evaluation.plan import read_experiment

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name",
    [
        "screw_one_class",
        "ksdd_one_class",
        "magnetic_tile_few_shot",
        "magnetic_tile_few_shot_starter",
        "eyes/planted",
        "eyes/ksdd",
        "eyes/few_shot",
        "eyes/rotations",
        "coreset_share",
        "coreset_share_ksdd",
        "fewshot/density",
        "fewshot/magnetic_tile",
        "fewshot/magnetic_tile_patchcore",
        "uniad_rates",
    ],
)
def test_results_md_is_made_from_results_csv(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("kizu.reports.table"), "draw_plot", lambda *_: None)
    committed = ROOT / "docs" / "results" / name
    shutil.copy(committed / "results.csv", tmp_path)
    written = _bench.write_tables(read_experiment(ROOT / "experiments" / f"{name}.toml"), tmp_path)
    assert written.read_text("utf-8") == (committed / "results.md").read_text("utf-8"), (
        "Write the page anew from its results.csv (kizu.apps._bench.write_tables)."
    )
