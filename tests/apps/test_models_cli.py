"""kizu calibrate and kizu update; bad pictures among good ones; what inspect and evaluate say loudly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import kizu
from kizu.samples import Samples

Cli = Callable[..., tuple[int, str, str]]
SET = ("--set", "image_size=64", "--set", "precision=fp32")


@pytest.fixture(scope="module")
def folders(tiny_planted: Samples, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """good: 16 to learn from; more: 8 others; test: 12 good; bad: flawed ones; other: of another product."""
    top = tmp_path_factory.mktemp("line")
    good, other = tiny_planted.train.normal.paths, top / "drawn"
    lists = {
        "good": good[:16],
        "more": good[16:],
        "test": tiny_planted.test.normal.paths,
        "bad": tiny_planted.test.anomalous.paths,
    }
    for name, paths in lists.items():
        (top / name).mkdir()
        for number, path in enumerate(paths):
            shutil.copy(path, top / name / f"{name}{number:02d}.png")
    kizu.dataset("planted", other, products="metal", train=1, test_good=12, test_defective=1, size=64)
    return {name: top / name for name in lists} | {"other": other / "metal" / "test" / "good"}


@pytest.fixture
def model(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A gaussian model on the good ones, calibrated at the smallest rate."""
    from kizu.evaluation.calibrated import fit_calibrated

    detector = kizu.detector("gaussian", "random/resnet10t@2", image_size=64, precision="fp32")
    fit_calibrated(detector, kizu.dataset("folder", folders["good"]))
    return detector.save(tmp_path / "model.kizu")


