"""`kizu pretrain adpretrain`, `kizu fit` with the projector, an evaluation that refuses what it has seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import kizu
from kizu.samples import Samples

Cli = Callable[..., tuple[int, str, str]]
BASE = "random/resnet10t@1,2"
SMALL = (
    "--backbone", BASE, "--size", "32", "--batch-size", "2", "--device", "cpu", "--precision", "fp32",
    "--set", "references=4", "--set", "shots=1,2",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tiny_planted: Samples) -> Path:
    """Of a data set with masks, read as mvtec."""
    return Path(tiny_planted.paths[0]).parents[3]


@pytest.mark.slow
def test_from_pretraining_to_a_detector(
    folder: Path, tiny_planted: Samples, tmp_path: Path, run_cli: Cli
) -> None:
    data, out, model = f"mvtec:{folder}", tmp_path / "projector", tmp_path / "model.kizu"
    code, _, err = run_cli("pretrain", "adpretrain", *SMALL, "--data", data, "--steps", 2, "-o", out)
    assert code == 0, err
    assert f"Training {BASE} with adpretrain on {data}" in err
    assert f"--adaptation residual --adapt-set projector={out}" in err
    code, said, _ = run_cli("pretrain", "--resume", "-o", out, "--json")
    assert (code, json.loads(said)["projector"]) == (0, str(out))

    # the planted product's own images are seen: a detector may learn from them, but not be calibrated on them
    fit = (
        "fit", folder, "--dataset", "mvtec", "--category", "capsule", "--representation", BASE,
        "--detector", "gaussian", "--adaptation", "residual", "--set", "image_size=32",
    )  # fmt: skip
    projector = ("--adapt-set", f"projector={out}", "--adapt-set", "shots=2")
    code, _, err = run_cli(*fit, *projector, "--calibration", "none", "-o", model)
    assert code == 0, err
    detector = kizu.load(model)
    assert detector.representation_.card["kind"] == "projected"
    assert detector.predict(tiny_planted.test.take([0, 20])).score.isfinite().all()
    code, _, err = run_cli("evaluate", model, folder, "--dataset", "mvtec", "-o", tmp_path / "run")
    assert code == 2
    assert "seen" in err
    code, _, err = run_cli("pretrain", "adpretrain", *SMALL, "--spd", "--data", data, "-o", tmp_path / "two")
    assert code == 2
    assert "spd" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--data", "photos"), "Labelled images are named NAME:PATH"),
        ((), "adpretrain: --data NAME:PATH"),
        (("--data", "mvtec:absent"), "absent"),
        (("--data", "mvtec:{}", "--half"), "half has no effect on adpretrain"),
        (("--data", "mvtec:{}", "--set", "eta=1"), "There is no parameter of adpretrain named 'eta'"),
        (("--data", "mvtec:{}", "--set", "shots=40"), "up to 40 good others"),
        (("--data", "mvtec:{}", "--set", "margin=wide"), "The parameter margin is float, got 'wide'"),
    ],
)
def test_what_cannot_be_meant(
    arguments: tuple[str, ...], says: str, folder: Path, tmp_path: Path, run_cli: Cli
) -> None:
    given = [argument.format(folder) for argument in arguments]
    code, out, err = run_cli("pretrain", "adpretrain", *SMALL, *given, "--steps", 1, "-o", tmp_path / "out")
    assert code == 2
    assert out == ""
    assert says in err
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())
