"""`kizu fit --resume` and `kizu adapt`: killed and resumed it writes the very same model; what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import kizu
from kizu import store
from kizu.locks import locked
from kizu.representations.sources import open_representation
from kizu.samples import Samples

Cli = Callable[..., tuple[int, str, str]]
NET = "random/resnet10t@1,2"
KILLED = """
import functools, os, signal, sys
import torch
import kizu.training
from kizu.apps import cli
from kizu.detectors.learned import LearnedDetector
torch.set_num_threads(1)  # as the other runs of the test: sums depend on the number of threads
kizu.training.FitOptions = functools.partial(kizu.training.FitOptions, checkpoint_every=2)
on_step_end, steps = LearnedDetector._on_step_end, []
def kill(self, *arguments):
    steps.append(1)
    if len(steps) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return on_step_end(self, *arguments)
LearnedDetector._on_step_end = kill
cli.main(sys.argv[2:])
"""


@pytest.fixture
def data(tiny_planted: Samples) -> Path:
    return Path(tiny_planted.paths[0]).parents[3]


def fit_arguments(data: Path, *more: object, iterations: int = 5) -> list[str]:
    parameters = (
        "image_size=32",
        "batch_size=4",
        "embedding_width=8",
        "precision=fp32",
        "training_precision=fp32",
    )
    texts = [part for text in (f"iterations={iterations}", *parameters) for part in ("--set", text)]
    fixed = ("fit", data, "--dataset", "mvtec", "--detector", "recontrast", "--representation", NET, *texts)
    return [str(argument) for argument in (*fixed, *more)]


@pytest.mark.slow
@pytest.mark.parametrize(("calibration", "step"), [("none", 4), ("split", 4)])
def test_killed_and_resumed_is_the_same_model(
    data: Path, tmp_path: Path, run_cli: Cli, calibration: str, step: int
) -> None:
    whole, out = tmp_path / "whole.kizu", tmp_path / "model.kizu"
    arguments = fit_arguments(data, "--calibration", calibration)
    assert run_cli(*arguments, "-o", whole)[0] == 0
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(step), *arguments, "-o", str(out)],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    training = tmp_path / "model.kizu.training"
    assert not out.exists()
    assert store.load_card(training / "final" / "checkpoint.kizu")["step"] == 2
    code, _, error = run_cli(*arguments, "-o", out)
    assert code == 2
    assert "--resume" in error
    code, _, error = run_cli(*arguments, "--seed", 1, "-o", out, "--resume")
    assert code == 2
    assert "seed differ" in error
    image = next(data.rglob("train/good/*.png"))
    content = image.read_bytes()
    image.write_bytes(content + b"x")
    code, _, error = run_cli(*arguments, "-o", out, "--resume")
    image.write_bytes(content)
    assert code == 2
    assert "images differ" in error
    with locked(training):
        for more in ("--resume", "--overwrite"):
            code, _, error = run_cli(*arguments, "-o", out, more)
            assert (code, "Another run is writing" in error) == (2, True)
    code, _, error = run_cli(*arguments, "-o", out, "--resume")
    assert code == 0, error
    assert not training.exists()
    assert not (tmp_path / "whole.kizu.training").exists()
    (resumed, card), (expected, _) = store.load(out), store.load(whole)
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.items())
    assert (card["calibration"] or {}).get("method", "none") == calibration


def test_nothing_to_resume(data: Path, tmp_path: Path, run_cli: Cli) -> None:
    out = tmp_path / "model.kizu"
    code, _, error = run_cli(*fit_arguments(data), "-o", out, "--resume")
    assert code == 2
    assert "nothing to resume" in error
    assert len(error.splitlines()) == 1
    code, _, error = run_cli(
        "fit", data, "--dataset", "mvtec", "--representation", NET, "-o", out, "--resume"
    )
    assert code == 2
    assert "one pass" in error
    assert list(tmp_path.iterdir()) == []


def test_fit_with_an_adaptation(data: Path, tmp_path: Path, run_cli: Cli) -> None:
    out = tmp_path / "model.kizu"
    arguments = ("fit", data, "--dataset", "mvtec", "--representation", NET, "--detector", "gaussian")
    size = ("--set", "image_size=64", "--set", "precision=fp32", "--calibration", "cross")
    code, said, error = run_cli(
        *arguments, *size, "--adaptation", "residual", "--adapt-set", "shots=3", "-o", out, "--json"
    )
    assert code == 0, error
    assert json.loads(said)["calibration"]["method"] == "cross"
    card = store.load_card(out)
    assert card["adaptation"]["name"] == "residual"
    assert card["adaptation"]["parameters"] == {"shots": 3}
    for wrong, reason in (
        (("--adapt-set", "shots=3"), "no effect"),
        (("--adaptation", "residuals"), "residual"),
        (("--adaptation", "residual", "--adapt-set", "shot=3"), "shots"),
        (("--adaptation", "residual", "--adapt-set", "shots=many"), "int"),
    ):
        code, _, error = run_cli(*arguments, *wrong, "-o", tmp_path / "other")
        assert code == 2
        assert reason in error
        assert len(error.splitlines()) == 1


def test_adapt_writes_a_representation_that_knows_its_images(
    data: Path, tmp_path: Path, run_cli: Cli
) -> None:
    out = tmp_path / "adapted.kizu"
    arguments = ("adapt", data, "--dataset", "mvtec", "--adaptation", "residual", "--representation", NET)
    code, said, error = run_cli(*arguments, "--image-size", 64, "--set", "shots=3", "-o", out, "--json")
    assert code == 0, error
    assert json.loads(said)["images"] == 24
    net = open_representation(out)
    assert len(net.card["images_seen"]) == 24
    fit = ("fit", data, "--dataset", "mvtec", "--representation", out, "--detector", "gaussian")
    size = ("--set", "image_size=64")
    code, _, error = run_cli(*fit, *size, "-o", tmp_path / "model.kizu")
    assert code == 2
    assert "has seen 24 of the 24 images" in error
    assert run_cli(*fit, *size, "--calibration", "none", "-o", tmp_path / "model.kizu")[0] == 0
    model = kizu.load(tmp_path / "model.kizu")
    assert model.decision_ is None
    code, _, error = run_cli(*arguments, "-o", out)
    assert code == 2  # it is there already
    code, _, error = run_cli(*arguments, "-o", tmp_path / "other", "--resume")
    assert code == 2
    assert "nothing to resume" in error


def test_adaptations_are_listed(run_cli: Cli) -> None:
    code, said, _ = run_cli("list", "adaptations", "--json")
    assert code == 0
    assert "residual" in {row["name"] for row in json.loads(said)}


def test_a_folder_of_somebody_else_is_left_alone(data: Path, tmp_path: Path, run_cli: Cli) -> None:
    """OUT.training is where checkpoints go; what kizu did not write there is never removed."""
    kept = tmp_path / "m.kizu.training" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("mine", "utf-8")
    code, _, error = run_cli(
        *fit_arguments(data, "--calibration", "none", "-o", tmp_path / "m.kizu", "--overwrite")
    )
    assert code == 2
    assert "did not write" in error
    assert kept.read_text("utf-8") == "mine"
