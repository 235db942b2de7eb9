"""The SPD study: end to end at an absurd size, resumed, refused another budget; its arithmetic on rows made
up for it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from kizu import registry
from kizu.pretraining.spd import collect_spd

FOLDER = Path(__file__).parents[2] / "experiments" / "spd_study"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="installed without its experiments")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    import study

    return study


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    import study_tables

    return study_tables


@pytest.mark.slow
def test_end_to_end(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        study,
        "jobs",
        lambda options: [study.Job("simsiam", spd, 0, parameters={"hidden": 32}) for spd in (False, True)],
    )
    size = [
        "--backbone",
        "resnet10t",
        "--size",
        "32",
        "--source-size",
        "32",
        "--batch-size",
        "4",
        "--steps",
        "2",
        "--image-size",
        "32",
    ]
    tests = ["--tests", "planted", "--products", "leather", "--planted-train", "3", "--planted-test", "2"]
    places = ["--out", str(tmp_path / "runs"), "--docs", str(tmp_path / "docs")]
    study.main([*size, *tests, *places])
    rows = pl.read_csv(tmp_path / "docs" / "results.csv")
    assert sorted(rows.select("spd", "detector").rows()) == [
        (s, d) for s in (False, True) for d in ("padim", "patchcore")
    ]
    assert rows["image_auroc"].is_between(0, 1).all()
    text = (tmp_path / "docs" / "README.md").read_text("utf-8")
    assert "## planted, patchcore" in text
    assert all(
        (tmp_path / "docs" / f"{name}.png").exists() for name in ("scatter", "with_and_without", "curves")
    )
    done = tmp_path / "runs" / "simsiam_spd_0" / "done.json"
    before = done.stat().st_mtime_ns
    cells = done.parent / "planted" / "cells.jsonl"
    (tmp_path / "runs" / "simsiam_0" / "done.json").unlink()
    cells.with_name("mark").touch()
    study.main([*size, *tests, *places])  # goes on: nothing is trained or tested again
    assert done.stat().st_mtime_ns == before
    assert capsys.readouterr().out.count("image AUROC") == 4
    with pytest.raises(SystemExit, match=r"another budget: .*steps 2 instead of 3"):
        study.main([*size, "--steps", "3", *tests, *places])


@pytest.mark.slow
def test_a_trained_network_is_continued(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [study.Job("untrained", False, 0), study.Job("simsiam", False, 0, parameters={"hidden": 32})]
    monkeypatch.setattr(study, "jobs", lambda options: runs)
    size = "--size 32 --source-size 32 --batch-size 4 --steps 2 --image-size 32 --init random/resnet10t"
    tests = "--tests planted --products leather --planted-train 3 --planted-test 2"
    study.main([*size.split(), *tests.split(), "--out", str(tmp_path), "--docs", str(tmp_path / "docs")])
    card = json.loads((tmp_path / "simsiam_0" / "representation" / "card.json").read_text("utf-8"))
    assert card["representation"]["architecture"] == "resnet10t"
    recipe = json.loads((tmp_path / "simsiam_0" / "representation" / "recipe.json").read_text("utf-8"))
    assert recipe["run"]["init"] == "random/resnet10t"
    rows = pl.read_csv(tmp_path / "docs" / "results.csv")
    assert rows.filter(pl.col("objective") == "untrained").height == 2, "the network it begins with"
    text = (tmp_path / "docs" / "README.md").read_text("utf-8")
    assert "| random/resnet10t |" in text
    assert "continued from random/resnet10t" in text


def test_jobs_are_what_the_objectives_take(study: ModuleType, tmp_path: Path) -> None:
    for ablation in ([], ["--ablation"]):
        options = study.parsed(["--out", str(tmp_path), *ablation, "--set", "simclr.learning_rate=0.1"])
        runs = study.jobs(options)
        assert len({job.name for job in runs}) == len(runs)
        for job in runs[1:]:
            parameters = collect_spd({"spd": job.spd, **job.parameters})
            registry.check_keywords(job.objective, registry.load("pretraining", job.objective), parameters)
    assert len(study.jobs(study.parsed(["--out", str(tmp_path)]))) == 1 + 4 * 2 * 3
    assert [
        job.parameters["learning_rate"]
        for job in study.jobs(study.parsed(["--set", "simclr.learning_rate=0.1"]))
        if "clr" in job.name
    ] == [0.1] * 6
    options = study.parsed(["--batch-size", "48"])
    assert next(job for job in study.jobs(options) if job.objective == "moco").parameters["queue"] % 48 == 0


def rows(differences: list[float]) -> list[dict[str, Any]]:
    base = {
        "objective": "simsiam",
        "variant": "",
        "dataset": "d",
        "category": "c",
        "protocol": "p",
        "detector": "padim",
    }
    metrics = ("image_ap", "image_auroc", "pixel_ap", "pixel_auroc")
    table = []
    for seed, difference in enumerate(differences):
        for spd in (False, True):
            value = 0.4 + 0.1 * seed + (difference if spd else 0.0)
            table.append({**base, "seed": seed, "spd": spd, **dict.fromkeys(metrics, value)})
    return table


def test_differences_are_paired(tables: ModuleType) -> None:
    """The seeds scatter by 10 points, their differences by 1: the pairing shows it. Alone, a seed has no
    error."""
    means = tables.over_categories(pl.DataFrame(rows([0.04, 0.05, 0.06])))
    gained = tables.paired(means)
    assert sorted(gained["image_ap"].round(6)) == [4.0, 5.0, 6.0]
    assert tables.difference(gained["image_ap"]) == f"**+5.0 ± {1 / math.sqrt(3):.1f}**"  # 5 > 4.30 x 0.58
    assert tables.difference(pl.Series([1.0, 2.0, 9.0])) == "+4.0 ± 2.5"
    assert tables.difference(pl.Series([1.0])) == "+1.0"
    assert tables.difference(pl.Series([], dtype=pl.Float64)) == ""
    text = "\n".join(tables.verdict(means))
    assert "| SimSiam | **+5.0 ± 0.6** |" in text
    assert "4 of 4" in text


def test_an_unfinished_pair_makes_no_difference(tables: ModuleType) -> None:
    lone = [row for row in rows([0.1, 0.1]) if not (row["spd"] and row["seed"] == 1)]
    assert tables.paired(tables.over_categories(pl.DataFrame(lone))).height == 1


def test_the_published_tables_stand_beside(tables: ModuleType) -> None:
    text = tables.paper_table("2")
    assert "| SimSiam +SPD | 82.8 (+2.6) | 81.2 (+3.1) |" in text
    assert "| Sup. pre-train+SPD | 88.6 (+0.4) |" in text
    ablation = tables.paper_table("5")
    assert "| +SPD w/ Xent | 71.4 (-8.8) |" in ablation
    assert "| SimSiam w/ WideRes50 +SPD | 81.9 (+1.6) |" in ablation


def test_settings_of_the_folder(study: ModuleType, tmp_path: Path) -> None:
    options = study.parsed(["--out", str(tmp_path / "a")])
    study.claim(options)
    study.claim(options)
    assert json.loads((tmp_path / "a" / "settings.json").read_text("utf-8"))["steps"] == options.steps