def test_calibrate_moves_the_decision(
    run_cli: Cli, model: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    before = model.read_bytes()
    code, _, said = run_cli("calibrate", model, "--false-alarm-rate", "0.3", "-o", tmp_path / "other.kizu")
    assert code == 0
    assert "about 30.00% of good parts" in said
    assert model.read_bytes() == before
    assert kizu.load(tmp_path / "other.kizu").decision_.false_alarm_rate == 0.3
    code, out, _ = run_cli("calibrate", model, folders["more"], "--json")
    found = json.loads(out)["calibration"]
    assert (found["method"], found["parts"], code) == ("split", 8, 0)
    assert kizu.load(model).decision_.facts() == found
    code, _, said = run_cli("calibrate", model, "--threshold", "2.5")
    assert code == 0
    assert "The threshold 2.5 was named" in said
    assert "With 95 % confidence" in said
    assert kizu.load(model).decision_.threshold == 2.5


def test_what_calibrate_refuses_leaves_the_file(run_cli: Cli, model: Path, folders: dict[str, Path]) -> None:
    before = model.read_bytes()
    refused = {
        "learned from 16 of the 16 images": (model, folders["good"]),
        "name one": (model, "--threshold", "1", "--false-alarm-rate", "0.1"),
        "Nothing is to change": (model,),
        "no effect without -o": (model, "--threshold", "1", "--overwrite"),
        "no effect without GOOD": (model, "--threshold", "1", "--category", "nut"),
        "takes 99": (model, "--false-alarm-rate", "0.01"),
    }
    for words, arguments in refused.items():
        code, _, said = run_cli("calibrate", *arguments)
        assert (code, words in said) == (2, True), said
    assert model.read_bytes() == before


def test_update_learns_and_counts(
    run_cli: Cli, model: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    both = tmp_path / "both"
    shutil.copytree(folders["good"], both)
    for path in folders["more"].iterdir():
        shutil.copy(path, both)
    code, out, _ = run_cli("update", model, both, "--json")
    found = json.loads(out)
    assert (code, found["images"], found["added"], found["left_out"]) == (0, 24, 8, 16)
    assert kizu.load(model).history_[0]["left_out"] == 16
    code, _, said = run_cli("update", model, both)
    assert code == 2
    assert "no new image" in said
    labelled = tmp_path / "labelled"
    shutil.copytree(folders["test"], labelled / "good")
    shutil.copytree(folders["bad"], labelled / "scratch")
    code, _, said = run_cli("update", model, labelled)
    assert code == 2
    assert "12 are labelled anomalous" in said


def test_fit_shows_what_stands_out_and_leaves_it_out(
    run_cli: Cli, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Two white images among the good ones; the page and the list, and both ways to be rid of them."""
    from PIL import Image

    mixed = tmp_path / "mixed"
    shutil.copytree(folders["good"], mixed)
    for path in folders["more"].iterdir():
        shutil.copy(path, mixed)
    for number in range(2):
        Image.effect_noise((64, 64), 90 + 60 * number).save(mixed / f"bad{number}.png")
    fit = ("fit", mixed, "--detector", "gaussian", "--representation", "random/resnet10t@2", *SET)
    code, out, _ = run_cli(*fit, "--json", "-o", tmp_path / "a.kizu")
    names = {Path(one["path"]).name for one in json.loads(out)["suspicious"]}
    assert (code, names) == (0, {"bad0.png", "bad1.png"})
    folder = tmp_path / "a.kizu.suspicious"
    assert "bad1.png" in (folder / "index.html").read_text("utf-8")
    code, _, said = run_cli(*fit, "-o", tmp_path / "a.kizu", "--overwrite")
    assert "WARNING: 2 good images stand out" in said
    chosen = folder / "leave_out.txt"
    code, out, _ = run_cli(*fit, "--leave-out", chosen, "--json", "-o", tmp_path / "b.kizu")
    assert (code, json.loads(out)["images"]) == (0, 24)
    code, out, _ = run_cli(*fit, "--robust", "--json", "-o", tmp_path / "c.kizu")
    found = json.loads(out)
    assert (code, found["images"], found["left_out"]) == (0, 24, 2)
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("# none\n\nnowhere.png\n", "utf-8")
    code, _, said = run_cli(*fit, "--leave-out", wrong, "-o", tmp_path / "d.kizu")
    assert (code, "nowhere.png" in said) == (2, True)
    wrong.write_text("bad0.png\n", "utf-8")
    code, out, _ = run_cli(*fit, "--leave-out", wrong, "--json", "-o", tmp_path / "d.kizu")
    assert (code, json.loads(out)["images"]) == (0, 25)


def test_inspect_says_another_product_first(
    run_cli: Cli, model: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    code, _, said = run_cli("inspect", model, folders["other"], "-o", tmp_path / "other", "--no-panels")
    assert code == 0
    assert said.index("WARNING: These images do not look like the product") < said.index("called anomalous.")
    page = (tmp_path / "other" / "index.html").read_text("utf-8")
    assert 'role="alert"' in page
    code, _, said = run_cli("inspect", model, folders["test"], "-o", tmp_path / "same", "--no-panels")
    assert "WARNING" not in said
    assert 'role="alert"' not in (tmp_path / "same" / "index.html").read_text("utf-8")


def test_a_broken_promise_is_said(
    run_cli: Cli, model: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    """A threshold of scores that no good image of today stays below: all 12 are called anomalous."""
    detector = kizu.load(model)
    lowest = float(detector.predict(folders["test"]).score.min())
    detector.set_calibration([lowest * share / 40 for share in range(30)], 0.05)
    model = detector.save(tmp_path / "old.kizu")
    run_cli("inspect", model, folders["test"], "-o", tmp_path / "seen", "--no-panels")
    assert "more than good parts alone explain" in (tmp_path / "seen" / "index.html").read_text("utf-8")
    data = tmp_path / "data" / "test"
    shutil.copytree(folders["test"], data / "good")
    shutil.copytree(folders["bad"], data / "scratch")
    code, _, said = run_cli("evaluate", model, tmp_path / "data", "--no-masks", "-o", tmp_path / "run")
    assert code == 0
    assert "WARNING: The promise does not hold on these images: 12 of 12 good parts" in said
    assert 'role="alert"' in (tmp_path / "run" / "report.html").read_text("utf-8")
    recorded = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert len(recorded["warnings"]) == 1


def test_a_model_without_a_decision_never_says_none_called(
    run_cli: Cli, model: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    detector = kizu.load(model)
    detector.decision_ = None
    bare = detector.save(tmp_path / "bare.kizu")
    code, _, said = run_cli("inspect", bare, folders["test"], "-o", tmp_path / "seen", "--no-panels")
    assert code == 0
    assert "called anomalous" not in said
    assert "12 scored, none decided" in said
    code, _, said = run_cli("calibrate", bare, "--threshold", "1")
    assert (code, "holds no scores" in said) == (2, True)
