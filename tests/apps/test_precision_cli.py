"""`--precision` of fit, inspect and evaluate: what was said is used, kept in the model, and said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import kizu
from kizu import store
from kizu.samples import Samples

Cli = Callable[..., tuple[int, str, str]]
FAST = ("--detector", "gaussian", "--representation", "random/resnet10t@1", "--set", "image_size=64")


@pytest.fixture
def model(tiny_planted: Samples, tmp_path: Path, run_cli: Cli) -> Path:
    good = Path(tiny_planted.paths[0]).parent
    code, out, _ = run_cli("fit", good, *FAST, "--precision", "fp32", "-o", tmp_path / "m.kizu", "--json")
    assert code == 0
    assert json.loads(out)["precision"]["precision"] == "fp32"
    return tmp_path / "m.kizu"


def test_it_is_kept_and_overruled(model: Path, tiny_planted: Samples, tmp_path: Path, run_cli: Cli) -> None:
    card = store.load_card(model)
    assert card["parameters"]["precision"] == "fp32"
    assert card["precision"]["how"] == "as asked for"
    assert kizu.load(model).precision == "fp32"
    tree = Path(tiny_planted.paths[0]).parents[2]
    for asked, used in ((), "fp32"), (("--precision", "bf16"), "bf16"):
        seen, run = tmp_path / f"seen_{used}", tmp_path / f"run_{used}"
        code, _, err = run_cli("inspect", model, tree / "test" / "good", *asked, "-o", seen)
        assert code == 0
        assert f"Precision: {used} (as asked for)." in err
        assert json.loads((seen / "inspection.json").read_text("utf-8"))["precision"]["precision"] == used
        code, out, _ = run_cli("evaluate", model, tree, *asked, "-o", run, "--json")
        assert code == 0
        assert json.loads(out)["precision"]["precision"] == used


def test_one_that_does_not_exist(model: Path, tiny_planted: Samples, tmp_path: Path, run_cli: Cli) -> None:
    images = Path(tiny_planted.paths[0]).parent
    code, _, err = run_cli("inspect", model, images, "--precision", "fp8", "-o", tmp_path / "seen")
    assert code == 2
    assert "precision is auto, fp32 or bf16, got 'fp8'" in err
    assert not (tmp_path / "seen").exists()
